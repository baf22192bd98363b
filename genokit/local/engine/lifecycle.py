"""The life of a job after its submission: waiting for others, attempts, retries, children, the end.

Every function works inside the supervisor's transaction, so what belongs together is written together.

https://docs.aws.amazon.com/batch/latest/userguide/job_states.html
https://docs.aws.amazon.com/batch/latest/userguide/job_dependencies.html
"""

from __future__ import annotations

import json
import signal
import sqlite3
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genokit.local import store
from genokit.local.engine import keeper, processes, retries

TIMED_OUT = "Job attempt duration exceeded timeout"
EXITED = "Essential container in task exited"

# The jobs and children that wait for a job, or for a child: N_TO_N for its counterpart, SEQUENTIAL for its predecessor.
DEPENDENTS = """
select jobs.* from dependencies join jobs on jobs.id = job ||
    case type when 'SEQUENTIAL' then ':' || (:idx + 1) when 'N_TO_N' then ':' || :idx else '' end
where on_job in (:id, :parent) and (on_job = :id) = (type is null) and jobs.status = 'PENDING'"""
# What a job, or a child, depends on: whether any of it has failed, and whether any of it has not succeeded.
DEPENDED_ON = """
select total(jobs.status = 'FAILED'), total(jobs.status <> 'SUCCEEDED')
from dependencies join jobs on jobs.id = on_job ||
    case type when 'SEQUENTIAL' then ':' || (:idx - 1) when 'N_TO_N' then ':' || :idx else '' end
where job = coalesce(:parent, :id)"""


class Ended:
    """Jobs that have just ended, and what follows from it for their parents and for those that wait for them.

    A queue and no recursion: one failure may end the ten thousand that follow it, one after another.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.todo: deque[sqlite3.Row] = deque()

    def end(
        self, job: sqlite3.Row, status: str, reason: str | None, at: int | None = None, attempts: str | None = None
    ) -> None:
        """The end of a job; what follows from it waits for ``settle``."""
        self.db.execute(
            "update jobs set status = ?, status_reason = ?, stopped_at = ?, attempts = coalesce(?, attempts) "
            "where id = ?",
            (status, reason, at or store.now(), attempts, job["id"]),
        )
        self.todo.append(job)

    def settle(self) -> None:
        """Carry every end through to the last that it concerns."""
        while self.todo:
            job = self.todo.popleft()
            if job["kind"] == "array" and job["parent"]:
                self._end_array(job["parent"])
            for dependent in self.db.execute(DEPENDENTS, dict(job)).fetchall():
                self.look(dependent)

    def look(self, job: sqlite3.Row) -> None:
        """Let a job that waits for others advance, or fail with them, if it is time; of an array each child."""
        failed, unfinished = self.db.execute(DEPENDED_ON, dict(job)).fetchone()
        if unfinished and not failed:
            return
        if job["kind"] == "array" and job["size"]:
            children = "select * from jobs where parent = ? and status = 'PENDING' order by idx"
            for child in self.db.execute(children, (job["id"],)).fetchall():
                self.look(child)
        elif failed:
            for part in parts(self.db, job["id"]):
                self.end(part, "FAILED", "Dependent Job failed")
        else:
            self.db.execute("update jobs set status = 'RUNNABLE' where id = :id or parent = :id", dict(job))

    def _end_array(self, job_id: str) -> None:
        """An array has ended when its last child has."""
        array = _job(self.db, job_id)
        child = "select 1 from jobs where parent = :id and"
        has = f"select exists ({child} {store.IS_LIVE}), exists ({child} status = 'FAILED')"
        is_live, failed = self.db.execute(has, {"id": job_id}).fetchone()
        if is_live or array["status"] not in store.LIVE:
            return
        if array["stop"]:
            self.end(array, "FAILED", array["stop_reason"])
        else:
            self.end(array, "FAILED" if failed else "SUCCEEDED", "Array Child Job failed" if failed else None)


def advance(db: sqlite3.Connection, ended: Ended) -> None:
    """Submitted jobs become RUNNABLE, or PENDING where they wait for others or stand for their children."""
    if not db.execute("select 1 from jobs where status = 'SUBMITTED' limit 1").fetchone():
        return
    db.execute("update jobs set status = 'PENDING' where status = 'SUBMITTED' and (waits or kind = 'array' and size)")
    db.execute("update jobs set status = 'RUNNABLE' where status = 'SUBMITTED'")
    for job in db.execute("select * from jobs where status = 'PENDING' and waits and parent is null").fetchall():
        ended.look(job)


def collect(db: sqlite3.Connection, home: Path, ended: Ended) -> None:
    """Write down what keepers have recorded. An attempt whose keeper has died is lost, as with an instance."""
    kept = "select * from jobs where status in ('STARTING', 'RUNNING') and size is null"
    for job in db.execute(kept).fetchall():
        with isolated(db, ended, job["id"]):
            file = home / "hosts" / job["host"]
            is_alive = keeper.is_alive(file)  # asked before the record is read: a dead keeper writes nothing more
            record = keeper.read(file)
            attempts = store.loads(job, "attempts")
            if "started" in record and job["status"] == "STARTING":
                attempts[-1]["startedAt"] = at = int(record["started"])
                running = "update jobs set status = 'RUNNING', started_at = ?"
                db.execute(f"{running}, attempts = ? where id = ?", (at, json.dumps(attempts), job["id"]))
                if job["kind"] == "multinode":
                    db.execute(f"{running} where id = ?", (at, job["parent"]))
            if "ended" in record:
                close(db, job, attempts, record, ended)
            elif not is_alive and (record or job["status"] == "RUNNING"):  # else it is still to be started
                keeper.sweep(file)
                close(db, job, attempts, {"lost": True, "ended": store.now()}, ended)


@contextmanager
def isolated(db: sqlite3.Connection, ended: Ended, job_id: str) -> Iterator[None]:
    """What goes wrong meanwhile is the failure of this job alone, unless it is the store that fails."""
    db.execute("savepoint job")
    try:
        yield
    except (sqlite3.Error, OSError, store.UnusableStore):
        raise
    except Exception as error:
        traceback.print_exc()
        db.execute("rollback to job")
        for job in parts(db, job_id):
            ended.end(job, "FAILED", f"CannotCreateContainerError: {error!r}")
    finally:
        db.execute("release job")


def close(
    db: sqlite3.Connection, job: sqlite3.Row, attempts: list[dict[str, Any]], record: dict[str, Any], ended: Ended
) -> None:
    """The end of an attempt: of the job too, unless its retry strategy gives it another."""
    at, last, terminated = int(record["ended"]), attempts[-1], job["stop"] == "terminate"
    if terminated:
        reason = job["stop_reason"]
    elif record.get("timed_out"):
        reason = TIMED_OUT
    elif record.get("lost"):
        reason = f"Host EC2 (instance {job['host']}) terminated."
    else:
        reason = record.get("status_reason", EXITED)
    last["container"] |= {member: record[member] for member in ("exitCode", "reason") if member in record}
    last |= {"startedAt": last.get("startedAt", at), "stoppedAt": at, "statusReason": reason}
    text, good = json.dumps(attempts), record.get("exitCode") == 0 and reason == EXITED
    if job["kind"] == "multinode":
        ended.end(job, "SUCCEEDED" if good else "FAILED", reason, at, text)
        _end_multinode(db, _job(db, job["id"]), bool(record.get("lost")), ended)
    elif good:
        ended.end(job, "SUCCEEDED", reason, at, text)
    elif not terminated and _is_retried(db, job, attempts):
        # What was asked of the attempt that has gone is not asked of the next.
        retried = "update jobs set status = 'RUNNABLE', status_reason = ?, attempts = ?, stop = null where id = ?"
        db.execute(retried, (reason, text, job["id"]))
    else:
        ended.end(job, "FAILED", reason, at, text)


def _is_retried(db: sqlite3.Connection, job: sqlite3.Row, attempts: list[dict[str, Any]]) -> bool:
    doc, _ = store.document(db, job["parent"] or job["id"])
    return attempts[-1]["statusReason"] != TIMED_OUT and retries.is_retried(doc["retryStrategy"], attempts)


def _end_multinode(db: sqlite3.Connection, node: sqlite3.Row, lost: bool, ended: Ended) -> None:
    """With the main node the whole job ends, once its other nodes are stopped; the end of another is its own.

    https://docs.aws.amazon.com/batch/latest/userguide/multi-node-parallel-jobs.html
    """
    parent = _job(db, node["parent"])
    main_node = store.loads(parent, "doc")["nodes"]["mainNode"]
    terminated = parent["stop"] == "terminate"
    if node["idx"] == main_node or lost or terminated:
        db.execute(
            "update jobs set stop = 'terminate', stop_reason = 'The main node has ended.' "
            "where parent = ? and status in ('STARTING', 'RUNNING')",
            (parent["id"],),
        )
    nodes = db.execute("select * from jobs where parent = ? order by idx", (parent["id"],)).fetchall()
    if parent["status"] not in store.LIVE or any(one["status"] in store.LIVE for one in nodes):
        return
    main = nodes[main_node]
    attempts = [*store.loads(parent, "attempts"), store.loads(main, "attempts")[-1]]
    db.execute("update jobs set attempts = ? where id = ?", (json.dumps(attempts), parent["id"]))
    if main["status"] == "FAILED" and not terminated and _is_retried(db, parent, attempts):
        db.execute(
            "update jobs set status = 'RUNNABLE', status_reason = ?, stop = null, stopped_at = null "
            "where id = ? or parent = ?",
            (main["status_reason"], parent["id"], parent["id"]),
        )
    else:
        reason = parent["stop_reason"] if terminated else main["status_reason"]
        ended.end(parent, main["status"], reason, node["stopped_at"])


def obey(db: sqlite3.Connection, home: Path, ended: Ended) -> None:
    """Fail what was to be stopped before it started; signal the keepers of what runs, until it has ended."""
    signals = {"terminate": signal.SIGTERM, "reclaim": signal.SIGKILL}
    for job in db.execute(f"select * from jobs where stop is not null and {store.IS_LIVE}").fetchall():
        if job["status"] in store.WAITING and not (job["size"] and job["kind"] == "array"):
            ended.end(job, "FAILED", job["stop_reason"])
        elif job["status"] in ("STARTING", "RUNNING") and not job["size"] and job["stop"] in signals:
            processes.kill_holder(home / "hosts" / job["host"], signals[job["stop"]])


def parts(db: sqlite3.Connection, job_id: str) -> list[sqlite3.Row]:
    """The unfinished ones among a job and its children."""
    live = f"select * from jobs where (id = :id or parent = :id) and {store.IS_LIVE}"
    return db.execute(live, {"id": job_id}).fetchall()


def _job(db: sqlite3.Connection, job_id: str) -> Any:
    return db.execute("select * from jobs where id = ?", (job_id,)).fetchone()
