"""How large a submission and its parts may be. All bounds are far above what the suite ``steer11`` needs."""

from __future__ import annotations

KIB, MIB = 1024, 1024 * 1024

FILES: dict[str, int] = {
    "submission.yaml": 64 * KIB,
    "method.py": 256 * KIB,
    "manifest.json": 4 * MIB,
    "hashes.json": 4 * MIB,
    "status.json": MIB,
    "generations.jsonl.gz": 8 * MIB,
    "scores.json.gz": MIB,
    "predictions.json.gz": 8 * MIB,
}
"""Name of a file -> bytes that it may have."""

UNPACKED: dict[str, int] = {
    "generations.jsonl.gz": 16 * MIB,
    "scores.json.gz": 4 * MIB,
    "predictions.json.gz": 16 * MIB,
}
"""Name of a compressed file -> bytes that it may hold; nothing is unpacked beyond."""

STEERING = 32 * MIB
"""Bytes of one steering file."""

SUBMISSION = 256 * MIB
"""Bytes of all files of a submission."""

N_FILES = 100_000
"""Files of a submission."""

DEPTH = 5
"""Folders below that of the submission, at most, and one more for the file."""

CELLS = 5_000
"""Cells of one model."""

MODELS = 20
"""Models of a submission."""

LINES = 20_000
"""Texts of one cell."""

TEXT = 50_000
"""Characters of one text."""

NESTING = 40
"""How deep lists and objects may lie in one another."""

YAML_EVENTS = 20_000
"""Keys, values and brackets of a YAML file."""
