"""Fetching whole data sets: the order of sources, the cache, what fails and how, and the sample as the last resort."""

import contextlib
import gzip
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from genokit import Dataset, Manifest, Settings
from genokit.backends import Clients
from genokit.errors import ConfigError, FetchFailed, HashMismatch, NotFound

IMAGES = b"images" * 50_000
LABELS = b"labels" * 100
SAMPLE = b"1,2\n" * 5


def resource(name, data, *sources, **changes):
    """A resource of a descriptor that promises these bytes."""
    digest = hashlib.sha256(data).hexdigest()
    promised = {"name": name, "path": f"data/{name}", "bytes": len(data), "hash": f"sha256:{digest}"}
    return promised | {"x-sources": list(sources)} | changes


def described(folder, *resources, **fields):
    """The folder of a descriptor with these resources."""
    folder.mkdir(exist_ok=True)
    content = {"name": "digits", "title": "Digits", "version": "1.0.0", "resources": list(resources)} | fields
    (folder / "datapackage.json").write_text(json.dumps(content))
    return folder


def put(mirror, files):
    """A folder that serves as a mirror of the data set, with these files."""
    for name, data in files.items():
        path = mirror / "digits" / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(mirror)


def tree(folder):
    return sorted((str(path.relative_to(folder)), path.is_file() and path.read_bytes()) for path in folder.rglob("*"))


@pytest.fixture
def folder(tmp_path):
    return described(tmp_path / "manifest", resource("images", IMAGES), resource("labels", LABELS))


@pytest.fixture
def at(tmp_path):
    """Settings with mirrors and a cache of this test's own."""
    return lambda *mirrors: Settings(home=tmp_path / "home", mirrors=mirrors, timeout_s=60)


@contextlib.contextmanager
def web(pages):
    """A site with pages; one given as (length, body) claims that length and breaks off after the body."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = pages.get(self.path)
            length, body = page if isinstance(page, tuple) else (len(page or b""), page or b"")
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_comes_from_the_first_mirror_that_has_it(folder, at, tmp_path):
    first = put(tmp_path / "first", {"labels": LABELS})
    with web({"/digits/data/images": IMAGES}) as second:
        dataset = Manifest(folder, settings=at(first, second)).fetch(progress=False)
    assert isinstance(dataset, Dataset)
    assert dataset["images"].read_bytes() == IMAGES
    assert dataset["labels"].read_bytes() == LABELS
    assert dataset["images"].is_relative_to(tmp_path / "home" / "data" / "digits")
    assert not dataset.sample


def test_cached_files_are_not_fetched_again_and_nothing_is_written(folder, at, tmp_path):
    settings = at(put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS}))
    first = Manifest(folder, settings=settings).fetch(progress=False)
    before = tree(settings.cache)
    assert Manifest(folder, settings=at()).fetch(progress=False) == first
    assert tree(settings.cache) == before


def test_an_unknown_resource_suggests_the_nearest_name(folder, at, tmp_path):
    dataset = Manifest(folder, settings=at(put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS}))).fetch(
        progress=False
    )
    with pytest.raises(NotFound, match=r"Did you mean 'images'\?"):
        dataset["image"]
    assert "image" not in dataset


def test_the_hash_of_a_data_set_is_that_of_its_files_in_any_order(at, tmp_path):
    mirror = put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS})
    both = [resource("images", IMAGES), resource("labels", LABELS)]
    one = Manifest(described(tmp_path / "1", *both), settings=at(mirror)).fetch(progress=False)
    two = Manifest(described(tmp_path / "2", *both[::-1]), settings=at(mirror)).fetch(progress=False)
    less = Manifest(described(tmp_path / "3", both[0]), settings=at(mirror)).fetch(progress=False)
    assert one.sha256 == two.sha256 != less.sha256


def test_a_wrong_hash_leaves_the_cache_untouched(folder, at, tmp_path):
    settings = at(put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS}))
    (tmp_path / "mirror" / "digits" / "data" / "labels").write_bytes(LABELS.replace(b"l", b"L"))
    settings.cache.mkdir(parents=True)
    (settings.cache / "other").write_bytes(b"other")
    described(folder, resource("labels", LABELS))
    before = tree(settings.cache)
    with pytest.raises(HashMismatch) as caught:
        Manifest(folder, settings=settings).fetch(progress=False)
    assert caught.value.expected == hashlib.sha256(LABELS).hexdigest()
    assert caught.value.got == hashlib.sha256(LABELS.replace(b"l", b"L")).hexdigest()
    assert caught.value.got in str(caught.value)
    assert tree(settings.cache) == before


def test_after_a_wrong_copy_the_next_source_is_tried(folder, at, tmp_path):
    bad = put(tmp_path / "bad", {"images": IMAGES[::-1], "labels": b"<html>Access blocked</html>"})
    good = put(tmp_path / "good", {"images": IMAGES, "labels": LABELS})
    dataset = Manifest(folder, settings=at(bad, good)).fetch(progress=False)
    assert dataset["images"].read_bytes() == IMAGES
    assert dataset["labels"].read_bytes() == LABELS


@pytest.mark.parametrize(
    ("page", "answer"),
    [
        ((len(IMAGES), IMAGES[:1000]), "broke off after"),
        (IMAGES[:1000], "truncated, or another file: received 1,000 of 300,000 bytes"),
        (IMAGES + b"!", "more than the declared 300,000 bytes"),
        (b"", "truncated, or another file: received 0 of 300,000 bytes"),
    ],
)
def test_a_download_of_another_length_is_refused_and_leaves_nothing(folder, at, page, answer):
    with web({"/digits/data/images": page}) as site, pytest.raises(FetchFailed) as caught:
        Manifest(folder, settings=at(site)).fetch(progress=False)
    assert answer in caught.value.tried[0][1]
    assert tree(at().cache) == []


def test_a_failure_lists_every_source_with_its_answer(at, tmp_path):
    sources = ["https://127.0.0.1:9/images.gz", "pkg:npm/digits@1.0.0#package/images"]
    folder = described(tmp_path / "manifest", resource("images", IMAGES, *sources))
    with web({}) as site, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))  # no npm here
        with pytest.raises(FetchFailed) as caught:
            Manifest(folder, settings=at(str(tmp_path / "mirror"), site)).fetch(progress=False)
    assert caught.value.resource == "images"
    assert [source for source, _ in caught.value.tried] == [
        str(tmp_path / "mirror" / "digits" / "data" / "images"), f"{site}/digits/data/images", *sources,
    ]  # fmt: skip
    answers = [answer for _, answer in caught.value.tried]
    assert answers[:2] == ["No such file or directory", "answered 404 Not Found"]
    assert answers[2].startswith("no connection (")
    assert answers[3].startswith("npm is not installed")
    for word in ["'images'", "293.0 KiB", *answers, "mirrors = ", "<mirror>/digits/data/images"]:
        assert word in str(caught.value)
    assert tree(at().cache) == []


def test_a_manifest_that_names_no_source_says_so(folder, at):
    with pytest.raises(FetchFailed, match="no source is named") as caught:
        Manifest(folder, settings=at()).fetch(progress=False)
    assert caught.value.tried == []


@pytest.fixture
def bucket(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="open-data")
        yield client


def test_a_compressed_source_in_s3_is_decompressed(bucket, at, tmp_path):
    bucket.put_object(Bucket="open-data", Key="images.gz", Body=gzip.compress(IMAGES))
    folder = described(tmp_path / "manifest", resource("images", IMAGES, "s3://open-data/images.gz"))
    dataset = Manifest(folder, settings=at(), clients=Clients(at(), s3=bucket)).fetch(progress=False)
    assert dataset["images"].read_bytes() == IMAGES


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (gzip.compress(bytes(20_000_000), mtime=0), "more than the declared 300,000 bytes"),
        (gzip.compress(IMAGES, mtime=0)[:-9], "broke off after"),
        (b"\x1f\x8bnonsense", "broke off after 0 bytes"),
    ],
)
def test_a_compressed_source_that_is_a_bomb_truncated_or_not_gzip_is_refused(bucket, at, tmp_path, body, answer):
    bucket.put_object(Bucket="open-data", Key="images.gz", Body=body)
    folder = described(tmp_path / "manifest", resource("images", IMAGES, "s3://open-data/images.gz"))
    with pytest.raises(FetchFailed) as caught:
        Manifest(folder, settings=at(), clients=Clients(at(), s3=bucket)).fetch(progress=False)
    assert answer in caught.value.tried[0][1]
    assert tree(at().cache) == []


def test_a_damaged_file_in_the_cache_is_replaced_once_a_source_is_available(folder, at, tmp_path):
    mirror = put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS})
    path = Manifest(folder, settings=at(mirror)).fetch(progress=False)["labels"]
    path.write_bytes(b"damaged")
    with pytest.raises(HashMismatch, match=r"other bytes than declared: sha256 [0-9a-f]{64}, not"):
        Manifest(folder, settings=at()).fetch(progress=False)
    assert path.read_bytes() == b"damaged"
    assert Manifest(folder, settings=at(mirror)).fetch(progress=False)["labels"].read_bytes() == LABELS


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_a_file_whose_publisher_gives_only_an_md5_is_verified_by_it_and_known_by_its_sha256(at, tmp_path):
    given = [resource("images", IMAGES, hash=f"md5:{md5(IMAGES)}"), resource("labels", LABELS, hash=md5(LABELS))]
    folder = described(tmp_path / "manifest", *given)
    with web({"/digits/data/images": IMAGES, "/digits/data/labels": LABELS}) as site:
        first = Manifest(folder, settings=at(site)).fetch(progress=False)
    assert first.hashes == {one: hashlib.sha256(first[one].read_bytes()).hexdigest() for one in ("images", "labels")}
    before = tree(at().cache)
    again = Manifest(folder, settings=at())  # from the cache, for the site is gone
    assert again.fetch(progress=False) == first
    assert tree(at().cache) == before
    table = again.verify().set_index("resource")
    assert dict(table["state"]) == {"images": "verified", "labels": "verified"}
    assert dict(table["sha256"]) == first.hashes


def test_other_bytes_than_the_md5_are_refused_with_both_hashes(at, tmp_path):
    folder = described(tmp_path / "manifest", resource("images", IMAGES, hash=f"md5:{md5(IMAGES)}"))
    with web({"/digits/data/images": IMAGES[::-1]}) as site, pytest.raises(HashMismatch) as caught:
        Manifest(folder, settings=at(site)).fetch(progress=False)
    assert (caught.value.expected, caught.value.got) == (md5(IMAGES), md5(IMAGES[::-1]))
    assert f"other bytes than declared: md5 {md5(IMAGES[::-1])}, not {md5(IMAGES)}" in str(caught.value)
    assert tree(at().cache) == []


def test_a_damaged_file_with_an_md5_is_wrong_and_is_replaced(at, tmp_path):
    manifest = Manifest(
        described(tmp_path / "manifest", resource("images", IMAGES, hash=f"md5:{md5(IMAGES)}")),
        settings=at(put(tmp_path / "mirror", {"images": IMAGES})),
    )
    manifest.fetch(progress=False)["images"].write_bytes(b"damaged")
    table = manifest.verify()
    assert list(table["state"]) == ["wrong"]
    assert list(table["sha256"]) == [hashlib.sha256(b"damaged").hexdigest()]
    assert manifest.fetch(progress=False)["images"].read_bytes() == IMAGES


def test_a_file_fetched_by_its_md5_does_not_stand_in_for_one_with_a_sha256(at, tmp_path):
    by_md5 = described(tmp_path / "1", resource("images", IMAGES, hash=f"md5:{md5(IMAGES)}"))
    by_sha256 = described(tmp_path / "2", resource("images", IMAGES))
    Manifest(by_md5, settings=at(put(tmp_path / "mirror", {"images": IMAGES}))).fetch(progress=False)
    with pytest.raises(FetchFailed):
        Manifest(by_sha256, settings=at()).fetch(progress=False)


def test_two_versions_of_a_data_set_do_not_mix(at, tmp_path):
    old, new = (b"old" * 10, b"new" * 10)
    paths = []
    for data in (old, new):
        mirror = put(tmp_path / "mirror", {"a": data})
        folder = described(tmp_path / "manifest", resource("a", data))
        paths.append(Manifest(folder, settings=at(mirror)).fetch(progress=False)["a"])
    assert [path.read_bytes() for path in paths] == [old, new]


def test_a_cache_that_cannot_be_written_is_named_with_the_setting(folder, tmp_path):
    (tmp_path / "file").write_text("")
    mirror = put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS})
    settings = Settings(home=tmp_path, cache=tmp_path / "file" / "cache", mirrors=(mirror,))
    with pytest.raises(ConfigError, match="GENOKIT_CACHE"):
        Manifest(folder, settings=settings).fetch(progress=False)


def test_concurrent_processes_fetch_the_same_data_set(folder, at, tmp_path):
    settings = at(put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS}))
    code = "import sys; from genokit import Manifest; print(Manifest(sys.argv[1]).fetch(progress=False).sha256)"
    command = [sys.executable, "-W", "error", "-c", code, str(folder)]
    environ = os.environ | settings.environ() | {"PYTHONPATH": str(Path(__file__).parents[1])}
    running = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = {process.communicate(timeout=240)[0] for process in running}
    assert printed == {Manifest(folder, settings=settings).fetch(progress=False).sha256 + "\n"}
    assert set(Manifest(folder, settings=settings).verify()["state"]) == {"verified"}
    assert not list(settings.cache.glob(".*"))


def test_concurrent_processes_fetch_many_data_sets(at, tmp_path):
    sets = 200
    for number in range(sets):
        data = f"{number}".encode()
        (tmp_path / "mirror" / f"set-{number}" / "data").mkdir(parents=True)
        (tmp_path / "mirror" / f"set-{number}" / "data" / "a").write_bytes(data)
        described(tmp_path / f"set-{number}", resource("a", data), name=f"set-{number}")
    settings = at(str(tmp_path / "mirror"))
    code = "import sys; from genokit import Manifest; [Manifest(s).fetch(progress=False) for s in sys.argv[1:]]"
    folders = [str(tmp_path / f"set-{number}") for number in range(sets)]
    environ = os.environ | settings.environ() | {"PYTHONPATH": str(Path(__file__).parents[1])}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *folders], env=environ, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert [process.communicate(timeout=240)[1] for process in running] == [""] * 4


def test_the_remains_of_a_killed_process_are_removed(folder, at, tmp_path):
    settings = at(put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS}))
    left, running = settings.cache / ".fetch-killed", settings.cache / ".fetch-running"
    for place in (left, running):
        place.mkdir(parents=True)
        (place / "part").write_bytes(IMAGES[:1000])
    os.utime(left, (0, 0))
    Manifest(folder, settings=settings).fetch(progress=False)
    assert not left.exists()
    assert running.exists()


def test_verify_tells_verified_wrong_and_missing_apart_without_fetching(folder, at, tmp_path):
    settings = at(put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS}))
    manifest = Manifest(folder, settings=settings)
    table = manifest.verify()
    assert list(table.columns) == ["resource", "path", "bytes", "sha256", "state"]
    assert list(table["state"]) == ["missing", "missing"]
    dataset = manifest.fetch(progress=False)
    dataset["labels"].write_bytes(b"wrong")
    table = manifest.verify().set_index("resource")
    assert dict(table["state"]) == {"images": "verified", "labels": "wrong"}
    assert dict(table["bytes"]) == {"images": len(IMAGES), "labels": 5}
    assert table.loc["images", "path"] == str(dataset["images"])


@pytest.fixture
def sampled(tmp_path):
    sample = {"title": "sample of 5 images", "resources": [resource("few", SAMPLE)]}
    return described(tmp_path / "manifest", resource("images", IMAGES), **{"x-sample": sample})


def test_the_sample_is_the_last_resort_and_is_labelled_as_a_sample(sampled, at, tmp_path, capsys):
    mirror = put(tmp_path / "mirror", {"few": SAMPLE})
    manifest = Manifest(sampled, settings=at(mirror))
    dataset = manifest.fetch()
    assert dataset.sample
    assert list(dataset) == ["few"]
    assert dataset["few"].read_bytes() == SAMPLE
    assert dataset.title == "Digits, sample of 5 images"
    assert "sample of 5 images" in repr(dataset)
    assert "sample of 5 images" in dataset._repr_html_()
    assert "No such file" in dataset._repr_html_()
    assert [source for source, _ in dataset.tried] == [str(tmp_path / "mirror" / "digits" / "data" / "images")]
    said = capsys.readouterr().err
    assert "Digits could not be fetched; using the declared sample of 5 images instead." in said
    assert "digits, sample of 5 images: few" in said
    assert list(manifest.verify()["resource"]) == ["images", "few (sample of 5 images)"]


def test_the_full_data_replace_the_sample_once_available(sampled, at, tmp_path):
    mirror = put(tmp_path / "mirror", {"few": SAMPLE})
    assert Manifest(sampled, settings=at(mirror)).fetch(progress=False).sample
    put(tmp_path / "mirror", {"images": IMAGES})
    whole = Manifest(sampled, settings=at(mirror)).fetch(progress=False)
    assert not whole.sample
    assert "sample" not in repr(whole)
    assert whole.tried == ()


def test_if_the_sample_fails_too_the_error_names_both(sampled, at, tmp_path):
    with pytest.raises(FetchFailed) as caught:
        Manifest(sampled, settings=at(str(tmp_path / "mirror"))).fetch(progress=False)
    assert caught.value.resource == "images"
    assert [Path(source).name for source, _ in caught.value.tried] == ["images", "few"]


def test_progress_is_one_bar_per_file_and_can_be_switched_off(folder, at, tmp_path, capsys):
    settings = at(put(tmp_path / "mirror", {"images": IMAGES, "labels": LABELS}))
    Manifest(folder, settings=settings).fetch()
    said = capsys.readouterr()
    assert said.out == ""
    for name in ("images", "labels"):
        assert f"digits: {name}: 100%" in said.err
    Manifest(folder, settings=settings).fetch()
    Manifest(folder, settings=Settings(home=tmp_path / "new", mirrors=settings.mirrors)).fetch(progress=False)
    assert capsys.readouterr() == ("", "")


def test_mnist_itself_is_complete_and_verified(mnist):
    assert not mnist.sample
    assert mnist.ref == "mnist"
    with mnist["train-images"].open("rb") as file:
        assert file.read(16) == bytes.fromhex("00000803 0000ea60 0000001c 0000001c")  # 60,000 of 28 x 28
    labels = mnist["t10k-labels"].read_bytes()
    assert labels[:8] == bytes.fromhex("00000801 00002710")
    assert labels[8:13] == bytes([7, 2, 1, 0, 4])
    # The well-known MD5 of the files as first published, unpacked.
    known = {
        "train-images": "6bbc9ace898e44ae57da46a324031adb", "train-labels": "a25bea736e30d166cdddb491f175f624",
        "t10k-images": "2646ac647ad5339dbf082846283269ea", "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
    }  # fmt: skip
    assert {name: md5(path.read_bytes()) for name, path in mnist.paths.items()} == known
    assert "sample" not in mnist._repr_html_()
