"""Kernels forked from a template: a process that has imported what every kernel imports, and nothing else.

A forked kernel is ready in a third of the time of a new one. The template runs no code of a notebook, opens no socket
of a kernel, and forks only while it has a single thread. Each kernel gets the working folder, environment and log of
its own run. When the process that started the template ends, the template ends, and with it its kernels.

multiprocessing's fork server is no replacement: it imports its owner's main script, inherits its owner's search path,
forks even with several threads, and its children outlive it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import NoReturn

LAUNCHER = "ipykernel_launcher"
IMPORTS = (
    "ipykernel.debugger",
    "ipykernel.kernelapp",
    "IPython.core.completerlib",
    "IPython.extensions.storemagic",
    "pdb",
)


class KernelTemplate:
    """A process that forks kernels. It starts when it is first needed and ends with this context."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> KernelTemplate:
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._theirs.close()
        if self._process:
            self._process.wait()

    def start(self) -> None:
        """Start the process unless it was started; it imports its modules in the background."""
        with self._starting:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(self._theirs.fileno())],
                    pass_fds=[self._theirs.fileno()],
                    cwd="/",  # a module of a working folder must not be taken for one of Python's
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C in a terminal is for the process that runs the pipeline
                )
                self._theirs.close()

    def fork(self, command: Sequence[str], cwd: str, environ: Mapping[str, str], log: int) -> ForkedKernel | None:
        """Fork a kernel; returns None if it must start as a new process.

        ``log`` is the open file for what it prints outside its cells.
        """
        self.start()
        ours, theirs = Pipe()
        with contextlib.suppress(OSError, EOFError):  # the template has ended, for example because forking was not safe
            with theirs:
                socket.send_fds(self._socket, [b"fork"], [theirs.fileno(), log])
            ours.send((command, cwd, dict(environ)))
            return ForkedKernel(ours.recv(), ours)
        return None


class ForkedKernel:
    """The process of a forked kernel, like a ``subprocess.Popen`` for what the kit and jupyter_client need of one."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, template: Connection) -> None:
        self.pid, self._template = pid, template
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the exit code."""
        if self.returncode is None and self._template.poll(timeout):
            try:
                self.returncode = self._template.recv()
            except (OSError, EOFError):  # the template was killed, and its kernels end with it
                self.returncode = -signal.SIGKILL
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Do nothing: jupyter_client signals the group of a kernel, and its process only if there is no group left."""


def main(requests: socket.socket) -> None:
    """Fork a kernel for each request and report its exit code, until the owner ends or closes its socket."""
    owner, before = os.getppid(), dict(os.environ)
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # as ipykernel reads it: a kernel ends when this process is gone
    for name in IMPORTS:
        importlib.import_module(name)
    made = dict(os.environ.items() - before.items())  # as these imports would in any kernel
    gc.freeze()  # or a collection in each kernel copies the memory that they share
    kernels = dict[int, tuple[int, Connection]]()  # PID, and who asked for it, by the file descriptor of its process
    message = b"fork"
    while message and os.getppid() == owner and len(os.listdir("/proc/self/task")) == 1:
        for ready in select.select([requests.fileno(), *kernels], [], [], 1.0)[0]:
            if ready in kernels:
                pid, answer = kernels.pop(ready)
                os.close(ready)
                with answer, contextlib.suppress(OSError):
                    answer.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                continue
            message, fds, _, _ = socket.recv_fds(requests, 16, 2, socket.MSG_CMSG_CLOEXEC)
            if message:
                answer = Connection(fds[0])
                if not (pid := os.fork()):
                    _be_kernel(answer, fds[1], made, [requests, *(other for _, other in kernels.values())])
                os.close(fds[1])
                answer.send(pid)
                kernels[os.pidfd_open(pid)] = pid, answer
    for pid, _ in kernels.values():
        os.kill(pid, signal.SIGKILL)


def _be_kernel(
    request: Connection, log: int, made: Mapping[str, str], others: Sequence[Connection | socket.socket]
) -> NoReturn:
    os.setsid()
    for one in others:
        one.close()
    with request:
        sys.orig_argv, cwd, environ = request.recv()
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ | made)
    launcher = importlib.util.find_spec(LAUNCHER)
    sys.argv = [str(launcher and launcher.origin), *sys.orig_argv[3:]]
    sys.exit(sys.modules["ipykernel.kernelapp"].launch_new_instance())


if __name__ == "__main__":
    del sys.path[0]  # the working folder, which `python -m` puts there
    main(socket.socket(fileno=int(sys.argv[1])))
