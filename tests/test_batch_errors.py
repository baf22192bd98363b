"""What AWS or the way to it can refuse, said clearly: boto3's own clients, made by the kit, before a small server that
answers as AWS does."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from genokit import Batch, Job, Settings
from genokit.backends import Clients, translated_errors
from genokit.batch import LogStream
from genokit.errors import AccessDenied, ConfigError, GenokitError, InvalidRequest, ServiceError

WHO = "arn:aws:sts::123456789012:assumed-role/scientist/ana"
QUEUE = "arn:aws:batch:us-east-1:123456789012:job-queue/highPriority"


class Server(ThreadingHTTPServer):
    """Answers every request with the next of its answers, and the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, str, str]] = []
        self.asked: list[str] = []
        self.date = datetime.now(UTC)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def refuses(self, code: str, message: str, status: int = 400) -> None:
        self.answers.append((status, code, json.dumps({"message": message, "__type": code})))

    def answers_with(self, body: str, status: int = 200) -> None:
        self.answers.append((status, "", body))


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        answers = self.server.answers
        status, code, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response_only(status)
        self.send_header("Date", format_datetime(self.server.date, usegmt=True))
        self.send_header("Content-Length", str(len(body.encode())))
        if code:
            self.send_header("x-amzn-ErrorType", code)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """The tests say what matters."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def aws(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings for AWS, which is the server; nothing of the user's own profile is read."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Settings(backend="aws", region="us-east-1", home=tmp_path)


def impatient(settings: Settings, **told: Any) -> Clients:
    """Clients that try twice and wait little, where the kit's own would wait longer."""
    config = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=2)
    made = {name: boto3.client(name, region_name=settings.region, config=config, **told) for name in ("batch", "logs")}
    return Clients(settings, **made)


CALLS: dict[str, Callable[[Clients], object]] = {
    "Batch.jobs": lambda clients: Batch(clients).jobs(queue="highPriority"),
    "Batch.queues": lambda clients: Batch(clients).queues(),
    "Batch.job": lambda clients: Batch(clients).job("ab12"),
    "Job.cancel": lambda clients: Job(clients, "ab12").cancel(),
    "Job.terminate": lambda clients: Job(clients, "ab12").terminate(),
    "LogStream.read": lambda clients: LogStream(clients, "task/default/0123").read(),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def error_of(call: Callable[[], object], becomes: type[GenokitError]) -> str:
    """The message of the error, which is one of the kit's and never holds a secret."""
    with pytest.raises(becomes) as caught:
        call()
    assert type(caught.value) is becomes
    assert "secret" not in str(caught.value).replace("secret key", "")
    return str(caught.value)


@each_call
def test_expired_credentials_say_sign_in_again(
    aws: Settings, server: Server, call: Callable[[Clients], object]
) -> None:
    server.refuses("ExpiredTokenException", "The security token included in the request is expired", 403)
    said = error_of(lambda: call(Clients(aws)), ConfigError)
    assert "The security token included in the request is expired" in said
    assert said.endswith("Sign in again, then retry.")
    assert len(server.asked) == 1  # asking again would not mend it


@each_call
def test_denied_names_action_resource_and_the_policy_that_gives_it(
    aws: Settings, server: Server, call: Callable[[Clients], object]
) -> None:
    because = "because no identity-based policy allows the batch:Example action"
    server.refuses(
        "AccessDeniedException",
        f"User: {WHO} is not authorized to perform: batch:Example on resource: {QUEUE} {because}",
        403,
    )
    with pytest.raises(AccessDenied) as caught:
        call(Clients(aws))
    assert (caught.value.action, caught.value.resource) == ("batch:Example", QUEUE)
    said = str(caught.value)
    assert f"AWS denies batch:Example on {QUEUE} to {WHO}: no identity-based policy allows" in said
    assert "UserPolicy" in said


def test_denied_by_somebody_is_not_mended_by_a_policy_and_little_said_is_passed_on(
    aws: Settings, server: Server
) -> None:
    forbidden = "with an explicit deny in a service control policy"
    told = f"User: {WHO} is not authorized to perform: batch:SubmitJob on resource: {QUEUE} {forbidden}"
    server.refuses("AccessDeniedException", told, 403)
    server.refuses("AccessDeniedException", "no", 403)
    said = error_of(lambda: Batch(Clients(aws)).queues(), AccessDenied)
    assert (
        f"batch:SubmitJob on {QUEUE} to {WHO}: an explicit deny in a service control policy. Only an administrator"
        in said
    )
    assert "AWS denies DescribeJobQueues: no. It needs a policy" in error_of(
        lambda: Batch(Clients(aws)).queues(), AccessDenied
    )


@each_call
def test_throttled_is_tried_again_and_then_said(
    aws: Settings, server: Server, call: Callable[[Clients], object]
) -> None:
    server.refuses("TooManyRequestsException", "Too Many Requests", 429)
    said = error_of(lambda: call(impatient(aws)), ServiceError)
    assert "AWS throttled" in said
    assert "2 times in a row: Too Many Requests. Wait a minute" in said
    assert len(server.asked) == 2


def test_the_kits_own_clients_get_through_a_short_throttling(aws: Settings, server: Server) -> None:
    server.refuses("ThrottlingException", "Rate exceeded")
    server.answers_with(json.dumps({"jobQueues": []}))
    assert Batch(Clients(aws)).queues() == []
    assert len(server.asked) == 2


def test_a_signature_that_aws_does_not_accept_names_the_key_and_the_clock(aws: Settings, server: Server) -> None:
    server.refuses("InvalidSignatureException", "Signature expired: 20261122T100000Z is now earlier than ...", 403)
    said = error_of(lambda: Batch(Clients(aws)).queues(), ConfigError)
    assert "The secret key is not that of the access key, or this machine's clock is wrong. Signature expired" in said


def test_keys_that_aws_does_not_know(aws: Settings, server: Server) -> None:
    server.refuses("UnrecognizedClientException", "The security token included in the request is invalid.", 403)
    assert "does not accept the credentials" in error_of(lambda: Batch(Clients(aws)).queues(), ConfigError)


@each_call
def test_no_credentials(aws: Settings, call: Callable[[Clients], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    said = error_of(lambda: call(Clients(aws)), ConfigError)
    assert "there are no credentials" in said
    assert "genokit doctor" in said


def test_half_a_key_and_an_unknown_profile(aws: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    said = error_of(lambda: Batch(Clients(aws)).queues(), ConfigError)
    assert "aws_secret_access_key" in said.lower()
    named = Settings(backend="aws", region="us-east-1", profile="nobody", home=tmp_path)
    said = error_of(lambda: Batch(Clients(named)).queues(), ConfigError)
    assert "(nobody) could not be found" in said


@each_call
def test_no_region(aws: Settings, call: Callable[[Clients], object], tmp_path: Path) -> None:
    said = error_of(lambda: call(Clients(Settings(backend="aws", home=tmp_path))), ConfigError)
    assert "You must specify a region" in said
    assert "GENOKIT_REGION" in said


@each_call
def test_no_network(aws: Settings, call: Callable[[Clients], object]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # a port where nobody listens
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        said = error_of(lambda: call(impatient(aws, endpoint_url=url)), ServiceError)
    assert f'AWS could not be reached: Could not connect to the endpoint URL: "{url}/' in said
    assert "Check the network" in said


def test_something_else_than_aws_answers(aws: Settings, server: Server) -> None:
    server.answers_with("<html>Please log in to the guest network</html>", 403)
    said = error_of(lambda: Batch(Clients(aws)).queues(), ServiceError)
    assert "is not from AWS (403" in said
    assert "AWS_ENDPOINT_URL" in said


@pytest.mark.parametrize(("status", "becomes"), [(403, AccessDenied), (404, InvalidRequest), (503, ServiceError)])
def test_answers_without_a_body_are_told_apart_by_their_number(status: int, becomes: type[GenokitError]) -> None:
    told = {"Error": {"Code": str(status), "Message": "Bare"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(becomes, match=r"object 'a': .*HeadObject"), translated_errors("object 'a'"):
        raise ClientError(told, "HeadObject")


def test_aws_itself_is_broken(aws: Settings, server: Server) -> None:
    server.refuses("ServerException", "An internal error occurred", 500)
    said = error_of(lambda: Batch(impatient(aws)).queues(), ServiceError)
    assert said.endswith("An internal error occurred. Try again in a minute.")
    assert len(server.asked) == 2


def test_a_refused_request_is_passed_on_in_batchs_words(aws: Settings, server: Server) -> None:
    server.refuses("ClientException", "Job ab12 does not exist", 404)
    said = error_of(lambda: Job(Clients(aws), "ab12").cancel(), InvalidRequest)
    assert said == "job 'ab12': CancelJob was refused: Job ab12 does not exist"
