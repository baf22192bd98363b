"""Public concept maps of MIMIC's codes, read in the format in which they were published.

The data sets ``ohdsi-mimic-maps`` and ``mimic-omop-maps`` have them; FILES lists what is used of each. The kit's own
lists take precedence, as they were checked against both where they differ; then OHDSI's maps, then MIT's, which are
older. Not used: maps of infusions (most give the concept of a fluid balance, a measurement), of chart labels (which
count alarm limits as readings) and of routes by MIT (concepts that are no longer standard).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from genokit.errors import InvalidSource, NotFound, did_you_mean

if TYPE_CHECKING:
    from genokit.data import Dataset

    Place: TypeAlias = str | os.PathLike[str] | Dataset

LOCAL = 2_000_000_000  # concept ids from here on are a site's own
Row = tuple[str, str, int, str, str]  # vocabulary, code, concept, domain, meaning


@dataclass(frozen=True)
class Map:
    """A file's columns, the vocabulary of its codes, and the domains whose rows are used."""

    vocabulary: str
    domains: tuple[str, ...]
    code: str = "concept_code"
    concept: str = "target_concept_id"
    meaning: str = "concept_name"
    domain: str | None = "source_domain_id"  # None: all rows are of the first of the domains


FILES = {
    "gcpt_meas_lab_loinc_mod": Map("mimic3 items", ("Measurement",)),
    "gcpt_meas_chartevents_main_mod": Map("mimic3 items", ("Measurement", "Observation")),
    "gcpt_meas_chartevents_value": Map("mimic3 values", ("Meas Value",)),
    "gcpt_outputevents": Map("mimic3 items", ("Measurement",)),
    "gcpt_proc_itemid": Map("mimic3 items", ("Procedure", "Measurement")),
    "gcpt_proc_datetimeevents": Map("mimic3 items", ("Procedure",)),
    "gcpt_micro_specimen": Map("mimic3 items", ("Specimen",)),
    "gcpt_micro_organism": Map("mimic3 items", ("Observation",)),
    "gcpt_meas_unit": Map("mimic3 units", ("Unit",)),
    "gcpt_drug_route": Map("mimic3 routes", ("Route",)),
    "gcpt_drug_ndc": Map("mimic3 drugs", ("Drug",)),
    "gcpt_obs_drgcodes": Map("mimic3 drgs", ("Observation",)),
    "output_label_to_concept": Map("mimic3 items", ("Measurement",), "item_id", "concept_id", "label", None),
    "datetimeevents_to_concept": Map(
        "mimic3 items", ("Procedure",), "itemid", "observation_concept_id", "label", None
    ),
}  # fmt: skip


def find(places: Iterable[Place]) -> dict[str, Path]:
    """The files of FILES in folders and data sets, in its order; of duplicates the first. Raises NotFound."""
    found: dict[str, Path] = {}
    for place in places:
        files, name = _listed(place)
        known = {file.stem: file for file in files if file.stem in FILES}
        if not known:
            raise NotFound(
                f"{name} has none of the public concept maps, such as {next(iter(FILES))}.csv. "
                f"{did_you_mean(next(iter(files), Path()).stem, FILES)} "
                "Fetch them with Manifest('ohdsi-mimic-maps').fetch() and Manifest('mimic-omop-maps').fetch()."
            )
        found = known | found
    return {stem: found[stem] for stem in FILES if stem in found}


def read(files: Mapping[str, Path], own: Iterable[Row]) -> list[Row]:
    """The rows that the maps add to the kit's own lists; a concept keeps the domain and the meaning of its first row.

    Rows without a standard concept, or whose concept has a domain that is not its map's, are left out. Codes are in
    capitals. Raises InvalidSource, naming file and line.
    """
    known, domains, meanings = set[tuple[str, str]](), dict[int, str](), dict[int, str]()
    for vocabulary, code, concept, domain, meaning in own:
        known.add((vocabulary, code))
        domains.setdefault(concept, domain)
        meanings.setdefault(concept, meaning)
    rows = list[Row]()
    for stem, file in files.items():
        about = FILES[stem]
        for code, concept, domain, meaning in _rows(file, about):
            domain = domains.setdefault(concept, domain)
            if (about.vocabulary, code) not in known and domain in about.domains:
                known.add((about.vocabulary, code))
                rows.append((about.vocabulary, code, concept, domain, meanings.setdefault(concept, meaning)))
    return rows


def _listed(place: Place) -> tuple[list[Path], str]:
    if not isinstance(place, (str, os.PathLike)):
        return [path for path in place.paths.values() if path.suffix == ".csv"], f"The data set '{place.title}'"
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise NotFound(f"There is no folder '{folder}' with concept maps. Name one, or a data set that was fetched.")
    return sorted(folder.rglob("*.csv")), f"The folder '{folder}'"


def _rows(file: Path, about: Map) -> Iterator[tuple[str, int, str, str]]:
    """Code, concept, domain and meaning of each row that may be used."""
    columns = [about.code, about.concept, about.meaning, *([about.domain] if about.domain else [])]
    mend = "Fetch the map again, or correct that line."
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, strict=True)
            for row in reader:
                where = f"{file.name}, line {reader.line_num}"
                if None in row or None in row.values() or not row.keys() >= {*columns}:
                    raise InvalidSource(f"{where}: it needs {', '.join(columns)}, and a value for each name. {mend}")
                code, concept = row[about.code].strip().upper(), row[about.concept].strip()
                domain = row[about.domain] if about.domain else about.domains[0]
                if not code or concept in ("", "NA") or domain not in about.domains:
                    continue
                is_code = about.vocabulary != "mimic3 items" or (code.isdecimal() and len(code) < 10)
                if not (is_code and concept.isdecimal()):
                    raise InvalidSource(f"{where}: '{code[:40]}' or '{concept[:40]}' is not an id. {mend}")
                if 0 < int(concept) < LOCAL:
                    yield code, int(concept), domain, " ".join(row[about.meaning].split()) or code
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidSource(f"{file.name} is not CSV in UTF-8: {error}. {mend}") from error
