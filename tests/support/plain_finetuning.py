"""Fine-tuning an encoder as plainly as the protocol can be written down: what the fast trainers are compared with.

Every batch is tokenised anew and padded, every seed loads the checkpoint, all rows of the embedding matrix are trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.core.checkpoints import Checkpoint
from harness.data.suite import ClassifierProtocol
from harness.scoring.classification import Probabilities, macro_f1_of
from harness.scoring.scorer import Rows, ScoringContext


class PlainTrainer:
    """Trains one seed after the other in float32; ``padding``: what a tokenizer's argument of that name may be."""

    def __init__(
        self, checkpoint: Checkpoint, protocol: ClassifierProtocol, padding: str = "longest", device: str = "cpu"
    ) -> None:
        from transformers import AutoTokenizer

        self.checkpoint, self.protocol, self.padding, self.device = checkpoint, protocol, padding, device
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
        self.longest = min(protocol.max_tokens, self.tokenizer.model_max_length)

    def probabilities(self, train: Rows, context: ScoringContext, seed: int) -> Probabilities:
        """Return the probabilities [n test, n labels] after training with ``seed``; every label has a text."""
        if self.padding == "max_length":  # the longest text there is
            rows = [*train, *context.validation, *context.test]
            ids = self.tokenizer([text for text, _ in rows], truncation=True, max_length=self.longest)["input_ids"]
            self.longest = max(map(len, ids))
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            model = self._model(len(context.labels))
            self._fit(model, train, context, generator)
            found: Probabilities = self._logits(model, [text for text, _ in context.test]).softmax(-1).numpy()
        return found

    def _model(self, n_labels: int) -> Any:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        config = AutoConfig.from_pretrained(self.checkpoint.folder, num_labels=n_labels)
        config.classifier_dropout = self.protocol.dropout
        return AutoModelForSequenceClassification.from_pretrained(
            self.checkpoint.folder, config=config, dtype=torch.float32
        ).to(self.device)

    def _fit(self, model: Any, train: Rows, context: ScoringContext, generator: torch.Generator) -> None:
        rule, labels = self.protocol, context.labels
        optimizer = torch.optim.AdamW(model.parameters(), lr=rule.learning_rate)
        gold = [labels.index(label) for _, label in context.validation]
        best, best_state, stale = -1.0, None, 0
        for _ in range(rule.max_epochs):
            model.train()
            order = torch.randperm(len(train), generator=generator).tolist()
            for start in range(0, len(order), rule.batch_size):
                rows = [train[i] for i in order[start : start + rule.batch_size]]
                targets = torch.tensor([labels.index(label) for _, label in rows])
                model(**self._encode([text for text, _ in rows]), labels=targets.to(self.device)).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            found = self._logits(model, [text for text, _ in context.validation]).argmax(-1)
            score = macro_f1_of(gold, found.numpy(), len(labels))
            stale = 0 if score > best else stale + 1
            if score > best:
                best, best_state = score, {name: value.clone() for name, value in model.state_dict().items()}
            if stale >= rule.patience:
                break
        model.load_state_dict(best_state)

    @torch.inference_mode()
    def _logits(self, model: Any, texts: list[str]) -> torch.Tensor:
        model.eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = [[texts[i] for i in order[start : start + 64]] for start in range(0, len(order), 64)]
        return torch.cat([model(**self._encode(b)).logits.double().cpu() for b in batches])[np.argsort(order)]

    def _encode(self, texts: list[str]) -> dict[str, torch.Tensor]:
        found = self.tokenizer(
            texts, truncation=True, max_length=self.longest, padding=self.padding, return_tensors="pt"
        )
        return {name: tensor.to(self.device) for name, tensor in found.items()}
