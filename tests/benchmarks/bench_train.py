"""What the kit's training costs: samples a second of ``train.fit`` beside a bare gluon loop on the same images.

    python tests/benchmarks/bench_train.py [images [workers]]

Then two workers beside one, each with one thread: batches of 256, epochs interleaved, and the machine's load, because
other programs slow two workers more than one.

The bare loop has the same network, batches, optimizer and threads and nothing else: no metrics, no bar, no history.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from genokit import Dataset, Manifest, train
from genokit.train.digits import Digits
from genokit.train.mxnet import load
from genokit.train.network import first_weights, set_weights

sys.path.append(str(Path(__file__).parents[1]))
from small_mnist import small_mnist  # the tests' own

EPOCHS = 2  # the first warms up and is not counted


def bare(digits: Digits, parameters: train.Parameters) -> float:
    """Samples a second of a plain loop."""
    mx = load(parameters.threads)
    net = train.lenet(mx)
    set_weights(mx, net, first_weights(parameters.seed), mx.cpu())
    net.hybridize(static_alloc=True)
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    settings = {
        "learning_rate": parameters.learning_rate,
        "momentum": parameters.momentum,
        "wd": parameters.weight_decay,
    }
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", settings, kvstore=None)
    images = digits.images[:, None].astype(np.float32) / 255
    size = parameters.batch_size
    for _ in range(EPOCHS):
        started = time.perf_counter()
        for start in range(0, len(images), size):
            x, y = (mx.nd.array(a[start : start + size]) for a in (images, digits.labels))
            with mx.autograd.record():
                loss = loss_of(net(x), y)
            loss.backward()
            trainer.step(len(y))
            loss.wait_to_read()
        mx.nd.waitall()
    return len(images) / (time.perf_counter() - started)


def fitted(dataset: Dataset, parameters: train.Parameters, progress: bool) -> float:
    """Samples a second of ``train.fit``, validation not counted."""
    return float(train.fit(dataset, parameters, progress=progress).table["samples_per_s"].iloc[-1])


def shared(dataset: Dataset, folder: Path, workers: int) -> float:
    """Samples a second of ``python -m genokit.train`` with so many workers of one thread each, in its best epoch."""
    words = ["--data", dataset.ref, "--out", str(folder), "--workers", str(workers), "--threads", "1"]
    words += ["--batch-size", "256", "--epochs", "4"]
    subprocess.run([sys.executable, "-m", "genokit.train", *words], check=True, stdout=subprocess.DEVNULL)
    return float(train.load(folder).history.table["samples_per_s"].max())


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 6400
    digits = train.load_digits(Manifest("mnist").fetch(progress=False))
    with tempfile.TemporaryDirectory() as folder:
        small = small_mnist(digits, Path(folder), wanted, 500)
        if "workers" not in sys.argv:
            table(train.load_digits(small), small)
        (Path(folder) / "out").mkdir()
        speeds = [[shared(small, Path(folder) / "out", workers) for workers in (1, 2)] for _ in range(3)]
        one, two = (max(column) for column in zip(*speeds, strict=True))
        print(f"{'one worker':36}{one:12,.0f}\n{'two workers':36}{two:12,.0f}   {two / one:.2f} times as fast")
        print(f"best of 3 runs each; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def table(digits: Digits, dataset: Dataset) -> None:
    """Measure and print."""
    print(f"{len(digits.images):,} images, one run each, counted in the second epoch\n")
    print(f"{'':24}{'batch 64':>12}{'batch 256':>12}   samples/s")
    rows: dict[str, Callable[[train.Parameters], float]] = {
        "bare gluon loop": lambda p: bare(digits, p),
        "train.fit": lambda p: fitted(dataset, p, progress=False),
        "train.fit with its bar": lambda p: fitted(dataset, p, progress=True),
    }
    for name, measure in rows.items():
        speeds = [measure(train.Parameters(epochs=EPOCHS, batch_size=size)) for size in (64, 256)]
        print(f"{name:24}" + "".join(f"{speed:12,.0f}" for speed in speeds), flush=True)


if __name__ == "__main__":
    main()
