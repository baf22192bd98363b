"""LeNet in PyTorch on a GPU: the kit's loop beside a plain PyTorch loop, and the time to an accuracy of 0.99.

    python tests/benchmarks/bench_gpu.py [rounds]

The plain loop is what one writes first: a DataLoader, an nn.Sequential, torch.optim.SGD, and loss.item() for the log.
Without an NVIDIA GPU it says so and measures nothing.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

from genokit import Dataset, Manifest, train
from genokit.errors import MissingDependency
from genokit.train.digits import Digits
from genokit.train.torch_engine import load

BATCHES = (64, 256, 1024)
EPOCHS = 3  # the first warms up and is not counted


def plain(digits: Digits, size: int, device: str = "cuda") -> float:
    """Samples a second of a plain loop."""
    torch = load()
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.Tanh(), nn.Linear(500, 10),
    ).to(device)  # fmt: skip
    images = torch.from_numpy(digits.images[:, None].astype(np.float32) / 255)
    data = torch.utils.data.TensorDataset(images, torch.from_numpy(digits.labels.astype(np.int64)))
    batches = torch.utils.data.DataLoader(data, size, shuffle=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for _ in range(EPOCHS):
        started, total = time.perf_counter(), 0.0
        for x, y in batches:
            loss = nn.functional.cross_entropy(net(x.to(device)), y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
    return len(images) / (time.perf_counter() - started)


def fitted(dataset: Dataset, size: int, device: str = "gpu", precision: str = "float32") -> float:
    """Samples a second of ``train.fit``, validation not counted."""
    p = train.Parameters(epochs=EPOCHS, batch_size=size, engine="torch", device=device, precision=precision)
    return float(train.fit(dataset, p, progress=False).table["samples_per_s"].iloc[-1])


def main(rounds: int) -> None:
    """Measure and print."""
    torch = load()
    dataset = Manifest("mnist").fetch(progress=False)
    digits = train.load_digits(dataset)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, median of {rounds} interleaved runs\n")
    print(f"{'batch':>6}{'plain loop':>14}{'train.fit':>14}{'ratio':>8}{'bfloat16':>14}   samples/s")
    for size in BATCHES:
        runs = [
            (plain(digits, size), fitted(dataset, size), fitted(dataset, size, precision="bfloat16"))
            for _ in range(rounds)
        ]
        bare, kit, half = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{size:6}{bare:14,.0f}{kit:14,.0f}{kit / bare:8.2f}{half:14,.0f}", flush=True)
    started = time.perf_counter()
    p = train.Parameters(epochs=10, shift=1, schedule="cosine", final_rate=0.01, engine="torch", device="gpu")
    table = train.fit(dataset, p, progress=False).table
    reached = table[table["validation_accuracy"] >= 0.99]
    at = f"{table['seconds'][: reached.index[0] + 1].sum():.1f} s of training" if len(reached) else "never"
    print(f"\n0.99 reached after {at}; ten epochs took {time.perf_counter() - started:.1f} s with all around them")


if __name__ == "__main__":
    try:
        has_gpu = load().cuda.is_available()
    except MissingDependency:
        has_gpu = False
    if has_gpu:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    else:
        print("bench_gpu did not run: PyTorch with an NVIDIA GPU is needed")
