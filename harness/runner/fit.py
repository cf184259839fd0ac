"""The fit stage: from text and a model to a steering file. Each fit is done once per run, each reading of text once.

Their cost (seconds, and tokens that the model reads) is kept with their files. Readings are shared by methods and
runs (``harness.runner.readings``), and fits by settings, seeds and controls: each is measured when it is done, and
counts in full in every fit that uses it, as if that fit were alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.core.cache import cache_folder
from harness.core.cells import Cell, steering_id
from harness.core.errors import BrokenFileError, DamagedFileError, UserError, warn
from harness.core.files import digest, file_digest, write_json
from harness.core.interventions import ReadAt, Site, Steering, check_model
from harness.core.records import FitCost, Usage, UsageByStep
from harness.core.schema import read_record
from harness.core.terminal import clock
from harness.methods.contract import FitContext, SteeringMethod
from harness.runner.event_log import log_event
from harness.runner.prepare import RunPlan, library_versions
from harness.runner.readings import FOLDER, Reading, ReadingCache

if TYPE_CHECKING:
    from torch import Tensor

    from harness.engine.activations import MeanStates, MlpActivationMeans, ReadingState
    from harness.engine.model import SteerableModel

_HEADER_DETAILS = ("token_rule", "bos_rule", "counts", "residual_norm")
"""Details of a fit that every steering file has in its header."""


READING = "reading-"
"""What the names begin with by which workers claim a reading of text."""


def fit_claim(name: str) -> str:
    """Return the name by which a worker claims the fit with a file name."""
    return f"steering-{name}"


def cost_key(path: Path) -> str:
    """Return the name of the step that wrote a file, such as ``steering/ID``."""
    return f"{path.parent.name}/{path.stem}"


def write_cost(path: Path, parts: UsageByStep) -> None:
    """Write the cost of making the file ``path`` next to it."""
    write_json(path.with_suffix(".cost.json"), FitCost(parts=parts).to_json())


def read_cost(path: Path) -> UsageByStep:
    """Return the cost of making the file ``path``: one step of unknown cost where it was not recorded."""
    file = path.with_suffix(".cost.json")
    if not file.is_file():
        return {cost_key(path): None}
    try:
        return read_record(file, FitCost).parts
    except UserError as error:  # the method is not at fault
        raise BrokenFileError(str(error)) from None


@dataclass
class FitUsage:
    """A step under way: tokens read so far, and the seconds and steps that belong to steps inside it."""

    tokens: int | Tensor = 0
    inner_seconds: float = 0.0
    parts: UsageByStep = field(default_factory=dict)


class UsageMeter:
    """Measures steps, nested ones too: what an inner step takes does not count for the outer one."""

    def __init__(self) -> None:
        self._open: list[FitUsage] = []

    @contextmanager
    def part(self, name: str, model: SteerableModel) -> Iterator[FitUsage]:
        """Measure the block; afterwards its ``parts`` hold it and all steps that it used."""
        measured, started = FitUsage(), time.monotonic()
        try:
            with ExitStack() as stack:
                if not self._open:
                    hook = model.decoder.register_forward_pre_hook(self.count, with_kwargs=True)
                    stack.callback(hook.remove)
                self._open.append(measured)
                stack.callback(self._open.pop)
                yield measured
        finally:
            seconds = time.monotonic() - started
            if self._open:
                self._open[-1].inner_seconds += seconds
        tokens = int(measured.tokens)  # only now: it waits for the device
        measured.parts[name] = Usage(seconds=round(seconds - measured.inner_seconds, 3), tokens=tokens)

    def use(self, parts: Mapping[str, Usage | None]) -> None:
        """Record steps, measured now or earlier, as used by the step under way, if there is one."""
        if self._open:
            self._open[-1].parts.update(parts)

    def leave_out(self, seconds: float) -> None:
        """Do not count so many of the seconds of the step under way."""
        if self._open:
            self._open[-1].inner_seconds += seconds

    def count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add the tokens that a pass through the decoder reads: neither padding nor what a cache holds."""
        read = kwargs.get("input_ids", args[0] if args else None)
        read = kwargs.get("inputs_embeds") if read is None else read
        if read is not None:
            rows, positions = read.shape[:2]
            mask = kwargs.get("attention_mask")
            if mask is None or mask.ndim != 2:
                self._open[-1].tokens += int(rows * positions)
            else:
                self._open[-1].tokens = self._open[-1].tokens + mask[:, -positions:].sum()


@dataclass
class Fitter:
    """The ``Engine`` of fit contexts: fits methods on one model, keeps results in memory and in the run folder.

    ``exclusive``: holds off other workers of the run while a fit or a reading with this name is made.
    """

    plan: RunPlan
    model: SteerableModel
    batch_size: int = 64
    say: Callable[[str], None] = lambda words: None
    exclusive: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
    _fitting: str = ""
    _steering: dict[str, Steering] = field(default_factory=dict)
    _read: dict[str, Reading] = field(default_factory=dict)
    _applied: dict[str, set[str]] | None = None
    _costs: dict[Path, UsageByStep] = field(default_factory=dict)
    _meter: UsageMeter = field(default_factory=UsageMeter)

    def __post_init__(self) -> None:
        assert self.plan.model is not None
        folder = self.plan.cache or cache_folder(FOLDER)
        self._cache = ReadingCache(self.model, self.plan.model, folder, self._meter.count)

    def steering(self, cell: Cell, method: SteeringMethod) -> tuple[str | None, Steering]:
        """Return the steering of a cell and the name of its file, None where nothing is steered."""
        return self._steering_of(self.plan.fit_cell(cell), method) if method.has_fit else (None, Steering())

    def file_hash(self, name: str | None) -> str | None:
        """Return the SHA-256 of a steering file, None for no steering."""
        return file_digest(self.plan.run.steering_path(name)) if name else None

    def cost(self, cell: Cell, method: SteeringMethod) -> UsageByStep:
        """Return the cost of a cell's fit by step; empty where nothing is fitted."""
        return self._cost_of(self._path(self.plan.fit_cell(cell))) if method.has_fit else {}

    @property
    def n_layers(self) -> int:
        """Number of decoder layers of the model."""
        return len(self.model.layers)

    @property
    def sandwich_norm(self) -> bool:
        """Whether the layers have a norm after their MLP."""
        from harness.engine.hooks import has_sandwich_norm

        return has_sandwich_norm(self.model.layers[0])

    def progress(self, words: str) -> None:
        """Show the state of the current fit."""
        self.say(f"{self._fitting}: {words}" if self._fitting else words)

    def _path(self, cell: Cell) -> Path:
        return self.plan.run.steering_path(steering_id(cell.key))

    def _cost_of(self, path: Path) -> UsageByStep:
        if path not in self._costs:
            self._costs[path] = read_cost(path)
        return self._costs[path]

    def _steering_of(self, cell: Cell, method: SteeringMethod) -> tuple[str | None, Steering]:
        name = steering_id(cell.key)
        if name not in self._steering:
            with self._alone(fit_claim(name)):
                self._steering[name] = self._stored(name) or self._fit(name, cell, method)
        self._meter.use(self._cost_of(self._path(cell)))
        steering = self._steering[name]
        return (name if steering.interventions else None), steering

    def _stored(self, name: str) -> Steering | None:
        """Return a fit from the run folder; None, with a warning, where the file has changed since."""
        run, path = self.plan.run, self.plan.run.steering_path(name)
        try:
            stored = run.steering(name)
        except DamagedFileError:
            warn(f"{path} was edited or damaged; it is fitted again")
            return None
        if stored is None:
            return None
        if self._applied is None:
            self._applied = run.applied(cell.id for cell in self.plan.cells)
        if name in self._applied and file_digest(path) not in self._applied[name]:
            warn(f"{path} is not the file that finished cells were written with; it is fitted again")
            return None
        if self.plan.model is not None:
            check_model(stored, self.plan.model.fitted, self.model.tokenizer_hash, str(path))
        return stored

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Hold off other workers; the time to wait for one is not a cost of the fit."""
        started = time.monotonic()
        with self.exclusive(name):
            self._meter.leave_out(time.monotonic() - started)
            yield

    def _fit(self, name: str, cell: Cell, method: SteeringMethod) -> Steering:
        path = self._path(cell)
        outer, self._fitting = self._fitting, f"fitting {method.name}, {cell.key.task}, {cell.key.language}"
        try:
            self.say(self._fitting)
            with self._meter.part(cost_key(path), self.model) as measured:
                steering = self._fitted(name, cell, method)
        finally:
            self._fitting = outer
        self._costs[path] = measured.parts
        log_event(self.plan.run.path, "fit", steering=name)
        write_cost(path, measured.parts)  # before the steering, so that none is without its cost after a crash
        self.plan.run.write_steering(name, steering)
        return steering

    def _fitted(self, name: str, cell: Cell, method: SteeringMethod) -> Steering:
        key, base = cell.key, self.plan.base or self.plan
        seed = int(digest(["fit", name], 16), 16)
        context = FitContext(
            suite=base.suite,
            task=base.suite.task(key.task, key.language),
            engine=self,
            rng=np.random.default_rng(seed),
            _corpus=base.corpus,
            _stored_fit=lambda other, code: self._fit_of(cell, other, code),
        )
        fitted = method.fit(context)
        header = self._header(cell, context, fitted, seed) if fitted.interventions else {}
        return Steering(fitted.interventions, header)

    def _fit_of(self, cell: Cell, method: SteeringMethod, code: str) -> Steering:
        """Return the fit of another method or language for the cell's task, with the details as it gave them."""
        data = (self.plan.base or self.plan).corpus.fingerprint(cell.key.task, code)
        changes = {"method": method.identity, "language": code, "data": data}
        steering = Steering()
        if method.has_fit:
            _, steering = self._steering_of(Cell(cell.key.model_copy(update=changes)), method)
        header = steering.provenance
        lifted = {name: header[name] for name in _HEADER_DETAILS if name in header}
        return Steering(steering.interventions, {**lifted, **header.get("fit", {})})

    def _header(self, cell: Cell, ctx: FitContext, fitted: Steering, seed: int) -> dict[str, Any]:
        """Return the provenance in the header of a steering file, as JSON."""
        key, details = cell.key, dict(fitted.provenance)
        lifted = {name: details.pop(name) for name in _HEADER_DETAILS if name in details}
        if "residual_norm" not in lifted:
            own = self.mean_states(ctx.parallel(key.language))
            lifted["residual_norm"] = [float(value) for value in own.norm]
        return {
            "method": key.method.model_dump(mode="json"),
            "model": key.model.fitted if key.model else None,
            "tokenizer": self.model.tokenizer_hash,
            "language": key.language,
            "task": key.task,
            "data": key.data,
            "layer_convention": "0-based; output of layer l is the residual stream after it",
            "n_layers": self.n_layers,
            "hidden_size": self.model.hidden_size,
            "token_rule": "the method's own",
            "bos_rule": "no BOS and no other special token added to the texts that are read",
            "counts": {},
            **lifted,
            "seed": seed,
            "versions": library_versions(),
            "fit": details,
        }

    def mean_states(self, texts: list[str], exclude_sinks: bool = False) -> MeanStates:
        """Return the mean hidden states of the model over ``texts``, read at most once."""
        return self._reading(texts, exclude_sinks).states

    def neuron_means(self, texts: list[str], at: ReadAt = "last") -> MlpActivationMeans:
        """Return the mean MLP activations of the model over ``texts``, read at most once."""
        from harness.engine.activations import gated_projections

        gated_projections(self.model)  # says which layer has none
        found = self._reading(texts, at=at).neurons
        assert found is not None
        return found.over_all(len(texts)) if at == "last" else found

    def states(
        self, texts: list[str], at: ReadAt = "last", layers: Sequence[int] | None = None, site: Site = "layer_output"
    ) -> NDArray[np.float32]:
        """Return the state of every text, read again each time: they are too large to be kept."""
        from harness.engine.states import text_states

        return text_states(self.model, texts, at, layers, site, progress=self._telling(texts))

    def residual_change(self, steering: Steering, texts: list[str]) -> NDArray[np.float64]:
        """Return how far a steering moves the residual stream over ``texts``, per layer."""
        from harness.engine.activations import relative_residual_shift

        return relative_residual_shift(self.model, steering, texts)

    def _reading(self, texts: list[str], exclude_sinks: bool = False, at: ReadAt = "last") -> Reading:
        """Return a reading from memory or the cache, else read; a model that is not as loaded is always read."""
        key = self._cache.key(texts, exclude_sinks, at)
        if not self._cache.usable:
            return self._read_now(key, texts, exclude_sinks, at)
        if key not in self._read:
            with self._alone(f"{READING}{key}"):
                found = self._cache.load(key)
                if found is None:
                    found = self._read_now(key, texts, exclude_sinks, at)
                    self._cache.save(key, found)
            self._read[key] = found
        self._meter.use({f"{FOLDER}/{key}": self._read[key].usage})
        return self._read[key]

    def _read_now(self, key: str, texts: list[str], exclude_sinks: bool, at: ReadAt) -> Reading:
        from harness.engine.activations import has_gated_projections, read_means

        name = f"{FOLDER}/{key}"
        neurons = at if not exclude_sinks and has_gated_projections(self.model) else None
        with self._meter.part(name, self.model) as measured:
            states, means = read_means(
                self.model, texts, neurons=neurons, exclude_sinks=exclude_sinks, progress=self._telling(texts)
            )
        assert states is not None
        usage = measured.parts[name]
        assert usage is not None
        self._meter.use({name: usage})
        return Reading(states, means, usage)

    def _telling(self, texts: list[str]) -> Callable[[ReadingState], None]:
        """Return a callback that shows how far a reading is, how fast it is and how long it will take."""
        started = time.monotonic()
        code = (self.plan.base or self.plan).corpus.language_of(texts)
        of = f"{code} " if code else ""

        def tell(done: ReadingState) -> None:
            speed = done.tokens / max(time.monotonic() - started, 1e-9)
            left = clock((done.n_tokens - done.tokens) / max(speed, 1e-9))
            # Short, with the time before the rate: a terminal of 80 columns cuts the end.
            self.progress(f"{of}{done.texts}/{done.n_texts} sentences, {left} left, {speed:,.0f} tokens/s")

        return tell
