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
import signal
import time
import traceback
import zlib
from pathlib import Path
from typing import Any

from genokit.local import store
from genokit.local.engine import processes
from genokit.local.engine.task import NotStarted, RunningTask, Task

MEMORY_TICK_S = 1.0  # between two looks at the memory of the jobs
LEFT = {"left": True}  # the last line of a journal: what it has not told of by now was never started
SWEPT_S = 2.0  # how long a killed process may take to be gone
IDLE_S = 60.0  # how long it stays when it keeps nothing; a supervisor that is there sends it away earlier


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


def is_alive(host: Path) -> bool:
    """Whether the keeper of a folder is alive."""
    return processes.lock_holder(host / "lock") is not None


def order(host: Path, orders: list[Task | dict[str, Any]]) -> None:
    """Give a keeper orders: tasks, ``{"stop": key}``, ``{"reclaim": key}``, ``{"leave": true}``, ``{"end": true}`` to
    stop all before it leaves, or ``{"again": true}`` to write all of its journal again.

    A key that ends with a slash means whichever attempt of the job runs.
    """
    lines = [json.dumps(vars(one) if isinstance(one, Task) else one) for one in orders]
    with open(f"{host}/tasks", "a") as file:
        # The newline in front ends what a full disk may have cut short, which then is no order.
        file.write("".join(f"\n{line}" for line in lines) + "\n")
    wake(host / "wake")


def journal(host: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """What a keeper has written since ``offset``, and where the next reading begins.

    What nobody can read is set aside in the file ``unreadable`` of the account, and the keeper is to tell all again.
    """
    try:
        with open(f"{host}/journal", "rb") as file:
            file.seek(offset)
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is still being written
    except FileNotFoundError:  # a crash of the machine may keep the store and lose the folder
        return [], offset
    records = [_record(line) for line in lines]
    strange = [line for line, record in zip(lines, records, strict=True) if record is None]
    if strange:
        with open(host.parents[1] / "unreadable", "ab") as file:
            file.write(b"".join(b"%s: %s\n" % (os.fsencode(host.name), line) for line in strange))
        order(host, [{"again": True}])
    return list(filter(None, records)), offset + sum(len(line) + 1 for line in lines)


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of a journal as a record; None if it cannot be read."""
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):
        record: dict[str, Any] = json.loads(line)
        job, _, attempt = record.get("key", "").rpartition("/")
        at = record.get("started", record.get("ended"))
        if record == LEFT or (job and attempt.isdecimal() and isinstance(at, int)):
            return record
    return None


def sweep(host: Path) -> None:
    """End what a keeper that was killed has left running, told of in its journal or not yet."""
    deadline = time.monotonic() + SWEPT_S
    while (left := processes.marked(_marks(host))) and time.monotonic() < deadline:
        for one in (one for members in left.values() for one in members):
            processes.kill(one)
        time.sleep(0.005)


def _marks(host: Path) -> range:
    """The marks by which processes of this keeper's jobs are known, one an attempt."""
    first = zlib.crc32(os.fsencode(host)) << 24
    return range(first + 1, first + (1 << 24))


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
        try:
            os.write(end, news)
        finally:
            os.close(end)
    except BlockingIOError:  # a full FIFO wakes as well as an emptier one
        return True
    except OSError:  # ENXIO: nobody reads; ENOENT: nobody ever did
        return False
    return True


# --- the keeper's own life


def _live(host: Path, news: Path, lock: int) -> None:
    """From the fork to the end of the process; never returns into the supervisor's code."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        # It leaves when it is told to, or keeps nothing. No handler outlives an exec, so jobs get the defaults.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
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
        self.news, self.marks = news, _marks(host)
        processes.adopt()  # what a job leaves behind becomes this process's child
        self.tasks = os.open(host / "tasks", os.O_RDONLY)
        self.journal = os.open(host / "journal", os.O_WRONLY | os.O_APPEND)
        self.half = self.unwritten = b""  # of an order that is still being written; of the journal
        self.told: dict[str, dict[str, Any]] = {}  # the last record of each key that was ever to start
        self.running: dict[str, RunningTask] = {}
        self.leaving = False
        # Open for writing too, or the FIFO would report an end each time the last writer leaves. Signals go there, too.
        self.fifo = os.open(host / "wake", os.O_RDWR | os.O_NONBLOCK)
        signal.set_wakeup_fd(self.fifo, warn_on_full_buffer=False)
        self.poll = select.poll()
        self.poll.register(self.fifo, select.POLLIN)

    def keep(self) -> None:
        idle_since, look_at, ready = time.monotonic(), 0.0, set[int]()
        try:
            while True:
                self.obey()
                self.flush()
                has_ended = self.reap()
                now = time.monotonic()
                is_tick = now >= look_at
                look_at = now + MEMORY_TICK_S if is_tick else look_at
                members = self.members() if is_tick or has_ended else None
                until = [look_at] if self.running or self.unwritten else [idle_since + IDLE_S]
                for key, one in list(self.running.items()):
                    until.append(self.follow(key, one, members, ready, now))
                if self.running or self.unwritten:
                    idle_since = now
                elif self.leaving or now >= idle_since + IDLE_S:
                    self.write(LEFT)
                    return
                ready = {source for source, _ in self.poll.poll(max(0.0, 1000 * (min(until) - now)))}
                with contextlib.suppress(BlockingIOError):
                    os.read(self.fifo, 1 << 12)
        finally:
            for one in self.running.values():
                one.signal(signal.SIGKILL)

    def obey(self) -> None:
        """Read the new orders and follow them."""
        data = self.half
        while more := os.read(self.tasks, 1 << 20):
            data += more
        *lines, self.half = data.split(b"\n")
        for line in filter(None, lines):
            try:
                self.obey_one(json.loads(line))
            except Exception:  # an order that nobody can read is none, and stands in the way of no other
                traceback.print_exc()

    def obey_one(self, order: dict[str, Any]) -> None:
        if "key" in order:
            if order["key"] not in self.told:  # a supervisor that was killed may not know what it had ordered
                self.told[order["key"]] = {}
                self.start(order)
        elif "again" in order:
            for record in filter(None, self.told.values()):
                self.write(record)
        elif "leave" in order or "end" in order:
            self.leaving = True
            for one in self.running.values() if "end" in order else ():
                one.wish("stop")
        else:
            [(wish, key)] = order.items()
            for name, one in self.running.items():
                if name == key or (key.endswith("/") and name.startswith(key)):
                    one.wish(wish)

    def start(self, order: dict[str, Any]) -> None:
        """Start an attempt. Whatever goes wrong with that is its own failure, and not that of all others."""
        key = order["key"]
        mark = self.marks[len(self.told) % len(self.marks)] if processes.can_mark() else 0
        try:
            one = RunningTask(Task(**order), mark)
        except NotStarted as refused:
            self.write({"key": key, "ended": store.now(), **refused.record})
        except Exception as error:
            self.fail(key, f"CannotCreateContainerError: {error if isinstance(error, OSError) else repr(error)}")
        else:
            self.running[key] = one
            self.poll.register(one.output, select.POLLIN)
            self.write({"key": key, "started": store.now()})

    def fail(self, key: str, reason: str) -> None:
        self.write({"key": key, "ended": store.now(), "reason": reason, "status_reason": reason})

    def reap(self) -> bool:
        """Note the exit codes of what has ended; whether a task's first process is among it."""
        codes = {}
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                codes[child[0]] = os.waitstatus_to_exitcode(child[1])
        for one in self.running.values():
            one.process.returncode = codes.get(one.process.pid, one.process.returncode)
        return any(one.process.returncode is not None for one in self.running.values())

    def members(self) -> dict[int, dict[int, float]]:
        """The processes of each running task, by its mark. What was born while its task ended is killed."""
        found = processes.marked(self.marks)
        for mark in found.keys() - {one.mark for one in self.running.values()}:
            for process in found[mark]:
                processes.kill(process)
        return found

    def follow(
        self, key: str, one: RunningTask, members: dict[int, dict[int, float]] | None, ready: set[int], now: float
    ) -> float:
        """Do for a task what is due, and say when to look again. As in a container, nothing outlives its first process.

        Whatever goes wrong is the failure of this task alone.
        """
        try:
            if not one.output.closed and one.output.fileno() in ready and not one.copy():
                self.close(one)
            left = (members or {}).get(one.mark, {})
            if one.process.returncode is None:
                one.weigh(left)
                return one.enforce(now)
            for process in left if one.mark else (-one.process.pid,):
                processes.kill(process)
            if left or members is None:
                return now + MEMORY_TICK_S
            record = one.end()
            self.write({"key": key, "ended": store.now(), **record})
        except Exception as error:
            traceback.print_exc()
            one.signal(signal.SIGKILL)
            self.fail(key, f"CannotInspectContainerError: {error!r}")
        self.close(one)
        del self.running[key]
        return now

    def close(self, one: RunningTask) -> None:
        """Stop listening to an output: closed by a job that goes on, it would be reported for ever."""
        if not one.output.closed:
            self.poll.unregister(one.output)
            one.output.close()

    def write(self, record: dict[str, Any]) -> None:
        if record != LEFT:
            self.told[record["key"]] = record
        self.unwritten += json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n"
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
