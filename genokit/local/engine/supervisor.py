"""The supervisor: one process an account, which starts jobs when they fit and writes down what becomes of them.

It is not the kernel's child, so jobs outlive the kernel that submitted them, and it holds nothing that is not on disk,
so it may be killed at any instant: the next call to the account starts another, which goes on where the store and the
keepers' files say.

One step of its loop: read what has ended, obey wishes to stop, let waiting jobs advance, start what fits. It sleeps on
a FIFO that clients and keepers write a byte to, and leaves when there is nothing left to follow.

    python -m genokit.local.engine.supervisor HOME [--idle-s 20]   starts one in the background
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import secrets
import select
import signal
import sqlite3
import sys
import time
import traceback
from pathlib import Path

from genokit.errors import GenokitError
from genokit.local import store
from genokit.local.engine import containers, keeper, lifecycle, processes, retention, runners, scheduler

IDLE_S = 20.0  # how long it stays when nothing runs
PATIENCE_S = 30.0  # how long it waits for another that comes or goes
STARTING_S = 0.02  # how soon it looks whether what it has started runs
PRUNE_S = 3600.0  # how often it looks for what is old enough to be forgotten
TICK_S = 2.0  # how often it looks whether the keepers live

# --- the steps


def step(db: sqlite3.Connection, home: Path, spare: keeper.Spare) -> float | None:
    """Bring the account up to date and start what fits; returns when to look again, None where nothing runs.

    What a killed supervisor had decided and not started, the next starts: a keeper takes no attempt twice."""
    with store.transaction(db):
        ended = lifecycle.Ended(db)
        lifecycle.collect(db, home, ended)
        lifecycle.obey(db, home, ended)
        ended.settle()
        lifecycle.advance(db, ended)
        ended.settle()
        for job_id, environment, gpus in scheduler.choose(db):
            with lifecycle.isolated(db, ended, job_id):
                begin(db, home, job_id, environment, list(gpus))
        ended.settle()
    spare.look()
    live = db.execute("select * from jobs where status in ('STARTING', 'RUNNING')").fetchall()
    starting = [job for job in live if job["status"] == "STARTING" and not job["size"]]
    for job in starting:
        file = home / "hosts" / job["host"]
        if not keeper.read(file):
            keeper.start(file, runners.task(db, home, job), home / "wake", spare)
    clear_away(home, {job["host"] for job in live})
    return STARTING_S if starting else TICK_S if live else None


def begin(db: sqlite3.Connection, home: Path, job_id: str, environment: str, gpus: list[int]) -> None:
    """Write down the intent to start a job, or all nodes of one: from here on no attempt is started twice."""
    for job in db.execute("select * from jobs where id = :id or parent = :id", {"id": job_id}).fetchall():
        mine, gpus = ([], gpus) if job["size"] else (gpus[: job["gpus"]], gpus[job["gpus"] :])
        attempts, host = store.loads(job, "attempts"), None
        if not job["size"]:
            doc, _ = store.document(db, job["parent"] or job["id"])
            # https://docs.aws.amazon.com/batch/latest/userguide/job_states.html
            name = f"{doc['definition'][0][:200]}/default/{secrets.token_hex(16)}"
            attempts.append({"container": {"logStreamName": name}})
            host = f"i-{secrets.token_hex(8)}"
            (home / "hosts" / host).touch(0o600)
        db.execute(
            "update jobs set status = 'STARTING', status_reason = null, environment = ?, gpu_ids = ?, attempts = ?, "
            "host = ? where id = ?",
            (environment, json.dumps(mine), json.dumps(attempts), host, job["id"]),
        )


def clear_away(home: Path, live: set[str | None]) -> None:
    """Have the keepers go that no job has any more, and remove what those that have gone have left."""
    for file in (home / "hosts").iterdir():
        if file.name in live:
            continue
        record = keeper.read(file)
        if "ended" not in record:
            if processes.kill_holder(file, signal.SIGTERM):
                continue
            if "container" in record:
                containers.remove(*record["container"])
        keeper.remove(file) if file.is_dir() else file.unlink()  # a folder is of an older version


# --- the loop


def supervise(home: Path, ready: io.FileIO, idle_s: float) -> None:
    """Follow the account's jobs until there are none to follow. ``ready`` hears when it does its work: after the first
    step where others have died of it."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    fifo = home / "wake"
    if not fifo.exists():
        os.mkfifo(fifo, 0o600)
    (home / "hosts").mkdir(exist_ok=True)
    # What no step has seen: a wish may come between the last look and the closing.
    unattended = "status in ('SUBMITTED', 'STARTING', 'RUNNING') or (status = 'RUNNABLE' and stop is not null)"
    with store.connect(home) as db:
        db.execute("pragma synchronous = normal")  # what is lost in a power failure is done again
        db.execute("pragma wal_autocheckpoint = 10000")  # a checkpoint waits for the disk
        is_busy = True
        while is_busy and not stop:
            # Open for writing too, or the FIFO would report an end each time the last writer leaves. Signals go there.
            news = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
            signal.set_wakeup_fd(news, warn_on_full_buffer=False)
            try:
                follow(db, home, news, stop, idle_s, ready)
            finally:
                signal.set_wakeup_fd(-1)
                os.close(news)  # or one that has died would seem to listen until it is gone
            is_busy = db.execute(f"select 1 from jobs where {unattended}").fetchone() is not None


def follow(db: sqlite3.Connection, home: Path, news: int, stop: list[int], idle_s: float, ready: io.FileIO) -> None:
    """Step whenever there is news, until nothing has run for a while or the supervisor is asked to go."""
    if len(store.deaths(home)) < 2:
        answer(ready)
    idle_since, prune_at, spare = time.monotonic(), 0.0, keeper.Spare()
    while not stop:
        look_again_s = step(db, home, spare)
        now = time.monotonic()
        if now >= prune_at:
            prune_at = now + PRUNE_S
            retention.prune(db, home, float(os.environ.get("GENOKIT_RETENTION_DAYS", "30")))
        (home / "deaths").unlink(missing_ok=True)
        answer(ready)
        if look_again_s:
            idle_since = now
        elif now - idle_since >= idle_s:
            return
        select.select([news], [], [], look_again_s or idle_since + idle_s - now)
        with contextlib.suppress(BlockingIOError):
            os.read(news, 1 << 16)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # keepers that have ended
                continue


def answer(ready: io.FileIO, text: str = "ready") -> None:
    """Say once, to who started this supervisor, that it works, or why not."""
    if not ready.closed:
        ready.write(text.encode(errors="replace"))
        ready.close()


def main(home: Path, idle_s: float = IDLE_S) -> int:
    """Start a supervisor in the background unless one runs. The standard output ends when one listens, with ``ready``,
    or with the reason why none does."""
    if os.fork():
        return 0
    os.setsid()
    processes.unmark()  # a job may have started it, whose end it outlives
    ready = io.FileIO(os.dup(1), "w")
    try:
        lock = os.open(home / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if keeper.wake(home / "wake"):
                answer(ready)
                return 0
            if time.monotonic() >= deadline:
                raise GenokitError("another supervisor holds the lock but does not respond")
            time.sleep(0.005)  # the other does not listen yet, or is leaving and would miss what is new
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        log = os.open(home / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        supervise(home, ready, idle_s)
        return 0
    except Exception as error:
        traceback.print_exc()
        why = " ".join((str(error) if isinstance(error, (OSError, GenokitError)) else repr(error)).split())
        with contextlib.suppress(OSError), open(home / "deaths", "ab") as file:
            file.write(f"{why}\n".encode(errors="replace"))
        answer(ready, why)  # once it has said that it is ready, only the log and this file are left to tell
        return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[3]) if sys.argv[2:3] == ["--idle-s"] else IDLE_S))
