"""Which jobs to start now: a pure question to the store, answered in the order that AWS Batch documents.

Queues of higher priority are looked at first; within one, the oldest job, or in a fair-share queue the one of the share
that has had least. A job goes to the first environment of its queue's order that has room, and to the next where that
one is full. None overtakes an older one that waits for room, and a queue that waits keeps its environments from those
of lower priority, so that large jobs get their turn. A job larger than any environment stays RUNNABLE, says why, and is
in nobody's way.

https://docs.aws.amazon.com/batch/latest/userguide/job_scheduling.html
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from genokit.local import store
from genokit.local.engine import documents

MACHINE = ""  # the room that all environments share


@dataclass(frozen=True)
class Room:
    """What is free somewhere."""

    vcpus: float
    memory_mib: int
    gpus: tuple[int, ...]

    def less(self, job: sqlite3.Row, gpus: tuple[int, ...]) -> Room:
        left = tuple(gpu for gpu in self.gpus if gpu not in gpus)
        return Room(self.vcpus - job["vcpus"], self.memory_mib - job["memory_mib"], left)

    def fits(self, job: sqlite3.Row) -> bool:
        asked = (job["vcpus"], job["memory_mib"], job["gpus"])
        return all(need <= has for need, has in zip(asked, (self.vcpus, self.memory_mib, len(self.gpus)), strict=True))


@dataclass(frozen=True)
class Placed:
    """A job to start: where, and with which of the machine's GPUs."""

    job_id: str
    environment: str
    gpus: tuple[int, ...]


def choose(db: sqlite3.Connection) -> list[Placed]:
    """The jobs to start now. Those that never can are given the reason."""
    whole, free = rooms(db)
    chosen: list[Placed] = []
    closed: set[str] = set()
    for queue in db.execute("select * from queues order by priority desc, name").fetchall():
        order = [name for name in documents.environments(queue) if name in whole]
        for job in waiting(db, queue):
            if not any(whole[name].fits(job) and whole[MACHINE].fits(job) for name in order):
                _explain(db, job, too_large(job, {name: whole[name] for name in order}))
                continue
            open_to_it = (name for name in order if name not in closed)
            place = next((name for name in open_to_it if free[name].fits(job) and free[MACHINE].fits(job)), None)
            if place is None:
                closed |= set(order)
                break
            gpus = tuple(gpu for gpu in free[place].gpus if gpu in free[MACHINE].gpus)[: job["gpus"]]
            for room in (place, MACHINE):
                free[room] = free[room].less(job, gpus)
            chosen.append(Placed(job["id"], place, gpus))
    return chosen


def rooms(db: sqlite3.Connection) -> tuple[dict[str, Room], dict[str, Room]]:
    """What each environment has, and the machine as a whole, and what of it is free."""
    vcpus, memory_mib, gpus = store.machine()
    whole = {MACHINE: Room(vcpus, memory_mib, tuple(range(gpus)))}
    for row in db.execute("select * from environments"):
        if store.loads(row, "doc")["state"].upper() == "ENABLED":
            whole[row["name"]] = Room(row["vcpus"], row["memory_mib"], tuple(range(row["gpus"])))
    free = dict(whole)
    for job in db.execute("select * from jobs where status in ('STARTING', 'RUNNING') and size is null"):
        taken = tuple(store.loads(job, "gpu_ids"))
        for room in (job["environment"], MACHINE):
            if room in free:
                free[room] = free[room].less(job, taken)
    return whole, free


def waiting(db: sqlite3.Connection, queue: sqlite3.Row) -> Iterator[sqlite3.Row]:
    """A queue's RUNNABLE jobs in the order of their turn. An array counts by its children, a multi-node job as one."""
    mine = "queue = ? and status = 'RUNNABLE' and not (kind is 'multinode' and parent is not null)"
    policy = store.loads(queue, "doc").get("schedulingPolicyArn")
    if policy is None:
        yield from db.execute(f"select * from jobs where {mine} order by seq", (queue["name"],))
        return
    turns = {
        row["share"]: db.execute(
            f"select * from jobs where {mine} and share = ? order by scheduling_priority desc, seq",
            (queue["name"], row["share"]),
        )
        for row in db.execute(f"select distinct share from jobs where {mine}", (queue["name"],)).fetchall()
    }
    used = usage(db, queue["name"], policy.rpartition("/")[2])
    while turns:
        share = min(turns, key=lambda one: (used.get(one, 0.0), one))
        job = turns[share].fetchone()
        if job is None:
            del turns[share]
            continue
        yield job
        used[share] = used.get(share, 0.0) + job["vcpus"] * weight(db, policy.rpartition("/")[2], share)


def usage(db: sqlite3.Connection, queue: str, policy: str) -> dict[str, float]:
    """What each share uses now and has used lately: vCPUs, those of ended jobs fading, times the share's weight.

    https://docs.aws.amazon.com/batch/latest/userguide/fair-share-scheduling.html
    """
    row = db.execute("select * from policies where name = ?", (policy,)).fetchone()
    decay_ms = 1000 * (store.loads(row, "doc")["fairsharePolicy"].get("shareDecaySeconds") or 600)
    now, used = store.now(), dict[str, float]()
    recent = "select share, vcpus, stopped_at from jobs where queue = ? and share is not null and size is null and "
    running = "status in ('STARTING', 'RUNNING') or stopped_at > ?"
    for job in db.execute(f"{recent} ({running})", (queue, now - decay_ms)):
        fading = 1.0 if job["stopped_at"] is None else 1 - (now - job["stopped_at"]) / decay_ms
        used[job["share"]] = used.get(job["share"], 0.0) + job["vcpus"] * fading
    return {share: one * weight(db, policy, share) for share, one in used.items()}


def weight(db: sqlite3.Connection, policy: str, share: str) -> float:
    """A share's weight factor: the lower, the more it gets; 1 unless the policy says otherwise."""
    row = db.execute("select * from policies where name = ?", (policy,)).fetchone()
    for one in store.loads(row, "doc")["fairsharePolicy"].get("shareDistribution", []):
        name = one["shareIdentifier"]
        if share == name or (name.endswith("*") and share.startswith(name[:-1])):
            return float(one.get("weightFactor", 1.0))
    return 1.0


def too_large(job: sqlite3.Row, order: dict[str, Room]) -> str:
    """Why a job can never start where its queue would put it."""
    if not order:
        return "MISCONFIGURATION:COMPUTE_ENVIRONMENT - The job queue has no compute environment that is ENABLED."
    name, room = max(order.items(), key=lambda item: (item[1].vcpus, item[1].memory_mib))
    asked = [
        f"{job[key]:.12g} {unit} of {has:.12g}"
        for key, unit, has in (
            ("vcpus", "vCPU", room.vcpus),
            ("memory_mib", "MiB of memory", room.memory_mib),
            ("gpus", "GPU", len(room.gpus)),
        )
        if job[key] > has
    ]
    return (
        "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job asks for more than the compute environment "
        f"'{name}' has: {', '.join(asked)}."
    )


def _explain(db: sqlite3.Connection, job: sqlite3.Row, reason: str) -> None:
    if job["status_reason"] != reason:
        db.execute("update jobs set status_reason = ? where id = ?", (reason, job["id"]))
