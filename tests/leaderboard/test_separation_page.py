"""Separation of languages on a method's page: the chart's geometry, the words, and files from strangers."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.helpers import MODEL, jsonl, method
from support.separations import HOSTILE, body
from support.toyruns import F1, flat, places, selection, toy, write_run

from harness.core.errors import UserError
from harness.core.records import Generation, ModelIdentity, Selection
from harness.core.store import Run
from harness.tracks.separation import Separation, path_of, write_separation
from leaderboard.boards import Board, boards
from leaderboard.build import build_site
from leaderboard.charts import LINES_HEIGHT, LINES_WIDTH, lines
from leaderboard.checks import check_folder
from leaderboard.views.separation import separations, stored

pytest_plugins = ["support.windows"]
CODES = ("am", "cs", "da", "de", "he", "id", "jv", "mt", "sk", "sl", "su")
TASKS = ("sentiment", "topic")
CLAS = method("clas", alpha=-1.0)
HIT = "<script>window.__hit=1</script>"


# The chart


def test_layers_and_values_lie_where_the_axes_say():
    found = lines([0.0, 0.5, 1.0], [0.0, 1.0, 0.25], [1], "y")
    left, right, bottom, top = 52.0, LINES_WIDTH - 12.0, LINES_HEIGHT - 46.0, 36.0
    assert (found["x"].at(0), found["x"].at(1), found["x"].at(2)) == (left, (left + right) / 2, right)
    assert (found["y"].at(0), found["y"].at(0.5), found["y"].at(1)) == (bottom, (top + bottom) / 2, top)
    assert found["before"] == f"{left},{bottom} {(left + right) / 2},{(top + bottom) / 2} {right},{top}"
    assert found["after"] == "52.0,234.0 240.0,36.0 428.0,184.5"  # 234 - 0.25 x 198
    assert found["dots"] == [(52.0, 234.0, False), (240.0, 36.0, True), (428.0, 184.5, False)]
    assert found["ticks"] == [(52.0, "0"), (240.0, "1"), (428.0, "2")]


def test_a_marked_layer_has_a_band_of_half_a_layer_to_both_sides():
    flat_line = [0.1] * 5  # a layer is (428 - 52) / 4 = 94 pixels wide
    assert lines(flat_line, flat_line, [1], "y")["bands"] == [(52 + 47.0, 94.0)]
    assert lines(flat_line, flat_line, [3, 1, 2], "y")["bands"] == [(52 + 47.0, 282.0)]
    assert lines(flat_line, flat_line, [1, 3], "y")["bands"] == [(99.0, 94.0), (287.0, 94.0)]
    assert lines(flat_line, flat_line, [0], "y")["bands"] == [(52.0, 47.0)], "clipped at the axis"
    assert lines(flat_line, flat_line, [4, 9], "y")["bands"] == [(381.0, 47.0)]


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (1, ["0"]),
        (2, ["0", "1"]),
        (6, ["0", "1", "2", "3", "4", "5"]),
        (32, ["0", "5", "10", "15", "20", "25", "30"]),
        (42, ["0", "5", "10", "15", "20", "25", "30", "35", "40"]),
        (80, ["0", "10", "20", "30", "40", "50", "60", "70"]),
        (200, ["0", "20", "40", "60", "80", "100", "120", "140", "160", "180"]),
    ],
)
def test_layers_on_the_axis_are_whole_and_round(n, words):
    found = lines([0.0] * n, [0.1] * n, [0], "y")
    assert [text for _, text in found["ticks"]] == words
    assert found["after"].count(",") == n


def test_of_many_layers_only_the_marked_ones_get_dots():
    found = lines([0.0] * 80, [0.1] * 80, [9, 11], "y")
    assert [(x, marked) for x, _, marked in found["dots"]] == [(found["x"].at(9), True), (found["x"].at(11), True)]


def test_the_axis_holds_both_lines_also_below_zero():
    found = lines([-0.09, 0.0], [0.27, 0.1], [0], "y")
    assert found["y"].ticks[0][1] == "−0.10"
    assert (found["y"].beyond(-0.09), found["y"].beyond(0.27)) == (0, 0)


# The page


def write_board(folder: Path, chosen: Selection | None = None, **gains: float) -> Run:
    """Write a run of zero-shot and clas, in both settings; ``gains``: language -> gain of zero-shot clas."""
    chosen = chosen or selection(CODES, TASKS, (1, 2, 3))
    base, steered, shots = toy("zero-shot"), toy("clas", alpha=-1.0), toy("clas", alpha=-1.0)
    shots.setting = "few-shot"
    gain = {code: gains.get(code, 0.0) for code in chosen.languages}
    base.scores[F1] = flat(0.5, chosen)
    steered.scores[F1] = {place: 0.5 + gain[place[1]] + 0.001 * place[2] for place in places(chosen)}
    shots.scores[F1] = flat(0.6, chosen)
    suite = {
        "name": "toy",
        "classifiers": ["tfidf"],
        "definitions": {task: {code: {"labels": ["a"]} for code in chosen.languages} for task in chosen.tasks},
    }
    run = write_run(folder, [base, steered, shots], chosen, suite=suite)
    for name in run.cell_ids():
        row = Generation(index=0, label="a", text="ሰላም שלום", finish_reason="stop")
        jsonl(run.cell(name) / "generations.jsonl", [row.model_dump(mode="json")])
    return run


def separated(codes: tuple[str, ...] = CODES, **changes: Any) -> Separation:
    """Return a separation in which the change of the i-th language is i hundredths."""
    before = {code: [0.1, 0.1, 0.1] for code in codes}
    after = {code: [0.1, 0.1 + i / 100, 0.1 + i / 100] for i, code in enumerate(codes)}
    mean = 0.1 + (len(codes) - 1) / 200
    fields: dict[str, Any] = {
        "method": CLAS, "model": MODEL, "task": "sentiment", "languages": list(codes), "sentences": 40,
        "steered": [1], "before": [0.1] * 3, "after": [0.1, mean, mean],
        "before_by_language": before, "after_by_language": after,
    }  # fmt: skip
    return Separation.model_validate({**fields, **changes})


def board_of(run: Run) -> Board:
    [found] = boards([run])
    return found


def shown(run: Run) -> Any:
    board = board_of(run)
    return separations(board, "clas", stored(board))


RISING = {code: i / 100 for i, code in enumerate(CODES)}


def test_the_sentence_says_the_change_and_how_it_goes_with_the_gain(tmp_path):
    run = write_board(tmp_path / "run", **RISING)
    for task in TASKS:
        write_separation(run, task, separated(task=task))
    found = shown(run)
    [picture] = found["pictures"]
    assert picture["sentence"].startswith(
        "From layer 1 on, the first that is changed, the mean silhouette changes by +0.050. "
    )
    assert (
        "Over 11 languages it correlates with the gain of clas in macro-F1 (tfidf) with rho = +1.00"
        in picture["sentence"]
    )
    assert "(Spearman, p < 0.001)" in picture["sentence"]
    assert (
        "No correlation with the gain of clas + few-shot: it takes four languages that differ." in picture["sentence"]
    )
    assert "sentiment and topic: 40 sentences of each of 11 languages" in picture["caption"]
    assert picture["languages"][4] == ("Hebrew", "0.100", "0.140", "+0.040", ["+0.100", "+0.042"])
    assert picture["layers"][0] == (0, "0.100", "0.100", "0.000", False)
    assert picture["layers"][1] == (1, "0.100", "0.150", "+0.050", True)


def test_a_correlation_that_chance_gives_is_called_so(tmp_path):
    order = [3, 0, 9, 6, 1, 10, 4, 7, 2, 8, 5]
    run = write_board(tmp_path / "run", **{code: i / 100 for i, code in zip(order, CODES, strict=True)})
    for task in TASKS:
        write_separation(run, task, separated(task=task))
    [picture] = shown(run)["pictures"]
    assert re.search(r"rho = \+0\.\d\d \(Spearman, p = 0\.\d{3}; not significant\)", picture["sentence"])


def test_tasks_of_other_numbers_have_pictures_and_gains_of_their_own(tmp_path):
    run = write_board(tmp_path / "run", **RISING)
    write_separation(run, "a", separated(task="sentiment"))
    write_separation(run, "b", separated(task="topic", steered=[2]))
    one, two = shown(run)["pictures"]
    assert ("sentiment:" in one["caption"], "topic:" in two["caption"]) == (True, True)
    assert one["sentence"].startswith("From layer 1 on")
    assert two["sentence"].startswith("From layer 2 on")
    assert one["languages"][4][-1] == ["+0.100", "+0.042"], "of one task, where all tasks have the same"


def test_the_file_of_most_languages_counts(tmp_path):
    run = write_board(tmp_path / "run")
    write_separation(run, "a", separated())
    write_separation(run, "b", separated(CODES[:4]))
    write_separation(run, "c", separated(sentences=20))
    [picture] = shown(run)["pictures"]
    assert "40 sentences of each of 11 languages" in picture["caption"]


def test_of_other_methods_models_and_tasks_nothing_is_shown(tmp_path):
    run = write_board(tmp_path / "run")
    other = ModelIdentity(name="other", fingerprint="0", dtype="float32")
    write_separation(run, "a", separated(method=method("clas", alpha=1.0)))
    write_separation(run, "b", separated(model=other))
    write_separation(run, "c", separated(task="another"))
    assert len(stored(board_of(run))) == 3
    assert shown(run) is None


def test_too_few_languages_give_a_picture_without_a_correlation(tmp_path):
    run = write_board(tmp_path / "run", selection(("am", "he"), ("sentiment",), (1, 2, 3)), am=0.1, he=0.2)
    write_separation(run, "a", separated(("am", "he")))
    [picture] = shown(run)["pictures"]
    assert "rho" not in picture["sentence"]
    assert "No correlation with the gain of clas" in picture["sentence"]


def test_of_many_pictures_the_first_twelve_are_drawn(tmp_path):
    run = write_board(tmp_path / "run", selection(("am", "he"), [f"t{i}" for i in range(15)], (1,)))
    for i in range(15):
        write_separation(run, f"{i}", separated(("am", "he"), task=f"t{i}", sentences=10 + i, steered=[i % 3]))
    found = shown(run)
    assert (len(found["pictures"]), found["more"]) == (3, 0), "equal numbers share a picture"
    for i in range(15):
        item = separated(("am", "he"), task=f"t{i}", sentences=100, before=[i / 100] * 3)
        write_separation(run, f"{i}", item)
    found = shown(run)
    assert (len(found["pictures"]), found["more"]) == (12, 3)


def pages(folder: Path, run: Run) -> dict[str, str]:
    build_site([run.path], folder)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}


def test_a_page_has_the_section_only_where_it_was_measured(tmp_path):
    run = write_board(tmp_path / "run", **RISING)
    write_separation(run, "a", separated())
    found = pages(tmp_path / "site", run)
    page = found["method-clas.html"]
    assert '<h2 id="separation">Separation of languages</h2>' in page
    assert re.search(r'<svg class="plot lines"[^>]* role="img" aria-labelledby="(\S+)-title"', page)
    assert '<rect class="band" x="146.0"' in page  # 52 + (428 - 52) / 4
    assert "separation" not in found["method-zero-shot.html"]


@pytest.fixture(scope="module")
def small_board(tmp_path_factory) -> tuple[Run, Board]:
    """A run of two languages and its board; the separations are read from the folder each time."""
    run = write_board(tmp_path_factory.mktemp("small") / "run", selection(("am", "he"), ("sentiment",), (1,)))
    return run, board_of(run)


@pytest.fixture
def small(small_board) -> Iterator[tuple[Run, Board]]:
    """The small board, without any separation before and after."""
    yield small_board
    shutil.rmtree(path_of(small_board[0], "any").parent, ignore_errors=True)


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_broken_file_is_left_out_and_spoils_no_other(small, changes):
    run, board = small
    write_separation(run, "good", separated(("am", "he")))
    path_of(run, "bad").write_text(body(**changes), encoding="utf-8")
    assert len(separations(board, "clas", stored(board))["pictures"]) == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 10**5, b'{"schema": 1}', b"null"])
def test_what_is_no_json_is_left_out(small, data):
    run, board = small
    path_of(run, "bad").parent.mkdir(exist_ok=True)
    path_of(run, "bad").write_bytes(data)
    assert stored(board) == []


def test_of_too_many_bytes_the_rest_is_not_read(tmp_path, monkeypatch):
    run = write_board(tmp_path / "run", selection(("am", "he"), ("sentiment",), (1,)))
    for name in "abc":
        write_separation(run, name, separated(("am", "he")))
    size = path_of(run, "a").stat().st_size
    monkeypatch.setattr("leaderboard.views.separation._BYTES", 2 * size)
    assert len(stored(board_of(run))) == 2


def test_a_link_out_of_a_submission_and_a_pipe_are_refused(tmp_path):
    run = write_board(tmp_path / "run", selection(("am", "he"), ("sentiment",), (1,)))
    write_separation(run, "a", separated(("am", "he")))
    check_folder(run, claimed=True)
    path_of(run, "b").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="link out of the directory"):
        check_folder(run, claimed=True)
    path_of(run, "b").unlink()
    os.mkfifo(path_of(run, "b"))
    with pytest.raises(UserError, match="not a regular file"):
        check_folder(run, claimed=False)


def test_markup_in_a_file_is_shown_as_text(tmp_path):
    run = write_board(tmp_path / "run")
    codes = (HIT, "he")
    write_separation(run, "a", separated(codes, left_out={f"'{HIT}": f"}}]]{HIT}\u202e"}))
    page = pages(tmp_path / "site", run)["method-clas.html"]
    assert HIT not in page
    assert page.count("&lt;script&gt;window.__hit=1&lt;/script&gt;") == 3
    assert "\u202e" not in page


# In a browser


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("separation")
    run = write_board(folder / "run", **RISING)
    write_separation(run, "a", separated(task="sentiment", left_out={"en": "no such neurons"}))
    write_separation(run, "b", separated(task="topic", steered=[0, 2]))
    build_site([run.path], folder / "site")
    [page] = (folder / "site").rglob("method-clas.html")
    return page


@pytest.mark.slow
def test_the_page_is_readable_in_every_scheme_and_width(windows, site):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="NO AXE")
    window = windows.open(viewport={"width": 1280, "height": 900})
    page = window.page
    page.goto(site.as_uri())
    page.evaluate("document.querySelectorAll('main details').forEach((node) => { node.open = true; })")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    colours = ("color-contrast", "link-in-text-block")
    others = {"rules": {rule: {"enabled": False} for rule in colours}}
    for scheme, width, rules in (("light", 1280, {}), ("dark", 1280, {"runOnly": colours}), ("light", 390, others)):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(page, options={"resultTypes": ["violations"], "selectors": False, **rules})
        found = found.response["violations"]
        assert [(item["id"], item["nodes"][0]["html"]) for item in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    told = windows.leave([window])
    assert (told.said, told.asked) == ([], [])
