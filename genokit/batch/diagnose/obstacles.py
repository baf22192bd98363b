"""The walk over a job's queue, its compute environments and their capacity: whatever keeps a job from starting there.

Before a submission its findings are a preflight; of a job that waits they are causes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genokit.batch.diagnose.findings import Cause, Finding, Level
from genokit.batch.diagnose.fit import Fit, fit
from genokit.batch.diagnose.known_reasons import meaning
from genokit.batch.requirements import ResourceRequest
from genokit.batch.resources import GONE, ComputeEnvironment, JobQueue

LESS = "Ask for less (vcpus, memory_gib, gpus), or submit to a queue with larger instances."


@dataclass(frozen=True)
class Obstacles:
    """What the walk found, and how the job fits into each environment that takes jobs, by name."""

    findings: list[Finding]
    fits: dict[str, Fit]
    candidates: list[ComputeEnvironment]  # in which the job may start, as far as is known


def walk(queue: JobQueue, request: ResourceRequest | None, *, submitted: bool) -> Obstacles:
    """What the queue, its environments and their capacity mean for a job that asks for ``request``."""
    usable = [place for place in queue.environments if place.usable]
    fits = {place.name: fit(request, place) for place in usable} if request else {}
    environments = [_environment(place, any_usable=bool(usable)) for place in queue.environments]
    if not environments:
        environments = [Finding("problem", f"queue '{queue.name}'", "It has no compute environment that can be read.")]
    findings = [*_queue(queue, submitted), *environments, *_size(request, usable, list(fits.values()))]
    never = {name for name, one in fits.items() if one.verdict == "never"}
    return Obstacles(findings, fits, [place for place in usable if place.name not in never])


def _queue(queue: JobQueue, submitted: bool) -> Iterator[Finding]:
    about = f"queue '{queue.name}'"
    if queue.state != "ENABLED":
        message = f"It is {queue.state}: it takes no new jobs, and those in it may start."
        level: Level = "ok" if submitted else "problem"
        yield Finding(level, about, message if submitted else f"{message} Enable it, or name another.")
    if queue.status in GONE:
        cause = Cause(
            f"The queue '{queue.name}' is {queue.status}.",
            f"its status reason is '{queue.reason or 'not given'}'",
            "Submit the job to another queue.",
        )
        yield _found("problem", about, cause)
    elif queue.status != "VALID":
        yield Finding("unknown", about, f"Its status is {queue.status}: it is not ready yet.")
    elif queue.state == "ENABLED":
        yield Finding("ok", about, "It is ENABLED and VALID.")


def _environment(place: ComputeEnvironment, *, any_usable: bool) -> Finding:
    about, name = f"environment '{place.name}'", f"The compute environment '{place.name}'"
    evidence = f"'{place.name}' is {place.state} and {place.status}, {place.reason or 'without a reason'}"
    if place.usable:
        return Finding("ok", about, f"It is {place.state} and {place.status}, {place.reason or 'without a reason'}.")
    if place.state != "ENABLED":
        do = f"Enable it: update_compute_environment(computeEnvironment='{place.name}', state='ENABLED')."
        cause = Cause(f"{name} is {place.state}, so no job starts there.", evidence, do)
    elif place.status in GONE:
        what = f"{name} is {place.status}, so no job starts there."
        do = "Repair what its reason names, or attach another environment to the queue."
        known = meaning("invalid", place.reason, evidence)
        cause = Cause(f"{what} {known.what}", evidence, known.do, known.sure) if known else Cause(what, evidence, do)
    else:
        cause = Cause(f"{name} has maxvCpus 0, so no job starts there.", evidence, "Raise its maxvCpus.")
    if not any_usable:
        return _found("problem", about, cause)
    return _found("warning", about, Cause(cause.what, evidence, cause.do, "possible"))


def _size(request: ResourceRequest | None, usable: Sequence[ComputeEnvironment], fits: list[Fit]) -> Iterator[Finding]:
    if request is None:
        yield Finding("unknown", "size", "The job does not state vCPU and memory in a form that genokit can read.")
        return
    why = {one.verdict: one.why for one in reversed(fits)}
    sizes = "; ".join(f"{place.name}: {', '.join(place.instance_types) or place.reason}" for place in usable)
    evidence = f"the job asks for {request}; {sizes}"
    if "fits" in why:
        yield Finding("ok", "size", f"{request}: {why['fits']}")
    elif "unknown" in why:
        yield Finding("unknown", "size", f"{request}: {why['unknown']}")
    elif "tight" in why:
        yield _found("warning", "size", Cause(why["tight"], evidence, "Ask for a little less memory.", "likely"))
    elif why:
        yield _found("problem", "size", Cause(" ".join(dict.fromkeys(one.why for one in fits)), evidence, LESS))


def _found(level: Level, about: str, cause: Cause) -> Finding:
    """A finding that is a cause, too, if the job was submitted."""
    evidence = "" if about == "size" else f" Seen: {cause.evidence}."
    return Finding(level, about, f"{cause.what}{evidence} {cause.do}", cause)
