"""How many random inputs a test gets: few, the same in every run; FUZZ_EXAMPLES asks for more, and other ones."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))

settings.register_profile(
    "steerboard",
    max_examples=_EXAMPLES or 20,
    derandomize=not _EXAMPLES,
    database=None,
    deadline=30_000,  # ms: no input may keep a parser busy, on a busy machine neither
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("steerboard")
