"""Commands that are killed at random moments, and a run that must come out as if nothing had happened.

Each command is a process of its own, which a real SIGKILL ends. It is forked from one that has loaded the libraries,
so that hundreds of starts take a minute and the kills hit work, not imports.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from harness.core.records import CellStatus
from harness.core.store import Run
from support.helpers import contents, environment, untimed_files

_TIMED = ("finished", "seconds", "fit")
"""Fields of a status that say when and how fast a cell was written."""

_PATIENCE = 300.0  # seconds

_LOADED = (
    *("harness.cli.root", "harness.runner.work", "harness.runner.sync", "harness.scoring.scorers"),
    *("harness.engine.model", "harness.engine.generate", "leaderboard.build"),
)
"""Modules that bring in every library."""

_SHARES = {"run": 0.2}
"""Share of the time of a command within which it is killed, so that it takes many starts until it is done."""


# The process that commands are forked from


def serve() -> None:
    """Do what each line on stdin asks for: fork a command, or send one a signal; print ids, and statuses at the end."""
    for name in _LOADED:
        importlib.import_module(name)
    os.fsync = lambda handle: None  # nobody cuts the power here
    looking = selectors.DefaultSelector()
    looking.register(0, selectors.EVENT_READ)
    alive: set[int] = set()
    rest = b""
    while True:
        if looking.select(0.002):
            data = os.read(0, 65536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for order in map(json.loads, lines):
                if "words" in order:
                    alive.add(_fork(**order))
                elif order["pid"] in alive:  # else the number may be that of another process by now
                    os.kill(order["pid"], order["signal"])
        while alive and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            alive.discard(ended[0])
            print(json.dumps([ended[0], os.waitstatus_to_exitcode(ended[1])]), flush=True)


def _fork(words: Sequence[str], log: str) -> int:
    """Start the command ``steerboard`` with these words; return its process id, which is printed."""
    pid = os.fork()
    if not pid:
        _run(words, log)
    print(json.dumps([pid, None]), flush=True)
    return pid


def _run(words: Sequence[str], log: str) -> NoReturn:
    """Be the command ``steerboard`` with these words."""
    from harness.cli.main import main

    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        to = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        os.dup2(to, 1)
        os.dup2(to, 2)
        sys.argv = ["steerboard", *words]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@dataclass
class Commands:
    """Starts commands, and waits for them; what they print is in ``log``."""

    log: Path
    _server: subprocess.Popen[str]
    _ended: dict[int, int] = field(default_factory=dict)

    def start(self, *words: object) -> int:
        """Start a command; return its process id."""
        self._ask(words=[*map(str, words)], log=str(self.log))
        while True:
            pid, status = self._read()
            if status is None:
                return pid
            self._ended[pid] = status

    def wait(self, pid: int) -> int:
        """Return the exit status of a command when it has ended; negative for a signal."""
        while pid not in self._ended:
            other, status = self._read()
            assert status is not None
            self._ended[other] = status
        return self._ended.pop(pid)

    def end(self, pid: int, how: signal.Signals = signal.SIGKILL) -> int:
        """Send a command a signal; return its exit status."""
        self._ask(pid=pid, signal=how)
        return self.wait(pid)

    def _ask(self, **order: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()

    def said(self) -> str:
        """Return the end of what commands printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def _read(self) -> tuple[int, int | None]:
        assert self._server.stdout is not None
        late = threading.Timer(_PATIENCE, self._server.kill)
        late.start()
        line = self._server.stdout.readline()
        late.cancel()
        assert line, "no command has started or ended for long"
        pid, status = json.loads(line)
        return pid, status


@contextmanager
def warm_commands(log: Path, **changes: str) -> Iterator[Commands]:
    """Yield what starts commands with the libraries loaded."""
    code = "from support.killing import serve; serve()"
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=pipe,
        stdout=pipe,
        env=environment(PYTHONPATH=paths, **changes),
        text=True,
        start_new_session=True,
    ) as server:
        try:
            yield Commands(log, server)
        finally:
            os.killpg(server.pid, signal.SIGKILL)


# What is killed


@dataclass
class Storm:
    """One run after the other, each command of which is killed again and again and in the end left alone.

    ``words``: the words of ``steerboard run`` without --run, such as ``--executor ray``. ``folder``: what lies in it is
    removed with every run that came out as ``reference`` did, which nobody killed. ``kills``: how many hit a command
    that was at work, by what it was.
    """

    commands: Commands
    words: Sequence[object]
    folder: Path
    reference: Path
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    _spans: dict[str, float] = field(default_factory=dict)
    """Seconds after which a command is killed at most."""

    def measure(self) -> None:
        """Make the reference, and note how long each command takes."""
        run, copy, site, url = self._places(self.reference)
        for name, words in (
            ("run", self._run(run)),
            ("score", ("score", run)),
            ("push", ("push", run, url)),
            ("pull", ("pull", url, copy)),
            ("board", ("board", "build", run, "--out", site)),
        ):
            started = time.monotonic()
            assert self.commands.wait(self.commands.start(*words)) == 0, self.commands.said()
            self._spans[name] = (time.monotonic() - started) * _SHARES.get(name, 1.0)
        self._spans["work"] = self._spans["run"]

    def blow(self, run: int = 0, work: int = 0, score: int = 0, push: int = 0, pull: int = 0, board: int = 0) -> None:
        """Make a run with at most so many kills of each command, and compare it with the reference."""
        folder, copy, site, url = self._places(self.folder)
        if work:
            self.begin(folder)
            self._kill_workers(folder, work)
        self._kill("run", self._run(folder), run)
        self._finish(self._run(folder))
        for path in folder.glob("cells/*/scores.json"):
            if score and self.chance.random() < 0.5:
                path.unlink()
        self._kill("score", ("score", folder), score)
        self._finish(("score", folder))
        self.check(folder)
        if push or pull:
            self._kill("push", ("push", folder, url), push)
            self._finish(("push", folder, url))
            self._kill("pull", ("pull", url, copy), pull)
            self._finish(("pull", url, copy))
            self.check(copy)
        if board:
            again = site.with_name("again")
            self._kill("board", ("board", "build", folder, "--out", site), board)
            self._finish(("board", "build", folder, "--out", site))
            self._finish(("board", "build", folder, "--out", again))
            assert contents(site) == contents(again)
        shutil.rmtree(self.folder)

    def check(self, run: Path) -> None:
        """Compare a run with the reference: no cell is lost or was written twice, no other file is there."""
        expected = self._places(self.reference)[0]
        found, wanted = untimed_files(run), untimed_files(expected)
        assert found.keys() == wanted.keys()
        assert [name for name in found if found[name] != wanted[name]] == []
        assert statuses(run) == statuses(expected)
        assert {status["attempts"] for status in statuses(run).values()} == {1}
        assert _names(run) == _names(expected)

    def _places(self, folder: Path) -> tuple[Path, Path, Path, str]:
        """Return where the run, its copy and its site are, and the URL of what is pushed."""
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "run", folder / "copy", folder / "site", (folder / "storage").as_uri()

    def _run(self, folder: Path) -> Sequence[object]:
        return ("run", *self.words, "--run", folder)

    def _finish(self, words: Sequence[object]) -> None:
        code = self.commands.wait(self.commands.start(*words))
        assert code == 0, self.commands.said()

    def _wait(self, name: str) -> None:
        time.sleep(self.chance.uniform(0, self._spans[name]))

    def _count(self, name: str, code: int) -> bool:
        """Count a kill; return whether it came in time."""
        if code != -signal.SIGKILL:
            assert code == 0, self.commands.said()
            return False
        self.kills[name] += 1
        return True

    def _kill(self, name: str, words: Sequence[object], most: int) -> None:
        """Start a command and kill it, at most so many times, until it is done first."""
        for _ in range(most):
            pid = self.commands.start(*words)
            self._wait(name)
            if not self._count(name, self.commands.end(pid)):
                return

    def begin(self, folder: Path) -> None:
        """Start a run and kill it when workers can join it."""
        pid = self.commands.start(*self._run(folder))
        while not (folder / "manifest.json").is_file():
            time.sleep(0.01)
        self._count("run", self.commands.end(pid))

    def _kill_workers(self, folder: Path, most: int) -> None:
        """Let workers join a run and die, two to eight at once; the last ones are left alone."""
        working: list[int] = []
        for _ in range(most):
            while len(working) < self.chance.randint(2, 8):
                working.append(self.commands.start("work", folder))
            self._wait("work")
            self.chance.shuffle(working)
            if not self._count("work", self.commands.end(working.pop())):
                break
        for pid in working:
            assert self.commands.wait(pid) == 0, self.commands.said()


def statuses(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the statuses of a run say, without times."""
    run, found = Run(folder), {}
    for cell in run.cell_ids():
        status = run.status(cell)
        assert isinstance(status, CellStatus), cell
        found[cell] = {name: value for name, value in status.to_json().items() if name not in _TIMED}
    return found


def _names(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()} - {"logs", ".lock"}
