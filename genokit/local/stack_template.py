"""CloudFormation templates evaluated for one stack: parameters, conditions, functions, and what would change.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import yaml
from botocore import xform_name

from genokit.local.batch.definitions import ARN
from genokit.local.client import ACCOUNT, LOCAL
from genokit.local.shapes import Refused

Doc = dict[str, Any]  # a stack or a resource, as they are kept

NO_VALUE = object()
QUEUE, DEFINITION, BUCKET = "AWS::Batch::JobQueue", "AWS::Batch::JobDefinition", "AWS::S3::Bucket"
BATCH = ("AWS::Batch::ComputeEnvironment", QUEUE, DEFINITION)
# Properties that say how to update, and are no member of a request that makes the thing.
OF_UPDATES = ("ReplaceComputeEnvironment", "UpdatePolicy", "ResourceRetentionPolicy", "UpdateToLatestImageVersion")
ARNS = {
    BUCKET: "arn:aws:s3:::{name}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}:*",
    "AWS::Lambda::Function": "arn:aws:lambda:{region}:{account}:function:{name}",
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{name}",
    "AWS::IAM::InstanceProfile": "arn:aws:iam::{account}:instance-profile/{name}",
    "AWS::IAM::ManagedPolicy": "arn:aws:iam::{account}:policy/{name}",
}


def invalid(message: str) -> Refused:
    return Refused(400, "ValidationError", message)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML with CloudFormation's short forms, as their long ones."""


def _long_form(loader: Any, tag: str, node: Any) -> Doc:
    scalar = isinstance(node, yaml.ScalarNode)
    value = loader.construct_scalar(node) if scalar else loader.construct_sequence(node, deep=True)
    value = value.split(".", 1) if tag == "GetAtt" and scalar else value
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _long_form)


def read(body: str) -> Doc:
    try:
        template = json.loads(json.dumps(yaml.load(body, Loader=_Loader), default=str))  # dates are text
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise invalid(f"Template format error: YAML not well-formed. ({' '.join(str(error).split())})") from None
    if not isinstance(template, dict) or not template.get("Resources"):
        raise invalid("Template format error: At least one Resources member must be defined.")
    return template


def text(value: Any) -> str:
    """A scalar as CloudFormation writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parameters(declared: Doc, given: Mapping[str, str]) -> dict[str, str]:
    """Each parameter's value, given or default, checked against its declaration."""
    if unknown := sorted({*given} - {*declared}):
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    values = {}
    for name, one in declared.items():
        if name not in given and "Default" not in one:
            raise invalid(f"Parameters: [{name}] must have values")
        value = values[name] = given[name] if name in given else text(one["Default"])
        if one["Type"] == "Number" and not re.fullmatch(r"-?\d+(\.\d+)?", value):
            raise invalid(f"Parameter '{name}' must be a number")
        if float(one.get("MinValue", "-inf")) > float(value if "MinValue" in one else 0):
            raise invalid(f"Parameter '{name}' must be a number not less than {one['MinValue']}")
        if float(one.get("MaxValue", "inf")) < float(value if "MaxValue" in one else 0):
            raise invalid(f"Parameter '{name}' must be a number not greater than {one['MaxValue']}")
        if value not in map(text, one.get("AllowedValues", [value])):
            raise invalid(f"Parameter '{name}' must be one of AllowedValues")
        if not re.fullmatch(one.get("AllowedPattern", "(?s:.*)"), value):
            raise invalid(f"Parameter '{name}' must match pattern {one['AllowedPattern']}")
    return values


class Template:
    """A template evaluated for one stack. Resources are listed after those that they refer to."""

    def __init__(self, db: sqlite3.Connection, stack: Doc, wanted: Doc, before: dict[str, Doc]) -> None:
        self.db, self.stack, self.wanted = db, stack, wanted
        self.template = read(wanted["body"])
        self.parameters = self.template.get("Parameters") or {}
        self.before = before
        self.resources: dict[str, Doc] = {}

    def evaluate(self) -> None:
        """Evaluate parameters, resources and outputs. Raises Refused."""
        try:
            self.wanted["parameters"] = _parameters(self.parameters, self.wanted["parameters"])
            for logical in filter(self.holds, self.template["Resources"]):
                self.resource(logical)
            outputs = self.template.get("Outputs") or {}
            self.wanted["outputs"] = [
                {"OutputKey": key, "OutputValue": text(self.value(one["Value"]))}
                | ({"Description": one["Description"]} if "Description" in one else {})
                for key, one in outputs.items()
                if "Condition" not in one or self.value({"Condition": one["Condition"]})
            ]
        except RecursionError:
            raise invalid("Template format error: Circular dependency between resources or conditions") from None
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise invalid(f"Template format error: unsupported structure ({error})") from None

    def holds(self, logical: str) -> bool:
        """Whether the template has such a resource and its condition holds."""
        one = self.template["Resources"].get(logical)
        return one is not None and ("Condition" not in one or self.value({"Condition": one["Condition"]}))

    def resource(self, logical: str) -> Doc:
        """A resource as the template describes it; the existing record if nothing has changed."""
        if logical in self.resources:
            return self.resources[logical]
        declared, before = self.template["Resources"][logical], self.before.get(logical)
        new = {
            "logical": logical, "type": declared["Type"], "properties": {**self.value(declared.get("Properties", {}))},
            "keep": declared.get("DeletionPolicy") == "Retain", "at": now(), "before": None,
        }  # fmt: skip
        if new["type"] in BATCH:
            new["properties"]["Tags"] = {**self.wanted["tags"], **new["properties"].get("Tags", {})}
        if before and before["type"] == new["type"] and before["properties"] == new["properties"]:
            new = {**before, "keep": new["keep"]}
        else:
            new["physical"] = self.physical(new, before)
        self.resources[logical] = new
        return new

    def physical(self, new: Doc, before: Doc | None) -> str:
        """The name that the template gives, or one of the stack's own."""
        name = _given_name(new)
        if before and before["type"] == new["type"] != DEFINITION and name == _given_name(before):
            return str(before["physical"])
        seed = hashlib.sha256(f"{self.stack['id']}/{new['logical']}/{new['at']}".encode()).hexdigest()
        name = name or f"{self.stack['name']}-{new['logical']}-{seed[:12].upper()}"
        match new["type"]:
            case "AWS::Batch::JobDefinition":
                latest = "select coalesce(max(revision), 0) from definitions where name = ?"
                return f"{ARN}:job-definition/{name}:{self.db.execute(latest, (name,)).fetchone()[0] + 1}"
            case kind if kind in BATCH:
                return f"{ARN}:{batch_names(new)[0].replace('_', '-')}/{name}"
            case "AWS::S3::Bucket":
                return name.lower()[:63]
        return name

    def changes(self) -> list[Doc]:
        """The changes, as DescribeChangeSet lists them."""
        found = []
        for logical, new in self.resources.items():
            before = self.before.get(logical)
            if before is None:
                found.append({"Action": "Add", **identity(new)})
            elif new["at"] != before["at"]:
                names = sorted(
                    name
                    for name in {*before["properties"], *new["properties"]}
                    if before["properties"].get(name) != new["properties"].get(name)
                )
                details = [{"Target": {"Attribute": "Properties", "Name": name}} for name in names]
                replacement = "True" if replaced(before, new) else "False"
                found.append({"Action": "Modify", **identity(new), "Replacement": replacement, "Details": details})
        gone = [one for logical, one in self.before.items() if logical not in self.resources]
        policies = {True: "Retain", False: "Delete"}
        return found + [{"Action": "Remove", "PolicyAction": policies[one["keep"]], **identity(one)} for one in gone]

    # --- functions

    def value(self, node: Any) -> Any:
        """A part of the template with its functions evaluated."""
        if isinstance(node, list):
            return [one for one in map(self.value, node) if one is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            name, argument = next(iter(node.items()))
            if name in ("Ref", "Condition") or name.startswith("Fn::"):
                return self.function(name.removeprefix("Fn::"), argument)
        values = {key: self.value(one) for key, one in node.items()}
        return {key: one for key, one in values.items() if one is not NO_VALUE}

    def function(self, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return self.reference(argument)
            case "Condition":
                return self.value(self.template["Conditions"][argument])
            case "If":
                condition, yes, no = argument
                return self.value(yes if self.function("Condition", condition) else no)
            case "GetAtt":
                logical, attribute = argument
                return _attribute(self.resource(logical), attribute)
            case "Sub":
                text, own = (argument[0], self.value(argument[1])) if isinstance(argument, list) else (argument, {})
                return re.sub(r"\$\{([^}]*)\}", lambda found: self.substituted(found[1], own), text)
        if name not in FUNCTIONS:
            raise invalid(f"Template error: the embedded account does not offer Fn::{name}")
        return FUNCTIONS[name](self.value(argument))

    def substituted(self, name: str, own: Doc) -> str:
        if name in own or name.startswith("!"):
            return text(own[name]) if name in own else f"${{{name[1:]}}}"
        value = self.function("GetAtt", name.split(".", 1)) if "." in name else self.reference(name)
        return ",".join(value) if isinstance(value, list) else text(value)

    def reference(self, name: str) -> Any:
        pseudo = {
            "AWS::AccountId": ACCOUNT, "AWS::Partition": "aws", "AWS::Region": LOCAL, "AWS::StackId": self.stack["id"],
            "AWS::StackName": self.stack["name"], "AWS::URLSuffix": "amazonaws.com", "AWS::NoValue": NO_VALUE,
        }  # fmt: skip
        if name in pseudo:
            return pseudo[name]
        if name in self.parameters:
            value = self.wanted["parameters"][name]
            return re.split(", *", value) if "List" in self.parameters[name]["Type"] else value
        if not self.holds(name):
            raise invalid(f"Template format error: Unresolved resource dependencies [{name}] in the template")
        return self.resource(name)["physical"]


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Equals": lambda words: text(words[0]) == text(words[1]),
    "Not": lambda words: not words[0],
    "And": all,
    "Or": any,
    "Join": lambda words: str(words[0]).join(map(text, words[1])),
    "Split": lambda words: words[1].split(words[0]),
    "Select": lambda words: words[1][int(words[0])],
    "GetAZs": lambda region: [f"{LOCAL}-{letter}" for letter in "abc"],
    "Base64": lambda text: base64.b64encode(text.encode()).decode(),
}


def _given_name(one: Doc) -> str:
    """The name that the template gives a resource, if it gives one."""
    properties = one["properties"].get("DatabaseInput", one["properties"])
    own = f"{one['type'].rpartition('::')[2]}Name"
    return str(next((properties[key] for key in (own, "Name", "GroupName") if key in properties), ""))


def _attribute(one: Doc, name: str) -> str:
    """What GetAtt gives of a resource."""
    last = one["physical"].rpartition("/")[2]
    if name == "RepositoryUri":
        return f"{ACCOUNT}.dkr.ecr.{LOCAL}.amazonaws.com/{last}"
    if name.endswith("Arn") and not one["physical"].startswith("arn:"):
        service, kind = one["type"].lower().split("::")[1:3]
        form = ARNS.get(one["type"], f"arn:aws:{service}:{{region}}:{{account}}:{kind}/{{name}}")
        return form.format(name=last, region=LOCAL, account=ACCOUNT)
    return "1" if name.endswith("VersionNumber") else last if name.endswith("Name") else one["physical"]


def replaced(before: Doc, new: Doc) -> bool:
    """Whether a new resource replaces the old one. A job definition gets a new revision instead."""
    return bool(before["physical"] != new["physical"] and not before["type"] == new["type"] == DEFINITION)


def identity(one: Doc) -> Doc:
    return {"LogicalResourceId": one["logical"], "ResourceType": one["type"], "PhysicalResourceId": one["physical"]}


def batch_names(one: Doc) -> tuple[str, str]:
    """The name of such a resource in Batch's operations and in their members: ``job_queue``, ``jobQueue``."""
    kind = one["type"].rpartition("::")[2]
    return xform_name(kind), kind[0].lower() + kind[1:]


def as_member(shape: Any, value: Any, updates: bool) -> Any:
    """A CloudFormation property as a member of the API's request, by AWS's model.

    Keys of maps (tags, parameters, options of a log) are nobody's names and stay as they are. What the model does not
    know is left to be refused, but for an update, which takes less than the making.
    """
    match shape.type_name, value:
        case "structure", dict():
            names = {name.casefold(): name for name in shape.members}
            request = {}
            for key, one in value.items():
                name = names.get(key.casefold())
                if name:
                    request[name] = as_member(shape.members[name], one, updates)
                elif not updates and key not in OF_UPDATES:
                    request[key] = one
            return request
        case "list", list():
            return [as_member(shape.member, one, updates) for one in value]
        case "map", dict():
            return {key: as_member(shape.value, one, updates) for key, one in value.items()}
        case _, (dict() | list()):
            return value
        case "integer" | "long", _ if re.fullmatch(r"-?\d+", text(value)):
            return int(text(value))
        case "float" | "double", _ if re.fullmatch(r"-?\d+(\.\d+)?", text(value)):
            return float(text(value))
        case "boolean", _:
            return {"true": True, "false": False}.get(text(value), value)
    return text(value)


def now() -> str:
    return datetime.now(UTC).isoformat()
