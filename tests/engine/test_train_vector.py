"""Training a vector: batches, early stopping, losses that are not finite."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.core.errors import UserError
from harness.engine.train_vector import TrainConfig, _batches, train_vector

PLAN = TrainConfig(steps=4, batch_size=4, lr=0.01, max_norm=0.5)


def test_batches_are_full_and_take_every_text_equally_often():
    drawn = _batches(range(10), 4, lambda row: row % 3, np.random.default_rng(0))
    batches = [next(drawn) for _ in range(20)]
    assert {len(batch) for batch in batches} == {4}
    assert set(np.bincount(np.concatenate(batches))) == {8}
    few = _batches(range(3), 16, lambda row: row, np.random.default_rng(0))
    assert [sorted(next(few)) for _ in range(2)] == [[0, 1, 2], [0, 1, 2]]


@dataclass
class Made:
    """A loss without a model: train text pulls one way, held-out text the other, from a point on."""

    turn: float
    model: Any = field(
        default_factory=lambda: SimpleNamespace(
            hidden_size=1, device=torch.device("cpu"), model=SimpleNamespace(dtype=torch.float32)
        )
    )

    def length(self, row: int) -> int:
        return 1

    def loss(self, rows: Any, vector: torch.Tensor) -> tuple[torch.Tensor, int]:
        wanted = [2.0 if row < 10 else self.turn for row in rows]
        return sum((vector - w).square().sum() for w in wanted), len(rows)


def test_learning_stops_when_held_out_text_gets_worse_and_the_best_vector_is_kept():
    plan = TrainConfig(steps=1000, batch_size=4, lr=0.01, max_norm=9.0)
    found = train_vector(Made(0.2), range(10), range(10, 20), 1.0, plan, np.random.default_rng(0))
    assert (found.best_step, found.curve[-1]["step"]) == (20, 50)  # 0.2 is reached after 20 steps of 0.01
    assert found.stopped == "held-out loss not lower 3 times in a row, at step 50"
    assert found.vector == pytest.approx([0.2], abs=0.02)


def test_no_vector_is_the_outcome_where_none_helps_held_out_text():
    plan = TrainConfig(steps=1000, batch_size=4, lr=0.01, max_norm=9.0)
    found = train_vector(Made(-1.0), range(10), range(10, 20), 1.0, plan, np.random.default_rng(0))
    assert (found.best_step, found.curve[-1]["step"]) == (0, 30)
    assert found.vector.tolist() == [0.0]
    assert found.curve[0]["held_out"] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_one_line(value):
    with pytest.raises(UserError, match=r"not finite at step 0\. Take --dtype bfloat16"):
        train_vector(Made(value), range(10), range(10, 20), 1.0, PLAN, np.random.default_rng(0))
