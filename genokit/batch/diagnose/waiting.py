"""Why a RUNNABLE job waits: its queue, its environments, their room, and the instances that should come.

Every look tells what it found, or that it could not look; nothing here raises for want of a permission.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch import resources
from genokit.batch.diagnose import fit
from genokit.batch.diagnose.fit import Asked, Fit
from genokit.batch.diagnose.known_reasons import Cause, Sure, meaning
from genokit.batch.resources import GONE, ComputeEnvironment, JobQueue
from genokit.display import seconds
from genokit.errors import GenokitError

BOOT_S = 600  # after which an instance should have joined its cluster
DESCRIBED = 300  # jobs at most whose sizes are summed
LESS = "Ask for less (vcpus, memory_gib, gpus), or submit to a queue whose instances are larger."
JOIN = (
    "Give the subnets a way to ECS: instances with public IPs (auto-assign public IPv4) and an internet gateway, or a "
    "NAT gateway, or VPC endpoints. See that the instance profile's role has AmazonEC2ContainerServiceforEC2Role, and "
    "that the AMI has the ECS agent. The console output of one instance shows user data that fails."
)
ELSEWHERE = (
    "whether instances are in the cluster: console, Elastic Container Service, Clusters, AWSBatch-...",
    "why an instance did not start: console, EC2, Auto Scaling groups, ...-asg-..., Activity",
    "how many vCPUs the account may have: console, Service Quotas, Amazon EC2",
    "AWS's own list: https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html",
)


@dataclass
class Notes:
    """What an explanation has gathered: causes, what was looked at and found, what could not be looked at and where to
    look on."""

    causes: list[Cause] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def ask(self, clients: Clients, service: str, operation: str, **request: Any) -> dict[str, Any] | None:
        """The answer of a service; None, and a note, where it gives none."""
        try:
            with translated_errors(f"{service} {operation}"):
                answer: dict[str, Any] = getattr(clients.client(service), operation)(**request)
                return answer
        except (GenokitError, NotImplementedError) as error:
            self.unread.append(str(error))
            return None

    @property
    def certain(self) -> bool:
        return any(cause.sure == "certain" for cause in self.causes)


def look(clients: Clients, detail: Mapping[str, Any], waited_s: float, now: datetime, notes: Notes) -> None:
    """Look at everything that may keep a RUNNABLE job waiting, and note it."""
    try:
        queues = resources.queues(clients)
    except GenokitError as error:
        notes.unread.append(str(error))
        notes.elsewhere += ELSEWHERE
        queues = []
    reason = detail.get("statusReason", "")
    if reason:
        notes.looked.append(f"the job's statusReason is '{reason}'")
    blocked = meaning("blocked", reason, f"statusReason '{reason}'")
    name = detail["jobQueue"].rpartition("/")[2]
    queue = next((one for one in queues if one.name == name), None)
    if queue is None:
        if queues:
            notes.causes.append(
                Cause(f"The queue '{name}' is gone.", "the list of queues", "Submit it to another.", "certain")
            )
        if blocked:
            notes.causes.append(blocked)
        return
    _queue(queue, notes)
    usable = _places(queue, notes)
    job = fit.asked(detail)
    fits = {place.name: fit.fit(job, place) for place in usable} if job else {}
    _room(job, usable, fits, notes)
    _blocked(blocked, fits, waited_s, notes)
    open_to_it = [place for place in usable if place.name not in fits or fits[place.name].verdict != "never"]
    if open_to_it and not notes.certain:
        _turn(clients, detail, queue, queues, open_to_it, job, notes)
    if open_to_it and not notes.certain and waited_s > clients.grace_s:
        for place in open_to_it:
            _instances(clients, place, waited_s, now, notes)


def _queue(queue: JobQueue, notes: Notes) -> None:
    about = f"the queue '{queue.name}' is {queue.state} and {queue.status}"
    if queue.status in GONE:
        what = f"The queue '{queue.name}' is {queue.status}."
        notes.causes.append(Cause(what, queue.reason or about, "Submit the job to another queue.", "likely"))
    elif queue.state != "ENABLED":
        notes.looked.append(f"{about}: it takes no new jobs, and those in it may start")
    else:
        notes.looked.append(about)


def _places(queue: JobQueue, notes: Notes) -> list[ComputeEnvironment]:
    """The environments that take jobs; for the others, why not."""
    usable = [place for place in queue.environments if place.usable]
    sure: Sure = "possible" if usable else "certain"
    for place in queue.environments:
        state = f"'{place.name}' is {place.state} and {place.status}, {place.reason or 'without a reason'}"
        if place in usable:
            notes.looked.append(f"the environment {state}")
        elif place.state != "ENABLED":
            what = f"The compute environment '{place.name}' is {place.state}, so no job starts there."
            do = f"Enable it: update_compute_environment(computeEnvironment='{place.name}', state='ENABLED')."
            notes.causes.append(Cause(what, f"the environment {state}", do, sure))
        elif place.status in GONE:
            known = meaning("invalid", place.reason, f"the environment {state}")
            what = f"The compute environment '{place.name}' is {place.status}, so no job starts there."
            do = "Repair what its reason names, or take another environment into the queue."
            cause = (
                replace(known, what=f"{what} {known.what}")
                if known
                else Cause(what, f"the environment {state}", do, "certain")
            )
            notes.causes.append(replace(cause, sure=sure) if usable else cause)
        else:
            what = f"The compute environment '{place.name}' has maxvCpus 0, so no job starts there."
            notes.causes.append(Cause(what, f"the environment {state}", "Raise its maxvCpus.", sure))
    if not queue.environments:
        notes.looked.append(f"the queue '{queue.name}' has no environment that could be read")
    return usable


def _room(job: Asked | None, usable: Sequence[ComputeEnvironment], fits: Mapping[str, Fit], notes: Notes) -> None:
    """Whether it can ever start, by its size alone."""
    if job is None:
        notes.looked.append("the job does not say vCPU and memory in a way that is known here")
        return
    notes.looked.append(f"the job asks for {job}")
    verdicts = {one.verdict for one in fits.values()}
    sizes = "; ".join(f"{place.name}: {', '.join(place.instance_types) or place.reason}" for place in usable)
    if verdicts == {"never"}:
        whys = " ".join(dict.fromkeys(one.why for one in fits.values()))
        notes.causes.append(Cause(whys, f"the job asks for {job}; {sizes}", LESS, "certain"))
    elif verdicts and verdicts <= {"never", "tight"}:
        why = next(one.why for one in fits.values() if one.verdict == "tight")
        notes.causes.append(Cause(why, f"the job asks for {job}; {sizes}", "Ask for a little less memory.", "likely"))
    else:
        notes.looked += [one.why for one in fits.values() if one.verdict == "unknown"]


def _blocked(blocked: Cause | None, fits: Mapping[str, Fit], waited_s: float, notes: Notes) -> None:
    """What AWS itself says of a job that it cannot place."""
    if blocked is None or notes.certain:
        return
    fitting = next((one.why for one in fits.values() if one.verdict == "fits"), None)
    if fitting is None or "CAPACITY:" in blocked.evidence:
        notes.causes.append(blocked)
    elif "_RESOURCE" in blocked.evidence:
        what = (
            "Batch says that the job is too large for its queue, and by the sizes known here it is not. Batch says so "
            "too while the first instance for a job still starts."
        )
        sure: Sure = "possible" if waited_s < 2 * BOOT_S else "likely"
        do = "Wait some minutes. If it stays, " + LESS[0].lower() + LESS[1:]
        notes.causes.append(Cause(what, f"{blocked.evidence}; {fitting}", do, sure))
    elif "ACTION_REQUIRED" not in blocked.evidence and "COMPUTE_ENVIRONMENT - " not in blocked.evidence:
        notes.causes.append(blocked)  # those two are of a time when no environment took jobs


# --- whose turn it is


@dataclass(frozen=True)
class Usage:
    """What the jobs of some queues use now, how many jobs that is, and how many wait before this one."""

    vcpus: float
    memory_mib: float
    gpus: int
    jobs: int
    ahead: int
    first: dict[str, Any] | None
    whole: bool


def _turn(
    clients: Clients,
    detail: Mapping[str, Any],
    queue: JobQueue,
    queues: Sequence[JobQueue],
    places: Sequence[ComputeEnvironment],
    job: Asked | None,
    notes: Notes,
) -> None:
    """Whether others have the room, or stand before it."""
    names = {place.name for place in places}
    here = any(place.room for place in places)  # then all environments share one machine
    if queue.policy:
        notes.looked.append(f"the queue shares by the policy '{queue.policy}': who has had less goes first")
    others = [one for one in queues if here or names & {place.name for place in one.environments}]
    used = _usage(clients, detail, queue, others, here, notes)
    if used is None:
        return
    before = f"{_count(used.ahead, 'waits', 'wait')} before this one"
    room = f"{'' if used.whole else 'at least '}{_amount(used.vcpus, used.memory_mib, used.gpus)}"
    said = f"{_count(used.jobs, 'other job uses', 'other jobs use')} {room}" if used.jobs else "no other job runs"
    said += f", {before}; " + "; ".join(f"'{one.name}' has {_size(one)}" for one in places)
    notes.looked.append(said)
    if job and all(_is_full(place, job, used) for place in places):
        taken = f"The room is taken by {_count(used.jobs, 'other job', 'other jobs')}"
        what = f"{taken if used.jobs else 'It is not its turn'}{f', and {before}' if used.ahead else ''}."
        do = "Wait for its turn; or cancel what is not needed, raise maxvCpus, or use another queue."
        notes.causes.append(Cause(what, said, do, "certain" if here else "likely"))
    elif used.first is not None and not here:
        blocked = meaning("blocked", used.first.get("statusReason", ""), "")
        if blocked:
            what = (
                f"The job '{used.first['jobName']}' at the head of the queue cannot start, and holds those behind it."
            )
            evidence = f"its statusReason is '{used.first['statusReason']}'"
            do = f"Cancel it, or help it: Batch().job('{used.first['jobId']}').explain()."
            notes.causes.append(Cause(what, evidence, do, "likely"))


def _is_full(place: ComputeEnvironment, job: Asked, used: Usage) -> bool:
    if place.room is None:
        return place.max_vcpus is not None and used.vcpus + job.total.vcpus > place.max_vcpus and used.jobs > 0
    vcpus = used.vcpus + job.total.vcpus > place.room.vcpus
    memory = used.memory_mib + job.total.memory_mib > place.room.memory_mib
    return vcpus or memory or used.gpus + job.total.gpus > place.room.gpus or used.ahead > 0


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}" if number else f"none {one}"


def _amount(vcpus: float, memory_mib: float, gpus: int) -> str:
    memory = f"{memory_mib:.12g} MiB"
    return f"{vcpus:g} vCPU, {memory} and {gpus} GPU" if gpus else f"{vcpus:g} vCPU and {memory}"


def _size(place: ComputeEnvironment) -> str:
    if place.room:
        return _amount(place.room.vcpus, place.room.memory_mib, place.room.gpus)
    return f"{place.desired_vcpus} of at most {place.max_vcpus:g} vCPU" if place.max_vcpus else "an unknown size"


def _usage(
    clients: Clients, detail: Mapping[str, Any], queue: JobQueue, queues: Sequence[JobQueue], here: bool, notes: Notes
) -> Usage | None:
    mine = {detail["jobId"], re.split("[:#]", detail["jobId"])[0]}  # its array or multi-node job is no other job
    working: list[str] = []
    ahead: list[dict[str, Any]] = []
    whole = True
    for one in queues:
        for status in ("PENDING", "RUNNABLE", "STARTING", "RUNNING"):
            page = notes.ask(clients, "batch", "list_jobs", jobQueue=one.name, jobStatus=status)
            if page is None:
                return None
            whole = whole and not page.get("nextToken")
            listed = [job for job in page["jobSummaryList"] if job["jobId"] not in mine]
            if status == "RUNNABLE":
                if here:  # one machine lets nobody wait for a job that it can never start
                    listed = [job for job in listed if not meaning("blocked", job.get("statusReason", ""), "")]
                earlier = [job for job in listed if job["createdAt"] < detail["createdAt"]]
                ahead += earlier if one.name == queue.name else listed if one.priority > queue.priority else []
            elif status != "PENDING":
                working += [job["jobId"] for job in listed]
            else:
                working += [job["jobId"] for job in listed if job.get("arrayProperties", {}).get("size")]
    # Children of arrays are listed under their parents only.
    if ":" in detail["jobId"]:
        working.append(detail["jobId"].partition(":")[0])
    vcpus = memory_mib = 0.0
    gpus = jobs = waiting = 0
    for job in described(clients, working[:DESCRIBED], notes):
        size, counts = fit.asked(job), job.get("arrayProperties", {}).get("statusSummary")
        running = counts.get("RUNNING", 0) + counts.get("STARTING", 0) if counts else 1
        waiting += counts.get("RUNNABLE", 0) if counts and job["createdAt"] < detail["createdAt"] else 0
        jobs += running
        if size:
            vcpus += size.total.vcpus * running
            memory_mib += size.total.memory_mib * running
            gpus += size.total.gpus * running
    first = min((job for job in ahead), key=lambda job: job["createdAt"], default=None)
    return Usage(vcpus, memory_mib, gpus, jobs, len(ahead) + waiting, first, whole and len(working) <= DESCRIBED)


def described(clients: Clients, ids: Sequence[str], notes: Notes) -> Iterator[dict[str, Any]]:
    """Jobs by their ids, a hundred a call; those that the service has forgotten are left out."""
    for start in range(0, len(ids), 100):
        page = notes.ask(clients, "batch", "describe_jobs", jobs=list(ids[start : start + 100]))
        yield from (page or {"jobs": []})["jobs"]


# --- the instances that should come


def _instances(clients: Clients, place: ComputeEnvironment, waited_s: float, now: datetime, notes: Notes) -> None:
    """Whether instances start, and join the environment's cluster."""
    if place.room is not None:
        return
    notes.elsewhere += ELSEWHERE
    failed, ended = None, 0
    if place.type in ("EC2", "SPOT"):
        failed, ended = _launches(clients, place, now - timedelta(seconds=waited_s), notes)
    if failed:
        evidence = f"Auto Scaling of '{place.name}': {failed}"
        do = "Try to launch one instance by hand with the environment's settings; EC2 then says what is wrong."
        known = meaning("launches", failed, evidence)
        notes.causes.append(known or Cause("EC2 could not launch an instance.", evidence, do, "likely"))
    if place.cluster and place.type in ("EC2", "SPOT", "UNMANAGED"):
        answer = notes.ask(clients, "ecs", "describe_clusters", clusters=[place.cluster])
        if answer is not None:
            cause = _cluster(place, answer.get("clusters", []), waited_s, ended, notes)
            notes.causes += [cause] if cause and not (failed and cause.sure == "possible") else []


def _cluster(
    place: ComputeEnvironment, clusters: Sequence[dict[str, Any]], waited_s: float, ended: int, notes: Notes
) -> Cause | None:
    """What the number of instances in an environment's cluster tells."""
    active = [one for one in clusters if one.get("status") != "INACTIVE"]
    if not active:
        what = f"The ECS cluster of the compute environment '{place.name}' is gone."
        do = "Disable and enable the environment, or make it anew; nobody should delete its cluster."
        return Cause(what, f"ECS knows no active cluster {place.cluster}", do, "likely")
    joined, tasks = active[0].get("registeredContainerInstancesCount", 0), active[0].get("runningTasksCount", 0)
    said = f"the cluster of '{place.name}' has {joined} instances and {tasks} running tasks"
    if place.type == "UNMANAGED":
        notes.looked.append(said)
        what = f"The compute environment '{place.name}' is unmanaged, and no instance has joined its cluster."
        return None if joined else Cause(what, said, f"Start instances for its ECS cluster. {JOIN}", "likely")
    said += f", and Batch wants {place.desired_vcpus or 0} vCPU"
    notes.looked.append(said)
    if joined:
        return None
    if not place.desired_vcpus and waited_s <= BOOT_S:
        return None
    if not place.desired_vcpus:
        what = f"Batch does not ask EC2 for an instance of '{place.name}', though the job would fit."
        do = "See in CloudTrail what Batch's service role was refused; disable and enable the environment."
        return Cause(what, f"{said} after {seconds(waited_s)}", do, "possible")
    if waited_s <= BOOT_S:
        what = f"An instance for '{place.name}' is on its way: starting one takes some minutes."
        return Cause(what, said, "Wait; ask again after ten minutes.", "possible")
    said += f", and {ended} instances were ended again" if ended else ""
    what = f"Instances of '{place.name}' start and do not join its ECS cluster."
    return Cause(what, f"{said} after {seconds(waited_s)}", JOIN, "likely")


def _launches(clients: Clients, place: ComputeEnvironment, since: datetime, notes: Notes) -> tuple[str | None, int]:
    """What Auto Scaling says if the last instance could not be launched, and how many it has ended since then."""
    page = notes.ask(clients, "autoscaling", "describe_scaling_activities", MaxRecords=100)
    told = [
        one
        for one in (page or {"Activities": []})["Activities"]
        if one["AutoScalingGroupName"].startswith(f"{place.name}-asg-") and one["StartTime"].astimezone(UTC) >= since
    ]
    if page is not None:
        notes.looked.append(f"Auto Scaling tells {len(told)} activities of '{place.name}' since the job waits")
    ended = [one for one in told if one.get("Description", "").startswith("Terminating")]
    launches = sorted((one for one in told if one not in ended), key=lambda one: one["StartTime"])
    if not launches or launches[-1]["StatusCode"] not in ("Failed", "Cancelled"):
        return None, len(ended)
    return launches[-1].get("StatusMessage") or launches[-1].get("Description", "no reason given"), len(ended)
