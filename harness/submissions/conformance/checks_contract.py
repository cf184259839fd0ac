"""Checks of what a method declares: name and docstring, config, supported cells, prompts."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from harness.core.errors import UserError
from harness.core.files import canonical_json
from harness.core.records import Setting
from harness.data.prompts import Prompt
from harness.methods.contract import Reference, Skip, SteeringMethod
from harness.methods.controls import Control
from harness.methods.plugins import in_words
from harness.methods.registry import search_space
from harness.submissions.conformance.kit import MethodUnderTest

_ANSWERS = ("", "1. ሰላም\n2. שלום", '[{"text": "a', "{}", "0.5", "\x00\ufeff")
"""What a model may write, whatever it was asked for."""

_FIELD = re.compile(r"\{\w*\}")
_SOURCE = re.compile(r"Source: \S|arXiv[: ]\d{4}\.\d{4,5}|https?://\S|doi[:.]\S", re.IGNORECASE)


def check_loads(subject: MethodUnderTest) -> str:
    """The class is found, says what it does and where from, and has valid settings."""
    cls, source = subject.cls, subject.registry.sources[subject.name]
    first = (cls.__doc__ or "").strip().split("\n")[0]
    if not first:
        pytest.fail("the class has no docstring; its first line is what the board shows.")
    if not issubclass(cls, Reference | Control) and not _SOURCE.search(first):
        pytest.fail(
            f"the first line of the docstring names no source: {first!r:.80}. End it with "
            "'Source: arXiv 1234.56789', a URL or 'Source: own work.'"
        )
    version: object = cls.version  # what an author wrote, whatever the annotation says
    if not isinstance(version, str) or not version.strip():
        pytest.fail(f"version is {cls.version!r}; give a string such as '1'.")
    if set(cls.settings) - set(get_args(Setting)) or len(set(cls.settings)) < len(cls.settings):
        pytest.fail(f"settings {cls.settings!r}: use each of {', '.join(get_args(Setting))} once at most.")
    return f"{subject.name} version {cls.version} ({source}), settings {', '.join(cls.settings)}"


def check_config(subject: MethodUnderTest) -> str:
    """The config has defaults, survives JSON, and refuses unknown options; the search space is valid."""
    cls = subject.cls.Config
    try:
        default = cls()
    except Exception as error:  # an author's validator may raise anything
        pytest.fail(f"Config() does not work: {in_words(error)}. Give every option a default.")
    _check_json(cls, default)
    try:
        cls.model_validate({"no_such_option": 1})
    except ValidationError:
        pass
    else:
        pytest.fail("Config takes options that it does not have. Leave extra='forbid' of MethodConfig as it is.")
    _check_search_space(subject.cls)
    try:
        subject.method = subject.build()
    except UserError as error:
        hint = " (see also test_config, whose options are used here)" if subject.cls.test_config else ""
        pytest.fail(f"{error}{hint}")
    _check_json(cls, subject.method.config)
    shown = ", ".join(f"{k}={v!r}" for k, v in subject.method.config.model_dump(mode="json").items())
    return shown or "no options"


def _check_json(cls: Any, config: Any) -> None:
    try:
        written = config.model_dump(mode="json")
        canonical_json(written)
    except Exception as error:  # pydantic raises its own errors here
        pytest.fail(
            f"the config cannot be written as JSON: {in_words(error)}. Use numbers, strings, lists and models of them."
        )
    try:
        same = cls.model_validate(written) == config
    except ValidationError as error:
        pytest.fail(f"the config cannot be read back from its JSON: {in_words(error)}")
    if not same:
        pytest.fail(f"the config changes when it is read back from its JSON: {written}. Use plain types.")


def _check_search_space(cls: type[SteeringMethod]) -> None:
    try:
        space = search_space(cls)
    except UserError as error:
        pytest.fail(str(error))
    for name, value in [(name, value) for name, values in space.items() for value in values]:
        try:
            cls.Config.model_validate({name: value})
        except ValidationError:
            pytest.fail(f"search_space: {value!r} is not a valid value of option {name!r}.")


def check_supports(subject: MethodUnderTest) -> str:
    """``supports`` gives None or a reason for every cell, and some cell is supported."""
    method, supported, reasons = subject.configured(), [], Counter[str]()
    cells = subject.suite.cells(method)
    for cell in cells:
        try:
            with subject.suite.sandbox.record():
                skip: object = method.supports(subject.suite.context(cell))
        except Exception as error:  # the method's code
            pytest.fail(f"supports raised for {cell.title}: {in_words(error)}")
        if skip is None:
            supported.append(cell)
        elif isinstance(skip, Skip) and isinstance(skip.reason, str) and skip.reason.strip():
            reasons[f"{cell.key.language}: {skip.reason}"] += 1
        else:
            pytest.fail(f"supports gave {skip!r:.60} for {cell.title}; return None, or Skip('the reason').")
    listed = "; ".join(list(reasons)[:3]) + ("; ..." if len(reasons) > 3 else "")
    if not supported:
        pytest.fail(f"none of the {len(cells)} cells of the mini suite is supported ({listed or 'no setting fits'}).")
    subject.supported = supported
    return f"{len(supported)} of {len(cells)} cells" + (f", skipped {listed}" if listed else "")


def model_check_prompt(subject: MethodUnderTest) -> str:
    """Every text of every supported cell has a complete prompt, the same one every time."""
    method, prompts = subject.configured(), {}
    for cell in subject.cells():
        try:
            prompts[cell.id], again = subject.ask(method, cell), subject.ask(method, cell)
        except Exception as error:  # the method's code
            pytest.fail(f"prompt raised for {cell.title}: {in_words(error)}")
        for label, given in prompts[cell.id].items():
            for prompt in given:
                _check_prompt(prompt, f"{cell.title}, label {label!r}")
            if again[label] != given:
                pytest.fail(
                    f"two calls for {cell.title}, label {label!r}, give two prompts. Let a prompt depend on "
                    "its context alone: no randomness, no counter, no clock."
                )
    _check_review(subject, method)
    subject.prompts = prompts
    number = sum(len(dict.fromkeys(given)) for by_label in prompts.values() for given in by_label.values())
    return f"{number} prompts of {len(prompts)} cells, the same twice"


def _check_prompt(given: Any, where: str, *, asks: bool = False) -> None:
    if not isinstance(given, Prompt):
        pytest.fail(f"prompt gave {type(given).__name__} for {where}; return a Prompt.")
    if not isinstance(given.user, str) or not given.user.strip():
        pytest.fail(f"the user turn for {where} is {given.user!r:.40}; give it some text.")
    if given.system is not None and not isinstance(given.system, str):
        pytest.fail(f"the system turn for {where} is {given.system!r:.40}; give a string or None.")
    open_field = _FIELD.search(f"{given.user}\n{given.system or ''}")
    if open_field and not asks:  # a question holds the text
        pytest.fail(
            f"the prompt for {where} holds the unfilled field {open_field.group()}. Fill it from ctx, or "
            "start from ctx.suite_prompt()."
        )
    if given.parse:
        _check_parser(given.parse, where)


def _check_review(subject: MethodUnderTest, method: SteeringMethod) -> None:
    """Let the method look at texts as it does after they were written."""
    texts, cell = [text for text in _ANSWERS if text], subject.cells()[0]
    try:
        questions, edited = subject.review(method, cell, texts)
    except Exception as error:  # the method's code
        pytest.fail(f"check or edit raised for {cell.title}: {in_words(error)}")
    for question in questions:
        if question is not None:
            _check_prompt(question, f"a text of {cell.title} that check asks about", asks=True)
    if not isinstance(edited, list) or len(edited) != len(texts) or not all(isinstance(t, str) for t in edited):
        pytest.fail(f"edit gave {edited!r:.60} for {len(texts)} texts; return a list with one string for each.")


def _check_parser(parse: Any, where: str) -> None:
    for text in _ANSWERS:
        try:
            found: object = parse(text)
        except Exception as error:  # the method's code
            pytest.fail(f"parse of the prompt for {where} raised for the answer {text!r}: {in_words(error)}")
        if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
            pytest.fail(f"parse of the prompt for {where} gave {found!r:.40} for {text!r}; return a list of strings.")
