"""What a job or an array will cost: a range for each environment, what it stands on, and what is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from genokit.backends import Clients
from genokit.batch import resources
from genokit.batch.cost import prices
from genokit.batch.cost.prices import Instance, Price, dollars
from genokit.batch.definition import JobDefinition
from genokit.batch.requirements import Capacity
from genokit.display import Html, card, seconds, table
from genokit.errors import InvalidRequest

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

    ``usd`` is (low, high) in US dollars for each compute environment of the queue if all jobs run there, None where it
    is unknown; empty where there is no charge. ``sources`` says where the prices are from, ``unknown`` what is missing.
    """

    definition: JobDefinition
    size: int
    minutes: float
    place: str
    usd: Mapping[str, tuple[float, float] | None]
    sources: tuple[str, ...]
    unknown: tuple[str, ...]

    def __repr__(self) -> str:
        price = ", ".join(f"{name} {dollars(span)}" for name, span in self.usd.items()) or "no charge"
        return f"<Estimate {self.definition.name} x {self.size:,}: {price}>"

    def _repr_html_(self) -> Html:
        job, takes = self.definition, seconds(60 * self.minutes)
        nodes = f" on each of {job.nodes} nodes" if job.nodes > 1 else ""
        rows: dict[str, object] = {"Each job": f"{job.capacity}{nodes} for {takes}", "Runs": self.place}
        if self.usd:
            rows |= {f"Costs in {name}": dollars(span) for name, span in self.usd.items()}
            rows |= {"Prices from": self.sources, "Unknown": "; ".join(self.unknown) or "nothing"}
        else:
            rows["Costs"] = "no charge: it runs on this machine. On AWS: estimate(..., on='aws')"
        stands_on = table([(one,) for one in ASSUMPTIONS], columns=["assumption"])
        return card(f"Estimate for {job.name} × {self.size:,}", rows, fold={"What this stands on": stands_on})


def estimate(
    clients: Clients,
    definition: JobDefinition,
    *,
    minutes: float,
    queue: str = "highPriority",
    size: int = 1,
    on: str | None = None,
) -> Estimate:
    """What ``size`` jobs of a definition will cost in ``queue``; see ``Batch.estimate``. Raises as that does."""
    charged = prices.charged(clients, on)
    if size < 1 or minutes <= 0:
        raise InvalidRequest(f"estimate: size and minutes must be more than 0, got {size} and {minutes}.")
    places = resources.queue(clients, queue).environments
    priced = cache(partial(prices.of, clients))
    usd, sources, unknown = {}, list[str](), list[str]()
    for place in places if charged else ():
        fit, missing = prices.offers(definition.capacity, [place], priced)
        usd[f"{place.name} ({place.type})"] = total(definition.capacity, fit, minutes / 60, size * definition.nodes)
        sources += [f"{price.source} ({price.as_of})" for _, price in fit]
        unknown += missing
    return Estimate(
        definition=definition,
        size=size,
        minutes=minutes,
        place=f"on AWS, {clients.region}" if charged else clients.place,
        usd=usd,
        sources=tuple(dict.fromkeys(sources)),
        unknown=tuple(dict.fromkeys(unknown)),
    )


def total(need: Capacity, fit: Sequence[tuple[Instance, Price]], hours: float, size: int) -> tuple[float, float] | None:
    """The low and the high end of what ``size`` jobs cost; None where the price of no type is known."""
    low, alone = math.inf, dict[str, float]()
    for one, price in fit:
        count = one.holds(need)
        low = min(low, hours * size * price.low / count)
        cost = hours * math.ceil(size / count) * price.high
        alone[one.family] = min(cost, alone.get(one.family, math.inf))
    return (low, max(alone.values())) if fit else None
