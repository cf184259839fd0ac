"""A table of many rows in a browser: the first ones of any order, all on request and on paper."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.browsing import Site, rows
from support.toyruns import F1, flat, selection, toy, write_run

from harness.core.records import Generation
from leaderboard.boards import boards
from leaderboard.build import build_board

pytest_plugins = ["support.windows"]
pytestmark = pytest.mark.slow

ENTRIES, SHOWN = 50, 40


@pytest.fixture(scope="module")
def long_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One method with fifty strengths: the higher, the better, from 0.300 to 0.349."""
    chosen, entries = selection(), []
    for i in range(ENTRIES):
        entry = toy("language", strength=i)
        entry.scores[F1] = flat(0.3 + i / 1000, chosen)
        entries.append(entry)
    folder = tmp_path_factory.mktemp("long")
    run = write_run(folder / "run", entries, chosen)
    text = Generation(index=0, label="negative", text="ምግቡ ቀዝቃዛ ነበር።", finish_reason="stop")
    for cell in run.cell_ids():
        (run.cell(cell) / "generations.jsonl").write_text(text.model_dump_json() + "\n", encoding="utf-8")
    return Site(build_board([run], folder / "site").parent, boards([run])[0])


def values(page, site: Site) -> list[float]:
    return [float(row[F1.name]) for row in rows(page, f"{site.board.id}-ranking")]


def sort(page, site: Site) -> None:
    page.locator(f"#{site.board.id}-ranking th[data-key='{F1.name}'] button").click()


def test_the_first_rows_of_any_order_are_shown_and_all_on_request(visit, long_site):
    page = visit(long_site.address())
    best = [round(0.3 + i / 1000, 3) for i in range(ENTRIES)][::-1]
    assert values(page, long_site) == best[:SHOWN]
    sort(page, long_site)
    sort(page, long_site)
    assert values(page, long_site) == best[::-1][:SHOWN]
    page.get_by_role("button", name=f"Show all {ENTRIES} rows").first.click()
    assert values(page, long_site) == best[::-1]
    page.get_by_role("button", name=f"Show the first {SHOWN} rows").first.click()
    assert len(values(page, long_site)) == SHOWN


def test_a_filter_looks_at_all_rows(visit, long_site):
    page = visit(long_site.address())
    page.get_by_label("Search").fill("strength=3]")
    assert values(page, long_site) == [0.303]
    assert not page.locator(".rest").first.is_visible()


def test_a_link_to_a_row_further_down_shows_it(visit, long_site):
    last = long_site.board.standings.rows[-1].row.id
    page = visit(long_site.address(state=f"#{long_site.board.id}-{last}"))
    assert page.locator(f"#{long_site.board.id}-{last}").is_visible()


def test_what_is_saved_is_what_is_shown(visit, long_site):
    page = visit(long_site.address())
    with page.expect_download() as download:
        page.locator("[data-save=csv]").first.click()
    with Path(download.value.path()).open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + SHOWN


def test_arrow_keys_stay_among_rows_that_are_shown(visit, long_site):
    page = visit(long_site.address())
    grid = f"#{long_site.board.id}-languages"
    page.locator(f"{grid} tbody tr:not(.beyond)").last.locator("td").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr').matches(':not(.beyond)')")


@pytest.mark.parametrize("how", ["paper", "no script"])
def test_all_rows_are_there_on_paper_and_without_a_script(visit, long_site, how):
    page = visit(long_site.address(), java_script_enabled=how == "paper")
    page.emulate_media(media="print" if how == "paper" else "screen")
    assert page.locator(f"#{long_site.board.id}-ranking tbody tr:visible").count() == ENTRIES
