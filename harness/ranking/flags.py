"""Entries whose texts are not what their scores suggest: copies, collapse, another language.

Every bound is stated in ``RULES``, which look at the mean over the cells of a task; signs of foreign text are
looked for in every single language as well, where a mean would hide them. A flag hides no number, but who
carries one has no tier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.ranking.ceiling import ABOVE_HUMAN, above_human
from harness.ranking.gains import FEW_SHOT
from harness.ranking.results import BASELINE, ResultSet
from harness.scoring.bounds import (
    COPIED_BOUND,
    HIDDEN_BOUND,
    OVERLAP_BOUND,
    RECITED_BOUND,
    flagged,
    membership_bound,
)
from harness.scoring.metrics import (
    COPIED,
    DEGENERATE,
    DISTINCT_1,
    HIDDEN,
    LANGUAGE_FIDELITY,
    LENGTH,
    MEMBERSHIP,
    NEAR_DUPLICATES,
    OVERLAP,
    VALID_SHARE,
    VENDI,
    WORD_ORDER,
    Metric,
    metric,
)


@dataclass(frozen=True)
class TaskMeans:
    """Means of a metric over the cells of an entry and a task: of its texts and of human text beside.

    ``human`` is None where a cell has none;
    ``usual``: the most that zero-shot and few-shot of the same model have, 0 where they are not known;
    ``texts``: how many texts count, over all cells, 0 where the metric does not say.
    """

    value: float
    human: float | None
    usual: float
    texts: float = 0.0


_ROUNDING = 1e-9  # of a mean that lies on its bound

Bound = Callable[[TaskMeans], float | None]
"""What a value is held against; None where that is not known."""


@dataclass(frozen=True)
class Rule:
    """A bound of one metric, with or without a suffix. ``high``: what lies above is flagged, else what lies
    below. ``why`` says what that means. ``references``: whether texts of no model are held to it as well.
    ``single``: whether the mean over the seeds of a single language is looked at, too."""

    base: Metric
    high: bool
    bound: Bound
    why: str
    references: bool = True
    single: bool = False


@dataclass(frozen=True)
class Flag:
    """What is wrong with an entry: the metric, its value and the bound that it breaks, and all in words."""

    metric: Metric
    task: str
    value: float
    bound: float
    words: str


def _fixed(value: float) -> Bound:
    return lambda case: value


def _of_human(factor: float = 1.0, plus: float = 0.0) -> Bound:
    return lambda case: None if case.human is None else factor * case.human + plus


def _baseline_relative(case: TaskMeans) -> float | None:
    """Return what a model that recites text does under every method, and the bound beyond it."""
    return case.usual + COPIED_BOUND


def _too_long(case: TaskMeans) -> float | None:
    """Return three times the length of human text, or half more than what the model writes unsteered."""
    return None if case.human is None else max(LONGER * case.human, 1.5 * case.usual)


def _recited(case: TaskMeans) -> float | None:
    """Return the bound of pieces of train text: beyond what the model recites unsteered; None if unknown."""
    return case.usual + RECITED_BOUND if case.usual else None


def _nearer(case: TaskMeans) -> float | None:
    return membership_bound(case.texts)


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
        Rule(MEMBERSHIP.for_provider(split), True, _nearer, f"made of {split} text: too near to it", single=True)
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
"""All rules, held against the mean over the cells of an entry and a task."""


def is_floor(method: str, setting: str) -> bool:
    """Say whether an entry is the reference that repeats one text: that is what it is for."""
    return setting == "none" and method == "constant"


def flags(cellset: ResultSet) -> dict[str, list[Flag]]:
    """Return entry id -> what is wrong with it, in the order of the rules; empty lists where nothing is."""
    cases, single, copies = _cases(cellset), _cases(cellset, ["language"]), _Languages(cellset)
    better = above_human(cellset)
    found: dict[str, list[Flag]] = {}
    for name, row in sorted(cellset.entries.items()):
        rules = [rule for rule in RULES if rule.references or row.entry.setting != "none"]
        own, by_language = sorted(cases.get(name, {}).items()), sorted(single.get(name, {}).items())
        of_tasks = [flag for rule in rules for flag in _broken(rule, own)]
        known = {(flag.metric, flag.task) for flag in of_tasks}
        of_languages = [
            flag
            for rule in rules
            for flag in (
                copies.broken(rule, name) if rule in COPIES else _broken(rule, by_language) if rule.single else ()
            )
        ]
        found[name] = [
            *of_tasks,
            *(flag for flag in of_languages if (flag.metric, flag.task) not in known),
            *(_too_good(*case) for case in better.get(name, ())),
        ]
    return found


def _broken(rule: Rule, cases: Sequence[tuple[tuple[str, ...], TaskMeans]]) -> Iterator[Flag]:
    """Yield what breaks a rule; ``cases``: by metric, task and, for a single one, language."""
    for (name, task, *codes), case in cases:
        bound = rule.bound(case) if _falls_under(name, rule.base) else None
        if bound is None or (case.value - bound if rule.high else bound - case.value) <= _ROUNDING:
            continue
        measured = metric(name)
        side = "above" if rule.high else "below"
        where = "/".join([task, *codes])
        words = f"{rule.why}: {measured.title} {case.value:.3g} in {where}, {side} {bound:.3g}"
        yield Flag(measured, task, case.value, bound, words)


def _too_good(measured: Metric, task: str, value: float, human: float) -> Flag:
    words = (
        f"better training data than human text: {measured.title} {value:.3g} in {task}, clearly more than "
        f"{ABOVE_HUMAN} above {human:.3g}"
    )
    return Flag(measured, task, value, human + ABOVE_HUMAN, words)


class _Languages:
    """Copies by entry, task and language, all seeds together."""

    def __init__(self, cellset: ResultSet) -> None:
        names = [rule.base.name for rule in COPIES]
        known = cellset.scores[cellset.scores["metric"].isin(names)].dropna(subset=["value", "size"])
        known = known.assign(copies=known["value"].astype(float) * known["size"].astype(float))
        sums = known.groupby(["metric", "entry", "task", "language"], observed=True)[["copies", "size"]].sum()
        self._counts: dict[tuple[str, str], dict[tuple[str, str], tuple[int, int]]] = {}
        columns = (sums.index, sums["copies"].tolist(), sums["size"].tolist())
        for (metric_name, entry, task, code), copies, size in zip(*columns, strict=True):
            places = self._counts.setdefault((metric_name, entry), {})
            places[task, code] = round(copies), round(size)
        self._baselines = _baselines(cellset)

    def broken(self, rule: Rule, entry: str) -> Iterator[Flag]:
        """Yield a flag for every task and language in which an entry copies too much."""
        bases = self._baselines.get(entry, []) if rule.bound is _baseline_relative else []
        for (task, code), (copies, texts) in self._counts.get((rule.base.name, entry), {}).items():
            if copies <= COPIED_BOUND * texts:  # then no interval is above the bound: quick, for there are many
                continue
            shares = [self._share(rule.base.name, base, (task, code)) for base in bases]
            usual = max(shares, default=0.0)
            if flagged(copies, texts, usual):
                bound = usual + COPIED_BOUND
                words = f"{rule.why}: {copies} of {texts} texts in {task}/{code}, above {bound:.3g} of them"
                yield Flag(rule.base, task, copies / texts, bound, words)

    def _share(self, metric_name: str, entry: str, place: tuple[str, str]) -> float:
        copies, texts = self._counts.get((metric_name, entry), {}).get(place, (0, 1))
        return copies / max(texts, 1)


def _falls_under(name: str, base: Metric) -> bool:
    """Say whether a name is that of a metric, alone or as measured with something: not on valid text."""
    return name == base.name or name.partition("/")[0] == base.name


def _cases(cellset: ResultSet, more: Sequence[str] = ()) -> dict[str, dict[tuple[str, ...], TaskMeans]]:
    """Return entry -> (metric, task) -> means over its cells, of the metrics that rules look at.

    ``more``: a further column that tells cases apart, such as the language; then only ``single`` rules count.
    """
    rules = [rule for rule in RULES if rule.single or not more]
    names = [m.name for m in cellset.metrics if any(_falls_under(m.name, rule.base) for rule in rules)]
    known = cellset.scores[cellset.scores["metric"].isin(names)].dropna(subset=["value"])
    columns = ["entry", "metric", "task", *more]
    groups = known.astype({"value": float}).groupby(columns, observed=True)
    means = groups.agg(
        value=("value", "mean"),
        human=("human", "mean"),
        n=("value", "size"),
        beside=("human", "count"),
        texts=("size", "sum"),
    )
    values = means["value"].to_dict()
    bases = _baselines(cellset)
    found: dict[str, dict[tuple[str, ...], TaskMeans]] = {}
    for (entry, *place), line in zip(means.index, means.itertuples(), strict=True):
        human = float(line.human) if line.beside == line.n else None
        usual = max((values.get((base, *place), 0.0) for base in bases.get(entry, ())), default=0.0)
        case = TaskMeans(float(line.value), human, float(usual), float(line.texts))
        found.setdefault(entry, {})[tuple(place)] = case
    return found


def _baselines(cellset: ResultSet) -> dict[str, list[str]]:
    """Return entry -> the unsteered entries of its model, itself among them if it is one."""
    models = {name: row.entry.model for name, row in cellset.entries.items()}
    plain = [name for name, row in cellset.entries.items() if row.entry.method.name in {BASELINE, FEW_SHOT}]
    return {name: [base for base in plain if model and models[base] == model] for name, model in models.items()}
