"""Difference-of-means steering: one unit vector added at one layer, from languages or from text quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.core.errors import UserError
from harness.core.interventions import Intervention, Positions, Steering
from harness.methods.contract import CellContext, FitContext, MethodConfig, SteeringMethod, register

if TYPE_CHECKING:
    from harness.engine.activations import MeanStates

Depth = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]
"""A layer index, or a depth below 1 as a fraction of the layers."""

Strength = Annotated[float, Field(allow_inf_nan=False)]

DEPTHS = [0.21, 0.48, 0.74]  # of arXiv 2606.18389
SEARCH_SPACE = {"layer": DEPTHS, "strength": [0.05, 0.1, 0.2, 0.4]}


class AddedVectorConfig(MethodConfig):
    """Where and how strongly a unit vector is added.

    ``layer``: a layer index, or a depth below 1 as a fraction of the layers. ``strength``: in units of
    the mean residual norm at that layer (``residual``), or a plain factor as in the paper (``raw``).
    Both may be mappings: ``{da: 0.4, he: 0.1}``. ``positions``: all, prompt or generated.
    """

    by_language: ClassVar = ("layer", "strength")
    layer: Depth | dict[str, Depth] = 0.21
    strength: Strength | dict[str, Strength] = 0.2
    unit: Literal["residual", "raw"] = "residual"
    positions: Positions = "all"


class VectorConfig(AddedVectorConfig):
    """``exclude_sinks``: leave special tokens and norm outliers out of the means; the paper takes all tokens."""

    exclude_sinks: bool = False


@register("language")
class LanguageSteering(SteeringMethod):
    """Adds the direction from the other languages to this one. Source: arXiv 2606.18389.

    v = unit(m[L] - mean of m over the other languages, unweighted, the reference language among
    them), m[L] the mean hidden state over all tokens of the parallel text of language L.
    """

    search_space: ClassVar = SEARCH_SPACE
    known_limitations: ClassVar = (
        "Needs parallel text in every language of the suite. A difference of means may carry topic, script "
        "and length along with the language; the controls random and negated show what remains."
    )

    class Config(VectorConfig):
        """Layer and strength of the vector."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return one vector for the cell's language."""
        sinks = self.config.exclude_sinks
        means = {code: ctx.mean_states(ctx.parallel(code), sinks) for code in ctx.languages}
        own = means[ctx.language]
        others = np.mean([m.mean for code, m in means.items() if code != ctx.language], axis=0)
        details = {
            "rule": "own mean - unweighted mean of the others",
            **_report(means, sinks),
            "dropped_held_out": {code: ctx.dropped(code) for code in means},
        }
        config = self.config.for_language(ctx.language)
        return add_direction(ctx, config, (own.mean - others)[ctx.layer(config.layer)], own.norm, details)


@register("quality")
class QualitySteering(SteeringMethod):
    """Adds the direction from degraded to human text of the language. Source: arXiv 2606.18389.

    v = unit(mean hidden state over human text - mean over its machine translation or noisy copy),
    over all tokens, within one language.
    """

    search_space: ClassVar = SEARCH_SPACE
    known_limitations: ClassVar = (
        "As good as its contrast: it points away from how the degraded text is bad (translationese, or word "
        "noise where no translations are available), which need not be what makes training data bad."
    )

    class Config(VectorConfig):
        """Layer and strength of the vector."""

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return the cell's language: the contrast is within it."""
        return [ctx.language]

    def texts_to_read(self, ctx: CellContext, parallel: int) -> dict[str, int]:
        """Return the number of degraded sentences."""
        return {f"degraded {ctx.language}": parallel}

    def fit(self, ctx: FitContext) -> Steering:
        """Return one vector for the cell's language."""
        contrast, sinks = ctx.contrast(), self.config.exclude_sinks
        good, bad = ctx.mean_states(contrast.good, sinks), ctx.mean_states(contrast.bad, sinks)
        details = {
            "rule": "mean of human text - mean of degraded text",
            "contrast": contrast.source,
            **_report({"good": good, "bad": bad}, sinks),
        }
        config = self.config.for_language(ctx.language)
        return add_direction(ctx, config, (good.mean - bad.mean)[ctx.layer(config.layer)], good.norm, details)


def add_direction(
    ctx: FitContext,
    config: AddedVectorConfig,
    direction: NDArray[Any],
    residual_norm: NDArray[np.float64],
    provenance: dict[str, Any],
) -> Steering:
    """Return the steering that adds unit(direction) at the output of the config's layer.

    ``config``: of the language, ``direction``: of its layer, [hidden size]; ``residual_norm``: of all, [layers].
    Raises ``UserError`` where the direction is zero or not finite.
    """
    layer = ctx.layer(config.layer)  # type: ignore[arg-type]  # a single one: see for_language
    norm = float(np.linalg.norm(direction))
    if not np.isfinite(norm) or norm == 0.0:
        raise UserError(f"the two means are equal at layer {layer}: there is no direction to add.")
    intervention = Intervention(
        site="layer_output",
        layer=layer,
        operation="add",
        vector=(direction / norm).astype(np.float32),
        strength=config.strength,  # type: ignore[arg-type]
        unit=config.unit,
        residual_norm=float(residual_norm[layer]),
        positions=config.positions,
    )
    details = {
        "residual_norm": [float(value) for value in residual_norm],
        "norm_before_unit": norm,
        **provenance,
    }
    return Steering((intervention,), details)


def _report(means: dict[str, MeanStates], sinks: bool) -> dict[str, Any]:
    """Return texts and tokens of every mean and its excluded sink tokens, as JSON."""
    return {
        "token_rule": "all tokens but padding" + (" and sinks" if sinks else ""),
        "counts": {name: {"texts": m.n_texts, "tokens": m.n_tokens} for name, m in means.items()},
        "excluded": {name: m.excluded for name, m in means.items() if m.excluded},
    }
