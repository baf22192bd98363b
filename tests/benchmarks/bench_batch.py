"""What the kit adds to a client: the time of a submission, and the calls that watching costs, beside the plain ways.

Watching goes at AWS's pace, a look every four seconds while things change, over an embedded account whose jobs run. The
plain way asks for each job by itself, waits as long, and asks again: its calls follow from what one takes.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import psutil

from genokit import Batch, Settings, backends
from genokit.backends import Clients
from genokit.batch.monitor.watch import Watch

ROUNDS = 200
MINUTE = 60.0
ARN = "arn:aws:batch:us-east-1:123456789012"


def main() -> None:
    print(f"{'submit ' + str(ROUNDS) + ' jobs, one after the other':52} {'median':>9} {'adds':>14}")
    with account() as settings:
        clients = backends.clients(settings)
        hold(clients)
        submissions("embedded", clients)
    submissions("boto3, answered at once", unsent())
    print()
    print(f"{'calls in a minute of watching':52} {'calls':>9}")
    with account() as settings:
        watching("10 jobs", settings, lambda clients: [sleeper(clients, "12") for _ in range(10)])
    with account() as settings:
        watching("an array of 10,000", settings, lambda clients: [array(clients, 10_000)])


# --- submissions


def submissions(where: str, clients: Clients) -> None:
    """Every way again and again, in an order that changes, so that what else the machine does falls on all of them."""
    batch = Batch(clients)
    task = batch.define("task", command=["sleep", "600"], vcpus=1, memory_gib=0.1)
    plain = {"jobName": "task", "jobQueue": "highPriority", "jobDefinition": task.arn}
    numbers = iter(range(1, 10**6))
    batch.submit(task, name="task-0")
    ways: dict[str, Callable[[], Any]] = {
        f"client.submit_job, {where}": lambda: clients.batch.submit_job(**plain),
        "Batch.submit(check=False)": lambda: batch.submit(task, check=False),
        "Batch.submit": lambda: batch.submit(task),
        "Batch.submit(name=...), a new name": lambda: batch.submit(task, name=f"task-{next(numbers)}"),
        "Batch.submit(name=...), the job is there": lambda: batch.submit(task, name="task-0"),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways.items())
    for _ in range(ROUNDS):
        random.shuffle(order)
        for name, work in order:
            began = time.perf_counter()
            work()
            took[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times) * 1000 for name, times in took.items()}
    bare = next(iter(medians.values()))
    for name, median in medians.items():
        adds = "" if median == bare else f"{median - bare:>+11.2f} ms"
        print(f"{name:52} {median:>6.2f} ms {adds}", flush=True)


def unsent() -> Clients:
    """boto3's own client, whose calls are answered where they would be sent: what is left is the time of the code."""
    told = {"region_name": "us-east-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
    client = boto3.client("batch", **told)
    environment = {
        "computeEnvironmentName": "ec2",
        "computeEnvironmentArn": f"{ARN}:compute-environment/ec2",
        "state": "ENABLED",
        "status": "VALID",
        "type": "MANAGED",
        "computeResources": {"type": "EC2", "maxvCpus": 256, "instanceTypes": ["default_x86_64"], "subnets": []},
    }
    queue = {
        "jobQueueName": "highPriority",
        "jobQueueArn": f"{ARN}:job-queue/highPriority",
        "state": "ENABLED",
        "status": "VALID",
        "priority": 1000,
        "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": f"{ARN}:compute-environment/ec2"}],
    }
    named: dict[str, Any] = {}
    revision = {"jobDefinitionName": "task", "jobDefinitionArn": f"{ARN}:job-definition/task:1", "revision": 1}

    def submitted(asked: dict[str, Any]) -> dict[str, Any]:
        named[asked["jobName"]] = {"jobId": asked["jobName"], "status": "RUNNABLE", "tags": asked.get("tags", {})}
        return {"jobName": asked["jobName"], "jobId": asked["jobName"], "jobArn": f"{ARN}:job/{asked['jobName']}"}

    def known(names: list[str]) -> list[dict[str, Any]]:
        return [named[one] for one in names if one in named]

    answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "SubmitJob": submitted,
        "RegisterJobDefinition": lambda asked: revision,
        "DescribeJobDefinitions": lambda asked: {"jobDefinitions": []},
        "DescribeJobQueues": lambda asked: {"jobQueues": [queue]},
        "DescribeComputeEnvironments": lambda asked: {"computeEnvironments": [environment]},
        "ListJobs": lambda asked: {
            "jobSummaryList": [named[one] for one in asked["filters"][0]["values"] if one in named]
        },
        "DescribeJobs": lambda asked: {"jobs": [named[one] for one in asked["jobs"]]},
    }

    def answer(model: Any, params: dict[str, Any], **_: Any) -> tuple[Any, dict[str, Any]]:
        return SimpleNamespace(status_code=200), answers[model.name](json.loads(params["body"]))

    client.meta.events.register("before-call.batch", answer)
    return Clients(Settings(), batch=client)


# --- watching


def watching(what: str, settings: Settings, start: Callable[[Clients], list[str]]) -> None:
    here = backends.clients(settings)
    paced = Clients(Settings(backend="aws", region="us-east-1", home=settings.home), **{
        name: here.client(name) for name in ("batch", "logs", "cloudformation")
    })  # fmt: skip
    ids = start(here)
    calls: Counter[str] = Counter()
    here.batch.meta.events.register("provide-client-params", lambda model, **_: calls.update([model.name]))
    process, watch, ends = psutil.Process(), Watch(paced, jobs=ids), time.monotonic() + MINUTE
    watch.chosen = ids[0]
    used = sum(process.cpu_times()[:2])
    while (snapshot := watch.look()).next_s and time.monotonic() < ends:
        time.sleep(snapshot.next_s)
    share = (sum(process.cpu_times()[:2]) - used) / MINUTE
    for operation, count in sorted(calls.items()):
        print(f"{f'{what}, Watch':52} {count:>9,} {operation}")
    print(f"{f'{what}, Watch: this process':52} {share:>9.1%} of one core")
    seen = ", ".join(f"{count:,} {status}" for status, count in snapshot.counts.items() if count)
    print(f"{f'{what}, as last seen':52} {seen}")
    jobs = ids if len(ids) > 1 else [f"{ids[0]}:{index}" for index in range(10_000)]
    began = time.perf_counter()
    for job_id in jobs[:1000]:
        here.batch.describe_jobs(jobs=[job_id])
    each = (time.perf_counter() - began) / len(jobs[:1000])
    naive = f"{what}, a call a job, {each * 1000:.1f} ms each"
    print(f"{naive:52} {len(jobs) * 60 / (each * len(jobs) + paced.backend.poll_s):>9,.0f} describe_jobs", flush=True)


def sleeper(clients: Clients, seconds: str) -> str:
    task = Batch(clients).define("sleeper", command=["sleep", seconds], vcpus=1, memory_gib=0.1)
    return Batch(clients).submit(task).id


def array(clients: Clients, size: int) -> str:
    task = Batch(clients).define("true", command=["true"], vcpus=1, memory_gib=0.1)
    return Batch(clients).submit(task, size=size).id


# --- accounts


@contextmanager
def account() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "account")
        try:
            yield settings
        finally:
            backends.account(settings).stop()


def hold(clients: Clients) -> None:
    """Fill the machine, so that what is submitted waits and takes no time from what is measured."""
    cores = psutil.cpu_count() or 2
    batch = Batch(clients)
    gate = batch.submit(batch.define("gate", command=["sleep", "600"], vcpus=cores, memory_gib=0.1))
    while gate.status != "RUNNING":
        threading.Event().wait(0.05)


if __name__ == "__main__":
    main()
