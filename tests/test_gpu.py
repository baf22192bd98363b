"""GPU jobs of the embedded account, where there is a GPU: ``make test-gpu``."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from genokit import Batch, Job, Settings
from genokit.batch.diagnose import explain
from genokit.errors import InvalidRequest

pytestmark = pytest.mark.gpu

SEEN = """
import json, os, subprocess
told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
print(json.dumps({"visible": os.environ["CUDA_VISIBLE_DEVICES"], "listed": told.splitlines()}))
"""


def gpus() -> list[str]:
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout.splitlines()


def follow(job: Job, status: str, within_s: float = 30) -> Job:
    deadline = time.monotonic() + within_s
    while job.status != status:
        assert time.monotonic() < deadline, f"still {job.status}: {job.reason}"
        time.sleep(0.02)
    return job


def test_the_account_finds_its_gpus_and_a_job_sees_those_that_it_asked_for(account: Settings) -> None:
    batch = Batch(settings=account)
    queue = next(one for one in batch.queues() if one.name == "gpu")
    room = queue.environments[0].capacity
    assert room is not None
    assert room.gpus == len(gpus())
    look = batch.define("look", command=["python", "-c", SEEN], memory_gib=1, gpus=1)
    seen = json.loads(batch.submit(look, queue="gpu").wait(60).raise_for_status().log())
    assert seen["visible"] in [str(number) for number in range(len(gpus()))]
    assert seen["listed"] == gpus()
    without = batch.define("without", command=["python", "-c", SEEN], memory_gib=1)
    assert json.loads(batch.submit(without, queue="gpu").wait(60).raise_for_status().log())["visible"] == ""


def test_a_gpu_job_waits_until_one_is_free_and_others_go_on(account: Settings) -> None:
    batch = Batch(settings=account)
    sleep = batch.define("sleep", command=["sleep", "4"], vcpus=0.25, memory_gib=0.1, gpus=1)
    running = [batch.submit(sleep, queue="gpu", name="first", again=True) for _ in gpus()]
    for job in running:
        follow(job, "RUNNING")
    waits = batch.submit(sleep, queue="gpu", name="second")
    free = batch.define("plain", command=["true"], vcpus=0.25, memory_gib=0.1)
    plain = batch.submit(free).wait(30).raise_for_status()
    assert waits.status == "RUNNABLE"
    [cause] = explain.explain(batch.clients, waits.detail).causes
    assert f"{len(gpus())} GPU" in cause.evidence
    waits.wait(60).raise_for_status()
    ended = min(job.wait(60).detail["stoppedAt"] for job in running)
    assert waits.detail["startedAt"] >= ended
    assert plain.detail["stoppedAt"] < ended


def test_more_gpus_than_there_are_is_refused_or_explained(account: Settings) -> None:
    batch = Batch(settings=account)
    most = len(gpus()) + 1
    greedy = batch.define("greedy", command=["true"], memory_gib=0.1, gpus=most)
    with pytest.raises(InvalidRequest, match="GPU"):
        batch.submit(greedy, queue="gpu")
    job = follow(batch.submit(greedy, queue="gpu", check=False), "RUNNABLE")
    while not job.reason:
        job.refresh()
    assert f"{most} GPU of {len(gpus())}" in job.reason
    why = explain.explain(batch.clients, job.detail)
    assert why.known
    assert "GPU" in str(why)
    job.terminate()
