"""A job definition: what to run and how much room it needs, under a name and a revision."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genokit.display import Html, card


@dataclass(frozen=True)
class JobDefinition:
    """One revision of a job definition, as registered.

    https://docs.aws.amazon.com/batch/latest/userguide/job_definition_parameters.html
    """

    name: str
    revision: int
    arn: str
    image: str
    command: tuple[str, ...]
    vcpus: float
    memory_gib: float
    gpus: int

    def __repr__(self) -> str:
        return f"<JobDefinition {self.name}:{self.revision} {self.image}>"

    def _repr_html_(self) -> Html:
        rows = {
            "Image": self.image,
            "Command": shlex.join(self.command),
            "vCPU": f"{self.vcpus:g}",
            "Memory": f"{self.memory_gib:g} GiB",
            "GPU": self.gpus,
            "ARN": self.arn,
        }
        return card(f"Job definition {self.name}:{self.revision}", rows)


def request(
    name: str,
    *,
    image: str,
    command: Sequence[str],
    vcpus: float,
    memory_gib: float,
    gpus: int,
    parameters: Mapping[str, str],
    environment: Mapping[str, str],
    timeout_min: float | None,
) -> dict[str, Any]:
    """The RegisterJobDefinition request that a definition in plain words means.

    >>> asked = request("align", image="genokit", command=["true"], vcpus=2, memory_gib=0.5, gpus=0, parameters={},
    ...                 environment={"LANG": "C"}, timeout_min=2)
    >>> asked["containerProperties"]["resourceRequirements"]
    [{'type': 'VCPU', 'value': '2'}, {'type': 'MEMORY', 'value': '512'}]
    >>> asked["timeout"]
    {'attemptDurationSeconds': 120}
    """
    resources = [("VCPU", f"{vcpus:g}"), ("MEMORY", str(round(memory_gib * 1024)))] + (
        [("GPU", str(gpus))] if gpus else []
    )
    asked: dict[str, Any] = {
        "jobDefinitionName": name,
        "type": "container",
        "parameters": dict(parameters),
        "containerProperties": {
            "image": image,
            "command": list(command),
            "resourceRequirements": [{"type": kind, "value": value} for kind, value in resources],
            "environment": pairs(environment),
        },
    }
    if timeout_min is not None:
        asked["timeout"] = {"attemptDurationSeconds": round(timeout_min * 60)}
    return asked


def pairs(environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Environment variables as AWS writes them.

    >>> pairs({"LANG": "C"})
    [{'name': 'LANG', 'value': 'C'}]
    """
    return [{"name": name, "value": value} for name, value in environment.items()]
