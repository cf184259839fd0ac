"""Serving a board: to this machine alone, the site's files alone, rebuilt when a run changes."""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.helpers import environment

from harness.core.errors import UserError
from harness.core.files import run_lock, write_text
from leaderboard.serve import EVENTS, is_of_a_run, relaxed, reloading, serve, type_of

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-AAAA'; base-uri 'none'"
PAGE = (
    '<!doctype html><html><head><meta http-equiv="Content-Security-Policy" content="{policy}"></head>'
    "<body><p>{text}</p>\n</body></html>"
)
PATIENCE = 20.0


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Wait less for further changes, and look more often."""
    with pytest.MonkeyPatch.context() as patch:
        for name, ms in (("_QUIET", 60), ("_LOOK", 50)):
            patch.setattr(f"leaderboard.serve.{name}", ms)
        yield


@dataclass
class Board:
    """A run folder with one file, and a build that copies the file's text into a page."""

    run: Path
    site: Path
    said: queue.Queue[str] = field(default_factory=queue.Queue)
    stop: threading.Event = field(default_factory=threading.Event)
    builds: int = 0
    port: int = 0

    def write(self, text: str) -> None:
        write_text(self.run / "cells" / "a" / "scores.json", text)

    def build(self) -> Path:
        self.builds += 1
        text = (self.run / "cells" / "a" / "scores.json").read_text(encoding="utf-8")
        if text == "half":
            raise UserError("scores.json is not valid JSON;\nit is truncated.")
        write_text(self.site / "index.html", PAGE.format(policy=POLICY, text=text))
        return self.site / "index.html"

    def hear(self) -> str:
        return self.said.get(timeout=PATIENCE)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True)
            for name, value in ({"Host": f"127.0.0.1:{self.port}"} | headers).items():
                if value:
                    connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer, answer.read().decode()


@contextlib.contextmanager
def servers(tmp_path: Path) -> Iterator[Callable[..., Board]]:
    """Yield what starts a server in a thread; all are ended afterwards."""
    started: list[tuple[Board, threading.Thread]] = []

    def start(run: str = "run", site: str = "site", prepare: Callable[[Board], object] | None = None) -> Board:
        board = Board(tmp_path / run, tmp_path / site)
        board.write("first")
        if prepare:
            prepare(board)
        words = (board.build, [board.run], 0, board.said.put, board.stop)
        thread = threading.Thread(target=serve, args=words, daemon=True)
        thread.start()
        started.append((board, thread))
        board.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", board.hear())[1])
        return board

    yield start
    for board, thread in started:
        board.stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def new_board(tmp_path) -> Iterator[Callable[..., Board]]:
    """Start a server of the test's own."""
    with servers(tmp_path) as start:
        yield start


@pytest.fixture
def board(new_board) -> Board:
    return new_board()


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    """The folder above a site, with a secret."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.txt").write_text("SECRET", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def asked(outside) -> Iterator[Board]:
    """One server for the tests that only ask; its site has links that lead out of it."""

    def prepare(board: Board) -> None:
        (board.site / "data").mkdir(parents=True)
        (board.site / ".hidden").write_text("SECRET", encoding="utf-8")
        (board.site / "link.txt").symlink_to(outside / "secret.txt")
        (board.site / "linked").symlink_to(outside)
        (board.site / "circle").symlink_to(board.site / "circle")

    with servers(outside) as start:
        yield start(prepare=prepare)


@contextlib.contextmanager
def listening(board: Board) -> Iterator[Callable[[], str]]:
    """Open the stream of builds; yields what returns the next token."""
    connection = http.client.HTTPConnection("127.0.0.1", board.port, timeout=PATIENCE)
    connection.request("GET", EVENTS)
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"

    def following() -> str:
        line, empty = answer.readline().decode(), answer.readline()
        assert empty == b"\n"
        return line.removeprefix("data: ").strip()

    yield following
    answer.close()
    connection.close()


def test_the_page_is_served_and_its_file_stays_as_it_was(asked):
    before = (asked.site / "index.html").read_bytes()
    answer, page = asked.ask("/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Access-Control-Allow-Origin"] is None
    assert "<p>first</p>" in page
    assert EVENTS in page
    assert page.endswith("</script>\n</body></html>")
    assert (asked.site / "index.html").read_bytes() == before
    assert EVENTS.encode() not in before


def test_a_page_with_a_query_is_the_page(asked):
    assert "<p>first</p>" in asked.ask("/index.html?metric=vendi")[1]


def test_other_files_are_sent_as_they_are(asked):
    (asked.site / "data" / "results.json").write_text('{"a": "</body>"}', encoding="utf-8")
    answer, text = asked.ask("/data/results.json")
    assert (answer.headers["Content-Type"], text) == ("application/json", '{"a": "</body>"}')


def test_head_sends_no_body(asked):
    answer, text = asked.ask("/", "HEAD")
    assert (answer.status, text) == (200, "")
    assert int(answer.headers["Content-Length"]) == len(asked.ask("/")[1].encode())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent_to_it(asked, method):
    assert asked.ask("/", method)[0].status == 501


def test_folders_lead_to_their_page_and_are_never_listed(asked):
    for name, page in (("with", "index.html"), ("without", "data.txt")):
        (asked.site / name).mkdir()
        (asked.site / name / page).write_text("inside", encoding="utf-8")
    answer, _ = asked.ask("/with")
    assert (answer.status, answer.headers["Location"]) == (302, "with/")
    assert asked.ask("/with/")[1].startswith("inside")
    answer, text = asked.ask("/without/")
    assert answer.status == 404
    assert "data" not in text
    assert asked.ask("//with")[0].headers["Location"] == "with/"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/data/../../secret.txt",
        "/link.txt",
        "/linked/secret.txt",
        "/linked/",
        "/.hidden",
        "/%00",
        "/index.html/",
        "/index.html/x",
        "/circle",
        "//secret.txt",
        "http://localhost/secret.txt",
        "/" + "x" * 5000,
        "{absolute}",
    ],
)
def test_nothing_outside_of_the_site_is_served(asked, outside, path):
    answer, text = asked.ask(path.format(absolute=outside / "secret.txt"))
    assert answer.status == 404
    assert "SECRET" not in text


def test_an_index_that_links_out_is_not_served(asked, tmp_path):
    (tmp_path / "secret.html").write_text("SECRET", encoding="utf-8")
    (asked.site / "sub").mkdir()
    (asked.site / "sub" / "index.html").symlink_to(tmp_path / "secret.html")
    assert asked.ask("/sub/")[0].status == 404


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "evil@localhost",
        "",
        "127.0.0.2",
    ],
)
@pytest.mark.parametrize("path", ["/", EVENTS])
def test_a_foreign_host_is_refused(asked, host, path):
    answer, text = asked.ask(path, Host=host)
    assert answer.status == 403
    assert "first" not in text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "127.0.0.1:80"])
def test_names_of_this_machine_are_served_through_any_port(asked, host):
    assert asked.ask("/", Host=host)[0].status == 200  # such as one that ssh forwards


def test_only_this_machine_can_connect(asked):
    with socket.socket() as other:
        other.settimeout(2)
        assert other.connect_ex(("127.0.0.2", asked.port)) != 0


def test_a_change_rebuilds_and_open_pages_are_told(board):
    with listening(board) as following:
        first = following()
        assert f'"{first}"' in board.ask("/")[1]
        board.write("second")
        second = following()
        assert second != first
    assert board.hear().startswith("rebuilt in ")
    page = board.ask("/")[1]
    assert "<p>second</p>" in page
    assert f'"{second}"' in page


def test_many_changes_at_once_are_few_builds(board):
    for i in range(50):
        board.write(f"text {i}")
    end = time.monotonic() + PATIENCE
    while "<p>text 49</p>" not in board.ask("/")[1]:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert board.builds < 10


def test_locks_halves_and_the_site_itself_rebuild_nothing(new_board):
    board = new_board(site="run/site")
    with run_lock(board.run, "--run"):
        (board.run / "cells" / ".scores.json.x1").write_text("half", encoding="utf-8")
        (board.run / ".cache").mkdir()
        (board.run / ".cache" / "file").write_text("x", encoding="utf-8")
        (board.site / "more.html").write_text("x", encoding="utf-8")
        time.sleep(0.5)
    assert board.builds == 1
    board.write("second")
    board.hear()
    time.sleep(0.5)
    assert board.builds == 2


def test_runs_inside_of_the_site_folder_are_watched(new_board):
    board = new_board(site=".")
    board.write("second")
    assert board.hear().startswith("rebuilt in ")


def test_a_build_that_fails_keeps_the_page(board):
    with listening(board) as following:
        first = following()
        board.write("half")
        said = "scores.json is not valid JSON; it is truncated."
        assert board.hear() == f"not rebuilt, the pages stay as they were: {said}"
        page = board.ask("/")[1]
        assert "<p>first</p>" in page
        assert f'"{first}"' in page
        board.write("whole")
        assert following() != first
    assert board.hear().startswith("rebuilt in ")


def test_a_run_that_vanishes_keeps_the_page(board):
    shutil.rmtree(board.run / "cells")
    assert board.hear().startswith("not rebuilt, ")
    assert "<p>first</p>" in board.ask("/")[1]


def test_a_change_during_the_first_build_is_seen(tmp_path):
    board = Board(tmp_path / "run", tmp_path / "site")
    board.write("first")

    def build() -> Path:
        path = board.build()
        if board.builds == 1:
            board.write("second")
        return path

    words = (build, [board.run], 0, board.said.put, board.stop)
    thread = threading.Thread(target=serve, args=words)
    thread.start()
    assert board.hear().startswith("serving http://127.0.0.1:")
    assert board.hear().startswith("rebuilt in ")
    board.stop.set()
    thread.join(PATIENCE)
    assert "<p>second</p>" in (board.site / "index.html").read_text(encoding="utf-8")


def test_a_first_build_that_fails_ends_it(tmp_path):
    board = Board(tmp_path / "run", tmp_path / "site")
    board.write("half")
    with pytest.raises(UserError, match="truncated"):
        serve(board.build, [board.run], 0, board.said.put)
    assert board.said.empty()


def test_a_taken_port_is_named_before_anything_is_built(board):
    other = Board(board.run, board.site)
    with pytest.raises(UserError, match=rf"^port {board.port} is in use\. Give another one by --port"):
        serve(other.build, [other.run], board.port, other.said.put)
    assert other.builds == 0


@pytest.mark.parametrize("port", [65536, -1])
def test_a_port_that_is_none_is_refused(tmp_path, port):
    with pytest.raises(UserError, match=f"{port} is not a port"):
        serve(lambda: tmp_path, [tmp_path], port, print)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        serve(lambda: tmp_path, [tmp_path / "nowhere"], 0, print)


def test_without_reports_of_the_system_the_files_are_looked_at(new_board, monkeypatch):
    from leaderboard import serve as module

    asked = []

    def few(*roots: Path, force_polling: bool | None, **options: object) -> Iterator[set[object]]:
        asked.append(force_polling)
        if not force_polling:
            raise OSError("OS file watch limit reached.")
        return watch(*roots, force_polling=True, **options)

    watch = module.watch_files
    monkeypatch.setattr(module, "watch_files", few)
    monkeypatch.setattr(module, "_POLL", 100)
    board = new_board()
    board.write("second")
    later = time.time() + 10  # looks see whole seconds alone
    os.utime(board.run / "cells" / "a" / "scores.json", (later, later))
    assert board.hear().startswith("rebuilt in ")
    assert asked == [None, True]


def test_ctrl_c_ends_it_quietly(tmp_path):
    (tmp_path / "index.html").write_text("<p>here</p>", encoding="utf-8")
    code = (
        "import sys\nfrom pathlib import Path\nfrom leaderboard.serve import serve\n"
        "serve(lambda: Path(sys.argv[1]), [Path(sys.argv[1])], 0, lambda line: print(line, flush=True))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert child.stdout.readline().startswith("serving ")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("default-src 'none'", "default-src 'none'; script-src HASH; connect-src 'self'"),
        ("script-src 'sha256-A'; connect-src 'none'", "script-src 'sha256-A' HASH; connect-src 'self'"),
        ("img-src data:", "img-src data:"),  # no word on scripts: everything runs
        ("script-src 'unsafe-inline'", "script-src 'unsafe-inline'"),
        (
            "Default-Src data:; default-src x",
            "default-src data:; script-src data: HASH; connect-src data: 'self'",
        ),
        ("", ""),
    ],
)
def test_a_policy_is_relaxed_for_one_script_alone(policy, wanted):
    found = relaxed(policy, "alert(1)")
    digest = "'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='"  # of alert(1), by openssl
    assert found == wanted.replace("HASH", digest)


def test_pages_are_found_their_policy_however_it_is_written():
    for meta in (
        b"<meta http-equiv='content-security-policy' content='default-src none'>",
        b'<META content="default-src &#39;none&#39;" HTTP-EQUIV=Content-Security-Policy>',
    ):
        page = reloading(meta + b"<body></body>", "t")
        assert b"sha256-" in page
        assert page.count(b"connect-src") == 1
        assert page.endswith(b"</script>\n</body>")


def test_a_page_without_policy_or_end_gets_the_script_alone():
    page = reloading(b"<p>x", "t")
    assert page.startswith(b"<p>x<script>new EventSource(")
    assert b"sha256" not in page


def test_types_of_downloads():
    found = [type_of(Path(f"x.{end}")) for end in ("html", "csv", "json", "svg", "parquet", "odd")]
    assert found == [
        "text/html",
        "text/csv",
        "application/json",
        "image/svg+xml",
        "application/vnd.apache.parquet",
        "application/octet-stream",
    ]


def test_hidden_folders_above_a_run_hide_nothing(tmp_path):
    root = tmp_path / ".cache" / "run"
    assert is_of_a_run(root / "manifest.json", [root], None)
    assert not is_of_a_run(root / ".lock", [root], None)
    assert not is_of_a_run(tmp_path / "else", [root], None)


@pytest.mark.slow
def test_a_browser_reloads_under_the_page_s_own_policy(board):
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("NOT CHECKED: no chromium, so no page is opened")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"http://localhost:{board.port}/")
        assert page.inner_text("p") == "first"
        board.write("second")
        page.get_by_text("second").wait_for(timeout=PATIENCE * 1000)
        browser.close()
    assert [line for line in said if "Policy" in line and "favicon" not in line] == []
