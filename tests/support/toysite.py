"""A site made by hand for the tests of the page: two models, all families, real text in three languages."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.core.files import write_json, write_json_gz
from harness.core.interventions import Intervention, Steering
from harness.core.records import CellStatus, Generation, GridPoint, ModelIdentity, Selection, Tuned, TunedMethod
from harness.core.store import Run
from harness.scoring.metrics import COPIED, LABEL_FIDELITY, LANGUAGE_FIDELITY, SELF_CHRF, VALID_SHARE, VENDI
from support.helpers import jsonl
from support.toyruns import ToyEntry, flat, places, predicting, selection, toy, write_run

LANGUAGES, TASKS, SEEDS = ("am", "he", "da"), ("sentiment", "topic"), (1, 2, 3)
LABELS = {"sentiment": ("negative", "positive"), "topic": ("sport", "health")}
CHOSEN = selection(LANGUAGES, TASKS, SEEDS)
ALPHA = ModelIdentity(name="alpha", fingerprint="a1fa", dtype="float32")
BETA = ModelIdentity(name="beta", revision="7e57", fingerprint="be7a", dtype="bfloat16")
FORMULA = "=1+1"
"""The name of a method that a spreadsheet would compute."""
PROMPTS = {
    "zero-shot": "Write a text about {label} in {language}.",
    "few-shot": "Write a text about {label} in {language}, such as:\n{examples}",
}
SUITE = {
    "name": "toy",
    "version": 1,
    "classifiers": ["tfidf"],
    "description": "A toy suite.",
    "few_shot": {"shots": 5},
    "definitions": {
        task: {code: {"labels": list(LABELS[task]), "prompts": PROMPTS} for code in LANGUAGES} for task in TASKS
    },
}
TEXTS = {
    ("am", "negative"): ("ምግቡ ቀዝቃዛና ጣዕም የሌለው ነበር።", "አገልግሎቱ በጣም ዘገምተኛ ነው፤ ተመልሼ አልመጣም።"),
    ("am", "positive"): ("ሾርባው ጣፋጭ ነበር፤ በጣም ወደድኩት።", "አስተናጋጇ ፈገግ ብላ ተቀበለችን።"),
    ("am", "sport"): ("ቡድኑ ትናንት ሁለት ለባዶ አሸነፈ።", "ሯጩ አዲስ ክብረ ወሰን አስመዘገበ።"),
    ("am", "health"): ("ሐኪሙ ብዙ ውኃ እንድጠጣ መከረኝ።", "ክትባቱ በሁሉም ጤና ጣቢያ ይሰጣል።"),
    ("he", "negative"): ("המרק היה קר וחסר טעם.", "השירות איטי מאוד, לא נחזור לכאן."),
    ("he", "positive"): ("המרק היה טעים (באמת!), נחזור ב־2026.", "המלצרית קיבלה אותנו בחיוך."),
    ("he", "sport"): ("הקבוצה ניצחה אתמול 2:0 במשחק בית.", "הרצה שברה את השיא הלאומי."),
    ("he", "health"): ("הרופא המליץ לשתות הרבה מים.", "החיסון ניתן בכל המרפאות."),
    ("da", "negative"): ("Suppen var kold og uden smag.", "Betjeningen var langsom; vi kommer ikke igen."),
    ("da", "positive"): ("Suppen smagte dejligt.", "Tjeneren tog imod os med et smil."),
    ("da", "sport"): ("Holdet vandt 2-0 i går.", "Løberen slog den gamle rekord."),
    ("da", "health"): ("Lægen rådede mig til at drikke vand.", "Vaccinen gives på alle klinikker."),
}  # fmt: skip
"""Written for these tests by machine, not checked by native speakers."""


def entry(name: str, right: float, model: ModelIdentity, chosen: Selection = CHOSEN, **config: object):
    """Return an entry with predictions, diversity and validity."""
    made = predicting(toy(name, model, **config), right, chosen, n=60)
    for metric, value, human in (
        (VENDI.for_provider("tfidf"), 40 * right, 38.5),
        (SELF_CHRF, 30 - 10 * right, 17.3),
        (VALID_SHARE, 0.8 + right / 10, 0.99),
        (LANGUAGE_FIDELITY, 0.97, 1.0),
        (LABEL_FIDELITY, right, 0.95),
    ):
        made.scores[metric] = flat(value, chosen, apart=True)
        made.human[metric] = human
    return made


def of_model(model: ModelIdentity, shift: float, chosen: Selection = CHOSEN) -> list[ToyEntry]:
    """Return what both models have: unsteered, steered, a control and a flagged cheat."""
    cheat = entry("copier", 0.95 + shift, model, chosen)
    cheat.scores[COPIED.for_provider("test")] = dict.fromkeys(places(chosen), 1.0)
    return [
        entry("zero-shot", 0.60 + shift, model, chosen),
        entry("few-shot", 0.66 + shift, model, chosen),
        entry("language", 0.80 + shift, model, chosen, layer=0.21),
        entry("language", 0.78 + shift, model, chosen, layer=0.53),
        entry("quality", 0.79 + shift, model, chosen),
        entry("random", 0.56 + shift, model, chosen, of="language"),
        cheat,
    ]


def toy_runs(folder: Path) -> list[Run]:
    """Write the runs of both models; ``clas`` of beta lacks two cells, and one method has a nasty name."""
    common = {"suite": SUITE, "created": "2026-03-04T05:06:07Z", "device": "cpu", "versions": {"numpy": "2"}}
    notes = {
        "language": "A difference of means. Source: arXiv 2606.18389.",
        "quality": "Quality against noise. Source: arXiv 2606.18389.",
        FORMULA: "Sums up, see https://example.org/sums.",
    }
    first = [*of_model(ALPHA, 0.0), entry("human", 0.9, ALPHA), entry("constant", 0.5, ALPHA)]
    second = [*of_model(BETA, -0.04), entry("clas", 0.7, BETA), entry(FORMULA, 0.64, BETA)]
    drop = [("clas", "topic", "da", 2), ("clas", "sentiment", "he", 3)]
    runs = [
        write_run(folder / "alpha", first, CHOSEN, model=ALPHA, method_notes=notes, **common),
        write_run(folder / "beta", second, CHOSEN, drop, model=BETA, method_notes=notes, **common),
    ]
    for run in runs:
        finish(run)
    tune(runs[0], ALPHA)
    return runs


def finish(run: Run) -> None:
    """Write texts, times and steering into the cells of a run."""
    manifest = run.manifest()
    for name in run.cell_ids():
        status = run.status(name)
        if status is None or status.state != "ok":
            continue
        texts = rows(status)
        jsonl(run.cell(name) / "generations.jsonl", texts)
        write_json_gz(run.cell(name) / "audit.json.gz", audit(status, [str(row["label"]) for row in texts]))
        if status.cell.model is None:
            continue
        changes: dict[str, object] = {"seconds": 2.0 + len(status.cell.method.name) / 10, "device": "cpu"}
        changes |= {"prompt_tokens": 400, "new_tokens": 160, "fit": {}}
        if status.cell.method.name == "language":
            changes["steering"] = f"v-{status.cell.language}"
            run.write_steering(f"v-{status.cell.language}", steering(status.cell.language))
        write_json(run.cell(name) / "status.json", status.model_copy(update=changes).to_json())
    assert manifest.entries


def rows(status: CellStatus) -> list[dict[str, object]]:
    """Return the texts of a cell: those of its language; method, model and seed stand in the first."""
    cell = status.cell
    made = []
    for label in LABELS[cell.task]:
        for i, text in enumerate(TEXTS[cell.language, label]):
            mark = f" [{cell.method.name} {cell.seed}]" if i == 0 else ""
            row = Generation(index=i, label=label, text=text + mark, finish_reason="stop")
            made.append(row.model_dump(mode="json"))
    return made


def audit(status: CellStatus, asked: list[str]) -> dict[str, object]:
    """Return what the scoring would have found: the last text of a cell is wrong in every way."""
    last, good = [False] * (len(asked) - 1) + [True], len(asked) - 1
    return {
        "validity": {
            "valid": [not bad for bad in last],
            "reasons": [[]] * good + [["language", "loop"]],
            "language": [status.cell.language] * good + ["sv"],
            "label": [*asked[:-1], asked[0]],
        },
        "leakage": {"copied/train": last, "copied/test": [False] * len(asked)},
    }


def steering(code: str) -> Steering:
    """Return a vector as the methods leave it."""
    change = Intervention("layer_output", 2, "add", np.ones(4, np.float32), 2.0, "raw", 1.0)
    return Steering((change,), {"language": code, "task": "sentiment", "counts": {"good": {"texts": 20}}})


def tune(run: Run, model: ModelIdentity) -> None:
    """Write the sweep of two options beside a run."""
    tried = ((0.21, 1.0, 0.02), (0.21, 2.0, 0.08), (0.5, 1.0, -0.01), (0.5, 2.0, 0.0))
    surface = [
        GridPoint(
            method="language", options={"layer": layer, "strength": strength}, macro_f1=0.5 + gain,
            gain=gain, valid=0.9, eligible=gain > 0, chosen=gain == 0.08, cells=4, cells_expected=4,
            texts=16, tokens=400, seconds=3.0,
        )
        for layer, strength, gain in tried
    ]  # fmt: skip
    chosen = TunedMethod(version="1", options={"layer": 0.21}, configurations=4, texts=64, tokens=1600, seconds=12)
    tuned = Tuned(
        suite="toy", suite_hash="5u17e", model=model, data_hashes={}, selection=CHOSEN, rule="best",
        methods={"language": chosen}, surface=surface,
    )  # fmt: skip
    write_json(run.path / "tuned.json", tuned.to_json())


def small_run(folder: Path, name: str, languages: tuple[str, ...] = ("am",)) -> Run:
    """Write a run of its own suite with one task: a second board beside others."""
    chosen = selection(languages, ("sentiment",), SEEDS)
    suite = {**SUITE, "name": name}
    entries = [entry("zero-shot", 0.6, ALPHA, chosen), entry("language", 0.8, ALPHA, chosen)]
    run = write_run(folder, entries, chosen, suite=suite, suite_hash=name, model=ALPHA)
    finish(run)
    return run
