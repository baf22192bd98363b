"""etl: MIMIC-III to a CDM in a folder or a bucket, made again only where something changed, and published as a whole.

    source --inputs.stage--> mimic3, vocab --engine.build--> stage, cdm, report --publish--> target

Each step hands on its ``MadeTable``s. They lie in a ``ResultStore``: a folder for each table, named by its key, so that
the folders are the ledger.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from genokit import backends, storage
from genokit.errors import InvalidParameters, QualityFailed, did_you_mean
from genokit.files import mark, private_folder, restrict
from genokit.omop.etl import inputs, publish, report, transform
from genokit.omop.etl.engines.athena import Athena
from genokit.omop.etl.engines.duck import DuckDB
from genokit.omop.etl.engines.spark import Spark
from genokit.omop.etl.plan import TableStep, digest, plan
from genokit.omop.etl.result_store import MadeTable, ResultStore
from genokit.omop.etl.source import Source
from genokit.omop.etl.vocabulary import Vocabulary
from genokit.omop.quality.quality import results

if TYPE_CHECKING:
    from genokit.backends import Clients

MAPPED, ACCOUNTS = "report.mapped", "report.accounts"


Engine = DuckDB | Spark | Athena


def etl(
    source: Source | str | os.PathLike[str],
    target: str | os.PathLike[str],
    engine: str | Engine = "duckdb",
    *,
    known: Vocabulary | None = None,
    clients: Clients | None = None,
    progress: bool = True,
) -> report.Report:
    """Convert MIMIC-III to the OMOP CDM 5.4 as Parquet, a folder for each table, and report what became of every row.

    A table is made only if its SQL, what it reads or the engine changed since the last run. A run that was interrupted
    or killed continues when it is called again. Rows of the source that cannot be read are set aside and listed in
    ``rejected.csv``. The new CDM is checked before it is published.

    Parameters
    ----------
    source : Source, str or path
        MIMIC-III's tables: a folder of this machine, or ``s3://bucket/folder``.
    target : str or path
        A folder of this machine, or ``s3://bucket/prefix``. In a folder, ``target/cdm`` changes from the old CDM to the
        new one in one step, and ``target/omop.duckdb`` shows it as views.
    engine : {"duckdb", "spark", "athena"} or an engine, default "duckdb"
        What makes the tables; with options as ``omop.DuckDB(memory_gib=1)``. Athena needs a target on S3.
    known : Vocabulary, optional
        What codes mean, from ``omop.vocabulary(...)`` (default: the kit's own lists).
    clients : Clients, optional
        Clients of AWS or of the embedded account (default: those of the settings).
    progress : bool, default True
        Whether to show a progress bar.

    Returns
    -------
    Report
        A card in a notebook: rows in, out and rejected, shares of mapped rows, quality.

    Raises
    ------
    QualityFailed
        Where the new CDM fails a mandatory check: then the target is unchanged.
    InvalidSource, NotFound, InvalidParameters, TransformFailed
        Where the source cannot be read, the target cannot be written, or a table cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> from genokit import omop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source = omop.synthetic(f"{folder}/mimiciii", persons=5, density=0.01, progress=False)
    ...     report = omop.etl(source, f"{folder}/omop", progress=False)
    >>> report.tables["state"].value_counts().to_dict()
    {'made': 39}
    >>> report.missing, len(report.rejected), int(report.tables.set_index("table").loc["person", "rows"])
    ((), 0, 5)
    """
    from genokit.bars import Bar

    begun, target = time.perf_counter(), os.fspath(target).rstrip("/")
    clients, known = clients or backends.clients(), known or Vocabulary()
    source = source if isinstance(source, Source) else Source(source, clients=clients)
    engine = _engine(engine, target, clients)
    here, on_aws = _workplace(target, clients), storage.is_s3(target) and not isinstance(engine, DuckDB)
    work = ResultStore(f"{target}/work", clients) if on_aws else here
    with _locked(here, target), Bar(desc=source.title, unit="table", disable=not progress) as bar:

        def tell(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        keys = inputs.keys(source, known, here)
        steps = plan(engine.name, engine.dialect, keys)
        with (engine if isinstance(engine, DuckDB) else DuckDB()).connect(here.scratch) as con:
            staged = inputs.stage(con, source, known, here, keys, tell)
        made, new = _build(engine, steps, staged, work, tell)
        tell("quality")
        reports = {table: work.rows(one) for table, one in made.items() if table.startswith("report.")}
        quality = results({table: rows for table, rows in reports.items() if table not in (MAPPED, ACCOUNTS)})
        if count := len(quality.fatal):
            raise QualityFailed(
                f"The new CDM failed {count} mandatory check{'s' * (count > 1)} (first: {quality.fatal['checkid'][0]}) "
                f"and was not published; '{target}' is unchanged. error.quality shows them all. Correct the source or "
                "the SQL and run again: only what changed is made again.",
                quality=quality,
            )
        tell("publish")
        bad, cdm = inputs.rejected(staged.values()), [one for table, one in made.items() if table.startswith("cdm.")]
        if storage.is_s3(target):
            publish.to_s3(clients, target, cdm, bad, engine.database if isinstance(engine, Athena) else None)
        else:
            publish.to_folder(Path(target), cdm, bad)
        mapped = transform.shares(reports[MAPPED])
        done = report.Report(
            source.title,
            target,
            engine.name,
            report.tables({**staged, **made}, new, mapped),
            report.accounts(staged.values(), reports[ACCOUNTS]),
            mapped,
            quality,
            bad,
            time.perf_counter() - begun,
        )
        keys |= {step.table: step.key for step in steps}
        for store in (here, work):
            store.sweep(keys)
        if isinstance(engine, Athena):
            engine.sweep({table: work.folder(table, key) for table, key in keys.items()})
    return done


def _engine(engine: str | Engine, target: str, clients: Clients) -> Engine:
    if isinstance(engine, str):
        engines: dict[str, Engine] = {
            "duckdb": DuckDB(),
            "spark": Spark(clients=clients),
            "athena": Athena(clients=clients),
        }
        if engine not in engines:
            raise InvalidParameters(f"There is no engine '{engine}'. {did_you_mean(engine, engines)}")
        engine = engines[engine]
    if isinstance(engine, Athena) and not storage.is_s3(target):
        raise InvalidParameters(
            f"Athena writes to S3 only, not to '{target}'. Name a target such as s3://bucket/omop, or another engine."
        )
    return engine


def _workplace(target: str, clients: Clients) -> ResultStore:
    """Where this machine works: in the target's folder, or in the cache for a target on S3."""
    if storage.is_s3(target):
        return ResultStore(clients.settings.made("cache") / "omop" / digest(target)[:16])
    publish.check(Path(target))
    private_folder(target, data=True)
    return ResultStore(Path(target).resolve() / ".work")


def _build(
    engine: Engine,
    steps: Sequence[TableStep],
    staged: Mapping[str, MadeTable],
    work: ResultStore,
    tell: Callable[[str], object],
) -> tuple[dict[str, MadeTable], set[str]]:
    """Make the tables that are missing; returns all of them, and the names of those that were made."""
    made = {step.table: one for step in steps if (one := work.find(step.table, step.key))}
    missing = [step for step in steps if step.table not in made]
    available = {**staged, **made}
    needed = {table: available[table] for step in missing for table in step.reads if table in available}
    for table in sorted(needed.keys() & staged.keys()) if work.is_s3 else ():
        tell(f"upload {table}")
        needed[table] = work.copy(staged[table])
    if missing:
        engine.build(missing, needed, work, tell)
    found = {step.table: made.get(step.table) or work.find(step.table, step.key) for step in steps}
    return {table: one for table, one in found.items() if one}, {step.table for step in missing}


@contextmanager
def _locked(here: ResultStore, target: str) -> Iterator[None]:
    """Hold the target for this run. Raises InvalidParameters where another run has it."""
    root = mark(restrict(private_folder(here.root)))
    with (root / "lock").open("w") as lock:
        restrict(root / "lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidParameters(
                f"Another run is writing to '{target}'. Wait until it has ended, or name another target."
            ) from None
        shutil.rmtree(here.scratch, ignore_errors=True)  # of a run that was killed
        here.scratch.mkdir(0o700)
        yield
