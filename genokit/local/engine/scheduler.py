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
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from genokit.local import store

MACHINE = ""  # the capacity that all environments share


@dataclass(frozen=True)
class FreeCapacity:
    """What is free in an environment, or of the machine."""

    vcpus: float
    memory_mib: int
    gpus: tuple[int, ...]

    def less(self, job: sqlite3.Row, gpus: Sequence[int]) -> FreeCapacity:
        left = tuple(gpu for gpu in self.gpus if gpu not in gpus)
        return FreeCapacity(self.vcpus - job["vcpus"], self.memory_mib - job["memory_mib"], left)

    def fits(self, job: sqlite3.Row) -> bool:
        return bool(
            job["vcpus"] <= self.vcpus and job["memory_mib"] <= self.memory_mib and job["gpus"] <= len(self.gpus)
        )


def choose(db: sqlite3.Connection) -> list[tuple[str, str, tuple[int, ...]]]:
    """The jobs to start now: each one's id, its environment and its GPUs. Those that never can are given the reason."""
    whole, free = capacities(db)
    chosen = []
    closed: set[str] = set()
    for queue in db.execute("select * from queues order by priority desc, name").fetchall():
        order = [name for name in store.loads(queue, "doc")["computeEnvironmentOrder"] if name in whole]
        for job in waiting(db, queue):
            if not any(whole[name].fits(job) and whole[MACHINE].fits(job) for name in order):
                reason = too_large(job, {name: whole[name] for name in order})
                if job["status_reason"] != reason:
                    db.execute("update jobs set status_reason = ? where id = ?", (reason, job["id"]))
                continue
            open_to_it = (name for name in order if name not in closed)
            place = next((name for name in open_to_it if free[name].fits(job) and free[MACHINE].fits(job)), None)
            if place is None:
                closed |= set(order)
                break
            gpus = tuple(gpu for gpu in free[place].gpus if gpu in free[MACHINE].gpus)[: job["gpus"]]
            for name in (place, MACHINE):
                free[name] = free[name].less(job, gpus)
            chosen.append((job["id"], place, gpus))
    return chosen


def capacities(db: sqlite3.Connection) -> tuple[dict[str, FreeCapacity], dict[str, FreeCapacity]]:
    """What each environment has, and the machine as a whole, and what of it is free."""
    vcpus, memory_mib, gpus = store.machine()
    whole = {MACHINE: FreeCapacity(vcpus, memory_mib, tuple(range(gpus)))}
    for row in db.execute("select * from environments"):
        if store.loads(row, "doc")["state"].upper() == "ENABLED":
            whole[row["name"]] = FreeCapacity(row["vcpus"], row["memory_mib"], tuple(range(row["gpus"])))
    free = dict(whole)
    for job in db.execute("select * from jobs where status in ('STARTING', 'RUNNING') and size is null"):
        for name in {job["environment"], MACHINE} & free.keys():
            free[name] = free[name].less(job, store.loads(job, "gpu_ids"))
    return whole, free


def waiting(db: sqlite3.Connection, queue: sqlite3.Row) -> Iterator[sqlite3.Row]:
    """A queue's RUNNABLE jobs in the order of their turn. An array counts by its children, a multi-node job as one."""
    mine = "queue = ? and status = 'RUNNABLE' and not (kind is 'multinode' and parent is not null)"
    arn = store.loads(queue, "doc").get("schedulingPolicyArn")
    if arn is None:
        yield from db.execute(f"select * from jobs where {mine} order by seq", (queue["name"],))
        return
    row = db.execute("select * from policies where name = ?", (arn.rpartition("/")[2],)).fetchone()
    policy = store.loads(row, "doc")["fairsharePolicy"]
    used = usage(db, queue["name"], policy)
    of_share = f"select * from jobs where {mine} and share = ? order by scheduling_priority desc, seq"
    shares = db.execute(f"select distinct share from jobs where {mine}", (queue["name"],)).fetchall()
    turns = {share: db.execute(of_share, (queue["name"], share)) for (share,) in shares}
    while turns:
        share = min(turns, key=lambda one: (used[one], one))
        job = turns[share].fetchone()
        if job is None:
            del turns[share]
            continue
        yield job
        used[share] += job["vcpus"] * weight(policy, share)


def usage(db: sqlite3.Connection, queue: str, policy: dict[str, Any]) -> dict[str, float]:
    """What each share uses now and has used lately: vCPUs, those of ended jobs fading, times the share's weight.

    https://docs.aws.amazon.com/batch/latest/userguide/fair-share-scheduling.html
    """
    rows = db.execute(
        "select share, sum(vcpus * (1 - coalesce(:now - stopped_at, 0) / :decay)) from jobs where queue = :queue and "
        "share is not null and size is null and (status in ('STARTING', 'RUNNING') or stopped_at > :now - :decay) "
        "group by share",
        {"now": store.now(), "decay": 1000.0 * (policy.get("shareDecaySeconds") or 600), "queue": queue},
    )
    return defaultdict(float, {share: vcpus * weight(policy, share) for share, vcpus in rows})


def weight(policy: dict[str, Any], share: str) -> float:
    """A share's weight factor: the lower, the more it gets; 1 unless the policy says otherwise."""
    for one in policy.get("shareDistribution", []):
        name = one["shareIdentifier"]
        if share == name or (name.endswith("*") and share.startswith(name[:-1])):
            return float(one.get("weightFactor", 1.0))
    return 1.0


def too_large(job: sqlite3.Row, order: dict[str, FreeCapacity]) -> str:
    """Why a job can never start where its queue would put it."""
    if not order:
        return "MISCONFIGURATION:COMPUTE_ENVIRONMENT - The job queue has no compute environment that is ENABLED."
    name, largest = max(order.items(), key=lambda item: (item[1].vcpus, item[1].memory_mib))
    needs = (
        ("vcpus", "vCPU", largest.vcpus),
        ("memory_mib", "MiB of memory", largest.memory_mib),
        ("gpus", "GPU", len(largest.gpus)),
    )
    lacking = [f"{job[key]:.12g} {unit} of {has:.12g}" for key, unit, has in needs if job[key] > has]
    return (
        "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job asks for more than the compute environment "
        f"'{name}' has: {', '.join(lacking)}."
    )
