"""Job queues and compute environments: where jobs wait, and where they run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch.requirements import Capacity
from genokit.display import Html, card, plain, table
from genokit.errors import NotFound, did_you_mean, renamed

GONE = ("INVALID", "DELETING", "DELETED")  # statuses in which nothing starts any more
FARGATE = ("FARGATE", "FARGATE_SPOT")


@dataclass(frozen=True)
class ComputeEnvironment:
    """Where jobs run, as the service describes it.

    Attributes
    ----------
    name, arn
        Its name and its ARN.
    type
        EC2, SPOT, FARGATE, FARGATE_SPOT, ECS_MANAGED_INSTANCES, or UNMANAGED.
    state, status, reason
        ENABLED or DISABLED; VALID, INVALID or a status between; and the reason that the service gives for it.
    min_vcpus, desired_vcpus, max_vcpus
        The vCPUs that it keeps at least, has now and may have at most; None where the service does not say.
    instance_types
        The instance types, families or bundles that it may launch.
    spot
        Whether its instances are Spot instances.
    cluster
        The ARN of its ECS cluster.
    capacity
        What its jobs can use together, where it says so itself, as the embedded one does; else None.
    only_image
        The one image that it can run, where there is no container engine; else None.

    https://docs.aws.amazon.com/batch/latest/userguide/compute_environments.html
    """

    name: str
    arn: str
    type: str
    state: str
    status: str
    reason: str
    min_vcpus: int
    desired_vcpus: int | None
    max_vcpus: float | None
    instance_types: tuple[str, ...]
    spot: bool
    cluster: str | None
    capacity: Capacity | None
    only_image: str | None

    room = renamed("room", "capacity")

    @property
    def usable(self) -> bool:
        """Whether its own settings let jobs start there."""
        return self.state == "ENABLED" and self.status not in GONE and self.max_vcpus != 0

    def __repr__(self) -> str:
        most = "" if self.max_vcpus is None else f" up to {self.max_vcpus:g} vCPU"
        return one_line(f"<ComputeEnvironment {self.name} {self.type} {self.state} {self.status}{most}>")

    def _repr_html_(self) -> Html:
        desired = "unknown" if self.desired_vcpus is None else self.desired_vcpus
        most = "unknown" if self.max_vcpus is None else f"{self.max_vcpus:g}"
        rows = {
            "Type": self.type,
            "State": f"{self.state}, {self.status}",
            "Reason": self.reason or "none",
            "vCPU": f"{self.min_vcpus} at least, {desired} now, {most} at most",
            "Instances": ", ".join(self.instance_types) or "chosen elsewhere",
            "ARN": self.arn,
        }
        return card(f"Compute environment {self.name}", rows, status=_standing(self.state, self.status))


@dataclass(frozen=True)
class JobQueue:
    """Where jobs wait until a compute environment has room for them.

    Attributes
    ----------
    name, arn
        Its name and its ARN.
    state, status, reason
        ENABLED or DISABLED; VALID, INVALID or a status between; and the reason that the service gives for it.
    priority
        Jobs of queues with a higher priority are scheduled first.
    policy
        The name of its fair-share policy; None where the queue is first in, first out.
    environments
        Its compute environments, in the order in which they are tried.

    https://docs.aws.amazon.com/batch/latest/userguide/job_queues.html
    """

    name: str
    arn: str
    state: str
    status: str
    reason: str
    priority: int
    policy: str | None
    environments: tuple[ComputeEnvironment, ...]

    def __repr__(self) -> str:
        places = ", ".join(one.name for one in self.environments)
        return one_line(f"<JobQueue {self.name} priority {self.priority} {self.state} {self.status} -> {places}>")

    def _repr_html_(self) -> Html:
        columns = ["environment", "type", "state", "status", "vCPU at most"]
        places = [(one.name, one.type, one.state, one.status, one.max_vcpus) for one in self.environments]
        rows = {
            "State": f"{self.state}, {self.status}",
            "Reason": self.reason or "none",
            "Priority": self.priority,
            "Order": f"fair shares by {self.policy}" if self.policy else "first in, first out",
            "Environments": table(places, columns=columns),
            "ARN": self.arn,
        }
        return card(f"Job queue {self.name}", rows, status=_standing(self.state, self.status))


def queues(clients: Clients) -> list[JobQueue]:
    """The job queues, highest priority first, with their environments. Raises AccessDenied."""
    with translated_errors("job queues"):
        found = list(clients.batch.get_paginator("describe_job_queues").paginate().search("jobQueues[]"))
    wanted = {place["computeEnvironment"] for one in found for place in one.get("computeEnvironmentOrder", [])}
    known = {one.arn: one for one in environments(clients)} if wanted else {}
    return sorted((_queue(one, known) for one in found), key=lambda one: (-one.priority, one.name))


def queue(clients: Clients, name: str) -> JobQueue:
    """The job queue with this name or ARN. Raises NotFound, AccessDenied."""
    known = {one.name: one for one in queues(clients)}
    found = known.get(name.rpartition("/")[2])
    if found is None:
        raise NotFound(f"There is no job queue '{name}'. {did_you_mean(name, known)}")
    return found


def environments(clients: Clients) -> list[ComputeEnvironment]:
    """The compute environments, by name. Raises AccessDenied."""
    with translated_errors("compute environments"):
        pages = clients.batch.get_paginator("describe_compute_environments").paginate()
        found = list(pages.search("computeEnvironments[]"))
    return sorted((_environment(one) for one in found), key=lambda one: one.name)


def _queue(described: dict[str, Any], known: dict[str, ComputeEnvironment]) -> JobQueue:
    order = sorted(described.get("computeEnvironmentOrder", []), key=lambda one: one["order"])
    places = (known.get(one["computeEnvironment"]) for one in order)
    return JobQueue(
        name=described["jobQueueName"],
        arn=described["jobQueueArn"],
        state=described["state"],
        status=described.get("status", "VALID"),
        reason=described.get("statusReason", ""),
        priority=described["priority"],
        policy=described.get("schedulingPolicyArn", "").rpartition("/")[2] or None,
        environments=tuple(one for one in places if one is not None),
    )


def _environment(described: dict[str, Any]) -> ComputeEnvironment:
    given = described.get("computeResources", {})
    kind = given.get("type", "").upper() or described.get("type", "UNMANAGED").upper()
    reason = described.get("statusReason", "")
    return ComputeEnvironment(
        name=described["computeEnvironmentName"],
        arn=described["computeEnvironmentArn"],
        type=kind,
        state=described.get("state", "ENABLED"),
        status=described.get("status", "VALID"),
        reason=reason,
        min_vcpus=given.get("minvCpus", 0),
        desired_vcpus=given.get("desiredvCpus"),
        max_vcpus=given.get("maxvCpus", described.get("unmanagedvCpus")),
        instance_types=tuple(given.get("instanceTypes", ())),
        spot=kind.endswith("SPOT"),
        cluster=described.get("ecsClusterArn"),
        capacity=_capacity(reason),
        only_image=(re.findall(r"the image (\S+) alone", reason) or [None])[0],
    )


def _capacity(reason: str) -> Capacity | None:
    """The capacity that an environment of one machine names in its status's reason.

    >>> print(_capacity("ComputeEnvironment Healthy: up to 2 vCPU, 7937 MiB and 0 GPU of this machine"))
    2 vCPU, 7937 MiB
    >>> _capacity("ComputeEnvironment Healthy")
    """
    said = re.search(r"up to (\S+) vCPU, (\d+) MiB and (\d+) GPU of this machine", reason)
    return Capacity(float(said[1]), float(said[2]), int(said[3])) if said else None


def _standing(state: str, status: str) -> str:
    """The one word that says whether jobs go on: VALID counts for little where the state is DISABLED."""
    return status if state == "ENABLED" else state


def one_line(text: str) -> str:
    """A plain text on one line, as the repr of a thing whose name came from elsewhere must be.

    >>> one_line("a\\nb  c")
    'a b c'
    """
    return " ".join(plain(text).split())
