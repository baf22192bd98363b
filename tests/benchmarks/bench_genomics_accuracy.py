"""How good align and call are on simulated genomes of 200,000 bases, in their confident regions, genotypes counted.

    python tests/benchmarks/bench_genomics_accuracy.py [seed ...]

Prints the table of docs/genomics.md, by default for the seeds 1 to 5: the sums over the genomes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pandas as pd
from bench_genomics import step, timed

from genokit import genomics


def scores(seed: int, coverage: int, folder: Path) -> pd.DataFrame:
    """The comparison of one genome's calls with its truth."""
    cohort = genomics.simulate(folder / "cohort", 1, seed, coverage=coverage)
    for name in ("align", "call"):
        timed(step(name, "S1", folder / "cohort", folder))
    return genomics.compare(
        folder / "vcf/S1.vcf.gz", cohort["truth-vcf"], cohort["reference"], cohort["confident"]
    ).assign(coverage=coverage)


def main(seeds: list[int]) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as place:
        made = [scores(seed, coverage, Path(place) / f"{seed}-{coverage}") for coverage in (30, 15) for seed in seeds]
    sums = pd.concat(made).query("Genotypes").groupby(["coverage", "Type"])
    columns = ["TRUTH.TOTAL", "TRUTH.TP", "TRUTH.FN", "QUERY.TP", "QUERY.FP", "QUERY.UNK", "FP.gt"]
    table = sums[columns].sum().sort_index(ascending=False)
    recall = table["TRUTH.TP"] / table["TRUTH.TOTAL"]
    precision = table["QUERY.TP"] / (table["QUERY.TP"] + table["QUERY.FP"])
    f1 = 2 * recall * precision / (recall + precision)
    print(table.assign(recall=recall, precision=precision, F1=f1).round(3).to_string())


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [1, 2, 3, 4, 5])
