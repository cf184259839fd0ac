"""Claims of a run: of many workers one gets a name, and what a dead one had goes to one of the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.helpers import command, environment, names_below, python
from support.working import CLAIM_AND_DIE

from harness.core.errors import MachineError, UserError
from harness.runner.claims import Claims

TAKE_ALL = """
import sys, time
from pathlib import Path
from harness.runner.claims import Claims
with Claims(Path(sys.argv[1])) as claims:
    print("ready", flush=True)
    sys.stdin.readline()
    print(*[name for name in sys.argv[2:] if claims.take(name)], flush=True)
    sys.stdin.readline()
"""
MANY = [f"cell{i}" for i in range(100)]


def files(run: Path) -> list[str]:
    """Return the claims, without the files of workers."""
    return [name for name in names_below(run / "claims") if not name.endswith(".worker")]


def test_a_claim_is_held_by_one_until_it_is_given_back(tmp_path):
    with Claims(tmp_path) as one, Claims(tmp_path) as other:
        assert one.take("a")
        assert one.take("a")  # it has it
        assert not other.take("a")
        assert other.taken() == {"a"}
        assert one.taken() == set()
        other.release("a")  # not its own
        assert not other.take("a")
        one.release("a")
        assert other.take("a")
        assert (one.held, other.held) == (set(), {"a"})
        assert one.workers == other.workers == 2
    assert not (tmp_path / "claims").exists()


def race(tmp_path: Path, names: list[str]) -> list[set[str]]:
    """Return what each of four processes got that claimed all names at once."""
    words = command(tmp_path, *names, code=TAKE_ALL)
    pipe = subprocess.PIPE
    started = [subprocess.Popen(words, stdin=pipe, stdout=pipe, env=environment(), text=True) for _ in range(4)]
    got = []
    for line in ("go", "end"):
        for process in started:
            assert process.stdout is not None
            got.append({*process.stdout.readline().split()})
        for process in started:
            assert process.stdin is not None
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
    for process in started:
        process.communicate(timeout=60)
        assert process.returncode == 0
    return got[4:]


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_of_several_processes_one_gets_each_name_also_of_those_that_the_dead_had(tmp_path, deaths):
    for _ in range(deaths):
        python(CLAIM_AND_DIE, tmp_path, *MANY)
    assert files(tmp_path) == sorted(f"{name}.{i}" for name in MANY for i in range(deaths))
    got = race(tmp_path, MANY)
    assert set().union(*got) == {*MANY}
    assert sum(map(len, got)) == len(MANY)
    assert not (tmp_path / "claims").exists()


def test_of_several_threads_one_steals(tmp_path):
    python(CLAIM_AND_DIE, tmp_path, "a")
    start, won = threading.Barrier(8), []

    def steal() -> None:
        with Claims(tmp_path) as claims:
            start.wait()
            won.append(claims.take("a"))
            start.wait()

    threads = [threading.Thread(target=steal) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_a_worker_of_another_machine_is_dead_when_its_heart_has_not_beaten_for_long(tmp_path):
    python(CLAIM_AND_DIE, tmp_path, "a")
    (worker,) = (tmp_path / "claims").glob("*.worker")
    worker.write_bytes(b"another machine")  # whose locks are not seen
    with Claims(tmp_path, expiry=0.9) as claims:
        set_back(worker, -60)
        taken_after(claims, "a", 0.3, 0.9)
        assert files(tmp_path) == ["a.0", "a.1"]
    assert not (tmp_path / "claims").exists()


@pytest.mark.parametrize("seconds", [3600, 0, -3600])
def test_a_worker_whose_clock_is_wrong_lives_while_its_heart_beats(tmp_path, seconds):
    """Some network file systems take the time of the machine that writes."""
    python(CLAIM_AND_DIE, tmp_path, "a")
    (worker,) = (tmp_path / "claims").glob("*.worker")
    worker.write_bytes(b"another machine")
    with Claims(tmp_path, expiry=0.9) as claims:
        for _ in range(12):
            set_back(worker, seconds)  # a beat
            assert not claims.take("a")
            assert claims.workers == 2
            time.sleep(0.15)
        taken_after(claims, "a", 0.2, 1.5)


def set_back(path: Path, seconds: float) -> None:
    """Let a file be changed now, by a clock that is so many seconds ahead."""
    os.utime(path, (time.time() + seconds, time.time() + seconds))


def taken_after(claims: Claims, name: str, least: float, most: float) -> None:
    """Claim a name of a dead worker, which takes so many seconds (and on a slow machine a few more)."""
    started = time.monotonic()
    while not claims.take(name):
        time.sleep(0.02)
    assert least - 0.1 < time.monotonic() - started < most + 5


def test_a_claim_that_is_just_being_written_is_not_stolen(tmp_path):
    with Claims(tmp_path, expiry=0.9) as claims:
        (tmp_path / "claims/a.0").touch()
        assert not claims.take("a")
        taken_after(claims, "a", 0.3, 0.9)


def test_a_worker_that_was_given_up_and_lives_is_seen_again(tmp_path):
    with Claims(tmp_path, expiry=0.6) as stalled, Claims(tmp_path) as other:
        assert stalled.take("a")
        file = tmp_path / "claims" / f"{stalled.worker}.worker"
        file.unlink()  # as the last of the others does with what the dead have left
        until = time.monotonic() + 30
        while not (file.exists() and file.read_bytes()):
            assert time.monotonic() < until
            time.sleep(0.02)
        assert not other.take("a")
        assert other.workers == 2


def test_a_living_worker_keeps_its_claims_for_longer_than_the_expiry(tmp_path):
    with Claims(tmp_path, expiry=0.6) as one, Claims(tmp_path, expiry=0.6) as other:
        assert one.take("a")
        for _ in range(15):
            time.sleep(0.1)
            assert not other.take("a")


def test_a_block_waits_for_the_worker_that_has_the_name(tmp_path):
    with Claims(tmp_path) as one, Claims(tmp_path) as other:
        one.take("fit")
        entered = threading.Event()

        def wait() -> None:
            with other.exclusive("fit"):
                entered.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.2)
        one.release("fit")
        thread.join(30)
        assert entered.is_set()
        assert other.held == set()
        other.take("mine")
        with other.exclusive("mine"):
            pass
        assert other.held == {"mine"}  # it was claimed before the block


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_block_goes_on_when_the_worker_that_has_the_name_dies_or_stands_still(tmp_path, how):
    """A death is seen at once on this machine; otherwise the expiry counts."""
    expiry = 60.0 if how == signal.SIGKILL else 2.0
    words = command(tmp_path, "reading-a", code=TAKE_ALL)
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, env=environment(), text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline().split() == ["reading-a"]
        entered = threading.Event()
        with Claims(tmp_path, expiry=expiry) as claims:

            def wait() -> None:
                with claims.exclusive("reading-a"):
                    entered.set()

            thread = threading.Thread(target=wait)
            thread.start()
            assert not entered.wait(1.0)
            process.send_signal(how)
            assert entered.wait(30)  # less than the expiry of one that is killed
            thread.join()
        process.kill()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "claims").write_text("a file")
    with pytest.raises(MachineError, match=r"cannot write .*claims"):
        Claims(tmp_path).__enter__()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_bad_expiry_is_one_line(tmp_path, monkeypatch, value):
    monkeypatch.setenv("STEERBOARD_EXPIRY", value)
    with pytest.raises(UserError, match=f"STEERBOARD_EXPIRY={value} is not a number of seconds"):
        Claims(tmp_path)


def test_processes_load_nothing_large_for_claims():
    assert "torch" not in python("import harness.runner.claims, sys\nprint(*sys.modules)").split()
    assert sys.platform != "linux" or Path("/proc/sys/kernel/random/boot_id").is_file()
