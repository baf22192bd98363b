"""Why a job stands where it stands: what is wrong, how that is known, what to do, and how sure that is.

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
from genokit.batch.diagnose.findings import SURENESS, Cause
from genokit.batch.diagnose.known_reasons import failure, meaning
from genokit.batch.diagnose.waiting import Notes
from genokit.batch.job_state import detailed, took_s
from genokit.batch.logs import LogStream
from genokit.batch.resources import one_line
from genokit.display import Html, Log, card, log, plain, seconds
from genokit.errors import GenokitError

PULL_FACTOR = 5  # how many times the grace an image's pull may take


@dataclass(frozen=True)
class Explanation:
    """Why a job stands as it does: in a notebook a card, printed as text.

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
            rows.append((f"{number}. {cause.sure}", cause.what))
            rows.append(("Seen", cause.evidence))
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
    """Why a job, as DescribeJobs told it, stands where it stands. What may not be read is noted, and raises nothing."""
    notes, now = Notes(), now or datetime.now(UTC)
    look = {
        "SUBMITTED": _submitted,
        "PENDING": _pending,
        "RUNNABLE": _runnable,
        "STARTING": _starting,
        "RUNNING": _running,
        "SUCCEEDED": _succeeded,
        "FAILED": _failed,
    }[detail["status"]]
    attempts = detailed(detail).attempts
    for number, one in enumerate(attempts if detail["status"] != "FAILED" or len(attempts) > 1 else (), 1):
        code = "" if one.exit_code is None else f" (exit code {one.exit_code})"
        notes.looked.append(f"attempt {number} ended: {one.reason}{code}")
    headline, known = look(clients, detail, now, notes)
    causes = sorted(dict.fromkeys(notes.causes), key=lambda cause: SURENESS.index(cause.sure))
    return Explanation(
        job=detail["jobName"],
        job_id=detail["jobId"],
        status=detail["status"],
        headline=headline,
        known=known,
        causes=tuple(causes),
        looked=tuple(dict.fromkeys(notes.looked)),
        unread=tuple(dict.fromkeys(notes.unread)),
        elsewhere=() if known else tuple(dict.fromkeys(notes.elsewhere)),
        last_lines=_last_lines(clients, detail),
    )


def _waited_s(clients: Clients, detail: Mapping[str, Any], now: datetime, notes: Notes) -> float:
    """How long the job could have gone on: since its submission, its last attempt, or the end of what it waited for."""
    moments = [detail["createdAt"], *(one.get("stoppedAt", 0) for one in detail.get("attempts", []))]
    if detail["status"] == "RUNNABLE" and detail.get("dependsOn"):
        others = waiting.described(clients, _waited_for(detail), notes)
        moments += [other.get("stoppedAt", 0) for other in others]
    return max(0.0, now.timestamp() - float(max(moments)) / 1000)


# --- one function a status: the headline, and whether it explains how things stand


def _submitted(clients: Clients, detail: Mapping[str, Any], now: datetime, notes: Notes) -> tuple[str, bool]:
    waited_s = _waited_s(clients, detail, now, notes)
    if waited_s <= clients.backend.grace_s:
        return "It was submitted just now; Batch looks at it in a moment.", True
    what = f"Batch has not looked at it for {seconds(waited_s)}: it is slow, or very many jobs were submitted."
    do = "Wait. If all new jobs stay SUBMITTED, see AWS Health for Batch; here, batch.jobs() wakes the supervisor."
    notes.causes.append(Cause(what, "the status is SUBMITTED, which lasts seconds as a rule", do, "possible"))
    return "It should have gone on by now, and what could be read does not say why it has not.", False


def _pending(clients: Clients, detail: Mapping[str, Any], now: datetime, notes: Notes) -> tuple[str, bool]:
    counts = detail.get("arrayProperties", {}).get("statusSummary", {})
    if sum(counts.values()):
        said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        notes.looked.append(f"its children are {said}")
        if counts.get("RUNNING") or counts.get("STARTING"):
            return f"An array stays PENDING while its children work: {said}.", True
        if counts.get("RUNNABLE"):
            child = _child(clients, detail["jobId"], "RUNNABLE", notes)
            if child:
                headline, known = _runnable(clients, child, now, notes)
                return f"None of its children runs ({said}). Of one of them: {headline}", known
    ids = _waited_for(detail)
    found = {job["jobId"]: job for job in waiting.described(clients, ids, notes)}
    open_ones = [job for job in found.values() if job["status"] != "SUCCEEDED"]
    for job in open_ones:
        what = f"It waits for the job '{job['jobName']}', which is {job['status']}."
        if job["status"] == "FAILED":
            what = f"The job '{job['jobName']}', for which it waits, has FAILED, so it will fail too."
        do = f"Ask why that one stands there: Batch().job('{job['jobId']}').explain()."
        notes.causes.append(Cause(what, f"dependsOn names {job['jobId']}", do, "certain"))
    notes.unread += [f"job '{one}', which it depends on, is not known any more" for one in ids if one not in found]
    if open_ones:
        number = "a job that has" if len(open_ones) == 1 else f"{len(open_ones)} jobs that have"
        return f"It waits for {number} not SUCCEEDED yet.", True
    if any(one.get("type") == "SEQUENTIAL" for one in detail.get("dependsOn", [])):
        return "Its children go one after another.", True
    if _waited_s(clients, detail, now, notes) <= clients.backend.grace_s:
        return "All that it waited for has ended; it goes on in a moment.", True
    return "What it waited for has ended, as far as that can be read, and it has not gone on.", False


def _runnable(clients: Clients, detail: Mapping[str, Any], now: datetime, notes: Notes) -> tuple[str, bool]:
    waited_s = _waited_s(clients, detail, now, notes)
    waiting.look(clients, detail, waited_s, now, notes)
    best = min(notes.causes, key=lambda cause: SURENESS.index(cause.sure), default=None)
    if best is not None and best.sure != "possible":
        return best.what, True
    if waited_s <= clients.backend.grace_s:
        return f"It waits for room since {seconds(waited_s)}, and nothing is wrong so far.", True
    if best is not None:
        return f"It waits since {seconds(waited_s)}; perhaps: {best.what}", False
    return f"It waits since {seconds(waited_s)}, and nothing that could be read says why.", False


def _starting(clients: Clients, detail: Mapping[str, Any], now: datetime, notes: Notes) -> tuple[str, bool]:
    waited_s = _waited_s(clients, detail, now, notes)
    image = detail.get("container", {}).get("image", "of its definition")
    if waited_s <= PULL_FACTOR * clients.backend.grace_s:
        return "It has its room; the image is pulled and the container is started.", True
    what = "The pull of the image takes long: the image is large, or its registry is far or out of reach."
    do = (
        "Wait; an unreachable registry ends as CannotPullContainerError. Smaller images, ECR in the same region and a "
        "VPC endpoint for it make starts fast."
    )
    evidence = f"image '{image}'; {seconds(waited_s)} since the submission, of which RUNNABLE is a part"
    notes.causes.append(Cause(what, evidence, do, "possible"))
    return "It has its room and has not begun to run; AWS does not tell since when.", False


def _running(clients: Clients, detail: Mapping[str, Any], now: datetime, notes: Notes) -> tuple[str, bool]:
    ran_s = max(0.0, now.timestamp() - detail.get("startedAt", detail["createdAt"]) / 1000)
    limit_s = detail.get("timeout", {}).get("attemptDurationSeconds")
    left = f"; its timeout ends it in {seconds(max(0.0, limit_s - ran_s))}" if limit_s else "; it has no timeout"
    return f"It runs since {seconds(ran_s)}{left}.", True


def _succeeded(clients: Clients, detail: Mapping[str, Any], now: datetime, notes: Notes) -> tuple[str, bool]:
    tries = len(detail.get("attempts", []))
    return f"It ended well after {seconds(took_s(detail) or 0)}" + (
        f", at attempt {tries}." if tries > 1 else "."
    ), True


def _failed(clients: Clients, detail: Mapping[str, Any], now: datetime, notes: Notes) -> tuple[str, bool]:
    cause = failure(detail)
    said = detail.get("statusReason", "")
    if said == "Array Child Job failed":
        child = _child(clients, detail["jobId"], "FAILED", notes)
        count = detail.get("arrayProperties", {}).get("statusSummary", {}).get("FAILED")
        if count:
            cause = replace(cause, what=f"{count} of its {detail['arrayProperties']['size']} children failed.")
        notes.causes.append(cause)
        if child:
            of_child = failure(child)
            notes.causes.append(
                replace(of_child, what=f"Its child {child['jobId'].rpartition(':')[2]}: {of_child.what}")
            )
            _lines(clients, child, notes)
        return cause.what, True
    if said == "Dependent Job failed":
        for job in waiting.described(clients, _waited_for(detail), notes):
            if job["status"] == "FAILED":
                what = f"The job '{job['jobName']}', for which it waited, has FAILED: {failure(job).what}"
                do = f"Repair that one and submit both again: Batch().job('{job['jobId']}').explain()."
                notes.causes.append(Cause(what, f"dependsOn names {job['jobId']}", do, "certain"))
    if not notes.causes:
        notes.causes.append(cause)
        if detail.get("container", {}).get("exitCode"):
            _lines(clients, detail, notes)
    return notes.causes[0].what, cause.sure != "possible"


def _lines(clients: Clients, detail: Mapping[str, Any], notes: Notes) -> None:
    """What the last lines of a job that failed tell, where they hold a known word."""
    text = _last_lines(clients, detail, notes)
    for line in reversed(text.splitlines()):
        cause = meaning("lines", line, f"its log says: {line.strip()[:300]}")
        if cause:
            notes.causes.append(replace(cause, sure="likely"))
            return


# --- what belongs to a job


def _waited_for(detail: Mapping[str, Any]) -> list[str]:
    """The ids of the jobs that a job waits for; of a child of an array, its counterparts and its predecessor."""
    parent, _, index = detail["jobId"].partition(":")
    ids = []
    for one in detail.get("dependsOn", []):
        if one.get("type") == "SEQUENTIAL":
            if index and int(index):
                ids.append(f"{parent}:{int(index) - 1}")
        elif one.get("type") == "N_TO_N" and index:
            ids.append(f"{one['jobId']}:{index}")
        elif one.get("jobId"):
            ids.append(one["jobId"])
    return ids


def _child(clients: Clients, parent: str, status: str, notes: Notes) -> dict[str, Any] | None:
    """One child of an array in a status."""
    page = notes.ask(clients, "batch", "list_jobs", arrayJobId=parent, jobStatus=status, maxResults=1)
    ids = [job["jobId"] for job in (page or {"jobSummaryList": []})["jobSummaryList"]]
    return next(waiting.described(clients, ids, notes), None)


def _last_lines(clients: Clients, detail: Mapping[str, Any], notes: Notes | None = None) -> Log:
    job = detailed(detail)
    if not job.stream or job.status not in ("RUNNING", "FAILED"):
        return Log("")
    try:
        return LogStream(clients, job.stream, group=job.group).last()
    except (GenokitError, NotImplementedError) as error:
        if notes is not None:
            notes.unread.append(str(error))
        return Log("")
