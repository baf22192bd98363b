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
from functools import partial
from pathlib import Path
from typing import Any

from genokit.local import store
from genokit.local.engine import processes
from genokit.local.engine.attempt import Attempt, NotStarted, Task

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
    """Give a keeper orders: tasks, ``{"stop": key}``, ``{"reclaim": key}``, ``{"leave": true}``, ``{"end": true}`` to
    stop all before it leaves, or ``{"again": true}`` to write all of its journal again."""
    lines = [json.dumps(vars(order) if isinstance(order, Task) else order) for order in orders]
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
        tell(host, [{"again": True}])
    return list(filter(None, records)), offset + sum(len(line) + 1 for line in lines)


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of a journal as a record; None if it cannot be read."""
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):
        record: dict[str, Any] = json.loads(line)
        began = isinstance(record.get("started"), int) and len(record["process"]) == 2
        key, _, attempt = record.get("key", "").rpartition("/")
        if record == LEFT or (key and attempt.isdecimal() and (began or isinstance(record.get("ended"), int))):
            return record
    return None


def sweep(host: Path) -> None:
    """End what a keeper that was killed has left running, told of in its journal or not yet."""
    deadline = time.monotonic() + SWEPT_S
    while (left := processes.marked(_marks(host))) and time.monotonic() < deadline:
        for one in left:
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
        self.news = news
        self.marks = _marks(host)
        processes.adopt()  # what a job leaves behind becomes this process's child
        self.tasks = os.open(host / "tasks", os.O_RDONLY)
        self.journal = os.open(host / "journal", os.O_WRONLY | os.O_APPEND)
        self.half = b""  # of an order that is still being written
        self.unwritten = b""
        self.told: dict[str, dict[str, Any]] = {}  # the last record of each key that was ever to start
        self.kept: dict[str, Attempt] = {}
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
                self.reap()
                now = time.monotonic()
                if now >= look_at:
                    look_at = now + MEMORY_TICK_S
                    for kept in self.kept.values():
                        kept.attempt(kept.weigh)
                until = [look_at] if self.kept or self.unwritten else [idle_since + IDLE_S]
                for kept in self.kept.values():
                    until += kept.attempt(partial(kept.hold, now)) or []
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
                    if kept.output in sources and not kept.attempt(kept.copy):
                        self.close(kept)
        finally:
            for kept in self.kept.values():
                kept.signal(signal.SIGKILL)

    def obey(self) -> None:
        """Read the new orders and follow them."""
        data = self.half
        while more := os.read(self.tasks, 1 << 20):
            data += more
        *lines, self.half = data.split(b"\n")
        for line in filter(None, lines):
            try:
                self.follow(json.loads(line))
            except Exception:  # an order that nobody can read is none, and stands in the way of no other
                traceback.print_exc()

    def follow(self, order: dict[str, Any]) -> None:
        if "key" in order:
            if order["key"] not in self.told:  # a supervisor that was killed may not know what it had ordered
                self.told[order["key"]] = {}
                self.start(order)
        elif "leave" in order:
            self.leaving = True
        elif "end" in order:
            self.leaving = True
            for kept in self.kept.values():
                kept.wish("stop")
        elif "again" in order:
            for record in filter(None, self.told.values()):
                self.write(record)
        else:
            [(wish, key)] = order.items()
            if key in self.kept:
                self.kept[key].wish(wish)

    def start(self, order: dict[str, Any]) -> None:
        """Start an attempt. Whatever goes wrong with that is its own failure, and not that of all others."""
        key = order["key"]
        try:
            kept = Attempt(Task(**order), self.marks[len(self.told) % len(self.marks)])
        except NotStarted as refused:
            self.write({"key": key, "ended": store.now(), **refused.record})
            return
        except Exception as error:
            reason = f"CannotCreateContainerError: {error if isinstance(error, OSError) else repr(error)}"
            self.write({"key": key, "ended": store.now(), "reason": reason, "status_reason": reason})
            return
        self.kept[key] = kept
        self.poll.register(kept.output, select.POLLIN)
        process = [kept.process, processes.started(kept.process)]
        self.write({"key": key, "started": store.now(), "process": process})

    def reap(self) -> None:
        """Record the attempts that have ended: as in a container, nothing outlives the first process."""
        for kept in self.kept.values():
            kept.orphans = []
            if kept.code is None:
                done, status = os.waitpid(kept.process, os.WNOHANG)
                kept.code = os.waitstatus_to_exitcode(status) if done else None
        known = {kept.process for kept in self.kept.values() if kept.code is None}
        jobs = {kept.mark: kept for kept in self.kept.values()}
        for one in processes.children(os.getpid()):
            if one in known or os.waitpid(one, os.WNOHANG)[0]:
                continue
            mark = processes.mark(one)
            if mark and mark in jobs:
                jobs[mark].orphans.append(one)
            elif mark in self.marks:  # born while its job ended
                processes.kill(one)
        for key, kept in list(self.kept.items()):
            if kept.code is None:
                continue
            kept.signal(signal.SIGKILL)
            if not kept.orphans:
                record = kept.attempt(kept.end) or kept.broken
                self.close(kept)
                del self.kept[key]
                self.write({"key": key, "ended": store.now(), **record})

    def close(self, kept: Attempt) -> None:
        """Stop listening to an output: closed by a job that goes on, it would be reported for ever."""
        if kept.output >= 0:
            self.poll.unregister(kept.output)
            os.close(kept.output)
            kept.output = -1

    def write(self, record: dict[str, Any]) -> None:
        self.told[record.get("key", "")] = record
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
