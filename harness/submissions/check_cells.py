"""Check one cell of a submission: it is what its key says, and its files agree with one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from harness.core.cells import cell_id, steering_id
from harness.core.errors import DamagedFileError
from harness.core.records import CellKey, CellScores, CellStatus, Generation, Score
from harness.core.store import CLASSIFIER, CURVE, Run
from harness.data.suite import Suite
from harness.data.tables import MAX_TEXT_LENGTH
from harness.scoring.metrics import METRICS, metric
from harness.submissions.files import CELL_FILES, TEXTS, InvalidSubmissionError, submission_errors

EXACT = 1e-6
"""How far two values of one calculation may differ."""

_MAX_REASON = 2_000  # characters
_MAX_TOKENS = 10**9
_SCORE_AGAIN = "Score the run again with 'steerboard score', and pack it."


def check_cell(
    run: Run, cell: str, files: set[str], expected: dict[str, CellKey], suite: Suite
) -> tuple[CellStatus, str]:
    """Return the status of a cell and the SHA-256 of its texts, empty for none.

    ``files``: the names of its files; ``expected``: the keys that there have to be. Raises
    ``InvalidSubmissionError`` for the first thing that is wrong.
    """
    root = f"results/{run.path.name}/{cell}"
    with submission_errors():
        status = run.status(cell)
        if status is None:
            raise InvalidSubmissionError(root, "has no status.json")
        _check_key(status, cell, expected, f"{root}/status.json")
        _check_status(status, files, f"{root}/status.json")
        if status.state != "ok":
            return status, ""
        path, texts_sha256 = f"{root}/{TEXTS}", run.generations_digest(cell)
        try:
            texts = run.generations(cell)
        except DamagedFileError:
            raise InvalidSubmissionError(path, "is not what status.json was written with") from None
        _check_texts(texts, status, suite, path)
        scores = run.scores(cell)
        assert scores is not None  # _check_status has seen the file
        _check_scores(scores, cell, texts_sha256, f"{root}/scores.json.gz")
        kept = {**run.text_checks(cell), **run.predictions(cell)}
    labels = suite.task(status.cell.task, status.cell.language).labels
    for problem in _kept_problems(kept, scores, labels, len(texts)):
        raise InvalidSubmissionError(f"{root}/predictions.json.gz", problem, _SCORE_AGAIN)
    return status, texts_sha256


def _check_key(status: CellStatus, cell: str, expected: dict[str, CellKey], path: str) -> None:
    if cell_id(status.cell) != cell:
        raise InvalidSubmissionError(path, "its key gives another id than its directory: cells were swapped or edited")
    if cell not in expected:
        differing = [
            [name for name in CellKey.model_fields if getattr(key, name) != getattr(status.cell, name)]
            for key in expected.values()
        ]
        nearest: list[str] = min(differing, key=len, default=["everything"])
        raise InvalidSubmissionError(path, f"is not a cell of this method, suite and model (by {', '.join(nearest)})")


def _check_status(status: CellStatus, files: set[str], path: str) -> None:
    wanted = {*CELL_FILES} - {"status.json"} if status.state == "ok" else set()
    if wrong := (files - {"status.json"}) ^ wanted:
        names = ", ".join(sorted(wrong))
        raise InvalidSubmissionError(path, f"the cell is {status.state}, but has not the files for that ({names})")
    numbers = [status.attempts, status.redraws, status.duplicates, status.prompt_tokens or 0, status.new_tokens or 0]
    used = [value for part in (status.fit or {}).values() if part for value in (part.seconds, part.tokens)]
    if not all(0 <= value <= _MAX_TOKENS for value in [*numbers, status.seconds, *used]):
        raise InvalidSubmissionError(path, "holds an impossible count or time")
    if max(map(len, [status.reason, status.device, status.finished, *(status.fit or {})])) > _MAX_REASON:
        raise InvalidSubmissionError(path, f"holds a text of more than {_MAX_REASON:,} characters", "Shorten it.")
    if status.steering not in {None, steering_id(status.cell)}:
        raise InvalidSubmissionError(path, "its steering is not that of the cell's key")


def is_in_order(texts: Sequence[Generation], key: CellKey, suite: Suite) -> bool:
    """Say whether a cell has its number of texts for every label, in the suite's order."""
    labels = suite.task(key.task, key.language).labels
    expected = [(label, index) for label in labels for index in range(key.texts_per_label)]
    return [(text.label, text.index) for text in texts] == expected


def _check_texts(texts: Sequence[Generation], status: CellStatus, suite: Suite, path: str) -> None:
    key = status.cell
    if not is_in_order(texts, key, suite):
        n_labels = len(suite.task(key.task, key.language).labels)
        problem = f"does not hold {key.texts_per_label} texts for each of {n_labels} labels, in the suite's order"
        raise InvalidSubmissionError(path, problem)
    for number, text in enumerate(texts, 1):
        for problem in _text_problems(text, status, suite):
            raise InvalidSubmissionError(f"{path}, line {number}", problem)
    redraws = sum(text.attempts - 1 for text in texts)
    if (redraws, sum(text.duplicate for text in texts)) != (status.redraws, status.duplicates):
        raise InvalidSubmissionError(path, "redraws or duplicates are not as many as status.json says")
    for used, counted in (
        (status.new_tokens, sum(text.n_new_tokens for text in texts)),
        (status.prompt_tokens, sum(text.n_prompt_tokens for text in texts)),
    ):
        if used is not None and (used < counted or (used > counted and not (redraws or status.prompts))):
            raise InvalidSubmissionError(path, "its tokens are not as many as status.json says")


def _text_problems(text: Generation, status: CellStatus, suite: Suite) -> Iterator[str]:
    key, longest = status.cell, suite.sampling.max_new_tokens
    for options in status.prompts.sampling if status.prompts else ():
        longest = max(longest, int(min(options.get("max_new_tokens", 0), _MAX_TOKENS)))
    if len(text.text) > MAX_TEXT_LENGTH:
        yield f"the text has {len(text.text):,} characters, above the bound of {MAX_TEXT_LENGTH:,}"
    if (text.finish_reason == "reference") != (key.model is None):
        who = "no model" if key.model is None else "a model"
        yield f"finish_reason {text.finish_reason!r} does not fit, for {who} wrote it"
    counts = 0 <= text.n_prompt_tokens <= _MAX_TOKENS and 0 <= text.n_new_tokens <= longest
    if not counts or not 1 <= text.attempts <= suite.sampling.max_attempts:
        yield "a number of tokens or attempts is beyond what the suite allows"


def _check_scores(scores: CellScores, cell: str, texts_sha256: str, path: str) -> None:
    if scores.cell_id != cell:
        raise InvalidSubmissionError(path, f"is of cell {scores.cell_id:.40}")
    if scores.generations_sha256 != texts_sha256:
        raise InvalidSubmissionError(path, f"is of other texts than those in {TEXTS}", _SCORE_AGAIN)
    names = [score.metric for score in scores.scores]
    listed = [name for part in scores.parts.values() for name in part.metrics]
    if len({*names}) < len(names) or sorted(names) != sorted(listed):
        raise InvalidSubmissionError(path, "its scores are not those that its parts list, each once", _SCORE_AGAIN)
    for score in scores.scores:
        for problem in _score_problems(score):
            raise InvalidSubmissionError(path, f"{score.metric:.80}: {problem}", _SCORE_AGAIN)


def _score_problems(score: Score) -> Iterator[str]:
    known = metric(score.metric)
    if known.name.partition("/")[0].partition(".")[0] not in METRICS:
        yield "is not a metric of steerboard"
    if (score.direction, score.unit) != (known.direction, known.unit):
        yield f"has direction {score.direction} or unit {score.unit:.40}, not {known.direction}, {known.unit}"
    if score.by_seed and (score.value is None or abs(fmean(score.by_seed.values()) - score.value) > EXACT):
        yield "its value is not the mean over the classifier's seeds"
    if score.interval and not score.interval[0] - EXACT <= score.interval[1]:
        yield "its interval is upside down"


def _kept_problems(kept: dict[str, Any], scores: CellScores, labels: Sequence[str], n: int) -> Iterator[str]:
    """Yield which predictions and records of texts do not fit the scores and the number of texts."""
    if not {*kept} <= {*scores.parts}:
        yield "holds parts that scores.json.gz does not"
    values = {score.metric: score for score in scores.scores}
    for part, found in kept.items():
        if not isinstance(found, dict):
            yield f"{part:.60} is not an object"
        elif part.startswith((CLASSIFIER, CURVE)):
            yield from _prediction_problems(part, found, values, labels)
        elif any(not isinstance(column, list) or len(column) != n for column in found.values()):
            yield f"{part:.60} is not of {n} texts"
    for part in scores.parts:
        if part.startswith((CLASSIFIER, CURVE)) and part not in kept:
            yield f"the predictions of {part:.60} are missing"


def _prediction_problems(
    part: str, found: dict[str, Any], values: dict[str, Score], labels: Sequence[str]
) -> Iterator[str]:
    from harness.scoring.classification import macro_f1_of

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
            if not _are_labels([gold, predicted], len(labels)):
                yield f"{part:.60}: predictions of {name:.60} are not labels, or not one for every test text"
            elif not math.isclose(macro_f1_of(gold, predicted, len(labels)), score.by_seed[seed], abs_tol=EXACT):
                yield f"{part:.60}: the predictions of seed {seed:.20} do not give the claimed {name:.60}"


def _are_labels(columns: Sequence[Any], n_labels: int) -> bool:
    sizes = {len(column) if isinstance(column, list) else 0 for column in columns}
    return (
        len(sizes) == 1
        and sizes != {0}
        and all(type(value) is int and 0 <= value < n_labels for column in columns for value in column)
    )
