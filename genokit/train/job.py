"""The same training as a job of AWS Batch, or of the embedded one."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from genokit import storage
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
    """Submit the training of ``fit`` as a Batch job.

    The job fetches the data set by its manifest, prints MXNet's progress lines, which ``History.from_log(job.log())``
    reads, and writes a checkpoint after each epoch, which ``train.load(job.parameters["out"])`` loads.

    Parameters
    ----------
    dataset : Dataset
        The data to train on.
    parameters : Parameters, optional
        The parameters of the training. Default: ``Parameters()``.
    queue : str, default "highPriority"
        The job queue.
    gpus : int, default 0
        Number of GPUs; 1 trains on the GPU.
    vcpus : float, default 1
        Number of vCPUs. More of them train faster only with more ``threads``, which change the last bits of the result.
    memory_gib : float, default 2
        Memory, in GiB.
    out : str or path, optional
        Folder for the checkpoint, which may be on S3 (s3://bucket/folder). A job with an existing checkpoint resumes
        from it. Default: a new folder in ``settings.home/train``; on AWS it must be given, because a job's container
        is removed when the job ends.
    batch : Batch, optional
        Where to submit. Default: ``Batch()``.
    **changes
        Single parameters to change, as in ``submit(digits, epochs=20)``.

    Returns
    -------
    Job
        The submitted job.

    Raises
    ------
    InvalidParameters
        A parameter is invalid, ``gpus`` is missing for ``device="gpu"``, there are fewer ``vcpus`` than ``threads``, or
        ``out`` is missing on AWS. ``Batch.submit`` may raise further errors.
    """
    from genokit.batch import Batch

    batch = batch or Batch()
    parameters = (parameters or Parameters()).replace(**({"device": "gpu"} if gpus else {}), **changes)
    if parameters.device == "gpu" and not gpus:
        raise InvalidParameters("device='gpu' needs a GPU: submit(..., gpus=1, queue='gpu').")
    if parameters.threads > vcpus:
        raise InvalidParameters(
            f"threads={parameters.threads} need as many vCPUs, got vcpus={vcpus:g}. "
            f"Use submit(..., vcpus={parameters.threads})."
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
        return where if storage.is_s3(where) else os.path.abspath(where)  # the job has its own working folder
    if out is None:
        raise InvalidParameters(
            f"The checkpoint would be lost with the job's container: jobs run {batch.clients.place} and share no "
            "folder with this machine. Give a permanent address: submit(..., out='s3://bucket/folder')."
        )
    return os.fspath(out)
