"""What a keeper is given to run: the command, its environment, its limits.

A job of image ``genokit`` is a process in the Python environment that submitted it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from genokit.local import keeper, life, resolved, store, stream

IMAGE = "genokit"


def task(db: sqlite3.Connection, home: Path, job: sqlite3.Row) -> keeper.Task:
    """What the keeper of a job's newest attempt needs to know."""
    doc, runtime = store.document(db, job["parent"] or job["id"])
    attempts = store.loads(job, "attempts")
    container = resolved.container(doc, job["idx"])
    log = stream.path(home, attempts[-1]["container"]["logStreamName"])
    if log is None:
        raise ValueError(f"job '{job['id']}' has no place for its log")
    own = {pair["name"]: pair["value"] for pair in container["environment"]}
    refusal = None
    if container["image"].partition(":")[0] != IMAGE:
        refusal = f"CannotStartContainerError: the image '{container['image']}' needs a container engine"
    elif not container["command"]:
        refusal = f"CannotStartContainerError: the image '{IMAGE}' brings no command, and the job names none"
    return keeper.Task(
        key=life.key(job),
        folder=f"{home}/work/{life.key(job)}",
        log=str(log),
        command=tuple(container["command"]),
        environment={**runtime, **own, **given(job, doc, len(attempts))},
        timeout_s=doc.get("timeout", {}).get("attemptDurationSeconds"),
        memory_mib=job["memory_mib"],
        refusal=refusal,
    )


def given(job: sqlite3.Row, doc: dict[str, Any], attempt: int) -> dict[str, str]:
    """The variables that Batch sets. https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html"""
    variables = {
        "AWS_BATCH_JOB_ID": job["id"],
        "AWS_BATCH_JOB_ATTEMPT": str(attempt),
        "AWS_BATCH_JQ_NAME": job["queue"],
        "AWS_BATCH_CE_NAME": job["environment"],
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
