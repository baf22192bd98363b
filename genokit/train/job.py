"""The same training as a job of AWS Batch, or of the embedded one."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from genokit.errors import InvalidParameters
from genokit.train.parameters import Parameters

if TYPE_CHECKING:
    from genokit.batch import Batch, Job
    from genokit.data import Dataset


def submit(
    dataset: Dataset,
    parameters: Parameters | None = None,
    *,
    queue: str = "highPriority",
    gpus: int = 0,
    vcpus: float = 1,
    memory_gib: float = 2,
    out: str | os.PathLike[str] | None = None,
    batch: Batch | None = None,
    **changes: Any,
) -> Job:
    """Submit the training of ``fit`` as a job; ``changes`` change single parameters: ``submit(digits, epochs=20)``.

    The job fetches the data set by its manifest, prints MXNet's progress lines (``History.from_log(job.log())``) and
    keeps its checkpoint, written after each epoch, in the folder ``out``, which may be on S3 (s3://bucket/folder):
    ``train.load(job.parameters["out"])`` is the model. Submitted again with the same ``out``, it goes on from there.
    Without ``out`` an embedded job takes a new folder under ``settings.home/train``; a job on AWS, whose container and
    all in it are gone with its end, must be given one.

    ``gpus`` > 0 trains on the GPU. More ``vcpus`` alone do not train faster: that is ``threads``, which changes the
    last bits of the result. Raises InvalidParameters, and what ``Batch.submit`` raises.
    """
    from genokit.batch import Batch

    batch = batch or Batch()
    parameters = (parameters or Parameters()).replace(**({"device": "gpu"} if gpus else {}), **changes)
    if parameters.device == "gpu" and not gpus:
        raise InvalidParameters("device='gpu' needs a GPU: submit(..., gpus=1, queue='gpu').")
    if parameters.threads > vcpus:
        raise InvalidParameters(
            f"threads={parameters.threads} on vcpus={vcpus:g} would wait for one another. "
            f"Ask for as many: submit(..., vcpus={parameters.threads})."
        )
    name = f"lenet-{uuid.uuid4().hex[:8]}"
    given = {"data": dataset.ref, "out": _out(out, batch, name)}
    settings = {key: str(value) for key, value in parameters.to_dict().items()}
    command = ["python", "-m", "genokit.train", "--resume"]
    for key in (*given, *settings):
        command += [f"--{key.replace('_', '-')}", f"Ref::{key}"]
    definition = batch.define(
        "lenet", command=command, vcpus=vcpus, memory_gib=memory_gib, gpus=gpus, parameters=settings
    )
    return batch.submit(definition, queue=queue, name=name, parameters={**given, **settings}, again=True)


def _out(out: str | os.PathLike[str] | None, batch: Batch, name: str) -> str:
    if batch.clients.backend.shares_folders:
        where = os.fspath(out or batch.clients.settings.home / "train" / name)
        return where if where.startswith("s3://") else os.path.abspath(where)  # the job works in a folder of its own
    if out is None:
        raise InvalidParameters(
            f"The checkpoint would be lost with the job's container: jobs run {batch.clients.place}, and share no "
            "folder with this machine. Give a place that stays: submit(..., out='s3://bucket/folder')."
        )
    return os.fspath(out)
