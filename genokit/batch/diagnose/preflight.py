"""What would keep a job from running, found before it is submitted: one finding for each thing looked at.

A *problem* is sure to keep the job from running as it is meant; a *warning* is for the eye; *unknown* is what could not
be looked up, for want of a permission or of an answer, and stops nothing.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genokit.backends import Clients, translated_errors
from genokit.batch import requirements, resources
from genokit.batch.diagnose import obstacles
from genokit.batch.diagnose.findings import Finding, Findings
from genokit.batch.resources import JobQueue
from genokit.errors import AccessDenied, GenokitError, InvalidRequest, NotFound, did_you_mean
from genokit.secret_kinds import secret_name, secret_text

MISSING = ("NoSuchEntity", "ImageNotFoundException", "RepositoryNotFoundException")


def check(
    clients: Clients,
    request: Mapping[str, Any],
    definition: Mapping[str, Any],
    *,
    queues: Sequence[JobQueue] | None = None,
    known: dict[str, Finding | None] | None = None,
) -> Findings:
    """What would keep a SubmitJob ``request`` of a ``definition`` from running; both in AWS's words.

    ``queues`` are those of the account, where they were read lately; ``known`` keeps what was found of roles and
    images, so that many submissions of one definition ask once. Raises AccessDenied where queues cannot be read.
    """
    queues = resources.queues(clients) if queues is None else queues
    known = {} if known is None else known
    overrides, containers = requirements.overridden(request), requirements.containers(definition)
    if overrides.get("command"):
        containers = [{**container, "command": overrides["command"]} for container in containers]
    name = request["jobQueue"].rpartition("/")[2]
    queue = next((one for one in queues if one.name == name), None)
    found = Findings()
    if queue is None:
        near = did_you_mean(name, [one.name for one in queues])
        found.append(Finding(f"There is no job queue '{name}'. {near}", about=f"queue '{name}'"))
    else:
        found += obstacles.walk(queue, requirements.requested(definition, overrides), submitted=False)[0]
        found += _only_image(clients, queue, containers)
    found += [*_words(request, definition, containers), *_secrets(request, containers)]
    for container in containers:
        for thing in map(container.get, ("jobRoleArn", "executionRoleArn", "image")):
            if thing and queue:
                if thing not in known:
                    known[thing] = _existence(clients, thing, *queue.arn.split(":")[3:5])
                found += filter(None, [known[thing]])
    return Findings(dict.fromkeys(found))


class Checks:
    """The preflight before each submission. Queues and roles are read once a minute, and again before a refusal."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._queues: list[JobQueue] = []
        self._known: dict[str, Finding | None] = {}
        self._read_at = float("-inf")

    def refuse_hopeless(self, request: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
        """Refuse a job that cannot run, and warn about words that do not mean what they seem to. Raises NotFound,
        InvalidRequest."""
        for most_s in (60, 0):
            if time.monotonic() - self._read_at > most_s:
                try:
                    self._queues, self._known, self._read_at = resources.queues(self._clients), {}, time.monotonic()
                except AccessDenied:  # who may submit and not look submits
                    return
            findings = check(self._clients, request, definition, queues=self._queues, known=self._known)
            if not findings.problems:
                break
        name, queue = request["jobName"], request["jobQueue"].rpartition("/")[2]
        if all(one.name != queue for one in self._queues):
            raise NotFound(f"job '{name}': {findings[0].what}")
        if findings.problems:
            lines = "".join(f"\n    {one}" for one in findings.problems)
            raise InvalidRequest(
                f"job '{name}' was not submitted because it cannot run:{lines}\n"
                "submit(..., check=False) submits it as it is."
            )
        for one in findings:
            if one.level == "warning" and one.about == "command":
                warnings.warn(f"job '{name}': {one.what}", stacklevel=3)


def _only_image(clients: Clients, queue: JobQueue, containers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Images that need a container engine, where none is here."""
    usable = [one for one in queue.environments if one.usable]
    only = {one.only_image for one in usable}
    if not only or None in only:
        return
    # The stack has names of its own for the image genokit.
    own = {*only, *(clients.outputs().get(name) for name in ("ImageCpu", "ImageGpu"))}
    for image in (container.get("image", "") for container in containers):
        if image not in own and image.partition(":")[0] not in only:
            what = f"It needs a container engine, and none can be used here: {usable[0].reason}."
            do = f"Install or start docker or podman, or use the image '{usable[0].only_image}', which needs none."
            yield Finding(what, do=do, about=f"image '{image}'")


def _words(
    request: Mapping[str, Any], definition: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """References to parameters, and parameters, that do not go together."""
    given = {**definition.get("parameters", {}), **request.get("parameters", {})}
    words = [word for one in containers for word in one.get("command", [])]
    used = dict.fromkeys(word.removeprefix("Ref::") for word in words if word.startswith("Ref::"))
    for name in used:
        if name not in given:
            near = did_you_mean(name, given) if given else f"Give it: parameters={{'{name}': ...}}."
            yield Finding(f"The command has Ref::{name}, but '{name}' has no value. {near}", about="parameters")
    for name in request.get("parameters", {}):
        if name not in used:
            what = f"'{name}' is given, but no word of the command is Ref::{name}."
            yield Finding(what, sure="possible", about="parameters")
    for word in words:
        if inside := re.search(r"(?<!^)Ref::\w+", word):
            what = f"Batch replaces whole words only, so {inside[0]} stays as it is in '{word[:60]}'."
            yield Finding(what, do="Make it a word of its own.", sure="possible", about="command")


def _secrets(request: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    pairs = [
        (f"environment variable '{pair['name']}'", pair["name"], pair.get("value", ""))
        for container in (*containers, requirements.overridden(request))
        for pair in container.get("environment", [])
    ]
    pairs += [(f"parameter '{name}'", name, value) for name, value in request.get("parameters", {}).items()]
    for about, name, value in pairs:
        if value and (secret_name(name) or secret_text(value.encode(errors="replace"))):
            what = "It looks like a secret, and anyone who may describe jobs can read it."
            do = "Keep it in AWS Secrets Manager and name it in the definition's secrets."
            yield Finding(what, do=do, sure="possible", about=about)


def _existence(clients: Clients, thing: str, region: str, account: str) -> Finding | None:
    """Whether a role of this account, or an image of its registry, exists; None for any other thing."""
    registry = rf"{account}\.dkr\.ecr\.{region}\.amazonaws\.com(?:\.cn)?"
    if role := re.fullmatch(rf"arn:[^:]+:iam::{account}:role/(?:.+/)?(.+)", thing):
        about, service, operation = f"role '{role[1]}'", "iam", "get_role"
        named: dict[str, Any] = {"RoleName": role[1]}
    elif image := re.fullmatch(rf"{registry}/([^:@]+)(?::([^@]+))?(?:@(sha256:.+))?", thing):
        about, service, operation = f"image '{thing}'", "ecr", "describe_images"
        ids = [{"imageDigest": image[3]} if image[3] else {"imageTag": image[2] or "latest"}]
        named = {"registryId": account, "repositoryName": image[1], "imageIds": ids}
    else:
        return None
    try:
        with translated_errors(about):
            getattr(clients.client(service), operation)(**named)
    except (GenokitError, NotImplementedError) as error:
        if getattr(error, "code", "") in MISSING:
            return Finding(f"There is none: {thing}.", do="Create it, or name another.", about=about)
        return Finding(f"It could not be looked up. {error}", sure="unknown", about=about)
    return Finding("It exists.", sure="ok", about=about)
