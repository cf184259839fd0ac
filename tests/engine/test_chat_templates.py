"""Chat templates of many kinds: no text is lost, no clock is read, and what was done is recorded."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import pytest
from support.helpers import small_suite, steerboard, toy_llm, toy_manifest

from harness.core.errors import UserError
from harness.core.store import Run
from harness.data.prompts import Prompt
from harness.data.suite import DATE, SamplingParams, load_suite, restore_suite
from harness.engine.chat import ChatUse, apply, chat_record, chat_use, end_token, render
from harness.runner.prepare import with_chat

PARTS = (
    "{{ bos_token }}{% for turn in messages %}[{{ turn['role'] }}]{% for part in turn['content'] %}"
    "{{ part['text'] }}{% endfor %}{% if turn['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for turn in messages %}[{{ turn['role'] }}]{{ turn['content'] | trim }}[/]{% endfor %}"
)
DROPS_SYSTEM = "{% for turn in messages if turn['role'] != 'system' %}[{{ turn['content'] }}]{% endfor %}"
DATED = "Date: {{ strftime_now('%d %b %Y') }}\n{% for turn in messages %}{{ turn['content'] }}\n{% endfor %}"
PLAIN = "{% for turn in messages %}[{{ turn['role'] }}]{{ turn['content'] }}{% endfor %}"
LOSES = "{% for turn in messages %}{{ turn['content'][:20] }}{% endfor %}"
BROKEN = "{% for turn in messages %}{{ turn['text'] + '' }}{% endfor %}"
AMHARIC, HEBREW = "ስለ ምግቡ ግምገማ ጻፍ።", "כתוב ביקורת על האוכל."


@pytest.fixture
def tokenizer(new_tokenizer):
    """Return a tokenizer with a template, or with several."""
    return lambda template: new_tokenizer(template)


def test_a_template_that_reads_parts_gets_parts(tokenizer):
    parts = tokenizer(PARTS)
    assert chat_use(parts) == ChatUse(parts=True)
    assert render(parts, Prompt(AMHARIC)) == f"<s>[user]{AMHARIC}"
    assert render(parts, Prompt(HEBREW, system="Be brief.")) == f"<s>[system]Be brief.[user]{HEBREW}"


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_without_a_system_turn_its_text_joins_the_first_user_turn(tokenizer, template):
    chat = tokenizer(template)
    assert chat_use(chat).joined
    assert f"Be brief.\n\n{HEBREW}" in render(chat, Prompt(HEBREW, system="Be brief."))
    assert "Be brief" not in render(chat, Prompt(HEBREW))


def test_turns_after_the_first_stay_as_they_are(tokenizer):
    turns = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user")]
    chat = tokenizer(NO_SYSTEM)
    assert apply(chat, chat_use(chat), turns) == "<s>[user]s\n\nu[/][assistant]a[/][user]u[/]"


def test_today_is_the_suites_day(tokenizer):
    dated = tokenizer(DATED)
    assert render(dated, Prompt(AMHARIC)) == f"Date: 01 Jan 2026\n{AMHARIC}\n"
    assert render(dated, Prompt(AMHARIC), date="2024-02-29") == f"Date: 29 Feb 2024\n{AMHARIC}\n"
    assert chat_record(dated, sampling(date="2024-02-29")) == {"date": "2024-02-29"}


def test_a_date_in_every_form_is_what_python_writes(tokenizer):
    forms = ["%A %d %B %Y", "%-d.%-m.%y", "%Y-%m-%dT%H:%M:%S", "%j %U %a %b %e %I %p", "%F", "no date", ""]
    body = "|".join("{{ strftime_now('" + form + "') }}" for form in forms)
    year = "{% macro head(turn) %}{{ strftime_now('%Y') }}{{ turn['content'] }}{% endmacro %}"
    year += "{{ head(messages[0]) }}"
    dated = tokenizer("  {% if strftime_now is defined %}" + body + "{% endif %}" + year)
    day = datetime.datetime(2024, 2, 29)
    written = "|".join(day.strftime(form) for form in forms) + f"2024{AMHARIC}"
    assert render(dated, Prompt(AMHARIC), date="2024-02-29") == written


def test_the_date_changes_nothing_else_of_a_template(tokenizer):
    body = "\n {% for turn in messages %}\n  {{ turn['content'] }}\n{% endfor %}{# no strftime_now #}"
    chat = tokenizer(body)
    assert chat_use(chat).dated
    plain = tokenizer(body.replace("strftime_now", "date"))
    assert render(chat, Prompt(HEBREW)) == render(plain, Prompt(HEBREW))


def test_a_plain_template_is_used_as_before(tokenizer):
    plain = tokenizer(PLAIN)
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": HEBREW}]
    assert chat_use(plain) == ChatUse()
    assert chat_record(plain, sampling()) == {}
    assert render(plain, Prompt(HEBREW, system="s")) == plain.apply_chat_template(turns, tokenize=False)


@pytest.mark.parametrize(
    ("templates", "name"),
    [
        ({"default": PLAIN, "other": BROKEN}, None),
        ({"tool_use": BROKEN, "rag": BROKEN, "chat": PLAIN}, "chat"),
        ({"chat": PLAIN}, "chat"),
    ],
)
def test_of_several_templates_the_default_or_the_only_one_for_chat_is_taken(tokenizer, templates, name):
    several = tokenizer(templates)
    assert chat_use(several).template == name
    assert render(several, Prompt(AMHARIC)) == f"[user]{AMHARIC}"
    assert chat_record(several, sampling()) == ({"template": name} if name else {})


def test_several_templates_without_a_default_are_one_line(tokenizer):
    with pytest.raises(UserError, match=r"the chat templates a, b, none of them 'default'\. Name one"):
        render(tokenizer({"b": PLAIN, "a": PLAIN}), Prompt("x"))


@pytest.mark.parametrize("template", [BROKEN, "constant", "{{ raise_exception('nothing works') }}"])
def test_a_template_that_cannot_be_used_is_one_line(tokenizer, template):
    with pytest.raises(UserError, match=r"the chat template of .* cannot be used: .*instruction"):
        chat_record(tokenizer(template), sampling())
    assert chat_record(tokenizer(template), sampling(template="instruction")) == {}
    assert render(tokenizer(template), Prompt("x"), "instruction").startswith("<s>### Instruction:")


def test_a_text_that_the_template_cuts_is_noticed(tokenizer):
    cuts = tokenizer(LOSES)
    assert render(cuts, Prompt("short")) == "short"
    with pytest.raises(UserError, match="loses text of the user turn"):
        render(cuts, Prompt(AMHARIC * 2))


def test_blanks_around_a_text_may_be_trimmed(tokenizer):
    assert render(tokenizer(NO_SYSTEM), Prompt(f"  {HEBREW}\n")) == f"<s>[user]{HEBREW}[/]"


def test_the_end_of_an_answer_is_found_in_a_template_of_parts(new_model):
    model = new_model()
    model.tokenizer.chat_template = PARTS
    assert end_token(model) == model.tokenizer.eos_token_id


# The suite's date


def sampling(**changes: object) -> SamplingParams:
    return SamplingParams.model_validate({**load_suite("mini").sampling.model_dump(), **changes})


def test_the_usual_date_is_in_no_hash_and_another_is(mini):
    assert "date" not in mini.dump()["sampling"]
    assert mini.sampling.date == DATE
    other = mini.model_copy(update={"sampling": sampling(date="2025-05-05")})
    assert other.hash != mini.hash
    assert other.text_protocol("topic", "am") != mini.text_protocol("topic", "am")
    assert restore_suite(other.dump()).sampling.date == "2025-05-05"
    assert restore_suite(mini.dump()).hash == mini.hash


@pytest.mark.parametrize("date", ["2025-02-30", "today", "05.05.2025", 7])
def test_a_date_that_is_none_is_refused(date):
    with pytest.raises(ValueError, match="date"):
        sampling(date=date)


def test_a_date_of_yaml_is_a_date():
    from harness.core.reading import parse_yaml

    assert sampling(**parse_yaml(b"date: 2025-05-05", "x")).date == "2025-05-05"


# Runs


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return toy_llm(tmp_path_factory.mktemp("model") / "toy")


def go(tmp_path: Path, model: Path, template: str, seed: int = 1):
    folder = tmp_path / "model"
    if not folder.exists():
        shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    suite = small_suite(tmp_path, folder)
    narrow = ("--languages", "he", "--tasks", "sentiment", "--seeds", seed, "--limit", 1)
    return steerboard("run", "--suite", suite, "--run", tmp_path / "run", "--methods", "zero-shot", *narrow)


def test_a_run_records_how_the_template_was_used(tmp_path, model):
    done = go(tmp_path, model, DATED)
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["chat"] == {"date": DATE}
    again = go(tmp_path, model, DATED)
    assert again.code == 0, again.err  # nothing to do: no model is loaded, and the record stays
    assert Run(tmp_path / "run").manifest().chat == {"date": DATE}


def test_a_template_that_loses_everything_ends_the_run_before_it_is_written_down(tmp_path, model):
    done = go(tmp_path, model, "constant")
    assert done.code == 2
    assert "cannot be used" in done.err.splitlines()[-1]
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_texts_of_two_uses_are_never_in_one_run(tmp_path):
    run = Run(tmp_path)
    run.write_manifest(toy_manifest())
    old = run.manifest()
    assert old.model is not None
    assert with_chat(old, {}, run) == old
    with pytest.raises(UserError, match=r"then: as it is, now: .*\"content\": \"parts\".*another --run"):
        with_chat(old, {"content": "parts"}, run)
    run.write_manifest(old.model_copy(update={"model": None}))  # of references alone
    assert with_chat(old, {"content": "parts"}, run).chat == {"content": "parts"}
