"""Fetching: the cache, then every source in turn; nothing is used, or kept, unless its sha256 is the promised one.

Files land in ``<cache>/<name>/<first 16 digits of the sha256>/<path>``: two versions of a data set never mix, and two
processes that fetch at the same time both end right, as each writes in a folder of its own and renames.
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
from genokit.data.descriptor import Package, Resource
from genokit.data.packages import Unavailable
from genokit.data.sources import Sources, in_mirror, shown, site
from genokit.display import size
from genokit.errors import ConfigError, FetchFailed, GenokitError, HashMismatch
from genokit.files import sha256

if TYPE_CHECKING:
    from genokit.backends import Clients

PIECE = 1 << 18
DAY_S = 86400.0


@dataclass(frozen=True)
class Place:
    """Where one data set's files may lie: beside its descriptor, and in the cache."""

    package: Package
    folder: Path
    settings: Settings

    def cached(self, resource: Resource) -> Path:
        """Where the cache has, or will have, a file."""
        return self.settings.cache / self.package.name / resource.sha256[:16] / resource.path

    def held(self, resource: Resource) -> tuple[Path, str | None]:
        """Where a file lies, beside the descriptor or in the cache, and its hash; None if it is in neither."""
        held: tuple[Path, str | None] = (self.cached(resource), None)
        for path in (self.folder / resource.path, self.cached(resource)):
            got = _hash(path)
            if got == resource.sha256:
                return path, got
            held = (path, got) if got is not None else held
        return held


def fetch(place: Place, ref: str, clients: Clients | None, *, progress: bool) -> Dataset:
    """The whole data set, else its declared sample; what lies verified on this machine is not fetched again.

    Raises FetchFailed with all that was tried, HashMismatch if some source had the file but with other bytes, or
    ConfigError if the cache cannot be written. Whatever is raised, the cache is as it was.
    """
    package, title = place.package, place.package.title
    with ExitStack() as stack:
        attempt = _Attempt(place, clients, progress, stack)
        try:
            wanted, paths = package.resources, attempt.obtained(package.resources, package.name)
            sample = paths is None and bool(package.sample)
            if sample:
                attempt.say(f"{title} could not be fetched; taking the declared {package.sample_title} instead.")
                wanted, title = package.sample, f"{title}, {package.sample_title}"
                paths = attempt.obtained(package.sample, f"{package.name}, {package.sample_title}")
        except OSError as error:  # sources' own errors are answers by now; this is the cache
            cache, origin = place.settings.cache, place.settings.origins["cache"]
            step = "Make room or make it writable, or set GENOKIT_CACHE to another folder."
            raise ConfigError(f"The cache {cache} ({origin}) cannot be written: {error}. {step}") from error
        if paths is None:
            raise attempt.failure()
    return Dataset(
        package.name, title, package.version, sample, paths, {r.name: r.sha256 for r in wanted}, ref,
        package.licences, package.citation, tuple(attempt.tried) if sample else (),
    )  # fmt: skip


def receive(reader: IO[bytes], target: Path, resource: Resource, count: Callable[[int], object]) -> None:
    """Write a stream to a new file if it is the promised one, to the byte.

    Stops as soon as more comes than is declared, so that nothing fills the disk. Raises Unavailable if the stream
    breaks off or has another length, HashMismatch if it has other bytes.
    """
    digest, length = hashlib.sha256(), 0
    with target.open("xb") as file:
        while piece := _read(reader, length):
            length += len(piece)
            if resource.bytes is not None and length > resource.bytes:
                raise Unavailable(f"is another file: it has more than the promised {resource.bytes:,} bytes")
            file.write(piece)
            digest.update(piece)
            count(len(piece))
        file.flush()
        os.fsync(file.fileno())
    if resource.bytes is not None and length < resource.bytes:
        raise Unavailable(f"truncated, or another file: {length:,} of {resource.bytes:,} bytes came")
    got = digest.hexdigest()
    if got != resource.sha256:
        raise HashMismatch(f"other bytes: sha256 {got}, not {resource.sha256}", expected=resource.sha256, got=got)


class _Attempt:
    """One fetch under way: what was tried, and a folder in the cache for what is not checked yet."""

    def __init__(self, place: Place, clients: Clients | None, progress: bool, stack: ExitStack) -> None:
        self.place, self.clients, self.progress, self.stack = place, clients, progress, stack
        self.tried: list[tuple[str, str]] = []
        self.missing: Resource | None = None  # the first that nobody had
        self.mismatch: HashMismatch | None = None
        self.sources: Sources | None = None  # and its folder: none is made if all files are here

    def obtained(self, resources: Sequence[Resource], label: str) -> dict[str, Path] | None:
        """The verified path of every resource, or None as soon as one cannot be had."""
        paths: dict[str, Path] = {}
        for resource in resources:
            path, got = self.place.held(resource)
            if got is not None and got != resource.sha256:
                self.refuse(path, HashMismatch("other bytes than promised", expected=resource.sha256, got=got))
            found = path if got == resource.sha256 else self.fetched(resource, label)
            if found is None:
                self.missing = self.missing or resource
                return None
            paths[resource.name] = found
        return paths

    def fetched(self, resource: Resource, label: str) -> Path | None:
        """A resource from the first source that delivers it, now in the cache; None if none does."""
        from genokit.bars import Bar

        if self.sources is None:
            self.sources = Sources(self.place.settings, self.clients, self.staging())
        part = self.sources.staging / "part"
        mirrors = [in_mirror(mirror, self.place.package.name, resource.path) for mirror in self.place.settings.mirrors]
        with Bar(
            desc=f"{label}: {resource.name}", total=resource.bytes, unit="B", unit_scale=True, disable=not self.progress
        ) as bar:
            for source in (*mirrors, *resource.sources):
                bar.reset(total=resource.bytes)
                bar.set_postfix_str(site(source))
                part.unlink(missing_ok=True)
                try:
                    unpack = source.endswith(".gz") and not resource.path.endswith(".gz")
                    with self.sources.opened(source, unpack=unpack) as reader:
                        receive(reader, part, resource, bar.update)
                except (Unavailable, HashMismatch) as error:
                    self.refuse(shown(source), error)
                else:
                    target = self.place.cached(resource)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(part, target)
                    return target
        return None

    def refuse(self, source: str | Path, error: Exception) -> None:
        self.tried.append((str(source), str(error)))
        if isinstance(error, HashMismatch):
            self.mismatch = self.mismatch or error

    def staging(self) -> Path:
        # In the cache: a rename is atomic only within one file system.
        cache = self.place.settings.made("cache")
        for left in cache.glob(".fetch-*"):  # by processes that were killed
            with suppress(FileNotFoundError):  # other processes end, and remove theirs
                if time.time() - left.stat().st_mtime > DAY_S:
                    shutil.rmtree(left, ignore_errors=True)
        return Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache)))

    def say(self, words: str) -> None:
        from genokit.bars import Bar

        if self.progress:
            Bar.write(words, file=sys.stderr)

    def failure(self) -> GenokitError:
        package, resource = self.place.package, self.missing
        assert resource is not None
        length = "" if resource.bytes is None else f", {size(resource.bytes)}"
        answers = (
            "".join(f"\n  {source}: {answer}" for source, answer in self.tried) or "\n  nothing: it names no source"
        )
        message = (
            f"{package.title}: '{resource.name}' ({resource.path}{length}) could not be fetched. Tried:{answers}\n"
            f"Next: make one of these reachable, or put the file at <mirror>/{package.name}/{resource.path} and name "
            'that mirror, a folder or an address, in genokit.toml: mirrors = ["..."].'
        )
        if self.mismatch is not None:
            return HashMismatch(message, expected=self.mismatch.expected, got=self.mismatch.got)
        return FetchFailed(message, resource=resource.name, tried=self.tried)


def _read(reader: IO[bytes], length: int) -> bytes:
    try:
        return reader.read(PIECE)
    except Exception as error:  # every kind of stream has its own errors; all mean that it does not deliver
        raise Unavailable(f"broke off after {length:,} bytes ({type(error).__name__}: {error})") from error


def _hash(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None
