"""Separations as files, good and hostile."""

from __future__ import annotations

import json
from typing import Any

from harness.core.records import MethodIdentity, ModelIdentity
from harness.tracks.separation import LAYERS as MOST_LAYERS
from harness.tracks.separation import (
    Separation,
)

TINY = ModelIdentity(name="tiny", fingerprint="f00d", dtype="float32")


def made(**changes: Any) -> Separation:
    fields: dict[str, Any] = {
        "method": MethodIdentity(name="clas", version="1", config={"alpha": -1.0}),
        "model": TINY,
        "task": "sentiment",
        "languages": ["am", "he"],
        "sentences": 40,
        "steered": [1],
        "before": [0.1, 0.2, 0.3],
        "after": [0.1, 0.4, 0.3],
        "before_by_language": {"am": [0.1, 0.2, 0.3], "he": [0.1, 0.2, 0.3]},
        "after_by_language": {"am": [0.1, 0.5, 0.6], "he": [0.1, 0.3, 0.0]},
    }
    return Separation.model_validate({**fields, **changes})


LONG = [0.1] * (MOST_LAYERS + 1)


HOSTILE: dict[str, dict[str, Any]] = {
    "NaN": {"before": [float("nan"), 0.2, 0.3]},
    "infinite": {"after": [float("inf"), 0.2, 0.3]},
    "beyond 1": {"after": [1.5, 0.2, 0.3]},
    "text for a number": {"after": ["x", 0.2, 0.3]},
    "null": {"after": [None, 0.2, 0.3]},
    "no list": {"before": 3},
    "no layer": {"before": [], "after": [], "before_by_language": {}, "after_by_language": {}},
    "too many layers": {
        "before": LONG,
        "after": LONG,
        "before_by_language": {"am": LONG, "he": LONG},
        "after_by_language": {"am": LONG, "he": LONG},
    },
    "too many languages": {"languages": [f"l{i}" for i in range(301)]},
    "one language": {"languages": ["am"]},
    "a language twice": {"languages": ["am", "am"]},
    "a language without values": {"languages": ["am", "da"]},
    "a layer less": {"after": [0.1, 0.4]},
    "a layer less in a language": {"after_by_language": {"am": [0.1], "he": [0.1, 0.3, 0.0]}},
    "a steered layer beyond": {"steered": [3]},
    "a steered layer below": {"steered": [-1]},
    "nothing steered": {"steered": []},
    "a number of a thousand digits": {"sentences": 10**999},
    "an endless name": {"task": "t" * 201},
    "an unknown key": {"more": 1},
    "a newer schema": {"schema": 2},
}


def body(**changes: Any) -> str:
    """Return the file of a separation with changes that no record would take."""
    return json.dumps({**made().to_json(), **changes})
