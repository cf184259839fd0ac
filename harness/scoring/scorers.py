"""Which parts a run is scored by: the suite's, or those that were asked for."""

from __future__ import annotations

from harness.data.corpus import Corpus
from harness.data.suite import Suite
from harness.scoring.classifiers import open_classifier
from harness.scoring.downstream import ClassifierPart
from harness.scoring.embeddings import open_embedding
from harness.scoring.hidden import HiddenPart
from harness.scoring.identification import open_identifier, suite_identifier
from harness.scoring.leakage import LeakagePart
from harness.scoring.lexical import LexicalPart
from harness.scoring.membership import MembershipPart
from harness.scoring.scorer import Part
from harness.scoring.validity import IdentifierPart, ValidityPart
from harness.scoring.vendi import EmbeddingPart


def open_parts(
    suite: Suite,
    corpus: Corpus,
    classifiers: list[str] | None = None,
    embeddings: list[str] | None = None,
    identifiers: list[str] | None = None,
) -> list[Part]:
    """Return the parts that score a run of ``suite``, validity first; nothing is trained or loaded yet.

    A sweep on validation text has only what its choice hangs on: validity and the classifiers. Raises
    ``UserError`` for a bad specification.
    """
    trained = [
        ClassifierPart(open_classifier(spec, suite.classifier_protocol))
        for spec in classifiers or suite.classifiers
    ]
    validity = ValidityPart(lambda: suite_identifier(suite, corpus))
    if suite.scored_split == "validation":
        return [validity, *trained]
    budgets = suite.metrics.budgets
    return [
        validity,
        LexicalPart(budgets),
        *(EmbeddingPart(open_embedding(spec), budgets) for spec in embeddings or suite.metrics.embeddings),
        LeakagePart(),
        MembershipPart(),
        HiddenPart(),
        *(IdentifierPart(open_identifier(spec), validity) for spec in identifiers or ()),
        *trained,
    ]
