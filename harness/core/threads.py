"""Threads of linear algebra."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any


def limit_blas_threads() -> AbstractContextManager[Any]:
    """Keep linear algebra to one thread: of small matrices, others would only wait for one another."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return limits
