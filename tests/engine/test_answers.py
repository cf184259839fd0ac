"""Answers with several texts, prompts per text, their sampling options, questions about texts: counts stay exact."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.prompts import PROMPTS, key_of
from support.writing import request, watch_decoding, write, write_all

from harness.core.errors import UserError
from harness.core.records import Generation
from harness.data.prompts import Prompt
from harness.engine import generate
from harness.engine.answers import AnswerRounds
from harness.engine.generate import CellRequest, GenerationQueue


def answers(rounds: AnswerRounds, holds: Any, tokens: int = 10) -> tuple[list[Generation], list[int]]:
    """Answer all rounds, the last answer first; return the texts and the number of answers in each round."""
    asked, sizes = rounds.ask(), []
    while asked:
        sizes.append(len(asked))
        following = []
        for (label, number), attempt in reversed(asked):
            answer = Generation(
                index=number,
                label=label,
                text="",
                n_new_tokens=tokens,
                n_prompt_tokens=7,
                finish_reason="stop",
                attempts=attempt + 1,
            )
            following += rounds.add(answer, holds(label, number))
        asked = following
    texts = rounds.texts()
    assert texts is not None
    return texts, sizes


def test_answers_with_five_texts_each_are_asked_for_as_often_as_needed_and_the_surplus_is_dropped():
    rounds = AnswerRounds({"positive": 5}, 7, 3)
    texts, sizes = answers(rounds, lambda label, number: [f"ጥሩ {number} {i}" for i in range(5)])
    assert sizes == [2]
    assert [text.text for text in texts] == [f"ጥሩ 0 {i}" for i in range(5)] + ["ጥሩ 1 0", "ጥሩ 1 1"]
    assert [text.index for text in texts] == list(range(7))
    assert [text.n_new_tokens for text in texts] == [2, 2, 2, 2, 2, 5, 5]  # of ten per answer, over what was kept
    assert sum(text.n_prompt_tokens for text in texts) == 14
    assert not any(text.duplicate for text in texts)


def test_an_answer_with_one_text_instead_of_five_makes_later_rounds_ask_for_more():
    rounds = AnswerRounds({"positive": 5}, 10, 5)
    texts, sizes = answers(rounds, lambda label, number: [f"טוב {number}"])
    assert sizes == [2, 8]  # 10 texts of five each; then 8 missing, one each
    assert [text.text for text in texts] == [f"טוב {number}" for number in range(10)]
    assert [text.attempts for text in texts] == [1, 1] + [2] * 8


def test_answers_without_texts_leave_empty_texts_that_are_marked():
    rounds = AnswerRounds({"positive": 5, "negative": 5}, 5, 3)
    texts, sizes = answers(rounds, lambda label, number: [] if label == "negative" else [f"ጥሩ {i}" for i in range(5)])
    assert sizes == [2, 5, 5]
    empty = [text for text in texts if text.label == "negative"]
    assert [(text.text, text.index, text.duplicate) for text in empty] == [("", i, True) for i in range(5)]
    assert not any(text.duplicate for text in texts if text.label == "positive")


def test_a_text_that_another_answer_or_label_has_is_drawn_again_and_at_last_kept_as_a_duplicate():
    rounds = AnswerRounds({"positive": 2, "negative": 2}, 3, 2)
    texts, sizes = answers(rounds, lambda label, number: ["טוב  מאוד", "טוב מאוד", f"{label} {number}"])
    assert sizes == [4, 1]  # "negative" has two new texts after the first round
    assert [text.text for text in texts if not text.duplicate] == [
        *("טוב  מאוד", "positive 0", "positive 1"),
        *("negative 0", "negative 1", "negative 2"),
    ]
    rounds = AnswerRounds({"positive": 2}, 3, 2)
    texts, _ = answers(rounds, lambda label, number: ["ሰላም", "", "ሰላም"])
    assert [(text.text, text.duplicate) for text in texts] == [("ሰላም", False), ("ሰላም", True), ("ሰላም", True)]


class Written:
    """Stands in for the model: an answer is what ``written`` says of its prompt and key."""

    def __init__(self, monkeypatch: Any, new_tokenizer: Any, written: Any) -> None:
        tokenizer = new_tokenizer()
        self.asked: list[tuple[str, Any]] = []
        texts: list[str] = []
        tokenizer.decode = lambda tokens, **options: texts[tokens[0]]

        def add(rows: list[Any]) -> list[Any]:
            for row in rows:
                prompt = self._prompts[row.prompt]
                self.asked.append((prompt, row))
                texts.append(written(prompt, row.key))
                row.tokens.extend([len(texts) - 1, 0, 0])
                row.ended = True
            return rows

        self._prompts: dict[tuple[int, ...], str] = {}

        def token_ids(inputs: list[str]) -> list[list[int]]:
            for text in inputs:
                self._prompts.setdefault((len(self._prompts),), text)
            return [[next(k for k, v in self._prompts.items() if v == text)[0]] for text in inputs]

        self.model: Any = SimpleNamespace(tokenizer=tokenizer, context_length=None, token_ids=token_ids)
        batch = SimpleNamespace(rows=0, active=0, add=add, step=list, shrink=lambda: None)
        monkeypatch.setattr(generate, "open_batch", lambda model: batch)

    def write(self, cell: CellRequest) -> list[Generation]:
        ((_, found),) = GenerationQueue(self.model, 4).write([cell])
        if isinstance(found, Exception):
            raise found
        return found


def test_every_text_has_its_own_prompt_and_a_text_that_is_drawn_again_the_same(monkeypatch, new_tokenizer):
    model = Written(monkeypatch, new_tokenizer, lambda prompt, key: "" if key == key_of("positive", 1, 0) else prompt)
    prompts = [Prompt(f"ጻፍ {index}") for index in range(3)]
    texts = generate_texts(model, {"positive": prompts}, 3)
    assert [f"ጻፍ {i}" in text.text for i, text in enumerate(texts)] == [True] * 3
    assert [text.attempts for text in texts] == [1, 2, 1]


def generate_texts(model: Written, prompts: Any, texts: int, **more: Any) -> list[Generation]:
    cell = request("cell", prompts, texts)
    cell.noise_key = key_of
    for name, value in more.items():
        setattr(cell, name, value)
    return model.write(cell)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_parser_gives_exact_counts_through_the_queue(monkeypatch, new_tokenizer, size):
    model = Written(monkeypatch, new_tokenizer, lambda prompt, key: "\n".join(f"{key} ጥሩ{i}" for i in range(size)))
    prompt = Prompt("ጻፍ", parse=str.splitlines, texts_per_answer=5, max_new_tokens=40)
    texts = generate_texts(model, {"positive": prompt, "negative": prompt}, 6)
    assert [(text.label, text.index) for text in texts] == [
        (label, index) for label in ("positive", "negative") for index in range(6)
    ]
    assert sum(text.duplicate for text in texts) == (12 if size == 0 else 0)
    assert len({text.text for text in texts}) == (1 if size == 0 else 12)
    # 5 each: two answers per label. 1 each: 2, then 4. None: 2, then 6 in each of two more rounds.
    assert len(model.asked) == 2 * {5: 2, 1: 6, 0: 14}[size]
    assert {row.max_new_tokens for _, row in model.asked} == {40}
    assert {row.stop for _, row in model.asked} == {None}


def test_a_parser_that_breaks_ends_its_own_cell_and_half_a_character_none(monkeypatch, new_tokenizer):
    model = Written(monkeypatch, new_tokenizer, lambda prompt, key: f"{key}")
    broken = Prompt("ጻፍ", parse=lambda text: [text[99]])
    cells = [request("broken", {"positive": broken}), request("whole")]
    found = {cell.name: texts for cell, texts in GenerationQueue(model.model, 4).write(cells)}
    assert isinstance(found["broken"], IndexError)
    assert len(found["whole"]) == 6
    half = Prompt("ጻፍ", parse=lambda text: ["\ud800 " + text])
    assert [text.text[0] for text in generate_texts(model, {"positive": half}, 1)] == ["?"]


def test_prompts_with_options_of_their_own_change_the_texts_and_equal_options_do_not(tiny_models):
    model = tiny_models["llama"]
    plain = write(model)
    same = {label: replace(prompt, temperature=1.0, top_p=0.95) for label, prompt in PROMPTS.items()}
    hot = {label: replace(prompt, temperature=3.0) for label, prompt in PROMPTS.items()}
    short = {label: replace(prompt, max_new_tokens=2) for label, prompt in PROMPTS.items()}
    assert write(model, same) == plain
    assert [text.text for text in write(model, hot)] != [text.text for text in plain]
    assert max(text.n_new_tokens for text in write(model, short)) == 2
    assert PROMPTS["positive"].sampling == {}
    assert hot["positive"].sampling == {"temperature": 3.0}


def test_one_prompt_for_all_texts_and_the_same_prompt_for_each_are_the_same_and_are_read_once(tiny_models):
    model = tiny_models["llama"]
    with watch_decoding(model) as one:
        plain = write(model)
    with watch_decoding(model) as each:
        assert write(model, {label: [prompt] * 4 for label, prompt in PROMPTS.items()}) == plain
    assert each.passes == one.passes
    assert each.prompts == one.prompts


def test_texts_with_prompts_of_their_own_do_not_depend_on_the_batch(tiny_models):
    model = tiny_models["llama"]
    prompts = {"positive": [Prompt(text) for text in ("ሰላም", "האוכל היה טעים מאוד.", "a b", "ጻፍ ጻፍ ጻፍ")]}
    lines = Prompt("a b", parse=lambda text: text.split(), texts_per_answer=3)
    for batch in (1, 3):
        found = write_all(model, [request("own", prompts, 4), request("lines", {"positive": lines}, 5)], batch)
        assert found == write_all(model, [request("lines", {"positive": lines}, 5), request("own", prompts, 4)], 16)
        assert [len(texts) for texts in (found["own"], found["lines"])] == [4, 5]


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"temperature": float("nan")}, {"top_p": 1.1}, {"max_new_tokens": 0}, {"texts_per_answer": 0}],
    ids=str,
)
def test_a_prompt_with_an_impossible_option_is_refused(options):
    with pytest.raises(UserError, match=f"a prompt has {next(iter(options))}"):
        Prompt("ጻፍ", **options)


def test_a_text_without_a_yes_is_drawn_again_and_kept_at_the_last_attempt(monkeypatch, new_tokenizer):
    """The second text is turned down once, the third always; the question has the text, label and index in it."""
    said = {"1/0": "No.", "1/1": "YES", "2": "It is yesterday"}

    def written(prompt: str, key: int) -> str:
        found = [i for i in range(3) for attempt in range(3) if key == key_of("positive", i, attempt)]
        attempt = next(a for a in range(3) if key == key_of("positive", found[0], a))
        if "ok?" in prompt:
            assert f"positive {found[0]} ጥሩ {found[0]}/{attempt} ok?" in prompt
            return said.get(f"{found[0]}/{attempt}", said.get(str(found[0]), "yes"))
        return f"ጥሩ {found[0]}/{attempt}"

    model = Written(monkeypatch, new_tokenizer, written)
    cell = request("cell", {"positive": Prompt("ጻፍ")}, 3, max_attempts=3)
    cell.noise_key, cell.question = key_of, lambda label, index, text: Prompt(f"{label} {index} {text} ok?")
    texts = model.write(cell)
    assert [(text.text, text.attempts) for text in texts] == [("ጥሩ 0/0", 1), ("ጥሩ 1/1", 2), ("ጥሩ 2/2", 3)]
    assert not any(text.duplicate for text in texts)
    assert (cell.rejected, cell.kept) == (4, 1)
    assert len(model.asked) == 12  # six draws, and a question about each
    assert cell.usage.new_tokens == 36  # of answers to questions, too
    assert {row.top_p for prompt, row in model.asked if "ok?" in prompt} == {1e-9}


def test_a_question_that_is_none_changes_nothing_and_a_real_model_can_be_asked(tiny_models):
    model = tiny_models["llama"]
    cells = [request(name) for name in ("plain", "none", "asked")]
    for cell in cells:
        cell.noise_key = key_of
    cells[1].question = lambda label, index, text: None
    cells[2].question = lambda label, index, text: Prompt(f"Is this {label}? {text}")
    found = write_all(model, cells, 4)
    assert found["none"] == found["plain"]
    assert [len(found[name]) for name in ("plain", "asked")] == [6, 6]
    assert cells[2].rejected > 0  # it knows no words
    assert {text.attempts for text in found["asked"]} == {3}
    assert found["asked"] == write_all(model, [cells[2]], 1)["asked"]
