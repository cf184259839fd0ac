"""Formats of checkpoints: whatever a model is stored in, its texts are those of its weights."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from support.checkpoints import byte_model, gguf_name, write_adapter, write_gguf
from support.helpers import small_suite, steerboard
from support.writing import write
from torch import Tensor

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import UserError
from harness.engine.model import SteerableModel, load_model

TEXTS = ["שלום עולם", "ሰላም ለዓለም", "ab \n ba"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A model in safetensors. Leave it as it is."""
    return byte_model(tmp_path_factory.mktemp("models") / "plain")


def load(path: Path | str, dtype: str = "float32") -> SteerableModel:
    return load_model(resolve_checkpoint(str(path)), dtype, "cpu")


def logits(model: SteerableModel, texts: list[str] = TEXTS) -> Tensor:
    batch = model.encode(texts, special_tokens=False, side="right")
    with torch.no_grad():
        return model.model(**batch).logits[batch["attention_mask"].bool()]


def texts_of(model: SteerableModel) -> list[str]:
    return [generation.text for generation in write(model)]


# GGUF


@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_gguf_file_writes_the_texts_of_its_weights(plain, tmp_path, named):
    file = write_gguf(plain, tmp_path / "model.gguf")
    found, wanted = load(file if named == "file" else tmp_path), load(plain)
    assert found.token_ids(TEXTS) == wanted.token_ids(TEXTS)
    assert torch.equal(logits(found), logits(wanted))
    assert texts_of(found) == texts_of(wanted)
    assert found.context_length == 256
    assert found.model.generation_config.eos_token_id == [2]


def test_quantised_weights_are_unpacked(plain, tmp_path):
    from gguf import GGMLQuantizationType, quants
    from safetensors.torch import load_file

    model = load(write_gguf(plain, tmp_path / "model.gguf", "Q8_0")).model
    name = "model.layers.1.mlp.down_proj.weight"
    assert gguf_name(name) == "blk.1.ffn_down.weight"
    kind = GGMLQuantizationType.Q8_0
    stored = load_file(plain / "model.safetensors")[name].numpy()
    found = model.get_parameter(name)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(quants.dequantize(quants.quantize(stored, kind), kind)))
    assert 0 < (found - torch.from_numpy(stored)).abs().max() < 0.01  # 8 bits of numbers up to about 1


def test_the_precision_is_that_asked_for(plain, tmp_path):
    model = load(write_gguf(plain, tmp_path / "model.gguf", "F16"), "bfloat16").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_neither_the_working_directory_nor_the_folder_replaces_the_file_asked_for(plain, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    wanted = write_gguf(plain, tmp_path / "a" / "model.gguf")
    other = byte_model(tmp_path / "other", seed=1)
    write_gguf(other, tmp_path / "model.gguf")
    monkeypatch.chdir(tmp_path)  # transformers looks for the name here first
    shutil.copy(other / "config.json", wanted.parent / "config.json")
    (wanted.parent / "generation_config.json").write_text('{"eos_token_id": 99}')
    assert torch.equal(logits(load(Path("a"))), logits(load(plain)))


def test_a_tokenizer_beside_a_gguf_file_is_used(plain, tmp_path):
    write_gguf(plain, tmp_path / "model.gguf")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(plain / name, tmp_path / name)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "{{ messages }}"}))
    assert resolve_checkpoint(str(tmp_path)).has_chat_template
    model = load(tmp_path)
    assert model.tokenizer.chat_template == "{{ messages }}"
    assert torch.equal(logits(model), logits(load(plain)))


def test_a_chat_model_in_a_gguf_file_stops_at_the_end_of_a_turn(plain, tmp_path):
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    metadata = {"tokenizer.chat_template": template, "tokenizer.ggml.eot_token_id": 7}
    file = write_gguf(plain, tmp_path / "chat.gguf", metadata=metadata)
    assert resolve_checkpoint(str(file)).has_chat_template
    model = load(file)
    assert model.tokenizer.chat_template == template
    assert model.model.generation_config.eos_token_id == [2, 7]


def test_a_whole_run_of_a_gguf_file(plain, tmp_path):
    file = write_gguf(plain, tmp_path / "tiny-Q8.gguf", "Q8_0")
    suite = small_suite(tmp_path, plain)
    words = ("run", "--suite", suite, "--model", file, "--methods", "zero-shot", "--languages", "am")
    words += ("--tasks", "topic", "--seeds", "1", "--limit", "1")
    done = steerboard(*words, "--run", tmp_path / "run")
    assert done.code == 0, done.err
    assert "Converting" not in done.err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["model"]["name"] == "tiny-Q8"
    assert manifest["model"]["dtype"] == "float32"
    assert manifest["model_path"] == str(file)


def test_an_architecture_that_transformers_does_not_read_is_one_line(plain, tmp_path):
    file = write_gguf(plain, tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes().replace(b"llama", b"abacu"))
    with pytest.raises(UserError, match=r"model\.gguf cannot be loaded as a causal LM: .*architecture abacu") as caught:
        load(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["gguf", "lora"])
def test_vectors_are_exported_for_a_model_in_any_format(plain, tmp_path, lora, kind):
    from harness.engine.export import model_config

    write_adapter(tmp_path / "lora", str(plain))
    write_gguf(plain, tmp_path / "model.gguf")
    config = model_config(str(tmp_path / {"gguf": "model.gguf", "lora": "lora"}[kind]))
    assert (config.model_type, config.hidden_size, config.num_hidden_layers) == ("llama", 32, 2)


# LoRA


@pytest.fixture
def lora() -> None:
    pytest.importorskip("peft", reason="LoRA adapters need peft: pip install 'steerboard[lora]'")


def test_an_adapter_is_added_to_the_weights_of_its_base(plain, tmp_path, lora):
    from safetensors.torch import load_file

    weights = write_adapter(tmp_path / "adapter", str(plain))
    model = load(tmp_path / "adapter")
    before = load_file(plain / "model.safetensors")
    after = model.model.state_dict()
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn.q_proj"
        a, b = (weights[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        wanted = before[f"{name}.weight"] + 8 / 2 * b @ a  # lora_alpha / r
        assert torch.allclose(after[f"{name}.weight"], wanted, atol=1e-5)
    same = [name for name in before if "q_proj" not in name]
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in same)
    assert texts_of(model) != texts_of(load(plain))
    assert type(model.model).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize(
    "options",
    [{"use_rslora": True}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"trainable_token_indices": [5, 6]}],
    ids=lambda options: next(iter(options)),
)
def test_kinds_of_lora_compute_what_peft_computes(plain, tmp_path, lora, options):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(plain, trust_remote_code=False)
    adapted = get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], **options)).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter) if "magnitude" not in name else 0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    model = load(tmp_path / "adapter")
    batch = model.encode(TEXTS, special_tokens=False, side="right")
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        wanted = adapted(**batch).logits[real]
    assert torch.allclose(logits(model), wanted, atol=1e-4)
    assert not torch.allclose(logits(load(plain)), wanted, atol=1e-2)


def test_the_base_is_looked_for_from_the_adapter(plain, tmp_path, monkeypatch, lora):
    shutil.copytree(plain, tmp_path / "base")
    byte_model(tmp_path / "elsewhere" / "base", seed=1)
    write_adapter(tmp_path / "adapter", "../base")
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = resolve_checkpoint(str(tmp_path / "adapter"))
    assert found.base.fingerprint == resolve_checkpoint(str(plain)).fingerprint
    assert found.model_type == "llama"
    assert found.path == tmp_path / "adapter"


def test_an_adapter_of_a_gguf_file(plain, tmp_path, lora):
    write_gguf(plain, tmp_path / "base.gguf")
    write_adapter(tmp_path / "on-gguf", "../base.gguf")
    write_adapter(tmp_path / "on-plain", str(plain))
    assert torch.equal(logits(load(tmp_path / "on-gguf")), logits(load(tmp_path / "on-plain")))


def test_adapter_and_base_are_both_part_of_the_identity(plain, tmp_path, lora):
    other = byte_model(tmp_path / "other", seed=1)
    write_adapter(tmp_path / "a", str(plain))
    write_adapter(tmp_path / "b", str(plain), lora_alpha=16)
    write_adapter(tmp_path / "c", str(other))
    prints = {resolve_checkpoint(str(tmp_path / name)).fingerprint for name in "abc"}
    assert len({*prints, resolve_checkpoint(str(plain)).fingerprint}) == 4


@pytest.mark.parametrize("own", [True, False])
def test_the_chat_template_is_that_of_the_adapter_or_of_its_base(plain, tmp_path, lora, own):
    base = Path(shutil.copytree(plain, tmp_path / "base"))
    write_adapter(tmp_path / "adapter", "../base")
    if own:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(base / name, tmp_path / "adapter" / name)
        (tmp_path / "adapter" / "chat_template.jinja").write_text("own")
    (base / "chat_template.jinja").write_text("base")
    assert resolve_checkpoint(str(tmp_path / "adapter")).has_chat_template
    assert load(tmp_path / "adapter").tokenizer.chat_template == ("own" if own else "base")


def no_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def other_names(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name.replace("q_proj", "query"): w for name, w in weights.items()}, folder / "adapter_model.safetensors")


def one_short(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "adapter_model.safetensors")
    weights.popitem()
    save_file(weights, folder / "adapter_model.safetensors")


def change(**values: object):
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | values))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_weights, r"has no adapter_model\.safetensors.*may run code"),
        (other_names, r"does not fit its base .*query"),
        (one_short, r"does not fit its base .*lora_"),
        (change(peft_type="PREFIX_TUNING"), "PEFT adapter of type PREFIX_TUNING; only LORA"),
        (change(base_model_name_or_path=None), "names no base_model_name_or_path"),
        (change(base_model_name_or_path="../nowhere"), r"the base of the adapter .*nowhere"),
        (change(base_model_name_or_path="."), "is an adapter itself"),
        (change(target_modules=["nothing"]), "cannot be loaded as a causal LM: .*nothing"),
        (change(init_lora_weights="pissa"), "init_lora_weights = pissa"),
        (change(megatron_config={"a": 1}, megatron_core="trap"), "megatron_config"),
        (change(r=3), "cannot be loaded as a causal LM"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_one_line(plain, tmp_path, lora, monkeypatch, spoil, words):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    write_adapter(tmp_path / "adapter", str(plain))
    spoil(tmp_path / "adapter")
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path / "adapter")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_whole_weights_beside_an_adapter_are_refused(plain, tmp_path, lora):
    both = Path(shutil.copytree(plain, tmp_path / "both"))
    write_adapter(both, str(plain))
    with pytest.raises(UserError, match=r"holds a LoRA adapter and whole weights \(model\.safetensors\)"):
        resolve_checkpoint(str(both))


@pytest.mark.parametrize(("package", "extra"), [("peft", "lora"), ("accelerate", "gguf")])
def test_a_missing_package_is_named_before_anything_is_written(plain, tmp_path, monkeypatch, package, extra):
    write_adapter(tmp_path / "lora", str(plain))
    write_gguf(plain, tmp_path / "gguf.gguf")
    path = tmp_path / ("lora" if extra == "lora" else "gguf.gguf")
    monkeypatch.delitem(sys.modules, package, raising=False)
    find = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == package else find(name, *more))
    words = ("run", "--suite", small_suite(tmp_path, plain), "--model", path, "--run", tmp_path / "run")
    done = steerboard(*words, "--methods", "zero-shot")
    assert done.code == 2
    assert f"needs {package}, which is not installed: pip install 'steerboard[{extra}]'" in done.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["gguf", "lora"])
def test_an_encoder_is_loaded_from_safetensors_alone(plain, tmp_path, lora, kind):
    from harness.scoring.embeddings import open_embedding

    write_adapter(tmp_path / "lora", str(plain))
    (tmp_path / "gguf").mkdir()
    write_gguf(plain, tmp_path / "gguf" / "model.gguf")
    with pytest.raises(UserError, match=r"which is loaded as --model alone\. Give a folder with safetensors"):
        open_embedding(f"hf:{tmp_path / kind}")


# Shards and shared weights


def test_shards_load_and_a_missing_one_is_named(plain, tmp_path):
    model = load(plain)
    model.model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    model.tokenizer.save_pretrained(tmp_path / "shards")
    parts = sorted((tmp_path / "shards").glob("*.safetensors"))
    assert len(parts) > 2
    assert torch.equal(logits(load(tmp_path / "shards")), logits(model))
    parts[1].unlink()
    words = rf"index\.json: 1 of its {len(parts)} files are missing, such as {parts[1].name}"
    with pytest.raises(UserError, match=words):
        resolve_checkpoint(str(tmp_path / "shards"))


@pytest.mark.parametrize("gguf", [False, True])
def test_a_head_that_shares_the_weights_of_the_embeddings_is_not_missing(tmp_path, gguf):
    from safetensors import safe_open

    folder = byte_model(tmp_path / "tied", tie_word_embeddings=True)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    model = load(write_gguf(folder, tmp_path / "tied.gguf") if gguf else folder).model
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
