"""What a submission says of itself: from options, from the folder that is there, from the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import UserError
from harness.core.records import CellStatus, Entry, Manifest, MethodIdentity, fit_of
from harness.methods.registry import BUILT_IN
from harness.submissions.card import SCHEMA, Card, unfilled

if TYPE_CHECKING:
    from harness.submissions.pack import PackOptions


def n_expected_cells(manifest: Manifest, entries: Sequence[Entry]) -> int:
    """Return how many cells the whole suite has for these entries."""
    suite = manifest.suite
    return len(entries) * len(suite["languages"]) * len(suite["tasks"]) * len(suite["seeds"])


def build_card_fields(
    out: Path,
    before: Card | None,
    wishes: PackOptions,
    manifest: Manifest,
    identity: MethodIdentity,
    cells: Mapping[str, CellStatus],
) -> dict[str, Any]:
    """Return the fields of submission.yaml, with the results and files of other models as they are.

    Raises ``UserError`` that names everything that nobody has said yet.
    """
    old: dict[str, Any] = before.model_dump(mode="json", by_alias=True) if before else {}
    authors = [{"name": name} for name in wishes.authors] or old.get("authors")
    said = {
        "--author": authors,
        "--contact": wishes.contact or old.get("contact"),
        "--licence": wishes.licence or old.get("licence"),
    }
    lacking = [option for option, value in said.items() if not value]
    if lacking:
        raise UserError(f"say whose submission this is: {', '.join(lacking)} (or {out}/submission.yaml).")
    suite = {"name": manifest.suite["name"], "hash": manifest.suite_hash}
    same = before is not None and before.identity == identity and old["suite"] == suite
    kind = wishes.type or old.get("type") or "code"
    same = same and kind == old["type"]
    if identity.name in BUILT_IN and kind != "code":
        raise UserError(f"{identity.name!r} is built in, so its type is code. Leave out --type {kind}.")
    notes = manifest.method_notes.get(identity.name, "")
    known = old["method"] if old and old["method"]["name"] == identity.name else {"does": "TODO"}
    does = notes if unfilled(known["does"]) else known["does"]
    return {
        "schema": SCHEMA,
        "name": wishes.name or out.resolve().name,
        "version": old.get("version", 1),
        "authors": authors,
        "contact": said["--contact"],
        "licence": said["--licence"],
        "paper": wishes.paper or old.get("paper"),
        "method": {"name": identity.name, "version": identity.version, "does": (does or identity.name)[:300]},
        "type": kind,
        "entry_point": _entry_point(kind, wishes, old, identity.name),
        "config": identity.config,
        "models": old["models"] if same else [],
        "suite": suite,
        "compute": _compute(cells),
        "tuned_on": _tuned_on(wishes, old, manifest, identity.name),
        "files": old["files"] if same else {},
        "results": old["results"] if same else [],
    }


def _entry_point(kind: str, wishes: PackOptions, old: Mapping[str, Any], name: str) -> str | None:
    if kind != "code" or wishes.code:
        return None
    return wishes.entry_point or old.get("entry_point") or BUILT_IN.get(name)


def _compute(cells: Mapping[str, CellStatus]) -> dict[str, Any]:
    """Return the devices and the hours, fits counted once."""
    done = [status for status in cells.values() if status.state == "ok"]
    fits = fit_of(done)
    seconds = sum(status.seconds for status in done) + (fits.seconds if fits else 0.0)
    devices = sorted({status.device for status in done if status.device})
    return {"device": ", ".join(devices)[:100] or "none", "hours": round(seconds / 3600, 4)}


def _tuned_on(wishes: PackOptions, old: Mapping[str, Any], manifest: Manifest, name: str) -> dict[str, Any]:
    tuned = manifest.tuning.get(name)
    if wishes.tuned_on:
        split, _, words = wishes.tuned_on.partition(":")
        return {"split": split, "words": words.strip() or "see the method's description"}
    if tuned is not None:
        words = f"steerboard tune: the best of {tuned.configurations} configurations"
        return {"split": "validation", "words": words}
    known = old.get("tuned_on")
    if known and not unfilled(known["words"]):
        return dict(known)
    return {"split": "none", "words": "default options, not tuned"}
