"""Language identification by a fastText model file, such as GlotLID."""

from __future__ import annotations

import importlib.util
import mmap
import struct
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.core.errors import UserError, unknown
from harness.core.files import file_digest
from harness.core.languages import FLORES, code_forms
from harness.scoring.identification import OTHER

MAGIC, VERSION, CLASSIFIER = 793712314, 12, 3


class FastTextIdentifier:
    """GlotLID or another fastText language classifier, from a file; loaded on first use.

    Its labels may be ISO 639-1, ISO 639-3 or FLORES-200 codes; languages that the suites do not know are ``other``.
    Its own first choice counts, whatever language was asked for. Raises ``UserError`` where the file is not such a
    model or the package is missing.
    """

    def __init__(self, path: Path) -> None:
        self._codes = {form: code for code in FLORES for form in code_forms(code)}
        labels = fasttext_labels(path)
        if not self._codes.keys() & set(labels):
            raise UserError(
                f"the labels of {path} are not languages that the suites know ({', '.join(labels[:3])}, ...). "
                "Use a model such as GlotLID, whose labels look like __label__amh_Ethi."
            )
        if importlib.util.find_spec("fasttext") is None:
            raise UserError("fastText models need one more package: pip install 'steerboard[glotlid]'.")
        self.name = path.stem
        self._path = path

    @cached_property
    def signature(self) -> str:
        """See ``Identifier.signature``."""
        return f"fasttext:{self.name}@{file_digest(self._path)[:16]}|version:1"

    @cached_property
    def _model(self) -> Any:
        import fasttext

        return fasttext.load_model(str(self._path))

    def identify(self, texts: Sequence[str]) -> list[str]:
        """Return the likeliest language of every text, as ISO 639-1 or ``other``."""
        return [code for code, _ in self.read(texts, "")]

    def read(self, texts: Sequence[str], asked: str) -> list[tuple[str, float]]:
        """See ``Identifier.read``. The whole text is read, as one line, as fastText expects."""
        # fastText refuses half of a surrogate pair, which JSON can contain.
        lines = [" ".join(text.encode("utf-8", "replace").decode().split()) for text in texts]
        return [self._first(*self._model.predict(line)) for line in lines]

    def _first(self, labels: Sequence[str], chances: Sequence[float]) -> tuple[str, float]:
        if not labels:
            return OTHER, 0.0
        return self._codes.get(labels[0].removeprefix("__label__"), OTHER), float(chances[0])


def open_identifier(spec: str) -> FastTextIdentifier:
    """Return the identifier of ``spec``: ``fasttext:PATH``. Raises ``UserError`` for anything else."""
    kind, _, path = spec.partition(":")
    if kind != "fasttext" or not path:
        raise unknown("identifier", spec, ["fasttext:PATH"], "GlotLID is a fastText model.")
    return FastTextIdentifier(Path(path).expanduser())


def fasttext_labels(path: Path) -> list[str]:
    """Return the labels of a fastText classifier (``.bin`` or ``.ftz``), without ``__label__``.

    Reads the header and the dictionary and compares the sizes of the matrices with the length of the file, as fastText
    0.9.2 writes them (``FastText::saveModel``). Raises ``UserError`` for a missing, foreign or truncated file and for
    models that are not classifiers.
    """
    # fasttext-predict lists no labels, and of a truncated file it loads garbage, hangs or ends the process.
    if not path.is_file():
        raise UserError(f"there is no file {path}. Pass the path of a fastText model, such as GlotLID's .bin.")
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            kind, labels = _Reader(data).model()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from None
    except (struct.error, ValueError):  # an empty file, or a field beyond the end
        raise UserError(f"{path} is not a fastText model, or is truncated. Download it again.") from None
    if kind != CLASSIFIER:
        raise UserError(f"{path} contains word vectors, not a classifier. Use a model such as GlotLID.")
    return labels


class _Reader:
    """A position in the file; every method moves it past one part of the model, or raises ``ValueError``."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def model(self) -> tuple[int, list[str]]:
        magic, version, *_, kind, _, _, _, _, _ = self._fields("2i12id")
        if magic != MAGIC or version > VERSION:
            raise ValueError
        if kind != CLASSIFIER:
            return kind, []
        size, _, _, _, pruned = self._fields("3i2q")
        entries = [self._entry() for _ in range(size)]
        self._skip(8 * max(pruned, 0))
        (quantised,) = self._fields("?")
        self._matrix(quantised)
        (output,) = self._fields("?")
        self._matrix(quantised and output)
        if self.at != len(self.data):
            raise ValueError
        return kind, [word.removeprefix("__label__") for word, is_label in entries if is_label]

    def _entry(self) -> tuple[str, int]:
        """Return a word of the dictionary, and whether it is a label."""
        start, self.at = self.at, self.data.find(b"\0", self.at) + 1
        if not self.at:
            raise ValueError
        word = self.data[start : self.at - 1].decode("utf-8", "replace")
        return word, self._fields("q?")[1]

    def _matrix(self, quantised: int) -> None:
        if not quantised:
            rows, columns = self._fields("2q")
            self._skip(4 * rows * columns)
            return
        norms, rows, _, codes = self._fields("?2qi")
        for size in (codes, rows) if norms else (codes,):
            self._skip(size)
            self._skip(4 * 256 * self._fields("4i")[0])  # the quantiser

    def _fields(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def _skip(self, size: int) -> None:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError
        self.at += size
