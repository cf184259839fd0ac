"""What a fastText model file holds, read without fastText: its C++ code ends the process on a broken one."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from harness.core.errors import UserError

MAGIC, VERSION, CLASSIFIER = 793712314, 12, 3


def fasttext_labels(path: Path) -> list[str]:
    """Return the labels of a fastText classifier (``.bin`` or ``.ftz``), without ``__label__``.

    Reads the header and the dictionary and holds the sizes of the matrices against the length of the file,
    as fastText 0.9.2 writes them (``FastText::saveModel``). Raises ``UserError`` where there is no file, for
    other files, for models that are no classifiers and for half a download.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}. Give the path of a fastText model, such as GlotLID's .bin.")
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, path).model()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from None
    except (struct.error, ValueError):  # of an empty file, and where a field lies beyond the end
        raise _broken(path) from None


def _broken(path: Path) -> UserError:
    return UserError(f"{path} is no fastText model, or half of one. Get it again.")


class _Reader:
    """A position in the file; every method moves it behind one part of the model."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def model(self) -> list[str]:
        magic, version = self._fields("2i")
        if magic != MAGIC or version > VERSION:
            raise _broken(self.path)
        kind = self._fields("12id")[7]
        if kind != CLASSIFIER:
            raise UserError(f"{self.path} holds word vectors, not a classifier. Take a model such as GlotLID.")
        labels = self._dictionary()
        (quantised,) = self._fields("?")
        self._matrix(quantised)
        (output,) = self._fields("?")
        self._matrix(quantised and output)
        if self.at != len(self.data):
            raise _broken(self.path)
        return labels

    def _dictionary(self) -> list[str]:
        size, _, _, _, pruned = self._fields("3i2q")
        labels = []
        for _ in range(size):
            start, self.at = self.at, self.data.find(b"\0", self.at) + 1
            if not self.at:
                raise _broken(self.path)
            word = self.data[start : self.at - 1]
            _, is_label = self._fields("q?")
            if is_label:
                labels.append(word.decode("utf-8", "replace").removeprefix("__label__"))
        self._skip(8 * max(pruned, 0))
        return labels

    def _matrix(self, quantised: int) -> None:
        if not quantised:
            rows, columns = self._fields("2q")
            self._skip(4 * rows * columns)
            return
        norms, rows, _, codes = self._fields("?2qi")
        self._skip(codes)
        self._quantiser()
        if norms:
            self._skip(rows)
            self._quantiser()

    def _quantiser(self) -> None:
        columns = self._fields("4i")[0]
        self._skip(4 * 256 * columns)

    def _fields(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def _skip(self, size: int) -> None:
        if size < 0 or self.at + size > len(self.data):
            raise _broken(self.path)
        self.at += size
