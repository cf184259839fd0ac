"""What a reader wants to know first, of a whole table or a part: is any steering better than zero-shot?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from harness.ranking.leaderboard_rows import RankedEntry
from harness.ranking.slices import SliceRanking
from harness.ranking.summary import SteeringAnswer, answer, format_number, in_words
from leaderboard.boards import Board
from leaderboard.families import row_kind
from leaderboard.text import counted, name_of

QUESTION = "Is any steering better than zero-shot?"


@dataclass(frozen=True)
class Headline:
    """The answer to ``QUESTION`` with its reasons, who has the highest mean, and by which rules.

    ``marked``: entries whose interval excludes 0 though they share the tier of their zero-shot; ``note`` says
    why both can be right.
    """

    verdict: str
    words: str
    ranking: str
    rules: str
    marked: list[str]
    note: str


def headline(board: Board, field: SliceRanking) -> Headline:
    """Return the headline of all or of one scope; all numbers are those of the ranking."""
    found = _answer(board, field)
    names = {row.row.id: name_of(row.row.name, 160) for row in board.standings.rows}
    verdict, words = in_words(found, names, name_of(board.headline.title))
    marked = _marked(board, field)
    many = counted(field.comparisons, "comparison")
    note = "† The interval excludes 0 although the entry shares the tier of zero-shot: tiers are corrected "
    note += f"for {many}, intervals are not."
    return Headline(verdict, words, _ranking(board, field), _rules(field), marked, note if marked else "")


def _answer(board: Board, field: SliceRanking) -> SteeringAnswer:
    """Ask of steering alone: baselines, controls, references and flagged entries are not compared."""
    asked = {
        row.row.id: field.gains[row.row.id]
        for row in board.standings.rows
        if row.row.id in field.gains and not row.flags and row_kind(row.row.entry) == "steering"
    }
    return answer(asked, board.headline.direction)


def _marked(board: Board, field: SliceRanking) -> list[str]:
    return [
        name
        for name, gain in field.gains.items()
        if name in field.tiers
        and field.tiers[name] == field.tiers.get(board.zero_shot.get(name, ""))
        and gain.low is not None
        and gain.high is not None
        and (gain.low > 0 or gain.high < 0)
    ]


def _rules(field: SliceRanking) -> str:
    """Say what makes a tier and how large a gain has to be to be found."""
    if field.reason:
        words = f"Not ranked: {name_of(field.reason, 300)}."
    else:
        words = (
            "Tiers: entries of a tier do not differ significantly from its first (paired differences, "
            f"corrected for {counted(field.comparisons, 'comparison')}, 5 %)."
        )
    effects = [gain.mde for gain in field.gains.values() if gain.mde]
    if effects:
        words += f" Detectable difference to zero-shot: {format_number(median(effects))} (median; 80 % power, 5 %)."
    return words


def _ranking(board: Board, field: SliceRanking) -> str:
    """Say which entry has the highest mean, and whether it differs from the next."""
    written = [row for row in board.standings.rows if not row.reference and row.row.id in field.position]
    if not written:
        return "No entry has all its cells here yet, so there is no mean to compare."
    rows = [row for row in written if not row.flags]
    if not rows:
        return "Every entry that has all its cells is flagged, so none is the best."
    rows.sort(key=lambda row: _order(board, field, row))
    first = rows[0]
    level = format_number(float(field.mean[field.position[first.row.id]]))
    words = f"Highest mean {name_of(board.headline.title)}: {name_of(first.row.name, 160)}, {level}."
    if field.reason:
        return words
    peers = [name_of(row.row.name, 160) for row in rows[1:] if field.tiers.get(row.row.id) == 1]
    if not peers:
        return f"{words} It differs significantly from every other entry."
    listed = ", ".join(peers[:3]) + (f" and {len(peers) - 3} more" if len(peers) > 3 else "")
    return f"{words} It does not differ significantly from {listed}: they share tier 1."


def _order(board: Board, field: SliceRanking, row: RankedEntry) -> tuple[bool, float]:
    """Return the key that brings the best of the first tier to the front."""
    name, sign = row.row.id, 1.0 if board.headline.direction == "down" else -1.0
    gain = field.gains.get(name)
    value = float(field.mean[field.position[name]])
    if board.standings.relative:
        value = gain.mean if gain else 0.0
    return (field.tiers.get(name) != 1, sign * value)
