"""Controls: what a method gives when the one thing that it claims is taken away.

Every control names the method it controls and shares that method's config, layer and strength with it.
A gain that its controls have too is not a gain of the method.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from harness.core.errors import UnsupportedError, UserError
from harness.core.files import digest
from harness.core.interventions import Intervention, Steering
from harness.core.languages import unknown_language
from harness.core.records import MethodIdentity, Setting
from harness.data.corpus import Contrast
from harness.data.prompts import Prompt
from harness.methods.contract import (
    CellContext,
    FitContext,
    MethodConfig,
    PromptContext,
    Skip,
    SteeringMethod,
    register,
)

Configure = Callable[[str, dict[str, Any]], list[SteeringMethod]]


class Control(SteeringMethod):
    """A variant of another method; ``bind`` gives it that method."""

    known_limitations: ClassVar = "Not a proposal: it shows what remains of a gain without what the method claims."
    target: SteeringMethod

    class Config(MethodConfig):
        """``of``: the method that is controlled; ``options``: that method's config."""

        of: str = "language"
        options: dict[str, Any] = Field(default={})

    def bind(self, configure: Configure) -> None:
        """Take the controlled method from the registry; ``UserError`` where it has no fit to control."""
        found = configure(self.config.of, self.config.options)
        if len(found) != 1:
            raise UserError(f"control {self.name!r}: give single options of {self.config.of!r}, not a sweep.")
        (self.target,) = found
        if isinstance(self.target, Control) or not self.target.has_fit:
            raise UserError(
                f"control {self.name!r}: {self.config.of!r} is not a steering method. Name one, such as language."
            )
        self.settings: tuple[Setting, ...] = self.target.settings  # type: ignore[misc]

    @property
    def identity(self) -> MethodIdentity:
        """Name, version and config, with the controlled method's whole identity."""
        own = self.config.model_dump(mode="json", exclude={"of", "options"})
        target = self.target.identity
        config = {"of": target.name, "of_version": target.version, "options": target.config, **own}
        return MethodIdentity(name=self.name, version=self.version, config=config)

    @property
    def has_check(self) -> bool:
        """Whether the controlled method asks about its texts."""
        return self.target.has_check

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return what the controlled method returns."""
        return self.target.supports(ctx)

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return what the controlled method returns."""
        return self.target.vector_languages(ctx)

    def prompt(self, ctx: PromptContext) -> Prompt:
        """Return the controlled method's prompt."""
        return self.target.prompt(ctx)

    def check(self, ctx: PromptContext, text: str) -> Prompt | None:
        """Return what the controlled method asks about a text."""
        return self.target.check(ctx, text)

    def edit(self, ctx: CellContext, texts: list[str]) -> list[str]:
        """Return what the controlled method keeps of texts."""
        return self.target.edit(ctx, texts)

    def _changed(self, fitted: Steering, rule: str, vector: Any = lambda item: item.vector, **more: Any) -> Steering:
        """Return ``fitted`` with vectors replaced by ``vector(item)`` and the control in its provenance."""
        items = tuple(replace(item, vector=vector(item)) for item in fitted.interventions)
        return Steering(items, {**fitted.provenance, "control": {"of": self.config.of, "rule": rule, **more}})


@register("random")
class RandomVector(Control):
    """Control: a random direction of equal norm, or the same gains on random neurons."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return the target's interventions with random vectors, drawn by ``ctx.rng``."""

        def drawn(item: Intervention) -> Any:
            if item.operation == "scale":  # as many neurons, the same gains
                return ctx.rng.permutation(item.vector)
            vector = ctx.rng.standard_normal(len(item.vector))
            return (vector * (np.linalg.norm(item.vector) / np.linalg.norm(vector))).astype(np.float32)

        fitted = ctx.fit(self.target, ctx.language)
        return self._changed(fitted, "random direction of equal norm; gains permuted over neurons", drawn)


@register("negated")
class NegatedVector(Control):
    """Control: minus the fitted vector."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return the target's interventions with the opposite sign."""
        return self._changed(ctx.fit(self.target, ctx.language), "the opposite sign", lambda item: -item.vector)


@register("other-language")
class OtherLanguage(Control):
    """Control: what the method fits for another language of the suite."""

    class Config(Control.Config):
        """``language``: whose fit is taken; by default the next in the suite's list."""

        language: str | None = None

    def fit(self, ctx: FitContext) -> Steering:
        """Return the target's interventions fitted for the other language."""
        code = self._other(ctx)
        return self._changed(ctx.fit(self.target, code), "fitted for another language", language=code)

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return the target's reason, or that there is no other language to take the fit from."""
        if self._other(ctx) != ctx.language:
            return self.target.supports(ctx)
        if self.config.language:
            return Skip(f"{ctx.language} is the language that the vector is taken from")
        return Skip(f"suite {ctx.suite.name!r} has no other language")

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return what the controlled method returns for the other language."""
        return self.target.vector_languages(replace(ctx, task=ctx.suite.task(ctx.task.name, self._other(ctx))))

    def _other(self, ctx: CellContext | FitContext) -> str:
        codes = ctx.suite.languages
        at = codes.index(ctx.language) if ctx.language in codes else -1
        following: str = codes[(at + 1) % len(codes)]
        return self.config.language or following


@register("shuffled")
class ShuffledLabels(Control):
    """Control: the method fitted on real text whose grouping is by chance."""

    def fit(self, ctx: FitContext) -> Steering:
        """Return the target's fit on text with shuffled languages, qualities or labels."""
        # No stored fit: the one that cells of the target use was made on the true grouping.
        shuffled = ShuffledFitContext(**{**vars(ctx), "_stored_fit": None})
        return self._changed(shuffled.fit(self.target, ctx.language), "labels of the text shuffled")

    def vector_languages(self, ctx: CellContext) -> list[str]:
        """Return all languages: sentences of any of them are drawn."""
        return ctx.suite.vector_languages


class ShuffledFitContext(FitContext):
    """A context whose texts are real and whose groupings (by language, quality, label) are by chance."""

    def parallel(self, code: str) -> list[str]:
        """Return sentences in a random language each, as ``permute_languages`` draws them."""
        pools = {c: {s.id: s.text for s in self._corpus.vector_text(c)} for c in self.languages}
        if code not in pools:
            raise unknown_language(code, pools)
        return permute_languages(pools)[code]

    def pairs(self, code: str, other: str) -> list[tuple[str, str]]:
        """Return translations whose languages were drawn by chance."""
        return list(zip(self.parallel(code), self.parallel(other), strict=True))

    def contrast(self) -> Contrast:
        """Return the pairs with human and degraded text exchanged by chance."""
        return swap_pairs(super().contrast(), self.language)

    def train(self) -> dict[str, list[str]]:
        """Return the train texts under random labels."""
        return permute_labels(super().train(), f"{self.task.name}/{self.language}")


# Draws are keyed by id and text, so that a text's draw depends on no other text.


def permute_languages(pools: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Return each language's sentences after their languages were permuted, sentence by sentence.

    ``pools``: language -> id -> text. Only ids that every language has are used, so that each
    "language" gets every sentence once, in a language drawn by chance. Raises ``UnsupportedError``
    where there is no such id.
    """
    codes = list(pools)
    shared = [i for i in pools[codes[0]] if all(i in pool for pool in pools.values())]
    if not shared:
        raise UnsupportedError(f"control 'shuffled': no sentence is there in all languages ({', '.join(codes)}).")
    drawn: dict[str, list[str]] = {code: [] for code in codes}
    for identity in shared:
        order = random.Random(f"shuffled/{identity}").sample(codes, len(codes))
        for code, source in zip(codes, order, strict=True):
            drawn[code].append(pools[source][identity])
    return drawn


def swap_pairs(contrast: Contrast, key: str) -> Contrast:
    """Return the pairs with human and degraded text exchanged in about every second pair, by chance."""
    pairs = list(zip(contrast.good, contrast.bad, strict=True))
    heads = [random.Random(digest(["shuffled", key, good, bad])).random() < 0.5 for good, bad in pairs]
    good = [pair[swap] for pair, swap in zip(pairs, heads, strict=True)]
    bad = [pair[not swap] for pair, swap in zip(pairs, heads, strict=True)]
    return replace(contrast, good=good, bad=bad, source=f"{contrast.source}, labels shuffled")


def permute_labels(texts: Mapping[str, list[str]], key: str) -> dict[str, list[str]]:
    """Return labelled texts with the labels permuted, as many of each as before."""
    pool = [text for group in texts.values() for text in group]
    random.Random(f"shuffled/{key}").shuffle(pool)
    rest = iter(pool)
    return {label: [next(rest) for _ in group] for label, group in texts.items()}
