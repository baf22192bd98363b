"""A job as a task of GA4GH TES 1.1 and back, held against what the standard requires of each field."""

from __future__ import annotations

import math

import jsonschema
import pytest

from genokit import Batch
from genokit.batch import tes
from genokit.errors import InvalidRequest

TEXT, TEXTS = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}


def listed(item: dict) -> dict:
    return {"type": "array", "items": item}


def thing(required: str, **fields: dict) -> dict:
    return {"type": "object", "required": required.split(), "properties": fields, "additionalProperties": False}


# What TES 1.1.0 says of the fields of a task, in the words of JSON Schema.
STATES = ("UNKNOWN", "QUEUED", "INITIALIZING", "RUNNING", "PAUSED", "COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR",
          "CANCELED", "PREEMPTED", "CANCELING")  # fmt: skip
EXECUTOR = thing("image command", image=TEXT, command=listed(TEXT), env=TEXTS, workdir=TEXT, stdin=TEXT, stdout=TEXT,
                 stderr=TEXT, ignore_error={"type": "boolean"})  # fmt: skip
RESOURCES = thing("", cpu_cores={"type": "integer"}, ram_gb={"type": "number"}, disk_gb={"type": "number"},
                  preemptible={"type": "boolean"}, zones=listed(TEXT), backend_parameters=TEXTS,
                  backend_parameters_strict={"type": "boolean"})  # fmt: skip
EXIT = thing("exit_code", exit_code={"type": "integer"}, start_time=TEXT, end_time=TEXT, stdout=TEXT, stderr=TEXT)
LOG = thing("logs outputs", logs=listed(EXIT), outputs=listed({}), metadata=TEXTS, start_time=TEXT, end_time=TEXT,
            system_logs=listed(TEXT))  # fmt: skip
TASK = thing("executors", id=TEXT, state={"enum": [*STATES]}, name=TEXT, description=TEXT, executors=listed(EXECUTOR),
             resources=RESOURCES, tags=TEXTS, logs=listed(LOG), creation_time=TEXT)  # fmt: skip


@pytest.fixture
def batch(account) -> Batch:
    return Batch(settings=account)


def exported(job) -> dict:
    task = tes.to_tes(job)
    jsonschema.validate(task, TASK)
    return task


def test_a_job_becomes_a_task_and_the_task_the_same_job(batch):
    definition = batch.define(
        "align", command=["echo", "Ref::reads"], vcpus=0.25, memory_gib=0.1, environment={"LANG": "C"}, timeout_min=3,
        retry=2,
    )  # fmt: skip
    job = batch.submit(definition, parameters={"reads": "a b.fq"}, tags={"study": "exome"}).wait()
    task = exported(job)
    assert (task["name"], task["state"], task["tags"]) == ("align", "COMPLETE", {"study": "exome"})
    assert task["executors"] == [{"image": "genokit", "command": ["echo", "a b.fq"], "env": {"LANG": "C"}}]
    assert task["resources"]["cpu_cores"] == 1
    assert task["resources"]["backend_parameters"] == {"vcpus": "0.25", "timeout_s": "180", "attempts": "2"}
    assert [one["exit_code"] for one in task["logs"][0]["logs"]] == [0]
    again = exported(tes.from_tes(batch, task).wait())
    filled_in = ("id", "creation_time", "logs")
    assert {name: again[name] for name in again if name not in filled_in} == {
        name: task[name] for name in task if name not in filled_in
    }
    assert again["id"] != task["id"]


def test_a_foreign_task_runs(batch):
    task = {
        "name": "count words",
        "executors": [{"image": "genokit", "command": ["sh", "-c", "echo $WHAT | wc -w"], "env": {"WHAT": "a b c"}}],
        "resources": {"cpu_cores": 1, "ram_gb": 0.5, "disk_gb": 10, "preemptible": True},
        "tags": {"lab": "north"},
    }
    jsonschema.validate(task, TASK)
    job = tes.from_tes(batch, task).wait()
    assert (job.name, job.status, job.log().strip()) == ("count-words", "SUCCEEDED", "3")
    assert exported(job)["resources"]["ram_gb"] == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(("command", "state"), [(["false"], "EXECUTOR_ERROR"), (["sleep", "100"], "CANCELED")])
def test_how_a_job_failed_is_said_in_the_words_of_tes(batch, command, state):
    job = batch.submit(batch.define("fails", command=command, memory_gib=0.1))
    if state == "CANCELED":
        job.terminate()
    assert exported(job.wait())["state"] == state


def test_a_waiting_job_is_queued(batch):
    job = batch.submit(batch.define("waits", command=["true"], memory_gib=0.1, vcpus=10_000), check=False)
    assert exported(job)["state"] == "QUEUED"
    job.terminate()


def test_arrays_and_dependencies_are_refused_but_a_child_is_a_task(batch):
    first = batch.submit(batch.define("first", command=["true"], memory_gib=0.1), size=2)
    with pytest.raises(InvalidRequest, match=r"The job 'first' is an array.*job\.child\(0\)"):
        tes.to_tes(first)
    assert exported(first.wait().child(1))["state"] == "COMPLETE"
    second = batch.submit(batch.define("second", command=["true"], memory_gib=0.1), after=first)
    with pytest.raises(InvalidRequest, match="The job 'second' depends on other jobs"):
        tes.to_tes(second)


STEP = {"image": "genokit", "command": ["true"]}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"executors": [STEP, STEP]}, "one container"),
        ({"executors": [{"image": "genokit"}]}, "one container"),
        ({}, "one container"),
        (None, "one container"),
        ({"executors": [STEP], "resources": {"ram_gb": "much"}}, "'ram_gb' must be a number, got 'much'"),
        ({"executors": [STEP], "resources": {"ram_gb": math.nan}}, "'ram_gb' must be a number"),
        ({"executors": [STEP], "resources": {"backend_parameters": {"vcpus": "many"}}}, "'vcpus' must be a number"),
        (
            {"executors": [STEP], "inputs": [{"url": "s3://b/k", "path": "/in"}]},
            "has 'inputs', which Batch does not do",
        ),
        ({"executors": [{**STEP, "stdout": "/out"}]}, "has 'stdout', which Batch does not do"),
        ({"executors": [{**STEP, "command": ["echo", "Ref::x"]}]}, "would be a parameter of Batch"),
        (
            {"executors": [STEP], "resources": {"backend_parameters": {"vm": "x"}, "backend_parameters_strict": True}},
            "The backend parameter 'vm' is not known",
        ),
    ],
)
def test_what_batch_cannot_do_is_refused_before_anything_is_submitted(batch, task, said):
    with pytest.raises(InvalidRequest, match=said):
        tes.from_tes(batch, task)
    assert batch.jobs().empty
