"""Hub ids resolve from the local cache, offline; the commit found there is part of the identity.

The cache is made here by hand, file by file, as ``huggingface_hub`` lays it out:
``models--owner--name/refs/main`` holds a commit, ``snapshots/<commit>/`` the files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.helpers import MINI, TASKS, jsonl, steerboard

from harness.core.cells import cell_id
from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UserError
from harness.core.records import CellStatus
from harness.core.store import Run
from harness.data.corpus import Corpus
from harness.data.sources import HubData, _snapshot
from harness.data.suite import load_suite

SHA, OLDER = "a1" * 20, "b2" * 20
PINNED = "6ced1d87a030915822b087bf539e6d5c658f1988"  # of the Czech task file
TOPIC_README = """---
configs:
- config_name: amh_Ethi
  data_files:
  - {split: train, path: data/amh_Ethi/train.tsv}
  - {split: validation, path: data/amh_Ethi/dev.tsv}
  - {split: test, path: data/amh_Ethi/test.tsv}
- config_name: eng_Latn
  data_files:
  - {split: train, path: data/eng_Latn/train.tsv}
  - {split: validation, path: data/eng_Latn/dev.tsv}
  - {split: test, path: data/eng_Latn/test.tsv}
- config_name: heb_Hebr
  data_files:
  - {split: train, path: data/heb_Hebr/train.tsv}
---
SIB-200
"""
SUITE_CHANGES = {
    "languages: [am, cs, da, de, he, id, jv, mt, sk, sl, su]": "languages: [am]",
    "max_new_tokens: 64": "max_new_tokens: 6",
    "data: mini/data\n": "",
    "model: mini/pocketlm\n": "",
    "name: mini": "name: hubmini",
}


def repository(hub: Path, kind: str, name: str, commit: str = SHA, main: bool = True) -> Path:
    """Make the cache folder of a repository and return the folder of its snapshot."""
    folder = hub / f"{kind}s--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    if main:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
    return snapshot


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def mini_rows(task: str, language: str, split: str) -> list[dict[str, str]]:
    lines = (MINI / "data" / task / language / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def topic_table(language: str, split: str) -> str:
    rows = mini_rows("topic", language, split)
    lines = [f"{i}\t{row['label']}\t{row['text']}" for i, row in enumerate(rows)]
    return "\n".join(["index_id\tcategory\ttext", *lines]) + "\n"


def sentiment_table(language: str, split: str) -> str:
    rows = mini_rows("sentiment", language, split)
    lines = [f'"{row["text"]}",{int(row["label"] == "positive")}' for row in rows]
    return "\n".join(["text,label", *lines]) + "\n"


def fill(hub: Path) -> None:
    """Put the mini suite's model and text into a cache, under the names that the hub knows."""
    model = repository(hub, "model", "owner/pocket")
    shutil.copytree(MINI / "pocketlm", model, dirs_exist_ok=True)
    older = repository(hub, "model", "owner/pocket", OLDER, main=False)
    shutil.copytree(MINI / "pocketlm", older, dirs_exist_ok=True)
    topic = repository(hub, "dataset", "Davlan/sib200")
    put(topic / "README.md", TOPIC_README)
    for config, language in (("amh_Ethi", "am"), ("eng_Latn", "en")):
        for file, split in (("train", "train"), ("dev", "validation"), ("test", "test")):
            put(topic / "data" / config / f"{file}.tsv", topic_table(language, split))
    sentiment = repository(hub, "dataset", "DGurgurov/amharic_sa")
    for split in ("train", "validation", "test"):
        put(sentiment / f"{split}.csv", sentiment_table("am", split))


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    """A hub cache made by hand."""
    folder = tmp_path_factory.mktemp("hub")
    fill(folder)
    return folder


@contextmanager
def cache_at(hub: Path, home: Path) -> Iterator[Path]:
    """Let this process look for hub repositories in one folder and nowhere else."""
    _snapshot.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", home / "datasets")
        yield hub
    _snapshot.cache_clear()


@pytest.fixture
def offline(hub, tmp_path) -> Iterator[Path]:
    """The made-up cache, which this process looks in."""
    with cache_at(hub, tmp_path) as folder:
        yield folder


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory) -> Path:
    """The mini suite in one language, without the folders that it ships: text and model are the hub's."""
    text = (TASKS / "mini.yaml").read_text(encoding="utf-8")
    for old, new in SUITE_CHANGES.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path_factory.mktemp("suite") / "hubmini.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ran(hub, suite_file, tmp_path_factory):
    """A run with nothing but hub ids."""
    home = tmp_path_factory.mktemp("home")
    options = ["--methods", "zero-shot,human", "--seeds", "1", "--limit", "2", "--run", home / "run"]
    with cache_at(hub, home):
        outcome = steerboard("run", "--suite", suite_file, "--model", "owner/pocket", *options)
    assert outcome.code == 0, outcome.err
    return Run(home / "run")


# A whole run


def statuses(run: Run) -> list[CellStatus]:
    return [run.status(cell) for cell in run.cell_ids()]


@pytest.mark.slow
def test_a_run_finishes_with_hub_ids_alone(ran):
    assert [status.state for status in statuses(ran)] == ["ok"] * 4  # two methods, two tasks


@pytest.mark.slow
def test_the_commits_are_written_to_the_manifest(ran):
    manifest = ran.manifest()
    model = manifest.model
    assert (model.name, model.revision, model.fingerprint) == ("owner/pocket", SHA, SHA)
    assert manifest.data_source == "hub"
    assert manifest.data_revisions == {"Davlan/sib200": SHA, "DGurgurov/amharic_sa": SHA}


@pytest.mark.slow
def test_the_commit_of_the_model_is_part_of_every_generated_cell(ran):
    models = [status.cell.model for status in statuses(ran) if status.cell.method.name == "zero-shot"]
    assert [model.revision for model in models] == [SHA, SHA]


@pytest.mark.slow
def test_human_text_comes_from_the_data_sets(ran):
    [cell] = [
        cell_id(status.cell)
        for status in statuses(ran)
        if (status.cell.method.name, status.cell.task) == ("human", "sentiment")
    ]
    texts = {row.text for row in ran.generations(cell)}
    assert texts <= {row["text"] for row in mini_rows("sentiment", "am", "train")}


# Models


def test_a_model_id_resolves_to_the_commit_of_main(offline):
    found = resolve_checkpoint("owner/pocket")
    assert found.folder == offline / "models--owner--pocket" / "snapshots" / SHA
    assert (found.name, found.revision, found.fingerprint) == ("owner/pocket", SHA, SHA)


def test_a_revision_is_another_identity(offline):
    found = resolve_checkpoint("owner/pocket", OLDER)
    assert (found.revision, found.fingerprint) == (OLDER, OLDER)


def test_a_folder_is_known_by_its_content_and_not_by_its_place(tmp_path):
    one, two = (shutil.copytree(MINI / "pocketlm", tmp_path / n / "pocketlm") for n in ("a", "b"))
    assert resolve_checkpoint(str(one)).fingerprint == resolve_checkpoint(str(two)).fingerprint
    assert resolve_checkpoint(str(one)).revision is None
    config = two / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    assert resolve_checkpoint(str(one)).fingerprint != resolve_checkpoint(str(two)).fingerprint


@pytest.mark.parametrize(
    ("name", "revision"),
    [("owner/none", None), ("none", None), ("owner/pocket", "c3" * 20), ("not a name", None)],
)
def test_a_model_that_cannot_be_had_is_one_clear_line(offline, name, revision):
    with pytest.raises(UserError, match=r"cannot be downloaded from the hub.*Check the name, or download") as caught:
        resolve_checkpoint(name, revision)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


# Data sets


def test_a_config_of_the_readme_is_read(offline):
    rows = HubData(load_suite("steer11")).rows(load_suite("steer11").task("topic", "am"), "validation")
    wanted = mini_rows("topic", "am", "validation")
    assert [(row.id, row.text, row.label) for row in rows] == [
        (str(i), row["text"], row["label"]) for i, row in enumerate(wanted)
    ]


def test_numbers_of_the_data_set_become_labels(offline):
    rows = HubData(load_suite("steer11")).rows(load_suite("steer11").task("sentiment", "am"), "test")
    assert [(row.text, row.label) for row in rows] == [
        (row["text"], row["label"]) for row in mini_rows("sentiment", "am", "test")
    ]


def test_parallel_text_is_the_train_split_of_the_topic_task(offline):
    suite = load_suite("steer11")
    data = HubData(suite)
    assert len(data.parallel("en")) == len(mini_rows("topic", "en", "train"))
    assert {row.id for row in data.parallel("en")} == {row.id for row in data.parallel("am")}


def test_the_commit_of_a_data_set_is_part_of_a_cells_identity(hub, suite_file, monkeypatch, tmp_path):
    suite = load_suite(str(suite_file))
    moved = Path(shutil.copytree(hub, tmp_path / "moved"))
    folder = moved / "datasets--DGurgurov--amharic_sa"
    (folder / "snapshots" / SHA).rename(folder / "snapshots" / OLDER)
    (folder / "refs" / "main").write_text(OLDER)
    names = {}
    for cache in (hub, moved):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        _snapshot.cache_clear()
        corpus = Corpus(suite, HubData(suite))
        names[cache] = (corpus.fingerprint("sentiment", "am"), corpus.fingerprint("topic", "am"))
    _snapshot.cache_clear()
    assert names[hub][0] != names[moved][0]
    assert names[hub][1] == names[moved][1]


@pytest.fixture
def own_hub(tmp_path) -> Iterator[Path]:
    """An empty cache of this test's own."""
    with cache_at(tmp_path / "hub", tmp_path) as folder:
        yield folder


def read(task: str, language: str, split: str = "train"):
    suite = load_suite("steer11")
    return HubData(suite).rows(suite.task(task, language), split)


def test_a_pinned_revision_is_taken_and_not_main(own_hub):
    name = "fewshot-goes-multilingual/cs_facebook-comments"
    put(repository(own_hub, "dataset", name) / "train.csv", "comment,sentiment_int\nlater,1\n")
    pinned = repository(own_hub, "dataset", name, PINNED, main=False)
    for split in ("train", "test"):
        put(pinned / f"{split}.csv", "comment,sentiment_int\nbad,-1\nso so,0\ngood,1\n" * 10)
    rows = read("sentiment", "cs", "test")
    assert [(row.text, row.label) for row in rows[:2]] == [("bad", "negative"), ("good", "positive")]


def test_without_a_validation_split_every_tenth_train_row_is_held_out(own_hub):
    folder = repository(own_hub, "dataset", "DGurgurov/hebrew_sa")
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(20)]
    for split in ("train", "test"):
        jsonl(folder / f"{split}.jsonl", rows)
    train, validation = read("sentiment", "he", "train"), read("sentiment", "he", "validation")
    assert (len(train), len(validation)) == (18, 2)
    assert {row.id for row in train} | {row.id for row in validation} == {f"row-{i}" for i in range(20)}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, r"the hub's data set 'DGurgurov/hebrew_sa' cannot be downloaded .*give --data"),
        ({}, r"missing data: DGurgurov/hebrew_sa is not readable"),
        ({"train.csv": "text,label\na,1\n"}, r"DGurgurov/hebrew_sa has no split 'test'"),
        ({"train.csv": "review,label\na,1\n"}, r"DGurgurov/hebrew_sa, train: has no column text"),
    ],
    ids=["not there", "empty", "no test split", "other columns"],
)
def test_a_data_set_that_cannot_be_used_is_one_clear_line(own_hub, files, words):
    if files is not None:
        folder = repository(own_hub, "dataset", "DGurgurov/hebrew_sa")
        for name, text in files.items():
            put(folder / name, text)
    with pytest.raises(UserError, match=words):
        read("sentiment", "he")


@pytest.mark.parametrize("language", ["he", "de"])
def test_a_config_that_is_not_in_the_cache_is_one_clear_line(offline, language):
    with pytest.raises(UserError, match=r"missing data: Davlan/sib200 is not readable"):
        read("topic", language)
