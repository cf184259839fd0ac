"""What may change in a submission that was checked: anything under a higher version, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.core.errors import UserError
from harness.submissions.lockfile import LockedSubmission, LockFile, Lockfile
from harness.submissions.submission import ChangedError, Submission, check_unchanged


def check_version(submission: Submission, lock: LockFile) -> None:
    """Raise ``UserError`` where other texts than the locked ones come under the same or a lower version.

    Other scores of the same texts are fine: whoever writes the lockfile has just measured them.
    """
    name, version = submission.card.name, submission.card.version
    before = lock.body.submissions.get(name)
    if before is None or version > before.version:
        return
    if version < before.version:
        raise UserError(f"{name}: version {version} is below the locked {before.version}. Raise 'version'.")
    try:
        check_unchanged(before, submission, texts_only=True)
    except ChangedError as error:
        raise UserError(
            f"{name}: {error}, which version {version} in {lock.path} does not have. Raise 'version' in "
            f"submission.yaml, or give it up on purpose: steerboard submission list --allow-removed {name}."
        ) from None


def check_against(entry: LockedSubmission, submission: Submission) -> None:
    """Raise ``ChangedError`` where a published submission was changed under the same version or has a lower one."""
    version = submission.card.version
    if version < entry.version:
        raise ChangedError(f"version {version} is below the published {entry.version}. Raise it")
    if version == entry.version:
        try:
            check_unchanged(entry, submission)
        except UserError as error:
            reason = str(error).rstrip(".")
            raise ChangedError(f"{reason}. Restore it, or raise 'version' in submission.yaml") from None


def regressions(lock: Lockfile, found: Mapping[str, Submission]) -> Iterator[tuple[str, str]]:
    """Yield name and reason of every published submission that is gone or was changed under the same version."""
    for name, entry in lock.submissions.items():
        if name not in found:
            hint = f"Restore it, or remove it on purpose: steerboard submission list --allow-removed {name}"
            yield name, f"was published and is gone. {hint}"
            continue
        try:
            check_against(entry, found[name])
        except ChangedError as error:
            yield name, str(error)
