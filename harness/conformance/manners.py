"""Checks of what a method's code did beside its work while the other checks ran it."""

from __future__ import annotations

from harness.conformance.trial import Check, Failed, Trial


def files(trial: Trial) -> str:
    """No file was written, renamed or deleted."""
    trial.configured()
    written = trial.bench.watch.written
    if written:
        raise Failed(f"the method wrote {written[0]!r:.80}. Results go into the steering alone.")
    return "nothing written"


def silence(trial: Trial) -> str:
    """Nothing was printed."""
    trial.configured()
    printed = trial.bench.watch.printed
    if printed:
        raise Failed(f"the method printed {printed[0]!r:.60}. Say what goes on with ctx.progress('...').")
    return "nothing printed"


def network(trial: Trial) -> str:
    """No connection was opened."""
    trial.configured()
    connected = trial.bench.watch.connected
    if connected:
        raise Failed(
            f"the method asked for {connected[0]!r:.60}. Ship what it needs in its package or folder."
        )
    return "no connection"


CHECKS = (Check("files", files), Check("silence", silence), Check("network", network))
