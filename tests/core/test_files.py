"""Files are written whole or not at all, and what is read back is checked before it is believed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from support.helpers import generations, jsonl, python

from harness.core import files
from harness.core.errors import MachineError, UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_rename(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(self: Path, target: Path) -> None:
        raise error

    monkeypatch.setattr(Path, "replace", broken)


def test_a_written_file_holds_exactly_the_bytes(tmp_path):
    files.write_bytes(tmp_path / "new" / "deep" / "a", b"\x00\xff")
    assert (tmp_path / "new" / "deep" / "a").read_bytes() == b"\x00\xff"


def test_a_written_file_can_be_read_by_others(tmp_path):
    files.write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [OSError("disk gone"), KeyboardInterrupt(), MemoryError()])
def test_a_crash_before_the_rename_leaves_the_old_file_alone(tmp_path, monkeypatch, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    break_rename(monkeypatch, error)
    with pytest.raises((UserError, KeyboardInterrupt, MemoryError)):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_the_bytes_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("rename"), replace(self, target))[1])
    files.write_text(tmp_path / "a", "x")
    assert events == ["fsync", "rename"]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    killed = (
        "import os, sys; from pathlib import Path; from harness.core.files import write_text\n"
        "os.fsync = lambda handle: os._exit(0)\n"
        "write_text(Path(sys.argv[1]), 'new')"
    )
    python(killed, path)
    assert path.read_text() == "old"


def test_a_path_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write .*file/a.*Choose a folder"):
        files.write_text(tmp_path / "file" / "a", "x")


def test_a_number_that_is_none_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"x": float("nan")})
    assert names(tmp_path) == ["a.json"]
    assert path.read_text() == "{}"


def test_gzipped_json_has_equal_bytes_for_equal_values_at_any_time(tmp_path, monkeypatch):
    files.write_json_gz(tmp_path / "a.gz", {"b": [1, 2], "a": "ä"})
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    files.write_json_gz(tmp_path / "b.gz", {"a": "ä", "b": [1, 2]})
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert (tmp_path / "a.gz").read_bytes()[4:8] == b"\0\0\0\0"  # the header's time stamp


def test_canonical_json_is_one_text_per_value():
    assert files.canonical_json({"b": 1, "a": ["ä", None]}) == '{"a":["ä",null],"b":1}'


def test_a_digest_is_the_sha256_of_the_canonical_json():
    by_hand = hashlib.sha256('{"a":"ä","b":1}'.encode()).hexdigest()
    assert files.digest({"b": 1, "a": "ä"}) == by_hand
    assert files.digest({"b": 1, "a": "ä"}, 16) == by_hand[:16]


def test_written_json_is_read_by_any_json_reader(tmp_path):
    files.write_json(tmp_path / "a.json", {"schema": 1, "text": "ሰላም"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"schema": 1, "text": "ሰላም"}


# What no program of ours wrote


# What killed writers leave behind


def stray(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("half")
    return folder / name


def test_a_killed_writer_leaves_a_stray_that_the_next_one_removes(tmp_path):
    killed = (
        "import os, sys; from pathlib import Path; from harness.core.files import write_text\n"
        "os.fsync = lambda handle: os._exit(0)\n"
        "write_text(Path(sys.argv[1]), 'new')"
    )
    python(killed, tmp_path / "cells" / "a" / "status.json")
    [left] = names(tmp_path / "cells" / "a")
    assert left.startswith(".status.json.")
    assert left.endswith(".tmp")
    with files.run_lock(tmp_path, "--run"):
        assert names(tmp_path / "cells" / "a") == []


def test_only_strays_are_swept_and_none_of_a_writer_who_lives(tmp_path):
    import fcntl

    old = [stray(tmp_path / "a", ".status.json.k3jf9_2a"), stray(tmp_path, ".index.html.abcdefgh.tmp")]
    (tmp_path / ".pack-abcd1234" / "results").mkdir(parents=True)
    kept = [
        stray(tmp_path, name)
        for name in (".lock", ".gitignore", ".config.settings", "a.tmp", ".env.local", ".x.json.ABCDEFGH")
    ]
    outside = stray(tmp_path.parent, ".outside.json.abcdefgh.tmp")
    (tmp_path / ".link.json.abcdefgh.tmp").symlink_to(outside)
    alive = stray(tmp_path, ".scores.json.abcdefgh.tmp")
    with alive.open() as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        files.sweep(tmp_path)
        assert alive.exists()
    assert not any(path.exists() for path in [*old, tmp_path / ".pack-abcd1234"])
    assert all(path.exists() for path in [*kept, outside])
    files.sweep(tmp_path)
    assert not alive.exists()
    outside.unlink()


def test_a_writer_holds_its_temporary_file_until_it_has_its_name(tmp_path, monkeypatch):
    replace = Path.replace

    def swept(self: Path, target: Path) -> Path:
        files.sweep(tmp_path)  # by another process, at the worst moment
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", swept)
    files.write_text(tmp_path / "a.json", "new")
    assert names(tmp_path) == ["a.json"]


def test_half_a_pack_is_held_while_it_is_made(tmp_path):
    with files.staging(tmp_path) as staged:
        files.sweep(tmp_path)
        assert staged.is_dir()
    assert names(tmp_path) == []


def test_a_name_as_long_as_a_file_may_have_can_be_written(tmp_path):
    path = tmp_path / ("ה" * 120 + ".json")  # 245 bytes
    files.write_text(path, "{}")
    assert names(tmp_path) == [path.name]


def test_strays_of_a_site_are_removed_by_the_next_build(tmp_path):
    from support.toyruns import F1, flat, selection, toy, write_run

    from leaderboard.build import build_board

    made = toy("zero-shot")
    made.scores[F1] = flat(0.5, selection(["am"]))
    suite = {"name": "toy", "classifiers": ["tfidf"], "description": "a toy", "version": 1}
    run = write_run(tmp_path / "run", [made], selection(["am"]), suite=suite)
    for cell in run.cell_ids():
        row = generations({"good": ["ጥሩ"]})[0].model_dump(mode="json")
        jsonl(run.cell(cell) / "generations.jsonl", [row])
    left = stray(tmp_path / "site", ".index.html.abcdefgh.tmp")
    other = stray(tmp_path / "site", ".htaccess")
    build_board([run], tmp_path / "site")
    assert not left.exists()
    assert other.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_a_folder_is_used_with_a_warning_and_strays_stay(tmp_path, monkeypatch, capsys, number):
    def flock(handle, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    left = stray(tmp_path, ".a.json.abcdefgh.tmp")  # perhaps of a living writer
    with files.run_lock(tmp_path, "--run"):
        files.write_text(tmp_path / "a.json", "new")
    said = capsys.readouterr().err
    assert f"has no locks ({os.strerror(number)}): start one command on it at a time" in said
    assert (tmp_path / "a.json").read_text() == "new"
    assert left.exists()
    with pytest.raises(MachineError, match=r"cannot be locked: .*Choose a folder on a local disk"):
        files.waiting(tmp_path).__enter__()


def test_a_folder_that_another_process_writes_is_refused(tmp_path):
    with (
        files.run_lock(tmp_path, "--run"),
        pytest.raises(UserError, match=r"is in use by another steerboard\. Wait"),
        files.run_lock(tmp_path, "--run"),
    ):
        pass


def test_a_lock_is_seen_and_looking_takes_none(tmp_path):
    path = tmp_path / ".lock"
    assert not files.is_locked(path)
    assert not path.exists()
    with files.run_lock(tmp_path, "--run"):
        assert files.is_locked(path)
    assert path.exists()
    assert not files.is_locked(path)
    with files.run_lock(tmp_path, "--run"):  # looking left it free
        pass
