"""What jobs used: their attempts, children of arrays included, and the instances they ran on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch import listing, resources
from genokit.batch.job_state import ENDED
from genokit.errors import GenokitError

CHILDREN = ("RUNNABLE", "STARTING", "RUNNING", *ENDED)  # in which children of an array have used anything
USED = ("PENDING", *CHILDREN)  # RUNNABLE: after an attempt that failed


def attempts(detail: Mapping[str, Any], now_ms: int) -> list[Mapping[str, Any]]:
    """The attempts that started, the one that runs now with ``now_ms`` as its end."""
    found = [one for one in detail.get("attempts", []) if one.get("startedAt") and one.get("stoppedAt")]
    if detail["status"] in ("STARTING", "RUNNING") and detail.get("startedAt"):
        found.append({"startedAt": detail["startedAt"], "stoppedAt": now_ms, "container": detail.get("container", {})})
    return found


def read(clients: Clients, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The jobs of these ids as DescribeJobs tells them, arrays followed by their children that used anything.

    An ended child is described once in the life of ``clients``; one of an array without retries, where no instance is
    billed, is as its line in ListJobs says, and is not described at all.
    """
    ended = clients.shared(_ended_jobs)
    for detail in listing.described(clients, ids):
        yield detail
        if "size" not in detail.get("arrayProperties", {}):
            continue
        # By id: a child that moves on meanwhile is listed twice.
        children = {one["jobId"]: one for one in listing.children(clients, detail["jobId"], *CHILDREN)}
        if not clients.backend.billed and detail.get("retryStrategy", {}).get("attempts", 1) == 1:
            yield from (_child(detail, one) for one in children.values())
            continue
        missing = [one for one in children if one not in ended]
        fresh = {one["jobId"]: _slim(one, detail) for one in listing.described(clients, missing)}
        ended |= {job_id: one for job_id, one in fresh.items() if one["status"] in ENDED}
        yield from (ended.get(one) or fresh[one] for one in children if one in ended or one in fresh)


def _ended_jobs(_: Clients) -> dict[str, dict[str, Any]]:
    """Descriptions of ended jobs, by id: they change no more."""
    return {}


def _hosts(_: Clients) -> dict[str, str]:
    """The instance types of container instances, by ARN."""
    return {}


def _child(parent: Mapping[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    """A child of an array as far as its line in ListJobs and its parent tell it: it has had one attempt at most."""
    times = {key: line[key] for key in ("startedAt", "stoppedAt") if key in line}
    own = {key: line[key] for key in ("jobId", "jobName", "status", "arrayProperties") if key in line}
    without = {key: value for key, value in parent.items() if key not in ("startedAt", "stoppedAt")}
    return {**without, **own, **times, "attempts": [times] if len(times) == 2 else []}


def _slim(detail: dict[str, Any], parent: Mapping[str, Any]) -> dict[str, Any]:
    """What of a child's description counts here, with the tags of its array where it has none of its own."""
    kept = ("jobId", "jobName", "jobQueue", "jobDefinition", "status", "startedAt", "stoppedAt", "attempts")
    container = detail.get("container", {})
    needed = ("resourceRequirements", "vcpus", "memory", "containerInstanceArn", "instanceType")
    return {
        **{key: detail[key] for key in kept if key in detail},
        "container": {key: container[key] for key in needed if key in container},
        "tags": detail.get("tags") or parent.get("tags", {}),
    }


def ids(clients: Clients, queue: str | None, since: datetime | None) -> list[str]:
    """The jobs of a queue or all, since a moment or ever."""
    queues = [queue] if queue else [one.name for one in resources.queues(clients)]
    if since is None:
        return [job["jobId"] for one in queues for job in listing.in_queue(clients, one, *USED)]
    after = [{"name": "AFTER_CREATED_AT", "values": [f"{since.timestamp() * 1000:.0f}"]}]
    return [job["jobId"] for one in queues for job in listing.in_queue(clients, one, filters=after)]


def hosts(clients: Clients, details: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The instance types of the container instances that are still there, and that we are allowed to see."""
    known = clients.shared(_hosts)
    wanted: dict[str, list[str]] = {}
    for detail in details:
        for attempt in attempts(detail, 0):
            arn = attempt.get("container", {}).get("containerInstanceArn", "")
            if arn.count("/") > 1 and arn not in known:
                wanted.setdefault(arn.split("/")[1], []).append(arn)
    for cluster, arns in wanted.items():
        unique = list(dict.fromkeys(arns))
        for first in range(0, len(unique), 100):
            try:
                with translated_errors(f"instances of cluster '{cluster}'"):
                    answer = clients.client("ecs").describe_container_instances(
                        cluster=cluster, containerInstances=unique[first : first + 100]
                    )
            except GenokitError:  # not allowed, or the cluster is gone: the range over the types that fit is left
                continue
            for one in answer["containerInstances"]:
                types = [each["value"] for each in one["attributes"] if each["name"] == "ecs.instance-type"]
                known |= {one["containerInstanceArn"]: types[0]} if types else {}
    return known
