"""How often intervals and tiers are wrong where seeds are shared by strata, and how tiers may be corrected.

    python benchmarks/intervals.py shared [--repeats 200] [--seeds 3 5 9] [--kinds mixed seeds]
    python benchmarks/intervals.py tiers [--repeats 600] [--entries 12]

The benchmarks are made up with known truth (``tests/support/simulated.py``). Tables: ``docs/statistics.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.panels import CompleteValues, differences
from support.simulated import Group, World, experiment, others, world

from harness.ranking.gains import LEVEL
from harness.ranking.gate.difference import critical
from harness.ranking.stats.estimates import POWER, to_square
from harness.ranking.stats.multiplicity import holm, of_pairs, range_p
from harness.ranking.stats.ranks import tiers
from harness.ranking.stats.sharing import LEVEL as FOUND
from harness.ranking.stats.sharing import sharing_p
from harness.ranking.stats.variance import Contrasts, Moments

Floats = NDArray[np.float64]

SHARES = {"independent": 0.0, "a quarter": 0.25, "half": 0.5, "all": 1.0}
"""Of the variance between seeds: how much the languages of a task have in common."""


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", choices=["shared", "tiers"])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 9])
    parser.add_argument("--kinds", nargs="+", default=["mixed", "seeds"], help="as in simulated.KINDS")
    parser.add_argument("--entries", type=int, default=12)
    given = parser.parse_args()
    if given.table == "shared":
        print_shared(given.repeats, given.kinds, given.seeds, given.entries)
    else:
        print_tiers(given.repeats, given.entries)


def print_shared(repeats: int, kinds: Sequence[str], seeds: Sequence[int], entries: int) -> None:
    """Print coverage, width and false tiers of identical entries, as shared as seeds may be."""
    print("| variance from | seeds | shared | intervals | found | coverage | width | false tiers |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in kinds:
        for count in seeds:
            for words, common in SHARES.items():
                made = world("22 strata, 30 examples", kind, skill=(1.0,) * entries, seeds=count)
                _print_case(replace(made, common=common), f"| {kind} | {count} | {words}", repeats)


def _print_case(made: World, head: str, repeats: int) -> None:
    draw, tasks = np.random.default_rng(5), ["a"] * 11 + ["b"] * 11
    rows, columns = np.triu_indices(len(made.skill), 1)
    ways: dict[str, Callable[[Floats], Floats]] = {
        "by stratum, Holm": lambda values: np.ones(len(values)),
        "tested by macro-F1": lambda values: np.array([sharing_p(each[:1], tasks) for each in values]),
        "tested by 4 metrics": lambda values: np.array([sharing_p(each, tasks) for each in values]),
        "always by seed": lambda values: np.zeros(len(values)),
    }
    lines: dict[str, list[tuple[float, float, float, float]]] = {way: [] for way in ways}
    for _ in range(repeats):
        panel = experiment(made, draw).panel
        values = np.concatenate([panel.values[:, None], others(made, draw)], axis=1)
        plain = _half(panel)
        for way, test in ways.items():
            marked = replace(panel, by_seed=test(values) <= FOUND)
            found, half = differences(marked), _half(marked)
            hits = np.mean(np.abs(found.mean[rows, columns]) <= half)
            p = _holm(found.p) if way == "by stratum, Holm" else of_pairs(found.p)
            false = max(tiers(panel.values.mean(axis=(1, 2)), p)) > 1
            lines[way].append((np.mean(marked.by_seed), hits, np.mean(half / plain), false))
    for way, line in lines.items():
        share, hits, width, false = np.mean(line, axis=0)
        figures = f"{100 * share:.0f} % | {100 * hits:.1f} % | {width:.2f} | {100 * false:.1f} %"
        print(f"{head} | {way} | {figures} |", flush=True)


def _half(panel: CompleteValues) -> Floats:
    return panel.moments(Contrasts.pairs(np.arange(len(panel.values)))).ci_half_width


def print_tiers(repeats: int, entries: int) -> None:
    """Print for ways to correct tiers how often identical entries are told apart, and what gain is found."""
    layouts = {
        "22 strata": (Group(3, 40, 11, True), Group(2, 30, 11)),
        "2 strata": (Group(3, 40), Group(2, 30)),
        "1 stratum": (Group(2, 100),),
    }
    levels = _levels(entries)
    print("| strata, entries | correction | false tiers | detectable gain |\n|---|---|---|---|")
    for name, groups in layouts.items():
        made = World(groups, skill=(1.0,) * entries, draws=60)
        draw = np.random.default_rng(3)
        false: dict[str, list[bool]] = {way: [] for way in levels}
        gains: dict[str, list[float]] = {way: [] for way in levels}
        for repeat in range(repeats):
            panel = experiment(made, draw).panel
            means, p = panel.values.mean(axis=(1, 2)), differences(panel).p
            best = int(means.argmax())
            beside = np.delete(p[best], best)
            false["Holm, all pairs"].append(max(tiers(means, _holm(p))) > 1)
            false["range and Holm"].append(max(tiers(means, of_pairs(p))) > 1)
            false["Holm, best with the others"].append(bool(holm(beside).min() <= LEVEL))
            false["Gupta's subset"].append(bool(beside.min() <= levels["Gupta's subset"]))
            found = _one(panel.moments(Contrasts.pairs(np.arange(entries))), repeat)
            for way, level in levels.items():
                gains[way].append(float((critical(found, level) + found.quantile(POWER)[0]) * found.se[0]))
        for way in levels:
            change = 100 * (np.mean(gains[way]) / np.mean(gains["Holm, all pairs"]) - 1)
            figures = f"{100 * np.mean(false[way]):.1f} % | {np.mean(gains[way]):.3f} ({change:+.0f} %)"
            print(f"| {name}, {entries} | {way} | {figures} |", flush=True)


def _levels(entries: int) -> dict[str, float]:
    """Return the p-value that the first difference from the best needs."""
    grid = np.geomspace(1e-6, LEVEL, 5000)
    normal = np.random.default_rng(0).standard_normal((200_000, entries))
    from scipy.special import ndtr

    one_sided = np.quantile((normal[:, 1:] - normal[:, :1]).max(axis=1) / 2**0.5, 1 - LEVEL)
    return {
        "Holm, all pairs": 2 * LEVEL / (entries * (entries - 1)),
        "range and Holm": float(np.interp(LEVEL, range_p(grid, entries), grid)),
        "Holm, best with the others": LEVEL / (entries - 1),
        "Gupta's subset": float(2 * ndtr(-one_sided)),
    }


def _holm(p: Floats) -> Floats:
    return to_square(holm(p[np.triu_indices(len(p), 1)]), len(p), 1.0)


def _one(found: Moments, repeat: int) -> Moments:
    """Return the moments of one pair, of every repeat another."""
    i = slice(repeat % len(found.mean), repeat % len(found.mean) + 1)
    parts = (found.mean[i], found.seeds[i], found.seeds_df[i], found.examples[i], found.examples_df)
    return Moments(found.shape, *parts)


if __name__ == "__main__":
    main()
