"""A submission that is an image: its command runs in a container of docker or podman, with the limits of the sandbox.

No network, a read-only root, no capabilities, no new privileges, the sandbox's filter of system calls, and of the
host's environment nothing. ``/tmp`` is in memory; ``/out`` is a folder that is looked at as often as the sandbox.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from genokit.errors import InvalidRequest, MissingDependency, NotFound
from genokit.workspaces import gate, syscall_filter
from genokit.workspaces.kinds import IMAGE
from genokit.workspaces.sandbox import NOBODY, Limits, SandboxResult, Used, command_words, exit_code, watch

PULL_S = 240.0  # how long an engine may take to get an image
ANSWER_S = 30.0  # and to answer anything else
PROXIES = [word for one in ("http", "https", "ftp", "all", "no") for word in (f"{one}_proxy", f"{one}_proxy".upper())]
# Removes container and folder when this process closes the pipe, or has died; deaf to a signal that both of them get.
# Python cannot remove a folder of a thousand folders in folders.
REMOVE = 'trap "" TERM INT HUP; read -r _; "$0" rm --force --volumes "$1"; rm -rf -- "$2"'


def engine() -> str:
    """The container engine that answers on this machine. Raises MissingDependency, which says what to do."""
    for program in filter(None, map(shutil.which, ("docker", "podman"))):
        if _ask(program, "version").returncode == 0:
            return program
    raise MissingDependency(
        "A submission that is an image needs a container engine, and neither docker nor podman answers on this "
        "machine. Install one and start it (Debian, Ubuntu: apt install docker.io, or podman), or submit a folder."
    )


def pinned(image: str) -> str:
    """The image by its digest: as it is, or for a tag, the digest that the image has on this machine.

    Raises
    ------
    InvalidRequest
        There is no image of this name on this machine, and so no digest.
    MissingDependency
        The image is named by a tag, and there is no engine.
    """
    if re.fullmatch(IMAGE, image):
        return image
    found = _ask(program := engine(), "image", "inspect", "--format={{json .RepoDigests}} {{.Id}}", "--", image)
    if found.returncode:
        raise InvalidRequest(
            f"The image '{image}' is not on this machine, so there is no digest for its tag ({_last(found)}). "
            f"Run `{Path(program).name} pull {image}` first, or name it as repository@sha256:..."
        )
    digests, _, number = found.stdout.strip().rpartition(" ")
    # Where it was never in a registry, it has only the number that engines compute.
    return str(next(iter(json.loads(digests) or ()), f"sha256:{number.removeprefix('sha256:')}"))


def pulled(image: str) -> str:
    """An image by its digest, which the engine now has.

    Raises
    ------
    NotFound
        The engine does not have it and cannot pull it; only ``repository@sha256:...`` is pulled.
    MissingDependency
        There is no engine.
    """
    got = _ask(program := engine(), "image", "inspect", "--format={{.Id}}", "--", image)
    if got.returncode and "@" in image:
        got = _ask(program, "pull", "--", image, timeout=PULL_S)
    if got.returncode:
        raise NotFound(f"The engine does not have the image '{image}': {_last(got)}")
    return image


@contextmanager
def run(
    image: str, command: Sequence[str], mounts: Mapping[str, Path], *, limits: Limits | None = None
) -> Iterator[SandboxResult]:
    """Run a command in a container and yield how it ended; its results can be read until the block ends.

    Parameters
    ----------
    image : str
        The image by its digest, which the engine has: see ``pulled``.
    command : sequence of str
        The command; it replaces the image's entrypoint.
    mounts : mapping
        The folders that it may read: its path there, such as ``/data``, and the folder on this machine.
    limits : Limits, optional
        What it may use. Default: ``Limits()``. ``/tmp`` and ``/dev/shm`` count as memory.

    Raises
    ------
    MissingDependency
        There is no container engine, or it does not make such a container.
    InvalidParameters
        The command is empty or not text.
    """
    limits, words = limits or Limits(), command_words(command)
    program, name = engine(), f"genokit-submission-{secrets.token_hex(8)}"
    with ExitStack() as stack:
        scratch = Path(tempfile.mkdtemp())
        (scratch / "out").mkdir()
        (scratch / "out").chmod(0o777)
        (scratch / "rules.json").write_text(json.dumps(syscall_filter.profile()), encoding="utf-8")
        remover = subprocess.Popen(
            ["sh", "-c", REMOVE, program, name, scratch], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        stack.callback(remover.communicate)
        walls = [*_walls(limits, scratch), *(f"--volume={folder}:{place}:ro" for place, folder in mounts.items())]
        create = ("create", f"--name={name}", "--pull=never", *walls, f"--entrypoint={words[0]}", "--", image)
        made = _ask(program, *create, *words[1:])
        if made.returncode:
            raise MissingDependency(f"The container engine did not make the container: {_last(made)}")
        out = stack.enter_context(gate.opened(scratch / "out"))
        log, log_in = os.pipe()
        stack.callback(os.close, log)
        client = subprocess.Popen(
            [program, "start", "--attach", name], stdin=subprocess.DEVNULL, stdout=log_in, stderr=log_in
        )
        os.close(log_in)
        stack.callback(client.wait)
        stack.callback(client.kill)
        handle = os.pidfd_open(client.pid)
        stack.callback(os.close, handle)

        def used() -> Used:
            files, size = _held(out, limits.files)
            yield files, limits.files, "files in /out"
            yield size / 2**20, limits.output_mib, "MiB in /out"

        def end() -> None:
            client.kill()  # first, because the engine waits for a client that does not read
            client.wait()
            _ask(program, "kill", name)
            stopped = _ask(program, "wait", name)  # nothing may change /out from here on
            if stopped.returncode:
                raise MissingDependency(f"The engine lost the container: {_last(stopped)}")

        reason, wall_s, printed = watch(handle, log, limits.wall_s, used, end)
        state = json.loads(_ask(program, "inspect", "--format={{json .State}}", name).stdout)
        if state.get("OOMKilled"):
            reason = reason or f"more than {limits.memory_mib:g} MiB of memory"
        yield SandboxResult(exit_code(state["ExitCode"]), reason, wall_s, printed, out)


def _walls(limits: Limits, scratch: Path) -> list[str]:
    """The engine's options for a container that reaches nothing."""
    user = f"{NOBODY}:{NOBODY}" if os.geteuid() == 0 else f"{os.getuid()}:{os.getgid()}"  # who may delete /out
    memory, output = f"{limits.memory_mib}m", limits.output_mib * 2**20
    # All processes together have so much of a CPU that they cannot exceed its seconds within the wall time.
    cpus = max(0.01, min(1.0, limits.cpu_s / limits.wall_s))
    return [
        "--network=none", "--ipc=private", "--hostname=sandbox", "--log-driver=none", "--read-only", f"--user={user}",
        "--cap-drop=ALL", "--security-opt=no-new-privileges", f"--security-opt=seccomp={scratch / 'rules.json'}",
        f"--memory={memory}", f"--memory-swap={memory}", f"--cpus={cpus:.2f}", f"--pids-limit={limits.processes}",
        f"--ulimit=fsize={output}:{output}", "--ulimit=nofile=256:256", "--ulimit=core=0:0", "--ulimit=msgqueue=0:0",
        f"--shm-size={output}", f"--tmpfs=/tmp:rw,nosuid,nodev,exec,mode=1777,size={output}",
        f"--volume={scratch / 'out'}:/out", "--env=HOME=/tmp", *(f"--env={one}=" for one in PROXIES),
    ]  # fmt: skip


def _held(out: int, most: int) -> tuple[int, int]:
    """Files and folders in a folder, and their bytes; no more are counted than one above ``most``."""
    files, size = 0, 0
    try:
        for _, folders, names, at in os.fwalk(dir_fd=out):
            for name in (*folders, *names):
                files += 1
                with contextlib.suppress(OSError):  # it is gone again
                    size += os.lstat(name, dir_fd=at).st_size
                if files > most:
                    return files, size
    except RecursionError:  # folders in folders, deeper than results need
        return most + 1, size
    return files, size


def _ask(program: str, *words: str, timeout: float = ANSWER_S) -> subprocess.CompletedProcess[str]:
    """What an engine says and with which exit code; 124 if it does not answer in time."""
    try:
        return subprocess.run(
            [program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", check=False, timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 124, f"no answer within {timeout:g} s")


def _last(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.strip().rpartition("\n")[2][:800] or f"exit code {done.returncode}"
