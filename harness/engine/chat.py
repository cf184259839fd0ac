"""Put a prompt into its chat form, and find the token that ends an answer."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.core.errors import UserError, in_words
from harness.data.prompts import Prompt
from harness.data.suite import DATE, PromptFormat, SamplingParams

if TYPE_CHECKING:
    from harness.engine.model import SteerableModel

Turn = dict[str, Any]
"""A turn as transformers takes it: ``role`` and ``content``."""

_MARK = "steerboard"
_SYSTEM_MARK = "leaderboard"
_DIRECTIVES = "aAbBcdDeFGhHIjmMpRSTuUVwWxXyYZz"
_SPECIAL = {"tool_use", "rag"}  # names of templates that are for other conversations than ours


@dataclass(frozen=True)
class ChatUse:
    """How to use a tokenizer's chat template so that it loses no text.

    ``template``: which of several, by name. ``parts``: it reads the content of a turn as a list of parts.
    ``joined``: it has no system turn; that text goes before the first user turn's. ``dated``: it asks
    for today's date.
    """

    template: str | None = None
    parts: bool = False
    joined: bool = False
    dated: bool = False

    def record(self, date: str) -> dict[str, str]:
        """Return the entries of the manifest; none for a template that is used as it is."""
        entries = {
            "template": self.template or "",
            "content": "parts" if self.parts else "",
            "system": "joined to the first user turn" if self.joined else "",
            "date": date if self.dated else "",
        }
        return {name: words for name, words in entries.items() if words}


def chat_use(tokenizer: Any) -> ChatUse:
    """Return how to use the chat template of a tokenizer, found by rendering marks.

    Of several templates it is ``default``, else the only one that is not for tools or documents. Raises
    ``UserError`` where that leaves more than one, and where the text of a user turn is lost in every form.
    """
    name, text = _chosen(tokenizer)
    dated = "strftime_now" in text
    user = {"role": "user", "content": _MARK}
    problem = "the text of the user turn is not in what it writes"
    for parts in (False, True):
        use = ChatUse(name, parts, dated=dated)
        try:
            if _MARK in apply(tokenizer, use, [user]):
                break
        except Exception as error:  # a template is a third-party program
            problem = in_words(error)
    else:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} cannot be used: {problem:.200}"
            ". Give a model with another template, or a suite with sampling: {template: instruction}."
        )
    rendered = ""
    with suppress(Exception):  # most templates without a system turn raise an error of their own
        rendered = apply(tokenizer, use, [{"role": "system", "content": _SYSTEM_MARK}, user])
    return replace(use, joined=not (_MARK in rendered and _SYSTEM_MARK in rendered))


def _chosen(tokenizer: Any) -> tuple[str | None, str]:
    """Return name and text of the template; the name is None where there is one, or a default."""
    templates = tokenizer.chat_template
    if not isinstance(templates, dict):
        return None, str(templates)
    names = ["default"] if "default" in templates else [name for name in templates if name not in _SPECIAL]
    if len(names) != 1:
        raise UserError(
            f"the tokenizer has the chat templates {', '.join(sorted(templates))}, none of them 'default'. "
            "Name one of them 'default' in its tokenizer_config.json."
        )
    return (None if names == ["default"] else names[0]), str(templates[names[0]])


def apply(tokenizer: Any, use: ChatUse, turns: Sequence[Turn], date: str = DATE, **options: Any) -> str:
    """Return a conversation as the template writes it, with ``date`` (ISO) where it asks for today's."""
    turns = _joined(turns) if use.joined else list(turns)
    if use.parts:
        turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    if use.dated:
        options["chat_template"] = _with_date(_chosen(tokenizer)[1], date)
    elif use.template:
        options["chat_template"] = use.template
    rendered: str = tokenizer.apply_chat_template(turns, tokenize=False, **options)
    return rendered


def _with_date(template: str, date: str) -> str:
    """Return a template whose ``strftime_now`` is a macro for one fixed day.

    transformers' own function of that name reads the clock, and it takes no other from outside.
    """
    day = datetime.datetime.fromisoformat(date)
    values = {f"%{pad}{sign}": day.strftime(f"%{pad}{sign}") for pad in ("-", "") for sign in _DIRECTIVES}
    filters = "".join(f" | replace({name!r}, {value!r})" for name, value in values.items())
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}"
    return f"{macro}\n{template}"  # the line break belongs to the block and is trimmed, as in all of them


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """Return turns without a system turn, its text put before that of the first user turn."""
    if not turns or turns[0]["role"] != "system":
        return list(turns)
    first, *rest = turns
    if rest and rest[0]["role"] == "user":
        return [{**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{**first, "role": "user"}, *rest]


def chat_record(tokenizer: Any, sampling: SamplingParams) -> dict[str, str]:
    """Return the manifest's entries on the chat template; ``UserError`` where it cannot be used."""
    if sampling.template != "chat" or not tokenizer.chat_template:
        return {}
    return chat_use(tokenizer).record(sampling.date)


def render(tokenizer: Any, prompt: Prompt, template: PromptFormat = "chat", date: str = DATE, **options: Any) -> str:
    """Return the text that goes into the model, with its BOS: it is later tokenised without adding special tokens.

    ``chat`` takes the plain instruction form where the tokenizer has no chat template. ``options`` go to the chat
    template. Raises ``UserError`` where the template loses a text.
    """
    if template == "chat" and tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt.user}]
        if prompt.system:
            turns.insert(0, {"role": "system", "content": prompt.system})
        use = chat_use(tokenizer)
        rendered = apply(tokenizer, use, turns, date, add_generation_prompt=True, **options)
        for turn in turns:
            if turn["content"].strip() not in rendered:
                raise UserError(
                    f"the chat template loses text of the {turn['role']} turn: {turn['content']!r:.80} is "
                    "not in the prompt. Take another template, or sampling: {template: instruction}."
                )
        return rendered
    system = f"{prompt.system}\n\n" if prompt.system else ""
    bos = tokenizer.bos_token or ""
    if template == "base":
        return f"{bos}{system}{prompt.user}"
    return f"{bos}{system}### Instruction:\n{prompt.user}\n\n### Response:\n"


def end_token(model: SteerableModel, template: PromptFormat = "chat") -> int | None:
    """Return the token that an answer ends with, None for a model that has none.

    A model may stop at several tokens (Gemma: end of text, end of turn). The one that the chat
    template writes after an answer is taken; else the tokenizer's own end token.
    """
    tokenizer = model.tokenizer
    stops = model.model.generation_config.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    if template == "chat" and tokenizer.chat_template:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
        after = apply(tokenizer, chat_use(tokenizer), turns).rpartition(_MARK)[2]
        written = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
        ends = [token for token in written if token in stops]
        if ends:
            return int(ends[0])
    own = tokenizer.eos_token_id
    known = [token for token in stops if token is not None]
    return own if own in known or not known else int(known[0])
