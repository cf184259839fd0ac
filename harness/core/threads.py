"""Threads of linear algebra, and how many of them and of worker processes a command may use."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from typing import Any

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What libraries read when they are loaded; the first one also counts where ``--threads`` is not given."""


def usable_cores() -> int:
    """Return the number of cores that this process may use: its affinity, as set by taskset or a batch system."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def allowed_threads() -> int:
    """Return how many threads may run at once, all worker processes together: never more than there are cores."""
    asked = os.environ.get(VARIABLES[0], "")
    return min(int(asked), usable_cores()) if asked.isdecimal() and int(asked) else usable_cores()


def set_threads(number: int) -> None:
    """Let this process and its workers use at most so many threads; more than there are cores are not used.

    Libraries that are not yet loaded read it from the environment.
    """
    number = min(number, usable_cores())
    os.environ.update(dict.fromkeys(VARIABLES, str(number)))
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(limits=number)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)


def limit_blas_threads() -> AbstractContextManager[Any]:
    """Keep linear algebra to one thread: of small matrices, others would only wait for one another."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return limits
