"""The requests that AWS's own documents show: those of the operations offered here are taken, the others say why not.

The examples of the API reference come from botocore, which ships them; ``contract_requests.json`` holds those of the
user guide and of the members' texts, as values, made whole where the guide shows a part. A name that an example takes
for granted is made first. Not here: the guide's templates, whose every value is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from contract import EVERYWHERE, PLACES, SMALL, Place

SHOWN = json.loads((Path(__file__).parent / "contract_requests.json").read_text())
SHIPPED = [
    {"page": f"API_{operation}", "operation": xform_name(operation), "request": example["input"]}
    for operation, examples in botocore.session.Session()
    .get_component("data_loader")
    .load_service_model("batch", "examples-1")["examples"]
    .items()
    for example in examples
]
GOOD = [one for one in (*SHIPPED, *SHOWN) if "refused" not in one]
REFUSED = [one for one in SHOWN if "refused" in one]
HERE = [one for one in EVERYWHERE if not one.marks]  # their roles, networks and images are nobody's


def label(one: dict[str, Any]) -> str:
    return f"{one['operation']}-{one['page'].rpartition('/')[2].removesuffix('.html')}"


@pytest.fixture(scope="module", params=HERE)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with PLACES[request.param](tmp_path_factory.mktemp("requests") / "account") as one:
        yield one


@pytest.mark.parametrize("example", GOOD, ids=label)
def test_a_request_that_aws_shows_is_taken(place: Place, example: dict[str, Any]) -> None:
    request = prepared(place, example["operation"], json.loads(json.dumps(example["request"])))
    answer = getattr(place.batch, example["operation"])(**request)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    if "jobId" in answer:
        place.batch.terminate_job(jobId=answer["jobId"], reason="taken")


@pytest.mark.parametrize("example", REFUSED, ids=label)
def test_a_request_that_is_not_offered_is_refused_by_name(place: Place, example: dict[str, Any]) -> None:
    if "computeEnvironmentOrder" in example["request"]:
        prepared(place, example["operation"], example["request"])
    with pytest.raises((ClientError, NotImplementedError), match=example["refused"]):
        getattr(place.batch, example["operation"])(**example["request"])
    assert example["why"]


def prepared(place: Place, operation: str, request: dict[str, Any]) -> dict[str, Any]:
    """The request, with what it names made first, and ids and ARNs of AWS's account changed for this one's."""
    match operation:
        case "create_compute_environment":
            clear(place, request["computeEnvironmentName"])
        case "update_compute_environment" | "delete_compute_environment":
            name = request["computeEnvironment"]
            clear(place, name)
            state = "DISABLED" if operation.startswith("delete") else "ENABLED"
            place.environment(name, state=state)
        case "create_job_queue":
            place.remove("queue", request["jobQueueName"])
            for one in request["computeEnvironmentOrder"]:
                has_environment(place, one["computeEnvironment"])
            if "schedulingPolicyArn" in request:
                request["schedulingPolicyArn"] = has_policy(place, request["schedulingPolicyArn"])
        case "update_job_queue" | "delete_job_queue":
            has_queue(place, request["jobQueue"])
            if operation.startswith("delete"):
                place.batch.update_job_queue(jobQueue=request["jobQueue"], state="DISABLED")
        case "list_jobs":
            has_queue(place, request["jobQueue"])
        case "deregister_job_definition":
            has_definition(place, request["jobDefinition"])
        case "submit_job":
            has_queue(place, request["jobQueue"])
            has_definition(place, request["jobDefinition"], nodes="nodeOverrides" in request)
            for one in request.get("dependsOn", []):
                if "jobId" in one:
                    size = request["arrayProperties"] if one.get("type") else None
                    one["jobId"] = a_job(place, **({"arrayProperties": size} if size else {}))
        case "describe_jobs":
            request["jobs"] = [a_job(place)]
        case "cancel_job" | "terminate_job":
            request["jobId"] = a_job(place)
        case "tag_resource" | "untag_resource" | "list_tags_for_resource":
            request["resourceArn"] = place.define("true", tags={"Stage": "Beta"})
    return request


def has_environment(place: Place, name: str) -> None:
    if not place.valid("compute_environments", "computeEnvironments", name):
        place.environment(name)


def has_queue(place: Place, reference: str) -> None:
    name = reference.rpartition("/")[2]
    if not place.valid("job_queues", "jobQueues", name):
        fair = {"schedulingPolicyArn": has_policy(place, "fair")} if name == "Fair" else {}
        has_environment(place, "elsewhere")
        place.batch.update_compute_environment(computeEnvironment="elsewhere", state="DISABLED")  # so that jobs wait
        place.make_queue("elsewhere", name=name, **fair)


def has_policy(place: Place, reference: str) -> str:
    name = reference.rpartition("/")[2]
    for one in place.batch.list_scheduling_policies()["schedulingPolicies"]:
        if one["arn"].endswith(f"/{name}"):
            return str(one["arn"])
    return place.policy(name=name)


def has_definition(place: Place, reference: str, *, nodes: bool = False) -> None:
    name = reference.partition(":")[0]
    if place.batch.describe_job_definitions(jobDefinitionName=name, status="ACTIVE")["jobDefinitions"]:
        return
    if nodes:
        ranges = [{"targetNodes": "0:", "container": {"image": "busybox", "resourceRequirements": SMALL}}]
        properties = {"numNodes": 2, "mainNode": 0, "nodeRangeProperties": ranges}
        place.batch.register_job_definition(jobDefinitionName=name, type="multinode", nodeProperties=properties)
    else:
        place.define("true", jobDefinitionName=name)


def a_job(place: Place, **request: Any) -> str:
    """A job that waits."""
    has_queue(place, "waiting")
    has_definition(place, "anything")
    return place.submit("anything", jobQueue="waiting", **request)


def clear(place: Place, environment: str) -> None:
    """Remove an environment, and the queues in the way."""
    for queue in place.batch.describe_job_queues()["jobQueues"]:
        if any(one["computeEnvironment"].endswith(f"/{environment}") for one in queue["computeEnvironmentOrder"]):
            place.remove("queue", queue["jobQueueName"])
    place.remove("environment", environment)
