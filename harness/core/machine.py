"""What the machine has, as the system says it: processor and memory. Loads no other library."""

from __future__ import annotations

import platform
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")  # the limits of a container


def cpu_name() -> str:
    """Return the model of the processor, or at least its architecture."""
    return _cpu_field("model name") or platform.processor() or platform.machine()


def bfloat16_units() -> list[str]:
    """Return the processor's instructions for bfloat16; empty where it emulates them, or does not say."""
    flags = f"{_cpu_field('flags')} {_cpu_field('Features')}".split()
    return [name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in flags]


def _cpu_field(name: str) -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def memory() -> tuple[int | None, int | None]:
    """Return the bytes of memory that this process can still use and those of all; None where that is not known.

    Both are at most what a container allows.
    """
    known = {key: 1024 * int(value.split()[0]) for key, value in _pairs(_read(Path("/proc/meminfo")))}
    free, total = ([known[name]] if name in known else [] for name in ("MemAvailable", "MemTotal"))
    limit, used = _read(_CGROUP / "memory.max").strip(), _read(_CGROUP / "memory.current").strip()
    if limit.isdigit():
        total.append(int(limit))
        free += [int(limit) - int(used)] if used.isdigit() else []
    return min(free, default=None), min(total, default=None)


def peak_memory() -> int:
    """Return the bytes of the largest amount of memory that this process has held so far."""
    known = {key: 1024 * int(value.split()[0]) for key, value in _pairs(_read(Path("/proc/self/status")))}
    if "VmHWM" in known:  # of this program alone: getrusage counts what the process held before it was started
        return known["VmHWM"]
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    return [(key, value) for key, value in pairs if value.split()[:1] and value.split()[0].isdigit()]


def cpu_quota() -> float | None:
    """Return the number of cores whose time a container may use, None where it has no such limit."""
    words = _read(_CGROUP / "cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and all(map(str.isdigit, words)) else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
