"""The training itself."""

from __future__ import annotations

import logging
import math
import os
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from genokit.errors import InvalidCheckpoint, InvalidParameters, NotFound
from genokit.train import network
from genokit.train.checkpoint import check_writable, locate
from genokit.train.digits import Digits, load_digits
from genokit.train.history import History, batch_line, epoch_lines, header_lines
from genokit.train.model import Model, load
from genokit.train.mxnet import context
from genokit.train.mxnet import load as load_mxnet
from genokit.train.parameters import Parameters

if TYPE_CHECKING:
    from genokit.data import Dataset

# MXNet's progress lines, at level INFO: silent unless a program (python -m genokit.train does) listens.
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
    """Train LeNet on a data set of digits; the history has the table, the plot and the model.

    ``checkpoint`` (a file, a folder, or s3://bucket/key) is written after every epoch, whole or not at all; an
    interrupted training leaves that of its last whole epoch. ``resume=True`` goes on from it, to the same weights, bit
    for bit, as without the interruption; if there is none yet, it starts. ``progress`` shows a bar an epoch.

    A training that diverges or does not learn says so: in a warning of the log, on its card and in ``history.problem``.
    It ends with the epoch in which a loss was not a finite number.

    With a sample (``dataset.sample``) validation is on images held out of it: see ``load_digits``. Raises
    InvalidParameters, InvalidManifest (no digits in there), InvalidCheckpoint, MissingDependency (MXNet, or its GPU).
    """
    p = parameters or Parameters()
    digits = load_digits(dataset)
    data = {name: getattr(dataset, name) for name in ("name", "title", "version", "sha256", "sample")}
    data |= {"images": len(digits.images), "validation_images": len(digits.test_images)}
    model = _start(p, data, checkpoint, resume)
    if checkpoint is not None:
        check_writable(checkpoint)
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
        row, stretches = _epoch(mx, device, net, momentum, digits, p, epoch, progress)
        kept = {name: array.asnumpy() for name, array in momentum.items()} if p.momentum else {}
        epochs, batches = [*model.epochs, row], [*model.batches, *stretches]
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
    """Train for one epoch, in place, then validate: the epoch's row and those of its stretches of batches."""
    from genokit.bars import Bar

    images, labels = digits.images, digits.labels  # uint8 (N, 28, 28), uint8 (N,)
    weights = net.collect_params()
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    loss_of.hybridize()
    steps = math.ceil(len(labels) / p.batch_size)
    stretch = min(100, max(1, steps // 8))
    order = np.random.RandomState([p.seed, epoch]).permutation(len(labels))
    seen: list[tuple[float, ...]] = []  # of each batch: images, the sum of their losses, right answers, seconds
    stretches: list[Row] = []
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
            # Reading waits for this batch. MXNet would else queue hundreds, and an interrupt had to wait for them all.
            right = (out.asnumpy().argmax(axis=1) == labels[rows]).sum()
            now = time.perf_counter()
            seen.append((len(rows), loss.asnumpy().sum(), right, now - before))
            before = now
            bar.update(len(rows))
            if batch and batch % stretch == 0:
                stretches.append({"epoch": epoch, "batch": batch, **_means(seen[-stretch:])})
                bar.set_postfix_str(f"accuracy {stretches[-1]['accuracy']:.4f}", refresh=False)
                _log(batch_line(stretches[-1]))
        row = {"epoch": epoch, **_means(seen), **_validation(mx, device, net, digits)}
        bar.set_postfix_str(f"accuracy {row['accuracy']:.4f}, validation {row['validation_accuracy']:.4f}")
    _log(*epoch_lines(row))
    return row, stretches


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
    """The model to begin with: a fresh one, or the checkpoint's if that is one of this same training."""
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
    asked, has = p.to_dict(), found.parameters.to_dict()
    differ = [f"{name} is {has[name]!r} there and {asked[name]!r} here" for name in asked if asked[name] != has[name]]
    if differ:
        raise InvalidParameters(
            f"{locate(target)} is of a training with other parameters: {'; '.join(differ)}. Take its own, "
            "train.load(...).parameters, or another checkpoint, or resume=False to start anew and replace it."
        )
    if found.data["sha256"] != data["sha256"]:
        raise InvalidCheckpoint(
            f"{locate(target)} was trained on other data: expected sha256 {data['sha256'][:12]} ({data['title']}), got "
            f"{found.data['sha256'][:12]} ({found.data['title']}). Take its data, or another checkpoint."
        )
    return found
