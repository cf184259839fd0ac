"""Writing down what was checked: an entry of the maintainers' lock, and measured scores beside the lock."""

from __future__ import annotations

import math
import shutil
from statistics import fmean

from harness import __version__
from harness.core.errors import UserError
from harness.core.files import write_bytes
from harness.core.store import Run
from harness.submissions.card import CardResult
from harness.submissions.check import CheckOutcome
from harness.submissions.checksums import sha256
from harness.submissions.lockfile import (
    LockedSubmission,
    LockFile,
    PublishedResult,
    Reproduction,
    changed,
    coverage,
    hashes_of,
    method_of,
    suite_of,
)
from harness.submissions.pack import compact
from harness.submissions.rescore import RescoreResult
from harness.submissions.submission import Submission, SubmittedRun

_DIGITS = 6
_ROUNDING = 1e-12


def check_version(submission: Submission, lock: LockFile) -> None:
    """Raise ``UserError`` where other texts than the locked ones come under the same or a lower version.

    Other scores of the same texts are fine: whoever writes the lock has just measured them.
    """
    name, version = submission.card.name, submission.card.version
    before = lock.body.submissions.get(name)
    if before is None or version > before.version:
        return
    if version < before.version:
        raise UserError(f"{name}: version {version} is below the locked {before.version}. Raise 'version'.")
    reason = changed(before, submission, texts_only=True)
    if reason:
        raise UserError(
            f"{name}: {reason}, which version {version} in {lock.path} does not have. Raise 'version' in "
            f"submission.yaml, or give it up on purpose: steerboard submission list --allow-removed {name}."
        )


def write_record(checked: CheckOutcome, measured: RescoreResult, lock: LockFile) -> LockedSubmission:
    """Write the lock's entry of a submission that was scored again, and return it.

    Measured scores lie in ``measured/NAME/`` beside the lock, for cells in which they do not equal the
    claimed ones but for rounding. Raises ``UserError`` as ``check_version``, and without a lock to write.
    """
    submission = checked.submission
    assert submission is not None
    lock.check_writable()
    check_version(submission, lock)
    card, files = submission.card, {}
    shutil.rmtree(lock.measured(card.name), ignore_errors=True)
    for claimed in submission.runs:
        for cell, data in _differing(claimed, measured.runs[claimed.folder]).items():
            for name, content in data.items():
                file = f"{claimed.folder}/{cell}/{name}"
                write_bytes(lock.measured(card.name) / file, content)
                files[file] = sha256(content)
    results = zip(card.results, submission.runs, strict=True)
    entry = LockedSubmission(
        version=card.version,
        badge="rescored",
        method=method_of(card),
        suite=suite_of(card),
        type=card.type,
        subject=card.subject,
        steerboard=__version__,
        parts=measured.parts,
        unmeasured=measured.unmeasured,
        agrees=not any(gap.words for gap in measured.gaps),
        flags=measured.flags,
        results={r.folder: _locked(submission, r, run, measured.runs[r.folder]) for r, run in results},
        measured=files,
    )
    lock.put(card.name, entry)
    return entry


def _differing(claimed: SubmittedRun, run: Run) -> dict[str, dict[str, bytes]]:
    """Return cell -> file -> content of the cells whose measured scores are not just what is claimed.

    But for rounding: libraries that add up in several threads change the last digit.
    """
    found = {}
    for cell in run.cell_ids():
        scores = run.scores(cell)
        if scores is None:
            continue
        scores = scores.model_copy(update={"kept": {}})  # sizes of files that a submission does not have
        kept = {**run.text_checks(cell), **run.predictions(cell)}
        handed_in = claimed.scores(cell)
        known = handed_in and handed_in.to_json()
        if not alike(known, scores.to_json()) or not alike(claimed.kept(cell), kept):
            found[cell] = {"scores.json.gz": compact(scores.to_json()), "predictions.json.gz": compact(kept)}
    return found


def alike(one: object, other: object) -> bool:
    """Say whether two JSON values are equal but for the rounding of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    return one == other


def _locked(submission: Submission, result: CardResult, claimed: SubmittedRun, run: Run) -> PublishedResult:
    headline = f"macro_f1/{run.manifest().suite['classifiers'][0]}"
    values: dict[str, list[float | None]] = {}
    for cell in run.cell_ids():
        status, measured = run.status(cell), run.read_scores_fast(cell)
        if status is not None and measured is not None:
            value = next((s["value"] for s in measured["scores"] if s["metric"] == headline), None)
            values.setdefault(status.cell.setting, []).append(value)
    return PublishedResult.model_validate(
        {
            "model": result.model,
            **coverage(claimed),
            "cells": sum(map(len, values.values())),
            **hashes_of(submission, result),
            "headline": headline,
            "means": {setting: _mean(found) for setting, found in sorted(values.items())},
        }
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), _DIGITS) if known and len(known) == len(values) else None


def mark_reproduced(checked: CheckOutcome, found: Reproduction, lock: LockFile) -> bool:
    """Raise the badge of a checked submission to ``reproduced``; False where it was not rescored before."""
    submission = checked.submission
    assert submission is not None
    lock.check_writable()
    entry, _ = lock.valid(submission)
    if entry is None:
        return False
    lock.put(submission.card.name, entry.model_copy(update={"badge": "reproduced", "reproduction": found}))
    return True
