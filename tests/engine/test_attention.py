"""Attention of one new token as two matrix products: what transformers computes, and nothing of it stays behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.engine import attention
from harness.engine.attention import attend, fast_attention


def inputs(rows: int, heads: int, groups: int, keys: int, size: int, value_size: int | None = None) -> Any:
    """Return query, key, value and a mask in which every row sees its last key, and others by chance."""
    chance = torch.Generator().manual_seed(rows * 1000 + keys)
    query = torch.randn(rows, heads, 1, size, generator=chance)
    key = torch.randn(rows, groups, keys, size, generator=chance)
    value = torch.randn(rows, groups, keys, value_size or size, generator=chance)
    mask = torch.rand(rows, 1, 1, keys, generator=chance) < 0.6
    mask[..., -1] = True
    return query, key, value, mask


def module(heads: int, groups: int) -> Any:
    return SimpleNamespace(num_key_value_groups=heads // groups, is_causal=True)


@pytest.fixture
def left_to_transformers(monkeypatch) -> list[int]:
    """Count the calls that are left to transformers."""
    calls: list[int] = []

    def count(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return sdpa_attention_forward(*arguments, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", count)
    return calls


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 1)], ids=["heads", "groups", "one group"])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 9), (5, 33)])
def test_one_position_is_what_transformers_computes(left_to_transformers, heads, groups, scaling, rows, keys):
    query, key, value, mask = inputs(rows, heads, groups, keys, 8)
    given = query.clone()
    found, nothing = attend(module(heads, groups), query, key, value, mask, scaling=scaling)
    assert (nothing, left_to_transformers) == (None, [])
    expected, _ = sdpa_attention_forward(module(heads, groups), query, key, value, mask, scaling=scaling)
    assert found.shape == expected.shape == (rows, 1, heads, 8)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(query, given)


def test_values_may_have_another_size_than_keys(left_to_transformers):
    query, key, value, mask = inputs(3, 4, 4, 7, 8, value_size=6)
    found, _ = attend(module(4, 4), query, key, value, mask)
    expected, _ = sdpa_attention_forward(module(4, 4), query, key, value, mask)
    assert left_to_transformers == []
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_is_masked_weighs_nothing_and_two_keys_weigh_what_their_scores_say():
    """Scores 0 and ln 3 of the keys that are seen: their values weigh a quarter and three quarters."""
    query = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    key = torch.tensor([[9.0, 9.0], [0.0, 5.0], [torch.log(torch.tensor(3.0)), 2.0]]).view(1, 1, 3, 2)
    value = torch.tensor([[1e30, -1e30], [4.0, 8.0], [0.0, 16.0]]).view(1, 1, 3, 2)
    mask = torch.tensor([False, True, True]).view(1, 1, 1, 3)
    found, _ = attend(module(1, 1), query, key, value, mask, scaling=1.0)
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0, 14.0]))


@pytest.mark.parametrize("case", ["positions", "no mask", "additive mask", "mask of heads"])
def test_anything_else_is_left_to_transformers(left_to_transformers, case):
    query, key, value, mask = inputs(2, 4, 2, 6, 8)
    changes = {
        "positions": (torch.randn(2, 4, 3, 8), mask.expand(2, 1, 3, 6)),
        "no mask": (query, None),
        "additive mask": (query, torch.zeros(2, 1, 1, 6).masked_fill(~mask, -1e9)),
        "mask of heads": (query, mask.expand(2, 4, 1, 6)),
    }
    query, mask = changes[case]
    found, _ = attend(module(4, 2), query, key, value, mask)
    expected, _ = sdpa_attention_forward(module(4, 2), query, key, value, mask)
    assert len(left_to_transformers) == 1
    assert torch.equal(found, expected)


def test_the_block_alone_uses_it_and_leaves_nothing_behind_on_an_error():
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert before is not attend
    with fast_attention():
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attend
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    with pytest.raises(ValueError, match="in the block"), fast_attention():
        raise ValueError("in the block")
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
