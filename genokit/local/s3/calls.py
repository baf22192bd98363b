"""What the embedded S3 answers to calls for buckets, objects and lists; ``objects`` keeps them on disk."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import quote, unquote

from genokit.local.s3.objects import NAME, Objects, StoredObject
from genokit.local.shapes import Refused

KEPT = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Metadata")
KEY_BYTES = 1024
PAGE = 1000

Request = Mapping[str, Any]
Answer = dict[str, Any]


# --- buckets


def create_bucket(objects: Objects, request: Request) -> Answer:
    """A new bucket of this account."""
    bucket = request["Bucket"]
    if not NAME.fullmatch(bucket):
        raise Refused(400, "InvalidBucketName", f"'{bucket}': a bucket's name is 3 to 63 of a-z, 0-9, '.' and '-'.")
    if objects.has(bucket):
        raise Refused(409, "BucketAlreadyOwnedByYou", f"The embedded account already has a bucket '{bucket}'.")
    objects.create(bucket)
    return {"Location": f"/{bucket}"}


def list_buckets(objects: Objects, request: Request) -> Answer:
    """All buckets, on one page."""
    return {"Buckets": [{"Name": name, "CreationDate": made} for name, made in objects.buckets().items()]}


def head_bucket(objects: Objects, request: Request) -> Answer:
    """Whether the bucket is there."""
    return {"BucketRegion": "local"}


def delete_bucket(objects: Objects, request: Request) -> Answer:
    """Remove an empty bucket; the one that every account has is there again at once."""
    if not objects.remove(request["Bucket"]):
        raise Refused(409, "BucketNotEmpty", f"The bucket '{request['Bucket']}' is not empty.")
    return {}


# --- objects


def put_object(objects: Objects, request: Request) -> Answer:
    """Store an object whole; with IfNoneMatch='*' only where there is none, with IfMatch only over that one."""
    key, body = checked_key(request["Key"]), request.get("Body", b"")

    def allowed(old: StoredObject | None) -> None:
        if request.get("IfNoneMatch") == "*" and old:
            raise Refused(412, "PreconditionFailed", f"There already is an object '{key}'.")
        if "IfMatch" in request and (old is None or request["IfMatch"].strip('"') != old.etag):
            raise Refused(412, "PreconditionFailed", f"The object '{key}' has changed, or is not there.")

    found = objects.place(request["Bucket"], key, *objects.receive(body), kept(request), allowed=allowed)
    return {"ETag": f'"{found.etag}"'}


def get_object(objects: Objects, request: Request) -> Answer:
    """An object, or a range of its bytes, as a stream."""
    from botocore.response import StreamingBody

    opened, found = opened_object(objects, request["Bucket"], request["Key"])
    try:
        _check_conditions(request, found)
        start, end = byte_range(request.get("Range", ""), found.size)
    except Refused:
        opened.close()
        raise
    length = end - start
    partial = {"ContentRange": f"bytes {start}-{end - 1}/{found.size}"} if request.get("Range") else {}
    opened.seek(start)
    body = StreamingBody(io.BufferedReader(Part(opened, length)), length)
    return {**_metadata(found), "ContentLength": length, **partial, "Body": body}


def head_object(objects: Objects, request: Request) -> Answer:
    """What is known of an object."""
    opened, found = opened_object(objects, request["Bucket"], request["Key"])
    opened.close()
    _check_conditions(request, found)
    return {**_metadata(found), "ContentLength": found.size}


def delete_object(objects: Objects, request: Request) -> Answer:
    """Delete an object; that there was none is no error."""
    _check_version(request)
    objects.delete(request["Bucket"], checked_key(request["Key"]))
    return {}


def delete_objects(objects: Objects, request: Request) -> Answer:
    """Delete several objects."""
    wanted = request["Delete"]["Objects"]
    for one in wanted:
        delete_object(objects, {**one, "Bucket": request["Bucket"]})
    return {} if request["Delete"].get("Quiet") else {"Deleted": [{"Key": one["Key"]} for one in wanted]}


def copy_object(objects: Objects, request: Request) -> Answer:
    """Copy an object of this account, with what is known of it unless MetadataDirective is REPLACE."""
    bucket, key = source(objects, request["CopySource"])
    replace = request.get("MetadataDirective") == "REPLACE"
    opened, found = opened_object(objects, bucket, key)
    with opened:
        file, etag = objects.receive(opened)
    about = kept(request) if replace else found.about
    made = objects.place(request["Bucket"], checked_key(request["Key"]), file, etag, about)
    return {"CopyObjectResult": {"ETag": f'"{made.etag}"', "LastModified": made.modified}}


# --- lists


def list_objects_v2(objects: Objects, request: Request) -> Answer:
    """One page of keys in the order of their bytes, those with a delimiter as one common prefix."""
    after = unquote(request.get("ContinuationToken", "")) or request.get("StartAfter", "")
    response, page, last = _page(objects, request, after)
    return {
        **response,
        "KeyCount": len(page) + len(response.get("CommonPrefixes", [])),
        **({"Contents": [_listed(one) for one in page]} if page else {}),
        **({"NextContinuationToken": quote(last)} if last is not None else {}),
    }


def list_objects(objects: Objects, request: Request) -> Answer:
    """The same in S3's older words, which boto3's resources still use."""
    response, page, last = _page(objects, request, request.get("Marker", ""))
    response |= {"Marker": request.get("Marker", "")} | ({"NextMarker": last} if last is not None else {})
    return response | ({"Contents": [_listed(one) for one in page]} if page else {})


def list_object_versions(objects: Objects, request: Request) -> Answer:
    """One page of the objects, each as its only version."""
    response, page, last = _page(objects, request, request.get("KeyMarker", ""))
    return {
        **response,
        **({"Versions": [{**_listed(one), "VersionId": "null", "IsLatest": True} for one in page]} if page else {}),
        **({"NextKeyMarker": last, "NextVersionIdMarker": "null"} if last is not None else {}),
    }


def _page(objects: Objects, request: Request, after: str) -> tuple[dict[str, Any], list[StoredObject], str | None]:
    """What every list says of one page, the page's objects, and its last name where there is more."""
    bucket, prefix, delimiter = request["Bucket"], request.get("Prefix", ""), request.get("Delimiter", "")
    most = min(request.get("MaxKeys", PAGE), PAGE)
    if most < 0:
        raise Refused(400, "InvalidArgument", f"MaxKeys: {most} is less than 0.")
    found: list[StoredObject] = []
    prefixes: list[str] = []
    last, more = None, False
    for key in objects.keys(bucket, prefix):
        common = key[: cut + len(delimiter)] if delimiter and (cut := key.find(delimiter, len(prefix))) >= 0 else None
        name = key if common is None else common
        if name.encode() <= after.encode() or common in prefixes[-1:]:
            continue
        if len(found) + len(prefixes) == most:
            more = most > 0
            break
        if common is None:
            try:
                found.append(objects.find(bucket, key))
            except FileNotFoundError:  # deleted meanwhile
                continue
        else:
            prefixes.append(common)
        last = name
    response = {
        "Name": bucket,
        "Prefix": prefix,
        "MaxKeys": request.get("MaxKeys", PAGE),
        "IsTruncated": more,
        **({"Delimiter": delimiter} if delimiter else {}),
        **({"CommonPrefixes": [{"Prefix": one} for one in prefixes]} if prefixes else {}),
    }
    return response, found, last if more else None


def _listed(found: StoredObject) -> dict[str, Any]:
    return {
        "Key": found.key,
        "LastModified": found.modified,
        "ETag": f'"{found.etag}"',
        "Size": found.size,
        "StorageClass": "STANDARD",
    }


# --- parts of requests and answers


def checked_key(key: str) -> str:
    if len(key.encode()) > KEY_BYTES:
        raise Refused(400, "KeyTooLongError", f"A key has at most {KEY_BYTES} bytes, this one {len(key.encode())}.")
    return key


def _check_version(request: Request) -> None:
    if request.get("VersionId", "null") != "null":
        raise Refused(404, "NoSuchVersion", f"'{request['Key']}' has no version but 'null': none are kept.")


def opened_object(objects: Objects, bucket: str, key: str) -> tuple[IO[bytes], StoredObject]:
    try:
        return objects.open(bucket, checked_key(key))
    except FileNotFoundError:
        raise Refused(404, "NoSuchKey", f"There is no object '{key}'.") from None


def source(objects: Objects, copied: str) -> tuple[str, str]:
    """Bucket and key of what is to be copied."""
    bucket, _, key = unquote(copied.partition("?versionId=")[0]).removeprefix("/").partition("/")
    if not objects.has(bucket):
        raise Refused(404, "NoSuchBucket", f"The embedded account has no bucket '{bucket}' to copy from.")
    return bucket, key


def kept(request: Request) -> dict[str, Any]:
    kept = {name: request[name] for name in KEPT if request.get(name)}
    if "Metadata" in kept:  # as HTTP sends them, in headers
        kept["Metadata"] = {name.lower(): value for name, value in kept["Metadata"].items()}
    return kept


def _metadata(found: StoredObject) -> dict[str, Any]:
    about = {"ContentType": "binary/octet-stream", "Metadata": {}, **found.about}
    return {"AcceptRanges": "bytes", "ETag": f'"{found.etag}"', "LastModified": found.modified, **about}


def _check_conditions(request: Request, found: StoredObject) -> None:
    _check_version(request)
    if request.get("IfMatch", "*").strip('"') not in ("*", found.etag):  # boto3 asks it of a large object's parts
        raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions did not hold.")


def byte_range(text: str, size: int) -> tuple[int, int]:
    """First byte, and the one after the last, of ``bytes=0-9``, ``bytes=5-`` or ``bytes=-5``; without a range, all.

    >>> byte_range("bytes=2-3", 10), byte_range("bytes=-3", 10), byte_range("bytes=8-99", 10), byte_range("", 10)
    ((2, 4), (7, 10), (8, 10), (0, 10))
    """
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", text)
    if not match or match[0] == "bytes=-":
        return 0, size
    first, last = match[1], match[2]
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= size or start >= end:
        raise Refused(416, "InvalidRange", f"{text} is not in the object's {size} bytes.")
    return start, end


class Part(io.RawIOBase):
    """The next ``length`` bytes of a file."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file, self._left = file, length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
