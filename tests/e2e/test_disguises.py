"""Every cheat that is made of human text gets the flag that it has to get, and no honest text gets any.

Texts are scored by the parts themselves and looked at by the board's rules; the runs of ``test_cheats`` show
that flags reach the board. On the mini suite's text always, on real text where it is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from support.disguises import CHEATS, HONEST, Stash, Texts
from support.helpers import ROOT
from support.toyruns import toy

from harness.core.records import Score
from harness.data.corpus import Corpus
from harness.data.sources import LocalData
from harness.data.suite import load_suite
from harness.ranking.flags import flags
from harness.ranking.results import EntryRow, ResultSet
from harness.runner.human_text import ReferenceTexts
from harness.scoring.leakage import HiddenTextScorer, LeakageScorer
from harness.scoring.lexical import length
from harness.scoring.membership import MembershipScorer
from harness.scoring.scorer import ScoringContext, TextSample


@dataclass
class Bench:
    """One task and language: scores texts and asks the rules."""

    there: ScoringContext
    stash: Stash
    honest: dict[str, Texts]

    @classmethod
    def of(cls, name: str, data: Path, task: str, code: str, n: int, system: str) -> Bench:
        suite = load_suite(name)
        corpus = Corpus(suite, LocalData(data))

        def texts(split: str, language: str = code) -> Texts:
            groups = corpus.by_label(task, language, split)
            return {label: [row.text for row in rows] for label, rows in groups.items()}

        other = suite.languages[(suite.languages.index(code) + 1) % len(suite.languages)]
        splits = [texts(split) for split in ("train", "validation", "test")]
        stash = Stash(*splits, foreign=texts("test", other), n=n)
        translated = [row.text for row in corpus.source.degraded(system, code)]
        groups = dict.fromkeys(stash.train, translated)
        honest = {"translated text": stash.some(groups)} | {name: make(stash) for name, make in HONEST.items()}
        return cls(ReferenceTexts(suite, corpus).context(task, code), stash, honest)

    def flagged(self, texts: Mapping[str, Texts], setting: str) -> dict[str, set[str]]:
        """Return name -> the metrics that are flagged. Beside them stands validation text as zero-shot."""
        parts = [LeakageScorer(), MembershipScorer(), HiddenTextScorer()]

        def scores(group: Texts) -> list[Score]:
            rows = [(text, label) for label, own in group.items() for text in own]
            valid = np.ones(len(rows), dtype=bool)
            sample = TextSample([text for text, _ in rows], [label for _, label in rows], valid)
            found = [score for part in parts for score in part.score(sample, self.there).scores]
            return [*found, length(sample.texts)]

        human = {score.metric: score.value for score in scores(self.stash.some(self.stash.train))}
        entries, lines = {}, []
        rows = {"zero-shot": self.stash.some(self.stash.validation), **texts}
        for name, group in rows.items():
            entry = toy(name)
            if name != "zero-shot" and setting == "none":
                entry.model, entry.setting = None, "none"
            entries[name] = EntryRow(name, entry.entry, name, 1, 1, [])
            lines += [
                {
                    **{"entry": name, "task": self.there.task, "language": self.there.language, "seed": 1},
                    **{"metric": score.metric, "value": score.value, "human": human[score.metric]},
                    "size": score.detail.get("texts"),
                }
                for score in scores(group)
            ]
        manifest = SimpleNamespace(suite={}, selection=None)
        result_set = ResultSet(manifest, entries, pd.DataFrame(lines), {})
        return {
            name: {flag.metric.name for flag in found} for name, found in flags(result_set).items() if name in texts
        }


def looked_at(bench: Bench) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return what is flagged of the cheats, handed in as texts of a model, and of honest text."""
    cheats = {name: make(bench.stash) for name, (_, make) in CHEATS.items()}
    return bench.flagged(cheats, "zero-shot"), bench.flagged(bench.honest, "none")


def _at_night(*param: object) -> object:
    return pytest.param(param, marks=pytest.mark.nightly)


def _name(param: tuple[str, str, int]) -> str:
    return "-".join(param[:2])


MINI = [("sentiment", "am", 12), ("topic", "he", 4), _at_night("sentiment", "cs", 12)]
REAL = [("topic", "am", 6), _at_night("sentiment", "he", 20)]


@pytest.fixture(scope="module", params=MINI, ids=_name)
def mini(request):
    return looked_at(Bench.of("mini", ROOT / "tasks" / "mini" / "data", *request.param, "noise"))


@pytest.fixture(scope="module", params=REAL, ids=_name)
def real(request, shared):
    return looked_at(Bench.of("steer11", shared / "data", *request.param, "google"))


def test_there_are_as_many_cheats_as_asked_for():
    assert len(CHEATS) >= 25


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_gets_its_flag(mini, cheat):
    assert CHEATS[cheat][0] in mini[0][cheat]


def test_honest_text_gets_no_flag(mini):
    assert {name: found for name, found in mini[1].items() if found} == {}


@pytest.mark.slow
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_on_real_text_gets_its_flag(real, cheat):
    assert CHEATS[cheat][0] in real[0][cheat]


@pytest.mark.slow
def test_honest_real_text_gets_no_flag(real):
    assert {name: found for name, found in real[1].items() if found} == {}
