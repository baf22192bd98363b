"""What AWS refuses, and why, in the kit's own errors: the one place where botocore's and pyathena's are translated."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import mktime_tz, parsedate_tz
from typing import Any

from genokit.errors import AccessDenied, ConfigError, InvalidRequest, ServiceError


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


_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


def unwritable(value: object, member: str = "") -> str:
    """What is wrong with the first text of a request that no process and no file can take; empty where none is.

    >>> unwritable({"command": ["echo", "a\\0b"]}), unwritable({"command": ["echo"]})
    ('command[1] contains a NUL character or an unpaired surrogate, which no process can be given. Remove it.', '')
    """
    if isinstance(value, str):
        said = "contains a NUL character or an unpaired surrogate, which no process can be given. Remove it."
        return f"{member} {said}" if _UNWRITABLE.search(value) else ""
    if isinstance(value, Mapping):
        parts = [(f"{member}.{name}" if member else str(name), part) for name, part in value.items()]
        keys = [(f"{member}: the name {name!a}", name) for name in value]
        return next((wrong for path, part in (*keys, *parts) if (wrong := unwritable(part, path))), "")
    if isinstance(value, (list, tuple)):
        several = enumerate(value)
        return next((wrong for number, part in several if (wrong := unwritable(part, f"{member}[{number}]"))), "")
    return ""


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
    "EntityNotFoundException",
    "InvalidInputException",
    "InvalidRequestException",
    "InsufficientCapabilitiesException",
    "InvalidChangeSetStatus",
    "NoSuchBucket",
    "NoSuchKey",
    "RepositoryNotFoundException",
)


# What Athena says of these is about the statement; of others it may be about a value in some patient's row.
STATEMENT = (
    "SYNTAX_ERROR", "TYPE_MISMATCH", "TABLE_NOT_FOUND", "COLUMN_NOT_FOUND", "SCHEMA_NOT_FOUND", "FUNCTION_NOT_FOUND",
    "CATALOG_NOT_FOUND", "AMBIGUOUS_NAME", "MISSING_COLUMN_NAME", "DUPLICATE_COLUMN_NAME", "TABLE_ALREADY_EXISTS",
    "EXPRESSION_NOT_AGGREGATE", "EXPRESSION_NOT_SCALAR", "INVALID_TABLE_PROPERTY", "NOT_SUPPORTED", "PERMISSION_DENIED",
    "HIVE_PATH_ALREADY_EXISTS", "HIVE_INVALID_METADATA",
)  # fmt: skip


@contextmanager
def translated_queries(thing: str) -> Iterator[None]:
    """Turn pyathena's errors into the kit's; what may be a value of a row is left out.

    >>> from pyathena.error import OperationalError
    >>> with translated_queries("table 'person'"):
    ...     raise OperationalError("INVALID_CAST_ARGUMENT: Cannot cast 'Smith' to bigint")
    Traceback (most recent call last):
    genokit.errors.InvalidRequest: table 'person': Athena could not run the statement: INVALID_CAST_ARGUMENT. Athena's \
own words may hold values of rows, and are not repeated; its console has them.
    """
    from pyathena.error import Error

    try:
        with translated_errors(thing):
            yield
    except Error as error:
        if error.__cause__ is not None:
            with translated_errors(thing):
                raise error.__cause__  # noqa: B904  # botocore's own, which says more
        raise _failed_query(thing, str(error)) from None


def _failed_query(thing: str, said: str) -> Exception:
    told = re.match(r"([A-Z][A-Z_]+_[A-Z]+)\b:? ?(.*)", said, flags=re.DOTALL)
    if told and told[1] in STATEMENT:
        return InvalidRequest(f"{thing}: Athena refuses the statement: {_ended(said)}", code=told[1])
    if told:
        return InvalidRequest(
            f"{thing}: Athena could not run the statement: {told[1]}. Athena's own words may hold values of rows, and "
            "are not repeated; its console has them.",
            code=told[1],
        )
    said = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", said)
    if "limit was exceeded" in said:
        return ServiceError(
            f"{thing}: Athena stopped the query: {_ended(said)} The workgroup's limit is BytesScannedCutoffPerQuery; "
            "whoever keeps it can raise it.",
            code="BytesScannedLimit",
        )
    return ServiceError(f"{thing}: the query failed: {_ended(said)}", code="QueryFailed")


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
