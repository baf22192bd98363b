"""The embedded S3's objects on disk: a folder for each bucket, in it a file for each object, named after its key.

``runs/7/plot 1.png`` lies at ``runs%2F/7%2F/plot%201.png``: the names of folders end with their slash, so that ``runs``
may be an object too, and whatever a path must not hold is percent-encoded. What else S3 keeps of an object (ETag, type,
metadata) lies beside, under ``.about``, and counts only as long as it fits the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from genokit.config import private_home
from genokit.files import private_folder, sync_folder, write_atomic

FIRST = "genokit"  # the bucket that every account has
NAME = re.compile(r"(?!.*\.\.)(?!\d+(\.\d+){3}$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PIECE = 200  # characters of a file's name; file systems take 255
CHUNK = 1024 * 1024
STALE_S = 24 * 3600.0  # what is half-written after a day is abandoned


def path_of(key: str) -> str:
    """Where an object lies in its bucket's folder; no two keys share a path, and none leads out.

    >>> path_of("runs/7/plot 1.png"), path_of("runs"), path_of("../../etc"), path_of("/a//"), path_of(".hidden")
    ('runs%2F/7%2F/plot%201.png', 'runs', '%2E.%2F/%2E.%2F/etc', '%2F/a%2F%2F/=', '%2Ehidden')
    """
    # Slashes in a row are one folder's: one folder each would make longer paths than systems take.
    *folders, file = re.findall(r"[^/]*/+|[^/]+$", key if not key.endswith("/") else f"{key}=")
    names: list[str] = []
    for folder in folders:
        name = quote(folder, safe="")
        names += [name] if len(name) <= PIECE else [*(f"{piece}=" for piece in _pieces(name[:-3])), "%2F"]
    *pieces, last = _pieces(quote(file, safe="")) if not key.endswith("/") else ["="]
    names += [*(f"{piece}=" for piece in pieces), last]
    return "/".join(f"%2E{name[1:]}" if name.startswith(".") else name for name in names)


def key_of(path: str) -> str:
    """The key of the object that lies at a path.

    >>> key_of("runs%2F/7%2F/plot%201.png"), key_of("%2F/a%2F%2F/=")
    ('runs/7/plot 1.png', '/a//')
    """
    return unquote(path.replace("/", "").replace("=", ""))


def _pieces(name: str) -> list[str]:
    return [name[start : start + PIECE] for start in range(0, len(name), PIECE)]


def _plain(path: str) -> str:
    """A path without what only the file system asks for: the percent-encoded key."""
    return path.replace("/", "").replace("=", "").replace("%2E", ".")


@dataclass(frozen=True)
class StoredObject:
    """An object as it is now; ``about`` holds its metadata, in S3's words."""

    key: str
    size: int
    modified: datetime
    etag: str
    about: Mapping[str, Any]


class Objects:
    """The buckets of the account in ``home``. Callers give names of buckets that ``has`` knows."""

    def __init__(self, home: Path) -> None:
        self.home, self.root = home, home / "s3"

    # --- buckets

    def has(self, bucket: str) -> bool:
        return bucket == FIRST or (bool(NAME.fullmatch(bucket)) and (self.root / bucket).is_dir())

    def buckets(self) -> dict[str, datetime]:
        """Every bucket, and when it was made or last changed at its top."""
        self._folder(FIRST)
        found = sorted(one for one in self.root.iterdir() if NAME.fullmatch(one.name) and one.is_dir())
        return {one.name: _moment(one.stat().st_mtime) for one in found}

    def create(self, bucket: str) -> None:
        self._folder(bucket)

    def remove(self, bucket: str) -> bool:
        """Remove a bucket, if it is empty."""
        with self._locked():
            if any(self._paths(bucket, "")):
                return False
            shutil.rmtree(self.root / bucket, ignore_errors=True)
            shutil.rmtree(self.root / ".about" / bucket, ignore_errors=True)
        return True

    # --- objects

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """The keys that begin with ``prefix``, in the order of their bytes, which is S3's."""
        return sorted((key_of(path) for path in self._paths(bucket, quote(prefix, safe=""))), key=str.encode)

    def find(self, bucket: str, key: str) -> StoredObject:
        """Raises FileNotFoundError."""
        with self._locked(fcntl.LOCK_SH):
            return self._stored(bucket, key)

    def open(self, bucket: str, key: str) -> tuple[IO[bytes], StoredObject]:
        """The bytes of an object as it is now, whatever is written or deleted later. Raises FileNotFoundError."""
        with self._locked(fcntl.LOCK_SH):
            file = (self.root / bucket / path_of(key)).open("rb")
            return file, self._stored(bucket, key)

    def receive(self, body: Any) -> tuple[Path, str]:
        """Receive bytes, text or the rest of a file, piece by piece: in a file that is no object yet, and its MD5."""
        folder = self._folder(".parts")
        for left in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # others tidy too
                if left.stat().st_mtime < time.time() - STALE_S:
                    left.unlink()
        handle, name = tempfile.mkstemp(dir=folder)
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in _read(body):
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Path(name), digest.hexdigest()

    def place(
        self,
        bucket: str,
        key: str,
        received: Path,
        etag: str,
        about: Mapping[str, Any],
        *,
        allowed: Callable[[StoredObject | None], None] = lambda old: None,
    ) -> StoredObject:
        """Make what was received the object, all at once; ``allowed`` may look at the old one and raise."""
        file, beside = self._files(bucket, key)
        try:
            with self._locked():
                allowed(self._stored(bucket, key) if file.is_file() else None)
                private_folder(file.parent)
                os.replace(received, file)
                record = {"of": _stamp(file), "etag": etag, "about": dict(about)}
                write_atomic(beside, json.dumps(record), private=True)
                found = self._stored(bucket, key)
        except BaseException:
            received.unlink(missing_ok=True)
            raise
        sync_folder(file.parent)
        return found

    def delete(self, bucket: str, key: str) -> None:
        """Afterwards there is no such object, and no empty folder where it was."""
        with self._locked():
            for file, top in zip(self._files(bucket, key), (self.root / bucket, self._about(bucket)), strict=True):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    file.unlink()
                with contextlib.suppress(OSError):  # not empty, or not there
                    while (file := file.parent) != top:
                        file.rmdir()

    # --- the folder

    def _folder(self, *names: str) -> Path:
        private_home(self.home)
        return private_folder(self.root.joinpath(*names))

    def _about(self, bucket: str) -> Path:
        return self.root / ".about" / bucket

    def _files(self, bucket: str, key: str) -> tuple[Path, Path]:
        path = path_of(key)
        return self.root / bucket / path, self._about(bucket) / path

    def _stored(self, bucket: str, key: str) -> StoredObject:
        file, beside = self._files(bucket, key)
        size, nanoseconds = _stamp(file)
        try:
            record = json.loads(beside.read_bytes())
        except (OSError, ValueError):
            record = {}
        if record.get("of") != [size, nanoseconds]:  # another program wrote the file, or a machine stopped in between
            with file.open("rb") as opened:
                record = {"etag": hashlib.file_digest(opened, "md5").hexdigest(), "about": {}}
        return StoredObject(key, size, _moment(nanoseconds / 1e9), record["etag"], record["about"])

    def _paths(self, bucket: str, prefix: str, path: str = "") -> Iterator[str]:
        """The paths of objects whose encoded key begins with ``prefix``."""
        try:
            entries = list(os.scandir(self.root / bucket / path))
        except FileNotFoundError:  # deleted meanwhile, or the first bucket, which nobody has used yet
            return
        for entry in entries:
            inner = f"{path}/{entry.name}" if path else entry.name
            name = _plain(inner)
            if entry.is_dir(follow_symlinks=False):
                if name.startswith(prefix) or prefix.startswith(name):
                    yield from self._paths(bucket, prefix, inner)
            elif name.startswith(prefix) and path_of(key_of(inner)) == inner:  # not the file of another program
                yield inner

    @contextmanager
    def _locked(self, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Alone among all processes, or with others that only look."""
        handle = os.open(self._folder() / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, kind)
            yield
        finally:
            os.close(handle)


def _read(body: Any) -> Iterator[bytes]:
    """The bytes of a body, in pieces."""
    # boto3 reports progress from the moment a request is sent, and here none is.
    getattr(body, "signal_transferring", lambda: None)()
    pieces = [body] if isinstance(body, (str, bytes, bytearray)) else body
    if hasattr(body, "read"):
        pieces = iter(lambda: body.read(CHUNK) or None, None)
    for piece in pieces:
        yield piece.encode() if isinstance(piece, str) else bytes(piece)


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _moment(seconds: float) -> datetime:
    """To the second, as S3 does."""
    return datetime.fromtimestamp(int(seconds), tz=UTC)
