"""Dataset: the verified files of one data set on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from genokit.errors import NotFound, did_you_mean


@dataclass(frozen=True)
class Dataset:
    """The files of a data set, verified by the hashes in its manifest. ``dataset["resource"]`` is the path of one file.

    Attributes
    ----------
    name, title, version : str
        As in the manifest; the title of a sample says that it is one.
    sample : bool
        True if only the manifest's declared sample could be fetched.
    paths : mapping of str to Path
        The files by resource name.
    hashes : mapping of str to str
        Their sha256, in hexadecimal; computed from the verified files if the manifest declares MD5.
    ref : str
        ``Manifest(ref)`` finds this data set again.
    licences : tuple of str
        The licences.
    citation : str
        How to cite the data.
    tried : tuple of tuple of str
        For a sample: the sources that failed, each with its answer.

    Raises
    ------
    NotFound
        ``dataset["resource"]`` for a name that the data set does not have.

    Examples
    --------
    >>> digits = Dataset("digits", "Digits", "1.0.0", False, {"images": Path("/a")}, {"images": "5e" * 32}, "digits")
    >>> digits, digits["images"].name, list(digits)
    (<Dataset digits 1.0.0 "Digits", 1 file, sha256 4f09449ad28d>, 'a', ['images'])
    """

    name: str
    title: str
    version: str
    sample: bool
    paths: Mapping[str, Path]
    hashes: Mapping[str, str]
    ref: str
    licences: tuple[str, ...] = ()
    citation: str = ""
    tried: tuple[tuple[str, str], ...] = ()

    @property
    def sha256(self) -> str:
        """One hash for all files: the SHA-256 of the sorted lines "resource hash"."""
        lines = (f"{name} {self.hashes[name]}\n" for name in sorted(self.hashes))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def __getitem__(self, name: str) -> Path:
        if name in self.paths:
            return self.paths[name]
        raise NotFound(f"The data set '{self.title}' has no resource '{name}'. {did_you_mean(str(name), self.paths)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        files = "1 file" if len(self) == 1 else f"{len(self)} files"
        return f'<Dataset {self.name} {self.version} "{self.title}", {files}, sha256 {self.sha256[:12]}>'

    def _repr_html_(self) -> str:
        from genokit.display import card, size, table

        files = [
            (name, size(path.stat().st_size) if path.exists() else None, self.hashes[name][:16], path)
            for name, path in self.paths.items()
        ]
        rows = {
            "name": f"{self.name} {self.version}",
            "licence": "; ".join(self.licences) or "not stated",
            "citation": self.citation,
            "sha256": self.sha256,
        }
        fold: dict[str, object] = {f"Files ({len(self)})": table(files, columns=["resource", "size", "sha256", "path"])}
        if self.tried:
            fold["Sources that failed"] = table(self.tried, columns=["source", "answer"])
        shown = [row for row in rows.items() if row[1]]
        return card(self.title, shown, status="sample" if self.sample else "verified", fold=fold)
