"""Run folders of made-up results, as if entries had been run and scored: what ``board.py`` measures with.

Every entry has a true worth, downstream and in diversity, which its numbers follow, so that there are tiers.
Kept predictions give the stored macro-F1. All is seeded: the same call writes the same files.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from harness.core.cells import cell_id
from harness.core.files import digest
from harness.core.records import (
    CellKey,
    CellScores,
    CellStatus,
    Entry,
    Generation,
    Manifest,
    ModelIdentity,
    PartRecord,
    Score,
    Selection,
    TunedMethod,
    Usage,
)
from harness.core.store import Run
from harness.data.suite import Suite
from harness.methods.registry import Registry, load_registry
from harness.scoring.classification import macro_f1_of
from harness.scoring.metrics import SHARE, metric

MODELS = ("maker/alto-9b-it", "maker/brio-12b-it", "house/canto-8b", "house/dolce-27b-it")
STRENGTHS = {"language": "strength", "quality": "strength", "clas": "beta", "learned": "strength"}
CONTROLS = {"random": "language", "negated": "quality", "other-language": "quality", "shuffled": "quality"}
REFERENCES = {"human": 0.5, "constant": -2.5}
SYLLABLES = {"am": "ሀለመረሰቀበተነአከወዘየደገጠፈላማራሳቃባታናካዋ", "he": "בגדהוזחטיכלמנסעפצקרשת"}
FEW = {"jv": 152, "mt": 170, "su": 152}
"""Languages with fewer sentiment test texts than 1,000, as in the real data."""

CORPORA = ("demonstrations", "train", "validation", "test", "vectors")
CLASSIFIER = "classifier/tfidf"
WHEN = "2026-01-01T00:00:00+00:00"
SPENT = Usage(seconds=12.5, tokens=40_000)

_RECIPES = {
    "validity": "checks:1|language:tfidf-char_wb-1-3+logreg|label:tfidf-char-2-5+logreg-C10|folds:5|v:1",
    "lexical": "{}|budget:500|subsamples:30|tok:unicode-words|norm:NFC|case:mixed|window:30|seed:0|version:2",
    "embedding/tfidf": "{}|tfidf-char-2-5-sublinear-idf:human-train|norm:NFKC-casefold|window:30|texts:30",
    "leakage": "{}|runs:50x0.333|words:5-grams|alike:0.7|least:20|form:folded+letters|version:2",
    "membership": "membership|char:2-3|tfidf:sublinear|windows:half-overlap|form:folded|version:1",
    "hidden": "hidden|ignorable+controls+stray-marks+look-alikes|version:1",
    CLASSIFIER: "tfidf-char-2-5-sublinear-hash18+logreg-C10|version:2",
}
# name, level, what one unit of worth changes, human text's value (- for none), half the interval, detail
_TABLES = {
    "validity": """
        valid_share 0.94 0.03 0.985 0.03 language,script,empty,loop,echo,gibberish,refusal,preamble
        language_fidelity 0.96 0.02 0.99 0.03 en
        language_sentences 0.95 0.02 0.985 0.03 -
        label_fidelity 0.78 0.1 0.75 0.08 first,second
        script_share 0.985 0.01 0.99 0.02 -
        degenerate 0.02 -0.01 0.004 0.01 empty,loop,echo,gibberish
        refusals 0.01 -0.005 0.001 0.01 refusal,preamble""",
    "lexical": """
        distinct_1 0.5 0.06 0.6 0.006 -
        distinct_2 0.82 0.05 0.93 0.005 -
        distinct_3 0.93 0.02 0.98 0 -
        self_chrf 24 -4 16 1.2 texts,groups
        self_bleu 12 -3 7 1.2 texts,groups
        compression_ratio 2.1 -0.2 1.85 0.1 -
        self_repetition 0.2 -0.1 0.01 0.04 texts
        near_duplicates 0.04 -0.02 0.002 0 exact
        length 110 10 95 5 p05,p25,p50,p75,p95,sd""",
    "embedding/tfidf": """
        vendi/tfidf 27 1.5 29.6 0.3 texts
        vendi_q05/tfidf 28 1.2 29.8 0.2 texts
        vendi_q2/tfidf 25 2 29.2 0.4 texts
        vendi_qinf/tfidf 15 3 22 0.8 texts
        pairwise_distance/tfidf 0.95 0.02 0.985 0.001 texts,centred""",
    "leakage": "\n".join(
        f"copied/{corpus} 0.008 0.004 0.008 0.02 copies,texts\noverlap/{corpus} 0.1 0.02 0.1 0.01 -"
        for corpus in CORPORA
    ),
    "membership": """
        membership/test 0 0 0 0.01 texts
        membership/validation 0 0 0 0.01 texts""",
    "hidden": "hidden_characters 0.001 0 0.001 0.01 texts",
    CLASSIFIER: """
        macro_f1/tfidf 0 0 - 0 texts,per_label_min
        accuracy/tfidf 0 0 - 0 texts,per_label_min
        calibration_error/tfidf 0.06 -0.01 - 0 texts,per_label_min
        brier/tfidf 0.45 -0.05 - 0 texts,per_label_min
        macro_f1.valid/tfidf 0 0 - 0 texts,per_label_min
        accuracy.valid/tfidf 0 0 - 0 texts,per_label_min""",
}


@dataclass(frozen=True)
class Spec:
    """How a metric is made up: ``level`` plus ``slope`` times what the entry is worth in it."""

    name: str
    part: str
    level: float
    slope: float
    human: float | None
    half: float
    detail: tuple[str, ...]
    signature: str


def _specs() -> list[Spec]:
    found = []
    for part, table in _TABLES.items():
        for line in table.strip().split("\n"):
            name, level, slope, human, half, detail = line.split()
            for own in (name, metric(name).on_valid_texts.name) if part in {"lexical", "embedding/tfidf"} else (name,):
                recipe = _RECIPES[part].format(name.partition("/")[0].replace("_", "-"))
                names = () if detail == "-" else tuple(detail.split(","))
                people = None if human == "-" else float(human)
                found.append(Spec(own, part, float(level), float(slope), people, float(half), names, recipe))
    return found


SPECS = _specs()
"""All metrics that a run with the classifier tfidf has."""


@dataclass(frozen=True)
class Row:
    """An entry with its truth: what it is worth downstream (log-odds), in diversity, and what is wrong."""

    entry: Entry
    worth: float
    diversity: float
    trouble: str = ""

    @property
    def name(self) -> str:
        return self.entry.model_dump_json()

    @property
    def steered(self) -> bool:
        return self.entry.method.name in {*STRENGTHS, *CONTROLS}


def rows_of(entries: int) -> list[list[Row]]:
    """Return the entries of every run: a model each, with equally many of them; references in the first."""
    registry = load_registry()
    count = max(1, min(len(MODELS), entries // 5))
    runs: list[list[Row]] = [[] for _ in range(count)]
    for name, worth in REFERENCES.items():
        [method] = registry.configure(name, {})
        runs[0].append(Row(Entry(method=method.identity, model=None, setting="none"), worth, 0.5))
    others = entries - len(REFERENCES)
    for place, run in enumerate(runs):
        run += _rows_of_model(registry, place, others // count + (place < others % count))
    return runs


def _rows_of_model(registry: Registry, place: int, share: int) -> list[Row]:
    """Return so many entries of a model; of forty one copies test text, of fifty one lacks cells."""
    name = MODELS[place]
    model = ModelIdentity(name=name, revision=digest(name, 40), fingerprint=digest(name, 40), dtype="bfloat16")
    rng = np.random.default_rng([11, place])
    rows = []
    for index, entry in enumerate(islice(_entries(registry, model), share)):
        family = list(STRENGTHS).index(entry.method.name) / 12 if entry.method.name in STRENGTHS else -0.1
        worth = 0.1 * place + 0.08 * (entry.setting == "few-shot")
        worth += 0.0 if index < 2 else family + float(rng.normal(0, 0.08))
        trouble = "copies" if index % 40 == 3 else "gaps" if index % 50 == 4 else ""
        rows.append(Row(entry, worth, float(rng.normal(0, 1)), trouble))
    return rows


def _entries(registry: Registry, model: ModelIdentity) -> Iterator[Entry]:
    """Yield entries without end: unsteered ones, then methods and controls at one strength after another."""
    plain: list[tuple[str, dict[str, Any]]] = [("zero-shot", {}), ("few-shot", {})]
    wanted, step = plain, 3
    while True:
        for name, options in wanted:
            [method] = registry.configure(name, options)
            for setting in method.settings:
                yield Entry(method=method.identity, model=model, setting=setting)
        step += 1
        given = {name: {field: round(0.05 * step, 2)} for name, field in STRENGTHS.items()}
        controls = [(name, {"of": of, "options": given[of]}) for name, of in CONTROLS.items()]
        wanted = [*given.items(), *controls]


class Place:
    """What the cells of a task, language and seed share: labels, test set, human values, words."""

    def __init__(self, suite: Suite, selection: Selection, task: str, language: str, seed: int) -> None:
        self.task, self.language, self.seed = task, language, seed
        self.suite, self.size = suite.name, selection.texts_per_label[task]
        self.labels = suite.task(task, language).labels
        self.protocol = suite.text_protocol(task, language)
        self.codes = suite.languages
        self.texts = self.size * len(self.labels)
        self.shared = "" if task == "topic" else language  # topics: the same examples in every language
        self.gold, self.difficulty = test_set(task, self.shared, len(self.labels))
        self.shift = float(self.rng("stratum").normal(0, 0.3) + self.rng(seed).normal(0, 0.08))
        drawn = self.rng(seed, "human").normal(0, 1, len(SPECS))
        pairs = zip(SPECS, drawn.tolist(), strict=True)
        self.human = {s.name: s.human and s.human + 0.05 * abs(s.slope) * z for s, z in pairs}

    def rng(self, *more: object) -> np.random.Generator:
        """Return draws of this task and language, and of what else is named."""
        return np.random.default_rng(int(digest([self.task, self.language, *map(str, more)], 16), 16))


@cache
def test_set(task: str, language: str, labels: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the gold labels and the difficulties of a test set of the usual size."""
    n = 204 if task == "topic" else FEW.get(language, 1000)
    rng = np.random.default_rng([*f"{task}{language}".encode()])
    return rng.integers(0, labels, n), rng.normal(0, 1.2, n)


@cache
def vocabulary(language: str) -> NDArray[np.str_]:
    """Return invented words in the script of a language."""
    latin = [a + b for a in "bdgklmnprstv" for b in "aeio"]
    syllables, rng = [*SYLLABLES.get(language, latin)], np.random.default_rng([*language.encode()])
    return np.array(["".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(1000)])


def sentences(language: str, rng: np.random.Generator, count: int) -> list[str]:
    """Return so many sentences of invented words."""
    drawn = vocabulary(language)[rng.integers(0, 1000, (count, 14))]
    return [" ".join(words) + "." for words in drawn.tolist()]


def predictions(row: Row, place: Place, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return predicted labels: right with odds that fall with the difficulty, else some other label."""
    level = 1.0 if place.task == "sentiment" else 0.4
    odds = level + row.worth + place.shift + rng.normal(0, 0.1) - place.difficulty
    right = rng.random(len(odds)) < 1 / (1 + np.exp(-odds))
    labels = len(place.labels)
    other = (place.gold + rng.integers(1, labels, len(odds))) % labels
    return np.where(right, place.gold, other)


def tested(row: Row, place: Place, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, float]]:
    """Return what a cell keeps of its classifier, and the scores that follow from it."""
    kept: dict[str, dict[str, list[int]]] = {}
    values = {}
    for name in ("macro_f1/tfidf", "macro_f1.valid/tfidf"):
        found = predictions(row, place, rng)
        kept[name] = {"0": found.tolist()}
        values[name] = macro_f1_of(place.gold, found, len(place.labels))
        values[name.replace("macro_f1", "accuracy")] = float(np.mean(place.gold == found))
    examples = digest([place.task, place.shared])
    whole = {"examples": examples, "labels": place.labels, "gold": place.gold.tolist(), "predictions": kept}
    return whole, values


def scores_of(row: Row, place: Place, rng: np.random.Generator, known: Mapping[str, float]) -> list[Score]:
    """Return all scores of a cell; ``known``: the values of some of them."""
    found = []
    for spec, drawn in zip(SPECS, rng.normal(0, 0.3, len(SPECS)).tolist(), strict=True):
        measured = metric(spec.name)
        worth = row.diversity if measured.group == "diversity" else 3 * row.worth
        value = spec.level + spec.slope * (worth + drawn)
        if spec.name == "copied/test" and row.trouble == "copies":
            value = 0.3
        if measured.unit == SHARE:
            value = min(max(value, 0.0), 1.0)
        if "copies" in spec.detail:
            value = round(value * place.texts) / place.texts
        found.append(_score(spec, known.get(spec.name, value), place))
    return found


def _score(spec: Spec, value: float, place: Place) -> Score:
    sizes = {
        "texts": float(place.texts),
        "per_label_min": float(place.size),
        "groups": place.texts / 10,
        "copies": float(round(value * place.texts)),
    }
    return metric(spec.name).score(
        value,
        spec.signature,
        human=place.human[spec.name],
        interval=(value - spec.half, value + spec.half) if spec.half else None,
        by_seed={"0": value} if spec.part == CLASSIFIER else {},
        detail={name: sizes.get(name, value / 2) for name in spec.detail},
    )


def status_of(row: Row, place: Place, rng: np.random.Generator) -> CellStatus:
    """Return how a cell ended: well, but in entries that lack cells."""
    entry = row.entry
    key = CellKey(
        **{name: getattr(entry, name) for name in ("method", "model", "setting")},
        **{name: getattr(place, name) for name in ("suite", "task", "language", "seed")},
        text_protocol=place.protocol,
        data=digest([place.task, place.language], 16),
        texts_per_label=place.size,
    )
    if row.trouble == "gaps" and place.language in FEW:
        why = f"no contrast text of {place.language}"
        return CellStatus(cell=key, state="skipped", reason=why, finished=WHEN)
    if entry.model is None:
        return CellStatus(cell=key, state="ok", finished=WHEN, prompt_tokens=0, new_tokens=0, fit={})
    parts = {f"activations/{digest([entry.model.name, code], 16)}": SPENT for code in place.codes}
    shots = {label: sentences(place.language, rng, 5) for label in place.labels}
    return CellStatus(
        cell=key,
        state="ok",
        finished=WHEN,
        seconds=round(float(rng.gamma(20, 2)), 3),
        device="cuda:0",
        steering=digest([row.name, place.task, place.language], 16) if row.steered else None,
        demonstrations=shots if entry.setting == "few-shot" else {},
        redraws=int(rng.integers(0, 5)),
        prompt_tokens=place.texts * 40,
        new_tokens=place.texts * int(rng.integers(30, 60)),
        fit=parts if row.steered else {},
    )


def write_cell(run: Run, row: Row, place: Place, texts: int) -> None:
    """Write all files of a cell; plainly, for there are thousands and nothing is lost with them."""
    rng = place.rng(place.seed, row.name)
    status = status_of(row, place, rng)
    name = cell_id(status.cell)
    folder = run.cell(name)
    folder.mkdir(parents=True)
    write_plain(folder / "status.json", status.to_json())
    if status.state != "ok":
        return
    lines = generations(place, rng, texts)
    (folder / "generations.jsonl").write_bytes(lines)
    kept, known = tested(row, place, rng)
    parts = {
        part: PartRecord(signature=recipe, metrics=[spec.name for spec in SPECS if spec.part == part])
        for part, recipe in _RECIPES.items()
    }
    record = CellScores(
        cell_id=name,
        generations_sha256=hashlib.sha256(lines).hexdigest(),
        protocol=digest(["scored", place.task, place.language], 16),
        parts=parts,
        scores=scores_of(row, place, rng, known),
    )
    write_plain(folder / "scores.json", record.to_json())
    _packed(folder / "predictions.json.gz", {CLASSIFIER: kept})
    _packed(folder / "audit.json.gz", audit_of(row, place, rng, texts * len(place.labels)))


def generations(place: Place, rng: np.random.Generator, texts: int) -> bytes:
    """Return the file of a cell's texts, so many for every label."""
    words = iter(sentences(place.language, rng, texts * len(place.labels)))
    rows = [
        Generation(
            index=index,
            label=label,
            text=next(words),
            n_prompt_tokens=40,
            n_new_tokens=45,
            finish_reason="stop",
        )
        for label in place.labels
        for index in range(texts)
    ]
    return "".join(json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in rows).encode()


def audit_of(row: Row, place: Place, rng: np.random.Generator, texts: int) -> dict[str, Any]:
    """Return what the parts say of every text; in one of nine cells the first is not valid."""
    sound = [bool(rng.integers(0, 9)), *[True] * (texts - 1)]
    copying = row.trouble == "copies"
    copied = {f"copied/{corpus}": [corpus == "test" and copying] * texts for corpus in CORPORA}
    reasons = [[] if valid else ["loop"] for valid in sound]
    validity = {"valid": sound, "reasons": reasons, "language": [place.language] * texts}
    return {"leakage": copied, "validity": validity}


def manifest_of(suite: Suite, selection: Selection, rows: Sequence[Row]) -> Manifest:
    """Return the manifest of a run of these entries."""
    tuned = TunedMethod(
        version="1",
        options={"strength": 0.2},
        configurations=9,
        texts=3600,
        tokens=400_000,
        seconds=900.0,
        fit=SPENT,
    )
    return Manifest(
        suite=suite.dump(),
        suite_hash=suite.hash,
        suite_source=suite.name,
        model=next(row.entry.model for row in rows if row.entry.model),
        model_path=None,
        data_source="hub",
        data_hashes={f"{t}/{c}": digest([t, c], 16) for t in selection.tasks for c in selection.languages},
        entries=[row.entry for row in rows],
        selection=selection,
        tuning={"language": tuned},
        versions={"python": "3.11", "steerboard": "0.1.0", "torch": "2.6"},
        device="auto",
        created=WHEN,
        commands=[["steerboard", "run", "--suite", suite.name]],
    )


def write_plain(path: Path, value: object) -> None:
    """Write indented JSON as a run folder has it, without flushing it to disk."""
    path.write_bytes(to_json(value, indent=1) + b"\n")


def _packed(path: Path, value: object) -> None:
    path.write_bytes(gzip.compress(to_json(value), 1, mtime=0))
