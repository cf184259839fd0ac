"""Speed of generation on the mini model, as ratios within one run.

    python benchmarks/generation.py [--model FOLDER] [--repeats 5]

Compares, on topic prompts of one language: (1) reading each distinct prompt once against reading it once per
text, (2) rows that leave the batch when they end against rows kept to the end, (3) no steering against one
steered layer, (4) keyed sampling against transformers' own top-p sampling.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import GenerationConfig

from harness.core.checkpoints import resolve_checkpoint
from harness.core.interventions import Intervention, Steering
from harness.data.corpus import Corpus
from harness.data.sources import open_data
from harness.data.suite import load_suite
from harness.engine import decoding
from harness.engine import generate as engine
from harness.engine.model import SteerableModel, load_model
from harness.methods.contract import PromptContext

MINI = Path(__file__).parent.parent / "tasks" / "mini" / "pocketlm"
TEXTS_PER_LABEL = 6


def texts_of(model: SteerableModel, setting: str, steering: Steering) -> list[str]:
    """Write one cell and return its texts."""
    suite = load_suite("mini")
    corpus = Corpus(suite, open_data(suite, None))
    task = suite.task("topic", "am")
    shots = corpus.demonstrations("topic", "am")
    prompts = {
        label: PromptContext(suite, task, setting, 1, TEXTS_PER_LABEL, label, tuple(shots[label])).suite_prompt()
        for label in task.labels
    }
    sampling = suite.sampling.model_copy(update={"max_attempts": 1})
    written = engine.generate_cell(
        model, prompts, TEXTS_PER_LABEL, steering, sampling, lambda _, i, a: i + 1000 * a, 64
    )
    return [row.text for row in written]


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(name: str, ours: Callable[[], Any], other: Callable[[], Any], repeats: int, same: bool) -> dict[str, Any]:
    """Run both in turns; print and return how many times longer the other side takes.

    The calls before the first measured one warm up, and show that both sides give the same where
    they must (``same``).
    """
    first, second = ours(), other()
    if same and first != second:
        raise SystemExit(f"{name}: the two sides do not give the same")
    pairs = [(timed(ours), timed(other)) for _ in range(repeats)]
    ratios = sorted(b / a for a, b in pairs)
    ratio = statistics.median(b for _, b in pairs) / statistics.median(a for a, _ in pairs)
    print(f"{name}: {ratio:.2f}x (pairs {ratios[0]:.2f} to {ratios[-1]:.2f}), n = {repeats}")
    spread = [round(ratios[0], 3), round(ratios[-1], 3)]
    return {"name": name, "ratio": round(ratio, 3), "spread": spread, "repeats": repeats}


def sampling_only(model: SteerableModel, keyed: bool) -> Callable[[], Any]:
    """Return a call that writes exactly 48 tokens in 42 rows, sampled by us or by transformers."""
    ids = torch.full((42, 16), 100, device=model.device)
    mask = torch.ones_like(ids)
    length = {"max_new_tokens": 48, "min_new_tokens": 48, "pad_token_id": 0, "eos_token_id": 2}
    if keyed:
        config = GenerationConfig(do_sample=False, **length)
        return lambda: model.model.generate(
            ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=[decoding.KeyedSampler(list(range(42)), 16, 0.8, 0.9)],
        )
    config = GenerationConfig(do_sample=True, temperature=0.8, top_p=0.9, top_k=0, **length)
    return lambda: model.model.generate(ids, attention_mask=mask, generation_config=config)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(MINI))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(resolve_checkpoint(arguments.model), "float32", device)
    size, layer = model.model.config.hidden_size, len(model.layers) // 2
    vector = np.ones(size, dtype=np.float32) / np.sqrt(size).astype(np.float32)
    steering = Steering((Intervention("layer_output", layer, "add", vector, 0.05, "residual", 1.0, "all"),))
    shared = decoding._prefill

    stride = decoding._STRIDE

    def to_the_end() -> list[str]:
        decoding._STRIDE = 10**6
        try:
            return texts_of(model, "zero-shot", Steering())
        finally:
            decoding._STRIDE = stride

    def per_text() -> list[str]:
        decoding._prefill = lambda *_: None
        try:
            return texts_of(model, "few-shot", Steering())
        finally:
            decoding._prefill = shared

    results = []
    results.append(
        compare(
            "prompt read once per label, against once per text (few-shot)",
            lambda: texts_of(model, "few-shot", Steering()),
            per_text,
            arguments.repeats,
            same=True,
        )
    )
    results.append(
        compare(
            "ended rows leave the batch, against rows kept to the end (zero-shot)",
            lambda: texts_of(model, "zero-shot", Steering()),
            to_the_end,
            arguments.repeats,
            same=True,
        )
    )
    results.append(
        compare(
            "no steering, against one steered layer (zero-shot)",
            lambda: texts_of(model, "zero-shot", Steering()),
            lambda: texts_of(model, "zero-shot", steering),
            arguments.repeats,
            same=False,
        )
    )
    results.append(
        compare(
            "keyed sampling, against transformers' top-p sampling",
            sampling_only(model, keyed=True),
            sampling_only(model, keyed=False),
            arguments.repeats,
            same=False,
        )
    )
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    for result in results:
        print(json.dumps({**result, "device": device, "versions": versions}))


if __name__ == "__main__":
    main()
