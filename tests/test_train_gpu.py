"""Training on an NVIDIA GPU with PyTorch: ``make test-gpu``."""

from __future__ import annotations

import numpy as np
import pytest
from small_mnist import small_mnist

from genokit import Batch, train
from genokit.train import engines
from genokit.train.network import first_weights

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def few(mnist, tmp_path_factory):
    """1,000 images: of batches of 64 the last has 40, which no graph of a whole batch can serve."""
    return small_mnist(train.load_digits(mnist), tmp_path_factory.mktemp("few digits"), 1000, 300)


@pytest.mark.parametrize("shift", [0, 2])
def test_steps_on_the_gpu_lead_to_the_weights_of_steps_on_the_cpu(few, shift):
    digits = train.load_digits(few)
    made = [
        engines.start(
            train.Parameters(engine="torch", threads=1, device=device, shift=shift), digits, first_weights(3), {}
        )
        for device in ("cpu", "gpu")
    ]
    dice = np.random.RandomState(5)
    for count in (64, 64, 40, 64):
        rows, shifts = dice.permutation(1000)[:count], dice.randint(-shift, shift + 1, (count, 2)) if shift else None
        for engine in made:
            engine.step(rows, shifts, 0.01, len(rows))
    cpu, gpu = made
    assert all(np.abs(array - gpu.weights()[name]).max() < 1e-3 for name, array in cpu.weights().items())
    assert all(np.abs(array - gpu.momentum()[name]).max() < 1e-3 for name, array in cpu.momentum().items())
    assert np.allclose(cpu.sums(), gpu.sums(), rtol=1e-3, atol=1)
    assert np.abs(cpu.logits(digits.test_images) - gpu.logits(digits.test_images)).max() < 1e-2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_on_the_gpu_repeats_and_resumes_bit_for_bit(few, tmp_path, precision):
    p = train.Parameters(engine="torch", device="gpu", epochs=2, shift=1, precision=precision)
    straight = train.fit(few, p, progress=False)
    assert straight.model.sha256 == train.fit(few, p, progress=False).model.sha256
    train.fit(few, p, checkpoint=tmp_path, until=1, progress=False)
    assert train.fit(few, p, checkpoint=tmp_path, resume=True, progress=False).model.sha256 == straight.model.sha256


def test_a_gpu_job_trains_on_the_gpu(few, account):
    job = train.submit(few, queue="gpu", gpus=1, engine="torch", epochs=2, batch=Batch(settings=account))
    assert len(train.follow(job)) == 2
    assert train.load(job.parameters["out"]).parameters.device == "gpu"
