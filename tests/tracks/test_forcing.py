"""Language forcing: the questions, the two shares and their harmonic mean, the run, and what is refused."""

from __future__ import annotations

import dataclasses
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from support.helpers import (
    MINI,
    TASKS,
    Outcome,
    contents,
    finished_cells,
    forget_hash,
    small_suite,
    snapshot,
    start_and_stop,
    steerboard,
    toy_encoder,
    toy_llm,
    toy_manifest,
    untimed_files,
)

from harness.core.cells import cell_id
from harness.core.errors import UserError
from harness.core.languages import LANGUAGES
from harness.core.records import CellKey, CellScores, CellStatus, Entry, Generation, Selection
from harness.core.store import Run
from harness.data.corpus import normalise
from harness.data.sources import LocalData
from harness.data.suite import load_suite
from harness.methods.registry import load_registry, parse_methods
from harness.ranking.results import collect
from harness.scoring.checks import script_of, script_share
from harness.scoring.harmonic import harmonic
from harness.scoring.identification import LanguageIdentifier, detect_language
from harness.scoring.metrics import FORCING, RELEVANCE, TARGET_SHARE, metric
from harness.tracks.forcing.planning import base_suite, forcing_suite
from harness.tracks.forcing.questions import Questions, load_questions
from harness.tracks.forcing.relevance import Answer, Judge, JudgedAnswer, grade, is_empty_answer, open_relevance, prompt
from harness.tracks.forcing.scoring import in_target, relevance_scores, target_share
from harness.tracks.forcing.tables import Aggregate, aggregate, pairs, pairs_for

slow = pytest.mark.slow

# The questions


@pytest.fixture(scope="module")
def questions() -> Questions:
    return load_questions()


def test_every_question_stands_in_all_twelve_languages(questions):
    assert questions.ids() == [f"q{i:02}" for i in range(1, 13)]
    assert questions.languages == sorted(LANGUAGES)
    assert all(list(by_language) == questions.languages for by_language in questions.texts.values())


def test_four_questions_are_for_choosing_and_the_other_eight_are_scored(questions):
    assert questions.ids("validation") == ["q03", "q06", "q09", "q12"]
    assert len(questions.ids("test")) == 8
    assert {*questions.ids("test")} | {*questions.ids("validation")} == {*questions.ids()}


def test_no_sentence_stands_there_twice_also_not_in_two_languages(questions):
    texts = [normalise(text) for code in questions.languages for text in questions.all_in(code)]
    assert len(texts) == 144
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_the_questions_of_a_language_are_plain_sentences_in_its_script(questions, code):
    for text in questions.all_in(code):
        assert text == " ".join(text.split())
        assert re.fullmatch(r"[^?{}]{10,80}\?", text)
        assert script_share(text, script_of(code)) == 1.0, text


def test_a_question_is_known_by_its_text(questions):
    assert questions.id_of("አዲስ ቋንቋ እንዴት መማር እችላለሁ?", "am") == "q07"
    assert questions.id_of("מה כדאי ללבוש כשיורד גשם?", "he") == "q02"


def test_the_file_says_whose_the_questions_are():
    text = (TASKS / "forcing" / "questions.yaml").read_text(encoding="utf-8")
    head = " ".join(text.partition("schema:")[0].replace("#", " ").split())
    assert "written for this project" in head
    assert "NOT checked by native speakers" in head


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("validation: []", "needs 'questions'"),
        (
            "validation: []\nquestions: {q1: {am: ሀ, en: a}, q2: {en: b}}",
            "question q2 is not in the languages am",
        ),
        ("validation: []\nquestions: {q1: {en: a}, q2: {en: a}}", "occurs twice in en"),
        ("validation: [q2]\nquestions: {q1: {en: a}}", "validation names q2"),
        ("validation: [q1]\nquestions: {q1: {en: a}}", "no question is left for testing"),
        ("validation: []\nquestions: {q1: {en: '{label}?'}}", "q1 is empty, not text, or contains a brace"),
        ("validation: [", "not valid YAML"),
    ],
)
def test_a_broken_file_of_questions_is_refused_in_words(tmp_path, body, words):
    (tmp_path / "q.yaml").write_text(body, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(words)):
        load_questions(tmp_path / "q.yaml")


# The harmonic mean of aggregates


def test_the_harmonic_mean_is_high_only_where_both_are():
    assert harmonic(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic(0.8, 0.4) == pytest.approx(0.64 / 1.2)
    assert harmonic(1.0, 1.0) == 1.0
    assert harmonic(1.0, 0.0) == harmonic(0.0, 1.0) == harmonic(0.0, 0.0) == 0.0
    assert harmonic(1.0, -0.09) == 0.0  # worse than guessing


def made_run(folder: Path, values: dict[tuple[str, str], tuple[float, float | None]]) -> Run:
    """Write a run of one entry and seed with these shares and relevances by source and target."""
    tasks = list(dict.fromkeys(f"from-{source}" for source, _ in values))
    languages = list(dict.fromkeys(target for _, target in values))
    chosen = Selection(
        languages=languages,
        tasks=tasks,
        settings=["zero-shot"],
        seeds=[1],
        texts_per_label=dict.fromkeys(tasks, 1),
    )
    base = toy_manifest(track="forcing", selection=chosen)
    run = Run(folder)
    run.write_manifest(base)
    entry: Entry = base.entries[0]
    for (source, target), (share, relevance) in values.items():
        key = CellKey(
            suite="toy",
            text_protocol="p",
            data="d",
            model=entry.model,
            method=entry.method,
            task=f"from-{source}",
            language=target,
            setting="zero-shot",
            seed=1,
            texts_per_label=1,
        )
        name = cell_id(key)
        run.write_cell(
            name,
            CellStatus(cell=key, state="ok"),
            [Generation(index=0, label="?", text="a", finish_reason="stop")],
        )
        scores = [
            TARGET_SHARE.score(share, "s"),
            RELEVANCE.for_provider("tfidf").score(relevance, "r"),
            FORCING.for_provider("tfidf").score(None if relevance is None else harmonic(share, relevance), "r"),
        ]
        digest = run.generations_digest(name)
        run.write_scores(CellScores(cell_id=name, generations_sha256=digest, protocol="p", scores=scores), {})
    return run


def only(found: dict[str, Aggregate]) -> Aggregate:
    [one] = found.values()
    return one


def test_over_cells_shares_are_averaged_first_and_the_harmonic_mean_is_taken_last(tmp_path):
    run = made_run(tmp_path, {("en", "am"): (1.0, 0.0), ("en", "he"): (0.0, 1.0), ("en", "da"): (0.8, 0.5)})
    [cellset] = collect([run])
    found = only(aggregate(cellset, "tfidf"))
    assert (found.share, found.relevance) == (pytest.approx(0.6), pytest.approx(0.5))
    assert found.forcing == pytest.approx(2 * 0.6 * 0.5 / 1.1)  # 0.545
    per_cell = cellset.scores[cellset.scores["metric"] == "forcing/tfidf"]["value"]
    assert per_cell.mean() == pytest.approx((0 + 0 + 0.8 / 1.3) / 3)  # 0.205: another number
    assert (found.n, found.expected) == (3, 3)


def test_an_aggregate_of_targets_or_sources_takes_their_cells_alone(tmp_path):
    values = {
        ("en", "am"): (1.0, 0.2),
        ("en", "he"): (0.5, 0.5),
        ("de", "am"): (0.0, 0.4),
        ("de", "he"): (0.5, 0.1),
    }
    [cellset] = collect([made_run(tmp_path, values)])
    amharic = only(aggregate(cellset, "tfidf", pairs(cellset, languages=["am"])))
    assert (amharic.share, amharic.relevance) == (0.5, pytest.approx(0.3))
    assert amharic.forcing == pytest.approx(0.3 / 0.8)
    german = only(aggregate(cellset, "tfidf", pairs(cellset, ["from-de"])))
    assert (german.share, german.relevance, german.n) == (0.25, 0.25, 2)


def test_a_question_in_the_target_language_itself_is_in_no_mean(tmp_path):
    run = made_run(tmp_path, {("de", "de"): (1.0, 1.0), ("de", "am"): (0.2, 0.2)})
    [cellset] = collect([run])
    assert only(aggregate(cellset, "tfidf")).share == pytest.approx(0.2)
    assert pairs_for(cellset) == [("from-de", "de")]
    assert only(aggregate(cellset, "tfidf", pairs_for(cellset))).forcing == 1.0


def test_an_entry_that_lacks_a_value_has_no_aggregate(tmp_path):
    run = made_run(tmp_path, {("en", "am"): (1.0, 0.5), ("en", "he"): (1.0, None)})
    [cellset] = collect([run])
    assert only(aggregate(cellset, "tfidf")) == Aggregate(None, None, None, 1, 2)
    assert only(aggregate(cellset, "judge:other")) == Aggregate(None, None, None, 0, 2)


def test_a_table_of_a_forcing_run_has_its_metrics_and_headline(tmp_path):
    [cellset] = collect([made_run(tmp_path, {("en", "am"): (1.0, 0.5)})])
    assert [m.name for m in cellset.metrics] == ["forcing/tfidf", "target_share", "relevance/tfidf"]
    assert {m.group for m in cellset.metrics} == {"forcing"}
    assert metric("forcing/judge:x").direction == "up"


# In the target language


def test_a_text_is_in_the_language_of_more_than_half_of_its_characters():
    assert in_target([("am", 30)], "am")
    assert in_target([("am", 31), ("en", 30)], "am")
    assert not in_target([("am", 30), ("en", 30)], "am")
    assert not in_target([("am", 20), ("en", 15), ("da", 15)], "am")  # the most, yet not most of it
    assert not in_target([], "am")  # no letters


def test_the_share_in_the_target_language_counts_answers_not_characters():
    pieces = [[("he", 500)], [("he", 10), ("en", 30)], [], [("he", 7)]]
    found = target_share(pieces, "he", "s")
    [score] = found.scores
    assert (score.metric, score.value) == ("target_share", 0.5)
    assert score.detail == {"en": 0.25, "he": 0.5}
    assert found.artifacts == {"language": ["he", "en", "", "he"], "in_target": [True, False, False, True]}


@pytest.fixture(scope="module")
def human() -> dict[str, list[str]]:
    """Parallel text of the mini suite."""
    data = LocalData(MINI / "data")
    return {code: [row.text for row in data.parallel(code)] for code in sorted(LANGUAGES)}


def test_answers_in_ethiopic_and_hebrew_are_known(human):
    texts = [
        "ሾርባ እና እንቁላል መሥራት ትችላለህ።",
        "You can make soup and eggs.",
        "אפשר להכין מרק וביצים.",
        "",
        "???",
    ]
    identifier = LanguageIdentifier({code: human[code] for code in ("am", "en", "he")})
    for target, share in (("am", 0.2), ("he", 0.2), ("en", 0.2)):
        assert target_share(detect_language(identifier, texts, target), target, "s").scores[0].value == share


# Relevance by the nearest question

THREE = Questions(
    {
        "q1": {"am": "ዝናብ ሲዘንብ ምን መልበስ አለብኝ?", "en": "What should I wear when it rains?"},
        "q2": {"am": "አዲስ ቋንቋ እንዴት መማር እችላለሁ?", "en": "How can I learn a new language?"},
        "q3": {"am": "ለቁርስ ምን መሥራት እችላለሁ?", "en": "What can I make for breakfast?"},
    },
    frozenset(),
)


def rated(spec: object, *answers: tuple[str, str, str]) -> JudgedAnswer:
    """Rate (question, language of the answer, text) by the three questions; the target is Amharic."""
    scorer = open_relevance(str(spec), THREE, lambda code: [])
    return scorer.rate([Answer(text, name, "en", "am", code) for name, code, text in answers])


def test_an_answer_is_relevant_if_its_own_question_is_the_nearest():
    found = rated(
        "tfidf",
        ("q1", "am", "ዝናብ ሲዘንብ ካፖርት ልበስ።"),
        ("q2", "am", "ቋንቋ ለመማር በየቀኑ አንብብ።"),
        ("q3", "am", "ዝናብ ሲዘንብ ካፖርት ልበስ።"),
    )
    assert found.kept["nearest"] == [["q1"], ["q2"], ["q1"]]
    assert found.values == [pytest.approx(1.0), pytest.approx(1.0), pytest.approx(-0.5)]
    assert found.detail == {"top1": pytest.approx(2 / 3), "chance": pytest.approx(1 / 3)}


def test_guessing_is_worth_nothing():
    same = ("am", "ዝናብ ሲዘንብ ካፖርት ልበስ።")
    always_one = rated("tfidf", ("q1", *same), ("q2", *same), ("q3", *same))
    assert sum(always_one.values) == pytest.approx(0.0)
    nothing = rated("tfidf", ("q1", "", ""), ("q2", "", "... 12"), ("q3", "he", "שלום"))  # no n-gram in common
    assert nothing.values == [pytest.approx(0.0)] * 3
    assert nothing.kept["nearest"] == [["q1", "q2", "q3"]] * 3


def test_the_language_of_an_answer_does_not_matter():
    found = rated("tfidf", ("q1", "en", "When it rains, wear a coat."), ("q3", "en", "My breakfast is bread."))
    assert found.kept["nearest"] == [["q1"], ["q3"]]


def test_to_repeat_the_question_is_no_answer():
    question = THREE.texts["q1"]["am"]
    assert is_empty_answer(question, question)
    assert is_empty_answer(f"{question} {question}", question)
    assert not is_empty_answer(f"{question} ካፖርት ልበስ።", question)
    assert is_empty_answer("WHAT should I wear when it rains ?", THREE.texts["q1"]["en"])
    assert rated("tfidf", ("q1", "am", question)).values == [pytest.approx(0.0)]
    assert rated("tfidf", ("q1", "am", f"{question} ካፖርት ልበስ።")).values == [pytest.approx(1.0)]


ANSWERS = {
    "en": [
        "You can fry two eggs and eat them with bread.",
        "Put on a coat and take an umbrella, so that the rain does not make you wet.",
        "Look at the offers in the newspaper and send your papers to several companies.",
        "You can cook for her and carry her shopping.",
        "Take a towel, sun cream and something to swim in.",
        "When you sleep, the body rests and the mind becomes clear.",
        "Read a little every day and talk with people who speak it.",
        "Wash the dishes after every meal and wipe the table.",
        "Give it fresh water and food and walk with it twice a day.",
        "Write a list, compare prices and buy what is in season.",
        "Tomatoes, beans and carrots grow well in good soil.",
        "They can play football, run races or hide behind trees.",
    ],
    "am": [
        "ሁለት እንቁላል ጠብሰህ ከዳቦ ጋር መብላት ትችላለህ።",
        "ዝናቡ እንዳያረጥብህ ካፖርት ልበስና ጃንጥላ ያዝ።",
        "በጋዜጣ ላይ ያሉ ማስታወቂያዎችን ተመልከትና ማመልከቻ ለብዙ ድርጅቶች ላክ።",
        "ምግብ ልታበስልላት እና ዕቃዋን ልትሸከምላት ትችላለህ።",
        "ፎጣ፣ የፀሐይ ቅባት እና የመዋኛ ልብስ ያዝ።",
        "ስንተኛ ሰውነታችን ያርፋል፣ አእምሯችንም ይታደሳል።",
        "በየቀኑ ትንሽ አንብብ፣ ከሚናገሩት ሰዎች ጋርም ተነጋገር።",
        "ከምግብ በኋላ ሳህኖቹን እጠብ፣ ጠረጴዛውንም ጥረግ።",
        "ንጹሕ ውኃና ምግብ ስጠው፣ በቀን ሁለት ጊዜም አብረኸው ተራመድ።",
        "ዝርዝር ጻፍ፣ ዋጋ አወዳድር፣ የወቅቱን ነገር ግዛ።",
        "ቲማቲም፣ ባቄላና ካሮት በጥሩ አፈር ይበቅላሉ።",
        "እግር ኳስ መጫወት፣ መሮጥ ወይም ከዛፍ ጀርባ መደበቅ ይችላሉ።",
    ],
}
"""Good answers to the twelve questions, in their order; written for this test."""


@pytest.mark.parametrize("code", ["en", "am"])
def test_good_answers_are_worth_more_than_the_same_answers_to_other_questions(questions, human, code):
    scorer = open_relevance("tfidf", questions, human.__getitem__)
    ids = questions.ids()

    def value(shift: int) -> float:
        asked = [*ids[shift:], *ids[:shift]]
        answers = [Answer(t, n, "en", code, code) for t, n in zip(ANSWERS[code], asked, strict=True)]
        return float(np.mean(scorer.rate(answers).values))

    assert value(0) > 0.1
    assert np.mean([value(shift) for shift in range(12)]) == pytest.approx(0.0)  # every pairing once


def test_an_encoder_rates_like_the_n_grams_do(tmp_path):
    encoder = toy_encoder(tmp_path / "toyenc")
    found = rated(f"hf:{encoder}", ("q1", "am", "ዝናብ"), ("q2", "am", ""))
    assert len(found.kept["nearest"][0]) == 1
    assert found.values[0] in (pytest.approx(1.0), pytest.approx(-0.5))
    assert found.values[1] == pytest.approx(0.0)
    assert open_relevance(f"hf:{encoder}", THREE, lambda code: []).name == "hf:toyenc"


def test_the_scores_of_a_cell_are_means_and_their_harmonic_mean():
    relevance, forcing = relevance_scores(JudgedAnswer([1.0, 0.5, None, 0.0]), 0.25, "judge:x", "s")
    assert (relevance.metric, relevance.value) == ("relevance/judge:x", 0.5)
    assert (forcing.metric, forcing.value) == ("forcing/judge:x", pytest.approx(2 * 0.25 * 0.5 / 0.75))
    assert relevance.detail["texts"] == 3
    for score in relevance_scores(JudgedAnswer([None, None]), 0.25, "judge:x", "s"):
        assert (score.value, score.note) == (None, "no answer was rated")


# The judge


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("2", 2),
        (" 1\n", 1),
        ("Score: 0.", 0),
        ("**2**", 2),
        ("2/2", 2),
        ("12", None),
        ("1.5", None),
        ("-1", None),
        ("50%", None),
        ("q1", None),
        ("three", None),
        ("", None),
    ],
)
def test_a_grade_is_a_digit_that_stands_alone(reply, found):
    assert grade(reply) == found


def test_the_judge_is_shown_the_question_that_was_asked_and_the_whole_answer():
    text = prompt("What should I wear when it rains?", "ካፖርት {ልበስ}።")
    assert "Question: What should I wear when it rains?\n" in text
    assert "Reply: ካፖርት {ልበስ}።\n" in text
    assert "any language" in text


def judge(folder: Path) -> Judge:
    scorer = open_relevance(f"judge:{toy_llm(folder / 'toy')}", THREE, lambda code: [], "cpu")
    assert isinstance(scorer, Judge)
    return scorer


def test_unreadable_replies_are_left_out_and_counted_and_nothing_is_worth_nothing(tmp_path, monkeypatch):
    scorer = judge(tmp_path)
    monkeypatch.setattr(scorer, "_ask", lambda answers: ["2", "I cannot say", "1"][: len(answers)])
    answers = [Answer(text, "q1", "en", "am", "am") for text in ("ካፖርት", "", "ልበስ", "ጫማ")]
    found = scorer.rate(answers)
    assert found.values == [1.0, 0.0, None, 0.5]
    assert found.detail == {"unparsed": 1.0}
    assert found.kept == {"reply": ["2", "", "I cannot say", "1"]}


def test_a_judge_without_sense_reads_greedily_and_has_its_replies_kept(tmp_path):
    scorer = judge(tmp_path)
    answers = [Answer(text, "q1", "en", "am", "am") for text in ("ካፖርት", "שלום")]
    found = scorer.rate(answers)
    assert found == scorer.rate(answers)
    assert found.detail["unparsed"] == sum(value is None for value in found.values)
    assert scorer.name == "judge:toy"


# The run


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Path:
    """A suite of two languages with a model of random weights that writes four bytes a text."""
    folder = tmp_path_factory.mktemp("suite")
    path = small_suite(folder, toy_llm(folder / "toy"))
    text = path.read_text(encoding="utf-8")
    quick = text.replace("learned: {steps: 20, max_texts: 64}", "learned: {steps: 1, max_texts: 16}")
    assert quick != text
    path.write_text(quick, encoding="utf-8")
    return path


@pytest.fixture
def go(suite, tmp_path):
    """Run the track in this process: call it with options; the folder is always the same."""

    def start(*options: object, methods: str = "zero-shot,language") -> Outcome:
        words = ["--suite", suite, "--methods", methods, "--seeds", "1", "--run", tmp_path / "run"]
        return steerboard("forcing", *words, *options)

    return start


def statuses(folder: Path) -> dict[tuple[str, str, str, int], CellStatus]:
    """Return how cells ended, by method, source, target and seed."""
    run = Run(folder)
    found = [run.status(cell) for cell in run.cell_ids()]
    keys = [(s.cell.method.name, s.cell.task, s.cell.language, s.cell.seed) for s in found]
    return dict(zip(keys, found, strict=True))


def test_a_cell_holds_one_answer_to_every_test_question_of_its_source(go, tmp_path, questions):
    outcome = go("--sources", "en,am")
    assert outcome.code == 0, outcome.err
    run = Run(tmp_path / "run")
    assert run.manifest().track == "forcing"
    found = statuses(run.path)
    assert {key[1:3] for key in found} == {(f"from-{s}", t) for s in ("am", "en") for t in ("am", "he")}
    for (_, task, _, _), status in found.items():
        texts = run.generations(cell_id(status.cell))
        assert [text.label for text in texts] == questions.asked(task.removeprefix("from-"), "test")
        assert {text.attempts for text in texts} == {1}
        assert status.redraws == 0


def test_the_prompt_is_the_bare_question(go, tmp_path, questions):
    """The toy's template writes <s>, the question and a line break, a token per byte."""
    go("--languages", "am", methods="zero-shot")
    run = Run(tmp_path / "run")
    [cell] = run.cell_ids()
    sizes = [text.n_prompt_tokens for text in run.generations(cell)]
    assert sizes == [len(text.encode()) + 2 for text in questions.asked("en", "test")]


def test_a_cell_is_steered_by_what_the_suite_itself_fits_for_the_target(go, suite, tmp_path):
    go("--sources", "en,de", "--languages", "he", methods="language,learned,negated")
    rest = ["--languages", "he", "--tasks", "sentiment", "--seeds", "1", "--limit", "1"]
    other = tmp_path / "generation"
    rest += ["--settings", "zero-shot"]
    steerboard("run", "--suite", suite, "--methods", "language,learned,negated", *rest, "--run", other)
    forced, base = contents(tmp_path / "run" / "steering"), contents(other / "steering")
    vectors = {name: data for name, data in forced.items() if name.endswith(".safetensors")}
    assert len(vectors) == 3  # of three methods; one fit serves both sources
    assert vectors == {name: data for name, data in base.items() if name.endswith(".safetensors")}
    run = Run(tmp_path / "run")
    for (method, _, target, _), status in statuses(run.path).items():
        header = run.steering(status.steering).provenance
        assert (header["language"], header["method"]["name"]) == (target, method)


def test_answers_hang_on_the_target_only_through_the_steering_and_its_noise(go, tmp_path):
    go()
    run, found = Run(tmp_path / "run"), statuses(tmp_path / "run")
    texts = {key: [t.text for t in run.generations(cell_id(s.cell))] for key, s in found.items()}
    assert texts["language", "from-en", "am", 1] != texts["zero-shot", "from-en", "am", 1]


def test_scores_and_what_was_found_per_answer_are_kept(go, tmp_path):
    go()
    run = Run(tmp_path / "run")
    for cell in run.cell_ids():
        scores = run.scores(cell)
        assert {s.metric for s in scores.scores} == {"target_share", "relevance/tfidf", "forcing/tfidf"}
        assert list(scores.parts) == ["target", "relevance/tfidf"]
        value = {s.metric: s.value for s in scores.scores}
        assert value["forcing/tfidf"] == harmonic(value["target_share"], value["relevance/tfidf"])
        audit = run.text_checks(cell)
        assert {len(audit["target"][name]) for name in ("language", "in_target")} == {8}
        assert {len(audit["relevance/tfidf"][name]) for name in ("rating", "nearest")} == {8}
    [cellset] = collect([run])
    assert cellset.headline.name == "forcing/tfidf"
    assert {row.present for row in cellset.entries.values()} == {2}


def test_the_summary_shows_both_shares_and_their_mean_overall_by_target_and_by_source(go):
    out = go("--sources", "en,am").out
    assert "questions in am, en; relevance by tfidf" in " ".join(out.split())
    heads = [line.split() for line in out.splitlines() if line.split()[:1] == ["entry"]]
    assert heads == [
        ["entry", "in", "target", "relevance", "forcing", "cells"],
        ["entry", "am", "he"],
        ["entry", "am", "en"],
        ["entry", "in", "target", "relevance", "forcing", "cells"],
    ]
    assert "target = source" in out
    [whole, own] = [line.split() for line in out.splitlines() if re.search(r"zero-shot.*\d/\d", line)]
    assert (whole[-1], own[-1]) == ("3/3", "1/1")


def test_a_second_run_touches_nothing_and_loads_nothing(go, tmp_path):
    first = go()
    before = snapshot(tmp_path / "run" / "cells")
    second = go()
    assert second.out == first.out
    assert "loading" not in second.err
    assert snapshot(tmp_path / "run" / "cells") == before


def test_another_scorer_of_relevance_adds_its_scores_and_leaves_the_answers(go, suite, tmp_path):
    go(methods="zero-shot")
    run = Run(tmp_path / "run")
    before = {cell: (run.generations_digest(cell), run.scores(cell).scores) for cell in run.cell_ids()}
    toy = suite.parent / "toy"
    outcome = go("--relevance", f"judge:{toy}", "--relevance", "tfidf", methods="zero-shot")
    assert outcome.code == 0, outcome.err
    assert "relevance by judge:toy" in outcome.out
    for cell, (texts, scores) in before.items():
        now = run.scores(cell)
        assert run.generations_digest(cell) == texts
        assert {s.metric: s for s in scores}.items() <= {s.metric: s for s in now.scores}.items()
        assert list(now.parts) == ["target", "relevance/tfidf", "relevance/judge:toy"]
        assert set(run.text_checks(cell)) == {"target", "relevance/tfidf", "relevance/judge:toy"}


def test_a_run_grows_by_targets_and_methods(go, tmp_path):
    go("--languages", "he", methods="zero-shot")
    go()
    manifest = Run(tmp_path / "run").manifest()
    assert (manifest.track, manifest.selection.languages) == ("forcing", ["am", "he"])
    assert [entry.method.name for entry in manifest.entries] == ["zero-shot", "language"]


def test_the_validation_questions_are_another_run_that_says_so(go, tmp_path, questions):
    outcome = go("--split", "validation", "--languages", "am", methods="zero-shot")
    run = Run(tmp_path / "run")
    [cell] = run.cell_ids()
    assert [text.label for text in run.generations(cell)] == questions.asked("en", "validation")
    assert "scored on validation text" in " ".join(outcome.out.split())
    assert "other --sources, --split" in go("--languages", "am", methods="zero-shot").one_line()


def test_a_method_that_cannot_do_it_has_no_mean_and_the_reason_is_shown(go):
    out = go(methods="zero-shot,clas").out
    assert re.search(r"no mean: clas: 0/2 cells; 2 x skipped: a model of 2 layers", " ".join(out.split()))


def test_by_default_every_method_of_the_suite_that_steers_is_run():
    registry = load_registry()
    kept = base_suite(load_suite("steer11"), registry).methods
    names = [method.name for method in parse_methods(registry, kept)]
    assert names == [
        *("zero-shot", "language", "quality", "clas", "learned"),
        *("random", "negated", "negated", "other-language", "shuffled"),
    ]


def test_the_suite_of_the_track_is_another_one_and_leaves_its_base_as_it_is(questions):
    base = load_suite("mini")
    before = base.hash
    derived = forcing_suite(base, questions, ["he", "en"])
    assert (list(derived.tasks), derived.languages) == (["from-en", "from-he"], base.languages)
    assert (derived.sampling.max_new_tokens, derived.sampling.max_attempts) == (64, 1)
    assert (derived.sampling.temperature, derived.seeds) == (base.sampling.temperature, base.seeds)
    assert forcing_suite(base, questions, ["en"], max_new_tokens=200).sampling.max_new_tokens == 200
    other = dataclasses.replace(questions, validation=frozenset())
    hashes = {
        base.hash,
        derived.hash,
        forcing_suite(base, questions, ["en"]).hash,
        forcing_suite(base, other, ["en"]).hash,
        forcing_suite(base, questions, ["en"], "validation").hash,
    }
    assert len(hashes) == 5
    assert base.hash == before == load_suite("mini").hash


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sources", "xx"], "unknown source language 'xx'; valid: am, cs, da, de, en, he"),
        (["--sources", ","], "no source language is named"),
        (["--languages", "fr"], "unknown language 'fr'; valid: am, he."),
        (["--languages", ","], "no target language is named"),
        (["--seeds", "9"], "unknown seed '9'; valid: 1, 2, 3."),
        (["--split", "train"], "unknown split of the questions 'train'; valid: test, validation."),
        (["--relevance", "bertscore"], "unknown relevance scorer 'bertscore'; valid: hf:PATH_OR_ID, judge:"),
        (["--relevance", "judge:"], "unknown relevance scorer 'judge:'"),
        (["--relevance", "hf:/no/encoder"], "the model folder /no/encoder does not exist"),
        (["--relevance", "judge:/no/judge"], "the model folder /no/judge does not exist"),
        (["--model", "/no/model"], "the model folder /no/model does not exist"),
        (["--max-new-tokens", "0"], "'--max-new-tokens'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(go, tmp_path, options, words):
    assert words in go(*options).one_line()
    assert not (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["few-shot", "human", "constant"])
def test_a_method_without_sense_here_is_refused_by_name(go, name):
    line = go(methods=f"zero-shot,{name}").one_line()
    assert f"method {name!r} does not apply to language forcing" in line
    assert "Take zero-shot, or a method that steers." in line


def test_an_unknown_method_is_named_with_the_nearest(go):
    assert "unknown method 'langage'" in go(methods="langage").one_line()


def test_a_folder_of_another_track_is_refused_and_left_alone(go, suite, tmp_path):
    rest = ["--tasks", "sentiment", "--seeds", "1", "--limit", "1", "--methods", "human"]
    steerboard("run", "--suite", suite, *rest, "--run", tmp_path / "run")
    before = snapshot(tmp_path / "run")
    line = go().one_line()
    assert "holds a run of the generation track. Choose another --run folder." in line
    assert snapshot(tmp_path / "run") == before


def test_answers_that_were_changed_by_hand_are_written_again(go, tmp_path):
    go("--languages", "am", methods="zero-shot")
    run = Run(tmp_path / "run")
    [cell] = run.cell_ids()
    before = untimed_files(run.cell(cell))
    path = run.cell(cell) / "generations.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"text": "', '"text": "x '), encoding="utf-8")
    (run.cell(cell) / "audit.json.gz").unlink()
    done = go("--languages", "am", methods="zero-shot")
    assert done.code == 0, done.err
    assert f"{path} was edited or damaged; written again" in done.err
    assert untimed_files(run.cell(cell)) == before


def test_in_a_folder_of_before_hashes_changed_answers_are_scored_again_or_refused(go, tmp_path):
    go("--languages", "am", methods="zero-shot")
    run = Run(tmp_path / "run")
    [cell] = run.cell_ids()
    forget_hash(run.cell(cell))
    path = run.cell(cell) / "generations.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"text": "', '"text": "x '), encoding="utf-8")
    go("--languages", "am", methods="zero-shot")
    assert run.scores(cell).generations_sha256 == run.generations_digest(cell)
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    refused = go("--languages", "am", methods="zero-shot")
    assert refused.code == 2
    assert "does not hold an answer to each of 8 questions. Delete this folder" in refused.err


# Processes of their own


@slow
def test_a_killed_run_goes_on_to_the_same_answers_and_scores(suite, tmp_path):
    words = ["forcing", "--suite", suite, "--sources", "am,en", "--methods", "zero-shot,language"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert steerboard(*words, "--run", whole).code == 0
    stopped = start_and_stop([*words, "--run", broken], broken, 4)
    assert stopped.code == -signal.SIGKILL, stopped.err
    assert finished_cells(broken) < 24, "it was over before it was stopped"
    assert steerboard(*words, "--run", broken).code == 0
    assert untimed_files(broken) == untimed_files(whole)


@slow
def test_the_mini_suite_works_as_it_comes_and_its_language_vector_moves_answers(tmp_path):
    words = ["--suite", "mini", "--languages", "he", "--methods", "zero-shot,language", "--seeds", "1"]
    outcome = steerboard("forcing", *words, "--run", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    [cellset] = collect([Run(tmp_path / "run")])
    names = {row.id: row.entry.method.name for row in cellset.entries.values()}
    share = {names[row]: found.share for row, found in aggregate(cellset, "tfidf").items()}
    assert share["language"] > share["zero-shot"]
