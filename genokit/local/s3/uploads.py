"""What the embedded S3 answers to uploads in parts, which boto3 makes of every large file."""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genokit.files import write_atomic
from genokit.local.s3.calls import Answer, Part, Request, byte_range, checked_key, kept, opened_object, source
from genokit.local.s3.objects import CHUNK, Objects
from genokit.local.shapes import Refused

UPLOADS = ".uploads"
PARTS = range(1, 10_001)


def create_multipart_upload(objects: Objects, request: Request) -> Answer:
    """Begin an upload in parts."""
    key, upload = checked_key(request["Key"]), secrets.token_hex(16)
    folder = objects.root / UPLOADS / upload
    write_atomic(folder / "about", json.dumps([request["Bucket"], key, kept(request)]), private=True)
    return {"Bucket": request["Bucket"], "Key": key, "UploadId": upload}


def upload_part(objects: Objects, request: Request) -> Answer:
    """Take in one part; the last one sent under a number counts."""
    return {"ETag": _take_part(objects, request, request.get("Body", b""))}


def upload_part_copy(objects: Objects, request: Request) -> Answer:
    """Take in one part from another object of this account."""
    opened, found = opened_object(objects, *source(objects, request["CopySource"]))
    with opened:
        start, end = byte_range(request.get("CopySourceRange", ""), found.size)
        opened.seek(start)
        etag = _take_part(objects, request, io.BufferedReader(Part(opened, end - start)))
    return {"CopyPartResult": {"ETag": etag, "LastModified": found.modified}}


def complete_multipart_upload(objects: Objects, request: Request) -> Answer:
    """Make the parts, in the order of their numbers, one object."""
    folder, about = _upload(request, objects)
    parts = request.get("MultipartUpload", {}).get("Parts", [])
    numbers = [part["PartNumber"] for part in parts]
    if not parts or numbers != sorted(set(numbers)):
        raise Refused(400, "InvalidPartOrder" if parts else "MalformedXML", "Parts must be in ascending order.")
    files = []
    for part in parts:
        etag = part.get("ETag", "").strip('"')
        file = folder / f"{part['PartNumber']}-{etag}"
        if not re.fullmatch("[0-9a-f]{32}", etag) or not file.is_file():
            raise Refused(400, "InvalidPart", f"There is no part {part['PartNumber']} with ETag '{etag}'.")
        files.append(file)
    digest = hashlib.md5(b"".join(bytes.fromhex(file.name.partition("-")[2]) for file in files), usedforsecurity=False)
    received, _ = objects.receive(_joined(files))
    etag = f"{digest.hexdigest()}-{len(files)}"
    made = objects.place(request["Bucket"], request["Key"], received, etag, about)
    shutil.rmtree(folder, ignore_errors=True)
    return {"Bucket": request["Bucket"], "Key": request["Key"], "ETag": f'"{made.etag}"'}


def abort_multipart_upload(objects: Objects, request: Request) -> Answer:
    """Forget an upload in parts."""
    shutil.rmtree(_upload(request, objects)[0], ignore_errors=True)
    return {}


def _upload(request: Request, objects: Objects) -> tuple[Path, dict[str, Any]]:
    folder = objects.root / UPLOADS / request["UploadId"]
    if re.fullmatch("[0-9a-f]{32}", request["UploadId"]) and folder.is_dir():
        bucket, key, about = json.loads((folder / "about").read_text())
        if (bucket, key) == (request["Bucket"], request["Key"]):
            return folder, about
    raise Refused(404, "NoSuchUpload", f"There is no upload '{request['UploadId']}' of '{request['Key']}'.")


def _take_part(objects: Objects, request: Request, body: Any) -> str:
    folder, _ = _upload(request, objects)
    number = request["PartNumber"]
    if number not in PARTS:
        raise Refused(400, "InvalidArgument", f"PartNumber: {number} is not in {PARTS.start} to {PARTS.stop - 1}")
    received, md5 = objects.receive(body)
    for older in folder.glob(f"{number}-*"):
        older.unlink(missing_ok=True)
    received.replace(folder / f"{number}-{md5}")
    return f'"{md5}"'


def _joined(files: list[Path]) -> Iterator[bytes]:
    """The bytes of files, one after the other, in pieces."""
    for file in files:
        with file.open("rb") as opened:
            yield from iter(lambda: opened.read(CHUNK), b"")
