"""The embedded ECR: the repositories that stacks name, which hold no images, as jobs here run without any.

https://docs.aws.amazon.com/AmazonECR/latest/APIReference/
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genokit.local import client, provisions
from genokit.local.client import Caller, Operation


def list_images(caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
    """The images of a repository: none."""
    _repository(caller, request["repositoryName"])
    return {}


def _repository(caller: Caller, name: str) -> None:
    with caller.reading() as db:
        if name not in provisions.named(db, "AWS::ECR::Repository"):
            message = f"The repository with name '{name}' does not exist in the registry with id '{provisions.ACCOUNT}'"
            raise caller.refuse(message, "RepositoryNotFoundException")


OPERATIONS: dict[str, Operation] = {"list_images": list_images}


def service(home: Path, job_environment: Mapping[str, str]) -> client.Service:
    """The service of the account in ``home``."""
    return client.offer(OPERATIONS, home, job_environment)
