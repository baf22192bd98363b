"""The embedded CloudFormation by itself: templates, functions, change sets, statuses and words as AWS has them."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from genokit import backends
from genokit.local.template import Scope, TemplateError, parameters, read

PSEUDO = {"AWS::Region": "eu-west-1", "AWS::AccountId": "000000000000", "AWS::StackName": "s"}
HEAD = """
Parameters:
  Word: {Type: String, Default: a}
  Words: {Type: CommaDelimitedList, Default: "a, b,c"}
  Nets: {Type: "List<AWS::EC2::Subnet::Id>", Default: "subnet-1,subnet-2"}
  Image: {Type: "AWS::SSM::Parameter::Value<String>", Default: /aws/image}
Mappings:
  Sizes: {eu-west-1: {small: 2}}
Conditions:
  IsA: !Equals [!Ref Word, a]
  Not: !Not [!Condition IsA]
  Both: !And [!Condition IsA, !Equals ["1", 1]]
  Either: !Or [!Condition Not, !Condition IsA]
Resources:
  One: {Type: AWS::S3::Bucket}
"""


def scope(more: str = "", **given: str) -> Scope:
    template = read(HEAD + more)
    made = {"One": ("one-id", lambda attribute: f"one.{attribute}")}
    return Scope(template, parameters(template, given), PSEUDO, made)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("!Ref Word", "a"),
        ("!Ref Words", ["a", "b", "c"]),
        ("!Ref Nets", ["subnet-1", "subnet-2"]),
        ("!Ref Image", "{{ssm:/aws/image}}"),
        ("!Ref AWS::Region", "eu-west-1"),
        ("!Ref One", "one-id"),
        ("!GetAtt One.Arn", "one.Arn"),
        ("!GetAtt One.Endpoint.Port", "one.Endpoint.Port"),
        ("{'Fn::GetAtt': [One, Arn]}", "one.Arn"),
        ('!Sub "${Word}-${AWS::Region}-${One}-${One.Arn}"', "a-eu-west-1-one-id-one.Arn"),
        ('!Sub "${!Literal}-${Words}"', "${Literal}-a,b,c"),
        ('!Sub ["${x}${Word}", {x: !Ref One}]', "one-ida"),
        ('!Join ["-", [a, !Ref Word, 3]]', "a-a-3"),
        ('!Join ["", !Ref Words]', "abc"),
        ('!Split [",", "a,b"]', ["a", "b"]),
        ('!Select [1, !Split ["|", "a|b"]]', "b"),
        ('!Select ["0", !GetAZs ""]', "eu-west-1-a"),
        ("!Base64 text", "dGV4dA=="),
        ('!Cidr ["10.0.0.0/22", 2, 8]', ["10.0.0.0/24", "10.0.1.0/24"]),
        ("!FindInMap [Sizes, !Ref AWS::Region, small]", 2),
        ("!If [IsA, yes it is, no]", "yes it is"),
        ("!If [Not, x, !Ref AWS::NoValue]", None),
        ("[1, !If [Both, 2, 3], !If [Not, 4, !Ref AWS::NoValue]]", [1, 2]),
        ("{a: !Ref AWS::NoValue, b: !If [Either, !Ref Word, x]}", {"b": "a"}),
        ("2010-09-09", "2010-09-09"),
    ],
)  # fmt: skip
def test_functions_are_worked_out_as_aws_does(written, value):
    found = scope(f"Metadata: {{x: {written}}}")
    worked = found.value(found.template["Metadata"])
    assert worked.get("x") == value


def test_json_is_read_like_yaml():
    template = {"Resources": {"A": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Ref": "AWS::StackName"}}}}}
    assert read(json.dumps(template)) == template


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "unsupported structure"),
        ("- a", "unsupported structure"),
        ("Resources: {A: !Ref [", "YAML not well-formed"),
        ("Resources: {}", "At least one Resources member"),
        ("Resources: {A: {Properties: {}}}", r"\[/Resources/A\] Every Resources object must contain a Type"),
        ("Resources: [a]", r"\[/Resources\] must be an object"),
        ("Parameters: {P: x}\nResources: {A: {Type: X}}", r"\[/Parameters/P\] Every Parameters object"),
        ("Outputs: {O: {}}\nResources: {A: {Type: X}}", r"\[/Outputs/O\] .* must contain a Value"),
        ("Resourses: {}", r"Invalid template property or properties \[Resourses\]"),
        ("Transform: AWS::Serverless\nResources: {A: {Type: X}}", "runs no macros"),
    ],
)
def test_what_is_no_template_is_refused_in_aws_s_words(body, message):
    with pytest.raises(TemplateError, match=message):
        read(body)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("A: {Type: AWS::SQS::Queue, Properties: {QueueName: !Ref B}}", r"Unresolved resource dependencies \[B\]"),
        ("A: {Type: AWS::SQS::Queue, DependsOn: B}\n  B: {Type: AWS::SQS::Queue, DependsOn: A}", "Circular dependency"),
        ("A: {Type: AWS::SQS::Queue, Condition: Nobody}", "Unresolved condition dependency Nobody"),
        ("A: {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub '${B.Arn}'}}", r"Unresolved .* \[B\]"),
    ],
)
def test_what_leads_nowhere_or_in_a_circle_is_refused(resources, message):
    with pytest.raises(TemplateError, match=message):
        scope(f"  {resources}").order()


def test_a_condition_that_depends_on_itself_ends_in_an_error():
    with pytest.raises(TemplateError, match="condition A depends on itself"):
        Scope(read("Conditions: {A: !Not [!Condition A]}\nResources: {X: {Type: Y}}"), {}, {}).condition("A")


def test_a_function_that_cannot_be_worked_out_says_which():
    with pytest.raises(TemplateError, match="Fn::Select cannot work out"):
        scope().value({"Fn::Select": [7, ["a"]]})
    with pytest.raises(TemplateError, match="does not offer Fn::ImportValue"):
        scope().value({"Fn::ImportValue": "x"})
    with pytest.raises(TemplateError, match="Unable to get mapping for Sizes::mars::small"):
        scope().value({"Fn::FindInMap": ["Sizes", "mars", "small"]})


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        ("{Type: Number, MinValue: 2}", "1", "not less than 2"),
        ("{Type: Number}", "", "must be a number"),
        ("{Type: String, AllowedPattern: '[a-z]+'}", "A", "must match pattern"),
        ("{Type: String, AllowedValues: [true, 1]}", "no", "must be one of AllowedValues"),
        ("{Type: String, MinLength: 2}", "a", "at least 2 characters"),
        ("{Type: String, MaxLength: 2}", "aaa", "at most 2 characters"),
        ("{Type: CommaDelimitedList, AllowedValues: [a, b]}", "a,c", "must be one of AllowedValues"),
        ("{Type: String, AllowedPattern: x, ConstraintDescription: say x}", "y", "failed to satisfy constraint: say x"),
    ],
)
def test_parameters_are_held_against_what_is_declared(declared, value, message):
    template = read(f"Parameters: {{P: {declared}}}\nResources: {{X: {{Type: Y}}}}")
    with pytest.raises(TemplateError, match=message):
        parameters(template, {"P": value})
    with pytest.raises(TemplateError, match=r"\[P\] must have values"):
        parameters(template, {})
    with pytest.raises(TemplateError, match=r"\[Q\] do not exist in the template"):
        parameters(template, {"Q": "1"})


# --- the service


@pytest.fixture
def cloud(account):
    """The embedded account's clients, and the two calls that bring a stack about."""

    class Cloud:
        clients = backends.clients(account)
        api = clients.client("cloudformation")

        def foresee(self, body: str, kind: str = "UPDATE", **request: object) -> list[dict[str, object]]:
            name = {"StackName": "s", "ChangeSetName": "c"}
            capabilities = ["CAPABILITY_NAMED_IAM"]
            self.api.create_change_set(
                **name, ChangeSetType=kind, TemplateBody=body, **{"Capabilities": capabilities, **request}
            )
            return [one["ResourceChange"] for one in self.api.describe_change_set(**name)["Changes"]]

        def become(self, body: str, kind: str = "UPDATE", **request: object) -> str:
            self.foresee(body, kind, **request)
            self.api.execute_change_set(StackName="s", ChangeSetName="c")
            return str(self.api.describe_stacks(StackName="s")["Stacks"][0]["StackStatus"])

        def refused(self, operation: str, **request: object) -> tuple[str, str]:
            with pytest.raises(ClientError) as caught:
                getattr(self.api, operation)(**request)
            error = caught.value.response["Error"]
            return error["Code"], error["Message"]

        def reasons(self, status: str) -> list[str]:
            events = self.api.describe_stack_events(StackName="s")["StackEvents"]
            return [one.get("ResourceStatusReason", "") for one in events if one["ResourceStatus"] == status]

    return Cloud()


QUEUE = "Resources: {Q: {Type: AWS::SQS::Queue}}"
ENVIRONMENT = """
Resources:
  E:
    Type: AWS::Batch::ComputeEnvironment
    Properties:
      Type: MANAGED
      %s
      ComputeResources: {Type: EC2, MaxvCpus: %s, Subnets: [s-1], InstanceTypes: [%s], InstanceRole: r}
"""


def test_unknown_things_are_refused_in_aws_s_words(cloud):
    assert cloud.refused("describe_stacks", StackName="x") == ("ValidationError", "Stack with id x does not exist")
    assert cloud.refused("describe_change_set", StackName="x", ChangeSetName="c")[0] == "ChangeSetNotFound"
    told = {"ChangeSetName": "c", "TemplateBody": QUEUE}
    assert cloud.refused("create_change_set", StackName="x", **told) == ("ValidationError", "Stack [x] does not exist")
    bad = cloud.refused("create_change_set", StackName="9x", ChangeSetType="CREATE", **told)
    assert bad[0] == "ValidationError"
    with pytest.raises(ParamValidationError):
        cloud.api.describe_stacks(StackNames="x")
    with pytest.raises(NotImplementedError, match="does not offer cloudformation's DetectStackDrift"):
        cloud.api.detect_stack_drift(StackName="x")
    cloud.api.delete_stack(StackName="x")  # as on AWS, no error
    assert cloud.api.describe_stacks()["Stacks"] == []


def test_a_change_set_that_changes_nothing_fails_with_aws_s_reason(cloud):
    assert cloud.become(QUEUE, "CREATE") == "CREATE_COMPLETE"
    assert cloud.foresee(QUEUE) == []
    found = cloud.api.describe_change_set(StackName="s", ChangeSetName="c")
    assert (found["Status"], found["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert found["StatusReason"].startswith("The submitted information didn't contain changes.")
    assert cloud.refused("execute_change_set", StackName="s", ChangeSetName="c")[0] == "InvalidChangeSetStatus"
    assert cloud.refused("create_change_set", StackName="s", ChangeSetName="c", TemplateBody=QUEUE)[0] == (
        "AlreadyExistsException"
    )


def test_outputs_alone_are_a_change_too(cloud):
    cloud.become(QUEUE, "CREATE")
    assert cloud.become(QUEUE + "\nOutputs: {Url: {Value: !Ref Q}}") == "UPDATE_COMPLETE"
    [output] = cloud.api.describe_stacks(StackName="s")["Stacks"][0]["Outputs"]
    assert output["OutputValue"].startswith("https://sqs.")


@pytest.mark.parametrize(
    "properties",
    [
        "[]",
        "x",
        "{A: !If [1]}",
        "{A: !GetAtt Q}",
        "{A: !Sub [x]}",
        "{A: !Join a}",
        "{A: {Ref: [1]}}",
        "{A: !Select {b: 1}}",
    ],
)
def test_whatever_is_written_the_answer_is_a_refusal_and_nothing_is_left(cloud, properties):
    body = f"Resources: {{Q: {{Type: AWS::SQS::Queue, Properties: {properties}}}}}"
    told = {"StackName": "s", "ChangeSetName": "c", "ChangeSetType": "CREATE", "TemplateBody": body}
    code, message = cloud.refused("create_change_set", **told)
    assert (code, message.startswith(("Template", "Circular"))) == ("ValidationError", True)
    assert cloud.api.describe_stacks()["Stacks"] == []


def test_a_new_stack_is_in_review_until_its_change_set_is_executed(cloud):
    cloud.foresee(QUEUE, "CREATE")
    assert cloud.api.describe_stacks(StackName="s")["Stacks"][0]["StackStatus"] == "REVIEW_IN_PROGRESS"
    assert cloud.api.list_stack_resources(StackName="s")["StackResourceSummaries"] == []
    cloud.api.delete_change_set(StackName="s", ChangeSetName="c")
    cloud.api.delete_stack(StackName="s")
    assert cloud.refused("describe_stacks", StackName="s")[0] == "ValidationError"


def test_roles_need_a_capability_and_a_large_template_a_bucket(cloud):
    role = "Resources: {R: {Type: AWS::IAM::Role, Properties: {RoleName: r}}}"
    told = {"StackName": "s", "ChangeSetName": "c", "ChangeSetType": "CREATE"}
    assert cloud.refused("create_change_set", **told, TemplateBody=role, Capabilities=["CAPABILITY_IAM"]) == (
        "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_NAMED_IAM]"
    )  # fmt: skip
    large = QUEUE + "\n# " + "x" * 51_200
    assert "less than or equal to 51200" in cloud.refused("create_change_set", **told, TemplateBody=large)[1]
    assert cloud.api.describe_stacks()["Stacks"] == []


def test_what_the_api_does_not_know_fails_its_resource_by_name(cloud):
    wrong = ENVIRONMENT % ("Sate: ENABLED", 4, "optimal")
    assert cloud.become(wrong, "CREATE") == "ROLLBACK_COMPLETE"
    assert cloud.reasons("CREATE_FAILED") == ["Properties validation failed: #: extraneous key [Sate] is not permitted"]
    cloud.api.delete_stack(StackName="s")
    assert cloud.become(ENVIRONMENT % ("State: ENABLED", "many", "optimal"), "CREATE") == "ROLLBACK_COMPLETE"
    assert cloud.reasons("CREATE_FAILED") == [
        "Properties validation failed: #/ComputeResources/MaxvCpus: expected type: integer"
    ]


@pytest.mark.parametrize(
    ("flag", "size", "types", "replacement"),
    [
        ("State: ENABLED", 8, "optimal", "False"),
        ("State: ENABLED", 4, "c5", "True"),
        ("ReplaceComputeEnvironment: false", 4, "c5", "False"),
    ],
)
def test_an_environment_is_replaced_only_where_aws_would(cloud, flag, size, types, replacement):
    cloud.become(ENVIRONMENT % (flag, 4, "optimal"), "CREATE")
    before = cloud.clients.batch.describe_compute_environments()["computeEnvironments"]
    [change] = cloud.foresee(ENVIRONMENT % (flag, size, types))
    assert (change["Action"], change["Replacement"]) == ("Modify", replacement)
    cloud.api.execute_change_set(StackName="s", ChangeSetName="c")
    after = cloud.clients.batch.describe_compute_environments()["computeEnvironments"]
    assert len(before) == len(after) == 2
    changed = {one["computeEnvironmentName"] for one in before} != {one["computeEnvironmentName"] for one in after}
    assert changed == (replacement == "True")
    [own] = [one for one in after if one["computeEnvironmentName"] != "this-machine"]
    assert (own["computeResources"]["maxvCpus"], own["computeResources"]["instanceTypes"]) == (size, [types])


def test_a_named_thing_cannot_be_replaced_beside_itself(cloud):
    named = ENVIRONMENT % ("ComputeEnvironmentName: mine", 4, "optimal")
    cloud.become(named, "CREATE")
    assert cloud.become(named.replace("Type: MANAGED", "Type: UNMANAGED")) == "UPDATE_ROLLBACK_COMPLETE"
    assert "cannot update a stack when a custom-named resource requires replacing" in cloud.reasons("UPDATE_FAILED")[0]


def test_names_that_only_the_making_tells_are_said_to_be_unknown_before(cloud):
    body = """
Resources:
  L: {Type: AWS::EC2::LaunchTemplate, Properties: {LaunchTemplateData: {UserData: %s}}}
  R: {Type: AWS::Events::Rule, Properties: {Description: !Sub "${L}:${L.LatestVersionNumber}"}}
"""
    cloud.become(body % "a", "CREATE")
    first, second = cloud.foresee(body % "b")
    assert first["Details"][0]["Evaluation"] == "Static"
    assert second["Details"][0]["Evaluation"] == "Dynamic"
    cloud.api.execute_change_set(StackName="s", ChangeSetName="c")
    cloud.api.delete_change_set(StackName="s", ChangeSetName="c")
    assert cloud.foresee(body % "b") == []


def test_what_the_template_has_no_place_for_is_removed_unless_it_says_retain(cloud):
    body = "Resources: {Q: {Type: AWS::SQS::Queue}, B: {Type: AWS::S3::Bucket%s}}"
    cloud.become(body % ", DeletionPolicy: Retain", "CREATE")
    bucket = cloud.api.describe_stack_resources(StackName="s", LogicalResourceId="B")["StackResources"][0]
    [change] = cloud.foresee(QUEUE)
    assert (change["Action"], change["PolicyAction"]) == ("Remove", "Retain")
    cloud.api.execute_change_set(StackName="s", ChangeSetName="c")
    assert [one["Name"] for one in cloud.clients.s3.list_buckets()["Buckets"]] == [
        "genokit", bucket["PhysicalResourceId"]
    ]  # fmt: skip
    assert cloud.become(body % "") == "UPDATE_COMPLETE"
    assert cloud.become(QUEUE) == "UPDATE_COMPLETE"
    assert len(cloud.clients.s3.list_buckets()["Buckets"]) == 2


def test_a_rollback_takes_buckets_away_too(cloud):
    body = "Resources: {B: {Type: AWS::S3::Bucket}, X: {Type: AWS::Batch::JobQueue, DependsOn: B, Properties: {}}}"
    assert cloud.become(body, "CREATE") == "ROLLBACK_COMPLETE"
    assert [one["Name"] for one in cloud.clients.s3.list_buckets()["Buckets"]] == ["genokit"]


def test_secrets_are_not_told_and_tags_reach_what_batch_has(cloud):
    body = """
Parameters: {Secret: {Type: String, NoEcho: true}}
Resources:
  D:
    Type: AWS::Batch::JobDefinition
    Properties:
      Type: container
      Tags: {Own: "1"}
      ContainerProperties: {Image: x, ResourceRequirements: [{Type: VCPU, Value: 1}, {Type: MEMORY, Value: 64}]}
"""
    told = {"Parameters": [{"ParameterKey": "Secret", "ParameterValue": "abc"}], "Tags": [{"Key": "k", "Value": "v"}]}
    cloud.become(body, "CREATE", **told)
    found = cloud.api.describe_stacks(StackName="s")["Stacks"][0]
    assert found["Parameters"] == [{"ParameterKey": "Secret", "ParameterValue": "****"}]
    [definition] = cloud.clients.batch.describe_job_definitions()["jobDefinitions"]
    assert definition["tags"] == {"k": "v", "Own": "1"}
    assert definition["jobDefinitionName"].startswith("s-D-")


def test_events_and_resources_come_in_pages_and_outlive_the_stack(cloud):
    many = "Resources:\n" + "".join(f"  Q{n}: {{Type: AWS::SQS::Queue}}\n" for n in range(120))
    cloud.become(many, "CREATE")
    identity = cloud.api.describe_stacks(StackName="s")["Stacks"][0]["StackId"]
    cloud.api.delete_stack(StackName="s")
    pages, token = [], {}
    while True:
        page = cloud.api.describe_stack_events(StackName=identity, **token)
        pages.append(page["StackEvents"])
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    events = [one for page in pages for one in page]
    assert [len(page) for page in pages] == [100] * 4 + [84]
    assert events[0]["ResourceStatus"] == "DELETE_COMPLETE"
    assert len({one["EventId"] for one in events}) == 484
    assert cloud.api.describe_stacks(StackName=identity)["Stacks"][0]["StackStatus"] == "DELETE_COMPLETE"
    assert cloud.refused("describe_stack_events", StackName="s")[0] == "ValidationError"
    assert cloud.become(QUEUE, "CREATE") == "CREATE_COMPLETE"  # a new stack of the same name


def test_the_template_comes_back_as_it_was_given(cloud):
    cloud.become(QUEUE + "  # a remark", "CREATE")
    assert cloud.api.get_template(StackName="s")["TemplateBody"] == QUEUE + "  # a remark"
    cloud.api.create_change_set(StackName="s", ChangeSetName="d", UsePreviousTemplate=True)
    assert cloud.api.describe_change_set(StackName="s", ChangeSetName="d")["Status"] == "FAILED"
