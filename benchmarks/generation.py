"""Speed of generation: packed cells, steering, and one text at a time, as ratios within one run.

    python benchmarks/generation.py [CLAIM ...] [--model FOLDER] [--before COMMIT] [--device cuda]

    packed    the cells of the mini suite, against the engine of an earlier commit on the same cells, in turns
    steered   a steered batch, against the same batch unsteered, with equally many tokens
    alone     tokens per second, against one text at a time with a forward hook, as in the papers' programs
    queue     13 configurations (layers x strengths) in one queue, against 13 runs one after the other

Without a claim, all. ``--model`` is for all but the first; the default ships with steerboard.
"""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import compare, options, report

from harness.core.checkpoints import resolve_checkpoint
from harness.core.interventions import Intervention, Steering
from harness.data.suite import load_suite
from harness.engine.chat import render
from harness.engine.generate import CellRequest, GenerationQueue
from harness.engine.model import SteerableModel, load_model
from harness.methods.contract import PromptContext

ROOT = Path(__file__).resolve().parent.parent
MINI = ROOT / "tasks" / "mini" / "pocketlm"
BEFORE = "eafa5ef5"  # the last commit whose cells were one batch each
CLAIMS = ("packed", "steered", "alone", "queue")

WORKER = """
import shutil, sys, time
from pathlib import Path
from rich.console import Console
from harness.runner.generate import GenerationStage
from harness.runner.prepare import RunOptions, plan_run

run, languages = Path(sys.argv[1]), sys.argv[2].split(",")
options = RunOptions("mini", run=run, languages=languages, methods=None)
if not run.exists():
    with (plan := plan_run(options)).run.lock():
        GenerationStage.start(plan, options, Console(file=sys.stderr))  # fits
shutil.rmtree(run / "cells")
with (plan := plan_run(options)).run.lock():
    stage = GenerationStage(plan, Console(file=sys.stderr))
    stage.check()
    started = time.perf_counter()
    stage.run()
    print(time.perf_counter() - started)
"""


def cells(model: SteerableModel, steerings: Sequence[Steering], texts: int, task: str = "topic") -> list[CellRequest]:
    """Return one cell in Amharic for every steering, with the same prompts and keys, nothing drawn again."""
    suite = load_suite("mini")
    definition = suite.task(task, "am")
    prompts = {
        label: PromptContext(suite, definition, "zero-shot", 1, texts, label).suite_prompt()
        for label in definition.labels
    }
    sampling = suite.sampling.model_copy(update={"max_attempts": 1})
    return [
        CellRequest(i, prompts, texts, steering, sampling, lambda label, i, _: hash((len(label), i)) % 2**63)
        for i, steering in enumerate(steerings)
    ]


def write(model: SteerableModel, requests: Sequence[CellRequest]) -> list[list[str]]:
    """Write cells in one queue; return their texts."""
    found = {}
    for request, texts in GenerationQueue(model).write(requests):
        if isinstance(texts, Exception):
            raise texts
        found[request.name] = [text.text for text in texts]
    return [found[request.name] for request in requests]


def vector(model: SteerableModel, layer: int, strength: float) -> Steering:
    """Return a steering by a fixed vector."""
    direction = np.ones(model.hidden_size, dtype=np.float32) / np.float32(np.sqrt(model.hidden_size))
    return Steering((Intervention("layer_output", layer, "add", direction, strength, "residual", 1.0, "all"),))


def packed(before: str, languages: str, repeats: int) -> dict[str, Any]:
    """Time the cells of the mini suite in both engines; their texts must be equal."""
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "before"
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", before, "harness"], capture_output=True, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(old, filter="data")
        (old / "tasks").symlink_to(ROOT / "tasks")  # the suite has changed since, the work must be the same
        sides = {"ours": (ROOT, Path(folder) / "a"), "other": (old, Path(folder) / "b")}
        seconds: dict[str, list[float]] = {"ours": [], "other": []}
        for _ in range(repeats):
            for name, (code, run) in sides.items():
                done = subprocess.run(
                    [sys.executable, "-c", WORKER, str(run), languages],
                    env={"PYTHONPATH": str(code), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HOME": folder},
                    cwd=folder,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                seconds[name].append(float(done.stdout))
        texts = [
            {p.parent.name: p.read_bytes() for p in run.glob("cells/*/generations.jsonl")} for _, run in sides.values()
        ]
    if texts[0] != texts[1]:
        raise SystemExit("the two engines do not write the same texts")
    ratios = sorted(b / a for a, b in zip(seconds["ours"], seconds["other"], strict=True))
    name = f"mini suite, generation ({len(texts[0])} cells), against the engine before ({before})"
    medians = [statistics.median(side) for side in seconds.values()]
    print(f"{name}: {medians[1] / medians[0]:.2f}x (pairs {ratios[0]:.2f} to {ratios[-1]:.2f}, n = {repeats})")
    return {
        "name": name,
        "ratio": round(medians[1] / medians[0], 3),
        "spread": [round(ratios[0], 3), round(ratios[-1], 3)],
        "seconds": [round(value, 2) for value in medians],
        "bar": ">= 5x",
        "repeats": repeats,
    }


def steered(model: SteerableModel, repeats: int) -> dict[str, Any]:
    """Time batches that write exactly as many tokens with steering as without."""
    from harness.engine.decoding import Row, write_rows

    size = 256 if model.device.type == "cuda" or model.hidden_size < 1024 else 32
    prompt = tuple(range(100, 148))

    def run(steering: Steering) -> None:
        stops, model.model.generation_config.eos_token_id = model.model.generation_config.eos_token_id, []
        try:
            write_rows(model, [Row(prompt, steering, key, 64, 0.8, 0.9) for key in range(size)])
        finally:
            model.model.generation_config.eos_token_id = stops

    one = vector(model, len(model.layers) // 2, 0.05)
    name = f"steered batch of {size}, time of the unsteered batch over that of the steered"
    return compare(name, lambda: run(one), lambda: run(Steering()), repeats, same=False, bar=">= 0.98 (<= 1.02x time)")


def alone(model: SteerableModel, repeats: int, texts: int) -> dict[str, Any]:
    """Compare tokens per second with a program that writes one text at a time, steered by a forward hook."""
    layer = len(model.layers) // 2
    requests = cells(model, [vector(model, layer, 0.05)], texts)
    direction = torch.ones(model.hidden_size, dtype=model.model.dtype, device=model.device) * 0.05
    direction /= model.hidden_size**0.5
    sampling = requests[0].sampling
    inputs = [render(model.tokenizer, prompt) for prompt in requests[0].prompts.values()]

    def ours() -> float:
        fresh = cells(model, [vector(model, layer, 0.05)], texts)
        started = time.perf_counter()
        write(model, fresh)
        return (time.perf_counter() - started) / sum(request.usage.new_tokens for request in fresh)

    def one_by_one() -> float:
        def add(module: Any, args: Any, output: Any) -> Any:
            return output + direction if isinstance(output, torch.Tensor) else (output[0] + direction, *output[1:])

        hook = model.layers[layer].register_forward_hook(add)
        torch.manual_seed(0)
        started, tokens = time.perf_counter(), 0
        try:
            for text in inputs[:10]:
                batch = model.tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)
                written = model.model.generate(
                    **batch,
                    do_sample=True,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=0,
                    max_new_tokens=sampling.max_new_tokens,
                    pad_token_id=model.tokenizer.pad_token_id,
                )
                tokens += written.shape[1] - batch["input_ids"].shape[1]
        finally:
            hook.remove()
        return (time.perf_counter() - started) / tokens

    name = f"tokens per second, a cell of {texts * len(inputs)} texts, against one text at a time with a hook"
    bar = ">= 50x" if model.device.type == "cuda" else ">= 15x"
    return compare(name, ours, one_by_one, repeats, same=False, bar=bar, measure=lambda side: side())


def queue(model: SteerableModel, repeats: int, texts: int) -> dict[str, Any]:
    """Time 13 configurations in one queue and one after the other; their texts must be equal."""
    depths = [round(len(model.layers) * share) for share in (0.21, 0.48, 0.74)]
    steerings = [Steering(), *(vector(model, min(d, len(model.layers) - 1), s) for d in depths for s in (1, 2, 3, 4))]
    return compare(
        f"13 configurations of {texts} texts a label in one queue, against 13 runs",
        lambda: write(model, cells(model, steerings, texts, "sentiment")),
        lambda: [write(model, [request])[0] for request in cells(model, steerings, texts, "sentiment")],
        repeats,
        bar=">= 3x" if model.device.type == "cuda" else ">= 1.3x",
    )


def main() -> None:
    """Measure the claims that are named."""
    parser = options(__doc__)
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of {', '.join(CLAIMS)} (default: all)")
    parser.add_argument("--model", default=str(MINI), help="folder of the model (default: the one that ships)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--before", default=BEFORE, help=f"commit of the other engine (default: {BEFORE})")
    parser.add_argument("--languages", default="am,he,da", help="of the first claim (default: am,he,da)")
    parser.add_argument("--texts", type=int, default=15, help="texts a label (default: 15)")
    given = parser.parse_args()
    claims = given.claims or CLAIMS
    if unknown := set(claims) - set(CLAIMS):
        parser.error(f"unknown claim {', '.join(sorted(unknown))}; valid: {', '.join(CLAIMS)}")
    results = []
    if "packed" in claims:
        results.append(packed(given.before, given.languages, min(given.repeats, 3)))
    if set(claims) - {"packed"}:
        model = load_model(resolve_checkpoint(given.model), given.dtype, given.device)
        model.model.generation_config.pad_token_id = model.tokenizer.pad_token_id
        if "steered" in claims:
            results.append(steered(model, given.repeats))
        if "alone" in claims:
            results.append(alone(model, given.repeats, given.texts))
        if "queue" in claims:
            results.append(queue(model, min(given.repeats, 3), given.texts))
    report([{**result, "model": Path(given.model).name} for result in results], given.device)


if __name__ == "__main__":
    main()
