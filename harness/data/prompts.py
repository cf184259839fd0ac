"""What a model is asked, and a suite's own prompts."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import UserError
from harness.core.languages import language
from harness.data.suite import Task

ITEM_END = '"\n'
"""What follows a text in the list of a base prompt, ``{items}``."""


@dataclass(frozen=True)
class Prompt:
    """What the model is asked: one user turn, and a system turn where given."""

    user: str
    system: str | None = None


def suite_prompt(task: Task, setting: str, label: str, demonstrations: tuple[str, ...] = ()) -> Prompt:
    """Return the suite's own prompt of a task for a setting and a label; ``UserError`` where it has none."""
    template = task.prompts.get(setting)
    if template is None:
        raise UserError(f"task {task.name!r} has no prompt for setting {setting!r}; it has {', '.join(task.prompts)}.")
    values = {
        "{label}": label,
        "{language}": language(task.language).name,
        "{examples}": "\n".join(demonstrations),
        "{items}": "\n".join(f'{i}. "{text}"' for i, text in enumerate((*demonstrations, ""), 1)).removesuffix('"'),
    }
    for field, value in values.items():
        template = template.replace(field, value)
    return Prompt(template)
