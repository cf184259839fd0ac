"""How much text in a neighbour passes as a language of steer11, and how much human text does not.

    python benchmarks/neighbour_languages.py DATA TEXTS

DATA: the suite's data; TEXTS: a folder with one file per kind of text in a neighbour, ``NAME.CODE.txt``, a
text a line, such as ``flores.nb.txt``. A text passes if more than half of its characters stand in sentences
of the language, as in the checks of validity. What docs/metrics.md shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from harness.data.corpus import Corpus
from harness.data.sources import LocalData
from harness.data.suite import load_suite
from harness.scoring.identification import FOLDER, LanguageIdentifier, detect_language, suite_identifier

MOST = 1000
MORE = {
    "da": ["nn", "fo"],
    "de": ["lb"],
    "id": ["jv", "min"],
    "jv": ["id", "ban"],
    "sl": ["bs", "hr"],
    "mt": ["it"],
}


def passing(identifier: LanguageIdentifier, texts: list[str], code: str) -> float:
    """Return the share of texts that count as the language ``code``."""
    found = detect_language(identifier, texts[:MOST], code)
    own = [2 * sum(size for other, size in row if other == code) > sum(s for _, s in row) for row in found]
    return float(np.mean(own))


def main() -> None:
    """Print the share of texts that pass, by language."""
    suite = load_suite("steer11")
    corpus = Corpus(suite, LocalData(Path(sys.argv[1])))
    identifier = suite_identifier(suite, corpus)
    for code in suite.languages:
        own = {task: [row.text for row in corpus.split(task, code, "test")] for task in suite.tasks}
        shares = {task: passing(identifier, texts, code) for task, texts in own.items()}
        table = FOLDER / f"{code}.tsv"
        near = table.read_text(encoding="utf-8").splitlines()[0].split("\t")[1:] if table.is_file() else []
        for other in [*near, *MORE.get(code, [])]:
            for path in sorted(Path(sys.argv[2]).glob(f"*.{other}.txt")):
                texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
                shares[path.stem] = passing(identifier, texts, code)
        print(code, {name: round(share, 3) for name, share in shares.items()}, flush=True)


if __name__ == "__main__":
    main()
