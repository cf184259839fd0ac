"""What the terminal says of entries that lack cells: no mean, n of N, and the reasons."""

from __future__ import annotations

import io
import re

from rich.console import Console
from support.toyruns import F1, ToyEntry, cellset_of, flat, plain, selection, toy, write_run

from harness.core.store import Run
from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.summary import gaps, print_summary

CHOSEN = selection(["am", "he"], ["sentiment", "topic"])


def entry(name: str, value: float) -> ToyEntry:
    made = toy(name)
    made.scores[F1] = flat(value, CHOSEN)
    return made


def printed(run: Run) -> str:
    out = io.StringIO()
    print_summary(Console(file=out, width=160), cellset_of(run))
    return out.getvalue()


def row_of(text: str, name: str) -> list[str]:
    [line] = [line for line in text.splitlines() if re.match(rf"\s*\S+\s+{name}\s", line)]
    return line.split()


def test_an_entry_that_lacks_cells_has_no_mean_but_their_number_and_the_reasons(tmp_path):
    unscored = entry("unscored", 0.9)
    unscored.scores[F1] = {**unscored.scores[F1], ("topic", "he", 3): None}
    entries = [entry("zero-shot", 0.5), entry("language", 0.8), entry("broken", 0.9), unscored]
    gone = [("broken", "topic", "he", seed) for seed in (1, 2)]
    text = printed(write_run(tmp_path / "run", entries, CHOSEN, drop=gone))
    assert row_of(text, "broken") == ["–", "broken", "0.900", "–", "–", "–", *"––––", "–", "10/12"]
    assert "no mean: broken: 10/12 cells; 2 × method_error: ValueError: no\n" in text
    assert "no mean: unscored: 11/12 cells; too few texts\n" in text
    assert text.count("no mean:") == 2


def test_a_reason_writes_no_control_characters_and_stays_on_one_line(tmp_path):
    gone = [("broken", "topic", "he", 1)]
    run = write_run(tmp_path / "run", [entry("zero-shot", 0.5), entry("broken", 0.9)], CHOSEN, drop=gone)
    [cell] = [cell for cell in run.cell_ids() if run.status(cell).reason]
    status = run.status(cell).model_copy(update={"reason": "KeyError:\n\x1b[2J\u202e"})
    plain(run.cell(cell) / "status.json", status.to_json())
    text = printed(run)
    assert "no mean: broken: 11/12 cells; method_error: KeyError: \ufffd[2J\ufffd\n" in text
    assert "\x1b" not in text


def test_of_many_reasons_the_most_frequent_stand_there(tmp_path):
    gone = [("broken", task, code, seed) for task in CHOSEN.tasks for code in CHOSEN.languages for seed in (1, 2)]
    run = write_run(tmp_path / "run", [entry("zero-shot", 0.5), entry("broken", 0.9)], CHOSEN, drop=gone)
    failed = [cell for cell in run.cell_ids() if run.status(cell).reason]
    for i, cell in enumerate(failed):
        reason = "twice" if i < 2 else f"reason {i}"
        plain(run.cell(cell) / "status.json", run.status(cell).model_copy(update={"reason": reason}).to_json())
    cellset = cellset_of(run)
    [line] = gaps(rank_entries(cellset, cellset.headline))
    assert line.startswith("no mean: broken: 4/12 cells; 2 × method_error: twice; ")
    assert line.endswith("; and 4 more reasons")
