"""What would keep a job from running, found before it is submitted: one finding for each thing looked at.

A *problem* is sure to keep the job from running as it is meant; a *warning* is for the eye; *unknown* is what could not
be asked, for want of a permission or of an answer, and stops nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genokit.backends import Clients, translated_errors
from genokit.batch import resources
from genokit.batch.diagnose import fit
from genokit.batch.resources import GONE, JobQueue, one_line
from genokit.batch.shipping import job_command
from genokit.display import Html, card, plain, stack, table
from genokit.errors import GenokitError, did_you_mean

# Endings such as _FILE and _ARN say where a secret is, which is no secret.
SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)(?:_ID|_KEY|$)",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(r"(?:AKIA|ASIA)[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----|gh[pousr]_[0-9A-Za-z]{36}")
REGISTRY = re.compile(
    r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)(?::([^@]+))?(?:@(sha256:.+))?"
)
OVERRIDES = 8192  # characters that ECS takes in the overrides of a task
SHELLS = ("sh", "bash", "dash", "ksh", "zsh")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``level`` is ok, warning, unknown or problem, ``about`` names the thing."""

    level: Literal["ok", "warning", "unknown", "problem"]
    about: str
    message: str

    def __repr__(self) -> str:
        return one_line(f"<Finding {self.level} {self.about}: {self.message}>")

    def _repr_html_(self) -> Html:
        return card(self.about, {"Finding": self.message}, status=self.level)


class Findings(list[Finding]):
    """All that was looked at, as a list that shows itself."""

    @property
    def problems(self) -> list[Finding]:
        """What keeps the job from running."""
        return [one for one in self if one.level == "problem"]

    @property
    def level(self) -> str:
        """The worst level of all: problem, warning, unknown, ok."""
        found = {one.level for one in self}
        return next((level for level in ("problem", "warning", "unknown") if level in found), "ok")

    def __str__(self) -> str:
        return plain("\n".join(f"{one.level:8} {one.about}: {one.message}" for one in self))

    def __repr__(self) -> str:
        return f"<Findings {self._counted()}>"

    def _repr_html_(self) -> Html:
        rows = [(one.level, one.about, one.message) for one in self]
        head = card("Preflight", {"Found": self._counted()}, status=self.level)
        return stack(head, table(rows, columns=["status", "thing", "finding"]))

    def _counted(self) -> str:
        counts = {level: sum(one.level == level for one in self) for level in ("problem", "warning", "unknown", "ok")}
        return ", ".join(f"{count} {level}" for level, count in counts.items() if count) or "nothing"


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
    containers = _containers(request, definition)
    name = request["jobQueue"].rpartition("/")[2]
    queue = next((one for one in queues if one.name == name), None)
    found = Findings()
    if queue is None:
        near = did_you_mean(name, [one.name for one in queues])
        found.append(Finding("problem", f"queue '{name}'", f"There is no job queue '{name}'. {near}"))
    else:
        found += [*_queue(queue, request), *_places(queue), *_fits(queue, request, definition)]
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


# --- the queue and its environments


def _queue(queue: JobQueue, request: Mapping[str, Any]) -> Iterator[Finding]:
    about = f"queue '{queue.name}'"
    if queue.state != "ENABLED":
        yield Finding("problem", about, f"It is {queue.state} and takes no jobs. Enable it, or name another.")
    if queue.status in GONE:
        yield Finding("problem", about, f"Its status is {queue.status}: {queue.reason or 'no reason given'}")
    elif queue.status != "VALID":
        yield Finding("unknown", about, f"Its status is {queue.status}: it is not ready yet.")
    if queue.policy and not request.get("shareIdentifier"):
        yield Finding("problem", about, f"It shares by the policy '{queue.policy}', and the job names no share.")
    if request.get("shareIdentifier") and not queue.policy:
        yield Finding("problem", about, "The job names a share, and the queue has no fair-share policy.")
    if queue.state == "ENABLED" and queue.status == "VALID":
        yield Finding("ok", about, "It is ENABLED and VALID.")


def _places(queue: JobQueue) -> Iterator[Finding]:
    usable = [one for one in queue.environments if one.usable]
    for place in queue.environments:
        about = f"environment '{place.name}'"
        level: Literal["warning", "problem"] = "warning" if usable else "problem"
        if place.state != "ENABLED":
            yield Finding(level, about, f"It is {place.state}: no job starts there. Enable it.")
        elif place.status in GONE:
            yield Finding(level, about, f"Its status is {place.status}: {place.reason or 'no reason given'}")
        elif place.max_vcpus == 0:
            yield Finding(level, about, "Its maxvCpus are 0: no job starts there.")
        else:
            yield Finding("ok", about, f"It is ENABLED and {place.status}.")
    if not queue.environments:
        yield Finding("problem", f"queue '{queue.name}'", "It has no compute environment that could be read.")


def _fits(queue: JobQueue, request: Mapping[str, Any], definition: Mapping[str, Any]) -> Iterator[Finding]:
    job = fit.asked(definition, request.get("containerOverrides"))
    usable = [one for one in queue.environments if one.usable]
    if job is None:
        yield Finding("unknown", "size", "The definition does not say vCPU and memory in a way that is known here.")
        return
    if not usable:
        return
    tried = {verdict.verdict: verdict.why for verdict in reversed([fit.fit(job, place) for place in usable])}
    if "fits" in tried:
        yield Finding("ok", "size", f"{job}: {tried['fits']}")
    elif "unknown" in tried:
        yield Finding("unknown", "size", f"{job}: {tried['unknown']}")
    elif "tight" in tried:
        yield Finding("warning", "size", f"{job}: {tried['tight']} Ask for less, or the job may wait for ever.")
    else:
        whys = " ".join(dict.fromkeys(fit.fit(job, place).why for place in usable))
        yield Finding("problem", "size", f"{whys} Ask for less, or submit to a queue with larger instances.")


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
            yield Finding("problem", "parameters", f"The command has Ref::{name}, and nothing gives '{name}'. {near}")
    for name in request.get("parameters", {}):
        if name not in used:
            yield Finding("warning", "parameters", f"'{name}' is given, and no word of the command is Ref::{name}.")
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
            here = (code or clients.shares_folders) and (shell or "/" in word)
            if "\r\n" in word or (here and _first_line(Path(code or "/", word), any_=shell).endswith(b"\r\n")):
                yield Finding(
                    "problem",
                    "command",
                    f"'{word[:60]}' has Windows line endings (CRLF), which shells and the kernel cannot read. Convert "
                    "it: sed -i 's/\\r$//' FILE.",
                )


def _first_line(path: Path, *, any_: bool) -> bytes:
    """The first line of a script, one with ``#!`` unless ``any_`` will do; empty where there is no such file."""
    with suppress(OSError, ValueError):
        if path.is_file():
            with path.open("rb") as file:
                line = file.readline(1024)
                return line if any_ or line.startswith(b"#!") else b""
    return b""


def _secrets(request: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    pairs = [
        (f"environment variable '{pair['name']}'", pair["name"], pair.get("value", ""))
        for container in (*containers, request.get("containerOverrides", {}))
        for pair in container.get("environment", [])
    ]
    pairs += [(f"parameter '{name}'", name, value) for name, value in request.get("parameters", {}).items()]
    for about, name, value in pairs:
        if value and (SECRET_NAME.search(name) or SECRET_VALUE.search(value)):
            yield Finding(
                "warning",
                about,
                "It looks like a secret, and whoever may describe jobs can read it. Keep it in AWS Secrets Manager "
                "and name it in the definition's secrets.",
            )


def _containers(request: Mapping[str, Any], definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The containers of a definition, the one of a plain job with the command that its submission gives it."""
    nodes = definition.get("nodeProperties", {}).get("nodeRangeProperties", [])
    tasks = definition.get("ecsProperties", {}).get("taskProperties", [])
    plain = dict(definition.get("containerProperties") or {})
    if request.get("containerOverrides", {}).get("command"):
        plain["command"] = request["containerOverrides"]["command"]
    several = [one for task in tasks for one in task.get("containers", [])]
    return [one for one in (plain, *(node.get("container") or {} for node in nodes), *several) if one]


# --- what other services tell


def _once(known: MutableMapping[str, Finding], thing: str, look: Callable[[str], Finding]) -> Finding:
    if thing not in known:
        known[thing] = look(thing)
    return known[thing]


def _role(clients: Clients, arn: str, account: str) -> Finding:
    name = arn.rpartition("/")[2]
    about = f"role '{name}'"
    if not re.fullmatch(rf"arn:[^:]+:iam::{account}:role/.+", arn):
        return Finding("unknown", about, f"{arn} is not a role of this account, so it was not looked up.")
    try:
        with translated_errors(about):
            clients.client("iam").get_role(RoleName=name)
    except (GenokitError, NotImplementedError) as error:
        if getattr(error, "code", "") == "NoSuchEntity":
            return Finding("problem", about, f"There is no such role: {arn}. Without it the job cannot start.")
        return Finding("unknown", about, f"It could not be looked up. {error}")
    return Finding("ok", about, "It exists.")


def _image(clients: Clients, image: str, region: str, account: str) -> Finding:
    about = f"image '{image}'"
    said = REGISTRY.fullmatch(image)
    if said is None or said[1] != account or said[2] != region:
        return Finding("unknown", about, "It is not in this account's registry of this region, and was not looked up.")
    by = {"imageDigest": said[5]} if said[5] else {"imageTag": said[4] or "latest"}
    try:
        with translated_errors(about):
            clients.client("ecr").describe_images(registryId=said[1], repositoryName=said[3], imageIds=[by])
    except (GenokitError, NotImplementedError) as error:
        code = getattr(error, "code", "")
        if code in ("ImageNotFoundException", "RepositoryNotFoundException"):
            lacks = "repository" if code.startswith("Repo") else "image"
            return Finding("problem", about, f"The registry has no such {lacks}. Push it, or name another.")
        return Finding("unknown", about, f"It could not be looked up. {error}")
    return Finding("ok", about, "It exists.")
