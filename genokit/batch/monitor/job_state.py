"""What has been seen of jobs: pure functions from what was known and what the service answers to what is known now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from genokit.batch.cost import prices
from genokit.batch.resources import ComputeEnvironment, JobQueue
from genokit.display import plain

if TYPE_CHECKING:
    import pandas as pd

LIVE = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
ENDED = ("SUCCEEDED", "FAILED")
STATUSES = (*LIVE, *ENDED)
UNKNOWN = 255  # a child of an array that nobody has looked at


@dataclass(frozen=True)
class Attempt:
    """One try of a job: when it started and stopped (milliseconds since 1970), and how it ended."""

    started: int | None
    stopped: int | None
    exit_code: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Seen:
    """One job as it was last seen. ``counts`` are its children's where it is an array of ``size``."""

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
    vcpus: float = 0.0
    memory_gib: float = 0.0
    gpus: int = 0
    attempts: tuple[Attempt, ...] = ()
    stream: str = ""
    group: str = ""
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


@dataclass(frozen=True)
class Strip:
    """The states of an array's children, by index, put together from one listing a look.

    ``states`` holds a letter a child: its status's place in STATUSES, or UNKNOWN. A round lists every status but the
    commonest, which the rest then have; ``counts`` are the parent's when the last whole round began.
    """

    states: bytes
    counts: Mapping[str, int] | None = None
    draft: bytes = b""
    toward: Mapping[str, int] | None = None  # the counts of the round that is under way
    todo: tuple[str, ...] = ()  # the statuses that are left to list, and the commonest
    token: str | None = None

    @property
    def asks(self) -> str | None:
        """The status whose children must be listed next."""
        return self.todo[0] if len(self.todo) > 1 else None


def reason(*parts: str | None) -> str:
    """Why, in the service's words, each said once and plain enough for a terminal.

    >>> reason("Task failed", None, "exec: no such file"), reason("CannotStart", "CannotStart")
    ('Task failed: exec: no such file', 'CannotStart')
    """
    return plain(": ".join(dict.fromkeys(part for part in parts if part)))


def took_s(told: Mapping[str, Any], now: float | None = None) -> float | None:
    """Seconds from the start of a job to its end, or to ``now``; 0 where a clock was set back between them."""
    started, stopped = told.get("startedAt"), told.get("stoppedAt") or now
    return max(0.0, (stopped - started) / 1000) if started and stopped else None


def detailed(detail: Mapping[str, Any]) -> Seen:
    """A job as DescribeJobs tells it.

    >>> detailed({"jobId": "7", "jobName": "align", "status": "RUNNING", "createdAt": 5, "startedAt": 9, "container":
    ...           {"resourceRequirements": [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "512"}]}}).vcpus
    2.0
    """
    container = detail.get("container") or {}
    vcpus, memory, gpus = _asked(detail)
    array = detail.get("arrayProperties") or {}
    ended = [_attempt(one) for one in detail.get("attempts", [])]
    status = detail["status"]
    running = status == "RUNNING" and "startedAt" in detail and not array.get("size")
    return Seen(
        id=detail["jobId"],
        name=detail["jobName"],
        status=status,
        queue=str(detail.get("jobQueue", "")).rpartition("/")[2],
        created=detail.get("createdAt", 0),
        started=detail.get("startedAt"),
        stopped=detail.get("stoppedAt"),
        reason=reason(detail.get("statusReason"), container.get("reason")),
        exit_code=container.get("exitCode"),
        size=array.get("size") or 0,
        counts=_counts(array.get("statusSummary") or {}),
        vcpus=vcpus,
        memory_gib=memory,
        gpus=gpus,
        attempts=(*ended, Attempt(detail["startedAt"], None)) if running else tuple(ended),
        stream=container.get("logStreamName", ""),
        group=container.get("logConfiguration", {}).get("options", {}).get("awslogs-group", ""),
        described=True,
    )


def listed(summary: Mapping[str, Any], queue: str = "") -> Seen:
    """A job as ListJobs tells it, which is less."""
    return Seen(
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


def merged(known: Mapping[str, Seen], news: Iterable[Seen]) -> dict[str, Seen]:
    """What is known after the news: an ended job stays as it ended, and a listing takes no detail away.

    >>> ended = Seen("1", "a", "FAILED", described=True)
    >>> merged({"1": ended}, [Seen("1", "a", "RUNNING", described=True), Seen("2", "b", "RUNNABLE")])["1"] is ended
    True
    """
    now = dict(known)
    for one in news:
        old = now.get(one.id)
        if old is None or (one.described and not old.ended):
            now[one.id] = one
        elif not old.ended:
            told = {"status": one.status, "reason": one.reason, "started": one.started, "stopped": one.stopped}
            now[one.id] = replace(old, **told)  # type: ignore[arg-type]
    return now


def tally(jobs: Iterable[Seen]) -> dict[str, int]:
    """How many are in each status, in the order of a job's life; an array counts as its children.

    >>> tally([Seen("1", "a", "RUNNING"), Seen("2", "b", "PENDING", size=3, counts={"RUNNABLE": 2, "SUCCEEDED": 1})])
    {'SUBMITTED': 0, 'PENDING': 0, 'RUNNABLE': 2, 'STARTING': 0, 'RUNNING': 1, 'SUCCEEDED': 1, 'FAILED': 0}
    """
    total: Counter[str] = Counter()
    for job in jobs:
        total.update(job.counts if job.size and any(job.counts.values()) else {job.status: max(1, job.size)})
    return {status: total[status] for status in STATUSES}


# --- an array's strip


def asked(strip: Strip, counts: Mapping[str, int]) -> Strip:
    """The strip with a new round begun where the counts have changed and no round is under way."""
    counts = _counts(counts)
    if strip.todo or strip.counts == counts or not any(counts.values()):
        return strip
    there = sorted((status for status in STATUSES if counts[status]), key=counts.__getitem__)
    begun = replace(strip, draft=bytes([UNKNOWN]) * len(strip.states), toward=counts, todo=tuple(there))
    return begun if begun.asks else _whole(begun)


def told(strip: Strip, indices: Iterable[int], token: str | None) -> Strip:
    """The strip after one page of children in the status that it asked for.

    >>> strip = asked(Strip(bytes([UNKNOWN]) * 4), {"RUNNING": 1, "SUCCEEDED": 3})
    >>> strip.asks, states(told(strip, [2], None))
    ('RUNNING', {5: 3, 4: 1})
    """
    status = STATUSES.index(strip.todo[0])
    shown, draft = bytearray(strip.states), bytearray(strip.draft)
    for index in indices:
        if index < len(draft):
            shown[index] = draft[index] = status
    todo = strip.todo if token else strip.todo[1:]
    after = replace(strip, states=bytes(shown), draft=bytes(draft), todo=todo, token=token)
    return after if after.asks else _whole(after)


def states(strip: Strip) -> dict[int, int]:
    """How many children are in each state."""
    return dict(Counter(strip.states))


def _whole(strip: Strip) -> Strip:
    rest = STATUSES.index(strip.todo[-1])
    return Strip(strip.draft.replace(bytes([UNKNOWN]), bytes([rest])), counts=strip.toward)


def _counts(given: Mapping[str, int]) -> dict[str, int]:
    return {status: given.get(status, 0) for status in STATUSES}


def _attempt(told: Mapping[str, Any]) -> Attempt:
    code = (told.get("container") or {}).get("exitCode")
    return Attempt(told.get("startedAt"), told.get("stoppedAt"), code, reason(told.get("statusReason")))


# --- what a job asks for


def _asked(detail: Mapping[str, Any]) -> tuple[float, float, int]:
    """vCPU, GiB and GPUs of a job, of all its nodes where it has several."""
    nodes = detail.get("nodeProperties")
    if not nodes:
        return _container(detail.get("container") or {})
    total = [0.0, 0.0, 0]
    for one in nodes.get("nodeRangeProperties", []):
        first, _, last = str(one.get("targetNodes", "")).partition(":")
        count = int(last or nodes.get("numNodes", 1) - 1) - int(first or 0) + 1
        total = [sum_ + count * part for sum_, part in zip(total, _container(one.get("container") or {}), strict=True)]
    return total[0], total[1], int(total[2])


def _container(container: Mapping[str, Any]) -> tuple[float, float, int]:
    said = {one["type"]: float(one["value"]) for one in container.get("resourceRequirements", [])}
    memory = said.get("MEMORY", container.get("memory", 0)) / 1024
    return said.get("VCPU", float(container.get("vcpus", 0))), memory, int(said.get("GPU", 0))


# --- all of it at one moment


@dataclass(frozen=True)
class Snapshot:
    """What a watch knew at one moment; the same moment's ``jobs``, ``attempts`` and ``environments`` as tables."""

    version: int = 0
    at: datetime | None = None  # of the last look that succeeded
    seen: tuple[Seen, ...] = ()
    strips: Mapping[str, Strip] = field(default_factory=dict)
    queues: tuple[JobQueue, ...] = ()
    problem: str = ""  # why the last look failed
    unseen: int = 0  # jobs asked for by id that nobody has told of yet
    next_s: float | None = None  # seconds from that look to the next; None: nothing is left to look for
    by_events: bool = False
    calls_a_minute: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Jobs by status, an array's children each for itself."""
        return tally(self.seen)

    @property
    def over(self) -> bool:
        """Whether every job has ended."""
        return self.at is not None and not self.unseen and all(job.ended for job in self.seen)

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """A row a job, newest first; times are UTC."""
        rows = [
            (job.id, job.name, job.queue, job.status, job.created, job.started, job.stopped, job.exit_code, job.reason,
             job.size or None, job.vcpus, job.memory_gib, job.gpus)
            for job in self.seen
        ]  # fmt: skip
        names = "job_id name queue status created started stopped exit_code reason size vcpus memory_gib gpus"
        return _table(rows, names, moments=("created", "started", "stopped"), whole=("exit_code", "size"))

    @property
    def tries(self) -> list[tuple[Seen, int, Attempt, str]]:
        """Every attempt that has started, oldest first: its job, its number, itself, and how it ended, or RUNNING."""
        found = [
            (job, number, one, _ending(job, number))
            for job in self.seen
            for number, one in enumerate(_attempts(job), start=1)
            if one.started
        ]
        return sorted(found, key=lambda one: one[2].started or 0)

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """A row an attempt that has started, oldest first; ``status`` is how it ended, or RUNNING."""
        rows = [
            (job.id, job.name, job.queue, number, status, one.started, one.stopped, one.exit_code, one.reason)
            for job, number, one, status in self.tries
        ]
        names = "job_id name queue attempt status started stopped exit_code reason"
        return _table(rows, names, moments=("started", "stopped"), whole=("exit_code",))

    @cached_property
    def environments(self) -> pd.DataFrame:
        """A row a compute environment that these jobs may run in. Its memory is an upper bound, where one is known."""
        rows = [
            (one.name, one.type, one.status, one.max_vcpus, one.desired_vcpus, memory_gib(one)) for one in self.places
        ]
        return _table(rows, "environment type status max_vcpus desired_vcpus memory_gib")

    @property
    def places(self) -> list[ComputeEnvironment]:
        """The compute environments of the queues, each once."""
        return list({place.arn: place for queue in self.queues for place in queue.environments}.values())

    @property
    def room(self) -> tuple[float | None, float | None]:
        """vCPU and GiB that these environments have together at most; None: nobody says."""
        vcpus = [one.max_vcpus for one in self.places]
        memory = [memory_gib(one) for one in self.places]
        return _sum(vcpus), _sum(memory)

    @property
    def used(self) -> tuple[float, float, int]:
        """vCPU, GiB and GPUs that the jobs at work were given."""
        busy = [(job, job.at_work) for job in self.seen]
        return (
            sum(job.vcpus * n for job, n in busy),
            sum(job.memory_gib * n for job, n in busy),
            sum(job.gpus * n for job, n in busy),
        )


def memory_gib(place: ComputeEnvironment) -> float | None:
    """The most memory that jobs can have there together: what it says itself, or what its richest instances hold."""
    if place.room:
        return place.room.memory_mib / 1024
    known, unknown = prices.expand(place.instance_types)
    if not known or unknown or place.max_vcpus is None:
        return None
    return place.max_vcpus * max(one.job_memory_gib / one.vcpus for one in known)


def _sum(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None


def _attempts(job: Seen) -> tuple[Attempt, ...]:
    """The attempts of a job; an array counts as one, from its beginning on."""
    if job.size:
        return (Attempt(job.started or job.created, job.stopped),) if job.at_work or job.stopped else ()
    return job.attempts


def _ending(job: Seen, number: int) -> str:
    tries = _attempts(job)
    one = tries[number - 1]
    if one.stopped is None:
        return "RUNNING"
    return job.status if number == len(tries) and job.status in ENDED else "FAILED"


def _table(
    rows: list[tuple[Any, ...]], names: str, *, moments: Sequence[str] = (), whole: Sequence[str] = ()
) -> pd.DataFrame:
    import pandas as pd

    from genokit.frames import Frame

    table = Frame(rows, columns=names.split())
    for column in (*moments, *whole):
        table[column] = table[column].astype("Int64")
    for column in moments:
        table[column] = pd.to_datetime(table[column], unit="ms", utc=True)
    return table
