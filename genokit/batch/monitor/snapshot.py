"""What a watch knew at one moment, as states and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from genokit.batch.cost import prices
from genokit.batch.job_state import Attempt, JobState, tally
from genokit.batch.monitor.array_states import ArrayStates
from genokit.batch.requirements import Capacity
from genokit.batch.resources import ComputeEnvironment, JobQueue

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Snapshot:
    """What a watch knew at one moment; its ``jobs``, ``attempts`` and ``environments`` are tables."""

    version: int = 0
    at: datetime | None = None  # of the last look that succeeded
    states: tuple[JobState, ...] = ()
    arrays: Mapping[str, ArrayStates] = field(default_factory=dict)
    queues: tuple[JobQueue, ...] = ()
    problem: str = ""  # why the last look failed
    missing: int = 0  # jobs watched by id that no answer has named yet
    next_s: float | None = None  # seconds from that look to the next; None: nothing is left to look for
    calls_a_minute: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Jobs by status, an array's children each for itself."""
        return tally(self.states)

    @property
    def over(self) -> bool:
        """Whether every job has ended."""
        return self.at is not None and not self.missing and all(job.ended for job in self.states)

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """A row a job, newest first; times are UTC."""
        rows = [
            (job.id, job.name, job.queue, job.status, job.created, job.started, job.stopped, job.exit_code, job.reason,
             job.size or None, job.capacity.vcpus, job.capacity.memory_gib, job.capacity.gpus)
            for job in self.states
        ]  # fmt: skip
        names = "job_id name queue status created started stopped exit_code reason size vcpus memory_gib gpus"
        return _table(rows, names, moments=("created", "started", "stopped"), whole=("exit_code", "size"))

    @property
    def tries(self) -> list[tuple[JobState, int, Attempt, str]]:
        """Every attempt that has started, oldest first: its job, its number, itself, and how it ended, or RUNNING."""
        tries = [
            (job, number, one, job.ending_of(number))
            for job in self.states
            for number, one in enumerate(job.tries, start=1)
            if one.started
        ]
        return sorted(tries, key=lambda one: one[2].started or 0)

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
    def limits(self) -> tuple[float | None, float | None]:
        """The most vCPU and GiB that these environments have together; None where one of them does not say."""
        return _sum(one.max_vcpus for one in self.places), _sum(map(memory_gib, self.places))

    @property
    def used(self) -> Capacity:
        """What the jobs at work were given."""
        return sum((job.capacity * job.at_work for job in self.states), Capacity())


def memory_gib(place: ComputeEnvironment) -> float | None:
    """The most memory that jobs can have there together: what it says itself, or what its richest instances hold."""
    if place.capacity:
        return place.capacity.memory_gib
    known, unknown = prices.expand(place.instance_types)
    if not known or unknown or place.max_vcpus is None:
        return None
    return place.max_vcpus * max(one.job_memory_gib / one.vcpus for one in known)


def _sum(parts: Iterable[float | None]) -> float | None:
    parts = list(parts)
    return None if None in parts or not parts else sum(part for part in parts if part is not None)


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
