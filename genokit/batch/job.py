"""A job, or an array of them: follow it, read it, stop it, and know how it ended. The same code here and on AWS."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from genokit.backends import Clients, translated_errors
from genokit.batch import children
from genokit.batch.definition import whole
from genokit.batch.diagnose.explain import Explanation, ending, explain
from genokit.batch.logs import GROUP, LogStream
from genokit.batch.monitor.job_state import ENDED, STATUSES, reason, took_s
from genokit.display import Html, Log, card, log, plain, seconds
from genokit.errors import JobFailed, JobTimeout, NotFound

if TYPE_CHECKING:
    import pandas as pd


class Job:
    """A submitted job, known by its id, so any kernel can take it up again: ``Batch().job(job_id)``.

    ``status`` asks the service until the job has ended; everything else speaks of the moment last asked for.

    https://docs.aws.amazon.com/batch/latest/userguide/job_states.html
    """

    def __init__(self, clients: Clients, job_id: str, *, reunited: bool = False) -> None:
        self.id = job_id
        self.reunited = reunited  # whether a submission found this job rather than made it
        self._clients = clients
        self._detail: dict[str, Any] = {}

    # --- state

    def refresh(self) -> Job:
        """Ask the service how the job stands. Raises NotFound where it does not know the job."""
        with translated_errors(f"job '{self.id}'"):
            found = self._clients.batch.describe_jobs(jobs=[self.id])["jobs"]
        if not found:
            raise NotFound(
                f"There is no job '{self.id}' in this account. Batch().jobs() lists those there are; "
                "AWS forgets a job some days after its end."
            )
        self._detail = found[0]
        return self

    @property
    def detail(self) -> dict[str, Any]:
        """The job as DescribeJobs told it last."""
        return self._detail or self.refresh()._detail

    @property
    def status(self) -> str:
        """SUBMITTED, PENDING, RUNNABLE, STARTING, RUNNING, SUCCEEDED or FAILED, now."""
        if self._detail.get("status") not in ENDED:
            self.refresh()
        return str(self._detail["status"])

    @property
    def name(self) -> str:
        return str(self.detail["jobName"])

    @property
    def queue(self) -> str:
        return str(self.detail["jobQueue"]).rpartition("/")[2]

    @property
    def definition(self) -> str:
        """The definition's name and revision."""
        return str(self.detail["jobDefinition"]).rpartition("/")[2]

    @property
    def parameters(self) -> dict[str, str]:
        return dict(self.detail.get("parameters", {}))

    @property
    def exit_code(self) -> int | None:
        """What the newest attempt's process returned; None while it runs or where it never started."""
        code: int | None = self.detail.get("container", {}).get("exitCode")
        return code

    @property
    def reason(self) -> str:
        """Why the job stands as it does, in the service's words."""
        return reason(self.detail.get("statusReason"), self.detail.get("container", {}).get("reason"))

    @property
    def created(self) -> datetime:
        return _moment(self.detail["createdAt"])

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to end, or until now; None before the start."""
        return took_s(self.detail, time.time() * 1000)

    @property
    def attempts(self) -> pd.DataFrame:
        """The attempts that have ended, the first one first. Times are UTC."""
        from genokit.frames import Frame

        rows = [
            {
                "started": _moment(one["startedAt"]) if "startedAt" in one else None,
                "stopped": _moment(one["stoppedAt"]) if "stoppedAt" in one else None,
                "exit_code": one.get("container", {}).get("exitCode"),
                "reason": reason(one.get("container", {}).get("reason") or one.get("statusReason")) or None,
            }
            for one in self.detail.get("attempts", [])
        ]
        columns = ["started", "stopped", "exit_code", "reason"]
        return Frame(rows, columns=columns).astype({"exit_code": "Int64"})

    # --- arrays

    @property
    def size(self) -> int | None:
        """How many children an array job has; None for any other job."""
        size: int | None = self.detail.get("arrayProperties", {}).get("size")
        return size

    @property
    def counts(self) -> dict[str, int]:
        """How many of an array's children are in each status, now; those statuses that there are."""
        self._now()
        return self._counts()

    def _counts(self) -> dict[str, int]:
        summary = self.detail.get("arrayProperties", {}).get("statusSummary", {})
        return {status: summary[status] for status in STATUSES if summary.get(status)}

    def child(self, index: int) -> Job:
        """One child of an array job, by its index in the array; ``table()`` tells which row that is.

        A sweep of one row is its own child 0. Raises NotFound where there is no such child.
        """
        index = whole("index", index)
        if index == 0 and "arrayProperties" not in self.detail and children.rows_of(self.detail):
            return self
        if self.size is None or not 0 <= index < self.size:
            raise NotFound(f"Job '{self.name}' ({self.id}) has no child {index}: it has {self.size or 'no'} children.")
        return Job(self._clients, f"{self.id}:{index}")

    def table(self) -> pd.DataFrame:
        """The children as a table, one line each: index, what ``each`` gave them, the number of that row in ``each``,
        status, exit code, seconds, reason. A sweep of one row has one line."""
        return children.table(self._clients, self._now())

    @property
    def failed(self) -> list[int]:
        """The row numbers of the children that FAILED, as ``each`` or ``size`` counted them in the first submission:
        ``only=job.failed`` submits these again, in any round of repairs."""
        return children.failed(self._clients, self._now())

    def _now(self) -> dict[str, Any]:
        self.status  # noqa: B018  asks anew until the job has ended
        return self._detail

    # --- logs

    @property
    def stream(self) -> LogStream | None:
        """The newest attempt's log stream; None before the job runs."""
        return self._streams()[-1] if "logStreamName" in self.detail.get("container", {}) else None

    def log(self) -> Log:
        """What the newest attempt has written so far."""
        self.status  # noqa: B018  a running job may have got its stream since
        return self.stream.read() if self.stream else Log("")

    def tail(self, out: TextIO | None = None) -> Job:
        """Print the job's lines as they come, and return when it has ended.

        An interrupt stops the printing; the job goes on. The lines of every attempt are printed, from the second one
        on under its number, and the status where it changes; of an array, how many of its children stand where.

        Lines are printed ``plain``: colours and all that a terminal would obey are left out, and of a progress bar its
        last state is shown. ``job.log()[:]`` is the text as the job wrote it.
        """
        out = out or sys.stdout
        shown = ""
        streams: dict[str, LogStream] = {}
        for status in self._changes():
            line = self._line(status)
            if line != shown and status not in ENDED:
                print(line, file=out, flush=True)
            for stream in self._streams():
                if stream.name not in streams and streams:
                    print(f"[{self.name}] attempt {len(streams) + 1}", file=out)
                for line in streams.setdefault(stream.name, stream).new_lines():
                    print(plain(line), file=out)
            out.flush()
            shown = self._line(status)
        print(shown, file=out, flush=True)
        return self

    def _streams(self) -> list[LogStream]:
        """The log streams of all attempts that have begun, the first one first."""
        newest = self.detail.get("container", {})
        told = [*(one.get("container", {}).get("logStreamName") for one in self.detail.get("attempts", [])),
                newest.get("logStreamName")]  # fmt: skip
        group = newest.get("logConfiguration", {}).get("options", {}).get("awslogs-group", GROUP)
        return [LogStream(self._clients, name, group=group) for name in dict.fromkeys(told) if name]

    def _line(self, status: str) -> str:
        counts = ", ".join(f"{number:,} {one}" for one, number in self._counts().items())
        said = [f": {counts}"] * bool(counts) + [f" ({self.reason})"] * bool(self.reason)
        return f"[{self.name}] {status}{''.join(said)}"

    def wait(self, timeout_s: float | None = None) -> Job:
        """Return when the job has ended. Raises JobTimeout after ``timeout_s`` seconds; the job goes on."""
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        for status in self._changes():
            if status not in ENDED and deadline and time.monotonic() > deadline:
                raise JobTimeout(
                    f"Job '{self.name}' ({self.id}) is {status} after {timeout_s:g} s of waiting and goes on. "
                    "Wait again, or stop it with job.terminate('...').",
                    job=self,
                )
        return self

    def _changes(self) -> Any:
        """The status, again and again until the job has ended, and then once more when its last lines have come."""
        pause_s = self._clients.poll_s / 8
        while True:
            status = self.status
            yield status
            if status in ENDED:
                if self._clients.log_delay_s:
                    time.sleep(self._clients.log_delay_s)
                    yield status
                return
            time.sleep(pause_s)
            pause_s = min(self._clients.poll_s, pause_s * 1.3)

    # --- the ending

    def result(self, timeout_s: float | None = None) -> Result:
        """How the job ended, once it has: exit code, what that means, what to do about it. Raises JobTimeout."""
        self.wait(timeout_s)
        meaning, advice = ending(self.detail) or ("", "")
        return Result(
            job=self,
            status=self.status,
            exit_code=self.exit_code,
            reason=self.reason,
            meaning=meaning,
            advice=advice,
            attempts=len(self.detail.get("attempts", [])),
            duration_s=self.duration_s,
        )

    def raise_for_status(self) -> Job:
        """Raise JobFailed, with the reason, what helps and the last lines, if the job FAILED; else return it."""
        if self.status != "FAILED":
            return self
        told: Job = self
        found = children.summaries(self._clients, self._detail, "FAILED") if self.size else []
        failed = [one["arrayProperties"]["index"] for one in found]
        if failed:
            told = self.child(failed[0]).refresh()
        lines = str(told.stream.last()).splitlines() if told.stream else []
        code = "no exit code" if told.exit_code is None else f"exit code {told.exit_code}"
        _, advice = ending(told.detail) or ("", "")
        some = f"{len(failed):,} of {self.size:,} children failed, the first is {failed[0]}: " if failed else ""
        said = "".join(f"\n    {line}" for line in lines) or " nothing"
        raise JobFailed(
            f"Job '{self.name}' ({self.id}) failed: {some}{code}: {told.reason or 'no reason given'}. "
            f"{advice}{' ' if advice else ''}Its last lines:{said}\n"
            f"See job{f'.child({failed[0]})' if failed else ''}.log() for all of them.",
            job=self,
            exit_code=told.exit_code,
            reason=told.reason,
            last_lines=lines,
        )

    def explain(self) -> Explanation:
        """Why the job stands where it does, above all why it does not start, and what to do: in plain words."""
        return explain(self._clients, self.refresh().detail)

    def cancel(self, reason: str = "Cancelled by its user") -> Job:
        """Take the job out of its queue; if it has started it goes on: see ``terminate``."""
        with translated_errors(f"job '{self.id}'"):
            self._clients.batch.cancel_job(jobId=self.id, reason=reason)
        return self

    def terminate(self, reason: str = "Terminated by its user") -> Job:
        """End the job wherever it is: SIGTERM, and SIGKILL 30 s later. It will be FAILED with ``reason``."""
        with translated_errors(f"job '{self.id}'"):
            self._clients.batch.terminate_job(jobId=self.id, reason=reason)
        return self

    # --- display

    def __repr__(self) -> str:
        duration = f" {seconds(self.duration_s)}" if self.status and self.duration_s is not None else ""
        return f"<Job {self.name} {self.id[:8]} {self.status} {self.queue}{duration}>"

    def _repr_html_(self) -> Html:
        status = self.status
        rows: dict[str, object] = {
            "Queue": self.queue,
            "Definition": self.definition,
            "Submitted": f"{self.created:%Y-%m-%d %H:%M:%S} UTC",
            "Duration": seconds(self.duration_s) if self.duration_s is not None else "not started",
            "Exit code": "none" if self.exit_code is None else self.exit_code,
            "Reason": self.reason or "none",
            "Attempts": len(self.detail.get("attempts", [])) or "none ended",
            **({"Children": ", ".join(f"{n:,} {one}" for one, n in self._counts().items())} if self.size else {}),
            **({"Reunited": "this job was there already, with the same name and content"} if self.reunited else {}),
            "Runs": self._clients.place,
            "Id": self.id,
        }
        fold: dict[str, object] = {"Command": shlex.join(self.detail.get("container", {}).get("command", []))}
        if self.stream:
            fold["Last lines"] = log(self.stream.last())
        return card(f"Job {self.name}", rows, status=status, fold=fold)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


@dataclass(frozen=True)
class Result:
    """How a job ended. ``meaning`` and ``advice`` are empty where there is nothing to say."""

    job: Job = field(repr=False)
    status: str
    exit_code: int | None
    reason: str
    meaning: str
    advice: str
    attempts: int
    duration_s: float | None

    def _repr_html_(self) -> Html:
        rows: dict[str, object] = {
            "Exit code": "none" if self.exit_code is None else self.exit_code,
            "Reason": self.reason or "none",
            "Meaning": self.meaning or "none known",
            "What to do": self.advice or "nothing",
            "Attempts": self.attempts,
            "Duration": seconds(self.duration_s) if self.duration_s is not None else "never started",
        }
        return card(f"Result of {self.job.name}", rows, status=self.status)
