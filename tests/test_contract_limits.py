"""Every limit that AWS documents is kept: its last good value is taken, the next refused with AWS's code.

https://docs.aws.amazon.com/batch/latest/userguide/service_limits.html and the members' texts in the API reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ParamValidationError
from contract import EVERYWHERE, PLACES, SMALL, Place

HERE = [one for one in EVERYWHERE if not one.marks]  # what would cost an account fifty queues is tried here alone


@pytest.fixture(scope="module", params=EVERYWHERE)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with PLACES[request.param](tmp_path_factory.mktemp("limits") / "account") as one:
        yield one


@pytest.fixture(scope="module")
def definition(place: Place) -> str:
    return place.define("true")


@pytest.fixture(scope="module")
def waiting(place: Place) -> str:
    """A job that nothing here is large enough for."""
    return place.submit(place.define("true", container={"resourceRequirements": resources(VCPU="9999")}))


def resources(**changed: str) -> list[dict[str, str]]:
    return [{"type": kind, "value": value} for kind, value in ({"VCPU": "1", "MEMORY": "64"} | changed).items()]


def rules(count: int) -> list[dict[str, str]]:
    return [{"onExitCode": str(number), "action": "EXIT"} for number in range(1, count + 1)]


def tags(count: int) -> dict[str, str]:
    return {f"t{number}": "x" for number in range(count)}


def labels(rows: list[Any]) -> list[str]:
    return [f"{number}-{row[2]}" for number, row in enumerate(rows)]


# --- SubmitJob

SUBMITTED = [
    ({"jobName": "x" * 128}, {"jobName": "x" * 129}, "jobName"),
    ({"jobName": "0_a-B"}, {"jobName": "_a"}, "jobName"),
    ({}, {"jobName": "two words"}, "jobName"),
    ({"arrayProperties": {"size": 2}}, {"arrayProperties": {"size": 1}}, "size"),
    ({}, {"arrayProperties": {"size": 10_001}}, "size"),
    ({"retryStrategy": {"attempts": 1}}, {"retryStrategy": {"attempts": 0}}, "attempts"),
    ({"retryStrategy": {"attempts": 10}}, {"retryStrategy": {"attempts": 11}}, "attempts"),
    (
        {"retryStrategy": {"attempts": 2, "evaluateOnExit": rules(5)}},
        {"retryStrategy": {"attempts": 2, "evaluateOnExit": rules(6)}},
        "evaluateOnExit",
    ),
    ({}, {"retryStrategy": {"evaluateOnExit": rules(1)}}, "attempts"),
    (
        {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onReason": "a" * 511 + "*", "action": "EXIT"}]}},
        {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onReason": "a" * 512 + "*", "action": "EXIT"}]}},
        "onReason",
    ),
    (
        {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onExitCode": "13*", "action": "exit"}]}},
        {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onExitCode": "1*3", "action": "exit"}]}},
        "onExitCode",
    ),
    (
        {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "Retry"}]}},
        {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onStatusReason": "*EC2", "action": "Retry"}]}},
        "onStatusReason",
    ),
    ({}, {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"action": "SOMETIMES"}]}}, "action"),
    (
        {"timeout": {"attemptDurationSeconds": 60}},
        {"timeout": {"attemptDurationSeconds": 59}},
        "attemptDurationSeconds",
    ),
    ({"tags": tags(50)}, {"tags": tags(51)}, "tags"),
    ({"tags": {"k" * 128: "v" * 256}}, {"tags": {"k" * 129: "v"}}, "tags"),
    ({"tags": {"k": ""}}, {"tags": {"k": "v" * 257}}, "tags"),
    ({}, {"tags": {"aws:mine": "x"}}, "aws:"),
    ({"tags": {"Müller 1": "a_.:/=+-@ b"}}, {"tags": {"k": "a<b"}}, "tags"),
    ({}, {"tags": {"k": "two\nlines"}}, "tags"),
    ({}, {"tags": {"k?": "v"}}, "tags"),
    ({"parameters": {"x": "y" * 29_000}}, {"parameters": {"x": "y" * (30 * 1024)}}, "bytes"),
    (
        {"containerOverrides": {"environment": [{"name": "BATCH_FILE_TYPE", "value": "script"}]}},
        {"containerOverrides": {"environment": [{"name": "AWS_BATCH_FILE_TYPE", "value": "script"}]}},
        "AWS_BATCH",
    ),
    (
        {"containerOverrides": {"resourceRequirements": resources(MEMORY="4")}},
        {"containerOverrides": {"resourceRequirements": resources(MEMORY="3")}},
        "MEMORY",
    ),
    ({}, {"containerOverrides": {"resourceRequirements": resources(VCPU="0")}}, "VCPU"),
    ({}, {"containerOverrides": {"resourceRequirements": resources(VCPU="many")}}, "many"),
    ({}, {"containerOverrides": {"resourceRequirements": resources(TPU="1")}}, "TPU"),
    ({}, {"dependsOn": [{"jobId": "11111111-2222-3333-4444-555555555555"}]}, "11111111"),
    ({}, {"dependsOn": [{"type": "SEQUENTIAL"}]}, "SEQUENTIAL"),
    ({"arrayProperties": {"size": 2}, "dependsOn": [{"type": "SEQUENTIAL"}]}, {"dependsOn": [{"type": "ALL"}]}, "type"),
    ({}, {"jobQueue": "no-such-queue"}, "no-such-queue"),
    ({}, {"jobDefinition": "no-such-definition"}, "no-such-definition"),
    ({}, {"nodeOverrides": {"numNodes": 2}}, "nodeOverrides"),
]


@pytest.mark.parametrize(("good", "bad", "names"), SUBMITTED, ids=labels(SUBMITTED))
def test_submit_job_keeps_its_limits(
    place: Place, definition: str, good: dict[str, Any], bad: dict[str, Any], names: str
) -> None:
    request = {"jobName": "limits", "jobQueue": place.queue, "jobDefinition": definition}
    if good:
        place.made.append(("job", place.batch.submit_job(**{**request, **good})["jobId"]))
    place.refused("submit_job", names, **{**request, **bad})


def test_a_job_depends_on_twenty_others_at_most(place: Place, definition: str, waiting: str) -> None:
    place.submit(definition, dependsOn=[{"jobId": waiting}] * 20)
    request = {"jobName": "limits", "jobQueue": place.queue, "jobDefinition": definition}
    place.refused("submit_job", "dependsOn", **request, dependsOn=[{"jobId": waiting}] * 21)


def test_n_to_n_takes_arrays_of_one_size(place: Place, definition: str) -> None:
    array = place.submit(definition, arrayProperties={"size": 2})
    request = {"jobName": "limits", "jobQueue": place.queue, "jobDefinition": definition}
    for size in (3, 4):
        depends = [{"jobId": array, "type": "N_TO_N"}]
        place.refused("submit_job", "N_TO_N", **request, dependsOn=depends, arrayProperties={"size": size})


def test_the_reason_of_an_end_is_short(place: Place, waiting: str) -> None:
    for operation in ("cancel_job", "terminate_job"):
        place.refused(operation, "reason", jobId=waiting, reason="x" * 1025)
    place.batch.terminate_job(jobId=waiting, reason="x" * 1024)
    assert place.wait(waiting)["statusReason"] == "x" * 1024


# --- RegisterJobDefinition


def nodes(**changed: Any) -> dict[str, Any]:
    container = {"image": "busybox", "resourceRequirements": SMALL}
    properties = {"numNodes": 2, "mainNode": 0, "nodeRangeProperties": [{"targetNodes": "0:1", "container": container}]}
    return {"type": "multinode", "containerProperties": None, "nodeProperties": properties | changed}


def ranges(*targets: str) -> dict[str, Any]:
    container = {"image": "busybox", "resourceRequirements": SMALL}
    return {"nodeRangeProperties": [{"targetNodes": one, "container": container} for one in targets]}


REGISTERED = [
    ({"jobDefinitionName": "x" * 128}, {"jobDefinitionName": "x" * 129}, "jobDefinitionName"),
    ({}, {"jobDefinitionName": "a:1"}, "jobDefinitionName"),
    ({"parameters": {"x": "y" * 23_000}}, {"parameters": {"x": "y" * (24 * 1024)}}, "bytes"),
    ({"retryStrategy": {"attempts": 10}}, {"retryStrategy": {"attempts": 11}}, "attempts"),
    (
        {"timeout": {"attemptDurationSeconds": 60}},
        {"timeout": {"attemptDurationSeconds": 59}},
        "attemptDurationSeconds",
    ),
    ({"schedulingPriority": 9999}, {"schedulingPriority": 10_000}, "schedulingPriority"),
    ({"schedulingPriority": 0}, {"schedulingPriority": -1}, "schedulingPriority"),
    ({"tags": tags(50)}, {"tags": tags(51)}, "tags"),
    ({}, {"containerProperties": None}, "containerProperties"),
    ({}, {"containerProperties": {"image": "busybox"}}, "VCPU"),
    ({}, {"containerProperties": {"resourceRequirements": SMALL}}, "image"),
    ({}, {"type": "pipeline"}, "type"),
    ({"platformCapabilities": ["EC2"]}, {"platformCapabilities": ["MAINFRAME"]}, "platformCapabilities"),
    (nodes(), nodes(numNodes=0), "numNodes"),
    (nodes(mainNode=1), nodes(mainNode=2), "mainNode"),
    (nodes(**ranges("0:", "1")), nodes(**ranges("0:0")), "targetNodes"),
    (nodes(**ranges("0", "1:")), nodes(**ranges("first")), "targetNodes"),
    (
        nodes(numNodes=5, **ranges(*"01234")),
        nodes(numNodes=6, **ranges(*"012345")),
        "nodeRangeProperties",
    ),
]


@pytest.mark.parametrize(("good", "bad", "names"), REGISTERED, ids=labels(REGISTERED))
def test_register_job_definition_keeps_its_limits(
    place: Place, good: dict[str, Any], bad: dict[str, Any], names: str
) -> None:
    def request(changed: dict[str, Any]) -> dict[str, Any]:
        container = {"image": "busybox", "resourceRequirements": SMALL}
        whole = {"jobDefinitionName": place.fresh("limits"), "type": "container", "containerProperties": container}
        return {member: value for member, value in (whole | changed).items() if value is not None}

    if good:
        place.made.append(("definition", place.batch.register_job_definition(**request(good))["jobDefinitionArn"]))
    place.refused("register_job_definition", names, **request(bad))


# --- descriptions and lists

MANY = [
    ("describe_jobs", "jobs"),
    ("describe_job_definitions", "jobDefinitions"),
    ("describe_job_queues", "jobQueues"),
    ("describe_compute_environments", "computeEnvironments"),
    ("describe_scheduling_policies", "arns"),
]


@pytest.mark.parametrize(("operation", "member"), MANY)
def test_a_description_takes_a_hundred_names(place: Place, operation: str, member: str) -> None:
    policy = "arn:aws:batch:us-east-1:012345678901:scheduling-policy/x"
    name = {"arns": policy, "jobDefinitions": "x:1"}.get(member, "x")
    getattr(place.batch, operation)(**{member: [name] * 100})
    place.refused(operation, member, **{member: [name] * 101})


@pytest.mark.parametrize("operation", [name for name, _ in MANY[1:4]] + ["list_scheduling_policies"])
def test_a_page_holds_one_to_a_hundred(place: Place, operation: str) -> None:
    for good in (1, 100):
        getattr(place.batch, operation)(maxResults=good)
    for bad in (0, 101):
        place.refused(operation, "maxResults", maxResults=bad)
    place.refused(operation, "nextToken", nextToken="somebody else's")


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ({}, "jobQueue"),
        ({"jobQueue": "", "arrayJobId": ""}, "jobQueue"),
        ({"jobQueue": "{queue}", "arrayJobId": "x"}, "jobQueue"),
        ({"jobQueue": "no-such-queue"}, "no-such-queue"),
        ({"jobQueue": "{queue}", "jobStatus": "SLEEPING"}, "jobStatus"),
        ({"jobQueue": "{queue}", "maxResults": 0}, "maxResults"),
        ({"jobQueue": "{queue}", "nextToken": "somebody else's"}, "nextToken"),
        ({"jobQueue": "{queue}", "filters": [{"name": "JOB_NAME", "values": ["x"]}] * 2}, "filters"),
        ({"jobQueue": "{queue}", "filters": [{"name": "SHOE_SIZE", "values": ["x"]}]}, "SHOE_SIZE"),
        ({"jobQueue": "{queue}", "filters": [{"name": "AFTER_CREATED_AT", "values": ["noon"]}]}, "AFTER_CREATED_AT"),
    ],
)
def test_list_jobs_refuses_what_it_cannot_list(place: Place, request_: dict[str, Any], names: str) -> None:
    request = json.loads(json.dumps(request_).replace("{queue}", place.queue))
    place.refused("list_jobs", names, **request)


# --- environments, queues, policies, tags


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        ({"computeEnvironmentName": "x" * 129}, "computeEnvironmentName"),
        ({"computeEnvironmentName": "two words"}, "computeEnvironmentName"),
        ({"type": "SERVERLESS"}, "type"),
        ({"type": "MANAGED"}, "computeResources"),
        ({"state": "ASLEEP"}, "state"),
        ({"tags": tags(51)}, "tags"),
        ({"type": "MANAGED", "computeResources": {"type": "BARE", "maxvCpus": 1, "subnets": ["subnet-1"]}}, "type"),
    ],
)
def test_create_compute_environment_keeps_its_limits(place: Place, bad: dict[str, Any], names: str) -> None:
    request = {"computeEnvironmentName": place.fresh("ce"), "type": "UNMANAGED"}
    place.refused("create_compute_environment", names, **{**request, **bad})


@pytest.mark.parametrize(
    ("good", "bad", "names"),
    [
        ({}, {"jobQueueName": "x" * 129}, "jobQueueName"),
        ({"priority": 0}, {"priority": -1}, "priority"),
        ({"priority": 1000}, {"priority": 1001}, "priority"),
        ({}, {"state": "ASLEEP"}, "state"),
        ({}, {"computeEnvironmentOrder": []}, "computeEnvironmentOrder"),
        ({}, {"computeEnvironmentOrder": [{"order": 1, "computeEnvironment": "no-such"}]}, "no-such"),
        ({}, {"schedulingPolicyArn": "arn:aws:batch:us-east-1:012345678901:scheduling-policy/no-such"}, "no-such"),
        ({"tags": tags(50)}, {"tags": tags(51)}, "tags"),
    ],
)
def test_create_job_queue_keeps_its_limits(place: Place, good: dict[str, Any], bad: dict[str, Any], names: str) -> None:
    order = place.batch.describe_job_queues(jobQueues=[place.queue])["jobQueues"][0]["computeEnvironmentOrder"]
    if good:
        place.make_queue(*(one["computeEnvironment"] for one in order), **good)
    request = {"jobQueueName": place.fresh("queue"), "priority": 1, "computeEnvironmentOrder": order}
    place.refused("create_job_queue", names, **{**request, **bad})


def test_a_queue_takes_three_environments(place: Place) -> None:
    made = [place.environment() for _ in range(4)]
    queue = place.make_queue(*made[:3])
    order = [{"order": number, "computeEnvironment": one} for number, one in enumerate(made)]
    place.refused("update_job_queue", "computeEnvironmentOrder", jobQueue=queue, computeEnvironmentOrder=order)
    found = place.batch.describe_job_queues(jobQueues=[queue])["jobQueues"][0]["computeEnvironmentOrder"]
    assert [one["computeEnvironment"].rpartition("/")[2] for one in found] == made[:3]


SHARE = {"shareIdentifier": "a", "weightFactor": 1.0}


@pytest.mark.parametrize(
    ("good", "bad", "names"),
    [
        ({"shareDecaySeconds": 604_800}, {"shareDecaySeconds": 604_801}, "shareDecaySeconds"),
        ({"shareDecaySeconds": 0}, {"shareDecaySeconds": -1}, "shareDecaySeconds"),
        ({"computeReservation": 99}, {"computeReservation": 100}, "computeReservation"),
        ({"shareDistribution": [SHARE]}, {"shareDistribution": [SHARE | {"weightFactor": 0.0}]}, "weightFactor"),
        (
            {"shareDistribution": [SHARE | {"weightFactor": 999.9999}]},
            {"shareDistribution": [SHARE | {"weightFactor": 1000.0}]},
            "weightFactor",
        ),
        (
            {"shareDistribution": [{"shareIdentifier": "x" * 255 + "*"}]},
            {"shareDistribution": [{"shareIdentifier": "x" * 256}]},
            "shareIdentifier",
        ),
        (
            {"shareDistribution": [{"shareIdentifier": "a*"}, {"shareIdentifier": "b"}]},
            {"shareDistribution": [{"shareIdentifier": "a*"}, {"shareIdentifier": "a1"}]},
            "overlap",
        ),
    ],
)
def test_a_scheduling_policy_keeps_its_limits(
    place: Place, good: dict[str, Any], bad: dict[str, Any], names: str
) -> None:
    arn = place.policy(fairsharePolicy=good)
    place.refused("create_scheduling_policy", names, name=place.fresh("policy"), fairsharePolicy=bad)
    place.refused("update_scheduling_policy", names, arn=arn, fairsharePolicy=bad)


def test_shares_and_their_priorities_keep_their_limits(place: Place, definition: str) -> None:
    order = place.batch.describe_job_queues(jobQueues=[place.queue])["jobQueues"][0]["computeEnvironmentOrder"]
    queue = place.make_queue(order[0]["computeEnvironment"], schedulingPolicyArn=place.policy())
    request = {"jobName": "limits", "jobQueue": queue, "jobDefinition": definition}
    place.submit(definition, jobQueue=queue, shareIdentifier="x" * 255, schedulingPriorityOverride=9999)
    place.refused("submit_job", "shareIdentifier", **request, shareIdentifier="x" * 256)
    place.refused("submit_job", "shareIdentifier", **request, shareIdentifier="two words")
    override = {"shareIdentifier": "x", "schedulingPriorityOverride": 10_000}
    place.refused("submit_job", "schedulingPriorityOverride", **request, **override)


def test_tags_keep_their_limits(place: Place, definition: str) -> None:
    place.batch.tag_resource(resourceArn=definition, tags=tags(50))
    place.refused("tag_resource", "tags", resourceArn=definition, tags={"one-more": "x"})
    place.refused("tag_resource", "tags", resourceArn=definition, tags={"t1": "v" * 257})
    place.refused("tag_resource", "tags", resourceArn=definition, tags={"AWS:x": "y"})
    for operation in ("tag_resource", "list_tags_for_resource"):
        more = {"tags": {"a": "b"}} if operation == "tag_resource" else {}
        place.refused(operation, "no-such", resourceArn=definition.rpartition("/")[0] + "/no-such:1", **more)


@pytest.mark.parametrize("here", HERE)
def test_an_account_has_fifty_queues_and_fifty_environments(here: str, tmp_path: Path) -> None:
    with PLACES[here](tmp_path / "account") as place:
        there = len(place.batch.describe_compute_environments()["computeEnvironments"])
        for _ in range(50 - there):
            last = place.environment()
        place.refused("create_compute_environment", "50", computeEnvironmentName="more", type="UNMANAGED")
        for _ in range(50 - len(place.batch.describe_job_queues()["jobQueues"])):
            place.make_queue(last)
        order = [{"order": 1, "computeEnvironment": last}]
        place.refused("create_job_queue", "50", jobQueueName="more", priority=1, computeEnvironmentOrder=order)
        assert len(place.batch.describe_job_queues()["jobQueues"]) == 50


def test_what_botos_own_model_refuses_never_leaves_the_client(place: Place) -> None:
    for request in (
        {"jobName": "x", "jobQueue": place.queue},
        {"jobName": "x", "jobQueue": place.queue, "jobDefinition": "y", "colour": "red"},
        {"jobName": 3, "jobQueue": place.queue, "jobDefinition": "y"},
    ):
        with pytest.raises(ParamValidationError):
            place.batch.submit_job(**request)
