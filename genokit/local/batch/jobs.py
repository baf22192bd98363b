"""Jobs as clients see them: submitted, described, listed, and asked to stop. The supervisor does the rest."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable
from typing import Any

from genokit.local import store
from genokit.local.batch import definitions, environments, limits
from genokit.local.batch.definitions import ARN
from genokit.local.client import Caller
from genokit.local.engine import documents

# --- submit

COLUMNS = (
    "id", "parent", "idx", "size", "vcpus", "memory_mib", "gpus", "doc", "runtime", "kind", "name", "queue", "status",
    "share", "scheduling_priority", "created_at", "waits",
)  # fmt: skip


def submit_job(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A new job in SUBMITTED, with its children where it is an array or multi-node job."""
    size = request.get("arrayProperties", {}).get("size")
    job_id = str(uuid.uuid4())
    with caller.writing() as db:
        queue = environments.queue_for_submit(caller, db, request)
        name, revision, definition = definitions.active(caller, db, request["jobDefinition"])
        doc = {"definition": [name, revision], **_resolved(caller, request, definition)}
        dependencies = _dependencies(caller, db, job_id, request.get("dependsOn", []), size)
        kind = "multinode" if "nodes" in doc else "array" if size else None
        whole, children = _needs(caller, doc, size)
        priority = request.get("schedulingPriorityOverride", definition.get("schedulingPriority", 0))
        share = request.get("shareIdentifier")
        common = (kind, request["jobName"], queue, "SUBMITTED", share, priority, store.now(), bool(dependencies))
        texts = (json.dumps(doc), json.dumps(caller.runtime()))
        rows: list[tuple[object, ...]] = [(job_id, None, None, len(children) or None, *whole, *texts, *common)]
        mark = "#" if kind == "multinode" else ":"
        for number, needs in enumerate(children):
            rows.append((f"{job_id}{mark}{number}", job_id, number, None, *needs, None, None, *common))
        insert = f"insert into jobs ({', '.join(COLUMNS)}) values ({store.marks(COLUMNS)})"
        db.executemany(insert, rows)
        db.executemany("insert into dependencies values (?, ?, ?)", dependencies)
    return {"jobArn": f"{ARN}:job/{job_id}", "jobName": request["jobName"], "jobId": job_id}


def _resolved(caller: Caller, request: dict[str, Any], definition: dict[str, Any]) -> dict[str, Any]:
    """What will run: the definition, with the request's overrides and parameters put in."""
    timeout = request.get("timeout") or definition.get("timeout")
    strategy = request.get("retryStrategy") or definition.get("retryStrategy") or {}
    parameters = {**definition.get("parameters", {}), **request.get("parameters", {})}
    propagate = request.get("propagateTags", definition.get("propagateTags", False))
    doc = {
        "parameters": parameters,
        "tags": {**(definition["tags"] if propagate else {}), **request.get("tags", {})},
        "propagateTags": propagate,
        "retryStrategy": {"attempts": 1, **strategy},
        "dependsOn": request.get("dependsOn", []),
    } | ({"timeout": timeout} if timeout else {})
    if definition["type"] == "multinode":
        if "arrayProperties" in request or "containerOverrides" in request:
            raise caller.refuse("a multi-node job takes nodeOverrides, not arrayProperties or containerOverrides")
        overrides = request.get("nodeOverrides", {})
        return doc | {"nodes": _nodes(caller, definition["nodeProperties"], overrides, parameters)}
    if "nodeOverrides" in request:
        raise caller.refuse("nodeOverrides: the job definition is not multi-node")
    overrides = request.get("containerOverrides", {})
    return doc | {"container": _container(caller, definition["containerProperties"], overrides, parameters)}


def _container(
    caller: Caller, container: dict[str, Any], overrides: dict[str, Any], parameters: dict[str, str]
) -> dict[str, Any]:
    command = overrides.get("command") or container.get("command", [])
    pairs = [*container.get("environment", []), *overrides.get("environment", [])]
    variables = {pair["name"]: pair.get("value", "") for pair in pairs}
    needs = documents.requirements(container) | documents.requirements(overrides)
    limits.resources(caller.refuse, needs)
    return container | {
        "command": [substitute(token, parameters) for token in command],
        "environment": [{"name": name, "value": value} for name, value in variables.items()],
        "resourceRequirements": [{"type": kind, "value": value} for kind, value in needs.items()],
    }


def _nodes(
    caller: Caller, properties: dict[str, Any], overrides: dict[str, Any], parameters: dict[str, str]
) -> dict[str, Any]:
    count = overrides.get("numNodes", properties["numNodes"])
    limits.within(caller.refuse, "nodeProperties.mainNode", properties["mainNode"], (0, count - 1))
    if not any(count - 1 in documents.targets(one["targetNodes"], count) for one in properties["nodeRangeProperties"]):
        raise caller.refuse(f"nodeOverrides.numNodes: {count}, but no range includes node {count - 1}")
    changes = {one["targetNodes"]: one for one in overrides.get("nodePropertyOverrides", [])}
    ranges = []
    for one in properties["nodeRangeProperties"]:
        own = changes.get(one["targetNodes"], {}).get("containerOverrides", {})
        container = _container(caller, one["container"], own, parameters)
        ranges.append({"targetNodes": one["targetNodes"], "container": container})
    return {"numNodes": count, "mainNode": properties["mainNode"], "nodeRangeProperties": ranges}


Needs = tuple[float, int, int]  # vCPUs, MiB, GPUs


def _needs(caller: Caller, doc: dict[str, Any], size: int | None) -> tuple[Needs, list[Needs]]:
    """What the job needs, and each of its children: the nodes of one job together, the children of an array apart."""

    def needs(node: int | None) -> Needs:
        return limits.resources(caller.refuse, documents.requirements(documents.container(doc, node)))

    if "nodes" not in doc:
        return needs(None), [needs(None)] * (size or 0)
    nodes = [needs(number) for number in range(doc["nodes"]["numNodes"])]
    return (sum(one[0] for one in nodes), sum(one[1] for one in nodes), sum(one[2] for one in nodes)), nodes


def substitute(token: str, parameters: dict[str, str]) -> str:
    """A word of a command, with its parameter put in; a name without a value stays as it is, as on AWS.

    >>> substitute("Ref::reads", {"reads": "a.fq"}), substitute("Ref::x", {}), substitute("--reads", {"reads": "a.fq"})
    ('a.fq', 'Ref::x', '--reads')
    """
    return parameters.get(token.removeprefix("Ref::"), token) if token.startswith("Ref::") else token


def _dependencies(
    caller: Caller, db: sqlite3.Connection, job_id: str, given: list[dict[str, Any]], size: int | None
) -> list[tuple[str, str, str | None]]:
    found: list[tuple[str, str, str | None]] = []
    for one in given:
        kind, on_job = one.get("type"), one.get("jobId")
        if kind and not size:
            raise caller.refuse(f"dependsOn: type {kind} is only for array jobs")
        if kind == "SEQUENTIAL" and on_job:
            raise caller.refuse("dependsOn: type SEQUENTIAL takes no jobId: the children of one array run one by one")
        if kind != "SEQUENTIAL":
            other = db.execute("select * from jobs where id = ?", (on_job,)).fetchone()
            if other is None:
                raise caller.refuse(f"dependsOn: job '{on_job}' does not exist")
            if kind == "N_TO_N" and (other["kind"] != "array" or other["size"] != size):
                raise caller.refuse(f"dependsOn: N_TO_N needs an array of the same size, {size}; '{on_job}' is not one")
        found.append((job_id, on_job or job_id, kind))
    return found


# --- describe and list

DETAILED = "select jobs.*, coalesce(jobs.doc, up.doc) as resolved from jobs left join jobs up on up.id = jobs.parent "


def describe_jobs(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Up to 100 jobs; ids that the account does not know are left out, as on AWS."""
    ids = list(dict.fromkeys(request["jobs"]))
    with caller.reading() as db:
        rows = {row["id"]: row for row in db.execute(DETAILED + f"where jobs.id in ({store.marks(ids)})", ids)}
        found = [detail(db, rows[job_id]) for job_id in ids if job_id in rows]
    _see_to(caller, rows.values())
    return {"jobs": found}


def _see_to(caller: Caller, rows: Iterable[sqlite3.Row]) -> None:
    """Start a supervisor if any of these jobs is unfinished and none is running."""
    if any(row["status"] in store.LIVE for row in rows):
        caller.wake(b"")


def detail(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    """A job as DescribeJobs tells it."""
    doc, attempts = store.loads(row, "resolved"), store.loads(row, "attempts")
    kept = ("parameters", "tags", "propagateTags", "retryStrategy", "dependsOn", "timeout")
    found: dict[str, Any] = {
        **_common(row, doc),
        "jobQueue": f"{ARN}:job-queue/{row['queue']}",
        "attempts": [one for one in attempts if "stoppedAt" in one],
        "platformCapabilities": ["EC2"],
        "isCancelled": row["stop"] == "cancel",
        "isTerminated": row["stop"] == "terminate",
        **{member: doc[member] for member in kept if member in doc},
    }
    if row["share"]:
        found["schedulingPriority"] = row["scheduling_priority"]
    if row["kind"] == "multinode" and row["parent"] is None:
        return found | {"nodeProperties": doc["nodes"]}
    if row["kind"] == "multinode":
        found["nodeDetails"] = {"nodeIndex": row["idx"], "isMainNode": row["idx"] == doc["nodes"]["mainNode"]}
    elif row["kind"] == "array":
        found["arrayProperties"] = {"index": row["idx"]} if row["parent"] else _summary_of_children(db, row)
    running = row["status"] not in (*store.WAITING, "STARTING")
    newest = attempts[-1]["container"] if attempts and running else {}
    return found | {"container": documents.container(doc, row["idx"]) | newest}


def _common(row: sqlite3.Row, doc: dict[str, Any]) -> dict[str, Any]:
    """What a description and a summary both tell of a job."""
    known = {
        "statusReason": row["status_reason"],
        "startedAt": row["started_at"],
        "stoppedAt": row["stopped_at"],
        "shareIdentifier": row["share"],
    }
    return {
        "jobArn": f"{ARN}:job/{row['id']}",
        "jobId": row["id"],
        "jobName": row["name"],
        "createdAt": row["created_at"],
        "status": row["status"],
        "jobDefinition": definitions.arn(*doc["definition"]),
    } | {member: value for member, value in known.items() if value is not None}


def _summary_of_children(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    counts = db.execute("select status, count(*) from jobs where parent = ? group by status", (row["id"],))
    return {"size": row["size"], "statusSummary": dict.fromkeys(STATUSES, 0) | dict(map(tuple, counts))}


STATUSES = (*store.LIVE, "SUCCEEDED", "FAILED")


def list_jobs(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Jobs of a queue, children of an array, or nodes of a multi-node job, newest first; RUNNING ones unless told.

    A filter chooses by name, definition, time or share in place of the status.
    """
    given = [member for member in ("jobQueue", "arrayJobId", "multiNodeJobId") if request.get(member)]
    if len(given) != 1:
        raise caller.refuse("exactly one of jobQueue, arrayJobId and multiNodeJobId is required")
    filters, of_queue = request.get("filters", []), given == ["jobQueue"]
    if filters and not of_queue:
        raise caller.refuse("filters: only allowed with jobQueue")
    most = min(request.get("maxResults", 1000), 100 if filters else 1000)
    limits.within(caller.refuse, "maxResults", most, (1, 1000))
    first = limits.position(request.get("nextToken") or "0")
    if first is None:
        raise caller.refuse("nextToken: not a token of this account")
    where, values = "jobs.parent = ?", [request[given[0]]]
    with caller.reading() as db:
        if of_queue:
            where, values = "jobs.queue = ? and jobs.parent is null", [request["jobQueue"].rpartition("/")[2]]
            if not db.execute("select 1 from queues where name = ?", values).fetchone():
                raise caller.refuse(f"JobQueue {request['jobQueue']} not found.")
        if filters:
            condition, more = _filter(caller, filters[0])
            where, values = f"{where} and {condition}", [*values, *more]
        # A filter stands in place of the status, but that of shares goes with it.
        if not filters or (filters[0]["name"] == "SHARE_IDENTIFIER" and "jobStatus" in request):
            where, values = f"{where} and jobs.status = ?", [*values, request.get("jobStatus", "RUNNING").upper()]
        order = "jobs.seq desc" if of_queue else "jobs.idx"
        text = f"{DETAILED} where {where} order by {order} limit ? offset ?"
        rows = db.execute(text, (*values, most + 1, first)).fetchall()
        found = [_summary(row) for row in rows[:most]]
    _see_to(caller, rows)
    return {"jobSummaryList": found} | ({"nextToken": str(first + most)} if len(rows) > most else {})


def _summary(row: sqlite3.Row) -> dict[str, Any]:
    found = _common(row, store.loads(row, "resolved"))
    attempts = store.loads(row, "attempts")
    newest = attempts[-1]["container"] if attempts else {}
    if ended := {member: newest[member] for member in ("exitCode", "reason") if member in newest}:
        found["container"] = ended
    if row["kind"] == "multinode":
        found["nodeProperties"] = {"numNodes": row["size"]} if row["size"] else {"nodeIndex": row["idx"]}
    elif row["kind"] == "array":
        found["arrayProperties"] = {"size": row["size"]} if row["size"] else {"index": row["idx"]}
    return found


def _filter(caller: Caller, one: dict[str, Any]) -> tuple[str, list[Any]]:
    """The condition that a filter means. https://docs.aws.amazon.com/batch/latest/APIReference/API_ListJobs.html"""
    name, values = one["name"], one["values"]
    if name in ("BEFORE_CREATED_AT", "AFTER_CREATED_AT"):
        moment = limits.position(values[0]) if len(values) == 1 else None
        if moment is None:
            raise caller.refuse(f"filters: {name} takes one number, milliseconds since 1970")
        return f"jobs.created_at {'<' if name.startswith('BEFORE') else '>'} ?", [moment]
    if name not in FILTERS:
        raise caller.refuse(f"filters: there is no filter '{name}'")
    conditions, found = [], list[Any]()
    for value in values:
        column, text = FILTERS[name], value.rpartition("/")[2] if name == "JOB_DEFINITION" else value
        if name == "JOB_DEFINITION" and ":" in text:
            column = f"({column} || ':' || json_extract(coalesce(jobs.doc, up.doc), '$.definition[1]'))"
        if text.endswith("*"):  # any ending
            text = text[:-1]
            column = f"substr({column}, 1, {len(text)})"
        conditions.append(f"{column} = ? collate {'nocase' if name == 'JOB_NAME' else 'binary'}")
        found.append(text)
    return f"({' or '.join(conditions)})", found


FILTERS = {
    "JOB_DEFINITION": "json_extract(coalesce(jobs.doc, up.doc), '$.definition[0]')",
    "JOB_NAME": "jobs.name",
    "SHARE_IDENTIFIER": "jobs.share",
}


# --- stop


def cancel_job(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Cancel a job that has not started. Jobs that are already running are not affected."""
    return _stop(caller, "cancel", request, store.WAITING)


def terminate_job(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Stop a job: its process gets SIGTERM, then SIGKILL after 30 s, and the job ends as FAILED."""
    return _stop(caller, "terminate", request, store.LIVE)


def _stop(caller: Caller, wish: str, request: dict[str, Any], statuses: tuple[str, ...]) -> dict[str, Any]:
    with caller.writing() as db:
        if not db.execute("select 1 from jobs where id = ?", (request["jobId"],)).fetchone():
            raise caller.refuse(f"Job {request['jobId']} not found.")
        db.execute(
            "update jobs set stop = :wish, stop_reason = :reason where (id = :jobId or parent = :jobId) "
            f"and status in {statuses} and stop is not 'terminate'",
            {"wish": wish, "reason": request["reason"], "jobId": request["jobId"]},
        )
    return {}
