"""What a path or a hub id resolves to: which file, under which identity, or one line that says why not."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoints import byte_model, write_gguf
from support.helpers import steerboard

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UserError
from harness.core.gguf_header import end_tokens_of, model_type_of, read_header
from harness.data.suite import load_suite
from harness.runner.prepare import default_run

COMMIT = "c4" * 20


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A model in safetensors. Leave it as it is."""
    return byte_model(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture
def file(plain, tmp_path) -> Path:
    """A GGUF file, alone in its folder."""
    (tmp_path / "gguf").mkdir()
    return write_gguf(plain, tmp_path / "gguf" / "tiny-F32.gguf")


def test_a_gguf_file_and_its_folder_are_one_model(file):
    by_file, by_folder = resolve_checkpoint(str(file)), resolve_checkpoint(str(file.parent))
    assert (by_file.name, by_folder.name) == ("tiny-F32", "gguf")
    assert by_file.fingerprint == by_folder.fingerprint
    assert by_file.path == by_folder.path == file
    assert (by_file.model_type, by_file.stored_dtype, by_file.has_chat_template) == ("llama", "float32", False)


def test_the_fingerprint_is_that_of_the_content(plain, file):
    old = resolve_checkpoint(str(file)).fingerprint
    moved = Path(shutil.copy(file, file.with_name("a[1].gguf")))  # a name with the signs of a pattern
    assert len({old, resolve_checkpoint(str(moved)).fingerprint}) == 2  # the name counts, as for safetensors
    data = bytearray(moved.read_bytes())
    before = resolve_checkpoint(str(moved)).fingerprint
    data[-1] ^= 1
    moved.write_bytes(data)
    assert resolve_checkpoint(str(moved)).fingerprint != before
    shutil.copy(plain / "tokenizer.json", file.parent)
    assert resolve_checkpoint(str(file)).fingerprint != old


def test_whole_safetensors_win_over_a_gguf_file(plain, tmp_path):
    both = Path(shutil.copytree(plain, tmp_path / "both"))
    write_gguf(plain, both / "model.gguf")
    found = resolve_checkpoint(str(both))
    assert found.gguf is None
    assert found.fingerprint == resolve_checkpoint(str(plain)).fingerprint


def test_several_gguf_files_are_named_and_a_projector_is_none_of_them(file):
    shutil.copy(file, file.with_name("mmproj-F16.gguf"))
    assert resolve_checkpoint(str(file.parent)).path == file
    shutil.copy(file, file.with_name("tiny-Q8_0.gguf"))
    with pytest.raises(
        UserError, match=r"holds 2 GGUF files \(tiny-F32\.gguf, tiny-Q8_0\.gguf\)\. Give the path of one"
    ):
        resolve_checkpoint(str(file.parent))


def test_a_header_is_read_without_torch(file):
    code = (
        "import sys; from harness.core.checkpoints import resolve_checkpoint; "
        f"c = resolve_checkpoint({str(file)!r}); print(c.model_type, c.has_chat_template, c.stored_dtype); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "llama False float32\n", done.stderr


def test_a_header_says_what_the_file_was_written_with(plain, tmp_path):
    path = write_gguf(
        plain, tmp_path / "a.gguf", "Q8_0", {"general.name": "ሰላም שלום", "tokenizer.chat_template": "{{ m }}"}
    )
    header = read_header(path)
    assert header["general.name"] == "ሰላም שלום"
    assert (header["llama.context_length"], header["llama.block_count"]) == (256, 2)
    assert header["tokenizer.ggml.tokens"] == 260  # lists are counted
    assert header["tokenizer.ggml.merges"] == 1
    assert header["tokenizer.ggml.add_bos_token"] is False
    assert header["llama.rope.freq_base"] == 10000.0
    found = resolve_checkpoint(str(path))
    assert (found.has_chat_template, found.stored_dtype) == (True, None)


def test_the_names_of_architectures_are_those_of_transformers():
    from transformers.integrations.gguf import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    parts = {"general", "tokenizer", "deci"}  # parts of a file, and a model of its own code
    dashed = {
        name.replace("_", "-") if name in {"gpt_oss", "minimax_m2"} else name for name in GGUF_SUPPORTED_ARCHITECTURES
    }
    names = {name.replace("_moe", "moe") for name in dashed} | set(GGUF_CONFIG_ARCHS)
    found = {model_type_of({"general.architecture": name}) for name in names - parts}
    assert found <= set(CONFIG_MAPPING_NAMES)
    assert {"gemma3_text", "gemma2", "qwen2_moe", "qwen3_moe", "gpt_oss", "qwen3_5_text"} <= found


def test_texts_end_at_the_tokens_that_are_named_or_known():
    header = {"tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.eot_token_id": 7}
    assert end_tokens_of(header, {}) == [1, 7]
    assert end_tokens_of(header, {"<end_of_turn>": 106, "<|end": 5}) == [1, 7, 106]
    assert end_tokens_of({}, {}) == []


def cut(data: bytes) -> bytes:
    return data[:-9]


def without_architecture(data: bytes) -> bytes:
    return data.replace(b"general.architecture", b"general.architektur_")


def with_count(where: int, number: int):
    return lambda data: data[:where] + struct.pack("<Q", number) + data[where + 8 :]


BROKEN = {
    "half a download": (cut, "is truncated or not a GGUF file .*9 bytes of its weights are missing"),
    "its beginning": (lambda data: data[:100], "is truncated or not a GGUF file"),
    "empty": (lambda data: b"", "is truncated or not a GGUF file"),
    "text": (lambda data: b"hello" * 9, "is truncated or not a GGUF file"),
    "an old version": (lambda data: data[:4] + b"\x01" + data[5:], r"begins with b'GGUF', version 1"),
    "no architecture": (without_architecture, "names no architecture"),
    "endless keys": (with_count(16, 2**63), "is truncated or not a GGUF file"),
    "endless tensors": (with_count(8, 2**63), "is truncated or not a GGUF file"),
    "an endless name": (with_count(24, 2**62), "is truncated or not a GGUF file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_gguf_file_is_one_line(file, name):
    spoil, words = BROKEN[name]
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(UserError, match=words) as caught:
        resolve_checkpoint(str(file))
    assert "\n" not in str(caught.value)


def test_one_part_of_several_is_told_apart(plain, tmp_path):
    path = write_gguf(plain, tmp_path / "a-00001-of-00003.gguf", metadata={"split.count": 3})
    with pytest.raises(UserError, match=r"is one of 3 parts of a model\. Join them first: llama-gguf-split --merge"):
        resolve_checkpoint(str(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.gguf", r"nowhere\.gguf does not exist\. Give a folder, a \.gguf file or a hub id"),
        ("models/nowhere.gguf", r"does not exist\. Give a folder, a \.gguf file or a hub id"),
        (__file__, r"is not a model\. Give a folder, a \.gguf file or a hub id"),
    ],
)
def test_a_file_that_is_no_model_is_one_line(name, words):
    with pytest.raises(UserError, match=words):
        resolve_checkpoint(name)


@pytest.fixture
def hub(file, tmp_path, monkeypatch) -> Path:
    """A cache of the hub in which a repository of GGUF files lies; return its folder."""
    folder = tmp_path / "hub" / "models--owner--tiny-GGUF"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    shutil.copy(file, snapshot)
    (snapshot / "config.json").write_text('{"model_type": "llama"}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return snapshot


def test_a_gguf_file_of_the_hub_is_known_by_commit_and_name(hub):
    name = "owner/tiny-GGUF:tiny-F32.gguf"
    found = resolve_checkpoint(name)
    assert (found.name, found.revision, found.gguf) == (name, COMMIT, hub / "tiny-F32.gguf")
    shutil.copy(hub / "tiny-F32.gguf", hub / "other.gguf")
    assert resolve_checkpoint("owner/tiny-GGUF:other.gguf").fingerprint != found.fingerprint
    assert default_run(load_suite("mini"), name).name == "mini-owner--tiny-GGUF--tiny-F32.gguf"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("owner/tiny-GGUF", r"no \*\.safetensors file.*Of GGUF files name one: OWNER/NAME:FILE\.gguf"),
        ("owner/tiny-GGUF:none.gguf", rf"owner/tiny-GGUF has no file none\.gguf at commit {COMMIT}"),
    ],
)
def test_a_repository_of_gguf_files_needs_the_name_of_one(hub, name, words):
    with pytest.raises(UserError, match=words):
        resolve_checkpoint(name)


def test_only_the_file_that_is_named_is_downloaded(monkeypatch, hub):
    asked = {}

    def snapshot(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    resolve_checkpoint("owner/tiny-GGUF:tiny-F32.gguf", "main")
    assert (asked["repository"], asked["revision"]) == ("owner/tiny-GGUF", "main")
    assert asked["allow_patterns"][0] == "tiny-F32.gguf"
    assert not [pattern for pattern in asked["allow_patterns"][1:] if "gguf" in pattern or "safetensors" in pattern]


def test_the_command_line_says_what_a_model_is():
    text = " ".join(steerboard("run", "--help").out.replace("│", " ").split())
    assert "OWNER/NAME:FILE.gguf" in text
    assert "auto, float32, bfloat16, float16" in text
