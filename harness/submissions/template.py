"""The directory that a new submission starts from."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import UserError, pasted, unknown
from harness.data.suite import load_suite
from harness.methods.contract import check_name
from harness.methods.registry import BUILT_IN, SUBMISSIONS
from harness.methods.template import write_template
from harness.submissions.card import SCHEMA, Card, write_card
from harness.submissions.files import CARD, CODE, sha256

TYPES = ("code", "vectors", "outputs")


def new_submission(name: str, kind: str, suite_name: str, out: Path | None = None) -> Path:
    """Write submission.yaml, and for type ``code`` a method that works; return the directory.

    Raises ``UserError`` for a name that is taken or not allowed, and a directory that has one already.
    """
    if kind not in TYPES:
        raise unknown("type", kind, TYPES)
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
    if kind == "code":
        path = folder / CODE
        if not path.exists():
            write_template(name, path)
        files = {CODE: sha256(path.read_bytes())}
    card = Card.model_validate(
        {
            "schema": SCHEMA,
            "name": name,
            "version": 1,
            "authors": [{"name": "TODO: your name", "affiliation": "TODO: or delete this line"}],
            "contact": "TODO@example.org",
            "licence": "CC-BY-4.0",
            "paper": None,
            "method": {"name": name, "version": "1", "does": "TODO: what it does, in one line"},
            "type": kind,
            "suite": {"name": suite.name, "hash": suite.hash},
            "compute": {"device": "written by pack", "hours": 0.0},
            "tuned_on": {"split": "none", "words": "TODO: how layer and strength were chosen"},
            "files": files,
        }
    )
    write_card(folder, card)
    return folder


def next_commands(name: str, folder: Path, kind: str, suite: str) -> list[str]:
    """Return the commands that come after ``new``."""
    run, more = f"runs/{name}", []
    if kind == "code" and folder != Path(SUBMISSIONS) / name:
        more += ["--plugin", folder / CODE]
    if load_suite(suite).folder("model") is None:
        more += ["--model", "MODEL"]
    made = "" if kind == "code" else "   # or any way that leaves a run folder with the method"
    first = [pasted("method", "test", folder / CODE)] if kind == "code" else []
    return [
        *first,
        pasted("run", "--suite", suite, "--methods", f"zero-shot,{name}", "--run", run, *more) + made,
        pasted("submission", "pack", run, "--method", name, "--out", folder),
        pasted("submission", "check", folder),
    ]
