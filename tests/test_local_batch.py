"""The embedded Batch does what AWS's documents say of the real one."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError, ParamValidationError

from genokit import Settings, backends

SMALL = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]
ORDER = ["SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"]


@pytest.fixture
def batch(account: Settings) -> Any:
    return backends.clients(account).batch


@pytest.fixture
def logs(account: Settings) -> Any:
    return backends.clients(account).logs


def define(batch: Any, *command: str, name: str = "task", **properties: Any) -> str:
    container = {"image": "genokit", "command": list(command), "resourceRequirements": SMALL, **properties}
    answer = batch.register_job_definition(jobDefinitionName=name, type="container", containerProperties=container)
    return str(answer["jobDefinitionArn"])


def submit(batch: Any, definition: str, queue: str = "highPriority", **request: Any) -> str:
    return str(batch.submit_job(jobName="one", jobQueue=queue, jobDefinition=definition, **request)["jobId"])


def describe(batch: Any, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = batch.describe_jobs(jobs=[job_id])["jobs"][0]
    return job


def wait(batch: Any, job_id: str, *statuses: str, within_s: float = 30) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while (job := describe(batch, job_id))["status"] not in (statuses or ("SUCCEEDED", "FAILED")):
        assert time.monotonic() < deadline, f"still {job['status']}: {job}"
        time.sleep(0.01)
    return job


def written(logs: Any, job: dict[str, Any]) -> list[str]:
    stream = job["container"]["logStreamName"]
    page = logs.get_log_events(logGroupName="/aws/batch/job", logStreamName=stream, startFromHead=True)
    return [event["message"] for event in page["events"]]


def refusal(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def test_a_job_passes_through_the_states_in_order_and_keeps_its_times(batch: Any, logs: Any) -> None:
    job_id = submit(batch, define(batch, "sh", "-c", "echo out; sleep 0.3; echo err >&2; exit 3"))
    seen: list[str] = []
    while not seen or seen[-1] not in ("SUCCEEDED", "FAILED"):
        job = describe(batch, job_id)
        seen += [job["status"]] if job["status"] not in seen else []
    assert seen == sorted(seen, key=ORDER.index)
    assert seen[-2:] == ["RUNNING", "FAILED"]
    assert job["createdAt"] <= job["startedAt"] <= job["stoppedAt"]
    assert job["container"]["exitCode"] == 3
    assert job["statusReason"] == "Essential container in task exited"
    assert job["attempts"][0]["container"] == {"exitCode": 3, "logStreamName": job["container"]["logStreamName"]}
    assert job["container"]["logStreamName"].startswith("task/default/")
    assert written(logs, job) == ["out", "err"]


def test_definitions_count_their_revisions_and_a_name_means_the_newest(batch: Any, logs: Any) -> None:
    first, second = define(batch, "echo", "old"), define(batch, "echo", "new")
    assert [arn.rpartition("/")[2] for arn in (first, second)] == ["task:1", "task:2"]
    assert written(logs, wait(batch, submit(batch, "task"))) == ["new"]
    assert written(logs, wait(batch, submit(batch, "task:1"))) == ["old"]
    found = batch.describe_job_definitions(jobDefinitionName="task")["jobDefinitions"]
    assert [one["revision"] for one in found] == [2, 1]
    assert batch.describe_job_definitions(jobDefinitions=[first])["jobDefinitions"][0]["revision"] == 1


def test_parameters_fill_the_refs_and_overrides_win(batch: Any, logs: Any) -> None:
    container = {
        "image": "genokit",
        "command": ["sh", "-c", 'echo "$0 $1 $A $B"', "Ref::first", "Ref::unknown"],
        "environment": [{"name": "A", "value": "a"}, {"name": "B", "value": "b"}],
        "resourceRequirements": SMALL,
    }
    batch.register_job_definition(
        jobDefinitionName="refs", type="container", parameters={"first": "default"}, containerProperties=container
    )
    overrides = {
        "environment": [{"name": "B", "value": "changed"}],
        "resourceRequirements": [{"type": "MEMORY", "value": "99"}],
    }
    job = wait(batch, submit(batch, "refs", parameters={"first": "$(given)"}, containerOverrides=overrides))
    assert written(logs, job) == ["$(given) Ref::unknown a changed"]
    assert {one["type"]: one["value"] for one in job["container"]["resourceRequirements"]} == {
        "VCPU": "1",
        "MEMORY": "99",
    }


def test_a_job_inherits_nothing_but_what_aws_and_the_image_set(
    account: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_KERNEL", "x")
    clients = backends.clients(account)
    code = "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd(), sys.executable]))"
    job_id = submit(clients.batch, define(clients.batch, "python", "-c", code))
    environment, folder, python = json.loads(written(clients.logs, wait(clients.batch, job_id))[0])
    assert "SECRET_OF_THE_KERNEL" not in environment
    assert environment["AWS_BATCH_JOB_ID"] == job_id
    assert (environment["AWS_BATCH_JOB_ATTEMPT"], environment["AWS_BATCH_JQ_NAME"]) == ("1", "highPriority")
    assert environment["GENOKIT_HOME"] == str(account.home)
    assert Path(folder).is_relative_to(account.home)
    assert not Path(folder).exists()
    assert Path(python).parent == Path(sys.executable).parent


def test_a_bad_request_is_refused_in_botos_own_words(batch: Any) -> None:
    real = boto3.client("batch", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    request = {"jobName": "one", "jobQueue": 3, "jobdefinition": "task"}
    said = []
    for client in (batch, real):
        with pytest.raises(ParamValidationError) as caught:
            client.submit_job(**request)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_what_only_the_documents_forbid_is_refused_with_the_code_of_aws(batch: Any) -> None:
    define(batch, "true")
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
        code, message = refusal(batch.submit_job, **{**good, **wrong})
        assert (code, names in message) == ("ClientException", True), (wrong, message)
    code, message = refusal(batch.describe_jobs, jobs=["x"] * 101)
    assert (code, "101" in message) == ("ClientException", True)


def test_an_operation_that_is_not_offered_says_so_by_name(batch: Any) -> None:
    with pytest.raises(NotImplementedError, match="SubmitServiceJob"):
        batch.submit_service_job(jobName="x")
    with pytest.raises(AttributeError, match="submit_jobs"):
        batch.submit_jobs()


def test_jobs_are_listed_by_queue_and_status_page_by_page(batch: Any) -> None:
    definition = define(batch, "true")
    ids = [submit(batch, definition) for _ in range(5)]
    for job_id in ids:
        wait(batch, job_id)
    assert batch.list_jobs(jobQueue="highPriority")["jobSummaryList"] == []
    listed, token = [], None
    while token or not listed:
        more = {"nextToken": token} if token else {}
        page = batch.list_jobs(jobQueue="highPriority", jobStatus="SUCCEEDED", maxResults=2, **more)
        listed += [job["jobId"] for job in page["jobSummaryList"]]
        token = page.get("nextToken")
    assert listed == ids[::-1]
    assert [job["jobId"] for job in batch.describe_jobs(jobs=["unknown", *ids])["jobs"]] == ids


def test_cancel_stops_what_waits_and_lets_go_on_what_runs(batch: Any) -> None:
    running = submit(batch, define(batch, "sleep", "0.5"))
    wait(batch, running, "RUNNING")
    waiting = submit(batch, define(batch, "true", resourceRequirements=[{"type": "VCPU", "value": "999"}, SMALL[1]]))
    wait(batch, waiting, "RUNNABLE")
    for job_id in (running, waiting):
        batch.cancel_job(jobId=job_id, reason="changed my mind")
    job = wait(batch, waiting)
    assert (job["status"], job["statusReason"], job["attempts"]) == ("FAILED", "changed my mind", [])
    assert wait(batch, running)["status"] == "SUCCEEDED"


def test_terminate_ends_a_running_job_with_the_reason(batch: Any) -> None:
    job_id = submit(batch, define(batch, "sleep", "100"))
    wait(batch, job_id, "RUNNING")
    batch.terminate_job(jobId=job_id, reason="enough")
    job = wait(batch, job_id)
    assert (job["status"], job["statusReason"], job["container"]["exitCode"]) == ("FAILED", "enough", 143)
    assert job["isTerminated"]


def test_a_job_too_large_for_the_machine_waits_and_says_why_and_is_in_nobodys_way(batch: Any) -> None:
    large = submit(batch, define(batch, "true", resourceRequirements=[{"type": "VCPU", "value": "999"}, SMALL[1]]))
    small = submit(batch, define(batch, "true"))
    assert wait(batch, small)["status"] == "SUCCEEDED"
    job = describe(batch, large)
    assert job["status"] == "RUNNABLE"
    assert "999 vCPU" in job["statusReason"]


def test_the_queue_of_higher_priority_goes_first(account: Settings, batch: Any) -> None:
    vcpus = str(int(batch.describe_compute_environments()["computeEnvironments"][0]["unmanagedvCpus"]))
    whole = [{"type": "VCPU", "value": vcpus}, SMALL[1]]
    first = submit(batch, define(batch, "sleep", "0.5", resourceRequirements=whole))
    wait(batch, first, "RUNNING")
    definition = define(batch, "true", resourceRequirements=whole)
    low = submit(batch, definition, "lowPriority")
    high = submit(batch, definition, "highPriority")
    low_job, high_job = wait(batch, low), wait(batch, high)
    assert high_job["startedAt"] <= low_job["startedAt"]
    assert high_job["stoppedAt"] <= low_job["startedAt"]


def test_a_missing_program_fails_the_job_and_names_the_program(batch: Any) -> None:
    job = wait(batch, submit(batch, define(batch, "no-such-program")))
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
    home = str(account.home)
    ours = {process.pid for process in psutil.process_iter(["cmdline"]) if home in (process.info["cmdline"] or [])}
    locks = [account.home / "supervisor.lock", *account.home.glob("hosts/*/lock")]
    assert ours == {int(lock.read_text()) for lock in locks}
    assert len(ours) == 2
    assert backends.account(account).status()["jobs"] == {"SUCCEEDED": 15}


def test_a_client_can_be_copied_and_names_its_operations(batch: Any) -> None:
    assert copy.copy(batch).describe_job_queues()["jobQueues"] == batch.describe_job_queues()["jobQueues"]
    assert "submit_job" in dir(batch)
    assert not hasattr(batch, "_repr_html_")
