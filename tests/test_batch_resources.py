"""Job queues and compute environments as a notebook holds them."""

from __future__ import annotations

from typing import Any

import pytest
from described import ARN, environment, queue, stubbed

from genokit import Settings
from genokit.backends import Clients
from genokit.batch import resources
from genokit.batch.requirements import Capacity
from genokit.errors import AccessDenied


def test_the_embedded_account_tells_its_queues_and_the_capacity_of_this_machine(account: Settings) -> None:
    clients = Clients(account)
    high, low = resources.queues(clients)
    assert (high.name, high.priority, high.state, high.status) == ("highPriority", 1000, "ENABLED", "VALID")
    assert (low.name, low.policy) == ("lowPriority", None)
    (here,) = high.environments
    assert (here.name, here.type, here.usable, here.cluster) == ("this-machine", "EC2", True, here.cluster)
    assert here.capacity is not None
    assert here.capacity.vcpus == here.max_vcpus
    assert here.capacity.memory_mib > 100


def test_the_environments_stand_in_their_queue_s_order_whatever_page_they_came_on(account: Settings) -> None:
    fair = queue("high", "a", priority=9, schedulingPolicyArn=f"{ARN}:scheduling-policy/fair")
    spot = environment("b", "SPOT", instanceTypes=["c5", "m5.xlarge"], desiredvCpus=8)
    bad = environment("a", status="INVALID", statusReason="CLIENT_ERROR - Clusters can not be blank.")
    batch = stubbed(
        "batch",
        ("describe_job_queues", {"jobQueues": [queue("low", "b", "a")], "nextToken": "2"}),
        ("describe_job_queues", {"jobQueues": [fair]}),
        ("describe_compute_environments", {"computeEnvironments": [spot], "nextToken": "2"}),
        ("describe_compute_environments", {"computeEnvironments": [bad]}),
    )
    high, low = resources.queues(Clients(account, batch=batch))
    assert (high.name, high.policy) == ("high", "fair")
    b, a = low.environments
    assert (b.name, b.type, b.spot, b.desired_vcpus, b.instance_types) == ("b", "SPOT", True, 8, ("c5", "m5.xlarge"))
    assert (a.usable, a.reason, a.capacity) == (False, bad["statusReason"], None)
    assert repr(low) == "<JobQueue low priority 1 ENABLED VALID -> b, a>"
    assert repr(b) == "<ComputeEnvironment b SPOT ENABLED VALID up to 256 vCPU>"


def test_an_environment_is_usable_while_it_is_enabled_valid_and_has_room() -> None:
    for changes, usable in (
        ({}, True),
        ({"status": "UPDATING"}, True),
        ({"state": "DISABLED"}, False),
        ({"status": "INVALID"}, False),
        ({"maxvCpus": 0}, False),
    ):
        assert resources._environment(environment("a", **changes)).usable is usable


def test_without_a_container_engine_the_environment_says_which_image_it_can_run(
    account: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (here,) = resources.environments(Clients(account))
    assert here.only_image == "genokit"
    assert isinstance(here.capacity, Capacity)


def test_a_refusal_names_what_was_asked_for(account: Settings) -> None:
    batch = stubbed("batch", ("describe_job_queues", "AccessDeniedException"))
    with pytest.raises(AccessDenied, match="job queues: AWS denies DescribeJobQueues"):
        resources.queues(Clients(account, batch=batch))
