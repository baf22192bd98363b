"""How a training went: one row an epoch, one row a stretch of batches, from the training itself or from its log."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from genokit.display import card, seconds
from genokit.errors import InvalidParameters, NotFound
from genokit.plots import learning_curve
from genokit.train.digits import CLASSES
from genokit.train.parameters import Parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from genokit.train.model import Model

EPOCH = ("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds", "samples_per_s")
BATCH = ("epoch", "batch", "loss", "accuracy", "samples_per_s")

# What MXNet's Module.fit calls the columns of an epoch.
LOGGED = {
    "Train-accuracy": "accuracy",
    "Train-cross-entropy": "loss",
    "Time cost": "seconds",
    "Validation-accuracy": "validation_accuracy",
    "Validation-cross-entropy": "validation_loss",
}


class History:
    """The course of a training: ``table`` has one row an epoch, ``batches`` one row a stretch of batches.

    Columns of ``table``: epoch (from 0), loss (mean cross-entropy, in nats) and accuracy (0 to 1) over the epoch's
    training images as they were seen, validation_loss and validation_accuracy after it, seconds (training only) and
    samples_per_s. Columns of ``batches``: epoch, batch (the last one of the stretch), loss, accuracy, samples_per_s.
    What a log does not tell is NaN.

    ``finite`` is False once a loss was infinite or not a number: such weights never recover.
    ``sample`` is True if the data were a sample of MNIST, so that validation is on images held out of that sample;
    None if unknown. ``parameters``, ``data`` and ``model`` are None where only a log was at hand.
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
        self.table = _frame(epochs, EPOCH)
        self.batches = _frame(batches, BATCH)
        losses = [row.get(name) for row in (*epochs, *batches) for name in ("loss", "validation_loss")]
        self.finite = all(loss is None or math.isfinite(float(loss)) for loss in losses)
        self.parameters = parameters
        self.data = data
        self._model = model

    @property
    def sample(self) -> bool | None:
        return None if self.data is None else bool(self.data.get("sample"))

    @property
    def model(self) -> Model:
        """The trained model. Raises NotFound for a history read from a log."""
        if self._model is None:
            raise NotFound("A history read from a log has no model. Load the job's checkpoint: train.load(path).")
        return self._model

    @property
    def validation_accuracy(self) -> float:
        """The validation accuracy after the last epoch that has one; NaN if none has."""
        known = self.table["validation_accuracy"].dropna()
        return float(known.iloc[-1]) if len(known) else float("nan")

    @property
    def problem(self) -> str | None:
        """One sentence that says that the training diverged or did not learn; None if it did neither."""
        if self.finite and not self.validation_accuracy < 2 / CLASSES:  # NaN, too, is no reason to complain
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
        """The history in a log of MXNet's form, the kit's own or another program's; other lines are passed over.

        Reads ``Epoch[0] Batch [100]\\tSpeed: 2999.00 samples/sec\\taccuracy=0.95`` and the lines of an epoch:
        ``Train-accuracy=``, ``Time cost=``, ``Validation-accuracy=`` and the same with cross-entropy. A log that
        breaks off gives the epochs that it has; of what a restarted job says twice, the last counts.

        >>> log = "INFO:root:Epoch[0] Train-accuracy=0.912\\nnoise\\nEpoch[0] Validation-accuracy=0.97\\n"
        >>> History.from_log(log).table[["epoch", "accuracy", "validation_accuracy"]].to_dict("records")
        [{'epoch': 0, 'accuracy': 0.912, 'validation_accuracy': 0.97}]
        """
        return _parse(_without_half_a_number(text))

    def rows(self) -> dict[str, object]:
        """What a card says of it."""
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


def _frame(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    types = {name: "int64" if name in ("epoch", "batch") else "float64" for name in columns}
    return pd.DataFrame(list(rows), columns=list(columns)).astype(types)


def batch_line(row: Mapping[str, Any]) -> str:
    """A stretch of batches as MXNet's Speedometer writes it.

    >>> batch_line({"epoch": 0, "batch": 100, "loss": 0.2, "accuracy": 0.95, "samples_per_s": 2999})
    'Epoch[0] Batch [100]\\tSpeed: 2999.00 samples/sec\\taccuracy=0.950000\\tcross-entropy=0.200000'
    """
    head = f"Epoch[{row['epoch']}] Batch [{row['batch']}]\tSpeed: {row['samples_per_s']:.2f} samples/sec"
    return f"{head}\taccuracy={row['accuracy']:.6f}\tcross-entropy={row['loss']:.6f}"


def epoch_lines(row: Mapping[str, Any]) -> list[str]:
    """An epoch as MXNet's ``Module.fit`` writes it."""
    return [f"Epoch[{row['epoch']}] {name}={row[column]:.6f}" for name, column in LOGGED.items()]


def header_lines(parameters: Parameters, data: Mapping[str, Any]) -> list[str]:
    """The lines by which a log says what it is a training of: ``from_log`` reads them back."""
    return [f"Data {json.dumps(data)}", f"Parameters {json.dumps(parameters.to_dict())}"]


_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|nan|inf)"
_LINE = re.compile(
    r"Epoch\[(?P<epoch>\d+)\] (?:"
    rf"Batch ?\[(?:\d+-)?(?P<batch>\d+)\]\s+Speed: (?P<speed>{_NUMBER}) samples/sec"
    rf"(?P<metrics>(?:[ \t]+[\w-]+={_NUMBER})*)"
    rf"|(?P<name>{'|'.join(LOGGED)})=(?P<value>{_NUMBER}))"
)
_METRIC = re.compile(rf"(accuracy|cross-entropy)=({_NUMBER})")  # older MXNet writes Train-accuracy
_HEADER = re.compile(r"\b(Data|Parameters) (\{.*\})")


def _parse(text: str) -> History:
    epochs: dict[int, dict[str, Any]] = {}
    batches: dict[tuple[int, int], dict[str, Any]] = {}
    for found in _LINE.finditer(text):
        epoch = int(found["epoch"])
        if found["batch"]:
            metrics = dict(_METRIC.findall(found["metrics"]))
            batches[epoch, int(found["batch"])] = {
                "epoch": epoch,
                "batch": int(found["batch"]),
                "loss": metrics.get("cross-entropy"),
                "accuracy": metrics.get("accuracy"),
                "samples_per_s": float(found["speed"]),
            }
        else:
            epochs.setdefault(epoch, {"epoch": epoch})[LOGGED[found["name"]]] = float(found["value"])
    for epoch, row in epochs.items():
        speeds = [batch["samples_per_s"] for batch in batches.values() if batch["epoch"] == epoch]
        row["samples_per_s"] = sum(speeds) / len(speeds) if speeds else None  # each stretch has as many batches
    in_order = [epochs[key] for key in sorted(epochs)]
    return History(in_order, [batches[key] for key in sorted(batches)], **_headers(text))


def _headers(text: str) -> dict[str, Any]:
    """What the header lines say; what another version of the kit wrote differently is left out."""
    headers = {}
    for name, record in _HEADER.findall(text):
        try:
            value = json.loads(record)
            headers[name.lower()] = Parameters.from_dict(value) if name == "Parameters" else value
        except (ValueError, InvalidParameters):
            continue
    return headers


def _without_half_a_number(text: str) -> str:
    """The text less the number that it breaks off in: one at its very end with fewer decimals than its like before."""
    last = re.search(r"(\w+)=\d*\.?(\d*)\Z", text)
    like = re.findall(rf"{last[1]}=\d+\.(\d+)\s", text) if last else []
    return text[: last.start()] if last and len(last[2]) < min(map(len, like), default=0) else text
