"""The downstream classifiers, by cost: character n-grams, a frozen encoder's sentence vectors, a fine-tuned encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.core.errors import UserError, unknown
from harness.data.suite import ClassifierProtocol
from harness.scoring.classification import Probabilities
from harness.scoring.linear_classifiers import FrozenClassifier, TfidfClassifier
from harness.scoring.scorer import Rows, ScoringContext


class Classifier(Protocol):
    """What is trained on a cell's texts. ``seeds``: one per training run; a single one where training is exact."""

    name: str
    signature: str
    seeds: list[int]

    def probabilities(self, train: Rows, context: ScoringContext, seed: int) -> Probabilities:
        """Return the probabilities of every test text of ``context`` after training on ``train`` (at least one text).

        A label without training text has probability 0, the only label with text probability 1.
        """
        ...


class EncoderClassifier:
    """A transformers encoder fine-tuned by the published protocol; loaded on first use."""

    def __init__(self, checkpoint: Checkpoint, protocol: ClassifierProtocol, options: Sequence[str] = ()) -> None:
        # Options are part of the name: a changed protocol is another metric.
        self.name = ",".join([f"hf:{checkpoint.name}", *sorted(options)])
        self.seeds = list(protocol.seeds)
        self.signature = (
            f"hf:{checkpoint.name}@{checkpoint.fingerprint}|dropout:{protocol.dropout}"
            f"|adamw:{protocol.learning_rate}|batch:{protocol.batch_size}"
            f"|epochs:{protocol.max_epochs}|patience:{protocol.patience}"
            f"|tokens:{protocol.max_tokens}|seeds:{len(self.seeds)}|version:2"
        )
        self._checkpoint = checkpoint
        self._protocol = protocol

    @cached_property
    def _trainer(self) -> Any:
        from harness.scoring.finetuning import EncoderTrainer

        return EncoderTrainer(self._checkpoint, self._protocol)

    def probabilities(self, train: Rows, context: ScoringContext, seed: int) -> Probabilities:
        """See ``Classifier.probabilities``."""
        found: Probabilities = self._trainer.probabilities(train, context, seed)
        return found


def open_classifier(spec: str, protocol: ClassifierProtocol) -> Classifier:
    """Return the classifier that ``spec`` names: ``tfidf``, ``frozen:PATH_OR_ID`` or
    ``hf:PATH_OR_ID[,option=value...]``.

    The options ``lr``, ``epochs``, ``patience`` and ``seeds`` (how many) change the suite's protocol and the signature.
    Raises ``UserError`` for anything else.
    """
    if spec == "tfidf":
        return TfidfClassifier()
    kind, _, rest = spec.partition(":")
    if kind not in {"frozen", "hf"} or not rest:
        raise unknown("classifier", spec, ["tfidf", "frozen:PATH_OR_ID", "hf:PATH_OR_ID"])
    path, *options = rest.split(",")
    changed = _change(protocol, options, spec, {} if kind == "frozen" else _OPTIONS)
    checkpoint = resolve_checkpoint(path)
    if kind == "frozen":
        return FrozenClassifier(checkpoint, changed.max_tokens)
    return EncoderClassifier(checkpoint, changed, options)


_OPTIONS: dict[str, tuple[str, type]] = {
    "lr": ("learning_rate", float),
    "epochs": ("max_epochs", int),
    "patience": ("patience", int),
    "seeds": ("seeds", int),
}


def _change(
    protocol: ClassifierProtocol, options: list[str], spec: str, known: dict[str, tuple[str, type]]
) -> ClassifierProtocol:
    fields = protocol.model_dump()
    for option in options:
        name, _, text = option.partition("=")
        if name not in known:
            raise unknown("option", name, known, f"In classifier {spec!r}.")
        field, convert = known[name]
        try:
            value = convert(text)
            if name == "seeds":
                if not 1 <= value <= len(protocol.seeds):
                    raise ValueError
                value = protocol.seeds[:value]
            fields[field] = value
            ClassifierProtocol.model_validate(fields)
        except ValueError:
            raise UserError(f"classifier {spec!r}: {text!r} is not a value for {name!r}.") from None
    return ClassifierProtocol.model_validate(fields)
