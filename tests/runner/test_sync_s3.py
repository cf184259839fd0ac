"""Push and pull against an S3 server on this machine, a second process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from support.helpers import command, environment, names_below, steerboard
from support.syncing import stored, travelling, write_run

from harness.core.store import Run

SECRET = "hunter2hunter2"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server with nothing in it."""
    pytest.importorskip("s3fs", reason="NOT CHECKED: no s3fs, so nothing that speaks to S3")
    pytest.importorskip("moto", reason="NOT CHECKED: no moto, so no S3 server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as said, subprocess.Popen(words, env=environment(), stdout=said, stderr=said) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 60
            while not answers(address):
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()


def answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/moto-api/", timeout=5) as answer:
            return answer.status == 200
    except URLError:
        return False


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> str:
    """The URL of a new bucket."""
    import fsspec

    for name, value in (
        ("AWS_ENDPOINT_URL", server),
        ("AWS_ACCESS_KEY_ID", "tester"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", str(tmp_path / "none")),
        ("NO_PROXY", "127.0.0.1"),
    ):
        monkeypatch.setenv(name, value)
    name = f"b{time.time_ns()}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"


def test_a_run_comes_back_from_s3_byte_for_byte(bucket, tmp_path):
    run = write_run(tmp_path / "a", "am", "he")
    url = f"{bucket}/runs/a"
    assert steerboard("push", run.path, url).out.startswith("sent 13 files")
    assert steerboard("push", run.path, url).out.startswith("sent 0 files")
    outcome = steerboard("pull", url, tmp_path / "b")
    assert (outcome.code, outcome.out.split()[:2]) == (0, ["fetched", "12"])
    assert travelling(Run(tmp_path / "b")) == travelling(run)
    [index] = [data.decode() for name, data in stored(url).items() if name.startswith("runs/a/index/")] or [""]
    assert SECRET not in index


@pytest.mark.slow
def test_a_push_killed_at_any_moment_goes_on(bucket, tmp_path):
    run = write_run(tmp_path / "a", *(f"l{i}" for i in range(50)))
    url, n_files = f"{bucket}/big", len(travelling(run))
    with subprocess.Popen(command("push", run.path, url), env=environment(), stderr=subprocess.DEVNULL) as process:
        while len(stored_names(url)) < 64:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    there = len([name for name in stored_names(url) if "/objects/" in name])
    assert 60 <= there < n_files
    assert steerboard("push", run.path, url).code == 0
    assert steerboard("pull", url, tmp_path / "b").code == 0
    assert travelling(Run(tmp_path / "b")) == travelling(run)


def stored_names(url: str) -> list[str]:
    import fsspec

    fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    return list(fs.find(root))


def test_what_s3_refuses_is_one_line_without_secrets(bucket, tmp_path, monkeypatch):
    run = write_run(tmp_path / "a", "am")
    missing = steerboard("push", run.path, f"{bucket}-none/x").one_line()
    assert f"cannot use {bucket}-none/x (" in missing
    assert "holds no run" in steerboard("pull", f"{bucket}/none", tmp_path / "b").one_line()
    login = steerboard("push", run.path, f"s3://tester:{SECRET}@{bucket.removeprefix('s3://')}/x")
    assert SECRET not in login.out + login.err
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    line = steerboard("push", run.path, f"{bucket}/x").one_line()
    assert "Check the name, and the credentials of this machine" in line
    assert names_below(tmp_path / "b") == []
