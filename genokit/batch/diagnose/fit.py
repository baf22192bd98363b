"""Whether a job can ever start in a compute environment, as far as sizes go: a pure question.

https://docs.aws.amazon.com/batch/latest/userguide/memory-management.html
"""

from __future__ import annotations

from functools import partial

from genokit.batch.cost import prices
from genokit.batch.diagnose.findings import Finding
from genokit.batch.requirements import Capacity, ResourceRequest
from genokit.batch.resources import FARGATE, ComputeEnvironment

AGENT_MIB = 32  # what the ECS agent reserves at least; the system takes more, and how much is known only once it runs


def fit(job: ResourceRequest, place: ComputeEnvironment) -> Finding:
    """Whether the job can ever start in the environment: ok, certainly not, likely not, or unknown."""
    found = partial(Finding, evidence=f"the job asks for {job}", about="size")
    known, unknown = prices.expand(place.instance_types)
    kind = "FARGATE" if place.type in FARGATE else "EC2"
    if place.capacity is not None:
        over = job.total.excess(place.capacity)
    elif place.type != "UNMANAGED" and kind not in job.platforms:
        made = ", ".join(job.platforms)
        return found(f"The definition is made for {made}, and the compute environment '{place.name}' is {kind}.")
    elif job.nodes > 1 and place.type in ("SPOT", "UNMANAGED"):
        return found(f"The compute environment '{place.name}' is {place.type}, which takes no multi-node jobs.")
    elif place.max_vcpus is not None and job.total.vcpus > place.max_vcpus:
        over = [f"{job.total.vcpus:g} vCPU of {place.max_vcpus:g} (its maxvCpus)"]
    elif kind == "FARGATE" or any(one.holds(job.largest) for one in known):
        over = []
    else:
        have = [Capacity(one.vcpus, one.memory_gib * 1024 - AGENT_MIB, one.gpus) for one in known]
        if not all(job.largest.excess(one) for one in have):
            what = f"An instance of '{place.name}' has just the memory that the job asks for, and the system needs 5%."
            return found(what, do="Ask for a little less memory.", sure="likely")
        if unknown or not known:
            return found(f"'{place.name}' has instances whose sizes are not known here.", sure="unknown")
        most = Capacity(max(h.vcpus for h in have), max(h.memory_mib for h in have), max(h.gpus for h in have))
        over = job.largest.excess(most) or ["no one instance type has all of it"]
    if not over:
        return found(f"'{place.name}' is large enough.", sure="ok")
    # The words of the embedded scheduler, so that a job that was submitted unchecked says the same.
    what = f"The job asks for more than the compute environment '{place.name}' has: {', '.join(over)}."
    return found(what, do="Ask for less (vcpus, memory_gib, gpus), or submit to a queue with larger instances.")
