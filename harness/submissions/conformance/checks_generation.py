"""Checks of texts, those of a model and those of a reference; last, the side effects of all checks before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.core.cells import Cell
from harness.core.interventions import Steering
from harness.data.corpus import normalise
from harness.methods.contract import Reference, ReferenceContext, SteeringMethod
from harness.methods.plugins import in_words
from harness.submissions.conformance.instrumented import HELD_OUT
from harness.submissions.conformance.kit import MethodUnderTest
from harness.submissions.conformance.tiny_suite import seed_global

_BATCHES = (16, 3, 1)
_SEED = 7
_SIDE_EFFECTS = {  # check: the sandbox's list, the verb, what to do instead, what a pass says
    "files": ("written", "wrote", "Results go into the steering alone.", "nothing written"),
    "output": ("printed", "printed", "Report progress with ctx.progress('...').", "nothing printed"),
    "network": ("connected", "asked for", "Ship what it needs in its package or directory.", "no connection"),
}


def model_check_batch_size(subject: MethodUnderTest) -> str:
    """The texts of a cell are the same in batches of 1, 3 and 16."""
    count, codes = 0, []
    for cell in subject.pair():
        prompts, steering = subject.prompts_of(cell), subject.steered(cell)
        large, *others = (subject.suite.texts(cell, prompts, steering, size) for size in _BATCHES)
        for size, texts in zip(_BATCHES[1:], others, strict=True):
            for one, other in zip(large, texts, strict=True):
                if one != other:
                    pytest.fail(
                        f"{cell.title}: {one!r:.40} in batches of {_BATCHES[0]}, {other!r:.40} in batches of "
                        f"{size}. Is the strength so high that rounding decides?"
                    )
        count += len(large)
        codes.append(cell.key.language)
    return f"{count} texts ({', '.join(codes)}) are equal in batches of {', '.join(map(str, sorted(_BATCHES)))}"


def model_check_strength_0(subject: MethodUnderTest) -> str:
    """Where a method has a strength, 0 gives the unsteered texts."""
    if not subject.configured().has_fit:
        pytest.skip("the method does not steer")
    name, zero = _at_zero(subject)
    count = 0
    for cell in subject.pair():
        subject.steered(cell)
        own = Cell(cell.key.model_copy(update={"method": zero.identity}))
        done = subject.suite.fit(zero, own, subject.fitter or subject.suite.fitter())
        if done.steering is None:
            pytest.fail(f"the fit of {cell.key.language!r} with {name}=0 ends with: {done.error or done.skipped}")
        prompts = subject.prompts_of(cell)
        plain = subject.suite.texts(cell, prompts, Steering(), _BATCHES[0])
        steered = subject.suite.texts(cell, prompts, done.steering, _BATCHES[0])
        for one, other in zip(plain, steered, strict=True):
            if one != other:
                pytest.fail(
                    f"{cell.title}: with {name}=0 the text is {other!r:.40}, unsteered it is {one!r:.40}. "
                    "Give the option to Intervention(strength=...) as it is, or set strength_field = None "
                    "in the class where 0 does not mean unsteered."
                )
        count += len(plain)
    return f"{count} texts with {name}=0 are the unsteered ones, bit for bit"


def _at_zero(subject: MethodUnderTest) -> tuple[str, SteeringMethod]:
    """Return the name of the strength and the method with a strength of 0; it may be that of a method inside it."""
    method = subject.configured()
    owner = getattr(method, "target", None) or method  # what a control or a prompting method is steered by
    name = owner.strength_field
    value: Any = getattr(owner.config, name, None) if name else None
    if name is None or isinstance(value, bool) or not isinstance(value, int | float):
        pytest.skip("not declared: Config has no number called 'strength', or as strength_field says")
    if owner is not method:
        return name, subject.build(options={**method.config.options, name: 0})
    return name, subject.build(**{name: 0})


def reference_check_texts(subject: MethodUnderTest) -> str:
    """Every supported cell gets exactly the number of texts, in every label."""
    method, count = subject.configured(), 0
    for cell in subject.cells():
        drawn, wanted = _drawn(subject, method, cell), cell.key.texts_per_label
        labels = subject.suite.context(cell).task.labels
        if not isinstance(drawn, dict) or set(drawn) != set(labels):
            pytest.fail(f"{cell.title}: texts gave {drawn!r:.60}; return a list for each of {', '.join(labels)}.")
        for label, group in drawn.items():
            if len(group) != wanted:
                pytest.fail(f"{cell.title}: {len(group)} texts of {label!r}, not ctx.texts_per_label = {wanted}.")
            if not all(isinstance(text, str) and text.strip() for text in group):
                pytest.fail(f"{cell.title}: a text of {label!r} is empty or not a string.")
            count += len(group)
    subject.complete = True
    return f"{count} texts of {len(subject.cells())} cells"


def reference_check_determinism(subject: MethodUnderTest) -> str:
    """The same seed gives the same texts, whatever the global random states."""
    cells = _complete(subject)
    one = [_drawn(subject, subject.build(), cell, global_seed=0) for cell in cells]
    if one != [_drawn(subject, subject.build(), cell, global_seed=1) for cell in reversed(cells)][::-1]:
        pytest.fail("two draws with the same seed differ. Draw random numbers from ctx.rng alone.")
    return "two draws with the same seed are equal"


def reference_check_held_out_text(subject: MethodUnderTest) -> str:
    """No validation or test text is read or returned."""
    sandbox, source = subject.suite.sandbox, subject.suite.corpus.source
    if sandbox.held_out:
        pytest.fail(f"the reference reads {sandbox.held_out[0]}. Take texts from ctx.train() alone.")
    for cell in _complete(subject):
        task = subject.suite.context(cell).task
        held_out = {normalise(row.text) for split in HELD_OUT for row in source.rows(task, split)}
        forbidden = held_out - {normalise(row.text) for row in source.rows(task, "train")}
        for group in _drawn(subject, subject.configured(), cell).values():
            found = [text for text in group if normalise(text) in forbidden]
            if found:
                pytest.fail(f"{cell.title}: {found[0]!r:.60} is validation or test text.")
    return "no validation or test text"


def _complete(subject: MethodUnderTest) -> list[Cell]:
    """Return the supported cells; skip where not all of them got their texts."""
    return subject.cells() if subject.complete else pytest.skip("there are no valid texts to look at; see texts")


def _drawn(subject: MethodUnderTest, method: SteeringMethod, cell: Cell, global_seed: int = 0) -> Any:
    assert isinstance(method, Reference)
    context = ReferenceContext(
        **vars(subject.suite.context(cell)), _corpus=subject.suite.corpus, rng=np.random.default_rng(_SEED)
    )
    seed_global(global_seed)
    try:
        with subject.suite.sandbox.record():
            return method.texts(context)
    except Exception as error:  # the method's code
        pytest.fail(f"{cell.title}: texts raised {in_words(error)}")


@pytest.mark.parametrize("kind", _SIDE_EFFECTS)
def check_no_side_effects(subject: MethodUnderTest, kind: str) -> str:
    """The sandbox recorded no file written, renamed or deleted; nothing printed; no connection opened."""
    recorded, verb, advice, passed = _SIDE_EFFECTS[kind]
    subject.configured()
    seen: list[str] = getattr(subject.suite.sandbox, recorded)
    if seen:
        pytest.fail(f"the method {verb} {seen[0]!r:.80}. {advice}")
    return passed
