"""What this machine and account offer the kit, what is missing, and what to do about it.

Nothing here raises, changes anything or waits long: a check that goes wrong is a row that says so.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
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
# A first import of MXNet from a cold disk takes its time.
ENGINE_TIMEOUT_S = 60.0
PACKAGES = (
    "numpy", "pandas", "matplotlib", "duckdb", "papermill", "nbconvert", "ipykernel", "ipywidgets", "boto3", "pyarrow",
    "requests", "tqdm",
)  # fmt: skip
LITTLE_SPACE = 2 * 1024**3


@dataclass(frozen=True)
class HealthCheck:
    """One thing looked at: ``state`` is "ok", "warning" (something will not work) or "problem" (nothing much will)."""

    check: str
    state: str
    detail: str
    todo: str = ""


@dataclass(frozen=True)
class HealthReport:
    """What the doctor found, a row a check, and the settings if they could be read."""

    rows: tuple[HealthCheck, ...]
    settings: Settings | None

    @property
    def state(self) -> str:
        """The worst state of all."""
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
            values = self.settings.items()
            lines += ["", "Settings"]
            lines += [
                f"  {name:<10} {'-' if value is None else value}   ({self.settings.origins[name]})"
                for name, value in values
            ]
        return "\n".join(lines)


def doctor(settings: Settings | None = None, *, only: Collection[str] | None = None) -> HealthReport:
    """Look at everything the kit leans on and say what to do about what is not there; takes a few seconds.

    ``only`` names the checks to make (default: all). Settings that cannot be read are themselves a row, and the checks
    that need them are then left out.
    """
    row, settings = _settings(settings)
    checks: dict[str, Callable[[], HealthCheck]] = {
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
    return HealthReport(
        (row, *(_guarded(name, check) for name, check in checks.items() if only is None or name in only)), settings
    )


def _guarded(name: str, check: Callable[[], HealthCheck]) -> HealthCheck:
    try:
        return check()
    except GenokitError as error:
        return HealthCheck(name, "problem", str(error))
    except ImportError as error:
        return HealthCheck(name, "problem", str(error), "Install the environment: make setup")
    except Exception as error:  # whatever is broken about this machine must not hide the other rows
        return HealthCheck(name, "problem", f"{type(error).__name__}: {error}".strip(": "))


def _settings(settings: Settings | None) -> tuple[HealthCheck, Settings | None]:
    try:
        settings = settings or Settings.load()
    except GenokitError as error:
        return HealthCheck(
            "settings", "problem", str(error), "Correct it; what needs settings was not looked at."
        ), None
    strangers = unknown_variables(os.environ)
    if strangers:
        todo = "These are no settings and have no effect: unset them."
        return HealthCheck("settings", "warning", f"unknown variables {', '.join(strangers)}", todo), settings
    origins = sorted({origin for origin in settings.origins.values() if origin != "default"})
    return HealthCheck("settings", "ok", f"from {', '.join(origins) or f'defaults: no {FILE} here or above'}"), settings


def _python() -> HealthCheck:
    detail = f"{platform.python_version()} at {sys.executable}, genokit {__version__}, {platform.platform(terse=True)}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return HealthCheck("Python", "ok", detail)
    return HealthCheck("Python", "problem", detail, "Use Python 3.11 to 3.13: make setup")


def _packages() -> HealthCheck:
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    detail = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if missing:
        return HealthCheck(
            "packages", "problem", f"missing: {', '.join(missing)}; {detail}", "Install the environment: make setup"
        )
    return HealthCheck("packages", "ok", detail)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _engine() -> HealthCheck:
    # In a process of its own: MXNet fixes its threads when it loads, and a broken library may end the process.
    code = "from genokit.train.mxnet import load; print(load().__version__)"
    done = _output([sys.executable, "-c", code], ENGINE_TIMEOUT_S, Path(__file__).parents[1])
    if done.returncode == 0:
        return HealthCheck("MXNet", "ok", f"{done.stdout.strip().splitlines()[-1]} loads: LeNet trains on this machine")
    last = ([line for line in done.stderr.splitlines() if line.strip()] or ["no message"])[-1]
    reason = last.removeprefix("genokit.errors.MissingDependency: ")
    return HealthCheck("MXNet", "warning", "does not load: LeNet cannot train on this machine", reason)


def _kernel() -> HealthCheck:
    from jupyter_client.kernelspec import KernelSpecManager

    kernels = KernelSpecManager().find_kernel_specs()
    if kernels:
        return HealthCheck("kernel", "ok", f"Jupyter finds {', '.join(sorted(kernels))}")
    return HealthCheck(
        "kernel", "problem", "Jupyter finds no kernel: no notebook can run", "python -m ipykernel install --sys-prefix"
    )


def _gpu() -> HealthCheck:
    if shutil.which("nvidia-smi") is None:
        return HealthCheck("GPU", "ok", "none here; training runs on the CPU")
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = _output(query, TIMEOUT_S)
    if done.returncode == 0 and done.stdout.strip():
        return HealthCheck("GPU", "ok", "; ".join(line.strip() for line in done.stdout.strip().splitlines()))
    return HealthCheck(
        "GPU", "warning", f"nvidia-smi says: {_said(done)}", "Look after the NVIDIA driver; the CPU is used meanwhile."
    )


def _containers() -> HealthCheck:
    found = [name for name in ("docker", "podman") if shutil.which(name)]
    if not found:
        detail = "neither docker nor podman; jobs of the image 'genokit' need none"
        return HealthCheck("containers", "ok", detail)
    answers = {name: _output([name, "info", "--format", "{{json .}}"], TIMEOUT_S) for name in found}
    working = [name for name, done in answers.items() if done.returncode == 0]
    if working:
        return HealthCheck("containers", "ok", f"{', '.join(working)} answers")
    todo = f"Start {found[0]} to run jobs of other images; jobs of the image 'genokit' need none."
    return HealthCheck("containers", "warning", f"{', '.join(found)} installed but not answering", todo)


def _package_sources() -> HealthCheck:
    has = {"pip": importlib.util.find_spec("pip") is not None, "npm": shutil.which("npm") is not None}
    missing = [name for name, there in has.items() if not there]
    if not missing:
        return HealthCheck("package sources", "ok", "pip and npm: data that travel as packages can be fetched")
    todo = f"Install {' and '.join(missing)}, or have a mirror: mirrors = [...] in {FILE}."
    return HealthCheck(
        "package sources", "warning", f"no {' and no '.join(missing)}: such data sources are passed over", todo
    )


def _folder(name: str, folder: Path) -> HealthCheck:
    if name == "home":
        check_home(folder)
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    todo = f'Choose another folder: {name} = "..." in {FILE}, or GENOKIT_{name.upper()}.'
    if not place.is_dir():
        return HealthCheck(name, "problem", f"'{place}' is not a folder", todo)
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        return HealthCheck(name, "problem", f"'{place}' cannot be written to: {error.strerror}", todo)
    free = shutil.disk_usage(place).free
    detail = f"{folder}, {size(free)} free"
    if free < LITTLE_SPACE:
        return HealthCheck(
            name, "warning", detail, f"Make room: under {size(LITTLE_SPACE)} is little for data and runs."
        )
    return HealthCheck(name, "ok", detail)


def _manifests(settings: Settings) -> HealthCheck:
    folder = settings.manifests or nearest("data_manifests") or Path(__file__).parent / "data" / "manifests"
    names = sorted(file.parent.name for file in folder.glob("*/datapackage.json"))
    if names:
        return HealthCheck("manifests", "ok", f"{', '.join(names)} in {folder}")
    todo = f'Work in the repository, or set manifests = "..." in {FILE}.'
    return HealthCheck("manifests", "warning", f"none in {folder}", todo)


def _embedded(settings: Settings) -> HealthCheck:
    status = backends.account(settings).status()
    jobs = status.get("jobs")
    counts = ", ".join(f"{count} {state}" for state, count in jobs.items()) if isinstance(jobs, Mapping) else ""
    supervisor = status.get("supervisor")
    at_work = f"at work, process {supervisor}" if supervisor else "at rest; it starts with the next job"
    detail = f"{at_work}; jobs: {counts or 'none yet'}"
    if status.get("problem"):
        todo = f"Look into supervisor.log in {settings.home}. To start afresh: genokit local clean."
        return HealthCheck("embedded account", "problem", f"{detail}. {status['problem']}", todo)
    stuck = status.get("stuck")
    if isinstance(stuck, Mapping) and stuck:
        job_id, reason = next(iter(stuck.items()))
        more = f" So do {len(stuck) - 1} more." if len(stuck) > 1 else ""
        todo = "Ask for less, or terminate it."
        return HealthCheck(
            "embedded account", "warning", f"{detail}. Job {job_id} can never start: {reason}{more}", todo
        )
    return HealthCheck("embedded account", "ok", detail)


def _identity(settings: Settings) -> HealthCheck:
    try:
        session = _session(settings)
        if not session.region_name:
            todo = f'Set region = "..." in {FILE}, or GENOKIT_REGION.'
            return HealthCheck("AWS identity", "problem", "no region is set", todo)
        who = session.client("sts", config=_quick()).get_caller_identity()
    except Exception as error:  # of botocore's many, each for a way in which signing in fails
        todo = "Sign in (aws sso login, or aws configure), and check profile and region."
        return HealthCheck("AWS identity", "problem", str(error), todo)
    return HealthCheck("AWS identity", "ok", f"{who['Arn']} in {session.region_name}")


def _queues(settings: Settings) -> HealthCheck:
    # Not the kit's own client, which is patient with a service that does not answer.
    with backends.translated_errors("AWS Batch"):
        queues = _session(settings).client("batch", config=_quick()).describe_job_queues()["jobQueues"]
    if not queues:
        return HealthCheck(
            "AWS Batch", "warning", "has no job queue", "Create one: genokit stack deploy. Or check the region."
        )
    names = ", ".join(f"{queue['jobQueueName']} {queue['state']} {queue.get('status', '')}".strip() for queue in queues)
    return HealthCheck("AWS Batch", "ok", f"queues: {names}")


def _session(settings: Settings) -> Any:
    import boto3

    return boto3.Session(profile_name=settings.profile, region_name=settings.region)


def _quick() -> Any:
    from botocore.config import Config

    return Config(connect_timeout=TIMEOUT_S, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 1})


# What to ask of each backend; which of them to use is settled in backends.py alone.
BACKEND_CHECKS: dict[str, dict[str, Callable[[Settings], HealthCheck]]] = {
    "local": {"embedded account": _embedded},
    "aws": {"AWS identity": _identity, "AWS Batch": _queues},
}


def _output(command: list[str], timeout_s: float, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program for what it says; one that cannot start or takes too long counts as failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
            stdin=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {timeout_s:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stderr or done.stdout).split())[:200] or f"exit code {done.returncode}"
