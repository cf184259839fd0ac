"""Encoders by name: a checkpoint, and how it reads texts; nothing is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from harness.core.checkpoints import Checkpoint, NotDownloadedError, resolve_checkpoint
from harness.core.errors import InvalidFileError, UserError, unknown
from harness.core.files import JsonValue
from harness.core.reading import read_json

Pooling = Literal["mean", "cls", "last"]
"""The vector of a text: the mean of its tokens' states, the state of the first token, or of the last."""
POOLINGS = get_args(Pooling)
OPTIONS = ("name", "pooling", "prefix")
NONE = "none"  # the prefix option's word for no prefix
_LONGEST_PREFIX = 1000  # characters
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)  # as on the hub
_POOLING_FILE, _PROMPTS_FILE = "1_Pooling/config.json", "config_sentence_transformers.json"
_POOLING_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True)
class Encoder:
    """A checkpoint that turns texts into vectors. ``prefix``: what comes before every text, with its blank.

    ``options``: those that were given, as names of metrics show them.
    """

    checkpoint: Checkpoint
    prefix: str = ""
    pooling: Pooling = "mean"
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The checkpoint with the options: another prefix is another metric."""
        return ",".join([self.checkpoint.name, *self.options])

    @property
    def signature(self) -> str:
        """The weights, and how they read a text."""
        checkpoint = self.checkpoint
        return f"{checkpoint.name}@{checkpoint.fingerprint}|{self.pooling}-pooled{signature_of_prefix(self.prefix)}"


def signature_of_prefix(prefix: str) -> str:
    """Return a signature's part for a prefix: empty without one."""
    return f"|prefix:{json.dumps(prefix, ensure_ascii=False)}" if prefix else ""


def open_encoder(spec: str, training: Collection[str] = ()) -> Encoder:
    """Return the encoder of ``KIND:PATH_OR_ID[,option=value...]``.

    ``prefix``: the name of one of the checkpoint's prompts, or the text itself: ``query``, ``query:`` and ``query: ``
    are all "query: ", and ``none`` means none. ``pooling``: one of ``POOLINGS``. Without these, a checkpoint of
    sentence-transformers is read as its own files say, any other by the mean and without a prefix. ``name``: the hub id
    that a local copy goes by in names of metrics.

    ``training``: names of options of fine-tuning, which are the caller's; an encoder that has them has no pooling, and
    no prefix but one that is given. Raises ``UserError`` for anything else, and where there is no model.
    """
    kind, _, rest = spec.partition(":")
    path, *options = rest.split(",")
    given = _parse(spec, options, training)
    if training and "pooling" in given:
        raise UserError(
            f"{spec!r}: a fine-tuned encoder is read by its classification head. Leave out pooling=, or use frozen:."
        )
    if given.get("pooling", "mean") not in POOLINGS:
        raise unknown("pooling", given["pooling"], POOLINGS, f"In {spec!r}.")
    try:
        checkpoint = resolve_checkpoint(path, plain=True)
    except NotDownloadedError as error:
        local = ",".join([f"{kind}:FOLDER", f"name={path}", *options])
        raise UserError(f"{error} For a local copy under its name, give {local}.") from None
    if "name" in given:
        checkpoint = _renamed(checkpoint, given["name"], spec)
    prompts, default = _prompts(checkpoint)
    prefix = _prefix(given["prefix"], prompts, spec) if "prefix" in given else "" if training else default
    pooling = given.get("pooling") or ("mean" if training else _own_pooling(checkpoint))
    # Without what ``_prefix`` adds.
    shown = [f"{name}={re.sub(': ?$', '', text)}" for name, text in sorted(given.items()) if name != "name"]
    return Encoder(checkpoint, prefix, cast(Pooling, pooling), tuple(shown))


def _parse(spec: str, options: Sequence[str], training: Collection[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for option in options:
        name, _, text = option.partition("=")
        if name in training:
            continue
        if name not in OPTIONS:
            raise unknown("option", name, OPTIONS, f"In {spec!r}.")
        if name in given:
            raise UserError(f"{spec!r} has the option {name!r} twice; give it once.")
        given[name] = text
    return given


def _renamed(checkpoint: Checkpoint, name: str, spec: str) -> Checkpoint:
    if checkpoint.revision is not None:
        raise UserError(f"{spec!r}: name= is for a local folder. Leave it out: a hub id is a name.")
    if not _NAME.fullmatch(name):
        raise UserError(f"{spec!r}: {name!r} is not the id of a model. Give OWNER/NAME, as on the hub.")
    return replace(checkpoint, name=name)


def _prefix(text: str, prompts: dict[str, str], spec: str) -> str:
    """Return the prefix that an option means."""
    if text == NONE:
        return ""
    if text in prompts:
        return prompts[text]
    problem = _problem(text) or ("is empty" if not text.strip() else "")
    if problem:
        raise UserError(f"{spec!r}: the prefix {problem}. Give it as prefix=query, or prefix={NONE}.")
    if text[-1].isalnum():
        if prompts:
            raise unknown("prompt", text, [*prompts, NONE], f"In {spec!r}. A prefix of your own ends in a colon.")
        return f"{text}: "
    return f"{text} " if text.endswith(":") else text


def _problem(text: str) -> str:
    """Return what is wrong with a prefix; empty where nothing is."""
    if len(text) > _LONGEST_PREFIX:
        return f"has more than {_LONGEST_PREFIX} characters"
    return "" if text.isprintable() else "has line breaks or invisible characters"


def _prompts(checkpoint: Checkpoint) -> tuple[dict[str, str], str]:
    """Return the prompts of a checkpoint of sentence-transformers by name, and the one it uses by default."""
    body = _own_file(checkpoint, _PROMPTS_FILE)
    prompts, default = body.get("prompts") or {}, body.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise _damaged(checkpoint, _PROMPTS_FILE, "has prompts that are not texts by name")
    found = cast(dict[str, str], prompts)
    for text in found.values():
        # Line breaks are usual in instructions.
        if problem := _problem(text.replace("\n", " ")):
            raise _damaged(checkpoint, _PROMPTS_FILE, f"has a prompt that {problem}")
    if default is None:
        return found, ""
    if not isinstance(default, str) or default not in found:
        raise _damaged(checkpoint, _PROMPTS_FILE, "names a default prompt that it does not have")
    return found, found[default]


def _own_pooling(checkpoint: Checkpoint) -> Pooling:
    """Return the pooling that a checkpoint of sentence-transformers names; the mean where it names none."""
    body = _own_file(checkpoint, _POOLING_FILE)
    modes = [name for name, value in body.items() if name.startswith("pooling_mode_") and value is True]
    if isinstance(mode := body.get("pooling_mode"), str):
        modes = [mode]
    known = {**_POOLING_MODES, **{name: cast(Pooling, name) for name in POOLINGS}, "lasttoken": "last"}
    if body and (len(modes) != 1 or modes[0] not in known):
        raise _damaged(checkpoint, _POOLING_FILE, "names another pooling than mean, cls or last", "Give pooling=.")
    return known[modes[0]] if body else "mean"


def _own_file(checkpoint: Checkpoint, name: str) -> dict[str, JsonValue]:
    """Return a JSON file of a checkpoint, empty where it has none."""
    path = checkpoint.folder / name
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except InvalidFileError as error:
        raise _damaged(checkpoint, name, error.problem) from None


def _damaged(checkpoint: Checkpoint, name: str, problem: str, hint: str = "Get the checkpoint again.") -> UserError:
    return UserError(f"{checkpoint.folder / name} {problem}. {hint}")
