"""What the tests of the engine share: tiny models of many families, a tokenizer, text made by hand.

The models have random weights and are built here from their configs, so nothing is downloaded and a
family costs milliseconds. Torch is imported only by the tests that ask for a model.
"""

from __future__ import annotations

import os
import textwrap

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by imports; two threads would wait for each other
os.environ.pop("COLUMNS", None)  # what pytest's own workers say of a terminal that is not there

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
from support.plugin_files import METHOD

from harness.core.errors import UserError
from harness.data.corpus import Corpus
from harness.data.sources import DataSource, Example, Sentence
from harness.data.suite import Split, Suite, Task, load_suite

if TYPE_CHECKING:
    from harness.core.interventions import Intervention, Steering
    from harness.engine.model import SteerableModel
    from harness.methods.contract import SteeringMethod
    from harness.runner.fit import Fitter

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]
HIDDEN, LAYERS, NEURONS = 16, 3, 24
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "<|assistant|>{{ m['content'] }}{{ eos_token }}{% else %}<|user|>{{ m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SENTENCES = [
    "Write a review with positive sentiment in Amharic language.",
    "ምግቡ በጣም ጥሩ ነበር።",
    "האוכל היה טעים מאוד.",
    "Output only the text and nothing else.",
    "a b",
]
WIDE = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
GATED = {**WIDE, "intermediate_size": NEURONS, "num_key_value_heads": 2, "max_position_embeddings": 256}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "gemma2": {**GATED, "head_dim": 4, "sliding_window": 8},
    "gemma3_text": {
        **GATED,
        "head_dim": 4,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen2": GATED,
    "qwen3": {**GATED, "head_dim": 4},
    "mistral": {**GATED, "sliding_window": 8},
    "phi3": GATED,
    "gpt2": {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 256},
    "gpt_neox": {**WIDE, "intermediate_size": 24, "max_position_embeddings": 256},
    "bloom": {"hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": 4},  # returns tuples, as falcon does
    "falcon": WIDE,
}
GATED_FAMILIES = [family for family, config in FAMILIES.items() if "num_key_value_heads" in config]
MIXTURES: dict[str, dict[str, Any]] = {  # of experts: they take vectors, and refuse neurons
    "mixtral": {**GATED, "num_local_experts": 2, "num_experts_per_tok": 1},
    "qwen3_moe": {
        **GATED,
        "head_dim": 4,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 8,
        "mlp_only_layers": [0],
    },
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring files with slow tests to the front: workers take them in this order, a long one not last."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests, and the processes that they start, away from the user's cache directory."""
    with mock.patch.dict(os.environ, {"STEERBOARD_CACHE": str(tmp_path_factory.mktemp("cache"))}):
        yield


@pytest.fixture(scope="session", autouse=True)
def unflushed() -> Iterator[None]:
    """Ask the disk for no flush: nobody cuts the power here; test_files looks that it is asked."""
    with mock.patch("os.fsync", lambda handle: None):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with real text and larger stand-in models."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"NOT CHECKED: no folder {folder.name!r} beside the checkout, so no real text or model")
    return folder


@pytest.fixture(scope="session")
def new_tokenizer() -> Callable[..., Any]:
    """Train a byte-level BPE tokenizer on a handful of sentences; equal calls give equal tokenizers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    def build(chat_template: str | None = TEMPLATE) -> Any:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(SENTENCES, trainer)
        bos = [("<s>", 1)]
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=bos)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            extra_special_tokens=special[3:],
            chat_template=chat_template,
        )

    return build


@pytest.fixture(scope="session")
def new_network() -> Callable[..., Any]:
    """Build a random-weight causal LM of a family; equal calls give equal weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def build(family: str, seed: int = 0, **changes: Any) -> Any:
        torch.manual_seed(seed)
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
        shape = FAMILIES.get(family) or MIXTURES[family]
        config = AutoConfig.for_model(family, vocab_size=300, **special, **{**shape, **changes})
        return AutoModelForCausalLM.from_config(config).eval()

    return build


@pytest.fixture(scope="session")
def new_model(new_network: Callable[..., Any], new_tokenizer: Callable[..., Any]) -> Callable[..., SteerableModel]:
    """Build a steerable tiny model that a test may change as it likes."""
    from harness.engine.model import SteerableModel

    def build(family: str = "llama", **changes: Any) -> SteerableModel:
        return SteerableModel(new_network(family, **changes), new_tokenizer())

    return build


@pytest.fixture(scope="session")
def tiny_models(new_model: Callable[..., SteerableModel]) -> dict[str, SteerableModel]:
    """One steerable tiny model of every family. Leave them as they are."""
    return {family: new_model(family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def each_model(request: pytest.FixtureRequest, tiny_models: dict[str, SteerableModel]) -> SteerableModel:
    """The tiny models, one after the other."""
    return tiny_models[request.param]


@pytest.fixture(scope="session")
def direction() -> Any:
    """A vector of the tiny models' hidden size, with norm about 4."""
    return np.random.default_rng(5).normal(size=HIDDEN).astype(np.float32)


@pytest.fixture(scope="session")
def steer(direction: Any) -> Callable[..., Steering]:
    """Return the steering that adds ``direction`` at layer 1, or what the test says instead."""
    from harness.core.interventions import Intervention, Steering

    def build(**changes: Any) -> Steering:
        fields = {
            "site": "layer_output",
            "layer": 1,
            "operation": "add",
            "vector": direction,
            "strength": 2.0,
            "unit": "raw",
            "residual_norm": 1.0,
            "positions": "all",
        }
        return Steering((Intervention(**{**fields, **changes}),))

    return build


@pytest.fixture(scope="session")
def gains() -> Any:
    """A gain per neuron of the tiny models' gated MLPs; every third neuron is left as it is."""
    drawn = np.random.default_rng(7).normal(size=NEURONS).astype(np.float32)
    drawn[::3] = 0.0
    return drawn


@pytest.fixture(scope="session")
def scale(steer: Callable[..., Steering], gains: Any) -> Callable[..., Steering]:
    """Return the steering that scales the neurons of layer 1 by ``gains``, or what the test says instead."""
    neurons = {"site": "mlp_neurons", "operation": "scale", "vector": gains, "strength": -1.5}
    return lambda **changes: steer(**{**neurons, **changes})


class MemoryData(DataSource):
    """Text that a test writes down: by (task, language, split), by language, by (system, language)."""

    description = "memory"

    def __init__(
        self,
        parallel: dict[str, list[Sentence]],
        rows: dict[tuple[str, str, Split], list[Example]] | None = None,
        degraded: dict[tuple[str, str], list[Sentence]] | None = None,
    ) -> None:
        self.revisions = {}
        self._parallel, self._rows, self._degraded = parallel, rows or {}, degraded or {}

    def rows(self, task: Task, split: Split) -> list[Example]:
        return self._rows.get((task.name, task.language, split), [])

    def parallel(self, language: str) -> list[Sentence]:
        if language not in self._parallel:
            raise UserError(f"no parallel text of {language!r}")
        return self._parallel[language]

    def degraded(self, system: str, language: str) -> list[Sentence] | None:
        return self._degraded.get((system, language))

    def fingerprint(self, task: Task, splits: Sequence[Split]) -> str:
        return "memory"

    def vector_fingerprint(self, languages: Sequence[str], systems: Sequence[str]) -> str:
        return "memory"


@pytest.fixture(scope="session")
def mini() -> Suite:
    """The suite that ships with the package."""
    return load_suite("mini")


@pytest.fixture(scope="session")
def pocketlm(mini: Suite) -> SteerableModel:
    """The mini suite's own model, which writes Amharic and Hebrew. Leave it as it is."""
    from harness.core.checkpoints import resolve_checkpoint
    from harness.engine.model import load_model

    folder = mini.folder("model")
    assert folder is not None and folder.is_dir(), "the mini suite ships a model"
    return load_model(resolve_checkpoint(str(folder)), "float32", "cpu")


@pytest.fixture(scope="session")
def small_suite(mini: Suite) -> Suite:
    """The mini suite in Amharic and Hebrew alone; English is the reference language."""
    return mini.model_copy(update={"languages": ["am", "he"]})


@pytest.fixture
def corpus_of(small_suite: Suite) -> Callable[..., Corpus]:
    """Return the corpus of text that the test writes down (see ``MemoryData``)."""

    def build(*data: Any, suite: Suite = small_suite, **more: Any) -> Corpus:
        return Corpus(suite, MemoryData(*data, **more))

    return build


@pytest.fixture
def new_fitter(tmp_path: Path) -> Callable[..., Fitter]:
    """Return what fits methods on a model and a corpus, with the run folder of the test."""
    from harness.core.records import ModelIdentity
    from harness.core.store import Run
    from harness.runner.fit import Fitter
    from harness.runner.prepare import RunPlan

    def build(model: SteerableModel, corpus: Corpus, folder: str = "run") -> Fitter:
        identity = ModelIdentity(name="tiny", fingerprint="f00d", dtype="float32")
        run, cache = Run(tmp_path / folder), tmp_path / "activations"  # of one test: its models share an identity
        prepared = RunPlan(run, corpus.suite, corpus, None, {}, [], [], identity, cache=cache)
        return Fitter(prepared, model)

    return build


def fit(fitter: Fitter, method: SteeringMethod, language: str = "am") -> Steering:
    """Return the steering of a method for the sentiment task in a language, with its file's header."""
    from harness.core.cells import Cell
    from harness.core.records import CellKey

    data = fitter.plan.corpus.fingerprint("sentiment", language)
    key = CellKey(
        suite="small",
        text_protocol="p",
        data=data,
        model=fitter.plan.model,
        method=method.identity,
        task="sentiment",
        language=language,
        setting="zero-shot",
        seed=1,
        texts_per_label=2,
    )
    return fitter.steering(Cell(key), method)[1]


@pytest.fixture
def stored(tmp_path) -> Callable[..., Path]:
    """Write a steering file; by default of three vectors, two of them at one layer."""

    from support.steering_files import THREE

    from harness.core.interventions import Steering, save_steering

    def write(*items: Intervention, name: str = "steering", **provenance: Any) -> Path:
        path = tmp_path / f"{name}.safetensors"
        save_steering(path, Steering(items or THREE, provenance))
        return path

    return write


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    """Write a plug-in file."""

    def write(body: str = METHOD, name: str = "method.py") -> Path:
        (tmp_path / name).write_text(textwrap.dedent(body), encoding="utf-8")
        return tmp_path / name

    return write
