"""A submission beside others: names that look alike, and two submissions of one entry of the board."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.methods.registry import BUILT_IN
from harness.submissions.card import Card, read_card
from harness.submissions.folder import CARD, listed
from harness.submissions.strict_io import InvalidSubmissionError

_SEPARATORS = re.compile(r"[-_.]+")
_ALIKE = str.maketrans("01I", "oll")


def skeleton(name: str) -> str:
    """Return what a name of ASCII signs looks like: equal for names that a reader may confuse.

    As in the confusables of Unicode Technical Standard 39 for ASCII (0 and O, 1 and l and I, rn and m),
    without regard to case, and with one separator for all. Names of submissions have no other signs.
    """
    return _SEPARATORS.sub("-", name.translate(_ALIKE).lower().replace("rn", "m"))


def cards_beside(folder: Path) -> list[Card]:
    """Return the cards of the other submissions in the directory of a submission that can be read."""
    found = []
    try:
        paths = listed(folder.resolve().parent)[0]
    except InvalidSubmissionError:
        return []
    for path in paths:
        if path.name != folder.resolve().name:
            try:
                found.append(read_card(path))
            except InvalidSubmissionError:
                continue
    return found


def clashes(card: Card, others: Iterable[Card]) -> Iterator[InvalidSubmissionError]:
    """Yield why a submission cannot stand beside built-in methods and other submissions."""
    names = [*BUILT_IN]
    own = _entries(card)
    for other in others:
        names += [other.name, other.method.name]
        if own & _entries(other):
            what = f"its entry (method, version, options, suite and model) is that of submission {other.name}"
            yield InvalidSubmissionError(CARD, what, "Submit a method or a model that is not there yet.")
    for kind, name in {"name": card.name, "method's name": card.method.name}.items():
        like = next((known for known in names if known != name and skeleton(known) == skeleton(name)), None)
        if like is not None:
            yield InvalidSubmissionError(CARD, f"the {kind} {name!r} looks like {like!r}", "Choose another name.")


def _entries(card: Card) -> set[str]:
    """Return what the board tells entries apart by, of every model."""
    method = card.identity.model_dump_json()
    models = [model.model_dump_json() for model in map(card.model, card.results) if model]
    return {f"{card.suite.name} {card.suite.hash} {method} {model}" for model in (models or [""])}
