"""The workflows and the composite action: rules of safety, and their scripts run against stand-ins.

actionlint, shellcheck and zizmor were run over them besides; no package of these is needed here.
"""

from __future__ import annotations

import html
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.helpers import ROOT
from support.submitting import edit_card, small_submission

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
LEAST = {
    ("ci", None): {"contents": "read"},
    ("comment", "post"): {"actions": "read", "contents": "read", "pull-requests": "write"},
    ("nightly", None): {"contents": "read"},
    ("gate", "gate"): {"contents": "read"},
    ("pages", "build"): {"contents": "read"},
    ("pages", "deploy"): {"pages": "write", "id-token": "write"},
    ("release", "build"): {"contents": "read"},
    ("release", "publish"): {"attestations": "write", "contents": "write", "id-token": "write"},
    ("submissions", "check"): {"contents": "read"},
}
"""Workflow and job (None: all of it) -> what its token may do."""

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
each_file = pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=lambda path: f"{path.parent.name}/{path.stem}")


def load(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def triggers(body: dict[Any, Any]) -> dict[str, Any]:
    """Return what starts a workflow; YAML 1.1 reads the key ``on`` as true."""
    found = body[True]
    return found if isinstance(found, dict) else dict.fromkeys(found)


def steps(body: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    if "runs" in body:
        yield from body["runs"]["steps"]
    for job in body.get("jobs", {}).values():
        yield from job["steps"]


def scripts() -> list[tuple[str, str]]:
    return [
        (f"{path.stem}/{i}", step["run"])
        for path in (*WORKFLOWS, *ACTIONS)
        for i, step in enumerate(steps(load(path)))
        if "run" in step
    ]


def script(workflow: str, name: str) -> str:
    [found] = [s["run"] for s in steps(load(GITHUB / "workflows" / f"{workflow}.yml")) if s.get("name") == name]
    return found


def test_there_are_workflows_for_all_that_is_promised():
    assert [path.stem for path in WORKFLOWS] == ["ci", "comment", "gate", "nightly", "pages", "release", "submissions"]
    assert [path.parent.name for path in ACTIONS] == ["gate"]


@each_file
def test_actions_are_pinned_by_commit_with_the_version_beside(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r"\s*(- )?uses:", line):
            assert re.search(r"uses: (\./\S+|[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*)$", line), line


@each_file
def test_an_action_has_one_pin_everywhere(path):
    pins: dict[str, set[str]] = {}
    for other in (*WORKFLOWS, *ACTIONS):
        for step in steps(load(other)):
            name, _, pin = step.get("uses", "").partition("@")
            pins.setdefault(name, set()).add(pin)
    for step in steps(load(path)):
        assert len(pins[step.get("uses", "").partition("@")[0]]) == 1


@each_workflow
def test_the_token_may_do_what_is_needed_and_no_more(path):
    body = load(path)
    assert body["permissions"] == LEAST.get((path.stem, None), {})
    for name, job in body["jobs"].items():
        assert job.get("permissions", {}) == LEAST.get((path.stem, name), {}), name


@each_workflow
def test_no_code_of_a_pull_request_meets_a_token_that_writes(path):
    body = load(path)
    assert "pull_request_target" not in path.read_text(encoding="utf-8")
    writes = any("write" in job.get("permissions", {}).values() for job in body["jobs"].values())
    assert not (writes and "pull_request" in triggers(body))
    if "workflow_run" in triggers(body):
        for step in steps(body):
            assert "ref" not in step.get("with", {})
            assert "pip install" not in step.get("run", "")


@each_workflow
def test_every_job_has_a_timeout_and_a_fixed_shape(path):
    for job in load(path)["jobs"].values():
        assert 1 <= job["timeout-minutes"] <= 60


@each_file
def test_nothing_is_pasted_into_a_script(path):
    for step in steps(load(path)):
        assert "${{" not in step.get("run", ""), step["run"]


@each_workflow
def test_checkouts_leave_no_token_behind(path):
    for step in steps(load(path)):
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_the_comment_listens_to_workflows_that_exist():
    names = {load(path)["name"] for path in WORKFLOWS}
    listened = triggers(load(GITHUB / "workflows" / "comment.yml"))["workflow_run"]["workflows"]
    assert set(listened) == {"gate", "submissions"} <= names
    for name in listened:
        body = load(GITHUB / "workflows" / f"{name}.yml")
        uploads = [s["with"]["name"] for s in steps(body) if "upload-artifact@" in s.get("uses", "")]
        assert uploads == ["comment"]


def test_pages_come_from_main_alone():
    body = load(GITHUB / "workflows" / "pages.yml")
    assert triggers(body)["push"]["branches"] == ["main"]
    assert body["jobs"]["build"]["if"] == "github.ref == 'refs/heads/main'"
    assert body["jobs"]["deploy"]["needs"] == "build"
    inputs = {"submissions/**", "baselines/submissions.lock.json", "baselines/measured/**"}
    code = {"steerboard.py", "leaderboard/**", "harness/**", "tasks/**", "pyproject.toml", "constraints.txt"}
    own = {".github/workflows/pages.yml", "docs/**", "mkdocs.yml"}
    assert set(triggers(body)["push"]["paths"]) == inputs | code | own  # everything that the pages are made from


def test_a_release_comes_from_a_tag_of_its_own_version(tmp_path):
    body = load(GITHUB / "workflows" / "release.yml")
    assert triggers(body) == {"push": {"tags": ["v*"]}}
    assert body["jobs"]["publish"]["needs"] == "build"
    stand_in(tmp_path / "bin", "python", 'if [ "$3" = version ]; then echo 1.2.3; else echo "$@" >> calls; fi')
    refused = bash(script("release", "Build"), tmp_path, TAG="v1.2.4")
    assert refused.returncode == 1
    assert "the tag is v1.2.4, the version in pyproject.toml is 1.2.3" in refused.stdout
    assert bash(script("release", "Build"), tmp_path, TAG="v1.2.3").returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [line for line in calls if "build" in line] == ["-m hatchling build -d dist"]


def test_a_release_is_checked_away_from_the_checkout(tmp_path):
    text = script("release", "Check the wheel in an empty environment")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "steerboard-1-py3-none-any.whl").touch()
    (tmp_path / "out").mkdir()
    stand_in(tmp_path, "program", f'echo "$PWD $@" >> {tmp_path}/calls; [ "$1 $2" != "list methods" ]')
    stand_in(tmp_path / "bin", "python", 'mkdir -p "$3/bin"; for p in pip steerboard; do cp program "$3/bin/$p"; done')
    done = bash(text, tmp_path, RUNNER_TEMP=tmp_path / "out")
    assert done.returncode == 1  # a command that fails ends the job
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].endswith("dist/steerboard-1-py3-none-any.whl[board]")
    assert [line.split()[-1] for line in calls[1:]] == ["--version", "suites", "methods"]
    assert all(line.startswith(f"{tmp_path / 'out'} ") for line in calls[1:])


def test_a_release_lists_its_dependencies_and_stops_at_a_known_vulnerability(tmp_path):
    text = script("release", "Audit the dependencies and list them")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "steerboard-1.2-py3-none-any.whl").touch()
    kept = f'echo "${{0##*/}} $@" >> {tmp_path}/calls; [ "$1" != freeze ] || echo numpy==2.4.6'
    stand_in(tmp_path, "program", f'{kept}; [ "${{0##*/}}" != pip-audit ] || exit "$FOUND"')
    names = "pip pip-audit cyclonedx-py python"
    stand_in(tmp_path / "bin", "python", f'mkdir -p "$3/bin"; for p in {names}; do cp program "$3/bin/$p"; done')
    assert bash(text, tmp_path, RUNNER_TEMP=tmp_path / "out", FOUND=1).returncode == 1
    assert "cyclonedx-py" not in (tmp_path / "calls").read_text()
    assert bash(text, tmp_path, RUNNER_TEMP=tmp_path / "out", FOUND=0).returncode == 0
    *_, audit, listing = (tmp_path / "calls").read_text().splitlines()
    assert audit == f"pip-audit --strict --no-deps --disable-pip -r {tmp_path}/out/installed.txt"
    assert (tmp_path / "out" / "installed.txt").read_text() == "numpy==2.4.6\n"
    assert listing.endswith(f"-o dist/steerboard-1.2.cdx.json {tmp_path}/out/full/bin/python")
    names = [step.get("name") for step in steps(load(GITHUB / "workflows" / "release.yml"))]
    assert names.index("Audit the dependencies and list them") > names.index("Build")
    jobs = load(GITHUB / "workflows" / "release.yml")["jobs"]
    assert jobs["build"]["steps"][-1]["with"]["path"] == "dist/"  # all of it is signed and attached


@pytest.mark.parametrize(("name", "text"), scripts(), ids=[name for name, _ in scripts()])
def test_scripts_are_bash(name, text):
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_inputs_of_the_gate_are_those_of_its_action():
    known = load(ACTIONS[0])["inputs"]
    for step in steps(load(GITHUB / "workflows" / "gate.yml")):
        if step.get("uses") == "./.github/actions/gate":
            assert set(step["with"]) <= set(known)
            assert (ROOT / step["with"]["baseline"]).parent.is_dir()
            return
    raise AssertionError("the gate does not use its action")


# The scripts themselves


def stand_in(folder: Path, name: str, text: str) -> None:
    """Write a program that stands in for a real one."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def bash(text: str, cwd: Path, **env: object) -> subprocess.CompletedProcess[str]:
    path = f"{cwd / 'bin'}:{os.environ['PATH']}"
    values = {**os.environ, "PATH": path, **{key: str(value) for key, value in env.items()}}
    strict = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(strict, cwd=cwd, env=values, capture_output=True, text=True)


def git(cwd: Path, *words: str) -> str:
    known = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *known, *words], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def proposed(tmp_path: Path) -> Path:
    """A checkout of a pull request with one published submission, beside the trusted lock."""
    repo = tmp_path / "proposed"
    small_submission(repo / "submissions" / "human", tmp_path / "trusted" / "baselines")
    git(tmp_path, "init", "-q", "proposed")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "base")
    program = "import sys; from harness.cli.main import main; sys.argv[0] = 'steerboard'; main()"
    text = f'exec env PYTHONPATH={ROOT} {sys.executable} -c "{program}" "$@" --no-rescore'
    stand_in(tmp_path / "bin", "steerboard", text)
    return repo


def checked(repo: Path) -> tuple[int, str]:
    """Commit what lies there, run the step of the workflow, and return its exit code and its report."""
    base = git(repo, "rev-parse", "HEAD")
    git(repo, "add", "--all")
    git(repo, "commit", "-qm", "change", "--allow-empty")
    done = bash(
        script("submissions", "Check what changed"), repo.parent, BASE=base, GITHUB_STEP_SUMMARY=repo.parent / "summary"
    )
    assert "Traceback" not in done.stderr
    report = (repo.parent / "report" / "comment.md").read_text("utf-8")
    assert (repo.parent / "summary").read_text("utf-8").endswith(report)
    return done.returncode, html.unescape(report)


def test_only_the_changed_submissions_are_checked_and_all_of_them(proposed):
    (proposed / "README.md").write_text("x")
    assert checked(proposed) == (0, "")
    edit_card(proposed / "submissions" / "human", lambda card: card["authors"][0].update(affiliation="x"))
    for name in ("$(touch hacked)", "x;y", "--help", "new line\nfeed", "שלום", "one"):
        (proposed / "submissions" / name).mkdir()
        (proposed / "submissions" / name / "submission.yaml").write_text("a: 1\n")
    code, report = checked(proposed)
    assert code == 1
    assert re.findall("### Submission (.*?):", report) == ["pull request", "human", "one"]
    assert "### Submission human: fine" in report
    assert report.count("has a name with characters other than") == 5
    assert not list(proposed.parent.rglob("hacked"))


def test_a_link_in_the_place_of_all_submissions_is_red(proposed):
    (proposed / "submissions").rename(proposed / "elsewhere")
    (proposed / "submissions").symlink_to("elsewhere")
    code, report = checked(proposed)
    assert (code, "| submissions | is a link |" in report) == (1, True)
    paths = triggers(load(GITHUB / "workflows" / "submissions.yml"))["pull_request"]["paths"]
    assert paths == ["submissions", "submissions/**"], "which starts the workflow"


FAKE_GH = r"""
echo "$@" >> calls
case "$*" in
  *"/pulls -f"*) cat pulls.json ;;
  *--paginate*) cat comments.json ;;
  *) while [ $# -gt 1 ]; do if [ "$1" = --input ]; then cat "$2" > posted.json; fi; shift; done ;;
esac
"""


def post(tmp_path: Path, comments: list[object], sha: str = "abc") -> subprocess.CompletedProcess[str]:
    stand_in(tmp_path / "bin", "gh", FAKE_GH)
    (tmp_path / "pulls.json").write_text(json.dumps([{"number": 7, "head": {"sha": sha}}]))
    (tmp_path / "comments.json").write_text(json.dumps(comments))
    (tmp_path / ".github").symlink_to(GITHUB)
    names = {"HEAD_OWNER": "fork", "HEAD_BRANCH": "$(touch hacked)", "HEAD_SHA": "abc", "WORKFLOW": "gate"}
    where = {"COMMENT": tmp_path / "comment.md", "RUNNER_TEMP": tmp_path, "REPOSITORY": "o/r"}
    return bash(script("comment", "Post"), tmp_path, **names, **where)


MARKER = "<!-- steerboard gate -->"
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


@needs_jq
@pytest.mark.parametrize("old", [[], [{"id": 5, "user": {"type": "Bot"}, "body": "<!-- steerboard gate -->\nx"}]])
def test_a_comment_is_posted_once_and_replaced_later(tmp_path, old):
    (tmp_path / "comment.md").write_text("### gate\n\n@everyone <script>\n", encoding="utf-8")
    others = [
        {"id": 3, "user": {"type": "User"}, "body": "<!-- steerboard gate -->\nfake"},
        {"id": 4, "user": {"type": "Bot"}, "body": "<!-- steerboard submissions -->\nx"},
    ]
    done = post(tmp_path, [*others, *old])
    assert done.returncode == 0, done.stderr
    last = (tmp_path / "calls").read_text().splitlines()[-1]
    assert ("PATCH repos/o/r/issues/comments/5" if old else "POST repos/o/r/issues/7/comments") in last
    body = json.loads((tmp_path / "posted.json").read_text())["body"]
    header = runpy.run_path(str(GITHUB / "scripts" / "sanitise.py"))["HEADER"]
    assert body == f"<!-- steerboard gate -->\n{header}### gate\n\n@&#8203;everyone &lt;script>\n"
    assert not list(tmp_path.rglob("hacked"))


@needs_jq
@pytest.mark.parametrize(
    "report", ["**maintainers**: approved, badge `regenerated`.\n", "</details>\n<details>\n", "> [!NOTE]\n", ""]
)
def test_a_comment_begins_with_whose_output_it_is_whatever_the_output_says(tmp_path, report):
    (tmp_path / "comment.md").write_text(report, encoding="utf-8")
    assert post(tmp_path, []).returncode == 0
    marker, first, second, *rest = json.loads((tmp_path / "posted.json").read_text())["body"].split("\n")
    assert (marker, first) == (MARKER, "> [!CAUTION]")
    assert second.startswith("> **This is output of the pull request's own code, not a statement")
    assert "" in rest[:3]  # the quotation ends before the output begins
    assert sum(len(line) for line in [marker, first, second, *rest]) < 65_000


@needs_jq
def test_nothing_is_posted_to_another_commit_or_without_a_report(tmp_path):
    (tmp_path / "one").mkdir()
    assert "nothing to post" in post(tmp_path / "one", []).stdout
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "comment.md").write_text("x")
    assert "no open pull request" in post(tmp_path / "two", [], sha="other").stdout
    assert not list(tmp_path.rglob("posted.json"))


def sanitised(text: str) -> str:
    return runpy.run_path(str(GITHUB / "scripts" / "sanitise.py"))["sanitised"](text)


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<aaa<img src=x>",
        "<!-- steerboard gate -->",
        "[a](http://b) ![c](http://d) [e][f]\n[f]: http://g",
        "https://example.org www.example.org WWW.example.org",
        "@everyone @org/team a@b.org",
        "#12 GH-12 o/r#3",
        "&commat;everyone &#64;everyone &#x40;everyone &num;1",
        "\u202eabc\u0007\u0000\u200b",
        "<details open ontoggle=x>",
    ],
)
def test_a_comment_links_mentions_and_hides_nothing(text):
    found = sanitised(text)
    assert not re.search(r"<(?!/?(details|summary|sub)>)", found)
    assert not re.search(r"\]\(|\]\[|\]:|://|www\.|@\w|&(?!(amp|lt|gt|#8203);)|GH-\d", found, re.IGNORECASE)
    assert not re.search(r"(?<!&)#\w", found)
    assert not re.search("[\u202e\u0007\u0000\u200b]", found)


def test_tables_stay_and_what_is_too_long_is_cut():
    table = "### gate\n\n| a | b |\n|---|---:|\n| x\\|y | **1** |\n<details><summary>s</summary>\n"
    assert sanitised(table) == table
    long = sanitised("line\n" * 100_000)
    assert len(long) < 65_000
    assert long.endswith("(cut: the whole report is in the log)\n")


# Templates


@pytest.mark.parametrize("name", ["bug.yml", "submission.yml"])
def test_issue_templates_are_forms(name):
    form = load(GITHUB / "ISSUE_TEMPLATE" / name)
    assert {"name", "description", "body"} <= set(form)
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    names = [part["id"] for part in asked]
    assert len(names) == len(set(names)) > 2
    assert all(part["attributes"]["label"] for part in asked)


def test_there_is_a_template_for_pull_requests():
    text = (GITHUB / "pull_request_template.md").read_text(encoding="utf-8")
    assert "- [ ]" in text
    assert "steerboard submission check" in text
