"""Everything that a paged call of AWS lists, and jobs by their ids in hundreds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def pages(call: Any, member: str, **request: Any) -> Iterator[dict[str, Any]]:
    """The entries under ``member``, page after page, each page asked for when it is needed."""
    while True:
        page = call(**request)
        yield from page[member]
        if not page.get("nextToken"):
            return
        request = {**request, "nextToken": page["nextToken"]}


def described(batch: Any, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Jobs as DescribeJobs tells them, a hundred a call, each call when it is needed; forgotten ones are left out."""
    for first in range(0, len(ids), 100):
        yield from batch.describe_jobs(jobs=list(ids[first : first + 100]))["jobs"]
