"""Stack: deploy, look at what would change, update, take away; over the embedded CloudFormation for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime

import boto3
import pandas as pd
import pytest
from botocore.stub import Stubber
from stacked import SERVICES, drive, hooked

from genokit import Batch, Settings, Stack, backends
from genokit.__main__ import main
from genokit.errors import AccessDenied, ConfirmationNeeded, InvalidParameters, InvalidRequest, NotFound, StackFailed

SMALL = """
Description: queues and a definition, and nothing that holds files
Parameters:
  MaxvCpus: {Type: Number, Default: 2, MinValue: 1, MaxValue: 64, Description: the most}
  Urgent: {Type: String, Default: "no", AllowedValues: ["no", "yes"]}
  Word: {Type: String, Default: hello}
  Prefix: {Type: String, Default: ""}
Conditions:
  IsUrgent: !Equals [!Ref Urgent, "yes"]
Resources:
  Here:
    Type: AWS::Batch::ComputeEnvironment
    Properties: {Type: UNMANAGED, State: ENABLED, UnmanagedvCpus: !Ref MaxvCpus}
  High:
    Type: AWS::Batch::JobQueue
    Properties:
      JobQueueName: !Sub "${Prefix}highPriority"
      Priority: !If [IsUrgent, 1000, 10]
      ComputeEnvironmentOrder: [{Order: 1, ComputeEnvironment: !Ref Here}]
  Greet:
    Type: AWS::Batch::JobDefinition
    Properties:
      JobDefinitionName: greet
      Type: container
      Parameters: {who: World}
      ContainerProperties:
        Image: genokit
        Command: [echo, !Ref Word, "Ref::who"]
        ResourceRequirements: [{Type: VCPU, Value: "1"}, {Type: MEMORY, Value: "64"}]
  Role:
    Type: AWS::IAM::Role
    Properties: {AssumeRolePolicyDocument: {}}
Outputs:
  Queue: {Value: !Ref High, Description: where to submit}
  RoleArn: {Value: !GetAtt Role.Arn}
"""


@pytest.fixture
def small(tmp_path, account):
    """A stack of a small template of its own."""
    (tmp_path / "small.yaml").write_text(SMALL)
    return Stack(str(tmp_path / "small.yaml"), settings=account)


def queues(stack: Stack) -> dict[str, int]:
    return {one["jobQueueName"]: one["priority"] for one in stack.clients.batch.describe_job_queues()["jobQueues"]}


def definitions(stack: Stack, status: str = "ACTIVE") -> list[str]:
    found = stack.clients.batch.describe_job_definitions(status=status)["jobDefinitions"]
    return [one["jobDefinitionArn"].rpartition("/")[2] for one in found]


# --- the kit's own template


def test_the_kit_s_stack_brings_queues_and_definitions_in_which_jobs_really_run(account):
    stack = Stack(settings=account).deploy()
    assert stack.status == "CREATE_COMPLETE"
    assert queues(stack) == {"highPriority": 1000, "lowPriority": 1, "gpu": 1}
    assert {"genokit-cpu:1", "genokit-gpu:1", "isaac:1", "snpeff:1"} <= set(definitions(stack))
    job = Batch(settings=account).submit("genokit-cpu", command=["python", "-c", "print(6 * 7)"])
    assert (job.wait().status, job.log()) == ("SUCCEEDED", "42")
    assert job.stream.group == stack.outputs["LogGroup"] == "/genokit/genokit-batch/jobs"
    assert stack.outputs["Bucket"] == stack.clients.bucket
    assert not stack.diff()


def test_the_kit_s_stack_is_removed_with_all_that_lies_in_it(account):
    stack = Stack(settings=account).deploy()
    bucket = stack.outputs["Bucket"]
    for number in range(3):
        stack.clients.s3.put_object(Bucket=bucket, Key=f"runs/{number}.txt", Body=b"result")
    with pytest.raises(ConfirmationNeeded, match=r"Bucket \(AWS::S3::Bucket\): remove, with files"):
        stack.teardown()
    stack.clients.client("cloudformation").delete_stack(StackName="genokit-batch")  # as a console would
    assert stack.status == "DELETE_FAILED"
    [failed] = stack.events().query("status == 'DELETE_FAILED' and resource == 'Bucket'")["reason"]
    assert "not empty" in failed
    with pytest.raises(StackFailed, match="end its removal with teardown"):
        stack.deploy()
    stack.teardown(confirm="genokit-batch")
    assert stack.status == "NOT_DEPLOYED"
    assert [one["Name"] for one in stack.clients.s3.list_buckets()["Buckets"]] == ["genokit"]
    assert (queues(stack), definitions(stack)) == ({"highPriority": 1000, "lowPriority": 1}, [])
    assert stack.clients.bucket == "genokit"


# --- deploy, diff, update


def test_a_deploy_shows_what_it_will_do_then_does_it_and_returns_with_outputs(small, capsys):
    assert small.deploy() is small
    shown = capsys.readouterr().out
    assert "4 to add" in shown
    assert "+ Here (AWS::Batch::ComputeEnvironment)" in shown
    assert small.outputs["Queue"].endswith(":job-queue/highPriority")
    assert queues(small) == {"highPriority": 10, "lowPriority": 1}


def test_a_diff_changes_nothing_and_leaves_nothing(small):
    assert [one.resource for one in small.diff().changes if one.does == "add"] == ["Here", "High", "Greet", "Role"]
    assert small.status == "NOT_DEPLOYED"
    small.deploy()
    found = small.diff(urgent="yes", word="bye")
    assert [(one.does, one.resource, one.properties) for one in found.changes] == [
        ("change", "High", ("Priority",)),
        ("change", "Greet", ("ContainerProperties",)),
    ]
    assert queues(small)["highPriority"] == 10
    assert not small.diff()


def test_an_update_keeps_what_it_is_not_given_and_touches_what_changed_alone(small):
    small.deploy(word="hi")
    before = small.resources().set_index("resource")
    small.update(urgent="yes")
    assert queues(small)["highPriority"] == 1000
    assert definitions(small) == ["greet:1"]
    after = small.resources().set_index("resource")
    assert list(before.index[before["since"] != after["since"]]) == ["High"]
    small.update(word="good bye")
    assert definitions(small) == ["greet:2"]
    assert definitions(small, "INACTIVE") == ["greet:1"]
    assert queues(small)["highPriority"] == 1000
    small.deploy()
    assert queues(small)["highPriority"] == 10


def test_a_new_output_is_a_change_that_is_carried_out(small, tmp_path):
    small.deploy()
    (tmp_path / "small.yaml").write_text(SMALL + "  Greet: {Value: !Ref Greet}\n")
    assert repr(small.diff()) == "<Changes genokit-small: outputs or tags alone>"
    assert small.deploy().outputs["Greet"].endswith("greet:1")


def test_another_kernel_finds_the_stack(small, account):
    small.deploy(max_vcpus=1)
    again = Stack(small.name, settings=account)
    assert again.status == "CREATE_COMPLETE"
    assert again.outputs == small.outputs
    assert set(again.resources()["resource"]) == {"Here", "High", "Greet", "Role"}


def test_events_and_resources_are_tables_that_say_what_has_no_effect_here(small):
    small.deploy()
    events, resources = small.events(), small.resources()
    assert isinstance(events, pd.DataFrame)
    assert list(events["status"])[-1] == "CREATE_COMPLETE"
    assert events["time"].is_monotonic_increasing
    told = resources.set_index("resource")["reason"]
    assert told["Role"] == "Kept by name: the embedded account has no AWS::IAM::Role"
    assert told["Here"] == ""


# --- parameters


def test_parameters_are_keywords_and_an_unknown_one_is_told_the_known_ones(small):
    table = small.parameters()
    assert list(table.index) == ["max_vcpus", "urgent", "word", "prefix"]
    assert table.loc["max_vcpus"].to_dict() == {
        "parameter": "MaxvCpus", "default": "2", "description": "the most"
    }  # fmt: skip
    assert small.diff(MaxvCpus=1).summary == small.diff(max_vcpus=1).summary
    with pytest.raises(InvalidParameters) as caught:
        small.deploy(max_cpus=1)
    assert "Did you mean 'max_vcpus'?" in str(caught.value)
    assert "It has: max_vcpus, urgent, word, prefix." in str(caught.value)
    assert small.status == "NOT_DEPLOYED"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_vcpus": 65}, "must be a Number, MinValue 1, MaxValue 64, not '65'"),
        ({"max_vcpus": "many"}, "must be a Number"),
        ({"urgent": "perhaps"}, r"must be a String, AllowedValues \['no', 'yes'\]"),
    ],
)
def test_a_parameter_that_the_template_does_not_allow_is_refused_before_anything_is_there(small, parameters, message):
    with pytest.raises(InvalidRequest, match=message):
        small.deploy(**parameters)
    assert small.status == "NOT_DEPLOYED"


def test_hostile_parameters_stay_text(small):
    word = "<script>'; drop table stacks; -- ${AWS::Region} {{resolve:x}} !Ref Here é"
    small.deploy(word=word)
    job = Batch(settings=small.clients.settings).submit("greet")
    assert job.wait().log() == f"{word} World"
    assert "<script>" not in small._repr_html_()


# --- what must not be lost


def test_a_replacement_of_what_holds_jobs_is_refused_unless_asked_for(small):
    small.deploy()
    with pytest.raises(ConfirmationNeeded) as caught:
        small.update(prefix="x-")
    assert caught.value.losses == ["High (AWS::Batch::JobQueue): replace, with waiting and running jobs"]
    assert "x-highPriority" not in queues(small)
    small.update(prefix="x-", replace=True)
    assert queues(small) == {"x-highPriority": 10, "highPriority": 1000, "lowPriority": 1}


def test_a_teardown_wants_the_stack_s_name_and_says_what_would_be_lost(small):
    small.deploy()
    with pytest.raises(ConfirmationNeeded) as caught:
        small.teardown()
    assert caught.value.losses == [
        "Here (AWS::Batch::ComputeEnvironment): remove, with running jobs",
        "High (AWS::Batch::JobQueue): remove, with waiting and running jobs",
    ]
    assert 'teardown(confirm="genokit-small")' in str(caught.value)
    with pytest.raises(ConfirmationNeeded):
        small.teardown(confirm="genokit-batch")
    assert small.status == "CREATE_COMPLETE"


def test_a_teardown_ends_jobs_and_puts_the_account_s_own_queues_back(small):
    small.deploy()
    small.update(word="hi")
    batch = Batch(settings=small.clients.settings)
    job = batch.submit("greet", command=["sleep", "60"])
    small.teardown(confirm="genokit-small")
    assert job.wait().status == "FAILED"
    assert small.status == "NOT_DEPLOYED"
    assert queues(small) == {"highPriority": 1000, "lowPriority": 1}
    assert definitions(small) == []
    environments = small.clients.batch.describe_compute_environments()["computeEnvironments"]
    assert [one["computeEnvironmentName"] for one in environments] == ["this-machine"]
    own = batch.define("own", command=["true"], memory_gib=0.1)
    assert batch.submit(own).wait().status == "SUCCEEDED"
    small.teardown(confirm="genokit-small")  # nothing is left to do
    small.deploy()


# --- what fails


def test_a_resource_that_fails_takes_the_others_back_and_the_first_reason_is_told(small, tmp_path):
    broken = SMALL.replace("Priority: !If [IsUrgent, 1000, 10]", "Priority: !If [IsUrgent, 5000, 10]")
    (tmp_path / "small.yaml").write_text(broken)
    with pytest.raises(
        StackFailed, match=r"High \(AWS::Batch::JobQueue\): priority: 5000 is not in 0 to 1000"
    ) as caught:
        small.deploy(urgent="yes")
    assert (caught.value.stack, caught.value.resource) == ("genokit-small", "High")
    assert small.status == "ROLLBACK_COMPLETE"
    assert definitions(small) == []
    assert queues(small) == {"highPriority": 1000, "lowPriority": 1}
    for ask in (small.diff, small.update):
        with pytest.raises(StackFailed, match="nothing to compare with or to update"):
            ask()
    with pytest.raises(InvalidParameters):
        small.deploy(wrod="x")
    assert small.status == "ROLLBACK_COMPLETE"
    small.deploy()  # removes what is left of it, and says so
    assert small.status == "CREATE_COMPLETE"
    with pytest.raises(StackFailed, match="The stack is unchanged"):
        small.update(urgent="yes", word="lost")
    assert small.status == "UPDATE_ROLLBACK_COMPLETE"
    assert (queues(small)["highPriority"], definitions(small)) == (10, ["greet:1"])
    small.update(word="found")
    assert definitions(small) == ["greet:2"]


def test_what_is_not_there_is_said_to_be_not_there(small, account):
    for ask in (small.events, small.resources, small.update):
        with pytest.raises(NotFound, match="genokit-small"):
            ask()
    assert small.outputs == {}
    with pytest.raises(NotFound, match="Did you mean 'batch'"):
        Stack("bach", settings=account).deploy()
    with pytest.raises(InvalidRequest, match="must begin with genokit-"):
        Stack(stack_name="../x", settings=account).deploy()
    with pytest.raises(InvalidRequest, match="must begin with genokit-"):
        Stack(stack_name="Genokit-Batch", settings=account).deploy()


def test_nothing_is_read_or_asked_before_it_is_needed():
    stack = Stack("no-such-template", settings=None)
    assert "no-such-template" in repr(stack)


def test_the_embedded_account_is_one_of_many(small, tmp_path, account):
    small.deploy()
    other = Stack(small.name, stack_name="other", settings=account)
    with pytest.raises(StackFailed, match="Object already exists: job queue 'highPriority'"):
        other.deploy()
    assert small.status == "CREATE_COMPLETE"
    elsewhere = backends.clients(account.__class__(home=tmp_path / "elsewhere"))
    assert Stack(small.name, clients=elsewhere).status == "NOT_DEPLOYED"


# --- the command


def test_the_command_does_the_same(small, monkeypatch, capsys):
    def said(*words: str) -> tuple[int, str, str]:
        code, shown = main(["stack", *words]), capsys.readouterr()
        return code, shown.out, shown.err

    for name, value in small.clients.settings.environ().items():
        monkeypatch.setenv(name, value)
    assert said("diff", small.name, "Word=hi")[1].startswith("Stack genokit-small: 4 to add")
    code, shown, _ = said("deploy", small.name, "word=hi=ho")
    assert (code, shown.splitlines()[-2]) == (0, f"Queue = {small.outputs['Queue']}")
    assert said("outputs", small.name, "Queue")[1] == small.outputs["Queue"] + "\n"
    assert "Did you mean 'Queue'?" in said("outputs", small.name, "Queues")[2]
    assert said("update", small.name, "urgent=yes")[1].count("High (AWS::Batch::JobQueue): Priority") == 1
    assert "replace=True" in said("update", small.name, "prefix=x-")[2]
    assert said("update", small.name, "prefix=x-", "--replace")[0] == 0
    assert "is not NAME=VALUE" in said("deploy", small.name, "word")[2]
    assert json.loads(said("policy")[1]) == json.loads(small.policy())
    assert said("policy", "batch", "deployer-network")[0] == 0
    assert "Did you mean 'deployer'?" in said("policy", "batch", "deploy")[2]
    code, _, told = said("teardown", small.name)
    assert (code, "would lose" in told) == (1, True)
    assert said("teardown", small.name, "--confirm", "genokit-small")[0] == 0
    assert said("outputs", small.name)[:2] == (0, "")


# --- broken off


def test_a_stack_has_a_whole_life_over_any_clients(account):
    called = set()
    drive(hooked(account, "before-parameter-build", called.add), backends.clients(account))
    assert called == {
        "cloudformation:create_change_set", "cloudformation:delete_change_set", "cloudformation:delete_stack",
        "cloudformation:describe_change_set", "cloudformation:describe_stack_events", "cloudformation:describe_stacks",
        "cloudformation:execute_change_set", "cloudformation:list_stack_resources",
        "s3:delete_objects", "s3:list_object_versions",
    }  # fmt: skip


class Broken(BaseException):
    """The kernel is gone: the call was answered, and nobody got the answer."""


def breaking(account, at: int):
    left = iter(range(at))

    def broken(operation):
        if next(left, None) is None:
            raise Broken

    return hooked(account, "after-call", broken)


@pytest.mark.slow
def test_whatever_is_broken_off_anywhere_goes_on_when_it_is_called_again(small, account, tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL.replace("Resources:", "Resources:\n  Files: {Type: AWS::S3::Bucket}", 1))
    for call in range(100):
        deploying = Stack(small.name, clients=breaking(account, call))
        try:
            deploying.deploy()
            finished = True
        except Broken:
            finished = False
        small.deploy()
        assert small.status == "CREATE_COMPLETE"
        bucket = small.resources().set_index("resource").loc["Files", "id"]
        small.clients.s3.put_object(Bucket=bucket, Key="a", Body=b"a")
        removing = Stack(small.name, clients=breaking(account, call))
        try:
            removing.teardown(confirm="genokit-small")
        except Broken:
            finished = False
        small.teardown(confirm="genokit-small")
        assert small.status == "NOT_DEPLOYED"
        assert (queues(small), definitions(small)) == ({"highPriority": 1000, "lowPriority": 1}, [])
        assert [one["Name"] for one in small.clients.s3.list_buckets()["Buckets"]] == ["genokit"]
        if finished:
            break
    assert call > 8


def test_a_kernel_killed_at_any_moment_leaves_a_stack_that_can_be_deployed(account):
    code = "from genokit import Stack; Stack().deploy()"
    for delay_s in (0.6, 0.8, 1.0, 1.2, 1.4):
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **account.environ()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        child.wait()
        status = Stack(settings=account).status
        assert status in ("NOT_DEPLOYED", "REVIEW_IN_PROGRESS", "CREATE_COMPLETE")
    stack = Stack(settings=account).deploy()
    assert stack.status in ("CREATE_COMPLETE", "UPDATE_COMPLETE")
    assert len(stack.resources()) == 40


def test_of_two_kernels_that_deploy_at_once_one_is_told_to_look_again(small, account):
    def first_another(operation):
        if operation == "cloudformation:execute_change_set" and small.status == "REVIEW_IN_PROGRESS":
            small.deploy(word="first")

    late = Stack(small.name, clients=hooked(account, "before-parameter-build", first_another))
    with pytest.raises(InvalidRequest, match=r"ChangeSet \[genokit-\w+\] does not exist"):
        late.deploy(word="second")
    assert small.status == "CREATE_COMPLETE"
    assert not small.diff(word="first")


def test_jobs_in_the_queues_end_with_the_stack(small):
    small.deploy()
    batch = Batch(settings=small.clients.settings)
    jobs = [batch.submit("greet", command=["sleep", "60"]) for _ in range(3)]
    small.teardown(confirm="genokit-small")
    assert {job.wait().status for job in jobs} == {"FAILED"}


# --- over boto3's own clients


def test_the_same_stack_over_boto3_s_clients_and_moto(tmp_path, capsys):
    from moto import mock_aws

    (tmp_path / "plain.yaml").write_text(PLAIN)
    with mock_aws():
        stack = Stack(str(tmp_path / "plain.yaml"), clients=aws())
        assert (stack.status, stack.outputs) == ("NOT_DEPLOYED", {})
        assert len(stack.diff()) == 5
        assert stack.status == "NOT_DEPLOYED"
        stack.deploy()
        assert stack.status == "CREATE_COMPLETE"
        assert list(stack.resources()["resource"]) == ["Bucket", "Lines", "News", "Images", "Hello"]
        bucket = stack.resources()["id"][0]
        stack.clients.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        for body in (b"one", b"two"):
            stack.clients.s3.put_object(Bucket=bucket, Key="a", Body=body)
        stack.clients.s3.delete_object(Bucket=bucket, Key="a")
        with pytest.raises(ConfirmationNeeded, match=r"Bucket \(AWS::S3::Bucket\): remove, with files"):
            stack.teardown()
        stack.teardown(confirm="genokit-plain")
        assert stack.status == "NOT_DEPLOYED"
        assert stack.clients.s3.list_buckets()["Buckets"] == []
    assert f"Emptied bucket {bucket}: 3 files and old versions" in capsys.readouterr().out


PLAIN = """
Resources:
  Bucket: {Type: AWS::S3::Bucket}
  Lines: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: !Sub "/genokit/${AWS::StackName}"}}
  News: {Type: AWS::SQS::Queue}
  Images: {Type: AWS::ECR::Repository, Properties: {RepositoryName: !Ref AWS::StackName, EmptyOnDelete: true}}
  Hello:
    Type: AWS::Batch::JobDefinition
    Properties:
      JobDefinitionName: hello
      Type: container
      RetryStrategy: {Attempts: 2}
      ContainerProperties:
        Image: busybox
        ResourceRequirements: [{Type: VCPU, Value: "1"}, {Type: MEMORY, Value: "64"}]
"""
NOW = datetime(2026, 11, 22, tzinfo=UTC)
IDENTITY = "arn:aws:cloudformation:eu-central-1:123456789012:stack/genokit-batch/1"


def aws() -> backends.Clients:
    told = {"region_name": "eu-central-1", "aws_access_key_id": "x", "aws_secret_access_key": "y"}
    settings = Settings(backend="aws", region="eu-central-1")
    return backends.Clients(settings, **{name: boto3.client(name, **told) for name in SERVICES})


@pytest.fixture
def stubbed():
    """The kit's stack over a boto3 client of CloudFormation that answers what it is told to."""
    stack = Stack(clients=aws())
    stack.clients.backend = replace(backends.AWS, poll_s=0.01)
    with Stubber(stack.clients.client("cloudformation")) as stubber:
        yield stack, stubber
        stubber.assert_no_pending_responses()


def described(status: str, **more: object) -> dict[str, object]:
    told = {"StackId": IDENTITY, "StackName": "genokit-batch", "CreationTime": NOW, "StackStatus": status, **more}
    return {"Stacks": [told]}


def event(number: int, logical: str, status: str, reason: str = "", kind: str = "AWS::S3::Bucket") -> dict[str, object]:
    return {
        "StackId": IDENTITY, "EventId": str(number), "StackName": "genokit-batch", "Timestamp": NOW,
        "LogicalResourceId": logical, "ResourceType": kind, "ResourceStatus": status, "ResourceStatusReason": reason,
    }  # fmt: skip


OF_STACK = "AWS::CloudFormation::Stack"
ABSENT = {"service_error_code": "ValidationError", "service_message": "Stack with id genokit-batch does not exist"}


def test_what_aws_denies_is_told_by_its_name(stubbed):
    stack, stubber = stubbed
    stubber.add_client_error("describe_stacks", "AccessDenied", "User: x is not authorized", http_status_code=403)
    with pytest.raises(AccessDenied, match="stack 'genokit-batch': AWS denies DescribeStacks") as caught:
        stack.deploy()
    assert caught.value.action == "DescribeStacks"
    stubber.add_client_error("describe_stacks", **ABSENT)
    stubber.add_client_error("create_change_set", "AccessDenied", "not authorized to perform: iam:PassRole")
    with pytest.raises(AccessDenied, match="iam:PassRole"):
        stack.deploy()


def test_a_change_set_is_read_page_by_page_when_it_is_ready_and_removed_after_a_diff(stubbed):
    stack, stubber = stubbed

    def change(action, logical, kind, replacement="False"):
        told = {"Action": action, "LogicalResourceId": logical, "ResourceType": kind, "Replacement": replacement}
        detail = {"Target": {"Attribute": "Properties", "Name": "Tags"}}
        return {"Type": "Resource", "ResourceChange": {**told, "Details": [detail, detail]}}

    stubber.add_response("describe_stacks", described("UPDATE_COMPLETE"))
    stubber.add_response("create_change_set", {"Id": "c", "StackId": IDENTITY})
    stubber.add_response("describe_change_set", {"Status": "CREATE_IN_PROGRESS"})
    first = [change("Modify", "Spot", "AWS::Batch::ComputeEnvironment", "Conditional")]
    stubber.add_response("describe_change_set", {"Status": "CREATE_COMPLETE", "Changes": first, "NextToken": "2"})
    second = [change("Remove", "Old", "AWS::IAM::Role"), change("Remove", "Gone", "AWS::S3::Bucket")]
    stubber.add_response("describe_change_set", {"Status": "CREATE_COMPLETE", "Changes": second})
    stubber.add_response("delete_change_set", {})
    changes = stack.diff(keep=True)
    assert [(one.does, one.resource, one.properties, one.loses) for one in changes.changes] == [
        ("may replace", "Spot", ("Tags",), "running jobs"),
        ("remove", "Old", ("Tags",), ""),
        ("remove", "Gone", ("Tags",), "files"),
    ]
    assert str(changes).splitlines()[1:3] == [
        "  ! Spot (AWS::Batch::ComputeEnvironment): Tags  <- loses running jobs",
        "  - Old (AWS::IAM::Role): Tags",
    ]


def test_a_change_set_that_cannot_be_made_is_a_failure_with_its_reason(stubbed):
    stack, stubber = stubbed
    stubber.add_client_error("describe_stacks", **ABSENT)
    stubber.add_response("create_change_set", {"Id": "c", "StackId": IDENTITY})
    stubber.add_response("describe_change_set", {"Status": "FAILED", "StatusReason": "Transform X is not known"})
    stubber.add_response("delete_change_set", {})
    stubber.add_response("delete_stack", {})
    with pytest.raises(StackFailed, match="cannot be deployed like this: Transform X is not known"):
        stack.deploy()


def test_the_first_failure_is_told_and_not_those_that_followed_from_it(stubbed):
    stack, stubber = stubbed
    stubber.add_response("describe_stacks", described("CREATE_COMPLETE"))
    stubber.add_response("create_change_set", {"Id": "c", "StackId": IDENTITY})
    change = {"Action": "Add", "LogicalResourceId": "Bucket", "ResourceType": "AWS::S3::Bucket"}
    told = {"Status": "CREATE_COMPLETE", "Changes": [{"Type": "Resource", "ResourceChange": change}]}
    stubber.add_response("describe_change_set", told)
    stubber.add_response("describe_stacks", described("CREATE_COMPLETE"))
    before = [event(1, "genokit-batch", "CREATE_COMPLETE", kind=OF_STACK)]
    stubber.add_response("describe_stack_events", {"StackEvents": before})
    stubber.add_response("execute_change_set", {})
    stubber.add_response("describe_stack_events", {"StackEvents": before})
    stubber.add_response("describe_stacks", described("CREATE_COMPLETE"))  # not begun yet
    story = [
        event(2, "genokit-batch", "UPDATE_IN_PROGRESS", "User Initiated", OF_STACK),
        event(3, "Role", "CREATE_FAILED", "Resource creation cancelled"),
        event(4, "Bucket", "CREATE_FAILED", "TooManyBuckets"),
        event(5, "Queue", "CREATE_FAILED", "Resource creation cancelled"),
    ]
    stubber.add_response("describe_stack_events", {"StackEvents": [*story[::-1], *before]})
    stubber.add_response("describe_stacks", described("UPDATE_ROLLBACK_COMPLETE"))
    story += [event(6, "genokit-batch", "UPDATE_ROLLBACK_COMPLETE", kind=OF_STACK)]
    stubber.add_response("describe_stack_events", {"StackEvents": story[:1:-1], "NextToken": "2"})
    stubber.add_response("describe_stack_events", {"StackEvents": [*story[1::-1], *before]})
    with pytest.raises(StackFailed, match="TooManyBuckets The stack is unchanged") as caught:
        stack.deploy()
    assert (caught.value.resource, caught.value.reason) == ("Bucket", "TooManyBuckets")


def test_a_removal_that_is_under_way_is_waited_for_and_is_the_end(stubbed, capsys):
    stack, stubber = stubbed
    for _ in range(3):
        stubber.add_response("describe_stacks", described("DELETE_IN_PROGRESS"))
    stubber.add_client_error("describe_stacks", **ABSENT)
    stack.teardown(confirm="genokit-batch")
    assert "everything in it have been removed" in capsys.readouterr().out


def test_a_stack_that_somebody_is_at_work_on_is_waited_for(stubbed, capsys):
    stack, stubber = stubbed
    stubber.add_response("describe_stacks", described("UPDATE_IN_PROGRESS"))
    stubber.add_response("describe_stacks", described("UPDATE_ROLLBACK_FAILED"))
    with pytest.raises(StackFailed, match="continue-update-rollback --stack-name genokit-batch"):
        stack.deploy()
    assert "waiting until it has finished" in capsys.readouterr().out
