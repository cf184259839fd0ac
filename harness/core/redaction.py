"""Hide what signs in, such as the hub's token or the login in a URL, in text that is printed or stored."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

MASK = "***"

_SHORTEST = 8  # characters; a shorter value of a variable may be a word such as "false"
_VARIABLE = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|KEY)$")  # HF_TOKEN, AWS_SECRET_ACCESS_KEY
_TOKEN_FILE_BYTES = 4096

# Lengths are bounded, so that no text takes more than linear time. One slash: a URL that went through ``Path``.
_SCHEME = r"\b[a-z][a-z0-9+.-]{0,20}:/{1,3}"
_PATTERNS = (
    # The login of a URL. A password may hold a slash, then all up to the last @ belongs to it.
    (rf"({_SCHEME})(?:[^\s/:@'\"]{{0,200}}:[^\s'\"]{{0,500}}|[^\s/@'\"]{{1,500}})@", rf"\1{MASK}@"),
    # The query of a URL, or of the path that urllib3 puts into "with url: /path?query".
    (rf"((?:{_SCHEME}|url: ?/)[^\s?'\"<>]{{0,500}}\?)[^\s'\"<>),]+", rf"\1{MASK}"),
    (r"(authorization['\"]?\s?[:=]\s?['\"]?)(?:[a-z]+\s)?[^\s'\",}]+", rf"\1{MASK}"),
    (r"(\bbearer\s)[\w.~+/=-]{8,}", rf"\1{MASK}"),
    (
        r"((?<![a-z0-9])(?:token|secret|password|passwd|(?:api|access|secret)[-_]?key)(?:['\"]?\s?=|['\"]\s?:)\s?['\"]?)"
        r"[^\s'\"&,;)}\]]{4,}",
        rf"\1{MASK}",
    ),
    # Tokens by their form: of the hub, of GitHub, of AWS, of OpenAI.
    (
        r"\b(?:hf_|api_org_)[a-z0-9]{16,}|\b(?:gh[oprsu]|github_pat)_\w{20,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
        r"|\bsk-[\w-]{20,}",
        MASK,
    ),
)
_COMPILED = [(re.compile(pattern, re.IGNORECASE), to) for pattern, to in _PATTERNS]


def hide_secrets(text: str, known: Iterable[str] | None = None) -> str:
    """Return a text with ``***`` for logins and queries of URLs, authorization headers, tokens and ``known`` values.

    ``known``: by default the secrets that this process was given, see ``known_secrets``.
    """
    for secret in known_secrets(os.environ) if known is None else known:
        text = text.replace(secret, MASK)
    for pattern, to in _COMPILED:
        text = pattern.sub(to, text)
    return text


def known_secrets(environment: Mapping[str, str]) -> list[str]:
    """Return the values of variables such as HF_TOKEN, and the token that 'hf auth login' stored; longest first."""
    found = {value.strip() for name, value in environment.items() if _VARIABLE.search(name)}
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{base}/huggingface"
    found.add(_stored_token(environment.get("HF_TOKEN_PATH") or f"{home}/token"))
    return sorted((value for value in found if len(value) >= _SHORTEST), key=len, reverse=True)


@cache
def _stored_token(path: str) -> str:
    with suppress(OSError, RuntimeError, ValueError):  # RuntimeError: there is no home folder
        file = Path(path).expanduser()
        if file.is_file():
            with file.open("rb") as handle:
                return handle.read(_TOKEN_FILE_BYTES).decode("utf-8", "replace").strip()
    return ""


def command_line() -> list[str]:
    """Return the command of this process as it is recorded: without secrets."""
    return ["steerboard", *map(hide_secrets, sys.argv[1:])]
