"""The only import of MXNet 1.9.1: the rest of the kit gets the module from ``load()``.

MXNet is retired (1.9.1, of 2022, is its last release) and was written for NumPy 1.16 to 1.23. With newer versions its
import fails on names that NumPy has removed. ``load()`` adds these names to NumPy during the import and removes all
but those that MXNet looks up later. Tested with NumPy 1.26, 2.4 and 2.5 on Python 3.11 to 3.13.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from genokit.errors import InvalidParameters, MissingDependency

# NumPy < 2 has no `bool`, NumPy 2 no `Inf`; MXNet reads both inside functions, long after its import.
KEPT = {"bool": bool, "Inf": float("inf")}
# MXNet's import takes these for mx.np, which the kit does not use: a None will do.
LENT = ("NAN", "NINF", "NZERO", "NaN", "PINF", "PZERO", "alltrue", "in1d", "mirr", "msort", "npv", "pmt", "ppmt",
        "product", "pv", "rate", "round_", "sometrue", "trapz")  # fmt: skip


def load(threads: int | None = None) -> ModuleType:
    """Import MXNet with this many OpenMP threads; None accepts the loaded module's count, or else uses one.

    The thread count determines the order in which numbers are summed, and so the last bits of every weight. It is
    fixed when MXNet loads: another count in the same process raises InvalidParameters. Raises MissingDependency if
    MXNet, or a library that it needs, is missing.
    """
    if "mxnet" not in sys.modules:
        with _prepared(threads or 1):
            _import().nd.zeros(1).wait_to_read()  # starts the engine, which reads OMP_NUM_THREADS once
    mx = _import()
    running = threads_running()
    if threads is not None and threads != running:
        raise InvalidParameters(
            f"threads={threads}, but this process has loaded MXNet with {running}, and the number cannot change. "
            f"Use threads={running}, or restart the kernel and train first, or use train.submit(...): a job runs in "
            "its own process."
        )
    return mx


def threads_running() -> int:
    """The number of threads that this process's OpenMP library uses: the count with which MXNet was loaded."""
    return int(ctypes.CDLL("libgomp.so.1").omp_get_max_threads())


def context(mx: ModuleType, device: str) -> Any:
    """The MXNet context for "cpu" or "gpu" (the first GPU); raises MissingDependency if there is no usable GPU."""
    if device == "cpu":
        return mx.cpu()
    if not mx.runtime.Features().is_enabled("CUDA"):
        raise MissingDependency(
            "device='gpu', but the MXNet installed here is built for the CPU. Use device='cpu', send the training to "
            "a GPU machine with train.submit(..., queue='gpu', gpus=1), or install mxnet-cu112==1.9.1 on one "
            "(NVIDIA compute capability 5.0 to 8.9: MXNet has no code for newer GPUs such as the H100)."
        )
    if not mx.context.num_gpus():
        raise MissingDependency("device='gpu', but MXNet finds no GPU here. Check nvidia-smi, or use device='cpu'.")
    return mx.gpu(0)


def _import() -> ModuleType:
    try:
        return importlib.import_module("mxnet")
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        steps = {
            "mxnet": "On x86-64 Linux: pip install --no-deps mxnet==1.9.1 (its metadata exclude NumPy 2, hence "
            "--no-deps; the kit's lock files include it). There are no wheels for other platforms: use "
            "train.submit(...) to train on a machine that has it.",
            "distutils": "Python 3.12 removed it. Install it with: pip install setuptools",
        }
        step = steps.get(missing, f"Install it with: pip install {missing}")
        raise MissingDependency(f"Training needs MXNet 1.9.1, and {missing} is not installed here. {step}") from error
    except OSError as error:
        steps = {
            "libgomp": "On Debian and Ubuntu: apt-get install libgomp1",
            "libquadmath": "On Debian and Ubuntu: apt-get install libquadmath0",
            "libcuda": "This GPU build of MXNet needs an NVIDIA driver; the package mxnet is the build for CPUs.",
        }
        step = next((step for library, step in steps.items() if library in str(error)), "Reinstall it.")
        raise MissingDependency(f"MXNet is installed but cannot be loaded: {error}. {step}") from error


@contextmanager
def _prepared(threads: int) -> Iterator[None]:
    """Set NumPy, warnings and OMP_NUM_THREADS as MXNet needs them, and restore them afterwards."""
    import numpy as np

    # vars(), because hasattr() would trigger NumPy's warnings about these names.
    lent, before = [name for name in LENT if name not in vars(np)], os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    vars(np).update(dict.fromkeys(lent) | {name: value for name, value in KEPT.items() if name not in vars(np)})
    try:
        with warnings.catch_warnings():
            # distutils, old regular expressions, NumPy's deprecations: MXNet is no longer maintained.
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in lent:
            delattr(np, name)
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
