"""Names that look like others: characters that nobody sees, and words that mix scripts (Unicode TR 39)."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

_UNSEEN = r"[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]"
"""Controls, formats, unassigned, ends of lines, and what may be left out when text is shown."""

_SCRIPTS = (
    *("Latin", "Greek", "Cyrillic", "Armenian", "Georgian", "Hebrew", "Arabic", "Ethiopic", "Cherokee"),
    *("Coptic", "Devanagari", "Bengali", "Tamil", "Thai"),
)
_TOGETHER = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Bopomofo}"
"""Scripts of East Asia, which are written within one word; every other word has one script."""


def unseen(text: str) -> bool:
    """Say whether a text holds a character that is not seen, or a mark without a letter before it."""
    unseen_at, _, _ = _patterns()
    return unseen_at.search(text) is not None


def check_lookalikes(name: str) -> None:
    """Raise ``ValueError`` for a name of somebody or something that can be taken for another."""
    _, word, mixed = _patterns()
    if unseen(name) or any(sign.isspace() and sign != " " for sign in name):
        raise ValueError("holds a character that is not seen")
    if unicodedata.normalize("NFKC", name) != unicodedata.normalize("NFC", name):
        raise ValueError("holds a character that only looks like a letter")
    for part in word.findall(name):
        if mixed.search(part):
            raise ValueError(f"mixes scripts within the word {part!a}")


@cache
def _patterns() -> tuple[Any, Any, Any]:
    """Return what finds unseen characters, words, and in a word a second script; regex is loaded late."""
    import regex

    groups = [rf"\p{{{name}}}" for name in _SCRIPTS] + [_TOGETHER]
    mixed = "|".join(rf"^(?=.*[{own}]).*[^{own}\p{{Common}}\p{{Inherited}}]" for own in groups)
    return (
        regex.compile(rf"{_UNSEEN}|(?:^|[^\p{{L}}\p{{M}}\p{{N}}])\p{{M}}"),
        regex.compile(r"[\p{L}\p{M}\p{N}]+"),
        regex.compile(mixed),
    )
