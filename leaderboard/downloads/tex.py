"""Text from outside in LaTeX and BibTeX: shown as it is, never run as a command."""

from __future__ import annotations

from harness.ranking.summary import strip_control

_ESCAPED = {sign: f"\\{sign}" for sign in "&%$#_"}
_ESCAPED |= {
    "\\": r"\textbackslash{}",
    # not \{ and \}: BibTeX counts braces, those behind a backslash, too
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "−": "$-$",
}


def tex(text: str) -> str:
    """Return text on one line with every sign that LaTeX or BibTeX would act on written out."""
    return "".join(_ESCAPED.get(sign, sign) for sign in strip_control(text))
