"""What jobs will cost, and what they did cost: hours of every attempt, shares of instances, and what nobody knows."""

from __future__ import annotations

import math
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given, settings
from hypothesis import strategies as st

from genokit import Batch, Settings
from genokit.backends import Clients
from genokit.batch import JobDefinition
from genokit.batch.cost import costs, prices
from genokit.batch.cost.estimate import estimate, total
from genokit.batch.cost.prices import Price, Priced
from genokit.batch.requirements import Capacity
from genokit.batch.resources import ComputeEnvironment
from genokit.errors import InvalidRequest, NotFound
from genokit.plots import cost_bars

SECRET = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
ARN = "arn:aws:batch:us-east-1:123456789012"
HOST = "arn:aws:ecs:us-east-1:123456789012:container-instance/AWSBatch-spot/0123"
HOUR = 3_600_000
INSTANCES = list(prices._table()[0].values())


def environment(name: str, *types: str, kind: str = "EC2") -> ComputeEnvironment:
    return ComputeEnvironment(
        name=name, arn=f"{ARN}:compute-environment/{name}", type=kind, state="ENABLED", status="VALID", reason="",
        min_vcpus=0, desired_vcpus=0, max_vcpus=64, instance_types=types, spot=kind.endswith("SPOT"),
        cluster=f"arn:aws:ecs:us-east-1:123456789012:cluster/AWSBatch-{name}", capacity=None, only_image=None,
    )  # fmt: skip


def job(*hours: float, vcpus: float = 2, memory_gib: float = 4, gpus: int = 0, **more: Any) -> dict[str, Any]:
    """A job as DescribeJobs tells it, whose attempts took so many hours."""
    asked = {"VCPU": vcpus, "MEMORY": memory_gib * 1024, "GPU": gpus}
    resources = [{"type": kind, "value": f"{value:g}"} for kind, value in asked.items() if value]
    return {
        "jobId": "ab12",
        "jobName": "align",
        "jobQueue": f"{ARN}:job-queue/highPriority",
        "jobDefinition": f"{ARN}:job-definition/align:1",
        "status": "SUCCEEDED",
        "container": {"resourceRequirements": resources},
        "attempts": [{"startedAt": 1000, "stoppedAt": 1000 + one * HOUR, "container": {}} for one in hours],
        **more,
    }


def definition(vcpus: float = 2, memory_gib: float = 4, gpus: int = 0) -> JobDefinition:
    return JobDefinition("align", 1, f"{ARN}:job-definition/align:1", "genokit", ("true",), vcpus, memory_gib, gpus, {})


def flat(usd: float) -> Price:
    return Price(usd, usd, "a test", "2026-11-22")


def known(on_demand: dict[str, Price | str], spot: dict[str, Price | str] | None = None) -> Priced:
    """Prices that a test knows, of all types."""
    return lambda names, is_spot: {
        name: ((spot or {}) if is_spot else on_demand).get(name, f"{name}: no price was queried") for name in names
    }


# --- after


def test_every_attempt_counts_the_failed_and_the_reclaimed_too() -> None:
    [row] = costs.actual([job(1, 0.5, 2)], {}, None).to_dict("records")
    assert (row["attempts"], row["hours"], row["vcpu_hours"], row["gib_hours"]) == (3, 3.5, 7.0, 14.0)
    assert (row["usd_low"], row["usd_high"], row["price_source"]) == (0.0, 0.0, "no charge: here")


def test_a_running_job_has_cost_something_already() -> None:
    running = job(1, status="RUNNING", startedAt=10 * HOUR)
    [row] = costs.actual([running], {}, None, now_ms=12 * HOUR).to_dict("records")
    assert row["hours"] == 3
    never = {"attempts": [{"container": {}, "statusReason": "Host EC2 (instance i-1) terminated."}], "status": "FAILED"}
    [row] = costs.actual([job(**never)], {}, known({})).to_dict("records")
    assert (row["hours"], row["usd_high"], row["price_source"]) == (0, 0, "it never started")
    assert costs.actual([job(**never)], {}, None)["price_source"].tolist() == ["no charge: here"]


def test_a_job_pays_the_largest_share_that_it_takes_of_its_instance() -> None:
    places = {"highPriority": [environment("on", "m5.xlarge")]}  # 4 vCPU, 16 GiB
    priced = known({"m5.xlarge": flat(0.2)})
    half = costs.actual([job(1, vcpus=2, memory_gib=1)], places, priced)
    assert half["usd_low"].tolist() == half["usd_high"].tolist() == [0.1]
    most = costs.actual([job(1, vcpus=1, memory_gib=12)], places, priced)
    assert most["usd_high"].tolist() == [pytest.approx(0.15)]
    assert most["price_source"].tolist() == ["a test, 2026-11-22"]


def test_the_environment_that_it_ran_in_counts_where_it_is_known_else_all_of_the_queue() -> None:
    places = {"highPriority": [environment("ondemand", "c5.xlarge"), environment("spot", "m5", kind="SPOT")]}
    spot: dict[str, Price | str] = {one.name: Price(0.1, 0.2, "spot", "now") for one in INSTANCES}
    priced = known({"c5.xlarge": flat(0.4)}, spot)
    seen = job(1, vcpus=4, memory_gib=2)
    seen["attempts"][0]["container"] = {"containerInstanceArn": HOST}
    [row] = costs.actual([seen], places, priced).to_dict("records")
    assert row["price_source"].startswith("range over 8 instance types that fit")
    assert row["usd_high"] == 0.2
    assert row["usd_low"] == pytest.approx(0.1 * 4 / 96)
    [row] = costs.actual([job(1, vcpus=4, memory_gib=2)], places, priced).to_dict("records")
    assert row["usd_high"] == 0.4


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (environment("odd", "x1e"), "'x1e' is not in the kit's table"),
        (environment("far", "FARGATE", kind="FARGATE"), "Fargate"),
        (environment("small", "m5.large"), "none in the kit's table can"),
        (environment("spot", "m5.xlarge", kind="SPOT"), "m5.xlarge: no price was queried"),
        (environment("on", "m5.24xlarge"), "asked in vain"),
    ],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_unknown_is_said_and_never_zero(place: ComputeEnvironment, why: str) -> None:
    frame = costs.actual([job(1, vcpus=4)], {"highPriority": [place]}, known({"m5.24xlarge": "asked in vain"}))
    assert frame[["usd_low", "usd_high"]].isna().all(axis=None)
    assert frame["price_source"].tolist()[0].startswith("unknown: ")
    assert why in frame["price_source"].tolist()[0]
    sums = costs.grouped(frame, "queue")
    assert sums["usd_high"].isna().all()
    assert sums["unpriced"].tolist() == [1]
    assert "unknown" in repr(costs.Costs(frame, "queue", "on AWS"))


def test_containers_that_the_kit_does_not_read_are_unknown_too() -> None:
    odd = job(1, container={}, ecsProperties={"taskProperties": []})
    frame = costs.actual([odd], {}, known({}))
    assert frame[["vcpu_hours", "gib_hours", "gpu_hours", "usd_high"]].isna().all(axis=None)
    assert frame["hours"].tolist() == [1]
    gone = costs.actual([job(1)], {}, known({}))
    assert gone["price_source"].tolist() == ["unknown: its queue has no compute environment"]


KEYS = st.sampled_from(["run", "project", "user", "queue", "definition", "name", "job", "tissue"])
TAGS = st.dictionaries(st.sampled_from(["genokit:run", "genokit:user", "tissue"]), st.text("ab", max_size=2))
JOBS = st.lists(
    st.builds(
        lambda hours, vcpus, tags, priced: job(*hours, vcpus=vcpus, tags=tags, jobQueue="known" if priced else "other"),
        st.lists(st.floats(0, 100), max_size=4),
        st.floats(0.25, 4),
        TAGS,
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(JOBS, KEYS)
def test_sums_are_the_same_however_they_are_grouped(jobs: list[dict[str, Any]], by: str) -> None:
    places = {"known": [environment("ec2", "m5.xlarge")], "other": [environment("odd", "x1e")]}
    frame = costs.actual(jobs, places, known({"m5.xlarge": flat(0.192)}))
    if by == "tissue" and not any("tissue" in one["tags"] for one in jobs):
        with pytest.raises(InvalidRequest, match="no job has a tag 'tissue'"):
            costs.grouped(frame, by)
        return
    sums = costs.grouped(frame, by)
    assert sums["jobs"].sum() == len(jobs)
    for column in ("hours", "vcpu_hours", "gib_hours", "usd_low", "usd_high"):
        assert math.isclose(sums[column].sum(), frame[column].sum(), rel_tol=1e-9, abs_tol=1e-12), column
    assert sums["unpriced"].sum() == frame["usd_high"].isna().sum()
    assert (frame["usd_low"].dropna() <= frame["usd_high"].dropna()).all()
    assert frame["vcpu_hours"].sum() == pytest.approx(
        sum(
            (attempt["stoppedAt"] - attempt["startedAt"])
            / HOUR
            * float(one["container"]["resourceRequirements"][0]["value"])
            for one in jobs
            for attempt in one["attempts"]
        )
    )


def test_here_arrays_count_by_their_children_from_their_lines_in_lists(account: Settings) -> None:
    batch = Batch(settings=account)
    clients = batch.clients
    task = batch.define("task", command=["sh", "-c", "sleep 0.2"], memory_gib=0.1)
    asked = {"jobQueue": "highPriority", "jobDefinition": task.arn, "tags": {"genokit:user": "ana", "tissue": "liver"}}
    array = clients.batch.submit_job(jobName="many", arrayProperties={"size": 3}, **asked)["jobId"]
    again = {"attempts": 2}
    single = batch.submit(batch.define("fails", command=["sh", "-c", "sleep 0.1; exit 1"], memory_gib=0.1))
    retried = clients.batch.submit_job(jobName="again", arrayProperties={"size": 2}, retryStrategy=again, **asked)[
        "jobId"
    ]
    for one in (array, retried, single.id):
        batch.job(one).wait(60)
    found = costs.costs(clients, by="user")
    children = [f"{array}:{n}" for n in range(3)] + [f"{retried}:{n}" for n in range(2)]
    assert sorted(found.jobs["job_id"]) == sorted([*children, single.id])
    assert (found.jobs["hours"] > 0).all()
    assert found.table.set_index("user").loc["ana", "jobs"] == 5
    assert repr(found) == "<Costs of 6 jobs by user: no charge: here>"
    assert costs.costs(clients, [array], by="tissue").table["tissue"].tolist() == ["liver"]
    assert costs.costs(clients, []).table.empty
    there = costs.costs(clients, [array], on="aws")
    assert (there.jobs["usd_low"] > 0).all()
    assert there.jobs["price_source"].str.contains("the kit's table").all()
    assert "<script>" not in there._repr_html_()
    with pytest.raises(InvalidRequest, match=r"no job has a tag 'usr'\. Did you mean 'user'"):
        costs.costs(clients, by="usr")


def test_on_aws_children_are_described_in_hundreds() -> None:
    batch = boto3.client("batch", **SECRET)
    batches = Stubber(batch)
    clients = Clients(Settings(backend="aws", region="us-east-1"), batch=batch)
    size = 250
    parent = job(jobId="ar", status="PENDING", arrayProperties={"size": size}, tags={"genokit:run": "r"})
    parent |= {"startedAt": 1000, "attempts": []}
    lines = [{"jobId": f"ar:{n}", "jobName": "align", "status": "SUCCEEDED"} for n in range(size)]
    children = [job(1, jobId=f"ar:{n}", startedAt=1000) for n in range(size)]
    batches.add_response("describe_jobs", {"jobs": [parent]}, {"jobs": ["ar"]})
    for status in ("RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED"):
        asked = {"arrayJobId": "ar", "jobStatus": status, "maxResults": 1000}
        batches.add_response("list_jobs", {"jobSummaryList": lines if status == "SUCCEEDED" else []}, asked)
    for first in (0, 100, 200):
        part = children[first : first + 100]
        batches.add_response("describe_jobs", {"jobs": part}, {"jobs": [one["jobId"] for one in part]})
    with batches:
        frame = costs.actual(costs.used(clients, ["ar"]), {}, None)
        batches.assert_no_pending_responses()
    assert len(frame) == size
    assert frame["run"].unique().tolist() == ["r"]
    assert frame["hours"].tolist() == [1.0] * size


# --- before


def on_aws() -> tuple[Clients, dict[str, Stubber]]:
    """Clients of an account and what its services will answer: no prices on demand, and Spot at 7 to 9 dollars."""
    made = {name: boto3.client(name, **SECRET) for name in ("batch", "ec2", "pricing")}
    stubs = {name: Stubber(client) for name, client in made.items()}
    stubs["pricing"].add_client_error("get_products", "AccessDeniedException", "no")
    zones = [
        {"InstanceType": "p4d.24xlarge", "SpotPrice": usd, "Timestamp": "2026-11-22T12:00:00Z"} for usd in ("7", "9")
    ]
    stubs["ec2"].add_response("describe_spot_price_history", {"SpotPriceHistory": zones})
    for stub in stubs.values():
        stub.activate()
    return Clients(Settings(backend="aws", region="us-east-1"), **made), stubs


def one_queue(batches: Stubber, *types: str) -> None:
    """A queue over Spot instances of two families, one of them in no table."""
    place = {
        "computeEnvironmentName": "spot",
        "computeEnvironmentArn": f"{ARN}:compute-environment/spot",
        "ecsClusterArn": "arn:aws:ecs:us-east-1:123456789012:cluster/AWSBatch-spot",
        "computeResources": {
            "type": "SPOT",
            "maxvCpus": 64,
            "instanceTypes": [*types] or ["p4d", "x1e"],
            "subnets": [],
        },
    }
    queue = {
        "jobQueueName": "highPriority",
        "jobQueueArn": f"{ARN}:job-queue/highPriority",
        "state": "ENABLED",
        "priority": 1,
        "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": f"{ARN}:compute-environment/spot"}],
    }
    batches.add_response("describe_job_queues", {"jobQueues": [queue]})
    batches.add_response("describe_compute_environments", {"computeEnvironments": [place]})


def test_on_aws_the_queues_own_instances_are_priced_by_who_knows_and_the_rest_is_said() -> None:
    clients, stubs = on_aws()
    one_queue(stubs["batch"])
    found = estimate(clients, definition(vcpus=12, memory_gib=100, gpus=1), minutes=30, size=16)
    assert found.usd == {"spot (SPOT)": (pytest.approx(7.0), pytest.approx(9.0))}  # two instances for half an hour
    assert found.sources[0].startswith("EC2 Spot price history (")
    assert found.unknown == ("the instance type 'x1e' is not in the kit's table",)
    assert "spot (SPOT)" in found._repr_html_()


def test_on_aws_a_spot_job_costs_its_share_of_its_instance() -> None:
    clients, stubs = on_aws()
    done = job(2, vcpus=12, memory_gib=100, gpus=1, tags={"genokit:project": "lab"}, startedAt=1000)
    one_queue(stubs["batch"], "p4d")
    stubs["batch"].add_response("describe_jobs", {"jobs": [done]}, {"jobs": ["ab12"]})
    found = costs.costs(clients, ["ab12"], by="project")
    assert found.jobs["usd_low"].tolist() == [pytest.approx(1.75)]  # 2 h, an eighth of the vCPUs and of the GPUs
    assert found.jobs["usd_high"].tolist() == [pytest.approx(2.25)]
    assert repr(found) == "<Costs of 1 job by project: 1.75 to 2.25 USD>"


ROOMS = st.builds(Capacity, st.floats(0.25, 64), st.floats(100, 256 * 1024), st.integers(0, 4))
SIZES = st.lists(st.sampled_from(INSTANCES), max_size=6, unique=True)


@given(ROOMS, SIZES, st.floats(0.01, 10), st.integers(1, 500), st.randoms())
def test_an_estimate_is_a_range_that_grows_with_time_and_size(
    need: Capacity, types: list[prices.Instance], hours: float, size: int, dice: Any
) -> None:
    fit = [(one, Price(0.5, 0.5 + dice.random(), "a test")) for one in types if one.holds(need)]
    span = total(need, fit, hours, size)
    if not fit:
        assert span is None
        return
    assert span is not None
    assert 0 < span[0] <= span[1] * (1 + 1e-9)
    assert total(need, fit, hours * 2, size) == (pytest.approx(span[0] * 2), pytest.approx(span[1] * 2))
    larger = total(need, fit, hours, size + 1)
    assert larger is not None
    assert larger[0] >= span[0]
    assert larger[1] >= span[1]


def test_here_nothing_is_charged_and_aws_can_be_asked_for(account: Settings) -> None:
    batch = Batch(settings=account)
    task = batch.define("task", command=["true"], vcpus=1, memory_gib=0.1)
    here = batch.estimate(task, minutes=30)
    assert (here.usd, here.unknown) == ({}, ())
    assert repr(here) == "<Estimate task x 1: no charge>"
    there = estimate(batch.clients, definition(vcpus=2, memory_gib=3), minutes=60, size=10, on="aws")
    # ten shares of c6i.large; ten r6i.large
    assert there.usd == {"this-machine (EC2)": (pytest.approx(0.85), pytest.approx(1.26))}
    assert there.sources == ("the kit's table (2026-02-09)",)
    assert "0.85 to 1.26 USD" in there._repr_html_()
    too_large = estimate(batch.clients, definition(memory_gib=100_000), minutes=1, on="aws")
    assert too_large.usd == {"this-machine (EC2)": None}
    assert any("none in the kit's table can" in one for one in too_large.unknown)
    gpu = estimate(batch.clients, definition(vcpus=4, memory_gib=15, gpus=1), minutes=60, on="aws")
    assert gpu.usd == {"this-machine (EC2)": (pytest.approx(0.526, rel=0.1), pytest.approx(1.006, rel=0.1))}
    with pytest.raises(NotFound, match="Did you mean 'highPriority'"):
        batch.estimate(task, queue="highPrio", minutes=1)
    with pytest.raises(InvalidRequest, match="no place 'azure'"):
        batch.estimate(task, on="azure", minutes=1)
    with pytest.raises(InvalidRequest, match="more than 0"):
        batch.estimate(task, size=0, minutes=1)


# --- shown


def test_bars_show_ranges_and_say_what_is_unknown() -> None:
    frame = costs.actual(
        [job(1, tags={"genokit:run": "a"}), job(2, tags={"genokit:run": "b"}, jobQueue="odd")],
        {"highPriority": [environment("ec2", "m5.large", "m5.xlarge")], "odd": [environment("odd", "x1e")]},
        known({"m5.large": flat(0.1), "m5.xlarge": flat(0.3)}),
    )
    sums = costs.grouped(frame, "run")
    axes = cost_bars(sums, "usd", by="run")
    words = [text.get_text().strip() for text in axes.texts]
    assert words == ["0.1 to 0.15", "unknown"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    hours = cost_bars(sums, "vcpu_hours", by="run")
    assert [text.get_text().strip() for text in hours.texts] == ["4", "2"]
    assert costs.Costs(frame, "run", "on AWS").plot().get_xlabel() == "US dollars"
    assert "and 1 of unknown cost" in costs.Costs(frame, "run", "on AWS")._repr_html_()
