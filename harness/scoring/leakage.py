"""How much of the texts stands in text that their method or model has seen, or must not have seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.core.records import Score
from harness.scoring import copies
from harness.scoring.bounds import share_interval
from harness.scoring.copies import CopyDetector, QueryNgrams
from harness.scoring.folding import normalise_for_matching
from harness.scoring.metrics import COPIED, OVERLAP
from harness.scoring.ngrams import Ngrams, distinct
from harness.scoring.scorer import ScorerOutput, ScoringContext, TextSample
from harness.scoring.subsampling import mean_interval

CORPORA = ("demonstrations", "train", "validation", "test", "vectors")
"""What texts are held against: the suite's few-shot demonstrations of the same label (in zero-shot cells
too, where they show what chance gives), the labelled splits, and the text that vectors are made of."""

NGRAM = 8
"""Characters of an n-gram of ``OVERLAP``. Of human text that was not shown, at most 3 % stands in the five
demonstrations of its label then (11 languages); with 5 characters it is up to 13 %."""


@dataclass(frozen=True)
class _Texts:
    """Bare texts with all that they are looked up by."""

    ngrams: Ngrams
    probe: QueryNgrams

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Texts:
        plain = [normalise_for_matching(text) for text in texts]
        return cls(Ngrams.of(plain, NGRAM), QueryNgrams.of(plain))


class _Index:
    """A corpus, ready for look-ups."""

    def __init__(self, texts: Sequence[str]) -> None:
        plain = [normalise_for_matching(text) for text in dict.fromkeys(texts)]
        self.empty = not plain
        self._ngrams = distinct(Ngrams.of(plain, NGRAM).hashes)
        self._copies = CopyDetector(plain)

    def overlap(self, texts: _Texts) -> NDArray[np.float64]:
        """Return for each text the share of its n-grams that stand in the corpus; 0 for a blank one."""
        return texts.ngrams.mean(texts.ngrams.keys.locate(self._ngrams) >= 0)

    def copied(self, texts: _Texts) -> NDArray[np.bool_]:
        """Return which texts copy one of the corpus."""
        return self._copies.copied(texts.probe)


class LeakageScorer:
    """Overlap with text that was shown, trained on or held out, and copies of it, per corpus."""

    name = "leakage"
    human = True

    def __init__(self) -> None:
        form = "form:folded+letters|version:2"
        self._signature_of_overlap = f"overlap|characters:{NGRAM}|{form}"
        rules = f"runs:{copies.RUN}x{copies.PART:.3f}|words:{copies.GRAM}-grams"
        bounds = f"alike:{copies.ALIKE}|least:{copies.LEAST}|ratio:{copies.RATIO}"
        self._signature_of_copies = f"copied|{rules}|{bounds}|{form}"
        self.signature = f"{self._signature_of_copies} {self._signature_of_overlap}"
        self._place: ScoringContext | None = None
        self._indexes: list[tuple[str, str | None, _Index]] = []

    def score(self, sample: TextSample, place: ScoringContext) -> ScorerOutput:
        """Return ``COPIED`` and ``OVERLAP`` of every corpus; kept: which texts are copies, per corpus."""
        overlap = {corpus: np.zeros(len(sample.texts)) for corpus in CORPORA}
        copied = {corpus: np.zeros(len(sample.texts), dtype=np.bool_) for corpus in CORPORA}
        notes = {corpus: f"no text of {corpus}" for corpus in CORPORA}
        groups: dict[str | None, tuple[NDArray[np.int64], _Texts]] = {}
        for corpus, label, index in self._open(place):
            if label not in groups:
                chosen = np.array([i for i, own in enumerate(sample.labels) if label in (None, own)], dtype=int)
                groups[label] = chosen, _Texts.of([sample.texts[i] for i in chosen])
            chosen, texts = groups[label]
            overlap[corpus][chosen] = index.overlap(texts)
            copied[corpus][chosen] = index.copied(texts)
            notes[corpus] = notes[corpus] if index.empty else ""
        scores = []
        for corpus in CORPORA:
            scores += [
                self._copied(corpus, copied[corpus], notes[corpus]),
                self._overlap(corpus, overlap[corpus], notes[corpus]),
            ]
        return ScorerOutput(scores, {f"copied/{corpus}": copied[corpus].tolist() for corpus in CORPORA})

    def _open(self, place: ScoringContext) -> list[tuple[str, str | None, _Index]]:
        """Return the indexes of a place: corpus, the label that it is for (None: all); the last is kept."""
        if place is not self._place:
            texts: dict[tuple[str, str | None], Sequence[str]] = {
                ("train", None): [text for text, _ in place.train],
                ("validation", None): [text for text, _ in place.validation],
                ("test", None): [text for text, _ in place.test],
                ("vectors", None): place.vectors,
                **{("demonstrations", label): shown for label, shown in place.demonstrations.items()},
            }
            self._indexes = [(corpus, label, _Index(group)) for (corpus, label), group in texts.items()]
            self._place = place
        return self._indexes

    def _copied(self, corpus: str, copied: NDArray[np.bool_], note: str) -> Score:
        metric, n = COPIED.for_provider(corpus), copied.size
        if note or not n:
            return metric.score(None, self._signature_of_copies, note or "no texts")
        count = int(copied.sum())
        detail = {"copies": count, "texts": n}
        return metric.score(count / n, self._signature_of_copies, interval=share_interval(count, n), detail=detail)

    def _overlap(self, corpus: str, overlap: NDArray[np.float64], note: str) -> Score:
        metric = OVERLAP.for_provider(corpus)
        if note or not overlap.size:
            return metric.score(None, self._signature_of_overlap, note or "no texts")
        interval = mean_interval(overlap.tolist())
        return metric.score(float(overlap.mean()), self._signature_of_overlap, interval=interval)
