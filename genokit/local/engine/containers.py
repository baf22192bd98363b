"""Jobs of other images than ``genokit``: containers of docker, or where that is not installed, of podman.

As on AWS: image, command, environment with AWS_BATCH_*, user, read-only root, privileged, volumes (a host path that is
missing is made by the engine; one without a host path is empty and goes with the container), ulimits, linuxParameters,
GPUs, the memory limit (exit code 137, ``OutOfMemoryError``), SIGTERM and 30 s later SIGKILL, and the reasons
``CannotPullContainerError``, ``CannotCreateContainerError`` and ``CannotStartContainerError``. The nodes of a
multi-node job share the host's network, so that they find their main node.

Not as on AWS: a VCPU is a hard limit, not a share. An image that is here is not pulled again. The engine's own login
serves private registries; roles and log configuration mean nothing here; secrets and EFS volumes are refused. Other
jobs have the engine's default network. The timeout counts the pull. A limit that the kernel cannot hold is named in the
first line of the log. Podman makes no missing host path, and 4.3 on control groups v1 tells of no lack of memory.

Containers carry the labels ``genokit.home`` and ``genokit.job``: ``docker ps --all --filter label=genokit.home``.

https://docs.aws.amazon.com/batch/latest/APIReference/API_ContainerProperties.html
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genokit.local.engine import documents

LEAST_MIB = 6  # docker takes no smaller limit
MAKING_S = 3.0  # what making a container takes at most, its image being here
ANSWER_S = 20.0  # how long an engine may take for a small question
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")  # names that a file of variables can hold
CLIENTS = re.compile(r"HOME|PATH|TMPDIR|XDG_.*|DOCKER_.*|CONTAINERS?_.*|SSH_AUTH_SOCK|(?i:https?|no|all)_proxy")


class NotStarted(Exception):
    """An attempt could not be started; ``record`` says why."""

    def __init__(self, reason: str, status_reason: str = "Task failed to start", **code: int) -> None:
        self.record: dict[str, Any] = {"reason": reason, "status_reason": status_reason, **code}


@dataclass(frozen=True)
class Container:
    """A container to make and start: ``options`` are the engine's, ``variables`` the job's environment."""

    engine: str
    name: str
    image: str
    options: tuple[str, ...]
    command: tuple[str, ...]
    variables: dict[str, str]


def find(path: str | None = None) -> str | None:
    """The program of the container engine; None where there is none."""
    return shutil.which("docker", path=path) or shutil.which("podman", path=path)


def clients_own(environ: Mapping[str, str]) -> dict[str, str]:
    """Of a user's variables, those that an engine's client goes by: where the engine is, the login, the proxy."""
    return {name: value for name, value in environ.items() if CLIENTS.fullmatch(name)}


def address(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the engine of a user is, if not where engines usually are."""
    return {name: environ[name] for name in ("DOCKER_HOST", "CONTAINER_HOST") if name in environ}


# --- what a definition asks for


def plan(
    engine: str | None,
    name: str,
    asked: dict[str, Any],
    variables: dict[str, str],
    *,
    labels: Mapping[str, str],
    gpus: list[int],
    network: str | None = None,
) -> Container:
    """The container that the properties ``asked`` describe. Raises ValueError where it cannot be made here."""
    if engine is None:
        raise ValueError(
            f"the image '{asked['image']}' needs a container engine, and neither docker nor podman is installed here. "
            "Install one (Debian, Ubuntu: apt install docker.io, or podman), or use the image 'genokit', which needs "
            "none."
        )
    if asked.get("secrets"):
        raise ValueError("secrets: not supported here; set the variable in 'environment' instead")
    options = [
        *(f"--label={key}={value}" for key, value in labels.items()),
        "--log-driver=none",  # the keeper writes the log
        *_limits(asked),
        *_volumes(asked),
        *_linux(asked.get("linuxParameters", {})),
        *(f"--ulimit={one['name']}={one['softLimit']}:{one['hardLimit']}" for one in asked.get("ulimits", [])),
        *_gpus(engine, gpus),
        *([f"--network={network}"] if network else []),
        *([f"--user={asked['user']}"] if asked.get("user") else []),
        *(["--read-only"] if asked.get("readonlyRootFilesystem") else []),
        *(["--privileged"] if asked.get("privileged") else []),
    ]
    return Container(engine, name, asked["image"], tuple(options), tuple(asked.get("command", ())), variables)


def _limits(asked: dict[str, Any]) -> Iterator[str]:
    need, linux = documents.requirements(asked), asked.get("linuxParameters", {})
    memory = max(LEAST_MIB, int(need["MEMORY"]))
    yield f"--cpus={max(0.01, float(need['VCPU'])):g}"
    yield f"--memory={memory}m"
    yield f"--memory-swap={memory + linux.get('maxSwap', 0)}m"
    if linux.get("maxSwap") and "swappiness" in linux:
        yield f"--memory-swappiness={linux['swappiness']}"


def _volumes(asked: dict[str, Any]) -> Iterator[str]:
    volumes = {one.get("name"): one for one in asked.get("volumes", [])}
    if None in volumes:
        raise ValueError("volumes: a volume without a name cannot be mounted")
    for point in asked.get("mountPoints", []):
        name, target = point.get("sourceVolume"), point.get("containerPath", "")
        volume = volumes.get(name)
        if volume is None:
            raise ValueError(f"mountPoints: the volume '{name}' is not defined")
        if not target.startswith("/") or ":" in target:
            raise ValueError(f"mountPoints.containerPath: '{target}' must be absolute and without a colon")
        if set(volume) - {"name", "host"}:
            raise ValueError(f"volumes: '{name}' must be a path of this machine (host.sourcePath) or empty")
        source = volume.get("host", {}).get("sourcePath")
        if source is None:
            yield f"--tmpfs={target}:ro" if point.get("readOnly") else f"--volume={target}"
        elif not source.startswith("/") or ":" in source:
            raise ValueError(f"volumes.host.sourcePath: '{source}' must be absolute and without a colon")
        else:
            yield f"--volume={source}:{target}{':ro' if point.get('readOnly') else ''}"


def _linux(asked: dict[str, Any]) -> Iterator[str]:
    if asked.get("initProcessEnabled"):
        yield "--init"
    if "sharedMemorySize" in asked:
        yield f"--shm-size={asked['sharedMemorySize']}m"
    for one in asked.get("tmpfs", []):
        mount = [f"size={one['size']}m", *one.get("mountOptions", [])]
        yield f"--tmpfs={one['containerPath']}:{','.join(mount)}"
    for one in asked.get("devices", []):
        may = "".join(word[0] for word in map(str.lower, one.get("permissions", []))) or "rwm"  # READ, WRITE, MKNOD
        yield f"--device={one['hostPath']}:{one.get('containerPath', one['hostPath'])}:{may}"


def _gpus(engine: str, gpus: list[int]) -> list[str]:
    if Path(engine).name == "podman":
        return [f"--device=nvidia.com/gpu={gpu}" for gpu in gpus]
    return [f'--gpus="device={",".join(map(str, gpus))}"'] if gpus else []  # a value of CSV, hence the quotes


# --- what a keeper asks of the engine


def not_created(box: Container, said: str) -> NotStarted:
    """Why there is no container, in the engine's words ``said``."""
    code, _ = _ask(box, "image", "inspect", "--format=.", "--", box.image)
    return NotStarted(f"{'CannotPullContainerError' if code else 'CannotCreateContainerError'}: {last(said)}")


def creation(box: Container, file: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command that makes the container, pulling its image if need be, and the environment to run it in.

    Variables go by way of ``file``, never the command line, which every user of the machine may read; those that a
    file of lines cannot hold go through the client's own environment.
    """
    lines = {name for name, value in box.variables.items() if PLAIN.fullmatch(name) and not set("\r\n") & set(value)}
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", newline="\n") as out:
        out.writelines(f"{name}={box.variables[name]}\n" for name in sorted(lines))
    others = {name: value for name, value in box.variables.items() if name not in lines}
    command = (
        *(box.engine, "create", f"--name={box.name}", f"--env-file={file}"),
        *(f"--env={name}" for name in others),
        *(*box.options, "--", box.image, *box.command),
    )
    return command, clients_own(os.environ) | others


def send(box: Container, number: int) -> None:
    """Signal the container's first process; by the engine, as not every client passes signals on."""
    deadline = time.monotonic() + MAKING_S
    while _ask(box, "kill", f"--signal={number}", "--", box.name)[0] and time.monotonic() < deadline:
        time.sleep(0.05)  # it may be about to start


def ended(box: Container, client: int) -> dict[str, Any]:
    """How a container ended whose client ended with the exit code ``client``."""
    state = _state(box)
    if not state:
        return {"reason": "CannotInspectContainerError: the container, or its engine, is gone"}
    if str(state["StartedAt"]).startswith("0001"):  # the year that stands for never
        why = last(state.get("Error") or "the log ends with the engine's words")  # which podman keeps nowhere
        raise NotStarted(f"CannotStartContainerError: {why}", exitCode=state["ExitCode"] or client or 128)
    if state["Running"]:
        # It is removed now, and that is its end.
        return {"exitCode": client or 128 + signal.SIGKILL}
    record: dict[str, Any] = {"exitCode": state["ExitCode"]}
    if state.get("OOMKilled") and state["ExitCode"]:
        record["reason"] = "OutOfMemoryError: Container killed due to memory usage"
    return record


def remove(engine: str, name: str) -> None:
    """Remove a container in the background, even if it is running or still being created."""
    script = f'for pause in 0 {MAKING_S:g}; do sleep $pause; "$0" rm --force --volumes "$1"; done >/dev/null 2>&1'
    os.posix_spawn("/bin/sh", ["sh", "-c", script, engine, name], clients_own(os.environ))


def _state(box: Container) -> dict[str, Any]:
    code, said = _ask(box, "inspect", "--format={{json .State}}", box.name)
    state: dict[str, Any] = json.loads(said[said.index("{") :]) if code == 0 else {}  # warnings may come first
    return state


def _ask(box: Container, *words: str) -> tuple[int, str]:
    """The exit code of a small command to the engine, and all that it says."""
    try:
        said = subprocess.run(
            [box.engine, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=clients_own(os.environ), errors="replace", check=False, timeout=ANSWER_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {ANSWER_S:g} s"
    except OSError as error:
        return 127, f"{box.engine}: {error.strerror}"
    return said.returncode, said.stdout


def last(said: str) -> str:
    """The last thing said: an engine ends with why it failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:800] if lines else "it does not say why"
