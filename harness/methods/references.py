"""Floor and ceiling: texts that no model wrote."""

from __future__ import annotations

from harness.core.errors import UserError
from harness.methods.contract import Reference, ReferenceContext, register


@register("human")
class Human(Reference):
    """Ceiling: human train texts of the same number, drawn anew for every seed."""

    def texts(self, ctx: ReferenceContext) -> dict[str, list[str]]:
        """Return a draw without replacement from the train split, per label."""
        drawn = {}
        for label, texts in ctx.train().items():
            if len(texts) < ctx.texts_per_label:
                raise UserError(
                    f"human: {ctx.texts_per_label} train texts of {label!r} are needed "
                    f"({ctx.task.name}, {ctx.language}), there are {len(texts)}."
                )
            chosen = ctx.rng.choice(len(texts), size=ctx.texts_per_label, replace=False)
            drawn[label] = [texts[i] for i in chosen]
        return drawn


@register("constant")
class Constant(Reference):
    """Floor: one train text per label, repeated."""

    def texts(self, ctx: ReferenceContext) -> dict[str, list[str]]:
        """Return one drawn text per label, ``texts_per_label`` times."""
        return {
            label: [texts[int(ctx.rng.integers(len(texts)))]] * ctx.texts_per_label
            for label, texts in ctx.train().items()
        }
