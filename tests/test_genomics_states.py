"""The workflow as a state machine: valid by every judge, its faults found, and executed with real jobs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from embedded import wait_until
from state_machines import executions, linted, tasks, uncreatable, unsendable

from genokit import Batch, Settings, genomics
from genokit.genomics.state_machine import machine

STEPS = ("align", "call", "annotate", "stats")
QUEUES = {"align": "highPriority", "call": "highPriority", "annotate": "lowPriority", "stats": "lowPriority"}
WHOLE = machine({step: f"genomics-{step}:1" for step in STEPS}, QUEUES, 86_400)


@pytest.mark.parametrize("steps", [STEPS, ("align", "call", "stats")], ids=["annotated", "not annotated"])
def test_the_exported_machine_is_valid_by_statelint_by_moto_and_by_batchs_own_rules(steps, tmp_path):
    made = machine({step: f"genomics-{step}:1" for step in steps}, QUEUES, 60)
    assert [name for name, _ in tasks(made)] == [step.capitalize() for step in steps]
    assert linted(made, tmp_path) == []
    assert uncreatable(made) == []
    assert unsendable(made) == []


def _at(made: dict[str, Any], *path: Any) -> Any:
    for key in path[:-1]:
        made = made[key]
    return made, path[-1]


ALIGN = ("States", "Align")
CALL = ("States", "CallAndStats", "Branches", 0, "States", "Call")
PLANTED = {
    "the first state is missing": ((("StartAt",), "Aligned"),),
    "the next state is missing": (((*ALIGN, "Next"), "CallAndCount"),),
    "a state is never reached": (((*CALL, "Next"), "CallFailed"),),
    "a state has no end": (((*CALL, "Next"), None),),
    "a state's type is unknown": (((*CALL, "Type"), "Job"),),
    "a path is no JSONPath": (((*ALIGN, "Parameters", "Parameters.$"), "align"),),
    "the action is unknown": (((*ALIGN, "Resource"), "arn:aws:states:::batch:submitJobs.sync"),),
    "a parameter is in camelCase": (
        ((*ALIGN, "Parameters", "jobQueue"), "low"), ((*ALIGN, "Parameters", "JobQueue"), None),
    ),
    "a parameter is unknown": (((*CALL, "Parameters", "JobPriority"), 1),),
    "the queue is missing": (((*CALL, "Parameters", "JobQueue"), None),),
    "a job's name is not allowed": (((*CALL, "Parameters", "JobName"), "call of S1"),),
    "a job may be tried too often": (((*CALL, "Parameters", "RetryStrategy"), {"Attempts": 99}),),
    "the heartbeat is as long as the timeout": (((*CALL, "HeartbeatSeconds"), 86_400),),
    "the timeout is negative": (((*CALL, "TimeoutSeconds"), -1),),
    "all errors are caught before others": (
        ((*ALIGN, "Catch"), [{"ErrorEquals": ["States.ALL"], "Next": "AlignFailed"},
                             {"ErrorEquals": ["States.Timeout"], "Next": "AlignFailed"}]),
    ),
    "a caught error goes nowhere": (((*ALIGN, "Catch"), [{"ErrorEquals": ["States.ALL"], "Next": "Failed"}]),),
    "retries have no errors": (((*ALIGN, "Retry"), [{"IntervalSeconds": 1}]),),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_by_at_least_one_judge(fault, tmp_path):
    made = copy.deepcopy(WHOLE)
    for path, value in PLANTED[fault]:
        holder, key = _at(made, *path)
        if value is None:
            del holder[key]
        else:
            holder[key] = value
    found = {"statelint": linted(made, tmp_path), "moto": uncreatable(made), "rule": unsendable(made)}
    print({who: said[:1] for who, said in found.items()})
    assert any(found.values())


@pytest.fixture
def cheap(account: Settings) -> dict[str, str]:
    """Definitions of jobs that end well at once, for each step."""
    batch = Batch(settings=account)
    return {step: batch.define(f"{step}-well", command=["true"], memory_gib=0.1).arn for step in STEPS}


GIVEN = {step: {"sample": "S1"} for step in STEPS}


@pytest.mark.slow
def test_a_sample_is_executed_and_the_workflow_finds_it_finished(account, tmp_path, monkeypatch):
    batch = Batch(settings=account)
    cohort = genomics.simulate(tmp_path / "cohort", 2, bases=10_000, contigs=1, coverage=8)
    given = {"reference": cohort["reference"], "genes": cohort["genes"], "out": tmp_path / "out", "batch": batch}
    exported = genomics.export(cohort["samples"], **given)
    assert (linted(exported.definition, tmp_path), unsendable(exported.definition)) == ([], [])
    with executions(batch.clients, monkeypatch) as execute:
        done = execute(exported.definition, exported.inputs["S2"])
    jobs = batch.jobs().set_index("name")
    ids = {one: {"JobId": jobs["job_id"][f"genomics-{one}"]} for one in STEPS}
    last = [{**exported.inputs["S2"], "job": ids[one]} for one in ("annotate", "stats")]
    assert done["status"] == "SUCCEEDED"
    assert json.loads(done["output"]) == {**exported.inputs["S2"], "job": ids["align"], "branches": last}
    assert {name: jobs["queue"][name] for name in jobs.index} == {f"genomics-{one}": QUEUES[one] for one in STEPS}
    assert jobs["created"]["genomics-align"] <= jobs["started"]["genomics-align"]
    assert jobs["created"]["genomics-call"] >= jobs["stopped"]["genomics-align"]
    assert jobs["created"]["genomics-annotate"] >= jobs["stopped"]["genomics-call"]
    found = genomics.workflow(cohort["samples"], **given).table().query("sample == 'S2'")
    assert list(found["status"]) == ["FINISHED BEFORE"] * 4


# moto's interpreter ends the other branch wherever it is, and a thread of it may miss what it waits for.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("step", STEPS)
def test_an_execution_ends_where_a_job_fails_with_its_step_and_cause(step, account, cheap, tmp_path, monkeypatch):
    batch = Batch(settings=account)
    failing = batch.define("failing", command=["sh", "-c", "echo no; exit 3"], memory_gib=0.1).arn
    with executions(batch.clients, monkeypatch) as execute:
        done = execute(machine(cheap | {step: failing}, QUEUES, 60), GIVEN)
    assert (done["status"], done["error"]) == ("FAILED", f"{step.capitalize()}Failed")
    error = json.loads(done["cause"])
    cause = json.loads(error["Cause"])
    assert (error["Error"], cause["Status"], cause["JobName"]) == ("States.TaskFailed", "FAILED", f"genomics-{step}")
    assert cause["Attempts"][0]["Container"]["ExitCode"] == 3
    later = {"align": {"call", "annotate", "stats"}, "call": {"annotate"}}.get(step, set())
    assert not {f"genomics-{one}" for one in later} & {*batch.jobs()["name"]}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.slow
def test_a_job_that_takes_too_long_is_terminated(account, cheap, monkeypatch):
    batch = Batch(settings=account)
    lasting = batch.define("lasting", command=["sleep", "300"], memory_gib=0.1).arn
    made = machine(cheap | {"call": lasting}, QUEUES, 120)
    for name, task in tasks(made):
        task["TimeoutSeconds"] = 3 if name == "Call" else 120
    with executions(batch.clients, monkeypatch) as execute:
        done = execute(made, GIVEN)
    assert (done["status"], done["error"]) == ("FAILED", "CallFailed")
    assert json.loads(done["cause"])["Error"] == "States.Timeout"
    wait_until(lambda: "FAILED" in list(batch.jobs().query("name == 'genomics-call'")["status"]))
    assert batch.jobs().query("name == 'genomics-call'")["reason"].iloc[0].startswith("States.Timeout")


def test_the_inputs_of_executions_are_what_jobs_are_given(account, tmp_path):
    cohort = genomics.simulate(tmp_path / "cohort", 2, bases=10_000, contigs=1, coverage=2)
    exported = genomics.export(
        cohort["samples"], cohort["reference"], out=tmp_path / "out", queue_low="later", vcpus={"align": 4},
        timeout_h=0.5, batch=Batch(settings=account),
    )  # fmt: skip
    assert list(exported.inputs) == ["S1", "S2"]
    assert {step: row["out"] for step, row in exported.inputs["S1"].items()} == {
        "align": f"{tmp_path}/out/S1/bam", "call": f"{tmp_path}/out/S1/vcf", "stats": f"{tmp_path}/out/S1/stats",
    }  # fmt: skip
    parameters = {name: task["Parameters"] for name, task in tasks(exported.definition)}
    assert {name: one["JobQueue"] for name, one in parameters.items()} == {
        "Align": "highPriority", "Call": "highPriority", "Stats": "later",
    }  # fmt: skip
    assert Path(parameters["Align"]["JobDefinition"]).name == "genomics-align:1"
    assert {task["TimeoutSeconds"] for _, task in tasks(exported.definition)} == {1800}
    assert Batch(settings=account).definition("genomics-align").vcpus == 4
