"""Load the code of a plug-in: run where it was requested by name, otherwise only read as text."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint
from pathlib import Path
from types import CodeType, ModuleType
from typing import get_args

from harness.core.errors import UserError, unknown
from harness.core.records import Setting
from harness.core.redaction import hide_secrets
from harness.methods.contract import RENAMED, MethodConfig, SteeringMethod, check_name

Classes = dict[str, type[SteeringMethod]]
"""The methods of a module by name."""

IN_CONFIG = "search_space is set in Config and belongs in the class of the method, next to Config"
_READ_AT_MOST = 1_000_000  # bytes of a file that is only looked at


def load_file(path: Path, where: str = "") -> Classes:
    """Run a Python file and return its methods.

    Raises ``UserError``, which starts with ``where`` (by default "plug-in PATH"), for a file that is
    missing, breaks, ends the program or holds no usable method.
    """
    where = where or f"plug-in {path}"
    if not path.is_file():
        raise UserError(f"{where} does not exist. Give the path of a Python file.")
    if path.suffix != ".py":
        raise UserError(f"{where} is not a Python file: its name must end in .py.")
    real = path.resolve()
    name = f"steerboard_plugin_{hashlib.sha256(str(real).encode()).hexdigest()[:12]}"
    loader = _FreshLoader(name, str(real))
    spec = importlib.util.spec_from_file_location(name, real, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        _guarded(partial(loader.exec_module, module), where, name, real)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return registered(module, where)


def load_entry_point(point: EntryPoint, where: str) -> Classes:
    """Import what an entry point names, a module or a class of one, and return its methods.

    Raises ``UserError``, which starts with ``where``, for any fault in it.
    """
    if not point.pattern.match(point.value):
        raise UserError(f"{where}: {point.value!r} is neither a module nor module:Class.")
    found = _guarded(point.load, where, point.module.partition(".")[0])
    if isinstance(found, ModuleType):
        return registered(found, where)
    if not (isinstance(found, type) and issubclass(found, SteeringMethod)):
        raise UserError(f"{where}: {point.value} must be a class that derives from SteeringMethod.")
    if not _own_name(found):
        raise UserError(f"{where}: {point.value} has no @register({point.name!r}) above it.")
    _check(found, where)
    return {found.name: found}


def registered(module: ModuleType, where: str) -> Classes:
    """Return the registered classes that a module, or a package with its modules, defines itself.

    Raises ``UserError`` where there is none, where two have one name or where one is not usable.
    """
    own = [  # what is imported from elsewhere adds nothing
        value
        for value in dict.fromkeys(v for v in vars(module).values() if isinstance(v, type))
        if issubclass(value, SteeringMethod) and f"{value.__module__}.".startswith(f"{module.__name__}.")
    ]
    found: Classes = {}
    for cls in filter(_own_name, own):
        _check(cls, where)
        if cls.name in found:
            raise UserError(f"{where}: two classes are registered as {cls.name!r}; rename one.")
        found[cls.name] = cls
    if not found:
        bare = f"; put it above class {own[0].__name__}" if own else ""
        raise UserError(f"{where}: no class with @register(...) in it{bare}.")
    return found


def inspect_source(path: Path, where: str, data: bytes | None = None) -> dict[str, str | None]:
    """Return the docstring of every registered class of a file by name, without running the file.

    ``data``: its bytes, where they were read already.

    Raises ``UserError``, which starts with ``where``, for a file that cannot be read as Python.
    """
    try:
        if data is None and path.stat().st_size > _READ_AT_MOST:
            raise UserError(f"{where} is larger than {_READ_AT_MOST:,} bytes, too large for a method.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes() if data is None else data)
    except SyntaxError as error:
        raise UserError(f"{where}, line {error.lineno}: {in_words(error)}") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{where}: {in_words(error)}") from None
    return {
        name: ast.get_docstring(node)
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for name in map(_registered_as, node.decorator_list)
        if name is not None
    }


def in_words(error: BaseException) -> str:
    """Return an exception as one line; a ``UserError`` has the words already."""
    if isinstance(error, UserError):
        text = str(error)
    elif isinstance(error, SystemExit):
        text = f"it ends the program when it is imported (SystemExit: {error.code})"
    elif type(error).__name__ == "PydanticUserError" and re.search("`(search_space|grid) = ", str(error)):
        text = IN_CONFIG
    elif isinstance(error, SyntaxError):  # without the place that str() adds
        text = f"{type(error).__name__}: {error.msg}"
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(hide_secrets(text).split())[:300]


class _FreshLoader(SourceFileLoader):
    """Compiles the file as it is now: a cached one may be older, and nothing is written beside it."""

    def get_code(self, fullname: str) -> CodeType | None:
        return self.source_to_code(self.get_data(self.path), self.path)


def _guarded(load: Callable[[], object], where: str, module: str, path: Path | None = None) -> object:
    """Run an author's code; any error except Ctrl-C becomes a ``UserError`` with file and line."""
    try:
        return load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        file, line = _location(error, module)
        at = f", line {line}" if path is not None and file == str(path) else f", {file}, line {line}"
        raise UserError(f"{where}{at if line else ''}: {in_words(error)}") from None


def _location(error: BaseException, module: str) -> tuple[str, int]:
    """Return file and line of the deepest frame in ``module`` or its submodules; line 0 for none."""
    if isinstance(error, SyntaxError) and str(error.filename).endswith(".py"):
        return str(error.filename), error.lineno or 0
    found = ("", 0)
    for frame, line in traceback.walk_tb(error.__traceback__):
        if f"{frame.f_globals.get('__name__')}.".startswith(f"{module}."):
            found = frame.f_code.co_filename, line
    return found


def _own_name(cls: type) -> bool:
    """Return whether a class is registered itself: a name is not inherited."""
    name = vars(cls).get("name")
    return isinstance(name, str) and name != ""


def _check(cls: type[SteeringMethod], where: str) -> None:
    """Refuse a class whose attributes do not follow the contract."""
    try:
        check_name(cls.name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, MethodConfig)):
        raise UserError(f"{where}: the Config of method {cls.name!r} must derive from MethodConfig.")
    for old, new in RENAMED.items():
        if hasattr(cls, old) and not callable(getattr(cls, old)):
            raise UserError(f"{where}: method {cls.name!r}: attribute {old!r} is now called {new!r}; rename it.")
    settings: object = cls.settings  # what an author wrote, whatever the annotation says
    if not isinstance(settings, tuple | list) or not settings:
        raise UserError(
            f"{where}: the settings of method {cls.name!r} must be a tuple such as "
            f"('zero-shot', 'few-shot'), not {settings!r:.60}."
        )
    for setting in settings:
        if setting not in get_args(Setting):
            wrong = unknown("setting", str(setting), get_args(Setting))
            raise UserError(f"{where}: method {cls.name!r}: {wrong}")


def _registered_as(decorator: ast.expr) -> str | None:
    """Return the name in ``@register("name")`` or ``@harness.register("name")``, else None."""
    if not isinstance(decorator, ast.Call) or not decorator.args:
        return None
    called, name = decorator.func, decorator.args[0]
    word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    if word == "register" and isinstance(name, ast.Constant) and isinstance(name.value, str):
        return name.value
    return None
