"""Decode many texts together: rows of one batch, each with its own prompt, steering, noise key and end.

A text that ends leaves its row, and a waiting one takes it over. A prompt that several texts share is read once.
Since noise is keyed, none of this changes a text.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.core.errors import is_out_of_memory, warn
from harness.core.interventions import Steering
from harness.engine.attention import fast_attention
from harness.engine.cache import PackedCache
from harness.engine.model import LanguageModel, SteerableModel
from harness.engine.sampling import draw_tokens, signed

_NONE = Steering()
_PROMPT_TOKENS = 16384  # that are read at once
_KEPT_TOKENS = 8192  # of prompts that were read, whose keys and values are kept for later texts


@dataclass(eq=False)
class Row:
    """A text that is being written.

    ``stop`` returns whether nothing that follows the new tokens would be kept; it is asked after a token with a
    line break. ``tokens``: the new tokens, without the end token; ``ended``: whether there was one, or a stop.
    """

    prompt: tuple[int, ...]
    steering: Steering
    key: int
    max_new_tokens: int
    temperature: float
    top_p: float
    stop: Callable[[list[int]], bool] | None = None
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the text so far."""
        return len(self.prompt) + len(self.tokens)

    @property
    def done(self) -> bool:
        """Whether the text is complete."""
        return self.ended or len(self.tokens) >= self.max_new_tokens


_Name = tuple[int, tuple[int, ...], int]


def _name(row: Row) -> _Name:
    """Return what rows that can share a reading of their prompt have in common; the shortest sort first."""
    return len(row.prompt), row.prompt, id(row.steering) if row.steering.interventions else 0


@dataclass(eq=False)
class _Reading:
    """Prompts that were read in one pass: their logits, keys and values.

    ``of``: the place of each, with its steering, which is kept so that no other gets its id.
    """

    of: dict[_Name, tuple[int, Steering]]
    logits: Tensor
    cache: PackedCache
    mask: Tensor

    def places(self, rows: Sequence[Row]) -> Tensor:
        """Return the place of the prompt of every row."""
        return torch.tensor([self.of[_name(row)][0] for row in rows], device=self.mask.device)


Choose = Callable[[Sequence[Row], Tensor], list[int]]
"""(rows, logits [rows, vocabulary]) -> the next token of every row."""


def choose_tokens(rows: Sequence[Row], logits: Tensor) -> list[int]:
    """Return the keyed draw of every row."""
    device = logits.device
    drawn = draw_tokens(
        logits,
        torch.tensor([signed(row.key) for row in rows], device=device),
        torch.tensor([len(row.tokens) for row in rows], device=device),
        torch.tensor([row.temperature for row in rows], dtype=torch.float32, device=device),
        torch.tensor([row.top_p for row in rows], dtype=torch.float64, device=device),
    )
    tokens: list[int] = drawn.tolist()
    return tokens


class DecodingBatch(ABC):
    """The texts that are being written now."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.ends = model.end_tokens

    @property
    @abstractmethod
    def active(self) -> int:
        """Number of texts that are being written."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Number of rows that are computed, those without a text included."""

    @abstractmethod
    def add(self, rows: Sequence[Row]) -> list[Row]:
        """Take up new texts; return those that are complete at once. An error leaves the batch as it was."""

    @abstractmethod
    def step(self) -> list[Row]:
        """Write one token of every text; return the texts that are complete, which leave the batch."""

    def shrink(self) -> None:  # noqa: B027  # nothing to do where rows take no room
        """Free the rows of complete texts, when no others wait for them."""

    def _append(self, row: Row, token: int) -> None:
        """Give a row its next token."""
        if token in self.ends:
            row.ended = True
            return
        row.tokens.append(token)
        if row.stop is not None and token in self.model.line_break_tokens and row.stop(row.tokens):
            row.ended = True


class OwnBatch(DecodingBatch):
    """A batch that is computed here, from logits."""

    model: SteerableModel

    def __init__(self, model: SteerableModel, choose: Choose = choose_tokens) -> None:
        super().__init__(model)
        self._choose = choose

    def _advance(self, rows: Sequence[Row], logits: Tensor) -> list[Row]:
        """Give every row its next token; return the rows that are complete."""
        for row, token in zip(rows, self._choose(rows, logits), strict=True):
            self._append(row, token)
        return [row for row in rows if row.done]


class CachedBatch(OwnBatch):
    """A batch with a cache of rows that can be replaced: one pass through the model writes one token of each."""

    def __init__(self, model: SteerableModel, choose: Choose = choose_tokens) -> None:
        super().__init__(model, choose)
        self._rows: list[Row | None] = []
        self._cache: PackedCache | None = None
        self._mask = torch.zeros(0, 0, dtype=torch.int64)
        self._tables: Any = {}
        self._readings: list[_Reading] = []  # the last used first

    @property
    def active(self) -> int:
        """See ``DecodingBatch``."""
        return sum(row is not None for row in self._rows)

    @property
    def rows(self) -> int:
        """See ``DecodingBatch``."""
        return len(self._rows)

    def bytes_per_row(self) -> tuple[int, int]:
        """Return the size of one position of one row in the cache, and of what a row has whatever its length."""
        assert self._cache is not None
        return self._cache.bytes_per_row()

    @torch.inference_mode()
    def add(self, rows: Sequence[Row]) -> list[Row]:
        """See ``DecodingBatch``."""
        reading_of = {name: reading for reading in self._readings for name in reading.of}
        known: dict[_Reading, list[Row]] = {}
        new: list[Row] = []
        for row in rows:
            reading = reading_of.get(_name(row))
            (new if reading is None else known.setdefault(reading, [])).append(row)
        read = {**{self._read_prompts(group): group for group in self._groups(new)}, **known}
        complete: list[Row] = []
        for reading, group in read.items():
            of = reading.places(group)
            complete += self._advance(group, reading.logits[of])
            staying = [i for i, row in enumerate(group) if not row.done]
            if staying:
                self._enter([group[i] for i in staying], reading.cache, reading.mask, of[staying])
        self._keep_readings(read)
        self._steer()
        return complete

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """See ``DecodingBatch``."""
        assert self._cache is not None
        device = self.model.device
        if self._cache.full:
            self._repack(None)
        last = [[row.tokens[-1]] if row else [0] for row in self._rows]
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        logits = self._forward(torch.tensor(last, device=device), self._mask, self._cache, first=False)
        slots = [i for i, row in enumerate(self._rows) if row is not None]
        rows = [row for row in self._rows if row is not None]
        complete = self._advance(rows, logits if len(rows) == len(logits) else logits[slots])
        self._leave([i for i, row in zip(slots, rows, strict=True) if row.done])
        return complete

    def shrink(self) -> None:
        """See ``DecodingBatch``; also drops the cache where no text is left."""
        kept = [i for i, row in enumerate(self._rows) if row is not None]
        if not kept:
            self._rows, self._cache, self._tables, self._readings = [], None, {}, []
        elif len(kept) < len(self._rows):
            self._repack(kept)

    @torch.inference_mode()
    def _repack(self, slots: list[int] | None, length: int = 0) -> None:
        """Keep these rows (None: all) and the positions that their texts need, or so many if that is more."""
        assert self._cache is not None
        if slots is not None:
            self._rows = [self._rows[i] for i in slots]
        index = None if slots is None else torch.tensor(slots, device=self.model.device)
        mask = self._mask if index is None else self._mask[index]
        length = max(length, *(row.length - 1 for row in self._rows if row is not None), 1)  # the last is not read yet
        self._cache.repack(index, mask.shape[1] - length)
        self._mask = torch.nn.functional.pad(mask, (length - mask.shape[1], 0))
        if slots is not None:
            self._steer()

    def _steer(self) -> None:
        steering = [row.steering if row is not None else _NONE for row in self._rows]
        self._tables = self.model.hooks.tables_after_prompts(steering)

    def _groups(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Split new texts into groups whose prompts are read in one pass: of one length where padding would be read."""
        same_length = PackedCache(self.model.model.config).has_states
        group: list[Row] = []
        distinct: set[_Name] = set()
        for row in sorted(rows, key=_name):
            full = (len(distinct) + (_name(row) not in distinct)) * len(row.prompt) > _PROMPT_TOKENS
            if group and (full or (same_length and len(row.prompt) != len(group[0].prompt))):
                yield group
                group, distinct = [], set()
            group.append(row)
            distinct.add(_name(row))
        if group:
            yield group

    def _read_prompts(self, rows: list[Row]) -> _Reading:
        """Read each distinct prompt under its steering once."""
        distinct = {_name(row): row for row in rows}
        ids, mask = self.model.padded([row.prompt for row in distinct.values()], "left")
        ids, mask = ids.to(self.model.device), mask.long().to(self.model.device)
        cache = PackedCache(self.model.model.config)
        with self.model.hooks.steer([row.steering for row in distinct.values()], mask):
            logits = self._forward(ids, mask, cache, first=True)
        return _Reading(
            {name: (i, row.steering) for i, (name, row) in enumerate(distinct.items())}, logits, cache, mask
        )

    def _keep_readings(self, used: Iterable[_Reading]) -> None:
        """Keep what was read last, for texts of the same prompts that enter later."""
        tokens = 0
        kept, self._readings = dict.fromkeys([*used, *self._readings]), []
        for reading in kept:
            tokens += reading.mask.numel()
            if tokens <= _KEPT_TOKENS:
                self._readings.append(reading)

    def _forward(self, ids: Tensor, mask: Tensor, cache: PackedCache, first: bool) -> Tensor:
        """Return the logits of the last position, [rows, vocabulary]."""
        model, accepted = self.model.model, _arguments(self.model.model)
        options: dict[str, Any] = {"cache_params" if "cache_params" in accepted else "past_key_values": cache}
        if "position_ids" in accepted:
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            options["position_ids"] = positions[:, -ids.shape[1] :]
        if "logits_to_keep" in accepted:
            options["logits_to_keep"] = 1
        mask = torch.nn.functional.pad(mask, (0, max(0, cache.width - mask.shape[1])))  # BLOOM takes no shorter one
        inputs = model.prepare_inputs_for_generation(
            ids, attention_mask=mask, use_cache=True, is_first_iteration=first, **options
        )
        if first:
            return model(**inputs).logits[:, -1]  # type: ignore[no-any-return]
        with self.model.hooks.use(self._tables), fast_attention():
            return model(**inputs).logits[:, -1]  # type: ignore[no-any-return]

    def _enter(self, rows: list[Row], cache: PackedCache, mask: Tensor, of: Tensor) -> None:
        """Let rows take over free ones, or new ones where too few are free."""
        width = max(len(row.prompt) for row in rows)
        drop = mask.shape[1] - width  # padding that only other prompts of the reading made necessary
        mask = mask[of, drop:]
        if self._cache is None:
            self._cache, self._mask, self._rows = cache.take(of, drop), mask, list(rows)
            return
        free = [i for i, row in enumerate(self._rows) if row is None]
        more = max(0, len(rows) - len(free))
        if more or width > self._mask.shape[1]:
            old = len(self._rows)
            self._repack([*range(old), *[0] * more], width)
            self._rows[old:] = [None] * more  # copies of the first row, replaced below
            free += range(old, old + more)
        slots = torch.tensor(free[: len(rows)], device=mask.device)
        self._cache.write(slots, cache, of, width)
        self._mask[slots] = torch.nn.functional.pad(mask, (self._mask.shape[1] - width, 0))
        for slot, row in zip(free, rows, strict=False):
            self._rows[slot] = row

    def _leave(self, slots: list[int]) -> None:
        """Free the rows of complete texts."""
        for slot in slots:
            self._rows[slot] = None
        if slots:
            self._mask[slots] = 0  # positions of what is computed there begin at 0 again


class UncachedBatch(OwnBatch):
    """A batch for models without a cache that rows can enter: every token reads its text from the start.

    Texts of one length are read together, so that there is no padding. Slow, and right for every model.
    """

    def __init__(self, model: SteerableModel, choose: Choose = choose_tokens) -> None:
        super().__init__(model, choose)
        self._rows: list[Row] = []

    @property
    def active(self) -> int:
        """See ``DecodingBatch``."""
        return len(self._rows)

    @property
    def rows(self) -> int:
        """See ``DecodingBatch``."""
        return len(self._rows)

    def add(self, rows: Sequence[Row]) -> list[Row]:
        """See ``DecodingBatch``."""
        complete = self._write(list(rows))
        self._rows += [row for row in rows if not row.done]
        return complete

    def step(self) -> list[Row]:
        """See ``DecodingBatch``."""
        complete = self._write(self._rows)
        self._rows = [row for row in self._rows if not row.done]
        return complete

    @torch.inference_mode()
    def _write(self, rows: list[Row]) -> list[Row]:
        of_length: dict[int, list[Row]] = {}
        for row in rows:
            of_length.setdefault(row.length, []).append(row)
        complete = []
        for length, group in of_length.items():
            size = max(1, _PROMPT_TOKENS // length)
            for start in range(0, len(group), size):
                part = group[start : start + size]
                complete += self._advance(part, self._forward(part))
        return complete

    def _forward(self, rows: list[Row]) -> Tensor:
        ids = torch.tensor([[*row.prompt, *row.tokens] for row in rows], device=self.model.device)
        accepted = _arguments(self.model.model)
        options: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
        if "logits_to_keep" in accepted:
            options["logits_to_keep"] = 1
        mask = torch.ones_like(ids)
        with self.model.hooks.steer([r.steering for r in rows], mask, [len(r.prompt) for r in rows]):
            logits: Tensor = self.model.model(input_ids=ids, attention_mask=mask, **options).logits
        return logits[:, -1]


class ServedModel(LanguageModel, ABC):
    """A model that another engine runs, which decides itself how many texts are in memory."""

    @abstractmethod
    def open_batch(self) -> DecodingBatch:
        """Return an empty batch; texts of one before are given up."""

    @abstractmethod
    def close(self) -> None:
        """Free the memory; another batch loads the model again."""


def open_batch(model: SteerableModel | ServedModel) -> DecodingBatch:
    """Return an empty batch: that of another engine, or an own one.

    That is of the fast kind where the model gives the same logits in it, else of the slow kind. Models are tried once,
    on a few tokens: families differ in what their caches hold, and in whether padding is read as text.
    """
    if isinstance(model, ServedModel):
        return model.open_batch()
    if model.rows_can_enter is None:
        reason = why_uncached(model)
        model.rows_can_enter = reason == ""
        if reason:
            model.row_bytes = None
            warn(f"{type(model.model).__name__}: {reason}; texts are written without a cache, which is slower")
    return CachedBatch(model) if model.rows_can_enter else UncachedBatch(model)


def why_uncached(model: SteerableModel) -> str:
    """Return why texts of this model are written without a cache; empty if the cache gives the same logits."""
    if not {"past_key_values", "cache_params"} & _arguments(model.model):
        return "its forward pass takes no cache"
    try:
        found, expected = (_try_rows(model, kind) for kind in (CachedBatch, UncachedBatch))
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return f"rows cannot enter its cache ({type(error).__name__}: {str(error).splitlines()[0]:.80})"
    spread = float(expected.max() - expected.min())
    difference = float((found - expected).abs().max()) / max(spread, 1e-12)
    bound = 1e-3 if model.exact else 0.1
    return (
        "" if difference <= bound else f"its logits change by {difference:.1%} of their range where rows share a cache"
    )


def _try_rows(model: SteerableModel, kind: type[OwnBatch]) -> Tensor:
    """Return the logits of four texts of given tokens.

    Two of them enter late: one takes over a row, one needs a new row, and one is longer than what is in the cache.
    """
    seen: dict[int, list[Tensor]] = {}  # by the key of the row

    def follow(rows: Sequence[Row], logits: Tensor) -> list[int]:
        for row, of_row in zip(rows, logits, strict=True):
            seen.setdefault(row.key, []).append(of_row.float().cpu())
        return [row.prompt[len(row.tokens) % len(row.prompt)] for row in rows]

    vocabulary = model.model.config.get_text_config().vocab_size
    longest = max(1, min(12, model.context_length or 12) - 4)  # each has room for 4 new tokens
    rows = [
        Row(tuple((7 * i + 3 * name) % vocabulary for i in range(max(1, length))), Steering(), name, most, 1.0, 1.0)
        for name, length, most in ((1, longest - 4, 2), (2, longest - 3, 4), (3, longest, 4), (4, longest - 5, 3))
    ]
    batch = kind(model, follow)
    batch.ends = set()
    batch.add(rows[:2])
    batch.step()
    batch.add(rows[2:])
    if isinstance(batch, CachedBatch):
        model.row_bytes = batch.bytes_per_row()
    while batch.active:
        batch.step()
    return torch.stack([logits for key in sorted(seen) for logits in seen[key]])


def write_rows(model: SteerableModel | ServedModel, rows: Sequence[Row]) -> None:
    """Write texts to their ends, all in one batch."""
    batch = open_batch(model)
    batch.add(rows)
    while batch.active:
        batch.step()


def _arguments(model: Any) -> set[str]:
    """Return the names of the arguments of a model's forward pass."""
    return set(inspect.signature(model.forward).parameters)
