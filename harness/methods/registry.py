"""Find methods (built in, in a plug-in file, in a directory, in a package) and configure them.

Finding runs no code of packages and directories: it runs when one of their methods is requested by name.
A plug-in file runs at once: naming the file is the request.
"""

from __future__ import annotations

import contextlib
import filecmp
import importlib
import importlib.metadata
import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from harness.core.errors import UserError, unknown
from harness.core.schema import format_validation_error
from harness.data.suite import MethodSpec
from harness.methods.contract import MethodConfig, SteeringMethod, check_name
from harness.methods.plugins import (
    IN_CONFIG,
    Classes,
    in_words,
    inspect_source,
    load_entry_point,
    load_file,
    registered,
)

BUILT_IN = {
    "zero-shot": "harness.methods.prompting",
    "few-shot": "harness.methods.prompting",
    "language": "harness.methods.difference",
    "quality": "harness.methods.difference",
    "clas": "harness.methods.clas",
    "clas-published": "harness.methods.clas",
    "learned": "harness.methods.learned",
    "caa": "harness.methods.contrast",
    "pca": "harness.methods.contrast",
    "probe": "harness.methods.contrast",
    "lda": "harness.methods.contrast",
    "lape": "harness.methods.lape",
    "instruction": "harness.methods.instruction",
    "target-language": "harness.methods.target_language",
    "temperature": "harness.methods.temperature",
    "persona": "harness.methods.persona",
    "verbalized": "harness.methods.verbalized",
    "revision": "harness.methods.revision",
    "translate": "harness.methods.translate",
    "random": "harness.methods.controls",
    "negated": "harness.methods.controls",
    "other-language": "harness.methods.controls",
    "shuffled": "harness.methods.controls",
    "human": "harness.methods.references",
    "constant": "harness.methods.references",
}
FORMER_MODULES = {"language": "harness.methods.language", "quality": "harness.methods.quality"}
"""Modules of built-in methods in version 0.1.0, which submissions of that time name."""
ENTRY_POINTS = "steerboard.methods"
SUBMISSIONS = "submissions"
_LISTS = (list, tuple, set, frozenset, Sequence, Collection, Iterable, Set)


@dataclass(frozen=True)
class MethodOrigin:
    """Where a method comes from, in words, and how its code is loaded."""

    kind: Literal["built in", "file", "package", "folder"]
    words: str
    load: Callable[[], Classes]
    path: Path | None = None

    def __str__(self) -> str:
        return self.words


@dataclass
class Registry:
    """The methods of a process by name.

    ``sources``: where each comes from. ``problems``: those that were found and cannot be used: a name
    that is taken or invalid, a package that cannot be read. The first source of a name keeps it:
    built in, then plug-in files, packages, directories.
    """

    sources: dict[str, MethodOrigin] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _classes: Classes = field(default_factory=dict)

    def add(self, name: str, source: MethodOrigin) -> None:
        """Add a method; ``UserError`` for an invalid name and for one that is taken."""
        if name in self.sources:
            raise UserError(f"{source}: the name {name!r} is taken by {self.sources[name]}; choose another name.")
        try:
            check_name(name)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        self.sources[name] = source

    def get(self, name: str) -> type[SteeringMethod]:
        """Return a method's class; its code runs once.

        Raises ``UserError`` with the nearest name for an unknown one, and for code that does not work.
        """
        if name not in self.sources:
            raise unknown("method", name, self.sources, "Add your own with --plugin FILE.")
        if name not in self._classes:
            source = self.sources[name]
            if source.kind == "folder":  # it was found, not given by --plugin
                print(f"running the code of {source} on this machine, with your rights", file=sys.stderr)
            classes = source.load()
            if name not in classes:
                what = "entry point" if source.kind == "package" else "folder"
                has = ", ".join(map(repr, classes))
                raise UserError(f"{source}: {what} {name!r} registers no method {name!r}; it has {has}.")
            self._classes[name] = classes[name]
        return self._classes[name]

    def docstring(self, name: str) -> str:
        """Return a method's docstring, empty for none; a folder's file is read and does not run.

        Raises ``UserError`` for code that does not work, or a file that registers another name.
        """
        source = self.sources[name]
        if source.kind != "folder" or source.path is None:
            return self.get(name).__doc__ or ""
        found = inspect_source(source.path, source.words)
        if name not in found:
            has = f"it has {', '.join(map(repr, found))}" if found else "no class with @register(...) in it"
            raise UserError(f"{source}: folder {name!r} registers no method {name!r}; {has}.")
        return found[name] or ""

    def configure(self, name: str, options: Mapping[str, Any]) -> list[SteeringMethod]:
        """Return the method once per point of the sweep that list-valued options span.

        A method with ``bind(configure)`` is given this function, so that it can build on others.
        """
        cls = self.get(name)
        return [self._build(cls, point) for point in expand_grid(cls.Config, options, name)]

    def _build(self, cls: type[SteeringMethod], point: Mapping[str, Any]) -> SteeringMethod:
        try:
            config = cls.Config.model_validate(point)
        except ValidationError as error:
            fields = ", ".join(cls.Config.model_fields) or "(none)"
            raise UserError(f"method {cls.name!r}: {format_validation_error(error)}. Its options: {fields}.") from None
        except Exception as error:  # an author's validator
            raise UserError(f"the config of method {cls.name!r} breaks: {in_words(error)}") from None
        try:
            method = cls(config)
            bind = getattr(method, "bind", None)
            if callable(bind):
                bind(self.configure)
            method.identity.model_dump_json()  # what cannot be written down cannot be run
        except UserError:
            raise
        except ValidationError as error:
            raise UserError(f"method {cls.name!r} cannot be set up: {format_validation_error(error)}.") from None
        except Exception as error:  # an author's __init__ or bind
            raise UserError(f"method {cls.name!r} cannot be set up: {in_words(error)}") from None
        return method


def load_registry(plugins: Iterable[Path] = ()) -> Registry:
    """Return all methods that can be found.

    Raises ``UserError`` for a plug-in file that does not work or takes a name: the user named it.
    Faults of packages and directories go to ``problems`` and end nothing.
    """
    registry = Registry()
    for name, module in BUILT_IN.items():
        load = lambda module=module: registered(importlib.import_module(module), module)  # noqa: E731
        registry.add(name, MethodOrigin("built in", "built in", load))
    files = {path.resolve(): path for path in plugins}  # a file given twice is one
    for real, path in files.items():
        classes = load_file(path)
        for name in classes:
            registry.add(name, MethodOrigin("file", str(path), partial(dict, classes), real))
    found = [*_packages(registry.problems), *_folders(registry.problems)]
    for name, source in found:
        taken = registry.sources.get(name)
        if source.path in files or _same_code(source, taken):
            continue
        try:
            registry.add(name, source)
        except UserError as error:
            copied = taken is not None and (taken.kind, source.kind) == ("file", "folder")
            words = f"{source} differs from {taken}, which is used. Pack it again, or choose another name."
            registry.problems.append(words if copied else in_words(error))
    return registry


def _same_code(source: MethodOrigin, taken: MethodOrigin | None) -> bool:
    """Return whether a name is taken by a file with the same code: 'submission pack' copies it."""
    with contextlib.suppress(OSError):
        return bool(taken and source.path and taken.path and filecmp.cmp(source.path, taken.path, shallow=False))
    return False


def search_space(method: type[SteeringMethod]) -> dict[str, list[Any]]:
    """Return the values that a method's class names for ``steerboard tune``, by option; empty for none.

    Raises ``UserError`` for a search space that is not a mapping to lists or that is set in Config.
    """
    space: Any = method.search_space
    start, example = f"method {method.name!r}:", 'Write it as search_space = {"strength": [0.1, 0.2]}, next to Config'
    if {"search_space", "grid"} & {*method.Config.model_fields, *dir(method.Config)}:
        raise UserError(f"{start} {IN_CONFIG}. {example}.")
    if not isinstance(space, Mapping) or not all(isinstance(v, list | tuple) and v for v in space.values()):
        raise UserError(
            f"{start} search_space = {space!r:.80} does not give a list of values for each field. {example}."
        )
    for name in space:
        if name not in method.Config.model_fields:
            raise unknown(f"field in the search_space of {start}", str(name), method.Config.model_fields)
    return {name: list(values) for name, values in space.items()}


def expand_grid(config: type[MethodConfig], options: Mapping[str, Any], method: str) -> list[dict[str, Any]]:
    """Return the options of every point of the sweep, the last option running fastest.

    A list is a sweep where it is nested more deeply than the field's own type: for ``list[int]``,
    ``[1, 2]`` is one value and ``[[1, 2], [3]]`` are two. Raises ``UserError`` for an option that
    the config does not have and for a list without a value.
    """
    axes = []
    for key, value in options.items():
        aliases = {field.alias for field in config.model_fields.values()} - {None}
        if config.model_config.get("extra") == "forbid" and key not in {*config.model_fields, *aliases}:
            raise unknown(f"option of method {method!r}:", str(key), config.model_fields)
        info = config.model_fields.get(key)
        sweep = _nested(value, _depth(info.annotation) if info else 0)
        if sweep and not value:
            raise UserError(f"option {key!r} of method {method!r} is an empty list. Give it a value.")
        axes.append([(key, item) for item in (value if sweep else [value])])
    return [dict(point) for point in itertools.product(*axes)]


def _depth(annotation: Any) -> int:
    """Return how many lists a type nests at most: 0 for a number, 1 for ``int | list[int]``."""
    annotation = getattr(annotation, "__value__", annotation)  # what a type alias stands for
    inner = max((_depth(part) for part in get_args(annotation)), default=0)
    own = get_origin(annotation) or annotation
    if any(own is kind for kind in _LISTS):
        return 1 + inner
    return 0 if isinstance(own, type) and issubclass(own, Mapping) else inner


def _nested(value: Any, depth: int) -> bool:
    """Return whether a value is nested more deeply than ``depth`` lists."""
    return isinstance(value, list) and (depth == 0 or any(_nested(item, depth - 1) for item in value))


def named_options(specs: Iterable[MethodSpec]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and options for each item of a suite's list: a name, or a name with its options."""
    for spec in specs:
        for name, options in ({spec: {}} if isinstance(spec, str) else spec).items():
            yield name, options or {}


def parse_methods(registry: Registry, specs: Iterable[MethodSpec]) -> list[SteeringMethod]:
    """Return configured methods for a suite's list: a name, or a name with its options."""
    return [method for name, options in named_options(specs) for method in registry.configure(name, options)]


def pick_methods(specs: Iterable[MethodSpec], names: Iterable[str]) -> list[MethodSpec]:
    """Return the named methods with the options that a suite's list gives them, else without any."""
    given: dict[str, list[MethodSpec]] = {}
    for name, options in named_options(specs):
        given.setdefault(name, []).append({name: options})
    return [spec for name in dict.fromkeys(names) for spec in given.get(name, [name])]


def checkout() -> Path | None:
    """Return the repository whose code runs; None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else None


def _packages(problems: list[str]) -> Iterator[tuple[str, MethodOrigin]]:
    """Yield the methods of installed packages: an entry point's name is the method's."""
    for point in sorted(_entry_points(problems), key=lambda point: (point.name, point.value)):
        words = f"package {point.value}"
        with contextlib.suppress(Exception):  # no metadata, no name
            words = f"package {point.dist.name} ({point.value})" if point.dist else words
        yield point.name, MethodOrigin("package", words, partial(load_entry_point, point, words))


def _entry_points(problems: list[str]) -> list[EntryPoint]:
    """Return the entry points of our group; one package that cannot be read does not hide the others."""
    try:
        return list(importlib.metadata.entry_points(group=ENTRY_POINTS))
    except Exception:  # it does not name the package: look at one after the other
        points: list[EntryPoint] = []
        for package in importlib.metadata.distributions():
            try:
                points += package.entry_points.select(group=ENTRY_POINTS)
            except Exception as error:
                problems.append(f"package {package.name}: its entry points are broken: {in_words(error)}")
        return points


def _folders(problems: list[str]) -> Iterator[tuple[str, MethodOrigin]]:
    """Yield the methods in ``submissions/NAME/method.py``, here and in the checkout, by directory name."""
    roots = [Path(SUBMISSIONS)]
    repository = checkout()
    if repository and repository / SUBMISSIONS != roots[0].resolve():  # not twice
        roots.append(repository / SUBMISSIONS)
    for root in roots:
        try:
            files = [path for path in sorted(root.glob("*/method.py")) if path.is_file()]
        except OSError as error:
            problems.append(f"{root} cannot be read: {in_words(error)}")
            continue
        for path in files:
            if not path.parent.name.startswith((".", "_")):
                real = path.resolve()
                load = partial(load_file, real, str(path))
                yield path.parent.name, MethodOrigin("folder", str(path), load, real)
