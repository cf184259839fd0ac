"""What no program of ours wrote is read within bounds, or refused in one line."""

from __future__ import annotations

import gzip
import json
import os

import pytest
import yaml

from harness.core import files, reading
from harness.core.errors import InvalidFileError, UnreadableFileError, UserError

BASE_60 = "n: " + ":".join(["59"] * 4000)  # YAML 1.1: a number of 7,000 digits


def read_json_gz(path):
    return reading.parse_json(reading.gunzip(reading.read_bytes(path, reading.MAX_BYTES), path), path)


def refused(read, path):
    with pytest.raises(UserError) as error:
        read(path)
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in str(error.value)
    return str(error.value)


def test_gzipped_json_comes_back(tmp_path):
    files.write_json_gz(tmp_path / "a.gz", {"a": "אבג"})
    assert read_json_gz(tmp_path / "a.gz") == {"a": "אבג"}


def test_truncated_gzip_is_one_clear_error(tmp_path):
    path = tmp_path / "a.gz"
    files.write_json_gz(path, {"a": 1})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"a\.gz is a truncated gzip file"):
        read_json_gz(path)


def test_json_lines_come_back_with_separators_of_unicode_inside(tmp_path):
    rows = [{"text": "one\u2028two\x85three"}, {"text": "שלום"}]
    files.write_jsonl(tmp_path / "a.jsonl", rows)
    assert reading.read_jsonl(tmp_path / "a.jsonl") == rows


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"schema": 1, "a": [1,', r"not valid JSON.*truncated or was not written by steerboard"),
        (b"", r"not valid JSON"),
        (b"[1]", r"a JSON list, not an object"),
        (b'{"a": 1}', r"no integer 'schema'"),
        (b'{"schema": true}', r"no integer 'schema'"),
        (b'{"schema": "1"}', r"no integer 'schema'"),
        (b'{"schema": 2}', r"has schema 2, this steerboard reads up to 1.*Upgrade"),
        (b"\xff\xfe", r"is not UTF-8"),
        (b"[" * 100_000, r"nested too deeply"),
    ],
)
def test_json_that_is_not_ours_is_one_clear_error(tmp_path, body, words):
    path = tmp_path / "a.json"
    path.write_bytes(body)
    with pytest.raises(UserError, match=words) as caught:
        reading.read_json(path, schema=1)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [('{"a": 1}\n{"b": ', "line 2 is not valid JSON"), ('{"a": 1}\n\n7\n', "line 3 holds a JSON int")],
)
def test_a_broken_line_is_named_by_its_number(tmp_path, body, words):
    path = tmp_path / "a.jsonl"
    path.write_text(body)
    with pytest.raises(UserError, match=words):
        reading.read_jsonl(path)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        reading.read_json(tmp_path / "none.json")


def test_the_caller_names_the_file_and_words_the_error(tmp_path):
    with pytest.raises(InvalidFileError) as error:
        reading.read_bytes(tmp_path / "none", name="results/a.json")
    assert (error.value.name, error.value.problem) == ("results/a.json", "does not exist")
    assert str(error.value) == "results/a.json does not exist. Check the path."


def test_a_link_is_followed_unless_the_caller_says_otherwise(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    assert reading.read_bytes(tmp_path / "b", 3) == b"abc"
    with pytest.raises(InvalidFileError, match="is a symbolic link"):
        reading.read_bytes(tmp_path / "b", follow_links=False)
    with pytest.raises(InvalidFileError, match="more than 2 bytes"):
        reading.read_bytes(tmp_path / "a", 2)


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end_and_its_limit(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abcdef")
    monkeypatch.setattr(os, "fstat", lambda handle: os.stat_result((0o100644, *[0] * 5, 2, *[0] * 3)))
    assert reading.read_bytes(tmp_path / "a", 6) == b"abcdef"
    with pytest.raises(InvalidFileError, match="more than 5 bytes"):
        reading.read_bytes(tmp_path / "a", 5)


def test_a_disk_that_fails_is_not_the_files_fault(tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError(5, "Input/output error")

    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(UnreadableFileError, match=r"a cannot be read \(Input/output error\)"):
        reading.read_bytes(tmp_path / "a")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x")
    for read in (reading.read_json, reading.read_jsonl, read_json_gz, reading.read_bytes):
        assert "not a regular file" in refused(read, tmp_path / "x")
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert "not a regular file" in refused(reading.read_bytes, tmp_path / "zero")


def test_a_folder_in_the_place_of_a_file_is_one_clear_error(tmp_path):
    for read in (reading.read_json, read_json_gz):
        assert "directory" in refused(read, tmp_path)


def test_a_file_beyond_every_size_is_not_read(tmp_path):
    with (tmp_path / "x").open("wb") as stream:
        stream.truncate(reading.MAX_BYTES + 1)  # takes no room on the disk
    for read in (reading.read_json, read_json_gz):
        assert "more than 128 MiB" in refused(read, tmp_path / "x")


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    (tmp_path / "x").write_bytes(gzip.compress(bytes(reading.MAX_BYTES + 1), 9))
    assert (tmp_path / "x").stat().st_size < 2**18
    assert "unpacks to more than 128 MiB" in refused(read_json_gz, tmp_path / "x")


def nested(depth):
    return '{"a":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


def test_lists_may_be_nested_but_not_without_end(tmp_path):
    path = tmp_path / "x"
    for read, pack in ((reading.read_json, bytes), (read_json_gz, gzip.compress)):
        for body in (nested(reading.MAX_DEPTH), json.dumps({"a": "[{" * 1000 + '\\"['})):
            path.write_bytes(pack(body.encode()))
            assert read(path) == json.loads(body)
        for body in (nested(reading.MAX_DEPTH + 1), nested(100_000), '{"a":' * 100_000, "[" * 100_000):
            path.write_bytes(pack(body.encode()))
            assert "nested too deeply" in refused(read, path)
    hidden = '{"a":' + '["]",' * 100 + "1" + ',"["]' * 100 + "}"  # brackets in strings that would cancel the others
    path.write_text(hidden)
    assert "nested too deeply" in refused(reading.read_json, path)


def test_half_a_sign_becomes_a_question_mark(tmp_path):
    (tmp_path / "x").write_text(r'{"a\ud800": "\udfff \ud83d\ude00 \\ud800"}')
    assert reading.read_json(tmp_path / "x") == {"a?": "? 😀 \\ud800"}


def test_a_number_of_thousands_of_digits_is_one_clear_error(tmp_path):
    (tmp_path / "x").write_text('{"a": ' + "1" * 5000 + "}")
    assert "too long" in refused(reading.read_json, tmp_path / "x")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda packed: packed[:-1], "truncated"),
        (lambda packed: packed[:20], "truncated"),
        (lambda packed: packed + packed, "after the end"),
        (lambda packed: packed[:-8] + b"\0" * 8, "damaged"),
        (lambda packed: b"not gzip", "not a gzip file"),
        (lambda packed: b"", "truncated"),
    ],
)
def test_a_gzip_file_that_is_not_whole_is_refused(spoil, words):
    packed = gzip.compress(b"text" * 100)
    assert reading.gunzip(packed, "a", 400) == b"text" * 100
    with pytest.raises(InvalidFileError, match=words):
        reading.gunzip(spoil(packed), "a")


# YAML


def parsed(text: str) -> object:
    return reading.parse_yaml(text.encode(), "file")


@pytest.mark.parametrize(
    "text",
    [BASE_60, "n: 1:" + "59:" * 4000 + "59.5", "n: 2026-99-99", "n: " + "9" * 5000, "n: -0x" + "f" * 17],
)
def test_a_value_that_python_does_not_hold_is_yaml_that_is_refused(text):
    with pytest.raises(UserError, match="is not valid YAML"):
        parsed(text)


def test_numbers_dates_and_merges_stay_what_they_were():
    text = "{a: 42, b: 1:30, c: 0x1F, d: -7, e: 2026-11-29, f: 18446744073709551615, 1: x, '1': y}"
    assert parsed(text) == yaml.safe_load(text)
    merged = "base: &b {a: 1, b: 2}\nmore: &m {<<: *b, a: 3}\nlast: {<<: *m, b: 4}\nagain: *m"
    assert parsed(merged) == yaml.safe_load(merged)
    assert parsed(merged)["last"] == {"a": 3, "b": 4}


def test_a_key_that_stands_twice_is_refused_where_it_stands():
    with pytest.raises(UserError, match=r"line 2: the key 'q1' appears twice"):
        parsed("q1: {am: ሀ}\nq1: {am: ለ}")
