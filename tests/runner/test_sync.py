"""Push and pull: whole cells travel both ways, byte for byte, and nothing finished is replaced, whoever is killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.helpers import (
    MODEL,
    Killed,
    Outcome,
    contents,
    key,
    names_below,
    snapshot,
    steerboard,
)
from support.syncing import SUITE, cell_of, pull, push, selection, stored, travelling, write_run, write_scores

from harness.core.files import write_bytes
from harness.core.records import CellStatus
from harness.core.storage import Storage
from harness.core.store import Run
from harness.runner import sync

pytest_plugins = ["support.storages"]

OTHER_TEXTS = {"positive": ["ሌላ", "אחר"], "negative": ["a", "b"]}


def sent(outcome: Outcome) -> int:
    """Return how many files a command copied."""
    assert outcome.code == 0, outcome.err
    return int(outcome.out.split()[1])


# There and back


def test_a_run_comes_back_byte_for_byte(a, url, tmp_path):
    assert sent(push(a, url)) == len(travelling(a)) == 13
    outcome = pull(url, tmp_path / "b")
    assert sent(outcome) == 12  # the manifest is not counted: it is merged
    assert "of 2 cells" in outcome.out
    assert f"next: steerboard board build {tmp_path / 'b'} --out site" in outcome.out
    assert travelling(Run(tmp_path / "b")) == travelling(a)
    assert Run(tmp_path / "b").generations(cell_of("am"))[0].text == "ምግቡ በጣም ጥሩ ነበር።"
    assert not any(b"only here" in data for data in stored(url).values())


def test_what_is_there_is_not_copied_again(a, url, tmp_path):
    push(a, url)
    before = stored(url)
    again = push(a, url)
    assert again.out.startswith("sent 0 files (0 bytes) of 0 cells; 12 were there already\n")
    assert stored(url) == before
    pull(url, tmp_path / "b")
    here = snapshot(tmp_path / "b")
    assert sent(pull(url, tmp_path / "b")) == 0
    assert snapshot(tmp_path / "b") == here


def test_two_machines_share_their_cells_and_come_to_rest(url, tmp_path):
    first = write_run(tmp_path / "a", "am", created="2026-01-02", commands=[["steerboard", "run", "a"]], device="cuda")
    second = write_run(tmp_path / "b", "he", created="2026-01-01", commands=[["steerboard", "run", "b"]], device="cpu")
    for run in (first, second):
        assert push(run, url).code == 0
    for run in (first, second):
        assert pull(url, run.path).code == 0
        assert run.cell_ids() == sorted([cell_of("am"), cell_of("he")])
        manifest = run.manifest()
        assert manifest.selection.languages == ["am", "he"]
        assert manifest.selection.narrowed[0].startswith("2 of 11 languages (am, he)")
        assert manifest.created == "2026-01-01"
        assert sorted(manifest.commands) == [["steerboard", "run", "a"], ["steerboard", "run", "b"]]
    assert (first.manifest().device, second.manifest().device) == ("cuda", "cpu")  # of the machine
    assert [sent(push(run, url)) for run in (first, second)] == [1, 1]  # the manifest with what was merged
    still = {run.path: snapshot(run.path) for run in (first, second)}
    for run in (first, second):
        assert pull(url, run.path).code == 0
        assert sent(push(run, url)) == 0
        assert snapshot(run.path) == still[run.path]


def test_only_finished_cells_travel(url, tmp_path):
    run = write_run(tmp_path / "a", "am")
    run.write_cell(cell_of("he"), CellStatus(cell=key(language="he"), state="infra_error", reason="disk"), [])
    run.write_cell(cell_of("cs"), CellStatus(cell=key(language="cs"), state="skipped", reason="no text"), [])
    (run.cell(cell_of("mt"))).mkdir()
    (run.cell(cell_of("mt")) / "generations.jsonl").write_text("half a cell")
    push(run, url)
    pull(url, tmp_path / "b")
    assert Run(tmp_path / "b").cell_ids() == sorted([cell_of("am"), cell_of("cs")])
    assert names_below(tmp_path / "b" / "cells" / cell_of("cs")) == ["status.json"]
    other = write_run(tmp_path / "c", "he")
    push(other, url)
    assert pull(url, run.path).code == 0  # a cell that failed here and is finished there is taken
    assert run.finished(cell_of("he"))


def test_damaged_texts_are_not_sent_and_are_replaced_by_a_pull(a, url, tmp_path):
    push(a, url)
    path = a.texts_path(cell_of("am"))
    right = path.read_bytes()
    path.write_bytes(right.replace(b"a", b"b", 1))
    outcome = steerboard("push", a.path, f"{url}-other")
    assert f"{a.cell(cell_of('am'))} does not count: its texts are damaged" in outcome.err
    assert "of 1 cells" in outcome.out
    assert pull(url, a.path).code == 0
    assert path.read_bytes() == right


def test_the_search_of_tune_travels(a, url, tmp_path):
    write_run(a.path / "tuning", "am", suite_hash="tuning")
    (a.path / "tuned.json").write_text('{"schema": 1}')
    push(a, url)
    pull(url, tmp_path / "b")
    assert travelling(Run(tmp_path / "b")) == travelling(a)
    assert "tuning/manifest.json" in names_below(tmp_path / "b")


def test_a_dry_run_writes_nothing(a, url, tmp_path):
    assert push(a, url, "--dry-run").out.startswith("would send 13 files (")
    assert stored(url) == {}
    push(a, url)
    before = stored(url)
    assert pull(url, tmp_path / "b", "--dry-run").out.startswith("would fetch 12 files (")
    assert not (tmp_path / "b").exists()
    assert stored(url) == before


@pytest.mark.slow
def test_a_pulled_run_is_a_run(tmp_path, memory):
    words = ("run", "--suite", "mini", "--methods", "human", "--languages", "he", "--tasks", "topic", "--seeds", "1")
    assert steerboard(*words, "--limit", 6, "--run", tmp_path / "a").code == 0
    push(Run(tmp_path / "a"), memory)
    pull(memory, tmp_path / "b")
    before = contents(tmp_path / "b" / "cells")
    assert steerboard("board", "build", tmp_path / "b", "--out", tmp_path / "site").code == 0
    assert steerboard("score", tmp_path / "b").out.startswith("0 cells scored\n")
    assert steerboard(*words, "--limit", 6, "--run", tmp_path / "b").code == 0
    assert contents(tmp_path / "b" / "cells") == before


# Scores


def test_scores_are_added_where_there_are_none_or_fewer(url, tmp_path):
    first = write_run(tmp_path / "a", "am", scored=False)
    push(first, url)
    second = Run(tmp_path / "b")
    pull(url, second.path)
    write_scores(second, "am", "classifier/tfidf")
    assert sent(push(second, url)) == 3
    assert sent(pull(url, first.path)) == 3
    write_scores(second, "am", "classifier/tfidf", "validity")
    assert sent(push(second, url)) == 3
    outcome = push(first, url)  # has fewer: its own stay here, those there stay there
    assert "sent 0 files" in outcome.out
    assert "1 scores or steering files differ and stay as they are on both sides" not in outcome.out
    assert sent(pull(url, first.path)) == 3
    assert contents(first.path / "cells") == contents(second.path / "cells")


def test_scores_that_differ_stay_on_both_sides(url, tmp_path):
    first, second = write_run(tmp_path / "a", "am"), write_run(tmp_path / "b", "am", scored=False)
    write_scores(second, "am", "leakage")
    push(first, url)
    for outcome in (push(second, url), pull(url, second.path)):
        assert sent(outcome) == 0
        assert "1 scores or steering files differ and stay as they are on both sides" in outcome.out
    assert list(second.scores(cell_of("am")).parts) == ["leakage"]


# Refusals


def test_a_cell_with_other_texts_is_named_and_nothing_is_copied(a, url, tmp_path):
    push(a, url)
    other = write_run(tmp_path / "b", "he", "cs", texts=OTHER_TEXTS)
    before, there = contents(other.path), stored(url)
    for outcome in (push(other, url), pull(url, other.path)):
        line = outcome.one_line()
        assert f"cells/{cell_of('he')} is finished in " in line
        assert "with other texts: nothing was copied" in line
    assert {name: data for name, data in contents(other.path).items() if name != ".lock"} == before
    assert stored(url) == there


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"suite_hash": "another"}, "holds a run of another suite"),
        ({"suite": {**SUITE, "description": "another"}}, "holds a run with another suite of the same hash"),
        ({"model": MODEL.model_copy(update={"fingerprint": "beef"})}, "holds a run of another model"),
        ({"data_hashes": {"sentiment/am": "2"}}, "holds a run on other data"),
        ({"track": "forcing"}, "holds a run of the generation track"),
        ({"contrast": "contrast"}, "holds a run with other contrast text"),
        ({"chat": {"template": "x"}}, "the chat template was used in another way"),
        (
            {"selection": selection("am").model_copy(update={"texts_per_label": {"sentiment": 3}})},
            "another number of texts per label",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_run_is_refused(changes, words, memory, tmp_path):
    push(write_run(tmp_path / "a", "am", data_hashes={"sentiment/am": "1"}), memory)
    other = write_run(tmp_path / "b", "am", **{"data_hashes": {"sentiment/am": "1"}, **changes})
    there = stored(memory)
    for outcome in (push(other, memory), pull(memory, other.path)):
        assert words in outcome.one_line()
    assert stored(memory) == there


def test_a_run_of_lm_eval_is_pulled_whole(memory, tmp_path):
    push(write_run(tmp_path / "a", "am", track="understanding"), memory)
    assert pull(memory, tmp_path / "b").code == 0
    other = write_run(tmp_path / "c", "he", track="understanding")
    assert "holds a run of other languages or seeds" in push(other, memory).one_line()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("runs/a", "is not a URL. Give one such as s3://"),
        ("simplecache::memory://x", "is not a URL"),
        ("odd://x/y", "'odd' is not a kind of storage that fsspec knows. Valid: s3, gs"),
        ("memory://", "memory:// names no folder"),
    ],
)
def test_other_words_than_a_url_are_refused(bad, words, a, tmp_path):
    assert words in push(a, bad).one_line()
    assert words in pull(bad, tmp_path / "b").one_line()
    assert not (tmp_path / "b").exists()


def test_what_is_not_there_is_said(a, url, tmp_path):
    assert f"{url} holds no run. Push one: steerboard push RUN {url}" in pull(url, tmp_path / "b").one_line()
    assert "does not contain a run" in steerboard("push", tmp_path / "b", url).one_line()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://bucket/x", "s3:// needs s3fs, which is not installed: pip install 'steerboard[s3]'."),
        ("gs://bucket/x", "gs:// needs gcsfs, which is not installed: pip install gcsfs."),
        ("abfs://bucket/x", "abfs:// needs adlfs, which is not installed: pip install adlfs."),
        ("sftp://bucket/x", "sftp:// needs a package that is not installed (SFTPFileSystem requires paramiko)."),
    ],
)
def test_a_missing_package_is_named(address, words, a, monkeypatch):
    def refuse(protocol: str) -> None:
        raise ImportError("SFTPFileSystem requires paramiko")

    monkeypatch.setattr(fsspec, "get_filesystem_class", refuse)
    assert words in push(a, address).one_line()


def test_logins_are_neither_printed_nor_stored(a, memory, monkeypatch, tmp_path):
    login = memory.replace("://", "://user:hunter2@host").replace("storage", "storage?token=swordfish")
    for outcome in (push(a, login), pull(login, tmp_path / "b")):
        assert outcome.code == 0
        assert not any(secret in outcome.out + outcome.err for secret in ("hunter2", "swordfish"))
    kept = [*contents(tmp_path / "b").values(), *(data for data in stored(login).values())]
    assert not any(secret in data for data in kept for secret in (b"hunter2", b"swordfish"))

    def fail(*given: Any, **more: Any) -> None:
        raise ConnectionError(f"no answer from {login} for user:hunter2 and swordfish")

    monkeypatch.setattr(MemoryFileSystem, "find", fail)
    line = push(a, login).one_line()
    assert "ConnectionError: no answer from" in line
    assert "Check the name, and the credentials of this machine" in line
    assert not any(secret in line for secret in ("hunter2", "swordfish"))


# Killed at any moment


def failing_after(n: int, function: Callable[..., Any], error: type[BaseException]) -> tuple[Callable[..., Any], list]:
    """Return a function that fails from its call number ``n`` on, and the list of its finished calls."""
    calls: list[Any] = []

    def call(*given: Any, **more: Any) -> Any:
        if len(calls) >= n:
            raise error("the network is down")
        found = function(*given, **more)
        calls.append(given)
        return found

    return call, calls


def test_a_push_that_was_stopped_sends_the_rest(a, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(sync, "_BATCH_FILES", 1)
    whole = len({hashlib.sha256(data).hexdigest() for data in travelling(a).values()})
    pipe = MemoryFileSystem.pipe_file
    failing, _ = failing_after(7, pipe, OSError)
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", failing)
    assert "OSError: the network is down" in push(a, memory).one_line()
    assert "holds no run" in pull(memory, tmp_path / "b").one_line()  # no index names what was sent
    counted, calls = failing_after(1000, pipe, OSError)
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", counted)
    assert push(a, memory).code == 0
    assert len(calls) == whole - 7 + 1  # the rest, and the index
    assert pull(memory, tmp_path / "b").code == 0
    assert travelling(Run(tmp_path / "b")) == travelling(a)


def test_what_a_machine_sent_before_it_died_is_there(a, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(sync, "_BATCH_FILES", 1)
    monkeypatch.setattr(sync, "_INDEXED", 1)
    failing, _ = failing_after(11, MemoryFileSystem.pipe_file, OSError)
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", failing)
    assert push(a, memory).code == 2
    assert pull(memory, tmp_path / "b").code == 0
    [cell] = Run(tmp_path / "b").cell_ids()
    assert contents(tmp_path / "b" / "cells" / cell).items() <= contents(a.path / "cells" / cell).items()
    assert len(names_below(tmp_path / "b" / "cells" / cell)) == 5


@pytest.mark.parametrize("n", range(11))
def test_a_pull_that_is_killed_leaves_whole_cells_and_goes_on(n, a, memory, tmp_path, monkeypatch):
    push(a, memory)
    run = write_run(tmp_path / "b", "cs")
    manifest, before = run.manifest_path.read_bytes(), contents(run.path / "cells")
    failing, _ = failing_after(n, write_bytes, Killed)
    monkeypatch.setattr(sync, "write_bytes", failing)
    if n < 10:  # two cells of five files; the steering file is there
        with pytest.raises(Killed):
            pull(memory, run.path)
        assert run.manifest_path.read_bytes() == manifest
    else:
        assert pull(memory, run.path).code == 0
    for cell in run.cell_ids():
        assert run.finished(cell)
        assert len(names_below(run.cell(cell))) == 5  # scores and all
    assert before.items() <= contents(run.path / "cells").items()
    monkeypatch.setattr(sync, "write_bytes", write_bytes)
    assert pull(memory, run.path).code == 0
    assert contents(a.path / "cells").items() - contents(run.path / "cells").items() <= {
        (f"{cell_of('am')}/.x.json.abcdefgh.tmp", b"only here")
    }
    assert run.manifest().selection.languages == ["am", "cs", "he"]


def test_of_two_pushes_at_once_the_first_texts_count(memory, tmp_path, monkeypatch):
    first = write_run(tmp_path / "a", "am", "cs")
    second = write_run(tmp_path / "b", "am", "he", texts=OTHER_TEXTS)
    write_scores(second, "am", "classifier/tfidf", "validity", "leakage")
    push(first, memory)
    with monkeypatch.context() as patched:
        patched.setattr(Storage, "pushes", lambda self: [])  # it looked before the first wrote its index
        assert push(second, memory).code == 0
    assert pull(memory, tmp_path / "c").code == 0
    both = Run(tmp_path / "c")
    assert both.cell_ids() == sorted(map(cell_of, ("am", "cs", "he")))
    assert both.texts_path(cell_of("am")).read_bytes() == first.texts_path(cell_of("am")).read_bytes()
    assert set(both.scores(cell_of("am")).parts) == {"classifier/tfidf", "validity"}
    assert f"cells/{cell_of('am')} is finished in" in push(second, memory).one_line()
