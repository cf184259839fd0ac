"""Time and memory against the number of cells, and against the size of the model; draws benchmarks/scale.svg.

    python benchmarks/scale.py [--cells 10,100,1000,10000] [--widths 64,128,256,512,1024] [--device cuda]

Cells are short (two texts of at most 8 tokens each, on the model that ships), so that what a cell costs besides its
tokens shows. Every size runs in a process of its own: planning, generating, writing, and a second run that finds all
finished. Models have random weights: 8 layers, and the width that is given.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from common import options, report

HERE = Path(__file__).resolve().parent
MINI = HERE.parent / "tasks" / "mini"
TOKENS, ROWS = 32, 128


def suite_of(cells: int, folder: Path) -> Path:
    """Write a suite with about so many cells of two short texts; return its path."""
    suite = yaml.safe_load((MINI.parent / "mini.yaml").read_text(encoding="utf-8"))
    languages = suite["languages"][: max(1, min(11, cells // 2))]
    suite |= {
        "name": "scale",
        "languages": languages,
        "tasks": {"sentiment": {"texts_per_label": 1}},
        "settings": ["zero-shot"],
        "seeds": list(range(1, 1 + max(1, round(cells / len(languages))))),
        "methods": ["zero-shot"],
        "data": str(MINI / "data"),
        "model": str(MINI / "pocketlm"),
    }
    suite["sampling"] |= {"max_new_tokens": 8, "max_attempts": 1}
    path = folder / "scale.yaml"
    path.write_text(yaml.safe_dump(suite), encoding="utf-8")
    return path


def run_cells(cells: int) -> dict[str, Any]:
    """Generate so many cells, then run again; return seconds, the peak of memory, and what resuming takes."""
    from rich.console import Console

    from harness.runner.generate import GenerationStage
    from harness.runner.prepare import RunOptions, plan_run

    with tempfile.TemporaryDirectory() as folder:
        given = RunOptions(str(suite_of(cells, Path(folder))), run=Path(folder) / "run")
        quiet = Console(quiet=True)
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            plan = plan_run(given, scored=False)
            with plan.run.lock():
                GenerationStage.start(plan, given, quiet)
            seconds.append(time.perf_counter() - started)
        done = len(list((Path(folder) / "run" / "cells").iterdir()))
    return {"cells": done, "seconds": seconds[0], "resume": seconds[1], "megabytes": _peak()}


def run_width(width: int, device: str) -> dict[str, Any]:
    """Write texts with a random model of this width; return parameters, tokens per second and the peak of memory."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from harness.core.interventions import Steering
    from harness.engine.decoding import Row, write_rows
    from harness.engine.model import SteerableModel

    shape = {"hidden_size": width, "intermediate_size": 3 * width, "num_attention_heads": width // 32}
    config = LlamaConfig(vocab_size=4000, num_hidden_layers=8, **shape)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config, trust_remote_code=False).to(device)
    model = SteerableModel(network, AutoTokenizer.from_pretrained(MINI / "pocketlm", trust_remote_code=False))
    model.model.generation_config.eos_token_id = []

    def write() -> None:
        write_rows(model, [Row(tuple(range(100, 148)), Steering(), key, TOKENS, 0.8, 0.9) for key in range(ROWS)])

    write()
    started = time.perf_counter()
    write()
    seconds = time.perf_counter() - started
    return {"parameters": network.num_parameters(), "tokens_per_second": ROWS * TOKENS / seconds, "megabytes": _peak()}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(*words: str) -> dict[str, Any]:
    """Measure one size in a process of its own, whose peak of memory is that of this size."""
    done = subprocess.run([sys.executable, __file__, "--one", *words], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(" ".join(f"{name} {value:,.4g}" for name, value in found.items()), flush=True)
    return found


Point = tuple[float, float]


def draw(panels: list[tuple[str, str, list[Point]]]) -> str:
    """Return an SVG of panels (x title, y title, points) on logarithmic axes; dotted: a straight line (slope 1)."""
    width, height, edge = 250, 220, 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(panels)} {height}" '
        'font-family="sans-serif" font-size="10">',
        f'<rect width="{width * len(panels)}" height="{height}" fill="white"/>',
    ]
    for number, (x_title, y_title, points) in enumerate(panels):
        logs = [(math.log10(x), math.log10(y)) for x, y in points]
        (left, right), (low, high) = ((math.floor(min(v)), math.ceil(max(v))) for v in zip(*logs, strict=True))
        across, up = max(right - left, 1), max(high - low, 1)

        def place(x: float, y: float, left: int = left, low: int = low, across: int = across, up: int = up) -> str:
            along, above = (x - left) / across * (width - edge - 16), (y - low) / up * (height - 56)
            return f"{edge + along:.1f},{height - 40 - above:.1f}"

        (x0, y0), (x1, _) = logs[0], logs[-1]
        slope = f"{place(x0, y0)} {place(min(x1, x0 + low + up - y0), min(y0 + x1 - x0, low + up))}"
        parts.append(f'<g transform="translate({width * number},0)" text-anchor="middle">')
        parts.append(
            f'<path d="M{place(left, low + up)} L{place(left, low)} L{place(left + across, low)}" '
            'fill="none" stroke="black"/>'
        )
        for value in range(left, left + across + 1):
            x, y = place(value, low).split(",")
            parts.append(f'<text x="{x}" y="{float(y) + 14}">{10.0**value:,g}</text>')
        for value in range(low, low + up + 1):
            x, y = place(left, value).split(",")
            parts.append(f'<text x="{float(x) - 6}" y="{float(y) + 3}" text-anchor="end">{10.0**value:,g}</text>')
        parts.append(f'<polyline points="{slope}" fill="none" stroke="grey" stroke-dasharray="2 3"/>')
        path = " ".join(place(x, y) for x, y in logs)
        parts.append(f'<polyline points="{path}" fill="none" stroke="#2166ac" stroke-width="2"/>')
        for x, y in logs:
            at = place(x, y).split(",")
            parts.append(f'<circle cx="{at[0]}" cy="{at[1]}" r="3" fill="#2166ac"/>')
        parts.append(f'<text x="{width / 2 + 16}" y="{height - 8}">{x_title}</text>')
        parts.append(f'<text x="{edge}" y="10" text-anchor="start">{y_title}</text></g>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Measure all sizes and draw them."""
    parser = options(__doc__)
    parser.add_argument("--cells", default="10,100,1000,10000")
    parser.add_argument("--widths", default="64,128,256,512,1024")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SIZE"), help="measure one size: cells N, or width N")
    given = parser.parse_args()
    if given.one:
        kind, size = given.one[0], int(given.one[1])
        print(json.dumps(run_cells(size) if kind == "cells" else run_width(size, given.device)))
        return
    cells = [child("cells", size) for size in given.cells.split(",")]
    widths = [child("width", size, "--device", given.device) for size in given.widths.split(",")]
    panels = [
        ("cells", "seconds", [(one["cells"], one["seconds"]) for one in cells]),
        ("cells", "seconds to resume", [(one["cells"], one["resume"]) for one in cells]),
        ("cells", "MB", [(one["cells"], one["megabytes"]) for one in cells]),
        ("parameters", "seconds per 1,000 tokens", [(w["parameters"], 1000 / w["tokens_per_second"]) for w in widths]),
        ("parameters", "MB", [(one["parameters"], one["megabytes"]) for one in widths]),
    ]
    (HERE / "scale.svg").write_text(draw(panels), encoding="utf-8")
    last, fastest = cells[-1], max(one["tokens_per_second"] for one in widths)
    figure = (
        f"{last['cells']:,} cells: {last['seconds']:.0f} s, {last['megabytes']:.0f} MB, "
        f"{last['resume']:.1f} s to resume; "
        f"{fastest:,.0f} tokens per second at most; see scale.svg"
    )
    report(
        [{"name": "time and memory against cells and parameters", "figure": figure, "cells": cells, "widths": widths}],
        given.device,
    )


if __name__ == "__main__":
    main()
