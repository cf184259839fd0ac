"""Finding methods: built in, in a plug-in file, in an installed package; and configuring them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import itertools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError, unknown
from harness.methods.base import SteeringMethod
from harness.suite import MethodSpec, explain

BUILT_IN = {
    "zero-shot": "harness.methods.prompting",
    "few-shot": "harness.methods.prompting",
    "language": "harness.methods.language",
    "quality": "harness.methods.quality",
    "human": "harness.methods.references",
    "constant": "harness.methods.references",
}
ENTRY_POINTS = "steerboard.methods"


@dataclass
class Registry:
    """The methods of a process by name. Built-ins win a name clash; what broke is in ``problems``."""

    methods: dict[str, type[SteeringMethod]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add_module(self, module: ModuleType, source: str) -> list[str]:
        """Take in the registered classes that ``module`` defines; return their names."""
        found = [
            value
            for value in dict.fromkeys(v for v in vars(module).values() if isinstance(v, type))
            if issubclass(value, SteeringMethod)
            and vars(value).get("name")  # its own, not one inherited from the method it builds on
            and value.__module__ == module.__name__
        ]
        for cls in found:
            if cls.name in self.methods:
                taken = self.sources[cls.name]
                self.problems.append(
                    f"{source}: the name {cls.name!r} is taken by {taken}; choose another name."
                )
            else:
                self.methods[cls.name] = cls
                self.sources[cls.name] = source
        return [cls.name for cls in found]

    def get(self, name: str) -> type[SteeringMethod]:
        """Return a method class; ``UserError`` suggests the nearest name."""
        if name not in self.methods:
            raise unknown("method", name, self.methods, "Add your own with --plugin FILE.")
        return self.methods[name]

    def configure(self, name: str, options: Mapping[str, Any]) -> list[SteeringMethod]:
        """Return the method once per point of the sweep that list-valued options span."""
        cls = self.get(name)
        axes = [
            [(key, item) for item in (value if isinstance(value, list) else [value])]
            for key, value in options.items()
        ]
        configured = []
        for point in itertools.product(*axes):
            try:
                configured.append(cls(cls.Config(**dict(point))))
            except ValidationError as error:
                fields = ", ".join(cls.Config.model_fields) or "(none)"
                raise UserError(f"method {name!r}: {explain(error)}. Its options: {fields}.") from None
        return configured


def load_registry(plugins: Iterable[Path] = ()) -> Registry:
    """Return all methods. A broken plug-in file named by the user is an error; a broken installed
    package is reported in ``problems`` and ends nothing."""
    registry = Registry()
    for module_name in dict.fromkeys(BUILT_IN.values()):
        registry.add_module(importlib.import_module(module_name), "built in")
    for path in plugins:
        known = len(registry.problems)
        if not registry.add_module(_load_file(path), str(path)):
            raise UserError(f"plug-in {path}: no class with @register(...) in it.")
        if len(registry.problems) > known:
            raise UserError(registry.problems[known])
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
            registry.add_module(sys.modules[point.module], f"package {point.value}")
        except Exception as error:  # somebody else's package: report it, run the rest
            registry.problems.append(f"package {point.value}: {type(error).__name__}: {error}")
    return registry


def parse_methods(registry: Registry, specs: Iterable[MethodSpec]) -> list[SteeringMethod]:
    """Return configured methods for a suite's list: a name, or a name with its options."""
    methods: list[SteeringMethod] = []
    for spec in specs:
        items = {spec: {}} if isinstance(spec, str) else spec
        for name, options in items.items():
            methods += registry.configure(name, options or {})
    return methods


def pick_methods(specs: Iterable[MethodSpec], names: Iterable[str]) -> list[MethodSpec]:
    """Return the named methods with the options that a suite's list gives them, else without any."""
    given: dict[str, list[MethodSpec]] = {}
    for spec in specs:
        for name, options in ({spec: {}} if isinstance(spec, str) else spec).items():
            given.setdefault(name, []).append({name: options})
    return [spec for name in dict.fromkeys(names) for spec in given.get(name, [name])]


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"plug-in {path} does not exist. Give the path of a Python file.")
    name = f"steerboard_plugin_{path.resolve().parent.name}_{path.stem}".replace("-", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plug-in {path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        line = _line_in(path, error)
        raise UserError(f"plug-in {path}{line}: {type(error).__name__}: {error}") from None
    return module


def _line_in(path: Path, error: BaseException) -> str:
    """Return ", line N" for the deepest frame of ``error`` that lies in ``path``."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    line, trace = "", error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return line
