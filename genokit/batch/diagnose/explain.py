"""Why a job is in its status: what is wrong, how that is known, what to do, and how sure that is.

Above all: why is it RUNNABLE? It reads the job, its queue, the environments, and, where that is allowed, the instances
that should come; it knows the reasons that AWS documents and those that others have met. Where it finds none it says
so, with what it looked at and what it could not look at.

https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from genokit.backends import Clients
from genokit.batch.diagnose import waiting
from genokit.batch.diagnose.findings import Finding
from genokit.batch.diagnose.inquiry import Inquiry
from genokit.batch.diagnose.known_reasons import failure, meaning
from genokit.batch.job_state import detailed, took_s
from genokit.batch.resources import one_line
from genokit.display import Html, card, log, plain, seconds

PULL_FACTOR = 5  # how many times the grace an image's pull may take
ELSEWHERE = (
    "whether instances are in the cluster: console, Elastic Container Service, Clusters, AWSBatch-...",
    "why an instance did not start: console, EC2, Auto Scaling groups, ...-asg-..., Activity",
    "how many vCPUs the account may have: console, Service Quotas, Amazon EC2",
    "AWS's own list: https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html",
)


@dataclass(frozen=True)
class Explanation:
    """Why a job is in its status: in a notebook a card, printed as text.

    ``known`` is whether what was found explains it; ``causes`` come surest first; ``looked`` is what was looked at and
    found, ``unread`` what could not be read and why, ``elsewhere`` where to look next.
    """

    job: str
    job_id: str
    status: str
    headline: str
    known: bool
    causes: tuple[Finding, ...] = ()
    looked: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    last_lines: str = ""

    def __str__(self) -> str:
        parts = [f"Job '{self.job}' ({self.job_id}) is {self.status}: {self.headline}"]
        parts += [f"{number}. {one.sure}: {one.message}" for number, one in enumerate(self.causes, 1)]
        parts += ["\n   ".join([f"{title}:", *lines]) for title, lines in self._folds().items()]
        return plain("\n".join(parts))

    def __repr__(self) -> str:
        return one_line(f"<Explanation {self.job} {self.status}: {self.headline}>")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> Html:
        rows = [("In short", self.headline)]
        rows += [(f"{number}. {one.sure}", one.message) for number, one in enumerate(self.causes, 1)]
        fold = {title: log("\n".join(lines)) for title, lines in self._folds().items()}
        if self.last_lines:
            fold["Last lines"] = log(self.last_lines)
        return card(f"Why is job {self.job} {self.status}?", rows, status=self.status, fold=fold)

    def _folds(self) -> dict[str, tuple[str, ...]]:
        titles = {"Looked at": self.looked, "Could not be read": self.unread, "Where to look next": self.elsewhere}
        return {title: lines for title, lines in titles.items() if lines}


def explain(clients: Clients, detail: Mapping[str, Any], *, now: datetime | None = None) -> Explanation:
    """Why a job, as DescribeJobs returned it, is in its status. What may not be read is noted, and raises nothing."""
    inquiry = Inquiry(clients, detail, now or datetime.now(UTC))
    for number, one in enumerate(detailed(detail).attempts, 1):
        inquiry.note(f"Attempt {number} ended: {one.reason}.")
    headline, known = STATUS[detail["status"]](inquiry)
    lines = inquiry.last_lines()
    told = {sure: tuple(str(one) for one in inquiry.findings if one.sure == sure) for sure in ("ok", "unknown")}
    return Explanation(
        job=detail["jobName"],
        job_id=detail["jobId"],
        status=detail["status"],
        headline=headline,
        known=known,
        causes=tuple(inquiry.causes),
        looked=told["ok"],
        unread=told["unknown"],
        elsewhere=ELSEWHERE if clients.backend.billed and detail["status"] == "RUNNABLE" and not known else (),
        last_lines=lines,
    )


# --- by status: the headline, and whether it explains the status


def _waiting(inquiry: Inquiry) -> tuple[str, bool]:
    """The causes of a wait that is longer than usual."""
    waited_s, status = inquiry.waited_s(), inquiry.detail["status"]
    usual = waited_s <= inquiry.clients.backend.grace_s * (PULL_FACTOR if status == "STARTING" else 1)
    if status == "RUNNABLE":
        waiting.look(inquiry, waited_s)
    elif not usual and (slow := meaning("slow", status, f"{status} {seconds(waited_s)} after its submission")):
        inquiry.findings.append(slow)
    best = next(iter(inquiry.causes), None)
    if best and best.sure != "possible":
        return best.what, True
    said = f"It has waited for {seconds(waited_s)}"
    if usual:
        return f"{said}, and nothing is wrong so far.", True
    return f"{said}; perhaps: {best.what}" if best else f"{said}, and nothing that could be read says why.", False


def _pending(inquiry: Inquiry) -> tuple[str, bool]:
    counts = inquiry.detail.get("arrayProperties", {}).get("statusSummary", {})
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if counts.get("RUNNING") or counts.get("STARTING"):
        return f"An array stays PENDING while its children work: {said}.", True
    if counts.get("RUNNABLE") and (child := inquiry.child("RUNNABLE")):
        headline, known = _waiting(replace(inquiry, detail=child))
        return f"None of its children runs ({said}). Of one of them: {headline}", known
    for job in inquiry.described(inquiry.waits_for):
        if job["status"] != "SUCCEEDED":
            what = f"It waits for the job '{job['jobName']}', which is {job['status']}."
            do = f"Find out why: Batch().job('{job['jobId']}').explain()."
            inquiry.note(what, "certain", f"dependsOn names {job['jobId']}", do)
    return ("It waits for jobs that have not SUCCEEDED yet.", True) if inquiry.causes else _waiting(inquiry)


def _running(inquiry: Inquiry) -> tuple[str, bool]:
    limit_s = inquiry.detail.get("timeout", {}).get("attemptDurationSeconds")
    limit = f"its timeout is {seconds(limit_s)}" if limit_s else "it has no timeout"
    return f"It has run for {seconds(took_s(inquiry.detail, inquiry.now.timestamp() * 1000) or 0)}; {limit}.", True


def _succeeded(inquiry: Inquiry) -> tuple[str, bool]:
    return f"It succeeded in {seconds(took_s(inquiry.detail) or 0)}.", True


def _failed(inquiry: Inquiry) -> tuple[str, bool]:
    cause = failure(inquiry.detail)
    inquiry.findings.append(cause)
    others = [job for job in inquiry.described(inquiry.waits_for) if job["status"] == "FAILED"]
    if "arrayProperties" in inquiry.detail and (child := inquiry.child("FAILED")):
        others.append(child)
    for job in others:
        of_other = failure(job)
        inquiry.findings.append(replace(of_other, what=f"Job {job['jobId']}: {of_other.what}"))
    # What the last known words in the log of whatever failed mean.
    for line in reversed(replace(inquiry, detail=others[-1] if others else inquiry.detail).last_lines().splitlines()):
        if known := meaning("lines", line, f"its log says: {line.strip()[:300]}"):
            inquiry.findings.append(replace(known, sure="likely"))
            break
    return cause.what, cause.sure != "possible"


STATUS = {
    "SUBMITTED": _waiting,
    "PENDING": _pending,
    "RUNNABLE": _waiting,
    "STARTING": _waiting,
    "RUNNING": _running,
    "SUCCEEDED": _succeeded,
    "FAILED": _failed,
}
