"""LeNet on MNIST with MXNet or PyTorch: train it here or as a job, plot the training, save and use the model.

>>> from genokit import train
>>> train.Parameters(epochs=3).seed
1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genokit.train.parameters import Parameters

if TYPE_CHECKING:
    from genokit.train.digits import Digits, load_digits
    from genokit.train.drawing import Drawing, draw
    from genokit.train.engines import choose_engine
    from genokit.train.job import follow, submit
    from genokit.train.loop import fit
    from genokit.train.model import History, Model, load
    from genokit.train.network import lenet
    from genokit.train.prediction import predict, predictions
    from genokit.train.sweeps import Sweep, sweep

__all__ = [
    "Digits",
    "Drawing",
    "History",
    "Model",
    "Parameters",
    "Sweep",
    "choose_engine",
    "draw",
    "fit",
    "follow",
    "lenet",
    "load",
    "load_digits",
    "predict",
    "predictions",
    "submit",
    "sweep",
]

_HOMES = {
    "Digits": "digits",
    "Drawing": "drawing",
    "History": "model",
    "Model": "model",
    "Sweep": "sweeps",
    "choose_engine": "engines",
    "draw": "drawing",
    "fit": "loop",
    "follow": "job",
    "lenet": "network",
    "load": "model",
    "load_digits": "digits",
    "predict": "prediction",
    "predictions": "prediction",
    "submit": "job",
    "sweep": "sweeps",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'genokit.train' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(f"genokit.train.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
