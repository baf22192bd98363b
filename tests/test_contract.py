"""The contract of AWS Batch, from AWS's documents: the same tests over every place that takes boto3's calls.

https://docs.aws.amazon.com/batch/latest/userguide/ and https://docs.aws.amazon.com/batch/latest/APIReference/
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from contract import EVERYWHERE, ORDER, PLACES, SMALL, Place


@pytest.fixture(scope="module", params=EVERYWHERE)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with PLACES[request.param](tmp_path_factory.mktemp("contract") / "account") as one:
        yield one


# --- the life of a job: https://docs.aws.amazon.com/batch/latest/userguide/job_states.html


def test_submit_answers_with_name_id_and_arn(place: Place) -> None:
    answer = place.batch.submit_job(jobName="a-name_1", jobQueue=place.queue, jobDefinition=place.define("true"))
    place.made.append(("job", answer["jobId"]))
    assert answer["jobName"] == "a-name_1"
    assert answer["jobArn"].startswith("arn:aws:batch:")
    assert answer["jobArn"].endswith(f":job/{answer['jobId']}")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_a_job_goes_forward_through_the_states_and_keeps_its_times(place: Place) -> None:
    began = time.time_ns() // 1_000_000
    job_id = place.submit(place.define("sh", "-c", "echo out; sleep 0.3"))
    seen = [place.describe(job_id)]
    while seen[-1]["status"] not in ("SUCCEEDED", "FAILED"):
        time.sleep(place.poll_s)
        seen.append(place.describe(job_id))
    statuses = list(dict.fromkeys(job["status"] for job in seen))
    assert statuses == sorted(statuses, key=ORDER.index)
    assert statuses[-1] == "SUCCEEDED"
    for job in seen:
        assert ("logStreamName" in job.get("container", {})) == (job["status"] in ("RUNNING", "SUCCEEDED"))
    job = seen[-1]
    assert abs(job["createdAt"] - began) < 60_000
    assert job["createdAt"] <= job["startedAt"] <= job["stoppedAt"]
    assert job["container"]["exitCode"] == 0
    assert place.written(job) == ["out"]


def test_a_non_zero_exit_fails_the_job_and_is_told(place: Place) -> None:
    job = place.run("sh", "-c", "exit 7")
    assert (job["status"], job["container"]["exitCode"]) == ("FAILED", 7)
    assert job["statusReason"] == "Essential container in task exited"
    [attempt] = job["attempts"]
    assert attempt["container"]["exitCode"] == 7
    assert attempt["container"]["logStreamName"] == job["container"]["logStreamName"]
    assert attempt["startedAt"] <= attempt["stoppedAt"]


def test_a_description_repeats_what_was_asked_for(place: Place) -> None:
    definition = place.define("echo", "Ref::word", parameters={"word": "old"}, tags={"from": "definition"})
    overrides = {"environment": [{"name": "A", "value": "1"}], "command": ["echo", "Ref::word", "x"]}
    job_id = place.submit(
        definition,
        jobName="asked",
        parameters={"word": "new"},
        containerOverrides=overrides,
        retryStrategy={"attempts": 2},
        timeout={"attemptDurationSeconds": 600},
        tags={"lab": "genome"},
        propagateTags=True,
    )
    job = place.wait(job_id)
    assert job["jobName"] == "asked"
    assert job["jobDefinition"] == definition
    assert job["jobQueue"].endswith(f":job-queue/{place.queue}")
    assert job["parameters"] == {"word": "new"}
    assert job["retryStrategy"]["attempts"] == 2
    assert job["timeout"] == {"attemptDurationSeconds": 600}
    assert job["tags"].items() >= {"lab": "genome"}.items()
    assert (job["propagateTags"], job["dependsOn"], job["platformCapabilities"]) == (True, [], ["EC2"])
    assert {"name": "A", "value": "1"} in job["container"]["environment"]
    assert place.written(job) == ["new x"]


def test_ids_that_nobody_has_are_left_out_of_a_description(place: Place) -> None:
    assert place.batch.describe_jobs(jobs=["00000000-0000-0000-0000-000000000000"])["jobs"] == []


# --- what a job is given


def test_parameters_replace_their_refs_and_those_of_the_request_win(place: Place) -> None:
    definition = place.define("echo", "Ref::a", "Ref::b", "Ref::c", "x-Ref::a", parameters={"a": "1", "b": "2"})
    job = place.wait(place.submit(definition, parameters={"b": "two words"}))
    assert place.written(job) == ["1 two words Ref::c x-Ref::a"]


def test_overrides_win_over_the_definition(place: Place) -> None:
    container = {"environment": [{"name": "A", "value": "a"}, {"name": "B", "value": "b"}]}
    definition = place.define("false", container=container)
    overrides = {
        "command": ["sh", "-c", "echo $A $B"],
        "environment": [{"name": "B", "value": "other"}],
        "resourceRequirements": [{"type": "MEMORY", "value": "128"}],
    }
    job = place.wait(place.submit(definition, containerOverrides=overrides))
    asked = {one["type"]: one["value"] for one in job["container"]["resourceRequirements"]}
    assert (place.written(job), asked["MEMORY"]) == (["a other"], "128")
    assert float(asked["VCPU"]) == 1


def test_the_members_that_resource_requirements_replaced_are_still_taken(place: Place) -> None:
    container = {"image": place.image, "command": ["true"], "vcpus": 1, "memory": 64}
    name = place.fresh("legacy")
    place.batch.register_job_definition(jobDefinitionName=name, type="container", containerProperties=container)
    assert place.wait(place.submit(name, containerOverrides={"memory": 96}))["status"] == "SUCCEEDED"
    place.batch.deregister_job_definition(jobDefinition=f"{name}:1")


def test_the_variables_of_the_service_are_set(place: Place) -> None:
    names = ("JOB_ID", "JOB_ATTEMPT", "JQ_NAME", "CE_NAME")
    script = "; ".join(f"echo $AWS_BATCH_{name}" for name in names)
    job = place.run("sh", "-c", script)
    job_id, attempt, queue, environment = place.written(job)
    assert (job_id, attempt, queue) == (job["jobId"], "1", place.queue)
    assert environment


def test_what_goes_to_both_outputs_is_in_the_stream_of_the_attempt(place: Place) -> None:
    definition = place.define("sh", "-c", "echo one; echo two >&2; echo; echo three")
    job = place.wait(place.submit(definition))
    name = definition.rpartition("/")[2].partition(":")[0]
    assert job["container"]["logStreamName"].startswith(f"{name}/default/")
    assert [line for line in place.written(job) if line] == ["one", "two", "three"]


# --- attempts: https://docs.aws.amazon.com/batch/latest/userguide/job_retries.html


def test_a_job_is_tried_until_it_succeeds_or_its_attempts_are_used_up(place: Place) -> None:
    definition = place.define("sh", "-c", "test $AWS_BATCH_JOB_ATTEMPT = 2", retryStrategy={"attempts": 3})
    good, bad = place.submit(definition), place.submit(place.define("false"), retryStrategy={"attempts": 2})
    job = place.wait(good)
    assert (job["status"], [one["container"]["exitCode"] for one in job["attempts"]]) == ("SUCCEEDED", [1, 0])
    assert len({one["container"]["logStreamName"] for one in job["attempts"]}) == 2
    job = place.wait(bad)
    assert (job["status"], [one["container"]["exitCode"] for one in job["attempts"]]) == ("FAILED", [1, 1])


@pytest.mark.parametrize(
    ("rules", "attempts"),
    [
        ([{"onExitCode": "3", "action": "EXIT"}], 1),
        ([{"onExitCode": "3*", "action": "exit"}], 1),
        ([{"onExitCode": "4", "action": "EXIT"}], 2),
        ([{"onExitCode": "3", "onReason": "nothing", "action": "EXIT"}], 2),
        ([{"onStatusReason": "Essential*", "action": "Retry"}, {"onReason": "*", "action": "EXIT"}], 2),
        ([{"onStatusReason": "Host EC2*", "action": "RETRY"}, {"onReason": "*", "action": "EXIT"}], 1),
    ],
)
def test_the_first_rule_whose_conditions_all_hold_decides(
    place: Place, rules: list[dict[str, str]], attempts: int
) -> None:
    job = place.run("sh", "-c", "exit 3", retryStrategy={"attempts": 2, "evaluateOnExit": rules})
    assert (job["status"], len(job["attempts"])) == ("FAILED", attempts)


@pytest.mark.slow
def test_an_attempt_that_outlasts_its_timeout_fails_and_is_not_tried_again(place: Place) -> None:
    limits = {"timeout": {"attemptDurationSeconds": 60}, "retryStrategy": {"attempts": 3}}
    place.patience_s, place.poll_s = max(place.patience_s, 240), max(place.poll_s, 0.5)
    job = place.run("sleep", "100", **limits)
    assert (job["status"], job["statusReason"]) == ("FAILED", "Job attempt duration exceeded timeout")
    assert len(job["attempts"]) == 1
    assert 59_000 <= job["stoppedAt"] - job["startedAt"] < 95_000


# --- cancel and terminate


def test_cancel_fails_a_job_that_waits_with_the_reason(place: Place) -> None:
    running = place.submit(place.define("sleep", "600"))
    waiting = place.submit(place.define("true"), dependsOn=[{"jobId": running}], retryStrategy={"attempts": 3})
    place.wait(waiting, "PENDING")
    place.batch.cancel_job(jobId=waiting, reason="not needed")
    job = place.wait(waiting)
    assert (job["status"], job["statusReason"], job["attempts"]) == ("FAILED", "not needed", [])
    assert job["isCancelled"]
    place.batch.terminate_job(jobId=running, reason="seen")
    place.wait(running)


def test_cancel_leaves_a_running_job_alone_and_says_nothing(place: Place) -> None:
    job_id = place.submit(place.define("sleep", "0.5"))
    place.wait(job_id, "RUNNING", "SUCCEEDED")
    answer = place.batch.cancel_job(jobId=job_id, reason="too late")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert place.wait(job_id)["status"] == "SUCCEEDED"


def test_terminate_stops_a_running_job_for_good_and_gives_it_time_to_tidy_up(place: Place) -> None:
    script = "trap 'echo tidy; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    job_id = place.submit(place.define("sh", "-c", script), retryStrategy={"attempts": 3})
    place.wait(job_id, "RUNNING")
    deadline = time.monotonic() + place.patience_s
    while place.written(place.describe(job_id)) != ["ready"]:
        assert time.monotonic() < deadline
        time.sleep(place.poll_s)
    place.batch.terminate_job(jobId=job_id, reason="enough")
    job = place.wait(job_id)
    assert (job["status"], job["statusReason"], len(job["attempts"])) == ("FAILED", "enough", 1)
    assert job["isTerminated"]
    assert place.written(job)[-1] == "tidy"


def test_terminate_cancels_what_has_not_started(place: Place) -> None:
    running = place.submit(place.define("sleep", "600"))
    waiting = place.submit(place.define("true"), dependsOn=[{"jobId": running}])
    place.batch.terminate_job(jobId=waiting, reason="never mind")
    job = place.wait(waiting)
    assert (job["status"], job["statusReason"], job["attempts"]) == ("FAILED", "never mind", [])
    place.batch.terminate_job(jobId=running, reason="seen")
    place.wait(running)


# --- arrays: https://docs.aws.amazon.com/batch/latest/userguide/array_jobs.html


def test_an_array_has_a_child_for_each_index(place: Place) -> None:
    array = place.submit(place.define("sh", "-c", "echo $AWS_BATCH_JOB_ARRAY_INDEX"), arrayProperties={"size": 3})
    job = place.wait(array)
    assert job["status"] == "SUCCEEDED"
    assert job["arrayProperties"]["size"] == 3
    assert job["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 3
    listed = place.batch.list_jobs(arrayJobId=array, jobStatus="SUCCEEDED")["jobSummaryList"]
    assert sorted(one["jobId"] for one in listed) == [f"{array}:{index}" for index in range(3)]
    children = [place.describe(f"{array}:{index}") for index in range(3)]
    assert [child["arrayProperties"]["index"] for child in children] == [0, 1, 2]
    assert [place.written(child) for child in children] == [["0"], ["1"], ["2"]]


def test_a_parent_is_never_runnable_or_running_itself(place: Place) -> None:
    array = place.submit(place.define("sleep", "0.2"), arrayProperties={"size": 2})
    seen = set()
    while not seen & {"SUCCEEDED", "FAILED"}:
        seen.add(place.describe(array)["status"])
    assert seen <= {"SUBMITTED", "PENDING", "SUCCEEDED"}


def test_a_failed_child_fails_its_parent_and_not_its_siblings(place: Place) -> None:
    job = place.run("sh", "-c", "test $AWS_BATCH_JOB_ARRAY_INDEX = 0", arrayProperties={"size": 3})
    assert job["status"] == "FAILED"
    summary = job["arrayProperties"]["statusSummary"]
    assert (summary["SUCCEEDED"], summary["FAILED"]) == (1, 2)


def test_terminating_the_parent_ends_every_child_and_terminating_a_child_that_one(place: Place) -> None:
    definition = place.define("sleep", "600")
    whole, part = (place.submit(definition, arrayProperties={"size": 2}) for _ in range(2))
    place.batch.terminate_job(jobId=whole, reason="all")
    place.batch.terminate_job(jobId=f"{part}:0", reason="one")
    assert place.wait(whole)["arrayProperties"]["statusSummary"]["FAILED"] == 2
    assert place.wait(f"{part}:0")["statusReason"] == "one"
    assert place.describe(f"{part}:1")["status"] not in ("SUCCEEDED", "FAILED")
    place.batch.terminate_job(jobId=part, reason="rest")
    assert place.wait(part)["status"] == "FAILED"
    assert place.describe(f"{part}:0")["statusReason"] == "one"


def test_cancelling_the_parent_cancels_the_children_that_wait(place: Place) -> None:
    first = place.submit(place.define("sleep", "600"))
    array = place.submit(place.define("true"), arrayProperties={"size": 2}, dependsOn=[{"jobId": first}])
    place.wait(array, "PENDING")
    place.batch.cancel_job(jobId=array, reason="not these")
    assert place.wait(array)["status"] == "FAILED"
    assert [place.describe(f"{array}:{index}")["statusReason"] for index in (0, 1)] == ["not these"] * 2
    place.batch.terminate_job(jobId=first, reason="seen")
    place.wait(first)


# --- dependencies: https://docs.aws.amazon.com/batch/latest/userguide/job_dependencies.html


def test_a_job_is_pending_until_all_it_depends_on_has_succeeded(place: Place) -> None:
    first, second = place.submit(place.define("sleep", "2")), place.submit(place.define("true"))
    last = place.submit(place.define("true"), dependsOn=[{"jobId": first}, {"jobId": second}])
    assert place.wait(last, "PENDING")["dependsOn"] == [{"jobId": first}, {"jobId": second}]
    ends = [place.wait(one)["stoppedAt"] for one in (first, second)]
    assert place.wait(last)["startedAt"] >= max(ends)


def test_a_failed_dependency_fails_what_waits_for_it_unrun(place: Place) -> None:
    bad = place.submit(place.define("false"))
    after = place.submit(place.define("true"), dependsOn=[{"jobId": bad}])
    later = place.submit(place.define("true"), dependsOn=[{"jobId": after}], arrayProperties={"size": 2})
    job = place.wait(later)
    assert (job["status"], job["arrayProperties"]["statusSummary"]["FAILED"]) == ("FAILED", 2)
    assert [place.describe(one)["attempts"] for one in (after, f"{later}:0")] == [[], []]


def test_a_sequential_array_runs_one_child_after_the_other(place: Place) -> None:
    array = place.submit(place.define("true"), arrayProperties={"size": 3}, dependsOn=[{"type": "SEQUENTIAL"}])
    assert place.wait(array)["status"] == "SUCCEEDED"
    children = [place.describe(f"{array}:{index}") for index in range(3)]
    assert all(one["stoppedAt"] <= other["startedAt"] for one, other in itertools.pairwise(children))


def test_in_n_to_n_each_child_waits_for_its_counterpart_alone(place: Place) -> None:
    script = "test $AWS_BATCH_JOB_ARRAY_INDEX = 0"
    first = place.submit(place.define("sh", "-c", script), arrayProperties={"size": 2})
    second = place.submit(
        place.define("true"), arrayProperties={"size": 2}, dependsOn=[{"jobId": first, "type": "N_TO_N"}]
    )
    place.wait(second)
    assert [place.describe(f"{second}:{index}")["status"] for index in (0, 1)] == ["SUCCEEDED", "FAILED"]


def test_a_job_may_wait_for_one_child_of_an_array(place: Place) -> None:
    script = "test $AWS_BATCH_JOB_ARRAY_INDEX = 1"
    array = place.submit(place.define("sh", "-c", script), arrayProperties={"size": 2})
    after = [place.submit(place.define("true"), dependsOn=[{"jobId": f"{array}:{index}"}]) for index in (0, 1)]
    assert [place.wait(one)["status"] for one in after] == ["FAILED", "SUCCEEDED"]


# --- lists: https://docs.aws.amazon.com/batch/latest/APIReference/API_ListJobs.html


def listed(place: Place, **request: Any) -> list[str]:
    """The ids of every page."""
    found: list[str] = []
    while True:
        page = place.batch.list_jobs(**request)
        found += [job["jobId"] for job in page["jobSummaryList"]]
        if not page.get("nextToken"):
            return found
        request["nextToken"] = page["nextToken"]


def test_a_list_holds_running_jobs_unless_a_status_is_named(place: Place) -> None:
    running = place.submit(place.define("sleep", "600"))
    place.wait(running, "RUNNING")
    ended = place.run("true")["jobId"]
    assert running in listed(place, jobQueue=place.queue)
    assert ended not in listed(place, jobQueue=place.queue)
    assert ended in listed(place, jobQueue=place.queue, jobStatus="SUCCEEDED")
    place.batch.terminate_job(jobId=running, reason="seen")
    place.wait(running)


def test_pages_hold_what_was_asked_for_and_together_all(place: Place) -> None:
    array = place.submit(place.define("true"), arrayProperties={"size": 5})
    place.wait(array)
    request = {"arrayJobId": array, "jobStatus": "SUCCEEDED"}
    first = place.batch.list_jobs(**request, maxResults=2)
    assert len(first["jobSummaryList"]) == 2
    assert first["nextToken"]
    assert sorted(listed(place, **request, maxResults=2)) == [f"{array}:{index}" for index in range(5)]


def test_filters_find_jobs_of_every_status_the_newest_first(place: Place) -> None:
    name, definition = place.fresh("Filtered"), place.define("sh", "-c", "test $AWS_BATCH_JOB_ATTEMPT = 2")
    jobs = [place.submit(definition, jobName=f"{name}-{number}", retryStrategy={"attempts": 2}) for number in (1, 2)]
    good, bad = (place.wait(job) for job in (jobs[0], place.submit(definition, jobName=f"{name}-1")))
    place.wait(jobs[1])

    def found(filter_name: str, *values: str, **request: Any) -> list[str]:
        chosen = [{"name": filter_name, "values": list(values)}]
        return listed(place, jobQueue=place.queue, filters=chosen, **request)

    assert (good["status"], bad["status"]) == ("SUCCEEDED", "FAILED")
    everyone = [bad["jobId"], *reversed(jobs)]
    assert found("JOB_NAME", f"{name}-1".upper()) == [bad["jobId"], jobs[0]]
    assert sorted(found("JOB_NAME", f"{name}*")) == sorted(everyone)
    bare = definition.rpartition("/")[2].partition(":")[0]
    for value in (definition, bare, f"{bare[:-1]}*"):
        assert found("JOB_DEFINITION", value) == everyone
    assert found("JOB_DEFINITION", bare.upper()) == []
    assert set(everyone) <= set(found("AFTER_CREATED_AT", str(good["createdAt"] - 1)))
    assert not set(everyone) & set(found("BEFORE_CREATED_AT", str(good["createdAt"])))
    assert found("JOB_NAME", f"{name}-1", jobStatus="RUNNING") == [bad["jobId"], jobs[0]]


def test_a_summary_tells_what_a_list_needs(place: Place) -> None:
    name = place.fresh("summed")
    job = place.run("sh", "-c", "exit 4", jobName=name)
    chosen = [{"name": "JOB_NAME", "values": [name]}]
    [summary] = place.batch.list_jobs(jobQueue=place.queue, filters=chosen)["jobSummaryList"]
    assert summary["container"]["exitCode"] == 4
    for member in ("jobArn", "jobId", "jobName", "status", "statusReason", "createdAt", "startedAt", "stoppedAt"):
        assert summary[member] == job[member]


# --- definitions


def test_definitions_count_their_revisions_and_a_bare_name_is_the_newest_active_one(place: Place) -> None:
    name = place.fresh("revised")
    arns = [place.define("echo", word, jobDefinitionName=name) for word in ("old", "new")]
    assert [arn.rpartition(":")[2] for arn in arns] == ["1", "2"]
    bare_arn = arns[0].rpartition(":")[0]
    for reference, said in ((name, "new"), (f"{name}:1", "old"), (arns[0], "old"), (bare_arn, "new")):
        assert place.written(place.wait(place.submit(reference))) == [said]
    found = place.batch.describe_job_definitions(jobDefinitionName=name)["jobDefinitions"]
    assert sorted((one["revision"], one["status"]) for one in found) == [(1, "ACTIVE"), (2, "ACTIVE")]
    place.batch.deregister_job_definition(jobDefinition=arns[1])
    assert place.written(place.wait(place.submit(name))) == ["old"]
    for status, revision in (("ACTIVE", 1), ("INACTIVE", 2)):
        answer = place.batch.describe_job_definitions(jobDefinitionName=name, status=status)
        assert [one["revision"] for one in answer["jobDefinitions"]] == [revision]
    place.refused("submit_job", name, jobName="x", jobQueue=place.queue, jobDefinition=f"{name}:2")


def test_a_definition_is_described_as_it_was_registered(place: Place) -> None:
    request = {
        "parameters": {"a": "b"},
        "retryStrategy": {"attempts": 3, "evaluateOnExit": [{"onReason": "x*", "action": "EXIT"}]},
        "timeout": {"attemptDurationSeconds": 60},
        "tags": {"lab": "genome"},
        "schedulingPriority": 5,
        "propagateTags": True,
    }
    arn = place.define("echo", "Ref::a", container={"environment": [{"name": "A", "value": ""}]}, **request)
    [found] = place.batch.describe_job_definitions(jobDefinitions=[arn])["jobDefinitions"]
    assert (found["jobDefinitionArn"], found["revision"], found["type"]) == (arn, 1, "container")
    assert {member: found[member] for member in request if member != "retryStrategy"} == {
        member: request[member] for member in request if member != "retryStrategy"
    }
    # AWS gives actions back in lower case.
    assert json.dumps(found["retryStrategy"]).casefold() == json.dumps(request["retryStrategy"]).casefold()
    assert found["containerProperties"]["command"] == ["echo", "Ref::a"]
    assert found["containerProperties"]["resourceRequirements"] == SMALL


def test_definitions_come_page_by_page(place: Place) -> None:
    name = place.fresh("paged")
    for _ in range(3):
        place.define("true", jobDefinitionName=name)
    first = place.batch.describe_job_definitions(jobDefinitionName=name, maxResults=2)
    second = place.batch.describe_job_definitions(jobDefinitionName=name, maxResults=2, nextToken=first["nextToken"])
    revisions = [one["revision"] for page in (first, second) for one in page["jobDefinitions"]]
    assert (sorted(revisions), "nextToken" in second) == ([1, 2, 3], False)


# --- tags


def test_tags_are_added_changed_and_removed(place: Place) -> None:
    arn = place.define("true", tags={"a": "1", "b": "2"})
    place.batch.tag_resource(resourceArn=arn, tags={"b": "two", "c": "3"})
    assert place.batch.list_tags_for_resource(resourceArn=arn)["tags"] == {"a": "1", "b": "two", "c": "3"}
    place.batch.untag_resource(resourceArn=arn, tagKeys=["a", "nobody"])
    assert place.batch.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "two", "c": "3"}
    job = place.describe(place.submit(arn, tags={"of": "job"}))
    assert place.batch.list_tags_for_resource(resourceArn=job["jobArn"])["tags"] == {"of": "job"}


def test_every_kind_of_resource_is_tagged_and_untagged_by_its_arn_and_children_are_not(place: Place) -> None:
    definition = place.define("true")
    environment = place.environment()
    queue = place.make_queue(environment)
    array = place.submit(definition, arrayProperties={"size": 2})
    arns = [
        definition,
        place.policy(),
        place.describe(place.submit(definition))["jobArn"],
        place.describe(array)["jobArn"],
        place.valid("compute_environments", "computeEnvironments", environment)["computeEnvironmentArn"],
        place.valid("job_queues", "jobQueues", queue)["jobQueueArn"],
    ]
    for arn in arns:
        place.batch.tag_resource(resourceArn=arn, tags={"kept": "1", "gone": "2"})
        place.batch.untag_resource(resourceArn=arn, tagKeys=["gone"])
        assert place.batch.list_tags_for_resource(resourceArn=arn)["tags"]["kept"] == "1"
        assert "gone" not in place.batch.list_tags_for_resource(resourceArn=arn)["tags"]
    assert place.describe(array)["tags"]["kept"] == "1"
    place.refused("tag_resource", "child", resourceArn=f"{place.describe(array)['jobArn']}:0", tags={"a": "b"})


def test_operations_take_names_and_arns_alike(place: Place) -> None:
    environment = place.environment()
    queue = place.make_queue(environment)
    of_queue = place.valid("job_queues", "jobQueues", queue)["jobQueueArn"]
    of_place = place.valid("compute_environments", "computeEnvironments", environment)["computeEnvironmentArn"]
    job = place.submit(place.define("true"), jobQueue=of_queue)
    listed = place.batch.list_jobs(jobQueue=of_queue, filters=[{"name": "JOB_NAME", "values": ["contract"]}])
    assert [one["jobId"] for one in listed["jobSummaryList"]] == [job]
    place.wait(place.submit(place.define("true"), jobQueue=place.queue))
    place.batch.terminate_job(jobId=job, reason="x")
    place.wait(job)
    assert place.batch.describe_job_queues(jobQueues=[of_queue])["jobQueues"][0]["jobQueueName"] == queue
    found = place.batch.describe_compute_environments(computeEnvironments=[of_place])["computeEnvironments"]
    assert [one["computeEnvironmentName"] for one in found] == [environment]
    for what, key, arn in (
        ("job_queue", "jobQueue", of_queue),
        ("compute_environment", "computeEnvironment", of_place),
    ):
        getattr(place.batch, f"update_{what}")(**{key: arn, "state": "DISABLED"})
        place.valid(f"{what}s", f"{key}s", arn)
        getattr(place.batch, f"delete_{what}")(**{key: arn})
        place.valid(f"{what}s", f"{key}s", arn)


# --- environments and queues


def test_an_environment_lives_from_create_over_disable_to_delete(place: Place) -> None:
    name = place.environment(tags={"lab": "genome"})
    [found] = place.batch.describe_compute_environments(computeEnvironments=[name])["computeEnvironments"]
    assert (found["type"], found["state"], found["status"]) == ("UNMANAGED", "ENABLED", "VALID")
    assert found["tags"] == {"lab": "genome"}
    assert found["computeEnvironmentArn"].endswith(f":compute-environment/{name}")
    place.refused("create_compute_environment", name, computeEnvironmentName=name, type="UNMANAGED")
    place.refused("delete_compute_environment", name, computeEnvironment=name)
    answer = place.batch.update_compute_environment(computeEnvironment=name, state="DISABLED")
    assert answer["computeEnvironmentName"] == name
    assert place.valid("compute_environments", "computeEnvironments", name)["state"] == "DISABLED"
    place.batch.delete_compute_environment(computeEnvironment=found["computeEnvironmentArn"])
    assert not place.valid("compute_environments", "computeEnvironments", name)


def test_a_queue_lives_from_create_over_disable_to_delete(place: Place) -> None:
    environment = place.environment()
    name = place.make_queue(environment, priority=3, tags={"lab": "genome"})
    [found] = place.batch.describe_job_queues(jobQueues=[name])["jobQueues"]
    assert (found["priority"], found["state"], found["status"]) == (3, "ENABLED", "VALID")
    [order] = found["computeEnvironmentOrder"]
    assert order["computeEnvironment"].endswith(f":compute-environment/{environment}")
    place.refused("create_job_queue", name, jobQueueName=name, priority=1, computeEnvironmentOrder=[order])
    place.batch.update_job_queue(jobQueue=found["jobQueueArn"], priority=9)
    assert place.valid("job_queues", "jobQueues", name)["priority"] == 9
    place.batch.update_compute_environment(computeEnvironment=environment, state="DISABLED")
    place.valid("compute_environments", "computeEnvironments", environment)
    place.refused("delete_compute_environment", name, computeEnvironment=environment)  # a queue uses it
    place.refused("delete_job_queue", name, jobQueue=name)  # ENABLED
    place.batch.update_job_queue(jobQueue=name, state="DISABLED")
    place.valid("job_queues", "jobQueues", name)
    place.refused("submit_job", name, jobName="x", jobQueue=name, jobDefinition=place.define("true"))
    place.batch.delete_job_queue(jobQueue=name)
    assert not place.valid("job_queues", "jobQueues", name)
    place.batch.delete_compute_environment(computeEnvironment=environment)
    assert not place.valid("compute_environments", "computeEnvironments", environment)


def test_jobs_of_a_disabled_queue_may_still_finish(place: Place) -> None:
    [order] = place.batch.describe_job_queues(jobQueues=[place.queue])["jobQueues"][0]["computeEnvironmentOrder"]
    queue = place.make_queue(order["computeEnvironment"])
    first = place.submit(place.define("sleep", "0.5"), jobQueue=queue)
    last = place.submit(place.define("true"), jobQueue=queue, dependsOn=[{"jobId": first}])
    place.batch.update_job_queue(jobQueue=queue, state="DISABLED")
    assert place.wait(last)["status"] == "SUCCEEDED"


def test_a_queues_environments_are_tried_in_their_order(place: Place) -> None:
    [order] = place.batch.describe_job_queues(jobQueues=[place.queue])["jobQueues"][0]["computeEnvironmentOrder"]
    empty = place.environment()
    place.batch.update_compute_environment(computeEnvironment=empty, state="DISABLED")
    place.valid("compute_environments", "computeEnvironments", empty)
    queue = place.make_queue(empty, order["computeEnvironment"])
    job = place.wait(place.submit(place.define("sh", "-c", "echo $AWS_BATCH_CE_NAME"), jobQueue=queue))
    assert place.written(job) == [order["computeEnvironment"].rpartition("/")[2]]


# --- fair shares: https://docs.aws.amazon.com/batch/latest/userguide/fair-share-scheduling.html


def test_a_policy_lives_from_create_over_update_to_delete(place: Place) -> None:
    shares = {"shareDistribution": [{"shareIdentifier": "a*", "weightFactor": 0.5}]}
    arn = place.policy(fairsharePolicy=shares, tags={"lab": "genome"})
    [found] = place.batch.describe_scheduling_policies(arns=[arn])["schedulingPolicies"]
    assert (found["arn"], found["tags"]) == (arn, {"lab": "genome"})
    assert found["fairsharePolicy"]["shareDistribution"] == shares["shareDistribution"]
    assert {"arn": arn} in place.batch.list_scheduling_policies()["schedulingPolicies"]
    place.batch.update_scheduling_policy(arn=arn, fairsharePolicy={"shareDecaySeconds": 3600})
    [found] = place.batch.describe_scheduling_policies(arns=[arn])["schedulingPolicies"]
    assert found["fairsharePolicy"]["shareDecaySeconds"] == 3600
    queue = place.make_queue(place.environment(), schedulingPolicyArn=arn)
    place.refused("delete_scheduling_policy", queue, arn=arn)
    place.remove("queue", queue)
    place.batch.delete_scheduling_policy(arn=arn)
    place.made.remove(("policy", arn))
    assert place.batch.describe_scheduling_policies(arns=[arn])["schedulingPolicies"] == []


def test_a_fair_share_queue_wants_a_share_and_another_refuses_it(place: Place) -> None:
    [order] = place.batch.describe_job_queues(jobQueues=[place.queue])["jobQueues"][0]["computeEnvironmentOrder"]
    queue = place.make_queue(order["computeEnvironment"], schedulingPolicyArn=place.policy())
    definition = place.define("true")
    common = {"jobName": "x", "jobDefinition": definition}
    place.refused("submit_job", "shareIdentifier", **common, jobQueue=queue)
    place.refused("submit_job", "shareIdentifier", **common, jobQueue=place.queue, shareIdentifier="lab")
    job = place.wait(place.submit(definition, jobQueue=queue, shareIdentifier="lab", schedulingPriorityOverride=9))
    assert (job["status"], job["shareIdentifier"], job["schedulingPriority"]) == ("SUCCEEDED", "lab", 9)
    chosen = [{"name": "SHARE_IDENTIFIER", "values": ["lab"]}]
    assert listed(place, jobQueue=queue, filters=chosen, jobStatus="SUCCEEDED") == [job["jobId"]]
    assert listed(place, jobQueue=queue, filters=chosen, jobStatus="RUNNING") == []
    place.refused("update_job_queue", "schedulingPolicyArn", jobQueue=place.queue, schedulingPolicyArn=place.policy())
