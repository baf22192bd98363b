"""Requests and responses, held against AWS's own published model of the service.

botocore ships that model. It names every member and its type, so what passes here has the shape that AWS takes and
gives. What the model says but botocore never checks (the enums), and what only the documents say (the limits), is
checked here too, and refused as AWS refuses it: with a ``ClientError`` of code ``ClientException``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import botocore.session
from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError
from botocore.validate import ParamValidator

Operation = TypeVar("Operation", bound=Callable[..., dict[str, Any]])


@functools.cache
def _operations(service: str) -> dict[str, Any]:
    """Method name (``submit_job``) -> botocore's model of the operation."""
    model = botocore.session.Session().get_service_model(service)
    return {xform_name(name): model.operation_model(name) for name in model.operation_names}


class _EnumValidator(ParamValidator):  # type: ignore[misc]
    def _validate_string(self, param: Any, shape: Any, errors: Any, name: str) -> None:
        super()._validate_string(param, shape, errors, name)
        # AWS documents some enums (evaluateOnExit.action) as case-insensitive; none has two values that differ by case
        # alone.
        allowed = getattr(shape, "enum", None)
        if allowed and isinstance(param, str) and param.casefold() not in {value.casefold() for value in allowed}:
            errors.report(name, "invalid type", param=param, valid_types=allowed)


class _ResponseValidator(ParamValidator):  # type: ignore[misc]
    def _validate_structure(self, params: Any, shape: Any, errors: Any, name: str) -> None:
        if shape.name == "JobDetail":
            # The model calls it required, yet AWS leaves it out of a job that has not started.
            params = {"startedAt": 0, **params}
        super()._validate_structure(params, shape, errors, name)


def operation(service: str) -> Callable[[Operation], Operation]:
    """Make a method answer as boto3's does: request and response both have the shape of AWS's model.

    Raises botocore's ``ParamValidationError`` for a request that boto3 would not send, and ``ClientError`` for an enum
    value that AWS would refuse."""

    def decorate(method: Operation) -> Operation:
        @functools.wraps(method)
        def call(self: Any, **request: Any) -> dict[str, Any]:
            model = _operations(service)[method.__name__]
            report = ParamValidator().validate(request, model.input_shape)
            if report.has_errors():
                raise ParamValidationError(report=report.generate_report())
            report = _EnumValidator().validate(request, model.input_shape)
            if report.has_errors():
                raise client_error(model.name, report.generate_report())
            response = method(self, **request)
            report = _ResponseValidator().validate(response, model.output_shape)
            if report.has_errors():
                raise AssertionError(
                    f"{model.name} answered in a shape that AWS would not:\n{report.generate_report()}"
                )
            return {**response, "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}, "RetryAttempts": 0}}

        return call  # type: ignore[return-value]

    return decorate


def client_error(operation_name: str, message: str, code: str = "ClientException") -> Exception:
    """The error that boto3 raises when AWS answers with ``code``."""
    error = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    refusal: Exception = ClientError(error, operation_name)
    return refusal


def unsupported(service: str, method: str) -> Exception:
    """What to raise for a method that AWS has and the embedded service has not, or that nobody has."""
    if method in _operations(service):
        name = _operations(service)[method].name
        return NotImplementedError(
            f"The embedded account does not offer {service}'s {name}. It is there with backend = 'aws'."
        )
    return AttributeError(f"'{service}' has no operation '{method}'")
