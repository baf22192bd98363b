"""The same training as a job of AWS Batch, or of the embedded one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from genokit import live, storage
from genokit.display import Html, card, drawn
from genokit.errors import InvalidParameters
from genokit.train.digits import check_dataset
from genokit.train.parameters import Parameters

if TYPE_CHECKING:
    from genokit.batch import Batch, Job
    from genokit.data import Dataset
    from genokit.train.model import History


def submit(
    dataset: Dataset,
    parameters: Parameters | None = None,
    *,
    queue: str = "highPriority",
    gpus: int = 0,
    vcpus: float = 1,
    memory_gib: float = 2,
    image: str | None = None,
    timeout_min: float | None = None,
    save_min: float = 5,
    save_batches: int = 0,
    out: str | os.PathLike[str] | None = None,
    batch: Batch | None = None,
    **changes: Any,
) -> Job:
    """Submit the training of ``fit`` as a Batch job.

    The job fetches the data set by its manifest, prints MXNet's progress lines, which ``train.follow(job)`` draws, and
    writes checkpoints, from which ``train.load(job.parameters["out"])`` loads model and history. If a Spot host is
    reclaimed, or the job's process gets SIGTERM otherwise, it saves a checkpoint first, and its next attempt, up to the
    tenth, goes on at the same batch.

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
        Number of vCPUs; ``threads`` follow it unless they are given.
    memory_gib : float, default 2
        Memory, in GiB.
    image : str, optional
        The container image. Default: the kit's own, with MXNet for CPUs or, with ``gpus``, for GPUs; with ``gpus`` and
        ``engine="torch"`` the one that ``Image("gpu-torch").publish()`` makes.
    timeout_min : float, optional
        The longest time that an attempt may take, in minutes, at least 1. Default: no limit.
    save_min : float, default 5
        Minutes between checkpoints within an epoch.
    save_batches : int, default 0
        Batches between checkpoints within an epoch. 0: only ``save_min`` counts.
    out : str or path, optional
        Folder for the checkpoint, which may be on S3 (s3://bucket/folder). A job with an existing checkpoint resumes
        from it. Default: a new folder in ``settings.home/train``, or on AWS in the stack's bucket.
    batch : Batch, optional
        Where to submit. Default: ``Batch()``.
    **changes
        Single parameters to change, as in ``submit(digits, epochs=20)``. With ``workers=2`` the job has two nodes that
        train together, each with ``vcpus``, ``memory_gib`` and ``gpus``; on AWS it needs a queue with On-Demand
        instances, and with MXNet a ``timeout_min``, because worker 0 waits for a node that was lost.

    Returns
    -------
    Job
        The submitted job.

    Raises
    ------
    InvalidParameters
        A parameter is invalid, ``gpus`` is missing for ``device="gpu"``, or there are fewer ``vcpus`` than ``threads``.
        ``Batch.submit`` may raise further errors.
    ConfigError
        On AWS, no ``out`` is given and the stack is not deployed.
    """
    from genokit.batch import Batch

    check_dataset(dataset)
    batch = batch or Batch()
    parameters = for_job((parameters or Parameters()).replace(**changes), gpus, vcpus)
    name = f"lenet-{uuid.uuid4().hex[:8]}"
    where = storage.results(out, "train", name, clients=batch.clients)
    given = {"data": dataset.ref, "out": where, "save-min": f"{save_min:g}", "save-batches": f"{save_batches:d}"}
    settings = {key: str(value) for key, value in parameters.to_dict().items()}
    command = ["python", "-m", "genokit.train", "--resume"]
    for key in (*given, *settings):
        command += [f"--{key.replace('_', '-')}", f"Ref::{key}"]
    definition = batch.define(
        "lenet-gpu" if gpus else "lenet", command=command, image=image or own_image(parameters), parameters=settings,
        vcpus=vcpus, memory_gib=memory_gib, gpus=gpus, nodes=parameters.workers, timeout_min=timeout_min,
        retry="interrupted",
    )  # fmt: skip
    return batch.submit(definition, queue=queue, name=name, parameters={**given, **settings}, again=True)


def for_job(p: Parameters, gpus: int, vcpus: float) -> Parameters:
    """The parameters of a training in a job with so many GPUs and vCPUs. Raises InvalidParameters."""
    p = p.replace(device="gpu" if gpus else p.device, threads=p.threads or max(1, int(vcpus)))
    if p.device == "gpu" and not gpus:
        raise InvalidParameters("device='gpu' needs a GPU. Use gpus=1 and queue='gpu'.")
    if p.threads > max(1, vcpus):
        raise InvalidParameters(f"threads={p.threads} need as many vCPUs, got vcpus={vcpus:g}. Use vcpus={p.threads}.")
    return p


def own_image(p: Parameters) -> str:
    """The kit's image that has the engine of these parameters for their device."""
    return "genokit:gpu-torch" if (p.engine, p.device) == ("torch", "gpu") else "genokit"


def follow(job: Job, *, every_s: float = 2) -> History:
    """Draw the learning curve of a training job while it runs, and return its history when it has ended.

    The curve is read from the job's log, here and from CloudWatch. Outside an interactive notebook the log's lines are
    printed instead. An interrupt stops the drawing; the job continues.

    Parameters
    ----------
    job : Job
        A job of ``submit``, or any job that logs in MXNet's format.
    every_s : float, default 2
        Seconds between two looks at the log.

    Returns
    -------
    History
        As in ``History.from_log``; the model is in ``train.load(job.parameters["out"])``.

    Raises
    ------
    JobFailed
        The job has FAILED.

    Examples
    --------
    ::

        job = train.submit(digits, epochs=20, queue="gpu", gpus=1)
        history = train.follow(job)
    """
    from genokit.batch.job_state import ENDED
    from genokit.train.model import History

    def look() -> tuple[str, Callable[[], Html]]:
        history = History.from_log(str(job.log()))
        words = f"{job.name} {job.status}: {history!r}, {len(history.batches)} groups of batches"
        if history.table.empty and history.batches.empty:
            return words, lambda: card(f"Job {job.name}", {"learning curve": "nothing logged yet"}, status=job.status)
        return words, lambda: drawn(history.plot()[0], words)

    if not live.is_interactive():
        job.tail()
    live.follow(lambda: job.status in ENDED, look, every_s)
    return History.from_log(str(job.raise_for_status().log()))
