"""boto3's own clients, answered here before they would send: pages, waiters, exceptions and ``meta`` are boto3's.

A request is checked against AWS's model, and an operation of the embedded service answers it in this process.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore import UNSIGNED, xform_name
from botocore.awsrequest import AWSResponse
from botocore.config import Config

import genokit
from genokit.local import shapes, store
from genokit.local.engine import containers, keeper
from genokit.local.shapes import Refused

STARTS = 10  # attempts to start a supervisor that is killed before it reports anything
REGION = "us-east-1"
ACCOUNT, LOCAL = "000000000000", "local"  # account and region in the names of what is here
NOWHERE = "http://localhost"  # no request is sent there

Operation = Callable[["Caller", dict[str, Any]], dict[str, Any]]
# What takes botocore's model of an operation and a request, and answers or raises Refused.
Service = Callable[[Any, dict[str, Any]], dict[str, Any] | None]


def client(name: str, service: Service, environment: Mapping[str, str]) -> Any:
    """A boto3 client whose requests the service answers.

    What it answers with None goes out to AWS, unsigned, also where another endpoint is configured; region and patience
    of that are in ``environment``, the settings' variables.
    """
    timeout_s = float(environment.get("GENOKIT_TIMEOUT_S", 10))
    config = Config(
        signature_version=UNSIGNED, retries={"mode": "standard", "total_max_attempts": 1}, user_agent="genokit",
        connect_timeout=timeout_s, read_timeout=timeout_s, ignore_configured_endpoint_urls=True,
        parameter_validation=False,
    )  # fmt: skip
    region, endpoint = environment.get("GENOKIT_REGION", REGION), None if name == "s3" else NOWHERE
    with _ALONE:
        made = _session().client(name, region_name=region, endpoint_url=endpoint, config=config)

    def check(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        context["genokit"] = params
        try:
            shapes.check_request(model, params)
        except Refused as refusal:
            raise _client_error(made, model, refusal) from None

    def call(model: Any, context: dict[str, Any], **_: Any) -> tuple[Any, dict[str, Any]] | None:
        try:
            response = service(model, context["genokit"])
        except Refused as refusal:
            raise _client_error(made, model, refusal) from refusal.__cause__
        if response is None:
            return None
        status = shapes.status(model, response)
        about = {"HTTPStatusCode": status, "HTTPHeaders": {}, "RetryAttempts": 0}
        return AWSResponse("", status, {}, None), {**response, "ResponseMetadata": about}

    if endpoint:
        made._ruleset_resolver = None  # nothing is sent, so nothing need be found out of where to
    event = made.meta.service_model.service_id.hyphenize()
    made.meta.events.register_last(f"before-parameter-build.{event}", check)
    made.meta.events.register_first(f"before-call.{event}", call)
    return made


_ALONE = threading.Lock()  # a session makes one client at a time


@functools.cache
def _session() -> Any:
    """Nobody's files of settings are read: they may be missing or wrong, and nothing is signed."""
    import boto3
    import botocore.session

    nothing = (None, None, os.devnull, None)
    unread = {"config_file": nothing, "credentials_file": nothing, "profile": (None, None, None, None)}
    return boto3.Session(botocore_session=botocore.session.Session(session_vars=unread))


def _client_error(made: Any, model: Any, refusal: Refused) -> Exception:
    """The error that boto3 raises when AWS answers so."""
    # An answer to HEAD has no body that could say more.
    code = str(refusal.status) if model.http["method"] == "HEAD" else refusal.code
    about = {"HTTPStatusCode": refusal.status, "HTTPHeaders": {}, "RetryAttempts": 0}
    response = {"Error": {"Code": code, "Message": str(refusal)}, "ResponseMetadata": about}
    error: Exception = made.exceptions.from_code(code)(response, model.name)
    return error


def not_offered(model: Any) -> NotImplementedError:
    return NotImplementedError(
        f"The embedded account does not offer {model.service_model.service_name}'s {model.name}. "
        "It is there with backend = 'aws'."
    )


def offer(operations: Mapping[str, Operation], home: Path, job_environment: Mapping[str, str]) -> Service:
    """The service of the account in ``home`` that offers these operations, by boto3's names; all else raises
    NotImplementedError. ``job_environment`` are the variables of the settings that jobs are submitted under."""

    def answer(model: Any, request: dict[str, Any]) -> dict[str, Any]:
        operation = operations.get(xform_name(model.name))
        if operation is None:
            raise not_offered(model)
        caller = Caller(home, model.name, job_environment)
        if len(store.deaths(home)) > 1:
            caller.wake(b"")  # every call reports that no job starts or ends
        try:
            response = operation(caller, request)
            shapes.check_response(model, response)
        except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:  # as AWS: its own fault
            said = f"The account in '{home}' has a damaged record, or the kit an error: {error!r}"
            raise caller.refuse(said, "ServerException") from error
        return response

    return answer


@dataclass(frozen=True)
class Caller:
    """The account and the operation of a call."""

    home: Path
    operation: str
    job_environment: Mapping[str, str]

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return store.connect(self.home)

    @contextmanager
    def writing(self, *, concerns_jobs: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction. If it concerns jobs, it is rolled back where no supervisor can be started, which is woken
        afterwards."""
        with store.connect(self.home) as db:
            db.execute("pragma synchronous = full")  # what a client was told survives a power failure
            db.execute("pragma wal_autocheckpoint = 10000")  # a checkpoint waits for the disk
            with store.transaction(db):
                yield db
                if concerns_jobs:
                    self.wake(b"")
        if concerns_jobs:
            self.wake()

    def stack_resources(self, kind: str) -> dict[str, Any]:
        """The names and the properties of what stacks made of a type: how a service finds what is its own."""
        with self.reading() as db:
            rows = db.execute("select * from stack_resources where type = ? order by physical", (kind,)).fetchall()
        return {row["physical"]: store.loads(row, "doc")["properties"] for row in rows}

    def refuse(self, message: str, code: str = "ClientException") -> Refused:
        """The error that AWS would answer with."""
        return Refused(500 if code == "ServerException" else 400, code, message)

    def runtime(self) -> dict[str, str]:
        """The variables that the image ``genokit`` sets: this Python environment first, none of the caller's."""
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": f"{Path(sys.executable).parent}:{system}",
            "PYTHONPATH": str(Path(genokit.__file__).resolve().parent.parent),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            **self.job_environment,
        }

    def wake(self, news: bytes = b"!") -> None:
        """Wake the supervisor, and start one if none is running; without news only the latter."""
        for _ in range(STARTS):
            if keeper.wake(self.home / "wake", news):
                return
            started = subprocess.run(
                [sys.executable, "-P", "-m", "genokit.local.engine.supervisor", str(self.home)],
                cwd=self.home,
                env=self.runtime() | containers.clients_own(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors="replace",
                check=False,
            )
            said = started.stdout.strip()
            if said.endswith("ready"):
                return
            if said:  # else it was killed
                break
        died = len(store.deaths(self.home))
        often = f"It has died {died} times in a row. " if died > 1 else ""
        raise self.refuse(
            f"The embedded account in '{self.home}' has no supervisor, so no job starts or ends: {said}. {often}"
            "'supervisor.log' in that folder says more; 'genokit local stop' ends what still runs.",
            "ServerException",
        )
