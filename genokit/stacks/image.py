"""Image: build the kit's job image and publish it where jobs find it, with one call."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen, run
from tempfile import TemporaryDirectory
from typing import Any

from genokit import backends, storage
from genokit.backends import Clients, translated_errors
from genokit.config import Settings
from genokit.display import Html, card
from genokit.errors import BuildFailed, InvalidParameters, NotFound, did_you_mean
from genokit.files import write_atomic
from genokit.stacks.progress import follow_lines, say

NAMES = ("cpu", "gpu", "gpu-torch")
DOCKERFILE = "environments/Dockerfile"
# ECR answers with the manifest as it was pushed only to those who accept its type.
MANIFESTS = ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"]


class Image:
    """The kit's image for jobs: this checkout, in a container.

    Parameters
    ----------
    name : str, default "cpu"
        "cpu"; "gpu", with MXNet for CUDA 11.2; or "gpu-torch", with PyTorch for CUDA 13.
    folder : path, optional
        The checkout to build. Default: the one that this package is imported from.
    clients : Clients, optional
        Clients of the account; by default those of the settings.
    settings : Settings, optional
        By default those of ``genokit.toml`` and the environment.

    Raises
    ------
    InvalidParameters
        There is no image of this name.

    Examples
    --------
    >>> from genokit import Image, Settings
    >>> Image("gpu-torch", settings=Settings(backend="local"))
    <Image gpu-torch here as your user, with no container or IAM isolation>
    """

    def __init__(
        self,
        name: str = "cpu",
        *,
        folder: str | os.PathLike[str] | None = None,
        clients: Clients | None = None,
        settings: Settings | None = None,
    ) -> None:
        if name not in NAMES:
            raise InvalidParameters(f"There is no image '{name}'. {did_you_mean(str(name), NAMES)}")
        self.name = name
        self.folder = Path(folder) if folder is not None else Path(__file__).parents[2]
        self._given, self._settings = clients, settings

    @cached_property
    def clients(self) -> Clients:
        return self._given or backends.clients(self._settings)

    @property
    def reference(self) -> str:
        """The published image for ``batch.define(image=...)``; empty if it is not published.

        On AWS ``repository@sha256:...``; here the id of the image in docker or podman.
        """
        if self.clients.backend.offers("ecr"):
            digest = self.clients.image_digest(f"{self._repository}:genokit-{self.name}")
            return digest and f"{self._repository}@{digest}"
        return _ask(_engine(), "image", "inspect", "--format={{.Id}}", f"genokit:{self.name}")

    def publish(self, *, again: bool = False) -> Image:
        """Build the image and put it where jobs find it, unless the image of these files is already there.

        On AWS it is built with docker or podman, or where neither answers, by AWS CodeBuild; it goes to the stack's
        repository, and definitions made from then on use it. Here docker or podman builds ``genokit:<name>`` for
        containers; jobs with the image ``genokit`` run as processes and need none.

        Parameters
        ----------
        again : bool, default False
            Build it even if its files have not changed, to get the patches of the base image.

        Returns
        -------
        Image
            This image; ``reference`` names it by its digest.

        Raises
        ------
        NotFound
            There is no checkout of the kit to build from.
        ConfigError
            The stack is not deployed.
        BuildFailed
            The image could not be built or pushed; the last lines of the log are in the error.
        AccessDenied
            Publishing needs the policy "deployer".

        Examples
        --------
        On AWS, after ``Stack("batch").deploy()``::

            image = Image("gpu-torch").publish()
            batch.define("train", command=["python", "train.py"], image=image.reference, gpus=1)
        """
        engine, local = _engine(), f"genokit:{self.name}"
        options = ["--no-cache", "--pull"] if again else []
        if self.clients.backend.offers("ecr"):
            self._publish_to_ecr(engine, options)
        elif engine:
            self._build(engine, pack(self.folder), local, *options)
            say(f"Built {local}: image={self.reference!r} runs a job in it. With image='genokit' a job is a process.")
        else:
            say("Nothing was built: jobs run here as processes and need no image; containers need docker or podman.")
        return self

    # --- with docker or podman

    def _build(self, engine: str, context: bytes, tag: str, *options: str) -> None:
        with TemporaryDirectory() as folder:
            zipfile.ZipFile(io.BytesIO(context)).extractall(folder)
            own = [f"--file={folder}/{DOCKERFILE}", f"--tag={tag}", f"--build-arg=ENGINE={self.name}"]
            # With an attestation beside it, an image becomes an index of two, which ECR tags and scans differently.
            _run([engine, "build", *own, *options, folder], f"build {tag}", BUILDX_NO_DEFAULT_ATTESTATIONS="1")

    def _push(self, engine: str, image: str) -> None:
        with translated_errors(f"login to '{self._repository}'"):
            [login] = self.clients.client("ecr").get_authorization_token()["authorizationData"]
        # docker login could hand the password to the user's keychain, so the engine reads it from a file of its own.
        with TemporaryDirectory() as folder:
            auths = {"auths": {image.partition("/")[0]: {"auth": login["authorizationToken"]}}}
            file = write_atomic(Path(folder) / "config.json", json.dumps(auths), private=True)
            own = {"DOCKER_CONFIG": folder, "REGISTRY_AUTH_FILE": str(file)}
            if host := _ask(engine, "context", "inspect", "--format={{.Endpoints.docker.Host}}"):
                own["DOCKER_HOST"] = host  # the context is in the user's configuration, which is not read now
            _run([engine, "push", image], f"push {image}", **own)

    # --- on AWS

    @property
    def _repository(self) -> str:
        return self.clients.output("Repository")

    def _publish_to_ecr(self, engine: str, options: list[str]) -> None:
        context, tag = pack(self.folder), f"genokit-{self.name}"
        digest = hashlib.sha256(context).hexdigest()
        image = f"{self._repository}:{tag}-{digest[:16]}"
        if not options and self.clients.image_digest(image):
            say(f"Image {image} is up to date: its files have not changed.")
        elif engine:
            self._build(engine, context, image, "--platform=linux/amd64", *options)  # as the stack's instances are
            self._push(engine, image)
        else:
            self._build_on_aws(context, digest, image)
        self._move_tag(tag, self.clients.image_digest(image))
        say(f"Published {self.name}: {self.reference}")

    def _build_on_aws(self, context: bytes, digest: str, image: str) -> None:
        project = self.clients.output("ImageBuild")
        say(f"Neither docker nor podman answers here, so AWS CodeBuild builds the image (project {project}).")
        address = f"s3://{self.clients.bucket}/images/{digest}.zip"
        storage.write_if_absent(address, context, sha256=digest, clients=self.clients)
        given = {"CONTEXT": digest, "ENGINE": self.name, "TAG": image.rpartition(":")[2]}
        variables = [{"name": name, "value": value} for name, value in given.items()]
        with translated_errors(f"project '{project}'"):
            codebuild = self.clients.client("codebuild")
            build = codebuild.start_build(projectName=project, environmentVariablesOverride=variables)["build"]
        last = follow_lines(f"build {image}", self._log(build))
        if build["buildStatus"] != "SUCCEEDED":
            contexts = [one for phase in build.get("phases", []) for one in phase.get("contexts", [])]
            reason = next((one["message"] for one in contexts if one.get("message")), "see its log")
            raise _failed(f"CodeBuild's build '{build['id']}' is {build['buildStatus']} ({reason})", last)

    def _log(self, build: dict[str, Any]) -> Iterator[str]:
        """The lines of a build's log until it has ended; keeps ``build`` up to date."""
        codebuild, request, more = self.clients.client("codebuild"), dict[str, Any](startFromHead=True), False
        while more or not build["buildComplete"]:
            with translated_errors(f"build '{build['id']}'"):
                build |= codebuild.batch_get_builds(ids=[build["id"]])["builds"][0]
                time.sleep(self.clients.backend.log_delay_s)
                if stream := build["logs"].get("streamName"):
                    request |= {"logGroupName": build["logs"]["groupName"], "logStreamName": stream}
                    page = self.clients.logs.get_log_events(**request)
                    yield from (one["message"] for one in page["events"])
                    more = page["nextForwardToken"] != request.get("nextToken")
                    request["nextToken"] = page["nextForwardToken"]

    def _move_tag(self, tag: str, digest: str) -> None:
        """Let ``tag`` name the image of this digest, in one step: jobs get the old image or the new one."""
        if self.clients.image_digest(f"{self._repository}:{tag}") == digest:
            return
        ecr, name = self.clients.client("ecr"), self._repository.partition("/")[2]
        ids = [{"imageDigest": digest}]
        with translated_errors(f"image '{self._repository}@{digest}'"):
            [image] = ecr.batch_get_image(repositoryName=name, imageIds=ids, acceptedMediaTypes=MANIFESTS)["images"]
            manifest = {key: image[key] for key in ("imageManifest", "imageManifestMediaType") if key in image}
            ecr.put_image(repositoryName=name, imageTag=tag, imageDigest=digest, **manifest)

    # --- display

    def __repr__(self) -> str:
        return f"<Image {self.name} {self.clients.place}>"

    def _repr_html_(self) -> Html:
        reference = self.reference
        rows = {"Place": self.clients.place, "Reference": reference or None, "Checkout": self.folder}
        return card(f"Image {self.name}", rows, status="PUBLISHED" if reference else "NOT_PUBLISHED")


# --- what an image is built from


def pack(folder: Path) -> bytes:
    """What an image is built from, as a zip that depends on names and bytes alone. Raises NotFound."""
    if not (folder / DOCKERFILE).is_file():
        raise NotFound(f"'{folder}' has no {DOCKERFILE}, so it is not a checkout of genokit. Name one with folder=.")
    names = {".dockerignore", DOCKERFILE, *_chosen(folder)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(names):
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
            archive.writestr(entry, (folder / name).read_bytes())
    return packed.getvalue()


def _chosen(folder: Path) -> Iterator[str]:
    """The files that .dockerignore leaves to an engine: those that a line with ! names, and no line with **."""
    lines = (folder / ".dockerignore").read_text(encoding="utf-8").splitlines()
    left_out = [line for line in lines if line[:2] == "**"]
    for one in (one for line in lines if line[:1] == "!" for one in folder.glob(line[1:])):
        for file in filter(Path.is_file, (one, *one.rglob("*"))):
            name = file.relative_to(folder)
            if not any(part.match(line) for part in (name, *name.parents) for line in left_out):
                yield name.as_posix()


# --- the engine


def _engine() -> str:
    """Find docker or podman; "" if neither is installed and running."""
    found = filter(None, map(shutil.which, ("docker", "podman")))
    return next((program for program in found if _ask(program, "version")), "")


def _ask(engine: str, *words: str) -> str:
    """What an engine answers; empty if it has no answer, or there is no engine."""
    if not engine:
        return ""
    done = run([engine, *words], stdin=DEVNULL, capture_output=True, text=True, check=False)
    return "" if done.returncode else done.stdout.strip()


def _run(command: list[str], title: str, **variables: str) -> None:
    """Run an engine and show what it says. Raises BuildFailed."""
    env = os.environ | variables
    with Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, errors="replace", env=env) as process:
        last = follow_lines(title, process.stdout or ())
    if process.returncode:
        raise _failed(f"'{title}' ended with exit code {process.returncode}", last)


def _failed(what: str, last: list[str]) -> BuildFailed:
    lines = "".join(f"\n    {line}" for line in last)
    return BuildFailed(f"{what}. Nothing was published. The last lines of the log:{lines}", last_lines=last)
