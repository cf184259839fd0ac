"""Vendi scores and pairwise distance against numbers worked out by hand, another package and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.data.suite import Budgets, load_suite
from harness.scoring import vendi as vendi_module
from harness.scoring.embeddings import TfidfEmbedding
from harness.scoring.metrics import metric
from harness.scoring.scorer import ScoringContext, TextSample
from harness.scoring.vendi import (
    EmbeddingScorer,
    distance_interval,
    eigenvalues,
    hill_number,
    mean_pairwise_distance,
    vendi,
)

ORDERS = [0.5, 1.0, 2.0, math.inf]
NAMES = ["vendi/tfidf", "vendi_q05/tfidf", "vendi_q2/tfidf", "vendi_qinf/tfidf", "pairwise_distance/tfidf"]
STEER11 = load_suite("steer11").metrics.budgets


def budgets(**changes: int) -> Budgets:
    return STEER11.model_copy(update={"texts": 4, "subsamples": 5, "window": 10, **changes})


def context(*train: str) -> ScoringContext:
    """Return a context with human train text and nothing else."""
    rows = [(text, "x") for text in train]
    return ScoringContext("sentiment", "am", ["x"], rows, [], [], "", [], {}, {})


def sample(texts: list[str], valid: list[bool] | None = None) -> TextSample:
    mask = np.ones(len(texts), dtype=bool) if valid is None else np.array(valid)
    return TextSample(texts, ["x"] * len(texts), mask)


def scores(given: list[str], human: ScoringContext, valid: list[bool] | None = None, **changes: int):
    """Return the part's scores by name."""
    return by_name(EmbeddingScorer(TfidfEmbedding(), budgets(**changes)), sample(given, valid), human)


def by_name(part: EmbeddingScorer, given: TextSample, human: ScoringContext):
    return {score.metric: score for score in part.score(given, human).scores}


class Zipf:
    """Endless text of one source: made-up words of Ethiopic letters, the r-th with a chance of 1 / r."""

    def __init__(self, seed: int, n_words: int = 2000) -> None:
        self.draw = np.random.default_rng(seed)
        letters = [chr(0x1200 + i) for i in range(0, 320, 8)]
        self.words = ["".join(self.draw.choice(letters, self.draw.integers(2, 8))) for _ in range(n_words)]
        shares = 1 / np.arange(1, n_words + 1)
        self.shares = shares / shares.sum()

    def texts(self, n: int, length: int) -> list[str]:
        chosen = self.draw.choice(len(self.words), (n, length), p=self.shares)
        return [" ".join(self.words[i] for i in row) for row in chosen]


class Clusters:
    """Texts on twelve subjects of unequal weight, each with a dozen words of its own."""

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        words = Zipf(seed, 144).words
        self.subjects = [words[i : i + 12] for i in range(0, 144, 12)]
        shares = 1 / np.arange(1, 13)
        self.shares = shares / shares.sum()

    def texts(self, n: int, length: int) -> list[str]:
        subjects = self.draw.choice(12, n, p=self.shares)
        return [" ".join(self.draw.choice(self.subjects[i], length)) for i in subjects]


class Loop:
    """A source in a loop: seven texts of ten are one of twenty sentences, some of them more often."""

    def __init__(self, seed: int) -> None:
        self.fresh = Zipf(seed)
        self.draw = self.fresh.draw
        self.again = [" ".join(self.draw.choice(self.fresh.words, 20)) for _ in range(20)]
        shares = 1 / np.arange(1, 21)
        self.shares = shares / shares.sum()

    def texts(self, n: int, length: int) -> list[str]:
        repeated = self.draw.choice(20, n, p=self.shares)
        pairs = zip(self.fresh.texts(n, length), repeated, self.draw.random(n) < 0.7, strict=True)
        return [self.again[i] if again else text for text, i, again in pairs]


# The formulas


@pytest.mark.parametrize("q", ORDERS)
def test_texts_that_are_all_the_same_count_as_one(q):
    assert vendi(np.ones((7, 7)), q) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("q", ORDERS)
def test_texts_with_nothing_in_common_count_each(q):
    assert vendi(np.eye(7), q) == pytest.approx(7.0, abs=1e-12)


@pytest.mark.parametrize(("q", "expected"), [(0.5, 1.8), (1.0, 1.649385), (2.0, 1 / 0.68), (math.inf, 1.25)])
def test_two_texts_with_a_cosine_of_point_six(q, expected):
    # The eigenvalues of K / 2 are 0.8 and 0.2; q = 1: exp(0.8 ln 1/0.8 + 0.2 ln 1/0.2).
    assert vendi(np.array([[1.0, 0.6], [0.6, 1.0]]), q) == pytest.approx(expected, abs=1e-6)


def test_three_copies_of_one_text_and_another_one():
    kernel = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], dtype=float)
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert vendi(kernel) == pytest.approx(math.exp(entropy))
    assert vendi(kernel, 2.0) == pytest.approx(1 / (0.75**2 + 0.25**2))
    assert vendi(kernel, math.inf) == pytest.approx(4 / 3)


def test_eigenvalues_below_the_noise_of_floating_point_are_nothing():
    kernel = np.ones((40, 40)) + 1e-16 * np.diag([-1.0, 1.0] * 20)
    assert eigenvalues(kernel).tolist()[:-1] == [0.0] * 39
    assert vendi(kernel, 0.5) == pytest.approx(1.0, abs=1e-9)  # the order that noise moves most


def test_higher_orders_never_count_more_texts():
    rows = unit_rows(30, 8)
    values = [vendi(rows @ rows.T, q) for q in ORDERS]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


def unit_rows(n: int, width: int) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(n, width)) + 0.5
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("q", ORDERS)
def test_vendi_agrees_with_the_package_of_its_authors(q):
    package = pytest.importorskip(
        "vendi_score.vendi", reason="NOT CHECKED against the package vendi-score, which is not installed"
    )
    rows = unit_rows(60, 8)  # more texts than dimensions: most eigenvalues are noise
    theirs = "inf" if q == math.inf else q
    # At q = 0.5 the noise that the package keeps is felt: hence no closer than 1e-5.
    assert vendi(rows @ rows.T, q) == pytest.approx(package.score_K(rows @ rows.T, q=theirs), rel=1e-5)
    assert vendi(rows @ rows.T, q) == pytest.approx(package.score_dual(rows, q=theirs), rel=1e-9)


def test_many_kernels_at_once_are_each_on_its_own():
    kernels = np.stack([np.eye(3), np.ones((3, 3))])
    assert hill_number(eigenvalues(kernels), 1.0) == pytest.approx([3.0, 1.0])


def test_pairwise_distance_leaves_out_a_text_with_itself():
    assert mean_pairwise_distance(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(1.0)
    assert mean_pairwise_distance(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(2.0)
    assert mean_pairwise_distance(np.array([[1.0, 0.0]] * 5)) == pytest.approx(0.0, abs=1e-12)
    three = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # pairs 0, 1, 1
    assert mean_pairwise_distance(three) == pytest.approx(2 / 3)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_pairwise_distance_is_the_mean_of_all_pairs(form):
    from scipy.sparse import csr_array
    from sklearn.metrics.pairwise import cosine_distances

    rows = unit_rows(30, 8)
    given = csr_array(rows) if form == "sparse" else rows
    pairs = np.triu_indices(30, 1)
    assert mean_pairwise_distance(given) == pytest.approx(cosine_distances(rows)[pairs].mean())
    centre = rows[:10].mean(axis=0)
    shifted = cosine_distances(rows - centre)[pairs].mean()
    assert mean_pairwise_distance(given, centre) == pytest.approx(shifted)
    assert shifted > 1.1 * cosine_distances(rows)[pairs].mean()  # they had a direction in common


def test_a_row_at_the_centre_itself_counts_as_nothing():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert mean_pairwise_distance(rows, np.array([1.0, 0.0])) == pytest.approx(1 - 2 / 6)


def test_the_interval_of_the_distance_is_the_jackknife_by_the_definition():
    rows = unit_rows(20, 8)
    without = [mean_pairwise_distance(np.delete(rows, i, axis=0)) for i in range(20)]
    error = math.sqrt(19 / 20 * sum((value - np.mean(without)) ** 2 for value in without))
    low, high = distance_interval(rows)
    cosine, t = 1 - mean_pairwise_distance(rows), 2.093024  # Student's t, 19 degrees of freedom
    assert high == pytest.approx(1 - cosine * math.exp(-t * error / cosine))
    assert low == pytest.approx(1 - cosine * math.exp(t * error / cosine))


def test_the_interval_of_a_distance_near_one_is_even():
    rows = unit_rows(20, 8) * np.repeat([[1], [-1]], 10, axis=0)  # the mean cosine is about 0
    low, high = distance_interval(rows)
    assert (low + high) / 2 == pytest.approx(mean_pairwise_distance(rows))
    assert high > 1.0


def test_texts_that_are_all_alike_or_all_apart_tell_no_interval():
    assert distance_interval(np.array([[1.0, 0.0]] * 5)) is None
    assert distance_interval(np.eye(5)) is None
    assert distance_interval(np.eye(2)) is None


# The part


def test_every_metric_comes_on_all_texts_and_on_valid_ones():
    found = scores(Zipf(1).texts(9, 8), context(*Zipf(2).texts(9, 8)), [True] * 6 + [False] * 3)
    assert [*found] == NAMES + [metric(name).on_valid_texts.name for name in NAMES]
    assert all(score.value is not None and score.interval for score in found.values())
    assert {score.detail["texts"] for name, score in found.items() if ".valid" not in name} == {9}
    assert {score.detail["texts"] for name, score in found.items() if ".valid" in name} == {6}


def test_every_metric_is_of_its_own_order():
    texts, human = Zipf(1, n_words=20).texts(4, 8), context(*Zipf(2).texts(9, 8))
    rows = TfidfEmbedding().embed([text[:10] for text in texts], human)
    found = scores(texts, human)
    for name, q in zip(NAMES[:-1], [1.0, 0.5, 2.0, math.inf], strict=True):
        assert found[name].value == pytest.approx(vendi((rows @ rows.T).toarray(), q))
    assert found[NAMES[-1]].value == pytest.approx(mean_pairwise_distance(rows))
    assert len({score.value for score in found.values()}) == 5


def test_intervals_lie_around_their_values():
    texts, human = Loop(1).texts(60, 8), context(*Zipf(2).texts(9, 8))
    for name, score in scores(texts, human, texts=10, subsamples=30).items():
        low, high = score.interval
        if name.startswith("vendi"):
            assert (low + high) / 2 == pytest.approx(score.value)
        else:  # around the logarithm of the mean cosine
            assert (1 - low) * (1 - high) == pytest.approx((1 - score.value) ** 2)


def test_valid_texts_are_scored_as_if_the_others_were_not_there():
    texts, human = Zipf(1).texts(9, 8), context(*Zipf(2).texts(9, 8))
    mixed = scores(texts, human, [True] * 6 + [False] * 3)
    alone = scores(texts[:6], human)
    for name in NAMES:
        assert mixed[metric(name).on_valid_texts.name].value == alone[name].value != mixed[name].value
        assert alone[metric(name).on_valid_texts.name].value == alone[name].value


@pytest.mark.parametrize("text", ["ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד.", "the same text"])
def test_the_same_text_again_and_again_counts_as_one(text):
    found = scores([text] * 6, context(text, "ሰላም ለዓለም ሰላም", "שלום עולם שלום"))
    for name in NAMES[:-1]:
        assert found[name].value == pytest.approx(1.0, abs=1e-9)
    assert found["pairwise_distance/tfidf"].value == pytest.approx(0.0, abs=1e-9)


def test_unrelated_amharic_and_hebrew_sentences_count_each():
    amharic = ["ዛሬ ከባድ ዝናብ ጣለ።", "ልጆቹ ትምህርት ቤት ሄዱ።", "መኪናው ተበላሽቶ ቆመ።"]
    hebrew = ["הילדים הלכו לבית הספר", "גשם כבד ירד אתמול", "מכונית חדשה ויקרה"]
    for texts in (amharic, hebrew):
        found = scores(texts, context(*texts), texts=3)
        assert found["vendi/tfidf"].value > 2.9
        assert found["pairwise_distance/tfidf"].value > 0.9


def test_too_few_texts_give_no_value_and_say_why():
    texts = ["ሰላም ለዓለም ሰላም", "short", "שלום עולם שלום", "x" * 9, "y" * 10]
    for score in scores(texts, context("ሰላም"), texts=4).values():
        assert score.value is None
        assert score.interval is None
        assert score.note == "only 3 texts with 10 characters, of 4 for the budget"
        assert score.detail == {"texts": 3.0}
    assert all(score.value is None for score in scores([], context()).values())


def test_vendi_of_as_many_texts_as_the_budget_has_no_interval():
    for name, score in scores(Zipf(1).texts(4, 8), context("ሰላም")).items():
        assert score.value is not None
        assert (score.interval is None) == name.startswith("vendi")


def test_no_valid_text_leaves_the_values_of_all_texts():
    found = scores(Zipf(1).texts(6, 8), context("ሰላም"), [False] * 6)
    assert found["vendi/tfidf"].value is not None
    assert found["vendi.valid/tfidf"].value is None


def test_the_order_of_texts_changes_nothing_at_all():
    texts, human = Zipf(1).texts(30, 8), context(*Zipf(2).texts(9, 8))
    again = [texts[i] for i in np.random.default_rng(0).permutation(30)]
    assert scores(texts, human) == scores(again, human)


def test_what_comes_after_the_window_changes_nothing():
    texts, human = Zipf(1).texts(12, 8), context(*Zipf(2).texts(9, 8))
    longer = [f"{text} {i} more words" for i, text in enumerate(texts)]
    assert scores(texts, human) == scores(longer, human)


def test_human_text_takes_its_common_part_off():
    human = [f"ምግቡ በጣም ጥሩ ነበር {word}" for word in Zipf(3).words[:40]]
    texts = [f"ምግቡ በጣም ጥሩ ነበር {word}" for word in Zipf(4).words[:40]]
    found = scores(texts, context(*human), window=18)["pairwise_distance/tfidf"]
    assert found.value < 0.85
    assert found.detail["centred"] > found.value + 0.1
    assert "centred" not in scores(texts, context("short"))["pairwise_distance/tfidf"].detail


def test_copies_of_one_text_among_others_are_noticed_by_every_metric():
    texts, human = Zipf(1).texts(40, 8), context(*Zipf(2).texts(40, 8))
    mixed = texts[:20] + texts[:1] * 20
    fresh, copied = (scores(given, human, texts=10, subsamples=30) for given in (texts, mixed))
    for name in NAMES:
        assert copied[name].interval[1] < fresh[name].interval[0]


def test_signatures_name_the_embedding_and_the_budget():
    part = EmbeddingScorer(TfidfEmbedding(), budgets(window=17))
    assert part.name == "embedding/tfidf"
    assert part.human
    assert part.signature.startswith(f"{TfidfEmbedding.signature}|")
    assert "|window:17|texts:4|subsamples:5|" in part.signature


# What must not move the numbers


def test_a_large_corpus_and_its_double_differ_by_less_than_the_margin_of_a_cell():
    """Of 5000 texts twice, few come together in one subsample; of 100 many would, and do count as alike."""
    texts, human = Zipf(1).texts(5000, 12), context(*Zipf(2).texts(300, 12))
    part = EmbeddingScorer(TfidfEmbedding(), STEER11)
    single, double = by_name(part, sample(texts), human), by_name(part, sample(texts * 2), human)
    cell = by_name(part, sample(texts[:100]), human)
    for name in NAMES:
        assert abs(single[name].value - double[name].value) < cell[name].interval[1] - cell[name].value


def test_the_kernels_of_many_texts_are_those_of_few(monkeypatch):
    texts, human = Zipf(1).texts(60, 8), context(*Zipf(2).texts(9, 8))
    together = scores(texts, human)
    monkeypatch.setattr(vendi_module, "_TOGETHER", 10)
    for name, score in scores(texts, human).items():
        assert score.value == pytest.approx(together[name].value, abs=1e-12)


@pytest.mark.parametrize("source", [Zipf, Clusters])
def test_length_alone_moves_no_metric(source):
    """Means over twenty cells of each length differ by less than half of one cell's margin of error."""
    part, drawn = EmbeddingScorer(TfidfEmbedding(), STEER11), source(1)
    human = context(*drawn.texts(300, 40))
    short, long = ([by_name(part, sample(drawn.texts(140, length)), human) for _ in range(20)] for length in (20, 80))
    for name in NAMES:
        means = [np.mean([cell[name].value for cell in cells]) for cells in (short, long)]
        margin = np.mean([cell[name].interval[1] - cell[name].value for cell in short])
        assert abs(means[0] - means[1]) < margin / 2, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "trials"),
    [(Loop, 300), *(pytest.param(source, 1000, marks=pytest.mark.nightly) for source in (Zipf, Clusters, Loop))],
)
def test_95_percent_intervals_hold_the_truth_in_95_percent_of_corpora(source, trials, capsys):
    """Corpora as large as the cells of steer11's tasks; the truth is the mean of twice as many single subsamples.

    The jackknife of Vendi scores is right where texts add up one by one, and too wide where they count by
    groups (Hoeffding 1948: the share of single texts in the variance is never larger than it assumes).
    """
    drawn, part = source(7), EmbeddingScorer(TfidfEmbedding(), STEER11)
    human = context(*drawn.texts(300, 20))
    small = [by_name(part, sample(drawn.texts(STEER11.texts, 20)), human) for _ in range(2 * trials)]
    truth = {name: np.mean([found[name].value for found in small]) for name in NAMES}
    held = dict.fromkeys(NAMES, 0)
    for trial in range(trials):
        found = by_name(part, sample(drawn.texts((100, 140)[trial % 2], 20)), human)
        for name in NAMES:
            held[name] += found[name].interval[0] <= truth[name] <= found[name].interval[1]
    with capsys.disabled():
        print(f"\n{source.__name__}: " + ", ".join(f"{name} {n / trials:.3f}" for name, n in held.items()))
    for name in NAMES:
        assert 0.93 <= held[name] / trials <= 0.98, name
