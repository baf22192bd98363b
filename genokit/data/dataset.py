"""Dataset: verified files of one data set on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from genokit.errors import NotFound, did_you_mean


@dataclass(frozen=True)
class Dataset:
    """Files whose sha256 was checked: ``dataset["resource"]`` is the path of one, ``dataset.sha256`` stands for all.

    ``sample`` is True where only the manifest's declared sample could be had; the title says so too. ``ref`` is what
    ``Manifest(ref)`` finds this data set by. ``tried`` holds the sources that did not deliver and what each answered.

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
        """One hash that changes with any byte of any file: the SHA-256 of the sorted lines "resource hash"."""
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
            {
                "resource": name,
                "size": size(path.stat().st_size) if path.exists() else None,
                "sha256": self.hashes[name][:16],
                "path": path,
            }
            for name, path in self.paths.items()
        ]
        rows = {
            "name": f"{self.name} {self.version}",
            "licence": "; ".join(self.licences) or "not stated",
            "citation": self.citation,
            "sha256": self.sha256,
        }
        fold: dict[str, object] = {f"Files ({len(self)})": table(files)}
        if self.tried:
            fold["Sources that did not deliver"] = table(self.tried, columns=["source", "answer"])
        shown = [row for row in rows.items() if row[1]]
        return card(self.title, shown, status="sample" if self.sample else "verified", fold=fold)
