"""The picture of a sweep: well-formed, escaped, in order, inside its frame, and readable."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.core.records import GridPoint
from leaderboard.charts import heatmap, heatmap_svg

if TYPE_CHECKING:
    from support.windows import Windows

pytest_plugins = ["support.windows"]

SVG = "{http://www.w3.org/2000/svg}"
WORD = "ሰላም שלום"
HOSTILE = f"<b>&\"'{WORD}"


def point(gain: float | None = 0.0, **changes: Any) -> GridPoint:
    """Return a configuration of a made-up method; its macro-F1 is 0.5 more than its gain."""
    fields: dict[str, Any] = {
        "method": "mine",
        "options": {"layer": 0.21, "strength": 0.1},
        "macro_f1": None if gain is None else 0.5 + gain,
        "gain": gain,
        "valid": 1.0,
        "eligible": True,
        "cells": 2,
        "cells_expected": 2,
        "texts": 8,
        "tokens": 80,
        "seconds": 1.0,
    }
    return GridPoint(**{**fields, **changes})


def parsed(points: list[GridPoint], method: str = "mine") -> ET.Element:
    return ET.fromstring(heatmap_svg(method, points))


def texts(svg: ET.Element) -> list[str]:
    """Return what the picture shows, its tooltips aside."""
    return ["".join(node.itertext()) for node in svg.iter(f"{SVG}text")]


def squares(svg: ET.Element) -> list[ET.Element]:
    return list(svg.iter(f"{SVG}g"))


GRID = [
    point(round(0.1 * row - 0.05 * column, 2), options={"layer": layer, "strength": strength})
    for row, layer in enumerate([0.74, 0.21])
    for column, strength in enumerate([0.4, 0.05, 0.1])
]


# What is shown


def test_every_configuration_is_a_square_with_its_macro_f1_and_gain():
    svg = parsed(GRID)
    assert len(squares(svg)) == 6
    assert texts(squares(svg)[0]) == ["0.500", "0.000"]
    assert texts(squares(svg)[2]) == ["0.400", "−0.100"]
    assert "".join(squares(svg)[2][0].itertext()) == (
        "layer 0.74, strength 0.1: macro-F1 0.400, gain −0.100, valid share 1.000, 2 of 2 cells"
    )


def test_columns_and_rows_are_in_the_order_of_the_sweep():
    found = heatmap("mine", GRID)
    assert [name for _, name in found["columns"]] == ["0.4", "0.05", "0.1"]
    assert [name for _, name in found["rows"]] == ["0.74", "0.21"]
    assert (found["x_title"], found["y_title"]) == ("strength", "layer")
    assert [x for x, _ in found["columns"]] == sorted(x for x, _ in found["columns"])
    assert [(s["x"], s["y"]) for s in found["squares"]] == sorted(
        [(s["x"], s["y"]) for s in found["squares"]], key=lambda place: (place[1], place[0])
    )


def test_a_square_stands_below_its_column_and_beside_its_row():
    found = heatmap("mine", list(reversed(GRID)))
    for square, given in zip(found["squares"], reversed(GRID), strict=True):
        (column,) = (name for x, name in found["columns"] if square["x"] < x < square["x"] + found["cell"])
        (row,) = (name for y, name in found["rows"] if square["y"] < y < square["y"] + found["row"])
        assert (row, column) == (str(given.options["layer"]), str(given.options["strength"]))


def test_a_grid_of_one_field_is_one_row_without_a_name():
    alphas = [-5.0, -0.5, 0.5, 1.0]
    found = heatmap("clas", [point(options={"alpha": alpha}) for alpha in alphas])
    assert [name for _, name in found["columns"]] == ["-5.0", "-0.5", "0.5", "1.0"]
    assert ([name for _, name in found["rows"]], found["y_title"]) == ([""], "")
    assert "↓" not in "".join(texts(parsed([point(options={"alpha": 1.0})])))


def test_of_three_fields_the_last_is_the_columns():
    points = [
        point(options={"positions": where, "layer": layer, "strength": strength})
        for where in ("all", "prompt")
        for layer in (1, 2)
        for strength in (0.1, 0.2)
    ]
    found = heatmap("mine", points)
    assert [name for _, name in found["rows"]] == ["all, 1", "all, 2", "prompt, 1", "prompt, 2"]
    assert (found["x_title"], found["y_title"]) == ("strength", "positions and layer")
    assert len({(square["x"], square["y"]) for square in found["squares"]}) == 8


def test_layer_0_and_depth_0_are_two_rows():
    points = [point(options={"layer": layer, "strength": 0.1}) for layer in (0, 0.0)]
    assert [name for _, name in heatmap("mine", points)["rows"]] == ["0", "0.0"]


def test_values_that_differ_late_are_not_drawn_over_one_another():
    points = [point(options={"layer": "x" * 60 + end, "strength": 0.1}) for end in "ab"]
    assert len({square["y"] for square in heatmap("mine", points)["squares"]}) == 2


def test_without_any_gain_all_squares_are_alike():
    svg = parsed([point(None, options={"alpha": a}, eligible=False, cells=0, valid=None) for a in (1, 2)])
    assert [texts(square) for square in squares(svg)] == [["–", ""], ["–", ""]]
    assert len({square.find(f"{SVG}rect").get("fill") for square in squares(svg)}) == 1
    assert "gain –, valid share not measured, 0 of 2 cells" in "".join(squares(svg)[0][0].itertext())


def test_gains_of_zero_alone_have_a_picture():
    assert texts(squares(parsed([point(0.0)]))[0]) == ["0.500", "0.000"]


def test_only_the_chosen_square_has_a_frame():
    points = [point(options={"alpha": a}, chosen=a == 2) for a in (1, 2, 3)]
    framed = [bool(square.findall(f"{SVG}rect[@stroke]")) for square in squares(parsed(points))]
    assert framed == [False, True, False]


def test_only_squares_that_are_not_eligible_have_stripes():
    points = [point(options={"alpha": a}, eligible=a == 2) for a in (1, 2, 3)]
    striped = [bool(square.findall(f"{SVG}rect[@fill='url(#barred)']")) for square in squares(parsed(points))]
    assert striped == [True, False, True]
    assert parsed(points).find(f".//{SVG}pattern[@id='barred']") is not None


def test_better_is_blue_and_worse_is_brown():
    better, worse = (rgb(heatmap("m", [point(gain)])["squares"][0]["fill"]) for gain in (0.2, -0.2))
    assert better[2] > better[0]
    assert worse[0] > worse[2]


# Words


def test_the_picture_says_what_it_is_to_a_screen_reader():
    svg = parsed(GRID, "language")
    words = "language: macro-F1 on validation text"
    assert (svg.get("role"), svg.get("aria-label"), svg[0].text) == ("img", words, words)
    assert all(square[0].tag == f"{SVG}title" for square in squares(svg))


def test_hostile_names_and_values_are_shown_as_text():
    svg = parsed([point(options={HOSTILE: HOSTILE, "x" + HOSTILE: HOSTILE})], HOSTILE)
    assert not list(svg.iter(f"{SVG}b"))
    assert texts(svg)[0] == HOSTILE + ": macro-F1 on validation text"
    assert svg.get("aria-label").startswith(HOSTILE)
    assert texts(svg).count(HOSTILE) == 2  # a column and a row
    assert {HOSTILE + " ↓", "x" + HOSTILE + " →"} <= set(texts(svg))


def test_control_characters_do_not_break_the_picture():
    svg = parsed([point(options={"a": "x\x00\x1b[31my\ud800"})], "m\x01")
    assert "x\ufffd\ufffd[31my\ufffd" in texts(svg)


def test_the_picture_asks_for_nothing():
    svg = heatmap_svg("mine", GRID).replace('xmlns="http://www.w3.org/2000/svg"', "").replace("url(#", "")
    assert not re.search(r"https?:|url\(|href|<script|<style|\bon\w+=", svg)


# Room

LONG = "of_the_prompt_and_the_answer_" * 3
WIDE = {
    "one square": [point()],
    "a wide grid": [point(options={"layer": 1, "strength": i / 10}) for i in range(30)],
    "long values": [point(options={"kind": LONG, "other": LONG, "where": LONG[:n]}) for n in (1, 60)],
    "a long field": [point(options={LONG: 1, LONG[3:]: 2})],
    "long and right to left": [point(options={"a": "שלום " * 9, "b": "ሰላም " * 9})],
}


@pytest.mark.parametrize("name", WIDE)
def test_all_squares_lie_inside_the_picture(name):
    found = heatmap("mine", WIDE[name])
    assert all(found["left"] <= s["x"] and s["x"] + found["cell"] < found["width"] for s in found["squares"])
    assert all(found["top"] <= s["y"] and s["y"] + found["row"] <= found["height"] - 60 for s in found["squares"])
    assert parsed(WIDE[name]).get("viewBox") == f"0 0 {found['width']} {found['height']}"


MEASURE = """() => {
const svg = document.querySelector("svg"), box = svg.viewBox.baseVal, out = [];
const all = [...svg.querySelectorAll("text")], boxes = all.map(t => t.getBBox());
boxes.forEach((b, i) => {
  if (b.x < 0 || b.y < 0 || b.x + b.width > box.width || b.y + b.height > box.height)
    out.push("outside: " + all[i].textContent);
  boxes.slice(0, i).forEach((c, j) => {
    if (b.x < c.x + c.width && c.x < b.x + b.width && b.y + 3 < c.y + c.height && c.y + 3 < b.y + b.height)
      out.push("one over the other: " + all[j].textContent + " / " + all[i].textContent);
  });
});
return out;
}"""


@pytest.fixture
def browse(windows: Windows, tmp_path: Path) -> Iterator[Callable[[str, str], Any]]:
    """Write a file of a name and open it in a browser: ``browse("a.svg", text)``."""
    window = windows.open()

    def go(name: str, text: str) -> Any:
        (tmp_path / name).write_text(text, encoding="utf-8")
        window.page.goto((tmp_path / name).as_uri())
        return window.page

    yield go
    windows.leave([window])


def measured(browse: Callable[[str, str], Any], points: list[GridPoint], method: str = "mine") -> list[str]:
    """Return which texts of a picture a browser finds outside of it or on top of another."""
    page = browse("page.html", f"<!doctype html><meta charset=utf-8><body>{heatmap_svg(method, points)}")
    found: list[str] = page.evaluate(MEASURE)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
def test_a_real_browser_finds_all_words_inside_the_picture_and_apart(browse, name):
    assert measured(browse, WIDE[name]) == []


@pytest.mark.slow
def test_a_real_browser_finds_room_for_a_long_name(browse):
    assert measured(browse, GRID, LONG) == []


@pytest.mark.slow
def test_the_browser_check_notices_words_that_do_not_fit(browse, monkeypatch):
    monkeypatch.setattr("leaderboard.charts._LETTER", 1)
    assert any(found.startswith("outside: of_the_prompt") for found in measured(browse, WIDE["long values"]))


@pytest.mark.slow
def test_a_real_browser_opens_the_picture_by_itself(browse):
    shown = browse("surface.svg", heatmap_svg(HOSTILE, GRID)).content()
    assert "parsererror" not in shown
    assert f"{WORD}: macro-F1 on validation text" in shown
    assert "parsererror" in browse("broken.svg", "<svg xmlns='http://www.w3.org/2000/svg'><b></svg>").content()


# Contrast, by WCAG 2


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def luminance(colour: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_is_that_of_wcag():
    assert contrast(rgb("#000000"), rgb("#ffffff")) == pytest.approx(21)
    assert contrast(rgb("#767676"), rgb("#ffffff")) == pytest.approx(4.54, abs=0.005)


def test_words_are_readable_on_every_colour_with_and_without_stripes():
    shares = [step / 50 for step in range(-50, 51)]
    points = [point(share, options={"alpha": share}, eligible=False) for share in shares]
    svg = parsed(points)
    stripe = svg.find(f".//{SVG}pattern/{SVG}rect")
    opacity, over = float(stripe.get("opacity")), rgb(stripe.get("fill"))
    for square in squares(svg):
        fill = rgb(square.find(f"{SVG}rect").get("fill"))
        striped = [a * (1 - opacity) + b * opacity for a, b in zip(fill, over, strict=True)]
        for words in square.findall(f"{SVG}text"):
            assert contrast(rgb(words.get("fill")), fill) >= 4.5
            assert contrast(rgb(words.get("fill")), striped) >= 4.5


def test_words_outside_of_the_squares_are_readable_on_white():
    svg = parsed(GRID)
    for words in svg.findall(f"{SVG}text"):
        assert contrast(rgb(words.get("fill")), rgb("#ffffff")) >= 4.5


def test_stripes_and_frame_can_be_seen():
    svg = parsed([point(1.0, chosen=True, eligible=False)])
    fill = rgb(squares(svg)[0].find(f"{SVG}rect").get("fill"))
    frame = squares(svg)[0].find(f"{SVG}rect[@stroke]")
    assert contrast(rgb(frame.get("stroke")), fill) >= 3
