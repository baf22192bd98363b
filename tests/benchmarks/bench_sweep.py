"""A sweep of eight trials on this machine's cores, beside the same trials one after another; and a trial's peak memory.

    python tests/benchmarks/bench_sweep.py [images]

One after another: each trial reserves all cores and trains with one thread all the same. Starting a job counts.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from genokit import Batch, Dataset, Manifest, Settings, backends, train

TRIALS = 8


def peak_memory(stop: threading.Event, found: list[int]) -> None:
    """Append the resident memory of every trial's process, ten times a second."""
    while not stop.wait(0.1):
        for process in psutil.process_iter(["cmdline", "memory_info"]):
            if "--sweep" in (process.info["cmdline"] or []) and process.info["memory_info"]:
                found.append(process.info["memory_info"].rss)


def timed(dataset: Dataset, images: int, folder: Path, vcpus: int) -> float:
    """Seconds from the call to the end of the last trial, in a new embedded account."""
    settings = Settings(home=folder)
    try:
        started = time.perf_counter()
        p = train.Parameters(images=images, threads=1)
        rates = [0.01 * 1.5**step for step in range(TRIALS)]
        found = train.sweep(dataset, p, learning_rate=rates, vcpus=vcpus, batch=Batch(settings=settings)).follow()
        assert list(found.table()["status"]) == ["SUCCEEDED"] * TRIALS
        return time.perf_counter() - started
    finally:
        backends.account(settings).stop()


def main(images: int) -> None:
    """Measure and print."""
    dataset, cores = Manifest("mnist").fetch(progress=False), len(os.sched_getaffinity(0))
    stop, memory = threading.Event(), [0]
    watch = threading.Thread(target=peak_memory, args=(stop, memory))
    watch.start()
    with tempfile.TemporaryDirectory() as folder:
        one = timed(dataset, images, Path(folder, "one"), cores)
        all_cores = timed(dataset, images, Path(folder, "all"), 1)
    stop.set()
    watch.join()
    print(f"{TRIALS} trials of {images:,} images, load {os.getloadavg()[0]:.1f}\n")
    print(
        f"one after another {one:8.1f} s\non {cores} cores        {all_cores:8.1f} s   {one / all_cores:.2f} x as fast"
    )
    print(f"peak memory       {max(memory) / 2**20:8,.0f} MiB of the largest trial")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
