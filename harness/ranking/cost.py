"""The cost of an entry: tokens, seconds and devices, with its fits and its tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.records import Entry, TunedMethod, Usage, sum_or_none, total_usage
from harness.core.workers import map_forked
from harness.ranking.results import CELL, CellIndex, ResultSet
from harness.scoring.metrics import VALID_SHARE

_MANY = 500  # cells whose texts are counted in several processes


@dataclass(frozen=True)
class Cost:
    """The cost of the finished cells of an entry, as if the entry had been run alone.

    ``seconds``, ``prompt_tokens`` and ``new_tokens`` are those of generation, redraws included. A prompt
    counts once for every draw, as an API bills it; the engine reads it once per label and shares it.
    ``fit_*``: all fits, parts that they share counted once. ``tuning_*``: the whole search for the method's
    options, in every entry that uses them. A number is None where a cell, a fit or a search did not record it,
    ``valid_texts`` also where a cell has no ``valid_share``.

    Seconds on different devices, or on a machine that did something else as well, are not comparable;
    hence ``devices``. Loading the model, scoring, and failed attempts do not count.
    """

    texts: int
    valid_texts: int | None
    prompt_tokens: int | None
    new_tokens: int | None
    seconds: float
    fit_seconds: float | None
    fit_tokens: int | None
    tuning_seconds: float | None
    tuning_tokens: int | None
    devices: list[str]

    @property
    def texts_per_second(self) -> float | None:
        """Texts per second of generation, valid or not; None for texts that no model wrote."""
        return self.texts / self.seconds if self.seconds else None

    @property
    def seconds_per_1000_valid(self) -> float | None:
        """Seconds of generation, fits and tuning for every 1,000 valid texts."""
        return self._per_1000_valid([self.seconds, self.fit_seconds, self.tuning_seconds])

    @property
    def tokens_per_1000_valid(self) -> float | None:
        """Tokens of prompts, texts, fits and tuning for every 1,000 valid texts."""
        return self._per_1000_valid([self.prompt_tokens, self.new_tokens, self.fit_tokens, self.tuning_tokens])

    def _per_1000_valid(self, parts: Sequence[float | None]) -> float | None:
        amount = sum_or_none(parts)
        return 1000 * amount / self.valid_texts if amount is not None and self.valid_texts else None


def costs(results: ResultSet) -> dict[str, Cost]:
    """Return the cost of every entry that has a finished cell, by entry id."""
    lines = results.scores[results.scores["metric"] == VALID_SHARE.name].dropna(subset=["value"])
    shares: dict[CellIndex, float] = lines.set_index(CELL)["value"].to_dict()
    cells: dict[str, list[CellIndex]] = {}
    for index in results.cells:
        cells.setdefault(index[0], []).append(index)
    names = list(cells)
    found = map_forked(lambda name: _cost(results, name, cells[name], shares), names, len(results.cells) >= _MANY)
    return dict(zip(names, found, strict=True))


def _cost(results: ResultSet, name: str, cells: Sequence[CellIndex], shares: dict[CellIndex, float]) -> Cost:
    work = [results.work[index] for index in cells]
    sizes = {index: run.n_texts(cell) for index in cells for run, cell in [results.cells[index]]}
    fit, tuning = total_usage(each.fit for each in work), _tuning(results, results.entries[name].entry)
    return Cost(
        texts=sum(sizes.values()),
        valid_texts=sum_or_none(round(shares[c] * n) if c in shares else None for c, n in sizes.items()),
        prompt_tokens=sum_or_none(each.prompt_tokens for each in work),
        new_tokens=sum_or_none(each.new_tokens for each in work),
        seconds=round(sum((each.seconds for each in work if each.device), 0.0), 3),
        fit_seconds=fit.seconds if fit else None,
        fit_tokens=fit.tokens if fit else None,
        tuning_seconds=tuning.seconds if tuning else None,
        tuning_tokens=tuning.tokens if tuning else None,
        devices=sorted({each.device for each in work if each.device}),
    )


def _tuning(results: ResultSet, entry: Entry) -> Usage | None:
    """Return the cost of the search that an entry's options come from: 0 without a search, None if not recorded."""
    tuned = _tuned(results, entry)
    if tuned is None:
        return Usage(seconds=0.0, tokens=0)
    if tuned.tokens is None or tuned.fit is None:
        return None
    return Usage(seconds=round(tuned.seconds + tuned.fit.seconds, 3), tokens=tuned.tokens + tuned.fit.tokens)


def _tuned(results: ResultSet, entry: Entry) -> TunedMethod | None:
    """Return the search that an entry's options come from, None without one.

    A control has the search of the method that it controls, as it has its options and its fit; so has a prompting
    method that is steered by another.
    """
    method = entry.method
    key = next((key for key in ("of", "steering") if isinstance(method.config.get(key), str)), "")
    name, version = (method.config[key], method.config.get(f"{key}_version")) if key else (method.name, method.version)
    for manifest in results.manifests:
        tuned = manifest.tuning.get(name)
        if tuned is None or tuned.version != version or entry not in manifest.entries:
            continue
        if (tuned.options or {}).items() <= method.options.items():
            return tuned
    return None
