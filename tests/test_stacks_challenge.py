"""The template for submissions on AWS: a walk over it proves what a submission cannot reach. No account has run it."""

from __future__ import annotations

from itertools import chain

import pytest
from template import CHALLENGE, Template

GIVEN = {
    "WorkspaceBucket": "lab-bucket",
    "WorkspacePrefix": "lab/",
    "Custodian": "anna",
    "ImageRepository": "genokit",
    "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/genokit@sha256:" + "0" * 64,
    "S3PrefixList": "pl-63a5400a",
    "WorkspaceKey": "arn:aws:kms:us-east-1:123456789012:key/1",
}
template = Template(CHALLENGE, **GIVEN)
DEFINITIONS = template.of("Batch::JobDefinition")
RUN = DEFINITIONS["RunDefinition"]["ContainerProperties"]


def statements(policy) -> list[dict]:
    return policy["Statement"]


def granted(role: str) -> dict[str, list[str]]:
    """The resources of each action that a role is granted."""
    found: dict[str, list[str]] = {}
    for one in chain(*(statements(policy["PolicyDocument"]) for policy in template.of("IAM::Role")[role]["Policies"])):
        actions = [one["Action"]] if isinstance(one["Action"], str) else one["Action"]
        resources = [one["Resource"]] if isinstance(one["Resource"], str) else one["Resource"]
        for action in actions:
            found.setdefault(action, []).extend(resources)
    return found


def test_a_submission_has_no_role_and_writes_to_its_output_alone():
    assert "JobRoleArn" not in RUN
    assert RUN["ReadonlyRootFilesystem"] is True
    assert RUN["User"] == "65534"
    assert "Privileged" not in RUN
    assert "Secrets" not in RUN
    assert {point["ContainerPath"]: point["ReadOnly"] for point in RUN["MountPoints"]} == {
        "/data": True, "/code": True, "/out": False, "/tmp": False,
    }  # fmt: skip
    volumes = {one["Name"]: one.get("EfsVolumeConfiguration", {}).get("RootDirectory") for one in RUN["Volumes"]}
    assert volumes == {
        "data": "/submission/data", "code": "/submission/code", "out": "/submission/out", "tmp": None
    }  # fmt: skip
    assert not [one for one in RUN["Environment"] if one["Name"].startswith(("AWS", "GENOKIT"))]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_job_has_a_network_interface_of_its_own_without_a_public_address(name):
    one = DEFINITIONS[name]
    assert one["PlatformCapabilities"] == ["FARGATE"]  # which has the network mode awsvpc and no other
    assert one["ContainerProperties"]["NetworkConfiguration"] == {"AssignPublicIp": "DISABLED"}
    assert one["RetryStrategy"] == {"Attempts": 1}
    assert one["Timeout"]["AttemptDurationSeconds"] <= 3600


def test_the_network_has_no_way_out():
    kinds = {one["Type"] for one in template.resources.values()}
    for way in ("InternetGateway", "NatGateway", "EgressOnlyInternetGateway", "Route", "TransitGatewayAttachment",
                "VPCPeeringConnection", "VPNGateway", "EIP"):  # fmt: skip
        assert f"AWS::EC2::{way}" not in kinds
    assert all(one["MapPublicIpOnLaunch"] is False for one in template.of("EC2::Subnet").values())


def test_no_security_group_lets_a_job_reach_an_address():
    groups = template.of("EC2::SecurityGroup")

    def reached(name: str) -> set[tuple[int, str]]:
        rules = groups[name]["SecurityGroupEgress"]
        return {(rule["FromPort"], key) for rule in rules for key in rule if key.startswith(("Cidr", "Destination"))}

    only = {(2049, "DestinationSecurityGroupId"), (443, "DestinationSecurityGroupId"), (443, "DestinationPrefixListId")}
    assert reached("RunGroup") == reached("CustodyGroup") == only
    nowhere = [
        rule["CidrIp"] for name in ("FilesGroup", "EndpointGroup") for rule in groups[name]["SecurityGroupEgress"]
    ]
    assert nowhere == ["127.0.0.1/32"] * 2  # without a rule EC2 adds one that lets all out
    assert not [name for name, one in groups.items() if "SecurityGroupIngress" in one]
    into = template.of("EC2::SecurityGroupIngress").values()
    assert {one["FromPort"] for one in into} == {2049, 443}
    assert all("SourceSecurityGroupId" in one and "CidrIp" not in one for one in into)


def test_submissions_run_in_the_subnets_and_the_group_without_the_workspace():
    environments = template.of("Batch::ComputeEnvironment")
    raw = template.raw["Resources"]
    run = raw["RunEnvironment"]["Properties"]["ComputeResources"]
    assert run["Subnets"] == [{"Ref": "RunSubnetA"}, {"Ref": "RunSubnetB"}]
    assert run["SecurityGroupIds"] == [{"Ref": "RunGroup"}]
    assert {one["ComputeResources"]["Type"] for one in environments.values()} == {"FARGATE"}
    assert raw["RunQueue"]["Properties"]["ComputeEnvironmentOrder"][0]["ComputeEnvironment"] == {
        "Ref": "RunEnvironment"
    }
    assert raw["LayersEndpoint"]["Properties"]["RouteTableIds"] == [{"Ref": "RunRoutes"}]
    assert raw["WorkspaceEndpoint"]["Properties"]["RouteTableIds"] == [{"Ref": "CustodyRoutes"}]


def test_the_way_to_s3_serves_the_layers_of_images_alone():
    (one,) = statements(template.of("EC2::VPCEndpoint")["LayersEndpoint"]["PolicyDocument"])
    assert one["Action"] == "s3:GetObject"
    assert one["Resource"] == "arn:aws:s3:::prod-us-east-1-starport-layer-bucket/*"


def test_no_endpoint_serves_credentials_that_a_submission_could_bring():
    """The layers' bucket alone is open to everyone, to read: it is AWS's own."""
    endpoints = template.of("EC2::VPCEndpoint")
    assert set(endpoints) == {
        "EcrApiEndpoint", "EcrImageEndpoint", "LogsEndpoint", "BatchEndpoint", "LayersEndpoint", "WorkspaceEndpoint",
    }  # fmt: skip
    for name, endpoint in endpoints.items():
        for one in statements(endpoint["PolicyDocument"]):
            if one["Principal"] == "*":
                assert one["Action"] == "s3:GetObject", name
                assert "starport-layer-bucket" in one["Resource"], name
            else:
                roles = one["Principal"]["AWS"]
                assert all("role/" in role for role in ([roles] if isinstance(roles, str) else roles)), name


def test_names_are_answered_for_the_endpoints_and_no_others():
    lists = template.of("Route53Resolver::FirewallDomainList")
    assert lists["OtherNames"]["Domains"] == ["*"]
    assert all(name.endswith(".amazonaws.com") and "*" not in name for name in lists["KnownNames"]["Domains"])
    rules = template.of("Route53Resolver::FirewallRuleGroup")["NameRules"]["FirewallRules"]
    assert [(rule["Priority"], rule["Action"]) for rule in rules] == [(1, "ALLOW"), (2, "BLOCK")]
    assert template.of("Route53Resolver::FirewallRuleGroupAssociation")


def test_who_stages_and_checks_may_write_to_a_new_file_system_and_remove_what_a_submission_left():
    """Both belong to others than the image's user: to root, and to the user of the submission."""
    assert [DEFINITIONS[f"{name}Definition"]["ContainerProperties"]["User"] for name in ("Stage", "Gate")] == ["0", "0"]


def test_stage_never_reads_the_truth_and_gate_writes_as_its_custodian_alone():
    def under(prefix: str) -> str:
        return f"arn:aws:s3:::lab-bucket/lab/{prefix}/*"

    stage, gate = granted("StageRole"), granted("GateRole")
    assert set(stage) == {"s3:GetObject", "s3:ListBucket", "kms:Decrypt"}
    assert set(stage["s3:GetObject"]) == {under(one) for one in ("log", "signed", "data", "code")}
    key = {"kms:Decrypt", "kms:GenerateDataKey"}  # that of the workspace's bucket, used by S3 alone
    assert set(gate) == {"s3:GetObject", "s3:PutObject", "s3:ListBucket", "batch:DescribeJobs", *key}
    assert gate["kms:Decrypt"] == stage["kms:Decrypt"] == [GIVEN["WorkspaceKey"]]
    assert "kms" not in str(Template(CHALLENGE, **{**GIVEN, "WorkspaceKey": ""}).of("IAM::Role"))
    assert set(gate["s3:PutObject"]) == {under(one) for one in ("log", "signed/anna", "results")}
    assert under("data") not in gate["s3:GetObject"]
    assert not [action for action in granted("ExecutionRole") if action.startswith("s3:")]


def test_roles_are_lent_to_tasks_of_this_account_alone_and_have_the_boundary():
    for role in template.of("IAM::Role").values():
        (one,) = statements(role["AssumeRolePolicyDocument"])
        assert one["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
        assert one["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
        assert role["PermissionsBoundary"].endswith(":policy/genokit-boundary")
        assert "ManagedPolicyArns" not in role


def test_the_jobs_have_the_names_and_the_words_that_the_kit_uses():
    names = {one["JobDefinitionName"].rpartition("-")[2] for one in DEFINITIONS.values()}
    assert names == {"stage", "run", "gate"}
    assert {one["JobQueueName"].rpartition("-")[2] for one in template.of("Batch::JobQueue").values()} == {
        "submissions", "custody",
    }  # fmt: skip
    words = {
        name: DEFINITIONS[f"{name.title()}Definition"]["ContainerProperties"]["Command"] for name in ("stage", "gate")
    }
    assert words["stage"][3:] == ["stage", "Ref::address", "Ref::submission", "Ref::member", "/files/submission"]
    assert words["gate"][3:] == [
        "gate",
        "Ref::address",
        "Ref::submission",
        "Ref::member",
        "/files/submission",
        "Ref::job",
    ]
    assert {"Name": "CODE", "Value": "/code"} in RUN["Environment"]
