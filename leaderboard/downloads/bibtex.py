"""References in BibTeX: the methods of boards, this program, and the paper whose protocol it follows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.core.files import digest
from leaderboard.downloads.records import BoardFacts, ResultFile
from leaderboard.downloads.tex import tex

TITLE = "steerboard"
ABSTRACT = "Benchmark and leaderboard harness for steering methods in multilingual synthetic-data generation"
AUTHOR = "steerboard maintainers"
PAPER = "Want Better Synthetic Data? Steer It: Activation Steering for Low-Resource Language Generation"
PAPER_AUTHORS = ("Cegin, Jan", "Gurgurov, Daniil", "Al Ghussin, Yusser", "Ostermann, Simon")
PAPER_EPRINT = "2606.18389"
PAPER_YEAR = 2026
"""The facts of CITATION.cff, which does not lie in an installed package; a test holds them together."""

_ARXIV = re.compile(r"arxiv(?:\.org/(?:abs|pdf)/|[:\s]\s*)(\d{4}\.\d{4,5})", re.IGNORECASE)
_URL = re.compile(r"https?://[A-Za-z0-9./:?=&+,;@!~%_-]+")
_SOURCE = re.compile(r"\s*\(?\bsource:.*$", re.IGNORECASE)
_KEYED = re.compile(r"[^A-Za-z0-9]+")


@dataclass
class _Method:
    """A method over all boards that hold it."""

    note: str
    versions: set[str] = field(default_factory=set)
    suites: set[str] = field(default_factory=set)


def methods_bib(found: ResultFile) -> str:
    """Return one entry per method name, without references, in the order of the names.

    No author is named but by CITATION.cff: a run says what a method does and where it comes from, not
    by whom it is.
    """
    entries = [_program(found.generator.version), _paper()]
    for name, method in sorted(_methods(found).items()):
        entries.append(_misc(name, method, found.generator.version))
    return "\n".join(entries)


def citations(found: ResultFile) -> dict[str, str]:
    """Return board id -> what cites it: the board as of its date, the program, and the paper."""
    shared = [_program(found.generator.version), _paper()]
    return {board.id: "\n".join([_board(found, board), *shared]) for board in found.boards}


def method_citations(found: ResultFile) -> dict[str, dict[str, str]]:
    """Return board id -> method name -> what cites the method and the board; without references."""
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
    return f"steerboard-{plain}" if plain == name else f"steerboard-{plain}-{_mark(name)}".replace("--", "-")


def _mark(name: str) -> str:
    return digest(name.encode("utf-8", "replace").hex(), 6)


def _methods(found: ResultFile) -> dict[str, _Method]:
    methods: dict[str, _Method] = {}
    for board in found.boards:
        suite = board.suite.name
        suite = suite if board.suite.version is None else f"{suite} (version {board.suite.version})"
        for entry in board.entries:
            if entry.family != "reference":
                method = methods.setdefault(entry.method.name, _Method(entry.note))
                method.note = method.note or entry.note
                method.versions.add(entry.method.version)
                method.suites.add(suite)
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
    return _entry("misc", key_of(name), fields)


def _board(found: ResultFile, board: BoardFacts) -> str:
    """Return the entry of a board: its numbers change with every run that joins, so that the date counts."""
    suite = board.suite.name
    suite = suite if board.suite.version is None else f"{suite} (version {board.suite.version})"
    fields = {
        "title": f"{{{tex(f'Leaderboard of steering methods: {board.title}')}}}",
        "author": f"{{{AUTHOR}}}",
        "year": found.date[:4],
        "note": tex(
            f"Board {board.id}, suite {suite}, hash {board.suite.hash}, {len(board.entries)} entries, "
            f"{f'as of {found.date}, ' if found.date else ''}built by steerboard {found.generator.version}"
        ),
    }
    return _entry("misc", key_of(board.id), fields)


def _listed(noun: str, names: Iterable[str]) -> str:
    ordered = sorted(names)
    return f"{noun if len(ordered) == 1 else f'{noun}s'} {', '.join(ordered)}"


def _program(version: str) -> str:
    fields = {
        "title": f"{{{TITLE}: {ABSTRACT}}}",
        "author": f"{{{AUTHOR}}}",
        "version": version,
        "note": f"Version {version}, Apache-2.0",
    }
    return _entry("software", TITLE, fields)


def _paper() -> str:
    fields = {
        "title": f"{{{PAPER}}}",
        "author": " and ".join(PAPER_AUTHORS),
        "year": str(PAPER_YEAR),
        "eprint": PAPER_EPRINT,
        "archivePrefix": "arXiv",
        "url": f"https://arxiv.org/abs/{PAPER_EPRINT}",
    }
    return _entry("misc", f"arXiv-{PAPER_EPRINT}", fields)


def _entry(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{key},", *lines, "}", ""])
