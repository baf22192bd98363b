"""Logs of any size and content, page by page, forwards and backwards."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from genokit import Batch, Settings, backends
from genokit.local.engine import log_file

GROUP = "/aws/batch/job"


@pytest.fixture
def logs(account: Settings) -> Any:
    """A stream 's/default/t' of a thousand events, one a millisecond."""
    file = log_file.path(account.home, "s/default/t")
    assert file is not None
    file.parent.mkdir(parents=True)
    file.write_bytes(b"".join(log_file.encode([b"line %d" % number], 1_000_000 + number) for number in range(1000)))
    return backends.clients(account).logs


def page(logs: Any, **request: Any) -> tuple[list[str], dict[str, Any]]:
    answer = logs.get_log_events(logGroupName=GROUP, logStreamName="s/default/t", **request)
    return [event["message"] for event in answer["events"]], answer


def test_reading_forward_ends_when_the_token_comes_back_as_it_was_sent(logs: Any) -> None:
    lines, answer = page(logs, startFromHead=True, limit=300)
    while True:
        token = answer["nextForwardToken"]
        more, answer = page(logs, nextToken=token, limit=300)
        lines += more
        if answer["nextForwardToken"] == token:
            break
    assert lines == [f"line {number}" for number in range(1000)]


def test_reading_begins_at_the_end_unless_told_and_goes_back(logs: Any) -> None:
    lines, answer = page(logs, limit=10)
    assert lines == [f"line {number}" for number in range(990, 1000)]
    lines, answer = page(logs, nextToken=answer["nextBackwardToken"], limit=10)
    assert lines == [f"line {number}" for number in range(980, 990)]
    assert page(logs, nextToken=answer["nextForwardToken"], limit=1)[0] == ["line 990"]


def test_events_can_be_chosen_by_time(logs: Any) -> None:
    assert page(logs, startTime=1_000_005, endTime=1_000_007)[0] == ["line 5", "line 6"]


def test_what_is_still_being_written_waits_for_its_newline(logs: Any, account: Settings) -> None:
    file = log_file.path(account.home, "s/default/t")
    assert file is not None
    with file.open("ab") as end:
        end.write(b"1001000 half a li")
    assert page(logs, limit=1)[0] == ["line 999"]


@pytest.mark.parametrize("name", ["nothing", "../../batch", "/etc/passwd", "a\0b"])
def test_a_stream_that_is_not_there_is_not_found(logs: Any, name: str) -> None:
    with pytest.raises(ClientError) as caught:
        logs.get_log_events(logGroupName=GROUP, logStreamName=name)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


@pytest.mark.parametrize("token", ["f/7", "x/0", "f/-1", "nonsense"])
def test_a_token_that_never_was_is_refused(logs: Any, token: str) -> None:
    with pytest.raises(ClientError) as caught:
        page(logs, nextToken=token)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterException"


def test_streams_are_listed_by_name(logs: Any) -> None:
    answer = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix="s/")
    assert [one["logStreamName"] for one in answer["logStreams"]] == ["s/default/t"]


def test_output_of_any_kind_becomes_events(account: Settings) -> None:
    batch = Batch(settings=account)
    code = (
        "import sys; out = sys.stdout.buffer; out.write(b'\\xff broken\\r\\n\\n'); out.write(b'x' * 700_000 + b'\\n'); "
        "out.write('\\u00e9'.encode()); out.write(b' no newline at the end')"
    )
    job = batch.submit(batch.define("odd", command=["python", "-c", code], memory_gib=0.1)).wait(30).raise_for_status()
    lines = job.log().split("\n")
    assert lines[0] == "\ufffd broken\r"
    assert "".join(lines[1:-1]) == "x" * 700_000
    assert max(map(len, lines)) <= log_file.EVENT_BYTES
    assert lines[-1] == "é no newline at the end"


def test_a_hundred_thousand_lines_arrive_whole_and_in_order(account: Settings) -> None:
    batch = Batch(settings=account)
    code = "for number in range(100_000): print(number)"
    started = time.time()
    job = batch.submit(batch.define("many", command=["python", "-c", code], memory_gib=0.1)).wait(60)
    assert job.log().split("\n") == [str(number) for number in range(100_000)]
    events = backends.clients(account).logs.get_log_events(
        logGroupName=GROUP, logStreamName=job.detail["container"]["logStreamName"], limit=1
    )["events"]
    assert started <= events[0]["timestamp"] / 1000 <= time.time()
