"""Progress at 80 columns keeps its times and names the fit at hand; a log gets a line a minute, no more."""

from __future__ import annotations

import io
import re
import time

import pytest
from conftest import MemoryData, fit
from rich.console import Console

from harness.data.corpus import Corpus
from harness.data.sources import Sentence
from harness.runner import progress
from harness.runner.progress import Tracker, progress_bar

TIMES = r"\d:\d\d:\d\d elapsed, (\d:\d\d:\d\d|-:--:--) left"


def frames(width: int, titles: list[str], total: int = 792) -> list[str]:
    """Return the lines that a terminal was shown, its colours and cursor moves taken out."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    with progress_bar(console, "generate", total) as tracker:
        tracker.started -= 120
        tracker.add_texts(12_345)
        for title in titles:
            tracker.status(title)
            assert tracker.bar is not None
            tracker.bar.refresh()
            tracker.finish_cell(title)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "\n", out.getvalue())
    return [line for line in plain.splitlines() if line.strip()]


@pytest.mark.parametrize("width", [80, 120])
def test_times_and_counts_are_in_view_beside_any_title(width):
    lines = frames(width, ["fitting learned, sentiment, am: step 10/20, held-out 0.2092 " * 3, "x"])
    bars = [line for line in lines if line.startswith("generate ")]
    assert len([line for line in bars if re.search(rf"\d/792 10\d\.\d texts/s {TIMES}", line)]) > 2
    assert all(re.search(rf"\d+/792 .*{TIMES}", line) for line in bars), bars
    assert all(len(line) <= width for line in lines)
    titles = [line for line in lines if "fitting" in line]
    assert titles
    assert all("fitting learned, sentiment, am: step 10/20" in line for line in titles)


def test_a_log_gets_lines_while_nothing_happens_and_few_while_much_does(monkeypatch):
    monkeypatch.setattr(progress, "_LOG_EVERY", 0.2)
    out = io.StringIO()
    with progress_bar(Console(file=out, width=80), "generate", 4) as tracker:
        tracker.finish_cell("first")
        tracker.status("fitting language, topic, he: 64 of 100 sentences read, a line that is longer than 80")
        for _ in range(1000):
            tracker.add_texts(1)  # a flood of news is no flood of lines
        time.sleep(0.7)  # within one cell, in which nothing is reported
    first, *lines = out.getvalue().splitlines()
    assert first == "generate: 4 cells"
    assert 2 <= len(lines) <= 5
    for line in lines:
        assert re.fullmatch(
            r"  generate: 1/4 cells, [\d.]+ texts/s, 0:00:0\d elapsed, 0:00:0\d left; fitting language, "
            r"topic, he: 64 of 100 sentences read, a line that is longer than 80",
            line,
        ), line


def test_the_remaining_time_is_in_proportion(monkeypatch):
    tracker = Tracker(Console(file=io.StringIO()), "score", 10, started=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: 3600.0)
    assert tracker.line() == "  score: 0/10 cells, 1:00:00 elapsed, left unknown"
    tracker.advance(4)
    assert tracker.line() == "  score: 4/10 cells, 1:00:00 elapsed, 1:30:00 left"


def test_a_fit_says_method_task_language_what_it_has_read_how_fast_and_how_long_it_will_take(
    small_suite, new_model, new_fitter, monkeypatch
):
    from harness.engine import activations
    from harness.methods.difference import LanguageSteering

    words = {"am": "ሰላም", "he": "שלום", "en": "c"}
    texts = {code: [Sentence(str(i), f"{word} {i}") for i in range(5)] for code, word in words.items()}
    fitter = new_fitter(new_model(), Corpus(small_suite, MemoryData(texts)))
    (length,) = {len(fitter.model.tokenizer(f"ሰላም {i}", add_special_tokens=False)["input_ids"]) for i in range(5)}
    monkeypatch.setitem(activations.BUDGETS, "cpu", 2 * length)
    now = iter(range(1000))
    monkeypatch.setattr("harness.runner.fit.time.monotonic", lambda: float(next(now)))
    said: list[str] = []
    fitter.say = said.append
    fit(fitter, LanguageSteering(), "he")
    assert said[:4] == [  # a batch of two sentences a second
        "fitting language, sentiment, he",
        f"fitting language, sentiment, he: am 2/5 sentences, 0:00:02 left, {2 * length} tokens/s",
        f"fitting language, sentiment, he: am 4/5 sentences, 0:00:00 left, {2 * length} tokens/s",
        f"fitting language, sentiment, he: am 5/5 sentences, 0:00:00 left, {5 * length / 3:.0f} tokens/s",
    ]
    assert any(": en 5/5 sentences, " in line for line in said)
    fitter.progress("later")
    assert said[-1] == "later", "what is no fit is not called one"
