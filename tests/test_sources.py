"""Each kind of source, against real servers on this machine, and what each says when it does not deliver."""

import base64
import contextlib
import datetime
import gzip
import hashlib
import http.server
import io
import ipaddress
import json
import os
import shutil
import socket
import ssl
import tarfile
import threading
import tracemalloc
import zipfile
import zlib

import boto3
import pytest
from moto import mock_aws

from genokit import Manifest, Settings
from genokit.backends import Clients
from genokit.data import drs
from genokit.data.descriptor import DataResource
from genokit.data.fetch import receive
from genokit.data.packages import Unavailable, download, member, parse
from genokit.data.sources import Sources, shown
from genokit.errors import InvalidManifest

PAYLOAD = bytes(range(256)) * 1000


class Server(http.server.ThreadingHTTPServer):
    """Answers each path from a dict: path -> (status, headers, body); a body may be shorter than it claims."""

    daemon_threads = True

    def __init__(self):
        self.pages = {}
        self.asked = []
        self.authorizations = []
        super().__init__(("127.0.0.1", 0), _Answer)

    def handle_error(self, request, client_address):
        """Clients that hang up, as they should here, are no news."""


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.authorizations.append(self.headers.get("Authorization"))
        status, headers, body = self.server.pages.get(self.path, (404, {}, b"no such page"))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(context=None):
    with Server() as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def web():
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1, signed by itself, with its key in the same file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def safe_web(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(context) as server:
        yield server


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "staging").mkdir()
    return Sources(Settings(home=tmp_path, timeout_s=60), None, tmp_path / "staging")


def content(sources, source, unpack=False):
    with sources.opened(source, unpack=unpack) as reader:
        return reader.read(10_000_000)


def answer(sources, source):
    with pytest.raises(Unavailable) as caught:
        content(sources, source)
    return str(caught.value)


def test_a_folder_is_read_and_a_missing_file_is_reported(sources, tmp_path):
    (tmp_path / "a").write_bytes(PAYLOAD)
    assert content(sources, str(tmp_path / "a")) == PAYLOAD
    assert answer(sources, str(tmp_path / "b")) == "No such file or directory"


def test_https_is_read_as_it_is_stored(sources, safe_web):
    safe_web.pages["/a"] = (200, {}, PAYLOAD)
    assert content(sources, f"{safe_web.url}/a") == PAYLOAD


def test_an_untrusted_certificate_is_refused(sources, safe_web, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert "certificate was refused" in answer(sources, f"{safe_web.url}/a")


def test_a_gz_source_of_a_plain_file_is_decompressed_unless_the_server_did_it(sources, web):
    web.pages["/a.gz"] = (200, {}, gzip.compress(PAYLOAD))
    web.pages["/plain.gz"] = (200, {}, PAYLOAD)
    assert content(sources, f"{web.url}/a.gz", unpack=True) == PAYLOAD
    with sources.opened(f"{web.url}/plain.gz", unpack=True) as reader:
        assert reader.read(2) + reader.read(10_000_000) == PAYLOAD


def test_a_gz_resource_stays_compressed(sources, web):
    packed = gzip.compress(PAYLOAD)
    web.pages["/a.gz"] = (200, {"Content-Encoding": "gzip"}, packed)
    assert content(sources, f"{web.url}/a.gz") == packed


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate", "identity", ""])
def test_content_encoding_is_decoded(sources, web, coding):
    encoded = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding.lower().removeprefix("x-"), bytes)(PAYLOAD)
    web.pages["/a.csv"] = (200, {"Content-Encoding": coding}, encoded)
    assert content(sources, f"{web.url}/a.csv") == PAYLOAD


def test_a_gz_file_with_content_encoding_is_returned_as_stored(sources, web):
    packed = gzip.compress(PAYLOAD)
    web.pages["/a.gz"] = (200, {"Content-Encoding": "gzip"}, gzip.compress(packed))
    assert content(sources, f"{web.url}/a.gz") == packed
    assert content(sources, f"{web.url}/a.gz", unpack=True) == PAYLOAD


def test_a_false_gzip_encoding_is_ignored(sources, web):
    web.pages["/a.csv"] = (200, {"Content-Encoding": "gzip"}, PAYLOAD)
    assert content(sources, f"{web.url}/a.csv") == PAYLOAD


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "aes128gcm"])
def test_an_unsupported_encoding_is_refused(sources, web, coding):
    web.pages["/a.csv"] = (200, {"Content-Encoding": coding}, PAYLOAD)
    assert answer(sources, f"{web.url}/a.csv") == (
        f"answered in an encoding that was not requested: {coding.rpartition(' ')[2]}"
    )


def test_a_truncated_or_damaged_encoded_answer_is_refused(tmp_path, web):
    encoded = gzip.compress(os.urandom(500_000))
    for body in (encoded[:250_000], encoded[:200_000] + b"x" * 1000 + encoded[201_000:]):
        web.pages["/a"] = (200, {"Content-Encoding": "gzip"}, body)
        here = Sources(Settings(home=tmp_path, timeout_s=60), None, tmp_path)
        promised = DataResource("a", "a", "sha256:" + "0" * 64, 500_000)
        with here.opened(f"{web.url}/a", unpack=False) as reader, pytest.raises(Unavailable, match="broke off"):
            receive(reader, tmp_path / str(len(body)), promised, int)


def test_redirects_are_followed_except_from_https_to_http(sources, safe_web, web):
    safe_web.pages["/a"] = (302, {"Location": "/b"}, b"")
    safe_web.pages["/b"] = (200, {}, PAYLOAD)
    safe_web.pages["/down"] = (301, {"Location": f"{web.url}/a"}, b"")
    safe_web.pages["/round"] = (302, {"Location": "/round"}, b"")
    web.pages["/a"] = (200, {}, PAYLOAD)
    assert content(sources, f"{safe_web.url}/a") == PAYLOAD
    assert answer(sources, f"{safe_web.url}/down") == "refused: it redirects from https to http"
    assert web.asked == []
    assert "redirects" in answer(sources, f"{safe_web.url}/round")


def test_a_redirect_to_a_local_file_is_refused(sources, web):
    web.pages["/a"] = (302, {"Location": "file:///etc/hostname"}, b"")
    assert answer(sources, f"{web.url}/a") == "refused: it redirects from http to file"


def test_the_status_of_an_error_is_reported(sources, web):
    web.pages["/private"] = (403, {}, b"")
    assert answer(sources, f"{web.url}/private") == "answered 403 Forbidden"
    assert answer(sources, f"{web.url}/nothing") == "answered 404 Not Found"


def test_an_unreachable_site_is_tried_only_once(sources):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert "no connection" in answer(sources, f"{address}/a?password=secret")
        assert answer(sources, f"{address}/b").startswith("not tried again: no connection")


def test_a_site_that_does_not_respond_is_waited_for_only_once(tmp_path):
    sources = Sources(Settings(home=tmp_path, timeout_s=0.5), None, tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert answer(sources, f"{address}/a") == "no answer within 0.5 s"
        assert answer(sources, f"{address}/b") == "not tried again: no answer within 0.5 s"


def test_passwords_and_signatures_are_never_shown(sources):
    address = "http://me:secret@127.0.0.1:9/a?X-Amz-Signature=secret"
    assert shown(address) == "http://127.0.0.1:9/a"
    assert "secret" not in answer(sources, address)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    (tmp_path / "staging").mkdir()
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="open-data")
        client.put_object(Bucket="open-data", Key="mnist/a", Body=PAYLOAD)
        client.put_object(Bucket="open-data", Key="mnist/a.gz", Body=gzip.compress(PAYLOAD))
        settings = Settings(home=tmp_path)
        yield Sources(settings, Clients(settings, s3=client), tmp_path / "staging")


def test_s3_is_read_and_unpacked(bucket):
    assert content(bucket, "s3://open-data/mnist/a") == PAYLOAD
    assert content(bucket, "s3://open-data/mnist/a.gz", unpack=True) == PAYLOAD


def test_an_object_with_content_encoding_is_decoded(bucket):
    client, packed = bucket._clients.s3, gzip.compress(PAYLOAD)
    client.put_object(Bucket="open-data", Key="a.csv", Body=packed, ContentEncoding="gzip")
    client.put_object(Bucket="open-data", Key="b.gz", Body=packed, ContentEncoding="gzip")
    assert content(bucket, "s3://open-data/a.csv") == PAYLOAD
    assert content(bucket, "s3://open-data/b.gz") == packed


def test_s3_errors_are_reported(bucket):
    assert "bucket 'open-data': GetObject was refused: The specified key does not exist" in answer(
        bucket, "s3://open-data/mnist/b"
    )
    assert "bucket 'no-such-bucket': GetObject was refused: The specified bucket" in answer(
        bucket, "s3://no-such-bucket/a"
    )


@pytest.mark.parametrize(
    ("purl", "words"),
    [
        ("pkg:npm/a@1.2.6", "'#' must be followed by"),
        ("pkg:npm/a@1.2.6#../../etc/passwd", "'#' must be followed by"),
        ("pkg:npm/a@1.2.6#package/../../x", "'#' must be followed by"),
        ("pkg:npm/a@latest#x", "one version"),
        ("pkg:npm/a@^1.0.0#x", "one version"),
        ("pkg:npm/a#x", "one version"),
        ("pkg:npm/--registry=evil@1.0.0#x", "not a valid package name"),
        ("pkg:npm/a%20b@1.0.0#x", "not a valid package name"),
        ("pkg:pypi/a;b@1.0#x", "not a valid package name"),
        ("pkg:pypi/a@1.0%20--pre#x", "one version"),
        ("pkg:pypi/a@1.0?repository_url=https://evil.example#x", "qualifiers"),
        ("pkg:deb/debian/curl@7.50#x", "npm and pypi"),
        ("pkg:", "purl"),
    ],
)
def test_ambiguous_package_addresses_are_refused(purl, words):
    with pytest.raises(ValueError, match=words):
        parse(purl)


def test_scoped_npm_packages_have_their_full_name():
    assert parse("pkg:npm/%40scope/data@1.0.0#package/a")[:3] == ("npm", "@scope/data", "1.0.0")


def tgz(path, entries):
    """A .tgz of (name, bytes) files; a str instead of bytes makes a link to that path."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def whl(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            if isinstance(data, str):
                info.external_attr = 0o120777 << 16
            archive.writestr(info, data)
    return path


def refusal(archive, name="package/a"):
    with pytest.raises(Unavailable) as caught, member(archive, name) as reader:
        reader.read()
    return str(caught.value)


@pytest.mark.parametrize(("make", "ending"), [(tgz, "x.tgz"), (whl, "x.whl")])
def test_a_member_is_read_by_its_exact_name_without_unpacking(tmp_path, make, ending):
    archive = make(tmp_path / ending, [("package/b", b"b"), ("package/a", PAYLOAD)])
    with member(archive, "package/a") as reader:
        assert reader.read() == PAYLOAD
    assert "has no files 'package/c'" in refusal(archive, "package/c")
    assert "has no files './package/a'" in refusal(archive, "./package/a")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("escape", ["../../evil", "/etc/evil", "package/../../evil", "..\\evil", "C:/evil"])
@pytest.mark.parametrize(("make", "ending"), [(tgz, "x.tgz"), (whl, "x.whl")])
def test_an_archive_with_a_path_out_of_its_folder_is_refused_whole(tmp_path, make, ending, escape):
    said = refusal(make(tmp_path / ending, [("package/a", b"a"), (escape, b"evil")]))
    assert "refused" in said
    assert "evil" in said


@pytest.mark.parametrize(("make", "ending"), [(tgz, "x.tgz"), (whl, "x.whl")])
def test_a_link_in_an_archive_is_not_followed(tmp_path, make, ending):
    assert "link or folder, not a file" in refusal(make(tmp_path / ending, [("package/a", "/etc/hostname")]))


def test_a_duplicate_member_is_refused(tmp_path):
    assert "has 2 files" in refusal(tgz(tmp_path / "x.tgz", [("package/a", b"1"), ("package/a", b"2")]))


@pytest.mark.parametrize(("make", "ending"), [(tgz, "x.tgz"), (whl, "x.whl")])
def test_a_damaged_archive_is_refused(tmp_path, make, ending):
    archive = make(tmp_path / ending, [("package/a", os.urandom(100_000))])
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"<html>blocked</html>", b""):
        archive.write_bytes(damaged)
        assert "damaged" in refusal(archive)


def bomb(path, header, zeros):
    """A .tgz of a few bytes that begins with this header and goes on with gigabytes."""
    with gzip.open(path, "wb", 1) as file:
        file.write(header)
        for _ in range(zeros // 2**20):
            file.write(bytes(2**20))
    return path


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_an_archive_with_a_header_of_gigabytes_is_refused_before_it_fills_the_memory(tmp_path, kind):
    info = tarfile.TarInfo("package/a")
    info.type, info.size = kind, 2**30
    archive = bomb(tmp_path / "x.tgz", info.tobuf(tarfile.GNU_FORMAT), 2**24)
    tracemalloc.start()
    assert "damaged or cannot be read" in refusal(archive)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_an_archive_with_too_many_members_is_refused(tmp_path):
    header = tarfile.TarInfo("package/a").tobuf()
    with gzip.open(tmp_path / "x.tgz", "wb", 1) as file:
        for _ in range(110):
            file.write(header * 1000)
    assert "more than 100,000 files" in refusal(tmp_path / "x.tgz")


def npm_registry(web, name, version, archive):
    """Make a server answer npm as its registry does, for one package."""
    data = archive.read_bytes()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    dist = {"tarball": f"{web.url}/{name}.tgz", "integrity": integrity}
    page = {
        "name": name,
        "dist-tags": {"latest": version},
        "versions": {version: {"name": name, "version": version, "dist": dist}},
    }
    web.pages[f"/{name}"] = (200, {"Content-Type": "application/json"}, json.dumps(page).encode())
    web.pages[f"/{name}.tgz"] = (200, {}, data)


@pytest.fixture
def npm_here(web, monkeypatch, tmp_path):
    monkeypatch.setenv("npm_config_registry", f"{web.url}/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    return web


def test_npm_fetches_a_package_once_and_runs_no_scripts(npm_here, sources, tmp_path):
    ran = tmp_path / "ran"
    scripts = dict.fromkeys(("prepack", "prepare", "preinstall", "install", "postinstall"), f"touch '{ran}'")
    manifest = json.dumps({"name": "digits", "version": "1.0.0", "scripts": scripts}).encode()
    entries = [("package/package.json", manifest), ("package/a", b"A"), ("package/b", b"B")]
    npm_registry(npm_here, "digits", "1.0.0", tgz(tmp_path / "digits.tgz", entries))
    assert content(sources, "pkg:npm/digits@1.0.0#package/a") == b"A"
    assert content(sources, "pkg:npm/digits@1.0.0#package/b") == b"B"
    assert npm_here.asked.count("/digits.tgz") == 1
    assert not ran.exists()
    assert answer(sources, "pkg:npm/digits@9.9.9#package/a") == "E404: No match found for version 9.9.9"
    said = answer(sources, "pkg:npm/digits@9.9.9#package/b")
    assert said == "not tried again: E404: No match found for version 9.9.9"


def test_an_archive_with_escaping_paths_from_npm_is_refused(npm_here, sources, tmp_path):
    entries = [("package/package.json", b'{"name": "evil", "version": "1.0.0"}'), ("package/../../evil", b"")]
    npm_registry(npm_here, "evil", "1.0.0", tgz(tmp_path / "evil.tgz", entries))
    assert "a path out of its folder" in answer(sources, "pkg:npm/evil@1.0.0#package/package.json")


def test_without_npm_the_error_says_what_to_do(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("npm") is None
    said = answer(sources, "pkg:npm/digits@1.0.0#package/a")
    assert said == "npm is not installed. Install Node.js, or add another source for this file"


def test_an_unreachable_npm_registry_is_reported(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    assert answer(sources, "pkg:npm/digits@1.0.0#package/a").startswith("ECONNREFUSED: ")


@pytest.fixture
def pip_here(web, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{web.url}/simple")
    return web


def offer(web, name, archive):
    web.pages[f"/simple/{name}/"] = (
        200,
        {"Content-Type": "text/html"},
        f'<a href="/files/{archive.name}">{archive.name}</a>'.encode(),
    )
    web.pages[f"/files/{archive.name}"] = (200, {}, archive.read_bytes())


def test_pip_downloads_a_wheel_without_installing_it_or_its_dependencies(pip_here, sources, tmp_path):
    metadata = b"Metadata-Version: 2.1\nName: digits\nVersion: 1.0\nRequires-Python: >=99\nRequires-Dist: nowhere\n"
    wheel = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    entries = [
        ("digits/a", PAYLOAD),
        ("digits-1.0.dist-info/METADATA", metadata),
        ("digits-1.0.dist-info/WHEEL", wheel),
    ]
    offer(pip_here, "digits", whl(tmp_path / "digits-1.0-py3-none-any.whl", entries))
    assert content(sources, "pkg:pypi/digits@1.0#digits/a") == PAYLOAD


def test_pip_never_builds_a_source_archive(pip_here, tmp_path):
    ran = tmp_path / "ran"
    setup = f"open({str(ran)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='digits', version='1.0')\n"
    archive = tgz(tmp_path / "digits-1.0.tar.gz", [("digits-1.0/setup.py", setup.encode()), ("digits-1.0/a", b"A")])
    offer(pip_here, "digits", archive)
    with pytest.raises(Unavailable, match="no wheel of it"):
        download("pypi", "digits", "1.0", tmp_path / "out", 5)
    assert not ran.exists()


# --- GA4GH DRS


def object_page(web, **more):
    """A DRS server's answer about an object, with the path under which it is asked for."""
    web.pages["/ga4gh/drs/v1/objects/42"] = (200, {}, json.dumps({"id": "42", "size": len(PAYLOAD), **more}).encode())
    return f"drs://{web.url.partition('//')[2]}/42"


def test_an_object_of_a_drs_server_is_read_at_its_access_url(web, sources):
    web.pages["/bytes"] = (200, {}, PAYLOAD)
    methods = [
        {"type": "gs", "access_url": {"url": "gs://b/k"}},
        {"type": "https", "access_url": {"url": f"{web.url}/bytes"}},
    ]
    assert content(sources, object_page(web, access_methods=methods)) == PAYLOAD


def test_an_access_id_is_resolved_and_its_headers_go_to_that_address_alone(web, sources):
    web.pages["/ga4gh/drs/v1/objects/42/access/eu%2Fwest"] = (
        200, {}, json.dumps({"url": f"{web.url}/first", "headers": ["Authorization: Bearer t0ken"]}).encode(),
    )  # fmt: skip
    web.pages["/first"] = (302, {"Location": "/second"}, b"")
    web.pages["/second"] = (200, {}, PAYLOAD)
    assert content(sources, object_page(web, access_methods=[{"type": "https", "access_id": "eu/west"}])) == PAYLOAD
    sent = dict(zip(web.asked, web.authorizations, strict=True))
    assert (sent["/first"], sent["/second"]) == ("Bearer t0ken", None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"contents": [{"name": "a"}]}, "is a bundle, or cannot be accessed"),
        ({"access_methods": [{"type": "gs"}, {"type": "ftp"}]}, "offers only gs, ftp"),
        ({"access_methods": [{"type": "https", "access_url": {"url": "http://example.org/a"}}]}, "it leads to http,"),
        ({"access_methods": [{"type": "https", "access_url": {"url": "file:///etc/passwd"}}]}, "it leads to file,"),
        ({"access_methods": [{"type": "https", "access_id": "gone"}]}, "answered 404"),
    ],
)  # fmt: skip
def test_what_a_drs_server_cannot_deliver_is_said(web, sources, more, said):
    assert said in answer(sources, object_page(web, **more))


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("https", "access_methods is no list of objects"),
        ([1], "access_methods is no list of objects"),
        ([{"type": "https", "access_url": "https://host/file"}], "access_url is no object"),
        ([{"type": "https", "access_url": {"url": "https://host/file", "headers": "x"}}], "not 'name: value'"),
        ([{"type": "https", "access_url": {"url": "https://host/file", "headers": ["A: b\r\nHost: other"]}}],
         "not 'name: value'"),
    ],
)  # fmt: skip
def test_a_malformed_answer_of_a_drs_server_is_said(methods, said):
    with pytest.raises(Unavailable, match=said):
        drs.resolved("drs://host/42", lambda address: json.dumps({"access_methods": methods}).encode())


def test_a_drs_server_that_is_none_and_a_compact_identifier_are_said(web, sources):
    web.pages["/ga4gh/drs/v1/objects/42"] = (200, {}, b"<html>")
    assert "did not answer as a DRS server" in answer(sources, f"drs://{web.url.partition('//')[2]}/42")
    assert "only identifiers.org can resolve" in answer(sources, "drs://dg.4503:abc")


def test_a_drs_server_elsewhere_is_asked_by_https(sources):
    asked = []

    def get(url):
        asked.append(url)
        return b'{"access_methods": [{"type": "s3", "access_url": {"url": "s3://bucket/key"}}]}'

    assert drs.resolved("drs://drs.example.org/a/b c", get) == ("s3://bucket/key", {})
    assert asked == ["https://drs.example.org/ga4gh/drs/v1/objects/a%2Fb%20c"]


def test_a_manifest_may_have_a_drs_source_and_no_compact_one(web, tmp_path):
    web.pages["/bytes"] = (200, {}, PAYLOAD)
    source = object_page(web, access_methods=[{"type": "https", "access_url": {"url": f"{web.url}/bytes"}}])
    resource = {
        "name": "a",
        "path": "a.bin",
        "bytes": len(PAYLOAD),
        "hash": f"sha256:{hashlib.sha256(PAYLOAD).hexdigest()}",
    }
    file = tmp_path / "datapackage.json"
    file.write_text(json.dumps({"name": "d", "resources": [{**resource, "x-sources": [source]}]}))
    fetched = Manifest(file, settings=Settings(home=tmp_path / "home")).fetch(progress=False)
    assert fetched["a"].read_bytes() == PAYLOAD
    file.write_text(json.dumps({"name": "d", "resources": [{**resource, "x-sources": ["drs://dg.4503:abc"]}]}))
    with pytest.raises(InvalidManifest, match=r"needs identifiers\.org"):
        Manifest(file, settings=Settings(home=tmp_path / "home")).fetch(progress=False)
