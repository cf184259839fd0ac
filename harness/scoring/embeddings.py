"""Texts as vectors of length one: character n-grams, weighted by human-written text, or a transformers encoder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.core.cache import cache_folder
from harness.core.checkpoints import Checkpoint, why_not_loaded
from harness.core.errors import MachineError, UserError, unknown, warn
from harness.core.files import digest, sweep
from harness.core.tensors import load_tensors, save_tensors
from harness.data.corpus import normalise
from harness.scoring.encoders import Encoder, open_encoder
from harness.scoring.ngrams import TfidfWeights, count_matrix
from harness.scoring.scorer import PerContext, ScoringContext

Vectors = Any
"""A row per text: an array [n, d] of float64, or a sparse scipy matrix (CSR) of that shape."""
PACKED_TYPES = frozenset({"bert", "camembert", "electra", "roberta", "xlm-roberta"})
"""The model types of encoders whose batches ``harness.scoring.packing`` can pack."""
_POOLING = 1  # raised whenever the vectors of a text change
_BATCH = 32
_REMEMBERED = 20_000  # texts: 60 MB of vectors of 768 numbers


class Embedding(Protocol):
    """Maps texts to vectors such that similar texts point the same way.

    ``signature``: everything but texts and human-written text that decides the vectors.
    """

    name: str
    signature: str

    def embed(self, texts: Sequence[str], context: ScoringContext) -> Vectors:
        """Return a row of length 1 per text; a row of zeros for a text with nothing to read."""
        ...


class TfidfEmbedding:
    """Character 2- to 5-grams, sublinear TF-IDF, offline and for every script.

    The weights are those of the human train text, the same for all entries; unseen n-grams have the highest one.
    Columns are hashes: 2**18 of them.
    """

    name = "tfidf"
    signature = "tfidf-char-2-5-sublinear-idf:human-train-hash18|norm:NFKC-casefold|version:1"

    def __init__(self) -> None:
        self._weights = PerContext(lambda context: TfidfWeights(self._counts([text for text, _ in context.train])))

    def embed(self, texts: Sequence[str], context: ScoringContext) -> Vectors:
        """See ``Embedding.embed``; the rows are sparse."""
        return self._weights(context).rows(self._counts(texts))

    def _counts(self, texts: Sequence[str]) -> Any:
        return count_matrix([normalise(text) for text in texts], (2, 3, 4, 5), bits=18, mix=True)


class EncoderEmbedding:
    """The pooled states of a transformers encoder, loaded on first use."""

    _tokens = 512

    def __init__(self, encoder: Encoder) -> None:
        self.name = f"hf:{encoder.name}"
        self.signature = f"hf:{encoder.signature}|tokens:{self._tokens}|version:1"
        self._pooler = cache(lambda: Pooler(encoder, self._tokens))

    def embed(self, texts: Sequence[str], context: ScoringContext) -> Vectors:
        """See ``Embedding.embed``; the rows are dense. Human-written text does not matter."""
        found = self._pooler().embed(texts).astype(np.float64)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)


def open_embedding(spec: str) -> Embedding:
    """Return the embedding that ``spec`` names: ``tfidf``, or ``hf:PATH_OR_ID`` with options of ``open_encoder``.

    Raises ``UserError`` for anything else, and for a directory or hub id without a model.
    """
    if spec == "tfidf":
        return TfidfEmbedding()
    kind, _, path = spec.partition(":")
    if kind != "hf" or not path:
        raise unknown("embedding", spec, ["tfidf", "hf:PATH_OR_ID"])
    return EncoderEmbedding(open_encoder(spec))


class Pooler:
    """A vector per text from an encoder's last states of its tokens; the vectors of the last texts are cached."""

    def __init__(self, encoder: Encoder, max_tokens: int = 512) -> None:
        """Load the encoder in float32; ``UserError`` where the directory has none. Longer texts lose their end."""
        import torch  # here: listing and comparing scores must not load it
        from transformers import AutoTokenizer

        checkpoint, self.encoder = encoder.checkpoint, encoder
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
            self.model = _load(checkpoint).to(self.device).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise not_an_encoder(checkpoint, error) from None
        self.longest = max_length(max_tokens, self.tokenizer, self.model.config)
        keep_prefix(self.tokenizer, encoder.prefix, self.longest)
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def embed_cached(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return what ``embed`` returns, from the cache directory that runs share, for texts that every run reads.

        A file that is damaged is made again, with a warning.
        """
        path = cache_folder("features") / f"{self._key(texts)}.safetensors"
        found = _stored(path, (len(texts), self.model.config.hidden_size))
        if found is None:
            alone = dict(self._pooled(sorted({text for text in texts if text.strip()})))
            found = self._rows(texts, alone)
            try:
                save_tensors(path, {"vectors": found}, "features", {})
                sweep(path.parent, deep=False)
            except MachineError as error:
                warn(f"sentence vectors are not cached: {error}")
        return found

    def _key(self, texts: Sequence[str]) -> str:
        """Return a hash of everything that decides the vectors of texts, to the last digit."""
        import torch
        import transformers

        recipe = [torch.__version__, transformers.__version__, _POOLING, self.encoder.pooling, self.encoder.prefix]
        return digest([self.encoder.checkpoint.fingerprint, self.longest, self.device, recipe, list(texts)], 32)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return a row per text, of the encoder's width, not normalised; zeros for text without tokens.

        States of pads never count, those of special tokens do (as in sentence-transformers).
        """
        new = sorted({text for text in texts if text not in self._known})
        found = dict(self._pooled([text for text in new if text.strip()]))
        for text in texts:
            if text in self._known:
                self._known.move_to_end(text)
                found[text] = self._known[text]
        rows = self._rows(texts, found)
        self._known.update((text, found[text]) for text in new if text in found)
        for _ in range(len(self._known) - _REMEMBERED):
            self._known.popitem(last=False)
        return rows

    def _rows(self, texts: Sequence[str], found: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        nothing = np.zeros(self.model.config.hidden_size, dtype=np.float32)
        rows = [found.get(text, nothing) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, len(nothing)), dtype=np.float32)

    def _pooled(self, texts: Sequence[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield texts with their vectors, longest first, so that too large a batch fails at once."""
        import torch

        if not texts:
            return
        read = with_prefix(self.encoder.prefix, texts)
        encoded = self.tokenizer(read, truncation=True, max_length=self.longest)["input_ids"]
        pairs = [pair for pair in zip(texts, encoded, strict=True) if pair[1]]
        queue = iter(sorted(pairs, key=lambda pair: -len(pair[1])))
        while batch := list(islice(queue, _BATCH)):
            ids = [torch.tensor(tokens, device=self.device) for _, tokens in batch]
            pad = self.tokenizer.pad_token_id or 0
            inputs = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
            sizes = torch.tensor([len(row) for row in ids], device=self.device)
            mask = torch.arange(inputs.shape[1], device=self.device) < sizes[:, None]
            with torch.inference_mode():
                states = self.model(input_ids=inputs, attention_mask=mask.long()).last_hidden_state
                vectors = self._pool(states, mask, sizes).cpu().numpy()
            yield from zip((text for text, _ in batch), vectors, strict=True)

    def _pool(self, states: Any, mask: Any, sizes: Any) -> Any:
        """Return the vectors [n, d] of states [n, tokens, d], of which ``sizes`` [n] are not padding."""
        if self.encoder.pooling == "cls":
            return states[:, 0]
        if self.encoder.pooling == "last":
            return states[range(len(sizes)), sizes - 1]
        return states.masked_fill(~mask[..., None], 0.0).sum(dim=1) / sizes[:, None]


def _stored(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """Return cached vectors; None where there are none and, with a warning, where their file is damaged."""
    from safetensors import SafetensorError

    if not path.is_file():
        return None
    try:
        vectors: NDArray[np.float32] = load_tensors(path, "features")[0]["vectors"]
        if vectors.shape != shape or vectors.dtype != np.float32:
            raise ValueError(vectors.shape)
        return vectors
    except (UserError, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        warn(f"{path} was edited or damaged; its sentence vectors are computed again")
        return None


def _load(checkpoint: Checkpoint) -> Any:
    """Return the encoder, without the decoder if there is one; every weight must be in the checkpoint."""
    import torch
    from transformers import AutoModel

    # An unused pooling head may be new; everything else that is new is refused below.
    with quiet_transformers(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        model, info = AutoModel.from_pretrained(
            checkpoint.folder,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise ValueError(f"no weights for {missing[0]} and {len(missing) - 1} more")
    return model.get_encoder() if model.config.is_encoder_decoder else model


def not_an_encoder(checkpoint: Checkpoint, error: Exception) -> UserError:
    """Return the error of a checkpoint that cannot be loaded as an encoder."""
    return UserError(f"{checkpoint.folder} is not an encoder: {why_not_loaded(error)}")


def with_prefix(prefix: str, texts: Iterable[str]) -> list[str]:
    """Return texts as a tokenizer reads them; half a surrogate pair, which none accepts, as a question mark."""
    return [f"{prefix}{text}".encode("utf-8", "replace").decode() for text in texts]


def keep_prefix(tokenizer: Any, prefix: str, longest: int) -> None:
    """Let a tokenizer truncate texts at their end; ``UserError`` for a prefix that leaves no room for a text."""
    if prefix:
        tokenizer.truncation_side = "right"
        if len(tokenizer(prefix)["input_ids"]) >= longest:
            raise UserError(f"the prefix {prefix!r:.60} fills the {longest} tokens that the encoder reads. Shorten it.")


def max_length(max_tokens: int, tokenizer: Any, config: Any) -> int:
    """Return how many tokens an encoder reads, at most ``max_tokens``."""
    # Encoders of the RoBERTa type lose two positions to padding; not every tokenizer says so.
    positions = getattr(config, "max_position_embeddings", None) or 10**9
    return int(min(max_tokens, tokenizer.model_max_length, positions - 2))


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress the progress bars and warnings of transformers while a model is loaded."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
