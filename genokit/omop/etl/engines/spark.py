"""Spark as an engine: on this machine or a cluster that it knows, and for targets on S3 the stack's EMR Serverless."""

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
from genokit.omop.etl.engines import emr_serverless, spark_job
from genokit.omop.etl.engines.spark_plan import failure, plan_of

if TYPE_CHECKING:
    from genokit.backends import Clients
    from genokit.omop.etl.plan import TableStep
    from genokit.omop.etl.result_store import MadeTable, ResultStore

# There are many statements, and most tables are small: Spark's default of 200 partitions would mostly wait.
HERE = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.sql.shuffle.partitions": "8"}


@dataclass(frozen=True)
class Spark:
    """Spark as the engine of an ETL, for data too large for one machine.

    For a target in a folder, Spark runs on this machine (``pip install 'genokit[spark]'``, or SPARK_HOME) in a process
    that ends with this one; ``master`` is ``local[4]``, for four cores, or a cluster that has access to the folder.
    For a target on S3, it runs on EMR Serverless, which the stack 'omop' deploys. ``settings`` are Spark's own.

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
        steps: Sequence[TableStep],
        inputs: Mapping[str, MadeTable],
        work: ResultStore,
        progress: Callable[[str], object],
    ) -> None:
        """Make each step, in this order. Raises MissingDependency, TransformFailed; on S3 also what AWS refuses."""
        if work.is_s3:
            emr_serverless.run(self.clients, steps, inputs, work, progress, settings=self.settings)
        else:
            self._run(plan_of(steps, inputs, work), progress)

    def check(self) -> None:
        """Check that this machine has Spark and Java. Raises MissingDependency."""
        _environment(self.home)

    def _run(self, plan: str, progress: Callable[[str], object]) -> None:
        environment = _environment(self.home)
        options = ["--master", self.master, "--driver-memory", f"{round(self.memory_gib * 1024)}m"]
        for name, value in (HERE | dict(self.settings)).items():
            options += ["--conf", f"{name}={value}"]
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
                    process.kill()  # the next run makes again what is unfinished
            if code:
                log.seek(0)
                raise _failure(failed, code, log.read())


def _follow(process: subprocess.Popen[str], progress: Callable[[str], object]) -> dict[str, str]:
    """Show each table as it begins; returns the job's account of its failure."""
    failed: dict[str, str] = {}
    for line in process.stdout or ():
        if line.startswith('{"event"'):
            event = json.loads(line)
            if event["event"] == "begun":
                progress(event["table"])
            if event["event"] == "failed":
                failed = event
    return failed


def _failure(failed: Mapping[str, str], code: int, log: str) -> TransformFailed:
    if failed:
        return failure(failed["table"], failed["error"], "Finished tables are kept.")
    last = " / ".join(line for line in log.splitlines() if line.strip())[-600:]
    return failure("", f"its process ended with {code}: {last}", "Allow more memory_gib, or check SPARK_HOME.")


def _environment(home: str | os.PathLike[str] | None) -> dict[str, str]:
    """The variables by which Python finds pyspark, and pyspark finds this Python."""
    place = _home(home)
    java = os.environ.get("JAVA_HOME")
    if not shutil.which(str(Path(java, "bin", "java")) if java else "java"):
        raise MissingDependency(
            "Spark needs Java 17 or 21, which is not on this machine: conda install openjdk=17, or on Debian, Ubuntu "
            "apt-get install openjdk-17-jre-headless. If it is installed, set JAVA_HOME to its folder."
        )
    packages = [str(file) for file in sorted((place / "python" / "lib").glob("*.zip"))]
    return os.environ | {
        "SPARK_HOME": str(place),
        "PYTHONPATH": os.pathsep.join(packages),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_HOSTNAME": os.environ.get("SPARK_LOCAL_HOSTNAME", "localhost"),
    }


def _home(home: str | os.PathLike[str] | None) -> Path:
    """The folder of Spark: the one given, SPARK_HOME, pyspark's, or that of spark-submit on the PATH."""
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
            "Spark is not on this machine: pip install 'genokit[spark]', or set SPARK_HOME to the folder of a Spark."
        )
    if not list((place / "python" / "lib").glob("py4j*.zip")):
        raise MissingDependency(f"'{place}' is not the folder of a Spark: it lacks python/lib/py4j. Set SPARK_HOME.")
    return place
