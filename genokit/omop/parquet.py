"""The Parquet files of a table in a folder, and the SQL by which DuckDB reads them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from genokit.omop.etl.mimic3 import quoted


def parts(path: Path) -> list[Path]:
    """The Parquet files of a table, without the other files that Spark and editors write there."""
    if not path.is_dir():
        return [path]
    inside = (one.relative_to(path) for one in path.rglob("*") if one.is_file())
    return sorted(path / one for one in inside if is_part(one))


def is_part(path: Path) -> bool:
    """Whether a path below a table's folder is a file of the table.

    >>> [is_part(Path(name)) for name in ("part-0.parquet", "_temporary/part-0.parquet", "_SUCCESS")]
    [True, False, False]
    """
    return path.suffix.lower() == ".parquet" and not any(part.startswith(("_", ".")) for part in path.parts)


def scan(files: Iterable[object], options: str = "hive_partitioning = false") -> str:
    """The rows of files, for DuckDB's FROM.

    >>> scan(["a.parquet", "b.parquet"], "union_by_name = true")
    "read_parquet(['a.parquet', 'b.parquet'], union_by_name = true)"
    """
    return f"read_parquet([{', '.join(map(quoted, files))}], {options})"
