"""Manifest: what a data set is, where its files come from, and their hashes."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from genokit.config import Settings, nearest
from genokit.data.dataset import Dataset
from genokit.data.descriptor import FILE, DataPackage, DataResource, read
from genokit.errors import InvalidManifest, NotFound, did_you_mean
from genokit.files import note_fetched, write_atomic

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.backends import Clients
    from genokit.data.fetch import LocalFiles


class Manifest:
    """A data set's descriptor; ``Manifest("mnist").fetch()`` gives its verified files.

    The descriptor is read when it is first needed, not by the constructor.

    Parameters
    ----------
    name_or_path : str or path
        A name such as "mnist", looked up in ``settings.manifests`` (default: the nearest ``data_manifests/``) and then
        among the package's own; or the path of a folder or datapackage.json, which must contain a "/".
    settings : Settings, optional
        Settings for the cache, mirrors and time limits. Default: ``Settings.load()``.
    clients : Clients, optional
        Clients for sources on S3. Default: those of the settings.

    Raises
    ------
    NotFound, InvalidManifest
        On first use: there is no such manifest, or it is not valid.

    Examples
    --------
    >>> Manifest("mnist").package.version, [resource.name for resource in Manifest("mnist").package.resources]
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
        """Write a manifest into a folder, with path, size and sha256 of each file in it; hidden files are left out.

        The same files give the same descriptor. Fetching the manifest uses the files where they are.

        Parameters
        ----------
        folder : str or path
            The folder.
        name : str
            Name of the data set: lower-case letters, digits, "-", "_" and ".".
        title : str, optional
            Title. Default: the name.
        licence : str, optional
            SPDX identifier, such as "CC-BY-4.0".
        version : str, default "1.0.0"
            Version of the data.
        replace : bool, default False
            Overwrite an existing datapackage.json.

        Returns
        -------
        Manifest
            The new manifest.

        Raises
        ------
        NotFound
            There is no such folder.
        InvalidManifest
            The folder is empty, has a manifest already, or has a link that leads out of it; or an argument is invalid.

        Examples
        --------
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "reads.csv").write_text("id,length\\n")
        10
        >>> Manifest.freeze(folder, "reads").fetch()["reads"].name
        'reads.csv'
        """
        from genokit.data.freeze import described

        target = Path(folder) / FILE
        if target.exists() and not replace:
            raise InvalidManifest(
                f"{target} exists. Pass replace=True to overwrite it; the sources listed in it will be lost."
            )
        content = described(Path(folder), name, title=title, licence=licence, version=version)
        return Manifest(write_atomic(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n"))

    def fetch(self, progress: bool = True) -> Dataset:
        """Fetch the data set and verify every file by its declared hash.

        Files come from the manifest's folder or the cache, or else from the first source that has them: the mirrors of
        the settings, then the manifest's own sources. If the full data cannot be fetched, the manifest's declared
        sample is used, if it has one.

        Parameters
        ----------
        progress : bool, default True
            Show a progress bar per file.

        Returns
        -------
        Dataset
            The verified files; ``dataset.sample`` is True for the sample.

        Raises
        ------
        FetchFailed
            No source has a file; ``.tried`` lists each source and its answer.
        HashMismatch
            A source has a file with other bytes.
        ConfigError
            The cache cannot be written.
        """
        from genokit.data.fetch import fetch

        dataset = fetch(self._files, self.ref, self._clients, progress=progress)
        note_fetched(self._file)
        return dataset

    def verify(self) -> DataFrame:
        """Hash the files on this machine and compare them with the manifest, without a network.

        Returns
        -------
        DataFrame
            One row per file: resource, path, bytes (NA if missing), sha256 (of the file) and state: "verified", "wrong"
            or "missing". Files of a sample follow if they were fetched.
        """
        import pandas as pd

        package = self.package
        rows = [self._checked(resource, resource.name) for resource in package.resources]
        sample = [self._checked(resource, f"{resource.name} ({package.sample_title})") for resource in package.sample]
        rows += [row for row in sample if row["state"] != "missing"]
        return pd.DataFrame(rows).astype({"bytes": "Int64"})

    @property
    def ref(self) -> str:
        """The argument that finds this manifest again: its name, or the absolute path of its descriptor."""
        return self._given if self._path is None else str(self._file)

    @cached_property
    def package(self) -> DataPackage:
        """What the descriptor says: name, title, version, description, licences, citation, resources and sample."""
        return read(self._file)

    def __repr__(self) -> str:
        return f"<Manifest {self.ref if self._path is None else self._path}>"

    def _repr_html_(self) -> str:
        from genokit.data.sources import shown
        from genokit.display import card, size, table

        package = self.package
        files = []
        for resource in package.resources:
            length = None if resource.bytes is None else size(resource.bytes)
            sources = ", ".join(shown(source) for source in resource.sources) or None
            files.append((resource.name, resource.path, length, resource.hash[:23], sources))
        listed = table(files, columns=["resource", "path", "size", "hash", "sources"])
        rows = {
            "name": f"{package.name} {package.version}",
            "about": package.description,
            "licence": "; ".join(package.licences) or "not stated",
            "citation": package.citation,
            "fallback": package.sample_title,
            "descriptor": self._file,
        }
        return card(package.title, [row for row in rows.items() if row[1]], fold={f"Files ({len(files)})": listed})

    @cached_property
    def _resolved(self) -> Settings:
        return self._settings or Settings.load()

    @property
    def _files(self) -> LocalFiles:
        from genokit.data.fetch import LocalFiles

        return LocalFiles(self.package, self._file.parent, self._resolved)

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

    def _checked(self, resource: DataResource, name: str) -> dict[str, object]:
        path, sha256, wrong = self._files.held(resource)
        state = "missing" if sha256 is None else "wrong" if wrong else "verified"
        length = path.stat().st_size if sha256 else None
        return {"resource": name, "path": str(path), "bytes": length, "sha256": sha256, "state": state}


def _folders(settings: Settings) -> list[Path]:
    """Where manifests are looked up by name: the site's folder, then the package's own."""
    site = settings.manifests or nearest("data_manifests")
    # The package's own lie beside this file in an installed package, and in data_manifests/ in a checkout.
    own = [Path(__file__).with_name("manifests"), Path(__file__).parents[2] / "data_manifests"]
    return list(dict.fromkeys(folder for folder in (site, *own) if folder is not None and folder.is_dir()))
