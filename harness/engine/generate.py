"""Writing the texts of a cell in batches, to exact counts, with duplicates redrawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.core.records import FinishReason, Generation
from harness.data.corpus import normalise
from harness.data.prompts import Prompt
from harness.data.suite import SamplingParams
from harness.engine.chat import render
from harness.engine.decoding import decode
from harness.engine.model import SteerableModel

NoiseKey = Callable[[str, int, int], int]
"""(label, index, attempt) -> 64-bit key of the draw."""


@dataclass(frozen=True)
class PendingText:
    """One text to be written."""

    label: str
    index: int


@dataclass
class TokenUsage:
    """Tokens of all draws so far: of the prompt, once per draw, and written without the end token."""

    prompt_tokens: int = 0
    new_tokens: int = 0


def generate_cell(
    model: SteerableModel,
    prompts: Mapping[str, Prompt],
    texts_per_label: int,
    steering: Steering,
    sampling: SamplingParams,
    noise_key: NoiseKey,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda n: None,
    usage: TokenUsage | None = None,
) -> list[Generation]:
    """Return ``texts_per_label`` texts for every label of ``prompts``, in order.

    A text that is empty or equals an earlier one of the cell (NFKC, case-folded, blanks reduced) is
    drawn again, up to ``sampling.max_attempts`` draws in all; what is then still a duplicate is kept
    and marked, so that counts are exact. Redraws happen in rounds over the whole cell, so the result
    does not depend on ``batch_size``. ``progress`` is told the number of texts after every batch.
    ``usage`` counts the tokens of all draws, those that were drawn again included.
    """
    usage = usage or TokenUsage()
    inputs = {
        label: render(model.tokenizer, prompt, sampling.template, sampling.date) for label, prompt in prompts.items()
    }
    width = model.encode(list(inputs.values()), special_tokens=False, side="left")["input_ids"].shape[1]
    room = _token_budget(model, width, sampling.max_new_tokens)  # the same in every batch of the cell
    slots = [PendingText(label, i) for label in prompts for i in range(texts_per_label)]
    texts: dict[PendingText, Generation] = {}
    open_slots = slots
    for attempt in range(sampling.max_attempts):
        for start in range(0, len(open_slots), batch_size):
            batch = open_slots[start : start + batch_size]
            keys = [noise_key(slot.label, slot.index, attempt) for slot in batch]
            written = _write(model, [inputs[s.label] for s in batch], steering, sampling, keys, room)
            for slot, fields in zip(batch, written, strict=True):
                texts[slot] = Generation(index=slot.index, label=slot.label, attempts=attempt + 1, **fields)
                usage.prompt_tokens += texts[slot].n_prompt_tokens
                usage.new_tokens += texts[slot].n_new_tokens
            progress(len(batch))
        open_slots = _needs_redraw([texts[slot] for slot in slots], slots)
        if not open_slots:
            break
    repeated = set(open_slots)
    return [texts[s].model_copy(update={"duplicate": s in repeated}) for s in slots]


def answer(text: str, sampling: SamplingParams) -> tuple[str, bool]:
    """Return what is kept of a decoded answer, in single blanks, and whether a line break ended it.

    The first line is the first that is not blank. Quotes are deleted as ``strip_quotes`` says.
    """
    ended = False
    if sampling.keep == "first-line":
        text, line_break, _ = text.lstrip().partition("\n")
        ended = bool(line_break)
    if sampling.strip_quotes:
        text = text.replace('"', "").replace("'", "")
    return " ".join(text.split()), ended


def _needs_redraw(texts: Sequence[Generation], slots: Sequence[PendingText]) -> list[PendingText]:
    """Return the slots whose text is empty or equals the text of an earlier slot."""
    seen: set[str] = set()
    again = []
    for text, slot in zip(texts, slots, strict=True):
        form = normalise(text.text)
        if not form or form in seen:
            again.append(slot)
        seen.add(form)
    return again


def _write(
    model: SteerableModel,
    inputs: list[str],
    steering: Steering,
    sampling: SamplingParams,
    keys: list[int],
    max_new_tokens: int,
) -> Iterator[dict[str, Any]]:
    """Run one batch; yield text, token counts and finish reason per row."""

    def read(tokens: list[int]) -> tuple[str, bool]:
        return answer(model.tokenizer.decode(tokens, skip_special_tokens=True), sampling)

    def enough(tokens: list[int]) -> bool:
        return sampling.keep == "first-line" and read(tokens)[1]

    for row in decode(model, inputs, steering, sampling, keys, max_new_tokens, enough):
        text, ended = read(row.tokens)
        reason: FinishReason = "stop" if row.ended or ended else "length"
        yield {
            "text": text,
            "n_prompt_tokens": row.n_prompt_tokens,
            "n_new_tokens": len(row.tokens),
            "finish_reason": reason,
        }


def _token_budget(model: SteerableModel, width: int, wanted: int) -> int:
    limit = model.context_length
    if limit is None:
        return wanted
    if width >= limit:
        raise UserError(f"the prompt has {width} tokens, the model takes {limit}. Use fewer or shorter shots.")
    return min(wanted, limit - width)
