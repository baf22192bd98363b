"""The monitor's live view: ipywidgets around HTML, painted by a thread, so that it lives while the kernel works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import ipykernel
import ipywidgets as widgets

from genokit.backends import Clients
from genokit.batch.diagnose.explain import explain
from genokit.batch.job import Job
from genokit.batch.job_state import ENDED, STATUSES, JobState
from genokit.batch.logs import LogStream
from genokit.batch.monitor import panes
from genokit.batch.monitor.snapshot import Snapshot
from genokit.batch.monitor.watch import Watch
from genokit.display import Html
from genokit.errors import GenokitError
from genokit.live import answer_at_once, notice, style, view

PAINT_S = 0.5  # between two paintings at least
LINES = 300  # of a log
ANSWERS = ipykernel.version_info[0] >= 7  # older kernels hear of a click when their cell has ended
REST_S = 30.0  # after so long on no page it asks no more, until it is on one again
EVERY = "every status"
CHOICES = {EVERY: STATUSES, "not ended": STATUSES[:5], **{status: (status,) for status in STATUSES}}


class View:
    """The widgets of one monitor in ``box``, and the thread that paints them."""

    def __init__(self, clients: Clients, watch: Watch, title: str, *, rest_s: float = REST_S) -> None:
        self._clients, self._watch, self._title, self._rest_s = clients, watch, title, rest_s
        self._lock = threading.RLock()
        self._now = Snapshot()
        self._chosen = ""  # the id of the job whose detail is shown
        self._pending: Callable[[], object] | None = None  # what waits for a yes
        self._log: tuple[str, float, str] = ("", 0.0, "")  # the job, when its lines were read, and the lines
        self._hidden_at: float | None = None  # since when it has been on no page
        self._on_page = threading.Event()
        self.closed = False
        self._make()
        threading.Thread(target=self._live, name="genokit view", daemon=True).start()

    # --- widgets

    def _make(self) -> None:
        self._head, self._counts, self._lanes, self._cells, self._note, self._detail, self._lines, self._question, \
            self._answer, self._strip = (widgets.HTML() for _ in range(10))  # fmt: skip
        self._filter = widgets.Text(placeholder="name, id or reason", description="Filter", continuous_update=True)
        self._status = widgets.Dropdown(options=list(CHOICES), description="Show")
        self._names = widgets.RadioButtons(options=[], layout={"width": "auto"})
        self._child = widgets.Text(description="Child", placeholder="its number", continuous_update=False,
                                   layout={"width": "180px"})  # fmt: skip
        self._explain = self._button("Explain", lambda: self._do(self._why), "Why the job is in its status")
        self._cancel = self._button("Cancel", self._ask_cancel, "Take it out of its queue, if it has not started")
        self._terminate = self._button("Terminate", self._ask_terminate, "Stop it wherever it is")
        self._yes = self._button("Yes", self._on_yes, kind="danger")
        self._no = self._button("No", lambda: self._ask("", None))
        self._close = self._button("Close", self.close, "Stop following; what is shown stays")
        self._confirm = self._row("gk-confirm", self._question, self._yes, self._no)
        logbox = self._row("gk-logbox", self._lines)
        logbox.tabbable = True
        self._actions = self._row("gk-actions", self._explain, self._cancel, self._terminate, self._child)
        about = self._column("gk-about", self._detail, self._actions, self._confirm, self._answer)
        self._chosen_one = self._row("gk-chosen", about, logbox)
        filters = self._row("gk-filter", self._filter, self._status, self._note)
        table = self._row("gk-jobs", self._names, self._cells)
        top = self._row("gk-top", self._head, self._close)
        sheet = widgets.HTML(style(), layout={"height": "0", "margin": "0"})
        parts = (sheet, top, self._counts, self._lanes, filters, table, self._strip, self._chosen_one)
        self.box = self._column("gk-monitor", *parts)
        self.box.add_class("gk-view")
        self.box._view_count = 0  # from now on the pages that show it are counted
        self.box.observe(self._on_views, "_view_count")
        self._show(self._confirm, False)
        self._on_change(self._filter, lambda _: self._paint_table())
        self._on_change(self._status, lambda _: self._paint_table())
        self._on_change(self._names, self._on_name)
        self._on_change(self._child, self._on_child)
        self._pressed = (self._filter, self._status, self._names, self._child, self._explain, self._cancel,
                         self._terminate, self._yes, self._no, self._close)  # fmt: skip
        answer_at_once(*self._pressed)

    def _button(self, words: str, do: Callable[[], object], tooltip: str = "", kind: str = "") -> widgets.Button:
        button = widgets.Button(description=words, tooltip=tooltip, button_style=kind)
        button.on_click(lambda _: self._locked(do))
        return button

    def _locked(self, do: Callable[..., object], *given: object) -> None:
        with self._lock:
            do(*given)

    def _on_change(self, widget: Any, do: Callable[[Any], object]) -> None:
        widget.observe(lambda change: self._locked(do, change["new"]), "value")

    def _row(self, name: str, *children: Any) -> widgets.Box:
        box = widgets.Box(children)
        box.add_class(name)
        return box

    def _column(self, name: str, *children: Any) -> widgets.Box:
        box = widgets.VBox(children)
        box.add_class(name)
        return box

    def _show(self, widget: Any, shown: bool) -> None:
        widget.layout.display = None if shown else "none"

    # --- painting

    def _live(self) -> None:
        while not self.closed:
            if self._hidden_at is not None and time.monotonic() > self._hidden_at + self._rest_s:
                self._watch.close()
                self._on_page.wait()
                if not self.closed:
                    self._watch.reopen()
            now = self._watch.wait(self._now.version, 5)
            began = time.monotonic()
            with self._lock:
                if now.version != self._now.version or self._follows():
                    self._now = now
                    self._paint()
                    answer_at_once(*self._pressed)
            # Painting takes a sixth of the kernel's time at most, however many jobs there are.
            time.sleep(max(PAINT_S, 5 * (time.monotonic() - began)))

    def _follows(self) -> bool:
        job = self._job()
        return job is not None and job.status == "RUNNING"

    def _paint(self) -> None:
        now = self._now
        place = self._clients.place + ("" if ANSWERS else ". While a cell runs, buttons wait: ipykernel 7 ends that")
        self._put(self._head, panes.head(self._title, place, now, closed=self.closed))
        self._put(self._counts, panes.counts(now))
        self._put(self._lanes, panes.timeline(now))
        self._paint_table()
        self._paint_detail()

    def _put(self, widget: widgets.HTML, *parts: Html) -> None:
        html = view(*parts)
        if widget.value != html:
            widget.value = html

    def _paint_table(self) -> None:
        wanted = self._filter.value.strip().lower()
        statuses = CHOICES[self._status.value]
        found = [job for job in self._now.states if panes.matches(job, wanted, statuses)]
        shown = found[: panes.ROWS]
        names = tuple((panes.label(job), job.id) for job in shown)
        if tuple(self._names.options) != names:
            with self._names.hold_trait_notifications():
                self._names.options = names
                self._names.value = None
        if self._parent() in [job.id for job in shown] and self._names.value != self._parent():
            self._names.value = self._parent()
        self._put(self._cells, panes.rows(shown, self._now))
        self._put(self._note, panes.how_many(len(shown), len(found), len(self._now.states)))

    def _paint_detail(self) -> None:
        job, parent = self._job(), self._watch.found(self._parent())
        self._show(self._chosen_one, bool(self._chosen))
        if not self._chosen:
            return
        array = self._now.arrays.get(parent.id) if parent else None
        self._put(self._strip, *([panes.children(parent, array)] if parent and array else []))
        self._put(self._detail, panes.detail(self._chosen, job, self._now))
        self._show(self._child, bool(parent and parent.size))
        live = job is not None and job.status not in ENDED and not self.closed
        self._explain.disabled = job is None or self.closed
        self._cancel.disabled = not live or job is None or (job.status in ("STARTING", "RUNNING") and not job.size)
        self._terminate.disabled = not live
        lines = self._read(job)
        self._put(self._lines, panes.lines(job, lines))

    def _read(self, job: JobState | None) -> str:
        """The last lines of the chosen job, read again when there may be more of them."""
        if job is None or not job.stream:
            return ""
        name, at, lines = self._log
        state = f"{job.stream} {job.status}"
        backend = self._clients.backend
        rest = max(PAINT_S, backend.poll_s) if job.status == "RUNNING" else backend.log_delay_s or 1e9
        late = name == state and job.status in ENDED and (job.stopped or 0) / 1000 + 60 < time.time()
        if name == state and (late or time.monotonic() < at + rest):
            return lines
        self._watch.count("get_log_events")
        try:
            lines = LogStream(self._clients, job.stream, group=job.group).last(LINES)
        except GenokitError as error:
            lines = str(error)
        self._log = (state, time.monotonic(), lines)
        return lines

    # --- what people do

    def _parent(self) -> str:
        return self._chosen.partition(":")[0]

    def _job(self) -> JobState | None:
        return self._watch.found(self._chosen) if self._chosen else None

    def _on_views(self, change: Any) -> None:
        self._hidden_at = None if change["new"] else time.monotonic()
        if change["new"]:
            self._on_page.set()
        else:
            self._on_page.clear()

    def _on_name(self, chosen: str | None) -> None:
        if chosen and chosen != self._parent():
            self._child.value = ""
            self._choose(chosen)

    def _on_child(self, value: str) -> None:
        parent, number = self._watch.found(self._parent()), value.strip()
        if parent is None or not parent.size:
            return
        if number and not (number.isdecimal() and int(number) < parent.size):
            self._say(notice(f"There is no child {number!r}: they are 0 to {parent.size - 1:,}."))
            return
        self._choose(f"{parent.id}:{int(number)}" if number else parent.id)

    def _choose(self, job_id: str) -> None:
        self._chosen = job_id
        self._watch.look_at(job_id if ":" in job_id else "")
        self._ask("", None)
        self._say()
        self._paint_detail()

    def _why(self) -> None:
        detail = Job(self._clients, self._chosen).refresh().detail
        self._say(explain(self._clients, detail, now=datetime.now(UTC))._repr_html_())

    def _ask_cancel(self) -> None:
        self._ask("Cancel", lambda job: job.cancel("Cancelled in the monitor"))

    def _ask_terminate(self) -> None:
        self._ask("Terminate", lambda job: job.terminate("Terminated in the monitor"))

    def _ask(self, verb: str, act: Callable[[Job], object] | None) -> None:
        """Ask for a yes before ``act`` is done to the chosen job; with None, ask no more."""
        self._pending = partial(act, Job(self._clients, self._chosen)) if act else None
        if act is not None:
            self._put(self._question, panes.question(verb, self._chosen, self._job()))
            self._yes.description = f"Yes, {verb.lower()}"
        self._show(self._confirm, act is not None)

    def _on_yes(self) -> None:
        act = self._pending
        self._ask("", None)
        if act is not None:
            self._do(act)
            self._watch.nudge()

    def _do(self, act: Callable[[], object]) -> None:
        self._say()
        try:
            act()
        except GenokitError as error:
            self._say(notice(str(error)))

    def _say(self, *parts: Html) -> None:
        self._put(self._answer, *parts)

    def close(self) -> None:
        """Stop following. What is shown stays, marked as closed."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self._on_page.set()
                self._watch.close()
                for button in (self._close, self._explain, self._cancel, self._terminate, self._yes, self._no):
                    button.disabled = True
                self._paint()
