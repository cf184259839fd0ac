"""True and false are not numbers, in no file that is read."""

from __future__ import annotations

import importlib
import json
import shutil

import pytest
from pydantic import ValidationError
from support.helpers import TASKS, key, steerboard
from support.toyruns import F1, flat, selection, toy, write_run

from harness.core.records import CellStatus, Generation, GridPoint, Score, Usage
from harness.core.schema import Record
from harness.data.suite import ClassifierProtocol, TaskSize, load_suite
from harness.methods.contract import MethodConfig

SCORE = {"metric": "m", "value": 0.5, "direction": "up", "unit": "", "signature": "s"}


@pytest.mark.parametrize(
    "change",
    [
        {"value": True},
        {"human": False},
        {"interval": [True, 1.0]},
        {"by_seed": {"1": True}},
        {"detail": {"texts": False}},
        {"value": "0.5"},
    ],
    ids=str,
)
def test_a_score_is_a_number(change):
    with pytest.raises(ValidationError):
        Score.model_validate({**SCORE, **change})
    with pytest.raises(ValidationError):
        Score.model_validate_json(json.dumps({**SCORE, **change}))


def test_a_whole_number_is_a_score():
    assert Score.model_validate({**SCORE, "value": 1, "interval": [0, 1]}).interval == (0.0, 1.0)


def numbers(kind: type[Record]) -> list[str]:
    """Return the fields of a record that are numbers and nothing else."""
    properties = kind.model_json_schema(by_alias=False)["properties"]
    return [name for name, part in properties.items() if part.get("type") in {"number", "integer"}]


def below(kind: type[Record]) -> list[type[Record]]:
    return [kind, *(one for child in kind.__subclasses__() for one in below(child))]


def test_no_number_of_any_record_is_true():
    for module in (
        *("harness.tracks.separation", "harness.data.contrast", "harness.ranking.gate.baseline"),
        *("harness.submissions.lockfile", "leaderboard.downloads.records"),
    ):
        importlib.import_module(module)  # their records are found by being there
    found = {(kind, name) for kind in below(Record) for name in numbers(kind) if name != "schema_version"}
    assert {(Usage, "seconds"), (Generation, "index"), (GridPoint, "seconds")} <= found
    for kind, name in found:
        with pytest.raises(ValidationError) as error:
            kind.model_validate({name: True})
        wrong = [part for part in error.value.errors() if part["loc"][0] in {name, "schema"}]
        assert any(part["type"] in {"int_type", "float_type", "literal_error"} for part in wrong), (
            kind,
            name,
        )


def test_a_status_with_true_for_a_number_is_refused():
    status = CellStatus(cell=key(), state="ok", seconds=1.0).to_json()
    assert CellStatus.model_validate(status).seconds == 1.0
    for name in ("seconds", "attempts", "redraws"):
        with pytest.raises(ValidationError):
            CellStatus.model_validate({**status, name: True})


@pytest.mark.parametrize("command", ["board", "compare", "gate"])
def test_a_run_with_true_for_a_score_is_one_line(tmp_path, command):
    chosen = selection(["am"])
    made = toy("zero-shot")
    made.scores[F1] = flat(0.5, chosen)
    run = write_run(tmp_path / "run", [made], chosen)
    other = shutil.copytree(run.path, tmp_path / "other")
    path = run.cell(run.cell_ids()[0]) / "scores.json"
    body = json.loads(path.read_text())
    body["scores"][0]["value"] = True
    path.write_text(json.dumps(body))
    words = {
        "board": ["board", "build", run.path, "--out", tmp_path / "site"],
        "compare": ["compare", other, run.path],
        "gate": ["gate", run.path, "--against", other],
    }[command]
    line = steerboard(*words).one_line()
    assert str(path) in line
    assert "valid number" in line


def test_a_suite_and_a_config_take_no_true_for_a_number(tmp_path):
    with pytest.raises(ValidationError, match="true and false are not numbers"):
        TaskSize(texts_per_label=True)
    with pytest.raises(ValidationError, match="true and false are not numbers"):
        load_suite("mini").model_validate({**load_suite("mini").dump(), "seeds": [True, 2, 3]})
    text = (TASKS / "mini.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace("seeds: [1, 2, 3]", "seeds: [true, 2, 3]"))
    line = steerboard("run", "--suite", tmp_path / "mine.yaml").one_line()
    assert "seeds: Value error, true and false are not numbers" in line or "true and false" in line


def test_a_flag_of_a_config_stays_a_flag():
    class Config(MethodConfig):
        layer: float = 0.2
        on: bool = False
        either: bool | float = 0.0

    assert Config(layer=1, on=True, either=True).model_dump() == {"layer": 1.0, "on": True, "either": True}
    with pytest.raises(ValidationError, match="true and false are not numbers"):
        Config(layer=True)
    assert ClassifierProtocol.model_fields, "a part of a suite"
