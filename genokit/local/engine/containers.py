"""Jobs of other images than ``genokit``: containers of docker, or where that is not installed, of podman.

As on AWS: image, command, environment with AWS_BATCH_*, user, read-only root, privileged, volumes (a host path that is
missing is made by the engine; one without a host path is empty and goes with the container), ulimits, linuxParameters,
GPUs, the memory limit (exit code 137, ``OutOfMemoryError``), SIGTERM and 30 s later SIGKILL, and the reasons
``CannotPullContainerError``, ``CannotCreateContainerError`` and ``CannotStartContainerError``. The nodes of a
multi-node job share the host's network, so that they find their main node.

Not as on AWS: a VCPU is a hard limit, not a share. An image that is here is not pulled again. The engine's own login
serves private registries; roles and log configuration mean nothing here; secrets and EFS volumes are refused. Other
jobs have the engine's default network; with the variable ``GENOKIT_NETWORK=none`` in its environment a job has none,
which AWS Batch cannot offer. The timeout counts the pull. A limit that the kernel cannot hold is named in the first
line of the log. Podman makes no missing host path, and 4.3 on control groups v1 tells of no lack of memory.

Containers carry the labels ``genokit.home`` and ``genokit.job``: ``docker ps --all --filter label=genokit.home``.

https://docs.aws.amazon.com/batch/latest/APIReference/API_ContainerProperties.html
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from genokit.local.engine import documents, processes

NETWORK = "GENOKIT_NETWORK"
LEAST_MIB = 6  # docker takes no smaller limit
MAKING_S = 3.0  # what making a container takes at most, its image being here
ANSWER_S = 20.0  # how long an engine may take for a small question
PLAN = "GENOKIT_CONTAINER"
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")  # names that a file of variables can hold
CLIENTS = re.compile(r"HOME|PATH|TMPDIR|XDG_.*|DOCKER_.*|CONTAINERS?_.*|SSH_AUTH_SOCK|(?i:https?|no|all)_proxy")


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
    chosen = variables.get(NETWORK)
    if chosen not in (None, "none"):
        raise ValueError(f"the variable {NETWORK} may be 'none', not '{chosen}'")
    if asked.get("secrets"):
        raise ValueError("secrets: not supported here; set the variable in 'environment' instead")
    for variable in variables:
        if not variable or "=" in variable or "\0" in variable + variables[variable]:
            raise ValueError(f"environment: '{variable}' is not a variable's name, or its value contains a zero byte")
    options = [
        *(f"--label={key}={value}" for key, value in labels.items()),
        "--log-driver=none",  # the keeper writes the log
        *_limits(asked),
        *_volumes(asked),
        *_linux(asked.get("linuxParameters", {})),
        *(f"--ulimit={one['name']}={one['softLimit']}:{one['hardLimit']}" for one in asked.get("ulimits", [])),
        *_gpus(engine, gpus),
    ]
    if chosen or network:
        options.append(f"--network={chosen or network}")
    if asked.get("user"):
        options.append(f"--user={asked['user']}")
    for member, option in (("readonlyRootFilesystem", "--read-only"), ("privileged", "--privileged")):
        if asked.get(member):
            options.append(option)
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


# --- the process that stands for a container, which a keeper keeps like any other


def task(box: Container) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command that runs a container, and the environment for it."""
    own = {PLAN: json.dumps(vars(box), ensure_ascii=False), "PYTHONPATH": str(Path(__file__).parents[3])}
    return (sys.executable, "-P", "-m", __name__), clients_own(os.environ) | own


def main() -> int:
    """Make the container, follow it to its end, remove it, and say in the file ``record`` how it ended."""
    box = Container(**json.loads(os.environ.pop(PLAN)))
    news, told = os.pipe()
    for end in (news, told):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(told)  # no signal is lost, whatever it falls into
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    Path("record").write_text(json.dumps(run(box, news)))
    return 0


def run(box: Container, news: int) -> dict[str, object]:
    """How a container ended: its ``exitCode``, ``reason`` and ``status_reason``, where it has them.

    The numbers of the signals to this process arrive at ``news``.
    """
    if silence := unanswered(box):
        return {"reason": silence, "status_reason": silence}
    done = watch(box)
    try:
        with open("words", "w+b") as words:
            code, stopped = _run(*create(box, Path("variables")), news, done, output=words)
            words.seek(0)
            said = words.read().decode(errors="replace")
        if stopped:
            return {}
        if code:
            return {"reason": not_created(box, said), "status_reason": "Task failed to start"}
        warnings = [line for line in said.splitlines() if line.startswith("WARNING")]
        os.write(1, "".join(f"{line}\n" for line in warnings).encode())
        command = (box.engine, "start", "--attach", box.name)
        client, _ = _run(command, clients_own(os.environ), news, done, lambda: terminate(box))
        return ended(box, client)
    finally:
        _remove(box)
        os.write(done, b"!")


def watch(box: Container) -> int:
    """Have the container removed when this process dies before it has written ``!`` to the pipe that is returned.

    The watcher is a session of its own: what kills this process with its group leaves the watcher, and no container
    outlives the job that it is. It is told the process number of each client of the engine.
    """
    told, done = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            processes.unmark()
            os.close(done)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            news = b"".join(iter(lambda: os.read(told, 64), b""))
            if not news.endswith(b"!"):
                _remove(box)
                for client in news.split()[-1:]:
                    deadline = time.monotonic() + MAKING_S
                    while os.path.exists(f"/proc/{int(client)}") and time.monotonic() < deadline:
                        time.sleep(0.05)
                    processes.kill(int(client))
                _remove(box)  # it may have been on its way
        finally:
            os._exit(0)
    os.close(told)
    return done


def _run(
    command: tuple[str, ...],
    environment: dict[str, str],
    news: int,
    watcher: int,
    stop: Callable[[], object] | None = None,
    output: IO[bytes] | None = None,
) -> tuple[int, bool]:
    """Run a client of the engine to its end: its exit code, and whether this process was asked to stop meanwhile.

    The client is a group of its own, and ``stop`` ends what it does. Without one it makes a container: what it is about
    to make it may finish, or nobody would know to remove it; what it pulls it may not.
    """
    with processes.marking(0):  # it ends as its container does, not with this process
        client = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output or subprocess.STDOUT,
            process_group=0,
        )  # fmt: skip
    os.write(watcher, b"%d " % client.pid)
    stopped, end_at = False, math.inf
    while (code := client.poll()) is None:
        wait_s = None if end_at == math.inf else max(0.0, end_at - time.monotonic())
        heard, _, _ = select.select([news], [], [], wait_s)
        if heard and signal.SIGTERM in os.read(news, 512):
            stopped = True
            if stop:
                stop()
            else:
                end_at = time.monotonic() + MAKING_S
        if time.monotonic() >= end_at:
            client.kill()
    return (code if code >= 0 else 128 - code), stopped


# --- what is asked of the engine


def create(box: Container, file: Path) -> tuple[tuple[str, ...], dict[str, str]]:
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


def unanswered(box: Container) -> str | None:
    """Why the engine cannot be worked with; None where it answers."""
    code, said = _ask(box, "version")
    if code == 0:
        return None
    name = Path(box.engine).name
    remedy = "start it (as root: systemctl start docker), or let this user use it (group docker)"
    return (
        f"CannotStartContainerError: {name} is installed but does not answer: {_last(said)} - "
        f"{remedy if name == 'docker' else f'see what {name} info says'}."
    )


def not_created(box: Container, said: str) -> str:
    """Why there is no container, in the engine's words ``said``."""
    code, _ = _ask(box, "image", "inspect", "--format=.", "--", box.image)
    return f"{'CannotCreateContainerError' if code == 0 else 'CannotPullContainerError'}: {_last(said)}"


def terminate(box: Container) -> None:
    """SIGTERM to the container's first process; by the engine, as not every client passes signals on."""
    deadline = time.monotonic() + 5
    while _ask(box, "kill", "--signal=TERM", "--", box.name)[0] and time.monotonic() < deadline:
        state = _state(box)
        if not state or not (state["Running"] or _unstarted(state)):
            return  # it has ended; else it has just been about to start
        time.sleep(0.05)


def ended(box: Container, client: int) -> dict[str, object]:
    """How a container ended whose client ended with the exit code ``client``."""
    state = _state(box)
    if not state:
        return {"reason": "CannotInspectContainerError: the container, or its engine, is gone"}
    if _unstarted(state):
        why = _last(state.get("Error") or "the log ends with the engine's words")  # which podman keeps nowhere
        code = state["ExitCode"] or client or 128
        reason = f"CannotStartContainerError: {why}"
        return {"exitCode": code, "reason": reason, "status_reason": "Task failed to start"}
    if state["Running"]:
        # It is removed now, and that is its end.
        return {"exitCode": client or 128 + signal.SIGKILL}
    record: dict[str, object] = {"exitCode": state["ExitCode"]}
    if state.get("OOMKilled") and state["ExitCode"]:
        record["reason"] = "OutOfMemoryError: Container killed due to memory usage"
    return record


def _remove(box: Container) -> None:
    _ask(box, "rm", "--force", "--volumes", box.name)


def _state(box: Container) -> dict[str, Any]:
    code, said = _ask(box, "inspect", "--format={{json .State}}", box.name)
    state: dict[str, Any] = json.loads(said) if code == 0 else {}
    return state


def _unstarted(state: dict[str, Any]) -> bool:
    return str(state["StartedAt"]).startswith("0001")  # the year that stands for never


def _ask(box: Container, *words: str) -> tuple[int, str]:
    """The exit code of a small command to the engine, and what it says: all of it where it failed."""
    try:
        with processes.marking(0):  # a signal to this task is none to it
            said = subprocess.run(
                [box.engine, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=clients_own(os.environ),
                process_group=0,
                timeout=ANSWER_S,
                check=False,
            )
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {ANSWER_S:g} s"
    except OSError as error:
        return 127, f"{box.engine}: {error.strerror}"
    spoken = said.stdout + said.stderr if said.returncode else said.stdout
    return said.returncode, spoken.decode(errors="replace")


def _last(said: str) -> str:
    """The last thing said: an engine ends with why it failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:800] if lines else "it does not say why"


if __name__ == "__main__":
    sys.exit(main())
