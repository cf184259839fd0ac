"""Scoring the texts of a submission from scratch, by the suite's own protocol, in a folder that goes away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from harness.core.cells import Cell
from harness.core.errors import UserError
from harness.core.records import CellStatus
from harness.core.store import Run
from harness.methods.registry import SUBMISSIONS
from harness.submissions.check import CheckOutcome
from harness.submissions.comparing import TOLERANCE, Gap, gaps, in_words, table
from harness.submissions.protocol import Protocol
from harness.submissions.report import Finding
from harness.submissions.strict_io import InvalidSubmissionError
from harness.submissions.submission import Submission, SubmittedRun, find_all

if TYPE_CHECKING:
    from rich.console import Console

    from harness.ranking.flags import Flag

_FLAGGED = "The board shows the flag and gives no tier."


@dataclass
class RescoreResult:
    """What was measured: folder of a model's results -> a run, valid until the block ends."""

    runs: dict[str, Run] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    unmeasured: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


@contextmanager
def rescored(checked: CheckOutcome, classifiers: list[str] | None, console: Console) -> Iterator[RescoreResult]:
    """Score all texts of a checked submission and add to its report what differs from the claim.

    ``classifiers``: instead of the suite's. Raises ``UserError`` where human text or a classifier is missing.
    """
    submission = checked.submission
    assert submission is not None
    measured = RescoreResult()
    with TemporaryDirectory(prefix="steerboard-check-") as temporary:
        for claimed in submission.runs:
            run = Run(Path(temporary) / claimed.folder)
            statuses = checked.statuses[claimed.folder]
            measured.parts = _score(run, claimed, statuses, checked.ground[claimed.folder], classifiers, console)
            measured.runs[claimed.folder] = run
            _compare(checked, claimed, run, measured)
        _audit(checked, submission, measured)
        yield measured


def _score(
    run: Run,
    claimed: SubmittedRun,
    statuses: dict[str, CellStatus],
    ground: Protocol,
    classifiers: list[str] | None,
    console: Console,
) -> list[str]:
    """Copy the texts into an empty run and score them; return the parts that did it."""
    from harness.runner.prepare import RunPlan
    from harness.runner.score import ScoringStage
    from harness.scoring.scorers import build_scorers

    if ground.corpus is None:
        raise UserError("the human text is not at hand. Give its folder with --data.")
    for cell, status in statuses.items():
        run.write_cell(cell, status, claimed.generations(cell) if status.state == "ok" else [])
    run.write_manifest(claimed.manifest())
    parts = build_scorers(ground.suite, ground.corpus, classifiers)
    cells = [Cell(status.cell) for status in statuses.values()]
    ScoringStage(RunPlan(run, ground.suite, ground.corpus, None, {}, cells, parts), console).run()
    return [part.name for part in parts]


def _compare(checked: CheckOutcome, claimed: SubmittedRun, run: Run, measured: RescoreResult) -> None:
    report, found = checked.report, []
    extra: set[str] = set()
    for cell, status in checked.statuses[claimed.folder].items():
        before, after = claimed.scores(cell), run.scores(cell)
        if before is None or after is None:
            continue
        if {*after.parts} - {*before.parts}:
            lacking = ", ".join(sorted({*after.parts} - {*before.parts}))
            todo = "Score the run with them: 'steerboard score', and pack it again."
            file = f"results/{claimed.folder}/{cell}/scores.json.gz"
            report.problem(file, f"lacks what the suite is scored by: {lacking}", todo)
        extra |= {*before.parts} - {*after.parts}
        found += list(gaps(status, before, after))
        found += _kept_gaps(status, claimed, run, cell)
    for name, wrong in in_words(found).items():
        key = wrong[0].status.cell
        place = f"{key.task}, {key.language}, {key.setting}, seed {key.seed}"
        what = f"{name} is not reproduced in {len(wrong)} cells; first {place}: {wrong[0].words}"
        report.problem(f"results/{claimed.folder}", what, "Score the run again with this steerboard, and pack it.")
    if extra:
        words = f"claimed and not measured here: {', '.join(sorted(extra))}"
        report.note(f"results/{claimed.folder}", words, "Name them with --classifier.")
    measured.unmeasured = sorted({*measured.unmeasured} | extra)
    measured.gaps += found
    report.compared += table(found, [f"macro_f1/{part.partition('/')[2]}" for part in measured.parts])
    report.tolerance = TOLERANCE


def _kept_gaps(status: CellStatus, claimed: SubmittedRun, run: Run, cell: str) -> Iterator[Gap]:
    """Yield classifiers of one seed, which are exact, whose claimed predictions are others than measured."""
    before, after = claimed.predictions(cell), run.predictions(cell)
    for part in sorted({*before} & {*after}):
        exact = all(len(seeds) == 1 for seeds in after[part]["predictions"].values())
        if exact and before[part] != after[part]:
            yield Gap(status, part, None, None, "predictions or test texts are not those that were measured")


def _audit(checked: CheckOutcome, submission: Submission, measured: RescoreResult) -> None:
    """Add what the board's rules find in the measured scores: copies, collapse, another language."""
    from harness.ranking.flags import flags
    from harness.ranking.results import BASELINE, collect

    roots = dict.fromkeys([checked.folder.resolve().parent, Path(SUBMISSIONS).resolve()])
    others = [other for root in roots if root.is_dir() for other in find_all(root)[0]]
    beside = [
        run
        for other in others
        if other.card.method.name in {"zero-shot", "few-shot"} and other.card.suite == submission.card.suite
        for run in other.runs
        if other.card.name != submission.card.name
    ]
    groups = collect([*measured.runs.values(), *_readable(beside)])
    own = submission.card.identity
    for cellset in groups:
        for entry, found in flags(cellset).items():
            row = cellset.entries[entry]
            based = any(
                other.entry.method.name == BASELINE and other.entry.model == row.entry.model
                for other in cellset.entries.values()
            )
            for flag in found if row.entry.method == own else ():
                if _report_flag(checked, row.name, flag, based):
                    measured.flags.append(flag.words)


def _report_flag(checked: CheckOutcome, name: str, flag: Flag, based: bool) -> bool:
    """Copies and pieces of held-out text are never right; what else the rules find is for the board to show.

    Copies of other text mean something beside what the model recites unsteered (``based``: that is known).
    """
    from harness.scoring.metrics import COPIED, MEMBERSHIP, OVERLAP

    signs = (COPIED, MEMBERSHIP, OVERLAP)
    if flag.metric.name in {sign.for_provider(split).name for sign in signs for split in ("test", "validation")}:
        checked.report.problem(name, flag.words, "Submit texts that the model wrote.")
    elif flag.metric.name.startswith(f"{COPIED.name}/") and not based:
        checked.report.note(name, flag.words, "No zero-shot of the same cells is at hand to compare with.")
        return False
    else:
        checked.report.findings.append(Finding("flag", name, flag.words, _FLAGGED))
    return True


def _readable(runs: Sequence[SubmittedRun]) -> list[SubmittedRun]:
    found = []
    for run in runs:
        try:
            run.manifest()
            for cell in run.cell_ids():
                run.status(cell)
                run.scores(cell)
        except InvalidSubmissionError:
            continue
        found.append(run)
    return found
