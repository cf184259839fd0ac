"""Checks of what a method says of itself: name and docstring, config, supported cells, prompts."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, get_args

from pydantic import ValidationError

from harness.core.errors import UserError
from harness.core.files import canonical_json
from harness.core.records import Setting
from harness.data.prompts import Prompt
from harness.methods.contract import Reference, Skip, SteeringMethod
from harness.methods.controls import Control
from harness.methods.plugins import in_words
from harness.methods.registry import search_space
from harness.submissions.conformance.method_under_test import ConformanceCheck, Failed, MethodUnderTest

_FIELD = re.compile(r"\{\w*\}")
_SOURCE = re.compile(r"Source: \S|arXiv[: ]\d{4}\.\d{4,5}|https?://\S|doi[:.]\S", re.IGNORECASE)
_NO_OPTION = "no_such_option"


def loads(trial: MethodUnderTest) -> str:
    """The class is found, says what it does and where from, and has sound settings."""
    cls, source = trial.cls, trial.registry.sources[trial.name]
    first = (cls.__doc__ or "").strip().split("\n")[0]
    if not first:
        raise Failed("the class has no docstring; its first line is what the board shows.")
    if not issubclass(cls, Reference | Control) and not _SOURCE.search(first):
        raise Failed(
            f"the first line of the docstring names no source: {first!r:.80}. End it with "
            "'Source: arXiv 1234.56789', a URL or 'Source: own work.'"
        )
    version: object = cls.version  # what an author wrote, whatever the annotation says
    if not isinstance(version, str) or not version.strip():
        raise Failed(f"version is {cls.version!r}; give a string such as '1'.")
    if set(cls.settings) - set(get_args(Setting)) or len(set(cls.settings)) < len(cls.settings):
        raise Failed(f"settings {cls.settings!r}: use each of {', '.join(get_args(Setting))} once at most.")
    return f"{trial.name} version {cls.version} ({source}), settings {', '.join(cls.settings)}"


def config(trial: MethodUnderTest) -> str:
    """The config has defaults, is JSON there and back, and refuses what it does not know."""
    cls = trial.cls.Config
    try:
        default = cls()
    except Exception as error:  # an author's validator may raise anything
        raise Failed(f"Config() does not work: {in_words(error)}. Give every option a default.") from None
    _check_json(cls, default)
    try:
        cls.model_validate({_NO_OPTION: 1})
    except ValidationError:
        pass
    else:
        raise Failed("Config takes options that it does not have. Leave extra='forbid' of MethodConfig as it is.")
    _check_grid(trial.cls)
    try:
        trial.method = trial.build()
    except UserError as error:
        told = " (see also test_config, whose options are used here)" if trial.cls.test_config else ""
        raise Failed(f"{error}{told}") from None
    _check_json(cls, trial.method.config)
    shown = ", ".join(f"{k}={v!r}" for k, v in trial.method.config.model_dump(mode="json").items())
    return shown or "no options"


def _check_json(cls: Any, fields: Any) -> None:
    """Raise ``Failed`` where a config does not survive the way into a file and back."""
    try:
        written = fields.model_dump(mode="json")
        canonical_json(written)
    except Exception as error:  # pydantic raises its own errors here
        raise Failed(
            f"the config cannot be written as JSON: {in_words(error)}. Use numbers, strings, lists and models of them."
        ) from None
    try:
        same = cls.model_validate(written) == fields
    except ValidationError as error:
        raise Failed(f"the config cannot be read back from its JSON: {in_words(error)}") from None
    if not same:
        raise Failed(f"the config read back from its JSON is another one: {written}. Use plain types.")


def _check_grid(cls: type[SteeringMethod]) -> None:
    try:
        grid = search_space(cls)
    except UserError as error:
        raise Failed(str(error)) from None
    for name, values in grid.items():
        for value in values:
            try:
                cls.Config.model_validate({name: value})
            except ValidationError:
                raise Failed(f"grid: {value!r} is no valid value of option {name!r}.") from None


def supports(trial: MethodUnderTest) -> str:
    """``supports`` gives None or a reason for every cell, and some cell is supported."""
    method, cells = trial.configured(), trial.bench.cells(trial.configured())
    reasons: Counter[str] = Counter()
    trial.supported = []
    for cell in cells:
        try:
            with trial.bench.watch.on():
                skip: object = method.supports(trial.bench.context(cell))
        except Exception as error:  # the method's code
            raise Failed(f"supports raised for {cell.title}: {in_words(error)}") from None
        if skip is None:
            trial.supported.append(cell)
        elif isinstance(skip, Skip) and isinstance(skip.reason, str) and skip.reason.strip():
            reasons[f"{cell.key.language}: {skip.reason}"] += 1
        else:
            trial.supported = []
            raise Failed(f"supports gave {skip!r:.60} for {cell.title}; return None, or Skip('the reason').")
    told = "; ".join(list(reasons)[:3]) + ("; ..." if len(reasons) > 3 else "")
    if not trial.supported:
        raise Failed(f"none of the {len(cells)} cells of the mini suite is supported ({told or 'no setting fits'}).")
    return f"{len(trial.supported)} of {len(cells)} cells" + (f", skipped {told}" if told else "")


def prompt(trial: MethodUnderTest) -> str:
    """Every label of every supported cell has a whole prompt, the same one every time."""
    method, count = trial.configured(), 0
    asked: dict[str, dict[str, Prompt]] = {}
    for cell in trial.cells():
        try:
            asked[cell.id] = trial.ask(method, cell)
            again = trial.ask(method, cell)
        except Exception as error:  # the method's code
            raise Failed(f"prompt raised for {cell.title}: {in_words(error)}") from None
        for label, given in asked[cell.id].items():
            _check_prompt(given, f"{cell.title}, label {label!r}")
            if again[label] != given:
                raise Failed(
                    f"two calls for {cell.title}, label {label!r}, give two prompts. Let a prompt depend on "
                    "its context alone: no chance, no counter, no clock."
                )
        count += len(asked[cell.id])
    trial.prompts = asked
    return f"{count} prompts of {len(asked)} cells, the same twice"


def _check_prompt(given: Any, where: str) -> None:
    if not isinstance(given, Prompt):
        raise Failed(f"prompt gave {type(given).__name__} for {where}; return a Prompt.")
    if not isinstance(given.user, str) or not given.user.strip():
        raise Failed(f"the user turn for {where} is {given.user!r:.40}; give it some text.")
    if given.system is not None and not isinstance(given.system, str):
        raise Failed(f"the system turn for {where} is {given.system!r:.40}; give a string or None.")
    open_field = _FIELD.search(f"{given.user}\n{given.system or ''}")
    if open_field:
        raise Failed(
            f"the prompt for {where} holds the unfilled field {open_field.group()}. Fill it from ctx, or "
            "start from ctx.suite_prompt()."
        )


CHECKS = (
    ConformanceCheck("loads", loads),
    ConformanceCheck("config", config),
    ConformanceCheck("supports", supports),
    ConformanceCheck("prompt", prompt),
)
