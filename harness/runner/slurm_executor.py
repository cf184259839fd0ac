"""Workers of a run as an array job of SLURM, by submitit: each is ``steerboard work RUN`` on a node."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.core.errors import MachineError, UserError, require
from harness.core.threads import VARIABLES
from harness.runner.event_log import LOGS
from harness.runner.local import PATIENCE, LocalWorkers, work_command
from harness.runner.prepare import RunOptions, RunPlan

_REQUEUES = 100  # times that a job is put back into the queue at its time limit, as long as cells are left
_OURS = {"array", "error", "open_mode", "output", "signal"}
_ENDED = {0, 1}  # exit codes of a worker that found every cell settled; 1 where cells have failed


@dataclass
class WorkerJob:
    """What a job does: it runs a worker as a process of its own, which a signal to this one cannot stop half-way."""

    command: list[str]
    _process: subprocess.Popen[bytes] | None = None

    def __call__(self, number: int) -> None:
        """Wait for the end of the worker; raises ``MachineError`` where cells may be left."""
        cores = os.environ.get("SLURM_CPUS_PER_TASK")
        self._process = subprocess.Popen(  # noqa: S603
            self.command,
            env={**os.environ, **(dict.fromkeys(VARIABLES, cores) if cores else {})},
            preexec_fn=_ignore_notice,
        )
        while self._process.poll() is None:  # not wait(): a signal handler that waits as well would hang
            time.sleep(0.2)
        if self._process.returncode not in _ENDED:
            raise MachineError(f"the worker ended with code {self._process.returncode}; its output is above.")

    def checkpoint(self, number: int) -> Any:
        """Let the worker give its cells back before the job ends; return what goes into the queue again."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return DelayedSubmission(WorkerJob(self.command), number)


def _ignore_notice() -> None:
    """Ignore the notice that SLURM sends to every process of a job: the one above acts on it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def submit_run(plan: RunPlan, options: RunOptions, console: Console) -> str:
    """Write the manifest and submit the workers of a run; return the id of the job, empty where no cell is open.

    Raises ``UserError`` where there is no SLURM here, and where it refuses the job.
    """
    require("slurm")
    executor = slurm_executor(plan.run.path.absolute() / LOGS / "slurm", options.slurm)
    with plan.run.lock(shared=True):
        stage = LocalWorkers.begin(plan, replace(options, device_map=None), console)
        words = stage.words() + (["--device-map", options.device_map] if options.device_map else [])
        return (
            submit_workers(executor, words, options.workers or 1)[0].job_id.partition("_")[0]
            if stage.open_cells
            else ""
        )


def slurm_executor(folder: Path, options: Mapping[str, str]) -> Any:
    """Return what submits jobs with the options of sbatch, whose output goes to a folder."""
    import submitit

    given = {key.replace("-", "_"): value or True for key, value in options.items()}
    if wrong := _OURS & {*given}:
        raise UserError(f"--slurm {min(wrong)} is set by steerboard. Leave it out.")
    if "time" not in given:
        raise UserError("SLURM needs a time limit: give --slurm time=4:00:00. At the limit, a worker is queued again.")
    if not (shutil.which("sbatch") and shutil.which("srun")):
        raise UserError("there is no sbatch on this machine. Run this on a login node of a SLURM cluster.")
    executor = submitit.SlurmExecutor(folder, max_num_timeout=_REQUEUES)
    executor.update_parameters(
        job_name="steerboard", stderr_to_stdout=True, additional_parameters=given, array_parallelism=10**6
    )
    return executor


def submit_workers(executor: Any, words: list[str], number: int) -> list[Any]:
    """Submit so many workers and return their jobs; ``words``: those of the command after ``steerboard work``."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with redirect_stderr(StringIO()):  # submitit repeats there what sbatch says
            jobs: list[Any] = executor.map_array(WorkerJob(work_command(words)), range(1, number + 1))
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        lines = str(getattr(error, "stderr", "") or error).strip().splitlines() or [""]
        raise UserError(f"SLURM refused the job: {lines[-1]:.300}") from None
    return jobs
