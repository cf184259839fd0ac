"""What a method may fit on: the model's activations, and parallel, contrast and train text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.core.languages import unknown_language
from harness.data.corpus import Contrast, Corpus
from harness.data.suite import Suite, Task
from harness.methods import permutations as shuffling

if TYPE_CHECKING:
    from harness.engine.activations import MeanStates, MlpActivationMeans
    from harness.engine.model import SteerableModel
    from harness.methods.contract import SteeringMethod


class Engine(Protocol):
    """A loaded model as a fit sees it. Equal texts are run once per run folder."""

    @property
    def model(self) -> SteerableModel:
        """The model itself, frozen; leave it as it is."""

    @property
    def n_layers(self) -> int:
        """How many decoder layers it has."""

    @property
    def sandwich_norm(self) -> bool:
        """Whether a norm follows the MLP inside its layers."""

    def mean_states(self, texts: list[str], exclude_sinks: bool = False) -> MeanStates:
        """Return mean hidden states of all layers."""

    def neuron_means(self, texts: list[str]) -> MlpActivationMeans:
        """Return mean MLP neurons of all layers at the last token."""

    def residual_change(self, steering: Steering, texts: list[str]) -> NDArray[np.float64]:
        """Return how far a steering moves the residual stream, per layer."""

    def progress(self, words: str) -> None:
        """Show what is going on to whoever waits."""


@dataclass(frozen=True)
class FitContext:
    """What ``fit`` gets. One fit serves all seeds and settings of a task in a language.

    Nothing here leads to validation or test text. ``rng`` is seeded by model, method, task, language
    and data. ``shuffled`` is set by the control of that name: every text is then real and every
    grouping of texts (by language, by quality, by label) is by chance.
    """

    suite: Suite
    task: Task
    engine: Engine
    rng: np.random.Generator
    _corpus: Corpus
    shuffled: bool = False
    _stored_fit: Callable[[SteeringMethod, str], Steering] | None = None

    @property
    def language(self) -> str:
        """The language code that is fitted for."""
        return self.task.language

    @property
    def languages(self) -> list[str]:
        """All languages of the suite, the reference language among them."""
        return self._corpus.vector_languages

    @property
    def n_layers(self) -> int:
        """How many decoder layers the model has."""
        return self.engine.n_layers

    @property
    def sandwich_norm(self) -> bool:
        """Whether a norm follows the MLP inside the model's layers: gains of neurons saturate there."""
        return self.engine.sandwich_norm

    @property
    def model(self) -> SteerableModel:
        """The model, its tokenizer and layers, for fits that need more than means. Leave it as it is."""
        return self.engine.model

    def mean_states(self, texts: list[str], exclude_sinks: bool = False) -> MeanStates:
        """Return the mean hidden state of every layer over all tokens, without sinks if asked."""
        return self.engine.mean_states(texts, exclude_sinks)

    def neuron_means(self, texts: list[str]) -> MlpActivationMeans:
        """Return the mean input of every ``mlp.down_proj`` at the last token of ``texts``."""
        return self.engine.neuron_means(texts)

    def residual_change(self, steering: Steering, texts: list[str]) -> NDArray[np.float64]:
        """Return mean ||h' - h|| / ||h|| over ``texts`` for every layer: what a steering really does."""
        return self.engine.residual_change(steering, texts)

    def progress(self, words: str) -> None:
        """Say what is going on; shown beside the progress bar."""
        self.engine.progress(words)

    def parallel(self, code: str) -> list[str]:
        """Return the parallel sentences of a language, free of validation and test text."""
        if self.shuffled:
            pools = {c: {s.id: s.text for s in self._corpus.parallel(c)} for c in self.languages}
            if code not in pools:
                raise unknown_language(code, pools)
            return shuffling.permute_languages(pools)[code]
        return [sentence.text for sentence in self._corpus.parallel(code)]

    def pairs(self, code: str, other: str) -> list[tuple[str, str]]:
        """Return the parallel sentences of two languages, translations of one another side by side."""
        if self.shuffled:
            return list(zip(self.parallel(code), self.parallel(other), strict=True))
        there = {sentence.id: sentence.text for sentence in self._corpus.parallel(other)}
        return [(s.text, there[s.id]) for s in self._corpus.parallel(code) if s.id in there]

    def contrast(self) -> Contrast:
        """Return human and degraded versions of sentences of the cell's language."""
        contrast = self._corpus.contrast(self.language)
        return shuffling.swap_pairs(contrast, self.language) if self.shuffled else contrast

    def train(self) -> dict[str, list[str]]:
        """Return the human train texts of the task by label."""
        groups = self._corpus.by_label(self.task.name, self.language, "train")
        texts = {label: [row.text for row in rows] for label, rows in groups.items()}
        return shuffling.permute_labels(texts, f"{self.task.name}/{self.language}") if self.shuffled else texts

    def dropped(self, code: str) -> int:
        """Return how many parallel sentences were left out because they are validation or test text."""
        self._corpus.parallel(code)
        return self._corpus.dropped.get(code, 0)

    def layer(self, depth: int | float) -> int:
        """Return a layer index: an int as it is, a fraction f as round(f x number of layers)."""
        last = self.n_layers - 1
        index = depth if isinstance(depth, int) else min(round(depth * self.n_layers), last)
        if not 0 <= index < self.n_layers:
            raise UserError(f"layer {depth} is outside of this model's 0 to {last}.")
        return index

    def fit(self, method: SteeringMethod, code: str) -> Steering:
        """Return what another method fits for a language: the very fit that its own cells use."""
        if self.shuffled or self._stored_fit is None:
            return method.fit(self.for_language(code))
        return self._stored_fit(method, code)

    def for_language(self, code: str) -> FitContext:
        """Return the same context for another language of the suite."""
        return replace(self, task=self.suite.task(self.task.name, code))

    def with_shuffled_labels(self) -> FitContext:
        """Return the same context with every grouping of texts made by chance."""
        return replace(self, shuffled=True)
