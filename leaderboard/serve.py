"""Serving a board while its runs grow, to this machine alone: it is rebuilt on change, and open pages reload.

Only what is sent is changed, never a file: HTML gets a script that waits for the next build, and its content
security policy one more script, known by its hash, and one more address to ask.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import html
import mimetypes
import re
import secrets
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from watchfiles import Change
from watchfiles import watch as watch_files

from harness.core.errors import UserError

HOST = "127.0.0.1"
EVENTS = "/-/events"
"""The address of the stream that says when there is a new build."""

_OWN_HOST = re.compile(r"(localhost|127\.0\.0\.1)(:\d{1,5})?", re.IGNORECASE)
_META = re.compile(rb"<meta[^>]*http-equiv=[\"']?content-security-policy[^>]*>", re.IGNORECASE)
_CONTENT = re.compile(r"""(content=)(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_SCRIPT = """\
new EventSource("%s").onmessage = (build) => { if (build.data !== "%s") location.reload(); };"""
_TYPES = {".parquet": "application/vnd.apache.parquet", ".bib": "text/x-bibtex", ".tex": "text/x-tex"}
_KNOWN = mimetypes.MimeTypes()  # what Python knows, not what this machine adds
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PING = 15.0  # seconds between signs of life on a stream; a reader that is gone is noticed by them
_QUIET, _AT_MOST, _LOOK = 300, 2000, 250  # ms: without a change before a build, of waiting for that, per look
_POLL = 2000  # ms between looks where the system cannot report changes
_REST = 60.0  # seconds at most between two builds, which otherwise rest as long as they took


def serve(
    build: Callable[[], Path],
    watch: Sequence[Path],
    port: int,
    echo: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Build, serve the site to this machine, rebuild when a file below ``watch`` changes; Ctrl-C ends it.

    ``build`` returns the folder of the site, or a page in it. ``port``: 0 takes a free one. Raises
    ``UserError`` for a port that cannot be had, a missing folder and a first build that fails; one that fails
    later is reported by ``echo``, and the pages stay as they were. ``stop`` ends it, too.
    """
    stop = stop or threading.Event()
    for path in watch:
        if not path.exists():
            raise UserError(f"{path} does not exist. Give the folder that 'steerboard run --run DIR' made.")
    with _open(port) as server:
        try:
            for _ in _changes(watch, server, stop):
                took = _rebuild(build, server, echo)
                if not server.running:
                    server.run()
                    echo(f"serving http://{HOST}:{server.server_port}/, rebuilt on change; Ctrl-C ends it")
                stop.wait(min(took, _REST))
        except KeyboardInterrupt:
            pass
        finally:
            server.end()


class _Server(ThreadingHTTPServer):
    """Serves a folder on this machine's own address, and a ``token`` that changes with every build.

    A thread per request, none of which holds up the end.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.folder: Path | None = None
        self.builds = 0
        self.running = self.closed = False
        self._start = secrets.token_hex(4)  # of this server: pages of an earlier one reload
        self._changed = threading.Condition()
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking for the machine's name, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def run(self) -> None:
        """Answer requests in a thread of its own."""
        self.running = True
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    def end(self) -> None:
        """Stop answering; open streams end."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        if self.running:
            self.shutdown()

    @property
    def token(self) -> str:
        """The name of the newest build."""
        return f"{self._start}-{self.builds}"

    def publish(self, built: Path) -> None:
        """Serve what was built, and wake all who wait for it."""
        with self._changed:
            self.folder = (built if built.is_dir() else built.parent).resolve()
            self.builds += 1
            self._changed.notify_all()

    def wait(self, seen: str) -> str | None:
        """Return the newest build's token after a change or some seconds; None when all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self.token != seen, _PING)
            return None if self.closed else self.token

    def find(self, address: str) -> Path | None:
        """Return the file or folder of an address; None where it is hidden, missing or outside."""
        parts = [part for part in unquote(address).split("/") if part not in {"", "."}]
        if self.folder is None or any(part.startswith(".") or "\0" in part for part in parts):
            return None
        try:
            path = self.folder.joinpath(*parts).resolve(strict=True)
        except (OSError, RuntimeError):  # missing, too long, a circle of links
            return None
        return path if path.is_relative_to(self.folder) else None


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with the files of the site, and no others."""

    server: _Server
    timeout = 60

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def version_string(self) -> str:
        return "steerboard"

    def _answer(self, body: bool) -> None:
        hosts = self.headers.get_all("Host", [])
        address = urlsplit("//x/" + self.path.lstrip("/")).path
        folder = self.server.find(address)
        if len(hosts) != 1 or not _OWN_HOST.fullmatch(hosts[0].strip()):  # a foreign name that leads here
            self._refuse(HTTPStatus.FORBIDDEN, "This board is served to localhost alone.", body)
        elif address == EVENTS and body:
            self._stream()
        elif folder is not None and folder.is_dir() and not address.endswith("/"):
            name = unquote(address.rpartition("/")[2])
            self._head(HTTPStatus.FOUND, {"Location": quote(name, safe="") + "/", "Content-Length": "0"})
        else:
            self._send_file(address + "index.html" if address.endswith("/") else address, body)

    def _send_file(self, address: str, body: bool) -> None:
        token = self.server.token  # before the file: a page is never taken for a newer one
        path = self.server.find(address)
        try:
            data = path.read_bytes() if path is not None and path.is_file() else None
        except OSError:  # removed by a build just now
            data = None
        if path is None or data is None:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such file.", body)
        else:
            kind = type_of(path)
            self._send(HTTPStatus.OK, reloading(data, token) if kind == "text/html" else data, kind, body)

    def _refuse(self, status: HTTPStatus, why: str, body: bool) -> None:
        self._send(status, f"{why}\n".encode(), "text/plain", body)

    def _send(self, status: HTTPStatus, data: bytes, kind: str, body: bool) -> None:
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        self._head(status, {"Content-Type": kind + charset, "Content-Length": str(len(data))})
        if body:
            self.wfile.write(data)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self) -> None:
        """Send the newest build's token, and again after every build."""
        self._head(HTTPStatus.OK, {"Content-Type": "text/event-stream"})
        with contextlib.suppress(ConnectionError, TimeoutError):
            token: str | None = self.server.token
            while token is not None:
                self.wfile.write(f"data: {token}\n\n".encode())
                token = self.server.wait(token)


def type_of(path: Path) -> str:
    """Return the media type that a file is sent as."""
    return _TYPES.get(path.suffix) or _KNOWN.guess_type(path.name)[0] or "application/octet-stream"


def reloading(page: bytes, token: str) -> bytes:
    """Return a page that reloads once there is a build of another token, with a policy that lets it."""
    script = _SCRIPT % (EVENTS, token)
    page = _META.sub(lambda found: _with_policy(found[0].decode(), script).encode(), page, count=1)
    head, end, tail = page.rpartition(b"</body>")
    tag = f"<script>{script}</script>\n".encode()
    return head + tag + end + tail if end else page + tag


def relaxed(policy: str, script: str) -> str:
    """Return a content security policy that allows one more script, and requests to this server."""
    rules: dict[str, list[str]] = {}
    for name, *sources in (part.split() for part in policy.split(";") if part.strip()):
        rules.setdefault(name.lower(), sources)  # of two with a name the first counts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = rules.get("script-src", rules.get("default-src", []))
    hashed = any(source.startswith(("'sha", "'nonce-")) for source in scripts)
    if hashed or "'unsafe-inline'" not in scripts:  # which a hash beside it would end
        _allow(rules, "script-src", f"'sha256-{digest}'")
    _allow(rules, "connect-src", "'self'")
    return "; ".join(" ".join([name, *sources]) for name, sources in rules.items())


def _allow(rules: dict[str, list[str]], name: str, source: str) -> None:
    sources = rules.get(name, rules.get("default-src"))
    if sources is not None:  # else everything is allowed
        rules[name] = [*(other for other in sources if other.lower() != "'none'"), source]


def _with_policy(meta: str, script: str) -> str:
    def content(found: re.Match[str]) -> str:
        policy = html.unescape(found[2] if found[2] is not None else found[3])
        return f'{found[1]}"{html.escape(relaxed(policy, script))}"'

    return _CONTENT.sub(content, meta, count=1)


def _open(port: int) -> _Server:
    try:
        return _Server(port)
    except OverflowError:
        raise UserError(f"--port {port} is not a port. Give one from 1024 to 65535, or 0 for a free one.") from None
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise UserError(f"port {port} {why}. Give another one by --port, or 0 for a free one.") from None


def _rebuild(build: Callable[[], Path], server: _Server, echo: Callable[[str], None]) -> float:
    """Build, publish what was built, and return how many seconds it took. A first build may raise."""
    started = time.monotonic()
    try:
        server.publish(build())
    except (UserError, OSError) as error:
        if server.builds == 0:
            raise
        echo(f"not rebuilt, the pages stay as they were: {' '.join(str(error).split())}")
    took = time.monotonic() - started
    if server.builds > 1:
        echo(f"rebuilt in {took:.1f} s")
    return took


def _changes(watch: Sequence[Path], server: _Server, stop: threading.Event) -> Iterator[None]:
    """Yield once as soon as changes are seen, then after every group of changes."""
    roots = [path.resolve() for path in watch]

    def matters(_: Change, name: str) -> bool:
        return is_of_a_run(Path(name), roots, server.folder)

    polling, begun = False, False
    while not stop.is_set():
        try:
            for found in watch_files(
                *roots,
                watch_filter=matters,
                debounce=_AT_MOST,
                step=_QUIET,
                rust_timeout=_LOOK,
                yield_on_timeout=True,
                stop_event=stop,
                force_polling=polling or None,
                poll_delay_ms=_POLL,
            ):
                if found or not begun:
                    begun = True
                    yield
        except (OSError, RuntimeError):
            if polling:
                raise
            polling, begun = True, False  # the system reports no changes, or not of so many folders


def is_of_a_run(path: Path, roots: Sequence[Path], site: Path | None) -> bool:
    """Say whether a file is read by a build: below a root, not hidden (a lock, a half), not built."""
    for root in roots:
        if not path.is_relative_to(root):
            continue
        made = site is not None and path.is_relative_to(site) and not root.is_relative_to(site)
        if not made and not any(part.startswith(".") for part in path.relative_to(root).parts):
            return True
    return False
