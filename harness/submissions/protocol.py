"""The protocol a submission is checked against: suite, human reference text and expected cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.cells import cell_id
from harness.core.errors import UserError
from harness.core.files import JsonValue, digest
from harness.core.records import CellKey, Manifest, ModelIdentity
from harness.data.contrast import open_contrast
from harness.data.corpus import Corpus
from harness.data.sources import open_data
from harness.data.suite import Suite, load_suite, prompt_format_of, suite_files
from harness.runner.plan import describe_subset
from harness.submissions.card import Card, CardResult
from harness.submissions.files import CARD, InvalidSubmissionError

_MAX_TEXT = 2_000  # characters of any text in a manifest


@dataclass(frozen=True)
class CheckInputs:
    """Where to look: a suite's file, the directories of human and contrast text; None for the usual ones."""

    suite: str | None = None
    data: Path | None = None
    contrast: Path | None = None


@dataclass(frozen=True)
class Protocol:
    """The suite, and its human text where it is available without a network."""

    suite: Suite
    corpus: Corpus | None

    def require_corpus(self) -> Corpus:
        """Return the human text; ``UserError`` where it is not available."""
        if self.corpus is None:
            raise UserError("the human text is not available. Pass its directory with --data.")
        return self.corpus


def resolve_protocol(card: Card, manifest: Manifest, inputs: CheckInputs, file: str, online: bool) -> Protocol:
    """Return the protocol for the results of a model. The suite is ours, never that of the submission.

    ``online``: whether data may come from the hub. Raises ``InvalidSubmissionError`` for any other suite.
    """
    name = inputs.suite or card.suite.name
    if inputs.suite is None and name not in suite_files():
        hint = "Pass its file with --suite, or use one that 'steerboard list suites' names."
        raise InvalidSubmissionError(CARD, f"the suite {name!r} does not ship", hint)
    suite = load_suite(name)
    if suite.families:
        suite = suite.for_model(_model_type(manifest))
    suite = suite.for_format(prompt_format_of(manifest.suite))
    if wrong := {card.suite.hash, manifest.suite_hash, digest(manifest.suite, 16)} - {suite.hash}:
        problem = f"is of another suite than {suite.name} {suite.hash} as it is here ({', '.join(sorted(wrong))})"
        raise InvalidSubmissionError(file, problem, "Run it again with this suite.")
    shipped = suite.folder("data")
    local = inputs.data or (shipped if shipped and shipped.is_dir() else None)
    contrast_missing = manifest.contrast is not None and inputs.contrast is None
    if contrast_missing and online:
        raise UserError("the run used its own contrast text. Pass its directory with --contrast.")
    if contrast_missing or (local is None and not online):
        return Protocol(suite, None)
    contrast = open_contrast(inputs.contrast) if manifest.contrast is not None else None
    return Protocol(suite, Corpus(suite, open_data(suite, local), contrast))


def _model_type(manifest: Manifest) -> str:
    families = manifest.suite.get("families")
    first = next(iter(families.values()), None) if isinstance(families, dict) else None
    types = first.get("model_types") if isinstance(first, dict) else None
    return str(types[0]) if isinstance(types, list) and types else ""


def check_manifest(
    card: Card, result: CardResult, manifest: Manifest, protocol: Protocol, file: str
) -> Iterator[InvalidSubmissionError]:
    """Yield what in a manifest is not what the card, the suite or the data say."""
    suite, chosen, model = protocol.suite, manifest.selection, card.model(result)
    if card.suite.prompt_format != prompt_format_of(manifest.suite):
        yield InvalidSubmissionError(file, f"its prompt format is not the one in {CARD}")
    if manifest.model != model:
        yield InvalidSubmissionError(file, f"its model is not the one in {CARD}")
    settings = [entry.setting for entry in manifest.entries]
    allowed: Sequence[str] = suite.settings if model else ["none"]
    foreign = any((entry.method, entry.model) != (card.identity, model) for entry in manifest.entries)
    if foreign or not settings or len({*settings}) < len(settings) or not {*settings} <= {*allowed}:
        problem = f"its entries are not those of {card.method.name} on {result.model}, once per setting"
        yield InvalidSubmissionError(file, problem)
    axes: dict[str, tuple[Sequence[object], Sequence[object]]] = {
        "languages": (chosen.languages, suite.languages),
        "tasks": (chosen.tasks, list(suite.tasks)),
        "settings": (chosen.settings, suite.settings),
        "seeds": (chosen.seeds, suite.seeds),
    }
    for name, (values, full) in axes.items():
        if not values or list(values) != [value for value in full if value in values]:
            yield InvalidSubmissionError(file, f"its {name} are not those of the suite, in that order")
    sizes = chosen.texts_per_label
    wrong = {*sizes} != {*chosen.tasks} or any(
        not 1 <= size <= suite.tasks[task].texts_per_label for task, size in sizes.items() if task in suite.tasks
    )
    if wrong or chosen.narrowed != describe_subset(suite, chosen):
        yield InvalidSubmissionError(file, "does not correctly state which part of the suite was run")
    yield from _check_data(manifest, protocol, file)
    if any(len(text) > _MAX_TEXT for text in _strings(manifest.model_dump(exclude={"suite"}))):
        yield InvalidSubmissionError(file, f"holds a text of more than {_MAX_TEXT:,} characters", "Shorten it.")


def _check_data(manifest: Manifest, protocol: Protocol, file: str) -> Iterator[InvalidSubmissionError]:
    pairs = [(task, code) for task in manifest.selection.tasks for code in manifest.selection.languages]
    if not {f"{task}/{code}" for task, code in pairs} <= {*manifest.data_hashes}:
        yield InvalidSubmissionError(file, "the hashes of some of the data are missing")
    corpus, definitions = protocol.corpus, protocol.suite.definitions
    for task, code in pairs if corpus else ():
        assert corpus is not None
        known = code in definitions.get(task, {})
        if known and manifest.data_hashes.get(f"{task}/{code}") != corpus.fingerprint(task, code):
            problem = f"was made with other human text of {task}/{code} than {corpus.source.description} holds"
            yield InvalidSubmissionError(file, problem, "Run it on the suite's data, or pass the right --data.")
            return


def _strings(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _strings(inner)


def expected_cells(card: Card, manifest: Manifest, suite: Suite, model: ModelIdentity | None) -> dict[str, CellKey]:
    """Return id -> key of every cell in the selection of a manifest, from the suite's own definitions."""
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
