"""CloudFormation's templates: read as AWS reads them, and worked out to plain values.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

from __future__ import annotations

import base64
import graphlib
import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

SECTIONS = {"AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Mappings", "Conditions", "Rules",
            "Resources", "Outputs", "Transform"}  # fmt: skip
LATER = "{{changeSet:KNOWN_AFTER_APPLY}}"  # AWS's sign for what only the making of a resource will tell
NO_VALUE = object()


class TemplateError(ValueError):
    """What AWS answers a template, or its parameters, with."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML with CloudFormation's short forms, as their long ones; dates stay text."""


def _short_form(loader: Any, tag: str, node: Any) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _short_form)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in _Loader.yaml_implicit_resolvers.items()
}


def read(body: str) -> dict[str, Any]:
    """A template, YAML or JSON, as a dict with the long forms of functions. Raises TemplateError.

    >>> read("Resources: {A: {Type: 'AWS::S3::Bucket', Properties: {BucketName: !Sub '${B}-x'}}}")["Resources"]
    {'A': {'Type': 'AWS::S3::Bucket', 'Properties': {'BucketName': {'Fn::Sub': '${B}-x'}}}}
    """
    try:
        template = yaml.load(body, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise TemplateError(f"Template format error: YAML not well-formed. ({' '.join(str(error).split())})") from None
    if not isinstance(template, dict):
        raise TemplateError("Template format error: unsupported structure.")
    if unknown := [name for name in template if name not in SECTIONS]:
        raise TemplateError(f"Invalid template property or properties [{', '.join(map(str, unknown))}]")
    if template.get("Transform"):
        raise TemplateError("Transform: the embedded account runs no macros")
    if not template.get("Resources"):
        raise TemplateError("Template format error: At least one Resources member must be defined.")
    for section, member in (("Resources", "Type"), ("Parameters", "Type"), ("Outputs", "Value")):
        found = template.get(section) or {}
        if not isinstance(found, dict):
            raise TemplateError(f"Template format error: [/{section}] must be an object")
        for name, one in found.items():
            if not isinstance(one, dict) or not isinstance(one.get(member), str if member == "Type" else (str, dict)):
                told = f"Every {section} object must contain a {member} member."
                raise TemplateError(f"Template format error: [/{section}/{name}] {told}")
    return template


# --- parameters


def parameters(template: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Each parameter's value, given or default, checked as AWS checks it. Raises TemplateError."""
    declared = template.get("Parameters") or {}
    if unknown := [name for name in given if name not in declared]:
        raise TemplateError(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    values = {name: given.get(name, _text(one.get("Default"))) for name, one in declared.items()}
    if missing := [name for name, value in values.items() if value is None]:
        raise TemplateError(f"Parameters: [{', '.join(missing)}] must have values")
    for name, one in declared.items():
        if wrong := _wrong(one, values[name] or ""):
            told = one.get("ConstraintDescription")
            raise TemplateError(
                f"Parameter '{name}' failed to satisfy constraint: {told}" if told else f"Parameter '{name}' {wrong}"
            )
    return {name: value or "" for name, value in values.items()}


def _wrong(declared: Mapping[str, Any], value: str) -> str:
    """What a value breaks of its declaration; nothing where it breaks nothing."""
    if declared["Type"] == "Number":
        try:
            number = float(value)
        except ValueError:
            return "must be a number"
        if number < float(declared.get("MinValue", "-inf")):
            return f"must be a number not less than {declared['MinValue']}"
        if number > float(declared.get("MaxValue", "inf")):
            return f"must be a number not greater than {declared['MaxValue']}"
    for part in value.split(",") if declared["Type"] == "CommaDelimitedList" else [value]:
        allowed = [_text(one) for one in declared.get("AllowedValues", [])]
        if allowed and part not in allowed:
            return "must be one of AllowedValues"
        pattern = declared.get("AllowedPattern")
        if pattern is not None and not re.fullmatch(pattern, part):
            return f"must match pattern {pattern}"
    if len(value) < int(declared.get("MinLength", 0)):
        return f"must contain at least {declared['MinLength']} characters"
    if len(value) > int(declared.get("MaxLength", len(value))):
        return f"must contain at most {declared['MaxLength']} characters"
    return ""


def _text(value: Any) -> str | None:
    """A scalar as CloudFormation writes it."""
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- values


@dataclass
class Scope:
    """A template with what its names mean: parameters, pseudo parameters, and the resources that are there already.

    ``made`` holds what Ref gives of each resource, and a function for its attributes.
    """

    template: Mapping[str, Any]
    parameters: Mapping[str, str]
    pseudo: Mapping[str, Any]
    made: dict[str, tuple[str, Callable[[str], str]]] = field(default_factory=dict)
    _conditions: dict[str, bool | None] = field(default_factory=dict)

    def later(self, logical: str) -> None:
        """Say that a resource's names are not known yet."""
        self.made[logical] = (LATER, lambda attribute: LATER)

    def order(self) -> list[tuple[str, list[str]]]:
        """The resources whose condition holds, each after those it needs, with the names of these."""
        resources = {
            logical: one
            for logical, one in self.template["Resources"].items()
            if "Condition" not in one or self.condition(one["Condition"])
        }
        needs: dict[str, list[str]] = {}
        for logical, one in resources.items():
            told = one.get("DependsOn", [])
            named = list(self._names(one.get("Properties", {})))
            told = [told] if isinstance(told, str) else told
            needs[logical] = sorted({name for name in named if name in self.template["Resources"]} | set(told))
            if lost := [name for name in needs[logical] if name not in resources and name not in told]:
                raise _unresolved(lost, "Resources")
            needs[logical] = [name for name in needs[logical] if name in resources]
            if unknown := [name for name in named if not self._known(name)]:
                raise _unresolved(unknown, "Resources")
        try:
            ordered = list(graphlib.TopologicalSorter(needs).static_order())
        except graphlib.CycleError as error:
            circle = ", ".join(dict.fromkeys(error.args[1]))
            raise TemplateError(f"Circular dependency between resources: [{circle}]") from None
        return [(logical, needs[logical]) for logical in ordered]

    def outputs(self) -> list[dict[str, str]]:
        """The outputs whose condition holds, as DescribeStacks tells them."""
        found = []
        for key, one in (self.template.get("Outputs") or {}).items():
            if "Condition" in one and not self.condition(one["Condition"]):
                continue
            if lost := [name for name in self._names(one["Value"]) if not self._known(name) or self._absent(name)]:
                raise _unresolved(lost, "Outputs")
            value = self.value(one["Value"])
            if not isinstance(value, (str, int, float)):
                raise TemplateError(f"Template format error: Output {key} is malformed: its Value is no string")
            told = {"Description": one["Description"]} if "Description" in one else {}
            found.append({"OutputKey": key, "OutputValue": _text(value) or "", **told})
        return found

    def value(self, node: Any) -> Any:
        """A part of the template with its functions worked out."""
        if isinstance(node, list):
            return [one for one in map(self.value, node) if one is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            name, argument = next(iter(node.items()))
            if name == "Ref":
                return self._reference(argument)
            if isinstance(name, str) and name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), argument)
        worked = {key: self.value(one) for key, one in node.items()}
        return {key: one for key, one in worked.items() if one is not NO_VALUE}

    def condition(self, told: Any) -> bool:
        """Whether a condition, named or written out, holds."""
        if isinstance(told, str):
            declared = self.template.get("Conditions") or {}
            if told not in declared:
                raise TemplateError(f"Template format error: Unresolved condition dependency {told}")
            if self._conditions.get(told, False) is None:
                raise TemplateError(f"Template error: condition {told} depends on itself")
            if told not in self._conditions:
                self._conditions[told] = None
                self._conditions[told] = self.condition(declared[told])
            return bool(self._conditions[told])
        match told:
            case {"Condition": name}:
                return self.condition(name)
            case {"Fn::Equals": [left, right]}:
                return _same(self.value(left), self.value(right))
            case {"Fn::Not": [one]}:
                return not self.condition(one)
            case {"Fn::And": [*parts]}:
                return all(self.condition(part) for part in parts)
            case {"Fn::Or": [*parts]}:
                return any(self.condition(part) for part in parts)
        raise TemplateError(f"Template error: {json.dumps(told, default=str)} is no condition")

    # --- behind it

    def _reference(self, name: str) -> Any:
        if name in self.made:
            return self.made[name][0]
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.pseudo:
            return self.pseudo[name]
        if name not in self.parameters:
            raise _unresolved([name], "Resources")
        kind, value = self.template["Parameters"][name]["Type"], self.parameters[name]
        if kind.startswith("AWS::SSM::Parameter::Value"):
            return f"{{{{ssm:{value}}}}}"  # nobody here knows what is stored there
        return [part.strip() for part in value.split(",")] if kind.startswith(("List<", "CommaD")) else value

    def _attribute(self, name: str, attribute: str) -> str:
        if name not in self.made:
            raise _unresolved([name], "Resources")
        return self.made[name][1](attribute)

    def _function(self, name: str, argument: Any) -> Any:
        if name == "If":
            condition, yes, no = argument
            return self.value(yes if self.condition(condition) else no)
        if name == "GetAtt":
            logical, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
            return self._attribute(logical, self.value(attribute))
        if name == "Sub":
            return self._substituted(argument)
        worked = self.value(argument)
        if LATER in str(worked):
            return LATER
        try:
            return FUNCTIONS[name](self, worked)
        except KeyError:
            raise TemplateError(f"Template error: the embedded account does not offer Fn::{name}") from None
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise TemplateError(f"Template error: Fn::{name} cannot work out {argument}: {error}") from None

    def _substituted(self, argument: Any) -> str:
        text, own = (argument[0], self.value(argument[1])) if isinstance(argument, list) else (argument, {})

        def meant(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name.startswith("!"):
                return f"${{{name[1:]}}}"
            if name in own:
                return _text(own[name]) or ""
            found = self._attribute(*name.split(".", 1)) if "." in name else self._reference(name)
            return ",".join(found) if isinstance(found, list) else _text(found) or ""

        return re.sub(r"\$\{([^}]*)\}", meant, text)

    def _names(self, node: Any) -> Iterator[str]:
        """Everything that a part of the template refers to, on the branches that its conditions choose."""
        if isinstance(node, list):
            for one in node:
                yield from self._names(one)
        elif isinstance(node, dict):
            for key, one in node.items():
                if key == "Ref" and isinstance(one, str):
                    yield one
                elif key == "Fn::GetAtt":
                    yield one.split(".")[0] if isinstance(one, str) else one[0]
                elif key == "Fn::Sub":
                    text, own = (one[0], one[1]) if isinstance(one, list) else (one, {})
                    words = re.findall(r"\$\{([^}!][^}]*)\}", text)
                    yield from (word.strip().split(".")[0] for word in words if word.strip() not in own)
                    yield from self._names(own)
                elif key == "Fn::If":
                    yield from self._names(one[1] if self.condition(one[0]) else one[2])
                else:
                    yield from self._names(one)

    def _known(self, name: str) -> bool:
        own = name in self.template["Resources"] or name in self.parameters
        return own or name in self.pseudo or name == "AWS::NoValue"

    def _absent(self, name: str) -> bool:
        return name in self.template["Resources"] and name not in self.made


def _unresolved(names: list[str], block: str) -> TemplateError:
    listed = ", ".join(sorted(set(names)))
    return TemplateError(
        f"Template format error: Unresolved resource dependencies [{listed}] in the {block} block of the template"
    )


def _same(left: Any, right: Any) -> bool:
    return bool(left == right or (not isinstance(left, (list, dict)) and _text(left) == _text(right)))


def _found_in_map(scope: Scope, words: Any) -> Any:
    mappings = scope.template.get("Mappings") or {}
    name, top, second = map(str, words[:3])
    if second not in mappings.get(name, {}).get(top, {}):
        raise TemplateError(f"Template error: Unable to get mapping for {name}::{top}::{second}")
    return mappings[name][top][second]


def _networks(scope: Scope, argument: Any) -> list[str]:
    block, count, bits = argument[0], int(argument[1]), int(argument[2]) if len(argument) > 2 else 8
    whole = ipaddress.ip_network(block)
    parts = whole.subnets(new_prefix=whole.max_prefixlen - bits)
    return [str(one) for one, _ in zip(parts, range(count), strict=False)]


FUNCTIONS: dict[str, Callable[[Scope, Any], Any]] = {
    "Join": lambda scope, a: str(a[0]).join(_text(one) or "" for one in a[1]),
    "Split": lambda scope, a: a[1].split(a[0]),
    "Select": lambda scope, a: a[1][int(a[0])],
    "GetAZs": lambda scope, a: [f"{scope.pseudo['AWS::Region']}-{letter}" for letter in "abc"],
    "Base64": lambda scope, a: base64.b64encode(a.encode()).decode(),
    "Cidr": _networks,
    "FindInMap": _found_in_map,
}
