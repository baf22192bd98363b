"""Why a RUNNABLE job waits: its queue, its environments, their capacity, and the instances that should come.

Every look tells what it found, or that it could not look; nothing here raises for want of a permission.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from genokit.batch import resources
from genokit.batch.diagnose.findings import Cause, Sure
from genokit.batch.diagnose.fit import Fit
from genokit.batch.diagnose.inquiry import Inquiry
from genokit.batch.diagnose.known_reasons import meaning
from genokit.batch.diagnose.obstacles import LESS, walk
from genokit.batch.requirements import Capacity, ResourceRequest, requested
from genokit.batch.resources import ComputeEnvironment, JobQueue
from genokit.display import seconds
from genokit.errors import GenokitError

BOOT_S = 600  # after which an instance should have joined its cluster
DESCRIBED = 300  # jobs at most whose sizes are summed
JOIN = (
    "Give the subnets a route to ECS: instances with public IPs (auto-assign public IPv4) and an internet gateway, a "
    "NAT gateway, or VPC endpoints. Make sure that the instance profile's role has AmazonEC2ContainerServiceforEC2Role "
    "and that the AMI has the ECS agent. The console output of one instance shows user data that fails."
)
ELSEWHERE = (
    "whether instances are in the cluster: console, Elastic Container Service, Clusters, AWSBatch-...",
    "why an instance did not start: console, EC2, Auto Scaling groups, ...-asg-..., Activity",
    "how many vCPUs the account may have: console, Service Quotas, Amazon EC2",
    "AWS's own list: https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html",
)


def look(inquiry: Inquiry, waited_s: float) -> None:
    """Look at everything that may keep a RUNNABLE job waiting."""
    clients, detail = inquiry.clients, inquiry.detail
    try:
        queues = resources.queues(clients)
    except GenokitError as error:
        inquiry.unread.append(str(error))
        inquiry.elsewhere.extend(ELSEWHERE)
        queues = []
    reason = detail.get("statusReason", "")
    if reason:
        inquiry.looked.append(f"the job's statusReason is '{reason}'")
    blocked = meaning("blocked", reason, f"statusReason '{reason}'")
    name = detail["jobQueue"].rpartition("/")[2]
    queue = next((one for one in queues if one.name == name), None)
    if queue is None:
        if queues:
            inquiry.blame(f"The queue '{name}' is gone.", "the list of queues", "Submit the job to another.")
        if blocked:
            inquiry.causes.append(blocked)
        return
    request = requested(detail)
    obstacles = walk(queue, request, submitted=True)
    inquiry.causes.extend(one.cause for one in obstacles.findings if one.cause)
    inquiry.looked.extend(f"{one.about}: {one.message}" for one in obstacles.findings if not one.cause)
    _blocked(blocked, obstacles.fits, waited_s, inquiry)
    if obstacles.candidates and not inquiry.certain:
        _turn(inquiry, queue, queues, obstacles.candidates, request)
    if waited_s > clients.backend.grace_s and not inquiry.certain:
        for place in obstacles.candidates:
            _instances(inquiry, place, waited_s)


def _blocked(blocked: Cause | None, fits: Mapping[str, Fit], waited_s: float, inquiry: Inquiry) -> None:
    """What AWS itself says of a job that it cannot place."""
    if blocked is None or inquiry.certain:
        return
    fitting = next((one.why for one in fits.values() if one.verdict == "fits"), None)
    if fitting is None or "CAPACITY:" in blocked.evidence:
        inquiry.causes.append(blocked)
    elif "_RESOURCE" in blocked.evidence:
        what = (
            "Batch says that the job is too large for its queue, and by the sizes known here it is not. Batch says so "
            "too while the first instance for a job still starts."
        )
        sure: Sure = "possible" if waited_s < 2 * BOOT_S else "likely"
        do = "Wait some minutes. If it stays, " + LESS[0].lower() + LESS[1:]
        inquiry.blame(what, f"{blocked.evidence}; {fitting}", do, sure)
    elif "ACTION_REQUIRED" not in blocked.evidence and "COMPUTE_ENVIRONMENT - " not in blocked.evidence:
        inquiry.causes.append(blocked)  # those two are of a time when no environment took jobs


# --- whose turn it is


@dataclass(frozen=True)
class QueueUsage:
    """What the jobs of some queues use now, how many jobs that is, and how many wait before this one."""

    used: Capacity
    jobs: int
    ahead: int
    first: dict[str, Any] | None
    complete: bool


def _turn(
    inquiry: Inquiry,
    queue: JobQueue,
    queues: Sequence[JobQueue],
    places: Sequence[ComputeEnvironment],
    request: ResourceRequest | None,
) -> None:
    """Whether other jobs use the capacity, or stand before this one."""
    names = {place.name for place in places}
    one_machine = any(place.capacity for place in places)  # which all environments share
    if queue.policy:
        inquiry.looked.append(f"the queue shares by the policy '{queue.policy}': whoever has had less goes first")
    others = [one for one in queues if one_machine or names & {place.name for place in one.environments}]
    usage = _usage(inquiry, queue, others, one_machine)
    if usage is None:
        return
    before = f"{_count(usage.ahead, 'waits', 'wait')} before this one"
    at_least = "" if usage.complete else "at least "
    said = f"{_count(usage.jobs, 'other job uses', 'other jobs use')} {at_least}{usage.used}"
    said = f"{said if usage.jobs else 'no other job runs'}, {before}"
    inquiry.looked.append(said := "; ".join([said, *(f"'{one.name}' has {_size(one)}" for one in places)]))
    if request and all(_is_full(place, request, usage) for place in places):
        taken = f"The capacity is in use by {_count(usage.jobs, 'other job', 'other jobs')}"
        what = f"{taken if usage.jobs else 'It is not its turn'}{f', and {before}' if usage.ahead else ''}."
        do = "Wait; or cancel what is not needed, raise maxvCpus, or use another queue."
        inquiry.blame(what, said, do, "certain" if one_machine else "likely")
    elif usage.first is not None and not one_machine:
        blocked = meaning("blocked", usage.first.get("statusReason", ""), "")
        if blocked:
            what = (
                f"The job '{usage.first['jobName']}' at the head of the queue cannot start, and blocks those behind it."
            )
            evidence = f"its statusReason is '{usage.first['statusReason']}'"
            do = f"Cancel it, or see why: Batch().job('{usage.first['jobId']}').explain()."
            inquiry.blame(what, evidence, do, "likely")


def _is_full(place: ComputeEnvironment, request: ResourceRequest, usage: QueueUsage) -> bool:
    wanted = usage.used + request.total
    if place.capacity is None:
        return place.max_vcpus is not None and wanted.vcpus > place.max_vcpus and usage.jobs > 0
    return bool(wanted.excess(place.capacity)) or usage.ahead > 0


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}" if number else f"none {one}"


def _size(place: ComputeEnvironment) -> str:
    if place.capacity:
        return str(place.capacity)
    return f"{place.desired_vcpus} of at most {place.max_vcpus:g} vCPU" if place.max_vcpus else "an unknown size"


def _usage(inquiry: Inquiry, queue: JobQueue, queues: Sequence[JobQueue], one_machine: bool) -> QueueUsage | None:
    detail = inquiry.detail
    mine = {detail["jobId"], re.split("[:#]", detail["jobId"])[0]}  # its array or multi-node job is no other job
    working: list[str] = []
    ahead: list[dict[str, Any]] = []
    complete = True
    for one in queues:
        for status in ("PENDING", "RUNNABLE", "STARTING", "RUNNING"):
            page = inquiry.ask("batch", "list_jobs", jobQueue=one.name, jobStatus=status)
            if page is None:
                return None
            complete = complete and not page.get("nextToken")
            listed = [job for job in page["jobSummaryList"] if job["jobId"] not in mine]
            if status == "RUNNABLE":
                if one_machine:  # which lets no job wait for another that it can never start
                    listed = [job for job in listed if not meaning("blocked", job.get("statusReason", ""), "")]
                earlier = [job for job in listed if job["createdAt"] < detail["createdAt"]]
                ahead += earlier if one.name == queue.name else listed if one.priority > queue.priority else []
            else:  # children of arrays are listed under their parents only, which are PENDING
                arrays = [job for job in listed if job.get("arrayProperties", {}).get("size")]
                working += [job["jobId"] for job in (arrays if status == "PENDING" else listed)]
    if ":" in detail["jobId"]:
        working.append(detail["jobId"].partition(":")[0])
    used, jobs, waiting = Capacity(), 0, 0
    for job in inquiry.described(working[:DESCRIBED]):
        request, counts = requested(job), job.get("arrayProperties", {}).get("statusSummary")
        running = counts.get("RUNNING", 0) + counts.get("STARTING", 0) if counts else 1
        waiting += counts.get("RUNNABLE", 0) if counts and job["createdAt"] < detail["createdAt"] else 0
        jobs += running
        used += request.total * running if request else Capacity()
    first = min(ahead, key=lambda job: job["createdAt"], default=None)
    return QueueUsage(used, jobs, len(ahead) + waiting, first, complete and len(working) <= DESCRIBED)


# --- the instances that should come


def _instances(inquiry: Inquiry, place: ComputeEnvironment, waited_s: float) -> None:
    """Whether instances start, and join the environment's cluster."""
    if place.capacity is not None:
        return
    inquiry.elsewhere.extend(ELSEWHERE)
    failed, ended = None, 0
    if place.type in ("EC2", "SPOT"):
        failed, ended = _launches(inquiry, place, inquiry.now - timedelta(seconds=waited_s))
    if failed:
        evidence = f"Auto Scaling of '{place.name}': {failed}"
        do = "Try to launch one instance by hand with the environment's settings; EC2 then says what is wrong."
        known = meaning("launches", failed, evidence)
        inquiry.causes.append(known or Cause("EC2 could not launch an instance.", evidence, do, "likely"))
    if place.cluster and place.type in ("EC2", "SPOT", "UNMANAGED"):
        answer = inquiry.ask("ecs", "describe_clusters", clusters=[place.cluster])
        if answer is not None:
            cause = _cluster(inquiry, place, answer.get("clusters", []), waited_s, ended)
            if cause and not (failed and cause.sure == "possible"):
                inquiry.causes.append(cause)


def _cluster(
    inquiry: Inquiry, place: ComputeEnvironment, clusters: Sequence[dict[str, Any]], waited_s: float, ended: int
) -> Cause | None:
    """What the number of instances in an environment's cluster tells."""
    active = [one for one in clusters if one.get("status") != "INACTIVE"]
    if not active:
        what = f"The ECS cluster of the compute environment '{place.name}' is gone."
        do = "Disable and enable the environment, or recreate it; nobody should delete its cluster."
        return Cause(what, f"ECS knows no active cluster {place.cluster}", do, "likely")
    joined, tasks = active[0].get("registeredContainerInstancesCount", 0), active[0].get("runningTasksCount", 0)
    said = f"the cluster of '{place.name}' has {joined} instances and {tasks} running tasks"
    if place.type == "UNMANAGED":
        inquiry.looked.append(said)
        what = f"The compute environment '{place.name}' is unmanaged, and no instance has joined its cluster."
        return None if joined else Cause(what, said, f"Start instances for its ECS cluster. {JOIN}", "likely")
    said += f", and Batch wants {place.desired_vcpus or 0} vCPU"
    inquiry.looked.append(said)
    if joined:
        return None
    if not place.desired_vcpus and waited_s <= BOOT_S:
        return None
    if not place.desired_vcpus:
        what = f"Batch does not ask EC2 for an instance of '{place.name}', though the job would fit."
        do = "Look in CloudTrail for what Batch's service role was denied; disable and enable the environment."
        return Cause(what, f"{said} after {seconds(waited_s)}", do, "possible")
    if waited_s <= BOOT_S:
        what = f"An instance for '{place.name}' is starting, which takes some minutes."
        return Cause(what, said, "Wait; ask again after ten minutes.", "possible")
    said += f", and {ended} instances were ended again" if ended else ""
    what = f"Instances of '{place.name}' start but do not join its ECS cluster."
    return Cause(what, f"{said} after {seconds(waited_s)}", JOIN, "likely")


def _launches(inquiry: Inquiry, place: ComputeEnvironment, since: datetime) -> tuple[str | None, int]:
    """What Auto Scaling says if the last instance could not be launched, and how many it has ended since then."""
    page = inquiry.ask("autoscaling", "describe_scaling_activities", MaxRecords=100)
    activities = [
        one
        for one in (page or {"Activities": []})["Activities"]
        if one["AutoScalingGroupName"].startswith(f"{place.name}-asg-") and one["StartTime"].astimezone(UTC) >= since
    ]
    if page is not None:
        inquiry.looked.append(f"Auto Scaling lists {len(activities)} activities of '{place.name}' since the job waits")
    ended = [one for one in activities if one.get("Description", "").startswith("Terminating")]
    launches = sorted((one for one in activities if one not in ended), key=lambda one: one["StartTime"])
    if not launches or launches[-1]["StatusCode"] not in ("Failed", "Cancelled"):
        return None, len(ended)
    return launches[-1].get("StatusMessage") or launches[-1].get("Description", "no reason given"), len(ended)
