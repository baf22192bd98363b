"""The monitor: jobs followed live in a notebook, with a progress bar and a still where nothing can be live."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from genokit import display, live
from genokit.backends import Clients
from genokit.batch.job_state import ENDED
from genokit.batch.monitor import panes
from genokit.batch.monitor.snapshot import Snapshot
from genokit.batch.monitor.watch import Watch
from genokit.batch.resources import one_line
from genokit.display import Html
from genokit.errors import ServiceError

if TYPE_CHECKING:
    from genokit.batch.monitor.widget import View

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


def monitor(clients: Clients, queue: str | None = None, jobs: Any = None, *, wait: bool | None = None) -> Monitor:
    """Follow the jobs of a queue, of all queues, or these ``jobs`` (a Job, an id, or several of them).

    In a notebook it is a live view, which queries nothing before it is shown and nothing after ``close()``. Where no
    view can be live (a terminal, a script, papermill, nbconvert), it is a still; given ``jobs``, or with
    ``wait=True``, it first shows their progress until they have ended. An interrupt ends the waiting; jobs continue.
    """
    several = [jobs] if isinstance(jobs, str) or hasattr(jobs, "id") else jobs or []
    ids = None if jobs is None else [str(getattr(job, "id", job)) for job in several]
    made = Monitor(clients, queue, ids)
    if wait or (wait is None and ids is not None and not live.is_interactive()):
        made.follow()
    return made


class Monitor:
    """Jobs under observation: ``snapshot()`` is what is known of them, ``close()`` ends it.

    As a cell's result it is a live view where one can live, else a still of it.
    """

    def __init__(self, clients: Clients, queue: str | None = None, ids: list[str] | None = None) -> None:
        self._clients = clients
        self._queue, self._ids = queue, ids
        self._view: View | None = None
        self._last = Snapshot()

    @property
    def title(self) -> str:
        """What is watched, in words."""
        if self._ids is not None:
            return f"{len(self._ids):,} job{'' if len(self._ids) == 1 else 's'}"
        return f"Queue {self._queue}" if self._queue else "All queues"

    def snapshot(self) -> Snapshot:
        """What is known now, as a table too: ``.jobs``. A closed view keeps what it knew."""
        if self._view is not None and self._view.now.at is not None:
            self._last = self._view.now
        else:
            self._last = self._watch().look()
        return self._last

    def follow(self) -> Snapshot:
        """Show the progress until every job has ended, and return how all stand.

        Raises ServiceError where the first query fails; later failures are shown, and the query is repeated.
        """
        from genokit.bars import Bar

        watch = self._watch()
        with Bar(desc=one_line(self.title), unit="job", bar_format=BAR) as bar:
            while True:
                self._last = now = watch.look()
                if now.at is None:
                    raise ServiceError(now.problem)
                bar.total = sum(now.counts.values()) or None
                bar.n = sum(now.counts[status] for status in ENDED)
                bar.set_postfix_str(f"the last update failed: {one_line(now.problem)}" if now.problem else _said(now))
                if now.over:
                    return now
                time.sleep(now.next_s or 0)

    def close(self) -> None:
        """Stop following; a view keeps what it shows."""
        if self._view is not None:
            self._view.close()

    def __repr__(self) -> str:
        now = self._view.now if self._view else self._last
        return one_line(f"<Monitor {self.title}: {_said(now) or 'nothing seen'}>")

    def _repr_html_(self) -> Html:
        now = self.snapshot()
        head = panes.head(self.title, self._clients.place, now, closed=now.next_s is not None)
        table = display.table(now.jobs[["name", "queue", "status", "exit_code", "reason"]])
        return live.group(live.style(), live.view(head, panes.counts(now), panes.timeline(now), table))

    def _ipython_display_(self) -> None:
        if not live.is_interactive():
            raise NotImplementedError  # IPython's word for: take the other forms
        from genokit.batch.monitor.widget import View

        if self._view is None or self._view.closed:
            self._view = View(self._clients, self._watch(), self.title)
        live.show(self._view.box, self._repr_html_(), repr(self))

    def _watch(self) -> Watch:
        return Watch(self._clients, queue=self._queue, jobs=self._ids)


def _said(now: Snapshot) -> str:
    return ", ".join(f"{n:,} {status}" for status, n in now.counts.items() if n)
