"""Resolve a hub id or a path to a local checkpoint with an identity, without importing torch."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

from harness.core.errors import InvalidFileError, UserError, require
from harness.core.files import digest
from harness.core.gguf_header import model_type_of, read_header, stored_dtype_of
from harness.core.reading import read_json

DTYPES = ("float32", "bfloat16", "float16")
"""The precisions that a model can run in."""

_WHOLE = 64 * 2**20  # files up to this size are hashed whole, larger ones by three samples
_SAMPLE = 2**20
_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt", "*.jinja"]
_VOCABULARIES = ("tokenizer.json", "*.model", "*.spm", "tekken.json", "vocab.json", "vocab.txt")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", "*.jinja")
_TOKENIZER = [*_VOCABULARIES, *_SETTINGS]
_ADAPTER, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/(?:/[^/]*)?", re.IGNORECASE)
_ADDRESS = re.compile(
    r"/(?P<name>[\w.-]+/[\w.-]+)/?(?:(?:tree|blob|resolve)/(?P<revision>[\w.-]+)/?(?P<file>[\w./-]*))?(?:[?#]|$)"
)
_INDEX = "model.safetensors.index.json"
_QUANTISERS = {
    "awq": ["gptqmodel"],
    "bitsandbytes": ["bitsandbytes"],
    "compressed-tensors": ["compressed-tensors"],
    "fbgemm_fp8": ["fbgemm-gpu"],
    "gptq": ["optimum", "gptqmodel"],
    "hqq": ["hqq"],
    "quanto": ["optimum-quanto"],
    "torchao": ["torchao"],
}
"""``quant_method`` in a config.json -> packages that transformers loads such weights with, besides accelerate.

Of other methods transformers itself says what is missing."""
_MODULES = {"fbgemm-gpu": "fbgemm_gpu", "optimum-quanto": "optimum.quanto", "compressed-tensors": "compressed_tensors"}


class NotDownloadedError(UserError):
    """A hub id is not in the local cache and cannot be downloaded."""


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk. ``revision`` is the hub's commit, None for what lies in a plain folder.

    ``gguf``: the file in ``folder`` with the config and the weights; None for safetensors. ``base``: the model whose
    weights ``folder``, a LoRA adapter, changes; None for a whole model.
    """

    folder: Path
    name: str
    revision: str | None
    fingerprint: str
    gguf: Path | None = None
    base: Checkpoint | None = None

    @property
    def path(self) -> Path:
        """What ``--model`` takes to find it again: the folder, or the GGUF file."""
        folder = self.folder.resolve()
        return folder / self.gguf.name if self.gguf else folder

    @property
    def model_type(self) -> str:
        """The architecture by transformers' name, such as ``gemma2``."""
        return str(self.config["model_type"])

    @property
    def stored_dtype(self) -> str | None:
        """The precision of the weights in the files, None where it is another or they do not say."""
        if self.base:
            return self.base.stored_dtype
        if self.gguf:
            return stored_dtype_of(self._header)
        text = self.config.get("text_config")  # of a model that also reads pictures
        parts = [self.config, text if isinstance(text, dict) else {}]
        said = (part.get(key) for part in parts for key in ("dtype", "torch_dtype"))
        return next((str(dtype) for dtype in said if dtype in DTYPES), None)

    @property
    def quantised(self) -> str:
        """By which method the weights in the files are quantised, as config.json names it; empty if they are not."""
        found = self.config.get("quantization_config") or self.config.get("compression_config")
        return str(found.get("quant_method", "bitsandbytes")) if isinstance(found, dict) else ""

    @property
    def has_tokenizer(self) -> bool:
        """Whether ``folder`` has a tokenizer; else it is that of the GGUF file, or of ``base``."""
        return any(True for pattern in _VOCABULARIES for _ in self.folder.glob(pattern))

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template: in a file of its own, in its config or in the GGUF file."""
        if self.has_tokenizer or not (self.base or self.gguf):
            config = self.folder / "tokenizer_config.json"
            named = config.is_file() and bool(read_json(config).get("chat_template"))
            if named or (self.folder / "chat_template.jinja").is_file():
                return True
        elif self.gguf:
            return bool(self._header.get("tokenizer.chat_template"))
        return self.base is not None and self.base.has_chat_template

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its config.json; of a GGUF file the model type alone, of an adapter that of its base."""
        if self.base:
            return self.base.config
        return {"model_type": model_type_of(self._header)} if self.gguf else read_json(self.folder / "config.json")

    @cached_property
    def _header(self) -> dict[str, Any]:
        assert self.gguf is not None
        return read_header(self.gguf)


def resolve_checkpoint(
    name_or_path: str, revision: str | None = None, *, plain: bool = False, weights: bool = True
) -> Checkpoint:
    """Return the checkpoint of a path or a hub id (from the local cache when offline).

    A path is a folder with safetensors, with one GGUF file or with a LoRA adapter, or a GGUF file; a hub id is that of
    such a folder, or OWNER/NAME:FILE.gguf. ``plain``: only whole weights in safetensors will do, as for encoders.
    ``weights``: whether those of a hub id are downloaded, and have to be in a folder; without them it can be planned
    with, not loaded.
    Raises ``UserError`` for a path without a model, ``NotDownloadedError`` for an id that cannot be downloaded.
    """
    found = _resolve(name_or_path, revision, base=False, weights=weights)
    if plain and (found.gguf or found.base):
        kind = "a GGUF file" if found.gguf else "a LoRA adapter"
        raise UserError(f"{name_or_path} is {kind}, which is loaded as --model alone. Give a folder with safetensors.")
    return found


def require_packages(checkpoint: Checkpoint, device_map: str | None = None) -> None:
    """Raise ``UserError`` where a package is missing that a quantised or spread model is loaded with."""
    words = missing_packages(checkpoint, device_map)
    if words:
        raise UserError(words)


def missing_packages(checkpoint: Checkpoint, device_map: str | None = None) -> str:
    """Return in words which packages are missing here for a quantised or spread model, empty where none is."""
    method = checkpoint.quantised
    wanted = [*(["accelerate"] if method or device_map else []), *_QUANTISERS.get(method, [])]
    missing = [name for name in wanted if not _is_installed(_MODULES.get(name, name))]
    if not missing:
        return ""
    why = f"{checkpoint.name} is quantised by {method}, which" if method else f"--device-map {device_map}"
    return f"{why} needs {' and '.join(missing)}, not installed here: pip install {' '.join(missing)}."


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # what it is a part of is missing
        return False


def is_path(name: str) -> bool:
    """Say whether a name can only be a path: a hub id is OWNER/NAME or NAME, with :FILE.gguf or without."""
    repository, colon, _ = name.partition(":")
    return name.startswith(("/", ".", "~")) or repository.count("/") > 1 or (name.endswith(".gguf") and not colon)


def why_not_loaded(error: Exception) -> str:
    """Return in one line why transformers could not load a directory.

    Code of a checkpoint (``auto_map``) is never run; the message of transformers would advise to run it.
    """
    if "trust_remote_code" in str(error):
        return (
            "it needs its own code (auto_map in its config), which is never run. Give a model of an "
            "architecture that transformers includes."
        )
    words = " ".join(str(error).splitlines()[:1]) or type(error).__name__
    return f"{words:.200}"


def _without_address(rest: str) -> str:
    """Return what to give instead of a URL, of which ``rest`` comes after the host: the hub's name if it has one."""
    found = _ADDRESS.match(rest)
    if found is None:
        return "Give a folder, a .gguf file or a hub id (owner/name)."
    revision, file = found["revision"], found["file"] or ""
    name = f"{found['name']}:{file}" if file.endswith(".gguf") else found["name"]
    more = f" and --revision {revision}" if revision and revision != "main" else ""
    return f"Give the hub id {name}{more}; a token is read from HF_TOKEN or from what 'hf auth login' stored."


def _resolve(name_or_path: str, revision: str | None, base: bool, weights: bool = True) -> Checkpoint:
    path = Path(name_or_path)
    if url := _URL.match(name_or_path):
        raise UserError(f"{name_or_path!r:.200} is a URL, not a model. {_without_address(name_or_path[url.end() :])}")
    if path.is_dir():
        return _open_folder(path, path.resolve().name, base=base, weights=weights)
    if path.is_file():
        return _open_gguf(path, path.stem)
    if path.exists() or is_path(name_or_path):
        raise UserError(
            f"the model folder {name_or_path} does not exist. Give a folder, a .gguf file or a hub id (owner/name)."
        )
    return _open_repository(name_or_path, revision, base, weights)


def _open_repository(name: str, revision: str | None, base: bool, weights: bool) -> Checkpoint:
    """Return a checkpoint of the hub, which its commit identifies."""
    repository, _, file = name.partition(":")
    if not file and not weights:
        folder = _snapshot(repository, revision, [pattern for pattern in _PATTERNS if pattern != "*.safetensors"])
        if (folder / "config.json").is_file():  # an adapter has none; its base is found by its weights
            return Checkpoint(folder, name, folder.name, folder.name)
    if not file:
        folder = _snapshot(repository, revision)
        return replace(_open_folder(folder, name, folder.name, base), revision=folder.name)
    folder = _snapshot(repository, revision, [escape(file), *_TOKENIZER])
    commit = folder.name
    if not (folder / file).is_file():
        raise UserError(f"{repository} has no file {file} at commit {commit}. Look up its GGUF files on the hub.")
    return replace(_open_gguf(folder / file, name, digest([commit, file], 16)), revision=commit)


def _snapshot(repository: str, revision: str | None, patterns: Sequence[str] = _PATTERNS) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except (OSError, HFValidationError) as error:  # every hub error is an OSError
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotDownloadedError(
            f"the model {repository!r} is not a folder and cannot be downloaded from the hub ({first:.120}). "
            "Check the name, or download it once while online."
        ) from None


def _open_folder(
    folder: Path, name: str, commit: str | None = None, base: bool = False, weights: bool = True
) -> Checkpoint:
    """Return the checkpoint of a folder: whole safetensors win over a GGUF file beside them.

    ``base``: it is that of an adapter, so it cannot be one itself. ``weights``: whether it needs any.
    """
    found = sorted(path for path in folder.glob("*.safetensors") if path.name != _ADAPTER_WEIGHTS)
    if (folder / _ADAPTER).is_file():
        if base:
            raise UserError(f"{folder} is an adapter itself. Merge it first.")
        if found:  # transformers would choose between the two by whether peft is installed
            raise UserError(f"{folder} holds a LoRA adapter and whole weights ({found[0].name}). Move one elsewhere.")
        return _open_adapter(folder, name, commit)
    files = [] if commit else sorted(path for path in folder.glob("*.gguf") if "mmproj" not in path.name)
    if files and not found:
        if len(files) > 1:
            listed = ", ".join(path.name for path in files)
            raise UserError(f"{folder} holds {len(files)} GGUF files ({listed:.300}). Give the path of one of them.")
        return _open_gguf(files[0], name)
    if weights or found or not (folder / "config.json").is_file():
        _check_folder(folder, found, of_hub=commit is not None)
    return Checkpoint(folder, name, None, commit or _fingerprint(folder, _PATTERNS))


def _open_gguf(path: Path, name: str, fingerprint: str = "") -> Checkpoint:
    """Return the checkpoint of a GGUF file and of the tokenizer beside it, if there is one."""
    if path.suffix != ".gguf":
        raise UserError(f"{path} is not a model. Give a folder, a .gguf file or a hub id (owner/name).")
    require("gguf")
    found = Checkpoint(path.parent, name, None, fingerprint, gguf=path)
    read_header(path)  # now, not when cells are planned: raises the errors of a broken file
    patterns = [escape(path.name), *(_TOKENIZER if found.has_tokenizer else [])]
    return found if fingerprint else replace(found, fingerprint=_fingerprint(path.parent, patterns))


def _open_adapter(folder: Path, name: str, commit: str | None) -> Checkpoint:
    """Return the checkpoint of a LoRA adapter on the base that its config names."""
    config = read_json(folder / _ADAPTER)
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    if kind != "LORA":
        raise UserError(f"{folder} holds a PEFT adapter of type {kind}; only LORA is merged into a model.")
    weights = folder / _ADAPTER_WEIGHTS
    if not weights.is_file():
        raise UserError(
            f"the adapter {folder} has no {_ADAPTER_WEIGHTS}. Other formats are not loaded, since they may run code: "
            "load it with peft and save it again."
        )
    _check_safetensors([weights])
    if not isinstance(base, str) or not base:
        raise UserError(f"{folder / _ADAPTER} names no base_model_name_or_path. Enter the model that it changes.")
    require("lora")
    revision = config.get("revision")
    near = folder / base
    try:
        on = _resolve(str(near) if near.exists() else base, str(revision) if revision else None, base=True)
    except UserError as error:
        raise UserError(f"the base of the adapter {folder} (base_model_name_or_path in {_ADAPTER}): {error}") from None
    if on.quantised:
        raise UserError(
            f"the base of the adapter {folder} is quantised ({on.quantised}), so merging would round its weights "
            "again. Name the base as it was before."
        )
    own = commit or _fingerprint(folder, _PATTERNS)
    return Checkpoint(folder, name, None, digest([own, on.fingerprint], 16), base=on)


def _check_folder(folder: Path, weights: list[Path], of_hub: bool) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"the folder {folder} holds no model: config.json is missing.")
    try:
        config = read_json(folder / "config.json")
    except InvalidFileError as error:
        raise UserError(f"the folder {folder} holds no model: config.json {error.problem}.") from None
    if "model_type" not in config:
        raise UserError(f"the folder {folder} holds no model: config.json names no model_type.")
    if not weights:
        raise UserError(
            f"the folder {folder} holds no model: no *.safetensors file. Other weight formats are "
            "not loaded, since they may run code; convert them first."
            + (" Of GGUF files name one: OWNER/NAME:FILE.gguf." if of_hub else "")
        )
    _check_safetensors(weights)
    if (folder / _INDEX).is_file() and not (folder / "model.safetensors").is_file():
        parts = read_json(folder / _INDEX).get("weight_map")
        named = {str(part) for part in parts.values()} if isinstance(parts, dict) else set()
        missing = sorted(named - {path.name for path in weights})
        if missing or not named:
            what = f"{len(missing)} of its {len(named)} files are missing, such as {missing[0]}" if named else "empty"
            raise UserError(f"{folder / _INDEX}: {what}. Download the model again.")


def _check_safetensors(weights: Iterable[Path]) -> None:
    from safetensors import SafetensorError, safe_open

    for path in weights:
        try:
            with safe_open(path, framework="numpy"):  # checks that the header fits the length: no half download
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is truncated or not safetensors ({error}). Get it again.") from None


def _fingerprint(folder: Path, patterns: Iterable[str]) -> str:
    """Return a hash of the names, sizes and contents of a checkpoint's files, large ones by samples."""
    found = []
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        size, hasher = path.stat().st_size, hashlib.sha256()
        with path.open("rb") as handle:
            for start in [0] if size <= _WHOLE else [0, size // 2, size - _SAMPLE]:
                handle.seek(start)
                hasher.update(handle.read(_SAMPLE if size > _WHOLE else -1))
        found.append([path.name, size, hasher.hexdigest()])
    return digest(found, 16)
