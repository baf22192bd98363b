"""The embedded SQS: a queue delivers the state changes of jobs, waits without work, and delivers to every client."""

from __future__ import annotations

import json
import threading
import time

import pytest
from embedded import Box

from genokit import backends


@pytest.fixture
def sqs(account):
    return backends.clients(account).client("sqs")


def made(account, name: str = "events", **properties: object) -> str:
    """The URL of a queue that a stack of its own makes."""
    body = {"Resources": {"Q": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": name, **properties}}}}
    clients, change_set = backends.clients(account), {"StackName": name, "ChangeSetName": "first"}
    cloudformation = clients.client("cloudformation")
    cloudformation.create_change_set(**change_set, ChangeSetType="CREATE", TemplateBody=json.dumps(body))
    cloudformation.execute_change_set(**change_set)
    return str(clients.client("sqs").get_queue_url(QueueName=name)["QueueUrl"])


@pytest.fixture
def queue(account) -> str:
    return made(account, MessageRetentionPeriod=60)


@pytest.fixture
def box(account) -> Box:
    return Box(account)


def bodies(answer) -> list[dict]:
    return [json.loads(message["Body"]) for message in answer.get("Messages", [])]


def test_queues_of_stacks_are_found_and_go_with_them(sqs, queue, box, account):
    assert queue == "https://sqs.local.amazonaws.com/000000000000/events"
    assert sqs.list_queues()["QueueUrls"] == sqs.list_queues(QueueNamePrefix="ev")["QueueUrls"] == [queue]
    assert sqs.list_queues(QueueNamePrefix="x")["QueueUrls"] == []
    backends.clients(account).client("cloudformation").delete_stack(StackName="events")
    for call, request in ((sqs.get_queue_url, {"QueueName": "events"}), (sqs.receive_message, {"QueueUrl": queue})):
        assert box.refusal(call, **request)[0] == "AWS.SimpleQueueService.NonExistentQueue"
    assert sqs.list_queues()["QueueUrls"] == []


def test_a_queue_delivers_what_happened_to_jobs_the_newest_first(sqs, queue, box):
    assert "Messages" not in sqs.receive_message(QueueUrl=queue)
    job_id = box.submit(box.define("true"))
    box.wait(job_id)
    told = bodies(sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0))
    assert [event["detail"]["status"] for event in told][::-1] == [
        "SUBMITTED", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED",
    ]  # fmt: skip
    assert {event["detail"]["jobId"] for event in told} == {job_id}
    assert {(event["source"], event["detail-type"]) for event in told} == {("aws.batch", "Batch Job State Change")}
    assert all("cursor" not in event for event in told)


def test_reading_takes_the_news_from_nobody(sqs, queue, box, account):
    box.wait(box.submit(box.define("true")))
    for client in (sqs, sqs, backends.clients(account).client("sqs")):
        assert len(client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)["Messages"]) == 5


def test_hidden_messages_come_again_and_deleted_ones_do_not(sqs, queue, box):
    box.wait(box.submit(box.define("true")))
    first = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=3, VisibilityTimeout=4)["Messages"]
    rest = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert (len(first), len(rest)) == (3, 2)
    for message in first[1:]:
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    again = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=15)["Messages"]
    assert [message["MessageId"] for message in again] == [first[0]["MessageId"]]


def test_messages_are_kept_no_longer_than_the_queue_says(sqs, box, account):
    queue = made(account, "short", MessageRetentionPeriod=1)
    box.wait(box.submit(box.define("true")))
    time.sleep(1.2)
    assert "Messages" not in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)


def test_a_queue_hides_messages_for_as_long_as_it_says(sqs, box, account):
    queue = made(account, "still", VisibilityTimeout=0)
    box.wait(box.submit(box.define("true")))
    for _ in range(2):
        assert bodies(sqs.receive_message(QueueUrl=queue))[0]["detail"]["status"] == "SUCCEEDED"


def test_waiting_ends_with_the_first_news(sqs, queue, box):
    definition = box.define("true")
    threading.Timer(0.5, box.submit, (definition,)).start()
    start = time.monotonic()
    told = bodies(sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20))
    assert told[-1]["detail"]["status"] == "SUBMITTED"
    assert 0.3 < time.monotonic() - start < 15


def test_waiting_in_vain_ends_in_time_and_costs_next_to_nothing(sqs, queue):
    sqs.receive_message(QueueUrl=queue)
    start, cpu = time.monotonic(), time.thread_time()
    assert "Messages" not in sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=3)
    assert 2.9 < time.monotonic() - start < 8
    assert time.thread_time() - cpu < 0.1


def test_what_sqs_refuses_is_refused(sqs, queue, box):
    for told in ({"WaitTimeSeconds": 21}, {"MaxNumberOfMessages": 11}, {"MaxNumberOfMessages": 0}):
        assert box.refusal(sqs.receive_message, QueueUrl=queue, **told)[0] == "InvalidParameterValue"
    assert box.refusal(sqs.delete_message, QueueUrl=queue, ReceiptHandle="x")[0] == "ReceiptHandleIsInvalid"
    with pytest.raises(NotImplementedError, match="sqs's SendMessage"):
        sqs.send_message(QueueUrl=queue, MessageBody="x")
