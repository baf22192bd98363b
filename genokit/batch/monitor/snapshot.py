"""What a watch knew at one moment, as states and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from genokit.batch.job_state import Attempt, JobState, tally
from genokit.batch.requirements import Capacity
from genokit.batch.resources import JobQueue

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Snapshot:
    """What a watch knew at one moment; its ``jobs`` are a table."""

    at: datetime | None = None  # of the last look that succeeded
    states: tuple[JobState, ...] = ()
    failed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of the chosen array: first FAILED children
    queues: tuple[JobQueue, ...] = ()
    over: bool = False  # whether every job has ended
    problem: str = ""  # why the last look failed
    next_s: float | None = None  # seconds from that look to the next; None: nothing is left to look for

    @property
    def counts(self) -> dict[str, int]:
        """Jobs by status, an array's children each for itself."""
        return tally(self.states)

    @property
    def jobs(self) -> pd.DataFrame:
        """A row a job, newest first; times are UTC."""
        import pandas as pd

        from genokit.frames import Frame

        rows = [
            (job.id, job.name, job.queue, job.status, job.created, job.started, job.stopped, job.exit_code, job.reason,
             job.size or None, job.capacity.vcpus, job.capacity.memory_gib, job.capacity.gpus)
            for job in self.states
        ]  # fmt: skip
        names = "job_id name queue status created started stopped exit_code reason size vcpus memory_gib gpus"
        numbers = dict.fromkeys(("created", "started", "stopped", "exit_code", "size"), "Int64")
        table = Frame(rows, columns=names.split()).astype(numbers)
        for column in ("created", "started", "stopped"):
            table[column] = pd.to_datetime(table[column], unit="ms", utc=True)
        return table

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

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """The most vCPU and GiB that the queues' environments have together; None where one of them does not say."""
        places = {place.arn: place for queue in self.queues for place in queue.environments}.values()
        memory = (place.capacity.memory_gib if place.capacity else None for place in places)
        return _sum(place.max_vcpus for place in places), _sum(memory)

    @property
    def used(self) -> Capacity:
        """What the jobs at work were given."""
        return sum((job.capacity * job.at_work for job in self.states), Capacity())


def _sum(parts: Iterable[float | None]) -> float | None:
    parts = list(parts)
    return None if None in parts or not parts else sum(part for part in parts if part is not None)
