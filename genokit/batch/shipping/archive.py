"""Code for jobs: a project's folder as one archive on S3, under the hash of its bytes; no image need be built."""

from __future__ import annotations

import functools
import gzip
import hashlib
import mmap
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from genokit.backends import Clients
from genokit.batch.shipping import by_hash
from genokit.errors import InvalidProject
from genokit.files import MARK
from genokit.secret_kinds import secret_file, secret_text

MOST_MIB = 50  # packed
MOST_MIB_UNPACKED = 1024  # no code is so large, and packing it would take minutes
LEFT_OUT = {".git", ".venv", "__pycache__", "runs"}  # where git does not say what belongs to the project


def ship(clients: Clients, folder: str | os.PathLike[str], to: str | None = None) -> str:
    """Put a folder on S3, where it is not there yet, for jobs to unpack: ``s3://bucket/code/<sha256>.tar.gz``, or in
    the folder ``to``.

    What git tracks and what it does not ignore; without git all but ``.git``, ``.venv``, ``__pycache__`` and ``runs``.
    Left out, with a warning that names them, are files that hold secrets by their name or have one in them (a token in
    the output of a notebook, say), DuckDB's databases, and folders that the kit marked as data: CDMs, cohorts,
    synthetic data, runs. What is packed in archives is not looked at. The same files make the same archive. Raises
    InvalidProject where the folder cannot be shipped, or is larger than 50 MiB when packed.
    """
    try:
        root = Path(folder).expanduser().resolve()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidProject(f"code must be the path of a folder, but is {str(folder)!a}: {error}.") from error
    if not root.is_dir():
        raise InvalidProject(f"There is no folder '{root}' to ship as code. Name the folder of the project.")
    settings = clients.settings  # the kit's own folders are no part of the project
    kept = {one.resolve() for one in (settings.home, settings.cache, settings.runs)} - {root, *root.parents}
    names, left_out = _chosen(root, kept)
    reasons = {why: ", ".join(name for name, its in left_out.items() if its == why) for why in left_out.values()}
    said = "; ".join(f"{which} ({why})" for why, which in reasons.items())
    if not names:
        without = f" but {said}" if said else ""
        raise InvalidProject(f"There is no file to ship in '{root}'{without}. Name the folder with the project's code.")
    if said:
        warnings.warn(
            f"Not shipped with '{root}': {said}. "
            "Give a job secrets by a secret store or its environment, and data by their address on S3.",
            stacklevel=3,  # where the job was submitted
        )
    with tempfile.TemporaryFile() as archive:
        digest = _pack(root, names, archive)
        return by_hash.store(clients, to or f"s3://{clients.bucket}/code", digest, ".tar.gz", archive)


# --- which files


def _chosen(root: Path, kept: set[Path]) -> tuple[list[str], dict[str, str]]:
    """The names of the files to ship, in order, and what is left out, with the reason."""
    names, left_out = list[str](), dict[str, str]()
    marked = functools.cache(lambda folder: _marked(root / folder))
    for name in sorted(set(_listed(root)), key=os.fsencode):
        if any((root / name).is_relative_to(one) for one in kept):
            continue
        folders = [str(folder) for folder in reversed(PurePosixPath(name).parents)]
        data = next((folder for folder in folders if marked(folder)), None)
        if data is not None:
            left_out[f"{data}/"] = "marked as data"
        elif secret_file(name):
            left_out[name] = "such files hold secrets"
        elif why := _unfit(root / name):
            left_out[name] = why
        else:
            names.append(name)
    return names, left_out


def _marked(folder: Path) -> bool:
    try:
        return (folder / ".gitignore").read_bytes().startswith(MARK.encode())
    except OSError:
        return False


def _unfit(path: Path) -> str:
    """Why the content of a file keeps it from being shipped; "" where nothing does."""
    if path.is_symlink() or not path.is_file():
        return ""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[8:12] == b"DUCK":
                return "a database"
            kind = secret_text(data)
            return f"has {kind} in it" if kind else ""
    except (OSError, ValueError):  # not readable, of which packing has the words, or empty
        return ""


def _listed(root: Path) -> Iterator[str]:
    """The project's files below ``root``, with slashes between folders."""
    known = _from_git(root)
    if known is None:
        yield from _walked(root)
        return
    for name in known:
        path = root / name
        if path.is_dir() and not path.is_symlink():  # a repository inside: git names its folder alone
            yield from (f"{name.rstrip('/')}/{inner}" for inner in _listed(path))
        elif os.path.lexists(path):  # not deleted since git heard of it
            yield name


def _from_git(root: Path) -> list[str] | None:
    """What git tracks or would; None where there is no git, or nothing of git's."""
    if shutil.which("git") is None or not any((one / ".git").exists() for one in (root, *root.parents)):
        return None
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    # A hook of git's own would set these, and the answer would be another repository's.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(command, capture_output=True, check=False, env=own)
    if done.returncode:
        raise InvalidProject(
            f"git does not say which files of '{root}' belong to the project: {os.fsdecode(done.stderr).strip()}"
        )
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def _walked(root: Path) -> Iterator[str]:
    for place, folders, files in os.walk(root):
        here = Path(place)
        links = {name for name in folders if (here / name).is_symlink()}
        folders[:] = [name for name in folders if name not in LEFT_OUT | links]
        yield from ((here / name).relative_to(root).as_posix() for name in (*files, *links))


# --- one archive


def _pack(root: Path, names: list[str], archive: IO[bytes]) -> str:
    """Write the files as a .tar.gz that depends on nothing but their names and bytes; returns its SHA-256."""
    sizes = {name: os.lstat(root / name).st_size for name in names}
    if sum(sizes.values()) > MOST_MIB_UNPACKED * 2**20:
        raise _too_large(root, sizes)
    with (
        gzip.GzipFile("", "wb", 6, archive, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in names:
            _add(root, name, tar)
            if archive.tell() > MOST_MIB * 2**20:
                raise _too_large(root, sizes)
    if archive.tell() > MOST_MIB * 2**20:
        raise _too_large(root, sizes)
    archive.seek(0)
    digest = hashlib.file_digest(archive, "sha256").hexdigest()  # type: ignore[arg-type]
    archive.seek(0)
    return digest


def _add(root: Path, name: str, tar: tarfile.TarFile) -> None:
    path, entry = root / name, tarfile.TarInfo(name)  # owner 0, no names, time 0
    try:
        if path.is_symlink():
            entry.type, entry.linkname = tarfile.SYMTYPE, _target(root, path)
            tar.addfile(entry)
            return
        if not path.is_file():
            raise InvalidProject(
                f"'{path}' is not a file, folder or link, so it cannot be shipped. Remove or ignore it."
            )
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            entry.size = status.st_size
            entry.mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            tar.addfile(entry, file)
    except OSError as error:
        why = error.strerror or error
        raise InvalidProject(f"'{path}' cannot be shipped: {why}. Make it readable, or ignore it.") from error


def _target(root: Path, link: Path) -> str:
    """What a link says in the archive: relative, and inside the project."""
    said = os.readlink(link)
    target = Path(os.path.normpath(link.parent / said))
    if not (target.is_relative_to(root) and Path(os.path.realpath(target)).is_relative_to(root)):
        raise InvalidProject(
            f"'{link}' leads out of the project, to '{said}', which a job does not have. "
            "Copy what it leads to into the project, or ignore the link."
        )
    return os.path.relpath(target, link.parent) if os.path.isabs(said) else said


def _too_large(root: Path, sizes: dict[str, int]) -> InvalidProject:
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:5]
    shown = ", ".join(f"{name} ({sizes[name] / 1024**2:,.1f} MiB)" for name in largest)
    return InvalidProject(
        f"'{root}' has more than {MOST_MIB} MiB when packed, too much to ship as code with {len(sizes)} files. "
        f"The largest: {shown}. Keep data out of it (.gitignore), and give jobs the address of data on S3."
    )
