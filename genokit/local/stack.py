"""The embedded CloudFormation: creates what this account offers, and records the rest by name.

Compute environments, queues and definitions come and go by the embedded Batch's own operations, buckets by the embedded
S3's; log groups and repositories are there for their services to find. Roles, networks, functions and rules
have no effect on this machine, and their reason says so. A change set holds every resource as it shall be, so executing
it is a comparison with what there is, in one transaction: a process that is killed leaves the old stack or the new one.

https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/
"""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ParamValidationError

from genokit.local import batch, client, shapes, store
from genokit.local.client import ACCOUNT, LOCAL, Caller, Operation
from genokit.local.s3 import calls
from genokit.local.s3.objects import Objects
from genokit.local.shapes import Refused
from genokit.local.stack_template import (
    BATCH,
    BUCKET,
    DEFINITION,
    QUEUE,
    Doc,
    Template,
    as_member,
    batch_names,
    identity,
    invalid,
    now,
    read,
    replaced,
    text,
)

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
NOTHING = "The submitted information didn't contain changes. Submit different information to create a change set."
UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
REAL = (*BATCH, BUCKET, "AWS::Logs::LogGroup")

# --- what comes and goes


@dataclass(frozen=True)
class _Within(Caller):
    """A caller inside a transaction that is open already, so that a whole stack comes or stays away."""

    db: sqlite3.Connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        yield self.db

    reading = writing

    def call(self, operation: str, one: Doc, **request: Any) -> Doc:
        """An operation of the embedded Batch, with a resource's properties where it makes or changes one."""
        model = shapes.operations("batch")[operation]
        if operation.startswith(("create_", "register_", "update_")) and "state" not in request:
            request = as_member(model.input_shape, one["properties"], operation.startswith("update_")) | request
        try:
            shapes.check_request(model, request)
        except ParamValidationError as error:
            raise self.refuse(f"Model validation failed: {' '.join(str(error).split())}") from None
        return batch.OPERATIONS[operation](dataclasses.replace(self, operation=model.name), request)


def _make(caller: _Within, new: Doc) -> None:
    """Create a resource. Raises Refused."""
    noun, reference = batch_names(new)
    name = new["physical"].rpartition("/")[2].partition(":")[0]
    if new["type"] == BUCKET:
        calls.create_bucket(Objects(caller.home), {"Bucket": new["physical"]})
    elif new["type"] == DEFINITION:
        answer = caller.call("register_job_definition", new, jobDefinitionName=name)
        new["physical"] = answer["jobDefinitionArn"]
    elif new["type"] in BATCH:
        row = caller.db.execute("select * from queues where name = ?", (name,)).fetchone()
        if new["type"] == QUEUE and row and json.loads(row["doc"])["computeEnvironmentOrder"] == ["this-machine"]:
            new["before"] = {key: row[key] for key in ("name", "priority", "doc")}
            _update(caller, new)
            new["reason"] = f"Took over the embedded account's own queue '{name}'"
        else:
            caller.call(f"create_{noun}", new, **{f"{reference}Name": name})


def _update(caller: _Within, new: Doc) -> None:
    """Change a queue or an environment in place. Raises Refused."""
    noun, reference = batch_names(new)
    caller.call(f"update_{noun}", new, **{reference: new["physical"]})
    if tags := {key: text(value) for key, value in new["properties"]["Tags"].items()}:
        caller.call("tag_resource", new, resourceArn=new["physical"], tags=tags)


def _realise(caller: _Within, new: Doc, before: Doc | None) -> None:
    if before is None or replaced(before, new):
        _make(caller, new)
    elif new["type"] == DEFINITION:
        _make(caller, new)
        caller.call("deregister_job_definition", new, jobDefinition=before["physical"])
    elif new["type"] in BATCH:
        new["before"] = before["before"]
        _update(caller, new)


def _remove(caller: _Within, one: Doc) -> None:
    """Delete a resource if it still exists. Raises Refused."""
    noun, reference = batch_names(one)
    if one["type"] == BUCKET and (objects := Objects(caller.home)).has(one["physical"]):
        calls.delete_bucket(objects, {"Bucket": one["physical"]})
    elif row := one["before"]:
        values = (row["priority"], row["doc"], row["name"])
        caller.db.execute("update queues set priority = ?, doc = ? where name = ?", values)
    elif one["type"] == DEFINITION:
        caller.call("deregister_job_definition", one, jobDefinition=one["physical"])
    elif one["type"] in BATCH and _described_in_batch(caller, one):
        caller.call(f"update_{noun}", one, **{reference: one["physical"], "state": "DISABLED"})
        caller.call(f"delete_{noun}", one, **{reference: one["physical"]})


def _described_in_batch(caller: _Within, one: Doc) -> list[Doc]:
    noun, reference = batch_names(one)
    found: list[Doc] = caller.call(f"describe_{noun}s", one, **{f"{reference}s": [one["physical"]]})[f"{reference}s"]
    return found


def _removed(caller: _Within, stack: Doc, one: Doc) -> bool:
    """Whether a resource could be deleted; one that could not stays in the stack, as on AWS."""
    if one["keep"]:
        _event(caller.db, stack, one, "DELETE_SKIPPED")
        return True
    caller.db.execute("savepoint removal")
    try:
        _remove(caller, one)
    except Refused as refusal:
        caller.db.execute("rollback to removal")
        one |= {"status": "DELETE_FAILED", "reason": str(refusal)}
        _event(caller.db, stack, one, one["status"], one["reason"])
        return False
    _event(caller.db, stack, one, "DELETE_COMPLETE")
    return True


# --- the service


def create_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Store what a stack would become; a new stack exists from now on, in REVIEW_IN_PROGRESS."""
    name, title, creates = request["StackName"], request["ChangeSetName"], request.get("ChangeSetType") == "CREATE"
    with caller.writing() as db:
        stack = _newest(db, name)
        if stack is None and not creates:
            raise invalid(f"Stack [{name}] does not exist")
        stack = stack or _new(name)
        if creates != (stack["status"] == "REVIEW_IN_PROGRESS") or not (creates or stack["status"] in UPDATABLE):
            raise invalid(f"Stack:{stack['id']} is in {stack['status']} state and can not be updated.")
        wanted: Doc = {
            "id": f"arn:aws:cloudformation:{LOCAL}:{ACCOUNT}:changeSet/{title}/{uuid.uuid4()}",
            "body": request.get("TemplateBody", ""),
            "tags": {one["Key"]: one["Value"] for one in request.get("Tags", [])},
            "parameters": {
                one["ParameterKey"]: stack["parameters"].get(one["ParameterKey"], "")
                if one.get("UsePreviousValue")
                else one.get("ParameterValue", "")
                for one in request.get("Parameters", [])
            },
        }
        template = Template(db, stack, wanted, _resources(db, stack))
        template.evaluate()
        wanted |= {"resources": list(template.resources.values()), "changes": template.changes()}
        wanted["same"] = not creates and not wanted["changes"] and all(
            wanted[key] == stack[key] for key in ("outputs", "tags")
        )  # fmt: skip
        stack["change_sets"][title] = wanted
        _save(db, stack)
    return {"Id": wanted["id"], "StackId": stack["id"]}


def describe_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The changes of a change set."""
    with caller.reading() as db:
        stack, wanted = _change_set(db, request)
    same = {"Status": "FAILED", "ExecutionStatus": "UNAVAILABLE", "StatusReason": NOTHING}
    return {
        "ChangeSetName": request["ChangeSetName"],
        "ChangeSetId": wanted["id"],
        "StackId": stack["id"],
        "StackName": stack["name"],
        "Changes": [{"Type": "Resource", "ResourceChange": change} for change in wanted["changes"]],
        **(same if wanted["same"] else {"Status": "CREATE_COMPLETE", "ExecutionStatus": "AVAILABLE"}),
    }


def delete_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Delete a change set, if it exists."""
    with caller.writing() as db:
        if stack := _newest(db, request["StackName"]):
            stack["change_sets"].pop(request["ChangeSetName"], None)
            _save(db, stack)
    return {}


def execute_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out a change set at once; a failure is rolled back, and its reason is in the events."""
    with caller.writing() as db:
        stack, wanted = _change_set(db, request)
        if wanted["same"]:
            raise caller.refuse("A change set that is FAILED cannot be executed", "InvalidChangeSetStatus")
        verb = "CREATE" if stack["status"] == "REVIEW_IN_PROGRESS" else "UPDATE"
        stack |= {f"{verb.lower()}d": now(), "change_sets": {}}  # they were made for a stack that is no more
        _status(db, stack, f"{verb}_IN_PROGRESS", "User Initiated")
        within, before, done = _Within(**vars(caller), db=db), _resources(db, stack), []
        db.execute("savepoint resources")
        try:
            for new in wanted["resources"]:
                old = before.get(new["logical"])
                if old is None or new["at"] != old["at"]:
                    done.append((new, "UPDATE" if old else "CREATE"))
                    new |= {"status": f"{done[-1][1]}_COMPLETE", "reason": ""}
                    if new["type"] not in REAL:
                        new["reason"] = f"Kept by name: the embedded account has no {new['type']}"
                    _realise(within, new, old)
        except Refused as refusal:
            db.execute("rollback to resources")
            for new, _ in done:
                if new["type"] == BUCKET and new["physical"] not in {one["physical"] for one in before.values()}:
                    Objects(caller.home).remove(new["physical"])
            _undone(db, stack, verb, done, str(refusal))
        else:
            for new, action in done:
                _event(db, stack, new, f"{action}_COMPLETE", new["reason"])
            made = {new["logical"]: new for new in wanted["resources"]}
            for old in reversed(before.values()):
                if old["logical"] not in made or replaced(old, made[old["logical"]]):
                    _removed(within, stack, old)
            stack |= {key: wanted[key] for key in ("body", "parameters", "tags", "outputs")}
            _keep(db, stack, made.values())
            _status(db, stack, f"{verb}_COMPLETE")
        _save(db, stack)
    return {}


def _undone(db: sqlite3.Connection, stack: Doc, verb: str, done: list[tuple[Doc, str]], reason: str) -> None:
    """Write the events of a deployment that was rolled back."""
    for new, action in done[:-1]:
        _event(db, stack, new, f"{action}_COMPLETE", new["reason"])
    failed, action = done[-1]
    _event(db, stack, failed, f"{action}_FAILED", reason)
    rollback = "ROLLBACK" if verb == "CREATE" else "UPDATE_ROLLBACK"
    words = f"The following resource(s) failed to {verb.lower()}: [{failed['logical']}]. "
    _status(db, stack, f"{rollback}_IN_PROGRESS", words)
    _status(db, stack, f"{rollback}_COMPLETE")


def delete_stack(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Delete a stack's resources, the last created first; DELETE_FAILED if one of them cannot be deleted."""
    with caller.writing() as db:
        stack = _newest(db, request["StackName"])
        if stack is None or stack["status"] == "DELETE_COMPLETE":
            return {}
        _status(db, stack, "DELETE_IN_PROGRESS", "User Initiated")
        within, made = _Within(**vars(caller), db=db), _resources(db, stack)
        left = [one for one in reversed(made.values()) if not _removed(within, stack, one)]
        _keep(db, stack, reversed(left))
        if left:
            names = ", ".join(one["logical"] for one in left)
            _status(db, stack, "DELETE_FAILED", f"The following resource(s) failed to delete: [{names}]. ")
        else:
            stack["deleted"] = now()
            _status(db, stack, "DELETE_COMPLETE")
        _save(db, stack)
    return {}


def describe_stacks(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """One stack, by its id even when it has been deleted; or all that are there."""
    with caller.reading() as db:
        if "StackName" in request:
            return {"Stacks": [_described(_stack(db, request["StackName"]))]}
        every = [store.loads(row, "doc") for row in db.execute("select doc from stacks order by rowid desc")]
    return {"Stacks": [_described(one) for one in every if one["status"] != "DELETE_COMPLETE"]}


def describe_stack_events(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """What happened to a stack and its resources, the newest first."""
    with caller.reading() as db:
        stack = _stack(db, request["StackName"])
        rows = db.execute("select * from stack_events where stack = ? order by seq desc", (stack["id"],)).fetchall()
    names = {"StackId": stack["id"], "StackName": stack["name"]}
    return {"StackEvents": [_stated({**store.loads(row, "doc"), **names, "EventId": str(row["seq"])}) for row in rows]}


def list_stack_resources(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The resources of a stack."""
    with caller.reading() as db:
        found = _resources(db, _stack(db, request["StackName"])).values()
    return {"StackResourceSummaries": [
        _stated({**identity(one), "ResourceStatus": one["status"], "ResourceStatusReason": one["reason"],
                 "LastUpdatedTimestamp": one["at"]})
        for one in found
    ]}  # fmt: skip


def list_images(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """ECR's images of a repository: none, because jobs here run without images."""
    name = request["repositoryName"]
    if name not in caller.stack_resources("AWS::ECR::Repository"):
        raise caller.refuse(f"The repository with name '{name}' does not exist", "RepositoryNotFoundException")
    return {}


OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation
    for operation in (
        create_change_set, describe_change_set, delete_change_set, execute_change_set, delete_stack, describe_stacks,
        describe_stack_events, list_stack_resources, list_images,
    )
}  # fmt: skip


def service(home: Path, job_environment: Mapping[str, str]) -> client.Service:
    """The CloudFormation and ECR of the account in ``home``."""
    return client.offer(OPERATIONS, home, job_environment)


# --- what is kept of stacks


def _new(name: str) -> Doc:
    if not NAME.fullmatch(name):
        raise invalid(f"Value '{name}' at 'stackName' must satisfy regular expression pattern: {NAME.pattern}")
    return {
        "id": f"arn:aws:cloudformation:{LOCAL}:{ACCOUNT}:stack/{name}/{uuid.uuid4()}", "name": name, "body": "",
        "status": "REVIEW_IN_PROGRESS", "reason": "", "created": now(), "parameters": {}, "tags": {}, "outputs": [],
        "change_sets": {},
    }  # fmt: skip


def _newest(db: sqlite3.Connection, reference: str) -> Doc | None:
    """The stack with this id, or the one with this name that has not been deleted."""
    rows = db.execute("select doc from stacks where ? in (id, name) order by rowid desc", (reference,))
    found: list[Doc] = [store.loads(row, "doc") for row in rows]
    return next((one for one in found if reference == one["id"] or one["status"] != "DELETE_COMPLETE"), None)


def _stack(db: sqlite3.Connection, reference: str) -> Doc:
    if (stack := _newest(db, reference)) is None:
        raise invalid(f"Stack with id {reference} does not exist")
    return stack


def _change_set(db: sqlite3.Connection, request: dict[str, Any]) -> tuple[Doc, Doc]:
    """A stack, and the change set of that name."""
    stack, title = _newest(db, request["StackName"]), request["ChangeSetName"]
    wanted = stack["change_sets"].get(title) if stack else None
    if stack is None or wanted is None or "resources" not in wanted:  # none, or one of an older version of the kit
        raise Refused(404, "ChangeSetNotFound", f"ChangeSet [{title}] does not exist")
    return stack, wanted


def _resources(db: sqlite3.Connection, stack: Doc) -> dict[str, Doc]:
    """The resources that a stack has now, each after those it needs."""
    rows = db.execute("select doc from stack_resources where stack = ? order by rowid", (stack["id"],))
    return {one["logical"]: one for one in (store.loads(row, "doc") for row in rows)}


def _keep(db: sqlite3.Connection, stack: Doc, made: Any) -> None:
    db.execute("delete from stack_resources where stack = ?", (stack["id"],))
    for one in made:
        row = (stack["id"], one["logical"], one["type"], one["physical"], json.dumps(one))
        db.execute("insert into stack_resources values (?, ?, ?, ?, ?)", row)


def _save(db: sqlite3.Connection, stack: Doc) -> None:
    row = (stack["id"], stack["name"], json.dumps(stack))
    db.execute("insert into stacks values (?, ?, ?) on conflict (id) do update set doc = excluded.doc", row)


def _status(db: sqlite3.Connection, stack: Doc, status: str, reason: str = "") -> None:
    stack |= {"status": status, "reason": reason}
    own = {"logical": stack["name"], "type": "AWS::CloudFormation::Stack", "physical": stack["id"]}
    _event(db, stack, own, status, reason)


def _event(db: sqlite3.Connection, stack: Doc, one: Doc, status: str, reason: str = "") -> None:
    doc = {**identity(one), "ResourceStatus": status, "ResourceStatusReason": reason, "Timestamp": now()}
    db.execute("insert into stack_events (stack, doc) values (?, ?)", (stack["id"], json.dumps(doc)))


def _described(stack: Doc) -> dict[str, Any]:
    declared = (read(stack["body"]).get("Parameters") or {}) if "NoEcho" in stack["body"] else {}
    secrets = {name: "****" for name, one in declared.items() if text(one.get("NoEcho")) == "true"}
    return _stated({
        "StackId": stack["id"], "StackName": stack["name"], "StackStatus": stack["status"],
        "StackStatusReason": stack["reason"], "CreationTime": stack["created"],
        "LastUpdatedTime": stack.get("updated"), "DeletionTime": stack.get("deleted"), "Outputs": stack["outputs"],
        "Parameters": [
            {"ParameterKey": key, "ParameterValue": secrets.get(key, one)} for key, one in stack["parameters"].items()
        ],
        "Tags": [{"Key": key, "Value": value} for key, value in stack["tags"].items()],
    })  # fmt: skip


def _stated(members: Doc) -> dict[str, Any]:
    """The members that have a value; times as datetimes."""
    times = ("Time", "Timestamp")
    said = {key: value for key, value in members.items() if value not in (None, "")}
    return {key: datetime.fromisoformat(one) if key.endswith(times) else one for key, one in said.items()}
