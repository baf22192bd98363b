"""A stack's whole life, for tests that record what it calls or break it off somewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore import xform_name
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


def hooked(settings: Settings, event: str, hook: Callable[[str], None]) -> backends.Clients:
    """The clients of an account, which call ``hook("service:operation")`` at one of botocore's events of every call:
    ``before-parameter-build`` or ``after-call``."""
    clients = backends.clients(settings)
    for service in SERVICES:

        def called(model: Any, service: str = service, **_: object) -> None:
            hook(f"{service}:{xform_name(model.name)}")

        clients.client(service).meta.events.register(event, called)
    return clients
