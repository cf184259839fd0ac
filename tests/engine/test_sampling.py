"""Keyed sampling: the noise of a text is a function of its name, so it can be checked like one.

Known answers of SplitMix64 come from the reference program (Vigna, ``splitmix64.c``); everything else
is recomputed in plain Python integers or compared with probabilities that are written down.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from support.helpers import key
from torch import Tensor

from harness.core.cells import sampling_key
from harness.engine import sampling
from harness.engine.sampling import draw_tokens, mix_hash, signed, uniform

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def plain_mix(value: int) -> int:
    value = (value + GOLDEN) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def mixed(value: int) -> int:
    return int(mix_hash(torch.tensor([signed(value & MASK)]))[0]) & MASK


def unmix(value: int) -> int:
    """Return the number that SplitMix64 turns into ``value``."""

    def unshift(shifted: int, bits: int) -> int:
        found = shifted
        for _ in range(64 // bits):
            found = shifted ^ (found >> bits)
        return found

    value = unshift(value, 31) * pow(0x94D049BB133111EB, -1, 2**64) & MASK
    value = unshift(value, 27) * pow(0xBF58476D1CE4E5B9, -1, 2**64) & MASK
    return (unshift(value, 30) - GOLDEN) & MASK


def draw(
    logits: Sequence[float] | Tensor,
    keys: Sequence[int],
    top_p: float,
    temperature: float = 1.0,
    step: int = 0,
) -> list[int]:
    """Return one token per key, all rows with the same logits unless a table is given."""
    scores = torch.as_tensor(logits, dtype=torch.float32)
    scores = scores.expand(len(keys), -1) if scores.ndim == 1 else scores
    rows = torch.tensor([signed(key % 2**64) for key in keys])
    return draw_tokens(
        scores,
        rows,
        torch.full_like(rows, step),
        torch.full(rows.shape, temperature),
        torch.full(rows.shape, top_p, dtype=torch.float64),
    ).tolist()


def log(probabilities: Sequence[float]) -> list[float]:
    return [math.log(p) for p in probabilities]


def assert_drawn_with(tokens: list[int], probabilities: Sequence[float]) -> None:
    """The counts of independent draws lie within 4.5 standard deviations of what is expected."""
    n, counts = len(tokens), Counter(tokens)
    for token, p in enumerate(probabilities):
        assert abs(counts[token] - n * p) <= 4.5 * math.sqrt(n * p * (1 - p)), (token, counts[token], n * p)


@pytest.mark.parametrize(
    ("state", "output"),
    [
        (0, 0xE220A8397B1DCDAF),
        (GOLDEN, 0x6E789E6AA1B965F4),
        (2 * GOLDEN, 0x06C45D188009454F),
        (1234567, 6457827717110365317),
        (1234567 + GOLDEN, 3203168211198807973),
    ],
)
def test_mix_gives_the_known_outputs_of_splitmix64(state, output):
    assert mixed(state) == output


def test_mix_agrees_with_plain_integers_over_the_whole_range():
    numbers = [0, 1, 2**63 - 1, 2**63, MASK, *(random.Random(1).getrandbits(64) for _ in range(2000))]
    tensor = mix_hash(torch.tensor([signed(n) for n in numbers]))
    assert [value & MASK for value in tensor.tolist()] == [plain_mix(n) for n in numbers]


def test_a_uniform_number_is_the_mixed_key_step_and_token():
    key_, step, token = 0xDEADBEEFCAFEF00D, 7, 123
    bits = plain_mix(plain_mix(key_ ^ plain_mix(step)) ^ plain_mix(token))
    found = uniform(torch.tensor([signed(key_)]), torch.tensor([step]), torch.tensor([[token]]))
    assert found.item() == ((bits >> 12) + 0.5) / 2**52


def test_uniform_numbers_do_not_depend_on_rows_or_tokens_beside_them():
    keys, tokens = torch.arange(6) * 977, torch.arange(50).expand(6, -1)
    steps = torch.arange(6)
    table = uniform(keys, steps, tokens)
    some = torch.tensor([[40, 2, 17]])
    assert torch.equal(uniform(keys[4:5], steps[4:5], some), table[4:5, [40, 2, 17]])


@pytest.mark.parametrize("bits", [0, MASK])
def test_uniform_numbers_never_touch_the_ends(bits):
    token = unmix(unmix(bits))  # for the key whose row mixes to 0
    row = unmix(0) ^ plain_mix(0)
    number = uniform(torch.tensor([signed(row)]), torch.tensor([0]), torch.tensor([[signed(token)]])).item()
    assert 0.0 < number < 1.0
    assert number == pytest.approx(bits / MASK, abs=1e-15)


def test_uniform_numbers_are_uniform_and_unrelated_between_neighbours():
    numbers = uniform(torch.arange(400), torch.zeros(400, dtype=torch.int64), torch.arange(400).expand(400, -1))
    assert numbers.mean().item() == pytest.approx(0.5, abs=4.5 * math.sqrt(1 / 12 / 160_000))
    assert numbers.var().item() == pytest.approx(1 / 12, abs=0.001)
    centred = numbers - 0.5
    for neighbours in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert abs(neighbours.mean().item() * 12) < 4.5 / math.sqrt(neighbours.numel())


def test_tokens_are_drawn_with_their_softmax_probabilities():
    probabilities = [0.5, 0.25, 0.15, 0.07, 0.03]
    assert_drawn_with(draw(log(probabilities), range(20_000), top_p=1.0), probabilities)


def test_temperature_divides_the_logits():
    # p^(1/0.5) = .36, .09, .01, over their sum .46
    tokens = draw(log([0.6, 0.3, 0.1]), range(20_000), top_p=1.0, temperature=0.5)
    assert_drawn_with(tokens, [0.36 / 0.46, 0.09 / 0.46, 0.01 / 0.46])


@pytest.mark.parametrize(
    ("top_p", "nucleus"),
    [(0.4, {0}), (0.75, {0, 1}), (0.82, {0, 1, 2}), (0.99, {0, 1, 2, 3}), (1.0, {0, 1, 2, 3})],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p, nucleus):
    tokens = draw(log([0.5, 0.3, 0.15, 0.05]), range(2000), top_p)
    assert set(tokens) == nucleus


def test_the_nucleus_is_renormalised():
    tokens = draw(log([0.5, 0.3, 0.15, 0.05]), range(20_000), top_p=0.75)
    assert_drawn_with(tokens, [0.5 / 0.8, 0.3 / 0.8])


def test_the_nucleus_goes_by_probability_and_not_by_token_number():
    assert set(draw(log([0.05, 0.15, 0.3, 0.5]), range(2000), top_p=0.75)) == {2, 3}


def test_the_first_token_is_kept_however_small_top_p_is():
    assert draw(log([0.2, 0.5, 0.3]), range(50), top_p=1e-9) == [1] * 50


def full_sort(monkeypatch, logits: Tensor, keys: Sequence[int], top_p: float) -> list[int]:
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "_CANDIDATES", ())
        return draw(logits, keys, top_p)


@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0], ids=["flat", "between", "peaked"])
def test_looking_at_a_few_candidates_first_changes_no_draw(monkeypatch, scale):
    logits = torch.randn(300, 1500, generator=torch.Generator().manual_seed(1)) * scale
    keys = range(1000, 1300)
    assert draw(logits, keys, 0.9) == full_sort(monkeypatch, logits, keys, 0.9)


def test_equal_logits_at_the_edge_of_the_nucleus_change_no_draw(monkeypatch):
    logits = torch.randn(300, 1500, generator=torch.Generator().manual_seed(2)) * 3
    rounded = logits.to(torch.bfloat16).mul(2).round().div(2).float()  # many ties, as in bfloat16
    assert draw(rounded, range(300), 0.9) == full_sort(monkeypatch, rounded, range(300), 0.9)


def test_a_nucleus_that_ends_among_tokens_cut_off_by_a_tie_is_found_whole(monkeypatch):
    """Ten tokens hold 0.55, the other 990 the rest in equal parts: 0.6 is reached among those."""
    logits = torch.tensor(log([0.055] * 10 + [0.45 / 990] * 990)).flip(0).repeat(2000, 1)
    tokens = draw(logits, range(2000), 0.6)
    assert tokens == full_sort(monkeypatch, logits, range(2000), 0.6)
    assert {token for token in tokens if token < 990} <= set(range(111))  # 0.05 / (0.45 / 990) = 110


def test_a_row_draws_the_same_beside_a_row_that_needs_all_tokens():
    generator = torch.Generator().manual_seed(3)
    peaked = (torch.randn(200, 1500, generator=generator) * 3).round()
    flat = torch.zeros(1, 1500)
    alone = draw(peaked, range(200), 0.9)
    assert draw(torch.cat([peaked, flat]), range(201), 0.9)[:200] == alone


def test_a_token_of_probability_zero_is_never_drawn():
    assert 1 not in draw([0.0, -math.inf, 0.0], range(500), top_p=1.0)


def test_every_row_has_its_own_step_temperature_and_top_p():
    logits, keys = torch.randn(40, 20, generator=torch.Generator().manual_seed(4)), list(range(40))
    rows = torch.tensor(keys)
    steps, temperature = rows % 3, 0.5 + (rows % 2).float()
    top_p = torch.where(rows % 5 == 0, 0.3, 0.95).double()
    together = draw_tokens(logits, rows, steps, temperature, top_p).tolist()
    alone = [
        draw(logits[i : i + 1], [i], top_p[i].item(), temperature[i].item(), steps[i].item())[0] for i in range(40)
    ]
    assert together == alone
    assert together != draw(logits, keys, 0.95)


@pytest.mark.parametrize("vocabulary", [1500, 4000, 4001, 4015, 8000], ids=str)
def test_the_likeliest_tokens_are_found_through_the_maxima_of_blocks(monkeypatch, vocabulary):
    """4,001 and 4,015 leave a rest beyond whole blocks; the likeliest token of the last rows is in that rest."""
    logits = torch.randn(60, vocabulary, generator=torch.Generator().manual_seed(7)) * 4
    logits[-20:, -1] = 30.0
    assert draw(logits, range(60), 0.9) == full_sort(monkeypatch, logits, range(60), 0.9)
    assert draw(logits, range(60), 0.9)[-20:] == [vocabulary - 1] * 20


def test_a_draw_does_not_depend_on_its_place_in_the_batch():
    logits, keys = (
        torch.randn(30, 50, generator=torch.Generator().manual_seed(5)),
        [k * 7919 for k in range(30)],
    )
    together = draw(logits, keys, 0.95)
    assert [draw(logits[i : i + 1], keys[i : i + 1], 0.95)[0] for i in range(30)] == together
    assert draw(logits.flip(0), keys[::-1], 0.95) == together[::-1]


def test_keys_above_the_signed_range_are_taken_as_they_are():
    assert draw(torch.zeros(1, 1000), [2**64 - 1], 1.0) == draw(torch.zeros(1, 1000), [-1], 1.0)


@pytest.mark.parametrize(
    "other",
    [("negative", 0, 0), ("positive", 1, 0), ("positive", 0, 1)],
    ids=["label", "index", "attempt"],
)
def test_label_index_and_attempt_each_give_other_noise(other):
    tokens = torch.arange(100).expand(1, -1)
    first, second = (
        uniform(torch.tensor([signed(sampling_key(key(), *name))]), torch.tensor([0]), tokens)
        for name in (("positive", 0, 0), other)
    )
    assert (first != second).all()


def test_seed_task_and_language_give_other_noise_but_method_and_setting_do_not():
    base = sampling_key(key(), "positive", 0, 0)
    for change in ({"seed": 2}, {"task": "topic"}, {"language": "he"}):
        assert sampling_key(key(**change), "positive", 0, 0) != base
    same = key(setting="few-shot", model=None, text_protocol="other", texts_per_label=9)
    assert sampling_key(same, "positive", 0, 0) == base
