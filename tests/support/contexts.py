"""Parallel text, and the contexts that methods get, made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from conftest import LAYERS

from harness.data.sources import Sentence
from harness.engine.activations import MeanStates
from harness.methods.contract import FitContext, PromptContext

PARALLEL = {
    "am": ["ምግቡ በጣም ጥሩ ነበር።", "ወደዚህ ቦታ መጣን"],
    "he": ["האוכל היה טעים מאוד.", "באנו לכאן"],
    "en": ["The food was very good.", "We came here, and we came back again and again"],
}


BAD = ["ጥሩ ምግቡ", "ወደዚህ ወደዚህ መጣን"]


def sentences(texts: list[str], prefix: str = "s") -> list[Sentence]:
    return [Sentence(f"{prefix}{i}", text) for i, text in enumerate(texts)]


@dataclass
class HandMade:
    """An engine whose mean states, and states of texts, the test writes down."""

    n_layers: int
    means: Any
    states: Any = None

    def mean_states(self, texts: list[str], exclude_sinks: bool = False) -> MeanStates:
        return self.means(texts)


def context(corpus: Any, means: Any, language: str = "am", n_layers: int = LAYERS, states: Any = None) -> FitContext:
    return FitContext(
        suite=corpus.suite,
        task=corpus.suite.task("sentiment", language),
        engine=HandMade(n_layers, means, states),
        rng=np.random.default_rng(0),
        _corpus=corpus,
    )


def prompt_context(suite: Any, setting: str, **more: Any) -> PromptContext:
    return PromptContext(suite, suite.task("sentiment", "am"), setting, 1, 2, label="positive", **more)
