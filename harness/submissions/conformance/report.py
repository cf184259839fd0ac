"""What the kit prints: a line per check, a verdict, the next command; or all of it as JSON."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from rich.markup import escape

from harness.core.errors import require
from harness.methods.contract import Reference, SteeringMethod
from harness.submissions.conformance.bench import TestBench
from harness.submissions.conformance.kit import check_options, find, run_checks
from harness.submissions.conformance.method_under_test import CheckResult


class Display:
    """Shows on a terminal what is being checked; elsewhere the lines of the checks say it."""

    def __init__(self) -> None:
        from rich.console import Console

        console = Console(file=sys.stderr)  # this very stream: the watch exchanges sys.stderr
        self._status = console.status("") if console.is_terminal else None

    def say(self, words: str) -> None:
        """Show what is going on."""
        if self._status is not None:
            self._status.update(escape(words))
            self._status.start()

    def clear(self) -> None:
        """Take it away, so that a line can be printed."""
        if self._status is not None:
            self._status.stop()


def test(what: str, options: dict[str, Any], plugins: list[Path], *, as_json: bool = False) -> bool:
    """Check a method, print what was found, and say whether all checks passed.

    Raises ``UserError`` for a method that is not there, a file that does not load and bad options.
    """
    require("run")
    started = time.monotonic()
    registry, name, files = find(what, plugins)
    cls = registry.get(name)
    check_options(cls, registry, options)
    results: list[CheckResult] = []
    display = Display()
    with TestBench() as bench:
        bench.say = display.say
        try:
            for result in run_checks(bench, registry, name, options):
                display.clear()
                results.append(result)
                if not as_json:
                    print(line(result), flush=True)
        finally:
            display.clear()
    seconds = time.monotonic() - started
    passed = all(result.verdict != "FAILED" for result in results)
    if as_json:
        print(json_of(cls, results, seconds))
    else:
        print(verdict(name, results, seconds))
        print(f"next: {next_command(cls, files)}" if passed else "next: mend it, then the same command again")
    return passed


def line(result: CheckResult) -> str:
    """Return the line of a check."""
    return f"{result.verdict:<8} {result.check:<19} {result.words}"


def verdict(name: str, results: list[CheckResult], seconds: float) -> str:
    """Return the last word: how many checks passed, failed and were skipped."""
    count = {kind: sum(r.verdict == kind for r in results) for kind in ("ok", "FAILED", "skipped")}
    says = f"fails {count['FAILED']} of {len(results)} checks" if count["FAILED"] else "keeps the contract"
    return f"{name} {says}: {count['ok']} ok, {count['skipped']} skipped ({seconds:.0f} s)"


def next_command(cls: type[SteeringMethod], plugins: list[Path]) -> str:
    """Return the command that an author needs after a method that passed."""
    given = "".join(f" --plugin {shlex.quote(str(path))}" for path in plugins)
    other = "human" if issubclass(cls, Reference) else "zero-shot"
    names = ",".join(dict.fromkeys([other, cls.name]))
    return f"steerboard run --suite mini{given} --methods {names} --run runs/{cls.name}"


def json_of(cls: type[SteeringMethod], results: list[CheckResult], seconds: float) -> str:
    """Return the outcome for machines."""
    body = {
        "method": cls.name,
        "version": cls.version,
        "passed": all(result.verdict != "FAILED" for result in results),
        "seconds": round(seconds, 1),
        "checks": [vars(result) for result in results],
    }
    return json.dumps(body, ensure_ascii=False, indent=1)
