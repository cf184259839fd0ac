"""What entries cost: sums that can be checked with a pencil, and what a real run reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.helpers import MODEL, generations, key, method, small_suite, steerboard, toy_llm, toy_manifest

from harness.core.cells import cell_id, entry_id, entry_of
from harness.core.records import CellKey, CellScores, CellStatus, Selection, TunedMethod, Usage
from harness.core.store import Run
from harness.ranking.cost import Cost, costs
from harness.ranking.results import collect
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
    version="1", options=OPTIONS, configurations=2, texts=8, tokens=300, seconds=9.0, fit=Usage(seconds=3.0, tokens=60)
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
        languages=["am", "he"], tasks=["sentiment"], settings=["zero-shot"], seeds=[1], texts_per_label={"sentiment": 2}
    )
    run.write_manifest(toy_manifest(**{"entries": entries, "selection": selection, **manifest}))
    return run


def cost_of(identity: Any, *runs: Run) -> Cost:
    (result_set,) = collect(runs)
    return costs(result_set)[entry_id(entry_of(cell_of(identity)))]


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


def test_a_prompting_method_has_the_search_of_the_method_that_steers_it(tmp_path):
    steered = method("persona", steering="language", steering_version="1", options=OPTIONS)
    for name, seconds in ((steered, 12.0), (method("persona"), 0.0)):
        run = start(tmp_path / f"run{seconds}", name, tuning={"language": SEARCH})
        finish(run, cell_of(name))
        assert cost_of(name, run).tuning_seconds == seconds


@pytest.mark.parametrize(
    "identity",
    [method("language", layer=0, strength=0.2), method("language", "2", **OPTIONS), method("quality", **OPTIONS)],
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
    (result_set,) = collect([tuned, untuned])
    assert costs(result_set)[entry_id(entry_of(cell))].tuning_seconds == 0.0
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
    (result_set,) = collect([run])
    assert list(costs(result_set)) == [entry_id(entry_of(cell_of()))]


def test_a_status_of_before_costs_were_recorded_is_still_read(tmp_path):
    old = {"schema": 1, "cell": cell_of().model_dump(mode="json"), "state": "ok", "seconds": 1.5}
    status = CellStatus.model_validate(old)
    assert (status.prompt_tokens, status.new_tokens, status.fit) == (None, None, None)


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
    (result_set,) = collect([finished])
    by_name = {result_set.entries[name].name: cost for name, cost in costs(result_set).items()}
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
