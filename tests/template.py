"""A stack's template as CloudFormation would read it: short forms, parameters, conditions, references."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

import genokit

PATH = Path(genokit.__file__).parent / "stacks" / "batch.yaml"
OMOP, GENOMICS = PATH.with_name("omop.yaml"), PATH.with_name("genomics.yaml")
WORKSPACE, CHALLENGE = PATH.with_name("workspace.yaml"), PATH.with_name("challenge.yaml")
ACCOUNT, REGION, STACK = "123456789012", "us-east-1", "genokit-batch"
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::StackName": STACK,
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::NoValue": None,
}
# What GetAtt and Ref mean for the resources that policies speak of.
ARNS = {
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{RoleName}",
    "AWS::IAM::InstanceProfile": "arn:aws:iam::{account}:instance-profile/{InstanceProfileName}",
    "AWS::IAM::ManagedPolicy": "arn:aws:iam::{account}:policy/{ManagedPolicyName}",
    "AWS::S3::Bucket": "arn:aws:s3:::genokit-batch-bucket-x1",
    "AWS::KMS::Key": "arn:aws:kms:{region}:{account}:key/{logical}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:genokit-batch-LoadFailures-x1",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{LogGroupName}:*",
    "AWS::ECR::Repository": "arn:aws:ecr:{region}:{account}:repository/{RepositoryName}",
    "AWS::Events::Rule": "arn:aws:events:{region}:{account}:rule/{Name}",
    "AWS::Lambda::Function": "arn:aws:lambda:{region}:{account}:function:{FunctionName}",
    "AWS::Batch::JobQueue": "arn:aws:batch:{region}:{account}:job-queue/{JobQueueName}",
    "AWS::Batch::ComputeEnvironment": "arn:aws:batch:{region}:{account}:compute-environment/{logical}-x1",
    "AWS::EMRServerless::Application": "arn:aws:emr-serverless:{region}:{account}:/applications/{logical}x1",
    "AWS::RedshiftServerless::Workgroup": "arn:aws:redshift-serverless:{region}:{account}:workgroup/{logical}-x1",
    "AWS::SNS::Topic": "arn:aws:sns:{region}:{account}:{TopicName}",
    "AWS::Batch::JobDefinition": "arn:aws:batch:{region}:{account}:job-definition/{JobDefinitionName}:1",
    "AWS::StepFunctions::StateMachine": "arn:aws:states:{region}:{account}:stateMachine:{StateMachineName}",
}
REFS = {
    "AWS::S3::Bucket": "genokit-batch-bucket-x1",
    "AWS::SQS::Queue": "https://sqs.{region}.amazonaws.com/{account}/genokit-batch-LoadFailures-x1",
    "AWS::Logs::LogGroup": "{LogGroupName}",
    "AWS::IAM::Role": "{RoleName}",
    "AWS::Batch::JobQueue": ARNS["AWS::Batch::JobQueue"],
    "AWS::Batch::ComputeEnvironment": ARNS["AWS::Batch::ComputeEnvironment"],
    "AWS::IAM::ManagedPolicy": ARNS["AWS::IAM::ManagedPolicy"],
    "AWS::SNS::Topic": ARNS["AWS::SNS::Topic"],
    "AWS::Batch::JobDefinition": ARNS["AWS::Batch::JobDefinition"],
    "AWS::StepFunctions::StateMachine": ARNS["AWS::StepFunctions::StateMachine"],
    "AWS::RedshiftServerless::Workgroup": "{WorkgroupName}",
    "AWS::RedshiftServerless::Namespace": "{NamespaceName}",
    "AWS::Lambda::Function": "{FunctionName}",
    "AWS::Athena::WorkGroup": "{Name}",
    "AWS::CodeBuild::Project": "{Name}",
    "AWS::Glue::Database": "{Name}",
}


class Loader(yaml.CSafeLoader):
    """YAML with CloudFormation's tags, in their long forms."""


def _long(loader: Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        if tag == "GetAtt":
            value = value.split(".", 1)
    else:
        value = loader.construct_sequence(node, deep=True)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


Loader.add_multi_constructor("!", _long)


class Template:
    """The template with its intrinsic functions worked out, for ``parameters`` over the defaults."""

    def __init__(self, path: Path = PATH, **parameters: str) -> None:
        self.raw = yaml.load(path.read_text(), Loader)
        self._given = {name: parameters.get(name, one.get("Default")) for name, one in self.raw["Parameters"].items()}
        for name, one in self.raw["Parameters"].items():
            if one["Type"] == "CommaDelimitedList":
                self._given[name] = self._given[name].split(",")

    @property
    def resources(self) -> dict[str, Any]:
        """Those that the conditions leave, worked out."""
        return {
            name: self.value({key: part for key, part in one.items() if key != "Condition"})
            for name, one in self.raw["Resources"].items()
            if "Condition" not in one or self.holds(one["Condition"])
        }

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """The properties of the resources of one type, by logical name."""
        return {name: one["Properties"] for name, one in self.resources.items() if one["Type"] == f"AWS::{kind}"}

    @property
    def outputs(self) -> dict[str, str]:
        found = self.raw["Outputs"].items()
        return {
            name: self.value(one["Value"])
            for name, one in found
            if "Condition" not in one or self.holds(one["Condition"])
        }

    def holds(self, condition: str) -> bool:
        return bool(self.value(self.raw["Conditions"][condition]))

    def value(self, one: Any) -> Any:
        if isinstance(one, list):
            return [value for value in map(self.value, one) if value is not None]
        if not isinstance(one, dict):
            return one
        if len(one) == 1:
            name, told = next(iter(one.items()))
            if name in ("Ref", "Condition") or name.startswith("Fn::"):
                return self._function(name.removeprefix("Fn::"), told)
        values = {key: self.value(part) for key, part in one.items()}
        return {key: value for key, value in values.items() if value is not None}

    def _function(self, name: str, told: Any) -> Any:
        if name == "If":
            return self.value(told[1] if self.holds(told[0]) else told[2])
        if name == "Ref":
            return self._reference(told, REFS)
        if name == "GetAtt":
            return self._attribute(*told)
        if name == "Condition":
            return self.holds(told)
        if name == "Sub":
            text, own = (told[0], self.value(told[1])) if isinstance(told, list) else (told, {})
            put = re.sub(r"\$\{([^!}]+)\}", lambda found: str(own.get(found[1]) or self._named(found[1])), text)
            return put.replace("${!", "${")  # for IAM, which puts in its own variables
        told = self.value(told)
        return {
            "Equals": lambda: told[0] == told[1],
            "Not": lambda: not told[0],
            "And": lambda: all(told),
            "Join": lambda: told[0].join(told[1]),
            "Split": lambda: told[1].split(told[0]),
            "Select": lambda: told[1][int(told[0])],
            "GetAZs": lambda: [f"{REGION}{letter}" for letter in "abcdef"],
            "Base64": lambda: base64.b64encode(told.encode()).decode(),
        }[name]()

    def _named(self, name: str) -> Any:
        return self._attribute(*name.split(".", 1)) if "." in name else self._reference(name, REFS)

    def _attribute(self, name: str, attribute: str) -> str:
        if attribute == "RepositoryUri":
            return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{STACK}"
        return self._reference(name, ARNS) if attribute.endswith("Arn") else f"{name}.{attribute}"

    def _reference(self, name: str, forms: dict[str, str]) -> Any:
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self._given:
            return self._given[name]
        one = self.raw["Resources"][name]
        if one["Type"] == "AWS::Glue::Database":
            return self.value(one["Properties"]["DatabaseInput"]["Name"])
        properties = {
            key: self.value(part)
            for key, part in one.get("Properties", {}).items()
            if key.endswith("Name") and key != "KeyName"
        } | ({"Name": self.value(one["Properties"]["Name"])} if "Name" in one.get("Properties", {}) else {})
        form = forms.get(one["Type"], "{logical}")
        return form.format(account=ACCOUNT, region=REGION, logical=name, **properties)


def cfn_lint(*paths: Path) -> tuple[int, str, str]:
    """What cfn-lint says of templates, hints included: its exit code, its findings, its errors. (0, "", "") is none."""
    program = Path(sys.executable).with_name("cfn-lint")
    command = [program, "--include-checks", "I", "--regions", "us-east-1", "eu-central-1", "--", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def schemas() -> Iterator[dict[str, Any]]:
    """AWS's published schemas of the types of resources, as cfn-lint brings them."""
    folder = Path(find_spec("cfnlint").origin).parent  # to import it would take every run of pytest seconds
    for file in (folder / "data" / "schemas" / "resources").glob("*.json"):
        yield json.loads(file.read_text())
