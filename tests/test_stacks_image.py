"""Image: built and published with one call, by the engine that is here or by CodeBuild, and found again by jobs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws
from template import ACCOUNT, REGION, STACK, Template

from genokit import Batch, Image, Settings, backends
from genokit.__main__ import main
from genokit.errors import BuildFailed, ConfigError, InvalidParameters, NotFound
from genokit.stacks.image import _engine, pack

ROOT = Path(__file__).parents[1]
REPOSITORY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{STACK}"

# --- what stands in for docker: it writes down how it was called, and with which files and logins

DOCKER = """#!/bin/sh
echo "$*" >>"{record}/calls"
for last; do :; done
case $1 in
version) echo 28; [ -z "{broken}" ] ;;
login) cat >"{record}/password" ;;
context) echo unix:///run/user/docker.sock ;;
image) [ ! -e "{record}/built" ] || echo sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5 ;;
build)
    (cd "$last" && find . -type f | sed 's,^./,,' | sort) >"{record}/context"
    echo "Step 1/2 : FROM base"; echo "Step 2/2 : RUN pip install"; echo "{error}" >&2
    touch "{record}/built"; [ -z "{error}" ] ;;
push)
    cat >"{record}/stdin"; env >"{record}/environment"
    cp "$DOCKER_CONFIG/config.json" "{record}/login"; ls -ld "$DOCKER_CONFIG" "$REGISTRY_AUTH_FILE" >"{record}/modes" ;;
esac
"""


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *, error: str = "", broken: str = "") -> Path:
    """Programs docker and podman on PATH; returns the folder of what it writes down."""
    record, programs = folder / "record", folder / "bin"
    record.mkdir(exist_ok=True), programs.mkdir(exist_ok=True)
    for name in ("docker", "podman"):
        (programs / name).write_text(DOCKER.format(record=record, error=error, broken=broken))
        (programs / name).chmod(0o755)
    (record / "calls").write_text("")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return record


def calls(record: Path, verb: str) -> list[str]:
    return [line for line in (record / "calls").read_text().splitlines() if line.split()[0] == verb]


def small_checkout(folder: Path) -> Path:
    """A small checkout, with files that do not belong in an image."""
    files = {
        ".dockerignore": (ROOT / ".dockerignore").read_text(),
        ".env": "TOKEN=secret",
        "README.md": "# kit",
        "environments/Dockerfile": "FROM genokit-test:1\nARG ENGINE\nCOPY . /build\n",
        "environments/kit.lock": "numpy==2",
        "environments/README.md": "",
        "genokit/__init__.py": "",
        "genokit/omop/sql/person.sql": "select 1",
        "genokit/__pycache__/a.pyc": "",
        "genokit/omop/__pycache__/b.pyc": "",
        "data_manifests/mnist/datapackage.json": "{}",
        "runs/result.csv": "1",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return small_checkout(tmp_path / "checkout")


OWN = [
    ".dockerignore", "README.md", "data_manifests/mnist/datapackage.json", "environments/Dockerfile",
    "environments/kit.lock", "genokit/__init__.py", "genokit/omop/sql/person.sql",
]  # fmt: skip

# --- what an image is built from


def test_an_image_is_built_from_what_dockerignore_leaves_and_nothing_else(checkout: Path) -> None:
    assert zipfile.ZipFile(io.BytesIO(pack(checkout))).namelist() == OWN


def test_the_same_files_give_the_same_archive_and_a_changed_one_another(checkout: Path, tmp_path: Path) -> None:
    first = pack(checkout)
    shutil.copytree(checkout, tmp_path / "again", copy_function=shutil.copyfile)
    (tmp_path / "again" / "genokit" / "__init__.py").chmod(0o755)
    (tmp_path / "again" / "runs" / "result.csv").write_text("2")
    assert pack(tmp_path / "again") == first
    (tmp_path / "again" / "environments" / "Dockerfile").write_text("FROM genokit-test:2\n")
    assert pack(tmp_path / "again") != first


def test_the_kits_own_checkout_is_small_and_has_what_the_dockerfile_copies() -> None:
    packed = pack(ROOT)
    names = set(zipfile.ZipFile(io.BytesIO(packed)).namelist())
    assert len(packed) < 20e6
    assert {"pyproject.toml", "LICENSE", "environments/kit.lock", "environments/gpu-torch.lock"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", ".git/")) or "__pycache__" in name]


def test_a_folder_without_a_dockerfile_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"environments/Dockerfile.* Name one with folder="):
        pack(tmp_path)


def test_an_unknown_image_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidParameters, match=r"no image 'gpu_torch'\. Did you mean 'gpu-torch'"):
        Image("gpu_torch")


# --- here


def test_without_an_engine_it_says_that_jobs_here_need_no_image(
    account: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    image = Image("cpu", settings=account, folder=tmp_path).publish()
    assert capsys.readouterr().out.startswith("Nothing was built: jobs run here as processes and need no image")
    assert image.reference == ""
    assert "NOT_PUBLISHED" in image._repr_html_()


def test_an_engine_that_does_not_answer_is_none(
    account: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = stand_in(tmp_path, monkeypatch, broken="yes")
    Image("cpu", settings=account, folder=tmp_path).publish()
    assert "Nothing was built" in capsys.readouterr().out
    assert not calls(record, "build")


def test_with_an_engine_it_builds_the_image_for_containers_here(
    account: Settings,
    checkout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = stand_in(tmp_path, monkeypatch)
    image = Image("gpu-torch", settings=account, folder=checkout).publish()
    [build] = calls(record, "build")
    assert {"--tag=genokit:gpu-torch", "--build-arg=ENGINE=gpu-torch"} < set(build.split())
    assert (record / "context").read_text().split() == OWN
    assert image.reference == "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5"
    assert f"image='{image.reference}'" in capsys.readouterr().out
    assert not calls(record, "push")
    assert repr(image) == "<Image gpu-torch here as your user, with no container or IAM isolation>"
    assert image.reference in image._repr_html_()


def test_the_command_line_publishes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = stand_in(tmp_path, monkeypatch)
    assert main(["image", "publish", "gpu", "--again"]) == 0
    [build] = calls(record, "build")
    assert {"--build-arg=ENGINE=gpu", "--no-cache", "--pull"} < set(build.split())
    assert "Built genokit:gpu" in capsys.readouterr().out


# --- on AWS, as moto and Stubber answer for it


class Aws:
    """The stack's repository, in which what docker pushes arrives, and clients that find it."""

    def __init__(self, clients: backends.Clients, record: Path) -> None:
        self.clients = clients
        self.clients.backend = replace(clients.backend, poll_s=0, log_delay_s=0)
        self.ecr = boto3.client("ecr", REGION)
        self.ecr.create_repository(repositoryName=STACK)
        self.record, self.pushed = record, 0
        asked = "before-parameter-build.ecr.DescribeImages"
        self.clients.client("ecr").meta.events.register(asked, lambda **_: self.arrive())

    def arrive(self) -> None:
        for call in calls(self.record, "push")[self.pushed :]:
            self.push(call.rpartition(":")[2])

    def push(self, tag: str) -> None:
        self.pushed += 1
        # moto makes a digest of the layers' digests; without layers it draws one of a hundred.
        manifest = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"size": 1},
            "layers": [{"digest": f"sha256:{self.pushed:064}", "size": 1}],
        }
        self.ecr.put_image(repositoryName=STACK, imageTag=tag, imageManifest=json.dumps(manifest))

    def tags(self) -> dict[str, str]:
        found = self.ecr.describe_images(repositoryName=STACK)["imageDetails"]
        return {tag: one["imageDigest"] for one in found for tag in one.get("imageTags", [])}


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    record = stand_in(tmp_path, monkeypatch)
    with mock_aws():
        clients = backends.Clients(Settings(backend="aws", region=REGION, stack=STACK))
        clients.stack_outputs[STACK] = Template().outputs
        clients.s3.create_bucket(Bucket=clients.bucket)
        yield Aws(clients, record)


def own_tag(checkout: Path, name: str = "cpu") -> str:
    return f"genokit-{name}-{hashlib.sha256(pack(checkout)).hexdigest()[:16]}"


def test_it_builds_pushes_and_names_the_image_by_its_digest(
    aws: Aws, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image("cpu", clients=aws.clients, folder=checkout).publish()
    [build], [push] = calls(aws.record, "build"), calls(aws.record, "push")
    assert {f"--tag={REPOSITORY}:{own_tag(checkout)}", "--platform=linux/amd64"} < set(build.split())
    assert push == f"push {REPOSITORY}:{own_tag(checkout)}"
    assert (aws.record / "context").read_text().split() == OWN
    digest = aws.tags()["genokit-cpu"]
    assert aws.tags() == {"genokit-cpu": digest, own_tag(checkout): digest}
    assert image.reference == f"{REPOSITORY}@{digest}"
    assert f"Published cpu: {image.reference}" in capsys.readouterr().out
    assert "PUBLISHED" in image._repr_html_()


def test_the_password_goes_to_the_engine_in_a_file_that_is_gone_afterwards_and_nowhere_else(
    aws: Aws, checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home" / ".docker").mkdir(parents=True)
    (tmp_path / "home" / ".docker" / "config.json").write_text('{"credsStore": "desktop"}')
    Image("cpu", clients=aws.clients, folder=checkout).publish()
    [given] = aws.ecr.get_authorization_token()["authorizationData"]
    token, password = given["authorizationToken"], base64.b64decode(given["authorizationToken"]).decode()[4:]
    login = json.loads((aws.record / "login").read_text())
    assert login == {"auths": {f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com": {"auth": token}}}
    folder, file = (line.split()[0] for line in (aws.record / "modes").read_text().splitlines())
    assert (folder, file) == ("drwx------", "-rw-------")
    environment = (aws.record / "environment").read_text()
    variables = dict(line.partition("=")[::2] for line in environment.splitlines())
    assert not Path(variables["DOCKER_CONFIG"]).exists()
    assert not Path(variables["REGISTRY_AUTH_FILE"]).exists()
    assert variables["DOCKER_HOST"] == "unix:///run/user/docker.sock"
    assert (tmp_path / "home" / ".docker" / "config.json").read_text() == '{"credsStore": "desktop"}'
    shown = capsys.readouterr()
    for text in (environment, (aws.record / "calls").read_text(), shown.out, shown.err):
        assert token not in text
        assert password not in text


def test_an_image_whose_files_have_not_changed_is_neither_built_nor_pushed_again(
    aws: Aws, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Image("cpu", clients=aws.clients, folder=checkout).publish().reference
    (checkout / "runs" / "result.csv").write_text("2")
    assert Image("cpu", clients=aws.clients, folder=checkout).publish().reference == first
    assert "is up to date: its files have not changed" in capsys.readouterr().out
    assert len(calls(aws.record, "build")) == len(calls(aws.record, "push")) == 1
    assert Image("cpu", clients=aws.clients, folder=checkout).publish(again=True).reference != first
    assert "--pull" in calls(aws.record, "build")[-1]


def test_an_earlier_image_is_published_again_by_its_tag_alone(aws: Aws, checkout: Path) -> None:
    first = Image("cpu", clients=aws.clients, folder=checkout).publish().reference
    (checkout / "genokit" / "__init__.py").write_text("new = 1")
    second = Image("cpu", clients=aws.clients, folder=checkout).publish().reference
    assert first != second
    (checkout / "genokit" / "__init__.py").write_text("")
    assert Image("cpu", clients=aws.clients, folder=checkout).publish().reference == first
    assert len(calls(aws.record, "push")) == 2
    assert f"{REPOSITORY}@{aws.tags()['genokit-cpu']}" == first


def test_a_build_that_fails_publishes_nothing_and_shows_the_last_lines(
    aws: Aws, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, error="No space left on device")
    with pytest.raises(BuildFailed, match=r"exit code 1\. Nothing was published") as failed:
        Image("cpu", clients=aws.clients, folder=checkout).publish()
    assert failed.value.last_lines[-1] == "No space left on device"
    assert "RUN pip install" in str(failed.value)
    assert not calls(aws.record, "push")
    assert aws.tags() == {}


def test_without_a_stack_it_says_what_to_deploy(aws: Aws, checkout: Path, tmp_path: Path) -> None:
    aws.clients.stack_outputs[STACK] = {}
    with pytest.raises(ConfigError, match=r"Deploy it with Stack\('batch'\)\.deploy\(\)"):
        Image("cpu", clients=aws.clients, folder=checkout).publish()


# --- by CodeBuild

BUILD = "genokit-batch-image:8e2f4a10-0000-4000-8000-000000000001"
WHERE = {"groupName": "/genokit/genokit-batch/images", "streamName": "8e2f4a10"}


def page(*lines: str, token: str) -> dict[str, Any]:
    return {"events": [{"timestamp": 1, "message": f"{line}\n"} for line in lines], "nextForwardToken": token}


def by_codebuild(
    aws: Aws, context: bytes, tag: str, end: dict[str, Any] | None = None, *, name: str = "cpu"
) -> tuple[Stubber, ...]:
    """CodeBuild and its log, answering one build in AWS's shapes: queued, running, ended, by default with a push."""
    end = end or {"buildStatus": "SUCCEEDED"}
    codebuild, logs = Stubber(aws.clients.client("codebuild")), Stubber(aws.clients.client("logs"))

    def arrive(parsed: dict[str, Any], **_: object) -> None:
        if parsed["builds"][0]["buildStatus"] == "SUCCEEDED" and tag not in aws.tags():
            aws.push(tag)

    aws.clients.client("codebuild").meta.events.register("after-call.codebuild.BatchGetBuilds", arrive)
    variables = {"CONTEXT": hashlib.sha256(context).hexdigest(), "ENGINE": name, "TAG": tag}
    asked = [{"name": variable, "value": value} for variable, value in variables.items()]
    queued = {
        "id": BUILD,
        "buildStatus": "IN_PROGRESS",
        "buildComplete": False,
        "logs": {"groupName": WHERE["groupName"]},
    }
    running, ended = queued | {"logs": WHERE}, queued | {"logs": WHERE, "buildComplete": True} | end
    codebuild.add_response(
        "start_build", {"build": queued},
        {"projectName": "genokit-batch-image", "environmentVariablesOverride": asked},
    )  # fmt: skip
    for build in (queued, running, running, ended, ended):
        codebuild.add_response("batch_get_builds", {"builds": [build]}, {"ids": [BUILD]})
    place = {"logGroupName": WHERE["groupName"], "logStreamName": WHERE["streamName"], "startFromHead": True}
    logs.add_response("get_log_events", page("Entering phase BUILD", token="f/1"), place)
    logs.add_response("get_log_events", page(token="f/1"), place | {"nextToken": "f/1"})
    logs.add_response("get_log_events", page("Step 1/9", "the end", token="f/2"), place | {"nextToken": "f/1"})
    logs.add_response("get_log_events", page(token="f/2"), place | {"nextToken": "f/2"})
    codebuild.activate(), logs.activate()
    return codebuild, logs


def test_without_an_engine_codebuild_builds_it_from_an_archive_named_by_its_hash(
    aws: Aws, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    context = pack(checkout)
    stubs = by_codebuild(aws, context, own_tag(checkout))
    image = Image("cpu", clients=aws.clients, folder=checkout).publish()
    for stub in stubs:
        stub.assert_no_pending_responses()
    key = f"images/{hashlib.sha256(context).hexdigest()}.zip"
    assert aws.clients.s3.get_object(Bucket=aws.clients.bucket, Key=key)["Body"].read() == context
    assert image.reference == f"{REPOSITORY}@{aws.tags()['genokit-cpu']}"
    said = capsys.readouterr()
    assert "AWS CodeBuild builds the image (project genokit-batch-image)" in said.out
    assert "line" in said.err  # the bar


def test_a_build_by_codebuild_that_fails_says_why_with_its_last_lines(
    aws: Aws, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    phases = [
        {"phaseType": "QUEUED", "phaseStatus": "SUCCEEDED"},
        {"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [{"message": "exit status 1"}]},
    ]
    end = {"buildStatus": "FAILED", "phases": phases}
    by_codebuild(aws, pack(checkout), own_tag(checkout), end)
    with pytest.raises(BuildFailed, match=rf"'{BUILD}' is FAILED \(exit status 1\)") as failed:
        Image("cpu", clients=aws.clients, folder=checkout).publish()
    assert failed.value.last_lines == ["Entering phase BUILD", "Step 1/9", "the end"]
    assert aws.tags() == {}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "damaged"])
def test_the_buildspec_builds_and_pushes_an_archive_of_the_right_hash_only(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """The shell of the template's buildspec, run by bash, with programs that stand in for docker and the AWS CLI."""
    import yaml

    [project] = Template().of("CodeBuild::Project").values()
    [script] = yaml.safe_load(project["Source"]["BuildSpec"])["phases"]["build"]["commands"]
    record = stand_in(tmp_path, monkeypatch)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "bin" / "aws").write_text(
        f'#!/bin/sh\necho "$*" >>{record}/aws\nfor last; do :; done\n'
        f'case $1 in s3) cp {tmp_path}/archive "$last" ;; ecr) echo secret ;; esac\n'
    )
    (tmp_path / "bin" / "aws").chmod(0o755)
    if shutil.which("unzip") is None:  # CodeBuild's image has it, this machine need not
        unzip = tmp_path / "bin" / "unzip"
        unzip.write_text(f'#!/bin/sh\n[ "$1" = -q ] && shift\nexec {sys.executable} -m zipfile -e "$1" "${{3:-.}}"\n')
        unzip.chmod(0o755)
    context = pack(checkout)
    (tmp_path / "archive").write_bytes(context if whole else context + b"!")
    variables = {"BUCKET": "b", "REPOSITORY": REPOSITORY, "TAG": "genokit-cpu-1", "ENGINE": "cpu"}
    variables["CONTEXT"] = hashlib.sha256(context).hexdigest()
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path / "work", env=os.environ | variables, capture_output=True, text=True
    )
    assert (done.returncode == 0) is whole, done.stderr
    assert (record / "aws").read_text().splitlines()[0].split()[-2:] == [
        f"s3://b/images/{variables['CONTEXT']}.zip",
        "context.zip",
    ]
    assert calls(record, "push") == ([f"push {REPOSITORY}:genokit-cpu-1"] if whole else [])
    if whole:
        assert (record / "context").read_text().split() == OWN
        assert (record / "password").read_text() == "secret\n"
        assert calls(record, "login") == [f"login --username AWS --password-stdin {REPOSITORY.partition('/')[0]}"]


# --- what jobs run in


def test_a_definition_pins_the_image_that_was_published_last(aws: Aws) -> None:
    tag = f"{REPOSITORY}:genokit-cpu"
    assert aws.clients.container("genokit")["image"] == tag, "nothing is published yet"
    aws.push("genokit-cpu")
    first = aws.clients.container("genokit")
    assert first["image"] == f"{REPOSITORY}@{aws.tags()['genokit-cpu']}"
    assert first["jobRoleArn"] == Template().outputs["JobRole"]
    aws.push("genokit-cpu")
    assert aws.clients.container("genokit")["image"] != first["image"]
    assert aws.clients.container("genokit:cpu") == aws.clients.container("genokit")
    assert aws.clients.container("genokit", gpus=1)["image"] == f"{REPOSITORY}:genokit-gpu"


def test_any_image_of_the_kit_can_be_named_and_has_the_roles_of_jobs(aws: Aws) -> None:
    aws.push("genokit-gpu-torch")
    named = aws.clients.container("genokit:gpu-torch", gpus=1)
    assert named["image"] == f"{REPOSITORY}@{aws.tags()['genokit-gpu-torch']}"
    assert aws.clients.container(named["image"]) == named
    for other in (f"elsewhere/{STACK}@sha256:1", "biocontainers/bwa:0.7", f"{REPOSITORY}:mine"):
        assert aws.clients.container(other) == {"image": other}


def test_an_image_that_the_stack_was_given_is_not_looked_up(aws: Aws) -> None:
    aws.clients.stack_outputs[STACK]["ImageCpu"] = "example.org/mine:1"
    assert aws.clients.container("genokit")["image"] == "example.org/mine:1"


def test_who_may_not_look_up_images_defines_jobs_by_the_tag(aws: Aws) -> None:
    with Stubber(aws.clients.client("ecr")) as stub:
        stub.add_client_error("describe_images", "AccessDeniedException", "no", http_status_code=400)
        assert aws.clients.container("genokit")["image"] == f"{REPOSITORY}:genokit-cpu"


def test_here_every_name_of_the_kits_image_is_a_process(account: Settings) -> None:
    batch = Batch(settings=account)
    job = batch.submit(batch.define("named", command=["echo", "hello"], image="genokit:gpu-torch", memory_gib=0.1))
    assert job.wait(30).raise_for_status().log() == "hello"


# --- the Dockerfile


def test_the_base_image_still_gets_security_patches() -> None:
    text = (ROOT / "environments" / "Dockerfile").read_text()
    [until] = re.findall(r"patches until (\d{4}-\d{2}-\d{2})", text)
    if date.fromisoformat(until) < date.today():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"environments/Dockerfile: no patches since {until}. Choose a newer BASE.", stacklevel=1)


def test_every_image_has_its_packages_in_a_lock_with_hashes() -> None:
    text = (ROOT / "environments" / "Dockerfile").read_text()
    for name in ("kit", "gpu", "gpu-torch"):
        assert f"--require-hashes -r /build/environments/{name}.lock" in text
    lock = (ROOT / "environments" / "gpu-torch.lock").read_text()
    assert re.search(r"^torch==2\.\d+\.\d+ \\\n    --hash=sha256:", lock, re.MULTILINE)
    assert "://" not in lock
    kit = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "environments" / "kit.lock").read_text(), re.MULTILINE))
    for name, version in re.findall(r"^(\S+)==(\S+)", lock, re.MULTILINE):
        assert kit.get(name, version) == version, f"{name}: run make lock"


# --- with a real engine: make test-containers


@pytest.fixture
def base() -> Iterator[None]:
    """A base image of this machine's own static busybox, so that no registry is needed."""
    program = shutil.which("busybox")
    assert program, "this test makes its image of a static busybox (Debian, Ubuntu: apt install busybox-static)"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(os.path.realpath(program), "bin/busybox")
        for tool in ("find", "sh", "sort"):
            link = tarfile.TarInfo(f"bin/{tool}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    engine, users_own = _engine(), Image("cpu").reference
    subprocess.run([engine, "import", "-", "genokit-test:1"], input=packed.getvalue(), check=True, capture_output=True)
    yield
    subprocess.run([engine, "rmi", "--force", "genokit:cpu", "genokit-test:1"], check=False, capture_output=True)
    if users_own:
        subprocess.run([engine, "tag", users_own, "genokit:cpu"], check=True, capture_output=True)


@pytest.mark.containers
@pytest.mark.usefixtures("base")
def test_an_image_built_by_a_real_engine_has_the_files_that_the_engine_itself_would_take(
    account: Settings, checkout: Path
) -> None:
    image = Image("cpu", settings=account, folder=checkout).publish()
    batch = Batch(settings=account)
    find = ["sh", "-c", "find /build -type f | sort"]
    found = [batch.submit(batch.define("files", command=find, image=image.reference, memory_gib=0.1)).wait(60).log()]
    direct = [_engine(), "build", f"--file={checkout}/environments/Dockerfile", "--tag=genokit:cpu", str(checkout)]
    subprocess.run(direct, check=True, capture_output=True)
    by_engine = Image("cpu", settings=account, folder=checkout).reference
    found.append(batch.submit(batch.define("files", command=find, image=by_engine, memory_gib=0.1)).wait(60).log())
    assert found[0] == found[1]
    listed = [line.removeprefix("/build/") for line in found[0].splitlines()]
    assert listed == [name for name in OWN if name not in (".dockerignore", "environments/Dockerfile")]
    assert image.reference.startswith("sha256:") or re.fullmatch("[0-9a-f]{64}", image.reference)
