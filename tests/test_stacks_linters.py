"""What parliament and checkov say of the stacks: `make test-policies` runs them in an environment of their own, because
checkov wants an old boto3. What they find and stays is listed here, each with its reason; what is no longer found goes
from the list."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import test_stacks_genomics as genomics
import test_stacks_omop as omop
from template import CHALLENGE, GENOMICS, OMOP, PATH, WORKSPACE, Template
from test_stacks_policies import ALL

pytestmark = pytest.mark.policies

PROGRAMS = Path(os.environ.get("POLICIES", ".venv-policies")) / "bin"

PARLIAMENT = {
    ("user", "PERMISSIONS_MANAGEMENT_ACTIONS"): "iam:PassRole of the two roles of jobs, to ECS alone",
    ("deployer", "PERMISSIONS_MANAGEMENT_ACTIONS"): "who deploys makes roles, those whose names begin with genokit-",
    ("deployer", "PRIVILEGE_ESCALATION"): "the boundary holds roles, and a policy that people hold is not "
    "rewritten: parliament sees neither",
    ("deployer", "CREDENTIALS_EXPOSURE"): "ecr:GetAuthorizationToken: a login to push images, good for twelve hours",
    ("deployer", "RESOURCE_MISMATCH"): "what EC2 makes and what it makes it in stand in two statements, for only the "
    "new thing comes with a tag",
    ("deployer", "RESOURCE_POLICY_PRIVILEGE_ESCALATION"): "the bucket's own policy, which refuses all but TLS",
    ("deployer", "MISMATCHED_TYPE_BUT_USABLE"): "iam:PermissionsBoundary, which IAM's reference compares as a string",
    ("boundary", "CREDENTIALS_EXPOSURE"): "ecr:GetAuthorizationToken: ECS and instances log in to pull images",
    ("boundary", "RESOURCE_STAR"): "what AWS's own policy allows an instance, whose cluster Batch names",
    ("BuildRole", "CREDENTIALS_EXPOSURE"): "ecr:GetAuthorizationToken: a build logs in to push its image",
    ("ExecutionRole", "CREDENTIALS_EXPOSURE"): "ecr:GetAuthorizationToken: ECS logs in to pull images",
    (
        "omop user",
        "PERMISSIONS_MANAGEMENT_ACTIONS",
    ): "iam:PassRole of the role of Spark's jobs, to EMR Serverless alone",
    ("omop deployer", "PERMISSIONS_MANAGEMENT_ACTIONS"): "iam:PassRole of the kit's roles, to Redshift alone",
    (
        "genomics deployer",
        "PERMISSIONS_MANAGEMENT_ACTIONS",
    ): "iam:PassRole of the machine role to Step Functions",
    (
        "genomics MachineRole",
        "PERMISSIONS_MANAGEMENT_ACTIONS",
    ): "logs:PutResourcePolicy, which CloudWatch asks of whoever has a log delivered",
    ("boundary", "PERMISSIONS_MANAGEMENT_ACTIONS"): "logs:PutResourcePolicy, for the machine's log",
    ("genomics user", "RESOURCE_MISMATCH"): "executions of a standard machine: parliament knows those of express ones",
    ("omop deployer", "RESOURCE_MISMATCH"): "tags of workgroups, and of none of Athena's other things",
}
ANALYZE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from parliament import UnknownActionException, analyze_policy_string, expand_action
def known(action):
    try:
        return action == "*" or bool(expand_action(action))
    except UnknownActionException:
        return False
found = {"unknown": []}
for who, document in json.load(sys.stdin).items():
    for one in document["Statement"]:
        actions = [one["Action"]] if isinstance(one["Action"], str) else one["Action"]
        one["Action"] = [action for action in actions if known(action)]
        found["unknown"] += [action for action in actions if not known(action)]
    policy = analyze_policy_string(json.dumps(document), include_community_auditors=True)
    found[who] = [[finding.issue, str(finding.detail)] for finding in policy.findings]
print(json.dumps(found))
"""
# Newer than parliament's table, which would stop at them.
NEWER = {
    "batch:SetCapacityTags",
    "ec2:DescribeVpcEncryptionControls",
    "lambda:GetFunctionScalingConfig",
    "s3:GetBucketAbac",
}

CHECKOV = {
    "CKV_AWS_18": "no access log of the bucket: it would be a second bucket, written to at each access and paid",
    "CKV_AWS_51": "tags of images move: genokit-cpu is the newest; a job can name a digest",
    "CKV_AWS_115": "the function may run as often as it is asked to; Batch throttles",
    "CKV_AWS_116": "who calls the function hears of its errors at once: no dead letters",
    "CKV_AWS_117": "the function speaks with Batch alone; inside a VPC it would need a NAT gateway",
    "CKV_AWS_136": "images are encrypted with ECR's own key, not a key of KMS, paid each month",
    "CKV_AWS_158": "logs are encrypted with CloudWatch's own key, not a key of KMS, paid each month",
}
CHECKOV_OMOP = {
    "CKV_AWS_18": CHECKOV["CKV_AWS_18"],
    "CKV_AWS_82": "a workgroup that enforces its settings refuses to make tables elsewhere; the bucket encrypts",
}

CHECKOV_GENOMICS = {"CKV_AWS_158": CHECKOV["CKV_AWS_158"]}
CHECKOV_WORKSPACE = {"CKV_AWS_18": "the bucket of access logs has no access log"}
CHECKOV_CHALLENGE = {"CKV_AWS_158": CHECKOV["CKV_AWS_158"]}


def analyzed(documents):
    """What parliament finds in each policy, and under "unknown" the actions that it does not know."""
    command = [PROGRAMS / "python", "-c", ANALYZE]
    done = subprocess.run(command, input=json.dumps(documents), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_parliament_with_community_auditors_finds_what_is_known():
    policies = {who: make() for who, make in ALL.items()} | {f"omop {who}": omop.policy(who) for who in omop.ALL}
    policies |= {f"genomics {who}": genomics.policy(who) for who in genomics.ALL}
    told = analyzed({who: {"Version": "2012-10-17", "Statement": one.statements} for who, one in policies.items()})
    assert set(told.pop("unknown")) == NEWER
    assert set(told) == set(policies)
    found = {(who, issue): detail for who, findings in told.items() for issue, detail in findings}
    assert {key: detail for key, detail in found.items() if key not in PARLIAMENT} == {}
    assert set(PARLIAMENT) - set(found) == set(), "a reason for what is not found any more"


def test_parliament_would_find_a_policy_that_allows_all():
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    assert "PRIVILEGE_ESCALATION" in [issue for issue, _ in analyzed({"wide": wide})["wide"]]


def test_parliament_finds_nothing_in_the_policies_of_a_workspace():
    template = Template(WORKSPACE)
    policies = {name: one["PolicyDocument"] for name, one in template.of("IAM::ManagedPolicy").items()}
    told = analyzed(policies)
    assert {who: findings for who, findings in told.items() if findings} == {}


@pytest.mark.parametrize(
    ("path", "reasons", "passed"),
    [
        (PATH, CHECKOV, 50),
        (OMOP, CHECKOV_OMOP, 15),
        (GENOMICS, CHECKOV_GENOMICS, 14),
        (WORKSPACE, CHECKOV_WORKSPACE, 15),
        (CHALLENGE, CHECKOV_CHALLENGE, 50),
    ],
    ids=["batch", "omop", "genomics", "workspace", "challenge"],
)
def test_checkov_finds_what_is_known(path, reasons, passed):
    command = [
        PROGRAMS / "checkov",
        "--file",
        path,
        "--framework",
        "cloudformation",
        "--skip-download",
        "--output",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    assert told["summary"]["parsing_errors"] == 0
    assert told["summary"]["passed"] > passed
    found = {one["check_id"]: f"{one['check_name']}: {one['resource']}" for one in told["results"]["failed_checks"]}
    assert {check: said for check, said in found.items() if check not in reasons} == {}
    assert set(reasons) - set(found) == set(), "a reason for what is not found any more"
