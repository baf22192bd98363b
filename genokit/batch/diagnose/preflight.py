"""What would keep a job from running, found before it is submitted: one finding for each thing looked at.

A *problem* is sure to keep the job from running as it is meant; a *warning* is for the eye; *unknown* is what could not
be looked up, for want of a permission or of an answer, and stops nothing.
"""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch import requirements, resources
from genokit.batch.diagnose import obstacles
from genokit.batch.diagnose.findings import Finding, Findings
from genokit.batch.resources import JobQueue
from genokit.batch.shipping import job_command
from genokit.errors import AccessDenied, GenokitError, InvalidRequest, NotFound, did_you_mean
from genokit.secret_kinds import secret_name, secret_text

REGISTRY = re.compile(
    r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)(?::([^@]+))?(?:@(sha256:.+))?"
)
OVERRIDES = 8192  # characters that ECS takes in the overrides of a task
SHELLS = ("sh", "bash", "dash", "ksh", "zsh")


def check(
    clients: Clients,
    request: Mapping[str, Any],
    definition: Mapping[str, Any],
    *,
    queues: Sequence[JobQueue] | None = None,
    known: MutableMapping[str, Finding] | None = None,
    code: str | os.PathLike[str] | bool | None = None,
) -> Findings:
    """What would keep a SubmitJob ``request`` of a ``definition`` from running; both in AWS's words.

    ``code`` is the folder that the job takes along.

    ``queues`` are those of the account, where they were read lately; ``known`` keeps what was found of roles and
    images, so that many submissions of one definition ask once. Raises AccessDenied where queues cannot be read.
    """
    if queues is None:
        queues = resources.queues(clients)
    known = {} if known is None else known
    overrides = request.get("containerOverrides", {})
    containers = requirements.containers(definition)
    if overrides.get("command"):
        containers = [{**container, "command": overrides["command"]} for container in containers]
    name = request["jobQueue"].rpartition("/")[2]
    queue = next((one for one in queues if one.name == name), None)
    found = Findings()
    if queue is None:
        near = did_you_mean(name, [one.name for one in queues])
        found.append(Finding("problem", f"queue '{name}'", f"There is no job queue '{name}'. {near}"))
    else:
        need = requirements.requested(definition, overrides)
        found += [*obstacles.walk(queue, need, submitted=False).findings, *_shares(queue, request)]
        found += _only_image(clients, queue, containers)
    found += [*_words(request, definition, containers), *_secrets(request, containers), *_overrides(request)]
    found += _scripts(clients, containers, code)
    region, account = queue.arn.split(":")[3:5] if queue else ("", "")
    for container in containers:
        for member in ("jobRoleArn", "executionRoleArn"):
            if container.get(member):
                found.append(_once(known, container[member], lambda arn: _role(clients, arn, account)))
        if REGISTRY.fullmatch(container.get("image", "")):
            found.append(_once(known, container["image"], lambda image: _image(clients, image, region, account)))
    return Findings(dict.fromkeys(found))


class Checks:
    """The preflight before each submission. Queues and roles are read once a minute, and again before a refusal."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._queues: list[JobQueue] = []
        self._known: dict[str, Finding] = {}
        self._looked = float("-inf")

    def refuse_hopeless(self, request: Mapping[str, Any], definition: Mapping[str, Any], code: Any) -> None:
        """Refuse a job that cannot run, and warn about words that do not mean what they seem to. Raises NotFound,
        InvalidRequest."""
        fresh = time.monotonic() - self._looked > 60
        if fresh:
            try:
                self._queues, self._known, self._looked = resources.queues(self._clients), {}, time.monotonic()
            except AccessDenied:  # who may submit and not look submits
                return None
        findings = check(self._clients, request, definition, queues=self._queues, known=self._known, code=code)
        problems = findings.problems
        if problems and not fresh:
            self._looked = float("-inf")
            return self.refuse_hopeless(request, definition, code)
        name, queue = request["jobName"], request["jobQueue"].rpartition("/")[2]
        names = [one.name for one in self._queues]
        if problems and queue not in names:
            raise NotFound(f"job '{name}': there is no job queue '{queue}'. {did_you_mean(queue, names)}")
        if problems:
            lines = "".join(f"\n    {one.about}: {one.message}" for one in problems)
            raise InvalidRequest(
                f"job '{name}' was not submitted because it cannot run:{lines}\n"
                "submit(..., check=False) submits it as it is."
            )
        for one in findings:
            if one.level == "warning" and one.about in ("command", "overrides"):
                warnings.warn(f"job '{name}': {one.message}", stacklevel=3)
        return None


# --- the queue


def _shares(queue: JobQueue, request: Mapping[str, Any]) -> Iterator[Finding]:
    about = f"queue '{queue.name}'"
    if queue.policy and not request.get("shareIdentifier"):
        yield Finding("problem", about, f"It shares by the policy '{queue.policy}', but the job names no share.")
    if request.get("shareIdentifier") and not queue.policy:
        yield Finding("problem", about, "The job names a share, but the queue has no fair-share policy.")


def _only_image(clients: Clients, queue: JobQueue, containers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    only = {one.only_image for one in queue.environments if one.usable}
    if not only or None in only:
        return
    for container in containers:
        image = container.get("image", "")
        if image.partition(":")[0] in only:
            continue
        outputs = clients.outputs()  # the stack has names of its own for the image genokit
        if image in (outputs.get("ImageCpu"), outputs.get("ImageGpu")):
            continue
        silent = any("does not answer" in one.reason for one in queue.environments)
        lacking = "neither docker nor podman is installed here. Install one"
        if silent:
            lacking = "docker does not answer here. Start it"
        yield Finding(
            "problem",
            f"image '{image}'",
            f"It needs a container engine, and {lacking}, or use the image '{next(iter(only))}', which needs none.",
        )


# --- the words of the job itself


def _words(
    request: Mapping[str, Any], definition: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    given = {**definition.get("parameters", {}), **request.get("parameters", {})}
    words = [word for one in containers for word in one.get("command", [])]
    used = [word.removeprefix("Ref::") for word in words if word.startswith("Ref::")]
    for name in dict.fromkeys(used):
        if name not in given:
            near = did_you_mean(name, given) if given else f"Give it: parameters={{'{name}': ...}}."
            yield Finding("problem", "parameters", f"The command has Ref::{name}, but '{name}' has no value. {near}")
    for name in request.get("parameters", {}):
        if name not in used:
            yield Finding("warning", "parameters", f"'{name}' is given, but no word of the command is Ref::{name}.")
    for word in words:
        if "Ref::" in word[1:] and (inside := re.search(r"(?<!^)Ref::\w+", word)):
            yield Finding(
                "warning",
                "command",
                f"Batch replaces whole words only, so {inside[0]} stays as it is in '{word[:60]}'. Make it a word "
                "of its own.",
            )


def _overrides(request: Mapping[str, Any]) -> Iterator[Finding]:
    given = request.get("containerOverrides")
    characters = len(json.dumps(given, separators=(",", ":"), ensure_ascii=False)) if given else 0
    if characters > OVERRIDES:
        yield Finding(
            "warning",
            "overrides",
            f"The container overrides have {characters:,} characters, and ECS takes {OVERRIDES:,}: on AWS the job "
            "would fail when it starts. Put long values into the definition, or into a file on S3.",
        )


def _scripts(clients: Clients, containers: Sequence[Mapping[str, Any]], code: Any) -> Iterator[Finding]:
    """Shell scripts with Windows line endings, of this machine or of the code that the job takes along."""
    for container in containers:
        program, *words = job_command.unwrapped(container.get("command", [])) or [""]
        shell = program.rpartition("/")[2] in SHELLS
        script = next((word for word in words if not word.startswith("-")), "") if shell else ""
        for word in (program, script):
            here = (code or clients.backend.shares_folders) and (shell or "/" in word)
            if "\r\n" in word or (here and _has_windows_endings(Path(code or "/", word), shell)):
                yield Finding(
                    "problem",
                    "command",
                    f"'{word[:60]}' has Windows line endings (CRLF), which shells and the kernel cannot read. Convert "
                    "it: sed -i 's/\\r$//' FILE.",
                )


def _has_windows_endings(path: Path, shell: bool) -> bool:
    """Whether a file that a shell is given, or one that begins with ``#!``, does."""
    try:
        with path.open("rb") as file:
            line = file.readline(1024) if path.is_file() else b""
    except (OSError, ValueError):
        return False
    return line.endswith(b"\r\n") and (shell or line.startswith(b"#!"))


def _secrets(request: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    pairs = [
        (f"environment variable '{pair['name']}'", pair["name"], pair.get("value", ""))
        for container in (*containers, request.get("containerOverrides", {}))
        for pair in container.get("environment", [])
    ]
    pairs += [(f"parameter '{name}'", name, value) for name, value in request.get("parameters", {}).items()]
    for about, name, value in pairs:
        if value and (secret_name(name) or secret_text(value.encode(errors="replace"))):
            yield Finding(
                "warning",
                about,
                "It looks like a secret, and anyone who may describe jobs can read it. Keep it in AWS Secrets Manager "
                "and name it in the definition's secrets.",
            )


# --- what other services tell


def _once(known: MutableMapping[str, Finding], thing: str, look: Callable[[str], Finding]) -> Finding:
    if thing not in known:
        known[thing] = look(thing)
    return known[thing]


def _role(clients: Clients, arn: str, account: str) -> Finding:
    name = arn.rpartition("/")[2]
    if not re.fullmatch(rf"arn:[^:]+:iam::{account}:role/.+", arn):
        return Finding("unknown", f"role '{name}'", f"{arn} is not a role of this account, so it was not looked up.")
    missing = {"NoSuchEntity": f"There is no such role: {arn}. Without it the job cannot start."}
    return _existence(f"role '{name}'", missing, clients, "iam", "get_role", RoleName=name)


def _image(clients: Clients, image: str, region: str, account: str) -> Finding:
    about, parts = f"image '{image}'", REGISTRY.fullmatch(image)
    if parts is None or (parts[1], parts[2]) != (account, region):
        return Finding("unknown", about, "It is not in this account's registry of this region, and was not looked up.")
    missing = {
        "ImageNotFoundException": "The registry has no such image. Push it, or name another.",
        "RepositoryNotFoundException": "The registry has no such repository. Push the image, or name another.",
    }
    ids = [{"imageDigest": parts[5]} if parts[5] else {"imageTag": parts[4] or "latest"}]
    named = {"registryId": parts[1], "repositoryName": parts[3], "imageIds": ids}
    return _existence(about, missing, clients, "ecr", "describe_images", **named)


def _existence(
    about: str, missing: Mapping[str, str], clients: Clients, service: str, operation: str, **request: Any
) -> Finding:
    """Whether a thing of another service exists; ``missing`` has the codes of errors that say it does not."""
    try:
        with translated_errors(about):
            getattr(clients.client(service), operation)(**request)
    except (GenokitError, NotImplementedError) as error:
        code = getattr(error, "code", "")
        if code in missing:
            return Finding("problem", about, missing[code])
        return Finding("unknown", about, f"It could not be looked up. {error}")
    return Finding("ok", about, "It exists.")
