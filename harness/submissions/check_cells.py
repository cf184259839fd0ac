"""One cell of a submission: is it what its key says, and do its files agree with one another?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from harness.core.cells import cell_id, steering_id
from harness.core.records import CellKey, CellScores, CellStatus, Generation, Score
from harness.core.store import CLASSIFIER
from harness.data.suite import Suite
from harness.scoring.metrics import METRICS, metric
from harness.submissions import limits
from harness.submissions.folder import CELL_FILES
from harness.submissions.strict_io import InvalidSubmissionError
from harness.submissions.submission import SubmittedRun

_AGAIN = "Pack it again with 'steerboard submission pack'."
_REASON = 2_000
_TOKENS = 10**9
EXACT = 1e-6
"""How far two values of one calculation may lie apart."""


def check_key(status: CellStatus, cell: str, expected: dict[str, CellKey], file: str) -> None:
    """Raise ``InvalidSubmissionError`` where a cell is none of those that have to be, or not in its own folder."""
    if cell_id(status.cell) != cell:
        raise InvalidSubmissionError(
            file, "its key gives another id than its folder's: cells were swapped or edited", _AGAIN
        )
    if cell not in expected:
        near = min(expected.values(), key=lambda key: len(_differing(key, status.cell)), default=None)
        fields = ", ".join(_differing(near, status.cell)) if near else "everything"
        raise InvalidSubmissionError(file, f"is no cell of this method, suite and model (by {fields})", _AGAIN)


def _differing(one: CellKey, other: CellKey) -> list[str]:
    return [name for name in CellKey.model_fields if getattr(one, name) != getattr(other, name)]


def check_status(status: CellStatus, there: set[str], file: str) -> None:
    """Raise ``InvalidSubmissionError`` for a status that cannot be, or whose cell lacks files or has too many."""
    wanted = {*CELL_FILES} - {"status.json"} if status.state == "ok" else set()
    if there - {"status.json"} != wanted:
        names = ", ".join(sorted((there - {"status.json"}) ^ wanted))
        raise InvalidSubmissionError(
            file, f"the cell is {status.state}, but has not the files for that ({names})", _AGAIN
        )
    tokens = [status.prompt_tokens or 0, status.new_tokens or 0]
    numbers = [status.attempts, status.redraws, status.duplicates, *tokens]
    spent = [v for part in (status.fit or {}).values() if part for v in (part.seconds, part.tokens)]
    if not all(0 <= value <= _TOKENS for value in [*numbers, status.seconds, *spent]):
        raise InvalidSubmissionError(file, "holds a count or a time that cannot be", _AGAIN)
    if max(map(len, [status.reason, status.device, status.finished, *(status.fit or {})])) > _REASON:
        raise InvalidSubmissionError(file, f"holds a text of more than {_REASON:,} signs", "Shorten it.")
    if status.steering not in {None, steering_id(status.cell)}:
        raise InvalidSubmissionError(file, "its steering is not that of the cell's key", _AGAIN)


def check_texts(texts: Sequence[Generation], status: CellStatus, suite: Suite, file: str) -> None:
    """Raise ``InvalidSubmissionError`` where texts are not as many and in the order that the suite asks for."""
    key = status.cell
    labels = suite.task(key.task, key.language).labels
    places = [(label, index) for label in labels for index in range(key.texts_per_label)]
    if [(text.label, text.index) for text in texts] != places:
        n = key.texts_per_label
        what = f"does not hold {n} texts for each of {len(labels)} labels, in the suite's order"
        raise InvalidSubmissionError(file, what, _AGAIN)
    for number, text in enumerate(texts, 1):
        problem = _text_problem(text, key, suite)
        if problem:
            raise InvalidSubmissionError(f"{file}, line {number}", problem, _AGAIN)
    redraws = sum(text.attempts - 1 for text in texts)
    repeated = sum(text.duplicate for text in texts)
    if (redraws, repeated) != (status.redraws, status.duplicates):
        raise InvalidSubmissionError(file, "redraws or duplicates are not as many as status.json says", _AGAIN)
    for spent, counted in (
        (status.new_tokens, sum(text.n_new_tokens for text in texts)),
        (status.prompt_tokens, sum(text.n_prompt_tokens for text in texts)),
    ):
        if spent is not None and (spent < counted or (spent > counted and not redraws)):
            raise InvalidSubmissionError(file, "its tokens are not as many as status.json says", _AGAIN)


def _text_problem(text: Generation, key: CellKey, suite: Suite) -> str:
    if len(text.text) > limits.TEXT:
        return f"the text has {len(text.text):,} signs, above the bound of {limits.TEXT:,}"
    if (text.finish_reason == "reference") != (key.model is None):
        who = "no model" if key.model is None else "a model"
        return f"finish_reason {text.finish_reason!r} does not fit, for {who} wrote it"
    sampling = suite.sampling
    counts = 0 <= text.n_prompt_tokens <= _TOKENS and 0 <= text.n_new_tokens <= sampling.max_new_tokens
    if not counts or not 1 <= text.attempts <= sampling.max_attempts:
        return "a number of tokens or attempts is beyond what the suite allows"
    return ""


def check_scores(scores: CellScores, cell: str, texts_sha256: str, file: str) -> None:
    """Raise ``InvalidSubmissionError`` where scores are of other texts, or contradict one another."""
    if scores.cell_id != cell:
        raise InvalidSubmissionError(file, f"is of cell {scores.cell_id:.40}", _AGAIN)
    if scores.generations_sha256 != texts_sha256:
        raise InvalidSubmissionError(file, "is of other texts than those in generations.jsonl.gz", _SCORE)
    names = [score.metric for score in scores.scores]
    listed = [name for part in scores.parts.values() for name in part.metrics]
    if len(set(names)) < len(names) or sorted(names) != sorted(listed):
        raise InvalidSubmissionError(file, "its scores are not those that its parts list, each once", _SCORE)
    for score in scores.scores:
        problem = _score_problem(score)
        if problem:
            raise InvalidSubmissionError(file, f"{score.metric:.80}: {problem}", _SCORE)


_SCORE = "Score the run again with 'steerboard score', and pack it."


def _score_problem(score: Score) -> str:
    known = metric(score.metric)
    if known.name.partition("/")[0].partition(".")[0] not in METRICS:
        return "is no metric of steerboard"
    if (score.direction, score.unit) != (known.direction, known.unit):
        return f"has direction {score.direction} or unit {score.unit:.40}, not {known.direction}, {known.unit}"
    if score.by_seed and (score.value is None or abs(fmean(score.by_seed.values()) - score.value) > EXACT):
        return "its value is not the mean over the classifier's seeds"
    if score.interval and not score.interval[0] - EXACT <= score.interval[1]:
        return "its interval is upside down"
    return ""


def kept_problems(kept: dict[str, Any], scores: CellScores, labels: Sequence[str], n: int) -> Iterator[str]:
    """Yield what of the kept predictions and audits does not fit the scores and the number of texts."""
    if not {*kept} <= {*scores.parts}:
        yield "holds parts that scores.json.gz does not"
    values = {score.metric: score for score in scores.scores}
    for part, found in kept.items():
        if not isinstance(found, dict):
            yield f"{part:.60} is no object"
        elif part.startswith(CLASSIFIER):
            yield from _prediction_problems(part, found, values, labels)
        elif any(not isinstance(column, list) or len(column) != n for column in found.values()):
            yield f"{part:.60} is not of {n} texts"
    for part in scores.parts:
        if part.startswith(CLASSIFIER) and part not in kept:
            yield f"lacks the predictions of {part:.60}"


def _prediction_problems(
    part: str, found: dict[str, Any], values: dict[str, Score], labels: Sequence[str]
) -> Iterator[str]:
    gold, by_metric = found.get("gold"), found.get("predictions")
    if found.get("labels") != list(labels) or not isinstance(gold, list) or not isinstance(by_metric, dict):
        yield f"{part:.60} is not of the labels of the task"
        return
    for name, seeds in by_metric.items():
        score = values.get(name)
        if score is None or not isinstance(seeds, dict) or {*seeds} != {*score.by_seed}:
            yield f"{part:.60}: the seeds of {name:.60} are not those of the score"
            continue
        for seed, predicted in seeds.items():
            if not _indices([gold, predicted], len(labels)):
                yield f"{part:.60}: predictions of {name:.60} are no labels, or not one for every test text"
            elif not math.isclose(_macro_f1(gold, predicted, len(labels)), score.by_seed[seed], abs_tol=EXACT):
                yield f"{part:.60}: the predictions of seed {seed:.20} do not give the claimed {name:.60}"


def _indices(columns: Sequence[Any], n_labels: int) -> bool:
    fine = bool(columns[0]) and all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns)
    return fine and all(type(v) is int and 0 <= v < n_labels for column in columns for v in column)


def _macro_f1(gold: Sequence[int], predicted: Sequence[int], n_labels: int) -> float:
    from harness.scoring.calibration import macro_f1_of

    return float(macro_f1_of(gold, predicted, n_labels))


def check_cell_files(
    run: SubmittedRun, cell: str, there: set[str], expected: dict[str, CellKey], suite: Suite
) -> tuple[CellStatus, str]:
    """Return the status of a cell and the SHA-256 of its texts, empty for none.

    Raises ``InvalidSubmissionError`` for the first thing that is wrong.
    """
    root = f"results/{run.folder}/{cell}"
    status = run.status(cell)
    if status is None:
        raise InvalidSubmissionError(root, "has no status.json", _AGAIN)
    check_key(status, cell, expected, f"{root}/status.json")
    check_status(status, there, f"{root}/status.json")
    if status.state != "ok":
        return status, ""
    texts, sha256 = run.generations(cell), run.generations_digest(cell)
    check_texts(texts, status, suite, f"{root}/generations.jsonl.gz")
    if status.generations_sha256 not in {None, sha256}:
        raise InvalidSubmissionError(f"{root}/generations.jsonl.gz", "is not what status.json was written with", _AGAIN)
    scores = run.scores(cell)
    assert scores is not None  # check_status has seen the file
    check_scores(scores, cell, sha256, f"{root}/scores.json.gz")
    labels = suite.task(status.cell.task, status.cell.language).labels
    for what in kept_problems(run.kept(cell), scores, labels, len(texts)):
        raise InvalidSubmissionError(f"{root}/predictions.json.gz", what, _SCORE)
    return status, sha256
