"""Choosing the config of a method on validation text: the sweep, the rule, and the file of the choice.

A sweep is a run of its own, of a suite derived from the one to be run: scored on the validation split, with
a generation seed that no score uses. Everything that runs can do (resume, skip, record) it can do, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.core.cells import Cell, cell_id
from harness.core.errors import MachineError, UserError
from harness.core.files import canonical_json
from harness.core.records import (
    CellStatus,
    GridPoint,
    Selection,
    Tuned,
    TunedMethod,
    Usage,
    fit_of,
    sum_or_none,
)
from harness.data.suite import MethodSpec, Suite
from harness.methods.contract import Reference, SteeringMethod
from harness.methods.controls import Control
from harness.methods.registry import Registry, pick_methods, search_space
from harness.runner.plan import select_cells
from harness.runner.prepare import RunPlan
from harness.scoring.metrics import VALID_SHARE, macro_f1

CLASSIFIER = "tfidf"
GATE = 0.9
RULE = (
    f"highest mean macro-F1 ({CLASSIFIER}) on the validation split among configurations whose valid share "
    f"is at least {GATE} x that of the unsteered texts; one configuration per method, over all its cells"
)
_UNSTEERED = ("zero-shot", "few-shot")  # methods, each named as the setting that it runs in
_ROUNDING = 1e-9  # 0.9 x 0.1 is a little more than 0.09


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
    for spec in specs:
        for name, given in ({spec: {}} if isinstance(spec, str) else spec).items():
            grid = _grid(registry.get(name))
            sweep = _sweep(grid, given or {}, overrides)
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
        raise UserError(f"no method to be tuned has {field!r} in its grid. Leave out --{field}s.")
    seed = next(s for s in range(len(suite.seeds) + 1) if s not in suite.seeds)
    changes = {
        "name": f"{suite.name}-tuning",
        "methods": [*_UNSTEERED, *sweeps],
        "seeds": [seed],
        "classifiers": [CLASSIFIER],
        "scored_split": "validation",
    }
    return suite.model_copy(update=changes)


def _grid(cls: type[SteeringMethod]) -> dict[str, list[Any]]:
    """Return the values that a method names; none for references, and for controls, which follow a method."""
    return {} if issubclass(cls, Reference | Control) else search_space(cls)


def _sweep(
    grid: Mapping[str, list[Any]], given: Mapping[str, Any], overrides: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """Return a method's options with the values to try, the grid's last; empty where none is left open."""
    if not any(field in overrides or isinstance(given.get(field, []), list) for field in grid):
        return {}
    fixed = {field: value for field, value in given.items() if field not in grid}
    values = {f: _once(overrides[f]) if f in overrides else given.get(f, grid[f]) for f in grid}
    return {**fixed, **values}


def _once(values: Iterable[Any]) -> list[Any]:
    """Return each value once; layer 0 and depth 0.0 are two."""
    return list({repr(value): value for value in values}.values())


def evaluate_grid(prepared: RunPlan, base: Suite) -> Tuned:
    """Return the surface and the choice from the finished cells of a sweep; ``base`` is the run's suite.

    Raises ``UserError`` where the unsteered cells, which everything is compared with, are missing, and
    where no method has a cell; ``MachineError`` where the machine failed in a cell: a choice among what is
    left would be an accident.
    """
    _check_machine(prepared)
    cells = _Cells(prepared)
    methods: dict[str, TunedMethod] = {}
    surface: list[GridPoint] = []
    for name in _swept(prepared.suite):
        configs = cells.configs(name)
        if not configs:  # it runs in other settings
            continue
        method = next(m for m in prepared.methods.values() if m.name == name)
        fields = _fields(method, configs)
        points = [cells.point(name, config, fields) for config in configs]
        best = select_best(points)
        points = [p.model_copy(update={"chosen": p is best}) for p in points]
        surface += points
        methods[name] = TunedMethod(
            version=method.version,
            options=best.options if best else None,
            configurations=len(points),
            texts=sum(p.texts for p in points),
            tokens=sum_or_none(p.tokens for p in points),
            seconds=round(sum(p.seconds for p in points), 3),
            fit=cells.fits(name),
        )
    if not surface:
        raise UserError("nothing was tried: no method to be tuned has one of the settings.")
    assert prepared.model is not None
    return Tuned(
        suite=base.name,
        suite_hash=base.hash,
        model=prepared.model,
        data_hashes={f"{cell.key.task}/{cell.key.language}": cell.key.data for cell in prepared.cells},
        selection=_covered(prepared),
        rule=RULE,
        methods=methods,
        surface=surface,
    )


def _check_machine(prepared: RunPlan) -> None:
    statuses = [prepared.run.status(cell.id) for cell in prepared.cells]
    failed = [status for status in statuses if status is not None and status.state == "infra_error"]
    if failed:
        raise MachineError(
            f"the machine failed in {len(failed)} cells of the sweep ({failed[0].reason:.200}), so nothing "
            "is chosen. Run the same command again, finished cells are kept; or leave out what does not fit, "
            "with --methods, --layers or --strengths."
        )


def _covered(prepared: RunPlan) -> Selection:
    """Return what these cells cover; the sweep's folder may hold more, of earlier commands."""
    keys = [cell.key for cell in prepared.cells]
    return select_cells(
        prepared.suite,
        [key.language for key in keys],
        [key.task for key in keys],
        [key.setting for key in keys],
        limit=max(key.texts_per_label for key in keys),
    )


def select_best(points: Iterable[GridPoint]) -> GridPoint | None:
    """Return the eligible point with the highest macro-F1; of equals the one listed first."""
    eligible = [point for point in points if point.eligible]
    return max(eligible, key=lambda point: point.macro_f1 or 0.0, default=None)


class _Cells:
    """The scored cells of a sweep, by method and config."""

    def __init__(self, prepared: RunPlan) -> None:
        self._run = prepared.run
        self._cells: dict[str, dict[str, dict[str, Cell]]] = {}  # by method, config and id
        for cell in prepared.cells:
            method = cell.key.method
            by_config = self._cells.setdefault(method.name, {})
            by_config.setdefault(canonical_json(method.config), {})[cell.id] = cell
        self._baselines = {
            (cell.key.setting, cell.key.task, cell.key.language): cell.id
            for cell in prepared.cells
            if cell.key.method.name in _UNSTEERED
        }
        self._values: dict[str, tuple[float | None, float]] = {}

    def configs(self, method: str) -> list[str]:
        """Return the configs of a method, as JSON, in the order of the sweep."""
        return list(self._cells.get(method, {}))

    def point(self, method: str, config: str, fields: Sequence[str]) -> GridPoint:
        """Return the means of one configuration; not eligible where a cell is missing."""
        cells = self._cells[method][config]
        done = [status for name in cells if (status := self._finished(name))]
        mine = [self._value(status) for status in done]
        unsteered = [self._unsteered(status) for status in done]
        whole = len(done) == len(cells) and all(f1 is not None for f1, _ in mine)
        f1 = _mean([f1 for f1, _ in mine]) if whole else None
        base_f1 = _mean([f1 for f1, _ in unsteered])
        valid, base_valid = (_mean([share for _, share in pairs]) for pairs in (mine, unsteered))
        options = json.loads(config)
        return GridPoint(
            method=method,
            options={field: options[field] for field in fields},
            macro_f1=f1,
            gain=None if f1 is None or base_f1 is None else f1 - base_f1,
            valid=valid,
            eligible=whole and (valid or 0.0) >= GATE * (base_valid or 0.0) - _ROUNDING,
            cells=len(done),
            cells_expected=len(cells),
            texts=sum(len(self._run.generations(cell_id(status.cell))) for status in done),
            tokens=sum_or_none(n for status in done for n in (status.prompt_tokens, status.new_tokens)),
            seconds=round(sum(status.seconds for status in done), 3),
        )

    def fits(self, method: str) -> Usage | None:
        """Return what all fits of a method took, parts that they share counted once."""
        cells = [name for by_id in self._cells[method].values() for name in by_id]
        return fit_of(status for name in cells if (status := self._finished(name)))

    def _finished(self, cell: str) -> CellStatus | None:
        status = self._run.status(cell)
        return status if status is not None and status.state == "ok" else None

    def _unsteered(self, steered: CellStatus) -> tuple[float | None, float]:
        """Return the values of the unsteered cell that has the setting, task and language of another."""
        key = steered.cell
        place = (key.setting, key.task, key.language)
        found = self._finished(self._baselines[place]) if place in self._baselines else None
        if found is None:
            raise UserError(f"the unsteered cell of {'/'.join(place)} is missing. Run the same command again.")
        return self._value(found)

    def _value(self, status: CellStatus) -> tuple[float | None, float]:
        """Return macro-F1 and valid share of a cell."""
        cell = cell_id(status.cell)
        if cell not in self._values:
            scores = self._run.scores(cell)
            found = {s.metric: s.value for s in scores.scores} if scores else {}
            valid = found.get(VALID_SHARE.name) or 0.0
            n_texts = len(self._run.generations(cell))
            once = 1 - status.duplicates / max(n_texts, 1)
            self._values[cell] = (found.get(macro_f1(CLASSIFIER).name), valid * once)
        return self._values[cell]


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where a value is missing or there is none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _swept(suite: Suite) -> list[str]:
    """Return the methods that a sweep's suite gives options to: all but the unsteered ones."""
    return list(dict.fromkeys(name for spec in suite.methods if not isinstance(spec, str) for name in spec))


def _fields(method: SteeringMethod, configs: Sequence[str]) -> list[str]:
    """Return what tells configurations apart: fields in which they differ, and those of the grid, last."""
    loaded = [json.loads(config) for config in configs]
    differ = [field for field in loaded[0] if any(c.get(field) != loaded[0][field] for c in loaded)]
    return [*(field for field in differ if field not in method.search_space), *method.search_space]
