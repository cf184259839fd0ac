"""What a board is built from: run folders, submissions, and folders that hold some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.store import Run
from harness.submissions.folder import CARD
from harness.submissions.reader import Submission, find

OWN = "own run"
"""The badge of what was generated and scored by whoever builds the board."""

_DEPTH = 4  # folders between the one that is named and a run
_ABOVE = 3  # folders between a part of a submission and its own: NAME/results/MODEL


@dataclass(frozen=True)
class Input:
    """A run and how far its numbers were checked; ``submission``: the one that it was handed in with."""

    run: Run
    badge: str = OWN
    submission: Submission | None = None

    @property
    def claimed(self) -> bool:
        """Whether somebody else handed it in."""
        return self.submission is not None


def inputs(paths: Sequence[Path]) -> list[Input]:
    """Return the runs at or below the paths, each once, in order of their paths.

    Of a submission the measured scores are taken where the maintainers measured, else those claimed. Raises
    ``UserError`` for a path without any run, and for a submission that cannot be read. Folders behind links
    and hidden ones are not entered.
    """
    found: dict[Path, Input] = {}
    for path in paths:
        below = list(_of_submission(path) or _below(path, _DEPTH))
        if not below:
            raise UserError(
                f"{path} holds no run (no manifest.json), and no folder in it does. "
                "Give the folder that 'steerboard run --run DIR' made, or one that holds such folders."
            )
        for item in below:
            found.setdefault(item.run.path.resolve(), item)
    return list(found.values())


def _of_submission(path: Path) -> list[Input]:
    """Return the runs of the submission that a path is a part of; none where it is no such part."""
    above = [path, *path.parents][: _ABOVE + 1]
    folder = next((folder for folder in above if (folder / CARD).is_file()), None)
    if folder is None:
        return []
    submission = find(folder)
    runs = [run for run in submission.best_runs if run.path == path or path in run.path.parents]
    return [Input(run, submission.badge, submission) for run in runs]


def _below(path: Path, depth: int) -> Iterator[Input]:
    if (path / CARD).is_file():
        yield from _of_submission(path)
    elif Run(path).exists():
        yield Input(Run(path))
    elif depth and path.is_dir():
        for child in sorted(path.iterdir()):
            if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                yield from _below(child, depth - 1)
