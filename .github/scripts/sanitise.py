"""Print a report from an untrusted run as text that is safe in a comment: python3 sanitise.py FILE.

A fixed header says first whose output it is: the code of a pull request wrote it and may say anything.
Tables, headings and emphasis stay. Links, images, mentions, references to issues, HTML but a few harmless
tags, control and direction characters do not; what is too long is cut. Needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path

LIMIT = 60_000  # characters; GitHub takes 65,536
READ = 4 * 10**6  # bytes of the file, at most
GAP = "&#8203;"  # a sign of no width
HEADER = """> [!CAUTION]
> **This is output of the pull request's own code, not a statement of the maintainers.** The proposed code
> wrote every line below and may say anything: no figure, badge or "fine" in it is a review. The log of the
> workflow shows how it came about.

"""
TAG = r"<(?!/?(?:details|summary|sub)>)"
ENTITY = r"&(?!(?:amp|lt|gt);)"


def sanitised(text: str) -> str:
    """Return the text as it may be posted."""
    text = "".join(sign if sign in "\n\t" or _shown(sign) else "\ufffd" for sign in text)
    text = text.replace(GAP, "")
    text = re.sub(TAG, "&lt;", re.sub(ENTITY, "&amp;", text))
    text = re.sub(r"(#|\bgh-)(?=\w)", rf"\1{GAP}", text, flags=re.IGNORECASE)
    text = text.replace("](", f"]{GAP}(").replace("][", f"]{GAP}[").replace("]:", f"]{GAP}:")
    text = text.replace("://", f":{GAP}//")
    text = re.sub(r"www\.", f"www{GAP}.", text, flags=re.IGNORECASE)
    text = text.replace("@", f"@{GAP}")
    if len(text) > LIMIT:
        text = text[:LIMIT].rpartition("\n")[0] + "\n\n(cut: the whole report is in the log)\n"
    return text


def _shown(sign: str) -> bool:
    """Say whether a character shows as it is: no control, format, private or unassigned one."""
    return not unicodedata.category(sign).startswith("C")


def main() -> None:
    """Print the file that is named."""
    with Path(sys.argv[1]).open("rb") as file:
        data = file.read(READ)
    sys.stdout.buffer.write((HEADER + sanitised(data.decode("utf-8", "replace"))).encode())


if __name__ == "__main__":
    main()
