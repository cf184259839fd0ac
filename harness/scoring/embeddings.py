"""Texts as vectors of length one: character n-grams, weighed by human text, or a transformers encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.core.errors import unknown
from harness.data.corpus import normalise
from harness.scoring.ngrams import Ngrams
from harness.scoring.scorer import ScoringContext

Rows = Any
"""A row per text: an array [n, d] of float64, or a sparse scipy matrix (CSR) of that shape."""


class Embedding(Protocol):
    """A way to lay texts out so that alike ones point the same way.

    ``signature``: everything but texts and human text that decides the vectors.
    """

    name: str
    signature: str

    def embed(self, texts: Sequence[str], place: ScoringContext) -> Rows:
        """Return a row of length 1 per text; a row of zeros for text that holds nothing to read."""
        ...


class TfidfEmbedding:
    """Character 2- to 5-grams, sublinear tf-idf, offline and for every script.

    The weights are fitted on the human train text of the place, so that all entries are measured with the
    same ones; n-grams that it lacks have the highest weight. Columns are hashes: 2**18 of them.
    """

    name = "tfidf"
    signature = "tfidf-char-2-5-sublinear-idf:human-train-hash18|norm:NFKC-casefold|version:1"
    _sizes = (2, 3, 4, 5)
    _bits = 18

    def __init__(self) -> None:
        self._fitted: tuple[ScoringContext, NDArray[np.float64]] | None = None

    def embed(self, texts: Sequence[str], place: ScoringContext) -> Rows:
        """See ``Embedding.embed``; the rows are sparse."""
        counts = self._counts(texts)
        counts.data = (1.0 + np.log(counts.data)) * self._weights(place)[counts.indices]
        sizes = np.diff(counts.indptr)
        lengths = np.sqrt(np.bincount(np.repeat(np.arange(len(texts)), sizes), counts.data**2, len(texts)))
        counts.data /= np.repeat(lengths, sizes)
        return counts

    def _weights(self, place: ScoringContext) -> NDArray[np.float64]:
        """Return the inverse document frequencies of a place, smoothed by one text that holds everything."""
        if self._fitted is None or self._fitted[0] is not place:
            counts = self._counts([text for text, _ in place.train])
            frequencies = np.bincount(counts.indices, minlength=2**self._bits)
            self._fitted = (place, 1.0 + np.log((1 + len(place.train)) / (1 + frequencies)))
        return self._fitted[1]

    def _counts(self, texts: Sequence[str]) -> Any:
        from scipy.sparse import csr_array

        plain = [normalise(text) for text in texts]
        rows, columns = [], []
        for size in self._sizes:
            grams = Ngrams.of(plain, size)
            rows.append(np.repeat(np.arange(len(texts)), np.diff(grams.starts)))
            mixed = grams.hashes * np.uint64(0x9E3779B97F4A7C15)  # the upper bits hang on all the others
            columns.append((mixed >> np.uint64(64 - self._bits)).astype(np.int32))
        places = (np.concatenate(rows), np.concatenate(columns))
        ones = np.ones(places[0].size)
        return csr_array((ones, places), shape=(len(texts), 2**self._bits))  # equal places are summed


class EncoderEmbedding:
    """The mean-pooled states of a transformers encoder, loaded on first use."""

    _tokens = 512

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.name = f"hf:{checkpoint.name}"
        self.signature = f"{self.name}@{checkpoint.fingerprint}|mean-pooled|tokens:{self._tokens}|version:1"
        self._checkpoint = checkpoint

    @cached_property
    def _pooler(self) -> Any:
        from harness.scoring.encoders import MeanPooler

        return MeanPooler(self._checkpoint, self._tokens)

    def embed(self, texts: Sequence[str], place: ScoringContext) -> Rows:
        """See ``Embedding.embed``; the rows are dense. Human text does not matter."""
        found = self._pooler.embed(texts).astype(np.float64)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)


def open_embedding(spec: str) -> Embedding:
    """Return the embedding that ``spec`` names: ``tfidf`` or ``hf:PATH_OR_ID``.

    Raises ``UserError`` for anything else, and for a folder or hub id without a model.
    """
    if spec == "tfidf":
        return TfidfEmbedding()
    kind, _, path = spec.partition(":")
    if kind != "hf" or not path:
        raise unknown("embedding", spec, ["tfidf", "hf:PATH_OR_ID"])
    return EncoderEmbedding(resolve_checkpoint(path))
