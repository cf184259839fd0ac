"""Whether the texts are what was asked for: language, script, label, and no degenerate or chatting text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score
from harness.scoring.checks import PromptEchoDetector, empty, is_repetition_loop, script_of, script_share
from harness.scoring.gibberish import CharacterNgramModel
from harness.scoring.identification import Identifier, LanguageIdentifier, Piece, detect_language
from harness.scoring.labels import LabelVerifier
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
from harness.scoring.scorer import ScorerOutput, ScoringContext, TextSample
from harness.scoring.word_order import SIGNATURE, WordOrder, word_order

DEGENERATE_KINDS = ("empty", "loop", "echo", "gibberish")
CHAT_KINDS = ("refusal", "preamble")
REASONS = ("language", "script", *DEGENERATE_KINDS, *CHAT_KINDS)
"""Why a text may be invalid."""

MOST_OF_IT = 0.5
"""More than this share of a text's characters must stand in sentences of the language; at least this share
of its letters must be of the script."""

_RECENT = 2  # the texts of a cell and the human text beside them


class CheckedTexts(NamedTuple):
    """Per text: whether it passes every check, the reasons if not, and its main language ("" for none)."""

    valid: NDArray[np.bool_]
    reasons: list[list[str]]
    languages: list[str]


@dataclass(frozen=True)
class _Findings:
    """What the checks found per text: sentences as languages and sizes, share of letters in the script."""

    pieces: list[list[Piece]]
    script: list[float | None]
    reasons: list[list[str]]

    @property
    def checked(self) -> CheckedTexts:
        valid = np.array([not found for found in self.reasons], dtype=np.bool_)
        return CheckedTexts(valid, self.reasons, [main_language(row) for row in self.pieces])

    def share(self, *kinds: str) -> list[float]:
        """Return 1 for every text with one of these reasons, else 0."""
        return [float(not set(kinds).isdisjoint(found)) for found in self.reasons]


class _Standards:
    """What texts of one place are held against; made once, from its human text."""

    def __init__(self, place: ScoringContext, identifier: LanguageIdentifier) -> None:
        self.place = place
        self.script = script_of(place.language)
        self.echoes = {label: PromptEchoDetector([prompt]) for label, prompt in place.prompts.items()}
        known = [text for text, _ in place.train] + list(identifier.texts.get(place.language, []))
        self._human = known
        held_out = [text for text, _ in place.validation]
        if not held_out:
            held_out, known = known[::5], [text for i, text in enumerate(known) if i % 5]
        self.known = CharacterNgramModel(known, held_out)

    @cached_property
    def order(self) -> WordOrder:
        return WordOrder(self._human)

    @cached_property
    def judge(self) -> LabelVerifier:
        return LabelVerifier(self.place.train, self.place.labels)


class ValidityScorer:
    """Checks every text and scores how many pass; see ``Part``.

    ``identifier`` makes the suite's identifier of languages when texts are first checked. The scorer calls
    ``check`` first, for the mask of valid texts; the findings are kept for ``score``.
    """

    name = "validity"
    human = True
    signature = (
        f"checks:2|language:tfidf-char_wb-1-3+logreg+neighbours|order:{SIGNATURE}"
        f"|label:{LabelVerifier.signature}|version:2"
    )

    def __init__(self, identifier: Callable[[], LanguageIdentifier]) -> None:
        self._make = identifier
        self._standards: _Standards | None = None
        self._recent: list[tuple[ScoringContext, list[str], list[str], _Findings]] = []

    @cached_property
    def _identifier(self) -> LanguageIdentifier:
        return self._make()

    def check(self, texts: Sequence[str], labels: Sequence[str], place: ScoringContext) -> CheckedTexts:
        """Return which texts pass every check, the reasons of those that do not, and their languages."""
        return self._find(texts, labels, place).checked

    def score(self, sample: TextSample, place: ScoringContext) -> ScorerOutput:
        """See ``Part.score``."""
        findings = self._find(sample.texts, sample.labels, place)
        checked = findings.checked
        judge = self._standards_of(place).judge
        judged = None if judge.missing else judge.labels(sample.texts)
        scores = [
            self._share(VALID_SHARE, checked.valid, {kind: findings.share(kind) for kind in REASONS}),
            *language_scores(findings.pieces, place.language, self._identifier.signature),
            self._label(judged, sample, place),
            self._script(findings.script, place.language),
            word_order(self._standards_of(place).order.above(sample.texts)),
            self._share(
                DEGENERATE,
                findings.share(*DEGENERATE_KINDS),
                {kind: findings.share(kind) for kind in DEGENERATE_KINDS},
            ),
            self._share(REFUSALS, findings.share(*CHAT_KINDS), {kind: findings.share(kind) for kind in CHAT_KINDS}),
        ]
        kept = {"valid": checked.valid.tolist(), "reasons": checked.reasons, "language": checked.languages}
        if judged is not None:
            kept["label"] = judged
        return ScorerOutput(scores, kept)

    def _find(self, texts: Sequence[str], labels: Sequence[str], place: ScoringContext) -> _Findings:
        for known, known_texts, known_labels, findings in self._recent:
            if known is place and known_texts == list(texts) and known_labels == list(labels):
                return findings
        standards = self._standards_of(place)
        pieces = detect_language(self._identifier, texts, place.language)
        script = [script_share(text, standards.script) for text in texts]
        odd = standards.known.gibberish(texts)
        reasons = [
            _reasons(text, label, standards, pieces[i], script[i], bool(odd[i]))
            for i, (text, label) in enumerate(zip(texts, labels, strict=True))
        ]
        findings = _Findings(pieces, script, reasons)
        self._recent = [*self._recent[1 - _RECENT :], (place, list(texts), list(labels), findings)]
        return findings

    def _standards_of(self, place: ScoringContext) -> _Standards:
        if self._standards is None or self._standards.place is not place:
            self._standards = _Standards(place, self._identifier)
        return self._standards

    def _share(
        self, metric: Metric, flags: Sequence[float] | NDArray[np.bool_], detail: dict[str, list[float]]
    ) -> Score:
        return mean_score(metric, [float(flag) for flag in flags], self.signature, detail)

    def _label(self, judged: list[str] | None, sample: TextSample, place: ScoringContext) -> Score:
        judge = self._standards_of(place).judge
        if judged is None:
            return LABEL_FIDELITY.score(None, judge.signature, judge.missing)
        hits = [float(a == b) for a, b in zip(judged, sample.labels, strict=True)]
        by_label = {
            label: [hit for hit, asked in zip(hits, sample.labels, strict=True) if asked == label]
            for label in place.labels
        }
        return mean_score(LABEL_FIDELITY, hits, judge.signature, by_label)

    def _script(self, shares: list[float | None], code: str) -> Score:
        script = script_of(code)
        signature = f"letters:Script={script}|version:1"
        if shares and script == "Zyyy":
            return SCRIPT_SHARE.score(None, signature, f"the script of {code!r} is not known")
        return mean_score(SCRIPT_SHARE, [share or 0.0 for share in shares], signature, {})


class IdentifierScorer:
    """Language fidelity by another identifier, such as GlotLID; see ``Part``.

    ``beside``: the part whose identifier it is held against: the share of texts with the same main language
    stands in the detail as ``agreement``.
    """

    human = True

    def __init__(self, identifier: Identifier, beside: ValidityScorer | None = None) -> None:
        self._identifier, self._beside = identifier, beside
        self.name = f"language/{identifier.name}"
        self.signature = f"{identifier.signature}|sentences:1"

    def score(self, sample: TextSample, place: ScoringContext) -> ScorerOutput:
        """See ``Part.score``."""
        pieces = detect_language(self._identifier, sample.texts, place.language)
        languages = [main_language(row) for row in pieces]
        scores = language_scores(pieces, place.language, self.signature, self._identifier.name)
        if self._beside and languages:
            others = self._beside.check(sample.texts, sample.labels, place).languages
            agreement = float(np.mean([a == b for a, b in zip(languages, others, strict=True)]))
            detail = {**scores[0].detail, "agreement": agreement}
            scores[0] = scores[0].model_copy(update={"detail": detail})
        return ScorerOutput(scores, {"language": languages})


def main_language(pieces: list[Piece]) -> str:
    """Return the language of most of a text's characters; empty for a text without letters."""
    sizes: dict[str, int] = {}
    for code, size in pieces:
        sizes[code] = sizes.get(code, 0) + size
    return max(sizes, key=lambda code: sizes[code]) if sizes else ""


def language_scores(pieces: list[list[Piece]], code: str, signature: str, of: str = "") -> list[Score]:
    """Return the shares of characters and of sentences in a language; a text without letters counts as 0.

    The detail of the first is the share of every language that was found.
    """
    characters = {
        found: [_characters(row, found) for row in pieces]
        for found in sorted({code} | {other for row in pieces for other, _ in row})
    }
    sentences = [sum(found == code for found, _ in row) / max(len(row), 1) for row in pieces]
    metrics = [LANGUAGE_FIDELITY, LANGUAGE_SENTENCES]
    first, second = (metric.for_provider(of) for metric in metrics) if of else metrics
    return [
        mean_score(first, characters[code], signature, characters),
        mean_score(second, sentences, signature, {}),
    ]


def mean_score(metric: Metric, values: list[float], signature: str, detail: dict[str, list[float]]) -> Score:
    """Return the mean of values from 0 to 1, one per text, with Wilson's interval (1927).

    The interval is that of a share. For values between 0 and 1 it is too wide, never too narrow: none
    varies more than 0 and 1 do. ``detail``: further values per text, of which the means are kept.
    """
    if not values:
        return metric.score(None, signature, "no texts")
    means = {name: float(np.mean(found)) for name, found in detail.items() if found}
    mean = float(np.mean(values))
    return metric.score(mean, signature, interval=wilson(mean, len(values)), detail=means)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of ``n`` texts; it is no point where all texts agree."""
    z = 1.959963984540054
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return (max(centre - half, 0.0), min(centre + half, 1.0))


def _characters(pieces: list[Piece], code: str) -> float:
    total = sum(size for _, size in pieces)
    return sum(size for found, size in pieces if found == code) / total if total else 0.0


def _reasons(
    text: str, label: str, standards: _Standards, pieces: list[Piece], script: float | None, odd: bool
) -> list[str]:
    if empty(text):
        return ["empty"]
    code = standards.place.language
    foreign = script is not None and script < MOST_OF_IT
    found = {
        "language": _characters(pieces, code) <= MOST_OF_IT,
        "script": foreign,
        "loop": is_repetition_loop(text),
        "echo": label in standards.echoes and standards.echoes[label].heard(text),
        "gibberish": odd and not foreign,  # in another script there is nothing to know
        "refusal": is_refusal(text, code),
        "preamble": has_chat_preamble(text, code),
    }
    return [reason for reason in REASONS if found.get(reason)]
