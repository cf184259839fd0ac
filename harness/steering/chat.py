"""What goes into a model around a text: the prompt in its chat form, and the token that ends an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from harness.steering.model import SteerableModel

Template = Literal["chat", "instruction"]
_MARK = "steerboard"


class Turns(Protocol):
    """A user turn, and a system turn where there is one."""

    @property
    def user(self) -> str:
        """What the model is asked."""

    @property
    def system(self) -> str | None:
        """What it is told before."""


def render(tokenizer: Any, prompt: Turns, template: Template = "chat") -> str:
    """Return the text that goes into the model: by the chat template, else a plain instruction form.

    ``instruction`` takes the plain form even where there is a chat template. Either form has its BOS,
    so the text is later tokenised without adding special tokens.
    """
    if template == "chat" and tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt.user}]
        if prompt.system:
            turns.insert(0, {"role": "system", "content": prompt.system})
        rendered: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return rendered
    system = f"{prompt.system}\n\n" if prompt.system else ""
    bos = tokenizer.bos_token or ""
    return f"{bos}{system}### Instruction:\n{prompt.user}\n\n### Response:\n"


def end_token(model: SteerableModel, template: Template = "chat") -> int | None:
    """Return the token that an answer ends with, None for a model that has none.

    A model may stop at several tokens (Gemma: end of text, end of turn). The one that the chat
    template writes after an answer is taken; else the tokenizer's own end token.
    """
    tokenizer = model.tokenizer
    stops = model.model.generation_config.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    if template == "chat" and tokenizer.chat_template:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
        after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(_MARK)[2]
        written = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
        ends = [token for token in written if token in stops]
        if ends:
            return int(ends[0])
    own = tokenizer.eos_token_id
    known = [token for token in stops if token is not None]
    return own if own in known or not known else int(known[0])
