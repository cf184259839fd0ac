"""A short probe of the loaded model before a long run: how fast it is, and what it writes without steering."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console

from harness.core.cells import Cell, sampling_key
from harness.core.errors import UserError, is_out_of_memory
from harness.core.interventions import Steering
from harness.core.terminal import clock
from harness.runner.preflight import Preflight, encode_prompt, spread
from harness.runner.prepare import RunPlan

if TYPE_CHECKING:
    from harness.engine.decoding import Row
    from harness.engine.model import SteerableModel

_SECONDS = 30.0  # that the texts may take
_PROBED = 3  # texts per language
_WIDE, _STEPS = 128, 3  # texts at once and tokens of each, to measure how fast the model writes
_OF_PROBE = 0.7  # of that speed, which a run keeps up: Gemma 3 270M on two cores wrote 171 tokens/s after 245 here
_READ, _READ_TOKENS = 16, 96  # prompts and tokens of each, to measure how fast it reads


def probe_model(found: Preflight, model: SteerableModel, plan: RunPlan, cells: Sequence[Cell]) -> None:
    """Let the model write a few unsteered texts in every language; add the expected time, and what the texts show.

    They take at most half a minute; the speed is then measured with as many texts at once as a run has.
    """
    from harness.engine.decoding import open_batch
    from harness.engine.generate import answer

    rows = _probe_rows(model, plan, [cell for cell in cells if cell.key.model])
    if not rows:
        return
    batch = open_batch(model)
    started = time.monotonic()
    batch.add([row for _, row in rows])
    while batch.active and time.monotonic() - started < _SECONDS:
        batch.step()
    sampling = plan.suite.sampling
    texts = [
        (code, answer(model.tokenizer.decode(row.tokens, skip_special_tokens=True), sampling)[0]) for code, row in rows
    ]
    _add_time(found, [row for _, row in rows], *_speed(model, [row for _, row in rows], min(_WIDE, found.texts)))
    _judge_texts(found, plan, rows, texts)


def _probe_rows(model: SteerableModel, plan: RunPlan, cells: Sequence[Cell]) -> list[tuple[str, Row]]:
    """Return (language, row) of up to three labels of a cell of every language, zero-shot where there is one."""
    from harness.engine.decoding import Row
    from harness.engine.generate import answer

    sampling, limit = plan.suite.sampling, model.context_length

    def line_ended(tokens: list[int]) -> bool:
        return answer(model.tokenizer.decode(tokens, skip_special_tokens=True), sampling)[1]

    stop = line_ended if sampling.keep == "first-line" else None
    chosen: dict[str, Cell] = {}
    for cell in sorted(cells, key=lambda cell: cell.key.setting != "zero-shot"):
        chosen.setdefault(cell.key.language, cell)
    rows = []
    for code, cell in chosen.items():
        try:
            prompts = list(plan.prompts(cell)[0].items())
        except (Exception, SystemExit):  # noqa: S112  # of a plug-in; its cells record it
            continue
        for i in range(_PROBED):
            label, of_label = prompts[i % len(prompts)]
            tokens = tuple(encode_prompt(model.tokenizer, plan, of_label[0]))
            most = min(sampling.max_new_tokens, (limit or 10**9) - len(tokens))
            if most < 1:  # the run says so in its cells
                continue
            noise = sampling_key(cell.key, label, i // len(prompts), 0)
            rows.append((code, Row(tokens, Steering(), noise, most, sampling.temperature, sampling.top_p, stop)))
    return rows


def _speed(model: SteerableModel, rows: Sequence[Row], count: int) -> tuple[float, float]:
    """Return how many tokens a second a run reads, and writes with ``count`` texts at once, or as many as fit."""
    from harness.engine.decoding import open_batch

    def fresh(row: Row, prompt: tuple[int, ...], most: int) -> Row:
        return replace(row, prompt=prompt, max_new_tokens=most, tokens=[], ended=False, stop=None)

    batch = open_batch(model)
    size = min(_READ_TOKENS, (model.context_length or _READ_TOKENS + 1) - 1)
    long = [(row.prompt[i:] + row.prompt * size)[:size] for i, row in zip(range(_READ), cycle(rows), strict=False)]
    started = time.monotonic()
    batch.add([fresh(rows[0], prompt, 1) for prompt in long])
    read = len({*long}) * size / (time.monotonic() - started)
    try:
        wide = [fresh(row, row.prompt, _STEPS + 2) for row, _ in zip(cycle(rows), range(count), strict=False)]
        batch.add(wide)
        started, before = time.monotonic(), sum(len(row.tokens) for row in wide)
        for _ in range(_STEPS):
            if batch.active:
                batch.step()
        written = sum(len(row.tokens) for row in wide) - before
        return read, _OF_PROBE * max(written, 1) / (time.monotonic() - started)
    except Exception as error:
        if count == 1 or not is_out_of_memory(error):
            raise
    return _speed(model, rows, count // 2)


def _add_time(found: Preflight, rows: Sequence[Row], read: float, write: float) -> None:
    mean = fmean(len(row.tokens) if row.ended else row.max_new_tokens for row in rows)
    writing, reading, fitting = found.texts * mean / write, found.read / read, found.fit / read
    found.facts["time"] = (
        f"about {clock(writing + reading + fitting)} and the scoring: {clock(writing)} to write {mean:.0f} tokens a "
        f"text at {write:,.0f} tokens/s, {clock(reading + fitting)} to read at {read:,.0f} tokens/s"
    )


def _judge_texts(
    found: Preflight, plan: RunPlan, rows: Sequence[tuple[str, Row]], texts: Sequence[tuple[str, str]]
) -> None:
    """Show a text of three languages; warn where all hit the limit, and of languages that were not written."""
    from harness.scoring.identification import detect_language, suite_identifier

    for code, text in spread([(code, text) for code, text in texts if text]):
        found.facts[f"text in {code}"] = text if len(text) <= 120 else f"{text[:119]}…"
    if not any(row.ended for _, row in rows):
        found.warnings.append(
            f"no probe text had ended after {max(len(row.tokens) for _, row in rows)} tokens: the model may not "
            f"know where to stop. All may take {found.most} tokens; look at the texts above."
        )
    identifier = suite_identifier(plan.suite, plan.corpus)
    wrong = []
    for code in dict.fromkeys(code for code, _ in texts):
        own = [text for of, text in texts if of == code]
        letters: Counter[str] = Counter()
        for pieces in detect_language(identifier, own, code):
            for name, size in pieces:
                letters[name] += size
        best = letters.most_common(1)
        if best and best[0][0] != code:
            wrong.append(f"{code} ({best[0][0]})")
    if wrong:
        found.warnings.append(
            f"unsteered texts are mostly in another language for {', '.join(wrong)}. Only methods that turn the "
            "language will give text that is valid there."
        )


def confirm_start(console: Console) -> None:
    """Ask on a terminal whether to start; raise ``UserError`` for no. Where nobody can answer, the run starts."""
    if not (console.is_terminal and sys.stdin.isatty()):
        return
    from rich.prompt import Confirm

    if not Confirm.ask("Start?", console=console, default=True):
        raise UserError("not started. Options such as --limit, --languages and --seeds narrow it.")
