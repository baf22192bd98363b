"""Files by address: a path on this machine or ``s3://bucket/key``, read and written by the same functions.

A job's script writes its result in one line, and another reads them all:

>>> from genokit import backends, storage
>>> folder = f"s3://{backends.clients().bucket}/sweep"
>>> storage.write(f"{folder}/0.1.json", '{"loss": 0.3}')
's3://genokit/sweep/0.1.json'
>>> [storage.read(address) for address in storage.files(folder)]
[b'{"loss": 0.3}']
>>> storage.delete(folder)

Every function takes ``clients``; without them, the settings' own are used. cloudpathlib is not used: it opens its own
boto3 client and resource instead of taking one, keeps a copy of every object on disk, and cannot write if absent.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from genokit import backends
from genokit.config import Settings
from genokit.errors import ConfigError, InvalidParameters, InvalidRequest, NotFound
from genokit.files import sha256 as file_sha256
from genokit.files import write_atomic

Address = str | os.PathLike[str]
Content = bytes | str | IO[bytes]

ABSENT = ("NoSuchKey", "NoSuchBucket", "404")
LOST_RACE = ("PreconditionFailed", "ConditionalRequestConflict")  # another writer was first


def is_s3(address: Address) -> bool:
    """Whether an address is on S3.

    >>> is_s3("s3://bucket/key"), is_s3("/data/key")
    (True, False)
    """
    return os.fspath(address).startswith("s3://")


def split(address: Address) -> tuple[str, str]:
    """The bucket and the key of an address on S3. Raises InvalidParameters.

    >>> split("s3://bucket/omop/person/"), split("s3://bucket")
    (('bucket', 'omop/person/'), ('bucket', ''))
    """
    bucket, _, key = os.fspath(address).removeprefix("s3://").partition("/")
    if not is_s3(address) or not bucket or (key and not _is_safe(key.removesuffix("/"))):
        raise InvalidParameters(f"'{address}' is not an address on S3. Expected s3://bucket/key.")
    return bucket, key


def join(folder: Address, *names: str) -> str:
    """The address of a file in a folder; a name cannot lead out of the folder. Raises InvalidParameters.

    >>> join("s3://bucket/results/", "0.1/model.ckpt")
    's3://bucket/results/0.1/model.ckpt'
    >>> join("results", "../secrets")
    Traceback (most recent call last):
    genokit.errors.InvalidParameters: '../secrets' is not the name of a file in 'results'. Use a relative name without \
'..', empty parts or backslashes.
    """
    for name in names:
        if not _is_safe(name):
            raise InvalidParameters(
                f"'{name}' is not the name of a file in '{folder}'. Use a relative name without '..', empty parts or "
                "backslashes."
            )
    base = os.fspath(folder)
    return "/".join([base.rstrip("/"), *names] if base else names)


def absolute(address: Address, folder: str = "") -> str:
    """An address without its relative parts, which start at a folder, here or on S3. Raises InvalidParameters.

    >>> absolute("reads/1.fastq", "s3://lab/cohort"), absolute("s3://lab/hg38.fa")
    ('s3://lab/cohort/reads/1.fastq', 's3://lab/hg38.fa')
    """
    if not isinstance(address, (str, os.PathLike)):
        raise InvalidParameters(f"Expected a path or an address on S3, got {address!r}.")
    text = os.fspath(address)
    if "://" in text or is_s3(folder):
        return text if "://" in text else join(folder, text)
    return os.path.abspath(os.path.join(folder, os.path.expanduser(text)))


def results(out: Address | None, *names: str, clients: backends.Clients) -> str:
    """The absolute address of a job's results.

    Parameters
    ----------
    out : path or str, optional
        Where they are wanted. Default: the folder ``names``, here in the account's folder and on AWS in its bucket.
    *names : str
        The default folder.
    clients : Clients
        Whose account.

    Raises
    ------
    ConfigError
        On AWS, no ``out`` is given and the stack is not deployed.
    InvalidParameters
        On AWS, ``out`` is not on S3.
    """
    here = clients.backend.shares_folders
    if out is None:
        out = join(clients.settings.home if here else f"s3://{clients.bucket}", *names)
    if not (here or is_s3(out)):
        raise InvalidParameters(f"A job on AWS cannot write to '{out}' of this machine. Give an out on S3.")
    return absolute(out)  # the job has its own working folder


def stamp(address: Address, *, clients: backends.Clients | None = None) -> str:
    """What tells a file from the one that replaces it, without reading it: its size, and its time here or ETag on S3.

    Parameters
    ----------
    address : path or str
        A path on this machine or ``s3://bucket/key``.
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Raises
    ------
    NotFound, ConfigError, AccessDenied, ServiceError
        There is no such file, or it cannot be read.
    """
    if is_s3(address):
        with _s3(address, clients) as (s3, where):
            head = s3.head_object(**where)
            return f"{head['ContentLength']} {head['ETag']}"
    with _local(address, "read") as path, path.open("rb") as file:
        status = os.fstat(file.fileno())
        return f"{status.st_size} {status.st_mtime_ns}"


def read(address: Address, *, at_most: int | None = None, clients: backends.Clients | None = None) -> bytes:
    """Read a file.

    Parameters
    ----------
    address : path or str
        A path on this machine or ``s3://bucket/key``.
    at_most : int, optional
        Read only so many bytes from its start. Default: all.
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Raises
    ------
    NotFound, ConfigError, AccessDenied, ServiceError
        There is no such file, or it cannot be read.
    """
    if is_s3(address):
        with _s3(address, clients) as (s3, where):
            found = s3.get_object(**where)
            size: int = found["ContentLength"]  # reading reserves as much memory as it is asked for
            return bytes(found["Body"].read(size if at_most is None else min(at_most, size)))
    with _local(address, "read") as path, path.open("rb") as file:
        return file.read(-1 if at_most is None else at_most)


def local(address: Address, folder: Path, *, clients: backends.Clients | None = None) -> Path:
    """Make a file available as a local path: the file itself, or a copy in ``folder`` if it is on S3.

    Parameters
    ----------
    address : path or str
        A path on this machine or ``s3://bucket/key``.
    folder : Path
        Where the copy of a file on S3 is made, under its own name.
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Raises
    ------
    NotFound, ConfigError, AccessDenied, ServiceError
        There is no such file, or it cannot be read.
    """
    if is_s3(address):
        with _s3(address, clients) as (s3, where):
            folder.mkdir(parents=True, exist_ok=True)
            copy = folder / where["Key"].rpartition("/")[2]
            s3.download_file(where["Bucket"], where["Key"], str(copy))
            return copy
    with _local(address, "read") as path, path.open("rb"):
        return path.absolute()


def write(address: Address, data: Content, *, private: bool = False, clients: backends.Clients | None = None) -> str:
    """Write a file whole or not at all, replacing an older one. Missing folders are created.

    Parameters
    ----------
    address : path or str
        A path on this machine or ``s3://bucket/key``.
    data : bytes, str or file
        The content; text is written as UTF-8, and an open file is read to its end.
    private : bool
        On this machine: only the owner may read it.
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Returns
    -------
    str
        The address.

    Raises
    ------
    NotFound, ConfigError, AccessDenied, ServiceError
        There is no such bucket, or the file cannot be written.
    """
    if is_s3(address):
        with _s3(address, clients) as (s3, where):
            s3.put_object(**where, Body=data.encode() if isinstance(data, str) else data)
    else:
        with _local(address, "written") as path:
            write_atomic(path, data, private=private)
    return os.fspath(address)


def upload(path: Path, address: Address, *, clients: backends.Clients | None = None) -> str:
    """Write a copy of a file of any size, whole or not at all, replacing an older one.

    Parameters
    ----------
    path : Path
        The file on this machine.
    address : path or str
        Where the copy is written: a path on this machine or ``s3://bucket/key``.
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Returns
    -------
    str
        The address. Raises as ``write``.
    """
    with path.open("rb") as file:
        if not is_s3(address):
            return write(address, file)
        with _s3(address, clients) as (s3, where):
            s3.upload_fileobj(file, **where)  # in parts: one request holds 5 GB at most
    return os.fspath(address)


def write_if_absent(
    address: Address, data: Content, *, sha256: str | None = None, clients: backends.Clients | None = None
) -> bool:
    """Write a file unless it exists: of several writers at the same time, exactly one writes.

    Parameters
    ----------
    address, data, clients
        As for ``write``.
    sha256 : str, optional
        The hash of ``data`` in hexadecimal. An existing file with another hash is damaged, and is replaced.

    Returns
    -------
    bool
        Whether this call wrote the file.

    Raises
    ------
    NotFound, ConfigError, AccessDenied, ServiceError
        As for ``write``.
    """
    if is_s3(address):
        with _s3(address, clients) as (s3, where):
            return _put_if_absent(s3, where, data, sha256)
    with _local(address, "written") as path:
        damaged = sha256 is not None and path.exists() and file_sha256(path) != sha256
        try:
            write_atomic(path, data, replace=damaged)
        except FileExistsError:
            return False
    return True


def files(folder: Address, *, clients: backends.Clients | None = None) -> list[str]:
    """The addresses of all files below a folder, sorted; empty if there is no such folder.

    Parameters
    ----------
    folder : path or str
        A folder on this machine, ``s3://bucket/prefix`` or ``s3://bucket``.
    clients : Clients, optional
        Whose S3. Default: the settings' own.

    Raises
    ------
    InvalidRequest
        A key on S3 cannot be a path below the folder, because it has ``..`` or empty parts.
    """
    base = os.fspath(folder)
    if is_s3(folder):
        with _s3(folder, clients, key=False) as (s3, where):
            keys = list(_keys(s3, where["Bucket"], f"{where['Key']}/" if where["Key"] else ""))
        found = [(key, name) for key, name in keys if not key.endswith("/")]  # such a key marks a folder
        if strange := [key for key, name in found if not _is_safe(name)]:
            raise InvalidRequest(f"'s3://{where['Bucket']}/{strange[0]}' cannot be a file of a folder. Rename it.")
        return [f"s3://{where['Bucket']}/{key}" for key, _ in found]
    with _local(folder, "listed") as path:
        # What is being written has a name that begins with a dot and ends with .part: see files.write_atomic.
        found_here = [one for one in path.rglob("*") if one.is_file() and not one.match(".*.part")]
    return sorted(join(base, one.relative_to(path).as_posix()) for one in found_here)


def delete(address: Address, *, clients: backends.Clients | None = None) -> None:
    """Delete a file, or a folder with all files below it; no error if there is neither.

    Parameters
    ----------
    address : str or path
        The file or folder.
    clients : Clients, optional
        Default: those of the settings. Raises as ``write``.
    """
    if is_s3(address):
        with _s3(address, clients) as (s3, where):
            below = [key for key, _ in _keys(s3, where["Bucket"], f"{where['Key']}/")]
            for key in (where["Key"], *below):
                s3.delete_object(Bucket=where["Bucket"], Key=key)
        return
    with _local(address, "deleted") as path:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_safe(name: str) -> bool:
    return not ({"", ".", ".."} & set(name.split("/")) or "\\" in name or "\0" in name)


@contextmanager
def _local(address: Address, what: str) -> Iterator[Path]:
    """The path of an address on this machine; turns OSErrors into the kit's errors."""
    if "://" in os.fspath(address):
        raise InvalidParameters(f"'{address}' is neither a path nor an address on S3 (s3://bucket/key).")
    try:
        yield Path(address).expanduser()
    except FileNotFoundError as error:
        raise NotFound(f"There is no file '{address}'.") from error
    except OSError as error:
        raise ConfigError(f"'{address}' cannot be {what}: {error.strerror or error}.") from error


@contextmanager
def _s3(
    address: Address, clients: backends.Clients | None, *, key: bool = True
) -> Iterator[tuple[Any, dict[str, str]]]:
    """The S3 client, and bucket and key as its methods take them; turns S3's errors into the kit's."""
    bucket, name = split(os.fspath(address).removesuffix("/"))
    if key and not name:
        raise InvalidParameters(f"'{address}' is a bucket, not a file in it. Expected s3://bucket/key.")
    try:
        with backends.translated_errors(f"'{address}'"):
            yield (clients or _own_clients(Settings.load())).s3, {"Bucket": bucket, "Key": name}
    except ConfigError:
        _own_clients.cache_clear()  # the next call signs in anew
        raise
    except InvalidRequest as error:
        if error.code in ABSENT:
            raise NotFound(f"There is no file '{address}': {error}") from error
        raise


# A client takes half a second to make, and a job may write a thousand files.
_own_clients = functools.lru_cache(maxsize=8)(backends.clients)


def _keys(s3: Any, bucket: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Each key below a prefix, and its name there."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", []):
            yield one["Key"], one["Key"].removeprefix(prefix)


def _put_if_absent(s3: Any, where: dict[str, str], data: Content, sha256: str | None) -> bool:
    from botocore.exceptions import ClientError

    checksum = {}
    if sha256 is not None:
        checksum["ChecksumSHA256"] = base64.b64encode(bytes.fromhex(sha256)).decode()
        try:
            if _object_sha256(s3, where) == sha256:
                return False
            s3.delete_object(**where)  # a bucket's policy may forbid overwriting
        except ClientError as error:
            # S3 answers 403 for an absent object too, to those who may not list the bucket.
            if error.response["Error"]["Code"] not in ("404", "403"):
                raise
    try:
        s3.put_object(**where, Body=data.encode() if isinstance(data, str) else data, IfNoneMatch="*", **checksum)
    except ClientError as error:
        if error.response["Error"]["Code"] in LOST_RACE:
            return False
        raise
    return True


def _object_sha256(s3: Any, where: dict[str, str]) -> str:
    """The hash of an object's bytes: the one that S3 verified on upload, or computed from them."""
    head = s3.head_object(**where, ChecksumMode="ENABLED")
    if "ChecksumSHA256" in head:
        return base64.b64decode(head["ChecksumSHA256"]).hex()
    digest = hashlib.sha256()
    for piece in s3.get_object(**where)["Body"].iter_chunks(1024 * 1024):
        digest.update(piece)
    return digest.hexdigest()
