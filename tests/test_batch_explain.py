"""Why is it RUNNABLE? Situations that really happen in the embedded account, and what AWS would answer in others."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from described import ARN, environment, job, queue, stubbed
from embedded import Box, wait_until
from moto import mock_aws

from genokit import Settings, backends
from genokit.backends import Clients
from genokit.batch.diagnose.explain import Explanation, explain
from genokit.local import store

SUBMITTED = datetime.fromtimestamp(1_700_000_000, tz=UTC)
LARGE = [{"type": "VCPU", "value": "4096"}, {"type": "MEMORY", "value": "64"}]


def why(box: Box, settings: Settings, job_id: str) -> Explanation:
    return explain(backends.clients(settings), box.describe(job_id))


def all_of(box: Box) -> list[dict[str, str]]:
    """The resources of the whole machine, so that nothing else can run beside."""
    vcpus = box.batch.describe_compute_environments()["computeEnvironments"][0]["computeResources"]["maxvCpus"]
    return [{"type": "VCPU", "value": f"{vcpus}"}, {"type": "MEMORY", "value": "64"}]


def until(box: Box, settings: Settings, job_id: str, words: str, within_s: float = 120) -> Explanation:
    """The explanation, as soon as it has these words: the supervisor needs a moment."""
    deadline = time.monotonic() + within_s
    while words not in str(found := why(box, settings, job_id)):
        assert time.monotonic() < deadline, str(found)
        time.sleep(0.02)
    return found


# --- in the embedded account


def test_a_job_larger_than_the_machine(account: Settings) -> None:
    box = Box(account)
    job_id = box.submit(box.define("true", resourceRequirements=LARGE))
    found = until(box, account, job_id, "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT")
    assert found.known
    (cause,) = found.causes
    assert cause.sure == "certain"
    assert cause.what.startswith("The job asks for more than the compute environment 'this-machine' has: 4096 vCPU of")
    # One vocabulary: the scheduler gives the very same sentence as the status's reason.
    assert cause.what in box.account.status()["stuck"][job_id]
    assert "Ask for less" in cause.do


def test_an_environment_that_is_disabled(account: Settings) -> None:
    box = Box(account)
    box.batch.update_compute_environment(computeEnvironment="this-machine", state="DISABLED")
    found = until(box, account, box.submit(box.define("true")), "RUNNABLE")
    assert found.headline == "The compute environment 'this-machine' takes no jobs: it is DISABLED and VALID."
    assert found.known
    assert "Enable" in found.causes[0].do


def test_a_queue_that_is_disabled_still_starts_what_it_holds(account: Settings) -> None:
    box = Box(account)
    busy = box.submit(box.define("sleep", "60", resourceRequirements=all_of(box)))
    box.wait(busy, "RUNNING")
    job_id = box.submit(box.define("true"))
    box.batch.update_job_queue(jobQueue="highPriority", state="DISABLED")
    found = until(box, account, job_id, "is DISABLED")
    assert "queue 'highPriority': It is DISABLED and VALID." in found.looked
    assert "The capacity is in use." in found.headline


def test_a_busy_machine_and_those_that_stand_before(account: Settings) -> None:
    box = Box(account)
    running = box.submit(box.define("sleep", "60", resourceRequirements=all_of(box)))
    box.wait(running, "RUNNING")
    stuck = box.submit(box.define("true", resourceRequirements=LARGE))  # in nobody's way
    until(box, account, stuck, "MISCONFIGURATION")
    first, second = box.submit(box.define("true")), box.submit(box.define("true"), queue="lowPriority")
    assert until(box, account, first, "RUNNABLE").headline == (
        "The capacity is in use. Other jobs at work: 1; waiting before this one: 0."
    )
    found = until(box, account, second, "RUNNABLE")
    assert found.headline == "The capacity is in use. Other jobs at work: 1; waiting before this one: 1."
    assert found.causes[0].sure == "certain"
    assert "It has run for" in why(box, account, running).headline


def test_the_children_of_an_array_count_among_those_that_run_and_wait(account: Settings) -> None:
    box = Box(account)
    array = box.submit(box.define("sleep", "60", resourceRequirements=all_of(box)), arrayProperties={"size": 3})
    box.wait(f"{array}:0", "RUNNING")
    assert until(box, account, array, "1 RUNNING").headline.startswith("An array stays PENDING while its children work")
    found = until(box, account, box.submit(box.define("true")), "RUNNABLE")
    assert found.headline == "The capacity is in use. Other jobs at work: 1; waiting before this one: 2."
    assert "1 RUNNING" not in str(until(box, account, f"{array}:1", "RUNNABLE"))


def test_an_array_none_of_whose_children_can_run(account: Settings) -> None:
    box = Box(account)
    array = box.submit(box.define("true", resourceRequirements=LARGE), arrayProperties={"size": 2})
    found = until(box, account, array, "4096 vCPU of")
    assert found.headline.startswith("None of its children runs (2 RUNNABLE).")
    assert found.known


def test_a_job_that_waits_for_others(account: Settings) -> None:
    box = Box(account)
    running = box.submit(box.define("sleep", "60"))
    box.wait(running, "RUNNING")
    waiting = box.submit(box.define("true"), dependsOn=[{"jobId": running}])
    found = until(box, account, waiting, "PENDING")
    assert found.headline == "It waits for jobs that have not SUCCEEDED yet."
    assert found.causes[0].what == "It waits for the job 'one', which is RUNNING."
    assert running in found.causes[0].do
    box.account.reclaim(running)
    box.wait(waiting)
    of_it, of_the_other = why(box, account, waiting).causes
    assert of_it.what == "A job that it waited for has failed."
    assert of_the_other.what == f"Job {running}: The job's instance was lost: reclaimed by Spot, or terminated."


def test_children_that_go_one_after_another_or_side_by_side_with_another_array(account: Settings) -> None:
    box = Box(account)
    first = box.submit(box.define("sleep", "60"), arrayProperties={"size": 2}, dependsOn=[{"type": "SEQUENTIAL"}])
    box.wait(f"{first}:0", "RUNNING")
    found = until(box, account, f"{first}:1", "PENDING")
    assert f"dependsOn names {first}:0" in str(found)
    each = [{"jobId": first, "type": "N_TO_N"}]
    second = box.submit(box.define("true"), arrayProperties={"size": 2}, dependsOn=each)
    assert f"dependsOn names {first}:1" in str(until(box, account, f"{second}:1", "PENDING"))


def test_a_lost_instance_and_the_attempts_before(account: Settings) -> None:
    box = Box(account)
    again = {"attempts": 2}
    job_id = box.submit(box.define("sleep", "60"), retryStrategy=again)
    for lost in (1, 2):
        box.wait(job_id, "RUNNING")
        box.account.reclaim(job_id)
        wait_until(lambda lost=lost: len(box.describe(job_id)["attempts"]) == lost)
    box.wait(job_id)
    found = why(box, account, job_id)
    assert found.headline.startswith("The job's instance was lost")
    assert [line[:9] for line in found.looked if "Host EC2" in line] == ["Attempt 1", "Attempt 2"]
    assert "retry" in found.causes[0].do


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["no-such-program"], "The image has no such program"),
        (["sh", "-c", "no-such-program"], "The command was not found."),
        (
            ["python", "-c", "x = b'x' * 2**28; import time; time.sleep(60)"],
            "The job took more memory than the 64.0 MiB that it had.",
        ),
        (["sh", "-c", "kill -9 $$"], "killed (SIGKILL)"),
        (["sh", "-c", "kill -11 $$"], "segmentation fault"),
        (["sh", "-c", "exit 3"], "itself ended with exit code 3"),
    ],
)
def test_a_program_that_failed(account: Settings, command: list[str], says: str) -> None:
    box = Box(account)
    job_id = box.wait(box.submit(box.define(*command)))["jobId"]
    found = why(box, account, job_id)
    assert says in found.headline
    assert found.known
    assert "exit code" in found.causes[0].evidence


def test_the_last_lines_are_read_for_known_words(account: Settings) -> None:
    box = Box(account)
    job_id = box.wait(box.submit(box.define("python", "-c", "import nowhere")))["jobId"]
    found = why(box, account, job_id)
    assert [cause.sure for cause in found.causes] == ["certain", "likely"]
    assert "No module named 'nowhere'" in found.causes[1].evidence
    assert "Last lines" in found._repr_html_()


def test_a_job_that_somebody_stopped(account: Settings) -> None:
    box = Box(account)
    job_id = box.submit(box.define("sleep", "60"))
    box.wait(job_id, "RUNNING")
    box.batch.terminate_job(jobId=job_id, reason="wrong reference")
    box.wait(job_id)
    assert why(box, account, job_id).headline == "Somebody terminated the job: wrong reference"


def test_a_job_that_took_longer_than_its_timeout(account: Settings) -> None:
    box = Box(account)
    box.batch.update_compute_environment(computeEnvironment="this-machine", state="DISABLED")
    job_id = box.submit(box.define("sleep", "60"), timeout={"attemptDurationSeconds": 60})
    with store.connect(account.home) as db:  # no client may ask for less than a minute
        db.execute("update jobs set doc = json_set(doc, '$.timeout.attemptDurationSeconds', 1)")
    box.batch.update_compute_environment(computeEnvironment="this-machine", state="ENABLED")
    box.wait(job_id)
    assert why(box, account, job_id).headline == "An attempt ran longer than its timeout allows."


def test_an_array_of_which_some_children_failed(account: Settings) -> None:
    box = Box(account)
    command = ["sh", "-c", "exit $AWS_BATCH_JOB_ARRAY_INDEX"]
    array = box.wait(box.submit(box.define(*command), arrayProperties={"size": 2}))["jobId"]
    found = why(box, account, array)
    assert found.headline == "1 of its 2 children failed."
    assert found.causes[1].what == f"Job {array}:1: The program itself ended with exit code 1."


def test_an_image_where_there_is_no_engine(account: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    box = Box(account)
    job_id = box.wait(box.submit(box.define("true", image="ubuntu:24.04")))["jobId"]
    assert "needs a container engine" in why(box, account, job_id).headline


def test_a_job_that_succeeded_needs_no_cause(account: Settings) -> None:
    box = Box(account)
    job_id = box.wait(box.submit(box.define("true")))["jobId"]
    found = why(box, account, job_id)
    assert found.headline.startswith("It succeeded in")
    assert (found.known, found.causes) == (True, ())


# --- on AWS: what it would answer


EMPTY: dict[str, Any] = {"jobSummaryList": []}
CLUSTER = {"clusterName": "x", "status": "ACTIVE", "registeredContainerInstancesCount": 0, "runningTasksCount": 0}


def on_aws(
    *places: dict[str, Any],
    detail: dict[str, Any] | None = None,
    waited_s: float = 3600,
    listed: tuple[Any, ...] = (EMPTY,) * 4,
    activities: Any = (),
    cluster: Any = CLUSTER,
    queues: tuple[dict[str, Any], ...] = (),
    more: tuple[tuple[str, Any], ...] = (),
) -> Explanation:
    """The explanation of a job that is RUNNABLE since ``waited_s`` in a queue over these environments."""
    names = [place["computeEnvironmentName"] for place in places]
    answers = [
        ("describe_job_queues", {"jobQueues": list(queues) or [queue("highPriority", *names)]}),
        ("describe_compute_environments", {"computeEnvironments": list(places)}),
        *(("list_jobs", one) for one in listed),
        *more,
    ]
    told = activities if isinstance(activities, str) else {"Activities": list(activities)}
    known = cluster if isinstance(cluster, str) else {"clusters": [cluster] if cluster else []}
    clients = Clients(
        Settings(backend="aws", region="us-east-1"),
        batch=stubbed("batch", *answers),
        autoscaling=stubbed("autoscaling", ("describe_scaling_activities", told)),
        ecs=stubbed("ecs", ("describe_clusters", known)),
    )
    return explain(clients, detail or job("RUNNABLE"), now=SUBMITTED + timedelta(seconds=waited_s))


def activity(message: str, **changes: Any) -> dict[str, Any]:
    return {
        "ActivityId": "1",
        "AutoScalingGroupName": "spot-asg-59cfd8b7-b102-3b1d-84fe-2c34f232b239",
        "Description": "Launching a new EC2 instance.",
        "Cause": "capacity",
        "StartTime": SUBMITTED + timedelta(seconds=60),
        "StatusCode": "Failed",
        "StatusMessage": message,
    } | changes


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("CLIENT_ERROR - Clusters can not be blank.", "cluster is gone, or its instances' role is wrong"),
        ("CLIENT_ERROR - Invalid IamInstanceProfile: ecsInstanceRole", "not an instance profile"),
        ("CLIENT_ERROR - AMI cannot be described", "machine image"),
        ("CLIENT_ERROR - something new", "takes no jobs: it is ENABLED and INVALID"),
    ],
)
def test_an_environment_that_is_invalid(reason: str, says: str) -> None:
    found = on_aws(environment("spot", status="INVALID", statusReason=reason))
    assert says in found.headline
    assert reason in found.causes[0].evidence
    assert found.causes[0].sure == "certain"


def test_one_environment_that_is_invalid_beside_a_good_one_is_only_a_possibility() -> None:
    bad = environment("spot", status="INVALID", statusReason="CLIENT_ERROR - Clusters can not be blank.")
    found = on_aws(bad, environment("ondemand"), waited_s=30)
    assert [cause.sure for cause in found.causes] == ["possible"]
    assert found.known
    assert "nothing is wrong so far" in found.headline


@pytest.mark.parametrize(
    ("place", "asks", "says"),
    [
        ({"instanceTypes": ["c6i.large"]}, {"VCPU": "4"}, "4 vCPU of 2"),
        ({"instanceTypes": ["m5", "c5"]}, {"GPU": "1"}, "1 GPU of 0"),
        ({"maxvCpus": 4}, {"VCPU": "8"}, "8 vCPU of 4 (its maxvCpus)"),
        ({"instanceTypes": ["m5.large"]}, {"MEMORY": "8192"}, "8192 MiB of memory of 8160"),
    ],
)
def test_a_job_that_no_instance_holds(place: dict[str, Any], asks: dict[str, str], says: str) -> None:
    needs = {"VCPU": "1", "MEMORY": "1024"} | asks
    container = {"resourceRequirements": [{"type": kind, "value": value} for kind, value in needs.items()]}
    found = on_aws(environment("spot", **place), detail=job("RUNNABLE", container=container))
    assert says in found.headline
    assert found.causes[0].sure == "certain"


def test_a_job_of_just_the_memory_of_an_instance_is_a_likely_cause() -> None:
    container = {"resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "8000"}]}
    found = on_aws(environment("spot", instanceTypes=["m5.large"]), detail=job("RUNNABLE", container=container))
    assert found.causes[0].sure == "likely"
    assert "a little less memory" in found.causes[0].do


REQUIREMENT = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher"


def test_what_batch_says_while_the_first_instance_starts_may_pass() -> None:
    detail = job("RUNNABLE", statusReason=REQUIREMENT)
    early = on_aws(environment("spot", desiredvCpus=2), detail=detail, waited_s=200)
    assert {cause.sure for cause in early.causes} == {"possible"}
    assert "Batch says so too while the first instance for a job still starts" in str(early)
    late = on_aws(environment("spot", desiredvCpus=2), detail=detail, waited_s=3600)
    assert late.causes[0].sure == "likely"


@pytest.mark.parametrize(
    "reason",
    [
        "ACTION_REQUIRED - CE(s) associated with the job queue are invalid.",
        "MISCONFIGURATION:COMPUTE_ENVIRONMENT - The job queue has no compute environment that is ENABLED.",
    ],
)
def test_a_reason_that_is_over_is_no_cause(reason: str) -> None:
    found = on_aws(environment("spot"), detail=job("RUNNABLE", statusReason=reason), waited_s=60)
    assert (found.known, found.causes) == (True, ())
    assert any(reason in line for line in found.looked)


def test_what_batch_says_of_types_that_the_kit_does_not_know_is_believed() -> None:
    found = on_aws(environment("spot", instanceTypes=["zz9"]), detail=job("RUNNABLE", statusReason=REQUIREMENT))
    assert found.causes[0].sure == "certain"
    assert "whose sizes are not known here" in str(found)


def test_too_little_capacity() -> None:
    reason = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for [g5.xlarge]"
    found = on_aws(environment("spot", "SPOT"), detail=job("RUNNABLE", statusReason=reason))
    assert "too few free instances" in found.headline
    assert "On-Demand environment behind" in found.causes[0].do


def test_instances_that_start_and_do_not_join_the_cluster() -> None:
    ended = activity("no", Description="Terminating EC2 instance: i-1")
    found = on_aws(environment("spot", desiredvCpus=4), activities=[ended, ended])
    assert found.headline == "No instance of 'spot' has joined its ECS cluster."
    (cause,) = found.causes
    assert cause.sure == "likely"
    assert "'spot' has 0 instances in its ECS cluster, and Batch wants 4 vCPU" in cause.evidence
    for word in ("public IP", "NAT gateway", "AmazonEC2ContainerServiceforEC2Role", "ECS agent"):
        assert word in cause.do


def test_an_instance_that_is_on_its_way_is_no_trouble_yet() -> None:
    found = on_aws(environment("spot", desiredvCpus=4), waited_s=300)
    assert not found.known
    assert "perhaps: An instance for 'spot' is starting" in found.headline


@pytest.mark.parametrize(
    ("message", "says", "sure"),
    [
        ("You have requested more vCPU capacity than your current vCPU limit of 0 allows", "quota of vCPUs", "certain"),
        ("Could not launch Spot Instances. UnfulfillableCapacity - no capacity", "too few free", "certain"),
        ("The launch template lt-1 is broken", "launch template", "likely"),
        ("Something new", "EC2 could not launch an instance.", "likely"),
    ],
)
def test_an_instance_that_ec2_would_not_launch(message: str, says: str, sure: str) -> None:
    found = on_aws(environment("spot", desiredvCpus=4), activities=[activity(message)], waited_s=300)
    assert says in found.headline
    assert found.causes[0].sure == sure
    assert message in found.causes[0].evidence


def test_what_concerns_other_groups_or_times_is_no_evidence() -> None:
    other = activity("limit of 0 vCPU capacity", AutoScalingGroupName="spot2-asg-1")
    old = activity("limit of 0 vCPU capacity", StartTime=SUBMITTED - timedelta(days=1))
    found = on_aws(environment("spot", desiredvCpus=2), activities=[other, old], waited_s=300)
    assert [cause.sure for cause in found.causes] == ["possible"]


def test_a_failure_that_a_later_launch_made_good_is_no_evidence() -> None:
    later = activity("ok", StatusCode="Successful", StartTime=SUBMITTED + timedelta(seconds=90))
    full = {**CLUSTER, "registeredContainerInstancesCount": 1, "runningTasksCount": 2}
    found = on_aws(environment("spot", desiredvCpus=4), activities=[later, activity("vCPU limit of 0")], cluster=full)
    assert found.causes == ()
    assert any("has 1 instances in its ECS cluster" in line for line in found.looked)


def test_an_unmanaged_environment_has_the_instances_that_somebody_starts() -> None:
    place = environment("spot") | {"type": "UNMANAGED"}
    del place["computeResources"]
    assert on_aws(place).headline == "No instance of 'spot' has joined its ECS cluster."


def summary(job_id: str, created: int, **changes: Any) -> dict[str, Any]:
    return {"jobId": job_id, "jobName": f"job-{job_id}", "createdAt": created, "status": "RUNNABLE", **changes}


def test_an_environment_that_is_full() -> None:
    running = {"jobSummaryList": [summary(one, 1, status="RUNNING") for one in ("r1", "r2")]}
    sizes = [job("RUNNING", jobId=one, container={"vcpus": 128, "memory": 1}) for one in ("r1", "r2")]
    found = on_aws(
        environment("spot"), listed=(running, EMPTY, EMPTY, EMPTY), more=(("describe_jobs", {"jobs": sizes}),)
    )
    assert found.headline == "The capacity is in use. Other jobs at work: 2; waiting before this one: 0."
    assert "use 256 vCPU" in found.causes[0].evidence
    assert found.causes[0].sure == "likely"


def test_a_job_at_the_head_of_the_queue_that_cannot_start_holds_the_others() -> None:
    head = {"jobSummaryList": [summary("h", 1, statusReason=REQUIREMENT)]}
    found = on_aws(environment("spot"), listed=(EMPTY, EMPTY, head, EMPTY))
    assert found.headline == "The job 'job-h' at the head of the queue cannot start, and blocks those behind it."
    assert "Batch().job('h').explain()" in found.causes[0].do


def test_a_queue_of_higher_priority_over_the_same_environment_is_looked_at_too() -> None:
    queues = (queue("highPriority", "spot"), queue("first", "spot", priority=9), queue("elsewhere", "other"))
    places = environment("spot"), environment("other")
    ahead = {"jobSummaryList": [summary("a", 1_800_000_000_000)]}
    found = on_aws(*places, queues=queues, listed=(EMPTY, EMPTY, ahead, *(EMPTY,) * 5))
    assert any("waiting before this one: 1" in line for line in found.looked)


def test_a_fair_share_queue_does_not_go_by_age() -> None:
    fair = queue("highPriority", "spot", schedulingPolicyArn=f"{ARN}:scheduling-policy/labs")
    found = on_aws(environment("spot"), queues=(fair,))
    assert "The queue shares by the policy 'labs': whoever has had less goes first." in found.looked


def test_a_queue_that_is_gone_or_invalid() -> None:
    gone = on_aws(environment("spot"), queues=(queue("other", "spot"),))
    assert gone.headline == "The queue 'highPriority' is gone."
    invalid = on_aws(environment("spot"), queues=(queue("highPriority", "spot", status="INVALID"),))
    assert "is INVALID" in invalid.headline


def test_batch_that_asks_for_no_instance_at_all_is_only_a_hint() -> None:
    found = on_aws(environment("spot"))
    assert not found.known
    assert [cause.sure for cause in found.causes] == ["possible"]
    assert "Batch does not ask EC2 for an instance of 'spot'" in found.headline
    assert "Batch wants 0 vCPU" in found.causes[0].evidence


def test_it_is_honest_when_it_does_not_know() -> None:
    found = on_aws(environment("spot", desiredvCpus=2), cluster={**CLUSTER, "registeredContainerInstancesCount": 1})
    assert (found.known, found.causes) == (False, ())
    assert found.headline == "It has waited for 1 h 00 min, and nothing that could be read says why."
    for said in ("has 1 instances", "at work: 0", "before this one: 0", "Where to look next:"):
        assert said in str(found)
    assert "job_stuck_in_runnable" in found._repr_html_()


def test_within_the_grace_nothing_is_thought_to_be_wrong() -> None:
    found = on_aws(environment("spot"), waited_s=60)
    assert found.known
    assert found.headline == "It has waited for 1 min 00 s, and nothing is wrong so far."
    assert found.elsewhere == ()


def test_what_may_not_be_read_is_told_and_raises_nothing() -> None:
    found = on_aws(environment("spot"), activities="AccessDenied", cluster="AccessDeniedException")
    assert not found.known
    asked = ["autoscaling", "ecs"]
    assert [line.split(":")[0] for line in found.unread] == asked
    denied = Clients(Settings(), batch=stubbed("batch", ("describe_job_queues", "AccessDeniedException")))
    found = explain(denied, job("RUNNABLE", statusReason=REQUIREMENT), now=SUBMITTED + timedelta(hours=1))
    assert "No instance of the queue's environments is large enough" in found.headline
    assert "AWS denies DescribeJobQueues" in found.unread[0]


def test_a_start_that_takes_long_is_only_guessed_at() -> None:
    clients = Clients(Settings(backend="aws", region="us-east-1"))
    detail = job("STARTING", container={"image": "lab/huge:1"})
    assert explain(clients, detail, now=SUBMITTED + timedelta(seconds=60)).known
    found = explain(clients, detail, now=SUBMITTED + timedelta(hours=1))
    assert not found.known
    assert found.causes[0].sure == "possible"
    assert "STARTING 1 h 00 min after its submission" in found.causes[0].evidence


def test_a_job_that_stays_submitted() -> None:
    clients = Clients(Settings(backend="aws", region="us-east-1"))
    assert explain(clients, job("SUBMITTED"), now=SUBMITTED + timedelta(seconds=5)).known
    assert not explain(clients, job("SUBMITTED"), now=SUBMITTED + timedelta(hours=1)).known


def test_a_dependency_that_the_service_has_forgotten() -> None:
    clients = Clients(Settings(backend="aws"), batch=stubbed("batch", *[("describe_jobs", {"jobs": []})] * 2))
    detail = job("PENDING", dependsOn=[{"jobId": "old"}])
    found = explain(clients, detail, now=SUBMITTED + timedelta(hours=1))
    assert not found.known


def test_the_wait_of_a_job_begins_when_what_it_waited_for_has_ended() -> None:
    ended = job("SUCCEEDED", jobId="a", stoppedAt=1_700_003_590_000)
    names = ("describe_jobs", {"jobs": [ended]})
    clients = Clients(
        Settings(backend="aws"),
        batch=stubbed(
            "batch",
            names,
            ("describe_job_queues", {"jobQueues": [queue("highPriority", "spot")]}),
            ("describe_compute_environments", {"computeEnvironments": [environment("spot")]}),
            *[("list_jobs", EMPTY)] * 4,
        ),
    )
    found = explain(clients, job("RUNNABLE", dependsOn=[{"jobId": "a"}]), now=SUBMITTED + timedelta(hours=1))
    assert found.headline == "It has waited for 10.0 s, and nothing is wrong so far."


def test_over_boto3_and_moto_s_own_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    with mock_aws():
        clients = Clients(Settings(backend="aws", region="us-east-1"))
        ec2, iam = clients.client("ec2"), clients.client("iam")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
        group = ec2.create_security_group(GroupName="a", Description="a", VpcId=vpc)["GroupId"]
        role = iam.create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        profile = iam.create_instance_profile(InstanceProfileName="instance")["InstanceProfile"]["Arn"]
        compute = {"type": "EC2", "minvCpus": 0, "maxvCpus": 16, "desiredvCpus": 4, "instanceTypes": ["m5"],
                   "subnets": [subnet], "securityGroupIds": [group], "instanceRole": profile}  # fmt: skip
        made = clients.batch.create_compute_environment(
            computeEnvironmentName="spot", type="MANAGED", state="ENABLED", serviceRole=role, computeResources=compute
        )
        order = [{"order": 1, "computeEnvironment": made["computeEnvironmentArn"]}]
        clients.batch.create_job_queue(
            jobQueueName="highPriority", state="ENABLED", priority=1, computeEnvironmentOrder=order
        )
        found = explain(clients, job("RUNNABLE"), now=SUBMITTED + timedelta(hours=1))
    assert found.headline == "No instance of 'spot' has joined its ECS cluster."
    assert found.unread == ()


def test_a_terminal_gets_the_whole_text() -> None:
    class Printer:
        said = ""

        def text(self, words: str) -> None:
            self.said += words

    printer, found = Printer(), on_aws(environment("spot", state="DISABLED"))
    found._repr_pretty_(printer, False)
    assert printer.said == str(found)
    assert "\n" not in repr(found)
    assert str(found).startswith("Job 'align' (ab12) is RUNNABLE: The compute environment 'spot' takes no jobs")
    assert ARN not in str(found)
