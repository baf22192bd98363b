"""What jobs used and what that cost: hours of vCPU, memory and GPU of every attempt, and its share of its instance.

A share is the largest part that the job took of the instance's vCPUs, memory or GPUs, so that jobs that fill an
instance pay for all of it. What an instance costs while it boots or idles is nobody's share. Where the price or the
instance is unknown the cost is NA, with the range over the instance types that fit where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from genokit.backends import Clients
from genokit.batch import resources
from genokit.batch.cost import prices, usage
from genokit.batch.cost.estimate import CPU, GPU, Estimate, dollars, estimate
from genokit.batch.cost.prices import Instance, Price
from genokit.batch.requirements import ResourceRequest, requested
from genokit.batch.resources import ComputeEnvironment
from genokit.display import Html, card, stack, table
from genokit.errors import InvalidRequest, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Costs", "Estimate", "actual", "costs", "estimate", "grouped"]

HERE = "no charge: here"
TAGS = {"run": "genokit:run", "project": "genokit:project", "user": "genokit:user"}
HOURS = ("vcpu_hours", "gib_hours", "gpu_hours")


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
        used = self.jobs[list(HOURS)].sum()
        rows: dict[str, object] = {
            "Cost": self._total(),
            "Used": f"{used['vcpu_hours']:,.3g} vCPU-hours, {used['gib_hours']:,.3g} GiB-hours of memory, "
            f"{used['gpu_hours']:,.3g} GPU-hours",
            "Ran": self.place,
        }
        sources = [(source, count) for source, count in self.jobs["price_source"].value_counts().items()]
        fold = {"Where the prices are from": table(sources, columns=["source", "jobs"])} if sources else {}
        lines = [
            {self.by: one[self.by], "jobs": one["jobs"], **{name: f"{one[name]:,.3g}" for name in HOURS},
             "cost": _words(one["usd_low"], one["usd_high"], one["unpriced"], self.charged)}
            for one in self.table.to_dict("records")
        ]  # fmt: skip
        return stack(card(f"Costs of {self._count()}", rows, fold=fold), table(lines))

    @property
    def charged(self) -> bool:
        """Whether anything was priced: what runs on this machine is not."""
        return not (self.jobs["price_source"] == HERE).all()

    def _count(self) -> str:
        return f"{len(self.jobs):,} job{'s' * (len(self.jobs) != 1)}"

    def _total(self) -> str:
        known = self.jobs["usd_high"].notna()
        low, high = (self.jobs.loc[known, column].sum(min_count=1) for column in ("usd_low", "usd_high"))
        return _words(low, high, int((~known).sum()), self.charged)


def _words(low: Any, high: Any, unpriced: int, charged: bool) -> str:
    import pandas as pd

    if not charged:
        return HERE
    if pd.isna(high):
        return "unknown"
    return dollars((low, high)) + (f", and {unpriced:,} job{'s' * (unpriced > 1)} of unknown cost" if unpriced else "")


def costs(
    clients: Clients,
    jobs: Sequence[str] | None = None,
    *,
    by: str = "run",
    queue: str | None = None,
    since: datetime | None = None,
    on: str | None = None,
) -> Costs:
    """What jobs used and cost so far: those of these ids, or of a queue, or all since a moment.

    ``by`` is job, name, run, project, user, queue, definition, environment, instance or any tag. Here there is no
    charge; ``on="aws"`` says what the same hours would cost there. What the service has forgotten, on AWS some days
    after a job's end, is not in the sums.
    """
    if on not in (None, "aws"):
        raise InvalidRequest(f"costs: there is no place '{on}'. Known: 'aws', or None for where jobs run now.")
    charged = clients.backend.billed or on == "aws"
    ids = usage.ids(clients, queue, since) if jobs is None else jobs
    details = list(usage.read(clients, ids))
    places = {one.name: one.environments for one in resources.queues(clients)}
    if not charged:
        frame = actual(details, places=places)
    else:
        hosts = usage.hosts(clients, details) if clients.backend.billed else {}
        needs = {(requested(detail), _places(detail, places)) for detail in details}
        fit = [one.name for need, order in needs if need for place in order for one in _fit(need, place)[0]]
        names = list(dict.fromkeys([*hosts.values(), *fit]))
        starts = sorted(attempt["startedAt"] for detail in details for attempt in usage.attempts(detail, 0))
        when = datetime.fromtimestamp(starts[len(starts) // 2] / 1000, tz=UTC) if starts else None
        cheap = any(one.spot for order in places.values() for one in order)
        frame = actual(
            details,
            places=places,
            hosts=hosts,
            on_demand=prices.of(clients, names),
            spot=prices.of(clients, names, spot=True, when=when) if cheap else {},
        )
    grouped(frame, by)  # a name that there is not is said at once
    as_on_aws = charged and not clients.backend.billed
    return Costs(frame, by, f"{clients.place}; priced as on AWS" if as_on_aws else clients.place)


# --- pure


def actual(
    details: Iterable[Mapping[str, Any]],
    *,
    places: Mapping[str, Sequence[ComputeEnvironment]] | None = None,
    hosts: Mapping[str, str] | None = None,
    on_demand: Mapping[str, Price] | None = None,
    spot: Mapping[str, Price] | None = None,
    now_ms: int | None = None,
) -> pd.DataFrame:
    """One row a job of DescribeJobs' answers: the hours of all its attempts, and dollars.

    ``places`` are the environments of each queue, ``hosts`` the instance types of container instances; without prices
    nothing was charged. Arrays and multi-node jobs count by their children.
    """
    import pandas as pd

    now_ms = now_ms or round(datetime.now(UTC).timestamp() * 1000)

    @cache  # the children of an array are alike
    def rate(need: ResourceRequest | None, on: tuple[ComputeEnvironment, ...], name: str | None) -> Price:
        return _rate(need, on, name, on_demand or {}, spot or {})

    rows = [
        _row(detail, places or {}, hosts or {}, None if on_demand is None else rate, now_ms)
        for detail in details
        if "size" not in detail.get("arrayProperties", {}) and "nodeProperties" not in detail
    ]
    columns = [
        "job_id", "job", "name", "status", *TAGS, "queue", "definition", "environment", "instance", "attempts", "hours",
        *HOURS, "usd", "usd_low", "usd_high", "price_source", "tags",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    numbers = ["hours", *HOURS, "usd", "usd_low", "usd_high"]
    frame = frame.astype(
        dict.fromkeys(numbers, "Float64") | dict.fromkeys((*TAGS, "environment", "instance"), "string")
    )
    frame["usd"] = frame["usd_low"].where((frame["usd_low"] == frame["usd_high"]).fillna(False))
    return frame


def grouped(jobs: pd.DataFrame, by: str) -> pd.DataFrame:
    """The sums of jobs by one of their columns or tags, the dearest first.

    ``usd_low`` and ``usd_high`` sum what is known, ``unpriced`` counts the jobs of unknown cost; NA where all are.
    """
    if by == "job":
        key = jobs["name"] + " " + jobs["job"].str.slice(0, 8)
    elif by in jobs.columns and by != "tags":
        key = jobs[by].astype("string")
    else:
        key = jobs["tags"].map(lambda tags: tags.get(by)).astype("string")
        if len(jobs) and key.isna().all():
            tags = {name for one in jobs["tags"] for name in one}
            known = {"job", "name", *TAGS, "queue", "definition", "environment", "instance", *tags}
            raise InvalidRequest(f"costs: no job has a tag '{by}'. {did_you_mean(by, known)}")
    groups = jobs.assign(**{by: key.fillna("none")}, unpriced=jobs["usd_high"].isna()).groupby(by, sort=True)
    sums = groups[["hours", *HOURS]].sum()
    sums.insert(0, "jobs", groups.size())
    for column in ("usd_low", "usd_high"):
        sums[column] = groups[column].sum(min_count=1)
    sums["unpriced"] = groups["unpriced"].sum().astype(int)
    order = ["usd_high", "vcpu_hours"]
    return sums.sort_values(order, ascending=False, na_position="last").reset_index()


def _row(
    detail: Mapping[str, Any],
    places: Mapping[str, Sequence[ComputeEnvironment]],
    hosts: Mapping[str, str],
    rate: Callable[[ResourceRequest | None, tuple[ComputeEnvironment, ...], str | None], Price] | None,
    now_ms: int,
) -> dict[str, Any]:
    import pandas as pd

    need = requested(detail)
    attempts = usage.attempts(detail, now_ms)
    hours = sum(_hours(one) for one in attempts)
    tags = detail.get("tags", {})
    order = _places(detail, places)
    ran = [_ran(one, order, hosts) for one in attempts]
    row: dict[str, Any] = {
        "job_id": detail["jobId"],
        "job": detail["jobId"].partition(":")[0].partition("#")[0],
        "name": detail["jobName"],
        "status": detail["status"],
        **{column: tags.get(tag, pd.NA) for column, tag in TAGS.items()},
        "queue": detail["jobQueue"].rpartition("/")[2],
        "definition": detail["jobDefinition"].rpartition("/")[2],
        "environment": _only({place.name for on, _ in ran for place in on}),
        "instance": _only({name for _, name in ran}),
        "attempts": len(attempts),
        "hours": hours,
        "vcpu_hours": hours * need.total.vcpus if need else pd.NA,
        "gib_hours": hours * need.total.memory_gib if need else pd.NA,
        "gpu_hours": hours * need.total.gpus if need else pd.NA,
        "tags": tags,
    }
    if rate is None:
        return row | {"usd_low": 0.0, "usd_high": 0.0, "price_source": HERE}
    paid = [(_hours(attempt), rate(need, on, name)) for attempt, (on, name) in zip(attempts, ran, strict=True)]
    if reasons := [price.source for _, price in paid if not price.known]:
        return row | {"usd_low": pd.NA, "usd_high": pd.NA, "price_source": f"unknown: {reasons[0]}"}
    return row | {
        "usd_low": sum(hours * (price.low or 0.0) for hours, price in paid),
        "usd_high": sum(hours * (price.high or 0.0) for hours, price in paid),
        "price_source": "; ".join(dict.fromkeys(price.source for _, price in paid)) or "it never started",
    }


def _rate(
    need: ResourceRequest | None,
    on: Sequence[ComputeEnvironment],
    name: str | None,
    on_demand: Mapping[str, Price],
    spot: Mapping[str, Price],
) -> Price:
    """The price of one hour of the job, over the instance types that it may have run on; or why it is unknown."""
    if need is None:
        return Price(None, None, "the job does not state vCPU and memory in a form that genokit can read")
    shares: list[tuple[float, float, str]] = []
    anywhere: list[ComputeEnvironment | None] = [*on] or [None]
    for place in anywhere:
        if place is not None and place.type in resources.FARGATE:
            return Price(None, None, "Fargate's prices are not in the kit's table")
        fit, missing = _fit(need, place)
        if name is not None:
            known = prices.instance(name)
            fit, missing = ([known], []) if known else ([], [name])
        if missing:
            return Price(None, None, f"'{missing[0]}' is not in the kit's table")
        if not fit:
            return Price(None, None, "no instance type of the table fits")
        for one in fit:
            price = (spot if place is not None and place.spot else on_demand).get(one.name)
            if price is None or price.low is None or price.high is None:
                return Price(None, None, f"{one.name}: {price.source if price else 'no price was queried'}")
            part = one.share(need.total)
            shares.append((price.low * part, price.high * part, f"{price.source}, {price.as_of}"))
    sources = ", ".join(dict.fromkeys(source for *_, source in shares))
    several = f"range over {len(shares)} instance types that fit; " if len(shares) > 1 else ""
    return Price(min(low for low, *_ in shares), max(high for _, high, _ in shares), several + sources)


def _hours(attempt: Mapping[str, Any]) -> float:
    return max(0.0, float(attempt["stoppedAt"] - attempt["startedAt"]) / 3_600_000)


def _places(
    detail: Mapping[str, Any], places: Mapping[str, Sequence[ComputeEnvironment]]
) -> tuple[ComputeEnvironment, ...]:
    return tuple(places.get(detail["jobQueue"].rpartition("/")[2], ()))


def _ran(
    attempt: Mapping[str, Any], order: tuple[ComputeEnvironment, ...], hosts: Mapping[str, str]
) -> tuple[tuple[ComputeEnvironment, ...], str | None]:
    """Where an attempt ran: its environment, or all of the queue's where that is unknown, and its instance's type."""
    container = attempt.get("container", {})
    arn = container.get("containerInstanceArn", "")
    cluster = arn.split("/")[1] if arn.count("/") > 1 else ""  # arn:...:container-instance/CLUSTER/ID
    mine = tuple(one for one in order if cluster and (one.cluster or "").rpartition("/")[2] == cluster)
    return mine or order, hosts.get(arn) or container.get("instanceType")


def _fit(need: ResourceRequest, place: ComputeEnvironment | None) -> tuple[list[Instance], list[str]]:
    """The instance types of an environment that hold the job, and those that the table does not know."""
    named = place.instance_types if place is not None else ()
    found, missing = prices.expand(named or (GPU if need.total.gpus else CPU))
    return [one for one in found if one.holds(need.total)], missing


def _only(names: set[Any]) -> Any:
    import pandas as pd

    return next(iter(names)) if len(names) == 1 and None not in names else pd.NA
