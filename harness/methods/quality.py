"""The quality vector: human text against a degraded version of the same text."""

from __future__ import annotations

from harness.methods.base import FitContext, SteeringMethod, register
from harness.methods.vectors import VectorConfig, add_direction
from harness.steering.interventions import Steering


@register("quality")
class QualitySteering(SteeringMethod):
    """Adds the direction from degraded to human text of the language. Source: arXiv 2606.18389.

    v = unit(mean hidden state over human text - mean over its machine translation or noisy copy),
    over all tokens, within one language.
    """

    class Config(VectorConfig):
        """Depth and strength of the vector."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return one vector for the cell's language."""
        contrast = ctx.contrast()
        good, bad = ctx.mean_states(contrast.good), ctx.mean_states(contrast.bad)
        provenance = {
            "rule": "mean of human text - mean of degraded text",
            "token_rule": "all non-pad tokens, no BOS",
            "contrast": contrast.source,
            "pairs": len(contrast.good),
            "tokens": {"good": good.n_tokens, "bad": bad.n_tokens},
        }
        return add_direction(ctx, self.config, good.mean - bad.mean, good.norm, provenance)
