"""The learned vector: what gradient descent finds at one layer of the frozen model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from harness.core.errors import UnsupportedError, UserError
from harness.core.interventions import Intervention, Positions, Steering
from harness.data.prompts import suite_prompt
from harness.engine.chat import render
from harness.methods.contract import CellContext, FitContext, MethodConfig, Skip, SteeringMethod, register
from harness.methods.difference import DEPTHS, Depth

if TYPE_CHECKING:
    from harness.engine.train_vector import Alignment, Likelihood

_HELD_OUT = (8, 256)  # a tenth of the texts, but at least and at most so many
_WORDS = {
    "likelihood": {
        "rule": "negative log-likelihood of train texts and their end token under the zero-shot prompt",
        "token_rule": "every token of a text and its end token weighs the same; padding counts nowhere",
        "bos_rule": "as the prompt's template has it",
        "loss_unit": "nats per token",
    },
    "align": {
        "rule": "squared distance of the steered sentence's mean state to that of its translation, unsteered",
        "token_rule": "mean over all tokens of a sentence but padding; every pair weighs the same",
        "loss_unit": "squared residual norms per pair",
    },
}


@register("learned")
class LearnedVector(SteeringMethod):
    """Adds one vector at one layer, learned by Adam, the model frozen. Source: after arXiv 2505.12584.

    That paper's loss is not public; both objectives are this project's own, in the spirit of its abstract.
    ``likelihood``, for generation: the vector makes human train texts of the task likely under the task's
    zero-shot prompt. ``align``, for understanding: it moves sentences of the language to their translations
    in the reference language, as a later layer reads them.
    """

    known_limitations: ClassVar = (
        "The paper's loss is not public: both objectives are this project's own. Fitted on train text of "
        "the very task; where a held-out tenth of it never improves, the vector is zero and the texts are "
        "unsteered."
    )
    test_config: ClassVar = {"steps": 4}
    search_space: ClassVar = {"layer": DEPTHS, "strength": [0.5, 1.0, 2.0]}

    class Config(MethodConfig):
        """Where the vector is added, and how it is learned.

        ``strength``: a factor of the learned vector; it changes nothing in the learning. ``lr``: how far a
        step moves the vector, and ``max_norm``: how long it may get, both in units of the mean residual
        norm at the layer. ``readout``: the layer that ``align`` reads. ``max_texts``: texts or pairs that
        are used, held-out ones included; ``max_tokens``: where a text is cut. ``positions`` also says
        where the vector is added while ``likelihood`` is learned.
        """

        layer: Depth = 0.48
        objective: Literal["likelihood", "align"] = "likelihood"
        strength: float = Field(default=1.0, allow_inf_nan=False)
        readout: Depth = 0.74
        steps: int = Field(default=100, gt=0)
        batch_size: int = Field(default=16, gt=0)
        lr: float = Field(default=0.005, gt=0, allow_inf_nan=False)
        max_norm: float = Field(default=0.5, gt=0, allow_inf_nan=False)
        max_texts: int = Field(default=512, ge=2 * _HELD_OUT[0])
        max_tokens: int = Field(default=256, gt=0)
        positions: Positions = "all"

    def supports(self, ctx: CellContext) -> Skip | None:
        """Refuse to align the reference language with itself."""
        if self.config.objective == "align" and ctx.language == ctx.suite.reference_language:
            return Skip(f"{ctx.language} is the reference language: there is nothing to align it with")
        return None

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return the cell's language, for the residual norms; to align, the reference language, too."""
        others = [ctx.suite.reference_language] if self.config.objective == "align" else []
        return list(dict.fromkeys([ctx.language, *others]))

    def texts_to_read(self, ctx: CellContext, parallel: int) -> dict[str, int]:
        """Return the texts of all steps, forward and backward; the gain of early stopping is not counted."""
        name = f"learned {ctx.task.name} {ctx.language} {self.config.model_dump_json()}"
        return {name: 3 * self.config.steps * self.config.batch_size}

    def fit(self, ctx: FitContext) -> Steering:
        """Return the learned vector; all strengths share the fit of strength 1.

        Raises ``UserError`` for a read-out layer before the steered one, its kind
        ``UnsupportedError`` for too few texts.
        """
        from harness.engine.train_vector import TrainConfig, train_vector

        config = self.config
        if config.strength != 1.0:
            fitted = ctx.fit(type(self)(config.model_copy(update={"strength": 1.0})), ctx.language)
            items = tuple(replace(item, strength=config.strength) for item in fitted.interventions)
            return Steering(items, {**fitted.provenance, "fitted_at_strength": 1.0})
        layer = ctx.layer(config.layer)
        norms = [float(norm) for norm in ctx.mean_states(ctx.parallel(ctx.language)).norm]
        used, n_there = self._texts(ctx)
        objective = self._objective(ctx, layer, used, norms)
        n_held_out = min(max(len(used) // 10, _HELD_OUT[0]), _HELD_OUT[1])
        train, held_out = range(n_held_out, len(used)), range(n_held_out)
        plan = TrainConfig(config.steps, config.batch_size, config.lr, config.max_norm)
        found = train_vector(objective, train, held_out, norms[layer], plan, ctx.rng, ctx.progress)
        intervention = Intervention(
            site="layer_output",
            layer=layer,
            operation="add",
            vector=found.vector,
            strength=1.0,
            unit="raw",
            residual_norm=norms[layer],
            positions=config.positions,
        )
        best = next(point for point in found.curve if point["step"] == found.best_step)
        counts = {
            name: {"texts": len(rows), "tokens": sum(map(objective.length, rows))}
            for name, rows in (("train", train), ("held_out", held_out))
        }
        details = {
            **_WORDS[config.objective],
            "counts": counts,
            "residual_norm": norms,
            "source": {"texts": n_there, "used": len(used), "cut": objective.cut},
            "held_out_before": found.curve[0]["held_out"],
            "held_out_after": best["held_out"],
            "norm": best["norm"],
            "best_step": found.best_step,
            "stopped": found.stopped,
            "curve": found.curve,
        }
        return Steering((intervention,), details)

    def _texts(self, ctx: FitContext) -> tuple[list[tuple[str, str]], int]:
        """Return (prompt, text) or (sentence, translation), drawn by chance, and how many there are."""
        if self.config.objective == "align":
            kind, found = "parallel sentences", ctx.pairs(ctx.language, ctx.suite.reference_language)
        else:
            kind, sampling = f"{ctx.task.name} train texts", ctx.suite.sampling
            prompts = {
                label: render(
                    ctx.model.tokenizer, suite_prompt(ctx.task, "zero-shot", label), sampling.template, sampling.date
                )
                for label in ctx.task.labels
            }
            found = [(prompts[label], text) for label, texts in ctx.train().items() for text in texts]
        if len(found) < 2 * _HELD_OUT[0]:
            raise UnsupportedError(
                f"learned needs {2 * _HELD_OUT[0]} {kind} of {ctx.language!r}, there are {len(found)}."
            )
        drawn = ctx.rng.permutation(len(found))[: self.config.max_texts]
        return [found[i] for i in drawn], len(found)

    def _objective(
        self, ctx: FitContext, layer: int, used: list[tuple[str, str]], norms: list[float]
    ) -> Likelihood | Alignment:
        from harness.engine.train_vector import Alignment, Likelihood

        config = self.config
        if config.objective == "likelihood":
            template = ctx.suite.sampling.template
            return Likelihood(ctx.model, layer, used, config.max_tokens, config.positions, template)
        readout = ctx.layer(config.readout)
        if readout < layer:
            raise UserError(
                f"learned: the read-out layer {readout} comes before layer {layer}, which is steered; "
                f"valid: readout {layer} to {ctx.n_layers - 1}."
            )
        return Alignment(ctx.model, layer, readout, used, norms[readout], config.max_tokens, config.batch_size)
