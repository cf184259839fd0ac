"""Folders of contrast text: ``<language>.jsonl`` (id, good, bad) and ``contrast.json``, which says how
each language was made. Pure format: nothing here runs a model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from harness.core.errors import BrokenFileError, UserError
from harness.core.files import digest, file_digest, run_lock, write_json, write_jsonl
from harness.core.reading import has_lone_surrogate, read_json, read_jsonl, read_text
from harness.core.records import SCHEMA, Record, Versioned
from harness.data.sources import unique

_LARGEST_IMPORT = 200 * 10**6  # bytes; the published files have 0.8 million
_CODE = re.compile(r"[A-Za-z]{2,8}([_-][A-Za-z0-9]{2,8})*", re.ASCII)

Kind = Literal["noise", "language-tokens", "prefix-tokens", "pair-models", "import"]


@dataclass(frozen=True)
class ContrastPair:
    """Human text and its degraded version."""

    id: str
    good: str
    bad: str


class ModelSource(Record):
    """A translation model: hub id or folder name, commit, content hash, how its output is searched."""

    name: str
    revision: str | None = None
    fingerprint: str
    search: dict[str, Any] = Field(default_factory=dict)


class BuildRecipe(Record):
    """All that decides the pairs of a language, and nothing else.

    ``path``: the codes that the text goes through, the first and the last being the language itself;
    each step is a hop, after which word noise of probability ``noise`` is put. ``text``: hash of ids
    and texts that went in, or of the imported file.
    """

    kind: Kind
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
    """How the file of a language came about. Equal and empty pairs were left out of ``pairs``."""

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
    """A folder of contrast text; it grows by languages, and no language in it is ever overwritten."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def index_path(self) -> Path:
        """Where ``contrast.json`` lies."""
        return self.path / "contrast.json"

    def pairs_path(self, language: str) -> Path:
        """Where the pairs of a language lie."""
        return self.path / f"{language}.jsonl"

    def index(self) -> ContrastFile:
        """Return what the folder holds, nothing if it is new; ``UserError`` for a foreign file."""
        if not self.index_path.is_file():
            return ContrastFile()
        body = read_json(self.index_path, SCHEMA)
        try:
            return ContrastFile.model_validate(body)
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise UserError(
                f"{self.index_path} was not written by steerboard ({place}: "
                f"{error.errors()[0]['msg']}). Make the folder anew."
            ) from None

    def made(self, language: str) -> ContrastManifest | None:
        """Return how a language was made, None where the folder lacks it.

        Raises ``UserError`` where its file is missing or is not the one that was written.
        """
        made, path = self.index().languages.get(language), self.pairs_path(language)
        if made is None:
            return None
        if not path.is_file() or file_digest(path) != made.sha256:
            state = "has been changed since it was made" if path.is_file() else "is missing"
            raise BrokenFileError(f"{path} {state}. Make the contrast text again in another folder.")
        return made

    def pairs(self, language: str) -> list[ContrastPair]:
        """Return the pairs of a language that the folder holds."""
        path, pairs = self.pairs_path(language), []
        for number, row in enumerate(read_jsonl(path), 1):
            fields = [row.get("id"), row.get("good"), row.get("bad")]
            if not all(isinstance(field, str) and field.strip() for field in fields):
                raise BrokenFileError(f"{path}, row {number}: needs a non-empty 'id', 'good' and 'bad'.")
            pairs.append(ContrastPair(*map(str, fields)))
        return unique(pairs, str(path))

    def fingerprint(self, languages: Iterable[str]) -> str:
        """Return a hash of the content of the files of ``languages``."""
        known = self.index().languages
        return digest([known[code].sha256 if code in known and self.made(code) else None for code in languages])

    def holds(self, language: str, recipe: BuildRecipe) -> bool:
        """Say whether a language is finished; ``UserError`` where it was made by another recipe."""
        made = self.made(language)
        if made is None:
            return False
        if made.recipe_hash != recipe.hash:
            raise UserError(
                f"{self.path} holds contrast text of {language!r} by another recipe "
                f"({_differences(made.recipe, recipe)}). Give another --out folder."
            )
        return True

    def add(
        self, language: str, recipe: BuildRecipe, pairs: Iterable[ContrastPair], source: str, versions: dict[str, str]
    ) -> ContrastManifest:
        """Write the pairs of a language, then its entry: a language with an entry is whole.

        Empty pairs and pairs of equal texts are left out. Raises ``UserError`` where none is left.
        """
        pairs = list(pairs)
        full = [pair for pair in pairs if pair.good.strip() and pair.bad.strip()]
        kept = [pair for pair in full if pair.good != pair.bad]
        if not kept:
            raise UserError(
                f"no contrast pair of {language!r} is left: {len(pairs) - len(full)} are empty and "
                f"in {len(full)} both texts are equal."
            )
        write_jsonl(self.pairs_path(language), ({"id": p.id, "good": p.good, "bad": p.bad} for p in kept))
        made = ContrastManifest(
            recipe=recipe,
            recipe_hash=recipe.hash,
            source=source,
            pairs=len(kept),
            dropped_equal=len(full) - len(kept),
            dropped_empty=len(pairs) - len(full),
            sha256=file_digest(self.pairs_path(language)),
            versions=versions,
        )
        languages = {**self.index().languages, language: made}
        write_json(self.index_path, ContrastFile(languages=dict(sorted(languages.items()))).to_json())
        return made

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder for one writing process; freed by the system when the process dies."""
        return run_lock(self.path, "--out")


def open_contrast(path: Path | None) -> ContrastFolder | None:
    """Return the folder to read contrast text from; ``UserError`` where it is none."""
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
        raise UserError(f"{option} {code!r} is no language code. Give one such as sk or amh_Ethi.")
    return code


def read_published(path: Path) -> list[ContrastPair]:
    """Return the pairs of a file in the published format (arXiv 2606.18389).

    That is a JSON object of two lists of strings of equal length, ``good`` and ``bad``. The ids are
    ``pair-0000`` and so on. Raises ``UserError`` for anything else.
    """
    if path.is_file() and path.stat().st_size > _LARGEST_IMPORT:
        raise UserError(
            f"{path} has {path.stat().st_size / 1e6:.0f} MB; at most {_LARGEST_IMPORT / 1e6:.0f} are "
            "read. Split it by language."
        )
    try:
        body = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). {_EXPECTED}") from None
    if not isinstance(body, dict) or set(body) != {"good", "bad"}:
        found = f"the keys {', '.join(map(repr, body))}" if isinstance(body, dict) else type(body).__name__
        raise UserError(f"{path} holds {found:.120}. {_EXPECTED}")
    good, bad = (_texts(path, body, key) for key in ("good", "bad"))
    if len(good) != len(bad):
        raise UserError(f"{path}: {len(good)} good texts and {len(bad)} bad ones. {_EXPECTED}")
    return [ContrastPair(f"pair-{i:04}", *texts) for i, texts in enumerate(zip(good, bad, strict=True))]


_EXPECTED = 'Expected: {"good": [...], "bad": [...]}, two lists of texts of equal length.'


def _texts(path: Path, body: dict[str, Any], key: str) -> list[str]:
    texts = body[key]
    if not isinstance(texts, list) or not texts:
        raise UserError(f"{path}: {key!r} is not a list of texts, or empty. {_EXPECTED}")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{path}: {key!r}, item {number} is {text!r:.60}, not a text. {_EXPECTED}")
        if has_lone_surrogate(text):
            raise UserError(f"{path}: {key!r}, item {number} holds half a letter (a lone surrogate).")
    return texts


def _differences(old: BuildRecipe, new: BuildRecipe) -> str:
    """Return in words which fields differ, with their values where these are short."""
    words = []
    for field, before in old.model_dump(mode="json").items():
        now = getattr(new, field) if field != "models" else [m.model_dump() for m in new.models]
        if before != now:
            shown = f"{field}: {before} there, {now} now"
            words.append(shown if len(shown) < 80 else field)
    return "; ".join(words)
