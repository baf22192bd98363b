"""The keeper of an attempt: the parent of its process, in the part of an instance and its agent on AWS.

It starts the process, writes its log, enforces its limits and records how it ended. It is a session of its own, so the
supervisor that forked it may be killed, and the next one goes on with it. All that the two tell one another stands in
one file, ``hosts/<instance>``. The supervisor makes it empty when it decides to start an attempt; the keeper locks it
while it lives, and alone appends to it:

    its process number, before it starts anything: an attempt that was taken once is never started again
    {"started": ..., "container": ...}      when the process was started, and in which container, if in one
    {"ended": ..., "exitCode": ...}         when and how the attempt ended

SIGTERM asks a keeper to end its attempt. To kill it is to lose the instance: whoever finds that out ends what it kept.
A keeper whose attempt has ended waits a second for another, which its supervisor sends it with the locked file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genokit.local import store
from genokit.local.engine import containers, log_file, processes
from genokit.local.engine.containers import Container, NotStarted

TICK_S = 1.0  # between two looks at the memory of the job
SPARE_S = 1.0  # how long it waits for another attempt
SWEPT_S = 2.0  # how long a killed process may take to be gone


@dataclass(frozen=True)
class Task:
    """An attempt to run."""

    folder: str  # the working folder, made for the attempt and removed after it
    log: str
    command: tuple[str, ...]
    environment: dict[str, str]
    timeout_s: float | None = None
    memory_mib: int | None = None
    container: Container | None = None  # in place of a command
    grace_s: float = 30.0  # between SIGTERM and SIGKILL, as on AWS
    refusal: str | None = None  # why it cannot be started at all


# --- what the supervisor does with keepers


class Spare:
    """The keepers that a supervisor has forked, by their ends of a socket: one whose attempt has ended takes another.

    To fork a process costs more than a short job.
    """

    def __init__(self) -> None:
        self.busy: list[socket.socket] = []
        self.idle: list[socket.socket] = []

    def look(self) -> None:
        """See which keepers have become idle, and which have left."""
        for end in select.select(self.busy + self.idle, [], [], 0)[0]:
            (self.busy if end in self.busy else self.idle).remove(end)
            if end.recv(1):
                self.idle.append(end)
            else:
                end.close()


def start(file: Path, task: Task, news: Path, spare: Spare) -> None:
    """Have a keeper take the attempt of ``file``, a spare one or one that is forked for it. It tells of the end by a
    byte in the FIFO ``news``.

    Nothing happens if one has taken the attempt, or if no process can be made now.
    """
    lock = os.open(file, os.O_RDWR | os.O_APPEND)
    try:
        # A lock belongs to the open file, which the keeper shares: no instant passes in which it looks dead.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_size:
            return
        while spare.idle:
            end = spare.idle.pop()
            with contextlib.suppress(OSError):  # it has left, or the task is longer than a message may be
                socket.send_fds(end, [pickle.dumps((task, mark(file)))], [lock])
                spare.busy.append(end)
                return
            end.close()
        end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            if os.fork() == 0:
                _live(other, lock, task, mark(file), news)
        spare.busy.append(end)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def is_alive(file: Path) -> bool:
    """Whether the keeper of a file is alive."""
    return processes.lock_holder(file) is not None


def read(file: Path) -> dict[str, Any]:
    """Read what a keeper has recorded so far; it is empty until the keeper starts the attempt. Skips damaged lines."""
    try:
        process, *lines = file.read_bytes().split(b"\n")
    except OSError:  # a crash of the machine may keep the store and lose the file
        return {"process": None}
    found: dict[str, Any] = {"process": process} if process else {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            found |= json.loads(line)
    return found


def mark(file: Path) -> int:
    """The mark by which the processes of an attempt are known: the number of its instance."""
    return int(file.name[2:14], 16)


def sweep(file: Path) -> None:
    """End what a keeper that was killed has left running."""
    deadline = time.monotonic() + SWEPT_S
    while (left := processes.marked(mark(file))) and time.monotonic() < deadline:
        for one in left:
            processes.kill(one)
        time.sleep(0.005)


def wake(fifo: Path, news: bytes = b"!") -> bool:
    """Tell a reader of a FIFO that there is news; False where none listens. Empty ``news`` only asks whether one
    does."""
    try:
        with open(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "wb", buffering=0) as end:
            end.write(news)  # a full FIFO, which takes nothing, wakes as well as an emptier one
    except OSError:  # ENXIO: nobody reads; ENOENT: nobody ever did
        return False
    return True


# --- the keeper's own life


def _live(end: socket.socket, lock: int, task: Task, number: int, news: Path) -> None:
    """From the fork to the end of the process; never returns into the supervisor's code."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        first, last = sorted((lock, end.fileno()))
        for low, high in ((3, first), (first + 1, last), (last + 1, 1 << 16)):
            os.closerange(low, high)
        while True:
            _keep(lock, task, number)
            os.close(lock)
            with contextlib.suppress(OSError):  # the supervisor has gone, and the next one listens to the FIFO
                end.send(b"!")
            wake(news)
            if not select.select([end], [], [], SPARE_S)[0]:
                break
            message, (lock, *_), *_ = socket.recv_fds(end, 1 << 20, 1)
            os.set_inheritable(lock, False)  # what outlives the attempt must not hold its lock
            task, number = pickle.loads(message)
    except BaseException as error:
        # The one place that must not raise: there is nobody above. The supervisor's log gets the reason.
        if not isinstance(error, (OSError, ValueError)):  # the supervisor has gone
            traceback.print_exc()
    finally:
        os._exit(0)


def _keep(lock: int, task: Task, number: int) -> None:
    """Take an attempt, run it to its end and record it."""

    def write(line: object) -> None:
        data = json.dumps(line).encode() + b"\n"
        while data:
            try:
                data = data[os.write(lock, data) :]
            except OSError:  # the disk is full: it waits for room, and nothing is lost
                time.sleep(TICK_S)

    write(os.getpid())
    attempt = _Attempt(task, number, write)
    try:
        record = attempt.record()
    except NotStarted as refused:
        record = refused.record
    except Exception as error:
        traceback.print_exc()
        said = f"CannotCreateContainerError: {error if isinstance(error, OSError) else repr(error)}"
        record = {"reason": said, "status_reason": said}
    finally:
        signal.set_wakeup_fd(-1)
        for end in attempt.ends:
            os.close(end)
    write({"ended": store.now(), **record})


class _Attempt:
    """The process of an attempt, and those that it has started: all that bear its mark."""

    def __init__(self, task: Task, number: int, write: Callable[[object], None]) -> None:
        self.task, self.mark, self.write = task, number, write
        self.stopping = self.timed_out = False
        self.reason: dict[str, str] = {}
        self.deadline, self.kill_at = time.monotonic() + (task.timeout_s or math.inf), math.inf
        self.group = 0  # the process group of the process that runs
        self.container: Container | None = None  # that runs
        self.buffer = bytearray()
        # Both ends stay open here: a job that closes its output and goes on brings no end of file.
        self.output, self.input = os.pipe()
        self.heard, signals = os.pipe()
        self.ends = [self.output, self.input, self.heard, signals]
        for end in (self.output, self.heard, signals):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(signals, warn_on_full_buffer=False)
        # No handler outlives an exec, so jobs get the defaults.
        signal.signal(signal.SIGTERM, self._stop)
        for other in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(other, lambda *_: None)
        processes.adopt()  # what a job leaves behind becomes this process's child

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def record(self) -> dict[str, Any]:
        """Run the attempt to its end, and say how it ended."""
        if self.task.refusal:
            raise NotStarted(self.task.refusal, self.task.refusal)
        os.makedirs(os.path.dirname(self.task.log), exist_ok=True)
        self.log = os.open(self.task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.ends.append(self.log)
        try:
            os.makedirs(os.path.join(self.task.folder, "tmp"), exist_ok=True)
            if self.task.container:
                record = self._run_container(self.task.container)
            else:
                process = self._start(self.task.command, self.task.environment, self.input)
                self.write({"started": store.now()})
                record = {"exitCode": self.follow(process)}
        except BaseException:
            self.signal(signal.SIGKILL)
            raise
        finally:
            self.copy()
            self.append(log_file.split(self.buffer, final=True))
            remove(self.task.folder)
        return record | self.reason | ({"timed_out": True} if self.timed_out else {})

    def _run_container(self, box: Container) -> dict[str, Any]:
        """Make the container, follow it to its end and remove it."""
        self.write({"started": store.now(), "container": [box.engine, box.name]})
        command, environment = containers.creation(box, Path(self.task.folder, "variables"))
        try:
            with Path(self.task.folder, "words").open("w+", errors="replace") as words:
                code = self.follow(self._start(command, environment, words.fileno()))
                words.seek(0)
                said = words.read()
            if self.stopping:
                return {}
            if code:
                raise containers.not_created(box, said)
            self.buffer += "".join(f"{line}\n" for line in said.splitlines() if line.startswith("WARNING")).encode()
            self.container = box
            client = self._start((box.engine, "start", "--attach", box.name), environment, self.input)
            return containers.ended(box, self.follow(client))
        finally:
            containers.remove(box.engine, box.name)

    def follow(self, process: subprocess.Popen[bytes]) -> int:
        """Follow a process to its end, and all that it has started to theirs; returns its exit code.

        As in a container, nothing outlives the first process.
        """
        self.group = -process.pid
        poll = select.poll()
        for source in (self.heard, self.output):
            poll.register(source, select.POLLIN)
        look_at = time.monotonic() + TICK_S
        while True:
            now = time.monotonic()
            is_tick = now >= look_at
            look_at = now + TICK_S if is_tick else look_at
            left = processes.marked(self.mark) if is_tick or process.returncode is not None else {}
            if process.returncode is None:
                self.weigh(left)
                until = min(look_at, self.enforce(now))
            else:
                for one in left if processes.can_mark() else [self.group]:
                    processes.kill(one)
                if not left:
                    return process.returncode if process.returncode >= 0 else 128 - process.returncode
                until = now + TICK_S
            poll.poll(max(0.0, 1000 * (until - now)))
            with contextlib.suppress(BlockingIOError):
                os.read(self.heard, 1 << 12)
            self.copy()
            with contextlib.suppress(ChildProcessError):
                while (child := os.waitpid(-1, os.WNOHANG))[0]:
                    if child[0] == process.pid:
                        process.returncode = os.waitstatus_to_exitcode(child[1])

    def _start(self, command: tuple[str, ...], environment: dict[str, str], output: int) -> subprocess.Popen[bytes]:
        folder = self.task.folder
        environment = {"HOME": folder, "TMPDIR": os.path.join(folder, "tmp"), **environment}
        processes.mark(self.mark)
        try:
            return subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                process_group=0,
            )  # fmt: skip
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            why = "executable file not found in $PATH" if missing else error.strerror
            reason = f'CannotStartContainerError: exec: "{command[0]}": {why}'
            raise NotStarted(reason, exitCode=127 if missing else 126) from error
        finally:
            processes.unmark()

    def signal(self, number: int) -> None:
        """Signal the container, or all processes of the task; where none can be marked, those of its group."""
        if self.container:
            containers.send(self.container, number)
        if not self.container or number == signal.SIGKILL:
            for one in processes.marked(self.mark) if processes.can_mark() else [self.group]:
                processes.kill(one, number)

    def weigh(self, held_mib: dict[int, float]) -> None:
        """Kill the task if its processes hold more memory than it asked for. What they share counts once, as in a
        container; it is only looked for where the quick count exceeds the limit."""
        limit = self.task.memory_mib
        if limit and sum(held_mib.values()) > limit and sum(map(processes.memory_mib, held_mib)) > limit:
            self.reason = {"reason": "OutOfMemoryError: Container killed due to memory usage"}
            self.kill_at = 0.0

    def enforce(self, now: float) -> float:
        """Signal what has to be signalled by now; returns when to look again."""
        if now >= self.deadline and not self.stopping:
            self.timed_out = self.stopping = True
        if now >= self.kill_at:
            self.signal(signal.SIGKILL)
        elif self.stopping and self.kill_at == math.inf:
            self.kill_at = now + self.task.grace_s
            self.signal(signal.SIGTERM)
        return min((at for at in (self.deadline, self.kill_at) if at > now), default=math.inf)

    def copy(self) -> None:
        """Copy to the log what there is."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(16):  # a job that never pauses must not keep its keeper from all else
                self.buffer += os.read(self.output, 1 << 16)
                self.append(log_file.split(self.buffer))

    def append(self, lines: list[bytes]) -> None:
        """Write lines to the log. Where there is no room the task goes on, and its record says that lines are
        missing."""
        data = log_file.encode(lines, store.now())
        try:
            while data:
                data = data[os.write(self.log, data) :]
        except OSError as error:
            self.reason = {"reason": f"LogIncomplete: {error.strerror}"} | self.reason


def remove(folder: str | os.PathLike[str]) -> None:
    """Remove a folder, however deep: a job may leave a thousand folders in one another."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", folder], check=False, stderr=subprocess.DEVNULL)
