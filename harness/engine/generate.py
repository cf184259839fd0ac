"""Generate the texts of many cells together, to exact counts, with duplicates drawn again.

The texts of all cells wait in one queue, and a batch of rows is kept full from it. A text is a function of its prompt,
its steering and its noise key alone, so neither the batch nor the order changes it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.core.devices import free_memory
from harness.core.errors import UserError, is_out_of_memory
from harness.core.interventions import Steering
from harness.core.records import FinishReason, Generation
from harness.data.corpus import normalise
from harness.data.prompts import Prompt, Question
from harness.data.suite import SamplingParams
from harness.engine.answers import AnswerRounds
from harness.engine.chat import render
from harness.engine.decoding import DecodingBatch, Row, ServedModel, open_batch
from harness.engine.model import LanguageModel, SteerableModel

NoiseKey = Callable[[str, int, int], int]
"""(label, index, attempt) -> 64-bit key of the draw."""

_Name = tuple[str, int]  # label and index

_MOST_ROWS = 256  # where memory allows; more rows gain little speed
_LOOK_AHEAD = 4  # batches of texts that wait, sorted by the length of their prompts
_SHRINK = 1.5  # where nothing waits, rows are dropped when there are so many times as many as texts
_VERDICT_TOKENS = 4  # of an answer to a yes-or-no question
_LIKELIEST = 1e-9  # top-p that leaves the likeliest token alone
_ENTER = 8  # new texts enter when an eighth of the rows is free: one pass reads all their prompts


@dataclass
class TokenUsage:
    """Tokens of all draws so far: of the prompt, once per draw, and written without the end token."""

    prompt_tokens: int = 0
    new_tokens: int = 0


@dataclass(eq=False)
class CellRequest:
    """The texts that one cell asks for: ``texts_per_label`` for every label of ``prompts``.

    A label has one prompt for all of its texts, or one for each. ``name`` is the caller's. ``usage`` counts the tokens
    of all draws, those that were drawn again included; ``seconds``: its part of the time that its rows shared with
    others. ``question``: what the model, unsteered, is asked about each text that is an answer of its own. A draw
    without a yes is ``rejected`` and drawn again; ``kept``: texts that were rejected at the last attempt, too.
    """

    name: Any
    prompts: Mapping[str, Prompt | Sequence[Prompt]]
    texts_per_label: int
    steering: Steering
    sampling: SamplingParams
    noise_key: NoiseKey
    usage: TokenUsage = field(default_factory=TokenUsage)
    seconds: float = 0.0
    question: Question | None = None
    rejected: int = 0
    kept: int = 0


class _Draws:
    """The draws of one cell.

    A text that is empty, rejected or equals an earlier one of the cell is drawn again, in rounds over the whole cell:
    round r compares the texts as they are after r draws. A round need not wait for the one before to end: that a text
    equals an earlier one of its round is known as soon as both are.
    """

    def __init__(self, cell: CellRequest, model: LanguageModel) -> None:
        self.cell = cell
        self._model = model
        self._prompts = {
            label: [given] if isinstance(given, Prompt) else list(given) for label, given in cell.prompts.items()
        }
        distinct = {(p.user, p.system): p for prompts in self._prompts.values() for p in prompts}
        inputs = [render(model.tokenizer, p, cell.sampling.template, cell.sampling.date) for p in distinct.values()]
        self._tokens = dict(zip(distinct, map(tuple, model.token_ids(inputs)), strict=True))
        self._longest = max(map(len, self._tokens.values()))
        self._answers = self._answer_rounds()
        self._names = [(label, i) for label in cell.prompts for i in range(cell.texts_per_label)]
        self._rounds: list[dict[_Name, Generation]] = [{} for _ in range(cell.sampling.max_attempts)]
        self._asked: set[tuple[_Name, int]] = set()
        self._rejected: set[tuple[_Name, int]] = set()

    def first(self) -> list[Draw]:
        """Return the first draw of every text."""
        names = self._answers.ask() if self._answers else [(name, 0) for name in self._names]
        return [self._draw(*name) for name in names]

    def add(self, draw: Draw) -> list[Draw]:
        """Take up a finished draw; return the draws that it shows to be needed."""
        self.cell.usage.prompt_tokens += len(draw.row.prompt)
        self.cell.usage.new_tokens += len(draw.row.tokens)
        if draw.about:
            return self._judge(draw, draw.about)
        row, (label, index) = draw.row, draw.name
        text, ended = self._read(row.tokens)
        reason: FinishReason = "stop" if row.ended or ended else "length"
        generation = Generation(
            index=index,
            label=label,
            text=text,
            attempts=draw.attempt + 1,
            n_prompt_tokens=len(row.prompt),
            n_new_tokens=len(row.tokens),
            finish_reason=reason,
        )
        if self._answers:
            return [self._draw(*name) for name in self._answers.add(generation, self._parse(draw, text))]
        question = self.cell.question(label, index, text) if self.cell.question and text else None
        return [self._ask(draw, generation, question)] if question else self._take(draw, generation)

    def _ask(self, draw: Draw, text: Generation, question: Prompt) -> Draw:
        """Return the draw of the answer to a question about a text: the likeliest tokens, unsteered."""
        sampling = self.cell.sampling
        (ids,) = self._model.token_ids([render(self._model.tokenizer, question, sampling.template, sampling.date)])
        budget = _token_budget(self._model, len(ids), _VERDICT_TOKENS)
        row = Row(tuple(ids), Steering(), draw.row.key, budget, sampling.temperature, _LIKELIEST)
        return Draw(self, draw.name, draw.attempt, row, about=text)

    def _judge(self, draw: Draw, text: Generation) -> list[Draw]:
        said = self._model.tokenizer.decode(draw.row.tokens, skip_special_tokens=True)
        if not re.search(r"\byes\b", said, re.IGNORECASE):
            self._rejected.add((draw.name, draw.attempt))
            self.cell.rejected += 1
        return self._take(draw, text)

    def _take(self, draw: Draw, text: Generation) -> list[Draw]:
        self._rounds[draw.attempt][draw.name] = text
        return [self._draw(*name) for name in self._settle()]

    def texts(self) -> list[Generation] | None:
        """Return all texts in order, those that still repeat an earlier one marked; None while draws are under way."""
        if self._answers:
            return self._answers.texts()
        last = self._rounds[-1]
        if len(last) < len(self._names):
            return None
        repeated = {name for name, _ in self._repeats(last)}
        self.cell.kept = sum((name, text.attempts - 1) in self._rejected for name, text in last.items())
        return [last[name].model_copy(update={"duplicate": name in repeated}) for name in self._names]

    def _settle(self) -> list[tuple[_Name, int]]:
        """Carry texts that stay into the next rounds; return the draws that are new."""
        new = []
        for number, (texts, following) in enumerate(zip(self._rounds, self._rounds[1:], strict=False), start=1):
            repeats = dict(self._repeats(texts))
            repeats |= {n: text for n, text in texts.items() if (n, text.attempts - 1) in self._rejected}
            for name in self._names:
                if name not in texts:
                    break  # what comes later may still turn out to equal this one
                if name not in repeats:
                    following.setdefault(name, texts[name])
            for name in repeats:
                if (name, number) not in self._asked:
                    self._asked.add((name, number))
                    new.append((name, number))
        return new

    def _repeats(self, texts: Mapping[_Name, Generation]) -> Iterator[tuple[_Name, Generation]]:
        """Yield the texts that are empty or equal an earlier one, of those that are known."""
        seen = {""}
        for name in self._names:
            if name in texts:
                form = normalise(texts[name].text)
                if form in seen:
                    yield name, texts[name]
                seen.add(form)

    def _draw(self, name: _Name, attempt: int) -> Draw:
        label, index = name
        prompt = self._prompt(name)
        sampling = self.cell.sampling.model_copy(update=prompt.sampling)
        row = Row(
            self._tokens[prompt.user, prompt.system],
            self.cell.steering,
            self.cell.noise_key(label, index, attempt),
            _token_budget(self._model, self._longest, sampling.max_new_tokens),
            sampling.temperature,
            sampling.top_p,
            self._enough if sampling.keep == "first-line" and prompt.parse is None else None,
        )
        return Draw(self, name, attempt, row)

    def _prompt(self, name: _Name) -> Prompt:
        label, index = name
        prompts = self._prompts[label]
        return prompts[index % len(prompts)]

    def _answer_rounds(self) -> AnswerRounds | None:
        """Return the count of texts where answers may hold several; None where each is one text."""
        if all(prompt.parse is None for prompts in self._prompts.values() for prompt in prompts):
            return None
        per_answer = {label: prompts[0].texts_per_answer for label, prompts in self._prompts.items()}
        return AnswerRounds(per_answer, self.cell.texts_per_label, self.cell.sampling.max_attempts)

    def _parse(self, draw: Draw, text: str) -> list[str]:
        """Return the texts in an answer, cleaned like any other; ``text``: the answer as one text."""
        parse = self._prompt(draw.name).parse
        if parse is None:
            return [text]
        written = self._model.tokenizer.decode(draw.row.tokens, skip_special_tokens=True)
        sampling = self.cell.sampling.model_copy(update={"keep": "all"})
        parts = [part.encode("utf-8", "replace").decode() for part in parse(written)]  # JSON can hold half a character
        return [answer(part, sampling)[0] for part in parts]

    def _read(self, tokens: list[int]) -> tuple[str, bool]:
        return answer(self._model.tokenizer.decode(tokens, skip_special_tokens=True), self.cell.sampling)

    def _enough(self, tokens: list[int]) -> bool:
        return self._read(tokens)[1]


@dataclass(eq=False)
class Draw:
    """One draw of one text of a cell, in the queue or in a row; with ``about``, of the verdict on that text.

    ``clock``: the shared time when it entered.
    """

    draws: _Draws
    name: _Name
    attempt: int
    row: Row
    clock: float = 0.0
    about: Generation | None = None

    @property
    def cell(self) -> CellRequest:
        """The cell that the text is for."""
        return self.draws.cell

    def restart(self) -> None:
        """Forget what was written."""
        self.row.tokens.clear()
        self.row.ended = False


class GenerationQueue:
    """Writes the texts of cells as they come, and gives each cell out with the last of its texts.

    ``batch_size``: the most texts that are written at once, None for as many as fit into memory. ``progress`` gets
    the number of texts that were finished, those that are drawn again included.
    """

    def __init__(
        self,
        model: SteerableModel | ServedModel,
        batch_size: int | None = None,
        progress: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.model = model
        self.most = batch_size or _MOST_ROWS
        self._progress = progress
        self._batch: DecodingBatch = open_batch(model)
        self._fixed = batch_size is not None or isinstance(model, ServedModel)  # vLLM decides itself how many fit
        self._waiting: list[Draw] = []  # the next one last
        self._active: dict[Row, Draw] = {}
        self._clock = 0.0  # seconds, divided by the rows that shared them
        self._ended: list[tuple[CellRequest, list[Generation] | Exception]] = []
        self._failed: set[CellRequest] = set()

    @property
    def active(self) -> int:
        """Number of texts that are being written."""
        return len(self._active)

    def write(self, cells: Iterable[CellRequest | None]) -> Iterator[tuple[CellRequest, list[Generation] | Exception]]:
        """Yield every cell with its texts, or with the error that ended it, as soon as it is complete.

        ``cells`` is read while rows are free; None in it means none for now: it is read again after the next step.
        """
        source: Iterator[CellRequest | None] | None = iter(cells)
        while source or self._waiting or self._active:
            if source and len(self._waiting) < self.most:
                source = self._take_up(source)
            self._fill()
            if self._active:
                self._step()
            yield from self._ended
            self._ended.clear()

    def _fill(self) -> None:
        """Let waiting texts enter when enough rows are free, since reading prompts and copying a cache cost time."""
        ready = min(self.most - len(self._active), len(self._waiting))
        idle = self._batch.rows > _SHRINK * len(self._active)
        if ready and (ready * _ENTER >= self._batch.rows or idle):
            self._enter([self._waiting.pop() for _ in range(ready)])
        elif idle:
            self._batch.shrink()

    def _take_up(self, source: Iterator[CellRequest | None]) -> Iterator[CellRequest | None] | None:
        """Let the texts of the next cells wait, those with the longest prompts first; return None after the last cell.

        What waited before stays in front, so that no cell waits for all others.
        """
        new: list[Draw] = []
        following: Iterator[CellRequest | None] | None = source
        while len(self._waiting) + len(new) < _LOOK_AHEAD * self.most:
            try:
                cell = next(source)
            except StopIteration:
                following = None
                break
            if cell is None:
                break
            try:
                new += _Draws(cell, self.model).first()
            except Exception as error:  # a prompt that cannot be rendered is the failure of its cell alone
                self._ended.append((cell, error))
        new.sort(key=lambda draw: (len(draw.row.prompt), draw.row.prompt), reverse=True)  # equal prompts together
        self._waiting = new[::-1] + self._waiting
        if not self._fixed and new:
            self.most = min(self.most, self._rows_that_fit(max(d.row.length + d.row.max_new_tokens for d in new)))
        return following

    def _enter(self, draws: list[Draw]) -> None:
        started = time.monotonic()
        try:
            complete = self._batch.add([draw.row for draw in draws])
        except Exception as error:
            self._refuse(draws, error)
            return
        seconds = (time.monotonic() - started) / len(draws)
        for draw in draws:
            draw.clock = self._clock - seconds
            self._active[draw.row] = draw
        self._finish(complete)

    def _refuse(self, draws: list[Draw], error: Exception) -> None:
        """Try cell by cell, so that a vector that does not fit the model ends its own cell alone."""
        for draw in draws:
            draw.restart()
        if is_out_of_memory(error) and len(self._active) + len(draws) > 1:
            self._free_memory(draws)
            return
        of_cell: dict[CellRequest, list[Draw]] = {}
        for draw in draws:
            of_cell.setdefault(draw.cell, []).append(draw)
        if len(of_cell) == 1:
            self._fail(draws[0].cell, error)
        else:
            for group in of_cell.values():
                self._enter(group)

    def _step(self) -> None:
        started = time.monotonic()
        try:
            complete = self._batch.step()
        except Exception as error:
            self._give_up(error)
            return
        self._clock += (time.monotonic() - started) / len(self._active)
        self._finish(complete)

    def _give_up(self, error: Exception) -> None:
        """Begin the texts in the rows again, fewer at a time, if memory ran out; otherwise their cells have failed."""
        draws = list(self._active.values())
        for draw in draws:
            draw.restart()
        if is_out_of_memory(error) and len(draws) > 1:
            self._free_memory(draws)
            return
        self._batch, self._active = open_batch(self.model), {}
        for cell in dict.fromkeys(draw.cell for draw in draws):
            self._fail(cell, error)

    def _free_memory(self, draws: list[Draw]) -> None:
        """Let the texts in the rows and ``draws`` wait again, and write half as many at once from now on."""
        again = list(dict.fromkeys([*self._active.values(), *draws]))
        self.most = max(1, len(again) // 2)
        self._waiting += again
        self._active = {}
        self._batch = open_batch(self.model)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _finish(self, rows: list[Row]) -> None:
        texts_done = 0
        for row in rows:
            draw = self._active.pop(row)
            texts_done += draw.about is None
            draw.cell.seconds += self._clock - draw.clock
            if draw.cell in self._failed:
                continue
            try:
                self._waiting += draw.draws.add(draw)
            except Exception as error:  # a method's parser or check
                self._fail(draw.cell, error)
                continue
            texts = draw.draws.texts()
            if texts is not None:
                self._ended.append((draw.cell, texts))
        if texts_done:
            self._progress(texts_done)

    def _fail(self, cell: CellRequest, error: Exception) -> None:
        if cell not in self._failed:
            self._failed.add(cell)
            self._ended.append((cell, error))
        self._waiting = [draw for draw in self._waiting if draw.cell is not cell]

    def _rows_that_fit(self, length: int) -> int:
        """Return how many texts of so many tokens, prompts included, fit into two thirds of the free memory."""
        assert isinstance(self.model, SteerableModel)
        position, states = self.model.row_bytes or (0, 0)
        logits = 6 * 4 * int(self.model.config.vocab_size)  # float32, and what sampling needs
        rows = [self.most]
        for device, share in self.model.layer_shares.items():
            free = free_memory(device)
            if free is not None:
                rows.append(int(free / 1.5) // int(share * (2 * position * length + states) + logits))
        return max(1, min(rows))


def generate_cell(
    model: SteerableModel | ServedModel,
    prompts: Mapping[str, Prompt | Sequence[Prompt]],
    texts_per_label: int,
    steering: Steering,
    sampling: SamplingParams,
    noise_key: NoiseKey,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda n: None,
    usage: TokenUsage | None = None,
) -> list[Generation]:
    """Return ``texts_per_label`` texts for every label of ``prompts``, in order.

    A text that is empty or equals an earlier one of the cell (NFKC, case-folded, blanks reduced) is
    drawn again, up to ``sampling.max_attempts`` draws in all; a remaining duplicate is kept
    and marked, so that counts are exact. ``usage`` counts the tokens of all draws.
    """
    cell = CellRequest(None, prompts, texts_per_label, steering, sampling, noise_key, usage or TokenUsage())
    ((_, found),) = GenerationQueue(model, batch_size, progress).write([cell])
    if isinstance(found, Exception):
        raise found
    return found


def answer(text: str, sampling: SamplingParams) -> tuple[str, bool]:
    """Return what is kept of a decoded answer, in single blanks, and whether a line break ended it.

    The first line is the first that is not blank. ``strip_quotes`` deletes quotes. A base prompt ends after an opening
    quote, so the closing one at the end is dropped.
    """
    ended = False
    if sampling.keep == "first-line":
        text, line_break, _ = text.lstrip().partition("\n")
        ended = bool(line_break)
    if sampling.template == "base":
        text = text.rstrip().removesuffix('"')
    if sampling.strip_quotes:
        text = text.replace('"', "").replace("'", "")
    return " ".join(text.split()), ended


def _token_budget(model: LanguageModel, width: int, wanted: int) -> int:
    limit = model.context_length
    if limit is None:
        return wanted
    if width >= limit:
        raise UserError(f"the prompt has {width} tokens, the model takes {limit}. Use fewer or shorter shots.")
    return min(wanted, limit - width)
