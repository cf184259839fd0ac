"""What signs in is hidden in every message, in the command that is recorded, and nowhere in a run."""

from __future__ import annotations

import json
import pickle
import time

import pytest
from support.helpers import steerboard

from harness.core.checkpoints import resolve_checkpoint
from harness.core.errors import InvalidFileError, UserError, in_words, pasted
from harness.core.redaction import command_line, hide_secrets, known_secrets

TOKEN = "hf_" + "aB3" * 11
KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://me:{TOKEN}@huggingface.co/a/b", "https://***@huggingface.co/a/b"),
        ("https://secret@host/a: not found", "https://***@host/a: not found"),
        (f"s3://AKIAIOSFODNN7EXAMPLE:{KEY}@bucket/runs", "s3://***@bucket/runs"),
        (f"s3:/ID:{KEY}@bucket/runs", "s3:/***@bucket/runs"),  # as a path has it
        ("https://h/a?token=abc&x=1 failed", "https://h/a?*** failed"),
        ("(port=443): Max retries exceeded with url: /a/b?sig=AbC (Caused by", "(port=443): Max retries exceeded with "
         "url: /a/b?*** (Caused by"),
        ("{'Authorization': 'Bearer abcdefgh', 'x': '1'}", "{'Authorization': '***', 'x': '1'}"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: ***"),
        ("got Bearer abc.def-ghi=", "got Bearer ***"),
        ('{"X-Amz-Security-Token": "FwoGZXIvYXdzE"}', '{"X-Amz-Security-Token": "***"}'),
        ("api_key=12345678, aws_secret_access_key=abcdefgh", "api_key=***, aws_secret_access_key=***"),
        (f"Invalid token {TOKEN}.", "Invalid token ***."),
        (f"שגיאה: {TOKEN} ስህተት", "שגיאה: *** ስህተት"),
    ],
)  # fmt: skip
def test_what_signs_in_is_hidden(text, shown):
    assert hide_secrets(text, ()) == shown
    assert hide_secrets(shown, ()) == shown


@pytest.mark.parametrize(
    "text",
    [
        "unknown method 'x'; valid: clas, language. Did you mean 'clas'?",
        "hf:intfloat/multilingual-e5-small,prefix=query,pooling=cls",
        "s3://bucket/gemma, file:///runs/a@b, hf://datasets/a/b@main/x.csv, https://example.org/a?",
        "pad_token: <pad>, max_new_tokens=64, tokenizer=hf_transfer, token 'x' at 3: bearer of news",
        "write to a@b.org: it is 12:30/1@2",
    ],
)
def test_other_text_stays(text):
    assert hide_secrets(text, ()) == text


def test_values_that_the_process_was_given_are_secrets(tmp_path):
    (tmp_path / "token").write_text("stored-token-1\n", encoding="utf-8")
    given = {
        "HF_TOKEN": "given-token",
        "AWS_SECRET_ACCESS_KEY": "given-token-2",
        "HF_TOKEN_PATH": str(tmp_path / "token"),
    }
    other = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "TOKENIZERS_PARALLELISM": "something", "PATH": "/usr/local/bin"}
    assert known_secrets(given | other) == ["stored-token-1", "given-token-2", "given-token"]
    assert known_secrets({"HF_HOME": str(tmp_path)}) == ["stored-token-1"]
    assert hide_secrets("a given-token-2 b", known_secrets(given)) == "a *** b"
    assert known_secrets({"HF_TOKEN_PATH": str(tmp_path)}) == known_secrets({"HF_HOME": "/nowhere"}) == []


def test_every_message_and_command_goes_through_it(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "plain-words-as-token")
    for error in (UserError(f"a {TOKEN}"), InvalidFileError(f"a {TOKEN}", "is plain-words-as-token")):
        assert TOKEN not in str(error)
        assert "plain-words" not in str(error)
    assert in_words(ValueError(f"no {TOKEN}")) == "ValueError: no ***"
    assert str(pickle.loads(pickle.dumps(UserError("x")))) == "x"
    monkeypatch.setattr("sys.argv", ["/bin/steerboard", "pull", "s3://a:b@c/d", "--x=plain-words-as-token"])
    assert command_line() == ["steerboard", "pull", "s3://***@c/d", "--x=***"]
    assert pasted("pull", "s3://a:b@c/d") == "steerboard pull 's3://***@c/d'"


@pytest.mark.parametrize(
    "text", ["a:/" * 50_000, "a." * 75_000, "token" * 25_000, "https://x?" * 15_000, "s3://a:@" * 15_000]
)
def test_hostile_text_takes_no_longer_than_other_text(text):
    began = time.process_time()
    hide_secrets(text, ())
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (f"https://me:{TOKEN}@huggingface.co/google/gemma-3-1b-it", "Give the hub id google/gemma-3-1b-it;"),
        ("https://hf.co/a/b/tree/main", "Give the hub id a/b;"),
        ("https://hf.co/a/b/tree/v1.2?token=abc", "Give the hub id a/b and --revision v1.2;"),
        ("https://hf.co/a/b/resolve/main/q4/x.gguf", "Give the hub id a/b:q4/x.gguf;"),
        (f"s3://ID:{KEY}@bucket", "Give a folder, a .gguf file or a hub id (owner/name)."),
    ],
)  # fmt: skip
def test_a_url_as_a_model_is_refused_with_its_name(url, advice, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as caught:
        resolve_checkpoint(url)
    assert advice in str(caught.value)
    assert not {TOKEN, KEY, "abc"} & {*str(caught.value).replace("=", " ").split()}
    assert "@" not in str(caught.value).replace("***@", "")


def test_no_secret_is_left_in_a_run_or_its_messages(tmp_path, monkeypatch):
    """A method that fails with a token in its message, and a command that holds one."""
    monkeypatch.setenv("HF_TOKEN", "my-own-token")
    plugin = tmp_path / "leaky.py"
    plugin.write_text(
        "import os\n"
        "from steerboard import MethodConfig, SteeringMethod, register\n"
        "@register('leaky')\n"
        "class Leaky(SteeringMethod):\n"
        "    '''Leaks.'''\n"
        "    needs_model = False\n"
        "    class Config(MethodConfig):\n"
        "        key: str = ''\n"
        "    def supports(self, ctx):\n"
        f"        raise ValueError('401 for https://me:{TOKEN}@hub/a, ' + os.environ['HF_TOKEN'])\n",
        encoding="utf-8",
    )
    run = tmp_path / "run"
    words = (
        f"run --suite mini --methods leaky --settings zero-shot --tasks topic --limit 2 --seeds 1 --revision={TOKEN}"
    )
    done = steerboard(*words.split(), "--run", run, "--plugin", plugin)
    assert "ValueError: 401 for https://***@hub/a, ***" in done.err
    assert "--revision=***" in json.loads((run / "manifest.json").read_text("utf-8"))["commands"][0]
    seen = (
        done.err + done.out + "".join(path.read_text("utf-8", "replace") for path in run.rglob("*") if path.is_file())
    )
    shown = steerboard("status", run)
    assert "--revision=***" in shown.out
    assert not [secret for secret in (TOKEN, "my-own-token") if secret in seen + shown.out]


def test_a_fault_of_ours_is_a_traceback_without_secrets(monkeypatch, capsys):
    from harness.cli import main

    def fail() -> int:
        raise ZeroDivisionError(f"at {TOKEN}")

    monkeypatch.setattr(main, "_run", fail)
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 1
    assert "ZeroDivisionError: at ***" in capsys.readouterr().err
