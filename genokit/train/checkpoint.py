"""A training in one file: weights, momentum, and all that it takes to go on or to use the model elsewhere.

The file is a zip with ``checkpoint.json`` and one .npy array for each weight and its momentum. Nothing in it is
pickled, so that a file from somebody else can be opened without running what is in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from genokit.errors import ConfigError, InvalidCheckpoint, InvalidParameters, NotFound
from genokit.train.network import SHAPES
from genokit.train.parameters import Parameters

FORMAT = 1
FILE = "lenet.ckpt"

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """A training after ``epoch`` epochs; ``data`` says on which data, ``epochs`` and ``batches`` how it went."""

    parameters: Parameters
    epoch: int
    data: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    batches: Sequence[Mapping[str, Any]]
    weights: Weights = field(repr=False)
    momentum: Weights = field(repr=False)
    versions: Mapping[str, str] = field(default_factory=lambda: versions())

    @property
    def sha256(self) -> str:
        """One hash of all weights: equal if and only if they are equal, bit for bit."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            digest.update(name.encode() + self.weights[name].astype("<f4").tobytes())
        return digest.hexdigest()

    def write(self, target: str | os.PathLike[str]) -> str:
        """Store it at a path, or at s3://bucket/key: whole or not at all. Returns where."""
        return _store(locate(target), self._bytes())

    @staticmethod
    def read(target: str | os.PathLike[str]) -> Checkpoint:
        """Read one. Raises NotFound if there is none, InvalidCheckpoint if the file is not a whole one."""
        where = locate(target)
        data = _fetch(where)
        if data is None:
            raise NotFound(
                f"There is no checkpoint {where}. train.fit(..., checkpoint={where!r}) writes one each epoch."
            )
        return _decode(where, data)

    def _bytes(self) -> bytes:
        names = {field: value for field, value in vars(self).items() if field not in ("weights", "momentum")}
        record = {"format": FORMAT, "network": "lenet", **names, "parameters": asdict(self.parameters)}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            # ZipInfo's fixed date: equal trainings make equal bytes.
            archive.writestr(zipfile.ZipInfo("checkpoint.json"), json.dumps(record, indent=1))
            for kind in ("weights", "momentum"):
                for name, array in getattr(self, kind).items():
                    npy = io.BytesIO()
                    np.lib.format.write_array(npy, array, allow_pickle=False)
                    archive.writestr(zipfile.ZipInfo(f"{kind}/{name}.npy"), npy.getvalue())
        return buffer.getvalue()


def exists(target: str | os.PathLike[str]) -> bool:
    """Whether there is a file at the target."""
    return _fetch(locate(target)) is not None


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
        folder = key if "." not in key.rpartition("/")[2] else None
        return f"s3://{bucket}/{key}" if folder is None else f"s3://{bucket}/{f'{folder}/' if folder else ''}{FILE}"
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
    except OSError as error:
        raise ConfigError(
            f"The checkpoint's folder {folder} cannot be made: {error.strerror}. Choose another."
        ) from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"The checkpoint's folder {folder} is not writable. Choose another.")


def versions() -> dict[str, str]:
    """What trained: Python and the packages that have a say in the bits."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("genokit", "numpy", "mxnet"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # such as genokit in a checkout
            continue
    return found


def _decode(where: str, data: bytes) -> Checkpoint:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            record = json.loads(archive.read("checkpoint.json"))
            arrays = {name: archive.read(name) for name in archive.namelist() if name.endswith(".npy")}
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise _invalid(where, "a zip with checkpoint.json and arrays", f"{len(data):,} bytes ({error})") from error
    if not isinstance(record, dict) or record.get("network") != "lenet":
        raise _invalid(
            where, "a checkpoint of 'lenet'", f"{record.get('network')!r}" if isinstance(record, dict) else "none"
        )
    if record.get("format") != FORMAT:
        raise _invalid(where, f"format {FORMAT}", f"format {record.get('format')!r}, of another version of genokit")
    weights = _arrays(where, arrays, "weights")
    try:
        parameters = Parameters.from_dict(record["parameters"])
        momentum = _arrays(where, arrays, "momentum") if parameters.momentum else {}
        return Checkpoint(
            parameters, int(record["epoch"]), dict(record["data"]), list(record["epochs"]), list(record["batches"]),
            weights, momentum, dict(record["versions"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, InvalidParameters) as error:
        raise _invalid(where, "a whole checkpoint.json", f"one that is not: {error}") from error


def _arrays(where: str, files: Mapping[str, bytes], kind: str) -> Weights:
    arrays = {}
    for name, shape in SHAPES.items():
        file = f"{kind}/{name}.npy"
        if file not in files:
            raise _invalid(where, f"an array {file}", "none of that name")
        try:
            array = np.lib.format.read_array(io.BytesIO(files[file]), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise _invalid(where, f"{file} as a plain array", str(error)) from error
        if array.shape != shape or array.dtype != np.float32:
            raise _invalid(where, f"{file} as float32 {shape}", f"{array.dtype} {array.shape}")
        arrays[name] = array
    return arrays


def _invalid(where: str, expected: str, got: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(
        f"{where} is not a whole checkpoint: expected {expected}, got {got}. "
        "Take another file, or train again: train.fit(..., checkpoint=...) replaces it."
    )


def _store(where: str, data: bytes) -> str:
    if where.startswith("s3://"):
        bucket, _, key = where.removeprefix("s3://").partition("/")
        s3, translated_errors = _s3()
        with translated_errors(where):
            s3.put_object(Bucket=bucket, Key=key, Body=data)
    else:
        from genokit.files import write_atomic

        write_atomic(where, data)
    return where


def _fetch(where: str) -> bytes | None:
    if not where.startswith("s3://"):
        try:
            return Path(where).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidCheckpoint(
                f"{where} cannot be read: {error.strerror}. Give the path of a checkpoint."
            ) from error
    bucket, _, key = where.removeprefix("s3://").partition("/")
    s3, translated_errors = _s3()
    with translated_errors(where):
        try:
            return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None


def _s3() -> tuple[Any, Any]:
    from genokit import backends

    return backends.clients().s3, backends.translated_errors
