"""Encoders of real shapes with random weights, and texts to train them on: speed depends on neither."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.scoring.scorer import Rows, ScoringContext

MINI = Path(__file__).parent.parent / "tasks" / "mini"
SHAPES = {
    "devenc": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 1024},
    "xlm-roberta-base": {
        "vocab_size": 250_002,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
}
PER_LABEL = 21  # 147 texts of seven topics


@dataclass(frozen=True)
class Cell:
    """Texts to train on, as many of every topic, and the human text of the language."""

    train: Rows
    context: ScoringContext


@contextmanager
def encoder(model: str | None, shape: str) -> Iterator[Checkpoint]:
    """Yield the checkpoint of a directory, or of a new XLM-R of ``shape`` with the mini model's tokenizer."""
    if model:
        yield resolve_checkpoint(model)
        return
    import torch
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(
            MINI / "pocketlm", padding_side="right", trust_remote_code=False
        )  # the first token is read
        tokenizer.save_pretrained(folder)
        special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": 1, "eos_token_id": 2}
        config = XLMRobertaConfig(
            **{"vocab_size": len(tokenizer), **SHAPES[shape]}, **special, max_position_embeddings=514
        )
        torch.manual_seed(0)
        XLMRobertaModel(config).save_pretrained(folder)
        yield resolve_checkpoint(folder)


def cell(data: str | None, language: str, seed: int = 1, task: str = "topic", per_label: int = PER_LABEL) -> Cell:
    """Return a draw of human texts, by default of the mini suite."""
    folder = (Path(data) if data else MINI / "data") / task / language
    rows = {split: _rows(folder / f"{split}.jsonl") for split in ("train", "validation", "test")}
    labels = sorted({label for _, label in rows["train"]})
    of_label = [[row for row in rows["train"] if row[1] == label] for label in labels]
    train = [row for group in of_label for row in random.Random(seed).sample(group, per_label)]
    test, validation = rows["test"], rows["validation"]
    return Cell(train, ScoringContext(task, language, labels, [], validation, test, "", [], {}, {}))


def _rows(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [(row["text"], row["label"]) for row in map(json.loads, lines)]
