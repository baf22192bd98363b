"""Files of the field by address: opened quietly, without an index, and with the kit's errors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genokit import storage
from genokit.backends import Clients
from genokit.errors import InvalidParameters, NotFound, did_you_mean


@contextmanager
def opened(address: storage.Address, kind: str, clients: Clients | None = None) -> Iterator[Any]:
    """A file as pysam's ``kind``, such as "VariantFile"; one on S3 is copied first.

    Raises as ``storage.local``, and InvalidParameters if the file, or a part of it, is not of this kind.
    """
    import pysam

    before = pysam.set_verbosity(0)  # htslib prints what the error says, and that there is no index
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            getattr(pysam, kind)(str(storage.local(address, Path(folder), clients=clients))) as file,
        ):
            yield file
    except (ValueError, OSError) as error:
        raise InvalidParameters(f"'{address}' cannot be read by pysam's {kind}: {error}.") from error
    finally:
        pysam.set_verbosity(before)


def sample_in(file: Any, address: storage.Address, sample: str | None) -> str:
    """The name of a sample in a VCF: the given one, or else its only one. Raises NotFound, InvalidParameters."""
    names = list(file.header.samples)
    if sample is None and len(names) != 1:
        raise InvalidParameters(f"'{address}' has {len(names)} samples: {', '.join(names)}. Name one with sample=.")
    if sample is not None and sample not in names:
        raise NotFound(f"'{address}' has no sample '{sample}'. {did_you_mean(sample, names)}")
    return sample or names[0]
