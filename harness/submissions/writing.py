"""Writing ``submission.yaml``, with a comment above every field, and words without the machine's folders."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Any

import yaml

from harness.core.files import write_text
from harness.core.records import Manifest
from harness.submissions.card import Card
from harness.submissions.folder import CARD

_COMMENTS = {
    "schema": "Format: 'steerboard docs submission-schema'; 'submission check DIR' says what is missing.",
    "version": "Raise it whenever results that are published change.",
    "authors": "affiliation and orcid may be left out.",
    "contact": "An e-mail or https address.",
    "licence": "SPDX id of the licence of the texts: https://spdx.org/licenses",
    "paper": "arXiv id, DOI or https address; null for none.",
    "type": "code: method.py or entry_point; vectors: steering/*.safetensors; outputs: texts alone.",
    "config": "All options, defaults included, as in the keys of the cells.",
    "compute": "Hours of fitting and generating, on which device.",
    "tuned_on": "Which split layer and strength were chosen on: none, train or validation; never test.",
    "files": "SHA-256 of what comes with the texts.",
    "results": "Written by 'steerboard submission pack RUN --out DIR'.",
}


class _Dumper(yaml.SafeDumper):
    """Writes every value out, without references."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: nothing is referred to."""
        return True


def card_text(card: Card) -> str:
    """Return ``submission.yaml`` with comments."""
    body = card.model_dump(mode="json", by_alias=True, exclude_none=False)
    body["authors"] = [author.model_dump(exclude_none=True) for author in card.authors]
    lines = []
    for field, value in body.items():
        comment = _COMMENTS.get(field)
        lines += [f"# {comment}\n"] if comment else []
        lines.append(yaml.dump({field: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))
    return "".join(lines)


def write_card(folder: Path, card: Card) -> None:
    """Write ``submission.yaml`` atomically."""
    write_text(folder / CARD, card_text(card))


_ABSOLUTE = re.compile(r"(?<![\w/.~])~?/(?:[^\s/'\",;:()<>]+/)*([^\s/'\",;:()<>]+)/?")


def without_folders(text: str) -> str:
    """Return text with every absolute path reduced to its last part."""
    return _ABSOLUTE.sub(r"\1", text)


def name_alone(word: str) -> str:
    """Return a word of a command, a path in it (also after ``--x=`` and ``hf:``) reduced to its last part."""
    head, mark, tail = word.rpartition("=") if word.startswith("--") else word.rpartition(":")
    deep = tail.count("/") > 1 or tail.startswith(("/", "~", "./", "../")) or tail == ".."
    return f"{head}{mark}{PurePath(tail).name or 'folder'}" if deep else word


def anonymous(manifest: Manifest) -> Manifest:
    """Return a manifest that names no folder of the machine that ran."""
    source = manifest.data_source
    return manifest.model_copy(
        update={
            "suite_source": PurePath(manifest.suite_source).name,
            "model_path": manifest.model_path and PurePath(manifest.model_path).name,
            "data_source": source if source == "hub" else PurePath(source).name,
            "contrast": manifest.contrast and PurePath(manifest.contrast).name,
            "plugins": [PurePath(path).name for path in manifest.plugins],
            "commands": [[name_alone(word) for word in words] for words in manifest.commands],
        }
    )
