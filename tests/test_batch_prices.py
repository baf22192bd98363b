"""What EC2 instances hold and cost: the table against its sources, and who is asked before it is believed."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from genokit import Settings
from genokit.backends import Clients
from genokit.batch.cost import prices
from genokit.batch.requirements import Capacity

SECRET = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
MOTO = Path(moto.__file__).parent / "ec2" / "resources" / "instance_types.json.gz"
INSTANCES = list(prices._table()[0].values())
KNOWN_BY_NONE = ("p3.2xlarge", "p3.8xlarge", "p3.16xlarge")  # moto's copy has lost them


def test_sizes_are_those_that_ec2_tells() -> None:
    told = json.loads(gzip.decompress(MOTO.read_bytes()))
    for one in INSTANCES:
        if one.name in KNOWN_BY_NONE:
            continue
        same = told[one.name]
        assert one.vcpus == same["VCpuInfo"]["DefaultVCpus"], one
        assert one.memory_gib == same["MemoryInfo"]["SizeInMiB"] / 1024, one
        gpus = (same.get("GpuInfo") or {}).get("Gpus", [])
        assert one.gpus == (gpus[0]["Count"] if gpus else 0), one


def test_the_price_of_a_family_grows_with_its_size() -> None:
    for family in {one.family for one in INSTANCES if not one.gpus}:
        rates = [one.usd_per_hour / one.vcpus for one in INSTANCES if one.family == family and one.usd_per_hour]
        assert max(rates) <= min(rates) * 1.11, f"{family}: a slip of the pen stands out"  # metal may cost 10% more


def test_names_and_bundles_mean_types() -> None:
    optimal, unknown = prices.expand(["optimal"])
    assert {one.family for one in optimal} == {"m6i", "c6i", "r6i", "c7i"}
    assert unknown == []
    arm, _ = prices.expand(["default_arm64"])
    assert {one.family for one in arm} == {"m6g", "c6g", "r6g", "c7g"}
    assert prices.expand(["g4dn", "g4dn.xlarge", "zz9"]) == (prices.expand(["g4dn"])[0], ["zz9"])


@given(st.sampled_from(INSTANCES), st.floats(0.25, 256), st.floats(0.01, 4096), st.integers(0, 16))
def test_as_many_jobs_share_an_instance_as_it_has_room_for(
    one: prices.Instance, vcpus: float, memory_gib: float, gpus: int
) -> None:
    count = one.holds(Capacity(vcpus, memory_gib * 1024, gpus))
    room = (one.vcpus, one.job_memory_gib, one.gpus)
    assert all(count * need <= has * (1 + 1e-9) for need, has in zip((vcpus, memory_gib, gpus), room, strict=True))
    more = count + 1
    assert any(more * need > has * (1 - 1e-9) for need, has in zip((vcpus, memory_gib, gpus), room, strict=True))


def product(name: str, usd: str) -> str:
    """One product of the price list, as GetProducts returns it."""
    term = {
        "effectiveDate": "2026-11-01T00:00:00Z",
        "priceDimensions": {"A.B.C": {"unit": "Hrs", "pricePerUnit": {"USD": usd}}},
    }
    return json.dumps({"product": {"attributes": {"instanceType": name}}, "terms": {"OnDemand": {"A.B": term}}})


def asking(service: str, **settings: Any) -> tuple[Clients, Stubber]:
    client = boto3.client(service, **SECRET)
    stubber = Stubber(client)
    stubber.activate()
    return Clients(Settings(**settings), **{service: client}), stubber


def test_the_pricing_api_goes_before_the_table_and_is_asked_once_a_family() -> None:
    clients, stubber = asking("pricing")
    listed = [product("m5.large", "0.1"), product("m5.xlarge", "0.2"), product("m5.metal", "0.0")]
    stubber.add_response("get_products", {"PriceList": listed[:1], "NextToken": "more"})
    stubber.add_response("get_products", {"PriceList": listed[1:]})
    found = prices.of(clients, ["m5.large", "m5.xlarge", "m5.metal"])
    assert found["m5.large"] == prices.Price(0.1, 0.1, "AWS pricing API", "2026-11-01")
    assert found["m5.xlarge"] == prices.Price(0.2, 0.2, "AWS pricing API", "2026-11-01")
    assert found["m5.metal"] == prices.Price(4.608, 4.608, "the kit's table", "2026-02-09")  # nothing is no price
    stubber.assert_no_pending_responses()


@pytest.mark.parametrize("code", ["AccessDeniedException", "ThrottlingException", "ExpiredTokenException"])
def test_without_the_pricing_api_the_table_answers_for_its_region_alone(code: str) -> None:
    clients, stubber = asking("pricing")
    stubber.add_client_error("get_products", code, "said AWS")
    found = prices.of(clients, ["g5.xlarge", "zz9.large"])
    assert found["g5.xlarge"] == prices.Price(1.006, 1.006, "the kit's table", "2026-02-09")
    assert str(found["zz9.large"]).startswith("the kit's table has no price of zz9.large; ")
    clients, stubber = asking("pricing", region="eu-central-1")
    stubber.add_client_error("get_products", code, "said AWS")
    other = prices.of(clients, ["g5.xlarge"])["g5.xlarge"]
    assert str(other).startswith("the kit's table is not of eu-central-1; ")
    assert "said AWS" in str(other)


def test_here_the_table_answers_and_spot_is_unknown(account: Settings) -> None:
    clients = Clients(account)
    price = prices.Price(0.08925, 0.08925, "the kit's table", "2026-02-09")
    assert prices.of(clients, ["c7i.large"]) == {"c7i.large": price}
    assert prices.of(clients, ["c7i.large"], spot=True) == {"c7i.large": "the embedded account knows no prices"}


def test_spot_is_a_range_over_the_zones() -> None:
    clients, stubber = asking("ec2")
    when = datetime(2026, 11, 20, 12, tzinfo=UTC)
    history = [
        {"InstanceType": "m5.large", "SpotPrice": usd, "AvailabilityZone": f"us-east-1{zone}", "Timestamp": when}
        for zone, usd in (("a", "0.031"), ("b", "0.04"))
    ]
    asked = {
        "InstanceTypes": ["m5.large", "c5.large"],
        "ProductDescriptions": ["Linux/UNIX"],
        "StartTime": ANY,
        "EndTime": ANY,
    }
    stubber.add_response("describe_spot_price_history", {"SpotPriceHistory": history}, asked)
    found = prices.of(clients, ["m5.large", "c5.large"], spot=True)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert found["m5.large"] == prices.Price(0.031, 0.04, "EC2 Spot price history", today)
    assert found["c5.large"] == "EC2 has no Spot price of c5.large in us-east-1"
