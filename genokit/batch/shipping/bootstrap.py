"""Where a job with shipped code or with rows begins: it unpacks the code, fills in its row, and becomes the command.

``python -m genokit.batch.entry --code s3://... --rows s3://... -- python fit.py Row::rate``
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit.batch.shipping.job_command import filled, parsed
from genokit.errors import GenokitError, InvalidRequest

if TYPE_CHECKING:
    import tarfile

    from genokit.backends import Clients

MOST_FOLDERS = 100  # one in the other; Python cannot remove a thousand
WRONG, CANNOT_RUN, NO_COMMAND = 2, 126, 127  # exit codes, the last two a shell's


def main(arguments: Sequence[str]) -> None:
    """Become the command; leave with exit code 2 and one line where that cannot be."""
    try:
        code, rows, words = parsed(arguments)
        if rows:
            row, number = _row(rows, os.environ.get("AWS_BATCH_JOB_ARRAY_INDEX", "0"))
            words = filled(words, row)
            os.environ["AWS_BATCH_JOB_ARRAY_INDEX"] = str(number)  # the same in a repair as in the whole sweep
        if code:  # its folder is the working folder, and the first place to import from
            folder = unpack(_clients(), code)
            os.chdir(folder)
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    except GenokitError as error:
        _leave(WRONG, str(error))
    for name in ("SIGPIPE", "SIGXFSZ"):  # which Python ignores, and the command would inherit that
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvp(words[0], words)
    except FileNotFoundError:
        _leave(NO_COMMAND, f"There is no program '{words[0]}' in this job's image or code.")
    except OSError as error:
        _leave(CANNOT_RUN, f"'{words[0]}' cannot be run: {error.strerror}.")


def _row(uri: str, index: str) -> tuple[Mapping[str, str], int]:
    from genokit.batch.shipping import rows

    found = rows.load(_clients(), uri)
    if not (index.isdecimal() and int(index) < len(found)):
        raise InvalidRequest(f"This job is child {index} of an array with {len(found)} rows in {uri}: it has no row.")
    return found[int(index)], rows.number(found[int(index)], int(index))


def unpack(clients: Clients, uri: str, folder: Path | None = None) -> Path:
    """Unpack shipped code into a new folder, by default ``code``. Raises HashMismatch, before anything is written, if
    the bytes are not those that were shipped."""
    import gzip
    import io
    import tarfile
    import zlib

    from genokit.batch.shipping import by_hash
    from genokit.batch.shipping.archive import MOST_MIB
    from genokit.files import InPieces

    # More is not what was shipped, and must not fill the memory.
    archive = io.BytesIO(by_hash.load(clients, uri, at_most=MOST_MIB * 2**20 + 1))
    folder = folder or _new_folder()
    try:
        packed: Any = InPieces(gzip.GzipFile(fileobj=archive))
        with tarfile.open(fileobj=packed, mode="r:") as tar:
            _extract(tar, folder)
    except (tarfile.TarError, ValueError, OSError, EOFError, zlib.error) as error:
        raise InvalidRequest(f"{uri} cannot be unpacked: {error}") from error
    return folder


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Write files, then links: so nothing is written through a link, whoever made the archive.

    tarfile's filters, which Python 3.11 has since its fourth release only, are not asked for. Raises ValueError for
    anything that ``shipping`` would not have packed.
    """
    from genokit.batch.shipping.archive import MOST_MIB_UNPACKED

    links, left = [], MOST_MIB_UNPACKED * 2**20
    for one in tar:
        left -= one.size + 512  # a name takes room, too
        if left < 0:
            raise ValueError(f"it has more than {MOST_MIB_UNPACKED:,} MiB when unpacked")
        if not {"", ".", ".."}.isdisjoint(one.name.split("/")):
            raise ValueError(f"'{one.name}' is not the name of a file inside")
        if one.name.count("/") > MOST_FOLDERS:
            raise ValueError(f"it has folders in folders, more than {MOST_FOLDERS} deep")
        if one.issym():
            links.append(one)
        elif not one.isreg() or (content := tar.extractfile(one)) is None:
            raise ValueError(f"'{one.name}' is neither a file nor a link")
        else:
            (folder / one.name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / one.name).open("xb") as file:
                shutil.copyfileobj(content, file)
            (folder / one.name).chmod(0o755 if one.mode & 0o100 else 0o644)
    for one in links:
        link = folder / one.name
        if not Path(os.path.normpath(link.parent / one.linkname)).is_relative_to(folder):
            raise ValueError(f"the link '{one.name}' leads out, to '{one.linkname}'")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(one.linkname)


def _new_folder() -> Path:
    import tempfile

    folder = Path.cwd() / "code"
    try:
        folder.mkdir()
    except OSError:  # an image's own working folder may hold one already, or be closed to writing
        return Path(tempfile.mkdtemp(prefix="code-"))
    return folder


@functools.cache  # a client of S3 takes longer to make than all else here
def _clients() -> Clients:
    from genokit import backends

    return backends.clients()


def _leave(status: int, message: str) -> None:
    sys.stderr.write(f"genokit: {message}\n")
    sys.exit(status)
