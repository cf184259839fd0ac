"""What the tests in a browser share: a built site, what its pages said and asked for, what stands on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.ranking.stats.estimates import Estimate
from leaderboard.boards import Board
from support.toyruns import F1
from support.toysite import LANGUAGES, SEEDS, TASKS

READ = """(id) => {
  const table = document.getElementById(id), heads = [...table.tHead.rows[0].cells];
  return [...table.tBodies[0].rows].filter((row) => row.checkVisibility()).map((row) => Object.fromEntries([
    ["id", row.dataset.entry],
    ...heads.map((head, i) => [head.dataset.key, row.cells[i]])
      .filter(([, cell]) => cell.checkVisibility())
      .map(([key, cell]) => [key, (cell.querySelector(".figure, .tier, .badge") ?? cell).textContent.trim()]),
  ]));
}"""
"""Return the rows of a table as they stand on the screen: texts by the key of their column."""


EMPTY = r"""() => [...document.querySelectorAll("table")].flatMap((table) => {
  const blank = (cell) => /^[–·\s]*$/.test(cell.textContent);
  const rows = [...table.tBodies[0].rows], name = table.id;
  const heads = [...table.tHead.rows[0].cells].map((head, i) => [head.textContent.trim(), i]);
  return [
    ...(rows.some((row) => [...row.cells].slice(1).some((cell) => !blank(cell))) ? [] : [`${name}: all`]),
    ...(table.matches(".grid") ? [] : heads.filter(([, i]) => rows.every((row) => blank(row.cells[i])))
      .map(([head]) => `${name}: column ${head}`)),
  ];
})"""
"""Return the tables, and the columns of tables, that hold no figure."""

FILTERS = ("q", "task", "model", "setting", "family")
"""The fields by which rows are filtered, in the order of the page; languages have a menu."""


@dataclass(frozen=True)
class Site:
    """A built site, and the board that its numbers must agree with."""

    folder: Path
    board: Board

    def address(self, page: str = "index.html", state: str = "") -> str:
        """Return the address of a page; all but the index lie in the folder of the board."""
        path = self.folder / page if page == "index.html" else self.folder / self.board.id / page
        assert path.is_file(), path
        return path.as_uri() + state

    def pages(self) -> list[Path]:
        return sorted(self.folder.rglob("*.html"))


@dataclass
class Watch:
    """What pages said on the console, threw, or asked for beside themselves."""

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def attach(self, page: Any) -> None:
        page.on("console", lambda message: self.said.append(f"{page.url}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"{page.url}: {error}"))
        page.on("request", self._request)

    def _request(self, request: Any) -> None:
        if not (request.url.startswith("file:") and request.resource_type == "document"):
            self.asked.append(f"{request.resource_type} {request.url}")


def pick(board: Any, *codes: str) -> None:
    """Choose languages of a board by hand: open the menu, set every box, close it."""
    menu = board.locator("details.pick").first
    menu.locator("summary").click()
    for box in menu.locator("[name=language]").all():
        box.set_checked(box.get_attribute("value") in codes)
    menu.locator("summary").click()


def picked(page: Any) -> list[str]:
    """Return the languages that are chosen."""
    return page.locator("[name=language]:checked").evaluate_all("boxes => boxes.map((box) => box.value)")


def rows(page: Any, table: str) -> list[dict[str, str]]:
    """Return the rows of a table as they stand on the screen."""
    return page.evaluate(READ, table)


def change_state(page: Any, state: str) -> None:
    """Follow a link to another state of the page that is open."""
    page.evaluate(
        """(state) => new Promise((done) => {
          if (location.hash === state) done();
          addEventListener("hashchange", () => setTimeout(done), { once: true });
          location.hash = state;
        })""",
        state,
    )


def hash_of(page: Any) -> str:
    return page.evaluate("location.hash")


def mean_by_hand(site: Site, name: str, task: str | None, code: str | None) -> float | None:
    """Return the plain mean of the scores as they were read, None where a cell of the scope lacks one."""
    lines = site.board.result_set.scores
    lines = lines[(lines["metric"] == F1.name) & (lines["entry"] == name)]
    for axis, value in (("task", task), ("language", code)):
        lines = lines[lines[axis] == value] if value else lines
    wanted = (1 if task else len(TASKS)) * (1 if code else len(LANGUAGES)) * len(SEEDS)
    values = lines["value"].dropna()
    return float(values.mean()) if len(values) == wanted else None


def gain_of(site: Site, scope: Any, name: str) -> Estimate | None:
    """Return an entry's gain over zero-shot in a scope, as the ranking computes it."""
    found = site.board.slice(scope.task, scope.language)
    return paired_difference(found, name, site.board.zero_shot.get(name, ""))


def paired_difference(found: Any, a: str, b: str) -> Estimate | None:
    if a not in found.entries or b not in found.entries:
        return None
    i, j = found.entries.index(a), found.entries.index(b)
    mean, half = float(found.difference[i, j]), float(found.ci_half_width[i, j])
    return Estimate(mean) if np.isnan(half) else Estimate(mean, low=mean - half, high=mean + half)


def entries_named(site: Site, *names: str) -> list[str]:
    """Return the ids of entries with these names."""
    by_name = {row.name: name for name, row in site.board.result_set.entries.items()}
    return [by_name[name] for name in names]


def ranking(page: Any, site: Site) -> list[dict[str, str]]:
    return rows(page, f"{site.board.id}-ranking")


def ids(found: list[dict[str, str]]) -> list[str]:
    return [row["id"] for row in found]


def column(page: Any, site: Site, key: str) -> Any:
    return page.locator(f"#{site.board.id}-ranking th[data-key='{key}']")


def choose(page: Any, **values: str) -> None:
    """Set filters of the first board."""
    form = page.locator("form.filters").first
    for name, value in values.items():
        if name == "q":
            form.locator("[name=q]").fill(value)
        elif name == "language":
            pick(form, *value.split(","))
        else:
            form.locator(f"[name={name}]").select_option(value)
