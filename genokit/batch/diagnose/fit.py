"""Whether a job can ever start in a compute environment, as far as sizes go: a pure question.

https://docs.aws.amazon.com/batch/latest/userguide/memory-management.html
https://docs.aws.amazon.com/batch/latest/userguide/fargate.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genokit.batch.cost import prices
from genokit.batch.requirements import Capacity, ResourceRequest
from genokit.batch.resources import FARGATE, ComputeEnvironment

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
class Fit:
    """Whether a job fits into an environment: fits, tight (just too much, perhaps), never, or unknown; and why."""

    verdict: Literal["fits", "tight", "never", "unknown"]
    why: str


def fit(job: ResourceRequest, place: ComputeEnvironment) -> Fit:
    """Whether the job can ever start in the environment, as far as sizes go."""
    kind = "FARGATE" if place.type in FARGATE else "EC2"
    if place.capacity is None and place.type in ("EC2", "SPOT", *FARGATE) and kind not in job.platforms:
        made = ", ".join(job.platforms)
        return Fit("never", f"The definition is made for {made}, and the compute environment '{place.name}' is {kind}.")
    if job.nodes > 1 and (place.type == "SPOT" or (place.type == "UNMANAGED" and place.capacity is None)):
        return Fit("never", f"The compute environment '{place.name}' is {place.type}, which takes no multi-node jobs.")
    if place.capacity is not None:
        over = job.total.excess(place.capacity)
        return Fit("never", _more(place.name, over)) if over else Fit("fits", f"'{place.name}' is large enough.")
    if place.max_vcpus is not None and job.total.vcpus > place.max_vcpus:
        return Fit("never", _more(place.name, [f"{job.total.vcpus:g} vCPU of {place.max_vcpus:g} (its maxvCpus)"]))
    if place.type in FARGATE:
        return _fargate(job.largest, place)
    if not place.instance_types:
        return Fit("unknown", f"'{place.name}' does not say which instances it has.")
    return _instances(job.largest, place)


def _instances(need: Capacity, place: ComputeEnvironment) -> Fit:
    known, unknown = prices.expand(place.instance_types)
    allowed = ", ".join(place.instance_types)
    for one in known:
        if one.holds(need):
            return Fit("fits", f"'{place.name}' may launch {one.name}, which is large enough.")
    have = [Capacity(one.vcpus, one.memory_gib * 1024 - AGENT_MIB, one.gpus) for one in known]
    tight = [one.name for one, has in zip(known, have, strict=True) if not need.excess(has)]
    if tight:
        return Fit(
            "tight",
            f"In '{place.name}' {tight[0]} has just the memory that the job asks for, and the system uses some of it: "
            "instances offer jobs about 5% less than they have.",
        )
    if unknown:
        return Fit("unknown", f"'{place.name}' may launch {', '.join(unknown)}, whose sizes are not known here.")
    if need.gpus and not any(one.gpus for one in known):
        return Fit("never", f"The compute environment '{place.name}' has no GPU: it may launch {allowed}.")
    most = Capacity(max(h.vcpus for h in have), max(h.memory_mib for h in have), max(h.gpus for h in have))
    over = need.excess(most) or [f"no one type of {allowed} has all of it"]
    return Fit("never", _more(place.name, over))


def _fargate(need: Capacity, place: ComputeEnvironment) -> Fit:
    if need.gpus:
        return Fit("never", f"The compute environment '{place.name}' is Fargate, which has no GPU.")
    if need.vcpus not in COMBINATIONS:
        sizes = ", ".join(f"{one:g}" for one in COMBINATIONS)
        return Fit("never", f"'{place.name}' is Fargate, which has {sizes} vCPU, not {need.vcpus:g}.")
    low, high, step = COMBINATIONS[need.vcpus]
    if not low <= need.memory_mib <= high or need.memory_mib % step:
        return Fit(
            "never",
            f"'{place.name}' is Fargate, which gives {need.vcpus:g} vCPU {low} to {high} MiB in steps of {step}, "
            f"not {need.memory_mib:.12g}.",
        )
    return Fit("fits", f"'{place.name}' is Fargate, which has this combination.")


def _more(name: str, over: Sequence[str]) -> str:
    # The words of the embedded scheduler, so that a job that was submitted unchecked says the same.
    return f"The job asks for more than the compute environment '{name}' has: {', '.join(over)}."
