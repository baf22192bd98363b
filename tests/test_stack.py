"""Stack: deploy, look at what would change, update, take away; over the embedded CloudFormation for real."""

from __future__ import annotations

import pandas as pd
import pytest

from genokit import Batch, Stack, backends
from genokit.errors import ConfirmationNeeded, InvalidParameters, InvalidRequest, NotFound, StackFailed

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
    with pytest.raises(ConfirmationNeeded, match=f"bucket {bucket}: 3 files and old versions of files"):
        stack.teardown()
    stack.clients.client("cloudformation").delete_stack(StackName="genokit-batch")  # as a console would
    assert stack.status == "DELETE_FAILED"
    assert list(stack.resources()["resource"]) == ["Bucket"]
    assert "not empty" in stack.resources()["reason"][0]
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
    assert [one.resource for one in small.diff().changes if one.does == "add"] == ["Here", "Greet", "Role", "High"]
    assert small.status == "NOT_DEPLOYED"
    small.deploy()
    found = small.diff(urgent="yes", word="bye")
    assert [(one.does, one.resource, one.properties) for one in found.changes] == [
        ("change", "Greet", ("ContainerProperties",)),
        ("change", "High", ("Priority",)),
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
        "parameter": "MaxvCpus", "default": "2", "allowed": "1 to 64", "description": "the most"
    }  # fmt: skip
    assert small.diff(MaxvCpus=1).summary == small.diff(max_vcpus=1).summary
    with pytest.raises(InvalidParameters) as caught:
        small.deploy(max_cpus=1)
    assert "Did you mean 'max_vcpus'?" in str(caught.value)
    assert "word = 'hello'" in str(caught.value)
    assert small.status == "NOT_DEPLOYED"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_vcpus": 65}, "must be a number not greater than 64"),
        ({"max_vcpus": "many"}, "must be a number"),
        ({"urgent": "perhaps"}, "must be one of AllowedValues"),
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
    assert caught.value.losses == ["queue highPriority: 0 jobs that wait or run"]
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
    with pytest.raises(StackFailed, match="ROLLBACK_COMPLETE"):
        small.diff()
    small.deploy()  # removes what is left of it, and says so
    assert small.status == "CREATE_COMPLETE"
    with pytest.raises(StackFailed, match="as it was before"):
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
    with pytest.raises(InvalidRequest, match="cannot be a stack's name"):
        Stack(stack_name="../x", settings=account).deploy()


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
