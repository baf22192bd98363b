"""Checkpoints: a training in one safetensors file, with all that is needed to resume it or to use the model elsewhere.

The tensors are the weights, named as in the network, and ``momentum.`` before the same name for their momentum; one
field of the metadata, ``genokit``, holds the rest as JSON, with a hash of the tensors. Any program that reads
safetensors (https://github.com/huggingface/safetensors) reads the weights. Nothing in the format can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from genokit import storage
from genokit.errors import InvalidCheckpoint, NotFound
from genokit.train import training_log
from genokit.train.network import SHAPES, Weights, misfits
from genokit.train.parameters import Parameters

FORMAT = 2
FILE = "lenet.safetensors"
MOST_RECORD = 2**24  # bytes of a record with a history of 10,000 epochs
MOST = MOST_RECORD + 2**22  # bytes of the file: 3.5 MB are weights and momentum
FIELDS = {"parameters": dict, "epoch": int, "batch": int, "sums": list, "data": dict, "epochs": list, "batches": list,
          "versions": dict}  # fmt: skip
MOMENTUM = "momentum."


def write(target: str | os.PathLike[str], training: Mapping[str, Any]) -> str:
    """Write the fields of a Model atomically to a path or to s3://bucket/key; returns the address."""
    tensors = training["weights"] | {MOMENTUM + name: array for name, array in training["momentum"].items()}
    record = {name: training[name] for name in FIELDS} | {"parameters": training["parameters"].to_dict()}
    record |= {"network": "lenet", "format": FORMAT, "sha256": tensors_sha256(tensors)}
    # One field of metadata: safetensors writes several in no fixed order, and equal trainings should give equal bytes.
    return storage.write(locate(target), save_tensors(tensors, {"genokit": json.dumps(record)}))


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


def read_record(target: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the metadata of a checkpoint without its weights; {} if there is no valid checkpoint."""
    try:
        data = storage.read(locate(target), at_most=2**16)
        end = 8 + int.from_bytes(data[:8], "little")
        if len(data) < end <= MOST_RECORD:
            data = storage.read(locate(target), at_most=end)
        record = _record(data)
        return dict(record) if (record["network"], record["format"]) == ("lenet", FORMAT) else {}
    except (NotFound, ValueError, LookupError, TypeError):
        return {}


def locate(target: str | os.PathLike[str]) -> str:
    """The address of a checkpoint: the target itself, or ``lenet.safetensors`` in it if it is a folder.

    On S3 a last part without a dot counts as a folder.

    >>> locate("s3://bucket/runs/7"), locate("s3://bucket/best.safetensors")
    ('s3://bucket/runs/7/lenet.safetensors', 's3://bucket/best.safetensors')
    """
    where = os.fspath(target)
    if storage.is_s3(where):
        key = storage.split(where)[1].rstrip("/")
        return where.rstrip("/") + ("" if "." in key.rpartition("/")[2] else f"/{FILE}")
    path = Path(where).expanduser().absolute()
    return str(path / FILE if path.is_dir() else path)


def _record(data: bytes) -> Any:
    """The JSON in the header of a safetensors file: https://github.com/huggingface/safetensors#format"""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["genokit"])


def _decode(data: bytes) -> dict[str, Any]:
    """The fields of a Model in the bytes of a file; ValueError says what was expected and what was found."""
    if len(data) > MOST:
        raise ValueError(f"expected at most {MOST:,} bytes, got more")
    try:
        tensors = load_tensors(data)  # checks the header, and every tensor's place in the file
        record = _record(data)
    except Exception as error:  # the file may hold anything
        raise ValueError(f"expected a safetensors file of genokit, got {len(data):,} bytes ({error})") from error
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
        raise ValueError(f"its record is not valid: {error}") from error
    begun = parameters.momentum and (record["epoch"] or record["batch"])
    moving = {name: MOMENTUM + name for name in SHAPES if begun}
    if wrong := misfits(tensors, SHAPES | {key: SHAPES[name] for name, key in moving.items()}):
        raise ValueError(f"its tensors are not those of a LeNet: {'; '.join(wrong)}")
    if tensors_sha256(tensors) != record.get("sha256"):
        raise ValueError("its weights differ from the hash in it: the file is damaged")
    arrays = {"weights": {name: tensors[name] for name in SHAPES},
              "momentum": {name: tensors[key] for name, key in moving.items()}}  # fmt: skip
    return {name: record[name] for name in FIELDS} | arrays


def tensors_sha256(tensors: Weights) -> str:
    """Hash tensors by their names and values, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].astype("<f4").tobytes())
    return digest.hexdigest()
