"""What several test modules need: running the command, and small folders made by hand."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import typer
from typer.main import get_command

from harness.core.records import CellKey, Entry, Generation, Manifest, MethodIdentity, ModelIdentity, Selection
from harness.core.store import Run
from harness.data.suite import load_suite
from harness.scoring.scorer import Rows, ScoringContext

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "tasks"
MINI = TASKS / "mini"


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def one_line(self) -> str:
        """Return the only line on stderr of a command that refused its input."""
        lines = self.err.splitlines()
        assert self.code == 2, f"exit code {self.code}, not 2:\n{self.out}\n{self.err}"
        assert len(lines) == 1, f"not one line on stderr:\n{self.err}"
        assert lines[0].startswith("steerboard: ")
        assert "Traceback" not in self.err
        return lines[0]


@functools.cache
def command_tree(app: typer.Typer) -> Any:
    """Return the commands of an app, made once a process: making them takes longer than many a command."""
    return get_command(app)


def steerboard(*arguments: object) -> Outcome:
    """Run the command in this process (quick); a traceback would reach the test as the exception."""
    from harness.cli.main import main

    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["steerboard", *map(str, arguments)]
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch("typer.main.get_command", command_tree),
        ):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        return Outcome(code, out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("main() always ends with SystemExit")


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment, offline and on one thread, with ``changes``."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200", **changes}


def command(*arguments: object, code: str = "") -> list[str]:
    """Return the command line of a second process; Python ``code`` runs before and after it."""
    if code:
        return [sys.executable, "-c", code, *map(str, arguments)]
    return [str(Path(sys.executable).with_name("steerboard")), *map(str, arguments)]


def second_process(
    *arguments: object, code: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Outcome:
    """Run the command in a process of its own and wait for it."""
    done = subprocess.run(
        command(*arguments, code=code),
        capture_output=True,
        text=True,
        env=dict(env) if env else environment(),
        cwd=cwd,
        timeout=600,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def start_and_stop(
    words: Iterable[object], folder: Path, finished: int, how: signal.Signals = signal.SIGKILL
) -> Outcome:
    """Start the command in a process of its own, and end it by a signal once so many cells are finished.

    ``folder`` holds the folder ``cells`` of what is run.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        with subprocess.Popen(command(*words), env=environment(), stdout=said, stderr=said) as process:
            while finished_cells(folder) < finished and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(how)
            process.wait(timeout=60)
        said.seek(0)
        return Outcome(process.returncode, "", said.read())


class Killed(BaseException):
    """Ends a command in this process, as no handler of errors may catch it."""


@contextlib.contextmanager
def killed_after(cells: int) -> Iterator[None]:
    """End the command in the block once it has written so many cells, before it does anything else."""
    write, written = Run.write_cell, []

    def write_cell(*given: Any) -> None:
        write(*given)
        written.append(given)
        if len(written) == cells:
            raise Killed

    with mock.patch.object(Run, "write_cell", write_cell), contextlib.suppress(Killed):
        yield
    assert len(written) == cells, "it was over before it was stopped"


def finished_cells(folder: Path) -> int:
    """Return how many cells of a run or of a sweep have ended."""
    return len(list(folder.glob("cells/*/status.json")))


def untimed_files(folder: Path) -> dict[str, bytes]:
    """Return every file of a run that must not depend on when and how it was run."""
    timed = ("status.json", "manifest.json", ".cost.json", ".lock")
    found = contents(folder).items()
    return {name: data for name, data in found if not name.endswith(timed) and not name.startswith("logs/")}


def python(code: str, *arguments: object, env: Mapping[str, str] | None = None) -> str:
    """Run Python code in a process of its own; return what it printed."""
    done = second_process(*arguments, code=code, env=env)
    assert done.code == 0, done.err
    return done.out


def jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows with plain means, so that a test does not lean on the code it tests."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return time of change and content of every file below ``folder``."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def names_below(folder: Path) -> list[str]:
    """Return the paths of all files below ``folder``, relative to it."""
    return list(snapshot(folder))


def forget_hash(cell: Path) -> None:
    """Make the status of a cell one of before its texts' hash was recorded."""
    path = cell / "status.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    body.pop("generations_sha256")
    path.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below ``folder``."""
    return {name: data for name, (_, data) in snapshot(folder).items()}


MODEL = ModelIdentity(name="toy", fingerprint="f00d", dtype="float32")


def method(name: str = "zero-shot", version: str = "1", **config: Any) -> MethodIdentity:
    """Return the identity of a made-up method."""
    return MethodIdentity(name=name, version=version, config=config)


def key(**changes: Any) -> CellKey:
    """Return the key of a made-up cell."""
    fields: dict[str, Any] = {
        "suite": "toy",
        "text_protocol": "p",
        "data": "d",
        "model": MODEL,
        "method": method(),
        "task": "sentiment",
        "language": "am",
        "setting": "zero-shot",
        "seed": 1,
        "texts_per_label": 2,
    }
    return CellKey(**{**fields, **changes})


def small_suite(folder: Path, model: Path) -> Path:
    """Write a suite of two languages with the mini suite's text, and very short texts of ``model``."""
    text = (TASKS / "mini.yaml").read_text(encoding="utf-8")
    size = load_suite("mini").tasks["sentiment"].texts_per_label
    for old, new in (
        (f"sentiment: {{texts_per_label: {size}}}", "sentiment: {texts_per_label: 9}"),
        ("name: mini", "name: small"),
        ("languages: [am, cs, da, de, he, id, jv, mt, sk, sl, su]", "languages: [am, he]"),
        ("max_new_tokens: 64, max_attempts: 5", "max_new_tokens: 4, max_attempts: 2"),
        ("subsamples: 20", "subsamples: 4"),
        ("data: mini/data", f"data: {MINI / 'data'}"),
        ("model: mini/pocketlm", f"model: {model}"),
    ):
        assert old in text
        text = text.replace(old, new)
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def byte_tokenizer(special: list[str]) -> Any:
    """Return a tokenizer of bytes: 256 tokens, after the special ones in the order given."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def toy_llm(folder: Path, seed: int = 0) -> Path:
    """Write a chat model with random weights: two layers of 16, a token per byte."""
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    special = ["<pad>", "<s>", "</s>"]
    PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer(special),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template="{{ bos_token }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
    ).save_pretrained(folder)
    LlamaForCausalLM(_toy_config(vocab_size=259)).save_pretrained(folder)
    return folder


def deep_llm(folder: Path, seed: int = 0) -> Path:
    """Write a random chat model that all methods can steer: four layers of 16, the tokens of pocketlm."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(MINI / "pocketlm")
    tokenizer.save_pretrained(folder)
    LlamaForCausalLM(_toy_config(vocab_size=len(tokenizer), num_hidden_layers=4)).save_pretrained(folder)
    return folder


def _toy_config(**changes: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **{"num_hidden_layers": 2, **changes},
    )


def toy_encoder(folder: Path, seed: int = 0) -> Path:
    """Write an encoder of the XLM-R type with random weights: one layer of 32, a token per byte."""
    import torch
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    torch.manual_seed(seed)
    tokenizer = byte_tokenizer(["<s>", "<pad>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        model_max_length=128,
    ).save_pretrained(folder)
    config = XLMRobertaConfig(
        vocab_size=259,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    XLMRobertaModel(config).save_pretrained(folder)
    return folder


def generations(texts: Mapping[str, Iterable[str]]) -> list[Generation]:
    """Return the texts of a cell, by label, as a reference would have written them."""
    return [
        Generation(index=i, label=label, text=text, finish_reason="reference")
        for label, group in texts.items()
        for i, text in enumerate(group)
    ]


def scoring_context(labels: list[str], test: Rows = (), **changes: Any) -> ScoringContext:
    """Return a made-up task in Amharic with human text for testing."""
    fields: dict[str, Any] = {
        "task": "sentiment",
        "language": "am",
        "labels": labels,
        "train": [],
        "validation": [],
        "test": test,
        "examples": "e",
        "vectors": [],
        "prompts": {},
        "demonstrations": {},
    }
    return ScoringContext(**{**fields, **changes})


def toy_manifest(**changes: Any) -> Manifest:
    """Return the manifest of a made-up run: one language, one task, one seed, one entry."""
    fields: dict[str, Any] = {
        "suite": {"name": "toy", "classifiers": ["tfidf"]},
        "suite_hash": "5u17e",
        "suite_source": "toy",
        "model": MODEL,
        "model_path": None,
        "data_source": "hub",
        "entries": [Entry(method=method(), model=MODEL, setting="zero-shot")],
        "selection": Selection(
            languages=["am"],
            tasks=["sentiment"],
            settings=["zero-shot"],
            seeds=[1],
            texts_per_label={"sentiment": 2},
        ),
    }
    return Manifest(**{**fields, **changes})
