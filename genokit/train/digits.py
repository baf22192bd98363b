"""Digits as arrays, read from a data set: MNIST's four IDX files, or a sample in CSV."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import numpy as np

from genokit.errors import InvalidManifest, InvalidParameters

if TYPE_CHECKING:
    from genokit.data import Dataset

IDX = ("train-images", "train-labels", "t10k-images", "t10k-labels")
SAMPLE = "digits"
SIDE = 28
CLASSES = 10
HELD_OUT = 0.2
MOST = 2**30  # bytes of one array; a small compressed file could otherwise fill the memory


class Digits(NamedTuple):
    """Training and test images: uint8 (N, 28, 28), from 0 (paper) to 255 (ink); labels uint8 (N,)."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_digits(dataset: Dataset) -> Digits:
    """Read training and test images and labels from a data set.

    With MNIST's four files (resources train-images, train-labels, t10k-images, t10k-labels; IDX, gzipped or not) the
    test images are MNIST's test set. A sample (resource digits: CSV, one row per image, 784 pixels and the label) has
    no test set: one image in five of every class is held out instead, always the same ones. Results on these are
    results on a sample, not on MNIST's test set.

    Parameters
    ----------
    dataset : Dataset
        MNIST or a sample of it.

    Returns
    -------
    Digits
        The arrays ``images``, ``labels``, ``test_images`` and ``test_labels``.

    Raises
    ------
    InvalidParameters
        This is not a fetched data set.
    InvalidManifest
        The data set does not contain digits; the message names the file, what was expected and what was found.
    """
    check_dataset(dataset)
    paths = dataset.paths
    if paths.keys() >= set(IDX):
        files = [paths[name] for name in IDX]
        images, labels, test_images, test_labels = map(read_idx, files)
        _check(images, labels, *files[:2])
        _check(test_images, test_labels, *files[2:])
        return Digits(images, labels, test_images, test_labels)
    if SAMPLE in paths:
        images, labels = _read_csv(paths[SAMPLE])
        _check(images, labels, paths[SAMPLE], paths[SAMPLE])
        return _hold_out(images, labels)
    raise InvalidManifest(
        f"Data set '{dataset.name}' cannot train LeNet: expected the resources {', '.join(IDX)}, or {SAMPLE} for a "
        f"sample; got {', '.join(sorted(paths)) or 'none'}. Manifest('mnist') has them."
    )


def check_dataset(dataset: object) -> None:
    """Raise InvalidParameters unless this is a fetched data set."""
    if not hasattr(dataset, "paths"):
        raise InvalidParameters(f"dataset must be fetched data, as Manifest('mnist').fetch() returns, got {dataset!r}.")


def read_idx(path: Path) -> np.ndarray:
    """Read the array in an IDX file of unsigned bytes, gzipped or not; raises InvalidManifest for any other file.

    The format (big-endian): two zero bytes, type 8, the number of dimensions, each dimension in four bytes, the data;
    http://yann.lecun.com/exdb/mnist/ describes it.
    """
    with _opened(path) as file:
        start = file.read(4)
        sizes = file.read(4 * start[3]) if len(start) == 4 else b""
        if start[:3] != b"\0\0\x08" or not len(start) + len(sizes) == 4 + 4 * start[3]:
            raise _unfit(path, "an IDX file of unsigned bytes (00 00 08 ..)", start.hex(" ") or "an empty file")
        shape = tuple(np.frombuffer(sizes, ">u4").tolist())
        length, head = math.prod(shape), 4 + len(sizes)
        if length > MOST:
            raise _unfit(path, f"at most {MOST:,} bytes", f"an array {shape}")
        data = file.read(length + 1)
    if len(data) != length:
        got = f"{head + len(data):,} bytes" if len(data) < length else "more"
        raise _unfit(path, f"{head + length:,} bytes for an array {shape}", got)
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    expected = f"{SIDE * SIDE} pixels and a label per row, as comma-separated integers from 0 to 255"
    with _opened(path) as file:
        text = file.read(MOST // 4 + 1)
    if len(text) > MOST // 4:
        raise _unfit(path, f"at most {MOST // 4:,} bytes", "more")
    lines = text.decode("ascii", "replace").splitlines()
    if not lines:
        raise _unfit(path, expected, "an empty file")
    try:
        rows = np.loadtxt(lines, delimiter=",", dtype=np.uint8, ndmin=2)
    except ValueError as error:
        raise _unfit(path, expected, str(error)) from error
    if rows.shape[1] != SIDE * SIDE + 1:
        raise _unfit(path, expected, f"{rows.shape[1]} numbers a row")
    return rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1]


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, gzipped or not. It is decompressed while it is read, so a reader gets no more than it asks for."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
        except (OSError, EOFError, zlib.error) as error:
            raise _unfit(path, "a complete gzip file" if packed else "a readable file", str(error)) from error


def _hold_out(images: np.ndarray, labels: np.ndarray) -> Digits:
    # NumPy guarantees RandomState's stream, so the same images are always held out, whatever the seed.
    order = np.random.RandomState(0).permutation(len(labels))
    held = np.zeros(len(labels), dtype=bool)
    for digit in range(CLASSES):
        of_class = order[labels[order] == digit]
        held[of_class[: round(len(of_class) * HELD_OUT)]] = True
    return Digits(images[~held], labels[~held], images[held], labels[held])


def _check(images: np.ndarray, labels: np.ndarray, images_file: Path, labels_file: Path) -> None:
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise _unfit(images_file, f"images of {SIDE} by {SIDE}", f"an array {images.shape}")
    if labels.shape != (len(images),):
        raise _unfit(labels_file, f"{len(images):,} labels, one per image", f"an array {labels.shape}")
    if labels.max() >= CLASSES:
        raise _unfit(labels_file, f"labels from 0 to {CLASSES - 1}", f"a label {labels.max()}")


def _unfit(path: Path, expected: str, got: str) -> InvalidManifest:
    return InvalidManifest(
        f"{path} is not a file of digits: expected {expected}, got {got}. "
        "Manifest(...).verify() checks the files against their manifest."
    )
