"""Embeddings: tf-idf against weights worked out by hand, encoders against themselves without batches."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from support.helpers import byte_tokenizer, toy_encoder

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UserError
from harness.scoring import embeddings
from harness.scoring.embeddings import EncoderEmbedding, Pooler, TfidfEmbedding, open_embedding
from harness.scoring.encoders import open_encoder
from harness.scoring.scorer import ScoringContext

TEXTS = [
    "ምግቡ በጣም ጥሩ ነበር።",
    "האוכל היה טעים מאוד.",
    "a",
    "ሰላም",
    "a longer text of plain letters, longer than all the others by far",
    "שלום עולם",
]


def context(*train: str) -> ScoringContext:
    """Return a context with human train text and nothing else."""
    rows = [(text, "x") for text in train]
    return ScoringContext("sentiment", "am", ["x"], rows, [], [], "", [], {}, {})


def cosines(rows) -> np.ndarray:
    found = rows @ rows.T
    return found if isinstance(found, np.ndarray) else found.toarray()


# Character tf-idf


@pytest.mark.parametrize("train", [TEXTS, []], ids=["human text", "no human text"])
def test_rows_have_length_one_and_texts_equal_themselves(train):
    found = cosines(TfidfEmbedding().embed([*TEXTS, TEXTS[0]], context(*train)))
    assert np.diag(found) == pytest.approx(1.0)
    assert found[0, -1] == pytest.approx(1.0)
    assert (found >= 0).all()


def plain_tfidf(text: str, human: list[str]) -> dict[str, float]:
    """Return the vector of a text by the definition, not scaled."""

    def grams(given: str) -> Counter[str]:
        return Counter(given[i : i + n] for n in (2, 3, 4, 5) for i in range(len(given) - n + 1))

    held = Counter(gram for given in human for gram in set(grams(given)))
    idf = {gram: 1 + math.log((1 + len(human)) / (1 + held[gram])) for gram in grams(text)}
    return {gram: (1 + math.log(n)) * idf[gram] for gram, n in grams(text).items()}


def test_cosines_are_those_of_the_definition():
    human = ["ሰላም ለዓለም ሰላም", "ሰላም ነው ወይ", "שלום עולם שלום"]
    texts = ["ሰላም ለሁሉም ሰላም", "ሰላም ነው ወይ", "שלום לכולם", "something else"]
    found = cosines(TfidfEmbedding().embed(texts, context(*human)))
    vectors = [plain_tfidf(text, human) for text in texts]
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors):
            product = sum(a[gram] * b.get(gram, 0.0) for gram in a)
            lengths = math.hypot(*a.values()) * math.hypot(*b.values())
            assert found[i, j] == pytest.approx(product / lengths, abs=2e-3)  # columns are hashes
    assert found[0, 1] > 0.1 > found[0, 2]


def test_other_human_text_gives_other_weights_and_comes_back():
    embedding = TfidfEmbedding()
    first, second = context("ሰላም ለዓለም", "ሰላም"), context("שלום עולם")
    texts = ["ሰላም ለዓለም", "ሰላም ነው"]
    before = cosines(embedding.embed(texts, first))
    assert (cosines(embedding.embed(texts, second)) != before).any()
    assert (cosines(embedding.embed(texts, first)) == before).all()
    assert (cosines(TfidfEmbedding().embed(texts, first)) == before).all()


def test_case_and_stored_form_of_accents_do_not_matter():
    rows = TfidfEmbedding().embed(["Caf\u00e9  noir", "cafe\u0301 NOIR"], context())
    assert cosines(rows)[0, 1] == pytest.approx(1.0)


def test_text_without_content_is_a_row_of_zeros():
    rows = TfidfEmbedding().embed(["", " \n", "ሰላም"], context("ሰላም"))
    assert np.diag(cosines(rows)) == pytest.approx([0.0, 0.0, 1.0])
    assert TfidfEmbedding().embed([], context("ሰላም")).shape[0] == 0


def test_half_a_surrogate_pair_is_a_character_like_any_other():
    rows = TfidfEmbedding().embed(["a\ud800b", "a\ud800b"], context("\udfff"))
    assert cosines(rows)[0, 1] == pytest.approx(1.0)


# Encoders


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """An encoder with random weights: a token per byte, up to 128."""
    return toy_encoder(tmp_path_factory.mktemp("encoder"))


def opened(folder, options=""):
    return open_encoder(f"hf:{folder}{options}")


@pytest.fixture
def pooler(toy):
    return Pooler(opened(toy))


@pytest.fixture(params=["toy", "devenc"])
def folder(request, toy):
    """The toy encoder, and the stand-in that has learned something."""
    return toy if request.param == "toy" else request.getfixturevalue("shared") / "models" / "devenc"


def test_neither_batch_size_nor_order_changes_a_vector(folder, monkeypatch):
    encoder = opened(folder)
    together = Pooler(encoder).embed(TEXTS)
    assert together.dtype == np.float32
    assert np.abs(together).max() > 0.1
    backwards = Pooler(encoder).embed(TEXTS[::-1])[::-1]
    single = Pooler(encoder)
    alone = np.concatenate([single.embed([text]) for text in TEXTS])
    monkeypatch.setattr(embeddings, "_BATCH", 2)
    pairs = Pooler(encoder).embed(TEXTS)
    for other in (backwards, alone, pairs):
        assert other == pytest.approx(together, abs=1e-5)


def test_a_vector_is_the_mean_of_the_states_of_all_tokens(pooler):
    inputs = pooler.tokenizer(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        states = pooler.model(**inputs).last_hidden_state[0]
    found = pooler.embed(TEXTS)[0]
    assert found == pytest.approx(states.mean(dim=0).numpy(), abs=1e-5)
    assert inputs["input_ids"].shape[1] == len(TEXTS[0].encode()) + 2  # the special tokens count


def test_what_a_pad_holds_does_not_matter(toy):
    clean, poisoned = (Pooler(opened(toy)) for _ in range(2))
    words = poisoned.model.get_input_embeddings()
    with torch.no_grad():
        words.weight[poisoned.tokenizer.pad_token_id] = 1e4
    assert poisoned.embed(TEXTS) == pytest.approx(clean.embed(TEXTS), abs=1e-5)


def test_longer_texts_lose_their_end(toy, tmp_path):
    encoder = opened(toy)
    long = "שלום עולם " * 100
    assert Pooler(encoder).longest == 128
    assert Pooler(encoder, max_tokens=20).longest == 20
    short = Pooler(encoder, max_tokens=20).embed([long, long[:30]])
    assert short[0] == pytest.approx(short[1], abs=1e-5)
    folder = shutil.copytree(toy, tmp_path / "silent")  # its tokenizer does not say where to cut
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 10**30}))
    silent = Pooler(opened(folder))
    assert silent.longest == 128
    assert silent.embed([long]) == pytest.approx(Pooler(encoder).embed([long]))


def test_blank_texts_are_zeros_and_no_texts_no_rows(pooler):
    found = pooler.embed(["", "ሰላም", " \n"])
    assert (found[[0, 2]] == 0).all()
    assert np.abs(found[1]).max() > 0.1
    assert pooler.embed([]).shape == (0, 32)
    assert pooler.embed([" "]).shape == (1, 32)


def test_a_text_is_read_once_while_it_is_remembered(pooler, monkeypatch):
    read = []
    forward = pooler.model.forward
    monkeypatch.setattr(
        pooler.model,
        "forward",
        lambda **inputs: (read.append(len(inputs["input_ids"])), forward(**inputs))[1],
    )
    first = pooler.embed(["ሰላም", "שלום", "ሰላም"])
    assert read == [2]
    assert (pooler.embed(["שלום", "ሰላም"]) == first[[1, 0]]).all()
    assert read == [2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEERBOARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def new_pooler(folder, read, **settings):
    """Return a pooler that notes in ``read`` how many texts every batch has."""
    made = Pooler(opened(folder), **settings)
    made.model.register_forward_pre_hook(lambda _, __, inputs: read.append(len(inputs["input_ids"])), with_kwargs=True)
    return made


def test_cached_vectors_are_those_of_the_texts_and_read_only_once(toy, cache):
    read = []
    texts = [*TEXTS, "", TEXTS[0]]
    first = new_pooler(toy, read).embed_cached(texts)
    assert read == [len(TEXTS)]
    assert (first == new_pooler(toy, []).embed(texts)).all()
    assert (first == new_pooler(toy, read).embed_cached(texts)).all()
    assert read == [len(TEXTS)]
    assert len(list(cache.iterdir())) == 1


def test_cached_vectors_do_not_depend_on_what_was_read_before(toy, cache):
    first = new_pooler(toy, []).embed_cached(TEXTS)
    shutil.rmtree(cache)
    other = new_pooler(toy, [])
    other.embed(TEXTS[:2])
    assert (other.embed_cached(TEXTS) == first).all()


def test_other_texts_models_and_lengths_have_their_own_cached_vectors(toy, cache, tmp_path):
    read, other = [], toy_encoder(tmp_path / toy.name, seed=1)
    new_pooler(toy, read).embed_cached(TEXTS[:2])
    new_pooler(toy, read).embed_cached(TEXTS[1::-1])
    new_pooler(toy, read, max_tokens=5).embed_cached(TEXTS[:2])
    new_pooler(other, read).embed_cached(TEXTS[:2])
    assert read == [2] * 4
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["flip", "cut", "foreign", "shape"])
def test_damaged_cached_vectors_are_made_again_with_a_warning(toy, cache, damage, capsys):
    from harness.core.tensors import save_tensors

    read = []
    whole = new_pooler(toy, read).embed_cached(TEXTS)
    [path] = cache.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "shape":
        save_tensors(path, {"vectors": whole[1:]}, "features", {})
    else:
        data[-5] ^= 1
        path.write_bytes({"flip": bytes(data), "cut": data[:-9], "foreign": b"[]"}[damage])
    assert (new_pooler(toy, read).embed_cached(TEXTS) == whole).all()
    assert f"{path} was edited or damaged; its sentence vectors are computed again" in capsys.readouterr().err
    assert (new_pooler(toy, read).embed_cached(TEXTS) == whole).all()
    assert read == [len(TEXTS)] * 2


def test_a_cache_that_cannot_be_written_stops_nothing(toy, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STEERBOARD_CACHE", str(tmp_path / "file"))
    assert new_pooler(toy, []).embed_cached(TEXTS).shape == (len(TEXTS), 32)
    assert "sentence vectors are not cached: cannot write" in capsys.readouterr().err


def test_a_second_scoring_process_reads_no_test_text(toy, cache):
    script = """
import sys
sys.path.insert(0, "tests")
from support.helpers import scoring_context
from harness.data.suite import load_suite
from harness.scoring.classifiers import open_classifier
classifier = open_classifier(f"frozen:{sys.argv[1]}", load_suite("mini").classifier_protocol)
seen, pooler = [], classifier._pooler()
plain = pooler._pooled
pooler._pooled = lambda texts: (seen.extend(texts), plain(texts))[1]
test = [("\u1218\u1325\u134e \u12d3\u1223", "bad"), ("\u05d3\u05d2 \u05d8\u05e2\u05d9\u05dd", "good")]
train = [("aaaa", "bad"), ("zzzz", "good")]
found = classifier.probabilities(train, scoring_context(["bad", "good"], test), [0])
print(len(seen), found.tolist())
"""
    command = [sys.executable, "-c", script, str(toy)]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first.startswith("4 [[[")
    assert second == "2" + first[1:]


def test_only_the_last_texts_are_remembered(pooler, monkeypatch):
    monkeypatch.setattr(embeddings, "_REMEMBERED", 2)
    whole = pooler.embed(TEXTS)  # more than it remembers, and yet a row for each
    assert whole.shape == (len(TEXTS), 32)
    assert len(pooler._known) == 2
    pooler.embed(["ሰላም", "שלום"])
    pooler.embed(["ሰላም", "x"])
    assert sorted(pooler._known) == ["x", "ሰላም"]


def test_loading_leaves_the_global_random_numbers_alone(toy):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Pooler(opened(toy))
    assert (torch.rand(2) == expected).all()


def test_the_encoder_of_a_translation_model_is_read_alone(tmp_path):
    from transformers import PreTrainedTokenizerFast, T5Config, T5Model

    special = ["<pad>", "</s>"]
    tokens = {"pad_token": "<pad>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(special), **tokens).save_pretrained(tmp_path)
    config = T5Config(vocab_size=258, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4)
    T5Model(config).save_pretrained(tmp_path)
    pooler = Pooler(opened(tmp_path))
    alone = np.concatenate([pooler.embed([text]) for text in TEXTS[:2]])
    assert Pooler(opened(tmp_path)).embed(TEXTS)[:2] == pytest.approx(alone, abs=1e-5)


def test_a_folder_without_the_weights_is_refused(toy, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(toy, tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    kept = {name: array for name, array in weights.items() if "layer.0.attention" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"half is not an encoder: no weights for .*attention.* and 9 more"):
        Pooler(opened(folder))


def test_encoder_rows_have_length_one_or_zero(toy):
    embedding = open_embedding(f"hf:{toy}")
    rows = embedding.embed([*TEXTS, ""], context())
    assert rows.dtype == np.float64
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1.0] * len(TEXTS) + [0.0])


def test_devenc_lays_translations_closer_than_other_sentences(shared):
    embedding = open_embedding(f"hf:{shared / 'models' / 'devenc'}")

    def sentences(language: str) -> list[str]:
        lines = (shared / "data" / "parallel" / f"{language}.jsonl").read_text().splitlines()[:60]
        return [json.loads(line)["text"] for line in lines]

    english = embedding.embed(sentences("en"), context())
    for language in ("am", "he"):
        found = embedding.embed(sentences(language), context()) @ english.T
        others = found[~np.eye(60, dtype=bool)]
        assert np.diag(found).mean() > others.mean() + others.std()


# By name


def test_embeddings_are_opened_by_name(toy):
    assert open_embedding("tfidf").name == "tfidf"
    found = open_embedding(f"hf:{toy}")
    assert isinstance(found, EncoderEmbedding)
    assert found.name == f"hf:{toy.name}"
    assert found.signature.startswith(f"hf:{toy.name}@{resolve_checkpoint(str(toy)).fingerprint}|mean-pooled|")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tf-idf", r"unknown embedding 'tf-idf'; valid: hf:PATH_OR_ID, tfidf\. Did you mean 'tfidf'\?"),
        ("hf:", "unknown embedding 'hf:'"),
        ("hf:/no/such/folder", "the model folder /no/such/folder does not exist"),
    ],
)
def test_unknown_embeddings_are_refused_in_one_line(spec, message):
    with pytest.raises(UserError, match=message) as refused:
        open_embedding(spec)
    assert "\n" not in str(refused.value)
