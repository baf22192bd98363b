"""What the account forgets: ended jobs, their events and their logs, when they are older than the settings say."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from genokit.local import store

DAY_MS = 24 * 3600 * 1000


def prune(db: sqlite3.Connection, home: Path, days: float) -> None:
    """Forget what ended more than ``days`` days ago. A job that has not ended keeps all that is its own."""
    before = store.now() - round(days * DAY_MS)
    old = "select id from jobs where parent is null and stopped_at < ?"
    with store.transaction(db):
        db.execute(f"delete from dependencies where job in ({old})", (before,))
        db.execute(f"delete from jobs where parent in ({old})", (before,))
        db.execute("delete from jobs where parent is null and stopped_at < ?", (before,))
        db.execute("delete from events where at < ?", (before,))
    # The folders stay, empty or not: a keeper may be about to write into them.
    for folder, _, files in os.walk(home / "logs"):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(os.path.join(folder, name)).st_mtime * 1000 < before:
                    os.unlink(os.path.join(folder, name))
