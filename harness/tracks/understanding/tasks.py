"""Resolve names on the command line to lm-eval tasks, and read the language of each."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.errors import UserError, unknown
from harness.core.languages import FLORES, LANGUAGES, unknown_language
from harness.data.suite import Suite, tasks_root

OURS = re.compile(r"steerboard_(?P<task>.+)_(?P<language>[a-z]{2,3})")
"""The names of the tasks that steerboard ships."""

_TASKS = {"TASK", "PY_TASK"}  # kinds of lm-eval's entries; others are groups and tags
_FLORES = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")  # the FLORES code of some language
_NAMES = {language.name.lower(): code for code, language in LANGUAGES.items()}
_LONG = {FLORES[code].split("_")[0]: code for code in LANGUAGES} | _NAMES
_PROMPT = re.compile(r"few_shot_en|en_cot")  # the language of the prompt, not of the text
_MARK = "scriptmark"  # stands for the script of a FLORES code; no name has it
_ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv
dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie
ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv
mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm
rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts
tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
_CODES = frozenset(_ISO_639_1.split())


@dataclass(frozen=True)
class TaskLanguage:
    """One task in one language: ``family`` is its name on the board, ``name`` that in lm-eval."""

    family: str
    language: str
    name: str


@dataclass
class TaskIndex:
    """The tasks of lm-eval, ours and those of further folders, by name; read when they are first needed.

    ``data``: folder of local data for our tasks; without it they come from the hub. To read all of lm-eval's
    tasks takes half a minute, so only folders whose files mention a name are read.
    """

    suite: Suite
    data: Path | None = None
    folders: Sequence[Path] = ()
    _managers: list[Any] = field(default_factory=list)
    _read: set[Path] = field(default_factory=set)
    _texts: list[tuple[Path, bytes]] | None = None

    def find(self, names: Iterable[str], languages: Sequence[str]) -> list[TaskLanguage]:
        """Return the named tasks in some languages: a task of the suite, a task, group or tag
        of lm-eval, or ``TASK:LANGUAGE`` for one whose name does not say the language.

        Raises ``UserError`` for an unknown name, and for one that has no task in any of the languages.
        """
        found: dict[tuple[str, str], TaskLanguage] = {}
        for name in dict.fromkeys(names):
            for item in self._find(name, languages):
                twin = found.setdefault((item.family, item.language), item)
                if twin.name != item.name:
                    raise UserError(
                        f"{name!r} has two tasks in {item.language!r}, {twin.name} and {item.name}. Name one of them."
                    )
        return list(found.values())

    def load(self, item: TaskLanguage) -> Any:
        """Return the task object, with its data. Raises ``UserError`` where that fails."""
        manager = next(manager for manager in self._readers(item.name) if item.name in manager.task_index)
        try:
            task = manager.load([item.name])["tasks"][item.name]
        except UserError:
            raise
        except Exception as error:  # a task is a file and code of other people
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"task {item.name} cannot be loaded: {reason:.200}. Go online once for its data, or give "
                "--data a folder for the suite's own tasks."
            ) from None
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        return task

    def _find(self, name: str, languages: Sequence[str]) -> list[TaskLanguage]:
        task, _, said = name.partition(":")
        if not said and task in self.suite.tasks:
            codes: dict[str, str | None] = {f"steerboard_{task}_{code}": code for code in languages}
        else:
            members = self._members(task)
            if members is None:
                raise unknown("task", task, [*self.suite.tasks, *self._listed(task)], "Or any task of lm-eval.")
            if members == [task]:
                code = said or language_of(task)
                if code is None:
                    raise UserError(f"task {task!r} does not name a language. Say which it is in, such as {task}:am.")
                if code not in languages:
                    raise unknown_language(code, list(languages), f"It is that of task {task!r}.")
                return [TaskLanguage(task if said else task_group(task), code, task)]
            codes = {member: language_of(member) for member in members}
            if not any(codes.values()):
                raise UserError(f"no task of {task!r} names a language. Name one as TASK:LANGUAGE.")
        found = [
            TaskLanguage(task, code, member)
            for member, code in codes.items()
            if code in languages and code is not None and self._entry(member) is not None
        ]
        if not found:
            listed = ", ".join(languages)
            raise UserError(
                f"task {name!r} is in none of the languages {listed}. Give others with --languages, or another task."
            )
        return found

    def _members(self, name: str) -> list[str] | None:
        """Return the tasks of a name, itself if it is one; None for an unknown name.

        A name without an entry means the tasks that are called NAME_LANGUAGE.
        """
        entry = self._entry(name)
        if entry is None:
            return self._listed(name) or None
        if entry.kind.name in _TASKS:
            return [name]
        children = entry.tags if entry.kind.name == "TAG" else (entry.cfg or {}).get("task") or ()
        names = sorted(child for child in children if isinstance(child, str))
        return [member for child in names for member in self._members(child) or []]

    def _listed(self, name: str) -> list[str]:
        return sorted(
            known
            for manager in self._managers
            for known, entry in manager.task_index.items()
            if known.startswith(f"{name}_") and task_group(known) == name and entry.kind.name in _TASKS
        )

    def _entry(self, name: str) -> Any:
        found = (manager.task_index.get(name) for manager in self._readers(name))
        return next((entry for entry in found if entry is not None), None)

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
        """Return the folders of lm-eval's tasks in which a file mentions a name."""
        if self._texts is None:
            import lm_eval.tasks

            root = Path(lm_eval.tasks.__file__).parent
            files = [path for path in sorted(root.glob("*/**/*")) if path.suffix in {"", ".yaml"} and path.is_file()]
            self._texts = [(root / path.relative_to(root).parts[0], path.read_bytes()) for path in files]
        return list(dict.fromkeys(folder for folder, text in self._texts if name.encode() in text))

    def _reader(self, folders: list[Path]) -> Any:
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)  # its remarks are about the tasks' files
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f"--include-path {folder} is not a folder. Give one with lm-eval task files.")
        metadata: dict[str, Any] = {"data": str(self.data.resolve())} if self.data else {}
        self._read.update(folders)
        return TaskManager(include_path=folders, include_defaults=False, metadata=metadata)


def task_group(name: str) -> str:
    """Return the name of a task without its language: ``xnli`` for ``xnli_de``."""
    code, parts = language_of(name), name.split("_")
    for start in range(len(parts) - 1, 0, -1):
        for end in (start + 2, start + 1):
            cut, rest = "_".join(parts[start:end]), "_".join([*parts[:start], *parts[end:]])
            single = end == start + 1 or _FLORES.fullmatch(cut)
            if single and code and language_of(f"x_{cut}") == code and language_of(rest) is None:
                return rest
    return name


def language_of(task_name: str | None) -> str | None:
    """Return the language that a task's name says, None for none or one that steerboard does not know.

    Ours end with it (``steerboard_topic_am``). Elsewhere it is a part of the name: an English name or an
    ISO 639-3 code (``include_base_44_hebrew_stem``, ``belebele_amh_Ethi``), else an ISO 639-1 code
    (``xnli_de``, ``global_mmlu_full_id_law``). Of several the last counts: of a translation the
    language it goes to.
    """
    if not task_name:
        return None
    if own := OURS.fullmatch(task_name):
        code = own["language"]
        return code if code in LANGUAGES else None
    name = _PROMPT.sub("", task_name)
    found = _long_forms(name) or _short_forms(name)
    return found[-1] if found else None


def _long_forms(name: str) -> list[str | None]:
    """Return the languages that are named by a word or by three letters, in order; None for an unknown one."""
    parts = _parts(_FLORES.sub(lambda code: f"_{code[0][:3]}_{_MARK}_", name))
    pairs = zip(parts, [*parts[1:], ""], strict=True)
    return [_LONG.get(part) for part, after in pairs if part in _LONG or after == _MARK]


def _short_forms(name: str) -> list[str | None]:
    """Return the languages that are named by two letters, in order; None for an unknown one."""
    parts = _parts(name)
    found = [part for part in parts if part in _CODES]
    if len(found) > 1 or parts[-1] != "mt":  # mt mostly stands for machine translation, not for Maltese
        found = [part for part in found if part != "mt"]
    return [part if part in LANGUAGES else None for part in found]


def _parts(name: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", name.lower())
