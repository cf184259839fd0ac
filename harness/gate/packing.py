"""Runs in and out of baseline files: only what the gate reads, no texts, no names of folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.cells import entry_id
from harness.gate.baseline import Baseline, Column, Packed, Prediction, TestSet
from harness.ranking.tables import Cellset
from harness.records import CellKey, CellScores, CellStatus, Manifest, Score, Selection
from harness.scoring.metrics import metric
from harness.store import CellMeasured, Measured, Run

Place = tuple[str, str, str, int]
"""Entry, task, language, seed."""


def pack(cellsets: Sequence[Cellset], names: Iterable[str]) -> Packed:
    """Return the cells of runs that share entries, with these metrics and all kept predictions."""
    entries = [entry_id(entry) for entry in cellsets[0].manifest.entries]
    where = {place: found for cellset in cellsets for place, found in cellset.cells.items()}
    places = sorted(place for place in where if place[0] in entries)
    heads: dict[Place, tuple[str, str]] = {}
    values: dict[str, dict[Place, Any]] = {name: {} for name in names}
    for cellset in cellsets:
        lines = cellset.scores
        for line in lines[lines["metric"].isin(list(values))].itertuples():
            place = (str(line.entry), str(line.task), str(line.language), int(line.seed))
            heads[place] = (str(line.texts), str(line.protocol))
            values[str(line.metric)][place] = line
    places = [place for place in places if place in heads]
    tests: dict[str, int] = {}
    sets: list[TestSet] = []
    predictions = []
    for i, place in enumerate(places):
        run, cell = where[place]
        predictions += _predictions(run.predictions(cell), i, tests, sets)
    return Packed(
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


def _column(lines: Sequence[Any]) -> Column:
    signatures = sorted({str(line.signature) for line in lines if line is not None})
    return Column(
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


def _predictions(
    kept: dict[str, Any], cell: int, tests: dict[str, int], sets: list[TestSet]
) -> list[Prediction]:
    """Return a cell's predictions; test sets that are new are added."""
    found = []
    for part, body in kept.items():
        try:
            test = TestSet(examples=body["examples"], labels=body["labels"], gold=body["gold"])
            name = test.model_dump_json()
            prediction = Prediction(cell=cell, part=part, test=len(sets), found=body["predictions"])
        except (KeyError, TypeError, ValueError):
            continue  # nothing that statistics could use: test examples are then not resampled
        if name not in tests:
            tests[name] = len(sets)
            sets.append(test)
        found.append(prediction.model_copy(update={"test": tests[name]}))
    return found


def bare(manifest: Manifest, selection: Selection) -> Manifest:
    """Return a manifest without what names folders or people's commands."""
    empty: dict[str, Any] = {"model_path": None, "contrast": None, "commands": [], "plugins": []}
    empty |= {"suite_source": "", "data_source": "", "tuning": {}}
    return manifest.model_copy(update={**empty, "selection": selection})


class PackedRun(Run):
    """A baseline file as a run that can be read, not written."""

    def __init__(self, path: Path, baseline: Baseline) -> None:
        super().__init__(path)
        self._manifest, self._packed = baseline.manifest, baseline.packed
        self._kept: dict[int, dict[str, Any]] = {}
        for found in self._packed.predictions:
            test = self._packed.tests[found.test]
            body = {**test.model_dump(), "predictions": found.found}
            self._kept.setdefault(found.cell, {})[found.part] = body

    def exists(self) -> bool:
        """Say that there is a run."""
        return True

    def manifest(self) -> Manifest:
        """Return the manifest of the run that was packed."""
        return self._manifest

    def cell_ids(self) -> list[str]:
        """Return the cells' places in the columns."""
        return [str(i) for i in range(len(self._packed.entry))]

    def status(self, cell_id: str) -> CellStatus:
        """Return what a cell is; of its texts and times nothing is kept."""
        i, packed = int(cell_id), self._packed
        entry = self._manifest.entries[packed.entry[i]]
        key = CellKey(
            suite=str(self._manifest.suite.get("name", "")),
            text_protocol="",
            data=self._manifest.data_hashes.get(f"{packed.task[i]}/{packed.language[i]}", ""),
            model=entry.model,
            method=entry.method,
            task=packed.task[i],
            language=packed.language[i],
            setting=entry.setting,
            seed=packed.seed[i],
            texts_per_label=self._manifest.selection.texts_per_label.get(packed.task[i], 0),
        )
        return CellStatus(cell=key, state="ok")

    def scores(self, cell_id: str) -> CellScores:
        """Return the scores that are kept of a cell."""
        i, packed = int(cell_id), self._packed
        return CellScores(
            cell_id=cell_id,
            generations_sha256=packed.texts[i],
            protocol=packed.protocol[i],
            scores=[found for name, column in packed.columns.items() if (found := _score(name, column, i))],
        )

    def measured(self, cell_id: str) -> CellMeasured:
        """Return of the scores what tables need."""
        found = self.scores(cell_id)
        measured: list[Measured] = [
            {
                "metric": score.metric,
                "value": score.value,
                "signature": score.signature,
                "human": score.human,
                "by_seed": score.by_seed,
                "detail": {"texts": score.detail["texts"]} if "texts" in score.detail else {},
            }
            for score in found.scores
        ]
        return {
            "schema": 1,
            "generations_sha256": found.generations_sha256,
            "protocol": found.protocol,
            "scores": measured,
        }

    def predictions(self, cell_id: str) -> dict[str, Any]:
        """Return what is kept of the classifiers."""
        return self._kept.get(int(cell_id), {})


def _score(name: str, column: Column, i: int) -> Score | None:
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
