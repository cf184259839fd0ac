"""Directories of contrast text: ``<language>.jsonl`` (id, good, bad) and ``contrast.json`` with the recipe of each."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from harness.core.errors import BrokenFileError, InvalidFileError, UserError
from harness.core.files import digest, file_digest, run_lock, write_json, write_jsonl
from harness.core.reading import parse_json, read_bytes, read_jsonl
from harness.core.schema import Record, Versioned, format_validation_error, read_record
from harness.data.sources import check_unique

_MAX_IMPORT = 200 * 2**20  # bytes; the published files have 0.8 million
_CODE = re.compile(r"[A-Za-z]{2,8}([_-][A-Za-z0-9]{2,8})*", re.ASCII)
_EXPECTED = 'Expected: {"good": [...], "bad": [...]}, two lists of texts of equal length.'

ContrastKind = Literal["noise", "language-tokens", "prefix-tokens", "pair-models", "import"]


@dataclass(frozen=True)
class ContrastPair:
    """A human-written text and its degraded version."""

    id: str
    original: str
    degraded: str

    def to_json(self) -> dict[str, str]:
        """Return the row of a file; its field names are those of the published format."""
        return {"id": self.id, "good": self.original, "bad": self.degraded}


class ModelSource(Record):
    """A translation model: hub id or directory name, commit, content hash, search parameters."""

    name: str
    revision: str | None = None
    fingerprint: str
    search: dict[str, Any] = Field(default_factory=dict)


class BuildRecipe(Record):
    """Everything that decides the pairs of a language, and nothing else.

    ``path``: the codes that the text is translated through, the first and the last being the language itself; word
    noise of probability ``noise`` follows each hop. ``text``: hash of the input sentences or of the imported file.
    """

    kind: ContrastKind
    translator: str = ""
    models: list[ModelSource] = Field(default_factory=list)
    pivots: list[str] = Field(default_factory=list)
    path: list[str] = Field(default_factory=list)
    noise: float = 0.0
    dtype: str | None = None
    max_length: int | None = None
    chunk: int | None = None
    text: str

    @property
    def hash(self) -> str:
        """The short hash that names the recipe."""
        return digest(self.model_dump(mode="json"), 12)


class ContrastManifest(Record):
    """How the file of a language was made. ``pairs`` counts those that are left without equal and empty ones."""

    recipe: BuildRecipe
    recipe_hash: str
    source: str
    pairs: Annotated[int, Field(gt=0)]
    dropped_equal: int
    dropped_empty: int
    sha256: str
    versions: dict[str, str] = Field(default_factory=dict)


class ContrastFile(Versioned):
    """The file ``contrast.json``: language code -> how its pairs were made."""

    languages: dict[str, ContrastManifest] = Field(default_factory=dict)


class ContrastFolder:
    """A directory of contrast text; languages are added to it and never overwritten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index_path = path / "contrast.json"

    @property
    def name(self) -> str:
        """The name of the directory."""
        return self.path.resolve().name

    def pairs_path(self, language: str) -> Path:
        """Return where the pairs of a language are."""
        return self.path / f"{language}.jsonl"

    def index(self) -> ContrastFile:
        """Return the index, empty for a new directory; ``UserError`` for a foreign file."""
        return read_record(self.index_path, ContrastFile) if self.index_path.is_file() else ContrastFile()

    def made(self, language: str) -> ContrastManifest | None:
        """Return how a language was made, None if it is not there.

        Raises ``BrokenFileError`` if its file is missing or is not the one that was written.
        """
        made, path = self.index().languages.get(language), self.pairs_path(language)
        if made is not None and (not path.is_file() or file_digest(path) != made.sha256):
            state = "has been changed since it was made" if path.is_file() else "is missing"
            raise BrokenFileError(f"{path} {state}. Make the contrast text again in another folder.")
        return made

    def pairs(self, language: str) -> list[ContrastPair]:
        """Return the pairs of a language."""
        path, pairs = self.pairs_path(language), []
        for number, row in enumerate(read_jsonl(path), 1):
            fields = [row.get(name) for name in ("id", "good", "bad")]
            if not all(isinstance(field, str) and field.strip() for field in fields):
                raise BrokenFileError(f"{path}, row {number}: needs a non-empty 'id', 'good' and 'bad'.")
            pairs.append(ContrastPair(*map(str, fields)))
        check_unique((pair.id for pair in pairs), path)
        return pairs

    def fingerprint(self, languages: Iterable[str]) -> str:
        """Return a hash of the content of the files of ``languages``."""
        made = [self.made(code) for code in languages]
        return digest([item.sha256 if item else None for item in made])

    def holds(self, language: str, recipe: BuildRecipe) -> bool:
        """Say whether a language is finished; ``UserError`` if it was made by another recipe."""
        made = self.made(language)
        if made is not None and made.recipe_hash != recipe.hash:
            raise UserError(
                f"{self.path} holds contrast text of {language!r} by another recipe "
                f"({_differences(made.recipe, recipe)}). Give another --out folder."
            )
        return made is not None

    def add(
        self, language: str, recipe: BuildRecipe, pairs: Iterable[ContrastPair], source: str, versions: dict[str, str]
    ) -> ContrastManifest:
        """Write the pairs of a language, then its entry in the index: a language with an entry is complete.

        Empty pairs and pairs of equal texts are left out. Raises ``UserError`` if none is left.
        """
        pairs = list(pairs)
        full = [pair for pair in pairs if pair.original.strip() and pair.degraded.strip()]
        kept = [pair for pair in full if pair.original != pair.degraded]
        empty, equal = len(pairs) - len(full), len(full) - len(kept)
        if not kept:
            raise UserError(
                f"no contrast pair of {language!r} is left: {empty} are empty and in {equal} both texts are equal."
            )
        made = ContrastManifest(
            recipe=recipe,
            recipe_hash=recipe.hash,
            source=source,
            pairs=len(kept),
            dropped_equal=equal,
            dropped_empty=empty,
            sha256=write_jsonl(self.pairs_path(language), (pair.to_json() for pair in kept)),
            versions=versions,
        )
        languages = {**self.index().languages, language: made}
        write_json(self.index_path, ContrastFile(languages=dict(sorted(languages.items()))).to_json())
        return made

    def lock(self) -> AbstractContextManager[None]:
        """Lock the directory for one writing process; the system frees it when the process dies."""
        return run_lock(self.path, "--out")


def open_contrast(path: Path | None) -> ContrastFolder | None:
    """Return the directory to read contrast text from; ``UserError`` if it holds none."""
    if path is None:
        return None
    folder = ContrastFolder(path)
    if not folder.index_path.is_file():
        raise UserError(
            f"{path} holds no contrast text (no contrast.json). Give a folder made by "
            "'steerboard contrast build' or 'steerboard contrast import'."
        )
    folder.index()
    return folder


def check_code(code: str, option: str) -> str:
    """Return a language code that can name a file; ``UserError`` for anything else."""
    if not _CODE.fullmatch(code):
        raise UserError(f"{option} {code!r} is not a language code. Give one such as sk or amh_Ethi.")
    return code


class _PublishedFile(Record):
    good: Annotated[list[str], Field(min_length=1)]
    bad: Annotated[list[str], Field(min_length=1)]


def read_published(path: Path) -> list[ContrastPair]:
    """Return the pairs of a file in the published format (arXiv 2606.18389), with ids from ``pair-0000``.

    That is a JSON object of two lists of strings of equal length, ``good`` and ``bad``; ``UserError`` otherwise.
    """
    data = read_bytes(path, _MAX_IMPORT).removeprefix(codecs.BOM_UTF8)
    try:
        found = _PublishedFile.model_validate(parse_json(data, path, strict=True))
    except InvalidFileError as error:
        raise UserError(f"{path} {error.problem}. {_EXPECTED}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {format_validation_error(error)}. {_EXPECTED}") from None
    if len(found.good) != len(found.bad):
        raise UserError(f"{path}: {len(found.good)} good texts and {len(found.bad)} bad ones. {_EXPECTED}")
    return [ContrastPair(f"pair-{i:04}", *texts) for i, texts in enumerate(zip(found.good, found.bad, strict=True))]


def _differences(old: BuildRecipe, new: BuildRecipe) -> str:
    """Return the fields that differ, with their values if these are short."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    shown = {
        name: f"{name}: {value} there, {after[name]} now" for name, value in before.items() if value != after[name]
    }
    return "; ".join(words if len(words) < 80 else name for name, words in shown.items())
