"""The supervisor: one process an account, which starts jobs when they fit and writes down what becomes of them.

It is not the kernel's child, so jobs outlive the kernel that submitted them, and it holds nothing that is not on disk,
so it may be killed at any instant: the next call to the account starts another, which goes on where the store and the
attempts' folders say.

One step of its loop: read what has ended, obey wishes to stop, let waiting jobs advance, start what fits. It sleeps on
a FIFO that clients and keepers write a byte to, and leaves when there is nothing left to follow.

    python -m genokit.local.supervisor HOME      starts one in the background, and returns when it listens
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genokit.local import keeper, store, stream

IDLE_S = 20.0  # how long it stays when nothing runs
TICK_S = 1.0  # how often it looks after attempts whose end nobody announces
LOST = "Host EC2 (instance i-this-machine) terminated."


@dataclass(frozen=True)
class Room:
    """What an environment has free."""

    vcpus: float
    memory_mib: int
    gpus: tuple[int, ...]

    def less(self, job: sqlite3.Row, gpus: tuple[int, ...]) -> Room:
        left = tuple(gpu for gpu in self.gpus if gpu not in gpus)
        return Room(self.vcpus - job["vcpus"], self.memory_mib - job["memory_mib"], left)

    def fits(self, job: sqlite3.Row) -> bool:
        asked = (job["vcpus"], job["memory_mib"], job["gpus"])
        return all(need <= has for need, has in zip(asked, (self.vcpus, self.memory_mib, len(self.gpus)), strict=True))


# --- the steps


def step(db: sqlite3.Connection, home: Path) -> int:
    """Bring the account up to date and start what fits; returns how many attempts are being kept."""
    with store.transaction(db):
        collect(db, home)
        obey(db, home)
        advance(db)
        starting = choose(db)
    for job, gpus in starting:
        keeper.start(task(home, job, gpus))
    if starting:
        with store.transaction(db):
            now = _now()
            for job, _ in starting:
                attempts = [*store.loads(job, "attempts")[:-1], store.loads(job, "attempts")[-1] | {"startedAt": now}]
                running = "update jobs set status = 'RUNNING', started_at = ?, attempts = ? where id = ?"
                db.execute(running, (now, json.dumps(attempts), job["id"]))
    return int(db.execute("select count(*) from jobs where status in ('STARTING', 'RUNNING')").fetchone()[0])


def collect(db: sqlite3.Connection, home: Path) -> None:
    """Write down the attempts that have ended, and those whose keeper was lost with the machine."""
    for job in db.execute("select * from jobs where status in ('STARTING', 'RUNNING')").fetchall():
        attempts = store.loads(job, "attempts")
        folder = store.attempt_folder(home, job["id"], len(attempts))
        record: dict[str, Any] | None = keeper.ended(folder)
        if record is None:
            if keeper.is_kept(folder):
                continue
            # The keeper may have written its record between the two looks.
            record = keeper.ended(folder) or {"reason": LOST, "lost": True, "stopped_at": _now()}
        finish(db, job, attempts, record)


def finish(db: sqlite3.Connection, job: sqlite3.Row, attempts: list[dict[str, Any]], record: dict[str, Any]) -> None:
    """The end of an attempt, and with it of the job."""
    stopped_at, code = record["stopped_at"], record.get("exitCode")
    if job["stop"] == "terminate":
        reason = job["stop_reason"]
    elif record.get("timed_out"):
        reason = "Job attempt duration exceeded timeout"
    elif record.get("lost"):
        reason = LOST
    elif "reason" in record:
        reason = "Task failed to start"
    else:
        reason = "Essential container in task exited"
    last = attempts[-1]
    last.setdefault("startedAt", stopped_at)
    last |= {"stoppedAt": stopped_at, "statusReason": reason}
    last["container"] |= {key: record[key] for key in ("exitCode", "reason") if key in record}
    succeeded = code == 0 and not record.get("timed_out") and job["stop"] != "terminate"
    db.execute(
        "update jobs set status = ?, status_reason = ?, stopped_at = ?, started_at = coalesce(started_at, ?), "
        "attempts = ? where id = ?",
        ("SUCCEEDED" if succeeded else "FAILED", reason, stopped_at, stopped_at, json.dumps(attempts), job["id"]),
    )


def obey(db: sqlite3.Connection, home: Path) -> None:
    """Cancel what has not started; pass on the order to stop what runs."""
    for job in db.execute(
        "select * from jobs where stop is not null and status in (?, ?, ?, ?, ?)", store.LIVE
    ).fetchall():
        if job["status"] in ("SUBMITTED", "PENDING", "RUNNABLE"):
            db.execute(
                "update jobs set status = 'FAILED', status_reason = ?, stopped_at = ? where id = ?",
                (job["stop_reason"], _now(), job["id"]),
            )
        elif job["stop"] == "terminate":
            keeper.stop(store.attempt_folder(home, job["id"], len(store.loads(job, "attempts"))))


def advance(db: sqlite3.Connection) -> None:
    """Submitted jobs may run as soon as there is room."""
    db.execute("update jobs set status = 'RUNNABLE' where status = 'SUBMITTED'")


def choose(db: sqlite3.Connection) -> list[tuple[sqlite3.Row, tuple[int, ...]]]:
    """The jobs to start now, each with its GPUs: by queue priority, then by age; none overtakes an older one that waits
    for room.

    A job larger than its whole environment stays RUNNABLE, says why, and is in nobody's way.
    """
    rooms = {row["name"]: Room(row["vcpus"], row["memory_mib"], tuple(range(row["gpus"]))) for row in
             db.execute("select * from environments")}  # fmt: skip
    whole = dict(rooms)
    queues = db.execute("select * from queues").fetchall()
    places = {row["name"]: row["environment"] for row in queues}
    priorities = {row["name"]: row["priority"] for row in queues}
    for job in db.execute("select * from jobs where status in ('STARTING', 'RUNNING')"):
        place = places[job["queue"]]
        rooms[place] = rooms[place].less(job, tuple(store.loads(job, "attempts")[-1].get("gpus", ())))
    chosen: list[tuple[str, tuple[int, ...]]] = []
    full: set[str] = set()
    for queue, place in sorted(places.items(), key=lambda item: -priorities[item[0]]):
        for job in db.execute("select * from jobs where queue = ? and status = 'RUNNABLE' order by seq", (queue,)):
            if place in full:
                break
            if not whole[place].fits(job):
                reason = too_large(job, place, whole[place])
                if job["status_reason"] != reason:
                    db.execute("update jobs set status_reason = ? where id = ?", (reason, job["id"]))
            elif rooms[place].fits(job):
                gpus = rooms[place].gpus[: job["gpus"]]
                rooms[place] = rooms[place].less(job, gpus)
                chosen.append((job["id"], gpus))
            else:
                full.add(place)
    return [(begin(db, job_id, gpus), gpus) for job_id, gpus in chosen]


def begin(db: sqlite3.Connection, job_id: str, gpus: tuple[int, ...]) -> sqlite3.Row:
    """Write down the intent to start an attempt: from here on the job is never started a second time by mistake."""
    job = db.execute("select * from jobs where id = ?", (job_id,)).fetchone()
    attempts = store.loads(job, "attempts")
    # https://docs.aws.amazon.com/batch/latest/userguide/job_states.html
    name = f"{store.loads(job, 'doc')['definition_name'][:200]}/default/{secrets.token_hex(16)}"
    attempts.append({"container": {"logStreamName": name}, "gpus": gpus})
    db.execute(
        "update jobs set status = 'STARTING', status_reason = null, attempts = ? where id = ?",
        (json.dumps(attempts), job_id),
    )
    started: sqlite3.Row = db.execute("select * from jobs where id = ?", (job_id,)).fetchone()
    return started


def too_large(job: sqlite3.Row, place: str, room: Room) -> str:
    """Why a job can never start."""
    asked = [
        f"{job[key]:g} {unit} of {has:g}"
        for key, unit, has in (
            ("vcpus", "vCPU", room.vcpus),
            ("memory_mib", "MiB of memory", room.memory_mib),
            ("gpus", "GPU", len(room.gpus)),
        )
        if job[key] > has
    ]
    return (
        "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job asks for more than the compute environment "
        f"'{place}' has: {', '.join(asked)}."
    )


def task(home: Path, job: sqlite3.Row, gpus: tuple[int, ...]) -> keeper.Task:
    """What the keeper of a job's newest attempt needs to know."""
    doc, attempts = store.loads(job, "doc"), store.loads(job, "attempts")
    log = stream.path(home, attempts[-1]["container"]["logStreamName"])
    if log is None:
        raise ValueError(f"job '{job['id']}' has no place for its log")
    # https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html
    given = {
        "AWS_BATCH_JOB_ID": job["id"],
        "AWS_BATCH_JOB_ATTEMPT": str(len(attempts)),
        "AWS_BATCH_JQ_NAME": job["queue"],
        "AWS_BATCH_CE_NAME": "this-machine",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
    }
    own = {pair["name"]: pair["value"] for pair in doc["environment"]}
    return keeper.Task(
        folder=store.attempt_folder(home, job["id"], len(attempts)),
        log=log,
        command=tuple(doc["command"]),
        environment={**store.loads(job, "runtime"), **own, **given},
        timeout_s=doc.get("timeout_s"),
        wake=home / "wake",
    )


# --- the loop


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[bool]:
    """Hold the account's lock; False where another supervisor holds it."""
    lock = os.open(home / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    mine = True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    except BlockingIOError:
        mine = False
    try:
        yield mine
    finally:
        os.close(lock)


def supervise(home: Path, ready: int) -> None:
    """Follow the account's jobs until there are none to follow."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children, child_ended = os.pipe()
    for end in (children, child_ended):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(child_ended)
    fifo = home / "wake"
    if not fifo.exists():
        os.mkfifo(fifo, 0o600)
    with store.connect(home) as db:
        busy = True
        while busy and not asked:
            # Open for writing too, or the FIFO would report an end each time the last writer leaves.
            news = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
            if ready >= 0:
                os.write(ready, b"ready")
                os.close(ready)
                ready = -1
            follow(db, home, news, children, asked)
            os.close(news)
            busy = unattended(db)  # a wish that came between the last look and the closing


def follow(db: sqlite3.Connection, home: Path, news: int, children: int, asked: list[int]) -> None:
    """Step whenever there is news, until nothing has run for a while or the supervisor is asked to go."""
    idle_since = time.monotonic()
    while not asked:
        kept = step(db, home)
        now = time.monotonic()
        if kept:
            idle_since = now
        elif now - idle_since >= IDLE_S:
            return
        select.select([news, children], [], [], TICK_S if kept else idle_since + IDLE_S - now)
        for source in (news, children):
            with contextlib.suppress(BlockingIOError):
                os.read(source, 1 << 16)
        reap()


def unattended(db: sqlite3.Connection) -> bool:
    """Whether there is work that no step has seen."""
    work = "status in ('SUBMITTED', 'STARTING', 'RUNNING') or (status = 'RUNNABLE' and stop is not null)"
    return db.execute("select 1 from jobs where " + work).fetchone() is not None


def reap() -> None:
    """Let ended keepers go."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main(home: Path) -> int:
    """Start a supervisor in the background unless one runs; 0 when one listens, else 1 with the reason on stderr."""
    told, ready = os.pipe()
    if os.fork():
        os.close(ready)
        answer = b"".join(iter(lambda: os.read(told, 4096), b""))
        if answer == b"ready":
            return 0
        sys.stderr.write(answer.decode())
        return 1
    os.setsid()
    os.close(told)
    try:
        with only_one(home) as mine:
            if not mine:
                os.write(ready, b"ready")
                return 0
            log = os.open(home / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            supervise(home, ready)
    except (OSError, sqlite3.Error, store.CorruptStore) as error:
        with contextlib.suppress(OSError):  # once it has said that it is ready, only the log is left to tell
            os.write(ready, str(error).encode())
        traceback.print_exc()
        return 1
    return 0


def _now() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
