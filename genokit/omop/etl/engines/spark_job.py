"""The program that Spark runs: ``spark_job.py PLAN.json`` makes each table of a plan, here or on a cluster.

It imports nothing of genokit, which is not installed where it runs, and works with the Python 3.9 of EMR's images. The
plan lists the tables that exist and those to make::

    {"inputs": {"mimic3.patients": ["folder or file", ...]},
     "steps": [{"table": "cdm.person", "key": "...", "path": "folder", "sql": "SELECT ..."}]}

A finished table has ``_about.json`` in its folder, written last: a folder without it is unfinished, and is overwritten.
A failure is in ``PLAN.json.failed``: of an error the kinds, not the text, as Spark's messages quote values. With a
second argument, ``attached``, it ends when its input does: then the process that started it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from typing import Any

SETTINGS = {
    "spark.sql.catalogImplementation": "in-memory",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.session.timeZone": "UTC",
    # Clinical times have no time zone; DuckDB's Parquet says the same of them.
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
    # Failures are reported below. Spark's own log would quote values.
    "spark.log.level": "FATAL",
}
# Their messages are about names, folders and permissions, never about values.
OUTSPOKEN = ("java.io.", "java.nio.", "java.net.", "org.apache.hadoop.", "com.amazonaws.", "software.amazon.")


class Files:
    """Hadoop's file systems: a folder of this machine and s3:// alike."""

    def __init__(self, spark: Any) -> None:
        self.jvm = spark.sparkContext._jvm
        self.configuration = spark.sparkContext._jsc.hadoopConfiguration()

    def open(self, path: str) -> tuple[Any, Any]:
        """A file system, and the path in its own type."""
        where = self.jvm.org.apache.hadoop.fs.Path(path)
        system = where.getFileSystem(self.configuration)
        system.setWriteChecksum(False)  # no .crc files beside the data
        return system, where

    def parquet(self, folder: str) -> list[str]:
        system, where = self.open(folder)
        names = [str(status.getPath().getName()) for status in system.listStatus(where)]
        return sorted(name for name in names if name.endswith(".parquet") and not name.startswith(("_", ".")))

    def write(self, path: str, text: str) -> None:
        """Write a file whole or not at all."""
        system, part = self.open(path + ".part")
        stream = system.create(part, True)
        stream.write(bytearray(text.encode()))
        stream.close()
        target = self.open(path)[1]
        system.delete(target, False)
        system.rename(part, target)


def end_with_input() -> None:
    """End this process, and with it Spark's Java, when the input closes."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def register(spark: Any, files: Files, table: str, paths: list[str]) -> None:
    """Register Parquet files as a table."""
    spark.sql("CREATE DATABASE IF NOT EXISTS `{}`".format(table.partition(".")[0]))
    folders = {path.rpartition("/")[0] for path in paths}
    if len(paths) > 1 and len(folders) == 1:
        folder = folders.pop()
        if files.parquet(folder) == sorted(path.rpartition("/")[2] for path in paths):
            paths = [folder]
    if len(paths) == 1:
        spark.catalog.createTable(table, path=paths[0], source="parquet")
        return
    parts = ["SELECT * FROM parquet.`{}`".format(path.replace("`", "``")) for path in paths]
    spark.sql(f"CREATE VIEW {table} AS " + " UNION ALL ".join(parts))


def make(spark: Any, files: Files, step: dict[str, str]) -> None:
    """Make one table."""
    begun = time.time()
    files.open(step["path"])  # from here on without .crc files beside the rows
    spark.sql(step["sql"]).write.mode("overwrite").parquet(step["path"])
    rows = spark.read.parquet(step["path"]).count()  # from the files' footers
    about = {"table": step["table"], "key": step["key"], "rows": rows, "seconds": round(time.time() - begun, 3)}
    files.write(step["path"] + "/_about.json", json.dumps(about))
    register(spark, files, step["table"], [step["path"]])


def kinds(error: BaseException) -> str:
    """The kinds of an error and its causes, without any values.

    >>> kinds(ValueError("a patient's name"))
    'ValueError'
    """
    names, cause = [], getattr(error, "_origin", None) or getattr(error, "java_exception", None)
    while cause is not None:
        name, message = str(cause.getClass().getName()), str(cause.getMessage())
        condition = re.match(r"\[[A-Z0-9_.]+\]", message)
        if name.startswith(OUTSPOKEN) or name.endswith(("AnalysisException", "ParseException")):
            names.append(f"{name}: {message.splitlines()[0][:300]}")
        else:
            names.append(f"{name} {condition.group()}" if condition else name)
        cause = cause.getCause()
    return " <- ".join(dict.fromkeys(names)) or type(error).__name__


def main(plan: str) -> int:
    """Make all tables of a plan; returns 1 where one fails, and those after it are not begun."""
    from pyspark.sql import SparkSession

    logging.disable()  # pyspark writes each error to the output, with values in it
    builder = SparkSession.builder.appName("genokit omop")
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    what, files = f"the plan {plan}", Files(spark)
    try:
        content = json.loads(spark.read.text(plan, wholetext=True).head()[0])
        for table, paths in content["inputs"].items():
            what = table
            register(spark, files, table, paths)
        for step in content["steps"]:
            what = step["table"]
            make(spark, files, step)
    except Exception as error:
        files.write(plan + ".failed", json.dumps({"table": what, "error": kinds(error)}))
        return 1
    finally:
        spark.stop()
    return 0


if __name__ == "__main__":
    if sys.argv[2:] == ["attached"]:
        threading.Thread(target=end_with_input, daemon=True).start()
    sys.exit(main(sys.argv[1]))
