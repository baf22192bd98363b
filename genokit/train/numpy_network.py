"""LeNet's predictions in plain NumPy: where no training engine is installed, and with none to wait for."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from genokit.train.network import Weights, in_parts, to_input

AT_ONCE = 50  # images: the windows of a batch, 7 MB, stay near the processor


def numpy_logits(weights: Weights, images: np.ndarray) -> np.ndarray:
    """Compute the network's output for each image with NumPy alone.

    Parameters
    ----------
    weights : dict of str to ndarray
        The weights of a LeNet, as ``Model.weights``: the shapes are in ``network.SHAPES``.
    images : ndarray
        uint8 (N, 28, 28), from 0 (paper) to 255 (ink).

    Returns
    -------
    ndarray
        float32 (N, 10): the logits. MXNet's differ by rounding errors, less than 1e-5.

    Raises
    ------
    InvalidParameters
        The images have another type or shape.

    Examples
    --------
    >>> from genokit.train.network import first_weights
    >>> numpy_logits(first_weights(1), np.zeros((3, 28, 28), np.uint8)).shape
    (3, 10)
    """
    return in_parts(partial(_forward, weights), images, AT_ONCE)


def _forward(weights: Weights, images: np.ndarray) -> np.ndarray:
    maps = np.moveaxis(to_input(images), 1, -1)  # channels last: a window is then copied in few pieces
    for layer in ("conv1", "conv2"):
        maps = _convolution(maps, weights[f"{layer}_weight"], weights[f"{layer}_bias"])
    flat = np.moveaxis(maps, -1, 1).reshape(len(images), -1)  # as the weights expect it: channels first
    hidden = np.tanh(flat @ weights["dense1_weight"].T + weights["dense1_bias"])
    return np.asarray(hidden @ weights["dense2_weight"].T + weights["dense2_bias"])


def _convolution(maps: np.ndarray, kernels: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """5 x 5 convolution, 2 x 2 max pooling, tanh: (N, S, S, in) -> (N, (S - 4) / 2, (S - 4) / 2, out)."""
    windows = np.moveaxis(sliding_window_view(maps, kernels.shape[2:], axis=(1, 2)), 3, -1)
    n, side, outputs = len(maps), windows.shape[1], len(kernels)
    flat = kernels.transpose(2, 3, 1, 0).reshape(-1, outputs)
    values = windows.reshape(n * side * side, -1) @ flat
    # tanh and the bias keep the order of numbers, so they wait until a quarter of them is left.
    largest = values.reshape(n, side // 2, 2, side // 2, 2, outputs).max(axis=(2, 4))
    return np.asarray(np.tanh(largest + bias))
