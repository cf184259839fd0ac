"""Fine-tuning: what is learned, early stopping, and that fast batches give what plain ones give."""

from __future__ import annotations

import json
import shutil
from statistics import mean, stdev

import numpy as np
import pytest
from support.helpers import scoring_context, toy_encoder

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UserError
from harness.data.suite import ClassifierProtocol
from harness.scoring.classifiers import open_classifier
from harness.scoring.embeddings import PACKED_TYPES
from harness.scoring.encoders import Encoder, open_encoder

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
LETTERS = [("aaaa", "bad"), ("aaa a", "bad"), ("zzzz", "good"), ("zz z", "good")]
LETTERS_HUMAN = scoring_context(
    ["bad", "good"], [("aaaaa", "bad"), ("zzzzz", "good")], validation=[("aa", "bad"), ("zz", "good")]
)
BATCHES = pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return toy_encoder(tmp_path_factory.mktemp("models") / "toyenc")


def protocol(**changes):
    return PROTOCOL.model_copy(update={"max_epochs": 2, "learning_rate": 1e-3, **changes})


def trainer(folder, packed=True, **changes):
    from harness.scoring.finetuning import EncoderTrainer

    return EncoderTrainer(open_encoder(f"hf:{folder}", ["lr"]), protocol(**changes), packed)


def predict(classifier, train, human, seed=1):
    """Return the most probable label indices."""
    [found] = classifier.probabilities(train, human, [seed])
    return found.argmax(axis=1).tolist()


def trained_weights(folder, packed, seed):
    """Return the weights of the head after fine-tuning."""
    ours, kept = trainer(folder, packed), []
    fit = ours._fit

    def watched(model, *arguments):
        fit(model, *arguments)
        kept.append(model.classifier.out_proj.weight.detach().clone())

    ours._fit = watched
    ours.probabilities(FOOD, FOOD_HUMAN, [seed])
    return kept[0]


def test_an_encoder_is_trained_and_gives_probabilities_of_every_test_text(encoder):
    classifier = open_classifier(f"hf:{encoder},lr=1e-3,epochs=2", PROTOCOL)
    assert set(predict(classifier, FOOD, FOOD_HUMAN, seed=1)) <= {0, 1}


@BATCHES
def test_an_encoder_learns_what_the_texts_tell(encoder, packed):
    ours = trainer(encoder, packed, max_epochs=40, patience=40, learning_rate=3e-3)
    assert predict(ours, LETTERS, LETTERS_HUMAN, seed=1) == [0, 1]


@BATCHES
def test_an_encoder_answers_in_the_order_of_the_test_texts(encoder, packed):
    ours = trainer(encoder, packed, max_epochs=40, patience=40, learning_rate=3e-3)
    test = [("z" * 9, "good"), ("aa", "bad"), ("zz", "good"), ("a" * 7, "bad"), ("zzzz", "good")]
    human = scoring_context(["bad", "good"], test, validation=LETTERS_HUMAN.validation)
    assert predict(ours, LETTERS, human, seed=1) == [1, 0, 1, 0, 1]


@BATCHES
def test_an_encoder_gives_a_label_without_texts_no_probability(encoder, packed):
    human = scoring_context(["fair", "bad", "good"], FOOD_HUMAN.test, validation=FOOD_HUMAN.validation)
    [found] = trainer(encoder, packed).probabilities(FOOD, human, [1])
    assert found[:, 0].tolist() == [0, 0, 0]
    assert found.sum(axis=1) == pytest.approx(1)


def test_an_encoder_has_nothing_to_learn_from_one_label(encoder):
    ours = trainer(encoder)
    ours._fit = None  # would fail if it were called
    assert ours.probabilities(FOOD[:2], FOOD_HUMAN, [1, 2]).tolist() == [[[0, 1]] * 3] * 2


@BATCHES
def test_training_that_diverges_knows_nothing(encoder, packed):
    [found] = trainer(encoder, packed, learning_rate=1e30).probabilities(FOOD, FOOD_HUMAN, [1])
    assert found.tolist() == [[0.5, 0.5]] * 3


@BATCHES
def test_equal_seeds_give_equal_weights_and_other_seeds_others(encoder, packed):
    first, again, other = (trained_weights(encoder, packed, seed) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


@BATCHES
def test_a_seed_does_not_depend_on_those_before_it(encoder, packed):
    ours = trainer(encoder, packed)
    together = ours.probabilities(FOOD, FOOD_HUMAN, [1, 2])
    assert (together[1] == ours.probabilities(FOOD, FOOD_HUMAN, [2])[0]).all()
    assert (together[0] != together[1]).any()


@BATCHES
def test_fine_tuning_leaves_the_random_numbers_of_the_process_alone(encoder, packed):
    import torch

    torch.manual_seed(7)
    undisturbed = torch.rand(3)
    torch.manual_seed(7)
    trainer(encoder, packed).probabilities(FOOD, FOOD_HUMAN, [1])
    assert torch.rand(3).equal(undisturbed)


def test_the_head_has_the_dropout_of_the_protocol(encoder):
    human = scoring_context(["bad", "fair", "good"], FOOD_HUMAN.test, validation=FOOD_HUMAN.validation)
    ours = trainer(encoder)
    model = ours._model(ours._read(FOOD, human))
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
    ours._logits = lambda *arguments: torch.eye(2)[validation[len(epochs) - 1]]
    ours._fit(model, None, ours._read(FOOD, FOOD_HUMAN), torch.Generator())
    return model.weight.item(), len(epochs)


RIGHT, WRONG, HALF = [0, 1], [1, 0], [0, 0]  # the validation labels, shortest text first, are bad, good


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
    with pytest.raises(UserError, match="broken is not an encoder"):
        trainer(broken).probabilities(FOOD, FOOD_HUMAN, [1])


def test_texts_are_cut_to_the_encoders_positions_where_the_tokenizer_names_no_limit(tmp_path):
    folder = toy_encoder(tmp_path / "enc")  # 130 positions, two of them lost to padding
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 10**30}))
    human = scoring_context(["a", "b"], [("ሀ" * 400, "a"), ("b", "b")], validation=[("ሀ" * 400, "a")])
    classifier = open_classifier(f"hf:{folder},epochs=1,seeds=1", PROTOCOL)
    assert len(predict(classifier, [("ሀ" * 400, "a"), ("b", "b")], human, 1)) == 2


# Fast batches and plain ones

MEALS = [
    ("ምግቡ በጣም ጥሩ ነበር።", "good"),
    ("ጥሩ ሾርባ", "good"),
    ("ምግቡ መጥፎ ነበር።", "bad"),
    ("መጥፎ ዳቦ", "bad"),
    ("האוכל היה טעים מאוד, ונחזור לכאן.", "good"),
    ("לחם גרוע", "bad"),
    ("so-so", "fair"),
    ("nothing to write home about, neither the soup nor the bread", "fair"),
    ("የሚበላ ነው", "fair"),
]
MEALS_HUMAN = scoring_context(
    ["bad", "fair", "good"],
    [("መጥፎ ዓሣ", "bad"), ("ጥሩ ዓሣ ነበር", "good"), ("דג גרוע", "bad"), ("דג טעים", "good"), ("", "fair"), ("ok", "fair")],
    validation=[("ጥሩ ዳቦ", "good"), ("מרק גרוע מאוד", "bad"), ("edible", "fair")],
)


def without_dropout(folder, target):
    """Return a copy of an encoder in which nothing is left to chance after the first step."""
    copy = shutil.copytree(folder, target)
    config = json.loads((copy / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def plainly(folder, seeds, **changes):
    from support.plain_finetuning import PlainTrainer

    plain = PlainTrainer(resolve_checkpoint(str(folder)), protocol(**changes))
    return np.stack([plain.probabilities(MEALS, MEALS_HUMAN, seed) for seed in seeds])


def test_padded_batches_give_what_plain_training_gives_bit_for_bit(encoder):
    changes = {"batch_size": 4, "max_epochs": 5, "patience": 2}
    found = trainer(encoder, packed=False, **changes).probabilities(MEALS, MEALS_HUMAN, [1, 2])
    assert found.tolist() == plainly(encoder, [1, 2], **changes).tolist()


def test_packed_batches_give_what_plain_training_gives_without_dropout(encoder, tmp_path):
    folder = without_dropout(encoder, tmp_path / "sure")
    changes = {"batch_size": 5, "max_epochs": 15, "patience": 15, "learning_rate": 6e-3, "dropout": 0.0}
    found = trainer(folder, **changes).probabilities(MEALS, MEALS_HUMAN, [1, 2])
    known = plainly(folder, [1, 2], **changes)
    assert np.abs(found - known).max() < 1e-6
    assert np.abs(known - known.mean(axis=1, keepdims=True)).max() > 0.01  # texts were told apart


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 90}


@pytest.mark.parametrize("training", [False, True], ids=["reading", "training"])
@pytest.mark.parametrize("kind", sorted(PACKED_TYPES))
def test_every_model_type_gives_the_same_logits_and_gradients_when_packed(kind, training):
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from harness.scoring.packing import PackedClassifier

    torch.manual_seed(3)
    rare = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"), 1e-6)
    config = AutoConfig.for_model(kind, **SMALL, **rare, num_labels=3, max_position_embeddings=40)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    texts = [torch.randint(5, 90, (size,)).tolist() for size in (7, 1, 30, 7, 12, 3)]
    longest = max(map(len, texts))
    padded = torch.tensor([text + [config.pad_token_id] * (longest - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])

    def logits_and_gradients(read):
        model.zero_grad()
        logits = read()
        logits.square().sum().backward()
        return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    known, gradients = logits_and_gradients(lambda: model(input_ids=padded, attention_mask=mask).logits)
    packed = PackedClassifier(model.train(training))  # so rare a dropout leaves nothing out
    found, others = logits_and_gradients(lambda: packed.logits(texts))
    assert known.std() > 1e-3
    assert torch.allclose(found, known, atol=1e-5)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(others[name], gradient, atol=1e-5), name


def test_dropout_leaves_out_a_share_and_keeps_the_mean():
    import torch

    from harness.scoring.packing import drop

    torch.manual_seed(1)
    states = torch.ones(400, 1001, requires_grad=True)
    found = drop(states, 0.1)
    found.sum().backward()
    assert float((found == 0).float().mean()) == pytest.approx(0.1, abs=0.002)
    assert float(found.detach().mean()) == pytest.approx(1, abs=0.002)
    assert found.unique().tolist() == pytest.approx([0, 1 / 0.9], abs=1e-4)
    assert (states.grad == found).all()
    rows = (found == 0).float() - 0.1
    assert abs(float((rows[:, :-1] * rows[:, 1:]).mean())) < 1e-3  # neighbours do not know of one another
    assert abs(float((rows[:, :-4] * rows[:, 4:]).mean())) < 1e-3


MEAN, SPREAD = 0.03, 1.5
"""What packed training may change at most: the mean of macro-F1, and its standard deviation over seeds as a ratio."""


@pytest.mark.slow
@pytest.mark.nightly
def test_packed_training_has_the_mean_and_spread_of_plain_training_over_50_seeds(shared):
    from scipy.stats import t as student
    from support.plain_finetuning import PlainTrainer

    from harness.scoring.classification import macro_f1_of
    from harness.scoring.finetuning import EncoderTrainer

    human, train = short_texts(shared, "su")
    rule, seeds = protocol(max_epochs=6, learning_rate=5e-4), range(1, 51)
    checkpoint = resolve_checkpoint(str(shared / "models" / "devenc"))
    plain, packed = PlainTrainer(checkpoint, rule), EncoderTrainer(Encoder(checkpoint), rule, packed=True)
    gold = [human.labels.index(label) for _, label in human.test]

    def score(found):
        return macro_f1_of(gold, found.argmax(axis=1), 2)

    before = [score(plain.probabilities(train, human, seed)) for seed in seeds]
    after = [score(found) for found in packed.probabilities(train, human, list(seeds))]
    print(f"macro-F1 {mean(before):.4f} +- {stdev(before):.4f} plain, {mean(after):.4f} +- {stdev(after):.4f} packed")
    # Two one-sided tests (Schuirmann 1987) of the mean difference at 5 %.
    error = stdev(b - a for a, b in zip(before, after, strict=True)) / len(before) ** 0.5
    assert abs(mean(after) - mean(before)) + student.ppf(0.95, len(before) - 1) * error < MEAN
    assert 1 / SPREAD < stdev(after) / stdev(before) < SPREAD
    assert 0.5 < mean(before) < 0.95


def short_texts(shared, code):
    """Return short sentiment texts of a language: human ones to test with, and 40 to train on."""
    rows = {
        split: [
            (row["text"], row["label"])
            for row in map(json.loads, (shared / "data/sentiment" / code / f"{split}.jsonl").open())
            if len(row["text"]) < 120
        ]
        for split in ("train", "validation", "test")
    }
    labels = sorted({label for _, label in rows["train"]})
    train = [row for label in labels for row in [r for r in rows["train"] if r[1] == label][:20]]
    return scoring_context(labels, rows["test"], validation=rows["validation"]), train
