"""Separation of languages in a model before and after steering, and its correlation with the gain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.core.errors import UserError
from harness.core.files import canonical_json
from harness.core.languages import language
from harness.core.records import MethodIdentity, ModelIdentity
from harness.ranking.gains import LEVEL
from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.summary import format_number, format_signed, p_equals
from harness.tracks.separation import FOLDER, Separation, read_separation, separation_with_gain
from leaderboard.boards import Board
from leaderboard.charts import lines
from leaderboard.text import counted, name_of

_FILES = 1000  # of a run that are read
_BYTES = 2**26  # of all files that are read; one of eleven languages and eighty layers has some 2**15
_FIGURES = 12  # of a page
_NAMED = 4  # entries whose gains are shown with a figure: settings of one method


def stored(board: Board) -> list[Separation]:
    """Return the separations in the runs of a board; unreadable ones are left out."""
    folders = dict.fromkeys(run.path / FOLDER for run, _ in board.result_set.cells.values())
    found, left = [], _BYTES
    for path in (path for folder in folders for path in sorted(folder.glob("*.json"))[:_FILES]):
        try:
            left -= path.stat().st_size
            if left >= 0:
                found.append(read_separation(path))
        except (UserError, OSError):
            continue
    return found


def separations(board: Board, method: str, known: Iterable[Separation]) -> dict[str, Any] | None:
    """Return the pictures of a method, and how many ``more`` there are; None where nothing was measured.

    A picture is of one config on one model: both lines, a summary in words, and the numbers behind them.
    ``layers``: layer, before, after, change, whether it is changed. ``languages``: name, before, after and
    change, as means from the first changed layer on, then the gain of every entry in ``entries``.
    """
    measured: dict[str, list[Separation]] = {}
    for item in known:
        if item.task in board.result_set.manifest.selection.tasks:
            measured.setdefault(_key(item.method, item.model), []).append(item)
    entries: dict[str, list[RankedEntry]] = {}
    for standing in board.standings.rows:
        entry = standing.row.entry
        if entry.model and entry.method.name == method:
            entries.setdefault(_key(entry.method, entry.model), []).append(standing)
    pictures = [
        _picture(board, items, standings)
        for key, standings in entries.items()
        for items in _by_numbers(measured.get(key, ()))
    ]
    return {"pictures": pictures[:_FIGURES], "more": max(len(pictures) - _FIGURES, 0)} if pictures else None


def _key(method: MethodIdentity, model: ModelIdentity) -> str:
    return canonical_json([method.model_dump(mode="json"), model.model_dump(mode="json")])


def _by_numbers(items: Iterable[Separation]) -> list[list[Separation]]:
    """Return one separation per task, the one of most text; tasks of equal numbers (equal fits) together."""
    best: dict[str, Separation] = {}
    for item in sorted(items, key=lambda item: (len(item.languages), item.sentences)):
        best[item.task] = item
    groups: dict[str, list[Separation]] = {}
    for _, item in sorted(best.items()):
        numbers = [item.steered, item.before_by_language, item.after_by_language, item.before, item.after]
        groups.setdefault(canonical_json(numbers), []).append(item)
    return list(groups.values())


def _picture(board: Board, items: Sequence[Separation], standings: Sequence[RankedEntry]) -> dict[str, Any]:
    item, tasks = items[0], [item.task for item in items]
    names = [name_of(standing.row.name, 120) for standing in standings[:_NAMED]]
    gains = [_gains(board, tasks, standing) for standing in standings[:_NAMED]]
    before, after = item.before_by_language, item.after_by_language
    return {
        "title": f"Separation of {counted(len(item.languages), 'language')} by layer: {names[0]}",
        "caption": name_of(
            f"{' and '.join(names)}, {item.model.name}, {' and '.join(tasks)}: "
            f"{item.sentences:,} sentences of each of {len(item.languages)} languages",
            400,
        ),
        "sentence": _summary(board, item, list(zip(names, gains, strict=True))),
        "chart": lines(item.before, item.after, item.steered, "mean silhouette"),
        "layers": [
            (layer, format_number(old), format_number(new), format_signed(new - old), layer in item.steered)
            for layer, (old, new) in enumerate(zip(item.before, item.after, strict=True))
        ],
        "languages": [
            (
                name_of(language(code).name),
                *(format_number(item.from_steered(side[code])) for side in (before, after)),
                format_signed(item.changes[code]),
                [format_signed(own.get(code)) for own in gains],
            )
            for code in item.languages
        ],
        "entries": names,
        "left_out": [f"{name_of(language(code).name)}: {name_of(why, 200)}" for code, why in item.left_out.items()],
    }


def _gains(board: Board, tasks: Sequence[str], standing: RankedEntry) -> dict[str, float]:
    """Return the gain over zero-shot by language, as a mean over these tasks."""
    if set(tasks) == set(board.result_set.manifest.selection.tasks):
        return {code: cell.gain.mean for code, cell in standing.languages.items()}
    name, found = standing.row.id, {}
    for code in board.axes["language"]:
        slices = [board.slice(task, code) for task in tasks]
        known = [ranking.estimate(name, board.zero_shot.get(name)) if ranking else None for ranking in slices]
        means = [estimate.mean for estimate in known if estimate]
        if means and len(means) == len(known):
            found[code] = sum(means) / len(means)
    return found


def _summary(board: Board, item: Separation, gains: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Return the change of the separation, and its correlation with the gain."""
    words = [
        f"From layer {min(item.steered)} on, the first that is changed, the mean silhouette changes by "
        f"{format_signed(item.change)}."
    ]
    headline, lower = board.headline, board.headline.direction == "down"
    for name, own in gains:
        better = {code: -value if lower else value for code, value in own.items()}
        found = separation_with_gain(item.changes, better)
        if found is None:
            words.append(f"No correlation with the gain of {name}: it takes four languages that differ.")
        else:
            p = p_equals(found.p)
            chance = "; not significant" if found.p > LEVEL else ""
            words.append(
                f"Over {found.n} languages it correlates with the gain of {name} in {name_of(headline.title)} "
                f"with rho = {format_signed(found.rho, 2)} (Spearman, {p}{chance})."
            )
    return " ".join(words)
