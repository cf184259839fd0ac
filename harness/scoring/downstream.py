"""Downstream performance: train a classifier on a cell's texts, test it on human text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from harness.records import Generation, Score
from harness.scoring.classifiers import Classifier, Human, Rows
from harness.scoring.metrics import macro_f1


def training_rows(texts: Sequence[Generation]) -> Rows:
    """Return texts with labels, each pair once and no empty text (as in arXiv 2606.18389)."""
    rows = ((text.text, text.label) for text in texts if text.text.strip())
    return list(dict.fromkeys(rows))


def downstream(
    texts: Sequence[Generation], human: Human, classifier: Classifier
) -> tuple[Score, dict[str, list[int]]]:
    """Return macro-F1 on the human test split, mean over classifier seeds, and all predictions.

    Macro-F1 is over the task's fixed list of labels: a label never predicted counts as 0.
    """
    from sklearn.metrics import f1_score

    rows = training_rows(texts)
    metric = macro_f1(classifier.name)
    if not rows:
        return metric.score(None, classifier.signature, "no text to train on"), {}
    gold = [human.labels.index(label) for _, label in human.test]
    indices = list(range(len(human.labels)))
    predictions, by_seed = {}, {}
    for seed in classifier.seeds:
        found = classifier.predict(rows, human, seed)
        predictions[str(seed)] = found
        value = f1_score(gold, found, labels=indices, average="macro", zero_division=0)
        by_seed[str(seed)] = float(value)
    score = metric.score(fmean(by_seed.values()), classifier.signature, by_seed=by_seed)
    return score, predictions
