"""Documents, docstrings, messages and pages use the words of the field: old words do not come back.

A pattern and what to write instead; ``python tests/e2e/test_wording.py`` lists every place that uses an old word.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = {
    r"\bhang(s|ing)? on\b": "depends on",
    r"\bheld against\b": "compared with",
    r"\banew\b": "again",
    r"\bhanded in\b|\bhand(s|ing)? (it )?in\b": "submitted",
    r"(?<![Tt]here )\b(is|are) no (?!longer|more|less|fewer|better|worse|different)[a-z]": "is not a ...",
    r"\black(s|ing)?\b": "is missing, has no, without",
    r"\bcannot tell\b|\bcannot be told\b": "inconclusive, cannot be distinguished",
    r"\bre-?scored anew\b|\bre-scored\b": "rescored",
    r"\bin earnest\b|\bto and fro\b|\bpay no heed\b": "plain words",
    r"\bmanners\b": "side effects",
    r"\bwishes\b": "options",
    r"\b(roads?)\b": "type (of a submission)",
    r"\bthe field\b(?= shown)": "the entries",
    r"\bnot ours\b|\bNot ours\b": "not written by steerboard",
    r"\bask(s)? for nothing\b": "makes no network requests",
    r"\bFILL IN\b": "TODO",
    r"\bof one's own\b": "your own",
    r"\bduels?\b": "head-to-head",
    r"\bLook closer\b|\bDoes diversity pay\b": "Details, Diversity vs. macro-F1",
}
# Where an old word is right: a file format's old value that is still read, or a changelog.
ALLOWED = {
    *((path, "road") for path in ("harness/submissions/card.py", "harness/submissions/lockfile.py")),
    *((path, "road") for path in ("docs/upgrading.md", "docs/submitting.md")),
    *((path, "cannot tell") for path in ("harness/ranking/render.py", "harness/ranking/gate/report.py")),
    *((path, "cannot tell") for path in ("docs/upgrading.md", "docs/gate.md")),
    ("harness/methods/references.py", "anew"),  # the first line of a docstring, which packed submissions quote
    *((path, "re-scored") for path in ("harness/submissions/lockfile.py", "docs/upgrading.md")),
}


def texts() -> Iterator[tuple[str, int, str]]:
    """Yield (file, line, text) of every document, template, and every comment and string of the code."""
    documents = [
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("leaderboard/templates/*"),
        *ROOT.glob("leaderboard/assets/*.js"),
    ]
    for path in [
        *documents,
        *(p for p in ROOT.glob("*.md") if p.name != "CHANGELOG.md"),
        ROOT / "submissions/README.md",
    ]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield str(path.relative_to(ROOT)), number, line
    for path in [ROOT / "steerboard.py", *ROOT.glob("harness/**/*.py"), *ROOT.glob("leaderboard/**/*.py")]:
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for offset, line in enumerate(node.value.splitlines()):
                    yield name, node.lineno + offset, line
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                if token.type == tokenize.COMMENT:
                    yield name, token.start[0], token.string


def old_words() -> list[str]:
    """Return every use of an old word, with what to write instead."""
    found = []
    for name, number, line in texts():
        for pattern, instead in WORDS.items():
            hit = re.search(pattern, line)
            if hit and (name, hit[0]) not in ALLOWED:
                found.append(f"{name}:{number}: {hit[0]!r}, write: {instead}")
    return found


def test_old_words_do_not_come_back():
    assert old_words() == []


def test_an_old_word_is_found():
    patterns = "|".join(WORDS)
    assert re.search(patterns, "what the verdict hangs on")
    assert re.search(patterns, f"{'x'} is no folder")
    assert not re.search(patterns, "There is no such file; it is no longer needed and depends on the background.")


if __name__ == "__main__":
    print(*old_words(), sep="\n")
