"""What a training depends on, besides its data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from genokit.errors import InvalidParameters, did_you_mean


@dataclass(frozen=True)
class Parameters:
    """All that decides the weights, beside the data: equal parameters on equal data give equal weights, bit for bit.

    So it is on the CPU; processors of another kind, for which MXNet takes other kernels, may differ in the last bits.
    The defaults bring LeNet to 0.98 on MNIST in one epoch. Raises InvalidParameters, with everything that is wrong.

    epochs            passes over the training images
    batch_size        images a step
    learning_rate     of stochastic gradient descent, at its height, which is the end of the warm-up
    final_rate        the part of it that is left at the last step; the way there is a line
    warmup_steps      steps over which the rate climbs in a line; never more than a quarter of an epoch
    momentum          of the descent
    weight_decay      L2 penalty on all weights
    seed              of the first weights and of the order of images
    threads           OpenMP threads; the count changes the last bits of the weights, so it is fixed and not "all cores"
    device            "cpu" or "gpu"
    engine            "mxnet"

    >>> Parameters(epochs=20).replace(seed=7)
    Parameters(epochs=20, seed=7)
    >>> Parameters(epochs=0, momentum=1.5)
    Traceback (most recent call last):
    ...
    genokit.errors.InvalidParameters: epochs must be a whole number from 1 to 10000, got 0
    momentum must be a number of at least 0 and below 1, got 1.5
    """

    epochs: int = 1
    batch_size: int = 64
    learning_rate: float = 0.05
    final_rate: float = 0.4
    warmup_steps: int = 200
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 1
    threads: int = 1
    device: str = "cpu"
    engine: str = "mxnet"

    def __post_init__(self) -> None:
        wrong = []
        for name, (kind, low, below) in _RANGES.items():
            value = getattr(self, name)
            number: Any = math.nan if isinstance(value, bool) or not isinstance(value, Real) else value
            if low <= number < below and kind(number) == number:
                # So that 1 and 1.0, or NumPy's numbers, are one and the same parameter.
                object.__setattr__(self, name, kind(number))
            else:
                wrong.append(f"{name} must be {_wording(kind, low, below)}, got {value!r}")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                wrong.append(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")
        if wrong:
            raise InvalidParameters("\n".join(wrong))

    def __repr__(self) -> str:
        changed = {name: value for name, value in self.to_dict().items() if value != getattr(Parameters, name)}
        return f"Parameters({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def _repr_html_(self) -> str:
        from genokit.display import card

        return card("Parameters", self.to_dict())

    def replace(self, **changes: Any) -> Parameters:
        """The same parameters with these changed. Raises InvalidParameters, also for a name that there is not."""
        return Parameters.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Name to value, in order."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Parameters:
        """Parameters of names and values; what is not named has its default. Raises InvalidParameters.

        >>> Parameters.from_dict({"epoch": 3})
        Traceback (most recent call last):
        ...
        genokit.errors.InvalidParameters: there is no parameter 'epoch'. Did you mean 'epochs'?
        """
        known = Parameters.__dataclass_fields__
        if unknown := [name for name in values if name not in known]:
            raise InvalidParameters(
                "\n".join(f"there is no parameter '{name}'. {did_you_mean(name, known)}" for name in unknown)
            )
        return Parameters(**values)

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0 over all epochs.

        >>> p = Parameters(epochs=3, learning_rate=1.0, final_rate=0.4, warmup_steps=20)
        >>> [round(p.learning_rate_at(step, 100), 2) for step in (0, 9, 19, 20, 160, 299)]
        [0.05, 0.5, 1.0, 1.0, 0.7, 0.4]
        """
        # A small sample has few steps an epoch: without the bound it would warm up for all of its training.
        warmup = min(self.warmup_steps, steps_per_epoch // 4)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        way = (step - warmup) / max(1, steps_per_epoch * self.epochs - warmup)
        return self.learning_rate * (1 - (1 - self.final_rate) * way)


# Name -> type, least, and what it must stay below.
_RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "epochs": (int, 1, 10_001),
    "batch_size": (int, 1, 65_537),
    "learning_rate": (float, 0, math.inf),
    "final_rate": (float, 0, math.inf),
    "warmup_steps": (int, 0, 10**9),
    "momentum": (float, 0, 1),
    "weight_decay": (float, 0, math.inf),
    "seed": (int, 0, 2**32),
    "threads": (int, 1, 1025),
}
_CHOICES = {"device": ("cpu", "gpu"), "engine": ("mxnet",)}


def _wording(kind: type, low: float, below: float) -> str:
    if kind is int:
        return f"a whole number from {low} to {below - 1}"
    return f"a number of at least {low}" + ("" if below == math.inf else f" and below {below}")
