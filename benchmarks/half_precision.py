"""How many texts depend on what shares their batch, by precision.

    python benchmarks/half_precision.py [--model FOLDER] [--dtypes float32,bfloat16,float16] [--device cuda]

The same cell is written with 1, 7 and all texts at once. Sums over a row are rounded in an order that depends on the
shape of the batch; in float32 that decides between two tokens so rarely that no text was seen to change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from common import options, report
from generation import MINI, cells, vector

from harness.core.checkpoints import resolve_checkpoint
from harness.engine.generate import GenerationQueue
from harness.engine.model import load_model


def main() -> None:
    """Print the share of texts that differ from those written one at a time."""
    parser = options(__doc__)
    parser.add_argument("--model", default=str(MINI), help="folder of the model (default: the one that ships)")
    parser.add_argument("--dtypes", default="float32,bfloat16,float16")
    parser.add_argument("--texts", type=int, default=20, help="texts of each of 7 labels (default: 20)")
    given = parser.parse_args()
    results: list[dict[str, Any]] = []
    for dtype in given.dtypes.split(","):
        model = load_model(resolve_checkpoint(given.model), dtype, given.device)
        steering = vector(model, len(model.layers) // 2, 0.05)

        def write(size: int, model: Any = model, steering: Any = steering) -> list[str]:
            ((_, found),) = GenerationQueue(model, size).write(cells(model, [steering], given.texts))
            if isinstance(found, Exception):
                raise found
            return [text.text for text in found]

        with torch.random.fork_rng():
            alone, seven, all_ = (write(size) for size in (1, 7, 7 * given.texts))
        changed = {
            n: sum(a != b for a, b in zip(alone, texts, strict=True)) for n, texts in ((7, seven), ("all", all_))
        }
        figure = ", ".join(f"{count} of {len(alone)} with {n} at once" for n, count in changed.items())
        print(f"{dtype}: texts that differ from those written alone: {figure}", flush=True)
        name = f"{dtype}: texts that differ from those written one at a time"
        results.append({"name": name, "figure": figure, "bar": "float32: 0", "model": Path(given.model).name})
    report(results, given.device)


if __name__ == "__main__":
    main()
