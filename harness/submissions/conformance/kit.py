"""Running the kit: which checks there are for a method, one after the other, whatever one of them meets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.core.errors import MachineError, UserError, is_infrastructure
from harness.methods.contract import Reference, SteeringMethod
from harness.methods.plugins import in_words, load_file
from harness.methods.registry import Registry, load_registry
from harness.submissions.conformance import checks_contract as contract
from harness.submissions.conformance import checks_fit as fits
from harness.submissions.conformance import checks_generation as texts
from harness.submissions.conformance import checks_references as references
from harness.submissions.conformance import side_effects as manners
from harness.submissions.conformance.bench import TestBench
from harness.submissions.conformance.method_under_test import (
    CheckResult,
    ConformanceCheck,
    Failed,
    MethodUnderTest,
    Skipped,
)


def find(what: str, plugins: list[Path]) -> tuple[Registry, str, list[Path]]:
    """Return a registry with the method, the method's name, and the plug-in files that it needs.

    ``what``: a name, the path of a Python file, or a folder with a ``method.py``. Raises ``UserError``
    for what is not there, does not load, or is a file with several methods.
    """
    path = Path(what)
    if path.is_dir() and (path / "method.py").is_file():
        path = path / "method.py"
    if path.suffix != ".py" and "/" not in what:
        registry = load_registry(plugins)
        registry.get(what)
        return registry, what, plugins
    names = list(load_file(path))
    if len(names) > 1:
        raise UserError(
            f"{path} registers {', '.join(names)}. Name one of them: steerboard method test {names[0]} --plugin {path}"
        )
    files = [*plugins, path]
    return load_registry(files), names[0], files


def checks_of(cls: type[SteeringMethod]) -> list[ConformanceCheck]:
    """Return the checks for a method, or the shorter list for a reference."""
    own = references.CHECKS if issubclass(cls, Reference) else (*fits.CHECKS, *texts.CHECKS)
    first = [check for check in contract.CHECKS if check.name != "prompt" or not issubclass(cls, Reference)]
    return [*first, *own, *manners.CHECKS]


def check_options(cls: type[SteeringMethod], registry: Registry, options: dict[str, Any]) -> None:
    """Refuse options that do not lead to one method; ``UserError`` says which."""
    if options and len(registry.configure(cls.name, options)) != 1:
        raise UserError(f"--options {options}: give single values, not lists to sweep over.")


def run_checks(bench: TestBench, registry: Registry, name: str, options: dict[str, Any]) -> Iterator[CheckResult]:
    """Run every check of a method; yield each result as it comes.

    ``options`` come before the ones of the method's ``quick``.
    """
    bench.begin()
    trial = MethodUnderTest(bench, registry, name, {**registry.get(name).test_config, **options})
    for check in checks_of(trial.cls):
        bench.say(check.name)
        yield _result(check, trial)


def _result(check: ConformanceCheck, trial: MethodUnderTest) -> CheckResult:
    try:
        return CheckResult(check.name, "ok", _line(check.run(trial)))
    except Failed as found:
        _check_machine(check, found)
        return CheckResult(check.name, "FAILED", _line(str(found)))
    except Skipped as reason:
        return CheckResult(check.name, "skipped", _line(str(reason)))
    except Exception as error:  # the method's code, at a place where nobody thought of it
        _check_machine(check, error)
        return CheckResult(check.name, "FAILED", _line(f"the check could not go on: {in_words(error)}"))


def _check_machine(check: ConformanceCheck, error: Exception) -> None:
    """Raise ``MachineError`` where a check failed because of the machine, not of the method."""
    if is_infrastructure(error):
        raise MachineError(
            f"check {check.name!r} could not be done, the machine failed ({_line(str(error)):.200}). "
            "Run the same command again."
        ) from None


def _line(words: str) -> str:
    return " ".join(words.split())
