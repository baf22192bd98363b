"""What a keeper is given to run: the command, its environment, its limits.

A job of image ``genokit`` is a process in the Python environment that submitted it; of any other, a container.
"""

from __future__ import annotations

import os
import re
import sqlite3
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from genokit.local import store
from genokit.local.engine import containers, documents, processes
from genokit.local.engine.keeper import Task

IMAGE = "genokit"
DOOR, TOKEN = "door", "door.token"  # files: where the door is, locked as long as it is open; what it knows jobs by
OWN_CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"}
# By its own name, or by the tag that a stack's repository has for it: no such registry is anywhere else.
OWN = re.compile(r"genokit(:.*)?|000000000000\.dkr\.ecr\.local\.amazonaws\.com/[^:]+:genokit-[cg]pu")


def task(db: sqlite3.Connection, home: Path, job: sqlite3.Row) -> Task:
    """What the keeper of a job's newest attempt needs to know; where that cannot be said, why."""
    try:
        return _task(db, home, job)
    except Exception as error:
        traceback.print_exc()
        return Task("", "", (), {}, refusal=f"CannotCreateContainerError: {error!r}")


def _task(db: sqlite3.Connection, home: Path, job: sqlite3.Row) -> Task:
    attempts = store.loads(job, "attempts")
    key = f"{job['id']}/{len(attempts)}"
    doc, runtime = store.document(db, job["parent"] or job["id"])
    container = documents.container(doc, job["idx"])
    own = {pair["name"]: pair["value"] for pair in container["environment"]}
    ours = given(job, doc, len(attempts))
    process = Task(
        folder=f"{home}/scratch/{key}",
        log=f"{home}/logs/{attempts[-1]['container']['logStreamName']}.log",
        command=tuple(container["command"]),
        environment={
            **containers.address(os.environ),
            **runtime,
            **({} if OWN_CREDENTIALS & own.keys() else door(home)),
            **own,
            **ours,
        },
        timeout_s=doc.get("timeout", {}).get("attemptDurationSeconds"),
        memory_mib=job["memory_mib"],
    )
    if OWN.fullmatch(container["image"]):
        if container["command"]:
            return process
        missing = f"CannotStartContainerError: the image '{IMAGE}' has no default command, and the job specifies none"
        return replace(process, refusal=missing)
    del ours["CUDA_VISIBLE_DEVICES"]  # in a container the job's GPUs are all there are
    try:
        box = containers.plan(
            containers.find(),
            f"genokit-{re.sub('[:#/]', '-', key)}",
            container,
            own | ours,
            labels={"genokit.home": str(home), "genokit.job": job["id"]},
            gpus=store.loads(job, "gpu_ids"),
            network="host" if job["kind"] == "multinode" else None,
        )
    except ValueError as error:
        return replace(process, refusal=f"CannotStartContainerError: {error}")
    # The engine holds the limit of memory.
    return replace(process, environment=containers.clients_own(os.environ), memory_mib=None, container=box)


def door(home: Path) -> dict[str, str]:
    """The variables by which AWS's clients in a job find the account's door, and fetch its credentials as from ECS.

    Empty where no door is open, or it has no address yet. The secret is in none of them.
    https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """
    text = processes.locked_text(home / DOOR)
    if not text:
        return {}
    url, region = text.split()
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_DEFAULT_REGION": region,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(home / TOKEN),
    }


def given(job: sqlite3.Row, doc: dict[str, Any], attempt: int) -> dict[str, str]:
    """The variables that Batch sets. https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html"""
    variables = {
        "AWS_BATCH_JOB_ID": job["id"],
        "AWS_BATCH_JOB_ATTEMPT": str(attempt),
        "AWS_BATCH_JQ_NAME": job["queue"],
        "AWS_BATCH_CE_NAME": job["environment"],
        "AWS_EXECUTION_ENV": "AWS_ECS_EC2",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, store.loads(job, "gpu_ids"))),
    }
    if job["kind"] == "array":
        variables["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job["idx"])
    if job["kind"] == "multinode":
        main = doc["nodes"]["mainNode"]
        variables |= {
            "AWS_BATCH_JOB_ID": job["id"].partition("#")[0],
            "AWS_BATCH_JOB_NUM_NODES": str(doc["nodes"]["numNodes"]),
            "AWS_BATCH_JOB_NODE_INDEX": str(job["idx"]),
            "AWS_BATCH_JOB_MAIN_NODE_INDEX": str(main),
        }
        if job["idx"] != main:
            variables["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"] = "127.0.0.1"
    return variables
