"""Watching jobs: what is known follows from what was told, and no call is made that nobody needs."""

from __future__ import annotations

import datetime
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import Any

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from embedded import Box
from hypothesis import given
from hypothesis import strategies as st

from genokit import Settings, backends
from genokit.batch import job_state
from genokit.batch.job_state import STATUSES, JobState
from genokit.batch.monitor.array_states import UNKNOWN, ArrayStates
from genokit.batch.monitor.watch import Watch, pause
from genokit.batch.requirements import Capacity

# --- pure


@given(st.lists(st.sampled_from(STATUSES), min_size=1, max_size=60), st.integers(1, 7))
def test_a_round_of_listings_finds_every_child_s_state_and_never_lists_the_commonest(children, page):
    counts = Counter(children)
    array = ArrayStates(bytes([UNKNOWN]) * len(children)).after_counts(counts)
    calls, first = 0, 0
    while status := array.next_status:
        calls += 1
        found = [index for index, one in enumerate(children) if one == status]
        more = first + page < len(found)
        array = array.after_page(found[first : first + page], "more" if more else None)
        first = first + page if more else 0
    assert [STATUSES[place] for place in array.states] == children
    rest = sorted(counts.values())[:-1]
    assert calls == sum(-(-n // page) for n in rest)
    assert array.after_counts(counts) is array, "nothing has changed, so nothing is asked"


def test_children_of_whom_nothing_is_told_yet_are_not_made_up():
    array = ArrayStates(bytes([UNKNOWN]) * 5).after_counts({"RUNNING": 2, "RUNNABLE": 3})
    assert set(array.states) == {UNKNOWN}
    array = array.after_page([1], "more")
    assert list(array.states) == [UNKNOWN, 4, UNKNOWN, UNKNOWN, UNKNOWN]
    assert array.next_status == "RUNNING"


JOBS = st.builds(
    JobState, id=st.sampled_from("abc"), name=st.just("n"), status=st.sampled_from(STATUSES), described=st.booleans()
)


@given(st.lists(st.lists(JOBS, max_size=4), max_size=6))
def test_news_never_bring_an_ended_job_back_nor_lose_one(stories):
    known: dict[str, JobState] = {}
    for news in stories:
        before, known = known, job_state.merged(known, news)
        assert known.keys() == before.keys() | {job.id for job in news}
        assert all(known[one] is job for one, job in before.items() if job.ended)


def test_a_listing_changes_the_status_and_keeps_the_detail():
    job = JobState("1", "a", "RUNNABLE", capacity=Capacity(4), described=True)
    now = job_state.merged({"1": job}, [JobState("1", "a", "RUNNING", started=5)])["1"]
    assert (now.status, now.capacity.vcpus, now.started) == ("RUNNING", 4, 5)


def test_jobs_of_several_nodes_ask_for_all_of_them():
    container = {"resourceRequirements": [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "2048"}]}
    ranges = [{"targetNodes": "0:0", "container": container}, {"targetNodes": "1:", "container": container}]
    node = {"numNodes": 3, "mainNode": 0, "nodeRangeProperties": ranges}
    job = job_state.detailed({"jobId": "1", "jobName": "a", "status": "RUNNING", "nodeProperties": node})
    assert job.capacity == Capacity(12, 6144, 0)


def test_definitions_of_the_old_form_are_read_too():
    detail = {"jobId": "1", "jobName": "a", "status": "RUNNING", "container": {"vcpus": 2, "memory": 512}}
    assert job_state.detailed(detail).capacity == Capacity(2, 512)


@given(st.floats(0.5, 10), st.integers(0, 50), st.integers(0, 20), st.tuples(st.booleans(), st.booleans()))
def test_the_pause_stays_within_its_bounds_and_ends_when_nothing_is_left(base, quiet, failures, how):
    hurry, left = how
    s = pause(base, quiet=quiet, failures=failures, hurry=hurry, left=left)
    if s is None:
        assert not left
        assert not failures
    else:
        assert base <= s <= max(60, 4 * base)


# --- over an account


class Recorded:
    """A client of boto3's whose every call is written down, and may be answered with an error instead."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None
        client.meta.events.register("provide-client-params", self._record)

    def _record(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.append((xform_name(model.name), params))
        if self.error:
            raise self.error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.calls)


@pytest.fixture
def box(tmp_path):
    box = Box(Settings(home=tmp_path / "home"))
    yield box
    box.account.clean()


def clients_of(box: Box, outputs: dict[str, str] | None = None, **given: Any) -> backends.Clients:
    settings = Settings(home=box.account.home)
    clients = backends.Clients(
        settings, **{"batch": Recorded(backends.clients(settings).batch), "logs": box.logs, **given}
    )
    clients.stack_outputs[settings.stack] = outputs or {}
    return clients


@contextmanager
def watching(clients: backends.Clients, **what: Any):
    with Watch(clients, **what) as watch:
        yield watch


def until(watch: Watch, holds: Any, within_s: float = 30) -> Any:
    deadline = time.monotonic() + within_s
    snapshot = watch.snapshot()
    while not holds(snapshot):
        assert time.monotonic() < deadline, snapshot
        snapshot = watch.wait(snapshot.version, 1)
    return snapshot


def test_a_watch_follows_a_queue_to_the_end_of_its_jobs(box):
    task = box.define("sh", "-c", "sleep 0.3")
    first = box.submit(task)
    with watching(clients_of(box), queue="highPriority") as watch:
        until(watch, lambda now: [job.id for job in now.states] == [first])
        second = box.submit(task)
        done = until(watch, lambda now: now.counts["SUCCEEDED"] == 2)
    assert {job.id for job in done.states} == {first, second}
    assert done.over
    assert done.jobs["status"].tolist() == ["SUCCEEDED"] * 2
    assert done.attempts["attempt"].tolist() == [1, 1]
    assert (done.attempts["stopped"] - done.attempts["started"]).dt.total_seconds().min() > 0.2
    assert done.environments["environment"].tolist() == ["this-machine"]
    assert done.limits[0] >= 1
    assert done.limits[1] > 0.1


def test_what_runs_is_counted_against_its_room(box):
    job = box.submit(box.define("sleep", "30"))
    with watching(clients_of(box), jobs=[job]) as watch:
        now = until(watch, lambda now: now.counts["RUNNING"] == 1)
        assert now.used == Capacity(1, 64)
        box.batch.terminate_job(jobId=job, reason="enough")
        watch.nudge()
        now = until(watch, lambda now: now.over)
    assert now.states[0].reason.startswith("enough")
    assert now.attempts["status"].tolist() == ["FAILED"]
    assert now.used == Capacity()


def test_an_array_costs_one_list_call_a_look_at_most_and_none_when_it_has_ended(box):
    task = box.define("sh", "-c", 'exit $(( AWS_BATCH_JOB_ARRAY_INDEX % 5 == 0 ))', resourceRequirements=[
        {"type": "VCPU", "value": "0.25"}, {"type": "MEMORY", "value": "32"}])  # fmt: skip
    array = box.submit(task, arrayProperties={"size": 40})
    clients = clients_of(box)
    asked = clients.batch
    with watching(clients, jobs=[array]) as watch:
        end = until(watch, lambda now: now.over and not any(one.next_status for one in now.arrays.values()))
        time.sleep(0.3)
        made = len(asked.calls)
        watch.nudge()
        until(watch, lambda now: now.version > end.version)
        time.sleep(1)
        assert len(asked.calls) == made, "what has ended is not asked for"
        assert watch.snapshot().next_s is None
    states = end.arrays[array].states
    failed = [index for index, place in enumerate(states) if STATUSES[place] == "FAILED"]
    assert failed == list(range(0, 40, 5))
    assert end.counts == {**dict.fromkeys(STATUSES, 0), "SUCCEEDED": 32, "FAILED": 8}
    assert asked.count("list_jobs") <= end.version, "one a look"
    assert all(request.keys() <= {"arrayJobId", "jobStatus", "nextToken"} for name, request in asked.calls
               if name == "list_jobs")  # fmt: skip


def test_more_than_a_hundred_jobs_are_described_in_hundreds(box):
    hold = box.submit(box.define("sleep", "60"))
    task = box.define("true")
    jobs = [box.submit(task, dependsOn=[{"jobId": hold}]) for _ in range(249)]
    clients = clients_of(box)
    with watching(clients, jobs=[hold, *jobs]) as watch:
        until(watch, lambda now: len(now.states) == 250)
    sizes = [len(request["jobs"]) for name, request in clients.batch.calls if name == "describe_jobs"]
    assert sizes[:3] == [100, 100, 50]
    assert clients.batch.count("list_jobs") == 0


def test_several_watches_share_one_thread_and_the_last_to_close_ends_all_calls(box):
    box.submit(box.define("sleep", "60"))
    clients = clients_of(box)
    watches = [Watch(clients), Watch(clients, queue="highPriority"), Watch(clients, queue="lowPriority")]
    until(watches[0], lambda now: now.states)
    assert sum(thread.name == "genokit watch" for thread in threading.enumerate()) == 1
    assert not watches[2].snapshot().states
    for watch in watches[:2]:
        watch.close()
    assert watches[0].closed
    before = len(clients.batch.calls)
    until(watches[2], lambda now: len(clients.batch.calls) > before)
    watches[2].close()
    time.sleep(0.3)
    made = len(clients.batch.calls)
    time.sleep(2.5)
    assert len(clients.batch.calls) == made
    assert not [thread for thread in threading.enumerate() if thread.name == "genokit watch"]
    with watching(clients) as again:  # and it can begin anew
        until(again, lambda now: len(clients.batch.calls) > made)


def throttled() -> ClientError:
    return ClientError({"Error": {"Code": "TooManyRequestsException", "Message": "slow down"}}, "DescribeJobs")


def expired() -> ClientError:
    return ClientError({"Error": {"Code": "ExpiredTokenException", "Message": "old"}}, "DescribeJobs")


ERRORS = {
    "throttled": (throttled, "Wait a minute"),
    "expired credentials": (expired, "Sign in again"),
    "no credentials": (NoCredentialsError, "doctor"),
    "no network": (lambda: EndpointConnectionError(endpoint_url="https://x"), "could not be reached"),
    "an answer of no known form": (lambda: KeyError("jobs"), "KeyError"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_is_shown_asked_about_less_often_and_got_over(box, error):
    make, words = error
    job = box.submit(box.define("sleep", "60"))
    clients = clients_of(box)
    with watching(clients, jobs=[job]) as watch:
        until(watch, lambda now: now.counts["RUNNING"])
        clients.batch.error = make()
        watch.nudge()
        failed = until(watch, lambda now: now.problem)
        assert words in failed.problem
        assert failed.counts["RUNNING"] == 1, "what was known stays"
        assert failed.next_s >= 1
        later = until(watch, lambda now: now.version > failed.version)
        assert later.next_s > failed.next_s
        clients.batch.error = None
        watch.nudge()
        assert not until(watch, lambda now: not now.problem).problem


def test_a_job_that_the_service_has_forgotten_is_given_up(box):
    with watching(clients_of(box), jobs=["00000000-0000-0000-0000-000000000000"]) as watch:
        assert until(watch, lambda now: now.over).states == ()


def test_a_queue_that_is_not_there_is_a_problem_and_not_the_end(box):
    with watching(clients_of(box), queue="nosuch") as watch:
        assert "nosuch" in until(watch, lambda now: now.problem).problem


def test_jobs_at_work_before_the_watch_began_are_found(box):
    job = box.submit(box.define("sleep", "60"))
    box.wait(job, "RUNNING")
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    with watching(clients_of(box), queue="highPriority", since=later) as watch:
        assert until(watch, lambda now: now.states).states[0].id == job
