"""Keeping what was measured beside what is claimed: ``measured/`` and ``check.json``."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness import __version__
from harness.files import write_bytes, write_json
from harness.store import Run
from harness.submissions.badges import Check, Regenerated, read_check, valid_check
from harness.submissions.chain import sha256
from harness.submissions.checking import Checked
from harness.submissions.folder import CHECK, walk
from harness.submissions.packing import compact
from harness.submissions.reader import SubmittedRun
from harness.submissions.rescoring import Measured


def keep(checked: Checked, measured: Measured) -> Check:
    """Write what was measured into the submission's folder; both values stay.

    A cell whose measured scores and predictions equal the claimed ones to the last digit needs no file.
    """
    submission = checked.submission
    assert submission is not None
    forget(checked.folder)
    files: dict[str, str] = {}
    for claimed in submission.runs:
        for cell, data in _differing(claimed, measured.runs[claimed.folder]).items():
            for name, content in data.items():
                file = f"measured/{claimed.folder}/{cell}/{name}"
                write_bytes(checked.folder / file, content)
                files[file] = sha256(content)
    check = Check(
        badge="re-scored",
        subject=submission.card.subject,
        steerboard=__version__,
        cells=sum(len(statuses) for statuses in checked.statuses.values()),
        parts=measured.parts,
        unmeasured=measured.unmeasured,
        reproduced=not any(gap.words for gap in measured.gaps),
        flags=measured.flags,
        files=files,
    )
    write_json(checked.folder / CHECK, check.to_json())
    return check


def _differing(claimed: SubmittedRun, run: Run) -> dict[str, dict[str, bytes]]:
    """Return cell -> file -> content of the cells whose measured scores are not just what is claimed."""
    found = {}
    for cell in run.cell_ids():
        scores = run.scores(cell)
        if scores is None:
            continue
        scores = scores.model_copy(update={"kept": {}})  # sizes of files that a submission does not have
        kept = {**run.audit(cell), **run.predictions(cell)}
        if claimed.scores(cell) != scores or claimed.kept(cell) != kept:
            found[cell] = {"scores.json.gz": compact(scores.to_json()), "predictions.json.gz": compact(kept)}
    return found


def forget(folder: Path) -> None:
    """Remove what an earlier check kept."""
    shutil.rmtree(folder / "measured", ignore_errors=True)
    (folder / CHECK).unlink(missing_ok=True)


def keep_regenerated(checked: Checked, found: Regenerated) -> bool:
    """Raise the badge of a checked submission to ``regenerated``; False where it was not re-scored before."""
    submission = checked.submission
    assert submission is not None
    files, _ = walk(checked.folder)
    if valid_check(checked.folder, submission.card, files) is None:
        return False
    check = read_check(checked.folder).model_copy(update={"badge": "regenerated", "regenerated": found})
    write_json(checked.folder / CHECK, check.to_json())
    return True
