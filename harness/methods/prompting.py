"""The two unsteered rows: the suite's prompt alone, and with demonstrations."""

from __future__ import annotations

from typing import ClassVar

from harness.core.records import Setting
from harness.methods.contract import SteeringMethod, register


@register("zero-shot")
class ZeroShot(SteeringMethod):
    """The suite's prompt, no steering. Source: the unsteered baseline of arXiv 2606.18389."""

    settings: ClassVar[tuple[Setting, ...]] = ("zero-shot",)


@register("few-shot")
class FewShot(SteeringMethod):
    """The prompt with five human examples, no steering. Source: arXiv 2606.18389."""

    known_limitations: ClassVar = "Texts lean on the demonstrations; see copied and overlap (demonstrations)."
    settings: ClassVar[tuple[Setting, ...]] = ("few-shot",)
