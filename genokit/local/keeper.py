"""The keeper: the one process of an account that jobs' processes are children of, as an instance's agent is on AWS.

It starts processes, writes their logs, enforces their limits and records how they ended. It is a session of its own, so
the supervisor that forked it may be killed, and the next one goes on with it. What they tell one another stands in two
files that are only ever appended to, each by one of them, so neither waits for the other and nothing is lost with
either:

    hosts/<instance>/tasks     the supervisor's: what to start, by a key that is started once, and what to stop
    hosts/<instance>/journal   the keeper's: what has started, and how it ended
    hosts/<instance>/wake      a FIFO; a byte in it says that there are new tasks
    hosts/<instance>/lock      locked while the keeper lives; a process number proves nothing, as numbers are used again
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genokit.local import processes, store, stream

MEMORY_TICK_S = 1.0  # between two looks at the memory of the jobs
LEFT = {"left": True}  # the last line of a journal: what it has not told of by now was never started
IDLE_S = 60.0  # how long it stays when it keeps nothing; a supervisor that is there sends it away earlier


@dataclass(frozen=True)
class Task:
    """An attempt to keep: its key is ``<job id>/<attempt>``."""

    key: str
    folder: str  # the working folder, made for the attempt and removed after it
    log: str
    command: tuple[str, ...]
    environment: dict[str, str]
    timeout_s: float | None = None
    memory_mib: int | None = None
    grace_s: float = 30.0  # between SIGTERM and SIGKILL, as on AWS
    refusal: str | None = None  # why it cannot be started at all
    record: str | None = None  # a file in which the process may say how it ended, in place of its exit code


# --- what the supervisor does with a keeper


def start(host: Path, news: Path) -> None:
    """Fork a keeper that lives in the new folder ``host`` and writes a byte to the FIFO ``news`` when it has news."""
    host.mkdir(parents=True)
    os.mkfifo(host / "wake", 0o600)
    for name in ("tasks", "journal"):
        (host / name).touch(0o600)
    lock = os.open(host / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # A lock belongs to the open file, which the child shares: no instant passes in which the keeper looks dead.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fork() == 0:
            _live(host, news, lock)
    finally:
        os.close(lock)


def lives(host: Path) -> bool:
    """Whether the keeper of a folder is alive."""
    try:
        lock = os.open(f"{host}/lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def tell(host: Path, orders: list[Task | dict[str, Any]]) -> None:
    """Give a keeper orders: tasks, ``{"stop": key}``, ``{"reclaim": key}`` or ``{"leave": true}``."""
    lines = [json.dumps(vars(order) if isinstance(order, Task) else order) for order in orders]
    with open(f"{host}/tasks", "a") as file:
        # The newline in front ends what a full disk may have cut short, which then is no order.
        file.write("".join(f"\n{line}" for line in lines) + "\n")
    wake(host / "wake")


def journal(host: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """What a keeper has written since ``offset``, and where the next reading begins."""
    try:
        with open(f"{host}/journal", "rb") as file:
            file.seek(offset)
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is still being written
    except FileNotFoundError:  # a crash of the machine may keep the store and lose the folder
        return [], offset
    return [json.loads(line) for line in lines], offset + sum(len(line) + 1 for line in lines)


def sweep(host: Path) -> None:
    """End what a keeper that was killed has left running, told of in its journal or not yet."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        processes.kill_session(int((host / "lock").read_text()))


def has_left(host: Path) -> bool:
    """Whether a keeper that is dead went by itself, keeping nothing, rather than died."""
    try:
        return Path(host, "journal").read_bytes().endswith(json.dumps(LEFT).encode() + b"\n")
    except FileNotFoundError:
        return False


def wake(fifo: Path, news: bytes = b"!") -> bool:
    """Tell a reader of a FIFO that there is news; False where none listens. Empty ``news`` only asks whether one
    does."""
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


def _live(host: Path, news: Path, lock: int) -> None:
    """From the fork to the end of the process; never returns into the supervisor's code."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it leaves when it is told to, or keeps nothing
        os.closerange(3, lock)
        os.closerange(lock + 1, 1 << 16)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        _Keeper(host, news).keep()
        code = 0
    except BaseException:
        # The one place that must not raise: there is nobody above. The supervisor's log gets the reason.
        traceback.print_exc()
    finally:
        os._exit(code)


class _Keeper:
    """The loop: orders in, output to logs, limits, ends out."""

    def __init__(self, host: Path, news: Path) -> None:
        self.host, self.news = host, news
        self.tasks = os.open(host / "tasks", os.O_RDONLY)
        self.journal = os.open(host / "journal", os.O_WRONLY | os.O_APPEND)
        self.half = b""  # of an order that is still being written
        self.unwritten = b""
        self.seen: set[str] = set()
        self.kept: dict[str, _Kept] = {}
        self.leaving = False
        self.poll = select.poll()
        # Open for writing too, or the FIFO would report an end each time the last writer leaves.
        self.fifo = os.open(host / "wake", os.O_RDWR | os.O_NONBLOCK)
        children, ended = os.pipe()
        for end in (children, ended):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(ended)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.children = children
        for source in (self.fifo, self.children):
            self.poll.register(source, select.POLLIN)

    def keep(self) -> None:
        idle_since = time.monotonic()
        look_at = 0.0
        try:
            while True:
                self.obey()
                self.flush()
                now = time.monotonic()
                if now >= look_at:
                    look_at = now + MEMORY_TICK_S
                    for kept in self.kept.values():
                        kept.weigh()
                until = [look_at] if self.kept or self.unwritten else [idle_since + IDLE_S]
                for kept in self.kept.values():
                    until += kept.hold(now)
                if self.kept or self.unwritten:
                    idle_since = now
                elif self.leaving or now >= idle_since + IDLE_S:
                    self.write(LEFT)
                    return
                ready = self.poll.poll(max(0.0, 1000 * (min(until) - now)))
                for source in (self.fifo, self.children):
                    with contextlib.suppress(BlockingIOError):
                        os.read(source, 1 << 12)
                sources = {source for source, _ in ready}
                for kept in list(self.kept.values()):
                    if kept.output in sources and not kept.copy():
                        self.close(kept)
                self.reap()
        finally:
            for kept in self.kept.values():
                processes.kill_group(kept.process)

    def obey(self) -> None:
        """Read the new orders and follow them."""
        data = self.half
        while more := os.read(self.tasks, 1 << 20):
            data += more
        *lines, self.half = data.split(b"\n")
        for line in lines:
            try:
                order = json.loads(line)
            except ValueError:
                continue
            if "key" in order:
                if order["key"] not in self.seen:  # a supervisor that was killed may not know what it had ordered
                    self.seen.add(order["key"])
                    self.start(Task(**order))
            elif "leave" in order:
                self.leaving = True
            else:
                [(wish, key)] = order.items()
                if key in self.kept:
                    self.kept[key].wish(wish)

    def start(self, task: Task) -> None:
        try:
            kept = _Kept(task)
        except _NotStarted as refused:
            self.write({"key": task.key, "ended": store.now(), **refused.record})
            return
        except OSError as error:  # no room for its folder or its log: its own failure, and not that of all others
            reason = f"CannotCreateContainerError: {error}"
            self.write({"key": task.key, "ended": store.now(), "reason": reason, "status_reason": reason})
            return
        self.kept[task.key] = kept
        self.poll.register(kept.output, select.POLLIN)
        process = [kept.process, processes.started(kept.process)]
        self.write({"key": task.key, "started": store.now(), "process": process})

    def reap(self) -> None:
        """Record the processes that have ended."""
        for key, kept in list(self.kept.items()):
            done, status = os.waitpid(kept.process, os.WNOHANG)
            if done:
                record = kept.end(os.waitstatus_to_exitcode(status))
                self.close(kept)
                del self.kept[key]
                self.write({"key": key, "ended": store.now(), **record})

    def close(self, kept: _Kept) -> None:
        """Stop listening to an output: closed by a job that goes on, it would be reported for ever."""
        if kept.output >= 0:
            self.poll.unregister(kept.output)
            os.close(kept.output)
            kept.output = -1

    def write(self, record: dict[str, Any]) -> None:
        self.unwritten += json.dumps(record).encode() + b"\n"
        self.flush()
        if "ended" in record:  # there is room; that something has started the supervisor expects, and looks for
            wake(self.news)

    def flush(self) -> None:
        """Write to the journal what is not in it yet; on a full disk it waits for room, and nothing is lost."""
        try:
            while self.unwritten:
                self.unwritten = self.unwritten[os.write(self.journal, self.unwritten) :]
        except OSError:
            traceback.print_exc()


class _NotStarted(Exception):
    """There is no process to keep; ``record`` says why."""

    def __init__(self, reason: str, status_reason: str, code: int | None = None) -> None:
        self.record: dict[str, Any] = {"reason": reason, "status_reason": status_reason}
        if code is not None:
            self.record["exitCode"] = code


class _Kept:
    """One attempt's process."""

    def __init__(self, task: Task) -> None:
        if task.refusal:
            raise _NotStarted(task.refusal, task.refusal)
        self.task = task
        self.buffer = bytearray()
        self.unlogged = ""
        self.stopping = self.timed_out = self.reclaimed = self.out_of_memory = False
        self.deadline = time.monotonic() + task.timeout_s if task.timeout_s else None
        self.kill_at: float | None = None
        os.makedirs(os.path.join(task.folder, "tmp"), exist_ok=True)
        os.makedirs(os.path.dirname(task.log), exist_ok=True)
        self.log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.process, self.output = self._spawn()

    def _spawn(self) -> tuple[int, int]:
        command, folder = self.task.command, self.task.folder
        environment = {"HOME": folder, "TMPDIR": os.path.join(folder, "tmp"), **self.task.environment}
        program = shutil.which(command[0], path=environment.get("PATH", os.defpath))
        if program is None:
            missing = f'exec: "{command[0]}": executable file not found in $PATH'
            raise _NotStarted(f"CannotStartContainerError: {missing}", "Task failed to start", 127)
        read, write = os.pipe()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, write, 1),
            (os.POSIX_SPAWN_DUP2, write, 2),
        ]
        defaults = [signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT]
        os.chdir(folder)  # a spawned process inherits it; this one has a single thread and uses no relative path
        try:
            process = os.posix_spawn(
                program, command, environment, file_actions=actions, setpgroup=0, setsigdef=defaults, setsigmask=[]
            )
        except OSError as error:
            os.close(read)
            why = f'exec: "{command[0]}": {error.strerror}'
            raise _NotStarted(f"CannotStartContainerError: {why}", "Task failed to start", 126) from error
        finally:
            os.close(write)
            os.chdir("/")
        os.set_blocking(read, False)
        return process, read

    def wish(self, wish: str) -> None:
        """To be stopped, or to vanish as with its host."""
        self.stopping = True
        self.reclaimed = self.reclaimed or wish == "reclaim"

    def weigh(self) -> None:
        """Note whether the job holds more memory than it asked for."""
        if self.task.memory_mib:
            held = processes.memory_mib(self.process, self.task.memory_mib)
            self.out_of_memory = self.out_of_memory or held > self.task.memory_mib

    def hold(self, now: float) -> list[float]:
        """Signal what has to be signalled by now; returns when to look again."""
        if self.deadline and now >= self.deadline and not self.stopping:
            self.timed_out = self.stopping = True
        if self.reclaimed or self.out_of_memory or (self.kill_at and now >= self.kill_at):
            processes.kill_group(self.process)
        elif self.stopping and self.kill_at is None:
            self.kill_at = now + self.task.grace_s
            processes.kill_group(self.process, signal.SIGTERM)
        return [at for at in (self.deadline, self.kill_at) if at and at > now]

    def copy(self) -> bool:
        """Copy to the log what there is, up to a megabyte; False at the end of the output."""
        for _ in range(16):  # a job that never pauses must not keep its keeper from the others
            try:
                data = os.read(self.output, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.buffer += data
            self.append(stream.split(self.buffer))
        return True

    def append(self, lines: list[bytes]) -> None:
        """Write lines to the log. Where there is no room the job goes on, and its record says that lines are
        missing."""
        data = stream.encode(lines, store.now())
        try:
            while data:
                data = data[os.write(self.log, data) :]
        except OSError as error:
            self.unlogged = f"LogIncomplete: {error.strerror}"

    def end(self, code: int) -> dict[str, Any]:
        """Read what is left, clear up, and say how it ended. As in a container, nothing outlives the first process."""
        processes.kill_group(self.process)
        while self.output >= 0 and select.select([self.output], [], [], 0)[0] and self.copy():
            pass
        self.append(stream.split(self.buffer, final=True))
        os.close(self.log)
        said = self._said()
        shutil.rmtree(self.task.folder, ignore_errors=True)
        if self.reclaimed:
            return {"lost": True}
        record: dict[str, Any] = {"exitCode": code if code >= 0 else 128 - code} if said is None else said
        if self.unlogged:
            record["reason"] = self.unlogged
        if self.out_of_memory:
            record["reason"] = "OutOfMemoryError: Container killed due to memory usage"
        if self.timed_out:
            record["timed_out"] = True
        return record

    def _said(self) -> dict[str, Any] | None:
        """What the process says of its end; None where it says nothing."""
        if self.task.record:
            with contextlib.suppress(OSError, ValueError), open(self.task.record) as file:
                said: dict[str, Any] = json.load(file)
                return said
        return None
