"""Sources of files: a folder, http(s), S3, GA4GH DRS or a package, each opened as a stream.

One ``Sources`` serves one fetch: it downloads a package's archive once for all files in it, and does not contact a site
that did not respond again, so that a machine without a network waits once and not for every file.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import quote, urljoin, urlsplit

from genokit import backends
from genokit.config import Settings
from genokit.data import drs
from genokit.data.packages import Unavailable, download, member, parse
from genokit.errors import GenokitError, InvalidRequest
from genokit.storage import split

if TYPE_CHECKING:
    import requests

REDIRECTS = 5
DOCUMENT = 1 << 20
GZIP = b"\x1f\x8b"


class Sources:
    """Opens sources for one fetch; ``staging`` is an existing folder for package archives."""

    def __init__(self, settings: Settings, clients: backends.Clients | None, staging: Path) -> None:
        self.settings = settings
        self.staging = staging
        self._clients = clients
        self._silent: dict[str, str] = {}  # a site or package that failed -> its answer
        self._archives: dict[str, Path] = {}

    @contextmanager
    def opened(self, source: str, *, unpack: bool) -> Iterator[IO[bytes]]:
        """Open a source for reading; ``unpack`` decompresses gzip. Raises Unavailable.

        A body that the server compressed for transfer (Content-Encoding) is decompressed. Many servers also declare
        that for a file stored as .gz: such a file stays compressed.
        """
        encoded = False
        with ExitStack() as stack:
            headers: Mapping[str, str] = {}
            if source.startswith("drs://"):
                source, headers = drs.resolved(source, self._document)
            if source.startswith(("https://", "http://")):
                reader, encoded = self._web(source, stack, headers)
            elif source.startswith("s3://"):
                reader, encoded = self._s3(source, stack)
            elif source.startswith("pkg:"):
                reader = self._package(source, stack)
            else:
                reader = _file(Path(source), stack)
            if encoded:
                reader = _plain(reader, stack, stored=source.endswith(".gz") and not unpack)
            yield _plain(reader, stack) if unpack else reader

    def _ask_once(self, site: str) -> None:
        if site in self._silent:
            raise Unavailable(f"not tried again: {self._silent[site]}")

    def _document(self, url: str) -> bytes:
        """A small body."""
        with ExitStack() as stack:
            return self._web(url, stack)[0].read(DOCUMENT)

    def _web(self, url: str, stack: ExitStack, headers: Mapping[str, str] | None = None) -> tuple[IO[bytes], bool]:
        """The body of a response, and whether it is declared to be gzip-encoded; headers are for this address alone."""
        import requests
        from requests.exceptions import RequestException

        session = stack.enter_context(requests.Session())
        for _ in range(REDIRECTS + 1):
            site = urlsplit(url).netloc
            self._ask_once(site)
            try:
                # Ask for the bytes as stored: their hash is known, and files are decompressed here, with a limit.
                answer = session.get(
                    url, stream=True, timeout=self.settings.timeout_s, allow_redirects=False,
                    headers={**(headers or {}), "Accept-Encoding": "identity", "User-Agent": "genokit"},
                )  # fmt: skip
            except RequestException as error:
                self._silent[site] = _no_answer(error, self.settings.timeout_s)
                raise Unavailable(self._silent[site]) from error
            stack.enter_context(answer)
            if not answer.is_redirect:
                return _body(answer)
            target = urljoin(url, answer.headers["location"])
            scheme = urlsplit(target).scheme
            if scheme != "https" and (scheme != "http" or url.startswith("https://")):
                raise Unavailable(f"refused: it redirects from {urlsplit(url).scheme} to {scheme}")
            url, headers = target, None  # which may hold a token
        raise Unavailable(f"more than {REDIRECTS} redirects")

    def _s3(self, source: str, stack: ExitStack) -> tuple[IO[bytes], bool]:
        self._clients = self._clients or backends.clients(self.settings)
        bucket, key = split(source)
        self._ask_once(bucket)
        try:
            with backends.translated_errors(f"bucket '{bucket}'"):
                answer = self._clients.s3.get_object(Bucket=bucket, Key=key)
        except GenokitError as error:
            if not isinstance(error, InvalidRequest):  # this holds for the bucket's other files too
                self._silent[bucket] = str(error)
            raise Unavailable(str(error)) from error
        stack.callback(answer["Body"].close)
        return cast(IO[bytes], answer["Body"]), "gzip" in answer.get("ContentEncoding", "")

    def _package(self, purl: str, stack: ExitStack) -> IO[bytes]:
        kind, name, version, path = parse(purl)
        package = purl.partition("#")[0]
        self._ask_once(package)
        if package not in self._archives:
            try:
                folder = self.staging / f"package-{len(self._archives) + len(self._silent)}"
                self._archives[package] = download(kind, name, version, folder, self.settings.timeout_s)
            except Unavailable as error:
                self._silent[package] = str(error)
                raise
        return stack.enter_context(member(self._archives[package], path))


def shown(source: str) -> str:
    """A source without its password and query, which in a signed address is a secret.

    >>> shown("https://me:secret@example.org/a.gz?signature=secret")
    'https://example.org/a.gz'
    """
    if not source.startswith(("https://", "http://")):
        return source
    parts = urlsplit(source)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def in_mirror(mirror: str, name: str, path: str) -> str:
    """The address of a file in a mirror (a folder or an address): ``<mirror>/<name>/<path>``.

    >>> in_mirror("https://example.org/data/", "mnist", "a b.csv"), in_mirror("/data", "mnist", "a b.csv")
    ('https://example.org/data/mnist/a%20b.csv', '/data/mnist/a b.csv')
    """
    if mirror.startswith(("https://", "http://")):
        path = quote(path)
    return os.path.expanduser(f"{mirror.rstrip('/')}/{name}/{path}")


def _file(path: Path, stack: ExitStack) -> IO[bytes]:
    try:
        return stack.enter_context(path.open("rb"))
    except OSError as error:
        raise Unavailable(str(error.strerror)) from error


def _body(answer: requests.Response) -> tuple[IO[bytes], bool]:
    if answer.status_code != 200:
        raise Unavailable(f"answered {answer.status_code} {answer.reason}")
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    unknown = {one.strip() for one in encoding.split(",")} - {"", "identity", *answer.raw.CONTENT_DECODERS}
    if unknown:
        raise Unavailable(f"answered in an encoding that was not requested: {', '.join(sorted(unknown))}")
    encoded = encoding in ("gzip", "x-gzip")
    answer.raw.auto_close = False  # else it looks closed as soon as its last byte is buffered
    answer.raw.decode_content = not encoded  # unpacked here, because not every server that declares gzip compresses
    return cast(IO[bytes], answer.raw), encoded


def _no_answer(error: Exception, timeout_s: float) -> str:
    """Why a site did not respond, without the address, which may hold a secret and which the exception repeats."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate was refused (behind a proxy: set REQUESTS_CA_BUNDLE to the site's certificates)"
    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer within {timeout_s:g} s"
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    words = str(reason).rpartition("): ")[2] if reason else type(error).__name__
    return f"no connection ({words.removeprefix('Failed to establish a new connection: ')})"


def _plain(reader: IO[bytes], stack: ExitStack, *, stored: bool = False) -> IO[bytes]:
    """Decompress a gzip stream; a file that is ``stored`` as gzip, only if it is compressed twice."""
    # Some servers decompress .gz files on the way, so the name is not enough.
    whole = io.BufferedReader(cast(io.RawIOBase, reader))
    try:
        start = whole.peek(1024)
        inside = zlib.decompressobj(31).decompress(start, 2)
    except zlib.error:
        inside = b""
    except Exception as error:  # every kind of stream has its own errors
        raise Unavailable(f"broke off at its start ({type(error).__name__}: {error})") from error
    if not start.startswith(GZIP) or (stored and inside != GZIP):
        return whole
    return cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=whole, mode="rb")))
