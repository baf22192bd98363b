"""LeNet on MNIST with MXNet or PyTorch: train it here or as a job, plot the training, save and use the model.

>>> from genokit import train
>>> train.Parameters(epochs=3).seed
1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genokit.train.parameters import Parameters

if TYPE_CHECKING:
    from genokit.train.digits import Digits as Digits
    from genokit.train.digits import load_digits as load_digits
    from genokit.train.drawing import Drawing as Drawing
    from genokit.train.drawing import draw as draw
    from genokit.train.engines import choose_engine as choose_engine
    from genokit.train.job import follow as follow
    from genokit.train.job import submit as submit
    from genokit.train.loop import fit as fit
    from genokit.train.model import History as History
    from genokit.train.model import Model as Model
    from genokit.train.model import load as load
    from genokit.train.network import lenet as lenet
    from genokit.train.prediction import predict as predict
    from genokit.train.prediction import predictions as predictions
    from genokit.train.sweeps import Sweep as Sweep
    from genokit.train.sweeps import sweep as sweep

# Loaded on first use, because MXNet's jobs need no widgets and `import genokit.train` nothing heavy.
_HOMES = {
    "digits": ("Digits", "load_digits"),
    "drawing": ("Drawing", "draw"),
    "engines": ("choose_engine",),
    "job": ("follow", "submit"),
    "loop": ("fit",),
    "model": ("History", "Model", "load"),
    "network": ("lenet",),
    "prediction": ("predict", "predictions"),
    "sweeps": ("Sweep", "sweep"),
}
__all__ = ["Parameters", *(name for names in _HOMES.values() for name in names)]


def __getattr__(name: str) -> object:
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"genokit.train.{module}"), name)
            return value
    raise AttributeError(f"module 'genokit.train' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
