"""Threads of linear algebra."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep linear algebra to one thread: of small matrices, others would only wait for one another."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # a light install: slower, and as right
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return limits
