"""The monitor's live view: ipywidgets around HTML, painted by a thread, so that it lives while the kernel works."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import ipykernel
import ipywidgets as widgets

from genokit.backends import Clients
from genokit.batch.diagnose.explain import explain
from genokit.batch.job import Job
from genokit.batch.job_state import ENDED, JobState
from genokit.batch.logs import LogStream
from genokit.batch.monitor import panes
from genokit.batch.monitor.snapshot import Snapshot
from genokit.batch.monitor.watch import Watch
from genokit.display import Html
from genokit.errors import GenokitError
from genokit.live import answer_at_once, notice, style, view

LINES = 300  # of a log
LATE_S = 60  # after a job's end, within which lines may still come
ANSWERS = ipykernel.version_info[0] >= 7  # older kernels hear of a click when their cell has ended


class View:
    """The widgets of one monitor in ``box``, and the thread that looks and paints until ``close()``.

    While the view is on no page the thread rests.
    """

    def __init__(self, clients: Clients, watch: Watch, title: str) -> None:
        self._clients, self._watch, self._title = clients, watch, title
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._hidden = False
        self._chosen = ""  # the id of the job whose detail is shown
        self._log = ("", "")  # which lines were read last, and these
        self.now = Snapshot()
        self.closed = False
        self._make()
        threading.Thread(target=self._live, name="genokit view", daemon=True).start()

    # --- widgets

    def _make(self) -> None:
        self._head, self._counts, self._lanes, self._cells, self._note, self._detail, self._lines, self._question, \
            self._answer = (widgets.HTML() for _ in range(9))  # fmt: skip
        self._filter = widgets.Text(
            placeholder="name, id, status or reason", description="Filter", continuous_update=True
        )
        self._names = widgets.RadioButtons(options=[], layout={"width": "auto"})
        self._child = widgets.Text(description="Child", placeholder="its number", continuous_update=False,
                                   layout={"width": "180px"})  # fmt: skip
        self._explain = self._button("Explain", lambda: self._do(self._why), "Why the job is in its status")
        self._cancel = self._button("Cancel", lambda: self._ask(True), "End the job, whether it runs or waits")
        self._yes = self._button("Yes, cancel", self._on_yes, kind="danger")
        self._no = self._button("No", lambda: self._ask(False))
        self._close = self._button("Close", self.close, "Stop following; what is shown stays")
        self._confirm = _box("gk-confirm", self._question, self._yes, self._no)
        logbox = _box("gk-logbox", self._lines)
        logbox.tabbable = True
        actions = _box("gk-actions", self._explain, self._cancel, self._child)
        about = _box("gk-about", self._detail, actions, self._confirm, self._answer, kind=widgets.VBox)
        self._chosen_one = _box("gk-chosen", about, logbox)
        filters = _box("gk-filter", self._filter, self._note)
        table = _box("gk-jobs", self._names, self._cells)
        top = _box("gk-top", self._head, self._close)
        sheet = widgets.HTML(style(), layout={"height": "0", "margin": "0"})
        parts = (sheet, top, self._counts, self._lanes, filters, table, self._chosen_one)
        self.box = _box("gk-monitor", *parts, kind=widgets.VBox)
        self.box.add_class("gk-view")
        self.box._view_count = 0  # from now on the pages that show it are counted
        self.box.observe(self._on_views, "_view_count")
        _show(self._confirm, False)
        self._on_change(self._filter, lambda _: self._paint_table())
        self._on_change(self._names, self._on_name)
        self._on_change(self._child, self._on_child)
        self._buttons = (self._explain, self._cancel, self._yes, self._no, self._close)
        self._pressed = (self._filter, self._names, self._child, *self._buttons)
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

    # --- looking and painting

    def _live(self) -> None:
        while not self.closed:
            self._wake.clear()
            now = self._watch.look()
            began = time.monotonic()
            with self._lock:
                self.now = now
                self._paint()
                answer_at_once(*self._pressed)
            rests = self._hidden or now.next_s is None
            # Jitter: a room full of notebooks opened by one teacher does not ask in step. And painting takes a sixth
            # of the kernel's time at most, however many jobs there are.
            pause_s = max((now.next_s or 0) * random.uniform(0.8, 1.2), 5 * (time.monotonic() - began))
            self._wake.wait(None if rests else pause_s)

    def _paint(self) -> None:
        now = self.now
        place = self._clients.place + ("" if ANSWERS else ". While a cell runs, buttons wait: ipykernel 7 ends that")
        _put(self._head, panes.head(self._title, place, now, closed=self.closed))
        _put(self._counts, panes.counts(now))
        _put(self._lanes, panes.timeline(now))
        self._paint_table()
        self._paint_detail()

    def _paint_table(self) -> None:
        wanted = self._filter.value.strip().lower()
        found = [job for job in self.now.states if panes.matches(job, wanted)]
        shown = found[: panes.ROWS]
        names = tuple((panes.label(job), job.id) for job in shown)
        if tuple(self._names.options) != names:
            with self._names.hold_trait_notifications():
                self._names.options = names
                self._names.value = None
        if self._parent() in [job.id for job in shown] and self._names.value != self._parent():
            self._names.value = self._parent()
        _put(self._cells, panes.rows(shown, self.now))
        _put(self._note, panes.how_many(len(shown), len(found), len(self.now.states)))

    def _paint_detail(self) -> None:
        job, parent = self._watch.known.get(self._chosen), self._watch.known.get(self._parent())
        _show(self._chosen_one, bool(self._chosen))
        if not self._chosen:
            return
        _put(self._detail, panes.detail(self._chosen, job, self.now))
        _show(self._child, bool(parent and parent.size))
        self._explain.disabled = job is None or self.closed
        self._cancel.disabled = job is None or self.closed or job.status in ENDED
        _put(self._lines, panes.lines(job, self._read(job)))

    def _read(self, job: JobState | None) -> str:
        """The last lines of the chosen job, read again as long as there may be more of them."""
        if job is None or not job.stream:
            return ""
        which = f"{job.stream} {job.status}"
        if which != self._log[0] or job.status == "RUNNING" or (job.stopped or 0) / 1000 + LATE_S > time.time():
            try:
                lines: str = LogStream(self._clients, job.stream, group=job.group).last(LINES)
            except GenokitError as error:
                lines = str(error)
            self._log = (which, lines)
        return self._log[1]

    # --- what people do

    def _parent(self) -> str:
        return self._chosen.partition(":")[0]

    def _on_views(self, change: Any) -> None:
        self._hidden = not change["new"]
        self._wake.set()

    def _on_name(self, chosen: str | None) -> None:
        if chosen and chosen != self._parent():
            self._child.value = ""
            self._choose(chosen)

    def _on_child(self, value: str) -> None:
        parent, number = self._watch.known.get(self._parent()), value.strip()
        if parent is None or not parent.size:
            return
        if number and not (number.isdecimal() and int(number) < parent.size):
            _put(self._answer, notice(f"There is no child {number!r}: they are 0 to {parent.size - 1:,}."))
            return
        self._choose(f"{parent.id}:{int(number)}" if number else parent.id)

    def _choose(self, job_id: str) -> None:
        self._chosen = self._watch.chosen = job_id
        self._wake.set()
        self._ask(False)
        _put(self._answer)
        self._paint_detail()

    def _why(self) -> None:
        detail = Job(self._clients, self._chosen).refresh().detail
        _put(self._answer, explain(self._clients, detail)._repr_html_())

    def _ask(self, asked: bool) -> None:
        """Ask for a yes before the chosen job is cancelled, or no more."""
        _put(self._question, panes.question(self._chosen, self._watch.known.get(self._chosen)))
        _show(self._confirm, asked)

    def _on_yes(self) -> None:
        self._ask(False)
        self._do(lambda: Job(self._clients, self._chosen).terminate("Cancelled in the monitor"))
        self._wake.set()

    def _do(self, act: Callable[[], object]) -> None:
        _put(self._answer)
        try:
            act()
        except GenokitError as error:
            _put(self._answer, notice(str(error)))

    def close(self) -> None:
        """Stop following. What is shown stays, marked as closed."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self._wake.set()
                self._paint()
                for button in self._buttons:
                    button.disabled = True


def _box(name: str, *children: Any, kind: Any = widgets.Box) -> widgets.Box:
    box = kind(children)
    box.add_class(name)
    return box


def _show(widget: Any, shown: bool) -> None:
    widget.layout.display = None if shown else "none"


def _put(widget: widgets.HTML, *parts: Html) -> None:
    html = view(*parts)
    if widget.value != html:
        widget.value = html
