"""A small data set in MNIST's four IDX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from genokit import Dataset, Manifest
from genokit.train.digits import IDX, Digits


def idx(array: np.ndarray) -> bytes:
    """An array of unsigned bytes as an IDX file."""
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def small_mnist(digits: Digits, folder: Path, images: int, test_images: int) -> Dataset:
    """The first images to learn from and to test on, as a data set of their own in this folder."""
    for name, array, most in zip(IDX, digits, (images, images, test_images, test_images), strict=True):
        (folder / name).write_bytes(idx(array[:most]))
    return Manifest.freeze(folder, "small-mnist").fetch(progress=False)
