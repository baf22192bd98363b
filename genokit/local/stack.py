"""The embedded CloudFormation: creates what this account offers, and records the rest by name.

Compute environments, queues and definitions come and go by the embedded Batch's own operations, buckets by the embedded
S3's; log groups are there for their service to find. Roles, networks, functions and rules have no effect on this
machine, and their reason says so. A change set is a template that waits: what it would change is a comparison with what
there is, and executing it is one transaction, of which all happens or nothing.

https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/
"""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ParamValidationError

from genokit.local import batch, client, shapes, store
from genokit.local.batch.definitions import ARN, arn
from genokit.local.client import ACCOUNT, LOCAL, Caller
from genokit.local.s3 import calls
from genokit.local.s3.objects import Objects
from genokit.local.shapes import Refused
from genokit.local.stack_template import Doc, Template, invalid

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
NOTHING = "The submitted information didn't contain changes. Submit different information to create a change set."
UNDONE = {"CREATE": "ROLLBACK_COMPLETE", "UPDATE": "UPDATE_ROLLBACK_COMPLETE", "DELETE": "DELETE_FAILED"}
BUCKET, DEFINITION, QUEUE = "AWS::S3::Bucket", "AWS::Batch::JobDefinition", "AWS::Batch::JobQueue"
# The table in which the embedded Batch keeps such things, and their kind in its operations and their members.
KINDS = {
    QUEUE: ("queues", "job_queue", "jobQueue"),
    "AWS::Batch::ComputeEnvironment": ("environments", "compute_environment", "computeEnvironment"),
}
REAL = (*KINDS, DEFINITION, BUCKET, "AWS::Logs::LogGroup")
# Properties that say how to update, and are no member of a request that creates the thing.
OF_UPDATES = ("ReplaceComputeEnvironment", "UpdatePolicy", "UpdateToLatestImageVersion")

# --- what comes and goes


@dataclass(frozen=True)
class _Within(Caller):
    """A caller inside a transaction that is open already; ``undo`` takes back what no transaction does: buckets."""

    db: sqlite3.Connection
    undo: ExitStack

    @contextmanager
    def writing(self, *, concerns_jobs: bool = True) -> Iterator[sqlite3.Connection]:
        yield self.db

    def call(self, operation: str, request: Doc) -> None:
        """An operation of the embedded Batch."""
        model = shapes.operations("batch")[operation]
        request = _member(model.input_shape, request)
        try:
            shapes.check_request(model, request)
        except ParamValidationError as error:
            raise self.refuse(f"Model validation failed: {' '.join(str(error).split())}") from None
        batch.OPERATIONS[operation](dataclasses.replace(self, operation=model.name), request)


def _member(shape: Any, value: Any) -> Any:
    """A CloudFormation property as a member of the API's request; what the API does not know, it will refuse."""
    match shape.type_name, value:
        case "structure", dict():
            names = {name.casefold(): name for name in shape.members}
            named = {names.get(key.casefold(), key): one for key, one in value.items() if key not in OF_UPDATES}
            return {key: _member(shape.members.get(key, shape), one) for key, one in named.items()}
        case "list", list():
            return [_member(shape.member, one) for one in value]
        case "map", dict():
            return {key: _member(shape.value, one) for key, one in value.items()}
        case "boolean", "true" | "false":
            return value == "true"
        case "integer" | "long", str() if re.fullmatch(r"-?\d+", value):
            return int(value)
    return value


def _create(caller: _Within, new: Doc, old: Doc | None) -> None:
    """Create a resource, in the place of the stack's old one of the same name. Raises Refused.

    The account's own queues, such as highPriority, are taken over, and put back when the resource is deleted.
    """
    name = _last(new["physical"])
    if new["type"] == BUCKET and old is None:
        objects = Objects(caller.home)
        objects.remove(name)  # an empty one: a creation that was killed leaves it, and its stack knows nothing of it
        calls.create_bucket(objects, {"Bucket": name})
        caller.undo.callback(objects.remove, name)
    elif new["type"] == DEFINITION:
        caller.call("register_job_definition", {**new["properties"], "jobDefinitionName": name})
    elif new["type"] in KINDS:
        table, noun, member = KINDS[new["type"]]
        row = caller.db.execute(f"select * from {table} where name = ?", (name,)).fetchone()
        if old:
            new["before"] = old["before"]
        elif row and new["type"] == QUEUE and store.loads(row, "doc")["computeEnvironmentOrder"] == ["this-machine"]:
            new |= {"before": dict(row), "reason": f"Took over the embedded account's own queue '{name}'"}
        if old or new["before"]:
            caller.db.execute(f"delete from {table} where name = ?", (name,))
        caller.call(f"create_{noun}", {**new["properties"], f"{member}Name": name})


def _delete(caller: _Within, old: Doc) -> None:
    """Delete a resource if it still exists. Raises Refused."""
    name = _last(old["physical"])
    if old["type"] == BUCKET and (objects := Objects(caller.home)).has(name):
        calls.delete_bucket(objects, {"Bucket": name})
        caller.undo.callback(objects.create, name)
    elif old["type"] == DEFINITION:
        caller.call("deregister_job_definition", {"jobDefinition": old["physical"]})
    elif old["type"] in KINDS:
        table, noun, member = KINDS[old["type"]]
        if caller.db.execute(f"select name from {table} where name = ?", (name,)).fetchone():
            caller.call(f"update_{noun}", {member: name, "state": "DISABLED"})
            caller.call(f"delete_{noun}", {member: name})
        if own := old["before"]:
            caller.db.execute("insert into queues values (:name, :priority, :doc)", own)


def _become(caller: Caller, db: sqlite3.Connection, stack: Doc, verb: str, wanted: dict[str, Doc]) -> bool:
    """Whether the change succeeded. If not, it was rolled back, and the events give the reason."""
    before, kept = _resources(db, stack), [(one["type"], one["physical"]) for one in wanted.values()]
    steps = [(new, new["status"].partition("_")[0]) for key, new in wanted.items() if new != before.get(key)]
    steps += [(old, "DELETE") for old in reversed(before.values()) if (old["type"], old["physical"]) not in kept]
    _status(db, stack, f"{verb}_IN_PROGRESS", "User Initiated")
    db.execute("savepoint resources")
    with ExitStack() as undo:
        within = _Within(**vars(caller), db=db, undo=undo)
        for one, action in steps:
            old = before.get(one["logical"])
            try:
                if action == "DELETE":
                    _delete(within, one)
                else:
                    _create(within, one, old if old and old["physical"] == one["physical"] else None)
            except Refused as refusal:
                db.execute("rollback to resources")
                _event(db, stack, one, f"{action}_FAILED", str(refusal))
                _status(db, stack, UNDONE[verb], f"The following resource(s) failed: [{one['logical']}]. ")
                return False
            _event(db, stack, one, f"{action}_COMPLETE", one["reason"])
        undo.pop_all()
    db.execute("delete from stack_resources where stack = ?", (stack["id"],))
    for one in wanted.values():
        row = (stack["id"], one["logical"], one["type"], one["physical"], json.dumps(one))
        db.execute("insert into stack_resources values (?, ?, ?, ?, ?)", row)
    _status(db, stack, f"{verb}_COMPLETE")
    return True


def _last(physical: str) -> str:
    """The name in an ARN."""
    return physical.rpartition("/")[2].partition(":")[0]


# --- the service


def create_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Keep what a stack is to become, one change set at a time; a new stack is in REVIEW_IN_PROGRESS from now on."""
    name, title, creates = request["StackName"], request["ChangeSetName"], request.get("ChangeSetType") == "CREATE"
    with caller.writing() as db:
        stack = _new(name) if creates and not _newest(db, name) else _stack(db, name)
        if creates != (stack["status"] == "REVIEW_IN_PROGRESS"):
            raise invalid(f"Stack:{stack['id']} is in {stack['status']} state and can not be updated.")
        given = {one["ParameterKey"]: one.get("ParameterValue") for one in request.get("Parameters", [])}
        parameters = {key: stack["parameters"].get(key, "") if one is None else one for key, one in given.items()}
        tags = {one["Key"]: one["Value"] for one in request.get("Tags", [])}
        stack["pending"] = {"title": title, "body": request["TemplateBody"], "parameters": parameters, "tags": tags}
        _evaluated(db, stack)
        _save(db, stack)
    return {"Id": f"arn:aws:cloudformation:{LOCAL}:{ACCOUNT}:changeSet/{title}", "StackId": stack["id"]}


def describe_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The changes of a change set."""
    with caller.reading() as db:
        stack = _pending(db, request)
        template, before = _evaluated(db, stack), _resources(db, stack)
    changes = _changes(before, template.resources)
    news = changes or [template.outputs, stack["pending"]["tags"]] != [stack["outputs"], stack["tags"]]
    status = {"Status": "FAILED", "ExecutionStatus": "UNAVAILABLE", "StatusReason": NOTHING}
    if news or stack["status"] == "REVIEW_IN_PROGRESS":
        status = {"Status": "CREATE_COMPLETE", "ExecutionStatus": "AVAILABLE"}
    return {"StackId": stack["id"], "StackName": stack["name"], **status, "Changes": changes}


def delete_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Delete a change set, if it exists."""
    with caller.writing() as db, suppress(Refused):
        _save(db, _pending(db, request) | {"pending": None})
    return {}


def execute_change_set(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out a change set at once; a failure is rolled back, and its reason is in the events."""
    with caller.writing() as db:
        stack = _pending(db, request)
        template, tags = _evaluated(db, stack), stack["pending"]["tags"]
        verb = "CREATE" if stack["status"] == "REVIEW_IN_PROGRESS" else "UPDATE"
        stack |= {f"{verb.lower()}d": _now(), "pending": None}
        if _become(caller, db, stack, verb, template.resources):
            stack |= {"parameters": template.parameters, "outputs": template.outputs, "tags": tags}
        _save(db, stack)
    return {}


def delete_stack(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """Delete a stack and its resources, the last created first; DELETE_FAILED if one of them cannot be deleted."""
    with caller.writing() as db:
        stack = _newest(db, request["StackName"])
        if stack and stack["status"] != "DELETE_COMPLETE":
            _become(caller, db, stack, "DELETE", {})
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
        _stated({**_stating(one, one["status"], one["reason"]), "LastUpdatedTimestamp": one["at"]}) for one in found
    ]}  # fmt: skip


def service(home: Path, job_environment: Mapping[str, str]) -> client.Service:
    """The CloudFormation of the account in ``home``."""
    operations = (
        create_change_set, describe_change_set, delete_change_set, execute_change_set, delete_stack, describe_stacks,
        describe_stack_events, list_stack_resources,
    )  # fmt: skip
    return client.offer({one.__name__: one for one in operations}, home, job_environment)


# --- what a change set comes to


def _evaluated(db: sqlite3.Connection, stack: Doc) -> Template:
    """The pending template. What would not change has the record that there is; what would has a new one."""
    before, pending = _resources(db, stack), stack["pending"]

    def record(new: Doc) -> Doc:
        old = before.get(new["logical"])
        if new["type"] in (*KINDS, DEFINITION):
            new["properties"]["Tags"] = {**pending["tags"], **new["properties"].get("Tags", {})}
        if old and (old["type"], old["properties"]) == (new["type"], new["properties"]):
            return old
        reason = "" if new["type"] in REAL else f"Kept by name: the embedded account has no {new['type']}"
        status = "UPDATE_COMPLETE" if old else "CREATE_COMPLETE"
        physical = _physical(db, stack, new, old)
        return {**new, "physical": physical, "at": _now(), "before": None, "status": status, "reason": reason}

    return Template(pending["body"], pending["parameters"], stack["name"], record)


def _physical(db: sqlite3.Connection, stack: Doc, new: Doc, old: Doc | None) -> str:
    """The name that the template gives, that of the old resource, or one of the stack's own."""
    kind, properties = new["type"].rpartition("::")[2], new["properties"].get("DatabaseInput", new["properties"])
    name = properties.get(f"{kind}Name", properties.get("Name"))
    if name is None and old and old["type"] == new["type"] != DEFINITION:
        return str(old["physical"])
    name = str(name or f"{stack['name']}-{new['logical']}")
    if new["type"] == DEFINITION:
        latest = "select coalesce(max(revision), 0) from definitions where name = ?"
        return arn(name, db.execute(latest, (name,)).fetchone()[0] + 1)
    if new["type"] in KINDS:
        return f"{ARN}:{KINDS[new['type']][1].replace('_', '-')}/{name}"
    return name.lower()[:63] if new["type"] == BUCKET else name


def _changes(before: dict[str, Doc], wanted: dict[str, Doc]) -> list[Doc]:
    """The changes, as DescribeChangeSet lists them."""
    found = []
    for logical, new in wanted.items():
        old = before.get(logical)
        if old is None:
            found.append({"Action": "Add", **_identity(new)})
        elif new != old:
            both = (old["properties"], new["properties"])
            names = sorted(key for key in {*both[0], *both[1]} if both[0].get(key) != both[1].get(key))
            details = [{"Target": {"Attribute": "Properties", "Name": name}} for name in names]
            replaced = new["physical"] != old["physical"] and not new["type"] == old["type"] == DEFINITION
            found.append({**_identity(new), "Action": "Modify", "Replacement": str(replaced), "Details": details})
    found += [{"Action": "Remove", **_identity(old)} for logical, old in before.items() if logical not in wanted]
    return [{"Type": "Resource", "ResourceChange": one} for one in found]


# --- what is kept of stacks


def _new(name: str) -> Doc:
    if not NAME.fullmatch(name):
        raise invalid(f"Value '{name}' at 'stackName' must satisfy regular expression pattern: {NAME.pattern}")
    return {
        "id": f"arn:aws:cloudformation:{LOCAL}:{ACCOUNT}:stack/{name}/{uuid.uuid4()}", "name": name,
        "status": "REVIEW_IN_PROGRESS", "created": _now(), "parameters": {}, "tags": {}, "outputs": [],
    }  # fmt: skip


def _newest(db: sqlite3.Connection, reference: str) -> Doc | None:
    """The stack with this id, or the one with this name that has not been deleted."""
    rows = db.execute("select doc from stacks where ? in (id, name) order by rowid desc", (reference,))
    found: list[Doc] = [store.loads(row, "doc") for row in rows]
    return next((one for one in found if reference == one["id"] or one["status"] != "DELETE_COMPLETE"), None)


def _stack(db: sqlite3.Connection, reference: str) -> Doc:
    if (stack := _newest(db, reference)) is None:
        raise invalid(f"Stack [{reference}] does not exist")
    return stack


def _pending(db: sqlite3.Connection, request: dict[str, Any]) -> Doc:
    """The stack whose pending change set is the one of that name."""
    stack, title = _newest(db, request["StackName"]), request["ChangeSetName"]
    if stack is None or (stack.get("pending") or {}).get("title") != title:
        raise Refused(404, "ChangeSetNotFound", f"ChangeSet [{title}] does not exist")
    return stack


def _resources(db: sqlite3.Connection, stack: Doc) -> dict[str, Doc]:
    """The resources that a stack has now, each after those it needs."""
    rows = db.execute("select doc from stack_resources where stack = ? order by rowid", (stack["id"],))
    return {one["logical"]: one for one in (store.loads(row, "doc") for row in rows)}


def _save(db: sqlite3.Connection, stack: Doc) -> None:
    row = (stack["id"], stack["name"], json.dumps(stack))
    db.execute("insert into stacks values (?, ?, ?) on conflict (id) do update set doc = excluded.doc", row)


def _status(db: sqlite3.Connection, stack: Doc, status: str, reason: str = "") -> None:
    stack |= {"status": status, "reason": reason}
    own = {"logical": stack["name"], "type": "AWS::CloudFormation::Stack", "physical": stack["id"]}
    _event(db, stack, own, status, reason)


def _event(db: sqlite3.Connection, stack: Doc, one: Doc, status: str, reason: str) -> None:
    doc = {**_stating(one, status, reason), "Timestamp": _now()}
    db.execute("insert into stack_events (stack, doc) values (?, ?)", (stack["id"], json.dumps(doc)))


def _identity(one: Doc) -> Doc:
    return {"LogicalResourceId": one["logical"], "ResourceType": one["type"], "PhysicalResourceId": one["physical"]}


def _stating(one: Doc, status: str, reason: str) -> Doc:
    return {**_identity(one), "ResourceStatus": status, "ResourceStatusReason": reason}


def _described(stack: Doc) -> dict[str, Any]:
    return _stated({
        "StackId": stack["id"], "StackName": stack["name"], "StackStatus": stack["status"],
        "StackStatusReason": stack.get("reason"), "CreationTime": stack["created"],
        "LastUpdatedTime": stack.get("updated"), "Outputs": stack["outputs"],
        "Parameters": [{"ParameterKey": key, "ParameterValue": one} for key, one in stack["parameters"].items()],
    })  # fmt: skip


def _stated(members: Doc) -> dict[str, Any]:
    """The members that have a value; times as datetimes."""
    times = ("Time", "Timestamp")
    said = {key: value for key, value in members.items() if value not in (None, "")}
    return {key: datetime.fromisoformat(one) if key.endswith(times) else one for key, one in said.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat()
