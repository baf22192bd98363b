"""What the system says of processes: when one started, what its tree holds of memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path


def started(process: int) -> str | None:
    """When a process started, as the system tells it; None if there is none. Numbers are used again, starts are not."""
    if os.path.exists("/proc/self/stat"):
        with contextlib.suppress(OSError):
            return _stat(process)[19]
        return None
    said = subprocess.run(["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True, check=False)
    return said.stdout.strip() or None


def memory_mib(process: int, at_most: float) -> float:
    """What a process and its children hold of memory in MiB, exactly only where the quick count exceeds ``at_most``.

    The quick count takes what processes share for each of them; the exact one, like a container's, once. 0 where the
    system does not tell (outside Linux).
    """
    tree = list(_tree(process))
    quick = sum(_kib(one, "status", "VmRSS:") for one in tree) / 1024
    return quick if quick <= at_most else sum(_kib(one, "smaps_rollup", "Pss:") for one in tree) / 1024


def kill_group(process: int, number: int = signal.SIGKILL) -> None:
    """Signal a process and those of its group; nothing happens where they have gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, number)


def kill_session(leader: int) -> None:
    """Kill what is left of a session whose leader has died. Nothing happens where the system does not tell (outside
    Linux)."""
    with contextlib.suppress(OSError):
        if _stat(leader)[0] != "Z":
            return  # the number is another's by now: a session that has members keeps it
    for entry in os.listdir("/proc") if os.path.exists("/proc/self/stat") else []:
        with contextlib.suppress(OSError, ValueError):
            if int(entry) != leader and _stat(int(entry))[3] == str(leader):
                os.kill(int(entry), signal.SIGKILL)


def _stat(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the third, the state, on: the name may hold anything, and ends at the last
    bracket."""
    with open(f"/proc/{process}/stat") as stat:
        return stat.read().rpartition(")")[2].split()


def _tree(process: int) -> Iterator[int]:
    yield process
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _tree(int(child))


def _kib(process: int, file: str, member: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/{file}").read_text().splitlines():
            if line.startswith(member):
                return int(line.split()[1])
    return 0
