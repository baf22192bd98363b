"""A trained LeNet, to use and to keep."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from genokit import __version__
from genokit.display import card
from genokit.errors import InvalidParameters
from genokit.train import checkpoint, network
from genokit.train.history import History
from genokit.train.mxnet import load as load_mxnet
from genokit.train.network import Weights
from genokit.train.parameters import Parameters


def _versions() -> dict[str, str]:
    """What trains here: Python and the packages that have a say in the bits."""
    mxnet = getattr(sys.modules.get("mxnet"), "__version__", "not loaded")
    return {"genokit": __version__, "python": platform.python_version(), "machine": platform.machine(),
            "numpy": np.__version__, "mxnet": mxnet}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A LeNet after ``epoch`` epochs: ``predict`` and ``evaluate`` digits, ``save`` it; ``train.load`` gives it back.

    It knows all of its training: ``data`` says on which data, ``epochs`` and ``batches`` how it went, ``versions`` with
    what, and ``momentum`` lets it go on. It computes on the CPU, wherever it was trained.
    """

    parameters: Parameters
    epoch: int
    data: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    batches: Sequence[Mapping[str, Any]]
    weights: Weights
    momentum: Weights
    versions: Mapping[str, str] = field(default_factory=_versions)

    @property
    def history(self) -> History:
        """How it was trained."""
        return History(self.epochs, self.batches, parameters=self.parameters, data=self.data, model=self)

    @property
    def sha256(self) -> str:
        """One hash of all weights: two trainings are equal, bit for bit, if these are."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            digest.update(name.encode() + self.weights[name].astype("<f4").tobytes())
        return digest.hexdigest()

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The digit on each image: uint8 (N, 28, 28) -> int64 (N,). Raises InvalidParameters for other arrays."""
        return np.asarray(self._logits(images).argmax(axis=1))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The probability of each digit: uint8 (N, 28, 28) -> float32 (N, 10), rows add up to 1."""
        return np.asarray(np.exp(network.log_softmax(self._logits(images))))

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The part of the images, 0 to 1, whose digit is predicted right."""
        if len(images) != len(labels) or not len(labels):
            raise InvalidParameters(
                f"evaluate needs one label an image, got {len(images)} images, {len(labels)} labels."
            )
        return float((self.predict(images) == labels).mean())

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write it as a checkpoint, whole or not at all, to a path or to s3://bucket/key. Returns where."""
        return checkpoint.write(path, {each.name: getattr(self, each.name) for each in fields(self)})

    def _logits(self, images: np.ndarray) -> np.ndarray:
        mx = load_mxnet()
        return network.logits(mx, self._net, np.asarray(images), mx.cpu())

    @cached_property
    def _net(self) -> Any:
        mx = load_mxnet()
        net = network.lenet(mx)
        network.set_weights(mx, net, self.weights, mx.cpu())
        net.hybridize()
        return net

    def __repr__(self) -> str:
        epochs = f"{self.epoch} epoch{'' if self.epoch == 1 else 's'}"
        return f"<Model lenet, {epochs}, weights {self.sha256[:12]}>"

    def _repr_html_(self) -> str:
        rows = {**self.history.rows(), "weights (sha256)": self.sha256}
        fold = {"Parameters": self.parameters.to_dict(), "Versions": self.versions}
        return card("LeNet", rows, fold=fold)


def load(path: str | os.PathLike[str]) -> Model:
    """The model in a checkpoint: a file, a folder with lenet.ckpt in it, or the same on S3 (s3://bucket/key).

    Raises NotFound if there is none and InvalidCheckpoint if it is not a whole one.
    """
    return Model(**checkpoint.read(path))
