"""The metrics by name: title, direction, unit, definition. Adding a column of the board starts here.

A name is ``BASE[.valid][/OF]``: ``.valid`` for the metric on valid text alone, ``OF`` for the classifier,
embedding or corpus that it is measured with, such as ``macro_f1.valid/tfidf``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from harness.core.records import Direction, Score

Group = Literal["downstream", "understanding", "diversity", "validity", "leakage", "forcing", "other"]


@dataclass(frozen=True)
class Metric:
    """What a reader must know of a score. ``direction``: whether up or down is better.

    ``primary`` marks what is fit for every script and comes first in its group.
    """

    name: str
    title: str
    direction: Direction
    unit: str
    definition: str
    group: Group = "other"
    primary: bool = False

    def score(self, value: float | None, signature: str, note: str = "", **fields: object) -> Score:
        """Return a score of this metric."""
        body = {"value": value, "signature": signature, "note": note, **fields}
        return Score.model_validate({"metric": self.name, "direction": self.direction, "unit": self.unit, **body})

    def for_provider(self, provider: str) -> Metric:
        """Return this metric as measured with a classifier, an embedding or a corpus."""
        return replace(self, name=f"{self.name}/{provider}", title=f"{self.title} ({provider})")

    @property
    def on_valid_texts(self) -> Metric:
        """This metric on valid text alone."""
        base, slash, provider = self.name.partition("/")
        return replace(
            self,
            name=f"{base}.valid{slash}{provider}",
            title=f"{self.title}, valid text",
            definition=f"{self.definition} Of valid texts alone.",
            primary=False,
        )


SHARE = "share, 0 to 1"
PERCENT = "0 to 100"

# Diversity: at fixed budgets, comparable within one language

DISTINCT_1, DISTINCT_2, DISTINCT_3 = (
    Metric(
        f"distinct_{n}",
        f"distinct-{n}",
        "up",
        SHARE,
        f"Share of different {words} among a fixed number of them, within texts, averaged over subsamples "
        "(Li et al. 2016, at a fixed budget).",
        "diversity",
    )
    for n, words in ((1, "words"), (2, "word pairs"), (3, "word triples"))
)
SELF_CHRF = Metric(
    "self_chrf",
    "self-chrF",
    "down",
    f"chrF, {PERCENT}",
    "chrF of the first characters of every text against those of a fixed number of other texts of the cell "
    "(best match), averaged (Popović 2015, as sacrebleu has it).",
    "diversity",
    primary=True,
)
SELF_BLEU = Metric(
    "self_bleu",
    "self-BLEU",
    "down",
    f"BLEU, {PERCENT}",
    "BLEU of the first characters of every text against those of a fixed number of other texts of the cell, "
    "averaged (Zhu et al. 2018, as sacrebleu has it).",
    "diversity",
)
COMPRESSION = Metric(
    "compression_ratio",
    "compression",
    "down",
    "ratio, above 0",
    "Size of a fixed number of characters, one byte each, over their size after deflate: the more "
    "repetition, the higher.",
    "diversity",
    primary=True,
)
SELF_REPETITION = Metric(
    "self_repetition",
    "self-repetition",
    "down",
    "log, from 0",
    "Mean log(1 + number of other texts, of a fixed number, that share a run of four words in their first "
    "characters) (Salkar et al. 2022).",
    "diversity",
)
NEAR_DUPLICATES = Metric(
    "near_duplicates",
    "near-duplicates",
    "down",
    SHARE,
    "Share of texts with another text of the cell that has at least 0.8 of their character 5-grams in "
    "common (Jaccard; found by MinHash, Broder 1997), as it stands or with its words in another order.",
    "diversity",
)
VENDI = Metric(
    "vendi",
    "Vendi",
    "up",
    "texts, from 1",
    "Effective number of different texts, by their first characters, among a fixed number: exp of the "
    "Shannon entropy of the eigenvalues of the matrix of cosines (Friedman and Dieng 2023, q = 1).",
    "diversity",
    primary=True,
)
VENDI_RARE, VENDI_COMMON, VENDI_MODE = (
    replace(
        VENDI,
        name=f"vendi_q{name}",
        title=f"Vendi q={title}",
        definition=f"As Vendi, of order {title} (Pasarkar and Dieng 2024): {what}.",
        primary=False,
    )
    for name, title, what in (
        ("05", "0.5", "rare texts weigh more"),
        ("2", "2", "common texts weigh more"),
        ("inf", "∞", "only the largest group of alike texts counts"),
    )
)
PAIRWISE = Metric(
    "pairwise_distance",
    "pairwise distance",
    "up",
    "cosine distance, 0 to 2",
    "Mean cosine distance of the first characters of two different texts of the cell.",
    "diversity",
    primary=True,
)
LENGTH = Metric(
    "length",
    "length",
    "none",
    "characters",
    "Mean number of characters of a text; no better and no worse, but what other metrics must not hang on.",
    "diversity",
)

# Validity: is it what was asked for

VALID_SHARE = Metric(
    "valid_share",
    "valid",
    "up",
    SHARE,
    "Share of texts that pass every check: mostly in the asked language and script, no loop, no echo of "
    "the prompt, not empty, not gibberish, no refusal and no preamble.",
    "validity",
    primary=True,
)
LANGUAGE_FIDELITY = Metric(
    "language_fidelity",
    "language",
    "up",
    SHARE,
    "Share of characters that stand in sentences of the asked language, averaged over texts: by a character "
    "n-gram classifier trained on the parallel text of all the suite's languages and by words of their "
    "neighbours, such as Norwegian and Malay, or by the model named.",
    "validity",
    primary=True,
)
LANGUAGE_SENTENCES = replace(
    LANGUAGE_FIDELITY,
    name="language_sentences",
    title="sentences in the language",
    definition="Share of sentences in the asked language, averaged over texts; identified as for language fidelity.",
    primary=False,
)
LABEL_FIDELITY = Metric(
    "label_fidelity",
    "label",
    "up",
    SHARE,
    "Share of texts that a classifier trained on human train text (other folds of it, where it holds the "
    "text itself) gives the label that was asked for.",
    "validity",
    primary=True,
)
SCRIPT_SHARE = Metric(
    "script_share",
    "script",
    "up",
    SHARE,
    "Share of letters in the script of the asked language, averaged over texts.",
    "validity",
)
DEGENERATE = Metric(
    "degenerate",
    "degenerate",
    "down",
    SHARE,
    "Share of texts that are empty, run in a loop, repeat the prompt or hold no words of the language.",
    "validity",
)
REFUSALS = Metric(
    "refusals",
    "refusals",
    "down",
    SHARE,
    "Share of texts that refuse or talk to the user around what was asked for, as far as patterns find it.",
    "validity",
)
WORD_ORDER = Metric(
    "word_order",
    "word order",
    "up",
    "share, 0.5 at random",
    "Chance that the words of a text, by human text's neighbouring words, stand in a likelier order than the "
    "same words shuffled, averaged over texts of four words or more. Shuffled words have 0.5; order within "
    "phrases counts, sense does not.",
    "validity",
)

# Leakage and anchoring, each for several corpora

COPIED = Metric(
    "copied",
    "copied",
    "down",
    SHARE,
    "Share of texts that copy a text of the corpus: a third of it or more lies in runs of 50 characters that "
    "stand there, or it has the words of one text there, in whatever order.",
    "leakage",
    primary=True,
)
OVERLAP = Metric(
    "overlap",
    "overlap",
    "none",
    SHARE,
    "Mean share of a text's character 8-grams that stand in the corpus.",
    "leakage",
)
MEMBERSHIP = Metric(
    "membership",
    "membership",
    "none",
    "difference of cosines, -1 to 1",
    "How much nearer texts are to test text than to validation text, or to that than to train text: mean "
    "difference of the cosine with the nearest text of each, in character 2- and 3-grams, among equally "
    "many. Near 0 for who has seen neither.",
    "leakage",
)
HIDDEN = Metric(
    "hidden_characters",
    "hidden characters",
    "down",
    SHARE,
    "Share of texts with characters that a reader does not see, stray marks, or letters of another script "
    "that look like those of the word.",
    "leakage",
)

# Forcing: the answer in a language that nobody asked for; the last two for several scorers of relevance

TARGET_SHARE = Metric(
    "target_share",
    "in the target language",
    "up",
    SHARE,
    "Share of answers in the target language: more than half of their characters stand in sentences of it, "
    "by a character n-gram classifier trained on the parallel text of all the suite's languages and by words "
    "of their neighbours.",
    "forcing",
    primary=True,
)
RELEVANCE = Metric(
    "relevance",
    "relevance",
    "up",
    "0 unrelated, 1 at best",
    "How much the answers have to do with their questions, in whatever language: by a chat model that is "
    "asked, or by whether an answer's own question is the nearest of all, corrected for guessing.",
    "forcing",
    primary=True,
)
FORCING = Metric(
    "forcing",
    "forcing",
    "up",
    "0 to 1",
    "Harmonic mean of the share in the target language and of relevance, each averaged over all answers "
    "first; 0 where one of them is (CLaS-Bench, arXiv 2601.08331).",
    "forcing",
    primary=True,
)

# Downstream, each for several classifiers

MACRO_F1 = Metric(
    "macro_f1",
    "macro-F1",
    "up",
    "F1, 0 to 1",
    "Macro-F1 of the classifier, trained on the texts of the cell, on human text of the suite's scored split "
    "(test), over the task's fixed list of labels.",
    "downstream",
    primary=True,
)
ACCURACY = Metric(
    "accuracy",
    "accuracy",
    "up",
    SHARE,
    "Share of human texts of the scored split whose label the classifier finds.",
    "downstream",
)
CALIBRATION_ERROR = Metric(
    "calibration_error",
    "calibration error",
    "down",
    SHARE,
    "Expected calibration error of the classifier: mean gap between confidence and accuracy over ten bins "
    "of equal size (Guo et al. 2017; Nguyen and O'Connor 2015).",
    "downstream",
)
BRIER = Metric(
    "brier",
    "Brier score",
    "down",
    "0 to 2",
    "Mean squared distance of the classifier's probabilities from the truth, summed over labels (Brier 1950).",
    "downstream",
)

# Understanding: the steered model answers tasks itself, under lm-eval

TASK_SCORE = Metric(
    "task_score",
    "task score",
    "up",
    SHARE,
    "Mean over the examples of the task's first metric in lm-eval: accuracy where the model chooses among "
    "answers by their log-likelihood, exact match or F1 where it writes one.",
    "understanding",
    primary=True,
)
TASK_MACRO_F1 = Metric(
    "task_macro_f1",
    "task macro-F1",
    "up",
    "F1, 0 to 1",
    "Macro-F1 of the answers that the model chooses by log-likelihood, over the task's fixed list of them; "
    "nothing where they differ from example to example.",
    "understanding",
    primary=True,
)
REPORTED = Metric(
    "lm_eval",
    "lm-eval",
    "none",
    "as there",
    "What lm-eval itself reports for the task; its standard error is in the score's detail.",
)

METRICS: dict[str, Metric] = {
    known.name: known
    for known in (
        *(TASK_SCORE, TASK_MACRO_F1, REPORTED),
        *(MACRO_F1, ACCURACY, CALIBRATION_ERROR, BRIER),
        *(SELF_CHRF, VENDI, PAIRWISE, COMPRESSION),
        *(DISTINCT_1, DISTINCT_2, DISTINCT_3, SELF_BLEU, SELF_REPETITION, NEAR_DUPLICATES),
        *(VENDI_RARE, VENDI_COMMON, VENDI_MODE, LENGTH),
        *(VALID_SHARE, LANGUAGE_FIDELITY, LANGUAGE_SENTENCES, LABEL_FIDELITY, SCRIPT_SHARE),
        *(DEGENERATE, REFUSALS, WORD_ORDER, COPIED, OVERLAP, MEMBERSHIP, HIDDEN),
        *(FORCING, TARGET_SHARE, RELEVANCE),
    )
}
"""Every metric without its suffixes, in the order of the board."""


def macro_f1(classifier: str) -> Metric:
    """Return the downstream metric of one classifier, such as ``tfidf`` or ``hf:devenc``."""
    return MACRO_F1.for_provider(classifier)


def metric(name: str) -> Metric:
    """Return the metric with this name; an unlisted one (of a newer program) shows as it is."""
    head, slash, provider = name.partition("/")
    base, dot, variant = head.partition(".")
    found = METRICS.get(base)
    if found is None or (dot and variant != "valid"):
        return Metric(name, name, "none", "", "")
    found = found.for_provider(provider) if slash else found
    return found.on_valid_texts if dot else found


def sort_key(name: str) -> tuple[int, str]:
    """Return the key that sorts names of metrics as the board shows them."""
    base = name.partition("/")[0].partition(".")[0]
    listed = list(METRICS)
    return (listed.index(base) if base in METRICS else len(listed), name)


def harmonic(share: float, relevance: float) -> float:
    """Return the harmonic mean of two aggregated shares; 0 where either is 0 or less.

    For aggregates only (CLaS-Bench, arXiv 2601.08331): over single answers it would count only those that are right in
    both respects, which is another quantity.
    """
    return 2 * share * relevance / (share + relevance) if share > 0 and relevance > 0 else 0.0
