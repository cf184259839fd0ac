"""Choose the config of methods on validation text: the sweep, the rule, the file of the choice, and its use by runs.

A sweep is a separate run, of a suite derived from the one to be run: scored on the validation split, with a
generation seed that no score uses. It resumes, skips and records as any run does.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.core.cells import Cell
from harness.core.errors import MachineError, UserError
from harness.core.files import canonical_json
from harness.core.records import CellStatus, DoseScores, GridPoint, Tuned, TunedMethod, fit_of, sum_or_none
from harness.data.suite import MethodSpec, Suite
from harness.methods.contract import Reference, SteeringMethod
from harness.methods.controls import Control
from harness.methods.registry import Registry, named_options, pick_methods, search_space
from harness.runner.plan import select_cells
from harness.scoring.lexical import distinct
from harness.scoring.metrics import LABEL_FIDELITY, LANGUAGE_FIDELITY, VALID_SHARE, macro_f1
from harness.scoring.text import words

if TYPE_CHECKING:
    from harness.runner.prepare import RunPlan

CLASSIFIER = "tfidf"
GATE = 0.9
RULE = (
    f"highest mean macro-F1 ({CLASSIFIER}) on the validation split among configurations whose valid share "
    f"is at least {GATE} x that of the unsteered texts; one configuration per method, over all its cells"
)
BY_LANGUAGE = "; then, for the options that allow it, one value per language, over the method's cells there"
_UNSTEERED = ("zero-shot", "few-shot")  # methods, each named as the setting that it runs in
_ROUNDING = 1e-9  # 0.9 x 0.1 is a little more than 0.09 in floating point


def tuning_suite(
    suite: Suite, registry: Registry, names: list[str] | None, overrides: Mapping[str, Sequence[Any]]
) -> Suite:
    """Return the suite of the sweep: the methods' grids, validation text, an unused seed.

    ``names``: the methods to tune, by default all of the suite that name a grid. What the suite gives a
    method stays: a list is its sweep, a single value is fixed. ``overrides`` replaces the values of a grid's
    field. Raises ``UserError`` for a method without a grid, for a field of no grid, and where none is left.
    """
    specs = suite.methods if names is None else pick_methods(suite.methods, names)
    sweeps: list[MethodSpec] = []
    used: set[str] = set()
    for name, given in named_options(specs):
        cls = registry.get(name)
        grid = {} if issubclass(cls, Reference | Control) else search_space(cls)  # controls follow their method
        sweep = _sweep(grid, given, overrides)
        if sweep:
            sweeps.append({name: sweep})
            used |= grid.keys()
        elif names is not None:
            why = "the suite fixes every field of its grid" if grid else "it names no grid of values"
            hint = "" if grid else ' A method names it in its class: search_space = {"strength": [0.1, 0.2]}.'
            raise UserError(f"method {name!r}: {why}, so there is nothing to tune.{hint}")
    if not sweeps:
        raise UserError("none of the suite's methods names a grid, so there is nothing to tune. Give --methods.")
    for field in overrides.keys() - used:
        raise UserError(f"none of the methods to tune has {field!r} in its grid. Leave out --{field}s.")
    seed = next(s for s in range(len(suite.seeds) + 1) if s not in suite.seeds)
    changes = {
        "name": f"{suite.name}-tuning",
        "methods": [*_UNSTEERED, *sweeps],
        "seeds": [seed],
        "classifiers": [CLASSIFIER],
        "scored_split": "validation",
    }
    return suite.model_copy(update=changes)


def _sweep(
    grid: Mapping[str, list[Any]], given: Mapping[str, Any], overrides: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """Return a method's options with the values to try, the grid's last; empty where none is left open."""
    if not any(field in overrides or isinstance(given.get(field, []), list) for field in grid):
        return {}
    fixed = {field: value for field, value in given.items() if field not in grid}
    unique = {field: list({repr(v): v for v in values}.values()) for field, values in overrides.items()}  # 0 is not 0.0
    return {**fixed, **{field: unique.get(field, given.get(field, grid[field])) for field in grid}}


def evaluate_grid(plan: RunPlan, base: Suite, by_language: bool = False) -> Tuned:
    """Return the grid of results and the choice from the finished cells of a sweep; ``base`` is the run's suite.

    ``by_language``: choose the options of which a method's Config says so in every language by itself.

    Raises ``UserError`` where the unsteered cells, which everything is compared with, are missing, and where no method
    has a cell; ``MachineError`` where the machine failed in a cell: a choice among what is left would be an accident.
    """
    statuses = [plan.run.status(cell.id) for cell in plan.cells]
    failed = [status.reason for status in statuses if status is not None and status.state == "infra_error"]
    if failed:
        raise MachineError(
            f"the machine failed in {len(failed)} cells of the sweep ({failed[0]:.200}), so nothing "
            "is chosen. Run the same command again, finished cells are kept; or leave out what does not fit, "
            "with --methods, --layers or --strengths."
        )
    cells = _SweepCells(plan)
    swept = dict.fromkeys(name for spec in plan.suite.methods if not isinstance(spec, str) for name in spec)
    methods: dict[str, TunedMethod] = {}
    surface: list[GridPoint] = []
    for name in swept:
        configs = cells.by_config.get(name)
        if not configs:  # it runs in other settings
            continue
        method = next(m for m in plan.methods.values() if m.name == name)
        fields = _fields(method, list(configs))
        points = [cells.point(name, config, fields) for config in configs]
        best = select_best(points)
        options = best.options if best else None
        points = [p.model_copy(update={"chosen": p is best}) for p in points]
        if by_language:
            options, points = cells.choose_by_language(points, options, method.config.by_language)
        surface += points
        methods[name] = TunedMethod(
            version=method.version,
            options=options,
            configurations=len(points),
            texts=sum(p.texts for p in points),
            tokens=sum_or_none(p.tokens for p in points),
            seconds=round(sum(p.seconds for p in points), 3),
            fit=fit_of(s for group in configs.values() for cell in group if (s := cells.finished(cell))),
        )
    if not surface:
        raise UserError("nothing was tried: none of the methods to tune has one of the settings.")
    assert plan.model is not None
    keys = [cell.key for cell in plan.cells]
    return Tuned(
        suite=base.name,
        suite_hash=base.hash,
        model=plan.model,
        data_hashes={f"{key.task}/{key.language}": key.data for key in keys},
        selection=select_cells(  # of these cells: the sweep's folder may hold more, of earlier commands
            plan.suite,
            [key.language for key in keys],
            [key.task for key in keys],
            [key.setting for key in keys],
            limit=max(key.texts_per_label for key in keys),
        ),
        rule=RULE + (BY_LANGUAGE if by_language else ""),
        methods=methods,
        surface=surface,
    )


def select_best(points: Iterable[GridPoint]) -> GridPoint | None:
    """Return the eligible point with the highest macro-F1; of equals the one listed first."""
    eligible = [point for point in points if point.eligible]
    return max(eligible, key=lambda point: point.macro_f1 or 0.0, default=None)


class _CellValues(NamedTuple):
    """What a sweep knows of a cell. ``distinct_2`` is not a score of its run: it would cost all lexical ones."""

    macro_f1: float | None
    valid: float
    language_fidelity: float | None
    label_fidelity: float | None
    distinct_2: float | None
    texts: int


class _SweepCells:
    """The scored cells of a sweep. ``by_config``: method -> config as JSON -> its cells."""

    def __init__(self, plan: RunPlan) -> None:
        self._run = plan.run
        self._budgets = plan.suite.metrics.budgets
        self._values: dict[str, _CellValues] = {}
        self.by_config: dict[str, dict[str, list[Cell]]] = {}
        self._unsteered: dict[tuple[str, str, str], Cell] = {}
        for cell in plan.cells:
            method, key = cell.key.method, cell.key
            configs = self.by_config.setdefault(method.name, {})
            configs.setdefault(canonical_json(method.config), []).append(cell)
            if method.name in _UNSTEERED:
                self._unsteered[key.setting, key.task, key.language] = cell

    def choose_by_language(
        self, points: Sequence[GridPoint], best: Mapping[str, Any] | None, fields: Collection[str]
    ) -> tuple[dict[str, Any] | None, list[GridPoint]]:
        """Return the options ``best`` with a mapping for ``fields``, and all points with the scores by language.

        A language gets the value of its best point; the other options stay those of ``best``, and so does a language
        in which no point is eligible.
        """
        method, names = points[0].method, list(points[0].options)
        configs = self.by_config[method]
        by_language: list[dict[str, DoseScores]] = [{} for _ in points]
        chosen: dict[str, Mapping[str, Any]] = {}
        for code in sorted({cell.key.language for cells in configs.values() for cell in cells}):
            own = [self.point(method, config, names, code) for config in configs]
            found = None
            if best is not None:
                found = select_best(p for p in own if all(p.options[f] == best[f] for f in best.keys() - set(fields)))
                chosen[code] = found.options if found else best
            for scores, point in zip(by_language, own, strict=True):
                values = {name: getattr(point, name) for name in DoseScores.model_fields}
                scores[code] = DoseScores(**{**values, "chosen": point is found})
        with_languages = [
            point.model_copy(update={"languages": scores}) for point, scores in zip(points, by_language, strict=True)
        ]
        if best is None:
            return None, with_languages
        return {
            field: {code: options[field] for code, options in chosen.items()} if field in fields else value
            for field, value in best.items()
        }, with_languages

    def point(self, method: str, config: str, fields: Sequence[str], language: str | None = None) -> GridPoint:
        """Return the means of one configuration, in one language if given; not eligible where a cell is missing."""
        cells = [c for c in self.by_config[method][config] if language in (None, c.key.language)]
        done = {cell.id: (cell, status) for cell in cells if (status := self.finished(cell))}
        expected = len({cell.id for cell in cells})
        mine = [self._value(cell, status) for cell, status in done.values()]
        base = [self._unsteered_value(cell) for cell, _ in done.values()]
        whole = len(done) == expected and all(values.macro_f1 is not None for values in mine)
        f1 = _mean([values.macro_f1 for values in mine]) if whole else None
        base_f1 = _mean([values.macro_f1 for values in base])
        valid, base_valid = (_mean([values.valid for values in group]) for group in (mine, base))
        options = json.loads(config)
        statuses = [status for _, status in done.values()]
        return GridPoint(
            method=method,
            options={field: options[field] for field in fields},
            macro_f1=f1,
            gain=None if f1 is None or base_f1 is None else f1 - base_f1,
            valid=valid,
            eligible=whole and (valid or 0.0) >= GATE * (base_valid or 0.0) - _ROUNDING,
            language_fidelity=_mean([values.language_fidelity for values in mine]),
            label_fidelity=_mean([values.label_fidelity for values in mine]),
            distinct_2=_mean([values.distinct_2 for values in mine]),
            cells=len(done),
            cells_expected=expected,
            texts=sum(values.texts for values in mine),
            tokens=sum_or_none(n for status in statuses for n in (status.prompt_tokens, status.new_tokens)),
            seconds=round(sum(status.seconds for status in statuses), 3),
        )

    def finished(self, cell: Cell) -> CellStatus | None:
        """Return the status of a cell with texts, None for any other."""
        status = self._run.status(cell.id)
        return status if status is not None and status.state == "ok" else None

    def _unsteered_value(self, steered: Cell) -> _CellValues:
        """Return the values of the unsteered cell with the setting, task and language of another."""
        axes = (steered.key.setting, steered.key.task, steered.key.language)
        cell = self._unsteered.get(axes)
        status = self.finished(cell) if cell else None
        if cell is None or status is None:
            raise UserError(f"the unsteered cell of {'/'.join(axes)} is missing. Run the same command again.")
        return self._value(cell, status)

    def _value(self, cell: Cell, status: CellStatus) -> _CellValues:
        """Return the values of a cell; its files are read once."""
        if cell.id not in self._values:
            scores, rows = self._run.scores(cell.id), self._run.generations(cell.id)
            found = {s.metric: s.value for s in scores.scores} if scores else {}
            once = 1 - status.duplicates / max(len(rows), 1)
            self._values[cell.id] = _CellValues(
                macro_f1=found.get(macro_f1(CLASSIFIER).name),
                valid=(found.get(VALID_SHARE.name) or 0.0) * once,
                language_fidelity=found.get(LANGUAGE_FIDELITY.name),
                label_fidelity=found.get(LABEL_FIDELITY.name),
                distinct_2=distinct(2, [words(row.text) for row in rows], self._budgets).value,
                texts=len(rows),
            )
        return self._values[cell.id]


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where a value is missing or there is none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _fields(method: SteeringMethod, configs: Sequence[str]) -> list[str]:
    """Return the fields that tell configurations apart: those that differ, and those of the grid, last."""
    loaded = [json.loads(config) for config in configs]
    differ = [field for field in loaded[0] if any(c.get(field) != loaded[0][field] for c in loaded)]
    return [*(field for field in differ if field not in method.search_space), *method.search_space]
