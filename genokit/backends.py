"""The one place that knows whether the kit runs here or on AWS: everything above takes clients in boto3's shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from genokit.config import Settings
from genokit.errors import AccessDenied, ConfigError, InvalidRequest, ServiceError

if TYPE_CHECKING:
    from genokit.local.account import Account
    from genokit.local.door import Door


@dataclass(frozen=True)
class Clients:
    """The services' clients in boto3's shape: ``batch``, ``logs``, ``s3``. Any of them can be given; the rest are made
    on first use.

    >>> Clients(Settings(), batch="a Stubber's client").batch
    "a Stubber's client"
    """

    settings: Settings
    given: dict[str, Any] = field(default_factory=dict)

    def __init__(self, settings: Settings, **given: Any) -> None:
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "given", given)

    @cached_property
    def batch(self) -> Any:
        return self._client("batch")

    @cached_property
    def logs(self) -> Any:
        return self._client("logs")

    @cached_property
    def s3(self) -> Any:
        return self._client("s3")

    @property
    def place(self) -> str:
        """Where jobs run, and what that place cannot keep of AWS Batch, in words for a card."""
        if self.settings.backend == "local":
            return "here, embedded: image genokit is a process of this user, without the walls of a container or of IAM"
        return f"on AWS, {self.settings.region or 'default region'}"

    @property
    def shares_folders(self) -> bool:
        """Whether a job sees this machine's folders, so that what it writes there is found here."""
        return self.settings.backend == "local"

    @property
    def poll_s(self) -> float:
        """Seconds between two looks at a job that runs."""
        return 0.25 if self.settings.backend == "local" else 4.0

    @property
    def log_delay_s(self) -> float:
        """Seconds by which the last log lines may come after the job's end."""
        return 0.0 if self.settings.backend == "local" else 4.0

    def _client(self, service: str) -> Any:
        if service in self.given:
            return self.given[service]
        if self.settings.backend == "local":
            return _embedded(service, self.settings)
        return _boto3(service, self.settings)


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


def _embedded(service: str, settings: Settings) -> Any:
    if service == "batch":
        from genokit.local import batch

        return batch.client(settings.home, settings.environ())
    if service == "logs":
        from genokit.local import logs

        return logs.client(settings.home, settings.environ())
    # S3 is not embedded: without an account, public buckets can still be read.
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(signature_version=UNSIGNED, connect_timeout=settings.timeout_s, read_timeout=settings.timeout_s,
                    retries={"total_max_attempts": 1})  # fmt: skip
    return boto3.client(service, region_name=settings.region or "us-east-1", config=config)


def _boto3(service: str, settings: Settings) -> Any:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
        # Batch throttles whoever asks often, and the wait pays; data have other sources to turn to.
        retries = {"mode": "adaptive", "max_attempts": 2 if service == "s3" else 8}
        return session.client(service, config=Config(retries=retries, connect_timeout=settings.timeout_s))
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
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, ParamValidationError

    try:
        yield
    except ClientError as error:
        raise _translated(thing, error) from error
    except ParamValidationError as error:
        raise InvalidRequest(f"{thing}: {error}", code="ParamValidation") from error
    except (NoCredentialsError, NoRegionError) as error:
        raise ConfigError(
            f"{thing}: {error}. Set profile and region in genokit.toml; 'genokit doctor' shows what is set."
        ) from error
    except BotoCoreError as error:
        raise ServiceError(f"{thing}: AWS could not be reached: {error}", code=type(error).__name__) from error


ACCESS = ("AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "NotAuthorized")
CREDENTIALS = (
    "ExpiredTokenException",
    "ExpiredToken",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
)
REFUSED = (
    "ClientException",
    "InvalidParameterException",
    "ResourceNotFoundException",
    "ValidationException",
    "ValidationError",
)


def _translated(thing: str, error: Any) -> Exception:
    code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    operation = error.operation_name
    if code in ACCESS:
        return AccessDenied(f"{thing}: AWS denies {operation}: {message}", action=operation)
    if code in CREDENTIALS:
        return ConfigError(
            f"{thing}: AWS does not accept the credentials ({code}): {message} Sign in again, then retry."
        )
    if code in REFUSED:
        return InvalidRequest(f"{thing}: {operation} was refused: {message}", code=code)
    return ServiceError(
        f"{thing}: {operation} failed ({code}): {message} This may pass: try again in a minute.", code=code
    )
