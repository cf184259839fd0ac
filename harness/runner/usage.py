"""What fits take: seconds, and tokens that the model reads, for every part of a fit; kept beside its files.

Readings are shared by methods, and fits by settings, seeds and controls. Each is measured once, when it is
done, and counts in full in every fit that uses it, as if that fit were alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.core.errors import BrokenFileError, UserError
from harness.core.files import write_json
from harness.core.reading import read_json
from harness.core.records import SCHEMA, FitCost, Usage, UsageByStep, format_validation_error

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel


def cost_key(path: Path) -> str:
    """Return the name of the part that left a file, such as ``steering/ID``."""
    return f"{path.parent.name}/{path.stem}"


def write_cost(path: Path, parts: UsageByStep) -> None:
    """Write what making the file ``path`` took, beside it."""
    write_json(_beside(path), FitCost(parts=parts).to_json())


def read_cost(path: Path) -> UsageByStep:
    """Return what making the file ``path`` took; a single part that is not known where no file says."""
    place = _beside(path)
    if not place.is_file():
        return {cost_key(path): None}
    try:
        return FitCost.model_validate(read_json(place, SCHEMA)).parts
    except ValidationError as error:
        raise BrokenFileError(
            f"{place} holds no cost: {format_validation_error(error)}. Delete it and run again."
        ) from None
    except UserError as error:  # no method is at fault
        raise BrokenFileError(str(error)) from None


def _beside(path: Path) -> Path:
    return path.with_suffix(".cost.json")


@dataclass
class FitUsage:
    """A part while it is at work: the tokens read so far, and what of it belongs to parts inside it."""

    tokens: int = 0
    inner_seconds: float = 0.0
    parts: UsageByStep = field(default_factory=dict)


class UsageMeter:
    """Measures parts, also within one another: what an inner part takes is not the outer one's own."""

    def __init__(self) -> None:
        self._open: list[FitUsage] = []

    @contextmanager
    def part(self, name: str, model: SteerableModel) -> Iterator[FitUsage]:
        """Measure the block; afterwards its ``parts`` hold it and all that it used."""
        measured, started = FitUsage(), time.monotonic()
        try:
            with ExitStack() as stack:
                if not self._open:
                    hook = model.decoder.register_forward_pre_hook(self._count, with_kwargs=True)
                    stack.callback(hook.remove)
                self._open.append(measured)
                stack.callback(self._open.pop)
                yield measured
        finally:
            seconds = time.monotonic() - started
            if self._open:
                self._open[-1].inner_seconds += seconds
        own = round(seconds - measured.inner_seconds, 3)
        measured.parts[name] = Usage(seconds=own, tokens=measured.tokens)

    def use(self, parts: Mapping[str, Usage | None]) -> None:
        """Note parts, measured now or before, as used by the part at work, if there is one."""
        if self._open:
            self._open[-1].parts.update(parts)

    def _count(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._open[-1].tokens += _tokens_read(args, kwargs)


def _tokens_read(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return how many tokens a pass through a decoder reads: no padding, and nothing of a cache."""
    read = kwargs.get("input_ids", args[0] if args else None)
    read = kwargs.get("inputs_embeds") if read is None else read
    if read is None:
        return 0
    rows, positions = read.shape[:2]
    mask = kwargs.get("attention_mask")
    if mask is None or mask.ndim != 2:
        return int(rows * positions)
    return int(mask[:, -positions:].sum())
