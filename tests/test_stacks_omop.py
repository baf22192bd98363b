"""The stack of the OMOP ETL: what its template makes, what its roles may, and how it goes away again."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber
from recorded import Need, Policy, listed, misplaced
from template import ACCOUNT, OMOP, REGION, Template, schemas

from genokit import Settings, Stack, backends
from genokit.errors import ConfirmationNeeded, InvalidRequest
from genokit.omop import fields
from genokit.omop.etl import redshift
from genokit.stacks import removal

plain, whole = Template(OMOP), Template(OMOP, Redshift="true")
ROLES = ("EmrRole", "CopyRole", "LoadRole")
DEPLOYER = json.loads((OMOP.parent / "policies" / "omop-deployer.json").read_text())


def policy(who):
    if who == "deployer":
        return Policy(DEPLOYER)
    if who == "user":
        return Policy(whole.of("IAM::ManagedPolicy")["UserPolicy"]["PolicyDocument"])
    return Policy(*(one["PolicyDocument"] for one in whole.of("IAM::Role")[who]["Policies"]))


# --- what linters and AWS would say


def test_a_deploy_needs_no_parameter_and_the_template_can_be_sent_as_it_is():
    assert all("Default" in one for one in plain.raw["Parameters"].values())
    assert all(one["Description"].endswith(".") for one in plain.raw["Parameters"].values())
    assert len(OMOP.read_bytes()) < 51_200


def test_outputs_are_those_of_the_parts_that_are_wanted():
    first = {"Bucket", "Database", "WorkDatabase", "Workgroup", "UserPolicy"}
    spark, redshift = (
        {"EmrApplication", "EmrRole"},
        {"TableTopic", "RedshiftWorkgroup", "RedshiftDatabase", "LoadFailures"},
    )
    assert set(plain.outputs) == first | spark
    assert set(whole.outputs) == first | spark | redshift
    assert set(Template(OMOP, Emr="false").outputs) == first
    assert (plain.outputs["Database"], plain.outputs["WorkDatabase"]) == ("omop", "omop_work")


def test_nothing_is_paid_by_the_hour():
    kinds = {one["Type"] for one in whole.resources.values()}
    assert not {kind for kind in kinds if re.search("NatGateway|VPCEndpoint|EIP|Instance|Cluster|Secret|KMS", kind)}
    (application,) = whole.of("EMRServerless::Application").values()
    assert "InitialCapacity" not in application
    assert application["AutoStopConfiguration"]["Enabled"]
    assert application["MaximumCapacity"] == {"Cpu": "64 vCPU", "Memory": "256 GB"}


def test_a_query_of_athena_is_stopped_in_time_and_may_say_where_its_table_goes():
    (workgroup,) = Template(OMOP, AthenaMaxGb="3").of("Athena::WorkGroup").values()
    told = workgroup["WorkGroupConfiguration"]
    assert (told["BytesScannedCutoffPerQuery"], told["EnforceWorkGroupConfiguration"]) == ("3000000000", False)


def test_redshift_has_a_network_without_a_way_in_or_out():
    assert not [one for one in plain.resources.values() if re.search("EC2|Redshift|SNS|SQS|Lambda", one["Type"])]
    kinds = {one["Type"] for one in whole.resources.values() if one["Type"].startswith("AWS::EC2::")}
    assert kinds == {"AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::EC2::SecurityGroup"}
    (group,) = whole.of("EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group
    assert [rule["CidrIp"] for rule in group["SecurityGroupEgress"]] == ["127.0.0.1/32"]
    (workgroup,) = whole.of("RedshiftServerless::Workgroup").values()
    assert (workgroup["PubliclyAccessible"], len(workgroup["SubnetIds"])) == (False, 3)
    (namespace,) = whole.of("RedshiftServerless::Namespace").values()
    assert not {"AdminUsername", "AdminUserPassword", "ManageAdminPassword"} & set(namespace)


def test_a_bucket_that_is_given_is_used_and_none_is_made():
    given = Template(OMOP, BucketName="lab-results", Redshift="true")
    assert not given.of("S3::Bucket")
    assert given.outputs["Bucket"] == "lab-results"
    text = json.dumps(given.resources)
    assert "arn:aws:s3:::lab-results/*" in text
    assert "bucket-x1" not in text


# --- the function, and who hears of what went wrong


def test_the_function_knows_the_cdms_tables_and_fits_inline():
    (function,) = whole.of("Lambda::Function").values()
    assert tuple(function["Environment"]["Variables"]["TABLES"].split()) == fields.tables()
    assert len(function["Code"]["ZipFile"]) < 4096
    assert sum(len(key) + len(value) for key, value in function["Environment"]["Variables"].items()) < 4096
    assert (function["Runtime"], function["Handler"]) == ("python3.13", "index.handler")


def test_the_topic_alone_calls_the_function_and_failures_are_kept():
    (topic,) = whole.of("SNS::Topic").values()
    arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:{topic['TopicName']}"
    (permission,) = whole.of("Lambda::Permission").values()
    (subscription,) = whole.of("SNS::Subscription").values()
    assert permission["SourceArn"] == subscription["TopicArn"] == whole.outputs["TableTopic"] == arn
    assert subscription["Endpoint"].endswith(
        f":function:{whole.of('Lambda::Function')['LoadFunction']['FunctionName']}"
    )
    (retries,) = whole.of("Lambda::EventInvokeConfig").values()
    (rule,) = whole.of("Events::Rule").values()
    queue = retries["DestinationConfig"]["OnFailure"]["Destination"]
    assert queue == rule["Targets"][0]["Arn"]
    assert policy("LoadRole").allows(Need("sqs:SendMessage", queue))


def test_the_rule_takes_the_loads_that_failed_by_the_name_that_the_function_gives_them():
    (rule,) = whole.of("Events::Rule").values()
    detail = rule["EventPattern"]["detail"]
    (workgroup,) = whole.of("RedshiftServerless::Workgroup").values()
    assert detail["statementName"] == [{"prefix": f"{workgroup['WorkgroupName']} "}]
    assert detail["state"] == ["FAILED", "ABORTED"]
    (allowed, denied) = whole.of("SQS::QueuePolicy")["LoadFailuresPolicy"]["PolicyDocument"]["Statement"]
    assert allowed["Condition"]["ArnEquals"]["aws:SourceArn"].endswith(f":rule/{rule['Name']}")
    assert denied["Effect"] == "Deny"


# --- who may do what


ALL = ("user", "deployer", *ROLES)
FREE = {
    ("user", "Answers"): "a condition narrows it to one's own statements",
    ("deployer", "Look"): "descriptions, which cannot be narrowed",
    ("deployer", "SparkNew"): "a condition narrows it to what comes with the stack's tag",
    ("deployer", "Unsubscribe"): "AWS knows no narrower",
}


@pytest.mark.parametrize("who", ALL)
def test_every_action_is_one_that_aws_knows_can_be_done_to_its_resource_and_is_no_wildcard(who):
    assert misplaced(policy(who)) == []
    for one in policy(who).statements:
        assert one["Effect"] == "Allow"
        assert not any("*" in action for action in listed(one["Action"]))
        if "*" in listed(one["Resource"]):
            assert (who, one["Sid"]) in FREE


def test_policies_are_short_enough_and_no_role_has_a_managed_one():
    for document in (whole.of("IAM::ManagedPolicy")["UserPolicy"]["PolicyDocument"], DEPLOYER):
        assert len(re.sub(r"\s", "", json.dumps(document))) < 6144
        sids = [one["Sid"] for one in document["Statement"]]
        assert len(sids) == len(set(sids))
    assert not [one for one in whole.of("IAM::Role").values() if one.get("ManagedPolicyArns")]


def test_roles_are_lent_to_their_own_service_alone():
    trusted = {
        name: one["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"]
        for name, one in whole.of("IAM::Role").items()
    }
    assert trusted == {
        "EmrRole": "emr-serverless.amazonaws.com",
        "CopyRole": ["redshift.amazonaws.com", "redshift-serverless.amazonaws.com"],
        "LoadRole": "lambda.amazonaws.com",
    }


def test_the_deployer_touches_only_what_bears_the_kits_name_or_tag_or_omops():
    for one in DEPLOYER["Statement"]:
        for item in listed(one["Resource"]):
            narrowed = "Condition" in one or ("deployer", one["Sid"]) in FREE
            told = re.search(r"genokit-\*|omop\*|:catalog$", item)
            assert narrowed or told or one["Sid"] in ("RedshiftLook", "RedshiftPolicyLook"), (one["Sid"], item)


# What schemas of resources name and these resources do not come to need: by service, or by action.
NOT_OURS = {
    "kms": "AWS's own keys, not one of the account",
    "secretsmanager": "Redshift has no password",
    "sso": "nobody signs in to Spark through the Identity Center",
    "lakeformation": "databases of Glue's own permissions",
    "ecr": "Spark has EMR's own image",
    "ec2:CreateNetworkInterface": "Spark is in no network",
    "glue:CreateConnection glue:DeleteConnection glue:GetConnection glue:PassConnection glue:UpdateConnection": "no "
    "federated database",
    "redshift:DeleteResourcePolicy redshift:PutResourcePolicy": "nothing is shared with other accounts",
    "redshift-serverless:RestoreFromRecoveryPoint redshift-serverless:RestoreFromSnapshot "
    "redshift-serverless:CreateSnapshotCopyConfiguration redshift-serverless:DeleteSnapshotCopyConfiguration "
    "redshift-serverless:UpdateSnapshotCopyConfiguration": "tables come from the bucket, not from snapshots",
    "sns:PutDataProtectionPolicy": "messages hold no data",
}


def test_with_the_first_two_policies_the_deployer_may_what_cloudformations_handlers_do():
    before = [
        json.loads((OMOP.parent / "policies" / f"{name}.json").read_text()) for name in ("deployer", "deployer-network")
    ]
    own, granted = (
        {action.lower() for document in documents for one in document["Statement"] for action in listed(one["Action"])}
        for documents in ([DEPLOYER], [DEPLOYER, *before])
    )
    asked = set()
    new = {one["Type"] for one in whole.resources.values()} - {one["Type"] for one in Template().resources.values()}
    assert len(new) == 12
    for schema in schemas():
        if schema.get("typeName") in new:
            told = [schema.get("handlers", {}).get(name, {}) for name in ("create", "read", "update", "delete")]
            asked |= {action.lower() for one in told for action in one.get("permissions", [])}
    not_ours = {word.lower() for words in NOT_OURS for word in words.split()}
    left = {action for action in asked - granted if not {action, action.partition(":")[0]} & not_ours}
    assert not left, "asked for by CloudFormation, not granted"
    of_teardown = {"emr-serverless:listjobruns", "emr-serverless:canceljobrun", "emr-serverless:stopapplication"}
    assert not own - asked - of_teardown, "granted, and nothing asks for it"


BUCKET = "arn:aws:s3:::genokit-batch-bucket-x1"


def test_what_each_needs_is_allowed_and_its_neighbours_things_are_not():
    workgroup = f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:workgroup/RedshiftWorkgroup-x1"
    spark = f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/Applicationx1"
    passed = {"iam:PassedToService": "emr-serverless.amazonaws.com"}
    allowed = {
        "user": [
            Need("athena:StartQueryExecution", f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup/genokit-batch"),
            Need("glue:CreateTable", f"arn:aws:glue:{REGION}:{ACCOUNT}:table/omop_work/x"),
            Need("emr-serverless:StartJobRun", spark),
            Need("emr-serverless:ListJobRuns", spark),
            Need("emr-serverless:CancelJobRun", f"{spark}/jobruns/1"),
            Need("iam:PassRole", whole.outputs["EmrRole"], passed),
            Need("sns:Publish", whole.outputs["TableTopic"]),
            Need("redshift-data:ExecuteStatement", workgroup),
            Need("s3:PutObject", f"{BUCKET}/made/x"),
        ],
        "LoadRole": [
            Need("redshift-data:BatchExecuteStatement", workgroup),
            Need("redshift-serverless:GetCredentials", workgroup),
            Need("s3:ListBucket", BUCKET),
            Need("s3:PutObject", f"{BUCKET}/redshift/person.manifest"),
        ],
        "CopyRole": [Need("s3:GetObject", f"{BUCKET}/made/x"), Need("s3:ListBucket", BUCKET)],
        "EmrRole": [Need("s3:PutObject", f"{BUCKET}/made/x"), Need("s3:DeleteObject", f"{BUCKET}/made/_temporary")],
    }
    refused = {
        "user": [
            Need("athena:StartQueryExecution", f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup/primary"),
            Need("glue:DeleteTable", f"arn:aws:glue:{REGION}:{ACCOUNT}:table/other/x"),
            Need("iam:PassRole", whole.outputs["EmrRole"], {"iam:PassedToService": "lambda.amazonaws.com"}),
            Need("redshift-data:BatchExecuteStatement", workgroup),
            Need("redshift-data:GetStatementResult", "*"),
        ],
        "LoadRole": [
            Need("s3:GetObject", f"{BUCKET}/made/x"),
            Need("s3:PutObject", f"{BUCKET}/made/x"),
            Need("redshift-data:ExecuteStatement", workgroup),
        ],
        "CopyRole": [Need("s3:PutObject", f"{BUCKET}/x"), Need("s3:GetObject", "arn:aws:s3:::another/x")],
        "EmrRole": [Need("s3:GetObject", "arn:aws:s3:::another/x"), Need("sns:Publish", whole.outputs["TableTopic"])],
    }
    for who in allowed:
        assert [need for need in allowed[who] if not policy(who).allows(need)] == [], who
        assert [need for need in refused[who] if policy(who).allows(need)] == [], who


# Where the kit asks a service, and what is asked of it by others or granted with a reason.
ASKS = {
    "athena": ("engines/athena.py",),
    "glue": ("engines/glue.py",),
    "emr-serverless": ("engines/emr_serverless.py",),
    "sns": ("redshift.py",),
    "redshift-data": ("redshift.py",),
}
NOT_IN_THE_CODE = {
    "athena": "StartQueryExecution GetQueryExecution GetQueryResults",  # by pyathena
    "glue": "GetTable GetPartitions DeleteTable",  # by Athena itself, as who asks it: SELECT, DROP TABLE
    "redshift-data": "CancelStatement",  # who asked for something too large
    "emr-serverless": "GetApplication StartApplication TagResource",  # with a job: the application is asked and started
}
NOT_GRANTED = {"glue:CreateDatabase"}  # the stack brings both databases


@pytest.mark.parametrize("service", ASKS)
def test_a_scientist_is_granted_what_the_kit_asks_of_a_service_and_no_more(service):
    """Every operation of the service that the code names, as a method or as a word."""
    model = boto3.client(service, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x").meta
    operations = dict(model.method_to_api_mapping)
    named = set()
    for file in ASKS[service]:
        for node in ast.walk(ast.parse((Path(redshift.__file__).parent / file).read_text())):
            words = {
                getattr(node, "attr", None),
                getattr(node, "value", None) if isinstance(node, ast.Constant) else None,
            }
            named |= {f"{service}:{operations[word]}" for word in words if isinstance(word, str) and word in operations}
    assert named
    granted = {action for one in policy("user").statements for action in listed(one["Action"])}
    granted = {action for action in granted if action.startswith(f"{service}:")}
    others = {f"{service}:{name}" for name in NOT_IN_THE_CODE.get(service, "").split()}
    assert granted == (named | others) - NOT_GRANTED


# --- its life


def test_the_embedded_account_takes_the_stack_and_gives_it_back(tmp_path):
    clients = backends.clients(Settings(home=tmp_path))
    stack = Stack("omop", clients=clients)
    stack.deploy()
    assert "TableTopic" not in clients.outputs("genokit-omop")
    stack.deploy(redshift=True)
    found = clients.outputs("genokit-omop")
    assert set(found) == set(whole.outputs)
    assert {key: found[key] for key in ("Database", "Workgroup", "RedshiftWorkgroup", "RedshiftDatabase")} == {
        "Database": "omop",
        "Workgroup": "genokit-omop",
        "RedshiftWorkgroup": "genokit-omop",
        "RedshiftDatabase": "omop",
    }
    clients.s3.put_object(Bucket=found["Bucket"], Key="cdm/person/part-0.parquet", Body=b"PAR1")
    with pytest.raises(ConfirmationNeeded, match="would lose what holds data or jobs") as refused:
        stack.deploy(redshift=False)
    assert any("Namespace" in loss and "tables" in loss for loss in refused.value.losses)
    with pytest.raises(ConfirmationNeeded) as refused:
        stack.teardown()
    assert "Bucket (AWS::S3::Bucket): remove, with files" in refused.value.losses
    assert "Namespace (AWS::RedshiftServerless::Namespace): remove, with tables" in refused.value.losses
    stack.teardown(confirm="genokit-omop")
    assert stack.status == "NOT_DEPLOYED"
    assert clients.outputs("genokit-omop") == {}


def test_its_name_is_one_that_policies_know(tmp_path):
    stack = Stack("omop", stack_name="My-OMOP", clients=backends.clients(Settings(home=tmp_path)))
    with pytest.raises(InvalidRequest, match="cannot be the name of this stack"):
        stack.deploy()


def test_spark_is_stopped_before_its_application_is_deleted(capsys):
    emr = boto3.client("emr-serverless", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    own, when = {"applicationId": "00f1"}, 1_700_000_000
    application = {
        **own, "arn": f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/00f1", "releaseLabel": "emr-7.12.0",
        "type": "Spark", "createdAt": when, "updatedAt": when,
    }  # fmt: skip
    me, role = (f"arn:aws:iam::{ACCOUNT}:{one}" for one in ("user/me", "role/genokit-omop-emr"))
    run = {
        **own, "id": "j1", "arn": f"{application['arn']}/jobruns/j1", "createdBy": me, "createdAt": when,
        "updatedAt": when, "executionRole": role, "state": "RUNNING", "stateDetails": "it runs",
        "releaseLabel": "emr-7.12.0",
    }  # fmt: skip
    asked = {**own, "states": list(removal.SPARK_LIVE)}
    with Stubber(emr) as stubber:
        for runs, more in (
            ([run], [("cancel_job_run", {**own, "jobRunId": "j1"}, {**own, "jobRunId": "j1"})]),
            ([{**run, "state": "CANCELLING"}], []),
            ([], [("stop_application", {}, own)]),
        ):
            stubber.add_response("get_application", {"application": {**application, "state": "STARTED"}}, own)
            stubber.add_response("list_job_runs", {"jobRuns": runs}, asked)
            for operation, answer, given in more:
                stubber.add_response(operation, answer, given)
        stubber.add_response("get_application", {"application": {**application, "state": "STOPPED"}}, own)
        clients = backends.Clients(Settings(backend="aws", region=REGION), **{"emr-serverless": emr})
        clients.backend = replace(clients.backend, poll_s=0.0)
        made = [{"ResourceType": "AWS::EMRServerless::Application", "PhysicalResourceId": "00f1"}]
        removal.empty(clients, made)
        stubber.assert_no_pending_responses()
    assert capsys.readouterr().out == "Cancelling Spark job j1\n"
