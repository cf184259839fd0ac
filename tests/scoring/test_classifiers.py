"""The classifiers: what they learn, that training is exact or seeded, and what they refuse."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.helpers import MINI, scoring_context, toy_encoder

from harness.core.errors import UserError
from harness.data.corpus import Corpus
from harness.data.sources import LocalData
from harness.data.suite import ClassifierProtocol, load_suite
from harness.scoring.classifiers import ClassifierScorer, open_classifier
from harness.scoring.encoders import open_encoder
from harness.scoring.linear_classifiers import TfidfClassifier, fit_dual
from harness.scoring.scorer import TextSample
from harness.scoring.scorers import build_scorers

PROTOCOL = ClassifierProtocol(
    seeds=[1, 2, 3],
    dropout=0.2,
    learning_rate=2e-5,
    batch_size=16,
    max_epochs=50,
    patience=10,
    max_tokens=512,
)
FOOD = [
    ("the soup was good", "good"),
    ("good bread", "good"),
    ("a bad soup", "bad"),
    ("bad, bad bread", "bad"),
]
FOOD_HUMAN = scoring_context(
    ["bad", "good"],
    [("bad fish", "bad"), ("good fish", "good"), ("really good", "good")],
    validation=[("good food", "good"), ("bad food", "bad")],
)
MEALS = {
    "am": (
        [("ምግቡ በጣም ጥሩ ነበር።", "good"), ("ጥሩ ሾርባ", "good"), ("ምግቡ መጥፎ ነበር።", "bad"), ("መጥፎ ዳቦ", "bad")],
        [("መጥፎ ዓሣ", "bad"), ("ጥሩ ዓሣ", "good")],
    ),
    "he": (
        [
            ("האוכל היה טעים מאוד.", "good"),
            ("מרק טעים", "good"),
            ("האוכל היה גרוע.", "bad"),
            ("לחם גרוע", "bad"),
        ],
        [("דג גרוע", "bad"), ("דג טעים", "good")],
    ),
}


def probabilities(classifier, train, human, seed=0):
    [found] = classifier.probabilities(train, human, [seed])
    return found


def predict(classifier, train, human, seed=0):
    """Return the most probable label indices; check that the probabilities are some."""
    found = probabilities(classifier, train, human, seed)
    assert found.shape == (len(human.test), len(human.labels))
    assert found.sum(axis=1) == pytest.approx(1)
    assert found.min() >= 0
    return found.argmax(axis=1).tolist()


# Logistic regression from inner products


def texts_as_numbers(labels, repeated=0):
    """Return random features of 30 texts, of which ``repeated`` are there twice, labels and test features."""
    draw = np.random.default_rng(labels)
    features = draw.normal(scale=200**-0.5, size=(30, 200))  # about length 1, as texts have it
    features = np.concatenate([features, features[:repeated]])
    targets = np.arange(len(features)) % labels
    return features, targets, draw.normal(scale=200**-0.5, size=(50, 200))


@pytest.mark.parametrize("labels", [2, 3, 7])
@pytest.mark.parametrize("repeated", [0, 10])
def test_inner_products_give_the_logistic_regression_of_scikit_learn(labels, repeated):
    from sklearn.linear_model import LogisticRegression

    features, targets, test = texts_as_numbers(labels, repeated)
    known = LogisticRegression(C=3, tol=1e-10, max_iter=10_000).fit(features, targets).predict_proba(test)
    dual = fit_dual(features @ features.T, targets, 3.0)
    found = dual.probabilities(test @ (features.T @ dual.weights), labels)
    assert np.abs(found - known).max() < 1e-4


def test_texts_without_features_leave_what_the_numbers_of_the_labels_say():
    dual = fit_dual(np.zeros((4, 4)), np.array([0, 2, 2, 2]), 10.0)
    assert dual.probabilities(np.zeros((1, 2)), 3)[0] == pytest.approx([0.25, 0, 0.75], abs=1e-4)


# The tf-idf classifier


def by_scikit_learn(train, human):
    """Return probabilities by scikit-learn's own tf-idf and logistic regression, run to the optimum."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    counter = HashingVectorizer(analyzer="char", ngram_range=(2, 5), n_features=2**18, alternate_sign=False, norm=None)
    counts = counter.transform([text for text, _ in train])
    used = counts.getnnz(axis=0).nonzero()[0]
    weigh = TfidfTransformer(sublinear_tf=True)
    targets = [human.labels.index(label) for _, label in train]
    model = LogisticRegression(C=10, tol=1e-8, max_iter=10_000).fit(weigh.fit_transform(counts[:, used]), targets)
    test = counter.transform([text for text, _ in human.test])
    return model.predict_proba(weigh.transform(test[:, used]))


def human_context(data, task, code):
    """Return the human text of a task and language of the mini suite, or of a larger folder of the same form."""
    definition = load_suite("mini").task(task, code)
    train, test = ([(r.text, r.label) for r in data.rows(definition, split)] for split in ("train", "test"))
    return scoring_context(definition.labels, test, train=train, task=task, language=code)


def drawn(human, per_label, seed):
    """Return ``per_label`` train texts of every label."""
    rows = [[row for row in human.train if row[1] == label] for label in human.labels]
    return [row for group in rows for row in random.Random(seed).sample(group, per_label)]


@pytest.mark.parametrize("code", ["am", "he", "de"])
@pytest.mark.parametrize(("task", "size"), [("sentiment", 8), ("topic", 5)])
def test_tfidf_predicts_what_scikit_learn_predicts(code, task, size):
    human = human_context(LocalData(MINI / "data"), task, code)
    train = drawn(human, size, seed=1)
    known, found = by_scikit_learn(train, human), probabilities(TfidfClassifier(), train, human, 0)
    assert np.abs(found - known).max() < 1e-4
    assert found.argmax(axis=1).tolist() == known.argmax(axis=1).tolist()


SIZES = {"sentiment": 50, "topic": 20}
REAL = [(code, task, size) for code in load_suite("steer11").languages for task, size in SIZES.items()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "task", "size"),
    [
        *[("am", "sentiment", 50), ("he", "topic", 20), ("de", "sentiment", 50), ("su", "topic", 20)],
        *(pytest.param(*real, marks=pytest.mark.nightly) for real in REAL),
    ],
)
def test_tfidf_predicts_what_scikit_learn_predicts_of_real_text(shared, code, task, size):
    human = human_context(LocalData(shared / "data"), task, code)
    train = drawn(human, size, seed=1)
    known, found = by_scikit_learn(train, human), probabilities(TfidfClassifier(), train, human, 0)
    assert np.abs(found - known).max() < 1e-4
    assert found.argmax(axis=1).tolist() == known.argmax(axis=1).tolist()


def test_tfidf_learns_what_the_texts_tell():
    assert predict(TfidfClassifier(), FOOD, FOOD_HUMAN) == [0, 1, 1]


@pytest.mark.parametrize("code", MEALS)
def test_tfidf_learns_amharic_and_hebrew(code):
    train, test = MEALS[code]
    assert predict(TfidfClassifier(), train, scoring_context(["bad", "good"], test)) == [0, 1]


def test_tfidf_needs_no_second_run():
    assert TfidfClassifier().seeds == [0]


def test_tfidf_gives_a_label_without_texts_no_probability():
    human = scoring_context(["bad", "fair", "good"], FOOD_HUMAN.test)
    found = probabilities(TfidfClassifier(), FOOD, human, 0)
    assert found[:, 1].tolist() == [0, 0, 0]
    assert found.argmax(axis=1).tolist() == [0, 2, 2]


def test_tfidf_is_sure_of_the_only_label_with_texts():
    found = probabilities(TfidfClassifier(), [("good", "good"), ("fine", "good")], FOOD_HUMAN, 0)
    assert found.tolist() == [[0, 1]] * 3


def test_tfidf_takes_texts_too_short_for_an_n_gram():
    train = [("ሀ", "bad"), ("ለ", "good"), ("א", "good")]
    assert predict(TfidfClassifier(), train, FOOD_HUMAN) == [1, 1, 1]  # the more frequent label


def test_tfidf_keeps_two_languages_apart():
    classifier = TfidfClassifier()
    first = predict(classifier, FOOD, FOOD_HUMAN)
    for train, test in MEALS.values():
        assert predict(classifier, train, scoring_context(["bad", "good"], test)) == [0, 1]
    assert predict(classifier, FOOD, FOOD_HUMAN) == first == [0, 1, 1]


def test_tfidf_weighs_part_of_the_texts_as_if_the_others_had_never_been_there():
    classifier, part = TfidfClassifier(), FOOD[:0:-1]
    probabilities(classifier, FOOD, FOOD_HUMAN, 0)
    again = probabilities(classifier, part, FOOD_HUMAN, 0)
    assert again.tolist() == probabilities(TfidfClassifier(), part, FOOD_HUMAN, 0).tolist()


# The frozen encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return toy_encoder(tmp_path_factory.mktemp("models") / "toyenc")


def frozen(folder):
    return open_classifier(f"frozen:{folder}", PROTOCOL)


def test_a_frozen_encoder_is_named_with_its_weights_and_needs_no_second_run(encoder, tmp_path):
    classifier = frozen(encoder)
    assert (classifier.name, classifier.seeds) == ("frozen:toyenc", [0])
    other = frozen(toy_encoder(tmp_path / "toyenc", seed=1))
    assert other.name == classifier.name
    assert other.signature != classifier.signature
    assert classifier.signature.endswith("|mean-pooled|tokens:512|standardised+logreg-C1|version:1")


LETTERS = [("aaaa", "bad"), ("aaa a", "bad"), ("zzzz", "good"), ("zz z", "good")]
LETTERS_HUMAN = scoring_context(
    ["bad", "good"], [("aaaaa", "bad"), ("zzzzz", "good")], validation=[("aa", "bad"), ("zz", "good")]
)


def test_a_frozen_encoder_gives_what_scikit_learn_gives_of_its_standardised_vectors(encoder):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from harness.scoring.embeddings import Pooler

    pooler = Pooler(open_encoder(f"frozen:{encoder}"))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / 32, tol=1e-8))  # 32 numbers per text
    train, test = (pooler.embed([text for text, _ in rows]).astype(np.float64) for rows in (FOOD, FOOD_HUMAN.test))
    known = model.fit(train, [label for _, label in FOOD]).predict_proba(test)  # in float32 it stops 2e-4 early
    assert np.abs(probabilities(frozen(encoder), FOOD, FOOD_HUMAN, 0) - known).max() < 1e-4


def test_a_frozen_encoder_learns_what_the_texts_tell(encoder):
    assert predict(frozen(encoder), LETTERS, LETTERS_HUMAN) == [0, 1]


def test_a_frozen_encoder_reads_amharic_and_hebrew(encoder):
    train = [("ሰላም ለዓለም", "am"), ("ምግቡ ጥሩ ነበር", "am"), ("שלום עולם", "he"), ("האוכל היה טעים", "he")]
    human = scoring_context(["am", "he"], [("ጥሩ ዳቦ", "am"), ("לחם טוב", "he")])
    assert predict(frozen(encoder), train, human) == [0, 1]


def test_equal_texts_teach_a_frozen_encoder_nothing(encoder):
    train = [("same", label) for label in ("bad", "fair", "good")]
    found = probabilities(frozen(encoder), train, scoring_context(["bad", "fair", "good"], LETTERS_HUMAN.test), 0)
    assert found == pytest.approx(1 / 3)


def test_equal_texts_teach_a_frozen_encoder_how_frequent_labels_are(encoder):
    train = [("same", "bad"), ("same", "good"), ("same", "good")]
    found = probabilities(frozen(encoder), train, LETTERS_HUMAN, 0)
    assert found == pytest.approx(np.array([[1 / 3, 2 / 3]] * 2), abs=1e-4)


@pytest.mark.parametrize("spec", ["tfidf", "frozen:{}", "hf:{},epochs=1"])
def test_a_test_text_is_judged_alone(encoder, spec):
    classifier = open_classifier(spec.format(encoder), PROTOCOL)
    every = probabilities(classifier, FOOD, FOOD_HUMAN, 1)
    alone = probabilities(classifier, FOOD, replace(FOOD_HUMAN, test=FOOD_HUMAN.test[1:2]), 1)
    assert alone[0] == pytest.approx(every[1], abs=1e-5)


def test_a_frozen_encoder_gives_a_label_without_texts_no_probability(encoder):
    human = scoring_context(["bad", "fair", "good"], LETTERS_HUMAN.test)
    assert probabilities(frozen(encoder), LETTERS, human, 0)[:, 1].tolist() == [0, 0]
    assert probabilities(frozen(encoder), LETTERS[:2], human, 0).tolist() == [[1, 0, 0]] * 2


def test_a_frozen_encoder_has_no_options_of_training(encoder):
    with pytest.raises(UserError, match=r"unknown option 'lr'; valid: name, pooling, prefix\. In 'frozen:"):
        open_classifier(f"frozen:{encoder},lr=1", PROTOCOL)


def test_a_frozen_encoder_that_is_none_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"holds no model: config\.json is missing"):
        frozen(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        frozen(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("code", ["am", *(pytest.param(code, marks=pytest.mark.nightly) for code in ("he", "su"))])
def test_a_real_frozen_encoder_finds_more_than_chance(shared, code):
    human = human_context(LocalData(shared / "data"), "sentiment", code)
    human, train = replace(human, test=human.test[:200]), drawn(human, 50, seed=1)
    texts = TextSample([text for text, _ in train], [label for _, label in train], np.ones(len(train), bool))
    scores = ClassifierScorer(frozen(shared / "models" / "devenc")).score(texts, human).scores
    found = {score.metric: score.value for score in scores}
    assert found["macro_f1/frozen:devenc"] > 0.5
    assert found["brier/frozen:devenc"] < 1


# Options of a classifier


def test_the_suites_protocol_is_the_default(encoder):
    classifier = open_classifier(f"hf:{encoder}", PROTOCOL)
    assert classifier.name == "hf:toyenc"
    assert classifier.seeds == [1, 2, 3]
    assert classifier.signature.endswith(
        "|dropout:0.2|adamw:2e-05|batch:16|epochs:50|patience:10|tokens:512|seeds:3|packed|version:3"
    )


def test_padded_batches_are_asked_for_and_keep_name_and_signature_of_earlier_versions(encoder):
    classifier = open_classifier(f"hf:{encoder},batches=padded", PROTOCOL)
    assert classifier.name == "hf:toyenc"
    assert classifier.signature.endswith("|tokens:512|seeds:3|version:2")


def test_one_encoder_is_not_trained_in_two_ways_under_one_name(encoder):
    specs = [f"hf:{encoder}", "tfidf", f"hf:{encoder},batches=padded"]
    suite = load_suite("mini")
    with pytest.raises(UserError, match=r"two classifiers have the name hf:toyenc, so their scores would too"):
        build_scorers(suite, Corpus(suite, LocalData(MINI / "data")), specs)


def test_an_encoder_of_another_type_is_trained_with_padded_batches(encoder, tmp_path):
    other = shutil.copytree(encoder, tmp_path / "other")
    config = other / "config.json"
    config.write_text(config.read_text().replace('"model_type": "xlm-roberta"', '"model_type": "deberta-v2"'))
    assert open_classifier(f"hf:{other}", PROTOCOL).signature.endswith("|seeds:3|version:2")


def test_options_change_the_protocol_and_show_in_the_signature(encoder):
    classifier = open_classifier(f"hf:{encoder},lr=2e-4,epochs=12,seeds=2,patience=3", PROTOCOL)
    assert classifier.name == "hf:toyenc,epochs=12,lr=2e-4,patience=3,seeds=2"
    assert classifier.seeds == [1, 2]
    assert "|adamw:0.0002|batch:16|epochs:12|patience:3|tokens:512|seeds:2|" in classifier.signature


def test_the_signature_names_the_weights(encoder, tmp_path):
    other = toy_encoder(tmp_path / "toyenc", seed=1)
    one, two = (open_classifier(f"hf:{folder}", PROTOCOL) for folder in (encoder, other))
    assert one.name == two.name
    assert one.signature != two.signature


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("rate=1", r"unknown option 'rate'; valid: epochs, lr, name, patience, prefix, seeds"),
        ("lr=fast", r"'fast' is not a value for 'lr'"),
        ("lr=0", r"'0' is not a value for 'lr'"),
        ("lr", r"'' is not a value for 'lr'"),
        ("epochs=1.5", r"'1.5' is not a value for 'epochs'"),
        ("seeds=0", r"'0' is not a value for 'seeds'"),
        ("seeds=-1", r"'-1' is not a value for 'seeds'"),
        ("seeds=4", r"'4' is not a value for 'seeds'"),
        ("", r"unknown option ''"),
    ],
)
def test_a_bad_option_is_one_clear_error(encoder, options, words):
    with pytest.raises(UserError, match=words):
        open_classifier(f"hf:{encoder},{options}", PROTOCOL)


@pytest.mark.parametrize("spec", ["svm", "hf", "hf:", "frozen", "frozen:", "TFIDF", ""])
def test_an_unknown_classifier_is_one_clear_error(spec):
    with pytest.raises(UserError, match=r"unknown classifier .*valid: frozen:PATH_OR_ID, hf:PATH_OR_ID, tfidf"):
        open_classifier(spec, PROTOCOL)


def test_half_a_download_is_one_clear_error(encoder, tmp_path):
    broken = shutil.copytree(encoder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is truncated"):
        open_classifier(f"hf:{broken}", PROTOCOL)
