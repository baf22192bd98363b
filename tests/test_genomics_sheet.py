"""The sample sheet: every fault is found before anything runs, and named by row and column."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Barrier

import pandas as pd
import pytest
from frictionless import Resource, Schema
from recorded import Listening
from template import GENOMICS, REGION, Template
from test_stacks_template import camel

import genokit.genomics
from genokit import Batch, Dataset, Settings, Stack, backends, genomics, storage
from genokit.backends import Clients
from genokit.errors import InvalidParameters, InvalidRequest, NotFound
from genokit.genomics.cohort_plan import planned
from genokit.genomics.sheet import NAMES, read_sheet
from genokit.genomics.step import NAME, check_name

SCHEMA = Path(genokit.genomics.__file__).with_name("sheet.schema.json")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return genomics.simulate(tmp_path_factory.mktemp("cohort"), 3, bases=10_000, contigs=1, coverage=2, lanes=2)


@pytest.fixture
def sheet(cohort: Dataset, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The cohort's sheet as a DataFrame, whose relative paths start at the working folder."""
    monkeypatch.chdir(cohort["samples"].parent)
    return pd.read_csv(cohort["samples"], dtype=str)


def plan(sheet: object, cohort: Dataset, account: Settings, profile: str = "pip", **more: object) -> object:
    given = {"reference": cohort["reference"], "genes": None, "out": None, "aligner": "minibwa"} | more
    given = {"vcpus": None, "memory_gib": None, "profile": profile, "batch": Batch(settings=account)} | given
    return planned(sheet, **given)


def test_the_simulated_sheet_is_valid_by_the_published_schema(cohort):
    schema = Schema.from_descriptor(json.loads(SCHEMA.read_text()))
    report = Resource(path="samples.csv", basepath=str(cohort["samples"].parent), schema=schema).validate()
    assert report.valid, report.flatten(["rowNumber", "fieldName", "message"])


def test_a_sheet_may_be_a_file_a_dataframe_or_an_object_on_s3(cohort, sheet, account):
    here, frame = plan(cohort["samples"], cohort, account), plan(sheet, cohort, account, out="elsewhere")
    assert [one["align"]["key"] for one in here.samples.values()] == [
        one["align"]["key"] for one in frame.samples.values()
    ]
    assert frame.samples["S1"]["align"]["out"] == str(cohort["samples"].parent / "elsewhere/S1/bam")
    clients = Batch(settings=account).clients
    for path in cohort["samples"].parent.rglob("*.*"):
        name = path.relative_to(cohort["samples"].parent).as_posix()
        storage.upload(path, f"s3://{clients.bucket}/cohort/{name}", clients=clients)
    there = plan(f"s3://{clients.bucket}/cohort/samples.csv", cohort, account)
    assert f"s3://{clients.bucket}/cohort/reads/S2_L001_1.fastq.gz" in there.samples["S2"]["align"]["lanes"]
    assert there.samples["S2"]["align"]["key"] != here.samples["S2"]["align"]["key"]


def test_keys_change_with_what_a_step_is_made_from_and_with_nothing_else(cohort, sheet, account, tmp_path):
    for name in ("reference", "genes"):
        (tmp_path / name).write_bytes(cohort[name].read_bytes())

    def keys(sheet: pd.DataFrame = sheet, **more: object) -> dict[str, str]:
        given = {"reference": tmp_path / "reference", "genes": tmp_path / "genes"} | more
        return {step: row["key"] for step, row in plan(sheet, cohort, account, **given).samples["S1"].items()}

    first = keys()
    assert first == keys(out="elsewhere", vcpus={"call": 2}, memory_gib={"align": 3})
    swapped = sheet.rename(columns={"fastq_1": "fastq_2", "fastq_2": "fastq_1"})
    assert not {*keys(swapped).values()} & {*first.values()}
    (tmp_path / "genes").write_bytes(cohort["genes"].read_bytes())
    assert {step for step, key in keys().items() if key != first[step]} == {"annotate"}
    (tmp_path / "reference").write_bytes(cohort["reference"].read_bytes())
    assert not {*keys().values()} & {*first.values()}


FAULTS = {
    "a column is missing": (lambda s: s.drop(columns="lane"), "It has: patient, sample, fastq.*Missing: lane"),
    "a column is unknown": (lambda s: s.assign(status="1"), "It has: .*status"),
    "there are no rows": (lambda s: s.head(0), "it has no rows, so that no step has an input"),
    "a file is missing": (
        lambda s: s.replace("reads/S1_L002_2.fastq.gz", "reads/no.fastq.gz"),
        r"row 2, column 'fastq_2': There is no file '.*/reads/no.fastq.gz'",
    ),
    "a file is a folder": (
        lambda s: s.replace("reads/S2_L001_1.fastq.gz", "reads"),
        r"row 3, column 'fastq_1': '.*/reads' cannot be read: Is a directory",
    ),
    "an address is unknown": (
        lambda s: s.replace("reads/S2_L001_1.fastq.gz", "https://example.org/1.fastq.gz"),
        "row 3, column 'fastq_1': 'https://example.org/1.fastq.gz' is neither a path nor an address on S3",
    ),
    "a file is there twice": (
        lambda s: s.replace("reads/S2_L001_1.fastq.gz", "reads/S1_L001_1.fastq.gz"),
        r"row 3, column 'fastq_1': '.*/S1_L001_1.fastq.gz' is in row 1 already",
    ),
    "a file is its own mate": (
        lambda s: s.replace("reads/S2_L001_2.fastq.gz", "reads/S2_L001_1.fastq.gz"),
        r"row 3, column 'fastq_2': '.*/S2_L001_1.fastq.gz' is in row 3 already",
    ),
    "a value is empty": (lambda s: s.replace("reads/S1_L001_1.fastq.gz", ""), "row 1, column 'fastq_1': it is empty"),
    "a name is illegal": (lambda s: s.replace("S3", "../S3"), r"row 5, column 'sample': '../S3' is not allowed"),
    "a lane is there twice": (
        lambda s: s.assign(lane="L001"),
        "row 2, column 'lane': sample 'S1' has lane 'L001' in another row",
    ),
    "a sample has two patients": (
        lambda s: s.assign(patient=["P1", "P2", "P3", "P3", "P4", "P4"]),
        "row 2, column 'patient': sample 'S1' is of 'P1' in another row, and of 'P2' here",
    ),
    "pairs and single reads are mixed": (
        lambda s: s.replace("reads/S1_L002_2.fastq.gz", None),
        "row 2, column 'fastq_2': sample 'S1' has pairs in one row and single reads in another",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_sheet_is_refused_by_row_and_column_before_anything_is_submitted(
    fault, cohort, sheet, account, tmp_path
):
    change, said = FAULTS[fault]
    changed, batch = change(sheet), Batch(settings=account)
    with pytest.raises(InvalidParameters, match=said):
        genomics.workflow(changed, cohort["reference"], batch=batch)
    folder = cohort["samples"].parent
    absolute = changed.replace(r"^reads", f"{folder}/reads", regex=True)
    absolute.to_csv(tmp_path / "sheet.csv", index=False)
    with pytest.raises(InvalidParameters, match=said):
        genomics.workflow(tmp_path / "sheet.csv", cohort["reference"], batch=batch)
    assert batch.jobs().empty


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe\x00", b"", b"patient,sample,lane,fastq_1,fastq_2\na,b,c,d,e,f\n", b'patient\n"a\n', b"\x1f\x8b\x08"],
)
def test_a_file_that_is_no_sheet_is_refused(text, cohort, account, tmp_path):
    (tmp_path / "sheet.csv").write_bytes(text)
    with pytest.raises(InvalidParameters, match=r"The sample sheet '.*sheet.csv' (is not a CSV|must have the columns)"):
        plan(tmp_path / "sheet.csv", cohort, account)


def test_columns_separated_otherwise_are_refused_with_what_is_expected(cohort, sheet, account, tmp_path):
    sheet.to_csv(tmp_path / "sheet.csv", sep=";", index=False)
    expected = r"separated by commas.*It has: patient;sample;lane;fastq_1;fastq_2. Missing: patient, sample, lane"
    with pytest.raises(InvalidParameters, match=expected):
        plan(tmp_path / "sheet.csv", cohort, account)


def test_a_name_with_a_space_is_refused_with_what_is_allowed(cohort, sheet, account):
    with pytest.raises(InvalidParameters, match=r"row 1, column 'sample': 'S 1' is not allowed. Use up to 100 letters"):
        plan(sheet.replace("S1", "S 1"), cohort, account)


def test_the_words_for_allowed_names_say_what_the_schema_demands():
    for field in json.loads(SCHEMA.read_text())["fields"]:
        assert field["constraints"].get("pattern", NAME.pattern) == NAME.pattern
    with pytest.raises(InvalidParameters, match=NAMES):
        check_name("S 1")


def test_all_that_is_wrong_is_said_at_once_and_not_without_end(cohort, account):
    many = pd.DataFrame({"patient": "", "sample": "S1", "lane": map(str, range(30)), "fastq_1": "no", "fastq_2": ""})
    with pytest.raises(InvalidParameters) as caught:
        plan(many, cohort, account)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1].strip() == "and 69 more"


class EightAtATime:
    """An S3 that says what a file is only to eight that ask at the same time."""

    def __init__(self, s3: object) -> None:
        self.s3, self.asked = s3, Barrier(8)

    def __getattr__(self, name: str) -> object:
        return getattr(self.s3, name)

    def head_object(self, **request: str) -> object:
        self.asked.wait(60)
        return self.s3.head_object(**request)


def test_many_files_are_looked_at_side_by_side_and_what_is_missing_is_still_listed_in_order(account):
    s3 = backends.clients(account).s3
    names = [f"{number:02d}" for number in range(20)]
    sheet = pd.DataFrame({"patient": names, "sample": names, "lane": "L001"})
    for mate in (1, 2):
        sheet[f"fastq_{mate}"] = [f"s3://genokit/reads/{name}_{mate}.fastq" for name in names]
        for number, name in enumerate(names):
            s3.put_object(Bucket="genokit", Key=f"reads/{name}_{mate}.fastq", Body=b"@" * (number + mate))
    etags = {one["Key"]: one for one in s3.list_objects_v2(Bucket="genokit", Prefix="reads/")["Contents"]}
    stamps = {f"s3://genokit/{key}": f"{one['Size']} {one['ETag']}" for key, one in etags.items()}
    clients = Clients(account, s3=EightAtATime(s3))
    assert read_sheet(sheet, clients) == {
        name: {"L001": {address: stamps[address] for address in pair}}
        for name, *pair in sheet[["sample", "fastq_1", "fastq_2"]].itertuples(index=False)
    }
    for name in ("17_1", "03_2", "11_1"):
        s3.delete_object(Bucket="genokit", Key=f"reads/{name}.fastq")
    with pytest.raises(InvalidParameters) as caught:
        read_sheet(sheet, clients)
    assert [line.strip().partition(":")[0] for line in str(caught.value).splitlines()[1:]] == [
        "row 4, column 'fastq_2'", "row 12, column 'fastq_1'", "row 18, column 'fastq_1'",
    ]  # fmt: skip


def test_a_wrong_parameter_is_refused(cohort, sheet, account):
    with pytest.raises(InvalidParameters, match=r"no profile 'post'. Did you mean 'posts'"):
        plan(sheet, cohort, account, profile="post")
    with pytest.raises(InvalidParameters, match="profile 'pip' has the steps align, call, annotate, stats, got sort"):
        plan(sheet, cohort, account, vcpus={"sort": 2})
    with pytest.raises(InvalidParameters, match=r"Expected sizes by step, such as vcpus=\{'align': 8\}; got vcpus=4"):
        plan(sheet, cohort, account, vcpus=4)
    for wrong in (None, ["S1", "S2"]):
        with pytest.raises(InvalidParameters, match="Expected a path or an address on S3, got"):
            plan(wrong, cohort, account)
    with pytest.raises(InvalidParameters, match=r"Profile 'pip' has no aligner 'mapy'. Did you mean 'mappy'"):
        genomics.workflow(sheet, cohort["reference"], aligner="mapy", batch=Batch(settings=account))
    with pytest.raises(InvalidParameters, match=r"Profile 'posts' has no aligner 'mappy'. It aligns with Isaac"):
        plan(sheet, cohort, account, profile="posts", aligner="mappy")
    with pytest.raises(NotFound, match=r"There is no file '.*genes.gtf'"):
        plan(sheet, cohort, account, genes="genes.gtf")
    with pytest.raises(NotFound, match=r"There is no file '.*no.fa'"):
        genomics.workflow(sheet, "no.fa", batch=Batch(settings=account))


@pytest.mark.parametrize("name", ["minibwa", "mappy", "pysam"])
@pytest.mark.parametrize("function", ["workflow", "export"])
def test_nothing_is_submitted_or_defined_where_a_package_is_missing(name, function, cohort, account, tmp_path):
    (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{name}'\")")
    given = f"{str(cohort['samples'])!r}, {str(cohort['reference'])!r}" + ", aligner='mappy'" * (name == "mappy")
    code = f"from genokit import genomics\ngenomics.{function}({given})"
    environment = os.environ | account.environ() | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    how = "mappy, which needs a C compiler and zlib's headers" if name == "mappy" else "'genokit[genomics]'"
    assert done.stderr.splitlines()[-1].startswith(
        f"genokit.errors.MissingDependency: {name} cannot be imported (No module named '{name}'). Install it with: pip "
        f"install {how}"
    )
    batch = Batch(settings=account)
    assert batch.jobs().empty
    with pytest.raises(NotFound):
        batch.definition("genomics-align")


def test_the_posts_profile_is_refused_here_with_the_reason(cohort, sheet, account):
    one, batch = sheet.iloc[[0, 2]], Batch(settings=account)

    def submitted() -> None:
        genomics.workflow(one, cohort["reference"], genes="-t hg38", out="results", profile="posts", batch=batch)

    with pytest.raises(InvalidParameters, match="Profile 'posts' takes one lane of pairs a sample, unlike sample 'S1'"):
        plan(sheet, cohort, account, profile="posts")
    with pytest.raises(NotFound, match=r"runs the posts' containers as Stack\('batch'\) defines them"):
        submitted()
    Stack(settings=account).deploy()
    with pytest.raises(InvalidRequest, match=r"(?s)was not submitted because it cannot run.*(vCPU|podman)"):
        submitted()
    assert batch.jobs().empty
    rows = plan(one, cohort, account, profile="posts", genes="-t hg38", out="results").samples["S1"]
    folder = f"{cohort['samples'].parent}/results/S1"
    assert rows["align"]["bams"] == f"{folder}/bam/"
    assert rows["align"]["isaac"] == f"{cohort['reference'].parent}/isaac/"
    assert (rows["call"]["bai"], rows["call"]["fai"]) == (f"{folder}/bam/sorted.bam.bai", f"{cohort['reference']}.fai")
    assert rows["annotate"]["vcf"] == f"{folder}/vcf/variants/variants.vcf.gz"
    assert rows["annotate"]["genes"] == "-t hg38"
    assert rows["stats"]["statistics"] == f"{folder}/stats/bam_stats.dat"


def test_the_posts_profile_submits_a_job_for_each_step_with_the_words_of_the_posts(cohort, sheet, account):
    batch = Batch(settings=account)
    for name in (
        "isaac",
        "strelka",
        "snpeff",
        "samtools_stats",
    ):  # no containers: no program takes these words
        batch.define(name, command=["true"], memory_gib=0.1)
    given = {"genes": "-t hg38", "out": "results", "profile": "posts", "batch": batch}
    found = genomics.workflow(sheet.iloc[[0, 2]], cohort["reference"], **given).follow(every_s=0.05)
    folder, reads = cohort["samples"].parent, f"{cohort['samples'].parent}/reads"
    jobs = {(job.definition.partition(":")[0], job.parameters["sample"]): job for job in found.jobs}
    assert len(jobs) == len(found.jobs) == 8
    assert jobs["isaac", "S2"].detail["container"]["command"] == [
        "--bam_s3_folder_path", f"{folder}/results/S2/bam/", "--fastq1_s3_path", f"{reads}/S2_L001_1.fastq.gz",
        "--fastq2_s3_path", f"{reads}/S2_L001_2.fastq.gz", "--reference_s3_path", f"{folder}/isaac/",
        "--working_dir", "/scratch",
    ]  # fmt: skip
    assert jobs["snpeff", "S1"].detail["container"]["command"][-2:] == ["--cmd_args", "-t hg38"]
    assert jobs["strelka", "S1"].detail["dependsOn"] == [{"jobId": jobs["isaac", "S1"].id}]
    assert jobs["samtools_stats", "S1"].queue == "lowPriority"
    assert set(found.table()["status"]) == {"FAILED"}


def test_on_aws_all_files_have_to_be_on_s3_and_jobs_have_the_instances_scratch(cohort, sheet, account):
    embedded = backends.clients(account)
    Stack("batch", clients=embedded).deploy()
    clients = Listening(Settings(backend="aws", region=REGION, home=account.home), embedded, [])
    batch, there = Batch(clients), f"s3://{embedded.outputs('genokit-batch')['Bucket']}/cohort"
    for path in cohort["samples"].parent.rglob("*.*"):
        storage.upload(path, f"{there}/{path.relative_to(cohort['samples'].parent)}", clients=embedded)
    with pytest.raises(InvalidParameters, match=r"row 1, column 'fastq_1': A job on AWS cannot read '.*' of"):
        genomics.workflow(sheet, f"{there}/reference.fa", batch=batch)
    with pytest.raises(InvalidParameters, match=r"A job on AWS cannot read '.*reference.fa' of this machine"):
        genomics.workflow(f"{there}/samples.csv", cohort["reference"], batch=batch)
    with pytest.raises(InvalidParameters, match=r"A job on AWS cannot write to 'out' of this machine"):
        genomics.workflow(f"{there}/samples.csv", f"{there}/reference.fa", out="out", batch=batch)
    exported = genomics.export(f"{there}/samples.csv", f"{there}/reference.fa", batch=batch)
    assert exported.inputs["S1"]["align"]["out"].startswith(f"{there.removesuffix('/cohort')}/genomics/")
    mappy = genomics.export(f"{there}/samples.csv", f"{there}/reference.fa", aligner="mappy", batch=batch)
    given, other = exported.inputs["S1"], mappy.inputs["S1"]
    assert (given["align"]["aligner"], other["align"]["aligner"]) == ("minibwa", "mappy")
    assert not {row["key"] for row in given.values()} & {row["key"] for row in other.values()}
    container = batch.definition("genomics-align").described["containerProperties"]
    of_stack = camel(Template(GENOMICS).of("Batch::JobDefinition")["Align"])["containerProperties"]
    assert (container["volumes"], container["mountPoints"]) == (of_stack["volumes"], of_stack["mountPoints"])
    names = [{one["name"] for one in each["environment"]} for each in (container, of_stack)]
    assert names[0] == names[1] == {"GENOKIT_BACKEND", "GENOKIT_STACK", "GENOKIT_REGION", "TMPDIR"}
