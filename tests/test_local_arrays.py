"""Arrays, dependencies, retries, multi-node jobs and Spot: the life of jobs that are more than one process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from embedded import Box, waits_for

from genokit import Settings


@pytest.fixture
def box(account: Settings) -> Box:
    return Box(account)


def test_an_array_runs_each_child_once_with_its_index(box: Box) -> None:
    array = box.submit(box.define("sh", "-c", "echo child $AWS_BATCH_JOB_ARRAY_INDEX"), arrayProperties={"size": 5})
    job = box.wait(array)
    assert job["status"] == "SUCCEEDED"
    assert job["arrayProperties"]["size"] == 5
    assert job["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 5
    children = box.batch.list_jobs(arrayJobId=array, jobStatus="SUCCEEDED")["jobSummaryList"]
    assert [child["jobId"] for child in children] == [f"{array}:{index}" for index in range(5)]
    assert [box.written(child["jobId"]) for child in children] == [[f"child {index}"] for index in range(5)]
    assert box.describe(f"{array}:3")["arrayProperties"] == {"index": 3}


def test_one_failed_child_fails_the_array_and_the_others_go_on(box: Box) -> None:
    script = "test $AWS_BATCH_JOB_ARRAY_INDEX != 1"
    job = box.wait(box.submit(box.define("sh", "-c", script), arrayProperties={"size": 3}))
    assert (job["status"], job["statusReason"]) == ("FAILED", "Array Child Job failed")
    assert job["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 2


def test_terminating_an_array_ends_all_its_children(box: Box) -> None:
    array = box.submit(box.define("sleep", "100"), arrayProperties={"size": 6})
    box.wait(f"{array}:0", "RUNNING")
    box.batch.terminate_job(jobId=array, reason="enough")
    job = box.wait(array)
    assert (job["status"], job["statusReason"]) == ("FAILED", "enough")
    assert job["arrayProperties"]["statusSummary"]["FAILED"] == 6
    assert box.describe(f"{array}:5")["statusReason"] == "enough"


def test_a_dependent_job_waits_and_then_runs(box: Box, tmp_path: Path) -> None:
    first = box.submit(box.define(*waits_for(tmp_path / "go")))
    second = box.submit(box.define("true"), dependsOn=[{"jobId": first}])
    box.wait(second, "PENDING")
    (tmp_path / "go").touch()
    ended, started = box.wait(first)["stoppedAt"], box.wait(second)["startedAt"]
    assert ended <= started


def test_a_failed_dependency_fails_its_dependents_down_the_line(box: Box) -> None:
    bad = box.submit(box.define("false"))
    after = box.submit(box.define("true"), dependsOn=[{"jobId": bad}])
    array = box.submit(box.define("true"), dependsOn=[{"jobId": after}], arrayProperties={"size": 3})
    late = box.submit(box.define("true"), dependsOn=[{"jobId": array}, {"jobId": bad}])
    for job_id in (after, late):
        job = box.wait(job_id)
        assert (job["status"], job["statusReason"], job["attempts"]) == ("FAILED", "Dependent Job failed", [])
    assert box.wait(array)["arrayProperties"]["statusSummary"]["FAILED"] == 3
    box.wait(bad)
    too_late = box.submit(box.define("true"), dependsOn=[{"jobId": bad}])
    assert box.wait(too_late)["statusReason"] == "Dependent Job failed"


def test_children_may_wait_for_their_counterparts_or_one_for_the_other(box: Box) -> None:
    first = box.submit(box.define("sh", "-c", "test $AWS_BATCH_JOB_ARRAY_INDEX != 1"), arrayProperties={"size": 3})
    n_to_n = [{"jobId": first, "type": "N_TO_N"}]
    second = box.submit(box.define("true"), dependsOn=n_to_n, arrayProperties={"size": 3})
    box.wait(second)
    statuses = [box.describe(f"{second}:{index}")["status"] for index in range(3)]
    assert statuses == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    chain = box.submit(box.define("true"), dependsOn=[{"type": "SEQUENTIAL"}], arrayProperties={"size": 4})
    assert box.wait(chain)["status"] == "SUCCEEDED"
    times = [box.describe(f"{chain}:{index}") for index in range(4)]
    assert all(one["stoppedAt"] <= other["startedAt"] for one, other in itertools.pairwise(times))


def test_a_long_chain_fails_to_its_end_when_its_first_child_does(box: Box) -> None:
    chain = box.submit(box.define("false"), dependsOn=[{"type": "SEQUENTIAL"}], arrayProperties={"size": 3000})
    job = box.wait(chain)
    assert job["arrayProperties"]["statusSummary"]["FAILED"] == 3000
    assert box.describe(f"{chain}:2999")["statusReason"] == "Dependent Job failed"


def test_a_job_is_retried_as_its_strategy_says(box: Box) -> None:
    script = 'test "$AWS_BATCH_JOB_ATTEMPT" = 3 && echo third'
    job_id = box.submit(box.define("sh", "-c", script), retryStrategy={"attempts": 4})
    job = box.wait(job_id)
    assert (job["status"], [one["container"]["exitCode"] for one in job["attempts"]]) == ("SUCCEEDED", [1, 1, 0])
    assert len({one["container"]["logStreamName"] for one in job["attempts"]}) == 3
    assert box.written(job_id) == ["third"]


@pytest.mark.parametrize(
    ("rules", "attempts"),
    [
        ([], 3),
        ([{"onExitCode": "7", "action": "exit"}], 1),
        ([{"onExitCode": "1*", "action": "EXIT"}], 3),
        (
            [
                {"onReason": "*", "onExitCode": "8", "action": "EXIT"},
                {"onStatusReason": "Essential*", "action": "Retry"},
            ],
            3,
        ),
        ([{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}], 1),
    ],
)
def test_the_first_rule_that_matches_decides_and_none_means_retry(
    box: Box, rules: list[dict[str, str]], attempts: int
) -> None:
    strategy = {"attempts": 3, "evaluateOnExit": rules}
    job = box.wait(box.submit(box.define("sh", "-c", "exit 7"), retryStrategy=strategy))
    assert (job["status"], len(job["attempts"])) == ("FAILED", attempts)


def test_a_reclaimed_host_fails_the_attempt_and_spots_rules_apply(box: Box) -> None:
    strategy = {
        "attempts": 2,
        "evaluateOnExit": [
            {"onStatusReason": "Host EC2*", "action": "RETRY"},
            {"onReason": "*", "action": "EXIT"},
        ],
    }
    script = 'test "$AWS_BATCH_JOB_ATTEMPT" = 2 || sleep 100'
    job_id = box.submit(box.define("sh", "-c", script), retryStrategy=strategy)
    box.wait(job_id, "RUNNING")
    box.account.reclaim(job_id)
    job = box.wait(job_id)
    reasons = [one["statusReason"] for one in job["attempts"]]
    assert job["status"] == "SUCCEEDED"
    assert reasons[0].startswith("Host EC2 (instance i-")
    assert reasons[1] == "Essential container in task exited"
    assert "exitCode" not in job["attempts"][0]["container"]


def test_a_job_that_takes_more_memory_than_it_asked_for_is_killed(box: Box) -> None:
    code = "import time; hog = bytearray(200 * 2**20); time.sleep(30)"
    job = box.wait(box.submit(box.define("python", "-c", code)))
    assert job["container"]["exitCode"] == 137
    assert job["container"]["reason"].startswith("OutOfMemoryError")


def multinode(box: Box, script: str, nodes: int = 2) -> str:
    box.batch.register_job_definition(
        jobDefinitionName="nodes",
        type="multinode",
        nodeProperties={
            "numNodes": nodes,
            "mainNode": 0,
            "nodeRangeProperties": [
                {
                    "targetNodes": "0:",
                    "container": {
                        "image": "genokit",
                        "command": ["sh", "-c", script],
                        "resourceRequirements": [
                            {"type": "VCPU", "value": "0.5"},
                            {"type": "MEMORY", "value": "64"},
                        ],
                    },
                }
            ],
        },
    )
    return box.submit("nodes")


def test_the_nodes_of_a_multinode_job_run_together_and_know_one_another(box: Box, tmp_path: Path) -> None:
    script = (
        "echo $AWS_BATCH_JOB_NODE_INDEX of $AWS_BATCH_JOB_NUM_NODES main $AWS_BATCH_JOB_MAIN_NODE_INDEX "
        f"at $AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS; touch {tmp_path}/$AWS_BATCH_JOB_NODE_INDEX; "
        f"{waits_for(tmp_path / '0')[-1]}; {waits_for(tmp_path / '1')[-1]}; "  # one after the other they would not end
        f"test $AWS_BATCH_JOB_NODE_INDEX = 1 || {waits_for(tmp_path / 'go')[-1]}"
    )
    job_id = multinode(box, script)
    box.wait(f"{job_id}#1")
    (tmp_path / "go").touch()
    assert box.wait(job_id)["status"] == "SUCCEEDED"
    assert box.written(f"{job_id}#0") == ["0 of 2 main 0 at"]
    assert box.written(f"{job_id}#1") == ["1 of 2 main 0 at 127.0.0.1"]
    assert box.describe(f"{job_id}#1")["nodeDetails"] == {"nodeIndex": 1, "isMainNode": False}
    nodes = box.batch.list_jobs(multiNodeJobId=job_id, jobStatus="SUCCEEDED")["jobSummaryList"]
    assert [node["nodeProperties"]["nodeIndex"] for node in nodes] == [0, 1]


def test_the_main_node_decides_and_its_end_stops_the_others(box: Box) -> None:
    job_id = multinode(box, "test $AWS_BATCH_JOB_NODE_INDEX = 0 || sleep 100")
    assert box.wait(job_id)["status"] == "SUCCEEDED"
    assert box.describe(f"{job_id}#1")["status"] == "FAILED"


def test_events_tell_every_change_in_order(box: Box) -> None:
    job_id = box.submit(box.define("sh", "-c", "exit 3"), retryStrategy={"attempts": 2})
    box.wait(job_id)
    events = box.account.events()
    assert [event["detail-type"] for event in events] == ["Batch Job State Change"] * len(events)
    assert [event["detail"]["status"] for event in events] == [
        *("SUBMITTED", "RUNNABLE", "STARTING", "RUNNING"),
        *("RUNNABLE", "STARTING", "RUNNING", "FAILED"),
    ]
    assert events[-1]["detail"]["jobId"] == job_id
    assert box.account.events(after=events[-2]["cursor"]) == events[-1:]
    assert box.account.events(after=events[-1]["cursor"]) == []


Refused = Callable[..., tuple[str, str]]


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ({"arrayProperties": {"size": 1}}, "size"),
        ({"arrayProperties": {"size": 10_001}}, "size"),
        ({"dependsOn": [{"jobId": "x"}] * 21}, "dependsOn"),
        ({"dependsOn": [{"jobId": "nobody"}]}, "nobody"),
        ({"dependsOn": [{"type": "SEQUENTIAL"}]}, "SEQUENTIAL"),
        ({"retryStrategy": {"attempts": 0}}, "attempts"),
        ({"retryStrategy": {"attempts": 11}}, "attempts"),
        ({"retryStrategy": {"evaluateOnExit": [{"action": "EXIT"}] * 6}}, "evaluateOnExit"),
        ({"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onExitCode": "1?", "action": "EXIT"}]}}, "onExitCode"),
        ({"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onReason": "a*b", "action": "EXIT"}]}}, "onReason"),
        ({"retryStrategy": {"evaluateOnExit": [{"action": "SOMETIMES"}]}}, "action"),
        ({"shareIdentifier": "lab"}, "shareIdentifier"),
        ({"schedulingPriorityOverride": 10_000}, "schedulingPriorityOverride"),
        ({"parameters": {"x": "y" * 31_000}}, "bytes"),
        ({"tags": {f"t{number}": "" for number in range(51)}}, "tags"),
        ({"nodeOverrides": {"numNodes": 2}}, "nodeOverrides"),
    ],
)
def test_every_documented_limit_is_refused_by_its_name(box: Box, request_: dict[str, Any], names: str) -> None:
    definition = box.define("true")
    code, message = box.refusal(
        box.batch.submit_job, jobName="one", jobQueue="highPriority", jobDefinition=definition, **request_
    )
    assert (code, names in message) == ("ClientException", True), message
