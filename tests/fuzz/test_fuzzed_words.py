"""Whatever stands behind an option or in a suite's list, with random words: something valid, or ``UserError``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.fuzzing import ODD, changed, only_user_errors, scalars, values, words

from harness.cli.options import numbers, split
from harness.core.languages import check_known, code_forms
from harness.core.lookalikes import check_lookalikes
from harness.core.redaction import hide_secrets
from harness.data.contrast import check_code
from harness.data.suite import Suite, load_suite
from harness.methods.contract import check_name
from harness.methods.registry import load_registry, parse_methods, pick_methods
from harness.ranking.gate.calibrate import parse_tolerances

FOLDER = TemporaryDirectory()  # with a checkpoint that nothing is read of but its config
REGISTRY = load_registry()
SUITE = load_suite("mini")
NAMES = [name for name, source in REGISTRY.sources.items() if source.kind == "built in"]
ENCODER = Path(FOLDER.name) / "encoder"


@pytest.fixture(scope="module", autouse=True)
def encoder():
    """A folder that counts as an encoder, and no network."""
    import json

    import numpy as np
    from safetensors.numpy import save_file

    ENCODER.mkdir()
    (ENCODER / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    save_file({"w": np.zeros(1, dtype=np.float32)}, ENCODER / "model.safetensors")


pieces = st.sampled_from(
    [
        *ODD,
        "tfidf",
        "frozen:",
        "hf:",
        "judge:",
        "fasttext:",
        "prefix=",
        "query",
        "pooling=",
        "cls",
        "lr=",
        "epochs=",
        "seeds=",
        "name=",
        "batches=padded",
        "1",
        "1e400",
        "nan",
        "none",
        ",",
        "=",
        ":",
        "/",
        "//",
        "@",
        "?",
        "s3",
        "://",
        "bucket",
        "::",
        "file:///x",
        "memory",
        "https",
        "user",
        "٣",
        "²",
        "-",
        "1-3",
        "%",
        "macro_f1/tfidf",
    ]
)
lines = st.lists(pieces | st.text(max_size=4), max_size=7).map("".join)


@given(text=lines)
@example(text="²")
@example(text="1-٣")
def test_numbers_and_lists(text):
    split(text)
    with only_user_errors():
        assert all(isinstance(number, int) for number in numbers(text, "--seeds") or [])


@given(text=lines, rest=st.lists(lines, max_size=3))
def test_encoders_and_classifiers(text, rest):
    from harness.scoring.classifiers import open_classifier
    from harness.scoring.embeddings import open_embedding
    from harness.scoring.fasttext_identifier import open_identifier

    for kind in ("frozen", "hf"):
        spec = ",".join([f"{kind}:{ENCODER}", text, *rest])
        with only_user_errors():
            assert open_classifier(spec, SUITE.classifier_protocol).name
        with only_user_errors():
            assert open_embedding(spec).name
    assume(not text.startswith(("hf:", "frozen:")))  # the name of a model on the hub
    for open_ in (open_embedding, open_identifier, lambda spec: open_classifier(spec, SUITE.classifier_protocol)):
        with only_user_errors():
            open_(text)


@given(text=lines)
@example(text="\0")
def test_paths_of_models_and_suites(text):
    from harness.core.checkpoints import resolve_checkpoint
    from harness.core.reading import read_bytes

    assume(len(text) < 4000)  # else the system refuses the path, which the command line puts into words
    for name in (f"./{text}", f"https://{text}", f"s3:/{text}", f"{text}.gguf" if "/" in text else f"./{text}.gguf"):
        with only_user_errors():
            resolve_checkpoint(name)
    with only_user_errors():
        load_suite(text)
    with only_user_errors():
        load_suite(f"{text}.yaml")
    with only_user_errors():
        read_bytes(f"./{text}", 10)


@given(text=lines)
@example(text="memory://")
@example(text="s3://a::b")
@example(text="memory://\0/..")
def test_urls_of_storages(text):
    from harness.core.storage import Storage

    for url in (text, f"memory://{text}"):
        assume(not url.startswith(("http", "s3", "gs", "sftp", "ftp")))  # they look for a host
        with only_user_errors():
            Storage(url).pushes()


@given(text=lines | st.text(max_size=200))
def test_hidden_secrets(text):
    shown = hide_secrets(text, ())
    assert hide_secrets(shown, ()).count("***") == shown.count("***")
    assert "hunter2" not in hide_secrets(f"s3://user:hunter2@{text}", ()).replace(text, "")


@given(text=words | lines)
def test_languages_names_and_tolerances(text):
    assert code_forms(text)
    for check in (
        lambda: check_known("language", [text], ["am", "he"]),
        lambda: check_known("method", [text], NAMES),
        lambda: check_name(text),
        lambda: check_code(text, "--language"),
        lambda: SUITE.task(text, text),
        lambda: SUITE.task("topic", text),
        lambda: parse_tolerances([text]),
        lambda: REGISTRY.get(text) if text not in REGISTRY.sources else None,
    ):
        with only_user_errors():
            check()
    try:
        check_lookalikes(text)
    except ValueError as error:
        assert str(error)  # pydantic makes a message of it


OPTIONS = (
    st.sampled_from(["layer", "strength", "of", "options", "positions", "top", "n_layers", "languages", "seed"]) | words
)


@given(
    name=st.sampled_from(NAMES),
    options=st.dictionaries(OPTIONS, scalars | st.lists(scalars, max_size=3) | values, max_size=3),
)
def test_options_of_methods(name, options):
    with only_user_errors():
        for method in parse_methods(REGISTRY, [{name: options}]):
            assert method.identity.model_dump_json()


@given(specs=st.data())
def test_lists_of_methods_in_a_suite(specs):
    body = specs.draw(changed(SUITE.dump()["methods"]))
    with only_user_errors():
        try:
            suite = Suite.model_validate({**SUITE.dump(), "methods": body, "definitions": {}})
        except ValueError:  # pydantic's, which load_suite puts into words
            return
        parse_methods(REGISTRY, suite.methods)
        parse_methods(REGISTRY, pick_methods(suite.methods, ["clas", "random"]))


TEMPLATES = st.lists(
    st.sampled_from(
        [
            "{{ messages }}",
            "{% for m in messages %}",
            "{{ m['content'] }}",
            "{% endfor %}",
            "{{ m.role }}",
            "{% if x %}",
            "{% endif %}",
            "{{ strftime_now('%Y') }}",
            "{{ raise_exception('no') }}",
            "{{ ''.__class__.__mro__ }}",
            "{{ 1/0 }}",
            "{% include 'x' %}",
            "{{ m['content'][0]['text'] }}",
            "{{ namespace(a=1).a }}",
            "{{ range(10) | list }}",
            "{{",
            "%}",
            "ሰላም",
            "{# שלום #}",
        ]
    )
    | st.text(max_size=5),
    max_size=6,
).map("".join)


@given(template=TEMPLATES | st.dictionaries(st.sampled_from(["default", "tool_use", "x"]), TEMPLATES, max_size=2))
def test_chat_templates(template):
    from harness.data.prompts import Prompt
    from harness.engine.chat import chat_record, chat_use, render

    tokenizer = bare_tokenizer()
    tokenizer.chat_template = template
    with only_user_errors():
        chat_use(tokenizer)
        chat_record(tokenizer, SUITE.sampling)
        render(tokenizer, Prompt("ሰላም", system="שלום"))


_TOKENIZERS = []


def bare_tokenizer():
    if not _TOKENIZERS:
        from support.helpers import byte_tokenizer
        from transformers import PreTrainedTokenizerFast

        _TOKENIZERS.append(PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(["<s>"]), bos_token="<s>"))
    return _TOKENIZERS[0]
