"""Score the texts of a submission from scratch, by the suite's own protocol, and compare with its scores.

The run that is scored lies in a temporary directory; ``write_record`` keeps what was measured in the lockfile and
next to it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from harness.core.cells import Cell
from harness.core.errors import UserError
from harness.core.files import file_digest, write_json_gz
from harness.core.records import CellScores, CellStatus, Score
from harness.core.store import Run
from harness.core.version import __version__
from harness.methods.registry import SUBMISSIONS
from harness.submissions.card import CardResult
from harness.submissions.changes import check_version
from harness.submissions.check import CheckOutcome
from harness.submissions.check_cells import EXACT
from harness.submissions.lockfile import LockedSubmission, LockFile, PublishedResult
from harness.submissions.protocol import Protocol
from harness.submissions.report import Compared, cell_title
from harness.submissions.submission import Submission, coverage, find_all, result_hashes

if TYPE_CHECKING:
    from rich.console import Console

    from harness.ranking.flags import Flag

_SIGMAS = 3.0
_ROUNDING = 1e-12  # libraries that add up in several threads change the last digit
_DIGITS = 6
_TOLERANCE = (
    f"tolerance in one cell: {EXACT:g}; for classifiers with several seeds 3 standard deviations of the "
    "measured seeds, divided by the root of their number."
)


@dataclass(frozen=True)
class Gap:
    """One score of one cell, as submitted and as measured. ``problem`` says what does not agree."""

    status: CellStatus
    metric: str
    claimed: float | None
    measured: float | None
    problem: str

    @property
    def size(self) -> float:
        """The absolute difference; 0 where one is missing."""
        return 0.0 if self.claimed is None or self.measured is None else abs(self.claimed - self.measured)


@dataclass
class RescoreResult:
    """What was measured: directory of a model's results -> a run, valid until the block ends.

    ``parts``: scorers that ran; ``unmeasured``: scorers of the submission that did not.
    """

    runs: dict[str, Run] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


@contextmanager
def rescored(checked: CheckOutcome, classifiers: list[str] | None, console: Console) -> Iterator[RescoreResult]:
    """Score all texts of a checked submission and add to its report what differs from its scores.

    ``classifiers``: instead of the suite's. Raises ``UserError`` where human text or a classifier is missing.
    """
    assert checked.submission is not None
    result = RescoreResult()
    with TemporaryDirectory(prefix="steerboard-check-") as temporary:
        for claimed in checked.submission.runs:
            folder = claimed.path.name
            run = result.runs[folder] = Run(Path(temporary) / folder)
            result.parts = _score(
                run, claimed, checked.statuses[folder], checked.protocols[folder], classifiers, console
            )
            _compare(checked, claimed, run, result)
        _add_flags(checked, checked.submission, result)
        yield result


def _score(
    run: Run,
    claimed: Run,
    statuses: dict[str, CellStatus],
    protocol: Protocol,
    classifiers: list[str] | None,
    console: Console,
) -> list[str]:
    """Copy the texts into an empty run and score them; return the scorers that did it."""
    from harness.runner.prepare import RunPlan
    from harness.runner.score import ScoringStage
    from harness.scoring.scorers import build_scorers

    corpus = protocol.require_corpus()
    for cell, status in statuses.items():
        run.write_cell(cell, status, claimed.generations(cell) if status.state == "ok" else [])
    run.write_manifest(claimed.manifest())
    parts = build_scorers(protocol.suite, corpus, classifiers)
    cells = [Cell(status.cell) for status in statuses.values()]
    ScoringStage(RunPlan(run, protocol.suite, corpus, None, {}, cells, parts), console).run()
    return [part.name for part in parts]


def _compare(checked: CheckOutcome, claimed: Run, run: Run, result: RescoreResult) -> None:
    report, root = checked.report, f"results/{claimed.path.name}"
    gaps: list[Gap] = []
    extra: set[str] = set()
    for cell, status in checked.statuses[claimed.path.name].items():
        before, after = claimed.scores(cell), run.scores(cell)
        if before is None or after is None:
            continue
        if missing := {*after.parts} - {*before.parts}:
            problem = f"is missing what the suite is scored by: {', '.join(sorted(missing))}"
            hint = "Score the run with them: 'steerboard score', and pack it again."
            report.add("problem", f"{root}/{cell}/scores.json.gz", problem, hint)
        extra |= {*before.parts} - {*after.parts}
        gaps += [*_score_gaps(status, before, after), *_prediction_gaps(status, claimed, run, cell)]
    wrong: dict[str, list[Gap]] = {}
    for gap in gaps:
        if gap.problem:
            wrong.setdefault(gap.metric, []).append(gap)
    for name, [first, *more] in wrong.items():
        where = f"first {cell_title(first.status.cell)}: {first.problem}"
        problem = f"{name} is not reproduced in {1 + len(more)} cells; {where}"
        report.add("problem", root, problem, "Score the run again with this steerboard, and pack it.")
    if extra:
        problem = f"claimed and not measured here: {', '.join(sorted(extra))}"
        report.add("note", root, problem, "Name them with --classifier.")
    result.unmeasured = sorted({*result.unmeasured} | extra)
    result.gaps += gaps
    report.compared += _table(gaps, {f"macro_f1/{part.partition('/')[2]}" for part in result.parts})
    report.tolerance = _TOLERANCE


def _score_gaps(status: CellStatus, claimed: CellScores, measured: CellScores) -> Iterator[Gap]:
    """Yield every score that both have, or that only one has of a scorer that both have."""
    parts = {*claimed.parts} & {*measured.parts}
    before, after = ({score.metric: score for score in scores.scores} for scores in (claimed, measured))
    names = {name for part in parts for scores in (claimed, measured) for name in scores.parts[part].metrics}
    for name in sorted(names):
        one, two = before.get(name), after.get(name)
        if one is None or two is None:
            problem = "is claimed and not measured" if two is None else "is measured and not claimed"
        elif claimed.protocol != measured.protocol or one.signature != two.signature:
            problem = "was scored by another recipe or on other human text than here"
        else:
            problem = next(_disagreements(one, two), "")
        yield Gap(status, name, one.value if one else None, two.value if two else None, problem)


def _disagreements(claimed: Score, measured: Score) -> Iterator[str]:
    """Yield what of a score differs by more than the noise of the classifier's seeds, or rounding."""
    seeds = [*measured.by_seed.values()]
    tolerance = EXACT if len(seeds) < 2 else max(EXACT, _SIGMAS * stdev(seeds) / math.sqrt(len(seeds)))
    pairs = {"the value": (claimed.value, measured.value), "the value of human text": (claimed.human, measured.human)}
    if tolerance == EXACT:
        ends = zip(claimed.interval or (None, None), measured.interval or (None, None), strict=True)
        pairs |= {f"the {side} end of the interval": pair for side, pair in zip(("lower", "upper"), ends, strict=True)}
        names = sorted({*claimed.detail, *measured.detail})
        pairs |= {f"detail {name:.40}": (claimed.detail.get(name), measured.detail.get(name)) for name in names}
    for what, (one, two) in pairs.items():
        if (one is None) != (two is None) or abs((one or 0.0) - (two or 0.0)) > tolerance:
            shown = ["no value" if value is None else f"{value:.6g}" for value in (one, two)]
            yield f"{what} {shown[0]} is claimed, {shown[1]} measured (tolerance {tolerance:.2g})"
    if {*claimed.by_seed} != {*measured.by_seed}:
        yield "the classifier's seeds are not those of the suite"


def _prediction_gaps(status: CellStatus, claimed: Run, run: Run, cell: str) -> Iterator[Gap]:
    """Yield classifiers of one seed, which are exact, whose submitted predictions are not those measured."""
    before, after = claimed.predictions(cell), run.predictions(cell)
    for part in sorted({*before} & {*after}):
        exact = all(len(seeds) == 1 for seeds in after[part]["predictions"].values())
        if exact and before[part] != after[part]:
            yield Gap(status, part, None, None, "predictions or test texts are not those that were measured")


def _table(gaps: Sequence[Gap], headline: set[str]) -> Iterator[Compared]:
    """Yield the headline metrics by setting and task, and every other metric that does not agree."""
    groups: dict[tuple[str, str], list[Gap]] = {}
    for gap in gaps:
        key = gap.status.cell
        groups.setdefault((gap.metric, f"{key.task}, {key.setting}"), []).append(gap)
    for (name, where), own in sorted(groups.items()):
        outside = sum(bool(gap.problem) for gap in own)
        if name in headline or outside:
            means = _mean(gap.claimed for gap in own), _mean(gap.measured for gap in own)
            yield Compared(where, name, *means, max(gap.size for gap in own), len(own), outside)


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return fmean(known) if known and len(known) == len(found) else None


def _add_flags(checked: CheckOutcome, submission: Submission, result: RescoreResult) -> None:
    """Add what the board's rules find in the measured scores: copies, collapse, another language."""
    from harness.ranking.flags import flags
    from harness.ranking.results import BASELINE, collect

    root, own = Path(SUBMISSIONS).resolve(), submission.card
    published = find_all(root)[0] if root.is_dir() and root != checked.folder.resolve().parent else []
    baselines = [
        run
        for other in [*checked.siblings, *published]
        if other.card.method.name in {"zero-shot", "few-shot"} and other.card.suite == own.suite
        for run in other.runs
        if other.card.name != own.name and _is_readable(run)
    ]
    for result_set in collect([*result.runs.values(), *baselines]):
        for entry, found in flags(result_set).items():
            row = result_set.entries[entry]
            rows = result_set.entries.values()
            has_baseline = any(r.entry.method.name == BASELINE and r.entry.model == row.entry.model for r in rows)
            for flag in found if row.entry.method == own.identity else ():
                if _report_flag(checked, row.name, flag, has_baseline):
                    result.flags.append(flag.words)


def _report_flag(checked: CheckOutcome, name: str, flag: Flag, has_baseline: bool) -> bool:
    """Report a flag: copies and pieces of held-out text are never right, everything else is for the board to show.

    Copies of other text say nothing unless it is known what the model recites unsteered (``has_baseline``).
    """
    from harness.scoring.metrics import COPIED, MEMBERSHIP, OVERLAP

    add, signs = checked.report.add, (COPIED, MEMBERSHIP, OVERLAP)
    if flag.metric.name in {sign.for_provider(split).name for sign in signs for split in ("test", "validation")}:
        add("problem", name, flag.words, "Submit texts that the model wrote.")
    elif flag.metric.name.startswith(f"{COPIED.name}/") and not has_baseline:
        add("note", name, flag.words, "No zero-shot of the same cells is available to compare with.")
        return False
    else:
        add("flag", name, flag.words, "The board shows the flag and gives no tier.")
    return True


def _is_readable(run: Run) -> bool:
    try:
        run.manifest()
        for cell in run.cell_ids():
            run.status(cell)
            run.scores(cell)
    except UserError:
        return False
    return True


def write_record(checked: CheckOutcome, result: RescoreResult, lock: LockFile) -> LockedSubmission:
    """Write the lockfile's entry of a rescored submission, and return it.

    Measured scores go to ``measured/NAME/`` next to the lockfile, for cells in which they differ from the submitted
    ones by more than rounding. Raises ``UserError`` as ``check_version``, and without a lockfile to write.
    """
    submission = checked.submission
    assert submission is not None
    lock.check_writable()
    check_version(submission, lock)
    card, files = submission.card, {}
    folder = lock.rescored(card.name)
    shutil.rmtree(folder, ignore_errors=True)
    for claimed in submission.runs:
        for path, content in _differing(claimed, result.runs[claimed.path.name]):
            write_json_gz(folder / path, content)
            files[path] = file_digest(folder / path)
    results = zip(card.results, submission.runs, strict=True)
    entry = LockedSubmission(
        version=card.version,
        badge="rescored",
        method=card.method_title,
        suite=card.suite_title,
        type=card.type,
        subject=card.subject,
        steerboard=__version__,
        parts=result.parts,
        unmeasured=result.unmeasured,
        agrees=not any(gap.problem for gap in result.gaps),
        flags=result.flags,
        results={r.folder: _published(submission, r, run, result.runs[r.folder]) for r, run in results},
        measured=files,
    )
    lock.put(card.name, entry)
    return entry


def _differing(claimed: Run, run: Run) -> Iterator[tuple[str, object]]:
    """Yield path and content of the files of the cells whose measured scores are not just the submitted ones."""
    for cell in run.cell_ids():
        scores, submitted = run.scores(cell), claimed.scores(cell)
        if scores is None:
            continue
        body = scores.model_copy(update={"kept": {}}).to_json()  # sizes of files that a submission does not have
        kept, claimed_kept = ({**r.text_checks(cell), **r.predictions(cell)} for r in (run, claimed))
        if not (submitted and alike(submitted.to_json(), body) and alike(claimed_kept, kept)):
            yield f"{claimed.path.name}/{cell}/scores.json.gz", body
            yield f"{claimed.path.name}/{cell}/predictions.json.gz", kept


def alike(one: object, other: object) -> bool:
    """Say whether two JSON values are equal but for the rounding of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    return one == other


def _published(submission: Submission, result: CardResult, claimed: Run, run: Run) -> PublishedResult:
    headline = f"macro_f1/{run.manifest().suite['classifiers'][0]}"
    values: dict[str, list[float | None]] = {}
    for cell in run.cell_ids():
        status, measured = run.status(cell), run.read_scores_fast(cell)
        if status is not None and measured is not None:
            value = next((score["value"] for score in measured["scores"] if score["metric"] == headline), None)
            values.setdefault(status.cell.setting, []).append(value)
    means = {setting: _mean(found) for setting, found in sorted(values.items())}
    return PublishedResult.model_validate(
        {
            "model": result.model,
            **coverage(claimed),
            "cells": sum(map(len, values.values())),
            **result_hashes(submission, result),
            "headline": headline,
            "means": {setting: None if mean is None else round(mean, _DIGITS) for setting, mean in means.items()},
        }
    )
