"""EC2 instance types: how large they are and what an hour costs, each answer with its source and date.

Sizes come from a table in the package, ``instances.json``. Prices come from AWS's pricing API and from EC2's Spot price
history where they can be reached and are allowed, else from the table, which holds one region on one day. What none of
them tells is unknown, never zero.

https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch.requirements import Capacity
from genokit.errors import GenokitError

# What Batch picks from where an environment names one of these; "optimal" means default_x86_64 since November 2025.
# https://docs.aws.amazon.com/batch/latest/userguide/instance-type-compute-table.html
BUNDLES = {
    "optimal": ("m6i", "c6i", "r6i", "c7i"),
    "default_x86_64": ("m6i", "c6i", "r6i", "c7i"),
    "default_arm64": ("m6g", "c6g", "r6g", "c7g"),
}


@dataclass(frozen=True)
class Instance:
    """An EC2 instance type; ``usd_per_hour`` is the table's price, of its region and day."""

    name: str
    vcpus: int
    memory_gib: float
    gpus: int
    gpu_name: str
    gpu_memory_gib: float
    arch: str
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

        >>> instance("m5.xlarge").share(Capacity(2, 1024))
        0.5
        """
        gpus = job.gpus / self.gpus if job.gpus else 0.0
        return max(job.vcpus / self.vcpus, job.memory_gib / self.memory_gib, gpus)

    def holds(self, job: Capacity) -> int:
        """How many jobs of that size run side by side on one such instance; 0 where none fits.

        >>> g4dn = next(one for one in instances() if one.name == "g4dn.12xlarge")
        >>> g4dn.holds(Capacity(4, 15_360)), g4dn.holds(Capacity(4, 15_360, gpus=1)), g4dn.holds(Capacity(4, 196_608))
        (12, 4, 0)
        """
        amounts = ((self.vcpus, job.vcpus), (self.job_memory_gib, job.memory_gib), (self.gpus, job.gpus))
        return min(int(has // need) for has, need in amounts if need)


@dataclass(frozen=True)
class Price:
    """US dollars for an hour of one instance, the lowest and the highest found, and who says so, as of when."""

    low: float | None
    high: float | None
    source: str
    as_of: str = ""

    @property
    def known(self) -> bool:
        return self.low is not None


# --- sizes


def instances() -> list[Instance]:
    """Every instance type of the table, family by family, small ones first."""
    return list(_table()[0].values())


def instance(name: str) -> Instance | None:
    """One instance type; None where the table does not hold it.

    >>> instance("g5.xlarge").gpu_name
    'A10G'
    """
    return _table()[0].get(name)


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


def of(clients: Clients, names: Sequence[str], *, spot: bool = False, when: datetime | None = None) -> dict[str, Price]:
    """What an hour of each instance type costs in the clients' region, on demand or on Spot.

    On demand it is today's price; Spot's is the one at ``when`` (default: now; at most 90 days ago), from the cheapest
    Availability Zone to the dearest. Each price is queried once; a service that refuses is not queried again.
    """
    known = clients.shared(_prices)
    moment = f"{when or datetime.now(UTC):%Y-%m-%d %H}"
    keys = {name: (name, moment if spot else "") for name in names}
    missing = [name for name, key in keys.items() if key not in known]
    if missing:
        found = _spot(clients, missing, when) if spot else _on_demand(clients, missing)
        known |= {keys[name]: one for name, one in found.items()}
    return {name: known[key] for name, key in keys.items()}


def _prices(_: Clients) -> dict[tuple[str, str], Price]:
    """The prices queried so far, by instance type and, on Spot, hour."""
    return {}


def _refusals(_: Clients) -> dict[str, str]:
    """Why a service gave no prices, by its name."""
    return {}


def _on_demand(clients: Clients, names: Sequence[str]) -> dict[str, Price]:
    (table, about), region = _table(), clients.region
    listed: dict[str, tuple[float, str]] = {}
    why = ""
    for family in dict.fromkeys(name.partition(".")[0] for name in names):
        products, why = _ask(clients, "pricing", "get_products", "PriceList", _products(family, region))
        for product in products:
            listed |= _listed(json.loads(product))
    found = {}
    for name in names:
        own = table.get(name)
        if name in listed:
            usd, as_of = listed[name]
            found[name] = Price(usd, usd, "AWS pricing API", as_of)
        elif own and own.usd_per_hour is not None and region == about["region"]:
            found[name] = Price(own.usd_per_hour, own.usd_per_hour, "the kit's table", about["as_of"])
        else:
            home = about["region"]
            lacks = "does not hold it" if region == home else f"is of {home} alone, not of {region}"
            found[name] = Price(None, None, f"the kit's table {lacks}; {why or 'the pricing API does not list it'}")
    return found


def _products(family: str, region: str) -> dict[str, Any]:
    """The GetProducts request for a family's Linux instances on demand, shared tenancy, nothing preinstalled."""
    same = {
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in same.items()]
    return {
        "ServiceCode": "AmazonEC2",
        "FormatVersion": "aws_v1",
        "Filters": [*filters, {"Type": "CONTAINS", "Field": "instanceType", "Value": f"{family}."}],
    }


def _listed(product: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """The instance type, dollars an hour and date of one product of the price list; nothing where it names no price."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension.get("pricePerUnit", {}).get("USD", 0))
            if usd > 0 and dimension.get("unit") == "Hrs":
                return {product["product"]["attributes"]["instanceType"]: (usd, term.get("effectiveDate", "")[:10])}
    return {}


def _spot(clients: Clients, names: Sequence[str], when: datetime | None) -> dict[str, Price]:
    moment = when or datetime.now(UTC)
    request = {
        "InstanceTypes": list(names),
        "ProductDescriptions": ["Linux/UNIX"],
        "StartTime": moment,
        "EndTime": moment,
    }
    history, why = _ask(clients, "ec2", "describe_spot_price_history", "SpotPriceHistory", request)
    found = {}
    for name in names:
        mine = [float(one["SpotPrice"]) for one in history if one["InstanceType"] == name]
        if mine:
            found[name] = Price(min(mine), max(mine), "EC2 Spot price history", f"{moment:%Y-%m-%d}")
        else:
            found[name] = Price(None, None, why or f"EC2 has no Spot price of it in {clients.region}")
    return found


def _ask(clients: Clients, service: str, operation: str, member: str, request: dict[str, Any]) -> tuple[list[Any], str]:
    """Everything that a service lists, or why it lists nothing, which is remembered."""
    refused = clients.shared(_refusals)
    if service not in refused:
        try:
            with translated_errors(f"prices of {service}"):
                pages = clients.client(service).get_paginator(operation).paginate(**request)
                return list(pages.search(f"{member}[]")), ""
        except NotImplementedError:
            refused[service] = "the embedded account knows no prices"
        except GenokitError as error:
            refused[service] = str(error)
    return [], refused[service]
