"""What a submission is held against: the suite, its human text, and the cells that there have to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.cells import cell_id
from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.records import CellKey, Manifest, ModelIdentity
from harness.data.contrast import open_contrast
from harness.data.corpus import Corpus
from harness.data.sources import open_data
from harness.data.suite import Suite, load_suite, suite_files
from harness.runner.plan import describe_subset
from harness.submissions.card import Card, CardResult
from harness.submissions.strict_io import InvalidSubmissionError

_LONGEST = 2_000
_AGAIN = "Pack it again with 'steerboard submission pack'."


@dataclass(frozen=True)
class CheckInputs:
    """Where to look: a suite's file, the folder of human text, that of contrast text; None for the usual."""

    suite: str | None = None
    data: Path | None = None
    contrast: Path | None = None


@dataclass(frozen=True)
class Protocol:
    """The suite, and its human text where it is at hand without a network."""

    suite: Suite
    corpus: Corpus | None


def resolve_protocol(card: Card, manifest: Manifest, places: CheckInputs, file: str, online: bool) -> Protocol:
    """Return what the results of a model are held against. The suite is ours, never that of the submission.

    ``online``: whether data may come from the hub. Raises ``InvalidSubmissionError`` for a suite that is not ours.
    """
    name = places.suite or card.suite.name
    if places.suite is None and name not in suite_files():
        todo = "Give its file with --suite, or use one that 'steerboard list suites' names."
        raise InvalidSubmissionError("submission.yaml", f"the suite {name!r} does not ship", todo)
    suite = load_suite(name)
    if suite.families:
        suite = suite.for_model(_model_type(manifest))
    claimed = {card.suite.hash, manifest.suite_hash, digest(manifest.suite, 16)}
    if claimed != {suite.hash}:
        found = ", ".join(sorted(claimed - {suite.hash}))
        what = f"is of another suite than {suite.name} {suite.hash} as it is here ({found})"
        raise InvalidSubmissionError(file, what, "Run it again with this suite.")
    shipped = suite.folder("data")
    at_hand = places.data or (shipped if shipped and shipped.is_dir() else None)
    if at_hand is None and not online:
        return Protocol(suite, None)
    if manifest.contrast is not None and places.contrast is None:
        if online:
            raise UserError("the run had contrast text of its own. Give its folder with --contrast.")
        return Protocol(suite, None)
    contrast = open_contrast(places.contrast) if manifest.contrast is not None else None
    return Protocol(suite, Corpus(suite, open_data(suite, at_hand), contrast))


def _model_type(manifest: Manifest) -> str:
    families = manifest.suite.get("families")
    kinds = (
        [f.get("model_types") for f in families.values() if isinstance(f, dict)] if isinstance(families, dict) else []
    )
    first = kinds[0][0] if kinds and isinstance(kinds[0], list) and kinds[0] else ""
    return str(first)


def manifest_problems(
    card: Card, result: CardResult, manifest: Manifest, ground: Protocol, file: str
) -> Iterator[InvalidSubmissionError]:
    """Yield what of a manifest is not what the card, the suite or the data say."""
    suite, chosen = ground.suite, manifest.selection
    model = card.model(result)
    if manifest.model != model:
        yield InvalidSubmissionError(file, "its model is not the one in submission.yaml", _AGAIN)
    settings = [entry.setting for entry in manifest.entries]
    allowed: Sequence[str] = suite.settings if model else ["none"]
    foreign = [e for e in manifest.entries if (e.method, e.model) != (card.identity, model)]
    if foreign or not settings or len(set(settings)) < len(settings) or not {*settings} <= {*allowed}:
        what = f"its entries are not those of {card.method.name} on {result.model}, once per setting"
        yield InvalidSubmissionError(file, what, _AGAIN)
    parts: list[tuple[str, Sequence[Any], Sequence[Any]]] = [
        ("languages", chosen.languages, suite.languages),
        ("tasks", chosen.tasks, list(suite.tasks)),
        ("settings", chosen.settings, suite.settings),
        ("seeds", chosen.seeds, suite.seeds),
    ]
    for name, values, full in parts:
        if not values or list(values) != [value for value in full if value in values]:
            yield InvalidSubmissionError(file, f"its {name} are not those of the suite, in that order", _AGAIN)
    sizes = chosen.texts_per_label
    wrong = {*sizes} != {*chosen.tasks} or any(
        not 1 <= sizes[task] <= suite.tasks[task].texts_per_label for task in sizes if task in suite.tasks
    )
    if wrong or chosen.narrowed != describe_subset(suite, chosen):
        yield InvalidSubmissionError(file, "does not say rightly what of the suite was run", _AGAIN)
    yield from _data_problems(manifest, ground, file)
    if any(len(text) > _LONGEST for text in _strings(manifest.model_dump(exclude={"suite"}))):
        yield InvalidSubmissionError(file, f"holds a text of more than {_LONGEST:,} signs", "Shorten it.")


def _data_problems(manifest: Manifest, ground: Protocol, file: str) -> Iterator[InvalidSubmissionError]:
    chosen = manifest.selection
    places = [f"{task}/{code}" for task in chosen.tasks for code in chosen.languages]
    if not {*places} <= {*manifest.data_hashes}:
        yield InvalidSubmissionError(file, "lacks the hashes of some of the data", _AGAIN)
    if ground.corpus is None:
        return
    for place in places:
        task, _, code = place.partition("/")
        if task not in ground.suite.definitions or code not in ground.suite.definitions[task]:
            continue
        if manifest.data_hashes.get(place) != ground.corpus.fingerprint(task, code):
            what = f"was made with other human text of {place} than {ground.corpus.source.description} holds"
            yield InvalidSubmissionError(file, what, "Run it on the suite's data, or give the right --data.")
            return


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def expected_cells(card: Card, manifest: Manifest, suite: Suite, model: ModelIdentity | None) -> dict[str, CellKey]:
    """Return id -> key of every cell that the selection of a manifest has, from the suite's own words."""
    chosen = manifest.selection
    keys = [
        CellKey(
            suite=suite.name,
            text_protocol=suite.text_protocol(task, code),
            data=manifest.data_hashes.get(f"{task}/{code}", ""),
            model=model,
            method=card.identity,
            task=task,
            language=code,
            setting=entry.setting,
            seed=seed,
            texts_per_label=chosen.texts_per_label[task],
        )
        for task in chosen.tasks
        for code in chosen.languages
        for entry in manifest.entries
        for seed in chosen.seeds
    ]
    return {cell_id(key): key for key in keys}
