"""Generate the texts of a cell in batches, to exact counts, with duplicates redrawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
    drawn again, up to ``sampling.max_attempts`` draws in all; a remaining duplicate is kept
    and marked, so that counts are exact. Redraws happen in rounds over the whole cell, so the result
    does not depend on ``batch_size``. ``progress`` gets the number of texts after every batch.
    ``usage`` counts the tokens of all draws, those that were drawn again included.
    """
    usage = usage or TokenUsage()
    inputs = {
        label: render(model.tokenizer, prompt, sampling.template, sampling.date) for label, prompt in prompts.items()
    }
    width = model.encode(list(inputs.values()), special_tokens=False, side="left")["input_ids"].shape[1]
    budget = _token_budget(model, width, sampling.max_new_tokens)  # the same in every batch of the cell
    texts: dict[tuple[str, int], Generation] = {}  # in the order of the first draw, which redraws keep
    pending = [(label, i) for label in prompts for i in range(texts_per_label)]
    for attempt in range(sampling.max_attempts):
        for start in range(0, len(pending), batch_size):
            batch = pending[start : start + batch_size]
            keys = [noise_key(label, i, attempt) for label, i in batch]
            written = _write(model, [inputs[label] for label, _ in batch], steering, sampling, keys, budget)
            for (label, i), fields in zip(batch, written, strict=True):
                text = Generation(index=i, label=label, attempts=attempt + 1, **fields)
                texts[label, i] = text
                usage.prompt_tokens += text.n_prompt_tokens
                usage.new_tokens += text.n_new_tokens
            progress(len(batch))
        pending = _needs_redraw(texts)
        if not pending:
            break
    repeated = set(pending)
    return [text.model_copy(update={"duplicate": name in repeated}) for name, text in texts.items()]


def answer(text: str, sampling: SamplingParams) -> tuple[str, bool]:
    """Return what is kept of a decoded answer, in single blanks, and whether a line break ended it.

    The first line is the first that is not blank. ``strip_quotes`` deletes quotes.
    """
    ended = False
    if sampling.keep == "first-line":
        text, line_break, _ = text.lstrip().partition("\n")
        ended = bool(line_break)
    if sampling.strip_quotes:
        text = text.replace('"', "").replace("'", "")
    return " ".join(text.split()), ended


def _needs_redraw(texts: Mapping[tuple[str, int], Generation]) -> list[tuple[str, int]]:
    """Return the names of texts that are empty or equal an earlier one."""
    seen = {""}
    again = []
    for name, text in texts.items():
        form = normalise(text.text)
        if form in seen:
            again.append(name)
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
