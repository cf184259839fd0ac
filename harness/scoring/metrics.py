"""The metrics by name: title, direction, unit, definition. Adding a column of the board starts here."""

from __future__ import annotations

from dataclasses import dataclass

from harness.records import Direction, Score


@dataclass(frozen=True)
class Metric:
    """What a reader must know of a score. ``direction``: whether up or down is better."""

    name: str
    title: str
    direction: Direction
    unit: str
    definition: str

    def score(self, value: float | None, signature: str, note: str = "", **fields: object) -> Score:
        """Return a score of this metric."""
        body = {"value": value, "signature": signature, "note": note, **fields}
        return Score.model_validate(
            {"metric": self.name, "direction": self.direction, "unit": self.unit, **body}
        )


DISTINCT_2 = Metric(
    "distinct_2",
    "distinct-2",
    "up",
    "share, 0 to 1",
    "Share of different word pairs among a fixed number of word pairs, within texts, averaged over "
    "subsamples (Li et al. 2016, at a fixed budget).",
)
SELF_CHRF = Metric(
    "self_chrf",
    "self-chrF",
    "down",
    "chrF, 0 to 100",
    "chrF of every text against a fixed number of other texts of the cell (best match), averaged.",
)
LANGUAGE_FIDELITY = Metric(
    "language_fidelity",
    "language",
    "up",
    "share, 0 to 1",
    "Share of texts that a character n-gram classifier, trained on the parallel text of all the "
    "suite's languages, takes for the asked language.",
)


def macro_f1(classifier: str) -> Metric:
    """Return the downstream metric of one classifier, such as ``tfidf`` or ``hf:devenc``."""
    return Metric(
        f"macro_f1/{classifier}",
        f"macro-F1 ({classifier})",
        "up",
        "F1, 0 to 1",
        f"Macro-F1 of the classifier {classifier}, trained on the texts of the cell, on human text of the "
        "suite's scored split (test), over the task's fixed list of labels.",
    )


def metric(name: str) -> Metric:
    """Return the metric with this name; an unlisted one (of a newer program) shows as it is."""
    if name.startswith("macro_f1/"):
        return macro_f1(name.removeprefix("macro_f1/"))
    for known in (DISTINCT_2, SELF_CHRF, LANGUAGE_FIDELITY):
        if known.name == name:
            return known
    return Metric(name, name, "up", "", "")
