"""Show what a steering file holds, as text and as JSON. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.core.files import canonical_json
from harness.core.interventions import Intervention, Steering
from harness.core.terminal import TerminalColumn, print_table

_GROUPS = {
    "method": ["method", "language", "task", "seed"],
    "model": ["model", "tokenizer", "n_layers", "hidden_size", "residual_norm", "layer_convention"],
    "text": ["data", "counts", "token_rule", "bos_rule"],
    "made with": ["versions"],
}
_PARTS = {
    "method": ["name", "version", "config"],
    "model": ["name", "revision", "fingerprint", "dtype"],
}
_CURVE = ("step", "train", "held_out", "norm")
_KINDS = ("dead", "specific", "partial", "shared")
_INTERVENTIONS = [
    TerminalColumn("layer"),
    TerminalColumn("site", words=True, drop=2),
    TerminalColumn("operation", words=True),
    TerminalColumn("strength"),
    TerminalColumn("unit", words=True),
    TerminalColumn("raw", drop=3),
    TerminalColumn("norm", drop=4),
    TerminalColumn("positions", words=True, drop=1),
]
_BLOCKS = "▁▂▃▄▅▆▇█"
_ROWS = 12  # of the curve
_LONG = 8  # numbers of a list, above which they are drawn, one for each layer
_LONGEST = 400  # characters of one value; all of it is in the JSON
_DEEPEST = 4  # levels of one value
_HUGE = 1e300  # differences of numbers below this are finite


def as_json(name: str, steering: Steering) -> str:
    """Return one line of JSON: the file's name, its header and the norm of every vector."""
    items = [
        {
            **{k: v for k, v in vars(item).items() if k != "vector"},
            "size": len(item.vector),
            "norm": _norm(item),
            "raw_strength": item.raw_strength,
        }
        for item in steering.interventions
    ]
    return canonical_json({"file": name, "interventions": items, "provenance": steering.provenance})


def _norm(item: Intervention) -> float:
    return float(np.linalg.norm(item.vector.astype(np.float64)))


def as_text(name: str, steering: Steering, width: int | None = None, colour: bool = False) -> str:
    """Return what a steering changes, then its provenance in groups, then what its fit recorded."""
    console = Console(width=width, highlight=False, force_terminal=colour)
    with console.capture() as capture:
        console.print(Text(clean(name), "bold"), soft_wrap=True)  # a path stays whole
        _interventions(console, steering.interventions)
        provenance = dict(steering.provenance)
        fit = provenance.pop("fit", {})
        for title, keys in _GROUPS.items():
            _block(console, title, _pairs({key: provenance.pop(key) for key in keys if key in provenance}))
        _block(console, "more", _pairs(provenance))
        _fit(console, dict(fit) if isinstance(fit, Mapping) else {"fit": fit})
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _block(console: Console, title: str, body: RenderableType | None) -> None:
    """Print a blank line, a title and, indented, its content; nothing where there is none."""
    if body is not None:
        console.print()
        console.print(Text(title, "bold"))
        console.print(Padding(body, (0, 0, 0, 2)))


def _interventions(console: Console, items: Sequence[Intervention]) -> None:
    if not items:
        console.print("no intervention: the model runs unsteered")
        return
    console.print(f"{len(items)} intervention{'s' if len(items) > 1 else ''}; layers count from 0")
    console.print()
    rows = []
    for item in items:
        strength, raw, norm = (f"{number:.4g}" for number in (item.strength, item.raw_strength, _norm(item)))
        rows.append([str(item.layer), item.site, item.operation, strength, item.unit, raw, norm, item.positions])
    print_table(console, _INTERVENTIONS, rows, gap=1)


def _pairs(values: Mapping[str, Any]) -> Table | None:
    """Return names and values below one another; method and model get a line for each of their parts."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if key in _PARTS and isinstance(value, dict):
            parts = [
                *(part for part in _PARTS[key] if part in value),
                *(part for part in value if part not in _PARTS[key]),
            ]
            rows += [(key if part == "name" else part, inline(value[part])) for part in parts]
        else:
            rows.append((key, inline(value)))
    if not rows:
        return None
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, max_width=24)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(Text(clean(name).replace("_", " ")), Text(text))
    return table


def inline(value: Any, depth: int = 0) -> str:
    """Return a JSON value on one line, without characters that could move a cursor."""
    if isinstance(value, dict | list) and depth > _DEEPEST:
        text = "…"
    elif isinstance(value, dict):
        text = ", ".join(f"{clean(str(k))}={inline(v, depth + 1)}" for k, v in value.items())
        text = f"({text})" if depth else text
    elif isinstance(value, list) and len(value) > _LONG and _numbers(value):
        text = f"{sparkline(value)} {value[0]:.4g} to {value[-1]:.4g}"
    elif isinstance(value, list):
        text = ", ".join(inline(v, depth + 1) for v in value)
        text = f"[{text}]" if depth else text
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = "–" if value is None else clean(str(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… (all of it: --json)"


def clean(text: str) -> str:
    """Return text with every character that is not printable written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def sparkline(values: Sequence[float], width: int = 42) -> str:
    """Return numbers as a line of blocks, lowest to highest; more than ``width`` are sampled evenly."""
    picked = [values[i] for i in _evenly(len(values), width)]
    low, high = min(picked), max(picked)
    if high == low:
        return _BLOCKS[3] * len(picked)
    return "".join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in picked)


def _evenly(count: int, wanted: int) -> list[int]:
    """Return at most ``wanted`` indices of ``count``, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, wanted))})


def _fit(console: Console, fit: dict[str, Any]) -> None:
    """Print what the method's own fit recorded: curve, categories, excluded tokens, and the rest."""
    if _rows(fit.get("curve"), _CURVE):
        _curve(console, fit.pop("curve"))
    if _rows(fit.get("categories"), _KINDS):
        categories, bridge = fit.pop("categories"), fit.pop("bridge", None)
        marked = bridge if isinstance(bridge, list) else []
        rows = [
            [str(layer), *(f"{counts[kind]:,}" for kind in _KINDS), "bridge" if layer in marked else ""]
            for layer, counts in enumerate(categories)
        ]
        _table(console, "neurons by layer", ("layer", *_KINDS), "bridge", rows)
    excluded = fit.pop("excluded", None)
    _block(console, "fit", _pairs(fit))
    if not excluded:
        return
    excluded = excluded if isinstance(excluded, dict) else {"excluded": excluded}
    reports = {name: report for name, report in excluded.items() if isinstance(report, dict)}
    if "rule" in excluded or not reports:
        reports = {"": excluded}  # one report, not one for each of the means by name
    for name, report in reports.items():
        _block(console, f"excluded tokens: {clean(name)}" if name else "excluded tokens", _pairs(report))


def _curve(console: Console, curve: Sequence[Mapping[str, float]]) -> None:
    """Print the curve of a learned vector: its rows, thinned out, and a line of the held-out loss."""
    held_out = [point["held_out"] for point in curve]
    best = held_out.index(min(held_out))
    rows = [
        [f"{curve[i]['step']:g}", *(f"{curve[i][name]:.4g}" for name in _CURVE[1:]), "lowest" if i == best else ""]
        for i in sorted({*_evenly(len(curve), _ROWS), best})
    ]
    _table(console, "learned, loss by step", ("step", "train", "held out", "norm"), "", rows)
    console.print(f"  held out {sparkline(held_out)} {held_out[0]:.4g} to {held_out[-1]:.4g}")


def _table(console: Console, title: str, heads: Sequence[str], note: str, rows: list[list[str]]) -> None:
    console.print()
    print_table(console, [*map(TerminalColumn, heads), TerminalColumn(note, words=True)], rows, title, gap=1)


def _rows(value: Any, keys: Sequence[str]) -> bool:
    """Return whether ``value`` is a list of mappings that have a number under each of ``keys``."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, Mapping) and _numbers([row.get(key) for key in keys]) for row in value)
    )


def _numbers(value: Any) -> bool:
    numbers = isinstance(value, list) and bool(value)
    return numbers and all(type(v) in {int, float} and abs(v) < _HUGE for v in value)
