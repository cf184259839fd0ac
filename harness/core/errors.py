"""Errors whose message is for the user, and how a missing package becomes one."""

from __future__ import annotations

import difflib
import errno
import importlib.util
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from harness.core.redaction import hide_secrets

EXTRAS: dict[str, dict[str, str]] = {
    "board": {"jinja2": "jinja2", "pyarrow": "pyarrow", "watchfiles": "watchfiles"},
    "run": {
        "torch": "torch",
        "transformers": "transformers",
        "datasets": "datasets",
        "gguf": "gguf",
        "huggingface_hub": "huggingface_hub",
        "sacrebleu": "sacrebleu",
        "sklearn": "scikit-learn",
    },
    "gguf": {"accelerate": "accelerate"},
    "lora": {"peft": "peft"},
    "vllm": {"vllm": "vllm"},
    "s3": {"fsspec": "fsspec", "s3fs": "s3fs"},
    "ray": {"ray": "ray"},
    "slurm": {"submitit": "submitit"},
    "test": {"pytest": "pytest"},
    "lm-eval": {"lm_eval": "lm-eval"},
}
"""Extra of this package -> module -> the package that provides it."""


class UserError(Exception):
    """Bad input. Shown as one line, without a traceback; the command ends with exit code 2.

    The message names the bad value, the valid ones and the next step; what signs in is hidden in it.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(hide_secrets(str(message)))


class InvalidFileError(UserError):
    """A file from outside cannot be accepted. Callers may build their own message from the attributes.

    ``name``: what messages call the file; ``problem``: what is wrong, as a predicate ("is not UTF-8 text");
    ``hint``: the next step, a sentence or empty.
    """

    def __init__(self, name: object, problem: str, hint: str = "") -> None:
        super().__init__(f"{name} {problem}. {hint}".rstrip())
        self.name, self.problem, self.hint = str(name), problem, hint


class BrokenFileError(UserError):
    """A file of a run or of its text cannot be used: no method is at fault."""


class DamagedFileError(BrokenFileError):
    """A file that a run can make again is not as it was written: edited, truncated, a flipped bit."""


class MachineError(UserError):
    """The machine failed: a file cannot be read or written, the network is down. Never a method's error or score."""


class UnreadableFileError(InvalidFileError, MachineError):
    """A file could not be read for a reason outside of it."""


class UnsupportedError(UserError):
    """A method cannot run on this model or language: the cell is skipped with this reason."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
_MACHINE_NUMBERS = {
    *(*_FULL, errno.EIO, errno.EROFS, errno.EFBIG),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE),
}
_MACHINE_NAMES = {"OutOfMemoryError", "AcceleratorError", "BrokenProcessPool", "TerminatedWorkerError"}
# Writers in C++ and Rust raise errors of their own, which hold the system's words at most.
_FULL_WORDS = (*map(os.strerror, _FULL), "disk is full", "enforce fail at inline_container.cc")  # SQLite, torch.save
_MACHINE_WORDS = (
    *("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "out of memory", "can't allocate memory"),
    *map(os.strerror, sorted(_MACHINE_NUMBERS)),
    *_FULL_WORDS,
)


def is_infrastructure(error: BaseException) -> bool:
    """Say whether an error or one of its causes is a failure of the machine: memory, disk, device, a worker.

    Any uncaught ``OSError`` counts; as a cause of another error only one that a program cannot have caused itself, such
    as a full disk: a missing file may be the method's own mistake.
    """
    return isinstance(error, OSError) or any(
        isinstance(link, MemoryError | MachineError)
        or type(link).__name__ in _MACHINE_NAMES
        or (isinstance(link, OSError) and link.errno in _MACHINE_NUMBERS)
        or any(words in str(link) for words in _MACHINE_WORDS)
        for link in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def remedy(error: BaseException, other: str = "") -> str:
    """Return the next step after a failure of the machine: to free space where a disk is full, else ``other``."""
    again = "run the same command again; what is finished is kept."
    if any(words in str(link) for link in _chain(error) for words in _FULL_WORDS):
        return f"Free space and {again}"
    return other or f"{again[0].upper()}{again[1:]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory of the machine or of the device ran out."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in ("out of memory", "can't allocate memory"))
    )


def in_words(error: BaseException) -> str:
    """Return an error in one line, with its class if it is not one of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {hide_secrets(text)}"[:500]


@contextmanager
def machine_failures(what: str) -> Iterator[None]:
    """Turn failures of the machine in a block into ``MachineError`` with the name of the work; other errors pass."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_infrastructure(error):
            raise
        raise MachineError(f"{what} failed because of the machine ({in_words(error):.200}). {remedy(error)}") from error


def warn(words: str) -> None:
    """Print one line on stderr; a progress bar stays below it."""
    print(f"warning: {hide_secrets(words)}", file=sys.stderr)


def pasted(*words: object) -> str:
    """Return a ``steerboard`` command with these words, as it can be pasted into a shell."""
    return shlex.join(["steerboard", *(hide_secrets(str(word)) for word in words)])


def unknown(
    kind: str, value: str, valid: Iterable[str], hint: str = "", near: Sequence[str] | None = None
) -> UserError:
    """Return the error for a ``value`` that is not one of ``valid``, with the most similar one suggested.

    ``near``: suggestions of the caller, instead of the spelling.
    """
    names = sorted(valid)
    near = near or difflib.get_close_matches(value, names, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    tail = f" {hint}" if hint else ""
    return UserError(f"unknown {kind} {value!r}; valid: {listed or '(none)'}.{suggestion}{tail}")


def not_installed(error: ModuleNotFoundError) -> UserError | None:
    """Return the error that names the extra with the missing module, None if no extra has it."""
    for extra, modules in EXTRAS.items():
        if error.name in modules:  # a missing torch.x is not a missing torch
            return UserError(
                f"this command needs {modules[error.name]}, which is not installed: pip install 'steerboard[{extra}]'."
            )
    return None


def require(extra: str) -> None:
    """Raise ``ModuleNotFoundError`` for the first missing module of an extra, before any work is done."""
    for module in EXTRAS[extra]:
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
