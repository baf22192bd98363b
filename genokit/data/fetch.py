"""Fetching: from the cache, else from each source in turn; only files with the declared hash are used or kept.

Files are stored in ``<cache>/<name>/<first 16 digits of the hash>/<path>``, so versions of a data set never mix.
Two processes may fetch at the same time: each writes into its own folder, then renames.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from genokit.config import Settings
from genokit.data.dataset import Dataset
from genokit.data.descriptor import DataPackage, DataResource
from genokit.data.packages import Unavailable
from genokit.data.sources import Sources, in_mirror, shown
from genokit.display import size
from genokit.errors import ConfigError, FetchFailed, GenokitError, HashMismatch

if TYPE_CHECKING:
    from genokit.backends import Clients

PIECE = 1 << 18
DAY_S = 86400.0


@dataclass(frozen=True)
class LocalFiles:
    """The files of one data set on this machine: beside its descriptor, and in the cache."""

    package: DataPackage
    folder: Path
    settings: Settings

    def cached(self, resource: DataResource) -> Path:
        """The path of a file in the cache, whether it exists or not."""
        return self.settings.cache / self.package.name / resource.hash.split(":")[1][:16] / resource.path

    def held(self, resource: DataResource) -> tuple[Path, str | None, HashMismatch | None]:
        """The path of a file beside the descriptor or in the cache, and what ``checked`` says; None if in neither."""
        held: tuple[Path, str | None, HashMismatch | None] = (self.cached(resource), None, None)
        for path in (self.folder / resource.path, self.cached(resource)):
            with suppress(OSError):
                held = (path, *checked(path, resource))
                if not held[2]:
                    break
        return held


def fetch(local: LocalFiles, ref: str, clients: Clients | None, *, progress: bool) -> Dataset:
    """Fetch the whole data set, or else its declared sample; verified files on this machine are not fetched again.

    Raises FetchFailed with everything that was tried, HashMismatch if a source had the file with other bytes, or
    ConfigError if the cache cannot be written. Files that were verified before an error stay in the cache.
    """
    from genokit.bars import Bar

    package, title, label = local.package, local.package.title, local.package.name
    with ExitStack() as stack:
        attempt = _Fetch(local, clients, progress, stack)
        try:
            files = attempt.obtained(package.resources, label)
            sample = files is None and bool(package.sample)
            if sample:
                instead = f"{title} could not be fetched; using the declared {package.sample_title} instead."
                if progress:
                    Bar.write(instead, file=sys.stderr)
                title, label = (f"{one}, {package.sample_title}" for one in (title, label))
                files = attempt.obtained(package.sample, label)
        except OSError as error:  # errors of sources were handled; this is the cache
            cache, origin = local.settings.cache, local.settings.origins["cache"]
            step = "Free some space, make it writable, or set GENOKIT_CACHE to another folder."
            raise ConfigError(f"The cache {cache} ({origin}) cannot be written: {error}. {step}") from error
        if files is None:
            raise attempt.failure()
    paths, hashes = {name: path for name, (path, _) in files.items()}, {name: sha for name, (_, sha) in files.items()}
    return Dataset(
        package.name, title, package.version, sample, paths, hashes, ref,
        package.licences, package.citation, attempt.answers() if sample else (),
    )  # fmt: skip


def receive(reader: IO[bytes], target: Path, resource: DataResource, count: Callable[[int], object]) -> str:
    """Write a stream to a new file, check its size and declared hash, and return its sha256.

    Stops as soon as more than the declared size arrives, so that nothing fills the disk. Raises Unavailable if the
    stream breaks off or has another length, HashMismatch if it has other bytes.
    """
    length = 0
    with target.open("xb") as file:
        while piece := _read(reader, length):
            length += len(piece)
            if resource.bytes is not None and length > resource.bytes:
                raise Unavailable(f"is another file: it has more than the declared {resource.bytes:,} bytes")
            file.write(piece)
            count(len(piece))
        file.flush()
        os.fsync(file.fileno())
    if resource.bytes is not None and length < resource.bytes:
        raise Unavailable(f"truncated, or another file: received {length:,} of {resource.bytes:,} bytes")
    sha256, wrong = checked(target, resource)
    if wrong:
        raise wrong
    return sha256


def checked(path: Path, resource: DataResource) -> tuple[str, HashMismatch | None]:
    """The sha256 of a file, and the error if it does not have the declared hash. Raises OSError."""
    algorithm, expected = resource.hash.split(":")
    digests = {one: hashlib.new(one, usedforsecurity=False) for one in (algorithm, "sha256")}
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            for digest in digests.values():
                digest.update(piece)
    got = digests[algorithm].hexdigest()
    wrong = HashMismatch(f"other bytes than declared: {algorithm} {got}, not {expected}", expected=expected, got=got)
    return digests["sha256"].hexdigest(), None if got == expected else wrong


class _Fetch:
    """One fetch: what was tried, and a folder in the cache for files that are not verified yet."""

    def __init__(self, local: LocalFiles, clients: Clients | None, progress: bool, stack: ExitStack) -> None:
        self.local, self.clients, self.progress, self.stack = local, clients, progress, stack
        self.tried: list[tuple[str, Unavailable | HashMismatch]] = []
        self.missing: list[DataResource] = []
        self.sources: Sources | None = None  # created with its folder when the first file is missing

    def obtained(self, resources: Sequence[DataResource], label: str) -> dict[str, tuple[Path, str]] | None:
        """The verified path of every resource and its sha256, or None as soon as one cannot be fetched."""
        files: dict[str, tuple[Path, str]] = {}
        for resource in resources:
            path, sha256, wrong = self.local.held(resource)
            if wrong:
                self.tried.append((str(path), wrong))
            found = (path, sha256) if sha256 and not wrong else self.fetched(resource, label)
            if found is None:
                self.missing.append(resource)
                return None
            files[resource.name] = found
        return files

    def fetched(self, resource: DataResource, label: str) -> tuple[Path, str] | None:
        """Fetch a resource into the cache from the first source that has it; None if none has."""
        from genokit.bars import Bar

        if self.sources is None:
            self.sources = Sources(self.local.settings, self.clients, self.staging())
        part = self.sources.staging / "part"
        mirrors = [in_mirror(mirror, self.local.package.name, resource.path) for mirror in self.local.settings.mirrors]
        with Bar(
            desc=f"{label}: {resource.name}", total=resource.bytes, unit="B", unit_scale=True, disable=not self.progress
        ) as bar:
            for source in (*mirrors, *resource.sources):
                bar.reset(total=resource.bytes)
                part.unlink(missing_ok=True)
                try:
                    unpack = source.endswith(".gz") and not resource.path.endswith(".gz")
                    with self.sources.opened(source, unpack=unpack) as reader:
                        sha256 = receive(reader, part, resource, bar.update)
                except (Unavailable, HashMismatch) as error:
                    self.tried.append((shown(source), error))
                else:
                    target = self.local.cached(resource)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(part, target)
                    return target, sha256
        return None

    def staging(self) -> Path:
        # Inside the cache, because a rename is atomic only within one file system.
        cache = self.local.settings.made("cache")
        for left in cache.glob(".fetch-*"):  # left by killed processes
            with suppress(FileNotFoundError):  # a running process just removed its own
                if time.time() - left.stat().st_mtime > DAY_S:
                    shutil.rmtree(left, ignore_errors=True)
        return Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache)))

    def answers(self) -> tuple[tuple[str, str], ...]:
        """The sources that failed, each with its answer."""
        return tuple((source, str(error)) for source, error in self.tried)

    def failure(self) -> GenokitError:
        package, resource = self.local.package, self.missing[0]
        length = "" if resource.bytes is None else f", {size(resource.bytes)}"
        answers = "".join(f"\n  {source}: {error}" for source, error in self.tried)
        message = (
            f"{package.title}: '{resource.name}' ({resource.path}{length}) could not be fetched. "
            f"Tried:{answers or ' nothing: no source is named'}\n"
            f"Next: make one of these reachable, or put the file at <mirror>/{package.name}/{resource.path} and add "
            'that mirror, a folder or an address, to genokit.toml: mirrors = ["..."].'
        )
        wrong = next((error for _, error in self.tried if isinstance(error, HashMismatch)), None)
        if wrong:
            return HashMismatch(message, expected=wrong.expected, got=wrong.got)
        return FetchFailed(message, resource=resource.name, tried=list(self.answers()))


def _read(reader: IO[bytes], length: int) -> bytes:
    try:
        return reader.read(PIECE)
    except Exception as error:  # every kind of stream has its own errors
        raise Unavailable(f"broke off after {length:,} bytes ({type(error).__name__}: {error})") from error
