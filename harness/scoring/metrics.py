"""The metrics by name: title, direction, unit, definition. A new column of the board starts here.

A name is ``BASE[.valid][/PROVIDER]``: ``.valid`` for the metric on valid texts only, ``PROVIDER`` for the classifier,
embedding or corpus that it is measured with, such as ``macro_f1.valid/tfidf``. A point of a curve names its number of
texts as well: ``curve_f1/tfidf,n=20``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from harness.core.records import Direction, Score

Group = Literal["downstream", "understanding", "diversity", "validity", "leakage", "forcing", "curve", "other"]


@dataclass(frozen=True)
class Metric:
    """What a reader must know of a score. ``direction``: whether higher ("up") or lower is better, or neither.

    ``primary`` metrics work for every script and come first in their group.
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
        """This metric on valid texts only."""
        base, slash, provider = self.name.partition("/")
        return replace(
            self,
            name=f"{base}.valid{slash}{provider}",
            title=f"{self.title}, valid text",
            definition=f"{self.definition} On valid texts only.",
            primary=False,
        )


METRICS: dict[str, Metric] = {}
"""Every metric without its suffixes, in the order of the board."""

SHARE, F1, PERCENT = "share, 0 to 1", "F1, 0 to 1", "0 to 100"


def _metric(
    group: Group, name: str, title: str, direction: Direction, unit: str, definition: str, *, primary: bool = False
) -> Metric:
    METRICS[name] = Metric(name, title, direction, unit, definition, group, primary)
    return METRICS[name]


# fmt: off
# Understanding: the steered model answers tasks itself, under lm-eval
TASK_SCORE = _metric("understanding", "task_score", "task score", "up", SHARE,
    "Mean over the examples of the task's first metric in lm-eval: accuracy where the model chooses among answers by "
    "their log-likelihood, exact match or F1 where it writes one.", primary=True)
TASK_MACRO_F1 = _metric("understanding", "task_macro_f1", "task macro-F1", "up", F1,
    "Macro-F1 of the answers that the model chooses by log-likelihood, over the task's fixed list of answers; no "
    "value where the answers differ from example to example.", primary=True)
REPORTED = _metric("other", "lm_eval", "lm-eval", "none", "as there",
    "The value that lm-eval itself reports for the task; its standard error is in the score's detail.")

# Downstream, each for several classifiers
MACRO_F1 = _metric("downstream", "macro_f1", "macro-F1", "up", F1,
    "Macro-F1 of a classifier trained on the texts of the cell and tested on human-written text of the suite's "
    "scored split (test), over the task's fixed list of labels.", primary=True)
ACCURACY = _metric("downstream", "accuracy", "accuracy", "up", SHARE,
    "Share of human-written texts of the scored split that the classifier labels correctly.")
CALIBRATION_ERROR = _metric("downstream", "calibration_error", "calibration error", "down", SHARE,
    "Expected calibration error of the classifier: mean gap between confidence and accuracy over ten bins of equal "
    "size (Guo et al. 2017; Nguyen and O'Connor 2015).")
BRIER = _metric("downstream", "brier", "Brier score", "down", "0 to 2",
    "Mean squared distance of the classifier's probabilities from the truth, summed over labels (Brier 1950).")

# Diversity: at fixed budgets, comparable within one language
SELF_CHRF = _metric("diversity", "self_chrf", "self-chrF", "down", f"chrF, {PERCENT}",
    "Mean chrF of the first characters of each text against those of a fixed number of other texts of the cell (best "
    "match; Popović 2015, computed by sacrebleu).", primary=True)
VENDI = _metric("diversity", "vendi", "Vendi", "up", "texts, from 1",
    "Effective number of different texts, by their first characters, in a fixed number of texts: exp of the Shannon "
    "entropy of the eigenvalues of the cosine matrix (Friedman and Dieng 2023, q = 1).", primary=True)
PAIRWISE = _metric("diversity", "pairwise_distance", "pairwise distance", "up", "cosine distance, 0 to 2",
    "Mean cosine distance between the first characters of two different texts of the cell.", primary=True)
COMPRESSION = _metric("diversity", "compression_ratio", "compression", "down", "ratio, above 0",
    "A fixed number of characters, one byte each, divided by their size after deflate: the more repetition, the "
    "higher.",
    primary=True)
DISTINCT_1, DISTINCT_2, DISTINCT_3 = (
    _metric("diversity", f"distinct_{n}", f"distinct-{n}", "up", SHARE,
        f"Share of different {words} among a fixed number of them, within texts, averaged over subsamples (Li et al. "
        "2016, at a fixed budget).")
    for n, words in ((1, "words"), (2, "word pairs"), (3, "word triples"))
)
SELF_BLEU = _metric("diversity", "self_bleu", "self-BLEU", "down", f"BLEU, {PERCENT}",
    "Mean BLEU of the first characters of each text against those of a fixed number of other texts of the cell (Zhu "
    "et al. 2018, computed by sacrebleu).")
SELF_REPETITION = _metric("diversity", "self_repetition", "self-repetition", "down", "log, from 0",
    "Mean log(1 + number of other texts, of a fixed number, that share a run of four words in their first "
    "characters) (Salkar et al. 2022).")
NEAR_DUPLICATES = _metric("diversity", "near_duplicates", "near-duplicates", "down", SHARE,
    "Share of texts with a near-duplicate in the cell: a Jaccard index of character 5-grams of at least 0.8 (found "
    "by MinHash, Broder 1997), as written or with the words in any order.")
VENDI_RARE, VENDI_COMMON, VENDI_MODE = (
    _metric("diversity", f"vendi_q{name}", f"Vendi q={title}", "up", VENDI.unit,
        f"Vendi score of order {title} (Pasarkar and Dieng 2024): {what}.")
    for name, title, what in (
        ("05", "0.5", "rare texts weigh more"),
        ("2", "2", "common texts weigh more"),
        ("inf", "∞", "only the largest group of similar texts counts"),
    )
)
LENGTH = _metric("diversity", "length", "length", "none", "characters",
    "Mean number of characters of a text. Descriptive only; reported so that length effects on other metrics are "
    "visible.")

# Validity: is it what was asked for
VALID_SHARE = _metric("validity", "valid_share", "valid", "up", SHARE,
    "Share of texts that pass every check: mostly in the requested language and script, no loop, no echo of the "
    "prompt, not empty, not gibberish, no refusal and no preamble.", primary=True)
LANGUAGE_FIDELITY = _metric("validity", "language_fidelity", "language", "up", SHARE,
    "Share of characters in sentences of the requested language, averaged over texts. Identified by a character "
    "n-gram classifier trained on parallel text of all the suite's languages, with word lists for close neighbours "
    "such as Norwegian and Malay, or by the named model.", primary=True)
LANGUAGE_SENTENCES = _metric("validity", "language_sentences", "sentences in the language", "up", SHARE,
    "Share of sentences in the requested language, averaged over texts; identified as for language fidelity.")
LABEL_FIDELITY = _metric("validity", "label_fidelity", "label", "up", SHARE,
    "Share of texts to which a classifier trained on human-written train text gives the requested label "
    "(cross-fitted: a train text is classified by folds that exclude it).", primary=True)
SCRIPT_SHARE = _metric("validity", "script_share", "script", "up", SHARE,
    "Share of letters in the script of the requested language, averaged over texts.")
DEGENERATE = _metric("validity", "degenerate", "degenerate", "down", SHARE,
    "Share of texts that are empty, loop, repeat the prompt or contain no words of the language.")
REFUSALS = _metric("validity", "refusals", "refusals", "down", SHARE,
    "Share of texts that refuse, or address the user around the requested text, as detected by patterns.")
WORD_ORDER = _metric("validity", "word_order", "word order", "up", "share, 0.5 at random",
    "Probability that a text's word order is likelier than the same words shuffled, by the word pairs of "
    "human-written text, averaged over texts of four words or more. Shuffled words score 0.5; order within phrases "
    "counts, meaning does not.")

# Leakage and anchoring, each for several corpora
COPIED = _metric("leakage", "copied", "copied", "down", SHARE,
    "Share of texts that copy a text of the corpus: at least a third of the text lies in runs of 50 characters from "
    "the corpus, or it has the words of one corpus text, in any order.", primary=True)
OVERLAP = _metric("leakage", "overlap", "overlap", "none", SHARE,
    "Mean share of a text's character 8-grams that occur in the corpus.")
MEMBERSHIP = _metric("leakage", "membership", "membership", "none", "difference of cosines, -1 to 1",
    "How much nearer texts are to test text than to validation text, or to validation text than to train text: mean "
    "difference of the cosine with the nearest text of each, in character 2- and 3-grams, among equally many. Near 0 "
    "if neither was seen.")
HIDDEN = _metric("leakage", "hidden_characters", "hidden characters", "down", SHARE,
    "Share of texts with invisible characters, stray marks, or letters of another script that look like those of the "
    "word.")

# The data-size curve, for several classifiers
CURVE_F1, CURVE_MIXED_F1 = (
    _metric("curve", name, title, "up", F1,
        f"Macro-F1 on human-written test text after training on the first n texts of every label{more}.")
    for name, title, more in (
        ("curve_f1", "macro-F1 by size", ""),
        ("curve_mixed_f1", "macro-F1 by size, with human text", " and a few human-written train texts"),
    )
)
CURVE_AREA = _metric("curve", "curve_area", "area under the curve", "up", F1,
    "Area under macro-F1 over the logarithm of the number of training texts per label, divided by the width: a mean "
    "macro-F1.")
HUMAN_EQUIVALENT = _metric("curve", "human_equivalent", "human-equivalent n", "up", "human texts per label",
    "Number of human-written train texts per label that give the same macro-F1 as the texts of the cell, by monotone "
    "interpolation on the curve of human text; where that does not reach so far, its nearer end.")

# Forcing: answers in a language that was not asked for; the last two for several relevance scorers
FORCING = _metric("forcing", "forcing", "forcing", "up", "0 to 1",
    "Harmonic mean of the share in the target language and of relevance, each averaged over all answers first; 0 if "
    "one of them is (CLaS-Bench, arXiv 2601.08331).", primary=True)
TARGET_SHARE = _metric("forcing", "target_share", "in the target language", "up", SHARE,
    "Share of answers in the target language: more than half of their characters are in sentences of it. Identified "
    "by a character n-gram classifier trained on parallel text of all the suite's languages, with word lists for "
    "close neighbours.",
    primary=True)
RELEVANCE = _metric("forcing", "relevance", "relevance", "up", "0 unrelated, 1 at best",
    "How relevant the answers are to their questions, in whatever language: rated by a chat model, or by whether an "
    "answer's own question is the nearest of all, corrected for guessing.", primary=True)
# fmt: on


def macro_f1(classifier: str) -> Metric:
    """Return the downstream metric of one classifier, such as ``tfidf`` or ``hf:devenc``."""
    return MACRO_F1.for_provider(classifier)


def curve_point(base: Metric, classifier: str, n: int) -> Metric:
    """Return a point of the curve of one classifier, such as ``curve_f1/tfidf,n=20``."""
    return base.for_provider(f"{classifier}{_POINT}{n}")


def curve_classifier(name: str) -> str:
    """Return the classifier of the name of a point of a curve."""
    return name.partition("/")[2].rpartition(_POINT)[0]


_POINT = ",n="  # classifiers with options have commas in their names, too: it is the last that counts


def metric(name: str) -> Metric:
    """Return the metric with this name; an unknown one (of a newer version) is shown as it is."""
    head, slash, provider = name.partition("/")
    base, dot, variant = head.partition(".")
    found = METRICS.get(base)
    if found is None or (dot and variant != "valid"):
        return Metric(name, name, "none", "", "")
    found = found.for_provider(provider) if slash else found
    return found.on_valid_texts if dot else found


def sort_key(name: str) -> tuple[int, str]:
    """Return the key that sorts metric names in the order of the board."""
    base = name.partition("/")[0].partition(".")[0]
    listed = list(METRICS)
    return (listed.index(base) if base in METRICS else len(listed), name)


def harmonic(share: float, relevance: float) -> float:
    """Return the harmonic mean of two aggregated shares; 0 where either is 0 or less.

    For aggregates only (CLaS-Bench, arXiv 2601.08331): over single answers it would count only those that are right in
    both respects, which is another quantity.
    """
    return 2 * share * relevance / (share + relevance) if share > 0 and relevance > 0 else 0.0
