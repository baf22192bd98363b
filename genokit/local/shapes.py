"""Requests and responses, checked against AWS's own published model of the service.

botocore ships that model, with every member and its type. Its enums, which botocore does not check, are checked here
too. Limits that only the documentation states are in ``limits``.
"""

from __future__ import annotations

import functools
from typing import Any

from botocore import xform_name
from botocore.exceptions import ParamValidationError
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator, ValidationErrors

from genokit.refusals import unwritable


class Refused(Exception):
    """The refusal of a request: HTTP status, code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@functools.cache
def service(name: str) -> Any:
    """botocore's model of a service, as published: clients of S3 change theirs."""
    return ServiceModel(Loader().load_service_model(name, "service-2"), service_name=name)


@functools.cache
def operations(name: str) -> dict[str, Any]:
    """Method name (``submit_job``) -> botocore's model of the operation."""
    return {xform_name(one): service(name).operation_model(one) for one in service(name).operation_names}


class _Requests(ParamValidator):  # type: ignore[misc]
    def __init__(self) -> None:
        self.refused = ValidationErrors()  # what boto3 would send, and AWS not take
        self.strange = False  # whether any text is one that no process can take

    def _validate_string(self, param: Any, shape: Any, errors: Any, name: str) -> None:
        super()._validate_string(param, shape, errors, name)
        self.strange = self.strange or bool(unwritable(param))
        # AWS documents some enums (evaluateOnExit.action) as case-insensitive; none has two values that differ by case
        # alone.
        allowed = getattr(shape, "enum", None)
        if allowed and isinstance(param, str) and param.casefold() not in {value.casefold() for value in allowed}:
            self.refused.report(name, "invalid type", param=param, valid_types=allowed)

    def _shape_has_constraints(self, shape: Any) -> bool:
        return True  # botocore would not look into a list of strings for their values


class _Responses(ParamValidator):  # type: ignore[misc]
    def _validate_structure(self, params: Any, shape: Any, errors: Any, name: str) -> None:
        if shape.name == "JobDetail":
            # The model calls it required, yet AWS leaves it out of a job that has not started.
            params = {"startedAt": 0, **params}
        super()._validate_structure(params, shape, errors, name)


def check_request(operation: Any, request: dict[str, Any]) -> None:
    """Raise what boto3 raises for a request it would not send; Refused for an enum that AWS refuses, or for a text that
    no process can take."""
    if operation.input_shape is None:
        return
    validator = _Requests()
    try:
        wrong = validator.validate(request, operation.input_shape).generate_report()
    except RecursionError:
        wrong = "the request is nested more deeply than can be read"
    if wrong:
        raise ParamValidationError(report=wrong)
    name = operation.service_model.service_name
    strange = validator.strange and name != "logs"  # where no such stream is found
    if name != "s3" and (validator.refused.has_errors() or strange):
        raise Refused(400, "ClientException", unwritable(request) or validator.refused.generate_report())


def check_response(operation: Any, response: dict[str, Any]) -> None:
    """Raise AssertionError if the embedded service itself is wrong: a response that AWS could not give.

    Of a list only the first three are checked, because the same code makes all of them and checking a hundred jobs
    would take longer than describing them.
    """
    if operation.output_shape is None:  # some operations answer nothing
        return
    sample = {member: value[:3] if isinstance(value, list) else value for member, value in response.items()}
    report = _Responses().validate(sample, operation.output_shape)
    if report.has_errors():
        raise AssertionError(f"{operation.name} answered in a form that AWS would not:\n{report.generate_report()}")


def status(operation: Any, response: dict[str, Any]) -> int:
    """The HTTP status that a response comes with."""
    return 206 if "ContentRange" in response else int(operation.http.get("responseCode", 200))
