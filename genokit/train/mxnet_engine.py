"""LeNet's training in MXNet."""

from __future__ import annotations

from typing import Any

import numpy as np

from genokit.train import network
from genokit.train.digits import Digits
from genokit.train.mxnet import context, load
from genokit.train.network import SHAPES, Weights
from genokit.train.parameters import Parameters

MOST_NUMBERS = 5  # that the workers add up at once


class MxnetEngine:
    """The network as a hybridized gluon block with static memory, and one fused update of all weights."""

    def __init__(self, p: Parameters, digits: Digits, weights: Weights, momentum: Weights) -> None:
        self.mx = mx = load(p.threads)
        self.parameters, self.labels = p, digits.labels
        self.images, self.side = network.padded(digits.images, p.shift), np.arange(28) + p.shift
        self.device = context(mx, p.device)
        self.net = network.lenet(mx)
        for name, parameter in self.net.collect_params().items():
            parameter.initialize(init=mx.init.Zero(), ctx=self.device)
            parameter.set_data(mx.nd.array(weights[name]))
        self.net.hybridize(static_alloc=True)
        self.loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        self.loss_of.hybridize()
        self.own = [self.net.collect_params()[name].data() for name in SHAPES]
        self.gradients = [self.net.collect_params()[name].grad() for name in SHAPES]
        self.moments = [mx.nd.array(momentum[name], ctx=self.device) for name in SHAPES]
        # What multi_sgd_mom_update takes: each weight, its gradient and its momentum, one after the other.
        together = zip(self.own, self.gradients, self.moments, strict=True)
        self.updated = [one for three in together for one in three]
        self.store = mx.kv.create("dist_sync") if p.workers > 1 else None  # sums over the workers
        if self.store:
            self.store.init(list(range(len(self.gradients))), self.gradients)
            self.store.init(len(self.gradients), mx.nd.zeros(MOST_NUMBERS, dtype=np.float64))
        self.seen: list[tuple[Any, Any, np.ndarray]] = []  # of each batch: losses, logits, labels

    def step(self, rows: np.ndarray, shifts: np.ndarray | None, rate: float, batch: int) -> None:
        mx, p = self.mx, self.parameters
        if len(rows):
            self._differentiate(rows, shifts)
        else:  # a last batch may have fewer images than there are workers
            for gradient in self.gradients:
                gradient[:] = 0
        if self.store:
            self.store.pushpull(list(range(len(self.gradients))), self.gradients, out=self.gradients)
        count = len(self.own)
        mx.nd.multi_sgd_mom_update(*self.updated, lrs=[rate] * count, wds=[p.weight_decay] * count, momentum=p.momentum,
                                   rescale_grad=1 / batch, num_weights=count, out=self.own)  # fmt: skip
        # Otherwise MXNet queues hundreds of batches, and an interrupt waits for all of them. Waiting for the weights
        # would be too much: the next batch is made ready while this one's gradients are computed.
        if len(rows):
            self.seen[-1][0].wait_to_read()

    def _differentiate(self, rows: np.ndarray, shifts: np.ndarray | None) -> None:
        mx = self.mx
        images, labels = network.crops(self.images, rows, shifts, self.side), self.labels[rows]
        y = mx.nd.array(labels, ctx=self.device)  # (B,)
        with mx.autograd.record():
            out = self.net(self._input(images))  # (B, 10)
            loss = self.loss_of(out, y)  # (B,)
        loss.backward()
        self.seen.append((loss, out, labels))

    def sums(self) -> np.ndarray:
        seen, self.seen = self.seen, []
        losses = sum(float(loss.asnumpy().sum()) for loss, _, _ in seen)
        right = sum(int((out.asnumpy().argmax(axis=1) == labels).sum()) for _, out, labels in seen)
        return np.array([sum(len(labels) for _, _, labels in seen), losses, right], float)

    def total(self, numbers: np.ndarray) -> np.ndarray:
        if not self.store:
            return numbers
        array = self.mx.nd.array(np.pad(numbers, (0, MOST_NUMBERS - len(numbers))), dtype=np.float64)
        self.store.pushpull(len(self.gradients), array, out=array)
        return np.asarray(array.asnumpy()[: len(numbers)])

    def weights(self) -> Weights:
        return {name: array.asnumpy() for name, array in zip(SHAPES, self.own, strict=True)}

    def momentum(self) -> Weights:
        return {name: array.asnumpy() for name, array in zip(SHAPES, self.moments, strict=True)}

    def logits(self, images: np.ndarray) -> np.ndarray:
        return network.in_parts(lambda part: self.net(self._input(part)).asnumpy(), images)

    def _input(self, images: np.ndarray) -> Any:
        return self.mx.nd.array(network.to_input(images), ctx=self.device)  # (B, 1, 28, 28), 0 to 1
