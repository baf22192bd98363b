"""State machines checked by three judges, and executed by moto's interpreter with the jobs of an embedded account."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ParamValidationError
from embedded import wait_until
from moto import mock_aws

from genokit.backends import Clients
from genokit.local import shapes
from genokit.local.batch import limits

ROLE = "arn:aws:iam::123456789012:role/genokit-genomics-us-east-1-states"
SYNC = "arn:aws:states:::batch:submitJob.sync"
# What stands for a value that a path gives, by the parameter's name.
GIVEN = {"Parameters": {"sample": "S1"}, "DependsOn": [], "Tags": {}}


def tasks(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every task of a machine, those of its branches too, by name."""
    for name, state in machine["States"].items():
        if state["Type"] == "Task":
            yield name, state
        for branch in state.get("Branches", []):
            yield from tasks(branch)


def lower(value: Any) -> Any:
    """PascalCase members as camelCase ones; the names in maps of texts stay."""
    if isinstance(value, list):
        return [lower(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key[:1].lower() + key[1:]: one if key in ("Parameters", "Tags") else lower(one) for key, one in value.items()
    }


def unsendable(machine: dict[str, Any]) -> list[str]:
    """What of its submissions Batch would refuse: by the names, botocore's shape of SubmitJob, and the known limits."""
    found = []
    for name, task in tasks(machine):
        if task["Resource"] != SYNC:
            found.append(f"{name}: {task['Resource']}")
        named = {key.removesuffix(".$"): GIVEN.get(key[:-2], "text") if key.endswith(".$") else value
                 for key, value in task["Parameters"].items()}  # fmt: skip
        found += [f"{name}: {key} is not in PascalCase" for key in named if not key[:1].isupper()]
        request = lower(named)
        try:
            shapes.check_request(shapes.operations("batch")["submit_job"], request)
            limits.check("SubmitJob", request, ValueError)
        except (ParamValidationError, shapes.Refused, ValueError) as error:
            found.append(f"{name}: {error}")
        if task.get("HeartbeatSeconds", 0) >= task["TimeoutSeconds"]:
            found.append(f"{name}: the heartbeat is not shorter than the timeout")
    return found


def linted(machine: dict[str, Any], folder: Path) -> list[str]:
    """What statelint says."""
    (folder / "machine.json").write_text(json.dumps(machine))
    command = [Path(sys.executable).with_name("statelint"), folder / "machine.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()


def uncreatable(machine: dict[str, Any]) -> list[str]:
    """What moto's Step Functions says when the machine is created."""
    with mock_aws(), closing(boto3.client("stepfunctions", region_name="us-east-1")) as states:
        try:
            states.create_state_machine(name="genomics", definition=json.dumps(machine), roleArn=ROLE)
        except ClientError as error:
            return [str(error)]
        return []


@contextmanager
def executions(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that executes a machine to its end; its jobs are the embedded account's.

    moto's interpreter sends Batch's parameters as they are written in the machine, and its own Batch runs no job. So
    parameters and answers get the case that each side has, jobs go to the account, and a task whose time is over
    terminates its job, as AWS says it does.
    """
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (  # slow, and not for every run
        state_task_service_batch as of_batch,
    )

    task, jobs = of_batch.StateTaskServiceBatch, {}

    def to_batch(self: Any, parameters: Any, boto_service_name: Any = None, service_action_name: Any = None) -> None:
        self._to_boto_request(parameters, shapes.operations("batch")["submit_job"].input_shape)

    def from_batch(self: Any, response: Any, boto_service_name: Any = None, service_action_name: str = "") -> None:
        if "jobId" in response:
            jobs[self.name] = response["jobId"]
        operation = service_action_name or "submit_job"
        self._from_boto_response(response, shapes.operations("batch")[operation].output_shape)

    timed_out = task._get_timed_out_failure_event

    def terminated(self: Any, env: Any) -> Any:
        clients.batch.terminate_job(jobId=jobs[self.name], reason="States.Timeout")
        return timed_out(self, env)

    monkeypatch.setattr(task, "_normalise_parameters", to_batch)
    monkeypatch.setattr(task, "_normalise_response", from_batch)
    monkeypatch.setattr(task, "_get_timed_out_failure_event", terminated)
    monkeypatch.setattr(of_batch, "boto_client_for", lambda **_: clients.batch)
    with (
        mock_aws(config={"stepfunctions": {"execute_state_machine": True}}),
        closing(boto3.client("stepfunctions", region_name="us-east-1")) as states,
    ):

        def execute(machine: dict[str, Any], given: object) -> dict[str, Any]:
            name = f"genomics-{len(states.list_state_machines()['stateMachines'])}"
            made = states.create_state_machine(name=name, definition=json.dumps(machine), roleArn=ROLE)
            started = states.start_execution(stateMachineArn=made["stateMachineArn"], input=json.dumps(given))
            arn = started["executionArn"]
            wait_until(lambda: states.describe_execution(executionArn=arn)["status"] != "RUNNING")
            return copy.deepcopy(states.describe_execution(executionArn=arn))

        yield execute
