"""Checks of what a method's code did beside its work while the other checks ran it."""

from __future__ import annotations

from functools import partial

from harness.submissions.conformance.method_under_test import ConformanceCheck, Failed, MethodUnderTest

_SEEN = {  # check: what the watch calls it, what that is, what to do instead, what is said of none
    "files": ("written", "wrote", "Results go into the steering alone.", "nothing written"),
    "silence": ("printed", "printed", "Say what goes on with ctx.progress('...').", "nothing printed"),
    "network": ("connected", "asked for", "Ship what it needs in its package or folder.", "no connection"),
}


def no_side_effects(name: str, trial: MethodUnderTest) -> str:
    """The watch saw no file written, renamed or deleted; nothing printed; no connection opened."""
    what, verb, advice, none = _SEEN[name]
    trial.configured()
    seen: list[str] = getattr(trial.bench.watch, what)
    if seen:
        raise Failed(f"the method {verb} {seen[0]!r:.80}. {advice}")
    return none


CHECKS = tuple(ConformanceCheck(name, partial(no_side_effects, name)) for name in _SEEN)
