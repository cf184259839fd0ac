"""The instruction vector: the language is cut out of every shipped prompt, and the rest is a mean difference."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import LAYERS, fit
from support.contexts import PARALLEL, context, sentences
from support.model_probes import by_hand

from harness.core.errors import UnsupportedError
from harness.data.prompts import suite_prompt
from harness.data.suite import load_suite, suite_files
from harness.methods.instruction import InstructionVector, without_language


@pytest.fixture
def corpus(corpus_of):
    return corpus_of({code: sentences(texts) for code, texts in PARALLEL.items()})


def test_the_language_is_cut_out_and_nothing_else(small_suite):
    task = small_suite.task("sentiment", "he")
    named, cut = (suite_prompt(t, "zero-shot", "positive").user for t in (task, without_language(task)))
    assert "with positive sentiment in Hebrew language." in named
    assert cut == named.replace(" in Hebrew language", "")


@pytest.mark.parametrize("suite", [name for name in suite_files() if name != "published"])
@pytest.mark.parametrize("form", ["chat", "base"])
def test_every_shipped_prompt_names_the_language_once(suite, form):
    suite = load_suite(suite).for_format(form)
    for name in suite.tasks:
        task = suite.task(name, "am")
        for label in task.labels:
            assert "Amharic" in suite_prompt(task, "zero-shot", label).user
            assert "Amharic" not in suite_prompt(without_language(task), "zero-shot", label).user


@pytest.mark.parametrize("prompt", ["Schreib {label}.", "Write {label} in {language}, I mean {language}."])
def test_a_prompt_whose_language_cannot_be_cut_is_refused(small_suite, prompt):
    task = small_suite.task("topic", "am").model_copy(update={"prompts": {"zero-shot": prompt}})
    with pytest.raises(UnsupportedError, match=r"needs a zero-shot prompt of 'topic' that says 'in \{language\}'"):
        without_language(task)


@pytest.mark.parametrize("language", ["am", "he"])
def test_the_vector_is_the_mean_difference_at_the_last_token_of_rendered_prompts(
    new_fitter, tiny_models, corpus, small_suite, language
):
    model, name = tiny_models["llama"], {"am": "Amharic", "he": "Hebrew"}[language]
    d = []
    for task in (small_suite.task("sentiment", language), small_suite.task("topic", language)):
        for label in task.labels:
            user = suite_prompt(task, "zero-shot", label).user
            sides = [f"<s><|user|>{text}<|assistant|>" for text in (user, user.replace(f" in {name} language", ""))]
            named, unnamed = (by_hand(model, side)[:, -1] for side in sides)
            d.append(named - unnamed)
    assert len(d) == 9
    config = InstructionVector.Config(layer={language: 1}, strength=0.3)
    fitted = fit(new_fitter(model, corpus), InstructionVector(config), language)
    (item,) = fitted.interventions
    expected = np.mean(d, axis=0)[1]
    np.testing.assert_allclose(item.vector, expected / np.linalg.norm(expected), atol=1e-4)
    assert len(fitted.provenance["fit"]["prompts"]) == 9
    assert len(fitted.provenance["residual_norm"]) == LAYERS


def test_the_texts_that_it_reads_are_its_prompts(corpus):
    method = InstructionVector()
    assert method.texts_to_read(context(corpus, None), 1000) == {"prompts am": 18}
    assert method.vector_languages(context(corpus, None)) == ["am"]
