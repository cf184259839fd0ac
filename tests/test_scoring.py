"""Every score against numbers that can be worked out by hand, and the floor where texts are worthless."""

from __future__ import annotations

import json
import shutil

import pytest
from helpers import generations, toy_encoder

from harness.errors import UserError
from harness.scoring.classifiers import Human, TfidfClassifier, open_classifier
from harness.scoring.downstream import downstream, training_rows
from harness.scoring.metrics import metric
from harness.suite import ClassifierProtocol

PROTOCOL = ClassifierProtocol(
    seeds=[1, 2, 3],
    dropout=0.2,
    learning_rate=2e-5,
    batch_size=16,
    max_epochs=50,
    patience=10,
    max_tokens=512,
)


# Downstream


class Fixed:
    """A classifier that gives the predictions it was made with, one list per seed."""

    name, signature = "fixed", "fixed|version:1"

    def __init__(self, *predictions: list[int]) -> None:
        self.predictions = predictions
        self.seeds = list(range(len(predictions)))
        self.trained_on: list = []

    def predict(self, train, human, seed):
        self.trained_on.append(train)
        return self.predictions[seed]


ABC = Human(labels=["a", "b", "c"], validation=[], test=[("1", "a"), ("2", "b"), ("3", "c")])
TWO = generations({"a": ["x"], "b": ["y"]})


def test_a_perfect_classifier_scores_1():
    score, predictions = downstream(TWO, ABC, Fixed([0, 1, 2]))
    assert score.value == 1.0
    assert predictions == {"0": [0, 1, 2]}


def test_a_label_that_is_never_predicted_counts_as_0():
    score, _ = downstream(TWO, ABC, Fixed([0, 0, 0]))
    assert score.value == pytest.approx((2 / 4 + 0 + 0) / 3)  # F1 of a: 2 hits / (3 predicted + 1 true)


def test_a_label_that_the_test_split_lacks_counts_as_0():
    human = Human(labels=["a", "b", "c"], validation=[], test=[("1", "a"), ("2", "b")])
    score, _ = downstream(TWO, human, Fixed([0, 1]))
    assert score.value == pytest.approx((1 + 1 + 0) / 3)


def test_the_score_is_the_mean_over_the_seeds_of_the_classifier():
    score, predictions = downstream(TWO, ABC, Fixed([0, 1, 2], [0, 0, 0]))
    assert score.by_seed == {"0": 1.0, "1": pytest.approx(1 / 6)}
    assert score.value == pytest.approx((1 + 1 / 6) / 2)
    assert predictions == {"0": [0, 1, 2], "1": [0, 0, 0]}


def test_a_classifier_trains_on_each_text_of_a_label_once_and_on_no_empty_text():
    texts = generations({"a": ["x", "x", " ", "y"], "b": ["x", ""]})
    assert training_rows(texts) == [("x", "a"), ("y", "a"), ("x", "b")]


def test_texts_that_are_all_empty_give_no_score_and_say_why():
    score, predictions = downstream(generations({"a": [""], "b": [" "]}), ABC, Fixed([0, 0, 0]))
    assert (score.value, score.note, predictions) == (None, "no text to train on", {})


def test_one_text_for_all_labels_scores_at_the_floor():
    human = Human(
        labels=["bad", "good"],
        validation=[],
        test=[("the food was good", "good"), ("the food was bad", "bad")],
    )
    texts = generations({"bad": ["we ate here"] * 5, "good": ["we ate here"] * 5})
    score, _ = downstream(texts, human, TfidfClassifier())
    assert score.value == pytest.approx(1 / 3)  # one label for everything: (2/3 + 0) / 2


def test_a_score_says_what_it_is():
    score, _ = downstream(TWO, ABC, Fixed([0, 1, 2]))
    known = metric("macro_f1/fixed")
    assert (score.metric, score.direction, score.unit) == ("macro_f1/fixed", "up", known.unit)
    assert score.signature == "fixed|version:1"


# The tf-idf classifier

FOOD = [
    ("the soup was good", "good"),
    ("good bread", "good"),
    ("a bad soup", "bad"),
    ("bad, bad bread", "bad"),
]
FOOD_HUMAN = Human(
    labels=["bad", "good"],
    validation=[("good food", "good"), ("bad food", "bad")],
    test=[("bad fish", "bad"), ("good fish", "good"), ("really good", "good")],
)


def test_tfidf_learns_what_the_texts_tell():
    assert TfidfClassifier().predict(FOOD, FOOD_HUMAN, 0) == [0, 1, 1]


def test_tfidf_needs_no_second_run():
    assert TfidfClassifier().seeds == [0]


def test_tfidf_never_predicts_a_label_without_texts():
    assert TfidfClassifier().predict([("good", "good"), ("fine", "good")], FOOD_HUMAN, 0) == [1, 1, 1]


def test_tfidf_keeps_the_test_texts_of_two_languages_apart():
    other = Human(labels=["good", "bad"], validation=[], test=[("bad fish", "bad"), ("good fish", "good")])
    classifier = TfidfClassifier()
    first = classifier.predict(FOOD, FOOD_HUMAN, 0)
    assert classifier.predict(FOOD, other, 0) == [1, 0]
    assert classifier.predict(FOOD, FOOD_HUMAN, 0) == first


# Options of a classifier


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return toy_encoder(tmp_path_factory.mktemp("models") / "toyenc")


def test_the_suites_protocol_is_the_default(encoder):
    classifier = open_classifier(f"hf:{encoder}", PROTOCOL)
    assert classifier.name == "hf:toyenc"
    assert classifier.seeds == [1, 2, 3]
    assert "|dropout:0.2|adamw:2e-05|batch:16|epochs:50|patience:10|tokens:512|seeds:3|" in (
        classifier.signature
    )


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
        ("rate=1", r"unknown option 'rate'; valid: epochs, lr, patience, seeds"),
        ("lr=fast", r"'fast' is no value for 'lr'"),
        ("lr=0", r"'0' is no value for 'lr'"),
        ("lr", r"'' is no value for 'lr'"),
        ("epochs=1.5", r"'1.5' is no value for 'epochs'"),
        ("seeds=0", r"'0' is no value for 'seeds'"),
        ("seeds=-1", r"'-1' is no value for 'seeds'"),
        ("seeds=4", r"'4' is no value for 'seeds'"),
        ("", r"unknown option ''"),
    ],
)
def test_a_bad_option_is_one_clear_error(encoder, options, words):
    with pytest.raises(UserError, match=words):
        open_classifier(f"hf:{encoder},{options}", PROTOCOL)


@pytest.mark.parametrize("spec", ["svm", "hf", "hf:", "TFIDF", ""])
def test_an_unknown_classifier_is_one_clear_error(spec):
    with pytest.raises(UserError, match=r"unknown classifier .*valid: hf:PATH_OR_ID, tfidf"):
        open_classifier(spec, PROTOCOL)


# Fine-tuning


def trainer(folder, **changes):
    from harness.checkpoints import resolve_checkpoint
    from harness.scoring.finetuning import EncoderTrainer

    protocol = PROTOCOL.model_copy(update={"max_epochs": 2, "learning_rate": 1e-3, **changes})
    return EncoderTrainer(resolve_checkpoint(str(folder)), protocol)


def trained_weights(folder, seed):
    """Return the weights of the head after fine-tuning."""
    ours, kept = trainer(folder), []
    fit = ours._fit

    def watched(model, *arguments):
        fit(model, *arguments)
        kept.append(model.classifier.out_proj.weight.detach().clone())

    ours._fit = watched
    ours.predict(FOOD, FOOD_HUMAN, seed)
    return kept[0]


def test_an_encoder_is_trained_and_gives_a_label_per_test_text(encoder):
    found = open_classifier(f"hf:{encoder},lr=1e-3,epochs=2", PROTOCOL).predict(FOOD, FOOD_HUMAN, 1)
    assert len(found) == 3
    assert set(found) <= {0, 1}


def test_an_encoder_learns_what_the_texts_tell(encoder):
    rows = [("aaaa", "bad"), ("aaa", "bad"), ("zzzz", "good"), ("zzz", "good")]
    human = Human(["bad", "good"], [("aa", "bad"), ("zz", "good")], [("aaaaa", "bad"), ("zzzzz", "good")])
    found = trainer(encoder, max_epochs=40, patience=40, learning_rate=3e-3).predict(rows, human, 1)
    assert found == [0, 1]


def test_equal_seeds_give_equal_weights_and_other_seeds_others(encoder):
    first, again, other = (trained_weights(encoder, seed) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


def test_fine_tuning_leaves_the_random_numbers_of_the_process_alone(encoder):
    import torch

    torch.manual_seed(7)
    undisturbed = torch.rand(3)
    torch.manual_seed(7)
    trainer(encoder).predict(FOOD, FOOD_HUMAN, 1)
    assert torch.rand(3).equal(undisturbed)


def test_the_head_has_the_dropout_of_the_protocol(encoder):
    model = trainer(encoder)._model(3)
    assert model.classifier.dropout.p == 0.2
    assert model.classifier.out_proj.out_features == 3


def fit_by_script(encoder, validation: list[list[int]], **changes):
    """Fit a model whose one weight is the number of the epoch, with given answers on validation."""
    import torch

    ours, epochs = trainer(encoder, max_epochs=50, **changes), []
    model = torch.nn.Linear(1, 1, bias=False)

    def epoch(model, *arguments):
        epochs.append(len(epochs) + 1)
        model.weight.data.fill_(epochs[-1])

    ours._epoch = epoch
    ours._labels = lambda model, texts: validation[len(epochs) - 1]
    ours._fit(model, FOOD, FOOD_HUMAN, torch.Generator())
    return model.weight.item(), len(epochs)


RIGHT, WRONG, HALF = [1, 0], [0, 1], [0, 0]  # the validation labels are good, bad


def test_early_stopping_restores_the_best_epoch(encoder):
    best, epochs = fit_by_script(encoder, [HALF, RIGHT, WRONG, HALF], patience=2)
    assert (best, epochs) == (2, 4)


def test_of_equal_epochs_the_first_is_the_best(encoder):
    best, epochs = fit_by_script(encoder, [HALF, RIGHT, RIGHT, RIGHT], patience=2)
    assert (best, epochs) == (2, 4)


def test_a_better_epoch_starts_the_patience_anew(encoder):
    best, epochs = fit_by_script(encoder, [WRONG, WRONG, HALF, WRONG, RIGHT, WRONG, WRONG], patience=2)
    assert (best, epochs) == (5, 7)


def test_a_folder_whose_weights_are_no_encoder_is_one_clear_error(encoder, tmp_path):
    broken = shutil.copytree(encoder, tmp_path / "broken")
    config = broken / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 32', '"hidden_size": 48'))
    with pytest.raises(UserError, match="broken holds no encoder"):
        trainer(broken).predict(FOOD, FOOD_HUMAN, 1)


def test_half_a_download_is_one_clear_error(encoder, tmp_path):
    broken = shutil.copytree(encoder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is truncated"):
        open_classifier(f"hf:{broken}", PROTOCOL)


def test_texts_are_cut_to_the_encoders_positions_where_the_tokenizer_names_no_limit(tmp_path):
    folder = toy_encoder(tmp_path / "enc")  # 130 positions, two of them lost to padding
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 10**30}))
    human = Human(["a", "b"], [("ሀ" * 400, "a")], [("ሀ" * 400, "a"), ("b", "b")])
    classifier = open_classifier(f"hf:{folder},epochs=1,seeds=1", PROTOCOL)
    assert len(classifier.predict([("ሀ" * 400, "a"), ("b", "b")], human, 1)) == 2
