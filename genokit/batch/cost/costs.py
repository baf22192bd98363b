"""What jobs used and what that cost: hours of vCPU, memory and GPU of every attempt, and its share of its instance.

A share is the largest part that the job took of the instance's vCPUs, memory or GPUs, so that jobs that fill an
instance pay for all of it. What an instance costs while it boots or idles is nobody's share. AWS does not keep which
instance a job ran on, so dollars are a range over the types that its environment may launch; NA where one is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from genokit.backends import Clients
from genokit.batch import listing, resources
from genokit.batch.cost import prices
from genokit.batch.cost.prices import Priced, dollars
from genokit.batch.job_state import ENDED
from genokit.batch.requirements import ResourceRequest, requested
from genokit.batch.resources import ComputeEnvironment
from genokit.display import Html, card, stack, table
from genokit.errors import InvalidRequest, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

HERE = "no charge: here"
CHILDREN = ("RUNNABLE", "STARTING", "RUNNING", *ENDED)  # in which children of an array have used anything
USED = ("PENDING", *CHILDREN)  # RUNNABLE: after an attempt that failed
BY = ("job", "name", "run", "project", "user", "queue", "definition")
HOURS = ("vcpu_hours", "gib_hours", "gpu_hours")
NUMBERS = ("hours", *HOURS, "usd_low", "usd_high")


@dataclass(frozen=True)
class Costs:
    """What jobs used and cost: ``jobs`` has one row a job, children of arrays on their own; ``table`` sums them up."""

    jobs: pd.DataFrame
    by: str
    place: str

    @property
    def table(self) -> pd.DataFrame:
        """The sums by ``by``, the most expensive first."""
        return grouped(self.jobs, self.by)

    def plot(self, unit: str | None = None) -> Axes:
        """Bars of ``usd`` or of ``vcpu_hours``, ``gib_hours``, ``gpu_hours``; dollars where any are known."""
        from genokit.plots import cost_bars

        sums = self.table
        if unit is None:
            unit = "usd" if (sums["usd_high"].fillna(0) > 0).any() else "vcpu_hours"
        return cost_bars(sums, unit, by=self.by)

    def __repr__(self) -> str:
        return f"<Costs of {self._count()} by {self.by}: {self._total()}>"

    def _repr_html_(self) -> Html:
        sources = tuple(self.jobs["price_source"].unique())
        rows = {"Cost": self._total(), "Prices from": sources, "Ran": self.place}
        lines = [
            {self.by: one[self.by], "jobs": one["jobs"], **{name: f"{one[name]:,.3g}" for name in HOURS},
             "cost": self._words(one["usd_low"], one["usd_high"], one["unpriced"])}
            for one in self.table.to_dict("records")
        ]  # fmt: skip
        return stack(card(f"Costs of {self._count()}", rows), table(lines))

    def _count(self) -> str:
        return f"{len(self.jobs):,} job{'s' * (len(self.jobs) != 1)}"

    def _total(self) -> str:
        low, high = (self.jobs[column].sum(min_count=1) for column in ("usd_low", "usd_high"))
        return self._words(low, high, int(self.jobs["usd_high"].isna().sum()))

    def _words(self, low: Any, high: Any, unpriced: int) -> str:
        import pandas as pd

        if (self.jobs["price_source"] == HERE).all():
            return HERE
        known = dollars(None if pd.isna(high) else (low, high))
        return f"{known}, and {unpriced:,} of unknown cost" if unpriced else known


def costs(clients: Clients, jobs: Sequence[str] | None = None, *, by: str = "run", on: str | None = None) -> Costs:
    """What jobs used and cost so far: those of these ids, or all; see ``Batch.costs``. Raises InvalidRequest.

    What the service has forgotten, on AWS some days after a job's end, is not in the sums.
    """
    priced: Priced | None = cache(partial(prices.of, clients)) if prices.charged(clients, on) else None
    queues = {one.name: one.environments for one in resources.queues(clients)}
    if jobs is None:
        jobs = [job["jobId"] for queue in queues for job in listing.in_queue(clients, queue, *USED)]
    frame = actual(used(clients, jobs), queues, priced)
    grouped(frame, by)  # a name that there is not is said at once
    as_on_aws = priced and not clients.backend.billed
    return Costs(frame, by, f"{clients.place}; priced as on AWS" if as_on_aws else clients.place)


def used(clients: Clients, ids: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The jobs of these ids as DescribeJobs tells them, in place of arrays their children that used anything.

    Children are described only where there is more to know than their lines in ListJobs say: earlier attempts, or the
    environment, which has a price.
    """
    for detail in listing.described(clients, ids):
        if "size" not in detail.get("arrayProperties", {}):
            yield detail
            continue
        # By id: a child that moves on meanwhile is listed twice.
        children = {one["jobId"]: one for one in listing.children(clients, detail["jobId"], *CHILDREN)}
        lines: Iterable[dict[str, Any]] = children.values()
        if clients.backend.billed or detail.get("retryStrategy", {}).get("attempts", 1) > 1:
            lines = listing.described(clients, list(children))
        shared = {key: value for key, value in detail.items() if key not in ("startedAt", "stoppedAt", "attempts")}
        for child in lines:
            container = {**shared.get("container", {}), **child.get("container", {})}
            yield {**shared, **child, "container": container, "tags": child.get("tags") or shared.get("tags", {})}


# --- pure


def actual(
    details: Iterable[Mapping[str, Any]],
    queues: Mapping[str, Sequence[ComputeEnvironment]],
    priced: Priced | None,
    now_ms: int | None = None,
) -> pd.DataFrame:
    """One row a job of DescribeJobs' answers: its tags, the hours of all its attempts, and dollars.

    ``queues`` are the environments of each queue; without prices nothing was charged. Multi-node jobs are left out.
    """
    import pandas as pd

    now_ms = now_ms or round(datetime.now(UTC).timestamp() * 1000)
    never = "it never started" if priced else HERE
    rate = cache(partial(hourly, priced=priced))  # the children of an array are alike
    rows = []
    for detail in details:
        if "nodeProperties" in detail:
            continue
        need, queue = requested(detail), detail["jobQueue"].rpartition("/")[2]
        size = (need.total.vcpus, need.total.memory_gib, need.total.gpus) if need else (math.nan,) * 3
        tried = attempts(detail, now_ms)
        hours = [max(0.0, (one["stoppedAt"] - one["startedAt"]) / 3_600_000) for one in tried]
        rates = [rate(need, _environments(one, queues.get(queue, ()))) for one in tried]
        row = {name.removeprefix("genokit:"): value for name, value in detail.get("tags", {}).items()}
        row |= {
            "job_id": detail["jobId"],
            "job": f"{detail['jobName']} {detail['jobId'][:8]}",
            "name": detail["jobName"],
            "status": detail["status"],
            "queue": queue,
            "definition": detail["jobDefinition"].rpartition("/")[2],
            "attempts": len(tried),
            "hours": sum(hours),
            **{name: sum(hours) * amount for name, amount in zip(HOURS, size, strict=True)},
            "usd_low": sum(took * low for took, (low, _, _) in zip(hours, rates, strict=True)),
            "usd_high": sum(took * high for took, (_, high, _) in zip(hours, rates, strict=True)),
            "price_source": "; ".join(dict.fromkeys(source for *_, source in rates)) or never,
        }
        rows.append(row)
    columns = dict.fromkeys(["job_id", *BY, "status", "attempts", *NUMBERS, "price_source"])
    columns |= dict.fromkeys(name for row in rows for name in row)
    return pd.DataFrame(rows, columns=list(columns)).astype(dict.fromkeys(NUMBERS, "Float64"))


def attempts(detail: Mapping[str, Any], now_ms: int) -> list[Mapping[str, Any]]:
    """The attempts that started, the one that runs now with ``now_ms`` as its end; a line of ListJobs is one itself."""
    found = [one for one in detail.get("attempts", [detail]) if one.get("startedAt") and one.get("stoppedAt")]
    if detail["status"] in ("STARTING", "RUNNING") and detail.get("startedAt"):
        found.append({**detail, "stoppedAt": now_ms})
    return found


def hourly(
    need: ResourceRequest | None, places: Sequence[ComputeEnvironment], priced: Priced | None
) -> tuple[float, float, str]:
    """The dollars of one hour of a job, low and high over the instances that it may have run on, and who says so."""
    if priced is None:
        return 0.0, 0.0, HERE
    if need is None:
        return math.nan, math.nan, "unknown: the job does not state vCPU and memory in a form that genokit can read"
    found, unknown = prices.offers(need.total, places, priced)
    if unknown or not found:
        return math.nan, math.nan, f"unknown: {unknown[0] if unknown else 'its queue has no compute environment'}"
    spans = [(one.share(need.total) * price.low, one.share(need.total) * price.high) for one, price in found]
    sources = ", ".join(dict.fromkeys(f"{price.source}, {price.as_of}" for _, price in found))
    several = f"range over {len(found)} instance types that fit; " if len(found) > 1 else ""
    return min(low for low, _ in spans), max(high for _, high in spans), several + sources


def grouped(jobs: pd.DataFrame, by: str) -> pd.DataFrame:
    """The sums of jobs by one of their columns or tags, the dearest first.

    ``usd_low`` and ``usd_high`` sum what is known, ``unpriced`` counts the jobs of unknown cost; NA where all are.
    """
    known = [name for name in jobs.columns if name not in NUMBERS]
    if by not in known:
        raise InvalidRequest(f"costs: no job has a tag '{by}'. {did_you_mean(by, known)}")
    groups = jobs.groupby(jobs[by].astype("string").fillna("none"))
    sums = groups[["hours", *HOURS]].sum()
    sums.insert(0, "jobs", groups.size())
    sums[["usd_low", "usd_high"]] = groups[["usd_low", "usd_high"]].sum(min_count=1)
    sums["unpriced"] = sums["jobs"] - groups["usd_high"].count()
    order = ["usd_high", "vcpu_hours"]
    return sums.sort_values(order, ascending=False, na_position="last").reset_index()


def _environments(attempt: Mapping[str, Any], order: Sequence[ComputeEnvironment]) -> tuple[ComputeEnvironment, ...]:
    """Where an attempt ran: its environment, or all of the queue's where that is unknown."""
    arn = attempt.get("container", {}).get("containerInstanceArn", "")  # arn:...:container-instance/CLUSTER/ID
    cluster = arn.split("/")[1] if arn.count("/") > 1 else ""
    return tuple(one for one in order if cluster and (one.cluster or "").rpartition("/")[2] == cluster) or tuple(order)
