"""``steerboard doctor``: what a run needs, what is missing, and nothing that is secret."""

from __future__ import annotations

import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.helpers import Outcome, names_below, steerboard

from harness.core.errors import EXTRAS

SECRET = "hf_doNotShowThis"


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch) -> Path:
    """A home folder and a current folder of the test's own, offline."""
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "HF_TOKEN", "HF_ENDPOINT", "HF_TOKEN_PATH", "XDG_CACHE_HOME", "STEERBOARD_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(home / "work")
    return home


def checks(outcome: Outcome) -> dict[str, dict[str, str]]:
    body = json.loads(outcome.out)
    assert body["schema"] == 1
    return {check["name"]: check for check in body["checks"]}


def test_a_machine_that_has_everything_is_ok(machine, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    outcome = steerboard("doctor")
    assert (outcome.code, outcome.err) == (0, ""), outcome.out
    lines = outcome.out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1] == "next: steerboard demo"
    names = [line.split()[0] for line in lines if line[0] != " "][:-1]
    assert names[:4] == ["steerboard", "python", "packages", "cpu"]
    assert {"threads", "memory", "runs", "cache", "hub", "extras"} <= set(names)
    for line in lines[:-1]:
        assert line[0] == " " or re.search(r" (ok|warning)$", line), line
    assert names_below(machine) == []


def test_the_json_has_the_same_checks():
    outcome = steerboard("doctor", "--json")
    found = checks(outcome)
    assert outcome.code == 0
    assert json.loads(outcome.out)["ok"] is True
    assert re.search(r"torch \d.*transformers \d", found["packages"]["found"])
    assert found["threads"]["found"].startswith("1 at most, ")
    assert found["hub"]["found"].endswith("offline (HF_HUB_OFFLINE): only what is downloaded, or in folders")
    assert all(check["status"] in {"ok", "warning"} for check in found.values())


def test_the_home_folder_is_a_tilde_and_no_secret_is_shown(machine, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", f"http://user:{SECRET}@127.0.0.1:9")
    (machine / ".cache" / "huggingface").mkdir(parents=True)
    (machine / ".cache" / "huggingface" / "token").write_text(SECRET)
    for words in (["doctor"], ["doctor", "--json"]):
        outcome = steerboard(*words)
        assert outcome.code == 0
        assert SECRET not in outcome.out
        assert str(machine) not in outcome.out
        assert "a token is set" in " ".join(outcome.out.split())
    found = checks(outcome)
    assert "~/.cache/huggingface" in found["hub"]["found"]
    assert "127.0.0.1 cannot be reached" in found["hub"]["found"]
    assert found["runs"]["found"].startswith("runs/ in ~/work can be written")


def test_a_token_in_a_file_is_seen_and_not_read(machine):
    assert "no token" in checks(steerboard("doctor", "--json"))["hub"]["found"]
    (machine / ".cache" / "huggingface").mkdir(parents=True)
    (machine / ".cache" / "huggingface" / "token").write_text(SECRET)
    assert "a token is set" in checks(steerboard("doctor", "--json"))["hub"]["found"]


class Answering(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_a_hub_that_answers_is_reached(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        found = checks(steerboard("doctor", "--json"))["hub"]
    assert (found["status"], found["found"].rpartition("; ")[2]) == ("ok", "127.0.0.1 answers")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:{port}", "127.0.0.1 cannot be reached: Connection refused"),
        ("file:///etc/passwd", "HF_ENDPOINT cannot be reached: it is not an address"),
        ("http://[", "HF_ENDPOINT cannot be reached: "),
    ],
)
def test_a_hub_that_does_not_answer_is_a_warning_with_the_next_step(monkeypatch, address, words):
    with socket.socket() as taken:  # a port on which nobody listens
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_ENDPOINT", address.format(port=taken.getsockname()[1]))
        outcome = steerboard("doctor", "--json")
    found = checks(outcome)["hub"]
    assert (outcome.code, found["status"]) == (0, "warning")
    assert words in found["found"]
    assert "HF_HUB_OFFLINE=1" in found["next"]


def test_a_folder_that_cannot_be_written_is_missing(machine):
    (machine / "work" / "runs").write_text("a file")
    outcome = steerboard("doctor", "--json")
    found = checks(outcome)["runs"]
    assert outcome.code == 1
    assert json.loads(outcome.out)["ok"] is False
    assert (found["status"], "Not a directory" in found["found"]) == ("missing", True)
    assert "--run FOLDER" in found["next"]
    text = steerboard("doctor").out
    assert text.splitlines()[-1] == "next: do what 'missing' says above, then 'steerboard doctor' again"


def test_a_cache_that_cannot_be_written_is_a_warning(machine, monkeypatch):
    (machine / "file").touch()
    monkeypatch.setenv("STEERBOARD_CACHE", str(machine / "file"))
    outcome = steerboard("doctor", "--json")
    assert (outcome.code, checks(outcome)["cache"]["status"]) == (0, "warning")


def test_threads_that_are_no_number_are_a_warning(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "\x1b[2Jmany")
    outcome = steerboard("doctor")
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert "set OMP_NUM_THREADS to a whole number" in " ".join(outcome.out.split())


def test_extras_that_are_not_installed_come_with_their_command(monkeypatch):
    monkeypatch.setitem(EXTRAS, "lora", {"steerboard_nowhere": "nowhere"})
    found = checks(steerboard("doctor", "--json"))["extras"]
    assert found["status"] == "ok"
    assert re.search(r"pip install 'steerboard\[[^\]]*lora[^\]]*\]'", found["found"])


def test_a_package_that_a_run_needs_is_missing(monkeypatch):
    monkeypatch.setitem(EXTRAS, "run", {**EXTRAS["run"], "steerboard_nowhere": "nowhere"})
    outcome = steerboard("doctor", "--json")
    gone = [check for check in json.loads(outcome.out)["checks"] if check["status"] == "missing"]
    assert outcome.code == 1
    assert [(check["found"], check["next"]) for check in gone] == [
        ("not installed: nowhere", "pip install 'steerboard[run]'")
    ]
