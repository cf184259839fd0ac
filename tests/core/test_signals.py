"""Signals and odd arguments: one line and the exit code that a shell expects, from the first moment."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from support.helpers import environment, python, second_process, steerboard

from harness.core.signals import STOPS

GO_ON = "finished cells are kept, run the same command again to resume\n"


def sent(number: int):
    """Return what stands for the work of a command, in the midst of which a signal comes."""

    def work():
        os.kill(os.getpid(), number)
        return []

    return work


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, f"steerboard: stopped; {GO_ON}"),
        (signal.SIGTERM, 143, f"steerboard: stopped by SIGTERM; {GO_ON}"),
        (signal.SIGHUP, 129, f"steerboard: stopped by SIGHUP; {GO_ON}"),
    ],
)
def test_a_signal_ends_a_command_in_one_line(monkeypatch, number, code, line):
    before = [signal.getsignal(each) for each in STOPS]
    monkeypatch.setattr("harness.cli.list.suites", sent(number))
    outcome = steerboard("list", "suites")
    assert (outcome.code, outcome.out, outcome.err) == (code, "", line)
    assert [signal.getsignal(each) for each in STOPS] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_foreign_code_makes_of_an_interrupt_is_no_traceback(monkeypatch, number):
    def work():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise RuntimeError("from a callback") from None

    monkeypatch.setattr("harness.cli.list.suites", work)
    outcome = steerboard("list", "suites")
    assert outcome.code == 128 + number
    assert outcome.err.endswith(GO_ON)
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_ignored(monkeypatch, number):
    """As under nohup, and in the background of a script."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        monkeypatch.setattr("harness.cli.list.suites", sent(number))
        assert steerboard("list", "suites").code == 0
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_run_keeps_an_ignored_ctrl_c_ignored():
    from rich.console import Console

    from harness.runner.progress import progress_bar

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with progress_bar(Console(file=open(os.devnull, "w")), "generate", 1) as tracker:  # noqa: PTH123
            os.kill(os.getpid(), signal.SIGINT)
            tracker.finish_cell("only")
    finally:
        signal.signal(signal.SIGINT, before)


class Interrupting:
    """Sends Ctrl-C when a module is looked for."""

    def find_spec(self, name, path=None, target=None):
        if name == "harness.cli.root":
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_during_the_imports_is_one_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "harness.cli.root", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    outcome = steerboard("list", "suites")
    assert (outcome.code, outcome.err) == (130, f"steerboard: stopped; {GO_ON}")


def test_before_the_signals_are_looked_after_nothing_slow_is_imported():
    code = "import sys; old = set(sys.modules); import harness; print(*sorted(set(sys.modules) - old))"
    assert set(python(code).split()) <= {
        *("__future__", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings"),
        *("harness", "harness.core", "harness.core.version"),  # the version imports nothing
    }


def test_ctrl_c_in_the_first_import_is_one_line():
    code = (
        "import os, signal, sys\n"
        "class First:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'harness.core.errors': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, First())\n"
        "import harness.cli.main\n"
    )
    outcome = second_process(code=code)
    assert (outcome.code, outcome.err) == (130, "steerboard: stopped\n")


PRELOADING = """
import os, signal, sys, time
from pathlib import Path
from harness.runner import workers
from support.working import Script
Path("loaded_late.py").write_text("import os, signal, sys; os.kill(os.getpid(), signal.SIGINT); print('loaded')")
sys.path.insert(0, os.getcwd())
workers._PRELOADED[:] = ["loaded_late"]
workers.start_server()
held = signal.pthread_sigmask(signal.SIG_BLOCK, [])
assert signal.SIGINT not in held, held
for outcome in workers.run_in_workers(Script(Path()), [["a"]], 1):
    print(outcome)
"""
FORKED = """
import os, signal
from harness.core import workers
from harness.core.signals import noting_stops
workers.cores = lambda: 4
with noting_stops():
    os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGINT))
    print(workers.map_forked(abs, [-1, -2, -3, -4]))
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


def test_ctrl_c_at_the_terminal_while_worker_processes_start_is_no_traceback(tmp_path):
    """It reaches all processes of the terminal, also those that have not come to ignore it yet."""
    tests = str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, *filter(None, sys.path)])
    for program, said in ((PRELOADING, "loaded\n('a', None)\n"), (FORKED, "[1, 2, 3, 4]\n")):
        outcome = second_process(code=program, cwd=tmp_path, env=environment(PYTHONPATH=paths))
        assert (outcome.code, outcome.out, outcome.err) == (0, said, "")


# Arguments

LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--suite", "mini", "--methods", "human", "--run", LONG],
        ["run", "--suite", LONG],
        ["run", "--suite", f"{LONG}.yaml"],
        ["run", "--suite", "mini", "--methods", LONG],
        ["run", "--suite", "mini", "--languages", LONG],
        ["run", "--suite", "mini", "--model", LONG],
        ["run", "--suite", "mini", "--plugin", f"{LONG}.py"],
        ["run", "--suite", "mini", "--methods", "human", "--data", LONG],
        ["score", LONG],
        ["board", "build", LONG, "--out", "site"],
        ["board", "diff", LONG, "site"],
        ["compare", LONG, "b"],
        ["gate", LONG, "--against", "b"],
        ["submission", "check", LONG],
        ["submission", "new", LONG],
        ["submission", "pack", LONG, "--out", "x"],
        ["method", "new", LONG],
        ["method", "new", "mine", "--out", f"{LONG}.py"],
        ["method", "test", LONG],
        ["vectors", "show", LONG],
        ["contrast", "import", LONG, "--language", "am", "--out", "x"],
    ],
    ids=lambda words: " ".join(word[:9] for word in words),
)
def test_a_name_of_300_characters_is_one_line(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = steerboard(*words).one_line()
    assert len(line) < 900
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["score", "a\udcff"], ["run", "--suite", "mini", "--run", "\udcfe"]])
def test_an_argument_that_is_not_utf_8_is_one_line(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = steerboard(*words).one_line()
    assert "is not UTF-8 text" in line
    assert "\\xf" in line
    assert list(tmp_path.iterdir()) == []
