"""LAPE: neurons that fire in one language and in few others, switched on for it, those of the others switched off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.core.errors import UnsupportedError
from harness.core.interventions import Intervention, Positions, Steering
from harness.methods.contract import CellContext, FitContext, MethodConfig, SteeringMethod, register
from harness.methods.difference import Strength

_CHECKED_TEXTS = 32  # sentences over which the change of the residual stream is measured


def language_specific(opened: NDArray[np.float64], share: float, bar: float) -> NDArray[np.bool_]:
    """Return which neurons are specific to which language: bool, [languages, layers, neurons].

    ``opened``, of the same shape: P(gate above 0). A neuron's entropy is that of its P over the languages, divided by
    their sum. Of the neurons whose P passes the quantile ``bar`` of all P in some language, those of the lowest
    entropy are taken, ``share`` of all neurons; each is specific to the languages in which its P passes the bar.
    """
    total = opened.sum(axis=0)
    p = np.divide(opened, total, out=np.zeros_like(opened), where=total > 0)
    entropy = -np.sum(p * np.log(p, out=np.zeros_like(p), where=p > 0), axis=0)
    rank = max(round(bar * opened.size), 1) - 1
    passes = opened > np.partition(opened, rank, axis=None)[rank]
    entropy[~passes.any(axis=0)] = np.inf
    lowest = np.argsort(entropy, axis=None, kind="stable")[: round(share * entropy.size)]
    chosen = np.zeros(entropy.size, dtype=bool)
    chosen[lowest] = True
    specific: NDArray[np.bool_] = passes & chosen.reshape(entropy.shape)
    return specific


@register("lape")
class Lape(SteeringMethod):
    """Switches language-specific MLP neurons on, those of other languages off. Source: arXiv 2402.16438.

    A neuron is a coordinate of the input of ``mlp.down_proj``; it fires at a token where act(gate) is above 0. Those of
    the lowest entropy of P(fires) over the languages are language-specific (``language_specific``). At strength s
    the language's own become x + s m, m their mean in its text, and those of other languages alone
    x (1 - min(s, 1)). Cost: the parallel text of all languages is read once for all fits. The paper counts over
    pretraining-like text of millions of tokens, and replaces values; adding is that of arXiv 2601.08331.
    """

    known_limitations: ClassVar = (
        "P is estimated on the suite's parallel text alone. The dose is not a length in the residual stream: see "
        "residual_change; a norm after the MLP (Gemma 2 and 3) lets only relative changes through. Languages that "
        "share script and words share neurons, and a language may have none of its own."
    )
    search_space: ClassVar = {"share": [0.01, 0.03, 0.05], "strength": [0.5, 1.0, 2.0]}

    class Config(MethodConfig):
        """``share`` of all neurons that are language-specific; ``bar``: the quantile that P has to pass.

        ``strength``: may be a mapping, ``{da: 0.5, he: 2}``. ``suppress``: switch the others' neurons off.
        """

        by_language: ClassVar = ("strength",)
        share: float = Field(default=0.01, gt=0, le=1)
        bar: float = Field(default=0.95, gt=0, lt=1)
        strength: Strength | dict[str, Strength] = 1.0
        suppress: bool = True
        positions: Positions = "all"

    def fit(self, ctx: FitContext) -> Steering:
        """Return the changes of all layers with such neurons; ``UnsupportedError`` where the language has none."""
        config, codes = self.config.for_language(ctx.language), ctx.languages
        means = {code: ctx.neuron_means(ctx.parallel(code), at="mean") for code in codes}
        opened = np.stack([found.open for found in means.values()])  # type: ignore[misc]
        specific = language_specific(opened, config.share, config.bar)
        own = specific[codes.index(ctx.language)]
        if not own.any():
            raise UnsupportedError(f"no neuron is specific to {ctx.language!r} at share {config.share}.")
        others = specific.any(axis=0) & ~own if config.suppress else np.zeros_like(own)
        steering = Steering(tuple(_changes(config, own * means[ctx.language].mean, others)))
        checked = ctx.parallel(ctx.language)[:_CHECKED_TEXTS]
        details: dict[str, Any] = {
            "rule": "own specific neurons + strength x their mean, those of other languages x (1 - strength)",
            "token_rule": "all tokens but special ones and padding",
            "counts": {code: {"texts": found.n_texts} for code, found in means.items()},
            "specific": {code: mask.sum(axis=1).tolist() for code, mask in zip(codes, specific, strict=True)},
            "residual_change": [float(x) for x in ctx.residual_change(steering, checked)],
            "residual_change_texts": len(checked),
            "sandwich_norm": ctx.sandwich_norm,
        }
        return Steering(steering.interventions, details)

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return all languages: a neuron is specific among them."""
        return ctx.suite.vector_languages


def _changes(config: Any, added: NDArray[np.float64], others: NDArray[np.bool_]) -> Iterator[Intervention]:
    """Yield what is done at each layer: a scaling of neurons, then an addition."""
    kinds = (("scale", -others.astype(np.float32), min(config.strength, 1.0)), ("add", added, config.strength))
    for layer in range(len(added)):
        for operation, vectors, strength in kinds:
            if vectors[layer].any():
                yield Intervention(
                    site="mlp_neurons",
                    layer=layer,
                    operation=operation,  # type: ignore[arg-type]
                    vector=np.asarray(vectors[layer], dtype=np.float32),
                    strength=strength,
                    unit="raw",
                    residual_norm=1.0,
                    positions=config.positions,
                )
