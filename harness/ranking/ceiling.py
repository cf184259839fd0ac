"""Who is better training data than human text of the same number: too good to be what a model wrote."""

from __future__ import annotations

from harness.ranking.gains import FEW_SHOT, baselines, entry_means, gains
from harness.ranking.results import BASELINE, EntryRow, ResultSet
from harness.ranking.values import collect_metric
from harness.scoring.metrics import MACRO_F1, Metric

CEILING = "human"
ABOVE_HUMAN = 0.05
"""How far above human text the lower end of the 95 % interval of the difference must lie."""

TooGood = tuple[Metric, str, float, float]
"""The metric, the task, the mean of the entry there and that of human text."""


def above_human(cellset: ResultSet) -> dict[str, list[TooGood]]:
    """Return entry -> where its macro-F1 lies clearly above that of human text of the same number.

    By the paired difference over languages and seeds: the lower end of its interval is above
    ``ABOVE_HUMAN``, beside human text and beside zero-shot and few-shot of the entry's model: where these are
    as good, the model is that good, and no method is suspected for it. Without a row of human text nobody is.
    """
    human = [row.id for row in cellset.entries.values() if _is_human(row)]
    metrics = [m for m in cellset.metrics if m.name.partition("/")[0] == MACRO_F1.name]
    if len(human) != 1 or not metrics:
        return {}
    names = [name for name, row in cellset.entries.items() if not _unsteered(row) and name != human[0]]
    bases = [dict.fromkeys(names, human[0]), baselines(cellset, BASELINE), baselines(cellset, FEW_SHOT)]
    found: dict[str, list[TooGood]] = {}
    for metric in metrics:
        evidence = collect_metric(cellset, metric, resample=False)
        for task in dict.fromkeys(task for task, _ in evidence.task_languages):
            part = evidence.select(tasks=[task])
            means, over = entry_means(part), [gains(part, of) for of in bases]
            for name in names:
                known = [differences[name].low for differences in over if name in differences]
                if name in over[0] and all(low is not None and low > ABOVE_HUMAN for low in known):
                    place = (metric, task, means[name].mean, means[human[0]].mean)
                    found.setdefault(name, []).append(place)
    return found


def _is_human(row: EntryRow) -> bool:
    return row.entry.setting == "none" and row.entry.method.name == CEILING


def _unsteered(row: EntryRow) -> bool:
    return row.entry.model is not None and row.entry.method.name in {BASELINE, FEW_SHOT}
