"""Tables of texts that were written elsewhere: CSV, JSON lines and Parquet, read with bounds and line by line."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from harness.core.errors import InvalidFileError, UserError
from harness.core.reading import decode, has_lone_surrogate, number_json_lines, read_bytes

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
MAX_FILE = 2**28
"""Bytes of a file, unpacked if it is Parquet."""

MAX_FILES = 10_000
"""Tables in a directory."""

MAX_TEXT_LENGTH = 50_000
"""Characters of a text that was written elsewhere, also of one in a submission."""

_DELIMITERS = ",;\t"
_BATCH = 4096  # rows of a Parquet file that are unpacked at once


@dataclass(frozen=True)
class Table:
    """The rows of a file: number -> values by column, as many as ``columns``.

    ``unit``: what a number counts, lines from 1 or, in Parquet, rows from 1. ``odd``: columns of other types than text
    and whole numbers -> their type.
    """

    name: str
    columns: list[str]
    rows: list[tuple[int, list[Any]]]
    unit: str = "line"
    odd: dict[str, str] = field(default_factory=dict)

    def refuse(self, number: int, problem: str, hint: str = "") -> NoReturn:
        """Raise ``InvalidFileError`` for a row."""
        raise InvalidFileError(f"{self.name}, {self.unit} {number}", problem, hint)

    def column(self, name: str) -> list[Any]:
        """Return the values of a column, one for every row."""
        index = self.columns.index(name)
        return [values[index] for _, values in self.rows]

    def text(self, number: int, column: str, value: Any) -> str:
        """Return a value that has to be text; ``InvalidFileError`` for anything that cannot be scored as one."""
        if not isinstance(value, str):
            problem = f"has no value of {column!r}" if value is None else f"has {value!r:.40} in {column!r}, not text"
            self.refuse(number, problem, "Correct the row, or remove it.")
        if "\0" in value:
            self.refuse(number, f"has a NUL character in {column!r}", "Remove the character.")
        if has_lone_surrogate(value):
            self.refuse(number, f"holds half a character (a lone surrogate) in {column!r}", "Correct the row.")
        if len(value) > MAX_TEXT_LENGTH:
            problem = f"has {len(value):,} characters in {column!r}, {MAX_TEXT_LENGTH:,} are the most"
            self.refuse(number, problem, "Shorten the text, or remove the row.")
        return value


def find_tables(path: Path) -> list[Path]:
    """Return the file, or the tables in a directory and below, sorted by path; hidden ones are left out.

    Raises ``UserError`` where there is none, or more than ``MAX_FILES``.
    """
    if not path.is_dir():
        if path.suffix.lower() not in SUFFIXES:
            raise UserError(f"{path} is not a table of texts. Valid: files ending in {', '.join(SUFFIXES)}.")
        return [path]
    found = []
    for file in path.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if not hidden and file.suffix.lower() in SUFFIXES and not file.is_dir():
            found.append(file)
            if len(found) > MAX_FILES:
                raise UserError(f"{path} holds more than {MAX_FILES:,} tables. Import a part of them.")
    if not found:
        raise UserError(f"{path} holds no table of texts. Valid: files ending in {', '.join(SUFFIXES)}.")
    return sorted(found)


def read_table(path: Path) -> Table:
    """Return the rows of a file; ``InvalidFileError`` names the first broken line."""
    data, suffix = read_bytes(path, MAX_FILE), path.suffix.lower()
    if suffix == ".parquet":
        table = _read_parquet(data, path)
    else:
        text = _decode(data, path)
        table = _read_json_lines(text, path) if suffix == ".jsonl" else _read_csv(text, path)
    if not table.rows:
        raise InvalidFileError(path, "holds no rows", "Remove it, or fill it.")
    return table


def _decode(data: bytes, path: Path) -> str:
    try:
        return decode(data, path)
    except InvalidFileError:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise InvalidFileError(f"{path}, line {line}", "is not UTF-8 text", "Save the file as UTF-8.") from None
        raise


def _read_csv(text: str, path: Path) -> Table:
    header = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=header.count)
    found = list(_number_csv_rows(text, delimiter, path))
    if not found:
        raise InvalidFileError(path, "is empty", "Remove it, or fill it.")
    (_, columns), *rows = found
    _check_columns(columns, path)
    for number, values in rows:
        if len(values) != len(columns):
            counts = f"has {len(values)} values, the header has {len(columns)} columns"
            raise InvalidFileError(f"{path}, line {number}", counts, "Put values with commas or line breaks in quotes.")
    return Table(str(path), columns, list(rows))


def _number_csv_rows(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield every row that is not blank with the line that it begins on."""
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    first = 1
    try:
        for values in reader:
            if values:
                yield first, values
            first = reader.line_num + 1
    except csv.Error as error:
        problem = f"is not valid CSV ({error})"
        raise InvalidFileError(
            f"{path}, line {first}", problem, "Close all quotes; write a quotation mark within quotes twice."
        ) from None


def _read_json_lines(text: str, path: Path) -> Table:
    rows = list(number_json_lines(text, path))
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    return Table(str(path), columns, [(number, [row.get(key) for key in columns]) for number, row in rows])


def _read_parquet(data: bytes, path: Path) -> Table:
    """Return the columns of text and numbers; others are not unpacked at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[tuple[int, list[Any]]] = []
    unpacked = 0
    try:
        fields = list(pq.read_schema(pa.BufferReader(data)))
        _check_columns([each.name for each in fields], path)
        odd = {each.name: str(each.type) for each in fields if not _is_plain(each.type)}
        columns = [each.name for each in fields if each.name not in odd]
        # Values that repeat stay packed until their size is known: a few bytes can stand for many long texts.
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=columns)
        stated = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        unpacked = stated if stated > MAX_FILE else 0
        for batch in () if unpacked else file.iter_batches(_BATCH, columns=columns):
            arrays = [batch.column(batch.schema.get_field_index(name)) for name in columns]
            unpacked += sum(map(_unpacked_size, arrays))
            if unpacked > MAX_FILE:
                break
            values = [array.to_pylist() for array in arrays]
            rows += [(len(rows) + i, list(row)) for i, row in enumerate(zip(*values, strict=True), 1)]
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
        problem = f"is not a Parquet file that can be read ({' '.join(str(error).split())[:120]})"
        raise InvalidFileError(path, problem, "Write it again.") from None
    if unpacked > MAX_FILE:
        raise InvalidFileError(path, f"unpacks to more than {MAX_FILE >> 20} MiB", "Split it into several files.")
    return Table(str(path), columns, rows, "row", odd)


def _unpacked_size(array: Any) -> int:
    """Return the bytes of an array's values, each counted as often as it stands there."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    if types.is_dictionary(array.type) and not types.is_integer(array.type.value_type):
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        return int(pc.sum(lengths).as_py() or 0)
    return int(array.nbytes)


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind))


def _check_columns(names: Iterable[str], path: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InvalidFileError(path, f"has the column {twice[0]!r:.80} twice", "Rename one of them.")
