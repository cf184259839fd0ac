"""What worker processes of tests do; importable by name, since it is sent to them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_info

from harness.core.errors import DamagedFileError, InvalidFileError

CLAIM_AND_DIE = """
import os, sys
from pathlib import Path
from harness.runner.claims import Claims
claims = Claims(Path(sys.argv[1])).__enter__()
assert all([claims.take(name) for name in sys.argv[2:]])
os._exit(0)  # as a kill does: nothing is given back
"""
"""Code of a process that claims names in a run and dies without giving them back."""


@dataclass(frozen=True)
class Script:
    """Write a file per item into ``folder``, named by the item and holding the process id; items say what else."""

    folder: Path

    def __call__(self) -> Callable[[str], None]:
        """Return the work on an item; say that it was made."""
        (self.folder / f"made.{os.getpid()}").touch()
        return self.work

    def work(self, item: str) -> None:
        """Do what an item says."""
        path = self.folder / item
        again = path.exists()
        path.write_text(str(os.getpid()))
        if item.startswith("refuse"):
            raise InvalidFileError(item, "is bad", "Mend it.")
        if item.startswith("damaged"):
            raise DamagedFileError(f"{item} was edited")
        if item.startswith("fault"):
            raise ZeroDivisionError(item)
        if item.startswith("die") and not (again and "once" in item):
            os.kill(os.getpid(), signal.SIGKILL)
        if item.startswith("sleep"):
            time.sleep(600)
        if item.startswith("threads"):
            path.write_text(str(max(pool["num_threads"] for pool in threadpool_info())))
