"""The one exception whose message is meant for the user, and how a missing package becomes one."""

from __future__ import annotations

import difflib
import importlib.util
import shlex
import sys
from collections.abc import Iterable, Sequence

EXTRAS: dict[str, dict[str, str]] = {
    "board": {"jinja2": "jinja2", "pyarrow": "pyarrow", "watchfiles": "watchfiles"},
    "run": {
        "torch": "torch",
        "transformers": "transformers",
        "datasets": "datasets",
        "datasketch": "datasketch",
        "gguf": "gguf",
        "huggingface_hub": "huggingface_hub",
        "sacrebleu": "sacrebleu",
        "sklearn": "scikit-learn",
    },
    "lm-eval": {"lm_eval": "lm-eval"},
}
"""Extra of the package -> module that it brings -> the package that the module comes with."""


class UserError(Exception):
    """Bad input. Shown as one line, without a traceback; the command ends with exit code 2.

    The message names the bad value, the valid ones and the next step.
    """


class BrokenFileError(UserError):
    """A file of a run folder cannot be read: the folder needs a look, no method is at fault."""


class UnsupportedError(UserError):
    """A method cannot run on this model or language: the cell is skipped with this reason."""


def pasted(*words: object) -> str:
    """Return a ``steerboard`` command with these words, as it can be pasted into a shell."""
    return shlex.join(["steerboard", *map(str, words)])


def unknown(
    kind: str, value: str, valid: Iterable[str], hint: str = "", near: Sequence[str] | None = None
) -> UserError:
    """Return the error for ``value`` that is none of ``valid``, with the nearest name suggested.

    ``near``: what to suggest, where the caller knows better than the spelling.
    """
    names = sorted(valid)
    near = near or difflib.get_close_matches(value, names, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    tail = f" {hint}" if hint else ""
    return UserError(f"unknown {kind} {value!r}; valid: {listed or '(none)'}.{suggestion}{tail}")


def not_installed(error: ModuleNotFoundError) -> UserError | None:
    """Return the error that names the extra with the missing module, None for a module of no extra."""
    for extra, modules in EXTRAS.items():
        if error.name in modules:  # a missing part, such as torch.x, is another trouble than a missing torch
            return UserError(
                f"this command needs {modules[error.name]}, which is not installed: "
                f"pip install 'steerboard[{extra}]'."
            )
    return None


def require(extra: str) -> None:
    """Raise ``ModuleNotFoundError`` for the first missing module of an extra, before any work is begun."""
    for module in EXTRAS[extra]:
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
