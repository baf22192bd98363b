"""Manifest: what a data set is, where its files come from, and what they hash to."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.config import Settings, nearest
from genokit.data.dataset import Dataset
from genokit.data.descriptor import FILE, Package, Resource, read
from genokit.errors import NotFound, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.backends import Clients
    from genokit.data.fetch import Place


class Manifest:
    """A data set's descriptor, by name ("mnist") or by the path of a folder or datapackage.json.

    ``Manifest("mnist").fetch()`` gives its files, checked, wherever the site can get them from. A name is looked for in
    ``settings.manifests``, which is the nearest ``data_manifests/`` unless told otherwise, then among the package's
    own. Nothing is read before it is needed; then NotFound or InvalidManifest may be raised. ``clients`` (default: the
    settings' own) serves sources in s3.

    >>> Manifest("mnist").version, [resource.name for resource in Manifest("mnist").resources]
    ('1.0.0', ['train-images', 'train-labels', 't10k-images', 't10k-labels'])
    """

    def __init__(
        self,
        name_or_path: str | os.PathLike[str],
        *,
        settings: Settings | None = None,
        clients: Clients | None = None,
    ) -> None:
        text = os.fspath(name_or_path)
        is_path = not isinstance(name_or_path, str) or any(mark in text for mark in ("/", os.sep)) or text == FILE
        self._path = Path(text).expanduser().absolute() if is_path else None
        self._given = text
        self._settings = settings
        self._clients = clients

    @staticmethod
    def freeze(
        folder: str | os.PathLike[str],
        name: str,
        *,
        title: str | None = None,
        licence: str | None = None,
        version: str = "1.0.0",
        replace: bool = False,
    ) -> Manifest:
        """Write a manifest of a folder's files into it: path, bytes and sha256 of each, in order of their paths.

        The same files give the same descriptor. Hidden files are left out. ``licence`` is an SPDX identifier such as
        "CC-BY-4.0". An existing datapackage.json is kept unless ``replace``. Fetching the result uses the files where
        they are. Raises InvalidManifest, among others for a link that leads out of the folder, or NotFound.
        """
        from genokit.data.freeze import freeze

        return Manifest(freeze(folder, name, title=title, licence=licence, version=version, replace=replace))

    def fetch(self, progress: bool = True) -> Dataset:
        """The data set, every file checked against its sha256; from the cache if it is there.

        Else each source is tried in turn: the mirrors of the settings, then the manifest's own. If the whole cannot be
        had, the manifest's declared sample is taken if it has one: then ``dataset.sample`` is True. Raises FetchFailed
        with every source and its answer, or HashMismatch; what failed leaves nothing behind.
        """
        from genokit.data.fetch import fetch

        return fetch(self._place, self.ref, self._clients, progress=progress)

    def verify(self) -> DataFrame:
        """Hash the files that are on this machine and compare, without a network: one row a file.

        Columns: resource, path, bytes (of the file; NA if missing), sha256 (of the file) and state: "verified", "wrong"
        or "missing". A sample's files follow, named as such, if they were fetched.
        """
        import pandas as pd

        package = self._package
        wanted = [(resource, resource.name) for resource in package.resources]
        sample = [(resource, f"{resource.name} ({package.sample_title})") for resource in package.sample]
        rows = [row for pair in wanted if (row := self._checked(*pair))]
        rows += [row for pair in sample if (row := self._checked(*pair))["state"] != "missing"]
        return pd.DataFrame(rows).astype({"bytes": "Int64"})

    @property
    def ref(self) -> str:
        """What finds this manifest again: its name, or the absolute path of its descriptor."""
        return self._given if self._path is None else str(self._file)

    @property
    def name(self) -> str:
        """The name in the descriptor, also that of its folder in the cache and in mirrors."""
        return self._package.name

    @property
    def title(self) -> str:
        """What the data are, in a few words."""
        return self._package.title

    @property
    def version(self) -> str:
        """The version the descriptor gives the data."""
        return self._package.version

    @property
    def licences(self) -> tuple[str, ...]:
        """The licences, each as its identifier and what the descriptor says about it."""
        return self._package.licences

    @property
    def citation(self) -> str:
        """How to cite the data."""
        return self._package.citation

    @property
    def resources(self) -> tuple[Resource, ...]:
        """The files, in the descriptor's order."""
        return self._package.resources

    def __repr__(self) -> str:
        return f"<Manifest {self.ref if self._path is None else self._path}>"

    def _repr_html_(self) -> str:
        from genokit.data.sources import shown
        from genokit.display import card, size, table

        package = self._package
        files = [
            {
                "resource": resource.name,
                "path": resource.path,
                "size": None if resource.bytes is None else size(resource.bytes),
                "sha256": resource.sha256[:16],
                "sources": ", ".join(shown(source) for source in resource.sources) or None,
            }
            for resource in package.resources
        ]
        rows = {
            "name": f"{package.name} {package.version}",
            "about": package.description,
            "licence": "; ".join(package.licences) or "not stated",
            "citation": package.citation,
            "last resort": package.sample_title,
            "descriptor": self._file,
        }
        return card(
            package.title, [row for row in rows.items() if row[1]], fold={f"Files ({len(files)})": table(files)}
        )

    @cached_property
    def _resolved(self) -> Settings:
        return self._settings or Settings.load()

    @cached_property
    def _package(self) -> Package:
        return read(self._file)

    @property
    def _place(self) -> Place:
        from genokit.data.fetch import Place

        return Place(self._package, self._file.parent, self._resolved)

    @cached_property
    def _file(self) -> Path:
        if self._path is not None:
            file = self._path / FILE if self._path.is_dir() else self._path
            if not file.is_file():
                raise NotFound(f"There is no manifest '{file}'. Manifest.freeze(folder, name) writes one.")
            return file
        folders = _folders(self._resolved)
        found = next(
            (folder / self._given / FILE for folder in folders if (folder / self._given / FILE).is_file()), None
        )
        if found is None:
            known = {file.parent.name for folder in folders for file in folder.glob(f"*/{FILE}")}
            where = " or ".join(str(folder) for folder in folders)
            hint = did_you_mean(self._given, known)
            raise NotFound(
                f"There is no manifest '{self._given}' in {where}. {hint} A path needs a '/', as in './data'."
            )
        return found

    def _checked(self, resource: Resource, name: str) -> dict[str, object]:
        path, got = self._place.held(resource)
        state = "missing" if got is None else "verified" if got == resource.sha256 else "wrong"
        length = path.stat().st_size if got is not None else None
        return {"resource": name, "path": str(path), "bytes": length, "sha256": got, "state": state}


def _folders(settings: Settings) -> list[Path]:
    """Where manifests are looked for by name: the site's folder, then the package's own."""
    site = settings.manifests or nearest("data_manifests")
    # In an installed package they lie beside this file; in a checkout in its data_manifests/.
    own = [Path(__file__).with_name("manifests"), Path(__file__).parents[2] / "data_manifests"]
    return list(dict.fromkeys(folder for folder in (site, *own) if folder is not None and folder.is_dir()))
