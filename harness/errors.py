"""The one exception whose message is meant for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. Shown as one line, without a traceback; the command ends with exit code 2.

    The message names the bad value, the valid ones and the next step.
    """


class BrokenFileError(UserError):
    """A file of a run folder cannot be read: the folder needs a look, no method is at fault."""


class UnsupportedError(UserError):
    """A method cannot run on this model or language: the cell is skipped with this reason."""


def unknown(kind: str, value: str, valid: Iterable[str], hint: str = "") -> UserError:
    """Return the error for ``value`` that is none of ``valid``, with the nearest name suggested."""
    names = sorted(valid)
    near = difflib.get_close_matches(value, names, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    tail = f" {hint}" if hint else ""
    return UserError(f"unknown {kind} {value!r}; valid: {listed or '(none)'}.{suggestion}{tail}")
