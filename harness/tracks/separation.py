"""How far apart a model's languages are, and how steering changes that: CLAS's own analysis.

CLAS (arXiv 2601.16390) claims that its gains come with an increased separation of language clusters. How the paper
measures it is not public; here it is the mean silhouette (Rousseeuw 1987) of mean-pooled states of parallel
sentences. It is measured on the model, written to the run folder, and read without the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from harness.core.cells import Cell, steering_id
from harness.core.errors import BrokenFileError, UnsupportedError, UserError, is_infrastructure
from harness.core.files import digest, write_json
from harness.core.interventions import Steering
from harness.core.records import MethodIdentity, ModelIdentity
from harness.core.schema import SafeInt, Versioned, read_record
from harness.core.store import Run
from harness.data.corpus import Corpus
from harness.ranking.stats.ranks import RankCorrelation, rank_correlation

if TYPE_CHECKING:
    from harness.runner.fit import Fitter
    from harness.runner.prepare import RunPlan

FOLDER = "separation"
LAYERS = 200
LANGUAGES = 300
SENTENCES = 40
"""Of every language, by default."""

_RECIPE = "mean-pooled, euclidean, 1"
_DIGITS = 6  # of silhouettes that are written

Name = Annotated[str, Field(min_length=1, max_length=200)]
Silhouette = Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)]
ByLayer = Annotated[list[Silhouette], Field(min_length=1, max_length=LAYERS)]
States = NDArray[np.float32]
"""[sentences, layers, hidden size]"""


class Separation(Versioned):
    """Silhouettes of languages over mean-pooled states of parallel sentences, one value per layer.

    ``sentences``: of every language, the same ones. ``steered``: the layers that the method changes, from 0.
    ``before``, ``after``: the mean over all sentences, unsteered and with every language's sentences under
    its own steering; ``..._by_language``: the mean over the sentences of one. ``left_out``: language ->
    why it is not one of ``languages``. A file whose parts contradict one another is refused.
    """

    method: MethodIdentity
    model: ModelIdentity
    task: Name
    languages: Annotated[list[Name], Field(min_length=2, max_length=LANGUAGES)]
    sentences: Annotated[SafeInt, Field(ge=2)]
    steered: Annotated[list[SafeInt], Field(min_length=1, max_length=LAYERS)]
    before: ByLayer
    after: ByLayer
    before_by_language: dict[Name, ByLayer]
    after_by_language: dict[Name, ByLayer]
    left_out: dict[Name, str] = Field(default={}, max_length=LANGUAGES)

    @model_validator(mode="after")
    def _fits(self) -> Separation:
        n_layers, languages = len(self.before), set(self.languages)
        if len(languages) < len(self.languages):
            raise ValueError("a language is named twice")
        for found in (self.before_by_language, self.after_by_language):
            if set(found) != languages or any(len(values) != n_layers for values in found.values()):
                raise ValueError("not every language has a value for every layer")
        if len(self.after) != n_layers or not all(0 <= layer < n_layers for layer in self.steered):
            raise ValueError("the layers do not fit one another")
        return self

    @property
    def change(self) -> float:
        """The change of the mean silhouette, averaged over the layers from the first steered one on."""
        return self.from_steered(self.after) - self.from_steered(self.before)

    @property
    def changes(self) -> dict[str, float]:
        """Language -> the change of its silhouette, over the same layers."""
        before, after = self.before_by_language, self.after_by_language
        return {code: self.from_steered(after[code]) - self.from_steered(before[code]) for code in self.languages}

    def from_steered(self, values: Sequence[float]) -> float:
        """Return the mean of values by layer over the layers from the first steered one on."""
        reached = values[min(self.steered) :]
        return sum(reached) / len(reached)


def separation_with_gain(changes: Mapping[str, float], gains: Mapping[str, float]) -> RankCorrelation | None:
    """Return Spearman's rank correlation of separation and gain over the languages that have both.

    ``changes``: language -> change of its silhouette; ``gains``: language -> gain over zero-shot. None
    below four languages, and where one side is constant. CLAS claims that it is positive.
    """
    both = [code for code in changes if code in gains]
    x, y = (np.array([side[code] for code in both], dtype=np.float64) for side in (changes, gains))
    return rank_correlation(x, y)


def path_of(run: Run, name: str) -> Path:
    """Return the file of a separation in a run folder, by its hash."""
    return run.path / FOLDER / f"{name}.json"


def write_separation(run: Run, name: str, separation: Separation) -> None:
    """Write a separation into the run folder, atomically."""
    write_json(path_of(run, name), separation.to_json())


def read_separation(path: Path) -> Separation:
    """Read a separation; ``BrokenFileError`` where it is broken, foreign or of a newer schema."""
    try:
        return read_record(path, Separation)
    except UserError as error:
        raise BrokenFileError(str(error)) from None


def analyse(
    plan: RunPlan, fitter: Fitter, say: Callable[[str], None] = lambda words: None, n: int = SENTENCES
) -> list[Separation]:
    """Return the separation of every steering method of a run, by task; call it with the run folder locked.

    Results in the run folder are read, others measured and written there. A method that supports fewer
    than two languages has none; one whose fit fails is reported and left out.
    """
    inputs = SeparationInputs(plan, fitter, n)
    found = []
    for cells in inputs.groups():
        key = next(iter(cells.values())).key
        title = f"{key.method.title}, {key.task}"
        say(f"separation: {title}")
        try:
            found.append(inputs.separation(cells))
        except BrokenFileError:
            raise
        except Exception as error:  # a method's failure is reported and ends nothing else
            if is_infrastructure(error):
                raise
            say(f"no separation of {title}: {error or type(error).__name__}")
    return found


def pending(plan: RunPlan, n: int = SENTENCES) -> bool:
    """Say whether a separation of at least two languages is missing in the run folder; loads no model."""
    inputs = SeparationInputs(plan, None, n)
    return any(len(cells) > 1 and not inputs.path(cells).is_file() for cells in inputs.groups())


def silhouettes(states: States, clusters: Sequence[int]) -> NDArray[np.float64]:
    """Return the silhouette of every sentence in every layer, [layers, sentences], by euclidean distance.

    ``clusters``: the language of every sentence. Raises ValueError for fewer than two languages, for as many
    as sentences, and for states that are not finite.
    """
    from sklearn.metrics import silhouette_samples

    layers = range(states.shape[1])
    return np.stack([silhouette_samples(states[:, i].astype(np.float64), np.asarray(clusters)) for i in layers])


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


def silhouette_by_layer(states: Mapping[str, States]) -> tuple[list[float], dict[str, list[float]]]:
    """Return the mean silhouettes by layer, rounded as they are written: over all sentences, and by language."""
    clusters = np.repeat(np.arange(len(states)), [len(own) for own in states.values()])
    found = silhouettes(np.concatenate(list(states.values())), clusters.tolist())

    def mean(chosen: NDArray[np.float64]) -> list[float]:
        return [round(float(value), _DIGITS) for value in chosen.mean(axis=1)]

    return mean(found), {code: mean(found[:, clusters == i]) for i, code in enumerate(states)}


@dataclass
class SeparationInputs:
    """A run's sentences and their states, read once for all methods and tasks. ``cells``: by language."""

    plan: RunPlan
    fitter: Fitter | None
    n: int = SENTENCES
    _found: dict[str, tuple[list[float], dict[str, list[float]]]] = field(default_factory=dict)
    _unsteered: dict[str, States] = field(default_factory=dict)

    def groups(self) -> list[dict[str, Cell]]:
        """Return the cells of steering methods, by method and task; in each group one by language."""
        groups: dict[tuple[str, str], dict[str, Cell]] = {}
        for cell in self.plan.cells:
            if cell.key.model is not None and self.plan.method(cell).has_fit:
                group = groups.setdefault((cell.key.method.model_dump_json(), cell.key.task), {})
                group.setdefault(cell.key.language, cell)
        return list(groups.values())

    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """The sentences of all languages that the run has cells in."""
        codes = list(dict.fromkeys(cell.key.language for cell in self.plan.cells))
        return parallel_sentences(self.plan.corpus, codes, self.n)

    def path(self, cells: Mapping[str, Cell]) -> Path:
        """Return the file of a separation.

        Its name is a hash of everything that decides it: fits (method, model, data), sentences, recipe.
        """
        fits = {code: steering_id(cell.key) for code, cell in cells.items()}
        sentences = {code: self.texts[code] for code in cells}
        return path_of(self.plan.run, digest({"recipe": _RECIPE, "fits": fits, "sentences": sentences}, 16))

    def separation(self, cells: Mapping[str, Cell]) -> Separation:
        """Return the separation of one method and task; from the run folder if it is there.

        Raises ``UnsupportedError`` where fewer than two languages are left, or nothing is steered.
        """
        path = self.path(cells)
        if path.is_file():
            return read_separation(path)
        found = self._measure(cells)
        write_separation(self.plan.run, path.stem, found)
        return found

    def _measure(self, cells: Mapping[str, Cell]) -> Separation:
        steerings: dict[str, Steering] = {}
        left_out: dict[str, str] = {}
        assert self.fitter is not None, "names and files alone need no fitter"
        for code, cell in cells.items():
            method = self.plan.method(cell)
            try:
                skip = method.supports(self.plan.context(cell))
                if skip is not None:
                    raise UnsupportedError(skip.reason)
                steerings[code] = self.fitter.steering(cell, method)[1]
            except UnsupportedError as error:
                left_out[code] = str(error)
        layers = {item.layer for steering in steerings.values() for item in steering.interventions}
        if len(steerings) < 2 or not layers:
            reasons = "; ".join(dict.fromkeys(left_out.values())) or "nothing is steered"
            raise UnsupportedError(f"steering in {len(steerings)} languages ({reasons}); it takes two.")
        before, before_by_language = self._silhouettes(dict.fromkeys(steerings, Steering()))
        after, after_by_language = self._silhouettes(steerings)
        key = next(iter(cells.values())).key
        assert key.model is not None
        return Separation(
            method=key.method,
            model=key.model,
            task=key.task,
            languages=list(steerings),
            sentences=len(self.texts[key.language]),
            steered=sorted(layers),
            before=before,
            after=after,
            before_by_language=before_by_language,
            after_by_language=after_by_language,
            left_out=left_out,
        )

    def _silhouettes(self, steerings: Mapping[str, Steering]) -> tuple[list[float], dict[str, list[float]]]:
        """Return the silhouettes of languages under a steering each; equal steerings are measured once."""
        name = digest({code: _content(steering) for code, steering in steerings.items()}, 16)
        if name not in self._found:
            states = {code: self._states(code, steering) for code, steering in steerings.items()}
            self._found[name] = silhouette_by_layer(states)
        return self._found[name]

    def _states(self, code: str, steering: Steering) -> States:
        """Return the states of a language's sentences. Always the same batches: strength 0 changes no bit."""
        from harness.engine.activations import pooled_states

        if not steering.interventions and code in self._unsteered:
            return self._unsteered[code]
        texts, fitter = self.texts[code], self.fitter
        assert fitter is not None
        found = pooled_states(fitter.model, texts, [steering] * len(texts), fitter.batch_size)
        if not np.isfinite(found).all():
            raise UserError(f"the states of {code!r} are not finite under this steering.")
        if not steering.interventions:
            self._unsteered[code] = found
        return found


def _content(steering: Steering) -> list[Any]:
    """Return the content of interventions as JSON: equal contents give equal states."""
    return [
        [item.site, item.layer, item.operation, item.raw_strength, np.asarray(item.vector).tolist()]
        for item in steering.interventions
    ]
