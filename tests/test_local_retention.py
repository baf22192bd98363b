"""The account forgets what is old, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

from embedded import Box

from genokit import Batch, Settings
from genokit.local import store
from genokit.local.engine import retention

DAY_S = 24 * 3600


def test_ended_jobs_their_events_and_logs_are_forgotten_when_they_are_old(account: Settings) -> None:
    batch = Batch(settings=account)
    hello = batch.define("hello", command=["echo", "hello"], memory_gib=0.1)
    old, new = batch.submit(hello).wait(30), batch.submit(hello).wait(30)
    too_large = batch.submit(batch.define("large", command=["true"], vcpus=999), check=False)
    Box(account).wait(too_large.id, "RUNNABLE")  # it goes no further: none of its events comes after they are made old
    with store.connect(account.home) as db:
        age = "update jobs set created_at = created_at - ?, stopped_at = stopped_at - ? where id <> ?"
        db.execute(age, (5 * DAY_S * 1000, 5 * DAY_S * 1000, new.id))
        db.execute("update events set at = at - iif(job = ?, 2, 5) * ?", (new.id, DAY_S * 1000))
        assert old.stream is not None
        log = account.home / "logs" / f"{old.stream.name}.log"
        os.utime(log, (time.time() - 3 * DAY_S,) * 2)
        retention.prune(db, account.home, 2)
        events = {row["job"] for row in db.execute("select job from events")}
    assert set(batch.jobs()["job_id"]) == {new.id, too_large.id}
    assert not log.exists()
    assert new.log() == "hello"
    assert events == {new.id}


def test_pruning_an_account_without_logs_is_nothing(tmp_path: Path) -> None:
    with store.connect(tmp_path) as db:
        retention.prune(db, tmp_path, 1)


def test_a_clock_that_is_400_days_ahead_makes_nothing_be_forgotten(account: Settings) -> None:
    batch = Batch(settings=account)
    job = batch.submit(batch.define("hello", command=["echo", "hello"], memory_gib=0.1)).wait(30)
    Box(account).account.stop()
    with store.connect(account.home) as db:
        # To all that the account has, today's clock is then 400 days ahead.
        for table, column in (("jobs", "created_at"), ("jobs", "started_at"), ("jobs", "stopped_at"), ("events", "at")):
            db.execute(f"update {table} set {column} = {column} - ?", (400 * DAY_S * 1000,))
        for _ in range(3):
            retention.prune(db, account.home, 30)
    again = batch.submit("hello").wait(30)  # by a supervisor that looks what to forget when it starts
    assert (job.log(), again.log()) == ("hello", "hello")
    assert set(batch.jobs()["job_id"]) == {job.id, again.id}
