"""The command ``steerboard vectors``: look at steering files, and export them to other programs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.helptext import build_group
from harness.cli.options import argument, option
from harness.core.errors import BrokenFileError, UserError
from harness.core.files import canonical_json

if TYPE_CHECKING:
    from harness.core.interventions import Steering

app = build_group("Look at steering files, and export them to other programs.")


@app.command()
def show(
    files: Annotated[list[Path], argument("FILE...", "Steering files: RUN/steering/*.safetensors.")],
    json: Annotated[
        bool, typer.Option("--json", help="One line of JSON per file: the header and every vector's norm.")
    ] = False,
) -> None:
    """Show what steering files change, and how they were fitted.

    Layers count from 0. 'raw' is the factor of the vector in units of the hidden state: the strength
    itself, or strength x residual norm where the unit is 'residual'.
    """
    steerings = {str(file): _load(file) for file in files}
    from harness.engine.inspect_vectors import as_json, as_text

    if json:
        typer.echo("\n".join(as_json(name, steering) for name, steering in steerings.items()))
    else:
        colour = sys.stdout.isatty()
        typer.echo("\n\n".join(as_text(name, steering, colour=colour) for name, steering in steerings.items()))


@app.command()
def export(
    file: Annotated[Path, argument("FILE", "A steering file.")],
    format_: Annotated[str, option("FORMAT", "repeng or lm-eval.", "--format")],
    out: Annotated[Path, option("FILE", "The new file: .gguf for repeng, .pt for lm-eval.")],
    model: Annotated[
        str | None, option("FOLDER_OR_ID", "Folder or hub id of the model. Needed where the file names no hub model.")
    ] = None,
) -> None:
    """Write a steering file for another program.

    repeng: a GGUF control vector, which llama.cpp reads as well. Tensor direction.N is added to the output
    of decoder layer N, counted from 0 as here. Coefficient 1 there is the strength here.

    lm-eval: the .pt of 'lm_eval --model steered'. lm-eval unpickles such files: load only your own.

    Both express only vectors added at layer_output at all positions; anything else is refused.
    """
    from harness.engine import export as formats

    formats.check_target(out, format_)
    steering = _load(file)
    vectors = formats.layer_vectors(steering, format_)
    given = steering.provenance.get("model")
    fitted: dict[str, Any] = given if isinstance(given, dict) else {}
    layers = list(vectors)
    noun = "vector at layer" if len(layers) == 1 else "vectors at layers"
    written = f"{out}: {len(layers)} {noun} {', '.join(map(str, layers))}; coefficient 1 is the strength of the file"
    if format_ == "repeng":
        config = formats.model_config(model) if model else None
        if config is not None:
            formats.check_fit(vectors, config)
        hint = config.model_type if config is not None else str(fitted.get("name") or "unknown")
        formats.write_gguf(out, vectors, hint, steering.provenance)
        typer.echo(written)
        typer.echo(f"next, repeng: ControlModel(model, {layers}).set_control(ControlVector.import_gguf({str(out)!r}))")
        if 0 in layers:
            typer.echo("llama.cpp does not read this file: it cannot steer layer 0", err=True)
        else:
            typer.echo(f"next, llama.cpp: llama-cli -m MODEL.gguf --control-vector {shlex.quote(str(out))}")
        return
    source, revision = _model_of(model, fitted, file)
    config = formats.model_config(source, revision)
    formats.check_fit(vectors, config)
    formats.write_lm_eval(out, vectors, formats.hookpoints(config))
    typer.echo(written)
    pretrained = source + (f",revision={revision}" if revision else "")
    arguments = shlex.quote(f"pretrained={pretrained},steer_path={out}")
    typer.echo(f"next: lm_eval --model steered --model_args {arguments} --tasks TASKS")


def _load(file: Path) -> Steering:
    """Return the content of a steering file; ``UserError`` for any other path."""
    from harness.core.interventions import load_steering

    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise UserError(f"{file} {what}. Give a steering file: RUN/steering/*.safetensors.")
    try:
        steering = load_steering(file)
        canonical_json(steering.provenance).encode()
    except BrokenFileError as error:  # the file may not be ours: nothing is to be deleted here
        reason = str(error).removesuffix(" Delete it and run again.")
        raise UserError(f"{reason} Give a steering file: RUN/steering/*.safetensors.") from None
    except (ValueError, RecursionError) as error:  # NaN, half a character, endless nesting
        raise UserError(f"{file} is not a steering file ({error} in its header).") from None
    return steering


def _model_of(model: str | None, fitted: dict[str, Any], file: Path) -> tuple[str, str | None]:
    """Return where the model's config is: --model, or the hub model that the steering names."""
    if model:
        return model, None
    name, revision = fitted.get("name"), fitted.get("revision")
    if isinstance(name, str) and isinstance(revision, str):
        return name, revision
    known = f"was fitted on the local folder {name!r}" if name else "names no model"
    raise UserError(f"{file} {known}: give --model FOLDER_OR_ID, whose config names the layers for lm-eval.")
