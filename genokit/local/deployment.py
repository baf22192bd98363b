"""What becomes of a stack's resources when it is made, changed or removed, and the events that tell of it.

All of it happens inside one transaction: whoever is killed leaves the old stack or the new one.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from genokit.local import provisions, store
from genokit.local.provisions import ACCOUNT, REGION, Resource, Within
from genokit.local.shapes import Refused
from genokit.local.template import LATER, Scope, TemplateError, read


class Work:
    """One operation on one stack: what it does to the resources, and the events that tell of it."""

    def __init__(self, caller: Within, stack: dict[str, Any], token: str) -> None:
        self.caller = caller
        self.db = caller.db
        self.stack = stack
        self.token = token
        self.resources = resources_of(self.db, stack)

    def execute(self, wanted: dict[str, Any]) -> None:
        verb = "CREATE" if self.stack["status"] == "REVIEW_IN_PROGRESS" else "UPDATE"
        self.stack[verb.lower() + "d"] = now()
        self.status(f"{verb}_IN_PROGRESS", "User Initiated")
        undo: list[Callable[[], object]] = []
        told: list[tuple[Resource, str, str]] = []
        before = self.resources
        self.db.execute("savepoint resources")
        try:
            scope = scope_of(self.stack, wanted, read(wanted["body"]))
            old = self.realise(scope, wanted["tags"], undo, told)
            outputs = scope.outputs()
        except (Refused, TemplateError) as error:
            self.db.execute("rollback to resources")
            for action in reversed(undo):
                action()
            self.resources = before
            self.rolled_back(verb, told, _words(error))
            return
        for resource, status, reason in told:
            self.event(resource, status, reason)
        self.clean(old)
        self.stack.update(body=wanted["body"], parameters=wanted["parameters"], tags=wanted["tags"], outputs=outputs)
        self.stack["description"] = read(wanted["body"]).get("Description", "")
        self.keep()
        self.status(f"{verb}_COMPLETE", "")

    def realise(
        self, scope: Scope, tags: dict[str, str], undo: list[Any], told: list[tuple[Resource, str, str]]
    ) -> list[Resource]:
        """Make and change what the template asks for; returns what it asks for no more."""
        left, surplus = dict(self.resources), []
        self.resources = {}  # from here on in the new order
        for logical, needs in scope.order():
            old = left.pop(logical, None)
            new = _wanted(self.stack, scope, logical, needs, tags)
            names = provisions.changed(old, new) if old else []
            if old and not names:
                old.needs, old.keep = new.needs, new.keep
                new = old
            elif old and not provisions.replaces(old, new, names):
                told.append((old, "UPDATE_IN_PROGRESS", ""))
                provisions.change(self.caller, old, new, names)
                told.append((new, "UPDATE_COMPLETE", new.reason))
                new.status = "UPDATE_COMPLETE"
            else:
                verb = "UPDATE" if old else "CREATE"
                why = "Requested update requires the creation of a new physical resource; hence creating one."
                told.append((new, f"{verb}_IN_PROGRESS", why if old else ""))
                if old and provisions.names_itself(old) and not _renamed(old, new):
                    raise self.caller.refuse(
                        "CloudFormation cannot update a stack when a custom-named resource requires replacing. "
                        f"Rename {old.physical} and update the stack again."
                    )
                provisions.make(self.caller, new, undo)
                told.append((new, f"{verb}_COMPLETE", new.reason))
                surplus += [old] if old else []
            self.resources[logical] = new
            scope.made[logical] = (new.physical, new.attribute)
        return [*surplus, *left.values()]

    def rolled_back(self, verb: str, told: list[tuple[Resource, str, str]], reason: str) -> None:
        for resource, status, words in told:
            self.event(resource, status, words)
        if told and told[-1][1].endswith("_IN_PROGRESS"):
            self.event(told[-1][0], f"{verb}_FAILED", reason)
        failed = f"The following resource(s) failed to {verb.lower()}: [{told[-1][0].logical}]. " if told else reason
        rollback = "ROLLBACK" if verb == "CREATE" else "UPDATE_ROLLBACK"
        self.status(f"{rollback}_IN_PROGRESS", failed)
        undone = "DELETE_COMPLETE" if verb == "CREATE" else "UPDATE_COMPLETE"
        for resource, status, _ in reversed(told):
            if status.endswith("_COMPLETE"):
                self.event(resource, undone, "")
        self.status(f"{rollback}_COMPLETE", "")

    def clean(self, surplus: list[Resource]) -> None:
        """Remove what the new template has no place for; what cannot be removed stays behind, as with AWS."""
        if surplus:
            self.status("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "")
        for resource in reversed(surplus):
            self.removed(resource)

    def delete(self, retained: list[str]) -> None:
        self.status("DELETE_IN_PROGRESS", "User Initiated")
        left: list[str] = []
        for logical, resource in reversed(list(self.resources.items())):
            needed = [one for one in left if logical in (self.resources[one].needs or [])]
            if needed or (logical not in retained and not self.removed(resource)):
                left.append(logical)
        self.resources = {logical: one for logical, one in self.resources.items() if logical in left}
        self.keep()
        if left:
            names = ", ".join(logical for logical in left if self.resources[logical].status == "DELETE_FAILED")
            self.status("DELETE_FAILED", f"The following resource(s) failed to delete: [{names}]. ")
        else:
            self.stack["deleted"] = now()
            self.status("DELETE_COMPLETE", "")

    def removed(self, resource: Resource) -> bool:
        if resource.keep:
            self.event(resource, "DELETE_SKIPPED", "")
            return True
        self.event(resource, "DELETE_IN_PROGRESS", "")
        self.db.execute("savepoint removal")
        try:
            provisions.remove(self.caller, resource)
        except Refused as error:
            self.db.execute("rollback to removal")
            resource.status, resource.reason = "DELETE_FAILED", _words(error)
            self.event(resource, resource.status, resource.reason)
            return False
        self.event(resource, "DELETE_COMPLETE", "")
        return True

    # --- what is written down

    def status(self, status: str, reason: str) -> None:
        self.stack["status"], self.stack["reason"] = status, reason
        self.write(self.stack["name"], self.stack["id"], "AWS::CloudFormation::Stack", status, reason)

    def event(self, resource: Resource, status: str, reason: str) -> None:
        self.write(resource.logical, resource.physical, resource.type, status, reason)

    def write(self, logical: str, physical: str, kind: str, status: str, reason: str) -> None:
        doc = {
            "LogicalResourceId": logical,
            "PhysicalResourceId": physical,
            "ResourceType": kind,
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
            "Timestamp": now(),
            "ClientRequestToken": self.token,
        }
        self.db.execute("insert into stack_events (stack, doc) values (?, ?)", (self.stack["id"], json.dumps(doc)))

    def keep(self) -> None:
        """The resources, in the order in which they need one another."""
        self.db.execute("delete from stack_resources where stack = ?", (self.stack["id"],))
        for one in self.resources.values():
            doc = json.dumps(dataclasses.asdict(one))
            row = (self.stack["id"], one.logical, one.type, one.physical, doc)
            self.db.execute("insert into stack_resources values (?, ?, ?, ?, ?)", row)


def _wanted(stack: dict[str, Any], scope: Scope, logical: str, needs: list[str], tags: dict[str, str]) -> Resource:
    """A resource as the template asks for it now; a stack's tags are its resources' tags."""
    told = scope.template["Resources"][logical]
    given = told.get("Properties")
    properties = scope.value({} if given is None else given)
    if not isinstance(properties, dict):
        raise TemplateError(f"Template format error: [/Resources/{logical}/Properties] must be an object")
    if told["Type"] in provisions.BATCH and isinstance(properties.get("Tags", {}), dict):
        properties["Tags"] = {**tags, **properties.get("Tags", {})}
    keep = told.get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate")
    return Resource(stack["name"], logical, told["Type"], properties, at=now(), needs=needs, keep=keep)


def _renamed(old: Resource, new: Resource) -> bool:
    part = old.part
    name = part.cfn_name if part else provisions.name_property(old.type)
    return bool(old.properties.get(name) != new.properties.get(name))


def changes(
    stack: dict[str, Any], scope: Scope, old: dict[str, Resource], tags: dict[str, str]
) -> list[dict[str, Any]]:
    """What executing would do, resource by resource, as DescribeChangeSet tells it."""
    changes: list[dict[str, Any]] = []
    left = dict(old)
    for logical, needs in scope.order():
        before = left.pop(logical, None)
        new = _wanted(stack, scope, logical, needs, tags)
        told = {"LogicalResourceId": logical, "ResourceType": new.type}
        if before is None:
            changes.append({"Action": "Add", **told, "Scope": [], "Details": []})
            scope.later(logical)
            continue
        if before.type != new.type:
            raise TemplateError(
                "Update of resource type is not permitted. The new template modifies resource type of the following "
                f"resources: [{logical}]"
            )
        names = provisions.changed(before, new)
        fixed = provisions.replaces(before, new, names)
        if names:
            uncertain = all(LATER in json.dumps(new.properties.get(name)) for name in fixed)
            replacement = "False" if not fixed else "Conditional" if uncertain else "True"
            details = [_detail(name, fixed, new) for name in names]
            told |= {"PhysicalResourceId": before.physical, "Replacement": replacement}
            changes.append({"Action": "Modify", **told, "Scope": ["Properties"], "Details": details})
        if fixed or (names and new.type in ("AWS::Batch::JobDefinition", "AWS::EC2::LaunchTemplate")):
            scope.later(logical)
        else:
            scope.made[logical] = (before.physical, before.attribute)
    changes += [
        {
            "Action": "Remove",
            "PolicyAction": "Retain" if one.keep else "Delete",
            "LogicalResourceId": one.logical,
            "PhysicalResourceId": one.physical,
            "ResourceType": one.type,
            "Scope": [],
            "Details": [],
        }
        for one in left.values()
    ]
    return changes


def _detail(name: str, fixed: list[str], new: Resource) -> dict[str, Any]:
    later = LATER in json.dumps(new.properties.get(name))
    target = {"Attribute": "Properties", "Name": name, "RequiresRecreation": "Always" if name in fixed else "Never"}
    return {"Target": target, "Evaluation": "Dynamic" if later else "Static", "ChangeSource": "DirectModification"}


def scope_of(stack: dict[str, Any], wanted: dict[str, Any], template: dict[str, Any]) -> Scope:
    pseudo = {
        "AWS::AccountId": ACCOUNT,
        "AWS::NotificationARNs": [],
        "AWS::Partition": "aws",
        "AWS::Region": REGION,
        "AWS::StackId": stack["id"],
        "AWS::StackName": stack["name"],
        "AWS::URLSuffix": "amazonaws.com",
    }
    return Scope(template, wanted["parameters"], pseudo)


def resources_of(db: sqlite3.Connection, stack: dict[str, Any]) -> dict[str, Resource]:
    rows = db.execute("select doc from stack_resources where stack = ? order by rowid", (stack["id"],))
    found = [Resource(**store.loads(row, "doc")) for row in rows]
    return {one.logical: one for one in found}


def _words(error: Exception) -> str:
    return str(error)


def now() -> str:
    return datetime.now(UTC).isoformat()
