"""What the monitor shows, pane by pane: pure functions from a snapshot to HTML."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from genokit import display, live
from genokit.batch.job_state import ENDED, JobState
from genokit.batch.monitor.snapshot import Snapshot
from genokit.display import Html

ROWS = 50  # of the table at most
LANES = 20  # attempts of the timeline at most


def head(title: str, place: str, now: Snapshot, *, closed: bool) -> Html:
    """What is watched and where; when it was looked at last, when it is again, and what went wrong."""
    at = f"{now.at:%H:%M:%S} UTC" if now.at else "not yet"
    if closed:
        state, how = "CLOSED", "no longer updated"
    elif now.next_s is None:
        state, how = "FAILED" if now.counts["FAILED"] else "OK", "all jobs have ended"
    else:
        state, how = "LIVE", f"updated every {now.next_s:.2g} s"
    parts: list[Html] = [live.heading(title, place, state, f"as of {at}, {how}")]
    if now.problem:
        known = f"What is shown is as of {at}. " if now.at else ""
        again = f" The next is in about {now.next_s:.0f} s." if now.next_s else ""
        parts.append(live.notice(f"The last update failed. {known}{now.problem}{again}"))
    return live.group(*parts)


def counts(now: Snapshot) -> Html:
    """How many jobs stand in each status, and what those at work hold of their environments."""
    used, (vcpus, memory_gib) = now.used, now.limits
    meters = [
        live.meter("vCPU in use", used.vcpus, vcpus),
        live.meter("Memory in use, GiB", round(used.memory_gib, 2), memory_gib),
    ]
    if used.gpus:
        meters.append(live.meter("GPUs in use", used.gpus, None))
    return live.group(live.tallies(now.counts), live.beside(*meters))


def timeline(now: Snapshot) -> Html:
    """The newest attempts in time."""
    tries = now.tries[-LANES:]
    if not tries:
        return live.quiet("No attempt has started yet.")
    at = now.at.timestamp() * 1000 if now.at else 0
    spans = [(one.started or 0, one.stopped or at) for _, _, one, _ in tries]
    first = min(start for start, _ in spans)
    whole = max(max(at, *(end for _, end in spans)) - first, 1000)
    bars = []
    for (job, number, _, status), (start, end) in zip(tries, spans, strict=True):
        name = label(job) if number == 1 else f"{label(job)} ({number})"
        words = f"{display.seconds(max(0, end - start) / 1000)} from {_clock(start)}"
        bars.append((name, status, (start - first) / whole, (end - first) / whole, words))
    shown = live.lanes(bars, [(part / 4, _clock(first + whole * part / 4)) for part in range(5)])
    older = len(now.tries) - len(tries)
    return live.group(live.quiet(f"{older:,} older attempts are not drawn."), shown) if older else shown


def matches(job: JobState, wanted: str) -> bool:
    """Whether a job, or an array by its children's statuses, is among those that a filter leaves.

    >>> job = JobState("7f", "Align", "RUNNING")
    >>> matches(job, "ali"), matches(job, "running"), matches(job, "failed")
    (True, True, False)
    """
    statuses = " ".join(status for status, n in job.counts.items() if n) if job.size else job.status
    return wanted in f"{job.name}\n{job.id}\n{job.reason}\n{statuses}".lower()


def label(job: JobState) -> str:
    """A job's name on one line, kept from changing the direction of what follows."""
    name = " ".join(job.name.split()) or job.id
    return f"\u2068{name[:60]}\u2069" if len(name) <= 60 else f"\u2068{name[:59]}…\u2069"


def rows(jobs: Sequence[JobState], now: Snapshot) -> Html:
    """The table beside the names: a line a job."""
    lines = [
        (
            live.share(job.counts) if job.size and any(job.counts.values()) else display.pill(job.status),
            job.queue,
            _clock(job.started) if job.started else "",
            _took(job, now),
            "" if job.exit_code is None else str(job.exit_code),
        )
        for job in jobs
    ]
    return live.grid(("status", "queue", "started", "took", "exit"), lines)


def how_many(shown: int, found: int, of: int) -> Html:
    """How much of all the table shows."""
    if not of:
        return live.quiet("No jobs yet. New ones appear by themselves.")
    if shown < found:
        return live.quiet(f"The newest {shown:,} of {found:,} jobs that match the filter; narrow it to see others.")
    return live.quiet(f"{found:,} of {of:,} job{'' if of == 1 else 's'}.")


def detail(chosen: str, job: JobState | None, now: Snapshot) -> Html:
    """The chosen job."""
    if job is None:
        return display.card(f"Job {chosen}", {"Status": "being queried"})
    capacity = job.capacity
    gpus = f", {capacity.gpus} GPU" if capacity.gpus else ""
    requested = f"{capacity.vcpus:g} vCPU, {display.size(capacity.memory_mib * 2**20)}{gpus}"
    shown: dict[str, object] = {
        "Reason": job.reason or "none",
        "Requested": requested + (" each" if job.size else ""),
        "Id": job.id,
    }
    if job.size:
        counted = ", ".join(f"{n:,} {status}" for status, n in job.counts.items() if n)
        shown = {"Progress": f"{job.size:,} children: {counted}."} | shown
    else:
        shown["Started"] = f"{_clock(job.started)}, took {_took(job, now)}" if job.started else "not yet"
        shown["Exit code"] = "none" if job.exit_code is None else job.exit_code
        shown["Attempts"] = len(job.tries) or "none"
    if failed := now.failed.get(job.id):
        more = f" and {job.counts['FAILED'] - len(failed):,} more" if job.counts["FAILED"] > len(failed) else ""
        shown["Failed"] = f"{', '.join(map(str, failed))}{more}"
    child = f", child {job.id.partition(':')[2]}" if ":" in job.id else ""
    return display.card(f"Job {job.name}{child}", shown, status=job.status)


def lines(job: JobState | None, text: str) -> Html:
    """The log pane."""
    if job is None:
        return live.quiet("")
    if job.size:
        return live.quiet("An array has no log of its own: enter a child's number to read that child's.")
    if not job.stream:
        return live.quiet("No log: it never ran." if job.status in ENDED else "No log yet: it has not started.")
    return display.log(text) if text else live.quiet("No lines so far.")


def question(chosen: str, job: JobState | None) -> Html:
    """What a yes would do, and to which job."""
    name, status = (label(job), job.status) if job else (chosen, "unknown")
    whole = f", with all its {job.size:,} children" if job and job.size else ""
    return live.quiet(f"Cancel job {name}{whole} ({chosen[:8]}…, {status})? It ends as FAILED.")


def _took(job: JobState, now: Snapshot) -> str:
    if not job.started:
        return ""
    until = job.stopped or (now.at.timestamp() * 1000 if now.at else job.started)
    return display.seconds(max(0, until - job.started) / 1000)


def _clock(moment: float | None) -> str:
    return f"{datetime.fromtimestamp((moment or 0) / 1000, tz=UTC):%H:%M:%S}"
