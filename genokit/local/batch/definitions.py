"""Job definitions: kept as they were registered, numbered by revision."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from genokit.local import store
from genokit.local.batch import limits
from genokit.local.client import Caller, page
from genokit.local.engine import documents

ARN = "arn:aws:batch:local:000000000000"


def register_job_definition(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A new revision of the definition, from 1 on."""
    name = request["jobDefinitionName"]
    limits.name(caller.refuse, "jobDefinitionName", name)
    limits.payload(caller.refuse, request, limits.DEFINITION_BYTES)
    limits.tags(caller.refuse, request.get("tags", {}))
    limits.timeout(caller.refuse, request.get("timeout"))
    limits.retries(caller.refuse, request.get("retryStrategy"))
    limits.within(caller.refuse, "schedulingPriority", request.get("schedulingPriority"), limits.PRIORITIES)
    if any(one.upper() != "EC2" for one in request.get("platformCapabilities", [])):
        raise caller.refuse("platformCapabilities: the embedded account is one EC2 machine, and offers nothing else")
    for member in ("eksProperties", "ecsProperties", "consumableResourceProperties"):
        if request.get(member):
            raise caller.refuse(f"{member}: the embedded account does not offer this")
    if request["type"] == "container" and "containerProperties" in request:
        _container(caller, "containerProperties", request["containerProperties"])
    elif request["type"] == "multinode" and "nodeProperties" in request:
        _nodes(caller, request["nodeProperties"])
    else:
        raise caller.refuse(
            f"jobDefinition '{name}': the embedded account takes type 'container' with containerProperties "
            "and type 'multinode' with nodeProperties"
        )
    with caller.writing() as db:
        newest = db.execute("select max(revision) from definitions where name = ?", (name,)).fetchone()[0] or 0
        doc = {"tags": {}, **request, "containerOrchestrationType": "ECS"}
        db.execute("insert into definitions values (?, ?, 'ACTIVE', ?)", (name, newest + 1, json.dumps(doc)))
    return {"jobDefinitionName": name, "jobDefinitionArn": arn(name, newest + 1), "revision": newest + 1}


def describe_job_definitions(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Definitions by name, by ``name:revision`` or ARN, by status; newest revision first."""
    wanted = [split(reference) for reference in request.get("jobDefinitions", [])]
    limits.at_most(caller.refuse, "jobDefinitions", len(wanted), limits.DESCRIBED)
    if "jobDefinitionName" in request:
        wanted.append((request["jobDefinitionName"], None))
    status = request.get("status")
    with caller.reading() as db:
        rows = db.execute("select * from definitions order by name, revision desc").fetchall()
    found = [
        {
            **store.loads(row, "doc"),
            "jobDefinitionArn": arn(row["name"], row["revision"]),
            "revision": row["revision"],
            "status": row["status"],
        }
        for row in rows
        if status in (None, row["status"])
        and (not wanted or any(name == row["name"] and number in (None, row["revision"]) for name, number in wanted))
    ]
    return page(caller, "jobDefinitions", found, request)


def deregister_job_definition(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Make a revision INACTIVE: what was submitted with it goes on, and nothing new can be."""
    name, revision = split(request["jobDefinition"])
    with caller.writing() as db:
        if revision is None:
            # The text of the API wants a revision, its example names none: then the one that a job would be given.
            revision = active(caller, db, name)[1]
        changed = db.execute(
            "update definitions set status = 'INACTIVE' where name = ? and revision = ?", (name, revision)
        ).rowcount
    if not changed:
        raise caller.refuse(f"Job Definition {request['jobDefinition']} not found.")
    return {}


def active(caller: Caller, db: sqlite3.Connection, reference: str) -> tuple[str, int, dict[str, Any]]:
    """The definition that a reference means: its newest active revision where it names none."""
    name, revision = split(reference)
    row = db.execute(
        "select * from definitions where name = ? and revision = coalesce(?, revision) and status = 'ACTIVE' "
        "order by revision desc",
        (name, revision),
    ).fetchone()
    if row is None:
        raise caller.refuse(f"Job Definition {reference} not found or not active.")
    return name, row["revision"], store.loads(row, "doc")


def arn(name: str, revision: int) -> str:
    return f"{ARN}:job-definition/{name}:{revision}"


def split(reference: str) -> tuple[str, int | None]:
    """Name and revision (None where it says none) of a name, ``name:revision`` or ARN.

    >>> split("align"), split("align:3"), split(arn("align", 3))
    (('align', None), ('align', 3), ('align', 3))
    """
    name, _, revision = reference.rpartition("/")[2].partition(":")
    number = limits.position(revision)
    return name, -1 if revision and number is None else number  # there is no revision -1


def _container(caller: Caller, member: str, container: dict[str, Any]) -> None:
    if not container.get("image"):
        raise caller.refuse(f"{member}.image is missing")
    limits.environment(caller.refuse, container.get("environment", []))
    limits.environment(caller.refuse, container.get("secrets", []), "secrets")
    limits.resources(caller.refuse, documents.requirements(container))


def _nodes(caller: Caller, properties: dict[str, Any]) -> None:
    count, main = properties["numNodes"], properties["mainNode"]
    limits.within(caller.refuse, "nodeProperties.numNodes", count, (1, 1000))
    limits.within(caller.refuse, "nodeProperties.mainNode", main, (0, count - 1))
    limits.at_most(
        caller.refuse, "nodeProperties.nodeRangeProperties", len(properties["nodeRangeProperties"]), limits.NODE_RANGES
    )
    covered: set[int] = set()
    for one in properties["nodeRangeProperties"]:
        if "container" not in one:
            raise caller.refuse("nodeProperties.nodeRangeProperties: the embedded account takes nodes with a container")
        _container(caller, "nodeProperties.nodeRangeProperties.container", one["container"])
        if not limits.NODES.fullmatch(one["targetNodes"]):
            raise caller.refuse(f"targetNodes: '{one['targetNodes']}' is not a range such as 0:3")
        covered |= set(documents.targets(one["targetNodes"], count))
    if covered != set(range(count)):
        raise caller.refuse(f"nodeProperties.nodeRangeProperties: their targetNodes must be 0 to {count - 1}, no more")
