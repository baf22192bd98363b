"""The embedded S3: boto3's own client, whose calls for the account's buckets are answered from a folder.

So pages, waiters, ``upload_file``, ``s3.exceptions`` and the checks of requests are boto3's. Reading a bucket that the
account does not have goes out to AWS, unsigned: public data need no account. Versions, locks, ACLs, policies and
encryption are not kept.

https://docs.aws.amazon.com/AmazonS3/latest/API/
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genokit.local import shapes
from genokit.local.s3 import calls, uploads
from genokit.local.s3.calls import Answer, Request
from genokit.local.s3.objects import Objects
from genokit.local.shapes import Refused
from genokit.local.store import unusable

REGION = "us-east-1"
# What is read of other people's buckets goes out; all else of a bucket that is not here is refused here.
PUBLIC = ("GetObject", "HeadObject", "ListObjects", "ListObjectsV2", "GetObjectAttributes")

OPERATIONS: dict[str, Callable[[Objects, Request], Answer]] = {
    "".join(word.title() for word in operation.__name__.split("_")): operation
    for operation in (
        calls.create_bucket,
        calls.list_buckets,
        calls.head_bucket,
        calls.delete_bucket,
        calls.put_object,
        calls.get_object,
        calls.head_object,
        calls.delete_object,
        calls.delete_objects,
        calls.copy_object,
        calls.list_objects,
        calls.list_objects_v2,
        calls.list_object_versions,
        uploads.create_multipart_upload,
        uploads.upload_part,
        uploads.upload_part_copy,
        uploads.complete_multipart_upload,
        uploads.abort_multipart_upload,
    )
}


def client(home: Path, environment: Mapping[str, str]) -> Any:
    """The client. ``environment`` are the settings' variables: region and patience of what goes out to AWS."""
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    timeout_s = float(environment.get("GENOKIT_TIMEOUT_S", 10))
    # What goes out goes to AWS, also where a door is everybody else's endpoint.
    config = Config(signature_version=UNSIGNED, connect_timeout=timeout_s, read_timeout=timeout_s,
                    retries={"total_max_attempts": 1}, ignore_configured_endpoint_urls=True)  # fmt: skip
    # Nobody's profile is looked for: it may be missing, and nothing is signed.
    session = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
    made = boto3.Session(botocore_session=session).client(
        "s3", region_name=environment.get("GENOKIT_REGION", REGION), config=config
    )
    made.meta.events.register_last("before-parameter-build.s3", _remember)
    made.meta.events.register_first("before-call.s3", functools.partial(_answer, Objects(home)))
    return made


def _remember(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    context["genokit_request"] = params


def _answer(objects: Objects, model: Any, context: dict[str, Any], **_: Any) -> tuple[Any, dict[str, Any]] | None:
    """The answer where it is the account's to give; None lets the request go out."""
    from botocore.awsrequest import AWSResponse

    request, bucket = context["genokit_request"], context["genokit_request"].get("Bucket")
    try:
        if model.name == "CreateBucket":
            status, response = calls.create_bucket(objects, request)
        elif bucket is not None and not objects.has(bucket):
            if model.name in PUBLIC:
                return None
            raise Refused(404, "NoSuchBucket", f"The embedded account has no bucket '{bucket}'.")
        elif model.name not in OPERATIONS:
            raise NotImplementedError(
                f"The embedded account does not offer s3's {model.name}. It is there with backend = 'aws'."
            )
        else:
            status, response = OPERATIONS[model.name](objects, request)
    except Refused as refusal:
        # An answer to HEAD has no body that could say more.
        code = str(refusal.status) if model.name.startswith("Head") else refusal.code
        status, response = refusal.status, {"Error": {"Code": code, "Message": str(refusal)}}
    except OSError as error:
        raise unusable(objects.root, error) from error
    else:
        shapes.check_response(model, response)
    response["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0}
    return AWSResponse("", status, {}, None), response
