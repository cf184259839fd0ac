"""The architecture: imports run downward only, nothing heavy loads early, names are used once."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.architecture import FLOORS, draw, imports_of, package_of
from support.helpers import ROOT, command, environment, python

import steerboard

RANK = {unit: (floor, i) for floor, units in enumerate(FLOORS) for i, unit in enumerate(units)}
LIGHT = [
    "harness",
    "harness.cli.main",
    "harness.core.records",
    "harness.data.suite",
    "harness.core.cells",
    "harness.core.store",
    "harness.data.contrast",
    "harness.data.backtranslation",
    "harness.methods.registry",
    "harness.cli.list",
    "harness.methods.template",
    "harness.runner.prepare",
    "harness.runner.score",
    "harness.runner.tune",
    "harness.tracks.separation.correlation",
    "harness.tracks.separation.results",
    "harness.tracks.separation.separation",
    "harness.cli.compare",
    "harness.tracks.forcing.planning",
    "harness.tracks.forcing.relevance",
    "harness.tracks.forcing.scoring",
    "harness.tracks.forcing.tables",
    "harness.cli.gate",
    "harness.ranking.gate.calibrate",
    "harness.ranking.gate.report_ci",
    "harness.ranking.cost",
    "harness.ranking.results",
    "harness.ranking.compare",
    "harness.ranking.render",
    "harness.ranking.leaderboard_rows",
    "harness.ranking.summary",
    "harness.engine.inspect_vectors",
    "harness.engine.export",
    "harness.core.interventions",
    "harness.submissions.changes",
    "harness.submissions.check",
    "harness.submissions.record",
    "harness.submissions.submission",
    "harness.submissions.pack",
    "leaderboard.build",
    "leaderboard.charts.heatmap",
]
ENGINE = (
    "harness.core.devices",
    "harness.engine.",
    "harness.scoring.encoders",
    "harness.scoring.finetuning",
    "harness.data.translators",
    "harness.tracks.understanding.lm",
)


def modules() -> dict[str, Path]:
    """Return every module of the two packages but ``harness/__init__.py``, which re-exports the API."""
    found = {}
    for path in sorted([*(ROOT / "harness").rglob("*.py"), *(ROOT / "leaderboard").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "_tasks" not in parts and parts != ("harness", "__init__"):
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def unit(module: str) -> str:
    """Return which unit of the floors a module belongs to; empty for ``harness`` itself."""
    first, _, rest = module.partition(".")
    return "leaderboard" if first == "leaderboard" else rest.split(".")[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the absolute names of all imported modules, those inside of functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module
            yield node.module


def wrong_imports(module: str, tree: ast.AST) -> list[str]:
    """Return the imports of a module that go up, or sideways to a later unit."""
    own = unit(module)
    return [
        target
        for target in imports(tree)
        if target.split(".")[0] in {"harness", "leaderboard"}
        and unit(target) not in {"", own}
        and RANK[unit(target)] > RANK[own]
    ]


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=list(modules()))
def test_a_module_imports_only_from_floors_below_its_own(module, path):
    assert unit(module) in RANK, f"{module} has no floor yet: add its package to FLOORS"
    assert wrong_imports(module, ast.parse(path.read_text(encoding="utf-8"))) == []


def test_an_import_that_goes_up_would_be_noticed():
    upward = ast.parse("def f():\n    from harness.runner.prepare import prepare\n")
    assert wrong_imports("harness.data.suite", upward) == ["harness.runner.prepare"]
    assert wrong_imports("harness.cli.main", upward) == []


def test_the_packages_are_there_to_be_checked():
    assert {unit(module) for module in modules()} == set(RANK)


def test_a_light_module_loads_neither_torch_nor_transformers():
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'lm_eval'} & set(sys.modules)\n"
        "    if heavy:\n        sys.exit(f'{name} loads {heavy}')\nprint('all light')"
    )
    assert python(code, *LIGHT) == "all light\n"


def test_torch_is_imported_at_the_top_of_the_engine_alone():
    found = set()
    for module, path in modules().items():
        statements = ast.parse(path.read_text(encoding="utf-8")).body
        top = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
        if {"torch", "transformers"} & {name.split(".")[0] for node in top for name in imports(node)}:
            found.add(module)
    assert [module for module in sorted(found) if not module.startswith(ENGINE)] == []


def test_help_answers_in_half_a_second():
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command("--help"), check=True, capture_output=True, env=environment())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5  # processor time, which other work on the machine does not lengthen much


def test_help_loads_no_library_of_numbers():
    code = (
        "import sys\nfrom harness.cli.main import main\nsys.argv = ['steerboard', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print({'numpy', 'pandas', 'pydantic', 'torch'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(command(code=code), capture_output=True, text=True, env=environment(), check=True)
    assert done.stderr == "set()\n"


def test_authors_import_from_one_light_module():
    code = (
        "import steerboard, sys\nassert 'harness.methods.contract' not in sys.modules\n"
        "print(*(getattr(steerboard, name).__name__ for name in steerboard.__all__))\nprint('torch' in sys.modules)"
    )
    names, torch = python(code).splitlines()
    assert names.split() == steerboard.__all__
    assert torch == "False"


def test_the_old_address_of_the_api_still_works_without_a_warning():
    code = "from harness import SteeringMethod, register\nimport steerboard\nassert register is steerboard.register"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(ImportError, match="nothing_of_the_kind"):
        from harness import nothing_of_the_kind  # noqa: F401


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "steerboard", "--version"], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.stdout.split()[-1] == steerboard.__version__


def test_a_public_class_name_is_used_once():
    found: dict[str, list[str]] = {}
    for module, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(module)
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


def test_no_file_is_longer_than_500_lines():
    paths = [*modules().values(), *(ROOT / "leaderboard").rglob("*.j?"), *(ROOT / "leaderboard").rglob("*.css")]
    long = {path.name: count for path in paths if (count := len(path.read_text(encoding="utf-8").splitlines())) > 500}
    assert long == {}
