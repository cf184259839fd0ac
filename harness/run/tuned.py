"""The file of a choice that ``steerboard tune`` made, and the methods of a run that follow it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError
from harness.files import read_json, write_json
from harness.methods.controls import Control
from harness.records import SCHEMA, ModelIdentity, Tuned, TunedMethod
from harness.registry import Registry
from harness.suite import MethodSpec, Suite, explain

FILE = "tuned.json"


def write_tuned(run: Path, tuned: Tuned) -> Path:
    """Write the choice into the folder of the run that is to use it."""
    write_json(run / FILE, tuned.to_json())
    return run / FILE


def read_tuned(run: Path) -> Tuned:
    """Read the choice of a run folder; ``UserError`` where there is none or it is broken."""
    path = run / FILE
    if not path.is_file():
        raise UserError(f"{run} holds no {FILE}. Make it: steerboard tune, with the same --suite and --run.")
    try:
        return Tuned.model_validate(read_json(path, SCHEMA))
    except ValidationError as error:
        raise UserError(f"{path} is broken: {explain(error)}. Tune again.") from None


def check_tuned(tuned: Tuned, run: Path, suite: Suite, model: ModelIdentity | None) -> None:
    """Refuse a choice that was made for another suite or model."""
    if tuned.suite_hash != suite.hash:
        raise UserError(f"{run / FILE} was made for another suite ({tuned.suite}). Tune again.")
    if model is not None and tuned.model != model:
        raise UserError(
            f"{run / FILE} was made on {tuned.model.name} ({tuned.model.fingerprint}, {tuned.model.dtype}), "
            f"this model is {model.name} ({model.fingerprint}, {model.dtype}). Tune again."
        )


def with_tuned(
    specs: Iterable[MethodSpec], chosen: dict[str, TunedMethod], registry: Registry
) -> list[MethodSpec]:
    """Return a suite's list of methods with the chosen options put in; controls follow their method."""
    tuned: list[MethodSpec] = []
    for spec in specs:
        for name, given in ({spec: {}} if isinstance(spec, str) else spec).items():
            options = dict(given or {})
            cls = registry.get(name)
            if name in chosen:
                tuned.append({name: {**options, **(chosen[name].options or {})}})
            elif issubclass(cls, Control):
                options.setdefault("of", cls.Config.model_fields["of"].default)
                tuned += _following(name, options, chosen)
            else:
                tuned.append({name: options})
    return tuned


def _following(name: str, options: dict[str, Any], chosen: dict[str, TunedMethod]) -> list[MethodSpec]:
    """Return a control once per method that it controls, with that method's chosen options."""
    targets = options["of"] if isinstance(options["of"], list) else [options["of"]]
    specs: list[MethodSpec] = []
    for of in targets:
        found = chosen[of].options if of in chosen else None
        shared = {**options.get("options", {}), **(found or {})}
        specs.append({name: {**options, "of": of, **({"options": shared} if shared else {})}})
    return specs
