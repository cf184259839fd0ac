"""Lists of digits in JSON are read as arrays, and whatever is not plain is left to the careful reader."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from harness.core import digits
from harness.core.errors import UserError
from harness.core.store import Run


def plain(value):
    """Return a value with arrays as lists again."""
    if isinstance(value, np.ndarray):
        assert value.dtype == np.uint8
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


KEPT = {
    "classifier/tfidf": {
        "examples": "f00d",
        "gold": [0, 1, 6, 0],
        "labels": ["negative", "ድንቅ"],
        "predictions": {"macro_f1/tfidf": {"0": [0, 1, 6, 9], "1": [3]}, "macro_f1.valid/tfidf": {}},
    }
}


@pytest.mark.parametrize(
    "value",
    [
        KEPT,
        {"a": [], "b": [[1, 2], [3]], "c": [[[0]]], "d": [0]},
        {"a": [1, 22, 3], "b": [-1], "c": [1.5], "d": [True, None], "e": [10**30], "f": [1, "2"]},
        {"a": ["1", "2"], "b": "1,2", "c": "[", "d": "]", "e": "x] y", "f": 7},
        {},
    ],
)
def test_what_is_read_is_what_json_says(value):
    for data in (json.dumps(value, ensure_ascii=False), json.dumps(value, separators=(",", ":"))):
        if "\\u" not in data:
            assert plain(digits.load_digits(data.encode())) == value


def test_lists_of_digits_are_arrays():
    found = digits.load_digits(b'{"a":[0,9,5],"b":[10,1],"c":["0"]}')
    assert isinstance(found["a"], np.ndarray)
    assert (found["b"], found["c"]) == ([10, 1], ["0"])


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": "x[1]y"}',  # a list of digits within a string
        b'{"a": "x[1"}',
        b'{"a": "\\u00000,1"}',  # what stands for a list
        b'{"a": "\x00"}',
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a":[1,2}',
        b"[1,2]",
        b"{",
        b"\xff",
    ],
)
def test_what_takes_a_closer_look_is_refused_or_right(data):
    try:
        found = digits.load_digits(data)
    except ValueError:
        return
    assert plain(found) == json.loads(data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[:20],
        lambda packed: packed + packed,
        lambda packed: packed[:-8] + b"\0" * 8,
        lambda packed: b"not gzip",
        lambda packed: b"",
    ],
)
def test_a_file_that_is_not_whole_is_refused(spoil):
    packed = gzip.compress(json.dumps(KEPT).encode())
    assert json.loads(digits.unpacked(packed)) == KEPT
    with pytest.raises(ValueError, match=r".+"):
        digits.unpacked(spoil(packed))


def test_a_run_reads_predictions_either_way(tmp_path):
    run = Run(tmp_path)
    folder = run.cell("c")
    folder.mkdir(parents=True)
    file = folder / "predictions.json.gz"
    hostile = {"classifier/x[1]": {"gold": [0, 1], "labels": ["a[0]", "\u0000"]}}
    for value in (KEPT, hostile):
        file.write_bytes(gzip.compress(json.dumps(value).encode()))
        assert plain(run.predicted("c")) == run.predictions("c") == value
    file.write_bytes(b"not gzip")
    with pytest.raises(UserError, match="is not a gzip file or is damaged"):
        run.predicted("c")
