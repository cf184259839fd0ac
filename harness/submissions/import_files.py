"""Read texts that were written elsewhere: guess which columns and names of files say what, and say it.

A file or row that is not of the suite is left out with a reason; whatever is broken or ambiguous is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.core.errors import UserError, unknown
from harness.core.files import digest
from harness.core.languages import LANGUAGES, check_known, code_forms
from harness.data.suite import Suite
from harness.data.tables import find_tables, read_table
from harness.methods.contract import check_name
from harness.methods.registry import BUILT_IN
from harness.submissions.duplicates import LEAST, SHARED, skeleton

ROLES = ("text", "label", "task", "language", "seed")
"""What a column can hold."""

_COLUMNS = {
    "text": ("text", "generated_text", "generation", "sentence", "output", "content", "review", "tweet", "comment"),
    "label": ("label", "intent", "label_text", "label_name", "category", "sentiment", "topic", "class", "target"),
    "task": ("task",),
    "language": ("language", "lang", "language_code", "locale"),
    "seed": ("seed", "generation_seed", "run"),
}
_HUMAN = {"human", "test", "gold", "validation", "dev"}
"""Words of file names of human-written text, which data sets have beside the generated."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_SHELL = re.compile(r"[\w./+-]{1,40}")  # a value that a command needs no quotes for
_WORDS = re.compile(r"[^\W_]+")
_SEED = re.compile(r"(?:^|[^a-z])(?:seed|run)[-_ ]?(\d{1,9})(?!\d)")


@dataclass(frozen=True)
class ImportOptions:
    """What whoever imports states; None leaves it to what the files say.

    ``columns``: role -> column; ``labels``: label of the files -> label of the suite, empty to leave its rows out.
    """

    path: Path
    name: str
    model: str
    setting: str = "zero-shot"
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    task: str | None = None
    language: str | None = None
    seed: int | None = None


class LeftOutError(UserError):
    """A file or row that is not of the suite: an error where it was named, otherwise it is left out."""


GroupKey = tuple[str, str, str]
"""Task, language, and the seed as the files have it; empty for none."""


@dataclass
class ImportedTexts:
    """The texts of an import. ``texts``: group -> label -> texts in file order; ``files``: group -> label -> names.

    ``sources``: of every file, role -> where it was found, in words.
    ``left_out``: reason -> names of files, or numbers of rows in words. ``notes``: what is odd, but counts.
    """

    suite: Suite
    options: ImportOptions
    sources: list[dict[str, str]] = field(default_factory=list)
    texts: dict[GroupKey, dict[str, list[str]]] = field(default_factory=dict)
    files: dict[GroupKey, dict[str, list[str]]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def seeds(self) -> dict[str, int]:
        """Seed as the files have it -> generation seed of the suite: the same, or in order where they are others."""
        found, valid = sorted({key[2] for key in self.texts}, key=_by_number), self.suite.seeds
        if found == [""]:
            return {"": valid[0] if self.options.seed is None else self.options.seed}
        if all(seed in map(str, valid) for seed in found):
            return {seed: int(seed) for seed in found}
        return dict(zip(found, valid, strict=False))

    @cached_property
    def digest(self) -> str:
        """Hash of all texts with their labels, tasks, languages and seeds, whatever the files are called."""
        return digest([[*key, self.texts[key]] for key in sorted(self.texts)], 16)

    def group(self, task: str, language: str, seed: int) -> dict[str, list[str]]:
        """Return label -> texts of a cell; empty where there are none."""
        return next((self.texts.get((task, language, own), {}) for own, to in self.seeds.items() if to == seed), {})


def read_texts(options: ImportOptions, suite: Suite) -> ImportedTexts:
    """Read and check all files; writes nothing.

    Raises ``UserError`` for what is broken or ambiguous, with the option that decides it.
    """
    _check_options(options, suite)
    found, single = ImportedTexts(suite, options), not options.path.is_dir()
    for path in find_tables(options.path):
        name = path.name if single else str(path.relative_to(options.path))
        try:
            human = _HUMAN.intersection(_words(path.stem))
            if human:
                raise LeftOutError(f"human-written text, by the word {min(human)!r} in the name of the file")
            _FileReader(found, path).read()
        except LeftOutError as error:
            if single:
                raise UserError(f"{path}: {error}.") from None
            found.left_out.setdefault(str(error), []).append(name)
    if not found.texts:
        reason, names = next(iter(found.left_out.items()), ("no row is of the suite", [str(options.path)]))
        raise UserError(f"nothing to import from {options.path}: {names[0]}: {reason}.")
    _check_seeds(found)
    _check_draws(found)
    repeats = {
        key: sum(len(group) - len(set(group)) for group in by_label.values()) for key, by_label in found.texts.items()
    }
    if first := next((key for key, count in repeats.items() if count), None):
        where = "/".join(filter(None, first))
        found.notes.append(
            f"{sum(repeats.values())} texts repeat an earlier one of their cell and label (the first in {where}); they "
            "stay and count as duplicates"
        )
    return found


def _check_options(options: ImportOptions, suite: Suite) -> None:
    check_name(options.name)
    if not _MODEL.fullmatch(options.model):
        raise UserError(f"--model {options.model!r:.80} is not the name of a model. Give it as OWNER/NAME or NAME.")
    like = next((known for known in BUILT_IN if skeleton(known) == skeleton(options.name)), None)
    if like:
        raise UserError(f"--name {options.name!r} is, or looks like, the built-in method {like!r}. Choose another.")
    for option, value, valid in (("--task", options.task, suite.tasks), ("--setting", options.setting, suite.settings)):
        if value is not None and value not in valid:
            raise unknown(option, value, valid)
    if options.seed is not None and options.seed not in suite.seeds:
        raise unknown("--seed", str(options.seed), map(str, suite.seeds))
    check_known("language", [options.language] if options.language else None, suite.languages)
    check_known("role in --columns", options.columns, ROLES)
    labels = {label for task in suite.tasks for label in _labels(suite, task)}
    check_known("label in --map", [label for label in options.labels.values() if label], labels)


def _check_seeds(found: ImportedTexts) -> None:
    """Raise ``UserError`` where it is not clear which generation seed a text belongs to."""
    for (task, language, seed), by_label in found.files.items():
        for names in by_label.values():
            if not seed and len(names) > 1:
                raise UserError(
                    f"{names[0]} and {names[1]} are both {task}/{language}, with no seed. Name the generation seed in "
                    "the files (seed1, seed2) or in a column 'seed', or put one draw into one file."
                )
    without = [key for key in found.texts if not key[2]]
    if without and len({key[2] for key in found.texts}) > 1:
        raise UserError(f"texts of {'/'.join(without[0][:2])} have no seed, others have one. Name the seeds of all.")
    if found.options.seed is not None and not without:
        raise UserError(f"--seed {found.options.seed}: the files have seeds of their own. Leave out --seed.")
    if gone := [seed for seed in sorted({key[2] for key in found.texts}, key=_by_number) if seed not in found.seeds]:
        reason = f"more seeds than the suite's {len(found.suite.seeds)}"
        found.left_out[reason] = [f"seed {seed}" for seed in gone]


def _check_draws(found: ImportedTexts) -> None:
    """Raise ``UserError`` where two seeds have the same texts: copies would make intervals too small."""
    draws: dict[tuple[str, str], list[tuple[str, set[str]]]] = {}
    for key in sorted(found.texts):
        task, language, seed = key
        own = {text for texts in found.texts[key].values() for text in texts}
        for other, theirs in draws.setdefault((task, language), []):
            fewer = min(len(own), len(theirs))
            if len(own & theirs) > SHARED * fewer and fewer >= LEAST:
                raise UserError(
                    f"seeds {other} and {seed} of {task}/{language} share {len(own & theirs)} of {fewer} texts. Every "
                    "seed has to be a draw of its own; import one of them."
                )
        draws[task, language].append((seed, own))


class _FileReader:
    """Reads one file into the texts of an import."""

    def __init__(self, found: ImportedTexts, path: Path) -> None:
        self.found, self.path = found, path
        self.suite, self.options = found.suite, found.options
        root = found.options.path
        inside = path.parent.relative_to(root).parts if root.is_dir() else ()
        above = root.resolve().name if root.is_dir() else path.resolve().parent.name
        self.parts = [path.stem, *reversed(inside), above]  # the nearest word counts

    def read(self) -> None:
        self.table = table = read_table(self.path)
        self.sources: dict[str, str] = {}
        self.chosen = {role: self._column(role) for role in ("task", "language", "seed")}
        texts = self._column("text")
        if texts is None:
            raise LeftOutError(
                f"no column named as texts usually are ({_listed(table.columns)}); --columns text=NAME says which"
            )
        tasks = self._tasks()
        languages = self._languages()
        labels = self._label_values(tasks)
        seeds = self._seeds()
        self._add(texts, tasks, languages, labels, seeds)
        self.found.sources.append(self.sources)

    def _column(self, role: str) -> str | None:
        """Return the column of a role by its name, None where there is none; label columns also need the values."""
        table = self.table
        asked = self.options.columns.get(role)
        if asked is not None and asked in table.odd:
            raise UserError(f"{table.name}: column {asked!r} is of type {table.odd[asked]:.60}, not text.")
        if asked is not None:
            check_known(f"column of {table.name}", [asked], table.columns)
            found = [asked]
        else:
            named = {name.strip().casefold().replace(" ", "_"): name for name in [*table.columns, *table.odd]}
            found = [named[name] for name in _COLUMNS[role] if name in named]
            if found and found[0] in table.odd:
                raise UserError(
                    f"{table.name}: column {found[0]!r} is of type {table.odd[found[0]]:.60}, not text. "
                    f"Name another with --columns {role}=NAME, or write it as text."
                )
        if len(found) > 1:
            raise UserError(
                f"{table.name}: columns {_listed(found)} could each be the {role}. "
                f"Say which one: --columns {role}={found[0]}."
            )
        if not found:
            return None
        self.sources[role] = f"column {found[0]!r}"
        return found[0]

    def _tasks(self) -> list[str | None]:
        """Return the task of every row, None for one that the suite does not have."""
        n, valid = len(self.table.rows), self.suite.tasks
        if self.options.task:
            self.sources["task"] = "--task"
            return [self.options.task] * n
        if self.chosen["task"]:
            forms = {task.casefold(): task for task in valid}
            return [forms.get(_value(value)) for value in self.table.column(self.chosen["task"])]
        found = self._in_path("task", {task.casefold(): task for task in valid})
        if found is None:
            found = self._task_of_labels()
        return [found] * n

    def _task_of_labels(self) -> str:
        """Return the only task whose labels some column holds."""
        fitting = [task for task in self.suite.tasks if self._columns_with([task])]
        if len(fitting) != 1:
            names = ", ".join(self.suite.tasks)
            raise LeftOutError(f"neither path nor labels name one task of the suite ({names}); --task says which")
        self.sources["task"] = "the labels"
        return fitting[0]

    def _languages(self) -> list[str | None]:
        """Return the language of every row, None for one that the suite does not have."""
        if self.options.language:
            self.sources["language"] = "--language"
            return [self.options.language] * len(self.table.rows)
        forms = {form.casefold(): code for code in self.suite.languages for form in _forms(code)}
        if self.chosen["language"]:
            return [forms.get(_value(value)) for value in self.table.column(self.chosen["language"])]
        found = self._in_path("language", forms)
        if found is None:
            raise LeftOutError(
                f"no language of the suite in the path ({', '.join(self.suite.languages)}); --language says which"
            )
        return [found] * len(self.table.rows)

    def _seeds(self) -> list[str]:
        column = self.chosen["seed"]
        if column:
            seeds = []
            for (number, _), value in zip(self.table.rows, self.table.column(column), strict=True):
                text = _value(value)
                if not re.fullmatch(r"\d{1,9}", text):
                    self.table.refuse(number, f"has the seed {value!r:.40}", "Seeds are whole numbers.")
                seeds.append(str(int(text)))
            return seeds
        for part in self.parts:
            if named := _SEED.search(part.casefold()):
                self.sources["seed"] = "the path"
                return [str(int(named[1]))] * len(self.table.rows)
        self.sources["seed"] = "not stated" if self.options.seed is None else "--seed"
        return [""] * len(self.table.rows)

    def _in_path(self, what: str, forms: Mapping[str, str]) -> str | None:
        """Return what the words of the path name, the nearest to the file's name first."""
        for part in self.parts:
            words = _words(part)
            found = dict.fromkeys(forms[word] for word in words if word in forms)
            if len(found) > 1:
                how = "in a column 'label'" if what == "label" else f"with --{what}"
                raise UserError(
                    f"{self.table.name}: its path holds several {what}s ({', '.join(found)}). Say which one {how}."
                )
            if found:
                self.sources[what] = "the path"
                return next(iter(found))
        return None

    # Labels

    def _label(self, value: Any, labels: Sequence[str]) -> str | None:
        """Return the label of the suite that a value stands for, empty for one to leave out, None if unknown."""
        text = str(value).strip() if isinstance(value, str | int) else ""
        if text in self.options.labels:
            return self.options.labels[text]
        return next((label for label in labels if label.casefold() == text.casefold()), None)

    def _columns_with(self, tasks: Iterable[str]) -> list[str]:
        """Return the columns of labels by name of which most values are labels of the tasks."""
        table, labels = self.table, [label for task in tasks for label in _labels(self.suite, task)]
        named = {name.strip().casefold().replace(" ", "_"): name for name in table.columns}
        found = []
        for name in (named[each] for each in _COLUMNS["label"] if each in named):
            known = sum(self._label(value, labels) is not None for value in table.column(name))
            if 2 * known > len(table.rows):
                found.append(name)
        return found

    def _label_values(self, tasks: Sequence[str | None]) -> list[Any]:
        """Return the value of every row's label: of a column, or a word of the path."""
        table = self.table
        if "label" in self.options.columns:
            column = self._column("label")
        else:
            columns = self._columns_with(dict.fromkeys(task for task in tasks if task))
            if len(columns) > 1 and any(table.column(name) != table.column(columns[0]) for name in columns[1:]):
                raise UserError(
                    f"{table.name}: columns {_listed(columns)} could each be the label. "
                    f"Say which one: --columns label={columns[0]}."
                )
            column = columns[0] if columns else None
            if column is None and (label := self._label_in_path(tasks)) is not None:
                return [label] * len(table.rows)
            column = column or self._column("label")  # its values are not labels: the first is named below
        if column is None:
            raise UserError(
                f"{table.name}: none of the columns {_listed(table.columns)} is named as labels usually are. "
                "Say which one: --columns label=NAME."
            )
        self.sources["label"] = f"column {column!r}"
        return table.column(column)

    def _label_in_path(self, tasks: Sequence[str | None]) -> str | None:
        if any(name.strip().casefold() in _COLUMNS["label"] for name in self.table.columns):
            return None
        known = dict.fromkeys(task for task in tasks if task)
        forms = {label.casefold(): label for task in known for label in _labels(self.suite, task)}
        return self._in_path("label", {**forms, **{k.casefold(): v for k, v in self.options.labels.items() if v}})

    # Rows

    def _add(
        self,
        column: str,
        tasks: Sequence[str | None],
        languages: Sequence[str | None],
        labels: Sequence[Any],
        seeds: Sequence[str],
    ) -> None:
        found, table = self.found, self.table
        gone: dict[str, int] = {}
        empty: list[int] = []
        rows = zip(table.rows, table.column(column), tasks, languages, labels, seeds, strict=True)
        for (number, _), value, task, language, own, seed in rows:
            text = table.text(number, column, value)
            reason = "" if task and language else f"not of a {'language' if task else 'task'} of the suite"
            label = self._known_label(number, own, task) if task and not reason else None
            if reason or not label:
                reason = reason or "labels that --map leaves out"
                gone[reason] = gone.get(reason, 0) + 1
                continue
            assert task and language
            if not text.strip():
                empty.append(number)
            key = (task, language, seed)
            found.texts.setdefault(key, {}).setdefault(label, []).append(text)
            names = found.files.setdefault(key, {}).setdefault(label, [])
            if table.name not in names:
                names.append(table.name)
        for reason, count in gone.items():
            found.left_out.setdefault(reason, []).append(f"{count} row{'s' if count > 1 else ''} of {self.path.name}")
        if empty:
            more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
            found.notes.append(f"{table.name}, {table.unit} {empty[0]}{more}: the text is empty; it counts as invalid")

    def _known_label(self, number: int, value: Any, task: str) -> str:
        labels = _labels(self.suite, task)
        label = self._label(value, labels)
        if label is None or (label and label not in labels):
            known, own = ", ".join(labels), str(value).strip()
            own = own if _SHELL.fullmatch(own) else "VALUE"
            self.table.refuse(
                number,
                f"has the label {value!r:.60} ({self.sources['label']}), not one of task {task!r}; valid: {known}",
                f"Say what it means: --map {own}=LABEL ('{own}=' leaves its rows out). Or name another column: "
                "--columns label=NAME.",
            )
        return label


def _value(value: Any) -> str:
    """Return a value of a column as a word to look up."""
    return str(value).strip().casefold() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.casefold())


def _forms(code: str) -> list[str]:
    """Return what a language is called: its codes and its names."""
    own = LANGUAGES.get(code)
    # Withdrawn codes of two letters, such as "in", are words of other names.
    codes = [form for form in code_forms(code) if form == code or len(form) > 2]
    return [*codes, *([own.name, own.native_name] if own else [])]


def _labels(suite: Suite, task: str) -> list[str]:
    return suite.task(task, suite.languages[0]).labels


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name)[:60] for name in list(names)[:12])


def _by_number(seed: str) -> tuple[int, str]:
    return (int(seed) if seed else -1, seed)
