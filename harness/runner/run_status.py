"""Where a run stands: what is done, failed and left, how fast it goes, who works on it."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.core.records import Manifest, Setting, State
from harness.core.schema import SCHEMA
from harness.data.suite import prompt_format_of

RunState = Literal["empty", "starting", "running", "stopped", "failed", "finished"]
"""``empty``, ``starting``: no manifest, without and with a process that holds the lock. ``running``: a process works on
it. Of the others none does: ``stopped``: cells are left or not scored; ``failed``: those that are left ended in an
error; ``finished``: all are scored or skipped."""

RunStage = Literal["generate", "score"]


@dataclass(frozen=True)
class MethodProgress:
    """Cells of a method in a setting by what became of them. ``ok`` have texts; ``scored`` are those with scores."""

    method: str
    setting: Setting
    expected: int = 0
    ok: int = 0
    scored: int = 0
    skipped: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Reason:
    """Why cells have no texts. Reasons that differ in numbers alone are one; ``example`` names a cell of them."""

    state: State
    reason: str
    cells: int
    cell: str
    example: str


@dataclass(frozen=True)
class Speed:
    """Cells that ended in the last ``seconds``; ``tokens``: that the model wrote for them, None while scoring."""

    cells: int
    tokens: int | None
    seconds: float


@dataclass(frozen=True)
class WorkerState:
    """A process that works on cells and fits; ``heartbeat``: seconds since its last sign of life.

    ``claims``: how many it has claimed; ``scoring``: those of them that are cells to be scored.
    """

    name: str
    claims: int
    heartbeat: float
    alive: bool
    scoring: int = 0


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    ``expected``: cells by the manifest's entries and selection; ``unexpected``: cells of the folder that it does not
    name. ``seconds``: those of the texts and, each once, of the fits. ``left``: seconds until the stage ends.
    """

    path: Path
    state: RunState
    locked: bool = False
    manifest: Manifest | None = None
    stage: RunStage | None = None
    methods: list[MethodProgress] = field(default_factory=list)
    expected: int = 0
    states: dict[State, int] = field(default_factory=dict)
    scored: int = 0
    unexpected: int = 0
    reasons: list[Reason] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    speed: Speed | None = None
    left: float | None = None
    last: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    workers: list[WorkerState] = field(default_factory=list)
    size: int = 0
    free: int | None = None

    @property
    def failed(self) -> int:
        """Number of cells that ended in an error."""
        return sum(n for state, n in self.states.items() if state.endswith("error"))

    @property
    def not_run(self) -> int:
        """Number of cells that have not ended in any way."""
        return self.expected - sum(self.states.values())

    def to_json(self) -> dict[str, Any]:
        """Return what ``steerboard status --json`` prints, see docs/run-folder.md."""
        manifest, speed = self.manifest, self.speed
        return {
            "schema": SCHEMA,
            "run": str(self.path),
            "state": self.state,
            "stage": self.stage,
            "locked": self.locked,
            "track": manifest.track if manifest else None,
            "suite": suite_name(manifest) if manifest else None,
            "model": manifest.model.model_dump(mode="json") if manifest and manifest.model else None,
            "prompt_format": prompt_format_of(manifest.suite) if manifest else None,
            "cells": {
                "expected": self.expected,
                **{state: self.states.get(state, 0) for state in ("ok", "skipped", "method_error", "infra_error")},
                "not_run": self.not_run,
                "scored": self.scored,
                "unexpected": self.unexpected,
                "damaged": len(self.damaged),
            },
            "methods": [asdict(row) for row in self.methods],
            "rate": asdict(speed) if speed else None,
            "seconds_left": None if self.left is None else round(self.left),
            "last_finished": None if self.last is None else _iso(self.last),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "stages": {name: cost.model_dump(mode="json") for name, cost in manifest.stages.items()}
            if manifest
            else {},
            "reasons": [asdict(reason) for reason in self.reasons],
            "damaged": self.damaged,
            "workers": [asdict(worker) for worker in self.workers],
            "disk": {"bytes": self.size, "free": self.free},
        }


def suite_name(manifest: Manifest) -> str:
    """Return the name of a run's suite, as the manifest has it."""
    return str(manifest.suite.get("name", manifest.suite_source))


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
