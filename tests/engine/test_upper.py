"""Passes that begin above a layer equal those through all layers; families where they would not are left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import HIDDEN, LAYERS
from support.families import ATTENTION, FAST, SLOW, tiny_model

from harness.engine.model import SteerableModel
from harness.engine.upper import UpperLayers

# Prompts of unlike lengths, longer than the tiny models' sliding window of 8; one has two texts.
PROMPTS = [[1, *range(10, 22)], [1, 30, 31]]
TEXTS = [(PROMPTS[0], [40, 41, 42]), (PROMPTS[1], [43]), (PROMPTS[0], [44, 45, 46, 47, 48, 49, 50, 51, 52, 53])]
ROWS = [2, 0, 1, 0]


def states_and_gradient(upper: UpperLayers, positions: Any, value: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last states of all texts, and the gradient of a sum of them over a vector."""
    size = upper.model.hidden_size
    vector = (value * torch.linspace(-1, 1, size)).requires_grad_()
    batch = upper.batch(ROWS)
    found = upper.run(upper.model.decoder, batch, vector, positions)[0][batch.after]
    (found * torch.linspace(0, 1, found.numel()).view_as(found)).sum().backward()
    assert vector.grad is not None
    return found.detach(), vector.grad


def whole(model: SteerableModel, layer: int) -> UpperLayers:
    upper = UpperLayers(model, layer, TEXTS)
    upper.shares = upper.skips = False
    return upper


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
@pytest.mark.parametrize("layer", [0, LAYERS - 2])
def test_every_family_gives_the_states_and_gradients_of_whole_texts(each_model, layer, positions):
    upper = UpperLayers(each_model, layer, TEXTS)
    assert (upper.shares, upper.skips) == (True, True)
    for value in (0.0, 1.0):  # the second time nothing is read anew
        ours, plain = (states_and_gradient(which, positions, value) for which in (upper, whole(each_model, layer)))
        for found, expected in zip(ours, plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("family", [*FAST, *SLOW])
def test_families_with_states_learn_from_whole_prompts_and_others_share_them(family: str):
    model = tiny_model(family)
    upper = UpperLayers(model, 1, TEXTS)
    assert upper.shares == (family in ATTENTION)
    ours, plain = (states_and_gradient(which, "all", 1.0) for which in (upper, whole(model, 1)))
    for found, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_a_text_is_read_once_and_a_prompt_once_per_pass(tiny_models):
    model = tiny_models["llama"]
    upper = UpperLayers(model, 1, TEXTS)
    passes: dict[int, list[tuple[int, ...]]] = {0: [], 2: []}
    handles = [
        model.layers[i].mlp.register_forward_hook(lambda m, a, o, i=i: passes[i].append(tuple(o.shape[:2])))
        for i in passes
    ]
    for _ in range(2):
        upper.run(model.model, upper.batch(ROWS), torch.zeros(HIDDEN))
    for handle in handles:
        handle.remove()
    # Rows 1 and 2, with the shortest and the longest prompt, were read at the start: only row 0 is new.
    assert passes[0] == [(1, 3)]
    assert passes[2] == [(2, 13), (4, 10)] * 2


def test_a_family_whose_layers_pass_on_more_than_states_is_read_whole(new_model):
    model = new_model("llama")
    seen: list[torch.Tensor] = []
    first, last = model.layers[0].mlp, model.layers[2].mlp
    model.decoder.register_forward_pre_hook(lambda module, args: seen.clear())
    first.register_forward_hook(lambda module, args, output: seen.append(output))
    last.register_forward_hook(lambda module, args, output: output + seen[-1].mean())
    upper = UpperLayers(model, 1, TEXTS)
    assert (upper.shares, upper.skips) == (False, False)
