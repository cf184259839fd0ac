"""The scorers of a run: those of the suite, or those that were asked for."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from harness.core.errors import UserError
from harness.core.records import Manifest
from harness.data.corpus import Corpus
from harness.data.suite import Suite
from harness.scoring.classifiers import ClassifierScorer, open_classifier
from harness.scoring.curve import CurveScorer
from harness.scoring.embeddings import open_embedding
from harness.scoring.fasttext_identifier import open_identifier
from harness.scoring.identification import suite_identifier
from harness.scoring.leakage import HiddenTextScorer, LeakageScorer
from harness.scoring.lexical import LexicalScorer
from harness.scoring.membership import MembershipScorer
from harness.scoring.scorer import Scorer
from harness.scoring.validity import IdentifierScorer, ValidityScorer
from harness.scoring.vendi import EmbeddingScorer


def build_scorers(
    suite: Suite,
    corpus: Corpus,
    classifiers: list[str] | None = None,
    embeddings: list[str] | None = None,
    identifiers: list[str] | None = None,
) -> list[Scorer]:
    """Return the scorers of a run of ``suite``, validity first; nothing is trained or loaded yet.

    A sweep on validation text gets only what selects its settings: validity and the classifiers. Raises
    ``UserError`` for a bad specification.
    """
    specs = classifiers or suite.classifiers
    opened = [open_classifier(spec, suite.classifier_protocol) for spec in dict.fromkeys(specs)]
    trained = [ClassifierScorer(classifier) for classifier in opened]
    repeated = [name for name, number in Counter(scorer.name for scorer in trained).items() if number > 1]
    if repeated:
        name = repeated[0].partition("/")[2]
        raise UserError(f"two classifiers have the name {name}, so their scores would too. Give one of {specs}.")
    validity = ValidityScorer(lambda: suite_identifier(suite, corpus))
    if suite.scored_split == "validation":
        return [validity, *trained]
    budgets, curve = suite.metrics.budgets, suite.metrics.curve
    return [
        validity,
        LexicalScorer(budgets),
        *(EmbeddingScorer(open_embedding(spec), budgets) for spec in embeddings or suite.metrics.embeddings),
        LeakageScorer(),
        MembershipScorer(),
        HiddenTextScorer(),
        *(IdentifierScorer(open_identifier(spec), validity) for spec in identifiers or ()),
        *trained,
        *(CurveScorer(one, curve) for one in opened if curve and one.name in curve.classifiers),
    ]


def scorers_of(
    manifest: Manifest,
    corpus: Corpus,
    classifiers: list[str] | None = None,
    embeddings: list[str] | None = None,
    identifiers: list[str] | None = None,
) -> list[Scorer]:
    """Return the scorers of an existing run; lists that are not given are those of the commands that made it."""
    return build_scorers(
        corpus.suite,
        corpus,
        classifiers or _asked(manifest, "--classifier", corpus.suite.classifiers),
        embeddings or _asked(manifest, "--embedding", corpus.suite.metrics.embeddings),
        identifiers or _asked(manifest, "--language-id", []),
    )


def _asked(manifest: Manifest, option: str, default: list[str]) -> list[str]:
    """Return the values of an option in the commands that made a run, ``default`` for commands without it."""
    found: list[str] = []
    for words in manifest.commands:
        if words[1:2] == ["run"]:
            named = [value for name, value in pairwise(words) if name == option]
            named += [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
            found += named or default
    return list(dict.fromkeys(found)) or default
