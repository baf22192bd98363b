"""A job whose state is to be explained, and what has been found out about it so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch.diagnose.findings import SURENESS, Cause, Sure
from genokit.batch.logs import log_stream
from genokit.display import Log
from genokit.errors import GenokitError


@dataclass(frozen=True)
class Inquiry:
    """The queries about one job (as DescribeJobs returned it), and their findings.

    ``causes`` are why it stands as it does, ``looked`` what was looked at and found, ``unread`` what could not be read,
    ``elsewhere`` where to look next. Nothing raises for want of a permission.
    """

    clients: Clients
    detail: Mapping[str, Any]
    now: datetime
    causes: list[Cause] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def blame(self, what: str, evidence: str, do: str, sure: Sure = "certain") -> None:
        """Note a cause."""
        self.causes.append(Cause(what, evidence, do, sure))

    @property
    def certain(self) -> bool:
        return any(cause.sure == "certain" for cause in self.causes)

    def surest_first(self) -> list[Cause]:
        """The causes, each once."""
        return sorted(dict.fromkeys(self.causes), key=lambda cause: SURENESS.index(cause.sure))

    def ask(self, service: str, operation: str, **request: Any) -> dict[str, Any] | None:
        """The answer of a service; None, and a note, where it gives none."""
        try:
            with translated_errors(f"{service} {operation}"):
                answer: dict[str, Any] = getattr(self.clients.client(service), operation)(**request)
                return answer
        except (GenokitError, NotImplementedError) as error:
            self.unread.append(str(error))
            return None

    def described(self, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Jobs by their ids, a hundred a call; those that the service has forgotten are left out."""
        for start in range(0, len(ids), 100):
            page = self.ask("batch", "describe_jobs", jobs=list(ids[start : start + 100]))
            yield from (page or {"jobs": []})["jobs"]

    def child(self, status: str) -> dict[str, Any] | None:
        """One child of the array in a status."""
        page = self.ask("batch", "list_jobs", arrayJobId=self.detail["jobId"], jobStatus=status, maxResults=1)
        ids = [job["jobId"] for job in (page or {"jobSummaryList": []})["jobSummaryList"]]
        return next(self.described(ids), None)

    def last_lines(self) -> Log:
        """The end of the job's log, while it runs and when it has failed."""
        stream = log_stream(self.clients, self.detail) if self.detail["status"] in ("RUNNING", "FAILED") else None
        try:
            return stream.last() if stream else Log("")
        except (GenokitError, NotImplementedError) as error:
            self.unread.append(str(error))
            return Log("")

    @property
    def waits_for(self) -> list[str]:
        """The ids of the jobs that the job waits for; of a child of an array, its counterparts and its predecessor."""
        parent, _, index = self.detail["jobId"].partition(":")
        ids = []
        for one in self.detail.get("dependsOn", []):
            if one.get("type") == "SEQUENTIAL":
                ids += [f"{parent}:{int(index) - 1}"] if index and int(index) else []
            else:
                ids.append(f"{one['jobId']}:{index}" if one.get("type") == "N_TO_N" and index else one["jobId"])
        return ids

    def waited_s(self) -> float:
        """Seconds since the job could go on: since its submission, its last attempt, or the end of its dependencies."""
        moments = [self.detail["createdAt"], *(one.get("stoppedAt", 0) for one in self.detail.get("attempts", []))]
        if self.detail["status"] == "RUNNABLE" and self.detail.get("dependsOn"):
            moments += [other.get("stoppedAt", 0) for other in self.described(self.waits_for)]
        return max(0.0, self.now.timestamp() - float(max(moments)) / 1000)
