"""Downloads: known values as they stand in every format, hostile text harmless, unknown numbers null."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from support.helpers import MODEL, ROOT, method
from support.toyruns import F1, ToyEntry, flat, places, selection, toy, write_run

import harness
from harness.core.errors import UserError
from harness.core.records import Entry, ModelIdentity
from harness.core.store import Run
from harness.ranking.rivals import FAMILIES, row_kind
from harness.scoring.metrics import LENGTH, REFUSALS, SELF_CHRF, VALID_SHARE, VENDI
from leaderboard.boards import Board, boards
from leaderboard.build import build_board
from leaderboard.downloads.bibtex import key_of, methods_bib, tex
from leaderboard.downloads.files import COLUMNS, downloads, ranking_tex, results_csv, results_parquet, schema_json
from leaderboard.downloads.records import ResultFile, rounded, schema
from leaderboard.downloads.results import results, results_json, significant

CHOSEN = selection()
DATE = "2026-06-30"
HEBREW, AMHARIC = "שלום", "ሰላም"
HOSTILE = "=cmd|' /C calc'!A0 & 100% $x$ #1 a_b {c} ~ ^ \\input{/etc/passwd} <b> |"


def entry(name: str, value: float, chosen=CHOSEN, **config: object) -> ToyEntry:
    made = toy(name, **config)
    made.scores[F1] = flat(value, chosen)
    return made


def field() -> list[ToyEntry]:
    return [entry("zero-shot", 0.5), entry("language", 0.75), entry("human", 0.9)]


def board_of(folder: Path, entries: list[ToyEntry], chosen=CHOSEN, **more: object) -> Board:
    [found] = boards([write_run(folder / "run", entries, chosen, **more)])
    return found


def file_of(folder: Path, entries: list[ToyEntry], chosen=CHOSEN, **more: object) -> ResultFile:
    return results([board_of(folder, entries, chosen, **more)], DATE)


def named(found: ResultFile, name: str):
    [entry] = [entry for entry in found.boards[0].entries if entry.name == name]
    return entry


# The result file


def test_a_result_file_holds_the_values_that_were_scored(tmp_path):
    found = file_of(tmp_path, field())
    [board] = found.boards
    language = named(found, "language")
    assert board.values[language.id][F1.name] == {"sentiment": {"am": [0.75, 0.76, 0.74], "he": [0.75, 0.76, 0.74]}}
    assert language.standing.mean.mean == 0.75
    assert language.standing.over_zero_shot.mean == 0.25
    assert language.standing.gap_closed.mean == 62.5  # 0.25 of 0.4
    assert language.standing.win_share == 1
    assert language.standing.tier == 1
    assert board.mean(language.id, F1.name) == pytest.approx(0.75)
    assert (board.headline, board.suite.name, board.suite.hash) == (F1.name, "toy", "5u17e")
    assert [entry.name for entry in board.entries] == ["human", "language", "zero-shot"]
    assert [metric.signatures for metric in board.metrics] == [["recipe 1"]]


def test_a_result_file_fits_its_schema_and_comes_back_as_it_was(tmp_path):
    written = results_json(file_of(tmp_path, [*field(), entry("random", 0.6, of="language")]))
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(json.loads(written), schema())
    assert results_json(ResultFile.model_validate_json(written)) == written


def test_the_schema_in_the_docs_is_what_the_code_gives():
    assert (ROOT / "docs" / "results-schema.json").read_text(encoding="utf-8") == schema_json()


def test_the_schema_refuses_what_the_program_refuses(tmp_path):
    body = json.loads(results_json(file_of(tmp_path, field())))
    for broken in ({**body, "more": 1}, {**body, "date": "yesterday"}, {**body, "schema": 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema())


def test_the_docs_name_every_field_of_a_board_and_an_entry():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    facts = schema()["$defs"]
    for kind in ("BoardFacts", "EntryFacts", "StandingFacts", "MetricFacts", "EstimateFacts"):
        assert [name for name in facts[kind]["properties"] if f"`{name}`" not in text] == []
    assert [name for name in COLUMNS if f"`{name}`" not in text] == []


def test_a_date_is_given_and_checked(tmp_path):
    board = board_of(tmp_path, field())
    assert [results([board], date).date for date in ("", DATE, "2026-06-30T12:00:00Z")] == [
        "",
        DATE,
        "2026-06-30T12:00:00Z",
    ]
    for wrong in ("today", "30.6.2026", f"{DATE}\n", "<script>"):
        with pytest.raises(UserError, match="ISO 8601"):
            results([board], wrong)


def test_numbers_have_six_significant_digits(tmp_path):
    numbers = [1 / 3, 2e6 / 3, 123456789.0, -1e-9 / 7, 3e-30 / 7, 0.0, 1.0, 999999.96, 0.1 + 0.2, np.nan]
    numbers += [0.1234565, 1.0000005, 123456.5, -9999995.0, 0.9999995, np.inf]  # near ties
    expected = [float(f"{number:.6g}") for number in numbers]
    assert np.array_equal(significant(np.array(numbers)), expected, equal_nan=True)
    many = np.random.default_rng(0).lognormal(0, 8, 10_000)
    assert significant(many).tolist() == [float(f"{number:.6g}") for number in many]
    assert rounded(2 / 3) == 0.666667
    assert f"{rounded(-0.0)}" == "0.0", "not a negative zero"
    made = entry("zero-shot", 0.5)
    made.scores[F1] = flat(1 / 3, CHOSEN, (0.0,))
    assert "0.333333," in results_json(file_of(tmp_path, [made]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
def test_a_number_that_is_not_finite_becomes_null(tmp_path, value):
    odd = entry("language", 0.7)
    odd.scores[LENGTH] = {place: 77.0 if place[2] == 2 else 5.0 for place in places(CHOSEN)}
    run = write_run(tmp_path / "run", [entry("zero-shot", 0.5), odd], CHOSEN)
    for path in run.path.glob("cells/*/scores.json"):  # as another program may have written it
        path.write_text(path.read_text().replace("77.0", json.dumps(value)))
    [board] = boards([run])
    found = results([board], DATE)
    assert found.boards[0].values[named(found, "language").id]["length"]["sentiment"]["he"] == [
        5.0,
        None,
        5.0,
    ]
    assert not re.search("NaN|Infinity", results_json(found))
    table = pq.read_table(io.BytesIO(results_parquet([board]))).to_pylist()
    assert [row["value"] for row in table if row["metric"] == "length"] == [5.0, None, 5.0] * 2
    assert rounded(value) is None


def test_a_config_that_holds_no_number_becomes_null(tmp_path):
    found = file_of(tmp_path, [entry("zero-shot", 0.5), entry("odd", 0.6, strength=float("inf"), depth=[1 / 3])])
    [odd] = [item for item in found.boards[0].entries if item.method.name == "odd"]
    assert odd.method.config == {"strength": None, "depth": [1 / 3]}
    assert "Infinity" not in results_json(found)


def test_human_values_stand_once_where_all_entries_agree(tmp_path):
    entries = field()
    for made in entries:
        made.scores[VALID_SHARE] = made.scores[REFUSALS] = flat(0.5, CHOSEN)
        made.human = {VALID_SHARE: 0.9}
    entries[0].human[REFUSALS], entries[1].human[REFUSALS] = 0.1, 0.2
    found = file_of(tmp_path, entries)
    [board] = found.boards
    assert board.human == {"valid_share": {"sentiment": {code: [0.9] * 3 for code in ("am", "he")}}}
    assert set(board.human_by_entry) == {named(found, "zero-shot").id, named(found, "language").id}
    own = board.human_by_entry[named(found, "language").id]
    assert own == {"refusals": {"sentiment": {code: [0.2] * 3 for code in ("am", "he")}}}


def test_an_incomplete_entry_says_what_is_missing_and_has_no_mean(tmp_path):
    found = file_of(tmp_path, field(), drop=[("language", "sentiment", "he", 2)])
    language = named(found, "language")
    assert (language.cells.present, language.cells.expected) == (5, 6)
    [missing] = language.missing
    assert (missing.task, missing.language, missing.seed) == ("sentiment", "he", 2)
    assert missing.reason == "method_error: ValueError: no"
    assert (language.standing.mean, language.standing.tier) == (None, None)
    assert "1 of 6 values are missing" in language.standing.reason
    assert found.boards[0].values[language.id][F1.name]["sentiment"]["he"] == [0.75, None, 0.74]
    assert found.boards[0].mean(language.id, F1.name) is None


def test_one_seed_gives_means_without_intervals(tmp_path):
    chosen = selection(seeds=[7])
    found = file_of(tmp_path, [entry("zero-shot", 0.5, chosen), entry("language", 0.7, chosen)], chosen)
    gain = named(found, "language").standing.over_zero_shot
    assert (gain.mean, gain.low, gain.high, gain.p) == (0.2, None, None, None)
    assert found.boards[0].reason == "1 generation seed, 3 are needed"
    [line] = [line for line in rows_of(results_csv(found)) if line["name"] == "language"]
    assert (line["vs_zero_shot"], line["vs_zero_shot_low"], line["tier"]) == ("0.2", "", "")
    assert "language & 0.700 & +0.200 &" in ranking_tex(found.boards[0], "1")


def test_several_models_share_a_board(tmp_path):
    other = ModelIdentity(name="org/other", fingerprint="beef", dtype="float32")
    runs = []
    for i, model in enumerate((MODEL, other)):
        entries = [entry("zero-shot", 0.5), entry("language", 0.7)]
        for made in entries:
            made.model = model
        runs.append(write_run(tmp_path / str(i), entries, CHOSEN))
    found = results(boards(runs), DATE)
    [board] = found.boards
    assert board.relative
    assert {entry.model.name for entry in board.entries} == {"toy", "org/other"}
    assert len({entry.name for entry in board.entries}) == 4


def test_families():
    assert FAMILIES == ("steering", "prompting", "imported", "baseline", "control", "reference")
    kinds = {
        "zero-shot": "baseline",
        "few-shot": "baseline",
        "human": "reference",
        "language": "steering",
    }
    assert {name: row_kind(toy(name).entry) for name in kinds} == kinds
    assert row_kind(toy("random", of="language").entry) == "control"
    assert row_kind(Entry(method=method("language"), model=MODEL, setting="few-shot")) == "steering"


# Parquet


def test_the_long_table_has_a_line_per_value_in_the_order_of_the_board(tmp_path):
    entries = field()
    entries[1].scores[VALID_SHARE] = flat(0.75, CHOSEN)
    entries[1].human[VALID_SHARE] = 0.5
    board = board_of(tmp_path, entries)
    table = pd.read_parquet(io.BytesIO(results_parquet([board])))
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 4 * 6
    own = table[(table["name"] == "language") & (table["metric"] == "valid_share")]
    assert own["value"].tolist() == [0.75, 0.76, 0.74] * 2
    assert own["human"].tolist() == [0.5] * 6
    assert own["language"].tolist() == ["am"] * 3 + ["he"] * 3
    assert own["seed"].tolist() == [1, 2, 3] * 2
    assert list(dict.fromkeys(table["name"])) == ["human", "language", "zero-shot"]
    first = own.iloc[0]
    assert (first["board"], first["unit"], first["direction"]) == (board.id, "share, 0 to 1", "up")
    assert (first["model"], first["setting"], first["signature"]) == ("toy", "zero-shot", "recipe 1")
    assert table[table["name"] == "human"]["model"].isna().all()


def test_parquet_names_stand_in_dictionaries_and_carry_no_metadata_of_pandas(tmp_path):
    data = results_parquet([board_of(tmp_path, field())])
    file = pq.ParquetFile(io.BytesIO(data))
    assert set(file.metadata.metadata or {}) <= {b"ARROW:schema"}
    column = file.metadata.row_group(0).column(COLUMNS.index("signature"))
    assert column.has_dictionary_page
    assert results_parquet([]) == results_parquet([])
    assert pq.read_table(io.BytesIO(results_parquet([]))).num_rows == 0


def test_two_boards_share_one_table(tmp_path):
    one = write_run(tmp_path / "a", field(), CHOSEN)
    narrow = selection(["am"])
    other = write_run(tmp_path / "b", [entry("zero-shot", 0.5, narrow)], narrow)
    found = boards([one, other])
    table = pd.read_parquet(io.BytesIO(results_parquet(found)))
    assert table["board"].value_counts().to_dict() == {found[0].id: 18, found[1].id: 3}


# CSV


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_ranking_as_csv(tmp_path):
    entries = field()
    for made in entries:
        made.scores[VALID_SHARE] = flat(0.8, CHOSEN)
    entries[0].scores[SELF_CHRF] = flat(20.0, CHOSEN)
    lines = rows_of(results_csv(file_of(tmp_path, entries)))
    assert [line["name"] for line in lines] == ["human", "language", "zero-shot"]
    _, language, zero = lines
    assert (language["mean"], language["vs_zero_shot"], language["tier"]) == ("0.75", "0.25", "1")
    assert (language["valid_share"], language["self_chrf"], zero["self_chrf"]) == ("0.8", "", "20.0")
    assert (language["cells"], language["cells_expected"], language["family"]) == ("6", "6", "steering")


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t=", "\r=", "＝"])
def test_a_cell_of_the_csv_is_never_a_formula(tmp_path, sign):
    made = entry("language", 0.4)
    hostile = ToyEntry(method(f"{sign}1+1"), scores=made.scores)
    model = ModelIdentity(name=f"{sign}cmd|' /C calc'!A0", fingerprint="f", dtype="d")
    zero = entry("zero-shot", 0.5)
    zero.model = hostile.model = model
    lines = rows_of(results_csv(file_of(tmp_path, [zero, hostile])))
    cells = [(name, cell) for line in lines for name, cell in line.items() if cell]
    bad = [pair for pair in cells if pair[1].startswith(tuple("=+@\t\r＝")) or pair[1] == "-1+1"]
    assert bad == []
    [line] = [line for line in lines if line["method"].endswith("1+1")]
    assert (line["method"][:2], line["model"][0]) == (f"'{sign.strip()}"[:2], "'")
    assert line["vs_zero_shot"] == "-0.1"  # a number stays one


# BibTeX


def bib_of(folder: Path, notes: dict[str, str], names=("zero-shot", "language")) -> str:
    return methods_bib(file_of(folder, [entry(name, 0.5) for name in names], method_notes=notes))


def parsed(text: str) -> dict[str, dict[str, str]]:
    """Read BibTeX as BibTeX does, by counting braces; everything must be part of an entry."""
    entries, at = {}, 0
    while match := re.compile(r"\s*@(\w+)\{([^,{}]+),").match(text, at):
        at, fields = match.end(), {}
        while found := re.compile(r"\s*(\w+) = \{").match(text, at):
            start = at = found.end()
            depth = 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[at], 0)
                at += 1
            fields[found[1]] = text[start : at - 1]
            assert text[at] == ","
            at += 1
        end = re.compile(r"\s*\}\n").match(text, at)
        assert end, text[at : at + 80]
        at = end.end()
        assert match[2] not in entries
        entries[match[2]] = {"type": match[1], **fields}
    assert not text[at:].strip(), text[at : at + 80]
    return entries


def test_methods_are_cited_by_their_source(tmp_path):
    notes = {
        "language": "Adds the direction of a language. Source: arXiv 2606.18389.",
        "zero-shot": "No steering. Source: https://example.org/a_b?c=1%20d.",
    }
    found = parsed(bib_of(tmp_path, notes, ("zero-shot", "language", "human")))
    language, zero = found["steerboard-language"], found["steerboard-zero-shot"]
    assert language["title"] == "{language: Adds the direction of a language}"
    assert (language["eprint"], language["archivePrefix"]) == ("2606.18389", "arXiv")
    assert zero["url"] == "https://example.org/a_b?c=1%20d"
    assert "url" not in language
    assert "eprint" not in zero
    assert f"version 1, as run by steerboard {harness.__version__} on suite toy" in language["note"]
    assert "author" not in language
    assert "steerboard-human" not in found  # no method
    assert len(found) == 4


def test_the_program_and_its_paper_are_cited_as_in_the_citation_file(tmp_path):
    facts = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    [paper] = facts["references"]
    found = parsed(bib_of(tmp_path, {}))
    program, cited = found["steerboard"], found["arXiv-2606.18389"]
    assert program["title"] == f"{{{facts['title']}: {facts['abstract'].strip().removesuffix('.')}}}"
    assert program["author"] == f"{{{facts['authors'][0]['name']}}}" == "{steerboard maintainers}"
    assert program["version"] == facts["version"] == harness.__version__
    assert cited["title"] == f"{{{paper['title']}}}"
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert cited["author"] == " and ".join(names)
    assert len(names) == 4
    assert [f"arXiv:{cited['eprint']}"] == [item["value"] for item in paper["identifiers"]]
    assert cited["year"] == str(paper["year"])


def test_hostile_notes_and_names_cannot_break_the_bibliography(tmp_path):
    names = ["a}},\n@misc{evil, title={", "{{{", "a\\", "a b", "a-b", HEBREW, AMHARIC, HOSTILE]
    notes = dict.fromkeys(names, f"}}}}\n\n@article{{x, author = {{me}}}} {HOSTILE} https://x.org/{{a}}\\b")
    entries = [entry("zero-shot", 0.5)]
    entries += [ToyEntry(method(name), scores=entry("x", 0.6).scores) for name in names]
    found = parsed(methods_bib(file_of(tmp_path, entries, method_notes=notes)))
    assert {body["type"] for body in found.values()} == {"misc", "software"}
    assert len(found) == 3 + len(names)
    assert [key for key in found if not re.fullmatch(r"[A-Za-z0-9.-]+", key)] == []
    assert found[key_of(HEBREW)]["key"] == HEBREW
    assert found[key_of(AMHARIC)]["url"] == "https://x.org/"


def test_keys_of_different_methods_differ():
    names = ["a b", "a-b", "a_b", HEBREW, AMHARIC, "", "a" * 90, "a" * 91]
    assert len({key_of(name) for name in names}) == len(names)


# LaTeX


def test_every_sign_that_latex_acts_on_is_escaped():
    assert tex("& % $ # _") == r"\& \% \$ \# \_"
    assert tex("{ } ~ ^ \\") == (
        r"\textbraceleft{} \textbraceright{} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert tex(f"{HEBREW} {AMHARIC}") == f"{HEBREW} {AMHARIC}"
    assert tex("a\n\nb\u202ec") == "a b\ufffdc"
    assert tex("−0.1 –") == "$-$0.1 --"


def balanced(text: str) -> bool:
    """Whether braces, environments and dollars pair up, as LaTeX counts them."""
    plain = re.sub(r"\\[\\&%$#_{}]", "", re.sub(r"(?m)^%.*$", "", text))
    depth = 0
    for sign in plain:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    begins, ends = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    return depth == 0 and begins == ends[::-1] and plain.count("$") % 2 == 0


def test_the_ranking_as_a_latex_table(tmp_path):
    entries = field()
    entries.append(entry("quality", 0.4))
    for made in entries:
        made.scores[VALID_SHARE] = flat(0.8, CHOSEN)
        made.scores[VENDI.for_provider("tfidf")] = flat(12.0, CHOSEN)
    text = ranking_tex(file_of(tmp_path, entries).boards[0], "0.1")
    assert balanced(text)
    assert "1 & language & 0.750 & +0.250 & 12.0 & 0.800 & -- \\\\" in text
    assert "& quality & 0.400 & $-$0.100 & 12.0" in text
    assert "-- & human & 0.900" in text  # a reference has no tier
    assert r"Tier & Entry & macro-F1 (tfidf) & vs zero-shot [95 \%] & Vendi & valid & language \\" in text


def test_hostile_names_cannot_break_the_table(tmp_path):
    entries = [entry("zero-shot", 0.5)]
    names = (HOSTILE, HEBREW, AMHARIC, "\\end{tabular}", "[x] \\\\ \\hline", "%")
    entries += [ToyEntry(method(name), scores=entry("x", 0.6).scores) for name in names]
    chosen = CHOSEN.model_copy(update={"narrowed": [HOSTILE]})
    suite = {"name": HOSTILE, "classifiers": ["tfidf"]}
    text = ranking_tex(file_of(tmp_path, entries, chosen, suite=suite).boards[0], "0.1")
    assert balanced(text)
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 1 + len(entries)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {6}
    assert HEBREW in text
    assert AMHARIC in text
    assert "\\input" not in text
    assert re.findall(r"\\hline|\\end\{tabular\}", text) == [r"\end{tabular}"]


# All of them


def test_all_downloads_are_made_and_equal_byte_for_byte(tmp_path):
    found = boards([write_run(tmp_path / "run", field(), CHOSEN)])
    one = downloads(found, DATE)
    assert one == downloads(boards([Run(tmp_path / "run")]), DATE)
    assert sorted(one) == [
        "methods.bib",
        "results-schema.json",
        "results.csv",
        "results.json",
        "results.parquet",
        f"{found[0].id}.tex",
    ]
    ResultFile.model_validate(json.loads(one["results.json"]))


def test_text_from_outside_goes_through_every_format(tmp_path):
    suite = {"name": f"PUT HERE {HEBREW}", "classifiers": ["tfidf"]}
    entries = [entry("zero-shot", 0.5), entry("odd", 0.6), entry("odd", 0.7, text=f"{HEBREW} {AMHARIC}")]
    run = write_run(tmp_path / "run", entries, suite=suite, method_notes={"odd": f"{AMHARIC} PUT HERE"})
    manifest = run.manifest_path.read_text(encoding="utf-8")
    run.manifest_path.write_text(manifest.replace("PUT HERE", "\\ud800\\u0000\\u202e"), encoding="utf-8")
    found = boards([run])
    made = downloads(found, DATE)
    texts = [data.decode() for name, data in made.items() if name != "results.parquet"]
    assert len(texts) == 5
    assert [sign for sign in "\x00\u202e\ud800" if sign in "".join(texts)] == []
    assert sum(HEBREW in text for text in texts) == 4  # all but the schema
    names = set(pd.read_parquet(io.BytesIO(made["results.parquet"]))["name"])
    assert f"odd [text={HEBREW} {AMHARIC}]" in names


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        build_board([write_run(tmp_path / "run", field(), CHOSEN)], tmp_path / "file" / "x", DATE)
