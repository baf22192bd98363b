"""What the system says of processes: when one started, which job it belongs to, what they hold of memory."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import resource
import signal
import subprocess
from collections.abc import Iterator

MARKED = 1 << 62


def started(process: int) -> str | None:
    """When a process started, as the system tells it; None if there is none. Numbers are used again, starts are not."""
    if os.path.exists("/proc/self/stat"):
        with contextlib.suppress(OSError):
            return _stat(process)[19].decode()
        return None
    said = subprocess.run(["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True, check=False)
    return said.stdout.strip() or None


def memory_mib(members: list[int], at_most: float) -> float:
    """What processes hold of memory in MiB, exactly only where the quick count exceeds ``at_most``.

    The quick count takes what processes share for each of them; the exact one, like a container's, once. 0 where the
    system does not tell (outside Linux).
    """
    quick = sum(_kib(one, "status", b"VmRSS:") for one in members) / 1024
    return quick if quick <= at_most else sum(_kib(one, "smaps_rollup", b"Pss:") for one in members) / 1024


def adopt() -> None:
    """Become the parent of every descendant whose own parent ends. Nothing happens outside Linux."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def kill(process: int, number: int = signal.SIGKILL) -> None:
    """Signal a process; nothing happens where it has gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def kill_started(process: int, began: str | None) -> None:
    """Kill the group of a process that started at ``began``, if it is that one still."""
    if started(process) == began:
        kill_group(process)


def kill_group(process: int, number: int = signal.SIGKILL) -> None:
    """Signal a process and those of its group; nothing happens where they have gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, number)


@contextlib.contextmanager
def marking(number: int) -> Iterator[None]:
    """Whatever is started meanwhile bears a mark, and so does whatever that starts, in any session and environment.

    The mark is a limit that means nothing: of real-time computing without a pause, 146,000 years and ``number``
    microseconds. Nothing is marked where there is no such limit (outside Linux) or the system holds it lower.
    """
    limit = getattr(resource, "RLIMIT_RTTIME", None)
    highest = resource.getrlimit(limit)[1] if limit else 0
    if limit is None or highest != resource.RLIM_INFINITY:
        yield
        return
    resource.setrlimit(limit, (MARKED + number, highest))
    try:
        yield
    finally:
        resource.setrlimit(limit, (highest, highest))


def unmark() -> None:
    """Belong to no job from now on."""
    with marking(0):
        pass


def mark(process: int) -> int:
    """The mark of a process; 0 where it has none, or has ended."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{process}/limits", "rb") as limits:
        for line in limits:
            if line.startswith(b"Max realtime timeout"):
                number = int(line.split()[3]) - MARKED
                return number if number > 0 and _stat(process)[0] != b"Z" else 0
    return 0


def marked(numbers: range) -> list[int]:
    """All processes of this machine whose mark is among ``numbers``."""
    every = map(int, filter(str.isdecimal, os.listdir("/proc"))) if os.path.exists("/proc/self/stat") else ()
    return [one for one in every if mark(one) in numbers]


def children(process: int) -> list[int]:
    """The children of a process; none where the system does not tell (outside Linux)."""
    found: list[int] = []
    for file in glob.glob(f"/proc/{process}/task/*/children"):
        with contextlib.suppress(OSError), open(file, "rb") as numbers:
            found += map(int, numbers.read().split())
    return found


def with_descendants(heads: list[int]) -> list[int]:
    """Processes, their children, the children of these, and so on, parents before their children."""
    found = list(heads)
    for one in found:  # which grows meanwhile
        found += children(one)
    return found


def _stat(process: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third, the state, on: the name may hold any bytes, and ends at the last
    bracket."""
    with open(f"/proc/{process}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()


def _kib(process: int, file: str, member: bytes) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{process}/{file}", "rb") as lines:
        for line in lines:
            if line.startswith(member):
                return int(line.split()[1])
    return 0
