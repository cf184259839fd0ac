"""Provenance and citations: said once where runs share it, and ready to be copied."""

from __future__ import annotations

import pytest
from support.helpers import toy_manifest
from support.toysite import ALPHA, BETA

from leaderboard.downloads.bibtex import citations, method_citations
from leaderboard.downloads.results import results
from leaderboard.views.origins import run_groups

pytest_plugins = ["support.windows"]

COMMON = {"versions": {"numpy": "2.4.6", "torch": "2.13"}, "git_commit": "c0ffee" * 4, "device": "cuda"}


def made(created: str, **changes: object):
    return toy_manifest(**{"model": ALPHA, "created": created, **COMMON, **changes})


def test_runs_of_equal_provenance_are_one_block():
    found = run_groups([made("2026-01-02"), made("2026-01-01"), made("2026-01-03")])
    assert found["shared"] == [
        ("model", "alpha, content a1fa, float32"),
        ("prompt format", "chat"),
        ("steerboard at", "c0ffeec0ffee"),
        ("device", "cuda"),
        ("versions", "numpy 2.4.6, torch 2.13"),
    ]
    assert found["groups"] == [{"runs": "3 runs: 2026-01-01, 2026-01-02, 2026-01-03", "differs": []}]
    assert found["more"] == 0


def test_only_what_differs_stands_in_a_block():
    other = made("2026-02-01", model=BETA, versions={"numpy": "2.4.6", "torch": "2.14"})
    found = run_groups([made("2026-01-01"), other, made("2026-01-02")])
    assert found["shared"] == [
        ("prompt format", "chat"),
        ("steerboard at", "c0ffeec0ffee"),
        ("device", "cuda"),
        ("versions", "numpy 2.4.6"),
    ]
    one = [("model", "alpha, content a1fa, float32"), ("versions", "torch 2.13")]
    two = [("model", "beta @ 7e57, content be7a, bfloat16"), ("versions", "torch 2.14")]
    assert found["groups"] == [
        {"runs": "2 runs: 2026-01-01, 2026-01-02", "differs": one},
        {"runs": "1 run: 2026-02-01", "differs": two},
    ]


def test_what_one_run_does_not_say_is_not_shared():
    found = run_groups([made("2026-01-01"), made("2026-01-02", device="")])
    assert ("device", "cuda") not in found["shared"]
    assert [group["differs"] for group in found["groups"]] == [[("device", "cuda")], []]


def test_blocks_and_dates_are_few_however_many_runs_there_are():
    many = [made(f"2026-01-{day:02}", device=f"gpu {k}") for k in range(60) for day in range(1, 20)]
    found = run_groups(many)
    assert (len(found["groups"]), found["more"]) == (40, 20)
    assert found["groups"][0]["runs"] == "19 runs: from 2026-01-01 to 2026-01-19"


def test_names_of_a_manifest_cannot_turn_around():
    found = run_groups([made("2026\u202e", device="\u202egpu" * 300)])
    assert "\u202e" not in str(found)
    assert max(len(words) for _, words in found["shared"]) < 420


def test_a_board_and_its_methods_have_citations_without_a_name_of_a_person(site):
    published = results([site.board], "2026-05-06")
    [board] = citations(published).values()
    assert board.startswith(f"@misc{{steerboard-{site.board.id},\n  title = {{{{Leaderboard of steering methods: ")
    assert "  year = {2026},\n" in board
    assert "as of 2026-05-06, built by steerboard" in board
    assert board.count("\n@") == 2  # the program and the paper
    [methods] = method_citations(published).values()
    assert "human" not in methods
    assert methods["language"].startswith("@misc{steerboard-language,")
    assert f"@misc{{steerboard-{site.board.id}," in methods["language"]


def test_without_a_date_a_citation_names_none(site):
    [board] = citations(results([site.board], "")).values()
    assert "year" not in board.partition("@software")[0]
    assert "as of" not in board


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.html", "method-language.html"])
def test_a_citation_can_be_copied_and_read_without_a_script(visit, name):
    page = visit(name, permissions=["clipboard-read", "clipboard-write"])
    cite = page.locator("details.cite").first
    cite.locator("summary").click()
    button = cite.get_by_role("button", name="Copy citation")
    button.click()
    page.wait_for_function("() => navigator.clipboard.readText().then((text) => text.startsWith('@misc'))")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("@misc{steerboard-")
    still = visit(name, java_script_enabled=False)
    still.locator("details.cite summary").first.click()
    assert still.locator("details.cite code").first.inner_text().split() == copied.split()
    assert still.get_by_role("button").filter(visible=True).count() == 0
