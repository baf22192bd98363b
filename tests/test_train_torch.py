"""PyTorch beside MXNet: the same weights, steps, checkpoints and command. ``make test-torch``."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from small_mnist import small_mnist

from genokit import train
from genokit.errors import InvalidParameters
from genokit.train import engines
from genokit.train.network import first_weights

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def few(mnist, tmp_path_factory):
    return small_mnist(train.load_digits(mnist), tmp_path_factory.mktemp("few digits"), 1000, 300)


def both(few, **changes):
    digits = train.load_digits(few)
    made = (train.Parameters(engine=name, threads=1, **changes) for name in ("mxnet", "torch"))
    return [engines.start(p, digits, first_weights(3), {}) for p in made]


def test_the_same_weights_give_the_same_logits(few):
    images = train.load_digits(few).test_images
    mxnet, torch = (engine.logits(images) for engine in both(few))
    assert np.abs(mxnet - torch).max() < 1e-5
    model = train.fit(few, train.Parameters(engine="torch", batch_size=100), progress=False).model
    for name in ("numpy", "mxnet"):
        assert np.abs(model.logits(images, engine=name) - model.logits(images, engine="torch")).max() < 1e-5


@pytest.mark.parametrize("shift", [0, 2])
def test_the_same_steps_lead_to_the_same_weights_and_momentum(few, shift):
    mxnet, torch = both(few, shift=shift)
    dice = np.random.RandomState(5)
    for _ in range(5):
        rows, shifts = dice.permutation(1000)[:64], dice.randint(-shift, shift + 1, (64, 2)) if shift else None
        for engine in (mxnet, torch):
            engine.step(rows, shifts, 0.01, len(rows))
    for kept in ("weights", "momentum"):
        for name, array in getattr(mxnet, kept)().items():
            assert np.abs(array - getattr(torch, kept)()[name]).max() < 1e-4, (kept, name)
    assert np.allclose(mxnet.sums(), torch.sums(), atol=1e-2)
    assert not torch.sums().any()


def test_both_engines_learn_as_well(mnist, tmp_path):
    few = small_mnist(train.load_digits(mnist), tmp_path, 5000, 2000)
    reached = {
        name: [
            train.fit(few, train.Parameters(engine=name, threads=1, seed=seed), progress=False).validation_accuracy
            for seed in (1, 2, 3)
        ]
        for name in ("mxnet", "torch")
    }
    assert abs(np.mean(reached["mxnet"]) - np.mean(reached["torch"])) < 0.01, reached
    assert min(reached["torch"]) > 0.85


def test_a_training_repeats_and_resumes_bit_for_bit(few, tmp_path):
    command = [sys.executable, "-m", "genokit.train", "--data", few.ref, "--engine", "torch", "--threads", "1",
               "--batch-size", "50", "--shift", "1", "--epochs", "2"]  # fmt: skip
    for out in ("a", "b"):
        subprocess.run([*command, "--out", str(tmp_path / out)], check=True, stdout=subprocess.PIPE)
    assert train.load(tmp_path / "a").sha256 == train.load(tmp_path / "b").sha256
    assert train.load(tmp_path / "a").versions["torch"]
    p = train.Parameters(engine="torch", threads=1, batch_size=50, shift=1, epochs=2)
    train.fit(few, p, checkpoint=tmp_path / "c", until=1, progress=False)
    resumed = train.fit(few, p, checkpoint=tmp_path / "c", resume=True, progress=False)
    assert resumed.model.sha256 == train.load(tmp_path / "a").sha256


def test_bfloat16_learns_and_stays_near_float32(few):
    images = train.load_digits(few).test_images
    made = {
        precision: train.fit(
            few, train.Parameters(engine="torch", threads=1, epochs=3, batch_size=32, precision=precision),
            progress=False,
        )
        for precision in ("float32", "bfloat16")
    }  # fmt: skip
    full, half = made["float32"], made["bfloat16"]
    assert abs(full.validation_accuracy - half.validation_accuracy) < 0.05
    assert full.model.sha256 != half.model.sha256
    assert half.model.weights["conv1_weight"].dtype == np.float32
    assert np.isfinite(half.model.logits(images)).all()
    with pytest.raises(InvalidParameters, match="bfloat16' needs PyTorch"):
        train.fit(few, train.Parameters(engine="mxnet", precision="bfloat16"), progress=False)


def test_an_open_choice_resumes_with_the_engine_of_the_checkpoint(few, tmp_path):
    p = train.Parameters(engine="torch", threads=1, batch_size=100, epochs=2)
    train.fit(few, p, checkpoint=tmp_path, until=1, progress=False)
    resumed = train.fit(few, p.replace(engine="auto", threads=0), checkpoint=tmp_path, resume=True, progress=False)
    assert resumed.parameters == p
    with pytest.raises(InvalidParameters, match="engine is 'torch' there and 'mxnet' here"):
        train.fit(few, p.replace(engine="mxnet"), checkpoint=tmp_path, resume=True, progress=False)


def test_a_missing_gpu_is_an_error_with_a_way_out(few, tmp_path):
    words = ["--data", few.ref, "--out", str(tmp_path), "--engine", "torch", "--device", "gpu"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # also where this machine has a GPU
    done = subprocess.run([sys.executable, "-m", "genokit.train", *words], capture_output=True, text=True, env=hidden)
    assert done.returncode == 1
    assert re.search(r"MissingDependency: .*PyTorch finds no GPU.*device='cpu'", done.stderr)
