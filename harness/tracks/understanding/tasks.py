"""Which lm-eval tasks are meant, in which languages: from names on the command line to loaded tasks."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.errors import UserError, unknown
from harness.core.languages import unknown_language
from harness.data.suite import Suite, tasks_root
from harness.tracks.understanding.tasks_by_language import OURS, language_of

_TASKS = {"TASK", "PY_TASK"}  # kinds of lm-eval's entries; others are groups and tags
_FLORES = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")


@dataclass(frozen=True)
class TaskLanguage:
    """One task in one language: ``family`` is what the board calls it, ``name`` what lm-eval calls it."""

    family: str
    language: str
    name: str


@dataclass
class TaskIndex:
    """The tasks of lm-eval, ours and those of further folders, by name; read when they are first needed.

    ``data``: folder of local data for our own tasks; else they come from the hub. To read all of lm-eval's
    tasks takes half a minute, so only folders whose files mention a name are read.
    """

    suite: Suite
    data: Path | None = None
    folders: Sequence[Path] = ()
    _managers: list[Any] = field(default_factory=list)
    _read: set[Path] = field(default_factory=set)
    _texts: list[tuple[Path, bytes]] | None = None

    def places(self, names: Iterable[str], languages: Sequence[str]) -> list[TaskLanguage]:
        """Return the places of the named tasks in some languages: a task of the suite, a task, group or tag
        of lm-eval, or ``TASK:LANGUAGE`` for one whose name says no language.

        Raises ``UserError`` for an unknown name, and for one that has no task in any of the languages.
        """
        found: dict[tuple[str, str], TaskLanguage] = {}
        for name in dict.fromkeys(names):
            own = list(self._places(name, languages))
            if not own:
                raise UserError(
                    f"task {name!r} is in none of the languages {', '.join(languages)}. Give others with "
                    "--languages, or another task."
                )
            for place in own:
                twin = found.setdefault((place.family, place.language), place)
                if twin.name != place.name:
                    raise UserError(
                        f"{name!r} has two tasks in {place.language!r}, {twin.name} and {place.name}. Name one of them."
                    )
        return list(found.values())

    def load(self, place: TaskLanguage) -> Any:
        """Return the task object of a place, its data read. Raises ``UserError`` where that fails."""
        manager = self._manager_of(place.name)
        try:
            task = manager.load([place.name])["tasks"][place.name]
        except UserError:
            raise
        except Exception as error:  # a task is a file and code of other people
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"task {place.name} cannot be loaded: {reason:.200}. Go online once for its data, or give "
                "--data a folder for the suite's own tasks."
            ) from None
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        return task

    def _places(self, name: str, languages: Sequence[str]) -> Iterator[TaskLanguage]:
        task, _, said = name.partition(":")
        if not said and task in self.suite.tasks:
            yield from self._of_names(task, {f"steerboard_{task}_{code}": code for code in languages}, languages)
            return
        members = self._members(task)
        if members is None:
            raise unknown("task", task, [*self.suite.tasks, *self._listed(task)], "Or any task of lm-eval.")
        if members == [task]:
            code = said or language_of(task)
            if code is None:
                raise UserError(f"task {task!r} names no language. Say which it is in, such as {task}:am.")
            if code not in languages:
                raise unknown_language(code, list(languages), f"It is that of task {task!r}.")
            family = task if said else task_group(task)
            yield TaskLanguage(family, code, task)
            return
        codes = {member: language_of(member) for member in members}
        known = {member: code for member, code in codes.items() if code is not None}
        if not known:
            raise UserError(f"no task of {task!r} names a language. Name one as TASK:LANGUAGE.")
        yield from self._of_names(task, known, languages)

    def _of_names(self, family: str, names: dict[str, str], languages: Sequence[str]) -> Iterator[TaskLanguage]:
        for name, code in names.items():
            if code in languages and self._entry(name) is not None:
                yield TaskLanguage(family, code, name)

    def _members(self, name: str) -> list[str] | None:
        """Return the tasks that a name stands for, itself where it is one; None where nothing has it.

        A name without an entry stands for the tasks that are called NAME_LANGUAGE.
        """
        entry = self._entry(name)
        if entry is None:
            return self._listed(name) or None
        if entry.kind.name in _TASKS:
            return [name]
        children = entry.tags if entry.kind.name == "TAG" else (entry.cfg or {}).get("task") or ()
        found: list[str] = []
        for child in sorted(child for child in children if isinstance(child, str)):
            found += self._members(child) or []
        return found

    def _listed(self, name: str) -> list[str]:
        return sorted(
            known
            for manager in self._managers
            for known, entry in manager.task_index.items()
            if known.startswith(f"{name}_") and task_group(known) == name and entry.kind.name in _TASKS
        )

    def _entry(self, name: str) -> Any:
        for manager in self._readers(name):
            entry = manager.task_index.get(name)
            if entry is not None:
                return entry
        return None

    def _manager_of(self, name: str) -> Any:
        return next(manager for manager in self._readers(name) if name in manager.task_index)

    def _readers(self, name: str) -> Iterator[Any]:
        """Yield readers of folders of tasks: what is read already, then what else mentions the name."""
        if not self._managers:
            self._managers.append(self._reader([tasks_root(), *self.folders]))
        yield from list(self._managers)
        if OURS.fullmatch(name) is None:
            new = [folder for folder in self._mentioning(name) if folder not in self._read]
            if new:
                self._managers.append(self._reader(new))
                yield self._managers[-1]

    def _mentioning(self, name: str) -> list[Path]:
        """Return the folders of lm-eval's own tasks in which a file mentions a name."""
        if self._texts is None:
            import lm_eval.tasks

            root = Path(lm_eval.tasks.__file__).parent
            files = sorted(path for path in root.glob("*/**/*") if path.suffix in {"", ".yaml"})
            self._texts = [
                (root / path.relative_to(root).parts[0], path.read_bytes()) for path in files if path.is_file()
            ]
        return list(dict.fromkeys(folder for folder, text in self._texts if name.encode() in text))

    def _reader(self, folders: list[Path]) -> Any:
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)  # its remarks are about the tasks' own files
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f"--include-path {folder} is no folder. Give one with lm-eval task files.")
        metadata: dict[str, Any] = {"data": str(self.data.resolve())} if self.data else {}
        self._read.update(folders)
        return TaskManager(include_path=folders, include_defaults=False, metadata=metadata)


def task_group(name: str) -> str:
    """Return the name of a task without the part that names its language: ``xnli`` for ``xnli_de``."""
    code, parts = language_of(name), name.split("_")
    for start in range(len(parts) - 1, 0, -1):
        for end in (start + 2, start + 1):
            cut, rest = "_".join(parts[start:end]), "_".join([*parts[:start], *parts[end:]])
            single = end == start + 1 or _FLORES.fullmatch(cut)
            if single and code and language_of(f"x_{cut}") == code and language_of(rest) is None:
                return rest
    return name
