"""Names of samples and lanes, which become parts of file names and of a BAM's header."""

from __future__ import annotations

import re

from genokit.errors import InvalidParameters

ALLOWED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_sample(name: str) -> str:
    """The name of a sample or lane, if it is allowed. Raises InvalidParameters.

    >>> check_sample("NA12878")
    'NA12878'
    """
    if not ALLOWED.fullmatch(name):
        raise InvalidParameters(
            f"{name!r} cannot be the name of a sample or lane. Use up to 100 letters, digits, '.', '_' and '-', and "
            "begin with a letter or digit."
        )
    return name
