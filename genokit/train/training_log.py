"""The log of a training, in MXNet's format: written line by line, and read back as rows per epoch and per batches."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from genokit.errors import InvalidParameters
from genokit.train.parameters import Parameters

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


def frame(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    """Rows as a table with these columns; raises for rows that do not fit."""
    types = {name: "int64" if name in ("epoch", "batch") else "float64" for name in columns}
    return pd.DataFrame(list(rows), columns=list(columns)).astype(types)


def batch_line(row: Mapping[str, Any]) -> str:
    """The line for a group of batches, as MXNet's Speedometer writes it.

    >>> batch_line({"epoch": 0, "batch": 100, "loss": 0.2, "accuracy": 0.95, "samples_per_s": 2999})
    'Epoch[0] Batch [100]\\tSpeed: 2999.00 samples/sec\\taccuracy=0.950000\\tcross-entropy=0.200000'
    """
    head = f"Epoch[{row['epoch']}] Batch [{row['batch']}]\tSpeed: {row['samples_per_s']:.2f} samples/sec"
    return f"{head}\taccuracy={row['accuracy']:.6f}\tcross-entropy={row['loss']:.6f}"


def epoch_lines(row: Mapping[str, Any]) -> list[str]:
    """The lines for an epoch, as MXNet's ``Module.fit`` writes them."""
    return [f"Epoch[{row['epoch']}] {name}={row[column]:.6f}" for name, column in LOGGED.items()]


def header_lines(parameters: Parameters, data: Mapping[str, Any]) -> list[str]:
    """The lines that state the data and parameters of a training; ``parse`` reads them."""
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


def parse(text: str) -> dict[str, Any]:
    """Rows of ``epochs`` and ``batches``, and ``data`` and ``parameters`` where the log states them."""
    text = _without_half_a_number(text)
    epochs: dict[int, dict[str, Any]] = {}
    batches: dict[tuple[int, int], dict[str, Any]] = {}
    for found in _LINE.finditer(text):
        epoch = int(found["epoch"])
        if found["batch"]:
            row: dict[str, Any] = {"epoch": epoch, "batch": int(found["batch"]), "samples_per_s": float(found["speed"])}
            row |= {LOGGED[f"Train-{name}"]: value for name, value in _METRIC.findall(found["metrics"])}
            batches[epoch, row["batch"]] = row
        else:
            epochs.setdefault(epoch, {"epoch": epoch})[LOGGED[found["name"]]] = float(found["value"])
    for epoch, row in epochs.items():
        speeds = [batch["samples_per_s"] for batch in batches.values() if batch["epoch"] == epoch]
        row["samples_per_s"] = sum(speeds) / len(speeds) if speeds else None  # all groups have the same size
    in_order = {"epochs": [epochs[key] for key in sorted(epochs)], "batches": [batches[key] for key in sorted(batches)]}
    return in_order | _headers(text)


def _headers(text: str) -> dict[str, Any]:
    """What the header lines state; lines of an incompatible version are left out."""
    headers = {}
    for name, record in _HEADER.findall(text):
        try:
            value = json.loads(record)
            headers[name.lower()] = Parameters.from_dict(value) if name == "Parameters" else value
        except (ValueError, InvalidParameters):
            continue
    return headers


def _without_half_a_number(text: str) -> str:
    """The text without a cut-off number at its very end: one with fewer decimals than its predecessors."""
    last = re.search(r"(\w+)=\d*\.?(\d*)\Z", text)
    like = re.findall(rf"{last[1]}=\d+\.(\d+)\s", text) if last else []
    return text[: last.start()] if last and len(last[2]) < min(map(len, like), default=0) else text
