"""Requests and responses, held against AWS's own published model of the service.

botocore ships that model. It names every member and its type, so what passes here has the shape that AWS takes and
gives. What the model says but botocore never checks (the enums) is checked here too, and refused as AWS refuses it:
with a ``ClientError``. What only the documents say is in ``limits``.
"""

from __future__ import annotations

import functools
from typing import Any

import botocore.session
from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError
from botocore.validate import ParamValidator

from genokit.refusals import unwritable


class Refused(Exception):
    """What a request is answered with instead: by S3, or by the door before any operation sees it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@functools.cache
def service(name: str) -> Any:
    """botocore's model of a service."""
    return botocore.session.Session().get_service_model(name)


@functools.cache
def operations(name: str) -> dict[str, Any]:
    """Method name (``submit_job``) -> botocore's model of the operation."""
    return {xform_name(one): service(name).operation_model(one) for one in service(name).operation_names}


class _Enums(ParamValidator):  # type: ignore[misc]
    strange = False  # whether any text is one that no process can take

    def _validate_string(self, param: Any, shape: Any, errors: Any, name: str) -> None:
        super()._validate_string(param, shape, errors, name)
        self.strange = self.strange or bool(unwritable(param))
        # AWS documents some enums (evaluateOnExit.action) as case-insensitive; none has two values that differ by case
        # alone.
        allowed = getattr(shape, "enum", None)
        if allowed and isinstance(param, str) and param.casefold() not in {value.casefold() for value in allowed}:
            errors.report(name, "invalid type", param=param, valid_types=allowed)

    def _shape_has_constraints(self, shape: Any) -> bool:
        return True  # botocore would not look into a list of strings for their values


class _Responses(ParamValidator):  # type: ignore[misc]
    def _validate_structure(self, params: Any, shape: Any, errors: Any, name: str) -> None:
        if shape.name == "JobDetail":
            # The model calls it required, yet AWS leaves it out of a job that has not started.
            params = {"startedAt": 0, **params}
        super()._validate_structure(params, shape, errors, name)


def check_request(operation: Any, request: dict[str, Any]) -> None:
    """Raise what boto3 raises for a request it would not send, and ``ClientError`` for an enum that AWS refuses, or for
    a text that no process can take."""
    try:
        wrong = ParamValidator().validate(request, operation.input_shape).generate_report()
    except RecursionError:
        wrong = "the request is nested more deeply than can be read"
    if wrong:
        raise ParamValidationError(report=wrong)
    looked = _Enums()
    report = looked.validate(request, operation.input_shape)
    strange = looked.strange and operation.service_model.service_name != "logs"  # where no such stream is found
    if report.has_errors() or strange:
        raise client_error(operation.name, unwritable(request) or report.generate_report())


def check_response(operation: Any, response: dict[str, Any]) -> None:
    """Raise AssertionError where the embedded service itself is wrong: an answer that AWS could not give.

    Of a long list the first ten are looked at, as one piece of code makes them all: the check of a hundred jobs would
    take ten times as long as their description.
    """
    if operation.output_shape is None:  # some operations answer nothing
        return
    sample = {member: value[:10] if isinstance(value, list) else value for member, value in response.items()}
    report = _Responses().validate(sample, operation.output_shape)
    if report.has_errors():
        raise AssertionError(f"{operation.name} answered in a shape that AWS would not:\n{report.generate_report()}")


def client_error(operation_name: str, message: str, code: str = "ClientException") -> Exception:
    """The error that boto3 raises when AWS answers with ``code``."""
    status = 500 if code == "ServerException" else 400
    error = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    refusal: Exception = ClientError(error, operation_name)
    return refusal
