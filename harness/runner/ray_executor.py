"""Workers of a run as actors of Ray, and its scoring as tasks: on this machine, or on a cluster that sees the folder.

Ray places the processes, gives them GPUs and restarts those that die. All else is as with other workers: they claim
cells by files in the run folder and write them there, so that ``steerboard work`` may join, and any may be killed.
"""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from rich.console import Console
from typing_extensions import override

from harness.core.cells import Cell
from harness.core.errors import MachineError, UserError, in_words, require, warn
from harness.core.store import Run
from harness.core.threads import allowed_threads, set_threads
from harness.runner.claims import EXPIRY_VARIABLE, POLL
from harness.runner.event_log import LOGS
from harness.runner.local import PATIENCE, LocalWorkers, Team
from harness.runner.prepare import RunOptions, RunPlan
from harness.runner.score import LIGHT, ScoringStage, ScoringWorker
from harness.runner.work import WorkOptions, join_work
from harness.runner.workers import Outcome

Stage = TypeVar("Stage")

_RESTARTS = 3  # of an actor, and trials of a task, after their process or machine failed
_ENCODER_GPU = 0.5  # of a GPU, for scorers that load an encoder
_STORE = 100 * 2**20  # bytes of Ray's object store: only cell ids and outcomes travel


@contextmanager
def ray_session(address: str | None, stage: Stage) -> Iterator[Stage]:
    """Join the Ray cluster at an address, or start Ray on this machine for the time of the block; yield ``stage``.

    Raises ``UserError`` where there is no cluster, or one of other versions.
    """
    require("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # what Ray says of workers that die; we say it ourselves
    import ray

    _check_address(address)
    here = {"num_cpus": allowed_threads(), "include_dashboard": False, "object_store_memory": _STORE}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **({} if address else here))
    except SystemExit as end:  # what Ray makes of SIGTERM
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(int(end.code or signal.SIGTERM))
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"at {address}" if address else "on this machine"
        raise UserError(f"Ray cannot be used {where}: {in_words(error):.300}") from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    try:
        yield stage
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Raise ``UserError`` where nothing answers at HOST:PORT; Ray itself would try for a minute."""
    if address in (None, "auto"):
        return
    host, _, port = str(address).rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()):
        raise UserError(f"--address {address} is not HOST:PORT. Give what 'ray start --head' printed, or auto.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at --address {address} ({in_words(error)}). Start one with 'ray start --head', or "
            "leave out --address: Ray is then started on this machine."
        ) from None


@dataclass(frozen=True)
class Share:
    """How many workers a cluster gets, and what each has: GPUs (a fraction where they share one) and cores."""

    workers: int
    gpus: float
    cores: float

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, Any]], asked: int | None, device: str | None) -> Self:
        """Return the share of the nodes that Ray lists: by default a worker per GPU, without GPUs one per node."""
        found = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU")]
        cpus = [float(node["CPU"]) for node in found]
        gpus = [0 if device == "cpu" else int(node.get("GPU", 0)) for node in found]
        if not any(gpus):
            workers = asked or max(1, len(found))
            each = min(max(cpus, default=1.0), sum(cpus) / workers)
            return cls(workers, 0.0, float(int(each)) if each >= 1 else each)
        workers = asked or sum(gpus)
        sharing = -(-workers // sum(gpus))
        each = min(c / g for c, g in zip(cpus, gpus, strict=True) if g) / sharing
        return cls(workers, 1 / sharing, float(int(each)) if each >= 1 else each)

    @property
    def resources(self) -> dict[str, float]:
        """What Ray is asked for."""
        return {"num_gpus": self.gpus, "num_cpus": self.cores}

    @property
    def threads(self) -> int:
        """Threads of a worker."""
        return max(1, int(self.cores))


class RayWorker:
    """A worker of a run in a process of Ray; its model is loaded once."""

    def __init__(self, run: Path, created: str, variables: dict[str, str], threads: int) -> None:
        os.environ.update(variables)
        set_threads(threads)
        self.run, self.created = run, created

    def work(self, log: Path, options: WorkOptions, orders: dict[str, Any]) -> None:
        """Write texts until every cell is settled; ``log``: the file for what it says.

        Raises errors with words alone, which can be sent; the process ends where it is told to by SIGTERM.
        """
        try:
            check_folder(self.run, self.created)
            with (
                log.open("a", encoding="utf-8", buffering=1) as said,
                redirect_stdout(said),
                redirect_stderr(said),
                _interruptible() as is_canceled,
            ):
                try:
                    stage = join_work(self.run, options, Console(file=said, width=120), orders)
                    stage.check()
                    stage.run()
                except KeyboardInterrupt:
                    if is_canceled():
                        return
                    os._exit(1)  # its cells are given back; Ray starts it again, here or elsewhere
        except Exception as error:
            raise _sendable(error) from None


def check_folder(path: Path, created: str) -> None:
    """Raise ``UserError`` where this machine does not see the run folder that the driver writes, of this creation."""
    run = Run(path)
    if not run.exists() or run.manifest().created != created:
        raise UserError(
            f"the node {socket.gethostname()} does not see the run folder {path} as the machine that started the run "
            "does. Choose a --run folder that all nodes share, or move cells with 'steerboard push' and 'pull'."
        )


def _sendable(error: Exception) -> Exception:
    """Return an error that another process can read: of ours with its words, of others with the traceback."""
    if not isinstance(error, UserError):
        return RuntimeError(f"in a worker: {''.join(traceback.format_exception(error))}")
    return (MachineError if isinstance(error, MachineError) else UserError)(str(error))


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Raise ``KeyboardInterrupt`` in the block where the driver cancels it, or at SIGTERM; yield what says which.

    Ray only sets a flag for the thread at work, hence the timer.
    """
    import ray

    context = ray.get_runtime_context()

    def look(number: int, frame: object) -> None:
        if context.is_canceled():
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's raises SystemExit, as methods may
    signal.signal(signal.SIGALRM, look)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, POLL, POLL)
    try:
        yield context.is_canceled
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@dataclass
class _Work:
    """What an actor is at, and why it ended early."""

    number: int
    log: Path
    actor: Any
    why: str = ""

    def how(self) -> str:
        """Return in words how it ended."""
        return f"worker {self.number} {self.why or 'ended'} ({self.log})"


class RayTeam(Team):
    """The workers of a run as actors of Ray. Those that still work when it is closed give their cells back."""

    def __init__(self, run: Run, share: Share, options: WorkOptions, orders: Mapping[str, Any]) -> None:
        import ray

        told, given = _task(run, share.threads), ray.put(orders)
        worker = ray.remote(RayWorker).options(max_restarts=_RESTARTS, max_task_retries=_RESTARTS, **share.resources)
        self._working: dict[Any, _Work] = {}
        self.last: Any = None
        (run.path / LOGS).mkdir(exist_ok=True)
        try:
            for i in range(1, orders["workers"] + 1):
                work = _Work(i, run.path.absolute() / LOGS / f"worker-{i}.log", worker.remote(*told))
                work.log.write_text("", encoding="utf-8")
                call = work.actor.work.options(retry_exceptions=[MachineError])
                self._working[call.remote(work.log, options, given)] = work
        except BaseException:
            self.close()
            raise

    @override
    def look(self) -> int:
        """Return how many workers run; warn of those that died too often. Raises ``UserError`` for bad input."""
        import ray

        for ref in ray.wait([*self._working], timeout=0)[0] if self._working else ():
            self.last = self._working.pop(ref)
            ray.kill(self.last.actor)  # its share is free for others
            self.last.why = _why(ref)
            if self.last.why and self._working:
                warn(f"{self.last.how()}; the others go on")
        return len(self._working)

    @override
    def close(self, at_once: bool = True) -> None:
        import ray

        if self._working and not at_once:
            ray.wait([*self._working], num_returns=len(self._working), timeout=PATIENCE)
        _cancel([*self._working])
        while self._working:
            ray.kill(self._working.popitem()[1].actor)


def _why(ref: Any) -> str:
    """Return why a worker's work ended early, empty where it has not; raise the error of bad input."""
    import ray

    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, MachineError):
            raise error.cause from None
        return f"failed: {error.cause}"
    except ray.exceptions.RayError as error:
        return f"died {_RESTARTS + 1} times: {in_words(error):.200}"
    return ""


@dataclass
class RayWorkers(LocalWorkers):
    """Starts actors of Ray, which write texts, waits until every cell is settled, and lets tasks of Ray score them."""

    share: ClassVar[Share]

    @classmethod
    @override
    def begin(cls, plan: RunPlan, options: RunOptions, console: Console) -> Self:
        """Read all text and write the manifest; the actors load the model."""
        import ray

        if options.device not in (None, "cpu", "cuda"):
            raise UserError(f"--device {options.device}: Ray chooses the GPU of each worker. Valid: cpu, cuda.")
        cls.share = Share.of(ray.nodes(), options.workers, options.device)
        return super().begin(plan, replace(options, workers=cls.share.workers), console)

    @cached_property
    @override
    def team(self) -> Team:
        run, orders = self.plan.run, self.orders()
        plugins = [Path(name).absolute() for name in run.manifest().plugins if Path(name).is_file()]
        options = WorkOptions(model=self.model, plugins=plugins, device=self.device, batch_size=self.batch_size)
        return RayTeam(run, self.share, options, {**orders, "workers": min(orders["workers"], len(orders["open"]))})

    @override
    def score(self, scoring: type[ScoringStage]) -> int:
        if "team" in vars(self):
            self.team.close(at_once=False)
        return RayScoring(self.plan, self.console).run()


def _task(run: Run, threads: int) -> tuple[Path, str, dict[str, str], int]:
    """Return what a process of Ray is told at its start."""
    passed = {name: os.environ[name] for name in (EXPIRY_VARIABLE,) if name in os.environ}
    return run.path.absolute(), run.manifest().created, passed, threads


def _cancel(refs: list[Any]) -> None:
    """Stop work that is not finished, and wait until it has stopped."""
    import ray

    if refs:
        for ref in refs:
            ray.cancel(ref)
        ray.wait(refs, num_returns=len(refs), timeout=PATIENCE)


@dataclass
class RayScoring(ScoringStage):
    """Scores cells as tasks of Ray: a core each, or a part of a GPU for scorers that load a model."""

    @override
    def _outcomes(self, cells: Sequence[Cell], names: Sequence[str]) -> Generator[Outcome]:
        import ray

        needs, number = _needs(LIGHT.issuperset(names))
        chunks = self.chunks(cells, number) if LIGHT.issuperset(names) else [[cell.id] for cell in cells]
        if len(chunks) < 2:
            yield from super()._outcomes(cells, names)
            return
        plan, run = self.plan, self.plan.run
        folder = plan.corpus.contrast_folder
        worker = ray.put(ScoringWorker(run.path.absolute(), plan.suite, plan.corpus.source, folder, tuple(names)))
        told = _task(run, int(needs["num_cpus"]))
        task = ray.remote(_score).options(max_retries=_RESTARTS, retry_exceptions=[MachineError], **needs)
        waiting, at = self.claimed(chunks, cells, names), dict[Any, list[str]]()
        try:
            while True:
                at |= {task.remote(told, worker, chunk): chunk for chunk in islice(waiting, number - len(at))}
                if not at:
                    return
                for ref in ray.wait([*at], timeout=POLL)[0]:
                    yield from _outcomes_of(ref, at.pop(ref))
        finally:
            _cancel([*at])


def _needs(light: bool) -> tuple[dict[str, float], int]:
    """Return what a task that scores asks for, and how many there is room for."""
    import ray

    total = ray.cluster_resources()
    cores, gpus = max(1, int(total.get("CPU", 1))), total.get("GPU", 0)
    if light:
        return {"num_cpus": 1}, cores
    if gpus:
        return {"num_cpus": 1, "num_gpus": _ENCODER_GPU}, int(gpus / _ENCODER_GPU)
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return {"num_cpus": max(1, *nodes)}, len(nodes)


def _score(told: tuple[Path, str, dict[str, str], int], worker: ScoringWorker, ids: list[str]) -> list[Outcome]:
    """Score cells in a process of Ray. Raises ``MachineError`` for a failure of the machine, so that it is repeated."""
    run, created, variables, threads = told
    os.environ.update(variables)
    set_threads(threads)
    check_folder(run, created)
    score = worker()
    found: list[Outcome] = []
    for name in ids:
        try:
            score(name)
            found.append((name, None))
        except Exception as error:
            sent = _sendable(error)
            if isinstance(sent, MachineError):
                raise sent from None
            found.append((name, sent))
    return found


def _outcomes_of(ref: Any, ids: list[str]) -> list[Outcome]:
    """Return what became of the cells of a task."""
    import ray

    try:
        found: list[Outcome] = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        return [(name, error.cause) for name in ids]
    except ray.exceptions.RayError as error:
        words = f"the process that scored {ids[0]} died {_RESTARTS + 1} times ({in_words(error):.200})"
        return [(name, MachineError(f"{words}. Finished work is kept: run the same command again.")) for name in ids]
    return found
