"""Downstream performance: train a classifier on a cell's texts, test it on human-written text.

The classifiers, by cost: character n-grams, a frozen encoder's sentence vectors, a fine-tuned encoder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any, Protocol

import numpy as np

from harness.core.errors import UserError, unknown
from harness.core.records import Score
from harness.data.suite import ClassifierProtocol
from harness.scoring.classification import Probabilities, brier_score, calibration_error, macro_f1_of
from harness.scoring.embeddings import PACKED_TYPES
from harness.scoring.encoders import OPTIONS as ENCODER_OPTIONS
from harness.scoring.encoders import Encoder, open_encoder, signature_of_prefix
from harness.scoring.linear_classifiers import FrozenClassifier, TfidfClassifier
from harness.scoring.metrics import ACCURACY, BRIER, CALIBRATION_ERROR, MACRO_F1, Metric
from harness.scoring.scorer import Rows, ScorerOutput, ScoringContext, TextSample


class Classifier(Protocol):
    """What is trained on a cell's texts. ``seeds``: one per training run; a single one where training is exact."""

    name: str
    signature: str
    seeds: list[int]

    def probabilities(self, train: Rows, context: ScoringContext, seeds: Sequence[int]) -> Probabilities:
        """Return [seeds, n test, labels] for the test texts of ``context``, trained on ``train`` (at least one text).

        A label without training text has probability 0, the only label with text probability 1.
        """
        ...


class EncoderClassifier:
    """A transformers encoder fine-tuned by the published protocol; loaded on first use.

    ``packed``: batches without padding (``harness.scoring.packing``), which other random numbers decide, so the
    signature says so; else padded to the longest text of the batch.
    """

    def __init__(
        self, encoder: Encoder, protocol: ClassifierProtocol, options: Sequence[str] = (), packed: bool = False
    ) -> None:
        checkpoint = encoder.checkpoint
        # Options are part of the name: a changed protocol is another metric.
        self.name = ",".join([f"hf:{checkpoint.name}", *sorted([*options, *encoder.options])])
        self.seeds = list(protocol.seeds)
        self.signature = (
            f"hf:{checkpoint.name}@{checkpoint.fingerprint}{signature_of_prefix(encoder.prefix)}"
            f"|dropout:{protocol.dropout}"
            f"|adamw:{protocol.learning_rate}|batch:{protocol.batch_size}"
            f"|epochs:{protocol.max_epochs}|patience:{protocol.patience}"
            f"|tokens:{protocol.max_tokens}|seeds:{len(self.seeds)}|{'packed|version:3' if packed else 'version:2'}"
        )
        self._trainer = cache(lambda: _load_trainer(encoder, protocol, packed))

    def probabilities(self, train: Rows, context: ScoringContext, seeds: Sequence[int]) -> Probabilities:
        """See ``Classifier.probabilities``."""
        found: Probabilities = self._trainer().probabilities(train, context, seeds)
        return found


def _load_trainer(encoder: Encoder, protocol: ClassifierProtocol, packed: bool) -> Any:
    from harness.scoring.finetuning import EncoderTrainer  # loads torch

    return EncoderTrainer(encoder, protocol, packed)


def open_classifier(spec: str, protocol: ClassifierProtocol) -> Classifier:
    """Return the classifier that ``spec`` names: ``tfidf``, or ``frozen:`` or ``hf:PATH_OR_ID[,option=value...]``.

    Both take the options of ``open_encoder``, but only ``frozen:`` a pooling. Of ``hf:``, the options ``lr``,
    ``epochs``, ``patience`` and ``seeds`` (how many) change the suite's protocol and the signature.
    ``batches=padded`` trains with padded batches, as do encoders that cannot be packed: slower, bit for bit as versions
    before packing did. Raises ``UserError`` for anything else.
    """
    if spec == "tfidf":
        return TfidfClassifier()
    kind, _, rest = spec.partition(":")
    if kind not in {"frozen", "hf"} or not rest:
        raise unknown("classifier", spec, ["tfidf", "frozen:PATH_OR_ID", "hf:PATH_OR_ID"])
    if kind == "frozen":
        return FrozenClassifier(open_encoder(spec), protocol.max_tokens)
    given = rest.split(",")[1:]
    options = [option for option in given if option != _PADDED and option.partition("=")[0] not in ENCODER_OPTIONS]
    changed = _change(protocol, options, spec)
    encoder = open_encoder(spec, training=[*_OPTIONS, "batches"])
    packed = _PADDED not in given and encoder.checkpoint.model_type in PACKED_TYPES
    return EncoderClassifier(encoder, changed, options, packed)


_PADDED = "batches=padded"  # not a part of the name: the protocol is the same
_OPTIONS: dict[str, tuple[str, type]] = {
    "lr": ("learning_rate", float),
    "epochs": ("max_epochs", int),
    "patience": ("patience", int),
    "seeds": ("seeds", int),
}


def _change(protocol: ClassifierProtocol, options: list[str], spec: str) -> ClassifierProtocol:
    fields = protocol.model_dump()
    for option in options:
        name, _, text = option.partition("=")
        if name not in _OPTIONS:
            raise unknown("option", name, [*_OPTIONS, "name", "prefix"], f"In classifier {spec!r}.")
        field, convert = _OPTIONS[name]
        try:
            fields[field] = convert(text)
            if name == "seeds":
                if not 1 <= fields[field] <= len(protocol.seeds):
                    raise ValueError
                fields[field] = protocol.seeds[: fields[field]]
            ClassifierProtocol.model_validate(fields)
        except ValueError:
            raise UserError(f"classifier {spec!r}: {text!r} is not a value for {name!r}.") from None
    return ClassifierProtocol.model_validate(fields)


def training_rows(sample: TextSample) -> Rows:
    """Return texts with labels, without duplicate pairs and empty texts (as in arXiv 2606.18389)."""
    pairs = zip(sample.texts, sample.labels, strict=True)
    return list(dict.fromkeys((text, label) for text, label in pairs if text.strip()))


@dataclass(frozen=True)
class TestResult:
    """Predictions (label indices) and values of metrics by classifier seed, after training on ``rows``."""

    rows: Rows
    predictions: dict[str, list[int]]
    values: dict[str, dict[str, float]]


def train_and_test(classifier: Classifier, rows: Rows, context: ScoringContext, gold: list[int]) -> TestResult:
    """Train on ``rows`` and test with every seed; return no results if there are no texts."""
    predictions: dict[str, list[int]] = {}
    values: dict[str, dict[str, float]] = {}
    seeds = classifier.seeds if rows else []
    # All at once: what they share is read once.
    for seed, found in zip(seeds, classifier.probabilities(rows, context, seeds) if rows else (), strict=True):
        predicted = found.argmax(axis=1)
        measured = {
            MACRO_F1.name: macro_f1_of(gold, predicted, len(context.labels)),
            ACCURACY.name: float(np.mean(predicted == gold)),
            CALIBRATION_ERROR.name: calibration_error(found, gold),
            BRIER.name: brier_score(found, gold),
        }
        predictions[str(seed)] = predicted.tolist()
        for name, value in measured.items():
            values.setdefault(name, {})[str(seed)] = value
    return TestResult(rows, predictions, values)


class ClassifierScorer:
    """One downstream classifier, trained on all texts as generated and again on the valid ones alone.

    Artifacts: ``examples``, the digest of the test examples; the ``labels``; ``gold`` and, per classifier seed,
    ``predictions`` as label indices, one per test text. These are stored under the name of macro-F1, such as
    ``macro_f1/tfidf``; under ``macro_f1.valid/tfidf`` only where not all texts are valid. Of equally probable labels
    the first is predicted.
    """

    human = False

    def __init__(self, classifier: Classifier) -> None:
        self.name = f"classifier/{classifier.name}"
        self.signature = classifier.signature
        self._classifier = classifier

    def score(self, sample: TextSample, context: ScoringContext) -> ScorerOutput:
        """Return macro-F1 and accuracy, also for training on valid text, calibration error and Brier score.

        Means over the classifier seeds. ``detail``: ``texts``, the number of training texts; ``per_label_min``, that
        of the rarest label.
        """
        gold = [context.labels.index(label) for _, label in context.test]
        rows, valid = training_rows(sample), training_rows(sample.subset(sample.valid))
        every = train_and_test(self._classifier, rows, context, gold)
        of_valid = every if valid == rows else train_and_test(self._classifier, valid, context, gold)
        scores = [
            *(self._score(m, m, every, context) for m in (MACRO_F1, ACCURACY, CALIBRATION_ERROR, BRIER)),
            *(self._score(m, m.on_valid_texts, of_valid, context) for m in (MACRO_F1, ACCURACY)),
        ]
        found = {MACRO_F1: every} if of_valid is every else {MACRO_F1: every, MACRO_F1.on_valid_texts: of_valid}
        predictions = {
            m.for_provider(self._classifier.name).name: tested.predictions for m, tested in found.items() if tested.rows
        }
        kept = {"examples": context.examples, "labels": list(context.labels), "gold": gold}
        return ScorerOutput(scores, {**kept, "predictions": predictions})

    def _score(self, base: Metric, metric: Metric, tested: TestResult, context: ScoringContext) -> Score:
        """Return the score of ``metric``, whose values are those of ``base``."""
        named = metric.for_provider(self._classifier.name)
        if not tested.rows:
            kind = "text" if metric is base else "valid text"
            return named.score(None, self.signature, f"no {kind} to train on")
        by_seed = tested.values[base.name]
        counts = Counter(label for _, label in tested.rows)
        detail = {"texts": len(tested.rows), "per_label_min": min(counts[label] for label in context.labels)}
        return named.score(fmean(by_seed.values()), self.signature, by_seed=by_seed, detail=detail)
