"""The training itself."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from genokit.errors import InvalidCheckpoint, InvalidParameters
from genokit.train import checkpoint as checkpoints
from genokit.train import network
from genokit.train.checkpoint import Checkpoint, Weights
from genokit.train.digits import Digits, load_digits
from genokit.train.history import History, batch_line, epoch_lines, header_lines
from genokit.train.model import Model, log_softmax, logits, to_input
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

    With a sample (``dataset.sample``) validation is on images held out of it: see ``load_digits``. Raises
    InvalidParameters, InvalidManifest (no digits in there), InvalidCheckpoint, MissingDependency (MXNet, or its GPU).
    """
    parameters = parameters or Parameters()
    digits = load_digits(dataset)
    data = {name: getattr(dataset, name) for name in ("name", "title", "version", "sha256", "sample")}
    data |= {"images": len(digits.images), "validation_images": len(digits.test_images)}
    state = _start(parameters, data, checkpoint, resume)
    if checkpoint is not None:
        checkpoints.check_writable(checkpoint)
    for line in header_lines(parameters, data):
        logger.info(line)
    session = _Session.start(load_mxnet(parameters.threads), state)
    while state.epoch < parameters.epochs:
        row, stretches = _epoch(session, digits, parameters, state.epoch, progress)
        state = Checkpoint(
            parameters, state.epoch + 1, data, [*state.epochs, row], [*state.batches, *stretches],
            network.get_weights(session.net), session.momentum(),
        )  # fmt: skip
        if checkpoint is not None:
            state.write(checkpoint)
    return Model(state).history


@dataclass(frozen=True)
class _Session:
    """MXNet's side of a training: the network on its device, the loss, and the optimizer with its momentum."""

    mx: ModuleType
    device: Any
    net: Any
    loss: Any
    trainer: Any

    @classmethod
    def start(cls, mx: ModuleType, state: Checkpoint) -> _Session:
        p = state.parameters
        device = context(mx, p.device)
        net = network.lenet(mx)
        network.set_weights(mx, net, state.weights, device)
        net.hybridize(static_alloc=True)
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        loss.hybridize()
        settings = {"learning_rate": p.learning_rate, "momentum": p.momentum, "wd": p.weight_decay}
        # One device needs no key-value store, and its copies cost time.
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", settings, kvstore=None)
        session = cls(mx, device, net, loss, trainer)
        session._set_momentum(state.momentum)
        return session

    # The public save_states and load_states pickle, and a checkpoint holds no pickles; MXNet 1.9.1 is its last release,
    # so that these private names stay as they are.
    def momentum(self) -> Weights:
        states = self.trainer._updaters[0].states
        names = [parameter.name for parameter in self.trainer._params]
        return {names[i]: array.asnumpy() for i, array in states.items() if array is not None}

    def _set_momentum(self, arrays: Weights) -> None:
        updater = self.trainer._updaters[0]
        for i, parameter in enumerate(self.trainer._params):
            if parameter.name in arrays:
                updater.states[i] = self.mx.nd.array(arrays[parameter.name], ctx=self.device)
                updater.states_synced[i] = True

    def step(self, images: np.ndarray, labels: np.ndarray, learning_rate: float) -> tuple[float, int]:
        """One step on a batch; the sum of its losses and the number of right answers, both before the step."""
        mx = self.mx
        x = mx.nd.array(to_input(images), ctx=self.device)
        y = mx.nd.array(labels, ctx=self.device)
        with mx.autograd.record():
            out = self.net(x)
            loss = self.loss(out, y)
        loss.backward()
        self.trainer.set_learning_rate(learning_rate)
        self.trainer.step(len(labels))
        # Reading waits for this batch. MXNet would else queue hundreds, and an interrupt had to wait for them all.
        return float(loss.asnumpy().sum()), int((out.asnumpy().argmax(axis=1) == labels).sum())


def _epoch(
    session: _Session, digits: Digits, parameters: Parameters, epoch: int, progress: bool
) -> tuple[Row, list[Row]]:
    """Train for one epoch, then validate: the epoch's row and those of its stretches of batches."""
    from tqdm.auto import tqdm

    images, labels = digits.images, digits.labels
    size = parameters.batch_size
    steps = -(-len(labels) // size)
    order = np.random.RandomState([parameters.seed, epoch]).permutation(len(labels))
    meter = _Meter(epoch, stretch=min(100, max(1, steps // 8)))
    bar = tqdm(total=len(labels), desc=f"Epoch {epoch + 1}/{parameters.epochs}", unit=" images", disable=not progress)
    with bar:
        for batch in range(steps):
            rows = order[batch * size : (batch + 1) * size]
            rate = parameters.learning_rate_at(epoch * steps + batch, steps)
            loss, right = session.step(images[rows], labels[rows], rate)
            meter.add(batch, len(rows), loss, right)
            bar.set_postfix_str(f"accuracy {meter.accuracy:.4f}", refresh=False)
            bar.update(len(rows))
        session.mx.nd.waitall()
        row = meter.row()
        row |= _validation(session, digits)
        bar.set_postfix_str(f"accuracy {row['accuracy']:.4f}, validation {row['validation_accuracy']:.4f}")
    for line in epoch_lines(row):
        logger.info(line)
    return row, meter.stretches


def _validation(session: _Session, digits: Digits) -> Row:
    values = logits(session.mx, session.net, digits.test_images, session.device)
    labels = digits.test_labels
    loss = -log_softmax(values)[np.arange(len(labels)), labels].mean()
    return {"validation_loss": float(loss), "validation_accuracy": float((values.argmax(axis=1) == labels).mean())}


class _Meter:
    """Adds up loss and right answers over an epoch, and over stretches of batches, each of which it logs."""

    def __init__(self, epoch: int, stretch: int) -> None:
        self.epoch = epoch
        self.stretch = stretch
        self.stretches: list[Row] = []
        self.started = self.since = time.perf_counter()
        self.total = np.zeros(3)  # images, loss, right
        self.recent = np.zeros(3)

    @property
    def accuracy(self) -> float:
        return float(self.total[2] / self.total[0])

    def add(self, batch: int, images: int, loss: float, right: int) -> None:
        self.total += (images, loss, right)
        self.recent += (images, loss, right)
        if batch and batch % self.stretch == 0:
            now = time.perf_counter()
            row = {"epoch": self.epoch, "batch": batch, **_rates(self.recent, now - self.since)}
            self.stretches.append(row)
            logger.info(batch_line(row))
            self.recent[:] = 0
            self.since = now

    def row(self) -> Row:
        seconds = time.perf_counter() - self.started
        return {"epoch": self.epoch, "seconds": seconds, **_rates(self.total, seconds)}


def _rates(sums: np.ndarray, seconds: float) -> Row:
    images, loss, right = (float(value) for value in sums)
    return {"loss": loss / images, "accuracy": right / images, "samples_per_s": images / seconds}


def _start(parameters: Parameters, data: Row, target: str | os.PathLike[str] | None, resume: bool) -> Checkpoint:
    """The state to begin with: fresh weights, or those of the checkpoint if it is one of this same training."""
    if resume and target is None:
        raise InvalidParameters(
            "resume=True needs a checkpoint to resume from: fit(..., checkpoint=path, resume=True)."
        )
    if not resume or target is None or not checkpoints.exists(target):
        return Checkpoint(parameters, 0, data, [], [], network.first_weights(parameters.seed), {})
    found = Checkpoint.read(target)
    where = checkpoints.locate(target)
    asked, has = parameters.to_dict(), found.parameters.to_dict()
    differ = [f"{name} is {has[name]!r} there and {asked[name]!r} here" for name in asked if asked[name] != has[name]]
    if differ:
        raise InvalidParameters(
            f"{where} is of a training with other parameters: {'; '.join(differ)}. Take its own, "
            "train.load(...).parameters, or another checkpoint, or resume=False to start anew and replace it."
        )
    if found.data.get("sha256") != data["sha256"]:
        raise InvalidCheckpoint(
            f"{where} was trained on other data: expected sha256 {data['sha256'][:12]} ({data['title']}), got "
            f"{str(found.data.get('sha256'))[:12]} ({found.data.get('title')}). Take its data, or another checkpoint."
        )
    return found
