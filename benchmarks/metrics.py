"""Time and memory of scoring, and ratios to the packages ``vendi-score`` and ``diversity`` within one run.

    python benchmarks/metrics.py [--texts 10000] [--languages am he da] [--repeats 5]

The texts are made up: words of letters of the language's script, the r-th most frequent with a chance of
1 / r, 200 characters each; some are copies of another or of train text, some run in a loop. Every language is
one cell of so many texts, scored by steer11's budgets, part after part, on two cores at most. Seconds and
peaks are those of this machine; they are to stay below 20 s and 2 GB for 10,000 texts. With the packages the
texts have Danish letters and no punctuation, so that their words are ours; all of the text is in the budget.
Where a package defines a metric otherwise, both values stand side by side.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import report
from threadpoolctl import threadpool_limits

from harness.data.suite import load_suite
from harness.scoring.embeddings import TfidfEmbedding
from harness.scoring.identification import LanguageIdentifier
from harness.scoring.leakage import HiddenTextScorer, LeakageScorer
from harness.scoring.lexical import LexicalScorer, compression, distinct, self_repetition
from harness.scoring.membership import MembershipScorer
from harness.scoring.scorer import Scorer, ScoringContext, TextSample
from harness.scoring.validity import ValidityScorer
from harness.scoring.vendi import EmbeddingScorer, eigenvalues, hill_number, mean_pairwise_distance, vendi

SUITE = load_suite("steer11")
BUDGETS = SUITE.metrics.budgets
LATIN = "abcdefghijklmnopqrstuvwxyzæøå"
LETTERS = {"am": "".join(chr(0x1200 + i) for i in range(280)), "he": "אבגדהוזחטיכלמנסעפצקרשתםןףךץ"}
LABELS = ["positive", "negative"]


class Source:
    """Endless made-up text of one language."""

    def __init__(self, language: str, n_words: int = 5000) -> None:
        self.draw = np.random.default_rng(sum(map(ord, language)))
        letters = list(LETTERS.get(language, LATIN))
        chances = self.draw.dirichlet(np.ones(len(letters)))
        self.words = ["".join(self.draw.choice(letters, self.draw.integers(2, 9), p=chances)) for _ in range(n_words)]
        chances = 1 / np.arange(1, n_words + 1)
        self.cumulated = np.cumsum(chances / chances.sum())
        self.stop = "።" if language == "am" else "."

    def texts(self, n: int, characters: int = 200, stop: str | None = None) -> list[str]:
        """Return texts of so many characters, in sentences of nine words."""
        mark = self.stop if stop is None else stop
        drawn = np.searchsorted(self.cumulated, self.draw.random((n, characters // 2)))
        return [
            " ".join(self.words[w] + mark * (i % 9 == 8) for i, w in enumerate(row))[:characters].strip()
            for row in drawn
        ]


def place_of(language: str, source: Source) -> ScoringContext:
    """Return human text of the sizes of steer11's larger tasks."""

    def rows(n: int) -> list[tuple[str, str]]:
        return [(text, LABELS[i % 2]) for i, text in enumerate(source.texts(n))]

    train, prompt = rows(4000), SUITE.task("sentiment", language).prompts["zero-shot"]
    return ScoringContext(
        task="sentiment",
        language=language,
        labels=LABELS,
        train=train,
        validation=rows(500),
        test=rows(1000),
        examples="",
        vectors=source.texts(1000),
        prompts={label: prompt.format(label=label, language=language) for label in LABELS},
        demonstrations={label: [text for text, of in train if of == label][:5] for label in LABELS},
    )


def cell(source: Source, place: ScoringContext, n: int) -> list[str]:
    """Return ``n`` texts; of a hundred, four are copied from others, four from train text, two in a loop."""
    texts = source.texts(n)
    for i in range(0, n - 10, 100):
        texts[i : i + 4] = texts[i + 4 : i + 8]
        texts[i + 8 : i + 12] = [text for text, _ in place.train[i % 1000 :][:4]]
        texts[i + 12 : i + 14] = [(text[:20] + " ") * 10 for text in texts[i + 12 : i + 14]]
    return texts


# Time and memory of the parts


@dataclass
class Measured:
    """What a piece of work took: seconds by the clock, of processor, and the peak of memory in MB."""

    seconds: float
    processor: float
    peak: float


def measured(work: Callable[[], Any]) -> Measured:
    """Run once. The peak is that of the process with all it holds (Linux only, else 0)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
    clock, processor = time.perf_counter(), time.process_time()
    work()
    seconds, used = time.perf_counter() - clock, time.process_time() - processor
    lines = status.read_text().splitlines() if status.exists() else []
    peak = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    return Measured(seconds, used, peak / 1024)


def measure_parts(language: str, n: int, identifier: LanguageIdentifier) -> list[dict[str, Any]]:
    """Score one cell by every part but the classifiers; print and return what each took."""
    source = Source(language)
    place = place_of(language, source)
    texts = cell(source, place, n)
    labels = [LABELS[i % 2] for i in range(n)]
    validity = ValidityScorer(lambda: identifier)
    checked: list[Any] = []
    found = {"checks": measured(lambda: checked.append(validity.check(texts, labels, place)))}
    sample = TextSample(texts, labels, checked[0].valid)
    parts: list[Scorer] = [
        validity,
        LexicalScorer(BUDGETS),
        EmbeddingScorer(TfidfEmbedding(), BUDGETS),
        LeakageScorer(),
        MembershipScorer(),
        HiddenTextScorer(),
    ]
    for part in parts:
        found[part.name] = measured(lambda part=part: part.score(sample, place))
    total = sum(one.seconds for one in found.values())
    peak = max(one.peak for one in found.values())
    print(f"{language}: {n} texts, {sample.valid.mean():.0%} of them valid")
    for name, one in found.items():
        print(f"  {name:18} {one.seconds:7.1f} s ({one.processor:.1f} s of processor), peak {one.peak:6.0f} MB")
    print(f"  {'all':18} {total:7.1f} s, peak {peak:6.0f} MB")
    return [
        {
            "name": f"scoring of {n} texts ({language}), {name}",
            "seconds": round(one.seconds, 2),
            "processor": round(one.processor, 2),
            "peak_mb": round(one.peak),
            "figure": f"{one.seconds:.1f} s, {one.peak:.0f} MB",
            "bar": "<= 20 s, <= 2 GB" if name == "all" else "",
        }
        for name, one in {
            **found,
            "all": Measured(total, sum(one.processor for one in found.values()), peak),
        }.items()
    ]


# Against other packages


def oracle(module: str) -> Any:
    """Return a module of the package ``diversity``, without the package's own imports of all it can use."""
    package = importlib.util.find_spec("diversity")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("the package diversity is not installed; 'make .venv/.stamp' does that")
    path = Path(package.submodule_search_locations[0]) / f"{module}.py"
    spec = importlib.util.spec_from_file_location(f"oracle_{module}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def remote_clique(rows: np.ndarray) -> Callable[[], float]:
    """Return the package's mean distance of given rows, by an encoder that looks them up."""

    class Encoder:
        def __init__(self, model: str) -> None:
            pass

        def encode(self, data: list[int], **_: Any) -> np.ndarray:
            return rows[data]

    stand_in = types.ModuleType("sentence_transformers")
    stand_in.SentenceTransformer = Encoder  # type: ignore[attr-defined]
    sys.modules.setdefault("sentence_transformers", stand_in)
    function = oracle("embedding").remote_clique
    return lambda: float(function(list(range(len(rows))), verbose=False))


def compare(
    name: str, ours: Callable[[], float], other: Callable[[], float], repeats: int, within: float | None
) -> dict[str, Any]:
    """Run both in turns; print and return how many times longer the other takes, and both values.

    ``within``: by how much the values may differ at most; None where the definitions do.
    """
    values = (ours(), other())
    if within is not None and abs(values[0] - values[1]) > within:
        raise SystemExit(f"{name}: {values[0]} and {values[1]} differ by more than {within}")
    pairs = []
    for _ in range(repeats):
        started = time.perf_counter()
        ours()
        between = time.perf_counter()
        other()
        pairs.append((between - started, time.perf_counter() - between))
    ratios = sorted(b / a for a, b in pairs)
    ratio = statistics.median(b for _, b in pairs) / statistics.median(a for a, _ in pairs)
    same = "the same" if within is not None else "another definition"
    print(f"{name}: {ratio:.2f}x (pairs {ratios[0]:.2f} to {ratios[-1]:.2f}), n = {repeats}; {same}:")
    print(f"  ours {values[0]:.6f}, theirs {values[1]:.6f}, difference {values[1] - values[0]:+.6f}")
    return {
        "name": name,
        "ratio": round(ratio, 3),
        "spread": [round(ratios[0], 3), round(ratios[-1], 3)],
        "repeats": repeats,
        "ours": values[0],
        "theirs": values[1],
        "same": within is not None,
    }


def compare_vendi(repeats: int) -> list[dict[str, Any]]:
    """Compare Vendi scores of equal kernels, and the distance of equal rows."""
    import vendi_score.vendi as package

    source = Source("da")
    train = [(text, "positive") for text in source.texts(500)]
    place = ScoringContext("sentiment", "da", LABELS, train, [], [], "", [], {}, {})
    rows = TfidfEmbedding().embed(source.texts(1000), place)
    kernel = (rows @ rows.T).toarray()
    small = np.stack([kernel[i : i + 40, i : i + 40] for i in range(0, 960, 32)])
    return [
        *(
            compare(
                f"Vendi of 1000 texts, q = {q}, against vendi-score",
                lambda q=q: vendi(kernel, q),
                lambda q=q: float(package.score_K(kernel, q=q)),
                repeats,
                1e-6,
            )
            for q in (0.5, 1, 2)
        ),
        compare(
            "Vendi of 30 subsamples of 40 texts, mean, against vendi-score",
            lambda: float(hill_number(eigenvalues(small), 1.0).mean()),
            lambda: float(np.mean([package.score_K(one) for one in small])),
            repeats,
            1e-9,
        ),
        compare(
            "mean distance of 1000 texts, against diversity (counts a text with itself; 3 digits)",
            lambda: mean_pairwise_distance(rows),
            remote_clique(rows.toarray()),
            repeats,
            None,
        ),
    ]


def compare_lexical(repeats: int) -> list[dict[str, Any]]:
    """Compare what is counted of words and bytes, with budgets that hold all of the text."""
    texts = Source("da").texts(2000, stop="")
    tokens = [text.split() for text in texts]
    count = {k: sum(len(text) - k + 1 for text in tokens) for k in (1, 2)}
    whole = BUDGETS.model_copy(update={"subsamples": 1, "texts": len(texts)})
    characters = sum(map(len, texts)) + len(texts)
    grams, repetition, packed = (oracle(name) for name in ("ngram_diversity", "self_repetition", "compression"))

    def shares(k: int) -> Callable[[], float]:
        budget = whole.model_copy(update={"ngrams": count[k]})
        return lambda: distinct(k, tokens, budget).value or 0.0

    budget = whole.model_copy(update={"characters": characters})
    return [
        compare(
            "distinct-1 of 2000 texts, against diversity (3 digits)",
            shares(1),
            lambda: grams.ngram_diversity_score(texts, 1),
            repeats,
            5.1e-4,
        ),
        compare(
            "distinct-1 + distinct-2 of 2000 texts, against diversity (pairs across texts)",
            lambda: shares(1)() + shares(2)(),
            lambda: grams.ngram_diversity_score(texts, 2),
            repeats,
            None,
        ),
        compare(
            "self-repetition of 2000 texts, against diversity (every shared run counts, ours every text)",
            lambda: self_repetition(texts, whole).value or 0.0,
            lambda: float(repetition.self_repetition_score(texts, verbose=False)),
            repeats,
            None,
        ),
        compare(
            "compression of 2000 texts, against diversity (bytes, compressed twice)",
            lambda: compression(texts, budget).value or 0.0,
            lambda: packed.compression_ratio(texts),
            repeats,
            None,
        ),
    ]


def main() -> None:
    """Print seconds, peaks and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--languages", nargs="+", default=["am", "he", "da"], choices=SUITE.languages)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="without the comparisons with other packages")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    size = SUITE.metrics.language_fidelity.texts_per_language
    sentences = {code: Source(code).texts(size, 100) for code in [*SUITE.languages, "en"]}
    made: list[LanguageIdentifier] = []
    once = measured(lambda: made.append(LanguageIdentifier(sentences)))
    print(f"identifier of {len(sentences)} languages, once a run: {once.seconds:.1f} s, peak {once.peak:.0f} MB")
    with threadpool_limits(limits=1, user_api="blas"):  # as the scorer has it
        results = [row for code in arguments.languages for row in measure_parts(code, arguments.texts, made[0])]
        if not arguments.alone:
            results += compare_vendi(arguments.repeats) + compare_lexical(arguments.repeats)
    report(results)


if __name__ == "__main__":
    main()
