"""What a job or a definition asks for: the one reader of the containers and resources in AWS's descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Capacity:
    """vCPUs, memory in MiB and GPUs: what a job asks for, or what an environment has.

    >>> print(Capacity(2, 4096) * 2 + Capacity(gpus=1))
    4 vCPU, 8192 MiB and 1 GPU
    """

    vcpus: float = 0
    memory_mib: float = 0
    gpus: int = 0

    @property
    def memory_gib(self) -> float:
        return self.memory_mib / 1024

    def __add__(self, other: Capacity) -> Capacity:
        return Capacity(self.vcpus + other.vcpus, self.memory_mib + other.memory_mib, self.gpus + other.gpus)

    def __mul__(self, count: int) -> Capacity:
        return Capacity(self.vcpus * count, self.memory_mib * count, self.gpus * count)

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPU" if self.gpus else ""
        return f"{self.vcpus:g} vCPU, {self.memory_mib:.12g} MiB{gpus}"

    def excess(self, limit: Capacity) -> list[str]:
        """What of this is more than ``limit`` has, in words.

        >>> Capacity(8, 64).excess(Capacity(4, 64))
        ['8 vCPU of 4']
        """
        amounts = (
            (self.vcpus, limit.vcpus, "vCPU"),
            (self.memory_mib, limit.memory_mib, "MiB of memory"),
            (self.gpus, limit.gpus, "GPU"),
        )
        return [f"{need:.12g} {unit} of {most:.12g}" for need, most, unit in amounts if need > most]


@dataclass(frozen=True)
class ResourceRequest:
    """What a job asks for: on its ``largest`` node, and in ``total`` on all its nodes.

    ``platforms`` are those that its definition is made for: EC2, FARGATE, MANAGED_INSTANCES.
    """

    largest: Capacity
    total: Capacity
    nodes: int
    platforms: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.nodes} nodes of up to {self.largest}" if self.nodes > 1 else str(self.largest)


def requested(described: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> ResourceRequest | None:
    """What a job definition with a submission's ``containerOverrides``, or a job as described, asks for.

    None where it does not say so in a way that is known here, as on EKS.

    >>> one = [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "4096"}]
    >>> print(requested({"containerProperties": {"resourceRequirements": one}},
    ...                 {"resourceRequirements": [{"type": "GPU", "value": "1"}]}))
    2 vCPU, 4096 MiB and 1 GPU
    >>> print(requested({"container": {"vcpus": 2, "memory": 512}}))
    2 vCPU, 512 MiB
    """
    parts = []
    for together, count in _nodes(described):
        known = [one for one in (capacity(container, overrides) for container in together) if one]
        parts.append((sum(known, Capacity()), count if known else 0))
    if not parts or not all(count for _, count in parts):
        return None
    each = [one for one, _ in parts]
    largest = Capacity(
        max(one.vcpus for one in each), max(one.memory_mib for one in each), max(one.gpus for one in each)
    )
    total = sum((one * count for one, count in parts), Capacity())
    platforms = tuple(described.get("platformCapabilities") or ("EC2",))
    return ResourceRequest(largest, total, sum(count for _, count in parts), platforms)


def capacity(container: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Capacity | None:
    """What one container asks for; None where it does not say vCPU and memory."""
    values = {"VCPU": container.get("vcpus"), "MEMORY": container.get("memory")}
    for given in (container, overrides or {}):
        values |= {one["type"].upper(): one["value"] for one in given.get("resourceRequirements", [])}
    if not values["VCPU"] or not values["MEMORY"]:
        return None
    return Capacity(float(values["VCPU"]), float(values["MEMORY"]), int(values.get("GPU") or 0))


def overridden(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a SubmitJob request changes of its definition's container, or of those of all nodes.

    >>> overridden({"nodeOverrides": {"nodePropertyOverrides": [{"containerOverrides": {"command": ["true"]}}]}})
    {'command': ['true']}
    """
    for one in request.get("nodeOverrides", {}).get("nodePropertyOverrides", []):
        return dict(one.get("containerOverrides", {}))
    return dict(request.get("containerOverrides", {}))


def containers(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All containers of a job definition, or of a job as described."""
    return [container for together, _ in _nodes(described) for container in together if container]


def _nodes(described: Mapping[str, Any]) -> list[tuple[list[dict[str, Any]], int]]:
    """The containers that run together on a node, and how many such nodes there are."""
    if nodes := described.get("nodeProperties"):
        ranges = nodes.get("nodeRangeProperties", [])
        return [([one.get("container") or {}], _count(one["targetNodes"], nodes["numNodes"])) for one in ranges]
    if ecs := described.get("ecsProperties"):
        return [([one for task in ecs["taskProperties"] for one in task["containers"]], 1)]
    return [([described.get("containerProperties") or described.get("container") or {}], 1)]


def _count(nodes: str, of: int) -> int:
    """How many nodes a range names.

    >>> _count("0:3", 8), _count("4:", 8), _count(":1", 8), _count("2", 8)
    (4, 4, 2, 1)
    """
    first, colon, last = nodes.partition(":")
    return int(last or (of - 1 if colon else first)) - int(first or 0) + 1
