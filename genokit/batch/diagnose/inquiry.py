"""A job whose state is to be explained, and what has been found out about it so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from genokit.backends import Clients, translated_errors
from genokit.batch import listing
from genokit.batch.diagnose.findings import SURENESS, Finding, Sure
from genokit.batch.logs import log_stream
from genokit.display import Log
from genokit.errors import GenokitError

T = TypeVar("T")


@dataclass(frozen=True)
class Inquiry:
    """The queries about one job (as DescribeJobs returned it), and their findings. No lack of a permission raises."""

    clients: Clients
    detail: Mapping[str, Any]
    now: datetime
    findings: list[Finding] = field(default_factory=list)

    def note(self, what: str, sure: Sure = "ok", evidence: str = "", do: str = "") -> None:
        """Note a finding."""
        self.findings.append(Finding(what, evidence, do, sure))

    def ask(self, thing: str, call: Callable[[], T]) -> T | None:
        """What a service says about a thing; None, and a note, where it says nothing."""
        try:
            with translated_errors(thing):
                return call()
        except (GenokitError, NotImplementedError) as error:
            self.note(str(error), "unknown")
            return None

    @property
    def causes(self) -> list[Finding]:
        """What keeps the job in its status, the surest first, each once."""
        found = [one for one in dict.fromkeys(self.findings) if one.level in ("problem", "warning")]
        return sorted(found, key=lambda one: SURENESS.index(one.sure))

    @property
    def certain(self) -> bool:
        return any(one.sure == "certain" for one in self.findings)

    def described(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Jobs by their ids; those that the service has forgotten are left out."""
        return self.ask("jobs", lambda: list(listing.described(self.clients, ids))) or []

    def child(self, status: str) -> dict[str, Any] | None:
        """One child of the array in a status."""
        children = listing.children(self.clients, self.detail["jobId"], status)
        first = self.ask("children", lambda: next(children, None))
        return next(iter(self.described([first["jobId"]])), None) if first else None

    def last_lines(self) -> Log:
        """The end of the job's log, while it runs and when it has failed."""
        stream = log_stream(self.clients, self.detail)
        if stream is None or self.detail["status"] not in ("RUNNING", "FAILED"):
            return Log("")
        return self.ask("log", stream.last) or Log("")

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
