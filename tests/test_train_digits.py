"""Digits out of files: whole ones, and every way in which they can be broken."""

from __future__ import annotations

import gzip
import tracemalloc

import numpy as np
import pytest
from small_mnist import idx

from genokit import Dataset, train
from genokit.errors import InvalidManifest
from genokit.train.digits import read_idx


def dataset(sample: bool, **files):
    paths = {name.replace("_", "-"): path for name, path in files.items()}
    return Dataset("digits", "Digits", "1", sample, paths, dict.fromkeys(paths, "0" * 64), "digits")


@pytest.fixture
def sample_file(tmp_path):
    random = np.random.RandomState(3)
    labels = np.repeat(np.arange(10), 20)
    rows = np.column_stack([random.randint(0, 256, (200, 784)), labels])
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(gzip.compress("\n".join(",".join(map(str, row)) for row in rows).encode()))
    return path


def test_mnist_has_its_known_counts(mnist):
    digits = train.load_digits(mnist)
    if mnist.sample:
        assert (len(digits.images), len(digits.test_images)) == (4000, 1000)
    else:
        assert digits.images.shape == (60000, 28, 28)
        assert digits.labels[:5].tolist() == [5, 0, 4, 1, 9]
        assert digits.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert digits.images.dtype == digits.labels.dtype == np.uint8


def test_a_sample_holds_out_the_same_fifth_of_every_class(sample_file):
    one, two = (train.load_digits(dataset(True, digits=sample_file)) for _ in range(2))
    assert np.bincount(one.test_labels).tolist() == [4] * 10
    assert np.bincount(one.labels).tolist() == [16] * 10
    assert (one.test_images == two.test_images).all()
    seen = {image.tobytes() for image in one.images}
    assert not any(image.tobytes() in seen for image in one.test_images)


def test_idx_files_are_read_gzipped_or_not(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx(array))
    (tmp_path / "packed").write_bytes(gzip.compress(idx(array)))
    assert (read_idx(tmp_path / "plain") == array).all()
    assert (read_idx(tmp_path / "packed") == array).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"<html>", "got 3c 68 74 6d"),
        (idx(np.zeros((2, 28, 28), np.uint8))[:-1], "expected 1,584 bytes for an array (2, 28, 28), got 1,583 bytes"),
        (idx(np.zeros(3, np.uint8))[:6], "an IDX file"),
        (gzip.compress(b"\0\0\x08\x01" + bytes(99), mtime=0)[:-20], "a complete gzip file"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0" + b"\xff" * 99, "a complete gzip file"),
        (b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3, "at most 1,073,741,824 bytes"),
        (b"\0\0\x08\xff" + bytes(40), "an IDX file"),
        (idx(np.zeros((2, 28, 28), np.uint8)) + b"x", "expected 1,584 bytes for an array (2, 28, 28), got more"),
    ],
)
def test_a_file_that_is_not_idx_is_refused(tmp_path, content, said):
    path = tmp_path / "train-images"
    path.write_bytes(content)
    with pytest.raises(InvalidManifest) as raised:
        read_idx(path)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)


def test_a_decompression_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    with gzip.open(tmp_path / "bomb", "wb", 1) as file:
        file.write(idx(np.zeros((2, 28, 28), np.uint8)))
        for _ in range(64):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(InvalidManifest, match="got more"):
        read_idx(tmp_path / "bomb")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (np.zeros((3, 14, 14)), np.zeros(3), "images of 28 by 28, got an array (3, 14, 14)"),
        (np.zeros((3, 28, 28)), np.zeros(2), "expected 3 labels, one per image, got an array (2,)"),
        (np.zeros((3, 28, 28)), np.full(3, 11), "labels from 0 to 9, got a label 11"),
        (np.zeros((0, 28, 28)), np.zeros(0), "images of 28 by 28"),
    ],
)
def test_images_and_labels_that_do_not_match_are_refused(tmp_path, images, labels, said):
    for name, array in (("images", images), ("labels", labels)):
        (tmp_path / name).write_bytes(idx(array.astype(np.uint8)))
    files = {"train_images": tmp_path / "images", "train_labels": tmp_path / "labels"}
    files |= {"t10k_images": tmp_path / "images", "t10k_labels": tmp_path / "labels"}
    with pytest.raises(InvalidManifest) as raised:
        train.load_digits(dataset(False, **files))
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["", "1,2,3\n", "a,b\n", ",".join(["300"] * 785), ",".join(["1.5"] * 785)])
def test_a_sample_that_is_not_a_table_of_digits_is_refused(tmp_path, text):
    path = tmp_path / "digits.csv"
    path.write_text(text)
    with pytest.raises(InvalidManifest, match=r"digits\.csv is not a file of digits: expected"):
        train.load_digits(dataset(True, digits=path))
