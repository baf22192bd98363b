"""What a stack's resources are in the embedded account: Batch's and S3's are real, the others are names.

AWS::Batch::* come and go by the embedded Batch's own operations, so what AWS Batch would refuse is refused here too.
Buckets are the embedded S3's. Log groups, SQS's queues and repositories are there for their services to find.
Everything else (roles, networks, functions, rules) has no effect on this machine, and its event says so.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ParamValidationError

from genokit.local import batch, shapes
from genokit.local.client import Caller
from genokit.local.s3 import calls
from genokit.local.s3.objects import Objects

ACCOUNT = "000000000000"
REGION = "local"


@dataclass(frozen=True)
class Within(Caller):
    """A caller inside a transaction that is open already, so that a whole stack comes or stays away."""

    db: sqlite3.Connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        yield self.db

    reading = writing

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """An operation of the embedded Batch. Raises Refused."""
        model = shapes.operations("batch")[operation]
        try:
            shapes.check_request(model, request)
        except ParamValidationError as error:
            raise self.refuse(f"Model validation failed: {' '.join(str(error).split())}") from None
        return batch.OPERATIONS[operation](self, request)


@dataclass
class Resource:
    """A resource of a stack: what the template asked for, and what came of it."""

    stack: str  # the stack's name
    logical: str
    type: str
    properties: dict[str, Any]
    physical: str = ""
    version: int = 1
    status: str = "CREATE_COMPLETE"
    reason: str = ""
    at: str = ""
    needs: list[str] | None = None
    keep: bool = False  # DeletionPolicy: Retain
    before: dict[str, Any] | None = None  # the account's own queue, as it was before the stack took it over

    @property
    def part(self) -> BatchPart | None:
        return BATCH.get(self.type)

    def attribute(self, name: str) -> str:
        """What GetAtt gives."""
        if name in ("LatestVersionNumber", "DefaultVersionNumber"):
            return str(self.version)
        if name == "RepositoryUri":
            return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{self.physical}"
        if name.endswith("DomainName"):
            return f"{self.physical}.s3.amazonaws.com"
        if name == "QueueName":
            return self.physical.rpartition("/")[2]
        if name.endswith("Arn") and not self.physical.startswith("arn:"):
            form = ARNS.get(self.type, f"arn:aws:{self.type.split('::')[1].lower()}:{{region}}:{{account}}:{{name}}")
            return form.format(name=self.physical.rpartition("/")[2], region=REGION, account=ACCOUNT)
        return self.physical


ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}:*",
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{name}",
    "AWS::IAM::InstanceProfile": "arn:aws:iam::{account}:instance-profile/{name}",
    "AWS::IAM::ManagedPolicy": "arn:aws:iam::{account}:policy/{name}",
    "AWS::Lambda::Function": "arn:aws:lambda:{region}:{account}:function:{name}",
    "AWS::ECR::Repository": "arn:aws:ecr:{region}:{account}:repository/{name}",
    "AWS::Events::Rule": "arn:aws:events:{region}:{account}:rule/{name}",
}
EC2 = {"VPC": "vpc", "Subnet": "subnet", "SecurityGroup": "sg", "LaunchTemplate": "lt", "InternetGateway": "igw",
       "RouteTable": "rtb", "VPCEndpoint": "vpce"}  # fmt: skip
NO_EFFECT = "Kept by name: the embedded account has no {type}"
REAL = ("AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::Logs::LogGroup")


# --- what a change means


def changed(old: Resource, new: Resource) -> list[str]:
    """The names of the properties that differ."""
    names = sorted({*old.properties, *new.properties})
    return [name for name in names if old.properties.get(name) != new.properties.get(name)]


def replaces(old: Resource, new: Resource, names: list[str]) -> list[str]:
    """Those of the changed properties that only a new resource can take."""
    part = old.part
    if part is None:
        return [name for name in names if name in (name_property(old.type), "Path")]
    if not part.updates:
        return [name for name in names if name == "JobDefinitionName"]
    members = {one.casefold() for one in _shape(f"update_{part.noun}").members} | {"tags", "replacecomputeenvironment"}
    fixed = [name for name in names if name.casefold() not in members]
    if "ComputeResources" in names and str(new.properties.get("ReplaceComputeEnvironment", True)).lower() != "false":
        before, after = (one.properties.get("ComputeResources", {}) for one in (old, new))
        scaled = {"MinvCpus", "MaxvCpus", "DesiredvCpus", "Subnets", "SecurityGroupIds"}
        if any(before.get(key) != after.get(key) for key in {*before, *after} - scaled):
            fixed.append("ComputeResources")
    return fixed


def names_itself(resource: Resource) -> bool:
    """Whether the template gives the resource's name, which then nothing else can bear."""
    part = resource.part
    return (part.cfn_name if part else name_property(resource.type)) in resource.properties


def name_property(kind: str) -> str:
    last = kind.rpartition("::")[2]
    named = ("AWS::Athena::WorkGroup", "AWS::Events::Rule", "AWS::Glue::Database")
    return "Name" if kind in named else "GroupName" if last == "SecurityGroup" else f"{last}Name"


# --- to make, to change, to remove


def make(caller: Within, resource: Resource, undo: list[Callable[[], object]]) -> None:
    """Bring the resource about; ``undo`` gets what takes files away again. Raises Refused."""
    if resource.part:
        _make_in_batch(caller, resource, resource.part)
        return
    resource.physical = _physical(resource)
    if resource.type == "AWS::S3::Bucket":
        _in_s3(caller, calls.create_bucket, resource)
        undo.append(lambda: _in_s3(caller, calls.delete_bucket, resource))
    elif resource.type in REAL and _taken(caller, resource):
        raise caller.refuse(f"{resource.physical} already exists", "AlreadyExists")
    if resource.type not in REAL:
        resource.reason = NO_EFFECT.format(type=resource.type)


def change(caller: Within, old: Resource, new: Resource, names: list[str]) -> None:
    """Change what can be changed in place. Raises Refused."""
    new.physical, new.version, new.before = old.physical, old.version + 1, old.before
    if new.part is None:
        new.reason = "" if new.type in REAL else NO_EFFECT.format(type=new.type)
        return
    part = new.part
    if not part.updates:
        _make_in_batch(caller, new, part)
        if not new.properties.get("ResourceRetentionPolicy", {}).get("SkipDeregisterOnUpdate"):
            caller.call("deregister_job_definition", {"jobDefinition": old.physical})
        return
    asked = _request(caller, new, part, f"update_{part.noun}")
    if any(name not in ("Tags", "ReplaceComputeEnvironment") for name in names):
        caller.call(f"update_{part.noun}", {**asked, part.reference: new.physical})
    if old.properties.get("Tags") != new.properties.get("Tags"):
        gone = sorted({*old.properties.get("Tags", {})} - {*new.properties.get("Tags", {})})
        if gone:
            caller.call("untag_resource", {"resourceArn": new.physical, "tagKeys": gone})
        caller.call("tag_resource", {"resourceArn": new.physical, "tags": _tags(new)})


def remove(caller: Within, resource: Resource) -> None:
    """Take the resource away; one that has gone already is gone. Raises Refused."""
    if resource.type == "AWS::S3::Bucket":
        if Objects(caller.home).has(resource.physical):
            _in_s3(caller, calls.delete_bucket, resource)
    elif resource.before:
        row = resource.before
        caller.db.execute(
            "update queues set priority = ?, doc = ? where name = ?", (row["priority"], row["doc"], row["name"])
        )
    elif resource.part:
        part = resource.part
        if not part.updates:
            caller.call("deregister_job_definition", {"jobDefinition": resource.physical})
        elif caller.db.execute(f"select 1 from {part.table} where name = ?", (_last(resource.physical),)).fetchone():
            if part.noun != "scheduling_policy":
                caller.call(f"update_{part.noun}", {part.reference: resource.physical, "state": "DISABLED"})
            caller.call(f"delete_{part.noun}", {part.reference: resource.physical})


def named(db: sqlite3.Connection, kind: str) -> list[str]:
    """The physical ids of all resources of a type, of all stacks: how a service finds what stacks made for it."""
    rows = db.execute("select physical from stack_resources where type = ? order by physical", (kind,))
    return [row["physical"] for row in rows]


def _in_s3(caller: Caller, operation: Callable[[Objects, dict[str, Any]], object], resource: Resource) -> None:
    try:
        operation(Objects(caller.home), {"Bucket": resource.physical})
    except shapes.Refused as refusal:
        raise caller.refuse(str(refusal), refusal.code) from None


def _taken(caller: Within, resource: Resource) -> bool:
    return resource.physical in named(caller.db, resource.type)


def _physical(resource: Resource) -> str:
    """The name that the template gives, else one that nobody else has."""
    seed = hashlib.sha256(f"{resource.stack}/{resource.logical}/{resource.at}".encode()).hexdigest()
    service, kind = resource.type.split("::")[1:3] if resource.type.count("::") > 1 else ("", resource.type)
    if service == "EC2" and kind in EC2:
        return f"{EC2[kind]}-{seed[:17]}"
    told = resource.properties.get("DatabaseInput", resource.properties)
    given = told.get(name_property(resource.type))
    name = str(given or f"{resource.stack}-{resource.logical}-{seed[:12].upper()}")
    if resource.type == "AWS::S3::Bucket":
        return name if given else name.lower()[:63]
    if resource.type == "AWS::SQS::Queue":
        return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{name}"
    return f"arn:aws:iam::{ACCOUNT}:policy/{name}" if resource.type == "AWS::IAM::ManagedPolicy" else name


# --- Batch


@dataclass(frozen=True)
class BatchPart:
    """One type of AWS::Batch in the words of Batch's own operations."""

    noun: str
    table: str
    name: str  # the member of the request that makes one
    reference: str  # the member of those that change or remove it
    cfn_name: str

    @property
    def updates(self) -> bool:
        """Whether one can be changed; of a definition there is a new revision instead."""
        return self.noun != "job_definition"


BATCH = {
    f"AWS::Batch::{kind}": BatchPart(*words)
    for kind, words in {
        "ComputeEnvironment": (
            "compute_environment", "environments", "computeEnvironmentName", "computeEnvironment",
            "ComputeEnvironmentName",
        ),
        "JobQueue": ("job_queue", "queues", "jobQueueName", "jobQueue", "JobQueueName"),
        "SchedulingPolicy": ("scheduling_policy", "policies", "name", "arn", "Name"),
        "JobDefinition": ("job_definition", "definitions", "jobDefinitionName", "jobDefinition", "JobDefinitionName"),
    }.items()
}  # fmt: skip
# What CloudFormation knows and Batch's operations do not.
CLOUDFORMATION_ONLY = {"replacecomputeenvironment", "updatepolicy", "resourceretentionpolicy"}


def _make_in_batch(caller: Within, resource: Resource, part: BatchPart) -> None:
    operation = _making(part)
    request = _request(caller, resource, part, operation)
    if part.noun == "job_queue":
        row = caller.db.execute("select * from queues where name = ?", (request["jobQueueName"],)).fetchone()
        if row and json.loads(row["doc"])["computeEnvironmentOrder"] == ["this-machine"]:
            _adopt(caller, resource, dict(row), request)
            return
    answer = caller.call(operation, request)
    resource.physical = next(str(value) for key, value in answer.items() if key.casefold().endswith("arn"))


def _adopt(caller: Within, resource: Resource, row: dict[str, Any], request: dict[str, Any]) -> None:
    """Take over a queue that the account began with, which on AWS would not be there yet."""
    resource.before = {key: row[key] for key in ("name", "priority", "doc")}
    members = _shape("update_job_queue").members
    asked = {key: value for key, value in request.items() if key in members}
    answer = caller.call("update_job_queue", {"jobQueue": row["name"], **asked})
    resource.physical = answer["jobQueueArn"]
    if request.get("tags"):
        caller.call("tag_resource", {"resourceArn": resource.physical, "tags": request["tags"]})
    resource.reason = f"Took over the embedded account's own queue '{row['name']}'"


def _request(caller: Within, resource: Resource, part: BatchPart, operation: str) -> dict[str, Any]:
    """The properties as the request of one of Batch's operations."""
    shape, making = _shape(operation), _making(part)
    other = _shape(f"update_{part.noun}" if operation == making else making) if part.updates else None
    told = {key: one for key, one in resource.properties.items() if key.casefold() not in CLOUDFORMATION_ONLY}
    asked: dict[str, Any] = as_member(caller, shape, other, told, "")
    if operation == making:
        asked.setdefault(part.name, _physical(resource))
    return asked


def _making(part: BatchPart) -> str:
    return f"create_{part.noun}" if part.updates else f"register_{part.noun}"


def _tags(resource: Resource) -> dict[str, str]:
    return {key: str(value) for key, value in resource.properties.get("Tags", {}).items()}


def _shape(operation: str) -> Any:
    return shapes.operations("batch")[operation].input_shape


def _last(arn: str) -> str:
    return arn.rpartition("/")[2]


def as_member(caller: Caller, shape: Any, other: Any, value: Any, where: str) -> Any:
    """A property, whose names begin with capitals, as the API's own member: by AWS's model, not by a list of names.

    What only the ``other`` operation takes (there is one to make a thing and one to change it) is left out. Keys of
    maps (tags, parameters, options of a log) are nobody's names and stay as they are.
    """
    wrong = caller.refuse(f"Properties validation failed: #{where or '/'}: expected type: {shape.type_name}")
    match shape.type_name:
        case "structure":
            if not isinstance(value, dict):
                raise wrong
            members = {name.casefold(): name for name in shape.members}
            others = {name.casefold(): member for name, member in (other.members.items() if other else ())}
            if extra := [key for key in value if key.casefold() not in {*members, *others}]:
                raise caller.refuse(
                    f"Properties validation failed: #{where}: extraneous key [{extra[0]}] is not permitted"
                )
            taken = [(members[key.casefold()], key) for key in value if key.casefold() in members]
            return {
                name: as_member(caller, shape.members[name], others.get(key.casefold()), value[key], f"{where}/{key}")
                for name, key in taken
            }
        case "list":
            if not isinstance(value, list):
                raise wrong
            inner = other.member if other else None
            return [as_member(caller, shape.member, inner, one, f"{where}/{i}") for i, one in enumerate(value)]
        case "map":
            if not isinstance(value, dict):
                raise wrong
            return {str(key): as_member(caller, shape.value, None, one, f"{where}/{key}") for key, one in value.items()}
    if isinstance(value, (dict, list)):
        raise wrong
    try:
        return SCALARS[shape.type_name](value)
    except (KeyError, ValueError):
        raise wrong from None


SCALARS: dict[str, Callable[[Any], Any]] = {
    "integer": lambda value: int(str(value)),
    "long": lambda value: int(str(value)),
    "float": float,
    "double": float,
    "boolean": lambda value: {"true": True, "false": False}[str(value).lower()],
    "string": lambda value: str(value).lower() if isinstance(value, bool) else str(value),
}
