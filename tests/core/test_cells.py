"""A cell's name is its identity: it holds all that decides its texts, and nothing that does not."""

from __future__ import annotations

import hashlib

import pytest
from support.helpers import MODEL, key, method

from harness.cli.root import is_shown
from harness.core.cells import cell_id, entry_id, entry_of, sampling_key, steering_id
from harness.core.errors import UserError
from harness.data.corpus import Corpus
from harness.data.sources import open_data
from harness.data.suite import load_suite
from harness.methods.registry import load_registry, parse_methods
from harness.runner.plan import plan_cells, select_cells

CANONICAL = (
    '{"data":"d","language":"am","method":{"config":{},"name":"zero-shot","version":"1"},'
    '"model":{"dtype":"float32","fingerprint":"f00d","name":"toy","revision":null},'
    '"seed":1,"setting":"zero-shot","suite":"toy","task":"sentiment","text_protocol":"p",'
    '"texts_per_label":2}'
)
OTHER_MODEL = MODEL.model_copy(update={"fingerprint": "beef"})
CHANGES = [
    {"suite": "other"},
    {"text_protocol": "q"},
    {"data": "e"},
    {"model": None},
    {"model": OTHER_MODEL},
    {"model": MODEL.model_copy(update={"name": "boy"})},
    {"model": MODEL.model_copy(update={"revision": "abc"})},
    {"model": MODEL.model_copy(update={"dtype": "bfloat16"})},
    {"model": MODEL.model_copy(update={"engine": "vllm"})},
    {"method": method("few-shot")},
    {"method": method(version="2")},
    {"method": method(strength=0.2)},
    {"task": "topic"},
    {"language": "he"},
    {"setting": "few-shot"},
    {"seed": 2},
    {"texts_per_label": 3},
]


# Names


def test_the_id_of_a_cell_is_the_hash_of_its_canonical_json():
    assert cell_id(key()) == hashlib.sha256(CANONICAL.encode()).hexdigest()[:16]


def test_the_id_of_a_cell_never_changes():
    assert cell_id(key()) == "35bac5794a53759a"


def test_every_field_of_the_key_counts():
    assert {field for change in CHANGES for field in change} == set(type(key()).model_fields)


def test_a_fit_serves_the_texts_of_every_engine():
    served = MODEL.model_copy(update={"engine": "vllm"})
    assert steering_id(key(model=served)) == steering_id(key())
    assert entry_id(entry_of(key(model=served))) != entry_id(entry_of(key()))
    assert "engine" not in MODEL.model_dump_json()
    assert type(MODEL).model_validate_json(served.model_dump_json()) == served


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_change_of_what_decides_the_texts_changes_the_id(change):
    assert cell_id(key(**change)) != cell_id(key())


def test_the_order_of_config_fields_changes_no_id():
    one, two = key(method=method(a=1, b=2)), key(method=method(b=2, a=1))
    assert cell_id(one) == cell_id(two)


def test_a_board_row_joins_tasks_languages_and_seeds():
    row = entry_id(entry_of(key()))
    assert row == entry_id(entry_of(key(task="topic", language="he", seed=3, texts_per_label=50)))
    assert row != entry_id(entry_of(key(setting="few-shot")))
    assert row != entry_id(entry_of(key(method=method(strength=1.0))))
    assert row != entry_id(entry_of(key(model=OTHER_MODEL)))


def test_one_fit_serves_all_seeds_and_settings():
    name = steering_id(key())
    assert name == steering_id(key(seed=2, setting="few-shot", texts_per_label=9))
    for change in ({"language": "he"}, {"task": "topic"}, {"data": "e"}, {"model": OTHER_MODEL}):
        assert name != steering_id(key(**change))


# Noise


def test_the_noise_of_a_draw_comes_from_its_name():
    name = hashlib.sha256(b"1/sentiment/am/positive/0/0").digest()
    assert sampling_key(key(), "positive", 0, 0) == int.from_bytes(name[:8], "big")


@pytest.mark.parametrize(
    "change",
    [
        {"method": method("language", strength=2.0)},
        {"model": OTHER_MODEL},
        {"setting": "few-shot"},
        {"texts_per_label": 50},
        {"data": "e"},
    ],
    ids=str,
)
def test_all_methods_and_models_get_the_same_noise(change):
    assert sampling_key(key(**change), "positive", 3, 1) == sampling_key(key(), "positive", 3, 1)


def test_no_two_draws_share_their_noise():
    keys = [key(seed=s, task=t, language=c) for s in (1, 11) for t in ("a", "b") for c in ("am", "he")]
    draws = [
        sampling_key(k, label, i, attempt)
        for k in keys
        for label in ("positive", "negative")
        for i in (0, 1, 10)
        for attempt in (0, 1)
    ]
    assert len(set(draws)) == len(draws) == 8 * 2 * 3 * 2


# Selection


def test_a_full_selection_is_not_marked():
    chosen = select_cells(load_suite("steer11"))
    assert chosen.narrowed == []
    assert chosen.texts_per_label == {"sentiment": 50, "topic": 20}


def test_a_narrowed_selection_says_so_in_words():
    chosen = select_cells(load_suite("steer11"), languages=["he", "am"], tasks=["topic"], seeds=[2], limit=4)
    assert chosen.narrowed == [
        "2 of 11 languages (am, he)",
        "1 of 2 tasks (topic)",
        "1 of 3 seeds (2)",
        "4 of 20 texts per topic label",
    ]


def test_a_selection_keeps_the_order_of_the_suite_and_each_value_once():
    chosen = select_cells(load_suite("steer11"), languages=["su", "am", "su"], seeds=[3, 1])
    assert (chosen.languages, chosen.seeds) == (["am", "su"], [1, 3])


def test_a_limit_narrows_only_what_is_larger():
    chosen = select_cells(load_suite("steer11"), limit=30)
    assert chosen.texts_per_label == {"sentiment": 30, "topic": 20}
    assert chosen.narrowed == ["30 of 50 texts per sentiment label"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"languages": ["xx"]}, "unknown language 'xx'; valid: am, cs,"),
        ({"languages": ["en"]}, "unknown language 'en'"),
        ({"tasks": ["topics"]}, "unknown task 'topics'.*Did you mean 'topic'"),
        ({"settings": ["none"]}, "unknown setting 'none'"),
        ({"seeds": [4]}, "unknown seed '4'; valid: 1, 2, 3"),
        ({"limit": 0}, "--limit 0 is too small"),
    ],
)
def test_a_value_that_the_suite_does_not_hold_is_one_clear_error(options, words):
    with pytest.raises(UserError, match=words):
        select_cells(load_suite("mini"), **options)


# Plan


@pytest.fixture(scope="module")
def planned():
    """Plan cells of the mini suite: call it with the options of ``select_cells`` and a list of methods."""
    suite = load_suite("mini")
    corpus = Corpus(suite, open_data(suite, None))

    def make(methods=None, model=MODEL, **options):
        configured = parse_methods(load_registry(), methods or suite.methods)
        return plan_cells(suite, select_cells(suite, **options), configured, model, corpus)

    return make


def test_the_mini_suite_has_792_cells(planned):
    cells = planned()
    assert len(cells) == 11 * 2 * 3 * 12  # languages, tasks, seeds; rows: 4 unsteered or human, 4 x 2 steered
    assert len({cell.id for cell in cells}) == len(cells)


def test_the_demo_has_every_method_language_task_and_seed_but_few_shot_prompts_only_in_their_baseline(planned):
    cells, shown = planned(), [cell for cell in planned() if is_shown(cell)]
    assert len(shown) == 11 * 2 * 3 * 8
    for part in (lambda key: key.method.name, lambda key: (key.language, key.task, key.seed)):
        assert {part(cell.key) for cell in shown} == {part(cell.key) for cell in cells}
    assert {cell.key.method.name for cell in shown if cell.key.setting == "few-shot"} == {"few-shot"}


def test_each_method_runs_in_its_own_settings(planned):
    cells = planned(languages=["am"], tasks=["topic"], seeds=[1])
    assert [(cell.key.method.name, cell.key.setting) for cell in cells] == [
        ("zero-shot", "zero-shot"),
        ("few-shot", "few-shot"),
        ("language", "zero-shot"),
        ("language", "few-shot"),
        ("quality", "zero-shot"),
        ("quality", "few-shot"),
        ("clas", "zero-shot"),
        ("clas", "few-shot"),
        ("learned", "zero-shot"),
        ("learned", "few-shot"),
        ("human", "none"),
        ("constant", "none"),
    ]


def test_a_narrowed_setting_leaves_references_in(planned):
    cells = planned(languages=["am"], tasks=["topic"], seeds=[1], settings=["few-shot"])
    assert [cell.key.method.name for cell in cells] == [
        "few-shot",
        "language",
        "quality",
        "clas",
        "learned",
        "human",
        "constant",
    ]


def test_references_belong_to_no_model(planned):
    cells = planned(languages=["am"], tasks=["topic"], seeds=[1])
    assert {c.key.method.name for c in cells if c.key.model is None} == {"human", "constant"}


def test_a_list_of_values_is_a_sweep(planned):
    sweep = [{"language": {"strength": [0.1, 0.2], "layer": [1, 0.5]}}]
    cells = planned(methods=sweep, languages=["am"], tasks=["topic"], seeds=[1], settings=["zero-shot"])
    points = [(cell.key.method.config["strength"], cell.key.method.config["layer"]) for cell in cells]
    assert points == [(0.1, 1), (0.1, 0.5), (0.2, 1), (0.2, 0.5)]


def test_a_method_that_needs_a_model_says_so(planned):
    with pytest.raises(UserError, match=r"method 'zero-shot' needs a model\. Give --model"):
        planned(model=None)


def test_references_need_no_model(planned):
    assert len(planned(methods=["human"], model=None)) == 11 * 2 * 3


def test_a_cell_is_called_by_what_it_is(planned):
    [cell] = planned(methods=["human"], languages=["am"], tasks=["topic"], seeds=[1])
    assert cell.title == "human/none/topic/am/seed 1"
