"""Jobs as clients see them: submitted, described, listed, and asked to stop. The supervisor does the rest."""

from __future__ import annotations

import json
import sqlite3
import uuid
from typing import Any

from genokit.local import store
from genokit.local.batch import definitions, environments, limits
from genokit.local.batch.definitions import ARN
from genokit.local.client import Caller
from genokit.local.engine import documents

# --- submit


def submit_job(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A new job in SUBMITTED, with its children where it is an array or multi-node job."""
    limits.payload(caller.refuse, request, limits.REQUEST_BYTES)
    limits.name(caller.refuse, "jobName", request["jobName"])
    limits.tags(caller.refuse, request.get("tags", {}))
    size = request.get("arrayProperties", {}).get("size")
    limits.within(caller.refuse, "arrayProperties.size", size, limits.ARRAY)
    limits.share(caller.refuse, request.get("shareIdentifier"))
    limits.within(
        caller.refuse, "schedulingPriorityOverride", request.get("schedulingPriorityOverride"), limits.PRIORITIES
    )
    for member in ("eksPropertiesOverride", "ecsPropertiesOverride", "consumableResourcePropertiesOverride"):
        if request.get(member):
            raise caller.refuse(f"{member}: the embedded account does not offer this")
    job_id = str(uuid.uuid4())
    with caller.writing() as db:
        queue = environments.queue_for_submit(caller, db, request["jobQueue"])
        name, revision, definition = definitions.active(caller, db, request["jobDefinition"])
        doc = {"definition": [name, revision], **_resolved(caller, request, definition)}
        _check_share(caller, request, queue)
        dependencies = _dependencies(caller, db, job_id, request.get("dependsOn", []), size)
        priority = request.get("schedulingPriorityOverride", definition.get("schedulingPriority", 0))
        kind = "multinode" if "nodes" in doc else "array" if size else None
        rows = _rows(caller, doc, kind, size)
        first, *children = rows
        common = (request["jobName"], queue["name"], "SUBMITTED", request.get("shareIdentifier"), priority, store.now())
        columns = (
            "name, queue, status, share, scheduling_priority, created_at, id, parent, idx, size, kind, "
            "vcpus, memory_mib, gpus, waits, doc, runtime"
        )
        insert = f"insert into jobs ({columns}) values ({store.marks(['?'] * 17)})"
        waits = int(bool(dependencies))
        texts = (json.dumps(doc), json.dumps(caller.runtime()))
        db.execute(insert, (*common, job_id, None, None, len(children) or None, kind, *first, waits, *texts))
        mark = "#" if kind == "multinode" else ":"
        db.executemany(
            insert,
            (
                (*common, f"{job_id}{mark}{number}", job_id, number, None, kind, *child, waits, None, None)
                for number, child in enumerate(children)
            ),
        )
        db.executemany("insert into dependencies values (?, ?, ?)", dependencies)
    return {"jobArn": f"{ARN}:job/{job_id}", "jobName": request["jobName"], "jobId": job_id}


def _resolved(caller: Caller, request: dict[str, Any], definition: dict[str, Any]) -> dict[str, Any]:
    """What will run: the definition, with the request's overrides and parameters put in."""
    timeout = request.get("timeout") or definition.get("timeout")
    strategy = request.get("retryStrategy") or definition.get("retryStrategy") or {"attempts": 1}
    limits.timeout(caller.refuse, timeout)
    limits.retries(caller.refuse, strategy)
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
        raise caller.refuse("nodeOverrides: the definition is not one of a multi-node job")
    overrides = request.get("containerOverrides", {})
    return doc | {"container": _container(caller, definition["containerProperties"], overrides, parameters)}


def _container(
    caller: Caller, container: dict[str, Any], overrides: dict[str, Any], parameters: dict[str, str]
) -> dict[str, Any]:
    command = overrides.get("command") or container.get("command", [])
    limits.environment(caller.refuse, overrides.get("environment", []))
    variables = {
        pair["name"]: pair.get("value", "")
        for pair in [*container.get("environment", []), *overrides.get("environment", [])]
    }
    asked = documents.requirements(container) | documents.requirements(overrides)
    limits.resources(caller.refuse, asked)
    return container | {
        "command": [substitute(token, parameters) for token in command],
        "environment": [{"name": name, "value": value} for name, value in variables.items()],
        "resourceRequirements": [{"type": kind, "value": value} for kind, value in asked.items()],
    }


def _nodes(
    caller: Caller, properties: dict[str, Any], overrides: dict[str, Any], parameters: dict[str, str]
) -> dict[str, Any]:
    count = overrides.get("numNodes", properties["numNodes"])
    limits.within(caller.refuse, "nodeOverrides.numNodes", count, (1, 1000))
    ranges = []
    if not any(count - 1 in documents.targets(one["targetNodes"], count) for one in properties["nodeRangeProperties"]):
        raise caller.refuse(f"nodeOverrides.numNodes: {count}, but no range of the definition has node {count - 1}")
    for one in properties["nodeRangeProperties"]:
        own: dict[str, Any] = {}
        for given in overrides.get("nodePropertyOverrides", []):
            if given["targetNodes"] == one["targetNodes"]:
                own = given.get("containerOverrides", {})
        container = _container(caller, one["container"], own, parameters)
        ranges.append({"targetNodes": one["targetNodes"], "container": container})
    limits.within(caller.refuse, "nodeProperties.mainNode", properties["mainNode"], (0, count - 1))
    return {"numNodes": count, "mainNode": properties["mainNode"], "nodeRangeProperties": ranges}


def _rows(caller: Caller, doc: dict[str, Any], kind: str | None, size: int | None) -> list[tuple[float, int, int]]:
    """What the job asks for, and then each of its children."""
    count = doc["nodes"]["numNodes"] if kind == "multinode" else size or 0
    one = limits.resources(caller.refuse, documents.requirements(documents.container(doc, None)))
    if kind != "multinode":
        return [one] * (count + 1)
    nodes = [
        limits.resources(caller.refuse, documents.requirements(documents.container(doc, idx))) for idx in range(count)
    ]
    vcpus, memory, gpus = (sum(column) for column in zip(*nodes, strict=True))
    return [(vcpus, int(memory), int(gpus)), *nodes]


def substitute(token: str, parameters: dict[str, str]) -> str:
    """A word of a command, with its parameter put in; a name without a value stays as it is, as on AWS.

    >>> substitute("Ref::reads", {"reads": "a.fq"}), substitute("Ref::x", {}), substitute("--reads", {"reads": "a.fq"})
    ('a.fq', 'Ref::x', '--reads')
    """
    return parameters.get(token.removeprefix("Ref::"), token) if token.startswith("Ref::") else token


def _check_share(caller: Caller, request: dict[str, Any], queue: dict[str, Any]) -> None:
    if "schedulingPolicyArn" in queue and not request.get("shareIdentifier"):
        raise caller.refuse(f"shareIdentifier is missing: the queue '{queue['name']}' has a fair-share policy")
    if "schedulingPolicyArn" not in queue and request.get("shareIdentifier"):
        raise caller.refuse(f"shareIdentifier: the queue '{queue['name']}' has no fair-share policy")


def _dependencies(
    caller: Caller, db: sqlite3.Connection, job_id: str, given: list[dict[str, Any]], size: int | None
) -> list[tuple[str, str, str | None]]:
    limits.at_most(caller.refuse, "dependsOn", len(given), limits.DEPENDENCIES)
    found: list[tuple[str, str, str | None]] = []
    for one in given:
        kind, on_job = one.get("type"), one.get("jobId")
        if kind and not size:
            raise caller.refuse(f"dependsOn: type {kind} is for array jobs")
        if kind == "SEQUENTIAL":
            if on_job:
                raise caller.refuse("dependsOn: type SEQUENTIAL takes no jobId, an array's children follow one another")
            found.append((job_id, job_id, kind))
            continue
        other = db.execute("select * from jobs where id = ?", (on_job,)).fetchone() if on_job else None
        if other is None:
            raise caller.refuse(f"dependsOn: there is no job '{on_job}'")
        if kind == "N_TO_N" and (other["kind"] != "array" or other["size"] != size):
            raise caller.refuse(f"dependsOn: N_TO_N needs an array of the same size, {size}; '{on_job}' is not one")
        found.append((job_id, str(on_job), kind))
    return found


# --- describe and list

DETAILED = "select jobs.*, coalesce(jobs.doc, up.doc) as resolved from jobs left join jobs up on up.id = jobs.parent "


def describe_jobs(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Up to 100 jobs; ids that the account does not know are left out, as on AWS."""
    ids = list(dict.fromkeys(request["jobs"]))
    limits.at_most(caller.refuse, "jobs", len(request["jobs"]), limits.DESCRIBED)
    with caller.reading() as db:
        rows = {row["id"]: row for row in db.execute(DETAILED + f"where jobs.id in ({store.marks(ids)})", ids)}
        found = [detail(db, rows[job_id]) for job_id in ids if job_id in rows]
    if any(row["status"] in store.LIVE for row in rows.values()):
        caller.wake(b"")
    return {"jobs": found}


def detail(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    """A job as DescribeJobs tells it."""
    doc, attempts = store.loads(row, "resolved"), store.loads(row, "attempts")
    name, revision = doc["definition"]
    found: dict[str, Any] = {
        "jobArn": f"{ARN}:job/{row['id']}",
        "jobId": row["id"],
        "jobName": row["name"],
        "jobQueue": f"{ARN}:job-queue/{row['queue']}",
        "jobDefinition": definitions.arn(name, revision),
        "status": row["status"],
        "createdAt": row["created_at"],
        "attempts": [one for one in attempts if "stoppedAt" in one],
        "platformCapabilities": ["EC2"],
        "isCancelled": row["stop"] == "cancel",
        "isTerminated": row["stop"] == "terminate",
        **{
            member: doc[member]
            for member in ("parameters", "tags", "propagateTags", "retryStrategy", "dependsOn", "timeout")
            if member in doc
        },
    }
    known = {
        "statusReason": row["status_reason"],
        "startedAt": row["started_at"],
        "stoppedAt": row["stopped_at"],
        "shareIdentifier": row["share"],
        "schedulingPriority": row["scheduling_priority"] if row["share"] else None,
    }
    found |= {member: value for member, value in known.items() if value is not None}
    if row["kind"] == "array":
        found["arrayProperties"] = _array(db, row)
    elif row["kind"] == "multinode" and row["parent"] is None:
        found["nodeProperties"] = doc["nodes"]
        return found
    elif row["kind"] == "multinode":
        found["nodeDetails"] = {"nodeIndex": row["idx"], "isMainNode": row["idx"] == doc["nodes"]["mainNode"]}
    running = row["status"] not in (*store.WAITING, "STARTING")
    newest = attempts[-1]["container"] if attempts and running else {}
    found["container"] = documents.container(doc, row["idx"]) | newest
    return found


def _array(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    if row["idx"] is not None:
        return {"index": row["idx"]}
    counts = dict(
        map(tuple, db.execute("select status, count(*) from jobs where parent = ? group by status", (row["id"],)))
    )
    return {"size": row["size"], "statusSummary": {status: counts.get(status, 0) for status in STATUSES}}


STATUSES = (*store.LIVE, "SUCCEEDED", "FAILED")


def list_jobs(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Jobs of a queue, children of an array, or nodes of a multi-node job, newest first; RUNNING ones unless told.

    A filter chooses by name, definition, time or share in place of the status.
    """
    given = [member for member in ("jobQueue", "arrayJobId", "multiNodeJobId") if request.get(member)]
    if len(given) != 1:
        raise caller.refuse("one of jobQueue, arrayJobId and multiNodeJobId must say which jobs are meant")
    filters = request.get("filters", [])
    limits.at_most(caller.refuse, "filters", len(filters), 1)
    if filters and given != ["jobQueue"]:
        raise caller.refuse("filters: they go with jobQueue")
    with caller.reading() as db:
        if given == ["jobQueue"]:
            queue = request["jobQueue"].rpartition("/")[2]
            if not db.execute("select 1 from queues where name = ?", (queue,)).fetchone():
                raise caller.refuse(f"JobQueue {request['jobQueue']} not found.")
            where, values = ["jobs.queue = ?", "jobs.parent is null"], [queue]
        else:
            where, values = ["jobs.parent = ?"], [request[given[0]]]
        if filters:
            more, these = _filter(caller, filters[0])
            where, values = [*where, more], [*values, *these]
        # A filter stands in place of the status, but that of shares goes with it.
        if not filters or (filters[0]["name"] == "SHARE_IDENTIFIER" and "jobStatus" in request):
            where, values = [*where, "jobs.status = ?"], [*values, request.get("jobStatus", "RUNNING").upper()]
        page = 100 if filters else 1000
        limits.within(caller.refuse, "maxResults", request.get("maxResults"), (1, float("inf")))
        most = min(request.get("maxResults", page), page)
        first = limits.position(request.get("nextToken") or "0")
        if first is None:
            raise caller.refuse("nextToken: not a token of this account")
        order = "jobs.seq desc" if given == ["jobQueue"] else "jobs.idx"
        text = DETAILED + f"where {' and '.join(where)} order by {order} limit ? offset ?"
        rows = db.execute(text, (*values, most + 1, first)).fetchall()
        found = [_summary(db, row) for row in rows[:most]]
    if any(row["status"] in store.LIVE for row in rows):
        caller.wake(b"")
    return {"jobSummaryList": found} | ({"nextToken": str(first + most)} if len(rows) > most else {})


def _summary(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    name, revision = store.loads(row, "resolved")["definition"]
    newest = (store.loads(row, "attempts") or [{"container": {}}])[-1]["container"]
    ended = {member: newest[member] for member in ("exitCode", "reason") if member in newest}
    known = {
        "statusReason": row["status_reason"],
        "startedAt": row["started_at"],
        "stoppedAt": row["stopped_at"],
        "shareIdentifier": row["share"],
        "container": ended or None,
        "arrayProperties": {"size": row["size"]} if row["size"] else {"index": row["idx"]} if row["parent"] else None,
    }
    if row["kind"] == "multinode":
        known["arrayProperties"] = None
        known["nodeProperties"] = {"numNodes": row["size"]} if row["size"] else {"nodeIndex": row["idx"]}
    return {
        "jobArn": f"{ARN}:job/{row['id']}",
        "jobId": row["id"],
        "jobName": row["name"],
        "createdAt": row["created_at"],
        "status": row["status"],
        "jobDefinition": definitions.arn(name, revision),
    } | {member: value for member, value in known.items() if value is not None}


def _filter(caller: Caller, one: dict[str, Any]) -> tuple[str, list[Any]]:
    """The condition that a filter means. https://docs.aws.amazon.com/batch/latest/APIReference/API_ListJobs.html"""
    name, values = one["name"], one["values"]
    if name in ("BEFORE_CREATED_AT", "AFTER_CREATED_AT"):
        moment = limits.position(values[0]) if len(values) == 1 else None
        if moment is None:
            raise caller.refuse(f"filters: {name} takes one number, milliseconds since 1970")
        return f"jobs.created_at {'<' if name.startswith('BEFORE') else '>'} ?", [moment]
    if name == "JOB_DEFINITION":
        names = [value.rpartition("/")[2] for value in values]
        conditions = [_same(DEFINITION if ":" in value else DEFINITION_NAME, value) for value in names]
    elif name == "JOB_NAME":
        conditions = [_same("jobs.name", value, "nocase") for value in values]
    elif name == "SHARE_IDENTIFIER":
        conditions = [_same("jobs.share", value) for value in values]
    else:
        raise caller.refuse(f"filters: there is no filter '{name}'")
    return f"({' or '.join(text for text, _ in conditions)})", [value for _, given in conditions for value in given]


UP = "coalesce(jobs.doc, up.doc)"
DEFINITION_NAME = f"json_extract({UP}, '$.definition[0]')"
DEFINITION = f"({DEFINITION_NAME} || ':' || json_extract({UP}, '$.definition[1]'))"


def _same(column: str, value: str, collation: str = "binary") -> tuple[str, list[Any]]:
    """Whether a column has a value; a star at the value's end means any ending."""
    if value.endswith("*"):
        return f"substr({column}, 1, ?) = ? collate {collation}", [len(value) - 1, value[:-1]]
    return f"{column} = ? collate {collation}", [value]


# --- stop


def cancel_job(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A job that has not started will FAIL with the reason; one that has goes on."""
    return _stop(caller, "cancel", request, store.WAITING)


def terminate_job(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A job that has not ended will FAIL with the reason: its process gets SIGTERM, and 30 s later SIGKILL."""
    return _stop(caller, "terminate", request, store.LIVE)


def _stop(caller: Caller, wish: str, request: dict[str, Any], statuses: tuple[str, ...]) -> dict[str, Any]:
    limits.at_most(caller.refuse, "reason, in characters", len(request["reason"]), limits.REASON)
    with caller.writing() as db:
        if not db.execute("select 1 from jobs where id = ?", (request["jobId"],)).fetchone():
            raise caller.refuse(f"Job {request['jobId']} not found.")
        db.execute(
            "update jobs set stop = ?, stop_reason = ? "
            f"where (id = ? or parent = ?) and status in ({store.marks(statuses)}) and stop is not 'terminate'",
            (wish, request["reason"], request["jobId"], request["jobId"], *statuses),
        )
    return {}
