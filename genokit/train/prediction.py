"""Predictions for a whole data set, as an array job over its parts."""

from __future__ import annotations

import io
import os
import sys
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from genokit import storage
from genokit.train.checkpoint import FILE, locate
from genokit.train.digits import CLASSES, check_dataset, load_digits
from genokit.train.model import Model, load

if TYPE_CHECKING:
    from genokit.batch import Batch, Job
    from genokit.data import Dataset


def predict(
    model: Model | str | os.PathLike[str],
    dataset: Dataset,
    *,
    shards: int = 2,
    queue: str = "highPriority",
    vcpus: float = 1,
    memory_gib: float = 2,
    out: str | os.PathLike[str] | None = None,
    batch: Batch | None = None,
) -> Job:
    """Predict the digit on every image of a data set, as an array job with one child for each part of the images.

    Parameters
    ----------
    model : Model, str or path
        A model; or a checkpoint, or a folder with one, that the job can read: on AWS on S3.
    dataset : Dataset
        Digits, as for ``fit``: training and test images are predicted.
    shards : int, default 2
        Number of parts, 2 to 10,000. Here as many run at once as fit.
    queue, vcpus, memory_gib
        As in ``submit``, for each part.
    out : str or path, optional
        Folder for the predictions. Default: a new one in ``settings.home/train``, or on AWS in the stack's bucket.
    batch : Batch, optional
        Where to submit. Default: ``Batch()``.

    Returns
    -------
    Job
        ``train.predictions(job)`` reads its results when it has ended.

    Raises
    ------
    NotFound, InvalidCheckpoint
        There is no model at this address.

    Examples
    --------
    ::

        job = train.predict(train.load("lenet.safetensors"), digits, shards=20)
        train.predictions(job).query("predicted != label")
    """
    from genokit.batch import Batch

    check_dataset(dataset)
    batch = batch or Batch()
    name = f"predict-{uuid.uuid4().hex[:8]}"
    where = storage.results(out, "train", name, clients=batch.clients)
    if isinstance(model, Model):
        model = model.save(f"{where}/{FILE}")
    load(model)  # so that a wrong address is refused here
    command = ["python", "-m", "genokit.train.prediction", "Ref::model", "Ref::data", "Ref::shards", "Ref::out"]
    threads = {"OPENBLAS_NUM_THREADS": str(max(1, int(vcpus)))}  # more than its cores slow a job down tenfold
    definition = batch.define(
        "lenet-predict", command=command, vcpus=vcpus, memory_gib=memory_gib, environment=threads
    )  # fmt: skip
    given = {"model": locate(model), "data": dataset.ref, "shards": str(shards), "out": where}
    return batch.submit(definition, queue=queue, name=name, parameters=given, size=shards, again=True)


def predictions(job: Job) -> pd.DataFrame:
    """Read what a job of ``predict`` has written.

    Parameters
    ----------
    job : Job
        A job that has SUCCEEDED.

    Returns
    -------
    pandas.DataFrame
        One row an image, in the data set's order: ``part`` ("train" or "test"), ``image`` (its number there, from 0),
        ``label``, ``predicted``, and the probability of each digit, ``p0`` to ``p9``.

    Raises
    ------
    JobFailed
        The job, or one of its children, has FAILED.
    """
    job.wait().raise_for_status()
    count, folder = job.size or 1, job.parameters["out"]
    parts = [pd.read_csv(io.BytesIO(storage.read(f"{folder}/{_file(shard)}"))) for shard in range(count)]
    return pd.concat(parts, ignore_index=True)


def main(model: str, data: str, shards: str, out: str) -> None:
    """Predict one part: the command of the job's children."""
    from genokit.data import Manifest

    shard = int(os.environ["AWS_BATCH_JOB_ARRAY_INDEX"])
    digits = load_digits(Manifest(data).fetch(progress=False))
    table = pd.DataFrame({
        "part": ["train"] * len(digits.labels) + ["test"] * len(digits.test_labels),
        "image": [*range(len(digits.labels)), *range(len(digits.test_labels))],
        "label": np.concatenate([digits.labels, digits.test_labels]),
    })  # fmt: skip
    own = np.array_split(np.arange(len(table)), int(shards))[shard]
    probabilities = load(model).probabilities(np.concatenate([digits.images, digits.test_images])[own])
    table = table.iloc[own].assign(predicted=probabilities.argmax(axis=1))
    table[[f"p{digit}" for digit in range(CLASSES)]] = probabilities.round(6)
    storage.write(f"{out}/{_file(shard)}", table.to_csv(index=False))
    print(f"{len(own):,} images predicted, {int((table['predicted'] == table['label']).sum()):,} as labelled")


def _file(shard: int) -> str:
    return f"predictions-{shard:05}.csv"


if __name__ == "__main__":
    main(*sys.argv[1:])
