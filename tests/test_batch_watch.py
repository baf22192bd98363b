"""Watching jobs: what is known follows from what was told, and no call is made that nobody needs."""

from __future__ import annotations

import time
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
from genokit.batch.monitor.watch import Watch, pause
from genokit.batch.requirements import Capacity

# --- pure


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


def test_jobs_of_several_nodes_ask_for_all_of_them():
    container = {"resourceRequirements": [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "2048"}]}
    ranges = [{"targetNodes": "0:0", "container": container}, {"targetNodes": "1:", "container": container}]
    node = {"numNodes": 3, "mainNode": 0, "nodeRangeProperties": ranges}
    job = job_state.detailed({"jobId": "1", "jobName": "a", "status": "RUNNING", "nodeProperties": node})
    assert job.capacity == Capacity(12, 6144, 0)


def test_definitions_of_the_old_form_are_read_too():
    detail = {"jobId": "1", "jobName": "a", "status": "RUNNING", "container": {"vcpus": 2, "memory": 512}}
    assert job_state.detailed(detail).capacity == Capacity(2, 512)


@given(st.floats(0.5, 10), st.integers(0, 50), st.integers(0, 20))
def test_the_pause_stays_within_its_bounds(base, quiet, failures):
    assert base <= pause(base, quiet=quiet, failures=failures) <= max(60, 4 * base)


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


def until(watch: Watch, holds: Any, within_s: float = 120) -> Any:
    deadline = time.monotonic() + within_s
    while not holds(snapshot := watch.look()):
        assert time.monotonic() < deadline, snapshot
        time.sleep(0.05)
    return snapshot


def test_a_watch_follows_a_queue_to_the_end_of_its_jobs(box):
    task = box.define("sh", "-c", "sleep 0.3")
    first = box.submit(task)
    watch = Watch(clients_of(box), queue="highPriority")
    until(watch, lambda now: [job.id for job in now.states] == [first])
    second = box.submit(task)
    done = until(watch, lambda now: now.counts["SUCCEEDED"] == 2)
    assert {job.id for job in done.states} == {first, second}
    assert done.over
    assert done.next_s, "new jobs may come"
    assert done.jobs["status"].tolist() == ["SUCCEEDED"] * 2
    assert [(number, status) for _, number, _, status in done.tries] == [(1, "SUCCEEDED")] * 2
    told = [box.describe(job.id) for job, *_ in done.tries]
    assert [(one.started, one.stopped) for _, _, one, _ in done.tries] == [
        (job["startedAt"], job["stoppedAt"]) for job in told
    ]
    assert done.limits[0] >= 1
    assert done.limits[1] > 0.1


def test_what_runs_is_counted_against_its_room(box):
    job = box.submit(box.define("sleep", "30"))
    watch = Watch(clients_of(box), jobs=[job])
    now = until(watch, lambda now: now.counts["RUNNING"] == 1)
    assert now.used == Capacity(1, 64)
    box.batch.terminate_job(jobId=job, reason="enough")
    now = until(watch, lambda now: now.over)
    assert now.states[0].reason.startswith("enough")
    assert [status for *_, status in now.tries] == ["FAILED"]
    assert now.used == Capacity()


def test_the_failed_children_of_the_chosen_array_are_listed_when_their_number_has_changed(box):
    task = box.define("sh", "-c", 'exit $(( AWS_BATCH_JOB_ARRAY_INDEX % 5 == 0 ))', resourceRequirements=[
        {"type": "VCPU", "value": "0.25"}, {"type": "MEMORY", "value": "32"}])  # fmt: skip
    array = box.submit(task, arrayProperties={"size": 40})
    clients = clients_of(box)
    asked = clients.batch
    watch = Watch(clients, jobs=[array])
    end = until(watch, lambda now: now.over)
    assert asked.count("list_jobs") == 0, "nobody has chosen it"
    assert end.counts == {**dict.fromkeys(STATUSES, 0), "SUCCEEDED": 32, "FAILED": 8}
    assert end.next_s is None
    watch.chosen = array
    assert watch.look().failed == {array: tuple(range(0, 40, 5))}
    made = len(asked.calls)
    watch.look()
    assert len(asked.calls) == made, "what has ended is not asked for"
    assert asked.count("list_jobs") == 1


def test_more_than_a_hundred_jobs_are_described_in_hundreds(box):
    hold = box.submit(box.define("sleep", "60"))
    task = box.define("true")
    jobs = [box.submit(task, dependsOn=[{"jobId": hold}]) for _ in range(249)]
    clients = clients_of(box)
    assert len(Watch(clients, jobs=[hold, *jobs]).look().states) == 250
    sizes = [len(request["jobs"]) for name, request in clients.batch.calls if name == "describe_jobs"]
    assert sizes == [100, 100, 50]
    assert clients.batch.count("list_jobs") == 0


def test_a_queue_s_jobs_are_not_those_of_another(box):
    box.submit(box.define("sleep", "60"))
    clients = clients_of(box)
    assert len(Watch(clients).look().states) == 1
    assert len(Watch(clients, queue="highPriority").look().states) == 1
    assert Watch(clients, queue="lowPriority").look().states == ()


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
    watch = Watch(clients, jobs=[job])
    until(watch, lambda now: now.counts["RUNNING"])
    clients.batch.error = make()
    failed = watch.look()
    assert words in failed.problem
    assert failed.counts["RUNNING"] == 1, "what was known stays"
    assert failed.next_s >= 1
    assert watch.look().next_s > failed.next_s
    clients.batch.error = None
    assert not watch.look().problem


def test_a_job_that_the_service_has_forgotten_is_given_up(box):
    watch = Watch(clients_of(box), jobs=["00000000-0000-0000-0000-000000000000"])
    assert not watch.look().over, "a new one may be late"
    assert until(watch, lambda now: now.over).states == ()


def test_a_queue_that_is_not_there_is_a_problem_and_not_the_end(box):
    now = Watch(clients_of(box), queue="nosuch").look()
    assert "nosuch" in now.problem
    assert now.next_s


def test_jobs_at_work_before_the_watch_began_are_found(box):
    job = box.submit(box.define("sleep", "60"))
    box.wait(job, "RUNNING")
    watch = Watch(clients_of(box), queue="highPriority")
    watch.since_ms += 90_000_000  # later than now
    assert watch.look().states[0].id == job
