"""Jobs followed look by look: what each look asks for, and when the next one pays."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice

from genokit.backends import Clients
from genokit.batch import job_state, listing, resources
from genokit.batch.job_state import LIVE, JobState
from genokit.batch.monitor.snapshot import Snapshot
from genokit.batch.resources import JobQueue
from genokit.errors import GenokitError

SLOW_S = 60.0  # between two looks at the queues, and at most between two attempts that fail
MOST = 1000  # new jobs of a queue that one look lists
SHOWN = 10  # failed children of an array
DAY_MS = 86_400_000


def pause(base_s: float, *, quiet: int, failures: int) -> float:
    """Seconds until the next look: soon while things change, later when nothing does.

    >>> [pause(4, quiet=n, failures=0) for n in (0, 1, 9)]
    [4.0, 6.0, 16.0]
    """
    return float(min(SLOW_S, base_s * 2**failures) if failures else base_s * min(4.0, 1.5**quiet))


class Watch:
    """Jobs under observation: those of a queue, of all queues, or those with these ids.

    Jobs of queues are those created since a day ago, and those that have not ended. ``look()`` asks how all stand, and
    its snapshot says when to look again. Of the ``chosen`` job it asks for more: which children of an array FAILED, or
    how a child stands.
    """

    def __init__(self, clients: Clients, *, queue: str | None = None, jobs: Sequence[str] | None = None) -> None:
        self.chosen = ""
        self.known: dict[str, JobState] = {}
        self.since_ms = round(time.time() * 1000) - DAY_MS
        self._clients = clients
        self._queue = queue.rpartition("/")[2] if queue else None
        self._ids = None if jobs is None else tuple(jobs)
        self._queues: tuple[JobQueue, ...] = ()
        self._queues_at = float("-inf")
        self._newest: dict[str, int] = {}  # by queue: when the newest job that was listed was created
        self._missed: Counter[str] = Counter()  # how often a job was asked for that the service does not know
        self._failed: dict[str, tuple[int, ...]] = {}  # of the chosen array: its first children that FAILED
        self._listed = ("", 0)  # that array, and how many had FAILED
        self._at: datetime | None = None
        self._quiet = self._failures = 0

    def look(self) -> Snapshot:
        """Ask how the jobs stand. Where that fails the snapshot says why, and what was known stays."""
        before, problem = self.known, ""
        try:
            self._look()
            self._look_at_children()
            self._at, self._failures = datetime.now(UTC), 0
        except Exception as error:  # a bug of ours, or an answer of no known form: shown, and tried again
            problem = str(error) if isinstance(error, GenokitError) else f"{type(error).__name__}: {error}"
            self._failures += 1
        chosen, left = self.known.get(self.chosen), self._open()
        busy = before != self.known or (chosen is not None and chosen.status == "RUNNING")
        self._quiet = 0 if busy else self._quiet + 1
        base_s = max(0.5, self._clients.backend.poll_s) * max(1, len(left) / MOST)
        goes_on = left or problem or self._ids is None
        shown = [job for job in self.known.values() if self._shows(job)]
        names = {job.queue for job in shown} if self._ids is not None else {self._queue}
        everywhere = self._ids is None and self._queue is None
        return Snapshot(
            at=self._at,
            states=tuple(sorted(shown, key=lambda job: (-job.created, job.name, job.id))),
            failed=self._failed,
            queues=tuple(one for one in self._queues if everywhere or one.name in names),
            over=self._at is not None and not left,
            problem=problem,
            next_s=pause(base_s, quiet=self._quiet, failures=self._failures) if goes_on else None,
        )

    def _shows(self, job: JobState) -> bool:
        """Whether the job is one of this watch's, and no child that is only chosen."""
        return job.id in self._ids if self._ids is not None else ":" not in job.id and "#" not in job.id

    def _open(self) -> list[str]:
        """The jobs of which there may be news. A new one may be late; one that stays unknown is forgotten."""
        wanted = {*(self._ids or ()), *self.known, *([self.chosen] if self.chosen else [])}
        ended = {job.id for job in self.known.values() if job.ended}
        return sorted(one for one in wanted - ended if self._missed[one] < 3)

    def _look(self) -> None:
        if time.monotonic() > self._queues_at + SLOW_S:
            self._queues, self._queues_at = tuple(resources.queues(self._clients)), time.monotonic()
        if self._ids is None:
            for queue in [self._queue] if self._queue else [one.name for one in self._queues]:
                self._list(queue)
        ids = self._open()
        found = [job_state.detailed(one) for one in listing.described(self._clients, ids)]
        self.known = job_state.merged(self.known, found)
        self._missed.update(set(ids) - {job.id for job in found})

    def _list(self, queue: str) -> None:
        """Jobs that are new in a queue; the first time also older ones that live."""
        after = self._newest.get(queue, self.since_ms)
        filters = [{"name": "AFTER_CREATED_AT", "values": [str(after)]}]
        news = list(islice(listing.in_queue(self._clients, queue, filters=filters), MOST))
        if queue not in self._newest:
            news += listing.in_queue(self._clients, queue, *LIVE)
        found = [job_state.listed(one, queue) for one in news]
        self.known = job_state.merged(self.known, [job for job in found if job.id not in self.known])
        # Five seconds back: what was submitted first is not always listed first.
        self._newest[queue] = max([after, *(job.created - 5000 for job in found)])

    def _look_at_children(self) -> None:
        """Which of the chosen array's children FAILED, asked for when their number has changed."""
        job = self.known.get(self.chosen.partition(":")[0])
        number = job.counts.get("FAILED", 0) if job else 0
        if job and self._listed != (job.id, number):
            found = islice(listing.children(self._clients, job.id, "FAILED"), SHOWN) if number else ()
            self._failed = {job.id: tuple(sorted(one["arrayProperties"].get("index", 0) for one in found))}
            self._listed = (job.id, number)
