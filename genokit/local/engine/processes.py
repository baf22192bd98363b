"""The processes of jobs, known by a mark that they inherit, and lock files, which tell whether a process is alive."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
from pathlib import Path

MARKED = 1 << 62
PAGE_MIB = resource.getpagesize() / 2**20
RTTIME: int = getattr(resource, "RLIMIT_RTTIME", -1)
LIBRARY = ctypes.CDLL(None)  # of C


def can_mark() -> bool:
    """Whether this system (Linux) lets processes be marked."""
    return RTTIME >= 0 and resource.getrlimit(RTTIME)[1] == resource.RLIM_INFINITY


def mark(number: int) -> None:
    """Bear a mark from now on. Whatever is started meanwhile bears it too, and whatever that starts, in any session and
    environment.

    The mark is a limit that means nothing: of real-time computing without a pause, 146,000 years and ``number``
    microseconds.
    """
    if can_mark():
        resource.setrlimit(RTTIME, (MARKED + number, resource.RLIM_INFINITY))


def unmark() -> None:
    """Belong to no job from now on."""
    if can_mark():
        resource.setrlimit(RTTIME, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def marked(number: int) -> dict[int, float]:
    """The processes of this machine that bear a mark, and the MiB of memory that each holds.

    A process that has ended, but whose end nobody has noted yet, holds none and is left out.
    """
    found: dict[int, float] = {}
    for process in map(int, filter(str.isdecimal, os.listdir("/proc"))) if can_mark() else ():
        with contextlib.suppress(OSError, ValueError):  # it has just ended, or has no limit
            try:
                limit = resource.prlimit(process, RTTIME)[0]
            except PermissionError:  # it is somebody else's, or has another group, as ssh-agent
                limits = Path(f"/proc/{process}/limits").read_text()
                limit = int(limits.partition("Max realtime timeout")[2].split()[0])
            if limit == MARKED + number and (pages := int(Path(f"/proc/{process}/statm").read_bytes().split()[1])):
                found[process] = pages * PAGE_MIB
    return found


def memory_mib(process: int) -> float:
    """What a process holds of memory in MiB, with its part of what it shares with others."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{process}/smaps_rollup").read_bytes().partition(b"Pss:")[2].split()[0]) / 1024
    return 0.0


def adopt() -> None:
    """Become the parent of every descendant whose own parent ends. Nothing happens outside Linux."""
    with contextlib.suppress(AttributeError):
        LIBRARY.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def kill(process: int, number: int = signal.SIGKILL) -> None:
    """Signal a process, or where its number is negative the group of that number; it may have gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def locked_text(file: Path) -> str | None:
    """The content of a lock file, or None if the lock is free."""
    nobody = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
    with contextlib.suppress(*nobody), open(file, errors="replace") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read(1024)
    return None


def lock_holder(file: Path) -> int | None:
    """Return the PID of the process that holds a lock: 0 if the PID is not written yet, None if the lock is free.

    A PID alone proves nothing, because PIDs are reused."""
    text = locked_text(file)
    return None if text is None else int(text.partition("\n")[0] or 0)


def kill_holder(file: Path, number: int) -> bool:
    """Signal the process that holds a lock, if it has told its number; whether any holds it."""
    holder = lock_holder(file)
    if holder:
        kill(holder, number)
    return holder is not None
