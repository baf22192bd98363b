"""LeNet, the network: its architecture, its initial weights, its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from genokit.errors import InvalidParameters

Weights = dict[str, np.ndarray]

SHAPES: dict[str, tuple[int, ...]] = {
    "conv1_weight": (20, 1, 5, 5),
    "conv1_bias": (20,),
    "conv2_weight": (50, 20, 5, 5),
    "conv2_bias": (50,),
    "dense1_weight": (500, 800),
    "dense1_bias": (500,),
    "dense2_weight": (10, 500),
    "dense2_bias": (10,),
}

# Images in one step of a prediction: large enough to be fast, small enough to need only 30 MB.
AT_ONCE = 500


def lenet(mx: ModuleType | None = None) -> Any:
    """LeNet as a gluon HybridBlock for 28 by 28 digits: (N, 1, 28, 28) float32 in 0..1 -> (N, 10) logits.

    431,080 weights. After LeNet-5 of Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied
    to document recognition", Proceedings of the IEEE 86(11), 2278-2324 (1998), https://doi.org/10.1109/5.726791, in the
    variant of MXNet's image-classification example. Differences from 1998: 20 and 50 feature maps instead
    of 6 and 16, the second fully connected to the first; max pooling instead of subsampling with trained weights; one
    hidden layer of 500 instead of 120 and 84; plain tanh instead of a scaled one; softmax instead of distances to fixed
    class patterns (RBF); and no padding to 32 by 32.

    Parameters
    ----------
    mx : module, optional
        The loaded MXNet. Default: load it.

    Returns
    -------
    mxnet.gluon.HybridBlock
        The network without weights: see ``first_weights``.

    Raises
    ------
    MissingDependency
        MXNet is not available.
    """
    if mx is None:
        from genokit.train.mxnet import load

        mx = load()
    nn = mx.gluon.nn
    net = nn.HybridSequential(prefix="")
    net.add(  # (N, 1, 28, 28)
        nn.Conv2D(20, kernel_size=5, activation="tanh", in_channels=1, prefix="conv1_"),  # -> (N, 20, 24, 24)
        nn.MaxPool2D(pool_size=2, strides=2),  # -> (N, 20, 12, 12)
        nn.Conv2D(50, kernel_size=5, activation="tanh", in_channels=20, prefix="conv2_"),  # -> (N, 50, 8, 8)
        nn.MaxPool2D(pool_size=2, strides=2),  # -> (N, 50, 4, 4)
        nn.Dense(500, activation="tanh", in_units=800, prefix="dense1_"),  # (N, 800) flattened -> (N, 500)
        nn.Dense(10, in_units=500, prefix="dense2_"),  # -> (N, 10)
    )
    return net


def first_weights(seed: int) -> Weights:
    """Initial weights: normal with standard deviation sqrt(2 / inputs) (He et al. 2015), biases 0; float32.

    Drawn with NumPy's RandomState, whose stream NumPy guarantees, and not with MXNet's generator, whose
    state cannot be read and is shared by the whole process.

    >>> {name: array.shape for name, array in first_weights(1).items()} == SHAPES
    True
    """
    random = np.random.RandomState(seed)
    weights = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    for name, shape in SHAPES.items():
        if name.endswith("_weight"):
            weights[name][:] = random.normal(0.0, (2.0 / np.prod(shape[1:])) ** 0.5, shape)
    return weights


def to_input(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 28, 28), 0 to 255 -> float32 (N, 1, 28, 28), 0 to 1."""
    return images.astype(np.float32)[:, None] * np.float32(1 / 255)


def padded(images: np.ndarray, shift: int) -> np.ndarray:
    """The images with a margin of paper, from which ``crops`` cuts them: uint8 (N, 28 + 2 shift, 28 + 2 shift)."""
    return np.pad(images, ((0, 0), (shift, shift), (shift, shift))) if shift else images


def crops(padded: Any, rows: Any, shifts: Any, side: Any) -> Any:
    """Rows of padded images, each shifted by its own (down, right) pixels; arrays of NumPy or of PyTorch.

    ``shifts`` is int (B, 2), or None for images without a margin; ``side`` is 0 to 27 plus the margin's width.

    >>> one = np.zeros((1, 28, 28), np.uint8); one[0, 5, 7] = 255
    >>> moved = crops(padded(one, 2), np.array([0]), np.array([[2, -1]]), np.arange(28) + 2)
    >>> np.argwhere(moved[0]).tolist()
    [[7, 6]]
    """
    if shifts is None:
        return padded[rows]
    down, right = (side - shifts[:, axis, None] for axis in (0, 1))  # (B, 28)
    return padded[rows[:, None, None], down[:, :, None], right[:, None, :]]


def in_parts(forward: Callable[[np.ndarray], np.ndarray], images: np.ndarray, at_once: int = AT_ONCE) -> np.ndarray:
    """The logits of all images, so many at once: uint8 (N, 28, 28) -> float32 (N, 10). Raises InvalidParameters."""
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        raise InvalidParameters(
            f"images must be uint8 (N, 28, 28), 0 to 255, got {images.dtype} {images.shape}. "
            "For a single image use images[:1]."
        )
    parts = [forward(images[start : start + at_once]) for start in range(0, len(images), at_once)]
    return np.concatenate([np.zeros((0, 10), np.float32), *parts])


def misfits(weights: Weights, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> list[str]:
    """What keeps these arrays from being float32 arrays of just these names and shapes; none if they are."""
    wanted = {name: f"float32 {shape}" for name, shape in shapes.items()}
    got = {name: f"{array.dtype} {array.shape}" for name, array in weights.items()}
    names = [name for name in sorted(wanted | got) if wanted.get(name) != got.get(name)]
    return [f"{name}: expected {wanted.get(name, 'none')}, got {got.get(name, 'none')}" for name in names]


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Log-softmax of each row: (N, C) -> (N, C)."""
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
