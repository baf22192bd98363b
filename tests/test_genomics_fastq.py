"""FASTQ as people have it: packed or not, with records of four lines or more, and with faults."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from genokit.errors import StepFailed
from genokit.genomics.fastq import templates

FOUR = b"@r1/1 lane 1\nACGT\n+\nIIII\n@r2/1\nAC\n+r2\nI@\n"
MATES = b"@r1/2\nTTTT\n+\nJJJJ\n@r2/2\nGG\n+\nJJ\n"
READS = [("r1", "ACGT", "IIII"), ("r2", "AC", "I@")]


def found(folder: Path, *texts: bytes) -> list[list[tuple[str, str, str]]]:
    paths = [folder / f"reads_{number}.fastq" for number, _ in enumerate(texts, 1)]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text)
    return list(templates(paths, [f"s3://lab/{path.name}" for path in paths]))


@pytest.mark.parametrize(
    "text",
    [FOUR, gzip.compress(FOUR), gzip.compress(FOUR[:32]) + gzip.compress(FOUR[32:]), FOUR.replace(b"\n", b"\r\n"),
     FOUR.replace(b"ACGT\n+\nIIII", b"AC\nGT\n+\nII\nII"), FOUR.rstrip()],
    ids=["plain", "gzip", "two members of gzip", "CRLF", "wrapped", "no last newline"],
)  # fmt: skip
def test_reads_are_the_same_however_they_are_written(tmp_path, text):
    assert found(tmp_path, text) == [[read] for read in READS]


def test_mates_are_told_by_their_names_without_the_number(tmp_path):
    assert found(tmp_path, FOUR, MATES) == [
        [READS[0], ("r1", "TTTT", "JJJJ")], [READS[1], ("r2", "GG", "JJ")],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (FOUR[:-3], 2),  # a quality is short
        (FOUR.replace(b"\nIIII", b"\nIIIIII"), 1),
        (FOUR.replace(b"AC\n+r2\nI@\n", b""), 2),  # cut in its last record
        (FOUR.replace(b"\nACGT", b"\n").replace(b"\nIIII", b"\n"), 1),  # a read without bases
        (FOUR.replace(b"@r2/1", b"@"), 2),
        (FOUR.replace(b"r2/1", b"r\xff"), 2),
        (b">r1\nACGT\n", 1),
        (gzip.compress(FOUR)[:-8], 1),
    ],
    ids=["short quality", "long quality", "cut", "no bases", "no name", "not text", "FASTA", "cut gzip"],
)
def test_the_read_that_cannot_be_read_is_named(tmp_path, text, number):
    with pytest.raises(StepFailed) as raised:
        found(tmp_path, text)
    assert str(raised.value) == (
        f"'s3://lab/reads_1.fastq' cannot be used: its data are damaged or cut short: read {number} is not FASTQ."
    )


@pytest.mark.parametrize(
    ("first", "second", "file", "reason"),
    [
        (FOUR, MATES[:19], 2, "it has no read 2, but its mate 's3://lab/reads_1.fastq' has"),
        (FOUR[: FOUR.index(b"@r2")], MATES, 1, "it has no read 2, but its mate 's3://lab/reads_2.fastq' has"),
        (FOUR, MATES.replace(b"r2", b"r3"), 2, "read 2 is 'r3', and in its mate 's3://lab/reads_1.fastq' it is 'r2'"),
        (b"", b"", 1, "it has no reads"),
    ],
)
def test_mates_that_do_not_belong_together_are_named(tmp_path, first, second, file, reason):
    with pytest.raises(StepFailed) as raised:
        found(tmp_path, first, second)
    assert str(raised.value) == f"'s3://lab/reads_{file}.fastq' cannot be used: {reason}."
