"""What tests of submissions share: a packed one, a check as JSON, and an attacker who renews hashes."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from harness.core.reading import read_yaml
from harness.submissions.lockfile import FILE, LockFile
from harness.submissions.submission import coverage, find, result_hashes
from support.helpers import ROOT, steerboard

WHO = ["--author", "Ann Other", "--contact", "ann@example.org", "--licence", "CC-BY-4.0"]
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the quick one, where PyYAML has it


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pack(run: Path, out: Path, method: str, *more: object) -> Path:
    """Pack a narrowed run, and fail where that fails."""
    done = steerboard("submission", "pack", run, "--out", out, "--method", method, "--partial", *WHO, *more)
    assert done.code == 0, done.err
    return out


def check(folder: Path, *more: object) -> Any:
    """Return the report of the check as JSON, with the exit code under ``code``."""
    done = steerboard("submission", "check", folder, "--format", "json", *more)
    assert "Traceback" not in done.err
    assert done.code in {0, 1}, done.err
    return {**json.loads(done.out), "code": done.code}


def lines(report: dict[str, Any], level: str = "problem") -> list[str]:
    """Return the findings of a level as lines."""
    return [f"{f['file']}: {f['what']}. {f['todo']}" for f in report["findings"] if f["level"] == level]


def cells(folder: Path, **wanted: object) -> list[Path]:
    """Return the cells of a submission whose key has these values."""
    found = []
    for path in sorted(folder.glob("results/*/*/status.json")):
        key = json.loads(path.read_text())["cell"]
        if all(key[name] == value for name, value in wanted.items()):
            found.append(path.parent)
    return found


def edit_gz(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes())), 1, mtime=0))


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place, compressed or not."""

    def both(data: bytes) -> bytes:
        body = json.loads(data)
        change(body)
        return json.dumps(body).encode()

    if path.suffix == ".gz":
        edit_gz(path, both)
    else:
        path.write_bytes(both(path.read_bytes()))


def edit_card(folder: Path, change: Callable[[Any], None]) -> None:
    path = folder / "submission.yaml"
    body = read_yaml(path)
    change(body)
    path.write_text(yaml.dump(body, Dumper=DUMPER, allow_unicode=True), encoding="utf-8")


def rehash(folder: Path, statuses: bool = True) -> None:
    """Renew all hashes, as somebody does who edits results and knows the format."""
    for result in sorted((folder / "results").iterdir()):
        files, texts = {}, {}
        for path in sorted(result.rglob("*")):
            if not path.is_file() or path.name == "hashes.json":
                continue
            files[path.relative_to(result).as_posix()] = sha256(path.read_bytes())
            if path.name == "generations.jsonl.gz":
                data = gzip.decompress(path.read_bytes())
                texts[path.parent.name] = sha256(data)
                if statuses:
                    status = path.with_name("status.json")  # only the hash: other edits stay as they are
                    known = rb'("generations_sha256":\s*")[0-9a-f]{64}"'
                    renewed = rb"\g<1>" + sha256(data).encode() + b'"'
                    status.write_bytes(re.sub(known, renewed, status.read_bytes()))
                scores = path.with_name("scores.json.gz")
                edit_json(scores, lambda body, data=data: body.update(generations_sha256=sha256(data)))
                files[scores.relative_to(result).as_posix()] = sha256(scores.read_bytes())
        for path in sorted(result.rglob("scores.json.gz")):
            files[path.relative_to(result).as_posix()] = sha256(path.read_bytes())
        data = json.dumps({"schema": 1, "files": files, "texts": texts}).encode()
        (result / "hashes.json").write_bytes(data)

        def renew(card: Any, name: str = result.name, data: bytes = data) -> None:
            for one in card["results"]:
                if one["folder"] == name:
                    one["hashes"] = sha256(data)

        edit_card(folder, renew)


def small_submission(folder: Path, baselines: Path) -> LockFile:
    """Write the published ``human`` with two cells, Amharic and Hebrew, and a lock that has it as checked."""
    shutil.copytree(ROOT / "submissions" / "human", folder)
    kept = {cells(folder, language=code)[0] for code in ("am", "he")}
    for cell in {*cells(folder)} - kept:
        shutil.rmtree(cell)
    rehash(folder)
    edit_card(folder, lambda card: card["results"][0].update(n_cells=2))
    baselines.mkdir(parents=True, exist_ok=True)
    submission, lock = find(folder), LockFile(baselines / FILE)
    [(result, run)] = zip(submission.card.results, submission.runs, strict=True)
    entry = LockFile(ROOT / "baselines" / FILE).body.submissions["human"]
    changes = {**coverage(run), **result_hashes(submission, result), "cells": 2}
    results = {"no-model": entry.results["no-model"].model_copy(update=changes)}
    lock.put("human", entry.model_copy(update={"subject": submission.card.subject, "results": results}))
    return lock
