"""One command of pysam's samtools or bcftools as a process: ``pysam_command.py samtools stats S1.bam ">" S1.txt``.

A command holds Python's global lock to its end: in the step's own process no signal would be handled meanwhile.
"""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    """Run the command of ``sys.argv``; exits with what it said if it fails."""
    import pysam

    package, name, *arguments = sys.argv[1:]
    output = {"save_stdout": arguments[-1]} if ">" in arguments else {"catch_stdout": False}
    try:
        getattr(import_module(f"pysam.{package}"), name)(*arguments[: -2 if ">" in arguments else None], **output)
    except pysam.SamtoolsError as error:
        sys.exit(str(error.args[0]).rpartition("stderr=")[2].strip() or "no reason given")


if __name__ == "__main__":
    main()
