"""Secrets of notebooks: read only in the kernel, and kept out of every file that a run writes.

A parameter holds ``secret://NAME``. Where the secret would be written because a cell prints, raises or records it,
``secret://NAME`` is written instead. Environment variables whose names look like secrets are replaced in the same way.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from genokit.config import Settings
from genokit.errors import InvalidParameters, NotFound
from genokit.pipelines import values
from genokit.secret_kinds import REFERENCE, secret_name

SHORTEST = 8  # characters; a shorter value may occur by chance in text that is not secret
_read = dict[str, str]()  # what this process has read, by name


def secret(name: str, settings: Settings | None = None) -> str:
    """Read a secret: the environment variable of this name, or else the file ``secrets/NAME`` in ``settings.home``.

    Raises
    ------
    NotFound
        Neither exists.
    InvalidParameters
        Other users may read the file, or the value is too short to be recognized in a notebook's output.
    """
    path = (settings or Settings.load()).home / "secrets" / name
    value = os.environ.get(name, "")
    if not value and path.is_file():
        if path.stat().st_mode & 0o077:
            raise InvalidParameters(f"secret://{name}: other users may read the file {path}. Run: chmod 600 '{path}'")
        value = path.read_text(encoding="utf-8").strip()
    if not value:
        raise NotFound(f"secret://{name} has no value. Set the environment variable {name}, or write the file {path}.")
    if len(value) < SHORTEST:
        raise InvalidParameters(
            f"secret://{name} has fewer than {SHORTEST} characters. That is too few to recognize it in outputs: use a "
            "longer one."
        )
    _read[name] = value
    return value


def known() -> dict[str, str]:
    """Every form of every secret that this process knows, and the text that replaces it."""
    found = dict[str, str]()
    # A shell's PWD and OLDPWD are folders.
    environ = {name: text for name, text in os.environ.items() if secret_name(name) and name not in ("PWD", "OLDPWD")}
    for name, value in {**environ, **_read}.items():
        for part in {value, *value.splitlines()}:
            if len(part) >= SHORTEST and not REFERENCE.fullmatch(part):
                found |= dict.fromkeys(_forms(part), f"secret://{name}")
    return {form: found[form] for form in sorted(found, key=len, reverse=True)}


def _forms(value: str) -> list[str]:
    """How a text may occur in another: as it is, escaped, or in base64, at any offset."""
    data = value.encode(errors="replace")
    literals = [json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value), repr(data)[1:]]
    forms = [value, html.escape(value), quote(value, safe=""), *(literal[1:-1] for literal in literals)]
    for shift in range(3):
        inner = base64.b64encode(b" " * shift + data).decode()[(8 * shift + 5) // 6 : 8 * (shift + len(data)) // 6]
        forms += [inner, inner.replace("+", "-").replace("/", "_")]
    return forms


def redacted(value: Any, secrets: Mapping[str, str] | None = None) -> Any:
    """The value with each form of a secret in it replaced; by default, of all secrets that this process knows.

    >>> redacted({"url": ["https://me:hunter22@host"], "n": 3}, {"hunter22": "secret://PASSWORD"})
    {'url': ['https://me:secret://PASSWORD@host'], 'n': 3}
    """
    secrets = known() if secrets is None else secrets

    def clean(item: Any) -> Any:
        text = before = item.decode(errors="replace") if isinstance(item, bytes) else str(item)
        for form, instead in secrets.items():
            text = text.replace(form, instead)
        return item if text == before else Path(text) if isinstance(item, Path) else text

    return values.mapped(value, clean, object) if secrets else value


class Redacted:
    """A text file to which secrets are written as ``secret://NAME``."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._secrets, self.flush = file, known(), file.flush

    def write(self, text: str) -> None:
        """Write a text."""
        self._file.write(redacted(text, self._secrets))
