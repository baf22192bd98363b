"""AWS's wire protocols, seen from the service: what a request asks for, and how it is answered.

Batch speaks REST-JSON, Logs JSON 1.1, S3 REST-XML, STS Query. botocore's parser and serializer of XML are each used the
other way round. https://smithy.io/2.0/aws/protocols/index.html
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from email.message import Message
from types import SimpleNamespace
from typing import Any
from urllib.parse import SplitResult, parse_qs, parse_qsl, quote, unquote
from xml.etree.ElementTree import Element, tostring
from xml.sax.saxutils import escape

from botocore.parsers import ResponseParserError, RestXMLParser
from botocore.serialize import RestXMLSerializer

from genokit.local import shapes
from genokit.local.client import ACCOUNT
from genokit.local.shapes import Refused

XML = ("s3", "sts")
CONTENT_TYPES = {"batch": "application/json", "logs": "application/x-amz-json-1.1", **dict.fromkeys(XML, "text/xml")}
# Elements whose names follow no rule; clients in C++, which can only read, look at them.
ROOTS = {
    "ListObjectsV2Output": "ListBucketResult",
    "ListObjectsOutput": "ListBucketResult",
    "ListObjectVersionsOutput": "ListVersionsResult",
    "ListBucketsOutput": "ListAllMyBucketsResult",
}
ENCODED = ("Key", "Prefix", "Delimiter", "Marker", "NextMarker", "StartAfter", "KeyMarker", "NextKeyMarker")
XML_BYTES = 8 * 1024 * 1024  # the parts of the largest upload
NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PARSER = RestXMLParser()


def call(service: str, method: str, url: SplitResult, headers: Message, body: Any) -> tuple[Any, dict[str, Any]]:
    """The model of the operation, and its parameters; ``body`` can be read, and is where an object's bytes are."""
    query, target = parse_qs(url.query, keep_blank_values=True), headers.get("X-Amz-Target", "")
    fitting = [
        (len(fixed) + len(needed), model, uri.groupdict())
        for verb, path, fixed, needed, operation, model in _routes(service)
        if verb == method
        and (uri := path.fullmatch(url.path))
        and all(query.get(name) == value for name, value in fixed.items())
        and all(one in query or one in headers for one in needed)
        and operation in ("", target)
    ]
    if not fitting:
        said = f"{service} has no operation {method} {url.path} {target}"
        raise Refused(405 if service == "s3" else 404, "UnknownOperationException", said)
    _, model, names = max(fitting, key=lambda one: one[0])
    try:
        request = _members_in_xml(model, headers, body) if service == "s3" else _members_in_json(body)
        for member, shape in model.input_shape.members.items() if model.input_shape else ():
            values = query.get(shape.serialization.get("name", member))
            if values and shape.serialization.get("location") == "querystring":
                request[member] = values if shape.type_name == "list" else PARSER._parse_shape(shape, values[0])
    except ResponseParserError:
        raise Refused(400, "MalformedXML", "The body is not the XML that the operation expects.") from None
    except (ValueError, OverflowError, RuntimeError) as error:  # the last of botocore, for a date
        raise Refused(400, "InvalidArgument", f"A header or a parameter has the wrong type: {error}.") from None
    return model, request | {member: unquote(value) for member, value in names.items()}


@functools.cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], dict[str, list[str]], list[str], str, Any]]:
    """Of each operation HTTP method, path, what its query says, what it must have, its target, and its model."""
    found = []
    for model in shapes.operations(service).values():
        path, _, query = model.http["requestUri"].partition("?")
        # A bucket's name may be followed by a slash, an object's key and an ARN may hold some.
        path = path.replace("{Bucket}", "(?P<Bucket>[^/]+)" + ("/?" if path == "/{Bucket}" else ""))
        pattern = re.compile(re.sub(r"\{(\w+)\+?\}", r"(?P<\1>.+)", path))
        members = model.input_shape.members if model.input_shape else {}
        needed = [
            members[member].serialization["name"]
            for member in (model.input_shape.required_members if model.input_shape else ())
            if members[member].serialization.get("location") in ("querystring", "header")
        ]
        prefix = model.service_model.metadata.get("targetPrefix", "")
        target = f"{prefix}.{model.name}" if prefix else ""
        fixed = parse_qs(query, keep_blank_values=True)
        found.append((model.http["method"], pattern, fixed, needed, target, model))
    return found


def _members_in_json(body: Any) -> dict[str, Any]:
    """The parameters in a body; a member that is null counts as absent."""
    try:
        found = json.loads(body.read() or b"{}", object_pairs_hook=_without_null)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "SerializationException", "The body is not a JSON object.")
    return found


def _without_null(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if value is not None}


def _members_in_xml(model: Any, headers: Message, body: Any) -> dict[str, Any]:
    """The parameters in headers and body."""
    shape, found = model.input_shape, dict[str, Any]()
    payload = shape.serialization.get("payload")
    stream = payload and shape.members[payload].type_name == "blob"
    PARSER._add_modeled_parse({"headers": headers, "body": body if stream else body.read(XML_BYTES)}, shape, found)
    if "CopySource" in found:  # boto3 quotes it
        found["CopySource"] = unquote(found["CopySource"])
    return {member: value for member, value in found.items() if value != {}}


def answer(model: Any, request: dict[str, Any], response: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body; the body is bytes, or what an object's bytes are read from."""
    if model.service_model.service_name != "s3":
        return 200, {}, json.dumps(response).encode()
    if request.get("EncodingType") == "url":
        response = {**_encoded(response), "EncodingType": "url"}
    as_request = SimpleNamespace(http={"method": "", "requestUri": "/"}, input_shape=model.output_shape, endpoint=None)
    made = _Answers().serialize_to_request(response, as_request)
    return shapes.status(model, response), dict(made["headers"]), made["body"]


class _Answers(RestXMLSerializer):  # type: ignore[misc]
    def _serialize_body_params(self, params: Any, shape: Any) -> bytes:
        root = Element("root")
        self._serialize(shape, params, root, ROOTS.get(shape.name, shape.name.replace("Output", "Result")))
        return bytes(tostring(root[0], encoding="utf-8"))


def _encoded(value: Any, name: str = "") -> Any:
    """Keys may hold what XML may not, so clients let them be encoded."""
    if isinstance(value, Mapping):
        return {member: _encoded(one, member) for member, one in value.items()}
    if isinstance(value, list):
        return [_encoded(one) for one in value]
    return quote(value, safe="/") if name in ENCODED else value


def identity(query: str) -> bytes:
    """What STS answers to GetCallerIdentity, in its own protocol. Raises Refused for all else."""
    if dict(parse_qsl(query)).get("Action") != "GetCallerIdentity":
        raise Refused(400, "InvalidAction", "Of STS, the embedded account offers GetCallerIdentity only.")
    body = f"<Arn>arn:aws:iam::{ACCOUNT}:root</Arn><UserId>{ACCOUNT}</UserId><Account>{ACCOUNT}</Account>"
    result = f"<GetCallerIdentityResult>{body}</GetCallerIdentityResult>"
    return f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>".encode()


def error(service: str, code: str, message: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of an error: in JSON, or as S3 writes it, and STS in a wrapper."""
    if service not in XML:
        return {"x-amzn-ErrorType": code}, json.dumps({"__type": code, "message": message}).encode()
    text = escape(NO_XML.sub("?", message))
    body = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
    return {}, (f"<ErrorResponse>{body}</ErrorResponse>" if service == "sts" else body).encode()
