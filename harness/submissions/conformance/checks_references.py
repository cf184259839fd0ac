"""Checks of a reference: its texts are as many as asked for, the same again, and no test text."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.core.cells import Cell
from harness.data.corpus import normalise
from harness.methods.contract import Reference, ReferenceContext
from harness.methods.plugins import in_words
from harness.submissions.conformance.bench import seed_global
from harness.submissions.conformance.heldout_corpus import HELD_OUT
from harness.submissions.conformance.method_under_test import ConformanceCheck, Failed, MethodUnderTest, Skipped

_SEED = 7


def texts(trial: MethodUnderTest) -> str:
    """Every supported cell gets exactly the number of texts, in every label."""
    method, count = trial.configured(), 0
    for cell in trial.cells():
        drawn, wanted = _drawn(trial, method, cell), cell.key.texts_per_label
        labels = trial.bench.context(cell).task.labels
        if not isinstance(drawn, dict) or set(drawn) != set(labels):
            raise Failed(f"{cell.title}: texts gave {drawn!r:.60}; return a list for each of {', '.join(labels)}.")
        for label, group in drawn.items():
            if len(group) != wanted:
                raise Failed(f"{cell.title}: {len(group)} texts of {label!r}, not ctx.texts_per_label = {wanted}.")
            if not all(isinstance(text, str) and text.strip() for text in group):
                raise Failed(f"{cell.title}: a text of {label!r} is empty or no string.")
            count += len(group)
    trial.complete = True
    return f"{count} texts of {len(trial.cells())} cells"


def repeatable(trial: MethodUnderTest) -> str:
    """The same seed gives the same texts, whatever the global random states."""
    cells = _sound(trial)
    one = [_drawn(trial, trial.build(), cell, chance=0) for cell in cells]
    if one != [_drawn(trial, trial.build(), cell, chance=1) for cell in reversed(cells)][::-1]:
        raise Failed("two draws with the same seed differ. Draw chance from ctx.rng alone.")
    return "two draws with the same seed are equal"


def held_out(trial: MethodUnderTest) -> str:
    """No validation or test text is asked for or handed out."""
    bench, method = trial.bench, trial.configured()
    if bench.watch.held_out:
        raise Failed(f"the reference reads {bench.watch.held_out[0]}. Take texts from ctx.train() alone.")
    for cell in _sound(trial):
        key = cell.key
        forbidden: set[str] = set()
        for split in HELD_OUT:
            forbidden |= {normalise(row.text) for row in bench.corpus.known(key.task, key.language, split)}
        forbidden -= {normalise(row.text) for row in bench.corpus.known(key.task, key.language, "train")}
        for group in _drawn(trial, method, cell).values():
            found = [text for text in group if normalise(text) in forbidden]
            if found:
                raise Failed(f"{cell.title}: {found[0]!r:.60} is validation or test text.")
    return "no validation or test text"


def _sound(trial: MethodUnderTest) -> list[Cell]:
    """Return the supported cells; ``Skipped`` where not all of them got their texts."""
    if not trial.complete:
        raise Skipped("there are no sound texts to look at; see texts")
    return trial.cells()


def _drawn(trial: MethodUnderTest, method: Any, cell: Cell, chance: int = 0) -> Any:
    assert isinstance(method, Reference)
    context = ReferenceContext(
        **vars(trial.bench.context(cell)), _corpus=trial.bench.corpus, rng=np.random.default_rng(_SEED)
    )
    seed_global(chance)
    try:
        with trial.bench.watch.on():
            return method.texts(context)
    except Exception as error:  # the method's code
        raise Failed(f"{cell.title}: texts raised {in_words(error)}") from None


CHECKS = (
    ConformanceCheck("texts", texts),
    ConformanceCheck("determinism", repeatable),
    ConformanceCheck("held-out text", held_out),
)
