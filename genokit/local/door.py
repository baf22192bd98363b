"""The door: the embedded Batch and Logs over AWS's wire protocol, for boto3, the AWS CLI and other tools.

It listens on this machine's loopback alone, and only while somebody serves it. Batch speaks REST-JSON, Logs JSON 1.1.
https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html, aws-json-1_1-protocol.html
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import sys
import traceback
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from botocore.exceptions import ClientError, ParamValidationError

from genokit.errors import ConfigError, GenokitError
from genokit.local import batch, logs, shapes, signatures
from genokit.local.signatures import Refused

ADDRESS = "127.0.0.1"
HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?", re.IGNORECASE)
BODY_BYTES = 1024 * 1024
CONTENT_TYPES = {"batch": "application/json", "logs": "application/x-amz-json-1.1"}
INVALID = {"batch": "ClientException", "logs": "InvalidParameterException"}


class Door(ThreadingHTTPServer):
    """The account in ``home``, listening; ``serve_forever()`` lets requests in until ``shutdown()``.

    ``job_environment`` are the settings under which jobs run that come through the door. Port 0 is any free one. Raises
    ConfigError where the port cannot be had.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, home: Path, job_environment: Mapping[str, str], port: int = 0, *, verbose: bool = False) -> None:
        self.key_pair = signatures.key_pair(home)
        self.credentials = home / signatures.FILE
        self.clients = {
            "batch": batch.client(home, job_environment),
            "logs": logs.client(home, job_environment),
        }
        self.verbose = verbose
        try:
            super().__init__((ADDRESS, port), _Exchange)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"Port {port} of {ADDRESS} cannot be listened on: {error}. Choose another; 0 takes any free one."
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
            f"export AWS_ENDPOINT_URL_BATCH={self.url}",
            f"export AWS_ENDPOINT_URL_CLOUDWATCH_LOGS={self.url}",
        ]
        if "http" in getproxies() and not proxy_bypass(ADDRESS):
            lines.append(f'export NO_PROXY="{ADDRESS}${{NO_PROXY:+,$NO_PROXY}}"')
        return lines

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
        body, service = self._body(), "batch"
        try:
            if isinstance(body, Refused):
                raise body
            self._check_address()
            url = urlsplit(f"http://{ADDRESS}{self.path}")
            service = signatures.check(self.server.key_pair, self.command, url.geturl(), self.headers.items(), body)
            method, request = self._call(service, url, body)
            status, headers, content = 200, {}, getattr(self.server.clients[service], method)(**request)
            del content["ResponseMetadata"]
        except Exception as error:
            status, code, message = _error(error, service)
            headers, content = {"x-amzn-ErrorType": code}, {"__type": code, "message": message}
        self._answer(status, {"Content-Type": CONTENT_TYPES[service], **headers}, json.dumps(content).encode())

    do_GET = do_DELETE = do_POST

    def _body(self) -> bytes | Refused:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers:
            refused = Refused(411, "MissingContentLength", "Content-Length is missing; a body in chunks is not taken.")
        elif not re.fullmatch("[0-9]{1,18}", length):
            refused = Refused(400, "SerializationException", "Content-Length is no number.")
        elif int(length) > BODY_BYTES:
            refused = Refused(413, "RequestEntityTooLarge", f"The body has {length} bytes; {BODY_BYTES} are the most.")
        else:
            return self.rfile.read(int(length))
        self.close_connection = True  # what follows on it is no request
        return refused

    def _check_address(self) -> None:
        """A page in a browser whose own name leads to 127.0.0.1 (DNS rebinding) is turned away."""
        if not HOST.fullmatch(self.headers.get("Host", "")):
            raise Refused(403, "AccessDeniedException", f"The Host is not {ADDRESS} or localhost.")
        if not self.path.startswith("/"):
            raise Refused(400, "UnknownOperationException", "The address is not a path.")

    def _call(self, service: str, url: SplitResult, body: bytes) -> tuple[str, dict[str, Any]]:
        if service == "batch":
            return _batch_call(self.command, url, body)
        target = self.headers.get("X-Amz-Target", "")
        method = _targets().get(target)
        if (self.command, url.path) != ("POST", "/") or method is None:
            raise Refused(
                404, "UnknownOperationException", f"Logs has no operation {self.command} {url.path} {target}."
            )
        return method, _members(body)

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        headers = getattr(self, "headers", {})  # none yet where the first line is no request
        self.log_message("%s %s %d", self.requestline, headers.get("X-Amz-Target", "-"), code)

    def log_message(self, format: str, *args: Any) -> None:
        if self.server.verbose:
            super().log_message(format, *args)


@functools.cache
def _routes() -> list[tuple[str, re.Pattern[str], str, Any]]:
    """HTTP method, path, name and model of each of Batch's operations."""
    return [
        (model.http["method"], re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>.+)", model.http["requestUri"])), name, model)
        for name, model in shapes.operations("batch").items()
    ]


@functools.cache
def _targets() -> dict[str, str]:
    prefix = shapes.service("logs").metadata["targetPrefix"]
    return {f"{prefix}.{model.name}": name for name, model in shapes.operations("logs").items()}


def _batch_call(method: str, url: SplitResult, body: bytes) -> tuple[str, dict[str, Any]]:
    """The operation in boto3's name, and its parameters from body, path and query."""
    for verb, pattern, name, model in _routes():
        path = pattern.fullmatch(url.path)
        if verb != method or path is None:
            continue
        request = _members(body) | {member: unquote(value) for member, value in path.groupdict().items()}
        query = parse_qs(url.query, keep_blank_values=True)
        for member, shape in model.input_shape.members.items():
            values = query.get(shape.serialization.get("name", member))
            if values and shape.serialization.get("location") == "querystring":
                request[member] = values if shape.type_name == "list" else values[0]
        return name, request
    raise Refused(404, "UnknownOperationException", f"Batch has no operation {method} {url.path}.")


def _members(body: bytes) -> dict[str, Any]:
    """What the body says; a member that is null is as good as absent."""
    try:
        found = json.loads(
            body or b"{}", object_pairs_hook=lambda pairs: {name: value for name, value in pairs if value is not None}
        )
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "SerializationException", "The body is not a JSON object.")
    return found


def _error(error: Exception, service: str) -> tuple[int, str, str]:
    """HTTP status, code and message."""
    if isinstance(error, Refused):
        return error.status, error.code, str(error)
    if isinstance(error, ClientError):
        said = error.response
        return said["ResponseMetadata"]["HTTPStatusCode"], said["Error"]["Code"], said["Error"]["Message"]
    if isinstance(error, ParamValidationError):
        return 400, INVALID[service], str(error)
    if isinstance(error, NotImplementedError):
        return 501, "NotImplemented", str(error)
    if isinstance(error, GenokitError):
        return 500, "ServerException", str(error)
    traceback.print_exception(error)
    return 500, "InternalFailure", f"{type(error).__name__}: {error}"
