"""Helpers of the sentiment tasks for lm-eval (steerboard itself never imports this file)."""


def czech_binary(dataset):
    """Return the Czech comments as text and label, 0 for -1 and 1 for 1; neutral ones are dropped."""
    polar = dataset.filter(lambda row: row["sentiment_int"] != 0)
    return polar.map(lambda row: {"text": row["comment"], "label": 0 if row["sentiment_int"] < 0 else 1})
