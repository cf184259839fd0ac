"""Writing the texts of a cell: exact counts, and texts that do not depend on how they were batched.

The tiny models write noise, which is enough to compare runs with one another; the mini suite's own model
writes Amharic and Hebrew.
"""

from __future__ import annotations

import pytest
import torch
from support.prompts import PROMPTS, key_of
from support.writing import MANY, NOTHING, cell_of, watch_decoding, write

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UserError
from harness.core.interventions import Intervention, Steering
from harness.data.corpus import normalise
from harness.data.prompts import Prompt
from harness.data.suite import SamplingParams
from harness.engine.chat import render
from harness.engine.generate import generate_cell
from harness.engine.model import SteerableModel, load_model
from harness.engine.sampling import signed


@pytest.mark.parametrize(
    ("task", "language", "setting", "script"),
    [("sentiment", "am", "few-shot", range(0x1200, 0x1380)), ("topic", "he", "zero-shot", range(0x590, 0x600))],
)
def test_the_batch_size_changes_no_text_of_a_cell(mini, pocketlm, task, language, setting, script):
    cell = cell_of(mini, task, language, setting)
    one, five, all_ = (
        generate_cell(pocketlm, texts_per_label=2, steering=NOTHING, sampling=mini.sampling, batch_size=n, **cell)
        for n in (1, 5, 64)
    )
    assert one == five == all_
    assert len(one) == 2 * len(mini.task(task, language).labels)
    assert all(any(ord(c) in script for c in text.text) for text in one)


@pytest.mark.slow
def test_the_batch_size_changes_no_text_of_a_larger_model(mini, shared):
    model = load_model(resolve_checkpoint(str(shared / "models" / "devlm")), "float32", "cpu")
    sampling = mini.sampling.model_copy(update={"max_new_tokens": 24})
    for language in ("am", "he"):
        cell = cell_of(mini, "sentiment", language, "zero-shot")
        one, four, all_ = (
            generate_cell(model, texts_per_label=3, steering=NOTHING, sampling=sampling, batch_size=n, **cell)
            for n in (1, 4, 64)
        )
        assert one == four == all_


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_the_batch_size_changes_no_steered_text(each_model, steer, positions):
    steering = steer(positions=positions, strength=0.5)
    one, four, eight = (write(each_model, texts=3, steering=steering, batch_size=n) for n in (1, 4, 8))
    assert one == four == eight
    assert [t.text for t in one] != [t.text for t in write(each_model, texts=3)]


def test_every_family_writes_the_same_texts_in_any_batch(each_model):
    one, three, eight = (write(each_model, batch_size=n) for n in (1, 3, 8))
    assert one == three == eight


def test_other_labels_beside_it_change_no_text_of_a_label(tiny_models):
    both = write(tiny_models["llama"], max_attempts=1)
    alone = write(tiny_models["llama"], {"negative": PROMPTS["negative"]}, max_attempts=1)
    assert [t.text for t in both if t.label == "negative"] == [t.text for t in alone]


def test_more_texts_begin_with_the_fewer(tiny_models):
    few, many = (write(tiny_models["llama"], texts=n, max_attempts=1) for n in (2, 6))
    assert [t.text for t in few] == [t.text for t in many if t.index < 2]


def test_every_label_gets_its_exact_number_in_order(tiny_models):
    texts = write(tiny_models["llama"], texts=5, batch_size=3)
    assert [(t.label, t.index) for t in texts] == [
        (label, index) for label in ("positive", "negative") for index in range(5)
    ]


def test_progress_is_told_of_every_text_and_every_redraw(tiny_models):
    told: list[int] = []
    sampling = SamplingParams(**{**MANY, "max_new_tokens": 1, "top_p": 1e-6})
    texts = generate_cell(tiny_models["llama"], PROMPTS, 3, NOTHING, sampling, key_of, 2, told.append)
    assert sum(told) == sum(t.attempts for t in texts) > 6
    assert max(told) == 2


def test_a_text_that_never_differs_is_redrawn_to_the_limit_then_kept_and_marked(new_model):
    """One token and a nucleus of one: all texts of a label are the same."""
    texts = write(new_model(seed=1), texts=3, max_new_tokens=1, top_p=1e-6, max_attempts=4)
    positive, negative = texts[:3], texts[3:]
    assert all(t.text for t in texts)
    assert positive[0].text != negative[0].text
    for group in (positive, negative):
        assert len({t.text for t in group}) == 1
        assert [t.attempts for t in group] == [1, 4, 4]
        assert [t.duplicate for t in group] == [False, True, True]


def test_a_duplicate_is_redrawn_with_the_noise_of_its_next_attempt(tiny_models):
    """One token each, so that some first draws are equal by chance; every draw is made again alone."""
    model, wide = tiny_models["llama"], {"max_new_tokens": 1, "top_p": 0.6}
    texts = write(model, {"positive": PROMPTS["positive"]}, 8, max_attempts=6, **wide)
    attempts = [t.attempts for t in texts]
    assert 1 in attempts
    assert max(attempts) > 1

    def draw(index: int, attempt: int) -> str:
        sampling = SamplingParams(**{**MANY, **wide, "max_attempts": 1})
        alone = lambda label, i, a: key_of(label, index, attempt)  # noqa: E731
        return generate_cell(model, {"positive": PROMPTS["positive"]}, 1, NOTHING, sampling, alone)[0].text

    for t in texts:
        assert draw(t.index, t.attempts - 1) == t.text
    kept = [normalise(t.text) for t in texts if not t.duplicate]
    assert len(set(kept)) == len(kept)


def test_what_is_not_marked_is_unique_and_what_is_marked_came_before(each_model):
    texts = write(each_model, texts=8, max_new_tokens=1, top_p=0.5, max_attempts=2)
    seen: set[str] = set()
    for t in texts:
        form = normalise(t.text)
        assert t.duplicate == (form in seen or not form)
        seen.add(form)


def test_texts_that_differ_only_in_case_blanks_or_width_are_duplicates(new_model, monkeypatch):
    model, answers = new_model(), ["Good  day", "good day", "ＧＯＯＤ DAY ", "good days"]
    with watch_decoding(model) as seen:

        def decode(tokens: list[int], **options: object) -> str:
            found = [i for i in range(4) if seen.tokens.get(signed(key_of("positive", i, 0))) == tokens]
            return answers[found[0]]

        monkeypatch.setattr(model.tokenizer, "decode", decode)
        texts = write(model, {"positive": PROMPTS["positive"]}, max_attempts=1)
    assert [(t.text, t.duplicate) for t in texts] == [
        ("Good day", False),
        ("good day", True),
        ("ＧＯＯＤ DAY", True),
        ("good days", False),
    ]


def test_an_empty_text_is_redrawn(new_model):
    model = new_model()
    model.model.generation_config.eos_token_id = list(range(300))
    texts = write(model, max_attempts=3)
    assert {(t.text, t.attempts, t.duplicate, t.n_new_tokens, t.finish_reason) for t in texts} == {
        ("", 3, True, 0, "stop")
    }


@pytest.mark.parametrize("change", [{"strength": 0.0}, {"residual_norm": 0.0, "unit": "residual"}], ids=str)
def test_strength_zero_writes_exactly_the_unsteered_texts(each_model, steer, change):
    assert write(each_model, steering=steer(**change)) == write(each_model)


def test_strength_zero_writes_exactly_the_unsteered_texts_of_the_mini_suite(mini, pocketlm):
    vector = torch.ones(pocketlm.model.config.hidden_size).numpy()
    zero = Steering((Intervention("layer_output", 1, "add", vector, 0.0, "residual", 3.0),))
    sampling = mini.sampling.model_copy(update={"max_new_tokens": 12, "max_attempts": 2})
    cell = {**cell_of(mini, "sentiment", "he", "zero-shot"), "texts_per_label": 4, "sampling": sampling}
    assert generate_cell(pocketlm, steering=zero, **cell) == generate_cell(pocketlm, steering=NOTHING, **cell)


def test_nothing_is_steered_after_a_cell(tiny_models, steer):
    write(tiny_models["llama"], steering=steer())
    assert not tiny_models["llama"].hooks.active


def test_the_chat_template_is_rendered_with_one_bos(tiny_models):
    model = tiny_models["llama"]
    with watch_decoding(model) as seen:
        write(model)
    assert render(model.tokenizer, Prompt("a b")) == "<s><|user|>a b<|assistant|>"
    assert {tuple(ids) for ids in seen.prompts} == {
        tuple(model.tokenizer(render(model.tokenizer, prompt), add_special_tokens=False)["input_ids"])
        for prompt in PROMPTS.values()
    }
    for ids in seen.prompts:
        assert ids[0] == model.tokenizer.bos_token_id
        assert ids.count(model.tokenizer.bos_token_id) == 1


def test_a_system_turn_comes_first(tiny_models):
    rendered = render(tiny_models["llama"].tokenizer, Prompt("a b", system="Be brief."))
    assert rendered == "<s><|user|>Be brief.<|user|>a b<|assistant|>"


def test_a_tokenizer_without_a_chat_template_gets_a_plain_instruction(new_network, new_tokenizer):
    model = SteerableModel(new_network("llama"), new_tokenizer(chat_template=None))
    with watch_decoding(model) as seen:
        texts = write(model)
    assert render(model.tokenizer, Prompt("a b")) == "<s>### Instruction:\na b\n\n### Response:\n"
    assert render(model.tokenizer, Prompt("a b", system="Be brief.")).startswith("<s>Be brief.\n\n### Instr")
    assert len(seen.prompts) >= 2
    assert all(ids.count(1) == 1 and ids[0] == 1 for ids in seen.prompts)
    assert len(texts) == 8


def test_a_tokenizer_without_bos_and_padding_token_works(new_network, new_tokenizer):
    tokenizer = new_tokenizer(chat_template=None)
    tokenizer.bos_token = tokenizer.pad_token = None
    model = SteerableModel(new_network("llama"), tokenizer)
    assert render(model.tokenizer, Prompt("a b")) == "### Instruction:\na b\n\n### Response:\n"
    one, eight = (write(model, batch_size=n) for n in (1, 8))
    assert one == eight


def test_prompt_tokens_are_counted_without_padding(tiny_models):
    model = tiny_models["llama"]
    for text in write(model):
        ids = model.tokenizer(render(model.tokenizer, PROMPTS[text.label]), add_special_tokens=False)["input_ids"]
        assert text.n_prompt_tokens == len(ids)


def test_a_text_ends_before_its_first_stop_token(new_model):
    """A third of the vocabulary stops: some texts stop at once, some later, some never."""
    model = new_model()
    stops = set(range(2, 300, 9))
    model.model.generation_config.eos_token_id = sorted(stops)
    with watch_decoding(model) as seen:
        texts = write(model, texts=10, batch_size=20, max_attempts=1)
    for text in texts:
        new = seen.drawn(text)
        end = next((i for i, token in enumerate(new) if token in stops), None)
        assert end in (None, len(new) - 1), "tokens were drawn after the end"
        kept = new if end is None else new[:end]
        assert text.finish_reason == ("length" if end is None else "stop")
        assert text.n_new_tokens == len(kept)
        assert text.text == " ".join(model.tokenizer.decode(kept, skip_special_tokens=True).split())
    assert {t.finish_reason for t in texts} == {"stop", "length"}
    assert len({t.n_new_tokens for t in texts}) > 2


def test_the_tokenizers_end_stops_where_the_checkpoint_names_none(new_model):
    model = new_model()
    model.model.generation_config.eos_token_id = None
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(100)
    with watch_decoding(model) as seen:
        texts = write(model, texts=40, max_new_tokens=12, batch_size=80, max_attempts=1)
    stopped = [100 in seen.drawn(text) for text in texts]
    assert [t.finish_reason == "stop" for t in texts] == stopped
    assert any(stopped)
    assert not all(stopped)


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_no_text_is_longer_than_asked_for(tiny_models, limit):
    texts = write(tiny_models["llama"], texts=10, max_new_tokens=limit)
    assert all(t.n_new_tokens <= limit for t in texts)
    assert all((t.n_new_tokens == limit) == (t.finish_reason == "length") for t in texts)


def test_a_prompt_longer_than_the_context_is_refused(new_model):
    model = new_model("llama", max_position_embeddings=20)
    with pytest.raises(UserError, match=r"prompt has \d+ tokens, the model takes 20"):
        write(model)
    assert not model.hooks.active


def test_a_prompt_that_just_fits_is_written_to_the_end_of_the_context(new_model):
    prompt = {"positive": Prompt("a b")}
    width = write(new_model("llama"), prompt, 1)[0].n_prompt_tokens
    texts = write(new_model("llama", max_position_embeddings=width + 2), prompt, max_attempts=1)
    assert {t.n_new_tokens for t in texts} == {2}
    with pytest.raises(UserError, match=f"prompt has {width} tokens"):
        write(new_model("llama", max_position_embeddings=width), prompt)


def test_the_batch_size_changes_no_text_near_the_end_of_the_context(new_model):
    """The long prompt leaves room for three tokens; what the short one may write must not vary."""
    longest = max(t.n_prompt_tokens for t in write(new_model("llama"), max_attempts=1))
    model = new_model("llama", max_position_embeddings=longest + 3)
    one, three, eight = (write(model, batch_size=n, max_attempts=1) for n in (1, 3, 8))
    assert one == three == eight


@pytest.mark.parametrize(
    "own",
    [
        {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.1},
        {"repetition_penalty": 9.0},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 6},
        {"min_length": 40},
        {"max_length": 30},
        {"num_beams": 3},
        {"begin_suppress_tokens": list(range(5, 150))},
        {"suppress_tokens": list(range(5, 150))},
        {"forced_eos_token_id": 2},
    ],
    ids=lambda own: next(iter(own)),
)
def test_a_checkpoints_own_search_settings_change_no_text(new_network, new_tokenizer, own):
    plain, changed = new_network("llama"), new_network("llama")
    for network, settings in ((plain, {}), (changed, own)):
        network.generation_config.update(eos_token_id=list(range(2, 300, 9)), **settings)
    one, other = (write(SteerableModel(n, new_tokenizer()), texts=8) for n in (plain, changed))
    assert one == other
    assert any(t.finish_reason == "stop" for t in one)


def test_a_shared_prompt_is_read_once_and_writes_what_it_would_alone(tiny_models, steer):
    """Four texts of one label share the prompt's cache; a batch of one text has nothing to share."""
    model, prompt = tiny_models["mistral"], {"positive": Prompt("a b " * 12)}  # beyond the sliding window
    steering = steer(positions="generated", strength=0.5)
    assert write(model, prompt, steering=steering) == write(model, prompt, steering=steering, batch_size=1)
