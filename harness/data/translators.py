"""Translation models of transformers. Weights come from safetensors alone and no code of a checkpoint runs.

Three kinds: with language tokens (NLLB, M2M100, mBART-50), with a prefix token such as ``<2de>`` (MADLAD-400), and
one model per pair of languages (Marian).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from typing_extensions import override

from harness.core.checkpoints import DTYPES, Checkpoint, is_path, resolve_checkpoint, why_not_loaded
from harness.core.devices import choose_device, torch_dtype
from harness.core.errors import UserError, unknown
from harness.core.languages import code_forms
from harness.data.backtranslation import Translator
from harness.data.contrast import ContrastKind, ModelSource, check_code

MAX_LENGTH = 512
"""Tokens of a text and of a translation at most (arXiv 2606.18389)."""

_LOADING = (OSError, ValueError, KeyError, ImportError, RuntimeError, AssertionError, AttributeError)
_LANGUAGE_TOKEN = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}|[a-z]{2}_[A-Z]{2}")
_PREFIX_TOKEN = re.compile(r"<2([A-Za-z]{2,3}(?:_[A-Za-z]+)?)>")
_TARGET_TOKEN = re.compile(r">>([A-Za-z]{2,3}(?:_[A-Za-z]+)?)<<")
_NOT_SEARCH = {"transformers_version", "max_length", "max_new_tokens", "do_sample", "use_cache"}


class Seq2Seq:
    """One translation model and its tokenizer. The weights are loaded with the first translation."""

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str, batch_size: int) -> None:
        self.checkpoint, self.device, self.dtype, self.batch_size = checkpoint, device, dtype, batch_size
        transformers.utils.logging.disable_progress_bar()
        with self._in_words():
            self.config = transformers.AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        if not getattr(self.config, "is_encoder_decoder", False):
            raise UserError(
                f"{checkpoint.name} is not a translation model: {self.config.model_type!r} has no encoder "
                "and decoder. Give a seq2seq model such as facebook/nllb-200-distilled-600M."
            )
        with warnings.catch_warnings(), self._in_words():
            warnings.simplefilter("ignore")  # Marian: "Recommended: pip install sacremoses."
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
        self.vocabulary: dict[str, int] = self.tokenizer.get_vocab()

    @property
    def source(self) -> ModelSource:
        """The identity of the model and its search parameters."""
        search = {
            name: value
            for name, value in self.search.to_diff_dict().items()
            if name not in _NOT_SEARCH and not name.startswith(("_", "output_"))
        }
        fields = {name: getattr(self.checkpoint, name) for name in ("name", "revision", "fingerprint")}
        return ModelSource(**fields, search={"num_beams": self.search.num_beams or 1, **search})

    @cached_property
    def search(self) -> Any:
        """The generation config: as stored with the model (greedy or beams), but never sampled."""
        if (self.checkpoint.folder / "generation_config.json").is_file():
            with self._in_words():
                stored = transformers.GenerationConfig.from_pretrained(self.checkpoint.folder)
        else:
            stored = transformers.GenerationConfig.from_model_config(self.config)
        stored.update(do_sample=False, temperature=None, top_p=None, top_k=None)
        stored.update(max_length=self.max_length, max_new_tokens=None)
        return stored

    @property
    def max_length(self) -> int:
        """Tokens that fit: 512, or fewer where the model's positions end before."""
        positions = getattr(self.config, "max_position_embeddings", None) or MAX_LENGTH
        return int(min(MAX_LENGTH, positions, self.tokenizer.model_max_length))

    @cached_property
    def network(self) -> Any:
        """The model itself, on its device, ready to translate."""
        with self._in_words():
            network, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
                self.checkpoint.folder,
                dtype=torch_dtype(self.dtype),
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
        missing = sorted(report["missing_keys"])
        if missing:  # they would be random numbers
            raise UserError(
                f"{self.checkpoint.folder} is missing {len(missing)} weights, such as {missing[0]}. Get it again."
            )
        network.generation_config = self.search
        return network.to(self.device).eval()

    def translate(self, texts: list[str], forced_bos: int | None = None) -> list[str]:
        """Return the model's output for ``texts``, in order; batches hold texts of like length.

        ``forced_bos``: id of the token that every output begins with.
        """
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        results = dict.fromkeys(order, "")
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            outputs = self._translate_batch([texts[i] for i in batch], forced_bos)
            results.update(zip(batch, outputs, strict=True))
        return [results[i] for i in range(len(texts))]

    @torch.inference_mode()
    def _translate_batch(self, texts: list[str], forced_bos: int | None) -> list[str]:
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        inputs = {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}
        forced = {} if forced_bos is None else {"forced_bos_token_id": forced_bos}
        try:
            tokens = self.network.generate(**inputs, **forced)
        except torch.OutOfMemoryError:
            raise UserError(
                f"a batch of {len(texts)} texts does not fit into the memory of {self.device}. Run the "
                "same command with a smaller --batch-size; it resumes where it stopped."
            ) from None
        # Not every tokenizer counts its language tokens among the special ones.
        rows = [[token for token in row if token != forced_bos] for row in tokens.tolist()]
        decoded: list[str] = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [text.strip() for text in decoded]

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn what transformers says of a checkpoint into one line."""
        try:
            yield
        except _LOADING as error:
            words = why_not_loaded(error)
            if "sentencepiece" in str(error).lower():
                words = "its tokenizer needs a package that is not there: pip install sentencepiece"
            raise UserError(f"{self.checkpoint.name} cannot be loaded as a translation model: {words}") from None


class SingleModelTranslator(Translator):
    """One model for all languages, by a token per language (``codes``: code -> token).

    ``language-tokens``: the tokenizer puts in the source's, the target's comes out first. ``prefix-tokens``: the
    target's stands in front of the text, such as ``<2de>``.
    """

    def __init__(self, model: Seq2Seq, kind: ContrastKind, codes: dict[str, str]) -> None:
        self.model, self.kind, self.codes = model, kind, codes
        self.name, self.dtype, self.max_length = model.checkpoint.name, model.dtype, model.max_length

    @override
    def code(self, language: str) -> str:
        forms = code_forms(language)
        regional = [c for form in forms for c in sorted(self.codes) if re.fullmatch(rf"{form}_[A-Z]{{2}}", c)]
        for form in [*forms, *regional]:  # mBART-50 knows de as de_DE
            if form in self.codes:
                return form
        raise unknown("language", language, self.codes, f"These are the codes of {self.name}.")

    @override
    def sources(self, path: Sequence[str]) -> list[ModelSource]:
        return [self.model.source]

    @override
    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        token = self.codes[target]
        if self.kind == "prefix-tokens":
            return self.model.translate([f"{token} {text}" for text in texts])
        self.model.tokenizer.src_lang = source
        return self.model.translate(texts, self.model.tokenizer.convert_tokens_to_ids(token))


class PairTranslator(Translator):
    """One model per hop, named by a template with ``{src}`` and ``{tgt}``; one is loaded at a time."""

    kind = "pair-models"
    max_length = MAX_LENGTH

    def __init__(self, template: str, revision: str | None, device: str, dtype: str, batch_size: int) -> None:
        self.name = Path(template).name if is_path(template) else template
        self.dtype, self._template, self._revision = dtype, template, revision
        self._load = partial(Seq2Seq, device=device, dtype=dtype, batch_size=batch_size)
        self._models: dict[tuple[str, str], Seq2Seq] = {}

    @override
    def code(self, language: str) -> str:  # it becomes a part of the model's name
        return check_code(language, "--languages or --pivots:")

    @override
    def sources(self, path: Sequence[str]) -> list[ModelSource]:
        return [self._model(*hop).source for hop in dict.fromkeys(pairwise(path))]

    @override
    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        model = self._model(source, target)
        for other in self._models.values():
            if other is not model:
                vars(other).pop("network", None)  # frees the weights; its next translation loads them again
        prefix = self._target_token(model, target)
        return model.translate([f"{prefix} {text}" for text in texts] if prefix else texts)

    def _model(self, source: str, target: str) -> Seq2Seq:
        hop = (source, target)
        if hop not in self._models:
            name = self._template.replace("{src}", source).replace("{tgt}", target)
            model = self._load(_resolve(name, self._revision))
            self._target_token(model, target)
            self._models[hop] = model
        return self._models[hop]

    def _target_token(self, model: Seq2Seq, target: str) -> str | None:
        """Return the token that chooses among a model's target languages, None where it has one."""
        tokens = _codes(model, _TARGET_TOKEN)
        if not tokens:
            return None
        for form in code_forms(target):
            if form in tokens:
                return tokens[form]
        raise unknown("language", target, tokens, f"These are the target languages of {model.checkpoint.name}.")


def open_translator(
    name: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = 64,
) -> Translator:
    """Return the translator of a folder, a hub id, a template with {src} and {tgt}, or ``noise``.

    Raises ``UserError`` for a model of another kind.
    """
    if name == "noise":
        return Translator()
    device = choose_device(device)
    on_cpu = torch.device(device).type == "cpu"
    dtype = None if dtype == "auto" else dtype
    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, ["auto", *DTYPES])
    if on_cpu and dtype not in {None, "float32"}:
        raise UserError(f"--dtype {dtype} is for a GPU; on the CPU leave it out (float32).")
    if "{src}" in name or "{tgt}" in name:
        if not ("{src}" in name and "{tgt}" in name):
            raise UserError(f"--translator {name!r} needs both {{src}} and {{tgt}}.")
        return PairTranslator(name, revision, device, dtype or ("float32" if on_cpu else "float16"), batch_size)
    checkpoint = _resolve(name, revision)
    stored = "float32" if on_cpu else checkpoint.stored_dtype or "bfloat16"
    model = Seq2Seq(checkpoint, device, dtype or stored, batch_size)
    takes_source = isinstance(getattr(type(model.tokenizer), "src_lang", None), property)
    own = getattr(model.tokenizer, "lang_code_to_token", None)  # M2M100: am -> __am__
    tokens = dict(own) if own else _codes(model, _LANGUAGE_TOKEN)
    if takes_source and tokens:
        return SingleModelTranslator(model, "language-tokens", tokens)
    if prefixes := _codes(model, _PREFIX_TOKEN):
        token = next(iter(prefixes.values()))
        if model.vocabulary[token] not in model.tokenizer(f"{token} a")["input_ids"]:
            raise UserError(f"the tokenizer of {checkpoint.name} splits its language tokens. Get it again.")
        return SingleModelTranslator(model, "prefix-tokens", prefixes)
    raise UserError(
        f"--translator {name}: a {model.config.model_type!r} model that has neither language tokens "
        "(NLLB, M2M100, mBART-50) nor prefixes such as <2de> (MADLAD-400). For one model per pair of "
        "languages give a template, such as Helsinki-NLP/opus-mt-{src}-{tgt}."
    )


def _codes(model: Seq2Seq, pattern: re.Pattern[str]) -> dict[str, str]:
    """Return code -> token for all tokens of the vocabulary that a pattern matches as a whole."""
    matches = filter(None, map(pattern.fullmatch, sorted(model.vocabulary)))
    return {match[pattern.groups]: match[0] for match in matches}


def _resolve(name: str, revision: str | None) -> Checkpoint:
    try:
        return resolve_checkpoint(name, revision, plain=True)
    except UserError as error:
        if "no *.safetensors" not in str(error) or revision or Path(name).is_dir():
            raise
        raise UserError(
            f"{name} has no weights in safetensors at its main revision, and other formats are not "
            "loaded, since they may run code. Give --revision refs/pr/N, a pull request of its hub page "
            "that adds model.safetensors, or a folder with converted weights."
        ) from None
