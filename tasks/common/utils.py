"""What the tasks are to lm-eval: multiple choice on the hub's rows, or on those of a local folder.

lm-eval imports this file by its path, from a checkout and from an installed steerboard alike, and it needs
nothing else of steerboard.
"""

import json
import re
from pathlib import Path

import datasets
from lm_eval.api.task import ConfigurableTask

try:
    from harness.core.errors import UserError
except ImportError:  # lm-eval alone
    UserError = ValueError

_NAME = re.compile(r"steerboard_(?P<task>.+)_(?P<language>[a-z]{2,3})")
_FILES = {"training_split": "train", "validation_split": "validation", "test_split": "test"}


class LabelledText(ConfigurableTask):
    """A labelled text and the question which label it has.

    With ``data`` in the metadata (``--metadata '{"data": "DIR"}'``) the rows are those of
    DIR/TASK/LANGUAGE/{train,validation,test}.jsonl, else the data set's that the task file names.
    """

    def __init__(self, config):
        config = {key: value for key, value in config.items() if key != "class"}
        if _folder(config.get("metadata")) is not None:  # its rows have the fields that we give them
            config |= {"process_docs": None, "doc_to_target": "label"}
        super().__init__(config=config)

    def download(self, dataset_kwargs=None, **kwargs):
        """Read the rows of all splits."""
        folder = _folder(self.config.metadata)
        if folder is None:
            super().download(dataset_kwargs, **kwargs)
            return
        name = _NAME.fullmatch(self.config.task or "")
        if name is None:
            raise UserError(f"task {self.config.task!r} is none of ours: it has no rows in {folder}.")
        place = folder / name["task"] / name["language"]
        splits = {split: self.config[split] for split in _FILES}
        self.dataset = datasets.DatasetDict(
            {
                called: _rows(place / f"{_FILES[split]}.jsonl", self.config.doc_to_choice)
                for split, called in splits.items()
                if called
            }
        )

    def process_results(self, doc, results):
        """Return the scores of one text; F1's part of them is (gold, predicted, number of labels)."""
        scores = super().process_results(doc, results)
        if "f1" in scores:
            gold, predicted = scores["f1"]
            scores["f1"] = (int(gold), int(predicted), len(self.doc_to_choice(doc)))
        return scores


def macro_f1(items):
    """Return the mean over all labels of F1; a label that neither occurs nor is predicted counts as 0."""
    from sklearn.metrics import f1_score

    gold, predicted, sizes = zip(*items, strict=True)
    labels = range(max(sizes))
    return float(f1_score(gold, predicted, labels=labels, average="macro", zero_division=0))


def _folder(metadata):
    folder = (metadata or {}).get("data")
    return None if folder is None else Path(str(folder))


def _rows(path, labels):
    """Return the rows of a file (id, text, label); refuse one without text or with another label."""
    if not path.is_file():
        raise UserError(f"missing data: {path} does not exist. Give data= the folder of TASK/LANGUAGE/*.jsonl.")
    rows, seen = [], set()
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append({"id": str(row.get("id", number)), "text": str(row["text"]), "label": row["label"]})
            rows[-1]["text"].encode()  # half a character raises a ValueError
        except (ValueError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: no JSON with text and label ({error!r:.80}).") from None
        if rows[-1]["id"] in seen:
            raise UserError(f"{path}, line {number}: the id {rows[-1]['id']!r:.80} is there twice.")
        seen.add(rows[-1]["id"])
        if row["label"] not in labels:
            raise UserError(f"{path}, line {number}: label {row['label']!r} is none of {', '.join(labels)}.")
    if not rows:
        raise UserError(f"missing data: {path} is empty.")
    return datasets.Dataset.from_list(rows)
