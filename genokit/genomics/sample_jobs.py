"""A cohort's workflow: the jobs that its samples still need, as array jobs that wait for one another one to one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genokit import live
from genokit.batch.job_state import ENDED
from genokit.display import Html, card, pill, stack
from genokit.display import table as table_of
from genokit.errors import JobFailed
from genokit.genomics.cohort_plan import STEPS, CohortPlan, Identity, Row, Sizes, digest, finished, planned, queue_of
from genokit.storage import Address

if TYPE_CHECKING:
    import pandas as pd

    from genokit.batch import Batch, Job
    from genokit.batch.monitor.monitor import Monitor

FINISHED_BEFORE = {"status": "FINISHED BEFORE", "reason": None, "duration_s": None, "job_id": None}


def workflow(
    samples: pd.DataFrame | Address, reference: Address, *, genes: Address | None = None, out: Address | None = None,
    queue_high: str = "highPriority", queue_low: str = "lowPriority", profile: str = "pip", aligner: str = "minibwa",
    vcpus: Sizes = None, memory_gib: Sizes = None, batch: Batch | None = None,
) -> Workflow:  # fmt: skip
    """Submit what a cohort still needs: align, call, annotate and stats of each sample, as Batch jobs.

    The jobs need neither this kernel nor this machine. A step whose outputs are in ``out`` and were made from the same
    files, by the same versions of the tools, is not run again, and neither is one whose job still runs: the same call
    finds both. If a step fails, the later steps of its sample fail too, and no other sample does. Repair what was wrong
    and call again: only what is missing runs.

    Parameters
    ----------
    samples : DataFrame, path or str
        The sample sheet, or the address of one as a CSV file, with the columns of nf-core/sarek: patient, sample, lane,
        fastq_1, fastq_2 (empty for single reads). Several lanes of a sample are its read groups. Relative paths start
        at the sheet's folder; those of a DataFrame at the working folder.
    reference : path or str
        The FASTA of the reference, gzip or not.
    genes : path or str, optional
        Gene models in GFF3, as Ensembl writes them. Default: variants are not annotated. Of profile "posts": the
        arguments of snpEff, such as "-t hg38".
    out : path or str, optional
        Folder for the results, here or on S3, which gets a folder for each sample with ``bam``, ``vcf``, ``stats`` and
        ``annotated_vcf``. Default: a folder for this sheet and reference in ``settings.home/genomics``, on AWS in the
        stack's bucket.
    queue_high : str, default "highPriority"
        The queue of align and call.
    queue_low : str, default "lowPriority"
        The queue of annotate and stats.
    profile : str, default "pip"
        "pip": minibwa, samtools and bcftools, in the kit's image. "posts": Isaac, Strelka, snpEff and samtools of
        2017, in containers that you bring; always run anew unless they have SUCCEEDED under the same plan.
    aligner : str, default "minibwa"
        Of profile "pip": "minibwa", or "mappy", minimap2 with its preset for short reads. mappy has to be installed
        where the jobs run: ``pip install mappy`` compiles it, and the kit's image does not contain it.
    vcpus : mapping, optional
        The vCPUs of a step's jobs, and so their threads: ``{"align": 8}``. Default: 1.
    memory_gib : mapping, optional
        The memory of a step's jobs in GiB. Default: 2. minibwa's index takes 18 bytes for each base of the reference.
    batch : Batch, optional
        Where to submit. Default: ``Batch()``.

    Returns
    -------
    Workflow
        ``table()``, ``follow()``, ``monitor()`` and ``raise_for_status()``.

    Raises
    ------
    InvalidParameters
        The sheet cannot be used, with each wrong row and column, or a parameter is unknown. Nothing was submitted.
    NotFound
        There is no such reference, file of genes or queue. ``Batch.submit`` may raise further errors.
    MissingDependency
        In the embedded account: a package that the jobs need is not installed.

    Examples
    --------
    ::

        cohort = genomics.simulate("cohort", samples=3)
        found = genomics.workflow(cohort["samples"], cohort["reference"], genes=cohort["genes"], out="results")
        found.follow().table()
    """
    from genokit.batch import Batch

    batch = batch or Batch()
    plan = planned(samples, reference, genes, out, profile, aligner, vcpus, memory_gib, batch)
    queues = {step: queue_of(step, queue_high, queue_low) for step in STEPS}
    # What runs is looked up before what is finished, so that a step which ends in between is found.
    known = [job for queue in {*queues.values()} for job in batch.jobs(queue=queue).to_dict("records")]
    ours = [job for job in known if job["name"].startswith("genomics-")]
    succeeded = {job["name"] for job in ours if job["status"] == "SUCCEEDED"}
    active = [batch.job(job["job_id"]) for job in ours if job["status"] not in ENDED]
    wanted = {_identity(row) for rows in plan.samples.values() for row in rows.values()}
    running = {  # the steps of this plan that a job or child runs, with its id
        _identity(one): one["job_id"] for job in active for one in _children(job)
        if one["status"] not in ENDED and _identity(one) in wanted
    }  # fmt: skip
    jobs = [job for job in active if job.id in {one.partition(":")[0] for one in running.values()}]
    with ThreadPoolExecutor(10) as pool:
        complete = set().union(*pool.map(lambda rows: finished(rows, batch.clients), plan.samples.values()))
    for (_, *lacking), members in _groups(plan, complete, running).items():
        made: dict[str, Job] = {}
        for step, awaited in lacking:
            each = [rows[step] for rows in members]
            name = f"genomics-{step}-{digest(each)[:12]}"
            before = batch.job(awaited) if awaited else made.get(STEPS[step][1])
            made[step] = batch.submit(
                plan.definitions[step], queue=queues[step], name=name,
                again=not plan.commands and name in succeeded,  # and yet its outputs are missing
                after=before if len(each) == 1 else None, after_each=before if len(each) > 1 else None,
                each=None if plan.commands else each, parameters=each[0] if plan.commands else None,
                command=plan.commands.get(step),
            )  # fmt: skip
        jobs += made.values()
    return Workflow(batch, plan.samples, complete, jobs)


def _groups(plan: CohortPlan, complete: set[Identity], running: dict[Identity, str]) -> dict[Any, list[dict[str, Row]]]:
    """The samples that share array jobs, by the steps that they lack and the running job that each step waits for.

    A sample that waits for a running job is alone, and so is every sample of the posts' profile.
    """
    groups = defaultdict(list)
    for sample, rows in plan.samples.items():
        lacking = {}
        for step, row in rows.items():
            if _identity(row) not in complete | running.keys():
                before = rows.get(STEPS[step][1], {})
                lacking[step] = running.get(_identity(before), "")
        groups[sample if plan.commands else "", *lacking.items()].append(rows)
    return groups


@dataclass(frozen=True, eq=False, repr=False)
class Workflow:
    """The steps of each sample of ``genomics.workflow``: a table that fills in while their jobs run.

    Attributes
    ----------
    batch : Batch
        Where the jobs run.
    samples : dict
        What each step of each sample is given, by sample and step.
    complete : set
        The steps that were finished before.
    jobs : list of Job
        The jobs of the others, those of an earlier call that still run included.
    """

    batch: Batch
    samples: dict[str, dict[str, Row]]
    complete: set[Identity]
    jobs: list[Job]
    _reasons: dict[str, str] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """The steps as of now.

        Returns
        -------
        pandas.DataFrame
            One row a sample and step: ``sample``, ``step``, ``status`` (AWS's, or FINISHED BEFORE), ``reason`` (of a
            failure: what the step has said), ``seconds`` and ``job_id``.
        """
        from genokit.frames import Frame

        children = {_identity(one): one for job in self.jobs for one in _children(job)}
        lines = []
        for sample, rows in self.samples.items():
            for step, row in rows.items():
                one = FINISHED_BEFORE if _identity(row) in self.complete else children[_identity(row)]
                lines.append({
                    "sample": sample, "step": step, "status": one["status"], "reason": self._reason(one),
                    "seconds": one["duration_s"], "job_id": one["job_id"],
                })  # fmt: skip
        return Frame(lines)

    def _reason(self, child: Mapping[str, Any]) -> Any:
        """Why a step has failed: its last line if it ended by itself."""
        job_id = child["job_id"]
        if child["status"] == "FAILED" and str(child["exit_code"]) == "1" and job_id not in self._reasons:
            self._reasons.update((job_id, line) for line in str(self.batch.job(job_id).log()).splitlines()[-1:])
        return self._reasons.get(job_id, child["reason"]) if child["status"] == "FAILED" else None

    def follow(self, *, every_s: float = 2) -> Workflow:
        """Wait until all jobs have ended; in an interactive notebook, show the samples anew meanwhile.

        Parameters
        ----------
        every_s : float, default 2
            Seconds between two looks.
        """
        live.follow(lambda: all(job.status in ENDED for job in self.jobs), self._look, every_s)
        return self

    def _look(self) -> tuple[str, Callable[[], Html]]:
        table = self.table()
        return _words(table), lambda: _html(table)

    def monitor(self) -> Monitor:
        """Follow the jobs with ``Batch.monitor``."""
        return self.batch.monitor(self.jobs)

    def raise_for_status(self) -> Workflow:
        """Raise an exception if a step FAILED.

        Raises
        ------
        JobFailed
            With the first failed step and its reason, and the number of failed samples.
        """
        table = self.table()
        failed = table[table["status"] == "FAILED"]
        if failed.empty:
            return self
        first, job = failed.iloc[0], self.batch.job(failed["job_id"].iloc[0])
        raise JobFailed(
            f"{failed['sample'].nunique()} of {len(self.samples)} samples failed. Sample '{first['sample']}', step "
            f"{first['step']}: {first['reason']}\nRepair this and call workflow again: only what is missing runs.",
            job=job, exit_code=job.exit_code, reason=str(first["reason"]),
        )  # fmt: skip

    def __repr__(self) -> str:
        return _words(self.table())

    def _repr_html_(self) -> Html:
        return _html(self.table())


def _identity(row: Mapping[str, Any]) -> Identity:
    """What a step of a sample is known by: where its outputs go, and what they are made from."""
    return row.get("out", ""), row.get("key", "")


def _children(job: Job) -> list[dict[str, Any]]:
    """The children of a job with their rows and ids; one that is no array is its own."""
    rows: list[Any] = job.table().to_dict("records")
    for one in rows:
        one["job_id"] = f"{job.id}:{one['child']}" if job.size else job.id
    alone = {"status": job.status, "exit_code": job.exit_code, "duration_s": job.duration_s, "job_id": job.id}
    return rows or [{**job.parameters, **alone, "reason": job.reason}]


def _words(table: pd.DataFrame) -> str:
    counts = Counter(zip(table["step"], table["status"], strict=True)).items()
    said = ", ".join(f"{count} {one} {status}" for step in STEPS for (one, status), count in counts if one == step)
    return f"<Workflow of {table['sample'].nunique()} samples: {said}>"


def _html(table: pd.DataFrame) -> Html:
    rows: dict[str, dict[str, object]] = {}
    for sample, step, status in table[["sample", "step", "status"]].itertuples(index=False):
        rows.setdefault(sample, {"sample": sample})[step] = pill(status)
    counts = ", ".join(f"{count:,} {status}" for status, count in Counter(table["status"]).items())
    failed = table[table["status"] == "FAILED"].drop_duplicates("sample")[["sample", "step", "reason"]]
    reasons = [table_of(failed.reset_index(drop=True))] if len(failed) else []
    return stack(card("Genomics workflow", {"Samples": len(rows), "Steps": counts}), table_of(rows.values()), *reasons)
