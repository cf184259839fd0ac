"""A thousand mutated submissions: each is refused in one line; none crashes, hangs, writes or runs."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.helpers import steerboard
from support.submitting import edit_card, edit_gz, edit_json, pack, rehash

from harness.submissions.check import check_files
from harness.submissions.protocol import CheckInputs

LONGEST = 10.0  # seconds
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small submission without a problem: texts by people of the mini suite, Amharic and Hebrew."""
    folder = tmp_path_factory.mktemp("mutations")
    narrow = ["--languages", "am,he", "--tasks", "sentiment", "--seeds", 1, "--limit", 4]
    done = steerboard("run", "--suite", "mini", "--methods", "human,constant", *narrow, "--run", folder / "run")
    assert done.code == 0, done.err
    packed = pack(folder / "run", folder / "submissions" / "human", "human")
    assert not check_files(packed, CheckInputs(None, None, None)).report.problems
    return packed


def chosen(folder: Path, rng: random.Random, suffix: str = "") -> Path:
    """Return a random file of a submission."""
    return rng.choice([p for p in sorted(folder.rglob("*")) if p.is_file() and p.name.endswith(suffix)])


def cells(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("results/*/*/status.json"))


# Mutations of bytes and places, hashes left as they were


def truncated(folder: Path, rng: random.Random) -> None:
    path = chosen(folder, rng)
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def flipped(folder: Path, rng: random.Random) -> None:
    path = chosen(folder, rng, rng.choice([".gz", ".json"]))
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def appended(folder: Path, rng: random.Random) -> None:
    path = chosen(folder, rng, rng.choice([".gz", ".json"]))
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 40)))


def removed(folder: Path, rng: random.Random) -> None:
    chosen(folder, rng).unlink()


def cell_removed(folder: Path, rng: random.Random) -> None:
    shutil.rmtree(rng.choice(cells(folder)))


def other_encoding(folder: Path, rng: random.Random) -> None:
    path = rng.choice([folder / "submission.yaml", *folder.rglob("status.json")])
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.encode(rng.choice(["utf-16", "utf-32", "cp037"])))


def linked(folder: Path, rng: random.Random) -> None:
    path = chosen(folder, rng)
    path.unlink()
    path.symlink_to(rng.choice(["/etc/passwd", "../../sentinel", "/dev/zero", path.name]))


def folder_linked(folder: Path, rng: random.Random) -> None:
    path = rng.choice(cells(folder))
    shutil.move(path, folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def pipe(folder: Path, rng: random.Random) -> None:
    path = chosen(folder, rng)
    path.unlink()
    os.mkfifo(path)


def folder_for_file(folder: Path, rng: random.Random) -> None:
    path = chosen(folder, rng)
    path.unlink()
    path.mkdir()


def extra_file(folder: Path, rng: random.Random) -> None:
    name = rng.choice(["evil.py", ".hidden", "a b", "conftest.py", "x.pkl", "e\u0301.txt", "-rf", "CON.json"])
    rng.choice([folder, *cells(folder), folder / "results"]).joinpath(name).write_text("import os")


def code(folder: Path, rng: random.Random) -> None:
    (folder / "method.py").write_text("open('../ran', 'w').write('x')\nraise SystemExit(3)\n")


def swapped(folder: Path, rng: random.Random) -> None:
    one, other = rng.sample(cells(folder), 2)
    name = rng.choice(["generations.jsonl.gz", "scores.json.gz", "status.json", "predictions.json.gz"])
    first, second = (one / name).read_bytes(), (other / name).read_bytes()
    (one / name).write_bytes(second)
    (other / name).write_bytes(first)


def statuses_swapped(folder: Path, rng: random.Random) -> None:
    one, other = rng.sample(cells(folder), 2)
    first, second = ((cell / "status.json").read_bytes() for cell in (one, other))
    (one / "status.json").write_bytes(second)
    (other / "status.json").write_bytes(first)


def cells_swapped(folder: Path, rng: random.Random) -> None:
    one, other = rng.sample(cells(folder), 2)
    one.rename(folder / "spare")
    other.rename(one)
    (folder / "spare").rename(other)


def wrong_hash(folder: Path, rng: random.Random) -> None:
    path = rng.choice(list(folder.rglob("hashes.json")))
    text = path.read_text()
    at = rng.choice([i for i, sign in enumerate(text) if sign in "0123456789abcdef"])
    path.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])


# Mutations of the format, by somebody who renews all hashes


@functools.cache
def packed_bomb() -> bytes:
    """Return 1.3 MB that unpack to 300 MB."""
    return gzip.compress(b"0" * 300_000_000, 1)


def bomb(folder: Path, rng: random.Random) -> None:
    path = chosen(folder, rng, ".gz")
    path.write_bytes(packed_bomb())


def huge_number(folder: Path, rng: random.Random) -> None:
    signs = rng.choice([b"1e999", b"NaN", b"-Infinity", b"9" * 5000, b"[" * 100_000])
    path = rng.choice([p for p in folder.rglob("*.json*") if p.name in {"status.json", "scores.json.gz"}])

    def change(data: bytes) -> bytes:
        start = data.index(b'"seconds":' if path.name == "status.json" else b'"value":')
        colon = data.index(b":", start) + 1
        end = min(data.index(sign, colon) for sign in (b",", b"}") if sign in data[colon:])
        return data[:colon] + b" " + signs + data[end:]

    path.write_bytes(change(path.read_bytes())) if path.suffix == ".json" else edit_gz(path, change)


def duplicate_key(folder: Path, rng: random.Random) -> None:
    """Not in scores, which renewing the hashes writes anew, without the second key."""
    path = rng.choice([p for p in sorted(folder.rglob("*.json*")) if p.name in {"status.json", "manifest.json"}])

    def change(data: bytes) -> bytes:
        return data.replace(b"{", b'{"schema": 1, "schema": 1, ', 1)

    path.write_bytes(change(path.read_bytes())) if path.suffix == ".json" else edit_gz(path, change)


def extra_field(folder: Path, rng: random.Random) -> None:
    if rng.random() < 0.5:
        edit_card(folder, lambda card: card.update({rng.choice(["run", "__class__", "eval"]): "x"}))
    else:
        path = rng.choice([p for p in folder.rglob("*.json*") if p.name in {"status.json", "manifest.json"}])
        edit_json(path, lambda body: body.update(surprise=1))


def reordered(folder: Path, rng: random.Random) -> None:
    path = chosen(folder, rng, "generations.jsonl.gz")

    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        turn = rng.randrange(1, len(lines))
        return b"".join(lines[turn:] + lines[:turn])

    edit_gz(path, change)


def line_changed(folder: Path, rng: random.Random) -> None:
    path = chosen(folder, rng, "generations.jsonl.gz")
    kind = rng.choice(["drop", "twice", "label", "index", "broken", "field", "number"])

    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        at = rng.randrange(len(lines))
        row = json.loads(lines[at])
        if kind == "drop":
            del lines[at]
        elif kind == "twice":
            lines.insert(at, lines[at])
        elif kind == "broken":
            lines[at] = lines[at][: len(lines[at]) // 2] + b"\n"
        else:
            field, value = {
                "label": ("label", "no label"),
                "index": ("index", row["index"] + 1),
                "field": ("surprise", 1),
                "number": ("n_new_tokens", -5),
            }[kind]
            lines[at] = json.dumps({**row, field: value}, ensure_ascii=False).encode() + b"\n"
        return b"".join(lines)

    edit_gz(path, change)


def identity(folder: Path, rng: random.Random) -> None:
    def change(body: Any) -> None:
        key = body["cell"]
        field = rng.choice(["language", "task", "seed", "suite", "data", "text_protocol", "texts_per_label"])
        key[field] = key[field] + 1 if isinstance(key[field], int) else "x"

    edit_json(rng.choice(list(folder.rglob("status.json"))), change)


def card_value(folder: Path, rng: random.Random) -> None:
    value = rng.choice(["../../etc", "", "a\nb", "\u202ex", "x" * 100_000, None, [], {"a": 1}, float("nan")])
    field = rng.choice(["name", "licence", "contact", "type", "schema", "authors", "method", "suite", "results"])
    edit_card(folder, lambda card: card.update({field: value}))


def card_path(folder: Path, rng: random.Random) -> None:
    place = rng.choice(["../human", "/etc", "..", ".", "a/b", "CON", "results", ".git"])
    edit_card(folder, lambda card: card["results"][0].update(folder=place))


def yaml_trick(folder: Path, rng: random.Random) -> None:
    path = folder / "submission.yaml"
    trick = rng.choice(
        [
            "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n",
            "evil: !!python/object/apply:os.system ['touch ../ran']\n",
            "name: again\nname: twice\n",
            "? [complex, key]\n: 1\n",
            "deep: " + "[" * 3000 + "]" * 3000 + "\n",
        ]
    )
    path.write_text(path.read_text(encoding="utf-8") + trick, encoding="utf-8")


PLAIN: list[Callable[[Path, random.Random], None]] = [
    *(truncated, flipped, appended, removed, cell_removed, other_encoding, linked, folder_linked, pipe),
    *(folder_for_file, extra_file, code, swapped, cells_swapped, wrong_hash, yaml_trick, card_value, card_path),
]
RENEWED: list[Callable[[Path, random.Random], None]] = [
    *(huge_number, duplicate_key, extra_field, reordered, line_changed, identity, cells_swapped, statuses_swapped)
]


def mutate(base: Path, place: Path, number: int) -> tuple[Path, str]:
    """Return a mutated copy and what was done to it; the same for the same number."""
    rng = random.Random(number)
    renewed = number % 2 == 1
    kinds = RENEWED if renewed else PLAIN
    change = bomb if number % 100 == 99 else kinds[number // 2 % len(kinds)]
    folder = place / "submissions" / base.name
    shutil.copytree(base, folder)
    before = snapshot(folder)
    change(folder, rng)
    if renewed:
        with contextlib.suppress(ValueError, KeyError, TypeError, OSError, EOFError, RecursionError):
            rehash(folder)  # what even its author cannot hash stays as it is
    words = f"{number}: {change.__name__}, hashes {'renewed' if renewed else 'left'}"
    return folder, "" if snapshot(folder) == before else words


def snapshot(folder: Path) -> dict[str, bytes]:
    regular = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in regular}


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.nightly)])
def test_mutated_submissions_are_refused_in_one_line(base: Path, tmp_path: Path, count: int) -> None:
    places, accepted, tried = CheckInputs(None, None, None), [], 0
    for number in range(count):
        place = tmp_path / "one"
        place.mkdir()
        (place / "sentinel").write_text("untouched")
        folder, words = mutate(base, place, number)
        if words:
            tried += 1
            start = time.monotonic()
            report = check_files(folder, places).report
            assert time.monotonic() - start < LONGEST, words
            accepted += [] if report.problems else [words]
            for finding in report.findings:
                assert "\n" not in finding.line, words
                assert len(finding.line) < 1000, words
            assert (place / "sentinel").read_text() == "untouched", words
            assert {path.name for path in place.iterdir()} <= {"sentinel", "submissions", "elsewhere"}, words
            assert not list(place.rglob("ran")), words
        shutil.rmtree(place)
    assert tried > 0.95 * count
    assert accepted == []


def raised(body: Any) -> None:
    """Claim a little more than there is."""
    for score in body["scores"]:
        if score["metric"] in {"self_chrf", "length"} and score["value"] is not None:
            score["value"] += 0.05


def sung(data: bytes) -> bytes:
    return data.replace(b'"text": "', b'"text": "la la la la ')


def exchanged(folder: Path) -> None:
    """Give each of two cells the texts of the other."""
    one, other = (cell / "generations.jsonl.gz" for cell in cells(folder)[:2])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


EDITS: dict[str, Callable[[Path], None]] = {
    "scores": lambda folder: edit_json(cells(folder)[0] / "scores.json.gz", raised),
    "texts": lambda folder: edit_gz(cells(folder)[1] / "generations.jsonl.gz", sung),
    "cells": exchanged,
}


@pytest.mark.parametrize("edit", EDITS)
def test_edits_with_new_hashes_are_found_by_scoring_anew(base: Path, tmp_path: Path, edit: str) -> None:
    from harness.submissions.rescore import rescored

    folder = Path(shutil.copytree(base, tmp_path / base.name))
    EDITS[edit](folder)
    rehash(folder)
    checked = check_files(folder, CheckInputs(None, None, None))
    assert not checked.report.problems, "found without scoring: then this test looks at nothing"
    with rescored(checked, ["tfidf"], Console(file=StringIO())):
        assert any("reproduced" in finding.what for finding in checked.report.problems)
