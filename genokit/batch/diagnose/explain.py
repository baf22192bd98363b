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
from genokit.batch.diagnose.findings import Cause
from genokit.batch.diagnose.inquiry import Inquiry
from genokit.batch.diagnose.known_reasons import failure, meaning
from genokit.batch.job_state import detailed, took_s
from genokit.batch.resources import one_line
from genokit.display import Html, card, log, plain, seconds

PULL_FACTOR = 5  # how many times the grace an image's pull may take


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
    causes: tuple[Cause, ...] = ()
    looked: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    last_lines: str = ""

    def __str__(self) -> str:
        parts = [f"Job '{self.job}' ({self.job_id}) is {self.status}{': ' + self.headline if self._adds else '.'}"]
        parts += [f"{number}. {cause}" for number, cause in enumerate(self.causes, 1)]
        for title, lines in self._folds().items():
            parts.append("\n   ".join([f"{title}:", *lines]))
        return plain("\n".join(parts))

    def __repr__(self) -> str:
        return one_line(f"<Explanation {self.job} {self.status}: {self.headline}>")

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> Html:
        rows: list[tuple[str, object]] = [("In short", self.headline)] if self._adds else []
        for number, cause in enumerate(self.causes, 1):
            rows += [(f"{number}. {cause.sure}", cause.what), ("Seen", cause.evidence)]
            rows += [("Do", cause.do)] if cause.do else []
        fold: dict[str, object] = {title: log("\n".join(lines)) for title, lines in self._folds().items()}
        if self.last_lines:
            fold["Last lines"] = log(self.last_lines)
        return card(f"Why is job {self.job} {self.status}?", rows, status=self.status, fold=fold)

    @property
    def _adds(self) -> bool:
        """Whether the headline says anything that the first cause does not."""
        return not self.causes or self.causes[0].what != self.headline

    def _folds(self) -> dict[str, tuple[str, ...]]:
        titles = {"Looked at": self.looked, "Could not be read": self.unread, "Where to look next": self.elsewhere}
        return {title: lines for title, lines in titles.items() if lines}


def explain(clients: Clients, detail: Mapping[str, Any], *, now: datetime | None = None) -> Explanation:
    """Why a job, as DescribeJobs returned it, is in its status. What may not be read is noted, and raises nothing."""
    inquiry = Inquiry(clients, detail, now or datetime.now(UTC))
    status, attempts = detail["status"], detailed(detail).attempts
    for number, one in enumerate(attempts if status != "FAILED" or len(attempts) > 1 else (), 1):
        code = "" if one.exit_code is None else f" (exit code {one.exit_code})"
        inquiry.looked.append(f"attempt {number} ended: {one.reason}{code}")
    headline, known = STATUS[status](inquiry)
    lines = inquiry.last_lines()
    return Explanation(
        job=detail["jobName"],
        job_id=detail["jobId"],
        status=status,
        headline=headline,
        known=known,
        causes=tuple(inquiry.surest_first()),
        looked=tuple(dict.fromkeys(inquiry.looked)),
        unread=tuple(dict.fromkeys(inquiry.unread)),
        elsewhere=() if known else tuple(dict.fromkeys(inquiry.elsewhere)),
        last_lines=lines,
    )


# --- one function a status: the headline, and whether it explains the status


def _submitted(inquiry: Inquiry) -> tuple[str, bool]:
    waited_s = inquiry.waited_s()
    if waited_s <= inquiry.clients.backend.grace_s:
        return "It was submitted just now; Batch schedules it in a moment.", True
    what = f"Batch has not scheduled it for {seconds(waited_s)}: it is slow, or very many jobs were submitted."
    do = "Wait. If all new jobs stay SUBMITTED, see AWS Health for Batch; here, batch.jobs() wakes the supervisor."
    inquiry.blame(what, "the status is SUBMITTED, which usually lasts seconds", do, "possible")
    return "It should have gone on by now, and nothing that could be read says why it has not.", False


def _pending(inquiry: Inquiry) -> tuple[str, bool]:
    counts = inquiry.detail.get("arrayProperties", {}).get("statusSummary", {})
    if sum(counts.values()):
        said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        inquiry.looked.append(f"its children are {said}")
        if counts.get("RUNNING") or counts.get("STARTING"):
            return f"An array stays PENDING while its children work: {said}.", True
        if counts.get("RUNNABLE") and (child := inquiry.child("RUNNABLE")):
            headline, known = _runnable(replace(inquiry, detail=child))
            return f"None of its children runs ({said}). Of one of them: {headline}", known
    ids = inquiry.waits_for
    found = {job["jobId"]: job for job in inquiry.described(ids)}
    unfinished = [job for job in found.values() if job["status"] != "SUCCEEDED"]
    for job in unfinished:
        what = f"It waits for the job '{job['jobName']}', which is {job['status']}."
        if job["status"] == "FAILED":
            what = f"The job '{job['jobName']}', for which it waits, has FAILED, so it will fail too."
        do = f"Find out why: Batch().job('{job['jobId']}').explain()."
        inquiry.blame(what, f"dependsOn names {job['jobId']}", do)
    inquiry.unread.extend(f"job '{one}', which it depends on, is not known any more" for one in ids if one not in found)
    if unfinished:
        number = "a job that has" if len(unfinished) == 1 else f"{len(unfinished)} jobs that have"
        return f"It waits for {number} not SUCCEEDED yet.", True
    if any(one.get("type") == "SEQUENTIAL" for one in inquiry.detail.get("dependsOn", [])):
        return "Its children run one after another.", True
    if inquiry.waited_s() <= inquiry.clients.backend.grace_s:
        return "All that it waited for has ended; it goes on in a moment.", True
    return "What it waited for has ended, as far as that can be read, and it has not gone on.", False


def _runnable(inquiry: Inquiry) -> tuple[str, bool]:
    waited_s = inquiry.waited_s()
    waiting.look(inquiry, waited_s)
    best = next(iter(inquiry.surest_first()), None)
    if best is not None and best.sure != "possible":
        return best.what, True
    if waited_s <= inquiry.clients.backend.grace_s:
        return f"It has waited for {seconds(waited_s)}, and nothing is wrong so far.", True
    if best is not None:
        return f"It has waited for {seconds(waited_s)}; perhaps: {best.what}", False
    return f"It has waited for {seconds(waited_s)}, and nothing that could be read says why.", False


def _starting(inquiry: Inquiry) -> tuple[str, bool]:
    waited_s = inquiry.waited_s()
    if waited_s <= PULL_FACTOR * inquiry.clients.backend.grace_s:
        return "It has been placed; its image is being pulled and its container started.", True
    what = "Pulling the image takes long: the image is large, or its registry is slow or unreachable."
    do = (
        "Wait; an unreachable registry ends as CannotPullContainerError. Smaller images, ECR in the same region and a "
        "VPC endpoint for it make starts fast."
    )
    image = inquiry.detail.get("container", {}).get("image", "of its definition")
    inquiry.blame(what, f"image '{image}'; {seconds(waited_s)} since it was submitted", do, "possible")
    return "It has been placed but does not run yet; AWS does not say since when.", False


def _running(inquiry: Inquiry) -> tuple[str, bool]:
    detail = inquiry.detail
    ran_s = max(0.0, inquiry.now.timestamp() - detail.get("startedAt", detail["createdAt"]) / 1000)
    limit_s = detail.get("timeout", {}).get("attemptDurationSeconds")
    left = f"; its timeout ends it in {seconds(max(0.0, limit_s - ran_s))}" if limit_s else "; it has no timeout"
    return f"It has run for {seconds(ran_s)}{left}.", True


def _succeeded(inquiry: Inquiry) -> tuple[str, bool]:
    tries = len(inquiry.detail.get("attempts", []))
    return (
        f"It succeeded in {seconds(took_s(inquiry.detail) or 0)}{f', at attempt {tries}' if tries > 1 else ''}.",
        True,
    )


def _failed(inquiry: Inquiry) -> tuple[str, bool]:
    detail = inquiry.detail
    cause = failure(detail)
    said = detail.get("statusReason", "")
    if said == "Array Child Job failed":
        array = detail.get("arrayProperties", {})
        if count := array.get("statusSummary", {}).get("FAILED"):
            cause = replace(cause, what=f"{count} of its {array['size']} children failed.")
        inquiry.causes.append(cause)
        if child := inquiry.child("FAILED"):
            of_child = failure(child)
            index = child["jobId"].rpartition(":")[2]
            inquiry.causes.append(replace(of_child, what=f"Its child {index}: {of_child.what}"))
            _lines(replace(inquiry, detail=child))
        return cause.what, True
    if said == "Dependent Job failed":
        for job in inquiry.described(inquiry.waits_for):
            if job["status"] == "FAILED":
                what = f"The job '{job['jobName']}', for which it waited, has FAILED: {failure(job).what}"
                do = f"Repair that one and submit both again: Batch().job('{job['jobId']}').explain()."
                inquiry.blame(what, f"dependsOn names {job['jobId']}", do)
    if not inquiry.causes:
        inquiry.causes.append(cause)
        if detail.get("container", {}).get("exitCode"):
            _lines(inquiry)
    return inquiry.causes[0].what, cause.sure != "possible"


def _lines(inquiry: Inquiry) -> None:
    """The cause that the last known words in the log of a failed job name."""
    for line in reversed(inquiry.last_lines().splitlines()):
        if cause := meaning("lines", line, f"its log says: {line.strip()[:300]}"):
            inquiry.causes.append(replace(cause, sure="likely"))
            return


STATUS = {
    "SUBMITTED": _submitted,
    "PENDING": _pending,
    "RUNNABLE": _runnable,
    "STARTING": _starting,
    "RUNNING": _running,
    "SUCCEEDED": _succeeded,
    "FAILED": _failed,
}
