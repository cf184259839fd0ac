"""Memory of a step of the method ``learned``, as ratios to a plain forward and backward pass.

    python benchmarks/learned_memory.py [--model FOLDER] [--texts 16] [--layers 0 0.48]

The plain pass is that of the same frozen model over the same batch, its input embeddings requiring a
gradient, with the loss that transformers computes over all tokens. Two measures: the bytes of distinct
tensors that the forward pass keeps for the backward pass (exact, the same everywhere), and the peak above
what was held before, in a process of its own: of resident memory on
a CPU (Linux only), of allocated memory on a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor

from harness.core.checkpoints import resolve_checkpoint
from harness.core.devices import choose_device
from harness.data.corpus import Corpus
from harness.data.prompts import suite_prompt
from harness.data.sources import open_data
from harness.data.suite import load_suite
from harness.engine.chat import render
from harness.engine.model import SteerableModel, load_model
from harness.engine.train_vector import Alignment, Likelihood

MINI = Path(__file__).parent.parent / "tasks" / "mini" / "pocketlm"
OBJECTIVES = ("likelihood", "align")
Pass = Callable[[], Tensor]


def batch(model: SteerableModel, n: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (prompt, text) and (sentence, translation) pairs of the mini suite, ``n`` of each."""
    suite = load_suite("mini")
    corpus, task = Corpus(suite, open_data(suite, None)), suite.task("topic", "am")
    prompts = {label: render(model.tokenizer, suite_prompt(task, "zero-shot", label)) for label in task.labels}
    groups = corpus.by_label("topic", "am", "train")
    examples = [(prompts[label], row.text) for label, rows in groups.items() for row in rows]
    sides = (corpus.parallel(code)[:n] for code in ("am", suite.reference_language))
    pairs = [(a.text, b.text) for a, b in zip(*sides, strict=True)]
    step = max(1, len(examples) // n)
    return examples[::step][:n], pairs


def passes(model: SteerableModel, layer: int, n: int) -> dict[str, Pass]:
    """Return what runs the forward pass of every side and returns its loss."""
    examples, pairs = batch(model, n)
    vector = torch.zeros(model.hidden_size, device=model.device, requires_grad=True)
    likelihood = Likelihood(model, layer, examples, 256)
    readout = max(layer, round(0.74 * len(model.layers)))
    alignment = Alignment(model, layer, min(readout, len(model.layers) - 1), pairs, 1.0, 256, n)

    def plain(texts: list[str]) -> Pass:
        inputs = model.encode(texts, special_tokens=False, side="right")
        mask = inputs["attention_mask"]
        labels = inputs["input_ids"].masked_fill(mask == 0, -100)

        def forward() -> Tensor:
            states = model.model.get_input_embeddings()(inputs["input_ids"]).requires_grad_()
            output = model.model(inputs_embeds=states, attention_mask=mask, labels=labels, use_cache=False)
            loss: Tensor = output.loss
            return loss

        return forward

    return {
        "likelihood": lambda: likelihood.loss(range(n), vector)[0],
        "likelihood, plain": plain([prompt + text for prompt, text in examples]),
        "align": lambda: alignment.loss(range(n), vector)[0],
        "align, plain": plain([sentence for sentence, _ in pairs]),
    }


def kept_bytes(model: SteerableModel, forward: Pass) -> int:
    """Return the bytes of distinct tensors, weights apart, that a forward pass keeps for its backward."""
    weights = {p.untyped_storage().data_ptr() for p in model.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    loss.backward()
    return sum(kept.values())


def peak_bytes(model: SteerableModel, forward: Pass) -> int:
    """Return the peak of this process above what it holds now, over one forward and backward pass."""
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward().backward()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of loading
    before = resident("VmRSS")
    forward().backward()
    return resident("VmHWM") - before


def resident(what: str) -> int:
    """Return a line of Linux's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def peak_of_a_process(arguments: argparse.Namespace, side: str, layer: int) -> int:
    """Return ``peak_bytes`` of one side in a process of its own, since a peak never falls again."""
    more = ["--model", arguments.model, "--texts", str(arguments.texts), "--only", side, str(layer)]
    done = subprocess.run([sys.executable, __file__, *more], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(MINI))
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--layers", type=float, nargs="+", default=[0.0, 0.48])
    parser.add_argument("--only", nargs=2, help="side and layer: print its peak (for the processes within)")
    arguments = parser.parse_args()
    device = choose_device()
    model = load_model(resolve_checkpoint(arguments.model), "float32", device)
    if arguments.only:
        side, number = arguments.only
        passes(model, int(number), 1)[side]().backward()  # warms up
        print(peak_bytes(model, passes(model, int(number), arguments.texts)[side]))
        return
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    for depth in arguments.layers:
        layer = round(depth * len(model.layers))
        forwards = passes(model, layer, arguments.texts)
        for name in OBJECTIVES:
            sides = (name, f"{name}, plain")
            kept = [kept_bytes(model, forwards[side]) for side in sides]
            peak = [peak_of_a_process(arguments, side, layer) for side in sides]
            for measure, (ours, plain) in (("kept for backward", kept), ("peak of a process", peak)):
                line = {
                    "name": f"learned, {name}, layer {layer}, {measure}, against a plain pass",
                    "ratio": round(ours / plain, 3),
                    "bytes": ours,
                    "plain": plain,
                    "device": device,
                    "versions": versions,
                }
                print(json.dumps(line))


if __name__ == "__main__":
    main()
