"""What looks like a secret: by the name of a variable, by the name of a file, or by the text itself."""

from __future__ import annotations

import functools
import re
import tomllib
from fnmatch import fnmatchcase
from mmap import mmap
from pathlib import Path
from typing import Any

REFERENCE = re.compile(r"secret://([A-Za-z_]\w*)")  # stands for a secret, and is none
BACKUP = re.compile(r"([._~-](bak|backup|old|orig|save|swp|copy|\d+)|~)+$")
# Only whole words count: `secretome`, `monkey`, `bypass` and `author` contain none of these.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET = re.compile(
    r"(?:^|_)(?:[a-z]*(?:passwords?|passwd|pwd|passphrase|passcode|secrets?|credentials?)|jwt|bearer"
    r"|(?:db|sql|user|admin|root|login|smtp|ftp|pg|my)_?pass|(?:git|github|gh|gitlab|azure|ado)_?pat"
    r"|(?:api|access|private|auth|encryption|signing|ssh|storage|deploy|license|subscription)_?keys?|connection_?string"
    r"|(?:api|auth|access|refresh|session|hub)_?tokens|[a-z]*token(?=_(?:value|string)|$))(?=_|$)"
)
# A tokenizer's tokens, and properties of a secret.
_HARMLESS = re.compile(
    r"(?:^|_)(?:pad|eos|bos|cls|sep|mask|unk|start|end|stop|special|next|first|last|per|image)_?token$"
    r"|^(?:n|num|has|is|no|max|min|requires?)_"
    r"|_(?:length|len|size|counts?|file|path|dir|folder|names?|arn|policy|rate|types?|required|fraction|expiry)$"
)


def secret_name(name: str, value: object = None) -> str | None:
    """The name, or a key inside the value, that looks as if it held a secret; booleans and references hold none.

    >>> secret_name("apiKey"), secret_name("pad_token_id"), secret_name("options", {"db_pwd": "x"})
    ('apiKey', None, 'db_pwd')
    """
    if isinstance(value, bool) or (isinstance(value, str) and REFERENCE.fullmatch(value)):
        return None
    words = "_".join(_WORDS.findall(name)).lower()
    if _SECRET.search(words) and not _HARMLESS.search(words):
        return name
    inside = [(str(key), item) for key, item in value.items()] if isinstance(value, dict) else []
    inside += [("", item) for item in value] if isinstance(value, list | tuple) else []
    return next((found for key, item in inside if (found := secret_name(key, item))), None)


def secret_file(name: str) -> bool:
    """Whether a file holds secrets by its name, a path with slashes; code and prose do not.

    >>> secret_file("keys/id_rsa.bak"), secret_file("lab/token.py")
    (True, False)
    """
    folders, slash, file = f"/{name.lower()}".rpartition("/")
    file = BACKUP.sub("", file) or file
    known = any(fnmatchcase(one, glob) for one in (file, file.lstrip(".")) for glob in _kinds()["names"])
    known = known or any(fnmatchcase(folders + slash + file, glob) for glob in _kinds()["paths"])
    return known and not file.endswith(tuple(_kinds()["code"]))


def secret_text(text: bytes | mmap) -> str | None:
    """The kind of the first secret that a text contains; None where it contains none.

    >>> secret_text(b"key = AKIA" + b"Q" * 16), secret_text(b"key = AKIAIOSFODNN7EXAMPLE")
    ('an access key of AWS', None)
    """
    return next((kind for kind, pattern in _patterns() if pattern.search(text)), None)


@functools.cache
def _patterns() -> list[tuple[str, re.Pattern[bytes]]]:
    return [(kind, re.compile(pattern.encode())) for kind, pattern in _kinds()["words"].items()]


@functools.cache
def _kinds() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
