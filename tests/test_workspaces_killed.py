"""Ten writers at once, killed at random: nothing acknowledged is lost, nothing is half visible, the chain is intact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genokit import Settings, Workspace


@pytest.mark.parametrize(("where", "kills"), [("a folder", 15), ("S3", 3)])
def test_ten_writers_killed_at_random_lose_nothing_and_leave_nothing_half(account, tmp_path, where, kills):
    address = str(tmp_path / "lab") if where == "a folder" else "s3://genokit/lab"
    ws = Workspace.create(address, "anna", settings=account)
    notes = tmp_path / "notes"
    notes.mkdir()
    script = Path(__file__).with_name("workspace_writers.py")
    done = subprocess.run(
        [sys.executable, script, address, notes, str(kills), "7"],
        env={**os.environ, **account.environ()}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    acknowledged = [line for note in notes.iterdir() if note.is_file() for line in note.read_text().splitlines()]
    fresh = Workspace(address, "anna", settings=Settings(home=account.home, cache=tmp_path / "cache"))
    audit = fresh.audit()
    assert audit.damage == []
    assert [one.number for one in audit.entries] == list(range(1, len(audit.entries) + 1))
    written = [f"granted {one['who']}" for one in fresh.entries("granted")]
    written += [f"published {one['name']}@{one['version']}" for one in fresh.entries("published")]
    assert {*acknowledged} <= {*written}
    assert len(written) == len({*written}) == len(audit.entries) - 1
    # Of each writer, at most the one entry that it was killed at was written and not acknowledged.
    assert len(written) - len(acknowledged) <= kills + 10

    listed = fresh.datasets()["dataset"].tolist()
    for ref in listed:  # visible only once all of it is there
        assert fresh.fetch(ref, progress=False)["rows"].read_text().count("\n") == 1000
    assert listed
    assert ws.grant("zoe", "viewer").audit().intact
