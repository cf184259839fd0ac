"""The questions of the track, in every language, from ``tasks/forcing/questions.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.core.errors import UserError
from harness.core.files import digest
from harness.core.languages import unknown_language
from harness.core.reading import read_yaml
from harness.data.suite import tasks_root

Half = Literal["test", "validation"]
"""Which questions are asked: those that are scored, or those for choosing layers and strengths."""


@dataclass(frozen=True)
class Questions:
    """Question id -> language -> question; equal ids name translations of one another."""

    texts: Mapping[str, Mapping[str, str]]
    validation: frozenset[str]

    @property
    def languages(self) -> list[str]:
        """The languages that every question is in."""
        return list(next(iter(self.texts.values())))

    def ids(self, half: Half | None = None) -> list[str]:
        """Return the ids of a half, or of all questions, in their order."""
        return [name for name in self.texts if half is None or (name in self.validation) == (half == "validation")]

    def asked(self, language: str, half: Half | None = None) -> list[str]:
        """Return the questions of a half, or all, in a language, in the order of ``ids``; ``UserError`` for another."""
        self.check("source language", language)
        return [self.texts[name][language] for name in self.ids(half)]

    def id_of(self, text: str, language: str) -> str:
        """Return the id of a question from its text in a language."""
        return next(name for name, by_language in self.texts.items() if by_language[language] == text)

    def check(self, kind: str, language: str) -> None:
        """Raise ``UserError`` for a language without questions."""
        if language not in self.languages:
            raise unknown_language(language, self.languages, kind=kind)

    @cached_property
    def digest(self) -> str:
        """Hash of all questions in all languages and of which are for validation."""
        return digest([{k: dict(v) for k, v in self.texts.items()}, sorted(self.validation)], 16)


def load_questions(path: Path | None = None) -> Questions:
    """Read the shipped questions, or those of another file.

    Raises ``UserError`` for broken YAML, a question that is empty, repeated or not in all languages, and unknown ids.
    """
    path = path or tasks_root() / "forcing" / "questions.yaml"
    try:
        body = read_yaml(path)
        questions = Questions(body["questions"], frozenset(body["validation"]))
        _check(questions)
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None
    except (KeyError, TypeError, AttributeError, StopIteration):
        raise UserError(
            f"{path} needs 'questions' (id -> language -> question) and 'validation' (a list of ids)."
        ) from None
    return questions


def _check(questions: Questions) -> None:
    """Raise ``ValueError`` with what is wrong."""
    languages = questions.languages
    for name, by_language in questions.texts.items():
        if list(by_language) != languages:
            raise ValueError(f"question {name} is not in the languages {', '.join(languages)}, in this order")
        if not all(isinstance(text, str) and text.strip() and "{" not in text for text in by_language.values()):
            raise ValueError(f"question {name} is empty, not text, or contains a brace")
    for language in languages:
        if len(set(questions.asked(language))) < len(questions.texts):
            raise ValueError(f"a question occurs twice in {language}")
    if missing := questions.validation - set(questions.texts):
        raise ValueError(f"validation names {', '.join(sorted(missing))}, which is not a question")
    if not questions.ids("test"):
        raise ValueError("no question is left for testing")
