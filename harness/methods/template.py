"""The file that a new method starts from."""

from __future__ import annotations

import builtins
import keyword
import os
import re
import shlex
from importlib.resources import files
from pathlib import Path

from harness.core.errors import UserError
from harness.core.files import write_text
from harness.methods.contract import check_name
from harness.methods.registry import SUBMISSIONS, load_registry

_LONGEST_NAME = 60


def write_template(name: str, out: Path | None = None) -> Path:
    """Write a complete method called ``name`` and return its file.

    By default that is ``submissions/NAME/method.py`` where the working directory has ``submissions``,
    else ``NAME.py``. Raises ``UserError`` for a name that is invalid or taken, and for a file
    that exists or could not be loaded.
    """
    check_name(name)
    if len(name) > _LONGEST_NAME:
        raise UserError(f"method name {name[:20]!r}...: use at most {_LONGEST_NAME} letters.")
    taken = load_registry().sources.get(name)
    if taken:
        raise UserError(f"method name {name!r} is taken by {taken}. Choose another name.")
    path = out or (_submission(name) if Path(SUBMISSIONS).is_dir() else Path(f"{name}.py"))
    if path.suffix != ".py":
        raise UserError(f"--out {path}: give the path of a file whose name ends in .py.")
    if os.path.lexists(path):
        raise UserError(f"{path} exists and is left as it is. Choose another file with --out.")
    write_text(path, render_template(name))
    return path


def render_template(name: str) -> str:
    """Return the text of the file for a method called ``name``."""
    template = (files("harness") / "methods" / "template.py.txt").read_text(encoding="utf-8")
    return template.replace("MyMethod", _class_name(name, template)).replace("my-method", name)


def next_commands(name: str, path: Path) -> list[str]:
    """Return the commands that an author needs next: check, run, tune, board."""
    found = path.resolve() == _submission(name).resolve()  # by its name, without --plugin
    plugin = "" if found else f" --plugin {shlex.quote(str(path))}"
    run = f"runs/{name}"
    return [
        f"steerboard method test {name}{plugin}",
        f"steerboard run --suite mini{plugin} --methods zero-shot,{name} --run {run}",
        f"steerboard tune --suite mini{plugin} --methods {name} --run {run}  # then run again, with --tuned",
        f"steerboard board build {run} --out site",
    ]


def _submission(name: str) -> Path:
    return Path(SUBMISSIONS) / name / "method.py"


def _class_name(name: str, template: str) -> str:
    """Return a class name for a method: MyMethod for my-method, My2d for what would not be one."""
    camel = "".join(part[:1].upper() + part[1:] for part in re.split(r"[-_.]+", name))
    used = keyword.iskeyword(camel) or hasattr(builtins, camel) or re.search(rf"\b{camel}\b", template)
    free = camel == "MyMethod" or (camel.isidentifier() and not used)
    return camel if free else f"My{camel}"
