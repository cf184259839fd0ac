"""What entries cost: sums that can be checked with a pencil, and what fits, draws and searches report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import fit
from support.helpers import MODEL, generations, key, method, small_suite, steerboard, toy_llm, toy_manifest
from test_generation import PROMPTS, key_of
from test_methods import PARALLEL, sentences

from harness.core.cells import Cell, cell_id, entry_id, entry_of
from harness.core.errors import BrokenFileError
from harness.core.interventions import Intervention, Steering
from harness.core.records import CellKey, CellScores, CellStatus, Selection, TunedMethod, Usage
from harness.core.store import Run
from harness.data.sources import Example
from harness.data.suite import SamplingParams
from harness.engine.generate import TokenUsage, generate_cell
from harness.methods.contract import MethodConfig, SteeringMethod
from harness.methods.difference import LanguageSteering
from harness.methods.learned import LearnedVector
from harness.methods.registry import load_registry
from harness.ranking.cost import Cost, costs
from harness.ranking.results import collect
from harness.runner.fit import Fitter, UsageMeter, read_cost
from harness.scoring.metrics import LANGUAGE_FIDELITY, VALID_SHARE

# Sums over the cells of an entry

TEXTS = {"negative": ["መጥፎ ምግብ", "רע מאוד"], "positive": ["ጥሩ ምግብ", "טוב מאוד"]}
OPTIONS = {"layer": 1, "strength": 0.2}
ZERO, STEERED, HUMAN = method("zero-shot"), method("language", **OPTIONS), method("human")
NEGATED = method("negated", of="language", of_version="1", options=OPTIONS)
SHARED = {"activations/en": Usage(seconds=4.0, tokens=100)}
FITS = {
    "am": {**SHARED, "steering/a": Usage(seconds=1.0, tokens=10)},
    "he": {**SHARED, "steering/h": Usage(seconds=2.0, tokens=20)},
}
SEARCH = TunedMethod(
    version="1",
    options=OPTIONS,
    configurations=2,
    texts=8,
    tokens=300,
    seconds=9.0,
    fit=Usage(seconds=3.0, tokens=60),
)


def cell_of(identity: Any = ZERO, language: str = "am") -> CellKey:
    if identity is HUMAN:
        return key(method=identity, language=language, model=None, setting="none")
    return key(method=identity, language=language)


def finish(run: Run, cell: CellKey, share: float | None = 1.0, **status: Any) -> None:
    """Write a scored cell of four texts; share None leaves the share of valid texts out."""
    fields: dict[str, Any] = {"seconds": 2.0, "device": "cpu", "prompt_tokens": 40, "new_tokens": 10}
    fields = {**fields, "fit": {}, **status}
    run.write_cell(cell_id(cell), CellStatus(cell=cell, state="ok", **fields), generations(TEXTS))
    scores = [LANGUAGE_FIDELITY.score(0.9, "recipe")]
    scores += [] if share is None else [VALID_SHARE.score(share, "recipe")]
    run.write_scores(CellScores(cell_id=cell_id(cell), generations_sha256="0", protocol="p", scores=scores), {})


def start(folder: Path, *identities: Any, **manifest: Any) -> Run:
    """Write the manifest of a run of methods in Amharic and Hebrew."""
    run = Run(folder)
    entries = [entry_of(cell_of(identity)) for identity in identities]
    selection = Selection(
        languages=["am", "he"],
        tasks=["sentiment"],
        settings=["zero-shot"],
        seeds=[1],
        texts_per_label={"sentiment": 2},
    )
    run.write_manifest(toy_manifest(**{"entries": entries, "selection": selection, **manifest}))
    return run


def cost_of(identity: Any, *runs: Run) -> Cost:
    (cellset,) = collect(runs)
    return costs(cellset)[entry_id(entry_of(cell_of(identity)))]


@pytest.fixture
def run(tmp_path) -> Run:
    """Unsteered: 2 of 4 texts valid in Amharic, 4 of 4 in Hebrew; 5 seconds, 150 tokens in all."""
    run = start(tmp_path / "run", ZERO, STEERED, NEGATED, HUMAN, tuning={"language": SEARCH})
    finish(run, cell_of(), 0.5, seconds=2.0, prompt_tokens=40, new_tokens=20)
    finish(run, cell_of(language="he"), 1.0, seconds=3.0, prompt_tokens=60, new_tokens=30)
    for identity in (STEERED, NEGATED):
        for language in ("am", "he"):
            finish(run, cell_of(identity, language), seconds=1.0, fit=FITS[language])
    for language in ("am", "he"):
        finish(run, cell_of(HUMAN, language), seconds=0.5, device="", prompt_tokens=0, new_tokens=0)
    return run


def test_texts_tokens_and_seconds_are_summed_over_the_cells_of_an_entry(run):
    found = cost_of(ZERO, run)
    assert (found.texts, found.valid_texts) == (8, 6)
    assert (found.prompt_tokens, found.new_tokens, found.seconds) == (100, 50, 5.0)
    assert (found.fit_seconds, found.fit_tokens, found.tuning_seconds, found.tuning_tokens) == (0, 0, 0, 0)
    assert found.texts_per_second == 8 / 5
    assert found.seconds_per_1000_valid == pytest.approx(5 / 6 * 1000)
    assert found.tokens_per_1000_valid == pytest.approx(25_000)


def test_a_reading_that_several_fits_share_counts_once_in_an_entry(run):
    found = cost_of(STEERED, run)
    assert (found.fit_seconds, found.fit_tokens) == (4.0 + 1.0 + 2.0, 100 + 10 + 20)


def test_the_whole_search_counts_in_an_entry_that_uses_its_options(run):
    found = cost_of(STEERED, run)
    assert (found.tuning_seconds, found.tuning_tokens) == (9.0 + 3.0, 300 + 60)
    assert found.seconds_per_1000_valid == pytest.approx((2 + 7 + 12) / 8 * 1000)
    assert found.tokens_per_1000_valid == pytest.approx((100 + 130 + 360) / 8 * 1000)


def test_a_control_has_the_search_of_its_method(run):
    assert cost_of(NEGATED, run).tuning_seconds == 12.0


@pytest.mark.parametrize(
    "identity",
    [
        method("language", layer=0, strength=0.2),
        method("language", "2", **OPTIONS),
        method("quality", **OPTIONS),
    ],
    ids=["other options", "other version", "other method"],
)
def test_a_search_counts_for_no_other_entry(tmp_path, identity):
    run = start(tmp_path / "run", identity, tuning={"language": SEARCH})
    finish(run, cell_of(identity))
    assert cost_of(identity, run).tuning_seconds == 0.0


def test_a_search_that_chose_nothing_was_still_made(tmp_path):
    in_vain = SEARCH.model_copy(update={"options": None})
    run = start(tmp_path / "run", STEERED, tuning={"language": in_vain})
    finish(run, cell_of(STEERED))
    assert cost_of(STEERED, run).tuning_seconds == 12.0


def test_a_search_of_another_run_counts_where_its_options_were_run(tmp_path):
    tuned = start(tmp_path / "a", STEERED, tuning={"language": SEARCH})
    plain = start(tmp_path / "b", ZERO)
    finish(tuned, cell_of(STEERED))
    finish(plain, cell_of())
    assert cost_of(STEERED, plain, tuned).tuning_tokens == 360
    assert cost_of(ZERO, plain, tuned).tuning_tokens == 0


def test_a_search_on_one_model_does_not_count_on_another_one(tmp_path):
    other = MODEL.model_copy(update={"name": "other"})
    tuned = start(tmp_path / "a", STEERED, tuning={"language": SEARCH})
    cell = cell_of(STEERED).model_copy(update={"model": other})
    untuned = start(tmp_path / "b", entries=[entry_of(cell)], model=other)
    finish(tuned, cell_of(STEERED))
    finish(untuned, cell)
    (cellset,) = collect([tuned, untuned])
    assert costs(cellset)[entry_id(entry_of(cell))].tuning_seconds == 0.0
    assert cost_of(STEERED, tuned, untuned).tuning_seconds == 12.0


def test_texts_that_no_model_wrote_take_no_time(run):
    found = cost_of(HUMAN, run)
    assert (found.texts, found.valid_texts, found.seconds, found.devices) == (8, 8, 0.0, [])
    assert (found.prompt_tokens, found.new_tokens, found.fit_tokens) == (0, 0, 0)
    assert found.texts_per_second is None
    assert found.seconds_per_1000_valid == 0.0


def test_all_devices_are_named(run):
    finish(run, cell_of(language="he"), device="cuda:0")
    assert cost_of(ZERO, run).devices == ["cpu", "cuda:0"]


def test_what_a_cell_has_not_recorded_is_not_known_of_the_entry(run):
    finish(run, cell_of(STEERED), prompt_tokens=None, new_tokens=None, fit=None, seconds=1.0)
    found = cost_of(STEERED, run)
    assert (found.prompt_tokens, found.new_tokens, found.fit_seconds, found.fit_tokens) == (None,) * 4
    assert (found.seconds, found.texts_per_second, found.tuning_seconds) == (2.0, 4.0, 12.0)
    assert (found.seconds_per_1000_valid, found.tokens_per_1000_valid) == (None, None)


def test_a_part_of_a_fit_that_nobody_measured_is_not_known_of_the_fit(run):
    finish(run, cell_of(STEERED), fit={**FITS["am"], "activations/en": None})
    finish(run, cell_of(STEERED, "he"), fit={"steering/h": Usage(seconds=2.0, tokens=20)})
    assert cost_of(STEERED, run).fit_seconds is None


@pytest.mark.parametrize("change", [{"tokens": None}, {"fit": None}])
def test_a_search_that_did_not_record_its_cost_is_not_known(tmp_path, change):
    tuning = {"language": SEARCH.model_copy(update=change)}
    run = start(tmp_path / "run", STEERED, tuning=tuning)
    finish(run, cell_of(STEERED))
    found = cost_of(STEERED, run)
    assert (found.tuning_seconds, found.tuning_tokens) == (None, None)
    assert (found.seconds_per_1000_valid, found.tokens_per_1000_valid) == (None, None)


def test_nothing_is_divided_by_texts_that_were_not_checked_or_by_no_valid_text(run):
    finish(run, cell_of(), None)
    found = cost_of(ZERO, run)
    assert (found.valid_texts, found.seconds_per_1000_valid, found.tokens_per_1000_valid) == (None,) * 3
    for language in ("am", "he"):
        finish(run, cell_of(language=language), 0.0)
    found = cost_of(ZERO, run)
    assert (found.valid_texts, found.seconds_per_1000_valid, found.tokens_per_1000_valid) == (0, None, None)


def test_an_entry_without_a_finished_cell_has_no_cost(tmp_path):
    run = start(tmp_path / "run", ZERO, STEERED)
    finish(run, cell_of())
    run.write_cell("f00", CellStatus(cell=cell_of(STEERED), state="method_error", seconds=9.0), [])
    (cellset,) = collect([run])
    assert list(costs(cellset)) == [entry_id(entry_of(cell_of()))]


def test_a_status_of_before_costs_were_recorded_is_still_read(tmp_path):
    old = {"schema": 1, "cell": cell_of().model_dump(mode="json"), "state": "ok", "seconds": 1.5}
    status = CellStatus.model_validate(old)
    assert (status.prompt_tokens, status.new_tokens, status.fit) == (None, None, None)


# What is counted while texts are written


def test_draws_that_were_not_kept_are_counted(tiny_models):
    sampling = SamplingParams(temperature=1e-6, top_p=0.9, max_new_tokens=6, max_attempts=3)
    usage = TokenUsage()
    texts = generate_cell(tiny_models["llama"], PROMPTS, 3, Steering(), sampling, key_of, usage=usage)
    assert sum(text.attempts for text in texts) > len(texts)  # at no temperature the texts of a label repeat
    assert usage.prompt_tokens == sum(text.n_prompt_tokens * text.attempts for text in texts)
    assert usage.new_tokens == sum(text.n_new_tokens * text.attempts for text in texts)


# What is counted while a method is fitted


@pytest.fixture
def corpus(corpus_of):
    rows = {
        ("sentiment", code, "train"): [
            Example(f"{label}{i}", f"{label} {word} {i}", label)
            for label in ("positive", "negative")
            for i in range(10)
        ]
        for code, word in (("am", "ጥሩ"), ("he", "טוב"))
    }
    return corpus_of({code: sentences(texts) for code, texts in PARALLEL.items()}, rows)


@pytest.fixture
def fitter(new_fitter, tiny_models, corpus) -> Fitter:
    return new_fitter(tiny_models["llama"], corpus)


def parts_of(fitter: Fitter, method: SteeringMethod, language: str = "am") -> dict[str, Usage | None]:
    """Fit a method; return what that took, the method's own part named ``own``."""
    fit(fitter, method, language)
    data = fitter.plan.corpus.fingerprint("sentiment", language)
    changes = {"method": method.identity, "language": language, "data": data, "model": fitter.plan.model}
    cell = Cell(key(**changes))
    name = fitter.steering(cell, method)[0]
    return {"own" if k == f"steering/{name}" else k: v for k, v in fitter.cost(cell, method).items()}


def tokens_in(fitter: Fitter, texts: list[str]) -> int:
    return sum(len(fitter.model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)


def control(name: str, of: str = "language", **options: Any) -> SteeringMethod:
    (made,) = load_registry().configure(name, {"of": of, "options": options})
    return made


def test_a_fit_has_the_readings_that_it_used_token_by_token(fitter):
    parts = parts_of(fitter, LanguageSteering())
    own = parts.pop("own")
    assert (own.tokens, own.seconds >= 0) == (0, True)  # it only takes differences of what was read
    read = sorted(part.tokens for part in parts.values())
    assert read == sorted(tokens_in(fitter, PARALLEL[code]) for code in ("am", "he", "en"))


def test_a_reading_made_for_one_fit_counts_in_full_in_the_next_one(fitter, new_fitter, corpus):
    first, second = (parts_of(fitter, LanguageSteering(), code) for code in ("am", "he"))
    third = parts_of(new_fitter(fitter.model, corpus), LanguageSteering(LanguageSteering.Config(layer=1)))
    for parts in (first, second, third):
        parts.pop("own")
    assert len(first) == 3
    assert first == second == third


def test_a_stored_fit_keeps_its_cost(fitter, new_fitter, corpus):
    first = parts_of(fitter, LanguageSteering())
    assert parts_of(new_fitter(fitter.model, corpus), LanguageSteering()) == first


def test_what_a_fit_learns_by_passes_of_its_own_is_counted_without_padding(fitter):
    passes: list[int] = []

    def count(module: Any, args: Any, inputs: Any) -> None:
        passes.append(int(inputs["attention_mask"].sum()))

    plain = LearnedVector(LearnedVector.Config(layer=1, steps=3, batch_size=4))
    handle = fitter.model.decoder.register_forward_pre_hook(count, with_kwargs=True)
    parts = parts_of(fitter, plain)
    handle.remove()
    assert sum(part.tokens for part in parts.values()) == sum(passes)
    assert parts["own"].tokens > 3 * 4  # 3 steps of 4 texts, and looks at what is held out
    assert not fitter.model.decoder._forward_pre_hooks.get(handle.id)


def test_a_fit_that_takes_anothers_carries_its_cost(fitter):
    plain = parts_of(fitter, LearnedVector(LearnedVector.Config(layer=1, steps=3)))
    twice = parts_of(fitter, LearnedVector(LearnedVector.Config(layer=1, steps=3, strength=2.0)))
    assert twice.pop("own").tokens == 0
    (of_one,) = (name for name in twice if name.startswith("steering/"))
    assert twice.pop(of_one) == plain.pop("own")
    assert twice == plain


@pytest.mark.parametrize("first", [True, False], ids=["fitted before", "fitted within"])
def test_a_control_carries_the_cost_of_its_methods_fit(fitter, first):
    if first:
        parts_of(fitter, LanguageSteering())
    found = parts_of(fitter, control("negated"))
    own, method = found.pop("own"), parts_of(fitter, LanguageSteering())
    assert own.tokens == 0
    assert sorted(part.tokens for part in found.values()) == sorted(part.tokens for part in method.values())
    assert len(found) == 4  # three readings and the method's own part


def test_a_method_that_fits_nothing_costs_nothing(fitter):
    (zero,) = load_registry().configure("zero-shot", {})
    assert fitter.cost(Cell(key(method=zero.identity)), zero) == {}


class Writes(SteeringMethod):
    """Lets the model write in its fit."""

    name, version = "writes", "1"

    class Config(MethodConfig):
        """Nothing to set."""

    def fit(self, ctx: Any) -> Steering:
        ids = torch.tensor([[5, 6, 7, 8, 9], [0, 0, 5, 6, 7]])
        ctx.model.model.generate(
            ids, attention_mask=(ids > 0).long(), max_new_tokens=4, min_new_tokens=4, pad_token_id=0
        )
        return Steering((Intervention("layer_output", 1, "add", np.ones(16, np.float32), 1.0, "raw", 1.0),))


def test_tokens_that_a_fit_writes_count_once_each(fitter):
    parts = parts_of(fitter, Writes())
    assert parts["own"].tokens == (5 + 3) + 2 * 3  # both prompts; of 4 new ones the last is not read


class Fails(Writes):
    """Reads, and then fails."""

    name = "fails"

    def fit(self, ctx: Any) -> Steering:
        ctx.mean_states(ctx.parallel("am"))
        raise RuntimeError("on purpose")


def test_a_fit_that_failed_leaves_no_hook_and_no_cost_in_the_next_one(fitter):
    before = dict(fitter.model.decoder._forward_pre_hooks)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(fitter, Fails())
    assert dict(fitter.model.decoder._forward_pre_hooks) == before
    assert parts_of(fitter, Writes())["own"].tokens == 14


def test_what_an_inner_part_takes_is_not_the_outer_ones_own(monkeypatch, tiny_models):
    now = iter([0.0, 1.0, 5.0, 7.0])  # the outer part begins, the inner one begins and ends, the outer ends
    clock = SimpleNamespace(monotonic=lambda: next(now))
    monkeypatch.setattr("harness.runner.usage.time", clock)
    model, meter, ids = tiny_models["llama"], UsageMeter(), torch.ones((1, 3), dtype=torch.int64)
    with meter.part("outer", model) as outer:
        with meter.part("inner", model) as inner:
            model.decoder(input_ids=ids)
        meter.use(inner.parts)
        model.decoder(inputs_embeds=model.decoder.get_input_embeddings()(ids[:, :2]))
    assert inner.parts == {"inner": Usage(seconds=4.0, tokens=3)}
    assert outer.parts == {**inner.parts, "outer": Usage(seconds=3.0, tokens=2)}


def test_files_of_before_costs_were_recorded_have_none_that_is_known(fitter, new_fitter, corpus):
    parts_of(fitter, LanguageSteering())
    for path in fitter.plan.run.path.glob("*/*.cost.json"):
        path.unlink()
    again = new_fitter(fitter.model, corpus)
    assert parts_of(again, LanguageSteering()) == {"own": None}
    fresh = parts_of(again, LanguageSteering(LanguageSteering.Config(layer=1)))
    assert fresh.pop("own").tokens == 0
    assert list(fresh.values()) == [None, None, None]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1, "parts": 5}', '{"schema": 9, "parts": {}}'])
def test_a_broken_file_of_costs_is_named_and_no_method_is_at_fault(tmp_path, content):
    (tmp_path / "x.cost.json").write_text(content, encoding="utf-8")
    with pytest.raises(BrokenFileError, match=r"x\.cost\.json"):
        read_cost(tmp_path / "x.safetensors")


# Through the command

METHODS = "zero-shot,language,human"


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> Any:
    """Return what runs the small suite; at almost no temperature, so that many texts are drawn again."""
    folder = tmp_path_factory.mktemp("suite")
    suite = small_suite(folder, toy_llm(folder / "toy"))
    text = suite.read_text(encoding="utf-8")
    assert "temperature: 0.8" in text
    suite.write_text(text.replace("temperature: 0.8", "temperature: 0.000001"), encoding="utf-8")
    words = ["--suite", suite, "--tasks", "sentiment", "--limit", "2", "--settings", "zero-shot"]
    return lambda run, *more: steerboard("run", *words, "--run", run, "--methods", METHODS, *more)


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("finished") / "run")
    outcome = command(run.path, "--seeds", "1")
    assert outcome.code == 0, outcome.err
    return run


def statuses(run: Run, name: str) -> list[CellStatus]:
    found = [run.status(cell) for cell in run.cell_ids()]
    return [status for status in found if status and status.cell.method.name == name]


def test_the_statuses_of_a_run_carry_the_tokens_of_all_draws(finished):
    redraws = 0
    for status in statuses(finished, "zero-shot") + statuses(finished, "language"):
        texts = finished.generations(cell_id(status.cell))
        assert status.prompt_tokens == sum(text.n_prompt_tokens * text.attempts for text in texts) > 0
        assert status.new_tokens >= sum(text.n_new_tokens for text in texts)
        redraws += status.redraws
    assert redraws > 0


def test_the_statuses_of_a_run_carry_the_fit_where_there_is_one(finished):
    for name in ("zero-shot", "human"):
        assert [status.fit for status in statuses(finished, name)] == [{}, {}]
    for status in statuses(finished, "language"):
        own = status.fit[f"steering/{status.steering}"]
        assert (own.tokens, len(status.fit)) == (0, 4)  # three languages were read
        assert all(part.tokens > 0 for part in status.fit.values() if part is not own)
    for status in statuses(finished, "human"):
        assert (status.prompt_tokens, status.new_tokens) == (0, 0)


def test_a_later_run_gives_its_cells_the_cost_of_the_fits_that_it_finds(finished, command, tmp_path):
    run = Run(Path(shutil.copytree(finished.path, tmp_path / "run")))
    assert command(run.path, "--seeds", "1,2").code == 0
    by_language: dict[str, list[Any]] = {"am": [], "he": []}
    for status in statuses(run, "language"):
        by_language[status.cell.language].append(status.fit)
    for first, second in by_language.values():
        assert first == second


def test_the_cost_of_a_real_entry_adds_up(finished):
    (cellset,) = collect([finished])
    by_name = {cellset.entries[name].name: cost for name, cost in costs(cellset).items()}
    cells = statuses(finished, "language")
    found = by_name["language"]
    assert found.texts == 2 * 2 * 2  # languages, labels, texts
    assert found.seconds == pytest.approx(sum(status.seconds for status in cells))
    once = {name: part for status in cells for name, part in status.fit.items()}
    assert (len(once), found.fit_tokens) == (5, sum(part.tokens for part in once.values()))
    assert found.devices == [cells[0].device]
    assert by_name["zero-shot"].fit_seconds == 0.0


def test_a_status_holds_the_cost_in_plain_json(finished):
    (status, *_) = statuses(finished, "language")
    path = finished.cell(cell_id(status.cell)) / "status.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    assert {"prompt_tokens", "new_tokens", "fit"} <= set(body)
    assert set(next(iter(body["fit"].values()))) == {"seconds", "tokens"}
