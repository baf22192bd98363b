"""The stack's template: what the posts ask for, what AWS would refuse, and what nobody should be allowed."""

from __future__ import annotations

import ast
import base64
import email
import json
import os
import subprocess
import sys
import textwrap

import boto3
import pytest
from embedded import Box, served
from moto import mock_aws
from template import PATH, REGION, STACK, Template, cfn_lint

from genokit import Settings, backends
from genokit.local.batch import limits

template = Template()


def camel(one):
    """CloudFormation's names as Batch's own: ContainerProperties is containerProperties."""
    if isinstance(one, list):
        return [camel(part) for part in one]
    if not isinstance(one, dict):
        return one
    return {
        key[:1].lower() + key[1:]: part if key in ("Options", "Parameters", "Tags") else camel(part)
        for key, part in one.items()
    }


def definitions():
    return {one["JobDefinitionName"]: one for one in template.of("Batch::JobDefinition").values()}


def roles():
    return template.of("IAM::Role")


# --- what linters and AWS would say


def test_cfn_lint_finds_nothing_in_any_template_not_even_a_hint():
    assert cfn_lint(*sorted(PATH.parent.glob("*.yaml"))) == (0, "", "")


def test_a_deploy_needs_no_parameter():
    assert all("Default" in one for one in template.raw["Parameters"].values())
    assert all(one["Description"].endswith(".") for one in template.raw["Parameters"].values())


def test_it_is_short_enough_to_be_sent_as_it_is():
    assert len(PATH.read_bytes()) < 51_200


def test_every_output_that_the_kit_reads_is_there():
    assert set(template.outputs) == {
        "Bucket", "LogGroup", "Repository", "ImageBuild", "ImageCpu", "ImageGpu", "JobRole", "ExecutionRole",
        "SubmitFunction", "UserPolicy",
    }  # fmt: skip
    assert Template(ImageCpu="mine:1").outputs["ImageCpu"] == "mine:1"


@pytest.mark.parametrize("parameters", [{}, {"VpcId": "vpc-1", "SubnetIds": "subnet-1,subnet-2"}], ids=["own", "given"])
def test_a_network_is_made_only_where_none_is_given(parameters):
    chosen = Template(**parameters)
    made = {one["Type"] for one in chosen.resources.values() if one["Type"].startswith("AWS::EC2::")}
    for environment in chosen.of("Batch::ComputeEnvironment").values():
        subnets = environment["ComputeResources"]["Subnets"]
        assert subnets == (["subnet-1", "subnet-2"] if parameters else ["SubnetA", "SubnetB", "SubnetC"])
    assert made >= {"AWS::EC2::SecurityGroup", "AWS::EC2::LaunchTemplate"}
    assert ("AWS::EC2::VPC" in made) is not ("VpcId" in parameters)
    (group,) = chosen.of("EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group
    assert group["VpcId"] == (parameters.get("VpcId") or "Vpc")


def test_nothing_is_paid_by_the_hour_while_no_job_runs():
    kinds = {one["Type"] for one in template.resources.values()}
    assert not kinds & {"AWS::EC2::NatGateway", "AWS::EC2::VPCEndpoint", "AWS::EC2::EIP", "AWS::EC2::Instance"}
    assert {one["ComputeResources"]["MinvCpus"] for one in template.of("Batch::ComputeEnvironment").values()} == {0}


def test_stacks_of_one_account_are_told_apart_by_the_prefix():
    other = Template(QueuePrefix="lab2-")
    names = {one["JobQueueName"] for one in other.of("Batch::JobQueue").values()}
    names |= {one["JobDefinitionName"] for one in other.of("Batch::JobDefinition").values()}
    assert all(name.startswith("lab2-") for name in names)


# --- environments and queues


def test_environments_are_spot_on_demand_and_gpu_on_amazon_linux_2023():
    found = template.of("Batch::ComputeEnvironment")
    told = {
        name: (one["ComputeResources"]["Type"], one["ComputeResources"]["Ec2Configuration"][0]["ImageType"])
        for name, one in found.items()
    }
    assert told == {
        "Spot": ("SPOT", "ECS_AL2023"),
        "OnDemand": ("EC2", "ECS_AL2023"),
        "GpuOnDemand": ("EC2", "ECS_AL2023_NVIDIA"),
    }
    assert found["GpuOnDemand"]["ComputeResources"]["InstanceTypes"] == ["g4dn", "g5"]


def test_an_update_can_replace_an_environment_beside_the_old_one():
    """A name of its own would be taken; the strategies allow updates in place, and need no Spot fleet role."""
    for one in template.of("Batch::ComputeEnvironment").values():
        assert "ComputeEnvironmentName" not in one
        assert one["ReplaceComputeEnvironment"] is False
        assert one["ComputeResources"]["AllocationStrategy"] != "BEST_FIT"
        assert not {"ServiceRole", "Tags"} & set(one)
        assert "SpotIamFleetRole" not in one["ComputeResources"]
        assert one["ComputeResources"]["LaunchTemplate"]["Version"] == "LaunchTemplate.LatestVersionNumber"


def test_queues_have_the_priorities_of_the_posts():
    found = {
        one["JobQueueName"]: (one["Priority"], len(one["ComputeEnvironmentOrder"]))
        for one in template.of("Batch::JobQueue").values()
    }
    assert found == {"highPriority": (1000, 2), "lowPriority": (1, 1), "gpu": (1, 1)}
    assert max(priority for priority, _ in found.values()) <= limits.table()["bounds"]["priority"][1]
    shared = [
        {order["ComputeEnvironment"] for order in one["ComputeEnvironmentOrder"]}
        for one in template.of("Batch::JobQueue").values()
    ]
    assert shared[0] & shared[1], "a priority says something only where two queues share an environment"


# --- job definitions


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_mib"),
    [("isaac", "32", "80000"), ("strelka", "32", "32000"), ("snpeff", "4", "10000"), ("samtools_stats", "4", "10000")],
)
def test_the_tools_have_the_sizes_and_the_scratch_of_the_posts(name, vcpus, memory_mib):
    one = definitions()[name]
    container = one["ContainerProperties"]
    assert {part["Type"]: part["Value"] for part in container["ResourceRequirements"]} == {
        "VCPU": vcpus,
        "MEMORY": memory_mib,
    }
    assert container["Image"].endswith(f"/{STACK}:{name}")
    assert container["Volumes"] == [{"Name": "docker_scratch", "Host": {"SourcePath": "/docker_scratch"}}]
    assert container["MountPoints"] == [
        {"SourceVolume": "docker_scratch", "ContainerPath": "/scratch", "ReadOnly": False}
    ]
    assert one["RetryStrategy"] == {"Attempts": 3}


def test_every_definition_is_registered_by_the_embedded_batch(tmp_path):
    """Its requests are held against AWS's model and limits."""
    box = Box(Settings(home=tmp_path))
    for name, one in definitions().items():
        request = camel(one)
        request["propagateTags"] = one["PropagateTags"]
        answer = box.batch.register_job_definition(**request)
        assert answer["jobDefinitionArn"].endswith(f"job-definition/{name}:1")
    assert set(definitions()) >= {"genokit-cpu", "genokit-gpu"}


def test_a_definition_writes_to_the_stacks_log_and_runs_under_its_roles():
    for one in definitions().values():
        container = one["ContainerProperties"]
        assert container["LogConfiguration"]["Options"]["awslogs-group"] == template.outputs["LogGroup"]
        assert container["JobRoleArn"] == template.outputs["JobRole"]
        assert container["ExecutionRoleArn"] == template.outputs["ExecutionRole"]
        assert not {"Privileged", "User"} & set(container)


# --- what is kept, and who hears of it


def test_the_bucket_is_closed_versioned_and_answers_over_tls_only():
    (bucket,) = template.of("S3::Bucket").values()
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    rules = {rule["Id"]: rule for rule in bucket["LifecycleConfiguration"]["Rules"]}
    assert rules["old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rules["unfinished-uploads"]["AbortIncompleteMultipartUpload"]
    (policy,) = template.of("S3::BucketPolicy").values()
    statement = policy["PolicyDocument"]["Statement"][0]
    arn = "arn:aws:s3:::genokit-batch-bucket-x1"
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == [arn, f"{arn}/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_all_that_holds_data_says_that_it_goes_with_the_stack():
    for name, one in template.raw["Resources"].items():
        if one["Type"] in ("AWS::S3::Bucket", "AWS::ECR::Repository", "AWS::Logs::LogGroup"):
            assert (one["DeletionPolicy"], one["UpdateReplacePolicy"]) == ("Delete", "Delete"), name
    (repository,) = template.of("ECR::Repository").values()
    assert repository["EmptyOnDelete"] is True
    assert json.loads(repository["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]


# --- instances


def user_data():
    """The parts of the MIME message that an instance is given."""
    (launch,) = template.of("EC2::LaunchTemplate").values()
    message = email.message_from_bytes(base64.b64decode(launch["LaunchTemplateData"]["UserData"]))
    assert message.get_content_type() == "multipart/mixed"
    assert not message.defects
    return [(part.get_content_type(), part.get_payload(decode=True).decode("ascii")) for part in message.get_payload()]


def test_instances_have_encrypted_disks_and_give_their_keys_to_nobody_who_asks_once():
    (launch,) = template.of("EC2::LaunchTemplate").values()
    data = launch["LaunchTemplateData"]
    disks = {one["DeviceName"]: one["Ebs"] for one in data["BlockDeviceMappings"]}
    assert set(disks) == {"/dev/xvda", "/dev/xvdb"}
    assert all(disk["Encrypted"] and disk["DeleteOnTermination"] for disk in disks.values())
    assert disks["/dev/xvdb"]["VolumeSize"] == 200
    assert data["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }


def test_user_data_is_one_shell_script_that_bash_understands():
    ((kind, script),) = user_data()
    assert kind == "text/x-shellscript"
    assert script.startswith("#!/bin/bash\n")
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


EBS, INSTANCE = "Amazon Elastic Block Store", "Amazon EC2 NVMe Instance Storage"
ROOT = ("disk\npart\npart", "", EBS)


@pytest.mark.parametrize(
    ("disks", "links", "chosen"),
    [
        ({"xvda": ROOT, "xvdb": ("disk", "", "")}, {}, "xvdb"),
        ({"nvme0n1": ROOT, "nvme1n1": ("disk", "", EBS)}, {}, "nvme1n1"),
        ({"nvme0n1": ROOT, "nvme1n1": ("disk", "", EBS)}, {"xvdb": "nvme1n1"}, "nvme1n1"),
        ({"nvme0n1": ROOT, "nvme1n1": ("disk", "", INSTANCE), "nvme2n1": ("disk", "", EBS)}, {}, "nvme2n1"),
        ({"nvme0n1": ("disk", "", EBS), "nvme1n1": ROOT}, {}, "nvme0n1"),
        ({"nvme0n1": ROOT, "nvme1n1": ("disk", "/data", EBS)}, {}, None),
        ({"nvme0n1": ROOT, "nvme1n1": ("disk", "", EBS, "ext4")}, {}, None),
        ({"nvme0n1": ROOT}, {}, None),
    ],
    ids=["xen", "nitro", "nitro-linked", "own-nvme-first", "root-second", "mounted", "formatted", "none"],
)
def test_the_scratch_volume_is_found_whatever_it_is_called(tmp_path, disks, links, chosen):
    """The script runs with a /dev of files, and programs that write down how they were called."""
    dev, programs, scratch = tmp_path / "dev", tmp_path / "bin", tmp_path / "docker_scratch"
    dev.mkdir(), programs.mkdir()
    for disk, told in disks.items():
        for column, answer in zip(("TYPE", "MOUNTPOINT", "MODEL", "FORMAT"), told, strict=False):
            (dev / f"{disk}.{column}").write_text(f"{answer}\n")
        (dev / disk).touch()
    for link, disk in links.items():
        (dev / link).symlink_to(disk)
    fakes = {
        "lsblk": 'cat "$3.$2"',
        "blkid": 'cat "$2.FORMAT" 2>/dev/null || exit 2',
        "mkfs.ext4": f'echo "mkfs.ext4 $*" >>{tmp_path}/calls',
        "mount": f'echo "mount $*" >>{tmp_path}/calls',
        "sleep": ":",
    }
    for name, body in fakes.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    ((_, script),) = user_data()
    for path in ("/dev/xvd", "/dev/sd", "/dev/nvme", "/docker_scratch", "/etc/fstab"):
        script = script.replace(path, f"{tmp_path}{path}")
    assert script.count("$(seq 60)") == 1
    script = script.replace("$(seq 60)", "$(seq 3)")  # seconds in which nothing comes
    (tmp_path / "etc").mkdir()
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert oct(scratch.stat().st_mode)[-4:] == "1777"
    if chosen is None:
        assert "no scratch volume came" in done.stderr
        assert not (tmp_path / "calls").exists()
        return
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"mkfs.ext4 -q -m 0 -L docker_scratch {dev / chosen}",
        f"mount {dev / chosen} {scratch}",
    ]
    assert (tmp_path / "etc" / "fstab").read_text().startswith(f"LABEL=docker_scratch {scratch} ext4 ")


# --- the function batchSubmitJob

RUN = textwrap.dedent("""
    import json, sys
    sys.path.insert(0, sys.argv[1])
    import index
    def answer(event):
        try:
            return index.handler(event, None)
        except Exception as error:
            return {"error": type(error).__name__, "said": str(error), "cause": type(error.__cause__).__name__}
    print(json.dumps([answer(event) for event in json.load(sys.stdin)]))
""")


def submitted(tmp_path, door, *events):
    """What the function answers to each event, in a process as Lambda would start it, with boto3 led to the door."""
    (function,) = template.of("Lambda::Function").values()
    (tmp_path / "index.py").write_text(function["Code"]["ZipFile"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "AWS_ENDPOINT_URL": door.url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": door.key_pair.access_key,
        "AWS_SECRET_ACCESS_KEY": door.key_pair.secret_key,
    }
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    done = subprocess.run(
        command, input=json.dumps(events), capture_output=True, text=True, env=environment, check=True
    )
    return json.loads(done.stdout)


def test_the_functions_code_fits_inline_and_its_runtime_is_current():
    (function,) = template.of("Lambda::Function").values()
    assert len(function["Code"]["ZipFile"]) < 4096
    assert (function["Runtime"], function["Handler"]) == ("python3.13", "index.handler")
    assert function["FunctionName"] == f"{STACK}-batchSubmitJob"


def test_the_function_submits_and_returns_its_event_with_the_job_id(tmp_path):
    settings = Settings(home=tmp_path / "home")
    box = Box(settings)
    definition = box.define("echo", "Ref::word")
    with served(settings) as door:
        event = {"jobName": "plain", "jobQueue": "lowPriority", "jobDefinition": definition, "sampleId": "NA12878"}
        (plain,) = submitted(tmp_path, door, event)
        more = {
            "jobName": "more", "jobQueue": "highPriority", "jobDefinition": definition,
            "containerOverrides": {"command": ["echo", "over"]}, "parameters": {"word": "hello"},
            "dependsOn": [{"jobId": plain["jobId"]}],
        }  # fmt: skip
        (full,) = submitted(tmp_path, door, more)
    assert plain == {**event, "jobId": plain["jobId"]}
    assert full == {**more, "jobId": full["jobId"]}
    told = box.describe(full["jobId"])
    assert told["container"]["command"] == ["echo", "over"]
    assert (told["parameters"], told["dependsOn"]) == ({"word": "hello"}, [{"jobId": plain["jobId"]}])


def test_the_function_says_what_is_missing_and_keeps_the_cause_of_a_refusal(tmp_path):
    settings = Settings(home=tmp_path / "home")
    definition = Box(settings).define("true")
    with served(settings) as door:
        missing, refused = submitted(
            tmp_path,
            door,
            {"jobName": "one", "jobDefinition": ""},
            {"jobName": "one", "jobQueue": "nowhere", "jobDefinition": definition},
        )
    assert missing["error"] == "InvalidEvent"
    assert missing["said"].startswith("The event lacks jobQueue, jobDefinition: it needs jobName, jobQueue")
    assert (refused["error"], refused["cause"]) == ("NotSubmitted", "ClientException")
    assert refused["said"].startswith("Job 'one' was not submitted to queue 'nowhere': ")
    assert "JobQueue nowhere not found" in refused["said"]


# --- moto deploys it


@pytest.fixture
def moto_stack(monkeypatch):
    """moto's account with the stack. moto wants a service role, knows no bundle of instance types, splits no default
    list, and skips bucket and queue policies with a warning: the tests above look at those."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    body = PATH.read_text().replace(
        "      Type: MANAGED\n", "      Type: MANAGED\n      ServiceRole: !GetAtt JobRole.Arn\n"
    )
    given = {"InstanceTypes": "c5,m5", "GpuInstanceTypes": "g4dn,g5"}
    with mock_aws():
        yield (
            boto3.client("cloudformation", REGION),
            {
                "StackName": STACK,
                "TemplateBody": body,
                "Capabilities": ["CAPABILITY_NAMED_IAM"],
                "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
            },
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")
def test_moto_deploys_the_stack(moto_stack):
    cloudformation, asked = moto_stack
    cloudformation.create_stack(**asked)
    (stack,) = cloudformation.describe_stacks(StackName=STACK)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    assert set(template.outputs) - set(outputs) == {"ImageBuild"}  # moto makes no CodeBuild project in a stack

    # As another engine works the functions out, they say what this file's own does.
    iam = boto3.client("iam", REGION)
    for logical, role in roles().items():
        for policy in role.get("Policies", []):
            told = iam.get_role_policy(RoleName=role["RoleName"], PolicyName=policy["PolicyName"])["PolicyDocument"]
            wanted = json.dumps(policy["PolicyDocument"]).replace(template.outputs["Bucket"], outputs["Bucket"])
            if logical not in ("BuildRole", "ExecutionRole", "SubmitRole"):  # moto's ARN of a log group ends without :*
                assert ast.literal_eval(str(told)) == json.loads(wanted), logical
    assert outputs["JobRole"] == template.outputs["JobRole"]
    assert outputs["UserPolicy"] == template.outputs["UserPolicy"]

    clients = backends.Clients(Settings(backend="aws", region=REGION, stack=STACK))
    assert clients.outputs() == outputs
    queues = {one["jobQueueName"]: one["priority"] for one in clients.batch.describe_job_queues()["jobQueues"]}
    assert queues == {"highPriority": 1000, "lowPriority": 1, "gpu": 1}
    made = clients.batch.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    assert {one["jobDefinitionName"] for one in made} == set(definitions())
    assert clients.logs.describe_log_groups()["logGroups"][0]["retentionInDays"] == 90


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")
def test_moto_deploys_into_a_given_network_and_deletes_the_stack(moto_stack):
    """moto cannot delete a network whose subnets have routes of their own, so this stack has none."""
    cloudformation, asked = moto_stack
    ec2, iam = boto3.client("ec2", REGION), boto3.client("iam", REGION)
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"][:2]]
    given = {"VpcId": vpc["VpcId"], "SubnetIds": ",".join(subnets), "DataBuckets": "arn:aws:s3:::1000genomes"}
    asked["Parameters"] += [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    cloudformation.create_stack(**asked)
    (stack,) = cloudformation.describe_stacks(StackName=STACK)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert len(ec2.describe_vpcs()["Vpcs"]) == 1
    environments = boto3.client("batch", REGION).describe_compute_environments()["computeEnvironments"]
    assert [one["computeResources"]["subnets"] for one in environments] == [subnets] * 3
    told = iam.get_role_policy(RoleName=f"{STACK}-{REGION}-job", PolicyName="data")["PolicyDocument"]
    assert [one["Resource"] for one in told["Statement"]] == [
        ["arn:aws:s3:::1000genomes/*"],
        ["arn:aws:s3:::1000genomes"],
    ]

    cloudformation.delete_stack(StackName=STACK)
    assert cloudformation.describe_stacks(StackName=stack["StackId"])["Stacks"][0]["StackStatus"] == "DELETE_COMPLETE"
    left = {one["RoleName"] for one in iam.list_roles()["Roles"]}
    assert not left & {role["RoleName"] for role in roles().values()}
