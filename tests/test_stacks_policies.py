"""Least privilege: all that the kit asks of AWS is allowed, and what nobody asks for is granted with a reason alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from embedded import Box, served, through
from moto import mock_aws
from recorded import (
    NEWER,
    Call,
    Listening,
    Need,
    Policy,
    form,
    known,
    listed,
    listen,
    meant,
    misplaced,
    moved,
    needs,
    resource_types,
)
from template import ACCOUNT, CHALLENGE, GENOMICS, OMOP, PATH, REGION, STACK, Template, schemas
from test_stacks_challenge import GIVEN as CHALLENGED
from test_stacks_image import Aws, by_codebuild, own_tag, small_checkout, stand_in
from test_stacks_template import submitted

from genokit import Settings, backends
from genokit.batch import Batch
from genokit.batch.cost import costs, estimate
from genokit.batch.diagnose import explain
from genokit.batch.logs import LogStream
from genokit.batch.monitor import watch
from genokit.batch.shipping import archive, bootstrap, rows
from genokit.stacks import Image, Stack
from genokit.stacks.image import pack

template = Template(DataBuckets="arn:aws:s3:::1000genomes")
DEPLOYER = [json.loads(file.read_text()) for file in sorted((PATH.parent / "policies").glob("deployer*.json"))]
OMOP_DEPLOYER = json.loads((PATH.parent / "policies" / "omop-deployer.json").read_text())
BOUNDARY = json.loads((PATH.parent / "policies" / "boundary.json").read_text())


def role(name):
    """The policies of a role of the template."""
    own = [one["PolicyDocument"] for one in template.of("IAM::Role")[name].get("Policies", [])]
    more = [one["PolicyDocument"] for one in template.of("IAM::Policy").values() if name == "JobRole"]
    return Policy(*own, *more)


def user():
    return Policy(template.of("IAM::ManagedPolicy")["UserPolicy"]["PolicyDocument"])


ALL = {
    "user": user,
    "deployer": lambda: Policy(*DEPLOYER),
    "boundary": lambda: Policy(BOUNDARY),
    **{name: lambda name=name: role(name) for name in ("JobRole", "ExecutionRole", "BuildRole", "SubmitRole")},
}

# --- driven: a stack comes, a notebook works with it, and it goes


class Driven:
    """The calls of each part, in the template's names."""

    def __init__(self, home: Path) -> None:
        self.home, self.calls = home, {}
        self.embedded = backends.clients(Settings(home=home))

    def clients(self, calls: list[Call]) -> Listening:
        return Listening(
            Settings(backend="aws", region=REGION, home=self.home, project="exome"), embedded=self.embedded, calls=calls
        )

    def drive(self, who: str, work: Callable[[Listening], None]) -> None:
        calls: list[Call] = []
        clients = self.clients(calls)
        work(clients)
        names = {value: template.outputs[key] for key, value in self.embedded.outputs().items()}
        self.names = {**getattr(self, "names", {}), **names}
        names = {**self.names, f"{STACK}-local-": f"{STACK}-{REGION}-", "000000000000": ACCOUNT}
        self.calls[who] = self.calls.get(who, []) + moved(calls, names)

    def needs(self, who: str) -> list[Need]:
        found = [need for call in self.calls[who] for need in needs(call)]
        assert found
        return found


@pytest.fixture(scope="module")
def driven(tmp_path_factory) -> Iterator[Driven]:
    driven = Driven(tmp_path_factory.mktemp("account"))
    driven.drive("deployer", lambda clients: Stack("batch", clients=clients).deploy(attempts=2))
    driven.drive("user", notebook)
    driven.drive("user", lambda clients: files(clients, tmp_path_factory.mktemp("code")))
    driven.drive("user", waits)
    driven.drive("SubmitRole", lambda clients: function(clients, tmp_path_factory.mktemp("function")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("working-folder"))
        driven.drive("JobRole", lambda clients: job(clients, tmp_path_factory.mktemp("code")))
    driven.drive("deployer", lambda clients: publish(clients, tmp_path_factory.mktemp("image")))
    driven.drive("deployer", remove)
    yield driven
    backends.account(driven.embedded.settings).stop()


def notebook(clients: Listening) -> None:
    """Define, submit, follow, find again, stop, estimate, sum up, watch."""
    batch = Batch(clients)
    words = batch.define("words", command=["echo", "Ref::word"], parameters={"word": "hello"}, memory_gib=0.1)
    batch.define("words", command=["echo", "Ref::word"], parameters={"word": "hello"}, memory_gib=0.1)
    batch.preflight(words)
    first = batch.submit(words, name="first")
    second = batch.submit(words, queue="lowPriority", size=2, after=first)
    batch.submit(words, queue="gpu", check=False).cancel()
    assert batch.submit(words, name="first").id == first.id
    first.tail()
    second.wait()
    seen = watch.Watch(clients)
    seen.chosen = second.id
    assert not seen.look().problem
    batch.submit("isaac", check=False).terminate()
    assert first.log().strip() == "hello"
    own = batch.define("own-image", command=["true"], image=clients.output("Repository") + ":mine", memory_gib=0.1)
    batch.preflight(own)
    batch.jobs(), batch.queues(), batch.environments(), batch.job(first.id)
    LogStream(clients, "own-image/default/1").read()
    estimate.estimate(clients, words, minutes=1)
    costs.costs(clients)


def files(clients: Listening, folder: Path) -> None:
    """Code and rows go along with an array."""
    (folder / "say.py").write_text("import sys; print(sys.argv[1])")
    batch = Batch(clients)
    say = batch.define("say", command=["python", "say.py", "Ref::word"], memory_gib=0.1)
    batch.submit(say, each=[{"word": "a"}, {"word": "b"}], code=folder, check=False).terminate()


def healthy(parsed, **_) -> None:
    """Batch without what the embedded one says of this machine."""
    for one in parsed["computeEnvironments"]:
        one["statusReason"] = "ComputeEnvironment Healthy"


def waits(clients: Listening) -> None:
    """Why is it RUNNABLE, after two hours, where environments are described as AWS does?"""
    clients.batch.meta.events.register("after-call.batch.DescribeComputeEnvironments", healthy)
    now = datetime.now(UTC)
    sizes = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "100"}]
    detail = {
        "jobId": "j1",
        "jobName": "late",
        "jobQueue": "highPriority",
        "jobDefinition": "words:1",
        "status": "RUNNABLE",
        "createdAt": round((now - timedelta(hours=2)).timestamp() * 1000),
        "container": {"image": "genokit", "resourceRequirements": sizes},
    }
    explain.explain(clients, detail, now=now)


def function(clients: Listening, folder: Path) -> None:
    """batchSubmitJob, through the door."""
    settings = clients.embedded.settings
    definition = Box(settings).define("true")
    with served(settings) as door:
        batch = door.services["batch"]

        def heard(model, request):
            clients.calls.append(Call("batch", model.name, request))
            return batch(model, request)

        door.services["batch"] = heard
        events = [
            {"jobName": "one", "jobQueue": queue, "jobDefinition": definition}
            for queue in ("highPriority", "lowPriority", "gpu")
        ]
        assert all("jobId" in answer for answer in submitted(folder, door, *events))


def job(clients: Listening, folder: Path) -> None:
    """What a job does before its own program starts: it fetches its code and its row."""
    (folder / "say.py").write_text("")
    code = archive.ship(clients.embedded, folder)
    given = rows.store(clients.embedded, [{"word": "a"}])
    assert clients.bucket
    bootstrap.unpack(clients, code)
    rows.load(clients, given)


def publish(clients: Listening, folder: Path) -> None:
    """An image by docker, and one by CodeBuild: moto answers for ECR, Stubber for CodeBuild and its log."""
    checkout = small_checkout(folder / "checkout")
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        for service in ("ecr", "codebuild", "logs"):
            clients.services[service] = listen(service, boto3.client(service, REGION), clients.calls)
        aws = Aws(clients, stand_in(folder, patch))
        Image("cpu", clients=clients, folder=checkout).publish()
        patch.setenv("PATH", str(folder))
        by_codebuild(aws, pack(checkout), own_tag(checkout, "gpu"), name="gpu")
        Image("gpu", clients=clients, folder=checkout).publish()


def remove(clients: Listening) -> None:
    """A change looked at, an update, and the end, with a job that still waits and files in two versions."""
    stack = Stack("batch", clients=clients)
    stack.diff(spot_max_vcpus=8)
    stack.update(spot_max_vcpus=8)
    box = Box(clients.embedded.settings)
    stuck = box.submit(box.define("sleep", "600"), queue="lowPriority")
    box.wait(stuck, "RUNNING", "STARTING", "RUNNABLE")
    bucket = clients.embedded.outputs()["Bucket"]
    for _ in range(2):
        clients.embedded.s3.put_object(Bucket=bucket, Key="a/b", Body=b"1")
    with pytest.raises(Exception, match="would lose"):
        stack.teardown()
    stack.teardown(confirm=STACK)


# --- every call is allowed, every grant is used

# Granted and not called by the kit's own code: why it is granted all the same.
REASONS = {
    "user": {
        "s3:DeleteObject": "who made a result may take it away; the bucket keeps its versions for a while",
        "s3:AbortMultipartUpload": "boto3 ends a large upload that broke off, so that its parts are not paid for",
    },
    "JobRole": {
        "s3:PutObject": "a job leaves its results in the bucket: train its checkpoints, a tool what it made",
        "s3:AbortMultipartUpload": "boto3 ends a large upload that broke off, so that its parts are not paid for",
        ("DataObjects", "s3:GetObject"): "the tools read references and reads from the buckets that DataBuckets names",
        ("DataObjects", "arn:aws:s3:::1000genomes/*"): "the same",
        ("DataBuckets", "s3:ListBucket"): "the same: without it a missing object is told as 403",
        ("DataBuckets", "arn:aws:s3:::1000genomes"): "the same",
    },
    "ExecutionRole": {
        None: "ECS acts under this role before a job's first line, with the actions that its documentation names: "
        "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html",
    },
    "BuildRole": {
        None: "the commands of the project's buildspec run under this role, with the actions that pushing wants: "
        "https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html",
    },
    "SubmitRole": {
        "logs:CreateLogStream": "Lambda writes the function's log under this role",
        "logs:PutLogEvents": "Lambda writes the function's log under this role",
        ("Logs", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{STACK}-batchSubmitJob:*"): "the same",
    },
}


@pytest.mark.parametrize("who", ["user", "deployer", "SubmitRole", "JobRole"])
def test_every_call_is_allowed(driven, who):
    policy = ALL[who]()
    denied = {(need.action, need.resource) for need in driven.needs(who) if not policy.allows(need)}
    assert not denied, f"{who} may not"


@pytest.mark.parametrize("who", ["user", "SubmitRole", "JobRole", "ExecutionRole", "BuildRole"])
def test_nothing_is_granted_that_is_not_used_or_has_no_reason(driven, who):
    policy, reasons = ALL[who](), REASONS.get(who, {})
    for need in driven.needs(who) if who in driven.calls else []:
        policy.allows(need)
    unused = [grant for grant in policy.granted() if grant not in policy.used]
    without = [(sid, item) for sid, item in unused if not {None, item, (sid, item)} & set(reasons)]
    assert not without, f"{who} is granted what nothing asked for"
    needless = [key for key in reasons if key and not any(key in (item, (sid, item)) for sid, item in unused)]
    assert not needless, "a reason is given for what is used, or not granted"


def test_the_calls_are_placed_where_awss_table_of_actions_says(driven):
    """A call that the table wants a resource for, and that was judged without one, would prove nothing."""
    for who in driven.calls:
        found = driven.needs(who)
        for need in found:
            assert known(need.action), need
            forms = resource_types(need.action) if need.action not in NEWER else {}
            asked = {one.resource for one in found if one.action == need.action}
            for kind, (required, arn) in forms.items():
                if required and kind != "job-definition-revision":
                    assert any(form(arn).fullmatch(one) for one in asked), f"{need.action} wants a {kind}: {asked}"
            assert need.resource != "*" or not any(required for required, _ in forms.values()), need


def test_another_account_bucket_queue_or_role_is_denied():
    policy, one = user(), f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/one"
    assert policy.allows(Need("batch:RegisterJobDefinition", one))
    elsewhere = [
        Need("s3:GetObject", "arn:aws:s3:::another-bucket/key"),
        Need("batch:SubmitJob", f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/another"),
        Need("batch:SubmitJob", f"arn:aws:batch:{REGION}:999999999999:job-definition/one"),
        Need("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/Admin", {"iam:PassedToService": "ecs-tasks.amazonaws.com"}),
        Need("iam:PassRole", template.outputs["JobRole"], {"iam:PassedToService": "lambda.amazonaws.com"}),
        Need("batch:RegisterJobDefinition", one, {"batch:Privileged": "true"}),
        Need("logs:GetLogEvents", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/x:log-stream:y"),
        Need("batch:DeleteJobQueue", f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/highPriority"),
    ]  # fmt: skip
    assert [need for need in elsewhere if policy.allows(need)] == []


# --- nobody grows beyond what he was given

CLOUDFORMATION = {"aws:CalledVia": "cloudformation.amazonaws.com"}
ROLE = f"arn:aws:iam::{ACCOUNT}:role/{STACK}-{REGION}-job"
BOUND = {"iam:PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/genokit-boundary"}


def test_a_role_that_the_deployer_makes_has_the_boundary_or_is_not_made():
    deployer = Policy(*DEPLOYER)
    for action in ("iam:CreateRole", "iam:PutRolePolicy", "iam:PutRolePermissionsBoundary"):
        assert deployer.allows(Need(action, ROLE, BOUND))
        assert not deployer.allows(Need(action, ROLE))
        other = {"iam:PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/AdministratorAccess"}
        assert not deployer.allows(Need(action, ROLE, other))
        assert not deployer.allows(Need(action, f"arn:aws:iam::{ACCOUNT}:role/genokit-administrator", BOUND))
    assert not deployer.allows(Need("iam:DeleteRolePermissionsBoundary", ROLE))


def test_the_deployer_cannot_rewrite_a_policy_that_somebody_holds():
    deployer = Policy(*DEPLOYER, OMOP_DEPLOYER)
    for name in ("deployer", "genokit-deployer", "genokit-boundary", f"{STACK}-{REGION}-user"):
        for action in ("CreatePolicyVersion", "SetDefaultPolicyVersion"):
            assert not deployer.allows(Need(f"iam:{action}", f"arn:aws:iam::{ACCOUNT}:policy/{name}"))
    for action in ("AttachUserPolicy", "AttachGroupPolicy", "PutUserPolicy", "PutGroupPolicy", "CreateAccessKey"):
        assert not any(f"iam:{action}" in listed(one["Action"]) for one in deployer.statements)
    assert not deployer.allows(Need("iam:CreatePolicy", f"arn:aws:iam::{ACCOUNT}:policy/genokit-boundary"))
    assert not deployer.allows(Need("iam:DeletePolicy", f"arn:aws:iam::{ACCOUNT}:policy/genokit-deployer"))


@pytest.mark.parametrize("path", [PATH, OMOP, GENOMICS], ids=["batch", "omop", "genomics"])
def test_every_role_of_a_stack_has_the_boundary_and_only_ends_that_the_deployer_may_make(path):
    deployer = Policy(*DEPLOYER)
    whole = Template(path, **({"Redshift": "true"} if path is OMOP else {}))
    roles = whole.of("IAM::Role")
    assert roles
    for name, role in roles.items():
        assert role["PermissionsBoundary"] == BOUND["iam:PermissionsBoundary"], name
        assert deployer.allows(Need("iam:CreateRole", f"arn:aws:iam::{ACCOUNT}:role/{role['RoleName']}", BOUND)), name
    without = Template(path, Boundary="")
    assert not [name for name, role in without.of("IAM::Role").items() if "PermissionsBoundary" in role]


def test_the_boundary_allows_what_the_stacks_roles_do_and_no_more():
    boundary = Policy(BOUNDARY)
    lab = {**CHALLENGED, "WorkspaceBucket": "genokit-workspace-bucket-x1"}
    whole = [Template(), Template(OMOP, Redshift="true"), Template(GENOMICS), Template(CHALLENGE, **lab)]
    asked = {
        (action, item)
        for one in whole
        for role in one.of("IAM::Role").values()
        for policy in role.get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
        for action in listed(statement["Action"])
        for item in listed(statement["Resource"])
        if meant(action, item)
    }
    by_s3 = {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
    denied = {pair for pair in asked if not boundary.allows(Need(*pair, by_s3))}
    assert not boundary.allows(Need("kms:Decrypt", CHALLENGED["WorkspaceKey"]))
    assert not denied
    agent = {action for one in BOUNDARY["Statement"] for action in listed(one["Action"])} - {one for one, _ in asked}
    assert {action.partition(":")[0] for action in agent} == {"ec2", "ecs"}  # of the instances' own policy
    for action in ("iam:PassRole", "iam:CreateUser", "sts:AssumeRole", "ec2:RunInstances", "lambda:InvokeFunction"):
        assert not boundary.allows(Need(action, "*"))
    assert not boundary.allows(Need("s3:GetObject", "arn:aws:s3:::another-bucket/key"))


def test_the_deployer_touches_no_queue_environment_or_definition_of_others():
    deployer, others = Policy(*DEPLOYER), {"aws:ResourceTag/genokit:stack": "payroll"}
    verbs = {
        "job-queue": ("DeleteJobQueue", "UpdateJobQueue", "UntagResource"),
        "compute-environment": ("DeleteComputeEnvironment", "UpdateComputeEnvironment"),
        "job-definition": ("DeregisterJobDefinition",),
    }
    for action, kind in ((action, kind) for kind, actions in verbs.items() for action in actions):
        one = f"arn:aws:batch:{REGION}:{ACCOUNT}:{kind}/one"
        assert deployer.allows(Need(f"batch:{action}", one, {"aws:ResourceTag/genokit:stack": STACK}))
        assert not deployer.allows(Need(f"batch:{action}", one))
        assert not deployer.allows(Need(f"batch:{action}", one, others))
        # Nor are they made the stack's by a tag: only CloudFormation tags, and only what it makes.
        tag = {"aws:RequestTag/genokit:stack": STACK}
        assert deployer.allows(Need("batch:TagResource", one, tag | CLOUDFORMATION))
        assert not deployer.allows(Need("batch:TagResource", one, tag))
        assert not deployer.allows(Need("batch:TagResource", one, CLOUDFORMATION))


def test_the_omop_deployer_ends_subscriptions_through_cloudformation_alone():
    deployer, topic = Policy(OMOP_DEPLOYER), f"arn:aws:sns:{REGION}:{ACCOUNT}:payroll:1"
    assert deployer.allows(Need("sns:Unsubscribe", topic, CLOUDFORMATION))
    assert not deployer.allows(Need("sns:Unsubscribe", topic))
    workgroup = f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:workgroup/1"
    tag = {"aws:RequestTag/genokit:stack": STACK}
    assert deployer.allows(Need("redshift-serverless:TagResource", workgroup, tag | CLOUDFORMATION))
    assert not deployer.allows(Need("redshift-serverless:TagResource", workgroup, tag))


def test_with_a_prefix_people_submit_and_define_under_it_alone():
    (policy,) = Template(QueuePrefix="asthma-").of("IAM::ManagedPolicy").values()
    asthma, definition = Policy(policy["PolicyDocument"]), f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/"
    for action in ("SubmitJob", "RegisterJobDefinition", "TagResource"):
        assert asthma.allows(Need(f"batch:{action}", f"{definition}asthma-align:3"))
        assert not asthma.allows(Need(f"batch:{action}", f"{definition}cardio-align:3"))


def test_roles_of_jobs_are_lent_to_this_accounts_tasks_alone():
    for name in ("JobRole", "ExecutionRole"):
        (trust,) = template.of("IAM::Role")[name]["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}


def test_code_and_rows_are_written_once_by_whomever(driven):
    (written,) = template.of("S3::BucketPolicy").values()
    (deny,) = [one for one in written["PolicyDocument"]["Statement"] if one["Sid"] == "WriteOnce"]
    bucket = "arn:aws:s3:::genokit-batch-bucket-x1"
    for who in (user(), role("JobRole")):
        held = Policy({"Statement": [*who.statements, {**deny, "Sid": "WriteOnce"}]})
        new, over = {"s3:if-none-match": "*"}, {"s3:ObjectCreationOperation": "true"}
        for prefix in ("code", "rows"):
            assert held.allows(Need("s3:PutObject", f"{bucket}/{prefix}/1.json", new | over))
            assert not held.allows(Need("s3:PutObject", f"{bucket}/{prefix}/1.json", over))
        assert held.allows(Need("s3:PutObject", f"{bucket}/results/1.json", over))
    puts = [need for need in driven.needs("user") if need.action == "s3:PutObject"]
    assert {need.context["s3:if-none-match"] for need in puts if re.search("/(code|rows)/", need.resource)} == {"*"}


# --- what CloudFormation does for the deployer

HANDLERS = ("create", "read", "update", "delete")

# What the schemas of resources name, and this template's resources do not come to need: by service, or by action.
NOT_OURS = {
    "eks": "no environment on Kubernetes",
    "kms": "AWS's own keys, not one of the account",
    "s3tables": "no metadata tables",
    "elasticfilesystem": "no file system for the function",
    "s3files": "no file system for the function",
    "firehose": "no log delivery",
    "lambda:": "features that the function does not use: layers, concurrency, code signing, scaling, versions",
    "logs:": "features that the log groups do not use: data protection, delivery, index and resource policies, tokens",
    "s3:": "features that the bucket does not use: analytics, CORS, inventory, metrics, notification, replication ...",
    "iam:": "users and groups have no policies here; a boundary stays, and a policy that people hold is not rewritten",
    "ec2:": "no VPN, no IPv6 or IPAM, no encryption controls, no ingress, no VPC for the function",
    "ecr:": "no repository policy of its own; tags of images stay mutable",
}


def handlers(*names):
    """By type of the template's resources, the actions that AWS's published schemas say their handlers call."""
    kinds = {one["Type"] for one in template.resources.values()}
    found = {}
    for schema in schemas():
        if schema.get("typeName") in kinds:
            told = schema.get("handlers", {})
            actions = {action for name in names for action in told.get(name, {}).get("permissions", [])}
            found[schema["typeName"]] = {f"{one.partition(':')[0].lower()}:{one.partition(':')[2]}" for one in actions}
    assert set(found) == kinds
    return found


# Of the services above, what the template's properties do need.
MUST = {
    "s3": "CreateBucket DeleteBucket PutEncryptionConfiguration PutBucketPublicAccessBlock PutBucketOwnershipControls "
    "PutBucketVersioning PutLifecycleConfiguration PutBucketTagging GetBucketPolicy PutBucketPolicy DeleteBucketPolicy",
    "lambda": "CreateFunction GetFunction DeleteFunction UpdateFunctionCode UpdateFunctionConfiguration TagResource",
    "logs": "CreateLogGroup DeleteLogGroup DescribeLogGroups PutRetentionPolicy TagResource",
    "iam": "CreateRole DeleteRole GetRole PutRolePolicy DeleteRolePolicy AttachRolePolicy DetachRolePolicy PassRole "
    "CreateInstanceProfile DeleteInstanceProfile AddRoleToInstanceProfile RemoveRoleFromInstanceProfile CreatePolicy "
    "DeletePolicy ListPolicyVersions UpdateAssumeRolePolicy TagRole PutRolePermissionsBoundary "
    "CreateServiceLinkedRole",
    "ec2": "CreateVpc DeleteVpc CreateSubnet DeleteSubnet CreateRouteTable DeleteRouteTable CreateRoute DeleteRoute "
    "AssociateRouteTable DisassociateRouteTable CreateInternetGateway DeleteInternetGateway AttachInternetGateway "
    "DetachInternetGateway CreateSecurityGroup DeleteSecurityGroup AuthorizeSecurityGroupEgress "
    "RevokeSecurityGroupEgress CreateLaunchTemplate DeleteLaunchTemplate CreateLaunchTemplateVersion CreateTags "
    "ModifyVpcAttribute ModifySubnetAttribute DescribeLaunchTemplateVersions",
    "ecr": "CreateRepository DeleteRepository PutLifecyclePolicy DescribeRepositories TagResource",
}
# Granted to the deployer, asked for by neither the kit nor a schema.
DEPLOYERS_OWN = {
    "cloudformation:TagResource": "a change set comes with tags",
    "ec2:DescribeAvailabilityZones": "the template asks which zones there are (Fn::GetAZs)",
    **dict.fromkeys(
        (
            "ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload",
            "ecr:BatchCheckLayerAvailability",
        ),
        "who deploys builds the images and pushes them: docker push",
    ),
    **dict.fromkeys(
        ("codebuild:BatchGetProjects", "codebuild:CreateProject", "codebuild:DeleteProject", "codebuild:UpdateProject"),
        "CloudFormation makes, reads, changes and removes the project; its schema names no actions",
    ),
    "s3:DeleteObject": "a bucket is emptied of objects that were put before it had versions, too",
}  # fmt: skip


def deployer_actions():
    return {action for document in DEPLOYER for one in document["Statement"] for action in listed(one["Action"])}


def test_the_deployer_may_do_what_cloudformations_handlers_do():
    """Read all that they read, and change what the template's properties ask for."""
    granted = {action.lower() for action in deployer_actions()}
    unread = {action for actions in handlers("read").values() for action in actions if action.lower() not in granted}
    assert unread == {"kms:Decrypt"}
    denied = set()
    for actions in handlers(*HANDLERS).values():
        for action in actions:
            service = action.partition(":")[0]
            if action.lower() in granted:
                continue
            if not {service, f"{service}:"} & set(NOT_OURS):
                denied.add(action)
    assert not denied
    wanted = {f"{service}:{action}" for service, actions in MUST.items() for action in actions.split()}
    assert not wanted - deployer_actions()


def test_the_deployer_is_granted_what_the_kit_or_cloudformation_asks_for_and_no_more(driven):
    asked = {need.action for need in driven.needs("deployer")}
    asked |= {action for actions in handlers(*HANDLERS).values() for action in actions}
    assert not deployer_actions() - asked - set(DEPLOYERS_OWN), "granted to the deployer, and nothing asks for it"


def test_the_deployer_touches_only_what_bears_the_kits_name():
    """Wildcards are for account and region, so that one file serves any; names begin with genokit-. The exceptions:"""
    free = {
        "*": "descriptions and a login, which cannot be narrowed",
        "arn:aws:batch:*:*:job/*": "jobs have numbers for names",
        "arn:aws:iam::*:role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch": "Batch's own, by its name",
        "arn:aws:iam::*:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot": "an account's first Spot "
        "request wants it; who deploys makes it by hand where it is not there",
        "arn:aws:ec2:*:*:vpc/*": "a security group may be made in a given VPC",
    }
    for document in DEPLOYER:
        for one in document["Statement"]:
            for item in listed(one["Resource"]):
                by_tag = "genokit:stack" in json.dumps(one.get("Condition", {})) or one["Sid"] == "NetworkTagNew"
                by_tag |= one["Sid"] == "BatchCapacity"  # CloudFormation's alone, while it makes an environment
                assert item in free or "genokit-*" in item or by_tag, (one["Sid"], item)


# --- rules for every policy


@pytest.mark.parametrize("who", ALL)
def test_every_action_is_one_that_aws_knows_and_can_be_done_to_its_resource(who):
    assert misplaced(ALL[who]()) == []


@pytest.mark.parametrize("who", ALL)
def test_no_policy_allows_whole_services(who):
    for one in ALL[who]().statements:
        assert one["Effect"] == "Allow"
        assert not any("*" in action for action in listed(one["Action"]))
        assert not {"NotAction", "NotResource", "Principal"} & set(one)
        if "*" in listed(one["Resource"]):
            assert one["Sid"] in ("Look", "Login", "NetworkLook", "Instance", "Delivery"), one["Sid"]


def test_no_role_has_a_managed_policy_but_the_instances():
    found = {name: one.get("ManagedPolicyArns", []) for name, one in template.of("IAM::Role").items()}
    managed = {name: arns for name, arns in found.items() if arns}
    assert managed == {"InstanceRole": ["arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"]}
    assert not re.search(r"FullAccess|AdministratorAccess", PATH.read_text())


def test_sids_are_told_once_and_policies_are_short_enough_for_iam():
    """6,144 characters a managed policy, white space not counted."""
    documents = [*DEPLOYER, BOUNDARY, template.of("IAM::ManagedPolicy")["UserPolicy"]["PolicyDocument"]]
    for document in documents:
        assert len(re.sub(r"\s", "", json.dumps(document))) < 6144
        sids = [one["Sid"] for one in document["Statement"]]
        assert len(sids) == len(set(sids))


# --- the judge itself


def test_the_judge_knows_conditions_wildcards_and_denials():
    allow = {"Sid": "A", "Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::b/*"}
    deny = {"Sid": "B", "Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::b/secret/*"}
    only = allow | {"Condition": {"StringEquals": {"aws:tag": "x"}}}
    assert Policy({"Statement": [allow]}).allows(Need("s3:GetObject", "arn:aws:s3:::b/k"))
    assert not Policy({"Statement": [allow]}).allows(Need("s3:PutObject", "arn:aws:s3:::b/k"))
    assert not Policy({"Statement": [allow, deny]}).allows(Need("s3:GetObject", "arn:aws:s3:::b/secret/k"))
    assert not Policy({"Statement": [only]}).allows(Need("s3:GetObject", "arn:aws:s3:::b/k"))
    assert Policy({"Statement": [only]}).allows(Need("s3:GetObject", "arn:aws:s3:::b/k", {"aws:tag": "x"}))


def test_boto3_clients_and_embedded_ones_are_heard_alike(tmp_path):
    settings = Settings(home=tmp_path)
    through_events, in_front = [], []
    embedded = listen("batch", backends.clients(settings).batch, in_front)
    with served(settings) as door, through(door) as clients:
        for client in (embedded, listen("batch", clients.batch, through_events)):
            client.describe_jobs(jobs=["none"])
    assert through_events == in_front == [Call("batch", "DescribeJobs", {"jobs": ["none"]})]
