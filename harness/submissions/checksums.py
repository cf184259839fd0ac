"""The chain of hashes: submission.yaml -> hashes.json of every model -> every file, and texts unpacked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.submissions import limits
from harness.submissions.card import Card, CardResult, Hashes, read_hashes
from harness.submissions.folder import CARD, max_bytes
from harness.submissions.strict_io import InvalidSubmissionError, read_bytes, unpack

_AGAIN = "Pack it again with 'steerboard submission pack'."
TEXTS = "generations.jsonl.gz"


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes as hex."""
    return hashlib.sha256(data).hexdigest()


def verify_checksums(folder: Path, card: Card, files: Iterable[str]) -> list[InvalidSubmissionError]:
    """Return every file that is not what the chain says, is not in the chain, or is missing.

    ``files``: the paths that there are.
    """
    there = list(files)
    own = [file for file in there if file == "method.py" or file.startswith("steering/")]
    problems = list(_differing(folder, "", CARD, card.files, own))
    for result in card.results:
        problems += _broken_result(folder, result, there)
    known = {f"results/{result.folder}" for result in card.results}
    results = [file for file in there if file.startswith("results/")]
    strangers = {"/".join(file.split("/")[:2]) for file in results} - known
    problems += [InvalidSubmissionError(name, f"is no result in {CARD}", "Remove it.") for name in sorted(strangers)]
    return problems


def _broken_result(folder: Path, result: CardResult, there: Iterable[str]) -> Iterator[InvalidSubmissionError]:
    root = f"results/{result.folder}/"
    try:
        hashes, data = read_hashes(folder, result)
    except InvalidSubmissionError as problem:
        yield problem
        return
    if sha256(data) != result.hashes:
        yield InvalidSubmissionError(f"{root}hashes.json", f"is not the file whose SHA-256 {CARD} gives", _AGAIN)
    inside = [file.removeprefix(root) for file in there if file.startswith(root)]
    names = [name for name in inside if name != "hashes.json"]
    yield from _differing(folder, root, f"{root}hashes.json", hashes.files, names)
    yield from _differing_texts(folder, root, hashes, names)


def _differing(
    folder: Path, root: str, listing: str, listed: Mapping[str, str], names: Iterable[str]
) -> Iterator[InvalidSubmissionError]:
    for name in sorted({*listed} - {*names}):
        yield InvalidSubmissionError(f"{root}{name:.120}", f"is missing; {listing} names it", _AGAIN)
    for name in names:
        if name not in listed:
            yield InvalidSubmissionError(f"{root}{name}", f"is not named in {listing}", f"Remove it. Or: {_AGAIN}")
            continue
        try:
            found = sha256(read_bytes(folder / root / name, f"{root}{name}", max_bytes(name)))
        except InvalidSubmissionError as problem:
            yield problem
            continue
        if found != listed[name]:
            yield InvalidSubmissionError(f"{root}{name}", f"was changed: its SHA-256 is not that in {listing}", _AGAIN)


def _differing_texts(folder: Path, root: str, hashes: Hashes, names: Iterable[str]) -> Iterator[InvalidSubmissionError]:
    cells = {name.partition("/")[0] for name in names if name.endswith(f"/{TEXTS}")}
    for cell in sorted({*hashes.texts} ^ cells):
        what = "its texts have no hash, or the hash has no texts"
        yield InvalidSubmissionError(f"{root}hashes.json", f"cell {cell:.40}: {what}", _AGAIN)
    for cell in sorted(cells & {*hashes.texts}):
        file = f"{root}{cell}/{TEXTS}"
        try:
            found = sha256(unpack(read_bytes(folder / file, file, max_bytes(file)), file, limits.UNPACKED[TEXTS]))
        except InvalidSubmissionError as problem:
            yield problem
            continue
        if found != hashes.texts[cell]:
            yield InvalidSubmissionError(file, f"its texts are not those whose SHA-256 {root}hashes.json gives", _AGAIN)
