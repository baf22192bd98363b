"""Spark as an engine: on this machine or a cluster that it knows, and for targets on S3 the stack's EMR Serverless."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.errors import MissingDependency
from genokit.omop.etl.engines import emr_serverless, spark_job
from genokit.omop.etl.engines.spark_plan import Waiting, failure, plan_of

if TYPE_CHECKING:
    from genokit.backends import Clients
    from genokit.omop.etl.plan import TableStep
    from genokit.omop.etl.result_store import MadeTable, ResultStore

HERE = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.sql.shuffle.partitions": "8"}

POLL_S = 0.2


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
            self._run(plan_of(steps, inputs, work), Waiting(list(steps), work, progress))

    def _run(self, content: str, waiting: Waiting) -> None:
        variables = environment()
        options = ["--master", self.master, "--driver-memory", f"{round(self.memory_gib * 1024)}m"]
        for name, value in (HERE | dict(self.settings)).items():
            options += ["--conf", f"{name}={value}"]
        variables["PYSPARK_SUBMIT_ARGS"] = shlex.join([*options, "pyspark-shell"])
        with tempfile.TemporaryDirectory(prefix="genokit-spark-") as scratch, open(f"{scratch}/log", "w+") as log:
            plan = Path(scratch, "plan.json")
            plan.write_text(content, encoding="utf-8")
            with subprocess.Popen(
                [sys.executable, spark_job.__file__, plan, "attached"], stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL, stderr=log, env=variables, cwd=scratch, start_new_session=True,
            ) as process:  # fmt: skip
                try:
                    while process.poll() is None:
                        waiting.look()
                        time.sleep(POLL_S)
                finally:
                    process.kill()  # the next run makes again what is unfinished
            if process.returncode:
                log.seek(0)
                last = " / ".join(line for line in log.read().splitlines() if line.strip())[-600:]
                ended = f"its process ended with {process.returncode}: {last}"
                raise failure(str(plan), ended, "Is there enough memory_gib, and is SPARK_HOME right?")


def environment() -> dict[str, str]:
    """The variables by which Python finds the pyspark of SPARK_HOME or of the package, and pyspark this Python.

    Raises MissingDependency where there is no Spark or no Java.
    """
    package, java = find_spec("pyspark"), os.environ.get("JAVA_HOME")
    home = os.environ.get("SPARK_HOME") or (os.path.dirname(package.origin) if package and package.origin else "")
    packages = [str(file) for file in sorted(Path(home, "python", "lib").glob("*.zip"))] if home else []
    if not packages:
        raise MissingDependency(
            f"There is no Spark {f'in {home!r}' if home else 'on this machine'}: pip install 'genokit[spark]', or set "
            "SPARK_HOME to the folder of a Spark, which has py4j in python/lib."
        )
    if not shutil.which(str(Path(java, "bin", "java")) if java else "java"):
        raise MissingDependency(
            "Spark needs Java 17 or 21, which is not on this machine: conda install openjdk=17, or on Debian, Ubuntu "
            "apt-get install openjdk-17-jre-headless. If it is installed, set JAVA_HOME to its folder."
        )
    return os.environ | {
        "SPARK_HOME": home,
        "PYTHONPATH": os.pathsep.join(packages),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_HOSTNAME": os.environ.get("SPARK_LOCAL_HOSTNAME", "localhost"),
    }
