"""The fixture of the checks: the mini suite's model and text, on which a method's code runs in a sandbox."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

from harness.core.cells import Cell, sampling_key
from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UnsupportedError, UserError
from harness.core.files import canonical_json
from harness.core.interventions import Steering
from harness.core.records import ModelIdentity
from harness.core.store import Run
from harness.data.prompts import Prompt
from harness.data.suite import load_suite
from harness.methods.contract import CellContext, SteeringMethod
from harness.methods.plugins import in_words
from harness.runner.plan import plan_cells, select_cells
from harness.runner.prepare import RunPlan
from harness.submissions.conformance.instrumented import (
    Calls,
    InstrumentedCorpus,
    InstrumentedFitter,
    ModelState,
    differences,
    model_state,
    open_corpus,
)
from harness.submissions.conformance.sandbox import NetworkRefusedError, Sandbox

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel

_TEXTS_PER_LABEL = 3
_NEW_TOKENS = 12
_BATCH = 64


@dataclass(frozen=True)
class Fit:
    """Outcome and side effects of one fit of a method for a cell.

    ``steering`` is None where the fit ended with ``error`` or ``skipped``, the reason of an
    ``UnsupportedError``. ``problem``: why its provenance is not JSON. ``changed``: what of the model is not
    as before. ``calls``: how often the engine and the model were called.
    """

    cell: Cell
    steering: Steering | None = None
    skipped: str = ""
    error: str = ""
    problem: str = ""
    changed: list[str] = field(default_factory=list)
    path: Path | None = None
    seconds: float = 0.0
    calls: int = 0


class TinySuite:
    """Model, text and cells of the mini suite, with short texts and one seed; everything is temporary.

    ``languages``: a part of the suite's, for quick tests. Every fit meets the model as it was loaded: one
    that a method changed is loaded again.
    """

    def __init__(self, languages: list[str] | None = None) -> None:
        suite = load_suite("mini")
        short = suite.sampling.model_copy(update={"max_new_tokens": _NEW_TOKENS, "max_attempts": 2})
        cut = {"sampling": short, "seeds": suite.seeds[:1], "languages": languages or suite.languages}
        self.suite = suite.model_copy(update=cut)
        self._temporary = tempfile.TemporaryDirectory(prefix="steerboard-conformance-")
        self.folder = Path(self._temporary.name).resolve()
        self._activations = self.folder / "activations"
        self.say: Callable[[str], None] = lambda words: None
        self.corpus = open_corpus(self.suite)
        self.begin()
        self.calls = Calls()
        self._checkpoint = resolve_checkpoint(str(self.suite.folder("model")))
        self.identity = ModelIdentity(
            name=self._checkpoint.name, fingerprint=self._checkpoint.fingerprint, dtype="float32"
        )
        self._model: SteerableModel | None = None
        self._clean: ModelState = {}
        self._fitters = 0

    def __enter__(self) -> TinySuite:
        return self

    def __exit__(self, *error: object) -> None:
        self._temporary.cleanup()

    @property
    def model(self) -> SteerableModel:
        """The model as it was loaded."""
        if self._model is None:
            from harness.engine.model import load_model

            self._model = load_model(self._checkpoint, self.identity.dtype, "cpu")
            self._model.decoder.register_forward_pre_hook(lambda *_: self.calls.count())
            self._clean = model_state(self._model)
        return self._model

    def begin(self) -> None:
        """Forget what was recorded of the method before."""
        self.corpus.sandbox = self.sandbox = Sandbox(self.folder)

    def cells(self, method: SteeringMethod) -> list[Cell]:
        """Return the cells of a method: every language, task and setting, one seed."""
        selection = select_cells(self.suite, limit=_TEXTS_PER_LABEL)
        return plan_cells(self.suite, selection, [method], self.identity, self.corpus)

    def context(self, cell: Cell) -> CellContext:
        """Return the context of a cell that a method gets."""
        key = cell.key
        return CellContext(
            self.suite, self.suite.task(key.task, key.language), key.setting, key.seed, key.texts_per_label
        )

    def fitter(self, *, fresh: bool = False, corpus: InstrumentedCorpus | None = None) -> InstrumentedFitter:
        """Return a fitter without any fit; activations are kept from earlier ones unless ``fresh``."""
        self._fitters += 1
        run = Run(self.folder / str(self._fitters))
        cache = run.path / "activations" if fresh else self._activations
        prepared = RunPlan(
            run, self.suite, corpus or self.corpus, self._checkpoint, {}, [], [], self.identity, cache=cache
        )
        return InstrumentedFitter(prepared, self.model, _BATCH, self.say, calls=self.calls)

    def fit(
        self,
        method: SteeringMethod,
        cell: Cell,
        fitter: InstrumentedFitter,
        *,
        global_seed: int = 0,
        break_at: int | None = None,
    ) -> Fit:
        """Fit a method for a cell in the sandbox.

        ``global_seed`` seeds the global generators of random, numpy and torch first; ``break_at`` makes the
        call of that number to the engine or the model fail.
        """
        own, problems = method.fit, [""]

        def sandboxed(ctx: Any) -> Steering:
            with self.sandbox.record():
                fitted: object = own(ctx)
            if not isinstance(fitted, Steering):
                raise UserError(f"fit returned {type(fitted).__name__}, not a Steering")
            try:
                canonical_json(fitted.provenance)
            except (TypeError, ValueError) as error:
                problems.append(str(error))
                return replace(fitted, provenance={})
            return fitted

        fitter.model = self.model
        seed_global(global_seed)
        started = time.monotonic()
        with patch.object(method, "fit", sandboxed), self.calls.counting(break_at):
            fit = _outcome(method, cell, fitter)
        calls, changed = self.calls.number, differences(self._clean, model_state(self.model))
        if changed:
            self._restore()
        seconds = time.monotonic() - started
        return replace(fit, changed=changed, calls=calls, seconds=seconds, problem=problems[-1])

    def texts(self, cell: Cell, prompts: dict[str, list[Prompt]], steering: Steering, batch_size: int) -> list[str]:
        """Return the texts of a cell."""
        from harness.engine.generate import generate_cell

        key = cell.key

        def noise(label: str, index: int, attempt: int) -> int:
            return sampling_key(key, label, index, attempt)

        count, sampling = key.texts_per_label, self.suite.sampling
        made = generate_cell(self.model, prompts, count, steering, sampling, noise, batch_size)
        return [text.text for text in made]

    def _restore(self) -> None:
        """Load the model again, reset torch's switches, forget activations of a changed model."""
        import torch

        shutil.rmtree(self._activations, ignore_errors=True)
        torch.set_grad_enabled(self._clean["grad mode", "torch"])
        torch.set_default_dtype(self._clean["default dtype", "torch"])
        for name, table in vars(torch.nn.modules.module).items():
            if name.startswith("_global_") and name.endswith("_hooks") and isinstance(table, dict):
                table.clear()
        self._model = None


def _outcome(method: SteeringMethod, cell: Cell, fitter: InstrumentedFitter) -> Fit:
    try:
        name, steering = fitter.steering(cell, method)
    except UnsupportedError as error:
        return Fit(cell, skipped=in_words(error))
    except NetworkRefusedError as error:
        return Fit(cell, error=f"it needs the network ({error})")
    except (Exception, SystemExit) as error:
        return Fit(cell, error=in_words(error))
    return Fit(cell, steering, path=fitter.plan.run.steering_path(name) if name else None)


def seed_global(seed: int) -> None:
    """Seed the global generators of random, numpy and torch."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
