"""Run the kit: pytest collects the checks of this package, and a plug-in gives them their subject and reports.

A check is a test function that gets the fixture ``subject`` and returns what it found, in words. It fails with
what to do and skips with a reason. Checks run in the order of the files and use what earlier ones found; those
named ``check_*`` are for all methods, ``model_check_*`` and ``reference_check_*`` for one kind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pytest
from rich.console import Console
from rich.markup import escape

from harness.core.cells import Cell
from harness.core.errors import MachineError, UserError, is_infrastructure
from harness.core.interventions import Steering
from harness.data.prompts import Prompt
from harness.methods.contract import Reference, SteeringMethod, cell_prompts
from harness.methods.plugins import in_words, load_file
from harness.methods.registry import Registry, load_registry
from harness.submissions.conformance.instrumented import InstrumentedFitter
from harness.submissions.conformance.tiny_suite import Fit, TinySuite

_CHECKS = ("checks_contract.py", "checks_fit.py", "checks_generation.py")
_ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""}
"""Neither options nor plug-ins of the user's own tests."""

_UNUSED = ("terminal", "cacheprovider", "warnings", "logging", "faulthandler", "unraisableexception", "threadexception")
"""Parts of pytest that the kit does without; the last two collect garbage several times at the end of a session."""


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check, in a line."""

    check: str
    verdict: Literal["ok", "FAILED", "skipped"]
    words: str


@dataclass
class MethodUnderTest:
    """A method on the tiny suite. The fields after ``options`` are what earlier checks found."""

    suite: TinySuite
    registry: Registry
    name: str
    options: dict[str, Any]
    method: SteeringMethod | None = None
    supported: list[Cell] = field(default_factory=list)
    prompts: dict[str, dict[str, list[Prompt]]] = field(default_factory=dict)
    fits: list[Fit] = field(default_factory=list)
    fitter: InstrumentedFitter | None = None
    deterministic: bool = False
    calls: int = 0
    complete: bool = False

    @property
    def cls(self) -> type[SteeringMethod]:
        """The method's class."""
        return self.registry.get(self.name)

    def build(self, **changes: Any) -> SteeringMethod:
        """Return a new instance of the method, with changed options if any."""
        (method,) = self.registry.configure(self.name, {**self.options, **changes})
        return method

    def configured(self) -> SteeringMethod:
        """Return the method; skip the check where its config did not pass."""
        return self.method or pytest.skip("the method could not be set up; see config")

    def cells(self) -> list[Cell]:
        """Return the supported cells; skip the check where there are none."""
        self.configured()
        return self.supported or pytest.skip("no cell is supported; see supports")

    def steering(self) -> list[Fit]:
        """Return the valid fits of the main task; skip the check where there are none."""
        cells = self.cells()
        if not self.configured().has_fit:
            pytest.skip("the method does not steer")
        valid = [fit for fit in self.fits if fit.steering and fit.cell.key.task == cells[0].key.task]
        return valid or pytest.skip("there is no valid fit to look at; see fit")

    def pair(self) -> list[Cell]:
        """Return one cell in each of two languages with different scripts: Amharic and Hebrew where supported."""
        task = self.cells()[0].key.task
        cells = {c.key.language: c for c in reversed(self.cells()) if c.key.task == task}
        wanted = [code for code in ("am", "he") if code in cells] or list(cells)[:2]
        return [cells[code] for code in wanted]

    def steered(self, cell: Cell) -> Steering:
        """Return the steering of a cell: none for a method without a fit."""
        if not self.configured().has_fit:
            return Steering()
        for fit in self.steering():
            if fit.steering and fit.cell.key.language == cell.key.language:
                return fit.steering
        pytest.skip(f"there is no valid fit for {cell.key.language!r}; see fit")

    def prompts_of(self, cell: Cell) -> dict[str, list[Prompt]]:
        """Return the prompts of a cell by label; skip the check where they did not pass."""
        return self.prompts.get(cell.id) or pytest.skip("there are no valid prompts; see prompt")

    def review(self, method: SteeringMethod, cell: Cell, texts: list[str]) -> tuple[list[Any], Any]:
        """Return what the method's ``check`` gives for texts of the first label of a cell, and ``edit`` for all."""
        context = self.suite.context(cell)
        with self.suite.sandbox.record():
            question = cell_prompts(method, context, {})[1] or (lambda *text: None)
            return [question(context.task.labels[0], i, t) for i, t in enumerate(texts)], method.edit(context, texts)

    def ask(self, method: SteeringMethod, cell: Cell) -> dict[str, Any]:
        """Return what the method's ``prompt`` gives for every text of a cell, by label."""
        key, context = cell.key, self.suite.context(cell)
        shots = self.suite.corpus.demonstrations(key.task, key.language) if key.setting == "few-shot" else {}
        with self.suite.sandbox.record():
            return cell_prompts(method, context, shots)[0]


class KitPlugin:
    """The pytest plug-in of the kit. ``error``: what ended the session, other than a failed check."""

    def __init__(self, subject: MethodUnderTest, report: Callable[[CheckResult], None]) -> None:
        self._subject, self._report = subject, report
        self.results: list[CheckResult] = []
        self.error: BaseException | None = None

    @pytest.fixture
    def subject(self) -> MethodUnderTest:
        """The method under test."""
        return self._subject

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool:
        """Run a check and keep the words that it returns."""
        self._subject.suite.say(_name(pyfuncitem))
        pyfuncitem.user_properties.append(("found", pyfuncitem.obj(**pyfuncitem.funcargs)))
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Function, call: pytest.CallInfo[None]) -> None:
        """Report a check that ended; end the session where the machine failed, not the method."""
        error = call.excinfo.value if call.excinfo else None
        if error is None:
            if call.when == "call":
                self._add(item, "ok", str(item.user_properties[-1][1]))
        elif isinstance(error, pytest.skip.Exception):
            self._add(item, "skipped", str(error))
        elif is_infrastructure(error):
            self.error = MachineError(
                f"check {_name(item)!r} could not be done, the machine failed ({_line(str(error)):.200}). "
                "Run the same command again."
            )
            item.session.shouldstop = "machine failure"
        elif isinstance(error, pytest.fail.Exception):
            self._add(item, "FAILED", str(error))
        else:  # the method's code, in an unexpected place
            self._add(item, "FAILED", f"the check could not continue: {in_words(error)}")

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep an error of the kit itself."""
        self.error = excinfo.value

    pytest_keyboard_interrupt = pytest_internalerror

    def _add(self, item: pytest.Function, verdict: Any, words: str) -> None:
        self.results.append(CheckResult(_name(item), verdict, _line(words)))
        self._report(self.results[-1])


def _name(item: pytest.Function) -> str:
    name = item.callspec.id if hasattr(item, "callspec") else item.name.rpartition("check_")[2]
    return name.replace("_", " ")


def _line(words: str) -> str:
    return " ".join(words.split())


def find(what: str, plugins: list[Path]) -> tuple[Registry, str, list[Path]]:
    """Return a registry with the method, the method's name, and the plug-in files that it needs.

    ``what``: a name, the path of a Python file, or a directory with a ``method.py``. Raises ``UserError``
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


def run_checks(
    suite: TinySuite,
    registry: Registry,
    name: str,
    options: dict[str, Any],
    report: Callable[[CheckResult], None] = lambda result: None,
) -> list[CheckResult]:
    """Run every check of a method, or the shorter list for a reference, and report each result as it comes.

    ``options`` come before those of the method's ``test_config``. Raises ``MachineError`` where the machine
    failed.
    """
    suite.begin()
    cls, folder = registry.get(name), Path(__file__).parent
    plugin = KitPlugin(MethodUnderTest(suite, registry, name, {**cls.test_config, **options}), report)
    kind = "reference_check" if issubclass(cls, Reference) else "model_check"
    off = [f"-pno:{part}" for part in _UNUSED]
    place = ["--rootdir", str(folder), "-c", os.devnull, "--noconftest", "--import-mode=importlib"]
    with patch.dict(os.environ, _ENVIRONMENT):
        files = [str(folder / file) for file in _CHECKS]
        code = pytest.main(
            ["-s", "--assert=plain", "-o", f"python_functions=check {kind}", *off, *place, *files], [plugin]
        )
    if plugin.error:
        raise plugin.error
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        raise RuntimeError(f"pytest ended with {code!r} before the checks")
    return plugin.results


def check_method(what: str, options: dict[str, Any], plugins: list[Path], *, as_json: bool = False) -> bool:
    """Check a method, print what was found, and return whether all checks passed.

    Raises ``UserError`` for a method that does not exist, a file that does not load and invalid options.
    """
    started = time.monotonic()
    registry, name, files = find(what, plugins)
    cls = registry.get(name)
    if options and len(registry.configure(name, options)) != 1:
        raise UserError(f"--options {options}: give single values, not lists to sweep over.")
    console = Console(file=sys.stderr)  # this very stream: the sandbox exchanges sys.stderr
    status = console.status("")

    def say(words: str) -> None:
        if console.is_terminal:
            status.update(escape(words))
            status.start()

    def report(result: CheckResult) -> None:
        status.stop()
        if not as_json:
            print(f"{result.verdict:<8} {result.check:<26} {result.words}", flush=True)

    with TinySuite() as suite, contextlib.ExitStack() as stack:
        stack.callback(status.stop)
        suite.say = say
        results = run_checks(suite, registry, name, options, report)
    seconds = time.monotonic() - started
    n_failed, n_skipped = (sum(r.verdict == kind for r in results) for kind in ("FAILED", "skipped"))
    if as_json:
        body = {"method": name, "version": cls.version, "passed": not n_failed, "seconds": round(seconds, 1)}
        print(json.dumps({**body, "checks": [vars(result) for result in results]}, ensure_ascii=False, indent=1))
    else:
        says = f"fails {n_failed} of {len(results)} checks" if n_failed else "keeps the contract"
        print(f"{name} {says}: {len(results) - n_failed - n_skipped} ok, {n_skipped} skipped ({seconds:.0f} s)")
        print("next: fix it, then run the same command again" if n_failed else f"next: {_next_command(cls, files)}")
    return not n_failed


def _next_command(cls: type[SteeringMethod], plugins: list[Path]) -> str:
    given = "".join(f" --plugin {shlex.quote(str(path))}" for path in plugins)
    names = ",".join(dict.fromkeys(["human" if issubclass(cls, Reference) else "zero-shot", cls.name]))
    return f"steerboard run --suite mini{given} --methods {names} --run runs/{cls.name}"
