"""How far apart a model's languages lie, and what steering changes about it: CLAS's own analysis.

CLAS (arXiv 2601.16390) claims that its gains go with an increased separation of language clusters. How the
paper measures it is not public to us; here it is the mean silhouette (Rousseeuw 1987) of mean-pooled states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.core.cells import Cell, steering_id
from harness.core.errors import BrokenFileError, UnsupportedError, UserError, is_infrastructure
from harness.core.files import digest
from harness.core.interventions import Steering
from harness.data.corpus import Corpus
from harness.methods.contract import CellContext, SteeringMethod
from harness.runner.prepare import RunPlan
from harness.tracks.separation.results import (
    Separation,
    by_language,
    path_of,
    read_separation,
    write_separation,
)

if TYPE_CHECKING:
    from harness.runner.fit import Fitter

SENTENCES = 40
"""Of every language, unless said otherwise."""

_RECIPE = "mean-pooled, euclidean, 1"

Say = Callable[[str], None]
States = NDArray[np.float32]
"""[sentences, layers, hidden size]"""


def analyse(prepared: RunPlan, fitter: Fitter, say: Say = lambda words: None, n: int = SENTENCES) -> list[Separation]:
    """Return the separation of every steering method of a run, by task; call it with the run folder locked.

    What lies in the run folder is read, the rest measured and written there. A method that supports fewer
    than two languages has none, and one whose fit fails is said and left out.
    """
    bench = SeparationInputs(prepared, fitter, n)
    found = []
    for cells in _groups(prepared):
        title = f"{cells[0].key.method.title}, {cells[0].key.task}"
        say(f"separation: {title}")
        try:
            found.append(bench.separation(cells))
        except BrokenFileError:
            raise
        except Exception as error:  # a method's failure is said and ends nothing else
            if is_infrastructure(error):
                raise
            say(f"no separation of {title}: {error or type(error).__name__}")
    return found


def pending(prepared: RunPlan, n: int = SENTENCES) -> bool:
    """Say whether a separation of at least two languages is not in the run folder; loads no model."""
    bench = SeparationInputs(prepared, None, n)
    for cells in _groups(prepared):
        by_code = {cell.key.language: cell for cell in cells}
        if len(by_code) > 1 and not path_of(prepared.run, bench.name(by_code)).is_file():
            return True
    return False


def _groups(prepared: RunPlan) -> list[list[Cell]]:
    """Return the cells of steering methods by method and task."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in prepared.cells:
        if cell.key.model is not None and prepared.method(cell).has_fit:
            groups.setdefault((cell.key.method.model_dump_json(), cell.key.task), []).append(cell)
    return list(groups.values())


def silhouettes(states: States, clusters: Sequence[int]) -> NDArray[np.float64]:
    """Return the silhouette of every sentence in every layer, [layers, sentences], by euclidean distance.

    ``clusters``: the language of every sentence. Raises ValueError for fewer than two languages, for as many
    as sentences, and for states that are not finite.
    """
    from sklearn.metrics import silhouette_samples

    by_layer = [
        silhouette_samples(states[:, layer].astype(np.float64), np.asarray(clusters), metric="euclidean")
        for layer in range(states.shape[1])
    ]
    return np.stack(by_layer)


def parallel_sentences(corpus: Corpus, languages: Sequence[str], n: int) -> dict[str, list[str]]:
    """Return language -> the same ``n`` sentences in every language, spread evenly over the parallel text.

    Fewer where there are fewer; free of validation and test sentences of every language. Raises
    ``UserError`` for fewer than two.
    """
    texts = {code: {row.id: row.text for row in corpus.parallel(code)} for code in languages}
    shared = [name for name in texts[languages[0]] if all(name in own for own in texts.values())]
    if min(len(shared), n) < 2:
        raise UserError(f"{len(shared)} sentences are in all of {', '.join(languages)}; a silhouette needs 2.")
    chosen = [shared[i * len(shared) // n] for i in range(n)] if n < len(shared) else shared
    return {code: [own[name] for name in chosen] for code, own in texts.items()}


@dataclass(frozen=True)
class SilhouetteByLayer:
    """Mean silhouettes by layer: over all sentences, and over those of each language."""

    all: list[float]
    by_language: dict[str, list[float]]


def silhouette_by_layer(states: Mapping[str, States]) -> SilhouetteByLayer:
    """Return the mean silhouettes of states by language, rounded as they are written."""
    clusters = [i for i, own in enumerate(states.values()) for _ in own]
    found = silhouettes(np.concatenate(list(states.values())), clusters)
    of = np.asarray(clusters)
    each = {code: found[:, of == i].mean(axis=1).tolist() for i, code in enumerate(states)}
    rounded = by_language({"": found.mean(axis=1).tolist(), **each})
    return SilhouetteByLayer(rounded.pop(""), rounded)


@dataclass
class SeparationInputs:
    """One run's sentences and their states; what several methods and tasks share is read once."""

    prepared: RunPlan
    fitter: Fitter | None
    n: int = SENTENCES
    _found: dict[str, SilhouetteByLayer] = field(default_factory=dict)
    _unsteered: dict[str, States] = field(default_factory=dict)
    _texts: dict[str, list[str]] = field(default_factory=dict)

    def separation(self, cells: Sequence[Cell]) -> Separation:
        """Return the separation of one method and task from its cells; from the run folder if it is there.

        Raises ``UnsupportedError`` where fewer than two languages are left, or nothing is steered.
        """
        by_code: dict[str, Cell] = {}
        for cell in cells:
            by_code.setdefault(cell.key.language, cell)
        name = self.name(by_code)
        path = path_of(self.prepared.run, name)
        if path.is_file():
            return read_separation(path)
        steerings, left_out = self._steerings(by_code)
        found = self._measured(cells[0], steerings, left_out)
        write_separation(self.prepared.run, name, found)
        return found

    def name(self, cells: Mapping[str, Cell]) -> str:
        """Return the hash of all that decides a separation: fits (method, model, data), sentences, recipe."""
        return digest(
            {
                "recipe": _RECIPE,
                "fits": {code: steering_id(cell.key) for code, cell in cells.items()},
                "sentences": {code: self.texts()[code] for code in cells},
            },
            16,
        )

    def _loaded(self) -> Fitter:
        if self.fitter is None:
            raise ValueError("names and files alone need no fitter")
        return self.fitter

    def texts(self) -> dict[str, list[str]]:
        """Return the sentences of all languages that the run has cells in."""
        if not self._texts:
            codes = list(dict.fromkeys(cell.key.language for cell in self.prepared.cells))
            self._texts = parallel_sentences(self.prepared.corpus, codes, self.n)
        return self._texts

    def _steerings(self, cells: Mapping[str, Cell]) -> tuple[dict[str, Steering], dict[str, str]]:
        """Return the fits by language, and why other languages have none."""
        found, left_out = {}, {}
        for code, cell in cells.items():
            method = self.prepared.method(cell)
            try:
                skip = method.supports(_context(self.prepared, cell, method))
                if skip is None:
                    found[code] = self._loaded().steering(cell, method)[1]
                else:
                    left_out[code] = skip.reason
            except UnsupportedError as error:
                left_out[code] = str(error)
        return found, left_out

    def _measured(self, cell: Cell, steerings: dict[str, Steering], left_out: dict[str, str]) -> Separation:
        layers = {item.layer for steering in steerings.values() for item in steering.interventions}
        if len(steerings) < 2 or not layers:
            reasons = "; ".join(dict.fromkeys(left_out.values())) or "nothing is steered"
            raise UnsupportedError(f"steering in {len(steerings)} languages ({reasons}); it takes two.")
        before = self._figures(dict.fromkeys(steerings, Steering()))
        after = self._figures(steerings)
        assert cell.key.model is not None
        return Separation(
            method=cell.key.method,
            model=cell.key.model,
            task=cell.key.task,
            languages=list(steerings),
            sentences=len(self.texts()[cell.key.language]),
            steered=sorted(layers),
            before=before.all,
            after=after.all,
            before_by_language=before.by_language,
            after_by_language=after.by_language,
            left_out=left_out,
        )

    def _figures(self, steerings: Mapping[str, Steering]) -> SilhouetteByLayer:
        """Return the silhouettes of languages under a steering each; equal steerings are measured once."""
        name = digest({code: _content(steering) for code, steering in steerings.items()}, 16)
        if name not in self._found:
            states = {code: self._states_of(code, steering) for code, steering in steerings.items()}
            self._found[name] = silhouette_by_layer(states)
        return self._found[name]

    def _states_of(self, code: str, steering: Steering) -> States:
        """Return the states of a language's sentences. Always the same batches: strength 0 changes no bit."""
        from harness.engine.activations import pooled_states

        if not steering.interventions and code in self._unsteered:
            return self._unsteered[code]
        texts = self.texts()[code]
        rows = [steering] * len(texts)
        fitter = self._loaded()
        found = pooled_states(fitter.model, texts, rows, fitter.batch_size)
        if not np.isfinite(found).all():
            raise UserError(f"the states of {code!r} are not finite under this steering.")
        if not steering.interventions:
            self._unsteered[code] = found
        return found


def _content(steering: Steering) -> list[Any]:
    """Return what an intervention does, as JSON: equal contents give equal states."""
    return [
        [
            item.site,
            item.layer,
            item.operation,
            item.raw_strength,
            hashlib.sha256(np.ascontiguousarray(item.vector, dtype=np.float32).tobytes()).hexdigest(),
        ]
        for item in steering.interventions
    ]


def _context(prepared: RunPlan, cell: Cell, method: SteeringMethod) -> CellContext:
    key, suite = cell.key, prepared.suite
    task = suite.task(key.task, key.language)
    return CellContext(suite, task, key.setting, key.seed, key.texts_per_label)
