"""A job, or an array of them: follow it, read it, stop it, and know how it ended. The same code here and on AWS."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from genokit.backends import Clients, translated_errors
from genokit.batch import job_tables
from genokit.batch.definition import whole
from genokit.batch.diagnose.explain import Explanation, explain
from genokit.batch.diagnose.known_reasons import failure
from genokit.batch.job_state import ENDED, JobState, detailed, took_s
from genokit.batch.logs import LogStream, log_stream, with_log
from genokit.display import Html, Log, card, log, plain, seconds
from genokit.errors import JobFailed, JobTimeout, NotFound, renamed

if TYPE_CHECKING:
    import pandas as pd

    from genokit.batch.debug import DebugFolder


class Job:
    """A submitted job, identified by its id, so any kernel can take it up again: ``Batch().job(job_id)``.

    ``status``, ``counts``, ``failed``, ``log()`` and ``table()`` query the service until the job has ended; every other
    property describes the job as of the last query.

    Parameters
    ----------
    clients
        The clients of the account in which the job runs.
    job_id
        The id that AWS Batch gave the job.
    reused
        Whether a submission found this job instead of starting a new one. Default False.

    Examples
    --------
    >>> from genokit import Batch
    >>> batch = Batch()
    >>> task = batch.define("greet", command=["echo", "hello"], memory_gib=0.1)
    >>> job = batch.submit(task).wait()
    >>> job.status, job.exit_code, job.queue, job.definition
    ('SUCCEEDED', 0, 'highPriority', 'greet:1')
    >>> print(batch.job(job.id).log())
    hello

    https://docs.aws.amazon.com/batch/latest/userguide/job_states.html
    """

    reunited = renamed("reunited", "reused")

    def __init__(self, clients: Clients, job_id: str, *, reused: bool = False) -> None:
        self.id = job_id
        self.reused = reused
        self._clients = clients
        self._detail: dict[str, Any] = {}

    # --- state

    def refresh(self) -> Job:
        """Query the service for the job's current state.

        Raises
        ------
        NotFound
            The account has no such job; AWS forgets a job some days after its end.
        """
        with translated_errors(f"job '{self.id}'"):
            found = self._clients.batch.describe_jobs(jobs=[self.id])["jobs"]
        if not found:
            raise NotFound(
                f"There is no job '{self.id}' in this account. Batch().jobs() lists the jobs that exist; "
                "AWS forgets a job some days after its end."
            )
        self._detail = found[0]
        return self

    @property
    def detail(self) -> dict[str, Any]:
        """The job in AWS's words, as DescribeJobs last returned it."""
        return self._detail or self.refresh()._detail

    @property
    def _state(self) -> JobState:
        return detailed(self.detail)

    @property
    def status(self) -> str:
        """SUBMITTED, PENDING, RUNNABLE, STARTING, RUNNING, SUCCEEDED or FAILED, as of now."""
        return str(self._now()["status"])

    @property
    def name(self) -> str:
        """The job's name: that of its definition unless the submission gave one."""
        return self._state.name

    @property
    def queue(self) -> str:
        """The name of the job's queue."""
        return self._state.queue

    @property
    def definition(self) -> str:
        """The name and revision of the job's definition, such as ``align:3``."""
        return str(self.detail["jobDefinition"]).rpartition("/")[2]

    @property
    def parameters(self) -> dict[str, str]:
        """The values of the command's ``Ref::`` words."""
        return dict(self.detail.get("parameters", {}))

    @property
    def exit_code(self) -> int | None:
        """The exit code of the newest attempt; None while it runs or if it never started."""
        return self._state.exit_code

    @property
    def reason(self) -> str:
        """Why the job is in its status, in the service's words; empty where the service gives no reason."""
        return self._state.reason

    @property
    def created(self) -> datetime:
        """When the job was submitted, UTC."""
        return _moment(self.detail["createdAt"])

    @property
    def duration_s(self) -> float | None:
        """Seconds from the start to the end, or until now; None before the start."""
        return took_s(self.detail, time.time() * 1000)

    @property
    def attempts(self) -> pd.DataFrame:
        """The attempts that have ended, oldest first: started, stopped (UTC), exit_code, reason."""
        from genokit.frames import Frame

        ended = self._state.attempts
        times = [[moment and _moment(moment) for moment in (one.started, one.stopped)] for one in ended]
        rows = [(*time, one.exit_code, one.reason or None) for time, one in zip(times, ended, strict=True)]
        columns = ["started", "stopped", "exit_code", "reason"]
        return Frame(rows, columns=columns).astype({"exit_code": "Int64"})

    # --- arrays

    @property
    def size(self) -> int | None:
        """The number of an array job's children; None for any other job."""
        return self._state.size or None

    @property
    def counts(self) -> dict[str, int]:
        """The number of an array's children in each status, as of now, without the statuses that have none."""
        self._now()
        return self._counts()

    def _counts(self) -> dict[str, int]:
        return {status: count for status, count in self._state.counts.items() if count}

    def child(self, index: int) -> Job:
        """One child of an array job.

        Parameters
        ----------
        index
            The child's index in the array, from 0; ``table()`` shows which row of ``each`` it runs. A sweep of one row
            is its own child 0.

        Raises
        ------
        NotFound
            The job has no such child.
        """
        index = whole("index", index)
        if index == 0 and "arrayProperties" not in self.detail and job_tables.rows_of(self.detail):
            return self
        if self.size is None or not 0 <= index < self.size:
            raise NotFound(f"Job '{self.name}' ({self.id}) has no child {index}: it has {self.size or 'no'} children.")
        return Job(self._clients, f"{self.id}:{index}")

    def table(self) -> pd.DataFrame:
        """The children of an array, as of now.

        Returns
        -------
        pandas.DataFrame
            One row a child: ``child`` (its index), the columns of ``each``, ``row`` (the number of its row in the first
            submission), ``status``, ``exit_code``, ``duration_s`` and ``reason``. A sweep of one row has one line, any
            other job none.
        """
        return job_tables.table(self._clients, self._now())

    @property
    def failed(self) -> list[int]:
        """The numbers of the rows whose children FAILED, as ``each`` or ``size`` counted them in the first submission:
        ``batch.submit(..., only=job.failed)`` runs these again, in any round of repairs."""
        return job_tables.failed(self._clients, self._now())

    def _now(self) -> dict[str, Any]:
        if self._detail.get("status") not in ENDED:
            self.refresh()
        return self._detail

    # --- logs

    @property
    def stream(self) -> LogStream | None:
        """The log stream of the newest attempt; None before the job runs."""
        return log_stream(self._clients, self.detail)

    def log(self) -> Log:
        """What the newest attempt has written so far.

        Returns
        -------
        Log
            A text that prints without control characters; ``job.log()[:]`` is the text as the job wrote it.
        """
        self._now()  # a running job may have got its stream since
        stream = self.stream
        return stream.read() if stream else Log("")

    def tail(self, out: TextIO | None = None) -> Job:
        """Print the job's log lines as they arrive, and return when the job has ended.

        Lines of all attempts are printed, from the second attempt on under its number, and every change of the status;
        of an array the counts of its children. Control characters are removed, and a progress bar is shown in its last
        state. An interrupt stops the printing; the job continues.

        Parameters
        ----------
        out
            The open text file to print to. Default: standard output.
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
        """The log streams of all attempts that have begun, oldest first."""
        state = detailed(with_log(self._clients, self.detail))
        names = dict.fromkeys([*(one.stream for one in state.attempts), state.stream])
        return [LogStream(self._clients, name, group=state.group) for name in names if name]

    def _line(self, status: str) -> str:
        counts = ", ".join(f"{number:,} {one}" for one, number in self._counts().items())
        said = [f": {counts}"] * bool(counts) + [f" ({self.reason})"] * bool(self.reason)
        return f"[{self.name}] {status}{''.join(said)}"

    def wait(self, timeout_s: float | None = None) -> Job:
        """Wait until the job has ended.

        Parameters
        ----------
        timeout_s
            The longest time to wait, in seconds. Default: no limit.

        Raises
        ------
        JobTimeout
            The job has not ended in time; it continues.
        """
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        for status in self._changes():
            if status not in ENDED and deadline and time.monotonic() > deadline:
                raise JobTimeout(
                    f"Job '{self.name}' ({self.id}) is {status} after {timeout_s:g} s of waiting and goes on. "
                    "Wait again, or stop it with job.terminate('...').",
                    job=self,
                )
        return self

    def _changes(self) -> Iterator[str]:
        """The status, again and again until the job has ended, and then once more when its last lines have come."""
        pause_s = self._clients.backend.poll_s / 8
        while True:
            status = self.status
            yield status
            if status in ENDED:
                if self._clients.backend.log_delay_s:
                    time.sleep(self._clients.backend.log_delay_s)
                    yield status
                return
            time.sleep(pause_s)
            pause_s = min(self._clients.backend.poll_s, pause_s * 1.3)

    # --- the ending

    def raise_for_status(self) -> Job:
        """Raise an exception if the job FAILED.

        Raises
        ------
        JobFailed
            With the reason, what to do about it and the last log lines; of an array, those of its first failed child.
        """
        if self.status != "FAILED":
            return self
        culprit, some, child = self, "", ""
        if self.size and (failed := job_tables.children(self._clients, self._detail, "FAILED")):
            first = failed[0]["arrayProperties"]["index"]
            culprit, child = self.child(first).refresh(), f".child({first})"
            some = f"{len(failed):,} of {self.size:,} children failed, the first is {first}: "
        lines = str(culprit.stream.last()).splitlines() if culprit.stream else []
        code = "no exit code" if culprit.exit_code is None else f"exit code {culprit.exit_code}"
        advice = failure(culprit.detail).do
        said = "".join(f"\n    {line}" for line in lines) or " nothing"
        raise JobFailed(
            f"Job '{self.name}' ({self.id}) failed: {some}{code}: {culprit.reason or 'no reason given'}. "
            f"{advice}{' ' if advice else ''}Its last lines:{said}\n"
            f"See job{child}.log() for all of them.",
            job=self,
            exit_code=culprit.exit_code,
            reason=culprit.reason,
            last_lines=lines,
        )

    def explain(self) -> Explanation:
        """Why the job is in its status, above all why it does not start, and what to do about it.

        Returns
        -------
        Explanation
            A card with the causes, the evidence for each, and what could not be read. Nothing is raised for want of a
            permission.

        Raises
        ------
        NotFound
            The account has no such job.
        """
        return explain(self._clients, self.refresh().detail)

    def debug(self, folder: str | os.PathLike[str] | None = None) -> DebugFolder:
        """Make a folder in which the job can be repeated on this machine, to see why it failed.

        It holds the shipped code and a script ``run.sh`` with the job's environment and its exact command; of an array,
        those of the first child that failed. Values that look like secrets are left out: the script asks for them.

        Parameters
        ----------
        folder
            A new folder. Default: ``debug-NAME-ID`` in the working folder.

        Returns
        -------
        DebugFolder
            Its ``path``, the shell line ``command``, and the names of what was ``left_out``.

        Raises
        ------
        NotFound
            The account has no such job, or its code is gone.
        InvalidRequest
            The folder is not empty, or the job has no command.
        """
        from genokit.batch.debug import debug

        job, name = self.refresh(), f"debug-{self.name}-{self.id[:8]}"
        if self.size:
            failed = job_tables.children(self._clients, self._detail, "FAILED")
            job = self.child(failed[0]["arrayProperties"]["index"] if failed else 0).refresh()
        return debug(self._clients, job.detail, Path(folder or name).expanduser().absolute())

    def cancel(self, reason: str = "Cancelled by its user") -> Job:
        """Take the job out of its queue. A job that has started continues: see ``terminate``.

        Parameters
        ----------
        reason
            The job's status reason from then on. Default: "Cancelled by its user".

        Raises
        ------
        InvalidRequest
            The service refuses the request.
        """
        with translated_errors(f"job '{self.id}'"):
            self._clients.batch.cancel_job(jobId=self.id, reason=reason)
        return self

    def terminate(self, reason: str = "Terminated by its user") -> Job:
        """Stop the job wherever it is: SIGTERM, and SIGKILL 30 s later. It ends as FAILED.

        Parameters
        ----------
        reason
            The job's status reason from then on. Default: "Terminated by its user".

        Raises
        ------
        InvalidRequest
            The service refuses the request.
        """
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
            "Attempts": len(self._state.attempts) or "none ended",
            **({"Children": ", ".join(f"{n:,} {one}" for one, n in self._counts().items())} if self.size else {}),
            **({"Reused": "an existing job with the same name and content"} if self.reused else {}),
            "Runs": self._clients.place,
            "Id": self.id,
        }
        fold: dict[str, object] = {"Command": shlex.join(self.detail.get("container", {}).get("command", []))}
        if self.stream:
            fold["Last lines"] = log(self.stream.last())
        return card(f"Job {self.name}", rows, status=status, fold=fold)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
