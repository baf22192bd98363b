"""The checked content of a datapackage.json: Frictionless Data Package v2 with the sources of each file.

The standard's ``path`` cannot be an ``s3://`` or ``pkg:`` address, so a resource has a relative ``path`` (in a folder,
a mirror, the cache) and lists its sources in an extra property. Properties beyond the standard (all optional):

    resource  "x-sources"    https://..., s3://bucket/key, drs://host/id, pkg:npm/name@version#member, or pypi
    package   "x-sample"     {"title": "sample of ...", "resources": [...]}, used if the full data cannot be fetched
    package   "x-citation"   how to cite the data

``hash`` is required, because only verified files are used: "sha256:..." or, where the publisher gives nothing stronger,
"md5:...". https://datapackage.org/standard/data-package/
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from genokit.errors import InvalidManifest

PROFILE = "https://datapackage.org/profiles/2.0/datapackage.json"
FILE = "datapackage.json"


@dataclass(frozen=True)
class DataResource:
    """One file: its relative path, its hash ("sha256:..." or "md5:..."), its size in bytes or None, and its sources."""

    name: str
    path: str
    hash: str
    bytes: int | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataPackage:
    """A whole descriptor; ``sample`` is the smaller data set used if the full one cannot be fetched."""

    name: str
    title: str
    version: str
    description: str
    licences: tuple[str, ...]
    citation: str
    resources: tuple[DataResource, ...]
    sample: tuple[DataResource, ...] = ()
    sample_title: str = ""


def read(file: Path) -> DataPackage:
    """Read and check a descriptor; raises InvalidManifest with the file, resource, field and what to do."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidManifest(
            f"{file} cannot be read: {error}. Fix it, or write one with Manifest.freeze()."
        ) from error
    return parse(content, file)


def is_portable(path: object) -> bool:
    """Whether a resource's path stays in its folder on any system, as the standard requires.

    >>> is_portable("data/a.csv"), is_portable("../a.csv"), is_portable("/etc/passwd"), is_portable("s3://lab/a.csv")
    (True, False, False, False)
    """
    if not isinstance(path, str) or not path.isprintable() or "\\" in path or re.match("[A-Za-z]:|[.~]", path):
        return False
    return {"", ".", ".."}.isdisjoint(path.split("/"))


def parse(content: object, file: Path) -> DataPackage:
    """Check a descriptor's content; ``file`` is used only in messages. Raises InvalidManifest."""
    return _Checker(file).package(content)


class _Checker:
    """Checks one file's content; every message names the file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def must(self, valid: object, field: str, expected: str, value: object, resource: str = "") -> None:
        """Raise InvalidManifest unless a field is ``valid``."""
        if not valid:
            where = f"resource '{resource}', " if resource else ""
            raise InvalidManifest(f"{self.file}: {where}field '{field}' must be {expected}, but is {value!r}.")

    def text(self, content: Mapping[str, Any], field: str, default: str = "") -> str:
        value = content.get(field, default)
        self.must(isinstance(value, str), field, "a string", value)
        return str(value)

    def objects(self, value: Any, field: str, example: str) -> list[dict[str, Any]]:
        valid = isinstance(value, list) and all(isinstance(one, dict) for one in value)
        self.must(valid, field, f"a list of objects, {example}", value)
        return list(value)

    def package(self, content: Any) -> DataPackage:
        if not isinstance(content, dict):
            raise InvalidManifest(f"{self.file} must contain a JSON object, as Manifest.freeze() writes it.")
        name = self.text(content, "name")
        # It becomes a folder name in the cache and in mirrors.
        valid = re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", name)
        self.must(valid, "name", "lower-case letters, digits, '-', '_' and '.', as in 'mnist'", name)
        licences = self.objects(content.get("licenses", []), "licenses", 'as in [{"name": "CC-BY-4.0"}]')
        sample = content.get("x-sample")
        titled = sample is None or (isinstance(sample, dict) and self.text(sample, "title"))
        self.must(titled, "x-sample", "an object with a title and resources", sample)
        return DataPackage(
            name=name,
            title=self.text(content, "title", name),
            version=self.text(content, "version"),
            description=self.text(content, "description"),
            licences=tuple(self.licence(one) for one in licences),
            citation=self.text(content, "x-citation"),
            resources=self.resources(content.get("resources"), "resources"),
            sample=self.resources(sample.get("resources"), "x-sample.resources") if sample else (),
            sample_title=sample["title"] if sample else "",
        )

    def licence(self, content: Mapping[str, Any]) -> str:
        parts = dict.fromkeys(self.text(content, key) for key in ("name", "title"))
        return ": ".join(part for part in parts if part) or "stated at its path"

    def resources(self, value: Any, field: str) -> tuple[DataResource, ...]:
        listed = self.objects(value, field, "one for each file, as Manifest.freeze() writes it")
        self.must(listed, field, "a list of one file or more", value)
        found = tuple(self.resource(one) for one in listed)
        names = [one.name for one in found]
        for name in names:
            self.must(names.count(name) == 1, "name", "unique, not used twice", name, name)
        return found

    def resource(self, content: Mapping[str, Any]) -> DataResource:
        name = self.text(content, "name")
        self.must(name and name.isprintable(), "resources", 'a list in which each has a name, as in "images"', name)
        must = partial(self.must, resource=name)
        path, size, sources = content.get("path"), content.get("bytes"), content.get("x-sources", [])
        must(is_portable(path), "path", "relative, like 'data/a.csv', without '..'; addresses are x-sources", path)
        checksum = self.text(content, "hash")
        valid = re.fullmatch("sha256:[0-9a-fA-F]{64}|(md5:)?[0-9a-fA-F]{32}", checksum)
        must(valid, "hash", "'sha256:' and 64 hexadecimal digits (Manifest.freeze), or 'md5:' and 32", checksum)
        counted = isinstance(size, int) and not isinstance(size, bool) and size >= 0
        must(size is None or counted, "bytes", "a number of bytes, or left out if unknown", size)
        must(isinstance(sources, list), "x-sources", "a list of strings", sources)
        for source in sources:
            self.source(source, name)
        packed = any(source.endswith(".gz") and not str(path).endswith(".gz") for source in sources)
        must(size is not None or not packed, "bytes", "the size of the unpacked file, which limits unpacking", size)
        checksum = checksum if ":" in checksum else f"md5:{checksum}"  # the standard's default
        return DataResource(name, str(path), checksum.lower(), size, tuple(sources))

    def source(self, source: Any, resource: str) -> None:
        from genokit.data.packages import parse

        expected = (
            "https://, s3://, drs://host/id or pkg: addresses; a folder or an http address can be a mirror in "
            "genokit.toml, and a compact DRS identifier (drs://prefix:id) needs identifiers.org, which is not asked"
        )
        valid = isinstance(source, str) and re.match(r"pkg:|(https|s3|drs)://[^/\s]+/\S", source)
        self.must(valid, "x-sources", expected, source, resource)
        if source.startswith("pkg:"):
            try:
                parse(source)
            except ValueError as error:
                self.must(False, "x-sources", f"package URLs, and {error}", source, resource)
