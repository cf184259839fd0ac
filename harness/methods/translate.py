"""Translation: texts are written in the reference language and translated by a translation model."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from harness.core.checkpoints import NotDownloadedError
from harness.core.errors import MachineError, UserError
from harness.core.records import Setting
from harness.data.prompts import Prompt
from harness.methods.contract import CellContext, MethodConfig, PromptContext, Skip, SteeringMethod, register

if TYPE_CHECKING:
    from harness.data.backtranslation import Translator


@register("translate")
class Translate(SteeringMethod):
    """Writes in English, then translates with a translation model. Source: translate-train of arXiv 2003.11080.

    The suite's zero-shot prompt with its reference language, English, for the language; the texts go through the
    translator of ``contrast build``: NLLB, M2M100, MADLAD-400 or Marian, greedy or by beams as its files say. It is
    what practitioners do whose model writes a language badly. It takes no steering: the vectors of a language would
    turn the English. Cost: the seconds of both models and the tokens of the language model count; the memory of the
    translator comes on top.
    """

    settings: ClassVar[tuple[Setting, ...]] = ("zero-shot",)  # demonstrations are in the target language
    test_config: ClassVar[dict[str, Any]] = {"translator": "noise"}
    known_limitations: ClassVar = (
        "Texts have the topics and the style of English, and the errors of the translator. Contrast text of the same "
        "translator shares them. Its weights are named, not part of the identity."
    )

    class Config(MethodConfig):
        """``translator``: as in ``contrast build``, where ``noise`` translates nothing; ``revision``: its commit."""

        translator: str = "facebook/nllb-200-distilled-600M"
        revision: str | None = None

    def supports(self, ctx: CellContext) -> Skip | None:
        """Return that a language needs no translation, or that the translator does not know it.

        It opens the translator, so that one that is not there ends a cell before anything is written.
        """
        if ctx.language == ctx.suite.reference_language:
            return Skip("texts in the reference language need no translation")
        translator = self._translator
        try:
            translator.code(ctx.language)
        except UserError as error:
            return Skip(str(error))
        return None

    def prompt(self, ctx: PromptContext) -> Prompt:
        """Return the suite's prompt for the reference language."""
        english = ctx.task.model_copy(update={"language": ctx.suite.reference_language})
        return replace(ctx, task=english).suite_prompt()

    def edit(self, ctx: CellContext, texts: list[str]) -> list[str]:
        """Return the translations; empty texts stay empty."""
        translator, written = self._translator, [text for text in texts if text]
        source, target = (translator.code(code) for code in (ctx.suite.reference_language, ctx.language))
        done = iter(translator.translate(written, source, target) if written else [])
        return [next(done) if text else text for text in texts]

    @cached_property
    def _translator(self) -> Translator:
        from harness.data.translators import open_translator

        try:
            return open_translator(self.config.translator, self.config.revision)
        except NotDownloadedError as error:  # no fault of the method
            raise MachineError(str(error)) from None
