"""What a site is built from: runs, submissions and folders of them; badges say how far each was checked."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.helpers import ROOT, steerboard
from support.submitting import edit_card
from support.toyruns import F1, flat, selection, toy, write_run

from harness.core.errors import UserError
from harness.core.interventions import Steering
from harness.core.store import Run
from harness.submissions.lockfile import FILE, LockFile
from leaderboard.build import build_site
from leaderboard.inputs import inputs
from leaderboard.views.methods import steering_files
from leaderboard.views.origins import contrasts

PUBLISHED = ROOT / "submissions"
NAMES = ("zero-shot", "learned", "human")


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handed")
    for name in NAMES:
        shutil.copytree(PUBLISHED / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def site(handed_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of three submissions, one of which nobody has checked."""
    return build_site([handed_in], tmp_path_factory.mktemp("site"), "2026-11-24", lock_of(handed_in)).parent


def lock_of(handed_in: Path) -> LockFile:
    """Return our lock without ``learned``."""
    lock = LockFile(handed_in.parent / f"{handed_in.name}-{FILE}")
    for name in NAMES:
        if name != "learned":
            lock.put(name, LockFile(ROOT / "baselines" / FILE).body.submissions[name])
    return lock


def badges(site: Path) -> dict[str, str]:
    """Return name of the method -> badge, from the rows of the overview."""
    page = (site / "index.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr id=.*?</tr>", page, re.DOTALL)
    named = ((re.search(r"method-([\w-]+)\.html", row), re.search(r'class="badge ([\w-]+)"', row)) for row in rows)
    return {name.group(1): badge.group(1) for name, badge in named if name and badge}


def test_submissions_of_one_suite_share_a_table_and_show_how_far_they_were_checked(site: Path) -> None:
    found = badges(site)
    assert found["zero-shot"] == "rescored"
    assert found["learned"] == "self-reported"


def test_the_page_of_a_method_says_who_handed_it_in_and_what_was_measured(site: Path) -> None:
    page = next(site.glob("*/method-zero-shot.html")).read_text(encoding="utf-8")
    assert "its texts were rescored; the rescored values equal the self-reported ones; times, devices" in page
    assert "texts under" in page
    page = next(site.glob("*/method-learned.html")).read_text(encoding="utf-8")
    assert "nobody has rescored its texts yet; times, devices" in page


def test_texts_of_a_submission_are_shown_in_their_script(site: Path) -> None:
    hebrew = next(site.glob("*/samples-he.html")).read_text(encoding="utf-8")
    assert re.search(r'<p lang="he" dir="rtl">[\u0590-\u05ff]', hebrew)
    amharic = next(site.glob("*/samples-am.html")).read_text(encoding="utf-8")
    assert re.search(r'<p lang="am" dir="ltr">[\u1200-\u137f]', amharic)


def test_a_part_of_a_submission_stands_for_its_runs(handed_in: Path) -> None:
    lock = lock_of(handed_in)
    [whole] = inputs([handed_in / "zero-shot"], lock).items
    [part] = inputs([handed_in / "zero-shot" / "results"], lock).items
    assert whole.run.path == part.run.path
    assert whole.submission
    assert part.badge == "rescored"


def test_a_badge_that_is_not_of_these_files_is_no_badge_and_the_page_says_why(handed_in: Path, tmp_path: Path) -> None:
    copy = tmp_path / "submissions" / "human"
    shutil.copytree(handed_in / "human", copy)
    edit_card(copy, lambda card: card["method"].update(does="Other words."))
    assert inputs([copy], lock_of(handed_in)).items[0].badge == "self-reported"
    build_site([copy.parent], tmp_path / "site", "2026-11-24", lock_of(handed_in))
    page = next((tmp_path / "site").glob("*/method-human.html")).read_text(encoding="utf-8")
    assert "version 2 was rescored, but these files differ" in page


def test_runs_and_submissions_mix_and_every_run_counts_once(handed_in: Path, tmp_path: Path) -> None:
    chosen = selection()
    entry = toy("language")
    entry.scores[F1] = flat(0.5, chosen)
    run = write_run(tmp_path / "runs" / "one", [entry], chosen)
    found = inputs([tmp_path / "runs", run.path, handed_in / "human"]).items
    assert [item.badge for item in found].count("own run") == 1
    assert len(found) == 2


def test_a_submission_that_cannot_be_read_is_refused_in_one_line(handed_in: Path, tmp_path: Path) -> None:
    copy = tmp_path / "human"
    shutil.copytree(handed_in / "human", copy)
    (copy / "submission.yaml").write_text("name: [")
    line = steerboard("board", "build", copy, "--out", tmp_path / "out").one_line()
    assert "submission.yaml" in line


def test_a_folder_without_any_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not contain a run"):
        inputs([tmp_path])


@pytest.mark.parametrize(
    ("sources", "mixed"),
    [
        (["translations:nllb", "translations:nllb"], False),
        (["contrast:mine:aa11", "contrast:mine:bb22 (3 held out)"], False),
        (["translations:nllb", "word-noise:0.3"], True),
        ([None, "word-noise:0.3"], False),
    ],
)
def test_a_method_whose_contrast_text_is_not_of_one_kind_says_so(tmp_path, sources, mixed):
    run, cells, work = Run(tmp_path), {}, {}
    for i, source in enumerate(sources):
        fit = {"rule": "r", **({"contrast": source} if source else {})}
        run.write_steering(f"s{i}", Steering((), {"fit": fit, "language": ("am", "he")[i]}))
        index = ("entry", "topic", ("am", "he")[i], 1)
        cells[index], work[index] = (run, f"c{i}"), SimpleNamespace(steering=f"s{i}")
    board: Any = SimpleNamespace(result_set=SimpleNamespace(cells=cells, work=work))
    note = contrasts(board)["entry"]  # of its row in the ranking
    assert note.startswith("Contrast text: ")
    assert note.endswith(", not of one kind: means over languages mix them.") is mixed
    found = steering_files(board, {"entry"})
    assert found is not None
    said = [rule for rule in found["rules"] if "not of one kind" in rule]
    assert bool(said) is mixed
    if mixed:
        assert said == [
            "The contrast text is not of one kind (translations:nllb, word-noise:0.3): means over languages mix them."
        ]
