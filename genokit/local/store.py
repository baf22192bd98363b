"""The embedded account's memory: one SQLite file in the account's home.

Who writes what keeps it simple: clients insert (definitions, jobs, wishes to stop a job), and the supervisor alone
changes a job's status. So there is one history of each job, whoever looks; triggers keep it as events.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from genokit.config import check_home, cpus, private_home
from genokit.errors import GenokitError
from genokit.files import restrict

SCHEMA = Path(__file__).with_name("schema.sql")
WAITING = ("SUBMITTED", "PENDING", "RUNNABLE")
LIVE = (*WAITING, "STARTING", "RUNNING")
IS_LIVE = f"status in {LIVE}"  # in SQL
VERSION = 5


class UnusableStore(GenokitError):
    """The account's folder cannot be read or written: it is read-only, or its disk is full."""


class CorruptStore(UnusableStore):
    """The account's file is not a database that this version can read, or is damaged."""


class CorruptRecord(CorruptStore):
    """One record of the account's file is damaged."""


@contextmanager
def connect(home: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one piece of work; the account is made on first use.

    Short-lived on purpose: kernels fork, run threads and are killed, and none of that can then hurt a connection.
    """
    try:
        db = _open(home)
    except (OSError, sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise unusable(home, error) from error
    with closing(db):
        try:
            yield db
        except sqlite3.ProgrammingError:
            raise
        except CorruptRecord:  # the first caller learns of it; then the others go on
            with suppress(sqlite3.DatabaseError):
                mend(db)
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter from texts of a damaged file
            raise unusable(home, error) from error


def _open(home: Path) -> sqlite3.Connection:
    path = home / "batch.sqlite"
    if path.exists():
        check_home(home)
    else:
        private_home(home)
        create(path)
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=60, isolation_level=None)
    try:
        restrict(path)  # jobs' environments are in it; what SQLite puts beside it gets its mode
        restrict(home)  # which older versions left open
        db.row_factory = sqlite3.Row
        version = db.execute("pragma user_version").fetchone()[0]
        if version != VERSION:
            is_empty = not db.execute("select count(*) from sqlite_master").fetchone()[0]
            other = f"it was written by another version of genokit: {version}, not {VERSION}"
            raise sqlite3.DatabaseError("it is empty" if is_empty else other)
    except BaseException:
        db.close()
        raise
    return db


def unusable(home: Path, error: Exception) -> UnusableStore:
    """The error for an account folder or file that cannot be opened."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    # Other operational errors come from a file without the tables or texts that it should have.
    if isinstance(error, OSError) or (isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR):
        return UnusableStore(
            f"The embedded account in '{home}' cannot be used: {error}. Nothing was changed. Check that the folder is "
            "writable and that the disk has space, or set GENOKIT_HOME to another folder."
        )
    return CorruptStore(
        f"'{home / 'batch.sqlite'}' is not a readable store of jobs ({error}). "
        "Move it elsewhere to keep it, or start afresh with 'genokit local clean'."
    )


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or none; waits for other writers."""
    db.execute("begin immediate")
    try:
        yield
    except BaseException:
        if db.in_transaction:  # a full disk may have ended it
            db.execute("rollback")
        raise
    db.execute("commit")


def create(path: Path) -> None:
    """An account as large as this machine, with the queues that the kit's notebooks name.

    It is there whole or not at all: an empty file is no new account, but one that has lost its jobs.
    """
    new = path.with_suffix(".new")
    vcpus, memory_mib, gpus = machine()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if path.exists():
            return  # another process was faster
        new.unlink(missing_ok=True)
        new.touch(0o600)  # what SQLite puts beside it gets its mode
        with closing(sqlite3.connect(new, isolation_level=None)) as db:
            db.executescript(f"begin; {SCHEMA.read_text()} pragma user_version = {VERSION};")
            # Other clients expect a managed environment: Metaflow reads ``computeResources``.
            resources = {"type": "EC2", "minvCpus": 0, "maxvCpus": vcpus, "subnets": []}
            doc = {"state": "ENABLED", "tags": {}, "type": "MANAGED", "computeResources": resources}
            environment = ("this-machine", json.dumps(doc), vcpus, memory_mib, gpus)
            db.execute("insert into environments values (?, ?, ?, ?, ?)", environment)
            for name, priority in [("highPriority", 1000), ("lowPriority", 1)] + ([("gpu", 500)] if gpus else []):
                doc = {"state": "ENABLED", "computeEnvironmentOrder": ["this-machine"], "tags": {}}
                db.execute("insert into queues values (?, ?, ?)", (name, priority, json.dumps(doc)))
            db.execute("commit")
            db.execute("pragma journal_mode = wal")
        new.replace(path)
    finally:
        os.close(folder)


@functools.cache
def machine() -> tuple[int, int, int]:
    """This machine's vCPUs, memory in MiB, and GPUs that its driver lists."""
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    gpus = 0
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=20)
        gpus = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return cpus(), memory_mib, gpus


def marks(values: Sequence[object]) -> str:
    """As many placeholders as there are values.

    >>> marks(("a", "b"))
    '?, ?'
    """
    return ", ".join("?" * len(values))


@functools.lru_cache(maxsize=64)
def document(db: sqlite3.Connection, job_id: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What a job, not a child of one, resolved to when it was submitted, and the variables of its image."""
    row = db.execute("select doc, runtime from jobs where id = ?", (job_id,)).fetchone()
    return loads(row, "doc"), loads(row, "runtime")


def loads(row: sqlite3.Row, column: str) -> Any:
    """A column parsed as JSON. Raises CorruptRecord if it is not valid JSON."""
    try:
        return json.loads(row[column])
    except (TypeError, ValueError) as error:
        name = next((row[key] for key in ("id", "name") if key in row.keys()), "?")  # noqa: SIM118
        raise CorruptRecord(
            f"The embedded account's record of '{name}' is damaged: '{column}' is not valid JSON ({error}). Damaged "
            "jobs and definitions are set aside: try again. If the error stays, run 'genokit local clean'."
        ) from error


def mend(db: sqlite3.Connection) -> None:
    """Set aside what is damaged of jobs and definitions, so that the others go on.

    A job that had not ended is to fail with that reason; of one that had, what is damaged is forgotten.
    """
    doc = {
        "definition": ["damaged", 1], "parameters": {}, "tags": {}, "propagateTags": False, "dependsOn": [],
        "retryStrategy": {"attempts": 1}, "container": {"image": "genokit", "resourceRequirements": []},
    }  # fmt: skip
    sound = " and ".join(f"json_valid(coalesce({one}, '0'))" for one in ("attempts", "gpu_ids", "doc", "runtime"))
    with transaction(db):
        for (job_id,) in db.execute(f"select id from jobs where not ({sound})").fetchall():
            db.execute(
                "update jobs set attempts = '[]', gpu_ids = '[]', kind = null, size = null, "
                "doc = iif(parent is null, :doc, null), runtime = iif(parent is null, '{}', null), "
                f"status = iif({IS_LIVE}, 'RUNNABLE', status), stop = iif({IS_LIVE}, 'terminate', stop), "
                f"stop_reason = iif({IS_LIVE}, 'The account''s record of this job is damaged.', stop_reason) "
                "where id = :id or parent = :id",
                {"doc": json.dumps(doc), "id": job_id},
            )
        db.execute("delete from definitions where not json_valid(doc)")


def deaths(home: Path) -> list[str]:
    """Why the account's supervisor has died, time after time, since one last did its work."""
    try:
        with open(f"{home}/deaths", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def now() -> int:
    """Milliseconds since 1970, as AWS counts."""
    return time.time_ns() // 1_000_000
