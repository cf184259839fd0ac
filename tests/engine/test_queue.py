"""One queue for the texts of many cells: each cell is what it would be alone, whatever shares the batch with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HIDDEN, LAYERS, NEURONS
from support.prompts import PROMPTS, key_of
from support.writing import NOTHING, cell_of, request, watch_decoding, write_all

from harness.core.errors import UserError, is_out_of_memory
from harness.core.interventions import Intervention, Steering
from harness.data.prompts import Prompt
from harness.engine import decoding, generate
from harness.engine.decoding import CachedBatch, Row, write_rows
from harness.engine.generate import CellRequest, GenerationQueue
from harness.engine.model import SteerableModel
from harness.engine.sampling import signed

FAMILIES = ["llama", "gemma3_text", "gpt2", "bloom", "qwen3_moe"]
AMHARIC, HEBREW = {"positive": Prompt("ምግቡ በጣም ጥሩ ነበር። " * 3)}, {"positive": Prompt("האוכל היה טעים מאוד.", "a b")}


def alone(model: SteerableModel, cells: list[CellRequest]) -> dict[Any, Any]:
    """Return what every cell is when it is written alone, one text at a time."""
    return {name: found for cell in cells for name, found in write_all(model, [cell], 1).items()}


def unlike_cells(model: SteerableModel, steer: Callable[..., Steering], scale: Callable[..., Steering]) -> list[Any]:
    """Return cells that differ in everything that a row has."""
    gated = hasattr(model.layers[1].mlp, "gate_proj") and hasattr(model.layers[1].mlp, "down_proj")
    cells = [
        request("plain"),
        request("warm", temperature=1.7, top_p=0.8),
        request("all", steering=steer(strength=0.5), max_attempts=1),
        request("generated", AMHARIC, 4, steer(strength=0.7, positions="generated"), max_new_tokens=3),
        request("prompt", HEBREW, 4, steer(strength=0.5, positions="prompt", layer=0), top_p=0.5, max_new_tokens=12),
        request(
            "two",
            {**AMHARIC, "negative": Prompt("a b")},
            2,
            Steering((*steer(layer=0).interventions, *steer(layer=2, strength=-0.3).interventions)),
            max_new_tokens=9,
        ),
        request("line", AMHARIC, 4, keep="first-line", max_new_tokens=30, max_attempts=1),
    ]
    if gated:
        cells += [
            request("gains", HEBREW, steering=scale(), max_new_tokens=8),
            request("late gains", steering=scale(layer=2, positions="generated")),
            request("early gains", steering=scale(positions="prompt")),
        ]
    return cells


@pytest.mark.parametrize("family", FAMILIES)
def test_unlike_cells_of_one_queue_are_written_as_each_is_alone(tiny_models, new_model, steer, scale, family):
    model = tiny_models.get(family) or new_model(family)
    cells = unlike_cells(model, steer, scale)
    expected = alone(model, cells)
    assert len({tuple(t.text for t in texts) for texts in expected.values()}) == len(cells)
    assert write_all(model, cells, 64) == expected
    assert write_all(model, cells[::-1], 7) == expected
    assert not model.hooks.active


def test_cells_of_the_mini_suite_are_written_as_each_is_alone(mini, pocketlm):
    """Amharic and Hebrew, both tasks, few-shot and not, steered by a vector, by gains or not at all."""
    rng, width = np.random.default_rng(3), pocketlm.layers[1].mlp.down_proj.in_features
    vector, gains = (rng.normal(size=n).astype(np.float32) for n in (pocketlm.hidden_size, width))
    added = Steering((Intervention("layer_output", 1, "add", vector, 0.3, "residual", 3.0),))
    scaled = Steering((Intervention("mlp_neurons", 2, "scale", gains, 4.0, "raw", 1.0, "generated"),))
    cells = []
    for task, language, setting, length in (("sentiment", "am", "few-shot", 10), ("topic", "he", "zero-shot", 14)):
        sampling = mini.sampling.model_copy(update={"max_new_tokens": length})
        cell = cell_of(mini, task, language, setting)
        prompts = dict(list(cell["prompts"].items())[:2])
        for name, steering in (("plain", NOTHING), ("added", added), ("scaled", scaled)):
            cells.append(CellRequest((name, language), prompts, 2, steering, sampling, cell["noise_key"]))
    expected = alone(pocketlm, cells)
    assert write_all(pocketlm, cells, 11) == expected
    assert len({tuple(t.text for t in texts) for texts in expected.values()}) == len(cells)
    for (_, language), texts in expected.items():
        script = range(0x1200, 0x1380) if language == "am" else range(0x590, 0x600)
        assert all(any(ord(sign) in script for sign in t.text) for t in texts)


def test_equal_prompts_under_equal_steering_are_read_once(tiny_models, steer):
    """Two cells without steering, one with: the long prompt is read twice, the short one twice."""
    model, steering = tiny_models["llama"], steer()
    cells = [
        request("a", texts=8, max_attempts=1),
        request("b", texts=8, max_attempts=1, steering=Steering()),
        request("c", texts=8, max_attempts=1, steering=steering),
    ]
    with watch_decoding(model) as seen:
        write_all(model, cells, 64)
    lengths = [t.n_prompt_tokens for t in write_all(model, [request("a", texts=1)])["a"]]
    assert sorted(map(len, seen.prompts)) == sorted(2 * lengths)
    assert seen.passes[0] == (4, max(lengths))
    assert all(positions == 1 for _, positions in seen.passes[1:])


@pytest.mark.parametrize(("kept", "readings"), [(8192, 2), (0, 8)])
def test_a_prompt_is_not_read_again_for_texts_that_enter_later(tiny_models, steer, monkeypatch, kept, readings):
    """Two cells of four texts, each with a steering of its own, one text at a time."""
    monkeypatch.setattr(decoding, "_KEPT_TOKENS", kept)
    model = tiny_models["llama"]
    prompts = {"positive": PROMPTS["negative"]}
    cells = [request(name, prompts, 4, steer(), max_attempts=1, max_new_tokens=1) for name in "ab"]
    expected = write_all(model, cells, 64)
    with watch_decoding(model) as seen:
        assert write_all(model, cells, 1) == expected
    assert len(seen.prompts) == readings


def test_a_prompt_of_many_texts_is_read_in_one_pass(tiny_models, monkeypatch):
    """Room for two prompts in a pass: 40 texts with three prompts need two passes, whatever order they come in."""
    model = tiny_models["llama"]
    prompts = {"a": (5,) * 9, "b": (6,) * 10, "c": (7,) * 10}
    rows = [Row(prompts["abc"[key % 3]], Steering(), key, 3, 1.0, 1.0) for key in range(40)]
    monkeypatch.setattr(decoding, "_PROMPT_TOKENS", 25)
    with watch_decoding(model) as seen:
        CachedBatch(model).add(rows)
    assert seen.passes == [(2, 10), (1, 10)]
    assert sorted(map(tuple, seen.prompts)) == sorted(prompts.values())


def test_a_short_prompt_that_was_read_beside_a_long_one_brings_no_padding(tiny_models):
    model, batch = tiny_models["llama"], CachedBatch(tiny_models["llama"])
    batch.ends = set()

    def row(key: int, length: int, most: int) -> Row:
        return Row(tuple(range(9, 9 + length)), Steering(), key, most, 1.0, 1.0)

    batch.add([row(0, 40, 2), row(1, 4, 12)])
    for _ in range(3):
        batch.step()
    later = row(2, 4, 5)
    batch.shrink()
    batch.add([later])
    while batch.active:
        batch.step()
        assert batch._mask.shape[1] <= 4 + 12
    write_rows(model, [alone := row(2, 4, 5)])
    assert later.tokens == alone.tokens


def test_a_cell_is_given_out_with_its_last_text_and_cells_are_asked_for_when_rows_are_free(tiny_models):
    """The short cell comes after the long one, and is out before it."""
    asked: list[str] = []

    def source() -> Iterator[CellRequest]:
        for name, length in (("long", 40), ("short", 2), ("middle", 12), ("last", 2)):
            asked.append(name)
            yield request(name, texts=4, max_new_tokens=length, max_attempts=1)

    queue = GenerationQueue(tiny_models["llama"], 16)
    written = queue.write(source())
    assert asked == []
    order = [(cell.name, queue.active) for cell, _ in written]
    assert [name for name, _ in order] == ["short", "last", "middle", "long"]
    assert order[0][1] >= 8  # the texts of the long cell are under way
    assert order[-1][1] == 0


def test_cells_are_asked_for_no_earlier_than_they_are_needed(tiny_models, monkeypatch):
    monkeypatch.setattr(generate, "_LOOK_AHEAD", 2)
    asked: list[int] = []

    def source() -> Iterator[CellRequest]:
        for name in range(40):
            asked.append(name)
            yield request(str(name), texts=2, max_attempts=1)

    for done, _ in enumerate(GenerationQueue(tiny_models["llama"], 4).write(source()), start=1):
        assert len(asked) <= done + 6  # at most 8 texts wait, when fewer than 4 did, and 4 are in rows: 5 cells
    assert done == len(asked) == 40


def test_the_seconds_of_cells_sum_to_the_time_of_the_passes(tiny_models, monkeypatch):
    """By a clock that only the model's passes move, one second each."""
    model, now = tiny_models["llama"], [0.0]
    monkeypatch.setattr(generate.time, "monotonic", lambda: now[0])
    cells = [request("a", texts=3), request("b", texts=9, max_new_tokens=20), request("c", AMHARIC, 2)]
    with watch_decoding(model) as seen:
        handle = model.model.register_forward_hook(lambda *_: now.__setitem__(0, now[0] + 1.0))
        write_all(model, cells, 5)
        handle.remove()
    assert sum(cell.seconds for cell in cells) == pytest.approx(len(seen.passes))
    assert cells[1].seconds > cells[0].seconds > 0


# What goes wrong


def break_forward(model: SteerableModel, error: Callable[[torch.Tensor], Exception | None]) -> None:
    """Let the model raise what ``error`` returns for the input ids of a pass."""

    def check(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        found = error(kwargs["input_ids"])
        if found is not None:
            raise found

    model.model.register_forward_pre_hook(check, with_kwargs=True)


@pytest.mark.parametrize("most", [1, 3, 8])
def test_where_memory_runs_out_fewer_texts_are_written_at_once_and_none_changes(tiny_models, new_model, steer, most):
    cells = [request("a", texts=6), request("b", AMHARIC, 5, steer()), request("c", HEBREW, 4, max_new_tokens=15)]
    expected = write_all(tiny_models["llama"], cells, 1)
    model = new_model("llama")
    model.rows_can_enter = True
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
    assert is_out_of_memory(full)
    break_forward(model, lambda ids: full if len(ids) > most else None)
    queue = GenerationQueue(model, 32)
    again = [request("a", texts=6), request("b", AMHARIC, 5, steer()), request("c", HEBREW, 4, max_new_tokens=15)]
    assert {cell.name: texts for cell, texts in queue.write(again)} == expected
    assert queue.most <= max(most, 1)
    assert [vars(cell.usage) for cell in again] == [vars(cell.usage) for cell in cells]


def test_a_text_that_does_not_fit_into_memory_alone_ends_its_cell_and_no_other(new_model):
    """Amharic prompts are long: a pass over more than 30 tokens fails, however few rows it has."""
    model = new_model("llama")
    model.rows_can_enter = True
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
    break_forward(model, lambda ids: full if ids.shape[1] > 70 else None)
    cells = [request("a"), request("b", {"positive": Prompt("ምግቡ በጣም ጥሩ ነበር። " * 9)}), request("c")]
    found = write_all(model, cells, 16)
    assert found["b"] is full
    assert [t.text for t in found["a"]] == [t.text for t in write_all(new_model("llama"), [request("a")], 1)["a"]]
    assert len(found["c"]) == 6


MISFITS = {
    "layer": ({"layer": LAYERS}, "layer 3, this model has layers 0 to 2"),
    "size": ({"vector": np.ones(HIDDEN + 1, np.float32)}, "the vector has 17 numbers"),
    "late size": ({"vector": np.ones(HIDDEN + 1, np.float32), "positions": "generated"}, "the vector has 17 numbers"),
}


@pytest.mark.parametrize("case", MISFITS)
@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_steering_that_does_not_fit_ends_its_own_cell_alone(tiny_models, steer, family, case):
    model, (change, words) = tiny_models[family], MISFITS[case]
    good = [request("a"), request("b", steering=steer()), request("c", AMHARIC, 5, max_new_tokens=9)]
    expected = write_all(model, good, 1)
    found = write_all(model, [good[0], request("bad", steering=steer(**change)), *good[1:]], 16)
    error = found.pop("bad")
    assert isinstance(error, UserError)
    assert words in str(error)
    assert found == expected
    assert not model.hooks.active


def test_neurons_of_a_model_without_them_end_their_own_cell_alone(tiny_models, scale):
    found = write_all(tiny_models["gpt2"], [request("a"), request("bad", steering=scale()), request("c")], 16)
    assert "Neuron steering needs" in str(found["bad"])
    assert len(found["a"]) == len(found["c"]) == 6
    assert NEURONS != HIDDEN


def test_a_prompt_that_cannot_be_written_ends_its_own_cell_alone(new_model):
    model = new_model("llama", max_position_embeddings=40)
    found = write_all(model, [request("a"), request("long", {"positive": Prompt("a b " * 40)}), request("c")], 8)
    assert "the model takes 40" in str(found["long"])
    assert len(found["a"]) == len(found["c"]) == 6


def test_a_step_that_fails_ends_the_cells_in_the_rows_and_later_ones_are_written(new_model, monkeypatch):
    model = new_model("llama")
    step, failures = CachedBatch.step, iter([None, None, ValueError("a step failed")])

    def fail_once(batch: CachedBatch) -> Any:
        error = next(failures, None)
        if error is not None:
            raise error
        return step(batch)

    model.rows_can_enter = True
    monkeypatch.setattr(CachedBatch, "step", fail_once)
    cells = [request(name, AMHARIC, 4, max_attempts=1) for name in "abcd"]
    found = write_all(model, cells, 8)
    assert [name for name, texts in found.items() if isinstance(texts, ValueError)] == ["a", "b"]
    monkeypatch.setattr(CachedBatch, "step", step)
    assert {name: found[name] for name in "cd"} == write_all(model, cells[2:], 1)
    assert not model.hooks.active


@pytest.mark.parametrize("memory", [0, 10**5, 10**6, 10**12, None], ids=str)
def test_little_free_memory_gives_few_rows(tiny_models, monkeypatch, memory):
    model = tiny_models["llama"]
    asked = []
    monkeypatch.setattr(generate, "free_memory", lambda device: asked.append(device) or memory)
    cells = [request("a", texts=30, max_attempts=1)]
    with watch_decoding(model) as seen:
        queue = GenerationQueue(model)
        ((_, texts),) = queue.write(cells)
    assert asked == [torch.device("cpu")]
    length = max(t.n_prompt_tokens for t in texts) + 6
    cost = 2 * 2 * 3 * 2 * 4 * 4 * length + 24 * 300  # (keys and values) x layers x heads x size x bytes, twice; logits
    wanted = 256 if memory is None else min(256, max(1, int(memory / 1.5) // cost))
    assert queue.most == wanted
    assert max(rows for rows, positions in seen.passes if positions == 1) == min(60, wanted)
    assert {rows for rows, _ in seen.passes} <= set(range(1, wanted + 1)) | {2}
    assert texts == write_all(model, [request("a", texts=30, max_attempts=1)], 7)["a"]


def test_a_number_of_rows_that_is_asked_for_is_kept(tiny_models, monkeypatch):
    monkeypatch.setattr(generate, "free_memory", lambda device: 0)
    queue = GenerationQueue(tiny_models["llama"], 9)
    list(queue.write([request("a", PROMPTS, 8)]))
    assert queue.most == 9


def test_the_longest_prompts_are_written_first_and_of_equal_ones_those_of_the_earlier_cell(tiny_models, monkeypatch):
    monkeypatch.setattr(generate, "_LOOK_AHEAD", 8)  # both cells wait
    with watch_decoding(tiny_models["llama"]) as seen:
        write_all(tiny_models["llama"], [request(name, texts=2, max_attempts=1) for name in "ab"], 1)
    order = [(cell, label, i) for label in ("negative", "positive") for cell in "ab" for i in (0, 1)]
    assert list(seen.tokens) == [signed(key_of(f"{cell}/{label}", i, 0)) for cell, label, i in order]
