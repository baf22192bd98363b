"""The embedded Batch beside GNU parallel and xargs, in one run: trivial jobs a second, and what large arrays cost.

Of the three only the embedded Batch keeps the state, the log and the exit code of every job on disk.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from genokit import Settings, backends

SMALL = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "account")
        try:
            compare(settings)
        finally:
            backends.account(settings).stop()


def compare(settings: Settings) -> None:
    batch, cores = backends.clients(settings).batch, psutil.cpu_count()
    container = {"image": "genokit", "command": ["true"], "resourceRequirements": SMALL}
    batch.register_job_definition(jobDefinitionName="true", type="container", containerProperties=container)
    array(batch, 10)  # the supervisor is there, and every page of it is warm

    print(f"{'what':52} {'time':>9} {'rate':>14}")
    row("genokit, array of 1,000 x true", 1000, lambda: array(batch, 1000))
    for name, command in (
        ("GNU parallel, 1,000 x true", ["parallel", "--will-cite", f"-j{cores}", "true"]),
        ("xargs -P, 1,000 x true", ["xargs", f"-P{cores}", "-n1", "true"]),
    ):
        if shutil.which(command[0]):
            numbers = "\n".join(map(str, range(1000)))
            row(name, 1000, lambda command=command, numbers=numbers: subprocess.run(command, input=numbers, text=True))
        else:
            print(f"{name:52} {'not installed':>24}")

    gate = {"command": ["sleep", "600"]}
    blocker = batch.submit_job(
        jobName="gate", jobQueue="highPriority", jobDefinition="true", arrayProperties={"size": max(2, cores or 2)},
        containerOverrides=gate,
    )["jobId"]  # fmt: skip
    row("submit an array of 10,000", 10_000, lambda: submit(batch, 10_000))
    waiting = submit(batch, 10_000)
    row("describe its 10,000 children", 10_000, lambda: describe(batch, waiting))
    row("list its 10,000 children", 10_000, lambda: children(batch, waiting))
    supervisor = psutil.Process(int((settings.home / "supervisor.lock").read_text()))
    used = sum(supervisor.cpu_times()[:2])
    time.sleep(10)
    share = (sum(supervisor.cpu_times()[:2]) - used) / 10
    print(f"{'supervisor while 20,000 wait and a few run':52} {share:>8.2%} {mib(supervisor):>10.0f} MiB")
    for job_id in (waiting, blocker):
        batch.terminate_job(jobId=job_id, reason="measured")
    for other in batch.list_jobs(jobQueue="highPriority", jobStatus="PENDING")["jobSummaryList"]:
        batch.terminate_job(jobId=other["jobId"], reason="measured")
    row("genokit, array of 10,000 x true", 10_000, lambda: array(batch, 10_000))
    print(f"{'supervisor after it':52} {'':>9} {mib(supervisor):>10.0f} MiB")

    for name, count, code in (
        (
            "MiB of output, a GiB without a newline",
            1024,
            "import sys; [sys.stdout.write('x' * 2**20) for _ in range(1024)]",
        ),
        ("lines of output, a million", 1_000_000, "for number in range(1_000_000): print(number)"),
    ):
        row(name, count, lambda code=code: output(batch, code))


def row(name: str, count: int, work: Callable[[], Any]) -> None:
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    print(f"{name:52} {seconds:>7.2f} s {count / seconds:>12,.0f}/s", flush=True)


def submit(batch: Any, size: int) -> str:
    job = batch.submit_job(
        jobName="many", jobQueue="highPriority", jobDefinition="true", arrayProperties={"size": size}
    )
    return str(job["jobId"])


def array(batch: Any, size: int) -> None:
    job_id = submit(batch, size)
    while batch.describe_jobs(jobs=[job_id])["jobs"][0]["status"] not in ("SUCCEEDED", "FAILED"):
        time.sleep(0.1)


def output(batch: Any, code: str) -> None:
    resources = [{"type": "MEMORY", "value": "512"}]
    overrides = {"command": ["python", "-c", code], "resourceRequirements": resources}
    job = {"jobName": "output", "jobQueue": "highPriority", "jobDefinition": "true", "containerOverrides": overrides}
    job_id = batch.submit_job(**job)["jobId"]
    while batch.describe_jobs(jobs=[job_id])["jobs"][0]["status"] not in ("SUCCEEDED", "FAILED"):
        time.sleep(0.1)


def describe(batch: Any, job_id: str) -> None:
    for first in range(0, 10_000, 100):
        batch.describe_jobs(jobs=[f"{job_id}:{index}" for index in range(first, first + 100)])


def children(batch: Any, job_id: str) -> None:
    found, token = 0, {}
    while True:
        page = batch.list_jobs(arrayJobId=job_id, jobStatus="RUNNABLE", maxResults=1000, **token)
        found += len(page["jobSummaryList"])
        if "nextToken" not in page:
            assert found == 10_000, found
            return
        token = {"nextToken": page["nextToken"]}


def mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 2**20)


if __name__ == "__main__":
    main()
