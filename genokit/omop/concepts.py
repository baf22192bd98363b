"""Concepts of the OMOP vocabularies, and sets of them as OHDSI's ATLAS defines and exchanges them."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit.errors import ConfigError, InvalidParameters, NotFound, did_you_mean
from genokit.files import write_atomic

if TYPE_CHECKING:
    from pandas import DataFrame

    from genokit.display import Html, Tree
    from genokit.omop.cdm import Cdm

QUERIES = Path(__file__).parent / "sql" / "concepts"
FIELDS = ("concept_id", "concept_name", "domain_id", "vocabulary_id", "concept_class_id", "standard_concept",
          "concept_code", "invalid_reason")  # fmt: skip
SHOWN = 200
MOST = 2**24  # characters of an export of ATLAS
_STANDARD = {"S": "Standard", "C": "Classification"}


@dataclass(frozen=True)
class Concept:
    """One concept, as the CDM's table of concepts has it; it knows what is above and below it.

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
    cdm: Cdm | None = field(default=None, repr=False, compare=False)

    def ancestors(self) -> DataFrame:
        """What it is a kind of, the nearest first; ``levels`` counts the steps."""
        return _asked(self.cdm, "ancestors", id=self.concept_id)

    def descendants(self) -> ConceptSet:
        """It and all its kinds, as a set; ``table()`` lists them."""
        return ConceptSet(self.concept_name, (Item(self, descendants=True),), self.cdm)

    def maps_to(self) -> DataFrame:
        """The standard concepts that stand for it; of a standard concept, itself."""
        return _asked(self.cdm, "maps_to", id=self.concept_id)

    def tree(self, keep: Collection[int] | None = None) -> Tree:
        """It and its kinds as ``display.tree`` takes them, each once, below the nearest; ``keep`` leaves others out."""
        names, below = dict[int, str](), dict[int, list[int]]()
        for concept, name, parent in _asked(self.cdm, "kinds", id=self.concept_id).itertuples(index=False):
            if keep is None or concept in keep:
                names[int(concept)] = str(name)
                below.setdefault(int(parent), []).append(int(concept))
        places, seen, todo = dict[int, list[int]](), {self.concept_id}, [self.concept_id]
        for parent in todo:  # breadth first: it grows while it is walked
            places[parent] = [one for one in below.get(parent, []) if one not in seen]
            seen.update(places[parent])
            todo += places[parent]
        places[self.concept_id] += [one for one in names if one not in seen]  # what is between is not in the vocabulary
        names[self.concept_id] = self.concept_name

        def branch(one: int) -> Tree:
            return names[one], [branch(kind) for kind in places.get(one, [])]

        return branch(self.concept_id)

    def __repr__(self) -> str:
        words = f"{self.concept_id} {self.concept_name}, {self.domain_id}, {self.vocabulary_id}"
        return f"<Concept {' '.join(words.split())}>"

    def _repr_html_(self) -> str:
        from genokit import display

        about: dict[str, object] = {
            "id": self.concept_id,
            "domain": self.domain_id,
            "vocabulary": f"{self.vocabulary_id} {self.concept_code}, {self.concept_class_id}",
            "standard": _STANDARD.get(self.standard_concept or "", "no: maps_to() says what stands for it"),
        }
        if self.invalid_reason:
            about["valid"] = "no longer"
        fold: dict[str, object] = {}
        if self.cdm is not None and self.cdm.database.free:
            above = self.ancestors()
            fold = {f"Ancestors ({len(above)})": display.table(above[["levels", *FIELDS[:4]]])}
            fold["Kinds"] = display.tree([self.tree()], most=SHOWN)
        return display.card(self.concept_name, about, fold=fold)


@dataclass(frozen=True)
class Item:
    """A concept in a set: taken or left out, with its descendants or alone, with what maps to it or not."""

    concept: Concept
    excluded: bool = False
    descendants: bool = False
    mapped: bool = False


@dataclass(frozen=True)
class ConceptSet:
    """What a study means by a term: concepts to include and to exclude, as in ATLAS. It never changes; ``include`` and
    ``exclude`` give a new one.

    >>> from genokit import Cdm
    >>> cdm = Cdm()
    >>> nsaids = cdm.concept_set("NSAIDs").include(1118084, 1124300).exclude(1118084, descendants=False)
    >>> nsaids, 1118084 in nsaids
    (<ConceptSet NSAIDs, 3 items>, False)
    """

    name: str
    items: tuple[Item, ...] = ()
    cdm: Cdm | None = field(default=None, repr=False, compare=False)

    def include(self, *concepts: int | Concept, descendants: bool = True, mapped: bool = False) -> ConceptSet:
        """The set with these too, by default with all their kinds. Raises NotFound."""
        return self._with(concepts, excluded=False, descendants=descendants, mapped=mapped)

    def exclude(self, *concepts: int | Concept, descendants: bool = True, mapped: bool = False) -> ConceptSet:
        """The set without these, whatever else includes them. Raises NotFound."""
        return self._with(concepts, excluded=True, descendants=descendants, mapped=mapped)

    def table(self) -> DataFrame:
        """All concepts that the set means in its CDM's vocabulary, by name."""
        included = self._resolved([item for item in self.items if not item.excluded])
        out = [item for item in self.items if item.excluded]
        if not out:
            return included
        left = ~included["concept_id"].isin(self._resolved(out)["concept_id"])
        return included[left].reset_index(drop=True)

    def tolist(self) -> list[int]:
        """The ids of all that the set means; a query takes the set itself: ``query("... in $ids", ids=nsaids)``."""
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
        """The set as ATLAS imports it; also written to ``file``, if one is named."""
        text = json.dumps({"items": [_item_json(item) for item in self.items]}, indent=2, ensure_ascii=False)
        if file is not None:
            write_atomic(file, text + "\n")
        return text

    def _with(self, concepts: Sequence[int | Concept], **how: bool) -> ConceptSet:
        if self.cdm is None and not all(isinstance(one, Concept) for one in concepts):
            raise ConfigError("This set knows no CDM to look ids up in. Take it from one: cdm.concept_set(name).")
        found = {} if self.cdm is None else of(self.cdm, [one for one in concepts if not isinstance(one, Concept)])
        known = [one if isinstance(one, Concept) else found[one] for one in concepts]
        items = [item for item in self.items if item.excluded != how["excluded"] or item.concept not in known]
        return replace(self, items=(*items, *(Item(concept, **how) for concept in known)))

    def _resolved(self, items: Sequence[Item]) -> DataFrame:
        def ids(chosen: Iterable[Item]) -> list[int]:
            return [item.concept.concept_id for item in chosen]

        return _asked(
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
        from genokit import display

        rows = [
            {"id": item.concept.concept_id, "concept": item.concept.concept_name, "in the set": _words(item)}
            for item in self.items
        ]
        about: dict[str, object] = {"items": display.table(rows) if rows else "none: include() adds some"}
        fold: dict[str, object] = {}
        if self.items and self.cdm is not None and self.cdm.database.free:
            found = self.table()
            about["concepts"] = f"{len(found):,}"
            fold[f"Concepts ({len(found):,})"] = display.table(found[[*FIELDS[:4], "concept_code"]], most=SHOWN)
            fold["Tree"] = self._tree(set(found["concept_id"]))
        return display.card(f"Concept set {self.name}", about, fold=fold)

    def _tree(self, keep: Collection[int]) -> Html:
        from genokit import display

        taken = [item for item in self.items if not item.excluded]
        return display.tree(
            [item.concept.tree(keep) if item.descendants else (item.concept.concept_name, []) for item in taken],
            most=SHOWN,
        )


def of(cdm: Cdm, ids: Sequence[int]) -> dict[int, Concept]:
    """The concepts of some ids. Raises NotFound."""
    rows = _asked(cdm, "concepts", ids=list(ids)).itertuples(index=False, name=None) if ids else ()
    found = {int(row[0]): _concept(row, cdm) for row in rows}
    for one in ids:
        if one not in found:
            raise NotFound(
                f"The vocabulary of this CDM has no concept {one}. concepts('a name') searches it; a larger vocabulary "
                "comes from athena.ohdsi.org."
            )
    return found


def names(cdm: Cdm, ids: Sequence[int]) -> dict[int, str]:
    """What concepts are called; those that the vocabulary does not know, by their id."""
    known = _asked(cdm, "concepts", ids=list(ids)) if ids else None
    found = {} if known is None else dict(zip(known["concept_id"], known["concept_name"], strict=True))
    return {one: str(found.get(one, f"concept {one}")) for one in ids}


def search(
    cdm: Cdm, words: str, *, domain: str | None, vocabulary: str | None, standard: bool | None, most: int
) -> DataFrame:
    """Concepts by name, synonym or code, the likeliest first; where no name has all the words, those with near ones.

    Raises NotFound, InvalidParameters.
    """
    parts = sorted(set(words.lower().split()))
    if not parts:
        raise InvalidParameters("There is nothing to search for. Give a name, as in concepts('metformin').")
    given = {"domain": domain, "vocabulary": vocabulary, "standard": standard}
    found = _asked(cdm, "search", pieces=parts, least=len(parts), **given)
    if found.empty:
        pieces = sorted({piece for part in parts for piece in _pieces(part)})
        found = _asked(cdm, "search", pieces=pieces, least=max(1, round(len(pieces) * 0.4)), **given)
    if found.empty:
        for column, value in (("domain_id", domain), ("vocabulary_id", vocabulary)):
            known = [] if value is None else _asked(cdm, "sorts")[column].unique().tolist()
            if value is not None and value.lower() not in map(str.lower, known):
                raise NotFound(f"The vocabulary has no {column} '{value}'. {did_you_mean(value, known)}")
    return _ranked(found, parts).head(most).reset_index(drop=True)


def _pieces(word: str) -> list[str]:
    """The parts of a word that a misspelt one may share with it; smaller ones of a short word.

    >>> _pieces("asthma"), _pieces("metformin")[:3]
    (['as', 'st', 'th', 'hm', 'ma'], ['met', 'etf', 'tfo'])
    """
    size = 2 if len(word) < 8 else 3
    return [word[i : i + size] for i in range(max(1, len(word) - size + 1))]


def read(source: str | os.PathLike[str] | Mapping[str, Any], cdm: Cdm | None, name: str | None) -> ConceptSet:
    """A set from ATLAS's JSON: a concept set, its expression, or one set (by name) of a whole cohort definition.

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
    told = found if isinstance(found, Mapping) else {"items": found}
    inner = told.get("expression", told)
    items = inner.get("items") if isinstance(inner, Mapping) else None
    if not isinstance(items, list) or not all(
        isinstance(one, Mapping) and isinstance(one.get("concept"), Mapping) for one in items
    ):
        raise InvalidParameters(
            f'{called} is no concept set of ATLAS. Expected {{"items": [{{"concept": ..., "isExcluded": ...}}]}}, as '
            "its export tab gives it."
        )
    return ConceptSet(
        name or str(told.get("name") or "concept set"), tuple(_item(one, cdm, called) for one in items), cdm
    )


def content(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Any, str]:
    """What a JSON file, a JSON text or its content holds, and what to call it. Raises InvalidParameters, NotFound."""
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


def _item(item: Mapping[str, Any], cdm: Cdm | None, called: str) -> Item:
    told = {str(key).lower(): value for key, value in item["concept"].items()}
    try:
        number = int(told["concept_id"])
    except (KeyError, TypeError, ValueError):
        raise InvalidParameters(
            f"{called} has an item without a CONCEPT_ID: {item['concept']}. Export it again."
        ) from None
    name, domain, vocabulary, kind, standard, code, invalid = (str(told.get(name) or "") for name in FIELDS[1:])
    concept = Concept(
        number, name, domain, vocabulary, kind, standard if standard in _STANDARD else None, code,
        None if invalid in ("V", "") else invalid, cdm,
    )  # fmt: skip
    flags = [bool(item.get(flag, False)) for flag in ("isExcluded", "includeDescendants", "includeMapped")]
    return Item(concept, *flags)


def _item_json(item: Item) -> dict[str, Any]:
    one = item.concept
    concept = {
        "CONCEPT_ID": one.concept_id,
        "CONCEPT_NAME": one.concept_name,
        "STANDARD_CONCEPT": one.standard_concept or "N",
        "STANDARD_CONCEPT_CAPTION": _STANDARD.get(one.standard_concept or "", "Non-Standard"),
        "INVALID_REASON": one.invalid_reason or "V",
        "INVALID_REASON_CAPTION": "Invalid" if one.invalid_reason else "Valid",
        "CONCEPT_CODE": one.concept_code,
        "DOMAIN_ID": one.domain_id,
        "VOCABULARY_ID": one.vocabulary_id,
        "CONCEPT_CLASS_ID": one.concept_class_id,
    }
    flags = {"isExcluded": item.excluded, "includeDescendants": item.descendants, "includeMapped": item.mapped}
    return {"concept": concept, **flags}


def _ranked(found: DataFrame, parts: Sequence[str]) -> DataFrame:
    """Each concept once, with the score of its best name: how near its words are, then how short it is."""
    alike: dict[tuple[str, str], float] = {}

    def near(part: str, word: str) -> float:
        if (part, word) not in alike:
            alike[part, word] = difflib.SequenceMatcher(None, part, word).ratio()
        return alike[part, word]

    whole = sum(map(len, parts)) + len(parts) - 1
    scores = []
    for name in found["name"]:
        words = re.findall(r"[^\s()\[\],;/]+", name) or [name]
        best = sum(max(near(part, word) for word in words) for part in parts) / len(parts)
        scores.append(round(0.8 * best + 0.2 * whole / max(whole, len(name)), 3))
    ranked = found.assign(score=scores, other=found["standard_concept"].ne("S").fillna(True)).query("score >= 0.5")
    ranked = ranked.sort_values(["score", "other", "concept_name"], ascending=[False, True, True])
    return ranked.drop_duplicates("concept_id").drop(columns=["name", "other"])


def _words(item: Item) -> str:
    with_ = [word for word, is_so in (("descendants", item.descendants), ("what maps to it", item.mapped)) if is_so]
    return ("excluded" if item.excluded else "included") + (f", with {' and '.join(with_)}" if with_ else "")


def _concept(row: Sequence[Any], cdm: Cdm) -> Concept:
    import pandas as pd

    number, *texts = row
    told = [None if pd.isna(text) else str(text) for text in texts]
    name, domain, vocabulary, kind, standard, code, invalid = told
    return Concept(
        int(number), name or "", domain or "", vocabulary or "", kind or "", standard, code or "", invalid, cdm
    )


def _asked(cdm: Cdm | None, name: str, **values: object) -> DataFrame:
    if cdm is None:
        raise ConfigError(
            "This concept knows no CDM to look in. Take it from one: cdm.concept(...), cdm.concept_set(...)."
        )
    return cdm.lookup(_query(name), values)


@cache
def _query(name: str) -> str:
    return (QUERIES / f"{name}.sql").read_text(encoding="utf-8")
