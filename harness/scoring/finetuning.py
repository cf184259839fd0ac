"""Fine-tuning a transformers encoder by the published protocol (arXiv 2606.18389, ``finetune.py``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.core.checkpoints import Checkpoint
from harness.data.suite import ClassifierProtocol
from harness.scoring.classification import Probabilities, macro_f1_of
from harness.scoring.embeddings import max_length, not_an_encoder, quiet_transformers
from harness.scoring.scorer import Rows, ScoringContext

_EVALUATION_BATCH = 64


class EncoderTrainer:
    """A sequence classifier on an encoder: dropout on the head, AdamW without schedule, float32,
    early stopping on human validation macro-F1, best epoch restored."""

    def __init__(self, checkpoint: Checkpoint, protocol: ClassifierProtocol) -> None:
        self.checkpoint = checkpoint
        self.protocol = protocol
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        from transformers import AutoConfig, AutoTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
            config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise not_an_encoder(checkpoint, error) from None
        self.longest = max_length(protocol.max_tokens, self.tokenizer, config)

    def probabilities(self, train: Rows, context: ScoringContext, seed: int) -> Probabilities:
        """Return the probabilities [n test, n labels] of the test texts after fine-tuning with ``seed``.

        A label without training text has probability 0, also for early stopping. With one label in ``train`` there is
        nothing to train.
        """
        trained = _trained(train, context)
        if trained.sum() == 1:
            return np.tile(trained.double().numpy(), (len(context.test), 1))
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = self._model(len(context.labels))
            self._fit(model, train, context, generator)
            logits = self._logits(model, [text for text, _ in context.test])
        shares: Probabilities = logits.masked_fill(~trained, -torch.inf).softmax(-1).numpy()
        return shares

    def _model(self, n_labels: int) -> Any:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        folder = self.checkpoint.folder
        try:
            with quiet_transformers():  # the head is new on purpose; no warning per seed
                config = AutoConfig.from_pretrained(folder, num_labels=n_labels, trust_remote_code=False)
                config.classifier_dropout = self.protocol.dropout
                model = AutoModelForSequenceClassification.from_pretrained(
                    folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise not_an_encoder(self.checkpoint, error) from None
        return model.to(self.device)

    def _fit(self, model: Any, train: Rows, context: ScoringContext, generator: torch.Generator) -> None:
        rule = self.protocol
        optimizer = torch.optim.AdamW(model.parameters(), lr=rule.learning_rate)
        trained = _trained(train, context)
        gold = [context.labels.index(label) for _, label in context.validation]
        best, best_state, stale = -1.0, None, 0
        for _ in range(rule.max_epochs):
            self._epoch(model, train, context.labels, optimizer, generator)
            logits = self._logits(model, [text for text, _ in context.validation])
            found = logits.masked_fill(~trained, -torch.inf).argmax(-1)
            score = macro_f1_of(gold, found.numpy(), len(context.labels))
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
        self, model: Any, train: Rows, labels: list[str], optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        model.train()
        order = torch.randperm(len(train), generator=generator).tolist()
        for start in range(0, len(order), self.protocol.batch_size):
            rows = [train[i] for i in order[start : start + self.protocol.batch_size]]
            targets = torch.tensor([labels.index(label) for _, label in rows])
            loss = model(**self._encode([text for text, _ in rows]), labels=targets.to(self.device)).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    @torch.inference_mode()
    def _logits(self, model: Any, texts: list[str]) -> Tensor:
        """Return [n, labels] in double precision on the CPU; 0 where training has diverged."""
        model.eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
        found = []
        for start in range(0, len(order), _EVALUATION_BATCH):
            batch = [texts[i] for i in order[start : start + _EVALUATION_BATCH]]
            found.append(model(**self._encode(batch)).logits.double().cpu().nan_to_num())
        return torch.cat(found)[torch.tensor(order).argsort()]

    def _encode(self, texts: list[str]) -> dict[str, Tensor]:
        batch = self.tokenizer(texts, truncation=True, max_length=self.longest, padding=True, return_tensors="pt")
        return {name: tensor.to(self.device) for name, tensor in batch.items()}


def _trained(train: Rows, context: ScoringContext) -> Tensor:
    """Return for every label of the task whether it has a training text."""
    present = {label for _, label in train}
    return torch.tensor([label in present for label in context.labels])
