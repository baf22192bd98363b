"""An embedded service in boto3's calling shape: a table of operations, and one way in for all of them."""

from __future__ import annotations

import functools
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import genokit
from genokit.local import shapes, store
from genokit.local.batch import limits
from genokit.local.engine import containers, keeper

STARTS = 10  # how often a supervisor is started that is killed before it can say a word

Operation = Callable[["Caller", dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Caller:
    """Who asks, of which account, in which operation."""

    home: Path
    operation: str
    job_environment: Mapping[str, str]

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with store.connect(self.home) as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nothing too where no supervisor can be had; afterwards it is told that there is news."""
        with store.connect(self.home) as db:
            db.execute("pragma synchronous = full")  # what a client has been answered outlives the power
            with store.transaction(db):
                yield db
                self.wake(b"")
        self.wake()

    def refuse(self, message: str, code: str = "ClientException") -> Exception:
        """The error that AWS would answer with."""
        return shapes.client_error(self.operation, message, code)

    def runtime(self) -> dict[str, str]:
        """What the image ``genokit`` sets: this Python environment first on the path, nothing of the caller's own."""
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {
            "PATH": f"{Path(sys.executable).parent}:{system}",
            "PYTHONPATH": str(Path(genokit.__file__).resolve().parent.parent),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
            **self.job_environment,
        }

    def wake(self, news: bytes = b"!") -> None:
        """Tell the supervisor that there is news; start one where none listens. Without news only the latter."""
        for _ in range(STARTS):
            if keeper.wake(self.home / "wake", news):
                return
            started = subprocess.run(
                [sys.executable, "-P", "-m", "genokit.local.engine.supervisor", str(self.home)],
                cwd=self.home,
                env=self.runtime() | containers.clients_own(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                check=False,
            )
            said = started.stderr.strip()
            if started.returncode == 0:
                return
            if said:
                break
        died = len(store.deaths(self.home))
        often = f"It has died {died} times in a row. " if died > 1 else ""
        raise self.refuse(
            f"The embedded account in '{self.home}' has no supervisor, so no job starts or ends: {said}. {often}"
            "'supervisor.log' in that folder says more; 'genokit local stop' ends what still runs.",
            "ServerException",
        )


class EmbeddedClient:
    """Answers as a client of boto3 does, request and response held against AWS's model of the service."""

    def __init__(
        self, service: str, offered: Mapping[str, Operation], home: Path, job_environment: Mapping[str, str]
    ) -> None:
        self._service = service
        self._offered = offered
        self._home = home
        self._job_environment = job_environment

    def __getattr__(self, method: str) -> Callable[..., dict[str, Any]]:
        if method.startswith("_"):  # copy, pickle and notebooks look for such names, before there is anything to ask
            raise AttributeError(method)
        models = shapes.operations(self._service)
        if method in self._offered:
            return functools.partial(self._call, models[method], self._offered[method])
        if method in models:
            raise NotImplementedError(
                f"The embedded account does not offer {self._service}'s {models[method].name}. "
                "It is there with backend = 'aws'."
            )
        raise AttributeError(f"'{self._service}' has no operation '{method}'")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._offered})

    def __repr__(self) -> str:
        return f"<EmbeddedClient {self._service} {self._home}>"

    def _call(self, model: Any, operation: Operation, /, **request: Any) -> dict[str, Any]:
        shapes.check_request(model, request)
        caller = Caller(self._home, model.name, self._job_environment)
        if len(store.deaths(self._home)) > 1:
            caller.wake(b"")  # whoever asks anything is told that nothing goes on
        try:
            response = operation(caller, request)
            shapes.check_response(model, response)
        except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:  # as AWS: its own fault
            said = f"The account in '{self._home}' has a damaged record, or the kit an error: {error!r}"
            raise caller.refuse(said, "ServerException") from error
        return {**response, "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0}}


def page(caller: Caller, member: str, found: list[Any], request: dict[str, Any]) -> dict[str, Any]:
    """One page of a list; the token is the number of the first thing on the next."""
    first = limits.position(request.get("nextToken") or "0")
    if first is None:
        raise caller.refuse("nextToken: not a token of this account")
    limits.within(caller.refuse, "maxResults", request.get("maxResults"), limits.PAGE)
    end = first + request.get("maxResults", limits.PAGE[1])
    return {member: found[first:end]} | ({"nextToken": str(end)} if end < len(found) else {})
