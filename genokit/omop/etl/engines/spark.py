"""Spark makes the tables: a Spark of this machine or a cluster it knows, and on S3 the stack's EMR Serverless."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.errors import MissingDependency, TransformFailed
from genokit.omop.etl.engines import spark_job

if TYPE_CHECKING:
    from genokit.backends import Clients
    from genokit.omop.etl.plan import Step
    from genokit.omop.etl.result_store import Bucket, Folder

# Statements are many and most tables small: two hundred parts of each would be mostly waiting.
HERE = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.sql.shuffle.partitions": "8"}


@dataclass(frozen=True)
class Spark:
    """Spark as the engine of an ETL: for data that outgrow one machine.

    Results in a folder are made by the Spark of this machine (``pip install 'genokit[spark]'``, or SPARK_HOME), in a
    process of its own that ends with this one; ``master`` names its cores, ``local[4]``, or a cluster that sees the
    folder too. Results on S3 are made by EMR Serverless, as the stack 'omop' deploys it. ``settings`` are Spark's own.

    >>> Spark("local[2]", settings={"spark.local.dir": "/scratch"}).dialect
    'spark'
    """

    master: str = "local[*]"
    memory_gib: float = 2
    settings: Mapping[str, str] = field(default_factory=dict)
    home: str | os.PathLike[str] | None = None
    clients: Clients | None = None

    name = "spark"
    dialect = "spark"

    def build(
        self,
        steps: Sequence[Step],
        inputs: Mapping[str, Sequence[str]],
        work: Folder | Bucket,
        progress: Callable[[str], object],
    ) -> None:
        """Make each step, in this order. Raises MissingDependency, TransformFailed; on S3 also what AWS refuses."""
        if not steps:
            return
        if str(work.root).startswith("s3://"):
            from genokit.omop.etl.engines import emr_serverless

            emr_serverless.run(self.clients, steps, inputs, work, progress, settings=self.settings)
        else:
            self._run(plan_of(steps, inputs, work), progress)

    def check(self) -> None:
        """Nothing, where this machine has a Spark and its Java. Raises MissingDependency."""
        _environment(self.home)

    def _run(self, plan: str, progress: Callable[[str], object]) -> None:
        environment = _environment(self.home)
        told = HERE | dict(self.settings)
        options = ["--master", self.master, "--driver-memory", f"{round(self.memory_gib * 1024)}m"]
        options += [word for name, value in told.items() for word in ("--conf", f"{name}={value}")]
        environment["PYSPARK_SUBMIT_ARGS"] = shlex.join([*options, "pyspark-shell"])
        with tempfile.TemporaryDirectory(prefix="genokit-spark-") as scratch, open(f"{scratch}/log", "w+") as log:
            file = Path(scratch, "plan.json")
            file.write_text(plan, encoding="utf-8")
            command = [sys.executable, spark_job.__file__, str(file), "attached"]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
                cwd=scratch, start_new_session=True,
            ) as process:  # fmt: skip
                try:
                    failed = _follow(process, progress)
                    code = process.wait()
                finally:
                    process.kill()  # what is left unfinished is made anew the next time
            if code:
                log.seek(0)
                raise _failure(failed, code, log.read())


def plan_of(steps: Sequence[Step], inputs: Mapping[str, Sequence[str]], work: Folder | Bucket) -> str:
    """What ``spark_job.py`` is told: the tables that are there and needed, and those to make."""
    needed = {table for step in steps for table in step.reads} - {step.table for step in steps}
    told = [
        {"table": one.table, "key": one.key, "path": work.path(one.table, one.key), "sql": one.sql} for one in steps
    ]
    return json.dumps({"inputs": {table: list(inputs[table]) for table in sorted(needed)}, "steps": told})


def _follow(process: subprocess.Popen[str], progress: Callable[[str], object]) -> dict[str, str]:
    """Tell of each table as it begins; what the job says of its failure."""
    failed: dict[str, str] = {}
    for line in process.stdout or ():
        if not line.startswith('{"event"'):
            continue
        told = json.loads(line)
        if told["event"] == "begun":
            progress(told["table"])
        if told["event"] == "failed":
            failed = told
    return failed


def _failure(failed: Mapping[str, str], code: int, log: str) -> TransformFailed:
    if failed:
        return failure(failed["table"], failed["error"], "What is made already stays, and is not made again.")
    last = " / ".join(line for line in log.splitlines() if line.strip())[-600:]
    return failure("", f"its process ended with {code}: {last}", "Give it more memory_gib, or look at SPARK_HOME.")


def failure(table: str, reason: str, step: str) -> TransformFailed:
    """What went wrong where, without any value of a row."""
    what = f"Spark could not make the table '{table}'" if table else "Spark could not go on"
    return TransformFailed(f"{what}: {reason.rstrip('.')}. {step}", table=table)


def _environment(home: str | os.PathLike[str] | None) -> dict[str, str]:
    """The variables by which Python finds pyspark, and that the Java of this machine."""
    place = _home(home)
    java = os.environ.get("JAVA_HOME")
    if not shutil.which(str(Path(java, "bin", "java")) if java else "java"):
        raise MissingDependency(
            "Spark needs Java 17 or 21, which is not on this machine: conda install openjdk=17, or on Debian, Ubuntu "
            "apt-get install openjdk-17-jre-headless. If it is there, JAVA_HOME must name its folder."
        )
    packages = [str(file) for file in sorted((place / "python" / "lib").glob("*.zip"))]
    return os.environ | {
        "SPARK_HOME": str(place),
        "PYTHONPATH": os.pathsep.join(packages),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_HOSTNAME": os.environ.get("SPARK_LOCAL_HOSTNAME", "localhost"),
    }


def _home(home: str | os.PathLike[str] | None) -> Path:
    """The folder of a Spark: the one that is named, SPARK_HOME, pyspark's, or that of spark-submit on the PATH."""
    named = home or os.environ.get("SPARK_HOME")
    package, program = find_spec("pyspark"), shutil.which("spark-submit")
    if named:
        place = Path(named)
    elif package and package.origin:
        place = Path(package.origin).parent
    elif program:
        place = Path(program).resolve().parents[1]
    else:
        raise MissingDependency(
            "Spark is not on this machine: pip install 'genokit[spark]', or name the folder of a Spark in SPARK_HOME."
        )
    if not list((place / "python" / "lib").glob("py4j*.zip")):
        raise MissingDependency(f"'{place}' is not the folder of a Spark: it lacks python/lib/py4j. Set SPARK_HOME.")
    return place
