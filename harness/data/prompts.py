"""What a model is asked, and a suite's own prompts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.core.errors import UserError
from harness.core.languages import language
from harness.data.suite import Task

_FIELD = re.compile(r"\{(label|language|examples|items)\}")

ITEM_END = '"\n'
"""What follows a text in the list of a base prompt, ``{items}``."""


@dataclass(frozen=True)
class Prompt:
    """What the model is asked: one user turn, and a system turn where given.

    ``temperature``, ``top_p`` and ``max_new_tokens`` replace those of the suite where given. ``parse`` turns an answer,
    as the model wrote it, into the texts in it, about ``texts_per_answer``; without it the answer is the text.
    Raises ``UserError`` for a number out of range.
    """

    user: str
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    parse: Callable[[str], list[str]] | None = field(default=None, compare=False)
    texts_per_answer: int = 1

    def __post_init__(self) -> None:
        for name, valid in (
            ("temperature", self.temperature is None or 0 < self.temperature < float("inf")),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1),
            ("max_new_tokens", self.max_new_tokens is None or self.max_new_tokens > 0),
            ("texts_per_answer", self.texts_per_answer > 0),
        ):
            if not valid:
                raise UserError(f"a prompt has {name} {getattr(self, name)!r}, which is out of range.")

    @property
    def sampling(self) -> dict[str, float]:
        """The sampling options that replace the suite's, by name."""
        own = {name: getattr(self, name) for name in ("temperature", "top_p", "max_new_tokens")}
        return {name: value for name, value in own.items() if value is not None}


Question = Callable[[str, int, str], Prompt | None]
"""(label, index, text) -> the yes-or-no question about a text, None for none."""


def suite_prompt(task: Task, setting: str, label: str, demonstrations: tuple[str, ...] = ()) -> Prompt:
    """Return the suite's own prompt of a task for a setting and a label; ``UserError`` where it has none."""
    template = task.prompts.get(setting)
    if template is None:
        raise UserError(f"task {task.name!r} has no prompt for setting {setting!r}; it has {', '.join(task.prompts)}.")
    return Prompt(fill_template(template, label, language(task.language).name, demonstrations))


def fill_template(template: str, label: str, language: str, demonstrations: tuple[str, ...] = ()) -> str:
    """Return a template with its fields replaced, see ``Task``."""
    values = {
        "label": label,
        "language": language,
        "examples": "\n".join(demonstrations),
        "items": "\n".join(f'{i}. "{text}"' for i, text in enumerate((*demonstrations, ""), 1)).removesuffix('"'),
    }
    return _FIELD.sub(lambda match: values[match[1]], template)  # in one pass: demonstrations may hold anything
