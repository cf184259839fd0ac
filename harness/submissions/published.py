"""What is published and must not get lost: ``submissions/published.json``, and what has changed since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Annotated

from pydantic import Field, ValidationError

from harness.errors import UserError
from harness.files import read_json, write_json
from harness.records import SCHEMA, Record, Versioned
from harness.submissions.reader import Submission, SubmittedRun, find_all
from harness.suite import explain

LOCK = "published.json"
_DIGITS = 6


class Locked(Record):
    """Results of one model: what they cover, their hash, and the mean of the headline metric by setting."""

    model: str | None
    languages: list[str]
    tasks: list[str]
    settings: list[str]
    cells: int
    files: int
    hashes: str
    headline: str
    means: dict[str, float | None]


class Entry(Record):
    """One submission as it was published."""

    version: int
    method: str
    suite: str
    road: str
    results: dict[str, Locked]


class Lock(Versioned):
    """All submissions by name."""

    submissions: Annotated[dict[str, Entry], Field(default_factory=dict)]


def current(root: Path) -> Lock:
    """Return the lock of what lies in a folder of submissions; ``UserError`` where one cannot be read."""
    found, problems = find_all(root)
    if problems:
        raise problems[0]
    return Lock(submissions={submission.card.name: _entry(submission) for submission in found})


def read_lock(root: Path) -> Lock:
    """Return the lock file of a folder of submissions, an empty one where there is none."""
    path = root / LOCK
    if not path.is_file():
        return Lock(submissions={})
    try:
        return Lock.model_validate(read_json(path, SCHEMA))
    except ValidationError as error:
        raise UserError(f"{path} is no lock of submissions: {explain(error)}. Restore it from git.") from None


def renew(root: Path, withdrawn: tuple[str, ...] = ()) -> Lock:
    """Write the lock of what lies there now.

    Raises ``UserError`` where something was lost or changed and the version is not higher; ``withdrawn``
    names submissions that were taken away on purpose.
    """
    old, now = read_lock(root), current(root)
    wrong = [line for name, line in losses(old, now) if name not in withdrawn]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"{wrong[0]}{more}")
    write_json(root / LOCK, now.to_json())
    return now


def losses(old: Lock, now: Lock) -> Iterator[tuple[str, str]]:
    """Yield name and words of everything that was published and is lost or changed in the same version."""
    for name, before in old.submissions.items():
        after = now.submissions.get(name)
        if after is None:
            yield name, f"{name}: was published and is gone. Put it back, or give --withdraw {name}."
        elif after.version < before.version:
            yield name, f"{name}: version {after.version} is below the published {before.version}. Raise it."
        elif after.version == before.version:
            for words in _changes(before, after):
                yield name, f"{name}: {words}. Put it back, or raise 'version' in submission.yaml."


def _changes(before: Entry, after: Entry) -> Iterator[str]:
    """Yield in words what of a submission is not as it was published."""
    for field in ("method", "suite", "road"):
        if getattr(before, field) != getattr(after, field):
            yield f"{field} was {getattr(before, field)}, is {getattr(after, field)}"
    for folder, old in before.results.items():
        new = after.results.get(folder)
        if new is None:
            yield f"the results of {old.model} are gone"
            continue
        yield from _lost(folder, old, new)


def _lost(folder: str, old: Locked, new: Locked) -> Iterator[str]:
    for field in ("languages", "tasks", "settings"):
        gone = [value for value in getattr(old, field) if value not in getattr(new, field)]
        if gone:
            yield f"{folder} has lost {field} {', '.join(gone)}"
    for field in ("cells", "files"):
        if getattr(new, field) < getattr(old, field):
            yield f"{folder} had {getattr(old, field)} {field}, has {getattr(new, field)}"
    if new.means != old.means:
        yield f"{folder}: {old.headline} was {old.means}, is {new.means}"
    elif new.hashes != old.hashes:
        yield f"{folder}: its files were changed"


def _entry(submission: Submission) -> Entry:
    card = submission.card
    return Entry(
        version=card.version,
        method=f"{card.method.name} {card.method.version}",
        suite=f"{card.suite.name} {card.suite.hash}",
        road=card.road,
        results={
            result.folder: _locked(run, result.model, result.hashes, submission.files)
            for result, run in zip(card.results, submission.runs, strict=True)
        },
    )


def _locked(run: SubmittedRun, model: str | None, hashes: str, files: Mapping[str, int]) -> Locked:
    headline = f"macro_f1/{run.manifest().suite['classifiers'][0]}"
    values: dict[str, list[float | None]] = {}
    languages, tasks = set(), set()
    for cell in run.cell_ids():
        status, measured = run.status(cell), run.measured(cell)
        if status is None or status.state != "ok" or measured is None:
            continue
        languages.add(status.cell.language)
        tasks.add(status.cell.task)
        value = next((s["value"] for s in measured["scores"] if s["metric"] == headline), None)
        values.setdefault(status.cell.setting, []).append(value)
    return Locked(
        model=model,
        languages=sorted(languages),
        tasks=sorted(tasks),
        settings=sorted(values),
        cells=sum(map(len, values.values())),
        files=sum(file.startswith(f"results/{run.folder}/") for file in files),
        hashes=hashes,
        headline=headline,
        means={setting: _mean(found) for setting, found in sorted(values.items())},
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), _DIGITS) if len(known) == len(values) else None
