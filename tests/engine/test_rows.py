"""Rows of a batch that texts leave and enter: however the batch grows, shrinks and is packed, no text changes.

The texts of the mini suite's own model are compared with those of the slow path, which has no cache, one at a time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from support.writing import NOTHING, cell_of, request, watch_decoding, write, write_all

from harness.core.interventions import Intervention, Steering
from harness.core.records import Generation
from harness.data.prompts import Prompt
from harness.data.suite import Suite
from harness.engine import cache, generate
from harness.engine.decoding import CachedBatch
from harness.engine.model import SteerableModel

SIZE = {"texts": 6, "max_new_tokens": 40}


def prompts_of(suite: Suite, language: str) -> dict[str, Prompt]:
    """Return the prompts of both labels, one of which is longer by far."""
    found = cell_of(suite, "sentiment", language, "zero-shot")["prompts"]
    longer = cell_of(suite, "sentiment", language, "few-shot")["prompts"]
    first, second = found
    return {first: found[first], second: longer[second]}


def write_plainly(model: SteerableModel, *arguments: Any, **options: Any) -> list[Generation]:
    """Write texts one at a time, every token from the start of its text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "rows_can_enter", False)
        return write(model, *arguments, batch_size=1, **options)


@pytest.fixture(scope="module")
def plain_amharic(pocketlm, mini) -> list[Generation]:
    texts = write_plainly(pocketlm, prompts_of(mini, "am"), **SIZE)
    assert len({text.n_new_tokens for text in texts}) > 4, "all rows end at once: nothing is tested"
    assert any(0x1200 <= ord(sign) < 0x1380 for text in texts for sign in text.text)
    return texts


@pytest.fixture
def moves(monkeypatch) -> Counter[str]:
    """Count what is done to the rows of batches."""
    found: Counter[str] = Counter()
    enter, repack, shrink = CachedBatch._enter, CachedBatch._repack, CachedBatch.shrink

    def count_enter(batch: Any, rows: Any, *rest: Any) -> None:
        before = batch.rows
        enter(batch, rows, *rest)
        found["begin" if before == 0 else "grow" if batch.rows > before else "enter"] += 1

    def count_repack(batch: Any, slots: Any, *rest: Any) -> None:
        found["full" if slots is None else "repack"] += 1
        repack(batch, slots, *rest)

    def count_shrink(batch: Any) -> None:
        found["shrink"] += 1
        shrink(batch)

    monkeypatch.setattr(CachedBatch, "_enter", count_enter)
    monkeypatch.setattr(CachedBatch, "_repack", count_repack)
    monkeypatch.setattr(CachedBatch, "shrink", count_shrink)
    return found


@pytest.mark.parametrize(
    ("batch_size", "room", "enter", "look_ahead", "shrink", "happens"),
    [
        pytest.param(1, 16, 8, 4, 1.5, {"begin", "full"}, id="one at a time"),
        pytest.param(3, 1, 8, 4, 1.5, {"begin", "enter", "full"}, id="full at every token"),
        pytest.param(5, 2, 100, 1, 1.0, {"enter", "full", "shrink"}, id="texts enter at once, rows are freed at once"),
        pytest.param(5, 3, 1, 2, 1.0, {"full", "repack"}, id="texts enter when all rows are free"),
        pytest.param(7, 500, 8, 1, 1.2, {"enter", "shrink", "repack"}, id="never full"),
        pytest.param(12, 16, 8, 4, 1e9, {"begin", "full"}, id="rows are never freed"),
        pytest.param(64, 7, 8, 4, 1.01, {"begin", "full", "shrink", "repack"}, id="all at once"),
    ],
)
def test_rows_that_leave_and_enter_change_no_text(
    monkeypatch, pocketlm, mini, plain_amharic, moves, batch_size, room, enter, look_ahead, shrink, happens
):
    monkeypatch.setattr(cache, "_ROOM", room)
    monkeypatch.setattr(generate, "_ENTER", enter)
    monkeypatch.setattr(generate, "_LOOK_AHEAD", look_ahead)
    monkeypatch.setattr(generate, "_SHRINK", shrink)
    assert write(pocketlm, prompts_of(mini, "am"), batch_size=batch_size, **SIZE) == plain_amharic
    assert happens <= set(moves)
    assert not ("shrink" in moves and shrink > 1000)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_steered_rows_that_leave_and_enter_change_no_text(monkeypatch, pocketlm, mini, moves, positions):
    vector = np.ones(192, dtype=np.float32)
    steering = Steering((Intervention("layer_output", 1, "add", vector, 0.3, "raw", 1.0, positions),))
    cell = (pocketlm, prompts_of(mini, "he"), 3, steering)
    expected = write_plainly(*cell, max_new_tokens=30)
    assert [t.text for t in expected] != [
        t.text for t in write(pocketlm, prompts_of(mini, "he"), 3, NOTHING, max_new_tokens=30)
    ]
    monkeypatch.setattr(cache, "_ROOM", 2)
    monkeypatch.setattr(generate, "_ENTER", 100)
    assert write(*cell, batch_size=4, max_new_tokens=30) == expected
    assert moves["enter"] and moves["full"]


def test_a_prompt_that_is_longer_than_the_cache_makes_room_and_changes_no_text(monkeypatch, tiny_models, moves):
    """The first texts are of the cell with the short prompt; those of the long one enter beside them."""
    long = "Write a review with positive sentiment in Amharic language. " * 3
    cells = [request("short", {"positive": Prompt("a")}, 4), request("long", {"positive": Prompt(long)}, 4)]
    monkeypatch.setattr(generate, "_ENTER", 100)
    monkeypatch.setattr(generate, "_LOOK_AHEAD", 1)
    for family in ("llama", "gemma3_text", "gpt2", "bloom"):
        model = tiny_models[family]
        with watch_decoding(model) as seen:
            together = write_all(model, cells, 4)
        assert max(map(len, seen.prompts)) > 20 + len(seen.prompts[0])
        assert together == {name: found for cell in cells for name, found in write_all(model, [cell], 1).items()}
    assert moves["repack"] and moves["enter"] + moves["grow"]


def test_a_row_leaves_when_the_line_that_is_kept_is_written_and_its_text_stays(monkeypatch, tiny_models):
    # The tiny models break a line now and then; room for 64 tokens shows who went on after that.
    model = tiny_models["gemma2"]
    long = {"texts": 12, "batch_size": 24, "keep": "first-line", "max_new_tokens": 64, "max_attempts": 1}
    early = write(model, **long)
    monkeypatch.setattr(model, "line_break_tokens", frozenset())  # nobody leaves before the end
    late = write(model, **long)
    assert [row.text for row in early] == [row.text for row in late]
    assert [row.finish_reason for row in early] == [row.finish_reason for row in late]
    saved = [a.n_new_tokens < b.n_new_tokens for a, b in zip(early, late, strict=True)]
    assert any(saved) and not any(a.n_new_tokens > b.n_new_tokens for a, b in zip(early, late, strict=True))
