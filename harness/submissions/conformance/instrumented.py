"""The run's fitter, its text and its model, observed: calls are counted, looks at held-out text recorded."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from harness.data.corpus import Corpus
from harness.data.sources import Example, open_data
from harness.data.suite import Split, Suite, Task
from harness.runner.fit import Fitter
from harness.submissions.conformance.sandbox import Sandbox

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel

HELD_OUT: tuple[Split, ...] = ("validation", "test")
_MAX_LISTED = 3
Result = TypeVar("Result")
ModelState = dict[tuple[str, str], Any]
"""(what, where) -> value, such as ("hooks", "layers.1") -> the ids of its hooks."""


class InterruptionError(RuntimeError):
    """The failure that the kit causes in the middle of a fit."""


@dataclass
class Calls:
    """Counts calls to the engine and forward passes of the model; one of them can be made to fail."""

    number: int = 0
    active: bool = False
    break_at: int | None = None

    @contextmanager
    def counting(self, break_at: int | None = None) -> Iterator[None]:
        """Count from 0 inside the block."""
        self.number, self.break_at, self.active = 0, break_at, True
        try:
            yield
        finally:
            self.active = False

    def count(self) -> None:
        """Count a call; raises ``InterruptionError`` at number ``break_at``."""
        self.number += self.active
        if self.active and self.number == self.break_at:
            raise InterruptionError(f"call {self.number} failed on purpose")


def _counted(function: Callable[..., Result]) -> Callable[..., Result]:
    def call(self: InstrumentedFitter, *args: Any, **options: Any) -> Result:
        self.calls.count()
        return function(self, *args, **options)

    return call


class InstrumentedFitter(Fitter):
    """The fitter of the runs; every call that a method can make is counted."""

    def __init__(self, *arguments: Any, calls: Calls) -> None:
        self.calls = calls
        super().__init__(*arguments)

    mean_states = _counted(Fitter.mean_states)
    neuron_means = _counted(Fitter.neuron_means)
    states = _counted(Fitter.states)
    residual_change = _counted(Fitter.residual_change)
    progress = _counted(Fitter.progress)


@dataclass
class InstrumentedCorpus(Corpus):
    """A corpus that records who asks for a held-out split; ``sandbox`` is None for the kit itself."""

    sandbox: Sandbox | None = None

    def split(self, task: str, language: str, split: Split) -> list[Example]:
        """Return the human texts of one split."""
        if self.sandbox is not None and split in HELD_OUT:
            self.sandbox.held_out.append(f"{task}/{language}/{split}")
        return super().split(task, language, split)


def open_corpus(suite: Suite) -> InstrumentedCorpus:
    """Return the suite's text, read in advance, so that any later look at held-out text is a method's."""
    corpus = InstrumentedCorpus(suite, open_data(suite, None))
    for language in corpus.vector_languages:
        corpus.parallel(language)
        for task in suite.tasks if language in suite.languages else []:
            for split in ("train", *HELD_OUT):
                corpus.split(task, language, split)
    return corpus


def with_other_held_out_text(corpus: InstrumentedCorpus) -> InstrumentedCorpus:
    """Return the same text except for validation and test, which hold other strings.

    Fingerprints and vector text stay as they are, so that a fit is seeded and fed as before.
    """

    def others(rows: list[Example]) -> list[Example]:
        return [replace(row, text=f"{i} {row.text[::-1]}") for i, row in enumerate(rows)]

    def rows(task: Task, split: Split) -> list[Example]:
        true = corpus.source.rows(task, split)
        return others(true) if split in HELD_OUT else true

    source = copy.copy(corpus.source)
    kept = {name: getattr(corpus.source, name) for name in ("fingerprint", "vector_fingerprint")}
    vars(source).update(rows=rows, **kept)
    splits = {key: others(value) if key[2] in HELD_OUT else value for key, value in corpus._splits.items()}
    return replace(corpus, source=source, _splits=splits)


def model_state(model: SteerableModel) -> ModelState:
    """Return the state of a model that no method may change, and torch's own switches."""
    import torch

    network = model.model
    state: ModelState = {
        ("steering", "the engine"): model.hooks.active,
        ("config", "the model"): network.config.to_json_string(),
        ("generation config", "the model"): network.generation_config.to_json_string(),
        ("tokenizer", "the model"): (model.tokenizer_hash, model.tokenizer.padding_side),
        ("grad mode", "torch"): torch.is_grad_enabled(),
        ("default dtype", "torch"): torch.get_default_dtype(),
        ("hooks", "every module (global)"): _hooks(vars(torch.nn.modules.module), "_global_"),
    }
    for name, module in network.named_modules():
        where = name or "the model"
        state["modules", where] = (id(module), id(vars(module).get("forward")))
        state["hooks", where] = _hooks(vars(module), "_")
        state["training mode", where] = module.training
    for name, tensor in network.named_parameters():
        state["requires_grad", name] = tensor.requires_grad
        state["gradient", name] = tensor.grad is None
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        values = tensor.detach().cpu().contiguous().numpy()
        state["weights", name] = (values.dtype, values.shape, hashlib.sha256(values.tobytes()).hexdigest())
    return state


def differences(before: ModelState, after: ModelState) -> list[str]:
    """Return what differs between two states, in words, such as "hooks of layers.1"."""
    changed: dict[str, list[str]] = {}
    for what, where in {**before, **after}:
        if before.get((what, where)) != after.get((what, where)):
            changed.setdefault(what, []).append(where)
    listed = {what: ", ".join(names[:_MAX_LISTED]) for what, names in changed.items()}
    more = {what: len(names) - _MAX_LISTED for what, names in changed.items()}
    return [f"{what} of {listed[what]}" + (f" and {n} more" if n > 0 else "") for what, n in more.items()]


def _hooks(names: dict[str, Any], prefix: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return the ids of all hooks in the dictionaries of hooks among ``names``."""
    tables = {k: v for k, v in names.items() if k.startswith(prefix) and k.endswith("_hooks")}
    return [(name, tuple(table)) for name, table in sorted(tables.items()) if isinstance(table, dict)]
