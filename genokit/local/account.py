"""An embedded account from outside: its status and events, and how to stop and remove it."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genokit.errors import GenokitError, NotFound
from genokit.local import store
from genokit.local.engine import keeper, processes

ARN = "arn:aws:batch:local:000000000000"


@dataclass(frozen=True)
class Account:
    """The embedded account in the folder ``home``.

    >>> from genokit.config import Settings
    >>> Account(Settings().home / "nobody-has-this").status()["supervisor"] is None
    True
    """

    home: Path

    def status(self) -> dict[str, object]:
        """What the account holds.

        Returns
        -------
        dict
            ``home``, its folder; ``supervisor``, its process number, None where none runs; ``jobs``, their number by
            status; ``stuck``, the ids of jobs that can never start as things are, with the reason; ``problem``, what is
            wrong with the account itself, None where nothing is.

        Raises
        ------
        GenokitError
            The account's store cannot be read.
        """
        jobs: dict[str, int] = {}
        stuck: dict[str, str] = {}
        if (self.home / "batch.sqlite").exists():
            with store.connect(self.home) as db:
                jobs = dict(map(tuple, db.execute("select status, count(*) from jobs group by status order by status")))
                never = "status = 'RUNNABLE' and status_reason like 'MISCONFIGURATION:%'"
                stuck = dict(map(tuple, db.execute(f"select id, status_reason from jobs where {never} order by seq")))
        problem = None
        if len(deaths := store.deaths(self.home)) > 1:
            problem = f"its supervisor has died {len(deaths)} times in a row, the last time of: {deaths[-1]}"
        supervisor = processes.lock_holder(self.home / "supervisor.lock")
        return {"home": self.home, "supervisor": supervisor, "jobs": jobs, "stuck": stuck, "problem": problem}

    def stop(self, *, timeout_s: float = 40.0) -> None:
        """Terminate running jobs, cancel waiting ones, and let the supervisor and its keepers go.

        Where no supervisor can be started, the keepers end what runs.

        Parameters
        ----------
        timeout_s : float, default 40
            Seconds to wait; a job has 30 between SIGTERM and SIGKILL.

        Raises
        ------
        GenokitError
            A process is still running after that time.
        """
        deadline = time.monotonic() + timeout_s
        try:
            if (self.home / "batch.sqlite").exists():
                self._terminate(deadline)
        finally:
            self._dismiss(max(time.monotonic() + 1, deadline))

    def _terminate(self, deadline: float) -> None:
        """Ask the supervisor to end all jobs, and wait until it has, or is gone."""
        with store.connect(self.home) as db:
            wish = "update jobs set stop = 'terminate', stop_reason = 'The embedded account was stopped.' where "
            any_live = db.execute(wish + store.IS_LIVE).rowcount
        if any_live:
            from genokit.local.client import Caller
            from genokit.local.shapes import Refused

            with contextlib.suppress(Refused):
                Caller(self.home, "TerminateJob", {}).wake()
        while any_live and keeper.wake(self.home / "wake") and time.monotonic() < deadline:
            time.sleep(0.02)
            with store.connect(self.home) as db:
                any_live = db.execute(f"select 1 from jobs where {store.IS_LIVE}").fetchone()

    def _dismiss(self, deadline: float) -> None:
        """Let the supervisor go, have the keepers end what still runs, and wait until all have gone."""
        supervisor, hosts = self.home / "supervisor.lock", self.home / "hosts"
        while left := [one for one in (supervisor, *hosts.glob("*")) if processes.kill_holder(one, signal.SIGTERM)]:
            if time.monotonic() > deadline:
                number = processes.lock_holder(left[0])
                raise GenokitError(
                    f"The embedded account in '{self.home}' did not stop in time: process {number} is still running. "
                    f"Try again, look into '{self.home / 'supervisor.log'}', or end it with: kill -9 {number}"
                )
            time.sleep(0.02)

    def reclaim(self, job_id: str) -> None:
        """Rehearse a Spot reclaim: the host of a running job is lost, and its retry strategy decides what follows.

        The attempt fails with statusReason ``Host EC2 (instance ...) terminated.`` and no exit code.

        Parameters
        ----------
        job_id : str
            A running job; of an array job, all its running children are reclaimed.

        Raises
        ------
        NotFound
            No such job is running.
        """
        with store.connect(self.home) as db, store.transaction(db):
            wish = "update jobs set stop = 'reclaim' where (id = :id or parent = :id) and status = 'RUNNING'"
            if not db.execute(wish + " and stop is null", {"id": job_id}).rowcount:
                raise NotFound(f"No job '{job_id}' is running in '{self.home}', so it has no host to reclaim.")
        keeper.wake(self.home / "wake")

    def events(self, after: int = 0, most: int = 1000) -> list[dict[str, Any]]:
        """The state changes of jobs, oldest first, in EventBridge's shape.

        https://docs.aws.amazon.com/batch/latest/userguide/batch_cwe_events.html

        Parameters
        ----------
        after : int, default 0
            The ``cursor`` of the last event that is already known.
        most : int, default 1000
            The number of events to return at most.

        Returns
        -------
        list of dict
            Each event, with its ``cursor``.

        Raises
        ------
        GenokitError
            The account's store cannot be read.
        """
        with store.connect(self.home) as db:
            rows = db.execute(
                "select events.*, name, queue, parent, size, idx, kind from events join jobs on jobs.id = events.job "
                "where events.seq > ? order by events.seq limit ?",
                (after, most),
            ).fetchall()
        try:
            return [_event(row) for row in rows]
        except (TypeError, ValueError, OverflowError) as error:  # a time or a number that is none
            raise store.unusable(self.home, error) from error

    def clean(self) -> None:
        """Stop the account and remove its jobs, definitions and logs. Fetched data, trained models and S3 stay."""
        with contextlib.suppress(store.CorruptStore):  # then nobody can say which jobs there were; none runs any more
            self.stop()
        for name in ("hosts", "scratch", "logs"):
            keeper.remove(self.home / name)
        for name in (
            "batch.sqlite", "batch.sqlite-wal", "batch.sqlite-shm", "supervisor.lock", "supervisor.log", "wake",
            "deaths",
        ):  # fmt: skip
            (self.home / name).unlink(missing_ok=True)


def _event(row: sqlite3.Row) -> dict[str, Any]:
    detail = {
        "jobArn": f"{ARN}:job/{row['job']}",
        "jobId": row["job"],
        "jobName": row["name"],
        "jobQueue": f"{ARN}:job-queue/{row['queue']}",
        "status": row["status"],
    }
    if row["reason"]:
        detail["statusReason"] = row["reason"]
    if row["kind"] == "array":
        detail["arrayProperties"] = {"size": row["size"]} if row["size"] else {"index": row["idx"]}
    return {
        "cursor": row["seq"], "id": f"{row['seq']:032d}", "version": "0", "source": "aws.batch",
        "detail-type": "Batch Job State Change", "account": "000000000000", "region": "local",
        "time": datetime.fromtimestamp(row["at"] / 1000, tz=UTC).isoformat(timespec="milliseconds"),
        "resources": [detail["jobArn"]], "detail": detail,
    }  # fmt: skip
