"""Code and rows for jobs: packed, stored once, unpacked where the job begins; embedded, and with the S3 of moto."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from embedded import Box, wait_until
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from genokit import Cdm, Settings, backends, omop, storage
from genokit.backends import Clients
from genokit.batch.shipping import archive, bootstrap, job_command, rows
from genokit.errors import GenokitError, HashMismatch, InvalidProject, InvalidRequest


@pytest.fixture(params=["embedded", "aws"])
def clients(request, account, monkeypatch):
    """Clients of an account with a bucket for the kit: an embedded one, and one of AWS as far as moto plays it."""
    if request.param == "embedded":
        yield backends.clients(account)
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="lab")
        settings = Settings(backend="aws", home=account.home, region="us-east-1")
        clients = Clients(settings, s3=s3)
        clients.stack_outputs[settings.stack] = {"Bucket": "lab"}
        yield clients


@pytest.fixture
def embedded(account) -> Clients:
    return backends.clients(account)


@pytest.fixture
def project(tmp_path) -> Path:
    return written(tmp_path / "project", {"fit.py": "print('old')", "lab/__init__.py": "", "data/notes.md": "é"})


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def git(root: Path, *words: str) -> None:
    named = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *named, *words], cwd=root, check=True, capture_output=True)


def archived(clients: Clients, uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bytes(clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def shipped(clients: Clients, folder: Path) -> list[str]:
    """The names in the archive of a folder."""
    with tarfile.open(fileobj=io.BytesIO(archived(clients, archive.ship(clients, folder)))) as tar:
        return tar.getnames()


# --- what is shipped


def test_a_folder_is_shipped_under_the_hash_of_its_archive(clients, project):
    uri = archive.ship(clients, project)
    data = archived(clients, uri)
    assert uri == f"s3://{clients.bucket}/code/{hashlib.sha256(data).hexdigest()}.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["data/notes.md", "fit.py", "lab/__init__.py"]
        assert {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in tar} == {(0, 0, 0, "", "")}


def test_the_same_files_are_the_same_archive_whenever_and_wherever(embedded, project, tmp_path):
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o700)
    first = archive.ship(embedded, project)
    copy = tmp_path / "elsewhere"
    for name in sorted(["fit.py", "lab/__init__.py", "data/notes.md", "run.sh"], reverse=True):
        written(copy, {name: (project / name).read_text()})
        os.utime(copy / name, (0, 0))
        (copy / name).chmod(0o600)
    (copy / "run.sh").chmod(0o755)
    assert archive.ship(embedded, copy) == first
    (copy / "run.sh").chmod(0o644)
    assert archive.ship(embedded, copy) != first


def test_what_is_there_is_not_sent_again(clients, project):
    uri = archive.ship(clients, project)
    sent: list[str] = []
    clients.s3.meta.events.register("before-parameter-build.s3.PutObject", lambda **_: sent.append("put"))
    assert archive.ship(clients, project) == uri
    assert sent == []
    (project / "fit.py").write_text("print('new')")
    assert archive.ship(clients, project) != uri
    assert sent == ["put"]


def test_with_git_what_it_tracks_and_what_it_does_not_ignore(embedded, project):
    written(project, {".gitignore": "*.csv\n", "big.csv": "1", "new é.py": "", "gone.py": ""})
    git(project, "init", "-q")
    git(project, "add", "fit.py", ".gitignore", "gone.py")
    git(project, "commit", "-qm", "x")
    (project / "gone.py").unlink()
    written(project / "inner", {"a.py": "", "b.csv": "", ".gitignore": "*.csv"})
    git(project / "inner", "init", "-q")
    assert shipped(embedded, project) == [
        ".gitignore", "data/notes.md", "fit.py", "inner/.gitignore", "inner/a.py", "lab/__init__.py", "new é.py",
    ]  # fmt: skip
    assert shipped(embedded, project / "lab") == ["__init__.py"]


def test_without_git_all_but_what_is_nobodys_work(embedded, project, monkeypatch, tmp_path):
    others = [".git/config", ".venv/bin/python", "lab/__pycache__/x.pyc", "runs/1/a"]
    written(project, dict.fromkeys([*others, "x.csv"], ""))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shipped(embedded, project) == ["data/notes.md", "fit.py", "lab/__init__.py", "x.csv"]


@pytest.mark.parametrize("with_git", [True, False])
def test_the_account_s_own_folders_are_never_shipped(project, with_git):
    if with_git:
        git(project, "init", "-q")
    settings = Settings(home=project / ".account", runs=project / "lab" / "out", cache=project / "cache")
    clients = backends.clients(settings)
    written(project, {"cache/a": "", "lab/out/1": ""})
    names = shipped(clients, project)
    assert shipped(clients, project) == names == ["data/notes.md", "fit.py", "lab/__init__.py"]


def test_secrets_by_habit_are_left_out_and_named(embedded, project):
    secrets = [".env", ".env.local", ".aws/config", "keys/lab.pem", "id_rsa", "credentials.json", ".netrc", "lab/X.KEY"]
    written(project, dict.fromkeys([*secrets, ".env.example", "id_rsa.pub", "environment.py"], "x"))
    with pytest.warns(UserWarning, match="hold secrets") as warned:
        names = shipped(embedded, project)
    assert names == [".env.example", "data/notes.md", "environment.py", "fit.py", "id_rsa.pub", "lab/__init__.py"]
    assert all(name in str(warned[0].message) for name in secrets)


NAMED = """
    .docker/config.json.bak kaggle_me.json a.token auth.json .authinfo .odbc.ini .dbt/profiles.yml jpserver-1.json
    rootkey.csv lab_accessKeys.csv new_user_credentials.csv secrets.toml .streamlit/secrets.toml .envrc prod.env
    .env.bak .ENV application_default_credentials.json .docker/config.json kaggle.json .kaggle/kaggle.json
    .huggingface/token .cache/huggingface/token .vault-token kubeconfig my.kubeconfig .kube/config terraform.tfstate
    terraform.tfstate.backup prod.auto.tfvars pip.conf id_rsa.bak id_rsa.old id_ed25519~ .npmrc .netrc .netrc.save
    _netrc .pgpass keys/a.p12 a.pfx service-account.json service_account_prod.json .ssh/config
    .config/gcloud/access_tokens.db .config/gh/hosts.yml .Renviron .Rhistory .pypirc .git-credentials .my.cnf .s3cfg
    .boto .databrickscfg .synapseConfig prj_1.ngc token hf_token.txt openai_api_key.txt api-key credentials.yaml
    secrets/db.txt passwords.txt .bash_history key.pem.bak site.keytab .dnanexus_config/unsetenv
    client_secret_123.json firebase-adminsdk-x.json .terraformrc vault_pass.txt .id_rsa.swp
"""
CODE = """
    secrets.py lab/token.py tokenizer.json added_tokens.json special_tokens_map.json credentials.md .env.example
    env.yml environment.yml id_rsa.pub keys.tsv tokens.csv keyboard.toml docker/config.json hosts.yml envs/lab.yml
    monkey.csv .github/workflows/ci.yml config.json data.json passwords_test.py params.toml keychain.R .dockerignore
    .condarc
"""


@pytest.mark.parametrize("with_git", [True, False])
def test_files_that_hold_secrets_by_their_names_are_left_out_and_named_and_code_is_not(embedded, tmp_path, with_git):
    secrets, code = NAMED.split(), CODE.split()
    project = written(tmp_path / "project", dict.fromkeys([*secrets, *code], "x"))
    if with_git:
        git(project, "init", "-q")
        git(project, "add", "-f", ".")
    with pytest.warns(UserWarning, match="hold secrets") as warned:
        names = shipped(embedded, project)
    assert names == sorted(code)
    left_out = str(warned[0].message).partition("': ")[2].partition(" (such files hold secrets)")[0]
    assert sorted(left_out.split(", ")) == sorted(secrets)


# Put together here, so that this file is not itself left out of what is shipped.
TOLD = {
    "a private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "an access key of AWS": "AKIA" + "Q" * 16,
    "a secret key of AWS": 'aws_secret_access_key = "' + "a1/B" * 10 + '"',
    "an address signed for S3": "https://x.s3.amazonaws.com/a?X-Amz-Signature=" + "0f" * 32,
    "a token of GitHub": "ghp_" + "a1B2" * 9,
    "a token of GitLab": "glpat-" + "a1B2" * 5,
    "a token of Hugging Face": "hf_" + "aB" * 17,
    "a token of npm": "npm_" + "a1B2" * 9,
    "a token of PyPI": "pypi-AgEIcHlwaS5vcmc" + "a" * 60,
    "a token of Slack": "xoxb-" + "1" * 12 + "-abc",
    "a key of OpenAI or Anthropic": "sk-ant-api03-" + "a" * 30,
    "a key of Google": "AIza" + "a" * 35,
    "a key of Azure": "AccountKey=" + "a" * 86 + "==",
    "a token of Databricks": "dapi" + "0f" * 16,
    "a token of Vault": "hvs." + "a" * 24,
    "a token of Anaconda": "https://conda.anaconda.org/t/ab-" + "0f" * 18 + "/lab",
    "a token of another service": "gsk_" + "a1" * 20,
    "a JSON Web Token": "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + "." + "c" * 20,
    "a token in an address": "http://localhost:8888/lab?token=" + "0f" * 24,
}


@pytest.mark.parametrize("kind", TOLD)
def test_a_notebook_with_a_secret_in_its_output_is_left_out_and_the_secret_is_not_told(embedded, project, kind):
    output = {"output_type": "stream", "name": "stdout", "text": [f"using {TOLD[kind]}\n"]}
    cell = {"cell_type": "code", "execution_count": 1, "metadata": {}, "outputs": [output], "source": ["x"]}
    written(project, {"nb.ipynb": json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})})
    with pytest.warns(UserWarning, match=rf"nb\.ipynb \(has {kind} in it\)") as warned:
        names = shipped(embedded, project)
    assert names == ["data/notes.md", "fit.py", "lab/__init__.py"]
    assert TOLD[kind] not in str(warned[0].message)


def test_pictures_hashes_and_the_examples_of_manuals_are_no_secrets(embedded, project):
    random.seed(7)
    harmless = {
        "nb.ipynb": json.dumps({"image/png": base64.b64encode(random.randbytes(8 * 2**20)).decode()}),
        "manual.md": "AKIAIOSFODNN7EXAMPLE, aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "lock.txt": f"--hash=sha256:{'0f' * 32}\nsk-learn task-{'a' * 50} hf_hub_download npm_config_registry",
    }
    written(project, harmless)
    assert set(harmless) <= set(shipped(embedded, project))


@pytest.fixture(scope="module")
def made_of_patients(tmp_path_factory) -> Path:
    """What the kit makes of patients' rows, in folders of its own and in one of the user's."""
    root = tmp_path_factory.mktemp("patients")
    source = omop.synthetic(root / "mimic", persons=5, density=0.02, progress=False)
    omop.etl(source, root / "omop", progress=False)
    cohort = Cdm(root / "omop").cohort(visit=9201)
    cohort.to_parquet(root / "cohorts")
    cohort.to_parquet(root)
    Cdm(root / "omop").characterize(results=root / "counts.db", progress=False)
    written(root / "reports", {"notes.md": ""})
    # The tables of the first run are not made again; the mark of their folder is.
    shutil.copytree(root / "omop" / ".work", root / "reports" / ".work", ignore=shutil.ignore_patterns(".gitignore"))
    omop.etl(source, root / "reports", progress=False)  # a folder of the user's own is not marked, what is put in is
    return root


@pytest.mark.parametrize("with_git", [True, False])
def test_what_the_kit_made_of_patients_rows_is_marked_and_never_shipped(
    account, embedded, project, made_of_patients, with_git
):
    if with_git:
        git(project, "init", "-q")
    shutil.copytree(made_of_patients, project, symlinks=True, dirs_exist_ok=True)
    backends.account(Settings(home=project / "second"))
    backends.clients(Settings(home=project / "second")).s3.put_object(Bucket="genokit", Key="a", Body=b"x")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        names = shipped(embedded, project)
    shown = ["data/notes.md", "fit.py", "lab/__init__.py", "reports/cdm", "reports/notes.md"]
    assert [name for name in names if name != "reports/omop.duckdb"] == shown
    assert "counts.db" in str(warned[0].message)
    if with_git:
        git(project, "add", ".")
        git(project, "add", "-f", "omop")
        with pytest.warns(UserWarning, match=r"omop/ \(marked as data\)"):
            assert "reports/notes.md" in (again := shipped(embedded, project))
        assert not any(name.startswith(("omop", "mimic", "cohort", "second")) for name in again)
        staged = subprocess.run(["git", "diff", "--cached", "--name-only"], cwd=project, capture_output=True, text=True)
        assert not [one for one in staged.stdout.split() if one.endswith(".parquet") and not one.startswith("omop/")]
    with pytest.raises(InvalidProject, match="marked as data"):
        archive.ship(embedded, project / "omop")


# --- what is refused


def test_a_folder_that_is_too_large_is_refused_with_its_largest_files(embedded, project, monkeypatch):
    monkeypatch.setattr(archive, "MOST_MIB", 5)
    random.seed(7)
    for number in range(7):
        (project / f"big{number}.bin").write_bytes(random.randbytes((9 + number) * 1024 * 1024 // 10))
    with pytest.raises(
        InvalidProject, match=r"more than 5 MiB.*big6\.bin \(1\.5 MiB\), big5.*big2.*\. Keep data"
    ) as caught:
        archive.ship(embedded, project)
    assert "big1" not in str(caught.value)
    assert "Contents" not in embedded.s3.list_objects_v2(Bucket=embedded.bucket)


def test_links_inside_stay_links_and_links_out_are_refused(embedded, project, tmp_path):
    (project / "latest").symlink_to("data/notes.md")
    (project / "lab" / "data").symlink_to("../data")
    (project / "absolute").symlink_to(project / "fit.py")
    (project / "loop").symlink_to("loop")
    with tarfile.open(fileobj=io.BytesIO(archived(embedded, archive.ship(embedded, project)))) as tar:
        links = {one.name: one.linkname for one in tar if one.issym()}
    assert links == {"latest": "data/notes.md", "lab/data": "../data", "absolute": "fit.py", "loop": "loop"}
    for target in (tmp_path, "../../etc", "/etc/passwd", "lab/../../x"):
        (project / "out").symlink_to(target)
        with pytest.raises(InvalidProject, match=r"out' leads out of the project"):
            archive.ship(embedded, project)
        (project / "out").unlink()
    (tmp_path / "door").symlink_to("/etc")
    (project / "through").symlink_to(tmp_path / "door")
    with pytest.raises(InvalidProject, match="through"):
        archive.ship(embedded, project)


def test_what_cannot_be_shipped_says_why(embedded, project, tmp_path):
    with pytest.raises(InvalidProject, match="There is no folder"):
        archive.ship(embedded, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidProject, match="no file to ship"):
        archive.ship(embedded, tmp_path / "empty")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(os.path.relpath(project / "socket"))
        with pytest.raises(InvalidProject, match="socket' is not a file"):
            archive.ship(embedded, project)


def test_a_bucket_that_is_not_there_is_a_clear_error(account, project):
    clients = Clients(account)
    clients.stack_outputs[account.stack] = {"Bucket": "nobody-has-this"}
    with pytest.raises(GenokitError, match="nobody-has-this"):
        archive.ship(clients, project)


# --- unpacking


def test_what_was_shipped_is_unpacked(clients, project, tmp_path, monkeypatch):
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "latest").symlink_to("data/notes.md")
    uri = archive.ship(clients, project)
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    folder = bootstrap.unpack(clients, uri)
    assert folder == tmp_path / "job" / "code"
    assert (folder / "latest").read_text() == "é"
    assert os.access(folder / "run.sh", os.X_OK)
    assert not os.access(folder / "fit.py", os.X_OK)
    assert bootstrap.unpack(clients, uri) != folder  # there is a folder 'code' already: it is left alone


def test_an_archive_that_was_changed_is_refused_before_anything_is_written(clients, project, tmp_path, monkeypatch):
    uri = archive.ship(clients, project)
    clients.s3.put_object(
        Bucket=clients.bucket, Key=uri.partition("code/")[1] + uri.partition("code/")[2], Body=b"other"
    )
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    with pytest.raises(HashMismatch, match="is not what was shipped"):
        bootstrap.unpack(clients, uri)
    assert os.listdir() == []


def made_by_hand(clients: Clients, *entries: tarfile.TarInfo) -> str:
    """An archive that shipping never makes, under its right hash."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for one in entries:
            tar.addfile(one, io.BytesIO(b"x" * one.size))
    data = gzip.compress(packed.getvalue())
    key = f"code/{hashlib.sha256(data).hexdigest()}.tar.gz"
    clients.s3.put_object(Bucket=clients.bucket, Key=key, Body=data)
    return f"s3://{clients.bucket}/{key}"


def entry_of(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    one = tarfile.TarInfo(name)
    one.type, one.linkname, one.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return one


ESCAPES = {
    "up": [entry_of("../escaped")],
    "up inside": [entry_of("a/../../escaped")],
    "link out": [entry_of("a", tarfile.SYMTYPE, "../.."), entry_of("a/escaped")],
    "absolute": [entry_of("/escaped")],
    "over itself": [entry_of("a"), entry_of("a")],
    "link through a link": [entry_of("a", tarfile.SYMTYPE, "."), entry_of("a/b", tarfile.SYMTYPE, "../..")],
    "folder": [entry_of("a", tarfile.DIRTYPE)],
    "absolute link": [entry_of("a", tarfile.SYMTYPE, "/etc")],
    "hard link out": [entry_of("a", tarfile.LNKTYPE, "../../secret")],
    "device": [entry_of("a", tarfile.CHRTYPE)],
}


@pytest.mark.parametrize("kind", ESCAPES)
def test_an_archive_that_leads_out_is_refused(embedded, tmp_path, monkeypatch, kind):
    uri = made_by_hand(embedded, *ESCAPES[kind])
    (tmp_path / "x" / "job").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "x" / "job")
    with pytest.raises(InvalidRequest, match="cannot be unpacked"):
        bootstrap.unpack(embedded, uri)
    inside = tmp_path / "x" / "job" / "code"
    assert [one for one in tmp_path.rglob("escaped") if not one.is_relative_to(inside)] == []


def test_an_archive_with_a_header_of_gigabytes_is_refused_before_it_fills_the_memory(embedded, tmp_path, monkeypatch):
    header = tarfile.TarInfo("a")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    bomb = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**24), 1)
    for data in (bomb, b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 99):
        key = f"code/{hashlib.sha256(data).hexdigest()}.tar.gz"
        embedded.s3.put_object(Bucket=embedded.bucket, Key=key, Body=data)
        monkeypatch.chdir(tmp_path)
        tracemalloc.start()
        with pytest.raises(InvalidRequest, match="cannot be unpacked"):
            bootstrap.unpack(embedded, f"s3://{embedded.bucket}/{key}")
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()


def test_an_object_larger_than_any_archive_is_not_read_to_its_end(embedded, tmp_path, monkeypatch):
    key = f"code/{'0' * 64}.tar.gz"
    with (tmp_path / "large").open("wb") as file:
        file.truncate(80 * 2**20)
    embedded.s3.upload_file(str(tmp_path / "large"), embedded.bucket, key)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HashMismatch) as caught:
        bootstrap.unpack(embedded, f"s3://{embedded.bucket}/{key}")
    whole = hashlib.sha256((tmp_path / "large").read_bytes()).hexdigest()
    assert caught.value.got != whole


def test_a_damaged_archive_is_replaced_when_it_is_submitted_again(clients, project):
    uri = archive.ship(clients, project)
    key, whole = uri.removeprefix(f"s3://{clients.bucket}/"), archived(clients, uri)
    for damaged in (whole[:-10], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        clients.s3.put_object(Bucket=clients.bucket, Key=key, Body=damaged)
        assert archive.ship(clients, project) == uri
        assert archived(clients, uri) == whole


def test_what_somebody_else_ships_at_the_same_moment_is_no_error(clients):
    data = b"[]"
    key = f"rows/{hashlib.sha256(data).hexdigest()}.json"

    def overtake(**_: object) -> None:
        clients.s3.meta.events.unregister("before-parameter-build.s3.PutObject", overtake)
        clients.s3.put_object(Bucket=clients.bucket, Key=key, Body=data)

    clients.s3.meta.events.register("before-parameter-build.s3.PutObject", overtake)
    address = f"s3://{clients.bucket}/{key}"
    assert not storage.write_if_absent(address, data, sha256=hashlib.sha256(data).hexdigest(), clients=clients)
    assert archived(clients, address) == data


# --- rows


def test_rows_come_back_and_are_stored_once(clients):
    given_rows = [{"rate": "0.1", "name": "é; rm -rf"}, {"rate": "", "name": "b"}]
    uri = rows.store(clients, given_rows)
    assert uri.startswith(f"s3://{clients.bucket}/rows/")
    assert rows.store(clients, given_rows) == uri
    assert rows.load(clients, uri) == given_rows
    clients.s3.put_object(Bucket=clients.bucket, Key=uri.removeprefix(f"s3://{clients.bucket}/"), Body=b"[]")
    with pytest.raises(HashMismatch, match="is not what was shipped"):
        rows.load(clients, uri)


def test_a_command_without_code_and_rows_is_left_as_it_is():
    assert job_command.wrapped(["a", "Ref::b"], code=None, rows=None, columns={"b"}) == ["a", "Ref::b"]
    wrapped = job_command.wrapped(["a", "Ref::b", "Ref::c"], code="s3://x/code/1", rows=None, columns=set())
    assert wrapped[-5:] == ["s3://x/code/1", "--", "a", "Ref::b", "Ref::c"]


WORDS = st.text(max_size=8) | st.sampled_from(["Ref::a", "Ref::b", "Row::a", "--", "--code", "", "x Ref::a"])


@given(st.lists(WORDS, min_size=1), st.dictionaries(st.sampled_from(["a", "b", ""]), st.text(), max_size=2))
def test_a_row_fills_whole_words_and_touches_no_other(words, row):
    words = [word for word in words if not word.startswith("Row::")] or ["x"]
    wrapped = job_command.wrapped(words, code="s3://code", rows="s3://rows", columns=set(row))
    code, uri, inner = job_command.parsed(wrapped[3:])
    assert (code, uri) == ("s3://code", "s3://rows")
    expected = [row.get(word.removeprefix("Ref::"), word) if word.startswith("Ref::") else word for word in words]
    assert job_command.filled(inner, row) == expected


# --- the entry point as a process


def begin(account: Settings, folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, *words[1:]] if words[0] == "python" else list(words),
        cwd=folder,
        env=os.environ | account.environ() | environment,
        capture_output=True,
        text=True,
    )


def test_the_command_takes_the_place_of_the_entry_point(account, embedded, project, tmp_path):
    (project / "lab" / "__init__.py").write_text("where = __file__")
    code, table = archive.ship(embedded, project), rows.store(embedded, [{"x": "a"}, {"x": "$(b) 'c'\n"}])
    say = "import lab, os, sys; print(lab.where, os.getcwd(), sys.argv[1:]); sys.exit(7)"
    words = job_command.wrapped([sys.executable, "-c", say, "Ref::x", "x=Ref::x"], code=code, rows=table, columns={"x"})
    done = begin(account, tmp_path / "job", *words, AWS_BATCH_JOB_ARRAY_INDEX="1", PYTHONPATH=os.pathsep.join(sys.path))
    folder = tmp_path / "job" / "code"
    filled = ["$(b) 'c'\n", "x=Ref::x"]
    assert done.stdout == f"{folder}/lab/__init__.py {folder} {filled}\n"
    assert (done.returncode, done.stderr) == (7, "")
    first = job_command.wrapped(["echo", "Ref::x"], code=None, rows=table, columns={"x"})
    assert begin(account, tmp_path / "job", *first).stdout == "a\n"


def test_signals_reach_the_command_itself(account, embedded, project, tmp_path):
    (project / "fit.py").write_text("import os; print(os.getpid(), flush=True); import time; time.sleep(60)")
    words = job_command.wrapped(
        [sys.executable, "fit.py"], code=archive.ship(embedded, project), rows=None, columns=set()
    )
    told = {"cwd": tmp_path, "env": os.environ | account.environ(), "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, *words[1:]], **told) as process:
        assert process.stdout
        assert int(process.stdout.readline()) == process.pid
        process.terminate()
        assert process.wait(240) == -signal.SIGTERM


def test_a_pipe_that_closes_ends_the_command_as_in_a_shell(account, embedded, tmp_path):
    table = rows.store(embedded, [{"x": "1"}])
    words = job_command.wrapped(["sh", "-c", "yes | head -1; true"], code=None, rows=table, columns={"x"})
    done = begin(account, tmp_path, *words)
    assert (done.stdout, done.stderr, done.returncode) == ("y\n", "", 0)


@pytest.mark.parametrize(
    ("words", "index", "code", "said"),
    [
        (["--rows", "ROWS", "--", "true"], "2", 2, "child 2 of an array with 2 rows"),
        (["--rows", "ROWS", "--", "true"], "-1", 2, "child -1 of an array"),
        (["--rows", "ROWS"], "0", 2, "Expected [--code URI]"),
        (["--rows", "s3://genokit/rows/none.json", "--", "true"], "0", 2, "There is no object"),
        (["--rows", "ROWS", "--", "no-such-program"], "0", 127, "no program 'no-such-program'"),
        (["--rows", "ROWS", "--", "/etc"], "0", 126, "'/etc' cannot be run"),
    ],
)
def test_what_cannot_begin_says_so_in_one_line(account, embedded, tmp_path, words, index, code, said):
    table = rows.store(embedded, [{"x": "a"}, {"x": "b"}])
    words = [table if word == "ROWS" else word for word in words]
    done = begin(account, tmp_path, "python", "-m", "genokit.batch.entry", *words, AWS_BATCH_JOB_ARRAY_INDEX=index)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.startswith("genokit: ")
    assert done.stderr.count("\n") == 1


def test_on_aws_the_entry_point_asks_s3(account, embedded, project, tmp_path):
    """A job's container on AWS: the settings that a definition brings, boto3's own client, S3 over the wire."""
    code, table = archive.ship(embedded, project), rows.store(embedded, [{"x": "a"}])
    asked: list[tuple[str, bool]] = []

    class S3(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, "Authorization" in self.headers))
            body = archived(embedded, f"s3:/{self.path}")
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), S3) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        aws = {"GENOKIT_BACKEND": "aws", "GENOKIT_STACK": "lab", "GENOKIT_REGION": "eu-central-1"}
        keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "NO_PROXY": "127.0.0.1"}
        there = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}"}
        words = job_command.wrapped([sys.executable, "fit.py", "Ref::x"], code=code, rows=table, columns={"x"})
        done = begin(account, tmp_path / "job", *words, **aws, **keys, **there)
        server.shutdown()
    assert (done.stdout, done.stderr, done.returncode) == ("old\n", "", 0)
    assert asked == [(f"/{uri.removeprefix('s3://')}", True) for uri in (table, code)]


def test_the_entry_point_loads_little():
    code = (
        "import sys; before = set(sys.modules); import genokit.batch.entry; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names) - {'genokit'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


# --- real jobs


@pytest.fixture
def box(account) -> Box:
    return Box(account)


def test_a_changed_file_runs_in_the_next_job(embedded, box, project):
    said = []
    for text in ("old", "new"):
        (project / "fit.py").write_text(f"import lab; print('{text}', lab.__name__)")
        words = job_command.wrapped(
            ["python", "fit.py"], code=archive.ship(embedded, project), rows=None, columns=set()
        )
        job_id = box.submit(box.define(*words))
        assert box.wait(job_id)["status"] == "SUCCEEDED", box.written(job_id)
        said += box.written(job_id)
    assert said == ["old lab", "new lab"]


def test_each_child_of_an_array_gets_its_row(embedded, box):
    given_rows = [{"rate": f"0.{number}", "name": f"n {number}; 'x'"} for number in range(3)]
    table = rows.store(embedded, given_rows)
    words = job_command.wrapped(
        ["echo", "Ref::rate", "Ref::name", "Ref::out"], code=None, rows=table, columns={"rate", "name"}
    )
    job_id = box.submit(box.define(*words), arrayProperties={"size": 3}, parameters={"out": "s3://lab/out"})
    assert box.wait(job_id)["status"] == "SUCCEEDED"
    said = [box.written(f"{job_id}:{number}") for number in range(3)]
    assert said == [[f"0.{number} n {number}; 'x' s3://lab/out"] for number in range(3)]


def test_a_job_s_failure_is_the_command_s_own(embedded, box, project):
    (project / "fit.py").write_text("import sys; sys.exit(9)")
    words = job_command.wrapped(["python", "fit.py"], code=archive.ship(embedded, project), rows=None, columns=set())
    job = box.wait(box.submit(box.define(*words)))
    assert (job["status"], job["container"]["exitCode"]) == ("FAILED", 9)


def test_terminating_a_job_with_code_ends_it_at_once(embedded, box, project):
    (project / "fit.py").write_text("import time; print('here', flush=True); time.sleep(60)")
    words = job_command.wrapped(["python", "fit.py"], code=archive.ship(embedded, project), rows=None, columns=set())
    job_id = box.submit(box.define(*words))
    box.wait(job_id, "RUNNING")
    wait_until(lambda: box.written(job_id))
    box.batch.terminate_job(jobId=job_id, reason="enough")
    assert box.wait(job_id)["container"]["exitCode"] == 143  # after the grace it would be 137
