"""A pull request beside the lock of the branch that it goes into: what keeps it out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.helpers import Outcome, steerboard
from support.submitting import cells, edit_card, rehash, small_submission

PUBLISHED = "submissions/human"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the branch has: one published submission, and its lock beside."""
    folder = tmp_path_factory.mktemp("base")
    small_submission(folder / "repo" / PUBLISHED, folder / "trusted")
    (folder / "repo" / "submissions" / "README.md").write_text("text\n")
    return folder


@pytest.fixture
def repo(base: Path, tmp_path: Path) -> Path:
    """A pull request that changes nothing yet."""
    return Path(shutil.copytree(base / "repo", tmp_path / "repo"))


def files(root: Path) -> dict[str, bytes]:
    """Return what git sees: files and links, folders behind links not entered."""
    found = {}
    for path in root.rglob("*"):
        behind = any(above.is_symlink() for above in path.parents if above.is_relative_to(root))
        if not behind and (path.is_symlink() or path.is_file()):
            data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            found[path.relative_to(root).as_posix()] = data
    return found


def judged(repo: Path, base: Path, *more: object) -> Outcome:
    """Check what differs from the base, as the workflow does with git."""
    old, new = files(base / "repo"), files(repo)
    changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    listing = repo.parent / "changed"
    listing.write_bytes(b"".join(name.encode() + b"\0" for name in changed))
    lock = base / "trusted" / "submissions.lock.json"
    words = ("submission", "check-changes", listing, "--repository", repo, "--lock", lock, "--no-rescore")
    return steerboard(*words, *more)


def another(repo: Path, name: str = "mine") -> Path:
    """Add an honest submission: a version of the method that nobody has."""
    folder = Path(shutil.copytree(repo / PUBLISHED, repo / "submissions" / name))
    edit_card(folder, lambda card: card.update(name=name, version=1))
    return folder


def touched(repo: Path) -> None:
    edit_card(repo / PUBLISHED, lambda card: card["authors"][0].update(affiliation="Univ."))


def nothing(repo: Path) -> None:
    (repo / "harness").mkdir()
    (repo / "harness" / "x.py").touch()


def words_about_us(repo: Path) -> None:
    (repo / "submissions" / "README.md").write_text("other\n")


def higher_version(repo: Path) -> None:
    fewer_texts(repo)
    edit_card(repo / PUBLISHED, lambda card: card.update(version=card["version"] + 1))


def forged_check(repo: Path) -> None:
    (repo / PUBLISHED / "check.json").write_text("{}")
    (repo / PUBLISHED / "measured").mkdir()
    (repo / PUBLISHED / "measured" / "x").touch()


def manifest_above(repo: Path) -> None:
    (repo / "submissions" / "manifest.json").write_text("{}")


def link_of_cells(repo: Path) -> None:
    (repo / "submissions" / "cells").symlink_to("../elsewhere")


def link_of_results(repo: Path) -> None:
    (repo / PUBLISHED / "results").rename(repo / "elsewhere")
    (repo / PUBLISHED / "results").symlink_to("../../elsewhere")


def link_of_a_submission(repo: Path) -> None:
    (repo / PUBLISHED).rename(repo / "elsewhere")
    (repo / PUBLISHED).symlink_to("../elsewhere")


def link_of_all(repo: Path) -> None:
    (repo / "submissions").rename(repo / "elsewhere")
    (repo / "submissions").symlink_to("elsewhere")


def lone_card(repo: Path) -> None:
    (repo / "submissions" / "submission.yaml").write_text("name: x\n")


def bare_run(repo: Path) -> None:
    (repo / "submissions" / "mine").mkdir()
    (repo / "submissions" / "mine" / "manifest.json").write_text("{}")


def hidden(repo: Path) -> None:
    shutil.copytree(repo / PUBLISHED, repo / "submissions" / ".mine")


def turned_name(repo: Path) -> None:
    another(repo, "a\u202eb")


def own_lock(repo: Path) -> None:
    touched(repo)
    (repo / "baselines").mkdir()
    (repo / "baselines" / "submissions.lock.json").write_text("{}")


def own_workflow(repo: Path) -> None:
    touched(repo)
    (repo / ".github").mkdir()
    (repo / ".github" / "x.yml").write_text("{}")


def attributes(repo: Path) -> None:
    (repo / "submissions" / ".gitattributes").write_text("*.gz text\n")


def attributes_above(repo: Path) -> None:
    touched(repo)
    (repo / ".gitattributes").write_text("*.gz text\n")


def removal(repo: Path) -> None:
    shutil.rmtree(repo / PUBLISHED)


def no_card(repo: Path) -> None:
    (repo / PUBLISHED / "submission.yaml").unlink()


def fewer_texts(repo: Path) -> None:
    folder = repo / PUBLISHED
    shutil.rmtree(cells(folder, language="he")[0])
    rehash(folder)
    edit_card(folder, lambda card: card["results"][0].update(n_cells=1))


def same_entry(repo: Path) -> None:
    another(repo)


FINE: list[Callable[[Path], None]] = [nothing, words_about_us, touched, higher_version]
REFUSED: dict[Callable[[Path], None], str] = {
    forged_check: "check.json: only whoever checks writes it",
    manifest_above: "submissions/manifest.json: is a stray file",
    link_of_cells: "submissions/cells: is a link",
    link_of_results: "results: is a link",
    link_of_a_submission: "submissions/human: is a link",
    link_of_all: "submissions: is a link",
    lone_card: "submissions/submission.yaml: is a stray file",
    bare_run: "submissions/mine: is not a submission: it has no submission.yaml",
    hidden: "submissions/.mine/submission.yaml: is not part of a submission",
    turned_name: r"submissions/a\u202eb: has a name with characters other than",
    own_lock: "baselines/submissions.lock.json: is changed together with submissions",
    own_workflow: ".github/x.yml: is changed together with submissions",
    attributes: "submissions/.gitattributes: is not part of a submission",
    attributes_above: ".gitattributes: is changed together with submissions",
    removal: "submissions/human: was published and is removed",
    no_card: "submissions/human: is not a submission",
    fewer_texts: "submission.yaml: differs from what was published: no-model has lost languages he",
    same_entry: "is that of submission human",
}


@pytest.mark.parametrize("change", FINE, ids=lambda change: change.__name__)
def test_what_hurts_nobody_is_fine(repo: Path, base: Path, change: Callable[[Path], None]) -> None:
    change(repo)
    done = judged(repo, base)
    assert done.code == 0, done.out
    assert "problem" not in done.out


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_a_pull_request_that_could_take_over_the_board_is_refused(
    repo: Path, base: Path, change: Callable[[Path], None]
) -> None:
    change(repo)
    done = judged(repo, base)
    assert done.code == 1, done.out
    assert REFUSED[change] in done.out
    assert "Traceback" not in done.err
    assert REFUSED[change].partition(": ")[2].split(":")[0] in judged(repo, base, "--format", "md").out


def test_a_lock_that_the_pull_request_brings_is_not_looked_at(repo: Path, base: Path) -> None:
    """By its own lock the removal would be fine."""
    (repo / "baselines").mkdir()
    (repo / "baselines" / "submissions.lock.json").write_text('{"schema": 1, "submissions": {}}')
    removal(repo)
    assert "was published and is removed" in judged(repo, base).out
