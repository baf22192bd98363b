"""``python -m genokit.genomics.annotate``: what each variant of a sample does to the genes, by bcftools csq."""

from __future__ import annotations

import sys

from genokit.genomics.step import Step, fault, main, unpacked


def annotate(step: Step) -> None:
    """Annotate a sample's variants. Raises StepFailed."""
    import pysam

    given = step.given
    reference, vcf = step.reference(given.reference), step.input(given.vcf, ".tbi")
    genes, out = step.input(given.genes), step.out / f"{step.sample}.annotated.vcf.gz"
    csq = ("bcftools", "csq", "-f", reference.fasta, "-g", genes, "-p", "a", "-Oz4", "-W=tbi", "-o", out, vcf)
    tools = step.start(given.vcf, csq)  # the inputs are checked meanwhile
    try:
        with pysam.VariantFile(str(vcf)) as file:
            heads = [record for record in file.header.records if record.key == "contig"]
            reference.check(given.vcf, {record["ID"]: record.get("md5") for record in heads})
            if next(iter(file), None) is None:
                raise fault(given.vcf, "it has no variants")
    except ValueError as error:
        raise fault(given.vcf, f"it is not a VCF ({error})") from error
    with unpacked(genes, given.genes) as lines:
        if not any(line.partition("\t")[0] in reference.sequences for line in lines):
            raise fault(given.genes, f"no gene in it is on a sequence of '{given.reference}'")
    tools.finish()


if __name__ == "__main__":
    sys.exit(main(annotate, "vcf", "genes", "reference", "sample", "out"))
