"""A stack's whole life, for tests that record what it calls or break it off somewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from embedded import SMALL

from genokit import Settings, Stack, backends
from genokit.errors import ConfirmationNeeded

SERVICES = ("batch", "cloudformation", "ecr", "logs", "s3")


def drive(clients: backends.Clients, user: backends.Clients) -> None:
    """Everything that Stack can do to the kit's stack, over these clients, from nothing to nothing.

    ``user`` is somebody else in the same account, who leaves a file in the bucket and a further revision of a
    definition, so that the removal has something to do everywhere.
    """
    stack = Stack(clients=clients)
    stack.diff()
    stack.deploy(attempts=2)
    stack.diff(keep=True, spot_max_vcpus=4)
    stack.update(attempts=3, spot_max_vcpus=8)
    stack.deploy(attempts=3)  # what is not given takes its default again
    stack.events()
    stack.resources()
    stack._repr_html_()
    user.s3.put_object(Bucket=stack.outputs["Bucket"], Key="result.txt", Body=b"42")
    user.batch.register_job_definition(
        jobDefinitionName="genokit-cpu",
        type="container",
        containerProperties={"image": "genokit", "resourceRequirements": SMALL},
        tags={"genokit:stack": stack.stack_name},
    )
    user.batch.submit_job(
        jobName="late",
        jobQueue="lowPriority",
        jobDefinition="genokit-cpu",
        containerOverrides={"command": ["sleep", "9"]},
    )
    with pytest.raises(ConfirmationNeeded):
        stack.teardown()
    stack.teardown(confirm=stack.stack_name)


def wrapped(settings: Settings, around: Callable[[str, str, Callable[..., Any]], Callable[..., Any]]) -> Any:
    """The clients of an account, each operation of which is what ``around(service, operation, call)`` makes of it."""
    own = backends.clients(settings)
    made = {service: _Wrapped(service, own.client(service), around) for service in SERVICES}
    return backends.Clients(settings, **made)


class _Wrapped:
    def __init__(self, service: str, client: Any, around: Callable[..., Any]) -> None:
        self._service, self._client, self._around = service, client, around

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._around(self._service, name, found) if callable(found) else found
