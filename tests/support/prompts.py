"""Prompts and keys for a cell of texts."""

from __future__ import annotations

import hashlib

from harness.data.prompts import Prompt

PROMPTS = {"positive": Prompt("a b"), "negative": Prompt("Write a review with positive sentiment.")}


def key_of(label: str, index: int, attempt: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{label}/{index}/{attempt}".encode()).digest()[:8], "big")
