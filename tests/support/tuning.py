"""The command tune, with texts that a rule writes instead of a model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.core.records import Generation
from harness.data.suite import Suite, load_suite
from support.helpers import MINI, Outcome, steerboard

NAMES = {"am": "Amharic", "he": "Hebrew"}


def suite_of(*methods: Any, **changes: Any) -> Suite:
    return load_suite("mini").model_copy(update={"methods": list(methods), **changes})


def human(language: str, split: str) -> list[dict[str, str]]:
    path = MINI / "data" / "sentiment" / language / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def writer(best: float) -> Any:
    """Return a stand-in for ``GenerationQueue.write``: human text, with labels that are right as strength says.

    At ``best`` all labels are right; at 0.4 as well, but half the texts count as duplicates; at all other
    strengths, and unsteered, one in three is wrong.
    """

    def write(queue: Any, requests: Any) -> Any:
        for request in requests:
            rows = texts_of(request.prompts, request.texts_per_label, request.steering)
            request.usage.prompt_tokens, request.usage.new_tokens = 10 * len(rows), 5 * len(rows)
            yield request, rows

    def texts_of(prompts: Any, n: int, steering: Any) -> list[Generation]:
        strength = steering.interventions[0].strength if steering.interventions else 0.0
        code = next(c for c, name in NAMES.items() if name in next(iter(prompts.values()))[0].user)
        texts: dict[str, list[str]] = {label: [] for label in prompts}
        for row in human(code, "train"):
            texts[row["label"]].append(row["text"])
        rows = []
        for label in prompts:
            other = next(name for name in prompts if name != label)
            for i in range(n):
                right = strength in (best, 0.4) or i % 3
                text = texts[label if right else other][i]
                fields = {"n_prompt_tokens": 10, "n_new_tokens": 5, "finish_reason": "stop"}
                duplicate = strength == 0.4 and i % 2 == 1
                rows.append(Generation(index=i, label=label, text=text, duplicate=duplicate, **fields))
        return rows

    return write


def tune(suite: Path, folder: Path, *more: object, best: float | None = 0.2) -> Outcome:
    """Sweep the language vector; ``best`` None lets the toy model write."""
    words = ["--tasks", "sentiment", "--limit", "9", "--methods", "language"]
    words += ["--layers", "0,1", "--strengths", "0.1,0.2,0.4"]
    with pytest.MonkeyPatch.context() as patch:
        if best is not None:
            patch.setattr("harness.engine.generate.GenerationQueue.write", writer(best))
        return steerboard("tune", "--suite", suite, "--run", folder, *words, *more)


def tuned_file(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tuned.json").read_text(encoding="utf-8"))
    return found


def untimed(folder: Path) -> str:
    """Return a choice without what a clock said."""
    return re.sub(r'"seconds": [\d.]+', "", (folder / "tuned.json").read_text(encoding="utf-8"))
