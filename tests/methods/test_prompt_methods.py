"""The prompting rivals: what they ask, what they read of answers, and how they are steered by another method."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from support.contexts import PARALLEL, context, prompt_context, sentences
from support.translation_models import nllb  # noqa: F401  # a fixture

from harness.core.errors import MachineError, UserError
from harness.data.prompts import Prompt
from harness.data.suite import Suite, load_suite
from harness.engine.activations import mean_states
from harness.methods.contract import CellContext, PromptContext, Skip, SteeringMethod, cell_prompts
from harness.methods.difference import LanguageSteering
from harness.methods.persona import draw_persona, personas
from harness.methods.prompt_method import PromptMethod
from harness.methods.registry import load_registry
from harness.methods.target_language import templates
from harness.methods.verbalized import read_candidates
from harness.runner.tuned import apply_tuning

STEERABLE = ["target-language", "temperature", "persona", "verbalized", "revision"]
FIELD = re.compile(r"\{\w*\}")


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture(scope="module")
def steer11() -> Suite:
    return load_suite("steer11")


@pytest.fixture
def build(registry):
    def one(name: str, **options: Any) -> SteeringMethod:
        (method,) = registry.configure(name, options)
        return method

    return one


def asked(suite: Suite, method: SteeringMethod, setting: Any = "zero-shot", **more: Any) -> Prompt:
    return method.prompt(prompt_context(suite, setting, **more))


def test_a_method_sees_the_index_of_every_text_and_labels_share_it(small_suite):
    class Numbered(SteeringMethod):
        def prompt(self, ctx: PromptContext) -> Prompt:
            return Prompt(f"{ctx.label} {ctx.index} {len(ctx.demonstrations)}")

    cell = CellContext(small_suite, small_suite.task("sentiment", "am"), "few-shot", 1, 3)
    prompts, question = cell_prompts(Numbered(), cell, {"positive": ["ጥሩ", "טוב"]})
    assert [prompt.user for prompt in prompts["positive"]] == ["positive 0 2", "positive 1 2", "positive 2 2"]
    assert [prompt.user for prompt in prompts["negative"]] == ["negative 0 0", "negative 1 0", "negative 2 0"]
    assert question is None


# target-language


def test_every_language_and_task_has_its_templates_with_all_fields_and_no_other(steer11):
    assert set(templates()) == set(steer11.tasks)
    wanted = {"zero-shot": ["{label}"], "few-shot": ["{label}", "{examples}"], "base": ["{label}", "{items}"]}
    for task, code in product(steer11.tasks, steer11.languages):
        found = templates()[task][code]
        assert set(found) == {"labels", "back", *wanted}
        assert list(found["labels"]) == steer11.task(task, code).labels
        assert len(set(found["labels"].values())) == len(found["labels"])
        for kind, fields in wanted.items():
            assert FIELD.findall(found[kind]) == fields, (task, code, kind)
            assert FIELD.findall(found["back"][kind]) == ["{label}"]
            assert found[kind].endswith(fields[-1]) or kind == "zero-shot"


def test_the_templates_are_in_the_scripts_of_their_languages(steer11):
    for task, code in product(steer11.tasks, steer11.languages):
        found = templates()[task][code]
        text = FIELD.sub("", found["zero-shot"] + found["few-shot"] + found["base"]) + "".join(found["labels"].values())
        letters = Counter("am" if "ሀ" <= c <= "፼" else "he" if "א" <= c <= "ת" else "" for c in text if c.isalpha())
        assert set(letters) == {code if code in {"am", "he"} else ""}


def test_the_target_language_prompt_has_label_and_examples_and_the_form_for_base_models(build, small_suite):
    method = build("target-language")
    prompt = asked(small_suite, method, "few-shot", demonstrations=("ምግቡ ጥሩ ነው {label}", "{items}"))
    assert prompt.user.endswith("ምሳሌዎች፦\nምግቡ ጥሩ ነው {label}\n{items}")
    assert "አዎንታዊ" in prompt.user
    base = asked(small_suite.for_format("base"), method, demonstrations=("ጥሩ",))
    assert base.user.endswith('\n\n1. "ጥሩ"\n2. "')
    assert base.user.startswith("ከዚህ በታች")


def test_a_task_or_label_without_a_template_is_skipped_with_the_reason(build, steer11):
    method = build("target-language")
    task = steer11.task("topic", "he")
    for other in (task.model_copy(update={"name": "news"}), task.model_copy(update={"labels": ["a"]})):
        skip = method.supports(CellContext(steer11, other, "zero-shot", 1, 2))
        assert isinstance(skip, Skip)
        assert "no prompt in Hebrew" in skip.reason
    assert method.supports(CellContext(steer11, task, "zero-shot", 1, 2)) is None


# temperature and persona


def test_the_temperature_is_in_the_prompt_and_in_the_identity(build, small_suite):
    hot, hotter = build("temperature"), build("temperature", temperature=1.3)
    assert asked(small_suite, hot).sampling == {"temperature": 1.0}
    assert asked(small_suite, hotter).sampling == {"temperature": 1.3}
    assert asked(small_suite, hotter).user == asked(small_suite, SteeringMethod()).user
    assert hot.identity.config == {"temperature": 1.0}
    assert hot.identity != hotter.identity


def test_there_are_200_personas_all_different_and_none_returns_before_all_were_used():
    assert len(personas()) == len({" ".join(p.lower().split()) for p in personas()}) == 200
    assert all(re.fullmatch(r"an? [A-Za-z' ,-]+", persona) for persona in personas())
    assert {draw_persona(1, index) for index in range(200)} == set(personas())
    assert draw_persona(1, 200) == draw_persona(1, 0)
    assert [draw_persona(1, i) for i in range(9)] != [draw_persona(2, i) for i in range(9)]


def test_the_persona_depends_on_seed_and_index_alone(build, small_suite):
    method = build("persona")
    one = asked(small_suite, method, index=3)
    assert one.system == f"You are {draw_persona(1, 3)}. Write as this person would."
    assert one.user == asked(small_suite, SteeringMethod()).user
    negative = replace(prompt_context(small_suite, "few-shot", index=3, demonstrations=("ጥሩ",)), label="negative")
    assert method.prompt(negative).system == one.system
    base = asked(small_suite.for_format("base"), method, index=3)
    assert base.system == f"About the author: {draw_persona(1, 3)}."


# verbalized


@pytest.mark.parametrize(
    ("answer", "texts"),
    {
        "json": (
            '[{"text": "ሰላም ወዳጄ", "probability": 0.1}, {"text": "שלום", "probability": 0.2}]',
            ["ሰላም ወዳጄ", "שלום"],
        ),
        "fenced": ('Sure:\n```json\n[{"probability": ".1", "text": "ጥሩ \\"ምግብ\\""}]\n```', ['ጥሩ "ምግብ"']),
        "cut off": ('[{"text": "ጥሩ", "probability": 0.1}, {"text": "ምግ', ["ጥሩ"]),
        "line break in a string": ('[{"text": "שלום\nעולם"}]', ["שלום\nעולם"]),
        "an escape that JSON does not know": ('{"text": "a \\x \\" b"}', ['a \\x " b']),
        "its key translated": ('[{"טקסט": "אוכל טוב", "probability": "high"}]', ["אוכל טוב"]),
        "tags": ("<text>ሀ ለ</text><probability>0.1</probability><text>\nב\n</text>", ["ሀ ለ", "ב"]),
        "lines": (
            "Here:\n1. ጥሩ ምግብ (0.12)\n2) אוכל טוב - probability: 0.05\n- It costs 3.5\n* „Ein Satz“ 7 %",
            ["ጥሩ ምግብ", "אוכל טוב", "It costs 3.5", "Ein Satz"],
        ),
        "numbers": ("0.12\n1. 0.3\n[0.5, 1]", []),
        "the example": ('[{"text": "...", "probability": 0.12}, ...]', []),
        "prose": ("I cannot do that.", []),
        "empty": ("", []),
        "half a character": ('{"text": "ሀ \\ud800"}', ["ሀ \ud800"]),  # the engine replaces it
    }.values(),
    ids=lambda value: "" if isinstance(value, list) else value[:12],
)
def test_what_can_be_read_of_an_answer_is_read(answer, texts):
    assert read_candidates(answer) == texts


def test_a_long_broken_answer_is_read_in_no_time():
    long = ('"text": "' * 9_000, "1. " + " ," * 50_000, '"' + "\\" * 50_000, "<text>" * 9_000, "\n" * 50_000 + "1.")
    started = time.monotonic()
    assert [read_candidates(text) for text in long] == [[]] * 5
    assert time.monotonic() - started < 5  # what reads it again from every place takes minutes


def test_verbalized_asks_for_k_texts_with_k_times_the_tokens_and_not_of_a_base_model(build, small_suite):
    prompt = asked(small_suite, build("verbalized", k=3))
    assert prompt.user.startswith(asked(small_suite, SteeringMethod()).user)
    assert "write 3 texts" in prompt.user
    assert (prompt.texts_per_answer, prompt.max_new_tokens) == (3, 3 * small_suite.sampling.max_new_tokens)
    base = replace(prompt_context(small_suite, "zero-shot"), suite=small_suite.for_format("base"))
    assert isinstance(build("verbalized").supports(base), Skip)


# revision and translate


def test_revision_asks_about_language_label_and_text_and_fills_nothing_inside_the_text(build, small_suite):
    method = build("revision")
    ctx = prompt_context(small_suite, "zero-shot")
    question = method.check(ctx, "ጥሩ {label} {language}")
    assert question is not None
    assert question.user.startswith("ጥሩ {label} {language}\n")
    assert "written in Amharic" in question.user
    assert "positive its sentiment" in question.user
    base = method.check(replace(ctx, suite=small_suite.for_format("base")), "ጥሩ")
    assert base is not None
    assert base.user.endswith("Answer:")
    cell = CellContext(small_suite, small_suite.task("sentiment", "he"), "zero-shot", 1, 2)
    asks = cell_prompts(method, cell, {})[1]
    assert asks is not None
    found = asks("negative", 1, "רע")
    assert found is not None
    assert "Hebrew" in found.user


def test_translate_writes_in_english_and_gives_what_the_translation_model_gives(build, small_suite, nllb):  # noqa: F811
    method = build("translate", translator=str(nllb))
    prompt = asked(small_suite, method)
    assert "in English language" in prompt.user
    from harness.data.translators import open_translator

    suite = small_suite.model_copy(update={"reference_language": "de"})  # a code that the tiny model knows
    cell = CellContext(suite, suite.task("sentiment", "am"), "zero-shot", 1, 2)
    expected = open_translator(str(nllb)).translate(["gut", "schlecht"], "deu_Latn", "amh_Ethi")
    assert method.edit(cell, ["gut", "", "schlecht"]) == [expected[0], "", expected[1]]
    assert method.edit(cell, [""]) == [""]
    assert method.supports(cell) is None
    skip = method.supports(replace(cell, task=suite.task("sentiment", "mt")))
    assert skip is not None
    assert "unknown language 'mt'" in skip.reason
    with pytest.raises(UserError, match="nothing-here"):
        build("translate", translator="./nothing-here").supports(cell)


def test_a_translator_that_cannot_be_downloaded_is_the_machines_failure(build, small_suite, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cell = CellContext(small_suite, small_suite.task("sentiment", "am"), "zero-shot", 1, 2)
    with pytest.raises(MachineError, match="nothing/here"):
        build("translate", translator="nothing/here").supports(cell)


# Steered by another method


@pytest.mark.parametrize("name", STEERABLE)
def test_a_rival_takes_the_very_fit_of_another_method(build, corpus_of, tiny_models, name):
    method = build(name, steering="language", options={"layer": 1})
    corpus = corpus_of({code: sentences(texts) for code, texts in PARALLEL.items()})
    ctx = context(corpus, lambda texts: mean_states(tiny_models["llama"], texts))
    own = LanguageSteering(LanguageSteering.Config(layer=1)).fit(ctx)
    assert (method.fit(ctx).interventions[0].vector == own.interventions[0].vector).all()
    assert method.has_fit
    assert method.identity.title == f"{name} + language"
    assert method.identity.options["layer"] == 1
    plain = build(name)
    assert not plain.has_fit
    assert not {"steering", "options"} & set(plain.identity.config)
    assert plain.fit(ctx).interventions == ()
    assert plain.vector_languages(prompt_context(corpus.suite, "zero-shot")) == []
    assert set(method.vector_languages(prompt_context(corpus.suite, "zero-shot"))) == {"am", "he", "en"}


def test_a_method_that_does_not_steer_or_has_prompts_of_its_own_is_refused(build):
    for options, words in (
        ({"steering": "few-shot"}, "'few-shot' is not a steering method"),
        ({"steering": "random"}, "'random' is not a steering method"),
        ({"options": {"layer": 1}}, "Name it: steering"),
        ({"steering": "language", "options": {"layer": [1, 2]}}, "not a sweep"),
    ):
        with pytest.raises(UserError, match=words):
            build("persona", **options)


def test_a_control_of_a_steered_rival_prompts_and_checks_as_it_does(build, small_suite):
    control = build("random", of="revision", options={"steering": "language"})
    ctx = prompt_context(small_suite, "zero-shot")
    assert control.has_check
    assert control.check(ctx, "ጥሩ") == build("revision").check(ctx, "ጥሩ")
    assert not build("random", of="language").has_check
    assert control.edit(ctx, ["ጥሩ"]) == ["ጥሩ"]


def test_a_steered_rival_follows_the_tuned_options_of_its_steering(registry, build):
    from harness.core.records import TunedMethod

    chosen = TunedMethod(version="1", options={"layer": 0.5}, configurations=2, texts=1, tokens=1, seconds=1.0)
    specs = [{"persona": {"steering": "language", "options": {"strength": 0.3}}}, "persona", {"language": {}}]
    assert apply_tuning(specs, {"language": chosen}, registry) == [
        {"persona": {"steering": "language", "options": {"strength": 0.3, "layer": 0.5}}},
        {"persona": {"steering": None}},
        {"language": {"layer": 0.5}},
    ]


def test_none_of_them_is_in_a_run_that_names_no_methods():
    for suite in ("mini", "tiny-real", "published", "steer11"):
        names = {name if isinstance(name, str) else next(iter(name)) for name in load_suite(suite).methods}
        assert not names & {*STEERABLE, "translate"}


def test_every_rival_says_its_limits_and_names_its_source(registry):
    for name in [*STEERABLE, "translate"]:
        cls = registry.get(name)
        assert cls.known_limitations
        assert "Source: " in str(cls.__doc__).split("\n")[0]
        assert issubclass(cls, PromptMethod) or name == "translate"
