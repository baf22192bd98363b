"""Notebooks as Batch jobs: what a job is given, where it leaves its results, and how they come back.

Each run has an address on S3, ``s3://bucket/notebooks/KEY``. The key is a hash of everything its results depend on,
including the notebooks before it. ``request.json`` says what to run and ``job.json`` names the job, which writes the
files of its run folder there, ``run.json`` last. So nobody has to wait for a job, the next notebook finds its inputs,
and anyone who starts the same run again gets its job or its results.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from genokit import storage
from genokit.backends import Clients
from genokit.batch import Batch, Job
from genokit.batch.listing import described
from genokit.errors import InvalidParameters, NotFound
from genokit.files import sha256, write_atomic
from genokit.pipelines import cache, crate, folders, values
from genokit.pipelines.folders import RECORD, Run
from genokit.pipelines.plan import CheckedNotebook, Queue
from genokit.pipelines.secret_values import redacted

REQUEST, JOB, ERROR = "request.json", "job.json", "error.txt"


def identified(ready: CheckedNotebook, clients: Clients, *, fresh: bool = False) -> CheckedNotebook:
    """Work out what a run depends on and, of a job, its address. With ``fresh`` the address is always a new one."""
    anew = {"asked to run anew": secrets.token_hex(8)} if ready.task.on and fresh else {}
    begun = replace(ready.begun, ingredients=cache.ingredients(ready) | anew)
    if ready.task.on:
        begun = replace(begun, address=f"s3://{clients.bucket}/notebooks/{cache.key(begun)}", process=None)
    return replace(ready, begun=begun)


def start(
    tasks: Sequence[CheckedNotebook], clients: Clients, after: Collection[str] = (), *, fresh: bool
) -> Iterator[Run]:
    """Submit tasks of one notebook as one job, an array if there are several; yields their runs, which are RUNNING.

    First it yields those whose results were restored from an identical run that succeeded, but not with ``fresh``. If a
    job for a task exists and has not failed, it is used. ``after``: ids of jobs that must succeed first.
    """
    left = []
    for one in tasks:
        begun = (ready := identified(one, clients, fresh=fresh)).begun
        stored, reason = (None, "") if fresh else find(begun, clients)
        if not stored:
            left.append(replace(ready, begun=replace(begun, reason=reason)))
        elif stored.path == begun.path:
            yield replace(collect(begun, clients), cached_from=begun.address).save()
        else:
            yield cache.restore(stored, begun, clients.settings.runs)
    with cache.only_one("jobs", clients.settings.runs, threading.Event()):
        jobs = _jobs([one.begun for one in left], clients)
        new = [one for one in left if one.begun.address not in jobs]
        if new:
            jobs |= _submit(new, clients, after)
    yield from (replace(one.begun, job=jobs[str(one.begun.address)]).save() for one in left)


def _submit(tasks: Sequence[CheckedNotebook], clients: Clients, after: Collection[str]) -> dict[str, str]:
    """Submit a job; returns its id, or that of the child of an array, by the address of each run."""
    for one in tasks:
        _request(one, clients)
    task, on = tasks[0].task, cast(Queue, tasks[0].task.on)
    batch, kind = Batch(clients), "genokit-notebook-gpu" if on.gpus else "genokit-notebook"
    known = [{"name": name, "valueFrom": arn} for name, arn in on.secrets.items()]
    definition = batch.define(
        kind,
        command=["python", "-m", "genokit.pipelines", "Ref::run"],
        image=on.image,
        gpus=on.gpus,
        container={"secrets": known} if known else None,
    )
    rows = [{"run": str(one.begun.address)} for one in tasks]
    job = batch.submit(
        definition,
        queue=on.queue,
        name=re.sub(r"[^\w-]+", "-", task.name).strip("-_")[:60] or "run",
        parameters=None if len(rows) > 1 else rows[0],
        each=rows if len(rows) > 1 else None,
        after=[Job(clients, one) for one in sorted({one.partition(":")[0] for one in after})] or None,
        code=cache.project_of(task.cwd),
        vcpus=on.vcpus,
        memory_gib=on.memory_gib,
        retry=on.retry,
        timeout_min=on.timeout_min,
        again=True,
    )
    ids = [f"{job.id}:{index}" for index in range(len(rows))] if len(rows) > 1 else [job.id]
    jobs = dict(zip([row["run"] for row in rows], ids, strict=True))
    for address, its in jobs.items():
        storage.write(storage.join(address, JOB), json.dumps({"job": its}), clients=clients)
    return jobs


def _jobs(runs: Sequence[Run], clients: Clients) -> dict[str, str]:
    """The jobs that already exist for these runs, by address. Failed jobs and deleted results do not count."""
    notes = [(run, _read(run, JOB, clients)) for run in runs]
    jobs = [(run, str(json.loads(note)["job"])) for run, note in notes if note]
    statuses = {one["jobId"]: one["status"] for one in described(clients, [job for _, job in jobs])}
    found = {}
    for run, job in jobs:
        status = statuses.get(job, "FAILED")
        if status != "FAILED" and (status != "SUCCEEDED" or _read(run, RECORD, clients) is not None):
            found[str(run.address)] = job
    return found


def _request(ready: CheckedNotebook, clients: Clients) -> None:
    """Write the request to the run's address, and upload what the job needs."""
    task, begun, project = ready.task, ready.begun, cache.project_of(ready.task.cwd)
    if not task.path.is_relative_to(project):
        raise InvalidParameters(f"{task.path} is not in {project}, the project that its job gets. Move it there.")
    needed = {address for source in ready.later.values() for address in source.notebooks}
    for run in ready.known.values():
        if run.address in needed and run.state == "SUCCEEDED" and _read(run, RECORD, clients) is None:
            upload(run.path, str(run.address), clients)  # deleted since
    files: dict[str, str] = {}

    def reachable(value: Path) -> Path:
        """A path that the job can use. Files are uploaded if jobs do not see this machine's folders."""
        path = (task.cwd / value).absolute()
        if not path.exists():
            return value
        if not clients.backend.shares_folders:
            if not path.is_file():
                raise InvalidParameters(
                    f"A job on AWS cannot see the folder {path}. Put it on S3 and give its address."
                )
            files[str(path)] = f"s3://{clients.bucket}/files/{sha256(path)}/{path.name}"
            with path.open("rb") as content:
                storage.write_if_absent(files[str(path)], content, clients=clients)
        return path

    there = replace(
        task,
        path=task.path.relative_to(project),
        cwd=task.cwd.relative_to(project),
        parameters=values.mapped(dict(begun.parameters), reachable),
        inputs=ready.later,
        on=None,
        after=(),
    )
    source = redacted(task.path.read_text(encoding="utf-8"))
    request = {"source": source, "files": files, "task": values.to_json(asdict(there))}
    storage.write(storage.join(str(begun.address), REQUEST), json.dumps(request), clients=clients)


def _read(run: Run, name: str, clients: Clients) -> bytes | None:
    try:
        return storage.read(storage.join(str(run.address), name), clients=clients)
    except NotFound:
        return None


def upload(folder: Path, address: str, clients: Clients) -> None:
    """Write the files of a run folder to its address, the record last."""
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: (file.name == RECORD, file))
    for file in files:
        storage.upload(file, storage.join(address, file.relative_to(folder).as_posix()), clients=clients)


def fetch(address: str, folder: Path, clients: Clients) -> None:
    """Write the files at the address of a run into a folder, the record last."""
    found = storage.files(address, clients=clients)
    for one in sorted(found, key=lambda one: one.endswith(f"/{RECORD}")):
        name = one.removeprefix(f"{address}/")
        if name not in (REQUEST, JOB, ERROR):
            write_atomic(folder / name, storage.read(one, clients=clients), private=True)


def look(runs: Sequence[Run], clients: Clients) -> list[Run]:
    """Look at the jobs and return the runs as they are now. The files of a run that has ended are fetched."""
    jobs = {one["jobId"]: one for one in described(clients, [str(run.job) for run in runs])}
    return [_seen(run, jobs.get(str(run.job)), clients) for run in runs]


def _seen(run: Run, job: Mapping[str, Any] | None, clients: Clients) -> Run:
    status = job["status"] if job else "FAILED"
    if status not in ("RUNNING", "SUCCEEDED", "FAILED"):
        return run
    its = _recorded(run, clients)
    if status == "RUNNING":
        return replace(run, steps=its.steps if its and its.state == "RUNNING" else ())
    if its and its.state != "RUNNING":
        return collect(run, clients)
    said = (_read(run, ERROR, clients) or b"").decode()
    error = said or f"the Batch job {run.job} ended: {(job or {}).get('statusReason', 'it is not known any more')}"
    return replace(run, state="FAILED", error=error).save()


def collect(run: Run, clients: Clients) -> Run:
    """Fetch the files of a run that has ended, and add it to the cache if it succeeded."""
    fetch(str(run.address), run.path, clients)
    its = Run.load(run.path)
    known = ("name", "source", "cwd", "ingredients", "reason", "job", "address", "process")  # better here than there
    ended = replace(
        its,
        data={**its.data, **cache.recorded(replace(its, cwd=str(run.path)), clients.settings.runs)},
        parameters={**its.parameters, **run.parameters},
        **{name: getattr(run, name) for name in known},
    ).save()
    if ended.state == "SUCCEEDED":
        cache.enter(ended, clients.settings.runs)
    crate.write_run(ended)
    return ended


def find(run: Run, clients: Clients) -> tuple[Run | None, str]:
    """Find an identical run that succeeded, in the runs folder or on S3; else return None and the reason."""
    stored, reason = cache.find(clients.settings.runs, run)
    its = _recorded(run, clients) if run.address and not stored else None
    if its and its.state == "SUCCEEDED":
        return replace(run, outputs=its.outputs, state=its.state), ""
    return stored, reason


def _recorded(run: Run, clients: Clients) -> Run | None:
    """The run as its job recorded it so far."""
    record = _read(run, RECORD, clients)
    return folders.parsed(json.loads(record), run.path) if record else None
