"""Requests as lm-eval makes them, and models that answer them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from lm_eval.api.instance import Instance

from harness.core.errors import UserError
from harness.tracks.understanding.lm import SteeredLM
from support.helpers import MINI

POCKET = MINI / "pocketlm"
TEXTS = ["ምግቡ በጣም ጥሩ ነበር።", "האוכל היה טעים מאוד.", "Write a review in Amharic language.", "a b"]
PAIRS = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in TEXTS]
CODES = ["am", "he", "de", "am"]
TASK = {code: f"steerboard_topic_{code}" for code in CODES}
AUTO = {"max_batch_size": 4, "max_length": 96}  # what batch_size=auto tries is soon done
SHORT = {"max_gen_toks": 6, "until": ["\n\n"]}
PLAIN = {"device": "cpu", "dtype": "float32"}
ENGINE = {"loglikelihood": PAIRS, "loglikelihood_rolling": [(t,) for t in TEXTS], "generate_until": TEXTS}


def asked(kind: str, arguments: Iterable[Any], codes: Iterable[str | None] = CODES) -> list[Instance]:
    """Return requests as lm-eval makes them, for tasks in some languages."""
    tasks = [f"steerboard_topic_{code}" if code else "hellaswag" for code in codes]
    wrapped = [(text, dict(SHORT)) for text in arguments] if kind == "generate_until" else list(arguments)
    return [
        Instance(kind, {}, argument, i, (task, i, 1))
        for i, (argument, task) in enumerate(zip(wrapped, tasks, strict=True))
    ]


def answers(lm: Any, kind: str, codes: Iterable[str | None] = CODES) -> list[Any]:
    return getattr(lm, kind)(asked(kind, ENGINE[kind], codes), disable_tqdm=True)


def same(one: list[Any], other: list[Any], tolerance: float = 1e-4) -> bool:
    """Say whether two lists of answers agree: numbers within a tolerance, texts exactly."""
    if isinstance(one[0], str):
        return one == other
    numbers = [[float(v[0] if isinstance(v, tuple) else v) for v in values] for values in (one, other)]
    return bool(np.allclose(*numbers, atol=tolerance, rtol=0))


def pocket(steering: Any = None, pretrained: str = str(POCKET), **more: Any) -> SteeredLM:
    return SteeredLM(pretrained, steering, **{**PLAIN, "batch_size": 4, **more})


def assert_refused(run: Callable[[], Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        run()
    assert re.search(words, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
