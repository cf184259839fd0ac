"""Compose the mini suite's data from its phrase lists.

Run ``python tasks/mini/build.py`` after editing a file in ``phrases/``. A review is an opener followed by
a judgement, an article is a statement followed by a closer; every text of a split pairs phrases of that
split, so that no phrase of train is met in validation or test. Parallel text holds the train phrases
alone; its degraded copy is the word noise of ``harness.data.corpus`` with a fixed key.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from harness.core.files import write_jsonl
from harness.data.corpus import word_noise

HERE = Path(__file__).parent
NOISE = 0.3


def compose(task: str, frame: str, phrase: str) -> str:
    """Return one text: reviews open with the frame, articles close with it."""
    return f"{frame} {phrase}" if task == "sentiment" else f"{phrase} {frame}"


def labelled(phrases: dict, task: str, split: str) -> list[dict]:
    """Return all rows of one split of one task: every frame with every phrase of every label."""
    frames = phrases[task]["frames"][split]
    return [
        {
            "id": f"mini-{task}-{split}-{label}-{p}-{f}",
            "text": compose(task, frame, phrase),
            "label": label,
        }
        for label, splits in phrases[task].items()
        if label != "frames"
        for p, phrase in enumerate(splits[split])
        for f, frame in enumerate(frames)
    ]


def sentences(phrases: dict) -> list[dict]:
    """Return the train phrases and frames as parallel sentences; equal ids mean the same."""
    return [
        {"id": f"mini-{task}-{group}-{i}", "text": text}
        for task in ("sentiment", "topic")
        for group, splits in phrases[task].items()
        for i, text in enumerate(splits["train"])
    ]


def build(phrases_dir: Path, data_dir: Path) -> None:
    """Write the data folder of every language that has a phrase file."""
    for path in sorted(phrases_dir.glob("*.yaml")):
        language = path.stem
        phrases = yaml.safe_load(path.read_text(encoding="utf-8"))
        for task in ("sentiment", "topic"):
            for split in ("train", "validation", "test"):
                rows = labelled(phrases, task, split)
                write_jsonl(data_dir / task / language / f"{split}.jsonl", rows)
        parallel = sentences(phrases)
        write_jsonl(data_dir / "parallel" / f"{language}.jsonl", parallel)
        noisy = [
            {
                "id": row["id"],
                "text": word_noise(row["text"], NOISE, f"mini/{language}/{row['id']}"),
            }
            for row in parallel
        ]
        write_jsonl(data_dir / "parallel_mt" / "noise" / f"{language}.jsonl", noisy)


if __name__ == "__main__":
    build(HERE / "phrases", HERE / "data")
