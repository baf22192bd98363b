"""The fields of the OMOP CDM 5.4, as its specification lists them: names, order, types, keys.

There are two deliberate differences. Ids other than those of concepts have 64 bits, because ``row_id * 16 + tag`` does
not fit into 32. Texts have no maximum length, so that no source value is cut.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from genokit.errors import NotFound, did_you_mean

_TYPES = {"float": "DOUBLE", "date": "DATE", "datetime": "TIMESTAMP", "varchar": "VARCHAR"}


@dataclass(frozen=True)
class Field:
    """One column: its SQL type, whether it may be null, and the table (and domain) that it points at.

    >>> fields("person")[1]
    Field(name='gender_concept_id', type='INTEGER', required=True, key=False, table='concept', domain='Gender')
    """

    name: str
    type: str
    required: bool
    key: bool
    table: str | None
    domain: str | None


def tables() -> tuple[str, ...]:
    """The names of all tables of the CDM: clinical ones first, then the vocabulary's, then results.

    >>> len(tables()), tables()[0]
    (39, 'person')
    """
    return tuple(_specification())


@cache
def fields(table: str) -> tuple[Field, ...]:
    """The columns of one table, in the CDM's order. Raises NotFound."""
    if table not in _specification():
        raise NotFound(f"The CDM 5.4 has no table '{table}'. {did_you_mean(table, tables())}")
    return tuple(_field(name, text) for name, text in _specification()[table].items())


def _field(name: str, text: str) -> Field:
    match = re.fullmatch(r"(\w+)(?:\(\w+\))?( required)?( key)?(?: -> (\w+)(?: \((.+)\))?)?", text)
    assert match, f"cdm54.json: {name}: {text}"
    kind, required, key, table, domain = match.groups()
    return Field(name, _type(name, kind), bool(required), bool(key), table, domain)


def _type(name: str, kind: str) -> str:
    if kind != "integer":
        return _TYPES[kind]
    return "BIGINT" if re.search(r"(?<!concept)_id(_\d)?$", name) else "INTEGER"


@cache
def _specification() -> dict[str, dict[str, str]]:
    content: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("cdm54.json").read_text(encoding="utf-8"))
    return content
