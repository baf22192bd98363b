"""The stack of the genomics workflow: the machine that export gives, the jobs of the workflow, and a narrow role."""

from __future__ import annotations

import json
import re

import pytest
from recorded import Need, Policy, listed, misplaced
from state_machines import executions, linted, uncreatable, unsendable
from template import ACCOUNT, GENOMICS, REGION, Template, schemas
from test_stacks_template import camel

from genokit import Batch, Settings, Stack, backends, genomics
from genokit.genomics.state_machine import machine

template = Template(GENOMICS)
DEPLOYER = json.loads((GENOMICS.parent / "policies" / "genomics-deployer.json").read_text())
ALL = ("user", "deployer", "MachineRole")
FREE = {("MachineRole", "Look"): "AWS knows no narrower", ("MachineRole", "Log"): "AWS knows no narrower"}


def policy(who):
    if who == "deployer":
        return Policy(DEPLOYER)
    if who == "user":
        return Policy(template.of("IAM::ManagedPolicy")["UserPolicy"]["PolicyDocument"])
    return Policy(*(one["PolicyDocument"] for one in template.of("IAM::Role")[who]["Policies"]))


def definition(raw=template):
    """The machine's definition with its substitutions, as CloudFormation makes it."""
    made = raw.raw["Resources"]["Machine"]["Properties"]
    values = raw.value(made["DefinitionSubstitutions"])
    return json.loads(re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], made["DefinitionString"]))


# --- what linters and AWS would say


def test_a_deploy_needs_no_parameter_and_the_template_can_be_sent_as_it_is():
    assert all("Default" in one for one in template.raw["Parameters"].values())
    assert all(one["Description"].endswith(".") for one in template.raw["Parameters"].values())
    assert len(GENOMICS.read_bytes()) < 51_200
    assert set(template.outputs) == {"StateMachine", "UserPolicy"}


def test_the_machine_is_the_exported_one_and_valid(tmp_path):
    steps = ("align", "call", "annotate", "stats")
    arns = {one: f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/genokit-batch-{one}:1" for one in steps}
    queues = {"align": "highPriority", "call": "highPriority", "annotate": "lowPriority", "stats": "lowPriority"}
    assert definition() == machine(arns, queues, 86_400)
    assert (linted(definition(), tmp_path), uncreatable(definition()), unsendable(definition())) == ([], [], [])
    other = definition(Template(GENOMICS, QueueHigh="fast", QueueLow="slow"))
    assert dict(re.findall(r'"genomics-(\w+)", "JobQueue": "(\w+)"', json.dumps(other))) == {
        "align": "fast", "call": "fast", "annotate": "slow", "stats": "slow",
    }  # fmt: skip


def test_its_jobs_run_what_those_of_the_workflow_run_in_the_batch_stacks_image_roles_and_log(account, tmp_path):
    cohort = genomics.simulate(tmp_path / "cohort", 1, bases=10_000, contigs=1, coverage=1)
    batch, sizes = Batch(settings=account), Template(GENOMICS, Vcpus="8", MemoryMib="16384")
    genomics.export(cohort["samples"], cohort["reference"], genes=cohort["genes"], batch=batch,
                    vcpus={"align": 8, "call": 8}, memory_gib={"align": 16, "call": 16})  # fmt: skip
    found = sizes.of("Batch::JobDefinition").values()
    assert len(found) == 4
    names = {**Template().of("IAM::Role"), **Template().of("Logs::LogGroup")}
    for one in camel(list(found)):
        own = batch.definition(f"genomics-{one['jobDefinitionName'].rpartition('-')[2]}").described
        container, wanted = one["containerProperties"], own["containerProperties"]
        assert container["command"] == wanted["command"]
        assert container["resourceRequirements"] == wanted["resourceRequirements"]
        assert (one["retryStrategy"], one["parameters"]) == (own["retryStrategy"], own["parameters"])
        assert container["image"] == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/genokit-batch:genokit-cpu"
        assert container["jobRoleArn"].endswith(f":role/{names['JobRole']['RoleName']}")
        assert container["executionRoleArn"].endswith(f":role/{names['ExecutionRole']['RoleName']}")
        assert container["logConfiguration"]["options"]["awslogs-group"] == names["LogGroup"]["LogGroupName"]
    assert {one["containerProperties"]["image"] for one in camel(list(Template(GENOMICS, Image="mine:1").of(
        "Batch::JobDefinition").values()))} == {"mine:1"}  # fmt: skip


# --- who may do what


@pytest.mark.parametrize("who", ALL)
def test_every_action_is_one_that_aws_knows_can_be_done_to_its_resource_and_is_no_wildcard(who):
    assert misplaced(policy(who)) == []
    for one in policy(who).statements:
        assert one["Effect"] == "Allow"
        assert not any("*" in action for action in listed(one["Action"]))
        if "*" in listed(one["Resource"]):
            assert (who, one["Sid"]) in FREE


def test_what_each_needs_is_allowed_and_its_neighbours_things_are_not():
    batch, states = f"arn:aws:batch:{REGION}:{ACCOUNT}", f"arn:aws:states:{REGION}:{ACCOUNT}"
    rule = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/StepFunctionsGetEventsForBatchJobsRule"
    role = f"arn:aws:iam::{ACCOUNT}:role/genokit-genomics-{REGION}-states"
    allowed = {
        "MachineRole": [
            Need("batch:SubmitJob", f"{batch}:job-queue/highPriority"),
            Need("batch:SubmitJob", f"{batch}:job-definition/genokit-batch-align:3"),
            Need("batch:DescribeJobs"), Need("batch:TerminateJob", f"{batch}:job/1"),
            Need("events:PutTargets", rule), Need("events:PutRule", rule), Need("events:DescribeRule", rule),
        ],
        "user": [
            Need("states:StartExecution", f"{states}:stateMachine:genokit-batch"),
            Need("states:DescribeExecution", f"{states}:execution:genokit-batch:S1"),
        ],
        "deployer": [
            Need("states:CreateStateMachine", f"{states}:stateMachine:genokit-genomics"),
            Need("iam:PassRole", role, {"iam:PassedToService": "states.amazonaws.com"}),
        ],
    }  # fmt: skip
    refused = {
        "MachineRole": [
            Need("batch:SubmitJob", f"{batch}:job-queue/gpu"),
            Need("batch:SubmitJob", f"{batch}:job-definition/another:1"),
            Need("events:PutRule", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/another"),
            Need("s3:GetObject", "arn:aws:s3:::genokit-batch-bucket-x1/a"),
        ],
        "user": [
            Need("states:StartExecution", f"{states}:stateMachine:another"),
            Need("states:UpdateStateMachine", f"{states}:stateMachine:genokit-batch"),
        ],
        "deployer": [
            Need("states:CreateStateMachine", f"{states}:stateMachine:another"),
            Need("iam:PassRole", role, {"iam:PassedToService": "lambda.amazonaws.com"}),
            Need("states:StartExecution", f"{states}:stateMachine:genokit-genomics"),
        ],
    }
    for who in ALL:
        assert [need for need in allowed[who] if not policy(who).allows(need)] == [], who
        assert [need for need in refused[who] if policy(who).allows(need)] == [], who


def test_the_deployer_may_what_cloudformations_handler_of_the_machine_does():
    granted = {action.lower() for one in DEPLOYER["Statement"] for action in listed(one["Action"])}
    handlers = next(one for one in schemas() if one.get("typeName") == "AWS::StepFunctions::StateMachine")["handlers"]
    names = ("create", "read", "update", "delete")
    asked = {action.lower() for name in names for action in handlers[name]["permissions"]}
    of_others = ("kms:", "s3:")  # it has no key and no file of its own
    assert {one for one in asked - granted if not one.startswith(of_others)} == set()
    assert granted <= asked


def test_its_role_is_lent_to_step_functions_of_this_account_alone():
    (statement,) = template.of("IAM::Role")["MachineRole"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "states.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


# --- its life


def test_the_embedded_account_makes_its_job_definitions_and_keeps_the_rest_by_name(tmp_path):
    clients = backends.clients(Settings(home=tmp_path))
    stack = Stack("genomics", clients=clients)
    stack.deploy(vcpus=2)
    resources = stack.resources().set_index("resource")
    assert "no AWS::StepFunctions::StateMachine" in str(resources.loc["Machine"].to_dict())
    assert clients.outputs("genokit-genomics")["StateMachine"] == "genokit-genomics"
    assert Batch(clients).definition("genokit-genomics-call").vcpus == 2
    stack.teardown(confirm="genokit-genomics")
    assert stack.status == "NOT_DEPLOYED"


@pytest.mark.slow
def test_the_deployed_machine_runs_a_sample_with_the_stacks_own_definitions(account, tmp_path, monkeypatch):
    batch = Batch(settings=account)
    Stack("genomics", settings=account).deploy()
    cohort = genomics.simulate(tmp_path / "cohort", 1, bases=10_000, contigs=1, coverage=8)
    given = {"genes": cohort["genes"], "out": tmp_path / "out", "batch": batch}
    exported = genomics.export(cohort["samples"], cohort["reference"], **given)
    text = json.dumps(definition()).replace(
        f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/genokit-batch-", "genokit-genomics-"
    )
    with executions(batch.clients, monkeypatch) as execute:
        assert execute(json.loads(text), exported.inputs["S1"])["status"] == "SUCCEEDED"
    assert set(genomics.workflow(cohort["samples"], cohort["reference"], **given).table()["status"]) == {
        "FINISHED BEFORE"
    }
