"""Job definitions: kept as they were registered, numbered by revision."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from genokit.local import store
from genokit.local.batch import limits
from genokit.local.client import Caller
from genokit.local.engine import documents

ARN = "arn:aws:batch:local:000000000000"


def register_job_definition(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """A new revision of the definition, from 1 on."""
    name, kind = request["jobDefinitionName"], request["type"]
    if any(one.upper() != "EC2" for one in request.get("platformCapabilities", [])):
        raise caller.refuse("platformCapabilities: the embedded account offers EC2 only")
    if kind == "container" and "containerProperties" in request:
        _check_container(caller, "containerProperties", request["containerProperties"])
    elif kind == "multinode" and "nodeProperties" in request:
        _check_nodes(caller, request["nodeProperties"])
    else:
        raise caller.refuse(
            f"jobDefinition '{name}': the embedded account accepts type 'container' with containerProperties "
            "and type 'multinode' with nodeProperties"
        )
    with caller.writing(concerns_jobs=False) as db:
        newest = db.execute("select max(revision) from definitions where name = ?", (name,)).fetchone()[0] or 0
        doc = {"tags": {}, **request, "containerOrchestrationType": "ECS"}
        db.execute("insert into definitions values (?, ?, 'ACTIVE', ?)", (name, newest + 1, json.dumps(doc)))
    return {"jobDefinitionName": name, "jobDefinitionArn": arn(name, newest + 1), "revision": newest + 1}


def describe_job_definitions(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Definitions by name, by ``name:revision`` or ARN, by status; newest revision first."""
    wanted = [split(reference) for reference in request.get("jobDefinitions", [])]
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
    return limits.page(caller.refuse, "jobDefinitions", found, request)


def deregister_job_definition(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Make a revision INACTIVE: what was submitted with it goes on, and nothing new can be."""
    name, revision = split(request["jobDefinition"])
    with caller.writing(concerns_jobs=False) as db:
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


def _check_container(caller: Caller, member: str, container: dict[str, Any]) -> None:
    if not container.get("image"):
        raise caller.refuse(f"{member}.image is missing")
    limits.resources(caller.refuse, documents.requirements(container))


def _check_nodes(caller: Caller, properties: dict[str, Any]) -> None:
    count = properties["numNodes"]
    limits.within(caller.refuse, "nodeProperties.mainNode", properties["mainNode"], (0, count - 1))
    covered: set[int] = set()
    for one in properties["nodeRangeProperties"]:
        if "container" not in one:
            raise caller.refuse("nodeProperties.nodeRangeProperties: the embedded account needs a container in each")
        _check_container(caller, "nodeProperties.nodeRangeProperties.container", one["container"])
        covered |= set(documents.targets(one["targetNodes"], count))
    if covered != set(range(count)):
        raise caller.refuse(f"nodeProperties.nodeRangeProperties: together, targetNodes must be 0 to {count - 1}")
