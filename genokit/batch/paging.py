"""Everything that a paged call of AWS lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def pages(call: Any, member: str, **request: Any) -> Iterator[dict[str, Any]]:
    """The entries under ``member``, page after page, each page asked for when it is needed."""
    while True:
        page = call(**request)
        yield from page[member]
        if not page.get("nextToken"):
            return
        request = {**request, "nextToken": page["nextToken"]}
