"""The door: accepts requests to the embedded Batch, Logs, S3 and STS from boto3, the AWS CLI and other AWS clients.

It listens on the loopback interface only, and only while it is served. Jobs that start meanwhile use it, and receive
its credentials as ECS provides those of a role. ``protocols`` says what a request asks for.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import io
import json
import os
import re
import secrets
import shlex
import shutil
import sys
import traceback
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from botocore.exceptions import ParamValidationError

from genokit.errors import ConfigError, GenokitError
from genokit.files import write_atomic
from genokit.local import batch, logs, protocols, s3, shapes, signatures
from genokit.local.client import REGION, Service
from genokit.local.engine import runners
from genokit.local.shapes import Refused

ADDRESS = "127.0.0.1"
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?", re.IGNORECASE)
BODY_BYTES = 1024 * 1024
CREDENTIALS = "/v1/credentials"  # of jobs; no bucket has so short a name as v1
INVALID = {"batch": "ClientException", "logs": "InvalidParameterException", "s3": "InvalidArgument"}


class Door(ThreadingHTTPServer):
    """The account in ``home``, listening; ``serve_forever()`` accepts requests until ``shutdown()``.

    ``job_environment`` are the settings under which jobs run that are submitted through the door. Port 0 is any free
    port. Raises ConfigError if the port is not available.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, home: Path, job_environment: Mapping[str, str], port: int = 0, *, verbose: bool = False) -> None:
        self.key_pair = signatures.key_pair(home)
        self.credentials = home / signatures.FILE
        self.token = secrets.token_urlsafe(30)  # what jobs get the credentials for
        self.home, self.region = home, job_environment.get("GENOKIT_REGION", REGION)
        self.services: dict[str, Service] = {
            one.__name__.rpartition(".")[2]: one.service(home, job_environment) for one in (batch, logs, s3)
        }
        self.verbose, self._announced = verbose, False
        try:
            super().__init__((ADDRESS, port), _Exchange)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Port {port} of {ADDRESS} is not available: {error}. Choose another; 0 takes any free port."
            ) from error

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}"

    def environment(self, region: str) -> list[str]:
        """Lines for the shell of a client, without a secret in them. Any region will do."""
        lines = [
            "unset AWS_PROFILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN",
            f"export AWS_SHARED_CREDENTIALS_FILE={shlex.quote(str(self.credentials))}",
            f"export AWS_DEFAULT_REGION={shlex.quote(region)}",
            f"export AWS_ENDPOINT_URL={self.url}",
        ]
        if "http" in getproxies() and not proxy_bypass(ADDRESS):
            lines.append(f'export NO_PROXY="{ADDRESS}${{NO_PROXY:+,$NO_PROXY}}"')
        return lines

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept requests; jobs that start meanwhile use this door, or one that was opened earlier."""
        self._sign = os.open(self.home / runners.DOOR, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self.service_actions()
            super().serve_forever(poll_interval)
        finally:
            os.close(self._sign)  # a door that is closed is not locked

    def service_actions(self) -> None:
        """Announce this door to jobs as soon as no other is announced; called periodically."""
        with contextlib.suppress(BlockingIOError):
            if not self._announced:
                fcntl.flock(self._sign, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write_atomic(self.home / runners.TOKEN, self.token, private=True)
                os.truncate(self._sign, os.pwrite(self._sign, f"{self.url} {self.region}".encode(), 0))
                self._announced = True

    def job_credentials(self, token: str) -> dict[str, str]:
        """The credentials that ECS gives a container for its token. Raises Refused."""
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise Refused(403, "AccessDeniedException", "The token is not the one of this account's jobs.")
        until = f"{datetime.now(UTC) + timedelta(hours=6):%Y-%m-%dT%H:%M:%SZ}"
        pair = {"AccessKeyId": self.key_pair.access_key, "SecretAccessKey": self.key_pair.secret_key}
        return {**pair, "Token": "", "Expiration": until}

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would ask the network for this machine's name
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that has gone is none
            super().handle_error(request, client_address)


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "genokit", ""
    timeout = 60  # seconds that a silent connection is kept
    disable_nagle_algorithm = True
    server: Door

    def do_POST(self) -> None:
        authorization = self.headers.get("Authorization", "")
        service = signatures.scope(authorization)
        headers: dict[str, str]
        try:
            body, digest = self._body(service)
            self._check_address()
            if (self.command, self.path) == ("GET", CREDENTIALS) and "Credential=" not in authorization:
                status, headers, content = 200, {}, json.dumps(self.server.job_credentials(authorization)).encode()
            else:
                url = f"http://{ADDRESS}{self.path}"
                signatures.check(self.server.key_pair, self.command, url, self.headers, digest)
                status, headers, content = self._call(service, urlsplit(url), body)
        except Exception as error:
            self.close_connection |= self.coming  # what follows on it is no request
            status, code, message = _error(error, service)
            headers, content = protocols.error(service, code, message)
        self._answer(status, {"Content-Type": protocols.CONTENT_TYPES[service], **headers}, content)

    do_GET = do_DELETE = do_PUT = do_HEAD = do_POST

    def _body(self, service: str) -> tuple[Any, str | None]:
        """What the body is read from, and its digest; an object's body is left where it is, and its digest unknown."""
        length, self.coming = self.headers.get("Content-Length", "0"), True
        if "Transfer-Encoding" in self.headers:
            raise Refused(411, "MissingContentLength", "Content-Length is missing; chunked bodies are not accepted.")
        if not re.fullmatch("[0-9]{1,18}", length):
            raise Refused(400, "SerializationException", "Content-Length is not a number.")
        if int(length) > BODY_BYTES and service == "s3":
            return _Body(self, int(length)), None
        if int(length) > BODY_BYTES:
            raise Refused(413, "RequestEntityTooLarge", f"A body has at most {BODY_BYTES} bytes, this one {length}.")
        data, self.coming = self.rfile.read(int(length)), False
        return io.BytesIO(data), hashlib.sha256(data).hexdigest()

    def _check_address(self) -> None:
        """Turn away a page in a browser whose own name leads to 127.0.0.1 (DNS rebinding)."""
        if not HOST.fullmatch(self.headers.get("Host", "")):
            raise Refused(403, "AccessDeniedException", f"The Host is not {ADDRESS} or localhost.")
        if not self.path.startswith("/"):
            raise Refused(400, "UnknownOperationException", "The address is not a path.")

    def _call(self, service: str, url: SplitResult, body: Any) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of an operation's answer."""
        if service == "sts":
            return 200, {}, protocols.identity(url.query or body.read().decode("utf-8", "replace"))
        model, request = protocols.call(service, self.command, url, self.headers, body)
        shapes.check_request(model, request)
        response = self.server.services[service](model, request)
        if response is None:
            raise s3.no_such_bucket(request["Bucket"])
        return protocols.answer(model, request, response)

    def _answer(self, status: int, headers: dict[str, str], content: Any) -> None:
        if isinstance(content, bytes):
            headers = {"Content-Length": str(len(content)), **headers}
            content = io.BytesIO(content)
        with contextlib.closing(content):
            self.send_response(status)
            for name, value in headers.items():  # of objects, as their writer gave them
                self.send_header(name, re.sub(r"[\r\n]", " ", value).encode("latin-1", "replace").decode("latin-1"))
            self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                shutil.copyfileobj(content, self.wfile)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        headers = getattr(self, "headers", {})  # none yet where the first line is no request
        self.log_message("%s %s %d", self.requestline, headers.get("X-Amz-Target", "-"), code)

    def log_message(self, format: str, *args: Any) -> None:
        if self.server.verbose:
            super().log_message(format, *args)


class _Body:
    """The body of a large request, read as it comes; reading it to its end checks that it is the signed one."""

    def __init__(self, exchange: _Exchange, length: int) -> None:
        self._exchange, self._left, self._digest = exchange, length, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._exchange.rfile.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        self._digest.update(data)
        if self._left and not data:
            raise Refused(400, "IncompleteBody", f"The last {self._left} bytes of the body are missing.")
        if not self._left:
            self._exchange.coming = False
            if self._digest.hexdigest() != self._exchange.headers["X-Amz-Content-SHA256"]:
                raise Refused(400, "XAmzContentSHA256Mismatch", "The body is not the one that was signed.")
        return data


def _error(error: Exception, service: str) -> tuple[int, str, str]:
    """HTTP status, code and message."""
    if isinstance(error, Refused):
        return error.status, error.code, str(error)
    if isinstance(error, ParamValidationError):
        return 400, INVALID[service], str(error)
    if isinstance(error, NotImplementedError):
        return 501, "NotImplemented", str(error)
    if isinstance(error, GenokitError):
        return 500, "ServerException", str(error)
    traceback.print_exception(error)
    return 500, "InternalFailure", f"{type(error).__name__}: {error}"
