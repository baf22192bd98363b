"""Why a RUNNABLE job waits: its queue, its environments, their capacity, and the instances that should come.

Every look tells what it found, or that it could not look; nothing here raises for want of a permission.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from itertools import islice

from genokit.batch import listing, resources
from genokit.batch.diagnose.findings import Finding
from genokit.batch.diagnose.inquiry import Inquiry
from genokit.batch.diagnose.known_reasons import meaning
from genokit.batch.diagnose.obstacles import walk
from genokit.batch.job_state import STATUSES, detailed
from genokit.batch.requirements import Capacity, ResourceRequest, requested
from genokit.batch.resources import ComputeEnvironment, JobQueue
from genokit.display import seconds

BOOT_S = 600  # after which an instance should have joined its cluster
MOST = 1000  # jobs of a queue that are looked at
JOIN = (
    "Give the subnets a route to ECS: instances with public IPs (auto-assign public IPv4) and an internet gateway, a "
    "NAT gateway, or VPC endpoints. Make sure that the instance profile's role has AmazonEC2ContainerServiceforEC2Role "
    "and that the AMI has the ECS agent. The console output of one instance shows user data that fails."
)


def look(inquiry: Inquiry, waited_s: float) -> None:
    """Look at everything that may keep a RUNNABLE job waiting."""
    name, reason = inquiry.detail["jobQueue"].rpartition("/")[2], inquiry.detail.get("statusReason", "")
    blocked = meaning("blocked", reason, f"statusReason '{reason}'")
    if reason:
        inquiry.note(f"The job's statusReason is '{reason}'.")
    queues = inquiry.ask("job queues", lambda: resources.queues(inquiry.clients))
    if queues is None:
        inquiry.findings.extend([blocked] if blocked else [])
        return
    queue = next((one for one in queues if one.name == name), None)
    if queue is None:
        inquiry.note(f"The queue '{name}' is gone.", "certain", "the list of queues", "Submit the job to another.")
        return
    request = requested(inquiry.detail)
    findings, places = walk(queue, request, submitted=True)
    inquiry.findings.extend(findings)
    if blocked and not inquiry.certain:
        _blocked(inquiry, blocked, findings[-1], waited_s)
    if places and not inquiry.certain:
        inquiry.ask("jobs of the queue", lambda: _turn(inquiry, queue, queues, places, request))
    if waited_s > inquiry.clients.backend.grace_s and not inquiry.certain:
        for place in places:
            if place.capacity is None:
                _instances(inquiry, place, waited_s)


def _blocked(inquiry: Inquiry, blocked: Finding, size: Finding, waited_s: float) -> None:
    """What AWS itself says of a job that it cannot place."""
    if "_RESOURCE" in blocked.evidence and size.sure == "ok":
        what = (
            "Batch says that the job is too large for its queue, and by the sizes known here it is not. Batch says so "
            "too while the first instance for a job still starts."
        )
        evidence = f"{blocked.evidence}; {size.what}"
        blocked = replace(blocked, what=what, evidence=evidence, sure="possible" if waited_s < 2 * BOOT_S else "likely")
    if "ACTION_REQUIRED" not in blocked.evidence and "COMPUTE_ENVIRONMENT - " not in blocked.evidence:
        inquiry.findings.append(blocked)  # those two are of a time when no environment took jobs


def _turn(
    inquiry: Inquiry,
    queue: JobQueue,
    queues: Sequence[JobQueue],
    places: Sequence[ComputeEnvironment],
    request: ResourceRequest | None,
) -> None:
    """Whether other jobs use the capacity, or stand before this one."""
    here = any(place.capacity for place in places)  # one machine, which all environments share
    names = {place.name for place in places}
    if queue.policy:
        inquiry.note(f"The queue shares by the policy '{queue.policy}': whoever has had less goes first.")
    listed = [
        (one, job)
        for one in queues
        if here or names & {place.name for place in one.environments}
        for job in islice(listing.in_queue(inquiry.clients, one.name, *STATUSES[4:0:-1]), MOST)
    ]
    created = inquiry.detail["createdAt"]
    ahead = [
        job
        for one, job in listed
        if job["status"] == "RUNNABLE"
        and (one.priority > queue.priority or (one is queue and job["createdAt"] < created))
        # Here no job waits for another that can never start.
        and not (here and meaning("blocked", job.get("statusReason", "")))
    ]
    # Children of arrays are listed under their parents only, which are PENDING.
    ids = [job["jobId"] for _, job in listed if job["status"] != "RUNNABLE"]
    states = [detailed(job) for job in listing.described(inquiry.clients, ids)]
    working, used = sum(one.at_work for one in states), sum((one.capacity * one.at_work for one in states), Capacity())
    waiting = len(ahead) + sum(one.counts["RUNNABLE"] for one in states if one.created < created)
    sizes = ", ".join(f"'{one.name}' has {one.capacity or f'at most {one.max_vcpus} vCPU'}" for one in places)
    said = f"Other jobs at work: {working}, which use {used}; waiting before this one: {waiting}; {sizes}."
    inquiry.note(said)
    wanted = used + (request.total if request else Capacity())
    if all(_is_full(place, wanted, working, waiting) for place in places):
        what = f"The capacity is in use. Other jobs at work: {working}; waiting before this one: {waiting}."
        do = "Wait; or cancel what is not needed, raise maxvCpus, or use another queue."
        inquiry.note(what, "certain" if here else "likely", said, do)
    elif ahead and not here:
        first = min(ahead, key=lambda job: job["createdAt"])
        if meaning("blocked", first.get("statusReason", "")):
            what = f"The job '{first['jobName']}' at the head of the queue cannot start, and blocks those behind it."
            do = f"Cancel it, or see why: Batch().job('{first['jobId']}').explain()."
            inquiry.note(what, "likely", f"its statusReason is '{first['statusReason']}'", do)


def _is_full(place: ComputeEnvironment, wanted: Capacity, working: int, waiting: int) -> bool:
    if place.capacity:
        return bool(wanted.excess(place.capacity)) or waiting > 0
    return working > 0 and place.max_vcpus is not None and wanted.vcpus > place.max_vcpus


def _instances(inquiry: Inquiry, place: ComputeEnvironment, waited_s: float) -> None:
    """Whether instances start, and join the environment's cluster."""
    if place.type in ("EC2", "SPOT"):
        failed = inquiry.ask("autoscaling", lambda: _failed_launch(inquiry, place, waited_s))
        if failed:
            evidence = f"Auto Scaling of '{place.name}': {failed}"
            do = "Try to launch one instance by hand with the environment's settings; EC2 then says what is wrong."
            other = Finding("EC2 could not launch an instance.", evidence, do, "likely")
            inquiry.findings.append(meaning("launches", failed, evidence) or other)
            return
    if place.cluster and place.type in ("EC2", "SPOT", "UNMANAGED"):
        inquiry.ask("ecs", lambda: _cluster(inquiry, place, waited_s))


def _failed_launch(inquiry: Inquiry, place: ComputeEnvironment, waited_s: float) -> str:
    """What Auto Scaling says if the last instance since the job waits could not be launched."""
    page = inquiry.clients.client("autoscaling").describe_scaling_activities(MaxRecords=100)
    launches = [
        one
        for one in page["Activities"]
        if one["AutoScalingGroupName"].startswith(f"{place.name}-asg-")
        and one["StartTime"].astimezone(UTC) >= inquiry.now - timedelta(seconds=waited_s)
        and not one.get("Description", "").startswith("Terminating")
    ]
    last = max(launches, key=lambda one: one["StartTime"], default=None)
    if last is None or last["StatusCode"] not in ("Failed", "Cancelled"):
        return ""
    return str(last.get("StatusMessage") or last.get("Description", "no reason given"))


def _cluster(inquiry: Inquiry, place: ComputeEnvironment, waited_s: float) -> None:
    """What the number of instances in an environment's cluster tells."""
    clusters = inquiry.clients.client("ecs").describe_clusters(clusters=[place.cluster])["clusters"]
    joined, wants = sum(one["registeredContainerInstancesCount"] for one in clusters), place.desired_vcpus or 0
    said = f"'{place.name}' has {joined} instances in its ECS cluster, and Batch wants {wants} vCPU"
    said += f", after {seconds(waited_s)}"
    inquiry.note(said)
    if joined:
        return
    if place.type == "UNMANAGED" or (wants and waited_s > BOOT_S):
        inquiry.note(f"No instance of '{place.name}' has joined its ECS cluster.", "likely", said, JOIN)
    elif wants:
        what = f"An instance for '{place.name}' is starting, which takes some minutes."
        inquiry.note(what, "possible", said, "Wait; ask again after ten minutes.")
    elif waited_s > BOOT_S:
        what = f"Batch does not ask EC2 for an instance of '{place.name}', though the job would fit."
        do = "Look in CloudTrail for what Batch's service role was denied; disable and enable the environment."
        inquiry.note(what, "possible", said, do)
