"""The life of a job after its submission: waiting for others, attempts, retries, children, the end.

Every function works inside the supervisor's transaction, so what belongs together is written together.

https://docs.aws.amazon.com/batch/latest/userguide/job_states.html
https://docs.aws.amazon.com/batch/latest/userguide/job_dependencies.html
"""

from __future__ import annotations

import json
import sqlite3
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from genokit.local import store
from genokit.local.engine import keeper, processes, retries

TIMED_OUT = "Job attempt duration exceeded timeout"
EXITED = "Essential container in task exited"


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
        if not self.todo:
            return
        somebody_waits = self.db.execute("select 1 from dependencies limit 1").fetchone()
        while self.todo:
            job = self.todo.popleft()
            if job["parent"]:
                self._parent(job)
            if not somebody_waits:
                continue
            if job["parent"]:
                self._siblings(job)
            for dependent in self.db.execute(
                "select jobs.* from dependencies join jobs on jobs.id = dependencies.job "
                "where on_job = ? and type is null and jobs.status = 'PENDING'",
                (job["id"],),
            ).fetchall():
                self.look(dependent)

    def look(self, job: sqlite3.Row) -> None:
        """Let a job that waits for others advance, or fail with them, if it is time."""
        if job["kind"] == "array" and job["size"]:
            waiting = self.db.execute(
                "select * from jobs where parent = ? and status in ('SUBMITTED', 'PENDING') order by idx", (job["id"],)
            ).fetchall()
        else:
            waiting = [job]
        shared: dict[str, str] = {}
        for one in waiting:
            verdict = self._verdict(one, shared)
            if verdict == "SUCCEEDED":
                self.db.execute("update jobs set status = 'RUNNABLE' where id = :id or parent = :id", {"id": one["id"]})
            elif verdict == "FAILED":
                for part in self.db.execute(
                    "select * from jobs where id = :id or parent = :id", {"id": one["id"]}
                ).fetchall():
                    self.end(part, "FAILED", "Dependent Job failed")

    def _verdict(self, job: sqlite3.Row, shared: dict[str, str]) -> str:
        """SUCCEEDED if all it depends on has, FAILED if any of it has, else PENDING. ``shared`` is for one array."""
        top = job["parent"] or job["id"]
        if "plain" not in shared:
            shared["plain"] = _worst(
                self.db,
                "select jobs.status from dependencies join jobs on jobs.id = on_job where job = ? and type is null",
                (top,),
            )
        found = [shared["plain"]]
        if job["idx"] is not None:
            found.append(
                _worst(
                    self.db,
                    "select jobs.status from dependencies join jobs on jobs.id = on_job || ':' || "
                    "case type when 'SEQUENTIAL' then ? - 1 else ? end where job = ? and type is not null",
                    (job["idx"], job["idx"], top),
                )
            )
        return "FAILED" if "FAILED" in found else "PENDING" if "PENDING" in found else "SUCCEEDED"

    def _parent(self, job: sqlite3.Row) -> None:
        """An array has ended when its last child has; a multi-node job with its main node."""
        parent = _job(self.db, job["parent"])
        if parent["kind"] == "multinode" or parent["status"] not in store.LIVE:
            return
        live = f"select 1 from jobs where parent = ? and status in ({store.marks(store.LIVE)}) limit 1"
        if self.db.execute(live, (parent["id"], *store.LIVE)).fetchone():
            return
        failed = self.db.execute(
            "select 1 from jobs where parent = ? and status = 'FAILED' limit 1", (parent["id"],)
        ).fetchone()
        if parent["stop"]:
            self.end(parent, "FAILED", parent["stop_reason"])
        else:
            self.end(parent, "FAILED" if failed else "SUCCEEDED", "Array Child Job failed" if failed else None)

    def _siblings(self, job: sqlite3.Row) -> None:
        """The children elsewhere that wait for this one: N_TO_N its counterpart, SEQUENTIAL its successor."""
        for dependent in self.db.execute(
            "select child.* from dependencies join jobs child on child.id = dependencies.job || ':' || "
            "case type when 'SEQUENTIAL' then ? + 1 else ? end "
            "where on_job = ? and type is not null and child.status = 'PENDING'",
            (job["idx"], job["idx"], job["parent"]),
        ).fetchall():
            self.look(dependent)


def advance(db: sqlite3.Connection, ended: Ended) -> None:
    """Submitted jobs become RUNNABLE, or PENDING where they wait for others or stand for their children."""
    if not db.execute("select 1 from jobs where status = 'SUBMITTED' limit 1").fetchone():
        return
    db.execute("update jobs set status = 'PENDING' where status = 'SUBMITTED' and (waits or kind = 'array' and size)")
    db.execute("update jobs set status = 'RUNNABLE' where status = 'SUBMITTED'")
    for job in db.execute("select * from jobs where status = 'PENDING' and waits and parent is null").fetchall():
        ended.look(job)


def collect(db: sqlite3.Connection, home: Path, ended: Ended) -> None:
    """Write down what the keepers' journals tell; what a dead keeper kept is lost, as with an instance."""
    for host in db.execute("select * from hosts").fetchall():
        folder = home / "hosts" / host["instance"]
        alive = keeper.lives(folder)  # asked before the journal is read: a dead keeper writes nothing more
        records, offset = keeper.journal(folder, host["offset"])
        for record in records:
            if record != keeper.LEFT:
                alone(db, ended, record["key"].rpartition("/")[0], partial(_apply, db, record, ended))
        if offset != host["offset"]:
            db.execute("update hosts set offset = ? where instance = ?", (offset, host["instance"]))
        if not alive:
            keeper.sweep(folder)
            _lose(db, host["instance"], ended, left=keeper.has_left(folder))


def alone(db: sqlite3.Connection, ended: Ended, job_id: str, act: Callable[[], Any]) -> Any:
    """What ``act`` returns; what it raises is the failure of this job alone."""
    db.execute("savepoint alone")
    try:
        return act()
    except (sqlite3.Error, OSError, store.UnusableStore):
        raise
    except Exception as error:
        traceback.print_exc()
        db.execute("rollback to alone")
        parts = f"select * from jobs where (id = ? or parent = ?) and status in ({store.marks(store.LIVE)})"
        for job in db.execute(parts, (job_id, job_id, *store.LIVE)).fetchall():
            ended.end(job, "FAILED", f"CannotCreateContainerError: {error!r}")
        return ()
    finally:
        db.execute("release alone")


def _apply(db: sqlite3.Connection, record: dict[str, Any], ended: Ended) -> None:
    """One line of a journal."""
    job_id, _, attempt = record["key"].rpartition("/")
    job = _job(db, job_id)
    if job is None or job["status"] not in ("STARTING", "RUNNING"):
        return
    attempts = store.loads(job, "attempts")
    if len(attempts) != int(attempt):
        return
    if "started" in record:
        run(db, job, attempts, record["started"], record["process"])
    else:
        close(db, job, attempts, record, ended)


def _lose(db: sqlite3.Connection, instance: str, ended: Ended, *, left: bool) -> None:
    """A keeper has died, and with it what it kept; where it had left, what it was told too late waits again."""
    kept = "select * from jobs where host = ? and status in ('STARTING', 'RUNNING') and size is null"
    for job in db.execute(kept, (instance,)).fetchall():
        attempts = store.loads(job, "attempts")
        if left and job["status"] == "STARTING":
            back = "update jobs set status = 'RUNNABLE', attempts = ? where id = ?"
            db.execute(back, (json.dumps(attempts[:-1]), job["id"]))
            if job["kind"] == "multinode":
                db.execute("update jobs set status = 'RUNNABLE' where id = ?", (job["parent"],))
            continue
        if job["process"]:
            processes.kill_started(*store.loads(job, "process"))
        close(db, job, attempts, {"lost": True, "ended": store.now()}, ended)
    db.execute("delete from hosts where instance = ?", (instance,))


def run(
    db: sqlite3.Connection, job: sqlite3.Row, attempts: list[dict[str, Any]], at: int, process: list[object]
) -> None:
    """Write down that an attempt runs."""
    attempts[-1]["startedAt"] = at
    running = "update jobs set status = 'RUNNING', started_at = ?, attempts = ?, process = ? where id = ?"
    db.execute(running, (at, json.dumps(attempts), json.dumps(process), job["id"]))
    if job["kind"] == "multinode":
        db.execute("update jobs set status = 'RUNNING', started_at = ? where id = ?", (at, job["parent"]))


def close(
    db: sqlite3.Connection, job: sqlite3.Row, attempts: list[dict[str, Any]], record: dict[str, Any], ended: Ended
) -> None:
    """The end of an attempt: of the job too, unless its retry strategy gives it another."""
    at, code = record["ended"], record.get("exitCode")
    last = attempts[-1]
    last.setdefault("startedAt", at)
    last["container"] |= {member: record[member] for member in ("exitCode", "reason") if member in record}
    if job["stop"] == "terminate":
        reason = job["stop_reason"]
    elif record.get("timed_out"):
        reason = TIMED_OUT
    elif record.get("lost"):
        reason = f"Host EC2 (instance {job['host']}) terminated."
    else:
        reason = record.get("status_reason", EXITED)
    last |= {"stoppedAt": at, "statusReason": reason}
    text = json.dumps(attempts)
    if job["kind"] == "multinode":
        db.execute("update jobs set attempts = ? where id = ?", (text, job["id"]))
        _node_ended(db, job, code == 0 and reason == EXITED, reason, record, ended)
    elif code == 0 and reason == EXITED:
        ended.end(job, "SUCCEEDED", reason, at, text)
    elif job["stop"] != "terminate" and not record.get("timed_out") and _again(db, job, attempts):
        # What was asked of the attempt that has gone is not asked of the next.
        retried = "update jobs set status = 'RUNNABLE', status_reason = ?, attempts = ?, stop = null where id = ?"
        db.execute(retried, (reason, text, job["id"]))
    else:
        ended.end(job, "FAILED", reason, at, text)


def _again(db: sqlite3.Connection, job: sqlite3.Row, attempts: list[dict[str, Any]]) -> bool:
    doc, _ = store.document(db, job["parent"] or job["id"])
    last = attempts[-1]
    return retries.again(
        doc["retryStrategy"],
        len(attempts),
        status_reason=last["statusReason"],
        reason=last["container"].get("reason", ""),
        exit_code=last["container"].get("exitCode"),
    )


def _node_ended(
    db: sqlite3.Connection, node: sqlite3.Row, good: bool, reason: str, record: dict[str, Any], ended: Ended
) -> None:
    """A node's end is its own; with the main node's the whole job ends, and its other nodes are stopped.

    https://docs.aws.amazon.com/batch/latest/userguide/multi-node-parallel-jobs.html
    """
    parent = _job(db, node["parent"])
    doc = json.loads(parent["doc"])
    lost = bool(record.get("lost"))
    ended.end(node, "SUCCEEDED" if good else "FAILED", reason, record["ended"])
    if node["idx"] == doc["nodes"]["mainNode"] or lost or parent["stop"] == "terminate":
        db.execute(
            "update jobs set stop = 'terminate', stop_reason = 'The main node has ended.' "
            "where parent = ? and status in ('STARTING', 'RUNNING')",
            (parent["id"],),
        )
    live = f"select 1 from jobs where parent = ? and status in ({store.marks(store.LIVE)}) limit 1"
    if parent["status"] not in store.LIVE or db.execute(live, (parent["id"], *store.LIVE)).fetchone():
        return
    nodes = db.execute("select * from jobs where parent = ? order by idx", (parent["id"],)).fetchall()
    main = nodes[doc["nodes"]["mainNode"]]
    last = store.loads(main, "attempts")[-1]
    attempts = [*store.loads(parent, "attempts"), last]
    db.execute("update jobs set attempts = ? where id = ?", (json.dumps(attempts), parent["id"]))
    may = parent["stop"] != "terminate" and main["status_reason"] != TIMED_OUT
    if main["status"] == "FAILED" and may and _again(db, parent, attempts):
        for one in (*nodes, parent):
            db.execute(
                "update jobs set status = 'RUNNABLE', status_reason = ?, stop = null, stopped_at = null where id = ?",
                (last["statusReason"], one["id"]),
            )
    else:
        why = parent["stop_reason"] if parent["stop"] == "terminate" else main["status_reason"]
        ended.end(parent, main["status"], why, record["ended"])


def obey(db: sqlite3.Connection, ended: Ended) -> list[tuple[str, dict[str, Any]]]:
    """Fail what was to be stopped before it started; returns what to tell which keeper about what runs."""
    orders = []
    marks = store.marks(store.LIVE)
    for job in db.execute(f"select * from jobs where stop is not null and status in ({marks})", store.LIVE).fetchall():
        stands_for_others = job["size"] and job["kind"] == "array"
        if job["status"] in store.WAITING and not stands_for_others:
            ended.end(job, "FAILED", job["stop_reason"])
        elif job["stop"] in ("terminate", "reclaim") and not job["size"]:
            wish = "reclaim" if job["stop"] == "reclaim" else "stop"
            orders.append((job["host"], {wish: key(job)}))
    return orders


def key(job: sqlite3.Row) -> str:
    """What names a job's newest attempt to its keeper."""
    return f"{job['id']}/{len(store.loads(job, 'attempts'))}"


def _worst(db: sqlite3.Connection, query: str, values: tuple[object, ...]) -> str:
    """Of the statuses that a query finds: FAILED if any is, else PENDING if any is not over, else SUCCEEDED."""
    statuses = {row["status"] for row in db.execute(query, values)}
    return "FAILED" if "FAILED" in statuses else "SUCCEEDED" if statuses <= {"SUCCEEDED"} else "PENDING"


def _job(db: sqlite3.Connection, job_id: str) -> Any:
    return db.execute("select * from jobs where id = ?", (job_id,)).fetchone()
