"""Encoders by name: prefix and pooling, from options or from a checkpoint's own files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from support.helpers import scoring_context, toy_encoder

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UserError
from harness.data.suite import load_suite
from harness.scoring.classifiers import open_classifier
from harness.scoring.embeddings import Pooler, open_embedding
from harness.scoring.encoders import open_encoder

PROTOCOL = load_suite("mini").classifier_protocol
TEXTS = ["ሰላም ለዓለም", "שלום עולם", "x"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """An encoder with random weights: a token per byte, up to 128."""
    return toy_encoder(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture
def own(toy, tmp_path):
    """Return a function that makes a copy of the encoder with files of sentence-transformers."""

    def make(prompts=None, pooling=None):
        folder = shutil.copytree(toy, tmp_path / "own")
        if prompts is not None:
            (folder / "config_sentence_transformers.json").write_text(
                prompts if isinstance(prompts, str) else json.dumps(prompts)
            )
        if pooling is not None:
            (folder / "1_Pooling").mkdir()
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        return folder

    return make


def opened(folder, options=""):
    return open_encoder(f"frozen:{folder}{options}")


def vectors(folder, options="", texts=TEXTS, **settings):
    return Pooler(opened(folder, options), **settings).embed(texts)


# Options


@pytest.mark.parametrize("text", ["query", "query:", "query: "])
def test_a_prefix_comes_before_every_text(toy, text):
    found = vectors(toy, f",prefix={text}")
    assert opened(toy, f",prefix={text}").prefix == "query: "
    assert (found == vectors(toy, texts=[f"query: {text}" for text in TEXTS])).all()
    assert np.abs(found - vectors(toy)).max() > 0.01


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("ጥያቄ", "ጥያቄ: "), ("שאלה:", "שאלה: "), ("a=b", "a=b: "), ("检索：", "检索："), ("query ", "query "), ("none", "")],
)
def test_other_prefixes_are_taken_as_they_are_typed(toy, text, prefix):
    assert opened(toy, f",prefix={text}").prefix == prefix


def test_prefix_and_pooling_are_part_of_name_and_signature(toy):
    fingerprint = resolve_checkpoint(str(toy)).fingerprint
    classifier = open_classifier(f"frozen:{toy},prefix=query: ,pooling=cls", PROTOCOL)
    assert classifier.name == "frozen:toy,pooling=cls,prefix=query"
    assert classifier.signature.startswith(f'frozen:toy@{fingerprint}|cls-pooled|prefix:"query: "|tokens:512|')
    embedding = open_embedding(f"hf:{toy},prefix=query")
    assert embedding.name == "hf:toy,prefix=query"
    assert embedding.signature == f'hf:toy@{fingerprint}|mean-pooled|prefix:"query: "|tokens:512|version:1'


def test_without_options_names_and_signatures_are_those_of_earlier_versions(toy):
    fingerprint = resolve_checkpoint(str(toy)).fingerprint
    embedding = open_embedding(f"hf:{toy}")
    assert (embedding.name, embedding.signature) == ("hf:toy", f"hf:toy@{fingerprint}|mean-pooled|tokens:512|version:1")
    explicit = open_embedding(f"hf:{toy},pooling=mean,prefix=none")
    assert explicit.signature == embedding.signature
    tuned = open_classifier(f"hf:{toy}", PROTOCOL)
    assert tuned.signature.startswith(f"hf:toy@{fingerprint}|dropout:")


@pytest.mark.parametrize(("pooling", "index"), [("cls", 0), ("last", -1)])
def test_a_vector_is_the_state_of_one_token_also_in_a_batch_with_pads(toy, pooling, index):
    pooler = Pooler(opened(toy, f",pooling={pooling}"))
    found = pooler.embed(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            states = pooler.model(**pooler.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert row == pytest.approx(states[index].numpy(), abs=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_long_texts_lose_their_end_and_keep_the_prefix(toy, tmp_path, side):
    folder = shutil.copytree(toy, tmp_path / "cut")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "truncation_side": side}))
    long, other = vectors(folder, ",prefix=query", ["ab" * 50, "ab" * 8 + "z" * 50], max_tokens=20)
    assert long == pytest.approx(other, abs=1e-5)  # query: and eleven letters
    assert long == pytest.approx(vectors(folder, texts=["query: " + "ab" * 5 + "a"], max_tokens=20)[0], abs=1e-5)


def test_blank_texts_stay_zeros_and_half_a_surrogate_pair_is_read(toy):
    found = vectors(toy, ",prefix=query", ["", " \n", "a\ud800b"])
    assert (found[:2] == 0).all()
    assert (found[2] == vectors(toy, ",prefix=query", ["a?b"])[0]).all()


def test_another_prefix_or_pooling_has_its_own_cached_vectors(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERBOARD_CACHE", str(tmp_path))
    found = [
        Pooler(opened(toy, options)).embed_cached(TEXTS)
        for options in ("", ",prefix=query", ",prefix=passage", ",pooling=cls", ",pooling=cls,prefix=query")
    ]
    assert len(list((tmp_path / "features").iterdir())) == 5
    assert all(np.abs(one - other).max() > 1e-3 for i, one in enumerate(found) for other in found[:i])


def test_fine_tuning_reads_train_and_test_text_with_the_prefix(toy):
    spec = f"hf:{toy},epochs=1,prefix=query,seeds=1"
    classifier = open_classifier(spec, PROTOCOL)
    assert classifier.name == "hf:toy,epochs=1,prefix=query,seeds=1"
    assert '|prefix:"query: "|dropout:' in classifier.signature
    rows = [("ጥሩ", "good"), ("መጥፎ", "bad"), ("טעים", "good"), ("גרוע", "bad")]

    def probabilities(spec, prefix):
        put = [(prefix + text, label) for text, label in rows]
        human = scoring_context(["bad", "good"], put, validation=put)
        return open_classifier(spec, PROTOCOL).probabilities(put, human, [1])

    assert (probabilities(spec, "") == probabilities(f"hf:{toy},epochs=1,seeds=1", "query: ")).all()


def test_a_local_copy_goes_by_the_name_that_a_suite_has(toy):
    spec = f"frozen:{toy},name=intfloat/multilingual-e5-small,prefix=query"
    classifier = open_classifier(spec, PROTOCOL)
    assert classifier.name == "frozen:intfloat/multilingual-e5-small,prefix=query"
    fingerprint = resolve_checkpoint(str(toy)).fingerprint
    assert classifier.signature.startswith(f"frozen:intfloat/multilingual-e5-small@{fingerprint}|")


def test_a_hub_id_that_cannot_be_downloaded_says_how_to_give_a_copy(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as refused:
        opened("nobody/no-such-encoder", ",prefix=query")
    assert str(refused.value).endswith(
        "For a local copy under its name, give frozen:FOLDER,name=nobody/no-such-encoder,prefix=query."
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (",pooling=max", r"unknown pooling 'max'; valid: cls, last, mean\. In 'frozen:"),
        (",pooling=", r"unknown pooling ''"),
        (",prefix=", r"the prefix is empty\. Give it as prefix=query, or prefix=none\."),
        (",prefix= ", "the prefix is empty"),
        (",prefix", "the prefix is empty"),
        (",prefix=a\nb", "the prefix has line breaks or invisible characters"),
        (",prefix=a\u202eb", "the prefix has line breaks or invisible characters"),
        (",prefix=a\ud800b", "the prefix has line breaks or invisible characters"),
        (f",prefix={'a' * 1001}", "the prefix has more than 1000 characters"),
        (",prefix=a,prefix=b", "has the option 'prefix' twice"),
        (",prefx=a", r"unknown option 'prefx'; valid: name, pooling, prefix\. Did you mean 'prefix'\?"),
        (",name=../e5", r"'\.\./e5' is not the id of a model\. Give OWNER/NAME"),
        (",name=", "'' is not the id of a model"),
    ],
)
def test_a_bad_option_is_one_clear_error(toy, options, words):
    with pytest.raises(UserError, match=words) as refused:
        opened(toy, options)
    assert "\n" not in str(refused.value)


def test_a_prefix_that_leaves_no_room_is_refused(toy):
    with pytest.raises(
        UserError, match=r"the prefix 'aaaa.* fills the 20 tokens that the encoder reads\. Shorten it\."
    ):
        vectors(toy, f",prefix={'a' * 40}", max_tokens=20)


def test_a_fine_tuned_encoder_has_no_pooling(toy):
    with pytest.raises(UserError, match=r"is read by its classification head\. Leave out pooling=, or use frozen:"):
        open_classifier(f"hf:{toy},pooling=cls", PROTOCOL)


# Files of sentence-transformers

PROMPTS = {"prompts": {"query": "Instruct: find\nQuery: ", "passage": ""}, "default_prompt_name": "query"}


def test_a_checkpoint_is_read_as_its_own_files_say(own):
    folder = own(PROMPTS, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True})
    found = opened(folder)
    assert (found.prefix, found.pooling, found.name) == ("Instruct: find\nQuery: ", "cls", "own")
    assert '|cls-pooled|prefix:"Instruct: find\\nQuery: "' in found.signature


def test_options_override_a_checkpoints_own_files(own):
    folder = own(PROMPTS, {"pooling_mode_lasttoken": True})
    assert opened(folder).pooling == "last"
    assert opened(folder, ",pooling=mean").pooling == "mean"
    assert opened(folder, ",prefix=none").prefix == ""
    assert opened(folder, ",prefix=passage").prefix == ""
    assert opened(folder, ",prefix=query").prefix == "Instruct: find\nQuery: "
    assert opened(folder, ",prefix=topic:").prefix == "topic: "
    with pytest.raises(UserError, match=r"unknown prompt 'qury'; valid: none, passage, query\. Did you mean 'query'\?"):
        opened(folder, ",prefix=qury")


def test_fine_tuning_leaves_the_prompts_alone_unless_one_is_asked_for(own):
    folder = own(PROMPTS, {"pooling_mode_cls_token": True})
    assert "prefix" not in open_classifier(f"hf:{folder}", PROTOCOL).signature
    assert "Instruct" in open_classifier(f"hf:{folder},prefix=query", PROTOCOL).signature


def test_prompts_without_a_default_are_only_offered(own):
    assert opened(own({"prompts": {"query": "q: "}, "default_prompt_name": None})).prefix == ""


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ("{", r"own/config_sentence_transformers\.json"),
        ("[]", r"own/config_sentence_transformers\.json"),
        ({"prompts": ["query: "]}, "has prompts that are not texts by name"),
        ({"prompts": {"query": 1}}, "has prompts that are not texts by name"),
        ({"prompts": {"query": "a\u202eb"}}, "has a prompt that has line breaks or invisible characters"),
        ({"prompts": {"query": "q" * 1001}}, "has a prompt that has more than 1000 characters"),
        ({"prompts": {}, "default_prompt_name": "query"}, "names a default prompt that it does not have"),
        ({"default_prompt_name": 1}, "names a default prompt that it does not have"),
    ],
)
def test_damaged_prompts_are_one_clear_error(own, prompts, words):
    with pytest.raises(UserError, match=words) as refused:
        opened(own(prompts))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode": "weightedmean"},
        {"word_embedding_dimension": 32},
    ],
)
def test_another_pooling_is_refused_unless_one_is_chosen(own, pooling):
    folder = own(pooling=pooling)
    with pytest.raises(UserError, match=r"names another pooling than mean, cls or last\. Give pooling=\."):
        opened(folder)
    assert opened(folder, ",pooling=mean").pooling == "mean"


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_the_newer_form_of_the_pooling_file_is_read(own, mode):
    assert opened(own(pooling={"pooling_mode": mode})).pooling == mode.removesuffix("token")
