"""CloudFormation templates evaluated for one stack: as much of the language as the kit's own templates use.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from genokit.local.client import ACCOUNT, LOCAL
from genokit.local.shapes import Refused

Doc = dict[str, Any]

NO_VALUE = object()
PSEUDO = {"AccountId": ACCOUNT, "Partition": "aws", "Region": LOCAL, "URLSuffix": "amazonaws.com", "NoValue": NO_VALUE}
RULES = ("AllowedPattern", "AllowedValues", "MinValue", "MaxValue")
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Equals": lambda words: words[0] == words[1],
    "Not": lambda words: not words[0],
    "And": all,
    "Or": any,
    "Join": lambda words: words[0].join(words[1]),
    "Split": lambda words: words[1].split(words[0]),
    "Select": lambda words: words[1][int(words[0])],
    "GetAZs": lambda region: [f"{LOCAL}-{letter}" for letter in "abc"],
    "Base64": lambda text: base64.b64encode(text.encode()).decode(),
}


def invalid(message: str) -> Refused:
    return Refused(400, "ValidationError", message)


class _Loader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
    """YAML with CloudFormation's short forms, as their long ones; all scalars are texts."""


def _long_form(loader: Any, tag: str, node: Any) -> Doc:
    scalar = isinstance(node, yaml.ScalarNode)
    value = loader.construct_scalar(node) if scalar else loader.construct_sequence(node, deep=True)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _long_form)


class Template:
    """A template evaluated for the stack of this name. Raises Refused if it cannot be.

    ``resources`` holds a record for each resource, after those that it refers to: what ``record`` makes of its logical
    name, type and properties, with its physical name.
    """

    def __init__(self, body: str, given: Mapping[str, str], stack: str, record: Callable[[Doc], Doc]) -> None:
        self._stack, self._record = stack, record
        self.resources: dict[str, Doc] = {}
        try:
            self._template = yaml.load(body, Loader=_Loader)
            self._declared = self._template.get("Parameters") or {}
            self.parameters = _parameters(self._declared, given)
            for logical in filter(self._holds, self._template["Resources"]):
                self._resource(logical)
            self.outputs = [
                {"OutputKey": key, "OutputValue": str(self._value(one["Value"]))}
                for key, one in (self._template.get("Outputs") or {}).items()
                if self._condition(one)
            ]
        except RecursionError:
            raise invalid("Template format error: Circular dependency between resources or conditions") from None
        except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError) as error:
            words = " ".join(f"{type(error).__name__}: {error}".split())
            raise invalid(f"Template format error: YAML not well-formed or unsupported structure ({words})") from None

    def _condition(self, one: Doc) -> bool:
        """Whether a resource or an output has no condition, or one that holds."""
        return "Condition" not in one or bool(self._function("Condition", one["Condition"]))

    def _holds(self, logical: str) -> bool:
        return logical in self._template["Resources"] and self._condition(self._template["Resources"][logical])

    def _resource(self, logical: str) -> Doc:
        if logical not in self.resources:
            declared = self._template["Resources"][logical]
            properties = {**self._value(declared.get("Properties", {}))}
            new = {"logical": logical, "type": declared["Type"], "properties": properties}
            self.resources[logical] = self._record(new)
        return self.resources[logical]

    def _value(self, node: Any) -> Any:
        """A part of the template with its functions evaluated."""
        if isinstance(node, list):
            return [one for one in map(self._value, node) if one is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            name, argument = next(iter(node.items()))
            if name in ("Ref", "Condition") or name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), argument)
        values = {key: self._value(one) for key, one in node.items()}
        return {key: one for key, one in values.items() if one is not NO_VALUE}

    def _function(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return self._reference(argument)
            case "Condition":
                return self._value(self._template["Conditions"][argument])
            case "If":
                condition, yes, no = argument
                return self._value(yes if self._function("Condition", condition) else no)
            case "GetAtt":
                return self._reference(argument if isinstance(argument, str) else ".".join(argument))
            case "Sub":
                pattern, own = argument if isinstance(argument, list) else (argument, {})
                own = self._value(own)

                def substituted(found: re.Match[str]) -> str:
                    value = own[found[1]] if found[1] in own else self._reference(found[1])
                    return ",".join(value) if isinstance(value, list) else str(value)

                return re.sub(r"\$\{([^!}]+)\}", substituted, pattern).replace("${!", "${")
        if name not in FUNCTIONS:
            raise invalid(f"Template error: the embedded account does not offer Fn::{name}")
        return FUNCTIONS[name](self._value(argument))

    def _reference(self, name: str) -> Any:
        """The value of a parameter, a pseudo parameter, a resource (its physical name), or a resource's attribute."""
        logical, _, attribute = name.partition(".")
        if name.startswith("AWS::"):
            return {**PSEUDO, "StackName": self._stack}[name.removeprefix("AWS::")]
        if name in self._declared:
            value = self.parameters[name]
            return re.split(", *", value) if "List" in self._declared[name]["Type"] else value
        if not self._holds(logical):
            raise invalid(f"Template format error: Unresolved resource dependencies [{logical}] in the template")
        one = self._resource(logical)
        return _attribute(one, attribute) if attribute else one["physical"]


def _parameters(declared: Doc, given: Mapping[str, str]) -> dict[str, str]:
    """Each parameter's value, given or default, checked against its declaration."""
    values = {name: one["Default"] for name, one in declared.items() if "Default" in one} | dict(given)
    if strange := sorted({*values} ^ {*declared}):
        raise invalid(f"Parameters: [{', '.join(strange)}] must have values, or do not exist in the template")
    for name, one in declared.items():
        if "NoEcho" in one:
            raise invalid(f"Parameter '{name}': the embedded account shows parameters and does not offer NoEcho")
        if not _fits(one, values[name]):
            rules = "".join(f", {key} {one[key]}" for key in RULES if key in one)
            raise invalid(f"Parameter '{name}' must be a {one['Type']}{rules}, not '{values[name]}'")
    return values


def _fits(declared: Doc, value: str) -> bool:
    anything = r"-?\d+(\.\d+)?" if declared["Type"] == "Number" else "(?s:.*)"
    return (
        re.fullmatch(declared.get("AllowedPattern", anything), value) is not None
        and value in declared.get("AllowedValues", [value])
        and ("MinValue" not in declared or float(declared["MinValue"]) <= float(value))
        and ("MaxValue" not in declared or float(declared["MaxValue"]) >= float(value))
    )


def _attribute(one: Doc, name: str) -> str:
    """What GetAtt gives of a resource, such as its ARN."""
    physical, (service, kind) = str(one["physical"]), one["type"].lower().split("::")[1:3]
    if name == "RepositoryUri":
        return f"{ACCOUNT}.dkr.ecr.{LOCAL}.amazonaws.com/{physical}"
    if name.endswith("VersionNumber"):
        return "1"
    if physical.startswith("arn:"):
        return physical
    if service == "s3":
        return f"arn:aws:s3:::{physical}"
    return f"arn:aws:{service}:{'' if service == 'iam' else LOCAL}:{ACCOUNT}:{kind}/{physical}"
