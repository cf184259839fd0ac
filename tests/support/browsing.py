"""What the tests in a browser share: a built site, what its pages said and asked for, what stands on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leaderboard.boards import Board

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


def hash_of(page: Any) -> str:
    return page.evaluate("location.hash")
