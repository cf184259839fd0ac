"""Linear algebra of small matrices keeps to one thread."""

from __future__ import annotations

from support.helpers import python


def test_linear_algebra_keeps_to_one_thread_and_back():
    code = (
        "import numpy\nfrom threadpoolctl import threadpool_info\n"
        "from harness.core.threads import limit_blas_threads\n"
        "def most():\n"
        "    return max(pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas')\n"
        "before = most()\n"
        "with limit_blas_threads():\n    assert most() == 1\n"
        "assert most() == before\n"
    )
    python(code)
