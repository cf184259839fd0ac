"""Fixtures: the toy site, a real browser, windows on the site that must stay silent and ask for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import Site, Watch
from toysite import toy_runs

from leaderboard.boards import boards
from leaderboard.build import build_site


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Site:
    """The site of the toy runs, built once for all test modules."""
    folder = tmp_path_factory.mktemp("site")
    runs = toy_runs(folder / "runs")
    build_site([run.path for run in runs], folder / "out")
    [board] = boards(runs)
    return Site(folder / "out", board)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, for one module: while it runs, no other event loop can."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("NO CHROMIUM: the pages were not opened in a browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT: no page was opened")
    with playwright.sync_playwright() as running:
        made = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def visit(browser, site) -> Iterator[Callable[..., Any]]:
    """Open a page of the site, each in a window of its own: ``visit("compare.html", "#a=1", **options)``.

    After the test: nothing was said on any console, nothing was asked for but the pages themselves.
    """
    watch, windows = Watch(), []

    def go(page: str = "index.html", state: str = "", **options: Any) -> Any:
        window = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        windows.append(window)
        window.set_default_timeout(10_000)
        opened = window.new_page()
        watch.attach(opened)
        opened.goto(page if page.startswith("file:") else site.address(page, state))
        return opened

    yield go
    for window in windows:
        window.close()
    assert not watch.said
    assert not watch.asked
