"""The monitor: live where it can be, a bar and a still elsewhere, and never more than what was seen."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr
from datetime import UTC, datetime
from typing import Any

import nbformat
import pytest
from embedded import Box, wait_until
from test_display import HOSTILE, parsed

from genokit import Settings, backends, run
from genokit.batch.job_state import JobState
from genokit.batch.monitor import panes
from genokit.batch.monitor.monitor import Monitor, monitor
from genokit.batch.monitor.snapshot import Snapshot
from genokit.batch.monitor.watch import Watch
from genokit.batch.monitor.widget import View
from genokit.batch.requirements import Capacity
from genokit.display import plain
from genokit.errors import ServiceError
from genokit.live import is_interactive, view


@pytest.fixture
def box(tmp_path):
    box = Box(Settings(home=tmp_path / "home"))
    yield box
    box.account.clean()


def clients_of(box: Box) -> backends.Clients:
    return backends.Clients(Settings(home=box.account.home), batch=box.batch, logs=box.logs)


def text(html: str) -> str:
    return " ".join("".join(parsed(html).itertext()).split())


# --- where nothing can be live


def test_in_a_terminal_jobs_are_followed_by_a_bar_until_they_have_ended(box):
    jobs = [box.submit(box.define("sh", "-c", f"sleep 0.2; exit {code}")) for code in (0, 3)]
    with redirect_stderr(said := io.StringIO()):
        shown = monitor(clients_of(box), jobs=jobs)
    assert repr(shown) == "<Monitor 2 jobs: 1 SUCCEEDED, 1 FAILED>"
    assert "2/2" in plain(said.getvalue())
    assert "1 FAILED" in plain(said.getvalue())
    assert shown.snapshot().over
    assert "✕ FAILED" in text(shown._repr_html_())


def test_of_a_queue_there_is_a_still_of_the_moment(box):
    job = box.submit(box.define("sleep", "60"))
    box.wait(job, "RUNNING")
    shown = monitor(clients_of(box), queue="highPriority")
    assert repr(shown) == "<Monitor Queue highPriority: nothing seen>", "nothing is asked before somebody looks"
    assert shown.snapshot().counts["RUNNING"] == 1
    still = shown._repr_html_()
    assert "1 ● RUNNING" in text(still)
    assert "Queue highPriority" in text(still)
    assert "vCPU in use 1 of" in text(still)
    assert still.count('class="gk-track"') == 1
    assert not is_interactive()
    with pytest.raises(NotImplementedError):  # so that IPython takes the HTML
        shown._ipython_display_()


def test_one_job_or_its_id_will_do(box):
    job = box.submit(box.define("true"))
    for one in (job, [job], type("Job", (), {"id": job})()):
        with redirect_stderr(io.StringIO()):
            assert monitor(clients_of(box), jobs=one).snapshot().states[0].id == job


def test_following_what_cannot_be_asked_for_is_an_error_and_no_endless_wait(box):
    with redirect_stderr(io.StringIO()), pytest.raises(ServiceError, match="nosuch"):
        monitor(clients_of(box), queue="nosuch", wait=True)


def test_papermill_gets_a_bar_and_a_still_and_no_widget(tmp_path):
    code = (
        "from genokit import Batch\nfrom genokit.batch.monitor.monitor import monitor\nbatch = Batch()\n"
        "job = batch.submit(batch.define('t', command=['true'], memory_gib=0.1))\nmonitor(batch.clients, jobs=job)"
    )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata={"kernelspec": kernel})
    nbformat.write(book, tmp_path / "m.ipynb")
    done = run(tmp_path / "m.ipynb", settings=Settings(home=tmp_path / "home"), progress=False)
    outputs = nbformat.read(done.notebook, as_version=4).cells[0].outputs
    (shown,) = [one for one in outputs if one.output_type == "execute_result"]
    assert "1 ✓ SUCCEEDED" in text(shown.data["text/html"])
    assert shown.data["text/plain"] == "<Monitor 1 job: 1 SUCCEEDED>"
    backends.account(Settings(home=tmp_path / "home")).clean()


# --- what is shown


def a_snapshot(name: str, *, n: int = 3, **changes: Any) -> Snapshot:
    counts = {"RUNNING": 1, "SUCCEEDED": 2}
    jobs = tuple(
        JobState(f"{i}", name, "RUNNING", queue=name, created=i, started=1000 * i + 1, reason=name,
                 capacity=Capacity(1), described=True)
        for i in range(n)
    )  # fmt: skip
    array = JobState("array", name, "PENDING", queue="q", created=5, size=3, counts=counts, described=True)
    return Snapshot(states=(*jobs, array), at=datetime.fromtimestamp(60, UTC), **changes)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_job_is_called_every_pane_is_well_formed_and_inert(name):
    for n in (3, 60):
        now = a_snapshot(name, n=n, problem=name)
        job, array = now.states[0], now.states[-1]
        for pane in (
            panes.head(name, name, now, closed=False),
            panes.counts(now),
            panes.timeline(now),
            panes.rows(now.states, now),
            panes.detail("0", job, now),
            panes.detail("array", None, now),
            panes.detail("array", array, now),
            panes.lines(JobState("1", name, "RUNNING", stream="s"), name),
            panes.question(name, job),
        ):
            parsed(view(pane))
        assert "\n" not in panes.label(job)
        assert "\n" not in repr(Monitor(backends.Clients(Settings()), queue=name))


def test_an_array_says_how_its_children_stand_and_which_failed():
    now = a_snapshot("a")
    assert "3 children: 1 RUNNING, 2 SUCCEEDED." in text(panes.detail("array", now.states[-1], now))
    array = JobState("array", "a", "PENDING", size=10_000, counts={"SUCCEEDED": 8571, "FAILED": 1429}, described=True)
    shown = panes.detail("array", array, a_snapshot("a", failed={"array": tuple(range(0, 70, 7))}))
    assert "0, 7, 14, 21, 28, 35, 42, 49, 56, 63 and 1,419 more" in text(shown)


def test_a_timeline_draws_the_newest_twenty_attempts_and_says_how_many_are_older():
    shown = panes.timeline(a_snapshot("a", n=10_000))
    assert shown.count("gk-track") == 20
    assert "9,981 older attempts are not drawn." in text(shown)
    assert len(shown) < 20_000


def test_the_table_says_how_many_it_leaves_out():
    assert "newest 50 of 61 jobs" in text(panes.how_many(50, 61, 200))
    assert "3 of 3 jobs" in text(panes.how_many(3, 3, 3))


def test_the_head_says_how_fresh_the_view_is_and_what_went_wrong():
    now = a_snapshot("a", next_s=4.0)
    assert "updated every 4 s" in text(panes.head("q", "here", now, closed=False))
    assert "all jobs have ended" in text(panes.head("q", "here", a_snapshot("a"), closed=False))
    assert "✓ OK" in text(panes.head("q", "here", a_snapshot("a"), closed=False))
    failed = Snapshot(states=(JobState("1", "a", "FAILED"),))
    assert "✕ FAILED" in text(panes.head("q", "here", failed, closed=False))
    assert "CLOSED" in text(panes.head("q", "here", now, closed=True))
    broken = panes.head("q", "here", a_snapshot("a", problem="AWS could not be reached", next_s=8), closed=False)
    assert 'role="alert"' in broken
    assert "shown is as of 00:01:00 UTC. AWS could not be reached The next is in about 8 s." in text(broken)


# --- the live view, driven by hand


@pytest.fixture
def live(box):
    opened = []

    def open_view(**what: Any) -> View:
        clients = clients_of(box)
        opened.append(View(clients, Watch(clients, **what), "All queues"))
        return opened[-1]

    yield open_view
    for one in opened:
        one.close()


def test_a_job_is_chosen_read_and_cancelled_after_a_yes(box, live):
    job = box.submit(box.define("sh", "-c", "echo one; echo two; sleep 60"))
    box.wait(job, "RUNNING")
    shown = live()
    wait_until(lambda: shown._names.options)
    shown._names.value = job
    wait_until(lambda: "two" in shown._lines.value)
    shown._cancel.click()
    assert "Cancel job" in text(shown._question.value)
    shown._no.click()
    assert shown._confirm.layout.display == "none"
    shown._cancel.click()
    shown._yes.click()
    assert box.wait(job)["statusReason"] == "Cancelled in the monitor"
    wait_until(lambda: "✕ FAILED" in text(shown._detail.value))
    assert shown._cancel.disabled
    shown._explain.click()
    assert shown._answer.value


def test_the_filter_leaves_jobs_by_name_and_status(box, live):
    first, second = box.submit(box.define("true")), box.submit(box.define("false"))
    box.wait(first), box.wait(second)
    shown = live()
    wait_until(lambda: len(shown._names.options) == 2)
    shown._filter.value = "FAILED"
    assert [job for _, job in shown._names.options] == [second]
    shown._filter.value = "nothing is called so"
    assert shown._names.options == ()
    assert "0 of 2 jobs" in text(shown._note.value)


def test_a_child_of_an_array_has_a_log_of_its_own(box, live):
    array = box.submit(box.define("sh", "-c", "echo child $AWS_BATCH_JOB_ARRAY_INDEX"), arrayProperties={"size": 3})
    box.wait(array)
    shown = live(jobs=[array])
    wait_until(lambda: shown._names.options)
    shown._names.value = array
    shown._child.value = "2"
    wait_until(lambda: "child 2" in shown._lines.value)
    shown._child.value = "3"
    assert "There is no child" in text(shown._answer.value)


def test_a_closed_view_asks_nothing_and_says_so(box, live):
    box.submit(box.define("sleep", "60"))
    calls = []
    box.batch.meta.events.register("provide-client-params", lambda **call: calls.append(call["model"].name))
    shown = live()
    wait_until(lambda: shown._names.options)
    shown.close()
    assert "CLOSED" in shown._head.value
    assert shown._explain.disabled
    wait_until(lambda: not [one for one in threading.enumerate() if one.name == "genokit view"])
    made = len(calls)
    assert made
    time.sleep(1.5)
    assert len(calls) == made


def test_a_view_on_no_page_asks_nothing_until_it_is_on_one_again(box, live):
    box.submit(box.define("sleep", "60"))
    calls = []
    box.batch.meta.events.register("provide-client-params", lambda **call: calls.append(call["model"].name))
    shown = live()
    wait_until(lambda: shown._names.options)
    shown.box._view_count = 1
    made = len(calls)
    wait_until(lambda: len(calls) > made)
    shown.box._view_count = 0

    def is_still() -> bool:
        made = len(calls)
        time.sleep(2)
        return len(calls) == made

    wait_until(is_still)  # after a last look
    made = len(calls)
    shown.box._view_count = 1
    wait_until(lambda: len(calls) > made)


def test_a_view_loads_no_pandas_and_no_matplotlib():
    code = "import sys, genokit.batch.monitor.widget; print([m for m in ('pandas', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
