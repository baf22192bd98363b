"""Files written whole or not at all, folders that only their owner may enter, and SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from genokit.errors import ConfirmationNeeded

# The first line of the .gitignore in a folder of data: git ignores such a folder, and so does shipping code.
MARK = "# Data, not code: kept out of git and of what genokit ships to jobs."


NOTES = "notes.jsonl"  # in the folder of a notebook's run while it runs: what it records and fetches


def private_folder(folder: str | os.PathLike[str], *, data: bool = False) -> Path:
    """Make a folder that only its owner may enter (0700), and missing ones above it; returns it.

    An existing folder keeps its mode. With ``data``, a new or empty folder is marked as data, not code.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(private_folder(Path(folder) / "a" / "b", data=True).joinpath(".gitignore").read_text())
    # Data, not code: kept out of git and of what genokit ships to jobs.
    *
    <BLANKLINE>
    """
    folder = Path(folder)
    missing = list(takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
    return mark(folder) if data and (missing or not os.listdir(folder)) else folder


def mark(folder: Path) -> Path:
    """Mark one of the kit's folders as data; returns it."""
    if not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text(f"{MARK}\n*\n")
        restrict(folder / ".gitignore")
    return folder


def restrict(path: Path) -> Path:
    """Remove everyone's access but the owner's to one of the kit's files or folders; returns it."""
    mode = path.stat().st_mode
    if mode & 0o077:
        path.chmod(mode & 0o700)
    return path


@contextlib.contextmanager
def replaced_folder(place: Path, *, private: bool = False, marker: str = "", kind: str = "") -> Iterator[Path]:
    """Fill a new folder that takes the place of ``place`` when the block ends; an error leaves the old one alone.

    With ``private`` the folder is one of ``private_folder``, marked as data. With ``marker`` and ``kind``, what is
    replaced must be an empty folder or hold the file ``marker``, by which a folder of this kind is recognised. Raises
    ConfirmationNeeded.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replaced_folder(Path(folder) / "data") as new:
    ...         _ = (new / "a.txt").write_text("α")
    ...     os.listdir(folder)
    ['data']
    """
    place = place.absolute()
    if marker and place.exists() and (not place.is_dir() or (any(place.iterdir()) and not (place / marker).is_file())):
        lost = f"'{place}' has files other than {kind}, which would be lost. Name a new folder."
        raise ConfirmationNeeded(lost, losses=[str(place)])
    staged = place.with_name(f".{place.name[:40]}.{secrets.token_hex(6)}.part")
    old = staged.with_suffix(".old")
    if private:
        private_folder(staged, data=True)
    else:
        staged.mkdir(parents=True)
    try:
        yield staged
        if place.exists():
            place.replace(old)
        staged.replace(place)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def write_atomic(
    path: str | os.PathLike[str], data: bytes | str | IO[bytes], *, private: bool = False, replace: bool = True
) -> Path:
    """Write a file so that readers see the old one or the whole new one, even after a power cut. Returns the path.

    ``data`` may be an open file, which is read to its end in pieces. The folder is made if it is missing; text is
    written as UTF-8 with its line ends as they are. A new file has the
    usual mode, or 0600 in a folder of 0700 if it is ``private``. With ``replace=False`` an existing file stays as it
    is: raises FileExistsError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomic(Path(folder) / "new" / "a.txt", "α").read_bytes()
    b'\\xce\\xb1'
    """
    path = Path(path)
    if private:
        private_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: a rename is atomic only within one file system.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.part")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private or path.exists() else 0o666)
    try:
        with open(handle, "wb") as file:
            if isinstance(data, (bytes, str)):
                file.write(data.encode() if isinstance(data, str) else data)
            else:
                shutil.copyfileobj(data, file)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            with contextlib.suppress(FileNotFoundError):
                temporary.chmod(stat.S_IMODE(path.stat().st_mode))
            temporary.replace(path)
        else:
            os.link(temporary, path)  # unlike a rename, fails where there is a file
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return path


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder outlive a power cut, where the system can."""
    with contextlib.suppress(OSError):  # Windows cannot open a folder, and some network file systems cannot sync one
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; reads it in pieces.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sha256(write_atomic(Path(folder) / "empty", b""))[:12]
    'e3b0c44298fc'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note(run: str | os.PathLike[str], **what: object) -> None:
    """Append a line to the notes of a run, which makes the file and removes it when it ends. Raises OSError."""
    handle = os.open(Path(run) / NOTES, os.O_WRONLY | os.O_APPEND)
    with open(handle, "wb", buffering=0) as file:  # one write: lines of several threads and processes do not mix
        file.write(json.dumps(what).encode() + b"\n")


def note_fetched(descriptor: Path) -> None:
    """Note a data set, by its descriptor's path and sha256, for the run of a notebook that this process belongs to."""
    with contextlib.suppress(OSError):  # no run, or one that has ended
        note(os.environ.get("GENOKIT_RUN", os.devnull), manifest=str(descriptor), sha256=sha256(descriptor))


class InPieces:
    """A stream to unpack from, of which no more than 4 MiB can be read at once. Raises OSError.

    A header in an archive may claim gigabytes, which tarfile then reads in one piece; a few bytes of gzip hold them.
    """

    def __init__(self, file: Any) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 2**22:
            raise OSError(f"a header in it claims {size:,} bytes")
        return bytes(self._file.read(size))
