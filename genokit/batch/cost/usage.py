"""What jobs used, asked of the service: their attempts, children of arrays included, and the instances they ran on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch import resources
from genokit.batch.job_state import ENDED
from genokit.batch.paging import described, pages
from genokit.errors import GenokitError

USED = ("RUNNABLE", "PENDING", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")  # RUNNABLE: after an attempt that failed


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
    for detail in _described(clients, ids):
        yield detail
        if "size" not in detail.get("arrayProperties", {}):
            continue
        children: dict[str, dict[str, Any]] = {}  # by id: one that moves on meanwhile is listed twice
        for status in ("RUNNABLE", "STARTING", "RUNNING", *ENDED):
            with translated_errors(f"children of job '{detail['jobId']}'"):
                asked = {"arrayJobId": detail["jobId"], "jobStatus": status, "maxResults": 1000}
                children |= {one["jobId"]: one for one in pages(clients.batch.list_jobs, "jobSummaryList", **asked)}
        if not clients.backend.billed and detail.get("retryStrategy", {}).get("attempts", 1) == 1:
            yield from (_child(detail, one) for one in children.values())
            continue
        missing = [one for one in children if one not in ended]
        fresh = {one["jobId"]: _slim(one, detail) for one in _described(clients, missing)}
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


def _described(clients: Clients, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    with translated_errors("jobs to be summed up"):
        yield from described(clients.batch, ids)


def ids(clients: Clients, queue: str | None, since: datetime | None) -> list[str]:
    """The jobs of a queue or all, since a moment or ever."""
    found: list[str] = []
    for one in [queue] if queue else [each.name for each in resources.queues(clients)]:
        asked: list[dict[str, Any]] = [{"jobQueue": one, "jobStatus": status} for status in USED]
        if since:
            moment = f"{since.timestamp() * 1000:.0f}"
            asked = [{"jobQueue": one, "filters": [{"name": "AFTER_CREATED_AT", "values": [moment]}]}]
        for request in asked:
            with translated_errors(f"jobs of queue '{one}'"):
                found += [job["jobId"] for job in pages(clients.batch.list_jobs, "jobSummaryList", **request)]
    return found


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
