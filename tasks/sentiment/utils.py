"""Helpers of the sentiment tasks for lm-eval (steerboard itself never imports this file)."""


def czech_binary(dataset):
    """Drop the neutral rows of the Czech comments and map -1 / 1 to the indices 0 / 1."""
    polar = dataset.filter(lambda row: row["sentiment_int"] != 0)
    return polar.map(lambda row: {"sentiment_int": 0 if row["sentiment_int"] < 0 else 1})
