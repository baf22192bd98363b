"""Spark on EMR Serverless, as botocore's Stubber and the embedded S3 let it be seen: no job runs here."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
from botocore.stub import ANY, Stubber

from genokit.backends import Clients
from genokit.errors import ConfigError, TransformFailed
from genokit.omop.etl.engines import emr_serverless, spark_job
from genokit.omop.etl.engines.spark import Spark
from genokit.omop.etl.plan import TableStep
from genokit.omop.etl.result_store import MadeTable, ResultStore

PERSON = TableStep("cdm.person", "a" * 64, "SELECT 1 AS person_id FROM mimic3.patients", ("mimic3.patients",))
DEATH = TableStep("cdm.death", "b" * 64, "SELECT person_id FROM cdm.person", ("cdm.person", "mimic3.patients"))
INPUTS = {table: MadeTable(table, "c" * 64, f"s3://ours/omop/{table}-0", 1, 0.1)
          for table in ("mimic3.patients", "mimic3.labevents")}  # fmt: skip


# EMR Serverless: every request and answer is held against botocore's model by its Stubber.

ROLE = "arn:aws:iam::123456789012:role/genokit-omop-emr"
ARN = "arn:aws:emr-serverless:eu-west-1:123456789012:/applications/00app/jobruns/00run"
ABOUT = {"applicationId": "00app", "arn": ARN, "createdBy": ROLE, "createdAt": 1, "updatedAt": 1, "executionRole": ROLE,
         "releaseLabel": "emr-7.9.0", "stateDetails": "it was said why"}  # fmt: skip
PLAN = "s3://genokit/omop/_jobs/plan.json"
DRIVER = {"sparkSubmit": {"entryPoint": "s3://genokit/omop/_jobs/x.py", "entryPointArguments": [PLAN]}}


class Service:
    """An EMR Serverless that answers what it is told to, beside the embedded account's S3."""

    def __init__(self, settings):
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "eu-west-1"}
        client, stacks = boto3.client("emr-serverless", **keys), boto3.client("cloudformation", **keys)
        self.stub, stubbed = Stubber(client), Stubber(stacks)
        told = {"EmrApplication": "00app", "EmrRole": ROLE}
        outputs = [{"OutputKey": key, "OutputValue": value} for key, value in told.items()]
        stack = {
            "StackName": emr_serverless.STACK,
            "CreationTime": 1,
            "StackStatus": "CREATE_COMPLETE",
            "Outputs": outputs,
        }
        for _ in range(3):
            stubbed.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": emr_serverless.STACK})
        self.stub.activate()
        stubbed.activate()
        self.clients = Clients(settings, **{"emr-serverless": client, "cloudformation": stacks})
        self.work = ResultStore("s3://genokit/omop", self.clients)
        self.name = emr_serverless.Application(self.clients, "00app", self.work.root).name
        self.begun: list[str] = []
        self.sent: dict = {}
        self.then: tuple[str, ...] = ()
        client.meta.events.register("provide-client-params.emr-serverless.StartJobRun", self._keep)

    def _keep(self, params, **_):
        self.sent = params
        for table in self.then:
            self.make(table)

    def knows(self, **jobs):
        told = [ABOUT | {"name": self.name, "id": id, "state": state} for id, state in jobs.items()]
        told.append(ABOUT | {"name": "somebody else's", "id": "00other", "state": "RUNNING"})
        self.stub.add_response("list_job_runs", {"jobRuns": told}, {"applicationId": "00app"})

    def starts(self):
        wanted = dict.fromkeys(("clientToken", "jobDriver", "configurationOverrides", "tags"), ANY)
        wanted |= {"applicationId": "00app", "executionRoleArn": ROLE, "name": self.name}
        answer = {"applicationId": "00app", "jobRunId": "00run", "arn": ARN}
        self.stub.add_response("start_job_run", answer, wanted)

    def shows(self, *states, job="00run"):
        for state in states:
            told = ABOUT | {"jobRunId": job, "state": state, "jobDriver": DRIVER}
            self.stub.add_response("get_job_run", {"jobRun": told}, {"applicationId": "00app", "jobRunId": job})

    def make(self, table):
        """What the job does when it comes to a table; the next look sees it."""
        self.begun.append(table)
        step = {step.table: step for step in (PERSON, DEATH)}[table]
        self.work.finish(MadeTable(table, step.key, self.work.folder(table, step.key), 1, 0.1))

    def run(self, progress, *then):
        self.then = then  # what the new job makes, at once
        emr_serverless.run(self.clients, [PERSON, DEATH], INPUTS, self.work, progress, settings={"spark.x": "a b"})
        self.stub.assert_no_pending_responses()


@pytest.fixture
def service(account):
    return Service(account)


def read(service, address):
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return service.clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()


def test_a_job_is_sent_with_its_program_and_plan_and_followed_to_its_end(service):
    service.knows()
    service.knows()
    service.starts()
    service.shows("PENDING", "RUNNING", "SUCCESS")
    service.run(service.make)
    assert service.begun == ["cdm.person", "cdm.death"]
    submit = service.sent["jobDriver"]["sparkSubmit"]
    assert read(service, submit["entryPoint"]) == Path(spark_job.__file__).read_text(encoding="utf-8")
    plan = json.loads(read(service, submit["entryPointArguments"][0]))
    assert plan["steps"][0]["path"] == "s3://genokit/omop/cdm.person-aaaaaaaaaaaaaaaa"
    assert submit["sparkSubmitParameters"].endswith("--conf 'spark.x=a b'")


def test_a_job_of_a_kernel_that_is_gone_is_waited_for_and_only_the_rest_is_asked_for(service):
    service.knows(**{"00old": "RUNNING"})
    service.shows("RUNNING", "FAILED", job="00old")
    service.knows(**{"00old": "FAILED"})
    service.starts()
    service.shows("RUNNING", "SUCCESS")
    service.run(lambda table: service.make(table) if table == "cdm.person" else None, "cdm.death")
    assert [step["table"] for step in planned(service)["steps"]] == ["cdm.death"]
    assert planned(service)["inputs"]["cdm.person"] == ["s3://genokit/omop/cdm.person-aaaaaaaaaaaaaaaa/"]


def planned(service):
    return json.loads(read(service, service.sent["jobDriver"]["sparkSubmit"]["entryPointArguments"][0]))


def test_nothing_is_asked_for_where_the_job_that_ran_made_all(service):
    service.knows(**{"00old": "RUNNING"})
    service.shows("RUNNING", "RUNNING", "SUCCESS", job="00old")
    service.run(service.make)
    assert service.sent == {}


def test_a_plan_is_asked_for_once_and_again_after_it_failed(service):
    application, tokens = emr_serverless.Application(service.clients, "00app", service.work.root), []
    for jobs in ({}, {}, {"00run": "FAILED"}):
        service.knows(**jobs)
        service.starts()
        application.submit("a plan", {})
        tokens.append(service.sent["clientToken"])
    assert tokens[0] == tokens[1] != tokens[2]


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("", "the job ended as FAILED: it was said why"),
        ('{"table": "cdm.death", "error": "x.Y [Z]"}', "make the table 'cdm.death': x.Y"),
    ],
)
def test_a_failed_job_says_why_in_its_own_words_or_the_services(service, left, said):
    if left:
        service.clients.s3.put_object(Bucket="genokit", Key="omop/_jobs/plan.json.failed", Body=left.encode())
    service.knows()
    service.knows()
    service.starts()
    service.shows("RUNNING", "FAILED")
    with pytest.raises(TransformFailed) as failed:
        service.run(str)
    assert said in str(failed.value)
    assert "s3://genokit/omop/_logs/applications/00app/jobs/00run/" in str(failed.value)


def test_who_interrupts_the_waiting_stops_the_job(service):
    job = {"applicationId": "00app", "jobRunId": "00run"}

    def interrupt(table):
        if table == "cdm.death":
            raise KeyboardInterrupt
        service.then = (table,)

    service.knows()
    service.knows()
    service.starts()
    service.shows("RUNNING")
    service.stub.add_response("cancel_job_run", job, job)
    with pytest.raises(KeyboardInterrupt):
        service.run(interrupt)
    service.stub.assert_no_pending_responses()


def test_without_the_stack_it_is_said_what_to_deploy(account):
    with pytest.raises(ConfigError, match="genokit-omop"):
        Spark(clients=Clients(account)).build([PERSON], INPUTS, ResultStore("s3://genokit/omop"), str)
