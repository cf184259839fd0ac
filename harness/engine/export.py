"""Export steering for other programs: GGUF for repeng and llama.cpp, ``.pt`` for lm-eval's ``steered`` model.

Both formats hold vectors to be added to the output of decoder layers at all positions, and nothing else.
What is written is vector x raw strength, so that a coefficient of 1 there is the strength here. Layers are
the indices of the decoder layers from 0: ``direction.N`` is added by repeng to the output of ``layers[N]``
and by llama.cpp to ``l_out`` of block N (which takes no ``direction.0``).
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.checkpoints import resolve_checkpoint, why_not_loaded
from harness.core.errors import UserError, unknown
from harness.core.files import canonical_json, write_bytes
from harness.core.interventions import Steering

FORMATS = {"repeng": (), "lm-eval": (".pt", ".pth")}
"""The formats, and the endings that their readers insist on."""

Vectors = Mapping[int, NDArray[np.float32]]


def check_target(out: Path, format_: str) -> None:
    """Refuse an unknown format, an existing file and an ending that the reader would not take."""
    if format_ not in FORMATS:
        raise unknown("format", format_, FORMATS)
    if out.is_dir():
        raise UserError(f"{out} is a directory. Give the name of a new file in --out.")
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists and is not overwritten. Delete it, or give another --out.")
    endings = FORMATS[format_]
    if endings and out.suffix not in endings:
        raise UserError(f"--out {out}: {format_} reads only files that end in {' or '.join(endings)}.")


def layer_vectors(steering: Steering, format_: str) -> dict[int, NDArray[np.float32]]:
    """Return by layer what the steering adds there: vectors of float32 with the strength in them.

    Several interventions at one layer add up. Raises ``UserError`` for what the format cannot express:
    other sites, operations and positions, and steering that changes nothing.
    """
    if not steering.interventions:
        raise UserError("this steering changes nothing: it holds no intervention to export.")
    size = len(steering.interventions[0].vector)
    vectors: dict[int, NDArray[np.float32]] = {}
    for item in steering.interventions:
        reason = ""
        if (item.site, item.operation) != ("layer_output", "add"):
            reason = f"operation {item.operation!r} at site {item.site!r}"
        elif item.positions != "all":
            reason = f"positions {item.positions!r}"
        if reason:
            raise UserError(
                f"{format_} files cannot express {reason} (layer {item.layer}): they hold only vectors that are "
                "added at layer_output at all positions. Export a steering of that kind, or steer with "
                "steerboard itself."
            )
        if len(item.vector) != size:
            raise UserError(f"the file holds vectors of two sizes, {size} and {len(item.vector)}.")
        # An exact sum from zero in this order is what harness.engine.hooks adds, bit for bit.
        so_far = vectors.get(item.layer, np.zeros(size, np.float32))
        with np.errstate(over="ignore"):
            vectors[item.layer] = so_far + item.vector * np.float32(item.raw_strength)
    if not all(np.isfinite(vector).all() for vector in vectors.values()):
        raise UserError("vector x strength is beyond float32: there is no number to export. Fit it again.")
    return dict(sorted(vectors.items()))


def model_config(name_or_path: str, revision: str | None = None) -> Any:
    """Return the transformers config of a folder, GGUF file, adapter or hub id; no weights are loaded.

    Raises ``UserError`` where there is none, and for a model that needs code of its own.
    """
    from transformers import AutoConfig
    from transformers.utils import logging

    from harness.engine.weights import load_config

    logging.set_verbosity_error()  # its warnings on configs are not about steering
    path = Path(name_or_path)
    other = path.exists() and not (path / "config.json").is_file()
    try:
        if other or ":" in name_or_path:  # a GGUF file or an adapter
            return load_config(resolve_checkpoint(name_or_path, revision))
        return AutoConfig.from_pretrained(name_or_path, revision=revision, trust_remote_code=False)
    except Exception as error:  # a config.json from outside can fail anywhere
        reason = why_not_loaded(error)
        raise UserError(
            f"no model config at {name_or_path!r} ({reason}). Give --model a folder with config.json, or a hub id."
        ) from None


def check_fit(vectors: Vectors, config: Any) -> None:
    """Refuse vectors whose size or layers the model of ``config`` does not have."""
    text = config.get_text_config()
    size = len(next(iter(vectors.values())))
    if size != text.hidden_size:
        raise UserError(
            f"the vectors have {size} numbers, the model's hidden size is {text.hidden_size}. "
            "Give --model the model that they were fitted on."
        )
    beyond = [layer for layer in vectors if not 0 <= layer < text.num_hidden_layers]
    if beyond:
        raise UserError(
            f"the steering is for layer {beyond[0]}, this model has layers 0 to "
            f"{text.num_hidden_layers - 1}. Give --model the model that it was fitted on."
        )


def hookpoints(config: Any) -> list[str]:
    """Return the name of every decoder layer below the model's ``base_model``, as lm-eval looks them up.

    The model is built without storage, so that a large one costs nothing. Raises ``UserError`` where
    the architecture is not a decoder-only language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from harness.engine.model import find_layers

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        layers = find_layers(model)
    except UserError:
        raise
    except Exception as error:  # see model_config
        reason = why_not_loaded(error)
        raise UserError(
            f"the model's config describes no causal language model ({reason}). "
            "Give --model the model that the steering was fitted on."
        ) from None
    names = {id(module): name for name, module in model.base_model.named_modules()}
    return [names[id(layer)] for layer in layers]


def write_gguf(path: Path, vectors: Vectors, model_hint: str, provenance: Mapping[str, Any]) -> None:
    """Write the file that repeng's ``ControlVector.import_gguf`` and llama.cpp read.

    Provenance goes along under ``steerboard.provenance`` as JSON, which both readers pass over.
    """
    from gguf import GGUFWriter

    architecture = "controlvector"
    with tempfile.TemporaryDirectory() as folder:  # the writer knows files alone, written bit by bit
        part = Path(folder) / "part.gguf"
        writer = GGUFWriter(part, architecture)
        writer.add_string(f"{architecture}.model_hint", model_hint)
        writer.add_uint32(f"{architecture}.layer_count", len(vectors))
        writer.add_string("steerboard.provenance", canonical_json(dict(provenance)))
        for layer, vector in vectors.items():
            writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(vector))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        write_bytes(path, part.read_bytes())


def write_lm_eval(path: Path, vectors: Vectors, names: list[str]) -> None:
    """Write the file that lm-eval's ``steered`` model reads; ``names`` are ``hookpoints`` by layer.

    It holds plain tensors, numbers and text, so that ``torch.load(weights_only=True)`` takes it.
    """
    import torch

    content = {
        names[layer]: {
            "steering_vector": torch.from_numpy(np.array(vector, dtype=np.float32)),
            "steering_coefficient": 1.0,
            "action": "add",
            "bias": None,
            "head_index": None,
        }
        for layer, vector in vectors.items()
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())
