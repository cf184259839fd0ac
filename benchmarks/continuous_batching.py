"""Our decode loop against transformers' continuous batching, on the same prompts, greedy and unsteered.

    python benchmarks/continuous_batching.py [--model FOLDER] [--rows 256] [--device cuda]

Ours draws keyed noise per row all the same, with a nucleus of one token. Continuous batching is given the easier
task (no noise, no steering) and the same number of texts at once.
"""

from __future__ import annotations

import logging
import random
from pathlib import Path

from common import compare, options, report
from transformers import ContinuousBatchingConfig, GenerationConfig

from harness.core.checkpoints import resolve_checkpoint
from harness.core.interventions import Steering
from harness.engine.decoding import Row, open_batch
from harness.engine.model import load_model

MINI = Path(__file__).resolve().parent.parent / "tasks" / "mini" / "pocketlm"


def main() -> None:
    """Print the ratio."""
    parser = options(__doc__, repeats=3)
    parser.add_argument("--model", default=str(MINI), help="folder of the model (default: the one that ships)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=256, help="texts (default: 256)")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens of each (default: 32)")
    given = parser.parse_args()
    model = load_model(resolve_checkpoint(given.model), given.dtype, given.device)
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    draw = random.Random(0)
    prompts = [[draw.randrange(10, 1000) for _ in range(draw.randrange(30, 60))] for _ in range(given.rows)]
    batching = ContinuousBatchingConfig(
        num_blocks=4 * given.rows, page_size=32, max_batch_tokens=2048, max_requests_per_batch=given.rows
    )
    greedy = GenerationConfig(do_sample=False, max_new_tokens=given.tokens, eos_token_id=-1, pad_token_id=0)

    def ours() -> list[list[int]]:
        batch = open_batch(model)
        batch.ends = set()
        rows = [Row(tuple(prompt), Steering(), i, given.tokens, 1.0, 1e-9) for i, prompt in enumerate(prompts)]
        batch.add(rows)
        while batch.active:
            batch.step()
        return [row.tokens for row in rows]

    def theirs() -> list[list[int]]:
        found = model.model.generate_batch(
            prompts, generation_config=greedy, continuous_batching_config=batching, progress_bar=False
        )
        by_prompt = {tuple(one.prompt_ids): list(one.generated_tokens) for one in found.values()}
        return [by_prompt[tuple(prompt)] for prompt in prompts]

    first, second = ours(), theirs()
    equal = sum(a == b for a, b in zip(first, second, strict=True))
    name = f"{given.rows} texts of {given.tokens} tokens, against transformers' continuous batching"
    result = compare(name, ours, theirs, given.repeats, same=False, bar="the faster is shipped")
    report([{**result, "equal texts": f"{equal} of {given.rows}", "model": Path(given.model).name}], given.device)


if __name__ == "__main__":
    main()
