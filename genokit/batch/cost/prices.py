"""EC2 instance types: how large they are and what an hour costs, each answer with its source and date.

Sizes come from a table in the package, ``instances.json``. Prices come from AWS's pricing API and from EC2's Spot price
history where they can be reached and are allowed, else from the table, which holds one region on one day. What none of
them tells is unknown, never zero.

https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch.requirements import Capacity
from genokit.batch.resources import FARGATE, ComputeEnvironment
from genokit.errors import GenokitError, InvalidRequest

# What Batch picks from where an environment names one of these; "optimal" means default_x86_64 since November 2025.
# https://docs.aws.amazon.com/batch/latest/userguide/instance-type-compute-table.html
BUNDLES = {
    "optimal": ("m6i", "c6i", "r6i", "c7i"),
    "default_x86_64": ("m6i", "c6i", "r6i", "c7i"),
    "default_arm64": ("m6g", "c6g", "r6g", "c7g"),
}
# What the stack's environments ask for, where no environment says which types it takes.
CPU, GPU = ("default_x86_64",), ("g4dn", "g5")


@dataclass(frozen=True)
class Instance:
    """An EC2 instance type; ``usd_per_hour`` is the table's price, of its region and day."""

    name: str
    vcpus: int
    memory_gib: float
    gpus: int
    usd_per_hour: float | None

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]

    @property
    def job_memory_gib(self) -> float:
        """About what jobs can have of the memory: AWS advises to leave 5% to the system and the ECS agent.

        https://docs.aws.amazon.com/batch/latest/userguide/memory-management.html
        """
        return 0.95 * self.memory_gib

    def share(self, job: Capacity) -> float:
        """The largest part of its vCPUs, memory or GPUs that a job of that size takes.

        >>> expand(["m5.xlarge"])[0][0].share(Capacity(2, 1024))
        0.5
        """
        gpus = job.gpus / self.gpus if job.gpus else 0.0
        return max(job.vcpus / self.vcpus, job.memory_gib / self.memory_gib, gpus)

    def holds(self, job: Capacity) -> int:
        """How many jobs of that size run side by side on one such instance; 0 where none fits.

        >>> [g4dn], _ = expand(["g4dn.12xlarge"])
        >>> g4dn.holds(Capacity(4, 15_360)), g4dn.holds(Capacity(4, 15_360, gpus=1)), g4dn.holds(Capacity(4, 196_608))
        (12, 4, 0)
        """
        amounts = ((self.vcpus, job.vcpus), (self.job_memory_gib, job.memory_gib), (self.gpus, job.gpus))
        return min(int(has // need) for has, need in amounts if need)


@dataclass(frozen=True)
class Price:
    """US dollars for an hour of one instance, the lowest and the highest found, and who says so, as of when."""

    low: float
    high: float
    source: str
    as_of: str = ""


Prices = Mapping[str, Price | str]  # of instance types, or why there is none
Priced = Callable[[tuple[str, ...], bool], Prices]  # of these types, on demand or on Spot

# --- sizes


def expand(names: Iterable[str]) -> tuple[list[Instance], list[str]]:
    """The types that an environment's ``instanceTypes`` mean, and the names that the table does not know.

    >>> found, unknown = expand(["c7i", "m5.large", "x1e"])
    >>> found[0].name, found[-1].name, unknown
    ('m5.large', 'c7i.metal-48xl', ['x1e'])
    """
    table, wanted, unknown = _table()[0], set[str](), []
    for name in names:
        families = BUNDLES.get(name, (name,))
        meant = {one.name for one in table.values() if one.name == name or one.family in families}
        wanted |= meant
        if not meant:
            unknown.append(name)
    return [one for one in table.values() if one.name in wanted], unknown


@cache
def _table() -> tuple[dict[str, Instance], Mapping[str, str]]:
    data = json.loads(Path(__file__).with_name("instances.json").read_text(encoding="utf-8"))
    found = (Instance(**dict(zip(data["columns"], row, strict=True))) for row in data["instances"])
    return {one.name: one for one in found}, {key: data[key] for key in ("region", "as_of", "price_source")}


# --- prices


def charged(clients: Clients, on: str | None) -> bool:
    """Whether jobs are paid for: on AWS, or ``on="aws"`` asks what they would cost there. Raises InvalidRequest."""
    if on not in (None, "aws"):
        raise InvalidRequest(f"There is no place '{on}' to price. Known: 'aws', or None for where jobs run now.")
    return clients.backend.billed or on == "aws"


def offers(
    need: Capacity, places: Iterable[ComputeEnvironment], priced: Priced
) -> tuple[list[tuple[Instance, Price]], list[str]]:
    """The instance types of environments that hold a job, with their prices; and what is unknown, in words."""
    found, unknown = [], list[str]()
    for place in places:
        if place.type in FARGATE:
            unknown.append(f"Fargate's prices, as of '{place.name}', are not in the kit's table")
            continue
        known, missing = expand(place.instance_types or (GPU if need.gpus else CPU))
        unknown += [f"the instance type '{name}' is not in the kit's table" for name in missing]
        prices = priced(tuple(one.name for one in known), place.spot)
        fit = [(one, prices[one.name]) for one in known if one.holds(need)]
        found += [(one, price) for one, price in fit if isinstance(price, Price)]
        unknown += [why for _, why in fit if isinstance(why, str)]
        if not fit and not missing:
            unknown.append(f"which instance type of '{place.name}' can hold the job: none in the kit's table can")
    return found, list(dict.fromkeys(unknown))


def of(clients: Clients, names: Sequence[str], spot: bool = False) -> Prices:
    """What an hour of each instance type costs now in the clients' region, on demand or on Spot.

    On Spot it is a range, from the cheapest Availability Zone to the dearest.
    """
    return _spot(clients, names) if spot else _on_demand(clients, names)


def _on_demand(clients: Clients, names: Sequence[str]) -> Prices:
    (table, about), region = _table(), clients.region
    listed: dict[str, Price | str] = {}
    why = ""
    for family in dict.fromkeys(name.partition(".")[0] for name in names):
        products, why = _ask(clients, "pricing", "get_products", "PriceList", _products(family, region))
        for product in products:
            listed |= _listed(json.loads(product))
        if why:
            break
    for name in set(names) - set(listed):
        own = table.get(name)
        if own and own.usd_per_hour is not None and region == about["region"]:
            listed[name] = Price(own.usd_per_hour, own.usd_per_hour, "the kit's table", about["as_of"])
        else:
            lacks = f"has no price of {name}" if region == about["region"] else f"is not of {region}"
            listed[name] = f"the kit's table {lacks}; {why or 'nor does the pricing API list it'}"
    return listed


def _products(family: str, region: str) -> dict[str, Any]:
    """The GetProducts request for a family's Linux instances on demand, shared tenancy, nothing preinstalled."""
    same = {
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in same.items()]
    return {
        "ServiceCode": "AmazonEC2",
        "FormatVersion": "aws_v1",
        "Filters": [*filters, {"Type": "CONTAINS", "Field": "instanceType", "Value": f"{family}."}],
    }


def _listed(product: Mapping[str, Any]) -> dict[str, Price]:
    """The instance type and the price of one product of the price list; nothing where it names no price."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension.get("pricePerUnit", {}).get("USD", 0))
            if usd > 0 and dimension.get("unit") == "Hrs":
                price = Price(usd, usd, "AWS pricing API", term.get("effectiveDate", "")[:10])
                return {product["product"]["attributes"]["instanceType"]: price}
    return {}


def _spot(clients: Clients, names: Sequence[str]) -> Prices:
    now = datetime.now(UTC)
    request = {"InstanceTypes": list(names), "ProductDescriptions": ["Linux/UNIX"], "StartTime": now, "EndTime": now}
    history, why = _ask(clients, "ec2", "describe_spot_price_history", "SpotPriceHistory", request)
    found: dict[str, Price | str] = {
        name: why or f"EC2 has no Spot price of {name} in {clients.region}" for name in names
    }
    for name in {one["InstanceType"] for one in history}:
        mine = [float(one["SpotPrice"]) for one in history if one["InstanceType"] == name]
        found[name] = Price(min(mine), max(mine), "EC2 Spot price history", f"{now:%Y-%m-%d}")
    return found


def _ask(clients: Clients, service: str, operation: str, member: str, request: dict[str, Any]) -> tuple[list[Any], str]:
    """Everything that a service lists, or why it lists nothing."""
    try:
        with translated_errors(f"prices of {service}"):
            pages = clients.client(service).get_paginator(operation).paginate(**request)
            return list(pages.search(f"{member}[]")), ""
    except NotImplementedError:
        return [], "the embedded account knows no prices"
    except GenokitError as error:
        return [], str(error)


def dollars(span: tuple[float, float] | None) -> str:
    """A range of dollars in words.

    >>> dollars((0.0123, 4.5)), dollars((2, 2)), dollars((0, 0.003)), dollars(None)
    ('0.01 to 4.50 USD', '2.00 USD', 'under 0.01 USD', 'unknown')
    """
    if span is None:
        return "unknown"
    if 0 < span[1] < 0.01:
        return "under 0.01 USD"
    low, high = (f"{one:,.2f}" for one in span)
    return f"{low} USD" if low == high else f"{low} to {high} USD"
