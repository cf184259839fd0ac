"""Sentences in Amharic and Hebrew, and random texts."""

from __future__ import annotations

import numpy as np

AMHARIC = [
    "ዛሬ ጠዋት ወንዙ አጠገብ ያለው ትልቁ ዛፍ በነፋስ ወደቀ።",
    "እህቴ በሚቀጥለው ሳምንት ኮምፒውተሯን ለመሸጥ አስባለች?",
    "የመንግሥት ምክር ቤት አዲሱን የግብር ሕግ ገና አልተቀበለውም፤ ክርክሩ ቀጥሏል።",
]
HEBREW = [
    "הכלב של השכנים נבח כל הלילה ולא נתן לנו לישון.",
    "מחיר הדלק צפוי לעלות בחודש הבא, אמר משרד האוצר.",
    "אם ירד מחר גשם, נבטל את הטיול וניסע לים בשבת?",
]


class Zipf:
    """A source of texts of words that follow Zipf's law."""

    def __init__(self, words: int, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.words = ["".join(draw.choice(list("abcdefghijkl"), draw.integers(2, 9))) for _ in range(words)]
        weights = 1 / np.arange(1, words + 1)
        self.weights = weights / weights.sum()

    def texts(self, n: int, length: int, seed: int = 1) -> list[str]:
        rows = np.random.default_rng(seed).choice(len(self.words), size=(n, length), p=self.weights)
        return [" ".join(self.words[i] for i in row) for row in rows]
