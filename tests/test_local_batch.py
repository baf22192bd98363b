"""The embedded Batch does what AWS's documents say of the real one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError, ParamValidationError
from embedded import SMALL, Box, wait_until, waits_for

from genokit import Settings, backends

ORDER = ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"]


@pytest.fixture
def box(account: Settings) -> Box:
    return Box(account)


def test_a_job_passes_through_the_states_in_order_and_keeps_its_times(box: Box, tmp_path: Path) -> None:
    wait = waits_for(tmp_path / "go")[-1]
    job_id = box.submit(box.define("sh", "-c", f"echo out; {wait}; echo err >&2; exit 3"))
    seen: list[str] = []
    while not seen or seen[-1] not in ("SUCCEEDED", "FAILED"):
        job = box.describe(job_id)
        seen += [job["status"]] if job["status"] not in seen else []
        if seen[-1] == "RUNNING":
            (tmp_path / "go").touch()
    assert seen == sorted(seen, key=ORDER.index)
    assert seen[-2:] == ["RUNNING", "FAILED"]
    assert job["createdAt"] <= job["startedAt"] <= job["stoppedAt"]
    assert job["container"]["exitCode"] == 3
    assert job["statusReason"] == "Essential container in task exited"
    assert job["attempts"][0]["container"] == {"exitCode": 3, "logStreamName": job["container"]["logStreamName"]}
    assert job["container"]["logStreamName"].startswith("task/default/")
    assert box.written(job["jobId"]) == ["out", "err"]


def test_definitions_count_their_revisions_and_a_name_means_the_newest(box: Box) -> None:
    first, second = box.define("echo", "old"), box.define("echo", "new")
    assert [arn.rpartition("/")[2] for arn in (first, second)] == ["task:1", "task:2"]
    assert box.written(box.wait(box.submit("task"))["jobId"]) == ["new"]
    assert box.written(box.wait(box.submit("task:1"))["jobId"]) == ["old"]
    found = box.batch.describe_job_definitions(jobDefinitionName="task")["jobDefinitions"]
    assert [one["revision"] for one in found] == [2, 1]
    assert box.batch.describe_job_definitions(jobDefinitions=[first])["jobDefinitions"][0]["revision"] == 1


def test_parameters_fill_the_refs_and_overrides_win(box: Box) -> None:
    container = {
        "image": "genokit",
        "command": ["sh", "-c", 'echo "$0 $1 $A $B"', "Ref::first", "Ref::unknown"],
        "environment": [{"name": "A", "value": "a"}, {"name": "B", "value": "b"}],
        "resourceRequirements": SMALL,
    }
    box.batch.register_job_definition(
        jobDefinitionName="refs", type="container", parameters={"first": "default"}, containerProperties=container
    )
    overrides = {
        "environment": [{"name": "B", "value": "changed"}],
        "resourceRequirements": [{"type": "MEMORY", "value": "99"}],
    }
    job = box.wait(box.submit("refs", parameters={"first": "$(given)"}, containerOverrides=overrides))
    assert box.written(job["jobId"]) == ["$(given) Ref::unknown a changed"]
    assert {one["type"]: one["value"] for one in job["container"]["resourceRequirements"]} == {
        "VCPU": "1",
        "MEMORY": "99",
    }


def test_a_job_inherits_nothing_but_what_aws_and_the_image_set(
    account: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_KERNEL", "x")
    box = Box(account)
    code = "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd(), sys.executable]))"
    job_id = box.submit(box.define("python", "-c", code))
    environment, folder, python = json.loads(box.written(box.wait(job_id)["jobId"])[0])
    assert "SECRET_OF_THE_KERNEL" not in environment
    assert environment["AWS_BATCH_JOB_ID"] == job_id
    assert (environment["AWS_BATCH_JOB_ATTEMPT"], environment["AWS_BATCH_JQ_NAME"]) == ("1", "highPriority")
    assert environment["GENOKIT_HOME"] == str(account.home)
    assert Path(folder).is_relative_to(account.home)
    assert not Path(folder).exists()
    assert Path(python).parent == Path(sys.executable).parent


def test_a_bad_request_is_refused_in_botos_own_words(box: Box) -> None:
    real = boto3.client("batch", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    request = {"jobName": "one", "jobQueue": 3, "jobdefinition": "task"}
    said = []
    for client in (box.batch, real):
        with pytest.raises(ParamValidationError) as caught:
            client.submit_job(**request)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_what_only_the_documents_forbid_is_refused_with_the_code_of_aws(box: Box) -> None:
    box.define("true")
    good = {"jobName": "one", "jobQueue": "highPriority", "jobDefinition": "task"}
    for wrong, names in (
        ({"jobName": "bad name!!"}, "jobName"),
        ({"jobName": "x" * 129}, "jobName"),
        ({"jobQueue": "nowhere"}, "nowhere"),
        ({"jobDefinition": "nothing"}, "nothing"),
        ({"timeout": {"attemptDurationSeconds": 59}}, "attemptDurationSeconds"),
        ({"containerOverrides": {"resourceRequirements": [{"type": "VCPU", "value": "many"}]}}, "many"),
        ({"containerOverrides": {"resourceRequirements": [{"type": "TPU", "value": "1"}]}}, "TPU"),
        ({"containerOverrides": {"environment": [{"name": "AWS_BATCH_X", "value": "1"}]}}, "AWS_BATCH_X"),
    ):
        code, message = box.refusal(box.batch.submit_job, **{**good, **wrong})
        assert (code, names in message) == ("ClientException", True), (wrong, message)
    code, message = box.refusal(box.batch.describe_jobs, jobs=["x"] * 101)
    assert (code, "101" in message) == ("ClientException", True)


def test_an_operation_that_is_not_offered_says_so_by_name(box: Box) -> None:
    with pytest.raises(NotImplementedError, match="SubmitServiceJob"):
        box.batch.submit_service_job(
            jobName="x", jobQueue="highPriority", serviceRequestPayload="{}", serviceJobType="SAGEMAKER_TRAINING"
        )
    with pytest.raises(AttributeError, match="submit_jobs"):
        box.batch.submit_jobs()


def test_jobs_are_listed_by_queue_and_status_page_by_page(box: Box) -> None:
    definition = box.define("true")
    ids = [box.submit(definition) for _ in range(5)]
    for job_id in ids:
        box.wait(job_id)
    assert box.batch.list_jobs(jobQueue="highPriority")["jobSummaryList"] == []
    listed, token = [], None
    while token or not listed:
        more = {"nextToken": token} if token else {}
        page = box.batch.list_jobs(jobQueue="highPriority", jobStatus="SUCCEEDED", maxResults=2, **more)
        listed += [job["jobId"] for job in page["jobSummaryList"]]
        token = page.get("nextToken")
    assert listed == ids[::-1]
    assert [job["jobId"] for job in box.batch.describe_jobs(jobs=["unknown", *ids])["jobs"]] == ids


def test_cancel_stops_what_waits_and_lets_go_on_what_runs(box: Box, tmp_path: Path) -> None:
    running = box.submit(box.define(*waits_for(tmp_path / "go")))
    box.wait(running, "RUNNING")
    waiting = box.submit(box.define("true", resourceRequirements=[{"type": "VCPU", "value": "999"}, SMALL[1]]))
    box.wait(waiting, "RUNNABLE")
    for job_id in (running, waiting):
        box.batch.cancel_job(jobId=job_id, reason="changed my mind")
    job = box.wait(waiting)
    assert (job["status"], job["statusReason"], job["attempts"]) == ("FAILED", "changed my mind", [])
    (tmp_path / "go").touch()
    assert box.wait(running)["status"] == "SUCCEEDED"


def test_terminate_ends_a_running_job_with_the_reason(box: Box) -> None:
    job_id = box.submit(box.define("sleep", "100"))
    box.wait(job_id, "RUNNING")
    box.batch.terminate_job(jobId=job_id, reason="enough")
    job = box.wait(job_id)
    assert (job["status"], job["statusReason"], job["container"]["exitCode"]) == ("FAILED", "enough", 143)
    assert job["isTerminated"]


def test_a_job_too_large_for_the_machine_waits_and_says_why_and_is_in_nobodys_way(box: Box) -> None:
    large = box.submit(box.define("true", resourceRequirements=[{"type": "VCPU", "value": "999"}, SMALL[1]]))
    small = box.submit(box.define("true"))
    assert box.wait(small)["status"] == "SUCCEEDED"
    job = box.describe(large)
    assert job["status"] == "RUNNABLE"
    assert "999 vCPU" in job["statusReason"]


def test_the_queue_of_higher_priority_goes_first(box: Box, tmp_path: Path) -> None:
    vcpus = str(
        int(box.batch.describe_compute_environments()["computeEnvironments"][0]["computeResources"]["maxvCpus"])
    )
    whole = [{"type": "VCPU", "value": vcpus}, SMALL[1]]
    first = box.submit(box.define(*waits_for(tmp_path / "go"), resourceRequirements=whole))
    box.wait(first, "RUNNING")
    definition = box.define("true", resourceRequirements=whole)
    low = box.submit(definition, "lowPriority")
    high = box.submit(definition, "highPriority")
    (tmp_path / "go").touch()
    low_job, high_job = box.wait(low), box.wait(high)
    assert high_job["startedAt"] <= low_job["startedAt"]
    assert high_job["stoppedAt"] <= low_job["startedAt"]


def test_a_missing_program_fails_the_job_and_names_the_program(box: Box) -> None:
    job = box.wait(box.submit(box.define("no-such-program")))
    assert job["status"] == "FAILED"
    assert "no-such-program" in job["container"]["reason"]


def test_two_processes_that_submit_at_once_share_one_supervisor(account: Settings) -> None:
    code = (
        "import sys; from genokit import Batch; from genokit.config import Settings; "
        "b = Batch(settings=Settings(home=sys.argv[1])); d = b.define('d', command=['true'], memory_gib=0.1); "
        "[b.submit(d).wait(60).raise_for_status() for _ in range(5)]"
    )
    kernels = [subprocess.Popen([sys.executable, "-c", code, account.home]) for _ in range(3)]
    assert [kernel.wait(120) for kernel in kernels] == [0, 0, 0]
    home, only = str(account.home), int((account.home / "supervisor.lock").read_text())

    def ours() -> set[int]:
        return {one.pid for one in psutil.process_iter(["cmdline"]) if home in (one.info["cmdline"] or [])}

    wait_until(lambda: ours() == {only})  # spare keepers wait a second
    assert backends.account(account).status()["jobs"] == {"SUCCEEDED": 15}


def test_pages_exceptions_and_names_are_boto3s(box: Box) -> None:
    for _ in range(3):
        box.define("true")
    pages = box.batch.get_paginator("describe_job_definitions").paginate(PaginationConfig={"PageSize": 2})
    assert [len(page["jobDefinitions"]) for page in pages] == [2, 1]
    with pytest.raises(box.batch.exceptions.ClientException, match="nobody"):
        box.batch.submit_job(jobName="x", jobQueue="nobody", jobDefinition="task")
    assert "submit_job" in dir(box.batch)
    assert not hasattr(box.batch, "_repr_html_")


HALF, NUL = "\ud800", "a\0b"
UNWRITABLE = [
    ("containerOverrides.environment[0].name", {"containerOverrides": {"environment": [{"name": NUL, "value": "x"}]}}),
    ("containerOverrides.environment[1].value", {"containerOverrides": {"environment": [
        {"name": "A", "value": "x"}, {"name": "B", "value": HALF}]}}),
    ("environment[0].name", {"containerOverrides": {"environment": [{"name": "LD_PATH=", "value": "/x"}]}}),
    ("environment[0].name", {"containerOverrides": {"environment": [{"name": "", "value": "/x"}]}}),
    ("environment[0].name", {"containerOverrides": {"environment": [{"value": "/x"}]}}),
    ("containerOverrides.command[1]", {"containerOverrides": {"command": ["echo", NUL]}}),
    ("parameters.x", {"parameters": {"x": HALF}}),
    ("parameters: the name", {"parameters": {HALF: "x"}}),
    ("tags", {"tags": {"x": NUL}}),
    ("jobName", {"jobName": "one" + HALF}),
    ("jobQueue", {"jobQueue": HALF}),
    ("shareIdentifier", {"shareIdentifier": NUL}),
    ("onReason", {"retryStrategy": {"attempts": 2, "evaluateOnExit": [{"onReason": HALF, "action": "EXIT"}]}}),
]  # fmt: skip
IN_DEFINITIONS = [
    ("containerProperties.image", {"image": "busybox" + NUL}),
    ("containerProperties.command[0]", {"command": [HALF]}),
    ("containerProperties.mountPoints[0].containerPath", {"mountPoints": [{"containerPath": NUL}]}),
    ("containerProperties.logConfiguration.options.x", {"logConfiguration": {"logDriver": "awslogs", "options": {
        "x": HALF}}}),
    ("environment[0].name", {"environment": [{"name": "A=B", "value": "x"}]}),
    ("secrets[0].name", {"secrets": [{"name": "=", "valueFrom": "arn"}]}),
]  # fmt: skip


def test_what_no_process_can_be_given_is_refused_by_name_and_other_jobs_go_on(box: Box) -> None:
    others = [box.submit(box.define("sleep", "1")) for _ in range(5)]
    for member, wrong in UNWRITABLE:
        request = {"jobName": "one", "jobQueue": "highPriority", "jobDefinition": "task", **wrong}
        code, message = box.refusal(box.batch.submit_job, **request)
        assert (code, member in message) == ("ClientException", True), message
    for member, wrong in IN_DEFINITIONS:
        with pytest.raises(ClientError, match=re.escape(member)):
            box.define("true", name="wrong", **wrong)
    assert [box.wait(job)["status"] for job in others] == ["SUCCEEDED"] * 5


def test_the_numbers_of_a_request_are_bounded(box: Box) -> None:
    box.define("true")
    good = {"jobName": "one", "jobQueue": "highPriority", "jobDefinition": "task"}
    for kind, value in (("MEMORY", "9" * 30), ("MEMORY", "1_000"), ("VCPU", "inf"), ("VCPU", "1e5"), ("GPU", "²")):
        asked = {"resourceRequirements": [{"type": kind, "value": value}]}
        assert kind in box.refusal(box.batch.submit_job, **good, containerOverrides=asked)[1]
    container = {"image": "genokit", "command": ["true"], "resourceRequirements": SMALL}
    nodes = {"numNodes": 2, "mainNode": 0, "nodeRangeProperties": [{"targetNodes": "0:1", "container": container}]}
    box.batch.register_job_definition(jobDefinitionName="nodes", type="multinode", nodeProperties=nodes)
    wide = {**good, "jobDefinition": "nodes", "nodeOverrides": {"numNodes": 3}}
    assert "numNodes" in box.refusal(box.batch.submit_job, **wide)[1]
    nodes["nodeRangeProperties"] = [{"targetNodes": f"0:{10**12}", "container": container}]
    endless = {"jobDefinitionName": "endless", "type": "multinode", "nodeProperties": nodes}
    assert "targetNodes" in box.refusal(box.batch.register_job_definition, **endless)[1]
