"""How far apart the texts of a cell lie in an embedding: Vendi scores and mean pairwise distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.core.records import Score
from harness.core.types import FloatArray
from harness.data.suite import Budgets
from harness.scoring import subsampling
from harness.scoring.embeddings import Embedding, Rows
from harness.scoring.metrics import PAIRWISE, VENDI, VENDI_COMMON, VENDI_MODE, VENDI_RARE, metric
from harness.scoring.scorer import ScorerOutput, ScoringContext, TextSample
from harness.scoring.truncate import prefixes

ORDERS = {VENDI: 1.0, VENDI_RARE: 0.5, VENDI_COMMON: 2.0, VENDI_MODE: math.inf}
"""The Vendi metrics and their orders q."""
_CENTRE = 500  # human texts that are averaged, at most
_TOGETHER = 1000  # texts whose cosines are all computed at once, at most: 8 MB


def eigenvalues(kernels: FloatArray) -> FloatArray:
    """Return the eigenvalues of K / m for symmetric kernels K, [..., m, m] -> [..., m], ascending.

    What lies below the noise of floating point is set to 0, negative values among it.
    """
    m = kernels.shape[-1]
    values: FloatArray = np.linalg.eigvalsh(kernels / m)
    return np.where(values > m * np.finfo(float).eps * values[..., -1:], values, 0.0)


def hill_number(shares: FloatArray, q: float) -> FloatArray:
    """Return exp of the Rényi entropy of order ``q`` of shares along the last axis (Hill 1973).

    ``q`` = 1 is Shannon's entropy, infinity leaves the largest share alone.
    """
    found: FloatArray
    if q == math.inf:
        found = 1.0 / shares.max(axis=-1)
    elif q == 1:
        logs = np.log(np.where(shares > 0, shares, 1.0))
        found = np.exp(-(shares * logs).sum(axis=-1))
    else:
        found = np.power(np.power(shares, q).sum(axis=-1), 1.0 / (1.0 - q))
    return found


def vendi(kernel: FloatArray, q: float = 1.0) -> float:
    """Return the Vendi score of order ``q`` of a kernel [m, m] with ones on its diagonal: from 1 to m.

    Friedman and Dieng (2023); orders other than 1 by Pasarkar and Dieng (2024).
    """
    return float(hill_number(eigenvalues(kernel), q))


def mean_pairwise_distance(rows: Rows, centre: FloatArray | None = None) -> float:
    """Return the mean cosine distance of two different rows, of at least two, of length 1 or 0.

    It is 1 - (|sum of rows|**2 - sum of |row|**2) / (n (n - 1)), in linear time. ``centre`` is taken off
    every row before, and the rest scaled to length 1, without making sparse rows dense; a row that equals
    it counts as 0.
    """
    n = rows.shape[0]
    squares = _squares(rows)
    if centre is None:
        total, lengths = _sum(rows), squares.sum()
    else:
        squares = squares - 2.0 * (rows @ centre) + centre @ centre
        far = squares > 1e-9
        scale = np.where(far, 1.0 / np.sqrt(np.where(far, squares, 1.0)), 0.0)
        total, lengths = rows.T @ scale - scale.sum() * centre, far.sum()
    return float(1.0 - (total @ total - lengths) / (n * (n - 1)))


def distance_interval(rows: Rows) -> tuple[float, float] | None:
    """Return a 95 % interval of the mean pairwise distance over draws of texts: the jackknife, one text out.

    Arvesen (1969) for U-statistics, with Student's t. It is laid around the logarithm of the mean cosine,
    which is what texts that come again and again make skewed, unless that is smaller than its margin. None
    for fewer than three texts, and where all of them lie equally far from the others.
    """
    from scipy.special import stdtrit

    n = rows.shape[0]
    if n < 3:
        return None
    total, squares = _sum(rows), _squares(rows)
    likeness = float(total @ total - squares.sum())  # summed over ordered pairs
    without = (likeness - 2.0 * (rows @ total - squares)) / ((n - 1) * (n - 2))
    cosine = likeness / (n * (n - 1))
    margin = float(stdtrit(n - 1, 0.975) * np.sqrt((n - 1) * np.var(without)))
    if margin < 1e-12:
        return None
    if cosine > margin:
        factor = math.exp(margin / cosine)
        low, high = 1.0 - cosine * factor, 1.0 - cosine / factor
    else:
        low, high = 1.0 - cosine - margin, 1.0 - cosine + margin
    return (max(low, 0.0), min(high, 2.0))


class EmbeddingScorer:
    """Vendi scores and mean pairwise distance of the beginnings of texts, on all texts and on valid ones.

    The Vendi scores are means over seeded subsamples of one size, since they grow with the number of
    texts; their intervals come from these. The distance, which does not grow, is that of all texts.
    """

    human = True

    def __init__(self, embedding: Embedding, budgets: Budgets) -> None:
        self.name = f"embedding/{embedding.name}"
        self.signature = (
            f"{embedding.signature}|window:{budgets.window}|texts:{budgets.texts}"
            f"|subsamples:{budgets.subsamples}|dealt|intervals:delete-d,jackknife|version:1"
        )
        self._embedding = embedding
        self._budgets = budgets
        self._orders = {known.for_provider(embedding.name): q for known, q in ORDERS.items()}
        self._pairwise = PAIRWISE.for_provider(embedding.name)
        self._centre: tuple[ScoringContext, FloatArray | None] | None = None

    def score(self, sample: TextSample, place: ScoringContext) -> ScorerOutput:
        """Return the scores of the texts of one cell, and again of those that are valid."""
        whole = self._scores(sample.texts, place)
        valid = whole if sample.valid.all() else self._scores(sample.subset(sample.valid).texts, place)
        renamed = [score.model_copy(update={"metric": metric(score.metric).on_valid_texts.name}) for score in valid]
        return ScorerOutput(whole + renamed)

    def _scores(self, texts: Sequence[str], place: ScoringContext) -> list[Score]:
        rows = self._rows(texts, place)
        n, m = rows.shape[0], self._budgets.texts
        if n < m:
            note = f"only {n} texts with {self._budgets.window} characters, of {m} for the budget"
            return [
                measured.score(None, self.signature, note, detail={"texts": n})
                for measured in (*self._orders, self._pairwise)
            ]
        dealt = subsampling.draw_subsamples([1] * n, m, self._budgets.subsamples if n > m else 1, "embedding")
        shares = eigenvalues(self._kernels(rows, dealt))
        scores = []
        for measured, q in self._orders.items():
            values = hill_number(shares, q)
            interval = subsampling.interval(values.tolist(), m, n, dealt.decks, within=(1.0, m))
            value, detail = float(values.mean()), {"texts": n}
            scores.append(measured.score(value, self.signature, interval=interval, detail=detail))
        return [*scores, self._distance(rows, place)]

    def _rows(self, texts: Sequence[str], place: ScoringContext) -> Rows:
        """Return the rows of the texts that are long enough and hold something, in the texts' own order.

        Sorted, so that no result hangs on the order of a cell.
        """
        rows = self._embedding.embed(sorted(prefixes(texts, self._budgets.window)[0]), place)
        return rows[np.flatnonzero(_squares(rows))]

    def _kernels(self, rows: Rows, dealt: subsampling.Subsamples) -> FloatArray:
        """Return the matrix of cosines of every subsample, [subsamples, m, m]."""
        drawn = np.array([[i for i, _ in hand] for hand in dealt.subsamples])
        if rows.shape[0] > _TOGETHER:
            return np.stack([_cosines(rows[hand]) for hand in drawn])
        kernels: FloatArray = _cosines(rows)[drawn[:, :, None], drawn[:, None, :]]
        return kernels

    def _distance(self, rows: Rows, place: ScoringContext) -> Score:
        centre = self._human_centre(place)
        detail = {"texts": float(rows.shape[0])}
        if centre is not None:
            detail["centred"] = mean_pairwise_distance(rows, centre)
        interval = distance_interval(rows)
        return self._pairwise.score(mean_pairwise_distance(rows), self.signature, interval=interval, detail=detail)

    def _human_centre(self, place: ScoringContext) -> FloatArray | None:
        """Return the mean row of the place's human train text: what all its texts have in common."""
        if self._centre is None or self._centre[0] is not place:
            found = sorted(prefixes([text for text, _ in place.train], self._budgets.window)[0])
            if len(found) > _CENTRE:
                order = subsampling.generator("centre", len(found)).permutation(len(found))
                found = [found[i] for i in order[:_CENTRE]]
            rows = self._embedding.embed(found, place)
            self._centre = (place, _sum(rows) / len(found) if found else None)
        return self._centre[1]


def _cosines(rows: Rows) -> FloatArray:
    found = rows @ rows.T
    dense: FloatArray = found if isinstance(found, np.ndarray) else found.toarray()
    return dense


def _sum(rows: Rows) -> FloatArray:
    return np.asarray(rows.sum(axis=0), dtype=np.float64).ravel()


def _squares(rows: Rows) -> FloatArray:
    """Return the squared length of every row."""
    squares: Any = rows * rows if isinstance(rows, np.ndarray) else rows.multiply(rows)
    return np.asarray(squares.sum(axis=1), dtype=np.float64).ravel()
