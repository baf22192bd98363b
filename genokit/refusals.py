"""The one place where errors of botocore and pyathena become the kit's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from genokit.errors import AccessDenied, ConfigError, InvalidRequest, ServiceError


@contextmanager
def translated_errors(thing: str) -> Iterator[None]:
    """Turn botocore's errors into the kit's; ``thing`` is what the call was about.

    >>> from botocore.exceptions import ClientError
    >>> with translated_errors("job 'align'"):
    ...     answer = {"Code": "ClientException", "Message": "too many"}
    ...     raise ClientError({"Error": answer, "ResponseMetadata": {"HTTPStatusCode": 400}}, "SubmitJob")
    Traceback (most recent call last):
    genokit.errors.InvalidRequest: job 'align': SubmitJob was refused: too many
    """
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise _translated(thing, error) from error
    except exceptions.ParamValidationError as error:
        raise InvalidRequest(f"{thing}: {error}", code="ParamValidation") from error
    except exceptions.BotoCoreError as error:
        said, code = str(error).rstrip("."), type(error).__name__
        if SIGN_IN.match(code):
            raise ConfigError(f"{thing}: there are no credentials: {said}. {SET_UP}") from error
        if SETTINGS.match(code):
            raise ConfigError(f"{thing}: the request could not be sent: {said}. {SET_UP}") from error
        if not isinstance(error, (exceptions.ConnectionError, exceptions.HTTPClientError)):
            raise ServiceError(f"{thing}: {said}", code=code) from error
        step = "Check the network, the region, and the proxy with its certificate (AWS_CA_BUNDLE)."
        raise ServiceError(f"{thing}: AWS could not be reached: {said}. {step}", code=code) from error


_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


def unwritable(value: object, member: str = "") -> str:
    """What is wrong with the first text of a request that no process can be given; empty if nothing is.

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
# How the names of botocore's errors begin that signing in, or other settings, would resolve.
SIGN_IN = re.compile("(No|Partial)?Credential|(Unauthorized)?SSO|(NoAuth)?Token|Login|RefreshWithMFA|Metadata")
SETTINGS = re.compile("(No|Invalid|Unknown)Region|Profile|Config(NotFound|Parse)|EndpointP")
# How the codes of AWS's errors begin.
ACCESS = re.compile("AccessDenied|UnauthorizedOperation|NotAuthorized|AuthorizationError")
CREDENTIALS = re.compile(
    "ExpiredToken|UnrecognizedClient|InvalidClientTokenId|InvalidAccessKeyId|AuthFailure|MissingAuthenticationToken"
)
SIGNATURE = re.compile("InvalidSignature|SignatureDoesNotMatch|RequestExpired|RequestTimeTooSkewed|IncompleteSignature")
THROTTLED = re.compile("TooManyRequests|Throttl|RequestLimitExceeded|RequestThrottled|SlowDown")
# Codes that AWS answers with the status of a bad request, though trying again helps.
PASSING = re.compile("RequestTimeout|Server|Internal|.*Unavailable")


# Athena's messages for these codes are about the statement; for others they may quote a value of a patient's row.
STATEMENT = (
    "SYNTAX_ERROR", "TYPE_MISMATCH", "TABLE_NOT_FOUND", "COLUMN_NOT_FOUND", "SCHEMA_NOT_FOUND", "FUNCTION_NOT_FOUND",
    "CATALOG_NOT_FOUND", "AMBIGUOUS_NAME", "MISSING_COLUMN_NAME", "DUPLICATE_COLUMN_NAME", "TABLE_ALREADY_EXISTS",
    "EXPRESSION_NOT_AGGREGATE", "EXPRESSION_NOT_SCALAR", "INVALID_TABLE_PROPERTY", "NOT_SUPPORTED", "PERMISSION_DENIED",
    "HIVE_PATH_ALREADY_EXISTS", "HIVE_INVALID_METADATA",
)  # fmt: skip


@contextmanager
def translated_queries(thing: str) -> Iterator[None]:
    """Turn pyathena's errors into the kit's, without anything that may be a value of a row.

    >>> from pyathena.error import OperationalError
    >>> with translated_queries("table 'person'"):
    ...     raise OperationalError("INVALID_CAST_ARGUMENT: Cannot cast 'Smith' to bigint")
    Traceback (most recent call last):
    genokit.errors.InvalidRequest: table 'person': Athena could not run the statement: INVALID_CAST_ARGUMENT. Its \
message may quote values of rows and is not repeated; Athena's console has it.
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
    match = re.match(r"[A-Z][A-Z_]+_[A-Z]+\b", said)
    if match and match[0] in STATEMENT:
        return InvalidRequest(f"{thing}: Athena refuses the statement: {_ended(said)}", code=match[0])
    if match:
        return InvalidRequest(
            f"{thing}: Athena could not run the statement: {match[0]}. Its message may quote values of rows and is not "
            "repeated; Athena's console has it.",
            code=match[0],
        )
    said = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", said)
    return ServiceError(f"{thing}: the query failed: {_ended(said)}", code="QueryFailed")


def _translated(thing: str, error: Any) -> Exception:
    code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    operation, answer = error.operation_name, error.response.get("ResponseMetadata", {})
    if operation.startswith("Head"):  # such answers have no body to say more in
        code = {"403": "AccessDenied", "404": "NoSuchKey"}.get(code, code)
    if ACCESS.match(code):
        return _denied(thing, operation, message)
    if CREDENTIALS.match(code):
        return ConfigError(
            f"{thing}: AWS does not accept the credentials ({code}): {_ended(message)} Sign in again, then retry."
        )
    if SIGNATURE.match(code):
        cause = "The secret key is not that of the access key, or this machine's clock is wrong."
        return ConfigError(f"{thing}: AWS does not accept the signature of {operation} ({code}). {cause} {message}")
    if THROTTLED.match(code):
        tries = answer.get("RetryAttempts", 0) + 1
        return ServiceError(
            f"{thing}: AWS throttled {operation} ({code}), {tries} times in a row: {_ended(message)} "
            "Wait a minute, and request many jobs in one call.",
            code=code,
        )
    if code.isdecimal() or code.startswith("Unknown"):  # not a form in which AWS answers
        return ServiceError(
            f"{thing}: the answer to {operation} is not from AWS ({code} {message}). Check AWS_ENDPOINT_URL and the "
            "proxy.",
            code=code,
        )
    if answer.get("HTTPStatusCode") in (400, 404) and not PASSING.match(code):
        return InvalidRequest(f"{thing}: {operation} was refused: {message}", code=code)
    return ServiceError(f"{thing}: {operation} failed ({code}): {_ended(message)} Try again in a minute.", code=code)


def _denied(thing: str, operation: str, message: str) -> AccessDenied:
    """What was denied, on what, to whom and why, as far as AWS says; and which policy would grant it."""
    match = re.search(
        r"User: (?P<who>\S+) is not authorized to perform: (?P<action>[\w:*]+)"
        r"(?: on resource: (?P<resource>\S+))?(?:.*?(?:because|with) (?P<why>.*))?",
        message,
        flags=re.DOTALL,
    )
    action, resource, who, why = (match[name] or "" if match else "" for name in ("action", "resource", "who", "why"))
    what = f"{action or operation}" + (f" on {resource}" if resource else "") + (f" to {who}" if who else "")
    if re.search("explicit deny|service control policy|permissions boundary", message):
        advice = "Only an administrator of the account can lift this."
    else:
        advice = (
            "It needs a policy that allows it: have the one in the stack's output UserPolicy attached to your user or "
            "role; docs/aws.md lists its actions. Deploying needs Stack('batch').policy()."
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
