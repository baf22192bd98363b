"""The embedded CloudFormation: it reads the template that AWS gets, and makes of it what this account has.

What it keeps: change sets, parameters, conditions, functions, the order of dependencies, updates of what changed alone,
replacements, rollbacks, deletions that fail and go on, events and statuses in AWS's words.
What it cannot: most resources are kept by name and have no effect here; see ``provisions``. A stack is made in one go,
inside one transaction: whoever is killed leaves the old one or the new one.

https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/
"""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from genokit.local import client, provisions, store
from genokit.local.batch import limits
from genokit.local.client import Caller, Operation
from genokit.local.deployment import Work, changes, now, resources_of, scope_of
from genokit.local.provisions import ACCOUNT, REGION, Resource, Within
from genokit.local.shapes import Refused
from genokit.local.template import TemplateError, parameters, read

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
TEMPLATE_BYTES = 51_200
PAGE = 100
UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
NOTHING = "The submitted information didn't contain changes. Submit different information to create a change set."


# --- change sets


def create_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """What a stack would become, kept to be looked at and executed; a new stack is there from now on, in review."""
    name, title, creates = request["StackName"], request["ChangeSetName"], request.get("ChangeSetType") == "CREATE"
    with caller.writing() as db:
        stack = _newest(db, name)
        if stack is None and creates:
            stack = _new(caller, name, request.get("Tags", []))
        elif stack is None:
            raise _invalid(caller, f"Stack [{name}] does not exist")
        elif creates and stack["status"] != "REVIEW_IN_PROGRESS":
            raise _invalid(caller, f"Stack [{name}] already exists and cannot be created again with the changeSet.")
        elif not creates and stack["status"] not in UPDATABLE:
            raise _invalid(caller, f"Stack:{stack['id']} is in {stack['status']} state and can not be updated.")
        if title in stack["change_sets"]:
            raise caller.refuse(f"ChangeSet {title} already exists", "AlreadyExistsException")
        body = stack["body"] if request.get("UsePreviousTemplate") else request.get("TemplateBody", "")
        if len(body.encode()) > TEMPLATE_BYTES:
            raise _invalid(caller, f"Member must have length less than or equal to {TEMPLATE_BYTES}: templateBody")
        tags = {one["Key"]: one["Value"] for one in request.get("Tags", [])}
        wanted = {"body": body, "tags": tags if "Tags" in request else stack["tags"], "parameters": {}}
        try:
            template = read(body)
            wanted["parameters"] = parameters(template, _given(stack, request.get("Parameters", [])))
            scope = scope_of(stack, wanted, template)
            foreseen = changes(stack, scope, resources_of(db, stack), wanted["tags"])
            outputs = scope.outputs()
        except TemplateError as error:
            raise _invalid(caller, str(error)) from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _invalid(caller, f"Template format error: unsupported structure ({error})") from None
        _check_capabilities(caller, template, request.get("Capabilities", []))
        told = outputs == stack["outputs"] and wanted["tags"] == stack["tags"]
        same = not foreseen and told and not creates
        identity = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:changeSet/{title}/{uuid.uuid4()}"
        stack["change_sets"][title] = {
            **wanted,
            "id": identity,
            "created": now(),
            "changes": foreseen,
            "description": request.get("Description", ""),
            "status": "FAILED" if same else "CREATE_COMPLETE",
            "reason": NOTHING if same else "",
            "execution": "UNAVAILABLE" if same else "AVAILABLE",
        }
        _save(db, stack)
    return {"Id": identity, "StackId": stack["id"]}


def describe_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The changes, page by page."""
    with caller.reading() as db:
        stack, title = _change_set(caller, db, request)
    one = stack["change_sets"][title]
    page, token = _page(caller, one["changes"], request)
    told = {"StatusReason": one["reason"]} if one["reason"] else {}
    return {
        "ChangeSetName": title,
        "ChangeSetId": one["id"],
        "StackId": stack["id"],
        "StackName": stack["name"],
        "Parameters": _parameters(one),
        "CreationTime": datetime.fromisoformat(one["created"]),
        "ExecutionStatus": one["execution"],
        "Status": one["status"],
        "Tags": [{"Key": key, "Value": value} for key, value in one["tags"].items()],
        "Changes": [{"Type": "Resource", "ResourceChange": change} for change in page],
        **told,
        **token,
    }


def delete_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Forget a change set; one that is not there is forgotten already."""
    with caller.writing() as db:
        try:
            stack, title = _change_set(caller, db, request)
        except Refused as error:
            if error.code == "ChangeSetNotFound":
                return {}
            raise
        del stack["change_sets"][title]
        _save(db, stack)
    return {}


def execute_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Make the stack what the change set says, at once; what fails is in the events, and is rolled back."""
    with caller.writing() as db:
        stack, title = _change_set(caller, db, request)
        wanted = stack["change_sets"].pop(title)
        if wanted["execution"] != "AVAILABLE":
            message = f"ChangeSet [{wanted['id']}] cannot be executed in its current status of [{wanted['status']}]"
            raise caller.refuse(message, "InvalidChangeSetStatus")
        within = Within(caller.home, caller.operation, caller.job_environment, db)
        Work(within, stack, request.get("ClientRequestToken", "")).execute(wanted)
        stack["change_sets"] = {}  # they were made for a stack that is no more
        _save(db, stack)
    return {}


# --- stacks


def describe_stacks(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """One stack, by its id even when it has been deleted; or all that are there."""
    with caller.reading() as db:
        if "StackName" in request:
            found = [_stack(caller, db, request["StackName"])]
        else:
            every = [store.loads(row, "doc") for row in db.execute("select doc from stacks order by rowid desc")]
            found = [one for one in every if one["status"] != "DELETE_COMPLETE"]
    page, token = _page(caller, found, request)
    return {"Stacks": [_described(one) for one in page], **token}


def describe_stack_events(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """What happened to a stack and its resources, the newest first."""
    with caller.reading() as db:
        stack = _stack(caller, db, request["StackName"])
        rows = db.execute("select * from stack_events where stack = ? order by seq desc", (stack["id"],)).fetchall()
    page, token = _page(caller, rows, request)
    events = [
        {
            **{key: value for key, value in store.loads(row, "doc").items() if value},
            "EventId": f"{row['seq']:012d}-{uuid.uuid5(uuid.NAMESPACE_URL, stack['id'])}",
            "StackId": stack["id"],
            "StackName": stack["name"],
        }
        for row in page
    ]
    for event in events:
        event["Timestamp"] = datetime.fromisoformat(event["Timestamp"])
    return {"StackEvents": events, **token}


def list_stack_resources(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The resources of a stack."""
    with caller.reading() as db:
        stack = _stack(caller, db, request["StackName"])
        found = [_summary(one, "LastUpdatedTimestamp") for one in resources_of(db, stack).values()]
    page, token = _page(caller, found, request)
    return {"StackResourceSummaries": page, **token}


def describe_stack_resources(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The resources of a stack, or the one with this logical id."""
    with caller.reading() as db:
        stack = _stack(caller, db, request.get("StackName", ""))
        found = resources_of(db, stack).values()
    wanted = request.get("LogicalResourceId")
    names = {"StackName": stack["name"], "StackId": stack["id"]}
    chosen = [one for one in found if wanted in (None, one.logical)][:PAGE]
    return {"StackResources": [{**names, **_summary(one, "Timestamp")} for one in chosen]}


def get_template(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The template of a stack as it was given."""
    with caller.reading() as db:
        stack = _stack(caller, db, request["StackName"])
    return {"TemplateBody": stack["body"], "StagesAvailable": ["Original", "Processed"]}


def delete_stack(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Remove a stack's resources, those first that others need least; what cannot be removed leaves DELETE_FAILED."""
    with caller.writing() as db:
        stack = _newest(db, request["StackName"])
        if stack is None or stack["status"] == "DELETE_COMPLETE":
            return {}
        within = Within(caller.home, caller.operation, caller.job_environment, db)
        Work(within, stack, request.get("ClientRequestToken", "")).delete(request.get("RetainResources", []))
        _save(db, stack)
    return {}


OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation
    for operation in (
        create_change_set,
        describe_change_set,
        delete_change_set,
        execute_change_set,
        describe_stacks,
        describe_stack_events,
        list_stack_resources,
        describe_stack_resources,
        get_template,
        delete_stack,
    )
}


def service(home: Path, job_environment: Mapping[str, str]) -> client.Service:
    """The service of the account in ``home``."""
    return client.offer(OPERATIONS, home, job_environment)


def _check_capabilities(caller: Caller, template: dict[str, Any], given: list[str]) -> None:
    iam = [one for one in template["Resources"].values() if one["Type"].startswith("AWS::IAM::")]
    named = [one for one in iam if provisions.name_property(one["Type"]) in (one.get("Properties") or {})]
    needed = "CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM"
    if iam and needed not in given and "CAPABILITY_NAMED_IAM" not in given:
        raise caller.refuse(f"Requires capabilities : [{needed}]", "InsufficientCapabilitiesException")


def _given(stack: dict[str, Any], told: list[dict[str, Any]]) -> dict[str, str]:
    given = {}
    for one in told:
        key = one["ParameterKey"]
        if one.get("UsePreviousValue"):
            if key not in stack["parameters"]:
                raise TemplateError(f"Invalid input for parameter key {key}. Cannot specify usePreviousValue as true "
                                    "for a parameter key not in the previous template")  # fmt: skip
            given[key] = stack["parameters"][key]
        else:
            given[key] = one.get("ParameterValue", "")
    return given


# --- what is kept of stacks


def _new(caller: Caller, name: str, tags: list[dict[str, str]]) -> dict[str, Any]:
    if not NAME.fullmatch(name):
        raise _invalid(
            caller,
            f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*",
        )
    identity = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/{uuid.uuid4()}"
    return {
        "id": identity, "name": name, "status": "REVIEW_IN_PROGRESS", "reason": "", "created": now(), "body": "",
        "parameters": {}, "tags": {one["Key"]: one["Value"] for one in tags}, "outputs": [], "change_sets": {},
    }  # fmt: skip


def _newest(db: sqlite3.Connection, reference: str) -> dict[str, Any] | None:
    """The stack with this id, or the one with this name that has not been deleted."""
    rows = db.execute("select doc from stacks where ? in (id, name) order by rowid desc", (reference,))
    found: list[dict[str, Any]] = [store.loads(row, "doc") for row in rows]
    return next((one for one in found if reference == one["id"] or one["status"] != "DELETE_COMPLETE"), None)


def _stack(caller: Caller, db: sqlite3.Connection, reference: str) -> dict[str, Any]:
    stack = _newest(db, reference)
    if stack is None:
        raise _invalid(caller, f"Stack with id {reference} does not exist")
    return stack


def _change_set(caller: Caller, db: sqlite3.Connection, request: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The stack that a change set belongs to, and its name."""
    wanted = request["ChangeSetName"]
    rows = db.execute("select doc from stacks order by rowid desc")
    for stack in [store.loads(row, "doc") for row in rows]:
        for title, one in stack["change_sets"].items():
            if wanted == one["id"] or (wanted == title and request.get("StackName") in (stack["name"], stack["id"])):
                return stack, title
    raise caller.refuse(f"ChangeSet [{wanted}] does not exist", "ChangeSetNotFound")


def _save(db: sqlite3.Connection, stack: dict[str, Any]) -> None:
    row = (stack["id"], stack["name"], json.dumps(stack))
    db.execute("insert into stacks values (?, ?, ?) on conflict (id) do update set doc = excluded.doc", row)


def _described(stack: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "StackId": stack["id"],
        "StackName": stack["name"],
        "StackStatus": stack["status"],
        "CreationTime": datetime.fromisoformat(stack["created"]),
        "Parameters": _parameters(stack) if stack["body"] else [],
        "Outputs": stack["outputs"],
        "Tags": [{"Key": key, "Value": value} for key, value in stack["tags"].items()],
    }
    for key, member in (("updated", "LastUpdatedTime"), ("deleted", "DeletionTime")):
        if key in stack:
            told[member] = datetime.fromisoformat(stack[key])
    if stack["reason"]:
        told["StackStatusReason"] = stack["reason"]
    return told


def _parameters(told: dict[str, Any]) -> list[dict[str, str]]:
    declared = read(told["body"]).get("Parameters", {})
    hidden = {key for key, one in declared.items() if str(one.get("NoEcho", "")).lower() == "true"}
    return [
        {"ParameterKey": key, "ParameterValue": "****" if key in hidden else value}
        for key, value in told["parameters"].items()
    ]


def _summary(resource: Resource, when: str) -> dict[str, Any]:
    told = {
        "LogicalResourceId": resource.logical,
        "PhysicalResourceId": resource.physical,
        "ResourceType": resource.type,
        "ResourceStatus": resource.status,
        when: datetime.fromisoformat(resource.at),
    }
    return {**told, **({"ResourceStatusReason": resource.reason} if resource.reason else {})}


def _page(caller: Caller, found: list[Any], request: dict[str, Any]) -> tuple[list[Any], dict[str, str]]:
    first = request.get("NextToken", "0")
    if limits.position(first) is None:
        raise _invalid(caller, "NextToken: not a token of this account")
    end = int(first) + PAGE
    return found[int(first) : end], {"NextToken": str(end)} if end < len(found) else {}


def _invalid(caller: Caller, message: str) -> Exception:
    return caller.refuse(message, "ValidationError")
