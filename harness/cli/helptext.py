"""How help is laid out: as wide as the terminal, words and options whole, examples ready to be pasted."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
import typer.core

if TYPE_CHECKING:
    from typer._click.formatting import HelpFormatter
else:  # where click's classes lie is typer's own affair
    HelpFormatter = typer.Context.formatter_class

FIRST = ("demo", "run", "board", "compare")
"""The commands that the list of commands begins with: the way of a newcomer."""

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 10_000}
"""Of the root command; the others take them over. The width is that of the terminal, whatever it is."""

_EXAMPLE = "    "  # a paragraph that begins with it is not wrapped
_SENTENCE = 1000  # characters; far more than any
_WIDEST_NAME = 30  # columns; the text of a longer option begins on the next line


class WholeWords(HelpFormatter):
    """Breaks lines at blanks alone: an option or a path that is copied from help is whole."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the usage; arguments as they are named, without the signs of a grammar."""
        plain = re.sub(r"\{([^{}]*?)(?:\.\.\.)?\}", r"\1", args)
        start = f"{prefix or 'Usage: '}{prog} "
        self.write(_wrapped(plain, self.width, start, " " * min(len(start), self.width // 2)) + "\n")

    def write_text(self, text: str) -> None:
        """Write paragraphs; one that is indented is an example and stays as it is, at any width."""
        indent = " " * self.current_indent
        self.write("\n\n".join(_paragraphs(text, self.width, indent)) + "\n")

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names with their text beside them."""
        shown = [(re.sub(r" <.*>$", "", name), _in_words(text)) for name, text in rows]
        left = self.current_indent + min(max(len(name) for name, _ in shown), _WIDEST_NAME) + col_spacing
        for name, text in shown:
            start = f"{'':{self.current_indent}}{name}"
            if len(start) > left - col_spacing:
                self.write(f"{start}\n")
                start = ""
            self.write(_wrapped(text, self.width, f"{start:<{left}}", " " * left).rstrip() + "\n")


class HelpContext(typer.Context):
    """The context of every command: its help is written by ``WholeWords``."""

    formatter_class = WholeWords


class Group(typer.core.TyperGroup):
    """A group of commands; those of ``FIRST`` come first."""

    context_class = HelpContext

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order in which help lists them."""
        order = {name: i for i, name in enumerate(FIRST)}
        return sorted(super().list_commands(ctx), key=lambda name: order.get(name, len(order)))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands with the first sentence of their help, wrapped where it is long, never cut."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(_SENTENCE)) for name, command in found])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, whose help is laid out as that of its group."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            command.context_class = HelpContext
        return command


def build_group(text: str, **more: Any) -> typer.Typer:
    """Return a group of commands with this help; without a command it is shown."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None, **{"cls": Group, **more})


def wrapped(line: str, indent: int) -> str:
    """Return a line that a terminal takes as several, words whole, all but the first indented."""
    return _wrapped(line, shutil.get_terminal_size().columns, "", " " * indent)


def _in_words(text: str) -> str:
    """Return a range of numbers, which typer writes as a formula, in words."""
    return re.sub(r"\bx>=([\d.]+)", r"at least \1", re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", text))


def _paragraphs(text: str, width: int, indent: str) -> list[str]:
    found = []
    for paragraph in re.split(r"\n{2,}", text.strip("\n")):
        if paragraph.startswith(_EXAMPLE):
            found.append(textwrap.indent(paragraph, indent))
        else:
            found.append(_wrapped(" ".join(paragraph.split()), width, indent, indent))
    return found


def _wrapped(text: str, width: int, first: str, other: str) -> str:
    return textwrap.fill(
        text,
        max(width, len(other) + 20),
        initial_indent=first,
        subsequent_indent=other,
        break_long_words=False,
        break_on_hyphens=False,
    )
