"""How a job stands, read from what the service answers: pure functions and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from genokit.batch.requirements import Capacity, requested
from genokit.display import plain

LIVE = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
ENDED = ("SUCCEEDED", "FAILED")
STATUSES = (*LIVE, *ENDED)
LOG_GROUP = "/aws/batch/job"  # where Batch writes unless a definition says otherwise


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job: when it started and stopped (milliseconds since 1970), and how it ended."""

    started: int | None
    stopped: int | None
    exit_code: int | None = None
    reason: str = ""
    stream: str = ""


@dataclass(frozen=True)
class JobState:
    """How one job stood when it was last read. ``counts`` are its children's where it is an array of ``size``."""

    id: str
    name: str
    status: str
    queue: str = ""
    created: int = 0
    started: int | None = None
    stopped: int | None = None
    reason: str = ""
    exit_code: int | None = None
    size: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    capacity: Capacity = field(default_factory=Capacity)
    attempts: tuple[Attempt, ...] = ()  # those that have ended
    stream: str = ""
    group: str = LOG_GROUP
    described: bool = False  # a listing says less than DescribeJobs

    @property
    def ended(self) -> bool:
        """Whether nothing more can be learnt of it."""
        return self.status in ENDED and self.described

    @property
    def at_work(self) -> int:
        """How many processes of it hold vCPU and memory now."""
        counts = self.counts if self.size else {self.status: 1}
        return counts.get("STARTING", 0) + counts.get("RUNNING", 0)

    @property
    def tries(self) -> tuple[Attempt, ...]:
        """All attempts, the one that runs included; an array counts as one, from its beginning on."""
        if self.size:
            return (Attempt(self.started or self.created, self.stopped),) if self.at_work or self.stopped else ()
        running = (Attempt(self.started, None),) if self.status == "RUNNING" and self.started else ()
        return self.attempts + running

    def ending_of(self, number: int) -> str:
        """The status that attempt ``number``, from 1 on, ended with; or RUNNING."""
        if self.tries[number - 1].stopped is None:
            return "RUNNING"
        return self.status if number == len(self.tries) and self.status in ENDED else "FAILED"


def reason(*parts: str | None) -> str:
    """Why, in the service's words, each said once and plain enough for a terminal.

    >>> reason("Task failed", None, "exec: no such file"), reason("CannotStart", "CannotStart")
    ('Task failed: exec: no such file', 'CannotStart')
    """
    return plain(": ".join(dict.fromkeys(part for part in parts if part)))


def took_s(times: Mapping[str, Any], now: float | None = None) -> float | None:
    """Seconds from the start of a job to its end, or to ``now``; 0 where a clock was set back between them."""
    started, stopped = times.get("startedAt"), times.get("stoppedAt") or now
    return max(0.0, (stopped - started) / 1000) if started and stopped else None


def detailed(detail: Mapping[str, Any]) -> JobState:
    """A job as DescribeJobs returns it.

    >>> size = {"resourceRequirements": [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "512"}]}
    >>> detailed({"jobId": "7", "jobName": "align", "status": "RUNNING", "createdAt": 5, "container": size}).capacity
    Capacity(vcpus=2.0, memory_mib=512.0, gpus=0)
    """
    attempts = detail.get("attempts", [])
    # A job of several nodes has no container of its own: its attempts are those of its main node.
    ended = attempts[-1].get("container", {}) if attempts and "nodeProperties" in detail else {}
    container = detail.get("container") or ended
    request = requested(detail)
    summary = (detail.get("arrayProperties") or {}).get("statusSummary") or {}
    return replace(
        listed(detail, str(detail.get("jobQueue", "")).rpartition("/")[2]),
        reason=reason(detail.get("statusReason"), container.get("reason")),
        exit_code=container.get("exitCode"),
        counts=all_statuses(summary),
        capacity=request.total if request else Capacity(),
        attempts=tuple(map(_attempt, attempts)),
        stream=container.get("logStreamName", ""),
        group=container.get("logConfiguration", {}).get("options", {}).get("awslogs-group", LOG_GROUP),
        described=True,
    )


def listed(summary: Mapping[str, Any], queue: str = "") -> JobState:
    """A job as ListJobs returns it, which is less."""
    return JobState(
        id=summary["jobId"],
        name=summary["jobName"],
        status=summary["status"],
        queue=queue,
        created=summary.get("createdAt", 0),
        started=summary.get("startedAt"),
        stopped=summary.get("stoppedAt"),
        reason=reason(summary.get("statusReason")),
        exit_code=(summary.get("container") or {}).get("exitCode"),
        size=(summary.get("arrayProperties") or {}).get("size") or 0,
    )


def merged(known: Mapping[str, JobState], news: Iterable[JobState]) -> dict[str, JobState]:
    """What is known after the news: an ended job stays as it ended.

    >>> ended = JobState("1", "a", "FAILED", described=True)
    >>> again = [JobState("1", "a", "RUNNING", described=True), JobState("2", "b", "RUNNABLE")]
    >>> merged({"1": ended}, again)["1"] is ended
    True
    """
    return {**known, **{one.id: one for one in news if one.id not in known or not known[one.id].ended}}


def tally(jobs: Iterable[JobState]) -> dict[str, int]:
    """How many are in each status, in the order of a job's life; an array counts as its children.

    >>> array = JobState("2", "b", "PENDING", size=3, counts={"RUNNABLE": 2, "SUCCEEDED": 1})
    >>> tally([JobState("1", "a", "RUNNING"), array])
    {'SUBMITTED': 0, 'PENDING': 0, 'RUNNABLE': 2, 'STARTING': 0, 'RUNNING': 1, 'SUCCEEDED': 1, 'FAILED': 0}
    """
    total: Counter[str] = Counter()
    for job in jobs:
        total.update(job.counts if job.size and any(job.counts.values()) else {job.status: max(1, job.size)})
    return all_statuses(total)


def all_statuses(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by status, with those that are not there at 0."""
    return {status: counts.get(status, 0) for status in STATUSES}


def _attempt(one: Mapping[str, Any]) -> Attempt:
    container = one.get("container") or {}
    why = reason(one.get("statusReason"), container.get("reason"))
    code, stream = container.get("exitCode"), container.get("logStreamName", "")
    return Attempt(one.get("startedAt"), one.get("stoppedAt"), code, why, stream)
