"""Secrets of notebooks: read in the kernel alone, and kept out of every file that a run writes.

A parameter holds ``secret://NAME``. Where its value would be written, be it printed, raised or recorded, ``secret://NAME``
is written instead; so are the values of environment variables whose names look like secrets.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from genokit.config import Settings
from genokit.errors import InvalidParameters, NotFound
from genokit.secret_kinds import REFERENCE, secret_name

SHORTEST = 8  # characters; a shorter value would be found in many places where it is no secret
_read = dict[str, str]()  # what this process has read, by name


def secret(name: str, settings: Settings | None = None) -> str:
    """Read a secret: the environment variable of this name, or else the file ``secrets/NAME`` in ``settings.home``.

    Raises
    ------
    NotFound
        There is neither.
    InvalidParameters
        Others may read the file, or the value is too short to be recognized in what a notebook prints.
    """
    path = (settings or Settings.load()).home / "secrets" / name
    value = os.environ.get(name, "")
    if not value and path.is_file():
        if path.stat().st_mode & 0o077:
            raise InvalidParameters(f"secret://{name}: others may read the file {path}. Run: chmod 600 '{path}'")
        value = path.read_text(encoding="utf-8").strip()
    if not value:
        raise NotFound(f"secret://{name} has no value. Set the environment variable {name}, or write the file {path}.")
    if len(value) < SHORTEST:
        raise InvalidParameters(
            f"secret://{name} has fewer than {SHORTEST} characters, too few to be kept out of files. Use a longer one."
        )
    _read[name] = value
    return value


def known() -> dict[str, str]:
    """What must not be written: each form of each secret that this process knows, with what to write instead."""
    found = dict[str, str]()
    # A shell's PWD and OLDPWD are folders.
    environ = {name: text for name, text in os.environ.items() if secret_name(name) and name not in ("PWD", "OLDPWD")}
    for name, value in {**environ, **_read}.items():
        for part in {value, *value.splitlines()}:
            if len(part) >= SHORTEST and not REFERENCE.fullmatch(part):
                found |= dict.fromkeys(_forms(part), f"secret://{name}")
    return dict(sorted(found.items(), key=lambda one: -len(one[0])))


def _forms(value: str) -> Iterator[str]:
    """How a text may stand in another: as it is, escaped, or in base64, wherever in it it begins."""
    yield from (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    data = value.encode(errors="replace")
    yield from (html.escape(value), quote(value, safe=""), repr(data)[2:-1])
    for shift in range(3):
        inner = base64.b64encode(b" " * shift + data).decode()[(8 * shift + 5) // 6 : 8 * (shift + len(data)) // 6]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))


def redacted(value: Any, secrets: Mapping[str, str] | None = None) -> Any:
    """The same text, number, path or container, with each form of a secret replaced; by default of all that are known.

    >>> redacted({"url": ["https://me:hunter22@host"], "n": 3}, {"hunter22": "secret://PASSWORD"})
    {'url': ['https://me:secret://PASSWORD@host'], 'n': 3}
    """
    secrets = known() if secrets is None else secrets
    if not secrets:
        return value
    if isinstance(value, dict):
        return type(value)({redacted(key, secrets): redacted(item, secrets) for key, item in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(redacted(item, secrets) for item in value)
    text = before = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    for form, instead in secrets.items():
        text = text.replace(form, instead)
    return value if text == before else Path(text) if isinstance(value, Path) else text


class Redacted:
    """A text file to which secrets are written as ``secret://NAME``."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._secrets, self.flush = file, known(), file.flush

    def write(self, text: str) -> None:
        """Write a text."""
        self._file.write(redacted(text, self._secrets))
