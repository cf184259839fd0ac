"""The form in which texts are compared: without characters that a reader does not see, look-alikes as one letter.

Somebody who copies a text can insert invisible characters (U+034F, variation selectors, Hangul fillers), add marks
to letters, or use letters of another script that look the same: it is still the same text. Sources: Unicode's
property Default_Ignorable_Code_Point and its confusables (UTS 39), as packaged by ``confusable_homoglyphs``.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from typing import Any

import regex

from harness.data.corpus import normalise

_SILENT = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}\p{Co}\p{Cn}[\p{Cc}--\s]]+", regex.V1)
_ODD = regex.compile(r"[^\x00-\x7f]")
_BETWEEN = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
_FOLDED = 2**14  # texts whose folded form is remembered: the parts of scoring ask for the same ones
_SIGN = regex.compile(r"[\p{L}\p{N}]")
_LETTER = regex.compile(r"\p{L}")

# Marks that no letter is composed with, and optional marks: Hebrew points and Ethiopic gemination.
_OPTIONAL = regex.compile(
    r"[[\p{Mn}\p{Me}]&&\p{Script=Inherited}\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u135d-\u135f]+",
    regex.V1,
)
_SCRIPTS = ("Latin", "Ethiopic", "Hebrew", "Cyrillic", "Greek", "Arabic", "Armenian")

# Amharic letters of one sound, which are interchangeable in spelling: each in its seven orders.
_SAME_SOUND = {
    first + order: same + order
    for first, same in ((0x1210, 0x1200), (0x1280, 0x1200), (0x1220, 0x1230), (0x12D0, 0x12A0), (0x1340, 0x1338))
    for order in range(7)
}

# Not hidden: emoji are joined and coloured by such characters, and directional marks belong to Hebrew.
_PICTURE = r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}\u20e3#*0-9]"
_EMOJI = regex.compile(rf"(?<={_PICTURE})[\u200d\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f]+")
_EXPECTED = regex.compile(r"^\ufeff|[\u200e\u200f\u061c]")
_UNSEEN = regex.compile(r"[\p{Default_Ignorable_Code_Point}[\p{Cc}--\s]]", regex.V1)
_MARK = regex.compile(r"(?<=\p{L}\p{M}*)[\p{Mn}\p{Me}]")
_WORD = regex.compile(r"[\p{L}\p{M}]+")


@lru_cache(maxsize=_FOLDED)
def plain(text: str) -> str:
    """Fold a text for comparison: case, invisible characters, stray marks and look-alikes do not count.

    Single blanks, NFKC; letters that look like one of the text's main script become that letter. Accents that belong to
    a letter are kept: short texts with and without them are often by two people.
    """
    if not _ODD.search(text):
        return " ".join(_SILENT.sub("", text).casefold().split())
    composed = unicodedata.normalize("NFKC", _SILENT.sub("", text))
    whole = unicodedata.normalize("NFKC", composed.casefold())
    # NFKC may bring invisible characters back: some compatibility forms stand for a filler.
    whole = _SILENT.sub("", _OPTIONAL.sub("", whole))
    return " ".join((whole if whole.isascii() else _without_look_alikes(whole)).split())


def normalise_for_matching(text: str) -> str:
    """Return the letters, marks and digits of a folded text, in words with one blank between.

    Of a text without any, such as one of emoji, the normal form.
    """
    words = _BETWEEN.sub(" ", plain(text)).strip()
    return words if _SIGN.search(words) else normalise(text)


def hides(text: str) -> bool:
    """Return whether a text contains invisible characters or look-alike letters.

    These are controls and characters that Unicode calls ignorable, where neither emoji nor writing direction need them;
    marks that are not part of a composed letter; and words in which a letter of another script replaces one of the
    text's main script.
    """
    if not _ODD.search(text):
        return bool(_UNSEEN.search(text))
    rest = _EXPECTED.sub("", _EMOJI.sub("", text))
    if _UNSEEN.search(rest):
        return True
    script = _main_script(rest)
    whole = unicodedata.normalize("NFC", rest)
    if any(not _of(script, mark) for mark in _MARK.findall(whole)):
        return True
    # Where every letter is of the script, no word needs a closer look.
    foreign = script and _foreign_letter(script).search(whole)
    return bool(foreign) and any(_mixed(word, script) for word in _WORD.findall(whole))


def _without_look_alikes(text: str) -> str:
    """Replace look-alikes by letters of the text's main script."""
    script = _main_script(text)
    table = _look_alikes(script)
    if script == "Latin":
        return text.translate(table)
    if not table.keys().isdisjoint(map(ord, set(text))):
        # English words stay as they are: ASCII letters are look-alikes only in a word with letters of the script.
        own = _letters_of(script)
        pieces = [piece.translate(table) if own.search(piece) else piece for piece in regex.split(r"(\s+)", text)]
        text = "".join(pieces)
    return text.translate(_SAME_SOUND)


def _mixed(word: str, script: str) -> bool:
    """Return whether a word is of the main script except for letters that look like it."""
    foreign = _letters_of(script).sub("", word)
    if not foreign or len(foreign) == len(word):
        return False
    similar = _look_alikes(script)
    return all(ord(sign.casefold()[0]) in similar for sign in foreign)


def _of(script: str, sign: str) -> bool:
    return bool(script) and bool(_letters_of(script).fullmatch(sign))


def _main_script(text: str) -> str:
    """Return the script of most letters of a text if its look-alikes are known, else an empty string."""
    total = len(_LETTER.findall(text))
    for script in _SCRIPTS:
        if total and 2 * len(_letters_of(script).findall(text)) > total:
            return script
    return ""


@cache
def _letters_of(script: str) -> Any:
    return regex.compile(rf"[\p{{L}}\p{{M}}&&\p{{Script={script}}}]", regex.V1)


@cache
def _foreign_letter(script: str) -> Any:
    return regex.compile(rf"[\p{{L}}\p{{M}}--\p{{Script={script}}}]", regex.V1)


@cache
def _look_alikes(script: str) -> dict[int, str]:
    """Return letters (code points) that look like a letter of a script -> that letter, all in lower case.

    Letters of Latin script beyond ASCII count as look-alikes of ASCII letters, such as ``ɑ`` and ``ı``.
    """
    from confusable_homoglyphs.confusables import confusables_data

    found: dict[int, str] = {}
    if not script:
        return found
    own = _letters_of(script)
    for upper in (False, True):  # the look of the small letter comes first
        for sign, others in confusables_data.items():
            folded = sign.casefold()
            if (sign != folded) is not upper or len(folded) != 1 or not folded.isalpha():
                continue
            if folded.isascii() if script == "Latin" else own.fullmatch(folded):
                continue
            alike = [other["c"].casefold() for other in others if len(other["c"]) == 1]
            alike = [c for c in alike if own.fullmatch(c) and (script != "Latin" or c.isascii())]
            if alike:
                found.setdefault(ord(folded), min(alike))
    return found
