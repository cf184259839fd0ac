"""Texts that were made elsewhere: what is guessed, what is refused, and how they stand beside a model's zero-shot."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.helpers import Outcome, killed_after, steerboard

from harness.core.records import IMPORTED
from harness.core.store import Run
from harness.data.suite import load_suite
from harness.ranking.eligibility import Eligibility
from harness.ranking.leaderboard_rows import rank_entries
from harness.ranking.results import collect

GOOD = {"am": ["ጥሩ ቀን ነው", "ደስ ብሎኛል", "በጣም ጥሩ"], "he": ["יום טוב", "אני שמח מאוד", "נהדר, תודה"]}
BAD = {"am": ["መጥፎ ቀን ነው", "አዝኛለሁ", "በጣም መጥፎ"], "he": ["יום רע", "אני עצוב מאוד", 'אמר: "נורא"\nוהלך']}
NARROW = ("--languages", "am,he", "--tasks", "sentiment", "--limit", 2)
HUMAN = "זה טקסט של אדם"


def write_csv(path: Path, header: list[str], rows: list[list[object]], **how: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=how.get("encoding", "utf-8")) as file:
        csv.writer(file, lineterminator=how.get("end", "\n")).writerows([header, *rows])
    return path


def published(folder: Path) -> Path:
    """Write a directory as kinit-sk/multilingual-classifiers-not-generators has it: numbers in 'label', names in
    'intent', generated and human-written files side by side, and tasks and languages that the suite does not have."""
    for code in ("am", "he"):
        rows = [[t, "positive", 1] for t in GOOD[code]] + [[t, "negative", 0] for t in BAD[code]]
        numbered = [[i, float(i), *row] for i, row in enumerate(rows)]
        write_csv(folder / f"sentiment/{code}-train_full.csv", ["", "Unnamed: 0", "text", "intent", "label"], numbered)
        human = [[i, i, HUMAN, "positive", 1] for i in range(9)]
        write_csv(folder / f"sentiment/{code}-train_human_parsed.csv", ["", "id", "text", "intent", "label"], human)
        write_csv(folder / f"sentiment/{code}-test.csv", ["id", "text", "intent", "label"], [row[1:] for row in human])
    write_csv(folder / "sentiment/az-train_full.csv", ["text", "intent", "label"], [["Yaxşı gün", "positive", 1]])
    write_csv(folder / "intent/he-train_full.csv", ["text", "intent", "label"], [["כמה חם", "weather_query", 0]])
    (folder / "README.md").write_text("not a table", encoding="utf-8")
    return folder


def lines(seeds: tuple[int, ...] = (1, 2, 3), end: str = "") -> list[dict[str, object]]:
    """Return rows with all columns, other texts for every seed."""
    return [
        {"generated_text": f"{text} {seed}{end}", "category": label, "lang": code, "seed": seed}
        for code in ("am", "he")
        for seed in seeds
        for label, texts in (("positive", GOOD), ("negative", BAD))
        for text in texts[code]
    ]


def write_lines(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def add(path: Path, run: Path, *more: object, name: str = "elsewhere", model: str = "pocketlm") -> Outcome:
    """Import into a run, new ones of two languages and two texts per label."""
    new = [] if Run(run).exists() else ["--suite", "mini", *NARROW]
    return steerboard("import", "texts", path, "--run", run, "--name", name, "--model", model, *new, *more)


def texts_of(run: Path) -> dict[tuple[str, int], list[tuple[str, str]]]:
    """Return language and seed -> label and text of the cells with imported texts."""
    opened, found = Run(run), {}
    for cell in opened.cell_ids():
        status = opened.status(cell)
        if status.cell.method.version == IMPORTED and status.state == "ok":
            found[status.cell.language, status.cell.seed] = [(g.label, g.text) for g in opened.generations(cell)]
    return found


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A run of two languages and three seeds with the baselines."""
    folder = tmp_path_factory.mktemp("own") / "run"
    done = steerboard("run", "--suite", "mini", "--methods", "zero-shot", *NARROW, "--run", folder)
    assert done.code == 0, done.err
    return folder


# What is guessed


def test_the_published_layout_is_read_without_its_human_text(tmp_path):
    done = add(published(tmp_path / "data"), tmp_path / "run", name="published")
    assert done.code == 0, done.err
    assert "text: column 'text'; label: column 'intent'; task: the path; language: the path" in done.out
    assert "sentiment  am        1      positive 3, negative 3" in done.out
    assert "4 of" not in done.out.partition("left out")[0]
    left = [line for line in done.out.splitlines() if line.startswith("left out: ")]
    assert len(left) == 4  # named test, named human, language az, task intent
    assert "human-written text, by the word 'test'" in done.out
    found = texts_of(tmp_path / "run")
    assert found["he", 1] == [*(("negative", t) for t in BAD["he"][:2]), *(("positive", t) for t in GOOD["he"][:2])]
    assert {text for rows in found.values() for _, text in rows}.isdisjoint({HUMAN})


def test_a_table_of_one_seed_says_why_it_is_not_ranked(tmp_path):
    run = tmp_path / "run"
    done = add(published(tmp_path / "data"), run)
    assert "not ranked: 4 of 6 cells are missing" in done.out
    assert "not ranked: generation seeds: 1, 3 are needed" in done.out
    [results] = collect([Run(run)])
    [row] = results.entries.values()
    reasons = {status.reason for name in Run(run).cell_ids() if (status := Run(run).status(name)).state == "ok"}
    assert reasons == {"the first 2 of up to 3 texts of a label"}
    assert (row.present, row.expected, row.name) == (0, 6, "elsewhere (imported)")
    assert {missing.reason for missing in row.missing} == {
        "skipped: no texts were imported",
        "ok: generated, not yet scored",
    }


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "bom", "crlf", "jsonl", "parquet"])
def test_all_formats_give_the_same_texts(tmp_path, kind):
    rows = lines()
    header, values = list(rows[0]), [list(row.values()) for row in rows]
    path = tmp_path / f"mine.{kind if kind in {'tsv', 'jsonl', 'parquet'} else 'csv'}"
    if kind == "jsonl":
        write_lines(path, rows)
    elif kind == "parquet":
        pd.DataFrame(rows).assign(vector=[[1.0]] * len(rows)).to_parquet(path)
    else:
        sign = {"tsv": "\t", "semicolon": ";"}.get(kind, ",")
        end = "\r\n" if kind == "crlf" else "\n"
        with path.open("w", newline="", encoding="utf-8-sig" if kind == "bom" else "utf-8") as file:
            csv.writer(file, delimiter=sign, lineterminator=end).writerows([header, *values])
    done = add(path, tmp_path / "run")
    assert done.code == 0, done.err
    assert "text: column 'generated_text'; label: column 'category'; task: the labels" in done.out
    found = texts_of(tmp_path / "run")
    assert found == {
        (code, seed): [(label, f"{text} {seed}") for label, texts in groups for text in texts[code][:2]]
        for code in ("am", "he")
        for seed in (1, 2, 3)
        for groups in [(("negative", BAD), ("positive", GOOD))]
    }


def test_seeds_labels_and_languages_can_be_in_the_paths(tmp_path):
    for seed in (41, 42):
        for label, texts in (("positive", GOOD), ("negative", BAD)):
            write_csv(
                tmp_path / f"data/Hebrew/seed_{seed}/{label}.csv", ["text"], [[f"{t} {seed}"] for t in texts["he"]]
            )
    done = add(tmp_path / "data", tmp_path / "run", "--task", "sentiment")
    assert done.code == 0, done.err
    assert "seeds: 41 stands for 1, 42 stands for 2" in done.out
    assert sorted(texts_of(tmp_path / "run")) == [("he", 1), ("he", 2)]


def test_a_table_may_hold_both_tasks(tmp_path):
    labels = load_suite("mini").task("topic", "he").labels
    rows = [
        [text, label, "sentiment"] for label, texts in (("positive", GOOD), ("negative", BAD)) for text in texts["he"]
    ]
    rows += [[f"{label} בעברית", label.upper(), "topic"] for label in labels]
    path = write_csv(tmp_path / "he.csv", ["text", "class", "task"], rows)
    new = ("--suite", "mini", "--languages", "he", "--limit", 1)
    words = ("--run", tmp_path / "run", "--name", "elsewhere", "--model", "pocketlm")
    done = steerboard("import", "texts", path, *words, *new)
    assert done.code == 0, done.err
    assert "topic      he        1      1 of each of 7 labels" in done.out
    assert "not ranked: 4 of 6 cells are missing" in done.out


def test_columns_and_labels_can_be_named(tmp_path):
    rows = [["x", t, 5] for t in GOOD["he"]] + [["x", t, 1] for t in BAD["he"]] + [["x", "בסדר", 3]]
    path = write_csv(tmp_path / "he.csv", ["text", "review", "stars"], rows)
    stated = ("--columns", "text=review,label=stars", "--map", "5=positive", "--map", "1=negative", "--map", "3=")
    done = add(path, tmp_path / "run", "--task", "sentiment", "--seed", 2, *stated)
    assert done.code == 0, done.err
    assert "left out: 1 row of he.csv: labels that --map leaves out" in done.out
    assert texts_of(tmp_path / "run")["he", 2][3] == ("positive", GOOD["he"][1])


def test_empty_and_repeated_texts_stay_and_are_named(tmp_path):
    rows = [["", "positive"], ["יום טוב", "positive"], ["יום רע", "negative"], ["יום רע", "negative"]]
    run = tmp_path / "run"
    done = add(write_csv(tmp_path / "he.csv", ["text", "label"], rows), run)
    assert "he.csv, line 2: the text is empty; it counts as invalid" in done.out
    assert "1 texts repeat an earlier one of their cell and label (the first in sentiment/he)" in done.out
    [cell] = [name for name in Run(run).cell_ids() if Run(run).status(name).state == "ok"]
    assert [(g.text, g.duplicate) for g in Run(run).generations(cell)] == [
        ("יום רע", False),
        ("יום רע", True),
        ("", True),
        ("יום טוב", False),
    ]
    assert Run(run).status(cell).duplicates == 2


def test_a_cell_with_too_few_texts_says_so(tmp_path):
    run = tmp_path / "run"
    rows = [["יום טוב", "positive"], ["טוב", "positive"], ["יום רע", "negative"]]
    rows += [[text, "positive"] for text in GOOD["he"]]
    he = write_csv(tmp_path / "data/he.csv", ["text", "label"], rows)
    write_csv(
        he.with_name("am.csv"),
        ["text", "label"],
        [[t, "positive"] for t in GOOD["am"]] + [[t, "negative"] for t in BAD["am"]],
    )
    done = add(he.parent, run)
    assert "  1 of 2 texts of 'negative': sentiment/he" in done.out
    reasons = [status.reason for name in Run(run).cell_ids() if (status := Run(run).status(name)).state == "skipped"]
    assert "1 of 2 texts of 'negative'" in reasons


# Beside the rows of a run


def test_texts_of_the_same_model_are_ranked_beside_its_zero_shot(own, tmp_path):
    before = {name: Run(own).generations_digest(name) for name in Run(own).cell_ids()}
    done = add(write_lines(tmp_path / "mine.jsonl", lines()), own)
    assert done.code == 0, done.err
    assert done.out.endswith(f"6 of 6 cells written\nnext: steerboard score {own}\n")
    assert {name: Run(own).generations_digest(name) for name in before} == before
    scored = steerboard("score", own)
    assert "6 cells scored" in scored.out, scored.err
    [results] = collect([Run(own)])
    rows = {row.name: row for row in results.entries.values()}
    assert rows["elsewhere (imported)"].complete
    assert rows["elsewhere (imported)"].entry.model == rows["zero-shot"].entry.model
    eligible = Eligibility(results)
    assert eligible.zero_shot[rows["elsewhere (imported)"].id] == rows["zero-shot"].id
    standing = {row.row.name: row for row in rank_entries(results, results.headline).rows}["elsewhere (imported)"]
    assert standing.over_zero_shot is not None
    again = steerboard("run", "--suite", "mini", "--methods", "constant", *NARROW, "--run", own)
    assert again.code == 0, again.err
    assert "elsewhere" in again.out


def test_the_board_marks_them_and_does_not_call_them_its_own(own, tmp_path):
    assert add(write_lines(tmp_path / "mine.jsonl", lines()), own).code == 0
    assert steerboard("score", own).code == 0
    assert steerboard("board", "build", own, "--out", tmp_path / "site").code == 0
    [page] = tmp_path.glob("site/*/method-elsewhere.html")
    html = page.read_text(encoding="utf-8")
    assert '<span class="chip imported">imported</span>' in html
    assert "texts made elsewhere, scored by whoever built this page" in html
    assert "steerboard import texts PATH/mine.jsonl" in html
    assert "reproduced by" not in html
    body = json.loads((tmp_path / "site" / "results.json").read_text(encoding="utf-8"))
    assert [e["family"] for e in body["boards"][0]["entries"] if e["name"] == "elsewhere (imported)"] == ["imported"]


def test_the_same_import_again_changes_nothing_and_other_texts_are_refused(tmp_path):
    run, path = tmp_path / "run", write_lines(tmp_path / "mine.jsonl", lines())
    assert add(path, run).code == 0
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    path.rename(tmp_path / "other name.jsonl")
    assert "nothing to do" in add(tmp_path / "other name.jsonl", run).out
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    other = write_lines(path, lines(end="!"))
    assert "has other texts under the name 'elsewhere'. Choose another --name." in add(other, run).one_line()
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    assert add(other, run, name="elsewhere-2").code == 0
    assert add(other, run, "--setting", "few-shot").code == 0


def test_an_import_that_is_killed_is_completed_by_the_next(tmp_path):
    run, path = tmp_path / "run", write_lines(tmp_path / "mine.jsonl", lines())
    with killed_after(2):
        add(path, run)
    assert not Run(run).exists()  # no entry without all its cells
    done = add(path, run)
    assert "4 of 6 cells written" in done.out
    assert len(texts_of(run)) == 6


def test_cells_of_a_killed_import_are_on_no_board(own, tmp_path):
    with killed_after(1):
        add(write_lines(tmp_path / "mine.jsonl", lines(end="?")), own, name="killed")
    scored = steerboard("score", own)
    assert scored.code == 0, scored.err
    assert "killed" not in scored.out
    assert steerboard("board", "build", own, "--out", tmp_path / "site").code == 0


def test_texts_of_another_model_get_a_run_of_their_own(own, tmp_path):
    path = write_lines(tmp_path / "mine.jsonl", lines())
    refused = add(path, own, model="google/gemma-3-1b-it").one_line()
    assert "holds a run of model 'pocketlm', not 'google/gemma-3-1b-it'" in refused
    words = ("--run", tmp_path / "run", "--name", "elsewhere", "--model", "google/gemma-3-1b-it", "--like", own)
    done = steerboard("import", "texts", path, *words)
    assert done.code == 0, done.err
    assert "no gain: the run has no zero-shot row of google/gemma-3-1b-it" in done.out
    assert steerboard("score", tmp_path / "run").code == 0
    built = steerboard("board", "build", own, tmp_path / "run", "--out", tmp_path / "site")
    assert built.code == 0, built.err
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "its model has no complete zero-shot row" in page


def test_a_new_run_leaves_the_folder_of_the_model_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_lines(tmp_path / "mine.jsonl", lines())
    words = ("import", "texts", path, "--suite", "mini", "--name", "elsewhere", "--model", "google/gemma-3-1b-it")
    assert steerboard(*words, *NARROW).code == 0
    assert [folder.name for folder in Path("runs").iterdir()] == ["mini-google--gemma-3-1b-it-imported"]
    assert "nothing to do" in steerboard(*words).out


def test_nothing_is_written_by_a_dry_run(tmp_path):
    done = add(write_lines(tmp_path / "mine.jsonl", lines()), tmp_path / "run", "--dry-run")
    assert "nothing was written" in done.out
    assert not (tmp_path / "run").exists()


def test_imported_texts_are_submitted_as_outputs(own, tmp_path):
    run = tmp_path / "run"
    assert add(write_lines(tmp_path / "mine.jsonl", lines()), run).code == 0
    assert steerboard("score", run).code == 0
    card = ("--author", "A B", "--contact", "a@example.org", "--licence", "CC-BY-4.0", "--partial")
    out = tmp_path / "submissions" / "elsewhere"
    packed = steerboard("submission", "pack", run, "--method", "elsewhere", "--type", "outputs", "--out", out, *card)
    assert packed.code == 0, packed.err
    checked = steerboard("submission", "check", out, "--no-rescore")
    assert checked.code == 0, checked.out


# What is refused

HEAD = "text,label\nיום טוב,positive\n"
FILES: dict[str, tuple[str, str | bytes, str]] = {
    "invalid UTF-8": ("he.csv", b"text,label\nok,positive\ncaf\xe9,negative\n", "line 3 is not UTF-8 text"),
    "UTF-16": ("he.csv", HEAD.encode("utf-16"), "line 1 is not UTF-8 text. Save the file as UTF-8."),
    "NUL": ("he.csv", HEAD + "א\0ב,negative\n", "line 3 has a NUL character in 'text'"),
    "NUL in JSON": ("he.jsonl", '{"text": "\\u0000", "label": "positive"}', "line 1 has a NUL character"),
    "half a character": ("he.jsonl", '\n{"text": "\\ud83d", "label": "positive"}', "line 2 holds half a character"),
    "an open quote": ("he.csv", HEAD + '"open,negative\nx,positive\n', "line 3 is not valid CSV"),
    "a missing value": ("he.csv", HEAD + "alone\n", "line 3 has 1 values, the header has 2 columns"),
    "after a line break": ("he.csv", HEAD + '"a\nb",positive\nalone\n', "line 5 has 1 values"),
    "a column twice": ("he.csv", "text,text\na,b\n", "has the column 'text' twice"),
    "an empty file": ("he.csv", "", "is empty"),
    "no rows": ("he.csv", "text,label\n", "holds no rows"),
    "a long text": ("he.csv", HEAD + "א" * 50_001 + ",positive\n", "line 3 has 50,001 characters in 'text'"),
    "a huge field": ("he.csv", HEAD + "א" * 200_000 + ",positive\n", "field larger than field limit"),
    "a number": ("he.jsonl", '{"text": 3, "label": "positive"}', "line 1 has 3 in 'text', not text"),
    "null": ("he.jsonl", '{"text": null, "label": "positive"}', "line 1 has no value of 'text'"),
    "broken JSON": ("he.jsonl", '{"text": "a", "label": "positive"}\n{"text":', "line 2 is not valid JSON"),
    "a list": ("he.jsonl", "[1]", "line 1 holds a JSON list, not an object"),
    "deep JSON": ("he.jsonl", '{"text": ' + "[" * 99 + "]" * 99 + "}", "line 1 is nested too deeply"),
    "an odd seed": ("he.jsonl", '{"text": "a", "label": "positive", "seed": "one"}', "line 1 has the seed 'one'"),
    "no Parquet": ("he.parquet", b"PAR1 not", "is not a Parquet file that can be read"),
    "a foreign label": ("he.csv", HEAD + "רגיל,neutral\nטוב,positive\n",
                        "line 3 has the label 'neutral' (column 'label'), not one of task 'sentiment'; valid: "
                        "negative, positive. Say what it means: --map neutral=LABEL"),
    "numbers as labels": ("he.csv", "text,label\nטוב,1\n", "--map 1=LABEL"),
    "an escape as label": ("he.csv", "text,label\nטוב,\x1b[31m\n", "--map VALUE=LABEL"),
    "no text column": ("he.csv", "words,label\na,positive\n", "--columns text=NAME"),
    "no label column": ("he.csv", "text,stars\na,5\n", "--columns label=NAME"),
    "two text columns": ("he.csv", "sentence,review,label\na,b,positive\n", "--columns text=sentence"),
    "two label columns": ("he.csv", "text,label,sentiment\na,positive,negative\n", "--columns label=label"),
    "two languages": ("am_he.csv", HEAD, "its path holds several languages (am, he). Say which one with --language"),
    "no language": ("mine.csv", HEAD, "no language of the suite in the path"),
    "human text": ("he-test.csv", HEAD, "human-written text, by the word 'test'"),
    "another format": ("he.json", "{}", "Valid: files ending in .csv, .tsv, .jsonl, .parquet"),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
def test_a_bad_file_is_one_clear_line(tmp_path, what):
    name, content, expected = FILES[what]
    path = tmp_path / "data" / name
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = add(path, tmp_path / "run", "--task", "sentiment").one_line()
    assert expected in line
    assert name in line
    assert "\x1b" not in line
    assert not (tmp_path / "run").exists()


def test_parquet_of_other_types_is_refused(tmp_path):
    for column, values, kind in (("text", [b"a"], "binary"), ("label", [["positive"]], "list")):
        rows = {"text": ["a"], "label": ["positive"], column: values}
        path = tmp_path / f"he-{column}.parquet"
        pd.DataFrame(rows).to_parquet(path)
        line = add(path, tmp_path / "run", "--task", "sentiment").one_line()
        assert f"column '{column}' is of type {kind}" in line


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path):
    rows = 200_000
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["א" * 40_000]))
    pq.write_table(pa.table({"text": text, "label": ["positive"] * rows}), path := tmp_path / "he.parquet")
    assert path.stat().st_size < 10_000
    assert "unpacks to more than 256 MiB" in add(path, tmp_path / "run", "--task", "sentiment").one_line()


def test_one_draw_is_not_taken_for_three(tmp_path):
    for seed in (1, 2, 3):
        rows = [[t, "positive"] for t in GOOD["he"]] + [[t, "negative"] for t in BAD["he"]]
        write_csv(tmp_path / f"data/he_seed{seed}.csv", ["text", "label"], rows)
    line = add(tmp_path / "data", tmp_path / "run").one_line()
    assert "seeds 1 and 2 of sentiment/he share 6 of 6 texts. Every seed has to be a draw of its own" in line


def test_two_files_of_one_seed_are_refused(tmp_path):
    for name in ("he_a.csv", "he_b.csv"):
        write_csv(tmp_path / "data" / name, ["text", "label"], [["יום טוב", "positive"]])
    line = add(tmp_path / "data", tmp_path / "run").one_line()
    assert "are both sentiment/he, with no seed. Name the generation seed in the files (seed1, seed2)" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--setting", "one-shot"), "unknown --setting 'one-shot'; valid: few-shot, zero-shot."),
        (("--language", "Hebrew"), "Did you mean 'he'?"),
        (("--seed", 9), "unknown --seed '9'; valid: 1, 2, 3."),
        (("--columns", "txt=a"), "valid: label, language, seed, task, text."),
        (("--columns", "text=nope"), "valid: category, generated_text, lang, seed."),
        (("--map", "pos"), "--map 'pos': give it as pos=positive."),
        (("--map", "pos=good"), "unknown label in --map 'good'"),
        (("--suite", "published", "--run", "elsewhere"), "depend on the model. Give a run of it with --run or --like."),
    ],
)
def test_bad_options_are_one_clear_line(tmp_path, words, expected):
    line = add(write_lines(tmp_path / "mine.jsonl", lines()), tmp_path / "run", *words).one_line()
    assert expected in line


@pytest.mark.parametrize("name", ["zero-shot", "zer0_shot", "human"])
def test_an_import_takes_no_name_of_a_built_in_method(tmp_path, name):
    line = add(write_lines(tmp_path / "mine.jsonl", lines()), tmp_path / "run", name=name).one_line()
    assert "is, or looks like, the built-in method" in line
