"""S3's wire protocol, REST-XML, seen from the service: botocore's parser and serializer, each used the other way round.

https://smithy.io/2.0/aws/protocols/aws-restxml-protocol.html
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from email.message import Message
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote
from xml.etree.ElementTree import Element, tostring
from xml.sax.saxutils import escape

from botocore.parsers import ResponseParserError, RestXMLParser
from botocore.serialize import RestXMLSerializer

from genokit.local import shapes
from genokit.local.client import ACCOUNT
from genokit.local.shapes import Refused

# Elements whose names follow no rule; clients in C++ look at them.
ROOTS = {
    "ListObjectsV2Output": "ListBucketResult",
    "ListObjectsOutput": "ListBucketResult",
    "ListObjectVersionsOutput": "ListVersionsResult",
    "ListBucketsOutput": "ListAllMyBucketsResult",
    "CreateMultipartUploadOutput": "InitiateMultipartUploadResult",
    "DeleteObjectsOutput": "DeleteResult",
}
ENCODED = ("Key", "Prefix", "Delimiter", "Marker", "NextMarker", "StartAfter", "KeyMarker", "NextKeyMarker")
XML_BYTES = 8 * 1024 * 1024  # the parts of the largest upload
NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PARSER = RestXMLParser()


class _Answers(RestXMLSerializer):  # type: ignore[misc]
    def _serialize_body_params(self, params: Any, shape: Any) -> bytes:
        root = Element("root")
        self._serialize(shape, params, root, ROOTS.get(shape.name, shape.name.replace("Output", "Result")))
        return bytes(tostring(root[0], encoding="utf-8"))


def call(method: str, bucket: str, path: str, query: str, headers: Message, body: Any) -> tuple[str, dict[str, Any]]:
    """The operation in boto3's name, and its parameters; ``body`` can be read, and is where an object's bytes are."""
    path = path.removeprefix("/")
    if not bucket:
        bucket, _, path = path.partition("/")
    uri = {member: unquote(value) for member, value in (("Bucket", bucket), ("Key", path)) if value}
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    fitting = [
        (len(fixed) + len(needed), name, model)
        for name, verb, members, fixed, needed, model in _routes()
        if (verb, members) == (method, set(uri))
        and fixed.items() <= parameters.items()
        and all(one in parameters or one in headers for one in needed)
    ]
    if not fitting:
        raise Refused(405, "MethodNotAllowed", f"S3 has no operation {method} of such an address.")
    _, name, model = max(fitting, key=lambda one: one[0])
    try:
        return name, _members(model, uri, parameters, headers, body)
    except ResponseParserError:
        raise Refused(400, "MalformedXML", "The body is not the XML that the operation expects.") from None
    except (ValueError, OverflowError, RuntimeError) as error:  # the last of botocore, for a date
        raise Refused(400, "InvalidArgument", f"A header or a parameter has the wrong type: {error}.") from None


@functools.cache
def _routes() -> list[tuple[str, str, set[str], dict[str, str], list[str], Any]]:
    """Of each operation its name, HTTP method, what its path names, what its query says, and what it must have."""
    found = []
    for name, model in shapes.operations("s3").items():
        path, _, query = model.http["requestUri"].partition("?")
        members = {member for member in ("Bucket", "Key") if f"{{{member}" in path}
        shape = model.input_shape
        needed = [
            shape.members[member].serialization["name"]
            for member in (shape.required_members if shape else ())
            if shape.members[member].serialization.get("location") in ("querystring", "header")
        ]
        if path.count("/") == max(1, len(members)):
            fixed = dict(parse_qsl(query, keep_blank_values=True))
            found.append((name, model.http["method"], members, fixed, needed, model))
    return found


def _members(model: Any, uri: dict[str, str], parameters: dict[str, str], headers: Message, body: Any) -> Any:
    shape = model.input_shape
    payload = shape.serialization.get("payload")
    stream = payload and shape.members[payload].type_name == "blob"
    found: dict[str, Any] = {}
    PARSER._add_modeled_parse({"headers": headers, "body": body if stream else body.read(XML_BYTES)}, shape, found)
    for member, one in shape.members.items():
        if one.serialization.get("location") == "querystring" and one.serialization["name"] in parameters:
            found[member] = PARSER._parse_shape(one, parameters[one.serialization["name"]])
    if "CopySource" in found:  # boto3 quotes it
        found["CopySource"] = unquote(found["CopySource"])
    return {member: value for member, value in found.items() if value != {}} | uri


def answer(model: Any, request: Mapping[str, Any], response: Mapping[str, Any]) -> tuple[dict[str, str], Any]:
    """Headers and body; the body is bytes, or what an object's bytes are read from."""
    if request.get("EncodingType") == "url":
        response = {**_encoded(response), "EncodingType": "url"}
    as_request = SimpleNamespace(http={"method": "", "requestUri": "/"}, input_shape=model.output_shape, endpoint=None)
    made = _Answers().serialize_to_request(response, as_request)
    return dict(made["headers"]), made["body"]


def _encoded(value: Any, name: str = "") -> Any:
    """Keys may hold what XML may not, so clients let them be encoded."""
    if isinstance(value, Mapping):
        return {member: _encoded(one, member) for member, one in value.items()}
    if isinstance(value, list):
        return [_encoded(one) for one in value]
    return quote(value, safe="/") if name in ENCODED else value


def identity(parameters: Mapping[str, str]) -> bytes:
    """What STS answers to GetCallerIdentity, in its own protocol. Raises Refused for all else."""
    if parameters.get("Action") != "GetCallerIdentity":
        raise Refused(400, "InvalidAction", "Of STS, the embedded account offers GetCallerIdentity only.")
    body = f"<Arn>arn:aws:iam::{ACCOUNT}:root</Arn><UserId>{ACCOUNT}</UserId><Account>{ACCOUNT}</Account>"
    result = f"<GetCallerIdentityResult>{body}</GetCallerIdentityResult>"
    return f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>".encode()


def error(code: str, message: str, *, wrapped: bool) -> bytes:
    """An error as S3 writes it, and STS in a wrapper."""
    body = f"<Error><Code>{code}</Code><Message>{escape(NO_XML.sub('?', message))}</Message></Error>"
    return (f"<ErrorResponse>{body}</ErrorResponse>" if wrapped else body).encode()
