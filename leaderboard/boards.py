"""A board: one set of comparable results, with everything that pages and downloads show computed once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.files import digest
from harness.ranking.cost import Cost, costs
from harness.ranking.standings import Standings, standings
from harness.ranking.tables import Cellset, collect
from harness.scoring.metrics import Metric
from harness.store import Run


@dataclass(frozen=True)
class Board:
    """One suite, selection and data: only these entries are held against one another.

    ``id`` is stable over builds: it names the folder of the board's pages and hangs on suite, selection and
    data alone. ``headline`` is what entries are ranked by. ``costs``: entry id -> what it took.
    """

    id: str
    cellset: Cellset
    headline: Metric
    standings: Standings
    costs: dict[str, Cost]

    @property
    def title(self) -> str:
        """The suite and the models: what a heading says."""
        return self.cellset.title


def boards(runs: Sequence[Run]) -> list[Board]:
    """Return the boards of runs, those with the most entries first.

    Raises ``UserError`` for a folder that holds no run, a broken file in it, and where nothing is scored.
    """
    found = [board(cellset) for cellset in collect(runs) if not cellset.scores.empty]
    if not found:
        listed = ", ".join(str(run.path) for run in runs)
        raise UserError(f"nothing is scored in {listed}. Run 'steerboard score RUN' first.")
    return sorted(found, key=lambda item: (-len(item.cellset.entries), item.id))


def board(cellset: Cellset) -> Board:
    """Return the board of one set of comparable results."""
    headline = cellset.headline or cellset.metrics[0]
    return Board(board_id(cellset), cellset, headline, standings(cellset, headline), costs(cellset))


def board_id(cellset: Cellset) -> str:
    """Return the name of a board in addresses and files: the suite's name and a short hash."""
    manifest = cellset.manifest
    kind = [manifest.suite_hash, manifest.selection.model_dump(mode="json"), manifest.data_hashes]
    name = re.sub(r"[^a-z0-9]+", "-", str(manifest.suite["name"])[:40].lower()).strip("-") or "suite"
    return f"{name}-{digest(kind, 6)}"
