"""Controls: the controlled method's own fit with one thing taken away, and everything else the same."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import LAYERS, fit
from safetensors.numpy import load_file
from support.contexts import BAD, PARALLEL, prompt_context, sentences
from support.helpers import MINI, small_suite, steerboard, toy_llm

from harness.core.errors import UserError
from harness.core.interventions import Intervention, Steering, load_steering, save_steering
from harness.core.store import Run
from harness.data.prompts import Prompt
from harness.data.sources import Example, LocalData
from harness.methods import controls as shuffling
from harness.methods.clas import Clas
from harness.methods.contract import CellContext, MethodConfig, SteeringMethod, register
from harness.methods.controls import Control
from harness.methods.difference import LanguageSteering, QualitySteering
from harness.methods.registry import load_registry
from harness.ranking.results import collect

CONTROLS = ["random", "negated", "other-language", "shuffled"]
FIELDS = ("site", "layer", "operation", "strength", "unit", "positions")


def control(name: str, of: str = "language", **options: Any) -> SteeringMethod:
    """Return a control as a suite's list would make it."""
    own = {key: options.pop(key) for key in ("language",) if key in options}
    (made,) = load_registry().configure(name, {"of": of, "options": options, **own})
    return made


@pytest.fixture
def corpus(corpus_of):
    rows = [Example(f"{label}{i}", f"{label} ጥሩ {i}", label) for label in ("positive", "negative") for i in (1, 2)]
    return corpus_of(
        {code: sentences(texts) for code, texts in PARALLEL.items()},
        {("sentiment", "am", "train"): rows},
        degraded={("noise", "am"): sentences(BAD), ("noise", "he"): sentences(["היה האוכל", "לכאן באנו"])},
    )


@pytest.fixture
def fitter(new_fitter, tiny_models, corpus):
    return new_fitter(tiny_models["llama"], corpus)


TARGETS = [
    ("language", {"layer": 2, "strength": 0.3, "positions": "generated"}),
    ("quality", {"layer": 1, "strength": -2.0, "unit": "raw"}),
    ("clas", {"min_texts": 2, "alpha": -5.0, "positions": "generated"}),
]


def target(name: str, options: dict[str, Any]) -> SteeringMethod:
    cls: Any = {"language": LanguageSteering, "quality": QualitySteering, "clas": Clas}[name]
    return cls(cls.Config(**options))


# What every control shares with its method


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize(("of", "options"), TARGETS, ids=[name for name, _ in TARGETS])
def test_site_layer_strength_and_positions_are_those_of_the_method(fitter, name, of, options):
    own, controlled = fit(fitter, target(of, options)), fit(fitter, control(name, of, **options))
    assert len(own.interventions) == len(controlled.interventions) > 0
    for one, other in zip(own.interventions, controlled.interventions, strict=True):
        assert [getattr(one, field) for field in FIELDS] == [getattr(other, field) for field in FIELDS]
    assert controlled.provenance["fit"]["control"]["of"] == of
    assert controlled.provenance["fit"]["control"]["rule"]


@pytest.mark.parametrize("name", CONTROLS)
def test_the_identity_holds_the_methods_name_version_and_every_option(name):
    identity = control(name, "language", layer=0.48).identity
    assert (identity.name, identity.version) == (name, "1")
    assert identity.config["of"] == "language"
    assert identity.config["of_version"] == LanguageSteering.version
    assert identity.config["options"] == LanguageSteering.Config(layer=0.48).model_dump(mode="json")
    assert identity.title == f"{name} of language"
    assert identity.options["layer"] == 0.48


def test_a_new_version_of_the_method_is_a_new_control(monkeypatch):
    before = control("negated").identity
    monkeypatch.setattr(LanguageSteering, "version", "2")
    assert control("negated").identity != before


def test_a_control_runs_where_its_method_does_with_its_prompt(small_suite):
    class Picky(SteeringMethod):
        """Only few-shot, not in Hebrew, in its own words."""

        settings = ("few-shot",)

        def fit(self, ctx: Any) -> Steering:
            return Steering()

        def supports(self, ctx: CellContext) -> Any:
            return "no Hebrew" if ctx.language == "he" else None

        def prompt(self, ctx: Any) -> Prompt:
            return Prompt("ጻፍ", system="תכתוב")

    register("picky")(Picky)
    made = load_registry().get("negated")()
    made.bind(lambda name, options: [Picky()])
    assert made.settings == ("few-shot",)
    assert made.prompt(prompt_context(small_suite, "few-shot")) == Prompt("ጻፍ", system="תכתוב")
    hebrew = CellContext(small_suite, small_suite.task("sentiment", "he"), "few-shot", 1, 2)
    assert made.supports(hebrew) == "no Hebrew"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": "negated"}, "'negated' is not a steering method"),
        ({"of": "random", "options": {"of": "language"}}, "'random' is not a steering method"),
        ({"of": "zero-shot"}, "'zero-shot' is not a steering method"),
        ({"of": "human"}, "'human' is not a steering method"),
        ({"of": "langage"}, "unknown method 'langage'.*Did you mean 'language'"),
        ({"options": {"strength": [0.1, 0.2]}}, "give single options of 'language', not a sweep"),
        ({"options": {"strenght": 0.1}}, "option of method 'language': 'strenght'.*Did you mean 'strength'"),
        ({"options": {"strength": "much"}}, "method 'language': strength"),
        ({"off": "language"}, "option of method 'random': 'off'.*Did you mean 'of'"),
    ],
    ids=str,
)
def test_what_cannot_be_controlled_is_one_clear_line(options, words):
    with pytest.raises(UserError, match=words) as refusal:
        load_registry().configure("random", options)
    assert "\n" not in str(refusal.value)


def test_a_sweep_of_whole_controls_gives_one_for_each(fitter):
    options = [{"strength": 0.1}, {"strength": 0.2}]
    made = load_registry().configure("random", {"of": ["language", "quality"], "options": options})
    assert [(m.identity.config["of"], m.identity.options["strength"]) for m in made] == [
        ("language", 0.1),
        ("language", 0.2),
        ("quality", 0.1),
        ("quality", 0.2),
    ]


# Random


def test_a_random_vector_has_the_same_norm_and_another_direction(fitter):
    own, drawn = (fit(fitter, m).interventions[0] for m in (LanguageSteering(), control("random")))
    assert np.linalg.norm(drawn.vector) == pytest.approx(np.linalg.norm(own.vector), rel=1e-6)
    assert abs(drawn.vector @ own.vector) < 0.9
    assert drawn.vector.dtype == np.float32
    assert drawn.residual_norm == own.residual_norm


def test_a_random_vector_is_the_same_in_every_run_and_another_one_elsewhere(new_fitter, tiny_models, corpus):
    def vector(folder: str, method: SteeringMethod, language: str = "am") -> np.ndarray:
        fitter = new_fitter(tiny_models["llama"], corpus, folder)
        return fit(fitter, method, language).interventions[0].vector

    one = vector("a", control("random"))
    assert np.array_equal(one, vector("b", control("random")))
    others = [
        vector("a", control("random"), "he"),
        vector("a", control("random", layer=2)),
        vector("a", control("random", "quality")),
    ]
    assert all(abs(one @ other) < 0.9 for other in others)


def test_gains_are_dealt_to_other_neurons(fitter):
    options = {"min_texts": 2, "layers": [0, 1]}
    own, drawn = (fit(fitter, m).interventions for m in (target("clas", options), control("random", "clas", **options)))
    for one, other in zip(own, drawn, strict=True):
        assert Counter(one.vector.tolist()) == Counter(other.vector.tolist())
        assert not np.array_equal(one.vector, other.vector)
    assert not np.array_equal(own[0].vector.argsort(), drawn[1].vector.argsort())


# Negated


@pytest.mark.parametrize(("of", "options"), TARGETS, ids=[name for name, _ in TARGETS])
def test_negated_is_exactly_minus_the_file_of_the_method(fitter, of, options):
    negated = fit(fitter, control("negated", of, **options))
    own = fit(fitter, target(of, options))
    for one, other in zip(own.interventions, negated.interventions, strict=True):
        assert np.array_equal(other.vector, -one.vector)
        assert other.residual_norm == one.residual_norm
    for part in ("counts", "token_rule", "residual_norm"):
        assert negated.provenance[part] == own.provenance[part]


def by_chance() -> type[SteeringMethod]:
    @register("by-chance")
    class ByChance(SteeringMethod):
        """A vector from ``ctx.rng``."""

        class Config(MethodConfig):
            """One option."""

            size: int = 16

        def fit(self, ctx: Any) -> Steering:
            """Return a vector drawn by chance."""
            vector = ctx.rng.normal(size=self.config.size).astype(np.float32)
            return Steering((Intervention("layer_output", 1, "add", vector, 1.0, "raw", 1.0),))

    return ByChance


@pytest.mark.parametrize("control_first", [True, False])
def test_a_method_by_chance_is_controlled_in_the_very_fit_that_its_own_cells_use(fitter, control_first):
    method = by_chance()()
    negated = load_registry().get("negated")(Control.Config(of="by-chance"))
    negated.bind(lambda name, options: [by_chance()()])
    order = [negated, method] if control_first else [method, negated]
    found = {m.name: fit(fitter, m).interventions[0].vector for m in order}
    assert np.array_equal(found["negated"], -found["by-chance"])
    files = (fitter.plan.run.path / "steering").glob("*.safetensors")
    one, other = (load_file(path)["intervention.0"] for path in files)
    assert np.array_equal(one, -other)


def test_a_random_vector_has_the_norm_of_a_vector_that_is_no_unit_vector(fitter):
    drawn = load_registry().get("random")(Control.Config(of="by-chance"))
    drawn.bind(lambda name, options: [by_chance()()])
    own, other = (fit(fitter, m).interventions[0].vector for m in (by_chance()(), drawn))
    assert np.linalg.norm(own) > 2
    assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(own), rel=1e-6)
    assert not np.allclose(own, other)


# Other language


def test_other_language_is_the_methods_fit_for_that_language(fitter):
    other = fit(fitter, control("other-language"), "am")  # he is the next in the suite's list
    assert np.array_equal(other.interventions[0].vector, fit(fitter, LanguageSteering(), "he").interventions[0].vector)
    assert other.provenance["language"] == "am"
    assert other.provenance["fit"]["control"]["language"] == "he"
    back = fit(fitter, control("other-language"), "he")  # the last takes the first
    assert np.array_equal(back.interventions[0].vector, fit(fitter, LanguageSteering(), "am").interventions[0].vector)


def test_a_language_may_be_named_and_is_skipped_where_it_is_the_cells_own(fitter, small_suite):
    named = control("other-language", "quality", language="he")
    assert named.identity.config["language"] == "he"
    assert np.array_equal(
        fit(fitter, named, "am").interventions[0].vector,
        fit(fitter, QualitySteering(), "he").interventions[0].vector,
    )

    def cell(code: str) -> CellContext:
        return CellContext(small_suite, small_suite.task("sentiment", code), "zero-shot", 1, 2)

    assert named.supports(cell("am")) is None
    assert "he is the language" in named.supports(cell("he")).reason


def test_a_suite_of_one_language_has_no_other_and_skips(small_suite):
    alone = small_suite.model_copy(update={"languages": ["am"]})
    ctx = CellContext(alone, alone.task("sentiment", "am"), "zero-shot", 1, 2)
    assert "no other language" in control("other-language").supports(ctx).reason


def test_the_reference_language_takes_the_fit_of_the_suites_first(small_suite):
    english = small_suite.task("sentiment", "am").model_copy(update={"language": "en"})
    ctx = CellContext(small_suite, english, "zero-shot", 1, 2)
    assert control("other-language").supports(ctx) is None


def test_a_language_that_the_suite_lacks_is_one_line_with_the_valid_ones(fitter):
    with pytest.raises(UserError, match=r"unknown language 'xx'; valid: .*am"):
        fit(fitter, control("other-language", language="xx"))


# Shuffled: the texts


def test_a_shuffled_context_hands_out_shuffled_text_of_every_kind(fitter, corpus):
    seen: list[Any] = []

    @register("looks")
    class Looks(SteeringMethod):
        """Notes what it is given."""

        def fit(self, ctx: Any) -> Steering:
            """Return nothing."""
            seen.append(ctx)
            return Steering()

    made = load_registry().get("shuffled")()
    made.bind(lambda name, options: [Looks()])
    fit(fitter, made)
    (ctx,) = seen
    pools = {code: {f"s{i}": text for i, text in enumerate(texts)} for code, texts in PARALLEL.items()}
    assert isinstance(ctx, shuffling.ShuffledFitContext)
    assert {code: ctx.parallel(code) for code in ctx.languages} == shuffling.permute_languages(pools)
    everything = {text for texts in PARALLEL.values() for text in texts}
    assert {text for code in ctx.languages for text in ctx.parallel(code)} == everything
    assert ctx.pairs("am", "he") == list(zip(ctx.parallel("am"), ctx.parallel("he"), strict=True))
    assert ctx.contrast() == shuffling.swap_pairs(corpus.contrast("am"), "am")
    plain = {label: [f"{label} ጥሩ {i}" for i in (1, 2)] for label in ("negative", "positive")}
    assert ctx.train() == shuffling.permute_labels(plain, "sentiment/am")


def test_pairs_of_two_languages_are_translations_of_one_another(corpus_of, fitter, tiny_models, new_fitter):
    lacking = {**PARALLEL, "he": PARALLEL["he"][:1]}
    corpus = corpus_of({code: sentences(texts) for code, texts in lacking.items()})
    seen: list[Any] = []

    class Looks(LanguageSteering):
        """Notes what it is given."""

        def fit(self, ctx: Any) -> Steering:
            seen.append(ctx.pairs("am", "he"))
            return Steering()

    fit(new_fitter(tiny_models["llama"], corpus, "pairs"), Looks())
    assert seen == [[(PARALLEL["am"][0], PARALLEL["he"][0])]]


# Shuffled: the fit


@pytest.fixture(scope="module")
def pocket():
    from harness.core.checkpoints import resolve_checkpoint
    from harness.engine.model import load_model

    return load_model(resolve_checkpoint(str(MINI / "pocketlm")), "float32", "cpu")


def test_shuffled_languages_leave_less_of_a_direction_than_true_ones(pocket, new_fitter, corpus_of):
    texts = {code: LocalData(MINI / "data").parallel(code)[:40] for code in ("am", "he", "en")}
    fitter = new_fitter(pocket, corpus_of(texts))
    for code in ("am", "he"):
        own = fit(fitter, LanguageSteering(), code)
        shuffled = fit(fitter, control("shuffled"), code)
        norms = [s.provenance["fit"]["norm_before_unit"] for s in (own, shuffled)]
        assert norms[1] < 0.6 * norms[0]
        assert np.linalg.norm(shuffled.interventions[0].vector) == pytest.approx(1.0, abs=1e-6)
        assert {n["texts"] for n in shuffled.provenance["counts"].values()} == {40}


def test_a_shuffled_fit_is_not_taken_for_the_methods_own(fitter):
    shuffled = fit(fitter, control("shuffled", layer=1))
    own = fit(fitter, LanguageSteering(LanguageSteering.Config(layer=1)))
    assert not np.allclose(shuffled.interventions[0].vector, own.interventions[0].vector)
    assert len(own.provenance["residual_norm"]) == LAYERS


# Through the command


def run(folder: Any, methods: list[Any], *more: Any) -> Any:
    """Run methods on a toy model by the command: two languages, one seed, two texts a label."""
    suite = folder / "small.yaml"
    if not suite.exists():
        small_suite(folder, toy_llm(folder / "toy"))
    body = yaml.safe_load(suite.read_text(encoding="utf-8"))
    body["methods"] = methods
    suite.write_text(yaml.safe_dump(body, allow_unicode=True), encoding="utf-8")
    words = ["--tasks", "sentiment", "--settings", "zero-shot", "--seeds", "1", "--limit", "2"]
    return steerboard("run", "--suite", suite, *words, *more, "--run", folder / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a method with all of its controls."""
    folder = tmp_path_factory.mktemp("controls")
    controls = [{name: {"of": "language", "options": {"strength": 0.5}}} for name in CONTROLS]
    outcome = run(folder, [{"language": {"strength": 0.5}}, *controls])
    assert outcome.code == 0, outcome.err
    return folder, outcome.out


def test_rows_are_named_after_control_and_method(finished):
    folder, printed = finished
    (result_set,) = collect([Run(folder / "run")])
    names = {"language", *(f"{name} of language" for name in CONTROLS)}
    assert {row.name for row in result_set.entries.values()} == names
    assert all(f"{name} " in printed for name in names)


def test_every_control_of_a_run_has_cells_in_every_language(finished):
    store = Run(finished[0] / "run")
    found = [store.status(cell) for cell in store.cell_ids()]
    assert {(s.cell.method.name, s.cell.language, s.state) for s in found} == {
        (name, code, "ok") for name in ("language", *CONTROLS) for code in ("am", "he")
    }


def test_a_control_of_nothing_ends_the_command_with_one_line(tmp_path):
    outcome = run(tmp_path, [{"random": {"of": "few-shot"}}])
    assert "control 'random': 'few-shot' is not a steering method" in outcome.one_line()
    assert not (tmp_path / "run").exists()


# A steering file of another model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"model": {"name": "other", "revision": "abc", "fingerprint": "beef", "dtype": "float32"}},
            r"was fitted on other at revision abc \(weights beef\), this model is toy",
        ),
        ({"tokenizer": "0" * 16}, "was fitted with another tokenizer than toy has here"),
    ],
    ids=["weights", "tokenizer"],
)
def test_a_stored_steering_of_another_model_ends_the_command_with_one_line(tmp_path, change, words):
    assert run(tmp_path, ["language"], "--languages", "am").code == 0
    store = Run(tmp_path / "run")
    (cell,) = store.cell_ids()
    path = store.steering_path(store.status(cell).steering)
    spoil(path, change)
    (store.cell(cell) / "status.json").unlink()
    outcome = run(tmp_path, ["language"], "--languages", "am")
    assert re.search(words, last_line(outcome))
    assert path.name in last_line(outcome)
    assert store.status(cell) is None  # no method is at fault
    path.unlink()  # the next step that the line names
    assert run(tmp_path, ["language"], "--languages", "am").code == 0


def spoil(path: Path, change: dict[str, Any]) -> None:
    """Write a steering file again, whole, as one of another model."""
    steering = load_steering(path)
    save_steering(path, replace(steering, provenance={**steering.provenance, **change}))


def last_line(outcome: Any) -> str:
    """Return the refusal of a command that had begun to work."""
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("steerboard: ")]
    assert len(lines) == 1
    return lines[0]
