"""The one place that knows whether the kit runs here or on AWS: everything above takes clients in boto3's shape."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from importlib import import_module
from typing import TYPE_CHECKING, Any

from genokit.config import Settings
from genokit.errors import AccessDenied, ConfigError, InvalidRequest, ServiceError

if TYPE_CHECKING:
    from genokit.local.account import Account
    from genokit.local.door import Door


@dataclass(frozen=True)
class Clients:
    """The services' clients in boto3's shape: ``batch``, ``logs``, ``s3``, and any other by ``client(name)``.

    Each can be given; the rest are made on first use.

    >>> Clients(Settings(), batch="a Stubber's client").batch
    "a Stubber's client"
    """

    settings: Settings
    made: dict[str, Any] = field(default_factory=dict)

    def __init__(self, settings: Settings, **given: Any) -> None:
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "made", given)

    @property
    def batch(self) -> Any:
        return self.client("batch")

    @property
    def logs(self) -> Any:
        return self.client("logs")

    @property
    def s3(self) -> Any:
        return self.client("s3")

    def client(self, service: str) -> Any:
        """The client of any service, by boto3's name; what the embedded account lacks raises NotImplementedError when
        it is called."""
        if service not in self.made:
            make = _embedded if self.settings.backend == "local" else _boto3
            self.made[service] = make(service, self.settings)
        return self.made[service]

    # --- what the deployed stack offers to jobs

    def outputs(self) -> dict[str, str]:
        """The outputs of the stack that the settings name; empty where it is not deployed. Raises AccessDenied."""
        if "outputs" not in self.made:
            name = self.settings.stack
            try:
                with translated_errors(f"stack '{name}'"):
                    found = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
            except InvalidRequest:  # AWS's word for a stack that is not there
                return {}
            outputs = {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}
            if not found["StackStatus"].endswith("_COMPLETE"):
                return outputs
            self.made["outputs"] = outputs
        return dict(self.made["outputs"])

    def output(self, key: str) -> str:
        """One output of the stack. Raises ConfigError where it is not deployed."""
        outputs = self.outputs()
        if key not in outputs:
            raise ConfigError(
                f"The stack '{self.settings.stack}' is not deployed in {self.settings.region or 'the default region'}, "
                f"or has no output '{key}'. Deploy it with Stack('batch').deploy(), or name another: "
                'stack = "..." in genokit.toml.'
            )
        return outputs[key]

    @property
    def bucket(self) -> str:
        """The bucket for code, parameters and results; the embedded account has one from its first day."""
        if self.settings.backend == "local":
            return self.outputs().get("Bucket", "genokit")
        return self.output("Bucket")

    def container(self, image: str, *, gpus: int = 0) -> dict[str, Any]:
        """The containerProperties that an image brings: ``genokit`` is this kit's own, wherever that is."""
        if self.settings.backend == "local" or image != "genokit":
            return {"image": image}
        return {
            "image": self.output("ImageGpu" if gpus else "ImageCpu"),
            "jobRoleArn": self.output("JobRole"),
            "executionRoleArn": self.output("ExecutionRole"),
            "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": self.output("LogGroup")}},
        }

    def job_environment(self) -> dict[str, str]:
        """The variables by which the kit inside a job finds the same account."""
        if self.settings.backend == "local":
            return {}  # the embedded account gives them to every job
        told = {"GENOKIT_BACKEND": "aws", "GENOKIT_STACK": self.settings.stack}
        return told | {"GENOKIT_REGION": self.region}

    @property
    def region(self) -> str:
        """The region that jobs run in; for the embedded account the one whose prices and names are meant."""
        if self.settings.backend == "local":
            return self.settings.region or "us-east-1"
        return str(self.settings.region or self.batch.meta.region_name)

    @property
    def place(self) -> str:
        """Where jobs run, and what that place cannot keep of AWS Batch, in words for a card."""
        if self.settings.backend == "local":
            return "here, embedded: image genokit is a process of this user, without the walls of a container or of IAM"
        return f"on AWS, {self.settings.region or 'default region'}"

    @property
    def billed(self) -> bool:
        """Whether somebody pays for the hours of a job."""
        return self.settings.backend != "local"

    @property
    def shares_folders(self) -> bool:
        """Whether a job sees this machine's folders, so that what it writes there is found here."""
        return self.settings.backend == "local"

    @property
    def poll_s(self) -> float:
        """Seconds between two looks at a job that runs."""
        return 0.25 if self.settings.backend == "local" else 4.0

    @property
    def grace_s(self) -> float:
        """Seconds that a job may wait before anything is thought to be wrong."""
        return 2.0 if self.settings.backend == "local" else 120.0

    @property
    def log_delay_s(self) -> float:
        """Seconds by which the last log lines may come after the job's end."""
        return 0.0 if self.settings.backend == "local" else 4.0


def clients(settings: Settings | None = None) -> Clients:
    """Batch, Logs and S3 clients with boto3's calling shape, for the place that the settings name."""
    return Clients(settings or Settings.load())


def account(settings: Settings | None = None) -> Account:
    """The embedded account of the settings: its status, and the ways to stop and to clear it."""
    from genokit.local.account import Account

    return Account((settings or Settings.load()).home)


def door(settings: Settings | None = None, port: int = 0, *, verbose: bool = False) -> Door:
    """The embedded account over AWS's wire protocol, for other clients; nothing gets in before ``serve_forever()``."""
    from genokit.local.door import Door

    settings = settings or Settings.load()
    return Door(settings.home, settings.environ(), port, verbose=verbose)


EMBEDDED = ("batch", "cloudformation", "ecr", "logs", "s3", "sqs")  # the services that have a module in genokit.local


def _embedded(service: str, settings: Settings) -> Any:
    if service in EMBEDDED:
        return import_module(f"genokit.local.{service}").client(settings.home, settings.environ())
    from genokit.local.client import EmbeddedClient

    return EmbeddedClient(service, {}, settings.home, {})


def _boto3(service: str, settings: Settings) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
        # Batch throttles whoever asks often, and the wait pays; data and prices have other sources to turn to.
        retries = {"mode": "adaptive", "total_max_attempts": 3 if service in ("s3", "pricing") else 6}
        region = "us-east-1" if service == "pricing" else None  # the price list of all regions is asked for there
        return session.client(
            service, region_name=region, config=Config(retries=retries, connect_timeout=settings.timeout_s)
        )
    except BotoCoreError as error:
        raise ConfigError(
            f"No {service} client for AWS: {error} Set region and profile in genokit.toml, or GENOKIT_REGION and "
            "GENOKIT_PROFILE; 'genokit doctor' shows what is set and where."
        ) from error


@contextmanager
def translated_errors(thing: str) -> Iterator[None]:
    """Turn botocore's errors into the kit's, in the one place; ``thing`` says what was being done.

    >>> from botocore.exceptions import ClientError
    >>> with translated_errors("job 'align'"):
    ...     raise ClientError({"Error": {"Code": "ClientException", "Message": "too many"}}, "SubmitJob")
    Traceback (most recent call last):
    genokit.errors.InvalidRequest: job 'align': SubmitJob was refused: too many
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        ParamValidationError,
        SSLError,
    )

    try:
        yield
    except ClientError as error:
        raise _translated(thing, error) from error
    except ParamValidationError as error:
        raise InvalidRequest(f"{thing}: {error}", code="ParamValidation") from error
    except BotoCoreError as error:
        said, code = str(error).rstrip("."), type(error).__name__
        if code.startswith(SIGN_IN):
            raise ConfigError(f"{thing}: there are no credentials to sign with: {said}. {SET_UP}") from error
        if code.startswith(SETTINGS):
            raise ConfigError(f"{thing}: the request could not be made: {said}. {SET_UP}") from error
        if not isinstance(error, (ConnectionError, HTTPClientError)):
            raise ServiceError(f"{thing}: {said}", code=code) from error
        ask = "is there a network, and are region and proxy right?"
        if isinstance(error, SSLError):
            ask = "does a proxy stand between? AWS_CA_BUNDLE names the file with its certificate."
        raise ServiceError(f"{thing}: AWS could not be reached: {said}: {ask}", code=code) from error


SET_UP = (
    "Set region and profile in genokit.toml, or GENOKIT_REGION and GENOKIT_PROFILE, and sign in (aws sso login, or "
    "aws configure); 'genokit doctor' shows what is set."
)
SIGN_IN = (
    "NoCredentials", "PartialCredentials", "Credential", "SSO", "UnauthorizedSSO", "Token", "NoAuthToken", "Login",
    "RefreshWithMFA", "Metadata",
)  # fmt: skip  # how the names of botocore's errors begin that a sign-in would mend
SETTINGS = ("NoRegion", "InvalidRegion", "UnknownRegion", "Profile", "ConfigNotFound", "ConfigParse", "EndpointP")
ACCESS = (
    "AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "NotAuthorized", "AuthorizationError",
    "AuthorizationErrorException",
)  # fmt: skip
CREDENTIALS = (
    "ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId",
    "InvalidAccessKeyId", "AuthFailure", "MissingAuthenticationToken", "MissingAuthenticationTokenException",
)  # fmt: skip
SIGNATURE = (
    "InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed",
    "IncompleteSignature", "IncompleteSignatureException",
)  # fmt: skip
THROTTLED = (
    "TooManyRequestsException", "ThrottlingException", "Throttling", "ThrottledException", "RequestLimitExceeded",
    "RequestThrottled", "RequestThrottledException", "SlowDown",
)  # fmt: skip
REFUSED = (
    "ClientException",
    "InvalidParameterException",
    "ResourceNotFoundException",
    "ValidationException",
    "ValidationError",
    "AlreadyExistsException",
    "ChangeSetNotFound",
    "InsufficientCapabilitiesException",
    "InvalidChangeSetStatus",
    "NoSuchBucket",
    "NoSuchKey",
    "RepositoryNotFoundException",
)


def _translated(thing: str, error: Any) -> Exception:
    code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    operation, told = error.operation_name, error.response.get("ResponseMetadata", {})
    if operation.startswith("Head"):  # such answers have no body to say more in
        code = {"403": "AccessDenied", "404": "NoSuchKey"}.get(code, code)
    if code in ACCESS:
        return _denied(thing, operation, message)
    if code in CREDENTIALS:
        return ConfigError(
            f"{thing}: AWS does not accept the credentials ({code}): {_ended(message)} Sign in again, then retry."
        )
    if code in SIGNATURE:
        skew = _skew_s(told.get("HTTPHeaders", {}).get("date", ""))
        cause = "the secret key is not that of the access key, or this machine's clock is wrong"
        if abs(skew) > 60:
            cause = (
                f"this machine's clock is {abs(skew) / 60:.0f} min {'behind' if skew > 0 else 'ahead of'} AWS's: set it"
            )
        return ConfigError(f"{thing}: AWS does not accept the signature of {operation} ({code}): {cause}. {message}")
    if code in REFUSED:
        return InvalidRequest(f"{thing}: {operation} was refused: {message}", code=code)
    if code in THROTTLED:
        tries = told.get("RetryAttempts", 0) + 1
        return ServiceError(
            f"{thing}: AWS throttles {operation} ({code}), also at try {tries}: {_ended(message)} "
            "This may pass: wait a minute, and ask for many jobs in one call.",
            code=code,
        )
    if code.isdecimal() or code.startswith("Unknown"):  # an answer in no form of AWS's
        return ServiceError(
            f"{thing}: what answered {operation} does not speak as AWS does ({code} {message}): are AWS_ENDPOINT_URL "
            "and the proxy right?",
            code=code,
        )
    return ServiceError(
        f"{thing}: {operation} failed ({code}): {_ended(message)} This may pass: try again in a minute.", code=code
    )


def _denied(thing: str, operation: str, message: str) -> AccessDenied:
    """What was denied, on what, to whom and why, as far as AWS tells; and which policy would give it."""
    told = re.search(
        r"User: (?P<who>\S+) is not authorized to perform: (?P<action>[\w:*]+)"
        r"(?: on resource: (?P<resource>\S+))?(?:.*?(?:because|with) (?P<why>.*))?",
        message,
        flags=re.DOTALL,
    )
    action, resource, who, why = (told[name] or "" if told else "" for name in ("action", "resource", "who", "why"))
    what = f"{action or operation}" + (f" on {resource}" if resource else "") + (f" to {who}" if who else "")
    if re.search("explicit deny|service control policy|permissions boundary", message):
        advice = "Somebody forbids it: whoever keeps the account can say why."
    else:
        advice = (
            "A policy must give it: the stack's output UserPolicy names the one that gives what this kit asks of AWS; "
            "have it attached to your user or role. docs/aws.md lists its actions. What deploying needs is in "
            "Stack('batch').policy()."
        )
    return AccessDenied(
        f"{thing}: AWS denies {what}: {_ended(why or message)} {advice}", action=action or operation, resource=resource
    )


def _ended(message: str) -> str:
    """A sentence with its full stop.

    >>> _ended("Too Many Requests"), _ended("Denied.")
    ('Too Many Requests.', 'Denied.')
    """
    return f"{message.rstrip('. ')}."


def _skew_s(date: str) -> float:
    """Seconds by which a server's date is ahead of this machine's clock; 0 where it says none.

    >>> _skew_s(""), _skew_s("no date")
    (0.0, 0.0)
    """
    told = parsedate_tz(date)
    return mktime_tz(told) - time.time() if told else 0.0
