"""The numbers of one metric on both sides of the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from harness.gate.estimating import Side
from harness.gate.scope import Scope, seeds
from harness.ranking.comparable import Pair, listed
from harness.ranking.evidence import Evidence, different, gather
from harness.ranking.tables import Cellset
from harness.scoring.metrics import Metric


@dataclass(frozen=True)
class Look:
    """One metric of baseline and run: ``seeds`` of both, the same and in one order where ``paired``.

    ``mixed``: strata that were scored in different ways, in words. ``notes``: why no test examples count.
    """

    metric: Metric
    cellsets: tuple[Cellset, Cellset]
    evidence: tuple[Evidence, Evidence]
    seeds: tuple[list[int], list[int]]
    paired: bool
    mixed: list[str]

    @property
    def tasks(self) -> list[str]:
        """The task of every stratum."""
        return [task for task, _ in self.evidence[0].strata]

    @property
    def notes(self) -> list[str]:
        """Why test examples are not resampled, where they should be."""
        return list(dict.fromkeys(evidence.note for evidence in self.evidence if evidence.note))

    @property
    def how(self) -> str:
        """Which seeds are held against which, in words."""
        if self.paired:
            return f"paired, {len(self.seeds[0])} seeds"
        return f"other seeds, {len(self.seeds[0])} and {len(self.seeds[1])}"

    def sides(self, pair: Pair) -> tuple[Side | None, Side | None]:
        """Return the numbers of both; None for who lacks some."""
        return self._side(0, pair.a.id), self._side(1, pair.b.id)

    def _side(self, which: int, name: str) -> Side | None:
        evidence = self.evidence[which]
        if name not in evidence.complete:
            return None
        row = evidence.position[name]
        draws = None if evidence.draws is None else evidence.draws[row]
        return Side(evidence.values[row], draws, evidence.examples)

    def identical(self, pair: Pair) -> bool:
        """Say whether every value is the same; with other seeds, whether none ever varies."""
        base, new = (side.values for side in self.sides(pair) if side is not None)
        if self.paired:
            return bool(np.array_equal(base, new))
        return bool((base == base[:, :1]).all() and (new == base[:, :1]).all())

    def same_texts(self, pair: Pair) -> bool:
        """Say whether both wrote the same texts in every cell."""
        if not self.paired:
            return False
        base, new = (self._texts[i].get(side.id) for i, side in enumerate((pair.a, pair.b)))
        return base == new

    @cached_property
    def _texts(self) -> list[dict[str, dict[Any, str]]]:
        found: list[dict[str, dict[Any, str]]] = [{}, {}]
        for own, cellset, wanted in zip(found, self.cellsets, self.seeds, strict=True):
            lines = _of(cellset, self.metric, wanted)
            for line in lines.itertuples():
                own.setdefault(str(line.entry), {})[line.task, line.language, line.seed] = str(line.texts)
        return found


def look(scope: Scope, metric: Metric, least: int) -> Look:
    """Return the numbers of a metric; ``least``: seeds that are enough to pair by."""
    chosen = [side.manifest.selection for side in (scope.base, scope.new)]
    base, new, same = seeds(chosen[0].seeds, chosen[1].seeds, least)
    cellsets = (_with_seeds(scope.base, base), _with_seeds(scope.new, new))
    evidence = (gather(cellsets[0], metric), gather(cellsets[1], metric))
    return Look(metric, cellsets, evidence, (base, new), same, _mixed(cellsets, metric, (base, new)))


def _with_seeds(cellset: Cellset, wanted: list[int]) -> Cellset:
    selection = cellset.manifest.selection.model_copy(update={"seeds": wanted})
    manifest = cellset.manifest.model_copy(update={"selection": selection})
    lines = cellset.scores
    return replace(cellset, manifest=manifest, scores=lines[lines["seed"].isin(wanted)])


def _of(cellset: Cellset, metric: Metric, wanted: list[int]) -> Any:
    lines = cellset.scores
    lines = lines[(lines["metric"] == metric.name) & lines["seed"].isin(wanted)]
    return lines[lines["entry"].isin(list(cellset.entries))]


def _mixed(
    cellsets: tuple[Cellset, Cellset], metric: Metric, wanted: tuple[list[int], list[int]]
) -> list[str]:
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


def gaps(looked: Look, pair: Pair) -> Iterator[tuple[str, str]]:
    """Yield for both sides what is missing, in words; empty where nothing is."""
    for i, (side, row) in enumerate((("baseline", pair.a), ("run", pair.b))):
        evidence = looked.evidence[i]
        missing = np.argwhere(np.isnan(evidence.values[evidence.position[row.id]])).tolist()
        strata = [evidence.strata[place] for place, _ in missing]
        places = [f"{task}/{code}" for task, code in dict.fromkeys(strata)]
        reasons = Counter(
            found.reason
            for found in row.missing
            if (found.task, found.language) in strata and found.seed in looked.seeds[i]
        )
        why = f": {reasons.most_common(1)[0][0]}" if reasons else ""
        size = evidence.values[0].size
        yield side, f"{len(missing)} of {size} cells ({listed(places)}{why})" if missing else ""
