"""The language vector: this language's mean state against the mean of the others."""

from __future__ import annotations

import numpy as np

from harness.methods.base import FitContext, SteeringMethod, register
from harness.methods.vectors import VectorConfig, add_direction
from harness.steering.interventions import Steering


@register("language")
class LanguageSteering(SteeringMethod):
    """Adds the direction from the other languages to this one. Source: arXiv 2606.18389.

    v = unit(m[L] - mean of m over the other languages, unweighted, the reference language among
    them), m[L] the mean hidden state over all tokens of the parallel text of language L.
    """

    class Config(VectorConfig):
        """Depth and strength of the vector."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return one vector for the cell's language."""
        means = {code: ctx.mean_states(ctx.parallel(code)) for code in ctx.languages}
        own = means[ctx.language]
        others = np.mean([m.mean for code, m in means.items() if code != ctx.language], axis=0)
        provenance = {
            "rule": "own mean - unweighted mean of the others",
            "token_rule": "all non-pad tokens, no BOS",
            "texts": {code: m.n_texts for code, m in means.items()},
            "tokens": {code: m.n_tokens for code, m in means.items()},
            "dropped_held_out": {code: ctx.corpus.dropped.get(code, 0) for code in means},
        }
        return add_direction(ctx, self.config, own.mean - others, own.norm, provenance)
