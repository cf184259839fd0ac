"""Proof, before any text, that vLLM applies steering: plug-ins made for other versions of it ran silently unsteered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import UserError, in_words, is_infrastructure
from harness.core.interventions import Intervention, Steering
from harness.engine.decoding import Row
from harness.engine.vllm.model import VllmModel

_TOKENS = 9  # of the prompts, less than a block that vLLM would keep
_LAYERS = 16  # that are steered at once, each for one request
_PLAIN = "plain"


def check_steering(model: VllmModel) -> None:
    """Raise ``UserError`` where a vector does not move the output of its layer, for its request alone, by itself.

    Requests that are steered at one layer each, and one that is not, go through the model in one batch: a short prompt
    and one new token. What the layers return is read back and compared with that of the same batch without steering.
    """
    for start in range(0, model.n_layers, _LAYERS):
        try:
            reason = _why_not(model, range(start, min(start + _LAYERS, model.n_layers)))
        except Exception as error:  # whatever vLLM raises, it is of no use to any cell
            if is_infrastructure(error):
                raise
            reason = f"a pass over a few tokens fails ({in_words(error):.160})"
        if reason:
            import vllm

            raise UserError(
                f"vLLM {vllm.__version__} does not steer {model.name}: {reason}. Use --engine transformers, or another "
                "version of vLLM."
            )


def _why_not(model: VllmModel, layers: range) -> str:
    watched = [*layers, *([layers.stop] if layers.stop < model.n_layers else [])]
    before = _read(model, watched, dict.fromkeys(layers, Steering()))
    norm = {layer: float(np.median(np.linalg.norm(before[layer, _PLAIN], axis=-1))) for layer in layers}
    unit = np.random.default_rng(0).normal(size=model.hidden_size).astype(np.float32)
    unit /= np.linalg.norm(unit)
    vectors = {layer: norm[layer] * unit for layer in layers}
    steering = {
        layer: Steering((Intervention("layer_output", layer, "add", vector, 1.0, "raw", 1.0, "all"),))
        for layer, vector in vectors.items()
    }
    after = _read(model, watched, steering)
    bound = 1e-3 if model.engine.model_config.dtype.itemsize > 2 else 0.1
    positions = _TOKENS + 1
    if any(len(states) != positions for states in (*before.values(), *after.values())):
        return f"its layers do not return one state for each of {positions} tokens"
    for layer in layers:
        apart = _apart(after[layer, str(layer)] - before[layer, str(layer)], vectors[layer])
        if np.median(apart) > bound:
            return f"a vector added after a layer does not move its output by that vector (layer {layer})"
        others = [_PLAIN, *(str(other) for other in layers if other > layer)]
        if max(np.max(_apart(after[layer, other], before[layer, other])) for other in others) > bound:
            return f"a vector added after a layer moves another request (layer {layer})"
        following = (layer + 1, str(layer))
        if following in after and np.median(_apart(after[following], before[following])) < bound / 10:
            return f"a vector added after a layer does not reach the layer above it (layer {layer})"
    return ""


def _read(
    model: VllmModel, watched: list[int], steering: dict[int, Steering]
) -> dict[tuple[int, str], NDArray[np.float32]]:
    """Return what the layers give for each request of a batch; they all write the same token."""
    batch = model.open_batch()
    numbers = range(_TOKENS)
    prompts = {str(layer): tuple(3 + (7 * i + layer) % 64 for i in numbers) for layer in steering}
    model.call_workers("watch", watched)
    for name, prompt in {_PLAIN: tuple(3 + 5 * i % 64 for i in numbers), **prompts}.items():
        row = Row(prompt, steering[int(name)] if name != _PLAIN else Steering(), 0, 2, 1.0, 1.0)
        batch.follow(row, watch=name, allowed_token_ids=[3])
    while batch.active:
        batch.step()
    seen: dict[tuple[int, str], NDArray[np.float32]] = model.call_workers("seen")
    return seen


def _apart(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return by what share of its norm every state differs from the expected one."""
    gap = np.linalg.norm(found - expected, axis=-1)
    share: NDArray[np.float32] = gap / np.maximum(np.linalg.norm(expected, axis=-1), 1e-12)
    return share
