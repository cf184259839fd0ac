"""Templates to pages: one environment, assets inlined, a policy that lets no other script run."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import Environment
from markupsafe import Markup, escape

from harness.ranking.stats.estimates import Estimate
from harness.ranking.summary import format_interval, format_number, format_signed, p_equals, tier_of
from leaderboard.charts import template_environment
from leaderboard.text import ASSETS, clean, counted, direction_of, name_of, slug

BETTER = {"up": "higher is better", "down": "lower is better", "none": "describes, ranks nobody"}
_OFF = Markup(' class="off"')
ARROWS = {"up": "↑", "down": "↓", "none": ""}


class TableCell(NamedTuple):
    """The text of a cell, and what it is sorted by (empty for unknown: always last)."""

    text: str
    sort: str = ""
    small: str = ""
    title: str = ""


@functools.cache
def environment() -> Environment:
    """Return the environment of the pages, with their filters."""
    made = template_environment()
    made.filters.update(
        plain=format_number, p_equals=p_equals, signed=format_signed, spanned=format_interval, tier_of=tier_of,
        clean=clean, direction=direction_of,
        name=name_of, slug=slug, slug_key=slug_key, counted=counted, data=data, sort=sort_value,
        cells=table_cells, marks=text_marks,
        better=lambda metric: BETTER[metric.direction], arrow=lambda metric: ARROWS[metric.direction],
    )  # fmt: skip
    made.globals.update(style=asset("style.css"))
    return made


def render(template: str, *scripts: str, **context: Any) -> str:
    """Return a page. ``scripts``: the assets that it runs, in full; all others are refused by policy."""
    code = Markup().join(asset(name) for name in ("page.js", "tips.js", *scripts))
    page = environment().get_template(template)
    return page.render(script=code, policy=_policy(code), **context)


@functools.cache
def asset(name: str) -> Markup:
    """Return a style sheet or script that ships with the board: the only text put in unescaped."""
    return Markup((ASSETS / name).read_text(encoding="utf-8"))  # noqa: S704


def _policy(code: str) -> str:
    """Return a content security policy by which this script runs and nothing is requested."""
    found = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{found}'; "
        "base-uri 'none'; form-action 'none'"
    )


def data(value: object) -> Markup:
    """Return JSON for a script element of type application/json: no sign in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704


def sort_value(value: object) -> str:
    """Return what a cell is sorted by: a number in full, nothing for what is unknown."""
    if isinstance(value, Estimate):
        value = value.mean
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def table_cells(cells: Sequence[tuple[str, ...]]) -> Markup:
    """Return the cells of a row: of each its text and what it is sorted by, without U+0000; escaped all at once."""
    fields = escape("\0".join(field for cell in cells for field in cell[:2])).split("\0") if cells else []
    return Markup("".join(f'<td data-v="{s}">{text}</td>' for text, s in zip(fields[::2], fields[1::2], strict=True)))  # noqa: S704


@functools.lru_cache(maxsize=2**12)  # most texts have the same few
def text_marks(found: tuple[tuple[str, bool], ...]) -> Markup:
    """Return the findings of the scoring for a text: of each its words, and whether they are not what was asked for."""
    return Markup().join(Markup("<bdi{}>{}</bdi>").format(_OFF if off else "", words) for words, off in found)


def slug_key(key: str) -> str:
    """Return the key of a column as part of a class or an id."""
    return re.sub("[^A-Za-z0-9]+", "-", key)
