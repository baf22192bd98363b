"""The embedded S3: calls for the account's buckets are answered from a folder.

Reading a bucket that the account does not have goes out to AWS, unsigned: public data need no account. Versions, locks,
ACLs, policies and encryption are not kept.

https://docs.aws.amazon.com/AmazonS3/latest/API/
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from botocore import xform_name

from genokit.local import client, shapes
from genokit.local.s3 import calls, uploads
from genokit.local.s3.calls import Answer, Request
from genokit.local.s3.objects import Objects
from genokit.local.shapes import Refused
from genokit.local.store import unusable

# These go out for buckets that are not here; all other operations are refused.
PUBLIC = ("GetObject", "HeadObject", "ListObjects", "ListObjectsV2", "GetObjectAttributes")

# An operation is a function of these modules that takes the objects and a request alone.
OPERATIONS: dict[str, Callable[[Objects, Request], Answer]] = {
    name: function
    for module in (calls, uploads)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if list(inspect.signature(function).parameters) == ["objects", "request"]
}


def service(home: Path, environment: Mapping[str, str]) -> client.Service:
    """The service of the account in ``home``; reads of buckets that it does not have go out to AWS."""
    objects = Objects(home)

    def answer(model: Any, request: dict[str, Any]) -> dict[str, Any] | None:
        operation, bucket = OPERATIONS.get(xform_name(model.name)), request.get("Bucket")
        if bucket is not None and not objects.has(bucket) and operation is not calls.create_bucket:
            if model.name in PUBLIC:
                return None
            raise no_such_bucket(bucket)
        if operation is None:
            raise client.not_offered(model)
        try:
            response = operation(objects, request)
        except OSError as error:
            raise unusable(objects.root, error) from error
        shapes.check_response(model, response)
        return response

    return answer


def no_such_bucket(bucket: str) -> Refused:
    return Refused(404, "NoSuchBucket", f"The embedded account has no bucket '{bucket}'.")
