"""Write the texts of one cell, or of many in one queue, and see what the model reads and draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

from harness.core.cells import sampling_key
from harness.core.interventions import Steering
from harness.core.records import Generation
from harness.data.corpus import Corpus
from harness.data.prompts import Prompt
from harness.data.sources import LocalData
from harness.data.suite import SamplingParams, Suite
from harness.engine import decoding
from harness.engine.generate import CellRequest, GenerationQueue, generate_cell
from harness.engine.model import SteerableModel
from harness.engine.sampling import signed
from harness.methods.contract import PromptContext
from support.helpers import key
from support.prompts import PROMPTS, key_of

NOTHING = Steering()
MANY = {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": 6, "max_attempts": 3}


def write(
    model: SteerableModel,
    prompts: dict[str, Prompt] = PROMPTS,
    texts: int = 4,
    steering: Steering = NOTHING,
    batch_size: int = 4,
    **sampling: Any,
) -> list[Generation]:
    return generate_cell(model, prompts, texts, steering, SamplingParams(**{**MANY, **sampling}), key_of, batch_size)


def request(
    name: str,
    prompts: dict[str, Prompt] = PROMPTS,
    texts: int = 3,
    steering: Steering = NOTHING,
    **sampling: Any,
) -> CellRequest:
    """Return a cell whose noise comes from its name."""
    return CellRequest(
        name,
        prompts,
        texts,
        steering,
        SamplingParams(**{**MANY, **sampling}),
        lambda label, index, attempt: key_of(f"{name}/{label}", index, attempt),
    )


def write_all(
    model: SteerableModel, cells: Iterable[CellRequest], batch_size: int | None = None
) -> dict[Any, list[Generation] | Exception]:
    """Write cells in one queue; return what became of each, by name, in the order of their ends."""
    return {cell.name: found for cell, found in GenerationQueue(model, batch_size).write(cells)}


def cell_of(suite: Suite, task: str, language: str, setting: str, seed: int = 1) -> dict[str, Any]:
    """Return prompts and noise of a cell of the mini suite, as a run makes them."""
    definition = suite.task(task, language)
    folder = suite.folder("data")
    assert folder is not None
    shots = Corpus(suite, LocalData(folder)).demonstrations(task, language) if setting == "few-shot" else {}
    prompts = {
        label: PromptContext(
            suite, definition, setting, seed, 4, label=label, demonstrations=tuple(shots.get(label, ()))
        ).suite_prompt()
        for label in definition.labels
    }
    name = key(suite=suite.name, task=task, language=language, setting=setting, seed=seed)
    return {
        "prompts": prompts,
        "noise_key": lambda label, index, attempt: sampling_key(name, label, index, attempt),
    }


@dataclass
class Seen:
    """What was read and drawn: ``prompts``, token ids without padding; ``tokens`` by the signed key of the noise.

    ``passes``: (rows, positions) of every pass through the model.
    """

    prompts: list[list[int]] = field(default_factory=list)
    tokens: dict[int, list[int]] = field(default_factory=dict)
    passes: list[tuple[int, int]] = field(default_factory=list)

    def drawn(self, text: Generation) -> list[int]:
        """Return all tokens of the last draw of a text that ``write`` wrote, the end token included."""
        return self.tokens[signed(key_of(text.label, text.index, text.attempts - 1))]


@contextmanager
def watch_decoding(model: SteerableModel) -> Iterator[Seen]:
    """Record what the model reads and draws inside the block, its trial left out."""
    decoding.open_batch(model)  # the trial
    seen, draw = Seen(), decoding.draw_tokens

    def record(logits: torch.Tensor, keys: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        found = draw(logits, keys, *rest)
        for name, token in zip(keys.tolist(), found.tolist(), strict=True):
            seen.tokens.setdefault(name, []).append(token)
        return found

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        seen.passes.append(tuple(ids.shape))
        if ids.shape == mask.shape:  # nothing was read before
            seen.prompts += [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)]

    handle = model.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with mock.patch.object(decoding, "draw_tokens", record):
            yield seen
    finally:
        handle.remove()
