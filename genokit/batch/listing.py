"""Jobs as AWS Batch lists and describes them, each page queried when it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from genokit.backends import Clients, translated_errors


def in_queue(clients: Clients, queue: str, *statuses: str, **request: Any) -> Iterator[dict[str, Any]]:
    """The jobs of a queue in these statuses, or as a filter in ``request`` says, as ListJobs returns them."""
    yield from _listed(clients, f"jobs of queue '{queue}'", statuses, {"jobQueue": queue, **request})


def children(clients: Clients, parent: str, *statuses: str) -> Iterator[dict[str, Any]]:
    """The children of an array in these statuses, as ListJobs returns them."""
    yield from _listed(clients, f"children of job '{parent}'", statuses, {"arrayJobId": parent, "maxResults": 1000})


def described(clients: Clients, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Jobs as DescribeJobs returns them, a hundred a call; those that the service has forgotten are left out."""
    for first in range(0, len(ids), 100):
        with translated_errors(f"{len(ids):,} jobs"):
            jobs = clients.batch.describe_jobs(jobs=list(ids[first : first + 100]))["jobs"]
        yield from jobs


def _listed(clients: Clients, thing: str, statuses: Sequence[str], request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for one in [{"jobStatus": status} for status in statuses] or [{}]:
        with translated_errors(thing):
            pages = clients.batch.get_paginator("list_jobs").paginate(**request, **one)
            yield from pages.search("jobSummaryList[]")
