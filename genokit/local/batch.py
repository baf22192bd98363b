"""The embedded AWS Batch, in boto3's shape: it takes the requests and answers from the store; the supervisor does the
work."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import genokit
from genokit.local import keeper, store
from genokit.local.shapes import client_error, operation, unsupported

ARN = "arn:aws:batch:local:000000000000"
IMAGE = "genokit"  # jobs of this image run in the Python environment that submitted them
STATUSES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")  # of jobs and job definitions, as the SubmitJob page has it


class EmbeddedBatch:
    """Answers as ``boto3.client("batch")`` does, and runs the jobs on this machine.

    What it keeps of AWS Batch: the names, the order and the meaning of the statuses, definitions with revisions,
    ``Ref::`` parameters, overrides, queues with priorities, environments with a size, timeouts, cancel and terminate,
    log streams. What it cannot: a job of image ``genokit`` is a process of this user, with no walls of a container or
    of IAM around it.

    https://docs.aws.amazon.com/batch/latest/APIReference/
    """

    def __init__(self, home: Path, job_environment: dict[str, str]) -> None:
        self._home = home
        self._job_environment = job_environment

    def __getattr__(self, name: str) -> Any:
        raise unsupported("batch", name)

    # --- definitions

    @operation("batch")
    def register_job_definition(self, **request: Any) -> dict[str, Any]:
        """A new revision of the definition, from 1 on."""
        name = _name("RegisterJobDefinition", "jobDefinitionName", request["jobDefinitionName"])
        if request["type"] != "container" or "containerProperties" not in request:
            message = f"jobDefinition '{name}': the embedded account takes type 'container' with containerProperties"
            raise client_error("RegisterJobDefinition", message)
        container = request["containerProperties"]
        if not container.get("image"):
            raise client_error("RegisterJobDefinition", f"jobDefinition '{name}': containerProperties.image is missing")
        _resources("RegisterJobDefinition", container)
        _timeout("RegisterJobDefinition", request.get("timeout"))
        with store.connect(self._home) as db, store.transaction(db):
            newest = db.execute("select max(revision) from definitions where name = ?", (name,)).fetchone()[0] or 0
            doc = {**request, "containerOrchestrationType": "ECS"}
            db.execute("insert into definitions values (?, ?, 'ACTIVE', ?)", (name, newest + 1, json.dumps(doc)))
        arn = _definition_arn(name, newest + 1)
        return {"jobDefinitionName": name, "jobDefinitionArn": arn, "revision": newest + 1}

    @operation("batch")
    def describe_job_definitions(self, **request: Any) -> dict[str, Any]:
        """Definitions by name, by ``name:revision`` or ARN, by status; newest revision first."""
        wanted = [_split_definition(reference) for reference in request.get("jobDefinitions", [])]
        if "jobDefinitionName" in request:
            wanted.append((request["jobDefinitionName"], None))
        with store.connect(self._home) as db:
            rows = db.execute("select * from definitions order by name, revision desc").fetchall()
        found = [
            {
                **store.loads(row, "doc"),
                "jobDefinitionArn": _definition_arn(row["name"], row["revision"]),
                "revision": row["revision"],
                "status": row["status"],
            }
            for row in rows
            if request.get("status", row["status"]) == row["status"]
            and (
                not wanted
                or any(row["name"] == name and revision in (None, row["revision"]) for name, revision in wanted)
            )
        ]
        return _page("DescribeJobDefinitions", "jobDefinitions", found, request)

    # --- jobs

    @operation("batch")
    def submit_job(self, **request: Any) -> dict[str, Any]:
        """A new job in SUBMITTED; the supervisor starts it when there is room."""
        for member in (
            "arrayProperties",
            "dependsOn",
            "nodeOverrides",
            "retryStrategy",
            "eksPropertiesOverride",
            "shareIdentifier",
        ):
            if request.get(member):
                raise client_error("SubmitJob", f"{member}: the embedded account does not offer this yet")
        name = _name("SubmitJob", "jobName", request["jobName"])
        queue = request["jobQueue"].rpartition("/")[2]
        job_id = str(uuid.uuid4())
        with store.connect(self._home) as db, store.transaction(db):
            if not db.execute("select 1 from queues where name = ?", (queue,)).fetchone():
                raise client_error("SubmitJob", f"JobQueue {request['jobQueue']} not found.")
            definition_name, revision, definition = _active(db, request["jobDefinition"])
            doc = _resolve(request, definition) | {"definition_name": definition_name, "revision": revision}
            resources = _resources("SubmitJob", doc)
            db.execute(
                "insert into jobs (id, name, queue, status, created_at, doc, runtime, vcpus, memory_mib, gpus) "
                "values (?, ?, ?, 'SUBMITTED', ?, ?, ?, ?, ?, ?)",
                (job_id, name, queue, _now(), json.dumps(doc), json.dumps(self._runtime()), *resources),
            )
        self._wake("SubmitJob")
        return {"jobArn": f"{ARN}:job/{job_id}", "jobName": name, "jobId": job_id}

    @operation("batch")
    def describe_jobs(self, **request: Any) -> dict[str, Any]:
        """Up to 100 jobs; ids that the account does not know are left out, as on AWS."""
        ids = request["jobs"]
        if len(ids) > 100:
            raise client_error("DescribeJobs", f"jobs: {len(ids)} ids, at most 100 are allowed")
        with store.connect(self._home) as db:
            marks = ", ".join("?" * len(ids))
            rows = {row["id"]: row for row in db.execute(f"select * from jobs where id in ({marks})", ids)}
        if any(row["status"] in store.LIVE for row in rows.values()):
            self._wake("DescribeJobs", news=b"")
        return {"jobs": [_detail(rows[job_id]) for job_id in dict.fromkeys(ids) if job_id in rows]}

    @operation("batch")
    def list_jobs(self, **request: Any) -> dict[str, Any]:
        """Jobs of a queue in one status, RUNNING where none is named, newest first."""
        if "jobQueue" not in request:
            raise client_error("ListJobs", "jobQueue: the embedded account lists jobs by queue")
        if request.get("filters"):
            raise client_error("ListJobs", "filters: the embedded account does not offer this yet")
        queue, status = request["jobQueue"].rpartition("/")[2], request.get("jobStatus", "RUNNING")
        with store.connect(self._home) as db:
            if not db.execute("select 1 from queues where name = ?", (queue,)).fetchone():
                raise client_error("ListJobs", f"JobQueue {request['jobQueue']} not found.")
            rows = db.execute(
                "select * from jobs where queue = ? and status = ? order by seq desc", (queue, status)
            ).fetchall()
        if status in store.LIVE and rows:
            self._wake("ListJobs", news=b"")
        details = (_detail(row) for row in rows)
        kept = (
            "jobArn",
            "jobId",
            "jobName",
            "createdAt",
            "status",
            "statusReason",
            "startedAt",
            "stoppedAt",
            "jobDefinition",
        )
        summaries = [{key: detail[key] for key in kept if key in detail} for detail in details]
        return _page("ListJobs", "jobSummaryList", summaries, request)

    @operation("batch")
    def cancel_job(self, **request: Any) -> dict[str, Any]:
        """A job that has not started will FAIL with the reason; one that has goes on."""
        return self._stop("CancelJob", "cancel", request, ("SUBMITTED", "PENDING", "RUNNABLE"))

    @operation("batch")
    def terminate_job(self, **request: Any) -> dict[str, Any]:
        """A job that has not ended will FAIL with the reason: its process gets SIGTERM, and 30 s later SIGKILL."""
        return self._stop("TerminateJob", "terminate", request, store.LIVE)

    def _stop(
        self, operation_name: str, wish: str, request: dict[str, Any], statuses: tuple[str, ...]
    ) -> dict[str, Any]:
        marks = ", ".join("?" * len(statuses))
        with store.connect(self._home) as db, store.transaction(db):
            if not db.execute("select 1 from jobs where id = ?", (request["jobId"],)).fetchone():
                raise client_error(operation_name, f"Job {request['jobId']} not found.")
            db.execute(
                f"update jobs set stop = ?, stop_reason = ? where id = ? and status in ({marks})",
                (wish, request["reason"], request["jobId"], *statuses),
            )
        self._wake(operation_name)
        return {}

    # --- queues and environments

    @operation("batch")
    def describe_job_queues(self, **request: Any) -> dict[str, Any]:
        """The account's job queues."""
        wanted = [reference.rpartition("/")[2] for reference in request.get("jobQueues", [])]
        with store.connect(self._home) as db:
            rows = db.execute("select * from queues order by priority desc").fetchall()
        queues = [
            {
                "jobQueueName": row["name"],
                "jobQueueArn": f"{ARN}:job-queue/{row['name']}",
                "state": "ENABLED",
                "status": "VALID",
                "statusReason": "JobQueue Healthy",
                "priority": row["priority"],
                "computeEnvironmentOrder": [
                    {"order": 1, "computeEnvironment": f"{ARN}:compute-environment/{row['environment']}"}
                ],
            }
            for row in rows
            if not wanted or row["name"] in wanted
        ]
        return _page("DescribeJobQueues", "jobQueues", queues, request)

    @operation("batch")
    def describe_compute_environments(self, **request: Any) -> dict[str, Any]:
        """The account's compute environment: this machine."""
        with store.connect(self._home) as db:
            rows = db.execute("select * from environments").fetchall()
        environments = [
            {
                "computeEnvironmentName": row["name"],
                "computeEnvironmentArn": f"{ARN}:compute-environment/{row['name']}",
                "ecsClusterArn": "",
                "type": "UNMANAGED",
                "state": "ENABLED",
                "status": "VALID",
                "statusReason": f"{row['vcpus']:g} vCPU, {row['memory_mib']} MiB, {row['gpus']} GPU of this machine",
                "unmanagedvCpus": int(row["vcpus"]),
            }
            for row in rows
        ]
        return _page("DescribeComputeEnvironments", "computeEnvironments", environments, request)

    # --- the supervisor

    def _runtime(self) -> dict[str, str]:
        """What the image ``genokit`` sets: this Python environment first on the path, and nothing of the caller's
        own."""
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": f"{Path(sys.executable).parent}:{system}",
            "PYTHONPATH": str(Path(genokit.__file__).resolve().parent.parent),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            **self._job_environment,
        }

    def _wake(self, operation_name: str, news: bytes = b"!") -> None:
        """Tell the supervisor that there is news; start one where none listens."""
        if keeper.wake(self._home / "wake", news):
            return
        command = [sys.executable, "-m", "genokit.local.supervisor", str(self._home)]
        started = subprocess.run(
            command,
            cwd=self._home,
            env=self._runtime(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if started.returncode:
            message = f"The embedded account in '{self._home}' has no supervisor: {started.stderr.strip()}"
            raise client_error(operation_name, message, "ServerException")


# --- pure functions


def _name(operation_name: str, member: str, value: str) -> str:
    if not NAME.fullmatch(value):
        message = (
            f"{member}: '{value}' must be 1 to 128 letters, digits, hyphens and underscores, a letter or digit first"
        )
        raise client_error(operation_name, message)
    return value


def _timeout(operation_name: str, timeout: dict[str, int] | None) -> None:
    if timeout and timeout.get("attemptDurationSeconds", 60) < 60:
        message = f"timeout.attemptDurationSeconds: {timeout['attemptDurationSeconds']} is less than 60"
        raise client_error(operation_name, message)


def _definition_arn(name: str, revision: int) -> str:
    return f"{ARN}:job-definition/{name}:{revision}"


def _split_definition(reference: str) -> tuple[str, int | None]:
    name, _, revision = reference.rpartition("/")[2].partition(":")
    return name, int(revision) if revision.isdecimal() else None


def _active(db: sqlite3.Connection, reference: str) -> tuple[str, int, dict[str, Any]]:
    """The definition that a reference means: its newest active revision where it names none."""
    name, revision = _split_definition(reference)
    row = db.execute(
        "select * from definitions where name = ? and revision = coalesce(?, revision) and status = 'ACTIVE' "
        "order by revision desc",
        (name, revision),
    ).fetchone()
    if row is None:
        raise client_error("SubmitJob", f"Job Definition {reference} not found or not active.")
    return name, row["revision"], store.loads(row, "doc")


def _resolve(request: dict[str, Any], definition: dict[str, Any]) -> dict[str, Any]:
    """What will run: the definition, with the request's overrides and parameters put in."""
    container, overrides = definition["containerProperties"], request.get("containerOverrides", {})
    parameters = {**definition.get("parameters", {}), **request.get("parameters", {})}
    command = overrides.get("command") or container.get("command", [])
    if not command:
        message = f"jobDefinition {request['jobDefinition']}: neither it nor containerOverrides names a command"
        raise client_error("SubmitJob", message)
    timeout = request.get("timeout") or definition.get("timeout")
    _timeout("SubmitJob", timeout)
    environment = {pair["name"]: pair["value"] for pair in container.get("environment", [])}
    environment |= {pair["name"]: pair["value"] for pair in overrides.get("environment", [])}
    reserved = sorted(name for name in environment if name.startswith("AWS_BATCH"))
    if reserved:
        raise client_error(
            "SubmitJob", f"environment: '{reserved[0]}' begins with AWS_BATCH, which is the service's own"
        )
    requirements = {one["type"]: one["value"] for one in _requirements(container)}
    requirements |= {one["type"]: one["value"] for one in _requirements(overrides)}
    return {
        "image": container["image"],
        "command": [substitute(token, parameters) for token in command],
        "environment": [{"name": name, "value": value} for name, value in environment.items()],
        "resourceRequirements": [{"type": kind, "value": value} for kind, value in requirements.items()],
        "parameters": parameters,
        "tags": request.get("tags", {}),
    } | ({"timeout_s": timeout["attemptDurationSeconds"]} if timeout else {})


def substitute(token: str, parameters: dict[str, str]) -> str:
    """A word of a command, with its parameter put in; a name without a value stays as it is, as on AWS.

    >>> substitute("Ref::reads", {"reads": "a.fq"}), substitute("Ref::x", {}), substitute("--reads", {"reads": "a.fq"})
    ('a.fq', 'Ref::x', '--reads')
    """
    return parameters.get(token.removeprefix("Ref::"), token) if token.startswith("Ref::") else token


def _requirements(container: dict[str, Any]) -> list[dict[str, str]]:
    old = [("VCPU", "vcpus"), ("MEMORY", "memory")]  # the members that resourceRequirements replaced, still accepted
    return [{"type": kind, "value": str(container[member])} for kind, member in old if member in container] + list(
        container.get("resourceRequirements", [])
    )


def _resources(operation_name: str, container: dict[str, Any]) -> tuple[float, int, int]:
    """vCPUs, MiB of memory and GPUs that a container asks for."""
    asked = {one["type"]: one["value"] for one in _requirements(container)}
    for kind in ("VCPU", "MEMORY"):
        if kind not in asked:
            raise client_error(operation_name, f"resourceRequirements: {kind} is missing")
    try:
        vcpus, memory_mib, gpus = float(asked["VCPU"]), int(asked["MEMORY"]), int(asked.get("GPU", "0"))
    except ValueError as error:
        raise client_error(operation_name, f"resourceRequirements: {error}") from None
    if vcpus <= 0 or memory_mib < 4 or gpus < 0:
        raise client_error(
            operation_name, "resourceRequirements: VCPU must be above 0, MEMORY at least 4 (MiB), GPU at least 0"
        )
    return vcpus, memory_mib, gpus


def _detail(row: sqlite3.Row) -> dict[str, Any]:
    """A job as DescribeJobs tells it."""
    doc, attempts = store.loads(row, "doc"), store.loads(row, "attempts")
    running = row["status"] not in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING")
    newest = attempts[-1]["container"] if attempts and running else {}
    container = {key: doc[key] for key in ("image", "command", "environment", "resourceRequirements")} | newest
    detail = {
        "jobArn": f"{ARN}:job/{row['id']}",
        "jobId": row["id"],
        "jobName": row["name"],
        "jobQueue": f"{ARN}:job-queue/{row['queue']}",
        "jobDefinition": _definition_arn(doc["definition_name"], doc["revision"]),
        "status": row["status"],
        "createdAt": row["created_at"],
        "attempts": [{k: v for k, v in one.items() if k != "gpus"} for one in attempts if "stoppedAt" in one],
        "parameters": doc["parameters"],
        "container": {"vcpus": max(1, int(row["vcpus"])), "memory": row["memory_mib"], **container},
        "tags": doc["tags"],
        "platformCapabilities": ["EC2"],
        "isCancelled": row["stop"] == "cancel",
        "isTerminated": row["stop"] == "terminate",
    }
    known = {"statusReason": row["status_reason"], "startedAt": row["started_at"], "stoppedAt": row["stopped_at"]}
    detail |= {member: value for member, value in known.items() if value is not None}
    if "timeout_s" in doc:
        detail["timeout"] = {"attemptDurationSeconds": doc["timeout_s"]}
    return detail


def _page(operation_name: str, member: str, found: list[dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
    """One page of a list; the token is the number of the first thing on the next."""
    first = request.get("nextToken", "0")
    if not first.isdecimal():
        raise client_error(operation_name, "nextToken: not a token of this account")
    end = int(first) + (request.get("maxResults") or 100)
    return {member: found[int(first) : end]} | ({"nextToken": str(end)} if end < len(found) else {})


def _now() -> int:
    return time.time_ns() // 1_000_000
