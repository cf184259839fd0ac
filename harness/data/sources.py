"""Human-written text: labelled splits and parallel sentences, from a local directory or from the hub.

A local directory has ``<task>/<language>/<split>.jsonl`` (id, text, label), ``parallel/<language>.jsonl`` and
``parallel_mt/<system>/<language>.jsonl`` (id, text).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from typing_extensions import override

from harness.core.errors import BrokenFileError, MachineError, UserError
from harness.core.files import digest, file_digest
from harness.core.reading import has_lone_surrogate, read_jsonl
from harness.data.suite import Split, Suite, Task


@dataclass(frozen=True)
class Sentence:
    """A sentence; equal ids name translations of one another."""

    id: str
    text: str


@dataclass(frozen=True)
class Example(Sentence):
    """A labelled text."""

    label: str


def check_unique(ids: Iterable[str], path: object) -> None:
    """Raise ``BrokenFileError`` for an id that appears twice in a file: ids join translations."""
    first: dict[str, int] = {}
    for number, name in enumerate(ids, 1):
        if first.setdefault(name, number) < number:
            raise BrokenFileError(
                f"{path}, row {number}: the id {name!r:.80} is that of row {first[name]} already. Ids join "
                "translations, so each must appear once."
            )


class DataSource(ABC):
    """A source of human-written text."""

    description: str
    revisions: dict[str, str]

    @abstractmethod
    def rows(self, task: Task, split: Split) -> list[Example]:
        """Return the labelled texts of a split; ``UserError`` if they are missing or broken."""

    @abstractmethod
    def parallel(self, language: str) -> list[Sentence]:
        """Return the human-written parallel sentences of a language."""

    @abstractmethod
    def degraded(self, system: str, language: str) -> list[Sentence] | None:
        """Return a system's translations of the parallel sentences, None if it has none."""

    @abstractmethod
    def fingerprint(self, task: Task, splits: Sequence[Split]) -> str:
        """Return a hash of splits of ``task``, from their bytes."""

    @abstractmethod
    def vector_fingerprint(self, languages: Sequence[str], systems: Sequence[str]) -> str:
        """Return a hash of all text that vectors may use."""


class LocalData(DataSource):
    """A directory with the layout in the docstring of this module."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(
                f"the data folder {root} does not exist. Give --data a folder with "
                "<task>/<language>/<split>.jsonl and parallel/<language>.jsonl."
            )
        self.root = root
        self.description = str(root)
        self.revisions = {}

    @override
    def rows(self, task: Task, split: Split) -> list[Example]:
        path = self._split_path(task, split)
        return _examples(self._read(path), task, path)

    @override
    def parallel(self, language: str) -> list[Sentence]:
        return self._sentences(self.root / "parallel" / f"{language}.jsonl")

    @override
    def degraded(self, system: str, language: str) -> list[Sentence] | None:
        path = self.root / "parallel_mt" / system / f"{language}.jsonl"
        return self._sentences(path) if path.is_file() else None

    @override
    def fingerprint(self, task: Task, splits: Sequence[Split]) -> str:
        return digest([_digest_if_there(self._split_path(task, split)) for split in splits], 16)

    @override
    def vector_fingerprint(self, languages: Sequence[str], systems: Sequence[str]) -> str:
        folders = ["parallel", *(f"parallel_mt/{system}" for system in systems)]
        paths = [self.root / folder / f"{code}.jsonl" for folder in folders for code in languages]
        return digest([_digest_if_there(path) for path in paths], 16)

    def _split_path(self, task: Task, split: Split) -> Path:
        return self.root / task.name / task.language / f"{split}.jsonl"

    def _read(self, path: Path) -> list[dict[str, Any]]:
        if not path.is_file():
            raise BrokenFileError(
                f"missing data: {path} does not exist. Add it, or leave it out with --tasks / --languages."
            )
        try:
            rows = read_jsonl(path)
        except UserError as error:
            raise error if isinstance(error, MachineError) else BrokenFileError(str(error)) from None
        if not rows:
            raise BrokenFileError(f"missing data: {path} is empty.")
        return rows

    def _sentences(self, path: Path) -> list[Sentence]:
        sentences = []
        for number, row in enumerate(self._read(path), 1):
            text = row.get("text")
            if not isinstance(text, str) or not text.strip() or "id" not in row:
                raise BrokenFileError(f"{path}, row {number}: needs an 'id' and a non-empty 'text'.")
            sentences.append(Sentence(str(row["id"]), text))
        check_unique((sentence.id for sentence in sentences), path)
        return sentences


@cache
def _digest_if_there(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None


class HubData(DataSource):
    """Data sets of the Hugging Face hub, named by the task files, from the local cache if offline.

    Parallel sentences are the train rows of the suite's parallel task (SIB-200: one id per sentence in all languages),
    so no validation or test text enters a vector. There are no machine translations; contrast text falls back to
    word noise.
    """

    description = "hub"

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.revisions = {}
        self._rows: dict[tuple[str, str, Split], list[Example]] = {}

    @override
    def rows(self, task: Task, split: Split) -> list[Example]:
        key = (task.name, task.language, split)
        if key not in self._rows:
            for name, examples in _load_from_hub(task, self._snapshot(task)).items():
                self._rows[task.name, task.language, name] = examples
        return self._rows[key]

    @override
    def parallel(self, language: str) -> list[Sentence]:
        for by_language in self.suite.definitions.values():
            if (task := by_language.get(language)) and task.parallel:
                return [Sentence(row.id, row.text) for row in self.rows(task, "train")]
        raise UserError(f"the suite names no parallel text for language {language!r}. Give --data a folder.")

    @override
    def degraded(self, system: str, language: str) -> list[Sentence] | None:
        return None

    @override
    def fingerprint(self, task: Task, splits: Sequence[Split]) -> str:
        return digest([Path(self._snapshot(task)).name, list(splits)], 16)

    @override
    def vector_fingerprint(self, languages: Sequence[str], systems: Sequence[str]) -> str:
        tasks = [group[code] for group in self.suite.definitions.values() for code in languages if code in group]
        return digest([Path(self._snapshot(task)).name for task in tasks if task.parallel], 16)

    def _snapshot(self, task: Task) -> str:
        folder = _snapshot(task.dataset_path, task.revision, task.dataset_name)
        self.revisions[task.dataset_path] = Path(folder).name
        return folder


@cache
def _snapshot(dataset: str, revision: str | None, config: str | None) -> str:
    """Return the folder of a data set's snapshot; its name is the resolved commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["README.md", f"*{config}*"] if config else None
    try:
        return str(snapshot_download(dataset, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MachineError(
            f"missing data: the hub's data set {dataset!r} cannot be downloaded ({first:.120}). "
            "Go online once, or give --data a local folder."
        ) from None


def _load_from_hub(task: Task, folder: str) -> dict[Split, list[Example]]:
    import datasets

    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(folder, task.dataset_name, trust_remote_code=False)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(f"missing data: {task.dataset_path} is not readable ({error!s:.120}).") from None
    loaded: dict[Split, list[Example]] = {}
    for split, name in task.splits.items():
        if name is not None and name in table:
            where = f"{task.dataset_path}, {name}"
            if missing := sorted(set(task.fields.values()) - set(table[name].column_names)):
                raise UserError(f"{where}: has no column {', '.join(missing)}.")
            mapped = (_map_row(row, task, i) for i, row in enumerate(table[name]))
            loaded[split] = _examples([row for row in mapped if row], task, where)
    for needed in ("train", "test"):
        if needed not in loaded:
            raise UserError(f"missing data: {task.dataset_path} has no split {needed!r}.")
    if "validation" not in loaded:  # some hub sets have none: every tenth train row, by hash of id
        rows = sorted(loaded["train"], key=lambda row: digest(row.id))
        loaded["validation"], loaded["train"] = rows[::10], [row for i, row in enumerate(rows) if i % 10]
    return loaded


def _map_row(row: Mapping[str, Any], task: Task, index: int) -> dict[str, Any] | None:
    """Rename a hub row's fields; None for a row without text or with a label that the task drops."""
    label = str(row[task.fields["label"]])
    if task.label_map:
        if label not in task.label_map:
            return None
        label = task.label_map[label]
    text = row[task.fields["text"]]
    if text is None or not str(text).strip():
        return None
    identity = row[task.fields["id"]] if "id" in task.fields else f"row-{index}"
    return {"id": str(identity), "text": str(text), "label": label}


def _examples(rows: Sequence[Mapping[str, Any]], task: Task, path: object) -> list[Example]:
    examples = []
    for number, row in enumerate(rows, 1):
        where, text, label = f"{path}, row {number}", row.get("text"), row.get("label")
        if not isinstance(text, str) or not text.strip():
            raise BrokenFileError(f"{where}: needs a non-empty 'text'.")
        if has_lone_surrogate(text):  # only in rows of the hub: the reader of files refuses them
            raise BrokenFileError(f"{where}: holds half a character (a lone surrogate).")
        if label not in task.labels:
            raise BrokenFileError(f"{where}: the label {label!r} is not one of {', '.join(task.labels)}.")
        examples.append(Example(str(row.get("id", where)), text, str(label)))
    check_unique((example.id for example in examples), path)
    return examples


def open_data(suite: Suite, folder: Path | None) -> DataSource:
    """Return the data of a run: the given directory, else that of the suite, else the hub."""
    chosen = folder or suite.folder("data")
    return LocalData(chosen) if chosen else HubData(suite)
