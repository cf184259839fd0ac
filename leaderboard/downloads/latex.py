"""The ranking of a board as a LaTeX table, to be put into a paper by ``\\input``."""

from __future__ import annotations

from harness.ranking.stats.estimates import Estimate
from harness.ranking.stats.multiplicity import CORRECTION
from harness.ranking.summary import digits_of, format_interval, format_number
from harness.scoring.metrics import LANGUAGE_FIDELITY, VALID_SHARE, VENDI
from leaderboard.downloads.records import BoardFacts, EntryFacts, EstimateFacts
from leaderboard.downloads.tex import tex

_SIDES = (VENDI.for_provider("tfidf"), VALID_SHARE, LANGUAGE_FIDELITY)
_LONGEST = 600  # characters of a remark


def ranking_tex(board: BoardFacts, version: str) -> str:
    """Return a table of tier, entry, headline, gain with interval, diversity and validity, text escaped.

    It needs the package booktabs, and fonts for the scripts that names are written in.
    """
    headline = board.metric(board.headline)
    heads = ["Tier", "Entry", headline.title if headline else board.headline, "vs zero-shot [95 %]"]
    heads += [side.title.replace(" (tfidf)", "") for side in _SIDES]
    lines = [
        "% needs \\usepackage{booktabs}; names in other scripts than Latin: XeLaTeX or LuaLaTeX and a font",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{_caption(board, version)}}}",
        f"  \\label{{tab:{board.id}}}",
        r"  \begin{tabular}{rlrlrrr}",
        r"    \toprule",
        _row([tex(head) for head in heads]),
        r"    \midrule",
        *(_row(_cells(board, entry)) for entry in board.entries),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _caption(board: BoardFacts, version: str) -> str:
    """Return what the table shows and what a reader must know of it."""
    words = [f"{board.title}, by steerboard {version}."]
    if board.selection.narrowed:
        words.append(f"Narrowed run: {'; '.join(board.selection.narrowed)[:_LONGEST]}.")
    words.append(
        f"Not ranked: {board.reason[:_LONGEST]}."
        if board.reason
        else f"Entries of a tier do not differ significantly from its first (paired differences, {CORRECTION}, 5 %)."
    )
    return tex(" ".join(words))


def _cells(board: BoardFacts, entry: EntryFacts) -> list[str]:
    standing = entry.standing
    tier = str(standing.tier) if standing.tier is not None else "flag" if entry.flagged else "–"
    return [
        tex(tier),
        tex(entry.name),
        tex(format_number(standing.mean.mean if standing.mean else None)),
        tex(format_interval(_estimate(standing.over_zero_shot))),
        *(tex(format_number(board.mean(entry.id, side.name), digits_of(side.name))) for side in _SIDES),
    ]


def _estimate(found: EstimateFacts | None) -> Estimate | None:
    return None if found is None else Estimate(found.mean, low=found.low, high=found.high)


def _row(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"
