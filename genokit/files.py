"""Files written whole or not at all, folders for their owner alone, and what bytes hash to."""

from __future__ import annotations

import hashlib
import os
import tempfile
from itertools import takewhile
from pathlib import Path
from typing import Any

# The first line of the .gitignore in a folder of data: git ignores what is in there, and shipping code obeys it, too.
MARK = "# Data, not code: kept out of git and of what genokit ships to jobs."


def private_folder(folder: str | os.PathLike[str], *, data: bool = False) -> Path:
    """Make a folder that its owner alone may enter (0700), and those missing above it; returns it.

    A folder that is there keeps its mode. With ``data`` one that is empty is marked as data, not code.

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
    """Mark a folder of the kit's own as data; returns it."""
    if not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text(f"{MARK}\n*\n")
        restrict(folder / ".gitignore")
    return folder


def restrict(path: Path) -> Path:
    """Take a file or folder of the kit's own from everyone but its owner; returns it."""
    mode = path.stat().st_mode
    if mode & 0o077:
        path.chmod(mode & 0o700)
    return path


def write_atomic(
    path: str | os.PathLike[str], data: bytes | str, *, private: bool = False, replace: bool = True
) -> Path:
    """Write a file so that readers see the old one or the whole new one, even after a power cut. Returns the path.

    The folder is made if it is missing; text is written as UTF-8 with its line ends as they are. A new file has the
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
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; an existing file keeps its mode, a new one gets what open() would give.
        os.chmod(temporary, _mode(path, 0o600 if private else 0o666 & ~_umask()))
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # unlike a rename, fails where there is a file
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_folder(path.parent)
    return path


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; reads it in pieces.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sha256(write_atomic(Path(folder) / "empty", b""))[:12]
    'e3b0c44298fc'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class InPieces:
    """A stream to unpack from that refuses, by OSError, to give more than 4 MiB at once.

    An archive's header may tell of gigabytes, which tarfile then asks for in one piece, and a few bytes of gzip have
    them.
    """

    def __init__(self, file: Any) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 2**22:
            raise OSError(f"a header in it tells of {size:,} bytes")
        return bytes(self._file.read(size))


def _mode(path: Path, new: int) -> int:
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        return new


def _umask() -> int:
    # Reading the umask the portable way sets it, which other threads would see; Linux tells it in /proc.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    except OSError:
        pass
    return 0o022


def sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open a folder
        return
    try:
        os.fsync(handle)
    except OSError:  # nor can some network file systems sync one
        pass
    finally:
        os.close(handle)
