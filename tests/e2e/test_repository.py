"""What keeps the repository itself up to date: notes on schemas, versions of Python, automatic updates."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module

import pytest
import yaml
from support.helpers import ROOT

SCHEMAS = re.findall(
    r"^\| .+ \| (\d+) \| `([\w.]+)\.([A-Z_]+)` \|$",
    (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)
"""Number, module and name of every schema that the note lists."""


@pytest.mark.parametrize(("number", "module", "name"), SCHEMAS, ids=[module for _, module, _ in SCHEMAS])
def test_the_upgrade_note_has_the_schema_of_the_code(number, module, name):
    assert getattr(import_module(module), name) == int(number)


def test_the_upgrade_note_lists_every_schema_of_the_code():
    found = {
        (".".join(path.relative_to(ROOT).with_suffix("").parts), name)
        for folder in ("harness", "leaderboard")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"^(\w*SCHEMA)\b[^=\n]*= \d+$", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {(module, name) for _, module, name in SCHEMAS}


def test_ci_runs_on_every_python_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    body = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    tested = body["jobs"]["check"]["strategy"]["matrix"]["python"]
    assert tested == named == ["3.11", "3.12", "3.13", "3.14"]
    assert project["requires-python"] == f">={tested[0]}"


def test_every_action_and_package_is_updated_automatically():
    body = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    updates = {update["package-ecosystem"]: update for update in body["updates"]}
    actions = {f"/{path.parent.relative_to(ROOT)}" for path in (ROOT / ".github").rglob("action.yml")}
    assert set(updates["github-actions"]["directories"]) == {"/", *actions}
    assert updates["pip"]["directory"] == "/"
    assert [rule["dependency-name"] for rule in updates["pip"]["ignore"]] == ["torch"]
