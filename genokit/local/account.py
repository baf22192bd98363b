"""An embedded account seen from outside: is it at work, stop it, clear it away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from genokit.errors import GenokitError
from genokit.local import keeper, store


@dataclass(frozen=True)
class Account:
    """The embedded account in the folder ``home``.

    >>> from genokit.config import Settings
    >>> Account(Settings().home / "nobody-has-this").status()["supervisor"] is None
    True
    """

    home: Path

    def status(self) -> dict[str, object]:
        """What the account holds: the supervisor's process number (None where none runs), jobs by status, bytes on
        disk."""
        jobs: dict[str, int] = {}
        if (self.home / "batch.sqlite").exists():
            with store.connect(self.home) as db:
                jobs = dict(map(tuple, db.execute("select status, count(*) from jobs group by status order by status")))
        sizes = (os.lstat(file).st_size for file in self.home.rglob("*") if file.is_file())
        return {"home": self.home, "supervisor": self._supervisor(), "jobs": jobs, "bytes": sum(sizes)}

    def stop(self, *, timeout_s: float = 40.0) -> None:
        """Terminate what runs, cancel what waits, and let the supervisor go. Raises GenokitError where that takes too
        long."""
        if not (self.home / "batch.sqlite").exists():
            return
        live = f"status in ({', '.join('?' * len(store.LIVE))})"
        with store.connect(self.home) as db, store.transaction(db):
            wish = "update jobs set stop = 'terminate', stop_reason = 'The embedded account was stopped.' where " + live
            db.execute(wish, store.LIVE)
        deadline = time.monotonic() + timeout_s
        while keeper.wake(self.home / "wake") and time.monotonic() < deadline:
            with store.connect(self.home) as db:
                if not db.execute("select 1 from jobs where " + live, store.LIVE).fetchone():
                    break
            time.sleep(0.02)
        supervisor = self._supervisor()
        if supervisor:
            with contextlib.suppress(ProcessLookupError):
                os.kill(supervisor, signal.SIGTERM)
        while self._supervisor():
            if time.monotonic() > deadline:
                raise GenokitError(
                    f"The embedded account in '{self.home}' did not stop within {timeout_s:g} s: process {supervisor} "
                    f"is still there. Look into '{self.home / 'supervisor.log'}', or end it with: kill -9 {supervisor}"
                )
            time.sleep(0.02)

    def clean(self) -> None:
        """Stop the account and remove its jobs, definitions and logs. Fetched data and trained models stay."""
        self.stop()
        for name in ("jobs", "logs"):
            shutil.rmtree(self.home / name, ignore_errors=True)
        for name in (
            "batch.sqlite",
            "batch.sqlite-wal",
            "batch.sqlite-shm",
            "supervisor.lock",
            "supervisor.log",
            "wake",
        ):
            (self.home / name).unlink(missing_ok=True)

    def _supervisor(self) -> int | None:
        try:
            lock = os.open(self.home / "supervisor.lock", os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.pread(lock, 32, 0) or 0)
        finally:
            os.close(lock)
        return None
