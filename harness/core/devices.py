"""Where a model runs and how precisely: devices and dtypes by name."""

from __future__ import annotations

import torch

from harness.core.checkpoints import Checkpoint
from harness.core.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | None = None) -> str:
    """Return the device to run on: the one asked for, else the first GPU, else the CPU."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = torch.device(chosen).type
    except RuntimeError:
        raise UserError(f"unknown device {chosen!r}; valid: cpu, cuda, cuda:0.") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {chosen!r} is not available here; use --device cpu.")
    return chosen


def choose_dtype(device: str, checkpoint: Checkpoint) -> str:
    """Return the precision to run in: float32 on the CPU, else the checkpoint's own."""
    if torch.device(device).type == "cpu":
        return "float32"
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    stored = str(config.dtype or torch.bfloat16).removeprefix("torch.")
    return stored if stored in DTYPES else "bfloat16"
