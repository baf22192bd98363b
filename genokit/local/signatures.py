"""Authentication at the door: requests must be signed with the key pair in the account's folder.

A job is code, so every request must carry AWS's signature, version 4, in its headers. As on AWS, a request may come
twice within five minutes of its date; whoever could repeat it has read this machine's loopback, as root alone can.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv4-create-signed-request.html
"""

from __future__ import annotations

import configparser
import contextlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from genokit.config import private_home
from genokit.errors import ConfigError
from genokit.local.shapes import Refused

FILE = "credentials"
SERVICES = ("batch", "logs", "s3", "sts")
SKEW = timedelta(minutes=5)
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<key>[^/,\s]+)/(?P<day>\d{8})/(?P<region>[\w-]+)/(?P<service>[\w-]+)/aws4_request"
    r" *, *SignedHeaders=(?P<signed>[^,\s]+) *, *Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class KeyPair:
    """What requests are signed with.

    >>> KeyPair("GENO1", "never shown")
    KeyPair(access='GENO1')
    """

    access: str
    secret: str = field(repr=False)


def key_pair(home: Path) -> KeyPair:
    """The account's key pair, made on first use, in a file that AWS's clients read and that its owner alone can read.

    Raises ConfigError where the file holds no pair, or others may read it.
    """
    path = home / FILE
    if not path.exists():
        _create(path)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"'{path}' holds a secret that other users can read. Protect it with: chmod 600 '{path}'")
    try:
        parser = configparser.RawConfigParser()
        parser.read_string(path.read_text(encoding="utf-8"))
        pair = parser["default"]
        return KeyPair(pair["aws_access_key_id"], pair["aws_secret_access_key"])
    except (KeyError, ValueError, configparser.Error):  # whose words could show the secret
        raise ConfigError(f"'{path}' holds no key pair. Remove the file, and a new pair is made.") from None


def _create(path: Path) -> None:
    private_home(path.parent)
    access, secret = f"GENO{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30)
    handle, temporary = tempfile.mkstemp(prefix=f".{FILE}.", dir=path.parent)  # readable by its owner alone
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link does not replace the pair of a process that was faster.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)


def scope(authorization: str) -> str:
    """The service that a request says it is for; Batch where it says none."""
    found = re.search(r"/([\w-]+)/aws4_request", authorization)
    return found[1] if found and found[1] in SERVICES else "batch"


def check(pair: KeyPair, method: str, url: str, headers: Iterable[tuple[str, str]], digest: str | None) -> str:
    """The service that a request was signed for, or Refused with the code that AWS answers with.

    ``digest`` is the SHA-256 of its body; None where the body is still to come, and must then have the one that
    X-Amz-Content-SHA256 promises.
    """
    given = [(name.lower(), value) for name, value in headers]
    one = dict(given)
    if "authorization" not in one:
        raise Refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    found = AUTHORIZATION.fullmatch(one["authorization"].strip())
    if found is None:
        raise Refused(
            400,
            "IncompleteSignatureException",
            "The Authorization header is not one of AWS4-HMAC-SHA256 with Credential, SignedHeaders and Signature.",
        )
    if not hmac.compare_digest(found["key"].encode(), pair.access.encode()):
        raise Refused(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    if found["service"] not in SERVICES:
        raise _invalid(f"The door offers {', '.join(SERVICES)}, not '{found['service']}'.")
    _check_date(one.get("x-amz-date", ""), found["day"])
    signed = set(found["signed"].split(";"))
    loose = sorted(name for name in one if name not in signed and (name == "host" or name.startswith("x-amz-")))
    if loose:
        raise _invalid(f"There were headers present in the request which were not signed: {', '.join(loose)}")
    promised = one.get("x-amz-content-sha256", digest or "")
    if not re.fullmatch("[0-9a-f]{64}", promised) or digest not in (None, promised):
        raise _invalid(
            "X-Amz-Content-SHA256 is not the SHA-256 of the body; unsigned and chunked bodies are not accepted."
        )
    request = AWSRequest(method=method, url=url)
    for name, value in given:
        if name in signed:
            request.headers[name] = value
    request.context |= {"timestamp": one["x-amz-date"], "digest": promised}
    kind = _S3Signer if found["service"] == "s3" else _Signer
    signer = kind(Credentials(pair.access, pair.secret), found["service"], found["region"])
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    if not hmac.compare_digest(expected, found["signature"]):
        raise _invalid(
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method."
        )
    return str(found["service"])


class _Signer(SigV4Auth):  # type: ignore[misc]
    def headers_to_sign(self, request: Any) -> Any:
        """Those that the client chose, where botocore has a choice of its own."""
        return request.headers

    def payload(self, request: Any) -> Any:
        return request.context["digest"]


class _S3Signer(_Signer, S3SigV4Auth):  # type: ignore[misc]
    """Of S3 paths are signed as they are."""


def _check_date(stamp: str, day: str) -> None:
    try:
        date = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise Refused(400, "IncompleteSignatureException", "X-Amz-Date is missing, or no date.") from None
    if stamp[:8] != day:
        raise _invalid(f"Date in Credential scope does not match that of X-Amz-Date: {day}, {stamp}")
    now = datetime.now(UTC)
    if abs(now - date) > SKEW:
        which = "Signature expired" if date < now else "Signature not yet current"
        raise _invalid(f"{which}: {stamp} is more than 5 min from this machine's {now:%Y%m%dT%H%M%SZ}")


def _invalid(message: str) -> Refused:
    return Refused(403, "InvalidSignatureException", message)
