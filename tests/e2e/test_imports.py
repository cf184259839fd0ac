"""The architecture: imports run downward only, nothing heavy loads early, names are used once."""

from __future__ import annotations

import ast
import graphlib
import resource
import subprocess
import sys

import pytest
from support.architecture import FLOORS, draw, imports_of, modules, package_of
from support.helpers import ROOT, command, environment, python

import steerboard

RANK = {package: (floor, i) for floor, packages in enumerate(FLOORS) for i, package in enumerate(packages)}
MODULES = modules()
HEAVY = (  # what may import torch, transformers or scikit-learn at its top
    "harness.engine.",
    "harness.scoring.",
    "harness.data.translators",
    "harness.tracks.understanding.lm",
)
LIGHT_ALL_THE_SAME = (
    "harness.engine.architectures",
    "harness.engine.export",
    "harness.engine.inspect_vectors",
    "harness.scoring.metrics",
)


def is_light(module: str) -> bool:
    """Return whether a module must load without torch."""
    return module.startswith(LIGHT_ALL_THE_SAME) or not f"{module}.".startswith(HEAVY)


def wrong_imports(module: str, tree: ast.AST) -> list[str]:
    """Return the imports of a module that go up, or sideways to a later package."""
    own = package_of(module)
    others = {name for name in imports_of(tree) if package_of(name) not in {"", own}}
    return sorted(name for name in others if RANK[package_of(name)] > RANK[own])


def test_a_module_imports_only_from_packages_below_its_own():
    assert {package_of(module) for module in MODULES} == set(RANK)
    assert {module: wrong for module, tree in MODULES.items() if (wrong := wrong_imports(module, tree))} == {}


def test_an_import_that_goes_up_would_be_noticed():
    upward = ast.parse("def f():\n    from harness.runner.generate import run_stages\n")
    assert wrong_imports("harness.data.suite", upward) == [
        "harness.runner.generate",
        "harness.runner.generate.run_stages",
    ]
    assert wrong_imports("harness.cli.main", upward) == []


def test_no_modules_import_each_other():
    """Those that only type checkers read included: a reader follows them as well."""
    graph = {module: imports_of(tree) & MODULES.keys() - {module} for module, tree in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the cycle
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def test_the_picture_of_the_architecture_is_up_to_date():
    drawn = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == draw(), "draw it again: python tests/support/architecture.py > docs/architecture.svg"


def test_a_light_module_loads_neither_torch_nor_transformers():
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'lm_eval'} & set(sys.modules)\n"
        "    if heavy:\n        sys.exit(f'{name} loads {heavy}')\nprint('all light')"
    )
    light = [module for module in MODULES if is_light(module) and not module.endswith("__main__")]
    assert len(light) > 50
    assert python(code, "steerboard", *light) == "all light\n"


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
    for module, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(module)
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


def test_no_file_is_longer_than_500_lines():
    paths = [path for suffix in ("py", "j2", "js", "css") for path in ROOT.glob(f"[hl]*/**/*.{suffix}")]
    long = {path.name: count for path in paths if (count := len(path.read_text(encoding="utf-8").splitlines())) > 500}
    assert long == {}
