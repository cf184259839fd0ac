"""Fixtures: the toy site, a real browser, windows on the site that must stay silent and ask for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from leaderboard.boards import boards
from leaderboard.build import build_site
from support.browsing import Site, Watch
from support.toysite import toy_runs


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


@dataclass(frozen=True)
class Window:
    """A page in a window of its own, the options it was opened with, and what it said and asked for."""

    page: Any
    options: str
    watch: Watch


class Windows:
    """Windows of a browser, used again: a new one is a new process, which takes longer than most tests."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        self._free: dict[str, list[Window]] = {}

    def open(self, color_scheme: str = "light", **options: Any) -> Window:
        """Return an empty window: one of an earlier test with these options, or a new one."""
        key = repr(sorted(options.items()))
        free = self._free.setdefault(key, [])
        window = free.pop() if free else self._new(key, options)
        window.page.emulate_media(media="null", color_scheme=color_scheme)
        return window

    def _new(self, key: str, options: dict[str, Any]) -> Window:
        page = self._browser.new_context(**options).new_page()
        page.context.set_default_timeout(10_000)
        window = Window(page, key, Watch())
        window.watch.attach(page)
        return window

    def leave(self, windows: list[Window]) -> Watch:
        """Empty windows for the next test; return what was said and asked for in them."""
        told = Watch()
        for window in windows:
            window.page.mouse.move(0, 0)  # else it points at something on the next page
            window.page.goto("about:blank")
            told.said += window.watch.said
            told.asked += window.watch.asked
            window.watch.said.clear()
            window.watch.asked.clear()
            self._free[window.options].append(window)
        return told


@pytest.fixture(scope="module")
def windows(browser) -> Windows:
    """The windows of the module's browser."""
    return Windows(browser)


@pytest.fixture
def visit(windows, site) -> Iterator[Callable[..., Any]]:
    """Open a page of the site, each in a window of its own: ``visit("compare.html", "#a=1", **options)``.

    After the test: nothing was said on any console, nothing was asked for but the pages themselves.
    """
    used: list[Window] = []

    def go(page: str = "index.html", state: str = "", **options: Any) -> Any:
        window = windows.open(**{"viewport": {"width": 1280, "height": 900}, **options})
        used.append(window)
        window.page.goto(page if page.startswith("file:") else site.address(page, state))
        return window.page

    yield go
    told = windows.leave(used)
    assert not told.said
    assert not told.asked
