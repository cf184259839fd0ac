"""The downstream classifiers: what is trained on a cell's texts and tested on human text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from harness.checkpoints import Checkpoint, resolve_checkpoint
from harness.errors import UserError, unknown
from harness.suite import ClassifierProtocol

Rows = Sequence[tuple[str, str]]
"""Texts with their labels."""


@dataclass(frozen=True)
class Human:
    """Human text of one task and language, and the fixed list of labels."""

    labels: list[str]
    validation: Rows
    test: Rows


class Classifier(Protocol):
    """A way to train and test. ``seeds``: the runs that differ; one where training is exact."""

    name: str
    signature: str
    seeds: list[int]

    def predict(self, train: Rows, human: Human, seed: int) -> list[int]:
        """Return the predicted label index of every test text after training on ``train``."""
        ...


class TfidfClassifier:
    """TF-IDF over character 2- to 5-grams and logistic regression: seconds on a CPU.

    The optimum is unique, so there is nothing that a seed could vary: one run.
    """

    name = "tfidf"
    signature = "tfidf-char-2-5-sublinear-hash18+logreg-C10|version:1"

    def __init__(self) -> None:
        self.seeds = [0]
        self._test: tuple[Human, Any] | None = None

    @cached_property
    def _counter(self) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(
            analyzer="char", ngram_range=(2, 5), n_features=2**18, alternate_sign=False, norm=None
        )

    def predict(self, train: Rows, human: Human, seed: int) -> list[int]:
        """See ``Classifier.predict``; texts of an untrained label are never predicted."""
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.linear_model import LogisticRegression

        counts = self._counter.transform([text for text, _ in train])
        used = counts.getnnz(axis=0).nonzero()[0]  # the rest has no weight: leave it out
        weigh = TfidfTransformer(sublinear_tf=True)
        features = weigh.fit_transform(counts[:, used])
        targets = [human.labels.index(label) for _, label in train]
        if len(set(targets)) == 1:
            return [targets[0]] * len(human.test)
        model = LogisticRegression(C=10, max_iter=1000).fit(features, targets)
        test = weigh.transform(self._test_counts(human)[:, used])
        return [int(label) for label in model.predict(test)]

    def _test_counts(self, human: Human) -> Any:
        """Count the test texts once per task and language: most of the time goes there."""
        if self._test is None or self._test[0] is not human:
            self._test = (human, self._counter.transform([text for text, _ in human.test]))
        return self._test[1]


class EncoderClassifier:
    """A transformers encoder fine-tuned by the published protocol; loaded on first use."""

    def __init__(
        self, checkpoint: Checkpoint, protocol: ClassifierProtocol, options: Sequence[str] = ()
    ) -> None:
        # Options are part of the name: a changed protocol is another metric, not a rival value.
        self.name = ",".join([f"hf:{checkpoint.name}", *sorted(options)])
        self.seeds = list(protocol.seeds)
        self.signature = (
            f"hf:{checkpoint.name}@{checkpoint.fingerprint}|dropout:{protocol.dropout}"
            f"|adamw:{protocol.learning_rate}|batch:{protocol.batch_size}"
            f"|epochs:{protocol.max_epochs}|patience:{protocol.patience}"
            f"|tokens:{protocol.max_tokens}|seeds:{len(self.seeds)}|version:1"
        )
        self._checkpoint = checkpoint
        self._protocol = protocol

    @cached_property
    def _trainer(self) -> Any:
        from harness.scoring.finetuning import EncoderTrainer

        return EncoderTrainer(self._checkpoint, self._protocol)

    def predict(self, train: Rows, human: Human, seed: int) -> list[int]:
        """See ``Classifier.predict``."""
        found: list[int] = self._trainer.predict(train, human, seed)
        return found


def open_classifier(spec: str, protocol: ClassifierProtocol) -> Classifier:
    """Return the classifier that ``spec`` names: ``tfidf`` or ``hf:PATH_OR_ID[,option=value...]``.

    The options ``lr``, ``epochs``, ``patience`` and ``seeds`` (a number of seeds) change the suite's
    protocol and show in the signature. Raises ``UserError`` for anything else.
    """
    if spec == "tfidf":
        return TfidfClassifier()
    kind, _, rest = spec.partition(":")
    if kind != "hf" or not rest:
        raise unknown("classifier", spec, ["tfidf", "hf:PATH_OR_ID"])
    path, *options = rest.split(",")
    changed = _change(protocol, options, spec)
    checkpoint = resolve_checkpoint(path)
    return EncoderClassifier(checkpoint, changed, options)


_OPTIONS: dict[str, tuple[str, type]] = {
    "lr": ("learning_rate", float),
    "epochs": ("max_epochs", int),
    "patience": ("patience", int),
}


def _change(protocol: ClassifierProtocol, options: list[str], spec: str) -> ClassifierProtocol:
    fields = protocol.model_dump()
    for option in options:
        name, _, text = option.partition("=")
        if name != "seeds" and name not in _OPTIONS:
            raise unknown("option", name, ["seeds", *_OPTIONS], f"In classifier {spec!r}.")
        try:
            if name == "seeds":
                if not 1 <= int(text) <= len(protocol.seeds):
                    raise ValueError
                fields["seeds"] = fields["seeds"][: int(text)]
            else:
                field, convert = _OPTIONS[name]
                fields[field] = convert(text)
            ClassifierProtocol.model_validate(fields)
        except ValueError:
            raise UserError(f"classifier {spec!r}: {text!r} is no value for {name!r}.") from None
    return ClassifierProtocol.model_validate(fields)
