"""Choosing the config of a method on validation text: the sweep, the rule, and the file of the choice.

A sweep is a run of its own, of a suite derived from the one to be run: scored on the validation split, with
a generation seed that no score uses. Everything that runs can do (resume, skip, record) it can do, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.cells import cell_id
from harness.errors import UserError
from harness.files import canonical_json
from harness.records import CellStatus, Setting, SurfacePoint, Tuned, TunedMethod
from harness.registry import Registry, pick_methods
from harness.run.options import Prepared
from harness.scoring.metrics import LANGUAGE_FIDELITY, macro_f1
from harness.suite import MethodSpec, Suite

CLASSIFIER = "tfidf"
GATE = 0.9
RULE = (
    f"highest mean macro-F1 ({CLASSIFIER}) on the validation split among configurations whose valid share "
    f"is at least {GATE} x that of the unsteered texts; one configuration per method, over all its cells"
)
_BASELINES: dict[Setting, str] = {"zero-shot": "zero-shot", "few-shot": "few-shot"}


def tuning_suite(
    suite: Suite, registry: Registry, names: list[str] | None, overrides: Mapping[str, Sequence[Any]]
) -> Suite:
    """Return the suite of the sweep: the methods' grids, validation text, an unused seed.

    ``names``: the methods to tune, by default all of the suite that name a grid. ``overrides`` replaces
    the values of a grid's field. Raises ``UserError`` for a method without a grid, and where none is left.
    """
    specs = suite.methods if names is None else pick_methods(suite.methods, names)
    sweeps: list[MethodSpec] = []
    for spec in specs:
        for name, options in ({spec: {}} if isinstance(spec, str) else spec).items():
            grid = {**registry.get(name).grid}
            if not grid and names is None:
                continue
            if not grid:
                raise UserError(
                    f"method {name!r} names no grid of config values, so there is nothing to tune."
                )
            grid |= {field: list(values) for field, values in overrides.items() if field in grid}
            sweeps.append({name: {**(options or {}), **grid}})
    if not sweeps:
        raise UserError(
            "none of the suite's methods names a grid, so there is nothing to tune. Give --methods."
        )
    seed = next(s for s in range(len(suite.seeds) + 1) if s not in suite.seeds)
    changes = {
        "name": f"{suite.name}-tuning",
        "methods": [*_BASELINES.values(), *sweeps],
        "seeds": [seed],
        "classifiers": [CLASSIFIER],
        "scored_split": "validation",
    }
    return suite.model_copy(update=changes)


def survey(prepared: Prepared, base: Suite) -> Tuned:
    """Return the surface and the choice from the finished cells of a sweep; ``base`` is the run's suite.

    Raises ``UserError`` where the unsteered cells, which everything is compared with, are missing.
    """
    cells = _Cells(prepared)
    manifest = prepared.run.manifest()
    methods: dict[str, TunedMethod] = {}
    surface: list[SurfacePoint] = []
    for name, fields in _swept(prepared.suite).items():
        points = [cells.point(name, config, fields) for config in cells.configs(name)]
        best = choose(points)
        points = [p.model_copy(update={"chosen": p is best}) for p in points]
        surface += points
        methods[name] = TunedMethod(
            version=next(m.version for m in prepared.methods.values() if m.name == name),
            options=best.options if best else None,
            configurations=len(points),
            texts=sum(p.texts for p in points),
            tokens=sum(p.tokens for p in points),
            seconds=round(sum(p.seconds for p in points), 3),
        )
    assert prepared.model is not None
    return Tuned(
        suite=base.name,
        suite_hash=base.hash,
        model=prepared.model,
        data_hashes=manifest.data_hashes,
        selection=manifest.selection,
        rule=RULE,
        methods=methods,
        surface=surface,
    )


def choose(points: Iterable[SurfacePoint]) -> SurfacePoint | None:
    """Return the eligible point with the highest macro-F1; of equals the one listed first."""
    eligible = [point for point in points if point.eligible]
    return max(eligible, key=lambda point: point.macro_f1 or 0.0, default=None)


class _Cells:
    """The scored cells of a sweep, by method and config."""

    def __init__(self, prepared: Prepared) -> None:
        self._run = prepared.run
        self._found: dict[str, dict[str, dict[tuple[str, str, Setting], CellStatus]]] = {}
        self._expected: dict[tuple[str, str], int] = {}
        for cell in prepared.cells:
            key, config = cell.key, canonical_json(cell.key.method.config)
            place = (key.method.name, config)
            self._expected[place] = self._expected.get(place, 0) + 1
            status = prepared.run.status(cell.id)
            by_config = self._found.setdefault(key.method.name, {}).setdefault(config, {})
            if status is not None and status.state == "ok":
                by_config[key.task, key.language, key.setting] = status
        self._values: dict[str, tuple[float | None, float]] = {}

    def configs(self, method: str) -> list[str]:
        """Return the configs of a method, as JSON, in the order of the sweep."""
        return list(self._found.get(method, {}))

    def point(self, method: str, config: str, fields: Sequence[str]) -> SurfacePoint:
        """Return the means of one configuration; not eligible where a cell is missing."""
        cells = self._found[method][config]
        expected = self._expected[method, config]
        unsteered = [self._unsteered(place) for place in cells]
        mine = [self._value(status) for status in cells.values()]
        whole = len(cells) == expected and all(f1 is not None for f1, _ in mine)
        f1 = fmean(f1 or 0.0 for f1, _ in mine) if whole else None
        valid = fmean(share for _, share in mine) if mine else None
        base_f1 = fmean(f1 or 0.0 for f1, _ in unsteered) if unsteered else 0.0
        base_valid = fmean(share for _, share in unsteered) if unsteered else 0.0
        written = [row for s in cells.values() for row in self._run.generations(cell_id(s.cell))]
        options = json.loads(config)
        return SurfacePoint(
            method=method,
            options={field: options[field] for field in fields},
            macro_f1=f1,
            gain=None if f1 is None else f1 - base_f1,
            valid=valid,
            eligible=whole and (valid or 0.0) >= GATE * base_valid,
            cells=len(cells),
            cells_expected=expected,
            texts=len(written),
            tokens=sum(row.n_prompt_tokens + row.n_new_tokens for row in written),
            seconds=round(sum(status.seconds for status in cells.values()), 3),
        )

    def _unsteered(self, place: tuple[str, str, Setting]) -> tuple[float | None, float]:
        name = _BASELINES[place[2]]
        for cells in self._found.get(name, {}).values():
            if place in cells:
                return self._value(cells[place])
        raise UserError(
            f"the unsteered cell {name}/{'/'.join(place)} is missing. Run the same command again."
        )

    def _value(self, status: CellStatus) -> tuple[float | None, float]:
        """Return macro-F1 and valid share of a cell."""
        cell = cell_id(status.cell)
        if cell not in self._values:
            scores = self._run.scores(cell)
            found = {s.metric: s.value for s in scores.scores} if scores else {}
            fidelity = found.get(LANGUAGE_FIDELITY.name) or 0.0
            n_texts = len(self._run.generations(cell))
            once = 1 - status.duplicates / max(n_texts, 1)
            self._values[cell] = (found.get(macro_f1(CLASSIFIER).name), fidelity * once)
        return self._values[cell]


def _swept(suite: Suite) -> dict[str, list[str]]:
    """Return the swept fields of every method of a sweep's suite."""
    found: dict[str, list[str]] = {}
    for spec in suite.methods:
        for name, options in ({} if isinstance(spec, str) else spec).items():
            found[name] = [field for field, value in options.items() if isinstance(value, list)]
    return found
