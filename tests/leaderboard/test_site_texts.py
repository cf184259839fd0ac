"""The pages of texts: what was asked, what the scoring found, how much is shown, and the links to them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.browsing import entries_named, hash_of
from support.helpers import jsonl
from support.toyruns import F1, flat, selection, toy, write_run
from support.toysite import ALPHA, LANGUAGES, TASKS, TEXTS

from harness.core.records import Generation
from harness.core.store import Run
from leaderboard.boards import Board, boards
from leaderboard.build import build_board
from leaderboard.views import samples
from leaderboard.views.samples import Mark, marks, prompts

pytest_plugins = ["support.windows"]

CELL = "0123456789abcdef"
ASKED = ["positive", "positive", "negative"]
KEPT = {
    "validity": {
        "valid": [True, False, False],
        "reasons": [[], ["language", "gibberish", "some new one"], ["empty"]],
        "language": ["he", "am", ""],
        "label": ["positive", "negative", ""],
    },
    "leakage": {"copied/train": [False, True, False], "copied/test": [False, True, False]},
}


def audited(folder: Path, kept: object) -> Run:
    run = Run(folder)
    run.cell(CELL).mkdir(parents=True)
    body = kept if isinstance(kept, bytes) else gzip.compress(json.dumps(kept).encode())
    (run.cell(CELL) / "audit.json.gz").write_bytes(body)
    return run


# What the scoring found


def test_every_text_says_whether_it_is_valid_its_language_its_label_and_whence_it_is_copied(tmp_path):
    found = marks(audited(tmp_path, KEPT), CELL, ASKED, "he")
    assert found == [
        [Mark("valid", False), Mark("Hebrew", False), Mark("judged positive", False)],
        [
            Mark("not valid: mostly in another language, gibberish, some new one", True),
            Mark("Amharic", True),
            Mark("judged negative", True),
            Mark("copied from train, test", True),
        ],
        [Mark("not valid: empty", True), Mark("no language found", True)],
    ]


def test_human_text_as_a_reference_may_stand_in_human_text(tmp_path):
    found = marks(audited(tmp_path, KEPT), CELL, ASKED, "he", reference=True)
    assert found[1][-1] == Mark("copied from train, test", False)


def test_what_was_scored_before_labels_were_kept_has_the_other_marks(tmp_path):
    old = {"validity": {key: value for key, value in KEPT["validity"].items() if key != "label"}}
    assert marks(audited(tmp_path, old), CELL, ASKED, "he")[0] == [
        Mark("valid", False),
        Mark("Hebrew", False),
    ]


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"no gzip",
        gzip.compress(b"[]", mtime=0),
        {},
        {"validity": [True], "leakage": None},
        {"validity": {"valid": [True], "language": "heh", "label": {}}, "leakage": {"copied/train": [True]}},
        {"validity": {"valid": [1, "x", None], "language": [[], {}, 3], "label": [0, None, [1]]}},
        {"validity": {"reasons": [["empty"]] * 3}},
    ],
)  # fmt: skip
def test_an_audit_that_is_none_marks_nothing(tmp_path, kept):
    assert marks(audited(tmp_path, kept), CELL, ASKED, "he") == [[], [], []]


def test_no_audit_at_all_marks_nothing(tmp_path):
    assert marks(Run(tmp_path), CELL, ASKED, "he") == [[], [], []]


def test_names_in_an_audit_are_cut_and_cannot_turn_around(tmp_path):
    evil = {"validity": {"valid": [False], "reasons": [["\u202egnp.exe" * 50] * 99], "language": ["\u202e" * 99]}}
    [[why, spoken]] = marks(audited(tmp_path, evil), CELL, ["x"], "he")
    assert len(why.words) < 400
    assert "\u202e" not in why.words + spoken.words


# What was asked


def test_prompts_are_filled_in_and_hold_no_human_text(site):
    found = prompts(site.board, "sentiment", "he", "negative", ["zero-shot", "few-shot", "none"])
    assert found == [
        ("zero-shot", "Write a text about negative in Hebrew."),
        (
            "few-shot",
            "Write a text about negative in Hebrew, such as:\n[5 human-written texts of this label, not shown]",
        ),
    ]


def test_a_base_prompt_shows_where_the_list_goes_on(site):
    result_set = site.board.result_set
    base = "Reviews ({label}):\n{items}"
    suite = {
        "few_shot": {"shots": 5},
        "definitions": {"sentiment": {"he": {"prompts": {"zero-shot": base, "few-shot": base}}}},
    }
    told = dataclasses.replace(result_set, manifest=result_set.manifest.model_copy(update={"suite": suite}))
    board = dataclasses.replace(site.board, result_set=told)
    assert prompts(board, "sentiment", "he", "bad", ["zero-shot", "few-shot"]) == [
        ("zero-shot", 'Reviews (bad):\n1. "'),
        ("few-shot", 'Reviews (bad):\n[5 human-written texts of this label, not shown]\n6. "'),
    ]


@pytest.mark.parametrize("definitions", [None, [], {"sentiment": 3}, {"sentiment": {"he": {"prompts": []}}}])
def test_a_manifest_that_says_no_prompt_shows_none(site, definitions):
    result_set = site.board.result_set
    suite = {**result_set.manifest.suite, "definitions": definitions}
    told = dataclasses.replace(result_set, manifest=result_set.manifest.model_copy(update={"suite": suite}))
    assert prompts(dataclasses.replace(site.board, result_set=told), "sentiment", "he", "negative", ["few-shot"]) == []


def test_fields_of_a_template_are_replaced_and_never_looked_up(site):
    result_set = site.board.result_set
    evil = "{label.__class__} {0} {label} {examples}"
    suite = {
        "few_shot": {"shots": True},
        "definitions": {"sentiment": {"he": {"prompts": {"few-shot": evil}}}},
    }
    told = dataclasses.replace(result_set, manifest=result_set.manifest.model_copy(update={"suite": suite}))
    [(_, words)] = prompts(dataclasses.replace(site.board, result_set=told), "sentiment", "he", "x", ["few-shot"])
    assert words == "{label.__class__} {0} x [human-written texts of this label, not shown]"


# How much is shown


def board_of(folder: Path, texts: int, length: int) -> Board:
    """Return a board of two entries in Amharic with so many texts of one label."""
    chosen = selection(("am",), ("sentiment",), (1, 2))
    entries = [toy(name, ALPHA) for name in ("zero-shot", "language")]
    for i, each in enumerate(entries):
        each.scores[F1] = flat(0.5 + i / 10, chosen)
    suite = {"name": "toy", "version": 1, "classifiers": ["tfidf"]}
    suite |= {"definitions": {"sentiment": {"am": {"labels": ["negative", "positive"]}}}}
    run = write_run(folder, entries, chosen, suite=suite, model=ALPHA)
    for cell in run.cell_ids():
        made = [
            Generation(index=i, label=label, text=f"{i} " + "ም" * length, finish_reason="stop")
            for label in ("negative", "positive")
            for i in range(texts)
        ]
        jsonl(run.cell(cell) / "generations.jsonl", [text.model_dump(mode="json") for text in made])
    return boards([run])[0]


def shown_of(board: Board) -> Any:
    return samples.samples_page(board, "am")


def test_the_first_twenty_texts_of_every_label_entry_and_seed_are_shown(tmp_path):
    page = shown_of(board_of(tmp_path, texts=25, length=30))
    assert (page["count"], page["seeds"], page["seeds_left_out"], page["labels_left_out"]) == (20, [1, 2], 0, 0)
    assert len(page["blocks"]) == 4  # two labels, two seeds
    for block in page["blocks"]:
        assert [[text.text.split()[0] for text in sample.texts] for sample in block["samples"]] == [
            [str(i) for i in range(20)]
        ] * 2


@pytest.mark.parametrize(
    ("room", "seeds", "count", "blocks"),
    [
        (100_000, [1, 2], 20, 4),  # 8 samples of 20 texts of 540 or 543 bytes
        (50_000, [1, 2], 11, 4),  # 8 samples of 11: 47,528 bytes
        (15_000, [1], 6, 2),  # 5 texts of 400 bytes in 8 samples have no room: one seed
        (1_500, [1], 1, 1),  # one text of two entries, and not of the second label
    ],
)
def test_a_page_that_would_be_too_large_shows_fewer_seeds_then_texts_then_labels(
    tmp_path, monkeypatch, room, seeds, count, blocks
):
    monkeypatch.setattr(samples, "BYTES", room)
    page = shown_of(board_of(tmp_path, texts=25, length=100))
    assert (page["seeds"], page["count"], len(page["blocks"])) == (seeds, count, blocks)
    assert page["labels_left_out"] == 2 * len(seeds) - blocks
    sizes = [text.size for block in page["blocks"] for sample in block["samples"] for text in sample.texts]
    assert sum(sizes) <= room


def test_the_size_that_is_reckoned_is_that_of_the_page(tmp_path):
    board = board_of(tmp_path / "run", texts=25, length=200)
    site = build_board([Run(tmp_path / "run")], tmp_path / "site").parent
    size = (site / board.id / "samples-am.html").stat().st_size
    texts = [text for block in shown_of(board)["blocks"] for sample in block["samples"] for text in sample.texts]
    reckoned = sum(text.size for text in texts)
    assert reckoned > 100_000
    assert 0.7 * reckoned < size < reckoned + 80_000  # script, style and navigation


# Links


@pytest.mark.slow
def test_every_cell_of_the_heat_map_leads_to_its_texts(visit, site):
    page = visit()
    cells = page.locator(f"#{site.board.id}-languages tbody td").evaluate_all(
        "cells => cells.map((cell) => [cell.parentNode.dataset.entry, cell.cellIndex - 1,"
        " cell.querySelector('small').textContent, cell.querySelector('a')?.getAttribute('href') ?? ''])"
    )
    assert len(cells) == len(site.board.result_set.entries) * len(LANGUAGES)
    for entry, i, level, href in cells:
        wanted = f"{site.board.id}/samples-{LANGUAGES[i]}.html#a={entry}"
        assert href == (wanted if level != "–" else "")
    assert sum(bool(href) for *_, href in cells) > 40


@pytest.mark.slow
def test_a_link_to_an_entry_opens_its_texts_beside_zero_shot(visit, site):
    by_name = {row.name: name for name, row in site.board.result_set.entries.items()}
    entry = by_name["quality, beta"]
    page = visit()
    cell = page.locator(f"#{site.board.id}-languages tr[data-entry='{entry}'] td").nth(LANGUAGES.index("he"))
    cell.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/samples-he.html**")
    assert page.locator("[name=a]").input_value() == entry
    assert page.locator("[name=b]").input_value() == by_name["zero-shot, beta"]
    other = visit("language-he.html")
    other.locator(f"tr[data-entry='{entry}'] td a").nth(1 + TASKS.index("topic")).click()
    other.wait_for_url("**/samples-he.html**")
    assert other.locator("[name=a]").input_value() == entry
    assert other.locator("[name=task]").input_value() == "topic"


@pytest.mark.slow
def test_without_a_script_the_link_leads_to_the_texts_themselves(visit, site):
    entry = next(iter(site.board.result_set.entries))
    page = visit("samples-he.html", f"#{samples.anchor(entry, 'topic')}", java_script_enabled=False)
    target = page.locator(":target")
    assert target.evaluate("node => node.closest('article').dataset.entry") == entry
    assert target.evaluate("node => node.closest('.block').dataset.task") == "topic"


@pytest.mark.slow
def test_a_touch_on_the_heat_map_explains_before_it_leads_away(visit, site):
    page = visit(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    link = page.locator(f"#{site.board.id}-languages td:has(a)").first.locator("a")
    start = page.url
    link.tap()
    assert page.url == start
    assert "n = 6 cells" in page.get_by_role("tooltip").text_content()
    link.tap()
    page.wait_for_url("**/samples-*.html**")


@pytest.mark.slow
@pytest.mark.parametrize("script", [True, False])
def test_a_page_of_texts_says_what_was_asked_and_what_was_found(visit, script):
    page = visit("samples-he.html", "#task=sentiment&seed=1", java_script_enabled=script)
    block = page.locator(".block").first
    block.locator("summary").click()
    asked = block.locator(".asked").all_inner_texts()
    assert asked[0] == "Write a text about negative in Hebrew."
    assert asked[1].endswith("[5 human-written texts of this label, not shown]")
    first = block.locator("article").filter(visible=True).first.locator(".marks").first
    assert first.locator("bdi").all_text_contents() == ["valid", "Hebrew", "judged negative"]
    last = page.locator(".block").nth(3).locator(".marks").last
    assert last.text_content() == (
        "not valid: mostly in another language, repeats itselflanguage svjudged negativecopied from train"
    )


# Side by side in a browser


def texts_shown(page: Any) -> dict[tuple[str, str], list[str]]:
    """Return (heading of a block, entry) -> its texts, from left to right as they stand on the screen."""
    found = page.evaluate(
        """() => [...document.querySelectorAll(".block")].filter((block) => block.checkVisibility())
          .flatMap((block) => [...block.querySelectorAll("article")].filter((one) => one.checkVisibility())
          .map((one) => [block.querySelector("h2").textContent.trim(), one.dataset.entry,
            one.getBoundingClientRect().left, [...one.querySelectorAll("p")].map((p) => p.textContent)]))"""
    )
    return {(heading, entry): texts for heading, entry, _, texts in sorted(found, key=lambda it: (it[0], it[2]))}


@pytest.mark.slow
def test_two_entries_stand_side_by_side_with_the_same_label_and_seed(visit, site):
    a, b = entries_named(site, "quality, beta", "human")
    page = visit("samples-am.html")
    page.locator("[name=a]").select_option(a)
    page.locator("[name=b]").select_option(b)
    page.locator("[name=task]").select_option("topic")
    page.locator("[name=seed]").select_option("2")
    found = texts_shown(page)
    assert [entry for _, entry in found] == [a, b, a, b]
    assert {heading for heading, _ in found} == {"topic: sport seed 2", "topic: health seed 2"}
    first, second = TEXTS["am", "sport"]
    assert found["topic: sport seed 2", a] == [f"{first} [quality 2]", second]
    assert found["topic: sport seed 2", b] == [f"{first} [human 2]", second]
    assert hash_of(page) == f"#a={a}&b={b}&task=topic&seed=2"
    fresh = visit("samples-am.html", hash_of(page))
    assert texts_shown(fresh) == found


@pytest.mark.slow
def test_all_entries_can_be_read_at_once(visit, site):
    page = visit("samples-he.html")
    page.get_by_label("all entries").check()
    found = texts_shown(page)
    assert len({entry for _, entry in found}) == len(site.board.result_set.entries)
    assert {heading.split(" ")[-1] for heading, _ in found} == {"1"}
    assert page.locator("[name=a]").is_disabled()
    assert "all=1" in hash_of(page)
    fresh = visit("samples-he.html", hash_of(page))
    assert texts_shown(fresh) == found
    fresh.get_by_label("all entries").uncheck()
    assert len({entry for _, entry in texts_shown(fresh)}) == 2
    assert fresh.locator("[name=a]").is_enabled()


@pytest.mark.slow
def test_unknown_values_in_the_address_of_texts_are_ignored(visit):
    opening = texts_shown(visit("samples-da.html"))
    assert texts_shown(visit("samples-da.html", "#a=nobody&b=x&task=none&seed=99&all=no")) == opening


@pytest.mark.slow
@pytest.mark.parametrize(("code", "way"), [("am", "ltr"), ("he", "rtl"), ("da", "ltr")])
def test_texts_carry_their_language_and_run_their_way(visit, code, way):
    page = visit(f"samples-{code}.html")
    shown = page.locator(".sample p").evaluate_all(
        "nodes => nodes.map((node) => [node.lang, node.dir, getComputedStyle(node).direction,"
        " getComputedStyle(node).textAlign])"
    )
    assert {tuple(item[:3]) for item in shown} == {(code, way, way)}
    assert {item[3] for item in shown} == {"start"}
    heading = page.locator("h1 bdi")
    assert (heading.get_attribute("lang"), heading.get_attribute("dir")) == (code, way)


@pytest.mark.slow
def test_hebrew_starts_at_the_right_edge(visit):
    page = visit("samples-he.html")
    left, right, box_left, box_right = page.locator(".sample p").filter(visible=True).nth(1).evaluate(
        """node => { const range = document.createRange(); range.selectNodeContents(node);
          const text = range.getBoundingClientRect(), box = node.getBoundingClientRect();
          return [text.left, text.right, box.left, box.right]; }"""
    )  # fmt: skip
    assert right == pytest.approx(box_right, abs=1)
    assert left > box_left + 20


@pytest.mark.slow
@pytest.mark.parametrize(("code", "script", "letters"), [("am", "Ethi|Abyss", 20), ("he", "Hebr", 15)])
def test_letters_come_from_a_font_that_has_them(browser, site, code, script, letters):
    page = browser.new_page()  # not watched: from Chromium 150 on, the inspector itself asks for the page's style sheet
    page.goto(site.address(f"samples-{code}.html", ""))
    devtools = page.context.new_cdp_session(page)
    devtools.send("DOM.enable")
    devtools.send("CSS.enable")
    root = devtools.send("DOM.getDocument")["root"]["nodeId"]
    node = devtools.send("DOM.querySelector", {"nodeId": root, "selector": ".sample p"})["nodeId"]
    fonts = devtools.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
    if not any(re.search(script, font["familyName"]) for font in fonts):
        pytest.skip(f"NO FONT for {code} on this machine: {fonts}")
    assert sum(font["glyphCount"] for font in fonts if re.search(script, font["familyName"])) >= letters
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("code", ["am", "he"])
def test_a_copied_text_is_exactly_the_text(visit, site, code):
    page = visit(f"samples-{code}.html", "#seed=3&task=sentiment", permissions=["clipboard-read", "clipboard-write"])
    sample = page.locator(".sample").filter(visible=True).nth(1)
    button = sample.get_by_role("button")
    button.click()
    page.wait_for_function("button => button.textContent === 'Copied'", arg=button.element_handle())
    button.click()
    assert page.evaluate("navigator.clipboard.readText()") == TEXTS[code, "negative"][1]
    if code == "he":
        page.wait_for_function("button => button.textContent === 'Copy'", arg=button.element_handle())
