"""Tables of entries: one row per entry, one column per language, from the files of runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import pandas as pd

from harness.core.cells import entry_id
from harness.core.files import canonical_json, digest
from harness.core.records import Entry, Manifest, Track
from harness.core.store import Run
from harness.ranking.load import CellCost, CellIndex, read
from harness.ranking.stats.sharing import sharing
from harness.scoring.metrics import Metric, metric, sort_key

BASELINE = "zero-shot"
"""The method that differences are taken to."""


@dataclass(frozen=True)
class Missing:
    """A cell that an entry lacks, and why."""

    task: str
    language: str
    seed: int
    reason: str


@dataclass(frozen=True)
class EntryRow:
    """A board row before any metric: what it is and which of its cells are there."""

    id: str
    entry: Entry
    name: str
    expected: int
    present: int
    missing: list[Missing]

    @property
    def complete(self) -> bool:
        """Say whether no cell is missing; only then has the entry an aggregate."""
        return self.present == self.expected


@dataclass(frozen=True)
class ResultSet:
    """Comparable results: runs of one suite hash and one selection. Only these share a table.

    ``scores`` has one line per entry, task, language, seed and metric: ``entry``, ``task``,
    ``language``, ``seed``, ``metric``, ``value``, ``human``, ``signature`` and ``protocol`` (how it
    was scored, on what data), ``trainings`` (number of classifier seeds), ``size`` (of texts
    that count, where the score says so), ``texts`` (their digest). Names are categories, and numbers
    that are not known NaN. ``cells``: where the scores of a place are; ``work``: what its texts took.
    """

    manifest: Manifest
    entries: dict[str, EntryRow]
    scores: pd.DataFrame
    signatures: dict[str, list[str]]
    cells: dict[CellIndex, tuple[Run, str]] = field(default_factory=dict)
    manifests: list[Manifest] = field(default_factory=list)
    work: dict[CellIndex, CellCost] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The suite and the models: what a heading says."""
        names = dict.fromkeys(m.model.name for m in self.manifests if m.model)
        return f"{self.manifest.suite['name']} on {', '.join(names) or 'no model'}"

    @property
    def track(self) -> Track:
        """What was measured: texts as training data, understanding, or forcing."""
        return self.manifest.track

    @property
    def fixed(self) -> bool:
        """Whether no seed decides a value: a model that answers by likelihood draws nothing."""
        return self.track == "understanding"

    @cached_property
    def metrics(self) -> list[Metric]:
        """The metrics that were measured, downstream ones first."""
        return [metric(name) for name in sorted(self.scores["metric"].unique(), key=sort_key)]

    @cached_property
    def by_seed(self) -> frozenset[str]:
        """The entries whose strata are not independent over seeds, by all primary metrics together."""
        if self.fixed:
            return frozenset()
        chosen, primary = self.manifest.selection, [m.name for m in self.metrics if m.primary]
        return sharing(self.scores, primary, list(self.entries), chosen.places(), list(chosen.seeds))

    @property
    def headline(self) -> Metric | None:
        """The metric that orders the board: of texts, macro-F1 of the suite's first classifier that ran."""
        if self.track != "generation":
            return next((m for m in self.metrics if m.group == self.track), None)
        found = {m.name: m for m in self.metrics if m.name.startswith("macro_f1/")}
        for spec in self.manifest.suite["classifiers"]:
            if f"macro_f1/{spec}" in found:
                return found[f"macro_f1/{spec}"]
        return next(iter(found.values()), None)


@dataclass(frozen=True)
class Value:
    """A mean over cells. ``spread``: standard deviation over the means of the generation seeds
    (n - 1), None with fewer than two; ``gain``: mean paired difference to the baseline, None for the
    baseline itself; ``human``: mean of human text of the same cells, by the same budget; ``n`` of
    ``expected`` cells have a value."""

    mean: float | None
    spread: float | None = None
    gain: float | None = None
    human: float | None = None
    n: int = 0
    expected: int = 0

    @property
    def complete(self) -> bool:
        """Say whether every cell has a value; only then is there a mean."""
        return self.n == self.expected > 0


@dataclass(frozen=True)
class Table:
    """One metric: a mean per entry and language, and over all languages where complete."""

    metric: Metric
    tasks: list[str]
    languages: list[str]
    rows: list[tuple[EntryRow, Value, dict[str, Value]]]


def collect(runs: Iterable[Run]) -> list[ResultSet]:
    """Read runs and group what is comparable: same suite hash, data and selection."""
    groups: dict[str, list[tuple[Run, Manifest]]] = {}
    for run in runs:
        manifest = run.manifest()
        key = digest([manifest.suite_hash, manifest.selection.identity(), manifest.data_hashes])
        groups.setdefault(key, []).append((run, manifest))
    return [_cellset(group) for group in groups.values()]


def _cellset(runs: Sequence[tuple[Run, Manifest]]) -> ResultSet:
    manifests = [manifest for _, manifest in runs]
    manifest = manifests[0]  # suite, selection and data are the same in all of them
    entries = {entry_id(entry): entry for each in manifests for entry in each.entries}
    sheet = read([run for run, _ in runs])
    names = _names(entries)
    rows = {
        name: _row(name, entry, names[name], manifest, sheet.cells, sheet.reasons) for name, entry in entries.items()
    }
    return ResultSet(manifest, rows, sheet.frame(), sheet.recipes(), sheet.cells, manifests, sheet.work)


def _row(
    name: str,
    entry: Entry,
    title: str,
    manifest: Manifest,
    cells: dict[CellIndex, tuple[Run, str]],
    reasons: dict[CellIndex, str],
) -> EntryRow:
    chosen = manifest.selection
    wanted = [(task, language, seed) for task, language in chosen.places() for seed in chosen.seeds]
    missing = [
        Missing(*place, reasons.get((name, *place), "not run")) for place in wanted if (name, *place) not in cells
    ]
    return EntryRow(name, entry, title, len(wanted), len(wanted) - len(missing), missing)


def _names(entries: dict[str, Entry]) -> dict[str, str]:
    """Return a short title per entry: the method, what of its config differs, its setting, and the
    model where there are several."""
    several = len({entry.model.model_dump_json() for entry in entries.values() if entry.model}) > 1
    by_method: dict[str, list[Entry]] = {}
    for entry in entries.values():
        by_method.setdefault(entry.method.title, []).append(entry)
    varying = {title: _varying(peers) for title, peers in by_method.items()}
    titles = {}
    for name, entry in entries.items():
        method = entry.method
        fields = varying[method.title]
        differing = [f"{field}={value}" for field, value in method.options.items() if field in fields]
        if any(peer.method.version != method.version for peer in by_method[method.title]):
            differing.append(f"v{method.version}")
        title = method.title + (f" [{', '.join(differing)}]" if differing else "")
        title = f"{title} + few-shot" if entry.setting == "few-shot" and method.name != "few-shot" else title
        titles[name] = f"{title}, {entry.model.name}" if several and entry.model else title
    return titles


def _varying(entries: Sequence[Entry]) -> set[str]:
    """Return the fields of the config that are not the same in all entries."""
    options = [entry.method.options for entry in entries]
    fields = {field for each in options for field in each}
    return {field for field in fields if len({canonical_json(each.get(field)) for each in options}) > 1}


def table(cellset: ResultSet, name: Metric, tasks: Sequence[str] | None = None) -> Table:
    """Return one metric as a table; entries with an aggregate first, best first.

    The mean of an entry weighs every cell the same: languages and tasks have equal numbers of
    seeds. An entry that lacks a cell or a value has no aggregate; places of no data are not expected.
    """
    selection = cellset.manifest.selection
    chosen = list(tasks or selection.tasks)
    lines = _lines(cellset, name, chosen)
    whole, by_language = _values(lines, ["entry"]), _values(lines, ["entry", "language"])
    seeds = len(selection.seeds)
    full = {code: len(selection.places(chosen, [code])) * seeds for code in selection.languages}
    rows = []
    for row in cellset.entries.values():
        cells = {code: _take(by_language, (row.id, code), n) for code, n in full.items()}
        rows.append((row, _take(whole, (row.id,), sum(full.values())), cells))
    sign = -1 if name.direction == "up" else 1
    rows.sort(key=lambda r: (r[1].mean is None, sign * (r[1].mean or 0.0), r[0].name, r[0].id))
    return Table(name, chosen, list(selection.languages), rows)


def _lines(cellset: ResultSet, name: Metric, tasks: Sequence[str]) -> pd.DataFrame:
    """Return the known values of a metric with ``gain``, the paired difference to the baseline (or NaN)."""
    scores = cellset.scores
    inside = scores["task"].isin(list(tasks)) & scores["language"].isin(cellset.manifest.selection.languages)
    part = scores[(scores["metric"] == name.name) & inside].dropna(subset=["value"])
    baselines = {row.id: _baseline(cellset, row) for row in cellset.entries.values()}
    keys = ["baseline", "task", "language", "seed"]
    own = part.assign(baseline=part["entry"].map(baselines).astype(object))
    base = part.rename(columns={"entry": "baseline", "value": "base"})[[*keys, "base"]]
    joined = own.merge(base.astype({"baseline": object}), on=keys, how="left")
    return joined.assign(gain=joined["value"] - joined["base"])


def _baseline(cellset: ResultSet, row: EntryRow) -> str | None:
    """Return the zero-shot entry of the row's model; of the only model for rows without one.

    None for the baseline itself, and where no single baseline fits.
    """
    if row.entry.method.name == BASELINE:
        return None
    found = [
        other.id
        for other in cellset.entries.values()
        if other.entry.method.name == BASELINE and (row.entry.model is None or other.entry.model == row.entry.model)
    ]
    return found[0] if len(found) == 1 else None


def _values(lines: pd.DataFrame, keys: list[str]) -> dict[tuple[str, ...], Value]:
    """Return mean, spread and gain per group; a gain needs a baseline value beside every value."""
    groups = lines.groupby(keys)
    means = groups.agg(
        n=("value", "size"),
        mean=("value", "mean"),
        gain=("gain", "mean"),
        pairs=("gain", "count"),
        human=("human", "mean"),
        beside=("human", "count"),
    )
    seeds = lines.groupby([*keys, "seed"])["value"].mean().groupby(level=keys)
    means["spread"], means["seeds"] = seeds.std(ddof=1), seeds.size()
    found = {}
    for line in means.reset_index().to_dict("records"):
        found[tuple(line[key] for key in keys)] = Value(
            mean=float(line["mean"]),
            spread=float(line["spread"]) if line["seeds"] > 1 else None,
            gain=float(line["gain"]) if line["pairs"] == line["n"] else None,
            human=float(line["human"]) if line["beside"] == line["n"] else None,
            n=int(line["n"]),
        )
    return found


def _take(values: dict[tuple[str, ...], Value], key: tuple[str, ...], expected: int) -> Value:
    """Return a group's value if it has all that is expected, else only how much of it is there."""
    value = values.get(key, Value(None))
    if value.n < expected:
        return Value(None, n=value.n, expected=expected)
    return replace(value, expected=expected)
