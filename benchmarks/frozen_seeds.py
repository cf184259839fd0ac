"""Twenty classifier seeds on a frozen encoder: one exact fit against a loop over scikit-learn.

    python benchmarks/frozen_seeds.py [--model FOLDER --data DIR]

The loop shuffles the texts and fits ``StandardScaler`` and ``LogisticRegression`` for every seed, (1) from sentence
vectors that it is given, (3) reading the texts again, as a script per seed does. The optimum is unique, so that the
seeds agree to the solver's tolerance, which is checked: ours fits once for all. (2) tells what is left where seeds do
differ, twenty draws of texts with vectors given: one fit each on both sides, so no gain is claimed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import compare, options, report
from encoders import SHAPES, Cell, cell, encoder
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from harness.core.threads import limit_blas_threads
from harness.scoring.embeddings import Pooler
from harness.scoring.encoders import Encoder
from harness.scoring.linear_classifiers import FrozenClassifier

SEEDS = 20
_LOOSE = 5e-3  # scikit-learn's default tolerance leaves this much between seeds


def loop_over_seeds(pooler: Pooler, data: Cell, seeds: int, reread: bool = False) -> NDArray[np.float64]:
    """Return the probabilities [seeds, n test, labels] of scikit-learn, text shuffled by seed."""
    sides = [[text for text, _ in rows] for rows in (data.train, data.context.test)]
    train, test = map(pooler.embed, sides)
    found = []
    for seed in range(seeds):
        if reread:
            pooler._known.clear()
            train, test = map(pooler.embed, sides)
        order = np.random.default_rng(seed).permutation(len(train))
        width = train.shape[1]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / width, max_iter=1000))
        model.fit(train[order], [data.train[i][1] for i in order])
        found.append(model.predict_proba(test))
    return np.stack(found)


def main() -> None:
    """Print the ratios."""
    parser = options(__doc__)
    parser.add_argument("--model", help="folder of an encoder; default: random weights")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="devenc", help="of random weights")
    parser.add_argument("--data", help="folder with topic/LANGUAGE; default: that of the mini suite")
    parser.add_argument("--language", default="am")
    given = parser.parse_args()
    draws = [cell(given.data, given.language, seed) for seed in range(SEEDS)]
    data, context, seeds = draws[0], draws[0].context, list(range(SEEDS))
    with encoder(given.model, given.shape) as checkpoint, limit_blas_threads():
        ours, pooler = FrozenClassifier(Encoder(checkpoint), 512), Pooler(Encoder(checkpoint))

        def fit(data: Cell = data, seeds: list[int] = seeds) -> Any:
            return ours.probabilities(data.train, context, seeds)

        def read_and_fit() -> Any:
            ours._pooler()._known.clear()
            return fit()

        gap = float(np.abs(fit() - loop_over_seeds(pooler, data, SEEDS)).max())
        print(f"largest difference of a probability from scikit-learn's, over all seeds: {gap:.1e}")
        if gap > _LOOSE:
            raise SystemExit("the two sides do not give the same")
        name = Path(given.model or given.shape).name
        title = f"{SEEDS} seeds of a frozen encoder ({name}), against a loop over scikit-learn"
        sides: list[tuple[str, Callable[[], Any], Callable[[], Any], str]] = [
            (f"{title}, vectors given", fit, lambda: loop_over_seeds(pooler, data, SEEDS), ">= 5x"),
            (
                f"{SEEDS} draws of texts, one fit each on both sides, vectors given",
                lambda: [fit(draw, [0]) for draw in draws],
                lambda: [loop_over_seeds(pooler, draw, 1) for draw in draws],
                "",
            ),
            (
                f"{title}, texts read again",
                read_and_fit,
                lambda: loop_over_seeds(pooler, data, SEEDS, reread=True),
                ">= 5x",
            ),
        ]
        report([compare(name, fast, plain, given.repeats, same=False, bar=bar) for name, fast, plain, bar in sides])


if __name__ == "__main__":
    main()
