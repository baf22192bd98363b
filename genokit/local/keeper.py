"""One keeper a running attempt: it starts the job's process, writes its log, enforces its timeout, and records how it
ended.

The supervisor forks it (a fork costs a millisecond; a new interpreter would cost fifty) and may then die: the keeper is
a session of its own and needs nobody. It holds a lock on ``<attempt>/keeper`` for as long as it lives, so anyone can
ask whether an attempt is still kept, without trusting process numbers, which the system uses again.

What an attempt's folder holds:

    keeper      locked while the keeper lives; its process number, for signals
    work/       the job's working folder, removed when the attempt ends
    exit.json   how it ended: {"exitCode", "reason", "stopped_at", "timed_out"}; written once, whole or not at all
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

from genokit.local import stream


@dataclass(frozen=True)
class Task:
    """What a keeper is asked to keep."""

    folder: Path
    log: Path
    command: tuple[str, ...]
    environment: dict[str, str]
    timeout_s: float | None
    wake: Path  # the supervisor's FIFO: a byte says that something ended
    grace_s: float = 30.0  # between SIGTERM and SIGKILL, as on AWS


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


def stop(folder: Path) -> None:
    """Ask the attempt's keeper to stop its job: SIGTERM, then after the grace SIGKILL."""
    if is_kept(folder):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int((folder / "keeper").read_text()), signal.SIGTERM)


def _live(task: Task, lock: int) -> None:
    """The keeper's whole life; never returns into the supervisor's code."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        os.closerange(3, lock)
        os.closerange(lock + 1, 1 << 16)
        record = _run(task)
        _record(task, record)
        code = 0
    except BaseException:
        # The one place that must not raise: there is nobody above. The supervisor's log gets the reason.
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(task: Task) -> dict[str, object]:
    work = task.folder / "work"
    (work / "tmp").mkdir(parents=True, exist_ok=True)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    environment = {**task.environment, "TMPDIR": str(work / "tmp")}
    environment.setdefault("HOME", str(work))
    program = shutil.which(task.command[0], path=environment.get("PATH", os.defpath))
    if program is None:
        missing = f'exec: "{task.command[0]}": executable file not found in $PATH'
        return {"exitCode": 127, "reason": f"CannotStartContainerError: {missing}"}

    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    os.set_blocking(wakeup_read, False)
    signal.set_wakeup_fd(wakeup_write)
    signals = _Signals()
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, signals.asked)
    os.chdir(work)
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)]
    defaults = [signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT]
    try:
        job = os.posix_spawn(
            program, task.command, environment, file_actions=actions, setpgroup=0, setsigdef=defaults, setsigmask=[]
        )
    except OSError as error:
        reason = f"CannotStartContainerError: exec: '{task.command[0]}': {error.strerror}"
        return {"exitCode": 126, "reason": reason}
    os.close(write)
    os.close(null)
    status = _follow(job, read, log, wakeup_read, task, signals)
    os.close(log)
    code = os.waitstatus_to_exitcode(status)
    record: dict[str, object] = {"exitCode": code if code >= 0 else 128 - code}
    if signals.timed_out:
        record["timed_out"] = True
    return record


class _Signals:
    """What has been asked of this keeper."""

    def __init__(self) -> None:
        self.stop = False
        self.timed_out = False

    def asked(self, *_: object) -> None:
        self.stop = True


def _follow(job: int, read: int, log: int, wakeup: int, task: Task, signals: _Signals) -> int:
    """Copy the job's output to its log until the job has ended and its output is read; returns its wait status."""
    os.set_blocking(read, False)
    poll = select.poll()
    poll.register(read, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    buffer = bytearray()
    deadline = time.monotonic() + task.timeout_s if task.timeout_s else None
    kill_at: float | None = None
    status: int | None = None
    open_output = True
    while status is None or open_output:
        now = time.monotonic()
        if deadline and now >= deadline and not signals.stop:
            signals.timed_out = signals.stop = True
        if signals.stop and kill_at is None and status is None:
            kill_at = now + task.grace_s
            _signal_group(job, signal.SIGTERM)
        if kill_at and now >= kill_at:
            _signal_group(job, signal.SIGKILL)
        next_s = min((at - now for at in (kill_at or deadline, deadline) if at and at > now), default=3600.0)
        poll.poll(next_s * 1000 if status is None else 0)
        _drain(wakeup)
        open_output = _copy(read, log, buffer)
        if status is None:
            ended, waited = os.waitpid(job, os.WNOHANG)
            if ended:
                status = waited
                # As in a container, nothing outlives the first process; what it had written is still read.
                _signal_group(job, signal.SIGKILL)
                while _copy(read, log, buffer) and _more(read):
                    pass
                open_output = False
    os.write(log, stream.encode(stream.split(buffer, final=True), _milliseconds()))
    os.close(read)
    return status


def _copy(read: int, log: int, buffer: bytearray) -> bool:
    """Read what is there, up to a megabyte, into the log; False at the end of the output."""
    for _ in range(16):  # a job that never pauses must not keep its keeper from the clock
        try:
            data = os.read(read, 1 << 16)
        except BlockingIOError:
            return True
        if not data:
            return False
        buffer += data
        lines = stream.split(buffer)
        if lines:
            _write(log, stream.encode(lines, _milliseconds()))
    return True


def _more(read: int) -> bool:
    return bool(select.select([read], [], [], 0)[0])


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _drain(wakeup: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(wakeup, 512):
            pass


def _signal_group(job: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job, number)


def _record(task: Task, record: dict[str, object]) -> None:
    shutil.rmtree(task.folder / "work", ignore_errors=True)
    record["stopped_at"] = _milliseconds()
    half = task.folder / "exit.half"
    half.write_text(json.dumps(record))
    half.replace(task.folder / "exit.json")
    wake(task.wake)


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


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
