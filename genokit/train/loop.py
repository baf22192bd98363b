"""The training loop."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from genokit.bars import Bar
from genokit.errors import InvalidParameters, NotFound, TrainingStopped
from genokit.train import engines, workers
from genokit.train.checkpoint import locate
from genokit.train.digits import Digits, load_digits
from genokit.train.engines import Engine
from genokit.train.model import NONE, History, Model, load, package_versions
from genokit.train.network import first_weights, log_softmax
from genokit.train.parameters import Parameters
from genokit.train.training_log import batch_line, epoch_lines, header_lines

if TYPE_CHECKING:
    from genokit.data import Dataset

# MXNet's progress lines, at level INFO: silent unless a program adds a handler, as python -m genokit.train does.
logger = logging.getLogger("genokit.train")

Row = dict[str, Any]


def fit(
    dataset: Dataset,
    parameters: Parameters | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    until: int | None = None,
    save_min: float = 5,
    save_batches: int = 0,
    stop: threading.Event | None = None,
    progress: bool = True,
) -> History:
    """Train LeNet on a data set of digits.

    Parameters
    ----------
    dataset : Dataset
        MNIST or a sample of it. A sample is validated on images held out of it: see ``load_digits``.
    parameters : Parameters, optional
        Everything else that determines the weights. Default: ``Parameters()``.
    checkpoint : str or path, optional
        A file, a folder, or s3://bucket/key, written atomically after every epoch, every ``save_min`` minutes and
        every ``save_batches`` batches. An interrupted training leaves its last checkpoint.
    resume : bool, default False
        Resume from the checkpoint, if it exists, at the batch that it holds. The weights are the same, bit for bit, as
        without the interruption. Where ``parameters`` leave the engine or the threads open, the checkpoint's are used.
    until : int, optional
        Train to the end of this epoch only, counted from 1, on the way to all of ``parameters.epochs``: with ``resume``
        a later call goes on. Default: all epochs.
    save_min : float, default 5
        Minutes between checkpoints within an epoch.
    save_batches : int, default 0
        Batches between checkpoints within an epoch. 0: only ``save_min`` counts.
    stop : threading.Event, optional
        Set it in another thread or in a signal handler: after the current batch the training saves its checkpoint and
        raises TrainingStopped.
    progress : bool, default True
        Show a progress bar per epoch.

    Returns
    -------
    History
        The table of epochs, the plot and the model. If the training diverged or did not learn, ``history.problem`` says
        so, as do its card and a warning in the log. Training stops after an epoch with a loss that is not finite.

    Raises
    ------
    InvalidParameters
        ``resume`` without a checkpoint, or with a checkpoint of other parameters or data; or other ``threads`` than
        those that MXNet was loaded with in this process.
    InvalidManifest
        The data set does not hold digits.
    InvalidCheckpoint
        The checkpoint to resume from is damaged.
    ConfigError
        The checkpoint's folder cannot be written.
    TrainingStopped
        ``stop`` was set.
    MissingDependency
        The engine, or a GPU for ``device="gpu"``, is not available.

    Examples
    --------
    Three epochs on MNIST take about a minute on one core::

        from genokit import Manifest, train

        digits = Manifest("mnist").fetch()
        history = train.fit(digits, train.Parameters(epochs=3, seed=7), checkpoint="lenet.safetensors")
        history.plot()
    """
    parameters = parameters or Parameters()
    count, rank = parameters.workers, workers.rank(parameters)
    if rank is None:
        raise InvalidParameters(
            f"workers={count} need a process each, and fit trains in this one. Use train.submit(..., workers={count}), "
            f"or in a terminal: python -m genokit.train --workers {count}"
        )
    digits, wanted = load_digits(dataset), parameters.images
    if wanted:
        digits = digits._replace(images=digits.images[:wanted], labels=digits.labels[:wanted])
    data = {name: getattr(dataset, name) for name in ("name", "title", "version", "sha256", "sample")}
    data |= {"images": len(digits.images), "validation_images": len(digits.test_images)}
    model = _start(parameters, data, checkpoint, resume)
    p, saved, stop = model.parameters, time.monotonic(), stop or threading.Event()
    _log(*header_lines(p, data), *map(batch_line, model.batches))  # of a resumed training, the log tells it all again
    _log(*(line for row in model.epochs for line in epoch_lines(row)))

    def is_due(batch: int, is_read: bool) -> tuple[bool, bool]:
        """Whether to save now, in the middle of an epoch, and whether to stop.

        Several workers have to agree on what depends on the time, and do so where they add up what they have read.
        """
        counted = checkpoint is not None and bool(save_batches) and batch % save_batches == 0
        waited = checkpoint is not None and time.monotonic() - saved >= save_min * 60
        return (counted or waited, stop.is_set()) if p.workers == 1 or is_read else (counted, False)

    engine = engines.start(p, digits, model.weights, model.momentum)
    while model.epoch < min(until or p.epochs, p.epochs) and model.history.finite:
        with Bar(
            total=len(digits.labels), initial=model.batch * p.batch_size, desc=f"Epoch {model.epoch + 1}/{p.epochs}",
            unit=" images", disable=not progress,
        ) as bar:  # fmt: skip
            whole = False
            while not whole:
                model, stopped = _train(engine, digits, model, rank, is_due, bar)
                if checkpoint is not None and rank == 0:
                    model.save(checkpoint)
                saved = time.monotonic()
                whole = model.batch == 0
                if stopped and model.epoch < p.epochs:
                    raise TrainingStopped(_stopped(model, checkpoint))
    history = model.history
    if history.problem:
        logger.warning(history.problem)
    return history


def _train(
    engine: Engine, digits: Digits, model: Model, rank: int, is_due: Callable[[int, bool], tuple[bool, bool]], bar: Bar
) -> tuple[Model, bool]:
    """Train to the end of the model's epoch, or until a checkpoint is due.

    Returns the model as it is then, and whether the training is to stop.
    """
    p, epoch, count = model.parameters, model.epoch, len(digits.labels)
    steps = math.ceil(count / p.batch_size)
    group = min(100, max(1, steps // 8))
    # Drawn anew for each epoch, so that a training resumes in the middle of one without the state of a generator.
    order = np.random.RandomState([p.seed, epoch]).permutation(count)
    shifts = np.random.RandomState([p.seed, epoch, 1]).randint(-p.shift, p.shift + 1, (count, 2)) if p.shift else None
    sums, groups = np.array(model.sums), []  # images, their losses, right answers, seconds
    done, before, save, stop = model.batch, time.perf_counter(), False, False
    while done < steps and not save and not stop:
        rows = order[done * p.batch_size :][: p.batch_size]  # (B,), fewer in the last batch
        share = rows[rank :: p.workers]
        moved = None if shifts is None else shifts[share]
        engine.step(share, moved, p.learning_rate_at(epoch * steps + done, steps), len(rows))
        bar.update(len(rows))
        done += 1
        is_read = done % group == 0 or done == steps
        save, stop = is_due(done, is_read)
        if is_read or save or stop:  # reading waits for the device
            *read, saves, stops = engine.total(np.array([*engine.sums(), save, stop]))
            save, stop = saves > 0, stops > 0  # as any worker says
            part = np.array([*read, time.perf_counter() - before])
            before, sums = time.perf_counter(), sums + part
            if done % group == 0:
                groups.append({"epoch": epoch, "batch": done, **_means(part)})
                bar.set_postfix_str(f"accuracy {groups[-1]['accuracy']:.4f}", refresh=False)
                _log(batch_line(groups[-1]))
    kept: Row = {"batches": [*model.batches, *groups], "weights": engine.weights(), "versions": package_versions()}
    kept["momentum"] = engine.momentum() if p.momentum else {}
    if done < steps:
        return replace(model, batch=done, sums=sums.tolist(), **kept), stop
    row = {"epoch": epoch, **_means(sums), **_validation(engine, digits, slice(rank, None, p.workers))}
    bar.set_postfix_str(f"accuracy {row['accuracy']:.4f}, validation {row['validation_accuracy']:.4f}")
    _log(*epoch_lines(row))
    return replace(model, epoch=epoch + 1, batch=0, sums=NONE, epochs=[*model.epochs, row], **kept), stop


def _means(sums: np.ndarray) -> Row:
    images, loss, right, seconds = sums.tolist()
    return {"loss": loss / images, "accuracy": right / images, "seconds": seconds, "samples_per_s": images / seconds}


def _validation(engine: Engine, digits: Digits, share: slice) -> Row:
    labels = digits.test_labels[share]  # (N,)
    logits = engine.logits(digits.test_images[share])  # (N, 10)
    loss = -log_softmax(logits)[np.arange(len(labels)), labels].sum(dtype=float)
    right = (logits.argmax(axis=1) == labels).sum()
    means = engine.total(np.array([loss, right])) / len(digits.test_labels)
    return {"validation_loss": float(means[0]), "validation_accuracy": float(means[1])}


def _log(*lines: str) -> None:
    for line in lines:
        logger.info(line)


def _stopped(model: Model, checkpoint: str | os.PathLike[str] | None) -> str:
    at = f"in epoch {model.epoch + 1} of {model.parameters.epochs}, after {model.batch} of its batches"
    if checkpoint is None:
        return f"The training was stopped {at}. Nothing was saved: fit(..., checkpoint=path) saves."
    return f"The training was stopped {at}, and saved in {locate(checkpoint)}: resume=True continues from there."


def _start(p: Parameters, data: Row, target: str | os.PathLike[str] | None, resume: bool) -> Model:
    """The model to start from: a new one, or the checkpoint's if it belongs to this training."""
    found = None
    if resume:
        if target is None:
            raise InvalidParameters(
                "resume=True needs a checkpoint to resume from: fit(..., checkpoint=path, resume=True)."
            )
        with suppress(NotFound):
            found = load(target)
    p = engines.settle(p, found.parameters.to_dict() if found else None)
    if found is None:
        return Model(p, 0, 0, NONE, data, [], [], first_weights(p.seed), {})
    here = {**p.to_dict(), "data": data["sha256"]}
    there = {**found.parameters.to_dict(), "data": found.data["sha256"]}
    differ = [f"{name} is {there[name]!r} there and {here[name]!r} here" for name in here if here[name] != there[name]]
    if differ:
        raise InvalidParameters(
            f"{locate(target or '')} was trained with other parameters or data: {'; '.join(differ)}. Use those, as in "
            "train.load(...).parameters, or another checkpoint; resume=False starts again and replaces it."
        )
    return found
