"""Code that comes with a model is never run: no load asks for it, and none waits at a prompt for leave."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.helpers import ROOT, small_suite, steerboard

from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.core.errors import UserError
from harness.data.suite import load_suite

LOADERS = {
    "from_config",
    "from_pretrained",
    "hf_hub_model",
    "load_dataset",
    "load_dataset_builder",
    "pipeline",
    "HFLM",
    "SentenceTransformer",
    "SteeredLM.__init__",
}
HARMLESS = {"GenerationConfig"}  # JSON alone; it would keep the argument as a setting of its own
NAMED = {"harness/tracks/understanding/lm.py": "trusted"}  # lm-eval's own argument, where it is given by name
FOLDERS = ("harness", "leaderboard", "benchmarks", "tasks", ".github")


def loads(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that would run code of a checkpoint or a data set if they were asked to."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func)
        last = name.rpartition(".")[2]
        owner = name.rpartition(".")[0].rpartition(".")[2]
        if last in LOADERS and owner not in HARMLESS:
            yield call


def trust(call: ast.Call) -> str:
    """Return what a call says of foreign code, empty where it says nothing."""
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == "trust_remote_code"), "")


def test_every_load_of_the_program_says_that_foreign_code_is_not_run():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    found, silent = 0, []
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        for call in loads(ast.parse(path.read_text(encoding="utf-8"))):
            found += 1
            if trust(call) not in {"False", NAMED.get(name)}:
                silent.append(f"{name}:{call.lineno}: {ast.unparse(call):.80}")
    assert not silent, "\n".join(silent)
    assert found >= 12  # else the search has lost what it looks for


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("transformers.AutoModel.from_pretrained(x)", [""]),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", ["True"]),
        ("datasets.load_dataset(x, trust_remote_code=False)", ["False"]),
        ("partial(pipeline('x'), 1)", [""]),
        ("GenerationConfig.from_pretrained(x)", []),
    ],
)
def test_the_search_sees_what_a_call_says(code, said):
    assert [trust(call) for call in loads(ast.parse(code))] == said


@pytest.fixture
def trap(tmp_path: Path) -> Callable[..., Path]:
    """Return a model folder whose code leaves the file ``ran`` beside it where it is imported."""
    from safetensors.numpy import save_file

    def build(**config: object) -> Path:
        folder = tmp_path / "trap"
        folder.mkdir()
        code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        (folder / "own.py").write_text(code + "class Own: pass\n", encoding="utf-8")
        kinds = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
        own = {"model_type": "own", "auto_map": dict.fromkeys(kinds, "own.Own")}
        (folder / "config.json").write_text(json.dumps(own | config), encoding="utf-8")
        tokenizer = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        save_file({"w": np.zeros(1, dtype=np.float32)}, folder / "model.safetensors")
        return folder

    return build


@pytest.fixture(autouse=True)
def agreeing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answer every question with yes, and return the questions."""
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": (asked.append(question), "y")[1])
    return asked


def load_llm(checkpoint: Checkpoint) -> None:
    from harness.engine.model import load_model

    load_model(checkpoint, "float32", "cpu")


def load_sentence_encoder(checkpoint: Checkpoint) -> None:
    from harness.scoring.embeddings import Pooler
    from harness.scoring.encoders import Encoder

    Pooler(Encoder(checkpoint))


def load_classifier(checkpoint: Checkpoint) -> None:
    from harness.scoring.encoders import Encoder
    from harness.scoring.finetuning import EncoderTrainer

    EncoderTrainer(Encoder(checkpoint), load_suite("mini").classifier_protocol, packed=True)


def load_translator(checkpoint: Checkpoint) -> None:
    from harness.data.translators import Seq2Seq

    Seq2Seq(checkpoint, "cpu", "float32", 1)


def load_config(checkpoint: Checkpoint) -> None:
    from harness.engine.export import model_config

    model_config(str(checkpoint.folder))


def load_lm_eval(checkpoint: Checkpoint) -> None:
    pytest.importorskip("lm_eval")
    from harness.tracks.understanding.lm import SteeredLM

    SteeredLM(str(checkpoint.folder), device="cpu")


@pytest.mark.parametrize(
    "load", [load_llm, load_sentence_encoder, load_classifier, load_translator, load_config, load_lm_eval]
)
def test_a_model_with_code_of_its_own_is_one_line_and_nothing_is_asked(trap, agreeing, tmp_path, load):
    with pytest.raises(UserError, match=r"needs its own code \(auto_map in its config\)"):
        load(resolve_checkpoint(str(trap())))
    assert agreeing == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("load", [load_llm, load_sentence_encoder, load_classifier])
def test_a_known_model_whose_tokenizer_has_code_of_its_own_is_refused_too(trap, agreeing, tmp_path, load):
    with pytest.raises(UserError, match="needs its own code"):
        load(resolve_checkpoint(str(trap(model_type="llama"))))
    assert agreeing == []
    assert not (tmp_path / "ran").exists()


def test_the_command_ends_with_one_line_and_code_2(trap, agreeing, tmp_path):
    folder = trap()
    suite = small_suite(tmp_path, folder)
    done = steerboard("run", "--suite", suite, "--run", tmp_path / "run", "--methods", "zero-shot")
    assert done.code == 2
    assert "needs its own code" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert agreeing == []
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "run" / "manifest.json").exists()
