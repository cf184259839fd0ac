"""Fine-tuning an encoder with 20 seeds on 147 texts: packed batches against plain training, one seed after the other.

    python benchmarks/finetuning.py [--model FOLDER --data DIR] [--device cuda --shape xlm-roberta-base]

The plain side loads the checkpoint for every seed, tokenises every batch again and trains in float32, (1) padded to the
longest text of all, (2) padded to the longest of the batch, as steerboard did. Both sides read validation text after
every epoch and test text at the end, and train for equally many epochs: time is proportional to these, so few are
enough. A repeat is a seed. What padding costs depends on how texts differ in length: those of the mini suite, chosen by
length, differ least.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from common import compare, options, report
from encoders import SHAPES, Cell, cell, encoder
from support.plain_finetuning import PlainTrainer

from harness.core.checkpoints import Checkpoint
from harness.data.suite import ClassifierProtocol, load_suite
from harness.scoring.embeddings import quiet_transformers
from harness.scoring.encoders import Encoder
from harness.scoring.finetuning import EncoderTrainer

PADDING = {"max_length": "the longest text", "longest": "the longest of the batch"}


def check(checkpoint: Checkpoint, rule: ClassifierProtocol, data: Cell, device: str) -> None:
    """Stop unless both sides train on the same: equal to the bit when padded, and to rounding before any step."""
    if device == "cpu":
        padded = EncoderTrainer(Encoder(checkpoint), rule, packed=False).probabilities(data.train, data.context, [1])[0]
        if not np.array_equal(padded, PlainTrainer(checkpoint, rule).probabilities(data.train, data.context, 1)):
            raise SystemExit("padded batches do not give what plain training gives")
    still = rule.model_copy(update={"learning_rate": 1e-12})
    packed = EncoderTrainer(Encoder(checkpoint), still, packed=True).probabilities(data.train, data.context, [1])[0]
    plain = PlainTrainer(checkpoint, still, device=device).probabilities(data.train, data.context, 1)
    if np.abs(packed - plain).max() > (1e-5 if device == "cpu" else 1e-2):  # bfloat16 on a GPU
        raise SystemExit("packed batches do not give what plain ones give")


def main() -> None:
    """Print the ratios."""
    parser = options(__doc__, repeats=20)
    parser.add_argument("--model", help="folder of an encoder; default: random weights")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="devenc", help="of random weights")
    parser.add_argument("--data", help="folder with topic/LANGUAGE; default: that of the mini suite")
    parser.add_argument("--language", default="am")
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    if given.device != ("cuda" if torch.cuda.is_available() else "cpu"):
        raise SystemExit(f"--device {given.device}: training runs on the first GPU if there is one, else on the CPU.")
    rule = load_suite("steer11").classifier_protocol.model_copy(update={"max_epochs": given.epochs})
    data = cell(given.data, given.language)
    name = Path(given.model or given.shape).name
    with encoder(given.model, given.shape) as checkpoint, quiet_transformers():
        check(checkpoint, rule, data, given.device)
        packed = EncoderTrainer(Encoder(checkpoint), rule, packed=True)
        results = []
        for padding, words in PADDING.items():
            plain, ours, theirs = PlainTrainer(checkpoint, rule, padding, given.device), count(1), count(1)
            results.append(
                compare(
                    f"fine-tuning {name} on {len(data.train)} texts, against padded to {words}",
                    lambda ours=ours: packed.probabilities(data.train, data.context, [next(ours)]),
                    lambda plain=plain, seeds=theirs: plain.probabilities(data.train, data.context, next(seeds)),
                    given.repeats,
                    same=False,  # but for other random numbers, see check()
                    bar=">= 2x (GPU >= 10x) for the longest text",
                )
            )
    report(results, given.device)


if __name__ == "__main__":
    main()
