"""lm-eval's model type ``steerboard``: a Hugging Face model whose requests are steered, each in its own way.

It is lm-eval's ``hf`` model with hooks. lm-eval batches as it always does; every row of a batch finds the
steering of its request by the model's input: its tokens, or its text where text is generated.
Importing this module registers the model type.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from typing_extensions import override

from harness.core.checkpoints import Checkpoint, resolve_checkpoint, why_not_loaded
from harness.core.devices import choose_device
from harness.core.errors import UserError, unknown
from harness.core.interventions import Steering
from harness.data.suite import DATE
from harness.engine.architectures import check_model
from harness.engine.chat import apply, chat_use
from harness.engine.hooks import SteeringHooks
from harness.engine.model import SteerableModel, find_decoder, find_layers
from harness.tracks.understanding.sources import Arguments, SteeringSource, open_source

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


Requests = list["Instance"]
SteeringOf = Callable[["Instance"], Steering | None]
"""The steering of a request; None for not steered."""

_OWN = [item.name for item in fields(Arguments) if item.name != "more"]
_HF = list(inspect.signature(HFLM.__init__).parameters)
_OTHER_WEIGHTS = ("peft", "delta", "autogptq", "gptqmodel", "gguf_file", "subfolder", "tp_plan")


@register_model("steerboard")
class SteeredLM(HFLM):  # type: ignore[misc]
    """lm-eval's ``hf`` model, steered by a steering file or by a method. Without steering it is ``hf``.

    ``steering``: a ``.safetensors`` file, the name of a method, or a function from a request to its steering.
    Other arguments: those of ``hf``, those of ``Arguments`` and the options of the method's Config.
    Raises ``UserError`` for a steering that does not exist or does not fit the model.
    """

    _rows: dict[Any, SteeredRow] | None = None
    _texts: Sequence[str] = ()
    _of_position: Callable[[int], Steering] | None = None
    _heaviest: Steering | None = None
    _detecting: Steering | None = None

    def __init__(
        self,
        pretrained: Any,
        steering: str | SteeringOf | None = None,
        tokenizer: Any = None,
        **more: Any,
    ) -> None:
        asked = _asked(pretrained, steering, more)
        steerable = pretrained if isinstance(pretrained, SteerableModel) else None
        more.setdefault("device", choose_device())
        trusted = bool(more.pop("trust_remote_code", False))  # only where it is asked for by name
        network = steerable.model if steerable else pretrained
        try:
            super().__init__(network, tokenizer=tokenizer, trust_remote_code=trusted, **more)
        except TypeError as error:
            name = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if name is None:
                raise
            known = [*_OWN, *(asked[0].known if asked else ()), *_HF[1:]]
            raise unknown("model argument", name[1], known) from None
        except ValueError as error:
            if trusted or "trust_remote_code" not in str(error):
                raise
            raise UserError(f"{pretrained} cannot be loaded: {why_not_loaded(error)}") from None
        self._steering_of: SteeringOf | None = steering if callable(steering) else None
        if asked:
            source, checkpoint = asked
            steerable = self._bound(source, checkpoint, trusted)
            self._steering_of = lambda request: source.steering_for(request.task_name)
        if self._steering_of is None:
            return
        if self.backend != "causal":
            raise UserError(f"steering needs a decoder-only model; this one is {self.config.model_type!r}.")
        if self.world_size > 1:
            raise UserError("steering runs in one process: start it without 'accelerate launch'.")
        decoder = find_decoder(self.model)
        self._hooks = steerable.hooks if steerable else SteeringHooks(decoder, find_layers(decoder))

    @classmethod
    def around(
        cls,
        model: Any,
        batch_size: int | str = 1,
        steering: SteeringOf | None = None,
        tokenizer: Any = None,
        **options: Any,
    ) -> SteeredLM:
        """Return the LM of a model that is loaded already: a ``SteerableModel``, or one of transformers.

        ``steering`` gives every request its steering; equal steering should be one object, since requests
        of different objects are never computed as one. ``tokenizer`` is needed for a model of transformers
        alone; ``options``: further arguments of ``hf``.
        """
        if isinstance(model, SteerableModel):
            tokenizer = tokenizer or model.tokenizer
        return cls(model, steering, tokenizer, batch_size=batch_size, **options)

    def _bound(self, source: SteeringSource, checkpoint: Checkpoint, trusted: bool) -> SteerableModel:
        """Bind a source to the loaded model; keep the settings that lm-eval's results depend on."""
        from transformers import AutoTokenizer

        generation = self.model.generation_config
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=trusted)
        model = SteerableModel(self.model, tokenizer)
        if self.backend == "causal":  # what is not is refused by that name
            check_model(model, checkpoint.name)
        self.model.generation_config = generation
        source.bind(model, checkpoint, str(self.model.dtype).removeprefix("torch."))
        return model

    @override
    def set_cache_hook(self, cache_hook: Any) -> None:
        """Refuse lm-eval's cache of answers, which knows requests by their text alone."""
        if self._steering_of is not None and cache_hook.dbdict is not None:
            raise UserError("--use_cache does not know about steering: answers would be mixed up. Leave it out.")
        super().set_cache_hook(cache_hook)

    @override
    def loglikelihood(self, requests: Requests, disable_tqdm: bool = False) -> Any:
        """As ``hf``, every request under its own steering."""
        return self._in_parts(requests, partial(super().loglikelihood, disable_tqdm=disable_tqdm), key=id)

    @override
    def loglikelihood_rolling(self, requests: Requests, disable_tqdm: bool = False) -> Any:
        """As ``hf``, every request under its own steering; those of one steering are batched together."""
        run = partial(super().loglikelihood_rolling, disable_tqdm=disable_tqdm)
        return self._in_parts(requests, run, key=lambda request: "")

    @override
    def generate_until(self, requests: Requests, disable_tqdm: bool = False) -> Any:
        """As ``hf``, every request under its own steering."""
        run = partial(super().generate_until, disable_tqdm=disable_tqdm)
        return self._in_parts(requests, run, key=lambda request: request.args[0])

    def _in_parts(self, requests: Requests, run: Callable[[Requests], Any], key: Callable[[Instance], Hashable]) -> Any:
        """Return the results of ``run``, in several parts where requests of one key are steered in different ways."""
        if self._steering_of is None:
            return run(requests)
        steerings = [nonzero(self._steering_of(request)) for request in requests]
        if not any(steering.interventions for steering in steerings):
            return run(requests)

        def run_part(members: list[int]) -> Any:
            own, some = [steerings[i] for i in members], [requests[i] for i in members]
            alike = all(steering is own[0] for steering in own)  # rolling windows are more than the requests
            state = {
                "_of_position": (lambda _: own[0]) if alike else own.__getitem__,
                "_heaviest": max(own, key=lambda steering: len(steering.interventions)),
                "_rows": {request.args[0]: SteeredRow(one, 0, 0) for request, one in zip(some, own, strict=True)},
            }
            with self._during(**state):
                return run(some)

        keys = [(key(request), id(steering)) for request, steering in zip(requests, steerings, strict=True)]
        return split_batch(incompatible(keys), run_part)

    @override
    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> Any:
        """As ``hf``, in several parts where equal tokens are steered in different ways: it merges them."""
        of = self._of_position
        if of is None:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        found = [self._row(of(i), *request[1:]) for i, request in enumerate(requests)]

        def run(members: list[int]) -> Any:
            some = [requests[i] for i in members]
            size = len(some) if override_bs else None
            with self._during(_rows=dict(found[i] for i in members)):
                return super(SteeredLM, self)._loglikelihood_tokens(some, disable_tqdm, size)

        return split_batch(incompatible([(tokens, row.kind) for tokens, row in found]), run)

    @override
    def _model_call(self, inps: Tensor, attn_mask: Any = None, labels: Any = None) -> Any:
        """Run the model on tokens [rows, longest], padded with 0 on the right, under each row's steering."""
        rows = self._rows_of(inps)
        if not any(row.steering.interventions for row in rows):
            return super()._model_call(inps, attn_mask, labels)
        lengths = torch.tensor([row.length for row in rows])
        mask = torch.arange(inps.shape[1])[None, :] < lengths[:, None]
        with self._hooks.steer([row.steering for row in rows], mask, [row.end for row in rows]):
            return super()._model_call(inps, attn_mask, labels)

    @override
    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """As ``hf``, but a template loses no text of a turn and reads no clock."""
        form: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
            **self.chat_template_args,
        }
        return apply(self.tokenizer, chat_use(self.tokenizer), chat_history, DATE, **form)

    @override
    def tok_batch_encode(self, strings: list[str], *args: Any, **options: Any) -> Any:
        """As ``hf``; the texts are remembered for the generation that follows."""
        self._texts = list(strings)
        return super().tok_batch_encode(strings, *args, **options)

    @override
    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Any:
        """Generate after prompts [rows, longest], padded on the left, under each row's steering."""
        known = self._rows or {}
        steerings = [known[text].steering for text in self._texts] if known else []
        if not any(steering.interventions for steering in steerings):
            return super()._model_generate(context, max_length, stop, **options)
        for name in ("num_beams", "num_return_sequences"):
            if options.get(name, 1) != 1:
                raise UserError(f"{name}={options[name]}: steered texts are written one per prompt; leave it out.")
        with self._hooks.steer(steerings, options["attention_mask"]):
            return super()._model_generate(context, max_length, stop, **options)

    @override
    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> Any:
        """As ``hf``; where requests are steered, so are the rows that are tried."""
        with self._during(_detecting=self._heaviest):
            return super()._detect_batch_size(requests, pos)

    @contextmanager
    def _during(self, **state: Any) -> Iterator[None]:
        """Set attributes while requests are passed on to ``hf``."""
        before = {name: getattr(self, name) for name in state}
        self.__dict__.update(state)
        try:
            yield
        finally:
            self.__dict__.update(before)

    def _row(self, steering: Steering, context: list[int], rest: list[int]) -> tuple[tuple[int, ...], SteeredRow]:
        """Return the model's input for a request, without zeros at its end, and how it is steered."""
        tokens = (context + rest)[-(self.max_length + 1) :]
        length = len(tokens) - 1  # the last token is only predicted
        end = len(tokens) - len(rest)
        if all(item.positions == "all" for item in steering.interventions):
            end = length  # where the context ends changes nothing, and hf may merge equal tokens
        return without_padding(tokens[:-1]), SteeredRow(steering, length, end)

    def _rows_of(self, inps: Tensor) -> list[SteeredRow]:
        """Return how the rows of a batch are steered."""
        if self._detecting is not None:
            return [SteeredRow(self._detecting, inps.shape[1], inps.shape[1])] * len(inps)
        if self._rows is None:
            return []
        return [self._rows[without_padding(tokens)] for tokens in inps.tolist()]


def _asked(pretrained: Any, steering: Any, more: dict[str, Any]) -> tuple[SteeringSource, Checkpoint] | None:
    """Return the source of the steering and the model's checkpoint; None without a file or a method.

    Removes from ``more``, the arguments, those that are not lm-eval's. Raises ``UserError`` for every error that
    can be seen before the weights are loaded.
    """
    own = {name: more.pop(name) for name in _OWN if name in more}
    if not isinstance(steering, str) or steering == "zero-shot":
        useless = next((name for name in ("layer", "strength") if name in own), None)
        if useless:
            raise UserError(f"{useless}={own[useless]} steers nothing by itself. Give steering=FILE_OR_METHOD.")
        return None
    others = {name: more.pop(name) for name in list(more) if name not in _HF}
    source = open_source(Arguments(steering, **own, more=others))
    more |= source.left
    for name in _OTHER_WEIGHTS:
        if more.get(name):
            raise UserError(
                f"{name}= changes the weights that a steering is fitted on. Merge them into a folder, and "
                "give that as pretrained=."
            )
    network = pretrained.model if isinstance(pretrained, SteerableModel) else pretrained
    path = network if isinstance(network, str) else network.name_or_path
    return source, resolve_checkpoint(path, more.get("revision"), plain=True)


UNSTEERED = Steering()


@dataclass(frozen=True)
class SteeredRow:
    """How one input of the model is steered: [length] tokens, the first ``end`` of them the context."""

    steering: Steering
    length: int
    end: int

    @property
    def kind(self) -> Hashable:
        """The key that rows of equal tokens must share to be computed as one."""
        return id(self.steering), self.length, self.end


def incompatible(items: Sequence[tuple[Hashable, Hashable]]) -> list[list[int]]:
    """Return the positions of (key, kind) in as few parts as it takes for a key to have one kind in each."""
    parts: list[tuple[list[int], dict[Hashable, Hashable]]] = []
    for position, (key, kind) in enumerate(items):
        for members, kinds in parts:
            if kinds.setdefault(key, kind) == kind:
                members.append(position)
                break
        else:
            parts.append(([position], {key: kind}))
    return [members for members, _ in parts]


def split_batch(parts: list[list[int]], run: Callable[[list[int]], list[Any]]) -> list[Any]:
    """Return the results of ``run`` for all parts, in the order of the positions."""
    found = {i: value for members in parts for i, value in zip(members, run(members), strict=True)}
    return [found[i] for i in range(len(found))]


def without_padding(tokens: list[int]) -> tuple[int, ...]:
    """Return tokens without the zeros at their end: these may be padding."""
    end = len(tokens)
    while end and tokens[end - 1] == 0:
        end -= 1
    return tuple(tokens[:end])


def nonzero(steering: Steering | None) -> Steering:
    """Return the steering, or the one empty steering where it changes nothing."""
    items = steering.interventions if steering else ()
    changes = any(item.raw_strength != 0 and item.vector.any() for item in items)
    return steering if steering and changes else UNSTEERED
