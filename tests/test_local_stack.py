"""The embedded CloudFormation by itself: functions, change sets, statuses and words as AWS has them."""

from __future__ import annotations

import json
import re

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from genokit import Stack, backends
from genokit.local import store


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
FUNCTIONS = """
Parameters:
  Word: {Type: String, Default: a}
  Words: {Type: CommaDelimitedList, Default: "a, b,c"}
Conditions:
  IsA: !Equals [!Ref Word, a]
  Not: !Not [!Condition IsA]
  Both: !And [!Condition IsA, !Equals ["1", 1]]
  Either: !Or [!Condition Not, {Condition: IsA}]
Resources:
  One: {Type: AWS::S3::Bucket, Properties: {BucketName: one-id}}
  Other: {Type: AWS::S3::Bucket, Condition: Not}
Outputs:
  Out: {Value: %s}
  No: {Value: x, Condition: Not}
"""


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("!Ref Word", "a"),
        ("!Ref AWS::Region", "local"),
        ("!Ref One", "one-id"),
        ("!GetAtt One.Arn", "arn:aws:s3:::one-id"),
        ("{'Fn::GetAtt': [One, Arn]}", "arn:aws:s3:::one-id"),
        ('!Sub "${Word}-${AWS::Region}-${One}-${One.Arn}"', "a-local-one-id-arn:aws:s3:::one-id"),
        ('!Sub "${!Literal}-${Words}"', "${Literal}-a,b,c"),
        ('!Sub ["${x}${Word}", {x: !Ref One}]', "one-ida"),
        ('!Join ["-", [a, !Ref Word, 3]]', "a-a-3"),
        ('!Join ["", !Ref Words]', "abc"),
        ('!Join ["", [1, !If [Both, 2, 3], !If [Not, 4, !Ref AWS::NoValue]]]', "12"),
        ('!Select [1, !Split ["|", "a|b"]]', "b"),
        ('!Select ["0", !GetAZs ""]', "local-a"),
        ("{'Fn::Base64': text}", "dGV4dA=="),
        ("!If [Either, yes it is, !Ref Other]", "yes it is"),
        ("2010-09-09", "2010-09-09"),
    ],
)  # fmt: skip
def test_functions_are_worked_out_as_aws_does(cloud, written, value):
    cloud.become(FUNCTIONS % written, "CREATE")
    [output] = cloud.api.describe_stacks(StackName="s")["Stacks"][0]["Outputs"]
    assert output["OutputValue"] == value


def test_json_is_read_like_yaml(cloud):
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Ref": "AWS::StackName"}}}
    cloud.become(json.dumps({"Resources": {"A": queue}}), "CREATE")
    [found] = cloud.api.list_stack_resources(StackName="s")["StackResourceSummaries"]
    assert found["PhysicalResourceId"] == "s"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("- a", "unsupported structure"),
        ("Resources: {A: !Ref [", "YAML not well-formed"),
        ("{}", "unsupported structure"),
        ("Parameters: {P: {Type: String, NoEcho: true, Default: x}}\nResources: {}", "does not offer NoEcho"),
        ("Resources: {A: {Properties: {}}}", "unsupported structure"),
        ("Resources: [a]", "unsupported structure"),
        ("Resources: {A: {Type: A::B::C, Properties: {N: !Ref B}}}", r"Unresolved resource dependencies \[B\]"),
        ("Resources: {A: {Type: A::B::C, Properties: {N: !Ref A}}}", "Circular dependency"),
        ("Conditions: {A: !Not [!Condition A]}\nResources: {X: {Type: A::B::C, Condition: A}}", "Circular dependency"),
        ("Resources: {A: {Type: A::B::C, Properties: {N: !ImportValue B}}}", "does not offer Fn::ImportValue"),
    ],
)
def test_what_is_no_template_or_leads_nowhere_is_refused(cloud, body, message):
    request = {"StackName": "s", "ChangeSetName": "c", "ChangeSetType": "CREATE", "TemplateBody": body}
    code, said = cloud.refused("create_change_set", **request)
    assert (code, re.search(message, said) is not None) == ("ValidationError", True), said
    assert cloud.api.describe_stacks()["Stacks"] == []


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        ("{Type: Number, MinValue: 2}", "1", "must be a Number, MinValue 2, not '1'"),
        ("{Type: Number, MaxValue: 2}", "3", "must be a Number, MaxValue 2, not '3'"),
        ("{Type: Number}", "", "must be a Number, not"),
        ("{Type: String, AllowedPattern: '[a-z]+'}", "A", "must be a String, AllowedPattern"),
        ("{Type: String, AllowedValues: [true, 1]}", "no", "must be a String, AllowedValues"),
    ],
)
def test_parameters_are_held_against_what_is_declared(cloud, declared, value, message):
    def refused(**given: str) -> str:
        request = {"StackName": "s", "ChangeSetName": "c", "ChangeSetType": "CREATE"}
        told = [{"ParameterKey": key, "ParameterValue": one} for key, one in given.items()]
        body = f"Parameters: {{P: {declared}}}\n{QUEUE}"
        return cloud.refused("create_change_set", TemplateBody=body, Parameters=told, **request)[1]

    assert message in refused(P=value)
    assert "[P] must have values" in refused()
    assert "[Q] must have values, or do not exist in the template" in refused(P=value, Q="1")


def test_unknown_things_are_refused_in_aws_s_words(cloud):
    assert cloud.refused("describe_stacks", StackName="x") == ("ValidationError", "Stack [x] does not exist")
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


def test_outputs_alone_are_a_change_too(cloud):
    cloud.become(QUEUE, "CREATE")
    assert cloud.become(QUEUE + "\nOutputs: {Url: {Value: !Ref Q}}") == "UPDATE_COMPLETE"
    [output] = cloud.api.describe_stacks(StackName="s")["Stacks"][0]["Outputs"]
    assert output["OutputValue"].startswith("s-Q")


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


def test_what_the_api_does_not_know_fails_its_resource_by_name(cloud):
    wrong = ENVIRONMENT % ("Sate: ENABLED", 4, "optimal")
    assert cloud.become(wrong, "CREATE") == "ROLLBACK_COMPLETE"
    assert 'Unknown parameter in input: "Sate"' in cloud.reasons("CREATE_FAILED")[0]
    cloud.api.delete_stack(StackName="s")
    assert cloud.become(ENVIRONMENT % ("State: ENABLED", "many", "optimal"), "CREATE") == "ROLLBACK_COMPLETE"
    assert "Invalid type for parameter computeResources.maxvCpus, value: many" in cloud.reasons("CREATE_FAILED")[0]


def test_what_the_template_has_no_place_for_is_removed_but_a_bucket_with_files_never(cloud):
    both = "Resources: {Q: {Type: AWS::SQS::Queue}, B: {Type: AWS::S3::Bucket}}"
    cloud.become(both, "CREATE")
    [change] = cloud.foresee(QUEUE)
    assert (change["Action"], change["LogicalResourceId"]) == ("Remove", "B")
    cloud.clients.s3.put_object(Bucket="s-b", Key="a", Body=b"a")
    assert cloud.become(QUEUE) == "UPDATE_ROLLBACK_COMPLETE"
    assert "not empty" in cloud.reasons("DELETE_FAILED")[0]
    assert len(cloud.api.list_stack_resources(StackName="s")["StackResourceSummaries"]) == 2
    cloud.clients.s3.delete_object(Bucket="s-b", Key="a")
    assert cloud.become(QUEUE) == "UPDATE_COMPLETE"
    assert [one["Name"] for one in cloud.clients.s3.list_buckets()["Buckets"]] == ["genokit"]


def test_of_two_change_sets_the_later_is_the_one_that_counts(cloud):
    cloud.foresee(QUEUE, "CREATE")
    cloud.api.create_change_set(StackName="s", ChangeSetName="d", ChangeSetType="CREATE", TemplateBody=QUEUE)
    cloud.api.delete_change_set(StackName="s", ChangeSetName="c")
    assert cloud.refused("execute_change_set", StackName="s", ChangeSetName="c")[0] == "ChangeSetNotFound"
    cloud.api.execute_change_set(StackName="s", ChangeSetName="d")
    assert cloud.api.describe_stacks(StackName="s")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"


@pytest.mark.parametrize(("files", "ends"), [((), "CREATE_COMPLETE"), (("a",), "ROLLBACK_COMPLETE")])
def test_the_empty_bucket_that_a_killed_creation_leaves_is_no_obstacle_but_one_with_files_is(cloud, files, ends):
    cloud.clients.s3.create_bucket(Bucket="s-b")
    for key in files:
        cloud.clients.s3.put_object(Bucket="s-b", Key=key, Body=b"a")
    assert cloud.become("Resources: {B: {Type: AWS::S3::Bucket}}", "CREATE") == ends
    assert cloud.clients.s3.list_objects_v2(Bucket="s-b")["KeyCount"] == len(files)


def test_a_rollback_takes_buckets_away_too(cloud):
    body = "Resources: {B: {Type: AWS::S3::Bucket}, X: {Type: AWS::Batch::JobQueue, DependsOn: B, Properties: {}}}"
    assert cloud.become(body, "CREATE") == "ROLLBACK_COMPLETE"
    assert [one["Name"] for one in cloud.clients.s3.list_buckets()["Buckets"]] == ["genokit"]


def test_tags_reach_what_batch_has(cloud):
    body = """
Resources:
  D:
    Type: AWS::Batch::JobDefinition
    Properties:
      Type: container
      Tags: {Own: "1"}
      ContainerProperties: {Image: x, ResourceRequirements: [{Type: VCPU, Value: 1}, {Type: MEMORY, Value: 64}]}
"""
    cloud.become(body, "CREATE", Tags=[{"Key": "k", "Value": "v"}])
    [definition] = cloud.clients.batch.describe_job_definitions()["jobDefinitions"]
    assert definition["tags"] == {"k": "v", "Own": "1"}
    assert definition["jobDefinitionName"].startswith("s-D")


def test_events_outlive_the_stack_and_its_name_is_free_again(cloud):
    cloud.become(QUEUE, "CREATE")
    identity = cloud.api.describe_stacks(StackName="s")["Stacks"][0]["StackId"]
    cloud.api.delete_stack(StackName="s")
    events = cloud.api.describe_stack_events(StackName=identity)["StackEvents"]
    assert [(one["LogicalResourceId"], one["ResourceStatus"]) for one in events] == [
        ("s", "DELETE_COMPLETE"), ("Q", "DELETE_COMPLETE"), ("s", "DELETE_IN_PROGRESS"),
        ("s", "CREATE_COMPLETE"), ("Q", "CREATE_COMPLETE"), ("s", "CREATE_IN_PROGRESS"),
    ]  # fmt: skip
    assert len({one["EventId"] for one in events}) == 6
    assert cloud.api.describe_stacks(StackName=identity)["Stacks"][0]["StackStatus"] == "DELETE_COMPLETE"
    assert cloud.refused("describe_stack_events", StackName="s")[0] == "ValidationError"
    assert cloud.become(QUEUE, "CREATE") == "CREATE_COMPLETE"


def test_an_environment_is_changed_in_place_and_another_of_its_type_takes_its_place_under_a_new_name(cloud):
    cloud.become(ENVIRONMENT % ("State: ENABLED", 4, "optimal"), "CREATE")
    [change] = cloud.foresee(ENVIRONMENT % ("State: ENABLED", 8, "c5"))
    assert (change["Action"], change["Replacement"]) == ("Modify", "False")
    cloud.api.execute_change_set(StackName="s", ChangeSetName="c")
    [own] = [one for one in environments(cloud) if one["computeEnvironmentName"] != "this-machine"]
    assert (own["computeResources"]["maxvCpus"], own["computeResources"]["instanceTypes"]) == (8, ["c5"])
    assert cloud.become(ENVIRONMENT % ("ComputeEnvironmentName: mine", 8, "c5")) == "UPDATE_COMPLETE"
    assert [one["computeEnvironmentName"] for one in environments(cloud)] == ["mine", "this-machine"]


def environments(cloud) -> list[dict[str, object]]:
    return cloud.clients.batch.describe_compute_environments()["computeEnvironments"]


def test_a_stack_of_the_version_before_is_shown_updated_and_removed(cloud, account, tmp_path):
    """As that version wrote it: with more about each resource, and a change set that nobody executes any more."""
    (tmp_path / "old.yaml").write_text(QUEUE)
    Stack(str(tmp_path / "old.yaml"), settings=account).deploy()
    with store.connect(account.home) as db:
        for table, key, more in (
            ("stack_resources", "logical", {"stack": "genokit-old", "version": 1, "needs": []}),
            ("stacks", "id", {"description": "", "change_sets": {"x": {"id": "x", "status": "CREATE_COMPLETE"}}}),
        ):
            for row in db.execute(f"select * from {table}").fetchall():
                doc = json.dumps({**json.loads(row["doc"]), **more})
                db.execute(f"update {table} set doc = ? where {key} = ?", (doc, row[key]))
    stack = Stack(str(tmp_path / "old.yaml"), settings=account)
    assert (stack.status, list(stack.resources()["resource"])) == ("CREATE_COMPLETE", ["Q"])
    assert len(stack.events()) == 3
    assert cloud.refused("execute_change_set", StackName="genokit-old", ChangeSetName="x")[0] == "ChangeSetNotFound"
    stack.deploy()
    stack.teardown(confirm="genokit-old")
    assert stack.status == "NOT_DEPLOYED"
