"""Texts in which a chat model speaks to the user: refusals, preambles, closing remarks, chat-template tokens.

Patterns find the common forms only. No native speaker has written or checked any but the English phrases; those of
other languages are in ``refusals.yaml``. A regret counts only with the rest ("I am sorry, but I cannot write"), since
reviews, too, are sorry.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import regex

from harness.core.reading import read_yaml

_OPENING = r"^[\s\"'“”„«»‘*#_>\-–—(]*+"
_REFUSES = rf"""{_OPENING}(
    (i['’]m\ |i\ am\ )?(very\ |so\ |truly\ |really\ )?(sorry|afraid)\b[,.;:\ ]+(but\ )?
    (as\ an?|(i|i['’]m|i\ am)\ (can|can['’]?t|cannot|could|couldn['’]t|don['’]t|do\ not|won['’]t|unable))\b
  | (i\ apologi[sz]e|unfortunately|my\ apologies)\b[^.\n]{{0,60}}
    \ (can['’]?t|cannot|unable|not\ able|won['’]t)\b
  | i\ ?(can['’]?t|cannot|won['’]t|will\ not|do\ not|don['’]t|(am|['’]m)\ (unable|not\ able)\ to)
    \ (fulfil|generate|provide|create|write|help|assist|comply|answer|produce|translate|engage|speak)
  | as\ an?\ (ai|artificial\ intelligence|(large\ )?language\ model|virtual\ assistant)\b
)"""
_TALKS = rf"""{_OPENING}(
    (sure|certainly|of\ course|absolutely|okay|ok|alright|understood|got\ it|no\ problem|great)\b
    (\ thing)?[!,.:\-–—\ ]+(here|below|let\ me|this\ is|the\ following|i['’](ll|d|m)|i\ (will|can))\b
  | (here|below|this|following|these)(['’]s|\ is|\ are|\ you\ go)\b[^\n]{{0,150}}:(\s|\*|$)
  | (the\ following|the|a|my)\ [^\n:]{{0,60}}
    \b(review|sentence|text|translation|response)\b[^\n:]{{0,60}}:(\s|\*|$)
  | (\p{{L}}+\ ){{0,2}}(review|sentence|text|output|response|answer|translation|topic|sentiment|label)
    \ ?\*{{0,2}}:
  | (assistant|user|system|model)\ *(:|\n)
)"""
_ANYWHERE = r"""
    <\|[a-z_]{2,30}\|> | <(start|end)_of_turn> | \[/?INST\] | </?s> | <(bos|eos|pad|unk)> | <</?SYS>>
  | \(\ {0,3}(english\ |literal\ )?(translation|translated|note|literally|meaning)\b\ *[:=)]
  | (^|[.!?።׃\n]\s{0,5})\**(translation|english\ translation|note|explanation)\ ?\**:
  | (^|[.!?።׃:\n]\s{0,5})(let\ me\ know\ if|would\ you\ like\ me\ to|do\ you\ want\ me\ to|feel\ free\ to
    |i\ hope\ this\ helps|is\ there\ anything\ else\ i)
"""


def is_refusal(text: str, code: str) -> bool:
    """Return whether a text starts as a refusal, in English or in the requested language."""
    return any(pattern.search(text) for pattern in _patterns(code)[0])


def has_chat_preamble(text: str, code: str) -> bool:
    """Return whether a text addresses the user around the requested text, or contains chat-template tokens.

    Preambles ("Sure! Here is a review:") and field names ("Review:") count at the start, in English or in the
    requested language; notes, translations and closing remarks anywhere, in English.
    """
    return any(pattern.search(text) for pattern in _patterns(code)[1])


@cache
def _patterns(code: str) -> tuple[list[Any], list[Any]]:
    """Return the patterns of refusals and of talk for a language; only English ones for an unlisted language."""
    refusals, talk = [_REFUSES], [_TALKS, _ANYWHERE]
    if phrases := read_yaml(Path(__file__).with_suffix(".yaml")).get(code):
        kinds = ("regret", "cannot", "role", "here", "sure")
        regret, cannot, role, here, sure = (phrases[kind].replace(" ", r"\ ") for kind in kinds)
        gap = r"[^.!?።\n]{0,60}"
        refusals.append(rf"{_OPENING}(({regret})\b{gap}({cannot})\b | \w{{0,8}}\ ?({cannot})\b | ({role})\b)")
        talk.append(rf"{_OPENING}(({sure})[!,.፣]+\ *({here})\b | ({here})\b[^.!?።\n]{{0,80}}[:፦](\s|\*|$))")
    flags = regex.VERBOSE | regex.IGNORECASE
    return [regex.compile(p, flags) for p in refusals], [regex.compile(p, flags) for p in talk]
