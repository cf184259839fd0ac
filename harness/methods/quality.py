"""The quality vector: human text against a degraded version of the same text."""

from __future__ import annotations

from typing import ClassVar

from harness.core.interventions import Steering
from harness.methods.contract import SteeringMethod, register
from harness.methods.fit_context import FitContext
from harness.methods.vectors import DEPTHS, STRENGTHS, VectorConfig, add_direction, excluded_tokens, sample_counts


@register("quality")
class QualitySteering(SteeringMethod):
    """Adds the direction from degraded to human text of the language. Source: arXiv 2606.18389.

    v = unit(mean hidden state over human text - mean over its machine translation or noisy copy),
    over all tokens, within one language.
    """

    grid: ClassVar = {"layer": DEPTHS, "strength": STRENGTHS}
    limits: ClassVar = (
        "As good as its contrast: it points away from how the degraded text is bad (translationese, or word "
        "noise where no translations are at hand), which need not be what makes training data bad."
    )

    class Config(VectorConfig):
        """Depth and strength of the vector."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return one vector for the cell's language."""
        contrast, sinks = ctx.contrast(), self.config.exclude_sinks
        good, bad = ctx.mean_states(contrast.good, sinks), ctx.mean_states(contrast.bad, sinks)
        details = {
            "rule": "mean of human text - mean of degraded text",
            "contrast": contrast.source,
            "counts": sample_counts({"good": good, "bad": bad}),
            "excluded": excluded_tokens({"good": good, "bad": bad}),
        }
        return add_direction(ctx, self.config, good.mean - bad.mean, good.norm, details)
