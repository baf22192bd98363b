"""The choice of an engine: MXNet or PyTorch, and the number of its threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from genokit.config import cpus
from genokit.train.digits import Digits
from genokit.train.network import Weights
from genokit.train.parameters import Parameters

MOST_THREADS = 8  # LeNet gains nothing from more


class Engine(Protocol):
    """Weights on a device, and the steps that train them. The images stay on the device too."""

    def step(self, rows: np.ndarray, shifts: np.ndarray | None, rate: float, batch: int) -> None:
        """Train on the images in these rows, each shifted by its (down, right) pixels: int (B,), int (B, 2).

        The rows are one worker's share of a batch of so many images; their gradients are summed over the workers.
        """

    def sums(self) -> np.ndarray:
        """This worker's (images, sum of their losses, right answers) since the last call; waits for the device."""

    def total(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of these numbers, at most five, over the workers, who all call this together."""

    def weights(self) -> Weights:
        """A copy of the weights."""

    def momentum(self) -> Weights:
        """A copy of their momentum."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The network's output: uint8 (N, 28, 28) -> float32 (N, 10)."""


def start(p: Parameters, digits: Digits, weights: Weights, momentum: Weights) -> Engine:
    """The engine that these parameters name, with weights and images on its device; raises MissingDependency.

    An empty ``momentum`` is that of a training that begins: zeros.
    """
    momentum = momentum or {name: np.zeros_like(array) for name, array in weights.items()}
    if p.engine == "torch":
        from genokit.train.torch_engine import TorchEngine

        return TorchEngine(p, digits, weights, momentum)
    from genokit.train.mxnet_engine import MxnetEngine

    return MxnetEngine(p, digits, weights, momentum)


def choose_engine() -> str:
    """The engine that ``engine="auto"`` stands for on this machine: PyTorch where it is installed, or else MXNet.

    PyTorch is the faster one, and on GPUs from the H100 on the only one. ``tests/benchmarks/bench_train.py`` compares
    them on this machine.

    Returns
    -------
    str
        "torch" or "mxnet".

    Examples
    --------
    >>> choose_engine() in ("mxnet", "torch")
    True
    """
    return "torch" if find_spec("torch") else "mxnet"


def settle(p: Parameters, like: Mapping[str, object] | None = None) -> Parameters:
    """The parameters with engine and threads chosen: as in ``like``, a checkpoint's, or else for this process."""
    like = like or {}
    engine = p.engine if p.engine != "auto" else like.get("engine") or choose_engine()
    threads = p.threads or like.get("threads") or _threads(str(engine))
    return p.replace(engine=engine, threads=threads)


def _threads(engine: str) -> int:
    if engine == "mxnet" and "mxnet" in sys.modules:
        from genokit.train.mxnet import threads_running

        return threads_running()
    return default_threads()


def default_threads() -> int:
    """As many as OMP_NUM_THREADS says, or else as this process has cores, at most 8."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else min(MOST_THREADS, cpus())
