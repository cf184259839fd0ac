"""What ``steerboard tune`` chose: the file ``tuned.json``, and its options in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.core.files import write_json
from harness.core.records import ModelIdentity, Tuned, TunedMethod
from harness.core.schema import read_record
from harness.data.suite import MethodSpec, Suite
from harness.methods.controls import Control
from harness.methods.prompt_method import PromptMethod
from harness.methods.registry import Registry, named_options

FILE = "tuned.json"


def write_tuned(run: Path, tuned: Tuned) -> Path:
    """Write the choice into the folder of the run that is to use it."""
    write_json(run / FILE, tuned.to_json())
    return run / FILE


def read_tuned(run: Path) -> Tuned:
    """Read the choice of a run folder; ``UserError`` where it is missing or broken."""
    path = run / FILE
    if not path.is_file():
        raise UserError(f"{run} holds no {FILE}. Make it: steerboard tune, with the same --suite and --run.")
    return read_record(path, Tuned)


def check_tuned(tuned: Tuned, run: Path, suite: Suite, model: ModelIdentity | None, data: Mapping[str, str]) -> None:
    """Raise ``UserError`` for a choice that was made for another suite, model or data (hash by task and language)."""
    if tuned.suite_hash != suite.hash:
        raise UserError(f"{run / FILE} was made for another suite ({tuned.suite}). Tune again.")
    if model is not None and tuned.model != model:
        raise UserError(
            f"{run / FILE} was made on {tuned.model.title} ({tuned.model.fingerprint}, {tuned.model.dtype}), "
            f"this model is {model.title} ({model.fingerprint}, {model.dtype}). Tune again."
        )
    other = [name for name, known in tuned.data_hashes.items() if data.get(name, known) != known]
    if other:
        raise UserError(f"{run / FILE} was made on other data or contrast text of {other[0]}. Tune again.")


def apply_tuning(specs: Iterable[MethodSpec], chosen: dict[str, TunedMethod], registry: Registry) -> list[MethodSpec]:
    """Return a suite's list of methods with the chosen options put in; what uses another method's fit follows that.

    A control is listed once per method that it controls, a prompting method once per method that steers it. Raises
    ``UserError`` where a method is of another version than the one that was tuned.
    """
    tuned: list[MethodSpec] = []
    for name, options in named_options(specs):
        cls = registry.get(name)
        key = "of" if issubclass(cls, Control) else "steering" if issubclass(cls, PromptMethod) else ""
        if key:
            of = options.get(key, cls.Config.model_fields[key].default)
            fitted = of if isinstance(of, list) else [of]
            new = [{name: _options_with(options, key, one, chosen, registry)} for one in fitted]
        else:
            new = [{name: {**options, **_choice(name, chosen, registry)}}]
        tuned += [item for item in new if item not in tuned]  # a sweep written as several items is one row now
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


def _options_with(
    options: dict[str, Any], key: str, of: Any, chosen: dict[str, TunedMethod], registry: Registry
) -> dict[str, Any]:
    shared, found = options.get("options") or {}, _choice(of, chosen, registry)
    if found and isinstance(shared, dict):  # else the control's config says what is wrong with it
        shared = {**shared, **found}
    return {**options, key: of, **({"options": shared} if shared else {})}
