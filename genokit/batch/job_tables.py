"""Jobs, and the children of an array job, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from genokit.backends import Clients
from genokit.batch import listing, resources
from genokit.batch.job_state import STATUSES, listed, reason, took_s
from genokit.batch.shipping import job_command
from genokit.batch.shipping import rows as tables
from genokit.errors import InvalidRequest, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

OWN = ("child", "row", "status", "exit_code", "duration_s", "reason")


def children(clients: Clients, detail: dict[str, Any], *statuses: str) -> list[dict[str, Any]]:
    """The children of a job in these statuses, or all, by index and in the shape of ListJobs. A sweep of one row, which
    Batch knows as no array, is its own only child."""
    parent = detail["jobId"]
    if "arrayProperties" not in detail:
        alone = rows_of(detail) and detail["status"] in (statuses or STATUSES)
        return [{**detail, "arrayProperties": {"index": 0}}] if alone else []
    found = listing.children(clients, parent, *(statuses or STATUSES))
    return sorted(found, key=lambda child: int(child["arrayProperties"].get("index", 0)))


def rows_of(detail: dict[str, Any]) -> str | None:
    """The address of a sweep's rows; None if the job is not a sweep."""
    return job_command.rows_of(detail.get("container", {}).get("command", []))


def failed(clients: Clients, detail: dict[str, Any]) -> list[int]:
    """The row numbers of the children that FAILED, in the order of the children."""
    return [number for _, _, number in _numbered(clients, detail, "FAILED")]


def table(clients: Clients, detail: dict[str, Any]) -> pd.DataFrame:
    """One line a child: its index, the columns and the number of its row of parameters, and its state."""
    from genokit.frames import Frame

    lines = []
    for child, row, number in _numbered(clients, detail):
        container = child.get("container", {})
        given = {name: value for name, value in row.items() if name != tables.ROW}
        lines.append(
            {
                "child": child["arrayProperties"]["index"],
                **{f"{name} (each)" if name in OWN else name: value for name, value in given.items()},
                "row": number,
                "status": child["status"],
                "exit_code": container.get("exitCode"),
                "duration_s": took_s(child),
                "reason": reason(container.get("reason") or child.get("statusReason")) or None,
            }
        )
    return Frame(lines, columns=None if lines else list(OWN)).astype({"exit_code": "Int64"})


def _numbered(
    clients: Clients, detail: dict[str, Any], *statuses: str
) -> Iterator[tuple[dict[str, Any], dict[str, str], int]]:
    """The children with their row of parameters and its number in the first submission."""
    found = children(clients, detail, *statuses)
    uri = rows_of(detail) if found else None
    rows = tables.load(clients, uri) if uri else []
    for child in found:
        index = child["arrayProperties"]["index"]
        row = rows[index] if rows else {}
        yield child, row, tables.number(row, index)


def jobs(clients: Clients, queue: str | None, status: str | None) -> pd.DataFrame:
    """The jobs of one queue or all, in one status or all, newest first. Raises InvalidRequest, NotFound."""
    import pandas as pd

    from genokit.frames import Frame

    if status not in (None, *STATUSES):
        raise InvalidRequest(f"There is no job status '{status}'. {did_you_mean(status or '', STATUSES)}")
    rows = []
    for one in [resources.queue(clients, queue)] if queue else resources.queues(clients):
        found = listing.in_queue(clients, one.name, *([status] if status else STATUSES))
        rows += [
            (job.id, job.name, one.name, job.status, job.created, job.started, job.stopped, job.reason or None)
            for job in map(listed, found)
        ]
    columns = ["job_id", "name", "queue", "status", "created", "started", "stopped", "reason"]
    table = Frame(rows, columns=columns)
    for column in ("created", "started", "stopped"):
        table[column] = pd.to_datetime(table[column].astype("Int64"), unit="ms", utc=True)
    table.insert(7, "duration_s", (table["stopped"] - table["started"]).dt.total_seconds().clip(lower=0))
    return table.sort_values("created", ascending=False, ignore_index=True)
