"""The sample sheet: which reads a sample has. What is wrong is found before anything runs, by row and column."""

from __future__ import annotations

import io
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from genokit import storage
from genokit.backends import Clients
from genokit.errors import GenokitError, InvalidParameters

if TYPE_CHECKING:
    import pandas as pd

Lanes = dict[str, dict[str, str]]  # of each lane its one or two files, each with its stamp
FASTQ = ("fastq_1", "fastq_2")
MOST = 20  # problems listed at once


def read_sheet(sheet: pd.DataFrame | str | os.PathLike[str], clients: Clients) -> dict[str, Lanes]:
    """Read a sample sheet; returns the lanes of each sample. Raises InvalidParameters with all that is wrong."""
    fields = json.loads(Path(__file__).with_name("sheet.schema.json").read_text(encoding="utf-8"))["fields"]
    named, folder, rows = _rows(sheet, [field["name"] for field in fields], clients)
    samples: dict[str, Lanes] = {}
    patients: dict[str, str] = {}
    seen: dict[str, int] = {}
    wrong: list[str] = [] if rows else ["it has no rows, so that no step has an input"]
    addresses = {absolute(row[name], folder) for row in rows for name in FASTQ if row[name]}
    with ThreadPoolExecutor(10) as pool:  # botocore keeps as many connections
        stamps = {address: pool.submit(stamp, address, clients) for address in addresses}
    for number, row in enumerate(rows, 1):
        column, of = f"row {number}, column ", f"sample '{row['sample']}'"
        for name, rules in ((field["name"], field["constraints"]) for field in fields):
            if rules["required"] and not row[name]:
                wrong.append(f"{column}'{name}': it is empty")
            elif not re.fullmatch(rules.get("pattern", ".*"), row[name]):
                wrong.append(
                    f"{column}'{name}': {row[name]!r} is not allowed, because it does not match {rules['pattern']}"
                )
        files: dict[str, str] = {}
        for name in (one for one in FASTQ if row[one]):
            address = absolute(row[name], folder)
            if address in seen:
                wrong.append(f"{column}'{name}': '{address}' is in row {seen[address]} already")
            seen[address] = number
            try:
                files[address] = stamps[address].result()
            except GenokitError as error:
                wrong.append(f"{column}'{name}': {error}")
        lanes = samples.setdefault(row["sample"], {})
        if (patient := patients.setdefault(row["sample"], row["patient"])) != row["patient"]:
            wrong.append(f"{column}'patient': {of} is of '{patient}' in another row, and of '{row['patient']}' here")
        if row["lane"] in lanes:
            wrong.append(f"{column}'lane': {of} has lane '{row['lane']}' in another row")
        if any(len(files) != len(others) for others in lanes.values()):
            wrong.append(f"{column}'fastq_2': {of} has pairs in one row and single reads in another")
        lanes[row["lane"]] = files
    if wrong:
        wrong[MOST:] = [f"and {len(wrong) - MOST} more"] if len(wrong) > MOST else []
        listed = "".join(f"\n    {one}" for one in wrong)
        raise InvalidParameters(f"The sample sheet {named} cannot be used, and nothing was submitted:{listed}")
    return samples


def stamp(address: str, clients: Clients) -> str:
    """A file's stamp. Raises InvalidParameters for a file that jobs cannot read, NotFound and others."""
    if not (clients.backend.shares_folders or storage.is_s3(address)):
        raise InvalidParameters(f"A job on AWS cannot read '{address}' of this machine. Copy it to S3.")
    return storage.stamp(address, clients=clients)


def absolute(address: str | os.PathLike[str], folder: str = "") -> str:
    """An address without its relative parts; ``folder``, here or on S3, is where they start."""
    text = os.fspath(address)
    if "://" in text or storage.is_s3(folder):
        return text if "://" in text else storage.join(folder, text)
    return os.path.abspath(os.path.join(folder, os.path.expanduser(text)))


def _rows(
    sheet: pd.DataFrame | str | os.PathLike[str], columns: list[str], clients: Clients
) -> tuple[str, str, list[dict[str, str]]]:
    """What the sheet is called in errors, the folder of its relative paths, and its rows as texts."""
    import pandas as pd

    named, folder = "(a DataFrame)", ""
    if not isinstance(sheet, pd.DataFrame):
        named, folder = f"'{os.fspath(sheet)}'", os.fspath(sheet).rpartition("/")[0]
        try:
            sheet = pd.read_csv(io.BytesIO(storage.read(sheet, clients=clients)), dtype=str, keep_default_na=False)
        except ValueError as error:  # of pandas, and of what is not UTF-8
            raise InvalidParameters(f"The sample sheet {named} is not a CSV file: {error}.") from error
        sheet = sheet.reset_index(drop=isinstance(sheet.index, pd.RangeIndex))  # rows with more values than columns
    if sorted(names := list(map(str, sheet.columns))) != sorted(columns):
        raise InvalidParameters(
            f"The sample sheet {named} must have the columns {', '.join(columns)}. It has: {', '.join(names)}."
        )
    texts = sheet.astype(object).where(sheet.notna(), "").astype(str)
    return named, folder, [{str(name): text.strip() for name, text in row.items()} for row in texts.to_dict("records")]
