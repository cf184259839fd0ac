"""CLAS: on the late layers, neurons that several languages share are scaled up, others down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.core.errors import UnsupportedError, UserError
from harness.core.interventions import Intervention, Positions, Steering
from harness.methods.contract import FitContext, MethodConfig, SteeringMethod, register
from harness.methods.difference import Strength

_BRIDGE_DEPTH = 0.7
_LAST_EXCLUDED = 2
_NEAR_BEST = 0.1  # a layer of the run may fall short of the best score by this share
_QUESTION = "What is this text about?"  # the paper's are those of XQuAD, which no suite has
_CHECKED_TEXTS = 32  # sentences over which the change of the residual stream is measured


@dataclass(frozen=True)
class Categories:
    """Which neurons are active in how many languages: bool, [layers, neurons] each.

    dead: in none; specific: in one; partial: in two to all but one; shared: in all.
    """

    dead: NDArray[np.bool_]
    specific: NDArray[np.bool_]
    partial: NDArray[np.bool_]
    shared: NDArray[np.bool_]

    def counts(self) -> list[dict[str, int]]:
        """Return the number of neurons of each category, one table line per layer."""
        return [{name: int(mask[layer].sum()) for name, mask in vars(self).items()} for layer in range(len(self.dead))]


def categorise(active: NDArray[np.bool_]) -> Categories:
    """Return the categories of neurons from ``active``: bool, [languages, layers, neurons]."""
    n_languages, n_active = len(active), active.sum(axis=0)
    return Categories(
        dead=n_active == 0,
        specific=(n_active == 1) & (n_languages > 1),
        partial=(n_active > 1) & (n_active < n_languages),
        shared=n_active == n_languages,
    )


def bridge_layers(categories: Categories) -> list[int]:
    """Return the bridge layers: the last run of late layers with the highest % partial - dead - specific.

    Late: at depth 0.7 or more, the final two left out. A run holds neighbours that come within a tenth of
    the best score. A model too shallow for any late layer gives the one before the final two.
    Raises ``UnsupportedError`` for a model of fewer than three layers.
    """
    n_layers = len(categories.dead)
    end = n_layers - _LAST_EXCLUDED
    if end < 1:
        raise UnsupportedError(f"a model of {n_layers} layers has none before the final two to bridge with.")
    late = [layer for layer in range(end) if layer >= _BRIDGE_DEPTH * n_layers] or [end - 1]
    n = {name: mask.sum(axis=1) for name, mask in vars(categories).items()}  # exact, unlike shares
    score = n["partial"] - n["dead"] - n["specific"]
    best = max(score[layer] for layer in late)
    good = [layer for layer in late if score[layer] >= best - _NEAR_BEST * abs(best)]
    run = [good[-1]]
    while run[0] - 1 in good:
        run.insert(0, run[0] - 1)
    return run


@register("clas")
class Clas(SteeringMethod):
    """Scales language-shared and language-specific MLP neurons of late layers. Source: arXiv 2601.16390.

    A neuron is a coordinate of the input of ``mlp.down_proj``. It is active in a language if its mean over
    the language's parallel sentences, at their last token, is above 0. On the bridge layers partial-shared
    neurons become x (1 + alpha beta) and specific ones x (1 - alpha gamma), at every position: the blend
    (1 - alpha) h + alpha h2 of the paper. The sign of alpha is a free knob; the paper's example is -5. The default
    of -1 damps shared neurons (x 0.6) and boosts specific ones (x 1.2), the opposite of what the paper's words say;
    -5 flips the shared ones (x -1) and doubles the specific ones. "Specific to Amharic" is partly "active at its
    full stop", the last token of most sentences; ``clas-published`` reads all tokens.
    """

    known_limitations: ClassVar = (
        "Published for understanding tasks, not for writing data. The sign of alpha is open; models of few "
        "layers have no bridge layer by the rule and get the last one before the final two; models without "
        "down_proj are refused."
    )
    strength_field: ClassVar = "alpha"
    search_space: ClassVar = {"alpha": [-5.0, -3.0, -1.0, -0.5, 0.5, 1.0]}
    reads: ClassVar = "last token of every sentence"

    class Config(MethodConfig):
        """Strength ``alpha`` of the blend; ``beta`` for shared, ``gamma`` for specific neurons.

        ``layers``: the bridge layers by the rule of ``bridge_layers``, or a list of layer indices.
        ``min_texts``: sentences per language that the statistics need at least.
        """

        alpha: float = Field(default=-1.0, allow_inf_nan=False)
        beta: float = Field(default=0.4, ge=0, allow_inf_nan=False)
        gamma: float = Field(default=0.2, ge=0, allow_inf_nan=False)
        layers: Literal["bridge"] | list[int] = "bridge"
        min_texts: int = Field(default=100, gt=0)
        positions: Positions = "all"

    def fit(self, ctx: FitContext) -> Steering:
        """Return one scaling per bridge layer. But for ``alpha`` it is the same in every language."""
        texts = {code: self._texts(ctx, code) for code in ctx.languages}
        active = np.stack([self._means(ctx, rows) > 0 for rows in texts.values()])
        categories = categorise(active)
        layers = self._layers(ctx, categories)
        config = self.config.for_language(ctx.language)
        steering = Steering(tuple(_scaling(config, categories, layer) for layer in layers))
        checked = texts[ctx.language][:_CHECKED_TEXTS]
        details: dict[str, Any] = {
            "rule": "partial-shared x (1 + alpha beta), specific x (1 - alpha gamma)",
            "token_rule": self.reads,
            "counts": {code: {"texts": len(rows)} for code, rows in texts.items()},
            "categories": categories.counts(),
            "bridge": layers,
            "residual_change": [float(x) for x in ctx.residual_change(steering, checked)],
            "residual_change_texts": len(checked),
            "sandwich_norm": ctx.sandwich_norm,
        }
        return Steering(steering.interventions, details)

    def _texts(self, ctx: FitContext, code: str) -> list[str]:
        texts = ctx.parallel(code)
        if len(texts) < self.config.min_texts:
            raise UnsupportedError(
                f"clas needs {self.config.min_texts} parallel sentences of {code!r}, there are {len(texts)}."
            )
        return texts

    def _layers(self, ctx: FitContext, categories: Categories) -> list[int]:
        if self.config.layers == "bridge":
            return bridge_layers(categories)
        wrong = [layer for layer in self.config.layers if not 0 <= layer < ctx.n_layers]
        if wrong or not self.config.layers:
            raise UserError(f"clas: layers {self.config.layers}: valid are 0 to {ctx.n_layers - 1}.")
        return sorted(set(self.config.layers))

    def _means(self, ctx: FitContext, texts: list[str]) -> NDArray[np.float64]:
        return ctx.neuron_means(texts).mean


@register("clas-published")
class ClasPublished(Clas):
    """As clas, by the paper's protocol: question prompts, all tokens, alpha per language. Source: arXiv 2601.16390.

    Neurons are read in "Context: ... Question: ... Answer:" around ``texts`` parallel sentences, as the mean over all
    tokens but special ones. ``alpha`` may be a mapping, ``{da: -1, he: 0.5}``: the paper tunes it per language.
    """

    reads: ClassVar = "mean over all tokens of every prompt but special ones"

    class Config(Clas.Config):
        """As ``clas``; ``texts``: how many sentences are read, the paper has 100."""

        by_language: ClassVar = ("alpha",)
        alpha: Strength | dict[str, Strength] = -1.0  # type: ignore[assignment]
        texts: int = Field(default=100, gt=0)

    def _texts(self, ctx: FitContext, code: str) -> list[str]:
        return super()._texts(ctx, code)[: self.config.texts]

    def _means(self, ctx: FitContext, texts: list[str]) -> NDArray[np.float64]:
        prompts = [f"Context: {text}\nQuestion: {_QUESTION}\nAnswer:" for text in texts]
        return ctx.neuron_means(prompts, at="mean").mean


def _scaling(config: Any, categories: Categories, layer: int) -> Intervention:
    gain = config.beta * categories.partial[layer] - config.gamma * categories.specific[layer]
    return Intervention(
        site="mlp_neurons",
        layer=layer,
        operation="scale",
        vector=gain.astype(np.float32),
        strength=config.alpha,
        unit="raw",
        residual_norm=1.0,
        positions=config.positions,
    )
