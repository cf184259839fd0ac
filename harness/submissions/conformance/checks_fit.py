"""Checks of what ``fit`` gives: sound, recorded, the same again, from allowed text, without traces."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.core.cells import Cell
from harness.core.interventions import Intervention, Steering, load_steering
from harness.submissions.conformance.bench import Fit
from harness.submissions.conformance.heldout_corpus import with_other_held_out_text
from harness.submissions.conformance.method_under_test import ConformanceCheck, Failed, MethodUnderTest, Skipped

_SLOW = 30.0  # seconds of one fit on the pocket model; a real model is a thousand times its size
_LONG = 1.0  # seconds of a fit from which on fewer calls are made to fail
_ALL_CALLS = 6  # up to here every call to the engine fails once
_HEADER = {
    "method": dict,
    "model": dict,
    "tokenizer": str,
    "language": str,
    "task": str,
    "data": str,
    "layer_convention": str,
    "n_layers": int,
    "hidden_size": int,
    "residual_norm": list,
    "token_rule": str,
    "bos_rule": str,
    "counts": dict,
    "seed": int,
    "versions": dict,
    "fit": dict,
}
"""What every steering file says of how it came about, and of which type."""


def fit(trial: MethodUnderTest) -> str:
    """Every supported language of a task, and one of another task, gives a steering that fits the model."""
    method, groups = trial.configured(), trial.groups()
    if not method.has_fit:
        return "the method steers nothing: it has no fit of its own"
    fitter, problems = trial.bench.fitter(), []
    trial.fitter = fitter
    chosen = _one_task_and_a_second(groups)
    for cell in chosen:
        trial.bench.say(f"fit: {cell.key.task} {cell.key.language}")
        done = trial.bench.fit(method, cell, fitter)
        problem = done.error or (_unsound(done.steering, trial) if done.steering else "")
        if problem:
            problems.append(f"{cell.key.task}/{cell.key.language}: {problem}")
        else:
            trial.fits.append(done)
        if done.seconds > _SLOW:
            raise Failed(f"the fit of {cell.key.language!r} took {done.seconds:.0f} s on a model of 4 layers.")
    if problems:
        raise Failed(_first(problems) + " For a language that it cannot do, let supports return a Skip.")
    return _fitted_in_words(trial)


def _one_task_and_a_second(groups: dict[tuple[str, str], Cell]) -> list[Cell]:
    """Return the cells of the first task, and the first of another task."""
    first = next(iter(groups))[0]
    others = [cell for (task, _), cell in groups.items() if task != first]
    return [cell for (task, _), cell in groups.items() if task == first] + others[:1]


def _unsound(steering: Steering, trial: MethodUnderTest) -> str:
    """Return what is wrong with a steering on the model of the bench, empty for nothing."""
    model = trial.bench.model
    last = len(model.layers) - 1
    for item in steering.interventions:
        if type(item) is not Intervention:
            return f"an intervention is a {type(item).__name__}, not an Intervention."
        if not isinstance(item.layer, int) or not 0 <= item.layer <= last:
            return (
                f"layer {item.layer}, the model has layers 0 to {last}. Take ctx.layer(0.5), a fraction of "
                "the depth, or give a layer with --options."
            )
        neurons = int(model.model.config.intermediate_size)
        size = neurons if item.site == "mlp_neurons" else model.hidden_size
        if item.vector.shape != (size,):
            return f"a vector of {len(item.vector)} numbers at {item.site}, where the model has {size}."
        if item.vector.dtype != np.float32:
            return f"a vector of {item.vector.dtype}; give float32: vector.astype(np.float32)."
    return ""


def _fitted_in_words(trial: MethodUnderTest) -> str:
    sound = [done for done in trial.fits if done.steering]
    skipped = {done.cell.key.language: done.skipped for done in trial.fits if done.skipped}
    told = "".join(f", skipped {code}: {reason}" for code, reason in list(skipped.items())[:2])
    if not sound:
        raise Failed(f"every fit was skipped{told}.")
    items = {len(done.steering.interventions) for done in sound if done.steering}
    if items == {0}:
        return f"{len(sound)} fits, which steer nothing{told}"
    slowest = max(done.seconds for done in trial.fits)
    number = " or ".join(map(str, sorted(items))) + (" intervention" if items == {1} else " interventions")
    return f"{len(sound)} fits of {number}, the slowest {slowest:.1f} s{told}"


def provenance(trial: MethodUnderTest) -> str:
    """The steering file says all of how it came about, and is read back as it was."""
    files = 0
    for done in trial.steering():
        where = f"the provenance of {done.cell.key.language!r}"
        if done.problem:
            raise Failed(f"{where} is not JSON: {done.problem}. Use float(x), x.tolist(), plain dicts and strings.")
        if done.path is None or done.steering is None:
            continue
        stored = load_steering(done.path)
        _check_header(stored.provenance, where)
        if stored.provenance != done.steering.provenance or _bytes(stored) != _bytes(done.steering):
            raise Failed(f"{where} is another one when it is read from its file. Use strings as keys.")
        files += 1
    if not files:
        raise Skipped("the method steers nothing")
    return f"{files} steering files with all of {len(_HEADER)} entries"


def _check_header(header: dict[str, Any], where: str) -> None:
    for name, kind in _HEADER.items():
        if not isinstance(header.get(name), kind):
            raise Failed(f"{where}: {name} is {header.get(name)!r:.40}, which is no {kind.__name__}.")
    norms = header["residual_norm"]
    if len(norms) != header["n_layers"] or not all(isinstance(x, float | int) and x > 0 for x in norms):
        raise Failed(f"{where}: residual_norm must be {header['n_layers']} numbers above 0, one per layer.")


def deterministic(trial: MethodUnderTest) -> str:
    """Two fits are equal to the byte, also where somebody moved the global random states."""
    first, bench = _untouched(trial)[0], trial.bench
    again = bench.fit(trial.build(), first.cell, bench.fitter(fresh=True))
    if not _same(first, again):
        raise Failed(f"two fits of {_where(first)} differ{_reason(again)}. Draw chance from ctx.rng alone.")
    moved = bench.fit(trial.build(), first.cell, bench.fitter(), chance=1)
    if not _same(first, moved):
        raise Failed(
            f"the fit of {_where(first)} changes with the global random state of random, numpy or torch"
            f"{_reason(moved)}. Draw chance from ctx.rng alone."
        )
    trial.determined, trial.calls = True, moved.calls
    return f"three fits of {_where(first)} are equal to the byte, whatever the global random states"


def independent_of_order(trial: MethodUnderTest) -> str:
    """What is fitted for a language does not depend on which came before."""
    done = _determined(trial)
    if len(done) < 2:
        raise Skipped("fewer than two languages are fitted")
    last, bench = done[-1], trial.bench
    alone = bench.fit(trial.build(), last.cell, bench.fitter())
    if not _same(last, alone):
        raise Failed(
            f"the fit of {_where(last)} depends on what was fitted before{_reason(alone)}. "
            "Keep nothing in self or in the module, and change no array that ctx gives."
        )
    return f"{_where(last)} alone is as after {len(done) - 1} other languages"


def held_out(trial: MethodUnderTest) -> str:
    """The method asks for no validation or test text, and other such text changes nothing."""
    first, bench = trial.steering()[0], trial.bench
    if bench.watch.held_out:
        raise Failed(
            f"the method reads {bench.watch.held_out[0]}. The score is measured on that text: fit on "
            "ctx.train(), ctx.parallel() and ctx.contrast() alone."
        )
    _determined(trial)
    other = bench.fit(trial.build(), first.cell, bench.fitter(corpus=with_other_held_out_text(bench.corpus)))
    if not _same(first, other):
        raise Failed(f"other validation and test text changes the fit of {_where(first)}{_reason(other)}.")
    return f"other validation and test text leaves the fit of {_where(first)} as it is"


def leaves_model_unchanged(trial: MethodUnderTest) -> str:
    """A fit leaves hooks, weights and modes of the model as they were."""
    trial.steering()
    for done in trial.fits:
        if done.changed:
            raise Failed(
                f"the fit of {_where(done)} changed the model: {'; '.join(done.changed)}. Remove every hook "
                "in a finally block, and work on copies."
            )
    return f"hooks, weights and modes are as before {len(trial.fits)} fits"


def leaves_model_unchanged_after_error(trial: MethodUnderTest) -> str:
    """A fit that fails half-way leaves the model as it was, too."""
    first, bench = _untouched(trial)[0], trial.bench
    calls = trial.calls or bench.fit(trial.build(), first.cell, bench.fitter()).calls
    numbers = _to_break(calls, slow=first.seconds > _LONG)
    for number in numbers:
        bench.say(f"after an exception: call {number} of {calls}")
        broken = bench.fit(trial.build(), first.cell, bench.fitter(), break_at=number)
        if broken.changed:
            raise Failed(
                f"where call {number} of {calls} to the model fails, the fit leaves it changed: "
                f"{'; '.join(broken.changed)}. Remove every hook in a finally block."
            )
    if not calls:
        raise Skipped("the fit asks the model for nothing")
    return f"as before, wherever one of {calls} calls to the model fails ({len(numbers)} tried)"


def _untouched(trial: MethodUnderTest) -> list[Fit]:
    """Return the sound fits; ``Skipped`` where they changed the model, which makes all else doubtful."""
    done = trial.steering()
    if any(one.changed for one in trial.fits):
        raise Skipped("the fits change the model; see traces")
    return done


def _determined(trial: MethodUnderTest) -> list[Fit]:
    """Return the sound fits; ``Skipped`` where they are not the same twice."""
    done = _untouched(trial)
    if not trial.determined:
        raise Skipped("needs fits that are the same twice; see determinism")
    return done


def _to_break(calls: int, slow: bool) -> list[int]:
    """Return which calls fail: all of a few, of many the first, the last and some between."""
    if calls <= _ALL_CALLS and not slow:
        return list(range(1, calls + 1))
    between = set() if slow else {2, calls // 4, calls - 1}
    return sorted({1, calls // 2, calls} | between - {0}) if calls else []


def _same(one: Fit, other: Fit) -> bool:
    return one.steering is not None and other.steering is not None and _bytes(one.steering) == _bytes(other.steering)


def _bytes(steering: Steering) -> list[tuple[Any, ...]]:
    """Return all that decides what a steering does, as it would be compared byte by byte."""
    return [
        tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in vars(item).values())
        for item in steering.interventions
    ]


def _where(done: Fit) -> str:
    return f"{done.cell.key.task}/{done.cell.key.language}"


def _reason(done: Fit) -> str:
    """Return why a fit that went through before did not now, empty where it did."""
    told = done.error or done.skipped
    return f" (this time: {told})" if told else ""


def _first(problems: list[str]) -> str:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0].rstrip('.')}{more}."


CHECKS = (
    ConformanceCheck("fit", fit),
    ConformanceCheck("traces", leaves_model_unchanged),
    ConformanceCheck("provenance", provenance),
    ConformanceCheck("determinism", deterministic),
    ConformanceCheck("order", independent_of_order),
    ConformanceCheck("held-out text", held_out),
    ConformanceCheck("after an exception", leaves_model_unchanged_after_error),
)
