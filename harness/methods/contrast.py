"""Vectors from the states of contrast pairs: mean difference, principal component, probe, Fisher's discriminant.

A pair is (text that has what is wanted, text that has not). ``contrast: language``: a sentence of the language and its
translation into one of the others, which take turns. ``contrast: quality``: human text and its degraded version.
All four differ in one function, from the states of the pairs to a direction.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from harness.core.errors import UnsupportedError, UserError
from harness.core.interventions import ReadAt, Steering
from harness.methods.contract import CellContext, FitContext, SteeringMethod, register
from harness.methods.difference import SEARCH_SPACE, AddedVectorConfig, add_direction

States = NDArray[np.float64]
_MIN_PAIRS = 4
_TOKENS = {"last": "last token of every text", "mean": "mean over the tokens of every text but special ones"}


class ContrastConfig(AddedVectorConfig):
    """``contrast``: language or quality. ``at``: the token of a text that is read, the last or the mean."""

    contrast: Literal["language", "quality"] = "language"
    at: ReadAt = "last"


class ContrastVector(SteeringMethod):
    """Adds a direction that separates the two sides of contrast pairs. Source: the subclasses name theirs."""

    search_space: ClassVar = SEARCH_SPACE
    rule: ClassVar[str]

    class Config(ContrastConfig):
        """Where the vector is added and what it separates."""

    def direction(self, wanted: States, other: States) -> NDArray[Any]:
        """Return the direction from the states of the pairs, [pairs, hidden size] each; its length is of no account."""
        raise NotImplementedError

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return all languages of the suite, for quality the cell's."""
        return ctx.suite.vector_languages if self.config.contrast == "language" else [ctx.language]

    def texts_to_read(self, ctx: CellContext, parallel: int) -> dict[str, int]:
        """Return the number of texts in the pairs: states are read again for every method, layer and language."""
        config = self.config.for_language(ctx.language)
        return {f"pairs {self.name} {config.contrast} {config.layer} {config.at} {ctx.language}": 2 * parallel}

    def fit(self, ctx: FitContext) -> Steering:
        """Return one vector for the cell's language; all strengths share the fit of strength 1.

        Raises ``UnsupportedError`` for too few pairs, ``UserError`` where their states give no direction.
        """
        config = self.config.for_language(ctx.language)
        if config.strength != 1.0:
            fitted = ctx.fit(type(self)(config.model_copy(update={"strength": 1.0})), ctx.language)
            items = tuple(replace(item, strength=config.strength) for item in fitted.interventions)
            return Steering(items, {**fitted.provenance, "fitted_at_strength": 1.0})
        pairs, details = contrast_pairs(ctx, config.contrast)
        if len(pairs) < _MIN_PAIRS:
            raise UnsupportedError(
                f"{self.name} needs {_MIN_PAIRS} contrast pairs of {ctx.language!r}, there are {len(pairs)}."
            )
        layer = ctx.layer(config.layer)
        sides = [list(side) for side in zip(*pairs, strict=True)]
        wanted, other = (ctx.states(side, config.at, [layer])[:, 0].astype(np.float64) for side in sides)
        if not np.isfinite(wanted - other).all() or np.array_equal(wanted, other):
            raise UserError(f"states at layer {layer} are equal on both sides, or not finite: no direction to add.")
        details = {
            "rule": f"{self.rule}; pairs by {config.contrast}",
            **details,
            "token_rule": _TOKENS[config.at],
            "counts": {"wanted": {"texts": len(pairs)}, "other": {"texts": len(pairs)}},
        }
        norms = ctx.mean_states(ctx.parallel(ctx.language)).norm  # of `language`: equal strengths are equal doses
        return add_direction(ctx, config, self.direction(wanted, other), norms, details)


def contrast_pairs(
    ctx: FitContext, contrast: Literal["language", "quality"]
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Return the pairs of the cell's language, and for the record where they come from.

    For language, sentence i is paired with its translation into the i-th other language, round and round, the
    reference language among them: every language weighs the same, and no sentence is read twice.
    """
    if contrast == "quality":
        found = ctx.contrast()
        return list(zip(found.good, found.bad, strict=True)), {"contrast": found.source}
    others = [code for code in ctx.languages if code != ctx.language]
    turns = [ctx.pairs(ctx.language, code)[i :: len(others)] for i, code in enumerate(others)]
    return [pair for turn in turns for pair in turn], {"translated_into": others}


@register("caa")
class MeanDifference(ContrastVector):
    """Adds the mean difference of contrast pairs at their last token. Source: arXiv 2312.06681.

    v = unit(mean of (h[wanted] - h[other]) over the pairs), h the state at the layer. Cost: two texts a pair are
    read for every layer and language. The paper's pairs are two answers to a question, read at the answer's
    letter; here they are whole texts.
    """

    rule = "mean difference of pairs"
    known_limitations: ClassVar = (
        "The last token of most sentences is their full stop: what is read there is partly the punctuation mark "
        "of the script. at=mean reads all tokens."
    )

    def direction(self, wanted: States, other: States) -> NDArray[Any]:
        """Return the mean difference."""
        return np.asarray(np.mean(wanted - other, axis=0))


@register("pca")
class PrincipalComponent(ContrastVector):
    """Adds the first principal component of the differences of pairs. Source: arXiv 2310.01405.

    v maximises the sum of (v . d)^2 over the differences d = h[wanted] - h[other], in both directions as in the
    paper, so that their mean is 0 and is not taken off; its sign is that of v . mean(d). Cost: as ``caa``, and the
    eigenvectors of a matrix of pairs x pairs. The paper reads a prompt that asks for the concept; here texts are read
    as they are.
    """

    rule = "first principal component of the differences of pairs, its sign that of their mean"
    known_limitations: ClassVar = (
        "It follows whatever varies most between the two sides, a coordinate of huge size or the length of "
        "texts included, also where that has little to do with the contrast. No prompt asks for the concept."
    )

    def direction(self, wanted: States, other: States) -> NDArray[Any]:
        """Return the component, by the smaller of the two matrices that have it."""
        d = wanted - other
        wide = d.shape[0] < d.shape[1]
        vectors = np.linalg.eigh(d @ d.T if wide else d.T @ d).eigenvectors  # eigenvalues ascend
        component = d.T @ vectors[:, -1] if wide else vectors[:, -1]
        return component if component @ d.mean(axis=0) >= 0 else -component


@register("probe")
class Probe(ContrastVector):
    """Adds the direction of a logistic regression between the sides of pairs. Source: arXiv 2306.03341.

    v = unit(w), w the weights that tell h[wanted] from h[other], penalty 1/C. States are centred and divided by
    their mean distance from the centre, so that C means the same at every layer and on every model. Cost: as
    ``caa``, and seconds for the regression. The paper probes attention heads; here it is the residual stream, as in
    arXiv 2601.08331.
    """

    rule = "weights of a logistic regression between the two sides"
    known_limitations: ClassVar = (
        "What tells two sides apart best need not be what moves the model from one to the other; where the sides "
        "are separable, which is common, the penalty C decides the direction."
    )

    class Config(ContrastConfig):
        """``C``: inverse strength of the penalty."""

        at: ReadAt = "mean"
        C: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    def direction(self, wanted: States, other: States) -> NDArray[Any]:
        """Return the weights."""
        from sklearn.linear_model import LogisticRegression

        states, sides = _labelled(wanted, other)
        states = states - states.mean(axis=0)
        scale = np.linalg.norm(states, axis=1).mean()
        model = LogisticRegression(C=self.config.C, max_iter=1000).fit(states / scale, sides)
        return np.asarray(model.coef_[0])


@register("lda")
class Discriminant(ContrastVector):
    """Adds Fisher's linear discriminant between the sides of pairs. Source: Fisher 1936; arXiv 2601.08331.

    v = unit(S^-1 (mean h[wanted] - mean h[other])), S the covariance within the sides. It is shrunk: by
    ``shrinkage`` towards a multiple of the identity; with ``auto`` towards its diagonal, as much as Ledoit and Wolf
    (2004) say. Cost: as ``caa``, and solving a system of the hidden size d, O(d^3).
    """

    rule = "Fisher's discriminant of the two sides"
    known_limitations: ClassVar = (
        "With fewer texts than dimensions the shrinkage decides most of the direction; it leans on directions of small "
        "variance, along which the model may not react."
    )

    class Config(ContrastConfig):
        """``shrinkage``: auto, or from 0 to 1."""

        at: ReadAt = "mean"
        shrinkage: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = "auto"

    def direction(self, wanted: States, other: States) -> NDArray[Any]:
        """Return the discriminant."""
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        states, sides = _labelled(wanted, other)
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=self.config.shrinkage).fit(states, sides)
        return np.asarray(model.coef_[0])


def _labelled(wanted: States, other: States) -> tuple[States, NDArray[np.int64]]:
    """Return all states and their sides, 1 for wanted."""
    return np.concatenate([wanted, other]), np.repeat([1, 0], [len(wanted), len(other)])
