"""One keeper a running attempt: it starts the job's process, writes its log, enforces its limits, and records its end.

The supervisor forks it (a fork costs a millisecond; a new interpreter would cost fifty) and may then die: the keeper is
a session of its own and needs nobody. It holds a lock on ``<attempt>/keeper`` for as long as it lives, so anyone can
ask whether an attempt is still kept, without trusting process numbers, which the system uses again.

What an attempt's folder holds:

    keeper      locked while the keeper lives; its process number, the job's, and when the job's process started
    work/       the job's working folder, removed when the attempt ends
    exit.json   how it ended: {"exitCode", "reason", "stopped_at", ...}; written once, whole or not at all
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genokit.local import processes, store, stream

MEMORY_TICK_S = 1.0  # between two looks at the memory of a job


@dataclass(frozen=True)
class Task:
    """What a keeper is asked to keep."""

    folder: Path
    log: Path
    command: tuple[str, ...]
    environment: dict[str, str]
    wake: Path  # the supervisor's FIFO: a byte says that something ended
    timeout_s: float | None = None
    memory_mib: int | None = None
    grace_s: float = 30.0  # between SIGTERM and SIGKILL, as on AWS
    refusal: str | None = None  # why it cannot be started at all


def start(task: Task) -> int:
    """Fork a keeper for ``task`` and return its process number; the attempt counts as kept from before the fork on."""
    task.folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(task.folder / "keeper", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # A lock belongs to the open file, which the child shares: no instant passes in which the attempt looks unkept.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        keeper = os.fork()
        if keeper == 0:
            _live(task, lock)
        return keeper
    finally:
        os.close(lock)


# --- what others ask of a keeper


def is_kept(folder: Path) -> bool:
    """Whether the attempt in ``folder`` has a living keeper."""
    try:
        lock = os.open(folder / "keeper", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def ended(folder: Path) -> dict[str, object] | None:
    """How the attempt in ``folder`` ended; None while it has not, or where nobody could record it."""
    try:
        record: dict[str, object] = json.loads((folder / "exit.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record


def stop(folder: Path, *, reclaim: bool = False) -> None:
    """Ask the attempt's keeper to stop its job: SIGTERM, then after the grace SIGKILL; or at once, as a lost host."""
    if is_kept(folder):
        with contextlib.suppress(ProcessLookupError, ValueError, IndexError):
            keeper = int((folder / "keeper").read_text().split()[0])
            os.kill(keeper, signal.SIGUSR1 if reclaim else signal.SIGTERM)


def sweep(folder: Path) -> None:
    """End what a keeper that was killed has left running."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        _, job, began = (folder / "keeper").read_text().split()
        if processes.started(int(job)) == began:
            processes.kill_group(int(job))
    shutil.rmtree(folder / "work", ignore_errors=True)


def wake(fifo: Path, news: bytes = b"!") -> bool:
    """Tell the supervisor that there is news; False where none listens. Empty ``news`` only asks whether one does."""
    try:
        end = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # ENXIO: nobody reads; ENOENT: nobody ever did
        return False
    try:
        with contextlib.suppress(BlockingIOError):  # a full FIFO wakes as well as an emptier one
            os.write(end, news)
    except BrokenPipeError:
        return False
    finally:
        os.close(end)
    return True


# --- the keeper's own life


def _live(task: Task, lock: int) -> None:
    """From the fork to the end of the process; never returns into the supervisor's code."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        kept = _Kept(task)
        signal.signal(signal.SIGTERM, kept.asked_to_stop)
        signal.signal(signal.SIGUSR1, kept.asked_to_vanish)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}".encode(), 0)
        os.closerange(3, lock)
        os.closerange(lock + 1, 1 << 16)
        record = kept.run(lambda job: os.pwrite(lock, f"{os.getpid()} {job} {processes.started(job)}".encode(), 0))
        shutil.rmtree(task.folder / "work", ignore_errors=True)
        half = task.folder / "exit.half"
        half.write_text(json.dumps(record | {"stopped_at": store.now()}))
        half.replace(task.folder / "exit.json")
        wake(task.wake)
        code = 0
    except BaseException:
        # The one place that must not raise: there is nobody above. The supervisor's log gets the reason.
        traceback.print_exc()
    finally:
        os._exit(code)


class _Kept:
    """A job's process under its keeper's eyes."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.job = 0
        self.stopping = self.timed_out = self.reclaimed = self.out_of_memory = False
        self.buffer = bytearray()

    def asked_to_stop(self, *_: object) -> None:
        self.stopping = True

    def asked_to_vanish(self, *_: object) -> None:
        self.reclaimed = True

    def run(self, tell: Callable[[int], object]) -> dict[str, object]:
        """Start the process, ``tell`` its number, follow it, and return the record of its end."""
        if self.task.refusal:
            return {"reason": self.task.refusal, "status_reason": self.task.refusal}
        work = self.task.folder / "work"
        (work / "tmp").mkdir(parents=True, exist_ok=True)
        self.task.log.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(self.task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # A signal must end the wait that it falls into, or just before.
        news, told = os.pipe()
        os.set_blocking(told, False)
        os.set_blocking(news, False)
        signal.set_wakeup_fd(told)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.chdir(work)
        started = self._spawn(work)
        if isinstance(started, dict):
            return started
        tell(self.job)
        try:
            status = self._follow(started, log, news)
        finally:
            # As in a container, nothing outlives the first process.
            processes.kill_group(self.job)
        return self._record(os.waitstatus_to_exitcode(status))

    def _spawn(self, work: Path) -> int | dict[str, object]:
        """Start the process; the end of its output to read from, or the record of why it could not start."""
        command = self.task.command
        environment = {"HOME": str(work), "TMPDIR": str(work / "tmp"), **self.task.environment}
        program = shutil.which(command[0], path=environment.get("PATH", os.defpath))
        if program is None:
            return _not_started(127, f'exec: "{command[0]}": executable file not found in $PATH')
        read, write = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)]
        defaults = [signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGUSR1]
        try:
            self.job = os.posix_spawn(
                program, command, environment, file_actions=actions, setpgroup=0, setsigdef=defaults, setsigmask=[]
            )
        except OSError as error:
            return _not_started(126, f'exec: "{command[0]}": {error.strerror}')
        os.close(write)
        os.close(null)
        os.set_blocking(read, False)
        return read

    def _follow(self, output: int, log: int, news: int) -> int:
        """Copy the output to the log and hold the limits until the process has ended; returns its wait status."""
        poll = select.poll()
        poll.register(output, select.POLLIN)
        poll.register(news, select.POLLIN)
        began = time.monotonic()
        deadline = began + self.task.timeout_s if self.task.timeout_s else None
        kill_at: float | None = None
        look_at = began + MEMORY_TICK_S
        while True:
            now = time.monotonic()
            if deadline and now >= deadline and not self.stopping:
                self.timed_out = self.stopping = True
            if self.stopping and kill_at is None:
                kill_at = now + self.task.grace_s
                processes.kill_group(self.job, signal.SIGTERM)
            if self.task.memory_mib and now >= look_at:
                look_at = now + MEMORY_TICK_S
                self.out_of_memory = processes.memory_mib(self.job, self.task.memory_mib) > self.task.memory_mib
            if self.reclaimed or self.out_of_memory or (kill_at and now >= kill_at):
                processes.kill_group(self.job)
            until = [at for at in (deadline, kill_at, look_at if self.task.memory_mib else None) if at and at > now]
            poll.poll(1000 * (min(until) - now) if until else None)
            with contextlib.suppress(BlockingIOError):
                os.read(news, 512)
            if output >= 0 and not self._copy(output, log):
                poll.unregister(output)  # closed by a job that goes on: it would be reported for ever
                os.close(output)
                output = -1
            done, status = os.waitpid(self.job, os.WNOHANG)
            if done:
                processes.kill_group(self.job)
                while output >= 0 and select.select([output], [], [], 0)[0] and self._copy(output, log):
                    pass
                _write(log, stream.encode(stream.split(self.buffer, final=True), store.now()))
                return status

    def _copy(self, output: int, log: int) -> bool:
        """Copy what is there, up to a megabyte; False at the end of the output."""
        for _ in range(16):  # a job that never pauses must not keep its keeper from the clock
            try:
                data = os.read(output, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.buffer += data
            _write(log, stream.encode(stream.split(self.buffer), store.now()))
        return True

    def _record(self, code: int) -> dict[str, object]:
        record: dict[str, object] = {"exitCode": code if code >= 0 else 128 - code}
        if self.reclaimed:
            return {"lost": True}
        if self.out_of_memory:
            record["reason"] = "OutOfMemoryError: Container killed due to memory usage"
        if self.timed_out:
            record["timed_out"] = True
        return record


def _not_started(code: int, why: str) -> dict[str, object]:
    return {"exitCode": code, "reason": f"CannotStartContainerError: {why}", "status_reason": "Task failed to start"}


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
