"""Resolve a hub id or a directory to a local checkpoint with an identity, without importing torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import InvalidFileError, UserError
from harness.core.files import digest
from harness.core.reading import read_json

_WHOLE = 64 * 2**20  # files up to this size are hashed whole, larger ones by three samples
_SAMPLE = 2**20
_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.spm", "*.txt", "*.jinja"]


class NotDownloadedError(UserError):
    """A hub id is not in the local cache and cannot be downloaded."""


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk. ``revision`` is the hub's commit, None for a plain folder."""

    folder: Path
    name: str
    revision: str | None
    fingerprint: str

    @property
    def model_type(self) -> str:
        """The architecture in its config.json, such as ``gemma2``."""
        return str(read_json(self.folder / "config.json")["model_type"])

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer has a chat template: in a file of its own, or in its config."""
        config = self.folder / "tokenizer_config.json"
        named = config.is_file() and bool(read_json(config).get("chat_template"))
        return named or (self.folder / "chat_template.jinja").is_file()


def resolve_checkpoint(name_or_path: str, revision: str | None = None) -> Checkpoint:
    """Return the checkpoint of a directory or a hub id (from the local cache when offline).

    Raises ``UserError`` for a directory without a model, ``NotDownloadedError`` for an id that cannot be downloaded.
    """
    path = Path(name_or_path)
    if path.is_dir():
        _check_folder(path)
        return Checkpoint(path, path.resolve().name, None, _fingerprint(path))
    if path.exists() or is_path(name_or_path):
        raise UserError(f"the model folder {name_or_path} does not exist. Give a folder or a hub id (owner/name).")
    folder = _snapshot(name_or_path, revision)
    _check_folder(folder)
    return Checkpoint(folder, name_or_path, folder.name, folder.name)


def is_path(name: str) -> bool:
    """Say whether a name can only be a path: a hub id is OWNER/NAME or NAME."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


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


def _snapshot(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_PATTERNS))
    except (OSError, HFValidationError) as error:  # every hub error is an OSError
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotDownloadedError(
            f"the model {repository!r} is not a folder and cannot be downloaded from the hub ({first:.120}). "
            "Check the name, or download it once while online."
        ) from None


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"the folder {folder} holds no model: config.json is missing.")
    try:
        config = read_json(folder / "config.json")
    except InvalidFileError as error:
        raise UserError(f"the folder {folder} holds no model: config.json {error.problem}.") from None
    if "model_type" not in config:
        raise UserError(f"the folder {folder} holds no model: config.json names no model_type.")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(
            f"the folder {folder} holds no model: no *.safetensors file. Other weight formats are "
            "not loaded, since they may run code; convert them first."
        )
    from safetensors import SafetensorError, safe_open

    for path in weights:
        try:
            with safe_open(path, framework="numpy"):  # checks that the header fits the length: no half download
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is truncated or not safetensors ({error}). Get it again.") from None


def _fingerprint(folder: Path) -> str:
    """Return a hash of the names, sizes and contents of a checkpoint's files, large ones by samples."""
    found = []
    for path in sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)}):
        size, hasher = path.stat().st_size, hashlib.sha256()
        with path.open("rb") as handle:
            for start in [0] if size <= _WHOLE else [0, size // 2, size - _SAMPLE]:
                handle.seek(start)
                hasher.update(handle.read(_SAMPLE if size > _WHOLE else -1))
        found.append([path.name, size, hasher.hexdigest()])
    return digest(found, 16)
