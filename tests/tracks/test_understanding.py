"""Understanding runs: which tasks are meant, what becomes of lm-eval's results, the whole grid."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.helpers import MINI, ROOT, contents, finished_cells, killed_after, steerboard

from harness.core.errors import UnsupportedError, UserError
from harness.core.store import ANSWERS, Run
from harness.data.suite import load_suite
from harness.ranking.results import collect
from harness.scoring.metrics import TASK_MACRO_F1, TASK_SCORE
from harness.tracks.understanding.planning import examples, fit_task, understanding_methods
from harness.tracks.understanding.running import answers
from harness.tracks.understanding.tasks import TaskIndex, TaskLanguage, language_of, task_group

pytest.importorskip("lm_eval")

GRID = ("--suite", "mini", "--tasks", "topic,sentiment", "--languages", "am,he,en", "--limit", 6)
CUSTOM = """
task: {name}
{tag}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
{choices}
metric_list:
  - {{metric: {metric}, aggregation: mean, higher_is_better: true}}
{more}
"""


def custom(folder: Path, name: str, tag: str = "", kind: str = "multiple_choice", metric: str = "acc") -> None:
    """Write a task of somebody else: three questions in a JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / f"{name}.json"
    questions = ["ቀለሙ ምንድን ነው?", "מה הצבע?", "what colour?"]
    body = [{"question": q, "answer": i % 2 if kind == "multiple_choice" else "red"} for i, q in enumerate(questions)]
    rows.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
    chosen = 'doc_to_choice: ["red", "blue"]' if kind == "multiple_choice" else ""
    more = "generation_kwargs: {until: ['.'], max_gen_toks: 4}" if kind == "generate_until" else ""
    text = CUSTOM.format(
        name=name,
        tag=f"tag: {tag}" if tag else "",
        rows=rows,
        kind=kind,
        choices=chosen,
        metric=metric,
        more=more,
    )
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def index(*folders: Path) -> TaskIndex:
    return TaskIndex(load_suite("mini"), MINI / "data", folders)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("xnli_de", "xnli"),
        ("belebele_amh_Ethi", "belebele"),
        ("global_mmlu_id", "global_mmlu"),
        ("steerboard_topic_am", "steerboard_topic"),
        ("hellaswag", "hellaswag"),
    ],
)
def test_the_family_of_a_task_is_its_name_without_the_language(name, family):
    assert task_group(name) == family


def test_tasks_of_the_suite_are_found_in_every_language_that_has_them():
    found = index().find(["topic", "sentiment"], ["am", "he", "en"])
    assert TaskLanguage("topic", "am", "steerboard_topic_am") in found
    assert [place.language for place in found if place.family == "topic"] == ["am", "he", "en"]
    assert [place.language for place in found if place.family == "sentiment"] == [
        "am",
        "he",
    ]  # none in English


def test_a_tag_a_task_a_prefix_and_a_task_with_its_language_said(tmp_path):
    for name in ("colours_am", "colours_he", "colours_fr"):
        custom(tmp_path, name, tag="all_colours")
    custom(tmp_path, "plain")
    tasks = index(tmp_path)
    codes = ["am", "he"]
    assert tasks.find(["all_colours"], codes) == [
        TaskLanguage("all_colours", "am", "colours_am"),
        TaskLanguage("all_colours", "he", "colours_he"),
    ]
    assert tasks.find(["colours_am"], codes) == [TaskLanguage("colours", "am", "colours_am")]
    assert tasks.find(["colours"], codes) == [
        TaskLanguage("colours", "am", "colours_am"),
        TaskLanguage("colours", "he", "colours_he"),
    ]
    assert tasks.find(["plain:he"], codes) == [TaskLanguage("plain", "he", "plain")]


def test_a_task_without_a_language_and_one_in_none_of_them_are_refused(tmp_path):
    custom(tmp_path, "plain")
    custom(tmp_path, "colours_am")
    tasks = index(tmp_path)
    with pytest.raises(UserError, match=r"task 'plain' does not name a language. Say which it is in, such as plain:am"):
        tasks.find(["plain"], ["am"])
    with pytest.raises(UserError, match="unknown language 'am'; valid: he"):
        tasks.find(["colours_am"], ["he"])
    with pytest.raises(UserError, match=r"task 'sentiment' is in none of the languages en"):
        tasks.find(["sentiment"], ["en"])


def test_two_tasks_of_one_name_and_language_are_refused(tmp_path):
    custom(tmp_path, "easy_am", tag="colours")
    custom(tmp_path, "hard_am", tag="colours")
    with pytest.raises(UserError, match=r"'colours' has two tasks in 'am', easy_am and hard_am. Name one"):
        index(tmp_path).find(["colours"], ["am"])


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--include-path .*gone is not a folder"):
        index(tmp_path / "gone").find(["x:am"], ["am"])


def a_task(kind: str = "multiple_choice", choices: tuple[str, ...] = ("red", "blue")) -> Any:
    return SimpleNamespace(
        OUTPUT_TYPE=kind,
        VERSION=1.0,
        multiple_input=0,
        doc_to_choice=lambda doc: list(doc.get("choices", choices)),
        get_config=lambda key: 0,
    )


def sample(i: int, target: Any, likelihoods: list[float], **more: Any) -> dict[str, Any]:
    """Return a sample as lm-eval logs it."""
    answered = [[value, False] for value in likelihoods]
    body = {"doc_id": i, "doc": {"id": f"d{i}"}, "target": target, "filter": "none", "metrics": ["acc"]}
    return {**body, "filtered_resps": answered, **more}


def test_a_choice_becomes_accuracy_and_macro_f1_over_the_fixed_labels():
    """Gold 0 0 1, answered 0 1 1: accuracy 2/3; F1 of either label is 2/3, so macro-F1 is 2/3."""
    rows = [
        sample(2, 1, [-3.0, -1.0], acc=1.0),  # in another order than the examples
        sample(0, 0, [-1.0, -2.0], acc=1.0),
        sample(1, 0, [-2.0, -1.0], acc=0.0),
    ]
    found = answers(a_task(), {"acc,none": 2 / 3, "acc_stderr,none": 0.3, "alias": "x"}, rows)
    scores = {score.metric: score for score in found.scores}
    assert scores[TASK_SCORE.name].value == pytest.approx(2 / 3)
    assert scores[TASK_SCORE.name].detail == {"texts": 3, "stderr": 0.3}
    assert scores[TASK_MACRO_F1.name].value == pytest.approx(2 / 3)
    assert (scores["lm_eval/acc"].value, scores["lm_eval/acc"].detail) == (2 / 3, {"stderr": 0.3})
    assert found.kept["gold"] == [0, 0, 1] and found.kept["predictions"] == [0, 1, 1]
    assert found.kept["outcomes"] == [1, 0, 1]
    assert [(text.label, text.text) for text in found.texts] == [
        ("red", "red"),
        ("red", "blue"),
        ("blue", "blue"),
    ]


def test_labels_given_as_words_and_answers_that_differ_from_example_to_example():
    rows = [sample(0, "blue", [-2.0, -1.0], acc=1.0), sample(1, "red", [-2.0, -1.0], acc=0.0)]
    assert answers(a_task(), {}, rows).kept["gold"] == [1, 0]
    rows[0]["doc"]["choices"] = ("one", "two")
    found = answers(a_task(), {}, rows)
    assert "gold" not in found.kept and [score.metric for score in found.scores] == [TASK_SCORE.name]


def test_a_written_answer_is_scored_by_f1_before_exact_match():
    body = {"metrics": ["exact_match", "f1"], "exact_match": 0, "f1": 0.4, "filtered_resps": ["ሰማያዊ ነው"]}
    rows = [{**sample(i, "ሰማያዊ", []), **body} for i in range(2)]
    found = answers(a_task("generate_until"), {}, rows)
    assert found.kept["measure"] == "f1" and found.scores[0].value == pytest.approx(0.4)
    assert found.texts[0].text == "ሰማያዊ ነው" and found.texts[0].label == "ሰማያዊ"


def test_a_task_without_a_score_per_example_is_skipped_in_words():
    rows = [{**sample(0, "x", []), "metrics": ["word_perplexity"], "word_perplexity": (-12.0, 3)}]
    with pytest.raises(UnsupportedError, match=r"\(word_perplexity\) is a mean over examples"):
        answers(a_task("loglikelihood_rolling"), {}, rows)


def test_a_limit_is_spread_over_the_examples():
    """A file that is sorted by label keeps all its labels; lm-eval's own limit would take one."""
    task = SimpleNamespace(eval_docs=list("aaabbbccc"))
    assert [task.eval_docs[i] for i in examples(task, 3) or ()] == ["a", "b", "c"]
    assert examples(task, 4) == [0, 2, 4, 6]
    assert examples(task, 9) is None and examples(task, None) is None


def test_methods_that_steer_and_the_unsteered_row_are_the_default():
    from harness.methods.registry import load_registry

    suite = understanding_methods(load_suite("steer11"), load_registry())
    names = [spec if isinstance(spec, str) else next(iter(spec)) for spec in suite.methods]
    assert {"zero-shot", "language", "quality", "clas", "learned", "random", "negated"} <= set(names)
    assert not {"few-shot", "human", "constant"} & set(names)
    assert {"learned": {"objective": "align"}} in suite.methods


def test_a_method_is_fitted_for_the_suites_own_task_else_for_the_first_in_the_language():
    suite = load_suite("mini")
    assert fit_task(suite, "topic", "am") == "topic"
    assert fit_task(suite, "belebele", "am") == "sentiment"
    assert fit_task(suite, "belebele", "en") == "topic"
    with pytest.raises(UserError, match="no task in 'fr'"):
        fit_task(suite, "belebele", "fr")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--tasks", "nonsense"), "unknown task 'nonsense'"),
        (("--tasks", ","), "does not name a task"),
        (("--languages", "xx"), "unknown language 'xx'"),
        (("--methods", "nope"), "unknown method 'nope'"),
        (("--methods", "few-shot"), "method 'few-shot' only prompts"),
        (("--methods", "human"), "answers no task"),
        (("--seeds", "one"), "--seeds 'one': give whole numbers"),
        (("--model", "no/where/model"), "model"),
        (("--data", "no-such-folder"), "no-such-folder"),
        (("--include-path", "no-such-folder", "--tasks", "x:am"), "no-such-folder"),
        (("--dtype", "int3"), "unknown dtype 'int3'"),
        (("--suite", "nosuite"), "unknown suite 'nosuite'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, changes, words):
    line = steerboard("lm-eval", *GRID, "--run", tmp_path / "run", *changes).one_line()
    assert words in line
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").rglob("*.json"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("understanding") / "run"
    done = steerboard("lm-eval", *GRID, "--methods", "zero-shot,language,clas", "--run", folder)
    assert done.code == 0, done.err
    return folder


def test_the_grid_is_every_method_language_and_task_with_english_as_a_check(finished):
    run = Run(finished)
    manifest = run.manifest()
    assert (manifest.track, manifest.selection.languages) == ("understanding", ["am", "he"])
    assert manifest.selection.checked == ["en"]
    assert manifest.selection.absent == ["sentiment/en"]
    assert "6 examples of every task" in manifest.selection.narrowed
    statuses = [run.status(name) for name in run.cell_ids()]
    assert len(statuses) == 3 * 5 and {status.state for status in statuses if status} == {"ok"}
    (results,) = collect([run])
    assert results.headline == TASK_SCORE
    assert all(row.complete and row.expected == 4 for row in results.entries.values())


def test_unsteered_answers_are_those_of_lm_evals_own_model(finished):
    """The very numbers of lm-eval's ``hf`` model on the same task file and data."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    n = len((MINI / "data" / "topic" / "he" / "test.jsonl").read_text(encoding="utf-8").splitlines())
    manager = TaskManager(
        include_path=str(ROOT / "tasks"), include_defaults=False, metadata={"data": str(MINI / "data")}
    )
    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(MINI / "pocketlm"), "dtype": "float32"},
        tasks=["steerboard_topic_he"],
        task_manager=manager,
        samples={"steerboard_topic_he": [i * n // 6 for i in range(6)]},
        batch_size=64,
        device="cpu",
        bootstrap_iters=10,
    )
    run = Run(finished)
    for name in run.cell_ids():
        status, scores = run.status(name), run.scores(name)
        assert status is not None and scores is not None
        key = status.cell
        if (key.method.name, key.task, key.language) == ("zero-shot", "topic", "he"):
            (ours,) = (score for score in scores.scores if score.metric == "lm_eval/acc")
            assert ours.value == theirs["results"]["steerboard_topic_he"]["acc,none"]
            gold = [int(row["acc"]) for row in theirs["samples"]["steerboard_topic_he"]]
            assert list(run.predictions(name)[ANSWERS]["outcomes"]) == gold
            return
    raise AssertionError("no such cell")


def test_steering_says_which_file_and_steers(finished):
    run = Run(finished)
    steered = [s for name in run.cell_ids() if (s := run.status(name)) and s.cell.method.name == "language"]
    assert all(status.steering and run.steering_path(status.steering).is_file() for status in steered)
    english = next(status for status in steered if status.cell.language == "en")
    assert run.steering(english.steering or "").provenance["language"] == "en"  # type: ignore[union-attr]


def test_the_same_command_again_does_nothing_and_another_method_joins(finished):
    before = contents(finished / "cells")
    done = steerboard("lm-eval", *GRID, "--methods", "zero-shot", "--run", finished)
    assert done.code == 0 and "loading" not in done.err
    assert contents(finished / "cells") == before


def test_other_commands_refuse_or_show_such_a_run(finished, tmp_path):
    line = steerboard("run", "--suite", "mini", "--run", finished, "--limit", 2).one_line()
    assert "holds a run of another" in line or "track" in line
    assert "understanding" in steerboard("score", finished).one_line()
    assert steerboard("compare", finished, finished).code == 0
    assert steerboard("board", "build", finished, "--out", tmp_path / "site").code == 0
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "English check" in page and "Which steering method makes the model understand better?" in page
    assert "samples-am.html" not in page


@pytest.mark.slow
def test_a_killed_grid_goes_on_and_ends_as_if_it_had_not_been(finished, tmp_path):
    """Killed after the texts of its third cell; answers and scores are then byte for byte the same."""
    folder = tmp_path / "run"
    words = ["lm-eval", *GRID, "--languages", "am,he", "--methods", "zero-shot,language", "--run", folder]
    with killed_after(3):
        steerboard(*words)
    assert finished_cells(folder) == 3
    assert steerboard(*words).code == 0
    same = ("generations.jsonl", "scores.json", "predictions.json.gz")
    ours, theirs = ({n: c for n, c in contents(f / "cells").items() if n.endswith(same)} for f in (folder, finished))
    assert ours.items() <= theirs.items() and len(ours) == 3 * 8


@pytest.mark.slow
def test_tasks_of_others_are_chosen_and_written(tmp_path):
    """A task that chooses and one that writes, in Amharic and Hebrew, from a folder of their own."""
    custom(tmp_path / "tasks", "colours_am")
    custom(tmp_path / "tasks", "names_he", kind="generate_until", metric="exact_match")
    done = steerboard(
        *("lm-eval", "--suite", "mini", "--tasks", "colours_am,names_he", "--languages", "am,he"),
        *("--methods", "zero-shot,language", "--include-path", tmp_path / "tasks", "--run", tmp_path / "run"),
    )
    assert done.code == 0, done.err
    (results,) = collect([Run(tmp_path / "run")])
    assert results.manifest.selection.absent == ["colours/he", "names/am"]
    assert all(row.complete and row.expected == 2 for row in results.entries.values())
    values = results.scores[results.scores["metric"] == TASK_SCORE.name]["value"]
    assert np.isfinite(values).all()


# The language of a task

NAMES = {
    "steerboard_topic_am": "am",
    "steerboard_sentiment_mt": "mt",
    "steerboard_topic_xx": None,
    "xnli_de": "de",
    "xnli_mt": "mt",
    "xquad_de": "de",
    "belebele_amh_Ethi": "am",
    "belebele_mlt_Latn": "mt",
    "belebele_fra_Latn": None,
    "global_mmlu_id": "id",
    "global_mmlu_full_id_us_foreign_policy": "id",
    "global_piqa_parallel_cloze_slv_latn_cerk": "sl",
    "include_base_44_hebrew_few_shot_en_stem": "he",
    "include_base_44_hindi_few_shot_en_stem": None,
    "afrixnli_amh_prompt_1": "am",
    "mgsm_en_cot_de": "de",
    "mgsm_en_cot_es": None,
    "lambada_openai_mt_de": "de",  # mt: machine-translated
    "arc_challenge_mt_fi": None,
    "arabic_mt_race": None,
    "flores_eng_Latn-sun_Latn_prompt_2": "su",
    "flores_amh_Ethi-fra_Latn_prompt_1": None,
    "spanish_bench_flores_es-de": "de",
    "copal_id_standard": "id",
    "hellaswag": None,
    "": None,
    None: None,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_language_of_a_task_is_read_from_its_name(name):
    assert language_of(name) == NAMES[name]
