"""The command ``steerboard doctor``: whether this machine has what a run needs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from harness.core.errors import EXTRAS, in_words, pasted

CheckStatus = Literal["ok", "warning", "missing"]

_ALSO = ("numpy", "pandas", "pydantic", "safetensors", "scipy")  # of the packages that are always installed
_NO_LOCKS = "is on a file system without locks"
_LITTLE = 2e9  # bytes of disk: a run of some languages and a small model no longer fit
_PATIENCE = 3.0  # seconds for an answer of the hub
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads its variables
_PROXY_REFUSED = 407


@dataclass(frozen=True)
class MachineCheck:
    """What was found. ``missing``: 'steerboard run' needs it; ``next``: what to do about it."""

    name: str
    status: CheckStatus
    found: str
    next: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """Check whether this machine has what a run needs.

    Versions, devices, threads, memory, disk, permissions, cache and hub. The output can be pasted into an issue:
    it holds no token, and the home folder is written as ~. Exit code 0; 1 where something is missing that
    'steerboard run' needs. Example:

        steerboard doctor
    """
    from harness.core.schema import SCHEMA
    from harness.core.terminal import format_json, output

    found = [_without_home(check) for check in check_machine()]
    missing = any(check.status == "missing" for check in found)
    if as_json:
        checks = [asdict(check) for check in found]
        typer.echo(format_json({"schema": SCHEMA, "ok": not missing, "checks": checks}))
    else:
        _print(output(), found)
        again = "do what 'missing' says above, then 'steerboard doctor' again"
        typer.echo(f"next: {again if missing else pasted('demo')}")
    raise typer.Exit(int(missing))


def check_machine() -> list[MachineCheck]:
    """Return everything that was looked at, in the order in which it is shown."""
    parts: list[Callable[[], list[MachineCheck]]] = [
        *(_versions, _processor, _threads, _memory, _devices, _run_folder, _cache_folder, _hub, _extras)
    ]
    return [check for part in parts for check in part()]


def _print(console: Any, checks: list[MachineCheck]) -> None:
    from rich.table import Table
    from rich.text import Text

    from harness.core.terminal import strip_control

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_column(no_wrap=True)
    styles = {"ok": "green", "warning": "yellow", "missing": "red"}
    for check in checks:
        status = Text(check.status, style=styles[check.status])
        grid.add_row(Text(check.name), Text(strip_control(check.found)), status)
        if check.next:
            grid.add_row(Text(), Text(f"next: {strip_control(check.next)}"), Text())
    console.print(grid)


def _without_home(check: MachineCheck) -> MachineCheck:
    """Return a check whose paths begin with ~ where they are in the home folder."""
    home = re.compile(rf"{re.escape(str(Path.home()))}(?=[/\s;,:)]|$)")
    return MachineCheck(check.name, check.status, home.sub("~", check.found), home.sub("~", check.next))


def _versions() -> list[MachineCheck]:
    import platform

    from harness.core.version import __version__

    python = f"{platform.python_version()} on {platform.system()} {platform.release()}, {platform.machine()}"
    packages = {module: package for extra in ("board", "run") for module, package in EXTRAS[extra].items()}
    gone = [package for module, package in packages.items() if not _is_installed(module)]
    known = {name: _version_of(name) for name in [*dict.fromkeys(packages.values()), *_ALSO]}
    listed = ", ".join(f"{name} {number}" for name, number in known.items() if number)
    checks = [
        MachineCheck("steerboard", "ok", __version__),
        MachineCheck("python", "ok", python),
        MachineCheck("packages", "ok", listed),
    ]
    if gone:
        checks.append(MachineCheck("packages", "missing", f"not installed: {', '.join(gone)}", _install("run")))
    return checks


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # half of a package
        return False


def _install(*extras: str) -> str:
    return f"pip install 'steerboard[{','.join(extras)}]'"


def _processor() -> list[MachineCheck]:
    from harness.core.machine import bfloat16_units, cpu_name
    from harness.core.threads import usable_cores

    units = ", ".join(bfloat16_units())
    precision = f"units for bfloat16: {units}; models run in float32 all the same" if units else "no units for bfloat16"
    return [MachineCheck("cpu", "ok", f"{cpu_name()}; {usable_cores()} of {os.cpu_count()} cores usable; {precision}")]


def _threads() -> list[MachineCheck]:
    from harness.core.machine import cpu_quota
    from harness.core.threads import VARIABLES, allowed_threads

    asked, used, quota = os.environ.get(VARIABLES[0], ""), allowed_threads(), cpu_quota()
    found = f"{used} at most, as without --threads; {VARIABLES[0]} is {asked or 'not set'}"
    if asked and not (asked.isdecimal() and int(asked)):
        return [MachineCheck("threads", "warning", found, f"set {VARIABLES[0]} to a whole number, or give --threads")]
    if quota is not None and (fewer := max(1, int(quota))) < used:
        found += f"; the container has the time of {quota:g} cores"
        return [MachineCheck("threads", "warning", found, f"give --threads {fewer}")]
    return [MachineCheck("threads", "ok", found)]


def _memory() -> list[MachineCheck]:
    from harness.core.machine import memory
    from harness.core.terminal import format_size

    free, total = (format_size(number) if number is not None else "unknown" for number in memory())
    return [MachineCheck("memory", "ok", f"{free} free of {total}")]


def _devices() -> list[MachineCheck]:
    """Load torch, and return the GPUs that it can use."""
    if not _is_installed("torch"):
        return []  # among the packages that are missing
    try:
        import torch

        return _gpus(torch)
    except Exception as error:  # a broken installation or driver fails in many ways
        again = f"install torch again for this machine: {_install('run')}"
        return [MachineCheck("torch", "missing", f"does not load: {in_words(error):.300}", again)]


def _gpus(torch: Any) -> list[MachineCheck]:
    from harness.core.terminal import format_size

    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    if not torch.cuda.is_available():
        if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
            hint = "install a torch that is built for the CUDA of this driver (pytorch.org), or stay with --device cpu"
            return [MachineCheck("gpu", "warning", f"torch cannot use the GPU of this machine; it is {build}", hint)]
        return [MachineCheck("gpu", "ok", f"none; models run on the CPU (torch is {build})")]
    checks = []
    for number in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(number)
        free, total = torch.cuda.mem_get_info(number)
        with torch.cuda.device(number):
            units = torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "units for bfloat16" if units else "no units for bfloat16, models run in float32"
        words = f"{torch.cuda.get_device_name(number)}, capability {major}.{minor}, {format_size(free)} free of"
        checks.append(
            MachineCheck(f"cuda:{number}", "ok", f"{words} {format_size(total)}; {precision}; torch is {build}")
        )
    return checks


def _run_folder() -> list[MachineCheck]:
    folder = Path("runs")
    where = f"{folder}/ in {Path.cwd()}"
    problem, free = _probe(folder)
    if problem == _NO_LOCKS:
        hint = "start one command on a run at a time, 'steerboard work' excepted"
        return [MachineCheck("runs", "warning", f"{where} {problem}", hint)]
    if problem:
        hint = "go to a folder on a local disk that can be written, or give --run FOLDER"
        return [MachineCheck("runs", "missing", f"{where} {problem}", hint)]
    return [_disk_check("runs", f"{where} can be written", free)]


def _cache_folder() -> list[MachineCheck]:
    from harness.core.cache import cache_folder
    from harness.runner.status_reader import folder_size

    folder = cache_folder("")
    problem, free = _probe(folder)
    if problem:
        hint = "set STEERBOARD_CACHE to a folder that can be written; until then nothing is cached"
        return [MachineCheck("cache", "warning", f"{folder} {problem}", hint)]
    from harness.core.terminal import format_size

    size = format_size(folder_size(folder)) if folder.is_dir() else "not there yet"
    return [_disk_check("cache", f"{folder}, {size}; can be written", free)]


def _disk_check(name: str, words: str, free: int) -> MachineCheck:
    from harness.core.terminal import format_size

    found = f"{words}; {format_size(free)} of disk free"
    if free < _LITTLE:
        return MachineCheck(name, "warning", found, "make room; 'steerboard plan' says what a run takes")
    return MachineCheck(name, "ok", found)


def _probe(folder: Path) -> tuple[str, int]:
    """Return why a folder that may not exist yet cannot be written or locked (empty if it can), and its free bytes."""
    import fcntl
    from tempfile import TemporaryFile

    above = folder.absolute()
    while not above.exists() and above != above.parent:
        above = above.parent
    try:
        with TemporaryFile(dir=above) as file:
            file.write(b"x")
            file.flush()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return _NO_LOCKS, 0
        return "", shutil.disk_usage(above).free
    except OSError as error:
        return f"cannot be written ({error.strerror})", 0


def _hub() -> list[MachineCheck]:
    """Return where models of the hub are kept and whether it answers; of a token only that there is one."""
    env = os.environ
    base = env.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = Path(env.get("HF_HOME") or Path(base) / "huggingface").expanduser()
    token = any(env.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    token = token or Path(env.get("HF_TOKEN_PATH") or home / "token").expanduser().is_file()
    found = f"HF_HOME {home}; {'a token is set' if token else 'no token: gated models need one'}"
    offline = next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if env.get(name)), "")
    if env.get(offline, "").upper() in _TRUE:
        return [MachineCheck("hub", "ok", f"{found}; offline ({offline}): only what is downloaded, or in folders")]
    address = env.get("HF_ENDPOINT") or "https://huggingface.co"
    host, problem = _host(address), _ask(address)
    if not problem:
        return [MachineCheck("hub", "ok", f"{found}; {host} answers")]
    hint = "check network and proxy, or use folders (--model, --data) and set HF_HUB_OFFLINE=1"
    return [MachineCheck("hub", "warning", f"{found}; {host} cannot be reached: {problem}", hint)]


def _host(address: str) -> str:
    """Return the host of an address, which may hold a password."""
    try:
        return urlsplit(address).hostname or "HF_ENDPOINT"
    except ValueError:
        return "HF_ENDPOINT"


def _ask(address: str) -> str:
    """Return why an address does not answer in time; empty if it does. Errors are named without the address."""
    import threading
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    if not address.startswith(("https://", "http://")):
        return "it is not an address that begins with https://"
    said: list[str] = []

    def ask() -> None:
        try:
            with urlopen(Request(address, method="HEAD"), timeout=_PATIENCE):  # noqa: S310 (see above)
                said.append("")
        except HTTPError as error:  # it answers, if not to this
            said.append("the proxy wants a password (407)" if error.code == _PROXY_REFUSED else "")
        except URLError as error:
            reason = error.reason
            said.append(getattr(reason, "strerror", None) or type(reason).__name__)
        except Exception as error:
            said.append(type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)  # a name server may keep it waiting for longer
    thread.start()
    thread.join(_PATIENCE + 0.5)
    return said[0] if said else f"no answer within {_PATIENCE:.0f} s"


def _extras() -> list[MachineCheck]:
    """Return which optional packages are installed, and how to get the others."""
    optional = [extra for extra in EXTRAS if extra not in {"board", "run"}]
    gone = [extra for extra in optional if any(not _is_installed(module) for module in EXTRAS[extra])]
    here = ", ".join(extra for extra in optional if extra not in gone)
    found = f"installed: {here or 'none'}"
    if gone:
        found += f"; not installed, only needed for what they are named after: {', '.join(gone)} ({_install(*gone)})"
    return [MachineCheck("extras", "ok", found)]
