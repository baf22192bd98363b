"""The children of an array job: asked for in pages of a thousand, whatever their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genokit.backends import Clients, translated_errors
from genokit.batch import rows as tables
from genokit.batch import wrapping
from genokit.batch.pages import pages
from genokit.batch.seen import STATUSES

if TYPE_CHECKING:
    import pandas as pd


def summaries(clients: Clients, parent: str, *statuses: str) -> list[dict[str, Any]]:
    """The children in these statuses, or all, in the shape of ListJobs."""
    with translated_errors(f"children of job '{parent}'"):
        return [
            child
            for status in statuses or STATUSES
            for child in pages(clients.batch.list_jobs, "jobSummaryList", arrayJobId=parent, jobStatus=status)
        ]


def failed(clients: Clients, parent: str) -> list[int]:
    """The numbers of the children that FAILED, in order."""
    return sorted(child["arrayProperties"]["index"] for child in summaries(clients, parent, "FAILED"))


def table(clients: Clients, parent: str, detail: dict[str, Any]) -> pd.DataFrame:
    """One row a child: the columns of its row of parameters, if it has any, and how it stands."""
    import pandas as pd

    found = {child["arrayProperties"]["index"]: child for child in summaries(clients, parent)}
    uri = wrapping.rows_of(detail.get("container", {}).get("command", []))
    rows = tables.load(clients, uri) if uri else [{}] * len(found)
    names = [*(rows[0] if rows else ()), "status", "exit_code", "duration_s", "reason"]
    return pd.DataFrame(
        [
            {
                "child": number,
                **rows[number],
                "status": child["status"],
                "exit_code": child.get("container", {}).get("exitCode"),
                "duration_s": _seconds(child),
                "reason": child.get("container", {}).get("reason") or child.get("statusReason"),
            }
            for number, child in sorted(found.items())
        ],
        columns=["child", *names],
    ).astype({"exit_code": "Int64"})


def _seconds(child: dict[str, Any]) -> float | None:
    if "startedAt" not in child or "stoppedAt" not in child:
        return None
    return float(child["stoppedAt"] - child["startedAt"]) / 1000
