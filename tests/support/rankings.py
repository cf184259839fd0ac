"""Rankings of invented scores: entries, fields of entries, and rows by name."""

from __future__ import annotations

from harness.ranking.leaderboard_rows import RankedEntry, Ranking, rank_entries
from harness.scoring.metrics import (
    VENDI,
)
from support.toyruns import (
    F1,
    ToyEntry,
    collect_results,
    selection,
    toy,
    write_run,
)

AM = selection(["am"])
BOTH = selection(["am", "he"])
VENDI_TFIDF = VENDI.for_provider("tfidf")


def by_seed(chosen, **languages):
    """Return values per seed and language for the only task."""
    task = chosen.tasks[0]
    return {
        (task, code, seed): value
        for code, values in languages.items()
        for seed, value in zip(chosen.seeds, values, strict=True)
    }


def scored(name: str, values, metric=F1, **config) -> ToyEntry:
    entry = toy(name, **config)
    entry.scores[metric] = values
    return entry


def field_of(tmp_path, chosen, *entries, **options) -> Ranking:
    return rank_entries(collect_results(write_run(tmp_path / "run", entries, chosen, **options)), F1)


def rows(found: Ranking) -> dict[str, RankedEntry]:
    return {row.row.name: row for row in found.rows}


ZERO = by_seed(AM, am=(0.4, 0.5, 0.6))
STEERED = by_seed(AM, am=(0.5, 0.65, 0.65))  # gains 0.10, 0.15, 0.05
T_2 = 4.302653  # 97.5 % quantile of Student's t with 2 degrees of freedom
