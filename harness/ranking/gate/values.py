"""The numbers of one metric on both sides of the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.types import FloatArray
from harness.ranking.gate.estimating import SideValues
from harness.ranking.gate.scope import ComparedSlice, seeds
from harness.ranking.pairing import EntryPair, format_list
from harness.ranking.results import ResultSet
from harness.ranking.values import MetricArray, collect_metric, coverage, different
from harness.scoring.metrics import Metric


@dataclass(frozen=True)
class PairedValues:
    """One metric of baseline and run: ``seeds`` of both, and ``common``, those that they are paired by.

    ``mixed``: strata that were scored in different ways, in words.
    """

    metric: Metric
    cellsets: tuple[ResultSet, ResultSet]
    evidence: tuple[MetricArray, MetricArray]
    seeds: tuple[list[int], list[int]]
    common: list[int]
    mixed: list[str]

    @property
    def notes(self) -> list[str]:
        """Why test examples are not resampled, where they should be, and whose seeds are not independent.

        The gate says so and goes on: noise of our own engine is keyed by task and language, and one honest
        entry in a hundred is found as well, which would leave such a run without a verdict.
        """
        words = dict.fromkeys(evidence.note for evidence in self.evidence if evidence.note)
        names = {
            cellset.entries[name].name
            for cellset, evidence in zip(self.cellsets, self.evidence, strict=True)
            for name in evidence.by_seed
        }
        shared = [f"seeds move all languages together, which the gate does not count: {name}" for name in sorted(names)]
        return [*words, *shared]

    @property
    def how(self) -> str:
        """Which seeds are compared with which, in words."""
        base, new = (len(own) for own in self.seeds)
        if not self.common:
            return f"other seeds, {base} and {new}"
        if base == new:
            return f"paired, {base} seeds"
        more = ("baseline", base) if base > new else ("run", new)
        return f"paired, {len(self.common)} seeds; the {more[0]} has {more[1]}"

    @property
    def columns(self) -> list[tuple[int, int]]:
        """Index in the baseline and in the run of every common seed."""
        return [(self.seeds[0].index(seed), self.seeds[1].index(seed)) for seed in self.common]

    def values(self, pair: EntryPair) -> tuple[FloatArray, FloatArray]:
        """Return the values (stratum, seed) of both sides, in the strata that are compared; NaN: none."""
        kept = self.kept(pair)
        base, new = (
            self.evidence[side].values[self.evidence[side].position[row.id]][kept]
            for side, row in enumerate((pair.a, pair.b))
        )
        return base, new

    def kept(self, pair: EntryPair) -> NDArray[np.bool_]:
        """Return which strata are compared: all but those whose cells ran and gave no side any value."""
        found = np.zeros(len(self.evidence[0].task_languages), dtype=bool)
        for evidence, row in zip(self.evidence, (pair.a, pair.b), strict=True):
            found |= ~np.isnan(evidence.values[evidence.position[row.id]]).all(axis=1)
            gone = {(missing.task, missing.language) for missing in row.missing}
            found |= [stratum in gone for stratum in evidence.task_languages]
        return found

    def tasks(self, pair: EntryPair) -> list[str]:
        """Return the task of every stratum that is compared."""
        kept = self.kept(pair)
        return [task for (task, _), here in zip(self.evidence[0].task_languages, kept, strict=True) if here]

    def without(self, pair: EntryPair) -> str:
        """Return in words where no side has a value, and why; empty where there is no such stratum."""
        strata, kept = self.evidence[1].task_languages, self.kept(pair)
        empty = [place for place, here in zip(strata, kept, strict=True) if not here]
        if not empty:
            return ""
        task, code = empty[0]
        known = coverage(self.cellsets[1], self.evidence[1].select([task], [code]), pair.b.id)
        where = f" in {format_list([f'{task}/{code}' for task, code in empty])}" if kept.any() else ""
        return f"no side has values{where} ({known.reasons[0].rpartition(' × ')[2]})"

    def sides(self, pair: EntryPair) -> tuple[SideValues | None, SideValues | None]:
        """Return the numbers of both; None for who lacks some."""
        base, new = (self._side(side, row.id, self.kept(pair)) for side, row in enumerate((pair.a, pair.b)))
        return base, new

    def _side(self, which: int, name: str, kept: NDArray[np.bool_]) -> SideValues | None:
        evidence = self.evidence[which]
        row = evidence.position[name]
        values = evidence.values[row][kept]
        if not kept.any() or np.isnan(values).any():
            return None
        return SideValues(values, None if evidence.draws is None else evidence.draws[row][kept], evidence.examples)

    def identical(self, pair: EntryPair) -> bool:
        """Say whether every value is the same; with other seeds, whether none ever varies.

        What has no value is the same where the same texts have none: the cells ran, and are too few texts.
        """
        base, new = self.values(pair)
        if np.isnan(new).any() and (pair.a.missing or pair.b.missing or not self.same_texts(pair)):
            return False
        if not self.common:
            return bool((base == base[:, :1]).all() and (new == base[:, :1]).all())
        mine, yours = zip(*self.columns, strict=True)
        return bool(np.array_equal(base[:, mine], new[:, yours], equal_nan=True))

    def same_texts(self, pair: EntryPair) -> bool:
        """Say whether both wrote the same texts in every cell of a common seed."""
        base, new = (self._texts[i].get(side.id) for i, side in enumerate((pair.a, pair.b)))
        return bool(self.common) and base == new

    @cached_property
    def _texts(self) -> list[dict[str, dict[Any, str]]]:
        found: list[dict[str, dict[Any, str]]] = [{}, {}]
        for own, cellset in zip(found, self.cellsets, strict=True):
            for line in _of(cellset, self.metric, self.common).itertuples():
                own.setdefault(str(line.entry), {})[line.task, line.language, line.seed] = str(line.texts)
        return found


def load_values(scope: ComparedSlice, metric: Metric, least: int) -> PairedValues:
    """Return the numbers of a metric; ``least``: seeds that are enough to pair by."""
    chosen = [side.manifest.selection for side in (scope.base, scope.new)]
    base, new, common = seeds(chosen[0].seeds, chosen[1].seeds, least)
    cellsets = (_with_seeds(scope.base, base), _with_seeds(scope.new, new))
    evidence = (collect_metric(cellsets[0], metric), collect_metric(cellsets[1], metric))
    return PairedValues(metric, cellsets, evidence, (base, new), common, _mixed(cellsets, metric, (base, new)))


def _with_seeds(cellset: ResultSet, wanted: list[int]) -> ResultSet:
    selection = cellset.manifest.selection.model_copy(update={"seeds": wanted})
    manifest = cellset.manifest.model_copy(update={"selection": selection})
    lines = cellset.scores
    return replace(cellset, manifest=manifest, scores=lines[lines["seed"].isin(wanted)])


def _of(cellset: ResultSet, metric: Metric, wanted: list[int]) -> Any:
    lines = cellset.scores
    lines = lines[(lines["metric"] == metric.name) & lines["seed"].isin(wanted)]
    return lines[lines["entry"].isin(list(cellset.entries))]


def _mixed(cellsets: tuple[ResultSet, ResultSet], metric: Metric, wanted: tuple[list[int], list[int]]) -> list[str]:
    """Return in words which strata have values by more than one recipe or on other data."""
    recipes: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for cellset, own in zip(cellsets, wanted, strict=True):
        columns = ["task", "language", "signature", "protocol"]
        for task, code, signature, protocol in different(_of(cellset, metric, own), columns):
            recipes.setdefault((task, code), set()).add((signature, protocol))
    words = []
    for (task, code), found in sorted(recipes.items()):
        names = sorted({signature for signature, _ in found})
        how = " | ".join(names) if len(names) > 1 else f"{len(found)} versions of scoring or data"
        words += [f"{task}/{code}: {how}"] if len(found) > 1 else []
    return words


def gaps(looked: PairedValues, pair: EntryPair) -> Iterator[tuple[str, str]]:
    """Yield for both sides what is missing, in words; empty where nothing is."""
    for i, (side, row) in enumerate((("baseline", pair.a), ("run", pair.b))):
        evidence, kept = looked.evidence[i], looked.kept(pair)
        gone = np.isnan(evidence.values[evidence.position[row.id]]) & kept[:, None]
        missing = np.argwhere(gone).tolist()
        strata = [evidence.task_languages[place] for place, _ in missing]
        places = [f"{task}/{code}" for task, code in dict.fromkeys(strata)]
        reasons = Counter(
            found.reason
            for found in row.missing
            if (found.task, found.language) in strata and found.seed in looked.seeds[i]
        )
        why = f": {reasons.most_common(1)[0][0]}" if reasons else ""
        size = int(kept.sum()) * len(evidence.seeds)
        yield side, f"{len(missing)} of {size} cells ({format_list(places)}{why})" if missing else ""
