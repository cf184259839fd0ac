"""Which rows of vLLM's batch a steering is added to. Needs no vLLM: tests/vllm_engine compares whole texts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from harness.core.errors import UnsupportedError, UserError
from harness.core.interventions import Intervention, Steering
from harness.engine.vllm.model import layer_vectors
from harness.engine.vllm.worker import NAME, RowSteering

SIZE = 2
UP, RIGHT = np.array([0.0, 1.0], np.float32), np.array([1.0, 0.0], np.float32)


class Layer(nn.Module):
    """A layer of vLLM: what it wrote, and the stream before it."""

    def forward(self, positions, hidden, residual):
        return hidden, residual


class Runner:
    """As much of vLLM's runner as the hooks see. ``requests``: name -> (prompt, past, scheduled, what it asks for)."""

    def __init__(self, requests):
        self.model = nn.Module()
        self.model.layers = nn.ModuleList([Layer(), Layer()])
        found = requests.items()
        self.requests = {
            name: SimpleNamespace(
                num_prompt_tokens=prompt, sampling_params=SimpleNamespace(extra_args={NAME: own} if own else None)
            )
            for name, (prompt, _, _, own) in found
        }
        self.input_batch = SimpleNamespace(
            req_ids=list(requests), num_computed_tokens_cpu=np.array([past for _, (_, past, _, _) in found])
        )
        self.scheduled = {name: count for name, (_, _, count, _) in found}

    def execute_model(self, scheduler_output, padding=0):
        rows = sum(self.scheduled.values()) + padding
        hidden, residual = torch.full((rows, SIZE), -0.0), torch.full((rows, SIZE), 7.0)
        for layer in self.model.layers:
            hidden, residual = layer(None, hidden, residual)
        return hidden


def steer(requests, steering, padding=0, watch=()):
    """Return what the last layer wrote, and what was read back."""
    runner = Runner(requests)
    hooks = RowSteering(runner, runner.model, 2)
    for name, layers in steering.items():
        hooks.add(name, layers)
    if watch:
        hooks.watch(list(watch))
    written = runner.execute_model(SimpleNamespace(num_scheduled_tokens=runner.scheduled), padding=padding)
    return written, hooks.seen()


def test_each_request_gets_its_own_vector_at_its_own_rows():
    requests = {
        "plain": (3, 0, 3, None),
        "up": (2, 0, 2, {"steering": "up"}),
        "decoding": (4, 6, 1, {"steering": "right"}),
        "none": (9, 9, 1, {"steering": ""}),
    }
    written, _ = steer(requests, {"up": {1: (UP, "all")}, "right": {0: (RIGHT, "all")}}, padding=2)
    expected = torch.full((9, SIZE), -0.0)
    expected[3:5] = torch.tensor([0.0, 1.0])
    expected[5] = torch.tensor([1.0, 0.0])
    assert torch.equal(written, expected)
    others = written[[0, 1, 2, 6, 7, 8]]
    assert torch.signbit(others).all(), "rows without steering stay as they are, bit for bit"


# A prompt of five tokens: the last one predicts the first new token.
@pytest.mark.parametrize(
    ("positions", "past", "count", "moved"),
    [
        ("prompt", 0, 5, [1, 1, 1, 1, 0]),
        ("generated", 0, 5, [0, 0, 0, 0, 1]),
        ("all", 0, 5, [1, 1, 1, 1, 1]),
        ("prompt", 2, 2, [1, 1]),  # a part of the prompt
        ("prompt", 3, 2, [1, 0]),
        ("generated", 2, 2, [0, 0]),
        ("generated", 3, 4, [0, 1, 1, 1]),  # a text that was put off and is read again
        ("prompt", 5, 1, [0]),
        ("generated", 5, 1, [1]),
    ],
)
def test_positions_are_those_of_the_text_wherever_a_step_begins(positions, past, count, moved):
    requests = {"before": (4, 0, 4, None), "it": (5, past, count, {"steering": "it"}), "after": (2, 0, 2, None)}
    written, _ = steer(requests, {"it": {0: (UP, positions)}})
    assert written[:, 1].tolist() == [0, 0, 0, 0, *moved, 0, 0]


def test_what_is_read_back_is_the_sum_of_both_tensors_of_the_requests_that_ask():
    requests = {"a": (2, 0, 2, {"steering": "up", "watch": "mine"}), "b": (1, 0, 1, {"steering": "up"})}
    _, seen = steer(requests, {"up": {0: (UP, "all")}}, watch=[0])
    assert {name: states.tolist() for name, states in seen.items()} == {(0, "mine"): [[7.0, 8.0], [7.0, 8.0]]}


def test_a_batch_that_is_not_what_was_scheduled_is_refused():
    runner = Runner({"a": (2, 0, 2, {"steering": "up"})})
    RowSteering(runner, runner.model, 2)
    with pytest.raises(RuntimeError, match="batch has 2 tokens, its scheduler gave 3"):
        runner.execute_model(SimpleNamespace(num_scheduled_tokens={"a": 2, "gone": 1}))


def test_vectors_at_one_layer_are_added_up():
    add = {"site": "layer_output", "operation": "add", "unit": "residual", "residual_norm": 10.0}
    items = [
        Intervention(layer=1, vector=UP, strength=0.2, **add),
        Intervention(layer=1, vector=UP, strength=0.3, **add),
    ]
    ((layer, (vector, positions)),) = layer_vectors(Steering(tuple(items)), 2, SIZE).items()
    assert (layer, vector.tolist(), positions) == (1, [0.0, 5.0], "all")


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"site": "mlp_neurons", "operation": "scale"}, UnsupportedError, "this method scales mlp_neurons"),
        ({"operation": "scale"}, UnsupportedError, "this method scales layer_output"),
        ({"site": "mlp_neurons"}, UnsupportedError, "this method adds to mlp_neurons"),
        ({"layer": 2}, UserError, "layers 0 to 1"),
        ({"vector": np.ones(3, np.float32)}, UserError, "the vector has 3 numbers, the model's hidden size is 2"),
    ],
)
def test_what_vllm_does_not_do_is_refused_by_name(changes, kind, words):
    item = {"site": "layer_output", "layer": 0, "operation": "add", "vector": UP, "strength": 1.0, "unit": "raw"}
    steering = Steering((Intervention(**{**item, "residual_norm": 1.0, **changes}),))
    with pytest.raises(kind, match=words):
        layer_vectors(steering, 2, SIZE)
