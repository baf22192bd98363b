"""Submissions: definitions found again, arrays, dependencies, retries, tags, reusing; over both kinds of clients."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from embedded import PLACES, waits_for

from genokit import Batch, Settings
from genokit.batch import definition
from genokit.batch.shipping import rows
from genokit.errors import InvalidProject, InvalidRequest, JobFailed, NotFound


@pytest.fixture(params=PLACES)
def batch(request: pytest.FixtureRequest, account: Settings) -> Batch:
    return Batch(PLACES[request.param](account))


# --- definitions


def test_the_same_definition_is_found_again_and_another_is_a_new_revision(batch: Batch) -> None:
    first = batch.define("align", command=["true"], memory_gib=0.1)
    assert batch.define("align", command=["true"], memory_gib=0.1) == first
    second = batch.define("align", command=["true"], memory_gib=0.2)
    assert (first.revision, second.revision) == (1, 2)
    assert batch.define("align", command=["true"], memory_gib=0.1) == first
    assert batch.definition("align") == second
    assert batch.definition("align:1") == batch.definition(first.arn) == first


def test_a_revision_that_was_deregistered_is_not_taken_for_the_same(batch: Batch) -> None:
    first = batch.define("align", command=["true"], memory_gib=0.1)
    batch.clients.batch.deregister_job_definition(jobDefinition=first.arn)
    with pytest.raises(NotFound, match="no active job definition 'align'"):
        batch.definition("align")
    assert batch.define("align", command=["true"], memory_gib=0.1).revision == 2


def test_what_the_kit_has_no_word_for_goes_into_the_container_raw(batch: Batch) -> None:
    scratch = {
        "volumes": [{"name": "scratch", "host": {"sourcePath": "/docker_scratch"}}],
        "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/scratch"}],
    }
    made = batch.define("isaac", command=["true"], image="isaac:1", container=scratch)
    registered = batch.definition("isaac").described["containerProperties"]
    assert registered["volumes"] == scratch["volumes"]
    assert batch.define("isaac", command=["true"], image="isaac:1", container=scratch) == made
    with pytest.raises(InvalidRequest, match="mountPoint"):
        batch.define("isaac", command=["true"], container={"mountPoint": []})


# --- overrides, retries, timeouts


def test_a_submission_overrides_its_definition(batch: Batch) -> None:
    small = batch.define("small", command=["sh", "-c", "echo $WHO"], memory_gib=0.1, environment={"WHO": "nobody"})
    job = batch.submit(small, environment={"WHO": "you"}, memory_gib=0.25, timeout_min=2, retry=3).wait(30)
    assert job.log() == "you"
    asked = {one["type"]: one["value"] for one in job.detail["container"]["resourceRequirements"]}
    assert asked == {"VCPU": "1", "MEMORY": "256"}
    assert job.detail["timeout"] == {"attemptDurationSeconds": 120}
    assert job.detail["retryStrategy"]["attempts"] == 3


def test_spot_tries_again_after_a_reclaim_and_not_after_a_failure(batch: Batch) -> None:
    broken = batch.define("broken", command=["false"], memory_gib=0.1, retry="spot")
    assert len(batch.submit(broken).wait(30).detail["attempts"]) == 1
    assert broken.described["retryStrategy"]["attempts"] == 5
    with pytest.raises(InvalidRequest, match="retry must be a number of attempts, 'spot' or 'interrupted', or a"):
        batch.submit(broken, retry="sometimes")


def test_interrupted_tries_again_after_sigterm_and_not_after_a_failure(batch: Batch) -> None:
    once = 'test "$AWS_BATCH_JOB_ATTEMPT" = 2 || exit 143; exit 1'
    stopped = batch.define("stopped", command=["sh", "-c", once], memory_gib=0.1, retry="interrupted")
    assert list(batch.submit(stopped).wait(30).attempts["exit_code"]) == [143, 1]


# --- arrays without rows


def test_the_nodes_of_a_job_run_together_and_its_log_and_exit_code_are_the_main_nodes(
    batch: Batch, tmp_path: Path
) -> None:
    script = (
        "echo node $AWS_BATCH_JOB_NODE_INDEX of $AWS_BATCH_JOB_NUM_NODES $0 $GREETING; exit $AWS_BATCH_JOB_NODE_INDEX"
    )
    wait = f"{script.partition(';')[0]}; {waits_for(tmp_path / 'go')[-1]}; exit 7"
    command = ["sh", "-c", f'if test "$AWS_BATCH_JOB_NODE_INDEX" = 0; then {wait}; else {script}; fi', "Ref::who"]
    nodes = batch.define("gang", command=command, nodes=2, vcpus=0.5, memory_gib=0.1, parameters={"who": "us"})
    assert batch.definition("gang").nodes == 2
    assert "Nodes" in nodes._repr_html_()
    job = batch.submit(nodes, environment={"GREETING": "hello"}, memory_gib=0.2)
    batch.job(f"{job.id}#1").wait()
    (tmp_path / "go").touch()
    assert (job.wait().status, job.exit_code) == ("FAILED", 7)
    assert job.log()[:] == "node 0 of 2 us hello"
    out = io.StringIO()
    job.tail(out)
    assert "node 0 of 2 us hello" in out.getvalue()
    other = batch.job(f"{job.id}#1")
    assert (other.log()[:], other.exit_code) == ("node 1 of 2 us hello", 1)
    assert batch.submit(nodes, retry=2).wait().attempts["exit_code"].tolist() == [7, 7]


def test_what_aws_does_not_offer_for_several_nodes_is_refused(batch: Batch) -> None:
    nodes = batch.define("gang", command=["true"], nodes=2, vcpus=0.5, memory_gib=0.1)
    for refused in ({"each": [{"a": 1}, {"a": 2}]}, {"size": 3}):
        with pytest.raises(InvalidRequest, match="'gang' has 2 nodes, and AWS Batch has no arrays of multi-node jobs"):
            batch.submit(nodes, **refused)
    for call in (
        lambda: batch.submit(nodes, retry="spot"),
        lambda: batch.define("gang", command=["true"], nodes=2, retry="spot"),
    ):
        with pytest.raises(InvalidRequest, match="nodes=2: AWS runs multi-node jobs on On-Demand instances only"):
            call()
    with pytest.raises(InvalidRequest, match="numNodes"):
        batch.define("gang", command=["true"], nodes=0)
    with pytest.raises(InvalidRequest, match=r"cannot run:\n.*4000 vCPU of"):
        batch.submit(nodes, vcpus=2000)


def test_an_array_is_a_job_with_children(batch: Batch) -> None:
    odd = batch.define("odd", command=["sh", "-c", "exit $(( AWS_BATCH_JOB_ARRAY_INDEX % 2 ))"], memory_gib=0.05)
    job = batch.submit(odd, size=4)
    out = io.StringIO()
    job.tail(out)
    assert out.getvalue().splitlines()[-1].startswith("[odd] FAILED: 2 SUCCEEDED, 2 FAILED")
    assert (job.size, job.counts, job.failed) == (4, {"SUCCEEDED": 2, "FAILED": 2}, [1, 3])
    table = job.table()
    assert list(table["status"]) == ["SUCCEEDED", "FAILED"] * 2
    assert list(table["exit_code"]) == [0, 1, 0, 1]
    assert job.child(2).status == "SUCCEEDED"
    with pytest.raises(NotFound, match=r"no child 4: it has 4 children"):
        job.child(4)
    with pytest.raises(JobFailed, match="2 of 4 children failed, the first is 1: exit code 1"):
        job.raise_for_status()
    assert "2 SUCCEEDED, 2 FAILED" in job._repr_html_()


def test_a_plain_job_has_no_children(batch: Batch) -> None:
    job = batch.submit(batch.define("plain", command=["true"], memory_gib=0.1)).wait(30)
    assert (job.size, job.counts, job.failed) == (None, {}, [])
    assert job.table().empty
    with pytest.raises(NotFound, match="it has no children"):
        job.child(0)


# --- arrays of rows, with code taken along


def test_each_row_is_a_child_that_runs_the_shipped_code(batch: Batch, tmp_path: Path) -> None:
    (tmp_path / "scale.py").write_text("import sys; print(sys.argv[1], float(sys.argv[2]) * 2)")
    scale = batch.define("scale", command=["python", "scale.py", "Ref::unit", "Ref::rate"], memory_gib=0.2)
    given = pd.DataFrame({"rate": [0.5, 1.5, 2.5], "sample": ["a", "b; rm -rf /", "c"]})
    job = batch.submit(scale, code=tmp_path, each=given, only=range(2), parameters={"unit": "mg"})
    table = job.wait(60).raise_for_status().table()
    assert list(table.columns[:3]) == ["child", "rate", "sample"]
    assert list(table["sample"]) == ["a", "b; rm -rf /"]
    assert [job.child(number).log() for number in range(2)] == ["mg 1.0", "mg 3.0"]
    (tmp_path / "scale.py").write_text("print('changed')")
    changed = batch.submit(scale, code=tmp_path, each=given, only=[2], parameters={"unit": "mg"})
    assert changed.size is None  # one row is no array
    assert changed.wait(60).log() == "changed"


def test_a_repair_of_a_repair_runs_the_rows_that_failed_under_their_own_numbers(batch: Batch) -> None:
    # Row 3 fails always, row 5 in the first two rounds: the file tells which round it is.
    script = 'echo "$0 $AWS_BATCH_JOB_ARRAY_INDEX"; test "$0" != c3 && { test "$0" != f5 || test "$1" = 3; }'
    work = batch.define("work", command=["sh", "-c", script, "Ref::name", "Ref::round"], memory_gib=0.2)
    names = [{"name": f"{letter}{number}"} for number, letter in enumerate("xxxcxf")]
    names[3], names[5] = {"name": "c3"}, {"name": "f5"}
    first = batch.submit(work, each=names, only=[1, 3, 5], parameters={"round": "1"}).wait(60)
    assert first.failed == [3, 5]
    assert list(first.table()["row"]) == [1, 3, 5]
    assert list(first.table()["child"]) == [0, 1, 2]
    assert first.child(1).log() == "c3 3"
    with pytest.raises(JobFailed, match=r"the first is 1: (.|\n)*c3 3(.|\n)*job.child\(1\)"):
        first.raise_for_status()
    second = batch.submit(work, each=names, only=first.failed, parameters={"round": "2"}).wait(60)
    assert second.failed == [3, 5]
    third = batch.submit(work, each=names, only=second.failed, parameters={"round": "3"}).wait(60)
    assert (third.failed, list(third.table()["name"])) == ([3], ["c3", "f5"])
    last = batch.submit(work, each=names, only=third.failed, parameters={"round": "4"}).wait(60)
    assert (last.failed, list(last.table()["row"]), last.log()) == ([3], [3], "c3 3")
    assert last.child(0).id == last.id


def test_a_sweep_of_one_row_has_a_table_of_it(batch: Batch) -> None:
    fails = batch.define("fails", command=["sh", "-c", "exit $0", "Ref::status"], memory_gib=0.2)
    job = batch.submit(fails, each=[{"status": 3}, {"status": 0}], only=range(1)).wait(60)
    assert (job.size, job.failed, job.child(0).exit_code) == (None, [0], 3)
    shown = job.table()
    assert list(shown["status"]) == ["FAILED"]
    assert list(shown["status (each)"]) == ["3"]
    assert list(shown["exit_code"]) == [3]
    with pytest.raises(NotFound, match="no child 1"):
        job.child(1)
    assert batch.submit(fails, each=[{"status": 0}]).wait(60).failed == []


def test_only_chooses_children_of_a_size_too(batch: Batch) -> None:
    odd = batch.define("odd", command=["sh", "-c", "exit $(( AWS_BATCH_JOB_ARRAY_INDEX % 2 ))"], memory_gib=0.2)
    job = batch.submit(odd, size=4, only=range(1, 4)).wait(60)
    assert (job.size, job.failed) == (3, [1, 3])
    assert batch.submit(odd, size=4, only=job.failed).wait(60).failed == [1, 3]
    assert batch.submit(odd, size=4, only=range(2)).wait(60).size == 2
    with pytest.raises(InvalidRequest, match="only chooses rows of each="):
        batch.submit(odd, only=range(2))


def test_a_changed_row_or_change_of_code_is_another_job(batch: Batch, tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text("print('one')")
    say = batch.define("say", command=["python", "say.py", "Ref::who"], memory_gib=0.2)

    def submitted(*who: str) -> str:
        return batch.submit(say, name="greetings", code=tmp_path, each=[{"who": one} for one in who]).id

    first = submitted("you", "me")
    assert submitted("you", "me") == first
    assert submitted("you", "them") != first
    (tmp_path / "say.py").write_text("print('two')")
    assert submitted("you", "me") != first


# --- dependencies


def test_a_job_starts_after_those_it_is_given(batch: Batch) -> None:
    say = batch.define("say", command=["sh", "-c", "date +%s%N"], memory_gib=0.05)
    first, second = batch.submit(say), batch.submit(say)
    last = batch.submit(say, after=[first, second]).wait(30)
    assert last.status == "SUCCEEDED"
    assert int(last.log()) > max(int(first.wait().log()), int(second.wait().log()))
    assert batch.submit(say, after=first).wait(30).status == "SUCCEEDED"


def test_a_failed_dependency_fails_what_waits_for_it(batch: Batch) -> None:
    broken = batch.submit(batch.define("broken", command=["false"], memory_gib=0.05))
    after = batch.submit(batch.define("after", command=["true"], memory_gib=0.05), after=broken).wait(30)
    assert (after.status, after.exit_code) == ("FAILED", None)
    assert "dependent job failed" in after.reason.lower() or broken.id in after.reason


def test_children_wait_for_their_twins(batch: Batch) -> None:
    say = batch.define("say", command=["sh", "-c", "date +%s%N"], memory_gib=0.05)
    ours = batch.submit(say, size=3)
    twins = batch.submit(say, size=3, after_each=ours).wait(60)
    times = [[int(array.child(number).log()) for number in range(3)] for array in (ours, twins)]
    assert all(first < second for first, second in zip(*times, strict=True))


# --- rows, as pure functions


def test_rows_come_from_dicts_and_data_frames_alike() -> None:
    frame = pd.DataFrame({"rate": [0.1, 0.2], "epochs": [1, 2]})
    as_dicts = [{"rate": 0.1, "epochs": 1}, {"rate": 0.2, "epochs": 2}]
    assert rows.chosen(frame, None, None) == rows.chosen(as_dicts, None, None)
    assert rows.chosen(frame, None, [1]) == [{"rate": "0.2", "epochs": "2", "genokit:row": "1"}]


@pytest.mark.parametrize(
    ("each", "only", "says"),
    [
        ([], None, "0 rows, but an array job takes 1 to 10,000"),
        ([{"a": 1}] * 10_001, None, "10,001 rows"),
        ([{"a": 1}, {"b": 1}], None, "row 1 must be a dict with the same columns as row 0"),
        ([{"a": 1}, {"a": None}], None, "'a' of row 1 has no value"),
        (pd.DataFrame({"a": [1.0, float("nan")]}), None, "'a' of row 1 has no value"),
        ([{"a": 1}], range(3), r"only must name some of the 1 rows, 0 to 0, each once, but is \[0, 1, 2\]"),
        ([{"a": 1}], [-1], r"only must name.*but is \[-1\]"),
        (["a"], None, "row 0"),
        ([{"a": 1}], [], r"only must name.*but is \[\]"),
        ([{"a": 1}], [0, 0], r"only must name.*each once, but is \[0, 0\]"),
        ([{"a": 1}], [True], "a number in only must be a whole number, but is True"),
        ([{"a": 1}], ["0"], "a number in only must be a whole number, but is '0'"),
        ([{"a": 1}], [0.0], "whole number"),
        (5, None, "each must be a list of dicts or a DataFrame.*not int"),
        ("rows", None, "each must be a list of dicts or a DataFrame.*not str"),
        ({"a": [1, 2]}, None, "each must be a list of dicts or a DataFrame.*not dict"),
        (pd.Series([1, 2]), None, "each must be a list of dicts or a DataFrame.*not Series"),
        (np.zeros((2, 2)), None, "each must be a list of dicts or a DataFrame.*not ndarray"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), None, "two columns have the same name"),
        ([{1: "a", "1": "b"}], None, "two columns have the same name"),
        ([{"genokit:row": 1}], None, "genokit:row"),
        ([{"a": pd.NA}], None, "'a' of row 0 has no value"),
        ([{"a": pd.NaT}], None, "'a' of row 0 has no value"),
        ([{"a": np.arange(3)}], None, r"'a' of row 0 must be a text or a number, but is array"),
        ([{"a": b"x"}], None, r"'a' of row 0 must be a text or a number, but is b'x'"),
        ([{"a": "x"}, {"a": "\ud800"}], None, r"each\[1\].a contains"),
        ([{"a\0": "x"}], None, r"each\[0\]: the name 'a\\x00' contains"),
    ],
)
def test_rows_that_make_no_array_are_refused(each: object, only: object, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        rows.chosen(each, None, only)  # type: ignore[arg-type]


# --- what could not run


def test_what_could_not_run_is_refused_before_it_is_sent(batch: Batch) -> None:
    one = batch.define("one", command=["echo", "Ref::who"], memory_gib=0.1)
    with pytest.raises(InvalidRequest, match=r"(?s)'one' was not submitted.*Ref::who.*check=False"):
        batch.submit(one)
    with pytest.raises(InvalidRequest, match="Ask for less"):
        batch.submit(one, parameters={"who": "you"}, vcpus=100_000)
    assert batch.jobs().empty
    assert batch.preflight(one).level == "problem"
    assert batch.preflight(one, parameters={"who": "you"}).problems == []
    job = batch.submit(one, parameters={"who": "you"}, vcpus=100_000, check=False)
    job.cancel()
    assert job.wait(30).status == "FAILED"


def test_a_mended_queue_is_looked_at_again_before_a_refusal(batch: Batch) -> None:
    one = batch.define("one", command=["true"], memory_gib=0.1)
    client = batch.clients.batch
    client.update_job_queue(jobQueue="lowPriority", state="DISABLED")
    with pytest.raises(InvalidRequest, match=r"queue 'lowPriority': It is DISABLED"):
        batch.submit(one, queue="lowPriority")
    client.update_job_queue(jobQueue="lowPriority", state="ENABLED")
    assert batch.submit(one, queue="lowPriority").wait(30).status == "SUCCEEDED"


# --- how it ended, and what it took


def test_a_failure_says_what_the_exit_code_means_and_what_to_do(batch: Batch) -> None:
    hungry = ["python", "-c", "import time; kept = bytearray(300 << 20); time.sleep(10)"]
    job = batch.submit(batch.define("hungry", command=hungry, memory_gib=0.125)).wait(60)
    assert (job.status, job.exit_code, len(job.attempts)) == ("FAILED", 137, 1)
    assert "more memory" in str(job.explain())
    with pytest.raises(JobFailed, match=r"exit code 137.*memory_gib="):
        job.raise_for_status()


def test_a_job_explains_itself(batch: Batch) -> None:
    job = batch.submit(batch.define("large", command=["true"], vcpus=1000), check=False)
    while "MISCONFIGURATION" not in job.refresh().reason:
        time.sleep(0.05)
    explanation = job.explain()
    assert explanation.known
    assert "1000 vCPU" in str(explanation)
    job.terminate()


def test_costs_are_foreseen_and_summed(batch: Batch) -> None:
    one = batch.define("one", command=["sleep", "0.2"], memory_gib=0.1)
    jobs = [batch.submit(one), batch.submit(one, size=2)]
    for job in jobs:
        job.wait(30)
    assert batch.estimate(one, minutes=5).size == 1
    costs = batch.costs(jobs, by="definition")
    assert len(costs.jobs) == 3
    ran = [jobs[0].detail, *(jobs[1].child(number).detail for number in range(2))]
    took_s = sum(one["stoppedAt"] - one["startedAt"] for one in ran) / 1000
    assert costs.table["vcpu_hours"].sum() == pytest.approx(took_s / 3600)


def test_rows_and_a_size_do_not_go_together(batch: Batch) -> None:
    one = batch.define("one", command=["true"], memory_gib=0.1)
    with pytest.raises(InvalidRequest, match="not both"):
        batch.submit(one, each=[{"a": 1}], size=2)


# --- tags and reusing


def test_jobs_are_tagged_by_project_run_and_user(account: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(settings=Settings(home=account.home, project="asthma & <co>"))
    one = batch.define("one", command=["true"], memory_gib=0.1)
    tags = batch.submit(one, tags={"sample": "NA12878"}).detail["tags"]
    assert tags["genokit:project"] == "asthma _ _co_"
    assert tags["sample"] == "NA12878"
    assert tags["genokit:user"]
    assert re.fullmatch(r"session-\d{8}-\d{6}-[0-9a-f]{4}", tags["genokit:run"])
    assert batch.submit(one).detail["tags"]["genokit:run"] == tags["genokit:run"]
    monkeypatch.setenv("GENOKIT_RUN", "/somewhere/runs/20261122-tour")
    assert batch.submit(one).detail["tags"]["genokit:run"] == "20261122-tour"


def test_a_name_and_the_same_content_find_the_job_that_is_there(batch: Batch, account: Settings) -> None:
    slow = batch.define("slow", command=["sleep", "1"], memory_gib=0.1)
    first = batch.submit(slow, name="sample-1", parameters={"a": "1"})
    another_kernel = Batch(settings=account)
    same = another_kernel.submit(slow, name="sample-1", parameters={"a": "1"})
    assert (same.id, same.reused, first.reused) == (first.id, True, False)
    assert "an existing job with the same name and content" in same._repr_html_()
    first.wait(30)
    assert batch.submit(slow, name="sample-1", parameters={"a": "1"}).id == first.id
    assert batch.submit(slow, name="sample-1", parameters={"a": "2"}).id != first.id
    assert batch.submit(slow, name="sample-2", parameters={"a": "1"}).id != first.id
    again = batch.submit(slow, name="sample-1", parameters={"a": "1"}, again=True)
    assert again.id != first.id
    assert batch.submit(slow, name="sample-1", parameters={"a": "1"}).id == again.id


def test_without_a_name_each_submission_is_a_new_job(batch: Batch) -> None:
    one = batch.define("one", command=["true"], memory_gib=0.1)
    assert batch.submit(one).id != batch.submit(one).id


def test_a_failed_job_is_not_taken_up_again(batch: Batch) -> None:
    broken = batch.define("broken", command=["false"], memory_gib=0.1)
    first = batch.submit(broken, name="sample-1").wait(30)
    assert batch.submit(broken, name="sample-1").id != first.id


def circle() -> dict[str, object]:
    made: dict[str, object] = {}
    made["volumes"] = [made]
    return made


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"environment": {"LD_PATH=": "/x"}}, "environment: 'LD_PATH='"),
        ({"environment": {"": "/x"}}, "environment: ''"),
        ({"environment": {"A": "a\0b"}}, r"environment\[0\].value contains a NUL"),
        ({"command": ["echo", "\ud800"]}, r"command\[1\] contains"),
        ({"parameters": {"x": "\udfff"}}, "parameters.x contains"),
        ({"container": circle()}, "cannot be written as JSON"),
        ({"container": {("a", "b"): 1}}, "cannot be written as JSON"),
    ],
)
def test_what_no_process_can_be_given_is_refused_in_words_that_name_it(
    batch: Batch, wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        batch.define("wrong", **{"command": ["true"], **wrong})
    if "container" not in wrong:
        with pytest.raises(InvalidRequest, match=says):
            batch.submit(batch.define("right", command=["true"], memory_gib=0.1), check=False, **wrong)


NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]


ODD: list[tuple[dict[str, Any], str]] = [
    ({"after": "x"}, "after must be a job, but is 'x'"),
    ({"after": [None]}, "after must be a job, but is None"),
    ({"after": 5}, "after must be a job, but is 5"),
    ({"after_each": "x"}, "after_each must be a job"),
    ({"size": "2"}, r"size must be a whole number, but is '2' \(str\)"),
    ({"size": 2.5}, "size must be a whole number"),
    ({"size": True}, "size must be a whole number"),
    ({"size": pd.NA}, "size must be a whole number"),
    ({"size": 10**5000}, "size must be a whole number, but is of type int"),
    ({"memory_gib": 10**400}, "memory_gib must be a number"),
    ({"vcpus": "2"}, r"vcpus must be a number, but is '2' \(str\)"),
    ({"vcpus": pd.NA}, "vcpus must be a number"),
    ({"vcpus": np.ones(2)}, "vcpus must be a number"),
    ({"memory_gib": float("inf")}, "memory_gib must be a number, but is inf"),
    ({"memory_gib": -1}, "MEMORY"),
    ({"gpus": 1.5}, "gpus must be a whole number"),
    ({"gpus": np.arange(2)}, "gpus must be a whole number"),
    ({"timeout_min": float("nan")}, "timeout_min must be a number, but is nan"),
    ({"retry": np.ones(2)}, "retry must be a whole number"),
    ({"retry": 2.5}, "retry must be a whole number"),
    ({"retry": True}, "retry must be a whole number"),
    ({"retry": "often"}, "retry must be a number of attempts, 'spot' or"),
    ({"parameters": 5}, "parameters must be of type Mapping, but is 5"),
    ({"parameters": {"x": None}}, "parameters.x has no value"),
    ({"parameters": {"x": np.arange(2)}}, "parameters.x must be a text or a number"),
    ({"parameters": {"x": NESTED}}, "parameters.x cannot be written as text"),
    ({"environment": [("A", "b")]}, "environment must be of type Mapping"),
    ({"environment": {"A": pd.NA}}, "environment.A has no value"),
    ({"command": 5}, "command must be a list of words, but is 5"),
    ({"command": b"true"}, "command must be a list of words"),
    ({"command": ["echo", None]}, r"command\[1\] has no value"),
    ({"tags": {"x": None}}, "tags.x has no value"),
    ({"tags": "x"}, "tags must be of type Mapping"),
    ({"queue": 5}, "queue must be of type str, but is 5"),
    ({"queue": ""}, "JobQueue"),
    ({"name": 5}, "jobName, value: 5, .* valid types: <class 'str'>"),
    ({"code": 5}, "code must be the path"),
    ({"code": "a\0"}, "code must be the path"),
]


def test_odd_input_is_refused_in_words_that_name_it(batch: Batch) -> None:
    known = batch.define("task", command=["true"], memory_gib=0.1)
    for wrong, says in ODD:
        with pytest.raises((InvalidRequest, InvalidProject), match=says):
            batch.submit(known, check=False, **wrong)


def test_an_image_that_is_no_text_is_refused(batch: Batch) -> None:
    with pytest.raises(InvalidRequest, match="image must be of type str, but is 5"):
        batch.define("task", command=["true"], image=5)  # type: ignore[arg-type]


def test_a_definition_that_is_not_named_is_not_guessed(batch: Batch) -> None:
    batch.define("task", command=["true"], memory_gib=0.1)
    for reference in ("", ":1", "x/task", "arn:aws:batch:us-east-1:123456789012:job-definition/task:1"):
        with pytest.raises(NotFound, match="no active job definition"):
            batch.submit(reference)
    for odd in (None, 5):
        with pytest.raises(InvalidRequest, match="definition must be of type str or JobDefinition"):
            batch.submit(odd)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers_and_large_ones_are_written_out(batch: Batch) -> None:
    known = batch.define("task", command=["true"], vcpus=np.float64(0.5), memory_gib=np.int64(1), retry=np.int64(2))
    assert (known.vcpus, known.memory_gib) == (0.5, 1.0)
    assert batch.submit(known, size=np.int64(2)).size == 2
    asked = definition.resources(1_234_567, 4_000, None)
    assert [one["value"] for one in asked] == ["1234567", "4096000"]


# --- a name is one job, whoever submits


def test_kernels_that_submit_the_same_name_at_once_get_one_job(account: Settings, tmp_path: Path) -> None:
    Batch(settings=account).queues()
    script = (
        "import sys, time; from pathlib import Path; from genokit import Batch, Settings; "
        "batch = Batch(settings=Settings(home=Path(sys.argv[1]))); batch.queues(); start = Path(sys.argv[2]); "
        "Path(f'{start}{sys.argv[3]}').touch(); "
        "exec('while not start.exists(): time.sleep(0.001)'); "
        "task = batch.define('task', command=['sleep', '5'], memory_gib=0.05); "
        "print(task.revision, batch.submit(task, name='once').id)"
    )
    start = tmp_path / "start"
    command = [sys.executable, "-c", script, str(account.home), str(start)]
    kernels = [subprocess.Popen([*command, str(one)], stdout=subprocess.PIPE, text=True) for one in range(4)]
    while len(list(tmp_path.glob("start?"))) < 4:
        time.sleep(0.01)
    start.touch()
    said = {kernel.communicate()[0] for kernel in kernels}
    assert len(said) == 1, said
    assert len(Batch(settings=account).jobs()) == 1


# --- what a job's words do not mean


def test_words_that_do_not_mean_what_they_seem_to_are_warned_of(batch: Batch) -> None:
    known = batch.define("task", command=["echo", "--in=Ref::reads", "Ref::reads"], memory_gib=0.1)
    with pytest.warns(UserWarning, match="Ref::reads stays as it is in '--in=Ref::reads'"):
        batch.submit(known, parameters={"reads": "x"})
