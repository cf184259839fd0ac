"""What ``steerboard list`` shows: pairs of a name and a line about it."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import UserError
from harness.core.languages import language
from harness.data.suite import load_suite, suite_files
from harness.methods.registry import load_registry

Lines = list[tuple[str, str]]

# Measured on one core with multilingual-e5-small, 140 texts to train on: docs/metrics.md.
_COSTS = {
    "tfidf": "0.1 s a cell",
    "frozen": "45 new texts a second on one core for a small encoder, then 0.1 s a cell",
    "hf": "{trainings} trainings a cell, each 2 to 8 minutes on one core for a small encoder",
}
"""Kind of a classifier -> what it costs, roughly."""


def methods(plugins: list[Path]) -> Lines:
    """Return every method with the first line of its docstring, then what could not be used.

    Packages are imported for that, since they were installed on purpose; folders are only read.
    """
    registry = load_registry(plugins)
    lines, problems = [], [*registry.problems]
    for name, source in sorted(registry.sources.items()):
        try:
            text = _first_line(registry.docstring(name))
        except UserError as error:
            problems.append(str(error))
        else:
            lines.append((name, f"{text or '(no docstring: the board shows nothing)'} [{source}]"))
    return lines + [("not usable:", _first_line(problem)) for problem in problems]


def suites() -> Lines:
    """Return the shipped suites with their classifiers, the preferred first, and what these cost."""
    lines = []
    for name in suite_files():
        suite = load_suite(name)
        priced = [f"{spec} ({_cost(spec, len(suite.classifier_protocol.seeds))})" for spec in suite.classifiers]
        lines.append((name, f"{suite.description} Classifiers, the preferred first: {'; '.join(priced)}."))
    return lines


def _cost(spec: str, trainings: int) -> str:
    kind, _, rest = spec.partition(":")
    given = [option.removeprefix("seeds=") for option in rest.split(",") if option.startswith("seeds=")]
    return _COSTS[kind].format(trainings=given[-1] if given else trainings)


def tasks(suite_name: str) -> Lines:
    """Return the tasks of a suite with their labels and sizes."""
    suite = load_suite(suite_name)
    return [
        (
            name,
            f"{len(suite.languages)} languages, {size.texts_per_label} texts per label: "
            f"{', '.join(suite.task(name, suite.languages[0]).labels)}",
        )
        for name, size in suite.tasks.items()
    ]


def languages(suite_name: str) -> Lines:
    """Return the languages of a suite, the reference language last."""
    suite = load_suite(suite_name)
    lines = [(code, _describe(code)) for code in suite.languages]
    reference = suite.reference_language
    return [*lines, (reference, f"{_describe(reference)}, reference language of vectors")]


def _describe(code: str) -> str:
    known = language(code)
    return f"{known.name}, {known.native_name} ({known.script})"


def _first_line(text: str) -> str:
    """Return the first line of somebody's text, without the signs that would steer a terminal."""
    line = text.strip().split("\n")[0][:300]
    return "".join(sign for sign in line if sign.isprintable()).strip()
