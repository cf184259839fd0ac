"""The one exception whose message is meant for the user, and how a missing package becomes one."""

from __future__ import annotations

import difflib
import errno
import importlib.util
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

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
    "test": {"pytest": "pytest"},
    "lm-eval": {"lm_eval": "lm-eval"},
}
"""Extra of the package -> module that it brings -> the package that the module comes with."""


class UserError(Exception):
    """Bad input. Shown as one line, without a traceback; the command ends with exit code 2.

    The message names the bad value, the valid ones and the next step.
    """


class InvalidFileError(UserError):
    """A file from outside cannot be accepted. Callers may build their own message from the attributes.

    ``name``: what messages call the file; ``problem``: what is wrong, as a predicate ("is not UTF-8 text");
    ``hint``: the next step, a sentence or empty.
    """

    def __init__(self, name: object, problem: str, hint: str = "") -> None:
        super().__init__(f"{name} {problem}. {hint}".rstrip())
        self.name, self.problem, self.hint = str(name), problem, hint


class BrokenFileError(UserError):
    """A file of a run folder or of its text cannot be read: it needs a look, no method is at fault."""


class DamagedFileError(BrokenFileError):
    """A file that a run can make again is not what was written: edited, cut off, a flipped bit."""


class MachineError(UserError):
    """The machine failed, not what ran on it: a file cannot be read or written, the network is away.

    It is never a result, and not a method's error.
    """


class UnreadableFileError(InvalidFileError, MachineError):
    """A file could not be read, for a reason that does not lie in the file."""


class UnsupportedError(UserError):
    """A method cannot run on this model or language: the cell is skipped with this reason."""


_MACHINE_NAMES = {"OutOfMemoryError", "AcceleratorError", "BrokenProcessPool", "TerminatedWorkerError"}
_MACHINE_WORDS = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "out of memory", "can't allocate memory")
_MACHINE_NUMBERS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EFBIG,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
}


def is_infrastructure(error: BaseException) -> bool:
    """Say whether the machine failed, in an error or in what it came from: memory, disk, device, a worker.

    Any ``OSError`` counts that nobody has caught; of those behind another error, only what a program cannot
    have caused itself, such as a full disk: a file that is not there may be the method's own mistake.
    """
    if isinstance(error, OSError):
        return True
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, MemoryError | MachineError) or type(link).__name__ in _MACHINE_NAMES:
            return True
        if isinstance(link, OSError) and link.errno in _MACHINE_NUMBERS:
            return True
        if any(words in str(link) for words in _MACHINE_WORDS):
            return True
        link = link.__cause__ or link.__context__
    return False


def in_words(error: BaseException) -> str:
    """Return an error in one line: our own as it is, another with its class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"[:500]


@contextmanager
def machine_failures(what: str) -> Iterator[None]:
    """Raise ``MachineError`` with the name of the work where the machine fails in it; other errors pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_infrastructure(error):
            raise
        raise MachineError(
            f"{what} failed, and the machine is the reason ({in_words(error):.200}). What is finished is "
            "kept: run the same command again."
        ) from error


def warn(words: str) -> None:
    """Print one line on stderr beside what else goes on; a progress bar stays below it."""
    print(f"warning: {words}", file=sys.stderr)


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
                f"this command needs {modules[error.name]}, which is not installed: pip install 'steerboard[{extra}]'."
            )
    return None


def require(extra: str) -> None:
    """Raise ``ModuleNotFoundError`` for the first missing module of an extra, before any work is begun."""
    for module in EXTRAS[extra]:
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
