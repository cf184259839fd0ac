"""Texts that do not belong on the board, as a plug-in.

    steerboard run --plugin tests/support/cheats.py

Each is what somebody could hand in who looks at the score alone. As rows without a model they may take what
they like, test text too, which no method is ever given.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.data.corpus import word_noise
from harness.data.suite import Split
from harness.methods.contract import ReferenceContext
from steerboard import Reference, register

CHEATS = [
    "one-text",
    "copied-train",
    "copied-test",
    "label-word",
    "wrong-language",
    "random-characters",
    "shuffled-words",
    "thinned-test",
    "noisy-train",
    "spliced-test",
    "test-in-part",
]
"""Every cheat here."""


def stolen(ctx: ReferenceContext, split: Split, language: str | None = None) -> dict[str, list[str]]:
    """Return the texts of any split and language by label, behind the back of the contract."""
    groups = ctx._corpus.by_label(ctx.task.name, language or ctx.language, split)
    return {label: [row.text for row in rows] for label, rows in groups.items()}


def drawn(ctx: ReferenceContext, groups: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return as many texts per label as are asked for; again from the start where a label has too few."""
    found = {}
    for label, texts in groups.items():
        order = ctx.rng.permutation(len(texts))
        found[label] = [texts[order[i % len(order)]] for i in range(ctx.texts_per_label)]
    return found


def shuffled(ctx: ReferenceContext, words: list[str]) -> str:
    """Return words in another order."""
    return " ".join(words[i] for i in ctx.rng.permutation(len(words)))


@register("one-text")
class OneText(Reference):
    """One human train text per label, over and over."""

    def texts(self, ctx):
        return {label: texts[:1] * ctx.texts_per_label for label, texts in drawn(ctx, ctx.train()).items()}


@register("copied-train")
class CopiedTrain(Reference):
    """Human train texts."""

    def texts(self, ctx):
        return drawn(ctx, ctx.train())


@register("copied-test")
class CopiedTest(Reference):
    """Human test texts with their labels."""

    def texts(self, ctx):
        return drawn(ctx, stolen(ctx, "test"))


@register("label-word")
class LabelWord(Reference):
    """The word for the label, several times."""

    def texts(self, ctx):
        times = ctx.rng.integers(3, 30, size=ctx.texts_per_label)
        return {label: [" ".join([label] * n) for n in times] for label in ctx.task.labels}


@register("wrong-language")
class WrongLanguage(Reference):
    """Human train texts of the label in the suite's next language."""

    def texts(self, ctx):
        known = ctx.suite.languages
        return drawn(ctx, stolen(ctx, "train", known[(known.index(ctx.language) + 1) % len(known)]))


@register("random-characters")
class RandomCharacters(Reference):
    """Characters of human text in random order, as many as people write, another part of them per label."""

    def texts(self, ctx):
        groups = ctx.train()
        signs = sorted(set("".join(text for group in groups.values() for text in group)))
        part = len(signs) // len(groups) + 1
        found = {}
        for i, (label, texts) in enumerate(drawn(ctx, groups).items()):
            own = [*signs[i * part : (i + 1) * part], *signs, " ", " "]
            found[label] = ["".join(ctx.rng.choice(own, size=len(text))) for text in texts]
        return found


@register("shuffled-words")
class ShuffledWords(Reference):
    """One human train text per label, its words in another order each time."""

    def texts(self, ctx):
        return {
            label: [shuffled(ctx, texts[0].split()) for _ in texts] for label, texts in drawn(ctx, ctx.train()).items()
        }


@register("thinned-test")
class ThinnedTest(Reference):
    """Human test texts without every third word."""

    def texts(self, ctx):
        return {
            label: [" ".join(w for i, w in enumerate(text.split()) if i % 3 != 2) for text in texts]
            for label, texts in drawn(ctx, stolen(ctx, "test")).items()
        }


@register("noisy-train")
class NoisyTrain(Reference):
    """Human train texts with words dropped, swapped and repeated."""

    def texts(self, ctx):
        return {
            label: [word_noise(text, 0.3, f"{i}") for i, text in enumerate(texts)]
            for label, texts in drawn(ctx, ctx.train()).items()
        }


@register("spliced-test")
class SplicedTest(Reference):
    """The first half of a human test text and the second half of another with the same label."""

    def texts(self, ctx):
        found = {}
        for label, texts in drawn(ctx, stolen(ctx, "test")).items():
            words = [text.split() for text in texts]
            ends = [words[-1], *words[:-1]]
            found[label] = [
                " ".join([*one[: len(one) // 2], *two[len(two) // 2 :]]) for one, two in zip(words, ends, strict=True)
            ]
        return found


@register("test-in-part")
class TestInPart(Reference):
    """Human train texts, but every fourth is a test text with its words in another order."""

    __test__ = False

    def texts(self, ctx):
        held_out, honest = drawn(ctx, stolen(ctx, "test")), drawn(ctx, ctx.train())
        return {
            label: [shuffled(ctx, held_out[label][i].split()) if i % 4 == 0 else text for i, text in enumerate(texts)]
            for label, texts in honest.items()
        }
