"""The data-size curve: macro-F1 after training on the first n texts of every label, next to that of human text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import numpy as np

from harness.core.records import Score
from harness.core.store import CURVE
from harness.core.types import FloatArray
from harness.data.suite import CurveSettings
from harness.scoring.classifiers import Classifier, TestResult, train_and_test, training_rows
from harness.scoring.metrics import (
    CURVE_AREA,
    CURVE_F1,
    CURVE_MIXED_F1,
    HUMAN_EQUIVALENT,
    MACRO_F1,
    Metric,
    curve_point,
)
from harness.scoring.scorer import Rows, ScorerOutput, ScoringContext, TextSample

Censored = Literal["", "below", "above"]
"""On which side of the human curve a macro-F1 lies; empty where it is on it."""

_ROUNDING = 1e-12  # of means: so close to the end of a curve is at its end


def area_weights(sizes: Sequence[int]) -> FloatArray:
    """Return the weights [sizes] of macro-F1 in the normalised area, which add up to 1; there are two sizes or more.

    The trapezoid rule over log n, divided by its range: of a constant curve the area is its value.
    """
    gaps = np.diff(np.log(sizes))
    return np.asarray((np.append(gaps, 0.0) + np.append(0.0, gaps)) / (2 * gaps.sum()))


def monotone_weights(values: FloatArray) -> FloatArray:
    """Return the matrix [k, k] that makes values [k] non-decreasing by the least squares: what falls is averaged.

    Isotonic regression by pooling adjacent violators (Barlow et al. 1972).
    """
    blocks: list[list[int]] = []
    for i in range(len(values)):
        blocks.append([i])
        while len(blocks) > 1 and values[blocks[-2]].mean() > values[blocks[-1]].mean():
            last = blocks.pop()
            blocks[-1] += last
    weights = np.zeros((len(values), len(values)))
    for block in blocks:
        weights[np.ix_(block, block)] = 1 / len(block)
    return weights


def human_equivalent(value: float, sizes: Sequence[int], human: FloatArray) -> tuple[float, Censored]:
    """Return how many human texts per label give a macro-F1 of ``value``, by the human curve [sizes].

    The curve is made non-decreasing and is linear in log n between its points; the smallest n counts where it is flat.
    Beyond an end of the curve, that end, and on which side.
    """
    curve = monotone_weights(human) @ human
    if value < curve[0] - _ROUNDING:
        return float(sizes[0]), "below"
    if value > curve[-1] + _ROUNDING:
        return float(sizes[-1]), "above"
    right = min(int(np.searchsorted(curve, value)), len(curve) - 1)
    if right == 0 or value >= curve[right]:
        return float(sizes[right]), ""
    share = (value - curve[right - 1]) / (curve[right] - curve[right - 1])
    return float(sizes[right - 1] * (sizes[right] / sizes[right - 1]) ** share), ""


def first_texts(sample: TextSample | None, n: int, labels: Sequence[str]) -> Rows | None:
    """Return the first ``n`` texts of every label that can be trained on; None where a label does not have so many."""
    if sample is None:
        return None
    seen: Counter[str] = Counter()
    first = np.zeros(len(sample.labels), dtype=bool)
    for i, label in enumerate(sample.labels):
        first[i] = seen[label] < n
        seen[label] += 1
    enough = all(seen[label] >= n for label in labels)
    return training_rows(sample.subset(first)) if enough else None


class CurveScorer:
    """One downstream classifier, trained on the first n texts of every label for every n of the suite.

    Once on the texts alone, and once with a few human train texts. ``Score.human`` is human text of the same n; it is
    there for every n that the train split has, also where the cell has fewer texts. Artifacts: as those of
    ``ClassifierScorer``, and in ``human`` the predictions after training on human text.
    """

    human = False  # it has the human values itself: they are of other numbers than the cell's

    def __init__(self, classifier: Classifier, settings: CurveSettings) -> None:
        self.name = f"{CURVE}{classifier.name}"
        sizes = ",".join(map(str, settings.sizes))
        self.signature = f"{classifier.signature}|curve:{sizes}|human:{settings.human}|version:1"
        self._classifier, self._settings = classifier, settings
        self._last: tuple[ScoringContext, TextSample | None, dict[int, TestResult]] | None = None

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return macro-F1 of every number of texts, alone and with human text, the area and the human-equivalent n."""
        gold = [context.labels.index(label) for _, label in context.test]
        human = self._human(sample.human, context, gold)
        rows = {n: first_texts(sample, n, context.labels) for n in self._settings.sizes}
        own = {n: self._test(found, context, gold) for n, found in rows.items() if found}
        scores, kept = self._points(CURVE_F1, rows, own, human)
        few = self._settings.human
        if few:
            added = first_texts(sample.human, few, context.labels)
            both = {n: None if found is None or added is None else _joined(added, found) for n, found in rows.items()}
            mixed = {n: self._test(found, context, gold) for n, found in both.items() if found}
            note = "" if added else f"the train split has fewer than {few} texts of a label"
            more, more_kept = self._points(CURVE_MIXED_F1, both, mixed, {}, note)
            scores, kept = [*scores, *more], kept | more_kept
        scores += self._summary(own, human)
        of_human = {curve_point(CURVE_F1, self._classifier.name, n).name: t.predictions for n, t in human.items()}
        test = {"examples": context.examples, "labels": list(context.labels), "gold": gold}
        return ScorerOutput(scores, {**test, "predictions": kept, "human": of_human})

    def _test(self, rows: Rows, context: ScoringContext, gold: list[int]) -> TestResult:
        return train_and_test(self._classifier, rows, context, gold)

    def _human(self, sample: TextSample | None, context: ScoringContext, gold: list[int]) -> dict[int, TestResult]:
        """Return the human curve; that of the last cell is kept, as cells come sorted."""
        if self._last is None or self._last[0] is not context or self._last[1] is not sample:
            rows = {n: first_texts(sample, n, context.labels) for n in self._settings.sizes}
            found = {n: self._test(own, context, gold) for n, own in rows.items() if own}
            self._last = context, sample, found
        return self._last[2]

    def _points(
        self,
        base: Metric,
        rows: dict[int, Rows | None],
        tested: dict[int, TestResult],
        human: dict[int, TestResult],
        note: str = "",
    ) -> tuple[list[Score], dict[str, dict[str, list[int]]]]:
        """Return a score for every number of texts, and the predictions of those with a value by its name.

        ``note``: why there are no values although there are texts.
        """
        scores, kept = [], {}
        for n, found in rows.items():
            named = curve_point(base, self._classifier.name, n)
            beside = _value(human[n]) if n in human else None
            if n not in tested:
                why = "no text to train on" if found is not None else note or f"fewer than {n} texts per label"
                scores.append(named.score(None, self.signature, why, human=beside))
                continue
            by_seed = tested[n].values[MACRO_F1.name]
            missing = f"the train split has fewer than {n} texts of a label" if base is CURVE_F1 and not beside else ""
            detail = {"texts": len(tested[n].rows)}
            scores.append(
                named.score(_value(tested[n]), self.signature, missing, human=beside, by_seed=by_seed, detail=detail)
            )
            kept[named.name] = tested[n].predictions
        return scores, kept

    def _summary(self, own: dict[int, TestResult], human: dict[int, TestResult]) -> list[Score]:
        """Return the area and the human-equivalent n."""
        area, equivalent = (m.for_provider(self._classifier.name) for m in (CURVE_AREA, HUMAN_EQUIVALENT))
        if len(own) < 2:
            scores = [area.score(None, self.signature, "fewer than two points of the curve")]
        else:
            beside = _area(human, list(own)) if own.keys() <= human.keys() else None
            scores = [area.score(_area(own, list(own)), self.signature, human=beside)]
        if not own or len(human) < 2:
            why = "no text to train on" if not own else "fewer than two points of the human curve"
            return [*scores, equivalent.score(None, self.signature, why)]
        largest, sizes = max(own), list(human)
        n, side = human_equivalent(_value(own[largest]), sizes, np.array([_value(human[size]) for size in sizes]))
        note = {
            "": "",
            "below": f"below the human curve: < {sizes[0]}",
            "above": f"above the human curve: > {sizes[-1]}",
        }
        return [*scores, equivalent.score(n, self.signature, note[side], detail={"n": largest})]


def _value(tested: TestResult) -> float:
    """Return macro-F1, mean over the classifier seeds."""
    return fmean(tested.values[MACRO_F1.name].values())


def _area(tested: dict[int, TestResult], sizes: Sequence[int]) -> float:
    return float(area_weights(sizes) @ [_value(tested[n]) for n in sizes])


def _joined(first: Rows, second: Rows) -> Rows:
    return list(dict.fromkeys([*first, *second]))
