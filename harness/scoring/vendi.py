"""Semantic diversity of the texts of a cell in an embedding: Vendi scores and mean pairwise distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.core.records import Score
from harness.core.types import FloatArray
from harness.data.suite import Budgets
from harness.scoring.embeddings import Embedding, Vectors
from harness.scoring.metrics import PAIRWISE, VENDI, VENDI_COMMON, VENDI_MODE, VENDI_RARE
from harness.scoring.scorer import PerContext, ScorerOutput, ScoringContext, TextSample, scores_of_all_and_valid
from harness.scoring.subsampling import Subsamples, draw_subsamples, generator
from harness.scoring.text import prefixes

ORDERS = {VENDI: 1.0, VENDI_RARE: 0.5, VENDI_COMMON: 2.0, VENDI_MODE: math.inf}
"""The Vendi metrics and their orders q."""
_CENTRE = 500  # human texts that are averaged, at most
_TOGETHER = 1000  # texts whose cosines are all computed at once, at most: 8 MB


def eigenvalues(kernels: FloatArray) -> FloatArray:
    """Return the eigenvalues of K / m for symmetric kernels K, [..., m, m] -> [..., m], ascending.

    Values below floating-point noise, negative ones among them, are set to 0.
    """
    m = kernels.shape[-1]
    values: FloatArray = np.linalg.eigvalsh(kernels / m)
    return np.where(values > m * np.finfo(float).eps * values[..., -1:], values, 0.0)


def hill_number(shares: FloatArray, q: float) -> FloatArray:
    """Return exp of the Rényi entropy of order ``q`` of shares along the last axis (Hill 1973).

    ``q`` = 1 is Shannon entropy, at infinity only the largest share counts.
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


def mean_pairwise_distance(rows: Vectors, centre: FloatArray | None = None) -> float:
    """Return the mean cosine distance of two different rows, of at least two, of length 1 or 0.

    It is 1 - (|sum of rows|**2 - sum of |row|**2) / (n (n - 1)), in linear time. ``centre`` is subtracted from every
    row first and the rest scaled to length 1, without making sparse rows dense; a row that equals it counts as 0.
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


def distance_interval(rows: Vectors) -> tuple[float, float] | None:
    """Return a 95 % leave-one-out jackknife interval of the mean pairwise distance over draws of texts.

    Arvesen (1969) for U-statistics, with Student's t, on the log of the mean cosine, whose distribution repeated texts
    skew, unless the cosine is smaller than its margin. None for fewer than three texts, or where all of them are
    equally far from the others.
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
    """Vendi scores and mean pairwise distance of the first characters of texts, of all texts and of the valid ones.

    Vendi scores grow with the number of texts: they are means over seeded subsamples of one size, from which their
    intervals come. The distance does not grow and uses all texts.
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
        self._centre = PerContext(self._human_centre)

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return the scores of the texts of one cell, and again of those that are valid."""
        return ScorerOutput(scores_of_all_and_valid(sample, lambda texts: self._scores(texts, context)))

    def _scores(self, texts: Sequence[str], context: ScoringContext) -> list[Score]:
        rows = self._rows(texts, context)
        n, m = rows.shape[0], self._budgets.texts
        if n < m:
            note = f"only {n} texts with {self._budgets.window} characters, of {m} for the budget"
            metrics = (*self._orders, self._pairwise)
            return [metric.score(None, self.signature, note, detail={"texts": n}) for metric in metrics]
        drawn = draw_subsamples([1] * n, m, self._budgets.subsamples if n > m else 1, "embedding")
        shares = eigenvalues(_kernels(rows, drawn))
        scores = []
        for metric, q in self._orders.items():
            values, detail = hill_number(shares, q), {"texts": n}
            interval = drawn.interval(values.tolist(), n, most=m, least=1.0)
            scores.append(metric.score(float(values.mean()), self.signature, interval=interval, detail=detail))
        distance = {"texts": float(n)}
        centre = self._centre(context)
        if centre is not None:
            distance["centred"] = mean_pairwise_distance(rows, centre)
        value, interval = mean_pairwise_distance(rows), distance_interval(rows)
        return [*scores, self._pairwise.score(value, self.signature, interval=interval, detail=distance)]

    def _rows(self, texts: Sequence[str], context: ScoringContext) -> Vectors:
        """Return the rows of the texts that are long enough and not blank."""
        # Sorted, so that no result depends on the order of a cell.
        rows = self._embedding.embed(sorted(prefixes(texts, self._budgets.window)[0]), context)
        return rows[np.flatnonzero(_squares(rows))]

    def _human_centre(self, context: ScoringContext) -> FloatArray | None:
        """Return the mean row of the human train text: what all texts of the task and language have in common."""
        found = sorted(prefixes([text for text, _ in context.train], self._budgets.window)[0])
        if len(found) > _CENTRE:
            found = [found[i] for i in generator("centre", len(found)).permutation(len(found))[:_CENTRE]]
        rows = self._embedding.embed(found, context)
        return _sum(rows) / len(found) if found else None


def _kernels(rows: Vectors, drawn: Subsamples) -> FloatArray:
    """Return the matrix of cosines of every subsample, [subsamples, m, m]."""
    chosen = np.array([[i for i, _ in part] for part in drawn.subsamples])
    if rows.shape[0] > _TOGETHER:
        return np.stack([_cosines(rows[part]) for part in chosen])
    kernels: FloatArray = _cosines(rows)[chosen[:, :, None], chosen[:, None, :]]
    return kernels


def _cosines(rows: Vectors) -> FloatArray:
    found = rows @ rows.T
    dense: FloatArray = found if isinstance(found, np.ndarray) else found.toarray()
    return dense


def _sum(rows: Vectors) -> FloatArray:
    return np.asarray(rows.sum(axis=0), dtype=np.float64).ravel()


def _squares(rows: Vectors) -> FloatArray:
    """Return the squared length of every row."""
    squares: Any = rows * rows if isinstance(rows, np.ndarray) else rows.multiply(rows)
    return np.asarray(squares.sum(axis=1), dtype=np.float64).ravel()
