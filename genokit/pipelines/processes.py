"""The process that runs a notebook: whether it has ended, and how another process can stop it."""

from __future__ import annotations

import os
import signal
import socket

import psutil  # type: ignore[import-untyped]


def this_process() -> tuple[str, int, float]:
    """Machine, PID and start time of this process: a PID alone may be reused."""
    return socket.gethostname(), os.getpid(), psutil.Process().create_time()


def gone(machine: str, pid: int, created: float) -> bool:
    """Whether a process of this machine has ended."""
    if machine != socket.gethostname():
        return False  # a shared file system: only that machine knows
    return not psutil.pid_exists(pid) or abs(psutil.Process(pid).create_time() - created) >= 1


def stop(machine: str, pid: int, created: float) -> str:
    """Interrupt a process. Returns the reason if that is impossible, else ""."""
    if machine != socket.gethostname():
        return f"on {machine}: stop it there"
    if gone(machine, pid, created):
        return "no longer: its process has ended"
    if pid == os.getpid():
        return "in this process: interrupt it"
    # A terminal's process may ignore an interrupt, and a Jupyter kernel must survive.
    kernel = "ipykernel" in " ".join(psutil.Process(pid).cmdline())
    os.kill(pid, signal.SIGINT if kernel else signal.SIGTERM)
    return ""
