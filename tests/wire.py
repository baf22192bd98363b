"""Requests to the door made by hand: signed as an SDK signs them, and sent as they are."""

from __future__ import annotations

import http.client
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from genokit.local.door import Door


def raw(door: Door, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
    """The status and the bytes of one answer."""
    connection = http.client.HTTPConnection("127.0.0.1", door.server_port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def sent(door: Door, method: str, path: str, headers: dict[str, str], body: bytes | str = b"") -> tuple[int, Any]:
    """The status and the answer to one request, sent as it is, where that is JSON."""
    status, answer = raw(door, method, path, headers, body.encode() if isinstance(body, str) else body)
    return status, json.loads(answer)


def signed(
    door: Door, path: str, body: bytes | str = b"{}", *, method: str = "POST", service: str = "batch",
    secret: str = "", access: str = "", minutes: float = 0, **more: str,
) -> dict[str, str]:  # fmt: skip
    """The headers of a request as an SDK signs it; ``more`` are signed too, with - for _."""
    body = body.encode() if isinstance(body, str) else body
    stamp = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y%m%dT%H%M%SZ")
    given = {"Host": f"127.0.0.1:{door.server_port}", "X-Amz-Date": stamp, "Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in more.items()}
    pair = Credentials(access or door.key_pair.access_key, secret or door.key_pair.secret_key)
    return _signed(
        SigV4Auth(pair, service, "us-east-1"), AWSRequest(method=method, url=door.url + path, data=body), given
    )


def s3_signed(door: Door, method: str, path: str, digest: str, **more: str) -> dict[str, str]:
    """The headers of a request to S3, whose paths are signed as they are, for a body with this digest."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    given = {"Host": "localhost", "X-Amz-Date": stamp, "X-Amz-Content-SHA256": digest, **more}
    pair = Credentials(door.key_pair.access_key, door.key_pair.secret_key)
    return _signed(S3SigV4Auth(pair, "s3", "us-east-1"), AWSRequest(method=method, url=door.url + path), given)


def _signed(signer: Any, request: Any, given: dict[str, str]) -> dict[str, str]:
    for name, value in given.items():
        request.headers[name] = value
    request.context["timestamp"] = given["X-Amz-Date"]
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    names = signer.signed_headers(signer.headers_to_sign(request))
    authorization = f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signature}"
    return given | {"Authorization": authorization}
