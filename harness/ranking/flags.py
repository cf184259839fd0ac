"""Flags: signs that an entry's texts are not what its scores suggest, such as copies, collapse, another language.

Every bound is stated in ``RULES``, which are checked against the mean over the cells of a task; signs of foreign text
also in every single language, where a mean would hide them. A flag hides no number, but flagged entries have no tier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.ranking.gains import FEW_SHOT, baselines, entry_means, gains
from harness.ranking.results import BASELINE, ResultSet
from harness.ranking.values import collect_metric
from harness.scoring.bounds import COPIED_BOUND, HIDDEN_BOUND, OVERLAP_BOUND, RECITED_BOUND, flagged, membership_bound
from harness.scoring.metrics import (
    COPIED,
    DEGENERATE,
    DISTINCT_1,
    HIDDEN,
    LANGUAGE_FIDELITY,
    LENGTH,
    MACRO_F1,
    MEMBERSHIP,
    NEAR_DUPLICATES,
    OVERLAP,
    VALID_SHARE,
    VENDI,
    WORD_ORDER,
    Metric,
    metric,
)

CEILING = "human"
"""The reference row of human text."""

ABOVE_HUMAN = 0.05
"""How far above human text the lower end of the 95 % interval of the difference must lie to be flagged."""

_ROUNDING = 1e-9  # of a mean that lies on its bound


class TaskMeans(NamedTuple):
    """Means of a metric over the cells of an entry and a task.

    ``human``: of human-written text of the same cells, None where a cell has none. ``baseline_rate``: the larger
    of zero-shot and few-shot of the same model, 0 where they are not known. ``texts``: number of texts that count,
    over all cells, 0 where the metric does not state it.
    """

    value: float
    human: float | None
    baseline_rate: float
    texts: float = 0.0


Case = tuple[tuple[str, ...], TaskMeans]
"""Metric, task and, for a single language, that, with their means."""

Bound = Callable[[TaskMeans], float | None]
"""What a value is compared with; None where that is not known."""


@dataclass(frozen=True)
class Rule:
    """A bound of one metric, with or without a suffix; ``why`` says what it means to break it.

    ``high``: whether values above or below the bound are flagged. ``references``: whether it applies to texts that
    no model wrote as well. ``single``: whether it applies to the mean over the seeds of a single language, too.
    """

    base: Metric
    high: bool
    bound: Bound
    why: str
    references: bool = True
    single: bool = False


@dataclass(frozen=True)
class Flag:
    """A broken rule: the metric, its value and the bound, and all in words; ``language``: empty for a whole task."""

    metric: Metric
    task: str
    value: float
    bound: float
    words: str
    language: str = ""


def _membership(case: TaskMeans) -> float | None:
    return membership_bound(case.texts)


def _fixed(value: float) -> Bound:
    return lambda case: value


def _of_human(factor: float = 1.0, plus: float = 0.0) -> Bound:
    return lambda case: None if case.human is None else factor * case.human + plus


def _baseline_relative(case: TaskMeans) -> float | None:
    """Return a bound above what the model recites under every method."""
    return case.baseline_rate + COPIED_BOUND


def _too_long(case: TaskMeans) -> float | None:
    """Return three times the length of human text, or half more than what the model writes unsteered."""
    return None if case.human is None else max(LONGER * case.human, 1.5 * case.baseline_rate)


def _recited(case: TaskMeans) -> float | None:
    """Return the bound of pieces of train text, above what the model recites unsteered; None if unknown."""
    return case.baseline_rate + RECITED_BOUND if case.baseline_rate else None


LONGER = 3.0
"""How many times longer than human text texts may be."""

COPIES = [
    Rule(COPIED.for_provider("test"), True, _fixed(COPIED_BOUND), "copies of test text"),
    Rule(COPIED.for_provider("validation"), True, _fixed(COPIED_BOUND), "copies of validation text"),
    *(
        Rule(COPIED.for_provider(corpus), True, _baseline_relative, f"copies of {words}", references=False)
        for corpus, words in (
            ("train", "train text"),
            ("demonstrations", "few-shot demonstrations"),
            ("vectors", "vector text"),
        )
    ),
]
"""Rules of copies; they hold in every language, too, by the number of copies there."""

RULES = [
    *COPIES,
    *(
        Rule(MEMBERSHIP.for_provider(split), True, _membership, f"made of {split} text: too near to it", single=True)
        for split in ("test", "validation")
    ),
    *(
        Rule(OVERLAP.for_provider(split), True, _of_human(plus=OVERLAP_BOUND), f"pieces of {split} text", single=True)
        for split in ("test", "validation")
    ),
    Rule(OVERLAP.for_provider("train"), True, _recited, "pieces of train text", references=False, single=True),
    Rule(HIDDEN, True, _of_human(plus=HIDDEN_BOUND), "hidden characters", single=True),
    Rule(LENGTH, True, _too_long, "much longer than human text", single=True),
    Rule(NEAR_DUPLICATES, True, _of_human(plus=0.2), "texts repeat one another"),
    Rule(VENDI, False, _of_human(0.5), "collapsed: less than half as varied as human text"),
    Rule(DISTINCT_1, False, _of_human(0.5), "collapsed: less than half as many words as human text"),
    Rule(DEGENERATE, True, _fixed(0.2), "degenerate texts"),
    Rule(VALID_SHARE, False, _fixed(0.5), "most texts are not valid"),
    Rule(LANGUAGE_FIDELITY, False, _of_human(0.5), "written in another language"),
    # Shuffled words have 0.5, human text 0.86 or more, tweets by the word order of encyclopaedic text 0.69.
    Rule(WORD_ORDER, False, _fixed(0.65), "words in random order"),
]
"""All rules; each is compared with the mean over the cells of an entry and a task."""


def human_row(results: ResultSet) -> str | None:
    """Return the id of the row of human text, None unless there is exactly one."""
    found = [
        name for name, row in results.entries.items() if (row.entry.setting, row.entry.method.name) == ("none", CEILING)
    ]
    return found[0] if len(found) == 1 else None


def is_floor(method: str, setting: str) -> bool:
    """Return whether an entry is the reference that repeats one text: that is its purpose."""
    return setting == "none" and method == "constant"


def flags(results: ResultSet) -> dict[str, list[Flag]]:
    """Return entry id -> its flags in the order of the rules; empty lists for entries without any."""
    unsteered = _unsteered_of_model(results)
    tasks, languages = _means(results, unsteered), _means(results, unsteered, ["language"])
    copies, too_good = _copies_by_language(results, unsteered), _better_than_human(results)
    found: dict[str, list[Flag]] = {}
    for name, row in sorted(results.entries.items()):
        rules = [rule for rule in RULES if rule.references or row.entry.setting != "none"]
        by_task, by_language = _by_base(tasks.get(name, {})), _by_base(languages.get(name, {}))
        of_tasks = [flag for rule in rules for flag in _broken(rule, by_task.get(rule.base.name, ()))]
        of_languages = [
            flag
            for rule in rules
            for flag in (
                copies.get((name, rule.base.name), [])
                if rule in COPIES
                else _broken(rule, by_language.get(rule.base.name, ()))
                if rule.single
                else []
            )
        ]
        known = {(flag.metric, flag.task) for flag in of_tasks}
        alone = [flag for flag in of_languages if (flag.metric, flag.task) not in known]
        found[name] = [*of_tasks, *alone, *too_good.get(name, [])]
    return found


def _unsteered_of_model(results: ResultSet) -> dict[str, list[str]]:
    """Return entry -> the unsteered entries of its model, which may include itself."""
    models = {name: row.entry.model for name, row in results.entries.items()}
    plain = [name for name, row in results.entries.items() if row.entry.method.name in {BASELINE, FEW_SHOT}]
    return {name: [base for base in plain if model and models[base] == model] for name, model in models.items()}


def _measured_by(name: str) -> set[str]:
    """Return the metrics that a name is of: itself, and the one that is measured with something; not on valid text."""
    return {name, name.partition("/")[0]}


def _by_base(cases: Mapping[tuple[str, ...], TaskMeans]) -> dict[str, list[Case]]:
    """Return metric -> its cases in order, for rules to find them by what they are measured by."""
    found: dict[str, list[Case]] = {}
    for case in sorted(cases.items()):
        for base in _measured_by(case[0][0]):
            found.setdefault(base, []).append(case)
    return found


def _means(
    results: ResultSet, unsteered: dict[str, list[str]], more: Sequence[str] = ()
) -> dict[str, dict[tuple[str, ...], TaskMeans]]:
    """Return entry -> (metric, task) -> means over its cells, of the metrics that rules are of.

    ``more``: a further column to group by, such as the language; then only ``single`` rules count.
    """
    rules = [rule for rule in RULES if rule.single or not more]
    bases = {rule.base.name for rule in rules}
    names = [m.name for m in results.metrics if _measured_by(m.name) & bases]
    known = results.scores[results.scores["metric"].isin(names)].dropna(subset=["value"])
    means = known.groupby(["entry", "metric", "task", *more], observed=True).agg(
        value=("value", "mean"),
        human=("human", "mean"),
        n=("value", "size"),
        n_human=("human", "count"),
        texts=("size", "sum"),
    )
    values = means["value"].to_dict()
    found: dict[str, dict[tuple[str, ...], TaskMeans]] = {}
    for (entry, *group), line in zip(means.index, means.itertuples(), strict=True):
        human = float(line.human) if line.n_human == line.n else None
        baseline = max((values.get((base, *group), 0.0) for base in unsteered.get(entry, ())), default=0.0)
        found.setdefault(entry, {})[tuple(group)] = TaskMeans(
            float(line.value), human, float(baseline), float(line.texts)
        )
    return found


def _broken(rule: Rule, cases: Sequence[Case]) -> Iterator[Flag]:
    """Yield flags of a rule; ``cases``: of its metric."""
    for (name, task, *codes), case in cases:
        bound = rule.bound(case)
        if bound is None or (case.value - bound if rule.high else bound - case.value) <= _ROUNDING:
            continue
        measured, side = metric(name), "above" if rule.high else "below"
        where = "/".join([task, *codes])
        words = f"{rule.why}: {measured.title} {case.value:.3g} in {where}, {side} {bound:.3g}"
        yield Flag(measured, task, case.value, bound, words, *codes)


def _copies_by_language(results: ResultSet, unsteered: dict[str, list[str]]) -> dict[tuple[str, str], list[Flag]]:
    """Return (entry, metric) -> flags of the tasks and languages in which it copies too much, all seeds together."""
    rules = {rule.base.name: rule for rule in COPIES}
    known = results.scores[results.scores["metric"].isin(list(rules))].dropna(subset=["value", "size"])
    known = known.assign(copies=known["value"] * known["size"])
    sums = known.groupby(["metric", "entry", "task", "language"], observed=True)[["copies", "size"]].sum().round()
    shares = (sums["copies"] / sums["size"].clip(lower=1)).to_dict()
    found: dict[tuple[str, str], list[Flag]] = {}
    many = sums[sums["copies"] > COPIED_BOUND * sums["size"]]  # of fewer no interval is above the bound
    for (name, entry, task, code), copies, texts in many.astype(int).itertuples(name=None):
        rule = rules[name]
        bases = unsteered.get(entry, []) if rule.bound is _baseline_relative else []
        baseline = max((shares.get((name, base, task, code), 0.0) for base in bases), default=0.0)
        if flagged(copies, texts, baseline):
            bound = baseline + COPIED_BOUND
            words = f"{rule.why}: {copies} of {texts} texts in {task}/{code}, above {bound:.3g} of them"
            found.setdefault((entry, name), []).append(Flag(rule.base, task, copies / texts, bound, words, code))
    return found


def _better_than_human(results: ResultSet) -> dict[str, list[Flag]]:
    """Return flags of entries whose macro-F1 is clearly above that of human text: too good to be a model's.

    By the paired difference over languages and seeds: the lower end of its interval is above ``ABOVE_HUMAN``,
    compared with human text and with zero-shot and few-shot of the entry's model: where these are as good, the
    model is that good, and no method is suspected. Without a row of human text there are no such flags.
    """
    human, rows = human_row(results), results.entries.items()
    metrics = [m for m in results.metrics if m.name.partition("/")[0] == MACRO_F1.name]
    if human is None or not metrics:
        return {}
    plain = [name for name, row in rows if row.entry.model and row.entry.method.name in {BASELINE, FEW_SHOT}]
    names = [name for name in results.entries if name not in {*plain, human}]
    bases = [dict.fromkeys(names, human), baselines(results, BASELINE), baselines(results, FEW_SHOT)]
    found: dict[str, list[Flag]] = {}
    for measured in metrics:
        array = collect_metric(results, measured, resample=False)
        for task in dict.fromkeys(task for task, _ in array.task_languages):
            part = array.select(tasks=[task])
            means, over = entry_means(part), [gains(part, base) for base in bases]
            for name in names:
                known = [differences[name].low for differences in over if name in differences]
                if name not in over[0] or not all(low is not None and low > ABOVE_HUMAN for low in known):
                    continue
                value, level = means[name].mean, means[human].mean
                words = (
                    f"better training data than human text: {measured.title} {value:.3g} in {task}, clearly more than "
                    f"{ABOVE_HUMAN} above {level:.3g}"
                )
                found.setdefault(name, []).append(Flag(measured, task, value, level + ABOVE_HUMAN, words))
    return found
