"""Language forcing: the questions, the two shares and their harmonic mean, the run, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.helpers import (
    MINI,
    TASKS,
    toy_encoder,
    toy_llm,
    toy_manifest,
)

from harness.core.cells import cell_id
from harness.core.errors import UserError
from harness.core.languages import LANGUAGES
from harness.core.records import CellKey, CellScores, CellStatus, Entry, Generation, Selection
from harness.core.store import Run
from harness.data.corpus import normalise
from harness.data.sources import LocalData
from harness.ranking.results import collect
from harness.scoring.checks import script_of, script_share
from harness.scoring.identification import LanguageIdentifier, detect_language
from harness.scoring.metrics import FORCING, RELEVANCE, TARGET_SHARE, harmonic, metric
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
    texts = [normalise(text) for code in questions.languages for text in questions.asked(code)]
    assert len(texts) == 144
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_the_questions_of_a_language_are_plain_sentences_in_its_script(questions, code):
    for text in questions.asked(code):
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
    [results] = collect([run])
    found = only(aggregate(results, "tfidf"))
    assert (found.share, found.relevance) == (pytest.approx(0.6), pytest.approx(0.5))
    assert found.forcing == pytest.approx(2 * 0.6 * 0.5 / 1.1)  # 0.545
    per_cell = results.scores[results.scores["metric"] == "forcing/tfidf"]["value"]
    assert per_cell.mean() == pytest.approx((0 + 0 + 0.8 / 1.3) / 3)  # 0.205: another number
    assert (found.n, found.expected) == (3, 3)


def test_an_aggregate_of_targets_or_sources_takes_their_cells_alone(tmp_path):
    values = {
        ("en", "am"): (1.0, 0.2),
        ("en", "he"): (0.5, 0.5),
        ("de", "am"): (0.0, 0.4),
        ("de", "he"): (0.5, 0.1),
    }
    [results] = collect([made_run(tmp_path, values)])
    amharic = only(aggregate(results, "tfidf", pairs(results, languages=["am"])))
    assert (amharic.share, amharic.relevance) == (0.5, pytest.approx(0.3))
    assert amharic.forcing == pytest.approx(0.3 / 0.8)
    german = only(aggregate(results, "tfidf", pairs(results, ["from-de"])))
    assert (german.share, german.relevance, german.n) == (0.25, 0.25, 2)


def test_a_question_in_the_target_language_itself_is_in_no_mean(tmp_path):
    run = made_run(tmp_path, {("de", "de"): (1.0, 1.0), ("de", "am"): (0.2, 0.2)})
    [results] = collect([run])
    assert only(aggregate(results, "tfidf")).share == pytest.approx(0.2)
    assert pairs_for(results) == [("from-de", "de")]
    assert only(aggregate(results, "tfidf", pairs_for(results))).forcing == 1.0


def test_an_entry_that_lacks_a_value_has_no_aggregate(tmp_path):
    run = made_run(tmp_path, {("en", "am"): (1.0, 0.5), ("en", "he"): (1.0, None)})
    [results] = collect([run])
    assert only(aggregate(results, "tfidf")) == Aggregate(None, None, None, 1, 2)
    assert only(aggregate(results, "judge:other")) == Aggregate(None, None, None, 0, 2)


def test_a_table_of_a_forcing_run_has_its_metrics_and_headline(tmp_path):
    [results] = collect([made_run(tmp_path, {("en", "am"): (1.0, 0.5)})])
    assert [m.name for m in results.metrics] == ["forcing/tfidf", "target_share", "relevance/tfidf"]
    assert {m.group for m in results.metrics} == {"forcing"}
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
