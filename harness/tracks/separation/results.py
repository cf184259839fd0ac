"""The file of a separation: how far apart the languages lie in a model, before and after steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from harness.core.errors import BrokenFileError, UserError
from harness.core.files import write_json
from harness.core.reading import read_json
from harness.core.records import SCHEMA, MethodIdentity, ModelIdentity, SafeInt, Versioned, format_validation_error
from harness.core.store import Run

FOLDER = "separation"
LAYERS = 200
LANGUAGES = 300

Name = Annotated[str, Field(min_length=1, max_length=200)]
Silhouette = Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)]
ByLayer = Annotated[list[Silhouette], Field(min_length=1, max_length=LAYERS)]


class Separation(Versioned):
    """Silhouettes of languages over mean-pooled states of parallel sentences, one value per layer.

    ``sentences``: of every language, the same ones. ``steered``: the layers that the method changes, from 0.
    ``before``, ``after``: the mean over all sentences, unsteered and with every language's sentences under
    its own steering; ``..._by_language``: the mean over the sentences of one. ``left_out``: language ->
    why it is none of ``languages``. A file whose parts do not fit one another is refused.
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
        """The change of the mean silhouette, as a mean over the layers from the first steered one on."""
        return self._change(self.before, self.after)

    @property
    def changes(self) -> dict[str, float]:
        """Language -> the change of its own silhouette, over the same layers."""
        before, after = self.before_by_language, self.after_by_language
        return {code: self._change(before[code], after[code]) for code in self.languages}

    def from_steered(self, values: Sequence[float]) -> float:
        """Return the mean of values by layer over the layers from the first steered one on."""
        reached = values[min(self.steered) :]
        return sum(reached) / len(reached)

    def _change(self, before: Sequence[float], after: Sequence[float]) -> float:
        return self.from_steered(after) - self.from_steered(before)


def path_of(run: Run, name: str) -> Path:
    """Return where the separation of a hash lies in a run folder."""
    return run.path / FOLDER / f"{name}.json"


def write_separation(run: Run, name: str, separation: Separation) -> None:
    """Write a separation into the run folder, atomically."""
    write_json(path_of(run, name), separation.to_json())


def read_separation(path: Path) -> Separation:
    """Read a separation; ``BrokenFileError`` where it is broken, foreign or of a newer schema."""
    try:
        return Separation.model_validate(read_json(path, SCHEMA))
    except ValidationError as error:
        raise BrokenFileError(
            f"{path} is no separation: {format_validation_error(error)}. Delete it and run again."
        ) from None
    except UserError as error:
        raise BrokenFileError(str(error)) from None


def by_language(values: Mapping[str, Sequence[float]], digits: int = 6) -> dict[str, list[float]]:
    """Return values by language and layer as they are written: rounded."""
    return {code: [round(float(value), digits) for value in found] for code, found in values.items()}
