"""Where the command ``steerboard`` begins and ends: whatever goes wrong is one line and an exit code.

Only what costs nothing is imported before signals are looked after: Ctrl-C may come in the first moment.
"""

from __future__ import annotations

import errno
import os
import sys

try:
    import io
    import signal
    from typing import Any

    from harness.core.errors import UserError, in_words, is_infrastructure, not_installed, remedy
    from harness.core.redaction import hide_secrets
    from harness.core.signals import noting_stops
except KeyboardInterrupt:  # nothing has begun
    os.write(2, b"steerboard: stopped\n")
    os._exit(130)

_INTERRUPTED = 128 + signal.SIGINT  # what typer makes of Ctrl-C
_BAD_INPUT = 2
_LONGEST = 100  # characters of a path in a message
_MISUSED = {
    *(errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EPERM),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
}
"""Errors of the system that say what is wrong with a path, not with the machine."""

Outcome = tuple[int, str]
"""An exit code, and the line that says why; empty for none."""


def main() -> None:
    """Entry point. Exit code 2 for bad input; 130 for Ctrl-C and 143 for SIGTERM, as shells have it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # print escapes rather than fail in a terminal without Unicode
    with noting_stops() as stops:
        code, line = _outcome(stops)
        if stops and (code or stops[0] != signal.SIGINT):
            code, line = 128 + stops[0], ""
        if code in {_INTERRUPTED, 128 + signal.SIGTERM, 128 + signal.SIGHUP} and not line:
            by = "" if code == _INTERRUPTED else f" by {signal.Signals(code - 128).name}"
            line = f"stopped{by}; finished cells are kept, run the same command again to resume"
        if line:
            print(f"steerboard: {hide_secrets(' '.join(line.split()))}", file=sys.stderr)
        raise SystemExit(code)


def _outcome(stops: list[int]) -> Outcome:
    """Run the command; what it raises becomes an exit code and a line, unless it is a fault of ours."""
    try:
        return _run(), ""
    except UserError as error:
        return _BAD_INPUT, str(error)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1, ""
    except KeyboardInterrupt:  # before typer is there to take it
        return _INTERRUPTED, ""
    except BaseException as error:
        if stops:  # it is what foreign code made of the interrupt
            return _INTERRUPTED, ""
        line = _in_words(error)
        if line is None and not isinstance(error, Exception):
            raise
        if line is None:
            import traceback

            print(hide_secrets(traceback.format_exc()), end="", file=sys.stderr)
            return 1, ""
        return _BAD_INPUT, line


def _run() -> int:
    for word in sys.argv[1:]:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"the argument {os.fsencode(word)!r} is not UTF-8 text. Rename what it names, or write it as UTF-8."
            ) from None
    import typer

    from harness.cli.root import app

    try:
        code = app(standalone_mode=False, prog_name="steerboard")
    except typer.TyperException as error:  # bad options, and help where a command is missing
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return _BAD_INPUT
        raise UserError(f"{error.format_message()}{_hint(error)}") from None
    return code if isinstance(code, int) else 0


def _hint(error: Any) -> str:
    """Return what to give for a missing ``--suite``; empty for any other error."""
    if type(error).__name__ != "MissingParameter" or getattr(error.param, "name", "") != "suite":
        return ""
    from harness.data.suite import suite_files

    names = ", ".join(suite_files())
    return f" Valid: {names}, or the path of a suite's .yaml. Begin with --suite mini, which needs no download."


def _in_words(error: BaseException) -> str | None:
    """Return the line for an error of the installation or of the system; None for what is a fault of ours."""
    if isinstance(error, ModuleNotFoundError):
        missing = not_installed(error)
        return str(missing) if missing else None
    if isinstance(error, OSError) and error.errno in _MISUSED:
        name = "" if error.filename is None else str(error.filename)
        shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
        return f"cannot use {shown!r}: {error.strerror}." if name else f"{error.strerror}."
    if is_infrastructure(error):
        return f"the machine failed ({in_words(error)}). {remedy(error)}"
    return None
