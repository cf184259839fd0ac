"""What models were asked: the suite's prompts, filled in as far as pages may show them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.languages import language
from harness.ranking.results import EntryRow
from leaderboard.boards import Board
from leaderboard.text import clean, name_of

_LONGEST = 2000
_SETTINGS = 6

Prompts = list[tuple[str, str]]
"""Setting and prompt, such as of few-shot."""


def settings_of(rows: Sequence[EntryRow]) -> list[str]:
    """Return the settings in which models were asked something; references were not."""
    asked = [str(row.entry.setting) for row in rows if row.entry.model]
    return list(dict.fromkeys(asked))[:_SETTINGS]


def prompts(board: Board, task: str, code: str, label: str, settings: Sequence[str]) -> Prompts:
    """Return the suite's prompt for a label by setting, without those that the manifest does not say.

    Demonstrations are human text, which no page shows: how many there were stands in their stead.
    """
    suite = board.cellset.manifest.suite
    try:
        templates = suite["definitions"][task][code]["prompts"]
        found = [(setting, templates[setting]) for setting in settings if setting in templates]
    except (KeyError, TypeError):
        return []
    values = {"{label}": label, "{language}": language(code).name, "{examples}": _examples(suite)}
    filled = []
    for setting, template in found:
        text = str(template)[:_LONGEST]
        for field, value in values.items():
            text = text.replace(field, value)
        filled.append((name_of(setting), clean(text, _LONGEST)))
    return filled


def _examples(suite: dict[str, object]) -> str:
    few_shot = suite.get("few_shot")
    shots = few_shot.get("shots") if isinstance(few_shot, dict) else None
    count = f"{shots} " if type(shots) is int and 0 < shots < 10_000 else ""
    return f"[{count}human texts of this label, not shown]"
