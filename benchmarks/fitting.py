"""Speed of reading text for vectors, as ratios within one run.

    python benchmarks/fitting.py [CLAIM ...] [--model FOLDER | --shape llama-3.1-8b] [--sentences 100] [--device cuda]

    means     means of states and neurons over 12 languages, all layers, against hidden states at batch 1
    forward   the same means, against a forward pass alone over the same batches: the share of its tokens per second
    cached    a second run's reading, from the cache, against the first one's

Without a claim, all. The default model ships with steerboard; ``--shape`` has random weights, in bfloat16 on a GPU.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import compare, options, report
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from harness.core.checkpoints import resolve_checkpoint
from harness.core.records import ModelIdentity
from harness.core.store import Run
from harness.data.corpus import Corpus
from harness.data.sources import open_data
from harness.data.suite import load_suite
from harness.engine.activations import forward, has_gated_projections, read_means
from harness.engine.model import SteerableModel, load_model
from harness.runner.fit import Fitter
from harness.runner.prepare import RunPlan

MINI = Path(__file__).resolve().parent.parent / "tasks" / "mini" / "pocketlm"
CLAIMS = ("means", "forward", "cached")
SHAPES = {
    "llama-3.1-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    }
}
BOUND = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""How far the means of the two ways may be apart, in units of the mean's norm: rows of a batch round otherwise."""

Texts = dict[str, list[str]]


def random_model(shape: str, device: str) -> SteerableModel:
    """Return a model of a real shape with random weights and the tokenizer of the shipped one."""
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    torch.set_default_dtype(dtype)
    with torch.device(device):
        network = LlamaForCausalLM(LlamaConfig(**SHAPES[shape]))
    torch.set_default_dtype(torch.float32)
    return SteerableModel(network, AutoTokenizer.from_pretrained(MINI, trust_remote_code=False))


def wait(model: SteerableModel) -> None:
    """Wait for the device, so that its work is measured and not the asking for it."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def ours(model: SteerableModel, texts: Texts) -> dict[str, Any]:
    """Return the mean states of every language: [layers, hidden size]."""
    neurons: Any = "last" if has_gated_projections(model) else None
    return {code: read_means(model, rows, neurons=neurons)[0] for code, rows in texts.items()}


def one_by_one(model: SteerableModel, texts: Texts) -> dict[str, Any]:
    """Return the same from ``output_hidden_states`` of one text at a time, as the papers' programs read them."""
    found = {}
    with torch.inference_mode():
        for code, rows in texts.items():
            total, n_tokens = torch.zeros((), dtype=torch.float64, device=model.device), 0
            for text in rows:
                batch = model.tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)
                output = model.model(**batch, output_hidden_states=True, use_cache=False)
                # The last of them is normed; a decoder layer's own output is wanted, but it costs the same.
                total = total + torch.stack(output.hidden_states[1:])[:, 0].double().sum(1)
                n_tokens += batch["input_ids"].shape[1]
            found[code] = (total / n_tokens).cpu().numpy()
    return found


def means(model: SteerableModel, texts: Texts, repeats: int) -> dict[str, Any]:
    """Compare the two ways to read the means."""
    first, second = ours(model, texts), one_by_one(model, texts)
    apart = max(
        float(np.linalg.norm(first[code].mean[layer] - second[code][layer]) / np.linalg.norm(second[code][layer]))
        for code in texts
        for layer in range(len(model.layers) - 1)
    )
    print(f"means of the two ways: at most {apart:.1e} of their norm apart", flush=True)
    if not apart <= BOUND[model.model.dtype]:
        raise SystemExit("the two ways do not give the same means")
    name = f"means of states and neurons, {len(texts)} languages, {len(model.layers)} layers, against batch 1"
    bar = ">= 10x" if model.device.type == "cuda" else ">= 4x"
    return compare(name, lambda: ours(model, texts), lambda: one_by_one(model, texts), repeats, same=False, bar=bar)


def plain(model: SteerableModel, texts: Texts) -> Callable[[], None]:
    """Return forward passes of the decoder over the batches that ``ours`` reads, already tokenised and padded."""
    batches: list[dict[str, torch.Tensor]] = []
    handle = model.decoder.register_forward_pre_hook(
        lambda module, args, given: batches.append({name: given[name] for name in ("input_ids", "attention_mask")}),
        with_kwargs=True,
    )
    ours(model, texts)
    handle.remove()

    def run() -> None:
        for batch in batches:
            forward(model, batch)
        wait(model)

    return run


def share(model: SteerableModel, texts: Texts, repeats: int) -> dict[str, Any]:
    """Compare with forward passes that read nothing."""
    name = "the same means, as a share of a plain forward's tokens per second"
    return compare(name, lambda: ours(model, texts), plain(model, texts), repeats, same=False, bar=">= 0.85")


def cached(model: SteerableModel, texts: Texts, repeats: int) -> dict[str, Any]:
    """Compare the first run on a cache with the second."""
    suite = load_suite("mini")
    corpus = Corpus(suite, open_data(suite, None))
    identity = ModelIdentity(name="benchmark", fingerprint="0", dtype=str(model.model.dtype).removeprefix("torch."))

    def read(folder: str) -> list[bytes]:
        plan = RunPlan(Run(Path(folder)), suite, corpus, None, {}, [], [], identity, cache=Path(folder))
        fitter = Fitter(plan, model)
        return [fitter.mean_states(rows).mean.tobytes() for rows in texts.values()]

    def cold() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            return read(folder)

    with tempfile.TemporaryDirectory() as folder:
        read(folder)
        name = "a second run's reading of the same text, from the cache, against the first"
        return compare(name, partial(read, folder), cold, repeats)


def main() -> None:
    """Print the ratios."""
    parser = options(__doc__)
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=", ".join(CLAIMS))
    parser.add_argument("--model", default=str(MINI))
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--sentences", type=int, default=100, help="per language (default: 100)")
    arguments = parser.parse_args()
    if unknown := set(arguments.claims) - set(CLAIMS):
        parser.error(f"unknown claim {', '.join(unknown)}; valid: {', '.join(CLAIMS)}")
    suite = load_suite("mini")
    corpus = Corpus(suite, open_data(suite, None))
    texts = {
        code: list(islice(cycle(row.text for row in corpus.parallel(code)), arguments.sentences))
        for code in corpus.vector_languages
    }
    if arguments.shape:
        model = random_model(arguments.shape, arguments.device)
    else:
        model = load_model(resolve_checkpoint(arguments.model), "float32", arguments.device)
    claims = {"means": means, "forward": share, "cached": cached}
    results = [claims[name](model, texts, arguments.repeats) for name in arguments.claims or CLAIMS]
    report(results, arguments.device)


if __name__ == "__main__":
    main()
