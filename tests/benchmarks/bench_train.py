"""What the kit's training costs: samples a second of ``train.fit`` beside bare loops of MXNet and PyTorch.

    python tests/benchmarks/bench_train.py [rounds] [images]

The bare loops have the same network, batches, optimizer and threads and nothing else: no metrics, no bar, no history.
Every measurement is a process of its own, because an engine's number of threads is fixed when it loads; the rounds go
through all of them in turn, and the table has the medians. Without PyTorch its lines are left out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

import numpy as np

from genokit import Manifest, train
from genokit.train.digits import Digits
from genokit.train.mxnet import load
from genokit.train.torch_engine import load as load_torch

EPOCHS = 2  # the first warms up and is not counted
BATCHES = (64, 256)
RATE = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
# Name, what to run, and MXNet's settings by which it might be faster.
LINES: list[tuple[str, str, dict[str, str]]] = [
    ("bare gluon loop", "gluon", {}),
    ("train.fit, MXNet", "mxnet", {}),
    ("  with its bar", "bar", {}),
    ("  oneDNN subgraphs", "mxnet", {"MXNET_SUBGRAPH_BACKEND": "MKLDNN"}),
    ("  naive engine", "mxnet", {"MXNET_ENGINE_TYPE": "NaiveEngine"}),
    ("  passive threads", "mxnet", {"OMP_WAIT_POLICY": "passive"}),
    ("  two workers", "workers", {}),
    ("bare PyTorch loop", "eager", {}),
    ("train.fit, PyTorch", "torch", {}),
]


def gluon(digits: Digits, size: int, threads: int) -> float:
    """Samples a second of a plain loop in MXNet."""
    mx = load(threads)
    net = train.lenet(mx)
    net.initialize(mx.init.Xavier())
    net.hybridize(static_alloc=True)
    loss_of = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    settings = {"learning_rate": RATE["lr"], "momentum": RATE["momentum"], "wd": RATE["weight_decay"]}
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", settings, kvstore=None)
    images = digits.images[:, None].astype(np.float32) / 255
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


def eager(digits: Digits, size: int, threads: int) -> float:
    """Samples a second of a plain loop in PyTorch."""
    torch = load_torch()
    torch.set_num_threads(threads)
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.Tanh(), nn.Linear(500, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), **RATE)
    images, labels = torch.from_numpy(digits.images[:, None] / np.float32(255)), torch.from_numpy(digits.labels).long()
    for _ in range(EPOCHS):
        started = time.perf_counter()
        for start in range(0, len(images), size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[start : start + size]), labels[start : start + size]).backward()
            optimizer.step()
    return len(images) / (time.perf_counter() - started)


def one(kind: str, size: int, threads: int, images: int) -> float:
    """One measurement, in this process; validation is not counted."""
    dataset = Manifest("mnist").fetch(progress=False)
    if kind in ("gluon", "eager"):
        digits = train.load_digits(dataset)
        part = digits._replace(images=digits.images[:images], labels=digits.labels[:images])
        return {"gluon": gluon, "eager": eager}[kind](part, size, threads)
    if kind == "workers":  # of a thread each, where one worker has so many
        with tempfile.TemporaryDirectory() as out:
            words = ["--data", dataset.ref, "--out", out, "--workers", "2", "--threads", "1", "--images", str(images)]
            words += ["--batch-size", str(size), "--epochs", str(EPOCHS), "--engine", "mxnet"]
            subprocess.run([sys.executable, "-m", "genokit.train", *words], check=True, stdout=subprocess.DEVNULL)
            return float(train.load(out).history.table["samples_per_s"].iloc[-1])
    engine = "torch" if kind == "torch" else "mxnet"
    p = train.Parameters(epochs=EPOCHS, batch_size=size, threads=threads, engine=engine, images=images)
    return float(train.fit(dataset, p, progress=kind == "bar").table["samples_per_s"].iloc[-1])


def measured(kind: str, size: int, threads: int, images: int, settings: dict[str, str]) -> float:
    words = [sys.executable, __file__, "--one", kind, str(size), str(threads), str(images)]
    done = subprocess.run(words, env={**os.environ, **settings}, stdout=subprocess.PIPE, check=True, text=True,
                          stderr=subprocess.DEVNULL)  # fmt: skip
    return float(done.stdout.splitlines()[-1])


def main(rounds: int, images: int) -> None:
    """Measure and print."""
    cores = len(os.sched_getaffinity(0))
    lines = [line for line in LINES if line[1] not in ("eager", "torch") or find_spec("torch")]
    columns = [(size, threads) for threads in (1, cores) for size in BATCHES]
    print(f"{images:,} images, second epoch, median of {rounds}, load {os.getloadavg()[0]:.1f}; samples a second\n")
    heads = [f"{size} x {threads} thread{'s' * (threads > 1)}" for size, threads in columns]
    print(f"{'batch':22}" + "".join(f"{head:>16}" for head in heads), flush=True)
    runs: dict[str, list[list[float]]] = {name: [[] for _ in columns] for name, _, _ in lines}
    for _ in range(rounds):
        for place, (size, threads) in enumerate(columns):
            for name, kind, settings in lines:
                runs[name][place].append(measured(kind, size, threads, images, settings))
    for name, cells in runs.items():
        print(f"{name:22}" + "".join(f"{statistics.median(cell):16,.0f}" for cell in cells))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(one(sys.argv[2], *map(int, sys.argv[3:])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, int(sys.argv[2]) if len(sys.argv) > 2 else 6400)
