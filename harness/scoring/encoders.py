"""Sentence vectors of a transformers encoder: the mean of its last states over the tokens of a text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.core.checkpoints import Checkpoint, why_not_loaded
from harness.core.errors import UserError

_BATCH = 32
_REMEMBERED = 20_000  # texts: 60 MB of vectors of 768 numbers


class MeanPooler:
    """An encoder read in float32, in batches of like length; the vectors of the last texts are remembered."""

    def __init__(self, checkpoint: Checkpoint, max_tokens: int = 512) -> None:
        """Load the encoder; ``UserError`` where the folder holds none. Longer texts lose their end."""
        from transformers import AutoTokenizer

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
            self.model = _load(checkpoint).to(self.device).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"{checkpoint.folder} holds no encoder: {why_not_loaded(error)}") from None
        # Encoders of the RoBERTa type lose two positions to padding; not every tokenizer says so.
        positions = getattr(self.model.config, "max_position_embeddings", None) or 10**9
        self.longest = min(max_tokens, self.tokenizer.model_max_length, positions - 2)
        self._known: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

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
        nothing = np.zeros(self.model.config.hidden_size, dtype=np.float32)
        rows = [found.get(text, nothing) for text in texts]
        self._known.update((text, found[text]) for text in new if text in found)
        for _ in range(len(self._known) - _REMEMBERED):
            self._known.popitem(last=False)
        return np.stack(rows) if rows else np.zeros((0, len(nothing)), dtype=np.float32)

    @torch.inference_mode()
    def _pooled(self, texts: Sequence[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield texts with their vectors, longest first, so that too large a batch shows at once."""
        if not texts:
            return
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.longest)["input_ids"]
        pairs = [pair for pair in zip(texts, encoded, strict=True) if pair[1]]
        queue = iter(sorted(pairs, key=lambda pair: -len(pair[1])))
        while batch := list(islice(queue, _BATCH)):
            ids = [torch.tensor(tokens, device=self.device) for _, tokens in batch]
            pad = self.tokenizer.pad_token_id or 0
            inputs = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
            sizes = torch.tensor([len(row) for row in ids], device=self.device)
            mask = torch.arange(inputs.shape[1], device=self.device) < sizes[:, None]
            states = self.model(input_ids=inputs, attention_mask=mask.long()).last_hidden_state
            sums = states.masked_fill(~mask[..., None], 0.0).sum(dim=1)
            yield from zip((text for text, _ in batch), (sums / sizes[:, None]).cpu().numpy(), strict=True)


def _load(checkpoint: Checkpoint) -> Any:
    """Return the encoder, without the decoder where there is one; every weight must be in the folder."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # an unused pooling head may be new; what else is new is refused below
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            model, info = AutoModel.from_pretrained(
                checkpoint.folder,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    finally:
        logging.set_verbosity(level)
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise ValueError(f"no weights for {missing[0]} and {len(missing) - 1} more")
    return model.get_encoder() if model.config.is_encoder_decoder else model
