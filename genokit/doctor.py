"""What this machine and account offer the kit, what is missing, and what to do about it.

Nothing here raises, changes anything or waits long: a check that goes wrong is a row that says so.
"""

from __future__ import annotations

import contextlib
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
from genokit.config import FILE, Settings, check_home, nearest, unknown_variables
from genokit.display import Html, size, stack, table
from genokit.errors import GenokitError

TIMEOUT_S = 5.0
ENGINE_TIMEOUT_S = 60.0  # a first import of MXNet from a cold disk is slow
PACKAGES = (
    "numpy", "pandas", "matplotlib", "duckdb", "papermill", "nbconvert", "ipykernel", "ipywidgets", "boto3", "pyarrow",
    "requests", "tqdm",
)  # fmt: skip
LITTLE_SPACE = 2 * 1024**3


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
        states = {row.state for row in self.rows}
        return next(state for state in ("problem", "warning", "ok") if state in states or state == "ok")

    def __repr__(self) -> str:
        wanting = " ".join(", ".join(row.check for row in self.rows if row.state != "ok").split())
        return f"<HealthReport {self.state}: {wanting or 'all is well'}>"

    def _repr_html_(self) -> Html:
        found = [{"check": r.check, "state": r.state, "found": r.detail, "what to do": r.todo} for r in self.rows]
        return stack(table(found), Html("") if self.settings is None else self.settings._repr_html_())

    def __str__(self) -> str:
        signs = {"ok": "✓", "warning": "!", "problem": "✕"}
        wide = max(len(row.check) for row in self.rows)
        lines = []
        for row in self.rows:
            lines.append(f"{signs[row.state]} {row.state:<8} {row.check:<{wide}}  {row.detail}")
            if row.todo:
                lines.append(f"{'':{wide + 11}}  -> {row.todo}")
        if self.settings is not None:
            lines += ["", "Settings"]
            for name, value in self.settings.items():
                lines.append(f"  {name:<10} {'-' if value is None else value}   ({self.settings.origins[name]})")
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
        "kernel": _kernel,
        "GPU": _gpu,
        "containers": _containers,
        "package sources": _package_sources,
    }
    if settings is not None:
        checks |= {name: partial(_folder, name, getattr(settings, name)) for name in ("home", "cache", "runs")}
        checks["manifests"] = partial(_manifests, settings)
        checks |= {name: partial(check, settings) for name, check in BACKEND_CHECKS[settings.backend].items()}
    wanted = {name: check for name, check in checks.items() if only is None or name in only}
    rows = [HealthCheck(name, *_guarded(check)) for name, check in wanted.items()]
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
        return (
            "warning",
            f"unknown variables {', '.join(unknown)}",
            "They are not settings and have no effect: unset them.",
        )
    origins = sorted({origin for origin in settings.origins.values() if origin != "default"})
    return "ok", f"from {', '.join(origins) or f'defaults: no {FILE} here or above'}"


def _python() -> Result:
    detail = f"{platform.python_version()} at {sys.executable}, genokit {__version__}, {platform.platform(terse=True)}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return "ok", detail
    return "problem", detail, "Use Python 3.11 to 3.13: make setup"


def _packages() -> Result:
    versions: dict[str, str] = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    detail = ", ".join(f"{name} {version}" for name, version in versions.items())
    if missing := [name for name in PACKAGES if name not in versions]:
        return "problem", f"missing: {', '.join(missing)}; {detail}", "Install the environment: make setup"
    return "ok", detail


def _engine() -> Result:
    # In a process of its own: MXNet fixes its threads when it loads, and a broken library may end the process.
    code = "from genokit.train.mxnet import load; print(load().__version__)"
    done = _output([sys.executable, "-c", code], ENGINE_TIMEOUT_S, Path(__file__).parents[1])
    if done.returncode == 0:
        return "ok", f"{done.stdout.strip().splitlines()[-1]} loads: LeNet trains on this machine"
    last = ([line for line in done.stderr.splitlines() if line.strip()] or ["no message"])[-1]
    reason = last.removeprefix("genokit.errors.MissingDependency: ")
    return "warning", "does not load: LeNet cannot train on this machine", reason


def _kernel() -> Result:
    from jupyter_client.kernelspec import KernelSpecManager

    if kernels := KernelSpecManager().find_kernel_specs():
        return "ok", f"Jupyter finds {', '.join(sorted(kernels))}"
    return "problem", "Jupyter finds no kernel: no notebook can run", "python -m ipykernel install --sys-prefix"


def _gpu() -> Result:
    if shutil.which("nvidia-smi") is None:
        return "ok", "none here; training runs on the CPU"
    done = _output(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], TIMEOUT_S)
    if done.returncode == 0 and done.stdout.strip():
        return "ok", "; ".join(line.strip() for line in done.stdout.strip().splitlines())
    said = " ".join((done.stderr or done.stdout).split())[:200] or f"exit code {done.returncode}"
    return "warning", f"nvidia-smi says: {said}", "Check the NVIDIA driver; until then the CPU is used."


def _containers() -> Result:
    found = [name for name in ("docker", "podman") if shutil.which(name)]
    if not found:
        return "ok", "neither docker nor podman; jobs with the image 'genokit' need neither"
    answers = {name: _output([name, "info", "--format", "{{json .}}"], TIMEOUT_S) for name in found}
    if working := [name for name, done in answers.items() if done.returncode == 0]:
        return "ok", f"{', '.join(working)} answers"
    todo = f"Start {found[0]} to run jobs with other images; jobs with the image 'genokit' do not need it."
    return "warning", f"{', '.join(found)} installed but not answering", todo


def _package_sources() -> Result:
    # Not by find_spec, whose hook for pip warns once MXNet has loaded distutils.
    has = {"pip": any(importlib.metadata.distributions(name="pip")), "npm": shutil.which("npm") is not None}
    missing = [name for name, there in has.items() if not there]
    if not missing:
        return "ok", "pip and npm: data published as packages can be fetched"
    todo = f"Install {' and '.join(missing)}, or set a mirror: mirrors = [...] in {FILE}."
    return "warning", f"no {' and no '.join(missing)}: such data sources are skipped", todo


def _folder(name: str, folder: Path) -> Result:
    if name == "home":
        check_home(folder)
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    todo = f'Choose another folder: {name} = "..." in {FILE}, or GENOKIT_{name.upper()}.'
    if not place.is_dir():
        return "problem", f"'{place}' is not a folder", todo
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        return "problem", f"'{place}' cannot be written to: {error.strerror}", todo
    free = shutil.disk_usage(place).free
    detail = f"{folder}, {size(free)} free"
    if free < LITTLE_SPACE:
        return "warning", detail, f"Free some space: less than {size(LITTLE_SPACE)} is little for data and runs."
    return "ok", detail


def _manifests(settings: Settings) -> Result:
    folder = settings.manifests or nearest("data_manifests") or Path(__file__).parent / "data" / "manifests"
    if names := sorted(file.parent.name for file in folder.glob("*/datapackage.json")):
        return "ok", f"{', '.join(names)} in {folder}"
    return "warning", f"none in {folder}", f'Work in the repository, or set manifests = "..." in {FILE}.'


def _embedded(settings: Settings) -> Result:
    status = backends.account(settings).status()
    jobs, stuck = status.get("jobs"), status.get("stuck")
    counts = ", ".join(f"{count} {state}" for state, count in jobs.items()) if isinstance(jobs, Mapping) else ""
    supervisor = status.get("supervisor")
    activity = f"running, process {supervisor}" if supervisor else "at rest; it starts with the next job"
    detail = f"{activity}; jobs: {counts or 'none yet'}"
    if status.get("problem"):
        todo = f"See supervisor.log in {settings.home}. To start afresh: genokit local clean."
        return "problem", f"{detail}. {status['problem']}", todo
    if isinstance(stuck, Mapping) and stuck:
        job_id, reason = next(iter(stuck.items()))
        more = f" The same goes for {len(stuck) - 1} more." if len(stuck) > 1 else ""
        return "warning", f"{detail}. Job {job_id} can never start: {reason}{more}", "Request less, or terminate it."
    return "ok", detail


def _identity(settings: Settings) -> Result:
    try:
        session = _session(settings)
        if not session.region_name:
            return "problem", "no region is set", f'Set region = "..." in {FILE}, or GENOKIT_REGION.'
        identity = session.client("sts", config=_quick()).get_caller_identity()
    except Exception as error:  # of botocore's many, each for a way in which signing in fails
        return "problem", str(error), "Sign in (aws sso login, or aws configure), and check profile and region."
    return "ok", f"{identity['Arn']} in {session.region_name}"


def _queues(settings: Settings) -> Result:
    # Not the kit's own client, which is patient with a service that does not answer.
    with backends.translated_errors("AWS Batch"):
        queues = _session(settings).client("batch", config=_quick()).describe_job_queues()["jobQueues"]
    if not queues:
        return "warning", "has no job queue", "Create one: genokit stack deploy. Or check the region."
    names = [f"{queue['jobQueueName']} {queue['state']} {queue.get('status', '')}".strip() for queue in queues]
    return "ok", f"queues: {', '.join(names)}"


def _session(settings: Settings) -> Any:
    import boto3

    return boto3.Session(profile_name=settings.profile, region_name=settings.region)


def _quick() -> Any:
    from botocore.config import Config

    return Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 1})


# The checks of each backend; only backends.py decides which one is used.
BACKEND_CHECKS: dict[str, dict[str, Callable[[Settings], Result]]] = {
    "local": {"embedded account": _embedded},
    "aws": {"AWS identity": _identity, "AWS Batch": _queues},
}


def _output(command: list[str], timeout_s: float, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program and return its output; one that cannot start or takes too long counts as failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
            stdin=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {timeout_s:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
