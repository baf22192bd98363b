"""What the account forgets: ended jobs, their events and their logs, when they are older than the settings say."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from genokit.local import store
from genokit.local.engine import log_file

DAY_MS = 24 * 3600 * 1000


def prune(db: sqlite3.Connection, home: Path, days: float) -> None:
    """Forget what had ended more than ``days`` days before the account was last used, today not counted.

    So a clock that is wrong by years makes it forget nothing, unless it stays wrong. A job that has not ended keeps all
    that is its own.
    """
    with store.transaction(db):
        used = db.execute("select max(at) from events where at < ?", (store.now() - DAY_MS,)).fetchone()[0]
        before = (used or 0) - round(days * DAY_MS)
        old = "select id from jobs where parent is null and stopped_at < ?"
        streams = (
            "select json_extract(one.value, '$.container.logStreamName') from jobs, "
            "json_each(iif(json_valid(attempts), attempts, '[]')) one "
            f"where jobs.id in ({old}) or jobs.parent in ({old})"
        )
        # First the logs: what is interrupted is found again by its jobs.
        for (name,) in db.execute(streams, (before, before)).fetchall():
            file = log_file.path(home, str(name))
            if file:
                file.unlink(missing_ok=True)
        db.execute(f"delete from dependencies where job in ({old})", (before,))
        db.execute(f"delete from jobs where parent in ({old})", (before,))
        db.execute("delete from jobs where parent is null and stopped_at < ?", (before,))
        db.execute("delete from events where at < ?", (before,))
