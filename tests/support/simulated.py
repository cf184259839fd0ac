"""Benchmarks made up with known truth: labels that classifiers predict, not normal numbers.

    python tests/support/simulated.py [--repeats 1000]

prints the coverage table of ``docs/statistics.md``: the 95 % intervals of ``harness.ranking.stats.estimates``
beside those of a nested percentile bootstrap of generation seeds, classifier seeds and test examples.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from harness.ranking.stats.resampling import Predictions, bootstrap_scores, draw_weights, inflate_variance
from harness.ranking.stats.sharing import LEVEL, sharing_p
from support.panels import CompleteValues, differences


@dataclass(frozen=True)
class Group:
    """Strata of one task. ``shared``: they hold translations of the same test examples."""

    labels: int
    examples: int
    strata: int = 1
    shared: bool = False


@dataclass(frozen=True)
class World:
    """What decides predictions: the label with the highest sum of all that follows.

    ``skill`` of every entry favours the right label; ``example``: difficulty, the same for all entries;
    ``method``: an entry's own leaning per example and label; ``seed``: a generation seed's to labels
    and its luck; ``both``: its leaning per example and label; ``training``: both of a classifier seed.
    ``common``: share of the variance from generation seeds (``seed``, and ``both`` where test examples are
    shared) that the strata of a group have in common, as if texts were written once and translated.
    """

    groups: tuple[Group, ...]
    skill: tuple[float, ...] = (1.0,) * 4
    seeds: int = 3
    trainings: int = 1
    draws: int = 100
    example: float = 1.0
    method: float = 0.5
    seed: float = 0.3
    both: float = 0.5
    training: float = 0.2
    common: float = 0.0

    @property
    def strata(self) -> int:
        return sum(group.strata for group in self.groups)


def predictions(
    world: World, group: Group, draw: np.random.Generator, skills: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return gold labels (strata, examples) and predictions (entry, stratum, seed, training, example).

    ``skills`` (entry, seed): in place of the world's, where they differ between seeds.
    """

    def normal(*shape: int) -> NDArray[np.float32]:
        return draw.standard_normal(shape, dtype=np.float32)

    def per_set(before: tuple[int, ...], after: tuple[int, ...]) -> NDArray[np.float32]:
        """Half of what moves an example of a shared set moves its translations alike."""
        own = normal(*before, strata, *after)
        return (own + normal(*before, 1, *after)) * np.float32(0.5**0.5) if group.shared else own

    def per_seed(*after: int, share: float = world.common) -> NDArray[np.float32]:
        """What a generation seed moves, in part alike in all strata: (entries, strata, seeds, ...)."""
        own = normal(entries, strata, g, *after)
        if not share:
            return own
        alike = normal(entries, 1, g, *after)
        return np.float32((1 - share) ** 0.5) * own + np.float32(share**0.5) * alike

    strata, n, k = group.strata, group.examples, group.labels
    entries, g, c = len(world.skill), world.seeds, world.trainings
    gold = draw.integers(k, size=(1 if group.shared else strata, n))
    gold = np.broadcast_to(gold, (strata, n))
    leaning = world.method * per_set((entries,), (n, k))[:, :, None, None]
    leaning = leaning + world.seed * per_seed(1, 1, k)
    leaning = leaning + world.both * per_seed(1, n, k, share=world.common if group.shared else 0.0)
    leaning = leaning + world.training * normal(entries, strata, g, c, 1, k)
    leaning += world.training * normal(entries, strata, g, c, n, k)
    given = np.array(world.skill)[:, None] if skills is None else skills
    favour = given.astype(np.float32)[:, None, :, None, None]
    favour = favour + world.seed * per_seed(1, 1)
    favour = favour - world.example * per_set((), (n,))[None, :, None, None]
    leaning += favour[..., None] * np.eye(k, dtype=np.float32)[gold][None, :, None, None]
    return gold, leaning.argmax(-1)


def measured(world: World, draw: np.random.Generator) -> Iterator[tuple[Group, NDArray[np.float32]]]:
    """Yield macro-F1 of strata: (entry, stratum, seed, training, 1 + draw), the test set itself first."""
    for group in world.groups:
        gold, predicted = predictions(world, group, draw)
        names = [str(label) for label in range(group.labels)]
        for s in [slice(None)] if group.shared else [slice(i, i + 1) for i in range(group.strata)]:
            digest = str(draw.integers(2**62))
            weights = draw_weights(digest, group.examples, world.draws)
            weights = np.concatenate([np.ones((1, group.examples), dtype=np.float32), weights])
            rows = predicted[:, s].reshape(-1, 1, group.examples)
            cells = [Predictions(digest, names, gold[s][0], row) for row in rows]
            found = bootstrap_scores("macro_f1", cells, weights)
            yield group, found.reshape(*predicted[:, s].shape[:-1], -1)


@dataclass(frozen=True)
class Experiment:
    """One made-up benchmark: its panel, and the draws (entry, stratum, seed, training, draw)."""

    panel: CompleteValues
    draws: NDArray[np.float32]


def experiment(world: World, draw: np.random.Generator) -> Experiment:
    """Return one benchmark in this world."""
    values, wide, plain = [], [], []
    for group, found in measured(world, draw):
        values.append(found[..., 0].mean(axis=3, dtype=np.float64))
        wide.append(inflate_variance(found[..., 1:].mean(axis=3), group.examples, group.labels))
        plain.append(found[..., 1:])
    fewest = min(group.examples for group in world.groups)
    panel = CompleteValues(np.concatenate(values, axis=1), np.concatenate(wide, axis=1), fewest)
    return Experiment(panel, np.concatenate(plain, axis=1))


def truth(world: World) -> NDArray[np.float64]:
    """Return every entry's mean over strata of the expected macro-F1 on endless test examples."""
    alike = replace(world, groups=(), seeds=20, trainings=1)
    total = [
        sum(expected(replace(alike, skill=(skill,)), group.labels) * group.strata for group in world.groups)
        for skill in world.skill
    ]
    return np.array(total) / world.strata


@functools.cache
def expected(world: World, labels: int, repeats: int = 60, examples: int = 1000) -> float:
    """Return the mean of an entry over 1,200 seeds, which are the same for every skill."""
    draw, found = np.random.default_rng(7), []
    for _ in range(repeats):
        gold, predicted = predictions(world, Group(labels, examples), draw)
        cells = [Predictions("", [""] * labels, gold[0], row[None]) for row in predicted.reshape(-1, examples)]
        found.append(bootstrap_scores("macro_f1", cells, np.ones((1, examples), dtype=np.float32)).mean())
    return float(np.mean(found))


def nested_bootstrap(
    draws: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64], draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of naive intervals: seeds, then trainings in them, then examples, percentiles."""
    _, strata, seeds, trainings, count = draws.shape
    pairs = draws[rows] - draws[columns]
    g = draw.integers(seeds, size=(strata, seeds, 1, count))
    c = draw.integers(trainings, size=(strata, seeds, trainings, count))
    s, b = np.arange(strata)[:, None, None, None], np.arange(count)
    means = pairs[:, s, g, c, b].mean(axis=(1, 2, 3))
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    return low, high


@dataclass(frozen=True)
class Coverage:
    """Percent of intervals that hold the truth, the error of that figure, and what variance was found.

    ``ratio``: mean estimated variance over the variance of the estimates. ``seconds``: of all repeats.
    """

    ours: float
    error: float
    naive: float
    ratio: float
    seconds: float


def others(world: World, draw: np.random.Generator, count: int = 3) -> NDArray[np.float64]:
    """Return metrics beside macro-F1 (entry, metric, stratum, seed): independent of it, seeds as shared."""
    parts = []
    for group in world.groups:
        shape = (len(world.skill), count, group.strata, world.seeds)
        own, alike = draw.standard_normal(shape), draw.standard_normal((*shape[:2], 1, world.seeds))
        parts.append((1 - world.common) ** 0.5 * own + world.common**0.5 * alike)
    return np.concatenate(parts, axis=2)


def clustered(panel: CompleteValues, world: World, draw: np.random.Generator) -> CompleteValues:
    """Return a panel that marks the entries whose strata are found to share seeds, by four metrics."""
    tasks = [str(i) for i, group in enumerate(world.groups) for _ in range(group.strata)]
    values = np.concatenate([panel.values[:, None], others(world, draw)], axis=1)
    return replace(panel, by_seed=np.array([sharing_p(own, tasks) <= LEVEL for own in values]))


def coverage(world: World, repeats: int, seed: int = 0, naive: bool = False, by_seed: bool = False) -> Coverage:
    """Return the coverage over all pairs of entries of ``repeats`` benchmarks.

    ``by_seed``: with entries marked that share seeds (``clustered``).
    """
    rows, columns = np.triu_indices(len(world.skill), k=1)
    same = len(set(world.skill)) == 1
    true = np.zeros(len(rows)) if same else np.subtract(*(truth(world)[side] for side in (rows, columns)))
    draw, started = np.random.default_rng(seed), time.perf_counter()
    hits, naive_hits, errors, variances = [], [], [], []
    for _ in range(repeats):
        made = experiment(world, draw)
        found = differences(clustered(made.panel, world, draw) if by_seed else made.panel)
        mean, se, df = (part[rows, columns] for part in (found.mean, found.se, found.df))
        hits.append(np.mean(np.abs(mean - true) <= stdtrit(df, 0.975) * se))
        errors.append(np.mean((mean - true) ** 2))
        variances.append(np.mean(se**2))
        if naive:
            low, high = nested_bootstrap(made.draws, rows, columns, draw)
            naive_hits.append(np.mean((low <= true) & (true <= high)))
    return Coverage(
        100 * float(np.mean(hits)),
        100 * float(np.std(hits)) / repeats**0.5,
        100 * float(np.mean(naive_hits)) if naive else float("nan"),
        float(np.mean(variances) / np.mean(errors)),
        time.perf_counter() - started,
    )


TOPIC, SENTIMENT = Group(7, 200), Group(2, 150)
LAYOUTS = {
    "1 stratum, 2 labels, 30 examples": (Group(2, 30),),
    "1 stratum, 7 labels, 30 examples": (Group(7, 30),),
    "1 stratum, 2 labels, 150 examples": (SENTIMENT,),
    "1 stratum, 7 labels, 200 examples": (TOPIC,),
    "2 strata, 30 examples": (Group(7, 30), Group(2, 30)),
    "2 strata, 200 and 150 examples": (TOPIC, SENTIMENT),
    "22 strata, 30 examples": (Group(7, 30, 11, True), Group(2, 30, 11)),
    "22 strata, 200 and 150 examples": (Group(7, 200, 11, True), Group(2, 150, 11)),
}
"""Eleven languages have the same topic examples, and sentiment examples of their own."""

KINDS: dict[str, dict[str, float]] = {
    "mixed": {},
    "seeds": {"seed": 0.8, "method": 0.1, "both": 0.2},
    "examples": {"seed": 0.03, "method": 1.2, "both": 0.1, "training": 0.05},
    "interaction": {"seed": 0.03, "method": 0.1, "both": 1.5},
}
"""What most of the variance comes from."""


def world(layout: str, kind: str = "mixed", **changes: object) -> World:
    """Return a world by name."""
    return replace(World(LAYOUTS[layout], **KINDS[kind]), **changes)  # type: ignore[arg-type]


def main() -> None:
    """Print the table of coverage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    print("| strata and test set | variance from | G | C | ours | ± | naive | variance ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for layout in LAYOUTS:
        for kind in KINDS:
            for g, c in ((3, 1), (3, 5), (5, 1)):
                times = repeats if LAYOUTS[layout][0].strata == 1 else repeats // 2
                found = coverage(world(layout, kind, seeds=g, trainings=c), times, naive=True)
                cells = [
                    f"{found.ours:.1f}",
                    f"{found.error:.1f}",
                    f"{found.naive:.1f}",
                    f"{found.ratio:.2f}",
                ]
                print("|", " | ".join([layout, kind, str(g), str(c), *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
