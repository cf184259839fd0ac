"""Help: first things first, summaries on one line, whole words at every width, examples that work."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from support.helpers import command_tree, steerboard

from harness.cli.root import app


def commands(group: Any, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return every command and group by its words, the root under ()."""
    found = {words: group}
    for name, command in getattr(group, "commands", {}).items():
        found |= commands(command, (*words, name))
    return found


ALL = commands(command_tree(app))
GROUPS = [words for words, command in ALL.items() if hasattr(command, "commands")]


def page(words: tuple[str, ...], width: int, monkeypatch: pytest.MonkeyPatch, option: str = "--help") -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    outcome = steerboard(*words, option)
    assert (outcome.code, outcome.err) == (0, "")
    return outcome.out


def section(text: str, title: str) -> list[str]:
    """Return the lines of a part of a help page."""
    return text.partition(f"\n{title}:\n")[2].partition("\n\n")[0].splitlines()


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_page_is_the_same_words_at_every_width(words, monkeypatch):
    pages = [page(words, width, monkeypatch) for width in (50, 80, 200)]
    assert pages[0].split() == pages[1].split() == pages[2].split()
    assert all(len(line) <= 80 for line in pages[1].splitlines())
    assert page(words, 80, monkeypatch, "-h") == pages[1]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_values_are_named_in_english(words, monkeypatch):
    text = page(words, 80, monkeypatch)
    options = [line.split("  ")[1] for line in section(text, "Options") if line.startswith("  -")]
    assert options
    for option in options:
        name = option.rpartition("--")[2].partition(" ")[2]
        assert not re.search(r"[<>{}\[\]]|^(TEXT|STR|STRING|PATH|INT|INTEGER|FLOAT)$", name), option
    assert not re.search(r"<(str|path|int|float|list)|x>=|<=x", text)


@pytest.mark.parametrize("words", GROUPS, ids=" ".join)
def test_summaries_are_whole_and_take_one_line(words, monkeypatch):
    lines = section(page(words, 80, monkeypatch), "Commands")
    assert len(lines) == len(ALL[words].commands), lines
    assert all(line.endswith((".", "?")) and not line.endswith("...") for line in lines), lines


def test_the_way_of_a_newcomer_comes_first(monkeypatch):
    names = [line.split()[0] for line in section(page((), 80, monkeypatch), "Commands")]
    assert names[:4] == ["demo", "run", "board", "compare"]


def test_a_wide_terminal_is_used(monkeypatch):
    assert max(map(len, page(("run",), 160, monkeypatch).splitlines())) > 100


def examples(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the commands that a help page shows as examples, as somebody would copy them."""
    text = page(words, 50, monkeypatch)
    return re.findall(r"^ {6}(steerboard (?:.*\\\n)*.*)$", text, re.MULTILINE)


SHOWN = [
    ("run",),
    ("work",),
    ("tune",),
    ("compare",),
    ("lm-eval",),
    ("forcing",),
    ("score",),
    ("status",),
    ("doctor",),
    ("board", "build"),
    ("gate", "check"),
    ("gate", "accept"),
    ("contrast",),
    ("contrast", "build"),
    ("contrast", "import"),
    ("import",),
    ("import", "texts"),
    ("submission", "pack"),
    ("submission", "check"),
    ("submission", "verify"),
    ("push",),
    ("pull",),
]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_examples_are_commands_that_are_understood(words, monkeypatch):
    found = examples(words, monkeypatch)
    assert found
    for example in found:
        program, *arguments = shlex.split(example.replace("\\\n", " "))
        assert program == "steerboard"
        name, command = (), ALL[()]
        while hasattr(command, "commands"):
            if arguments[0] not in command.commands:
                assert name == ("gate",)
                arguments.insert(0, "check")
            name, command = (*name, arguments[0]), command.commands[arguments[0]]
            arguments = arguments[1:]
        command.make_context(" ".join(name), list(arguments))  # raises for an unknown or missing option
