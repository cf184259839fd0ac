"""Runs made by hand: scores, human values beside them and kept predictions, without a model or texts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.core.cells import cell_id, entry_of
from harness.core.files import digest
from harness.core.records import CellScores, CellStatus, Entry, MethodIdentity, ModelIdentity, Score, Selection
from harness.core.store import Run
from harness.ranking.results import ResultSet, collect
from harness.scoring.metrics import Metric, macro_f1
from support.helpers import MODEL, key, method, toy_manifest

F1 = macro_f1("tfidf")
REFERENCES = {"human", "constant"}
Values = Mapping[tuple[str, str, int], float | None]
"""Task, language and seed -> value."""


@dataclass
class ToyEntry:
    """An entry to write: values per metric and cell, and what is kept of the classifier.

    ``texts``: stands for its texts; by default other values are of other texts. ``steered``: whether its cells name a
    steering, which is not in the run.
    """

    method: MethodIdentity
    model: ModelIdentity | None = MODEL
    setting: str = "zero-shot"
    scores: dict[Metric, Values] = field(default_factory=dict)
    human: dict[Metric, float] = field(default_factory=dict)
    kept: dict[tuple[str, str, int], dict[str, object]] = field(default_factory=dict)
    texts: str = ""
    steered: bool = True

    @property
    def entry(self) -> Entry:
        return Entry(method=self.method, model=self.model, setting=self.setting)


def toy(name: str, model: ModelIdentity | None = MODEL, **config: object) -> ToyEntry:
    """Return an entry without values; references and few-shot get their own setting."""
    if name in REFERENCES:
        return ToyEntry(method(name, **config), None, "none")
    return ToyEntry(method(name, **config), model, "few-shot" if name == "few-shot" else "zero-shot")


def selection(
    languages: Sequence[str] = ("am", "he"),
    tasks: Sequence[str] = ("sentiment",),
    seeds: Sequence[int] = (1, 2, 3),
    texts: int = 2,
) -> Selection:
    return Selection(
        languages=list(languages),
        tasks=list(tasks),
        settings=["zero-shot", "few-shot"],
        seeds=list(seeds),
        texts_per_label=dict.fromkeys(tasks, texts),
    )


def places(chosen: Selection) -> list[tuple[str, str, int]]:
    return [(t, code, s) for t in chosen.tasks for code in chosen.languages for s in chosen.seeds]


def write_run(
    folder: Path,
    entries: Iterable[ToyEntry],
    chosen: Selection | None = None,
    drop: Iterable[tuple[str, str, str, int]] = (),
    signature: str = "recipe 1",
    **manifest: object,
) -> Run:
    """Write a run; ``drop``: method name, task, language and seed of cells that failed."""
    chosen, entries, gone = chosen or selection(), list(entries), set(drop)
    run = Run(folder)
    fields = {"entries": [toy.entry for toy in entries], "selection": chosen, **manifest}
    run.write_manifest(toy_manifest(**fields))
    for toy_entry in entries:
        for place in places(chosen):
            failed = (toy_entry.method.name, *place) in gone
            write_cell(run, toy_entry, place, chosen, signature, failed)
    return run


def write_cell(
    run: Run,
    toy_entry: ToyEntry,
    place: tuple[str, str, int],
    chosen: Selection,
    signature: str = "recipe 1",
    failed: bool = False,
) -> None:
    """Write the files of a cell that tables read; plainly, as hundreds are written."""
    task, language, seed = place
    cell_key = key(
        method=toy_entry.method,
        model=toy_entry.model,
        setting=toy_entry.setting,
        task=task,
        language=language,
        seed=seed,
        texts_per_label=chosen.texts_per_label[task],
    )
    assert entry_of(cell_key) == toy_entry.entry
    name = cell_id(cell_key)
    folder = run.cell(name)
    folder.mkdir(parents=True)
    state, reason = ("method_error", "ValueError: no") if failed else ("ok", "")
    unsteered = {"zero-shot", "few-shot", *REFERENCES}
    applied = "toy" if toy_entry.steered and toy_entry.method.name not in unsteered and not failed else None
    status = CellStatus(cell=cell_key, state=state, reason=reason, steering=applied)
    plain(folder / "status.json", status.to_json())
    if failed:
        return
    kept = toy_entry.kept.get(place, {})
    scores = [
        score(measured, values[place], toy_entry.human.get(measured), signature, kept)
        for measured, values in toy_entry.scores.items()
    ]
    values = {measured.name: by_place[place] for measured, by_place in toy_entry.scores.items()}
    texts = digest([toy_entry.texts or values])
    record = CellScores(cell_id=name, generations_sha256=texts, protocol="p", scores=scores)
    plain(folder / "scores.json", record.to_json())
    packed = gzip.compress(json.dumps({"classifier/tfidf": kept} if kept else {}).encode(), 1, mtime=0)
    (folder / "predictions.json.gz").write_bytes(packed)


def score(
    measured: Metric, value: float | None, human: float | None, signature: str, kept: Mapping[str, object]
) -> Score:
    found = kept.get("predictions", {}) if kept else {}
    seeds = found.get(measured.name, {}) if isinstance(found, dict) else {}
    note = "too few texts" if value is None else ""
    by_seed = dict.fromkeys(seeds, value) if value is not None else {}
    detail = {"texts": 100} if measured.group == "leakage" else {}
    return measured.score(value, signature, note, human=human, by_seed=by_seed, detail=detail)


def plain(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def flat(value: float, chosen: Selection, wobble: Sequence[float] = (0.0, 0.01, -0.01), apart: bool = False) -> Values:
    """Return a value for every cell that wobbles over the seeds, around its mean.

    ``apart``: the wobble begins elsewhere in every task and language, seeds do not move them together.
    """
    order = {seed: i for i, seed in enumerate(chosen.seeds)}
    strata = list(dict.fromkeys((task, code) for task, code, _ in places(chosen)))
    first = {place: i if apart else 0 for i, place in enumerate(strata)}
    return {
        (task, code, seed): value + wobble[(order[seed] + first[task, code]) % len(wobble)]
        for task, code, seed in places(chosen)
    }


def predicting(
    toy_entry: ToyEntry, right: float, chosen: Selection, n: int = 100, labels: int = 2, examples: str = "d1"
) -> ToyEntry:
    """Give an entry predictions of which about the share ``right`` is right, and their macro-F1."""
    values: dict[tuple[str, str, int], float | None] = {}
    gold = np.arange(n) % labels
    for place in places(chosen):
        rng = np.random.default_rng([int(right * 1000), *(sum(map(ord, str(axis))) for axis in place)])
        wrong = rng.random(n) >= right
        found = np.where(wrong, (gold + 1) % labels, gold)
        toy_entry.kept[place] = {
            "examples": f"{examples}/{place[0]}",
            "labels": [f"l{i}" for i in range(labels)],
            "gold": gold.tolist(),
            "predictions": {F1.name: {"0": found.tolist()}},
        }
        values[place] = macro(gold, found, labels)
    toy_entry.scores[F1] = values
    return toy_entry


def macro(gold: np.ndarray, found: np.ndarray, labels: int) -> float:
    """Return macro-F1 by its definition."""
    values = []
    for label in range(labels):
        hits = int(((gold == label) & (found == label)).sum())
        both = int((gold == label).sum() + (found == label).sum())
        values.append(2 * hits / both if both else 0.0)
    return sum(values) / labels


def collect_results(*runs: Run) -> ResultSet:
    """Return the only set of comparable results."""
    [found] = collect(runs)
    return found
