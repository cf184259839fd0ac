"""The file of a choice that ``steerboard tune`` made, and the methods of a run that follow it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.core.errors import UserError
from harness.core.files import write_json
from harness.core.reading import read_json
from harness.core.records import SCHEMA, ModelIdentity, Tuned, TunedMethod, format_validation_error
from harness.data.suite import MethodSpec, Suite
from harness.methods.controls import Control
from harness.methods.registry import Registry

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
        raise UserError(f"{path} is broken: {format_validation_error(error)}. Tune again.") from None


def check_tuned(tuned: Tuned, run: Path, suite: Suite, model: ModelIdentity | None, data: Mapping[str, str]) -> None:
    """Refuse a choice that was made for another suite, model or data (hash by task and language)."""
    if tuned.suite_hash != suite.hash:
        raise UserError(f"{run / FILE} was made for another suite ({tuned.suite}). Tune again.")
    if model is not None and tuned.model != model:
        raise UserError(
            f"{run / FILE} was made on {tuned.model.name} ({tuned.model.fingerprint}, {tuned.model.dtype}), "
            f"this model is {model.name} ({model.fingerprint}, {model.dtype}). Tune again."
        )
    shared = [name for name in tuned.data_hashes if name in data]
    other = [name for name in shared if tuned.data_hashes[name] != data[name]]
    if other:
        raise UserError(f"{run / FILE} was made on other data or contrast text of {other[0]}. Tune again.")


def apply_tuning(specs: Iterable[MethodSpec], chosen: dict[str, TunedMethod], registry: Registry) -> list[MethodSpec]:
    """Return a suite's list of methods with the chosen options put in; controls follow their method.

    Raises ``UserError`` where a method is of another version than the one that was tuned.
    """
    tuned: list[MethodSpec] = []
    for spec in specs:
        for name, given in ({spec: {}} if isinstance(spec, str) else spec).items():
            options = dict(given or {})
            cls = registry.get(name)
            if issubclass(cls, Control):
                options.setdefault("of", cls.Config.model_fields["of"].default)
                new = _following(name, options, chosen, registry)
            else:
                new = [{name: {**options, **_choice(name, chosen, registry)}}]
            # A sweep that the suite writes as several items is one row now.
            tuned += [item for item in new if item not in tuned]
    return tuned


def _choice(name: object, chosen: dict[str, TunedMethod], registry: Registry) -> dict[str, Any]:
    """Return the chosen options of a method; none where it was not tuned or nothing passed the gate."""
    found = chosen.get(name) if isinstance(name, str) else None
    if found is None:
        return {}
    version = registry.get(str(name)).version
    if found.version != version:
        raise UserError(
            f"method {name!r} was tuned as version {found.version} and is now version {version}. Tune again."
        )
    return found.options or {}


def _following(
    name: str, options: dict[str, Any], chosen: dict[str, TunedMethod], registry: Registry
) -> list[MethodSpec]:
    """Return a control once per method that it controls, with that method's chosen options."""
    specs: list[MethodSpec] = []
    for of in options["of"] if isinstance(options["of"], list) else [options["of"]]:
        shared = options.get("options") or {}
        found = _choice(of, chosen, registry)
        if found and isinstance(shared, dict):  # else the control's config says what is wrong with it
            shared = {**shared, **found}
        specs.append({name: {**options, "of": of, **({"options": shared} if shared else {})}})
    return specs
