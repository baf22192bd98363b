"""The embedded S3, inside and through the door, beside moto's: the same calls, the same answers.

Then what only a folder on a disk has to keep.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.exceptions import ClientError, ParamValidationError
from embedded import Box, served, through
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from genokit import Settings, backends
from genokit.errors import GenokitError
from genokit.local.s3.objects import Objects, key_of, path_of

BIG = bytes(range(256)) * 4 * 1024 * 20  # 20 MiB: three parts for boto3
PART = 5 * 1024 * 1024  # the least that S3 takes, but for the last part
HARD_KEYS = [
    *(
        "a",
        "a/b",
        "a//b",
        "/a",
        "a/",
        "//",
        "../../a",
        "./a",
        ".",
        "..",
        ".a",
        "a/../a",
        "é/日本 ?&%2F+=",
        "a=/b",
        "%2F",
    ),
    *("A", "x" * 1024, "é" * 512, "/" * 1024, "a/" * 512, " /" * 512, "\n", "a\\b", "con", "~"),
]


@pytest.fixture
def through_door(account):
    """boto3's client through the door."""
    with served(account) as door, through(door) as clients:
        yield clients.s3


@pytest.fixture(params=["embedded", "door", "moto"])
def s3(request, account, monkeypatch):
    """A client, and in its account the bucket 'lab'."""
    if request.param == "door":
        client = request.getfixturevalue("through_door")
        client.create_bucket(Bucket="lab", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client
        return
    with mock_aws():  # moto also answers what the embedded client lets out
        if request.param == "moto":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
            client = boto3.client("s3", region_name="eu-central-1")
        else:
            client = backends.clients(account).s3
        client.create_bucket(Bucket="lab", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client


@pytest.fixture
def embedded(account):
    return backends.clients(account).s3


def refusal(call, **request) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return caught.value.response["Error"]["Code"], caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def content(s3, key: str, **request) -> bytes:
    return bytes(s3.get_object(Bucket="lab", Key=key, **request)["Body"].read())


def keys(s3, **request) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="lab", **request)
    return [one["Key"] for page in pages for one in page.get("Contents", [])]


# --- the same here and there


def test_an_object_comes_back_as_it_was_told(s3):
    begun = time.time()
    told = s3.put_object(
        Bucket="lab",
        Key="a/b.csv",
        Body=b"x,y",
        ContentType="text/csv",
        Metadata={"Run": "7"},
        CacheControl="no-store",
    )
    etag = f'"{hashlib.md5(b"x,y").hexdigest()}"'
    assert told["ETag"] == etag
    for answer in (s3.get_object(Bucket="lab", Key="a/b.csv"), s3.head_object(Bucket="lab", Key="a/b.csv")):
        assert (answer["ETag"], answer["ContentLength"], answer["ContentType"]) == (etag, 3, "text/csv")
        assert answer["Metadata"] == {"run": "7"}
        assert answer["CacheControl"] == "no-store"
        assert answer["AcceptRanges"] == "bytes"
        assert begun - 1 <= answer["LastModified"].timestamp() <= time.time()  # it has whole seconds
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    s3.put_object(Bucket="lab", Key="a/b.csv", Body="text")
    answer = s3.get_object(Bucket="lab", Key="a/b.csv")
    assert (answer["Body"].read(), answer["ContentType"], answer["Metadata"]) == (b"text", "binary/octet-stream", {})
    s3.put_object(Bucket="lab", Key="empty")
    assert content(s3, "empty") == b""


def test_the_body_is_a_stream(s3):
    s3.put_object(Bucket="lab", Key="a", Body=io.BytesIO(b"0123456789\nab"))
    body = s3.get_object(Bucket="lab", Key="a")["Body"]
    assert (body.read(3), body.read(3), body.read(), body.read(1)) == (b"012", b"345", b"6789\nab", b"")
    body.close()
    assert b"".join(s3.get_object(Bucket="lab", Key="a")["Body"].iter_chunks(4)) == b"0123456789\nab"
    assert list(s3.get_object(Bucket="lab", Key="a")["Body"].iter_lines()) == [b"0123456789", b"ab"]
    with s3.get_object(Bucket="lab", Key="a")["Body"] as body:
        assert body.read() == b"0123456789\nab"


@pytest.mark.parametrize(
    ("asked", "bytes_", "told"),
    [
        ("bytes=2-3", b"23", "bytes 2-3/10"),
        ("bytes=8-", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=5-99", b"56789", "bytes 5-9/10"),
    ],
)
def test_a_range_of_an_object(s3, asked, bytes_, told):
    s3.put_object(Bucket="lab", Key="a", Body=b"0123456789")
    answer = s3.get_object(Bucket="lab", Key="a", Range=asked)
    assert answer["Body"].read() == bytes_
    assert (answer["ContentRange"], answer["ContentLength"]) == (told, len(bytes_))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206


def test_a_range_behind_the_end_is_refused(s3):
    s3.put_object(Bucket="lab", Key="a", Body=b"0123456789")
    assert refusal(s3.get_object, Bucket="lab", Key="a", Range="bytes=10-") == ("InvalidRange", 416)


def test_what_is_not_there(s3):
    assert refusal(s3.get_object, Bucket="lab", Key="a") == ("NoSuchKey", 404)
    assert refusal(s3.head_object, Bucket="lab", Key="a") == ("404", 404)
    assert refusal(s3.get_object, Bucket="nowhere", Key="a") == ("NoSuchBucket", 404)
    assert refusal(s3.put_object, Bucket="nowhere", Key="a", Body=b"") == ("NoSuchBucket", 404)
    assert refusal(s3.list_objects_v2, Bucket="nowhere") == ("NoSuchBucket", 404)
    assert refusal(s3.head_bucket, Bucket="nowhere") == ("404", 404)
    assert refusal(s3.delete_bucket, Bucket="nowhere") == ("NoSuchBucket", 404)
    assert s3.delete_object(Bucket="lab", Key="a")["ResponseMetadata"]["HTTPStatusCode"] == 204
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket="lab", Key="a")
    with pytest.raises(ParamValidationError):
        s3.get_object(Bucket="lab")


def test_buckets_are_made_listed_and_removed_when_empty(s3):
    s3.create_bucket(Bucket="other.lab-7", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    assert {"lab", "other.lab-7"} <= {one["Name"] for one in s3.list_buckets()["Buckets"]}
    asked = {"Bucket": "lab", "CreateBucketConfiguration": {"LocationConstraint": "eu-central-1"}}
    assert refusal(s3.create_bucket, **asked) == ("BucketAlreadyOwnedByYou", 409)
    s3.put_object(Bucket="other.lab-7", Key="a", Body=b"")
    assert refusal(s3.delete_bucket, Bucket="other.lab-7") == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket="other.lab-7", Key="a")
    s3.delete_bucket(Bucket="other.lab-7")
    assert refusal(s3.head_bucket, Bucket="other.lab-7") == ("404", 404)
    s3.get_waiter("bucket_exists").wait(Bucket="lab")
    s3.get_waiter("bucket_not_exists").wait(Bucket="other.lab-7")


def test_lists_are_in_the_order_of_bytes_and_come_in_pages(s3):
    names = ["b", "a/2", "a/10", "a", "Z", "é", "a/b/c", "\U0001f9ec", "～"]
    for name in names:
        s3.put_object(Bucket="lab", Key=name, Body=b"12")
    ordered = sorted(names, key=str.encode)
    page = s3.list_objects_v2(Bucket="lab")
    assert [one["Key"] for one in page["Contents"]] == ordered
    assert (page["KeyCount"], page["IsTruncated"], page["MaxKeys"]) == (9, False, 1000)
    one = page["Contents"][0]
    assert (one["Size"], one["StorageClass"]) == (2, "STANDARD")
    assert one["ETag"] == s3.head_object(Bucket="lab", Key="Z")["ETag"]
    assert keys(s3, PaginationConfig={"PageSize": 2}) == ordered
    assert keys(s3, Prefix="a/") == ["a/10", "a/2", "a/b/c"]
    assert keys(s3, Prefix="a/b/c") == ["a/b/c"]
    assert keys(s3, Prefix="nothing") == []
    assert keys(s3, StartAfter="a/2") == ["a/b/c", "b", "é", "～", "\U0001f9ec"]
    first = s3.list_objects_v2(Bucket="lab", MaxKeys=4)
    assert (first["IsTruncated"], first["KeyCount"]) == (True, 4)


def test_the_older_list_tells_the_same_page_by_page(s3):
    for key in ("a/1", "a/2", "b", "c é", "d"):
        s3.put_object(Bucket="lab", Key=key, Body=b"")
    pages = list(s3.get_paginator("list_objects").paginate(Bucket="lab", PaginationConfig={"PageSize": 2}))
    assert [[one["Key"] for one in page["Contents"]] for page in pages] == [["a/1", "a/2"], ["b", "c é"], ["d"]]
    assert [page["IsTruncated"] for page in pages] == [True, True, False]
    folded = s3.list_objects(Bucket="lab", Delimiter="/", Marker="a/2")
    assert [one["Key"] for one in folded["Contents"]] == ["b", "c é", "d"]
    assert s3.list_objects(Bucket="lab", Delimiter="/")["CommonPrefixes"] == [{"Prefix": "a/"}]


def test_a_delimiter_folds_what_lies_behind_it(s3):
    for name in ["a", "a/1", "a/2", "b/1", "c"]:
        s3.put_object(Bucket="lab", Key=name, Body=b"")
    page = s3.list_objects_v2(Bucket="lab", Delimiter="/")
    assert [one["Key"] for one in page["Contents"]] == ["a", "c"]
    assert [one["Prefix"] for one in page["CommonPrefixes"]] == ["a/", "b/"]
    pages = list(
        s3.get_paginator("list_objects_v2").paginate(Bucket="lab", Delimiter="/", PaginationConfig={"PageSize": 1})
    )
    assert [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", [])] == ["a/", "b/"]
    assert [one["Key"] for page in pages for one in page.get("Contents", [])] == ["a", "c"]
    inside = s3.list_objects_v2(Bucket="lab", Delimiter="/", Prefix="a/")
    assert [one["Key"] for one in inside["Contents"]] == ["a/1", "a/2"]
    assert "CommonPrefixes" not in inside


def test_each_object_is_its_own_only_version(s3):
    for number in range(5):
        s3.put_object(Bucket="lab", Key=f"a/{number}", Body=b"")
    pages = s3.get_paginator("list_object_versions").paginate(Bucket="lab", PaginationConfig={"PageSize": 2})
    found = [one for page in pages for one in page.get("Versions", [])]
    assert [(one["Key"], one["VersionId"], one["IsLatest"]) for one in found] == [
        (f"a/{number}", "null", True) for number in range(5)
    ]
    doomed = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
    answer = s3.delete_objects(Bucket="lab", Delete={"Objects": doomed})
    assert sorted(one["Key"] for one in answer["Deleted"]) == [f"a/{number}" for number in range(5)]
    assert "Errors" not in answer
    assert keys(s3) == []


def test_a_copy_has_the_metadata_or_new_ones(s3):
    s3.put_object(Bucket="lab", Key="a ü", Body=b"12", Metadata={"run": "7"}, ContentType="text/csv")
    told = s3.copy_object(Bucket="lab", Key="b", CopySource={"Bucket": "lab", "Key": "a ü"})
    assert told["CopyObjectResult"]["ETag"] == s3.head_object(Bucket="lab", Key="a ü")["ETag"]
    head = s3.head_object(Bucket="lab", Key="b")
    assert (head["Metadata"], head["ContentType"]) == ({"run": "7"}, "text/csv")
    s3.copy_object(Bucket="lab", Key="b", CopySource="lab/a ü", MetadataDirective="REPLACE", Metadata={"x": "y"})
    assert s3.head_object(Bucket="lab", Key="b")["Metadata"] == {"x": "y"}
    assert content(s3, "b") == b"12"
    assert refusal(s3.copy_object, Bucket="lab", Key="b", CopySource="lab/none")[0] == "NoSuchKey"


def test_conditions_are_held(s3):
    etag = s3.put_object(Bucket="lab", Key="a", Body=b"1", IfNoneMatch="*")["ETag"]
    assert refusal(s3.put_object, Bucket="lab", Key="a", Body=b"2", IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert content(s3, "a", IfMatch=etag) == b"1"
    assert refusal(s3.get_object, Bucket="lab", Key="a", IfMatch='"other"') == ("PreconditionFailed", 412)
    assert refusal(s3.put_object, Bucket="lab", Key="a", Body=b"2", IfMatch='"other"') == ("PreconditionFailed", 412)
    s3.put_object(Bucket="lab", Key="a", Body=b"2", IfMatch=etag)
    assert content(s3, "a") == b"2"


def test_large_files_go_up_and_come_down_with_progress(s3, tmp_path):
    (tmp_path / "big").write_bytes(BIG)
    seen: list[int] = []
    s3.upload_file(str(tmp_path / "big"), "lab", "big", ExtraArgs={"Metadata": {"run": "7"}}, Callback=seen.append)
    assert s3.head_object(Bucket="lab", Key="big")["Metadata"] == {"run": "7"}
    assert s3.head_object(Bucket="lab", Key="big")["ETag"].endswith('-3"')
    s3.download_file("lab", "big", str(tmp_path / "again"), Callback=seen.append)
    assert (tmp_path / "again").read_bytes() == BIG
    s3.copy({"Bucket": "lab", "Key": "big"}, "lab", "copy")
    into = io.BytesIO()
    s3.download_fileobj("lab", "copy", into)
    assert into.getvalue() == BIG
    s3.upload_fileobj(io.BytesIO(b"small"), "lab", "small", Callback=seen.append)
    assert content(s3, "small") == b"small"
    assert sum(seen) == 2 * len(BIG) + 5


def test_an_upload_in_parts(s3):
    upload = s3.create_multipart_upload(Bucket="lab", Key="a", ContentType="text/plain")["UploadId"]
    told = {"Bucket": "lab", "Key": "a", "UploadId": upload}
    s3.upload_part(**told, PartNumber=1, Body=b"lost")
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**told, PartNumber=number, Body=body)["ETag"]}
        for number, body in [(3, b"end"), (1, b"x" * PART), (2, b"y" * PART)]
    ]
    assert keys(s3) == []
    s3.complete_multipart_upload(**told, MultipartUpload={"Parts": [parts[1], parts[2], parts[0]]})
    assert content(s3, "a") == b"x" * PART + b"y" * PART + b"end"
    assert s3.head_object(Bucket="lab", Key="a")["ContentType"] == "text/plain"
    upload = s3.create_multipart_upload(Bucket="lab", Key="b")["UploadId"]
    s3.abort_multipart_upload(Bucket="lab", Key="b", UploadId=upload)
    assert keys(s3) == ["a"]


# --- keys and paths, and what moto does not look at


@pytest.mark.parametrize("place", ["embedded", "through_door"])
def test_hard_keys_are_stored_inside_their_bucket_and_found_again(request, place, account):
    embedded = request.getfixturevalue(place)
    for key in HARD_KEYS:
        embedded.put_object(Bucket="genokit", Key=key, Body=key.encode())
    listed = [one["Key"] for one in embedded.list_objects_v2(Bucket="genokit")["Contents"]]
    assert listed == sorted(HARD_KEYS, key=str.encode)
    for key in HARD_KEYS:
        assert embedded.get_object(Bucket="genokit", Key=key)["Body"].read() == key.encode()
        prefixed = [one["Key"] for one in embedded.list_objects_v2(Bucket="genokit", Prefix=key)["Contents"]]
        assert prefixed == [one for one in listed if one.startswith(key)]
    for key in HARD_KEYS:
        embedded.delete_object(Bucket="genokit", Key=key)
        assert refusal(embedded.head_object, Bucket="genokit", Key=key)[0] == "404"
    assert os.listdir(account.home / "s3" / "genokit") == []
    assert {path.name for path in account.home.iterdir()} <= {".gitignore", "s3", "credentials", "door", "door.token"}


def test_names_of_buckets_are_held_to_s3s_rules(embedded):
    for name in ("Lab", "a", "lab_7", "a..b", "-ab", "ab-", "192.168.0.1", "a" * 64):
        assert refusal(embedded.create_bucket, Bucket=name) == ("InvalidBucketName", 400)


@pytest.mark.parametrize("place", ["embedded", "through_door"])
def test_keys_and_parts_are_held_to_s3s_rules(request, place):
    embedded = request.getfixturevalue(place)
    assert refusal(embedded.put_object, Bucket="genokit", Key="é" * 513, Body=b"") == ("KeyTooLongError", 400)
    told = {"Bucket": "genokit", "Key": "a"}
    told["UploadId"] = embedded.create_multipart_upload(**told)["UploadId"]
    assert refusal(embedded.upload_part, **told, PartNumber=10_001, Body=b"")[0] == "InvalidArgument"
    etag = embedded.upload_part(**told, PartNumber=1, Body=b"1")["ETag"]
    for parts, code in (
        ([], "MalformedXML"),
        ([{"PartNumber": 2, "ETag": etag}], "InvalidPart"),
        ([{"PartNumber": 1, "ETag": '"*"'}], "InvalidPart"),
        ([{"PartNumber": 1, "ETag": etag}] * 2, "InvalidPartOrder"),
    ):
        assert refusal(embedded.complete_multipart_upload, **told, MultipartUpload={"Parts": parts}) == (code, 400)
    embedded.abort_multipart_upload(**told)
    assert refusal(embedded.upload_part, **told, PartNumber=1, Body=b"") == ("NoSuchUpload", 404)
    answer = embedded.delete_objects(Bucket="genokit", Delete={"Objects": [{"Key": "a"}], "Quiet": True})
    assert "Deleted" not in answer


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300) | st.text("/.=%aA2F", min_size=1)


@given(KEYS, KEYS)
def test_paths_stay_inside_and_keep_keys_apart(one, other):
    path = path_of(one)
    assert key_of(path) == one
    parts = path.split("/")
    assert path.isascii()
    assert all(part and not part.startswith(".") and len(part) < 256 for part in parts)
    theirs = path_of(other).split("/")
    if one != other:  # neither is the other, nor a folder that the other lies in
        assert parts != theirs[: len(parts)]
        assert theirs != parts[: len(theirs)]


# --- what a folder has to keep


def test_the_account_has_a_bucket_from_its_first_day_that_outlives_its_removal(embedded):
    assert [one["Name"] for one in embedded.list_buckets()["Buckets"]] == ["genokit"]
    embedded.head_bucket(Bucket="genokit")
    embedded.delete_bucket(Bucket="genokit")
    assert "Contents" not in embedded.list_objects_v2(Bucket="genokit")


def test_another_client_another_process_and_a_restart_find_the_objects(embedded, account):
    embedded.put_object(Bucket="genokit", Key="a/b", Body=b"here", Metadata={"run": "7"})
    code = (
        "from genokit import backends; s3 = backends.clients().s3; one = s3.get_object(Bucket='genokit', Key='a/b'); "
        "print(one['Body'].read().decode(), one['Metadata'])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **account.environ()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "here {'run': '7'}\n"


def test_a_job_reads_and_writes_the_same_buckets(embedded, account):
    embedded.put_object(Bucket="genokit", Key="in", Body=b"reads")
    code = (
        "from genokit import backends; s3 = backends.clients().s3; "
        "body = s3.get_object(Bucket='genokit', Key='in')['Body'].read(); "
        "s3.put_object(Bucket='genokit', Key='out', Body=body[::-1])"
    )
    box = Box(account)
    assert box.wait(box.submit(box.define("python", "-c", code)))["status"] == "SUCCEEDED"
    assert embedded.get_object(Bucket="genokit", Key="out")["Body"].read() == b"sdaer"


def test_a_bucket_that_is_no_name_is_no_folder(embedded, account):
    (account.home / "secrets").mkdir(parents=True)
    (account.home / "secrets" / "a").write_text("x")
    for bucket in ("..", ".about", "-a", "a..b"):
        assert refusal(embedded.put_object, Bucket=bucket, Key="secrets/a", Body=b"")[0] == "NoSuchBucket"


def test_writers_at_once_leave_one_whole_object_and_readers_see_no_other(embedded, account):
    bodies = {hashlib.md5(body).hexdigest(): body for body in (bytes([n]) * (100_000 + n) for n in range(4))}
    done = threading.Event()

    def write(body: bytes) -> None:
        mine = backends.clients(account).s3
        for _ in range(25):
            mine.put_object(Bucket="genokit", Key="a", Body=body, Metadata={"size": str(len(body))})

    def read() -> None:
        over = False
        while not over:
            over = done.is_set()
            found = embedded.get_object(Bucket="genokit", Key="a")
            body = found["Body"].read()
            assert bodies[found["ETag"].strip('"')] == body
            assert found["Metadata"] == {"size": str(len(body))}

    write(next(iter(bodies.values())))
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(read)
        list(pool.map(write, bodies.values()))
        done.set()
        reader.result()
    assert os.listdir(account.home / "s3" / ".parts") == []


WRITER = """
import sys
from genokit import backends
s3 = backends.clients().s3
body = sys.argv[1].encode() * 3_000_000
for _ in range(5):
    s3.put_object(Bucket="genokit", Key="a", Body=body, Metadata={"by": sys.argv[1]})
"""


def test_processes_that_write_one_key_leave_one_whole_object(embedded, account):
    environment = {**os.environ, **account.environ()}
    running = [subprocess.Popen([sys.executable, "-c", WRITER, who], env=environment) for who in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    found = embedded.get_object(Bucket="genokit", Key="a")
    who = found["Metadata"]["by"]
    assert found["Body"].read() == who.encode() * 3_000_000


FOREVER = """
import itertools
from genokit import backends
s3 = backends.clients().s3
for number in itertools.count():
    s3.put_object(Bucket="genokit", Key="a", Body=bytes([number % 256]) * 200_000, Metadata={"number": str(number)})
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_object(embedded, account):
    for number in range(5):
        told = {"env": os.environ | account.environ(), "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", FOREVER], **told) as writer:
            assert writer.stdout
            writer.stdout.readline()
            time.sleep(0.013 * number)
            writer.kill()
        found = embedded.get_object(Bucket="genokit", Key="a")
        body = found["Body"].read()
        assert len(body) == 200_000
        assert found["ETag"].strip('"') == hashlib.md5(body).hexdigest()
        if found["Metadata"]:  # lost where the kill came between the object and what lies beside it
            assert body == bytes([int(found["Metadata"]["number"]) % 256]) * 200_000
    embedded.put_object(Bucket="genokit", Key="a", Body=b"after")
    assert embedded.get_object(Bucket="genokit", Key="a")["Body"].read() == b"after"


def test_only_one_of_many_is_the_first(embedded, account):
    def first(number: int) -> bool:
        try:
            embedded.put_object(Bucket="genokit", Key="lock", Body=str(number), IfNoneMatch="*")
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(first, range(20))) == 1


def test_a_body_that_breaks_off_leaves_the_old_object(embedded, account):
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ValueError("broke off")

    embedded.put_object(Bucket="genokit", Key="a", Body=b"old")
    with pytest.raises(ValueError, match="broke off"):
        embedded.put_object(Bucket="genokit", Key="a", Body=Broken())
    assert embedded.get_object(Bucket="genokit", Key="a")["Body"].read() == b"old"
    assert os.listdir(account.home / "s3" / ".parts") == []


def test_an_open_body_stays_whole_when_the_object_is_replaced_or_deleted(embedded):
    embedded.put_object(Bucket="genokit", Key="a", Body=b"old" * 100_000)
    body = embedded.get_object(Bucket="genokit", Key="a")["Body"]
    embedded.put_object(Bucket="genokit", Key="a", Body=b"new")
    embedded.delete_object(Bucket="genokit", Key="a")
    assert body.read() == b"old" * 100_000


def test_a_large_object_is_never_whole_in_memory(embedded, tmp_path):
    import tracemalloc

    with (tmp_path / "big").open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    embedded.list_buckets()
    tracemalloc.start()
    with (tmp_path / "big").open("rb") as file:
        embedded.put_object(Bucket="genokit", Key="big", Body=file)
    body = embedded.get_object(Bucket="genokit", Key="big")["Body"]
    assert sum(map(len, body.iter_chunks(1024 * 1024))) == 200 * 1024 * 1024
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * 1024 * 1024


def test_what_lies_beside_an_object_counts_only_while_it_fits(embedded, account):
    embedded.put_object(Bucket="genokit", Key="a", Body=b"old", Metadata={"run": "7"})
    (account.home / "s3" / "genokit" / "a").write_bytes(b"by another program")
    head = embedded.head_object(Bucket="genokit", Key="a")
    assert head["ETag"].strip('"') == hashlib.md5(b"by another program").hexdigest()
    assert (head["Metadata"], head["ContentLength"]) == ({}, 18)
    (account.home / "s3" / "genokit" / "no key's name.txt").write_text("x")
    assert [one["Key"] for one in embedded.list_objects_v2(Bucket="genokit")["Contents"]] == ["a"]


def test_what_writers_left_behind_is_swept_after_a_day(embedded, account):
    parts = account.home / "s3" / ".parts"
    parts.mkdir(parents=True)
    for name, age_s in (("old", 25 * 3600), ("new", 60)):
        (parts / name).write_text("half")
        os.utime(parts / name, (time.time() - age_s,) * 2)
    embedded.put_object(Bucket="genokit", Key="a", Body=b"")
    assert os.listdir(parts) == ["new"]


def test_what_the_account_does_not_offer_says_so(embedded):
    with pytest.raises(NotImplementedError, match=r"s3's PutBucketPolicy.*backend = 'aws'"):
        embedded.put_bucket_policy(Bucket="genokit", Policy=json.dumps({}))


def test_a_folder_that_cannot_be_used_is_an_error_that_names_it(tmp_path):
    (tmp_path / "account").write_text("a file")
    with pytest.raises(GenokitError, match=r"account.*cannot be used"):
        backends.clients(Settings(home=tmp_path / "account")).s3.put_object(Bucket="genokit", Key="a", Body=b"")


def test_a_missing_profile_is_nothing_to_an_embedded_account(account, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody-has-this")
    backends.clients(account).s3.list_buckets()


@pytest.fixture
def public(monkeypatch) -> Iterator[None]:
    """A bucket of somebody else, on AWS as moto plays it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with mock_aws():
        theirs = boto3.client("s3", region_name="us-east-1")
        theirs.create_bucket(Bucket="open-data")
        theirs.put_object(Bucket="open-data", Key="a", Body=b"public", ACL="public-read")
        yield


@pytest.mark.usefixtures("public")
def test_reading_other_buckets_goes_out_and_writing_does_not(embedded):
    assert embedded.get_object(Bucket="open-data", Key="a")["Body"].read() == b"public"
    assert embedded.head_object(Bucket="open-data", Key="a")["ContentLength"] == 6
    assert refusal(embedded.put_object, Bucket="open-data", Key="b", Body=b"") == ("NoSuchBucket", 404)
    assert refusal(embedded.delete_object, Bucket="open-data", Key="a") == ("NoSuchBucket", 404)
    embedded.create_bucket(Bucket="open-data")
    assert refusal(embedded.get_object, Bucket="open-data", Key="a") == ("NoSuchKey", 404)


def test_a_thousand_objects_are_listed_within_a_second_of_the_processor(account):
    objects = Objects(account.home)
    for number in range(1000):
        file = account.home / "s3" / "genokit" / path_of(f"runs/{number % 10}/{number}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    start = time.thread_time()
    assert len(objects.keys("genokit", "runs/")) == 1000
    assert time.thread_time() - start < 1
