"""The neurons of a gated MLP: coordinates of the input of ``mlp.down_proj`` (arXiv 2601.16390).

That input is act(gate(h)) x up(h) in every family with a gated MLP, whether gate and up are two matrices
(Llama, Gemma, Qwen, Mistral) or one (Phi-3).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from harness.core.errors import UnsupportedError


def down_projection(layer: nn.Module, required: int | None = None) -> nn.Module | None:
    """Return ``down_proj`` of a layer's gated MLP, or None where it has none.

    With ``required``, the layer's index, raises ``UnsupportedError`` instead, saying what stands there.
    """
    mlp: Any = getattr(layer, "mlp", None)
    gated = any(hasattr(mlp, name) for name in ("gate_proj", "gate_up_proj"))
    if gated and hasattr(mlp, "down_proj") and not hasattr(mlp, "experts"):
        projection: nn.Module = mlp.down_proj
        return projection
    if required is None:
        return None
    raise UnsupportedError(_refusal(layer, mlp, required))


def _refusal(layer: nn.Module, mlp: Any, index: int) -> str:
    experts = [name for name, _ in layer.named_modules() if name.split(".")[-1] == "experts"]
    if experts:
        return (
            f"layer {index} of this model is a mixture of experts ({type(layer).__name__}, {experts[0]}): "
            "which neurons a token meets is the router's choice, so they have no mean over texts. "
            "Use a dense model, or a method that adds a vector."
        )
    kind = type(mlp).__name__ if mlp is not None else f"no 'mlp' in {type(layer).__name__}"
    return (
        f"layer {index} of this model has no gated MLP with a down_proj ({kind}). Neuron steering needs "
        "one, as Llama, Gemma, Qwen, Mistral and Phi-3 have; use a method that adds a vector."
    )


def has_sandwich_norm(layer: nn.Module) -> bool:
    """Say whether a norm follows the MLP inside the layer (Gemma 2 and 3, GLM-4).

    There only the relative change between neurons reaches the residual stream, so that gains saturate.
    """
    names = ("post_feedforward_layernorm", "post_mlp_layernorm")
    return any(hasattr(layer, name) for name in names)
