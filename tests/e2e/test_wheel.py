"""The wheel is all that a user needs: built, installed into a fresh environment, run elsewhere."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from support.helpers import ROOT, TASKS, environment

from harness.core.store import Run

pytestmark = pytest.mark.slow


def do(*words: object, cwd: Path, **changes: str) -> str:
    """Run a program outside of the checkout and return what it printed."""
    env = {name: value for name, value in environment(**changes).items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    do(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=ROOT)
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    """What lies in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel and no checkout; the libraries are those of the running one."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home / "env", with_pip=False)
    python = home / "env" / "bin" / "python"
    do(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    packages = do(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip()
    (Path(packages) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "env" / "bin"


def files_of(folder: Path) -> set[str]:
    """Return all files below a folder that belong into a wheel."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)) for path in found}


def test_the_wheel_carries_every_task_file_text_and_weight(names):
    carried = {name.removeprefix("harness/_tasks/") for name in names if name.startswith("harness/_tasks/")}
    assert carried == files_of(TASKS)
    assert {"mini.yaml", "steer11.yaml", "topic/am.yaml", "mini/pocketlm/model.safetensors"} <= carried
    assert {"mini/data/topic/am/test.jsonl", "mini/data/parallel_mt/noise/am.jsonl"} <= carried


def test_the_wheel_carries_the_documentation(names):
    carried = {name.removeprefix("harness/_docs/") for name in names if name.startswith("harness/_docs/")}
    assert carried == files_of(ROOT / "docs")
    assert {"methods.md", "submitting.md", "submission-schema.json"} <= carried


def test_the_installed_command_prints_the_documentation_anywhere(installed, tmp_path):
    page = do(installed / "steerboard", "docs", "methods", cwd=tmp_path)
    assert page == (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("folder", "needed"), [("templates", "index.html.j2"), ("assets", "page.js")])
def test_the_wheel_carries_what_the_pages_are_made_of(names, folder, needed):
    files = files_of(ROOT / "leaderboard" / folder)
    assert needed in files
    assert {f"leaderboard/{folder}/{name}" for name in files} <= names


def test_the_wheel_carries_the_packages_and_nothing_of_the_workshop(names):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"harness", "leaderboard", "steerboard.py"}
    assert {"harness/py.typed", "leaderboard/py.typed", "harness/cli/main.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_wheel_carries_its_licence_and_its_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [licence] = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
        [entry] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert b"Apache License" in archive.read(licence)
        assert b"steerboard = harness.cli.main:main" in archive.read(entry)


def test_the_installed_package_is_not_the_checkout(installed, tmp_path):
    code = "import harness, leaderboard; print(harness.__file__); print(leaderboard.__file__)"
    for line in do(installed / "python", "-c", code, cwd=tmp_path).splitlines():
        assert Path(line).is_relative_to(installed.parent)


def test_the_installed_command_finds_its_suites_anywhere(installed, tmp_path):
    listed = do(installed / "steerboard", "list", "suites", cwd=tmp_path)
    names = [line.split()[0] for line in listed.splitlines()]
    assert names == ["mini", "published", "steer11", "steer11-curve", "tiny-real"]


def test_the_installed_command_runs_scores_and_builds_a_page(installed, tmp_path):
    words = "--suite mini --languages am --tasks sentiment --methods zero-shot,human --seeds 1 --limit 1"
    do(installed / "steerboard", "run", *words.split(), "--run", "mine", cwd=tmp_path)
    run = Run(tmp_path / "mine")
    assert [run.status(cell).state for cell in run.cell_ids()] == ["ok", "ok"]
    assert run.manifest().git_commit is None
    do(installed / "steerboard", "board", "build", "mine", "--out", "site", cwd=tmp_path)
    assert (tmp_path / "site" / "index.html").stat().st_size > 10_000
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "site"}
