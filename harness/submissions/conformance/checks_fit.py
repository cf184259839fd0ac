"""Checks of what ``fit`` gives: valid, recorded, reproducible, from allowed text, without traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from harness.core.cells import Cell
from harness.core.interventions import Intervention, Steering, load_steering
from harness.submissions.conformance.instrumented import with_other_held_out_text
from harness.submissions.conformance.kit import MethodUnderTest
from harness.submissions.conformance.tiny_suite import Fit

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel

_SLOW = 30.0  # seconds of one fit on the pocket model; a real model is a thousand times its size
_LONG = 1.0  # seconds of a fit from which on fewer calls are made to fail
_ALL_CALLS = 6  # up to here every call to the engine fails once
_HEADER = {
    **dict.fromkeys(("method", "model", "counts", "versions", "fit"), dict),
    **dict.fromkeys(("tokenizer", "language", "task", "data", "layer_convention", "token_rule", "bos_rule"), str),
    **dict.fromkeys(("n_layers", "hidden_size", "seed"), int),
    "residual_norm": list,
}
"""What every steering file says of how it came about, and of which type."""


def model_check_fit(subject: MethodUnderTest) -> str:
    """Every supported language of a task, and one of another task, gives a steering that fits the model."""
    if not subject.configured().has_fit:
        return "the method does not steer: it defines no fit"
    subject.fitter, problems = subject.suite.fitter(), []
    for cell in _one_task_and_a_second(subject.cells()):
        key = cell.key
        subject.suite.say(f"fit: {key.task} {key.language}")
        done = subject.suite.fit(subject.configured(), cell, subject.fitter)
        try:
            _check_steering(done, subject.suite.model)
            subject.fits.append(done)
        except pytest.fail.Exception as error:
            problems.append(f"{key.task}/{key.language}: {error}")
        if done.seconds > _SLOW:
            pytest.fail(f"the fit of {key.language!r} took {done.seconds:.0f} s on a model of 4 layers.")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        pytest.fail(f"{problems[0].rstrip('.')}{more}. For a language that it cannot do, let supports return a Skip.")
    return _summary(subject)


def _one_task_and_a_second(cells: list[Cell]) -> list[Cell]:
    """Return one cell of every language of the first task, and the first of another task."""
    groups = {(cell.key.task, cell.key.language): cell for cell in reversed(cells)}  # the first of each stays
    first = [cell for cell in cells if groups[cell.key.task, cell.key.language] is cell]
    main = [cell for cell in first if cell.key.task == first[0].key.task]
    return main + [cell for cell in first if cell not in main][:1]


def _check_steering(done: Fit, model: SteerableModel) -> None:
    """Fail where a fit ended with an error or its steering does not fit the model."""
    if done.error:
        pytest.fail(done.error)
    last = len(model.layers) - 1
    for item in done.steering.interventions if done.steering else ():
        if type(item) is not Intervention:
            pytest.fail(f"an intervention is a {type(item).__name__}, not an Intervention.")
        if not isinstance(item.layer, int) or not 0 <= item.layer <= last:
            pytest.fail(
                f"layer {item.layer}, the model has layers 0 to {last}. Take ctx.layer(0.5), a fraction of "
                "the depth, or give a layer with --options."
            )
        size = int(model.model.config.intermediate_size) if item.site == "mlp_neurons" else model.hidden_size
        if item.vector.shape != (size,):
            pytest.fail(f"a vector of {len(item.vector)} numbers at {item.site}, where the model has {size}.")
        if item.vector.dtype != np.float32:
            pytest.fail(f"a vector of {item.vector.dtype}; give float32: vector.astype(np.float32).")


def _summary(subject: MethodUnderTest) -> str:
    valid = [done.steering for done in subject.fits if done.steering]
    reasons = {done.cell.key.language: done.skipped for done in subject.fits if done.skipped}
    skipped = "".join(f", skipped {code}: {reason}" for code, reason in list(reasons.items())[:2])
    if not valid:
        pytest.fail(f"every fit was skipped{skipped}.")
    counts = {len(steering.interventions) for steering in valid}
    if counts == {0}:
        return f"{len(valid)} fits without interventions{skipped}"
    slowest = max(done.seconds for done in subject.fits)
    number = " or ".join(map(str, sorted(counts))) + (" intervention" if counts == {1} else " interventions")
    return f"{len(valid)} fits of {number}, the slowest {slowest:.1f} s{skipped}"


def model_check_model_unchanged(subject: MethodUnderTest) -> str:
    """A fit leaves hooks, weights and modes of the model as they were."""
    subject.steering()
    for done in subject.fits:
        if done.changed:
            pytest.fail(
                f"the fit of {_where(done)} changed the model: {'; '.join(done.changed)}. Remove every hook "
                "in a finally block, and work on copies."
            )
    return f"hooks, weights and modes are as before {len(subject.fits)} fits"


def model_check_provenance(subject: MethodUnderTest) -> str:
    """The steering file has its whole header, and is read back as it was written."""
    files = 0
    for done in subject.steering():
        where = f"the provenance of {done.cell.key.language!r}"
        if done.problem:
            pytest.fail(f"{where} is not JSON: {done.problem}. Use float(x), x.tolist(), plain dicts and strings.")
        if done.path is None or done.steering is None:
            continue
        stored = load_steering(done.path)
        header = stored.provenance
        for name, kind in _HEADER.items():
            if not isinstance(header.get(name), kind):
                pytest.fail(f"{where}: {name} is {header.get(name)!r:.40}, not a {kind.__name__}.")
        norms, n_layers = header["residual_norm"], header["n_layers"]
        if len(norms) != n_layers or not all(isinstance(x, float | int) and x > 0 for x in norms):
            pytest.fail(f"{where}: residual_norm must be {n_layers} numbers above 0, one per layer.")
        if header != done.steering.provenance or _bytes(stored) != _bytes(done.steering):
            pytest.fail(f"{where} changes when it is read back from its file. Use strings as keys.")
        files += 1
    if not files:
        pytest.skip("the method does not steer")
    return f"{files} steering files with all of {len(_HEADER)} entries"


def model_check_determinism(subject: MethodUnderTest) -> str:
    """Two fits are equal to the byte, whatever the global random states."""
    first, suite = _untouched(subject)[0], subject.suite
    again = suite.fit(subject.build(), first.cell, suite.fitter(fresh=True))
    if not _same(first, again):
        pytest.fail(f"two fits of {_where(first)} differ{_reason(again)}. Draw random numbers from ctx.rng alone.")
    other = suite.fit(subject.build(), first.cell, suite.fitter(), global_seed=1)
    if not _same(first, other):
        pytest.fail(
            f"the fit of {_where(first)} changes with the global random state of random, numpy or torch"
            f"{_reason(other)}. Draw random numbers from ctx.rng alone."
        )
    subject.deterministic, subject.calls = True, other.calls
    return f"three fits of {_where(first)} are equal to the byte, whatever the global random states"


def model_check_independent_of_order(subject: MethodUnderTest) -> str:
    """A fit for a language does not depend on earlier ones."""
    done = _deterministic(subject)
    if len(done) < 2:
        pytest.skip("fewer than two languages are fitted")
    last = done[-1]
    alone = subject.suite.fit(subject.build(), last.cell, subject.suite.fitter())
    if not _same(last, alone):
        pytest.fail(
            f"the fit of {_where(last)} depends on what was fitted before{_reason(alone)}. "
            "Keep nothing in self or in the module, and change no array that ctx gives."
        )
    return f"{_where(last)} alone is the same as after {len(done) - 1} other languages"


def model_check_held_out_text(subject: MethodUnderTest) -> str:
    """The method reads no validation or test text, and other such text changes nothing."""
    first, suite = subject.steering()[0], subject.suite
    if suite.sandbox.held_out:
        pytest.fail(
            f"the method reads {suite.sandbox.held_out[0]}. The score is measured on that text: fit on "
            "ctx.train(), ctx.parallel() and ctx.contrast() alone."
        )
    _deterministic(subject)
    other = suite.fit(subject.build(), first.cell, suite.fitter(corpus=with_other_held_out_text(suite.corpus)))
    if not _same(first, other):
        pytest.fail(f"other validation and test text changes the fit of {_where(first)}{_reason(other)}.")
    return f"other validation and test text leaves the fit of {_where(first)} as it is"


def model_check_model_unchanged_after_error(subject: MethodUnderTest) -> str:
    """A fit that fails half-way leaves the model as it was, too."""
    first, suite = _untouched(subject)[0], subject.suite
    calls = subject.calls or suite.fit(subject.build(), first.cell, suite.fitter()).calls
    if not calls:
        pytest.skip("the fit does not call the model")
    numbers = _to_break(calls, slow=first.seconds > _LONG)
    for number in numbers:
        suite.say(f"model unchanged after error: call {number} of {calls}")
        broken = suite.fit(subject.build(), first.cell, suite.fitter(), break_at=number)
        if broken.changed:
            pytest.fail(
                f"where call {number} of {calls} to the model fails, the fit leaves it changed: "
                f"{'; '.join(broken.changed)}. Remove every hook in a finally block."
            )
    return f"as before, wherever one of {calls} calls to the model fails ({len(numbers)} tried)"


def _untouched(subject: MethodUnderTest) -> list[Fit]:
    """Return the valid fits; skip where they changed the model, which makes everything else doubtful."""
    done = subject.steering()
    if any(one.changed for one in subject.fits):
        pytest.skip("the fits change the model; see model unchanged")
    return done


def _deterministic(subject: MethodUnderTest) -> list[Fit]:
    """Return the valid fits; skip where they are not the same twice."""
    done = _untouched(subject)
    if not subject.deterministic:
        pytest.skip("needs fits that are the same twice; see determinism")
    return done


def _to_break(calls: int, slow: bool) -> list[int]:
    """Return which calls fail: all of a few, of many the first, the last and some between."""
    if calls <= _ALL_CALLS and not slow:
        return list(range(1, calls + 1))
    between = set() if slow else {2, calls // 4, calls - 1}
    return sorted({1, calls // 2, calls} | between - {0})


def _same(one: Fit, other: Fit) -> bool:
    return one.steering is not None and other.steering is not None and _bytes(one.steering) == _bytes(other.steering)


def _bytes(steering: Steering) -> list[tuple[Any, ...]]:
    """Return everything that decides what a steering does, for a comparison byte by byte."""
    return [
        tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in vars(item).values())
        for item in steering.interventions
    ]


def _where(done: Fit) -> str:
    return f"{done.cell.key.task}/{done.cell.key.language}"


def _reason(done: Fit) -> str:
    """Return why a fit that worked before failed now, empty where it did not."""
    reason = done.error or done.skipped
    return f" (this time: {reason})" if reason else ""
