"""Whether the texts are what was asked for: language, script, label, and no degenerate or chatting text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score
from harness.scoring.checks import (
    CharacterNgramModel,
    PromptEchoDetector,
    empty,
    is_repetition_loop,
    script_of,
    script_share,
)
from harness.scoring.identification import Identifier, LanguageIdentifier, Piece, detect_language
from harness.scoring.linear_classifiers import LabelVerifier
from harness.scoring.metrics import (
    DEGENERATE,
    LABEL_FIDELITY,
    LANGUAGE_FIDELITY,
    LANGUAGE_SENTENCES,
    REFUSALS,
    SCRIPT_SHARE,
    VALID_SHARE,
    Metric,
)
from harness.scoring.refusals import has_chat_preamble, is_refusal
from harness.scoring.scorer import PerContext, ScorerOutput, ScoringContext, TextSample
from harness.scoring.word_order import SIGNATURE, WordOrder, word_order

DEGENERATE_KINDS = ("empty", "loop", "echo", "gibberish")
CHAT_KINDS = ("refusal", "preamble")
REASONS = ("language", "script", *DEGENERATE_KINDS, *CHAT_KINDS)
"""Why a text may be invalid."""

MOST_OF_IT = 0.5
"""More than this share of a text's characters must be in sentences of the language; at least this share of its letters
must be of the script."""

_RECENT = 2  # the texts of a cell and the human-written text that is reported next to them


class CheckedTexts(NamedTuple):
    """Per text: whether it passes every check, the reasons if not, and its main language ("" for none)."""

    valid: NDArray[np.bool_]
    reasons: list[list[str]]
    languages: list[str]


@dataclass(frozen=True)
class _Findings:
    """Per text: sentences as (language, characters), share of letters in the script, reasons why it is invalid."""

    pieces: list[list[Piece]]
    script: list[float | None]
    reasons: list[list[str]]

    @property
    def checked(self) -> CheckedTexts:
        valid = np.array([not found for found in self.reasons], dtype=np.bool_)
        return CheckedTexts(valid, self.reasons, [main_language(row) for row in self.pieces])

    def score(self, metric: Metric, signature: str, kinds: Sequence[str], without: bool = False) -> Score:
        """Return the share of texts with one of these reasons, or ``without`` any; each reason in the detail."""
        detail = {kind: [float(kind in found) for found in self.reasons] for kind in kinds}
        values = [float(set(kinds).isdisjoint(found) is without) for found in self.reasons]
        return mean_score(metric, values, signature, detail)


class _Models:
    """The models that the texts of a context are checked with, made from its human-written text."""

    def __init__(self, context: ScoringContext, identifier: LanguageIdentifier) -> None:
        self.context = context
        self.script = script_of(context.language)
        self.echoes = {label: PromptEchoDetector([prompt]) for label, prompt in context.prompts.items()}
        known = [text for text, _ in context.train] + list(identifier.texts.get(context.language, []))
        self.order = cache(lambda human=known: WordOrder(human))
        self.labels = cache(lambda: LabelVerifier(context.train, context.labels))
        held_out = [text for text, _ in context.validation]
        if not held_out:
            held_out, known = known[::5], [text for i, text in enumerate(known) if i % 5]
        self.characters = CharacterNgramModel(known, held_out)


class ValidityScorer:
    """Checks every text and scores how many pass.

    ``identifier`` makes the suite's language identifier when texts are first checked. ``check`` is called first, for
    the mask of valid texts; its findings are kept for ``score``.
    """

    name = "validity"
    human = True
    signature = (
        f"checks:2|language:tfidf-char_wb-1-3+logreg+neighbours|order:{SIGNATURE}"
        f"|label:{LabelVerifier.signature}|version:2"
    )

    def __init__(self, identifier: Callable[[], LanguageIdentifier]) -> None:
        self._identifier = cache(identifier)
        self._models = PerContext(lambda context: _Models(context, self._identifier()))
        self._recent: list[tuple[ScoringContext, list[str], list[str], _Findings]] = []

    def check(self, texts: Sequence[str], labels: Sequence[str], context: ScoringContext) -> CheckedTexts:
        """Return which texts pass every check, the reasons of those that do not, and their languages."""
        return self._find(texts, labels, context).checked

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return the validity metrics; artifacts per text: ``valid``, ``reasons``, ``language`` and ``label``."""
        findings, models = self._find(sample.texts, sample.labels, context), self._models(context)
        checked, verifier = findings.checked, models.labels()
        predicted = None if verifier.missing else verifier.labels(sample.texts)
        scores = [
            findings.score(VALID_SHARE, self.signature, REASONS, without=True),
            *language_scores(findings.pieces, context.language, self._identifier().signature),
            _label_score(predicted, verifier, sample, context),
            _script_score(findings.script, models.script, context.language),
            word_order(models.order().above(sample.texts)),
            findings.score(DEGENERATE, self.signature, DEGENERATE_KINDS),
            findings.score(REFUSALS, self.signature, CHAT_KINDS),
        ]
        artifacts = {"valid": checked.valid.tolist(), "reasons": checked.reasons, "language": checked.languages}
        return ScorerOutput(scores, artifacts if predicted is None else {**artifacts, "label": predicted})

    def _find(self, texts: Sequence[str], labels: Sequence[str], context: ScoringContext) -> _Findings:
        for known, known_texts, known_labels, findings in self._recent:
            if known is context and known_texts == list(texts) and known_labels == list(labels):
                return findings
        models = self._models(context)
        pieces = detect_language(self._identifier(), texts, context.language)
        script = [script_share(text, models.script) for text in texts]
        odd = models.characters.gibberish(texts)
        reasons = [
            _reasons(text, label, models, pieces[i], script[i], bool(odd[i]))
            for i, (text, label) in enumerate(zip(texts, labels, strict=True))
        ]
        findings = _Findings(pieces, script, reasons)
        self._recent = [*self._recent[1 - _RECENT :], (context, list(texts), list(labels), findings)]
        return findings


class IdentifierScorer:
    """Language fidelity by another identifier, such as GlotLID.

    ``compared``: the scorer whose identifier it is compared with: ``agreement`` in the detail is the share of texts
    with the same main language.
    """

    human = True

    def __init__(self, identifier: Identifier, compared: ValidityScorer | None = None) -> None:
        self._identifier, self._compared = identifier, compared
        self.name = f"language/{identifier.name}"
        self.signature = f"{identifier.signature}|sentences:1"

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return the language scores; artifacts: the main language of every text."""
        pieces = detect_language(self._identifier, sample.texts, context.language)
        languages = [main_language(row) for row in pieces]
        scores = language_scores(pieces, context.language, self.signature, self._identifier.name)
        if self._compared and languages:
            others = self._compared.check(sample.texts, sample.labels, context).languages
            agreement = float(np.mean([a == b for a, b in zip(languages, others, strict=True)]))
            scores[0] = scores[0].model_copy(update={"detail": {**scores[0].detail, "agreement": agreement}})
        return ScorerOutput(scores, {"language": languages})


def main_language(pieces: list[Piece]) -> str:
    """Return the language of most of a text's characters; empty for a text without letters."""
    sizes: dict[str, int] = {}
    for code, size in pieces:
        sizes[code] = sizes.get(code, 0) + size
    return max(sizes, key=lambda code: sizes[code]) if sizes else ""


def language_scores(pieces: list[list[Piece]], code: str, signature: str, provider: str = "") -> list[Score]:
    """Return the shares of characters and of sentences in a language; a text without letters counts as 0.

    The detail of the first is the share of every language that was found.
    """
    characters = {
        found: [_share_of_characters(row, found) for row in pieces]
        for found in sorted({code} | {other for row in pieces for other, _ in row})
    }
    sentences = [sum(found == code for found, _ in row) / max(len(row), 1) for row in pieces]
    metrics = [LANGUAGE_FIDELITY, LANGUAGE_SENTENCES]
    first, second = (metric.for_provider(provider) for metric in metrics) if provider else metrics
    return [
        mean_score(first, characters[code], signature, characters),
        mean_score(second, sentences, signature, {}),
    ]


def mean_score(metric: Metric, values: list[float], signature: str, detail: dict[str, list[float]]) -> Score:
    """Return the mean of values from 0 to 1, one per text, with Wilson's interval (1927).

    The interval is that of a share. For values between 0 and 1 it is conservative: none varies more than 0 and 1 do.
    ``detail``: further values per text, of which the means are stored.
    """
    if not values:
        return metric.score(None, signature, "no texts")
    means = {name: float(np.mean(found)) for name, found in detail.items() if found}
    mean = float(np.mean(values))
    return metric.score(mean, signature, interval=wilson(mean, len(values)), detail=means)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of ``n`` texts; it has a width even where all texts agree."""
    z = 1.959963984540054
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return (max(centre - half, 0.0), min(centre + half, 1.0))


def _label_score(
    predicted: list[str] | None, verifier: LabelVerifier, sample: TextSample, context: ScoringContext
) -> Score:
    if predicted is None:
        return LABEL_FIDELITY.score(None, verifier.signature, verifier.missing)
    hits = [float(a == b) for a, b in zip(predicted, sample.labels, strict=True)]
    by_label = {
        label: [hit for hit, asked in zip(hits, sample.labels, strict=True) if asked == label]
        for label in context.labels
    }
    return mean_score(LABEL_FIDELITY, hits, verifier.signature, by_label)


def _script_score(shares: list[float | None], script: str, code: str) -> Score:
    signature = f"letters:Script={script}|version:1"
    if shares and script == "Zyyy":
        return SCRIPT_SHARE.score(None, signature, f"the script of {code!r} is not known")
    return mean_score(SCRIPT_SHARE, [share or 0.0 for share in shares], signature, {})


def _share_of_characters(pieces: list[Piece], code: str) -> float:
    total = sum(size for _, size in pieces)
    return sum(size for found, size in pieces if found == code) / total if total else 0.0


def _reasons(text: str, label: str, models: _Models, pieces: list[Piece], script: float | None, odd: bool) -> list[str]:
    if empty(text):
        return ["empty"]
    code = models.context.language
    foreign = script is not None and script < MOST_OF_IT
    found = {
        "language": _share_of_characters(pieces, code) <= MOST_OF_IT,
        "script": foreign,
        "loop": is_repetition_loop(text),
        "echo": label in models.echoes and models.echoes[label].echoed(text),
        "gibberish": odd and not foreign,  # all n-grams of another script are unknown
        "refusal": is_refusal(text, code),
        "preamble": has_chat_preamble(text, code),
    }
    return [reason for reason in REASONS if found.get(reason)]
