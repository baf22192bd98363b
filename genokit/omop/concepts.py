"""Concepts of the OMOP vocabularies, and sets of them as OHDSI's ATLAS defines and exchanges them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pandas import DataFrame

from genokit import display
from genokit.errors import ConfigError, InvalidParameters, NotFound, did_you_mean
from genokit.files import write_atomic
from genokit.omop.connection import CdmConnection

QUERIES = Path(__file__).parent / "sql" / "concepts"
FIELDS = ("concept_id", "concept_name", "domain_id", "vocabulary_id", "concept_class_id", "standard_concept",
          "concept_code", "invalid_reason")  # fmt: skip
SHOWN = 200
MOST = 2**24  # characters of an export of ATLAS
_STANDARD = {"S": "Standard", "C": "Classification"}


@dataclass(frozen=True)
class Concept:
    """One concept of the vocabulary, with the columns of the CDM's table ``concept``. ``Cdm.concept`` finds it.

    Parameters
    ----------
    concept_id, concept_name, domain_id, vocabulary_id, concept_class_id, concept_code
        As in the CDM.
    standard_concept
        "S" for a standard concept, "C" for a classification, None for any other.
    invalid_reason
        None while the concept is valid.
    cdm
        The Cdm in which ancestors and descendants are looked up.

    Examples
    --------
    >>> from genokit import Cdm
    >>> Cdm().concept(192671)
    <Concept 192671 Gastrointestinal hemorrhage, Condition, SNOMED>
    """

    concept_id: int
    concept_name: str
    domain_id: str
    vocabulary_id: str
    concept_class_id: str
    standard_concept: str | None
    concept_code: str
    invalid_reason: str | None = None
    cdm: CdmConnection | None = field(default=None, repr=False, compare=False)

    def ancestors(self) -> DataFrame:
        """Its ancestors, the nearest first: a DataFrame of concepts, in which ``levels`` counts the steps."""
        return lookup(self.cdm, "ancestors", id=self.concept_id)

    def descendants(self) -> ConceptSet:
        """A ConceptSet of the concept and all its descendants; ``table()`` lists them."""
        return ConceptSet(self.concept_name, (Item(self, descendants=True),), self.cdm)

    def maps_to(self) -> DataFrame:
        """A DataFrame of the standard concepts that it maps to; a standard concept maps to itself."""
        return lookup(self.cdm, "maps_to", id=self.concept_id)

    def __repr__(self) -> str:
        words = f"{self.concept_id} {self.concept_name}, {self.domain_id}, {self.vocabulary_id}"
        return f"<Concept {' '.join(words.split())}>"

    def _repr_html_(self) -> str:
        about: dict[str, object] = {
            "id": self.concept_id,
            "domain": self.domain_id,
            "vocabulary": f"{self.vocabulary_id} {self.concept_code}, {self.concept_class_id}",
            "standard": _STANDARD.get(self.standard_concept or "", "no; maps_to() gives the standard concepts"),
        }
        if self.invalid_reason:
            about["valid"] = "no longer"
        fold: dict[str, object] = {}
        if self.cdm is not None and self.cdm.database.free:
            for what in ("ancestors", "descendants"):
                found = lookup(self.cdm, what, id=self.concept_id)[["levels", *FIELDS[:4]]]
                fold[f"{what.capitalize()} ({len(found):,})"] = display.table(found, most=SHOWN)
        return display.card(self.concept_name, about, fold=fold)


@dataclass(frozen=True)
class Item:
    """A concept in a set: included or excluded, with or without its descendants and the concepts that map to it."""

    concept: Concept
    excluded: bool = False
    descendants: bool = False
    mapped: bool = False


@dataclass(frozen=True)
class ConceptSet:
    """A set of concepts to include and to exclude, as in ATLAS. Make one with ``Cdm.concept_set``.

    A set never changes: ``include`` and ``exclude`` return a new one. Iterating over a set, ``len`` and ``in`` look up
    which concepts it includes in the vocabulary of its CDM.

    Parameters
    ----------
    name
        What to call it.
    items
        The concepts, and how each is in the set.
    cdm
        The Cdm in which concepts are looked up.

    Examples
    --------
    >>> from genokit import Cdm
    >>> cdm = Cdm()
    >>> nsaids = cdm.concept_set("NSAIDs").include(1118084, 1124300).exclude(1118084, descendants=False)
    >>> nsaids, 1118084 in nsaids
    (<ConceptSet NSAIDs, 3 items>, False)
    """

    name: str
    items: tuple[Item, ...] = ()
    cdm: CdmConnection | None = field(default=None, repr=False, compare=False)

    def include(self, *concepts: int | Concept, descendants: bool = True, mapped: bool = False) -> ConceptSet:
        """A new set that also includes some concepts.

        Parameters
        ----------
        concepts
            Ids or Concepts.
        descendants
            Include their descendants, too.
        mapped
            Include concepts that map to them, too.

        Returns
        -------
        ConceptSet

        Raises
        ------
        NotFound
            If the vocabulary lacks an id.
        """
        return self._with(concepts, excluded=False, descendants=descendants, mapped=mapped)

    def exclude(self, *concepts: int | Concept, descendants: bool = True, mapped: bool = False) -> ConceptSet:
        """A new set that excludes some concepts, whatever else includes them.

        Parameters
        ----------
        concepts
            Ids or Concepts.
        descendants
            Exclude their descendants, too.
        mapped
            Exclude concepts that map to them, too.

        Returns
        -------
        ConceptSet

        Raises
        ------
        NotFound
            If the vocabulary lacks an id.
        """
        return self._with(concepts, excluded=True, descendants=descendants, mapped=mapped)

    def table(self) -> DataFrame:
        """A DataFrame of all concepts in the set, by name, from its CDM's vocabulary."""
        included = self._resolved([item for item in self.items if not item.excluded])
        out = [item for item in self.items if item.excluded]
        if not out:
            return included
        left = ~included["concept_id"].isin(self._resolved(out)["concept_id"])
        return included[left].reset_index(drop=True)

    def tolist(self) -> list[int]:
        """The ids of all concepts in the set. A query takes the set itself: ``query("... in $ids", ids=nsaids)``."""
        return [int(concept) for concept in self.table()["concept_id"]]

    def __iter__(self) -> Iterator[int]:
        return iter(self.tolist())

    def __len__(self) -> int:
        return len(self.tolist())

    def __contains__(self, concept: object) -> bool:
        return concept in self.tolist()

    def __bool__(self) -> bool:
        return bool(self.items)

    def to_json(self, file: str | os.PathLike[str] | None = None) -> str:
        """The set as JSON, as ATLAS imports it.

        Parameters
        ----------
        file
            A file to write it to as well.

        Returns
        -------
        str
        """
        text = json.dumps({"items": [_item_json(item) for item in self.items]}, indent=2, ensure_ascii=False)
        if file is not None:
            write_atomic(file, text + "\n")
        return text

    def _with(self, concepts: Sequence[int | Concept], **how: bool) -> ConceptSet:
        if self.cdm is None and not all(isinstance(one, Concept) for one in concepts):
            raise ConfigError("This set has no CDM to look up ids in. Make it with cdm.concept_set(name).")
        found = {} if self.cdm is None else of(self.cdm, [one for one in concepts if not isinstance(one, Concept)])
        known = [one if isinstance(one, Concept) else found[one] for one in concepts]
        items = [item for item in self.items if item.excluded != how["excluded"] or item.concept not in known]
        return replace(self, items=(*items, *(Item(concept, **how) for concept in known)))

    def _resolved(self, items: Sequence[Item]) -> DataFrame:
        def ids(chosen: Iterable[Item]) -> list[int]:
            return [item.concept.concept_id for item in chosen]

        return lookup(
            self.cdm,
            "resolved",
            ids=ids(items),
            down=ids(item for item in items if item.descendants),
            mapped=ids(item for item in items if item.mapped),
            mapped_down=ids(item for item in items if item.mapped and item.descendants),
        )

    def __repr__(self) -> str:
        return (
            f"<ConceptSet {' '.join(self.name.split())}, {len(self.items)} item{'s' if len(self.items) != 1 else ''}>"
        )

    def _repr_html_(self) -> str:
        rows = [
            {"id": item.concept.concept_id, "concept": item.concept.concept_name, "in the set": _words(item)}
            for item in self.items
        ]
        about: dict[str, object] = {"items": display.table(rows) if rows else "none; include() adds some"}
        fold: dict[str, object] = {}
        if self.items and self.cdm is not None and self.cdm.database.free:
            found = self.table()
            about["concepts"] = f"{len(found):,}"
            fold[f"Concepts ({len(found):,})"] = display.table(found[[*FIELDS[:4], "concept_code"]], most=SHOWN)
        return display.card(f"Concept set {self.name}", about, fold=fold)


def of(cdm: CdmConnection, ids: Sequence[int]) -> dict[int, Concept]:
    """The concepts of some ids. Raises NotFound."""
    rows = lookup(cdm, "concepts", ids=list(ids)).to_dict("records") if ids else ()
    found = {int(row["concept_id"]): _concept(row, cdm) for row in rows}
    for one in ids:
        if one not in found:
            raise NotFound(
                f"The vocabulary of this CDM has no concept {one}. concepts('a name') searches it; a larger vocabulary "
                "comes from athena.ohdsi.org."
            )
    return found


def names(cdm: CdmConnection, ids: Sequence[int]) -> dict[int, str]:
    """The names of concepts; "concept 1" for one that the vocabulary lacks."""
    known = lookup(cdm, "concepts", ids=list(ids)) if ids else None
    found = {} if known is None else dict(zip(known["concept_id"], known["concept_name"], strict=True))
    return {one: str(found.get(one, f"concept {one}")) for one in ids}


def read(source: str | os.PathLike[str] | Mapping[str, Any], cdm: CdmConnection | None, name: str | None) -> ConceptSet:
    """A set from ATLAS's JSON: a concept set, its expression, or a set of a cohort definition, by name.

    ``source`` is a file, the JSON's text or its content. Raises InvalidParameters, NotFound.
    """
    found, called = content(source)
    if isinstance(found, Mapping) and "ConceptSets" in found:
        sets = {str(one.get("name")): one for one in found["ConceptSets"]}
        if name is None and len(sets) == 1:
            [name] = sets
        if name not in sets:
            raise NotFound(f"The cohort definition has no concept set '{name}'. {did_you_mean(str(name), sets)}")
        found = sets[name]
    outer = found if isinstance(found, Mapping) else {"items": found}
    inner = outer.get("expression", outer)
    items = inner.get("items") if isinstance(inner, Mapping) else None
    if not isinstance(items, list) or not all(
        isinstance(one, Mapping) and isinstance(one.get("concept"), Mapping) for one in items
    ):
        raise InvalidParameters(
            f'{called} is not a concept set of ATLAS. Expected {{"items": [{{"concept": ..., "isExcluded": ...}}]}}, '
            "as in its export tab."
        )
    return ConceptSet(
        name or str(outer.get("name") or "concept set"), tuple(_item(one, cdm, called) for one in items), cdm
    )


def content(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Any, str]:
    """The content of a JSON file or text, and what to call its source. Raises InvalidParameters, NotFound."""
    if isinstance(source, Mapping):
        return source, "The content"
    text, called = os.fspath(source), "The text"
    if not text.lstrip().startswith(("{", "[")):
        called = f"'{text}'"
        try:
            with Path(text).expanduser().open(encoding="utf-8-sig") as file:
                text = file.read(MOST + 1)
        except UnicodeDecodeError as error:
            raise InvalidParameters(f"{called} is not JSON: {error}. Export it from ATLAS again.") from error
        except OSError as error:
            raise NotFound(
                f"{called} cannot be read: {error.strerror}. Name a JSON file that ATLAS exported."
            ) from error
    if len(text) > MOST:
        raise InvalidParameters(f"{called} has more than {MOST:,} characters, too many for an export of ATLAS.")
    try:
        return json.loads(text), called
    except (ValueError, RecursionError) as error:
        raise InvalidParameters(f"{called} is not JSON: {error}. Export it from ATLAS again.") from error


def _item(item: Mapping[str, Any], cdm: CdmConnection | None, called: str) -> Item:
    try:
        concept = _concept({str(key).lower(): value for key, value in item["concept"].items()}, cdm)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InvalidParameters(
            f"{called} has an item without a CONCEPT_ID: {item['concept']}. Export it again."
        ) from None
    flags = [bool(item.get(flag, False)) for flag in ("isExcluded", "includeDescendants", "includeMapped")]
    return Item(concept, *flags)


def _item_json(item: Item) -> dict[str, Any]:
    one = item.concept
    concept = {name.upper(): getattr(one, name) for name in FIELDS} | {
        "STANDARD_CONCEPT": one.standard_concept or "N",
        "STANDARD_CONCEPT_CAPTION": _STANDARD.get(one.standard_concept or "", "Non-Standard"),
        "INVALID_REASON": one.invalid_reason or "V",
        "INVALID_REASON_CAPTION": "Invalid" if one.invalid_reason else "Valid",
    }
    flags = {"isExcluded": item.excluded, "includeDescendants": item.descendants, "includeMapped": item.mapped}
    return {"concept": concept, **flags}


def _words(item: Item) -> str:
    with_ = [
        word for word, is_so in (("descendants", item.descendants), ("concepts that map to it", item.mapped)) if is_so
    ]
    return ("excluded" if item.excluded else "included") + (f", with {' and '.join(with_)}" if with_ else "")


def _concept(values: Mapping[Any, Any], cdm: CdmConnection | None) -> Concept:
    """A concept from a row of the CDM's table, or from ATLAS's JSON."""
    texts = {name: str(value) for name in FIELDS[1:] if (value := values.get(name)) and value == value}
    name, domain, vocabulary, kind, standard, code, invalid = (texts.get(name, "") for name in FIELDS[1:])
    return Concept(
        int(values["concept_id"]), name, domain, vocabulary, kind, standard if standard in _STANDARD else None, code,
        None if invalid in ("V", "") else invalid, cdm,
    )  # fmt: skip


def lookup(cdm: CdmConnection | None, name: str, **values: object) -> DataFrame:
    if cdm is None:
        raise ConfigError(
            "This concept has no CDM to look in. Get it from one: cdm.concept(...), cdm.concept_set(...)."
        )
    return cdm.lookup(_query(name), values)


@cache
def _query(name: str) -> str:
    return (QUERIES / f"{name}.sql").read_text(encoding="utf-8")
