"""Two builds against each other: what came, went and moved, and nothing else; bad files in one line."""

from __future__ import annotations

import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.helpers import method
from support.toyruns import F1, ToyEntry, flat, selection, toy, write_run

from harness.core.errors import UserError
from harness.core.records import ModelIdentity
from harness.scoring.metrics import DEGENERATE
from leaderboard.boards import boards
from leaderboard.diff import diff, read_results
from leaderboard.diff_report import as_json, as_markdown, print_diff
from leaderboard.downloads.results import results, results_json

CHOSEN = selection()
WOBBLE = (0.0, 0.01, -0.01)
HOSTILE = "x](http://e.vil) | <b>`@you` [red]#1\n\n# big\u202e"
HEBREW, AMHARIC = "שלום", "ሰላም"


def entry(name: str, value: float, wobble=WOBBLE, chosen=CHOSEN, **config: object) -> ToyEntry:
    made = toy(name, **config)
    made.scores[F1] = flat(value, chosen, wobble)
    return made


def build(folder: Path, *entries: ToyEntry, chosen=CHOSEN, **more: object) -> Path:
    """Write a run of a zero-shot row and more entries, and its result file; return the file's folder."""
    run = write_run(folder / "run", [entry("zero-shot", 0.5, chosen=chosen), *entries], chosen, **more)
    (folder / "results.json").write_text(results_json(results(boards([run]), "2026-06-30")), encoding="utf-8")
    return folder


def changed(folder: Path, change) -> Path:
    """Write a result file next to one, changed in place by a function of its first board."""
    body = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    change(body["boards"][0])
    path = folder / "changed.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def only(found: Any):
    [board] = found["boards"]
    return board


def entry_of(found: Any, name: str):
    [entry] = [entry for entry in only(found)["entries"] if entry["name"] == name]
    return entry


def printed(found: Any) -> str:
    out = io.StringIO()
    print_diff(Console(file=out, width=200), found)
    return out.getvalue()


def all_texts(found: Any) -> list[str]:
    return [printed(found), as_markdown(found), as_json(found)]


# What is reported


def test_equal_builds_differ_in_nothing(tmp_path):
    one, other = (build(tmp_path / name, entry("language", 0.7)) for name in ("a", "b"))
    found = diff(one, other)
    assert not found["changed"]
    assert not found["boards"]
    assert "Nothing changed." in printed(found)
    assert "Nothing changed." in as_markdown(found)
    assert json.loads(as_json(found))["changed"] is False
    assert json.loads(as_json(found))["boards"] == []


def test_entries_come_and_go(tmp_path):
    old = build(tmp_path / "a", entry("language", 0.7), entry("quality", 0.6))
    new = build(tmp_path / "b", entry("language", 0.7), entry("clas", 0.6))
    board = only(diff(old, new))
    assert (board["added"], board["gone"]) == (["clas"], ["quality"])
    assert re.search(r"clas\s+new entry", printed(diff(old, new)))
    assert "| quality | entry gone |  |  |" in as_markdown(diff(old, new))


def test_a_mean_and_a_gain_that_move_are_told_with_both_intervals(tmp_path):
    wobbles = (0.02, -0.01, 0.0)
    old = build(tmp_path / "a", entry("language", 0.70, wobbles))
    new = build(tmp_path / "b", entry("language", 0.75, wobbles))
    [moved] = only(diff(old, new))["entries"]
    assert moved["name"] == "language"
    assert (moved["mean"]["old"]["mean"], moved["mean"]["new"]["mean"]) == (0.703333, 0.753333)
    assert (moved["over_zero_shot"]["old"]["mean"], moved["over_zero_shot"]["new"]["mean"]) == (0.203333, 0.253333)
    assert moved["over_zero_shot"]["new"]["low"] < 0.253333 < moved["over_zero_shot"]["new"]["high"]
    text = as_markdown(diff(old, new))
    low, high = moved["over_zero_shot"]["new"]["low"], moved["over_zero_shot"]["new"]["high"]
    assert rf"+0.253 \[+{low:.3f}, +{high:.3f}\] |" in text
    record = json.loads(as_json(diff(old, new)))["boards"][0]["entries"][0]
    assert record["over_zero_shot"]["new"]["mean"] == 0.253333


@pytest.mark.parametrize(("step", "told"), [(0.0004, False), (0.0005, False), (0.0006, True), (-0.0006, True)])
def test_changes_up_to_half_a_thousandth_are_not_told(tmp_path, step, told):
    old = build(tmp_path / "a", entry("language", 0.7))
    new = build(tmp_path / "b", entry("language", 0.7 + step))
    assert diff(old, new)["changed"] is told


def test_a_tier_that_changes_is_told(tmp_path):
    old = build(tmp_path / "a", entry("language", 0.7, (0.02, -0.02, 0.0)))
    path = changed(old, lambda board: board["entries"][0]["standing"].update(tier=2))
    [moved] = only(diff(old, path))["entries"]
    assert moved["tier"] == ["1", "2"]
    assert moved["mean"] is None


def test_cells_that_are_lost_take_the_mean_with_them(tmp_path):
    old = build(tmp_path / "a", entry("language", 0.7))
    new = build(tmp_path / "b", entry("language", 0.7), drop=[("language", "sentiment", "he", 3)])
    moved = entry_of(diff(old, new), "language")
    assert (moved["cells"], moved["tier"]) == (["6/6", "5/6"], ["1", "–"])
    assert (moved["mean"]["old"]["mean"], moved["mean"]["new"]) == (0.7, None)
    assert all("5/6" in text for text in all_texts(diff(old, new)))


def test_a_flag_that_comes_or_goes_is_told_but_not_one_whose_value_moves(tmp_path):
    def run(name: str, value: float) -> Path:
        made = entry("language", 0.7)
        made.scores[DEGENERATE] = flat(value, CHOSEN)
        return build(tmp_path / name, made)

    clean, flagged, worse = run("a", 0.1), run("b", 0.5), run("c", 0.6)
    came = entry_of(diff(clean, flagged), "language")
    assert came["flags_new"] == ["degenerate texts: degenerate 0.5 in sentiment, above 0.2"]
    assert (came["flags_gone"], came["tier"]) == ([], ["1", "flag"])
    went = entry_of(diff(flagged, clean), "language")
    assert (went["flags_new"], len(went["flags_gone"])) == ([], 1)
    assert not diff(flagged, worse)["changed"]


@pytest.mark.parametrize(("after", "told"), [(110.0, False), (90.0, False), (110.1, True), (89.0, True)])
def test_costs_are_told_beyond_a_tenth(tmp_path, after, told):
    folder = build(tmp_path / "a", entry("language", 0.7))

    def costing(speed: float) -> Path:
        path = changed(folder, lambda board: board["entries"][0]["cost"].update(texts_per_second=speed))
        return path.rename(tmp_path / f"{speed}.json")

    found = diff(costing(100.0), costing(after))
    assert found["changed"] is told
    if told:
        [cost] = entry_of(found, "language")["costs"]
        assert (cost["name"], cost["old"], cost["new"]) == ("texts_per_second", 100.0, after)
        assert ("(+10 %)" if after > 100 else "(−11 %)") in printed(found)


# Who belongs to whom


def test_another_config_and_version_of_the_only_entry_of_a_method_is_the_same_entry(tmp_path):
    old = build(tmp_path / "a", ToyEntry(method("language", layer=3), scores=entry("x", 0.7).scores))
    changed_method = method("language", version="2", layer=5)
    new = build(tmp_path / "b", ToyEntry(changed_method, scores=entry("x", 0.7).scores))
    board = only(diff(old, new))
    assert (board["added"], board["gone"]) == ([], [])
    [moved] = board["entries"]
    assert moved["changed"] == ["version 1 → 2", "layer 3 → 5"]
    assert moved["old_id"] != moved["new_id"]


def test_several_entries_of_a_method_are_not_guessed_at(tmp_path):
    old = build(tmp_path / "a", entry("language", 0.7, layer=3), entry("language", 0.6, layer=4))
    new = build(tmp_path / "b", entry("language", 0.7, layer=5))
    board = only(diff(old, new))
    assert (board["added"], board["gone"]) == (["language"], ["language [layer=3]", "language [layer=4]"])
    assert not any(item["changed"] for item in board["entries"])


def test_entries_of_several_models_keep_their_partners(tmp_path):
    def two(name: str, value: float) -> Path:
        made, other = entry("language", 0.6), entry("zero-shot", 0.4)
        made.model = other.model = ModelIdentity(name="org/other", fingerprint=name, dtype="float32")
        made.scores[F1] = flat(value, CHOSEN)
        return build(tmp_path / name, entry("language", 0.7), made, other)

    board = only(diff(two("a", 0.6), two("b", 0.65)))
    assert (board["added"], board["gone"], board["unchanged"]) == ([], [], 2)
    by_name = {item["name"]: item for item in board["entries"]}
    assert by_name["language, org/other"]["changed"] == ["model's fingerprint a → b"]
    assert by_name["language, org/other"]["mean"]["new"]["mean"] == 0.65
    assert by_name["zero-shot, org/other"]["mean"] is None


def test_another_selection_of_the_suite_is_the_same_board_and_says_so(tmp_path):
    narrow = selection(["am"])
    old = build(tmp_path / "a", entry("language", 0.7))
    new = build(tmp_path / "b", entry("language", 0.7, chosen=narrow), chosen=narrow)
    board = only(diff(old, new))
    assert board["scope"] == ["selection changed, languages: am, he → am"]
    assert board["old_id"] != board["new_id"]
    assert not board["incomparable"]
    assert all("numbers below are of other cells" in text for text in all_texts(diff(old, new))[:2])


def test_other_data_is_told(tmp_path):
    old = build(tmp_path / "a", data_hashes={"sentiment/am": "1"})
    new = build(tmp_path / "b", data_hashes={"sentiment/am": "2"})
    assert only(diff(old, new))["scope"] == ["data changed: sentiment/am"]


def test_another_suite_is_not_comparable_and_no_number_is_told(tmp_path):
    old = build(tmp_path / "a", entry("language", 0.7))
    new = build(tmp_path / "b", entry("language", 0.9), entry("clas", 0.6), suite_hash="0ther")
    board = only(diff(old, new))
    assert board["incomparable"] == "the suite changed (hash 5u17e → 0ther)"
    assert (board["entries"], board["added"]) == ([], ["clas"])
    assert "not comparable: the suite changed" in printed(diff(old, new))
    assert "entries unchanged" not in printed(diff(old, new))


def test_boards_come_and_go(tmp_path):
    old = build(tmp_path / "a", suite={"name": "one", "classifiers": ["tfidf"]}, suite_hash="1")
    new = build(tmp_path / "b", suite={"name": "two", "classifiers": ["tfidf"]}, suite_hash="2")
    found = diff(old, new)
    assert [len(side) for side in (found["boards_added"], found["boards_gone"], found["boards"])] == [1, 1, 0]
    assert found["boards_added"][0].startswith("two on toy (two-")
    assert found["changed"]
    assert "new board: two on toy" in printed(found)


def test_one_seed_has_numbers_without_intervals(tmp_path):
    chosen = selection(seeds=[1])
    old = build(tmp_path / "a", entry("language", 0.7, chosen=chosen), chosen=chosen)
    new = build(tmp_path / "b", entry("language", 0.8, chosen=chosen), chosen=chosen)
    assert re.search(r"vs zero-shot\s+\+0\.200\s+\+0\.300", printed(diff(old, new)))
    assert re.search(r"mean macro-F1 \(tfidf\)\s+0\.700\s+0\.800", printed(diff(old, new)))


# Formats, and files that are none


def test_hostile_text_forms_no_markup(tmp_path):
    names = [HOSTILE, HEBREW, AMHARIC]
    new = [ToyEntry(method(name), scores=entry("x", 0.6).scores) for name in names]
    one = build(tmp_path / "a")
    found = diff(one, build(tmp_path / "b", *new))
    text = as_markdown(found)
    assert "<b>" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert not re.search(r"@you|#1", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(names)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert "[red]" in printed(found)
    for shown in all_texts(found):
        assert HEBREW in shown
        assert AMHARIC in shown
        assert "\u202e" not in shown


def test_a_program_that_changed_is_told_but_is_no_change(tmp_path):
    old = build(tmp_path / "a")
    body = json.loads((old / "results.json").read_text())
    body["generator"]["version"] = "9.9"
    path = tmp_path / "newer.json"
    path.write_text(json.dumps(body))
    found = diff(old, path)
    assert not found["changed"]
    assert found["program"][1] == "9.9"


def test_a_site_may_hold_the_file_in_a_folder_of_downloads(tmp_path):
    old = build(tmp_path / "a")
    (tmp_path / "site" / "downloads").mkdir(parents=True)
    (old / "results.json").rename(tmp_path / "site" / "downloads" / "results.json")
    assert len(read_results(tmp_path / "site").boards) == 1


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        diff(path, path)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_a_file_that_is_none_of_ours_is_refused_in_one_line(tmp_path):
    whole = build(tmp_path / "a") / "results.json"
    body = json.loads(whole.read_text())
    path = tmp_path / "b.json"
    assert "does not contain results.json" in refused(tmp_path)
    assert "does not exist" in refused(tmp_path / "none.json")
    path.write_text(whole.read_text()[:200])
    assert "not valid JSON" in refused(path)
    path.write_text("[]")
    assert "not an object" in refused(path)
    path.write_text('{"schema": 99}')
    assert "reads up to 1" in refused(path)
    path.write_text('{"schema": 1, "boards": []}')
    assert "not a result file" in refused(path)
    path.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(path)
    for change in (
        {"more": 1},
        {"date": HOSTILE},
        {"boards": [{}]},
        {"generator": {"name": "other", "version": "1"}},
    ):
        path.write_text(json.dumps({**copy.deepcopy(body), **change}))
        assert "not a result file" in refused(path)


def test_nan_in_a_file_is_refused(tmp_path):
    old = build(tmp_path / "a")
    path = changed(old, lambda board: board["entries"][0]["standing"]["mean"].update(mean=float("nan")))
    assert "not a result file" in refused(path)
