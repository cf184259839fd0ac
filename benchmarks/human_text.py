"""The scores of human text, by task and language: what the table in docs/metrics.md shows.

First score human text, then print it:

    steerboard run --suite steer11 --methods human --data DIR --classifier tfidf --run runs/human
    python benchmarks/human_text.py runs/human
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from harness.core.store import Run
from harness.ranking.results import collect
from harness.scoring.metrics import metric

COLUMNS = (
    *("distinct_1", "distinct_2", "distinct_3", "self_chrf", "self_bleu", "compression_ratio"),
    *("vendi/tfidf", "pairwise_distance/tfidf", "self_repetition", "near_duplicates", "length"),
    *("valid_share", "language_fidelity", "language_sentences", "label_fidelity", "script_share"),
    *("word_order", "degenerate", "refusals", "copied/validation", "copied/test", "overlap/demonstrations"),
    *("overlap/validation", "overlap/test", "membership/test", "membership/validation", "hidden_characters"),
    *("macro_f1/tfidf", "accuracy/tfidf", "calibration_error/tfidf", "brier/tfidf"),
)
_DIGITS = {"self_chrf": 1, "self_bleu": 1, "vendi/tfidf": 1, "length": 0, "compression_ratio": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run with the reference 'human'")
    [result_set] = collect([Run(parser.parse_args().run)])
    [entry] = [row.id for row in result_set.entries.values() if row.entry.method.name == "human"]
    scores = result_set.scores[result_set.scores["entry"] == entry]
    for task in result_set.manifest.selection.tasks:
        print(f"\n### {task}\n")
        _print(scores[scores["task"] == task], result_set.manifest.selection.languages)


def _print(scores: pd.DataFrame, languages: list[str]) -> None:
    means = scores.groupby(["metric", "language"])["value"].mean().unstack()
    print("| metric |", " | ".join(languages), "|")
    print("|---|" + "---|" * len(languages))
    for name in (column for column in COLUMNS if column in means.index):
        values = [f"{means.loc[name, code]:.{_DIGITS.get(name, 3)}f}" for code in languages]
        print(f"| {metric(name).title} |", " | ".join(values), "|")


if __name__ == "__main__":
    main()
