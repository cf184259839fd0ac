"""The tracks of a site: what each measures, in words. Numbers of two tracks are never put together."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.records import Track


@dataclass(frozen=True)
class TrackWords:
    """What a track is called, asks and measures. ``items``: what the numbers of a cell are made of."""

    name: str
    question: str
    lead: str
    items: str


TRACKS: dict[Track, TrackWords] = {
    "generation": TrackWords(
        "Generation",
        "Which steering method writes the best training data?",
        "A model writes labelled text in a language. A small classifier learns from that text alone and is "
        "tested on text by people, unless a table says otherwise. Each row is one way to steer the model; "
        "every difference carries its 95 % interval.",
        "texts",
    ),
    "understanding": TrackWords(
        "Understanding",
        "Which steering method makes the model understand better?",
        "The steered model itself answers tasks of lm-eval, by log-likelihood or in words. Nothing is drawn: "
        "intervals are over test examples, paired between rows. A check language such as English is in no "
        "mean: a method must not pay for the others with it.",
        "answers",
    ),
    "forcing": TrackWords(
        "Language forcing",
        "Which steering method makes the model answer in another language?",
        "A plain question in one language, no word about the language of the answer, and the steering of "
        "another language: how many answers are in that language, and how many still answer the question. "
        "The score is the harmonic mean of both shares.",
        "answers",
    ),
}
