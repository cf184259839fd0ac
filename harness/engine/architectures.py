"""Which models can be steered: by their config before anything is loaded, and by a few tokens once they are.

What nobody has tried may still work: a model is refused for what it does, not because its name is not on a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from harness.core.errors import UserError, in_words, is_infrastructure
from harness.core.interventions import Intervention, Steering

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.engine.model import SteerableModel

_CROSS = re.compile(r"\b(encoder_attn|crossattention|cross_attn|cross_attention)$")
_TOKENS = 9  # of the text that is tried
_ROWS = 32  # layers that are steered in one pass


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Raise ``UserError`` where a model's config.json alone says that it cannot be steered; loads nothing."""
    _refuse(name, _why_not_by_config(config))


def check_model(model: SteerableModel, name: str) -> None:
    """Raise ``UserError`` where a loaded model does not do what steering and reading it take for granted.

    A few tokens go through it, which takes about as long as a few tokens of a text.
    """
    try:
        reason = _Trial(model).why_not()
    except Exception as error:  # whatever a network raises, it is of no use to any cell
        if is_infrastructure(error):
            raise
        reason = f"a pass over a few tokens fails ({in_words(error):.160})"
    _refuse(name, reason)


def _refuse(name: str, reason: str) -> None:
    if reason:
        raise UserError(
            f"{name} cannot be steered: {reason}. Give another --model; 'steerboard docs models' lists architectures."
        )


def _why_not_by_config(config: Mapping[str, Any]) -> str:
    """Return why a model with this config.json cannot be steered, empty where its config does not say."""
    family = str(config.get("model_type"))
    translator = (
        f"it is an encoder-decoder ({family}), whose decoder writes nothing of use without the encoder's states"
    )
    encoder = f"it is an encoder ({family}), which reads a text in both directions and does not continue it"
    if config.get("is_encoder_decoder"):
        return translator
    if not config.get("is_decoder") and any(str(kind).endswith("ForMaskedLM") for kind in _architectures(config)):
        return encoder
    if "num_key_value_heads" in config and any(str(kind).endswith("ForCausalLM") for kind in _architectures(config)):
        return ""  # no family of encoders has both, which saves seconds of imports
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto as auto

    if family not in CONFIG_MAPPING:
        return ""  # transformers says more about it when it is loaded
    defaults = CONFIG_MAPPING[family]
    if getattr(defaults, "is_encoder_decoder", False):
        return translator if config.get("is_encoder_decoder") is None else ""  # else a decoder that was trained alone
    causal = family in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = family in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if masked and not (causal and config.get("is_decoder", not hasattr(defaults, "is_decoder"))):
        return encoder
    return ""


def _architectures(config: Mapping[str, Any]) -> list[object]:
    found = config.get("architectures")
    return found if isinstance(found, list) else []


class _Trial:
    """Passes of one text of a few tokens: alone, beside others, beside a shorter one, and steered."""

    def __init__(self, model: SteerableModel) -> None:
        import torch

        self.model = model
        limit = model.context_length or 0  # XLNet says -1
        numbers = torch.arange(1, min(_TOKENS, limit if limit > 0 else _TOKENS) + 1)
        self.text = (7 * numbers) % model.model.config.get_text_config().vocab_size
        self.exact = model.exact

    def why_not(self) -> str:
        """Return the first reason against the model, empty where there is none."""
        unused = self._cross_attention()
        if unused:
            return f"its layers attend to the states of an encoder ({unused}), and a text alone has none"
        return self._shapes() or self._context() or self._steering()

    def _cross_attention(self) -> str:
        """Return the name of a part of a layer that reads from an encoder, empty where there is none."""
        return next((name for name, _ in self.model.layers.named_modules() if _CROSS.search(name)), "")

    def _shapes(self) -> str:
        """Return which layer does not give one state for every token, once in a pass."""
        states = self._read([self.text])
        expected = (1, len(self.text), self.model.hidden_size)
        for layer, of_layer in enumerate(states):
            if len(of_layer) != 1:
                return f"it does not run each of its layers once in a pass (layer {layer}: {len(of_layer)} times)"
            if of_layer[0].shape != expected:
                return (
                    f"its layers do not pass on one residual stream (layer {layer} gives {list(of_layer[0].shape)} "
                    f"where a text of {expected[1]} tokens and a hidden size of {expected[2]} are {list(expected)})"
                )
        return ""

    def _context(self) -> str:
        """Return what changes the states of a token although it must not: later tokens, other texts, padding."""
        text, changed, short = self.text, self.text.clone(), max(1, len(self.text) - 3)
        changed[-1] += -1 if changed[-1] else 1
        alone = self._stacked([text])[:, 0]
        if self._differ(alone, self._generating()[:, 0]):
            return "it counts the positions of a text from another number than 0"
        three = self._stacked([text, changed, text.flip(0)])
        if self._differ(three[:, 1, :-1], three[:, 0, :-1], 1e-3 if self.exact else 1e-2):  # one pass: equally rounded
            return "a token's state depends on the tokens after it, so it does not write from left to right"
        if self._differ(three[:, 0], alone):
            return "the states of a text depend on the texts beside it in a batch"
        padded = self._stacked([text, text[:short]])
        if self._differ(padded[:, 1, :short], alone[:, :short]):
            return "padding changes the states of a text"
        return ""

    def _steering(self) -> str:
        """Return at which layer a vector does not move its output by the vector, tried in rows of one layer each."""
        import numpy as np
        import torch

        plain = self._stacked([self.text])[:, 0]
        norms = torch.linalg.vector_norm(plain, dim=-1).median(dim=1).values
        unit = torch.from_numpy(np.random.default_rng(0).normal(size=plain.shape[2]).astype(np.float32))
        vectors = norms[:, None] * unit / unit.norm()
        for start in range(0, len(vectors), _ROWS):
            layers = range(start, min(start + _ROWS, len(vectors)))
            rows = [
                Steering((Intervention("layer_output", layer, "add", vectors[layer].numpy(), 1.0, "raw", 1.0, "all"),))
                for layer in layers
            ]
            steered = self._stacked([self.text] * len(rows), rows)
            for row, layer in enumerate(layers):
                moved = steered[layer, row] - plain[layer]
                # In the median: beside the huge state of a first token, a vector is a matter of rounding.
                if _apart(moved, vectors[layer].expand_as(moved)).median() > self._bound:
                    return f"a vector added after a layer does not move its output by that vector (layer {layer})"
                if (
                    layer + 1 < len(plain)
                    and _apart(steered[layer + 1, row], plain[layer + 1]).median() < self._bound / 10
                ):
                    return f"a vector added after a layer does not reach the layer above it (layer {layer})"
        return ""

    def _stacked(self, texts: Sequence[Tensor], rows: Sequence[Steering] | None = None) -> Tensor:
        """Return the states after every layer: [layers, texts, positions, size]."""
        import torch

        return torch.stack([state for (state,) in self._read(texts, rows)])

    def _read(self, texts: Sequence[Tensor], rows: Sequence[Steering] | None = None) -> list[list[Tensor]]:
        """Return what each layer gives in a pass, as often as it runs, as float32 on the CPU."""
        from harness.engine.activations import forward

        model = self.model
        ids, mask = model.padded([text.tolist() for text in texts])
        inputs = {"input_ids": ids.to(model.device), "attention_mask": mask.long().to(model.device)}
        with ExitStack() as stack:
            seen = stack.enter_context(self._watched())
            if rows is not None:
                stack.enter_context(model.hooks.steer(rows, inputs["attention_mask"]))
            forward(model, inputs)
        return seen

    def _generating(self) -> Tensor:
        """Return the states of the text as a pass that writes texts without a cache has them."""
        import torch

        ids = self.text[None].to(self.model.device)
        with self._watched() as seen, torch.inference_mode():
            self.model.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        return torch.stack([state for (state,) in seen])

    @contextmanager
    def _watched(self) -> Iterator[list[list[Tensor]]]:
        """Give the list of every layer's outputs, which passes inside the block fill."""
        seen: list[list[Tensor]] = [[] for _ in self.model.layers]

        def watch(of_layer: list[Tensor]) -> Callable[[nn.Module, object, Any], None]:
            def keep(module: nn.Module, args: object, output: Any) -> None:
                of_layer.append((output if hasattr(output, "shape") else output[0]).float().cpu())

            return keep

        with ExitStack() as stack:
            for layer, of_layer in zip(self.model.layers, seen, strict=True):
                stack.callback(layer.register_forward_hook(watch(of_layer)).remove)
            yield seen

    @property
    def _bound(self) -> float:
        """From which share of its norm a state counts as another one."""
        return 1e-3 if self.exact else 0.1

    def _differ(self, found: Tensor, expected: Tensor, bound: float | None = None) -> bool:
        """Say whether states differ: the one that differs most, in half precision the median.

        There, rounding can send a token to another expert, which changes single states altogether.
        """
        apart = _apart(found, expected)
        return float(apart.max() if self.exact else apart.median()) > (bound or self._bound)


def _apart(found: Tensor, expected: Tensor) -> Tensor:
    """Return by what share of its norm every state differs from the expected one."""
    import torch

    gap = torch.linalg.vector_norm(found - expected, dim=-1)
    apart: Tensor = gap / torch.linalg.vector_norm(expected, dim=-1).clamp(min=1e-12)
    return apart.flatten()
