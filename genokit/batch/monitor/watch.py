"""Following jobs: one thread polls adaptively for all watches of the same clients."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch import job_state, resources
from genokit.batch.job_state import LIVE, JobState
from genokit.batch.monitor.array_states import UNKNOWN, ArrayStates
from genokit.batch.monitor.snapshot import Snapshot
from genokit.batch.resources import JobQueue
from genokit.errors import GenokitError

SLOW_S = 60.0  # between two looks at the queues, and at most between two attempts that fail
HUNDREDS = 10  # most DescribeJobs calls a look; with more live jobs, those seen longest ago come first
PAGES = 10  # most pages of new jobs a look
DAY_MS = 86_400_000


class Watch:
    """Jobs followed until ``close()``: those of a queue, of all queues, or those with these ids.

    Jobs of queues are those created since ``since`` (default: a day ago), and those that have not ended. Watches of
    the same clients share one thread, which polls adaptively.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        queue: str | None = None,
        jobs: Sequence[str] | None = None,
        since: datetime | None = None,
    ) -> None:
        self.queue = queue.rpartition("/")[2] if queue else None
        self.ids = None if jobs is None else tuple(jobs)
        self.since_ms = round(since.timestamp() * 1000) if since else round(time.time() * 1000) - DAY_MS
        self.child = ""  # one child of an array, looked at besides
        self._poller = clients.shared(Poller)
        self._poller.join(self)

    @property
    def calls(self) -> dict[str, int]:
        """How often each operation was called, by all watches of these clients together."""
        return dict(self._poller.calls)

    def snapshot(self) -> Snapshot:
        """What is known now."""
        return self._poller.snapshot(self)

    def wait(self, version: int = 0, timeout_s: float | None = None) -> Snapshot:
        """The first snapshot after ``version``, or what is known when ``timeout_s`` seconds have passed."""
        self._poller.wait(version, timeout_s)
        return self.snapshot()

    def look_at(self, child: str) -> None:
        """Describe this child of an array too, from now on."""
        self.child = child
        self.nudge()

    def found(self, job_id: str) -> JobState | None:
        """What is known of one job."""
        return self._poller.known.get(job_id)

    def nudge(self) -> None:
        """Poll at once: something was just done to a job."""
        self._poller.nudge()

    def count(self, operation: str) -> None:
        """Count a call that was made for this watch elsewhere."""
        self._poller.count(operation)

    def close(self) -> None:
        """Stop following; with the last watch the thread ends."""
        self._poller.leave(self)

    def reopen(self) -> None:
        """Follow again after ``close()``; what was known still is."""
        if self.closed:
            self._poller.join(self)

    @property
    def closed(self) -> bool:
        return not self._poller.serves(self)

    def shows(self, job: JobState, queues: Iterable[str]) -> bool:
        """Whether the job is one of this watch's."""
        if self.ids is not None:
            return job.id in self.ids
        child = ":" in job.id or "#" in job.id
        recent = job.created >= self.since_ms or job.status in LIVE
        return not child and recent and job.queue in ([self.queue] if self.queue else queues)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pause(base_s: float, *, quiet: int, failures: int, hurry: bool, left: bool) -> float | None:
    """Seconds until the next look: soon while things change, later when nothing does, never when nothing is left.

    >>> [pause(4, quiet=n, failures=0, hurry=False, left=True) for n in (0, 1, 9)]
    [4.0, 6.0, 16.0]
    """
    if failures:
        return float(min(SLOW_S, base_s * 2**failures))
    if not left:
        return None
    return float(base_s if hurry else base_s * min(4.0, 1.5**quiet))


class Poller:
    """The thread that polls for all watches of the same clients."""

    def __init__(self, clients: Clients) -> None:
        self.known: dict[str, JobState] = {}
        self.calls: Counter[str] = Counter()
        self._clients = clients
        self._base_s = max(0.5, clients.backend.poll_s)
        self._watches: list[Watch] = []
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._version = 0
        self._at: datetime | None = None
        self._problem = ""
        self._next_s: float | None = self._base_s
        self._calls_at: deque[float] = deque(maxlen=10_000)
        self._arrays: dict[str, ArrayStates] = {}
        self._missed: Counter[str] = Counter()  # how often a job was asked for that the service does not know
        self._looked: dict[str, int] = {}  # at which look a job was described last
        self._looks = 0
        self._listed: dict[str, tuple[int, int]] = {}  # by queue: listed from this moment, up to that job
        self._queues: tuple[JobQueue, ...] = ()
        self._around_at = float("-inf")
        self._left = True

    # --- for watches

    def join(self, watch: Watch) -> None:
        with self._changed:
            self._watches.append(watch)
            if len(self._watches) == 1:
                # Own ones for every thread: one that is only now ending must not take the next one's signals.
                self._stop, self._wake, self._around_at = threading.Event(), threading.Event(), float("-inf")
                signals = (self._stop, self._wake)
                threading.Thread(target=self._run, args=signals, name="genokit watch", daemon=True).start()
        self.nudge()

    def leave(self, watch: Watch) -> None:
        with self._changed:
            if watch in self._watches:
                self._watches.remove(watch)
            if not self._watches:
                self._stop.set()
                self._wake.set()
            self._changed.notify_all()

    def serves(self, watch: Watch) -> bool:
        return watch in self._watches

    def nudge(self) -> None:
        self._wake.set()

    def wait(self, version: int, timeout_s: float | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._version > version or not self._watches, timeout_s)

    def snapshot(self, watch: Watch) -> Snapshot:
        with self._changed:
            names = [one.name for one in self._queues]
            chosen = [job for job in list(self.known.values()) if watch.shows(job, names)]
            served = {job.queue for job in chosen} if watch.ids is not None else {watch.queue or ""}
            everywhere = watch.ids is None and watch.queue is None
            return Snapshot(
                version=self._version,
                at=self._at,
                states=tuple(sorted(chosen, key=lambda job: (-job.created, job.name, job.id))),
                arrays=dict(self._arrays),
                queues=tuple(one for one in self._queues if everywhere or one.name in served),
                problem=self._problem,
                missing=sum(one not in self.known and not self._gone(one) for one in watch.ids or ()),
                next_s=self._next_s,
                calls_a_minute=sum(1 for moment in self._calls_at if moment > time.monotonic() - 60),
            )

    def count(self, operation: str) -> None:
        self.calls[operation] += 1
        self._calls_at.append(time.monotonic())

    # --- the thread

    def _run(self, stop: threading.Event, wake: threading.Event) -> None:
        quiet = failures = 0
        while not stop.is_set():
            wake.clear()
            before = (self.known, self._arrays, self._queues)
            try:
                self._look(stop)
                self._problem, failures, self._at = "", 0, datetime.now(UTC)
            except GenokitError as error:
                self._problem, failures = str(error), failures + 1
            except Exception as error:  # a bug of ours, or an answer of no known form: shown, and tried again
                self._problem, failures = f"{type(error).__name__}: {error}", failures + 1
            quiet = 0 if before != (self.known, self._arrays, self._queues) else quiet + 1
            hurry = any(array.next_status for array in self._arrays.values())
            wait_s = pause(self._base_s, quiet=quiet, failures=failures, hurry=hurry, left=self._left)
            with self._changed:
                self._version, self._next_s = self._version + 1, wait_s
                self._changed.notify_all()
            # Jitter: a room full of notebooks opened by one teacher does not ask in step.
            wake.wait(None if wait_s is None else wait_s * random.uniform(0.8, 1.2))
            if failures and not stop.is_set():  # what nudges must not undo the back-off
                stop.wait(min(self._base_s, wait_s or 0))

    # --- a look

    def _look(self, stop: threading.Event) -> None:
        watches = list(self._watches)
        self._looks += 1
        if time.monotonic() > self._around_at + SLOW_S:
            self._look_around()
        names = [one.name for one in self._queues]
        of_queues = [watch for watch in watches if watch.ids is None]
        for queue in {name for watch in of_queues for name in ([watch.queue] if watch.queue else names)}:
            if not stop.is_set():
                self._list(queue, min(watch.since_ms for watch in of_queues))
        ids = {name for watch in watches for name in (*(watch.ids or ()), watch.child) if name}
        listed = {job.id for job in self.known.values() if any(watch.shows(job, names) for watch in watches)}
        left = sorted(filter(self._is_open, ids | listed), key=lambda one: (self._looked.get(one, 0), one))
        for first in range(0, min(len(left), HUNDREDS * 100), 100):
            if not stop.is_set():
                self._describe(left[first : first + 100])
        self._look_at_children(stop, ids | listed)
        unlisted = any(array.next_status for array in self._arrays.values())
        self._left = unlisted or any(map(self._is_open, ids | listed)) or bool(of_queues)

    def _is_open(self, job_id: str) -> bool:
        """Whether there may be news of a job."""
        return not (job_id in self.known and self.known[job_id].ended) and not self._gone(job_id)

    def _gone(self, job_id: str) -> bool:
        """Whether the service has forgotten a job, as it does some days after its end; a new one may only be late."""
        return self._missed[job_id] >= 3

    def _look_around(self) -> None:
        """The queues and their environments."""
        self.count("describe_job_queues")
        self.count("describe_compute_environments")
        self._queues = tuple(resources.queues(self._clients))
        self._around_at = time.monotonic()

    def _list(self, queue: str, since_ms: int) -> None:
        """Jobs that are new in a queue; the first time also older ones that live."""
        began, newest = self._listed.get(queue, (since_ms + 1, 0))
        known = began <= since_ms
        # Five seconds back: what was submitted first is not always listed first.
        after = newest - 5000 if known and newest else since_ms
        filters = [{"name": "AFTER_CREATED_AT", "values": [str(after)]}]
        news = self._jobs(queue, filters=filters)
        for status in () if known else LIVE:
            news += self._jobs(queue, jobStatus=status)
        found = [job_state.listed(one, queue) for one in news]
        self.known = job_state.merged(self.known, [job for job in found if job.id not in self.known])
        self._listed[queue] = (since_ms, max((job.created for job in found), default=newest))

    def _describe(self, ids: list[str]) -> None:
        found = self._ask("batch", "describe_jobs", f"{len(ids)} jobs", jobs=ids)["jobs"]
        self.known = job_state.merged(self.known, map(job_state.detailed, found))
        self._looked.update(dict.fromkeys(ids, self._looks))
        self._missed.update(set(ids) - {one["jobId"] for one in found})
        self.known = {job_id: job for job_id, job in self.known.items() if not self._gone(job_id)}

    def _look_at_children(self, stop: threading.Event, wanted: set[str]) -> None:
        """One page of one array's children, whichever array waits longest for it."""
        parents = [job for job in self.known.values() if job.size and job.id in wanted]
        arrays = dict(self._arrays)
        for job in parents:
            arrays[job.id] = arrays.get(job.id, ArrayStates(bytes([UNKNOWN]) * job.size)).after_counts(job.counts)
        waiting = [job for job in parents if arrays[job.id].next_status]
        if waiting and not stop.is_set():
            job = waiting[self._looks % len(waiting)]
            array = arrays[job.id]
            request = {"arrayJobId": job.id, "jobStatus": array.next_status}
            request |= {"nextToken": array.token} if array.token else {}
            page = self._ask("batch", "list_jobs", f"children of job '{job.name}'", **request)
            indices = [one.get("arrayProperties", {}).get("index", 0) for one in page["jobSummaryList"]]
            # And then the next round at once, where the counts have changed during this one.
            arrays[job.id] = array.after_page(indices, page.get("nextToken")).after_counts(job.counts)
        self._arrays = arrays

    # --- the service

    def _ask(self, service: str, operation: str, thing: str, **request: Any) -> Any:
        self.count(operation)
        with translated_errors(thing):
            return getattr(self._clients.client(service), operation)(**request)

    def _jobs(self, queue: str, **request: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with translated_errors(f"jobs of queue '{queue}'"):
            pages = self._clients.batch.get_paginator("list_jobs").paginate(jobQueue=queue, **request)
            for page in islice(pages, PAGES):
                self.count("list_jobs")
                found += page["jobSummaryList"]
        return found
