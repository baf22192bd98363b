"""Checkpoints: a training in one file, with all that is needed to resume it or to use the model elsewhere.

The file is a zip with ``checkpoint.json`` and one .npy array for each weight and its momentum. Nothing in it is
pickled or compressed, and no more is read than a checkpoint can hold: a file from a stranger can be opened without
running code or filling the memory.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genokit import storage
from genokit.errors import InvalidCheckpoint, NotFound
from genokit.train import training_log
from genokit.train.network import SHAPES, Weights
from genokit.train.parameters import Parameters

FORMAT = 1
FILE = "lenet.ckpt"
MOST_RECORD = 16 * 2**20  # bytes of checkpoint.json, enough for 10,000 epochs
MOST = MOST_RECORD + 2**22  # bytes of the file: weights and momentum are 3.5 MB
FIELDS = {"parameters": dict, "epoch": int, "data": dict, "epochs": list, "batches": list, "versions": dict}


def write(target: str | os.PathLike[str], training: Mapping[str, Any]) -> str:
    """Write the fields of a Model atomically to a path or to s3://bucket/key; returns the address."""
    return storage.write(locate(target), _encode(training))


def read(target: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields of a Model; raises NotFound, or InvalidCheckpoint if the file is not a complete one."""
    where = locate(target)
    try:
        return _decode(storage.read(where, at_most=MOST + 1))
    except NotFound as error:
        raise NotFound(
            f"There is no checkpoint {where}. train.fit(..., checkpoint={where!r}) writes one after each epoch."
        ) from error
    except ValueError as error:
        raise InvalidCheckpoint(
            f"{where} is not a valid checkpoint: {error}. "
            "Use another file, or train again: train.fit(..., checkpoint=...) replaces it."
        ) from error


def locate(target: str | os.PathLike[str]) -> str:
    """The address of a checkpoint: the target itself, or ``lenet.ckpt`` in it if it is a folder.

    On S3 a last part without a dot counts as a folder.

    >>> locate("s3://bucket/runs/7"), locate("s3://bucket/best.ckpt")
    ('s3://bucket/runs/7/lenet.ckpt', 's3://bucket/best.ckpt')
    """
    where = os.fspath(target)
    if storage.is_s3(where):
        key = storage.split(where)[1].rstrip("/")
        return where.rstrip("/") + ("" if "." in key.rpartition("/")[2] else f"/{FILE}")
    path = Path(where).expanduser().absolute()
    return str(path / FILE if path.is_dir() else path)


def _encode(training: Mapping[str, Any]) -> bytes:
    record = {"format": FORMAT, "network": "lenet", **training, "parameters": training["parameters"].to_dict()}
    arrays = {kind: record.pop(kind) for kind in ("weights", "momentum")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # ZipInfo has a fixed date, so that equal trainings give equal bytes.
        archive.writestr(zipfile.ZipInfo("checkpoint.json"), json.dumps(record, indent=1))
        for kind, named in arrays.items():
            for name, array in named.items():
                with archive.open(zipfile.ZipInfo(f"{kind}/{name}.npy"), "w") as file:
                    np.save(file, array, allow_pickle=False)
    return buffer.getvalue()


def _decode(data: bytes) -> dict[str, Any]:
    """The fields of a Model in the bytes of a file; ValueError says what was expected and what was found."""
    if len(data) > MOST:
        raise ValueError(f"expected at most {MOST:,} bytes, got more")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        record = json.loads(_member(archive, "checkpoint.json"))
    except Exception as error:  # zipfile raises a dozen kinds of errors for a foreign file
        raise ValueError(
            f"expected a zip with checkpoint.json and arrays, got {len(data):,} bytes ({error})"
        ) from error
    about = (record.get("network"), record.get("format")) if isinstance(record, dict) else "none"
    if about != ("lenet", FORMAT):
        raise ValueError(f"expected a checkpoint of ('lenet', {FORMAT}), got {about}, of another version of genokit")
    try:
        for name, kind in FIELDS.items():
            if not isinstance(record[name], kind):
                raise TypeError(f"'{name}' has the wrong type")
        record["parameters"] = parameters = Parameters.from_dict(record["parameters"])
        training_log.frame(record["epochs"], training_log.EPOCH)
        training_log.frame(record["batches"], training_log.BATCH)
        for name in ("title", "version", "sha256"):
            str(record["data"][name])
    except Exception as error:  # the rows may hold anything
        raise ValueError(f"checkpoint.json is not valid: {error}") from error
    momentum = _arrays(archive, "momentum") if parameters.momentum else {}
    return {name: record[name] for name in FIELDS} | {"weights": _arrays(archive, "weights"), "momentum": momentum}


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    one, most = archive.getinfo(name), MOST_RECORD if name == "checkpoint.json" else MOST
    if one.compress_type != zipfile.ZIP_STORED or one.file_size > most:
        raise ValueError(f"{name} is compressed or larger than {most:,} bytes")
    return archive.read(one)


def _arrays(archive: zipfile.ZipFile, kind: str) -> Weights:
    arrays = {}
    for name, shape in SHAPES.items():
        file = f"{kind}/{name}.npy"
        try:
            npy = io.BytesIO(_member(archive, file))
            array = np.lib.format.read_array(npy, allow_pickle=False)
        except Exception as error:  # the header may hold anything
            raise ValueError(f"{file} is missing or not a plain array: {error}") from error
        if array.shape != shape or array.dtype != np.float32 or npy.read(1):
            raise ValueError(f"expected {file} as float32 {shape}, got {array.dtype} {array.shape}")
        arrays[name] = array
    return arrays
