"""References in BibTeX: the methods of boards, this program, and the paper whose protocol it follows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from string import Template

from harness.core.files import digest
from harness.core.terminal import strip_control
from leaderboard.downloads.records import BoardFacts, ResultFile
from leaderboard.text import ASSETS

REFERENCES = Template((ASSETS / "references.bib").read_text(encoding="utf-8"))
"""The program and the paper as in CITATION.cff, which is not part of an installed package; a test compares them."""

_ARXIV = re.compile(r"arxiv(?:\.org/(?:abs|pdf)/|[:\s]\s*)(\d{4}\.\d{4,5})", re.IGNORECASE)
_URL = re.compile(r"https?://[A-Za-z0-9./:?=&+,;@!~%_-]+")
_SOURCE = re.compile(r"\s*\(?\bsource:.*$", re.IGNORECASE)
_KEYED = re.compile(r"[^A-Za-z0-9]+")


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
    """Return text on one line with every character that LaTeX or BibTeX would interpret escaped."""
    return "".join(_ESCAPED.get(sign, sign) for sign in strip_control(text))


@dataclass
class _Method:
    """A method over all boards that hold it."""

    note: str
    versions: set[str] = field(default_factory=set)
    suites: set[str] = field(default_factory=set)


def methods_bib(found: ResultFile) -> str:
    """Return one entry per method name, without references, in the order of the names.

    No author is named except by CITATION.cff: a run records what a method does and its source, not its authors.
    """
    version = found.generator.version
    methods = [_misc(name, method, version) for name, method in sorted(_methods(found).items())]
    return "\n".join([REFERENCES.substitute(version=version), *methods])


def citations(found: ResultFile) -> dict[str, str]:
    """Return board id -> its citation: the board as of its date, the program, and the paper."""
    shared = REFERENCES.substitute(version=found.generator.version)
    return {board.id: f"{_board(found, board)}\n{shared}" for board in found.boards}


def method_citations(found: ResultFile) -> dict[str, dict[str, str]]:
    """Return board id -> method name -> citation of the method and the board; without references."""
    methods, version = _methods(found), found.generator.version
    return {
        board.id: {
            name: "\n".join([_misc(name, methods[name], version), _board(found, board)])
            for name in dict.fromkeys(entry.method.name for entry in board.entries)
            if name in methods
        }
        for board in found.boards
    }


def key_of(name: str) -> str:
    """Return the key of a method: ASCII letters, digits and dashes, different for different names."""
    plain = _KEYED.sub("-", name)[:60].strip("-")
    mark = digest(name.encode("utf-8", "replace").hex(), 6)
    return f"steerboard-{plain}" if plain == name else f"steerboard-{plain}-{mark}".replace("--", "-")


def _methods(found: ResultFile) -> dict[str, _Method]:
    methods: dict[str, _Method] = {}
    for board in found.boards:
        for entry in board.entries:
            if entry.family != "reference":
                method = methods.setdefault(entry.method.name, _Method(entry.note))
                method.note = method.note or entry.note
                method.versions.add(entry.method.version)
                method.suites.add(_suite(board))
    return methods


def _misc(name: str, method: _Method, version: str) -> str:
    """Return a method's entry; its source only where its description names one."""
    words = _SOURCE.sub("", method.note).strip(" .")
    arxiv, url = _ARXIV.search(method.note), _URL.search(method.note)
    versions, suites = _listed("version", method.versions), _listed("suite", method.suites)
    fields = {
        "title": f"{{{tex(f'{name}: {words}' if words else name)}}}",
        "key": tex(name),
        "eprint": arxiv[1] if arxiv else "",
        "archivePrefix": "arXiv" if arxiv else "",
        "url": url[0].rstrip(".,;:!?") if url else "",
        "note": tex(f"Steering method, {versions}, as run by steerboard {version} on {suites}"),
    }
    return _entry(key_of(name), fields)


def _board(found: ResultFile, board: BoardFacts) -> str:
    """Return the entry of a board, with its date: its numbers change with every run that joins."""
    fields = {
        "title": f"{{{tex(f'Leaderboard of steering methods: {board.title}')}}}",
        "author": "{steerboard maintainers}",
        "year": found.date[:4],
        "note": tex(
            f"Board {board.id}, suite {_suite(board)}, hash {board.suite.hash}, {len(board.entries)} entries, "
            f"{f'as of {found.date}, ' if found.date else ''}built by steerboard {found.generator.version}"
        ),
    }
    return _entry(key_of(board.id), fields)


def _suite(board: BoardFacts) -> str:
    version = board.suite.version
    return board.suite.name if version is None else f"{board.suite.name} (version {version})"


def _listed(noun: str, names: Iterable[str]) -> str:
    ordered = sorted(names)
    return f"{noun if len(ordered) == 1 else f'{noun}s'} {', '.join(ordered)}"


def _entry(key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *lines, "}", ""])
