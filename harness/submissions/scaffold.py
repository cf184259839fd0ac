"""The folder that a new submission starts from."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import UserError, pasted, unknown
from harness.data.suite import load_suite
from harness.methods.contract import check_name
from harness.methods.registry import BUILT_IN, SUBMISSIONS
from harness.methods.template import write_template
from harness.submissions.card import Card
from harness.submissions.checksums import sha256
from harness.submissions.folder import CARD, CODE
from harness.submissions.writing import write_card

ROADS = {
    "code": "method.py, which anybody can run again",
    "steering": "steering files, which the engine applies",
    "outputs": "texts alone, where neither code nor vectors can be given",
}


def new_submission(name: str, road: str, suite_name: str, out: Path | None = None) -> Path:
    """Write submission.yaml, and for road ``code`` a method that works; return the folder.

    Raises ``UserError`` for a name that is taken or not allowed, and a folder that has one already.
    """
    if road not in ROADS:
        raise unknown("road", road, ROADS)
    check_name(name)
    if name in BUILT_IN:
        raise UserError(f"{name!r} is the name of a built-in method. Choose another name.")
    folder = out or Path(SUBMISSIONS) / name
    if folder.name != name:
        raise UserError(f"--out {folder}: its last part has to be the name, {name}.")
    if (folder / CARD).exists():
        raise UserError(f"{folder / CARD} exists and is left as it is. Choose another name.")
    suite = load_suite(suite_name)
    files = {}
    if road == "code":
        path = folder / CODE
        if not path.exists():
            write_template(name, path)
        files = {CODE: sha256(path.read_bytes())}
    card = Card.model_validate(
        {
            "schema": 1,
            "name": name,
            "version": 1,
            "authors": [{"name": "FILL IN your name", "affiliation": "FILL IN or delete this line"}],
            "contact": "FILL-IN@example.org",
            "licence": "CC-BY-4.0",
            "paper": None,
            "method": {"name": name, "version": "1", "does": "FILL IN what it does, in one line"},
            "road": road,
            "suite": {"name": suite.name, "hash": suite.hash},
            "compute": {"device": "written by pack", "hours": 0.0},
            "tuned_on": {"split": "none", "words": "FILL IN how layer and strength were chosen"},
            "files": files,
        }
    )
    write_card(folder, card)
    return folder


def next_commands(name: str, folder: Path, road: str, suite: str) -> list[str]:
    """Return the commands that come after ``new``."""
    run, more = f"runs/{name}", []
    if road == "code" and folder != Path(SUBMISSIONS) / name:
        more += ["--plugin", folder / CODE]
    if load_suite(suite).folder("model") is None:
        more += ["--model", "MODEL"]
    made = "" if road == "code" else "   # or any way that leaves a run folder with the method"
    first = [pasted("method", "test", folder / CODE)] if road == "code" else []
    return [
        *first,
        pasted("run", "--suite", suite, "--methods", f"zero-shot,{name}", "--run", run, *more) + made,
        pasted("submission", "pack", run, "--method", name, "--out", folder),
        pasted("submission", "check", folder),
    ]
