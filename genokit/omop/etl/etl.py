"""etl: MIMIC-III to a CDM in a folder or a bucket, made anew only where something changed, and published as a whole.

    source --inputs.stage--> mimic3, vocab --engine.build--> stage, cdm, report --publish--> target

What lies between is a ``Work``: a folder for each table, named by its key, so that the folders are the ledger.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genokit import backends
from genokit.errors import InvalidParameters, QualityFailed, did_you_mean
from genokit.files import mark, private_folder, restrict
from genokit.omop.etl import inputs, publish, transform
from genokit.omop.etl.engines.athena import Athena
from genokit.omop.etl.engines.duck import DuckDB
from genokit.omop.etl.engines.spark import Spark
from genokit.omop.etl.plan import Step, digest, plan
from genokit.omop.etl.report import Report, accounts, tables
from genokit.omop.etl.result_store import Bucket, Folder
from genokit.omop.etl.source import Source
from genokit.omop.etl.vocabulary import Vocabulary
from genokit.omop.parquet import scan
from genokit.omop.quality.quality import results

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.backends import Clients
    from genokit.omop.quality.quality import Quality

MAPPED, ACCOUNTS = "report.mapped", "report.accounts"


class Engine(Protocol):
    """What makes tables of tables; DuckDB, Spark and Athena are such."""

    @property
    def name(self) -> str: ...

    @property
    def dialect(self) -> str: ...

    def build(
        self, steps: Sequence[Step], inputs: Mapping[str, list[str]], work: Any, progress: Callable[[str], object]
    ) -> None: ...


def etl(
    source: Source | str | os.PathLike[str],
    target: str | os.PathLike[str],
    engine: str | Engine = "duckdb",
    *,
    known: Vocabulary | None = None,
    clients: Clients | None = None,
    progress: bool = True,
) -> Report:
    """Make the CDM 5.4 of a MIMIC-III source as Parquet, a folder a table, and say what became of every row.

    ``target`` is a folder, or s3://bucket/prefix. In a folder, ``target/cdm`` changes from the old CDM to the new one
    in one step, and ``target/omop.duckdb`` shows it as views. ``engine``: "duckdb", "spark" or "athena", or one with
    its options, as DuckDB(memory_gib=1). ``known`` is what codes mean: ``vocabulary(...)``, or the kit's own lists.

    A table is made only if its SQL, what it reads or the engine changed since the last run. A run that was broken off
    goes on from there when it is called again. Bad rows of the source are set aside and listed in ``rejected.csv``.
    Raises InvalidSource, NotFound, TransformFailed; QualityFailed where the new CDM breaks a rule without which a CDM
    is none: then the target is as it was.
    """
    clients, known, target = clients or backends.clients(), known or Vocabulary(), os.fspath(target).rstrip("/")
    source = source if isinstance(source, Source) else Source(source, clients=clients)
    engine, begun = _engine(engine, clients), time.perf_counter()
    here = _here(target, clients)
    work: Folder | Bucket = here
    if target.startswith("s3://") and not isinstance(engine, DuckDB):
        work = Bucket(clients.s3, f"{target}/work")
    with _alone(here, target), _told(source.title, progress) as tell:
        given = inputs.keys(source, known, here)
        steps = plan(engine.name, engine.dialect, given)
        keys = given | {step.table: step.key for step in steps}
        with (engine if isinstance(engine, DuckDB) else DuckDB()).connect(here.scratch) as con:
            inputs.stage(con, source, known, here, given, tell)
        made = _build(engine, steps, keys, here, work, tell)
        tell("quality")
        reports = _frames(work, {table: key for table, key in keys.items() if table.startswith("report.")})
        found = results({name: rows for name, rows in reports.items() if name not in (MAPPED, ACCOUNTS)})
        if len(found.fatal):
            raise QualityFailed(_unfit(target, found), quality=found)
        tell("publish")
        bad, cdm = inputs.rejected(here, given), {table: keys[table] for table in keys if table.startswith("cdm.")}
        if target.startswith("s3://"):
            database = engine.database if isinstance(engine, Athena) else None
            publish.remote(clients, work, target, cdm, bad, database)
        else:
            publish.local(here, Path(target), cdm, bad)
        about = {table: (here if table in given else work).done(table, key) or {} for table, key in keys.items()}
        mapped = transform.shares(reports[MAPPED])
        report = Report(
            source.title,
            target,
            engine.name,
            tables(about, made, mapped),
            accounts(about, reports.get(ACCOUNTS)),
            mapped,
            found,
            bad,
            time.perf_counter() - begun,
        )
        _sweep(engine, here, work, keys)
    return report


def _engine(engine: str | Engine, clients: Clients) -> Engine:
    engines: dict[str, Engine] = {
        "duckdb": DuckDB(),
        "spark": Spark(clients=clients),
        "athena": Athena(clients=clients),
    }
    if not isinstance(engine, str):
        return engine
    if engine not in engines:
        raise InvalidParameters(f"There is no engine '{engine}'. {did_you_mean(engine, engines)}")
    return engines[engine]


def _here(target: str, clients: Clients) -> Folder:
    """Where this machine works: beside the target, or in the cache for a target on S3."""
    if target.startswith("s3://"):
        return Folder(clients.settings.made("cache") / "omop" / digest(target)[:16])
    publish.check(Path(target))
    private_folder(target, data=True)
    return Folder(Path(target).resolve() / ".work")


def _build(
    engine: Engine,
    steps: Sequence[Step],
    keys: Mapping[str, str],
    here: Folder,
    work: Folder | Bucket,
    tell: Callable[[str], object],
) -> set[str]:
    """Have what is missing made, and nothing else; returns the tables that were."""
    missing = [step for step in steps if work.done(step.table, step.key) is None]
    needed = sorted({table for step in missing for table in step.reads} - {step.table for step in missing})
    if isinstance(work, Bucket):
        for table in needed:
            if table in transform.sources():
                tell(f"upload {table}")
                work.bring(here, table, keys[table])
    if missing:
        engine.build(missing, {table: work.files(table, keys[table]) for table in needed}, work, tell)
    return {step.table for step in missing}


def _frames(work: Folder | Bucket, reports: Mapping[str, str]) -> dict[str, DataFrame]:
    """The rows of each report, which are few."""
    import duckdb

    frames = {}
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        for table, key in reports.items():
            files = work.fetch(table, key, Path(folder))
            if files:  # Athena writes none where no row is
                frames[table] = con.execute(f"select * from {scan(files)}").df()
    return frames


def _unfit(target: str, found: Quality) -> str:
    first = found.fatal.iloc[0]
    where = ".".join(str(first[name]) for name in ("cdm_table_name", "cdm_field_name") if first[name])
    return (
        f"The new CDM is not fit to replace what is at '{target}', which is as it was: {len(found.fatal)} checks "
        f"without which a CDM is none failed, first {first['check_name']} of '{where}'. error.quality "
        "shows them all. Mend the source or the SQL and run again: only what that changes is made anew."
    )


def _sweep(engine: Engine, here: Folder, work: Folder | Bucket, keys: Mapping[str, str]) -> None:
    """Remove the results that no run from the same source would use again."""
    for place in (here, work):
        place.sweep(place.path(table, key) for table, key in keys.items())
    if isinstance(engine, Athena):
        engine.sweep({table: work.path(table, key) for table, key in keys.items()})


@contextmanager
def _alone(here: Folder, target: str) -> Iterator[None]:
    """Hold the target for this run. Raises InvalidParameters where another run has it."""
    mark(restrict(private_folder(here.root)))
    with (here.root / "lock").open("w") as lock:
        restrict(here.root / "lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidParameters(
                f"Another run is writing to '{target}'. Wait until it has ended, or name another target."
            ) from None
        shutil.rmtree(here.scratch, ignore_errors=True)  # of a run that was killed
        here.scratch.mkdir(0o700)
        yield


@contextmanager
def _told(title: str, shown: bool) -> Iterator[Callable[[str], object]]:
    """A bar that counts what was begun, and names it."""
    from genokit.bars import Bar

    with Bar(desc=title, unit="table", disable=not shown) as bar:

        def tell(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        yield tell
