"""The training loop."""

from __future__ import annotations

import logging
import math
import os
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from genokit.errors import InvalidParameters, NotFound
from genokit.train import network
from genokit.train.checkpoint import locate
from genokit.train.digits import Digits, load_digits
from genokit.train.model import History, Model, load
from genokit.train.mxnet import context
from genokit.train.mxnet import load as load_mxnet
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
        A file, a folder, or s3://bucket/key, written atomically after every epoch. An interrupted training leaves the
        checkpoint of its last complete epoch.
    resume : bool, default False
        Resume from the checkpoint, if it exists. The weights are the same, bit for bit, as without the interruption.
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
    MissingDependency
        MXNet, or a GPU for ``device="gpu"``, is not available.

    Examples
    --------
    Three epochs on MNIST take about a minute on one core::

        from genokit import Manifest, train

        history = train.fit(Manifest("mnist").fetch(), train.Parameters(epochs=3, seed=7), checkpoint="lenet.ckpt")
        history.plot()
    """
    p = parameters or Parameters()
    digits = load_digits(dataset)
    data = {name: getattr(dataset, name) for name in ("name", "title", "version", "sha256", "sample")}
    data |= {"images": len(digits.images), "validation_images": len(digits.test_images)}
    model = _start(p, data, checkpoint, resume)
    _log(*header_lines(p, data))

    mx = load_mxnet(p.threads)
    device = context(mx, p.device)
    net = network.lenet(mx)
    network.set_weights(mx, net, model.weights, device)
    net.hybridize(static_alloc=True)
    start = model.momentum or {name: np.zeros(shape) for name, shape in network.SHAPES.items()}
    momentum = {name: mx.nd.array(array, ctx=device) for name, array in start.items()}
    for epoch in range(model.epoch, p.epochs):
        if not model.history.finite:
            break
        row, groups = _epoch(mx, device, net, momentum, digits, p, epoch, progress)
        kept = {name: array.asnumpy() for name, array in momentum.items()} if p.momentum else {}
        epochs, batches = [*model.epochs, row], [*model.batches, *groups]
        model = Model(p, epoch + 1, data, epochs, batches, network.get_weights(net), kept)
        if checkpoint is not None:
            model.save(checkpoint)
    history = model.history
    if history.problem:
        logger.warning(history.problem)
    return history


def _epoch(
    mx: ModuleType, device: Any, net: Any, momentum: Row, digits: Digits, p: Parameters, epoch: int, progress: bool
) -> tuple[Row, list[Row]]:
    """Train for one epoch, in place, and validate; returns the epoch's row and the rows of its groups of batches."""
    from genokit.bars import Bar

    images, labels = digits.images, digits.labels  # uint8 (N, 28, 28), uint8 (N,)
    weights = net.collect_params()
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    loss_of.hybridize()
    steps = math.ceil(len(labels) / p.batch_size)
    group = min(100, max(1, steps // 8))
    order = np.random.RandomState([p.seed, epoch]).permutation(len(labels))
    seen: list[tuple[float, ...]] = []  # of each batch: images, the sum of their losses, right answers, seconds
    groups: list[Row] = []
    before = time.perf_counter()
    with Bar(total=len(labels), desc=f"Epoch {epoch + 1}/{p.epochs}", unit=" images", disable=not progress) as bar:
        for batch in range(steps):
            rows = order[batch * p.batch_size :][: p.batch_size]  # (B,), fewer in the last batch
            x = mx.nd.array(network.to_input(images[rows]), ctx=device)  # (B, 1, 28, 28), 0 to 1
            y = mx.nd.array(labels[rows], ctx=device)  # (B,)
            with mx.autograd.record():
                out = net(x)  # (B, 10)
                loss = loss_of(out, y)  # (B,)
            loss.backward()
            step = {"lr": p.learning_rate_at(epoch * steps + batch, steps), "momentum": p.momentum,
                    "wd": p.weight_decay, "rescale_grad": 1 / len(rows)}  # fmt: skip
            for name, w in weights.items():
                mx.nd.sgd_mom_update(w.data(), w.grad(), momentum[name], out=w.data(), **step)
            # Reading waits for this batch. Otherwise MXNet queues hundreds, and an interrupt waits for all of them.
            right = (out.asnumpy().argmax(axis=1) == labels[rows]).sum()
            now = time.perf_counter()
            seen.append((len(rows), loss.asnumpy().sum(), right, now - before))
            before = now
            bar.update(len(rows))
            if batch and batch % group == 0:
                groups.append({"epoch": epoch, "batch": batch, **_means(seen[-group:])})
                bar.set_postfix_str(f"accuracy {groups[-1]['accuracy']:.4f}", refresh=False)
                _log(batch_line(groups[-1]))
        row = {"epoch": epoch, **_means(seen), **_validation(mx, device, net, digits)}
        bar.set_postfix_str(f"accuracy {row['accuracy']:.4f}, validation {row['validation_accuracy']:.4f}")
    _log(*epoch_lines(row))
    return row, groups


def _means(seen: list[tuple[float, ...]]) -> Row:
    images, loss, right, seconds = np.sum(seen, axis=0).tolist()
    return {"loss": loss / images, "accuracy": right / images, "seconds": seconds, "samples_per_s": images / seconds}


def _validation(mx: ModuleType, device: Any, net: Any, digits: Digits) -> Row:
    labels = digits.test_labels  # (N,)
    logits = network.logits(mx, net, digits.test_images, device)  # (N, 10)
    loss = -network.log_softmax(logits)[np.arange(len(labels)), labels].mean()
    return {"validation_loss": float(loss), "validation_accuracy": float((logits.argmax(axis=1) == labels).mean())}


def _log(*lines: str) -> None:
    for line in lines:
        logger.info(line)


def _start(p: Parameters, data: Row, target: str | os.PathLike[str] | None, resume: bool) -> Model:
    """The model to start from: a new one, or the checkpoint's if it belongs to this training."""
    fresh = Model(p, 0, data, [], [], network.first_weights(p.seed), {})
    if not resume:
        return fresh
    if target is None:
        raise InvalidParameters(
            "resume=True needs a checkpoint to resume from: fit(..., checkpoint=path, resume=True)."
        )
    try:
        found = load(target)
    except NotFound:
        return fresh
    here = {**p.to_dict(), "data": data["sha256"]}
    there = {**found.parameters.to_dict(), "data": found.data["sha256"]}
    differ = [f"{name} is {there[name]!r} there and {here[name]!r} here" for name in here if here[name] != there[name]]
    if differ:
        raise InvalidParameters(
            f"{locate(target)} was trained with other parameters or data: {'; '.join(differ)}. Use those, as in "
            "train.load(...).parameters, or another checkpoint; resume=False starts again and replaces it."
        )
    return found
