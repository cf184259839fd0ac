"""What a run will take is said before it: counts by hand, warnings, the probe, and the question on a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import sys
import time
from dataclasses import replace
from unittest import mock

import pytest
import torch
from rich.console import Console
from support.helpers import environment, second_process, small_suite, steerboard, toy_llm

from harness.core.interventions import Steering
from harness.engine.decoding import Row
from harness.runner import preflight, probe, resources
from harness.runner.generate import GenerationStage
from harness.runner.prepare import RunOptions, plan_run

TWO = ("--languages", "am,he", "--tasks", "sentiment")


def facts(out: str) -> dict[str, str]:
    """Return the facts that a command printed, by name, and its warnings in one line."""
    found: dict[str, str] = {}
    name = ""
    for line in out.splitlines():
        head = line[:12].strip()
        name = "warning" if line.startswith("warning:") else head or name
        text = line if name == "warning" else line[12:]
        found[name] = f"{found.get(name, '')} {text.strip()}".strip()
    return found


def test_a_plan_counts_what_a_run_would_do_and_loads_no_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mock.patch("harness.engine.model.load_model", side_effect=AssertionError("no weights")):
        shown = steerboard("plan", "--suite", "mini", *TWO, "--seeds", "1,2")
    assert shown.code == 0
    found = facts(shown.out)
    assert found["model"].startswith("pocketlm in float32 on cpu: 2.39 million parameters, 9.57 MB")
    # 2 languages x 12 entries x 2 seeds; 10 of the entries are written by the model, 4 texts for each of 2 labels
    assert found["cells"] == "48 of 48 to do: 2 languages, 1 task, 12 entries, 2 seeds"
    assert found["texts"] == "320 to write, of at most 64 tokens"
    assert found["tokens"].startswith("at most 20,480 to write; ")
    # parallel text: 12 languages x 100; degraded: 2 x 100; learned: 2 x 3 x 4 steps x 16 texts
    assert found["fitting"].startswith("1,200 sentences in 12 languages to read, then 584 texts in 4 fits;")
    assert ", 240 files; " in found["disk"]  # 48 cells of 5
    assert "warning" not in found
    assert not list(tmp_path.iterdir())


def test_a_plan_of_references_needs_no_model():
    shown = steerboard("plan", "--suite", "mini", *TWO, "--methods", "human")
    assert facts(shown.out)["cells"] == "6 of 6 to do; no model is needed"


def test_a_model_that_cannot_do_the_task_is_warned_of_before_the_run(tmp_path):
    model = toy_llm(tmp_path / "toy")  # a token is a byte
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 200}))
    (model / "chat_template.jinja").unlink()
    with mock.patch("harness.runner.preflight.free_memory", return_value=1000):
        shown = steerboard("plan", "--suite", small_suite(tmp_path, model), "--settings", "few-shot")
    assert shown.code == 0
    warned = facts(shown.out)["warning"]
    assert "toy has no chat template; its prompts have the format base." in warned
    assert "hardly knows Amharic (2." in warned
    assert "Hebrew (1." in warned
    assert "the context of 200 tokens is short: a few-shot prompt has" in warned
    assert "leaves 0 of 4 for the text" in warned
    assert "of memory, 1 kB are free on cpu" in warned


def test_a_model_of_the_hub_is_planned_with_from_its_config_and_tokenizer_alone(tmp_path, monkeypatch):
    """The parameters: 2 layers of 4 x 16 x 16 + 3 x 16 x 32 + 2 x 16, 2 x 259 x 16 embeddings and a norm of 16."""
    repository = tmp_path / "hub" / "models--owner--tiny"
    snapshot = repository / "snapshots" / ("ab" * 20)
    toy_llm(snapshot)
    (snapshot / "model.safetensors").unlink()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("ab" * 20)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    words = ["--suite", small_suite(tmp_path, tmp_path / "none"), "--model", "owner/tiny", "--run", tmp_path / "run"]
    shown = steerboard("plan", *words)
    assert shown.code == 0, shown.err
    assert "owner/tiny in float32 on cpu: 13,488 parameters, 54 kB" in facts(shown.out)["model"]
    assert "no *.safetensors file" in steerboard("run", *words).one_line()


def test_a_plan_of_a_model_of_70_billion_needs_its_config_and_tokenizer_alone(tmp_path):
    """Llama 3's shape. Weights: 2 embeddings, 80 layers of attention (8 groups of 8 heads), MLP and norms.

    A token takes 2 x 80 layers x 8 heads x 128 numbers of 2 bytes in the cache, which is counted twice.
    """
    model = toy_llm(tmp_path / "large")
    (model / "model.safetensors").unlink()
    shape = {
        "vocab_size": 128256,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **shape}))
    words = ["--suite", small_suite(tmp_path, model), "--dtype", "bfloat16", "--run", tmp_path / "run"]
    started = time.process_time()
    shown = steerboard("plan", *words, "--batch-size", "128", "--throughput", "2")
    assert time.process_time() - started < 5
    assert shown.code == 0, shown.err
    found = facts(shown.out)
    layer = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672 + 2 * 8192
    parameters = 2 * 128256 * 8192 + 80 * layer + 8192
    assert parameters == 70_553_706_496
    assert "large in bfloat16 on cpu: 70.6 billion parameters, 141 GB" in found["model"]
    (length,) = re.findall(r"128 texts of (\d+) tokens", found["memory"])
    text = 2 * 2 * 80 * 8 * 128 * 2 * int(length) + 24 * 128256
    total = 2 * parameters + 128 * text
    assert found["memory"].startswith(
        f"{total / 1e9:.0f} GB: the weights, and {text / 1e6:.0f} MB for each of 128 texts"
    )
    assert found["memory"].endswith("tokens at once; 4 GPUs of 80 GB")  # 222 GB in four times 72
    (tokens,) = re.findall(r"at most ([\d,]+) tokens", found["work"])
    hours = 4 * int(tokens.replace(",", "")) / 2 / 3600
    assert found["work"].endswith(f"{hours:,.1f} GPU hours at 2 tokens/s of 4 together")
    assert "no *.safetensors file" in steerboard("run", *words).one_line()


@pytest.mark.parametrize("family", resources._GATED)
def test_the_parameters_of_usual_families_are_counted_by_their_shape(family):
    """To a thousandth of those of the model that transformers makes: biases and small norms are left out."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    sizes = {"hidden_size": 256, "intermediate_size": 700, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = CONFIG_MAPPING[family](**sizes, num_hidden_layers=3, vocab_size=1000, head_dim=64)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    parameters = sum(part.numel() for part in model.parameters())
    assert resources._count_by_shape(config) == pytest.approx(parameters, rel=1e-3)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage whose work counts as large, on the model that ships."""
    monkeypatch.setattr(preflight, "_LARGE", 0)
    plan = plan_run(RunOptions("mini", run=tmp_path / "run", languages=["am", "he"], methods=["zero-shot"], seeds=[1]))
    return GenerationStage(plan, Console(file=io.StringIO(), width=80))


def test_the_probe_measures_time_and_shows_texts(stage):
    found = stage.preflight()
    found.facts.clear()
    probe.probe_model(found, stage.fitter.model, stage.plan, stage.open_cells)
    assert found.facts["time"].startswith("about 0:0")
    assert list(found.facts) == ["time", "text in am", "text in he"]
    assert not found.warnings  # pocketlm writes Amharic and Hebrew, and ends


def test_probe_texts_without_an_end_or_in_another_language_are_warned_of(stage):
    row = Row((1,), Steering(), 0, 64, 1.0, 1.0, tokens=[5] * 64)
    texts = [("am", "ምግቡ በጣም ጥሩ ነበር። አገልግሎቱም ፈጣን ነበር።"), ("he", "The food was very good and the service was quick.")]
    found = preflight.Preflight(most=64)
    probe._judge_texts(found, stage.plan, [("am", row), ("he", replace(row))], texts)
    limit, language = found.warnings
    assert limit.startswith("no probe text had ended after 64 tokens")
    assert "mostly in another language for he (en)." in language
    assert found.facts == {"text in am": texts[0][1], "text in he": texts[1][1]}


PLUGIN = """
import harness.runner.preflight
from harness import Steering, SteeringMethod, register

harness.runner.preflight._LARGE = 0

@register("mine")
class Mine(SteeringMethod):
    '''Unsteered.'''
    settings = ("zero-shot",)
"""


@pytest.mark.parametrize(("answer", "more", "code"), [("n", [], 2), (None, ["--yes"], 0)])
def test_a_terminal_is_asked_before_long_work(tmp_path, answer, more, code):
    (tmp_path / "mine.py").write_text(PLUGIN)
    words = ["run", "--suite", "mini", *TWO, "--seeds", "1", "--limit", "1", "--methods", "mine", *more]
    words += ["--plugin", str(tmp_path / "mine.py"), "--run", str(tmp_path / "run")]
    process, terminal = pty.fork()
    if process == 0:
        os.execve(sys.executable, [sys.executable, "-m", "steerboard", *words], environment(COLUMNS="80"))
    shown, asked = "", False
    while True:
        try:
            part = os.read(terminal, 4096).decode("utf-8", "replace")
        except OSError:  # it has ended
            break
        shown += part
        if "[y/n]" in shown and not asked:
            asked = True
            os.write(terminal, f"{answer}\n".encode())
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == code
    assert asked == (answer is not None)
    assert ("not started" in shown) == (code == 2)
    assert (tmp_path / "run" / "cells").is_dir() == (code == 0)


def test_nobody_is_asked_where_there_is_no_terminal(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    words = ["run", "--suite", "mini", *TWO, "--seeds", "1", "--limit", "1", "--methods", "mine"]
    done = second_process(*words, "--plugin", tmp_path / "mine.py", "--run", tmp_path / "run")
    assert done.code == 0
    assert "probing the model" in done.err
