"""Runs in and out of baseline files: only what the gate reads, no texts, no names of folders."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.core.cells import cell_id, entry_id
from harness.core.files import write_text
from harness.core.records import CellKey, CellScores, CellStatus, Manifest, Score, Selection
from harness.core.store import Run
from harness.ranking.gate.baseline import Baseline, BaselineData, ExampleSet, MetricColumn, Prediction
from harness.ranking.results import ResultSet
from harness.scoring.metrics import metric

CellIndexKey = tuple[str, str, str, int]
"""Entry, task, language, seed."""


def pack(cellsets: Sequence[ResultSet], names: Iterable[str]) -> BaselineData:
    """Return the cells of runs that share entries, with these metrics and all kept predictions."""
    entries = [entry_id(entry) for entry in cellsets[0].manifest.entries]
    where = {place: found for cellset in cellsets for place, found in cellset.cells.items()}
    places = sorted(place for place in where if place[0] in entries)
    heads: dict[CellIndexKey, tuple[str, str]] = {}
    values: dict[str, dict[CellIndexKey, Any]] = {name: {} for name in names}
    for cellset in cellsets:
        lines = cellset.scores
        for line in lines[lines["metric"].isin(list(values))].itertuples():
            place = (str(line.entry), str(line.task), str(line.language), int(line.seed))
            heads[place] = (str(line.texts), str(line.protocol))
            values[str(line.metric)][place] = line
    places = [place for place in places if place in heads]
    tests: dict[str, int] = {}
    sets: list[ExampleSet] = []
    predictions = []
    for i, place in enumerate(places):
        run, cell = where[place]
        predictions += _predictions(run.predictions(cell), i, tests, sets)
    return BaselineData(
        entry=[entries.index(entry) for entry, _, _, _ in places],
        task=[task for _, task, _, _ in places],
        language=[code for _, _, code, _ in places],
        seed=[seed for _, _, _, seed in places],
        texts=[heads[place][0] for place in places],
        protocol=[heads[place][1] for place in places],
        columns={name: _column([found.get(place) for place in places]) for name, found in values.items()},
        tests=sets,
        predictions=predictions,
    )


def _column(lines: Sequence[Any]) -> MetricColumn:
    signatures = sorted({str(line.signature) for line in lines if line is not None})
    return MetricColumn(
        signatures=signatures,
        signature=[None if line is None else signatures.index(str(line.signature)) for line in lines],
        value=[None if line is None else _number(line.value) for line in lines],
        human=[None if line is None else _number(line.human) for line in lines],
        size=[None if line is None else _number(line.size) for line in lines],
        trainings=[0 if line is None else int(line.trainings) for line in lines],
    )


def _number(value: object) -> float | None:
    """Return a number of a table; NaN, which stands for none there, has no JSON."""
    found = None if value is None else float(str(value))
    return None if found is None or found != found else found


def _predictions(kept: dict[str, Any], cell: int, tests: dict[str, int], sets: list[ExampleSet]) -> list[Prediction]:
    """Return a cell's predictions; test sets that are new are added."""
    found = []
    for part, body in kept.items():
        try:
            test = ExampleSet(examples=body["examples"], labels=body["labels"], gold=body["gold"])
            name = test.model_dump_json()
            prediction = Prediction(cell=cell, part=part, test=len(sets), found=body["predictions"])
        except (KeyError, TypeError, ValueError):
            continue  # nothing that statistics could use: test examples are then not resampled
        if name not in tests:
            tests[name] = len(sets)
            sets.append(test)
        found.append(prediction.model_copy(update={"test": tests[name]}))
    return found


def strip_private_fields(manifest: Manifest, selection: Selection) -> Manifest:
    """Return a manifest without what names folders or people's commands."""
    empty: dict[str, Any] = {"model_path": None, "contrast": None, "commands": [], "plugins": []}
    empty |= {"suite_source": "", "data_source": "", "tuning": {}}
    empty["suite"] = {key: value for key, value in manifest.suite.items() if key not in {"data", "model"}}
    return manifest.model_copy(update={**empty, "selection": selection})


def unpack(baseline: Baseline, folder: Path) -> Run:
    """Write a baseline as a run folder, of which every reader of runs can read scores; return it."""
    run, packed = Run(folder), baseline.packed
    write_text(run.manifest_path, json.dumps(baseline.manifest.to_json()))
    kept: dict[int, dict[str, Any]] = {}
    for found in packed.predictions:
        body = {**packed.tests[found.test].model_dump(), "predictions": found.found}
        kept.setdefault(found.cell, {})[found.part] = body
    for i in range(len(packed.entry)):
        key = _key(baseline, i)
        name = cell_id(key)
        files = {
            "status.json": CellStatus(cell=key, state="ok").to_json(),
            "scores.json": _scores(packed, i, name).to_json(),
        }
        place = run.cell(name)
        place.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():  # plainly: nobody else reads them, and there are hundreds
            (place / file).write_text(json.dumps(content), encoding="utf-8")
        data = gzip.compress(json.dumps(kept.get(i, {})).encode(), 1, mtime=0)
        (place / "predictions.json.gz").write_bytes(data)
    return run


def _key(baseline: Baseline, i: int) -> CellKey:
    """Return what a cell is, as far as tables ask; of its texts nothing is kept."""
    manifest, packed = baseline.manifest, baseline.packed
    entry = manifest.entries[packed.entry[i]]
    return CellKey(
        suite=str(manifest.suite.get("name", "")),
        text_protocol="",
        data=manifest.data_hashes.get(f"{packed.task[i]}/{packed.language[i]}", ""),
        model=entry.model,
        method=entry.method,
        task=packed.task[i],
        language=packed.language[i],
        setting=entry.setting,
        seed=packed.seed[i],
        texts_per_label=manifest.selection.texts_per_label.get(packed.task[i], 0),
    )


def _scores(packed: BaselineData, i: int, name: str) -> CellScores:
    found = [_score(metric_name, column, i) for metric_name, column in packed.columns.items()]
    return CellScores(
        cell_id=name,
        generations_sha256=packed.texts[i],
        protocol=packed.protocol[i],
        scores=[score for score in found if score is not None],
    )


def _score(name: str, column: MetricColumn, i: int) -> Score | None:
    signature, size, value = column.signature[i], column.size[i], column.value[i]
    if signature is None:
        return None
    return metric(name).score(
        value,
        column.signatures[signature],
        "" if value is not None else "no value",
        human=column.human[i],
        by_seed=dict.fromkeys(map(str, range(column.trainings[i])), value or 0.0),
        detail={} if size is None else {"texts": size},
    )
