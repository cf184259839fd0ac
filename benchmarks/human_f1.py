"""What classifiers reach when they are trained on human text: mean macro-F1 of several draws, and what it costs.

    python benchmarks/human_f1.py --data DIR --encoder FOLDER [--languages da,he,am]

The table in docs/metrics.md: as many train texts of a label as ``steer11`` asks for, the human test text, TF-IDF
beside the frozen encoder. ``--split validation`` is for choosing a setting. The seconds of a draw are the median from
the second on: its texts are read, the test text is known.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
from encoders import cell

from harness.data.suite import load_suite
from harness.scoring.classification import macro_f1_of
from harness.scoring.classifiers import Classifier, open_classifier


def main() -> None:
    """Print the table, and the seconds that it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with TASK/LANGUAGE/SPLIT.jsonl")
    parser.add_argument("--encoder", help="folder or hub id; default: TF-IDF alone")
    parser.add_argument("--options", default="prefix=query", help="of the encoder (default: prefix=query)")
    parser.add_argument("--languages", default="da,he,am")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--split", choices=["test", "validation"], default="test", help="the text that is classified")
    given = parser.parse_args()
    suite, languages = load_suite("steer11"), given.languages.split(",")
    specs = ["tfidf", *([f"frozen:{given.encoder},{given.options}".rstrip(",")] if given.encoder else [])]
    classifiers = [open_classifier(spec, suite.classifier_protocol) for spec in specs]
    print("| task | classifier |", " | ".join(languages), "|\n|---|---|" + "---|" * len(languages))
    seconds: dict[str, list[float]] = {}
    for task, size in suite.tasks.items():
        for classifier in classifiers:
            found = []
            for language in languages:
                values, times = measure(classifier, given, task, language, size.texts_per_label)
                seconds.setdefault(f"{task}, {classifier.name}", []).extend(times[1:])
                found.append(f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
            print(f"| {task} | {classifier.name} |", " | ".join(found), "|", flush=True)
    for name, times in seconds.items():
        print(f"{name}: {statistics.median(times):.2f} s a draw")


def measure(
    classifier: Classifier, given: argparse.Namespace, task: str, language: str, per_label: int
) -> tuple[list[float], list[float]]:
    """Return macro-F1 and seconds of every draw."""
    values, times = [], []
    context = cell(given.data, language, 1, task, per_label).context
    context = replace(context, test=getattr(context, given.split))
    gold = [context.labels.index(label) for _, label in context.test]
    for seed in range(1, given.draws + 1):
        train = cell(given.data, language, seed, task, per_label).train
        started = time.perf_counter()
        [found] = classifier.probabilities(train, context, [0])
        times.append(time.perf_counter() - started)
        values.append(macro_f1_of(gold, np.asarray(found).argmax(axis=1), len(context.labels)))
    return values, times


if __name__ == "__main__":
    main()
