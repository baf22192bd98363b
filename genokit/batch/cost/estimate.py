"""What a job or an array will cost: a range, what it stands on, and what is not known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from genokit.backends import Clients
from genokit.batch import listing, resources
from genokit.batch.cost import prices
from genokit.batch.cost.prices import Instance, Price
from genokit.batch.definition import JobDefinition
from genokit.batch.job_state import took_s
from genokit.display import Html, card, seconds, table
from genokit.errors import InvalidRequest, NotFound, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

# What the stack's environments ask for, where no environment says which types it takes.
CPU, GPU = ("default_x86_64",), ("g4dn", "g5")
EARLIER = 100  # of so many earlier jobs the times are looked at, at most

ASSUMPTIONS = (
    "The low end: jobs fill their instances. The high end: each instance runs these jobs alone, the smallest type that "
    "fits, of the dearest family.",
    "An instance is billed whole and by the second; its boot, the pull of the image and its idle end are not counted.",
    "Jobs can have about 95% of an instance's memory.",
    "Disks, S3, logs, data transfer and taxes are not counted. An attempt that is repeated costs again.",
)


@dataclass(frozen=True)
class Estimate:
    """What jobs will cost, before they run.

    ``on_demand`` and ``spot`` are (low, high) in US dollars, None where unknown; ``minutes`` are (low, median, high) of
    one job; ``types`` is a table of the instance types that fit.
    """

    definition: JobDefinition
    size: int
    place: str
    charged: bool
    minutes: tuple[float, float, float] | None
    minutes_from: str
    types: pd.DataFrame
    on_demand: tuple[float, float] | None
    spot: tuple[float, float] | None
    sources: tuple[str, ...]
    unknown: tuple[str, ...]
    assumptions: tuple[str, ...] = ASSUMPTIONS

    def __repr__(self) -> str:
        price = f"on demand {dollars(self.on_demand)}, Spot {dollars(self.spot)}" if self.charged else "no charge"
        return f"<Estimate {self.definition.name} x {self.size:,}: {price}>"

    def _repr_html_(self) -> Html:
        job = self.definition
        rows: dict[str, object] = {
            "Each job": f"{job.vcpus:g} vCPU, {job.memory_gib:.4g} GiB" + (f", {job.gpus} GPU" if job.gpus else ""),
            "Runs": self.place,
            "Takes": self.minutes_from,
        }
        fold: dict[str, object] = {}
        if self.charged:
            spot = dollars(self.spot) if self.spot else "unknown, and at most what it costs on demand"
            rows |= {"On demand": dollars(self.on_demand), "Spot": spot, "Prices from": self.sources}
            fold = {
                f"{len(self.types)} instance types that fit": table(self.types),
                "What this stands on": table([(one,) for one in self.assumptions], columns=["assumption"]),
            }
        else:
            rows["Costs"] = "no charge: it runs on this machine. On AWS: estimate(..., on='aws')"
        if self.unknown:
            rows["Unknown"] = "; ".join(self.unknown)
        return card(f"Estimate for {job.name} × {self.size:,}", rows, fold=fold)


def estimate(
    clients: Clients,
    definition: JobDefinition,
    *,
    queue: str = "highPriority",
    minutes: float | None = None,
    size: int = 1,
    on: str | None = None,
) -> Estimate:
    """What ``size`` jobs of a definition will cost in ``queue``, each taking ``minutes``.

    Without ``minutes`` the times of earlier jobs of the same definition are taken, where there are any. Here there is
    no charge; ``on="aws"`` says what the same would cost there. Raises NotFound, InvalidRequest.
    """
    if on not in (None, "aws"):
        raise InvalidRequest(f"estimate: there is no place '{on}'. Known: 'aws', or None for where jobs run now.")
    if size < 1 or (minutes is not None and minutes <= 0):
        raise InvalidRequest(f"estimate: size and minutes must be more than 0, got {size} and {minutes}.")
    known = resources.queues(clients)
    places = next((one.environments for one in known if one.name == queue.rpartition("/")[2]), None)
    if places is None:
        raise NotFound(f"There is no job queue '{queue}'. {did_you_mean(queue, [one.name for one in known])}")
    span, basis = timing(earlier(clients, definition.name, known) if minutes is None else [minutes])
    if minutes is not None:
        basis = f"{seconds(60 * minutes)} a job, as given"
    charged = clients.backend.billed or on == "aws"
    names = [name for one in places for name in one.instance_types]
    named, missing = prices.expand(names or (GPU if definition.gpus else CPU))
    fit = [one for one in named if one.holds(definition.capacity)]
    unknown = [f"the instance type '{name}' is not in the kit's table" for name in missing]
    unknown += [
        f"the price of {one.name}: Fargate's prices are not in the kit's table"
        for one in places
        if one.type in resources.FARGATE
    ]
    on_demand: dict[str, Price] = {}
    spot: dict[str, Price] = {}
    if charged:
        on_demand = prices.of(clients, [one.name for one in fit])
        spot = prices.of(clients, [one.name for one in fit], spot=True)
        unknown += _missing("on demand", on_demand) + _missing("Spot", spot)
        if not fit:
            unknown.append("which instance type can hold the job: none in the kit's table can")
    if charged and span is None:
        unknown.append("how long a job takes: pass minutes=")
    hours = (span[0] / 60, span[2] / 60) if span else None
    where = ", ".join(f"{one.name} ({one.type})" for one in places)
    region = f"on AWS, {clients.region}" if charged else clients.place
    return Estimate(
        definition=definition,
        size=size,
        place=f"{region}; {queue}: {where}" if clients.backend.billed else region,
        charged=charged,
        minutes=span,
        minutes_from=basis,
        types=types(definition, fit, on_demand, spot),
        on_demand=total(definition, fit, on_demand, hours, size),
        spot=total(definition, fit, spot, hours, size),
        sources=_sources([*on_demand.values(), *spot.values()]),
        unknown=tuple(unknown),
    )


# --- pure


def total(
    job: JobDefinition,
    fit: Sequence[Instance],
    known: Mapping[str, Price],
    hours: tuple[float, float] | None,
    size: int,
) -> tuple[float, float] | None:
    """The low and the high end of what ``size`` jobs cost; None unless time and the price of some type are known."""
    low: list[float] = []
    high: dict[str, float] = {}
    for one in fit:
        price = known.get(one.name)
        if hours is None or price is None or price.low is None or price.high is None:
            continue
        count = one.holds(job.capacity)
        low.append(hours[0] * size * price.low / count)
        alone = hours[1] * math.ceil(size / count) * price.high
        high[one.family] = min(alone, high.get(one.family, math.inf))
    return (min(low), max(high.values())) if low else None


def types(
    job: JobDefinition, fit: Sequence[Instance], on_demand: Mapping[str, Price], spot: Mapping[str, Price]
) -> pd.DataFrame:
    """One row an instance type that fits, the cheapest share of an hour first."""
    import pandas as pd

    unknown = Price(None, None, "")
    rows = []
    for one in fit:
        hour, cheap = on_demand.get(one.name, unknown), spot.get(one.name, unknown)
        size = (one.name, one.vcpus, one.memory_gib, one.gpus, one.holds(job.capacity))
        source = f"{hour.source}, {hour.as_of}" if hour.known else ""
        rows.append((*size, hour.low, None, cheap.low, cheap.high, source))
    dear = ["usd_per_hour", "usd_per_job_hour", "spot_low", "spot_high"]
    columns = ["instance", "vcpus", "memory_gib", "gpus", "jobs_at_once", *dear, "price_source"]
    frame = pd.DataFrame(rows, columns=columns)
    frame[dear] = frame[dear].astype("Float64")
    frame["usd_per_job_hour"] = frame["usd_per_hour"] / frame["jobs_at_once"]
    return frame.sort_values(["usd_per_job_hour", "usd_per_hour"], ignore_index=True)


def timing(minutes: Sequence[float]) -> tuple[tuple[float, float, float] | None, str]:
    """Low, median and high of earlier jobs' minutes, and how to say it.

    >>> timing([10, 12, 30])
    ((10, 12, 30), 'median 12 min 00 s, 10 min 00 s to 30 min 00 s, of 3 earlier jobs')
    >>> timing([])
    (None, 'unknown: no earlier job of this definition has succeeded')
    """
    if not minutes:
        return None, "unknown: no earlier job of this definition has succeeded"
    span = (min(minutes), statistics.median(minutes), max(minutes))
    low, middle, high = (seconds(60 * one) for one in span)
    return span, f"median {middle}, {low} to {high}, of {len(minutes)} earlier job{'s' * (len(minutes) > 1)}"


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


def _sources(known: Iterable[Price]) -> tuple[str, ...]:
    """Where the prices come from, and as of when."""
    return tuple(dict.fromkeys(f"{one.source} ({one.as_of})" for one in known if one.known))


def _missing(kind: str, known: Mapping[str, Price]) -> list[str]:
    """What of the prices is unknown, in one sentence a reason."""
    reasons: dict[str, list[str]] = {}
    for name, price in known.items():
        if not price.known:
            reasons.setdefault(price.source, []).append(name)
    return [
        f"{kind} prices of {', '.join(names[:3])}{' ...' * (len(names) > 3)}: {why}" for why, names in reasons.items()
    ]


# --- queried


def earlier(clients: Clients, name: str, queues: Sequence[resources.JobQueue]) -> list[float]:
    """The minutes that the newest jobs of a definition took which succeeded, children of arrays included."""
    by_name = [{"name": "JOB_DEFINITION", "values": [name]}]
    jobs: list[dict[str, Any]] = []
    for queue in queues:
        listed = list(islice(listing.in_queue(clients, queue.name, filters=by_name, maxResults=EARLIER), EARLIER))
        arrays = [job["jobId"] for job in listed if "size" in job.get("arrayProperties", {})]
        jobs += [job for job in listed if job["jobId"] not in arrays]
        for array in arrays[:3]:
            jobs += islice(listing.children(clients, array, "SUCCEEDED"), EARLIER)
    times = [took_s(job) for job in jobs if job["status"] == "SUCCEEDED"]
    return [took / 60 for took in times if took is not None]
