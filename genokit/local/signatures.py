"""Authentication at the door: requests must be signed with the key pair in the account's folder.

A job is code, so every request must carry AWS's signature, version 4, in its headers. As on AWS, a request may come
twice within five minutes of its date; whoever could repeat it has read this machine's loopback, as root alone can.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv4-create-signed-request.html
"""

from __future__ import annotations

import configparser
import contextlib
import hmac
import re
import secrets
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Any

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from genokit.config import private_home
from genokit.errors import ConfigError
from genokit.files import write_atomic
from genokit.local.shapes import Refused

FILE = "credentials"
SERVICES = ("batch", "logs", "s3", "sts")
SKEW = timedelta(minutes=5)
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<key>[^/,\s]+)/(?P<day>\d{8})/(?P<region>[\w-]+)/(?P<service>[\w-]+)/aws4_request"
    r" *, *SignedHeaders=(?P<signed>[^,\s]+) *, *Signature=(?P<signature>[0-9a-f]{64})"
)


def key_pair(home: Path) -> Credentials:
    """The account's key pair, made on first use, in a file that AWS's clients read and that its owner alone can read.

    Raises ConfigError where the file holds no pair, or others may read it.
    """
    path = private_home(home) / FILE
    if not path.exists():
        access, secret = f"GENO{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
        pair = f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
        with contextlib.suppress(FileExistsError):  # a process that was faster
            write_atomic(path, pair, private=True, replace=False)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"'{path}' holds a secret that other users can read. Protect it with: chmod 600 '{path}'")
    try:
        parser = configparser.RawConfigParser()
        parser.read_string(path.read_text(encoding="utf-8"))
        return Credentials(parser["default"]["aws_access_key_id"], parser["default"]["aws_secret_access_key"])
    except (KeyError, ValueError, configparser.Error):  # whose words could show the secret
        raise ConfigError(f"'{path}' holds no key pair. Remove the file, and a new pair is made.") from None


def scope(authorization: str) -> str:
    """The service that a request says it is for; Batch where it says none."""
    found = re.search(r"/([\w-]+)/aws4_request", authorization)
    return found[1] if found and found[1] in SERVICES else "batch"


def check(pair: Credentials, method: str, url: str, headers: Message, digest: str | None) -> None:
    """Raise Refused, with the code that AWS answers with, unless a request is signed: then signing it again gives the
    same signature.

    ``digest`` is the SHA-256 of its body; None where the body is still to come, and must then have the one that
    X-Amz-Content-SHA256 promises.
    """
    if "Authorization" not in headers:
        raise Refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    found, stamp = AUTHORIZATION.fullmatch(headers["Authorization"].strip()), headers.get("X-Amz-Date", "")
    try:
        date = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        date = None
    if found is None or date is None:
        wanted = "Authorization: AWS4-HMAC-SHA256 with Credential, SignedHeaders and Signature, and X-Amz-Date."
        raise Refused(400, "IncompleteSignatureException", f"The request must have {wanted}")
    if not hmac.compare_digest(found["key"].encode(), pair.access_key.encode()):
        raise Refused(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    if found["service"] not in SERVICES:
        raise _invalid(f"The door offers {', '.join(SERVICES)}, not '{found['service']}'.")
    now, signed = datetime.now(UTC), found["signed"].split(";")
    if stamp[:8] != found["day"] or abs(now - date) > SKEW:
        raise _invalid(f"X-Amz-Date {stamp} is not within 5 min of this machine's {now:%Y%m%dT%H%M%SZ}.")
    names = {name.lower() for name in headers}
    if loose := sorted(name for name in names - {*signed} if name == "host" or name.startswith("x-amz-")):
        raise _invalid(f"There were headers present in the request which were not signed: {', '.join(loose)}")
    promised = headers.get("X-Amz-Content-SHA256", digest or "")
    if not re.fullmatch("[0-9a-f]{64}", promised) or digest not in (None, promised):
        raise _invalid("X-Amz-Content-SHA256 must be the body's SHA-256; unsigned and chunked bodies are not accepted.")
    request = AWSRequest(method=method, url=url)
    for name, value in headers.items():
        if name.lower() in signed:
            request.headers[name.lower()] = value
    request.context |= {"timestamp": stamp, "digest": promised}
    signer = (_S3Signer if found["service"] == "s3" else _Signer)(pair, found["service"], found["region"])
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    if not hmac.compare_digest(expected, found["signature"]):
        raise _invalid("The request signature we calculated does not match yours. Check your AWS Secret Access Key.")


class _Signer(SigV4Auth):  # type: ignore[misc]
    def headers_to_sign(self, request: Any) -> Any:
        """Those that the client chose, where botocore has a choice of its own."""
        return request.headers

    def payload(self, request: Any) -> Any:
        return request.context["digest"]


class _S3Signer(_Signer, S3SigV4Auth):  # type: ignore[misc]
    """Of S3 paths are signed as they are."""


def _invalid(message: str) -> Refused:
    return Refused(403, "InvalidSignatureException", message)
