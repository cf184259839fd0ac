"""The cache whose rows come and go, compared with no cache; and what becomes of a model whose cache is broken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import FAMILIES, MIXTURES
from support.writing import request, write_all

from harness.data.prompts import Prompt
from harness.engine import cache
from harness.engine.cache import PackedCache
from harness.engine.decoding import CachedBatch, DecodingBatch, Row, UncachedBatch, open_batch
from harness.engine.model import SteerableModel

CELLS = {
    "short": ({"positive": Prompt("a b"), "negative": Prompt("Output only the text and nothing else.")}, 9),
    "amharic": ({"positive": Prompt("ምግቡ በጣም ጥሩ ነበር።"), "negative": Prompt("ምግቡ በጣም ጥሩ ነበር። " * 2)}, 14),
    "hebrew": ({"positive": Prompt("האוכל היה טעים מאוד.", "a b")}, 5),
}


def write_cells(model: SteerableModel, steering: Any, batch_size: int) -> dict[Any, Any]:
    cells = [
        request(name, prompts, 2, steering, max_new_tokens=length, max_attempts=1)
        for name, (prompts, length) in CELLS.items()
    ]
    return write_all(model, cells, batch_size)


@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES])
def test_a_cache_changes_no_text(monkeypatch, tiny_models, new_model, steer, family):
    """Six of ten texts at a time, steered, beyond the sliding window of the families that have one."""
    model, steering = tiny_models.get(family) or new_model(family), steer(strength=0.4)
    monkeypatch.setattr(cache, "_ROOM", 3)
    assert type(open_batch(model)) is CachedBatch
    cached = write_cells(model, steering, 6)
    monkeypatch.setattr(model, "rows_can_enter", False)
    assert type(open_batch(model)) is UncachedBatch
    assert write_cells(model, steering, 64) == cached


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "bloom", "qwen3_moe"])
def test_the_logits_of_every_token_are_those_without_a_cache(monkeypatch, tiny_models, new_model, steer, family):
    """Texts of given tokens enter, leave and are replaced; the logits of each agree to 1e-4."""
    model = tiny_models.get(family) or new_model(family)
    monkeypatch.setattr(cache, "_ROOM", 2)

    def logits(kind: type[DecodingBatch]) -> dict[int, torch.Tensor]:
        seen: dict[int, list[torch.Tensor]] = {}

        def follow(rows: Any, found: torch.Tensor) -> list[int]:
            for row, of_row in zip(rows, found, strict=True):
                seen.setdefault(row.key, []).append(of_row)
            return [(11 * row.key + 7 * len(row.tokens)) % 290 + 5 for row in rows]

        batch = kind(model, follow)
        plain, steered = request("a").steering, steer(positions="generated")
        new = [
            Row(tuple(range(9, 9 + n)), steered if key % 2 else plain, key, most, 1.0, 1.0)
            for key, (n, most) in enumerate([(5, 4), (12, 9), (1, 14), (30, 3), (7, 6), (3, 3)])
        ]
        batch.add(new[:2])
        batch.step()
        batch.add(new[2:3])
        for _ in range(3):
            batch.step()
        batch.add(new[3:5])
        batch.shrink()
        batch.step()
        batch.add(new[5:])
        while batch.active:
            batch.step()
            batch.shrink()
        return {key: torch.stack(found) for key, found in seen.items()}

    cached, plain = logits(CachedBatch), logits(UncachedBatch)
    assert {key: len(found) for key, found in cached.items()} == dict(enumerate((4, 9, 14, 3, 6, 3)))
    for key, found in plain.items():
        torch.testing.assert_close(cached[key], found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "bloom"])
def test_what_lies_in_free_rows_and_in_the_room_is_never_read(monkeypatch, tiny_models, family):
    """Numbers there are set to the largest there are, before every pass: one that is read would be seen."""
    model = tiny_models[family]
    expected = write_cells(model, request("a").steering, 3)
    step = CachedBatch.step

    @torch.inference_mode()
    def spoil(batch: CachedBatch) -> list[Row]:
        assert batch._cache is not None
        free = [i for i, row in enumerate(batch._rows) if row is None]
        for layer in batch._cache.layers:
            for buffer in (layer.keys, layer.values):
                buffer[:, :, layer.used + 1 :] = 1e30
                buffer[free, :, : layer.used] = 1e30
                for i, real in enumerate(batch._mask):
                    buffer[i, :, : int(layer.used - real.sum())] = 1e30  # padding on the left
        return step(batch)

    monkeypatch.setattr(CachedBatch, "step", spoil)
    assert write_cells(model, request("a").steering, 3) == expected


def filled(config: Any, rows: int, positions: int, start: float = 0.0) -> PackedCache:
    """Return a cache whose keys are numbered, and whose values are their negatives."""
    found = PackedCache(config)
    for index in range(len(found.layers)):
        keys = start + torch.arange(rows * 2 * positions * 4.0).view(rows, 2, positions, 4)
        found.update(keys, -keys, index)
    return found


@pytest.fixture(params=["llama", "gemma3_text"])
def config(request, tiny_models) -> Any:
    return tiny_models[request.param].model.config


def used(packed: PackedCache, layer: int = 0) -> torch.Tensor:
    found = packed.layers[layer]
    assert torch.equal(found.values[:, :, : found.used], -found.keys[:, :, : found.used])
    return found.keys[:, :, : found.used]


def test_rows_are_kept_repeated_and_cut_in_front(config):
    packed = filled(config, 3, 5)
    before = used(packed).clone()
    packed.repack(torch.tensor([2, 0, 2]), 2)
    for layer in range(3):
        assert torch.equal(used(packed, layer), before[[2, 0, 2], :, 2:])
    packed.repack(None, -4)
    assert packed.get_seq_length() == 7
    assert torch.equal(used(packed)[:, :, 4:], before[[2, 0, 2], :, 2:])
    assert used(packed)[:, :, :4].eq(0).all()


def test_a_row_is_written_at_the_end_and_others_stay(config):
    packed, source = filled(config, 3, 6), filled(config, 2, 4, start=1000.0)
    before, new = used(packed).clone(), used(source).clone()
    packed.write(torch.tensor([2, 1]), source, torch.tensor([1, 1]), 4)
    for layer in range(3):
        found = used(packed, layer)
        assert torch.equal(found[0], before[0])
        for row in (1, 2):
            assert torch.equal(found[row, :, 2:], new[1])


def test_new_positions_are_written_into_the_room_until_it_is_full(config, monkeypatch):
    monkeypatch.setattr(cache, "_ROOM", 2)
    packed = filled(config, 2, 3)
    before, buffer = used(packed).clone(), packed.layers[0].keys
    for step in (1.0, 2.0):
        assert not packed.full
        for layer in range(3):
            new = torch.full((2, 2, 1, 4), step)
            keys, values = packed.update(new, -new, layer)
            assert (keys.shape[2], values.shape[2]) == (5, 5)
            assert packed.layers[layer].get_mask_sizes(1) == (5, 0)
    assert packed.full
    assert packed.layers[0].keys is buffer  # nothing was copied
    assert torch.equal(used(packed)[:, :, :3], before)
    assert used(packed)[0, 0, 3:, 0].tolist() == [1.0, 2.0]
    packed.repack()
    assert not packed.full
    assert packed.get_seq_length() == 5


def test_the_size_of_a_row_is_counted_by_hand(config):
    # keys and values, 3 layers, 2 heads of 4 numbers of 4 bytes
    assert filled(config, 5, 7).bytes_per_row() == (2 * 3 * 2 * 4 * 4, 0)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(layer: Any, rows: Any, source: Any, of: Any, positions: int) -> None:
        new = source.keys[of, :, source.used - positions : source.used]
        layer.keys[rows, :, layer.used - positions : layer.used] = new

    monkeypatch.setattr(cache._Positions, "write", write)


def crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(layer: Any) -> Any:
        raise TypeError("rows cannot enter a cache of SomeLayer")

    monkeypatch.setattr(cache, "_packed", refuse)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(forget, "its logits change by"), (crash, "rows cannot enter its cache (TypeError: rows cannot ent")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_whose_cache_is_wrong_is_found_and_written_without_one(
    monkeypatch, tiny_models, new_model, steer, capsys, fault, reason
):
    expected = write_cells(tiny_models["llama"], steer(), 4)
    model = new_model("llama")
    with monkeypatch.context() as patch:
        fault(patch)
        assert write_cells(model, steer(), 4) == expected
        assert write_cells(model, steer(), 4) == expected
    said = capsys.readouterr().err
    assert said.count("texts are written without a cache, which is slower") == 1
    assert "LlamaForCausalLM: " + reason in said
    assert model.rows_can_enter is False


def test_no_memory_for_the_trial_is_not_taken_for_a_wrong_cache(new_model):
    model = new_model("llama")

    def fail(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    handle = model.model.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        open_batch(model)
    handle.remove()
    assert type(open_batch(model)) is CachedBatch


@pytest.mark.parametrize("length", [5, 6, 7, 8, 9, 12, 13])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_with_a_short_context_can_be_tried(new_model, capsys, family, length):
    limit = "n_positions" if family == "gpt2" else "max_position_embeddings"
    assert type(open_batch(new_model(family, **{limit: length}))) is CachedBatch
    assert capsys.readouterr().err == ""
