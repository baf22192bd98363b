"""Freezing: the descriptor of the files of a folder; the same files give the same descriptor."""

from __future__ import annotations

import os
import re
from pathlib import Path

from genokit.data.descriptor import FILE, PROFILE, is_portable, parse
from genokit.errors import InvalidManifest, NotFound
from genokit.files import sha256


def described(folder: Path, name: str, *, title: str | None, licence: str | None, version: str) -> dict[str, object]:
    """The checked content of a descriptor for the files of a folder, which is not changed."""
    if not folder.is_dir():
        raise NotFound(f"There is no folder '{folder}'.")
    if licence is not None and not re.fullmatch("[-a-zA-Z0-9._]+", licence):
        raise InvalidManifest(
            f"'{licence}' is not a licence identifier. Use one from https://spdx.org, such as 'CC-BY-4.0'."
        )
    paths = _files(folder)
    if not paths:
        raise InvalidManifest(f"There are no files in '{folder}'; hidden files are ignored.")
    content: dict[str, object] = {"$schema": PROFILE, "name": name, "title": title or name, "version": version}
    if licence is not None:
        content["licenses"] = [{"name": licence}]
    names = _names(paths)
    content["resources"] = [_resource(folder, path, names[path]) for path in paths]
    parse(content, folder / FILE)
    return content


def _files(folder: Path) -> list[str]:
    """Relative paths of all files, sorted, without hidden ones; links out of the folder are refused."""
    found, home = [], folder.resolve()
    for path in folder.rglob("*"):
        relative = path.relative_to(folder).as_posix()
        if relative == FILE or "/." in f"/{relative}":
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            raise InvalidManifest(f"'{path}' links out of the folder. Copy the file here, or remove the link.")
        if path.is_symlink() and path.is_dir():
            raise InvalidManifest(f"'{path}' links to a folder. Freeze that folder by its own path.")
        if path.is_dir():
            continue
        if not path.is_file() or not is_portable(relative):
            raise InvalidManifest(f"{relative!r} is not a file with a name for every system. Rename or remove it.")
        found.append(relative)
    return sorted(found)


def _names(paths: list[str]) -> dict[str, str]:
    """A unique name for each path: "sub/Data 1.csv" is "sub-data-1"."""
    names: dict[str, str] = {}
    for path in paths:
        stem = re.sub(r"[^a-z0-9]+", "-", os.path.splitext(path)[0].lower()).strip("-") or "file"
        taken = set(names.values())
        numbered = (f"{stem}-{n}" for n in range(2, len(paths) + 2))
        names[path] = stem if stem not in taken else next(name for name in numbered if name not in taken)
    return names


def _resource(folder: Path, path: str, name: str) -> dict[str, object]:
    file = folder / path
    return {"name": name, "path": path, "bytes": file.stat().st_size, "hash": f"sha256:{sha256(file)}"}
