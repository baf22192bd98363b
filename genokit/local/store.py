"""The embedded account's memory: one SQLite file in the account's home.

Who writes what keeps it simple: clients insert (definitions, jobs, wishes to stop a job), and the supervisor alone
changes a job's status. So there is one history of each job, whoever looks."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

SCHEMA = """
create table if not exists environments (name text primary key, vcpus real, memory_mib integer, gpus integer);
create table if not exists queues (name text primary key, priority integer, environment text);
create table if not exists definitions (
    name text, revision integer, status text, doc text, primary key (name, revision));
create table if not exists jobs (
    seq integer primary key, id text unique not null, name text, queue text, status text,
    created_at integer, started_at integer, stopped_at integer, status_reason text,
    doc text,                  -- what SubmitJob resolved to; never changes
    runtime text,              -- the environment variables that the image brings; never changes
    vcpus real, memory_mib integer, gpus integer,
    attempts text default '[]',
    stop text, stop_reason text -- a client's wish: 'cancel' or 'terminate'
);
create index if not exists jobs_by_queue on jobs (queue, status, seq);
create index if not exists jobs_by_status on jobs (status, seq);
"""
LIVE = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")


class CorruptStore(Exception):
    """The account's file is not a database that this version can read."""


@contextmanager
def connect(home: Path) -> Iterator[sqlite3.Connection]:
    """A connection for one piece of work; the account is made on first use.

    Short-lived on purpose: kernels fork, run threads and are killed, and none of that can then hurt a connection.
    """
    path = home / "batch.sqlite"
    made = path.exists()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        try:
            db.execute("pragma synchronous = normal")
            if not made:
                create(db)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            raise CorruptStore(
                f"'{path}' is not a readable store of jobs ({error}). "
                "Move it aside to keep it, or start afresh with 'genokit local clean'."
            ) from error
        yield db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or none; waits for other writers."""
    db.execute("begin immediate")
    try:
        yield
    except BaseException:
        db.execute("rollback")
        raise
    db.execute("commit")


def create(db: sqlite3.Connection) -> None:
    """An account as large as this machine, with the queues that the kit's notebooks name."""
    db.execute("pragma journal_mode = wal")
    vcpus, memory_mib, gpus = machine()
    with transaction(db):
        for statement in SCHEMA.split(";\n"):
            db.execute(statement)
        db.execute("insert or ignore into environments values ('this-machine', ?, ?, ?)", (vcpus, memory_mib, gpus))
        queues = [("highPriority", 1000), ("lowPriority", 1)] + ([("gpu", 500)] if gpus else [])
        db.executemany("insert or ignore into queues values (?, ?, 'this-machine')", queues)


def machine() -> tuple[int, int, int]:
    """This machine's vCPUs, memory in MiB, and GPUs that its driver lists."""
    # Where the process may run, which a cluster or a container may have narrowed; macOS cannot say.
    vcpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    gpus = 0
    if shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=20)
        gpus = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return vcpus, memory_mib, gpus


def attempt_folder(home: Path, job_id: str, attempt: int) -> Path:
    """Where attempt number ``attempt`` (from 1) of a job lives."""
    return home / "jobs" / job_id / str(attempt)


def loads(row: sqlite3.Row, column: str) -> Any:
    return json.loads(row[column])
