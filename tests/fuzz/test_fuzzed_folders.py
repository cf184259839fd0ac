"""Folders that somebody else may have written, with random files: runs, submissions, checkpoints, claims, imports."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fuzzing import changed, damaged, json_files, only_user_errors, values
from support.helpers import ROOT
from support.toyruns import F1, flat, selection, toy, write_run

from harness.core.checkpoints import resolve_checkpoint
from harness.core.store import Run
from harness.data.suite import load_suite
from harness.engine.architectures import check_config
from harness.ranking.results import collect
from harness.runner.claims import Claims
from harness.runner.status_reader import StatusReader, read_workers
from harness.submissions.check import CheckInputs, check_files
from harness.submissions.import_files import ImportOptions, read_texts

FOLDER = TemporaryDirectory()
HERE = Path(FOLDER.name)


@contextmanager
def copy_of(folder: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=HERE) as name:
        yield Path(shutil.copytree(folder, Path(name) / folder.name))


@cache
def small_run() -> Path:
    chosen, entries = selection(seeds=(1,)), [toy("zero-shot"), toy("clas", layer=1)]
    for i, entry in enumerate(entries):
        entry.scores[F1] = flat(0.5 + i / 10, chosen)
    return write_run(HERE / "run", entries, chosen).path


def small_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json*"))[:6]


def file_like(path: Path) -> st.SearchStrategy[bytes]:
    """What may stand in the place of a file: itself with changes."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        if path.name.endswith(".jsonl.gz"):
            return damaged(gzip.decompress(data)).map(gzip.compress) | damaged(data)
        return json_files(json.loads(gzip.decompress(data))).map(gzip.compress) | damaged(data)
    if path.suffix == ".json":
        return json_files(json.loads(data))
    return damaged(data)


@given(data=st.data())
def test_a_run_is_read_or_refused_in_words(data):
    whole = small_run()
    name = data.draw(st.sampled_from(small_files(whole)))
    with copy_of(whole) as folder:
        (folder / name).write_bytes(data.draw(file_like(whole / name)))
        with only_user_errors():
            StatusReader(folder).read().to_json()
        with only_user_errors():
            collect([Run(folder)])


@pytest.mark.nightly
@given(data=st.data())
def test_a_submission_is_checked_whatever_is_in_it(data):
    whole = ROOT / "submissions" / "constant"
    names = [path.relative_to(whole).as_posix() for path in sorted(whole.rglob("*.*")) if path.is_file()]
    name = data.draw(st.sampled_from([*names[:6], "submission.yaml", "results/no-model/manifest.json"]))
    with copy_of(whole) as folder:
        (folder / name).write_bytes(data.draw(file_like(whole / name)))
        with only_user_errors():
            done = check_files(folder, CheckInputs(), others=[])
            assert all(str(finding) for finding in done.report.problems)


CONFIG = {"model_type": "llama", "hidden_size": 8, "dtype": "float32", "text_config": {"dtype": "bfloat16"}}
BODIES: dict[str, Any] = {
    "config.json": CONFIG,
    "tokenizer_config.json": {"chat_template": "{{ messages }}", "tokenizer_class": "PreTrainedTokenizerFast"},
    "model.safetensors.index.json": {"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}},
    "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "../base", "revision": None},
}


@cache
def checkpoint() -> Path:
    from safetensors.numpy import save_file

    for name in ("whole", "base"):
        folder = HERE / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        save_file({"w": np.zeros(1, dtype=np.float32)}, folder / "a.safetensors")
        save_file({"w": np.zeros(1, dtype=np.float32)}, folder / "b.safetensors")
    adapter = HERE / "models" / "adapter"
    adapter.mkdir()
    save_file({"w": np.zeros(1, dtype=np.float32)}, adapter / "adapter_model.safetensors")
    return HERE / "models"


@given(name=st.sampled_from([*BODIES]), data=st.data())
def test_a_checkpoint_is_opened_or_refused_in_words(name, data):
    with copy_of(checkpoint()) as models:
        folder = models / ("adapter" if name == "adapter_config.json" else "whole")
        (folder / name).write_bytes(data.draw(json_files(BODIES[name])))
        with only_user_errors():
            found = resolve_checkpoint(str(folder))
            _ = found.model_type, found.stored_dtype, found.has_tokenizer, found.has_chat_template


@pytest.mark.nightly  # it loads transformers
@given(data=st.data())
def test_a_config_is_taken_or_refused_in_words(data):
    with copy_of(checkpoint()) as models:
        (models / "whole" / "config.json").write_bytes(data.draw(json_files(CONFIG)))
        with only_user_errors():
            check_config(resolve_checkpoint(str(models / "whole")).config, "x")


@given(data=st.data())
def test_weights_are_opened_or_refused_in_words(data):
    with copy_of(checkpoint()) as models:
        path = models / "whole" / "a.safetensors"
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        with only_user_errors():
            resolve_checkpoint(str(path.parent))


NAMES = st.sampled_from(
    ["cell.0", "cell.1", "cell.x", "cell.-1", "cell.99999999999999999999", ".worker", "a.worker", "cell.²"]
)
CONTENTS = st.binary(max_size=30) | st.sampled_from([b"a", b"../../x", b"\0", b"a/b", b"x" * 3000])


@example(files={"cell.99999999999999999999": b"a"})  # every lower number was looked for
@example(files={"cell.0": b"\x80"})
@example(files={"cell.0": b"\0"})
@given(files=st.dictionaries(NAMES, CONTENTS, max_size=5))
def test_claims_are_read_whatever_is_in_their_folder(files):
    with TemporaryDirectory(dir=HERE) as name:
        run = Path(name)
        (run / "claims").mkdir()
        for file, data in files.items():
            (run / "claims" / file).write_bytes(data)
        read_workers(run, 0.0)
        with only_user_errors(), Claims(run, expiry=60) as claims:
            claims.taken()
            assert claims.workers >= 1
            claims.take("cell")
            assert claims.take("other")


HEADS = st.lists(
    st.sampled_from(["text", "label", "task", "language", "seed", "text_1", "review", "lang", ""]),
    min_size=1,
    max_size=5,
)
CELLS = st.sampled_from(
    ["ሰላም", "שלום", "positive", "negative", "am", "he", "sentiment", "1", "²", "-1", "99", "", "\0", 'a "b', "x,y"]
)


@given(
    head=HEADS, rows=st.lists(st.lists(CELLS | st.text(max_size=5), min_size=1, max_size=5), max_size=6),
    name=st.sampled_from(["x.csv", "am.csv", "sentiment_am_seed1.tsv", "seed².csv", "x.jsonl"]), data=st.data(),
)  # fmt: skip
def test_tables_are_imported_or_refused_in_words(head, rows, name, data):
    import csv
    import io

    buffer = io.StringIO()
    if name.endswith("jsonl"):
        for row in rows:
            buffer.write(json.dumps(data.draw(changed(dict(zip(head, row, strict=False))))) + "\n")
    else:
        writer = csv.writer(buffer, delimiter="\t" if name.endswith("tsv") else ",", escapechar="\\")
        writer.writerows([head, *rows])
    with TemporaryDirectory(dir=HERE) as folder:
        path = Path(folder) / name
        path.write_bytes(buffer.getvalue().encode("utf-8", "surrogatepass"))
        for options in ({}, {"task": "sentiment", "language": "am", "seed": 1}):
            with only_user_errors():
                found = read_texts(ImportOptions(path=path, name="mine", model="m", **options), load_suite("mini"))
                assert found.digest
                _ = found.seeds


@given(value=values)
def test_values_in_a_manifest_are_shown_or_refused_in_words(value):
    """Any value as a whole file of a run."""
    with copy_of(small_run()) as folder:
        (folder / "manifest.json").write_text(json.dumps(value), encoding="utf-8")
        with only_user_errors():
            StatusReader(folder).read()
