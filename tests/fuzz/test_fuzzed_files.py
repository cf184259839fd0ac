"""Every reader of a file, with random input: it returns something valid or refuses it as ``UserError``."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import changed, damaged, json_files, json_lines, only_user_errors, values
from support.helpers import ROOT, TASKS, toy_manifest
from support.steering_files import added

from harness.core.errors import UserError
from harness.core.interventions import Steering, load_steering, save_steering
from harness.core.reading import parse_json, parse_json_lines, parse_yaml, read_bytes
from harness.core.records import CellScores, CellStatus, Manifest, Tuned
from harness.core.schema import read_record
from harness.data.contrast import read_published
from harness.data.sources import LocalData
from harness.data.suite import load_suite, restore_suite
from harness.data.tables import read_table
from harness.methods.plugins import inspect_source
from harness.ranking.gate.baseline import read_baseline
from harness.submissions.card import read_card
from harness.submissions.files import StrictReader
from harness.submissions.lockfile import LockFile
from leaderboard.diff import read_results

FOLDER = TemporaryDirectory()
HERE = Path(FOLDER.name)
CARD = (ROOT / "submissions" / "clas" / "submission.yaml").read_bytes()
CELL = sorted((ROOT / "submissions" / "clas" / "results").glob("*/*/status.json"))[0].parent
MANIFEST = json.loads((CELL.parent / "manifest.json").read_bytes())
SUITE = (TASKS / "mini.yaml").read_bytes()
TASK = (TASKS / "topic" / "am.yaml").read_bytes()


def written(name: str, data: bytes) -> Path:
    """Write a file into the folder of these tests and return its path."""
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read_suite(data: bytes) -> None:
    load_suite(str(written("suite.yaml", data)))


def read_task(data: bytes) -> None:
    """Read a suite of one language whose task file is random."""
    body = yaml.safe_load(SUITE) | {
        "languages": ["am"],
        "reference_language": "am",
        "tasks": {"topic": {"texts_per_label": 1}},
    }
    written("own/topic/_topic.yaml", (TASKS / "topic" / "_topic.yaml").read_bytes())
    written("own/topic/am.yaml", data)
    load_suite(str(written("own/suite.yaml", yaml.safe_dump(body).encode())))


def read_split(data: bytes) -> None:
    suite, path = load_suite("mini"), written("data/topic/am/train.jsonl", data)
    source = LocalData(HERE / "data")
    source.rows(suite.task("topic", "am"), "train")
    source.fingerprint(suite.task("topic", "am"), ["train"])
    written("data/parallel/am.jsonl", path.read_bytes())
    source.parallel("am")


def read_questions(data: bytes) -> None:
    from harness.tracks.forcing.questions import load_questions

    load_questions(written("questions.yaml", data))


def read_contrast(data: bytes) -> None:
    from harness.data.contrast import ContrastFolder

    folder = written("contrast/contrast.json", data).parent
    _ = ContrastFolder(folder).index


def read_card_of(data: bytes) -> None:
    read_card(StrictReader(written("card/submission.yaml", data).parent))


def read_lock(data: bytes) -> None:
    _ = LockFile(written("lock.json", data)).body


def restore(data: bytes) -> None:
    restore_suite(parse_json(data, "x"))


def read_push(data: bytes) -> None:
    from harness.core.schema import parse_record
    from harness.core.storage import Push

    parse_record(data, "x", Push)


def record(kind: type[Any]) -> Callable[[bytes], None]:
    return lambda data: read_record(written("record.json", data), kind) and None


def table(suffix: str) -> Callable[[bytes], None]:
    return lambda data: read_table(written(f"table{suffix}", data)) and None


def yaml_files(data: bytes) -> st.SearchStrategy[bytes]:
    other = changed(yaml.safe_load(data)).map(
        lambda new: yaml.safe_dump(new, allow_unicode=True).encode("utf-8", "replace")
    )
    return other | damaged(data)


ROWS = [{"id": "1", "text": "ሰላም ነው", "label": "sports"}, {"id": "2", "text": "שלום", "label": "health"}]
CSV = 'id,text,label\n1,"a ""b"", c",pos\n2,ሰላም,neg\n'.encode()
SCORES = json.loads(gzip.decompress((CELL / "scores.json.gz").read_bytes()))
TEXTS = [json.loads(line) for line in gzip.decompress((CELL / "generations.jsonl.gz").read_bytes()).splitlines()[:3]]
PAIRS = {"good": ["a b", "c"], "bad": ["b", "d"]}
PUSH = {"schema": 1, "created": "x", "files": {"manifest.json": {"sha256": "0" * 64, "size": 1}}}
TUNED = {
    "schema": 1, "suite": "mini", "suite_hash": "x", "model": {"name": "m", "fingerprint": "f", "dtype": "float32"},
    "data_hashes": {"topic/am": "x"}, "selection": toy_manifest().selection.model_dump(), "rule": "r", "surface": [],
    "methods": {"clas": {"version": "1", "options": {"layer": 1}, "configurations": 1, "texts": 1, "tokens": 1,
                         "seconds": 1}},
}  # fmt: skip
LOCK = json.loads((ROOT / "baselines" / "submissions.lock.json").read_bytes())
QUESTIONS = (TASKS / "forcing" / "questions.yaml").read_bytes()
CONTRAST = {"schema": 1, "languages": {}}
RESULTS = {"schema": 1, "boards": []}

READERS: dict[str, tuple[st.SearchStrategy[bytes], Callable[[bytes], object]]] = {
    "json": (json_files({"a": [1, {"b": "ሰላም"}]}), lambda data: parse_json(data, "x")),
    "strict json": (json_files({"a": [1, {"b": "שלום"}]}), lambda data: parse_json(data, "x", strict=True, schema=1)),
    "json lines": (json_lines(ROWS), lambda data: parse_json_lines(data, "x")),
    "strict json lines": (json_lines(ROWS), lambda data: parse_json_lines(data, "x", strict=True)),
    "yaml": (yaml_files(TASK), lambda data: parse_yaml(data, "x")),
    "strict yaml": (yaml_files(TASK), lambda data: parse_yaml(data, "x", strict=True)),
    "manifest": (json_files(MANIFEST), record(Manifest)),
    "status": (json_files(json.loads((CELL / "status.json").read_bytes())), record(CellStatus)),
    "scores": (json_files(SCORES), record(CellScores)),
    "tuned": (json_files(TUNED), record(Tuned)),
    "push": (json_files(PUSH), read_push),
    "suite": (yaml_files(SUITE), read_suite),
    "task": (yaml_files(TASK), read_task),
    "suite of a manifest": (json_files(MANIFEST["suite"]), restore),
    "card": (yaml_files(CARD), read_card_of),
    "lock": (json_files(LOCK), read_lock),
    "questions": (yaml_files(QUESTIONS), read_questions),
    "contrast": (json_files(CONTRAST), read_contrast),
    "contrast pairs": (json_files(PAIRS), lambda data: read_published(written("pairs.json", data))),
    "human text": (json_lines(ROWS), read_split),
    "csv": (damaged(CSV), table(".csv")),
    "tsv": (damaged(CSV.replace(b",", b"\t")), table(".tsv")),
    "table of json lines": (json_lines(ROWS), table(".jsonl")),
    "results of a board": (json_files(RESULTS), lambda data: read_results(written("results.json", data))),
    "plug-in": (
        damaged(b"import x\n@register('a')\nclass A(B):\n    '''D.'''\n    n = 1\n"),
        lambda data: inspect_source(written("plugin.py", data), "x"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@given(data=st.data())
def test_a_file_is_read_or_refused_in_words(reader, data):
    files, read = READERS[reader]
    given_bytes = data.draw(files)
    with only_user_errors():
        read(given_bytes)


def test_every_file_that_is_damaged_here_is_valid_before():
    """Else the tests would damage what is refused anyway."""
    whole = {
        "manifest": json.dumps(MANIFEST), "status": (CELL / "status.json").read_text(), "scores": json.dumps(SCORES),
        "tuned": json.dumps(TUNED), "push": json.dumps(PUSH), "suite": SUITE, "task": TASK, "card": CARD,
        "suite of a manifest": json.dumps(MANIFEST["suite"]), "lock": json.dumps(LOCK), "questions": QUESTIONS,
        "contrast": json.dumps(CONTRAST), "contrast pairs": json.dumps(PAIRS), "csv": CSV,
        "human text": "".join(json.dumps(row) + "\n" for row in ROWS),
    }  # fmt: skip
    for name, data in whole.items():
        READERS[name][1](data.encode() if isinstance(data, str) else data)


@cache
def parquet() -> bytes:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["ሰላም", "שלום", None], "label": ["a", "b", "a"], "n": [1, 2, 3]}), buffer)
    return buffer.getvalue()


@given(data=st.data())
def test_a_parquet_file_is_read_or_refused_in_words(data):
    given_bytes = data.draw(damaged(parquet()))
    with only_user_errors():
        read_table(written("table.parquet", given_bytes))


@cache
def vectors() -> bytes:
    path = HERE / "whole.safetensors"
    save_steering(path, Steering((added(), added(layer=1)), {"model": {"name": "m"}}))
    return path.read_bytes()


@given(data=st.data())
def test_a_steering_file_is_read_or_refused_in_words(data):
    whole = vectors()
    length = int.from_bytes(whole[:8], "little")
    head = json.loads(whole[8 : 8 + length])
    inner = json.loads(head["__metadata__"]["steerboard"])

    def packed(new: Any, outer: Any) -> bytes:
        if isinstance(outer, dict) and isinstance(outer.get("__metadata__"), dict):
            outer["__metadata__"]["steerboard"] = json.dumps(new)
        text = json.dumps(outer).encode()
        return struct.pack("<Q", len(text)) + text + whole[8 + length :]

    inner.pop("sha256")  # else every change of the header is found by its hash
    files = (
        damaged(whole)
        | st.builds(packed, changed(inner), st.just(head))
        | st.builds(packed, st.just(inner), changed(head))
    )
    given_bytes = data.draw(files)
    with only_user_errors():
        load_steering(written("steering.safetensors", given_bytes))


@cache
def gguf() -> bytes:
    pytest.importorskip("gguf")
    from gguf import GGUFWriter

    path = HERE / "whole.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "ሰ"])
    writer.add_string("tokenizer.chat_template", "{{ messages }}")
    writer.add_tensor("w", np.zeros((2, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def gguf_head(keys: list[tuple[bytes, int, bytes]], tensors: bytes = b"") -> bytes:
    body = b"".join(struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value for key, kind, value in keys)
    return struct.pack("<4sIQQ", b"GGUF", 3, bool(tensors), len(keys)) + body + tensors + bytes(64)


def text_value(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


GGUF_KEYS = [
    b"general.architecture",
    b"general.alignment",
    b"general.file_type",
    b"split.count",
    b"tokenizer.chat_template",
    b"x",
]
GGUF_VALUES = (
    st.tuples(st.just(8), st.binary(max_size=6).map(text_value))
    | st.tuples(st.integers(0, 13), st.binary(min_size=12, max_size=12))
    | st.tuples(st.just(4), st.integers(0, 2**32 - 1).map(lambda n: struct.pack("<I", n)))
)
GGUF_HEADS = st.builds(
    gguf_head,
    st.lists(
        st.tuples(st.sampled_from(GGUF_KEYS), GGUF_VALUES).map(lambda found: (found[0], *found[1])), max_size=4
    ).map(lambda keys: [(b"general.architecture", 8, text_value(b"llama")), *keys]),
    st.binary(max_size=60),
)


@given(data=st.data())
def test_a_gguf_file_is_read_or_refused_in_words(data):
    from harness.core.checkpoints import Checkpoint
    from harness.core.gguf_header import end_tokens_of, read_header

    given_bytes = data.draw(damaged(gguf()) | GGUF_HEADS)
    path = written("model.gguf", given_bytes)
    with only_user_errors():
        header = read_header(path)
        end_tokens_of(header, {"<|end|>": 1})
        found = Checkpoint(path.parent, "m", None, "f", gguf=path)
        assert isinstance(found.model_type, str)
        assert found.stored_dtype is None or isinstance(found.stored_dtype, str)
        _ = found.has_chat_template


@given(data=damaged((ROOT / "baselines" / "mini.json.gz").read_bytes()[:4000]))
def test_a_baseline_is_read_or_refused_in_words(data):
    with only_user_errors():
        read_baseline(written("baseline.json.gz", data))


@cache
def baseline_content() -> Any:
    from harness.ranking.gate.baseline import read_checksummed

    return read_checksummed(ROOT / "baselines" / "mini.json.gz")[0]


@pytest.mark.nightly
@given(data=st.data())
def test_the_content_of_a_baseline_is_read_or_refused_in_words(data):
    """With the right hash: whoever writes a file can compute it."""
    from harness.core.files import canonical_json, digest
    from harness.ranking.gate.baseline import load_results

    content = baseline_content()
    small = {name: value for name, value in content.items() if name != "packed"}
    new = {**data.draw(changed(small).filter(lambda found: isinstance(found, dict))), "packed": content["packed"]}
    try:
        body = {"kind": "steerboard gate baseline", "schema": 1, "sha256": digest(new), "content": new}
        path = written("baseline.json", canonical_json(body).encode() + b"\n")
    except (ValueError, UnicodeEncodeError):
        return  # it could not be written
    with only_user_errors():
        load_results(read_baseline(path)[0])


@given(name=st.text(max_size=300))
def test_any_name_of_a_file_is_opened_or_refused_in_words(name):
    with only_user_errors():
        read_bytes(HERE / name.lstrip("/"), 10)


@given(value=values)
def test_any_json_value_is_read_or_refused_in_words(value):
    with only_user_errors():
        parse_json(json.dumps(value).encode(), "x")


@pytest.mark.parametrize("kind", [6, 8])
def test_a_number_of_parts_that_is_none_is_passed_over(kind):
    """Found here: a text was compared with 1."""
    from harness.core.gguf_header import read_header

    value = text_value(b"12") if kind == 8 else struct.pack("<f", 1)
    data = gguf_head([(b"general.architecture", 8, text_value(b"llama")), (b"split.count", kind, value)])
    assert read_header(written("parts.gguf", data))["general.architecture"] == "llama"


def test_a_path_with_a_nul_character_does_not_exist():
    """Found here: the system's call raises ValueError."""
    with pytest.raises(UserError, match="does not exist"):
        load_suite("a\0b.yaml")
