"""Fine-tuning a transformers encoder by the published protocol (arXiv 2606.18389, ``finetune.py``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.data.suite import ClassifierProtocol
from harness.scoring.classification import Probabilities, macro_f1_of
from harness.scoring.embeddings import (
    PACKED_TYPES,
    keep_prefix,
    max_length,
    not_an_encoder,
    quiet_transformers,
    with_prefix,
)
from harness.scoring.encoders import Encoder
from harness.scoring.packing import PackedClassifier
from harness.scoring.scorer import Rows, ScoringContext

_EVALUATION_BATCH = 64
_Tokens = dict[str, list[list[int]]]
"""What a tokenizer gives for texts: ``input_ids`` and others, not padded."""
_Reader = Callable[[_Tokens], Tensor]
"""Returns logits [texts, labels]."""


@dataclass(frozen=True)
class _Data:
    """The texts of a cell and the human text, tokenised once; label indices of train and validation text.

    ``trained``: which labels have a training text. ``order``: of test text that has been sorted by length, likewise of
    validation text in ``gold``. ``vocabulary``: the rows of the embedding matrix that token ids mean; None for all.
    """

    train: _Tokens
    targets: Tensor
    trained: Tensor
    validation: _Tokens
    gold: list[int]
    test: _Tokens
    order: Tensor
    vocabulary: Tensor | None


class EncoderTrainer:
    """A sequence classifier on an encoder: dropout on the head, AdamW without schedule,
    early stopping on human validation macro-F1, best epoch restored.

    ``packed``: batches without padding (``harness.scoring.packing``), and bfloat16 on a GPU; else batches padded to
    their longest text, in float32. Results differ as those of two seeds do.
    """

    def __init__(self, encoder: Encoder, protocol: ClassifierProtocol, packed: bool) -> None:
        self.checkpoint = checkpoint = encoder.checkpoint
        self.prefix = encoder.prefix
        self.protocol = protocol
        self.packed = packed
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        from transformers import AutoConfig, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
            self._config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise not_an_encoder(checkpoint, error) from None
        self.longest = max_length(protocol.max_tokens, self.tokenizer, self._config)
        keep_prefix(self.tokenizer, self.prefix, self.longest)

    def probabilities(self, train: Rows, context: ScoringContext, seeds: Sequence[int]) -> Probabilities:
        """Return the probabilities [seeds, n test, n labels] of the test texts after fine-tuning with every seed.

        A label without training text has probability 0, also for early stopping. With one label in ``train`` there is
        nothing to train.
        """
        data = self._read(train, context)
        if data.trained.sum() == 1:
            return np.tile(data.trained.double().numpy(), (len(seeds), len(context.test), 1))
        # One after the other: stacked by torch.func.vmap, 8 seeds of a feed-forward block took 1.17 times as long on
        # one core, where most of the time goes into matrix products. On a GPU it has not been measured.
        return np.stack([self._trained(data, seed) for seed in seeds])

    def _trained(self, data: _Data, seed: int) -> Probabilities:
        """Return the probabilities [n test, n labels] of one seed."""
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = self._model(data)
            read = self._reader(model)
            self._fit(model, read, data, generator)
            logits = self._logits(model, read, data.test)[data.order.argsort()]
        shares: Probabilities = logits.masked_fill(~data.trained, -torch.inf).softmax(-1).numpy()
        return shares

    def _read(self, train: Rows, context: ScoringContext) -> _Data:
        """Tokenise all texts; those that are only read are sorted by length, for little padding."""
        label_of = {label: index for index, label in enumerate(context.labels)}
        targets = torch.tensor([label_of[label] for _, label in train])
        validation = sorted(context.validation, key=lambda row: len(row[0]))
        order = sorted(range(len(context.test)), key=lambda i: len(context.test[i][0]))
        texts = [[text for text, _ in train], [text for text, _ in validation], [context.test[i][0] for i in order]]
        read = (with_prefix(self.prefix, part) for part in texts)
        encoded = [dict(self.tokenizer(part, truncation=True, max_length=self.longest)) for part in read]
        return _Data(
            train=encoded[0],
            targets=targets,
            trained=torch.isin(torch.arange(len(label_of)), targets),
            validation=encoded[1],
            gold=[label_of[label] for _, label in validation],
            test=encoded[2],
            order=torch.tensor(order),
            vocabulary=self._renumber(encoded),
        )

    def _renumber(self, encoded: list[_Tokens]) -> Tensor | None:
        """Count token ids among those that occur, in place; return these.

        The rows of the embedding matrix that no text asks for would cost most of the optimizer's time and memory: they
        are two thirds of XLM-R base. Ids that models know by number keep it.
        """
        if self._config.model_type not in PACKED_TYPES:
            return None
        rows = [ids for tokens in encoded for ids in tokens["input_ids"]]
        used = sorted({*range(self._config.pad_token_id + 1), *(token for ids in rows for token in ids)})
        number = {token: i for i, token in enumerate(used)}
        for ids in rows:
            ids[:] = [number[token] for token in ids]
        return torch.tensor(used)

    def _model(self, data: _Data) -> Any:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        folder = self.checkpoint.folder
        try:
            with quiet_transformers():  # the head is new on purpose; no warning per seed
                config = AutoConfig.from_pretrained(folder, num_labels=len(data.trained), trust_remote_code=False)
                config.classifier_dropout = self.protocol.dropout
                model = AutoModelForSequenceClassification.from_pretrained(
                    folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise not_an_encoder(self.checkpoint, error) from None
        if data.vocabulary is not None:
            whole = model.get_input_embeddings()
            rows = whole.weight.detach()[data.vocabulary]
            model.set_input_embeddings(torch.nn.Embedding(len(rows), rows.shape[1], whole.padding_idx, _weight=rows))
        return model.to(self.device)

    def _reader(self, model: Any) -> _Reader:
        if self.packed:
            packed = PackedClassifier(model)
            return lambda texts: packed.logits(texts["input_ids"])
        return lambda texts: model(**self.tokenizer.pad(texts, return_tensors="pt").to(self.device)).logits

    def _fit(self, model: Any, read: _Reader, data: _Data, generator: torch.Generator) -> None:
        rule = self.protocol
        optimizer = torch.optim.AdamW(model.parameters(), lr=rule.learning_rate, fused=self.packed)
        best, best_state, stale = -1.0, None, 0
        for _ in range(rule.max_epochs):
            self._epoch(model, read, data, optimizer, generator)
            logits = self._logits(model, read, data.validation)
            found = logits.masked_fill(~data.trained, -torch.inf).argmax(-1)
            score = macro_f1_of(data.gold, found.numpy(), len(data.trained))
            if score > best:
                best, stale = score, 0
                best_state = {k: v.detach().clone() for k, v in model.state_dict().items()}
            else:
                stale += 1
                if stale >= rule.patience:
                    break
        if best_state is not None:
            model.load_state_dict(best_state)

    def _epoch(
        self, model: Any, read: _Reader, data: _Data, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        model.train()
        order, size = torch.randperm(len(data.targets), generator=generator), self.protocol.batch_size
        for rows in (order[start : start + size] for start in range(0, len(order), size)):
            logits = read(_subset(data.train, rows.tolist()))
            loss = torch.nn.functional.cross_entropy(logits, data.targets[rows].to(self.device))
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()

    @torch.inference_mode()
    def _logits(self, model: Any, read: _Reader, texts: _Tokens) -> Tensor:
        """Return [n, labels] in double precision on the CPU; 0 where training has diverged."""
        model.eval()
        rows = range(len(texts["input_ids"]))
        batches = [rows[start : start + _EVALUATION_BATCH] for start in rows[::_EVALUATION_BATCH]]
        return torch.cat([read(_subset(texts, batch)).double().cpu().nan_to_num() for batch in batches])


def _subset(texts: _Tokens, rows: Sequence[int]) -> _Tokens:
    return {name: [values[i] for i in rows] for name, values in texts.items()}
