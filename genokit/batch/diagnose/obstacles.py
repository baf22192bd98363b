"""The walk over a job's queue, its compute environments and their capacity: whatever keeps a job from starting there.

Before a submission its findings are a preflight; of a job that waits they are causes.
"""

from __future__ import annotations

from genokit.batch.diagnose.findings import SURENESS, Finding
from genokit.batch.diagnose.fit import fit
from genokit.batch.diagnose.known_reasons import meaning
from genokit.batch.requirements import ResourceRequest
from genokit.batch.resources import GONE, ComputeEnvironment, JobQueue


def walk(
    queue: JobQueue, request: ResourceRequest | None, *, submitted: bool
) -> tuple[list[Finding], list[ComputeEnvironment]]:
    """What the queue, its environments and their capacity mean for a job that asks for ``request``.

    Also the environments in which it may start, as far as is known.
    """
    usable = [place for place in queue.environments if place.usable]
    findings = [_queue(queue, submitted), *(_environment(place, bool(usable)) for place in queue.environments)]
    if request is None:
        what = "The job does not state vCPU and memory in a form that genokit can read."
        return [*findings, Finding(what, sure="unknown", about="size")], usable
    fits = [fit(request, place) for place in usable]
    best = max((one.sure for one in fits), key=SURENESS.index, default="ok")
    findings += [one for one in fits if one.sure == best]
    return findings, [place for place, one in zip(usable, fits, strict=True) if one.sure != "certain"]


def _queue(queue: JobQueue, submitted: bool) -> Finding:
    about = f"queue '{queue.name}'"
    if queue.status in GONE:
        what = f"The queue '{queue.name}' is {queue.status}."
        return Finding(what, queue.reason, "Submit the job to another queue.", about=about)
    if queue.state != "ENABLED" and not submitted:
        return Finding(f"It is {queue.state}: it takes no new jobs.", do="Enable it, or name another.", about=about)
    if not queue.environments:
        return Finding("It has no compute environment that can be read.", about=about)
    return Finding(f"It is {queue.state} and {queue.status}.", sure="ok", about=about)


def _environment(place: ComputeEnvironment, any_usable: bool) -> Finding:
    about = f"environment '{place.name}'"
    standing = f"{place.state} and {place.status}{', with maxvCpus 0' if place.max_vcpus == 0 else ''}"
    if place.usable:
        return Finding(f"It is {standing}.", place.reason, sure="ok", about=about)
    what = f"The compute environment '{place.name}' takes no jobs: it is {standing}."
    do = "Enable or repair it, or submit to another queue."
    if place.status in GONE and (known := meaning("invalid", place.reason)):
        what, do = f"{what} {known.what}", known.do
    return Finding(what, place.reason, do, "possible" if any_usable else "certain", about)
