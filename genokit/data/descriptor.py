"""The checked content of a datapackage.json: Frictionless Data Package v2 with the sources of each file.

The standard's ``path`` cannot be an ``s3://`` or ``pkg:`` address, so a resource has a relative ``path`` (in a folder,
a mirror, the cache) and lists its sources in an extra property. Properties beyond the standard (all optional):

    resource  "x-sources"    https://..., s3://bucket/key, pkg:npm/name@version#member, pkg:pypi/name@version#member
    package   "x-sample"     {"title": "sample of ...", "resources": [...]}, used if the full data cannot be fetched
    package   "x-citation"   how to cite the data

``hash`` ("sha256:...") is required, because only verified files are used. https://datapackage.org/standard/data-package/
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from genokit.errors import InvalidManifest

PROFILE = "https://datapackage.org/profiles/2.0/datapackage.json"
FILE = "datapackage.json"


@dataclass(frozen=True)
class DataResource:
    """One file: its relative path, its sha256, its size in bytes (None if unknown) and its sources."""

    name: str
    path: str
    sha256: str
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
    except OSError as error:
        raise InvalidManifest(f"{file} cannot be read: {error.strerror}. Manifest.freeze() writes one.") from error
    except (ValueError, RecursionError) as error:
        raise InvalidManifest(
            f"{file} is not valid JSON: {error}. Fix it, or write it with Manifest.freeze()."
        ) from error
    return parse(content, file)


def parse(content: object, file: Path) -> DataPackage:
    """Check a descriptor's content; ``file`` is used only in messages. Raises InvalidManifest."""
    return _Checker(file).package(content)


def check_path(path: object) -> str | None:
    """What is wrong with a resource's path, or None. The standard requires that it stays in its folder on any system.

    >>> check_path("data/a.csv"), check_path("../a.csv")
    (None, "leaves the folder with '..'")
    """
    if not isinstance(path, str) or not path:
        return "is not a single relative path"
    if "://" in path or path.startswith("/") or re.match("[A-Za-z]:", path):
        return "is not relative"
    parts = path.split("/")
    if ".." in parts:
        return "leaves the folder with '..'"
    if "\\" in path or not path.isprintable() or "" in parts or "." in parts:
        return "has an empty part, a backslash or an unprintable character"
    if path[0] in ".~":
        return f"begins with '{path[0]}', which the standard does not allow"
    return None


class _Checker:
    """Checks one file's content; every message names the file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def wrong(self, field: str, problem: str, step: str, resource: str = "") -> NoReturn:
        where = f"resource '{resource}', " if resource else ""
        raise InvalidManifest(f"{self.file}: {where}field '{field}' {problem}. {step}")

    def text(self, content: Mapping[str, Any], field: str, default: str = "") -> str:
        value = content.get(field, default)
        if not isinstance(value, str):
            self.wrong(field, f"must be a string, but is {value!r}", "Put it in quotes.")
        return value

    def package(self, content: Any) -> DataPackage:
        if not isinstance(content, dict):
            raise InvalidManifest(f"{self.file} must contain a JSON object, as Manifest.freeze() writes it.")
        name = self.text(content, "name")
        # It becomes a folder name in the cache and in mirrors.
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", name):
            self.wrong("name", f"is {name!r}", "Use lower-case letters, digits, '-', '_' and '.', as in 'mnist'.")
        sample = content.get("x-sample", {"resources": None})
        if not isinstance(sample, dict) or ("x-sample" in content and not self.text(sample, "title")):
            self.wrong("x-sample", "must have a title and resources", 'As in {"title": "sample of 5,000 images", ...}.')
        return DataPackage(
            name=name,
            title=self.text(content, "title", name),
            version=self.text(content, "version"),
            description=self.text(content, "description"),
            licences=self.licences(content.get("licenses", [])),
            citation=self.text(content, "x-citation"),
            resources=self.resources(content.get("resources"), "resources"),
            sample=self.resources(sample.get("resources"), "x-sample.resources") if "x-sample" in content else (),
            sample_title=self.text(sample, "title"),
        )

    def licences(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.wrong("licenses", "must be a list of objects", 'As in [{"name": "CC-BY-4.0"}].')
        shown = (dict.fromkeys(self.text(item, key) for key in ("name", "title")) for item in value)
        return tuple(": ".join(part for part in parts if part) or "stated at its path" for parts in shown)

    def resources(self, value: Any, field: str) -> tuple[DataResource, ...]:
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            self.wrong(field, "must be a list with at least one object", "Manifest.freeze() writes one for each file.")
        found = tuple(self.resource(item) for item in value)
        names = [resource.name for resource in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            self.wrong("name", "is used twice", "Resource names must be unique.", twice)
        return found

    def resource(self, item: Mapping[str, Any]) -> DataResource:
        name = self.text(item, "name")
        if not name or not name.isprintable():
            self.wrong("resources", "has a resource without a name", 'Add one, as in "name": "train-images".')
        path, size, sources = item.get("path"), item.get("bytes"), item.get("x-sources", [])
        problem = check_path(path)
        if problem:
            self.wrong(
                "path", f"{problem}: {path!r}", "Use a path like 'data/a.csv'; addresses belong in x-sources.", name
            )
        checksum = re.fullmatch(r"sha256:([0-9a-fA-F]{64})", self.text(item, "hash"))
        if not checksum:
            step = "Manifest.freeze() computes it; so does the command sha256sum."
            self.wrong("hash", f"must be 'sha256:' and 64 hexadecimal digits, but is {item.get('hash')!r}", step, name)
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            self.wrong("bytes", f"must be a number of bytes, but is {size!r}", "Leave it out if unknown.", name)
        if not isinstance(sources, list):
            self.wrong("x-sources", "must be a list of strings", 'As in ["https://..."].', name)
        for source in sources:
            self.source(source, name)
        if size is None and any(source.endswith(".gz") and not str(path).endswith(".gz") for source in sources):
            step = "State the size of the unpacked file, which limits what unpacking may write."
            self.wrong("bytes", "is missing, but a source is compressed", step, name)
        return DataResource(name, str(path), checksum[1].lower(), size, tuple(sources))

    def source(self, source: Any, resource: str) -> None:
        if isinstance(source, str) and source.startswith("pkg:"):
            from genokit.data.packages import parse

            try:
                parse(source)
            except ValueError as error:
                self.wrong("x-sources", f"has '{source}': {error}", "See https://github.com/package-url.", resource)
        elif not isinstance(source, str) or not re.match(r"(https|s3)://[^/\s]+/\S", source):
            step = "Use https://, s3:// or pkg:; a folder or an http address can be a mirror in genokit.toml."
            self.wrong("x-sources", f"has {source!r}", step, resource)
