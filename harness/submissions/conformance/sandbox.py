"""Record what a method's code does next to its work: print, write files, open connections, read test text.

Python's audit events report files and connections. Code that leaves Python (a library that writes by
itself) is seen only where a new file appears in the working directory.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HELD_OUT = {"validation.jsonl", "test.jsonl"}
_CHANGES = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.remove": 0, "os.truncate": 0}
_NETWORK = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}
_EXEMPT = {"__pycache__", ".cache"}  # what libraries keep for themselves


class NetworkRefusedError(OSError):
    """A connection that the kit does not let through."""


@dataclass
class Sandbox:
    """Records what happens inside ``record()``. Files below ``own`` are the harness's and not recorded."""

    own: Path
    printed: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Record the block; what it prints is not shown, connections are refused."""
        text, names = io.StringIO(), _working_directory()
        outer = _Audit.start(self)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                    yield
        finally:
            _Audit.active = outer
            if text.getvalue().strip():
                self.printed.append(text.getvalue().strip())
            self.written += [name for name in sorted(_working_directory() - names) if not self._exempt(name)]

    def opened(self, path: str, writing: bool) -> None:
        """Record a file that is opened."""
        if writing and not self._exempt(path):
            self.written.append(path)
        elif not writing and Path(path).name in _HELD_OUT:
            self.held_out.append("/".join(Path(path).parts[-3:]))

    def connecting(self, address: Any) -> None:
        """Record a connection and refuse it; one to this machine's own files (a string) passes."""
        if isinstance(address, tuple | list):
            address = ":".join(str(part) for part in address[:2])
        elif isinstance(address, bytes) or str(address).startswith("/"):
            return
        self.connected.append(str(address))
        raise NetworkRefusedError(f"no connection to {address} during a fit")

    def _exempt(self, path: str) -> bool:
        full = Path(path).absolute()
        if full.is_relative_to(self.own) or full.is_relative_to("/dev") or _EXEMPT & set(full.parts):
            return True
        return full.is_relative_to(tempfile.gettempdir()) and not full.is_relative_to(Path.cwd())


class _Audit:
    """The one audit hook of the process: Python cannot remove one, so it rests while no sandbox is active."""

    active: Sandbox | None = None
    _installed = False

    @classmethod
    def start(cls, sandbox: Sandbox) -> Sandbox | None:
        """Make a sandbox the active one; return the one before."""
        if not cls._installed:
            sys.addaudithook(cls._event)
            cls._installed = True
        outer, cls.active = cls.active, sandbox
        return outer

    @classmethod
    def _event(cls, event: str, args: tuple[Any, ...]) -> None:
        sandbox = cls.active
        if sandbox is None:
            return
        if event in _NETWORK:
            sandbox.connecting(args[_NETWORK[event]])
        elif event == "open" or event in _CHANGES:
            path = args[_CHANGES.get(event, 0)]
            if isinstance(path, str | bytes | os.PathLike):
                sandbox.opened(os.fsdecode(path), event in _CHANGES or _writes(args[1], args[2]))


def _writes(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & _WRITING)


def _working_directory() -> set[str]:
    try:
        return {path.name for path in Path.cwd().iterdir()}
    except OSError:
        return set()
