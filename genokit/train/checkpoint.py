"""A training in one file: weights, momentum, and all that it takes to go on or to use the model elsewhere.

The file is a zip with ``checkpoint.json`` and one .npy array for each weight and its momentum. Nothing in it is
pickled or compressed, and no more is read of it than a checkpoint has: a file from somebody else can be opened without
running what is in it, or filling the memory.
"""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genokit import backends
from genokit.errors import ConfigError, InvalidCheckpoint, InvalidParameters, NotFound
from genokit.files import write_atomic
from genokit.train.history import History
from genokit.train.network import SHAPES, Weights
from genokit.train.parameters import Parameters

FORMAT = 1
FILE = "lenet.ckpt"
MOST_RECORD = 16 * 2**20  # bytes of checkpoint.json: 10,000 epochs have as much
MOST = MOST_RECORD + 2**22  # of the file: weights and momentum are 3.5 MB


def write(target: str | os.PathLike[str], training: Mapping[str, Any]) -> str:
    """Store the fields of a Model at a path, or at s3://bucket/key: whole or not at all. Returns where."""
    where = locate(target)
    if where.startswith("s3://"):
        bucket, _, key = where.removeprefix("s3://").partition("/")
        with backends.translated_errors(where):
            backends.clients().s3.put_object(Bucket=bucket, Key=key, Body=_encode(training))
    else:
        write_atomic(where, _encode(training))
    return where


def read(target: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a Model. Raises NotFound if there is none, InvalidCheckpoint if the file is not a whole one."""
    where = locate(target)
    try:
        return _decode(_fetch(where))
    except FileNotFoundError as error:
        raise NotFound(
            f"There is no checkpoint {where}. train.fit(..., checkpoint={where!r}) writes one each epoch."
        ) from error
    except OSError as error:
        raise InvalidCheckpoint(f"{where} cannot be read: {error.strerror}. Take another checkpoint.") from error
    except ValueError as error:
        raise InvalidCheckpoint(
            f"{where} is not a whole checkpoint: {error}. "
            "Take another file, or train again: train.fit(..., checkpoint=...) replaces it."
        ) from error


def locate(target: str | os.PathLike[str]) -> str:
    """Where a checkpoint lies: the target itself, or ``lenet.ckpt`` in it if it is a folder.

    On S3 a last part without a dot is taken for a folder.

    >>> locate("s3://bucket/runs/7"), locate("s3://bucket/best.ckpt")
    ('s3://bucket/runs/7/lenet.ckpt', 's3://bucket/best.ckpt')
    """
    where = os.fspath(target)
    if where.startswith("s3://"):
        bucket, _, key = where.removeprefix("s3://").rstrip("/").partition("/")
        if not bucket:
            raise InvalidParameters(f"{where!r} is no place on S3: expected s3://bucket/key.")
        return where.rstrip("/") + ("" if "." in key.rpartition("/")[2] else f"/{FILE}")
    path = Path(where).expanduser().absolute()
    return str(path / FILE if path.is_dir() else path)


def check_writable(target: str | os.PathLike[str]) -> None:
    """Make the folder of a local target; raise ConfigError now, and not after the first epoch, if that cannot be."""
    where = locate(target)
    if where.startswith("s3://"):
        return
    folder = Path(where).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f"The checkpoint's folder {folder} cannot be made or written: {error.strerror}. Choose another."
        ) from error


def _fetch(where: str) -> bytes:
    """The bytes of a file, one more than a checkpoint can have at most."""
    if not where.startswith("s3://"):
        with Path(where).open("rb") as file:
            return file.read(MOST + 1)
    bucket, _, key = where.removeprefix("s3://").partition("/")
    s3 = backends.clients().s3
    with backends.translated_errors(where):
        try:
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read(MOST + 1))
        except s3.exceptions.NoSuchKey as error:
            raise FileNotFoundError(where) from error


def _encode(training: Mapping[str, Any]) -> bytes:
    record = {"format": FORMAT, "network": "lenet", **training, "parameters": training["parameters"].to_dict()}
    arrays = {kind: record.pop(kind) for kind in ("weights", "momentum")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # ZipInfo's fixed date: equal trainings make equal bytes.
        archive.writestr(zipfile.ZipInfo("checkpoint.json"), json.dumps(record, indent=1))
        for kind, named in arrays.items():
            for name, array in named.items():
                npy = io.BytesIO()
                np.save(npy, array, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{kind}/{name}.npy"), npy.getvalue())
    return buffer.getvalue()


def _decode(data: bytes) -> dict[str, Any]:
    """The fields of a Model in the bytes of a file. Raises ValueError with what was expected and what is there."""
    if len(data) > MOST:
        raise ValueError(f"expected at most {MOST:,} bytes, got more")
    names = ("checkpoint.json", *(f"{kind}/{name}.npy" for kind in ("weights", "momentum") for name in SHAPES))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: _member(archive, name) for name in {*names}.intersection(archive.namelist())}
        record = json.loads(files["checkpoint.json"])
    except Exception as error:  # zipfile has a dozen kinds of errors for what somebody else may have made
        raise ValueError(
            f"expected a zip with checkpoint.json and arrays, got {len(data):,} bytes ({error})"
        ) from error
    network = record.get("network") if isinstance(record, dict) else "none"
    if network != "lenet":
        raise ValueError(f"expected a checkpoint of 'lenet', got {network}")
    if record.get("format") != FORMAT:
        raise ValueError(
            f"expected format {FORMAT}, got format {record.get('format')!r}, of another version of genokit"
        )
    try:
        parameters = Parameters.from_dict(record["parameters"])
        rest = {name: record[name] for name in ("epoch", "data", "epochs", "batches", "versions")}
        for name, kind in {"epoch": int, "data": dict, "epochs": list, "batches": list, "versions": dict}.items():
            if not isinstance(rest[name], kind):
                raise TypeError(f"'{name}' is not of the kind that it should be")
        History(rest["epochs"], rest["batches"], parameters=parameters, data=rest["data"]).rows()
    except Exception as error:  # rows of any kind may be in there
        raise ValueError(f"expected a whole checkpoint.json, got one that is not: {error}") from error
    momentum = _arrays(files, "momentum") if parameters.momentum else {}
    return {"parameters": parameters, "weights": _arrays(files, "weights"), "momentum": momentum, **rest}


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    one, most = archive.getinfo(name), MOST_RECORD if name == "checkpoint.json" else MOST
    if one.compress_type != zipfile.ZIP_STORED or one.file_size > most:
        raise ValueError(f"{name} is compressed, or has more than {most:,} bytes")
    return archive.read(one)


def _arrays(files: Mapping[str, bytes], kind: str) -> Weights:
    arrays = {}
    for name, shape in SHAPES.items():
        file = f"{kind}/{name}.npy"
        if file not in files:
            raise ValueError(f"expected an array {file}, got none of that name")
        npy = io.BytesIO(files[file])
        try:
            if np.lib.format.read_magic(npy) != (1, 0):
                raise ValueError("a format other than 1.0")
            got, by_column, dtype = np.lib.format.read_array_header_1_0(npy)
            if dtype.hasobject:
                raise ValueError("objects")
        except Exception as error:  # what stands for the header may be anything
            raise ValueError(f"expected {file} as a plain array, got another thing: {error}") from error
        # Before anything is made of it: a header may tell of more bytes than there are, or of objects.
        if got != shape or dtype != np.float32 or by_column or len(data := npy.read()) != 4 * math.prod(shape):
            raise ValueError(f"expected {file} as float32 {shape}, got {dtype} {got} in {len(files[file]):,} bytes")
        arrays[name] = np.frombuffer(data, np.float32).reshape(shape).copy()
    return arrays
