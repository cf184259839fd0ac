"""A board: one set of comparable results, with everything that pages and downloads show computed once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.records import Track
from harness.core.store import Run
from harness.ranking.cost import Cost, costs
from harness.ranking.eligibility import Eligibility
from harness.ranking.gains import baselines, gains
from harness.ranking.leaderboard_rows import Ranking, rank_entries
from harness.ranking.results import BASELINE, ResultSet, collect
from harness.ranking.slices import Slice, SliceRanking, rank_slices
from harness.ranking.stats.estimates import Estimate
from harness.ranking.values import collect_metric
from harness.scoring.metrics import Metric
from leaderboard.checks import check_manifest, drop_invalid
from leaderboard.cube import ValueArray, value_array
from leaderboard.text import name_of


@dataclass(frozen=True)
class Board:
    """One suite, selection and data: only these entries are held against one another.

    ``id`` is stable over builds: it names the folder of the board's pages and hangs on suite, selection and
    data alone. ``headline`` is what entries are ranked by. ``costs``: entry id -> what it took. ``checks``:
    language that is in no mean, such as English -> entry id -> its gain over zero-shot there.
    """

    id: str
    cellset: ResultSet
    headline: Metric
    standings: Ranking
    costs: dict[str, Cost]
    fields: list[SliceRanking] = dataclasses.field(default_factory=list)
    checks: dict[str, dict[str, Estimate]] = dataclasses.field(default_factory=dict)

    @property
    def track(self) -> Track:
        """What was measured: texts as training data, understanding, or forcing."""
        return self.cellset.track

    def field(self, task: str | None = None, language: str | None = None) -> SliceRanking | None:
        """Return what is known of one task, language, both or all; None where the suite has no such scope."""
        return self._by_scope.get(Slice(task, language))

    @cached_property
    def _by_scope(self) -> dict[Slice, SliceRanking]:
        tasks, languages = self.cellset.manifest.selection.tasks, self.cellset.manifest.selection.languages
        found = {field.scope: field for field in self.fields}
        for field in self.fields:  # a suite of one task or language leaves out what would be the same
            for task in {field.scope.task, *(tasks if len(tasks) == 1 else [])}:
                for code in {field.scope.language, *(languages if len(languages) == 1 else [])}:
                    found.setdefault(Slice(task, code), field)
        return found

    @cached_property
    def zero_shot(self) -> dict[str, str]:
        """Entry id -> the unsteered zero-shot entry of its model, for those that have one without a flag."""
        flagged = {standing.row.id for standing in self.standings.rows if standing.flags}
        return {name: base for name, base in baselines(self.cellset, BASELINE).items() if base not in flagged}

    @cached_property
    def cube(self) -> ValueArray:
        """All values, entries in the order of the ranking."""
        return value_array(self.cellset, [standing.row.id for standing in self.standings.rows])

    @property
    def title(self) -> str:
        """The suite and the models: what a heading says."""
        return name_of(self.cellset.title, 300)


def boards(runs: Sequence[Run]) -> list[Board]:
    """Return the boards of runs, track by track, those with the most entries first.

    Raises ``UserError`` for a folder that holds no run, a broken file in it, and where nothing is scored.
    """
    for run in runs:
        check_manifest(run.manifest_path, run.manifest())
    cellsets = [drop_invalid(cellset) for cellset in collect(runs)]
    found = [board(cellset) for cellset in cellsets if not cellset.scores.empty]
    if not found:
        listed = ", ".join(str(run.path) for run in runs)
        raise UserError(f"nothing is scored in {listed}. Run 'steerboard score RUN' first.")
    tracks = list(get_args(Track))
    return sorted(found, key=lambda item: (tracks.index(item.track), -len(item.cellset.entries), item.id))


def board(cellset: ResultSet) -> Board:
    """Return the board of one set of comparable results."""
    headline = cellset.headline or cellset.metrics[0]
    array, rules = collect_metric(cellset, headline), Eligibility(cellset)
    return Board(
        board_id(cellset),
        cellset,
        headline,
        rank_entries(cellset, headline, array=array, eligibility=rules),
        costs(cellset),
        rank_slices(cellset, headline, array, rules),
        _checks(cellset, headline),
    )


def _checks(cellset: ResultSet, headline: Metric) -> dict[str, dict[str, Estimate]]:
    """Return the gains over zero-shot in languages that are checked and in no mean."""
    chosen, bases = cellset.manifest.selection, baselines(cellset, BASELINE)
    there = [code for code in chosen.checked if chosen.places(languages=[code])]
    return {code: gains(collect_metric(cellset, headline, languages=[code]), bases) for code in there}


def board_id(cellset: ResultSet) -> str:
    """Return the name of a board in addresses and files: the suite's name and a short hash."""
    manifest = cellset.manifest
    kind = [manifest.suite_hash, manifest.selection.identity(), manifest.data_hashes]
    name = re.sub(r"[^a-z0-9]+", "-", str(manifest.suite["name"])[:40].lower()).strip("-") or "suite"
    return f"{name}-{digest(kind, 6)}"
