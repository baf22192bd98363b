"""The sample sheet: which reads a sample has. What is wrong is found before anything runs, by row and column."""

from __future__ import annotations

import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit import storage
from genokit.backends import Clients
from genokit.errors import GenokitError, InvalidParameters

if TYPE_CHECKING:
    import pandas as pd

Lanes = dict[str, dict[str, str]]  # of each lane its one or two files, each with its stamp
FASTQ = ("fastq_1", "fastq_2")
MOST = 20  # problems listed at once
NAMES = "Use up to 100 letters, digits, '.', '_' and '-', and begin with a letter or digit"  # what the pattern means


def read_sheet(sheet: pd.DataFrame | storage.Address, clients: Clients) -> dict[str, Lanes]:
    """Read a sample sheet; returns the lanes of each sample. Raises InvalidParameters with all that is wrong."""
    fields = json.loads(Path(__file__).with_name("sheet.schema.json").read_text(encoding="utf-8"))["fields"]
    named, rows = _rows(sheet, [field["name"] for field in fields], clients)
    samples: dict[str, Lanes] = {}
    patients: dict[str, str] = {}
    seen: dict[str, int] = {}
    addresses = {row[column] for row in rows for column in FASTQ if row[column]}
    with ThreadPoolExecutor(10) as pool:  # botocore keeps as many connections
        stamps = {address: pool.submit(stamp, address, clients) for address in addresses}
    problems = [] if rows else ["it has no rows, so that no step has an input"]
    for number, row in enumerate(rows, 1):
        wrong: list[tuple[str, str]] = []  # the columns, and what is wrong with them
        for name, rules in ((field["name"], field["constraints"]) for field in fields):
            if rules["required"] and not row[name]:
                wrong.append((name, "it is empty"))
            elif not re.fullmatch(rules.get("pattern", ".*"), row[name]):
                wrong.append((name, f"{row[name]!r} is not allowed. {NAMES}"))
        files: dict[str, str] = {}
        for column, address in ((one, row[one]) for one in FASTQ if row[one]):
            if address in seen:
                wrong.append((column, f"'{address}' is in row {seen[address]} already"))
            seen[address] = number
            try:
                files[address] = stamps[address].result()
            except GenokitError as error:
                wrong.append((column, str(error)))
        sample = row["sample"]
        patient, lanes = patients.setdefault(sample, row["patient"]), samples.setdefault(sample, {})
        if patient != row["patient"]:
            said = f"sample '{sample}' is of '{patient}' in another row, and of '{row['patient']}' here"
            wrong.append(("patient", said))
        if row["lane"] in lanes:
            wrong.append(("lane", f"sample '{sample}' has lane '{row['lane']}' in another row"))
        if any(len(files) != len(others) for others in lanes.values()):
            wrong.append(("fastq_2", f"sample '{sample}' has pairs in one row and single reads in another"))
        lanes[row["lane"]] = files
        problems += [f"row {number}, column '{column}': {said}" for column, said in wrong]
    if problems:
        problems[MOST:] = [f"and {len(problems) - MOST} more"] if len(problems) > MOST else []
        listed = "".join(f"\n    {one}" for one in problems)
        raise InvalidParameters(f"The sample sheet {named} cannot be used, and nothing was submitted:{listed}")
    return samples


def stamp(address: str, clients: Clients) -> str:
    """A file's stamp. Raises InvalidParameters for a file that jobs cannot read, NotFound and others."""
    if not (clients.backend.shares_folders or storage.is_s3(address)):
        raise InvalidParameters(f"A job on AWS cannot read '{address}' of this machine. Copy it to S3.")
    return storage.stamp(address, clients=clients)


def _rows(sheet: pd.DataFrame | storage.Address, columns: list[str], clients: Clients) -> tuple[str, list[Any]]:
    """What the sheet is called in errors, and its rows as texts, in which the files have no relative parts."""
    import pandas as pd

    named, folder = "(a DataFrame)", ""
    if not isinstance(sheet, pd.DataFrame):
        named, folder = f"'{sheet}'", storage.absolute(sheet).rpartition("/")[0]
        try:
            sheet = pd.read_csv(io.BytesIO(storage.read(sheet, clients=clients)), dtype=str, keep_default_na=False)
        except ValueError as error:  # of pandas, and of what is not UTF-8
            raise InvalidParameters(f"The sample sheet {named} is not a CSV file: {error}.") from error
        sheet = sheet.reset_index(drop=isinstance(sheet.index, pd.RangeIndex))  # rows with more values than columns
    if sorted(names := list(map(str, sheet.columns))) != sorted(columns):
        missing = ", ".join(column for column in columns if column not in names) or "none"
        raise InvalidParameters(
            f"The sample sheet {named} must have the columns {', '.join(columns)}, separated by commas, and no others. "
            f"It has: {', '.join(names)[:500]}. Missing: {missing}."
        )
    texts = sheet.astype(object).where(sheet.notna(), "").astype(str).map(str.strip)
    for column in FASTQ:
        texts[column] = [storage.absolute(text, folder) if text else "" for text in texts[column]]
    return named, texts.to_dict("records")
