"""Where a model runs and how precisely: devices and dtypes by name."""

from __future__ import annotations

from pathlib import Path

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


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that can still be used on a device, None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
        group = Path("/sys/fs/cgroup")  # a container's own limit
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        found += [int(limit) - int(used)] if limit.isdigit() else []
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def choose_dtype(device: str, checkpoint: Checkpoint) -> str:
    """Return the precision to run in: float32 on the CPU, else the checkpoint's own."""
    if torch.device(device).type == "cpu":
        return "float32"
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    stored = str(config.dtype or torch.bfloat16).removeprefix("torch.")
    return stored if stored in DTYPES else "bfloat16"
