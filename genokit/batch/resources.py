"""Job queues and compute environments: where jobs wait, and for what room."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch.paging import pages
from genokit.display import Html, card, plain, table

GONE = ("INVALID", "DELETING", "DELETED")  # statuses in which nothing starts any more
FARGATE = ("FARGATE", "FARGATE_SPOT")


@dataclass(frozen=True)
class Room:
    """What one job can have at most: ``vcpus``, ``memory_mib`` and ``gpus``."""

    vcpus: float
    memory_mib: float
    gpus: int


@dataclass(frozen=True)
class ComputeEnvironment:
    """Where jobs run, as the service describes it.

    ``type`` is EC2, SPOT, FARGATE, FARGATE_SPOT, ECS_MANAGED_INSTANCES, or UNMANAGED. ``room`` is what a job can have
    there, where the environment says so itself; else it follows from ``instance_types``. ``only_image`` names the one
    image that it can run, where there is but one.

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
    image_type: str
    spot: bool
    cluster: str | None
    room: Room | None
    only_image: str | None

    @property
    def usable(self) -> bool:
        """Whether jobs can start there as far as it is up to the environment's own settings."""
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
            "Instances": ", ".join(self.instance_types) or "not of its choosing",
            "Image": self.image_type or "the default",
            "ARN": self.arn,
        }
        return card(f"Compute environment {self.name}", rows, status=_standing(self.state, self.status))


@dataclass(frozen=True)
class JobQueue:
    """Where jobs wait: the higher its ``priority``, the earlier they are looked at, and its ``environments`` in order.

    ``policy`` is the name of its fair-share policy; None where the queue is first in, first out.

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


def queues(clients: Clients, names: Sequence[str] = ()) -> list[JobQueue]:
    """The job queues, or those of these names or ARNs, highest priority first, with their environments.

    A name that nothing has is left out. Raises AccessDenied.
    """
    with translated_errors("job queues"):
        request = {"jobQueues": list(names)} if names else {}
        found = list(pages(clients.batch.describe_job_queues, "jobQueues", **request))
    wanted = {place["computeEnvironment"] for one in found for place in one.get("computeEnvironmentOrder", [])}
    known = {one.arn: one for one in environments(clients)} if wanted else {}
    return sorted((_queue(one, known) for one in found), key=lambda one: (-one.priority, one.name))


def environments(clients: Clients) -> list[ComputeEnvironment]:
    """The compute environments, by name. Raises AccessDenied."""
    with translated_errors("compute environments"):
        found = list(pages(clients.batch.describe_compute_environments, "computeEnvironments"))
    return sorted((_environment(one) for one in found), key=lambda one: one.name)


def _queue(told: dict[str, Any], known: dict[str, ComputeEnvironment]) -> JobQueue:
    order = sorted(told.get("computeEnvironmentOrder", []), key=lambda one: one["order"])
    places = (known.get(one["computeEnvironment"]) for one in order)
    return JobQueue(
        name=told["jobQueueName"],
        arn=told["jobQueueArn"],
        state=told["state"],
        status=told.get("status", "VALID"),
        reason=told.get("statusReason", ""),
        priority=told["priority"],
        policy=told.get("schedulingPolicyArn", "").rpartition("/")[2] or None,
        environments=tuple(one for one in places if one is not None),
    )


def _environment(told: dict[str, Any]) -> ComputeEnvironment:
    given = told.get("computeResources", {})
    kind = given.get("type", "").upper() or told.get("type", "UNMANAGED").upper()
    reason = told.get("statusReason", "")
    return ComputeEnvironment(
        name=told["computeEnvironmentName"],
        arn=told["computeEnvironmentArn"],
        type=kind,
        state=told.get("state", "ENABLED"),
        status=told.get("status", "VALID"),
        reason=reason,
        min_vcpus=given.get("minvCpus", 0),
        desired_vcpus=given.get("desiredvCpus"),
        max_vcpus=given.get("maxvCpus", told.get("unmanagedvCpus")),
        instance_types=tuple(given.get("instanceTypes", ())),
        image_type=", ".join(one["imageType"] for one in given.get("ec2Configuration", [])),
        spot=kind.endswith("SPOT"),
        cluster=told.get("ecsClusterArn"),
        room=_room(reason),
        only_image=(re.findall(r"the image (\S+) alone", reason) or [None])[0],
    )


def _room(reason: str) -> Room | None:
    """The room that an environment of one machine names in its status's reason.

    >>> _room("ComputeEnvironment Healthy: up to 2 vCPU, 7937 MiB and 0 GPU of this machine")
    Room(vcpus=2.0, memory_mib=7937.0, gpus=0)
    >>> _room("ComputeEnvironment Healthy")
    """
    said = re.search(r"up to (\S+) vCPU, (\d+) MiB and (\d+) GPU of this machine", reason)
    return Room(float(said[1]), float(said[2]), int(said[3])) if said else None


def _standing(state: str, status: str) -> str:
    """The one word that says whether jobs go on: VALID counts for little where the state is DISABLED."""
    return status if state == "ENABLED" else state


def one_line(text: str) -> str:
    """A plain text on one line, as the repr of a thing whose name came from elsewhere must be.

    >>> one_line("a\\nb  c")
    'a b c'
    """
    return " ".join(plain(text).split())
