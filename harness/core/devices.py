"""Where a model runs and how precisely: devices and dtypes by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.checkpoints import Checkpoint
from harness.core.errors import UserError
from harness.core.machine import memory

if TYPE_CHECKING:
    import torch

_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvmap")  # NVIDIA, AMD, Windows' Linux, Jetson


def has_gpu() -> bool:
    """Say whether torch can use a GPU; asked for without its import, a second, where no driver has a device file."""
    if sys.platform == "linux" and not any(Path(driver).exists() for driver in _DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()


def choose_device(device: str | None = None) -> str:
    """Return the device to run on: the one asked for, else the first GPU, else the CPU."""
    if device is None or device == "cpu":
        return "cuda" if device is None and has_gpu() else "cpu"
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise UserError(f"unknown device {device!r}; valid: cpu, cuda, cuda:0.") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device!r} is not available here; use --device cpu.")
    return device


def torch_dtype(name: str) -> torch.dtype:
    """Return a precision of ``checkpoints.DTYPES`` as torch has it."""
    import torch

    found: torch.dtype = getattr(torch, name)
    return found


def free_memory(device: str | torch.device) -> int | None:
    """Return the bytes that can still be used on a device, None where the system does not say."""
    if str(device).startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return memory()[0]


def choose_dtype(device: str, checkpoint: Checkpoint) -> str:
    """Return the precision to run in: one that the device computes fast and that holds the range of the weights.

    A CPU runs in float32. A GPU runs in bfloat16, or in float16 where the weights are stored so; a GPU without
    bfloat16 units in float32, since weights trained in bfloat16 overflow in float16.
    """
    # Most CPUs emulate bfloat16. On one with AMX units (Gemma 3 270M, one core of a busy machine, seconds of CPU time)
    # texts were decoded 1.0 to 1.5 times as fast as in float32, but a prompt took 2 to 10 times as long, the first a
    # minute. In float32 no text was seen to depend on what shares its batch, and runs of all CPUs compare.
    kind = device.partition(":")[0]
    if kind == "cpu":
        return "float32"
    if checkpoint.stored_dtype == "float16":
        return "float16"
    return "bfloat16" if kind != "cuda" or _has_bfloat16(device) else "float32"


def _has_bfloat16(device: str) -> bool:
    import torch

    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def free_cache() -> None:
    """Give memory of GPUs that nothing uses any more back to the system, for other programs."""
    if has_gpu():
        import torch

        torch.cuda.empty_cache()
