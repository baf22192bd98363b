"""The parameters of a training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Real
from typing import Annotated, Any, Literal, get_args, get_type_hints

from genokit.errors import InvalidParameters, did_you_mean


@dataclass(frozen=True)
class Parameters:
    """Everything besides the data that determines the weights.

    On the CPU, equal parameters on equal data give equal weights, bit for bit, once ``engine`` and ``threads`` are
    chosen; a trained model's parameters state the choice. Several workers sum gradients in another order, so their
    weights equal those of one worker within rounding errors only; with MXNet and more than two, the order varies. Other
    kinds of processors, for which the engines use other kernels, may differ in the last bits. The defaults reach an
    accuracy of 0.98 on MNIST in one epoch.

    Parameters
    ----------
    epochs : int, default 1
        Passes over the training images, 1 to 10,000.
    images : int, default 0
        Train on the first so many images only. 0: on all.
    batch_size : int, default 64
        Images per step, 1 to 65,536.
    learning_rate : float, default 0.05
        Peak learning rate of stochastic gradient descent, reached at the end of the warm-up.
    final_rate : float, default 0.4
        Learning rate at the last step, as a fraction of ``learning_rate``.
    schedule : str, default "linear"
        How the learning rate falls after the warm-up: "linear" or "cosine".
    warmup_steps : int, default 200
        Steps of linear warm-up; at most a quarter of an epoch is used.
    momentum : float, default 0.9
        Momentum, at least 0 and below 1.
    weight_decay : float, default 1e-4
        L2 penalty on all weights.
    shift : int, default 0
        Each training image is shifted at random by up to so many pixels in each direction, 0 to 8: anew in every epoch.
    seed : int, default 1
        Seed of the initial weights, the order of images and their shifts.
    workers : int, default 1
        Processes that share each batch and make the same updates, 1 to 64. More than 1 need ``submit``, or
        ``python -m genokit.train --workers 2``, which starts them on this machine. They are faster only where a batch
        takes much longer than the exchange of 1.7 MB of gradients: with a ``batch_size`` of 128 for each, or more.
    threads : int, default 0
        OpenMP threads of each process, up to 1,024. 0: as many as OMP_NUM_THREADS says, or else as this process has
        cores, at most 8. The number changes the last bits of the weights.
    precision : str, default "float32"
        "float32", or with PyTorch "bfloat16": convolutions and products of matrices in 16 bits, weights in 32.
    device : str, default "cpu"
        "cpu" or "gpu".
    engine : str, default "auto"
        "mxnet", "torch" (PyTorch), or "auto": see ``train.choose_engine``.

    Raises
    ------
    InvalidParameters
        The message lists every invalid parameter.

    Examples
    --------
    >>> Parameters(epochs=20).replace(seed=7)
    Parameters(epochs=20, seed=7)
    >>> Parameters(epochs=0, momentum=1.5)
    Traceback (most recent call last):
    ...
    genokit.errors.InvalidParameters: epochs must be a whole number from 1 to 10000, got 0
    momentum must be a number of at least 0 and below 1, got 1.5
    """

    # A number's type is followed by its minimum and its exclusive upper bound.
    epochs: Annotated[int, 1, 10_001] = 1
    images: Annotated[int, 0, 2**31] = 0
    batch_size: Annotated[int, 1, 65_537] = 64
    learning_rate: Annotated[float, 0, math.inf] = 0.05
    final_rate: Annotated[float, 0, math.inf] = 0.4
    schedule: Literal["linear", "cosine"] = "linear"
    warmup_steps: Annotated[int, 0, 10**9] = 200
    momentum: Annotated[float, 0, 1] = 0.9
    weight_decay: Annotated[float, 0, math.inf] = 1e-4
    shift: Annotated[int, 0, 9] = 0
    seed: Annotated[int, 0, 2**32] = 1
    workers: Annotated[int, 1, 65] = 1
    threads: Annotated[int, 0, 1025] = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "gpu"] = "cpu"
    engine: Literal["auto", "mxnet", "torch"] = "auto"

    def __post_init__(self) -> None:
        wrong = []
        for name, (kind, *limits) in _allowed().items():
            value = getattr(self, name)
            if isinstance(kind, str):
                fits, expected = value in (kind, *limits), " or ".join(map(repr, (kind, *limits)))
            else:
                number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else value
                fits = limits[0] <= number < limits[1] and kind(number) == number
                expected = _wording(kind, *limits)
            if not fits:
                wrong.append(f"{name} must be {expected}, got {value!r}")
            elif not isinstance(kind, str):  # so that 1, 1.0 and NumPy's numbers are the same parameter
                object.__setattr__(self, name, kind(value))
        if (self.engine, self.precision) == ("mxnet", "bfloat16"):
            wrong.append("precision='bfloat16' needs PyTorch: use engine='torch', or precision='float32'")
        if wrong:
            raise InvalidParameters("\n".join(wrong))

    def __repr__(self) -> str:
        changed = {name: value for name, value in self.to_dict().items() if value != getattr(Parameters, name)}
        return f"Parameters({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def _repr_html_(self) -> str:
        from genokit.display import card

        return card("Parameters", self.to_dict())

    def replace(self, **changes: Any) -> Parameters:
        """A copy with these changes; raises InvalidParameters, also for an unknown name."""
        return Parameters.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The parameters by name, in order."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Parameters:
        """Parameters from a mapping; missing names get their defaults. Raises InvalidParameters.

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
        """The learning rate at a step, counted from 0 over all epochs.

        >>> p = Parameters(epochs=3, learning_rate=1.0, final_rate=0.4, warmup_steps=20)
        >>> [round(p.learning_rate_at(step, 100), 2) for step in (0, 9, 19, 20, 160, 299)]
        [0.05, 0.5, 1.0, 1.0, 0.7, 0.4]
        """
        # A small sample has few steps per epoch: without this limit the whole training would be warm-up.
        warmup = min(self.warmup_steps, steps_per_epoch // 4)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        way = (step - warmup) / max(1, steps_per_epoch * self.epochs - warmup)
        if self.schedule == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return self.learning_rate * (1 - (1 - self.final_rate) * way)


@cache
def _allowed() -> dict[str, tuple[Any, ...]]:
    """Of each parameter the type and limits, or the words to choose from."""
    return {name: get_args(hint) for name, hint in get_type_hints(Parameters, include_extras=True).items()}


def _wording(kind: type, low: float, below: float) -> str:
    if kind is int:
        return f"a whole number from {low} to {below - 1}"
    return f"a number of at least {low} and below {below}"
