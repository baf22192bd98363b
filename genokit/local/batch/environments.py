"""Compute environments, job queues and scheduling policies: where jobs wait, in which order, and for what room."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import uuid
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from genokit.local import store
from genokit.local.batch import limits
from genokit.local.batch.definitions import ARN
from genokit.local.client import Caller, page
from genokit.local.engine import containers, documents

# --- compute environments


def create_compute_environment(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """An environment on this machine: as large as its maxvCpus, or as the machine where that is smaller.

    Whatever instances it asks for, its jobs run here; all environments together never use more than the machine has.
    """
    name = request["computeEnvironmentName"]
    limits.name(caller.refuse, "computeEnvironmentName", name)
    limits.tags(caller.refuse, request.get("tags", {}))
    if request["type"].upper() == "MANAGED" and "computeResources" not in request:
        raise caller.refuse("computeResources is missing, which type MANAGED needs")
    doc = {"state": "ENABLED", "tags": {}, **request}
    size = _size(caller, doc)
    with caller.writing() as db:
        limits.at_most(caller.refuse, "compute environments", _count(db, "environments") + 1, limits.ENVIRONMENTS)
        if db.execute("select 1 from environments where name = ?", (name,)).fetchone():
            raise caller.refuse(f"Object already exists: compute environment '{name}'")
        db.execute("insert into environments values (?, ?, ?, ?, ?)", (name, json.dumps(doc), *size))
    return {"computeEnvironmentName": name, "computeEnvironmentArn": f"{ARN}:compute-environment/{name}"}


def update_compute_environment(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Change the state, or what of the size can be changed."""
    name = _name(request["computeEnvironment"])
    with caller.writing() as db:
        doc = store.loads(_row(caller, db, "environments", name), "doc")
        for member in ("state", "unmanagedvCpus", "serviceRole"):
            if member in request:
                doc[member] = request[member]
        if "computeResources" in request:
            if "managedInstancesProvider" in request["computeResources"]:
                raise caller.refuse(
                    "computeResources.managedInstancesProvider: the embedded account does not change it"
                )
            changed = {**doc.get("computeResources", {}), **request["computeResources"]}
            changed.pop("updateToLatestImageVersion", None)  # an order, which no description repeats
            doc["computeResources"] = changed
        db.execute(
            "update environments set doc = ?, vcpus = ?, memory_mib = ?, gpus = ? where name = ?",
            (json.dumps(doc), *_size(caller, doc), name),
        )
    return {"computeEnvironmentName": name, "computeEnvironmentArn": f"{ARN}:compute-environment/{name}"}


def describe_compute_environments(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The account's compute environments."""
    with caller.reading() as db:
        rows = _chosen(caller, db, "environments", "computeEnvironments", request)
    engine = containers.find()
    alone = f"; {Path(engine).name} does not answer" if engine and not _answers(engine, store.now() // 60_000) else ""
    alone = f"{alone or '; with neither docker nor podman'}, the image genokit alone" if alone or not engine else ""
    found = [
        {
            **store.loads(row, "doc"),
            "computeEnvironmentName": row["name"],
            "computeEnvironmentArn": f"{ARN}:compute-environment/{row['name']}",
            "ecsClusterArn": f"arn:aws:ecs:local:000000000000:cluster/{row['name']}",
            "status": "VALID",
            "statusReason": f"ComputeEnvironment Healthy: up to {row['vcpus']:g} vCPU, {row['memory_mib']} MiB and "
            f"{row['gpus']} GPU of this machine{alone}",
            "containerOrchestrationType": "ECS",
            "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, row["name"])),
        }
        for row in rows
    ]
    return page(caller, "computeEnvironments", found, request)


def delete_compute_environment(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Remove an environment that is DISABLED and in no queue's order."""
    name = _name(request["computeEnvironment"])
    with caller.writing() as db:
        _must_be_disabled(caller, "compute environment", _row(caller, db, "environments", name))
        users = [queue["name"] for queue in db.execute("select * from queues") if name in documents.places(queue)]
        if users:
            raise caller.refuse(f"Cannot delete, found existing JobQueue relationship: '{users[0]}' uses '{name}'")
        db.execute("delete from environments where name = ?", (name,))
    return {}


@lru_cache(maxsize=1)
def _answers(engine: str, minute: int) -> bool:
    """Whether an engine answers, asked once a minute."""
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([engine, "version"], capture_output=True, check=False, timeout=10).returncode == 0
    return False


def _size(caller: Caller, doc: dict[str, Any]) -> tuple[float, int, int]:
    vcpus, memory_mib, gpus = store.machine()
    for member in ("minvCpus", "maxvCpus", "desiredvCpus", "unmanagedvCpus"):
        asked = doc.get("computeResources", {}).get(member, doc.get(member))
        limits.within(caller.refuse, member, asked, limits.VCPUS)
    asked = doc.get("computeResources", {}).get("maxvCpus", doc.get("unmanagedvCpus", vcpus))
    return min(vcpus, asked), memory_mib, gpus


# --- job queues


def create_job_queue(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A queue; the higher its priority, the earlier its jobs are looked at."""
    name = request["jobQueueName"]
    limits.name(caller.refuse, "jobQueueName", name)
    limits.tags(caller.refuse, request.get("tags", {}))
    with caller.writing() as db:
        limits.at_most(caller.refuse, "job queues", _count(db, "queues") + 1, limits.QUEUES)
        if db.execute("select 1 from queues where name = ?", (name,)).fetchone():
            raise caller.refuse(f"Object already exists: job queue '{name}'")
        doc = _queue_doc(caller, db, {"state": "ENABLED", "tags": {}}, request)
        db.execute("insert into queues values (?, ?, ?)", (name, request["priority"], json.dumps(doc)))
    return {"jobQueueName": name, "jobQueueArn": f"{ARN}:job-queue/{name}"}


def update_job_queue(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Change priority, state, order of environments or policy."""
    name = _name(request["jobQueue"])
    with caller.writing() as db:
        row = _row(caller, db, "queues", name)
        doc = _queue_doc(caller, db, store.loads(row, "doc"), request)
        priority = request.get("priority", row["priority"])
        db.execute("update queues set priority = ?, doc = ? where name = ?", (priority, json.dumps(doc), name))
    return {"jobQueueName": name, "jobQueueArn": f"{ARN}:job-queue/{name}"}


def describe_job_queues(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The account's job queues."""
    with caller.reading() as db:
        rows = _chosen(caller, db, "queues", "jobQueues", request)
    found = []
    for row in rows:
        doc = store.loads(row, "doc")
        order = [
            {"order": number, "computeEnvironment": f"{ARN}:compute-environment/{one}"}
            for number, one in enumerate(doc.pop("computeEnvironmentOrder"), start=1)
        ]
        found.append(
            {
                **doc,
                "jobQueueName": row["name"],
                "jobQueueArn": f"{ARN}:job-queue/{row['name']}",
                "status": "VALID",
                "statusReason": "JobQueue Healthy",
                "priority": row["priority"],
                "computeEnvironmentOrder": order,
            }
        )
    return page(caller, "jobQueues", found, request)


def delete_job_queue(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Remove a queue that is DISABLED; the jobs still in it are terminated."""
    name = _name(request["jobQueue"])
    with caller.writing() as db:
        _must_be_disabled(caller, "job queue", _row(caller, db, "queues", name))
        db.execute(
            "update jobs set stop = 'terminate', stop_reason = 'The job queue was deleted.' "
            f"where queue = ? and status in ({store.marks(store.LIVE)})",
            (name, *store.LIVE),
        )
        db.execute("delete from queues where name = ?", (name,))
    return {}


def queue_for_submit(caller: Caller, db: sqlite3.Connection, reference: str) -> dict[str, Any]:
    """The queue that a job goes to: its name and its policy's ARN, if it has one."""
    row = db.execute("select * from queues where name = ?", (_name(reference),)).fetchone()
    if row is None:
        raise caller.refuse(f"JobQueue {reference} not found.")
    doc: dict[str, Any] = store.loads(row, "doc")
    if doc["state"].upper() != "ENABLED":
        raise caller.refuse(f"JobQueue {reference} is {doc['state']}: it takes no jobs.")
    return {"name": row["name"], **doc}


def _queue_doc(caller: Caller, db: sqlite3.Connection, doc: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    limits.within(caller.refuse, "priority", request.get("priority"), limits.QUEUE_PRIORITIES)
    if "computeEnvironmentOrder" in request:
        ordered = sorted(request["computeEnvironmentOrder"], key=lambda one: one["order"])
        limits.at_most(caller.refuse, "computeEnvironmentOrder", len(ordered), limits.ENVIRONMENTS_A_QUEUE)
        names = [_name(one["computeEnvironment"]) for one in ordered]
        for name in names:
            _row(caller, db, "environments", name)
        doc["computeEnvironmentOrder"] = names
    if not doc.get("computeEnvironmentOrder"):
        raise caller.refuse("computeEnvironmentOrder: a queue needs one environment at least")
    for member in ("jobStateTimeLimitActions", "serviceEnvironmentOrder"):
        if request.get(member):
            raise caller.refuse(f"{member}: the embedded account does not offer this")
    if "schedulingPolicyArn" in request:
        if "jobQueue" in request and "schedulingPolicyArn" not in doc:
            raise caller.refuse("schedulingPolicyArn: a queue made without one stays first in, first out")
        _row(caller, db, "policies", _name(request["schedulingPolicyArn"]))
    return doc | {key: request[key] for key in ("state", "schedulingPolicyArn", "tags") if key in request}


# --- scheduling policies


def create_scheduling_policy(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A fair-share policy for queues to name."""
    name = request["name"]
    limits.name(caller.refuse, "name", name)
    limits.tags(caller.refuse, request.get("tags", {}))
    _check_policy(caller, request)
    doc = {"fairsharePolicy": {}, "tags": {}, **request}
    with caller.writing() as db:
        if db.execute("select 1 from policies where name = ?", (name,)).fetchone():
            raise caller.refuse(f"Object already exists: scheduling policy '{name}'")
        db.execute("insert into policies values (?, ?)", (name, json.dumps(doc)))
    return {"name": name, "arn": f"{ARN}:scheduling-policy/{name}"}


def update_scheduling_policy(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Change the shares."""
    name = _name(request["arn"])
    _check_policy(caller, request)
    with caller.writing() as db:
        doc = store.loads(_row(caller, db, "policies", name), "doc")
        doc["fairsharePolicy"] = request.get("fairsharePolicy", doc["fairsharePolicy"])
        db.execute("update policies set doc = ? where name = ?", (json.dumps(doc), name))
    return {}


def _check_policy(caller: Caller, request: dict[str, Any]) -> None:
    if "quotaSharePolicy" in request:
        raise caller.refuse("quotaSharePolicy: the embedded account does not offer this")
    limits.fair_shares(caller.refuse, request.get("fairsharePolicy", {}))


def describe_scheduling_policies(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Policies by ARN."""
    with caller.reading() as db:
        rows = _chosen(caller, db, "policies", "arns", request) if request["arns"] else []
    arns = {row["name"]: f"{ARN}:scheduling-policy/{row['name']}" for row in rows}
    return {"schedulingPolicies": [{**store.loads(row, "doc"), "arn": arns[row["name"]]} for row in rows]}


def list_scheduling_policies(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The ARNs of all policies."""
    with caller.reading() as db:
        names = [row["name"] for row in db.execute("select name from policies order by name")]
    return page(caller, "schedulingPolicies", [{"arn": f"{ARN}:scheduling-policy/{name}"} for name in names], request)


def delete_scheduling_policy(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Remove a policy that no queue names."""
    name = _name(request["arn"])
    with caller.writing() as db:
        _row(caller, db, "policies", name)
        for queue in db.execute("select * from queues"):
            if _name(store.loads(queue, "doc").get("schedulingPolicyArn", "")) == name:
                raise caller.refuse(f"Cannot delete, the job queue '{queue['name']}' uses '{name}'")
        db.execute("delete from policies where name = ?", (name,))
    return {}


# --- tags

TABLES = {"compute-environment": "environments", "job-queue": "queues", "scheduling-policy": "policies"}


def list_tags_for_resource(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The tags of a queue, an environment, a policy, a definition or a job."""
    with caller.reading() as db:
        return {"tags": _tagged(caller, db, request["resourceArn"])[2].get("tags", {})}


def tag_resource(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Add or change tags."""
    return _retag(caller, request["resourceArn"], request["tags"], [])


def untag_resource(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Remove tags."""
    return _retag(caller, request["resourceArn"], {}, request["tagKeys"])


def _retag(caller: Caller, arn: str, added: dict[str, str], removed: list[str]) -> dict[str, Any]:
    with caller.writing() as db:
        table, row, doc = _tagged(caller, db, arn)
        kept = {**doc.get("tags", {}), **added}
        doc["tags"] = {key: value for key, value in kept.items() if key not in removed}
        limits.tags(caller.refuse, doc["tags"])
        db.execute(f"update {table} set doc = ? where rowid = ?", (json.dumps(doc), row["place"]))
    return {}


def _tagged(caller: Caller, db: sqlite3.Connection, arn: str) -> tuple[str, sqlite3.Row, dict[str, Any]]:
    kind, _, name = arn.removeprefix(f"{ARN}:").partition("/")
    if kind == "job-definition":
        table, where = "definitions", "name || ':' || revision = ?"
    elif kind == "job" and re.search("[:#]", name):
        raise caller.refuse(f"resourceArn: '{arn}' is a child, which takes no tags: tag its parent")
    elif kind == "job":
        table, where = "jobs", "id = ?"
    elif kind in TABLES:
        table, where = TABLES[kind], "name = ?"
    else:
        raise caller.refuse(f"resourceArn: '{arn}' is not an ARN of this account")
    row = db.execute(f"select rowid as place, * from {table} where {where}", (name,)).fetchone()
    if row is None:
        raise caller.refuse(f"resourceArn: there is no '{arn}'")
    return table, row, store.loads(row, "doc")


# --- shared by the three


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _count(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(f"select count(*) from {table}").fetchone()[0])


def _row(caller: Caller, db: sqlite3.Connection, table: str, name: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(f"select * from {table} where name = ?", (name,)).fetchone()
    if row is None:
        kind = next(kind for kind, one in TABLES.items() if one == table).replace("-", " ")
        raise caller.refuse(f"{kind} '{name}' does not exist")
    return row


def _chosen(
    caller: Caller, db: sqlite3.Connection, table: str, member: str, request: dict[str, Any]
) -> list[sqlite3.Row]:
    names = [_name(one) for one in request.get(member, [])]
    limits.at_most(caller.refuse, member, len(names), limits.DESCRIBED)
    return [row for row in db.execute(f"select * from {table} order by name") if not names or row["name"] in names]


def _must_be_disabled(caller: Caller, kind: str, row: sqlite3.Row) -> None:
    if store.loads(row, "doc")["state"].upper() != "DISABLED":
        raise caller.refuse(f"Cannot delete, {kind} '{row['name']}' is not DISABLED: update its state first")
