"""A job as a task of GA4GH's Task Execution Service 1.1, and a task as a job.

>>> from genokit import Batch
>>> from genokit.batch import tes
>>> batch = Batch()
>>> task = {"name": "hello", "executors": [{"image": "genokit", "command": ["echo", "hello"]}]}
>>> job = tes.from_tes(batch, task).wait()
>>> tes.to_tes(job)["state"], tes.to_tes(job)["executors"] == [{**task["executors"][0], "env": {}}]
('COMPLETE', True)

TES has one container image and command for each step, files to stage, and resources. It has no arrays and no
dependencies, and Batch stages no files, so these are refused in either direction. What TES has no name for is in
``backend_parameters``: vcpus (TES counts whole cores), gpus, timeout_s and attempts.

https://ga4gh.github.io/task-execution-schemas/
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from genokit.batch import requirements
from genokit.batch.job import Job
from genokit.batch.service import Batch
from genokit.errors import InvalidRequest

GB, MIB, GIB = 1e9, 2**20, 2**30
STATES = {
    "SUBMITTED": "QUEUED",
    "PENDING": "QUEUED",
    "RUNNABLE": "QUEUED",
    "STARTING": "INITIALIZING",
    "RUNNING": "RUNNING",
    "SUCCEEDED": "COMPLETE",
}
BEYOND = {
    "arrayProperties": "is an array",
    "nodeProperties": "has several nodes",
    "dependsOn": "depends on other jobs",
    "ecsProperties": "has several containers",
    "eksProperties": "runs on EKS",
}
OWN = "genokit:"  # tags of the kit, which another service has no use for
# Fields of a task and of its executor that say what the command finds or leaves, and that Batch has not.
STAGED = ("inputs", "outputs", "volumes")
REDIRECTED = ("workdir", "stdin", "stdout", "stderr", "ignore_error")
BACKEND = ("vcpus", "gpus", "timeout_s", "attempts")


def to_tes(job: Job) -> dict[str, Any]:
    """Describe a job as a TES task, with its state and attempts.

    The command has its parameters filled in. The environment is part of the task: look for secrets before you send it.

    Parameters
    ----------
    job : Job
        A job of one container.

    Returns
    -------
    dict
        The task, as TES's JSON.

    Raises
    ------
    InvalidRequest
        The job is an array, has several nodes or containers, or depends on other jobs.
    """
    one = job.refresh().detail
    for member, words in BEYOND.items():
        if one.get(member) and not (member == "arrayProperties" and "index" in one[member]):  # a child is one job
            hint = " Export its children: job.child(0)." if member == "arrayProperties" else ""
            raise InvalidRequest(f"The job '{job.name}' {words}, which a TES task cannot say.{hint}")
    container, asked = one["container"], requirements.capacity(one["container"])
    if asked is None:
        raise InvalidRequest(f"The job '{job.name}' does not say its vCPUs and memory, so it cannot be a TES task.")
    further = {
        "vcpus": f"{asked.vcpus:g}",
        "gpus": str(asked.gpus) if asked.gpus else None,
        "timeout_s": one.get("timeout", {}).get("attemptDurationSeconds"),
        "attempts": one.get("retryStrategy", {}).get("attempts"),
    }
    return {
        "id": job.id,
        "name": one["jobName"],
        "state": _state(one),
        "creation_time": _time(one["createdAt"]),
        "executors": [
            {
                "image": container["image"],
                "command": container.get("command", []),
                "env": {pair["name"]: pair["value"] for pair in container.get("environment", [])},
            }
        ],
        "resources": {
            "cpu_cores": math.ceil(asked.vcpus),
            "ram_gb": asked.memory_mib * MIB / GB,
            "backend_parameters": {name: str(value) for name, value in further.items() if value is not None},
        },
        "tags": {name: value for name, value in one.get("tags", {}).items() if not name.startswith(OWN)},
        "logs": [_log(attempt) for attempt in one.get("attempts", [])],
    }


def from_tes(batch: Batch, task: Mapping[str, Any], *, queue: str = "highPriority") -> Job:
    """Submit a TES task as a job.

    ``disk_gb``, ``zones`` and ``preemptible`` are left to the queue. Without ``resources`` a job gets 1 vCPU and 2 GiB.

    Parameters
    ----------
    batch : Batch
        Where to submit it.
    task : mapping
        The task, as TES's JSON. What a service fills in, such as ``id`` and ``logs``, is left out.
    queue : str, default "highPriority"
        The job queue.

    Returns
    -------
    Job
        The job, which is new in any case.

    Raises
    ------
    InvalidRequest
        The task has several executors, stages files, redirects streams, has words where numbers are needed, or has
        backend parameters that are not known although it says that they must be.
    """
    executors = task.get("executors") if isinstance(task, Mapping) else None
    if not isinstance(executors, list) or len(executors) != 1 or not {"image", "command"} <= {*executors[0]}:
        raise InvalidRequest("A job has one container: 'executors' must be a list of one, with 'image' and 'command'.")
    (executor,) = executors
    for where, names in ((task, STAGED), (executor, REDIRECTED)):
        if found := [name for name in names if where.get(name)]:
            raise InvalidRequest(
                f"The task has '{found[0]}', which Batch does not do. Let the command fetch its files from S3, write "
                "its results there, and redirect its streams."
            )
    asked = task.get("resources") or {}
    given = (asked.get("backend_parameters") or {}).items()
    further = {name: _number(name, value) for name, value in given if name in BACKEND}
    unknown = sorted({*(asked.get("backend_parameters") or {})} - {*BACKEND})
    if unknown and asked.get("backend_parameters_strict"):
        raise InvalidRequest(f"The backend parameter '{unknown[0]}' is not known. Known: {', '.join(BACKEND)}.")
    if words := [word for word in executor["command"] if str(word).startswith("Ref::")]:
        raise InvalidRequest(
            f"The word '{words[0]}' of the command would be a parameter of Batch. Write it differently."
        )
    cores, memory = further.get("vcpus", asked.get("cpu_cores", 1)), asked.get("ram_gb")
    name = re.sub(r"[^\w-]+", "-", str(task.get("name") or "tes")).strip("-_")[:100] or "tes"
    definition = batch.define(
        name,
        command=executor["command"],
        image=executor["image"],
        vcpus=cores,
        memory_gib=2 if memory is None else round(_number("ram_gb", memory) * GB / MIB) * MIB / GIB,
        gpus=int(further.get("gpus", 0)),
        environment=executor.get("env"),
        timeout_min=further["timeout_s"] / 60 if "timeout_s" in further else None,
        retry=int(further["attempts"]) if "attempts" in further else None,
    )
    return batch.submit(definition, queue=queue, tags=task.get("tags") or {}, again=True)


def _number(name: str, value: object) -> float:
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise InvalidRequest(f"'{name}' must be a number, got {value!r}.")
    return found


def _state(one: Mapping[str, Any]) -> str:
    if one["status"] != "FAILED":
        return STATES[one["status"]]
    if one.get("isCancelled") or one.get("isTerminated"):
        return "CANCELED"
    if "exitCode" in one.get("container", {}):
        return "EXECUTOR_ERROR"
    return "PREEMPTED" if one.get("statusReason", "").startswith("Host EC2") else "SYSTEM_ERROR"


def _log(attempt: Mapping[str, Any]) -> dict[str, Any]:
    times = {"start_time": attempt.get("startedAt"), "end_time": attempt.get("stoppedAt")}
    when = {name: _time(value) for name, value in times.items() if value}
    code = attempt.get("container", {}).get("exitCode")
    reason = {"system_logs": [attempt["statusReason"]]} if attempt.get("statusReason") else {}
    return {**when, **reason, "logs": [] if code is None else [{**when, "exit_code": code}], "outputs": []}


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
