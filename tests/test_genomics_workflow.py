"""The workflow of a small simulated cohort, with real jobs: what runs, what fails alone, and what is not run again."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pysam
import pytest
from embedded import wait_until
from jupyter_client.manager import start_new_kernel

from genokit import Batch, Dataset, Settings, genomics
from genokit.errors import JobFailed

STEPS = ["align", "call", "annotate", "stats"]
LIMITED = ["bash", "-c", 'ulimit -f 100; exec "$@"', "-"]  # KiB in a file: as on a full disk, writing more fails


class ScratchBatch(Batch):
    """A Batch whose jobs have a temporary folder of their own, and begin with further words."""

    def __init__(self, settings: Settings, scratch: Path, *words: str) -> None:
        super().__init__(settings=settings)
        scratch.mkdir(exist_ok=True)
        self.scratch, self.words = scratch, words

    def define(self, name, *, command, **more):
        environment = {"TMPDIR": str(self.scratch)}
        return super().define(name, command=[*self.words, *command], environment=environment, **more)


def simulated(folder: Path, **more: object) -> Dataset:
    return genomics.simulate(folder, **({"samples": 3, "bases": 10_000, "contigs": 1, "coverage": 8} | more))


def statuses(found: genomics.Workflow) -> dict[str, list[str]]:
    return {sample: list(rows["status"]) for sample, rows in found.table().groupby("sample", sort=False)}


def test_a_cohort_runs_as_arrays_and_a_sample_that_fails_fails_alone_and_is_repaired_alone(account, tmp_path):
    batch, cohort = ScratchBatch(account, tmp_path / "scratch"), simulated(tmp_path / "cohort", lanes=2)
    damaged = cohort["reads-s2-l002-2-fastq"]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])

    def submitted() -> genomics.Workflow:
        sheet, reference = cohort["samples"], cohort["reference"]
        return genomics.workflow(sheet, reference, genes=cohort["genes"], out=tmp_path / "out", batch=batch)

    found = submitted()
    assert sorted((job.name.split("-")[1], job.queue, job.size) for job in found.jobs) == [
        ("align", "highPriority", 3), ("annotate", "lowPriority", 3), ("call", "highPriority", 3),
        ("stats", "lowPriority", 3),
    ]  # fmt: skip
    wait_until(lambda: "SUCCEEDED" in list(found.table()["status"]))
    again = submitted()  # some steps are finished, some have failed, the others run
    assert {job.id for job in again.jobs} >= {job.id for job in found.jobs if job.status not in ("SUCCEEDED", "FAILED")}
    assert len(batch.jobs()) <= 8
    again.follow(every_s=0.05)
    found.follow(every_s=0.05)
    good = ["SUCCEEDED"] * 4
    assert statuses(found) == {"S1": good, "S2": ["FAILED"] * 4, "S3": good}
    failed = found.table().query("sample == 'S2'").set_index("step")
    assert re.fullmatch(
        rf"StepFailed: '{damaged}' cannot be used: its data are damaged or cut short: read [\d,]+ is not FASTQ\.",
        failed["reason"]["align"],
    )
    assert "Dependent" in failed["reason"]["call"]
    with pytest.raises(JobFailed, match=rf"1 of 3 samples failed. Sample 'S2', step align: StepFailed: '{damaged}'"):
        found.raise_for_status()
    assert "damaged or cut short" in found._repr_html_()
    assert not list(batch.scratch.iterdir())
    assert not (tmp_path / "out/S2").exists() or not list((tmp_path / "out/S2").rglob("*.*"))

    damaged.write_bytes(whole)
    repaired = submitted()
    assert [job.size for job in repaired.jobs] == [None] * 4
    assert statuses(repaired.follow(every_s=0.05).raise_for_status()) == {
        "S1": ["FINISHED BEFORE"] * 4, "S2": good, "S3": ["FINISHED BEFORE"] * 4,
    }  # fmt: skip
    assert [path.name for path in sorted((tmp_path / "out/S2").iterdir())] == ["annotated_vcf", "bam", "stats", "vcf"]
    with pysam.AlignmentFile(str(tmp_path / "out/S2/bam/S2.bam")) as file:
        assert [one["ID"] for one in file.header.to_dict()["RG"]] == ["S2.L001", "S2.L002"]
    assert not list(batch.scratch.iterdir())

    # Nothing is left to do; what was deleted is made again, although a job with the same name has SUCCEEDED.
    assert submitted().jobs == []
    (tmp_path / "out/S1/vcf/S1.vcf.gz").unlink()
    (call,) = submitted().follow(every_s=0.05).jobs
    assert (call.status, call.size, (tmp_path / "out/S1/vcf/S1.vcf.gz").exists()) == ("SUCCEEDED", None, True)
    assert submitted().jobs == []


def test_what_is_asked_for_later_waits_for_the_job_that_runs_already(account, tmp_path):
    batch, cohort = Batch(settings=account), simulated(tmp_path / "cohort", samples=2)
    given = {"out": tmp_path / "out", "batch": batch}
    other = batch.submit(batch.define("genomics-other", command=["sleep", "60"], memory_gib=0.1))  # not the workflow's
    elsewhere = genomics.workflow(cohort["samples"], cohort["reference"], **given | {"out": tmp_path / "elsewhere"})
    first = genomics.workflow(cohort["samples"], cohort["reference"], **given)
    assert not {job.id for job in first.jobs} & {other.id, *(job.id for job in elsewhere.jobs)}
    for job in (other, *elsewhere.jobs):
        job.terminate()
    then = genomics.workflow(cohort["samples"], cohort["reference"], genes=cohort["genes"], **given)
    assert len(first.jobs) == 3
    new = [job for job in then.jobs if job.id not in {one.id for one in first.jobs}]
    assert {job.name.split("-")[1] for job in new} == {"annotate"}
    assert all(":" in job.detail["dependsOn"][0]["jobId"] for job in new)
    assert set(then.follow(every_s=0.05).table()["status"]) <= {"SUCCEEDED", "FINISHED BEFORE"}
    assert all((tmp_path / f"out/{one}/annotated_vcf/{one}.annotated.vcf.gz").exists() for one in ("S1", "S2"))


def rewritten(path: Path, change: object) -> None:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in change(lines)).encode(), 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: rewritten(path, lambda x: [*x[:4], *x[8:12], *x[4:8], *x[12:]]), "read 2 is 'S2:L001:000000002'"),
        (lambda path: rewritten(path, lambda x: x[:-4]), ", but its mate '"),
    ],
    ids=["empty", "names", "count"],
)
def test_damaged_reads_of_one_sample_are_named_and_repaired(account, tmp_path, damage, reason):
    batch, cohort = ScratchBatch(account, tmp_path / "scratch"), simulated(tmp_path / "cohort")
    path = cohort["reads-s2-l001-2-fastq"]
    whole = path.read_bytes()
    damage(path)
    given = {"reference": cohort["reference"], "out": tmp_path / "out", "batch": batch}
    found = genomics.workflow(cohort["samples"], **given).follow(every_s=0.05)
    assert statuses(found) == {"S1": ["SUCCEEDED"] * 3, "S2": ["FAILED"] * 3, "S3": ["SUCCEEDED"] * 3}
    said = found.table().query("sample == 'S2'")["reason"].iloc[0]
    assert said.startswith(f"StepFailed: '{path}' cannot be used: ")
    assert reason in said
    assert not list(batch.scratch.iterdir())
    path.write_bytes(whole)
    repaired = genomics.workflow(cohort["samples"], **given).follow(every_s=0.05)
    assert statuses(repaired) == {"S1": ["FINISHED BEFORE"] * 3, "S2": ["SUCCEEDED"] * 3, "S3": ["FINISHED BEFORE"] * 3}


@pytest.mark.slow
def test_a_full_scratch_fails_the_one_sample_that_needs_more_of_it(account, tmp_path):
    cohort, large = simulated(tmp_path / "cohort"), simulated(tmp_path / "large", samples=["S2"], coverage=60)
    sheet = pd.read_csv(cohort["samples"], dtype=str)
    for mate in (1, 2):
        sheet[f"fastq_{mate}"] = f"{tmp_path}/cohort/" + sheet[f"fastq_{mate}"]
        sheet.loc[1, f"fastq_{mate}"] = str(large[f"reads-s2-l001-{mate}-fastq"])
    given = {"reference": cohort["reference"], "out": tmp_path / "out"}
    full = ScratchBatch(account, tmp_path / "scratch", *LIMITED)
    found = genomics.workflow(sheet, **given, batch=full).follow(every_s=0.05)
    assert statuses(found) == {"S1": ["SUCCEEDED"] * 3, "S2": ["FAILED"] * 3, "S3": ["SUCCEEDED"] * 3}
    said = found.table().query("sample == 'S2'")["reason"].iloc[0]
    assert f"the scratch folder '{full.scratch}' may be full" in said
    assert not list(full.scratch.iterdir())
    wide = ScratchBatch(account, tmp_path / "scratch")
    repaired = genomics.workflow(sheet, **given, batch=wide).follow(every_s=0.05)
    assert statuses(repaired) == {"S1": ["FINISHED BEFORE"] * 3, "S2": ["SUCCEEDED"] * 3, "S3": ["FINISHED BEFORE"] * 3}


@pytest.mark.slow
def test_a_bam_of_another_reference_fails_the_later_step_of_its_sample(account, tmp_path):
    batch, cohort = ScratchBatch(account, tmp_path / "scratch"), simulated(tmp_path / "cohort")
    given = {"reference": cohort["reference"], "out": tmp_path / "out", "batch": batch}
    genomics.workflow(cohort["samples"], **given).follow(every_s=0.05).raise_for_status()
    text = cohort["reference"].read_text()
    (tmp_path / "wrong.fa").write_text(text[:3000] + ("A" if text[3000] != "A" else "C") + text[3001:])
    reads = [str(cohort[f"reads-s2-l001-{mate}-fastq"]) for mate in (1, 2)]
    bam = tmp_path / "out/S2/bam"
    more = ["--reads", *reads, "--reference", str(tmp_path / "wrong.fa"), "--sample", "S2", "--out", str(bam)]
    record = (bam / "S2.align.json").read_bytes()
    subprocess.run([sys.executable, "-m", "genokit.genomics.align", *more], check=True)
    (bam / "S2.align.json").write_bytes(record)
    shutil.rmtree(tmp_path / "out/S2/vcf")
    found = genomics.workflow(cohort["samples"], **given).follow(every_s=0.05)
    before = ["FINISHED BEFORE"] * 3
    assert statuses(found) == {"S1": before, "S2": ["FINISHED BEFORE", "FAILED", "FINISHED BEFORE"], "S3": before}
    said = found.table().query("status == 'FAILED'")["reason"].iloc[0]
    assert said.startswith(f"StepFailed: '{bam / 'S2.bam'}' cannot be used: it was made with another reference than '")
    assert not list(batch.scratch.iterdir())
    shutil.rmtree(bam)
    repaired = genomics.workflow(cohort["samples"], **given).follow(every_s=0.05)
    assert statuses(repaired) == {"S1": before, "S2": ["SUCCEEDED", "SUCCEEDED", "FINISHED BEFORE"], "S3": before}


@pytest.mark.slow
def test_in_a_live_notebook_the_samples_are_shown_anew_while_their_jobs_run(account, tmp_path):
    cohort, shown = simulated(tmp_path / "cohort", samples=2), []
    given = f"{str(cohort['samples'])!r}, {str(cohort['reference'])!r}, out={str(tmp_path / 'out')!r}"
    code = f"from genokit import genomics; genomics.workflow({given}).follow(every_s=0.1);"
    manager, client = start_new_kernel(env={**os.environ, **account.environ()})
    try:
        for person in (True, False):  # nobody watches a notebook that papermill runs
            reply = client.execute_interactive(
                code, allow_stdin=person, timeout=120,
                output_hook=lambda message: shown.append((message["msg_type"], message["content"].get("data", {}))),
            )  # fmt: skip
            assert reply["content"]["status"] == "ok"
            views = [(kind, data) for kind, data in shown if "text/html" in data]
            shown.clear()
            assert bool(views) == person
            if person:
                assert [kind for kind, _ in views] == ["display_data", *["update_display_data"] * (len(views) - 1)]
                assert (
                    views[-1][1]["text/plain"]
                    == "<Workflow of 2 samples: "
                    + ", ".join(f"2 {step} SUCCEEDED" for step in ("align", "call", "stats"))
                    + ">"
                )
                assert "SUCCEEDED" in views[-1][1]["text/html"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
