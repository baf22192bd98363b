"""Accounts that older versions of the kit have written are opened, and go on with their jobs."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from embedded import Box

import genokit
from genokit import Settings


def test_jobs_that_version_5_has_left_are_described_and_run(account: Settings) -> None:
    runtime = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(Path(genokit.__file__).parents[1]),
        "GENOKIT_BACKEND": "local",
        "GENOKIT_HOME": str(account.home),
    }
    account.home.mkdir(mode=0o700)
    script = (Path(__file__).parent / "store_version_5.sql").read_text().replace("{runtime}", json.dumps(runtime))
    with closing(sqlite3.connect(account.home / "batch.sqlite")) as db:
        db.executescript(script)
        db.execute("pragma journal_mode = wal")
    box = Box(account)
    assert [box.describe(job)["status"] for job in ("over", "array", "array:0")] == ["SUCCEEDED"] * 3
    assert box.wait("running")["statusReason"] == "Host EC2 (instance i-0123456789abcdef) terminated."
    assert [box.wait(job)["status"] for job in ("waiting", "children", "dependent")] == ["SUCCEEDED"] * 3
    assert box.written("waiting") == [f"{account.home} y"]
    assert [box.written(f"children:{number}") for number in range(3)] == [["0"], ["1"], ["2"]]
    assert [one["container"]["exitCode"] for one in box.wait("retried")["attempts"]] == [3, 3]
    assert box.wait(box.submit("hello"))["status"] == "SUCCEEDED"
