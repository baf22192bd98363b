"""A trained LeNet and the history of its training."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from genokit import __version__
from genokit.display import card, seconds
from genokit.errors import InvalidParameters, NotFound
from genokit.plots import learning_curve
from genokit.train import checkpoint, engines, network, training_log
from genokit.train.digits import CLASSES, Digits
from genokit.train.evaluation import Evaluation
from genokit.train.network import Weights
from genokit.train.numpy_network import numpy_logits
from genokit.train.onnx import to_onnx
from genokit.train.parameters import Parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes


NONE = (0.0,) * 4  # images, losses, right answers and seconds of no batch


def package_versions() -> dict[str, str]:
    """Versions of everything that affects the weights."""
    engines = {name: str(getattr(sys.modules[name], "__version__", "")) for name in ("mxnet", "torch")
               if name in sys.modules}  # fmt: skip
    return {"genokit": __version__, "python": platform.python_version(), "machine": platform.machine(),
            "numpy": np.__version__} | engines  # fmt: skip


class History:
    """How a training went.

    Attributes
    ----------
    table : DataFrame
        One row per epoch: epoch (from 0); loss (mean cross-entropy, in nats) and accuracy (0 to 1) on the training
        images during the epoch; validation_loss and validation_accuracy after it; seconds (training only) and
        samples_per_s. Values missing from a log are NaN.
    batches : DataFrame
        One row per group of batches: epoch, batch (the last of the group), loss, accuracy, samples_per_s.
    finite : bool
        False once a loss was infinite or not a number; such weights never recover.
    sample : bool or None
        True if the data are a sample of MNIST, validated on images held out of it; None if unknown.
    parameters : Parameters or None
        None if the log does not state them.
    data : mapping or None
        Name, title, version and sha256 of the data; None if the log does not state them.

    Examples
    --------
    >>> History([{"epoch": 0, "loss": 0.2, "accuracy": 0.95, "validation_accuracy": 0.97}])
    <History 1 epoch, validation accuracy 0.9700>
    """

    def __init__(
        self,
        epochs: Iterable[Mapping[str, Any]],
        batches: Iterable[Mapping[str, Any]] = (),
        *,
        parameters: Parameters | None = None,
        data: Mapping[str, Any] | None = None,
        model: Model | None = None,
    ) -> None:
        epochs, batches = list(epochs), list(batches)
        self.table = training_log.frame(epochs, training_log.EPOCH)
        self.batches = training_log.frame(batches, training_log.BATCH)
        losses = [row.get(name) for row in (*epochs, *batches) for name in ("loss", "validation_loss")]
        self.finite = all(loss is None or math.isfinite(float(loss)) for loss in losses)
        self.parameters = parameters
        self.data = data
        self._model = model

    @property
    def sample(self) -> bool | None:
        """Whether the data are a sample of MNIST; None if unknown."""
        return None if self.data is None else bool(self.data.get("sample"))

    @property
    def model(self) -> Model:
        """The trained model; raises NotFound for a history read from a log."""
        if self._model is None:
            raise NotFound("A history read from a log has no model. Load the job's checkpoint with train.load(path).")
        return self._model

    @property
    def validation_accuracy(self) -> float:
        """Validation accuracy after the last epoch for which it is known; NaN if unknown."""
        known = self.table["validation_accuracy"].dropna()
        return float(known.iloc[-1]) if len(known) else float("nan")

    @property
    def problem(self) -> str | None:
        """A message if the training diverged or did not learn, else None."""
        if self.finite and not self.validation_accuracy < 2 / CLASSES:  # an unknown accuracy (NaN) is no problem
            return None
        loss = self.table["validation_loss"].fillna(self.table["loss"]).iloc[-1] if len(self) else math.nan
        after = f"after {len(self)} epoch{'' if len(self) == 1 else 's'}"
        if not self.finite or loss > 2 * math.log(CLASSES):
            shown = f"its loss is {loss:,.4g}" if math.isfinite(loss) else "its loss is not a finite number"
            return (
                f"The training diverged: {after} {shown}; random guessing gives {math.log(CLASSES):.2f}. "
                "Train again with a smaller learning_rate."
            )
        return (
            f"The training has not learned: {after} its validation accuracy is {self.validation_accuracy:.2f}; "
            f"random guessing reaches {1 / CLASSES:.2f}. Train again with a larger learning_rate, or for more epochs."
        )

    def plot(self) -> tuple[Axes, Axes]:
        """Loss and accuracy over the epochs, in two matplotlib Axes."""
        return learning_curve(self.table, self.batches, note="sample: not MNIST's test set" if self.sample else "")

    @staticmethod
    def from_log(text: str) -> History:
        """Read the history from a log in MXNet's format, written by this kit or another program.

        Parameters
        ----------
        text : str
            The log. Lines such as ``Epoch[0] Batch [100]\\tSpeed: 2999.00 samples/sec\\taccuracy=0.95`` and, per epoch,
            ``Train-accuracy=``, ``Time cost=``, ``Validation-accuracy=`` and the same with cross-entropy are read;
            others are ignored. An incomplete log gives the epochs it has. If a restarted job logged an epoch twice, the
            last lines count.

        Returns
        -------
        History
            Without a model.

        Examples
        --------
        >>> log = "INFO:root:Epoch[0] Train-accuracy=0.912\\nnoise\\nEpoch[0] Validation-accuracy=0.97\\n"
        >>> History.from_log(log).table[["epoch", "accuracy", "validation_accuracy"]].to_dict("records")
        [{'epoch': 0, 'accuracy': 0.912, 'validation_accuracy': 0.97}]
        """
        return History(**training_log.parse(text))

    def rows(self) -> dict[str, object]:
        """The rows of its card."""
        rows: dict[str, object] = {"problem": self.problem} if self.problem else {}
        rows["epochs"] = len(self)
        if len(self):
            last = self.table.iloc[-1]
            rows["training accuracy"] = f"{last['accuracy']:.4f}"
            rows["validation accuracy"] = f"{self.validation_accuracy:.4f}"
            rows["time"] = f"{seconds(float(self.table['seconds'].sum()))}, {last['samples_per_s']:,.0f} samples/s"
        if self.data:
            rows["data"] = f"{self.data['title']}, version {self.data['version']}"
        if self.sample:
            rows["validated on"] = "images held out of the sample: not MNIST's test set"
        if self.parameters:
            rows["parameters"] = repr(self.parameters)
        return rows

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        epochs = f"{len(self)} epoch{'' if len(self) == 1 else 's'}"
        where = " on images held out of a sample" if self.sample else ""
        problem = f": {self.problem.partition(':')[0]}" if self.problem else ""
        return f"<History {epochs}, validation accuracy {self.validation_accuracy:.4f}{where}{problem}>"

    def _repr_html_(self) -> str:
        return card("Training history", self.rows(), fold={"Epochs": self.table.round(4)})


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained LeNet. It predicts with NumPy alone, wherever and with whatever engine it was trained.

    Attributes
    ----------
    parameters : Parameters
        The parameters of its training.
    epoch : int
        How many epochs it was trained.
    batch : int
        How many batches of the next epoch it was trained: 0 but in the checkpoint of an interrupted training.
    sums : sequence of float
        Images, the sum of their losses, right answers and seconds in these batches.
    data : mapping
        Name, title, version and sha256 of the data.
    epochs, batches : sequence of mapping
        The rows of ``history.table`` and ``history.batches``.
    weights, momentum : dict of str to ndarray
        Weights, and the momentum from which a training resumes.
    versions : mapping
        Versions of the packages that trained it.
    """

    parameters: Parameters
    epoch: int
    batch: int
    sums: Sequence[float]
    data: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    batches: Sequence[Mapping[str, Any]]
    weights: Weights
    momentum: Weights
    versions: Mapping[str, str] = field(default_factory=package_versions)

    @property
    def history(self) -> History:
        """How it was trained."""
        return History(self.epochs, self.batches, parameters=self.parameters, data=self.data, model=self)

    @property
    def sha256(self) -> str:
        """A hash of all weights: equal for trainings that are equal bit for bit."""
        return checkpoint.tensors_sha256(self.weights)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Predict the digit on each image: uint8 (N, 28, 28) -> int64 (N,); raises InvalidParameters."""
        return np.asarray(self.logits(images).argmax(axis=1))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Predict the probability of each digit: uint8 (N, 28, 28) -> float32 (N, 10); rows add up to 1."""
        return np.asarray(np.exp(network.log_softmax(self.logits(images))))

    def logits(self, images: np.ndarray, engine: str = "numpy") -> np.ndarray:
        """Compute the network's output for each image, with any engine and wherever the model was trained.

        Parameters
        ----------
        images : ndarray
            uint8 (N, 28, 28), from 0 (paper) to 255 (ink).
        engine : str, default "numpy"
            "numpy", which needs no other package; "mxnet" or "torch". They differ by less than 1e-5.

        Returns
        -------
        ndarray
            float32 (N, 10).

        Raises
        ------
        InvalidParameters
            The images have another type or shape, or there is no such engine.
        MissingDependency
            The engine is not installed.
        """
        images = np.asarray(images)
        if engine == "numpy":
            return numpy_logits(self.weights, images)
        none = np.zeros((0, 28, 28), np.uint8)
        p = engines.settle(Parameters().replace(engine=engine))
        return engines.start(p, Digits(none, none[:, 0, 0], none, none[:, 0, 0]), self.weights, {}).logits(images)

    def evaluate(self, images: np.ndarray, labels: np.ndarray) -> Evaluation:
        """Compare predictions with labels: accuracy, confusion matrix and calibration.

        Parameters
        ----------
        images : ndarray
            uint8 (N, 28, 28), from 0 (paper) to 255 (ink).
        labels : ndarray
            The digit on each image, (N,).

        Raises
        ------
        InvalidParameters
            There is not one digit from 0 to 9 per image, or the images have another type or shape.
        """
        images, labels = np.asarray(images), np.asarray(labels)
        if labels.shape != images.shape[:1] or not labels.size or not np.isin(labels, np.arange(CLASSES)).all():
            raise InvalidParameters(
                f"evaluate needs one label per image, each a digit from 0 to {CLASSES - 1}, got images "
                f"of shape {images.shape} and labels of type {labels.dtype} and shape {labels.shape}."
            )
        return Evaluation(labels.astype(int), self.probabilities(images))

    def to_onnx(self, path: str | os.PathLike[str]) -> str:
        """Write the network as an ONNX file, to a path or to s3://bucket/key; returns the address."""
        about = {"parameters": self.parameters.to_dict(), "data": dict(self.data), "weights_sha256": self.sha256}
        return to_onnx(self.weights, path, about)

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write a checkpoint atomically to a path or to s3://bucket/key; returns the address."""
        return checkpoint.write(path, {each.name: getattr(self, each.name) for each in fields(self)})

    def __repr__(self) -> str:
        epochs = f"{self.epoch} epoch{'' if self.epoch == 1 else 's'}"
        return f"<Model lenet, {epochs}, weights {self.sha256[:12]}>"

    def _repr_html_(self) -> str:
        rows = {**self.history.rows(), "weights (sha256)": self.sha256}
        fold = {"Parameters": self.parameters.to_dict(), "Versions": self.versions}
        return card("LeNet", rows, fold=fold)


def load(path: str | os.PathLike[str]) -> Model:
    """Load the model in a checkpoint.

    Parameters
    ----------
    path : str or path
        A checkpoint, or a folder with lenet.safetensors in it; both may be on S3 (s3://bucket/key).

    Returns
    -------
    Model
        The model, with the history of its training.

    Raises
    ------
    NotFound
        There is no checkpoint.
    InvalidCheckpoint
        The file is not a complete checkpoint.
    """
    return Model(**checkpoint.read(path))
