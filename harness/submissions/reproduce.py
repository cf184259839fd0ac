"""Generate some cells of a submission again, from code or steering files, and compare the texts."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from harness.core.cells import Cell
from harness.core.checkpoints import Checkpoint, resolve_checkpoint
from harness.core.errors import MachineError, UserError
from harness.core.files import write_bytes
from harness.core.interventions import Steering
from harness.core.records import CellStatus, MethodIdentity
from harness.core.store import Run
from harness.methods.contract import FitContext, SteeringMethod
from harness.methods.registry import BUILT_IN, load_registry
from harness.submissions.card import Card, CardResult
from harness.submissions.check import CheckOutcome
from harness.submissions.files import CODE
from harness.submissions.lockfile import LockFile, Reproduction
from harness.submissions.report import cell_title
from harness.submissions.submission import find_locked

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class SpotCheck:
    """What is generated again: ``cells`` of one model, drawn with ``seed``.

    ``min_match``: the share of texts that have to be equal.
    """

    cells: int
    seed: int
    min_match: float = 0.9
    model: str | None = None
    revision: str | None = None
    device: str | None = None
    batch_size: int | None = None


class PrecomputedSteering(SteeringMethod):
    """The steering files of a submission with the suite's own prompts; fits nothing."""

    def __init__(self, identity: MethodIdentity) -> None:
        super().__init__()
        self._identity = identity

    @property
    def identity(self) -> MethodIdentity:
        """The method as in the keys of the cells."""
        return self._identity

    def fit(self, ctx: FitContext) -> Steering:
        """Return nothing: a cell whose steering has no file is not steered."""
        return Steering()


def reproduce(checked: CheckOutcome, wanted: SpotCheck, run_code: bool, console: Console) -> Reproduction | None:
    """Generate cells again and report the share of equal texts; None where that share is too low.

    Raises ``UserError`` where there is nothing to generate from, or the model is another.
    """
    submission, report = checked.submission, checked.report
    assert submission is not None
    card = submission.card
    method = _method(checked.folder, card, run_code)
    result, checkpoint = _model(card, wanted, method)
    claimed = submission.run(result)
    done = {cell: s for cell, s in checked.statuses[result.folder].items() if s.state == "ok"}
    drawn = sorted(random.Random(f"{wanted.seed}/{card.subject}").sample(sorted(done), min(wanted.cells, len(done))))
    if not drawn:
        raise UserError(f"{checked.folder} has no cell with texts of {result.model or 'no model'}.")
    with TemporaryDirectory(prefix="steerboard-verify-") as temporary:
        run = Run(Path(temporary))
        statuses = {cell: done[cell] for cell in drawn}
        _generate(checked, run, claimed, statuses, method, checkpoint, wanted, console)
        texts = equal = 0
        for cell, status in statuses.items():
            same, count = _compare(checked, run, claimed, cell, status)
            texts, equal = texts + count, equal + same
    share = equal / texts
    counts = f"{equal} of {texts} texts equal ({share:.1%})"
    report.facts["reproduced"] = f"{counts}, {len(drawn)} cells, seed {wanted.seed}"
    if share < wanted.min_match:
        problem = f"{share:.1%} of the texts are reproduced, below {wanted.min_match:.0%}"
        hint = "Use the device and versions of its manifest, or ask the author."
        report.add("problem", f"results/{result.folder}", problem, hint)
        return None
    return Reproduction(model=result.model or "no model", cells=len(drawn), texts=texts, equal=equal)


def mark_reproduced(checked: CheckOutcome, found: Reproduction, lock: LockFile) -> bool:
    """Raise the badge of a checked submission to ``reproduced``; False where it was not rescored before."""
    assert checked.submission is not None
    lock.check_writable()
    entry, _ = find_locked(lock, checked.submission)
    if entry is None:
        return False
    changes = {"badge": "reproduced", "reproduction": found}
    lock.put(checked.submission.card.name, entry.model_copy(update=changes))
    return True


def _method(folder: Path, card: Card, run_code: bool) -> SteeringMethod:
    """Return what writes the texts. Code of the submission runs only with ``run_code``."""
    if card.type == "outputs":
        raise UserError("type outputs: texts alone cannot be generated again, so there is nothing to verify.")
    if card.type == "vectors":
        return PrecomputedSteering(card.identity)
    if card.method.name not in BUILT_IN and not run_code:
        raise UserError(
            f"verify would run the code of {card.name}, on this machine and with your rights. Read "
            f"{card.entry_point or folder / CODE} first, then pass --run-code."
        )
    registry = load_registry([folder / CODE] if CODE in card.files else [])
    found = [m for m in registry.configure(card.method.name, card.config) if m.identity == card.identity]
    if not found:
        raise UserError(f"the code does not give {card.method_title} with the claimed options.")
    return found[0]


def _model(card: Card, wanted: SpotCheck, method: SteeringMethod) -> tuple[CardResult, Checkpoint | None]:
    """Return the result of the model that was given, and that model."""
    if not method.needs_model or all(result.model is None for result in card.results):
        return card.results[0], None
    if wanted.model is None:
        names = ", ".join(model.name for model in card.models)
        raise UserError(f"pass the model with --model: a directory or hub id of {names}.")
    checkpoint = resolve_checkpoint(wanted.model, wanted.revision)
    for result in card.results:
        model = card.model(result)
        if model and model.fingerprint == checkpoint.fingerprint:
            return result, checkpoint
    known = ", ".join(f"{model.name} {model.fingerprint}" for model in card.models)
    raise UserError(f"--model {wanted.model} has the weights {checkpoint.fingerprint}; results are of {known}.")


def _generate(
    checked: CheckOutcome,
    run: Run,
    claimed: Run,
    statuses: dict[str, CellStatus],
    method: SteeringMethod,
    checkpoint: Checkpoint | None,
    wanted: SpotCheck,
    console: Console,
) -> None:
    from harness.runner.generate import GenerationStage
    from harness.runner.prepare import RunPlan

    protocol = checked.protocols[claimed.path.name]
    corpus = protocol.require_corpus()
    if isinstance(method, PrecomputedSteering):
        for name in sorted({status.steering for status in statuses.values() if status.steering}):
            write_bytes(run.steering_path(name), claimed.files.read(f"steering/{name}.safetensors"))
    cells = [Cell(status.cell) for status in statuses.values()]
    identity = cells[0].key.model
    methods = {cells[0].key.method.model_dump_json(): method}
    cache = run.path / "activations"  # the submission's code runs here: it gets no cache that other runs read
    plan = RunPlan(run, protocol.suite, corpus, checkpoint, methods, cells, [], identity, cache=cache)
    GenerationStage(plan, console, wanted.device, None, wanted.batch_size).run()


def _compare(checked: CheckOutcome, run: Run, claimed: Run, cell: str, status: CellStatus) -> tuple[int, int]:
    """Return how many texts of a cell are equal, and how many there are; add a note where some are not."""
    before, again = claimed.generations(cell), run.status(cell)
    title, path = cell_title(status.cell), f"results/{claimed.path.name}/{cell}"
    if again is not None and again.state == "infra_error":  # says nothing about the submission
        raise MachineError(f"{title} could not be generated again: {again.reason}. Run the same command again.")
    if again is None or again.state != "ok":
        checked.report.add("note", path, f"{title}: {again.reason if again else 'no texts'}")
        return 0, len(before)
    pairs = zip(before, run.generations(cell), strict=True)
    same = sum(one.text == other.text for one, other in pairs)
    if same < len(before):
        checked.report.add("note", path, f"{title}: {len(before) - same} of {len(before)} texts differ")
    return same, len(before)
