"""Other tools, unchanged, on the embedded account: `make test-clients` runs them in an environment of their own.

Each is told what it would be told of AWS (a queue, an image, an address in S3, a role), and the rest by the lines that
`genokit local serve` prints. Their jobs are of image genokit: processes of the environment that serves.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded import Box

from genokit import Settings, backends

pytestmark = pytest.mark.clients

PROGRAMS = (Path(os.environ.get("CLIENTS", ".venv-clients")) / "bin").absolute()
ROLE = "arn:aws:iam::000000000000:role/none"

FLOW = """
from metaflow import FlowSpec, step


class ForeachFlow(FlowSpec):
    @step
    def start(self):
        self.titles = ["Stranger Things", "House of Cards", "Narcos"]
        self.next(self.a, foreach="titles")

    @step
    def a(self):
        self.title = "%s processed" % self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.results = [input.title for input in inputs]
        self.next(self.end)

    @step
    def end(self):
        print("\\n".join(self.results))


if __name__ == "__main__":
    ForeachFlow()
"""

RULES = """
rule all:
    input: "counts.txt"

rule count:
    output: "counts/{sample}.txt"
    shell: "echo {wildcards.sample} in $AWS_BATCH_JQ_NAME > {output}"

rule gather:
    input: expand("counts/{sample}.txt", sample=["a", "b"])
    output: "counts.txt"
    shell: "cat {input} > {output}"
"""

WORKFLOW = """
from redun import task

redun_namespace = "example"


@task(executor="batch", vcpus=1, memory=1)
def length(sequence: str) -> int:
    return len(sequence)


@task(executor="batch", script=True, vcpus=1, memory=1)
def upper(sequence: str) -> str:
    return f"echo {sequence} | tr a-z A-Z"


@task()
def total(lengths: list) -> int:
    return sum(lengths)


@task()
def main() -> list:
    return [total([length(one) for one in ["ac", "acg", "t"]]), upper("acgt")]
"""

EXECUTOR = """
[executors.batch]
type = aws_batch
image = genokit
queue = highPriority
s3_scratch = s3://genokit/redun/
job_monitor_interval = 1
"""


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("account"))


@pytest.fixture(scope="module")
def shell(account: Settings) -> Iterator[dict[str, str]]:
    """The environment of a shell into which the lines of ``genokit local serve`` were pasted."""
    clean = {name: os.environ[name] for name in ("LANG", "TMPDIR", "SSL_CERT_FILE") if name in os.environ}
    clean |= {"PATH": f"{PROGRAMS}:/usr/local/bin:/usr/bin:/bin", "HOME": str(account.home), "USER": "me"}
    with subprocess.Popen(
        [PROGRAMS / "python", "-m", "genokit", "local", "serve"],
        env=clean | account.environ() | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True,
    ) as served:  # fmt: skip
        lines = []
        for line in served.stdout:
            if "Ctrl-C" in line:
                break
            lines.append(line)
        pasted = "\n".join(line for line in lines if line.startswith(("export", "unset")))
        said = subprocess.run(["sh", "-c", f"{pasted}\nenv -0"], env=clean, capture_output=True, text=True, check=True)
        try:
            yield dict(pair.split("=", 1) for pair in said.stdout.split("\0") if pair)
        finally:
            served.terminate()
            backends.account(account).stop()


def ran(folder: Path, shell: dict[str, str], *command: str, **more: str) -> str:
    """What a program says that ends well."""
    program, *words = command
    with contextlib.chdir(folder):
        done = subprocess.run(
            [PROGRAMS / program, *words], env=shell | more, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def succeeded(account: Settings, prefix: str) -> int:
    pages = Box(account).batch.list_jobs(
        jobQueue="highPriority", filters=[{"name": "JOB_NAME", "values": [f"{prefix}*"]}]
    )
    assert {one["status"] for one in pages["jobSummaryList"]} == {"SUCCEEDED"}
    return len(pages["jobSummaryList"])


def test_metaflow_s_tutorial_with_a_foreach_runs_with_batch(account: Settings, shell: dict[str, str], tmp_path: Path):
    (tmp_path / "flow.py").write_text(FLOW)
    said = ran(
        tmp_path, shell, "python", "flow.py", "run", "--with", "batch:memory=1024",
        METAFLOW_DEFAULT_DATASTORE="s3", METAFLOW_DATASTORE_SYSROOT_S3="s3://genokit/metaflow",
        METAFLOW_BATCH_JOB_QUEUE="highPriority", METAFLOW_BATCH_CONTAINER_IMAGE="genokit",
        METAFLOW_ECS_S3_ACCESS_IAM_ROLE=ROLE,
    )  # fmt: skip
    for title in ("Stranger Things", "House of Cards", "Narcos"):
        assert f"{title} processed" in said
    assert succeeded(account, "me-ForeachFlow-") == 6


def test_snakemake_s_plugin_runs_its_rules_as_jobs(account: Settings, shell: dict[str, str], tmp_path: Path):
    (tmp_path / "Snakefile").write_text(RULES)
    # A job installs the plugin of the storage: from where this machine's pip does.
    pip = " && ".join(f"export {name}={shlex.quote(value)}" for name, value in os.environ.items() if "PIP_" in name)
    ran(
        tmp_path, shell, "snakemake", "--jobs", "2", "--executor", "aws-batch", "--aws-batch-region", "us-east-1",
        "--aws-batch-job-queue", "highPriority", "--aws-batch-job-role", ROLE, "--container-image", "genokit",
        "--default-storage-provider", "s3", "--default-storage-prefix", "s3://genokit/snakemake",
        *(["--precommand", pip] if pip else []),
    )  # fmt: skip
    counts = backends.clients(account).s3.get_object(Bucket="genokit", Key="snakemake/counts.txt")["Body"].read()
    assert counts == b"a in highPriority\nb in highPriority\n"
    assert succeeded(account, "snakejob-") == 3


def test_redun_runs_its_tasks_and_scripts_as_jobs(account: Settings, shell: dict[str, str], tmp_path: Path):
    (tmp_path / "workflow.py").write_text(WORKFLOW)
    (tmp_path / ".redun").mkdir()
    (tmp_path / ".redun" / "redun.ini").write_text(EXECUTOR)
    said = ran(tmp_path, shell, "redun", "run", "workflow.py", "main")
    assert "[6, [0, b'ACGT\\n']]" in said
    assert succeeded(account, "redun-job-") == 4
