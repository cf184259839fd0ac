"""The language vector: this language's mean state against the mean of the others."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from harness.core.interventions import Steering
from harness.methods.contract import SteeringMethod, register
from harness.methods.fit_context import FitContext
from harness.methods.vectors import DEPTHS, STRENGTHS, VectorConfig, add_direction, excluded_tokens, sample_counts


@register("language")
class LanguageSteering(SteeringMethod):
    """Adds the direction from the other languages to this one. Source: arXiv 2606.18389.

    v = unit(m[L] - mean of m over the other languages, unweighted, the reference language among
    them), m[L] the mean hidden state over all tokens of the parallel text of language L.
    """

    grid: ClassVar = {"layer": DEPTHS, "strength": STRENGTHS}
    limits: ClassVar = (
        "Needs parallel text in every language of the suite. A difference of means may carry topic, script "
        "and length along with the language; the controls random and negated show what remains."
    )

    class Config(VectorConfig):
        """Depth and strength of the vector."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return one vector for the cell's language."""
        sinks = self.config.exclude_sinks
        means = {code: ctx.mean_states(ctx.parallel(code), sinks) for code in ctx.languages}
        own = means[ctx.language]
        others = np.mean([m.mean for code, m in means.items() if code != ctx.language], axis=0)
        details = {
            "rule": "own mean - unweighted mean of the others",
            "counts": sample_counts(means),
            "excluded": excluded_tokens(means),
            "dropped_held_out": {code: ctx.dropped(code) for code in means},
        }
        return add_direction(ctx, self.config, own.mean - others, own.norm, details)
