"""Whether a job can have its room in a compute environment at all, however long it waits: a pure question.

https://docs.aws.amazon.com/batch/latest/userguide/memory-management.html
https://docs.aws.amazon.com/batch/latest/userguide/fargate.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from genokit.batch.cost import prices
from genokit.batch.resources import FARGATE, ComputeEnvironment, Room

AGENT_MIB = 32  # what the ECS agent reserves at least; the system takes more, and how much is known only once it runs
# The memory that Fargate gives to so many vCPUs: from, to, in steps of so many MiB.
COMBINATIONS = {
    0.25: (512, 2048, 512),
    0.5: (1024, 4096, 1024),
    1: (2048, 8192, 1024),
    2: (4096, 16_384, 1024),
    4: (8192, 30_720, 1024),
    8: (16_384, 61_440, 4096),
    16: (32_768, 122_880, 8192),
}


@dataclass(frozen=True)
class Asked:
    """What a job asks for: the ``room`` of its largest node, and that of all its nodes together.

    ``platforms`` are those that its definition is made for: EC2, FARGATE, MANAGED_INSTANCES.
    """

    room: Room
    total: Room
    nodes: int
    platforms: tuple[str, ...]

    def __str__(self) -> str:
        gpus = f" and {self.room.gpus} GPU" if self.room.gpus else ""
        size = f"{self.room.vcpus:g} vCPU, {self.room.memory_mib:.12g} MiB{gpus}"
        return f"{self.nodes} nodes of up to {size}" if self.nodes > 1 else size


@dataclass(frozen=True)
class Fit:
    """Whether a job fits into an environment: fits, tight (just too much, perhaps), never, or unknown; and why."""

    verdict: Literal["fits", "tight", "never", "unknown"]
    why: str


def asked(described: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Asked | None:
    """What a job definition with a submission's ``containerOverrides``, or a job as described, asks for.

    None where it does not say so in a way that is known here, as on EKS.

    >>> one = [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "4096"}]
    >>> print(asked({"containerProperties": {"resourceRequirements": one}},
    ...             {"resourceRequirements": [{"type": "GPU", "value": "1"}]}))
    2 vCPU, 4096 MiB and 1 GPU
    >>> print(asked({"container": {"vcpus": 2, "memory": 512}}))
    2 vCPU, 512 MiB
    """
    platforms = tuple(described.get("platformCapabilities") or ("EC2",))
    nodes = described.get("nodeProperties")
    if nodes:
        parts = [
            (_room(one.get("container") or {}), _count(one["targetNodes"], nodes["numNodes"]))
            for one in nodes.get("nodeRangeProperties", [])
        ]
    elif described.get("ecsProperties"):
        rooms = [_room(one) for task in described["ecsProperties"]["taskProperties"] for one in task["containers"]]
        known = [one for one in rooms if one is not None]
        parts = [(_combined(sum, [(room, 1) for room in known], each=True) if known else None, 1)]
    else:
        container = described.get("containerProperties") or described.get("container") or {}
        parts = [(_room(container, overrides or {}), 1)]
    sized = [(room, count) for room, count in parts if room is not None]
    if not sized or len(sized) < len(parts):
        return None
    largest, total = _combined(max, sized, each=False), _combined(sum, sized, each=True)
    return Asked(largest, total, sum(count for _, count in sized), platforms)


def _combined(how: Callable[[list[float]], float], parts: list[tuple[Room, int]], *, each: bool) -> Room:
    times = [count if each else 1 for _, count in parts]
    vcpus, memory, gpus = (
        how([value * time for value, time in zip(column, times, strict=True)])
        for column in zip(*((room.vcpus, room.memory_mib, room.gpus) for room, _ in parts), strict=True)
    )
    return Room(vcpus, memory, int(gpus))


def fit(job: Asked, place: ComputeEnvironment) -> Fit:
    """Whether the job can ever start in the environment, as far as sizes go."""
    kind = "FARGATE" if place.type in FARGATE else "EC2"
    if place.room is None and place.type in ("EC2", "SPOT", *FARGATE) and kind not in job.platforms:
        made = ", ".join(job.platforms)
        return Fit("never", f"The definition is made for {made}, and the compute environment '{place.name}' is {kind}.")
    if job.nodes > 1 and (place.type == "SPOT" or (place.type == "UNMANAGED" and place.room is None)):
        return Fit("never", f"The compute environment '{place.name}' is {place.type}, which takes no multi-node jobs.")
    if place.room is not None:
        over = _over(job.total, place.room)
        return Fit("never", _more(place.name, over)) if over else Fit("fits", f"'{place.name}' has the room.")
    if place.max_vcpus is not None and job.total.vcpus > place.max_vcpus:
        return Fit("never", _more(place.name, [f"{job.total.vcpus:g} vCPU of {place.max_vcpus:g} (its maxvCpus)"]))
    if place.type in FARGATE:
        return _fargate(job.room, place)
    if not place.instance_types:
        return Fit("unknown", f"'{place.name}' does not say which instances it has.")
    return _instances(job.room, place)


def _instances(room: Room, place: ComputeEnvironment) -> Fit:
    known, unknown = prices.expand(place.instance_types)
    allowed = ", ".join(place.instance_types)
    for one in known:
        if one.holds(room.vcpus, room.memory_mib / 1024, room.gpus):
            return Fit("fits", f"'{place.name}' may launch {one.name}, which has the room.")
    rooms = [Room(one.vcpus, one.memory_gib * 1024 - AGENT_MIB, one.gpus) for one in known]
    tight = [one.name for one, has in zip(known, rooms, strict=True) if not _over(room, has)]
    if tight:
        return Fit(
            "tight",
            f"In '{place.name}' {tight[0]} has just the memory that is asked for, and the system takes some of it: "
            "instances offer jobs about 5% less than they have.",
        )
    if unknown:
        return Fit("unknown", f"'{place.name}' may launch {', '.join(unknown)}, whose sizes are not known here.")
    if room.gpus and not any(one.gpus for one in known):
        return Fit("never", f"The compute environment '{place.name}' has no GPU: it may launch {allowed}.")
    most = Room(max(r.vcpus for r in rooms), max(r.memory_mib for r in rooms), max(r.gpus for r in rooms))
    over = _over(room, most) or [f"no one type of {allowed} has all of it"]
    return Fit("never", _more(place.name, over))


def _fargate(room: Room, place: ComputeEnvironment) -> Fit:
    if room.gpus:
        return Fit("never", f"The compute environment '{place.name}' is Fargate, which has no GPU.")
    if room.vcpus not in COMBINATIONS:
        sizes = ", ".join(f"{one:g}" for one in COMBINATIONS)
        return Fit("never", f"'{place.name}' is Fargate, which has {sizes} vCPU, not {room.vcpus:g}.")
    low, high, step = COMBINATIONS[room.vcpus]
    if not low <= room.memory_mib <= high or room.memory_mib % step:
        return Fit(
            "never",
            f"'{place.name}' is Fargate, which gives {room.vcpus:g} vCPU {low} to {high} MiB in steps of {step}, "
            f"not {room.memory_mib:.12g}.",
        )
    return Fit("fits", f"'{place.name}' is Fargate, which has this combination.")


def _more(name: str, over: Sequence[str]) -> str:
    # The words of the embedded scheduler, so that a job that was submitted unchecked says the same.
    return f"The job asks for more than the compute environment '{name}' has: {', '.join(over)}."


def _over(room: Room, has: Room) -> list[str]:
    pairs = (
        (room.vcpus, has.vcpus, "vCPU"),
        (room.memory_mib, has.memory_mib, "MiB of memory"),
        (room.gpus, has.gpus, "GPU"),
    )
    return [f"{need:.12g} {unit} of {most:.12g}" for need, most, unit in pairs if need > most]


def _room(container: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Room | None:
    found = {"VCPU": container.get("vcpus"), "MEMORY": container.get("memory")}
    for given in (container, overrides or {}):
        found |= {one["type"].upper(): one["value"] for one in given.get("resourceRequirements", [])}
    if not found["VCPU"] or not found["MEMORY"]:
        return None
    return Room(float(found["VCPU"]), float(found["MEMORY"]), int(found.get("GPU") or 0))


def _count(nodes: str, of: int) -> int:
    """How many nodes a range names.

    >>> _count("0:3", 8), _count("4:", 8), _count(":1", 8), _count("2", 8)
    (4, 4, 2, 1)
    """
    first, colon, last = nodes.partition(":")
    return int(last or (of - 1 if colon else first)) - int(first or 0) + 1
