"""The network in NumPy: the same logits as MXNet's, and as the definition's."""

from __future__ import annotations

import numpy as np
import pytest

from genokit import train
from genokit.errors import InvalidParameters
from genokit.train import engines, network
from genokit.train.digits import Digits
from genokit.train.numpy_network import AT_ONCE, numpy_logits

WEIGHTS = network.first_weights(1)
NOISE = np.random.RandomState(7).randint(0, 256, (2 * AT_ONCE + 3, 28, 28)).astype(np.uint8)


def by_definition(weights: network.Weights, images: np.ndarray) -> np.ndarray:
    """LeNet in double precision, written as it is defined: a sum over the kernel, tanh, the largest of four."""
    named = {name: array.astype(np.float64) for name, array in weights.items()}
    maps = images[:, None] / 255
    for layer in ("conv1", "conv2"):
        side = maps.shape[-1] - 4
        summed = (
            np.zeros((len(images), len(named[f"{layer}_bias"]), side, side)) + named[f"{layer}_bias"][:, None, None]
        )
        for row in range(5):
            for column in range(5):
                under = maps[:, :, row : row + side, column : column + side]
                summed += np.einsum("nihw,oi->nohw", under, named[f"{layer}_weight"][:, :, row, column])
        values = np.tanh(summed)
        quarters = [values[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        maps = np.maximum.reduce(quarters)
    hidden = np.tanh(maps.reshape(len(images), 800) @ named["dense1_weight"].T + named["dense1_bias"])
    return hidden @ named["dense2_weight"].T + named["dense2_bias"]


def with_mxnet(weights: network.Weights, images: np.ndarray) -> np.ndarray:
    none = np.zeros((0, 28, 28), np.uint8)
    p = engines.settle(train.Parameters(engine="mxnet"))
    return engines.start(p, Digits(none, none[:, 0, 0], none, none[:, 0, 0]), weights, {}).logits(images)


def test_the_logits_are_those_of_mxnet(mnist) -> None:
    digits = train.load_digits(mnist).test_images[:200]
    for images in (digits, NOISE):
        got = numpy_logits(WEIGHTS, images)
        assert got.dtype == np.float32
        assert np.abs(got - with_mxnet(WEIGHTS, images)).max() < 1e-5


def test_the_logits_are_those_of_the_definition_in_double_precision() -> None:
    biased = {name: array + np.float32(0.1) * (array.ndim == 1) for name, array in WEIGHTS.items()}
    for weights in (WEIGHTS, biased):
        assert np.abs(numpy_logits(weights, NOISE) - by_definition(weights, NOISE)).max() < 1e-5


@pytest.mark.parametrize("n", [0, 1, AT_ONCE, AT_ONCE + 1])
def test_images_are_taken_in_batches_of_any_number(n: int) -> None:
    got = numpy_logits(WEIGHTS, NOISE[:n])
    assert got.shape == (n, 10)
    assert np.abs(got - numpy_logits(WEIGHTS, NOISE)[:n]).max(initial=0) < 1e-5


def test_other_images_are_refused_with_what_was_expected() -> None:
    with pytest.raises(InvalidParameters, match=r"uint8 \(N, 28, 28\).* got float64 \(2, 28, 28\)"):
        numpy_logits(WEIGHTS, np.zeros((2, 28, 28)))
    with pytest.raises(InvalidParameters, match=r"got uint8 \(28, 28\).*images\[:1\]"):
        numpy_logits(WEIGHTS, NOISE[0])
