"""Compute environments, job queues, scheduling policies, and the tags of everything: where jobs wait, and for what."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from typing import Any

from genokit.local import store
from genokit.local.batch import limits
from genokit.local.batch.definitions import ARN
from genokit.local.client import Caller
from genokit.local.engine import containers

TABLES = {"compute-environment": "environments", "job-queue": "queues", "scheduling-policy": "policies"}
AT_MOST = {"compute-environment": 50, "job-queue": 50}  # in an account
# What a status adds where only the image genokit can run; ``ComputeEnvironment.only_image`` reads it.
NO_ENGINE = "; with neither docker nor podman, the image genokit alone"

# --- compute environments


def create_compute_environment(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """An environment on this machine: as large as its maxvCpus, or as the machine where that is smaller.

    Whatever instances it asks for, its jobs run here; all environments together never use more than the machine has.
    """
    if request["type"].upper() == "MANAGED" and "computeResources" not in request:
        raise caller.refuse("computeResources is missing, which type MANAGED needs")
    name, doc = request["computeEnvironmentName"], {"state": "ENABLED", "tags": {}, **request}
    with caller.writing() as db:
        _insert(caller, db, "compute-environment", name, json.dumps(doc), *_size(doc))
    return {"computeEnvironmentName": name, "computeEnvironmentArn": _arn("compute-environment", name)}


def update_compute_environment(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Change the state, or what of the size can be changed."""
    name, resources = _name(request["computeEnvironment"]), dict(request.get("computeResources", {}))
    resources.pop("updateToLatestImageVersion", None)  # an order, which no description repeats
    with caller.writing() as db:
        doc = store.loads(_row(caller, db, "compute-environment", name), "doc")
        doc |= {member: request[member] for member in ("state", "unmanagedvCpus", "serviceRole") if member in request}
        if "computeResources" in request:
            doc["computeResources"] = doc.get("computeResources", {}) | resources
        changed = "update environments set doc = ?, vcpus = ?, memory_mib = ?, gpus = ? where name = ?"
        db.execute(changed, (json.dumps(doc), *_size(doc), name))
    return {"computeEnvironmentName": name, "computeEnvironmentArn": _arn("compute-environment", name)}


def describe_compute_environments(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The account's compute environments."""
    found = [
        {
            **store.loads(row, "doc"),
            "computeEnvironmentName": row["name"],
            "computeEnvironmentArn": _arn("compute-environment", row["name"]),
            "ecsClusterArn": f"arn:aws:ecs:local:000000000000:cluster/{row['name']}",
            "status": "VALID",
            "statusReason": f"ComputeEnvironment Healthy: up to {row['vcpus']:g} vCPU, {row['memory_mib']} MiB and "
            f"{row['gpus']} GPU of this machine{'' if containers.find() else NO_ENGINE}",
            "containerOrchestrationType": "ECS",
            "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, row["name"])),
        }
        for row in _rows(caller, "compute-environment", request.get("computeEnvironments"))
    ]
    return limits.page(caller.refuse, "computeEnvironments", found, request)


def delete_compute_environment(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Remove an environment that is DISABLED and in no queue's order."""
    name = _name(request["computeEnvironment"])
    with caller.writing() as db:
        order = "json_each(doc, '$.computeEnvironmentOrder')"
        _delete(caller, db, "compute-environment", name, f"exists (select 1 from {order} where value = :name)")
    return {}


def _size(doc: dict[str, Any]) -> tuple[float, int, int]:
    vcpus, memory_mib, gpus = store.machine()
    wanted = doc.get("computeResources", {}).get("maxvCpus", doc.get("unmanagedvCpus", vcpus))
    return min(vcpus, wanted), memory_mib, gpus


# --- job queues


def create_job_queue(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A queue; the higher its priority, the earlier its jobs are looked at."""
    name = request["jobQueueName"]
    with caller.writing() as db:
        doc = _queue_doc(caller, db, {"state": "ENABLED", "tags": {}}, request)
        _insert(caller, db, "job-queue", name, request["priority"], json.dumps(doc))
    return {"jobQueueName": name, "jobQueueArn": _arn("job-queue", name)}


def update_job_queue(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Change priority, state, order of environments or policy."""
    name = _name(request["jobQueue"])
    with caller.writing() as db:
        row = _row(caller, db, "job-queue", name)
        before = store.loads(row, "doc")
        if "schedulingPolicyArn" in request and "schedulingPolicyArn" not in before:
            raise caller.refuse("schedulingPolicyArn: a queue created without a policy cannot be given one")
        doc = _queue_doc(caller, db, before, request)
        priority = request.get("priority", row["priority"])
        db.execute("update queues set priority = ?, doc = ? where name = ?", (priority, json.dumps(doc), name))
    return {"jobQueueName": name, "jobQueueArn": _arn("job-queue", name)}


def describe_job_queues(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The account's job queues."""
    found = [
        {
            **(doc := store.loads(row, "doc")),
            "jobQueueName": row["name"],
            "jobQueueArn": _arn("job-queue", row["name"]),
            "status": "VALID",
            "statusReason": "JobQueue Healthy",
            "priority": row["priority"],
            "computeEnvironmentOrder": [
                {"order": number, "computeEnvironment": _arn("compute-environment", one)}
                for number, one in enumerate(doc["computeEnvironmentOrder"], start=1)
            ],
        }
        for row in _rows(caller, "job-queue", request.get("jobQueues"))
    ]
    return limits.page(caller.refuse, "jobQueues", found, request)


def delete_job_queue(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Remove a queue that is DISABLED; the jobs still in it are terminated."""
    name = _name(request["jobQueue"])
    with caller.writing() as db:
        _delete(caller, db, "job-queue", name)
        db.execute(
            "update jobs set stop = 'terminate', stop_reason = 'The job queue was deleted.' "
            f"where queue = ? and {store.IS_LIVE}",
            (name,),
        )
    return {}


def queue_for_submit(caller: Caller, db: sqlite3.Connection, request: dict[str, Any]) -> str:
    """The name of the queue that a request submits to, which must be open and agree with the request's share."""
    reference = request["jobQueue"]
    row = db.execute("select * from queues where name = ?", (_name(reference),)).fetchone()
    if row is None:
        raise caller.refuse(f"JobQueue {reference} not found.")
    doc = store.loads(row, "doc")
    if doc["state"].upper() != "ENABLED":
        raise caller.refuse(f"JobQueue {reference} is {doc['state']}: it accepts no jobs.")
    fair, share = "schedulingPolicyArn" in doc, request.get("shareIdentifier")
    if fair != bool(share):
        given, has = ("is missing", "a") if fair else ("is not allowed", "no")
        raise caller.refuse(f"shareIdentifier {given}: the queue '{row['name']}' has {has} fair-share policy")
    return str(row["name"])


def _queue_doc(caller: Caller, db: sqlite3.Connection, doc: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    if "computeEnvironmentOrder" in request:
        ordered = sorted(request["computeEnvironmentOrder"], key=lambda one: one["order"])
        names = [_name(one["computeEnvironment"]) for one in ordered]
        for name in names:
            _row(caller, db, "compute-environment", name)
        doc["computeEnvironmentOrder"] = names
    if not doc.get("computeEnvironmentOrder"):
        raise caller.refuse("computeEnvironmentOrder: a queue needs at least one compute environment")
    if "schedulingPolicyArn" in request:
        _row(caller, db, "scheduling-policy", _name(request["schedulingPolicyArn"]))
    return doc | {key: request[key] for key in ("state", "schedulingPolicyArn", "tags") if key in request}


# --- scheduling policies


def create_scheduling_policy(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A fair-share policy for queues to name."""
    name, doc = request["name"], {"fairsharePolicy": {}, "tags": {}, **request}
    with caller.writing() as db:
        _insert(caller, db, "scheduling-policy", name, json.dumps(doc))
    return {"name": name, "arn": _arn("scheduling-policy", name)}


def update_scheduling_policy(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Change the shares."""
    name = _name(request["arn"])
    with caller.writing() as db:
        doc = store.loads(_row(caller, db, "scheduling-policy", name), "doc")
        doc["fairsharePolicy"] = request.get("fairsharePolicy", doc["fairsharePolicy"])
        db.execute("update policies set doc = ? where name = ?", (json.dumps(doc), name))
    return {}


def describe_scheduling_policies(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Policies by ARN."""
    rows = _rows(caller, "scheduling-policy", request["arns"]) if request["arns"] else []
    return {
        "schedulingPolicies": [
            {**store.loads(row, "doc"), "arn": _arn("scheduling-policy", row["name"])} for row in rows
        ]
    }


def list_scheduling_policies(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The ARNs of all policies."""
    found = [{"arn": _arn("scheduling-policy", row["name"])} for row in _rows(caller, "scheduling-policy", None)]
    return limits.page(caller.refuse, "schedulingPolicies", found, request)


def delete_scheduling_policy(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Remove a policy that no queue names."""
    name = _name(request["arn"])
    with caller.writing() as db:
        arn = "json_extract(doc, '$.schedulingPolicyArn')"
        _delete(caller, db, "scheduling-policy", name, f"substr({arn}, -length(:name) - 1) = '/' || :name")
    return {}


# --- tags


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
        limits.at_most(caller.refuse, "tags", len(doc["tags"]), limits.table()["most"]["tags"])
        db.execute(f"update {table} set doc = ? where rowid = ?", (json.dumps(doc), row["place"]))
    return {}


def _tagged(caller: Caller, db: sqlite3.Connection, arn: str) -> tuple[str, sqlite3.Row, dict[str, Any]]:
    kind, _, name = arn.removeprefix(f"{ARN}:").partition("/")
    if kind == "job" and re.search("[:#]", name):
        raise caller.refuse(f"resourceArn: '{arn}' is a child, which has no tags of its own: tag its parent")
    others = {"job-definition": ("definitions", "name || ':' || revision"), "job": ("jobs", "id")}
    table, key = others.get(kind) or (TABLES.get(kind), "name")
    if table is None:
        raise caller.refuse(f"resourceArn: '{arn}' is not an ARN of this account")
    row = db.execute(f"select rowid as place, * from {table} where {key} = ?", (name,)).fetchone()
    if row is None:
        raise caller.refuse(f"resourceArn: '{arn}' does not exist")
    return table, row, store.loads(row, "doc")


# --- shared by the three


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _arn(kind: str, name: str) -> str:
    return f"{ARN}:{kind}/{name}"


def _insert(caller: Caller, db: sqlite3.Connection, kind: str, name: str, *values: object) -> None:
    table, words = TABLES[kind], kind.replace("-", " ")
    names = {row["name"] for row in db.execute(f"select name from {table}")}
    if kind in AT_MOST:
        limits.at_most(caller.refuse, f"{words}s", len(names) + 1, AT_MOST[kind])
    if name in names:
        raise caller.refuse(f"Object already exists: {words} '{name}'")
    db.execute(f"insert into {table} values (?, {store.marks(values)})", (name, *values))


def _row(caller: Caller, db: sqlite3.Connection, kind: str, name: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(f"select * from {TABLES[kind]} where name = ?", (name,)).fetchone()
    if row is None:
        raise caller.refuse(f"{kind.replace('-', ' ')} '{name}' does not exist")
    return row


def _rows(caller: Caller, kind: str, references: list[str] | None) -> list[sqlite3.Row]:
    """Those that are named, or all; by name."""
    names = {_name(one) for one in references or []}
    with caller.reading() as db:
        rows = db.execute(f"select * from {TABLES[kind]} order by name").fetchall()
    return [row for row in rows if not names or row["name"] in names]


def _delete(caller: Caller, db: sqlite3.Connection, kind: str, name: str, is_used: str = "false") -> None:
    """Remove what is not ENABLED, and what no queue uses: none for which the condition ``is_used`` holds."""
    if store.loads(_row(caller, db, kind, name), "doc").get("state", "DISABLED").upper() != "DISABLED":
        raise caller.refuse(f"Cannot delete, {kind.replace('-', ' ')} '{name}' is not DISABLED: update its state first")
    if queue := db.execute(f"select name from queues where {is_used}", {"name": name}).fetchone():
        raise caller.refuse(f"Cannot delete, the job queue '{queue['name']}' uses '{name}'")
    db.execute(f"delete from {TABLES[kind]} where name = ?", (name,))
