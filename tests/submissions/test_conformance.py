"""The conformance kit: what ships passes, and every promise that a method breaks is found by its own check.

Every broken method is the sound one with one thing changed, so that exactly one check may fail.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from support.helpers import steerboard

from harness.core.cells import Cell
from harness.core.interventions import Steering
from harness.data.prompts import Prompt
from harness.methods.registry import BUILT_IN
from harness.methods.template import render_template
from harness.submissions.conformance import kit
from harness.submissions.conformance.checks_fit import _bytes
from harness.submissions.conformance.instrumented import differences, model_state
from harness.submissions.conformance.kit import CheckResult, find, run_checks
from harness.submissions.conformance.sandbox import Sandbox
from harness.submissions.conformance.tiny_suite import TinySuite

SOUND = '''
import numpy as np
from harness import FitContext, Intervention, MethodConfig, Prompt, Skip, Steering, SteeringMethod, register


@register("mine")
class Mine(SteeringMethod):
    """Adds the mean state of the language. Source: own work."""

    settings = ("zero-shot",)
    # class

    class Config(MethodConfig):
        layer: int | float = 0.5
        strength: float = 0.1
        # option

    # method

    def fit(self, ctx: FitContext) -> Steering:
        layer, strength, details = ctx.layer(self.config.layer), self.config.strength, {}
        means = ctx.mean_states(ctx.parallel(ctx.language))
        vector = (means.mean[layer] / np.linalg.norm(means.mean[layer])).astype(np.float32)
        # fit
        norm = float(means.norm[layer])
        item = Intervention("layer_output", layer, "add", vector, strength, "residual", norm)
        # end
        return Steering((item,), details)
'''
HOOK = "ctx.model.layers[1].register_forward_hook(lambda *a: None)"
BROKEN = {
    "a docstring without a source": ("loads", {"Source: own work.": "Mine alone."}),
    "no docstring": ("loads", {'"""Adds the mean state of the language. Source: own work."""': ""}),
    "an empty version": ("loads", {"# class": "version = ' '"}),
    "an option that is no JSON": (
        "config",
        {"# option": "model_config = {'arbitrary_types_allowed': True}\n        thing: object = object()"},
    ),
    "a config that takes anything": ("config", {"# option": "model_config = {'extra': 'allow'}"}),
    "an option without default": ("config", {"# option": "depth: int"}),
    "an option that JSON changes": ("config", {"# option": "path: object = (1, 2)"}),
    "a search space of an option that is not there": ("config", {"# class": "search_space = {'depth': [1]}"}),
    "supports that gives False": ("supports", {"# method": "def supports(self, ctx): return False"}),
    "supports without a reason": ("supports", {"# method": "def supports(self, ctx): return Skip('')"}),
    "supports that breaks": ("supports", {"# method": "def supports(self, ctx): return ctx.nothing"}),
    "no supported cell": ("supports", {"# method": "def supports(self, ctx): return Skip('never')"}),
    "a prompt by chance": (
        "prompt",
        {"# method": "def prompt(self, ctx): return Prompt(f'{ctx.label} {np.random.random()}')"},
    ),
    "a prompt with an open field": (
        "prompt",
        {"# method": "def prompt(self, ctx): return Prompt('Write {label} in Amharic.')"},
    ),
    "a prompt without text": ("prompt", {"# method": "def prompt(self, ctx): return Prompt(' ')"}),
    "a prompt that is a string": ("prompt", {"# method": "def prompt(self, ctx): return ctx.label"}),
    "a prompt that breaks in Hebrew": (
        "prompt",
        {"# method": "def prompt(self, ctx): return Prompt({'am': 'ጻፍ'}[ctx.language])"},
    ),
    "a prompt that breaks for the second text": (
        "prompt",
        {"# method": "def prompt(self, ctx): return Prompt(['ጻፍ'][ctx.index])"},
    ),
    "a parser that breaks on an empty answer": (
        "prompt",
        {"# method": "def prompt(self, ctx): return Prompt('ጻፍ', parse=lambda text: [text[0]])"},
    ),
    "a question that is a string": ("prompt", {"# method": "def check(self, ctx, text): return f'{text}?'"}),
    "an edit that loses a text": ("prompt", {"# method": "def edit(self, ctx, texts): return texts[1:]"}),
    "a parser that returns one string": (
        "prompt",
        {"# method": "def prompt(self, ctx): return Prompt('ጻፍ', parse=lambda text: text)"},
    ),
    "a layer that the model does not have": ("fit", {"# fit": "layer, norm = 30, means.norm[1]"}),
    "a vector with NaN": ("fit", {"# fit": "vector[3] = np.nan"}),
    "a vector of another size": ("fit", {"# fit": "vector = vector[:7]"}),
    "a vector in double precision": ("fit", {"# fit": "vector = vector.astype(np.float64)"}),
    "a fit that fails for Hebrew": ("fit", {"# fit": "assert ctx.language != 'he', 'no Hebrew here'"}),
    "a fit that ends the program": ("fit", {"# fit": "raise SystemExit(3)"}),
    "a fit that returns nothing": ("fit", {"# end": "return None"}),
    "a provenance with a numpy number": ("provenance", {"# fit": "details = {'norm': np.float32(1)}"}),
    "a provenance with NaN": ("provenance", {"# fit": "details = {'norm': float('nan')}"}),
    "a provenance with numbers as keys": ("provenance", {"# fit": "details = {'layers': {1: 2}}"}),
    "a residual norm of one layer": ("provenance", {"# fit": "details = {'residual_norm': [1.0]}"}),
    "numpy's global randomness": ("determinism", {"# fit": "vector[0] = np.random.random()"}),
    "torch's global randomness": ("determinism", {"# fit": "import torch; vector[0] = float(torch.rand(1))"}),
    "random's global randomness": ("determinism", {"# fit": "import random; vector[0] = random.random()"}),
    "an unseeded generator": ("determinism", {"# fit": "vector[0] = np.random.default_rng().random()"}),
    "a vector that the next language gets too": (
        "independent of order",
        {"# fit": "vector = self.kept = getattr(self, 'kept', vector)"},
    ),
    "test text by the corpus": ("held out text", {"# fit": "ctx._corpus.split(ctx.task.name, ctx.language, 'test')"}),
    "validation text by the data source": (
        "held out text",
        {"# fit": "vector[0] = len(ctx._corpus.source.rows(ctx.task, 'validation')[0].text)"},
    ),
    "test text by what the corpus keeps": (
        "held out text",
        {
            "# fit": "rows = ctx._corpus._splits[ctx.task.name, ctx.language, 'test']\n"
            "        vector[0] = sum(map(ord, rows[0].text))"
        },
    ),
    "a hook that stays": ("model unchanged", {"# fit": HOOK}),
    "a hook for every module that stays": (
        "model unchanged",
        {"# fit": "from torch.nn.modules import module\n        module.register_module_forward_hook(lambda *a: None)"},
    ),
    "other weights": ("model unchanged", {"# fit": "next(ctx.model.model.parameters()).mul_(1.01)"}),
    "a model in training mode": ("model unchanged", {"# fit": "ctx.model.model.train()"}),
    "parameters that want a gradient": ("model unchanged", {"# fit": "ctx.model.model.requires_grad_(True)"}),
    "no gradients for anybody": ("model unchanged", {"# fit": "import torch; torch.set_grad_enabled(False)"}),
    "a forward pass of its own": (
        "model unchanged",
        {"# fit": "ctx.model.layers[0].forward = ctx.model.layers[0].forward"},
    ),
    "a hook that stays after a failure": (
        "model unchanged after error",
        {"# fit": f"hook = {HOOK}\n        ctx.mean_states(ctx.parallel(ctx.language))\n        hook.remove()"},
    ),
    "a strength that is never 0": ("strength 0", {"# fit": "strength = max(strength, 1.0)"}),
    "a fit that cannot do 0": ("strength 0", {"# fit": "assert strength > 0"}),
    "a file in the working directory": ("files", {"# fit": "open('cache.txt', 'w').close()"}),
    "an array in the working directory": ("files", {"# fit": "np.save('cache.npy', vector)"}),
    "a folder": ("files", {"# fit": "import os; os.makedirs('cache', exist_ok=True)"}),
    "words on stdout": ("output", {"# fit": "print('fitting', ctx.language)"}),
    "words on stderr, from supports": (
        "output",
        {"# method": "def supports(self, ctx): import sys; print('hm', file=sys.stderr)"},
    ),
    "a connection": (
        "network",
        {
            "# fit": "import socket\n        try:\n"
            "            socket.create_connection(('127.0.0.1', 9), 1)\n"
            "        except OSError:\n            pass"
        },
    ),
}
REFERENCE = '''
from harness import Reference, ReferenceContext, register


@register("mine")
class Mine(Reference):
    """The first train texts."""

    def texts(self, ctx: ReferenceContext) -> dict[str, list[str]]:
        drawn = {label: texts[: ctx.texts_per_label] for label, texts in ctx.train().items()}
        # end
        return drawn
'''
BROKEN_REFERENCES = {
    "one text too many": ("texts", "drawn = {label: [*texts, 'x'] for label, texts in drawn.items()}"),
    "an empty text": ("texts", "drawn = {label: ['' for _ in texts] for label, texts in drawn.items()}"),
    "a label that is missing": ("texts", "drawn.popitem()"),
    "a failure": ("texts", "drawn['no such label']"),
    "chance of its own": ("determinism", "import random; [random.shuffle(x) for x in drawn.values()]"),
    "test text that is read": ("held out text", "ctx._corpus.split(ctx.task.name, ctx.language, 'test')"),
    "test text that is handed out": (
        "held out text",
        "for row in ctx._corpus._splits[ctx.task.name, ctx.language, 'test']: drawn[row.label][0] = row.text",
    ),
    "a word on stdout": ("output", "print('hm')"),
}


def lasting_state(suite: TinySuite) -> dict[Any, Any]:
    """Return the state of the suite's model without what is new whenever it is loaded: ids of modules and hooks."""
    state = {at: value for at, value in model_state(suite.model).items() if at[0] != "modules"}
    hooks = {at: [(name, len(ids)) for name, ids in value] for at, value in state.items() if at[0] == "hooks"}
    return {**state, **hooks}


class Remembering(TinySuite):
    """Amharic and Hebrew with very short texts; those of equal prompts and steering are written once."""

    def __init__(self) -> None:
        super().__init__(languages=["am", "he"])
        short = self.suite.sampling.model_copy(update={"max_new_tokens": 4, "max_attempts": 1})
        self.suite = self.suite.model_copy(update={"sampling": short})
        for code, sentences in self.corpus._parallel.items():
            self.corpus._parallel[code] = sentences[:30]
        self.written: dict[tuple[Any, ...], list[str]] = {}
        self.first_state = lasting_state(self)

    def texts(self, cell: Cell, prompts: dict[str, list[Prompt]], steering: Steering, batch_size: int) -> list[str]:
        """Return the texts of a cell; all that decides them is compared, byte by byte."""
        key = cell.key
        asked = [(label, *of_label) for label, of_label in prompts.items()]
        named = (key.task, key.language, key.seed, key.texts_per_label, *asked, batch_size)
        what = (*named, *_bytes(steering))
        if what not in self.written:
            self.written[what] = super().texts(cell, prompts, steering, batch_size)
        return self.written[what]


@pytest.fixture(scope="module")
def suite() -> Iterator[TinySuite]:
    with Remembering() as small:
        yield small


@pytest.fixture
def check(suite, tmp_path, monkeypatch) -> Callable[..., dict[str, CheckResult]]:
    """Write a method in the working directory of its own, and return what the kit finds."""
    monkeypatch.chdir(tmp_path)

    def run(body: str, **options: object) -> dict[str, CheckResult]:
        Path("method.py").write_text(body, encoding="utf-8")
        registry, name, _ = find("method.py", [])
        return {result.check: result for result in run_checks(suite, registry, name, options)}

    return run


def changed(changes: dict[str, str], body: str = SOUND) -> str:
    for old, new in changes.items():
        assert body.count(old) == 1, old
        body = body.replace(old, new)
    return body


def failed(results: dict[str, CheckResult]) -> list[str]:
    return [name for name, result in results.items() if result.verdict == "FAILED"]


def test_a_sound_method_passes_every_check(check):
    results = check(SOUND)
    assert {name for name, _ in BROKEN.values()} == set(results) - {"batch size"}  # which has a test of its own
    assert {result.verdict for result in results.values()} == {"ok"}, results


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_method_fails_exactly_the_check_for_it(check, suite, name, changes):
    results = check(changed(changes))
    assert failed(results) == [name], results
    words = results[name].words
    assert len(words) > 30
    assert "\n" not in words
    assert "Traceback" not in words
    if "model unchanged" in name:
        assert lasting_state(suite) == suite.first_state  # the next method meets the model as it was


@pytest.mark.parametrize(("name", "line"), BROKEN_REFERENCES.values(), ids=list(BROKEN_REFERENCES))
def test_a_broken_reference_fails_exactly_the_check_for_it(check, name, line):
    assert failed(check(changed({"# end": line}, REFERENCE))) == [name]


def test_the_users_own_pytest_set_up_changes_nothing(check, monkeypatch):
    Path("conftest.py").write_text("raise SystemExit(3)")
    Path("pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--another-one")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    results = check(REFERENCE)
    assert {name for name, _ in BROKEN_REFERENCES.values()} < set(results)
    assert {result.verdict for result in results.values()} == {"ok"}
    assert len(results) == 9
    assert not Path(".pytest_cache").exists()


def test_ctrl_c_during_a_check_stops_the_program(check):
    with pytest.raises(KeyboardInterrupt):
        check(changed({"# end": "raise KeyboardInterrupt"}, REFERENCE))


def test_a_method_that_ends_the_program_in_a_check_fails_it(check):
    results = check(changed({"# method": "def prompt(self, ctx): raise SystemExit(3)"}))
    assert failed(results) == ["prompt"]


def test_texts_that_depend_on_the_batch_size_are_found(check, suite, monkeypatch):
    plain = suite.texts
    monkeypatch.setattr(suite, "texts", lambda *a: [text + "ው" * (a[3] == 3) for text in plain(*a)])
    results = check(SOUND)
    assert failed(results) == ["batch size"]
    assert "in batches of 3" in results["batch size"].words


def test_a_method_that_needs_the_network_is_told_so_and_gets_none(check):
    fit = "import urllib.request\n        urllib.request.urlopen('http://127.0.0.1:9/').read()"
    results = check(changed({"# fit": fit}))
    assert set(failed(results)) == {"fit", "network"}
    assert "127.0.0.1" in results["network"].words


def test_a_skip_with_a_reason_is_told_and_no_failure(check):
    skip = "def supports(self, ctx): return Skip('no word list') if ctx.language == 'he' else None"
    results = check(changed({"# method": skip}))
    assert failed(results) == []
    assert "skipped he: no word list" in results["supports"].words
    assert results["independent of order"].verdict == "skipped"
    refused = "from harness.core.errors import UnsupportedError\n        if ctx.language == 'he':\n"
    refused += "            raise UnsupportedError('too few sentences')"
    results = check(changed({"# fit": refused}))
    assert failed(results) == []
    assert "skipped he: too few sentences" in results["fit"].words


def test_a_method_that_only_prompts_is_fine_and_says_so(check):
    body = changed({"# method": "def prompt(self, ctx): return Prompt(f'ጻፍ {ctx.label}', system='שלום')"})
    results = check(body[: body.index("    def fit")])
    assert failed(results) == []
    assert "does not steer" in results["fit"].words
    assert results["batch size"].verdict == "ok"
    assert results["strength 0"].verdict == "skipped"


def test_the_field_of_the_strength_can_have_another_name_or_none(check):
    renamed = SOUND.replace("strength: float", "alpha: float").replace("config.strength", "config.alpha")
    assert "not declared" in check(renamed)["strength 0"].words
    declared = renamed.replace("# class", "strength_field = 'alpha'")
    assert "alpha=0" in check(declared)["strength 0"].words
    never = changed({"# class": "strength_field = None", "# fit": "strength = 0.3"})
    assert check(never)["strength 0"].verdict == "skipped"


def test_options_reach_the_method_and_its_strength_0(check):
    results = check(changed({"# fit": "assert layer == 2"}), layer=2)
    assert failed(results) == []
    assert "layer=2" in results["config"].words
    assert failed(check(changed({"# fit": "assert layer == 2"}), layer=1)) == ["fit"]


def test_options_of_test_config_are_used_where_none_are_given(check):
    body = changed({"# class": "test_config = {'layer': 2}", "# fit": "assert layer == 2"})
    assert failed(check(body)) == []
    assert failed(check(body, layer=1)) == ["fit"]
    assert failed(check(changed({"# class": "test_config = {'lyaer': 2}"}))) == ["config"]


def test_the_starter_file_passes(check):
    results = check(render_template("my-method"))
    assert failed(results) == []
    assert {result.verdict for result in results.values()} == {"ok"}


def test_two_looks_at_a_model_name_what_changed(new_model):
    model = new_model()
    before = model_state(model)
    assert differences(before, model_state(model)) == []
    handle = model.layers[1].register_forward_hook(lambda *a: None)
    assert differences(before, model_state(model)) == ["hooks of model.layers.1"]
    handle.remove()
    model.layers[0].mlp.down_proj.weight.data[0, 0] += 1
    assert differences(before, model_state(model)) == ["weights of model.layers.0.mlp.down_proj.weight"]


def test_the_watch_sees_nothing_of_what_happens_outside_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sandbox = Sandbox(tmp_path / "own")
    with sandbox.record():
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "a").write_text("x")
        Path(os.devnull).write_text("x")
    Path("b").write_text("x")
    print("hello")
    assert (sandbox.written, sandbox.printed, sandbox.connected) == ([], [], [])
    assert capsys.readouterr().out == "hello\n"
    with sandbox.record():
        Path("c").write_text("x")
        os.open("d", os.O_CREAT | os.O_WRONLY)
        print("ሰላም")
    assert {Path(name).name for name in sandbox.written} == {"c", "d"}
    assert sandbox.printed == ["ሰላም"]


QUICK = {"clas": {"min_texts": 30}, "learned": {"steps": 2}}
NIGHTLY = {"pca", "probe", "lda", "clas-published", "instruction"}  # they share all but a formula with others


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BUILT_IN if name not in NIGHTLY])
def test_every_built_in_method_keeps_the_contract(suite, name):
    registry, _, _ = find(name, [])
    results = run_checks(suite, registry, name, QUICK.get(name, {}))
    assert [result for result in results if result.verdict == "FAILED"] == []


@pytest.mark.nightly
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_method_keeps_the_contract_in_every_script(name):
    with TinySuite(languages=["am", "he", "mt", "su"]) as four:  # Latin letters with and without marks, too
        registry, _, _ = find(name, [])
        results = run_checks(four, registry, name, {})
    assert [result for result in results if result.verdict == "FAILED"] == []


@pytest.mark.slow
def test_the_command_prints_a_line_per_check_a_verdict_and_what_is_next(suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kit, "TinySuite", lambda: nullcontext(suite))  # the next command has all languages
    Path("method.py").write_text(SOUND, encoding="utf-8")
    done = steerboard("method", "test", "method.py")
    assert (done.code, done.err) == (0, "")
    *checks, verdict, following = done.out.splitlines()
    assert len(checks) == 16
    assert all(line.startswith("ok ") for line in checks)
    assert "mine keeps the contract" in verdict
    assert following.startswith("next: steerboard run --suite mini --plugin method.py")
    Path("method.py").write_text(changed({"# fit": "print(1)"}), encoding="utf-8")
    done = steerboard("method", "test", "mine", "--plugin", "method.py")
    assert done.code == 1
    assert [line.split()[1] for line in done.out.splitlines() if line.startswith("FAILED")] == ["output"]
    assert "mine fails 1 of" in done.out


def test_the_command_writes_json_for_machines():
    done = steerboard("method", "test", "human", "--format", "json")
    body = json.loads(done.out)
    assert (done.code, body["method"], body["passed"]) == (0, "human", True)
    assert {entry["verdict"] for entry in body["checks"]} == {"ok"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["languag"], "Did you mean 'language'?"),
        (["nothing.py"], "nothing.py does not exist"),
        (["broken.py"], "broken.py, line 1"),
        (["none.py"], "no class with @register"),
        (["two.py"], "steerboard method test one --plugin two.py"),
        (["language", "--options", "layer"], "give a JSON object"),
        (["language", "--options", "[1]"], "give a JSON object"),
        (["language", "--options", '{"lyaer": 1}'], "Did you mean 'layer'?"),
        (["language", "--options", '{"layer": [1, 2]}'], "not lists"),
        (["language", "--format", "xml"], "valid: json, text"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("def f(:\n")
    Path("none.py").write_text("x = 1\n")
    two = "from harness import SteeringMethod, register\n"
    for name in ("one", "other"):
        two += f"@register({name!r})\nclass M{name}(SteeringMethod):\n    pass\n"
    Path("two.py").write_text(two)
    assert expected in steerboard("method", "test", *arguments).one_line()


@pytest.mark.slow
def test_a_package_of_somebody_else_is_found_tested_and_run(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "TinySuite", lambda: nullcontext(suite))
    site, work = tmp_path / "site", tmp_path / "work"
    (site / "theirs").mkdir(parents=True)
    (site / "theirs" / "__init__.py").write_text(SOUND, encoding="utf-8")
    info = site / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[steerboard.methods]\nmine = theirs\n")
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(site)
    listed = steerboard("list", "methods")
    assert "mine" in listed.out
    tested = steerboard("method", "test", "mine")
    assert tested.code == 0, tested.out + tested.err
    assert "package theirs" in tested.out
    part = ["--languages", "am", "--tasks", "sentiment", "--limit", 2, "--seeds", 1, "--run", "run"]
    ran = steerboard("run", "--suite", "mini", "--methods", "mine", *part)
    assert ran.code == 0, ran.err
    cells = list((work / "run" / "cells").iterdir())
    assert len(cells) == 1
    for cell in cells:
        lines = (cell / "generations.jsonl").read_text(encoding="utf-8").splitlines()
        assert all(json.loads(line)["text"] for line in lines)
