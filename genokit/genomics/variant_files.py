"""Files of the field by address: opened quietly, without an index, and with the kit's errors."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genokit import storage
from genokit.backends import Clients
from genokit.errors import InvalidParameters, NotFound, did_you_mean
from genokit.genomics.step import SUM, package


@contextmanager
def opened(
    address: storage.Address, kind: str, clients: Clients | None = None, *, index: str | None = None
) -> Iterator[Any]:
    """A file as pysam's ``kind``, such as "VariantFile", perhaps with its ``index``; those on S3 are copied first.

    Raises as ``storage.local``, and InvalidParameters if the file, or a part of it, is not of this kind.
    """
    pysam = package("pysam")
    before = pysam.set_verbosity(0)  # htslib prints what the error says, and that there is no index
    try:
        with tempfile.TemporaryDirectory() as folder:
            beside = {"index_filename": str(storage.local(index, Path(folder), clients=clients))} if index else {}
            with getattr(pysam, kind)(str(storage.local(address, Path(folder), clients=clients)), **beside) as file:
                yield file
    except (ValueError, OSError) as error:
        raise InvalidParameters(f"'{address}' cannot be read by pysam's {kind}: {error}.") from error
    finally:
        pysam.set_verbosity(before)


def result_files(
    results: storage.Address, clients: Clients | None = None, *, sample: str | None = None
) -> dict[str, dict[str, str]]:
    """The addresses of a workflow's results, by sample and by what follows its name, such as "vcf.gz".

    Raises NotFound if there are none, or none of the ``sample``.
    """
    base, found = os.fspath(results).rstrip("/"), defaultdict[str, dict[str, str]](dict)
    for address in storage.files(base, clients=clients):
        name, *below = address.removeprefix(f"{base}/").split("/")
        if below and below[-1].startswith(f"{name}.") and not below[-1].endswith(SUM):
            found[name][below[-1].removeprefix(f"{name}.")] = address
    if not found:
        raise NotFound(f"There are no results in '{results}'. Expected files such as <sample>/bam/<sample>.bam.")
    if sample is not None and sample not in found:
        raise NotFound(f"There is no sample '{sample}' in '{results}'. {did_you_mean(sample, found)}")
    return {name: found[name] for name in sorted(found) if sample in (None, name)}


def vcf_of(files: Mapping[str, str]) -> str | None:
    """The address of a sample's VCF, the annotated one if it is there."""
    return files.get("annotated.vcf.gz", files.get("vcf.gz"))
