"""Files by address behave alike on this machine and on S3."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from genokit import backends, storage
from genokit.config import Settings
from genokit.errors import ConfigError, InvalidParameters, InvalidRequest, NotFound


@pytest.fixture
def clients(account):
    return backends.clients(account)


@pytest.fixture(params=["folder", "s3"])
def folder(request, tmp_path, clients):
    return str(tmp_path / "results") if request.param == "folder" else f"s3://{clients.bucket}/results"


HOSTILE = ["../up", "a/../../up", "/etc/passwd", "a//b", ".", "", "a\\b", "a\0b", "a/"]


def test_what_is_written_is_read_back_bytes_text_and_streams_alike(folder, clients):
    for data in (b"\x00\r\n", "α\r\n", io.BytesIO(b"stream")):
        address = storage.join(folder, "deep/er/a.bin")
        assert storage.write(address, data, clients=clients) == address
        whole = data.getvalue() if isinstance(data, io.BytesIO) else data.encode() if isinstance(data, str) else data
        assert storage.read(address, clients=clients) == whole


def test_the_first_bytes_can_be_read_alone(folder, clients):
    address = storage.write(f"{folder}/a", b"0123456789", clients=clients)
    assert storage.read(address, at_most=4, clients=clients) == b"0123"
    assert storage.read(address, at_most=40, clients=clients) == b"0123456789"
    assert storage.read(storage.write(address, b"", clients=clients), at_most=4, clients=clients) == b""


def test_a_file_that_is_not_there_is_not_found(folder, clients):
    with pytest.raises(NotFound, match=r"There is no file '.*/results/none'"):
        storage.read(f"{folder}/none", clients=clients)


def test_a_bucket_that_is_not_there_is_not_found(clients):
    with pytest.raises(NotFound, match="no bucket 'other-bucket'"):
        storage.write("s3://other-bucket/a", b"", clients=clients)


def test_files_lists_all_below_a_folder_and_nothing_beside_it(folder, clients):
    for name in ("b", "a/2", "a/1", "a b/ü.txt"):
        storage.write(storage.join(folder, name), name, clients=clients)
    storage.write(f"{folder}-beside", b"", clients=clients)
    listed = storage.files(folder, clients=clients)
    assert listed == [f"{folder}/{name}" for name in ("a b/ü.txt", "a/1", "a/2", "b")]
    assert [storage.read(one, clients=clients).decode() for one in listed] == ["a b/ü.txt", "a/1", "a/2", "b"]
    assert storage.files(f"{folder}/", clients=clients) == listed
    assert storage.files(f"{folder}/none", clients=clients) == []


def test_more_files_than_fit_on_one_page_are_listed(clients):
    folder = f"s3://{clients.bucket}/many"
    written = [storage.write(f"{folder}/{number}", b"", clients=clients) for number in range(5)]
    pages = []

    def of_two(params, **_):
        pages.append(params)
        return params | {"MaxKeys": 2}

    clients.s3.meta.events.register("provide-client-params.s3.ListObjectsV2", of_two)
    assert storage.files(folder, clients=clients) == written
    assert len(pages) == 3


def test_a_bucket_is_a_folder_too(clients):
    address = storage.write(f"s3://{clients.bucket}/a", b"", clients=clients)
    assert address in storage.files(f"s3://{clients.bucket}", clients=clients)


def test_a_file_that_is_being_written_is_not_listed(tmp_path):
    (tmp_path / ".a.x1y2.part").write_bytes(b"half")
    (tmp_path / ".hidden").write_bytes(b"")
    assert storage.files(tmp_path) == [f"{tmp_path}/.hidden"]


def test_a_file_or_a_folder_is_deleted_and_nothing_beside_it(folder, clients):
    for name in ("a/1", "a/2", "ab", "b"):
        storage.write(storage.join(folder, name), name, clients=clients)
    storage.delete(f"{folder}/a", clients=clients)
    assert storage.files(folder, clients=clients) == [f"{folder}/ab", f"{folder}/b"]
    storage.delete(f"{folder}/b", clients=clients)
    assert storage.files(folder, clients=clients) == [f"{folder}/ab"]
    storage.delete(f"{folder}/b", clients=clients)  # no error


def test_deleting_a_link_keeps_the_folder_behind_it(tmp_path):
    kept = storage.write(tmp_path / "kept" / "a", b"")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    storage.delete(tmp_path / "link")
    assert storage.files(tmp_path) == [kept]


def test_writing_if_absent_keeps_what_is_there(folder, clients):
    address = f"{folder}/a"
    assert storage.write_if_absent(address, b"first", clients=clients)
    assert not storage.write_if_absent(address, b"second", clients=clients)
    assert storage.read(address, clients=clients) == b"first"
    assert storage.files(folder, clients=clients) == [address]


def test_of_many_writers_at_once_exactly_one_writes(folder, clients):
    start = threading.Barrier(8)

    def write(number):
        start.wait()
        return storage.write_if_absent(f"{folder}/a", str(number), clients=clients)

    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(write, range(8)))
    assert wrote.count(True) == 1
    assert storage.read(f"{folder}/a", clients=clients) == str(wrote.index(True)).encode()
    assert storage.files(folder, clients=clients) == [f"{folder}/a"]


def test_a_damaged_file_is_replaced_and_a_whole_one_left_alone(folder, clients):
    data = b"the content"
    digest = hashlib.sha256(data).hexdigest()
    address = f"{folder}/{digest}"
    assert storage.write_if_absent(address, data, sha256=digest, clients=clients)
    assert not storage.write_if_absent(address, data, sha256=digest, clients=clients)
    for damaged in (b"", data[:-1], data[:-1] + b"!"):
        storage.write(address, damaged, clients=clients)
        assert storage.write_if_absent(address, data, sha256=digest, clients=clients)
        assert storage.read(address, clients=clients) == data


def test_a_private_file_is_for_its_owner_alone(tmp_path):
    address = storage.write(tmp_path / "results" / "a", b"", private=True)
    assert stat.S_IMODE(os.stat(address).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "results").st_mode) == 0o700


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_a_folder(folder, name):
    with pytest.raises(InvalidParameters, match="is not the name of a file in"):
        storage.join(folder, name)


@pytest.mark.parametrize("key", ["../up", "a/../b", "a//b", "./a"])
def test_a_key_that_is_no_path_is_neither_written_nor_listed(clients, key):
    with pytest.raises(InvalidParameters, match=r"Expected s3://bucket/key"):
        storage.write(f"s3://{clients.bucket}/results/{key}", b"", clients=clients)
    clients.s3.put_object(Bucket=clients.bucket, Key=f"results/{key}")
    with pytest.raises(InvalidRequest, match="cannot be a file of a folder"):
        storage.files(f"s3://{clients.bucket}/results", clients=clients)


def test_a_folders_own_mark_on_s3_is_no_file(clients):
    clients.s3.put_object(Bucket=clients.bucket, Key="results/")
    assert storage.files(f"s3://{clients.bucket}/results", clients=clients) == []


@pytest.mark.parametrize("address", ["s3://", "s3:///key", "s3://bucket", "s3://bucket/", "gs://bucket/key"])
def test_what_is_no_address_of_a_file_is_refused(address):
    for call in (storage.read, storage.delete, lambda one: storage.write(one, b"")):
        with pytest.raises(InvalidParameters, match=r"address on S3|is a bucket"):
            call(address)


def test_a_path_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"'.*/file/a' cannot be written: (Not a directory|File exists)"):
        storage.write(tmp_path / "file" / "a", b"")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        storage.read(tmp_path)


def test_calls_without_clients_share_those_of_the_settings_until_signing_in_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("GENOKIT_HOME", str(tmp_path / "home"))
    storage._own_clients.cache_clear()
    address = storage.write("s3://genokit/a", b"x")
    assert storage.read(address) == b"x"
    assert storage._own_clients.cache_info().misses == 1
    for name, value in {"GENOKIT_BACKEND": "aws", "GENOKIT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
                        "AWS_CONFIG_FILE": "/none", "AWS_SHARED_CREDENTIALS_FILE": "/none"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="there are no credentials"):
        storage.read(address)
    assert storage._own_clients.cache_info().currsize == 0


def test_a_file_of_any_size_is_copied_to_and_from_an_address(tmp_path, account):
    clients = backends.clients(account)
    (tmp_path / "big").write_bytes(os.urandom(9 * 2**20))  # more than one part of an upload
    for folder in (f"s3://{clients.bucket}/copies", str(tmp_path / "copies")):
        assert storage.upload(tmp_path / "big", f"{folder}/big", clients=clients) == f"{folder}/big"
        copy = storage.local(f"{folder}/big", tmp_path / "copied", clients=clients)
        assert copy.read_bytes() == (tmp_path / "big").read_bytes()
        assert copy.is_relative_to(tmp_path / ("copied" if storage.is_s3(folder) else "copies"))
        with pytest.raises(NotFound, match="absent"):
            storage.local(f"{folder}/absent", tmp_path, clients=clients)
    with pytest.raises(NotFound, match="no-such-bucket"):
        storage.upload(tmp_path / "big", "s3://no-such-bucket/big", clients=clients)


def test_a_stamp_changes_with_the_file_and_does_not_read_it(folder, clients):
    address = storage.write(f"{folder}/a", b"one", clients=clients)
    first = storage.stamp(address, clients=clients)
    assert storage.stamp(address, clients=clients) == first
    storage.write(address, b"two", clients=clients)
    assert storage.stamp(address, clients=clients) != first
    with pytest.raises(NotFound, match=r"There is no file '.*/none'"):
        storage.stamp(f"{folder}/none", clients=clients)


def test_results_have_an_absolute_address_of_their_own(clients, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.results(None, "train", "one", clients=clients) == f"{clients.settings.home}/train/one"
    assert storage.results("out", "train", clients=clients) == f"{tmp_path}/out"
    assert storage.results("~/out", "train", clients=clients) == os.path.expanduser("~/out")
    assert storage.results("s3://bucket/out", "train", clients=clients) == "s3://bucket/out"


def test_results_of_jobs_on_aws_cannot_be_on_this_machine(account):
    clients = backends.Clients(Settings(backend="aws", home=account.home))
    assert storage.results("s3://bucket/out", "train", clients=clients) == "s3://bucket/out"
    with pytest.raises(InvalidParameters, match="A job on AWS cannot write to 'out' of this machine"):
        storage.results("out", "train", clients=clients)
