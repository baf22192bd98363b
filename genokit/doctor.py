"""What this machine and account offer the kit, what is missing, and what to do about it.

Nothing here raises, changes anything or waits long: a check that goes wrong is a row that says so.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from genokit import __version__, backends
from genokit.config import FILE, Settings, check_home, unknown_variables
from genokit.display import Html, size, stack, table
from genokit.errors import GenokitError

TIMEOUT_S = 5.0
ENGINE_TIMEOUT_S = 60.0  # a first import of MXNet from a cold disk is slow
PACKAGES = ("numpy", "pandas", "matplotlib", "duckdb", "papermill", "ipykernel", "ipywidgets", "boto3", "pyarrow")
LITTLE_SPACE = 2 * 1024**3
SIGNS = {"ok": "✓", "warning": "!", "problem": "✕"}


@dataclass(frozen=True)
class HealthCheck:
    """The result of one check: ``state`` is "ok", "warning" (something will not work) or "problem" (most things
    will not)."""

    check: str
    state: str
    detail: str
    todo: str = ""


@dataclass(frozen=True)
class HealthReport:
    """The results of all checks, and the settings if they could be read."""

    rows: tuple[HealthCheck, ...]
    settings: Settings | None

    @property
    def state(self) -> str:
        """The worst state of all checks."""
        return max((row.state for row in self.rows), key=list(SIGNS).index)

    def __repr__(self) -> str:
        wanting = " ".join(", ".join(row.check for row in self.rows if row.state != "ok").split())
        return f"<HealthReport {self.state}: {wanting or 'all is well'}>"

    def _repr_html_(self) -> Html:
        found = [{"check": r.check, "state": r.state, "found": r.detail, "what to do": r.todo} for r in self.rows]
        return stack(table(found), Html("") if self.settings is None else self.settings._repr_html_())

    def __str__(self) -> str:
        wide = max(len(row.check) for row in self.rows)
        lines = []
        for row in self.rows:
            lines.append(f"{SIGNS[row.state]} {row.state:<8} {row.check:<{wide}}  {row.detail}")
            if row.todo:
                lines.append(f"{'':{wide + 11}}  -> {row.todo}")
        if self.settings is not None:
            lines += ["", "Settings"]
            for name, value in self.settings.items():
                lines.append(f"  {name:<14} {'-' if value is None else value}   ({self.settings.origins[name]})")
        return "\n".join(lines)


# What a check returns: state and detail, and what to do where the state is not ok.
Result = tuple[str, str] | tuple[str, str, str]


def doctor(settings: Settings | None = None, *, only: Collection[str] | None = None) -> HealthReport:
    """Check everything the kit depends on, and say how to fix what is missing; takes a few seconds.

    Parameters
    ----------
    settings : Settings, optional
        Default: those of this process. If they cannot be read, that is a row, and checks that need them are left out.
    only : collection of str, optional
        Names of the checks to make. Default: all.

    Returns
    -------
    HealthReport
        One row per check.
    """
    try:
        settings = settings or Settings.load()
        result = _settings(settings)
    except GenokitError as error:
        result = "problem", str(error), "Correct it; checks that need settings were left out."
    checks: dict[str, Callable[[], Result]] = {
        "Python": _python,
        "packages": _packages,
        "MXNet": _engine,
        "GPU": _gpu,
        "containers": _containers,
    }
    if settings is not None:
        checks |= {name: partial(_folder, name, getattr(settings, name)) for name in ("home", "cache", "runs")}
        checks |= {name: partial(check, settings) for name, check in BACKEND_CHECKS[settings.backend].items()}
    rows = [HealthCheck(name, *_guarded(check)) for name, check in checks.items() if only is None or name in only]
    return HealthReport((HealthCheck("settings", *result), *rows), settings)


def _guarded(check: Callable[[], Result]) -> Result:
    try:
        return check()
    except ImportError as error:
        return "problem", str(error), "Install the environment: make setup"
    except GenokitError as error:
        return "problem", str(error)
    except Exception as error:  # whatever is broken about this machine must not hide the other rows
        return "problem", f"{type(error).__name__}: {error}".strip(": ")


def _settings(settings: Settings) -> Result:
    if unknown := unknown_variables(os.environ):
        return "warning", f"unknown variables {', '.join(unknown)}", "They have no effect: unset them."
    origins = sorted({origin for origin in settings.origins.values() if origin != "default"})
    return "ok", f"from {', '.join(origins) or f'defaults: no {FILE} here or above'}"


def _python() -> Result:
    detail = f"{platform.python_version()} at {sys.executable}, genokit {__version__}, {platform.platform(terse=True)}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return "ok", detail
    return "problem", detail, "Use Python 3.11 to 3.13: make setup"


def _packages() -> Result:
    return "ok", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)


def _engine() -> Result:
    # In a process of its own: MXNet fixes its threads when it loads, and a broken library may end the process.
    code = "from genokit.train.mxnet import load; print(load().__version__)"
    said, error = _output([sys.executable, "-c", code], ENGINE_TIMEOUT_S)
    if error:
        reason = error.splitlines()[-1].removeprefix("genokit.errors.MissingDependency: ")
        return "warning", "does not load: LeNet cannot train on this machine", reason
    return "ok", f"{said.splitlines()[-1]} loads: LeNet trains on this machine"


def _gpu() -> Result:
    if shutil.which("nvidia-smi") is None:
        return "ok", "none here; training runs on the CPU"
    said, error = _output(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    if error:
        return "warning", f"nvidia-smi says: {error[:200]}", "Check the NVIDIA driver; until then the CPU is used."
    return "ok", "; ".join(said.splitlines())


def _containers() -> Result:
    found = [name for name in ("docker", "podman") if shutil.which(name)]
    if not found:
        return "ok", "neither docker nor podman; jobs with the image 'genokit' need neither"
    if working := [name for name in found if not _output([name, "info", "--format", "{{json .}}"])[1]]:
        return "ok", f"{', '.join(working)} answers"
    todo = f"Start {found[0]} to run jobs with other images; jobs with the image 'genokit' do not need it."
    return "warning", f"{', '.join(found)} installed but not answering", todo


def _folder(name: str, folder: Path) -> Result:
    if name == "home":
        check_home(folder)
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        todo = f'Choose another folder: {name} = "..." in {FILE}, or GENOKIT_{name.upper()}.'
        return "problem", f"'{place}' cannot be written to: {error.strerror}", todo
    free = shutil.disk_usage(place).free
    if free < LITTLE_SPACE:
        return "warning", f"{folder}, {size(free)} free", "Free some space: this is little for data and runs."
    return "ok", f"{folder}, {size(free)} free"


def _embedded(settings: Settings) -> Result:
    status: Mapping[str, Any] = backends.account(settings).status()
    counts = ", ".join(f"{count} {state}" for state, count in status["jobs"].items())
    supervisor = status["supervisor"]
    activity = f"running, process {supervisor}" if supervisor else "at rest; it starts with the next job"
    detail = f"{activity}; jobs: {counts or 'none yet'}"
    if status["problem"]:
        todo = f"See supervisor.log in {settings.home}. To start afresh: genokit local clean."
        return "problem", f"{detail}. {status['problem']}", todo
    for job_id, reason in status["stuck"].items():
        return "warning", f"{detail}. Job {job_id} can never start: {reason}", "Request less, or terminate it."
    return "ok", detail


def _identity(settings: Settings) -> Result:
    try:
        sts = _quick_client(settings, "sts")
        return "ok", f"{sts.get_caller_identity()['Arn']} in {sts.meta.region_name}"
    except Exception as error:  # of botocore's many, each for a way in which signing in fails
        return "problem", str(error), "Sign in (aws sso login, or aws configure), and check profile and region."


def _queues(settings: Settings) -> Result:
    with backends.translated_errors("AWS Batch"):
        queues = _quick_client(settings, "batch").describe_job_queues()["jobQueues"]
    if not queues:
        return "warning", "has no job queue", "Create one: genokit stack deploy. Or check the region."
    return "ok", "queues: " + ", ".join(f"{one['jobQueueName']} {one['state']}" for one in queues)


def _quick_client(settings: Settings, service: str) -> Any:
    """A client of AWS; the kit's own is patient with a service that does not answer."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 1})
    return boto3.Session(profile_name=settings.profile, region_name=settings.region).client(service, config=config)


# The checks of each backend; only backends.py decides which one is used.
BACKEND_CHECKS: dict[str, dict[str, Callable[[Settings], Result]]] = {
    "local": {"embedded account": _embedded},
    "aws": {"AWS identity": _identity, "AWS Batch": _queues},
}


def _output(command: list[str], timeout_s: float = TIMEOUT_S) -> tuple[str, str]:
    """What a program prints; or why it failed: what it said, that it could not start, or that it took too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
            stdin=subprocess.DEVNULL, cwd=Path(__file__).parents[1],
        )  # fmt: skip
    except (subprocess.TimeoutExpired, OSError) as error:
        return "", str(error)
    said = done.stdout.strip()
    return (said, "") if done.returncode == 0 else ("", done.stderr.strip() or said or f"exit code {done.returncode}")
