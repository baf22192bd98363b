"""A trained LeNet, to use and to keep."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from genokit.errors import InvalidParameters
from genokit.train import network
from genokit.train.checkpoint import Checkpoint
from genokit.train.digits import SIDE
from genokit.train.mxnet import load as load_mxnet
from genokit.train.parameters import Parameters

if TYPE_CHECKING:
    from genokit.train.history import History

# Images at a time: enough to be fast, few enough to need 30 MB.
AT_ONCE = 500


class Model:
    """A trained LeNet: ``predict`` and ``evaluate`` digits, ``save`` it; ``train.load`` gives it back.

    It computes on the CPU, wherever it was trained.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._net: Any = None

    @property
    def parameters(self) -> Parameters:
        return self.checkpoint.parameters

    @property
    def history(self) -> History:
        """How it was trained."""
        from genokit.train.history import History

        c = self.checkpoint
        return History(c.epochs, c.batches, parameters=c.parameters, data=c.data, model=self)

    @property
    def sha256(self) -> str:
        """One hash of all weights: two trainings are equal, bit for bit, if these are."""
        return self.checkpoint.sha256

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The digit on each image: uint8 (N, 28, 28) -> int64 (N,). Raises InvalidParameters for other arrays."""
        return np.asarray(self._logits(images).argmax(axis=1))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The probability of each digit: uint8 (N, 28, 28) -> float32 (N, 10), rows add up to 1."""
        return np.asarray(np.exp(log_softmax(self._logits(images))))

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The part of the images, 0 to 1, whose digit is predicted right."""
        if len(images) != len(labels) or not len(labels):
            raise InvalidParameters(
                f"evaluate needs one label an image, got {len(images)} images, {len(labels)} labels."
            )
        return float((self.predict(images) == labels).mean())

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write it as a checkpoint, whole or not at all, to a path or to s3://bucket/key. Returns where."""
        return self.checkpoint.write(path)

    def _logits(self, images: np.ndarray) -> np.ndarray:
        mx = load_mxnet(prefer=self.parameters.threads)
        if self._net is None:
            net = network.lenet(mx)
            network.set_weights(mx, net, self.checkpoint.weights, mx.cpu())
            net.hybridize()
            self._net = net
        return logits(mx, self._net, images, mx.cpu())

    def __repr__(self) -> str:
        epochs = f"{self.checkpoint.epoch} epoch{'' if self.checkpoint.epoch == 1 else 's'}"
        return f"<Model lenet, {epochs}, weights {self.sha256[:12]}>"

    def _repr_html_(self) -> str:
        from genokit.display import card, table

        c = self.checkpoint
        rows = {
            "epochs": c.epoch,
            "validation accuracy": f"{self.history.validation_accuracy:.4f}",
            "data": f"{c.data['title']}, version {c.data['version']}",
            "weights (sha256)": self.sha256,
        }
        if self.history.sample:
            rows["validated on"] = "images held out of the sample: not MNIST's test set"
        fold = {
            "Parameters": table(list(c.parameters.to_dict().items()), columns=["parameter", "value"]),
            "Versions": table(list(c.versions.items()), columns=["what", "version"]),
        }
        return card("LeNet", rows, fold=fold)


def load(path: str | os.PathLike[str]) -> Model:
    """The model in a checkpoint: a file, a folder with lenet.ckpt in it, or the same on S3 (s3://bucket/key).

    Raises NotFound if there is none and InvalidCheckpoint if it is not a whole one.
    """
    return Model(Checkpoint.read(path))


def to_input(images: np.ndarray) -> np.ndarray:
    """uint8 (N, 28, 28), 0 to 255 -> float32 (N, 1, 28, 28), 0 to 1."""
    return images.astype(np.float32)[:, None] * np.float32(1 / 255)


def logits(mx: Any, net: Any, images: np.ndarray, device: Any) -> np.ndarray:
    """What the network says of each image: uint8 (N, 28, 28) -> float32 (N, 10)."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise InvalidParameters(
            f"images must be uint8 (N, {SIDE}, {SIDE}), 0 to 255, got {images.dtype} {images.shape}. "
            "One image is images[:1]."
        )
    parts = [
        net(mx.nd.array(to_input(images[start : start + AT_ONCE]), ctx=device)).asnumpy()
        for start in range(0, len(images), AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, 10), np.float32)


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax of each row: (N, C) -> (N, C)."""
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
